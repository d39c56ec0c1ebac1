"""Search the hyper-parameters of every rule on every workload, and report the choice."""

import functools
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
from research.comparison._searching import (
    Evaluate,
    OnChunk,
    OnProgress,
    best_search,
    chunk_teller,
    start_searches,
    tuning_score,
)
from research.comparison.contenders import Contender
from research.comparison.measurements import measurement
from research.comparison.protocol import Protocol
from research.descent._sweep_program import check_workload
from research.runs.files import canonical
from research.statistics.costs import passes_to_target, search_scores
from research.tuning.search import RACING_SEEDS, SCREENING_SEEDS, Searched, search_all
from research.tuning.spaces import Range, edges
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

Trials = Mapping[str, Float[np.ndarray, " trials"]]  # Values by hyper-parameter.

# Factors of the chosen rate at which the rule is trained again. They only show how much
# the rate matters; no trial is chosen among them.
AROUND = 2.0 ** np.arange(-4, 4.5, 0.5)
CONTENDER_HINT = "Make one by research.comparison.make_contenders(rules)."
PROTOCOL_HINT = "Make one by research.comparison.make_protocol()."
WORKLOAD_HINT = "Make one by research.workloads.make_workload(name)."


class Outcomes(NamedTuple):
    """Results of runs on the reporting seeds.

    A point is a choice of hyper-parameters.

    Attributes:
      costs: Passes to the target, inf for a run that did not reach it, shape (points,
        seeds).
      curves: Relative gaps, inf where they are not finite, shape (points, seeds,
        evaluations).
    """

    costs: Float[np.ndarray, "points seeds"]
    curves: Float[np.ndarray, "points seeds evaluations"]


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
    """Make the workloads with the given names, and keep each `Workload` as it is.

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
      batch_size: Number of examples in a mini-batch; None means full batch.
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
      RuleError: The rule raised an error when it was made, with the defaults or with an
        end of its ranges, or when it was traced.
      NoRuleError: The contender is not an update rule, or it changes the structure,
        shape or dtype of updates or state.
      ValueError: A step of the rule evaluates the objective, and the cost of a step was
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
      >>> terms = {"searches": 2, "budget": 2, "passes": 20, "seeds": 3}
      >>> rules = ["gradient_descent", "adam"]
      >>> protocol, contenders = plan(rules, "quadratic", tuning_seeds=3, **terms)
      >>> measurements = measure_contenders(
      ...     protocol, contenders, make_workloads("quadratic"), timed=False
      ... )
      >>> list(measurements)
      [('quadratic', 'gradient_descent'), ('quadratic', 'adam')]
      >>> measurements["quadratic", "adam"].arrays["costs"].shape
      (2, 3)
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
        measurements[workload.name, contender.name] = _remembered(
            workload,
            contender,
            protocol,
            timed=timed,
            on_chunk=chunk_teller(on_progress, done, len(products), label),
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
    """Search a contender's hyper-parameters several times, and report each choice.

    The searches (`research.tuning.search`) are independent: each has its own trials
    (choices of hyper-parameters) and its own tuning seeds. The trial that a search
    chooses is trained on the reporting seeds. The defaults are trained on the reporting
    seeds, too. With a budget of one trial, only the defaults are trained.

    Args:
      workload: Workload with the parts of the data that the protocol needs.
      contender: The rule and its search space.
      protocol: Protocol of the comparison.
      timed: Whether to time one training of the best choice alone. This needs another
        compilation.
      on_chunk: Function that is called with the progress of the search; its `share` is
        the number of finished runs divided by the largest number of runs that the
        measurement may need.
      checkpoints: Storage for unfinished runs. The caller makes it specific to this
        rule and workload.
    Returns:
      Arrays and values of the measurement. The sizes are: J searches, t trials with
      which a search starts, h hyper-parameters, s screening seeds, n reporting seeds, k
      evaluations, r rates and m tuning seeds.

      - `trials` (J, t, h): the trials with which the searches start;
      - `screening` (J, t, s): their log costs on the screening seeds;
      - `chosen` (J, h): the choice of each search;
      - `tuning` (J,): the mean log cost of this choice on the tuning seeds;
      - `costs` (J, n) and `final` (J, n): the costs and final gaps of this choice on
        the reporting seeds;
      - `passes` (k,) and `curves` (J n, k): the passes at each evaluation, and the
        relative gaps there;
      - `default_costs` (n,): the costs of the defaults on the reporting seeds;
      - `best_of` (t, 3): the expected cost of the best of 1, 2, ..., t trials, with its
        interval;
      - `rates` (r,) and `rate_scores` (r, m): rates around the rate of the best search,
        and their log costs.

      The values can be written as JSON; a study stores them as one entry of `cells`.
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
    evaluate = Evaluate(
        setting.program,
        functools.partial(_score, setting),
        protocol,
        on_chunk=on_chunk,
        checkpoints=checkpoints,
    )
    names = (workload.name, contender.name)
    searches = search_all(start_searches(contender.space, protocol, *names), evaluate)
    best = best_search(searches)
    outcomes, passes = _report(setting, searches)
    rate = rate_name(contender.space)
    nearby = {} if rate is None else _train_around(setting, best, rate)
    per_pass = _seconds_per_pass(setting, best.chosen_values) if timed else None
    facts = {
        "workload": workload.name,
        "rule": contender.name,
        "n": _num_examples(workload),
        "hyperparameters": list(contender.space),
        "chosen": best.chosen_values,
        "trials": best.screened,
        "searches": len(searches),
        "trainings": evaluate.trained,
        "edges": [
            f"{name}, {side}"
            for name, side in edges(contender.space, best.chosen_values, 0.0)
        ],
        "evaluations": contender.evaluations,
        "diverged": evaluate.diverged / evaluate.screened,
        "rate_name": rate,
        "compile_seconds": setting.program.compile_seconds,
        "seconds_per_pass": per_pass,
        **_yardstick(workload, protocol),
    }
    arrays = _arrays(searches, outcomes, passes)
    return measurement(arrays, nearby, facts, protocol, setting.sampler.batch_size)


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


