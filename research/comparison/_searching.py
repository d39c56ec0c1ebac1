"""Train the runs that the searches of a rule need, and report the choices."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from research import descent
from research.comparison.checking import OBJECTIVE_ERROR, num_examples, sampler_of
from research.comparison.contenders import Contender
from research.comparison.protocol import Protocol
from research.statistics.costs import (
    epochs_within,
    full_length,
    passes_to_target,
    search_scores,
)
from research.tuning.search import (
    RACING_SEEDS,
    SCREENING_SEEDS,
    Runs,
    Search,
    Searched,
    most_runs,
    search,
)
from research.tuning.spaces import Range, Space, edges
from research.tuning.timing import time_alone
from research.types import Checkpoints, Sampler, Workload
from research.workloads import known_optimum

SEARCH_SHARE = 0.9  # Share of the searches in the work of a measurement, for progress.

BEYOND = 1e-9  # Share of the width of a range that is rounding.

# Factors of the chosen rate at which the rule is trained again. They only show how much
# the rate matters; no trial is chosen among them.
AROUND = 2.0 ** np.arange(-4, 4.5, 0.5)

Trials = Mapping[str, Float[np.ndarray, " trials"]]  # Values by hyper-parameter.
OnProgress = Callable[[float, float, str], None]
OnChunk = Callable[[descent.SweepProgress], None]
Score = Callable[
    [descent.SweepResult],
    tuple[Float[np.ndarray, " runs"], Bool[np.ndarray, " runs"]],
]


def start_searches(
    space: Mapping[str, Range], protocol: Protocol, workload: str, rule: str
) -> list[Search]:
    """Create the searches of a rule on a workload, each with its own trials and seeds.

    A trial is a choice of hyper-parameters. The seed of the random trials depends on
    the names of the rule and of the workload. The random trials of two rules are
    therefore independent.

    Args:
      space: Search space of the rule. If it is empty, there is one search, which has
        only one trial.
      protocol: Protocol of the comparison.
      workload, rule: Names of the workload and of the rule.
    Returns:
      The searches, as a list of generators. `search_all` runs them.
    """
    name = f"{workload}/{rule}".encode()
    key = int.from_bytes(hashlib.sha256(name).digest()[:8], "big")
    return [
        search(
            space,
            protocol.budget,
            protocol.seeds_of_search(number),
            np.random.default_rng([protocol.search_seed, key, number]),
        )
        for number in range(protocol.searches if space else 1)
    ]


def tuning_score(searched: Searched) -> float:
    """Return the mean score of the trial that a search chose.

    A trial is a choice of hyper-parameters. The chosen trial is run on each tuning seed
    of the search, and each run has a score. A lower score is better. The mean is over
    these runs.
    """
    return float(searched.scores[searched.chosen].mean())


def best_search(searches: Sequence[Searched]) -> Searched:
    """Return the search whose chosen trial has the lowest score (`tuning_score`).

    A trial is a choice of hyper-parameters.
    """
    return searches[int(np.argmin([tuning_score(one) for one in searches]))]


class Evaluate:
    """Callable that trains the runs that searches need, and counts these runs.

    Args:
      program: Compiled program of the trainings.
      score: Function (result of `descent.sweep`) -> (score of each run, whether each
        run diverged).
      protocol: Protocol of the comparison.
      on_chunk: Function that is called with the progress of the searches, or None.
      checkpoints: Storage for unfinished runs.
    Attributes:
      trained: Number of runs so far.
      screened: Number of runs in the screening. In the screening, each search runs all
        trials (choices of hyper-parameters) with which it starts.
      diverged: Number of the runs in the screening that diverged.
    """

    def __init__(
        self,
        program: descent.SweepProgram,
        score: Score,
        protocol: Protocol,
        *,
        on_chunk: OnChunk | None,
        checkpoints: Checkpoints,
    ) -> None:
        self.program, self.score, self.on_chunk = program, score, on_chunk
        self.checkpoints = checkpoints
        self.trained = self.screened = self.diverged = 0
        searched = bool(program.hyperparameters)
        seeds = len(protocol.tuning_seeds) // protocol.searches
        self.most = (protocol.searches if searched else 1) * most_runs(
            protocol.budget if searched else 1, seeds
        )

    def __call__(self, asked: list[Runs]) -> list[Float[np.ndarray, " runs"]]:
        """Return the scores of the runs of each search."""
        seeds = np.concatenate([runs.seeds for runs in asked])
        values = {
            name: np.concatenate([runs.values[name] for runs in asked])
            for name in self.program.hyperparameters
        }
        result = descent.sweep(
            self.program,
            {"seed": seeds, **values},
            self._tell(self.trained, len(seeds)),
            self.checkpoints,
        )
        scores, bad = self.score(result)
        if not self.trained:  # The first runs of all searches are the screening.
            self.screened, self.diverged = len(seeds), int(bad.sum())
        self.trained += len(seeds)
        ends = np.cumsum([len(runs.seeds) for runs in asked])[:-1]
        return np.split(scores, ends)

    def _tell(self, done: int, now: int) -> OnChunk | None:
        if self.on_chunk is None:
            return None
        on_chunk, most = self.on_chunk, self.most / SEARCH_SHARE
        return lambda progress: on_chunk(
            progress._replace(share=min(0.99, (done + now * progress.share) / most))
        )


class Outcomes(NamedTuple):
    """Results of runs on the reporting seeds.

    A point is a choice of hyper-parameters. Each array has one row for each point. The
    reporting seeds are the seeds that no search uses (`Protocol`).

    f is the objective on the part of the data on which results are reported
    (`Protocol.reported_on`). f_0 is the initial value of f, and f* the value of f at
    the optimum of the training part. The relative gap is (f - f*) / (f_0 - f*).

    Attributes:
      costs: Passes over the data until the relative gap falls to `Protocol.target`, inf
        for a run that did not reach the target, shape (points, seeds).
      curves: Relative gap at each evaluation, shape (points, seeds, evaluations). A gap
        that is not finite is stored as inf.
    """

    costs: Float[np.ndarray, "points seeds"]
    curves: Float[np.ndarray, "points seeds evaluations"]


class Setting(NamedTuple):
    """Settings that all trainings of a contender on a workload share.

    Attributes:
      workload: The workload.
      contender: The rule and its search space.
      protocol: Protocol of the comparison.
      program: Compiled program of the trainings.
      sampler: Sampler of the training data.
      num_epochs: Number of epochs of a training.
      checkpoints: Storage for unfinished runs.
      best: Value f* of the objective at the optimum of the training part, on each part
        of the data that the protocol uses.
    """

    workload: Workload
    contender: Contender
    protocol: Protocol
    program: descent.SweepProgram
    sampler: Sampler
    num_epochs: int
    checkpoints: Checkpoints
    best: dict[str, float]


def compile_setting(
    workload: Workload,
    contender: Contender,
    protocol: Protocol,
    checkpoints: Checkpoints,
) -> Setting:
    """Compile the program of all trainings of a contender on a workload.

    A contender is a rule with its search space. The returned `Setting` has the program,
    the arguments of this function, the sampler and the number of epochs. `checkpoints`
    is the storage for unfinished runs.
    """
    sampler = sampler_of(workload, protocol.batch_size)
    # `check_trials` guarantees that the number of epochs is at least one.
    num_epochs = epochs_within(protocol.passes, contender.evaluations)
    program = descent.compile_sweep(
        workload,
        contender.make_rule,
        sampler,
        num_epochs,
        hyperparameters=tuple(contender.space),
        width=protocol.width,
        evaluate_on=(protocol.tune_on, protocol.reported_on),
    )
    best = {
        part: _value_at_optimum(workload, part)
        for part in (protocol.tune_on, protocol.reported_on)
    }
    return Setting(
        workload, contender, protocol, program, sampler, num_epochs, checkpoints, best
    )


def _value_at_optimum(workload: Workload, part: str) -> float:
    """Return the objective on a part of the data, at the training part's optimum."""
    optimum = known_optimum(workload)
    if part == "train":
        return optimum.value
    return float(workload.objective(optimum.params, getattr(workload, part)))


