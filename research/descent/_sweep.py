"""Sweep: run one compiled program for many seeds and hyper-parameters, in batches."""

import functools
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from research.checks import check_callable, check_instance, check_mapping, check_numbers
from research.descent import _run
from research.descent._host_loop import advance_until_done
from research.descent._sweep_batch import RunBatch, from_saved, joined_info, to_saved
from research.descent._sweep_program import SweepProgram, padded
from research.samplers import num_examples
from research.types import Checkpoints, Params, no_checkpoints
from research.update_rules._transforms import evaluation_params


class SweepProgress(NamedTuple):
    """Progress of a call of `sweep`.

    A run is one training. `sweep` trains a group of runs at the same time. A chunk is a
    number of epochs. `sweep` reports its progress each time a group has trained for a
    chunk.

    Attributes:
      share: Fraction of the work that is done, from 0 to 1.
      runs_done, runs: Number of finished runs, and number of all runs.
      loss: Median of the losses of the runs that were trained in the latest chunk. The
        loss of a run is the mean of the losses of its steps in the last epoch of this
        chunk. Runs whose loss is not finite are left out. If no loss is finite, the
        median is NaN.
    """

    share: float
    runs_done: int
    runs: int
    loss: float

    def __str__(self) -> str:
        """Return a short text for a progress bar: "run 16 of 24, loss 0.0712"."""
        return f"run {self.runs_done} of {self.runs}, loss {self.loss:.3g}"


class SweepResult(NamedTuple):
    """Result of a sweep over m runs.

    A run is one training, with its own seed and hyper-parameters. The arrays are NumPy
    arrays. The first axis of each array except `passes` is over the m runs.

    Attributes:
      passes: Number of passes over the training data before each of the k evaluations,
        shape (k,). One pass stands for n gradients of single examples, where n is the
        number of training examples. The first evaluation is at the initial point. In
        epoch 0, there is an evaluation after each of the steps that `evaluation_points`
        returns. The last of these steps is the last step of epoch 0. In each later
        epoch, there is one evaluation, at the end of the epoch.
      values: The objective at each evaluation, shape (m, k). It is computed on the part
        of the data that the argument `evaluate_on` of `compile_sweep` names first (by
        default the training data). Column 0 is the initial point.
      values_on: Dict from the name of each part in `evaluate_on` to the objective on
        this part, shape (m, k).
      info: The EpochInfo, a summary of each epoch, with leaves of shape (m,
        num_epochs). The fields `evaluations` and `steps` of `info` are None, and
        `gradient_norm` is None if the program was compiled with gradient_norms=False.
      params: The last parameters, each leaf with leading axis m. If the rule keeps an
        average of the parameters, `params` is this average, and `values` are computed
        at the average, too.
      first_bad_step: For each run, the first step with a loss or an update that is not
        finite, shape (m,). The steps are counted from 0 over all epochs. -1 means that
        there is no such step.
      seconds: Wall time of the sweep in this process, without compilation.
    """

    passes: Float[np.ndarray, " evaluations"]
    values: Float[np.ndarray, "runs evaluations"]
    values_on: dict[str, Float[np.ndarray, "runs evaluations"]]
    info: _run.EpochInfo
    params: Params
    first_bad_step: Int[np.ndarray, " runs"]
    seconds: float


