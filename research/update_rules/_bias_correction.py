"""Bias correction and effective length of moving averages that start at 0."""

import math

import jax.numpy as jnp
from jaxtyping import Float, Int

from research.types import Array, Scalar


def bias_correction(decay: Scalar, count: Int[Array, ""]) -> Float[Array, ""]:
    """Return 1 - β^t accurately, even if β^t is close to 1.

    Args:
      decay: Decay β in [0, 1); may be traced.
      count: Step number t, from 1.
    Returns:
      1 - β^t, shape (). In a moving average that starts at 0, the value of i steps ago
      has the weight (1 - β) β^i. 1 - β^t is the sum of these weights for i = 0, ..., t
      - 1.
    Example:
      >>> print(bias_correction(0.5, jnp.int32(2)))
      0.75
    """
    return -jnp.expm1(count * _log(decay))


def effective_length(decay: Scalar, count: Int[Array, ""]) -> Float[Array, ""]:
    """Return the number of gradients that a moving average effectively averages.

    ρ_t = 2 / (1 - β) - 1 - 2 t β^t / (1 - β^t), for the decay β at step t.

    The age of a gradient is the number of steps since it was computed. In a plain mean
    of the last ρ gradients, the mean age is (ρ - 1) / 2. Let a be the mean age of the
    gradients, weighted as in the moving average. The effective length ρ_t is the length
    of the plain mean with the same mean age a, so ρ_t = 1 + 2 a. If t (1 - β) is
    small, the formula for ρ_t loses digits, because it is the difference of two much
    larger numbers, for example 1999 - 1993 for β = 0.999 and t = 6. In this case, the
    function computes the mean age from a power series.

    Args:
      decay: Decay β in [0, 1); may be traced.
      count: Step number t, from 1.
    Returns:
      Effective length ρ_t, shape (). ρ_1 is 1, and ρ_t tends to 2 / (1 - β) - 1.
    Example:
      >>> print(
      ...     effective_length(0.5, jnp.int32(1)), effective_length(0.0, jnp.int32(9))
      ... )
      1.0 1.0
    """
    rate = -jnp.asarray(_log(decay), float)
    exponent = count * rate
    near = (count - 1) / 2 + _excess(rate) - count * _excess(exponent)
    age = jnp.where(
        exponent < 1.0, near, 1.0 / jnp.expm1(rate) - count / jnp.expm1(exponent)
    )
    return 1.0 + 2.0 * age


def _log(decay: Scalar) -> Scalar:
    """Return log β.

    The log of a Python number has double precision, whatever precision JAX uses.
    """
    if isinstance(decay, float | int):
        return math.log(decay) if decay else -math.inf
    return jnp.log(decay)


def _excess(s: Array) -> Array:
    """Return 1 / (e^s - 1) - 1 / s + 1/2 for s in [0, 1], computed by its power series.

    `effective_length` uses this function if t (1 - β) is small. The coefficients of the
    series are B_2k / (2k)!, with the Bernoulli numbers B_2k.
    """
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
