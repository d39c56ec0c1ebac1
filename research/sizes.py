"""Upper limits for sizes, checked before an index overflows or memory is exhausted."""

import functools
import math
import os
from numbers import Integral
from typing import Any

from research.checks import check_count, check_text

MOST = 2**31 - 1  # Indices and counters are int32.
MOST_COMPARISONS = 1_000_000
MOST_RESAMPLES = MOST_TRIALS = MOST_SEEDS = 1_000_000
MOST_LAYERS, MOST_PIXELS = 10_000, 10_000
SHARE = 0.5  # Largest share of the memory for one array.


def check_most(most: int = MOST, /, **sizes: Any) -> None:
    """Raise an error if one of the given integers is more than `most`.

    Values that are not integers are ignored.

    Args:
      most: Largest integer that is accepted.
      sizes: Values to check, as keyword arguments. The error message shows the keyword.
    Raises:
      ValueError: A value is larger than `most`.
    Example:
      >>> check_most(10, order=3)
      >>> check_most(10, order=10**30)
      Traceback (most recent call last):
      ValueError: order must be at most 10; got order=1.0e+30.
    """
    for name, value in sizes.items():
        if isinstance(value, Integral) and int(value) > most:
            raise ValueError(
                f"{name} must be at most {most:,}; got {name}={_shown(int(value))}."
            )


def check_room(what: str, *shape: Any, itemsize: int = 8) -> None:
    """Raise an error if an array needs more than half of this machine's memory.

    Args:
      what: Names of the arguments that determine the size. The error message begins
        with this text. Besides the names, the text may give short values, such as "n=10
        and d=3".
      shape: Lengths of the axes of the array.
      itemsize: Number of bytes per entry.
    Raises:
      ValueError: The array would need more than half of the memory.
    Example:
      >>> check_room("n and d", 10**9, 10**9)
      Traceback (most recent call last):
      ValueError: n and d would need an array of 1000000000 x 1000000000 entries, ...
    """
    check_text("what", what)
    check_count("itemsize", itemsize)
    size = itemsize * math.prod(int(n) for n in shape)
    if size > SHARE * _memory():
        entries = " x ".join(_shown(int(n)) for n in shape)
        raise ValueError(
            f"{what} would need an array of {entries} entries, {_shown(size // 10**9)} "
            "GB, more than half of the memory of this machine. Use smaller values."
        )


def check_memory(what: str, size: int) -> None:
    """Raise an error if a size in bytes is more than half of this machine's memory.

    Args:
      what: Name of the thing that needs the memory. The error message begins with this
        text.
      size: Number of bytes.
    Raises:
      ValueError: The size is more than half of the memory.
    Example:
      >>> check_memory("the state of the rule", 10**18)
      Traceback (most recent call last):
      ValueError: the state of the rule would need 1000000000 GB, more than half ...
    """
    check_text("what", what)
    check_count("size", size, 0)
    if size > SHARE * _memory():
        raise ValueError(
            f"{what} would need {_shown(size // 10**9)} GB, more than half of the "
            f"{_memory() / 1e9:.3g} GB of this machine. Use smaller values."
        )


@functools.cache
def _memory() -> float:
    """Return this machine's memory in bytes, or 2³⁸ if it is unknown."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return 2.0**38


def _shown(value: int) -> str:
    """Write an integer in full, or with a power of ten if it is long."""
    digits = value.bit_length() * 0.30103
    if digits < 19:
        return str(value)
    return f"{value:.1e}" if digits < 300 else f"an integer of {digits:,.0f} digits"