def score(
    setting: Setting, result: descent.SweepResult
) -> tuple[Float[np.ndarray, " runs"], Bool[np.ndarray, " runs"]]:
    """Return the score by which a search ranks each run, and whether the run diverged.

    A lower score is better. `search_scores` computes the scores from the objective on
    one part of the data. The field `tune_on` of the protocol in `setting` names this
    part. The length of a full training (`full_length`) is passed as the `budget` of
    `search_scores`. It is the same for all rules on a workload, so scores of different
    rules are comparable. `result` is the result of `descent.sweep`, which trained the
    runs. Both returned arrays have the shape (runs,).
    """
    part, protocol = setting.protocol.tune_on, setting.protocol
    evaluations = setting.contender.evaluations
    gaps = _relative_gaps(setting, part, result.values_on[part])
    passes = result.passes * evaluations
    budget = full_length(float(passes[-1]), protocol.passes, evaluations)
    bad = (result.first_bad_step >= 0) | ~np.isfinite(gaps[:, -1])
    return search_scores(passes, gaps, protocol.target, budget), bad


def _relative_gaps(
    setting: Setting, part: str, values: Float[np.ndarray, "runs evaluations"]
) -> Float[np.ndarray, "runs evaluations"]:
    """Return (f - f*) / (f_0 - f*) on a part of the data.

    f is the objective on this part of the data, f_0 its initial value, and f* its value
    at the optimum of the training part. On the training part, f may be below f* by at
    most a tenth of target · (f_0 - f*), plus a rounding error. A lower value raises
    ValueError.
    """
    best, target = setting.best[part], setting.protocol.target
    # On held-out data the initial gap may not be positive; then no share is defined.
    initial = values[:, :1] - best
    if part == "train":
        allowed = np.maximum(initial, 0.0) * target / 10
        _check_lowest(setting.workload, values, best, allowed)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        return np.where(initial > 0, (values - best) / initial, np.nan)


