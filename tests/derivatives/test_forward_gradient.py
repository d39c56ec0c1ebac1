"""A forward gradient is unbiased, and its error is what it says."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.derivatives import NotInexactError, NotScalarError, forward_gradient

COMPILE_QUICKLY = True  # tests/conftest.py

SLOPE = np.arange(1.0, 11.0)


def test_mean_is_the_gradient_and_the_mean_square_error_is_the_stated_one():
    # 20,000 estimates of 4 samples each, of n = 10 inputs: (n + 1) / 4 = 2.75.
    f = lambda x: x["a"] @ SLOPE[:4] + x["b"] @ SLOPE[4:]
    x = {"a": jnp.zeros(4), "b": jnp.zeros(6)}
    stated = forward_gradient(f, x, jax.random.key(1), samples=4).relative_error
    assert stated**2 == pytest.approx(11 / 4)
    keys = jax.random.split(jax.random.key(0), 20_000)
    found = jax.jit(jax.vmap(lambda k: forward_gradient(f, x, k, samples=4).gradient))
    made = found(keys)
    estimates = np.concatenate([made["a"], made["b"]], axis=1)
    length = float(SLOPE @ SLOPE)
    error = np.sum((estimates - SLOPE) ** 2, axis=1) / length
    # The means lie within five of their standard errors.
    deviation = np.std(error) / np.sqrt(len(error))
    assert abs(np.mean(error) - 11 / 4) <= 5 * deviation
    away = np.mean(estimates, axis=0) - SLOPE
    assert np.sum(away**2) / length <= 5 * (11 / 4) / len(error)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda k: forward_gradient(jnp.sin, jnp.ones(2), k), NotScalarError, "one"),
        (lambda k: forward_gradient(jnp.sum, 1, k), NotInexactError, "x must be real"),
        (
            lambda k: forward_gradient(jnp.sum, jnp.ones(2), k, samples=0),
            ValueError,
            "samples must be a positive integer; got samples=0",
        ),
        (
            lambda k: forward_gradient(jnp.sum, jnp.ones(2), k, samples=10**9),
            ValueError,
            "samples",
        ),
        (lambda k: forward_gradient(jnp.sum, jnp.ones(2), 0), TypeError, "key"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=re.escape(words)):
        call(jax.random.key(0))


def test_a_long_sum_in_half_precision_is_the_gradient():
    x = jnp.ones(1, "bfloat16")
    f = lambda x: jnp.sum(x.astype("float32") ** 2)  # Another dtype than that of x.
    found = forward_gradient(f, x, jax.random.key(0), samples=10_000)
    assert found.gradient.dtype == x.dtype
    assert abs(float(found.gradient[0]) - 2.0) < 10 * found.relative_error
