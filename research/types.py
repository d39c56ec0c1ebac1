"""Types that all other modules share. This module contains no computations."""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, Num

Array = jax.Array
Key = jax.Array  # A typed key, from `jax.random.key`.
Params = Any  # Any pytree of floating arrays.
Scalar = float | Float[Array, ""]  # A real number, which may be traced.
Integer = int | Int[Array, ""]  # An integer, which may be traced.


class Batch(NamedTuple):
    """A dataset, or part of one.

    Attributes:
      x: Inputs, shape (n, ...), or a pytree of inputs such as `Sequences`.
      y: Targets, shape (n, ...).
      key: Key of `jax.random` for models that draw noise (dropout, augmentation). None
        means no noise.
    """

    x: Any
    y: Any
    key: Key | None = None


class Sequences(NamedTuple):
    """Sequences of different lengths, padded to one length T.

    The values after the end of a sequence have no effect on results.

    Attributes:
      values: Padded sequences of vectors of length d, shape (..., T, d), or of integer
        tokens, shape (..., T).
      length: Length of each sequence, shape (...), integers in 1..T.
    """

    values: Num[Array, "..."]
    length: Int[Array, "..."]


class Records(NamedTuple):
    """A dataset that is not in memory, but is read a few examples at a time.

    `research.records.open_records` opens such a dataset on a disk.

    Attributes:
      num_examples: Number n of examples.
      read: Function from indices of shape (m,) to a Batch of these m examples as NumPy
        arrays, in the given order. Several threads may call `read` at the same time. If
        the stored examples have changed, `read` must raise an error instead of
        returning the changed examples.
      digest: Text that identifies the content. A saved training is resumed only if
        the digest of its dataset is still the same.
      name: Name of the dataset in messages, such as its folder.
    """

    num_examples: int
    read: Callable[[Any], Batch]
    digest: str
    name: str


class Model(NamedTuple):
    """A model, as a pair of pure functions.

    Attributes:
      init: Function (key) -> initial params.
      apply: Function (params, x, key=None) -> prediction. x is one example, or examples
        with any number of leading batch axes. Without a key, the model draws no noise,
        such as dropout.
    """

    init: Callable[[Key], Params]
    apply: Callable[..., Array]


class Sampler(NamedTuple):
    """Batches of an epoch: their number, their size, and a function that draws them.

    Attributes:
      num_batches: Number of batches in an epoch. It is also the number of steps in an
        epoch.
      batch_size: Number of examples in each batch. An epoch costs
        num_batches * batch_size example gradients (gradients of the loss on one
        example).
      indices: Function of a key of `jax.random`. It returns the indices of the examples
        of each batch, integers of shape (num_batches, batch_size). If every batch is
        the whole dataset, the function returns None.
      num_examples: Size n of the dataset for which the sampler is made. None means that
        the size is not known.
    """

    num_batches: int
    batch_size: int
    indices: Callable[[Key], Array | None]
    num_examples: int | None = None


class Saved(NamedTuple):
    """Content of a checkpoint: NumPy arrays by name, and JSON values.

    Attributes:
      arrays: Dict from a name to an array.
      values: Any value that JSON can represent. JSON has no tuples, so tuples in
        `values` are lists after loading.
    """

    arrays: dict[str, np.ndarray]
    values: Any = None


class Checkpoint(NamedTuple):
    """Functions that store the progress of a long computation, to resume it later.

    Attributes:
      load: Function () -> the last `Saved` (content of a checkpoint) that was saved
        completely, or None if nothing was saved.
      save: Function (saved) -> None, where `saved` is a `Saved`. The new content
        replaces the content of earlier saves.
      due: Function () -> whether to save again, because enough time has passed since
        the last save.
    """

    load: Callable[[], Saved | None]
    save: Callable[[Saved], None]
    due: Callable[[], bool]


Checkpoints = Callable[
    [str], Checkpoint
]  # Function from a name to a Checkpoint. A part of x is named x/part.


def no_checkpoints(name: str) -> Checkpoint:
    """Return a `Checkpoint` that saves nothing, so that no run is resumed.

    The argument `name`, the name of the run, has no effect. A TypeError is raised if
    `name` is not a str.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str; got name={name!r}.")
    return Checkpoint(lambda: None, lambda saved: None, lambda: False)


class Outcome(IntEnum):
    """Outcome of one step of an update rule, or of a minimisation.

    The attribute `words` describes an outcome in words.

    Some update rules can fail to find a step. The state of such a rule, or the field
    `search` of this state, has two fields about the last update:

    - `outcome` is an int32 array. `Outcome(int(outcome)).words` describes it.
    - `evaluations` counts how often the update evaluated the objective. One evaluation
      computes either the value alone, or the value together with the gradient. The
      state of `natural_gradient` does not have this field.

    If `outcome` is at least FIRST_FAILURE (2), the step failed, and the update is 0.
    There is one exception: the update may be NaN if the value, the gradient or the
    direction of the step is not finite.

    `research.descent.minimise` reads `outcome` and `evaluations`, and stops at a
    failure. A minimisation can also end with CONVERGED, NO_PROGRESS or STEPS_USED_UP.

    Example:
      >>> Outcome(3).name, Outcome(3).words
      ('STEP_TOO_SMALL', 'the step became too small')
    """

    words: str

    def __new__(cls, value: int, words: str):
        """Create a member: an integer with a `words` attribute."""
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
    """Minimiser of a training objective f, and the method by which it was found.

    Attributes:
      params: Minimiser x*, a pytree like the params of the model.
      value: Minimum f* = f(x*).
      gradient_norm: Euclidean norm of the gradient at x*.
      initial_gradient_norm: Euclidean norm of the gradient at params = 0. The minimiser
        is accurate if `gradient_norm` is much smaller than this norm. For some data,
        such as two classes with the same inputs, the gradient at params = 0 is itself
        as small as a rounding error. The two norms then say nothing about the accuracy.
      solver: Short description of the method by which x* was found, such as "QR" or
        "Newton, 7 steps".
    """

    params: Params
    value: float
    gradient_norm: float
    initial_gradient_norm: float
    solver: str


class Workload(NamedTuple):
    """A named optimisation problem: data, objective, initial point and optimum.

    Attributes:
      name: Name of the workload, for example a key of `research.workloads.WORKLOADS`.
      train, validation, test: Parts of the data, each a `Batch`. A part is None if it
        does not exist, for example because the problem has no data.
      init: Function (key) -> params that draws the initial point.
      objective: Function (params, batch) -> value of the objective, shape (). If the
        problem has penalties, such as λ/2 |w|² on the weights w, the objective includes
        them.
      metric: Function (params, batch) -> accuracy or R², shape (), for reports. None if
        the problem has no metric.
      metric_name: Name of the metric.
      model: Model that the objective evaluates, or None if there is no model.
      optimum: Optimum of the training objective, with the minimiser x* and the minimum
        f*. None if the optimum is not known.
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