def _check_lowest(
    workload: Workload, values: np.ndarray, best: float, allowed: np.ndarray
) -> None:
    lowest = np.nanmin(values + allowed, initial=np.inf)
    if lowest < best - OBJECTIVE_ERROR * abs(best):
        raise ValueError(
            f"workload {workload.name!r}: a training reached the objective "
            f"{np.nanmin(values):.9g}, which is below optimum.value={best:.9g}. This "
            "is not the minimum; solve for the optimum again."
        )


def report_choices(
    setting: Setting, searches: Sequence[Searched]
) -> tuple[Outcomes, Float[np.ndarray, " evaluations"]]:
    """Train a rule with the choice of each search, and with the default choice.

    A choice is a value for each hyper-parameter. With each choice, the rule is trained
    on all reporting seeds, which no search uses (`Protocol`).

    Return the outcomes, and the passes over the data at each evaluation. The outcomes
    have one row for each search, and a last row for the defaults.
    """
    values = {
        name: np.array(
            [one.chosen_values[name] for one in searches]
            + [searches[0].values[name][0]]
        )
        for name in setting.contender.space
    }
    return train_on_seeds(setting, values, len(searches) + 1)


def train_on_seeds(
    setting: Setting, values: Trials, count: int, on_chunk: OnChunk | None = None
) -> tuple[Outcomes, Float[np.ndarray, " evaluations"]]:
    """Train trials on the reporting seeds.

    A trial is a choice of hyper-parameters. The reporting seeds are the seeds that no
    search uses (`Protocol`).

    `values` is a dict from the name of each hyper-parameter to its values in the
    `count` trials, shape (count,). Return the outcomes of the trials, and the passes
    over the data at each evaluation.
    """
    protocol, part = setting.protocol, setting.protocol.reported_on
    result = sweep_trials(
        setting.program, values, count, protocol.seeds, on_chunk, setting.checkpoints
    )
    passes = result.passes * setting.contender.evaluations
    reported = _relative_gaps(setting, part, result.values_on[part]).reshape(
        count, len(protocol.seeds), -1
    )
    costs = passes_to_target(passes, reported, protocol.target)
    curves = np.where(np.isfinite(reported), reported, np.inf)
    return Outcomes(costs, curves), passes


def sweep_trials(
    program: descent.SweepProgram,
    values: Trials,
    count: int,
    seeds: Sequence[int],
    on_chunk: OnChunk | None,
    checkpoints: Checkpoints,
) -> descent.SweepResult:
    """Train `count` trials on each given seed; the runs of a trial are adjacent.

    A trial is a choice of hyper-parameters. `values` has the values of each
    hyper-parameter in the trials, by name. The other arguments are those of
    `descent.sweep`.
    """
    columns = {name: np.repeat(column, len(seeds)) for name, column in values.items()}
    runs = {"seed": np.tile(seeds, count), **columns}
    return descent.sweep(program, runs, on_chunk, checkpoints)


