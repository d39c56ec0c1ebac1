"""Compare two rules: which is better, by how much, and with which uncertainty."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from research.checks import check_count, check_share
from research.sizes import MOST_COMPARISONS, check_most
from research.statistics.bootstrap import (
    LEAST_RESAMPLES,
    TIED,
    choice_weights,
    log_interval,
    log_ratio,
    replicate,
    seeds_needed,
    share_interval,
    variance_of,
    wins,
)
from research.statistics.costs import ratio, spent_and_reached
from research.statistics.scores import Scores, checked


class Difference(NamedTuple):
    """The difference between two rules on one workload.

    A workload is a named optimisation problem. The two rules are called mine and other.
    A trial is a choice of hyper-parameters. For each rule, one trial is chosen on the
    tuning seeds, and the cost of this trial is reported on the reporting seeds.

    Attributes:
      ratio: ERT(mine) / ERT(other), where ERT is the expected running time to the
        target. If the ratio is below 1, mine is cheaper. The ratio is 0 or inf if only
        one rule reached the target, and NaN if neither did.
      low, high: Confidence interval of the ratio. If the ratio is NaN, the interval is
        from 0 to inf.
      win: Probability that, on the same seed, mine costs less than the other. A seed
        counts half if the two costs are equal or both rules missed the target.
      win_low, win_high: Confidence interval of `win`.
      verdict: "better" if the interval of the ratio lies below 1, "worse" if it lies
        above 1, else "undecided".
      more_seeds: Number of additional reporting seeds that the study needs to detect a
        difference of 10 % between the costs of the chosen trials with probability 0.8
        (power). A difference is detected if the interval of the ratio excludes 1. The
        number is 0 if the study has enough seeds. The number is -1 if no number of
        reporting seeds suffices. In this case, the choice of the trials makes the ratio
        too uncertain, and more tuning seeds are needed. The number is also -1 if a rule
        did not reach the target in the study, or if only one of the two rules reached
        the target in a bootstrap replicate (a resample of the seeds). The number is
        estimated from the variance in the study. With 20 seeds, the standard error of
        this variance is a third of the variance. If other tuning seeds might choose
        another trial, a positive number is often too small. In simulations of this
        case, studies with this number of additional seeds had the power 0.6 instead of
        0.8.
    """

    ratio: float
    low: float
    high: float
    win: float
    win_low: float
    win_high: float
    verdict: str
    more_seeds: int


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
    """Compare the costs of two rules: return their ratio, its interval and a verdict.

    A trial is a choice of hyper-parameters. For each rule, one trial is chosen on the
    tuning seeds. The cost of the rule is ERT, the expected running time of this trial
    to the target (`expected_running_time`), measured on the reporting seeds. The ratio
    is ERT(mine) / ERT(other).

    The function computes a t interval of the log ratio. The exponentials of the two
    ends are the interval of the ratio. The interval takes into account that other
    tuning seeds might choose other trials. The variance of the log ratio is the sum of
    two variances (`variance_of`):

    - the variance over resampled tuning seeds, on which the trials are chosen again
    - the variance over resampled reporting seeds

    Satterthwaite's formula gives the degrees of freedom of the sum. There is no t
    interval if only one of the two rules reaches the target, in the study or in at
    least one bootstrap replicate (a resample of the seeds). The result is then a
    percentile interval of the replicates. This interval is slightly expanded because
    the seeds are few (`log_interval`).

    The coverage of the 95 % interval was measured on simulated studies of two equal
    rules. Each rule had twelve trials, and the cost had a minimum within the search
    space. There were 10,000 studies for each number of seeds:

        tuning seeds   reporting seeds   coverage
        3              5                 95.8 %
        3              10                95.5 %
        3              20                94.7 %
        5              20                95.3 %
        5              50                94.5 %

    There were also harder cases (heavy tails, a flat minimum, or many runs that miss
    the target), with 5,000 studies each. Their coverage was 95.2 % to 97.8 %, so the
    interval is slightly too wide in these cases.

    Use at least three tuning seeds, because with two tuning seeds the coverage was only
    91 %. If half of the runs miss the target and there are many comparisons, use at
    least twenty reporting seeds. In this case, ten or fewer reporting seeds give too
    many false differences. The evidence is 210 simulated studies of two equal rules.
    Their intervals had the level 99.75 %, which is the level of each interval if 20
    comparisons are made. Five studies reported a difference, but at this level at most
    one was expected.

    Args:
      mine, other: Scores of my rule and of the other rule, on the same seeds in the
        same order.
      trials: Number of trials from which each rule chooses. None means all trials. Use
        this argument to give equal budgets to rules with different numbers of trials.
        If a number is given, the function considers every set that consists of the
        rule's defaults (trial 0) and `trials` - 1 other trials. One trial is chosen
        from each set. The cost of the rule is then the mean number of passes over the
        data in a run, divided by the mean share of runs that reach the target. Both
        means are over the trials chosen from the sets. The field `ratio` compares these
        costs. The field `win`, the probability that my rule costs less on the same
        seed, is averaged over the sets. Each bootstrap replicate draws one set at
        random.
      level: Coverage of the intervals.
      comparisons: Number of comparisons that are made together. Each interval has the
        level 1 - (1 - level) / comparisons (Bonferroni). All intervals together then
        contain the true values with at least the probability `level`.
      resamples: Number of bootstrap replicates, at least 100.
      seed: Seed of the resampling.
    Returns:
      A `Difference`. Its field `more_seeds` is the number of additional reporting seeds
      that the study needs to detect a difference of 10 %. The number is 0 if the study
      has enough seeds. The number is -1 if no number suffices, or if the study cannot
      determine the number.
    Raises:
      ValueError, TypeError: The rules have different numbers of seeds, there are fewer
        than two tuning or reporting seeds, an argument has the wrong type, or a number
        is out of its range.
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
    check_count("seed", seed, 0)
    mine, other = _checked_pair(mine, other, trials)
    _check(level, comparisons, resamples)
    each = 1 - (1 - level) / comparisons
    seeds = mine.costs.shape[1]
    of_ratio, of_win = replicate(mine, other, trials, resamples, seed)
    middle, win = _observed(mine, other, trials)
    win = (
        0.5 if abs(win - 0.5) < TIED else min(win, 1.0)
    )  # Remove the rounding of weighted sums if all seeds are ties, or all are wins.
    low, high = log_interval(middle, of_ratio, seeds, each)
    win_low, win_high = share_interval(win, of_win, seeds, each)
    verdict = "better" if high < -TIED else "worse" if low > TIED else "undecided"
    needed = (
        seeds_needed(variance_of(of_ratio, seeds), each) if np.isfinite(middle) else -1
    )
    with np.errstate(over="ignore"):  # The end of a wide interval may be infinite.
        middle, low, high = (float(np.exp(x)) for x in (middle, low, high))
    return Difference(
        middle,
        low,
        high,
        win,
        win_low,
        win_high,
        verdict,
        -1 if needed < 0 else max(0, needed - seeds),
    )


