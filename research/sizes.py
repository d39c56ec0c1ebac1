"""Sizes that cannot be meant: refused before a loop never ends, an index overflows or
memory is exhausted."""

import functools
import math
import os
from numbers import Integral
from typing import Any

from research.checks import check_count, check_text

MOST = 2**31 - 1  # Indices and counters are int32.
MOST_RESAMPLES = MOST_TRIALS = MOST_SEEDS = 1_000_000
MOST_LAYERS, MOST_PIXELS = 10_000, 10_000
SHARE = 0.5  # Of the memory, that one array may take.


def check_most(most: int = MOST, /, **sizes: Any) -> None:
    """Refuse an integer that is larger than anybody can mean; what is not an integer is
    left for other checks.

    Args:
      most: The largest that is allowed.
      sizes: By the name of the argument.
    Raises:
      ValueError: One is larger.
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
    """Refuse an array that this machine's memory could not hold.

    Args:
      what: The arguments that make it so large, with their values where they are short.
      shape: Of the array, integers.
      itemsize: Bytes of an entry.
    Raises:
      ValueError: It would take more than half of the memory.
    Example:
      >>> check_room("n and d", 10**9, 10**9)
      Traceback (most recent call last):
      ValueError: n and d ask for an array of 1000000000 x 1000000000 entries, ... GB, more than this machine can hold. ...
    """
    check_text("what", what)
    check_count("itemsize", itemsize)
    size = itemsize * math.prod(int(n) for n in shape)
    if size > SHARE * _memory():
        entries = " x ".join(_shown(int(n)) for n in shape)
        raise ValueError(
            f"{what} ask for an array of {entries} entries, {_shown(size // 10**9)} "
            "GB, more than this machine can hold. Give smaller ones."
        )


@functools.cache
def _memory() -> float:
    """Bytes of this machine; where that cannot be asked, as many as a large one has."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return 2.0**38


def _shown(value: int) -> str:
    """An integer as it is, or, where it is long, by its power of ten."""
    digits = value.bit_length() * 0.30103
    if digits < 19:
        return str(value)
    return f"{value:.1e}" if digits < 300 else f"an integer of {digits:,.0f} digits"
