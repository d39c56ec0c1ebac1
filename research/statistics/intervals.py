"""Confidence intervals of the mean and of the median over seeds, also as text."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats

from research.checks import (
    check_count,
    check_numbers,
    check_sequence,
    check_share,
    refuse_traced,
    shown,
)
from research.sizes import MOST_RESAMPLES, check_most, check_room
from research.statistics.bootstrap import LEAST_RESAMPLES

_NEVER = 1e100
_LARGE = 1e50  # Larger samples are scaled down, so that none is taken for infinity.

Interval = Sequence[
    float | None
]  # (mean, low, high); low and high are None if there are too few seeds.


def median_interval(
    samples: Float[np.ndarray, "seeds *shape"],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[
    Float[np.ndarray, "*shape"],
    Float[np.ndarray, "*shape"],
    Float[np.ndarray, "*shape"],
]:
    """Return the median over the first axis with its percentile bootstrap interval.

    Args:
      samples: Numbers, one row for each of m seeds, shape (m, ...). Infinities are
        accepted, for example inf for a run that did not reach its target.
      level: Nominal coverage, between 0 and 1. With ten seeds, the actual coverage of
        the percentile interval is slightly lower.
      resamples: Number of bootstrap resamples, at least 100.
      seed: Seed of the resampling.
    Returns:
      The triple (median, low, high), each of shape (...). All three are NaN where a
      sample is NaN, or where the median is the mean of -inf and inf. With one seed, all
      three are equal to the median, because one seed does not show the spread.
    Raises:
      ValueError, TypeError: There is no sample, a sample is not a real number, or
        `level`, `resamples` or `seed` is out of its range.
    References:
      Efron & Tibshirani, An introduction to the bootstrap, 1993, section 13.3;
      `scipy.stats.bootstrap` computes the interval.
    Example:
      >>> median, low, high = median_interval(np.arange(11.0))
      >>> print(median, low <= 5 <= high)
      5.0 True
    """
    check_most(MOST_RESAMPLES, resamples=resamples)
    check_numbers("samples", samples)
    check_count("seed", seed, 0)
    samples = np.asarray(samples, float)
    if not samples.ndim or not len(samples):
        raise ValueError(
            "samples must have a row for each seed, at least one; got shape "
            f"{samples.shape}."
        )
    check_share("level", level, 0.95)
    check_count("resamples", resamples, LEAST_RESAMPLES)
    with np.errstate(invalid="ignore"):  # The median between -inf and inf is NaN.
        median = np.median(samples, axis=0)
    check_room(f"resamples={resamples}", resamples, max(1, samples.size))
    if len(samples) == 1:
        return median, median, median
    finite, unit = _without_infinities(samples)
    outcome = stats.bootstrap(
        (finite,),
        np.median,
        axis=0,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        rng=seed,
    )
    ends = (
        np.where(np.abs(v) > 2 * _LARGE, np.copysign(np.inf, v), v * unit)
        for v in outcome.confidence_interval
    )
    low, high = (
        np.where(np.isnan(median) | np.isnan(samples).any(axis=0), np.nan, end)
        for end in ends
    )
    return median, low, high


def _without_infinities(
    samples: Float[np.ndarray, "seeds *shape"],
) -> tuple[Float[np.ndarray, "seeds *shape"], Float[np.ndarray, "*shape"]]:
    """Return finite samples for scipy, and the unit of each column.

    scipy cannot take means of infinities, so the huge number _NEVER replaces infinity.
    scipy may also interpolate between this number and a sample. Any share of this
    number stays above _LARGE, which no sample exceeds. NaN becomes 0.
    """
    infinite = np.isinf(samples)
    largest = np.max(np.abs(samples), axis=0, initial=0.0, where=np.isfinite(samples))
    # Each column has its own unit, so that a small one beside a large one stays.
    unit = np.where(largest > _LARGE, largest, 1.0)
    finite = np.where(
        infinite,
        np.copysign(_NEVER, samples),
        np.where(np.isnan(samples), 0.0, samples) / unit,
    )
    return finite, unit


def mean_interval(
    samples: ArrayLike, *, level: float = 0.95
) -> tuple[float, float | None, float | None]:
    """Return the mean over seeds with Student's t interval: m ± t_(n-1) s / sqrt(n).

    m is the mean and s the standard deviation of the n numbers. t_(n-1) is the (1 +
    level) / 2 quantile of Student's t distribution with n - 1 degrees of freedom.

    Args:
      samples: One number per seed, shape (n,), n >= 1.
      level: Coverage of the interval for normally distributed numbers, between 0 and 1.
    Returns:
      The triple (mean, low, high). For fewer than three seeds, low and high are None,
      because two seeds hardly show the spread. If a sample is NaN or infinite, the mean
      is NaN or infinite, too. With three or more seeds, low and high are then NaN.
    Raises:
      ValueError, TypeError: `samples` is empty, does not have one axis or is not of
        real numbers, or `level` is not between 0 and 1.
    References:
      Student, The probable error of a mean, Biometrika 1908; `scipy.stats.ttest_1samp`
      gives the same interval.
    Example:
      >>> mean, low, high = mean_interval([1.0, 2.0, 3.0])
      >>> print(mean, round(low, 3), round(high, 3))
      2.0 -0.484 4.484
    """
    refuse_traced("mean_interval", samples=samples)
    check_numbers("samples", samples)
    numbers = np.asarray(samples, float)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(
            "samples must be at least one number along one axis; got shape "
            f"{numbers.shape}."
        )
    check_share("level", level, 0.95)
    with np.errstate(invalid="ignore"):
        mean = float(numbers.mean())
    if len(numbers) < 3:
        return mean, None, None
    if not np.isfinite(numbers).all():
        return mean, np.nan, np.nan
    # The squares of numbers of this size neither overflow nor underflow. A power of two
    # changes no other bits.
    exponent = np.frexp(np.max(np.abs(numbers)))[1]
    half = float(
        stats.t.isf((1 - level) / 2, len(numbers) - 1)
        * np.ldexp(np.ldexp(numbers, -exponent).std(ddof=1), exponent)
        / np.sqrt(len(numbers))
    )
    return mean, mean - half, mean + half


def seeds_in_words(count: int) -> str:
    """Return a text that says what `mean_interval` computes for this number of seeds.

    `count` is the number of seeds, at least 1. Fewer than three seeds have no interval.

    Example:
      >>> [seeds_in_words(count) for count in (1, 2, 5)]
      ['one seed', 'mean over 2 seeds', 'mean over 5 seeds, 95 % t interval']
    """
    check_count("count", count)
    return (
        f"mean over {count} seeds{', 95 % t interval' if count > 2 else ''}"
        if count > 1
        else "one seed"
    )


def interval_in_words(interval: Interval, digits: int = 3) -> str:
    """Return a mean and its interval as text.

    `interval` is the triple (mean, low, high), as `mean_interval` returns it. If low
    and high are None, the text has the mean alone. `digits` is the number of digits
    after the decimal point, at most 100.

    Example:
      >>> interval_in_words((1.8931, 1.8799, 1.9063))
      '1.893 [1.880, 1.906]'
      >>> interval_in_words((1.5, None, None))
      '1.500'
    """
    check_sequence("interval", interval, "a mean and the ends of its interval")
    if len(interval) != 3:
        raise ValueError(
            f"interval must be (mean, low, high); got interval={shown(interval)}."
        )
    for number in interval:
        if number is not None:
            check_numbers("each of interval", number, ndim=0)
    if interval[0] is None or (interval[1] is None) != (interval[2] is None):
        raise ValueError(
            "interval must be (mean, low, high), or (mean, None, None); got "
            f"interval={shown(interval)}."
        )
    check_count("digits", digits, 0, 100)
    mean, low, high = interval
    return f"{mean:.{digits}f}" + (
        "" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    )
