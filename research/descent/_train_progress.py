"""Where a training is: how it is saved, to the last bit, and what it gives in the end."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from research.descent import _step
from research.descent._codec import as_numbers, from_arrays, to_arrays
from research.reading import NUMBER, Is, check_shape
from research.types import Params, Saved
from research.update_rules._transforms import evaluation_params as evaluation_params_of


class TrainResult(NamedTuple):
    """What a training gave; every array is numpy.

    Attributes:
      params: The last parameters; a rule that averages gives its average.
      steps: The `Info` of every step, leaves of shape (num_epochs, num_batches).
      evaluations: What `evaluate` gave, by name: at the start, then after each epoch,
        shape (num_epochs + 1,).
      first_bad_step: The first step, counted over all epochs, whose loss or update was
        not finite, or -1.
      seconds: What the steps took, in all processes that worked on it, without
        compilation and evaluation.
      compile_seconds: What compiling took in this process.
    """

    params: Params
    steps: _step.Info
    evaluations: dict[str, np.ndarray]
    first_bad_step: int
    seconds: float
    compile_seconds: float


class Progress(NamedTuple):
    """Where a training is: `step` steps of epoch `epoch` are done, and what they left.

    Attributes:
      epoch, step: From 0.
      state: Parameters and rule state.
      info: Of this epoch's steps, leaves of shape (num_batches,); NaN where they are
        still to come.
      earlier: The info of each epoch that is over.
      evaluations: At the start, and after each epoch that is over.
      seconds: What the steps took.
      training: A digest of what the training began with, by which a checkpoint of
        another one is known.
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
    hashed = hashlib.sha256(words.encode())
    for leaf in map(as_numbers, jax.tree.leaves(begun_with)):
        hashed.update(f"{leaf.dtype} {leaf.shape}".encode() + leaf.tobytes())
    return hashed.hexdigest()


def evaluation_params(state: _step.State) -> Params:
    """The parameters to be used, on one device; a rule that averages gives its average."""
    params = evaluation_params_of(state.rule, state.params)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), params)


def to_saved(at: Progress) -> Saved:
    """A training's progress as a checkpoint holds it."""
    arrays = to_arrays("state", at.state) | to_arrays("info", at.info)
    if at.earlier:
        arrays |= to_arrays("earlier", _stacked(at.earlier))
    values = [at.training, at.epoch, at.step, list(at.evaluations), at.seconds]
    return Saved(arrays, values)


def _stacked(infos: Sequence[_step.Info]) -> _step.Info:
    return jax.tree.map(lambda *a: np.stack(a), *infos)


def check_alike(state: _step.State) -> None:
    """Refuse a training whose devices have parted.

    Those of a rule do that looks at `indices` itself, as SAGA.
    """
    for leaf in jax.tree.leaves(state):
        first, *others = (as_numbers(shard.data) for shard in leaf.addressable_shards)
        if any(first.tobytes() != other.tobytes() for other in others):
            raise ValueError(
                "the devices' states differ: this rule uses the batch's indices itself. "
                "Give devices=1."
            )


_COUNT = Is((int,), lambda count: 0 <= count < 2**31, "a count")
SHAPE = {
    "training": str,
    "epoch": _COUNT,
    "step": _COUNT,
    "evaluations": [{str: NUMBER}],
    "seconds": NUMBER,
}


OF_ANOTHER_TRAINING = (
    "the checkpoint is of another training: another model, rule, start or key, or other "
    "data, batches, epochs, evaluations or devices, or of another version of this code. "
    "Use --fresh to start from the beginning."
)


def from_saved(
    start: Progress, saved: Saved, num_epochs: int, evaluated: bool
) -> Progress:
    """The progress that `to_saved` saved, of a training that begins at `start`.

    Raises:
      ValueError: It is another training's.
    """
    values = (
        dict(zip(SHAPE, saved.values, strict=False))
        if isinstance(saved.values, list)
        else {}
    )
    if values.get("training") != start.training:
        raise ValueError(OF_ANOTHER_TRAINING)
    check_shape(values, SHAPE, "the checkpoint")
    training, epoch, step, evaluations, seconds = values.values()
    if epoch > num_epochs or len(evaluations) != (epoch + 1) * evaluated:
        raise ValueError(OF_ANOTHER_TRAINING)
    now = {"state": start.state, "info": start.info}
    then = {name: from_arrays(name, tree, saved.arrays) for name, tree in now.items()}
    placed = jax.tree.map(lambda a, b: jax.device_put(b, a.sharding), now, then)
    return Progress(
        epoch=epoch,
        step=step,
        state=placed["state"],
        info=placed["info"],
        earlier=_earlier(start.info, epoch, saved),
        evaluations=tuple(evaluations),
        seconds=seconds,
        training=training,
    )


def _earlier(info: _step.Info, num_epochs: int, saved: Saved) -> tuple[Any, ...]:
    """The info of each epoch that is over."""
    if not num_epochs:
        return ()
    like = jax.tree.map(lambda a: np.empty((num_epochs, *a.shape), a.dtype), info)
    every = from_arrays("earlier", like, saved.arrays)
    return tuple(jax.tree.map(lambda a, e=e: a[e], every) for e in range(num_epochs))


def collected(at: Progress, compile_seconds: float) -> TrainResult:
    """What a training gave, at its end."""
    steps = _stacked(at.earlier)
    good = (np.isfinite(steps.loss) & np.isfinite(steps.update_norm)).ravel()
    names = at.evaluations[0] if at.evaluations else {}
    return TrainResult(
        params=jax.device_get(evaluation_params(at.state)),
        steps=steps,
        evaluations={
            name: np.array([values[name] for values in at.evaluations])
            for name in names
        },
        first_bad_step=-1 if good.all() else int(np.argmin(good)),
        seconds=at.seconds,
        compile_seconds=compile_seconds,
    )
