"""Exact derivatives against digits recorded by mpmath; where JAX's own are wrong, the
form that is right.
"""

import json
import math
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.derivatives.exact import derivative, gradient, hessian, jacobian

COMPILE_QUICKLY = True  # tests/conftest.py

REFERENCE = Path(__file__).parent.parent / "reference"
SCALAR, MULTI, EDGES = (
    {
        case["name"]: case
        for case in json.loads((REFERENCE / f"{name}.json").read_text("utf-8"))["cases"]
    }
    for name in ("deriv_scalar", "deriv_multi", "edge_cases")
)
# Of the relative error. Each case is met to this, or its formula cancels and stands in
# one of the tables below.
MOST = 1e-12
ORDERS = range(5)
PLAIN = (
    "exp",
    "log",
    "log1p",
    "expm1",
    "log2",
    "log10",
    "sin",
    "cos",
    "tan",
    "sinh",
    "cosh",
    "tanh",
    "sqrt",
)
INVERSE = ("asin", "acos", "atan", "asinh", "acosh", "atanh")
NAMES = {
    **{name: getattr(jnp, name) for name in PLAIN},
    **{name: getattr(jnp, "arc" + name[1:]) for name in INVERSE},
    **{name: getattr(jax.scipy.special, name) for name in ("erf", "erfc", "digamma")},
    **{
        "lgamma": jax.scipy.special.gammaln,
        "pi": math.pi,
        "sigmoid": jax.nn.sigmoid,
        "softplus": jax.nn.softplus,
    },
}


def sine_over_itself(x):
    """Its series, where the quotient cancels."""
    small = jnp.abs(x) < 0.5
    y = jnp.where(small, x, 0.0) ** 2
    series = 1.0
    for k in range(9, 0, -1):
        series = 1 - y / (2 * k * (2 * k + 1)) * series
    safe = jnp.where(small, 1.0, x)
    return jnp.where(small, series, jnp.sin(safe) / safe)


def tangent_less_itself(x):
    """x³/3 + 2x⁵/15 + ..., for small x."""
    coefficients = (1 / 3, 2 / 15, 17 / 315, 62 / 2835, 1382 / 155925, 21844 / 6081075)
    return sum(c * x ** (2 * k + 3) for k, c in enumerate(coefficients))


# case: (point, what is wrong there under jax, a form that is right there).
STABLE = {
    "a006": (1.0009765625, "the expanded power cancels", lambda x: (x - 1) ** 9),
    "a013": (
        -40.0,
        "jax differentiates expm1 as expm1(x) + 1",
        lambda x: jnp.exp(x) - 1,
    ),
    "a026": (0.0001, "the quotient's derivatives cancel near 0", sine_over_itself),
    "a030": (0.0078125, "tan(x) - x cancels near 0", tangent_less_itself),
    "a037": (
        0.25,
        "jax differentiates tanh as 1 - tanh²",
        lambda x: 1 - 2 / (jnp.exp(100 * x) + 1),
    ),
    "a040": (
        40.0,
        "jax differentiates sigmoid as s (1 - s)",
        lambda x: 1 / (1 + jnp.exp(-x)),
    ),
    "a042": (-50.0, "1 - s again", lambda x: x - jnp.log1p(jnp.exp(x))),
    "a051": (-1e5, "1/s - x²/s³ cancels", lambda x: -x + 1 / (jnp.sqrt(1 + x**2) - x)),
    "a053": (
        1.0,
        "1/s - x²/s³ cancels",
        lambda x: x + 1e-6 / (jnp.sqrt(x**2 + 1e-6) + x),
    ),
}
REPAIRED = {"a013": (0, 11)}  # Wrong in jax 0.10.2, right in 0.12.
STABLE_MULTI = {
    "a006": ([700.0, 699.0, 690.0], "exp overflows when squared", jax.nn.logsumexp),
    "a008": (
        [10.0, -4.0, 3.0],
        "1 + exp(-21) is rounded",
        lambda x: jnp.log1p(jnp.exp(-(1.5 * x[0] - 0.5 * x[1] + x[2]))),
    ),
    "a014": (
        [1e4, 1e-4],
        "squares cancel",
        lambda x: (2 * x[0]) * (2 * x[1]) - 4 * x[0] * x[1],
    ),
    "a022": (
        [30.0, 0.0, -5.0],
        "p (1 - p) cancels",
        lambda x: 1 / jnp.sum(jnp.exp(x[None, :] - x[:, None]), axis=1),
    ),
}


