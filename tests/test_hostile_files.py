"""Laws of readers: a file that anybody may have written is read, or refused with its
name; a planted slip is seen.
"""

import contextlib
import gzip
import itertools
import json
import os
import struct
import tarfile
import time
import zipfile

import numpy as np
import pytest

from research import leaderboard, reading, runs
from research.cli import reproduce
from research.datasets.cifar import read_cifar10
from research.datasets.hashing import content
from research.datasets.wheel import read_member
from research.files import npz_bytes
from research.reading import Is, check_shape, parse_json, read_bytes
from research.reading.arrays import read_npy, read_npz
from tests import hostile_files

# Of each subject one, three or a dozen; `python tests/hostile_files.py --cases 20000
# --seed 1` runs more.
CASES = [
    39,
    pytest.param(125, marks=pytest.mark.on_ci("three times as many")),
    pytest.param(500, marks=pytest.mark.thorough("twelve times as many")),
]


@pytest.mark.parametrize("cases", CASES)
def test_changed_file_is_read_or_refused_by_name(cases):
    found = hostile_files.attack(cases, seed=0)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("slip", ["recursion", "no name", "a crash under skip_bad"])
def test_fuzzer_sees_a_slip(monkeypatch, slip):
    if slip == "recursion":
        monkeypatch.setattr(reading, "DEEPEST", 10**6)
        monkeypatch.setattr(runs.manifest, "parse_json", json.loads)
    elif slip == "no name":
        monkeypatch.setattr(hostile_files, "read_idx", lambda path: parse_json(b"{"))
    else:
        monkeypatch.setattr(
            hostile_files.leaderboard.page, "gather", lambda paths, skip_bad: [][0]
        )
    with contextlib.closing(hostile_files.faults(140, seed=0)) as found:
        assert next(found, None)  # The first is enough.


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested 100,000 deep; at most 64"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "nested 70 deep"),
        (
            b"1" + b"0" * 400,
            (
                "the number 100000000000... of 401 characters is larger than a float "
                "can be"
            ),
        ),
        (b"-1" + b"0" * 309, "larger than a float can be"),
        (b"1e400", "the number 1e400 is larger than a float can be"),
        (b"9" * 100_000, "larger than a float can be"),
        (b"NaN", "NaN is not valid JSON"),
        (b"[-Infinity]", "-Infinity is not valid JSON"),
        (
            b'{"a": 1, "b": {"a": 1, "a": 1}}',
            "the name 'a' appears twice in one object",
        ),
        (b'{"$float": 1}', r"\{'\$float': 1\} is not a number"),
        (b'{"$float": "nan", "a": 1}', "is not a number"),
        (b'{"$float": "1e5"}', "is not a number"),
        (b"\xff", "byte 0 is not valid UTF-8"),
        (b'"\x00"', "it is not valid JSON"),
        (b"", "it is not valid JSON"),
        (b"[1] 2", "it is not valid JSON"),
    ],
)
def test_json_is_strict(text, told):
    with pytest.raises(ValueError, match=told):
        parse_json(text)


def test_json_of_every_kind_is_read():
    text = (
        b'\xef\xbb\xbf{"a": [1, -2.5, true, null, "[[{\\"\\\\", {"$float": "-inf"}],'
        b' "b": 1' + b"0" * 300 + b"}"
    )
    assert parse_json(text) == {
        "a": [1, -2.5, True, None, '[[{"\\', -np.inf],
        "b": 10**300,
    }
    brackets = json.dumps(["[" * 1000, {"{" * 1000: "\\" * 1001}]).encode()
    assert parse_json(brackets) == json.loads(brackets)
    assert len(parse_json(b"[" + b"[[]]," * 100_000 + b"[]]")) == 100_001


def test_shape_names_the_entry_that_is_wrong():
    shape = {
        "cells": [{"cost": Is((int, float), lambda cost: cost >= 0, "a cost")}],
        "note?": str,
        "by": {str: [int]},
    }
    right = {"cells": [{"cost": 1, "more": None}], "by": {"a": [1]}}
    check_shape(right, shape, "it")
    for change, told in (
        (
            {"cells": [{"cost": 1.0}, {"cost": -1}]},
            r"it\.cells\[1\]\.cost is -1; it must be a cost",
        ),
        (
            {"cells": [{"cost": True}]},
            r"it\.cells\[0\]\.cost is True; it must be a cost",
        ),
        ({"cells": [{}]}, r"it\.cells\[0\] has no entry 'cost'"),
        ({"cells": {}}, r"it\.cells is \{\}; it must be a list"),
        ({"note": None}, r"it\.note is None; it must be a text"),
        ({"by": {"a": [1.0]}}, r"it\.by\['a'\]\[0\] is 1\.0; it must be an integer"),
    ):
        with pytest.raises(ValueError, match=told):
            check_shape(right | change, shape, "it")
    with pytest.raises(ValueError, match="it is None; it must be an object"):
        check_shape(None, shape, "it")


