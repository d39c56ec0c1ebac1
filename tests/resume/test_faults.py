"""Laws of a run on a failing disk: whichever operation fails, what was saved is whole,
and the run ends as it should.
"""

import faults
import numpy as np
import pytest
import small

from research import files, runs
from research.runs import checkpoints

COMPILE_QUICKLY = True  # tests/conftest.py

CONFIG = small.Config(cells=1, width=1, epochs=4, chunk=2)


def found(path):
    """The bytes of what a run found."""
    return {name: (path / name).read_bytes() for name in ("result.json", "arrays.npz")}


@pytest.fixture
def alone(carry_out, tmp_path):
    """What the run finds on a good disk."""
    return found(carry_out(CONFIG, tmp_path / "alone"))


def assert_whole(folder):
    """Every file of a run folder is whole: JSON that reads, and arrays that match the
    digest beside them.
    """
    for file in folder.rglob("*.json"):
        assert files.read_json(file.read_bytes())
    for manifest in folder.glob("*/*/manifest.json"):
        if (
            runs.read_manifest(manifest.parent)["status"] != "finished"
        ):  # Else they are being deleted.
            for file in manifest.parent.rglob("checkpoints/**/*.json"):
                name = files.read_json(file.read_bytes())["name"]
                assert checkpoints._read(file, name).arrays is not None
    for file in folder.glob("*/*/arrays.npz"):
        with np.load(file, allow_pickle=False) as arrays:
            assert len(arrays.files) > 10


def error_of(carry_out, *words):
    """What a run says when the disk refuses; nothing where it could do without."""
    try:
        carry_out(*words)
    except OSError as error:
        return str(error)


def operations(disk, carry_out, folder):
    """The names of all operations of a run, in order."""
    disk.fail(None, faults.FULL)
    carry_out(CONFIG, folder)
    return disk.names


EVERY_OR_SOME = pytest.mark.parametrize(
    "every",
    [13, pytest.param(1, marks=pytest.mark.thorough("twelve in thirteen operations"))],
)


@pytest.mark.on_ci("a run for one operation in 39; nothing shorter shows this")
@pytest.mark.parametrize(
    "every",
    [
        39,
        pytest.param(
            13,
            marks=pytest.mark.thorough(
                "every thirteenth operation; make test has one in 39"
            ),
        ),
        pytest.param(
            1, marks=pytest.mark.thorough("every operation; make test has one in 39")
        ),
    ],
)
def test_run_survives_a_crash_at_any_operation(
    every, carry_out, alone, tmp_path, monkeypatch
):
    disk = faults.Disk(monkeypatch, tmp_path)
    names = operations(disk, carry_out, tmp_path / "counted")
    assert {"open", "write", "fsync", "replace", "unlink", "rmdir", "mkdir"} <= set(
        names
    )
    for number in range(1, len(names) + 1, every):
        results = tmp_path / str(number)
        disk.fail(number, faults.CRASH)
        with pytest.raises(faults.Crash):
            carry_out(CONFIG, results)
        disk.fail(None, faults.FULL)
        if results.exists():
            assert_whole(results)
        assert found(carry_out(CONFIG, results)) == alone, (
            f"operation {number}: {names[number - 1]}"
        )


@pytest.mark.on_ci("a run for one operation in 13; nothing shorter shows this")
@EVERY_OR_SOME
def test_run_survives_a_full_disk_at_any_operation(
    every, carry_out, alone, tmp_path, monkeypatch
):
    disk = faults.Disk(monkeypatch, tmp_path)
    names, refused = operations(disk, carry_out, tmp_path / "counted"), 0
    for number in range(1, len(names) + 1, every):
        results, where = (
            tmp_path / str(number),
            f"operation {number}: {names[number - 1]}",
        )
        disk.fail(number, faults.FULL)
        said = error_of(carry_out, CONFIG, results)
        disk.fail(None, faults.FULL)
        if said:
            refused += 1
            assert "the disk is full" in said, where
            if any(results.rglob("checkpoints/**/*.json")):
                assert "is saved in" in said, where
                assert "rerun the same command to resume" in said, where
        if results.exists():
            assert_whole(results)
        assert found(carry_out(CONFIG, results)) == alone, where
    assert refused > len(names) / every / 2
