"""Compare rules that were tuned by several independent searches each."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from research.checks import (
    check_count,
    check_number,
    check_numbers,
    check_sequence,
    check_share,
)
from research.sizes import MOST_COMPARISONS, MOST_RESAMPLES, check_most
from research.statistics.bootstrap import (
    LEAST_RESAMPLES,
    POWER,
    TIED,
    rank_chances,
    wilson_interval,
    wins,
)

# A search stops when two rounds in a row gain less than 2 %, so no interval of a ratio
# is narrower than this on either side.
RESOLUTION = math.log(1.02)
LARGEST_LOG = 700.0  # exp of a larger number overflows.
DISAGREEMENT = 1.25  # Searches disagree if their costs differ by this factor, ...
DISAGREEMENT_LEVEL = 0.99  # ... and more than seeds explain, at this level.


class SearchedDifference(NamedTuple):
    """The difference between two rules that were tuned by independent searches.

    The two rules are called mine and the other. Each search chooses hyper-parameters
    for one rule on one workload (a named optimisation problem). These hyper-parameters
    are then run on several seeds.

    Attributes:
      ratio: Cost of mine divided by the cost of the other. If the ratio is below 1,
        mine is cheaper. The cost of a rule is the geometric mean of the costs of its
        runs, over searches, seeds and workloads. In `comparison.compare`, the cost of a
        run is the number of passes over the data until the run reaches the target. A
        run that misses the target costs ten times the length of a full training, which
        is the same for both rules.
      low, high: Confidence interval of the ratio. The interval includes the variation
        between searches and between seeds.
      win: Probability that mine costs less than the other, for a random workload, a
        random search of each rule and a random seed. Equal costs count half.
      win_low, win_high: Confidence interval of `win`.
      verdict: "better" if the interval of the ratio lies below 1, "worse" if it lies
        above 1, else "undecided".
      detectable: Smallest factor between the costs of the two rules that a study with
        the same variance detects with probability 0.8 (power).
      from_searches: Share of the variance of the log ratio that comes from the
        searches. The remaining variance comes from the seeds. NaN if the variance is 0
        up to rounding errors.
      workloads: Number of workloads.
    """

    ratio: float
    low: float
    high: float
    win: float
    win_low: float
    win_high: float
    verdict: str
    detectable: float
    from_searches: float
    workloads: int


class _Estimate(NamedTuple):
    """A mean over searches and seeds, and the variance of this mean.

    Attributes:
      mean: The mean.
      seeds: Part of the variance that comes from the seeds.
      searches: Part of the variance that comes from the searches.
      freedom: Degrees of freedom of the sum of the two parts.
    """

    mean: float
    seeds: float
    searches: float
    freedom: float

    @property
    def deviation(self) -> float:
        """Standard deviation of the mean."""
        return math.sqrt(self.seeds + self.searches)


def searched_difference(
    pairs: Sequence[
        tuple[Float[np.ndarray, "searches seeds"], Float[np.ndarray, "searches seeds"]]
    ],
    *,
    level: float = 0.95,
    comparisons: int = 1,
    resolution: float = RESOLUTION,
) -> SearchedDifference:
    """Compare two update rules by mean log cost over independent searches and seeds.

    A rule is tuned by J independent searches, and each search chooses hyper-parameters.
    The two rules may have different numbers J. All chosen hyper-parameters are run on
    the same n reporting seeds. Each run has a positive cost, such as the number of
    passes over the data to a target.

    For each rule and each seed s, the log cost is averaged over the searches. Let d_s
    be this average for the first rule minus the average for the second rule. The log
    ratio of the costs is the mean of d_s over the seeds. The confidence interval of
    this log ratio is the mean ± t √V, with the variance

    V = var(d_s) / n + Σ max(0, var(m_j) / J - R / (n J)).

    - var is the sample variance over the seeds s or over the searches j.
    - Σ is the sum over the two rules.
    - m_j is, for each rule, the mean log cost of search j over the seeds.
    - R is, for each rule, the sum of the squared residuals, divided by (J - 1) (n - 1).
      The residuals are those of the model log cost = effect of the search + effect of
      the seed, fitted to the rule's log costs.

    For an interval with the level c, t is the (1 + c) / 2 quantile of Student's t
    distribution. Satterthwaite's formula gives the degrees of freedom of this
    distribution. The number of degrees of freedom is at least the smallest of these
    numbers: n - 1, and J - 1 for each rule whose term in Σ is not 0.

    With W workloads (named optimisation problems), d_s is first averaged over the
    workloads. The sum Σ is then over both rules and all workloads, and is divided by
    W².

    The half width of the interval is at least `resolution`, by default log 1.02. The
    searches do not resolve smaller differences, because a search stops refining its
    hyper-parameters after two successive rounds that each improve the cost by less than
    2 %.

    Args:
      pairs: One pair of arrays (mine, other) for each workload: mine for the first
        rule, and other for the second. Entry [j, s] of an array, shape (J, n), is the
        log cost with the choice of search j on reporting seed s. All arrays have the
        same seeds in the same order. A rule without hyper-parameters to search has one
        row, and its term in Σ is 0.
      level: Coverage of the interval, or of all intervals together if there are several
        comparisons.
      comparisons: Number of comparisons that are made together. Each interval has the
        level 1 - (1 - level) / comparisons (Bonferroni).
      resolution: Smallest half width of the interval of the log ratio.
    Returns:
      The `SearchedDifference`. Its field `ratio` is exp(log ratio): the cost of the
      first rule divided by the cost of the second rule. The fields `low` and `high` are
      the ends of the confidence interval of the ratio. The field `verdict` is "better"
      if this interval lies below 1, "worse" if it lies above 1, and otherwise
      "undecided".
    Raises:
      ValueError, TypeError: There is no pair, a log cost is not between -700 and 700,
        there are fewer than two seeds, the numbers of seeds differ, or another argument
        is out of its range.
    References:
      Searle, Casella & McCulloch, Variance components, 1992, chapter 5 (two-way crossed
      random model). Satterthwaite, Biometrics Bulletin 2, 1946. Bouthillier et al.,
      MLSys 2021, arXiv:2103.03098 (the choice of hyper-parameters as a source of
      variance).
    Example:
      >>> generator = np.random.default_rng(0)
      >>> slow = 2.0 + generator.normal(0, 0.05, size=(5, 20))
      >>> outcome = searched_difference([(slow - 0.3, slow + 0.0)])
      >>> print(round(outcome.ratio, 3), outcome.verdict)
      0.741 better
    """
    pairs = _checked(pairs)
    check_share("level", level, 0.95)
    check_count("comparisons", comparisons)
    check_most(MOST_COMPARISONS, comparisons=comparisons)
    check_number("resolution", resolution, below=LARGEST_LOG)
    each = 1 - (1 - level) / comparisons
    log = _estimate([_difference_parts(*pair) for pair in pairs])
    quantile = stats.t.isf((1 - each) / 2, log.freedom)
    half = max(quantile * log.deviation, resolution)
    detectable = half + stats.t.isf(1 - POWER, log.freedom) * log.deviation
    low, high = log.mean - half, log.mean + half
    verdict = "better" if high < -TIED else "worse" if low > TIED else "undecided"
    win = _estimate([_win_parts(*pair) for pair in pairs])
    seeds = pairs[0][0].shape[1]
    win_low, win_high = wilson_interval(
        win.mean, win.deviation**2, win.freedom, seeds, each
    )
    total = log.seeds + log.searches
    with np.errstate(over="ignore"):  # The end of a wide interval may be infinite.
        ratio, low, high, factor = (
            float(np.exp(x)) for x in (log.mean, low, high, detectable)
        )
    return SearchedDifference(
        ratio=ratio,
        low=low,
        high=high,
        win=win.mean,
        win_low=win_low,
        win_high=win_high,
        verdict=verdict,
        detectable=factor,
        from_searches=log.searches / total if total > TIED**2 else math.nan,
        workloads=len(pairs),
    )


class SearchedCost(NamedTuple):
    """The cost of one update rule on one workload, over independent searches.

    A workload is a named optimisation problem. Each search chooses hyper-parameters for
    the rule. These hyper-parameters are then run on several seeds.

    Attributes:
      cost: Geometric mean of the cost over searches and seeds. In a study on networks,
        the cost of a run is its final validation loss. In other studies, it is the
        number of passes over the data until the run reaches the target. A run that
        misses the target costs ten times the length of a full training.
      low, high: Ends of the confidence interval of the cost. Its coverage is the
        argument `level` of `searched_cost`, by default 0.95. The interval includes the
        variation between searches and between seeds.
      spread: Largest cost of a search divided by the smallest one. The cost of a search
        is the geometric mean of its costs over the seeds.
      disagree: Whether the searches disagree. They disagree if two conditions hold.
        First, `spread` is at least the argument `factor` of `searched_cost`, by default
        1.25. Second, the costs of the searches differ by more than the variation
        between seeds can explain (F test with the significance level 0.01). A rule
        whose searches disagree is hard to tune.
    """

    cost: float
    low: float
    high: float
    spread: float
    disagree: bool


def searched_cost(
    logs: Float[np.ndarray, "searches seeds"],
    *,
    level: float = 0.95,
    resolution: float = RESOLUTION,
    factor: float = DISAGREEMENT,
) -> SearchedCost:
    """Return the cost of one rule on one workload, and whether the searches disagree.

    The update rule was tuned by J independent searches on the workload (a named
    optimisation problem). Each search chose hyper-parameters, which were then run on n
    reporting seeds.

    Args:
      logs: Natural logarithms of the costs of the runs, shape (J, n): a row for each
        search, and a column for each reporting seed. A rule without hyper-parameters to
        search has one row. The interval of such a rule includes only the variation
        between seeds. For any other rule, pass at least two rows.
      level: Coverage of the confidence interval of the cost.
      resolution: Smallest half width of the interval of the log cost. The default is
        log 1.02.
      factor: Threshold of the field `spread`, the largest cost of a search divided by
        the smallest. The cost of a search is the geometric mean of its costs over the
        seeds. The searches disagree if two conditions hold: `spread` is at least
        `factor`, and an F test (level 0.01) finds a difference between the searches.
    Returns:
      The `SearchedCost`. Its field `cost` is the geometric mean of the costs over
      searches and seeds. The fields `low` and `high` are the ends of the confidence
      interval of this cost. The fields `spread` and `disagree` are described under
      `factor`.
    Raises:
      ValueError, TypeError: There are fewer than two seeds, a log cost is not between
        -700 and 700, `level` is not between 0 and 1, or `resolution` or `factor` is
        negative or not finite.
    References:
      Scheffé, The analysis of variance, 1959, 4.3: the F test of rows in a two-way
      layout with one observation in each cell.
    Example:
      >>> logs = np.log(np.array([[4.0, 6.0, 4.0], [8.0, 12.0, 8.0]]))
      >>> outcome = searched_cost(logs)
      >>> print(round(outcome.spread, 3), outcome.disagree)
      2.0 True
    """
    logs = _checked_logs("logs", logs)
    check_share("level", level, 0.95)
    check_number("resolution", resolution, below=LARGEST_LOG)
    check_number("factor", factor)
    estimate = _estimate([_Parts(logs.mean(axis=0), logs, logs[:1])])
    half = max(
        stats.t.isf((1 - level) / 2, estimate.freedom) * estimate.deviation, resolution
    )
    means = logs.mean(axis=1)
    spread = _exp(float(means.max() - means.min()))
    cost, low, high = (_exp(float(estimate.mean + side)) for side in (0.0, -half, half))
    differ = spread >= factor and _rows_differ(logs)
    return SearchedCost(cost, low, high, spread, differ)


def best_of_trials(
    scores: Float[np.ndarray, "searches trials seeds"],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Float[np.ndarray, "trials 3"]:
    """Return the expected cost of the best of k trials for k = 1, ..., t, with a band.

    The band is a confidence interval of this cost at each k.

    A trial is a choice of hyper-parameters. Each of J searches starts with a screening:
    it runs t trials on s seeds. Trial 0 of each search is the rule's defaults, whose
    scores are averaged over the searches. The other trials of all searches form one
    pool.

    Consider all sets that consist of the defaults and k - 1 trials of the pool. In each
    set, the trial with the lowest mean log cost on one half of the seeds is chosen, and
    the mean log cost of this trial on the other half is reported. Then the two halves
    are exchanged, and the two reported log costs are averaged. This gives one average
    for each set. The expected cost is exp of the mean of these averages over all sets.
    This mean is computed from the chance of each trial to be chosen (`rank_chances`),
    not by sampling sets.

    The band is a percentile interval over replicates. Each replicate draws the trials
    of each search with replacement, except the defaults, and gives the seeds of each
    half random weights (Bayesian bootstrap). Therefore the band includes the variation
    between trials. With at least two seeds in each half, it also includes the variation
    between seeds. The replicates treat the trials like random points. But the trials of
    a search are points of a Sobol sequence, which are spread more evenly than random
    points. The band is therefore slightly too wide. For k = 1 the only set is the
    defaults alone. The band then includes only the variation between seeds. With few
    seeds it may be too narrow, and with one seed in each half it has no width.

    In the example, the defaults have the cost 9. Both searches have the same trials, so
    the pool has the costs 3, 6, 3 and 6. For k = 3, one of the six sets has only the
    costs 9, 6 and 6. The expected cost for k = 3 is therefore above 3.

    Args:
      scores: Log costs in the screening, finite, shape (J, t, s), where s is at least
        2.
      level: Coverage of the band at each k.
      resamples: Number of replicates.
      seed: Seed of the replicates.
    Returns:
      Rows (cost, low, high) for each k, shape (t, 3).
    Raises:
      ValueError, TypeError: The shape is wrong, a score is not a finite number, or
        another argument is out of its range.
    References:
      Dodge, Gururangan, Card, Schwartz & Smith, Show your work, EMNLP 2019,
      arXiv:1909.03004: expected result of the best of k; here in the unbiased form
      without replacement, with the defaults always included. Rubin, The Bayesian
      bootstrap, Annals of Statistics 9, 1981.
    Example:
      >>> costs = np.array([[9.0, 9.0], [3.0, 3.0], [6.0, 6.0]])
      >>> print(best_of_trials(np.log([costs, costs]))[:, 0].round(3))
      [9.    4.243 3.367]
    """
    check_numbers("scores", scores)
    check_share("level", level, 0.95)
    check_count("resamples", resamples, LEAST_RESAMPLES)
    check_most(MOST_RESAMPLES, resamples=resamples)
    check_count("seed", seed, 0)
    scores = np.asarray(scores, float)
    if scores.ndim != 3 or not scores.size or scores.shape[2] < 2:
        raise ValueError(
            "scores must have the shape (searches, trials, seeds), with at least two "
            f"seeds; got shape {scores.shape}."
        )
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite log costs; see `search_scores`.")
    generator = np.random.default_rng(seed)
    searches, count, seeds = scores.shape
    halves = scores[..., : seeds // 2], scores[..., seeds // 2 :]
    middle = _best_of_points(*(half.mean(axis=2) for half in halves))
    drawn = np.empty((resamples, count))
    for number in range(resamples):
        means = [
            np.einsum("jts,js->jt", half, _weights(half.shape, generator))
            for half in halves
        ]
        points = generator.integers(1, count, (searches, count - 1)) if count > 1 else 0
        rows = np.concatenate(
            [
                np.zeros((searches, 1), int),
                np.broadcast_to(points, (searches, count - 1)),
            ],
            axis=1,
        )
        drawn[number] = _best_of_points(
            *(np.take_along_axis(one, rows, axis=1) for one in means)
        )
    tail = 50 * (1 - level)
    low, high = np.percentile(drawn, [tail, 100 - tail], axis=0)
    return np.exp(np.column_stack([middle, low, high]))


def _weights(
    shape: tuple[int, ...], generator: np.random.Generator
) -> Float[np.ndarray, "searches seeds"]:
    """Return random weights of the seeds; the weights of each search sum to 1.

    With Dirichlet weights, the variance of a weighted mean of n numbers is too small by
    the factor (n - 1) / (n + 1). The deviations of the weights from 1 / n are enlarged
    to correct this.
    """
    n = shape[2]
    if n == 1:
        return np.ones((shape[0], 1))
    drawn = generator.dirichlet(np.ones(n), size=shape[0])
    return 1 / n + (drawn - 1 / n) * math.sqrt((n + 1) / (n - 1))


def _best_of_points(
    one: Float[np.ndarray, "searches trials"], two: Float[np.ndarray, "searches trials"]
) -> Float[np.ndarray, " trials"]:
    """Return the mean score of the best of k trials, for k = 1, ..., t.

    The best trial is chosen by the scores on one half of the seeds, and scored on the
    other half. Then the halves are exchanged, and the two results are averaged. The
    score of the defaults is the mean of column 0. The other trials of all searches form
    one pool.
    """
    pooled_means = [
        np.concatenate([[half[:, 0].mean()], half[:, 1:].ravel()])
        for half in (one, two)
    ]
    points = len(pooled_means[0]) - 1
    table = np.stack([rank_chances(points, k + 1) for k in range(one.shape[1])])
    results = []
    for chosen, scored in (pooled_means, pooled_means[::-1]):
        order = np.argsort(chosen[1:], kind="stable")
        better = chosen[1:][order] < chosen[0]
        chances = np.where(better, table, 0.0)
        rest = 1 - chances.sum(axis=1)
        results.append(chances @ scored[1:][order] + rest * scored[0])
    return np.mean(results, axis=0)


def _exp(x: float) -> float:
    """Return exp(x), or inf if it overflows: the end of a wide interval may."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _rows_differ(logs: Float[np.ndarray, "searches seeds"]) -> bool:
    """Return whether the rows of a two-way layout differ, by an F test."""
    rows, columns = logs.shape
    if rows < 2:
        return False
    freedom = (rows - 1, (rows - 1) * (columns - 1))
    between = columns * float(np.var(logs.mean(axis=1), ddof=1))
    within = _rest(logs)
    if within <= TIED**2:
        return between > TIED**2
    return bool(between / within > stats.f.isf(1 - DISAGREEMENT_LEVEL, *freedom))