def npy(descr="<f8", shape="(3,)", rest=24, version=b"\1\0"):
    head = (
        f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    )
    return b"\x93NUMPY" + version + struct.pack("<H", len(head)) + head + bytes(rest)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (npy(shape="(99999999999999999999999999999999,)"), "is not an array"),
        (npy(shape="(9999999999999999999,)"), "which no array can have"),
        (npy(shape="(4611686018427387904, 0)"), "which no array can have"),
        (npy(shape="(4,)"), "has 24 bytes of data, but its header says shape"),
        (npy(shape="(-3,)"), "is not an array"),
        (npy(shape="(1,)" * 1), "has 24 bytes"),
        (npy(shape=f"({'1, ' * 40}3)"), "which no array can have"),
        (npy(descr="|O8"), "is not an array"),
        (npy(descr="|S0", shape="(9999999999,)", rest=0), "which no array can have"),
        (npy(descr="<f7", rest=21), "an unknown dtype"),
        (npy(version=b"\3\0"), "is not an array"),
        (b"", "is not an array"),
    ],
)
def test_array_that_is_none_is_refused_before_it_is_made(data, told):
    with pytest.raises(ValueError, match=f"^it .*{told}"):
        read_npy(data, "it")


def test_arrays_come_back_and_archives_do_not_swell(tmp_path):
    assert read_npy(npy(), "it").tolist() == [0.0, 0.0, 0.0]
    for dtype in (
        "?",
        "i1",
        "i4",
        "u8",
        "f2",
        "f8",
        "c16",
        "S3",
        "U4",
        "M8[ns]",
        "m8",
        "M8[25s]",
    ):
        for shape in ((), (0,), (3,), (2, 3), (0, 784)):
            values = np.arange(1, np.prod(shape, dtype=int) + 1).reshape(shape)
            for bytes_, entries in itertools.product("<>", "CF"):
                own = np.dtype(dtype).newbyteorder(bytes_)
                array = values.astype(own, order=entries)
                back = read_npz(npz_bytes({"x": array}))["x"]
                assert (back.dtype, back.shape) == (array.dtype, shape)
                assert np.array_equal(back, array)
    bomb = hostile_files.zipped(
        {"x.npy": npy(shape="(1000000,)", rest=8_000_000)}, zipfile.ZIP_DEFLATED
    )
    assert len(bomb) < 20_000
    with pytest.raises(ValueError, match="'x' is compressed"):
        read_npz(bomb)
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("x.npy", npy())
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x.npy", npy())
    with pytest.raises(ValueError, match="'x' appears twice"):
        read_npz((tmp_path / "twice.zip").read_bytes())


def test_bombs_are_refused(tmp_path, monkeypatch):
    (tmp_path / "a.whl").write_bytes(
        hostile_files.zipped({"a": bytes(10**7)}, zipfile.ZIP_DEFLATED)
    )
    monkeypatch.setattr("research.datasets.wheel.MOST_BYTES", 10**6)
    with pytest.raises(
        ValueError,
        match=(
            r"a\.whl is truncated or not a wheel: 'a' has 10,000,000 bytes; a file "
            r"with more than 1,000,000 bytes is not read"
        ),
    ):
        read_member(tmp_path / "a.whl", "a")
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(10**7)))
    with pytest.raises(
        ValueError,
        match=r"a\.gz is truncated or damaged: it has more than 1,000,000 bytes",
    ):
        content(tmp_path / "a.gz", 10**6)
    (tmp_path / "a.tar").write_bytes(
        hostile_files.tarred({"data_batch_1.bin": bytes(10**6)})
    )
    monkeypatch.setattr("research.datasets.tar.MOST_BYTES", 10**5)
    with pytest.raises(
        ValueError,
        match=r"'data_batch_1\.bin' in it has 1,000,000 bytes; the limit is 100,000",
    ):
        read_cifar10(tmp_path / "a.tar")


@pytest.mark.parametrize("size", [-512, -1, 2**62])
def test_tar_whose_member_has_an_impossible_size_ends(tmp_path, size):
    member = tarfile.TarInfo("data_batch_1.bin")
    member.size = size
    head = member.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tar").write_bytes(head + bytes(10240))
    with pytest.raises(
        ValueError, match=r"a\.tar (is truncated or not a tar archive|lacks)"
    ):
        read_cifar10(tmp_path / "a.tar")


def test_pipe_is_refused_before_it_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "study.zip")
    with pytest.raises(ValueError, match=r"study\.zip is a pipe or a device"):
        read_bytes(tmp_path / "study.zip", 10)
    with pytest.raises(ValueError, match=r"study\.zip is a pipe or a device"):
        leaderboard.write_leaderboard([tmp_path / "study.zip"], tmp_path / "page.html")
    with pytest.raises(ValueError, match=r"study\.zip is a pipe or a device"):
        reproduce.reproduce([str(tmp_path / "study.zip")])
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        read_bytes("a\0b", 10)
    with pytest.raises(ValueError, match="is a pipe or a device"):
        content(tmp_path / "study.zip")


@pytest.mark.thorough("2,000 rules in ten seconds; test_leaderboard.py merges few")
def test_large_ranking_is_merged_in_a_moment(tmp_path):
    numbers = hostile_files.study_numbers()
    _, mine = numbers["cells"]
    told = numbers["comparisons"][0]
    numbers["cells"] += [mine | {"rule": f"r{k}"} for k in range(2000)]
    numbers["comparisons"] += [told | {"rule": f"r{k}"} for k in range(2000)]
    hostile_files.run_folder(tmp_path, "compare", numbers)
    began = time.process_time()
    leaderboard.write_leaderboard([tmp_path / "compare"], tmp_path / "page.html")
    assert time.process_time() - began < 10
