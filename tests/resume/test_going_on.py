"""Laws of going on: from checkpoints of the same code, versions, processor and
settings, and from no others, aloud.
"""

import os

import numpy as np
import pytest

from research import files, runs
from research.types import Saved

COMPILE_QUICKLY = True  # tests/conftest.py

SAVED = Saved({"w": np.arange(5.0)}, {"epoch": 1})


def begun(tmp_path, width=8):
    """A run that was stopped after a checkpoint; its process has ended."""
    run = runs.open_run("toy", {"seed": 0}, tmp_path, width=width)
    runs.checkpoints_in(run.checkpoints)("piece").save(SAVED)
    runs.append_metrics(run, done=1, seconds=12.5)
    runs.close(run)
    return run


def test_run_with_checkpoints_goes_on_with_its_clock(tmp_path):
    begun(tmp_path)
    run = runs.open_run("toy", {"seed": 0}, tmp_path, width=8)
    assert (run.resumed, run.seconds, run.finished) == (True, 12.5, False)
    saved = runs.checkpoints_in(run.checkpoints)("piece").load()
    assert saved is not None
    assert saved.arrays["w"].tobytes() == SAVED.arrays["w"].tobytes()
    runs.close(run)


OTHERS = [
    (("versions", "jax"), "0.0.1", r"jax 0\.0\.1 there"),
    (("versions", "numpy"), "0.0.1", r"numpy 0\.0\.1 there"),
    (("python",), "2.7", r"Python 2\.7 there"),
    (("xla_pool",), "64", r"XLA thread pool \(NPROC\) 64 there, 2 here"),
    (("x64",), False, "float64"),
    (("matmul_precision",), "default", "matmul precision default there"),
    (("lane_width",), 4, "sweep width 4 there, 8 here"),
    (("devices", "kind"), "TPU", "device kind TPU there"),
    (("processor", "model"), "abacus", "processor abacus there"),
    (("processor", "instruction_sets"), [], "processor"),
    (("xla_flags",), "--xla_cpu_max_isa=AVX", "XLA flags --xla_cpu_max_isa=AVX there"),
    (("jax_variables",), {"JAX_X": "1"}, "JAX variables"),
    (("code",), "0" * 64, "other code"),
]


@pytest.mark.on_ci("three of five entries", but="jax]|code]")
@pytest.mark.thorough("eight more entries", but="jax]|lane_width|model|xla_flags|code")
@pytest.mark.parametrize(
    ("path", "value", "words"), OTHERS, ids=[".".join(path) for path, *_ in OTHERS]
)
def test_checkpoints_of_another_environment_are_refused_aloud(
    tmp_path, path, value, words
):
    run = begun(tmp_path)
    manifest = runs.read_manifest(run.path)
    entry = manifest["environment"]
    for name in path[:-1]:
        entry = entry[name]
    entry[path[-1]] = value
    (run.path / "manifest.json").write_bytes(files.json_bytes(manifest))
    with pytest.warns(
        UserWarning, match=f"the run starts from the beginning: .*{words}"
    ):
        again = runs.open_run("toy", {"seed": 0}, tmp_path, width=8)
    runs.close(again)
    assert (again.resumed, again.seconds) == (False, 0.0)
    assert not run.checkpoints.exists()
    assert not (run.path / "metrics.jsonl").exists()


@pytest.mark.thorough("the processor's cores", but="path[02]")
@pytest.mark.parametrize(
    "path", [("devices", "count"), ("processor", "cores"), ("git",)]
)
def test_checkpoints_of_more_devices_or_another_commit_of_the_code_are_gone_on_with(
    tmp_path, path
):
    run = begun(tmp_path)
    manifest = runs.read_manifest(run.path)
    if path == ("git",):
        manifest["environment"]["git"] = {"commit": "0" * 40, "dirty": True}
    else:
        manifest["environment"][path[0]][path[1]] = 64
    (run.path / "manifest.json").write_bytes(files.json_bytes(manifest))
    again = runs.open_run("toy", {"seed": 0}, tmp_path, width=8)
    runs.close(again)
    assert again.resumed


def test_other_code_is_other_checkpoints(tmp_path):
    file = tmp_path / "toy.py"
    file.write_text("x = 1\n")
    run = runs.open_run("toy", {}, tmp_path, code=[file])
    runs.checkpoints_in(run.checkpoints)("piece").save(SAVED)
    runs.close(run)
    file.write_text("x = 2\n")
    with pytest.warns(
        UserWarning, match="the run starts from the beginning: other code"
    ):
        runs.close(runs.open_run("toy", {}, tmp_path, code=[file]))


def test_fresh_begins_anew(tmp_path):
    begun(tmp_path)
    run = runs.open_run("toy", {"seed": 0}, tmp_path, fresh=True, width=8)
    runs.close(run)
    assert (run.resumed, run.checkpoints.exists()) == (False, False)


def test_checkpoints_that_cannot_be_deleted_are_not_gone_on_with(tmp_path, monkeypatch):
    begun(tmp_path)

    def refuse(*words, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rmdir", refuse)
    with pytest.raises(OSError, match=r"Cannot start in .*no permission"):
        runs.open_run("toy", {"seed": 0}, tmp_path, fresh=True, width=8)
    monkeypatch.undo()
    again = runs.open_run(
        "toy", {"seed": 0}, tmp_path, width=8
    )  # And the folder is free.
    runs.close(again)


def test_line_of_metrics_that_was_cut_short_goes(tmp_path):
    run = begun(tmp_path)
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(b'{"done": 2, "seco')
    again = runs.open_run("toy", {"seed": 0}, tmp_path, width=8)
    runs.append_metrics(again, done=2, seconds=20.0)
    runs.close(again)
    lines = (run.path / "metrics.jsonl").read_bytes().splitlines()
    assert [files.read_json(line)["done"] for line in lines] == [1, 2]
    assert again.seconds == 12.5
