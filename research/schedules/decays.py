"""Rates that fall, or stay: steps, exponentials, polynomials, cosines, roots."""

from typing import Any

import jax.numpy as jnp

from research.checks import check_number
from research.schedules.counts import Schedule, count, fraction, periods, real
from research.types import Array


def constant(value: float | Array) -> Schedule:
    """The same rate at every step: η_t = value.

    optax.constant_schedule gives back the value itself; this one has the shape of t, so that it plots like the others.

    Args:
      value: The rate, at least 0.
    Raises:
      ValueError, TypeError: A concrete value is not a finite number of at least 0.
    Example:
      >>> print(constant(0.25)(jnp.arange(3)))
      [0.25 0.25 0.25]
    """
    check_number("value", value)
    return lambda t: value * jnp.ones_like(real(t))


def step(initial: float | Array, factor: float | Array, every: int | Array) -> Schedule:
    """Drops by a factor every so many steps: η_t = initial · factor^⌊t / every⌋.

    It is optax.exponential_decay(initial, every, factor, staircase=True), with the division in integers where t is one.

    Args:
      initial: Rate at t = 0, at least 0.
      factor: What each drop multiplies by, positive; 0.1 is customary.
      every: Steps between drops, a positive integer.
    Raises:
      ValueError, TypeError: A concrete value is out of range or no number.
    References:
      He et al., Deep residual learning for image recognition, CVPR 2016, section 3.4 (a tenth at each plateau).
    Example:
      >>> print(step(1.0, 0.5, every=2)(jnp.arange(5)))
      [1.   1.   0.5  0.5  0.25]
    """
    check_number("initial", initial)
    check_number("factor", factor, positive=True)
    check_number("every", every, positive=True, integer=True)
    return lambda t: initial * factor ** real(periods(count(t), every))


def exponential(
    initial: float | Array, factor: float | Array, timescale: float | Array = 1.0
) -> Schedule:
    """Decays smoothly by a factor every `timescale` steps: η_t = initial · factor^(t / timescale).

    It is optax.exponential_decay(initial, timescale, factor) without its begin, end and staircase.

    Args:
      initial: Rate at t = 0, at least 0.
      factor: What `timescale` steps multiply by, positive; above 1 it grows.
      timescale: Steps per factor, positive.
    Raises:
      ValueError, TypeError: A concrete value is out of range or no number.
    References:
      Senior et al., An empirical study of learning rates in deep neural networks for speech recognition, ICASSP 2013.
    Example:
      >>> print(exponential(1.0, 0.25, timescale=2)(jnp.arange(3)))
      [1.   0.5  0.25]
    """
    check_number("initial", initial)
    check_number("factor", factor, positive=True)
    check_number("timescale", timescale, positive=True)
    return lambda t: initial * factor ** (real(t) / real(timescale))


def polynomial(
    initial: float | Array,
    final: float | Array,
    num_steps: int | Array,
    power: float | Array = 1.0,
) -> Schedule:
    """Goes to its final rate along a polynomial: η_t = final + (initial - final) · (1 - min(t, T) / T)^power.

    T = num_steps. It is optax.polynomial_schedule without its begin. power = 1 is linear decay.

    Args:
      initial: Rate at t = 0, at least 0.
      final: Rate from t = num_steps on, at least 0.
      num_steps: T, a positive integer.
      power: Positive; 0.9 in DeepLab.
    Raises:
      ValueError, TypeError: A concrete value is out of range or no number.
    References:
      Chen et al., DeepLab, IEEE TPAMI 40 (2018), section 4 (the "poly" policy).
    Example:
      >>> print(polynomial(1.0, 0.0, num_steps=4, power=2.0)(jnp.arange(5)))
      [1.     0.5625 0.25   0.0625 0.    ]
    """
    check_number("initial", initial)
    check_number("final", final)
    check_number("num_steps", num_steps, positive=True, integer=True)
    check_number("power", power, positive=True)

    def rate_at(t: Any) -> Array:
        left = jnp.maximum(
            1.0 - fraction(t, num_steps), 0.0
        )  # Compiled, 1 - T · (1 / T) may be -1.5e-8: no root of that.
        return final + (initial - final) * left**power

    return rate_at


def cosine(
    initial: float | Array, num_steps: int | Array, final: float | Array = 0.0
) -> Schedule:
    """Goes to its final rate along half a cosine: η_t = final + ½ (initial - final) · (1 + cos(π min(t, T) / T)).

    T = num_steps. The paper restarts after T steps; this one stays at `final`, as optax.cosine_decay_schedule does,
    whose alpha is final / initial.

    Args:
      initial: Rate at t = 0, at least 0.
      num_steps: T, a positive integer.
      final: Rate from t = num_steps on, at least 0.
    Raises:
      ValueError, TypeError: A concrete value is out of range or no number.
    References:
      Loshchilov & Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017, equation (5).
    Example:
      >>> print(", ".join(f"{rate:.3f}" for rate in cosine(1.0, num_steps=4)(jnp.arange(5))))
      1.000, 0.854, 0.500, 0.146, 0.000
    """
    check_number("initial", initial)
    check_number("num_steps", num_steps, positive=True, integer=True)
    check_number("final", final)
    return lambda t: (
        final
        + 0.5 * (initial - final) * (1.0 + jnp.cos(jnp.pi * fraction(t, num_steps)))
    )


def inverse_square_root(
    initial: float | Array, timescale: float | Array = 1.0
) -> Schedule:
    """Falls like 1 / √t, the rate of non-smooth and online convex descent: η_t = initial / √(1 + t / timescale).

    optax has no such schedule. Zinkevich's η_t = t^(-1/2), which counts steps from 1, is initial = timescale = 1.

    Args:
      initial: Rate at t = 0, at least 0.
      timescale: Steps until the rate has fallen to 1 / √2 of it, positive.
    Raises:
      ValueError, TypeError: A concrete value is out of range or no number.
    References:
      Zinkevich, Online convex programming and generalized infinitesimal gradient ascent, ICML 2003, theorem 1.
    Example:
      >>> print(inverse_square_root(1.0, timescale=1.0)(jnp.array([0, 3, 15])))
      [1.   0.5  0.25]
    """
    check_number("initial", initial)
    check_number("timescale", timescale, positive=True)
    return lambda t: initial / jnp.sqrt(1.0 + real(t) / real(timescale))


def inverse_time(initial: float | Array, timescale: float | Array = 1.0) -> Schedule:
    """Falls like 1 / t, so that Σ η_t = ∞ and Σ η_t² < ∞ (Robbins-Monro): η_t = initial / (1 + t / timescale).

    optax has no such schedule. Bottou's γ_0 / (1 + γ_0 λ t) is timescale = 1 / (γ_0 λ).

    Args:
      initial: Rate at t = 0, at least 0.
      timescale: Steps until the rate has halved, positive.
    Raises:
      ValueError, TypeError: A concrete value is out of range or no number.
    References:
      Robbins & Monro, A stochastic approximation method, Ann. Math. Stat. 22 (1951).
      Bottou, Stochastic gradient descent tricks, 2012, section 5.2.
    Example:
      >>> print(inverse_time(1.0, timescale=10.0)(jnp.array([0, 10, 30])))
      [1.   0.5  0.25]
    """
    check_number("initial", initial)
    check_number("timescale", timescale, positive=True)
    return lambda t: initial / (1.0 + real(t) / real(timescale))
