"""Context in which JAX's float64 is enabled."""

import contextlib
import functools
import importlib
import weakref
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Enable JAX's float64 inside a `with` block, whatever the settings outside are."""
    if jax.dtypes.canonicalize_dtype(np.float64) != np.float64 and _mixes_dtypes():
        _keep_dtypes_apart()
    with _float64_on():
        yield


def _float64_on() -> contextlib.AbstractContextManager[None]:
    # In jax up to 0.8, enable_x64 is in jax.experimental.
    turn_on = (
        jax.enable_x64
        if hasattr(jax, "enable_x64")
        else importlib.import_module("jax.experimental").enable_x64
    )
    return turn_on(True)


@functools.cache
def _mixes_dtypes() -> bool:
    """Return whether JAX uses an array of NumPy with the dtype of another program.

    If a function closes over an array of NumPy in float64 while float64 is disabled,
    JAX converts the array to float32. Some versions, such as 0.12, also use the
    converted array after float64 has been enabled, as long as a program that contains
    the converted array is in memory. The function then raises an error of JAX.
    """
    array = np.arange(2.0)
    function = lambda: jnp.sin(array)
    program = jax.make_jaxpr(function)()
    with _float64_on():
        again = jax.make_jaxpr(function)()
    del program  # Until here, it must be in memory.
    return any(constant.dtype != array.dtype for constant in again.consts)


@functools.cache
def _keep_dtypes_apart() -> None:
    """Make JAX keep one converted array for each dtype, until the process ends."""
    from jax._src import dtypes, literals  # JAX has no public function for this.

    converted: Any = weakref.WeakValueDictionary()
    origins: dict[tuple[int, np.dtype], weakref.ref] = {}

    def convert(array: np.ndarray) -> Any:
        dtypes.check_valid_dtype(array.dtype)
        dtype = np.dtype(jax.dtypes.canonicalize_dtype(array.dtype))
        key = (id(array), dtype)
        result, origin = converted.get(key), origins.get(key)
        if result is None or origin is None or origin() is not array:
            result = literals.TypedNdArray(np.asarray(array, dtype))
            converted[key] = result
            origins[key] = weakref.ref(array, lambda _: origins.pop(key, None))
        return result

    dtypes.register_canonicalize_value_handler(np.ndarray, convert)
