"""The one program of all runs of a sweep, compiled."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.checks import (
    check_callable,
    check_count,
    check_instance,
    check_real,
    check_sequence,
)
from research.descent import _run, _step
from research.objectives import check_data
from research.samplers import check_form, check_sampler, num_examples
from research.sizes import check_most, check_room
from research.types import Batch, Key, Sampler, Workload

# Children of a run's root key; the initial point and the order of examples never share
# one.
INIT, EPOCHS = range(2)

# The bits of a run depend on the width of its batch (a vmapped product sums in another
# order), so it is fixed.
WIDTH = 8

MakeRule = Callable[..., optax.GradientTransformation]


class SweepProgram(NamedTuple):
    """What many runs share, compiled: a run adds its seed and its hyper-parameters.

    Attributes:
      begin: Per device: (runs, data) -> (states, values at the initial points).
      advance: Per device: (states, runs, epochs, data) -> (states, info).
      data: Per device: the parts of the workload by name; "train" is always among them.
      evaluate_on: The parts on which the objective is evaluated.
      hyperparameters: Names of the traced hyper-parameters that each run brings.
      sampler, num_epochs, chunk, width: What the program was built for.
      devices: Where batches of runs are sent, in turn.
      compile_seconds: What building it took.
    """

    begin: tuple[Callable, ...]
    advance: tuple[Callable, ...]
    data: tuple[dict[str, Batch | None], ...]
    evaluate_on: tuple[str, ...]
    hyperparameters: tuple[str, ...]
    sampler: Sampler
    num_epochs: int
    chunk: int
    width: int
    devices: tuple[Any, ...]
    compile_seconds: float


def compile_sweep(
    workload: Workload,
    make_rule: MakeRule,
    sampler: Sampler,
    num_epochs: int,
    *,
    hyperparameters: Sequence[str] = ("learning_rate",),
    chunk: int | None = None,
    width: int = WIDTH,
    devices: Sequence[Any] | None = None,
    evaluate_on: Sequence[str] = ("train",),
) -> SweepProgram:
    """Compile the one program of all runs that share what is not traced.

    Rates and seeds are traced, so a sweep over them compiles nothing. Each device gets
    the same single-device program: a run's bits do not depend on how many devices there
    are.

    Args:
      workload: What is trained.
      make_rule: Called with the run's hyper-parameters by name, as traced scalars.
      sampler: Built for workload.train.
      num_epochs: Length of each run.
      hyperparameters: Names that `make_rule` takes.
      chunk: Epochs between two looks at the runs: at least 2, and a divisor of
        num_epochs. None: a tenth where that is one, else all.
      width: Runs in a batch.
      devices: Defaults to all of `jax.devices()`.
      evaluate_on: Parts of the workload ("train", "validation", "test") on which the
        objective is evaluated.
    Returns:
      The program.
    Raises:
      ValueError: num_epochs or width is not positive, chunk is 1 or does not divide
        num_epochs, the sampler is made for another number of examples than
        workload.train has (1 without data), or the workload has no such part.
    Example:
      >>> from research import descent, samplers, update_rules, workloads
      >>> quadratic = workloads.make_workload("quadratic")
      >>> rule, sampler = update_rules.gradient_descent, samplers.full_batch(1)
      >>> program = compile_sweep(quadratic, rule, sampler, 20)
      >>> runs = {"seed": [0, 1], "learning_rate": [0.1, 0.1]}
      >>> descent.sweep(program, runs).values.shape
      (2, 21)
    """
    check_workload("workload", workload)
    check_callable("make_rule", make_rule)
    check_form(sampler)
    check_sequence("hyperparameters", hyperparameters, "names", str)
    for name, value in (("num_epochs", num_epochs), ("width", width)):
        check_count(name, value)
    check_most(num_epochs=num_epochs, width=width)
    check_room(f"num_epochs={num_epochs} and width={width}", num_epochs, width)
    chunk = _check_chunk(chunk, num_epochs)
    # Passes over no data are evaluations of the objective.
    n = num_examples(workload.train)
    check_sampler(sampler, 1 if n is None else n)
    devices = _check_devices(devices)
    parts = _check_parts(workload, evaluate_on)
    params = jax.eval_shape(lambda: workload.init(jax.random.key(0)))
    for part in {"train", *parts}:
        check_data(workload.objective, params, getattr(workload, part))
    started = time.perf_counter()
    functions = _functions(workload, make_rule, sampler, parts)
    names = tuple(hyperparameters)
    compiled = [
        _compile_on(device, workload, functions, parts, names, chunk, width)
        for device in devices
    ]
    begin, advance, data = zip(*compiled, strict=True)
    return SweepProgram(
        begin=begin,
        advance=advance,
        data=data,
        evaluate_on=parts,
        hyperparameters=names,
        sampler=sampler,
        num_epochs=num_epochs,
        chunk=chunk,
        width=width,
        devices=devices,
        compile_seconds=time.perf_counter() - started,
    )


def _functions(
    workload: Workload, make_rule: MakeRule, sampler: Sampler, parts: Sequence[str]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The beginning of one run, and its chunk of epochs."""

    def evaluate(params, data):
        return tuple(workload.objective(params, data[part]) for part in parts)

    def begin(run, data):
        rule = make_rule(**_hyper(run))
        state = _step.build(workload.objective, rule, data["train"]).init(
            workload.init(_key(run, INIT))
        )
        return state, _together(evaluate(state.params, data))

    def advance(state, run, epochs, data):
        rule = make_rule(**_hyper(run))
        state, info = _run.run(
            _step.build(workload.objective, rule, data["train"]).step,
            state,
            sampler,
            _key(run, EPOCHS),
            epochs,
            evaluate=lambda params: evaluate(params, data),
        )
        return state, info._replace(evaluations=_together(info.evaluations))

    return begin, advance


