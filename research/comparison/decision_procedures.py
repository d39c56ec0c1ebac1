"""Decision procedures: ways to name the better of two rules, on simulated studies."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from research.checks import check_count, check_share
from research.statistics.costs import expected_running_time
from research.statistics.differences import difference
from research.statistics.scores import Scores, choose

MINE, NONE, OTHER = 1, 0, -1  # The rule that is named the winner.


class MeasuredRuns(NamedTuple):
    """Runs of all trials of one rule on many seeds of a workload.

    A trial is a choice of hyper-parameters; trial 0 is the rule's defaults. There are t
    trials and s seeds. `simulate_study` makes studies from some of these runs.

    Attributes:
      scores: Passes over the data to the target, with a finite penalty for runs that
        missed the target (`penalised_passes`), shape (t, s). Lower is better.
      costs: Passes to the target, inf for a run that did not reach it, shape (t, s).
      budget: Number of passes after which a run was stopped. If the runs of two rules
        differ in length, give both the same budget, so that a missed target costs both
        the same.
    """

    scores: Float[np.ndarray, "trials seeds"]
    costs: Float[np.ndarray, "trials seeds"]
    budget: float


class SimulatedRuns(NamedTuple):
    """Runs of one rule in a simulated study: some of the measured trials and seeds.

    A trial is a choice of hyper-parameters. A `Procedure` chooses one trial of the
    rule, usually by the scores on the tuning seeds. It judges the rule by the scores or
    costs of this trial on the reporting seeds.

    There are t trials, m tuning seeds and n reporting seeds.

    Attributes:
      tuning: Scores on the tuning seeds, shape (t, m): passes to the target, with a
        finite penalty for runs that missed it (`penalised_passes`).
      reported: Scores on the reporting seeds, shape (t, n), with the same penalty.
      costs: The same as `reported`, shape (t, n), but inf for runs that missed the
        target.
      budget: Number of passes after which a run was stopped.
      trials: Row numbers of these trials in the measured runs, shape (t,). The default
        is an empty array, because the procedures do not use this field.
    """

    tuning: Float[np.ndarray, "trials tuning_seeds"]
    reported: Float[np.ndarray, "trials seeds"]
    costs: Float[np.ndarray, "trials seeds"]
    budget: float
    trials: Int[np.ndarray, " trials"] = np.arange(0)


class Procedure(NamedTuple):
    """A decision procedure: a way to name a winner.

    A trial is a choice of hyper-parameters. A procedure chooses one trial of each of
    two rules, and compares the two trials on the reporting seeds. The two rules are
    called my rule and the other rule. The score of a run is the number of passes over
    the data to the target, with a finite penalty if the run missed the target.

    Attributes:
      decide: Method of the decision. "lower mean" names the rule with the lower mean
        score, even if the difference is small. "t-test" names a rule only if the paired
        t-test on log scores rejects equality. "interval" names a rule only if the
        interval that `statistics.difference` gives for the ratio of the costs of the
        two rules excludes 1. This interval includes the uncertainty of the choice of
        the trial.
      seeds: Number of reporting seeds that are used; None means all. "interval" always
        uses all.
      held_out: Whether the trial is chosen on the tuning seeds. If False, the trial is
        chosen on the reporting seeds that are used. "interval" always uses the tuning
        seeds.
      others_trials: Number of trials of the other rule. The first of these trials is
        the defaults of the rule. None means the same number as for my rule.
      redrawn: Number of trials that each bootstrap replicate of the interval draws at
        random, with the defaults always among them. Because trials are drawn, the
        interval includes the variation between random searches. If both rules have the
        same number of trials, the same places in their lists of trials are drawn for
        both. If `redrawn` is None, every replicate uses all trials, and the interval is
        valid only for these trials. Only "interval" uses `redrawn`.
    """

    decide: str
    seeds: int | None = None
    held_out: bool = True
    others_trials: int | None = None
    redrawn: int | None = None


def procedures(few: int = 3, redrawn: int = 6) -> dict[str, Procedure]:
    """Return common decision procedures by name.

    A `Procedure` compares two rules, which are called my rule and the other rule. A
    trial is a choice of hyper-parameters.

    Args:
      few: Number of reporting seeds in the procedures "3 seeds" and "3 other seeds",
        and number of trials of the other rule in "mine tuned, other 3 trials". In these
        names, 3 stands for the value of `few`.
      redrawn: Number of trials that each bootstrap replicate of the procedure "trials
        redrawn" draws.
    Returns:
      {name: procedure}. The list has the names with few=3. Each name is followed by the
      criterion by which the procedure names the better rule. The trials are chosen on
      the tuning seeds, unless the list says that they are chosen on reporting seeds.

      - "one seed", "3 seeds": the lower mean on one or three reporting seeds, on which
        the trials are also chosen;
      - "3 other seeds": the lower mean on three reporting seeds;
      - "tuned on what is reported": a t-test on all reporting seeds, on which the
        trials are also chosen;
      - "mine tuned, other 3 trials", "mine tuned, other defaults": a t-test in which
        the other rule has only three trials, or only its defaults;
      - "choice left out": a t-test over the seeds, with the same number of trials for
        both rules. The test ignores the luck in the choice of the trials;
      - "fixed trials": the interval of `statistics.difference`, with all trials in each
        bootstrap replicate;
      - "trials redrawn": the interval of `statistics.difference`, with `redrawn` random
        trials in each bootstrap replicate.

      The field `decide` of a procedure is the kind of the criterion: "lower mean",
      "t-test" or "interval".
    Example:
      >>> list(procedures())[-2:]
      ['fixed trials', 'trials redrawn']
      >>> procedures()["fixed trials"].decide
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
        "fixed trials": Procedure("interval"),
        "trials redrawn": Procedure("interval", redrawn=redrawn),
    }


