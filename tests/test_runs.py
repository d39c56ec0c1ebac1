"""Laws of run folders: exact round trips, ids that name what is computed, and files
that are whole or absent.
"""

import dataclasses
import errno
import hashlib
import json
import math
import os
import platform
import signal
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import runs
from research.runs import manifest
from research.runs._environment import differences
from research.runs.result import read_result, result_bytes
from research.types import Saved

pytestmark = pytest.mark.usefixtures("asked_once")  # tests/conftest.py


@dataclasses.dataclass(frozen=True)
class Config:
    seeds: str = "0..9"
    learning_rate: float = 0.1
    rules: tuple[str, ...] = ("adam",)
    decay: float | None = None


RESULT = runs.Result(
    answer="Momentum takes 3.1 times fewer steps, η = 0.1 <b>.",
    tables=(
        runs.Table(
            "Steps",
            ("rule", "steps", "rate"),
            (("adam", 12, 0.1), ("sgd", None, math.nan), ("x", 1, 1.0)),
        ),
        runs.Table("Empty", (), (), "Nothing here."),
    ),
    arrays={
        "loss": np.array([[0.1, math.nan, -0.0], [math.inf, -math.inf, 5e-324]]),
        "file": np.arange(3, dtype=np.int8),
        "a.npy": np.float32(1.5).reshape(()),
        "names": np.array(["η", "b"]),
        "nothing": np.zeros((0, 2), bool),
    },
    numbers={
        "ratio": 3.1,
        "worst": -math.inf,
        "count": 7,
        "flag": True,
        "none": None,
        "deep": {"list": [1, 1.0]},
    },
)


@pytest.fixture
def run(tmp_path):
    run = runs.open_run("trajectory", Config(), tmp_path)
    runs.close(run)  # As if its process had ended.
    return run


def files(folder):
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name != ".lock"
    }


def refuse_constants(name):
    raise AssertionError(f"{name} is not JSON")


def test_result_round_trip_is_exact(run):
    runs.finish(run, RESULT)
    loaded = runs.load_result(run.path)
    assert repr(loaded._replace(arrays={})) == repr(
        RESULT._replace(arrays={})
    )  # repr tells 1 from 1.0, and shows nan.
    assert list(loaded.arrays) == list(RESULT.arrays)
    for name, array in RESULT.arrays.items():
        assert (loaded.arrays[name].dtype, loaded.arrays[name].shape) == (
            array.dtype,
            array.shape,
        )
        assert loaded.arrays[name].tobytes() == array.tobytes()


def test_result_is_read_by_other_programs(run):
    runs.finish(run, RESULT)
    json.loads(
        (run.path / "result.json").read_text("utf-8"), parse_constant=refuse_constants
    )
    with np.load(run.path / "arrays.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["loss"], RESULT.arrays["loss"])


def test_numpy_scalars_come_back_as_numbers():
    table = runs.Table("t", ("a", "b"), ((np.float64(0.1), np.int64(3)),))
    loaded = read_result(
        *result_bytes(runs.Result("", (table,), {}, {"ok": np.bool_(True)}))
    )
    assert (
        repr((loaded.tables[0].rows, loaded.numbers)) == "(((0.1, 3),), {'ok': True})"
    )


@pytest.mark.thorough("other results", but="^change(0|3|5)-")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numbers": {"loss": jnp.zeros(())}}, r"result\.numbers\.loss .* float\(x\)"),
        ({"numbers": {3: 1}}, r"result\.numbers has the key 3"),
        (
            {"numbers": {"a": {"$float": "nan"}}},
            r"result\.numbers\.a has the key '\$float'",
        ),
        (
            {"arrays": {"w": np.zeros(2, jnp.bfloat16)}},
            r"arrays\['w'\] has dtype bfloat16",
        ),
        ({"arrays": {"w": np.array([None])}}, r"arrays\['w'\] has dtype object"),
        (
            {"tables": (runs.Table("T", ("a",), ((1, 2),)),)},
            r"'T' has 1 columns, but the row \(1, 2\) has 2 entries",
        ),
        (
            {"tables": (runs.Table("T", ("a", "b", "a"), ()),)},
            "'T' has two columns with the name 'a'",
        ),
    ],
)
def test_result_that_cannot_be_saved_exactly_is_refused_and_saves_nothing(
    run, change, message
):
    before = files(run.path)
    with pytest.raises((TypeError, ValueError), match=message):
        runs.finish(run, RESULT._replace(**change))
    assert files(run.path) == before


