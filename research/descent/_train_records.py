"""Train on a dataset that is on a disk, with only a part of the data in memory.

The compiled loop is the same as for a dataset in memory. The dataset of the loop is a
window: the examples of some steps, in the order in which the steps use them. So the
gradient of a step is computed by the same operations on the same numbers. The package
grain reads the windows in order, before the steps need them.
"""

import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.checks import check_callable, check_count, check_text
from research.descent import _run, _step
from research.descent._train_loop import Compiled, compile_training
from research.descent._train_progress import digest
from research.objectives import check_data
from research.samplers import check_indices, num_examples
from research.types import Array, Batch, Key, Params, Records, Sampler
from research.update_rules._checks import check_rule

WINDOW_BYTES = 2**23  # A window has as many steps as fit into this, and at least one.
THREADS = 2  # Threads that read windows.
AHEAD = 2  # Number of windows that are ready before they are needed.


def check_records(records: Records) -> None:
    """Raise TypeError or ValueError unless the fields of a Records are valid."""
    check_count("dataset.num_examples", records.num_examples)
    check_callable("dataset.read", records.read, "indices")
    check_text("dataset.digest", records.digest)
    check_text("dataset.name", records.name)


def compile_on_records(
    objective: Callable[[Params, Any], Array],
    rule: optax.GradientTransformation,
    records: Records,
    sampler: Sampler,
    params: Params,
    key: Key,
    *,
    noisy: bool,
    devices: int,
) -> Compiled:
    """Compile the loop over an epoch's steps, as `compile_training` does.

    The loop reads the examples from `records`. The other arguments are those of
    `train`.

    Raises:
      ValueError: The sampler takes the whole dataset as one batch, or the rule needs
        other examples than those of the batch, as SVRG and SAGA do.
    """
    check_rule(rule)
    draw = jax.jit(
        lambda key, epoch: (
            _run.epoch_batches(sampler, jax.random.fold_in(key, epoch), noisy).indices
        )
    )

    def order_of(key: Key, epoch: int) -> np.ndarray:
        indices = draw(key, np.int32(epoch))
        if indices is None:
            raise ValueError(
                "a full batch needs the whole dataset in memory, but this one is on a "
                "disk. Use samplers.minibatch(n, batch_size)."
            )
        check_indices(indices, records.num_examples)
        return np.asarray(indices)

    order, read = order_of(key, 0), _reading(objective, params, records)
    first = read(order[:1].ravel())
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(first))
    steps = max(1, min(sampler.num_batches, WINDOW_BYTES // max(1, size)))
    compiled = compile_training(
        objective,
        _only_of_batch(rule, records.num_examples),
        read(order[:steps].ravel()),
        _places(sampler, steps),
        params,
        key,
        noisy=noisy,
        devices=devices,
    )

    def epoch_batches(key: Key, epoch: int) -> "_Epoch":
        windows = Windows(read, order_of(key, epoch), steps)
        return _Epoch(compiled.epoch_batches(key, epoch), windows)

    def advance(
        state: _step.State, info: _step.Info, epoch: "_Epoch", start: int, stop: int
    ):
        while start < stop:
            window, end = epoch.windows.at(start)
            end = min(end, stop)
            state, info = compiled.advance(
                state, info, epoch.batches, start, end, window
            )
            start = end
        return state, info

    identity = digest(f"{compiled.start.training} on {records.digest}", order)
    start = compiled.start._replace(training=identity)
    return compiled._replace(start=start, epoch_batches=epoch_batches, advance=advance)


class _Epoch(NamedTuple):
    """The windows of an epoch, and the position of each batch in its window.

    Attributes:
      batches: Indices of each batch's examples in the window that contains the batch.
      windows: The windows.
    """

    batches: _step.BatchIndices
    windows: "Windows"


def _reading(
    objective: Callable[[Params, Any], Array], params: Params, records: Records
) -> Callable[[np.ndarray], Batch]:
    """Return a function that reads examples and checks them as `train` does."""

    def read(indices: np.ndarray) -> Batch:
        batch = records.read(indices)
        found = num_examples(batch)
        if found != len(indices):
            raise ValueError(
                f"{records.name}: read returned {found} examples for {len(indices)} "
                "indices."
            )
        try:
            check_data(objective, params, batch)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"{error} (Among the examples {', '.join(map(str, indices[:9]))}, ... "
                f"of {records.name}.)"
            ) from error
        return batch

    return read


def _places(sampler: Sampler, steps: int) -> Sampler:
    """Return a sampler whose indices are positions in a window, not in the dataset.

    A window holds the examples of `steps` batches, one batch after another.
    """
    b = sampler.batch_size

    def indices(key: Key) -> Array:
        del key
        first = jnp.arange(sampler.num_batches, dtype=jnp.int32) % steps * b
        return first[:, None] + jnp.arange(b, dtype=jnp.int32)[None]

    return Sampler(sampler.num_batches, b, indices, steps * b)


class Windows:
    """The windows of an epoch, each with the examples of `steps` successive steps.

    `read` is a function indices -> Batch, and `order` has the indices of the examples
    of each step, shape (num_batches, batch_size). If too few steps are left for the
    last window, the window is filled with copies of its last batch, because the
    compiled program needs windows of one size.
    """

    def __init__(
        self, read: Callable[[np.ndarray], Batch], order: np.ndarray, steps: int
    ):
        self._read, self._order, self._steps = read, order, steps
        self._number, self._window = -1, None
        self._windows: Iterator[Batch] | None = None

    def __len__(self) -> int:
        return -(-len(self._order) // self._steps)

    def __getitem__(self, number: int) -> Batch:
        """Read a window. Grain calls this method in its threads."""
        rows = self._order[number * self._steps : (number + 1) * self._steps]
        missing = self._steps - len(rows)
        return self._read(np.pad(rows, ((0, missing), (0, 0)), mode="edge").ravel())

    def at(self, step: int) -> tuple[Any, int]:
        """Return the window of a step, and the first step after this window."""
        number = step // self._steps
        if number != self._number:
            if self._windows is None or number != self._number + 1:
                self._windows = self._from(number)
            self._window, self._number = next(self._windows), number
        return self._window, (number + 1) * self._steps

    def _from(self, number: int) -> Iterator[Batch]:
        grain = _grain()
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
        windows = grain.MapDataset.source(self)[number:]
        return iter(windows.to_iter_dataset(options))


def _grain() -> Any:
    try:
        return importlib.import_module("grain")
    except ImportError as error:
        raise ImportError(
            "training on records needs the package grain, which is not installed: pip "
            "install grain."
        ) from error


class _UnknownIndices:
    """Placeholder for the indices of a batch. A rule that uses it gets a ValueError."""

    def _refuse(self, *arguments: Any, **named: Any) -> Any:
        raise ValueError(REFUSED)

    __array__ = __jax_array__ = __index__ = __iter__ = __len__ = _refuse
    __getitem__ = __int__ = _refuse


REFUSED = (
    "this rule asks for other examples than those of its batch, as svrg and saga do, "
    "but the dataset is on a disk. Use another rule, or a dataset in memory."
)


def _only_of_batch(
    rule: optax.GradientTransformation, n: int
) -> optax.GradientTransformation:
    """Return the rule with a check that it uses only the examples of its own batch."""
    inner = optax.with_extra_args_support(rule)
    own = _UnknownIndices()

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        value_fn: Any = None,
        indices: Any = None,
        **extra: Any,
    ):
        del indices

        def of_batch(params: Params, indices: Any = own) -> Array:
            if indices is not own:
                raise ValueError(REFUSED)
            return value_fn(params)

        of_batch.num_examples = n
        return inner.update(
            updates, state, params, value_fn=of_batch, indices=own, **extra
        )

    return optax.GradientTransformationExtraArgs(inner.init, update)
