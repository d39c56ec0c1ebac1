"""The one program of all cells that share a workload, a rule, a sampler and a number of epochs, compiled."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research import descent
from research.types import Batch, Sampler, Workload

# Children of a cell's root key; the initial point and the order of examples never share one.
INIT, EPOCHS = range(2)

# The bits of a cell depend on the width of its block (a vmapped product sums in another order), so it is fixed.
WIDTH = 8

MakeRule = Callable[..., optax.GradientTransformation]


class Program(NamedTuple):
    """Everything that a group of cells shares, compiled: a cell adds its seed and its hyper-parameters.

    Attributes:
      begin: Per device: (cells, train) -> (states, values at the initial points).
      advance: Per device: (states, cells, epochs, train) -> (states, records).
      train: Per device: the training data.
      hyperparameters: Names of the traced hyper-parameters that each cell brings.
      sampler, num_epochs, chunk, width: What the program was built for.
      devices: Where blocks are sent, in turn.
      compile_seconds: What building it took.
    """

    begin: tuple[Callable, ...]
    advance: tuple[Callable, ...]
    train: tuple[Batch | None, ...]
    hyperparameters: tuple[str, ...]
    sampler: Sampler
    num_epochs: int
    chunk: int
    width: int
    devices: tuple[Any, ...]
    compile_seconds: float


def compile_program(
    workload: Workload,
    make_rule: MakeRule,
    sampler: Sampler,
    num_epochs: int,
    *,
    hyperparameters: Sequence[str] = ("learning_rate",),
    chunk: int | None = None,
    width: int = WIDTH,
    devices: Sequence[Any] | None = None,
) -> Program:
    """Compiles the one program of all cells that share a workload, a rule, a sampler and a number of epochs.

    Rates and seeds are traced, so a sweep over them compiles nothing. Each device gets the same single-device program:
    a cell's bits do not depend on how many devices there are.

    Args:
      workload: What is trained.
      make_rule: Called with the cell's hyper-parameters by name, as traced scalars.
      sampler: Built for workload.train.
      num_epochs: Length of each training.
      hyperparameters: Names that `make_rule` takes; one called learning_rate is also what the records show.
      chunk: Epochs between two looks at the run: at least 2, and a divisor of num_epochs. None: a tenth where that is
        one, else all.
      width: Lanes in a block.
      devices: Defaults to all of `jax.devices()`.
    Returns:
      The program.
    Raises:
      ValueError: num_epochs or width is not positive, or chunk is 1 or does not divide num_epochs.
    Example:
      >>> from research import lanes, samplers, update_rules, workloads
      >>> quadratic = workloads.make_workload("quadratic")
      >>> program = compile_program(quadratic, update_rules.gradient_descent, samplers.full_batch(1), 20)
      >>> trained = lanes.train(program, {"seed": [0, 1], "learning_rate": [0.1, 0.1]})
      >>> trained.values.shape
      (2, 21)
    """
    for name, value in (("num_epochs", num_epochs), ("width", width)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer; got {name}={value!r}.")
    if chunk is None:
        chunk = num_epochs // 10 if num_epochs % 10 == 0 and num_epochs >= 20 else num_epochs
    if not min(2, num_epochs) <= chunk <= num_epochs or num_epochs % chunk:
        raise ValueError(
            f"chunk must divide num_epochs and be at least 2; got chunk={chunk}, num_epochs={num_epochs}. "
            "(XLA unrolls a loop of one epoch, which then has other bits.)"
        )
    devices = tuple(jax.devices() if devices is None else devices)

    def begin(cell, train):
        state = descent.start(make_rule(**_hyper(cell)), workload.init(_key(cell, INIT)))
        return state, workload.objective(state.params, train)

    def advance(state, cell, epochs, train):
        rule = make_rule(**_hyper(cell))
        step = descent.make_step(workload.objective, rule, train, cell.get("learning_rate", jnp.nan))
        return descent.run(
            step, state, sampler, _key(cell, EPOCHS), epochs, evaluate=lambda params: workload.objective(params, train)
        )

    started = time.perf_counter()
    begins, advances, trains = [], [], []
    names = tuple(hyperparameters)
    for device in devices:
        place = jax.sharding.SingleDeviceSharding(device)
        train = jax.device_put(workload.train, place)
        cells = jax.device_put(padded({name: np.ones(1) for name in names} | {"seed": np.zeros(1, int)}, width), place)
        compiled = jax.jit(jax.vmap(begin, in_axes=(0, None))).lower(cells, train).compile()
        states, _ = compiled(cells, train)
        epochs = jax.device_put(np.arange(chunk, dtype=np.int32), place)
        begins.append(compiled)
        advances.append(
            jax.jit(jax.vmap(advance, in_axes=(0, 0, None, None))).lower(states, cells, epochs, train).compile()
        )
        trains.append(train)
    seconds = time.perf_counter() - started
    return Program(
        tuple(begins), tuple(advances), tuple(trains), names, sampler, num_epochs, chunk, width, devices, seconds
    )


def padded(cells: Mapping[str, np.ndarray], width: int) -> dict[str, np.ndarray]:
    """Pads to the width with copies of the last cell."""
    return {name: np.concatenate([v, np.repeat(v[-1:], width - len(v))]) for name, v in cells.items()}


def _hyper(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cell.items() if name != "seed"}


def _key(cell: Mapping[str, Any], child: int) -> Any:
    return jax.random.fold_in(jax.random.key(cell["seed"]), child)
