"""Training every cell of a program: blocks of lanes in chunks of epochs, kept on the way, gathered at the end."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from research.checks import check_callable, check_instance, check_mapping, check_numbers
from research.descent import _run
from research.descent._sweep_batch import Block, kept, restored
from research.descent._sweep_program import SweepProgram, padded
from research.samplers import num_examples
from research.types import Checkpoints, Params, nowhere

# Cells that took less are not worth a file of their own once they are done.
SECONDS_WORTH_KEEPING = 1.0


class SweepProgress(NamedTuple):
    """How far a call of `sweep` is.

    Attributes:
      share: Of its work, in 0..1.
      cells_done, cells: Trainings that are over, and all.
      loss: The median over the cells under way of the last epoch's mean loss; NaN where all diverged.
    """

    share: float
    cells_done: int
    cells: int
    loss: float

    def __str__(self) -> str:
        """A few words for a progress bar: "cell 16 of 24, loss 0.0712"."""
        return f"cell {self.cells_done} of {self.cells}, loss {self.loss:.3g}"


class SweepResult(NamedTuple):
    """What m cells gave; every array is numpy with leading axis m.

    Attributes:
      passes: Passes over the data at each evaluation, in example gradients / n, shape (k,).
      values: The objective there, shape (m, k), on the first part that the program evaluates on (the training data
        unless others were asked for); column 0 is the initial point.
      values_on: The same for each part by name.
      info: EpochInfo of shape (m, num_epochs) leaves, without evaluations.
      params: The last parameters.
      first_bad_step: The first step (counted over all epochs) whose loss or update was not finite, or -1.
      seconds: What running took in this process, without compilation.
    """

    passes: np.ndarray
    values: np.ndarray
    values_on: dict[str, np.ndarray]
    info: _run.EpochInfo
    params: Params
    first_bad_step: np.ndarray
    seconds: float


def sweep(
    program: SweepProgram,
    cells: Mapping[str, Any],
    on_chunk: Callable[[SweepProgress], None] | None = None,
    checkpoints: Checkpoints = nowhere,
) -> SweepResult:
    """Trains every cell: blocks of `width` lanes, the last one padded with copies that are dropped again.

    Args:
      program: From `compile_sweep`.
      cells: {"seed": integers (m,), and each hyper-parameter of the program: numbers (m,)}.
      on_chunk: Called between chunks with the `SweepProgress`.
      checkpoints: Where blocks are kept between chunks, under a name made of the cells. A call that was stopped at any
        moment goes on from there, to the same bits; Ctrl-C keeps the last whole chunk.
    Returns:
      SweepResult. A cell that diverges is a result like any other: its values turn inf or NaN and its first bad step says
      where.
    Raises:
      ValueError: A name is missing or unknown, lengths differ, there is no cell, a seed is not an integer in
        0..2^31-1, a hyper-parameter is not finite, or a learning rate is negative.
      OSError: A checkpoint cannot be written.
    Example:
      >>> from research import lanes, samplers, update_rules, workloads
      >>> quadratic = workloads.make_workload("quadratic")
      >>> program = lanes.compile_sweep(quadratic, update_rules.gradient_descent, samplers.full_batch(1), 20)
      >>> trained = sweep(program, {"seed": [0, 1, 2], "learning_rate": [0.1, 0.1, 0.2]}, on_chunk=None)
      >>> trained.values.shape, trained.first_bad_step.tolist()
      ((3, 21), [-1, -1, -1])
    """
    check_instance(
        "program",
        program,
        SweepProgram,
        "Make one by research.descent.compile_sweep(...).",
    )
    cells = _check_cells(program, cells)
    if on_chunk is not None:
        check_callable("on_chunk", on_chunk, "progress")
    check_callable("checkpoints", checkpoints, "name")
    checkpoint = checkpoints(_name(program, cells))
    began = time.perf_counter()
    blocks = [
        Block({name: values[i : i + program.width] for name, values in cells.items()})
        for i in range(0, len(cells["seed"]), program.width)
    ]
    saved = checkpoint.load()
    if saved is not None:
        blocks = restored(program, blocks, saved)
    num_chunks = program.num_epochs // program.chunk
    unfinished = [i for i, block in enumerate(blocks) if block.done < num_chunks]
    try:
        for start in range(0, len(unfinished), len(program.devices)):
            together = unfinished[start : start + len(program.devices)]
            while any(blocks[i].done < num_chunks for i in together):
                for i, block in zip(
                    together,
                    _advance(program, [blocks[i] for i in together]),
                    strict=True,
                ):
                    blocks[i] = block
                if checkpoint.due():
                    checkpoint.save(kept(blocks))
                if on_chunk is not None:
                    on_chunk(_progress(num_chunks, blocks, together))
    except KeyboardInterrupt:
        checkpoint.save(kept(blocks))
        raise
    seconds = time.perf_counter() - began
    if unfinished and seconds > SECONDS_WORTH_KEEPING:
        checkpoint.save(kept(blocks))
    return _collect(program, blocks, seconds)


def _advance(program: SweepProgram, blocks: Sequence[Block]) -> list[Block]:
    """One more chunk of each, block i on device i, all at the same time: a dispatch returns before its device is done."""
    advanced = []
    for i, block in enumerate(blocks):
        if block.done * program.chunk < program.num_epochs:
            place = jax.sharding.SingleDeviceSharding(program.devices[i])
            cells = jax.device_put(padded(block.cells, program.width), place)
            if block.state is None:
                state, initial = program.begin[i](cells, program.data[i])
                block = block._replace(state=state, initial=initial)
            epochs = np.arange(
                block.done * program.chunk,
                (block.done + 1) * program.chunk,
                dtype=np.int32,
            )
            placed = jax.device_put((block.state, epochs), place)
            state, info = program.advance[i](
                placed[0], cells, placed[1], program.data[i]
            )
            block = block._replace(
                state=state, info=(*block.info, info), done=block.done + 1
            )
        advanced.append(block)
    jax.block_until_ready([block.state for block in advanced])
    return advanced


def _progress(
    num_chunks: int, blocks: Sequence[Block], together: Sequence[int]
) -> SweepProgress:
    losses = np.concatenate(
        [np.asarray(blocks[i].info[-1].loss)[: blocks[i].size, -1] for i in together]
    )
    finite = losses[np.isfinite(losses)]
    return SweepProgress(
        share=sum(block.done for block in blocks) / (num_chunks * len(blocks)),
        cells_done=sum(block.size for block in blocks if block.done == num_chunks),
        cells=sum(block.size for block in blocks),
        loss=float(np.median(finite)) if finite.size else float("nan"),
    )


def _collect(
    program: SweepProgram, blocks: Sequence[Block], seconds: float
) -> SweepResult:
    """Blocks to cells: pads dropped, chunks joined, evaluations of the first epoch unfolded."""
    blocks = [block._replace(**jax.device_get(block._asdict())) for block in blocks]
    initial = np.concatenate([block.initial[: block.size] for block in blocks])
    params = jax.tree.map(
        lambda *a: np.concatenate(a), *(_first(b.state.params, b.size) for b in blocks)
    )
    joined = [
        _first(jax.tree.map(lambda *a: np.concatenate(a, axis=1), *b.info), b.size)
        for b in blocks
    ]
    info = jax.tree.map(lambda *a: np.concatenate(a), *joined)
    values = np.concatenate(
        [initial[:, None], info.evaluations[:, 0], info.evaluations[:, 1:, -1]],
        axis=1,
    )
    bad = info.first_bad_step
    epoch = np.argmax(bad >= 0, axis=1)
    within = np.take_along_axis(bad, epoch[:, None], axis=1)[:, 0]
    first_bad = np.where(within >= 0, epoch * program.sampler.num_batches + within, -1)
    by_part = values[..., None] if len(program.evaluate_on) == 1 else values
    values_on = {part: by_part[..., i] for i, part in enumerate(program.evaluate_on)}
    values = values_on[program.evaluate_on[0]]
    info = info._replace(evaluations=None)
    return SweepResult(
        _passes(program), values, values_on, info, params, first_bad, seconds
    )


def _first(tree: Any, size: int) -> Any:
    return jax.tree.map(lambda a: a[:size], tree)


def _passes(program: SweepProgram) -> np.ndarray:
    """Passes at each evaluation; an epoch that leaves out n mod b examples is a little less than one."""
    n = num_examples(program.data[0]["train"]) or 1
    within = _run.evaluation_points(program.sampler.num_batches)
    ends = program.sampler.num_batches * np.arange(2, program.num_epochs + 1)
    return np.concatenate([[0], within, ends]) * program.sampler.batch_size / n


def _name(program: SweepProgram, cells: Mapping[str, np.ndarray]) -> str:
    """Cells by what they are; what they share (workload, rule, sampler) is named by the caller's checkpoints."""
    digest = hashlib.sha256(
        f"{program.num_epochs} {program.chunk} {program.width}".encode()
    )
    for name in sorted(cells):
        digest.update(
            f"{name} {cells[name].dtype.str} ".encode() + cells[name].tobytes()
        )
    return f"cells-{digest.hexdigest()[:12]}"