def _observed(mine: Scores, other: Scores, trials: int | None) -> tuple[float, float]:
    """Return the log ratio of costs, and the share of seeds that mine wins.

    The log ratio is NaN if neither rule reached the target.
    """
    weights = [
        choice_weights(s.tuning.mean(axis=1), trials or len(s.tuning))
        for s in (mine, other)
    ]
    costs = [_expected_cost(s, w) for s, w in zip((mine, other), weights, strict=True)]
    runs = [np.where(s.costs <= s.budget, s.costs, np.inf) for s in (mine, other)]
    used = [np.flatnonzero(w) for w in weights]
    won = wins(runs[0][used[0], None], runs[1][None, used[1]]).mean(axis=-1)
    share = weights[0][used[0]] @ won @ weights[1][used[1]]
    return np.nan if np.isinf(costs).all() else float(
        log_ratio(*map(np.asarray, costs))
    ), float(share)


def _expected_cost(scores: Scores, weights: Float[np.ndarray, " trials"]) -> float:
    return float(
        ratio(
            *(
                weights @ array.sum(axis=1)
                for array in spent_and_reached(scores.costs, scores.budget)
            )
        )
    )


def _checked_pair(
    mine: Scores, other: Scores, trials: int | None
) -> tuple[Scores, Scores]:
    if trials is not None:
        check_count("trials", trials)
    mine, other = checked(mine, "mine"), checked(other, "other")
    for name in ("tuning", "costs"):
        ours, theirs = (getattr(s, name).shape[1] for s in (mine, other))
        if ours != theirs:
            raise ValueError(
                f"both rules need equal numbers of seeds; their {name} have {ours} "
                f"and {theirs}."
            )
    return mine, other


def _check(level: float, comparisons: int, resamples: int) -> None:
    check_share("level", level, 0.95)
    check_count("comparisons", comparisons)
    check_most(MOST_COMPARISONS, comparisons=comparisons)
    check_count("resamples", resamples, LEAST_RESAMPLES)
