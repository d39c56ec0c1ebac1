"""Progress of a training, its exact form in a checkpoint, and the final result."""

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from research.descent import _step
from research.descent._codec import as_numbers, from_arrays, to_arrays
from research.descent._mesh import put
from research.reading import NUMBER, Is, check_shape
from research.types import Params, Saved
from research.update_rules._transforms import evaluation_params as evaluation_params_of


class TrainResult(NamedTuple):
    """Result of a training. All arrays are NumPy arrays.

    Attributes:
      params: The parameters after the last step. If the rule keeps an average of the
        parameters, `params` is this average.
      steps: The `Info` (loss, learning rate and norms) of every step. Each leaf has the
        shape (num_epochs, num_batches).
      evaluations: Results of the argument `evaluate` of `train`, at the start and after
        each epoch: a dict from names to arrays of shape (num_epochs + 1,). The dict is
        empty without this argument.
      first_bad_step: Index of the first step whose loss or update is not finite. The
        steps are counted from 0 over all epochs. -1 means that there is no such step.
      seconds: Time that the steps took, without compilation and evaluation. If the
        training was interrupted and resumed, the time before the interruption is
        included.
      compile_seconds: Time that compilation took in this process.
    """

    params: Params
    steps: _step.Info
    evaluations: dict[str, np.ndarray]
    first_bad_step: int
    seconds: float
    compile_seconds: float


class Progress(NamedTuple):
    """Progress of a training: finished epochs, and finished steps of the current epoch.

    Attributes:
      epoch: Number of finished epochs, which is also the index of the current epoch.
      step: Number of finished steps in the current epoch.
      state: Parameters and rule state.
      info: Info of the steps of the current epoch, leaves of shape (num_batches,). The
        entries of steps that are not taken yet are those of the epoch before. In epoch
        0, they are NaN.
      earlier: The info of each finished epoch.
      evaluations: Evaluations at the start and after each finished epoch.
      seconds: Time that the steps took.
      training: Digest of the training's inputs, which identifies its checkpoints.
      program: Facts that identify the compiled program, as JSON values. The dict is
        empty if there is no checkpoint.
    """

    epoch: int
    step: int
    state: _step.State
    info: Any
    earlier: tuple[Any, ...]
    evaluations: tuple[dict[str, float], ...]
    seconds: float
    training: str
    program: Mapping[str, str] = MappingProxyType({})


def digest(words: str, *begun_with: Any) -> str:
    """Return a digest of a text and of pytrees.

    The text is `words`, and the pytrees are `begun_with`. The digest depends on the
    dtype, the shape and the bytes of each leaf.
    """
    hashed = hashlib.sha256(words.encode())
    for leaf in map(as_numbers, jax.tree.leaves(begun_with)):
        hashed.update(f"{leaf.dtype} {leaf.shape}".encode())
        hashed.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return hashed.hexdigest()


def evaluation_params(state: _step.State) -> Params:
    """Return the parameters that the rule recommends as the result.

    For most rules, these are the current parameters. Some rules recommend other
    parameters, such as an average.
    """
    return evaluation_params_of(state.rule, state.params)


def to_saved(at: Progress) -> Saved:
    """Convert a training's progress to a `Saved`, for a checkpoint."""
    arrays = to_arrays("state", at.state) | to_arrays("info", at.info)
    if at.earlier:
        arrays |= to_arrays("earlier", _stacked(at.earlier))
    values = [at.training, at.epoch, at.step, list(at.evaluations), at.seconds]
    values.append(dict(at.program))
    return Saved(arrays, values)


def _stacked(infos: Sequence[_step.Info]) -> _step.Info:
    return jax.tree.map(lambda *a: np.stack(a), *infos)


def check_alike(state: _step.State) -> None:
    """Raise ValueError if the devices hold different states.

    Each device gets a part of each batch. If a rule reads `indices`, the indices of the
    batch's examples, it reads a different part on each device. A rule that stores data
    for each example, such as SAGA, then has a different state on each device.
    """
    for leaf in jax.tree.leaves(state):
        first, *others = (as_numbers(shard.data) for shard in leaf.addressable_shards)
        if any(first.tobytes() != other.tobytes() for other in others):
            raise ValueError(
                "the states on the devices differ, because this rule uses the indices "
                "of the batch itself, and each device has another part of them. Use "
                "devices=1."
            )


