"""A bootstrap over the seeds of a study, and intervals from its replicates.

A study chooses a trial (a choice of hyper-parameters) on its tuning seeds, and reports
the cost of this trial on its reporting seeds. One set of replicates resamples the
tuning seeds, another set the reporting seeds.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special, stats

from research.checks import check_count, check_number, check_real, check_share
from research.sizes import MOST_RESAMPLES, check_most, check_room
from research.statistics.costs import ratio, spent_and_reached
from research.statistics.scores import Scores

# Costs with a ratio closer to 1 than this are tied: the difference is rounding.
TIED = 1e-9
# The relative difference that `seeds_needed` must detect, and the power of the tests.
DETECTED = 0.1
POWER = 0.8
MOST_SEEDS = 2**20
LEAST_RESAMPLES = 100  # With fewer, the 2.5 % tails hold hardly any replicate.


class Replicates(NamedTuple):
    """Bootstrap replicates of an estimate that compares two rules.

    The estimate is, for example, the log ratio of the costs of the two rules. A trial
    is a choice of hyper-parameters. For each rule, one trial is chosen on the tuning
    seeds, and the cost of this trial is reported on the reporting seeds.

    Attributes:
      choice: Estimate for each resample of the tuning seeds, shape (..., resamples).
        The trials are chosen again on the resampled tuning seeds. The costs of these
        trials are those on the original reporting seeds. The dots stand for the shape
        of the estimates, which is () for a single estimate.
      reporting: Estimate for each resample of the reporting seeds, minus the estimate
        on the original reporting seeds, shape (..., resamples). In both estimates, the
        cost of a rule is an average over all resamples of the tuning seeds. Each
        resample contributes the trial that was chosen on it.
      freedom: Degrees of freedom of the variance of `choice` over its resamples, shape
        (...).
    """

    choice: Float[np.ndarray, "*estimates resamples"]
    reporting: Float[np.ndarray, "*estimates resamples"]
    freedom: Float[np.ndarray, "*estimates"]


def replicate(
    mine: Scores, other: Scores, trials: int | None, resamples: int, seed: int
) -> tuple[Replicates, Replicates]:
    """Return bootstrap replicates of the comparison of two rules.

    A trial is a choice of hyper-parameters. For each rule, one trial is chosen on the
    tuning seeds, and the cost of this trial is reported on the reporting seeds. ERT is
    the expected running time of the chosen trial to the target, as in `ert_of_all`.

    Seeds are drawn with replacement. The two rules get the same seeds, because their
    runs are paired. From m tuning seeds, m - 1 are drawn, because with m draws the
    variance of a mean over few seeds would be too small. From n reporting seeds, n are
    drawn, and `variance_of` corrects the variance by the factor n / (n - 1).

    Args:
      mine, other: Scores of my rule and of the other rule, on the same seeds.
      trials: Number of trials from which each rule chooses; None means all. Each
        replicate draws this number of trials at random. The rule's defaults, trial 0,
        are always among them. If the two rules have the same number of trials, trials
        with the same indices are drawn for both.
      resamples: Number of replicates.
      seed: Seed of the resampling.
    Returns:
      Two `Replicates`: those of log(ERT(mine) / ERT(other)), and those of the share of
      seeds on which mine is cheaper. In both, the fields `choice` and `reporting` have
      the shape (resamples,). The field `freedom` (degrees of freedom) is the same
      number in both, between m - 1 and 2 (m - 1). This number is m - 1 if only one of
      the two rules chooses different trials in different replicates.
    References:
      Rao & Wu, Resampling inference with complex survey data, JASA 83, 1988: m - 1
      draws.
    """
    generator = np.random.default_rng(seed)
    chosen = _choices(mine, other, trials, resamples, generator)
    costs = [np.where(s.costs <= s.budget, s.costs, np.inf) for s in (mine, other)]
    won = wins(costs[0][chosen[0]], costs[1][chosen[1]])
    times = [ert_of_all(s)[j] for s, j in zip((mine, other), chosen, strict=True)]
    freedom = np.asarray(
        pooled([_log_variance(t) for t in times], [mine.tuning.shape[1] - 1.0] * 2)
    )
    # Each row has one number per reporting seed, so resampling seeds draws columns.
    rows = np.concatenate(
        [[*_mixed(mine, chosen[0]), *_mixed(other, chosen[1]), won.mean(axis=0)]]
    )
    logs, shares = _outcomes(resampled_means(rows, resamples, generator))
    middle_log, middle_share = _outcomes(rows.mean(axis=1))
    return (
        Replicates(log_ratio(*times), minus(logs, middle_log), freedom),
        Replicates(won.mean(axis=1), shares - middle_share, freedom),
    )


def choice_weights(
    means: Float[np.ndarray, "*batch trials"], trials: int
) -> Float[np.ndarray, "*batch trials"]:
    """Return the probability that each trial is the best of a random subset.

    A trial is a choice of hyper-parameters of a rule, and trial 0 has the defaults. A
    subset has k of the t trials. Trial 0 is in every subset. The trial with the lowest
    mean in the subset is chosen.

    Sort all trials but trial 0 by their mean, the lowest first, and number them 1, ...,
    t - 1 in this order. If trial i has a lower mean than trial 0, trial i is chosen in
    every subset that contains trial i and none of the trials 1, ..., i - 1. These
    subsets are a share C(t - 1 - i, k - 2) / C(t - 1, k - 1) of all subsets, where C is
    the binomial coefficient. In all other subsets, and for k = 1, trial 0 is chosen.

    Args:
      means: Mean score of each trial, lower is better, shape (..., t).
      trials: Size k of the subset, at least 1. A size above t counts as t.
    Returns:
      Probabilities, shape (..., t), that sum to 1.
    References:
      Dodge, Gururangan, Card, Schwartz & Smith, Show your work, EMNLP 2019: the
      expected best of k trials that are drawn with replacement. Here the trials are
      drawn without replacement, and the defaults are always included.
    Example:
      >>> print(choice_weights(np.array([2.0, 3.0, 1.0]), 2))
      [0.5 0.  0.5]
    """
    means, t = np.asarray(means, float), np.shape(means)[-1]
    k = min(trials, t)
    if k == 1:
        return np.broadcast_to(np.arange(t) == 0, means.shape).astype(float)
    rank = np.argsort(np.argsort(means[..., 1:], axis=-1, kind="stable"), axis=-1)
    chances = rank_chances(t - 1, k)[rank]
    others = np.where(means[..., 1:] < means[..., :1], chances, 0.0)
    return np.concatenate(
        [np.maximum(1 - others.sum(axis=-1, keepdims=True), 0.0), others], axis=-1
    )


@functools.cache
def rank_chances(points: int, trials: int) -> Float[np.ndarray, " points"]:
    """Return the chance of each trial to be the best of some randomly drawn trials.

    A trial is a choice of hyper-parameters. Here the trials other than the rule's
    defaults are numbered i = 1, ..., `points`, the best first. Of these trials, k - 1
    are drawn at random without replacement, where k is the argument `trials`. Trial i
    is the best one drawn if trial i is drawn and none of the trials 1, ..., i - 1 is
    drawn. The chance of this is C(points - i, k - 2) / C(points, k - 1), where C is the
    binomial coefficient.

    Args:
      points: Number of trials other than the defaults.
      trials: Number k of trials in all: the defaults and the k - 1 trials that are
        drawn.
    Returns:
      Chances of the trials i = 1, ..., `points`, shape (points,); all 0 for k = 1.
    Example:
      >>> print(rank_chances(4, 3).round(3))
      [0.5   0.333 0.167 0.   ]
    """
    if trials == 1:
        return np.zeros(points)
    rank = np.arange(1, points + 1)
    drawn = special.comb(points, trials - 1)
    if np.isfinite(drawn):
        return np.asarray(special.comb(points - rank, trials - 2) / drawn)
    # The binomials overflow; the quotient of successive chances does not.
    left = points - rank[:-1]
    ratios = np.maximum(left - trials + 2, 0) / left
    return (trials - 1) / points * np.cumprod(np.concatenate([[1.0], ratios]))


def wins(
    mine: Float[np.ndarray, "*shape"], other: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Return 1 where `mine` is smaller, 0 where `other` is smaller, and else 1/2.

    Both arguments are costs. The result is 1/2 if the two costs are equal up to
    rounding errors, or if both are infinite (neither run reached the target).
    """
    return np.where(
        np.isclose(mine, other, rtol=TIED, atol=0.0),
        0.5,
        (mine < other).astype(float),
    )


