"""Many trainings at once: cells that share a program run in blocks of fixed width, over the devices there are."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research import descent
from research.types import Batch, Params, Sampler, Workload

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


class Trained(NamedTuple):
    """What m cells gave; every array is numpy with leading axis m.

    Attributes:
      passes: Passes over the data at each evaluation, in example gradients / n, shape (k,).
      values: The training objective there, shape (m, k); column 0 is the initial point.
      records: EpochRecord of shape (m, num_epochs) leaves, without evaluations.
      params: The last parameters.
      first_bad_step: The first step (counted over all epochs) whose loss or update was not finite, or -1.
      seconds: What running took, without compilation.
    """

    passes: np.ndarray
    values: np.ndarray
    records: descent.EpochRecord
    params: Params
    first_bad_step: np.ndarray
    seconds: float


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
      >>> from research import samplers, update_rules, workloads
      >>> quadratic = workloads.make_workload("quadratic")
      >>> program = compile_program(quadratic, update_rules.gradient_descent, samplers.full_batch(1), 20)
      >>> trained = train(program, {"seed": [0, 1], "learning_rate": [0.1, 0.1]})
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
        cells = jax.device_put(_block({name: np.ones(1) for name in names} | {"seed": np.zeros(1, int)}, width), place)
        compiled = jax.jit(jax.vmap(begin, in_axes=(0, None))).lower(cells, train).compile()
        states, _ = compiled(cells, train)
        epochs = jax.device_put(jnp.arange(chunk, dtype=jnp.int32), place)
        begins.append(compiled)
        advances.append(
            jax.jit(jax.vmap(advance, in_axes=(0, 0, None, None))).lower(states, cells, epochs, train).compile()
        )
        trains.append(train)
    seconds = time.perf_counter() - started
    return Program(
        tuple(begins), tuple(advances), tuple(trains), names, sampler, num_epochs, chunk, width, devices, seconds
    )


def train(program: Program, cells: Mapping[str, Any], on_chunk: Callable[[float], None] | None = None) -> Trained:
    """Trains every cell: blocks of `width` lanes, the last one padded with copies that are dropped again.

    Args:
      program: From `compile_program`.
      cells: {"seed": integers (m,), and each hyper-parameter of the program: numbers (m,)}.
      on_chunk: Called between chunks with the share of the work that is done, in 0..1.
    Returns:
      Trained. A cell that diverges is a result like any other: its values turn inf or NaN and its first bad step says
      where.
    Raises:
      ValueError: A name is missing or unknown, lengths differ, there is no cell, a seed is not an integer in
        0..2^31-1, a hyper-parameter is not finite, or a learning rate is negative.
    """
    cells = _check_cells(program, cells)
    blocks = [
        {name: values[i : i + program.width] for name, values in cells.items()}
        for i in range(0, len(cells["seed"]), program.width)
    ]
    rounds = [blocks[i : i + len(program.devices)] for i in range(0, len(blocks), len(program.devices))]
    began, outcomes = time.perf_counter(), []
    for done, together in enumerate(rounds):
        share = (lambda part, done=done: on_chunk((done + part) / len(rounds))) if on_chunk else None
        outcomes += _train_blocks(program, together, share)
    seconds = time.perf_counter() - began
    return _collect(program, outcomes, seconds)


def _passes(program: Program) -> np.ndarray:
    """Passes at each evaluation; an epoch that leaves out n mod b examples is a little less than one."""
    train = program.train[0]
    n = 1 if train is None else len(train.y)
    within = descent.evaluation_points(program.sampler.num_batches)
    ends = program.sampler.num_batches * np.arange(2, program.num_epochs + 1)
    return np.concatenate([[0], within, ends]) * program.sampler.batch_size / n


def _train_blocks(program: Program, blocks: list[dict], on_chunk: Callable[[float], None] | None) -> list[tuple]:
    """One block a device, all advancing at the same time: a dispatch returns before the device is done."""
    places = [jax.sharding.SingleDeviceSharding(device) for device in program.devices]
    cells = [jax.device_put(_block(b, program.width), place) for b, place in zip(blocks, places, strict=False)]
    begun = [program.begin[i](cell, program.train[i]) for i, cell in enumerate(cells)]
    states = [state for state, _ in begun]
    records: list[list] = [[] for _ in blocks]
    num_chunks = program.num_epochs // program.chunk
    for k in range(num_chunks):
        epochs = np.arange(k * program.chunk, (k + 1) * program.chunk, dtype=np.int32)
        for i, cell in enumerate(cells):
            states[i], record = program.advance[i](states[i], cell, jax.device_put(epochs, places[i]), program.train[i])
            records[i].append(record)
        jax.block_until_ready(states)
        if on_chunk is not None:
            on_chunk((k + 1) / num_chunks)
    return [
        jax.device_get((value, states[i].params, records[i], len(blocks[i]["seed"])))
        for i, (_, value) in enumerate(begun)
    ]


def _collect(program: Program, outcomes: list[tuple], seconds: float) -> Trained:
    """Blocks to cells: pads dropped, chunks joined, evaluations of the first epoch unfolded."""
    initial = np.concatenate([value[:size] for value, _, _, size in outcomes])
    params = jax.tree.map(lambda *a: np.concatenate(a), *(_first(p, size) for _, p, _, size in outcomes))
    joined = [
        _first(jax.tree.map(lambda *a: np.concatenate(a, axis=1), *records), size) for _, _, records, size in outcomes
    ]
    records = jax.tree.map(lambda *a: np.concatenate(a), *joined)
    values = np.concatenate([initial[:, None], records.evaluations[:, 0], records.evaluations[:, 1:, -1]], axis=1)
    bad = records.first_bad_step
    epoch = np.argmax(bad >= 0, axis=1)
    within = np.take_along_axis(bad, epoch[:, None], axis=1)[:, 0]
    first_bad = np.where(within >= 0, epoch * program.sampler.num_batches + within, -1)
    return Trained(_passes(program), values, records._replace(evaluations=None), params, first_bad, seconds)


def _first(tree: Any, size: int) -> Any:
    return jax.tree.map(lambda a: a[:size], tree)


def _block(cells: Mapping[str, np.ndarray], width: int) -> dict[str, np.ndarray]:
    """Pads to the width with copies of the last cell."""
    return {name: np.concatenate([v, np.repeat(v[-1:], width - len(v))]) for name, v in cells.items()}


def _hyper(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cell.items() if name != "seed"}


def _key(cell: Mapping[str, Any], child: int) -> Any:
    return jax.random.fold_in(jax.random.key(cell["seed"]), child)


def _check_cells(program: Program, cells: Mapping[str, Any]) -> dict[str, np.ndarray]:
    wanted = {"seed", *program.hyperparameters}
    if set(cells) != wanted:
        raise ValueError(f"cells must name {sorted(wanted)}; got {sorted(cells)}.")
    arrays = {name: np.asarray(values) for name, values in cells.items()}
    lengths = {name: a.shape for name, a in arrays.items()}
    if len(set(lengths.values())) != 1 or arrays["seed"].ndim != 1 or not len(arrays["seed"]):
        raise ValueError(f"every entry of cells must have the same shape (m,), m > 0; got {lengths}.")
    seeds = arrays["seed"]
    if seeds.dtype.kind not in "iu" or seeds.min() < 0 or seeds.max() >= 2**31:
        raise ValueError(f"seeds must be integers in 0..2**31-1; got {seeds[:5]} of dtype {seeds.dtype}.")
    for name in program.hyperparameters:
        values = arrays[name].astype(float)
        bad = ~np.isfinite(values) | ((values < 0) if name == "learning_rate" else False)
        if bad.any():
            raise ValueError(
                f"{name} must be finite and not negative; got {name}={values[bad][0]} in cell {bad.argmax()}."
            )
        arrays[name] = values
    return arrays
