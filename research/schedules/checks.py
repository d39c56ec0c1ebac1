"""The check of a number that rules and schedules share."""

import math
import numbers
from typing import Any

import jax
import numpy as np
from jax.core import Tracer


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
    if isinstance(value, int) and abs(int(value)) >= 2**63:  # Neither an integer of numpy nor, from 1e309 on, a float.
        value = float(value) if abs(int(value)) < 2**1023 else math.inf
        integer = integer and math.isinf(value)
    array = np.asarray(value)
    if array.ndim:
        raise TypeError(f"{message} For several values at once, jax.vmap over the constructor.")
    if integer and not np.issubdtype(array.dtype, np.integer):
        raise TypeError(message)
    number = float(array)
    if not 0.0 <= number < below or (positive and number == 0.0):  # NaN and infinity fail the first.
        raise ValueError(message)
