"""Compare two rules: which is better, by how much, and with which uncertainty."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from research.checks import check_count, check_real, check_sequence, check_share
from research.statistics.bootstrap import (
    LEAST_RESAMPLES,
    ROUNDING,
    Replicates,
    Variance,
    choice_weights,
    log_interval,
    log_ratio,
    pooled,
    replicate,
    replicate_best_of,
    seeds_needed,
    share_interval,
    variance_of,
    wins,
)
from research.statistics.costs import ratio, spent_and_reached
from research.statistics.scores import Scores, checked


class Difference(NamedTuple):
    """The difference between two rules on one workload.

    Attributes:
      ratio: ERT(mine) / ERT(other), where ERT is the expected running time to the
        target. Below 1, mine is cheaper. The ratio is 0 or inf if only one rule reached
        the target, and NaN if neither did.
      low, high: Interval of the ratio; from 0 to inf if the ratio is NaN.
      win: Probability that mine costs less than the other on a seed. A seed counts half
        if both costs are equal or both rules missed the target.
      win_low, win_high: Interval of `win`.
      verdict: "better" if the interval of the ratio lies below 1, "worse" if it lies
        above 1, else "undecided".
      more_seeds: Number of additional reporting seeds with which the study would detect
        a difference of 10 % between the chosen trials, with power 0.8 at this level.
        It is estimated from the variance in the study, which 20 seeds determine within
        a third. If the choice of the trial is uncertain, the number is too small (the
        measured power was 0.6). It is -1 if no number suffices, because with so few
        tuning seeds the choice alone adds an uncertainty of more than 10 % (more tuning
        seeds help). It is also -1 if a rule never reached the target in some resample.
    """

    ratio: float
    low: float
    high: float
    win: float
    win_low: float
    win_high: float
    verdict: str
    more_seeds: int


class Overall(NamedTuple):
    """The difference between two rules over several workloads.

    Attributes:
      ratio: Geometric mean over workloads of ERT(mine) / ERT(other), where ERT is the
        expected running time to the target.
      low, high: Interval of the ratio.
      win: Mean over workloads of the probability that mine costs less on a seed.
      win_low, win_high: Interval of `win`.
      verdict: "better", "worse" or "undecided", from the interval of the ratio.
      workloads: Number of workloads.
    """

    ratio: float
    low: float
    high: float
    win: float
    win_low: float
    win_high: float
    verdict: str
    workloads: int


def difference(
    mine: Scores,
    other: Scores,
    *,
    trials: int | None = None,
    level: float = 0.95,
    comparisons: int = 1,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """Return ERT(mine) / ERT(other), its interval and a verdict.

    ERT is the expected running time to the target (`expected_running_time`) of the
    trial that was chosen on the tuning seeds.

    The interval includes the choice of trials. It is a t interval of the log ratio. Its
    variance is the sum of two: that over resampled tuning seeds, on which the trials
    are chosen again, and that over resampled reporting seeds (`variance_of`). Its
    degrees of freedom follow from both (Satterthwaite). If a rule reaches the target
    only in some resamples, the result is the expanded percentile interval instead.

    The coverage of the 95 % interval was measured on simulated studies of two equal
    rules with twelve trials, whose cost has a minimum within the search space (10,000
    studies for each number of seeds). It was 94.7 % with 3 tuning and 20 reporting
    seeds, 95.5 % with 3 and 10, 95.8 % with 3 and 5, 95.3 % with 5 and 20, 94.5 % with
    5 and 50. In harder cases (heavy tails; a flat minimum; many runs that miss the
    target; 5,000 studies each) it was 95.2 % to 97.8 %, so the interval is rather too
    wide there. With two tuning seeds it was only 91 %: use at least three. Use at least
    twenty reporting seeds if half of the runs miss the target and there are many
    comparisons (99.75 % each, with `comparisons` 20). With ten or fewer, five of 210
    such studies of two equal rules were decided, where none or one was expected.

    Args:
      mine, other: Scores of the two rules on the same seeds, in the same order.
      trials: Number of trials from which each rule chooses; None: all. It gives equal
        budgets to rules with different numbers of trials. The trials are drawn at
        random, with the defaults always included. `ratio` and `win` then describe this
        procedure: passes spent per target reached.
      level: Coverage of the intervals.
      comparisons: Number of comparisons that are made together. Each interval has the
        level 1 - (1 - level) / comparisons (Bonferroni), so that all of them together
        hold with probability `level`.
      resamples: Number of bootstrap replicates.
      seed: Seed of the resampling.
    Returns:
      The difference.
    Raises:
      ValueError: The rules have different numbers of seeds, there are fewer than two
        tuning or reporting seeds, or a number is out of its range.
    References:
      Bouthillier et al., Accounting for variance in machine learning benchmarks, MLSys
      2021, arXiv 2103.03098: the probability of outperforming, and tuning as a source
      of variance.
    Example:
      >>> generator = np.random.default_rng(0)
      >>> noise = np.exp(generator.normal(0, 0.1, size=(3, 23)))
      >>> costs = 8 * noise * np.array([[2.0], [1.0], [1.5]])
      >>> slow, fast = (Scores(c[:, :3], c[:, 3:], 100.0) for c in (costs, 0.7 * costs))
      >>> outcome = difference(fast, slow)
      >>> print(round(outcome.ratio, 3), outcome.win, outcome.verdict)
      0.7 1.0 better
      >>> outcome.more_seeds
      0
    """
    results, variance = _compare(
        [(mine, other)], trials, level, comparisons, resamples, seed
    )
    needed = seeds_needed(variance, 1 - (1 - level) / comparisons)
    return Difference(*results, -1 if needed < 0 else max(0, needed - variance.seeds))


def overall(
    pairs: Sequence[tuple[Scores, Scores]],
    *,
    trials: int | None = None,
    level: float = 0.95,
    comparisons: int = 1,
    resamples: int = 2000,
    seed: int = 0,
) -> Overall:
    """Return the geometric mean over workloads of ERT(mine) / ERT(other).

    The probability that mine wins is a mean over workloads, too.

    The interval describes what other seeds would give on the same workloads, not what
    other workloads would give. Reporting seeds are resampled once for all workloads, so
    a seed may have a common effect on several of them. Tuning seeds are resampled
    separately for each workload.

    If only one rule reaches the target on some workload, the ratio is 0 or inf. The
    ratio is NaN, and the verdict "undecided", if this happens to both rules, or if
    neither reaches the target on some workload. Then look at the single workloads and
    at the win probability.

    Args:
      pairs: (mine, other) for each workload; all with the same number of reporting
        seeds.
      trials, level, comparisons, resamples, seed: As for `difference`.
    Returns:
      The difference over all workloads.
    Raises:
      ValueError: There is no workload, or as for `difference`.
    Example:
      >>> one, two = (
      ...     Scores(np.full((1, 3), cost), np.full((1, 5), cost), 100.0)
      ...     for cost in (4.0, 8.0)
      ... )
      >>> outcome = overall([(one, two), (one, one)])
      >>> print(round(outcome.ratio, 6), outcome.win, outcome.verdict)
      0.707107 0.75 better
    """
    results, _ = _compare(pairs, trials, level, comparisons, resamples, seed)
    return Overall(*results, len(pairs))


def best_of(
    scores: Scores, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Float[np.ndarray, "trials 3"]:
    """Return the cost of a rule with a budget of k trials, for k = 1, ..., t.

    The k trials are trial 0 (the defaults) and k - 1 of the others, drawn at random.
    The trial with the lowest mean over the tuning seeds is run on the reporting seeds.
    The cost is the expected running time of this procedure: passes spent per target
    reached, both averaged over all subsets. It is computed exactly, without drawing
    (`choice_weights`). If every run reaches the target, it is the mean cost of the
    chosen trial. For k = 1 it is the cost of the defaults; for k = t, that of the trial
    chosen among all.

    Args:
      scores: Scores of one rule.
      level: Coverage of the interval at each k. The interval includes the choice, as
        for `difference`.
      resamples: Number of bootstrap replicates.
      seed: Seed of the resampling.
    Returns:
      Rows (cost, low, high) for each k, shape (t, 3).
    Raises:
      ValueError: As for `difference`.
    Example:
      >>> costs = np.array([[9.0, 9.0], [3.0, 3.0], [6.0, 6.0]])
      >>> print(best_of(Scores(costs, costs, 10.0))[:, 0])
      [9.  4.5 3. ]
    """
    check_count("seed", seed, 0)
    scores = checked(scores)
    _check(level, 1, resamples)
    n = scores.costs.shape[1]
    costs = [_expected_cost(scores, k) for k in range(1, len(scores.costs) + 1)]
    drawn = replicate_best_of(scores, resamples, seed)
    bands = [
        log_interval(float(np.log(c)), Replicates(*(a[k] for a in drawn)), n, level)
        for k, c in enumerate(costs)
    ]
    return np.column_stack([costs, np.exp(bands)])


def _compare(
    pairs: Sequence[tuple[Scores, Scores]],
    trials: int | None,
    level: float,
    comparisons: int,
    resamples: int,
    seed: int,
) -> tuple[tuple[float, float, float, float, float, float, str], Variance]:
    """Compare two rules on workloads.

    Return the fields that Difference and Overall share, and the variance of the log
    ratio.
    """
    check_count("seed", seed, 0)
    pairs = _checked_pairs(pairs, trials)
    _check(level, comparisons, resamples)
    each = 1 - (1 - level) / comparisons
    seeds = pairs[0][0].costs.shape[1]
    of_ratio, of_win = replicate(pairs, trials, resamples, seed)
    logs, shares = np.array([_observed(mine, other, trials) for mine, other in pairs]).T
    log_mean, win = _mean(logs), float(shares.mean())
    win = (
        0.5 if abs(win - 0.5) < ROUNDING else min(win, 1.0)
    )  # Remove the rounding of weighted sums if all seeds are ties, or all are wins.
    mean_ratio, mean_win = _over_workloads(of_ratio), _over_workloads(of_win)
    low, high = log_interval(float(log_mean), mean_ratio, seeds, each)
    win_low, win_high = share_interval(win, mean_win, seeds, each)
    verdict = (
        "better" if high < -ROUNDING else "worse" if low > ROUNDING else "undecided"
    )
    middle, low, high = (float(np.exp(x)) for x in (log_mean, low, high))
    variance = (
        variance_of(mean_ratio, seeds)
        if np.isfinite(log_mean)
        else Variance(np.inf, np.inf, np.inf, seeds)
    )
    return (middle, low, high, win, win_low, win_high, verdict), variance


def _observed(mine: Scores, other: Scores, trials: int | None) -> tuple[float, float]:
    """Return the log ratio of costs, and the share of seeds that mine wins.

    The log ratio is NaN if neither rule reached the target.
    """
    weights = [
        choice_weights(s.tuning.mean(axis=1), trials or len(s.tuning))
        for s in (mine, other)
    ]
    costs = [_expected_cost(s, trials or len(s.tuning)) for s in (mine, other)]
    runs = [np.where(s.costs <= s.budget, s.costs, np.inf) for s in (mine, other)]
    used = [np.flatnonzero(w) for w in weights]
    won = wins(runs[0][used[0], None], runs[1][None, used[1]]).mean(axis=-1)
    share = weights[0][used[0]] @ won @ weights[1][used[1]]
    return np.nan if np.isinf(costs).all() else float(
        log_ratio(*map(np.asarray, costs))
    ), float(share)


def _expected_cost(scores: Scores, trials: int) -> float:
    weights = choice_weights(scores.tuning.mean(axis=1), trials)
    return float(
        ratio(
            *(
                weights @ array.sum(axis=1)
                for array in spent_and_reached(scores.costs, scores.budget)
            )
        )
    )


def _mean(
    values: Float[np.ndarray, "workloads *rest"],
) -> Float[np.ndarray, "*rest"]:
    """Return the mean over workloads; it is NaN if both inf and -inf occur."""
    with np.errstate(invalid="ignore"):
        return np.mean(values, axis=0)


def _over_workloads(replicates: Replicates) -> Replicates:
    variances = np.var(
        np.where(np.isfinite(replicates.choice), replicates.choice, 0.0), axis=1
    )
    freedom = pooled(variances, replicates.freedom)
    return Replicates(
        _mean(replicates.choice), _mean(replicates.reporting), np.asarray(freedom)
    )


def _checked_pairs(
    pairs: Sequence[tuple[Scores, Scores]], trials: int | None
) -> list[tuple[Scores, Scores]]:
    check_sequence("pairs", pairs, "pairs (mine, other) of Scores", (tuple, list))
    if trials is not None:
        check_real("trials", trials)
    if not len(pairs):
        raise ValueError(
            "pairs must hold the scores of two rules on at least one workload; got none."
        )
    if trials is not None:
        check_count("trials", trials)
    if any(len(pair) != 2 for pair in pairs):
        raise TypeError(
            "pairs must contain (mine, other) for each workload; one of them does not "
            "have length 2."
        )
    pairs = [(checked(mine, "mine"), checked(other, "other")) for mine, other in pairs]
    for mine, other in pairs:
        for name in ("tuning", "costs"):
            ours, theirs = (getattr(s, name).shape[1] for s in (mine, other))
            if ours != theirs:
                raise ValueError(
                    f"both rules need equal numbers of seeds; their {name} have {ours} "
                    f"and {theirs}."
                )
    reported = {mine.costs.shape[1] for mine, _ in pairs}
    if len(reported) > 1:
        raise ValueError(
            "every workload must have the same number of reported seeds; got "
            f"{sorted(reported)}."
        )
    return pairs


def _check(level: float, comparisons: int, resamples: int) -> None:
    check_share("level", level, 0.95)
    check_count("comparisons", comparisons)
    check_count("resamples", resamples, LEAST_RESAMPLES)
