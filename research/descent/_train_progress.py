"""Where a training is between two looks: how it is kept, to the last bit, and what it has given in the end."""

import hashlib
from typing import Any, NamedTuple

import jax
import numpy as np

from research.descent import _step
from research.descent._sweep_batch import as_numbers, like
from research.reading import NUMBER, Is, check_shape
from research.reading.arrays import check_arrays
from research.types import Params, Saved
from research.update_rules._transforms import evaluation_params


class TrainResult(NamedTuple):
    """What a training gave; every array is numpy.

    Attributes:
      params: The last parameters; a rule that averages gives its average.
      steps: The `Info` of every step, leaves of shape (num_epochs, num_batches).
      evaluations: What `evaluate` gave, by name: at the start, then after each epoch, shape (num_epochs + 1,).
      first_bad_step: The first step, counted over all epochs, whose loss or update was not finite, or -1.
      seconds: What the steps took, in all processes that worked on it, without compilation and evaluation.
      compile_seconds: What compiling took in this process.
    """

    params: Params
    steps: _step.Info
    evaluations: dict[str, np.ndarray]
    first_bad_step: int
    seconds: float
    compile_seconds: float


class Place(NamedTuple):
    """Where a training is: `step` steps of epoch `epoch` are done, and what they left.

    Attributes:
      epoch, step: From 0.
      state: Parameters and rule state.
      info: Of this epoch's steps, leaves of shape (num_batches,); NaN where they are still to come.
      earlier: The info of each epoch that is over.
      evaluations: At the start, and after each epoch that is over.
      seconds: What the steps took.
      training: A digest of what the training began with, by which a checkpoint of another one is known.
    """

    epoch: int
    step: int
    state: _step.State
    info: Any
    earlier: tuple[Any, ...]
    evaluations: tuple[dict[str, float], ...]
    seconds: float
    training: str


def digest(words: str, *begun_with: Any) -> str:
    """Of the words, and of the dtypes, shapes and bytes of all leaves."""
    found = hashlib.sha256(words.encode())
    for leaf in map(as_numbers, jax.tree.leaves(begun_with)):
        found.update(f"{leaf.dtype} {leaf.shape}".encode() + leaf.tobytes())
    return found.hexdigest()


def usable(state: _step.State) -> Params:
    """The parameters to be used, on one device: a rule that averages gives its average."""
    params = evaluation_params(state.rule, state.params)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), params)


def kept(at: Place) -> Saved:
    """A place as arrays by name."""
    leaves = {
        f"state/{i}": as_numbers(leaf)
        for i, leaf in enumerate(jax.tree.leaves(at.state))
    }
    for name in _step.Info._fields:
        leaves[f"info/{name}"] = np.asarray(getattr(at.info, name))
        leaves[f"earlier/{name}"] = np.array(
            [getattr(info, name) for info in at.earlier]
        )
    return Saved(
        leaves, [at.training, at.epoch, at.step, list(at.evaluations), at.seconds]
    )


def check_alike(state: _step.State) -> None:
    """Refuses a training whose devices have parted, as those of a rule do that looks at `indices` itself (SAGA)."""
    for leaf in jax.tree.leaves(state):
        first, *others = (as_numbers(shard.data) for shard in leaf.addressable_shards)
        if any(first.tobytes() != other.tobytes() for other in others):
            raise ValueError(
                "the devices' states differ: this rule uses the batch's indices itself. Give devices=1."
            )


_COUNT = Is((int,), lambda count: 0 <= count < 2**31, "a count")
SHAPE = {
    "training": str,
    "epoch": _COUNT,
    "step": _COUNT,
    "evaluations": [{str: NUMBER}],
    "seconds": NUMBER,
}


def restored(start: Place, saved: Saved, num_epochs: int, evaluated: bool) -> Place:
    """Undoes `kept`, for a training that begins at `start`; another training's is refused."""
    other = ValueError(
        "the checkpoint is of another training: another model, rule, start or key, or other data, batches, epochs, "
        "evaluations or devices. Begin anew (--fresh)."
    )
    values = (
        dict(zip(SHAPE, saved.values, strict=False))
        if isinstance(saved.values, list)
        else {}
    )
    if values.get("training") != start.training:
        raise other
    check_shape(values, SHAPE, "the checkpoint")
    training, epoch, step, evaluations, seconds = values.values()
    if epoch > num_epochs or len(evaluations) != (epoch + 1) * evaluated:
        raise other
    leaves, structure = jax.tree.flatten(start.state)
    one = {name: np.asarray(getattr(start.info, name)) for name in _step.Info._fields}
    wanted = {f"state/{i}": as_numbers(leaf) for i, leaf in enumerate(leaves)}
    wanted |= {f"info/{name}": array for name, array in one.items()}
    if epoch:
        wanted |= {
            f"earlier/{name}": np.empty((epoch, *array.shape), array.dtype)
            for name, array in one.items()
        }
    check_arrays(saved.arrays, wanted, "the checkpoint")
    put = lambda now, then: jax.device_put(then, now.sharding)
    state = [
        put(leaf, like(leaf, saved.arrays[f"state/{i}"]))
        for i, leaf in enumerate(leaves)
    ]
    info_of: Any = _step.Info  # Of numpy's arrays, here.
    info = info_of(
        *(
            put(getattr(start.info, n), saved.arrays[f"info/{n}"])
            for n in _step.Info._fields
        )
    )
    earlier = info_of(
        *(saved.arrays.get(f"earlier/{name}") for name in _step.Info._fields)
    )
    return Place(
        epoch=epoch,
        step=step,
        state=jax.tree.unflatten(structure, state),
        info=info,
        earlier=tuple(jax.tree.map(lambda a, e=e: a[e], earlier) for e in range(epoch)),
        evaluations=tuple(evaluations),
        seconds=seconds,
        training=training,
    )


def collected(at: Place, compile_seconds: float) -> TrainResult:
    """What a training gave, at the place where it has ended."""
    steps = jax.tree.map(lambda *a: np.stack(a), *at.earlier)
    good = (np.isfinite(steps.loss) & np.isfinite(steps.update_norm)).ravel()
    names = at.evaluations[0] if at.evaluations else {}
    return TrainResult(
        params=jax.device_get(usable(at.state)),
        steps=steps,
        evaluations={
            name: np.array([seen[name] for seen in at.evaluations]) for name in names
        },
        first_bad_step=-1 if good.all() else int(np.argmin(good)),
        seconds=at.seconds,
        compile_seconds=compile_seconds,
    )
