"""From bootstrap replicates to intervals, and to the number of seeds that a difference takes."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from research.studies.resampling import Replicates, pooled

# The difference that `seeds_needed` asks to detect, and how surely.
DETECTED = 0.1
POWER = 0.8


class Spread(NamedTuple):
    """How much an estimate varies from study to study.

    Attributes:
      variance: Of the estimate, by the choice of trials and by the reporting seeds together; inf where unknown.
      freedom: Degrees of freedom of that variance.
    """

    variance: float
    freedom: float


def spread(replicates: Replicates, seeds: int) -> Spread:
    """The variance of an estimate: V = V_choice + V_reporting n / (n - 1).

    V_choice is the variance over resampled tuning seeds, V_reporting over resampled reporting seeds. Resampling both at once
    would count their interaction three times: the noise of each trial's reported cost, of which the choice takes one or
    another. The degrees of freedom are Satterthwaite's, those of V_reporting being n - 1.

    Args:
      replicates: Of one estimate, each of shape (resamples,).
      seeds: n, reporting seeds.
    Returns:
      The Spread.
    References:
      Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1, 2007: what resampling of two factors overcounts.
      Satterthwaite, An approximate distribution of estimates of variance components, Biometrics Bulletin 2, 1946.
    """
    if not (np.isfinite(replicates.choice).all() and np.isfinite(replicates.reporting).all()):
        return Spread(np.inf, seeds - 1.0)
    choice, reporting = np.var(replicates.choice), np.var(replicates.reporting) * seeds / (seeds - 1)
    total = choice + reporting
    return Spread(float(total), pooled([float(choice), float(reporting)], [float(replicates.freedom), seeds - 1.0]))


def log_interval(estimate: float, replicates: Replicates, seeds: int, level: float) -> tuple[float, float]:
    """The interval of an estimate on a log scale.

    The t interval, estimate ± t sqrt(V), with V and its degrees of freedom from `spread`. Where some replicate is infinite,
    because a rule did not reach the target in it, the expanded percentile interval of choice + reporting, which then may
    have an infinite end.

    Args:
      estimate: On the seeds of the study; of NaN nothing is known.
      replicates: Shape (resamples,).
      seeds: n, reporting seeds.
      level: Coverage.
    Returns:
      (low, high).
    References:
      Hesterberg, What teachers should know about the bootstrap, The American Statistician 69, 2015: expanded percentiles.
    """
    if np.isnan(estimate):
        return -np.inf, np.inf
    variance, freedom = spread(replicates, seeds)
    if np.isfinite(variance) and np.isfinite(estimate):
        half = stats.t.isf((1 - level) / 2, freedom) * np.sqrt(variance)
        return float(estimate - half), float(estimate + half)
    with np.errstate(invalid="ignore"):
        both = np.sort(np.nan_to_num(replicates.choice + replicates.reporting, nan=0.0, posinf=np.inf, neginf=-np.inf))
    tail = stats.norm.sf(stats.t.isf((1 - level) / 2, seeds - 1) * np.sqrt(seeds / (seeds - 1)))
    last = len(both) - 1
    return float(both[int(tail * last)]), float(both[int(np.ceil((1 - tail) * last))])


def share_interval(estimate: float, replicates: Replicates, seeds: int, level: float) -> tuple[float, float]:
    """The interval of a share of seeds: Wilson's, for as many seeds as would give the variance found.

    Args:
      estimate: On the seeds of the study, from 0 to 1.
      replicates: Shape (resamples,).
      seeds: n, reporting seeds; where every seed said the same, their number is taken, but nothing but ties stay 1/2.
      level: Coverage.
    Returns:
      (low, high), within [0, 1].
    References:
      Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927. Korn & Graubard,
      Confidence intervals for proportions with small expected number of positive counts, Survey Methodology 24, 1998: the
      effective sample size.
    """
    variance, freedom = spread(replicates, seeds)
    if variance == 0 and estimate == 0.5:
        return 0.5, 0.5
    t = stats.t.isf((1 - level) / 2, freedom)
    number = seeds if variance == 0 or estimate in (0.0, 1.0) else estimate * (1 - estimate) / variance
    over = t**2 / number
    middle = (estimate + over / 2) / (1 + over)
    half = np.sqrt(over * (estimate * (1 - estimate) + over / 4)) / (1 + over)
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def seeds_needed(per_seed: float, *, level: float = 0.95, lost: float = 1.0) -> int:
    """Seeds with which a difference of 10 % is found with power 0.8, by the noncentral t distribution.

    Args:
      per_seed: Standard deviation of the log ratio times the square root of the seeds it was found with.
      level: Of the interval that must exclude 1.
      lost: By how many times the degrees of freedom are fewer than seeds - 1.
    Returns:
      The smallest number of seeds, at least 2.
    Example:
      >>> seeds_needed(0.2), seeds_needed(0.4)
      (31, 116)
    """

    def power(seeds: int) -> float:
        freedom = (seeds - 1) / lost
        shift = -np.log1p(-DETECTED) * np.sqrt(seeds) / per_seed
        return float(stats.nct.sf(stats.t.isf((1 - level) / 2, freedom), freedom, shift))

    if per_seed <= 1e-3:
        return 2
    low = high = 2
    while power(high) < POWER:
        low, high = high + 1, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle + 1, high)
    return high
