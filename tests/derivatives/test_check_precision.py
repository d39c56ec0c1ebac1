"""Laws of check_derivative for functions that compute in a low precision in places."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.derivatives import check_derivative
from research.derivatives.check.staircases import is_rounded_to_float32

COMPILE_QUICKLY = DRAWS_NO_KEYS = True  # tests/conftest.py
KEY = jax.random.key(0)


def fit(seed):
    """Data of a regression, and a point."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(60, 3)).astype(np.float32)
    return inputs, random.normal(size=60).astype(np.float32), random.normal(size=3)


def exact(inputs, targets, decay=0.01):
    """The derivative of the mean square plus the decay."""
    inputs, targets = inputs.astype(float), targets.astype(float)

    def derivative(w):
        w = np.asarray(w, float)
        slope = 2 * inputs.T @ (inputs @ w - targets) / len(targets)
        return jnp.asarray(slope + 2 * decay * w)

    return derivative


def in_numpy(inputs, targets, decay=0.01):
    """A loss in float32 plus a decay in float64."""

    def f(w):
        w = np.asarray(w, float)
        apart = inputs @ w.astype(np.float32) - targets
        return float(np.mean(apart * apart)) + decay * float(w @ w)

    return f


@pytest.mark.thorough("the other seeds", but="^0")
@pytest.mark.parametrize("seed", range(12))
def test_a_part_of_a_numpy_function_may_be_in_float32(seed):
    """Over short steps, such a part is constant, and the rest alone has a slope."""
    inputs, targets, w = fit(seed)
    f, right = in_numpy(inputs, targets), exact(inputs, targets)
    of_decay = lambda w: 0.02 * jnp.asarray(w)
    x, key = jnp.asarray(w, jnp.float32), jax.random.key(seed)
    given = check_derivative(f, x, key, right)
    assert given.verdict == "right"
    assert "look rounded to" in given.precision
    assert check_derivative(f, x, key, of_decay).verdict in ("wrong", "unresolved")


@pytest.mark.on_ci(
    "test_a_part_of_a_numpy_function_may_be_in_float32 has the part without a callback"
)
@pytest.mark.thorough(
    "a wrong derivative; test_a_part_of_a_numpy_function_may_be_in_float32 has one",
    but="right",
)
@pytest.mark.parametrize("verdict", ["right", "wrong"])
def test_a_callback_may_compute_in_low_precision(verdict):
    inputs, targets, w = fit(1)
    in_float32 = in_numpy(inputs, targets, decay=0.0)
    slope = exact(inputs, targets, decay=0.0)
    factor = 1.0 if verdict == "right" else 0.0

    def called(function, like, w):
        shape = jax.ShapeDtypeStruct(like.shape, like.dtype)
        return jax.pure_callback(
            lambda w: np.asarray(function(w), like.dtype),
            shape,
            w,
            vmap_method="sequential",
        )

    loss = jax.custom_vjp(lambda w: called(in_float32, w[0], w))
    loss.defvjp(
        lambda w: (loss(w), w), lambda w, g: (factor * g * called(slope, w, w),)
    )
    f = lambda w: loss(w) + 0.01 * jnp.sum(w**2)
    report = check_derivative(f, jnp.asarray(w, jnp.float32), KEY)
    assert report.verdict in (("right",) if factor else ("wrong", "unresolved"))
    assert "float32" in report.precision


@pytest.mark.on_ci("two checks; nothing shorter has reduce_precision")
@pytest.mark.thorough("the other numbers of digits", but="7")
@pytest.mark.parametrize("digits", [23, 10, 7, 4])
def test_reduce_precision_counts_as_a_dtype_of_as_many_digits(digits):
    inputs, targets, w = fit(2)
    rounded = lambda t: jax.lax.reduce_precision(t, 8, digits)

    def f(w):
        return jnp.mean((rounded(inputs @ rounded(w)) - targets) ** 2) + 0.01 * w @ w

    x = jnp.asarray(w, jnp.float32)
    verdict = check_derivative(f, x, KEY).verdict
    assert verdict == ("right" if digits == 23 else "unresolved")
    of_decay = lambda w: 0.02 * w
    assert check_derivative(f, x, KEY, of_decay).verdict in ("wrong", "unresolved")