def _compile_on(
    device: Any,
    workload: Workload,
    functions: tuple[Callable[..., Any], Callable[..., Any]],
    parts: Sequence[str],
    names: Sequence[str],
    chunk: int,
    width: int,
) -> tuple[Callable[..., Any], Callable[..., Any], dict[str, Batch | None]]:
    """Both functions for a batch of runs on one device, compiled, and the data there."""
    begin, advance = functions
    place = jax.sharding.SingleDeviceSharding(device)
    data = {part: getattr(workload, part) for part in ("train", *parts)}
    data = jax.device_put(data, place)
    one = {name: np.ones(1) for name in names} | {"seed": np.zeros(1, int)}
    runs = jax.device_put(padded(one, width), place)
    begun = jax.jit(jax.vmap(begin, in_axes=(0, None))).lower(runs, data).compile()
    states, _ = begun(runs, data)
    epochs = jax.device_put(np.arange(chunk, dtype=np.int32), place)
    advanced = jax.jit(jax.vmap(advance, in_axes=(0, 0, None, None)))
    return begun, advanced.lower(states, runs, epochs, data).compile(), data


def check_workload(name: str, workload: Any) -> None:
    """Raise TypeError unless a value is a Workload of sensible fields."""
    check_instance(
        name, workload, Workload, "Make one by research.workloads.make_workload(name)."
    )
    check_callable(f"{name}.init", workload.init, "key")
    check_callable(f"{name}.objective", workload.objective, "params", "batch")
    for part in ("train", "validation", "test"):
        _step.check_dataset(f"{name}.{part}", getattr(workload, part))


def padded(runs: Mapping[str, np.ndarray], width: int) -> dict[str, np.ndarray]:
    """Runs, and copies of the last up to the width."""
    return {
        name: np.concatenate([v, np.repeat(v[-1:], width - len(v))])
        for name, v in runs.items()
    }


def _together(values: Sequence[Any]) -> Any:
    """The value on the one part, or those on several along a last axis."""
    return values[0] if len(values) == 1 else jnp.stack(values, -1)


def _check_chunk(chunk: int | None, num_epochs: int) -> int:
    if chunk is None:
        tenths = num_epochs % 10 == 0 and num_epochs >= 20
        chunk = num_epochs // 10 if tenths else num_epochs
    check_real("chunk", chunk)
    if not min(2, num_epochs) <= chunk <= num_epochs or num_epochs % chunk:
        raise ValueError(
            "chunk must divide num_epochs and be at least 2; got "
            f"chunk={chunk}, num_epochs={num_epochs}. "
            "(XLA unrolls a loop of one epoch, which then has other bits.)"
        )
    return chunk


def _check_devices(devices: Sequence[Any] | None) -> tuple[Any, ...]:
    if devices is None:
        return tuple(jax.devices())
    check_sequence("devices", devices, "devices of jax.devices()", jax.Device)
    if not devices:
        raise ValueError(
            "devices must name at least one device; got none. None means all."
        )
    return tuple(devices)


def _check_parts(workload: Workload, parts: Sequence[str]) -> tuple[str, ...]:
    known = ("train", "validation", "test")
    check_sequence("evaluate_on", parts, "parts of a workload", str)
    if not len(parts) or not set(parts) <= set(known):
        raise ValueError(
            f"evaluate_on must name parts of a workload, some of {known}; got {parts!r}."
        )
    for part in parts:
        if part != "train" and getattr(workload, part) is None:
            raise ValueError(
                f"workload {workload.name!r} has no {part} part to evaluate on."
            )
    return tuple(dict.fromkeys(parts))


def _hyper(run: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in run.items() if name != "seed"}


def _key(run: Mapping[str, Any], child: int) -> Key:
    return jax.random.fold_in(jax.random.key(run["seed"]), child)
