"""A file is found where it is said to be looked for, only with the right hash, and a
missing one is told in full.
"""

import gzip
import hashlib
import io
import random
import re
import tarfile

import pytest

from research.datasets import finding, hashing
from research.datasets.sources import SOURCES

RIGHT, WRONG = b"the right bytes", b"other bytes"


def test_folder_of_the_user_goes_before_the_system_and_the_cache(
    tmp_path, cache, given, pretend
):
    source = pretend("cifar10", {"a.bin": RIGHT})._replace(
        system=str(tmp_path / "system")
    )
    folders = [given / "cifar10", given, tmp_path / "system", cache / "cifar10"]
    for folder in reversed(folders):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "a.bin").write_bytes(RIGHT)
        assert finding.find_files(source) == [folder / "a.bin"]
    assert [
        path.parent for _, path in finding.copies(source, source.files[0])
    ] == folders


def test_content_has_one_hash_packed_or_not(given, pretend):
    source = pretend("cifar10", {"a.gz": RIGHT}, hashed="content")
    for name, content in (
        ("a", RIGHT),
        ("a.gz", RIGHT),
        ("a.gz", gzip.compress(RIGHT)),
    ):
        (given / name).write_bytes(content)
        assert finding.find_files(source) == [given / name]
        (given / name).unlink()


def test_wavs_have_the_hash_of_sha256sum_in_any_order_and_archive(tmp_path):
    wavs = {"b/2.wav": b"two", "1.wav": b"one"}
    lines = "".join(
        f"{hashlib.sha256(wavs[name]).hexdigest()}  {name[-5:]}\n"
        for name in ("1.wav", "b/2.wav")
    )
    for mode, names in (("w", ("1.wav", "b/2.wav")), ("w:gz", ("b/2.wav", "1.wav"))):
        with tarfile.open(tmp_path / "a.tar", mode) as archive:
            for name in (*names, "README.md"):
                member = tarfile.TarInfo(name)
                member.size = len(wavs.get(name, b""))
                archive.addfile(member, io.BytesIO(wavs.get(name, b"")))
        assert (
            hashing.digest(tmp_path / "a.tar", "wavs")
            == hashlib.sha256(lines.encode()).hexdigest()
        )
        (tmp_path / "a.tar").unlink()


def test_logs_have_the_hash_of_sha256sum_in_their_folder(tmp_path):
    texts = {"results/a b.txt": b"two", "README.md": b"one"}
    lines = "".join(
        f"{hashlib.sha256(texts[name]).hexdigest()}  {name}\n"
        for name in ("README.md", "results/a b.txt")
    )
    for top in ("modded-nanogpt-1a", "x"):
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            for name in (*texts, "figure.png"):
                member = tarfile.TarInfo(f"{top}/records/track_3_optimization/{name}")
                member.size = len(texts.get(name, b""))
                archive.addfile(member, io.BytesIO(texts.get(name, b"")))
        found = hashing.digest(tmp_path / "a.tar", "logs")
        assert found == hashlib.sha256(lines.encode()).hexdigest()
        (tmp_path / "a.tar").unlink()


def test_file_that_changes_is_hashed_again(tmp_path):
    path = tmp_path / "a"
    for content in (RIGHT, WRONG):
        path.write_bytes(content)
        assert hashing.digest(path) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("place", ["given", "system"])
def test_damaged_file_that_is_not_ours_is_refused_with_both_hashes_and_left(
    place, tmp_path, given, pretend
):
    source = pretend("cifar10", {"a.bin": RIGHT})._replace(
        system=str(tmp_path / "system")
    )
    path = (given if place == "given" else tmp_path / "system") / "a.bin"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(WRONG)
    hashes = ".*".join(
        hashlib.sha256(content).hexdigest() for content in (WRONG, RIGHT)
    )
    with pytest.raises(
        ValueError,
        match=(
            rf"{re.escape(str(path))} is damaged.*{hashes}.*not replaced.*replace it "
            r"with the correct file"
        ),
    ):
        finding.find_files(source)
    assert path.read_bytes() == WRONG


def test_archive_with_a_flipped_byte_is_told_as_such_whatever_packed_it(given, pretend):
    source = pretend("cifar10", {"a.xz": b""}, hashed="wavs")
    noise = bytes(
        random.Random(0).choices(b"abcd", k=400_000)
    )  # Compressed to a quarter, so that a flip breaks the code.
    with tarfile.open(given / "a.xz", "w:xz") as archive:
        member = tarfile.TarInfo("a.wav")
        member.size = len(noise)
        archive.addfile(member, io.BytesIO(noise))
    packed = bytearray((given / "a.xz").read_bytes())
    packed[len(packed) // 2] ^= 1
    (given / "a.xz").write_bytes(packed)
    with pytest.raises(ValueError, match="cannot be unpacked: damaged or truncated"):
        finding.find_files(source)


def test_archive_that_is_cut_off_is_told_as_such(given, pretend):
    source = pretend("cifar10", {"a.gz": RIGHT * 1000}, hashed="content")
    (given / "a.gz").write_bytes(gzip.compress(RIGHT * 1000)[:-12])
    with pytest.raises(ValueError, match="cannot be unpacked: damaged or truncated"):
        finding.find_files(source)
    (given / "a.gz").write_bytes(b"no archive at all")
    with pytest.raises(
        ValueError, match=hashlib.sha256(b"no archive at all").hexdigest()
    ):
        finding.find_files(source)


def test_files_named_alike_in_one_folder_are_told_apart(given, pretend):
    pretend("mnist", {"train.gz": b"mnist"}, hashed="content")
    fashion = pretend("fashion_mnist", {"train.gz": b"fashion"}, hashed="content")
    (given / "train.gz").write_bytes(b"mnist")
    assert not finding.copies(fashion, fashion.files[0])
    (given / "fashion-mnist").mkdir()
    (given / "fashion-mnist" / "train.gz").write_bytes(b"fashion")
    assert finding.find_files(fashion) == [given / "fashion-mnist" / "train.gz"]
    assert finding.find_files(SOURCES["mnist"]) == [given / "train.gz"]


def test_missing_file_is_told_with_every_place_the_command_and_the_way_by_hand(
    cache, given, pretend
):
    source = pretend(
        "cifar10",
        {"a.bin": RIGHT},
        urls=("http://127.0.0.1:9/a", "http://127.0.0.1:9/b"),
    )
    source = source._replace(system="/nowhere/cifar")
    with pytest.raises(FileNotFoundError) as caught:
        finding.find_files(source)
    message = str(caught.value)
    for words in (
        "cifar10 needs a.bin",
        str(given),
        "/nowhere/cifar",
        str(cache / "cifar10"),
        "--data-dir",
        "DESCENT_DATA",
    ):
        assert words in message
    assert "descent data fetch cifar10" in message
    assert "http://127.0.0.1:9/a or http://127.0.0.1:9/b" in message


def test_folder_of_the_user_that_is_none_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("DESCENT_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(
        ValueError,
        match=(
            r"--data-dir or the variable DESCENT_DATA must be a folder; got .*nowhere'"
        ),
    ):
        finding.search_folders(SOURCES["mnist"])


def test_set_of_another_loader_is_refused():
    with pytest.raises(
        ValueError,
        match=(
            r"unknown set of text 'mnist'.*Known: nine_play_shakespeare, "
            r"tiny_shakespeare"
        ),
    ):
        finding.find_source("mnist", "text")
    assert finding.find_source("digits", "images") is finding.find_source(
        "digits", "load"
    )
