"""The nouns every other module speaks in; nothing here computes."""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array
Key = jax.Array  # A typed key, from `jax.random.key`.
Params = Any  # Any pytree of floating arrays.


class Batch(NamedTuple):
    """A dataset, or part of one.

    Attributes:
      x: Inputs, shape (n, ...); or a pytree of them, such as `Sequences`.
      y: Targets, shape (n, ...).
      key: Feeds models that draw noise (dropout, augmentation); None means deterministic.
    """

    x: Any
    y: Any
    key: Key | None = None


class Sequences(NamedTuple):
    """Sequences of different length, padded to one: what stands after the end of one never changes a result.

    Attributes:
      values: Shape (..., T, d), or integer tokens (..., T).
      length: Of each sequence, shape (...), integers in 1..T.
    """

    values: Array
    length: Array


class Model(NamedTuple):
    """A pair of pure functions.

    Attributes:
      init: key -> params.
      apply: (params, x, key=None) -> prediction. x is one example or has any leading batch axes, which each dense
        product flattens; no key means no noise.
    """

    init: Callable[[Key], Params]
    apply: Callable[..., Array]


class Sampler(NamedTuple):
    """Which examples make up each batch of one epoch.

    Attributes:
      num_batches: Steps in an epoch.
      batch_size: Examples in each batch; an epoch costs num_batches * batch_size example gradients.
      indices: key -> (num_batches, batch_size) integers, or None where every batch is the whole dataset.
      num_examples: n, the size of the dataset that it was made for; None where the maker does not say.
    """

    num_batches: int
    batch_size: int
    indices: Callable[[Key], Array | None]
    num_examples: int | None = None


class Saved(NamedTuple):
    """What a checkpoint holds: NumPy arrays by name, and JSON values (which come back with lists for tuples)."""

    arrays: dict[str, np.ndarray]
    values: Any = None


class Checkpoint(NamedTuple):
    """Where a long computation keeps what it has so far, so that a kill costs little.

    Attributes:
      load: () -> what was saved last, whole, or None.
      save: Saved -> None; it takes the place of what was saved before.
      due: () -> whether enough time has gone by since anything of the run was saved.
    """

    load: Callable[[], Saved | None]
    save: Callable[[Saved], None]
    due: Callable[[], bool]


Checkpoints = Callable[
    [str], Checkpoint
]  # By the name of what is kept; a part of x is named x/part.


def no_checkpoints(name: str) -> Checkpoint:
    """The `Checkpoints` that keep nothing."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a str; got name={name!r}.")
    return Checkpoint(lambda: None, lambda saved: None, lambda: False)


class Outcome(IntEnum):
    """How a step of a rule, or a minimisation, ended; `words` says it in English.

    Arrays hold an outcome as int32: `Outcome(int(state.outcome)).words`. A rule that
    can fail to find a step keeps `outcome` in its state, and `evaluations`, which
    counts the evaluations of the objective inside its last update (a value, or a value
    with its gradient, is one). From FIRST_FAILURE on the step failed, and the update is
    zero times the direction. `research.descent.minimise` reads both, stops at a
    failure, and adds the outcomes CONVERGED, NO_PROGRESS and STEPS_USED_UP.

    Example:
      >>> Outcome(3).name, Outcome(3).words
      ('STEP_TOO_SMALL', 'the step became too small')
    """

    words: str

    def __new__(cls, value: int, words: str):
        """A number that carries its words."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.words = words
        return member

    CONVERGED = -1, "the gradient is within the tolerance"
    FOUND = 0, "found"
    DECREASE_ONLY = (
        1,
        "found, though only the decrease is sufficient and the slope is still steep",
    )
    NO_DESCENT_DIRECTION = 2, "no descent direction"
    STEP_TOO_SMALL = 3, "the step became too small"
    EVALUATIONS_USED_UP = 4, "evaluations used up"
    NOT_FINITE = 5, "not finite"
    SINGULAR = 6, "singular matrix"
    NO_PROGRESS = 7, "no progress: the update changed no parameter"
    STEPS_USED_UP = 8, "max_steps used up"
    FIRST_FAILURE = NO_DESCENT_DIRECTION


class Optimum(NamedTuple):
    """The exact minimiser of a training objective, found without descent.

    Attributes:
      params: x*, in the model's own pytree.
      value: f* = f(x*).
      gradient_norm: Euclidean norm of the gradient at x*.
      initial_gradient_norm: The same at params = 0, which gradient_norm is to be read against.
      solver: How it was found, in a few words ("QR", "Newton, 7 steps").
    """

    params: Params
    value: float
    gradient_norm: float
    initial_gradient_norm: float
    solver: str


class Workload(NamedTuple):
    """A named problem: what is minimised, on which data, from where, and what the exact answer is.

    Attributes:
      name: As in `research.workloads.WORKLOADS`.
      train, validation, test: The split, or None for a problem without data (or without that part).
      init: key -> params, the drawn initial point.
      objective: (params, batch) -> (), penalties included.
      metric: (params, batch) -> (), what a user would report: accuracy or R²; None where nobody would.
      metric_name: Its name.
      model: The model behind the objective, or None where there is none.
      optimum: f*, x* of the training objective, or None where unknown.
    """

    name: str
    train: Batch | None
    validation: Batch | None
    test: Batch | None
    init: Callable[[Key], Params]
    objective: Callable[[Params, Batch | None], Array]
    metric: Callable[[Params, Batch], Array] | None
    metric_name: str
    model: Model | None
    optimum: Optimum | None