def test_manifest_holds_all_that_makes_the_run_again(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", f"{Path.home()}/cache")
    monkeypatch.setenv(
        "XLA_FLAGS", f"--xla_dump_to={Path.home()}/x --xla_cpu_max_isa=AVX"
    )
    config = Config(learning_rate=0.5, decay=math.nan)
    run = runs.open_run("trajectory", config, tmp_path, width=32)
    assert (run.path, run.finished) == (tmp_path / "trajectory" / run.id, False)
    assert runs.read_manifest(run.path)["status"] == "running"
    runs.finish(run, RESULT, seconds=1.5, programs={"step": "ab12"})
    manifest = runs.read_manifest(run.path)
    assert {
        name: manifest[name]
        for name in ("experiment", "id", "status", "command", "facts")
    } == {
        "experiment": "trajectory",
        "id": runs.run_id("trajectory", config),
        "status": "finished",
        "command": "python experiments/trajectory.py --learning-rate 0.5 --decay nan",
        "facts": {"seconds": 1.5, "programs": {"step": "ab12"}},
    }
    assert repr(manifest["config"]) == repr(
        dataclasses.asdict(config) | {"rules": ["adam"]}
    )
    for name, digest in manifest["digests"].items():
        assert digest == hashlib.sha256((run.path / name).read_bytes()).hexdigest()
    where = manifest["environment"]
    packages = [
        "jax",
        "jaxlib",
        "optax",
        "flax",
        "numpy",
        "scipy",
        "scikit-learn",
        "descent-jax",
    ]
    assert list(where["versions"]) == packages
    assert (where["versions"]["jax"], where["versions"]["numpy"]) == (
        jax.__version__,
        np.__version__,
    )
    assert where["python"] == sys.version.split()[0]
    assert where["processor"]["cores"] == os.cpu_count()
    assert where["processor"].keys() == {
        "model",
        "architecture",
        "instruction_sets",
        "cores",
    }
    assert (where["xla_pool"], where["x64"], where["matmul_precision"]) == (
        "2",
        True,
        "highest",
    )
    assert where["xla_flags"] == "--xla_dump_to=(path or address) --xla_cpu_max_isa=AVX"
    assert where["jax_variables"]["JAX_COMPILATION_CACHE_DIR"] == "(path or address)"
    assert where["devices"] == {
        "kind": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "count": 1,
    }
    assert where["lane_width"] == 32
    assert "git" in where
    text = (run.path / "manifest.json").read_text("utf-8")
    json.loads(text, parse_constant=refuse_constants)
    assert not [
        word
        for word in (str(Path.home()), str(tmp_path), platform.node())
        if word and word in text
    ]


def test_finished_run_is_left_as_it_is_and_fresh_begins_anew(run, tmp_path):
    runs.append_metrics(run, epoch=0)
    assert runs.finish(run, RESULT).finished
    before = files(run.path)
    assert runs.open_run("trajectory", Config(), tmp_path).finished
    assert files(run.path) == before
    assert not runs.open_run("trajectory", Config(), tmp_path, fresh=True).finished
    assert set(files(run.path)) == {"manifest.json", "result.json", "arrays.npz"}
    with pytest.raises(
        ValueError, match=r"status is 'running'.*python experiments/trajectory\.py"
    ):
        runs.load_result(run.path)


def test_metrics_are_lines_of_json_that_begin_again_with_the_run(run, tmp_path):
    for epoch in range(2):
        runs.append_metrics(run, epoch=epoch, loss=math.nan)
        assert len((run.path / "metrics.jsonl").read_text().splitlines()) == epoch + 1
    last = (run.path / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last) == {"epoch": 1, "loss": {"$float": "nan"}}
    runs.open_run("trajectory", Config(), tmp_path)
    assert not (run.path / "metrics.jsonl").exists()


@pytest.mark.thorough("the other file", but="arrays")
@pytest.mark.parametrize("name", ["result.json", "arrays.npz"])
def test_every_flipped_byte_is_found(run, tmp_path, name):
    runs.finish(run, RESULT)
    whole = (run.path / name).read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 1):
        (run.path / name).write_bytes(
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        )
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            runs.load_result(run.path)
    manifest = (run.path / "manifest.json").read_bytes()
    with pytest.warns(
        UserWarning, match=f"{name} is damaged.*starts from the beginning"
    ) as told:
        assert not runs.open_run("trajectory", Config(), tmp_path).finished
    assert len(told) == 1
    (run.path / "manifest.json").write_bytes(manifest)
    (run.path / name).unlink()
    with pytest.warns(UserWarning, match=f"{name} is missing"):
        assert not runs.open_run("trajectory", Config(), tmp_path).finished


