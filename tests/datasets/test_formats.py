"""Each format is read back as it was written, and a file that is truncated, of another
kind or out of range is told.
"""

import gzip
import io
import re
import struct
import tarfile
import wave
import zipfile

import numpy as np
import pytest

from research.datasets._documents import parse_tab
from research.datasets._vowels import padded, parse_ts
from research.datasets.cifar import RECORD, TEST, TRAINING, read_cifar10
from research.datasets.idx import read_idx
from research.datasets.texts import as_characters
from research.datasets.wav import read_wav
from research.datasets.wheel import read_member

RANDOM = np.random.default_rng(0)


def idx(array):
    return (
        struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        + array.tobytes()
    )


def tar(path, contents, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def wav(samples, rate=8000, channels=1, width=2):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), (0, 2)])
def test_idx_is_read_as_written_packed_or_not(tmp_path, shape):
    array = RANDOM.integers(0, 256, shape, np.uint8)
    for pack in (bytes, gzip.compress):
        (tmp_path / "a").write_bytes(pack(idx(array)))
        read = read_idx(tmp_path / "a")
        np.testing.assert_array_equal(read, array)
        assert (read.dtype, read.flags.writeable) == (np.uint8, True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00",
            "it begins with 00 00 0d 01",
        ),
        (b"<html>not found</html>", "it begins with 3c 68 74 6d"),
        (b"", "it begins with nothing"),
        (
            idx(np.zeros((3, 4), np.uint8))[:-1],
            r"has 23 bytes; its header \(shape \(3, 4\)\) requires 24",
        ),
        (idx(np.zeros((3, 4), np.uint8)) + b"x", "has 25 bytes"),
        (idx(np.zeros((3, 4), np.uint8))[:9], "has 9 bytes"),
        (
            gzip.compress(idx(RANDOM.integers(0, 256, 999, np.uint8)), mtime=0)[:-20],
            "truncated or damaged.*fetch it again",
        ),
    ],
)
def test_idx_that_is_none_is_told(tmp_path, content, words):
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(
        ValueError, match=f"{re.escape(str(tmp_path / 'a.gz'))}.*{words}"
    ):
        read_idx(tmp_path / "a.gz")


def test_cifar_has_its_colours_last_and_its_batches_in_order(tmp_path):
    images = RANDOM.integers(0, 256, (6, 32, 32, 3), np.uint8)
    contents = {
        f"cifar-10-batches-bin/{name}": bytes([label])
        + b"".join(
            image[..., c].tobytes() for c in range(3)
        )  # One colour after the other.
        for label, (name, image) in enumerate(zip(TRAINING + TEST, images, strict=True))
    }
    backwards = dict(reversed(contents.items()))
    train_x, train_y, test_x, test_y = read_cifar10(
        tar(tmp_path / "a.tar.gz", backwards)
    )
    np.testing.assert_array_equal(train_x, images[:5])
    np.testing.assert_array_equal(test_x, images[5:])
    assert (train_y.tolist(), test_y.tolist(), train_y.dtype) == (
        [0, 1, 2, 3, 4],
        [5],
        np.int32,
    )


def test_cifar_that_is_none_is_told(tmp_path):
    whole = dict.fromkeys(TRAINING + TEST, bytes(RECORD))
    path = tar(tmp_path / "a.tar.gz", {**whole, TEST[0]: bytes(RECORD - 1)})
    with pytest.raises(
        ValueError,
        match=(
            r"test_batch\.bin in .* has 3,072 bytes, which is not a multiple of 3,073"
        ),
    ):
        read_cifar10(path)
    with pytest.raises(ValueError, match=r"lacks data_batch_5\.bin, test_batch\.bin"):
        read_cifar10(tar(path, dict.fromkeys(TRAINING[:4], bytes(RECORD))))
    tar(
        path, {name: RANDOM.bytes(RECORD) for name in TRAINING + TEST}
    )  # Noise does not compress.
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(
        ValueError,
        match=r"truncated or not a tar archive\. Delete it and fetch it again",
    ):
        read_cifar10(path)
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="truncated or not a tar archive"):
        read_cifar10(path)


