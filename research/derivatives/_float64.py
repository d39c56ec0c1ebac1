"""Context in which JAX's float64 is enabled."""

import contextlib
import importlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Enable JAX's float64 inside a `with` block, whatever the settings outside are."""
    # In jax up to 0.8, enable_x64 is in jax.experimental.
    turn_on = (
        jax.enable_x64
        if hasattr(jax, "enable_x64")
        else importlib.import_module("jax.experimental").enable_x64
    )
    with turn_on(True):
        yield