def sweep(
    program: SweepProgram,
    runs: Mapping[str, Any],
    on_chunk: Callable[[SweepProgress], None] | None = None,
    checkpoints: Checkpoints = no_checkpoints,
) -> SweepResult:
    """Train m runs of a compiled program, in batches of `program.width` runs.

    Run i is a training with the i-th seed and the i-th value of each hyper-parameter.
    The last batch is padded with copies of its last run, which are dropped at the end.

    The epochs are run in chunks of `program.chunk` epochs. If the argument
    `checkpoints` is given, a long sweep can be resumed: Ctrl-C saves the state after
    the last complete chunk. To resume, repeat the call. The result is bit-identical to
    that of an uninterrupted call. The name of the checkpoint contains a digest of these
    settings:

    - the seeds and the hyper-parameters;
    - the number of epochs, the length of a chunk, and the number of runs in a batch;
    - the sampler;
    - the parts of the data on which the objective is evaluated;
    - whether norms of gradients are recorded.

    The digest depends neither on the rule nor on the workload. So for another rule or
    another workload, `checkpoints` must be a function that saves to another folder.

    Args:
      program: The program from `compile_sweep`.
      runs: Dict from names to arrays of shape (m,). The array of "seed" has integers.
        There is an array of numbers for each hyper-parameter of the program.
      on_chunk: Function called with the `SweepProgress` after each chunk of epochs.
        `compile_sweep` sets the length of a chunk.
      checkpoints: Function from a name to the `Checkpoint` with this name, such as
        `research.runs.checkpoints_in(folder)`. The batches are saved in this
        `Checkpoint` between chunks. By default nothing is saved.
    Returns:
      The SweepResult. A run that diverges is not an error: its values become inf or
      NaN, and its first bad step is recorded.
    Raises:
      ValueError: A name in `runs` is missing or unknown, arrays of `runs` differ in
        length, there is no run, a seed is not an integer in 0..2^31-1, a
        hyper-parameter is not finite, a learning rate is negative, or a checkpoint
        belongs to another program.
      OSError: A checkpoint cannot be written.
    Example:
      >>> from research import descent, samplers, update_rules, workloads
      >>> quadratic = workloads.make_workload("quadratic")
      >>> rule, sampler = update_rules.gradient_descent, samplers.full_batch(1)
      >>> program = descent.compile_sweep(quadratic, rule, sampler, 20)
      >>> trained = sweep(
      ...     program, {"seed": [0, 1, 2], "learning_rate": [0.1, 0.1, 0.2]}
      ... )
      >>> trained.values.shape, trained.first_bad_step.tolist()
      ((3, 21), [-1, -1, -1])
    """
    check_instance(
        "program",
        program,
        SweepProgram,
        "Make one by research.descent.compile_sweep(...).",
    )
    runs = _check_runs(program, runs)
    if on_chunk is not None:
        check_callable("on_chunk", on_chunk, "progress")
    check_callable("checkpoints", checkpoints, "name")
    kept = checkpoints is not no_checkpoints
    checkpoint = checkpoints(_name(program, runs) if kept else "")
    began = time.perf_counter()
    batches = [
        RunBatch({name: values[i : i + program.width] for name, values in runs.items()})
        for i in range(0, len(runs["seed"]), program.width)
    ]
    saved = checkpoint.load()
    if saved is not None:
        batches = from_saved(program, batches, saved)
    end = advance_until_done(
        _Progress(batches, ()),
        is_done=lambda at: not _under_way(program, at.batches),
        advance=functools.partial(_advance, program),
        show=lambda at: on_chunk and on_chunk(_shown(program, at)),
        to_saved=lambda at: to_saved(at.batches),
        checkpoint=checkpoint,
    )
    return _collect(program, end.batches, time.perf_counter() - began)


class _Progress(NamedTuple):
    """All batches, and the numbers of the batches that the last chunk advanced."""

    batches: Sequence[RunBatch]
    advanced: Sequence[int]


def _under_way(program: SweepProgram, batches: Sequence[RunBatch]) -> list[int]:
    """Return the numbers of the next batches to advance, one for each device."""
    num_chunks = program.num_epochs // program.chunk
    unfinished = [i for i, batch in enumerate(batches) if batch.done < num_chunks]
    return unfinished[: len(program.devices)]


def _advance(program: SweepProgram, at: _Progress) -> _Progress:
    """Run one more chunk of each batch in progress, all at the same time.

    A dispatch returns before its device has finished, so the devices work in parallel.
    """
    under_way, batches = _under_way(program, at.batches), list(at.batches)
    for device, i in enumerate(under_way):
        batches[i] = _dispatch(program, batches[i], device)
    jax.block_until_ready([batches[i].state for i in under_way])
    return _Progress(batches, under_way)


def _dispatch(program: SweepProgram, batch: RunBatch, device: int) -> RunBatch:
    """Start one more chunk of a batch on a device. Return the batch after the chunk."""
    place = jax.sharding.SingleDeviceSharding(program.devices[device])
    runs = jax.device_put(padded(batch.runs, program.width), place)
    data = program.data[device]
    if batch.state is None:
        state, initial = program.begin[device](runs, data)
        batch = batch._replace(state=state, initial=initial)
    first = batch.done * program.chunk
    epochs = np.arange(first, first + program.chunk, dtype=np.int32)
    state, epochs = jax.device_put((batch.state, epochs), place)
    orders = program.orders[device](runs, epochs)
    state, info = program.advance[device](state, runs, epochs, orders, data)
    return batch._replace(state=state, info=(*batch.info, info), done=batch.done + 1)