def scalar_function(expression):
    return lambda x: eval(expression, {**NAMES, "x": x})


def multi_function(expression):
    def f(x):
        names = {**NAMES, **{f"x{i + 1}": x[i] for i in range(len(x))}}
        found = [
            eval(e, names)
            for e in ([expression] if isinstance(expression, str) else expression)
        ]
        return found[0] if isinstance(expression, str) else jnp.stack(found)

    return f


def errors(got, truth):
    """Relative errors, entry by entry; where the truth is 0, over the largest entry."""
    got, truth = np.asarray(got, float), np.asarray(truth, float)
    scale = np.where(
        truth == 0, np.max(np.abs(truth), initial=0.0) or 1.0, np.abs(truth)
    )
    off = np.abs(got - truth)
    return np.where(np.isfinite(got), np.where(off < 1e-300, 0.0, off / scale), np.inf)


def orders(f):
    return jax.vmap(
        lambda x: jnp.stack(
            [jnp.asarray(derivative(f, x, order=n), float) for n in ORDERS]
        )
    )


def asked_for(request, cases):
    """Return the cases that a selected test is about."""
    tests = [item for item in request.session.items if hasattr(item, "callspec")]
    names = {test.callspec.params.get("name") for test in tests}
    return {name: case for name, case in cases.items() if name in names}


@pytest.fixture(scope="module")
def scalar_errors(request):
    """case -> the errors of value and derivatives, shape (points, orders); all cases
    are one program.
    """
    cases = asked_for(request, SCALAR)
    functions = {
        name: orders(scalar_function(case["expr"])) for name, case in cases.items()
    }
    points = {
        name: jnp.array([p["x"] for p in case["points"]])
        for name, case in cases.items()
    }
    found = jax.jit(
        lambda points: {name: f(points[name]) for name, f in functions.items()}
    )(points)
    truth = {
        name: [[float(v) for v in p["values"]] for p in case["points"]]
        for name, case in cases.items()
    }
    return {name: errors(found[name], truth[name]) for name in cases}


@pytest.mark.thorough("nine in ten functions", but="a0.0")
@pytest.mark.parametrize("name", SCALAR)
def test_derivatives_equal_the_recorded_digits(scalar_errors, name):
    for point, found in zip(SCALAR[name]["points"], scalar_errors[name], strict=True):
        if name not in STABLE or point["x"] != STABLE[name][0]:
            assert found.max() < MOST, (SCALAR[name]["expr"], point["x"], found)


@pytest.mark.thorough("the other functions", but="a013|a040|a053")
@pytest.mark.parametrize("name", STABLE)
def test_stable_form_is_right_where_jax_is_wrong(scalar_errors, name):
    x, _, stable = STABLE[name]
    point, plain = next(
        (p, e)
        for p, e in zip(SCALAR[name]["points"], scalar_errors[name], strict=True)
        if p["x"] == x
    )
    is_repaired = jax.__version_info__ >= REPAIRED.get(name, (99,))
    assert (
        plain.max() <= MOST
    ) == is_repaired  # When a release of JAX repairs another, this line says so.
    found = jax.jit(orders(stable))(jnp.array([x]))[0]
    assert errors(found, [float(v) for v in point["values"]]).max() < MOST


def multi_parts(f, case):
    """Value and derivatives of the case's kind, at one point."""
    if case["kind"] == "scalar-valued":
        return lambda x: {"f": f(x), "grad": gradient(f, x), "hessian": hessian(f, x)}
    return lambda x: {"f": f(x), "jacobian": jacobian(f, x)}


