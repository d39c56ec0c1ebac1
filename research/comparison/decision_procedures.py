"""Decision procedures: ways to name the better of two rules, on simulated studies."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from research.checks import check_count, check_share
from research.statistics.costs import expected_running_time, penalised_passes
from research.statistics.differences import difference
from research.statistics.scores import Scores, choose

MINE, NONE, OTHER = 1, 0, -1  # Who is named the winner.


class MeasuredRuns(NamedTuple):
    """Runs of one rule's trials on many seeds of a workload; trial 0 is its defaults.

    Studies are simulated from them.

    Attributes:
      scores: Penalised passes to the target, lower is better, finite, shape (t, s).
      costs: Passes to the target, inf where it was not reached, shape (t, s).
      budget: Passes after which a run was stopped.
    """

    scores: Float[np.ndarray, "trials seeds"]
    costs: Float[np.ndarray, "trials seeds"]
    budget: float


class SimulatedRuns(NamedTuple):
    """Runs of one rule in a simulated study: some of the measured trials and seeds.

    Attributes:
      tuning: Scores on the seeds kept for the choice, shape (t, m).
      reported: Scores on the seeds that are reported, shape (t, n).
      costs: Passes on these, inf where the target was not reached, shape (t, n).
      budget: Passes after which a run was stopped.
      trials: Rows of the measured runs that these are.
    """

    tuning: Float[np.ndarray, "trials tuning_seeds"]
    reported: Float[np.ndarray, "trials seeds"]
    costs: Float[np.ndarray, "trials seeds"]
    budget: float
    trials: Int[np.ndarray, " trials"] = np.arange(0)


class Procedure(NamedTuple):
    """A decision procedure: a way to name a winner.

    Attributes:
      decide: "lower mean" names the rule of the lower mean score, however close;
        "t-test" only where the paired t-test on log scores rejects equality; "interval"
        only where the interval of `difference`, which includes the choice of the trial,
        leaves 1 out.
      seeds: How many of the reported seeds are used; None: all.
      held_out: Whether the trial is chosen on the tuning seeds; if not, on the very
        seeds that are reported.
      others_trials: How many trials the other rule gets, its defaults first; None: as
        many as mine.
      redrawn: For the interval: how many of the trials made each replicate draws, the
        same for both rules, so that it includes the luck of the search too; None: all
        of them, which are then taken as given.
    """

    decide: str
    seeds: int | None = None
    held_out: bool = True
    others_trials: int | None = None
    redrawn: int | None = None


def procedures(few: int = 3, redrawn: int = 6) -> dict[str, Procedure]:
    """Return the usual procedures, each with one fault or more, and ours, by name.

    Args:
      few: Trials of the other rule where budgets are unequal, and seeds where there are
        few.
      redrawn: Trials that a replicate of the last way draws.
    Returns:
      The procedures.
    Example:
      >>> list(procedures())[-2:]
      ['ours', 'ours, trials redrawn']
      >>> procedures()["ours"].decide
      'interval'
    """
    return {
        "one seed": Procedure("lower mean", 1, False),
        f"{few} seeds": Procedure("lower mean", few, False),
        f"{few} other seeds": Procedure("lower mean", few),
        "tuned on what is reported": Procedure("t-test", None, False),
        f"mine tuned, other {few} trials": Procedure("t-test", None, True, few),
        "mine tuned, other defaults": Procedure("t-test", None, True, 1),
        "choice left out": Procedure("t-test"),
        "ours": Procedure("interval"),
        "ours, trials redrawn": Procedure("interval", redrawn=redrawn),
    }


def measured_runs(
    arrays: Mapping[str, Float[np.ndarray, "..."]], target: float, trials: int
) -> MeasuredRuns:
    """Return the reported runs of a measurement.

    The trials that were added at an edge of the space are left out.

    Args:
      arrays: `costs` and `final` (t, s), and `passes` (k,), of `measure_pair`.
      target: As it was measured with.
      trials: How many were planned.
    Returns:
      The runs. The score of a run that did not reach the target is that of
      `penalised_passes` from where it ended.
    Example:
      >>> arrays = {
      ...     "costs": np.array([[2.0, np.inf]]),
      ...     "final": np.array([[0.01, 0.1]]),
      ...     "passes": np.arange(5.0),
      ... }
      >>> print(measured_runs(arrays, 0.01, 1).scores)
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
    return MeasuredRuns(np.where(np.isfinite(costs), costs, guess), costs, budget)


