"""A block of lanes between two chunks, and how it is kept: to the last bit, whatever its rule's state is made of."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.descent import _run
from research.descent._sweep_program import SweepProgram, padded
from research.reading import Is, check_shape
from research.reading.arrays import check_arrays
from research.types import Array, Saved

INFO = tuple(name for name in _run.EpochInfo._fields if name != "steps")


class Block(NamedTuple):
    """At most `width` cells, and what came out of the chunks that are done; pads are among its arrays.

    Attributes:
      cells: Seeds and hyper-parameters, without pads.
      initial: The objective at the initial points; None before the first chunk.
      state: Parameters and rule state after the last chunk; None before the first.
      info: One EpochInfo a chunk, or of several chunks together.
      done: How many chunks.
    """

    cells: dict[str, np.ndarray]
    initial: Any = None
    state: Any = None
    info: tuple[Any, ...] = ()
    done: int = 0

    @property
    def size(self) -> int:
        """Cells without pads."""
        return len(self.cells["seed"])


def kept(blocks: Sequence[Block]) -> Saved:
    """Blocks as arrays by name; those that have not begun are left out."""
    arrays = {}
    for i, block in enumerate(blocks):
        if block.done:
            info = jax.tree.map(
                lambda *a: np.concatenate(a, axis=1), *jax.device_get(block.info)
            )
            leaves = {
                f"state/{j}": leaf
                for j, leaf in enumerate(jax.tree.leaves(block.state))
            }
            named = {
                "initial": block.initial,
                **leaves,
                **{f"info/{name}": getattr(info, name) for name in INFO},
            }
            arrays |= {f"{i}/{name}": as_numbers(leaf) for name, leaf in named.items()}
    return Saved(arrays, [block.done for block in blocks])


def restored(
    program: SweepProgram, blocks: Sequence[Block], saved: Saved
) -> list[Block]:
    """Undoes `kept` for the same cells of the same program."""
    cells = jax.device_put(padded(blocks[0].cells, program.width), program.devices[0])
    begun = program.begin[0](cells, program.data[0])[
        0
    ]  # A state, for its structure and its types.
    leaves, structure = jax.tree.flatten(begun)
    back = []
    _check(program, saved, len(blocks), leaves)
    for i, (block, done) in enumerate(zip(blocks, saved.values, strict=True)):
        if done:
            state = [
                like(leaf, saved.arrays[f"{i}/state/{j}"])
                for j, leaf in enumerate(leaves)
            ]
            info: dict[str, Any] = {
                name: saved.arrays[f"{i}/info/{name}"] for name in INFO
            }
            block = block._replace(
                initial=saved.arrays[f"{i}/initial"],
                state=jax.tree.unflatten(structure, state),
                info=(_run.EpochInfo(**info, steps=None),),
                done=done,
            )
        back.append(block)
    return back


def _check(
    program: SweepProgram, saved: Saved, num_blocks: int, leaves: Sequence[Any]
) -> None:
    """Refuses what is whole and yet is not what `kept` gives for these blocks."""
    num_chunks = program.num_epochs // program.chunk
    done_of = Is(
        (int,), lambda done: 0 <= done <= num_chunks, f"0 to {num_chunks} chunks"
    )
    check_shape(saved.values, [done_of], "the checkpoint")
    if len(saved.values) != num_blocks:
        raise ValueError(
            f"the checkpoint has {len(saved.values)} blocks of cells, not {num_blocks}."
        )
    for i, done in enumerate(saved.values):
        if done:
            state = {
                f"{i}/state/{j}": as_numbers(leaf) for j, leaf in enumerate(leaves)
            }
            check_arrays(saved.arrays, state, "the checkpoint")
            lead = {f"{i}/initial": (program.width,)}
            lead |= {
                f"{i}/info/{name}": (program.width, done * program.chunk)
                for name in INFO
            }
            for name, axes in lead.items():
                if (
                    name not in saved.arrays
                    or saved.arrays[name].shape[: len(axes)] != axes
                ):
                    raise ValueError(
                        f"the checkpoint lacks {name!r}, or its first axes are not {axes}."
                    )


def as_numbers(leaf: Array | np.ndarray) -> np.ndarray:
    """An array that any .npz can hold: a key by its data, a type that NumPy lacks (bfloat16) by its bits."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return (
        array
        if array.dtype.kind in "biufc" and array.dtype.isbuiltin == 1
        else array.view(f"u{array.itemsize}")
    )


def like(leaf: Array, array: np.ndarray) -> Any:
    """Undoes `as_numbers`, told by a leaf of the same kind."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(
            jnp.asarray(array), impl=jax.random.key_impl(leaf)
        )
    return array if array.dtype == leaf.dtype else array.view(leaf.dtype)