def true_cost(
    runs: MeasuredRuns, trials: Int[np.ndarray, " trials"] | slice = slice(None)
) -> float:
    """Return the expected running time of the trial that is best over all seeds.

    A trial is a choice of hyper-parameters. The best trial has the lowest mean score.

    Args:
      runs: Runs of the rule.
      trials: Row numbers of the trials among which the best is chosen; all by default.
    Returns:
      Expected running time in passes (`expected_running_time`), inf if no run of the
      trial reached the target.
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

    A trial is a choice of hyper-parameters. The study compares two rules, which are
    called my rule and the other rule.

    Args:
      measured: Runs of my rule and of the other rule, with the same number of trials
        and of seeds.
      generator: Random generator of the draws.
      trials: Number of trials of each rule. The first trial is trial 0, which has the
        default hyper-parameters. The other trials are drawn. The drawn trials are the
        same for both rules if other_trials is False.
      tuning_seeds, seeds: Number of tuning seeds and of reporting seeds to draw. The
        two sets of seeds are disjoint. They are the same for both rules if other_seeds
        is False.
      other_seeds: Whether the other rule gets other seeds than my rule.
      other_trials: Whether the other rule gets other trials than my rule, except for
        the defaults.
    Returns:
      The simulated runs of my rule and of the other rule.
    Raises:
      ValueError: The measured runs have too few trials or seeds.
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
            "the scores of both rules must have the same shape (trials, seeds); got "
            f"{(num_trials, num_seeds)} and {measured[1].scores.shape}."
        )
    for name, needed, there in (
        ("trials", 1 + search * (1 + other_trials), num_trials),
        ("seeds", each * (1 + other_seeds), num_seeds),
    ):
        if needed > there:
            raise ValueError(
                f"the study draws {needed} {name}, but only {there} were measured. "
                "Measure more, or draw fewer."
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
      procedure: Way to decide which of two rules is better, a `Procedure`.
      mine, other: Runs of the two rules in one study. Column i of an array belongs to
        the same seed for both rules.
      level: Coverage of the interval, if procedure.decide is "interval". If it is
        "t-test", the significance level is 1 - level.
      resamples, seed: Number of bootstrap resamples, and seed of the resampling.
    Returns:
      MINE = 1, OTHER = -1, or NONE = 0 if the procedure does not decide. With
      procedure.decide = "lower mean", the result is NONE only if the two mean scores
      are equal.
    Raises:
      ValueError: `procedure.decide` is unknown, `level` is not between 0 and 1, or a
        t-test has only one seed.
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
        "decide must be 'lower mean', 't-test' or 'interval'; got "
        f"{procedure.decide!r}."
    )


def reported(procedure: Procedure, side: SimulatedRuns) -> Float[np.ndarray, " seeds"]:
    """Return the reported scores of the trial that a procedure chooses.

    `side` has the runs of one rule in a study. The procedure chooses a trial of this
    rule. The scores are those of this trial on the reporting seeds that the procedure
    uses, shape (seeds,). In the example, the procedure uses one reporting seed. The
    tuning seeds favour trial 0, and the reporting seed favours trial 1. With
    held_out=True, the procedure chooses by the tuning seeds, and otherwise by the
    reporting seed.

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
      count: Number of successes.
      total: Number of observations, positive.
      level: Coverage of the interval.
    Returns:
      The triple (share, low, high).
    Raises:
      ValueError, TypeError: count or total is not an integer, count is not in 0..total,
        or level is not between 0 and 1.
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
            f"count must be at most total; got count={count}, total={total}."
        )
    interval = stats.binomtest(int(count), int(total)).proportion_ci(level, "wilson")
    return int(count) / int(total), float(interval.low), float(interval.high)


def tally(
    named: Int[np.ndarray, " studies"], truth: Int[np.ndarray, " studies"]
) -> dict[str, tuple[float, float, float]]:
    """Return the shares of studies with the right winner, the wrong one, and no winner.

    Args:
      named: Winner that a procedure named in each study, shape (studies,): MINE = 1 (my
        rule), OTHER = -1 (the other rule) or NONE = 0 (no winner).
      truth: The rule that is truly better in each study, as one of these numbers, shape
        (studies,). NONE means that both rules are equal. Every named winner is then
        wrong.
    Returns:
      A dict with the keys "right", "wrong" and "undecided". Each value is the triple
      (share of these studies, low, high) that `share` returns.
    Raises:
      ValueError: The shapes differ, or an entry is not MINE, NONE or OTHER.
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
            "named and truth must have the same shape, with entries MINE, NONE or "
            f"OTHER; got {named!r} and {truth!r}."
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
    """Return the winner by Student's t-test of the mean advantage.

    The advantage on a seed is the log score of the other rule minus that of my rule. If
    all advantages are equal, the t statistic is undefined. Then there is a winner
    unless the advantages are 0.
    """
    n = len(advantages)
    if n < 2:
        raise ValueError(f"a t-test needs at least two seeds; got {n}.")
    half = stats.t.isf((1 - level) / 2, n - 1) * advantages.std(ddof=1) / np.sqrt(n)
    return int(np.sign(advantages.mean())) if abs(advantages.mean()) > half else NONE
