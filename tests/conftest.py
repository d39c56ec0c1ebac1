"""Strictness for every test, once: float64, no rank promotion, no key used twice; setup.cfg makes warnings errors."""

import os
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest

from research import backend

HERE = Path(__file__).parent
# `.ci/run` runs these on the newest versions alone: experiments, which take minutes; the rules on published problems and the
# bits of sweeps, whose code the laws run on every version; and what depends on no version of a package.
ONE_VERSION = (
    *(
        "bits/test_bit_contract",
        "resume/test_kills",
        "rules/test_",
        "test_architecture",
        "test_backpropagation_by_hand",
    ),
    *("test_batch_", "test_chain_rule_ledger", "test_character_language_model", "test_compare", "test_deepobs_audit"),
    *("test_derivative_experiments", "test_docs", "test_image_recognition", "test_install", "test_leaderboard"),
    *(
        "test_locks",
        "test_notebooks",
        "test_pages",
        "test_small_experiments",
        "test_spoken_words",
        "test_study_statistics",
    ),
    *(
        "test_style",
        "test_tensorflow_side_by_side",
        "test_text_classification",
        "test_trajectory",
        "test_tuning_protocol",
    ),
)

backend.configure(devices=1, pool=2, x64=True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
# Compiling is most of what a test does: a program that another file, worker or session has compiled is read from disk.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "programs"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_modifyitems(items):
    """Marks what is run on one version."""
    for item in items:
        if item.path.is_relative_to(HERE) and item.path.relative_to(HERE).as_posix().startswith(ONE_VERSION):
            item.add_marker(pytest.mark.one_version)


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """A file's compiled programs go with it: all of them together would fill the memory of a small machine."""
    yield
    jax.clear_caches()
