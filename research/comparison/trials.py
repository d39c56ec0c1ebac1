"""Train every trial of every rule on every seed of every workload."""

import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from research import descent, runs, samplers, workloads
from research.checks import (
    check_callable,
    check_count,
    check_flag,
    check_instance,
    check_sequence,
    check_tree,
)
from research.comparison.contenders import Contender
from research.comparison.measurements import measurement
from research.comparison.protocol import Protocol
from research.descent._sweep_program import check_workload
from research.runs.files import canonical
from research.statistics.costs import passes_to_target, penalised_passes
from research.statistics.scores import choose
from research.tuning.spaces import Range, added_trials, edges, trials, widen
from research.tuning.timing import time_alone
from research.types import (
    Array,
    Batch,
    Checkpoints,
    Params,
    Sampler,
    Saved,
    Workload,
    no_checkpoints,
)
from research.workloads import known_optimum

OnProgress = Callable[[float, float, str], None]
OnChunk = Callable[[descent.SweepProgress], None]
Trials = Mapping[str, Float[np.ndarray, " trials"]]  # Values by hyper-parameter.

MOST_WIDENINGS = 2
# Factors of the chosen rate at which the rule is trained again. They only show how much
# the rate matters; no trial is chosen among them.
AROUND = 2.0 ** np.arange(-4, 4.5, 0.5)
CONTENDER_HINT = "Make one by research.comparison.make_contenders(rules)."
PROTOCOL_HINT = "Make one by research.comparison.make_protocol()."
WORKLOAD_HINT = "Make one by research.workloads.make_workload(name)."


class Outcomes(NamedTuple):
    """Results of trials on each seed.

    Attributes:
      tuning: Scores on the tuning seeds, lower is better, shape (trials, tuning seeds).
      costs: Passes to the target on the reporting seeds, inf for a run that did not
        reach it, shape (trials, seeds).
      curves: Relative gaps on the reporting seeds, shape (trials, seeds, evaluations).
      diverged: Whether each run on a tuning seed diverged, shape (trials, tuning
        seeds).
    """

    tuning: Float[np.ndarray, "trials tuning_seeds"]
    costs: Float[np.ndarray, "trials seeds"]
    curves: Float[np.ndarray, "trials seeds evaluations"]
    diverged: Bool[np.ndarray, "trials tuning_seeds"]


class Search(NamedTuple):
    """The trials of a contender on a workload, and the chosen trial.

    Attributes:
      space: Final search space. It is wider than the first one if a chosen trial was at
        an edge.
      trials: Values by hyper-parameter, each of shape (trials,).
      count: Number of trials; 1 if the rule has no hyper-parameter to search.
      outcomes: Results of the trials.
      passes: Passes over the data at each evaluation, shape (evaluations,).
      chosen: Row of the chosen trial.
      widened: Number of times that the space was widened.
      at_edges: Edges at which the chosen trial still lies, such as "momentum, high".
    """

    space: dict[str, Range]
    trials: dict[str, np.ndarray]
    count: int
    outcomes: Outcomes
    passes: Float[np.ndarray, " evaluations"]
    chosen: int
    widened: int = 0
    at_edges: tuple[str, ...] = ()

    @property
    def chosen_values(self) -> dict[str, float]:
        """Values of the chosen trial, by hyper-parameter."""
        return {
            name: float(values[self.chosen]) for name, values in self.trials.items()
        }


class _Setting(NamedTuple):
    """Settings that all trainings of a contender on a workload share."""

    workload: Workload
    contender: Contender
    protocol: Protocol
    program: descent.SweepProgram
    sampler: Sampler
    num_epochs: int
    checkpoints: Checkpoints


