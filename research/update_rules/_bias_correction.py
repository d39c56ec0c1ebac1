"""What averages that start at 0 need: how much weight they hold yet, and how many
gradients that amounts to."""

import math

import jax.numpy as jnp

from research.types import Array


def bias_correction(decay: float | Array, count: Array) -> Array:
    """1 - β^t, to full relative precision also where β^t is nearly 1.

    Args:
      decay: β in [0, 1); may be traced.
      count: t, from 1.
    Returns:
      The sum of the weights (1 - β) β^i, i < t, that a moving average has given out so
      far.
    Example:
      >>> print(bias_correction(0.5, jnp.int32(2)))
      0.75
    """
    return -jnp.expm1(count * _log(decay))


def effective_length(decay: float | Array, count: Array) -> Array:
    """ρ_t = 2 / (1 - β) - 1 - 2 t β^t / (1 - β^t): of how many gradients a plain mean
    would be as old.

    It is 1 + 2 a, where a is the mean age of the gradients in the average. The formula
    as it stands subtracts numbers near 2000 (β = 0.999) to get one near 5; here, while
    t (1 - β) is small, a is taken from its series instead.

    Args:
      decay: β in [0, 1); may be traced.
      count: t, from 1.
    Returns:
      ρ_t; ρ_1 = 1, and it grows towards 2 / (1 - β) - 1.
    Example:
      >>> print(effective_length(0.5, jnp.int32(1)), effective_length(0.0, jnp.int32(9)))
      1.0 1.0
    """
    rate = -jnp.asarray(_log(decay), float)
    exponent = count * rate
    near = (count - 1) / 2 + _excess(rate) - count * _excess(exponent)
    age = jnp.where(
        exponent < 1.0, near, 1.0 / jnp.expm1(rate) - count / jnp.expm1(exponent)
    )
    return 1.0 + 2.0 * age


def _log(decay: float | Array) -> float | Array:
    """In double precision where the decay is a Python float, whatever precision JAX
    has."""
    if isinstance(decay, float | int):
        return math.log(decay) if decay else -math.inf
    return jnp.log(decay)


def _excess(s: Array) -> Array:
    """1 / (e^s - 1) - 1 / s + 1/2 for s in [0, 1], by its series: the Bernoulli numbers
    B_2k / (2k)!."""
    s = jnp.minimum(s, 1.0)
    total = jnp.zeros_like(s)
    for coefficient in reversed(_BERNOULLI):
        total = total * s**2 + coefficient
    return total * s


_BERNOULLI = (
    1 / 12,
    -1 / 720,
    1 / 30240,
    -1 / 1209600,
    1 / 47900160,
    -691 / 1307674368000,
    1 / 74724249600,
    -3617 / 10670622842880000,
    43867 / 5109094217170944000,
    -174611 / 802857662698291200000,
)