def _check_cells(
    program: SweepProgram, cells: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    check_mapping("cells", cells, "names to arrays")
    wanted = {"seed", *program.hyperparameters}
    if set(cells) != wanted:
        raise ValueError(f"cells must name {sorted(wanted)}; got {sorted(cells)}.")
    for name, values in cells.items():
        check_numbers(f"cells[{name!r}]", values)
    arrays = {name: np.asarray(values) for name, values in cells.items()}
    lengths = {name: a.shape for name, a in arrays.items()}
    if (
        len(set(lengths.values())) != 1
        or arrays["seed"].ndim != 1
        or not len(arrays["seed"])
    ):
        raise ValueError(
            f"every entry of cells must have the same shape (m,), m > 0; got {lengths}."
        )
    seeds = arrays["seed"]
    if seeds.dtype.kind not in "iu" or seeds.min() < 0 or seeds.max() >= 2**31:
        raise ValueError(
            f"seeds must be integers in 0..2**31-1; got {seeds[:5]} of dtype {seeds.dtype}."
        )
    arrays["seed"] = seeds.astype(int)  # As the program was compiled for.
    for name in program.hyperparameters:
        values = arrays[name].astype(float)
        bad = ~np.isfinite(values) | (
            (values < 0) if name == "learning_rate" else False
        )
        if bad.any():
            raise ValueError(
                f"{name} must be finite and not negative; got {name}={values[bad][0]} in cell {bad.argmax()}."
            )
        arrays[name] = values
    return arrays