def train_around(
    setting: Setting, searched: Searched, rate: str
) -> dict[str, Float[np.ndarray, "..."]]:
    """Train a rule at learning rates around the rate that a search chose.

    `searched` is the result of this search, and `rate` is the name of the learning
    rate. The rates are 2^-4, 2^-3.5, ..., 2^4 times the chosen rate. All other
    hyper-parameters have the values that the search chose. The seeds are the first ten
    tuning seeds of search 0, even if `searched` is from another search. If search 0 has
    fewer than ten, all its tuning seeds are used. The result is a dict with two arrays:
    `rates`, shape (r,), and `rate_scores`, the log costs of the rates on the seeds,
    shape (r, seeds).
    """
    seeds = setting.protocol.seeds_of_search(0)[:RACING_SEEDS]
    values = {
        name: np.full(len(AROUND), value)
        for name, value in searched.chosen_values.items()
    }
    values[rate] *= AROUND
    result = sweep_trials(
        setting.program, values, len(AROUND), seeds, None, setting.checkpoints
    )
    scores, _ = score(setting, result)
    return {"rates": values[rate], "rate_scores": scores.reshape(len(AROUND), -1)}


def rate_name(space: Mapping[str, Range]) -> str | None:
    """Return the name of the hyper-parameter that is taken as the learning rate.

    `space` has the search range of each hyper-parameter. If `space` has a range for
    "learning_rate", the result is "learning_rate". Otherwise the result is the name of
    the first range with a log scale, or None if there is no such range.
    """
    if "learning_rate" in space:
        return "learning_rate"
    return next((name for name, range_ in space.items() if range_.scale == "log"), None)


def outside(space: Space, chosen: Mapping[str, float]) -> list[str]:
    """Return the names of the hyper-parameters whose values are outside their ranges.

    `space` has the ranges, and `chosen` the values. Each name is followed by "low" if
    the value is below the range, and by "high" if the value is above. A value at an end
    is inside.

    Example:
      >>> from research.tuning import Range
      >>> space = {"learning_rate": Range(0.01, 1.0)}
      >>> outside(space, {"learning_rate": 1.2}), outside(space, {"learning_rate": 1.0})
      (['learning_rate, high'], [])
    """
    return [f"{name}, {side}" for name, side in edges(space, chosen, -BEYOND)]


def search_arrays(
    searches: Sequence[Searched],
    outcomes: Outcomes,
    passes: Float[np.ndarray, " evaluations"],
) -> dict[str, np.ndarray]:
    """Return the arrays of all searches of a rule, under the names that a study uses.

    A study is a comparison of rules. The result is a dict from names, such as "trials"
    and "costs", to arrays. The docstring of `measure_contender` explains these arrays.
    `outcomes` and `passes` are the results of `report_choices`.
    """
    count = searches[0].screened
    points = [
        np.stack([*one.values.values()], 1) if one.values else np.empty((count, 0))
        for one in searches
    ]
    seeds = min(SCREENING_SEEDS, searches[0].scores.shape[1])
    chosen = outcomes.curves[:-1]
    return {
        "trials": np.stack([own[:count] for own in points]),
        "screening": np.stack([one.scores[:count, :seeds] for one in searches]),
        "chosen": np.stack(
            [own[one.chosen] for own, one in zip(points, searches, strict=True)]
        ),
        "tuning": np.array([tuning_score(one) for one in searches]),
        "costs": outcomes.costs[:-1],
        "final": chosen[..., -1],
        "default_costs": outcomes.costs[-1],
        "passes": passes,
        "curves": chosen.reshape(-1, chosen.shape[-1]),
    }


def yardstick(workload: Workload, protocol: Protocol) -> dict[str, Any]:
    """Return the initial value and the minimum of the objective on the training part.

    The result is {"initial": f_0, "optimum": f*}. f_0 is the value at the initial point
    of the first reporting seed, and f* is the minimum. Two studies of the same workload
    with the same first reporting seed have the same f_0 and f*.
    """
    start = jax.random.fold_in(jax.random.key(protocol.seeds[0]), descent.INIT)
    initial = float(workload.objective(workload.init(start), workload.train))
    return {"initial": initial, "optimum": known_optimum(workload).value}


def seconds_per_pass(setting: Setting, chosen: Mapping[str, float]) -> float:
    """Return the seconds that a training takes for a pass over the data.

    In a pass, the rule evaluates the objective on as many examples as the training part
    has. The training runs alone, not in a batch of runs. `setting` has the rule and the
    workload. `chosen` is a dict from the names of the hyper-parameters to their values.
    """
    workload, contender, sampler = setting.workload, setting.contender, setting.sampler
    timing = time_alone(
        workload,
        contender.make_rule,
        sampler,
        chosen,
        max(1, setting.num_epochs // 10),
    )
    passes = (
        sampler.num_batches
        * sampler.batch_size
        / num_examples(workload)
        * contender.evaluations
    )
    return timing.seconds_per_epoch / passes
