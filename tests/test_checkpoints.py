"""Laws of checkpoints: what is loaded is what was saved last, to the last bit, or what
was saved before, aloud.
"""

import ast
import errno
import functools
import math
import re
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from research import files, runs
from research.runs import checkpoints
from research.types import Saved

FIRST = Saved({"w": np.arange(5.0)}, {"epoch": 1, "loss": 0.5})
SECOND = Saved(
    {"w": np.arange(5.0) * 2, "η": np.array([np.nan, -0.0])},
    {"epoch": 2, "loss": float("nan")},
)


@pytest.fixture
def keeper(tmp_path):
    """Checkpoints in a folder, two of them saved under one name."""
    made = runs.checkpoints_in(tmp_path)
    made("piece").save(FIRST)
    made("piece").save(SECOND)
    return made


def bits(saved):
    """All that a checkpoint holds, to the last bit."""
    return saved and (
        repr(saved.values),
        [
            (n, a.dtype.str, a.shape, a.tobytes())
            for n, a in sorted(saved.arrays.items())
        ],
    )


def loaded(made, name="piece"):
    """What is loaded, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        saved = made(name).load()
    return saved, [str(warning.message) for warning in caught]


def newest(folder, suffix):
    return sorted(folder.glob(f"piece/*.{suffix}"))[-1]


def test_what_was_saved_last_is_loaded_to_the_last_bit(keeper, tmp_path):
    assert bits(keeper("piece").load()) == bits(SECOND)
    assert bits(runs.checkpoints_in(tmp_path)("piece").load()) == bits(SECOND)
    assert keeper("another piece").load() is None


def test_two_generations_are_kept_and_no_more(keeper, tmp_path):
    for _ in range(5):
        keeper("piece").save(SECOND)
    names = sorted(file.name for file in (tmp_path / "piece").iterdir())
    assert names == ["000006.json", "000006.npz", "000007.json", "000007.npz"]


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_every_truncation_is_found_and_the_one_before_is_used(keeper, tmp_path, suffix):
    file = newest(tmp_path, suffix)
    whole = file.read_bytes()
    for length in sorted(
        {*range(0, len(whole), 7), *range(12), *range(len(whole) - 12, len(whole))}
    ):
        file.write_bytes(whole[:length])
        saved, said = loaded(keeper)
        assert bits(saved) == bits(FIRST), length
        assert len(said) == 1
        assert re.search(
            r"000002\.npz is damaged .*The previous checkpoint is used", said[0]
        )


@pytest.mark.parametrize(
    "every",
    [5, pytest.param(1, marks=pytest.mark.thorough("the bytes between every fifth"))],
)
@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_every_flipped_bit_is_found_and_the_one_before_is_used(
    keeper, tmp_path, suffix, every
):
    file = newest(tmp_path, suffix)
    whole = file.read_bytes()
    for place in range(0, len(whole), every):
        for bit in range(8) if suffix == "json" else (place % 8,):
            file.write_bytes(
                whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
            )
            saved, said = loaded(keeper)
            assert bits(saved) == bits(FIRST), (place, bit)
            assert len(said) == 1


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES]
)
@pytest.mark.parametrize("call", ["read_bytes", "listdir"])
def test_a_save_that_cannot_be_read_now_is_not_lost(
    keeper, tmp_path, monkeypatch, number, call
):
    newest(tmp_path, "json")  # Two generations.

    def fail(*arguments):
        raise OSError(number, "no")

    with monkeypatch.context() as patch:
        if call == "listdir":
            patch.setattr(checkpoints.os, call, fail)
        else:
            patch.setattr(checkpoints, call, fail)
        with pytest.raises(OSError, match=r"Cannot read .* Rerun the same"):
            keeper("piece").load()
    assert bits(keeper("piece").load()) == bits(SECOND)


def test_more_arrays_than_are_read_are_not_written(keeper, monkeypatch):
    monkeypatch.setattr(files, "MOST_MEMBERS", 3)
    with pytest.raises(ValueError, match="at most 3 arrays; got 4"):
        keeper("many").save(Saved({str(i): np.zeros(1) for i in range(4)}, 0))


def test_bytes_that_were_added_are_found(keeper, tmp_path):
    for suffix in ("json", "npz"):
        file = newest(tmp_path, suffix)
        whole = file.read_bytes()
        file.write_bytes(whole + b"\n")
        assert bits(loaded(keeper)[0]) == bits(FIRST)
        file.write_bytes(whole)


def test_file_that_is_gone_is_found(keeper, tmp_path):
    newest(tmp_path, "npz").unlink()
    saved, (said,) = loaded(keeper)
    assert bits(saved) == bits(FIRST)
    assert "000002.npz" in said
    newest(tmp_path, "json").unlink()  # As a save that was cut short leaves it.
    assert (bits(keeper("piece").load()), loaded(keeper)[1]) == (bits(FIRST), [])


def test_where_both_are_damaged_the_part_is_computed_again(keeper, tmp_path):
    for file in tmp_path.rglob("*.npz"):
        file.write_bytes(b"")
    saved, said = loaded(keeper)
    assert saved is None
    assert "The previous checkpoint is used" in said[0]
    assert "computed again" in said[1]
    with pytest.warns(UserWarning, match="is damaged"):
        again = runs.remembered(keeper, "piece", lambda parts: FIRST)
    assert bits(again) == bits(FIRST)
    assert (bits(keeper("piece").load()), loaded(keeper)[1]) == (bits(FIRST), [])


def test_what_was_found_damaged_is_not_the_one_that_the_next_save_keeps(
    keeper, tmp_path
):
    (tmp_path / "piece" / "000002.npz").write_bytes(b"")
    piece = keeper("piece")
    with pytest.warns(UserWarning, match="is damaged"):
        assert bits(piece.load()) == bits(FIRST)
    piece.save(SECOND)
    (tmp_path / "piece" / "000003.npz").write_bytes(b"")
    assert bits(loaded(keeper)[0]) == bits(FIRST)


def test_checkpoint_of_another_name_is_not_taken(keeper, tmp_path):
    (tmp_path / "other").mkdir()
    for suffix in ("json", "npz"):
        (tmp_path / f"other/000001.{suffix}").write_bytes(
            newest(tmp_path, suffix).read_bytes()
        )
    saved, (said,) = loaded(keeper, "other")
    assert saved is None
    assert "is damaged" in said


def test_foreign_files_are_let_be(keeper, tmp_path):
    foreign = [
        "notes.txt",
        "000003.npz",
        "1.json",
        "0000010.json",
        "x.json",
        ".000004.json.77.partial",
    ]
    for name in foreign:
        (tmp_path / "piece" / name).write_bytes(b"mine")
    assert (bits(keeper("piece").load()), loaded(keeper)[1]) == (bits(SECOND), [])
    keeper("piece").save(FIRST)
    assert bits(keeper("piece").load()) == bits(FIRST)
    left = {
        name for name in foreign if (tmp_path / "piece" / name).read_bytes() == b"mine"
    }
    assert left == set(foreign) - {"000003.npz"}  # That number is the next one's.


NAMES = [
    "a b",
    "a-b",
    "a  b",
    "a,b",
    "A+b",
    "η = 0.1",
    "η = 0.2",
    "",
    ".",
    "..",
    "a.",
    ".a",
    "a",
    "x" * 300,
    "x" * 301,
]
NAMES += [
    "con:",
    "a\\b",
    "a\nb",
    "*",
    "?",
    "000001.json",
    "000001.npz",
    "000001",
    "a/b",
    "a/b/c",
    "a//b",
    "/a",
    "../up",
]


def test_names_of_any_characters_do_not_collide(tmp_path):
    made = runs.checkpoints_in(tmp_path / "deep" / "checkpoints")
    for number in range(2):
        for i, name in sorted(
            enumerate(NAMES), key=lambda entry: len(entry[1].split("/"))
        ):  # Wholes before parts.
            made(name).save(Saved({}, [i, number]))
    saved = [made(name).load() or Saved({}) for name in NAMES]
    assert [s.values for s in saved] == [[i, 1] for i in range(len(NAMES))]
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"checkpoints"}


def test_saving_a_whole_deletes_its_parts_and_nothing_else(tmp_path):
    made = runs.checkpoints_in(tmp_path)
    for name in (
        "piece/one",
        "piece/one/deep",
        "piece/000001.json",
        "pieces",
        "piece, two",
    ):
        made(name).save(FIRST)
    made("piece").save(SECOND)
    assert [
        made(n).load() for n in ("piece/one", "piece/one/deep", "piece/000001.json")
    ] == [None] * 3
    assert [bits(made(n).load()) for n in ("pieces", "piece, two", "piece")] == [
        *[bits(FIRST)] * 2,
        bits(SECOND),
    ]


def test_a_piece_is_computed_once_and_its_parts_are_its_own(tmp_path):
    made, computed = runs.checkpoints_in(tmp_path), []

    def compute(parts, name):
        computed.append(name)
        parts("half").save(Saved({}, name))
        assert parts("half").load().values == name
        return Saved({}, name.upper())

    for _ in range(3):
        for name in ("one", "two"):
            assert (
                runs.remembered(
                    made, name, functools.partial(compute, name=name)
                ).values
                == name.upper()
            )
    assert computed == ["one", "two"]
    assert made("one/half").load() is None


@pytest.mark.parametrize("seconds", [math.nan, -1.0])
def test_what_is_no_time_between_saves_is_refused(tmp_path, seconds):
    with pytest.raises(ValueError, match="seconds_between must be at least 0"):
        runs.checkpoints_in(tmp_path, seconds)


def test_saves_are_spaced_by_time_and_by_what_they_cost(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    made = runs.checkpoints_in(tmp_path, seconds_between=10.0)
    assert not made("a").due()
    clock[0] += 10.0
    assert made("a").due()
    assert made("b").due()
    made("b").save(FIRST)
    assert not made("a").due()
    clock[0] += 9.9
    assert not made("a").due()
    clock[0] += 0.2
    assert made("a").due()
    slow = checkpoints._save
    monkeypatch.setattr(
        checkpoints,
        "_save",
        lambda *words: (slow(*words), clock.__setitem__(0, clock[0] + 2.0)),
    )
    made("a").save(FIRST)  # It took 2 seconds: they are to be a twentieth of the time.
    clock[0] += 39.9
    assert not made("a").due()
    clock[0] += 0.2
    assert made("a").due()


NUMPY_FILES = {"load", "save", "read_array", "write_array"}


@pytest.mark.on_ci("every file of the package; nothing shorter shows this")
def test_nothing_is_pickled():
    root = Path(runs.__file__).parents[1]
    calls = 0
    for file in root.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import | ast.ImportFrom)
                else []
            )
            assert not {
                "pickle",
                "dill",
                "cloudpickle",
                "joblib",
                "shelve",
                "marshal",
            } & set(names), file
            if not isinstance(node, ast.Call) or not isinstance(
                node.func, ast.Attribute
            ):
                continue
            if node.func.attr in NUMPY_FILES and ast.unparse(node.func) in {
                *("np.load", "np.save"),
                *("np.lib.format.read_array", "np.lib.format.write_array"),
            }:
                calls += 1
                assert "allow_pickle=False" in ast.unparse(node), (
                    f"{file}:{node.lineno}"
                )
    assert calls


def test_array_of_objects_is_refused_and_what_was_saved_stays(keeper):
    with pytest.raises(TypeError, match="object"):
        keeper("piece").save(Saved({"w": np.array([None])}, {}))
    assert (bits(keeper("piece").load()), loaded(keeper)[1]) == (bits(SECOND), [])


def test_a_checkpoint_is_found_after_a_million_saves(tmp_path):
    for number in (999_999, 1_000_000):
        (tmp_path / f"{number:06d}.json").touch()
    assert sorted(checkpoints._numbers(tmp_path)) == [999_999, 1_000_000]