def make_workloads(given: str | Workload | Sequence[str | Workload]) -> list[Workload]:
    """Make the workloads with the given names; a `Workload` is returned unchanged.

    Args:
      given: One workload or name, or a sequence of them.
    Returns:
      The workloads, in the same order.
    Raises:
      ValueError: The sequence is empty, two workloads have the same name, or a name is
        unknown.
    Example:
      >>> [workload.name for workload in make_workloads(["quadratic", "rosenbrock"])]
      ['quadratic', 'rosenbrock']
    """
    if not isinstance(given, str | Workload):
        check_sequence("given", given, "workloads or their names", (str, Workload))
    if isinstance(given, str | Workload):
        given = [given]
    made = [
        workloads.make_workload(one) if isinstance(one, str) else one
        for one in cast(Sequence, given)
    ]
    names = [workload.name for workload in made]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"workload must name at least one workload, each once; got {names}."
        )
    return made


def sampler_of(workload: Workload, batch_size: int | None) -> Sampler:
    """Make the sampler of a comparison for a workload.

    Args:
      workload: A workload. If it has no data, its sampler is the full batch.
      batch_size: Examples in a mini-batch; None: full batch.
    Returns:
      The sampler.
    Raises:
      ValueError: The workload has fewer examples than `batch_size`.
    """
    check_instance("workload", workload, Workload, WORKLOAD_HINT)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    n = _num_examples(workload)
    if workload.train is None or batch_size is None:
        return samplers.full_batch(n)
    if batch_size > n:
        raise ValueError(
            f"batch_size={batch_size} is larger than the {n} examples of "
            f"{workload.name}. Use at most {n}, or None for all of them (--batch-size "
            "0)."
        )
    return samplers.minibatch(n, batch_size)


def check_trials(
    protocol: Protocol, contenders: Sequence[Contender], workload: Workload
) -> None:
    """Raise an error for trials that cannot be trained, before anything is compiled.

    Args:
      protocol, contenders: As for `measure_contenders`.
      workload: One of the workloads.
    Raises:
      ValueError, TypeError: The workload lacks a part, its optimum is not known, or a
        step of a contender cannot be traced.
    """
    known_optimum(workload)
    sampler_of(workload, protocol.batch_size)
    for part in (protocol.tune_on, protocol.reported_on):
        if part != "train" and getattr(workload, part) is None:
            raise ValueError(
                f"workload {workload.name!r} has no {part} part. Use tune_on='train', "
                "which needs none."
            )
    params = jax.eval_shape(workload.init, jax.random.key(0))
    for contender in contenders:
        if contender.evaluations > protocol.passes:
            raise ValueError(
                f"passes={protocol.passes} is less than one epoch of {contender.name}, "
                f"whose step costs {contender.evaluations:g} gradients. Use at least "
                f"passes={math.ceil(contender.evaluations)}."
            )
        check_contender(contender, params, workload.objective, workload.train)


def check_contender(
    contender: Contender,
    params: Params,
    objective: Callable[[Params, Any], Array],
    batch: Batch | None = None,
) -> int:
    """Check a contender by tracing one step of it, as a sweep does, without compiling.

    Args:
      contender: Result of `make_contenders`.
      params: Parameters that a step updates, as arrays or as their shapes and dtypes.
      objective: Function (params, batch) -> value of shape ().
      batch: The training data, or None for an objective without data.
    Returns:
      Number of times that the code of a step evaluates the objective, in addition to
      the gradient that it receives. An evaluation in a loop counts once.
    Raises:
      RuleError: The rule raised an error when it was made, also at either end of its
        ranges, or when it was traced.
      NoRuleError: The contender is not an update rule, or it changes the structure,
        shape or dtype of updates or state.
      ValueError: The rule evaluates the objective itself, and the cost of its step was
        not stated.
    Example:
      >>> from research.comparison import make_contenders
      >>> (adam,) = make_contenders(["adam"])
      >>> check_contender(adam, jnp.zeros(3), lambda x, batch: jnp.sum(x**2))
      0
    """
    check_instance("contender", contender, Contender, CONTENDER_HINT)
    check_callable("objective", objective, "params", "batch")
    check_tree("params", params)
    descent.check_dataset("batch", batch)
    # A rule cannot check the value of a tracer, so both ends are tried as numbers.
    for end in ("low", "high"):
        ends = {n: np.float64(getattr(r, end)) for n, r in contender.space.items()}
        contender.make_rule(**ends)
    on_all = _trace_step(contender, params, objective, batch)
    own = len(on_all) - 1
    if own > 0 and not contender.stated and contender.evaluations == 1:
        raise ValueError(_unstated(contender.name, own, sum(on_all)))
    return own