_COUNT = Is((int,), lambda count: 0 <= count < 2**31, "a count")
SHAPE = {
    "training": str,
    "epoch": _COUNT,
    "step": _COUNT,
    "evaluations": [{str: NUMBER}],
    "seconds": NUMBER,
    "program": {str: str},
}


OF_ANOTHER_TRAINING = (
    "the checkpoint belongs to another training (other params, state of the rule, "
    "key, data, batches, epochs, evaluations or devices) or to another version of this "
    "code. Use --fresh, or in Python a checkpoint in another folder, to start from the "
    "beginning."
)
OF_ANOTHER_PROGRAM = (
    "the checkpoint belongs to another training: the program of a step differs, "
    "because the objective, a constant of the rule (such as a momentum or a weight "
    "decay), a schedule or the code has changed. Undo the change to resume. To start "
    "from the beginning, use --fresh, or in Python a checkpoint in another folder."
)


def from_saved(
    start: Progress, saved: Saved, num_epochs: int, evaluated: bool
) -> Progress:
    """Restore the progress that `to_saved` saved for a training that begins at `start`.

    The training has num_epochs epochs. `evaluated` says whether the training has a
    function `evaluate`.

    Raises:
      ValueError: The checkpoint belongs to another training.
    """
    values = (
        dict(zip(SHAPE, saved.values, strict=False))
        if isinstance(saved.values, list)
        else {}
    )
    if values.get("training") != start.training:
        raise ValueError(OF_ANOTHER_TRAINING)
    if len(values) < len(SHAPE):  # Of an older version of this code.
        raise ValueError(OF_ANOTHER_TRAINING)
    check_shape(values, SHAPE, "the checkpoint")
    training, epoch, step, evaluations, seconds, program = values.values()
    beyond = epoch > num_epochs or (epoch == num_epochs and step > 0)
    if beyond or len(evaluations) != (epoch + 1) * evaluated:
        raise ValueError(OF_ANOTHER_TRAINING)
    if _other_program(start.program, program):
        raise ValueError(OF_ANOTHER_PROGRAM)
    now = {"state": start.state, "info": start.info}
    like = jax.tree.map(_like, now)
    then = {name: from_arrays(name, tree, saved.arrays) for name, tree in like.items()}
    placed = jax.tree.map(lambda a, b: put(b, a.sharding), now, then)
    return Progress(
        epoch=epoch,
        step=step,
        state=placed["state"],
        info=placed["info"],
        earlier=_earlier(start.info, epoch, saved),
        evaluations=tuple(evaluations),
        seconds=seconds,
        training=training,
        program=start.program,
    )


def _other_program(now: Mapping[str, str], then: Mapping[str, str]) -> bool:
    """Return whether two programs are comparable and differ."""
    comparable = all(
        now.get(name) == then.get(name) for name in ("jax", "jaxlib", "platform")
    )
    return comparable and now.get("digest") != then.get("digest")


def _like(leaf: Any) -> Any:
    """Return the leaf itself, or an empty array with its shape and dtype.

    The empty array is returned if this process may hold only a part of the leaf.
    """
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return leaf
    return np.empty(leaf.shape, leaf.dtype)


def _earlier(info: _step.Info, num_epochs: int, saved: Saved) -> tuple[Any, ...]:
    """Return the info of each finished epoch."""
    if not num_epochs:
        return ()
    like = jax.tree.map(lambda a: np.empty((num_epochs, *a.shape), a.dtype), info)
    every = from_arrays("earlier", like, saved.arrays)
    return tuple(jax.tree.map(lambda a, e=e: a[e], every) for e in range(num_epochs))


def collected(at: Progress, params: Params, compile_seconds: float) -> TrainResult:
    """Return the result of a training.

    `at` is the progress after the last epoch, and `params` are the params of the
    result.
    """
    steps = _stacked(at.earlier)
    good = (np.isfinite(steps.loss) & np.isfinite(steps.update_norm)).ravel()
    names = at.evaluations[0] if at.evaluations else {}
    return TrainResult(
        params=jax.device_get(params),
        steps=steps,
        evaluations={
            name: np.array([values[name] for values in at.evaluations])
            for name in names
        },
        first_bad_step=-1 if good.all() else int(np.argmin(good)),
        seconds=at.seconds,
        compile_seconds=compile_seconds,
    )