def test_wav_is_read_as_written():
    samples = RANDOM.integers(-32768, 32768, 1000).astype(np.int16)
    read = read_wav(wav(samples), 8000, "a.wav")
    np.testing.assert_array_equal(read, samples)
    assert (read.dtype, read.flags.writeable) == (np.int16, True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            wav(np.zeros(8, np.int16), rate=16000),
            (
                r"must have 1 channel of 16 bits at 8000 Hz; it has 1 channel of "
                r"16 bits at 16000 Hz"
            ),
        ),
        (wav(np.zeros(8, np.int16), channels=2), r"2 channels of 16 bits"),
        (wav(np.zeros(8, np.uint8), width=1), r"1 channel of 8 bits"),
        (wav(np.zeros(8, np.int16))[:-3], "truncated"),
        (
            wav(np.zeros(0, np.int16)),
            "has a header and no samples: it is empty",
        ),
        (wav(np.zeros(8, np.int16))[:20], "not a wav file"),
        (
            wav(np.zeros(8, np.int16)).replace(
                b"\x10\x00\x00\x00\x01\x00", b"\x10\x00\x00\x00\x03\x00"
            ),
            "not a wav file of PCM",
        ),
        (b"RIFF or not", "not a wav file of PCM"),
        (b"", "not a wav file of PCM samples: it is truncated"),
    ],
)
def test_wav_of_another_kind_is_told(content, words):
    with pytest.raises(ValueError, match=rf"a\.wav .*{words}"):
        read_wav(content, 8000, "a.wav")


HEAD = "#about\n@problemName x\n@dimensions 2\n@classLabel true 1 2\n@data\n"


def test_ts_is_read_as_written():
    sequences, labels, classes = parse_ts(f"{HEAD}1,2,3:4,5,6:2\n-1e-3:0:1\n", "a.ts")
    np.testing.assert_array_equal(
        sequences[0], np.array([[1, 4], [2, 5], [3, 6]], np.float32)
    )
    np.testing.assert_array_equal(sequences[1], np.array([[-1e-3, 0]], np.float32))
    assert (labels.tolist(), labels.dtype, classes) == ([1, 0], np.int32, ("1", "2"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1,2:3:1", "has dimensions of different length"),
        ("1,2:3,x:1", "has a value that is not a number"),
        ("1,2:3,4:3", "has the class '3', which is not one of 1, 2"),
        ("1,2:1", "has 1 dimensions, not 2"),
        ("", "has 0 dimensions, not 2"),
    ],
)
def test_ts_that_is_damaged_is_told_by_line(line, words):
    with pytest.raises(ValueError, match=rf"line 7 of a\.ts {words}: .*Fetch it again"):
        parse_ts(f"{HEAD}1:2:1\n{line}\n", "a.ts")


def test_padding_keeps_every_value_and_adds_zeros():
    sequences = [RANDOM.standard_normal((n, 3)).astype(np.float32) for n in (2, 5, 1)]
    values, length = padded(sequences, 5)
    assert (values.shape, values.dtype, length.tolist()) == (
        (3, 5, 3),
        np.float32,
        [2, 5, 1],
    )
    for row, n, sequence in zip(values, length, sequences, strict=True):
        np.testing.assert_array_equal(row[:n], sequence)
        assert not row[n:].any()
    with pytest.raises(
        ValueError, match="sequence 1 has 5 steps; it must have 1 to longest=4"
    ):
        padded(sequences, 4)


TAB = "Category\tText\nd\tstring\nclass\t\n\n"


def test_tab_that_is_damaged_is_told():
    assert parse_tab(f"{TAB}earn\ta b \n", "a.tab") == (["earn"], ["a b"])
    with pytest.raises(ValueError, match=r"line 6 of a\.tab does not have two columns"):
        parse_tab(f"{TAB}earn\ta\nacq b\n", "a.tab")
    with pytest.raises(
        ValueError, match=r"a\.tab begins with .*not with the columns Category and Text"
    ):
        parse_tab("Text\tCategory\n", "a.tab")


def test_play_loses_headings_and_stage_directions_alone():
    play = """# A Play, Part 3

## ACT I

_Enter a man
and his \\[horse]_

**FIRST MAN**
_\\[Aside]_
Well said,'\\--and now
my horse.

_Burthen _\\[within_

Where is it?

**HORSE & MAN**
Here _Exit_
""".replace("\n", "  \n")  # Markdown's way to break a line.
    assert (
        as_characters(play)
        == "FIRST MAN:\nWell said,'--and now\nmy horse.\nWhere is it?\n\nHORSE &"
        " MAN:\nHere\n\n"
    )


def test_member_of_a_wheel_is_read_and_one_that_is_missing_told(tmp_path):
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data", b"bytes")
    assert read_member(path, "a/data") == b"bytes"
    with pytest.raises(ValueError, match="has no file a/other: it is another version"):
        read_member(path, "a/other")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(
        ValueError, match=r"truncated or not a wheel.*Delete it and fetch it again"
    ):
        read_member(path, "a/data")
