"""Check a comparison before anything is compiled: workloads, samplers, contenders."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from research import descent, samplers, workloads
from research.checks import (
    check_callable,
    check_count,
    check_instance,
    check_sequence,
    check_tree,
)
from research.comparison.contenders import Contender
from research.comparison.protocol import Protocol
from research.descent._sweep_program import check_workload
from research.sizes import check_memory
from research.types import Array, Batch, Params, Sampler, Workload
from research.workloads import known_optimum

CONTENDER_HINT = "Make one by research.comparison.make_contenders(rules)."
WORKLOAD_HINT = "Make one by research.workloads.make_workload(name)."
OBJECTIVE_ERROR = 1e-5  # Relative error of an objective in float32.


def make_workloads(given: str | Workload | Sequence[str | Workload]) -> list[Workload]:
    """Replace each name in a list of workloads by the `Workload` with this name.

    A workload is a named optimisation problem. An entry that is already a `Workload`
    is kept as it is.

    Args:
      given: One `Workload` or name, or a sequence of them.
    Returns:
      A list of workloads, in the same order.
    Raises:
      ValueError: The sequence is empty, two workloads have the same name, or a name is
        unknown.
      TypeError: An entry is neither a workload nor a name.
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
    """Make the sampler with which `compare` trains on a workload.

    A workload is an optimisation problem. A sampler chooses the examples of each batch.

    Args:
      workload: A workload. If the workload has no data, `batch_size` is ignored.
      batch_size: Number of examples in a mini-batch. None means full batch.
    Returns:
      The sampler.
    Raises:
      ValueError: The workload has fewer examples than `batch_size`.
    """
    check_instance("workload", workload, Workload, WORKLOAD_HINT)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    n = num_examples(workload)
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

    A trial is a choice of hyper-parameters of a rule.

    Args:
      protocol: Terms of the comparison.
      contenders: Rules with their search spaces.
      workload: One of the workloads.
    Raises:
      ValueError, TypeError: The workload lacks a part of the data that the protocol
        uses, the workload has fewer examples than a batch, the optimum of the workload
        is not known or does not fit the objective (`check_optimum`), a step of a
        contender cannot be traced, or one epoch of a contender costs more than
        `protocol.passes` passes over the data. If a step costs g gradients (g is
        `Contender.evaluations`), an epoch costs g passes.
    """
    check_workload("workload", workload)
    check_optimum(workload, protocol.target)
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
        at_once = protocol.width * len(jax.devices())
        check_room_of_runs(contender, params, workload.name, at_once)


def check_room_of_runs(
    contender: Contender, params: Any, workload: str, runs_at_once: int
) -> None:
    """Raise ValueError if the runs that are computed together need too much memory.

    Args:
      contender: Rule with its search space.
      params: Params of the workload, or their shapes.
      workload: Name of the workload, for the message.
      runs_at_once: Number of runs that are computed together. Each one needs memory for
        its params and for the state of its rule.
    """
    rule = contender.make_rule(**{n: r.low for n, r in contender.space.items()})
    leaves = jax.tree.leaves((params, jax.eval_shape(rule.init, params)))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    check_memory(
        f"{runs_at_once} runs of {contender.name} on {workload}, each with "
        f"{size / 1e6:.3g} MB of params and state of the rule,",
        runs_at_once * size,
    )


def check_optimum(workload: Workload, target: float) -> None:
    """Raise an error if the optimum of a workload is unknown or cannot be right.

    Let f be the objective on the training part, f_0 the value of f at an initial point,
    and f* the field `value` of the optimum.

    Args:
      workload: A workload.
      target: Target of a comparison, a share of f_0 - f*.
    Raises:
      TypeError: The optimum is not an Optimum.
      ValueError: The optimum is not known, f_0 is not above f*, or f* differs from f at
        the optimum's params by more than a tenth of target · (f_0 - f*), plus a
        rounding error.
    """
    optimum, f = known_optimum(workload), jax.jit(workload.objective)
    initial = float(f(workload.init(jax.random.key(0)), workload.train))
    if not initial > optimum.value:
        raise ValueError(
            f"workload {workload.name!r}: optimum.value must be below the objective at "
            f"the initial point, {initial:.6g}; got optimum.value={optimum.value:.6g}."
        )
    value = f(optimum.params, workload.train)
    at_optimum, eps = float(value), float(jnp.finfo(value.dtype).eps)
    rounding = max(OBJECTIVE_ERROR, 8 * eps) * abs(optimum.value)
    allowed = target / 10 * (initial - optimum.value) + rounding
    if not abs(at_optimum - optimum.value) <= allowed:
        raise ValueError(
            f"workload {workload.name!r}: optimum.value must be the objective at "
            f"optimum.params on the training part, {at_optimum:.9g}; got "
            f"optimum.value={optimum.value:.9g}. If you changed the objective or the "
            "data, solve for the optimum again."
        )


def check_contender(
    contender: Contender,
    params: Params,
    objective: Callable[[Params, Any], Array],
    batch: Batch | None = None,
) -> int:
    """Check a contender by tracing one step of its update rule.

    A contender is an update rule with its search space. The space has a range for each
    hyper-parameter to search.

    Args:
      contender: A `Contender`, from `make_contenders`.
      params: Parameters that a step updates, as arrays or as their shapes and dtypes.
      objective: Function (params, batch) -> value of shape ().
      batch: The training data, or None for an objective without data.
    Returns:
      Number of times that the code of a step evaluates the objective. The gradient that
      the step receives is not counted. An evaluation in a loop counts once, because the
      code is traced and not run.
    Raises:
      RuleError: The rule raised an error when its step was traced, or when the rule was
        made with the low ends or with the high ends of its ranges.
      NoRuleError: `contender.make_rule` does not return an update rule, or a step of
        the rule changes the structure, a shape or a dtype of the updates or of the
        state.
      ValueError: A step of the rule evaluates the objective, and the cost of a step was
        not stated (see `Contender.evaluations` and `Contender.stated`).
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

    The list has one entry for each evaluation: True if the evaluation uses all
    examples, else False.
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


def num_examples(workload: Workload) -> int:
    """Return the number of training examples; 1 if the workload has no data."""
    return samplers.num_examples(workload.train) or 1