def _trace_step(
    contender: Contender,
    params: Params,
    objective: Callable[[Params, Any], Array],
    batch: Batch | None,
) -> list[bool]:
    """Trace a step and list the evaluations of the objective.

    The list has one entry for each evaluation: whether it uses all examples.
    """
    batch_size, num_runs, on_all = 2, 2, []

    def counted(params: Params, batch: Any) -> Array:
        n = 0 if batch is None else len(jax.tree.leaves((batch.x, batch.y))[0])
        on_all.append(n > batch_size)
        return objective(params, batch)

    def step(hyperparameters: Mapping[str, Any], params: Params, indices: Any) -> Any:
        rule = contender.make_rule(**hyperparameters)
        descended = descent.build(counted, rule, batch)
        start = descended.init(params)
        return descended.step(start, descent.BatchIndices(indices))

    hyperparameters = {
        name: jax.ShapeDtypeStruct((num_runs,), jnp.result_type(float))
        for name in contender.space
    }
    params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((num_runs, *jnp.shape(x)), jnp.result_type(x)),
        params,
    )
    indices = None if batch is None else jax.ShapeDtypeStruct((batch_size,), np.int32)
    jax.eval_shape(
        jax.vmap(step, in_axes=(0, 0, None)), hyperparameters, params, indices
    )
    return on_all


def _unstated(name: str, own: int, whole: int) -> str:
    times = "1 time" if own == 1 else f"{own} times"
    of_all = (
        f" ({whole} of them on all examples, n / batch_size gradients each)"
        if whole
        else ""
    )
    return (
        f"{name} evaluates the objective itself, {times} a step{of_all}. State the "
        f"cost of a step in gradients: evaluations={{{name!r}: {own + 1}}} "
        f"(--evaluations {name}={own + 1})."
    )


def measure_contenders(
    protocol: Protocol,
    contenders: Sequence[Contender],
    workloads: Sequence[Workload],
    *,
    timed: bool = True,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints = no_checkpoints,
) -> dict[tuple[str, str], Saved]:
    """Measure every contender on every workload.

    Args:
      protocol, contenders: Results of `plan`.
      workloads: Result of `make_workloads`.
      timed, on_progress, checkpoints: As for `compare`.
    Returns:
      {(workload, rule): measurement}, the input of `conclude` and `leader`.
    Example:
      >>> from research.comparison import conclude, plan
      >>> terms = {"budget": 2, "passes": 20, "seeds": 3, "tuning_seeds": 3}
      >>> rules = ["gradient_descent", "adam"]
      >>> protocol, contenders = plan(rules, "quadratic", **terms)
      >>> measurements = measure_contenders(
      ...     protocol, contenders, make_workloads("quadratic"), timed=False
      ... )
      >>> list(measurements)
      [('quadratic', 'gradient_descent'), ('quadratic', 'adam')]
      >>> measurements["quadratic", "adam"].arrays["costs"].shape[1]
      3
      >>> study = conclude(protocol, "adam", contenders, measurements)
      >>> study.numbers["overall"][0]["rule"]
      'gradient_descent'
    """
    check_instance("protocol", protocol, Protocol, "Take it from plan.")
    check_sequence("contenders", contenders, "contenders", Contender)
    check_sequence("workloads", workloads, "workloads", Workload)
    check_flag("timed", timed)
    _check_callbacks(on_progress, checkpoints)
    products = list(itertools.product(workloads, contenders))
    measurements = {}
    for done, (workload, contender) in enumerate(products):
        label = f"{contender.name} on {workload.name}"
        if on_progress is not None:
            on_progress(done, len(products), label)
        measurements[workload.name, contender.name] = _remembered(
            workload,
            contender,
            protocol,
            timed=timed,
            on_chunk=_on_chunk(on_progress, done, len(products), label),
            checkpoints=checkpoints,
        )
    if on_progress is not None:
        on_progress(len(products), len(products), "statistics")
    return measurements


