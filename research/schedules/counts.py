"""What a schedule is, and step counts as the real numbers that schedules compute with."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from research.checks import check_numbers
from research.types import Array

Schedule = Callable[[Any], Array]


def count(t: Any) -> Array:
    """The steps taken, as an array; TypeError unless they are numbers."""
    check_numbers("t", t)
    return jnp.asarray(t)


def real(t: Any) -> Array:
    """In the default float dtype: an int32 count divided by an integer would be float32 even where float64 is on."""
    return jnp.asarray(count(t), dtype=float)


def fraction(t: Any, num_steps: int | Array) -> Array:
    """How much of num_steps has gone by: min(t, T) / T."""
    return jnp.minimum(real(t), num_steps) / num_steps