@pytest.fixture(scope="module")
def multi_errors(request):
    """(case, number of the point) -> the largest errors of value, gradient, Hessian or
    Jacobian.
    """
    cases = asked_for(request, MULTI)
    functions = {
        name: jax.vmap(multi_parts(multi_function(case["expr"]), case))
        for name, case in cases.items()
    }
    points = {
        name: jnp.array([p["x"] for p in case["points"]])
        for name, case in cases.items()
    }
    found = jax.jit(
        lambda points: {name: f(points[name]) for name, f in functions.items()}
    )(points)
    return {
        (name, i): {
            part: multi_error(got[i], p[part]) for part, got in found[name].items()
        }
        for name, case in cases.items()
        for i, p in enumerate(case["points"])
    }


def multi_error(got, truth):
    return errors(got, np.array(truth, dtype=object).astype(float)).max()


@pytest.mark.thorough("nine in ten functions", but="a0.0")
@pytest.mark.parametrize("name", MULTI)
def test_gradients_hessians_and_jacobians_equal_the_recorded_digits(multi_errors, name):
    for i, point in enumerate(MULTI[name]["points"]):
        if name not in STABLE_MULTI or point["x"] != STABLE_MULTI[name][0]:
            assert max(multi_errors[name, i].values()) < MOST, (
                MULTI[name]["expr"],
                point["x"],
                multi_errors[name, i],
            )


@pytest.mark.thorough("the other functions", but="a006|a014")
@pytest.mark.parametrize("name", STABLE_MULTI)
def test_stable_form_of_many_variables_is_right_where_jax_is_wrong(multi_errors, name):
    x, _, stable = STABLE_MULTI[name]
    number, point = next(
        (i, p) for i, p in enumerate(MULTI[name]["points"]) if p["x"] == x
    )
    assert max(multi_errors[name, number].values()) > MOST
    found = jax.jit(multi_parts(stable, MULTI[name]))(jnp.array(x))
    assert max(multi_error(got, point[part]) for part, got in found.items()) < MOST


def length(x, y):
    """sqrt(x² + y²) by a scale that is taken for constant, which it may be: the length
    does not depend on it.
    """
    scale = jax.lax.stop_gradient(jnp.maximum(jnp.abs(x), jnp.abs(y)))
    return scale * jnp.sqrt((x / scale) ** 2 + (y / scale) ** 2)


def series(coefficient, terms=24):
    return lambda x: sum(coefficient(k) * x**k for k in range(terms))


# Near its point each is the function of the reference file, whose obvious formula gives
# NaN, infinity or the truth.
EDGE_FORMS = {
    "sinc": sine_over_itself,
    "expm1_over_x": series(lambda k: 1 / math.factorial(k + 1)),
    "bernoulli": lambda x: 1 / series(lambda k: 1 / math.factorial(k + 1))(x),
    "log1p_over_x": series(lambda k: (-1) ** k / (k + 1)),
    "one_minus_cos": lambda x: sine_over_itself(x / 2) ** 2 / 2,
    "signed_square": lambda x: x * jnp.abs(x),
    "abs_cubed": lambda x: jnp.abs(x) ** 3,
    "relu_squared": lambda x: jnp.maximum(x, 0) ** 2,
    "pow_zero": lambda x: jnp.ones_like(x),
    "pow_1p5": lambda x: x**1.5,
    "xlogx": lambda x: jax.scipy.special.xlogy(x, x),
    "atan_of_reciprocal": lambda x: jnp.arctan2(1.0, x),
    "hypot_large": lambda x: length(x, x),
}


@pytest.mark.thorough("the other edges", but="abs_cubed|pow|xlogx")
@pytest.mark.parametrize("name", EDGES)
def test_derivatives_at_edges_are_the_mathematical_ones(name):
    case = EDGES[name]
    truth = [
        float(Fraction(v)) if "/" in v else float(v) for v in case["derivatives_0_to_k"]
    ]
    found = [
        derivative(EDGE_FORMS[name], case["x"], order=n) for n in range(len(truth))
    ]
    assert errors(found, truth).max() < MOST, (found, truth)