def _rest(values: Float[np.ndarray, "rows columns"]) -> float:
    """Return the mean square of the residuals of the model value = row + column."""
    rows, columns = values.shape
    rest = values - values.mean(axis=0) - values.mean(axis=1)[:, None] + values.mean()
    return float((rest**2).sum()) / ((rows - 1) * (columns - 1))


class _Parts(NamedTuple):
    """Numbers of one workload from which `_estimate` computes a mean and its variance.

    Attributes:
      seeds: Quantity to average, on each seed, as a mean over all searches, shape (n,).
      mine, other: Quantity for each search of one rule and each seed. The variance from
        the searches of this rule is computed from this array. With one row, this
        variance counts as 0.
    """

    seeds: Float[np.ndarray, " seeds"]
    mine: Float[np.ndarray, "searches seeds"]
    other: Float[np.ndarray, "others seeds"]


def _difference_parts(
    mine: Float[np.ndarray, "searches seeds"], other: Float[np.ndarray, "others seeds"]
) -> _Parts:
    seeds = mine.mean(axis=0) - other.mean(axis=0)
    return _Parts(seeds, mine, other)


def _win_parts(
    mine: Float[np.ndarray, "searches seeds"], other: Float[np.ndarray, "others seeds"]
) -> _Parts:
    won = wins(np.exp(mine)[:, None], np.exp(other)[None])
    return _Parts(won.mean((0, 1)), won.mean(1), won.mean(0))


