"""Laws of portable bits: what cannot be had is refused, long products are the same sums
in parts, and a run knows whether it is portable. `tests/bits/portable.py` has the bits.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import backend, cli, portable, runs
from research.cli import flags, reproduce
from research.runs import _environment as environment
from tests.bits import portable as networks

TOP = Path(__file__).parent.parent
PAGE = TOP / "docs/howto/portable_bits.md"


@pytest.mark.parametrize("missing", ["avx2", "fma", "avx2 fma"])
def test_a_processor_without_the_instructions_is_refused(missing, tmp_path):
    file = tmp_path / "cpuinfo"
    sets = {"sse4_2", "avx", "avx2", "fma"}
    file.write_text(f"flags\t\t: {' '.join(sorted(sets))}\n")
    portable.check_processor(file)
    file.write_text(f"flags\t\t: {' '.join(sorted(sets - {*missing.split()}))}\n")
    with pytest.raises(
        ValueError, match="without " + missing.upper().replace(" ", ".*")
    ):
        portable.check_processor(file)


def test_another_architecture_is_refused(monkeypatch):
    monkeypatch.setattr(portable.platform, "machine", lambda: "aarch64")
    with pytest.raises(ValueError, match="on aarch64"):
        portable.check_processor()


def test_numpy_that_was_imported_before_is_refused(monkeypatch):
    monkeypatch.setattr(portable, "check_processor", lambda: None)
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    with pytest.raises(ValueError, match="before Python starts: OPENBLAS_CORETYPE='H"):
        portable.pin_libraries()
    for name, value in portable.LIBRARIES.items():
        monkeypatch.setenv(name, value)
    portable.pin_libraries()


def test_configure_refuses_what_is_too_late_and_changes_nothing(monkeypatch):
    jax.block_until_ready(jnp.zeros(1))
    before = dict(os.environ)
    monkeypatch.setattr(portable, "check_processor", lambda *a: None)
    with pytest.raises(RuntimeError, match="before"):
        backend.configure(portable=True)
    with pytest.raises(TypeError, match="portable=1"):
        backend.configure(portable=1)
    monkeypatch.setattr(backend.importlib.metadata, "version", lambda name: "0.9.1")
    with pytest.raises(ValueError, match=r"jaxlib 0\.9\.1"):
        backend.configure(portable=True)
    assert dict(os.environ) == before
    assert not backend.is_portable()


# An einsum, and the shapes: one contracted axis at each place, several, with batches.
PRODUCTS = {
    "ik,kj->ij": ((3, 500), (500, 2)),
    "ki,kj->ij": ((193, 3), (193, 2)),
    "ki,jk->ij": ((384, 3), (2, 384)),
    "k,k->": ((1000,), (1000,)),
    "bik,bjk->bij": ((2, 3, 400), (2, 4, 400)),
    "ibk,kjb->bij": ((3, 2, 250), (250, 4, 2)),
    "iabc,bjac->ij": ((3, 9, 5, 7), (5, 2, 9, 7)),
    "abi,ajb->aij": ((2, 300, 3), (2, 4, 300)),
}


@pytest.mark.on_ci("two more products", but="^bik")
@pytest.mark.thorough("the other products", but=r"^(ki,jk|bik|iabc)")
@pytest.mark.parametrize("words", PRODUCTS)
def test_a_product_in_parts_is_the_product(words):
    """Against NumPy; the jaxpr of einsum has the operands of the product."""
    generator = np.random.default_rng(0)
    given = [generator.normal(size=shape) for shape in PRODUCTS[words]]

    def in_parts(*operands):
        def product(
            lhs, rhs, dimension_numbers, precision, preferred_element_type, **_
        ):
            return backend._in_parts(
                lhs,
                rhs,
                dimension_numbers=dimension_numbers,
                precision=precision,
                preferred_element_type=preferred_element_type,
            )

        return jnp.einsum(words, *operands, _dot_general=product)

    with jax.numpy_rank_promotion("allow"):
        found = in_parts(*map(jnp.asarray, given))
    np.testing.assert_allclose(found, np.einsum(words, *given), rtol=0, atol=1e-12)


def test_parts_of_half_precision_are_added_in_float32():
    ones = jnp.ones((1, 2000), jnp.bfloat16)
    numbers = (((1,), (1,)), ((), ()))
    options = {"precision": None, "preferred_element_type": None}
    found = backend._in_parts(ones, ones, dimension_numbers=numbers, **options)
    assert found.dtype == jnp.bfloat16
    assert found == jnp.bfloat16(2000)  # Parts that are rounded to bfloat16 give 1992.


def test_another_processor_is_no_difference_if_everything_is_portable():
    there, here = (
        {"processor": {"model": name, "instruction_sets": [name]}} for name in "ab"
    )
    assert len(environment.differences(there, here)) == 1
    for what, count in ((environment.EVERYTHING, 0), ("JAX", 1)):
        both = [e | {"portable": what} for e in (there, here)]
        assert len(environment.differences(*both)) == count
    one = environment.differences(there | {"portable": "JAX"}, there)
    assert one == ["portable bits JAX there, unknown here"]


@pytest.mark.parametrize("was", [True, False])
def test_a_finished_run_of_the_other_kind_is_not_shown(was, tmp_path):
    environment = {"portable": "JAX" if was else None}
    manifest = {"experiment": "toy", "id": "0", "status": "finished", "config": {}}
    text = json.dumps(manifest | {"environment": environment})
    (tmp_path / "manifest.json").write_text(text)
    cli._check_as_portable(tmp_path, flags.Options(portable=was))
    with pytest.raises(ValueError, match=f"made {'with' if was else 'without'} --port"):
        cli._check_as_portable(tmp_path, flags.Options(portable=not was))


def test_a_portable_run_is_reproduced_with_pinned_libraries(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(portable, "pin_libraries", lambda: asked.append(1))
    file = tmp_path / "a.json"
    portable_run = {"environment": {"portable": "JAX"}}
    for text, times in (
        ("{}", 0),
        ("no JSON", 0),
        ("[1]", 0),
        (json.dumps({"environment": {"portable": None}}), 0),
        (json.dumps(portable_run), 1),
        (json.dumps({"manifest": portable_run}), 1),
    ):
        file.write_text(text)
        asked.clear()
        reproduce.pin_libraries_of(file)
        assert len(asked) == times
    reproduce.pin_libraries_of(tmp_path / "none")


@pytest.mark.parametrize("was", [True, False])
def test_a_packed_portable_run_is_reproduced_with_pinned_libraries(
    was, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(portable, "pin_libraries", lambda: asked.append(1))
    run = runs.finish(
        runs.open_run("toy", {}, tmp_path),
        runs.Result("It descends.", (), {"loss": np.ones(1)}, {}),
        seconds=1.0,
    ).path
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    manifest["environment"]["portable"] = "JAX" if was else None
    (run / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    reproduce.pin_libraries_of(runs.archive.pack(run, tmp_path / "toy.zip"))
    assert len(asked) == was


def test_the_page_has_a_row_of_the_reference():
    reference = json.loads(networks.REFERENCE.read_text("utf-8"))
    assert networks.row(reference, []) in PAGE.read_text("utf-8").splitlines()


def test_a_hash_that_differs_is_told_with_the_versions(capsys):
    reference = json.loads(networks.REFERENCE.read_text("utf-8"))
    assert networks.compared(reference, reference) == 0
    changed = reference["hashes"] | {"LSTM": "0" * 64}
    here = reference | {"hashes": changed, "jaxlib": "1.2.3"}
    assert networks.compared(reference, here) == 1
    told = capsys.readouterr().out
    assert "Not the bits of the reference: LSTM." in told
    assert "1.2.3 here" in told


@pytest.mark.thorough("three trainings in a process of their own")
def test_three_networks_have_the_bits_of_the_reference():
    names = {"XLA_FLAGS", "NPROC", *portable.LIBRARIES, *portable.PRODUCTS}
    bare = {k: v for k, v in os.environ.items() if k not in names}
    done = subprocess.run(
        [sys.executable, "-m", "tests.bits.portable"],
        cwd=TOP,
        env=bare,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


INVERSE_ROOT = """
import sys
from research import portable
portable.pin_libraries()
from research import backend
backend.configure(portable=True)
import jax, jax.numpy as jnp, numpy as np
x = np.random.default_rng(0).uniform(1e-3, 1e3, 10_000).astype(np.float32)
exact = np.float32(1) / np.sqrt(x)
for f in (jax.lax.rsqrt, lambda x: 1 / jnp.sqrt(x), jax.vmap(jax.lax.rsqrt)):
    np.testing.assert_array_equal(jax.jit(f)(x), exact)
np.testing.assert_array_equal(jax.jit(lambda x: x / jnp.sqrt(x))(x), x / np.sqrt(x))
slope = jax.jit(jax.vmap(jax.grad(jax.lax.rsqrt)))(x)
np.testing.assert_allclose(slope, -0.5 * exact**3, rtol=1e-6)
"""


@pytest.mark.on_ci("a process of its own; nothing shorter has a portable program")
def test_an_inverse_root_is_a_root_and_a_division():
    # IEEE 754 rounds both, so these are the bits of every processor.
    done = subprocess.run(
        [sys.executable, "-c", INVERSE_ROOT], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
