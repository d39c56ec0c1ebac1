"""How sure a number over seeds is."""

import numpy as np
from scipy import stats

_NEVER = 1e100


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
