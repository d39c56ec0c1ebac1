"""Strictness for every test, once: float64, no rank promotion, no key used twice; setup.cfg makes warnings errors."""

import os

os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest

from research import backend

backend.configure(devices=1, pool=2, x64=True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """A file's compiled programs go with it: all of them together would fill the memory of a small machine."""
    yield
    jax.clear_caches()
