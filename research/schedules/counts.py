"""What a schedule is, and step counts as the real numbers that schedules compute with."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from research.checks import check_number, check_numbers
from research.types import Array

Schedule = Callable[[Any], Array]


def real(t: Any) -> Array:
    """In the default float dtype: an int32 count divided by an integer would be float32 even where float64 is on."""
    return jnp.asarray(count(t), dtype=float)


def count(t: Any) -> Array:
    """A step count as an array: integers stay integers where JAX has integers as large, and become floats where not.

    Raises:
      TypeError: It is no number.
    Example:
      >>> print(count(3).dtype.kind, f"{count(2**70):.2e}")
      i 1.18e+21
    """
    if isinstance(t, int) and not isinstance(t, bool):
        check_number("t", t, signed=True)  # Below the largest float.
        limits = jnp.iinfo(jnp.result_type(int))
        return jnp.asarray(t if limits.min <= t <= limits.max else float(t))
    check_numbers("t", t)
    if isinstance(t, np.integer | np.ndarray) and np.issubdtype(t.dtype, np.integer):
        limits = jnp.iinfo(jnp.result_type(int))
        return jnp.asarray(
            t if np.all((t >= limits.min) & (t <= limits.max)) else np.asarray(t, float)
        )
    return jnp.asarray(t)


def is_before(t: Array, boundary: int | Array) -> Array:
    """Whether t < boundary: always, where the boundary is beyond the largest integer that t can be."""
    return (
        jnp.ones_like(t, bool) if _is_beyond(t, boundary) else t < _beside(t, boundary)
    )


def since(t: Array, boundary: int | Array) -> Array:
    """Steps since the boundary, max(t - boundary, 0)."""
    return (
        jnp.zeros_like(t)
        if _is_beyond(t, boundary)
        else jnp.maximum(t - _beside(t, boundary), 0)
    )


def periods(t: Array, every: int | Array) -> Array:
    """⌊t / every⌋, in integers where t is one."""
    return jnp.zeros_like(t) if _is_beyond(t, every) else t // _beside(t, every)


def _is_beyond(t: Array, number: int | Array) -> bool:
    if isinstance(number, Tracer) or not jnp.issubdtype(t.dtype, jnp.integer):
        return False
    return int(number) > jnp.iinfo(t.dtype).max


def _beside(t: Array, number: int | Array) -> Any:
    """The number, such that a Python integer beside a float t is no int32."""
    return (
        float(number)
        if isinstance(number, int) and not jnp.issubdtype(t.dtype, jnp.integer)
        else number
    )


def fraction(t: Any, num_steps: int | Array) -> Array:
    """How much of num_steps has gone by: min(t, T) / T."""
    length = real(num_steps)  # int32 ends at 2^31.
    return jnp.minimum(real(t), length) / length