def test_a_folder_in_the_place_of_a_file_is_named(run):
    runs.finish(run, RESULT)
    (run.path / "result.json").unlink()
    (run.path / "result.json").mkdir()
    with pytest.raises(ValueError, match=r"result\.json is a folder, which you"):
        runs.load_result(run.path)


@pytest.mark.thorough("other texts", but=r"^\{(\]|.status)")
@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"status": {"$float": []}}', "\x00\x00"]
)
def test_unreadable_manifest_is_said_aloud_and_begins_anew(run, tmp_path, text):
    runs.finish(run, RESULT)
    (run.path / "manifest.json").write_text(text)
    with pytest.warns(
        UserWarning, match=r"manifest\.json cannot be read.*starts from the beginning"
    ):
        assert not runs.open_run("trajectory", Config(), tmp_path).finished
    assert runs.read_manifest(run.path)["status"] == "running"


@pytest.mark.thorough("another experiment", but="change0")
@pytest.mark.parametrize(
    "change", [{"config": {"seeds": "0..3"}}, {"experiment": "other"}]
)
def test_folder_of_another_run_is_refused_and_kept(run, tmp_path, change):
    manifest = runs.read_manifest(run.path) | change
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    before = files(run.path)
    with pytest.raises(ValueError, match=r"contains another run: .*--results.*--fresh"):
        runs.open_run("trajectory", Config(), tmp_path)
    assert files(run.path) == before
    assert not runs.open_run("trajectory", Config(), tmp_path, fresh=True).finished


def test_a_run_of_no_experiment_has_no_command(tmp_path):
    started = runs.open_run("no_experiment", {"a": 1}, tmp_path)
    for load in (runs.load_result, lambda path: runs.model_file(path, "m")):
        with pytest.raises(ValueError, match="Run it again") as error:
            load(started.path)
        assert "python experiments" not in str(error.value)
    known = runs.open_run("fit_a_line", {"a": 1}, tmp_path)
    with pytest.raises(ValueError, match=r"again: python experiments/fit_a_line\.py"):
        runs.load_result(known.path)


def test_a_file_in_a_missing_folder_says_how_to_make_the_folder(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with pytest.raises(OSError, match=r"the folder does not exist\. Make .*: mkdir"):
        runs.write_atomically(path, b"1")


def test_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"Check that .* is a run folder"):
        runs.load_result(tmp_path)


