"""`backend.keep_programs`: programs from disk give the bits of compiled ones."""

import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from research import backend

KEPT = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_enable_compilation_cache",
)


@pytest.fixture
def as_a_user(monkeypatch):
    """Take away the cache of the tests; put it back at the end."""
    before = {name: getattr(jax.config, name) for name in KEPT}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(backend, "SECONDS_WORTH_KEEPING", 0.0)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def computed():
    """Return the bits of twenty steps of descent, whose program is made anew."""
    jax.clear_caches()
    draws = np.random.default_rng(0)
    x, y = jnp.asarray(draws.normal(size=(64, 7))), jnp.asarray(draws.normal(size=64))

    def loss(w):
        return jnp.mean(jnp.tanh(x @ w - y) ** 2)

    def step(w, _):
        return w - 0.1 * jax.grad(loss)(w), loss(w)

    found = jax.jit(lambda w: jax.lax.scan(step, w, length=20))(jnp.ones(7))
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found)]


def programs(folder):
    return sorted(folder.glob("*-cache"))


def test_a_program_from_disk_gives_the_bits_of_a_compiled_one(as_a_user, tmp_path):
    without = computed()
    folder = backend.keep_programs(tmp_path)
    assert folder is not None
    assert folder.parent == tmp_path
    assert computed() == without
    kept = {file: file.stat().st_mtime_ns for file in programs(folder)}
    assert kept
    assert computed() == without
    assert {file: file.stat().st_mtime_ns for file in programs(folder)} == kept


@pytest.mark.on_ci(
    "a damaged file; test_a_program_from_disk_gives_the_bits_of_a_compiled_one has a "
    "whole one"
)
@pytest.mark.thorough("the other kinds of damage", but="byte")
@pytest.mark.parametrize("damage", ["cut", "empty", "byte", "zeros"])
def test_a_damaged_program_is_compiled_again(as_a_user, tmp_path, damage):
    without = computed()
    folder = backend.keep_programs(tmp_path)
    computed()
    (file,) = [f for f in programs(folder) if f.name.startswith("jit__lambda")]
    whole = file.read_bytes()
    draws = np.random.default_rng(1)
    for place in draws.integers(len(whole), size=3 if damage in ("cut", "byte") else 1):
        flipped = bytes([whole[place] ^ (1 << int(draws.integers(8)))])
        file.write_bytes(
            {
                "cut": whole[:place],
                "empty": b"",
                "byte": whole[:place] + flipped + whole[place + 1 :],
                "zeros": bytes(len(whole)),
            }[damage]
        )
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            assert computed() == without
        assert any("compilation cache" in str(one.message) for one in seen)


def test_each_combination_has_a_folder_of_its_own(monkeypatch, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"

    def named(flags="fma avx2", mhz="3000", version="0.10.2", **variables):
        cpuinfo.write_text(
            f"model name\t: One\ncpu MHz\t: {mhz}\nflags\t: {flags}\n" * 2
        )
        with monkeypatch.context() as patch:
            patch.setattr(backend.importlib.metadata, "version", lambda _: version)
            for name in backend.OF_PROGRAMS:
                patch.delenv(name, raising=False)
            for name, value in variables.items():
                patch.setenv(name, value)
            return backend._combination(cpuinfo)

    names = [
        named(),
        named(flags="fma avx2 avx512f"),
        named(version="0.12.0"),
        named(NPROC="2"),
        named(NPROC="4"),
        named(XLA_FLAGS="--xla_cpu_max_isa=AVX"),
        named(OPENBLAS_CORETYPE="Haswell"),
        named(TENSORFLOW_USE_CUSTOM_CONTRACTION_KERNEL="false"),
    ]
    assert len(set(names)) == len(names)
    assert named(mhz="1200") == named()


def test_the_users_own_choice_is_left_alone(as_a_user, tmp_path):
    jax.config.update("jax_enable_compilation_cache", False)
    assert backend.keep_programs(tmp_path) is None
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    assert backend.keep_programs(tmp_path) is None
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")


def test_a_folder_that_cannot_be_written_turns_the_cache_off(as_a_user, tmp_path):
    (tmp_path / "file").write_text("")
    assert backend.keep_programs(tmp_path / "file") is None
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.on_ci("a process of its own; nothing shorter shows this")
def test_import_keeps_no_program(tmp_path):
    code = """
import jax, research
from research import cli, descent
research.backend.configure(x64=True)
print(jax.config.jax_compilation_cache_dir)
print(research.backend.keep_programs().parent)
"""
    user = {**os.environ, "DESCENT_PROGRAMS": str(tmp_path)}
    user.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=user,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["None", str(tmp_path)], done.stderr
