"""Laws of archives: a run comes back whole or is refused with a reason, whoever wrote
the file, and nothing is executed.
"""

import hashlib
import io
import json
import os
import random
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from research import runs
from research.runs import archive

FILES = ("manifest.json", "result.json", "arrays.npz")
COPIED = "get it again from its source"
PACKED = "descent pack"


def finished(folder, **config):
    table = runs.Table("Steps", ("rule", "steps"), (("adam", 3), ("sgd", None)))
    result = runs.Result(
        "It descends.",
        (table,),
        {"loss": np.arange(40.0)},
        {"steps": [3, float("inf")]},
    )
    return runs.finish(runs.open_run("toy", config, folder), result, seconds=1.5).path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("results"))


@pytest.fixture
def packed(run, tmp_path):
    return archive.pack(run, tmp_path / "toy.zip")


def zipped(path, members, compression=zipfile.ZIP_STORED):
    """A .zip with these (name, content), as zipfile writes it."""
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, data in members:
            target.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    return path


def members_of(path):
    with zipfile.ZipFile(path) as source:
        return [(name, source.read(name)) for name in source.namelist()]


def with_sums(files):
    """Members that agree with each other, as one who wants to deceive would write
    them.
    """
    sums = "".join(
        f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)
    )
    return [*files.items(), ("SHA256SUMS", sums.encode())]


def with_manifest(run, **changes):
    files = {name: (run / name).read_bytes() for name in FILES}
    manifest = json.loads(files["manifest.json"]) | changes
    return with_sums(files | {"manifest.json": json.dumps(manifest).encode()})


def refusal(path):
    with pytest.raises(ValueError, match=r".+") as caught:
        archive.read_contents(path)
    assert str(caught.value).startswith(f"{path} ")
    return str(caught.value)


def read_or_refused(path):
    try:
        return archive.read_contents(path)
    except ValueError as error:
        return error


def test_archive_holds_the_files_of_the_run_as_they_are(run, packed):
    found = dict(members_of(packed))
    assert list(found) == [*FILES, "SHA256SUMS"]
    assert {name: found[name] for name in FILES} == {
        name: (run / name).read_bytes() for name in FILES
    }


def test_archive_reads_as_its_folder_does(run, packed):
    there, here = archive.read_contents(run), archive.read_contents(packed)
    assert (there.name, here.name) == (run.name, "toy.zip")
    assert there._replace(name="") == here._replace(name="")
    assert here.found["numbers"] == runs.load_result(run).numbers
    assert here.manifest == runs.read_manifest(run)


def test_same_run_gives_the_same_bytes_whenever_and_wherever(run, packed, tmp_path):
    copy = tmp_path / "elsewhere" / run.name
    copy.mkdir(parents=True)
    for name in reversed(FILES):
        (copy / name).write_bytes((run / name).read_bytes())
        os.utime(copy / name, (1, 1))
    assert (
        archive.pack(copy, tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    )


def test_sums_are_what_sha256sum_checks(packed, tmp_path):
    with zipfile.ZipFile(packed) as source:
        source.extractall(tmp_path / "out")
    words = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    told = subprocess.run(
        words, cwd=tmp_path / "out", capture_output=True, text=True, check=True
    ).stdout
    assert sorted(told.split("\n")) == sorted(["", *(f"{name}: OK" for name in FILES)])


def test_reading_writes_nothing(packed):
    before = sorted(packed.parent.rglob("*"))
    archive.read_contents(packed)
    assert sorted(packed.parent.rglob("*")) == before


def test_arrays_are_not_opened_so_a_pickle_in_them_does_nothing(run, tmp_path):
    class Spring:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    buffer = io.BytesIO()
    np.savez(buffer, loss=np.array([Spring()], dtype=object))
    buffer.seek(0)
    # The trap works: whoever loads it is caught.
    np.load(buffer, allow_pickle=True)["loss"]
    assert (tmp_path / "sprung").exists()
    (tmp_path / "sprung").unlink()
    digests = {
        "result.json": hashlib.sha256((run / "result.json").read_bytes()).hexdigest()
    }
    digests["arrays.npz"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    files = dict(with_manifest(run, digests=digests)) | {
        "arrays.npz": buffer.getvalue()
    }
    del files["SHA256SUMS"]
    archive.read_contents(zipped(tmp_path / "trap.zip", with_sums(files)))
    assert not (tmp_path / "sprung").exists()


def test_one_flipped_bit_is_refused_or_changes_nothing_that_is_read(packed):
    data, whole = packed.read_bytes(), archive.read_contents(packed)
    tail = len(data) - 330  # The .zip's own directory.
    generator = random.Random(0)
    places = [*range(0, tail, 29), *generator.sample(range(tail, len(data)), 150)]
    refused = 0
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << generator.randrange(8)
        packed.write_bytes(flipped)
        found = read_or_refused(packed)
        assert found == whole or str(found).startswith(f"{packed} "), place
        refused += found != whole
    assert refused > 0.7 * len(places)


def test_every_flipped_bit_of_a_file_is_refused(run, tmp_path):
    files = members_of(archive.pack(run, tmp_path / "toy.zip"))
    for index, (name, data) in enumerate(files):
        for place in range(0, len(data), 1 + len(data) // 20):
            spoilt = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            # With the checksum of the .zip made to fit, as an honest tool would do it.
            path = zipped(
                tmp_path / "altered.zip",
                [*files[:index], (name, spoilt), *files[index + 1 :]],
            )
            assert "altered" in refusal(path) or "cannot be read" in refusal(path)


@pytest.mark.parametrize("share", [0.0, 0.0005, *np.linspace(0.1, 0.999, 50)])
def test_truncated_archive_is_refused(packed, share):
    data = packed.read_bytes()
    packed.write_bytes(data[: int(share * len(data))])
    told = refusal(packed)
    assert COPIED in told if share >= 0.1 else PACKED in told


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"hello", b"\x1f\x8b\x08\0" + bytes(100), b"<html>" + bytes(1000)],
)
def test_what_is_no_zip_is_refused(tmp_path, content):
    (tmp_path / "study.zip").write_bytes(content)
    assert PACKED in refusal(tmp_path / "study.zip")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../manifest.json",
        "a/../../manifest.json",
        "..\\manifest.json",
        "C:manifest.json",
        "\\manifest.json",
    ],
)
def test_member_that_points_outside_is_refused_and_written_nowhere(packed, name):
    told = refusal(zipped(packed, [*members_of(packed), (name, b"owned")]))
    assert "points outside" in told
    assert sorted(entry.name for entry in packed.parent.iterdir()) == ["toy.zip"]