def test_results_under_a_file_are_refused(tmp_path):
    (tmp_path / "file").write_text("precious")
    for results in (tmp_path / "file", tmp_path / "file" / "results"):
        with pytest.raises(
            OSError, match=r"a file is in the place of a folder.*--results"
        ):
            runs.open_run("trajectory", Config(), results)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.ENOSPC, "disk is full"),
    ],
)
def test_results_that_cannot_be_made_say_why(tmp_path, monkeypatch, number, reason):
    def refuse(*args, **kwargs):
        raise OSError(number, "no")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        OSError, match=rf"{runs.run_id('t', {})}: .*{reason}.*--results"
    ) as caught:
        runs.open_run("t", {}, tmp_path)
    assert caught.value.errno == number


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space"), KeyboardInterrupt()],
    ids=["full", "interrupted"],
)
def test_write_that_fails_keeps_what_was_saved(tmp_path, monkeypatch, call, error):
    def fail(*args):
        raise error

    path = tmp_path / "answer.txt"
    runs.write_atomically(path, b"before")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(error)) as caught:
        runs.write_atomically(path, b"after")
    assert files(tmp_path) == {"answer.txt": b"before"}
    if isinstance(error, OSError):
        assert all(
            words in str(caught.value)
            for words in (str(path), "disk is full", "Unchanged", "answer.txt")
        )


def test_a_write_flushes_the_file_before_it_is_renamed_and_then_its_folder(
    tmp_path, monkeypatch
):
    flush, rename, calls = os.fsync, os.replace, []

    def flushed(number):
        calls.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file")
        flush(number)

    def renamed(*paths):
        calls.append("rename")
        rename(*paths)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    runs.write_atomically(tmp_path / "answer.txt", b"after")
    assert calls == ["file", "rename", "folder"]


def test_a_file_system_that_flushes_no_folders_takes_files(tmp_path, monkeypatch):
    flush = os.fsync

    def refuse_folders(number):
        if os.path.isdir(f"/proc/self/fd/{number}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(number)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    runs.write_atomically(tmp_path / "answer.txt", b"after")
    assert files(tmp_path) == {"answer.txt": b"after"}


def test_full_disk_keeps_what_was_saved(tmp_path, monkeypatch):
    path = tmp_path / "answer.txt"
    runs.write_atomically(path, b"before")
    monkeypatch.setattr("research.files.uuid.uuid4", lambda: uuid.UUID(int=0))
    partial = f".answer.txt.{os.getpid()}.00000000.partial"
    (tmp_path / partial).symlink_to("/dev/full")
    with pytest.raises(
        OSError,
        match=r"Cannot write .*answer\.txt: the disk is full\. Unchanged: answer",
    ):
        runs.write_atomically(path, b"after")
    assert files(tmp_path) == {"answer.txt": b"before"}


def test_metrics_on_a_full_disk_say_so(run):
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(
        OSError,
        match=r"Cannot add to .*metrics\.jsonl: the disk is full.*manifest\.json",
    ):
        runs.append_metrics(run, loss=1.0)


@pytest.mark.thorough("the first and the last file", but=r"1\]")
@pytest.mark.parametrize("number", range(3))
def test_finish_that_fails_at_any_file_leaves_an_unfinished_run_of_whole_files(
    run, tmp_path, monkeypatch, number
):
    runs.finish(run, RESULT)
    run = runs.open_run("trajectory", Config(), tmp_path, fresh=True)
    runs.close(run)
    replace, calls = os.replace, []

    def fail(*paths):
        calls.append(paths)
        if len(calls) > number:
            raise OSError(errno.ENOSPC, "No space")
        replace(*paths)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="the disk is full"):
        runs.finish(run, RESULT._replace(answer="Another."))
    monkeypatch.undo()
    assert set(files(run.path)) == {"manifest.json", "result.json", "arrays.npz"}
    read_result(
        (run.path / "result.json").read_bytes(), (run.path / "arrays.npz").read_bytes()
    )
    assert not runs.open_run("trajectory", Config(), tmp_path).finished


def test_killed_write_keeps_what_was_saved_and_its_left_over_goes(run, tmp_path):
    before = files(run.path)
    program = (
        "import os, signal, sys; from research import runs; "
        f"os.replace = lambda *paths: os.kill(os.getpid(), {int(signal.SIGKILL)}); "
        "runs.write_atomically(sys.argv[1], b'half')"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, str(run.path / "manifest.json")], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    left_over = set(files(run.path)) - set(before)
    assert len(left_over) == 1
    assert files(run.path)["manifest.json"] == before["manifest.json"]
    runs.open_run("trajectory", Config(), tmp_path)
    assert files(run.path) == before