@pytest.mark.on_ci("the right derivative", but=r"1\.001")
@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_a_mask_of_truth_values_in_bfloat16_is_exact(factor):
    inputs, targets, w = fit(3)

    def f(w):
        z = inputs @ w
        return jnp.mean((z * (z > 0).astype(jnp.bfloat16) - targets) ** 2)

    x = jnp.asarray(w, jnp.float32)
    given = lambda x: factor * jax.grad(f)(x)
    verdict = check_derivative(f, x, KEY, given).verdict
    assert verdict == ("right" if factor == 1 else "wrong")


SMOOTH = {
    "sine": lambda x: math.sin(3 * x),
    "fast wave": lambda x: math.sin(4e4 * x),
    "exponential": lambda x: math.exp(2 * x),
    "root of f": lambda x: (x - 0.7) ** 2,
    "large constant": lambda x: 1e6 + 1e-3 * x**2,
    "noise": lambda x: math.sin(x) + 1e-10 * math.sin(1e17 * x),
    "steps": lambda x: math.floor(1e3 * x) / 7,
    "straight lines": lambda x: float(np.interp(x, np.arange(9), np.arange(9) ** 2)),
    "kink": lambda x: abs(x - 0.7),
    "cancelling": lambda x: math.log(1 + x) / x if x > -1 else 0.0,
    "root of a quadratic": lambda x: (-100 + math.sqrt(1e4 - 4 * x)) / 2,
    "central difference": lambda x: (math.sin(x + 1e-5) - math.sin(x - 1e-5)) / 2e-5,
}


@pytest.mark.parametrize("name", SMOOTH)
def test_a_function_in_float64_does_not_look_rounded(name):
    f = SMOOTH[name]
    for x in (0.7, -1.3, 2.0**0.5, 1e-3, 300.0):
        along = lambda t, x=x: np.atleast_1d(f((1 + t) * x))
        assert not is_rounded_to_float32(along, entries=1), x


ROUNDED = {
    "x in float32": lambda x: float(np.sin(np.float32(x))) + 0.01 * x**2,
    "a root of float32": lambda x: math.sqrt(float(np.float32(2 + math.sin(x)))),
    "a third of float32": lambda x: float(np.float32(math.exp(x))) / 3,
    "a small part": lambda x: 0.02 * float(np.float32(math.sin(x))) + x,
}


@pytest.mark.parametrize("name", ROUNDED)
def test_a_part_in_float32_is_found_in_values_of_float64(name):
    f = ROUNDED[name]
    for x in (0.7, -1.3, 2.0**0.5, 5.0):
        along = lambda t, x=x: np.atleast_1d(f((1 + t) * x))
        assert is_rounded_to_float32(along, entries=1), x


@pytest.mark.on_ci("the other seeds, and the right derivative", but="wrong-0")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("verdict", ["right", "wrong"])
def test_a_missing_contribution_is_found_in_a_leaf_that_f_rounds(verdict, seed):
    # Along the random directions, short steps of the rounded leaf do not change f.
    hide = (lambda a: a) if verdict == "right" else jax.lax.stop_gradient
    f = lambda p: jnp.sum(p[0] ** 2) * hide(p[1].astype(jnp.float32))
    x = (jnp.asarray(np.random.default_rng(seed).normal(size=3)), jnp.asarray(2.0))
    report = check_derivative(f, x, jax.random.key(seed))
    assert report.verdict == verdict
    if verdict == "wrong":
        assert "the contribution is missing" in report.explanation
        assert "x[1]" in report.explanation