def measure_share(
    protocol: Protocol,
    contenders: Sequence[Contender],
    workloads: Sequence[Workload],
    part: int,
    parts: int,
    *,
    timed: bool,
    checkpoints: Checkpoints,
) -> None:
    """Measure one share of the pairs (workload, contender).

    The share is every `parts`-th pair, starting at number `part`.

    Args:
      protocol, contenders, workloads, timed: As for `measure_contenders`.
      part: Number of this share, from 0 to parts - 1.
      parts: Number of shares.
      checkpoints: Storage for the measurements.
    """
    _check_callbacks(None, checkpoints)
    for workload, contender in list(itertools.product(workloads, contenders))[
        part::parts
    ]:
        _remembered(workload, contender, protocol, timed=timed, checkpoints=checkpoints)


def _check_callbacks(on_progress: OnProgress | None, checkpoints: Checkpoints) -> None:
    if on_progress is not None:
        check_callable("on_progress", on_progress, "done", "total", "message")
    check_callable("checkpoints", checkpoints, "name")


def _on_chunk(
    on_progress: OnProgress | None, done: int, total: int, label: str
) -> OnChunk | None:
    if on_progress is None:
        return None
    return lambda progress: on_progress(
        done + progress.share, total, f"{progress}: {label}"
    )


def _remembered(
    workload: Workload,
    contender: Contender,
    protocol: Protocol,
    *,
    checkpoints: Checkpoints,
    **options: Any,
) -> Saved:
    """Return the result of `measure_contender`, from its checkpoint if there is one."""
    terms = canonical(
        {
            "protocol": protocol._asdict(),
            "space": contender.space,
            "evaluations": contender.evaluations,
        }
    )
    digest = hashlib.sha256(terms.encode()).hexdigest()[:8]
    return runs.remembered(
        checkpoints,
        f"{workload.name}/{contender.name} {digest}",
        lambda parts: measure_contender(
            workload, contender, protocol, checkpoints=parts, **options
        ),
    )


def measure_contender(
    workload: Workload,
    contender: Contender,
    protocol: Protocol,
    *,
    timed: bool = True,
    on_chunk: OnChunk | None = None,
    checkpoints: Checkpoints = no_checkpoints,
) -> Saved:
    """Train every trial of a contender on every seed of a workload.

    If the chosen trial lies at the edge of a range, the range grows by a third on that
    side, and a third more trials are added there. This happens at most twice. The edge
    is the outer tenth of a range; with fewer than ten trials, the outer 1 / budget, at
    most a quarter. With a budget of one trial only the defaults are trained.

    Args:
      workload: Workload with the parts of the data that the protocol needs.
      contender: The rule and its search space.
      protocol: Protocol of the comparison.
      timed: Whether to time one training of the chosen trial alone. This needs another
        compilation.
      on_chunk: Function that is called with the progress of the search; its `share` is
        the share of the whole search that is done.
      checkpoints: Storage for unfinished runs. The caller makes it specific to this
        rule and workload.
    Returns:
      Arrays and values of the measurement. The arrays are `trials` (t, h), `tuning`
      (t, m), `costs` and `final` (t, n), `passes` (k,), `curves` (n, k) of the chosen
      trial, `best_of` (t, 3), `rates` (r,) around the chosen rate, and their tuning
      scores `rate_scores` (r, m). The values are facts for JSON; they become an entry
      of `cells` in a study.
    Raises:
      ValueError: The workload lacks a part, or its optimum is not known.
    """
    check_workload("workload", workload)
    check_instance("contender", contender, Contender, CONTENDER_HINT)
    check_instance("protocol", protocol, Protocol, PROTOCOL_HINT)
    check_flag("timed", timed)
    if on_chunk is not None:
        check_callable("on_chunk", on_chunk, "progress")
    check_callable("checkpoints", checkpoints, "name")
    known_optimum(workload)
    setting = _compile(workload, contender, protocol, checkpoints)
    search = _search(setting, on_chunk)
    rate = rate_name(search.space)
    nearby = {} if rate is None else _train_around(setting, search, rate)
    per_pass = _seconds_per_pass(setting, search.chosen_values) if timed else None
    facts = {
        "workload": workload.name,
        "rule": contender.name,
        "n": _num_examples(workload),
        "hyperparameters": list(search.trials),
        "chosen": search.chosen_values,
        "trials": search.count,
        "widened": search.widened,
        "edges": list(search.at_edges),
        "evaluations": contender.evaluations,
        "diverged": float(search.outcomes.diverged[: protocol.budget].mean()),
        "rate_name": rate,
        "compile_seconds": setting.program.compile_seconds,
        "seconds_per_pass": per_pass,
        **_yardstick(workload, protocol),
    }
    batch_size = setting.sampler.batch_size
    return measurement(_arrays(search), nearby, facts, protocol, batch_size)


