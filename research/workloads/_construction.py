"""Helpers for workload constructors: check options and dtypes, and build batches."""

import functools
import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from research.checks import (
    check_count,
    check_flag,
    check_number,
    is_array,
    shown,
)
from research.sizes import check_most, check_room
from research.types import Batch, Workload

# Fixed seed of the split. The seed of a run does not change the split: it chooses only
# the initial point and the order of the examples.
SPLIT_SEED = 0


def constructor(build: Callable[..., Workload]) -> Callable[..., Workload]:
    """Decorate a constructor of workloads: check its options and cache its results.

    The decorated constructor keeps its last four workloads. A call with the dtype and
    options of one of these workloads returns the same object. The dtype and the options
    are checked at every call.
    """
    remembered = functools.lru_cache(maxsize=4)(build)

    @functools.wraps(build)
    def construct(*, dtype: DTypeLike = "float64", **options: Any) -> Workload:
        _check_options(options)
        # The cache must not hold tracers if the constructor is called under jit.
        with jax.ensure_compile_time_eval():
            return remembered(dtype=available(dtype), **options)

    return construct


def rows_for(n: int, holdout: bool) -> int:
    """Return how many rows a dataset needs so that n of them are used for training.

    If holdout is True, 70 % of the rows are used for training. Otherwise all rows are
    used for training.
    """
    check_size("n", n, 100)
    return math.ceil(n / 0.7) if holdout else n


def in_batches(
    parts: Iterable[Any], dtype: DTypeLike, target_dtype: DTypeLike
) -> tuple[Any, ...]:
    """Return the training, validation and test batches.

    `parts` contains three pairs (x, y), one for each of these batches, or only the pair
    for training. With one pair, the validation and test batches are None. The inputs x
    are converted to `dtype`, and the targets y to `target_dtype`.
    """
    batches = (
        Batch(jnp.asarray(x, dtype), jnp.asarray(y, target_dtype)) for x, y in parts
    )
    return (*batches, None, None)[:3]


def _check_options(options: dict[str, Any]) -> None:
    """Check the options before the cache hashes them."""
    for name, value in options.items():
        if name == "holdout":
            check_flag(name, value)
        elif name in ("n", "dimension"):
            check_count(name, value)
            options[name] = int(value)
        elif name == "condition":
            check_number(name, value, positive=True)


def check_size(name: str, value: Any, entries: int = 1) -> None:
    """Raise ValueError if a size is not a positive integer, or is too large.

    A value is too large if it is above 2**31 - 1, or if a float64 array of shape
    (value, entries) needs more than half of this machine's memory. `name` is the name
    of the size in the message.
    """
    check_count(name, value)
    check_most(**{name: value})
    check_room(f"{name}={value}", value, entries)


def available(dtype: DTypeLike) -> np.dtype:
    """Return a dtype as np.dtype if it is a floating dtype that JAX can use now.

    Raises:
      TypeError: `dtype` is not a floating dtype.
      ValueError: `dtype` is float64 while JAX's 64-bit mode is off. JAX would then
        silently use float32 instead.
    """
    if (
        dtype is None
        or is_array(dtype)
        or not (isinstance(dtype, str | type | np.dtype) or hasattr(dtype, "dtype"))
    ):
        raise TypeError(
            "dtype must be the name or type of a floating dtype; got "
            f"dtype={shown(dtype)}."
        )
    try:
        chosen = jnp.dtype(dtype)
    except TypeError:
        raise TypeError(
            "dtype must be the name or type of a floating dtype; got "
            f"dtype={shown(dtype)}."
        ) from None
    if not jnp.issubdtype(chosen, jnp.floating):
        raise TypeError(
            f"dtype must be floating; got {chosen}. Use 'float64', or 'float32' if "
            "that is enough."
        )
    if chosen == np.float64 and not jax.config.read("jax_enable_x64"):
        raise ValueError(
            "dtype float64 needs 64-bit arrays, which are off in JAX. Add one line "
            "before the first array: research.backend.configure(x64=True). Or pass "
            "dtype='float32'."
        )
    return chosen


def data_digest(workload: Workload) -> str:
    """Return the SHA-256 digest of the training, validation and test data, in hex.

    The digest depends on the bytes, dtype and shape of each array.
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((workload.train, workload.validation, workload.test)):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