def _estimate(parts: Sequence[_Parts]) -> _Estimate:
    """Return the mean over workloads and seeds, with the two parts of its variance."""
    seeds = np.mean([one.seeds for one in parts], axis=0)
    from_seeds = float(np.var(seeds, ddof=1)) / len(seeds)
    # Satterthwaite: the squared variance divided by the sum of term² / freedom.
    from_searches, squares = 0.0, from_seeds**2 / (len(seeds) - 1)
    fewest = [len(seeds) - 1.0]
    for table in (table for one in parts for table in (one.mine, one.other)):
        rows, columns = table.shape
        if rows < 2:
            continue
        weight = 1 / rows / len(parts) ** 2
        term = weight * float(np.var(table.mean(axis=1), ddof=1))
        rest = weight * _rest(table) / columns
        if term > rest:
            from_searches += term - rest
            squares += term**2 / (rows - 1)
            squares += rest**2 / ((rows - 1) * (columns - 1))
            fewest.append(rows - 1.0)
    total = from_seeds + from_searches
    freedom = max(total**2 / squares, min(fewest)) if squares > 0 else sum(fewest)
    return _Estimate(float(np.mean(seeds)), from_seeds, from_searches, freedom)


def _checked(pairs: Sequence) -> list[tuple[np.ndarray, np.ndarray]]:
    check_sequence("pairs", pairs, "pairs (mine, other) of arrays", (tuple, list))
    if not len(pairs):
        raise ValueError("pairs must hold the log costs of two rules; got none.")
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(
            "every entry of pairs must be a pair (mine, other); at least one has "
            "another length."
        )
    both = [
        (_checked_logs("mine", mine), _checked_logs("other", other))
        for mine, other in pairs
    ]
    seeds = sorted({logs.shape[1] for pair in both for logs in pair})
    if len(seeds) > 1:
        raise ValueError(
            "all rules must have the same reporting seeds on all workloads; got "
            f"{seeds} of them."
        )
    return both


def _checked_logs(name: str, logs: np.ndarray) -> Float[np.ndarray, "searches seeds"]:
    check_numbers(name, logs)
    logs = np.asarray(logs, float)
    if logs.ndim != 2 or not len(logs) or logs.shape[1] < 2:
        raise ValueError(
            f"{name} must have a row for each search and a column for each seed, with "
            f"at least two seeds; got shape {logs.shape}."
        )
    if not (np.abs(logs) <= LARGEST_LOG).all():
        raise ValueError(
            f"every entry of {name} must be a finite log cost between -700 and 700; at "
            "least one is not. A run that misses the target costs ten times the budget "
            "of passes; `log_costs` computes this."
        )
    return logs
