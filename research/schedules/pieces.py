"""Schedules in pieces: a warm-up, a table of rates, and a sequence of schedules."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.core import Tracer

from research.checks import check_callable, check_number, check_sequence
from research.schedules.counts import Schedule, count, fraction, is_before, real, since
from research.types import Array, Integer, Scalar


def linear_warmup(peak: Scalar, num_steps: Integer, initial: Scalar = 0.0) -> Schedule:
    """Build a linear warm-up, which rises linearly to the peak and then stays there.

    With T = num_steps, the rate is η_t = initial + (peak - initial) · min(t, T) / T.
    The schedule equals optax.linear_schedule(initial, peak, num_steps). If initial = 0,
    the first step does not change the params. By default, PyTorch's LinearLR starts at
    a third of the peak. To continue with another schedule, use `join`.

    Args:
      peak: Rate from t = num_steps on, at least 0.
      num_steps: Number T of steps, a positive integer.
      initial: Rate at t = 0, at least 0.
    Returns:
      Function (t) -> η_t, the learning rate at step t = 0, 1, ...
    Raises:
      ValueError, TypeError: A concrete value is out of range or not a number.
    References:
      Goyal et al., Accurate, large minibatch SGD: training ImageNet in 1 hour, 2017,
      section 2.2 (gradual warmup).
    Example:
      >>> print(linear_warmup(1.0, num_steps=4)(jnp.arange(6)))
      [0.   0.25 0.5  0.75 1.   1.  ]
    """
    check_number("peak", peak)
    check_number("num_steps", num_steps, positive=True, integer=True)
    check_number("initial", initial)
    return lambda t: initial + (peak - initial) * fraction(t, num_steps)


def join(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """Join schedules one after another, each with steps counted from its own start.

    The rate is η_t = schedules[i](t - b_i) for b_i <= t < b_(i+1), where b_0 = 0 and
    b_1, b_2, ... are the boundaries. The last schedule has no end.

    optax.join_schedules also evaluates the later schedules at negative steps t - b_i,
    where for example a schedule with √(t - b_i) is NaN. The rate of optax does not
    contain this NaN, but the derivatives of this rate may be NaN. With jax_debug_nans,
    optax's schedule raises an error. The function here evaluates no schedule at a
    negative step.

    Args:
      schedules: Sequence of k schedules, from this library or from optax.
      boundaries: Steps at which the second, third, ... schedule starts: k - 1 positive
        integers in increasing order.
    Returns:
      Function (t) -> η_t, the learning rate at step t = 0, 1, ...
    Raises:
      ValueError, TypeError: There is no schedule, the number of boundaries is not
        k - 1, the boundaries are not positive integers that increase, or an entry of
        schedules is not a function.
    Example:
      >>> from research.schedules import inverse_time
      >>> print(
      ...     join([linear_warmup(1.0, 2), inverse_time(1.0)], boundaries=[2])(
      ...         jnp.arange(4)
      ...     )
      ... )
      [0.  0.5 1.  0.5]
    """
    check_sequence("schedules", schedules, "schedules")
    if not len(schedules):
        raise ValueError("schedules must hold at least one schedule; got none.")
    for place, schedule in enumerate(schedules):
        hint = "" if callable(schedule) else "For a constant rate, use constant(rate)."
        check_callable(f"schedules[{place}]", schedule, "t", hint=hint)
    check_sequence("boundaries", boundaries, "integers")
    if len(schedules) != len(boundaries) + 1:
        raise ValueError(
            "join needs a boundary between each schedule and the next; got "
            f"{len(schedules)} schedules and boundaries={boundaries!r}. Give "
            f"{len(schedules) - 1} boundaries."
        )
    _check_boundaries(boundaries, "schedules")

    def joined(t: Any) -> Array:
        t = count(t)
        rate = schedules[0](t)
        for boundary, schedule in zip(boundaries, schedules[1:], strict=True):
            rate = jnp.where(is_before(t, boundary), rate, schedule(since(t, boundary)))
        return rate

    return joined


def piecewise(
    initial: Scalar,
    boundaries: Sequence[Integer],
    values: Sequence[Scalar],
) -> Schedule:
    """Build a piecewise constant schedule from a list of rates.

    The rate is `initial` before the first boundary, and values[i] from boundaries[i] to
    the next boundary. The last value holds for all later steps.

    optax.piecewise_constant_schedule takes factors instead of rates. In optax, each
    rate is a multiple of the previous rate, so a rate of 0 stays 0. For the
    boundaries b_1, ..., b_k and the values v_1, ..., v_k, the same schedule in optax is
    optax.piecewise_constant_schedule(initial, {b_1: v_1 / initial, b_2: v_2 / v_1,
    ...}). Both schedules apply the new rate from the boundary on. Keras'
    PiecewiseConstantDecay applies the new rate one step later.

    Args:
      initial: Rate before the first boundary, at least 0.
      boundaries: Steps at which the rate changes: k positive integers in increasing
        order.
      values: New rate at each boundary: k numbers, at least 0.
    Returns:
      Function (t) -> η_t, the learning rate at step t = 0, 1, ...
    Raises:
      ValueError, TypeError: The lengths differ, the boundaries do not increase, or a
        concrete value is out of range.
    References:
      Krizhevsky, Sutskever & Hinton, ImageNet classification with deep convolutional
      neural networks, NeurIPS 2012, section 5 (the rate is lowered by hand, three
      times).
    Example:
      >>> print(piecewise(1.0, boundaries=[2, 4], values=[0.5, 0.125])(jnp.arange(6)))
      [1.    1.    0.5   0.5   0.125 0.125]
    """
    check_number("initial", initial)
    check_sequence("boundaries", boundaries, "integers")
    check_sequence("values", values, "numbers")
    if len(boundaries) != len(values):
        raise ValueError(
            "piecewise needs one value for every boundary; got "
            f"boundaries={boundaries!r} and values={values!r}. The rate before the "
            "first boundary is `initial`."
        )
    _check_boundaries(boundaries, "values")
    for place, value in enumerate(values):
        check_number(f"values[{place}]", value)

    def rate_at(t: Any) -> Array:
        t = count(t)
        rate = initial * jnp.ones_like(real(t))
        for boundary, value in zip(boundaries, values, strict=True):
            rate = jnp.where(is_before(t, boundary), rate, value)
        return rate

    return rate_at


def _check_boundaries(boundaries: Sequence[Integer], companions: str) -> None:
    for place, boundary in enumerate(boundaries):
        check_number(f"boundaries[{place}]", boundary, positive=True, integer=True)
    concrete = [boundary for boundary in boundaries if not isinstance(boundary, Tracer)]
    if any(later <= earlier for earlier, later in itertools.pairwise(concrete)):
        raise ValueError(
            f"boundaries must increase; got boundaries={boundaries!r}. Sort them "
            f"together with their {companions}."
        )
