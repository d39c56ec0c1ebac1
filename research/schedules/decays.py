"""Decaying schedules: steps, exponentials, polynomials, cosines, roots."""

from typing import Any

import jax.numpy as jnp

from research.checks import check_number
from research.schedules.counts import Schedule, count, fraction, periods, real
from research.types import Array, Integer, Scalar


def constant(value: Scalar) -> Schedule:
    """Build a constant schedule: η_t = value.

    If t is an array of steps, the result is an array of the same shape, so this
    schedule can be plotted like the other schedules. optax.constant_schedule returns
    `value` itself, whatever the shape of t.

    Args:
      value: Rate, at least 0.
    Returns:
      Function (t) -> η_t, the learning rate at step t = 0, 1, ...
    Raises:
      ValueError, TypeError: A concrete value is not a finite number >= 0.
    Example:
      >>> print(constant(0.25)(jnp.arange(3)))
      [0.25 0.25 0.25]
    """
    check_number("value", value)
    return lambda t: value * jnp.ones_like(real(t))


def step(initial: Scalar, factor: Scalar, every: Integer) -> Schedule:
    """Build a step decay: η_t = initial · factor^⌊t / every⌋.

    The schedule equals optax.exponential_decay(initial, every, factor, staircase=True).
    If t is an integer, this schedule uses integer division, so that a large t is not
    rounded.

    Args:
      initial: Rate at t = 0, at least 0.
      factor: Positive factor by which the rate is multiplied at each drop, usually 0.1.
      every: Number of steps between two drops, a positive integer.
    Returns:
      Function (t) -> η_t, the learning rate at step t = 0, 1, ...
    Raises:
      ValueError, TypeError: A concrete value is out of range or not a number.
    References:
      He et al., Deep residual learning for image recognition, CVPR 2016, section 3.4
      (the rate is divided by 10 at each plateau).
    Example:
      >>> print(step(1.0, 0.5, every=2)(jnp.arange(5)))
      [1.   1.   0.5  0.5  0.25]
    """
    check_number("initial", initial)
    check_number("factor", factor, positive=True)
    check_number("every", every, positive=True, integer=True)
    return lambda t: initial * factor ** real(periods(count(t), every))


def exponential(initial: Scalar, factor: Scalar, timescale: Scalar = 1.0) -> Schedule:
    """Build an exponential decay: η_t = initial · factor^(t / timescale).

    The schedule equals optax.exponential_decay(initial, timescale, factor), where all
    other arguments of optax.exponential_decay have their default values.

    Args:
      initial: Rate at t = 0, at least 0.
      factor: Positive factor by which the rate is multiplied in `timescale` steps. If
        the factor is above 1, the rate grows.
      timescale: Positive number of steps in which the rate is multiplied by `factor`
        once.
    Returns:
      Function (t) -> η_t, the learning rate at step t = 0, 1, ...
    Raises:
      ValueError, TypeError: A concrete value is out of range or not a number.
    References:
      Senior et al., An empirical study of learning rates in deep neural networks for
      speech recognition, ICASSP 2013.
    Example:
      >>> print(exponential(1.0, 0.25, timescale=2)(jnp.arange(3)))
      [1.   0.5  0.25]
    """
    check_number("initial", initial)
    check_number("factor", factor, positive=True)
    check_number("timescale", timescale, positive=True)
    return lambda t: initial * factor ** (real(t) / real(timescale))


