"""Strictness for every test, once: float64, no rank promotion, no key used twice; setup.cfg makes warnings errors."""

import os
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest

from research import backend

backend.configure(devices=1, pool=2, x64=True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
# Compiling is most of what a test does: a program that another file, worker or session has compiled is read from disk.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "programs"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """A file's compiled programs go with it: all of them together would fill the memory of a small machine."""
    yield
    jax.clear_caches()