@pytest.mark.parametrize(
    "name", ["run.py", "report.html", "sub/manifest.json", "Manifest.json", "sub/"]
)
def test_strange_member_is_refused(packed, name):
    told = refusal(zipped(packed, [*members_of(packed), (name, b"")]))
    assert repr(name) in told
    assert PACKED in told


def test_missing_and_doubled_members_are_refused(packed):
    members = members_of(packed)
    for index in range(len(members)):
        rest = members[:index] + members[index + 1 :]
        assert "but a run has manifest.json" in refusal(zipped(packed, rest))
    with pytest.warns(UserWarning, match="Duplicate name"):
        zipped(packed, [*members, members[0]])
    assert "but a run has manifest.json" in refusal(packed)


def test_bomb_is_refused_before_it_is_read(packed, monkeypatch):
    bomb = [("manifest.json", b" " * 2**20), *members_of(packed)[1:]]
    told = refusal(zipped(packed, bomb, zipfile.ZIP_DEFLATED))
    assert "compressed" in told
    assert PACKED in told
    bomb[0] = ("manifest.json", b" " * (2**20 + 1))
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("was read"))
    assert "1,048,577 bytes; at most 1,048,576" in refusal(
        zipped(packed, bomb, zipfile.ZIP_DEFLATED)
    )


def test_member_that_claims_to_be_larger_than_the_file_is_refused(packed):
    data = bytearray(packed.read_bytes())
    entry = data.index(b"PK\x01\x02")
    struct.pack_into(
        "<II", data, entry + 20, 10**6, 10**6
    )  # Compressed and plain size, in the directory.
    packed.write_bytes(data)
    assert COPIED in refusal(packed)


def test_large_file_is_refused_before_it_is_read(run, tmp_path, monkeypatch):
    monkeypatch.setitem(archive.LIMITS, "arrays.npz", 100)
    assert "at most 100 are accepted" in refusal(run)
    with pytest.raises(ValueError, match=r"too large for a run: arrays\.npz"):
        archive.pack(run, tmp_path / "toy.zip")
    with open(tmp_path / "sparse.zip", "wb") as file:
        file.truncate(2**30)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("was read"))
    assert "1,073,741,824 bytes" in refusal(tmp_path / "sparse.zip")


def test_unfinished_run_is_refused_and_no_command_of_a_stranger_is_advised(tmp_path):
    run = runs.open_run("toy", {"seed": 7}, tmp_path)
    for attempt in (
        lambda: archive.read_contents(run.path),
        lambda: archive.pack(run.path, tmp_path / "toy.zip"),
    ):
        with pytest.raises(
            ValueError,
            match=(
                r"is not finished .*finish the run with the command in its "
                r"manifest\.json\.$"
            ),
        ):
            attempt()
    runs.close(run)
    assert not (tmp_path / "toy.zip").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"config": {"seed": 8}}, "id does not match its experiment and config"),
        ({"id": "0123456789ab"}, "id does not match its experiment and config"),
        ({"experiment": "../evil"}, "is not valid"),
        ({"config": [1]}, "manifest.config is [1]; it must be an object"),
        ({"environment": None}, "manifest.environment is None; it must be an object"),
        ({"digests": None}, "manifest.digests is None; it must be an object"),
        (
            {"digests": {"result.json": 3}},
            "manifest.digests['result.json'] is 3; it must be a text",
        ),
        ({"digests": {}}, "damaged or altered"),
        ({"status": "running"}, "is not finished"),
    ],
)
def test_manifest_that_does_not_fit_is_refused(run, tmp_path, changes, told):
    assert told in refusal(
        zipped(tmp_path / "altered.zip", with_manifest(run, **changes))
    )


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'{"a": {"$float": []}}', b"1" * 5000],
)
def test_manifest_that_is_no_object_is_refused(run, tmp_path, text):
    files = {name: (run / name).read_bytes() for name in FILES} | {
        "manifest.json": text
    }
    told = refusal(zipped(tmp_path / "altered.zip", with_sums(files)))
    assert "contains a manifest.json that" in told
    assert ".)" not in told


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"nowhere\.zip does not exist\. Pass a run folder"
    ):
        archive.read_contents(tmp_path / "nowhere.zip")
    assert "contains no manifest.json" in refusal(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        archive.pack(tmp_path / "nowhere", tmp_path / "toy.zip")


@pytest.mark.parametrize("name", ["toy.tar", "toy", "manifest.json", "folder.zip"])
def test_target_that_is_no_zip_is_refused(run, tmp_path, name):
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(ValueError, match=r"must be a file whose name ends in \.zip"):
        archive.pack(run, tmp_path / name)
