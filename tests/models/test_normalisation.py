"""Normalisation against numpy and Linen; what it leaves alone; and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from research import models
from research.models import group_normalisation, layer_normalisation

COMPILE_QUICKLY = True  # tests/conftest.py


def drawn(shape=(2, 3, 4, 6)):
    """Images away from 0, a scale and a bias for their channels."""
    rng = np.random.default_rng(0)
    return (
        rng.normal(5, 2, size=shape),
        rng.normal(size=shape[-1]),
        rng.normal(size=shape[-1]),
    )


def test_layer_normalisation_equals_the_formula():
    x, scale, bias = drawn()
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    expected = scale * (x - mean) / np.sqrt(variance + 1e-3) + bias
    y = jax.jit(lambda x: layer_normalisation(x, scale, bias, epsilon=1e-3))(x)
    np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("num_groups", [1, 3, 6])
def test_group_normalisation_equals_the_loop_over_groups(num_groups):
    x, scale, bias = drawn()
    expected = np.empty_like(x)
    for image, group in np.ndindex(len(x), num_groups):
        channels = slice(group * 6 // num_groups, (group + 1) * 6 // num_groups)
        part = x[image, ..., channels]
        part = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
        expected[image, ..., channels] = scale[channels] * part + bias[channels]
    y = jax.jit(lambda x: group_normalisation(x, scale, bias, num_groups))(x)
    np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.on_ci(
    "groups; test_group_normalisation_equals_the_loop_over_groups has their values",
    but="layer",
)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (layer_normalisation, linen.LayerNorm(epsilon=1e-5, param_dtype=jnp.float64)),
        (
            lambda *a: group_normalisation(*a, 3),
            linen.GroupNorm(3, epsilon=1e-5, param_dtype=jnp.float64),
        ),
    ],
    ids=["layer", "group"],
)
def test_values_and_gradients_equal_linens(ours, theirs):
    x, scale, bias = drawn((2, 2, 2, 6))
    by_linen = lambda *a: theirs.apply({"params": {"scale": a[1], "bias": a[2]}}, a[0])
    value_and_gradients = (
        jax.jit(jax.value_and_grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), (0, 1, 2)))(
            x, scale, bias
        )
        for f in (ours, by_linen)
    )
    for one, two in zip(*map(jax.tree.leaves, value_and_gradients), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-11, atol=1e-11)


def test_a_large_mean_costs_no_digits():
    x = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)
    ones, zeros = np.ones(64, np.float32), np.zeros(64, np.float32)
    shifted = np.float32(4096) + x
    exact = (
        shifted.astype(float) - shifted.mean(-1, keepdims=True, dtype=float)
    ) / shifted.std(-1, keepdims=True, dtype=float)
    y = jax.jit(layer_normalisation)(shifted, ones, zeros)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, exact, rtol=1e-3, atol=1e-3)


@pytest.mark.on_ci("the other dtype", but="^float16")
@pytest.mark.parametrize(
    ("dtype", "bound"), [(jnp.float16, 1e-3), (jnp.bfloat16, 8e-3)]
)
def test_half_precision_is_rounded_once_in_the_end(dtype, bound):
    x = jnp.array(
        [200.0, 400.0, 600.0, 800.0], dtype
    )  # Whose squares float16 cannot hold.
    ones, zeros = jnp.ones(4, dtype), jnp.zeros(4, dtype)
    expected = np.array([-3.0, -1.0, 1.0, 3.0]) / np.sqrt(5)
    y, dy = jax.jvp(lambda x: layer_normalisation(x, ones, zeros), (x,), (x,))
    assert (y.dtype, dy.dtype) == (dtype, dtype)
    np.testing.assert_allclose(y.astype(float), expected, rtol=bound)
    np.testing.assert_allclose(
        dy.astype(float), 0, atol=bound
    )  # Its scale alone changes.


def test_each_example_is_normalised_by_itself():
    x, scale, bias = drawn()
    for normalise in (layer_normalisation, lambda *a: group_normalisation(*a, 2)):
        both = jax.jit(
            lambda x, f=normalise: (f(x, scale, bias), f(x[0], scale, bias))
        )(x)
        np.testing.assert_allclose(both[0][0], both[1], rtol=1e-13, atol=1e-13)


def test_bad_input_is_refused_with_what_to_do():
    x, ones = jnp.ones((2, 2, 6)), jnp.ones(6)
    with pytest.raises(
        ValueError, match=r"scale and bias must have shape \(6,\).*\(1,\)"
    ):
        layer_normalisation(x, ones[:1], ones)
    with pytest.raises(ValueError, match=r"epsilon must be positive; got epsilon=0\."):
        layer_normalisation(x, ones, ones, epsilon=0)
    with pytest.raises(
        ValueError, match="num_groups must divide the 6 channels; got num_groups=4"
    ):
        group_normalisation(x, ones, ones, 4)
    with pytest.raises(ValueError, match=r"x must be images.*\(2, 6\)"):
        group_normalisation(x[0], ones, ones, 2)


def test_integers_are_refused_and_not_rounded():
    whole = jnp.array([[1, 3]])
    for call in (
        lambda: layer_normalisation(whole, jnp.ones(2), jnp.zeros(2)),
        lambda: models.rms_normalisation(whole, jnp.ones(2)),
        lambda: models.dropout(jax.random.key(0), whole, 0.5),
        lambda: models.rotate(whole, models.rotary_angles(2, 2)),
        lambda: models.standardise_weights(whole, jnp.ones(2)),
    ):
        with pytest.raises(TypeError, match="must be a floating array"):
            call()