def true_cost(runs: MeasuredRuns, trials: np.ndarray | slice = slice(None)) -> float:
    """Return the expected running time of the trial that is best over all seeds.

    Args:
      runs: Of the rule.
      trials: To choose among; all of them unless given.
    Returns:
      Passes, inf where that trial never reached the target.
    Example:
      >>> costs = np.array([[9.0, 9.0], [2.0, 4.0]])
      >>> true_cost(MeasuredRuns(costs, costs, 10.0))
      3.0
    """
    chosen = choose(runs.scores[trials])
    return float(expected_running_time(runs.costs[trials][chosen], runs.budget))


def simulate_study(
    measured: Sequence[MeasuredRuns],
    generator: np.random.Generator,
    *,
    trials: int,
    tuning_seeds: int,
    seeds: int,
    other_seeds: bool = False,
    other_trials: bool = False,
) -> tuple[SimulatedRuns, SimulatedRuns]:
    """Simulate a study: draw trials and seeds of measured runs, without replacement.

    Args:
      measured: Of mine and of the other rule, with the same trials and seeds.
      generator: Of the draw.
      trials: Of each rule; the defaults are the first, the others are drawn, the same
        points for both.
      tuning_seeds, seeds: How many are drawn for the choice, and for the report,
        disjoint and the same for both.
      other_seeds: The other rule gets seeds of its own, disjoint from mine.
      other_trials: It gets trials of its own, disjoint from mine but for the defaults.
    Returns:
      The sides of mine and of the other rule.
    Raises:
      ValueError: The runs has too few trials or seeds.
    Example:
      >>> runs = MeasuredRuns(np.ones((5, 20)), np.ones((5, 20)), 10.0)
      >>> mine, _ = simulate_study(
      ...     (runs, runs),
      ...     np.random.default_rng(0),
      ...     trials=3,
      ...     tuning_seeds=2,
      ...     seeds=6,
      ... )
      >>> mine.tuning.shape, mine.costs.shape, int(mine.trials[0])
      ((3, 2), (3, 6), 0)
    """
    num_trials, num_seeds = measured[0].scores.shape
    search, each = trials - 1, tuning_seeds + seeds
    if measured[1].scores.shape != (num_trials, num_seeds):
        raise ValueError(
            "both rules need the same trials and seeds; got "
            f" {(num_trials, num_seeds)} and {measured[1].scores.shape}."
        )
    for name, needed, there in (
        ("trials", 1 + search * (1 + other_trials), num_trials),
        ("seeds", each * (1 + other_seeds), num_seeds),
    ):
        if needed > there:
            raise ValueError(
                f"such a study draws {needed} {name}; {there} are measured. Measure more, or "
                "draw fewer."
            )
    columns, points = (
        generator.permutation(num_seeds),
        1 + generator.permutation(num_trials - 1),
    )
    sides = []
    for side, runs in enumerate(measured):
        rows = np.concatenate([[0], points[side * other_trials * search :][:search]])
        chosen = columns[side * other_seeds * each :][:each]
        tuned, reported = chosen[:tuning_seeds], chosen[tuning_seeds:]
        grids = np.ix_(rows, tuned), np.ix_(rows, reported)
        sides.append(
            SimulatedRuns(
                runs.scores[grids[0]],
                runs.scores[grids[1]],
                runs.costs[grids[1]],
                runs.budget,
                rows,
            )
        )
    return sides[0], sides[1]


