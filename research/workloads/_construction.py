"""What constructors of workloads share: options, dtypes and the parts of a dataset."""

import functools
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

# The split belongs to the workload; a run's seed chooses its initial point and order.
SPLIT_SEED = 0


def constructor(build: Callable[..., Workload]) -> Callable[..., Workload]:
    """The constructor, which remembers what it built for each dtype and option.

    The dtype is checked at every call.
    """
    remembered = functools.lru_cache(maxsize=4)(build)

    @functools.wraps(build)
    def construct(*, dtype: DTypeLike = "float64", **options: Any) -> Workload:
        _check_options(options)
        # Called under jit, it must not remember tracers.
        with jax.ensure_compile_time_eval():
            return remembered(dtype=_available(dtype), **options)

    return construct


def rows_for(n: int, holdout: bool) -> int:
    """Enough rows for n to be left for training."""
    check_size("n", n, 100)
    return math.ceil(n / 0.7) if holdout else n


def in_batches(
    parts: Iterable[Any], dtype: DTypeLike, target_dtype: DTypeLike
) -> tuple[Any, ...]:
    """Training, validation and test batch; the last two are None for a single part."""
    batches = (
        Batch(jnp.asarray(x, dtype), jnp.asarray(y, target_dtype)) for x, y in parts
    )
    return (*batches, None, None)[:3]


def _check_options(options: dict[str, Any]) -> None:
    """Check options before the lookup among what was built, which hashes them."""
    for name, value in options.items():
        if name == "holdout":
            check_flag(name, value)
        elif name in ("n", "dimension"):
            check_count(name, value)
            options[name] = int(value)
        elif name == "condition":
            check_number(name, value, positive=True)


def check_size(name: str, value: Any, entries: int = 1) -> None:
    """Refuses what is not a positive integer, or asks for more than memory can hold."""
    check_count(name, value)
    check_most(**{name: value})
    check_room(f"{name}={value}", value, entries)


def _available(dtype: DTypeLike) -> np.dtype:
    """The dtype, once it is floating and JAX would not narrow it silently."""
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
            f"dtype must be floating; got {chosen}. Use 'float64', or 'float32' where "
            "that is enough."
        )
    if chosen == np.float64 and not jax.config.read("jax_enable_x64"):
        raise ValueError(
            "dtype float64 needs 64-bit arrays, which JAX has off. Add one line before "
            "the first array is made: research.backend.configure(x64=True). Or pass "
            "dtype='float32'."
        )
    return chosen