@pytest.mark.parametrize(
    "table",
    [
        runs.Table("T", ("rule", 64), (("adam", 1.0),)),
        runs.Table("T", ("rule", "x"), (("adam", (1, 2)),)),
        runs.Table(None, ("rule",), (("adam",),)),
    ],
)
def test_a_result_that_could_not_be_read_is_not_written(table):
    with pytest.raises((ValueError, TypeError)):
        result_bytes(runs.Result("x", (table,), {}, {}))


def test_an_empty_list_is_a_number_that_differs():
    there, here = (runs.Result("", (), {}, n) for n in ({"reached": []}, {}))
    assert not runs.compare(there, here, ({}, {})).same
    other = runs.Result("", (), {}, {"reached": {}})
    assert not runs.compare(there, other, ({}, {})).same
    assert runs.compare(there, there, ({}, {})).same


def test_the_largest_of_all_differences_is_told():
    there = runs.Result("", (), {"loss": np.ones(2)}, {"accuracy": 0.5})
    here = runs.Result("", (), {"loss": np.full(2, 1 + 2**-52)}, {"accuracy": 0.9})
    told = runs.verdict(runs.compare(there, here, ({}, {})))
    assert "The largest difference is 0.4" in told
    assert "in accuracy" in told


def test_a_result_of_numpy_and_of_jax_equals_its_saved_copy(run, tmp_path):
    made = runs.Result(
        "It descends.",
        (),
        {"index": jnp.arange(3), "loss": jnp.ones(2)},
        {"steps": np.int64(7), "rate": np.float64(0.1), "done": np.True_},
    )
    back = runs.load_result(runs.finish(run, made).path)
    assert runs.compare(back, made, ({}, {})).same
    moved = made._replace(arrays=made.arrays | {"index": jnp.array([0, 1, 9])})
    (difference,) = runs.compare(back, moved, ({}, {})).other_arrays
    assert (difference.place, difference.size) == ("index[2]", 7.0)


def test_a_folder_that_a_killed_write_left_is_deleted(run, tmp_path):
    left_over = run.path / "records" / ".x.partial"
    left_over.mkdir(parents=True)
    (left_over / "half").write_bytes(b"half")
    runs.open_run("trajectory", Config(), tmp_path)
    assert not left_over.exists()


def test_a_result_that_could_not_be_read_keeps_the_checkpoints(run, monkeypatch):
    monkeypatch.setitem(manifest.MOST_BYTES, "arrays.npz", 1000)
    runs.checkpoints_in(run.checkpoints)("a").save(Saved({}, 1))
    large = runs.Result("x", (), {"a": np.arange(1000.0)}, {})
    with pytest.raises(ValueError, match=r"arrays\.npz must have at most 1,000 bytes"):
        runs.finish(run, large)
    assert runs.checkpoints_in(run.checkpoints)("a").load() == Saved({}, 1)


@pytest.mark.parametrize(
    ("there", "here", "told"),
    [
        ({"x64": False}, {"x64": True}, ["float64 False there, True here"]),
        ({}, {"x64": True}, ["float64 unknown there, True here"]),
        (
            {"xla_flags": ""},
            {"xla_flags": "--a=1"},
            ["XLA flags none there, --a=1 here"],
        ),
        (
            {"xla_flags": "--a=1 --b=2"},
            {"xla_flags": "--a=1 --xla_force_host_platform_device_count=8 --b=2"},
            [],
        ),
        ({"jax_variables": {}}, {"jax_variables": {"JAX_NUM_CPU_DEVICES": "4"}}, []),
    ],
)
def test_differences_of_environments_are_those_that_change_bits(there, here, told):
    assert differences(there, here) == told


def test_seeds_are_counted_to_the_last():
    assert len(runs.parse_seeds("0..999999")) == 1_000_000
    for text in ("0..1000000", "0..999999,1000000", "0..500000,500001..1000000"):
        with pytest.raises(ValueError, match="at most"):
            runs.parse_seeds(text)
