"""A batch of runs between two chunks of a sweep, and its form in a checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.descent import _run
from research.descent._codec import as_numbers, from_arrays, to_arrays
from research.descent._sweep_program import SweepProgram, padded
from research.reading import Is, check_shape
from research.types import Saved


class RunBatch(NamedTuple):
    """A batch of runs that are computed together, with the results so far.

    The `SweepProgram` computes `width` runs together. A batch with fewer runs is padded
    to `width` runs with copies of its last run. The arrays of results include these
    copies. A chunk is a number of epochs that run without a pause. `compile_sweep` sets
    this number.

    Attributes:
      runs: Seeds and hyper-parameters, without copies.
      initial: The objective at the initial points; None before the first chunk.
      state: Parameters and rule state after the last chunk. If each step uses the
        whole dataset, the state may also contain the objective and its gradient at
        these parameters. None before the first chunk.
      info: EpochInfos in the order of the epochs. Each covers one chunk, or several
        chunks that were read from a checkpoint.
      done: Number of finished chunks.
    """

    runs: dict[str, np.ndarray]
    initial: Any = None
    state: Any = None
    info: tuple[Any, ...] = ()
    done: int = 0

    @property
    def size(self) -> int:
        """Return the number of runs, without copies."""
        return len(self.runs["seed"])


def to_saved(batches: Sequence[RunBatch]) -> Saved:
    """Convert batches to a `Saved`, with arrays only of batches that have begun."""
    arrays = {}
    for i, batch in enumerate(batches):
        if batch.done:
            info = joined_info(jax.device_get(batch.info))
            arrays |= to_arrays(f"{i}/state", batch.state)
            arrays[f"{i}/initial"] = as_numbers(batch.initial)
            for name, values in info._asdict().items():
                if values is not None:
                    arrays[f"{i}/info/{name}"] = as_numbers(values)
    return Saved(arrays, [batch.done for batch in batches])


def from_saved(
    program: SweepProgram, batches: Sequence[RunBatch], saved: Saved
) -> list[RunBatch]:
    """Restore the batches that `to_saved` saved.

    `batches` are all batches of the sweep before their first chunk.

    Raises:
      ValueError: The checkpoint `saved` does not fit this program or these runs.
    """
    _check_values(program, saved, len(batches))
    runs = jax.device_put(padded(batches[0].runs, program.width), program.devices[0])
    like, _ = program.begin[0](runs, program.data[0])
    restored = []
    for i, (batch, done) in enumerate(zip(batches, saved.values, strict=True)):
        if done:
            _check_axes(program, saved.arrays, i, done)
            info: dict[str, Any] = dict.fromkeys(_run.EpochInfo._fields)
            for name in _recorded(program):
                info[name] = _decoded(saved.arrays[f"{i}/info/{name}"])
            batch = batch._replace(
                initial=_decoded(saved.arrays[f"{i}/initial"]),
                state=from_arrays(f"{i}/state", like, saved.arrays),
                info=(_run.EpochInfo(**info),),
                done=done,
            )
        restored.append(batch)
    return restored


def joined_info(chunks: Sequence[Any]) -> Any:
    """Concatenate the EpochInfo of several chunks along axis 1, the axis of epochs."""
    return jax.tree.map(lambda *a: np.concatenate(a, axis=1), *chunks)


def _recorded(program: SweepProgram) -> tuple[str, ...]:
    """Return the names of the fields of EpochInfo that the program records."""
    absent = {"steps"} if program.gradient_norms else {"steps", "gradient_norm"}
    return tuple(name for name in _run.EpochInfo._fields if name not in absent)


def _decoded(array: np.ndarray) -> np.ndarray:
    """Undo `as_numbers`: return uint16 as bfloat16, and other arrays unchanged."""
    return array.view(jnp.bfloat16) if array.dtype == np.uint16 else array


def _check_values(program: SweepProgram, saved: Saved, num_batches: int) -> None:
    num_chunks = program.num_epochs // program.chunk
    done_of = Is(
        (int,), lambda done: 0 <= done <= num_chunks, f"0 to {num_chunks} chunks"
    )
    check_shape(saved.values, [done_of], "the checkpoint")
    if len(saved.values) != num_batches:
        raise ValueError(
            f"the checkpoint has {len(saved.values)} batches of runs, not "
            f"{num_batches}. Use --fresh to start from the beginning."
        )


def _check_axes(
    program: SweepProgram, arrays: Mapping[str, np.ndarray], i: int, done: int
) -> None:
    """Check the first axes of batch i's saved arrays against its number of chunks."""
    first: dict[str, tuple[int, ...]] = {f"{i}/initial": (program.width,)}
    for name in _recorded(program):
        first[f"{i}/info/{name}"] = (program.width, done * program.chunk)
    for name, axes in first.items():
        if name not in arrays or arrays[name].shape[: len(axes)] != axes:
            raise ValueError(
                f"the checkpoint has no {name!r}, or its first axes are not {axes}: it "
                "was written by another version of this code. Use --fresh to start "
                "from the beginning."
            )
