"""Interleaved timing: time calls in turns, so that other load slows them equally."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from research.checks import check_callable, check_count, check_sequence
from research.sizes import check_most

LEAST_SECONDS = 2e-3  # Least duration of a sample; shorter calls are repeated.
MOST_CALLS = 1000  # Largest number of calls in a sample.
TRIALS = 5  # Trial calls; the fastest one determines the number of repetitions.


def interleaved_timing(
    calls: Sequence[Callable[[], Any]], repeats: int
) -> Float[np.ndarray, "repeats calls"]:
    """Time several calls in turn, so that other programs slow all calls about equally.

    Each call first runs five times, so that compilation is not measured. Then there are
    `repeats` rounds. Each round takes one sample of each call. In every second round,
    the order of the calls is reversed.

    To compare two calls, divide the column of one call by the column of the other call,
    and take the median of these ratios. Other load on the machine slows both calls
    about equally, so this median hardly depends on the load.

    Args:
      calls: Functions without arguments. If a function returns JAX arrays, the time
        until these arrays are ready is included.
      repeats: Number of samples of each call, at most a million. A sample is the mean
        time of k executions in a row. k is chosen between 1 and 1000, so that the k
        executions take about 2 ms if possible.
    Returns:
      Seconds per call, shape (repeats, calls).
    Raises:
      ValueError: `repeats` is not a positive integer, or is above a million.
      TypeError: `calls` is not a sequence of functions.
    Example:
      >>> sleeps = [lambda: time.sleep(0.001), lambda: time.sleep(0.01)]
      >>> seconds = interleaved_timing(sleeps, 3)
      >>> seconds.shape, bool(np.median(seconds[:, 1] / seconds[:, 0]) > 2)
      ((3, 2), True)
    """
    check_sequence("calls", calls, "functions")
    for place, call in enumerate(calls):
        check_callable(f"calls[{place}]", call)
    check_count("repeats", repeats)
    check_most(1_000_000, repeats=repeats)
    numbers = [_number(call) for call in calls]
    seconds = np.zeros((repeats, len(calls)))
    for repeat in range(repeats):
        for i in range(len(calls))[:: -1 if repeat % 2 else 1]:
            seconds[repeat, i] = _sample(calls[i], numbers[i])
    return seconds


def _number(call: Callable[[], Any]) -> int:
    """Return the number of calls in one sample."""
    fastest = min(_sample(call, 1) for _ in range(TRIALS))
    return min(math.ceil(LEAST_SECONDS / max(fastest, 1e-9)), MOST_CALLS)


def _sample(call: Callable[[], Any], number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
        jax.block_until_ready(call())
    return (time.perf_counter() - start) / number
