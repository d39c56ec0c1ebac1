"""Learning rates as functions of the step count: each constructor returns t -> η_t.

A schedule is what `optax` calls one, so ours go into optax's rules and optax's into ours. t is a step count from 0, an
integer or float array of any shape; the rate has t's shape and JAX's default float dtype. Parameters may be traced.

Those of optax that divide an integer count by an integer length (polynomial, linear, exponential) do it in float32 even
where float64 is on; ours in the default float dtype. They agree to rounding on float counts, to seven digits on others.
"""

import itertools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from research.types import Array

Schedule = Callable[[Any], Array]


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
    return lambda t: value * jnp.ones_like(_real(t))


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
    return lambda t: initial * factor ** _real(jnp.asarray(t) // every)


def exponential(initial: float | Array, factor: float | Array, timescale: float | Array = 1.0) -> Schedule:
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
    return lambda t: initial * factor ** (_real(t) / timescale)


def polynomial(
    initial: float | Array, final: float | Array, num_steps: int | Array, power: float | Array = 1.0
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
    return lambda t: final + (initial - final) * (1.0 - _fraction(t, num_steps)) ** power


def cosine(initial: float | Array, num_steps: int | Array, final: float | Array = 0.0) -> Schedule:
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
    return lambda t: final + 0.5 * (initial - final) * (1.0 + jnp.cos(jnp.pi * _fraction(t, num_steps)))


def inverse_square_root(initial: float | Array, timescale: float | Array = 1.0) -> Schedule:
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
    return lambda t: initial / jnp.sqrt(1.0 + _real(t) / timescale)


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
    return lambda t: initial / (1.0 + _real(t) / timescale)


def linear_warmup(peak: float | Array, num_steps: int | Array, initial: float | Array = 0.0) -> Schedule:
    """Rises in a straight line and stays: η_t = initial + (peak - initial) · min(t, T) / T, T = num_steps.

    It is optax.linear_schedule(initial, peak, num_steps). With initial = 0 the first step does not move; torch's
    LinearLR starts at a third of the peak. Follow it by another schedule with `join`.

    Args:
      peak: Rate from t = num_steps on, at least 0.
      num_steps: T, a positive integer.
      initial: Rate at t = 0, at least 0.
    Raises:
      ValueError, TypeError: A concrete value is out of range or no number.
    References:
      Goyal et al., Accurate, large minibatch SGD: training ImageNet in 1 hour, 2017, section 2.2 (gradual warmup).
    Example:
      >>> print(linear_warmup(1.0, num_steps=4)(jnp.arange(6)))
      [0.   0.25 0.5  0.75 1.   1.  ]
    """
    check_number("peak", peak)
    check_number("num_steps", num_steps, positive=True, integer=True)
    check_number("initial", initial)
    return lambda t: initial + (peak - initial) * _fraction(t, num_steps)


def join(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """One schedule after another, each counting from its own start: η_t = schedules[i](t - b_i) for b_i <= t < b_(i+1).

    b_0 = 0 and b_1, b_2, ... are the boundaries. optax.join_schedules evaluates later schedules at negative counts,
    where 1 / √(1 + t) is NaN: unselected, but it poisons derivatives and trips jax_debug_nans. Here counts start at 0.

    Args:
      schedules: k schedules, ours or optax's.
      boundaries: k - 1 positive integers in increasing order.
    Raises:
      ValueError, TypeError: Lengths do not fit, or boundaries do not increase.
    Example:
      >>> print(join([linear_warmup(1.0, 2), inverse_time(1.0)], boundaries=[2])(jnp.arange(4)))
      [0.  0.5 1.  0.5]
    """
    if len(schedules) != len(boundaries) + 1:
        raise ValueError(
            f"join needs one boundary between every two schedules; got {len(schedules)} schedules and "
            f"boundaries={boundaries!r}. Give {max(len(schedules) - 1, 0)} of them."
        )
    for boundary in boundaries:
        check_number("each of boundaries", boundary, positive=True, integer=True)
    concrete = [boundary for boundary in boundaries if not isinstance(boundary, Tracer)]
    if any(later <= earlier for earlier, later in itertools.pairwise(concrete)):
        raise ValueError(f"boundaries must increase; got boundaries={boundaries!r}. Sort them, with their schedules.")

    def joined(t: Any) -> Array:
        t = jnp.asarray(t)
        rate = schedules[0](t)
        for boundary, schedule in zip(boundaries, schedules[1:], strict=True):
            rate = jnp.where(t < boundary, rate, schedule(jnp.maximum(t - boundary, 0)))
        return rate

    return joined


# Every entry makes a schedule of numbers; `join`, which makes one of schedules, is not among them.
SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "polynomial": polynomial,
    "cosine": cosine,
    "inverse_square_root": inverse_square_root,
    "inverse_time": inverse_time,
    "linear_warmup": linear_warmup,
}


def check_number(
    name: str, value: Any, *, below: float = math.inf, positive: bool = False, integer: bool = False
) -> None:
    """Raises unless a concrete hyper-parameter is a finite number in [0, below); a tracer passes.

    Args:
      name, value: The argument; a number is a Python or numpy number or an array of shape ().
      below, positive, integer: What it must be; positive excludes 0, integer excludes 2.0.
    Raises:
      TypeError, ValueError: value is not a scalar number (or integer); it lies outside, or is NaN or infinite.
    Example:
      >>> check_number("b1", 1.5, below=1.0)
      Traceback (most recent call last):
      ValueError: b1 must be a finite number, at least 0 and below 1; got b1=1.5.
    """
    if isinstance(value, Tracer):
        return
    limits = "positive" if positive else "at least 0"
    limits += f" and below {below:g}" if below < math.inf else ""
    kind = "an integer" if integer else "a finite number"
    message = f"{name} must be {kind}, {limits}; got {name}={value!r}."
    if isinstance(value, bool) or not isinstance(value, numbers.Real | np.ndarray | jax.Array):
        raise TypeError(message)
    array = np.asarray(value)
    if array.ndim:
        raise TypeError(f"{message} For several values at once, jax.vmap over the constructor.")
    if integer and not np.issubdtype(array.dtype, np.integer):
        raise TypeError(message)
    number = float(array)
    if not 0.0 <= number < below or (positive and number == 0.0):  # NaN and infinity fail the first.
        raise ValueError(message)


def _real(t: Any) -> Array:
    """In the default float dtype: an int32 count divided by an integer would be float32 even where float64 is on."""
    return jnp.asarray(t, dtype=float)


def _fraction(t: Any, num_steps: int | Array) -> Array:
    return jnp.minimum(_real(t), num_steps) / num_steps
