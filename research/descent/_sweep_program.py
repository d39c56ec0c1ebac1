"""The one program of all cells that share a workload, a rule, a sampler and a number of epochs, compiled."""

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
from research.types import Batch, Sampler, Workload

# Children of a cell's root key; the initial point and the order of examples never share one.
INIT, EPOCHS = range(2)

# The bits of a cell depend on the width of its block (a vmapped product sums in another order), so it is fixed.
WIDTH = 8

MakeRule = Callable[..., optax.GradientTransformation]


class SweepProgram(NamedTuple):
    """Everything that a group of cells shares, compiled: a cell adds its seed and its hyper-parameters.

    Attributes:
      begin: Per device: (cells, data) -> (states, values at the initial points).
      advance: Per device: (states, cells, epochs, data) -> (states, info).
      data: Per device: the parts of the workload by name; "train" is always among them.
      evaluate_on: The parts on which the objective is evaluated.
      hyperparameters: Names of the traced hyper-parameters that each cell brings.
      sampler, num_epochs, chunk, width: What the program was built for.
      devices: Where blocks are sent, in turn.
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
    """Compiles the one program of all cells that share a workload, a rule, a sampler and a number of epochs.

    Rates and seeds are traced, so a sweep over them compiles nothing. Each device gets the same single-device program:
    a cell's bits do not depend on how many devices there are.

    Args:
      workload: What is trained.
      make_rule: Called with the cell's hyper-parameters by name, as traced scalars.
      sampler: Built for workload.train.
      num_epochs: Length of each training.
      hyperparameters: Names that `make_rule` takes.
      chunk: Epochs between two looks at the run: at least 2, and a divisor of num_epochs. None: a tenth where that is
        one, else all.
      width: Lanes in a block.
      devices: Defaults to all of `jax.devices()`.
      evaluate_on: Parts of the workload ("train", "validation", "test") on which the objective is evaluated.
    Returns:
      The program.
    Raises:
      ValueError: num_epochs or width is not positive, chunk is 1 or does not divide num_epochs, the sampler is made for
        another number of examples than workload.train has (1 without data), or the workload has no such part.
    Example:
      >>> from research import lanes, samplers, update_rules, workloads
      >>> quadratic = workloads.make_workload("quadratic")
      >>> program = compile_sweep(quadratic, update_rules.gradient_descent, samplers.full_batch(1), 20)
      >>> trained = lanes.train(program, {"seed": [0, 1], "learning_rate": [0.1, 0.1]})
      >>> trained.values.shape
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
    if chunk is None:
        chunk = (
            num_epochs // 10
            if num_epochs % 10 == 0 and num_epochs >= 20
            else num_epochs
        )
    check_real("chunk", chunk)
    if not min(2, num_epochs) <= chunk <= num_epochs or num_epochs % chunk:
        raise ValueError(
            f"chunk must divide num_epochs and be at least 2; got chunk={chunk}, num_epochs={num_epochs}. "
            "(XLA unrolls a loop of one epoch, which then has other bits.)"
        )
    n = num_examples(workload.train)
    check_sampler(
        sampler, 1 if n is None else n
    )  # Passes over no data are evaluations of the objective.
    if devices is not None:
        check_sequence("devices", devices, "devices of jax.devices()", jax.Device)
        if not devices:
            raise ValueError(
                "devices must name at least one device; got none. None means all."
            )
    devices = tuple(jax.devices() if devices is None else devices)
    parts = _check_parts(workload, evaluate_on)
    params = jax.eval_shape(lambda: workload.init(jax.random.key(0)))
    for part in {"train", *parts}:
        check_data(workload.objective, params, getattr(workload, part))

    def evaluate(params, data):
        return tuple(workload.objective(params, data[part]) for part in parts)

    def begin(cell, data):
        descent = _step.build(workload.objective, make_rule(**_hyper(cell)), None)
        state = descent.init(workload.init(_key(cell, INIT)))
        return state, _together(evaluate(state.params, data))

    def advance(state, cell, epochs, data):
        rule = make_rule(**_hyper(cell))
        descent = _step.build(workload.objective, rule, data["train"])
        state, info = _run.run(
            descent.step,
            state,
            sampler,
            _key(cell, EPOCHS),
            epochs,
            evaluate=lambda params: evaluate(params, data),
        )
        return state, info._replace(evaluations=_together(info.evaluations))

    started = time.perf_counter()
    begins, advances, everywhere = [], [], []
    names = tuple(hyperparameters)
    for device in devices:
        place = jax.sharding.SingleDeviceSharding(device)
        data = jax.device_put(
            {part: getattr(workload, part) for part in ("train", *parts)}, place
        )
        cells = jax.device_put(
            padded(
                {name: np.ones(1) for name in names} | {"seed": np.zeros(1, int)}, width
            ),
            place,
        )
        compiled = (
            jax.jit(jax.vmap(begin, in_axes=(0, None))).lower(cells, data).compile()
        )
        states, _ = compiled(cells, data)
        epochs = jax.device_put(np.arange(chunk, dtype=np.int32), place)
        begins.append(compiled)
        advances.append(
            jax.jit(jax.vmap(advance, in_axes=(0, 0, None, None)))
            .lower(states, cells, epochs, data)
            .compile()
        )
        everywhere.append(data)
    seconds = time.perf_counter() - started
    return SweepProgram(
        begin=tuple(begins),
        advance=tuple(advances),
        data=tuple(everywhere),
        evaluate_on=parts,
        hyperparameters=names,
        sampler=sampler,
        num_epochs=num_epochs,
        chunk=chunk,
        width=width,
        devices=devices,
        compile_seconds=seconds,
    )


def check_workload(name: str, workload: Any) -> None:
    """Raise TypeError unless a value is a Workload of sensible fields."""
    check_instance(
        name, workload, Workload, "Make one by research.workloads.make_workload(name)."
    )
    check_callable(f"{name}.init", workload.init, "key")
    check_callable(f"{name}.objective", workload.objective, "params", "batch")
    for part in ("train", "validation", "test"):
        _step.check_dataset(f"{name}.{part}", getattr(workload, part))


def padded(cells: Mapping[str, np.ndarray], width: int) -> dict[str, np.ndarray]:
    """Pads to the width with copies of the last cell."""
    return {
        name: np.concatenate([v, np.repeat(v[-1:], width - len(v))])
        for name, v in cells.items()
    }


def _together(values: Sequence[Any]) -> Any:
    """The value on the one part, or those on several along a last axis."""
    return values[0] if len(values) == 1 else jnp.stack(values, -1)


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


def _hyper(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cell.items() if name != "seed"}


def _key(cell: Mapping[str, Any], child: int) -> Any:
    return jax.random.fold_in(jax.random.key(cell["seed"]), child)
