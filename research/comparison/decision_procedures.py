"""Ways to read a comparison of two rules, the usual ones and ours, as functions of the same numbers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from research.statistics.checks import check_level, check_whole
from research.statistics.costs import expected_running_time, penalised_passes
from research.statistics.differences import difference
from research.statistics.scores import Scores, choose

MINE, NONE, OTHER = 1, 0, -1  # Who is named the winner.


class Pool(NamedTuple):
    """Trials of one rule on many seeds of one workload, from which studies are drawn; trial 0 is its defaults.

    Attributes:
      scores: Penalised passes to the target, lower is better, finite, shape (t, s).
      costs: Passes to the target, inf where it was not reached, shape (t, s).
      budget: Passes after which a run was stopped.
    """

    scores: np.ndarray
    costs: np.ndarray
    budget: float


class Drawn(NamedTuple):
    """One rule's side of a study: what a researcher with these trials and seeds would have in hand.

    Attributes:
      tuning: Scores on the seeds kept for the choice, shape (t, m).
      reported: Scores on the seeds that are reported, shape (t, n).
      costs: Passes on these, inf where the target was not reached, shape (t, n).
      budget: Passes after which a run was stopped.
      trials: Which rows of the pool these are.
    """

    tuning: np.ndarray
    reported: np.ndarray
    costs: np.ndarray
    budget: float
    trials: np.ndarray = np.arange(0)


class Reading(NamedTuple):
    """A way to name a winner.

    Attributes:
      decide: "lower mean" names the rule of the lower mean score, however close; "t-test" only where the paired t-test on
        log scores rejects equality; "interval" only where the interval of `difference`, which includes the choice of the
        trial, leaves 1 out.
      seeds: How many of the reported seeds are used; None: all.
      held_out: Whether the trial is chosen on the tuning seeds; if not, on the very seeds that are reported.
      others_trials: How many trials the other rule gets, its defaults first; None: as many as mine.
      redrawn: For the interval: how many of the trials made each replicate draws, the same for both rules, so that it
        includes the luck of the search too; None: all of them, which are then taken as given.
    """

    decide: str
    seeds: int | None = None
    held_out: bool = True
    others_trials: int | None = None
    redrawn: int | None = None


def readings(few: int = 3, redrawn: int = 6) -> dict[str, Reading]:
    """The usual ways, each with one fault or more, and ours, by name.

    Args:
      few: Trials of the other rule where budgets are unequal, and seeds where there are few.
      redrawn: Trials that a replicate of the last way draws.
    Returns:
      The readings.
    Example:
      >>> list(readings())[-2:], readings()["ours"].decide
      (['ours', 'ours, trials redrawn'], 'interval')
    """
    return {
        "one seed": Reading("lower mean", 1, False),
        f"{few} seeds": Reading("lower mean", few, False),
        f"{few} other seeds": Reading("lower mean", few),
        "tuned on what is reported": Reading("t-test", None, False),
        f"mine tuned, other {few} trials": Reading("t-test", None, True, few),
        "mine tuned, other defaults": Reading("t-test", None, True, 1),
        "choice left out": Reading("t-test"),
        "ours": Reading("interval"),
        "ours, trials redrawn": Reading("interval", redrawn=redrawn),
    }


def pool_of(arrays: Mapping[str, np.ndarray], target: float, trials: int) -> Pool:
    """The reported runs of a measured pair as a pool, without the trials that were added at an edge of the space.

    Args:
      arrays: `costs` and `final` (t, s), and `passes` (k,), of `measure_pair`.
      target: As it was measured with.
      trials: How many were planned.
    Returns:
      The pool. The score of a run that did not reach the target is that of `penalised_passes` from where it ended.
    Example:
      >>> arrays = {"costs": np.array([[2.0, np.inf]]), "final": np.array([[0.01, 0.1]]), "passes": np.arange(5.0)}
      >>> print(pool_of(arrays, 0.01, 1).scores)
      [[2. 8.]]
    """
    costs, final = arrays["costs"][:trials], arrays["final"][:trials]
    budget = float(arrays["passes"][-1])
    final = np.where(
        final > target, final, np.inf
    )  # At the target with no cost: it had diverged on the way.
    guess = penalised_passes(
        np.array([0.0, budget]), np.stack([np.ones_like(final), final], axis=-1), target
    )
    return Pool(np.where(np.isfinite(costs), costs, guess), costs, budget)


def true_cost(pool: Pool, trials: np.ndarray | slice = slice(None)) -> float:
    """What the whole pool says of a rule: the expected running time of the trial that is best over all seeds.

    Args:
      pool: Of the rule.
      trials: To choose among; all of them unless given.
    Returns:
      Passes, inf where that trial never reached the target.
    Example:
      >>> true_cost(Pool(np.array([[9.0, 9.0], [2.0, 4.0]]), np.array([[9.0, 9.0], [2.0, 4.0]]), 10.0))
      3.0
    """
    chosen = choose(pool.scores[trials])
    return float(expected_running_time(pool.costs[trials][chosen], pool.budget))


def draw_study(
    pools: Sequence[Pool],
    generator: np.random.Generator,
    *,
    trials: int,
    tuning_seeds: int,
    seeds: int,
    other_seeds: bool = False,
    other_trials: bool = False,
) -> tuple[Drawn, Drawn]:
    """A study that might have been made: some trials and seeds of a pool, without replacement.

    Args:
      pools: Of mine and of the other rule, with the same trials and seeds.
      generator: Of the draw.
      trials: Of each rule; the defaults are the first, the others are drawn, the same points for both.
      tuning_seeds, seeds: How many are drawn for the choice, and for the report, disjoint and the same for both.
      other_seeds: The other rule gets seeds of its own, disjoint from mine.
      other_trials: It gets trials of its own, disjoint from mine but for the defaults.
    Returns:
      The sides of mine and of the other rule.
    Raises:
      ValueError: The pool has too few trials or seeds.
    Example:
      >>> pool = Pool(np.ones((5, 20)), np.ones((5, 20)), 10.0)
      >>> mine, _ = draw_study((pool, pool), np.random.default_rng(0), trials=3, tuning_seeds=2, seeds=6)
      >>> mine.tuning.shape, mine.costs.shape, int(mine.trials[0])
      ((3, 2), (3, 6), 0)
    """
    made, runs = pools[0].scores.shape
    search, each = trials - 1, tuning_seeds + seeds
    if pools[1].scores.shape != (made, runs):
        raise ValueError(
            f"both pools need the same trials and seeds; got {(made, runs)} and {pools[1].scores.shape}."
        )
    for name, needed, there in (
        ("trials", 1 + search * (1 + other_trials), made),
        ("seeds", each * (1 + other_seeds), runs),
    ):
        if needed > there:
            raise ValueError(
                f"such a study draws {needed} {name}; the pool has {there}. Measure more, or draw fewer."
            )
    columns, points = generator.permutation(runs), 1 + generator.permutation(made - 1)
    sides = []
    for side, pool in enumerate(pools):
        rows = np.concatenate([[0], points[side * other_trials * search :][:search]])
        chosen = columns[side * other_seeds * each :][:each]
        tuned, reported = chosen[:tuning_seeds], chosen[tuning_seeds:]
        grids = np.ix_(rows, tuned), np.ix_(rows, reported)
        sides.append(
            Drawn(
                pool.scores[grids[0]],
                pool.scores[grids[1]],
                pool.costs[grids[1]],
                pool.budget,
                rows,
            )
        )
    return sides[0], sides[1]


def read(
    reading: Reading,
    mine: Drawn,
    other: Drawn,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> int:
    """Whom a reading names the winner.

    Args:
      reading: The way.
      mine, other: Sides of one study; column by column their reported seeds are paired.
      level: Coverage of the interval; the t-test is at 1 - level.
      resamples, seed: Of the bootstrap.
    Returns:
      MINE, OTHER, or NONE where it cannot be told. Equal means name nobody.
    Raises:
      ValueError: The reading decides in another way, or a t-test is given one seed.
    Example:
      >>> mine, other = (Drawn(x, x, x, 10.0) for x in (np.array([[2.0, 3.0, 4.0]]), np.array([[2.5, 3.5, 4.5]])))
      >>> [read(Reading(decide), mine, other) for decide in ("lower mean", "t-test", "interval")]
      [1, 1, 1]
    """
    check_level(level)
    other = (
        other
        if reading.others_trials is None
        else _first_trials(other, reading.others_trials)
    )
    if reading.decide == "interval":
        sides = (Scores(side.tuning, side.costs, side.budget) for side in (mine, other))
        verdict = difference(
            *sides, trials=reading.redrawn, level=level, resamples=resamples, seed=seed
        ).verdict
        return {"better": MINE, "worse": OTHER}.get(verdict, NONE)
    mine_scores, other_scores = (reported(reading, side) for side in (mine, other))
    if reading.decide == "lower mean":
        return int(np.sign(other_scores.mean() - mine_scores.mean()))
    if reading.decide == "t-test":
        return _t_test(np.log(other_scores) - np.log(mine_scores), level)
    raise ValueError(
        f"decide must be 'lower mean', 't-test' or 'interval'; got {reading.decide!r}."
    )


def reported(reading: Reading, side: Drawn) -> np.ndarray:
    """The scores that a reading reports of a rule: of the trial that it chooses, shape (seeds,).

    Example:
      >>> side = Drawn(np.array([[1.0, 1.0], [2.0, 2.0]]), np.array([[5.0, 3.0], [4.0, 6.0]]), np.ones((2, 2)), 10.0)
      >>> [reported(Reading("lower mean", 1, held_out), side).tolist() for held_out in (True, False)]
      [[5.0], [4.0]]
    """
    scores = side.reported[:, : reading.seeds]
    return scores[choose(side.tuning if reading.held_out else scores)]


def share(count: int, total: int, level: float = 0.95) -> tuple[float, float, float]:
    """A share with its binomial interval: Wilson's, which stays within 0 and 1.

    Args:
      count, total: How often, of how many; total is positive.
      level: Coverage.
    Returns:
      (share, low, high).
    Raises:
      ValueError, TypeError: count or total is not an integer, count does not lie in 0..total, or level not between 0 and 1.
    References:
      Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.
    Example:
      >>> print(np.round(share(5, 100), 3))
      [0.05  0.022 0.112]
    """
    check_level(level)
    check_whole("total", total, 1)
    check_whole("count", count, 0)
    if count > total:
        raise ValueError(
            f"count is how often, of total: at most total; got count={count}, total={total}."
        )
    interval = stats.binomtest(int(count), int(total)).proportion_ci(level, "wilson")
    return int(count) / int(total), float(interval.low), float(interval.high)


def tally(
    named: np.ndarray, truth: np.ndarray
) -> dict[str, tuple[float, float, float]]:
    """How often studies name the right winner, the wrong one, and none.

    Args:
      named: MINE, OTHER or NONE, shape (studies,).
      truth: The same of the better rule; where both are equal, NONE, whoever is named is wrong.
    Returns:
      "right", "wrong" and "undecided", each a `share` with its interval.
    Example:
      >>> {key: seen[0] for key, seen in tally(np.array([1, -1, 0, 1]), np.array([1, 1, 1, 0])).items()}
      {'right': 0.25, 'wrong': 0.5, 'undecided': 0.25}
    """
    named, truth = np.asarray(named), np.asarray(truth)
    if (
        named.shape != truth.shape
        or not np.isin([*named.ravel(), *truth.ravel()], (MINE, NONE, OTHER)).all()
    ):
        raise ValueError(
            f"named and truth must be of one shape, each MINE, NONE or OTHER; got {named!r} and {truth!r}."
        )
    decided = named != NONE
    right = decided & (named == truth)
    outcomes = {"right": right, "wrong": decided & ~right, "undecided": ~decided}
    return {key: share(seen.sum(), len(seen)) for key, seen in outcomes.items()}


def _first_trials(side: Drawn, count: int) -> Drawn:
    return side._replace(
        tuning=side.tuning[:count],
        reported=side.reported[:count],
        costs=side.costs[:count],
    )


def _t_test(advantages: np.ndarray, level: float) -> int:
    """Whether the mean differs from 0 by Student's test; with differences all alike any but 0 does."""
    n = len(advantages)
    if n < 2:
        raise ValueError(f"a t-test needs two seeds or more; got {n}.")
    half = stats.t.isf((1 - level) / 2, n - 1) * advantages.std(ddof=1) / np.sqrt(n)
    return int(np.sign(advantages.mean())) if abs(advantages.mean()) > half else NONE
