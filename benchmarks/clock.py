"""Time calls in turns, and compute medians, spreads, and ratios within one run."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binom


class Spread(NamedTuple):
    """A median with the smallest and the largest value."""

    median: float
    low: float
    high: float


def spread(values: Any) -> Spread:
    """Return the median, the smallest and the largest value.

    Example:
      >>> spread([3.0, 1.0, 2.0])
      Spread(median=2.0, low=1.0, high=3.0)
    """
    values = np.asarray(values, float)
    return Spread(float(np.median(values)), float(values.min()), float(values.max()))


def ratio(theirs: Any, ours: Any) -> Spread:
    """Return how many times as fast ours is.

    The value is the ratio of the median seconds, with the spread of the ratios round by
    round.

    Args:
      theirs, ours: Seconds of the same rounds, shape (rounds,).
    Returns:
      More than 1 where ours is faster. The ratio of medians may lie outside the rounds'
      own spread; then the spread is widened to hold it.
    Example:
      >>> ratio([4.0, 6.0, 8.0], [2.0, 2.0, 2.0])
      Spread(median=3.0, low=2.0, high=4.0)
    """
    theirs, ours = np.asarray(theirs, float), np.asarray(ours, float)
    of_medians, rounds = float(np.median(theirs) / np.median(ours)), theirs / ours
    return Spread(
        of_medians,
        min(of_medians, float(rounds.min())),
        max(of_medians, float(rounds.max())),
    )


def paired_ratio(theirs: Any, ours: Any) -> Spread:
    """Return how many times as fast ours is, from the ratio of each round.

    Use it for contenders that are so close that the range over all rounds is too wide.

    Args:
      theirs, ours: Seconds of the same rounds, shape (rounds,).
    Returns:
      The median of the rounds' ratios, and the narrowest pair of them that holds the
      true median in 95 of 100 runs, whatever their distribution (by counting signs); of
      fewer than six rounds, the smallest and the largest.
    Example:
      >>> paired_ratio([2.0, 3.0, 4.0], [1.0, 1.0, 1.0])
      Spread(median=3.0, low=2.0, high=4.0)
    """
    rounds = np.sort(np.asarray(theirs, float) / np.asarray(ours, float))
    left_out = max(int(binom.ppf(0.025, len(rounds), 0.5)) - 1, 0)  # At each end.
    return Spread(
        float(np.median(rounds)), float(rounds[left_out]), float(rounds[-1 - left_out])
    )


def tell_from_now() -> Callable[[str], None]:
    """Return a function that writes a message and the seconds since now to stderr."""
    started = time.perf_counter()

    def tell(what: str) -> None:
        print(
            f"{time.perf_counter() - started:5.0f} s  {what}",
            file=sys.stderr,
            flush=True,
        )

    return tell


def seconds_of(call: Callable[[], Any]) -> float:
    """Return the seconds that one call takes.

    The call must not return before its work is done.
    """
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def seconds_of_each(call: Callable[[], Any], least: float) -> float:
    """Return the mean seconds of calls that are repeated until `least` seconds passed.

    The call must not return before its work is done. It is made at least once.
    """
    count, seconds, started = 0, 0.0, time.perf_counter()
    while count == 0 or seconds < least:
        call()
        count, seconds = count + 1, time.perf_counter() - started
    return seconds / count


def in_turn(names: Sequence[str], i: int) -> list[str]:
    """Return the names in the order of round i: each round starts with another one.

    Example:
      >>> in_turn(["a", "b", "c"], 1)
      ['b', 'c', 'a']
    """
    return [names[(i + k) % len(names)] for k in range(len(names))]


def take_turns(
    calls: Mapping[str, Callable[[], Any]], rounds: int, least: float = 0.0
) -> dict[str, np.ndarray]:
    """Time every call once a round.

    Each round starts with another call, so that all calls share a slow minute.

    Args:
      calls: Already warm, and blocking.
      rounds: How often each is timed.
      least: Smallest number of seconds that a timing takes. A shorter call is repeated,
        and its mean counts.
    Returns:
      Seconds of each, shape (rounds,).
    """
    names, seconds = list(calls), {name: np.zeros(rounds) for name in calls}
    for i in range(rounds):
        for name in in_turn(names, i):
            seconds[name][i] = seconds_of_each(calls[name], least)
    return seconds


def check_equal(values: Mapping[str, Any], what: str, tolerance: float) -> float:
    """Return the largest relative difference from the first value, after a check.

    The difference must not exceed the tolerance.

    Args:
      values: What each contender ended at, numbers or arrays of one shape, ours first.
        Places where ours is not finite must not be finite elsewhere either.
      what: Named in the error.
      tolerance: Above rounding, far below anything that another training would give.
    Raises:
      ValueError: One of them did not do the same job.
    Example:
      >>> check_equal({"ours": 2.0, "theirs": 2.0}, "the loss", 1e-9)
      0.0
    """
    (first, reference), *others = values.items()
    reference, largest = np.asarray(reference, float), 0.0
    finite = np.isfinite(reference)
    for name, value in others:
        value = np.asarray(value, float)
        if value.shape != reference.shape:
            raise ValueError(
                f"{name} did not do the same job as {first}: {what} has the shape "
                f"{value.shape} instead of {reference.shape}."
            )
        if (np.isfinite(value) != finite).any():
            raise ValueError(
                f"{name} did not do the same job as {first}: {what} is NaN or "
                "infinite for only one of them."
            )
        gap, size = np.abs(value - reference)[finite], np.abs(reference)[finite]
        # Two zeros are equal; any other number is infinitely far from zero.
        without = np.where(gap == 0, 0.0, np.inf)
        apart = np.divide(gap, size, out=without, where=size > 0)
        apart = float(apart.max(initial=0.0))
        if apart > tolerance:
            raise ValueError(
                f"{name} did not do the same job as {first}: {what} differs by "
                f"{apart:.1e}, relatively."
            )
        largest = max(largest, apart)
    return largest