def winner(
    procedure: Procedure,
    mine: SimulatedRuns,
    other: SimulatedRuns,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> int:
    """Return the winner that a procedure names.

    Args:
      procedure: The way.
      mine, other: Sides of one study; column by column their reported seeds are paired.
      level: Coverage of the interval; the t-test is at 1 - level.
      resamples, seed: Of the bootstrap.
    Returns:
      MINE, OTHER, or NONE where it cannot be told. Equal means name nobody.
    Raises:
      ValueError: The procedure decides in another way, or a t-test is given one seed.
    Example:
      >>> costs = np.array([[2.0, 3.0, 4.0]])
      >>> mine = SimulatedRuns(costs, costs, costs, 10.0)
      >>> other = SimulatedRuns(costs + 0.5, costs + 0.5, costs + 0.5, 10.0)
      >>> ways = ("lower mean", "t-test", "interval")
      >>> [winner(Procedure(decide), mine, other) for decide in ways]
      [1, 1, 1]
    """
    check_share("level", level, 0.95)
    other = (
        other
        if procedure.others_trials is None
        else _first_trials(other, procedure.others_trials)
    )
    if procedure.decide == "interval":
        sides = (Scores(side.tuning, side.costs, side.budget) for side in (mine, other))
        verdict = difference(
            *sides,
            trials=procedure.redrawn,
            level=level,
            resamples=resamples,
            seed=seed,
        ).verdict
        return {"better": MINE, "worse": OTHER}.get(verdict, NONE)
    mine_scores, other_scores = (reported(procedure, side) for side in (mine, other))
    if procedure.decide == "lower mean":
        return int(np.sign(other_scores.mean() - mine_scores.mean()))
    if procedure.decide == "t-test":
        return _t_test(np.log(other_scores) - np.log(mine_scores), level)
    raise ValueError(
        f"decide must be 'lower mean', 't-test' or 'interval'; got {procedure.decide!r}."
    )


def reported(procedure: Procedure, side: SimulatedRuns) -> Float[np.ndarray, " seeds"]:
    """Return the scores that a procedure reports: those of the trial that it chooses.

    Example:
      >>> tuning = np.array([[1.0, 1.0], [2.0, 2.0]])
      >>> scores = np.array([[5.0, 3.0], [4.0, 6.0]])
      >>> side = SimulatedRuns(tuning, scores, np.ones((2, 2)), 10.0)
      >>> [
      ...     reported(Procedure("lower mean", 1, held_out), side).tolist()
      ...     for held_out in (True, False)
      ... ]
      [[5.0], [4.0]]
    """
    scores = side.reported[:, : procedure.seeds]
    return scores[choose(side.tuning if procedure.held_out else scores)]


def share(count: int, total: int, level: float = 0.95) -> tuple[float, float, float]:
    """Return a share with Wilson's binomial interval, which stays within 0 and 1.

    Args:
      count, total: How often, of how many; total is positive.
      level: Coverage.
    Returns:
      (share, low, high).
    Raises:
      ValueError, TypeError: count or total is not an integer, count does not lie in
        0..total, or level not between 0 and 1.
    References:
      Wilson, Probable inference, the law of succession, and statistical inference, JASA
      22, 1927.
    Example:
      >>> print(np.round(share(5, 100), 3))
      [0.05  0.022 0.112]
    """
    check_share("level", level, 0.95)
    check_count("total", total)
    check_count("count", count, 0)
    if count > total:
        raise ValueError(
            "count is how often, of total: at most total; got "
            f"count={count}, total={total}."
        )
    interval = stats.binomtest(int(count), int(total)).proportion_ci(level, "wilson")
    return int(count) / int(total), float(interval.low), float(interval.high)


def tally(
    named: Int[np.ndarray, " studies"], truth: Int[np.ndarray, " studies"]
) -> dict[str, tuple[float, float, float]]:
    """Return how often studies name the right winner, the wrong one, and none.

    Args:
      named: MINE, OTHER or NONE, shape (studies,).
      truth: The same of the better rule; where both are equal, NONE, whoever is named
        is wrong.
    Returns:
      "right", "wrong" and "undecided", each a `share` with its interval.
    Example:
      >>> shares = tally(np.array([1, -1, 0, 1]), np.array([1, 1, 1, 0]))
      >>> {key: share[0] for key, share in shares.items()}
      {'right': 0.25, 'wrong': 0.5, 'undecided': 0.25}
    """
    named, truth = np.asarray(named), np.asarray(truth)
    if (
        named.shape != truth.shape
        or not np.isin([*named.ravel(), *truth.ravel()], (MINE, NONE, OTHER)).all()
    ):
        raise ValueError(
            "named and truth must be of one shape, each MINE, NONE or OTHER; got "
            f"{named!r} and {truth!r}."
        )
    decided = named != NONE
    right = decided & (named == truth)
    outcomes = {"right": right, "wrong": decided & ~right, "undecided": ~decided}
    return {key: share(each.sum(), len(each)) for key, each in outcomes.items()}


def _first_trials(side: SimulatedRuns, count: int) -> SimulatedRuns:
    return side._replace(
        tuning=side.tuning[:count],
        reported=side.reported[:count],
        costs=side.costs[:count],
    )


def _t_test(advantages: Float[np.ndarray, " seeds"], level: float) -> int:
    """Return the winner by Student's test of the mean.

    Where all differences are alike, any mean but 0 has a winner.
    """
    n = len(advantages)
    if n < 2:
        raise ValueError(f"a t-test needs two seeds or more; got {n}.")
    half = stats.t.isf((1 - level) / 2, n - 1) * advantages.std(ddof=1) / np.sqrt(n)
    return int(np.sign(advantages.mean())) if abs(advantages.mean()) > half else NONE