def _shown(program: SweepProgram, at: _Progress) -> SweepProgress:
    num_chunks = program.num_epochs // program.chunk
    advanced = [at.batches[i] for i in at.advanced]
    losses = np.concatenate(
        [np.asarray(batch.info[-1].loss)[: batch.size, -1] for batch in advanced]
    )
    finite = losses[np.isfinite(losses)]
    done = sum(batch.done for batch in at.batches)
    return SweepProgress(
        share=done / (num_chunks * len(at.batches)),
        runs_done=sum(batch.size for batch in at.batches if batch.done == num_chunks),
        runs=sum(batch.size for batch in at.batches),
        loss=float(np.median(finite)) if finite.size else float("nan"),
    )


def _collect(
    program: SweepProgram, batches: Sequence[RunBatch], seconds: float
) -> SweepResult:
    """Return the results of all runs, without those of the copies that pad a batch."""
    batches = [batch._replace(**jax.device_get(batch._asdict())) for batch in batches]
    initial = np.concatenate([batch.initial[: batch.size] for batch in batches])
    params = jax.tree.map(
        lambda *a: np.concatenate(a),
        *(
            _first(evaluation_params(b.state.rule, b.state.params), b.size)
            for b in batches
        ),
    )
    joined = [_first(joined_info(b.info), b.size) for b in batches]
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
    """Return the number of passes over the n training examples at each evaluation.

    An epoch may be less than one pass: minibatches of b examples leave out n mod b.
    """
    n = num_examples(program.data[0]["train"]) or 1
    within = _run.evaluation_points(program.sampler.num_batches)
    ends = program.sampler.num_batches * np.arange(2, program.num_epochs + 1)
    return np.concatenate([[0], within, ends]) * program.sampler.batch_size / n


def _name(program: SweepProgram, runs: Mapping[str, np.ndarray]) -> str:
    """Return the name of the checkpoint: "runs-" and a digest.

    The digest identifies the runs, the sampler, the evaluated parts of the workload and
    what is recorded. It does not identify the rule and the workload. The caller's
    `checkpoints` must do so.
    """
    sampler = program.sampler
    settings = (program.num_epochs, program.chunk, program.width, program.evaluate_on)
    digest = hashlib.sha256(f"{settings} {sampler[:2]}".encode())
    if not program.gradient_norms:
        digest.update(b"without norms of gradients")
    # The program that draws the order of the examples; it is not compiled.
    drawn = jax.jit(sampler.indices).lower(jax.random.key(0))
    digest.update(drawn.as_text().encode())
    for name in sorted(runs):
        digest.update(f"{name} {runs[name].dtype.str} ".encode() + runs[name].tobytes())
    return f"runs-{digest.hexdigest()[:12]}"


def _check_runs(
    program: SweepProgram, runs: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    check_mapping("runs", runs, "names to arrays")
    wanted = {"seed", *program.hyperparameters}
    if set(runs) != wanted:
        raise ValueError(
            f"runs must name exactly {sorted(wanted)}; got {sorted(runs)}."
        )
    for name, values in runs.items():
        check_numbers(f"runs[{name!r}]", values)
    arrays = {name: np.asarray(values) for name, values in runs.items()}
    shapes = {name: a.shape for name, a in arrays.items()}
    seeds = arrays["seed"]
    if len(set(shapes.values())) != 1 or seeds.ndim != 1 or not len(seeds):
        raise ValueError(
            f"every entry of runs must have the same shape (m,), m > 0; got {shapes}."
        )
    if seeds.dtype.kind not in "iu" or seeds.min() < 0 or seeds.max() >= 2**31:
        raise ValueError(
            f"seeds must be integers in 0..2**31-1; got {seeds[:5]} of dtype "
            f"{seeds.dtype}."
        )
    arrays["seed"] = seeds.astype(int)  # The dtype that the program was compiled for.
    for name in program.hyperparameters:
        arrays[name] = _check_hyperparameter(name, arrays[name].astype(float))
    return arrays


def _check_hyperparameter(name: str, values: np.ndarray) -> np.ndarray:
    bad = ~np.isfinite(values)
    if name == "learning_rate":
        bad |= values < 0
    if bad.any():
        raise ValueError(
            f"{name} must be finite, and a learning rate at least 0; got "
            f"{name}={values[bad][0]} in run {bad.argmax()}."
        )
    return values