def log_ratio(
    mine: Float[np.ndarray, "*shape"], other: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Return log(mine / other), or 0 where the two costs are equal.

    `mine` and `other` are the costs of two rules. Two infinite costs count as equal.
    """
    with np.errstate(divide="ignore"):
        return minus(np.log(mine), np.log(other))


def minus(
    left: Float[np.ndarray, "*shape"], right: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Return left - right, and 0 where both are the same infinity."""
    with np.errstate(invalid="ignore"):
        return np.where(left == right, 0.0, np.subtract(left, right))


def ert_of_all(scores: Scores) -> Float[np.ndarray, " trials"]:
    """Return the expected running time of every trial, shape (t,).

    A trial is a choice of hyper-parameters. `scores` has the costs of t trials of a
    rule on the reporting seeds. The cost of a run is the number of passes over the data
    until the run reaches the target (`passes_to_target`). The expected running time of
    a trial is the number of passes that its runs spent, divided by the number of its
    runs that reached the target. The expected running time is inf if no run of the
    trial reached the target.
    """
    return ratio(
        *(array.sum(axis=1) for array in spent_and_reached(scores.costs, scores.budget))
    )


def pooled(
    variances: Sequence[float] | Float[np.ndarray, " k"],
    freedom: Sequence[float] | Float[np.ndarray, " k"],
) -> float:
    """Return Satterthwaite's degrees of freedom of a sum of variances.

    The variances must be estimated independently of each other. The formula is (sum
    V)^2 / sum(V^2 / freedom), where V are the variances and `freedom` are their degrees
    of freedom. If all variances are 0, the result is the sum of `freedom`.

    Example:
      >>> pooled([1.0, 1.0], [4.0, 4.0]), pooled([1.0, 0.0], [4.0, 4.0])
      (8.0, 4.0)
    """
    shares, freedom = np.asarray(variances, float), np.asarray(freedom, float)
    if not shares.sum() > 0:
        return float(freedom.sum())
    shares = shares / shares.sum()
    return float(1 / np.sum(shares**2 / freedom))


def resampled_means(
    rows: Float[np.ndarray, "rows seeds"],
    resamples: int,
    generator: np.random.Generator,
    *,
    left_out: int = 0,
) -> Float[np.ndarray, "rows resamples"]:
    """Return the means of rows over columns that are drawn with replacement.

    `scipy.stats.bootstrap` draws the columns. Every row uses the same drawn columns.

    Args:
      rows: Numbers, one column per seed, shape (rows, seeds).
      resamples: Number of means of each row.
      generator: Random generator of the draws.
      left_out: Number of seeds minus the number of columns in each mean. Each mean is
        over seeds - left_out columns, which are drawn from all columns with
        replacement.
    Returns:
      Means, shape (rows, resamples).
    Raises:
      ValueError: `resamples` is above a million or needs too much memory.
    """

    def means(columns: np.ndarray, axis: int = -1) -> np.ndarray:
        return rows[:, columns[:, left_out:].astype(int)].mean(axis=axis)

    check_most(MOST_RESAMPLES, resamples=resamples)
    check_room(f"resamples={resamples}", resamples, max(1, len(rows)))
    indices, batch = (
        (np.arange(rows.shape[1]),),
        max(1, min(resamples, 2_000_000 // rows.size)),
    )
    outcome = stats.bootstrap(
        indices,
        means,
        n_resamples=resamples,
        batch=batch,
        vectorized=True,
        method="percentile",
        rng=generator,
    )
    return outcome.bootstrap_distribution


def _choices(
    mine: Scores,
    other: Scores,
    trials: int | None,
    resamples: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Return the trials that are chosen for both rules, shape (2, resamples)."""
    rules = (mine, other)
    most = max(len(s.tuning) for s in rules)
    means = resampled_means(
        np.concatenate([s.tuning for s in rules]), resamples, generator, left_out=1
    )
    order = generator.random((most, resamples))
    order[0] = -1.0  # The defaults are always among the trials drawn.
    return np.array(
        [
            np.argmin(np.where(_among(order[: len(m)], trials), m, np.inf), axis=0)
            for m in np.split(means, [len(mine.tuning)])
        ]
    )


def _among(order: np.ndarray, trials: int | None) -> np.ndarray:
    if trials is None or trials >= len(order):
        return np.ones(order.shape, bool)
    return order <= np.sort(order, axis=0)[trials - 1]


def _mixed(scores: Scores, chosen: np.ndarray) -> list[np.ndarray]:
    """Return, for each seed, the passes spent and the share of runs at the target.

    Both arrays are averages over the chosen trials.
    """
    shares = np.bincount(chosen, minlength=len(scores.costs)) / len(chosen)
    return [shares @ array for array in spent_and_reached(scores.costs, scores.budget)]


def _outcomes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mine_spent, mine_reached, other_spent, other_reached, won = rows
    return log_ratio(
        ratio(mine_spent, mine_reached), ratio(other_spent, other_reached)
    ), won


def _log_variance(costs: np.ndarray) -> float:
    costs = costs[np.isfinite(costs)]
    return float(np.var(np.log(costs))) if len(costs) else 0.0


class Variance(NamedTuple):
    """Variance that an estimate has if the study is repeated with other seeds.

    A trial is a choice of hyper-parameters. A study chooses trials on tuning seeds, and
    measures the chosen trials on reporting seeds. So the variance has two parts,
    `choice` and `reporting`. If the estimate is infinite for some resampled seeds, both
    parts are unknown, and both are set to inf.

    Attributes:
      choice: Variance that comes from the choice of trials.
      choice_freedom: Degrees of freedom of the estimated variance `choice`.
      reporting: Variance that comes from the reporting seeds.
      seeds: Number of reporting seeds.
    """

    choice: float
    choice_freedom: float
    reporting: float
    seeds: int

    @property
    def total(self) -> float:
        """Sum of the variances `choice` and `reporting`."""
        return self.choice + self.reporting

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the variance `total` (Satterthwaite).

        The variance `choice` has `choice_freedom` degrees of freedom, and the variance
        `reporting` has seeds - 1. If `choice` or `reporting` is inf, the result is
        seeds - 1.
        """
        if not np.isfinite(self.total):
            return self.seeds - 1.0
        return pooled(
            [self.choice, self.reporting], [self.choice_freedom, self.seeds - 1.0]
        )


def variance_of(replicates: Replicates, seeds: int) -> Variance:
    """Return the variance of an estimate, computed from its bootstrap replicates.

    The variance is var(choice) + n / (n - 1) var(reporting). Here `choice` and
    `reporting` are the replicates over resampled tuning seeds and over resampled
    reporting seeds, and n is the number of reporting seeds. The factor n / (n - 1)
    removes the bias of var(reporting).

    The two kinds of seeds are not resampled together. The cost of a trial on a single
    reporting seed has noise that belongs to this pair of trial and seed. Owen shows
    that this noise would be counted three times if both kinds were resampled together.

    Args:
      replicates: Replicates of one estimate: `choice` and `reporting` of shape
        (resamples,).
      seeds: Number n of reporting seeds.
    Returns:
      The variance, with its two parts and its degrees of freedom. Both parts are inf if
      a replicate is not finite.
    References:
      Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1, 2007: what is
      counted too often if two factors are resampled. Satterthwaite, An approximate
      distribution of estimates of variance components, Biometrics Bulletin 2, 1946.
    """
    freedom = float(replicates.freedom)
    if not (
        np.isfinite(replicates.choice).all() and np.isfinite(replicates.reporting).all()
    ):
        return Variance(np.inf, freedom, np.inf, seeds)
    reporting = float(np.var(replicates.reporting)) * seeds / (seeds - 1)
    return Variance(float(np.var(replicates.choice)), freedom, reporting, seeds)


def log_interval(
    estimate: float, replicates: Replicates, seeds: int, level: float
) -> tuple[float, float]:
    """Return the confidence interval of a log ratio from its bootstrap replicates.

    The ratio is the cost with which one rule reaches a target, divided by the cost of
    another rule. If the estimate and all replicates are finite, the result is the t
    interval estimate ± t sqrt(V). `variance_of` gives the variance V and its degrees of
    freedom, and t is the (1 + level) / 2 quantile of Student's t distribution with
    these degrees of freedom.

    A replicate is infinite if only one of the two rules reached the target in this
    replicate. If a replicate or the estimate is infinite, the result is an expanded
    percentile interval. The ends of this interval are percentiles of the sum `choice` +
    `reporting` of the two fields of `replicates`. The ends may be infinite. The sum
    varies with the trials that were chosen and with the reporting seeds, as the log
    ratio does. Each tail of the interval has the probability Φ(-t' sqrt(n / (n - 1))).
    Here n is the number of reporting seeds, Φ is the normal distribution function, and
    t' is the (1 + level) / 2 quantile of Student's t distribution with n - 1 degrees of
    freedom.

    Args:
      estimate: Log ratio on the seeds of the study. If it is NaN, the interval is
        (-inf, inf).
      replicates: Replicates of the estimate: `choice` and `reporting` of shape
        (resamples,).
      seeds: Number n of reporting seeds.
      level: Coverage of the interval.
    Returns:
      The pair (low, high).
    Raises:
      ValueError, TypeError: `level` is not between 0 and 1.
    References:
      Hesterberg, What teachers should know about the bootstrap, The American
      Statistician 69, 2015: expanded percentiles.
    """
    check_share("level", level, 0.95)
    if np.isnan(estimate):
        return -np.inf, np.inf
    variance = variance_of(replicates, seeds)
    if np.isfinite(variance.total) and np.isfinite(estimate):
        half = stats.t.isf((1 - level) / 2, variance.freedom) * np.sqrt(variance.total)
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
    """Return the confidence interval of a share of seeds from its bootstrap replicates.

    p is the share of the seeds on which one rule costs less than another. A seed with
    equal costs counts half. V is the variance of p, from `variance_of`. The result is
    Wilson's interval for the effective number of seeds, p (1 - p) / V. With this number
    of independent seeds, a share p would have the variance V. If p is 0 or 1, or if V
    is 0 and p is not 1/2, the actual number n of seeds is used. If p is 1/2 and V is 0,
    the costs count as equal on all seeds, and the interval is (1/2, 1/2).

    Args:
      estimate: Share p on the seeds of the study, from 0 to 1.
      replicates: Replicates of the share, from resampled tuning seeds (`choice`) and
        from resampled reporting seeds (`reporting`), each of shape (resamples,).
      seeds: Number n of reporting seeds.
      level: Coverage of the interval.
    Returns:
      The pair (low, high), within [0, 1].
    References:
      Wilson, Probable inference, the law of succession, and statistical inference, JASA
      22, 1927. Korn & Graubard, Confidence intervals for proportions with small
      expected number of positive counts, Survey Methodology 24, 1998: the effective
      sample size.
    """
    variance = variance_of(replicates, seeds)
    return wilson_interval(estimate, variance.total, variance.freedom, seeds, level)


def wilson_interval(
    estimate: float, variance: float, freedom: float, seeds: int, level: float
) -> tuple[float, float]:
    """Return Wilson's confidence interval of a share whose variance was estimated.

    Wilson's formula needs the number of independent seeds from which the share was
    computed. This function gives the formula the effective number of seeds, which is
    estimate (1 - estimate) / variance. A share from this number of independent seeds
    would have the given variance. Because the variance is estimated, the formula uses a
    quantile of Student's t distribution with `freedom` degrees of freedom instead of a
    normal quantile. If the estimate is 1/2 and the variance is 0, the interval is
    (1/2, 1/2). A variance that is only rounding, below 1e-18, counts as 0.

    Args:
      estimate: The share, from 0 to 1.
      variance: Estimated variance of the share.
      freedom: Degrees of freedom of the variance.
      seeds: Actual number of seeds. The formula gets this number instead of the
        effective number of seeds if the variance is 0 (and the estimate is not 1/2), or
        if the estimate is 0 or 1.
      level: Coverage of the interval.
    Returns:
      The pair (low, high), within [0, 1].
    Raises:
      ValueError, TypeError: An argument is out of its range, or is not a number.
    Example:
      >>> low, high = wilson_interval(0.5, 0.0125, 19.0, 20, 0.95)
      >>> print(round(low, 3), round(high, 3))
      0.288 0.712
    """
    check_real("estimate", estimate)
    check_number("variance", variance)
    check_number("freedom", freedom, positive=True)
    check_count("seeds", seeds)
    check_share("level", level, 0.95)
    if not 0 <= estimate <= 1:
        raise ValueError(
            f"estimate must be a share, from 0 to 1; got estimate={estimate!r}."
        )
    constant = variance < TIED**2
    if constant and estimate == 0.5:
        return 0.5, 0.5
    t = stats.t.isf((1 - level) / 2, freedom)
    number = (
        seeds
        if constant or estimate in (0.0, 1.0)
        else estimate * (1 - estimate) / variance
    )
    over = t**2 / number
    middle = (estimate + over / 2) / (1 + over)
    half = np.sqrt(over * (estimate * (1 - estimate) + over / 4)) / (1 + over)
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def seeds_needed(variance: Variance, level: float = 0.95) -> int:
    """Return how many reporting seeds a study needs to detect a 10 % difference.

    The study compares the costs of two rules. For each rule, it chooses a trial (a
    choice of hyper-parameters) on tuning seeds, and reports the cost of this trial on
    reporting seeds. The study detects a difference if the confidence interval of the
    ratio of the two costs excludes 1. If one cost is 10 % below the other, the study
    must detect this difference with probability (power) 0.8. More reporting seeds do
    not reduce the variance that comes from the choice of trials.

    The argument `variance` is a Variance(choice, choice_freedom, reporting, seeds). It
    describes a study that was already made, with `seeds` reporting seeds. The variance
    of the log of the ratio in this study has two parts: `choice` comes from the choice
    of trials, and `reporting` from the reporting seeds. The estimate `choice` has
    `choice_freedom` degrees of freedom. With n reporting seeds, the part `reporting`
    becomes V_r = `reporting` * `seeds` / n. The interval of the log ratio then has the
    half width t sqrt(choice + V_r), where t is the (1 + level) / 2 quantile of
    Student's t distribution. The property `Variance.freedom` defines the degrees of
    freedom of this distribution. The power is computed from a normal approximation of
    the noncentral t distribution.

    Args:
      variance: Variance of the log ratio in the study that was already made.
      level: Coverage of the interval of the ratio.
    Returns:
      The smallest sufficient number n of reporting seeds, at least 2. The result is -1
      if a variance is inf (unknown), or if no number up to 2^20 suffices. In the second
      case, the choice of trials alone is too uncertain to detect 10 %, and more tuning
      seeds are needed.
    Raises:
      ValueError, TypeError: `level` is not between 0 and 1.
    References:
      Abramowitz & Stegun, Handbook of mathematical functions, 1964, 26.7.10: the
      approximation.
    Example:
      >>> certain = Variance(0.0, 4.0, 0.2**2 / 20, 20)
      >>> seeds_needed(certain), seeds_needed(certain._replace(choice=0.1**2))
      (31, -1)
    """
    check_share("level", level, 0.95)
    if not np.isfinite(variance.total):
        return -1
    if variance.total < 1e-12:
        return 2

    def power(seeds: int) -> float:
        then = variance._replace(
            reporting=max(variance.reporting * variance.seeds / seeds, 1e-12),
            seeds=seeds,
        )
        deviation = np.sqrt(then.reporting)
        half, freedom = (
            stats.t.isf((1 - level) / 2, then.freedom)
            * np.sqrt(then.total)
            / deviation,
            seeds - 1,
        )
        # scipy.stats.nct does not converge if the choice has most of the variance.
        share = (
            then.reporting / then.total
        )  # Share of the variance that new reporting seeds estimate again.
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