def _score(
    setting: _Setting, result: descent.SweepResult
) -> tuple[Float[np.ndarray, " runs"], Bool[np.ndarray, " runs"]]:
    """Return the score of each run on the tuning part, and whether it diverged."""
    part, protocol = setting.protocol.tune_on, setting.protocol
    gaps = _relative_gaps(setting.workload, part, result.values_on[part])
    passes = result.passes * setting.contender.evaluations
    bad = (result.first_bad_step >= 0) | ~np.isfinite(gaps[:, -1])
    return search_scores(passes, gaps, protocol.target), bad


def _report(
    setting: _Setting, searches: Sequence[Searched]
) -> tuple[Outcomes, Float[np.ndarray, " evaluations"]]:
    """Train the choice of each search, and the defaults, on the reporting seeds.

    The defaults are the last point. The second value is the passes over the data at
    each evaluation.
    """
    values = {
        name: np.array(
            [one.chosen_values[name] for one in searches]
            + [searches[0].values[name][0]]
        )
        for name in setting.contender.space
    }
    return _train(setting, values, len(searches) + 1)


def _arrays(
    searches: Sequence[Searched],
    outcomes: Outcomes,
    passes: Float[np.ndarray, " evaluations"],
) -> dict[str, np.ndarray]:
    """Return the arrays of all searches under the names that a study uses."""
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


def _train_around(
    setting: _Setting, searched: Searched, rate: str
) -> dict[str, Float[np.ndarray, "..."]]:
    """Train at rates around the chosen one, on some tuning seeds of the search."""
    seeds = setting.protocol.seeds_of_search(0)[:RACING_SEEDS]
    values = {
        name: np.full(len(AROUND), value)
        for name, value in searched.chosen_values.items()
    }
    values[rate] *= AROUND
    columns = {name: np.repeat(column, len(seeds)) for name, column in values.items()}
    result = descent.sweep(
        setting.program,
        {"seed": np.tile(seeds, len(AROUND)), **columns},
        None,
        setting.checkpoints,
    )
    scores, _ = _score(setting, result)
    return {"rates": values[rate], "rate_scores": scores.reshape(len(AROUND), -1)}


def train_trials(
    workload: Workload,
    contender: Contender,
    protocol: Protocol,
    values: Trials,
    count: int,
    *,
    on_chunk: OnChunk | None = None,
    checkpoints: Checkpoints = no_checkpoints,
) -> tuple[Outcomes, Float[np.ndarray, " evaluations"]]:
    """Train given trials on all reporting seeds, without a search.

    Args:
      workload, contender, protocol, on_chunk, checkpoints: As for `measure_contender`.
      values: Values of each hyper-parameter, by name, shape (count,).
      count: Number of trials.
    Returns:
      The outcomes, and the passes over the data at each evaluation, shape (k,).
    Raises:
      ValueError, TypeError: An argument is wrong; a column of `values` does not have
        `count` entries; or the optimum of the workload is not known.
    Example:
      >>> from research.comparison import make_contenders, make_protocol
      >>> (plain,) = make_contenders(["gradient_descent"])
      >>> terms = make_protocol(passes=20, seeds=3, target=0.5)
      >>> rates = {"learning_rate": np.array([0.1, 1.0])}
      >>> (on,) = make_workloads("quadratic")
      >>> outcomes, passes = train_trials(on, plain, terms, rates, 2)
      >>> outcomes.costs.shape, len(passes)
      ((2, 3), 21)
    """
    check_workload("workload", workload)
    check_instance("contender", contender, Contender, CONTENDER_HINT)
    check_instance("protocol", protocol, Protocol, PROTOCOL_HINT)
    check_count("count", count)
    setting = _compile(workload, contender, protocol, checkpoints)
    return _train(setting, values, count, on_chunk)


def _train(
    setting: _Setting, values: Trials, count: int, on_chunk: OnChunk | None = None
) -> tuple[Outcomes, Float[np.ndarray, " evaluations"]]:
    """Train trials on the reporting seeds.

    Return their outcomes and the passes over the data at each evaluation.
    """
    workload, contender, protocol = setting[:3]
    seeds = np.array(protocol.seeds)
    columns = {name: np.repeat(column, len(seeds)) for name, column in values.items()}
    result = descent.sweep(
        setting.program,
        {"seed": np.tile(seeds, count), **columns},
        on_chunk,
        setting.checkpoints,
    )
    passes = result.passes * contender.evaluations
    reported = _relative_gaps(
        workload, protocol.reported_on, result.values_on[protocol.reported_on]
    ).reshape(count, len(seeds), -1)
    costs = passes_to_target(passes, reported, protocol.target)
    curves = np.where(np.isfinite(reported), reported, np.inf)
    return Outcomes(costs, curves), passes


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


def _num_examples(workload: Workload) -> int:
    return samplers.num_examples(workload.train) or 1