def rate_name(space: Mapping[str, Range]) -> str | None:
    """Return the name of the hyper-parameter that is the learning rate.

    It is "learning_rate" if the space has it, else the first one on a log scale, else
    None.
    """
    if "learning_rate" in space:
        return "learning_rate"
    return next((name for name, range_ in space.items() if range_.scale == "log"), None)


def _compile(
    workload: Workload,
    contender: Contender,
    protocol: Protocol,
    checkpoints: Checkpoints,
) -> _Setting:
    sampler = sampler_of(workload, protocol.batch_size)
    # `check_trials` guarantees that it is at least one.
    num_epochs = int(protocol.passes // contender.evaluations)
    program = descent.compile_sweep(
        workload,
        contender.make_rule,
        sampler,
        num_epochs,
        hyperparameters=tuple(contender.space),
        width=protocol.width,
        evaluate_on=(protocol.tune_on, protocol.reported_on),
    )
    return _Setting(
        workload, contender, protocol, program, sampler, num_epochs, checkpoints
    )


def _search(setting: _Setting, on_chunk: OnChunk | None) -> Search:
    """Train the trials of the space; widen it if the chosen trial is at an edge."""
    budget = setting.protocol.budget
    space = dict(setting.contender.space)
    values = trials(space, budget)
    count = budget if values else 1
    outcomes, passes = _train(setting, values, count, _part(on_chunk, 0))
    search = Search(space, values, count, outcomes, passes, choose(outcomes.tuning))
    # With few trials the gaps are wide, so the outermost trial counts as an edge.
    outer = min(0.25, max(0.1, 1 / budget))
    most = MOST_WIDENINGS if budget > 1 else 0
    for widened in range(most + 1):
        chosen = {name: v[search.chosen] for name, v in search.trials.items()}
        places = edges(search.space, chosen, outer)
        search = search._replace(at_edges=tuple(f"{n}, {side}" for n, side in places))
        wider = _first_wider(search.space, places) if widened < most else None
        if wider is None:
            break
        search = _add_trials(setting, search, *wider, _part(on_chunk, widened + 1))
    return search


def _first_wider(
    space: Mapping[str, Range], places: Sequence[tuple[str, str]]
) -> tuple[dict[str, Range], dict[str, Range]] | None:
    """Widen the space at the first edge where this is possible.

    Return (the new space, the added part), or None if no edge can be widened.
    """
    for whole, part in (widen(space, *place) for place in places):
        if part is not None:
            return whole, part
    return None


def _add_trials(
    setting: _Setting,
    search: Search,
    space: dict[str, Range],
    part: Mapping[str, Range],
    on_chunk: OnChunk | None,
) -> Search:
    """Train more trials in the part of the space that was added."""
    added = math.ceil(setting.protocol.budget / 3)
    more = added_trials(part, added, start=search.count)
    new, _ = _train(setting, more, added, on_chunk)
    both = zip(search.outcomes, new, strict=True)
    outcomes = Outcomes(*(np.concatenate(arrays) for arrays in both))
    return search._replace(
        space=space,
        trials={n: np.concatenate([v, more[n]]) for n, v in search.trials.items()},
        count=search.count + added,
        outcomes=outcomes,
        chosen=choose(outcomes.tuning),
        widened=search.widened + 1,
    )


def _arrays(search: Search) -> dict[str, np.ndarray]:
    """Return the arrays of a search under the names that a study uses."""
    columns = [*search.trials.values()]
    return {
        "trials": np.stack(columns, 1) if columns else np.empty((search.count, 0)),
        "tuning": search.outcomes.tuning,
        "costs": search.outcomes.costs,
        "final": search.outcomes.curves[..., -1],
        "passes": search.passes,
        "curves": search.outcomes.curves[search.chosen],
    }


def _train_around(
    setting: _Setting, search: Search, rate: str
) -> dict[str, Float[np.ndarray, "..."]]:
    """Train at rates around the chosen one, on the tuning seeds only."""
    values = {
        name: np.full(len(AROUND), value)
        for name, value in search.chosen_values.items()
    }
    values[rate] *= AROUND
    outcomes, _ = _train(setting, values, len(AROUND), None, tuning_only=True)
    return {"rates": values[rate], "rate_scores": outcomes.tuning}


def _train(
    setting: _Setting,
    values: Trials,
    count: int,
    on_chunk: OnChunk | None,
    tuning_only: bool = False,
) -> tuple[Outcomes, Float[np.ndarray, " evaluations"]]:
    """Train trials on all seeds.

    Return their outcomes and the passes over the data at each evaluation.
    """
    workload, contender, protocol = setting[:3]
    reporting = () if tuning_only else protocol.seeds
    seeds = np.array(protocol.tuning_seeds + reporting)
    columns = {name: np.repeat(column, len(seeds)) for name, column in values.items()}
    result = descent.sweep(
        setting.program,
        {"seed": np.tile(seeds, count), **columns},
        on_chunk,
        setting.checkpoints,
    )
    passes = result.passes * contender.evaluations
    gaps = {
        part: _relative_gaps(workload, part, values).reshape(count, len(seeds), -1)
        for part, values in result.values_on.items()
    }
    m = len(protocol.tuning_seeds)
    tuning, reported = gaps[protocol.tune_on][:, :m], gaps[protocol.reported_on][:, m:]
    outcomes = Outcomes(
        penalised_passes(passes, tuning, protocol.target),
        passes_to_target(passes, reported, protocol.target),
        np.where(np.isfinite(reported), reported, np.inf),
        (result.first_bad_step >= 0).reshape(count, -1)[:, :m]
        | ~np.isfinite(tuning[..., -1]),
    )
    return outcomes, passes


def _relative_gaps(
    workload: Workload, part: str, values: Float[np.ndarray, "runs evaluations"]
) -> Float[np.ndarray, "runs evaluations"]:
    """Return (f - f*) / (f_0 - f*) on a part of the data.

    f* is the value, on that part, at the optimum of the training part.
    """
    optimum = known_optimum(workload)
    best = optimum.value
    if part != "train":
        best = float(workload.objective(optimum.params, getattr(workload, part)))
    # On held-out data the initial gap may not be positive; then no share is defined.
    initial = values[:, :1] - best
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        return np.where(initial > 0, (values - best) / initial, np.nan)


def _yardstick(workload: Workload, protocol: Protocol) -> dict[str, Any]:
    """Return numbers that show whether two studies have the same problem."""
    start = jax.random.fold_in(jax.random.key(protocol.seeds[0]), descent.INIT)
    initial = float(workload.objective(workload.init(start), workload.train))
    return {"initial": initial, "optimum": known_optimum(workload).value}


def _seconds_per_pass(setting: _Setting, chosen: Mapping[str, float]) -> float:
    """Return the seconds per pass of one training of the chosen trial, run alone."""
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
        / _num_examples(workload)
        * contender.evaluations
    )
    return timing.seconds_per_epoch / passes


def _part(on_chunk: OnChunk | None, round_: int) -> OnChunk | None:
    """Return a callback that reports the share of the whole search that is done.

    The first trials count as three quarters of the search, because more may follow.
    """
    if on_chunk is None:
        return None
    low, width = (0.0, 0.75) if round_ == 0 else (0.75 + 0.12 * (round_ - 1), 0.12)
    return lambda progress: on_chunk(
        progress._replace(share=low + width * progress.share)
    )


def _num_examples(workload: Workload) -> int:
    return samplers.num_examples(workload.train) or 1
