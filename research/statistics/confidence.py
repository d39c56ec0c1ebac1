"""From bootstrap replicates to intervals, and to the number of seeds that a difference takes."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from research.statistics.bootstrap import Replicates, pooled
from research.statistics.checks import check_level

# The difference that `seeds_needed` asks to detect, and how surely.
DETECTED = 0.1
POWER = 0.8
MOST_SEEDS = 2**20


class Spread(NamedTuple):
    """How much an estimate varies from study to study; the variances are inf where unknown.

    Attributes:
      choice: Variance by the choice of trials.
      choice_freedom: Degrees of freedom of that.
      reporting: Variance by the reporting seeds.
      seeds: Their number.
    """

    choice: float
    choice_freedom: float
    reporting: float
    seeds: int

    @property
    def variance(self) -> float:
        """Of both together."""
        return self.choice + self.reporting

    @property
    def freedom(self) -> float:
        """Degrees of freedom of both together (Satterthwaite), those of `reporting` being seeds - 1."""
        if not np.isfinite(self.variance):
            return self.seeds - 1.0
        return pooled(
            [self.choice, self.reporting], [self.choice_freedom, self.seeds - 1.0]
        )


def spread(replicates: Replicates, seeds: int) -> Spread:
    """The variance of an estimate: that over resampled tuning seeds, plus that over resampled reporting seeds n / (n - 1).

    Resampling both at once would count their interaction three times: the noise of each trial's reported cost, of which the
    choice takes one or another.

    Args:
      replicates: Of one estimate, each of shape (resamples,).
      seeds: n, reporting seeds.
    Returns:
      The Spread.
    References:
      Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1, 2007: what resampling of two factors overcounts.
      Satterthwaite, An approximate distribution of estimates of variance components, Biometrics Bulletin 2, 1946.
    """
    freedom = float(replicates.freedom)
    if not (
        np.isfinite(replicates.choice).all() and np.isfinite(replicates.reporting).all()
    ):
        return Spread(np.inf, freedom, np.inf, seeds)
    reporting = float(np.var(replicates.reporting)) * seeds / (seeds - 1)
    return Spread(float(np.var(replicates.choice)), freedom, reporting, seeds)


def log_interval(
    estimate: float, replicates: Replicates, seeds: int, level: float
) -> tuple[float, float]:
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
    check_level(level)
    if np.isnan(estimate):
        return -np.inf, np.inf
    found = spread(replicates, seeds)
    if np.isfinite(found.variance) and np.isfinite(estimate):
        half = stats.t.isf((1 - level) / 2, found.freedom) * np.sqrt(found.variance)
        return float(estimate - half), float(estimate + half)
    with np.errstate(invalid="ignore"):
        both = np.sort(
            np.nan_to_num(
                replicates.choice + replicates.reporting,
                nan=0.0,
                posinf=np.inf,
                neginf=-np.inf,
            )
        )
    tail = stats.norm.sf(
        stats.t.isf((1 - level) / 2, seeds - 1) * np.sqrt(seeds / (seeds - 1))
    )
    last = len(both) - 1
    return float(both[int(tail * last)]), float(both[int(np.ceil((1 - tail) * last))])


def share_interval(
    estimate: float, replicates: Replicates, seeds: int, level: float
) -> tuple[float, float]:
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
    check_level(level)
    if not 0 <= estimate <= 1:
        raise ValueError(
            f"estimate must be a share, from 0 to 1; got estimate={estimate!r}."
        )
    found = spread(replicates, seeds)
    if found.variance == 0 and estimate == 0.5:
        return 0.5, 0.5
    t = stats.t.isf((1 - level) / 2, found.freedom)
    number = (
        seeds
        if found.variance == 0 or estimate in (0.0, 1.0)
        else estimate * (1 - estimate) / found.variance
    )
    over = t**2 / number
    middle = (estimate + over / 2) / (1 + over)
    half = np.sqrt(over * (estimate * (1 - estimate) + over / 4)) / (1 + over)
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def seeds_needed(found: Spread, level: float = 0.95) -> int:
    """Reporting seeds with which a study finds a difference of 10 % with power 0.8, its choice of trials being what it is.

    With n seeds the log ratio varies by V_r = reporting * seeds / n, but its interval is half as wide as
    t sqrt(choice + V_r): what the choice adds does not shrink with reporting seeds. The power is that of the noncentral t
    distribution, by its normal approximation.

    Args:
      found: Of the log ratio, in the study so far.
      level: Of the interval that must exclude 1.
    Returns:
      The smallest number of seeds, at least 2; -1 where no number up to a million would do: the choice alone leaves more doubt
      than 10 % (only more tuning seeds help), or a variance is unknown.
    References:
      Abramowitz & Stegun, Handbook of mathematical functions, 1964, 26.7.10: the approximation.
    Example:
      >>> seeds_needed(Spread(0.0, 4.0, 0.2**2 / 20, 20)), seeds_needed(Spread(0.1**2, 4.0, 0.2**2 / 20, 20))
      (31, -1)
    """
    check_level(level)
    if not np.isfinite(found.variance):
        return -1
    if found.variance < 1e-12:
        return 2

    def power(seeds: int) -> float:
        then = found._replace(
            reporting=max(found.reporting * found.seeds / seeds, 1e-12), seeds=seeds
        )
        deviation = np.sqrt(then.reporting)
        half, freedom = (
            stats.t.isf((1 - level) / 2, then.freedom)
            * np.sqrt(then.variance)
            / deviation,
            seeds - 1,
        )
        # scipy.stats.nct itself does not converge where the choice has most of the variance.
        share = (
            then.reporting / then.variance
        )  # Only this share of the variance is estimated anew.
        away = half * (1 - share / (4 * freedom)) + np.log1p(-DETECTED) / deviation
        return float(
            stats.norm.sf(away / np.sqrt(1 + (share * half) ** 2 / (2 * freedom)))
        )

    low = high = 2
    while power(high) < POWER:
        low, high = high + 1, 2 * high
        if high > MOST_SEEDS:
            return -1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle + 1, high)
    return high
