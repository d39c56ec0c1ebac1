"""Laws of the problems of finite_difference: their digits are right, and the held-out
half is the one written first.
"""

import hashlib

import mpmath
import numpy as np
import pytest

from research.derivatives import problems

# Of the file as it was before the estimator existed, but for the breaks of its lines
# (88 columns instead of 120; its syntax tree is the same). Who must change a held-out
# problem moves it to the other half.
HELD_OUT_SHA256 = "8b13c2b022047fb3d5f4d37cefdce658be4d0abfbee240e13606a4402b38c3aa"

BOTH = (*problems.DEVELOPMENT, *problems.HELD_OUT)
KINDS = {"smooth", "scaled", "noisy", "kink", "jump", "one-sided", "unresolved", "nan"}
WITH_DERIVATIVE = {"smooth", "scaled", "noisy"}
NAMES = (
    "exp",
    "log",
    "log1p",
    "sin",
    "cos",
    "tan",
    "sinh",
    "cosh",
    "tanh",
    "asin",
    "acos",
    "atan",
    "asinh",
    "acosh",
)
NAMES += (
    "atanh",
    "sqrt",
    "cbrt",
    "floor",
    "sign",
    "erf",
    "erfc",
    "gamma",
    "loggamma",
    "nan",
)
PIECEWISE = {
    "where": lambda condition, yes, no: yes if condition else no,
    "maximum": max,
    "minimum": min,
    "rounded": lambda value, decimals: value,
    "single": lambda value: value,
}
# At the point itself these are written by cases: h -> quotient, whose limit is seen by
# eye.
BY_CASES = {
    "x * abs(x)",
    "abs(x) ** 3",
    "x**3 * sign(x)",
    "where(x == 0, 0.0, x**2 * sin(1 / x))",
}


def exact(problem):
    """The function in mpmath; a decimal is the float64 next to it, as in NumPy."""
    names = {name: getattr(mpmath, name) for name in NAMES} | PIECEWISE
    return eval("lambda x: " + problem.expression, names)


def test_held_out_half_is_the_one_written_before_the_estimator():
    written = repr(tuple(map(tuple, problems.HELD_OUT)))
    assert hashlib.sha256(written.encode()).hexdigest() == HELD_OUT_SHA256


def test_halves_are_large_of_every_kind_and_have_no_problem_in_common():
    halves = problems.DEVELOPMENT, problems.HELD_OUT
    assert min(map(len, halves)) >= 60
    assert [{p.kind for p in half} for half in halves] == [KINDS, KINDS]
    assert not {p.name for p in halves[0]} & {p.name for p in halves[1]}
    assert not [
        p.name for p in BOTH if (p.derivative is None) == (p.kind in WITH_DERIVATIVE)
    ]


def test_recorded_digits_are_those_of_mpmath():
    wrong = []
    for problem in BOTH:
        if problem.derivative is None or problem.expression in BY_CASES:
            continue
        size = abs(np.log10(abs(problem.x))) if problem.x else 0
        with mpmath.workdps(60 + 3 * int(size)):
            derivative = mpmath.diff(exact(problem), mpmath.mpf(problem.x))
            if abs(derivative - mpmath.mpf(problem.derivative)) > 1e-28 * abs(
                derivative
            ):
                wrong.append(problem.name)
    assert not wrong


@pytest.mark.parametrize(
    "problem", [p for p in BOTH if p.expression in BY_CASES], ids=lambda p: p.name
)
def test_quotients_of_what_is_written_by_cases_shrink_with_the_step(problem):
    f, h = problem.function(), np.logspace(-3, -30, 28)
    quotients = (f(problem.x + h) - f(problem.x - h)) / (2 * h)
    assert problem.derivative == "0"
    assert np.all(np.abs(quotients) <= 1.001 * h)


def test_numpy_function_is_mpmaths_in_double_precision():
    smooth = [p for p in BOTH if p.kind == "smooth" and p.expression not in BY_CASES]
    for problem in smooth:
        np.testing.assert_allclose(
            problem.function()(problem.x),
            float(exact(problem)(mpmath.mpf(problem.x))),
            rtol=1e-12,
        )
