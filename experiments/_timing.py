"""Seconds of calls that an experiment compares."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import research


def seconds_and_ratios(
    calls: Mapping[str, Callable[[], Any]], repeats: int
) -> dict[str, list[float]]:
    """Time calls in turns, and compare each with the first one.

    Args:
      calls: Name -> function without arguments, as in `tuning.interleaved_timing`.
      repeats: Number of times that each call is timed.
    Returns:
      Name -> [median of the seconds, median of the ratio to the first call, low end and
      high end of the interval of this median ratio].
    """
    seconds = research.tuning.interleaved_timing(list(calls.values()), repeats)
    ratios = seconds / seconds[:, :1]
    return {
        name: [
            float(np.median(seconds[:, i])),
            *map(float, research.statistics.median_interval(ratios[:, i])),
        ]
        for i, name in enumerate(calls)
    }
