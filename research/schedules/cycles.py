"""Cyclic schedules: one cycle over a whole training run, and warm restarts."""

from typing import Any

import jax.numpy as jnp

from research.checks import check_number
from research.schedules.counts import Schedule, real
from research.types import Array, Integer, Scalar


def one_cycle(
    peak: Scalar,
    num_steps: Integer,
    warmup_fraction: Scalar = 0.3,
    initial_divisor: Scalar = 25.0,
    final_divisor: Scalar = 1e4,
) -> Schedule:
    """Build a one-cycle schedule, which rises and then falls, each along half a cosine.

    η_t = η_0 + ½ (peak - η_0) · (1 - cos(π t / p)) for t < p,
    η_t = η_T + ½ (peak - η_T) · (1 + cos(π (t - p) / (T - p))) for p <= t < T,
    η_t = η_T from T on.

    Here η_t is the learning rate at step t, T = num_steps and φ = warmup_fraction. The
    peak is at step p = φ T. The first rate is η_0 = peak / initial_divisor, and the
    last rate is η_T = η_0 / final_divisor.

    In the paper of Smith and Topin, the rate rises and falls along straight lines, and
    momentum is lowered while the rate rises. For straight lines, `join` a
    `linear_warmup` and a `polynomial`. The cosines and the default values are those of
    optax and PyTorch. optax.cosine_onecycle_schedule(T, peak, φ, ...) is the same
    schedule, except that optax rounds p down to an integer. PyTorch's
    OneCycleLR(total_steps=N, pct_start=c) reaches its final rate at its last step,
    N - 1. OneCycleLR equals the schedule here with num_steps = N - 1 and
    φ = (c N - 1) / (N - 1).

    Args:
      peak: Highest rate, at least 0.
      num_steps: Number T of steps, a positive integer.
      warmup_fraction: Fraction φ of the steps in which the rate rises, in (0, 1).
      initial_divisor: Ratio peak / η_0, positive.
      final_divisor: Ratio η_0 / η_T, positive.
    Returns:
      Function (t) -> η_t, the learning rate at step t = 0, 1, ...
    Raises:
      ValueError, TypeError: A concrete value is out of range or not a number.
    References:
      Smith & Topin, Super-convergence: very fast training of neural networks using
      large learning rates, 2017, section 3.
    Example:
      >>> rates = one_cycle(
      ...     1.0,
      ...     num_steps=4,
      ...     warmup_fraction=0.5,
      ...     initial_divisor=5.0,
      ...     final_divisor=10.0,
      ... )
      >>> print(", ".join(f"{rate:.2f}" for rate in rates(jnp.arange(6))))
      0.20, 0.60, 1.00, 0.51, 0.02, 0.02
    """
    check_number("peak", peak)
    check_number("num_steps", num_steps, positive=True, integer=True)
    check_number("warmup_fraction", warmup_fraction, below=1.0, positive=True)
    check_number("initial_divisor", initial_divisor, positive=True)
    check_number("final_divisor", final_divisor, positive=True)

    def rate_at(t: Any) -> Array:
        initial = peak / initial_divisor
        final = initial / final_divisor
        top = warmup_fraction * num_steps
        risen = jnp.minimum(real(t) / top, 1.0)
        fallen = jnp.clip((real(t) - top) / (num_steps - top), 0.0, 1.0)
        rising = initial + 0.5 * (peak - initial) * (1.0 - jnp.cos(jnp.pi * risen))
        falling = final + 0.5 * (peak - final) * (1.0 + jnp.cos(jnp.pi * fallen))
        return jnp.where(real(t) < top, rising, falling)

    return rate_at


def warm_restarts(
    initial: Scalar,
    first_period: Integer,
    period_factor: Integer = 1,
    final: Scalar = 0.0,
) -> Schedule:
    """Build a cosine decay with warm restarts (SGDR).

    The steps are divided into periods. In each period, the learning rate falls from
    `initial` towards `final` along half a cosine. At the start of the next period, the
    rate returns to `initial`. This return is called a warm restart.

    In period i, the rate is η_t = final + ½ (initial - final) ·
    (1 + cos(π (t - s_i) / T_i)) for s_i <= t < s_i + T_i.

    Here T_i = T_0 mⁱ is the length of period i = 0, 1, ..., with T_0 = first_period and
    m = period_factor. Each period is m times as long as the period before. Period i
    starts at step s_i = T_0 + ... + T_(i-1), and period 0 at s_0 = 0.

    PyTorch's CosineAnnealingWarmRestarts(T_0, T_mult=m, eta_min=final) is the same
    schedule. If PyTorch's method `step` gets an epoch, the method computes i from a
    logarithm. Because of a rounding error, this i can be too small, for example at the
    fifth restart for T_0 = m = 3. The schedule here corrects such errors. In
    optax.sgdr_schedule, the user lists all periods one by one.

    Without JAX's 64-bit mode, the schedule computes in float32, which rounds integers
    above 2^24. If mⁱ is above 2^24, the rate at the first step of period i may then be
    `final` instead of `initial`. A step t above 2^24 is also rounded. In 64-bit mode,
    the rate at the first step of each period is right for all t < 2^31.

    Args:
      initial: Rate at the start of each period, at least 0.
      first_period: Length T_0 of the first period, a positive integer.
      period_factor: Ratio m of the length of a period to the length of the period
        before, a positive integer.
      final: Rate that each period approaches at its end, at least 0.
    Returns:
      Function (t) -> η_t, the learning rate at step t = 0, 1, ...
    Raises:
      ValueError, TypeError: A concrete value is out of range or not a number.
    References:
      Loshchilov & Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR
      2017, equation (5).
    Example:
      >>> rates = warm_restarts(1.0, first_period=2, period_factor=2)
      >>> print(", ".join(f"{rate:.3f}" for rate in rates(jnp.arange(7))))
      1.000, 0.500, 1.000, 0.854, 0.500, 0.146, 1.000
    """
    check_number("initial", initial)
    check_number("first_period", first_period, positive=True, integer=True)
    check_number("period_factor", period_factor, positive=True, integer=True)
    check_number("final", final)

    def rate_at(t: Any) -> Array:
        period, factor = real(first_period), real(period_factor)
        done, times = _periods_done(real(t), period, factor)
        gone = (real(t) - period * done) / (period * times)
        return final + 0.5 * (initial - final) * (1.0 + jnp.cos(jnp.pi * gone))

    return rate_at


def _periods_done(t: Array, period: Array, factor: Array) -> tuple[Array, Array]:
    """Compute the start and the length of the period that contains step t.

    Both are measured in units of `period`, the length of the first period.
    """
    time = t / period

    def start(i: Array) -> Array:
        # In float64, the relative error of a power is below 2^-50, so rounding makes
        # these integers exact. In float32, they are exact up to 2^24.
        sum_of_powers = (jnp.round(factor**i) - 1.0) / jnp.maximum(factor - 1.0, 1.0)
        return jnp.where(factor == 1.0, i, sum_of_powers)

    grown = jnp.log1p(time * (factor - 1.0)) / jnp.log(jnp.maximum(factor, 2.0))
    i = jnp.floor(jnp.where(factor == 1.0, time, grown))
    # The quotient may be rounded below an integer. These products are exact as long as
    # the dtype holds them: up to 2^24 in float32, 2^53 in float64.
    i = i + (period * start(i + 1.0) <= t) - (period * start(i) > t)
    return start(i), jnp.round(factor**i)