def polynomial(
    initial: Scalar,
    final: Scalar,
    num_steps: Integer,
    power: Scalar = 1.0,
) -> Schedule:
    """Build a polynomial decay, which is a linear decay for power = 1.

    With T = num_steps, the rate is η_t = final + (initial - final) ·
    (1 - min(t, T) / T)^power. The schedule equals optax.polynomial_schedule with
    transition_begin=0.

    Args:
      initial: Rate at t = 0, at least 0.
      final: Rate from t = num_steps on, at least 0.
      num_steps: Number T of steps, a positive integer.
      power: Positive exponent. DeepLab uses 0.9.
    Returns:
      Function (t) -> η_t, the learning rate at step t = 0, 1, ...
    Raises:
      ValueError, TypeError: A concrete value is out of range or not a number.
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
        # In compiled code 1 - T · (1 / T) may be -1.5e-8, which has no real root.
        left = jnp.maximum(1.0 - fraction(t, num_steps), 0.0)
        return final + (initial - final) * left**power

    return rate_at


def cosine(initial: Scalar, num_steps: Integer, final: Scalar = 0.0) -> Schedule:
    """Build a cosine decay, which falls to the final rate along half a cosine.

    With T = num_steps, the rate is η_t = final + ½ (initial - final) ·
    (1 + cos(π min(t, T) / T)). In the paper of Loshchilov and Hutter, the schedule
    restarts after T steps. Here, the rate stays at `final` after T steps.
    optax.cosine_decay_schedule with alpha = final / initial is the same schedule.

    Args:
      initial: Rate at t = 0, at least 0.
      num_steps: Number T of steps, a positive integer.
      final: Rate from t = num_steps on, at least 0.
    Returns:
      Function (t) -> η_t, the learning rate at step t = 0, 1, ...
    Raises:
      ValueError, TypeError: A concrete value is out of range or not a number.
    References:
      Loshchilov & Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR
      2017, equation (5).
    Example:
      >>> print(
      ...     ", ".join(
      ...         f"{rate:.3f}" for rate in cosine(1.0, num_steps=4)(jnp.arange(5))
      ...     )
      ... )
      1.000, 0.854, 0.500, 0.146, 0.000
    """
    check_number("initial", initial)
    check_number("num_steps", num_steps, positive=True, integer=True)
    check_number("final", final)
    return lambda t: (
        final
        + 0.5 * (initial - final) * (1.0 + jnp.cos(jnp.pi * fraction(t, num_steps)))
    )


def inverse_square_root(initial: Scalar, timescale: Scalar = 1.0) -> Schedule:
    """Build an inverse square-root decay: η_t = initial / √(1 + t / timescale).

    A rate of order 1 / √t is used for non-smooth and online convex problems. With
    initial = timescale = 1, this is Zinkevich's schedule k^(-1/2), where k = t + 1 is
    the number of the step, counted from 1. optax does not have this schedule.

    Args:
      initial: Rate at t = 0, at least 0.
      timescale: Positive number of steps after which the rate is initial / √2.
    Returns:
      Function (t) -> η_t, the learning rate at step t = 0, 1, ...
    Raises:
      ValueError, TypeError: A concrete value is out of range or not a number.
    References:
      Zinkevich, Online convex programming and generalized infinitesimal gradient
      ascent, ICML 2003, theorem 1.
    Example:
      >>> print(inverse_square_root(1.0, timescale=1.0)(jnp.array([0, 3, 15])))
      [1.   0.5  0.25]
    """
    check_number("initial", initial)
    check_number("timescale", timescale, positive=True)
    return lambda t: initial / jnp.sqrt(1.0 + real(t) / real(timescale))


def inverse_time(initial: Scalar, timescale: Scalar = 1.0) -> Schedule:
    """Build an inverse-time decay: η_t = initial / (1 + t / timescale).

    If initial > 0, the rates satisfy the Robbins-Monro conditions Σ η_t = ∞ and Σ η_t²
    < ∞, with the sums over t = 0, 1, ... Bottou's schedule γ_0 / (1 + γ_0 λ t) is this
    schedule with initial = γ_0 and timescale = 1 / (γ_0 λ). optax does not have this
    schedule.

    Args:
      initial: Rate at t = 0, at least 0.
      timescale: Positive number of steps after which the rate is initial / 2.
    Returns:
      Function (t) -> η_t, the learning rate at step t = 0, 1, ...
    Raises:
      ValueError, TypeError: A concrete value is out of range or not a number.
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
