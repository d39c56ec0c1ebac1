"""Gauss-Newton and Levenberg-Marquardt: every regression of NIST, linear answers in one
step, scaling, and bad input.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.optimize

from research.descent import minimise
from research.types import Outcome
from research.update_rules import _second_order as second_order
from research.update_rules._least_squares import gauss_newton, levenberg_marquardt
from research.verification import least_squares
from research.verification.formula import Mistake, mistaken
from research.verification.problems import Problem
from research.verification.walks import distance, walk_constructed, walk_exactly
from tests.rules import mgh, nist

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

EPS = np.finfo("float64").eps
MARQUARDT, GAUSS = levenberg_marquardt(), gauss_newton()
RULES = {"levenberg_marquardt": levenberg_marquardt, "gauss_newton": gauss_newton}
# Where Gauss-Newton, even with backtracking, ends elsewhere or nowhere from NIST's far
# start.
OUT_OF_REACH = {("Eckerle4", 0), ("MGH09", 0), ("MGH17", 0), ("MGH10", 0), ("Rat43", 0)}


def answer(rule, x, residual_fn) -> Any:
    """What a rule answers at x, compiled: (updates, state)."""
    step = lambda x: rule.update(x, rule.init(x), x, residual_fn=residual_fn)
    return jax.jit(step, compiler_options=nist.QUICKLY)(x)


@pytest.fixture(scope="module")
def asked(request):
    """The regressions that a selected test is about: one program fits them all, and
    takes a second to compile for each model.
    """
    items = [i for i in request.session.items if i.path == Path(__file__)]
    names = {i.callspec.params.get("name") for i in items if hasattr(i, "callspec")}
    return tuple(name for name in nist.CASES if name in names)


# Kept: far and near start of one whose start MINPACK cannot leave, and of params of
# very different sizes.
@pytest.mark.on_ci(
    "fits of two curves; test_walk_is_that_of_the_formula has steps of the rule"
)
@pytest.mark.thorough("the other regressions", but="BoxBOD|MGH10")
@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("name", nist.CASES)
def test_levenberg_marquardt_finds_the_published_parameters(asked, name, start):
    # At least 6 digits are asked wherever MINPACK has them; it has them in 53 of 54,
    # ours in all: 11.9 at least.
    digits, steps, _ = nist.fitted(MARQUARDT, name, start, asked)
    assert digits >= 6
    assert digits >= min(nist.CASES[name]["minpack_digits"][start], 11.5)
    assert steps <= 400


@pytest.mark.thorough(
    "Gauss-Newton on NIST's regressions; .ci/run has Levenberg-Marquardt on two of "
    "them, and both formulas"
)
@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("name", nist.CASES)
def test_gauss_newton_finds_the_published_parameters_unless_it_is_told_not_to(
    asked, name, start
):
    digits, _, _ = nist.fitted(GAUSS, name, start, asked)
    assert (digits >= 6) == ((name, start) not in OUT_OF_REACH)


def design(case):
    """The columns of a linear regression of NIST, and their exact coefficients."""
    x = np.array(case["x"], float)
    coefficients = np.array(case["coef"], float)
    if case["design"] == "single column x":
        columns = x[:, None]
    elif x.ndim == 2:
        columns = np.column_stack([np.ones(len(x)), x])
    else:
        columns = x[:, None] ** np.arange(len(coefficients))
    return columns, np.array(case["y"], float), coefficients


@pytest.mark.on_ci(
    "a polynomial of degree ten; "
    "test_dependent_columns_are_told_and_dealt_with_as_asked has one step, but not "
    "the digits"
)
@pytest.mark.thorough("the other regressions", but="Filip")
@pytest.mark.parametrize("name", nist.LINEAR)
def test_linear_regressions_take_one_step_to_the_digits_of_qr(name):
    # Measured: on all eleven as many as numpy's Householder QR, half a digit being
    # another order of roundings. Filip, whose condition is 2e15, has 8.1 digits this
    # way, and none by the normal equations.
    case = nist.LINEAR[name]
    columns, y, exact = design(case)
    residual_fn = lambda b: columns @ b - y
    first, state = answer(GAUSS, jnp.zeros(len(exact)), residual_fn)
    assert state.evaluations == 1
    assert nist.digits(first, exact) >= min(case["qr_digits"], 14) - 0.5
    if name == "Filip":
        assert nist.digits(first, exact) >= 7 > 1 > case["normal_equations_digits"]


class Squares:
    """Residuals in fifty digits and their Jacobian, as the formulas of least squares
    ask for them.
    """

    def __init__(self, residuals, jacobian):
        self.residuals = lambda x: residuals(*x.arrays[0])
        self.jacobian = lambda x: jacobian(*x.arrays[0])


# Freudenstein & Roth's problem. Its residuals at the minimum found are large, so that
# Levenberg-Marquardt changes to the quadratic model.
def roth(a, b):
    return [-13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b]


TIMES, COUNTS = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5], [2.0, 1.375, 0.875, 0.75, 0.5, 0.4375]
EXACT: dict[str, Any] = {
    "rosenbrock": Squares(
        lambda a, b: [1 - a, 10 * (b - a * a)], lambda a, b: [[-1, 0], [-20 * a, 10]]
    ),
    "decay": Squares(
        lambda a, b: [
            a * mpmath.exp(-b * t) - y for t, y in zip(TIMES, COUNTS, strict=True)
        ],
        lambda a, b: [[mpmath.exp(-b * t), -a * t * mpmath.exp(-b * t)] for t in TIMES],
    ),
    "roth": Squares(
        roth,
        lambda a, b: [[1, (10 - 3 * b) * b - 2], [1, (3 * b + 2) * b - 14]],
    ),
}
RESIDUALS = {
    "rosenbrock": lambda x: jnp.stack([1.0 - x[0], 10.0 * (x[1] - x[0] ** 2)]),
    "decay": lambda x: (
        x[0] * jnp.exp(-x[1] * np.array(TIMES, x.dtype)) - np.array(COUNTS, x.dtype)
    ),
    "roth": lambda x: jnp.stack(roth(*x)),
}
STARTS = {
    "rosenbrock": np.array([-1.25, 1.0]),
    "decay": np.array([1.0, 3.0]),
    "roth": np.array([0.5, -2.0]),
}


def problems_of(rule):
    """Gauss-Newton oscillates on Freudenstein & Roth's problem, so that roundings
    grow.
    """
    return [name for name in EXACT if name != "roth" or rule != "gauss_newton"]


@functools.cache
def problem(name) -> Problem:
    objective = lambda x: 0.5 * jnp.sum(RESIDUALS[name](x) ** 2)
    return Problem(name, STARTS[name], objective, lambda: EXACT[name])


@functools.cache
def exactly(rule, name, rate):
    return walk_exactly(
        least_squares.CARDS[rule].formula.iterates,
        problem(name),
        20,
        learning_rate=rate,
    )


@pytest.mark.on_ci(
    "another rate of Levenberg-Marquardt", but=r"-(1\.0-roth|0\.5-decay)-"
)
@pytest.mark.thorough(
    "the other problems and dtype", but=r"-(1\.0-roth|0\.125-roth|0\.5-decay)-float64\]"
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("rule", "rate", "name"),
    [
        (rule, rate, name)
        for rule, rate in (
            ("levenberg_marquardt", 1.0),
            ("levenberg_marquardt", 0.125),
            ("gauss_newton", 0.5),
        )
        for name in problems_of(rule)
    ],
)
def test_walk_is_that_of_the_formula(rule, rate, name, dtype):
    # Measured: 4.2 eps of Levenberg-Marquardt, 13.5 of Gauss-Newton, in its first step
    # along the valley.
    arguments = {"learning_rate": rate, "residual_fn": RESIDUALS[name]}
    found = walk_constructed(RULES[rule], arguments, problem(name), dtype, 20)
    assert (
        distance(found, exactly(rule, name, rate), problem(name)).largest
        <= 20 * np.finfo(dtype).eps
    )


def apart(rule: str, mistake: Mistake):
    wrong = mistaken(least_squares.CARDS[rule].formula, mistake)
    for name in problems_of(rule):
        for rate in (1.0, 0.125):
            try:
                walked = walk_exactly(wrong, problem(name), 20, learning_rate=rate)
            except ZeroDivisionError:  # It ran away.
                yield np.inf
                continue
            yield distance(walked, exactly(rule, name, rate), problem(name)).largest


@pytest.mark.parametrize("rule", least_squares.CARDS)
def test_every_mistake_would_be_seen(rule):
    formula = least_squares.CARDS[rule].formula
    assert len(formula.mistakes) >= 3
    for mistake in formula.mistakes:
        assert any(far > 1e-3 for far in apart(rule, mistake)), mistake.cause


@pytest.mark.thorough("other units; test_walk_is_that_of_the_formula has the scaling")
def test_levenberg_marquardt_does_not_see_the_units():
    units = jnp.array([1e-3, 1e5])
    scaled = lambda z: RESIDUALS["decay"](z * units)
    for steps in (1, 4):
        plain = minimise(
            None,
            MARQUARDT,
            jnp.array([1.0, 3.0]),
            residual_fn=RESIDUALS["decay"],
            max_steps=steps,
        )
        found = minimise(
            None,
            MARQUARDT,
            jnp.array([1.0, 3.0]) / units,
            residual_fn=scaled,
            max_steps=steps,
            tolerance=0.0,
        )
        np.testing.assert_allclose(found.params * units, plain.params, rtol=1e-12)


@pytest.mark.thorough(
    "scipy's minimum; .ci/run has two of NIST's published ones, make test both formulas"
)
@pytest.mark.parametrize("rule", [MARQUARDT, GAUSS])
def test_minimum_is_that_of_scipy(rule):
    found = minimise(
        None,
        rule,
        jnp.array([1.0, 3.0]),
        residual_fn=RESIDUALS["decay"],
        tolerance=1e-12,
    )
    theirs = scipy.optimize.least_squares(
        jax.jit(RESIDUALS["decay"]), [1.0, 3.0], method="lm", xtol=1e-14, ftol=1e-14
    )
    np.testing.assert_allclose(
        found.params, theirs.x, rtol=1e-7
    )  # scipy's differences of residuals give it no more.
    assert Outcome(int(found.outcome)).words == "the gradient is within the tolerance"


def test_levenberg_marquardt_is_inside_its_radius_or_at_its_edge():
    # |D h| <= Δ, and the Lagrangian's condition (JᵀJ + μ D²) h = -Jᵀr, also where
    # columns depend on each other.
    rng = np.random.default_rng(0)
    step = jax.jit(second_order.damped_step)
    for last in (rng.standard_normal(6), None):
        j, r = rng.standard_normal((6, 3)), rng.standard_normal(6)
        j[:, 2] = j[:, 0] + j[:, 1] if last is None else last
        d = np.linalg.norm(j, axis=0)
        for radius in (1e-4, 0.3, 1e3):
            h, mu = (np.asarray(a) for a in step(j, r, d, jnp.asarray(radius)))
            bound = float(
                64 * EPS * (1 + np.sqrt(mu))
            )  # √μ is the size of the rows below J.
            np.testing.assert_allclose(
                j.T @ (j @ h + r) + mu * d**2 * h, 0.0, atol=bound
            )
            assert np.linalg.norm(d * h) <= radius * (1 + 1e-12)
            assert mu == 0.0 or np.linalg.norm(d * h) >= radius * (1 - 1e-12)


@pytest.mark.thorough(
    "the steps under vmap; make test has each alone, in the test above, and the search "
    "for the damping under vmap, in laws/test_every_rule.py (trust_region_newton)"
)
def test_steps_inside_and_at_the_edge_are_the_same_side_by_side():
    rng = np.random.default_rng(3)
    j, r, radii = (
        rng.standard_normal((6, 3)),
        rng.standard_normal(6),
        jnp.array([1e-3, 0.3, 1e3]),
    )
    together = jax.jit(jax.vmap(second_order.damped_step, (None, None, None, 0)))(
        j, r, np.ones(3), radii
    )
    alone = [
        jax.jit(second_order.damped_step)(j, r, np.ones(3), radius) for radius in radii
    ]
    for k in range(2):
        np.testing.assert_allclose(
            together[k], [of_one[k] for of_one in alone], rtol=1e-12
        )
    assert together[1][0] > together[1][1] > together[1][2] == 0.0


def test_dependent_columns_are_told_and_dealt_with_as_asked():
    residual_fn = lambda x: jnp.stack([x[0] + x[1] - 2.0, 2.0 * (x[0] + x[1]) - 4.0])
    updates, state = answer(GAUSS, jnp.zeros(2), residual_fn)
    np.testing.assert_allclose(updates, [1.0, 1.0], rtol=1e-14)  # The shortest.
    assert (
        second_order.curvature_in_words(state.curvature)
        == "the matrix is singular up to rounding errors"
    )
    updates, state = answer(gauss_newton(singular="stop"), jnp.zeros(2), residual_fn)
    assert np.all(updates == 0.0)
    assert Outcome(int(state.outcome)).words == "singular matrix"


@pytest.mark.on_ci(
    "fewer residuals than params; "
    "test_dependent_columns_are_told_and_dealt_with_as_asked has a shortest step"
)
@pytest.mark.thorough(
    "Gauss-Newton, whose shortest step for dependent columns the test above has",
    but="rule1",
)
@pytest.mark.parametrize("rule", [GAUSS, levenberg_marquardt(1e3)])
def test_with_fewer_residuals_than_params_the_step_is_the_shortest(rule):
    fewer = lambda x: jnp.stack(
        [3.0 * x[0] + 4.0 * x[1] - 12.0]
    )  # Fewer residuals than params; columns of length 3, 4.
    updates, _ = answer(rule, jnp.zeros(2), fewer)
    np.testing.assert_allclose(updates, [2.0, 1.5], rtol=1e-14)


@pytest.mark.on_ci(
    "a start that is not finite; test_a_trial_that_is_not_finite_is_refused has a trial"
)
@pytest.mark.thorough("Gauss-Newton", but="rule0")
@pytest.mark.parametrize("rule", [MARQUARDT, GAUSS])
def test_what_is_not_finite_shows(rule):
    updates, state = answer(rule, jnp.array([-1.0, 1.0]), jnp.log)
    assert np.all(np.isnan(updates))
    assert Outcome(int(state.outcome)).words == "not finite"


@pytest.mark.thorough(
    "a long trial that is finite; make test has one that is not, below"
)
def test_a_long_trial_that_is_finite_is_answered():
    updates, _ = answer(
        levenberg_marquardt(1e3), jnp.array([0.5]), lambda x: jnp.log(x) - 3.0
    )  # To 2.3 from 0.5.
    assert np.isfinite(updates).all()


def test_a_trial_that_is_not_finite_is_refused():
    updates, state = answer(
        levenberg_marquardt(1e3), jnp.array([8.0]), lambda x: jnp.log(x) + 3.0
    )  # To -32.6.
    assert updates == 0.0
    assert state.learning_rate < 40.0 / 8.0


@pytest.mark.on_ci("pytrees of bfloat16; nothing shorter shows this")
@pytest.mark.thorough(
    "Levenberg-Marquardt, which flattens as Gauss-Newton does", but="gauss_newton"
)
@pytest.mark.parametrize("constructor", RULES.values())
def test_pytrees_of_params_and_residuals_are_taken_and_dtypes_kept(constructor):
    params = {
        "w": jnp.ones((2, 1), "bfloat16"),
        "b": jnp.ones((), "bfloat16"),
        "none": jnp.ones((0, 3), "bfloat16"),
    }
    residual_fn = lambda p: (2.0 * p["w"], {"b": p["b"] - 1.5})
    rule = constructor(residual_fn=residual_fn)
    state, (updates, after) = rule.init(params), answer(rule, params, None)
    assert jax.tree.map(lambda u: (u.shape, u.dtype), updates) == jax.tree.map(
        lambda x: (x.shape, x.dtype), params
    )
    assert jax.tree.map(lambda s: s.dtype, state) == jax.tree.map(
        lambda s: s.dtype, after
    )
    np.testing.assert_allclose(updates["w"].astype(float), -1.0, rtol=0.01)
    np.testing.assert_allclose(updates["b"].astype(float), 0.5, rtol=0.01)


@pytest.mark.parametrize("constructor", RULES.values())
def test_missing_residuals_are_named_and_bad_rates_refused(constructor):
    rule, x = constructor(), jnp.ones(2)
    with pytest.raises(
        ValueError,
        match=(
            r"needs residual_fn; call update\(grads, state, params, "
            r"residual_fn=residual_fn\), or make the rule by "
            rf"{constructor.__name__}\(residual_fn=residual_fn\)"
        ),
    ):
        rule.update(x, rule.init(x), x)
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(
            ValueError, match="learning_rate must be a finite number, positive"
        ):
            constructor(bad)
    with pytest.raises(
        ValueError, match="singular must be one of shortest, stop; got singular='hope'"
    ):
        gauss_newton(singular="hope")


@pytest.mark.thorough(
    "a fit of its own; test_walk_is_that_of_the_formula has large residuals too (roth)"
)
def test_large_residuals_are_fitted_by_the_second_derivatives():
    """With the linear model alone, Brown & Dennis's problem takes 661 evaluations.

    scipy's trf takes 206 with x_scale="jac".
    """
    start = jnp.array([25.0, 5.0, -5.0, 1.0])
    residuals = mgh.residuals_of("brown_dennis")
    first = jnp.max(jnp.abs(jax.grad(mgh.objective_of("brown_dennis"))(start)))
    found = minimise(
        None, MARQUARDT, start, tolerance=1e-8 * first, residual_fn=residuals
    )
    assert found.outcome == Outcome.CONVERGED
    assert found.evaluations <= 34
    np.testing.assert_allclose(2 * found.value, 85822.2, rtol=1e-6)
