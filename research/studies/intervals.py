"""How sure a number over seeds is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from research.checks import check_count, check_number, check_numbers, check_sequence, shown

_NEVER = 1e100

Interval = Sequence[float | None]  # (mean, low, high); low and high are None where there is one seed.


def median_interval(
    samples: np.ndarray, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The median over the first axis with its percentile bootstrap interval.

    Args:
      samples: Shape (m, ...): one row a seed. A run that never got there counts as inf, and is not dropped.
      level: Coverage asked for; with ten seeds the percentile interval covers a little less.
      resamples: Bootstrap resamples.
      seed: Of the resampling.
    Returns:
      (median, low, high), each of shape (...).
    References:
      Efron & Tibshirani, An introduction to the bootstrap, 1993, section 13.3; `scipy.stats.bootstrap` computes it.
    Example:
      >>> median, low, high = median_interval(np.arange(11.0))
      >>> print(median, low <= 5 <= high)
      5.0 True
    """
    check_numbers("samples", samples)
    check_number("level", level, positive=True, below=1.0)
    check_count("resamples", resamples)
    check_count("seed", seed, 0)
    if not np.ndim(samples) or not np.size(samples):
        raise ValueError(
            f"samples must hold at least one number along their first axis; got shape {np.shape(samples)}."
        )
    samples = np.asarray(samples, float)
    median = np.median(samples, axis=0)
    if len(samples) == 1:
        return median, median, median
    # Medians only compare, so a huge finite number stands in for infinity, of which scipy could take no mean.
    finite = np.where(np.isfinite(samples), samples, _NEVER)
    outcome = stats.bootstrap(
        (finite,), np.median, axis=0, n_resamples=resamples, confidence_level=level, method="percentile", rng=seed
    )
    low, high = (np.where(v >= _NEVER / 4, np.inf, v) for v in outcome.confidence_interval)
    return median, low, high


def mean_interval(samples: ArrayLike, *, level: float = 0.95) -> tuple[float, float | None, float | None]:
    """The mean over seeds with Student's t interval: m ± t_(n-1) s / sqrt(n).

    Args:
      samples: One number a seed, shape (n,), n >= 1.
      level: Coverage, where the numbers are normal.
    Returns:
      (mean, low, high); low and high are None for fewer than three seeds, which say next to nothing of their spread.
    Raises:
      ValueError: samples are not along one axis, or none.
    References:
      Student, The probable error of a mean, Biometrika 1908; `scipy.stats.ttest_1samp` gives the same interval.
    Example:
      >>> mean, low, high = mean_interval([1.0, 2.0, 3.0])
      >>> print(mean, round(low, 3), round(high, 3))
      2.0 -0.484 4.484
    """
    check_numbers("samples", samples)
    check_number("level", level, positive=True, below=1.0)
    numbers = np.asarray(samples, float)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"samples must be at least one number along one axis; got shape {numbers.shape}.")
    mean = float(numbers.mean())
    if len(numbers) < 3:
        return mean, None, None
    half = float(stats.t.isf((1 - level) / 2, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return mean, mean - half, mean + half


def interval_in_words(interval: Interval, digits: int = 3) -> str:
    """An interval, as it is read.

    Example:
      >>> interval_in_words((1.8931, 1.8799, 1.9063)), interval_in_words((1.5, None, None))
      ('1.893 [1.880, 1.906]', '1.500')
    """
    check_sequence("interval", interval, "a mean and the ends of its interval")
    if len(interval) != 3:
        raise ValueError(f"interval must be (mean, low, high); got interval={shown(interval)}.")
    for number in interval:
        if number is not None:
            check_numbers("each of interval", number, ndim=0)
    if interval[0] is None or (interval[1] is None) != (interval[2] is None):
        raise ValueError(f"interval must be (mean, low, high), or (mean, None, None); got interval={shown(interval)}.")
    check_count("digits", digits, 0)
    mean, low, high = interval
    return f"{mean:.{digits}f}" + ("" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]")
