"""Datasets larger than memory: write examples to a folder, and read some at a time.

A folder of records holds three files. `examples.array_record` has one record for each
example, in the ArrayRecord format of Grain. `checksums.npy` has the CRC-32 of each
record. `records.json` has the number of examples, their dtypes and shapes, and a digest
that identifies the dataset. The digest is computed from these facts and all checksums.
If the checksum of a record is wrong, an error is raised and the record is not returned.
"""

import contextlib
import hashlib
import importlib
import io
import json
import math
import os
import re
import shutil
import uuid
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research.checks import (
    check_instance,
    check_not_deleted,
    check_path,
    is_array,
    shown,
)
from research.reading import Is, check_shape, parse_json, read_bytes
from research.reading.arrays import read_npy
from research.types import Batch, Records, Sequences

EXAMPLES, CHECKSUMS, ABOUT = "examples.array_record", "checksums.npy", "records.json"
FORMAT = 1
MOST_ABOUT = 2**20  # Maximum size of records.json, in bytes.
KINDS = "biufc"  # Kinds of dtypes that can be stored.
_DTYPE = Is(
    (str,),
    lambda text: re.fullmatch(f"[<|][{KINDS}][0-9]{{1,2}}", text) is not None,
    "a dtype of numbers, such as <f4",
)
# A record is read without its neighbours; integers and pixels hardly compress.
WRITER = "group_size:1,uncompressed"
# Examples are read in random order; Grain opens such files with these values.
READER, BUFFER = "readahead_buffer_size:0", 2**15
_SIZE = Is((int,), lambda size: 0 <= size < 2**31, "a count")
SHAPE = {
    "format": int,
    "num_examples": Is((int,), lambda n: 0 < n < 2**31, "a positive count"),
    "leaves": {str: {"dtype": _DTYPE, "shape": [_SIZE]}},
    "bytes": Is((int,), lambda size: size > 0, "a number of bytes"),
    "digest": str,
}


class _Leaf(NamedTuple):
    """Name, dtype and shape of one array of an example."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


def write_records(folder: str | Path, pieces: Iterable[Batch]) -> Records:
    """Write examples piece by piece to a new folder, and open the folder as `Records`.

    Only one piece is in memory at a time. The folder appears when all pieces are
    written. If the process is killed while it writes, a hidden folder whose name ends
    in ".partial" remains beside `folder`. You can delete this hidden folder.

    Args:
      folder: Folder to create. Its parent must exist.
      pieces: Parts of the dataset, in order. Each part is a Batch without a key. Its x
        is an array or a `research.types.Sequences`, and its y is an array. The first
        axis of x and y runs over the examples of the piece. The dtypes, and the lengths
        of the other axes, must be the same in all pieces.
    Returns:
      The `research.types.Records` of the folder, from which you can read examples.
    Raises:
      ValueError: The folder exists, there are no examples, a piece has a key, x and y
        of a piece differ in length, or two pieces differ in the dtypes or in the other
        axes.
      TypeError: pieces is not an iterable, a piece is not a Batch, or an array does not
        hold numbers.
      OSError: The parent of the folder does not exist, or a file cannot be written, for
        example because the disk is full.
      ImportError: The package array-record is not installed.
    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp(), "squares")
      >>> x = np.arange(6.0)
      >>> pieces = [Batch(x[:4], x[:4] ** 2), Batch(x[4:], x[4:] ** 2)]
      >>> records = write_records(folder, pieces)
      >>> records.num_examples, records.read([5, 0]).x
      (6, array([5., 0.]))
    """
    check_path("folder", folder)
    if not isinstance(pieces, Iterable) or isinstance(pieces, Batch):
        raise TypeError(
            "pieces must be a list or another iterable of Batches; got "
            f"pieces={shown(pieces)}. Write [batch] for a single one."
        )
    folder = Path(folder)
    if folder.exists():
        raise ValueError(
            f"folder={str(folder)!r} exists. Choose another folder, or delete it first."
        )
    if not folder.parent.is_dir():
        raise FileNotFoundError(
            f"folder={str(folder)!r} cannot be created: {str(folder.parent)!r} is not "
            "a folder."
        )
    # Two processes may write at once; the first to finish wins.
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir()
        leaves, checksums = _write_examples(partial / EXAMPLES, pieces)
        _write_about(partial, leaves, checksums)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return open_records(folder)


def open_records(folder: str | Path) -> Records:
    """Open a folder that `write_records` has written.

    The folder contains the examples in examples.array_record, one checksum for each
    example in checksums.npy, and the dtypes and shapes in records.json. The checksums
    are read into memory, four bytes for each example. The examples stay on the disk.

    Args:
      folder: Folder of the records.
    Returns:
      The `research.types.Records`. Its function `read` takes indices of shape (m,), and
      returns a Batch of these m examples. `read` compares each example with its
      checksum. `read` raises ValueError if an example has changed (the message names
      the example), if examples.array_record is damaged, or if an index lies outside the
      dataset. `read` raises TypeError if the indices are not integers of shape (m,).

      The field `digest` of the Records is a hash of the dtypes, the shapes, the size of
      examples.array_record, and the checksums of all examples. The digest does not
      depend on the path of the folder.
    Raises:
      ValueError: A file is damaged, its size has changed since it was written, or it
        does not belong to the other files. Or records.json has an unknown format.
      OSError: A file is missing or cannot be read.
      ImportError: The package array-record is not installed.
    Example:
      >>> open_records("no/such/folder")
      Traceback (most recent call last):
      FileNotFoundError: ...
    """
    check_path("folder", folder)
    folder = Path(folder)
    about = _read_about(folder)
    leaves = _leaves_of(folder, about)
    checksums = _read_checksums(folder, about)
    path = folder / EXAMPLES
    size = path.stat().st_size
    if size != about["bytes"]:
        raise ValueError(
            f"{path} has {size:,} bytes, but {about['bytes']:,} when it was written. "
            "Copy it again, or write the records again."
        )
    try:
        reader = _array_record().ArrayRecordReader(
            str(path), READER, file_reader_buffer_size=BUFFER
        )
        found = reader.num_records()
    except RuntimeError as error:
        raise _damaged(path, error) from error
    n = about["num_examples"]
    if found != n:
        raise ValueError(
            f"{path} holds {found:,} records; {ABOUT} says {n:,}. Copy the folder "
            "again, or write the records again."
        )

    def read(indices: Any) -> Batch:
        rows = _checked_indices(indices, n)
        try:
            records = reader.read(rows.tolist()) if len(rows) else []
        except RuntimeError as error:
            raise _damaged(path, error) from error
        _compare(path, records, rows, checksums)
        return _decoded(path, records, leaves)

    return Records(n, read, about["digest"], str(folder))


def _array_record() -> Any:
    try:
        return importlib.import_module("array_record.python.array_record_module")
    except ImportError as error:
        raise ImportError(
            "records on a disk need the packages grain and array-record, which are not "
            "installed: pip install grain array-record."
        ) from error


def _write_examples(
    path: Path, pieces: Iterable[Batch]
) -> tuple[tuple[_Leaf, ...], np.ndarray]:
    """Write all examples. Return a description of an example, and all checksums."""
    leaves: tuple[_Leaf, ...] = ()
    checksums = []
    with _writer(path) as write:
        for number, piece in enumerate(pieces):
            arrays = _arrays_of(piece, number)
            found = tuple(_Leaf(k, a.dtype, a.shape[1:]) for k, a in arrays.items())
            leaves = leaves or found
            if found != leaves:
                raise ValueError(
                    f"pieces[{number}] holds {_described(found)} of each example; "
                    f"pieces[0] holds {_described(leaves)}. All must be alike."
                )
            for record in _encoded(arrays):
                write(record)
                checksums.append(zlib.crc32(record))
    if not checksums:
        raise ValueError("the pieces hold no examples. Pass at least one example.")
    return leaves, np.array(checksums, np.uint32)


@contextlib.contextmanager
def _writer(path: Path) -> Iterator[Any]:
    """Yield a function that appends a record to a new ArrayRecord file.

    The package array_record reports a full disk as a RuntimeError. The function raises
    an OSError instead.
    """
    writer = _array_record().ArrayRecordWriter(str(path), WRITER)

    def write(record: bytes) -> None:
        try:
            writer.write(record)
        except RuntimeError as error:
            raise OSError(f"Cannot write {path}: {error}") from error

    try:
        yield write
    finally:
        try:
            writer.close()
        except RuntimeError as error:
            raise OSError(f"Cannot write {path}: {error}") from error


def _write_about(
    folder: Path, leaves: tuple[_Leaf, ...], checksums: np.ndarray
) -> None:
    stored = io.BytesIO()
    np.save(stored, checksums, allow_pickle=False)
    about = {
        "format": FORMAT,
        "num_examples": len(checksums),
        "leaves": {
            leaf.name: {"dtype": leaf.dtype.str, "shape": list(leaf.shape)}
            for leaf in leaves
        },
        "bytes": (folder / EXAMPLES).stat().st_size,
    }
    about["digest"] = _digest(about, checksums)
    (folder / CHECKSUMS).write_bytes(stored.getvalue())
    (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    for file in folder.iterdir():
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())


def _digest(about: dict[str, Any], checksums: np.ndarray) -> str:
    """Return the SHA-256 of all checksums and of `about` without the entry "digest"."""
    said = {name: value for name, value in about.items() if name != "digest"}
    text = json.dumps(said, sort_keys=True).encode()
    return hashlib.sha256(text + checksums.tobytes()).hexdigest()


def _read_about(folder: Path) -> dict[str, Any]:
    file = folder / ABOUT
    if not file.exists():
        raise FileNotFoundError(
            f"{file} does not exist, so {str(folder)!r} is not a complete folder of "
            "records. Write one by research.records.write_records."
        )
    try:
        about = parse_json(read_bytes(file, MOST_ABOUT))
        check_shape(about, SHAPE, ABOUT)
    except ValueError as error:
        raise _damaged(file, error) from error
    if about["format"] != FORMAT:
        raise ValueError(
            f"{file} has format {about['format']}; this version reads {FORMAT}. Write "
            "the records again with this version."
        )
    return about


def _leaves_of(folder: Path, about: dict[str, Any]) -> tuple[_Leaf, ...]:
    names = tuple(about["leaves"])
    if names not in (("x", "y"), ("x.values", "x.length", "y")):
        raise _damaged(folder / ABOUT, ValueError(f"its arrays are {names}"))
    try:
        return tuple(
            _Leaf(name, np.dtype(leaf["dtype"]), tuple(leaf["shape"]))
            for name, leaf in about["leaves"].items()
        )
    except TypeError as error:
        raise _damaged(folder / ABOUT, error) from error


def _read_checksums(folder: Path, about: dict[str, Any]) -> np.ndarray:
    file = folder / CHECKSUMS
    data = read_bytes(file, 4 * about["num_examples"] + 2**16)
    try:
        checksums = read_npy(data, CHECKSUMS)
    except ValueError as error:
        raise _damaged(file, error) from error
    if (
        checksums.dtype != np.uint32
        or checksums.shape != (about["num_examples"],)
        or _digest(about, checksums) != about["digest"]
    ):
        raise ValueError(
            f"{file} and {ABOUT} do not belong together: the digest differs. Copy the "
            "folder again, or write the records again."
        )
    return checksums


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} is damaged ({error}). Copy it again, or write the records again."
    )


def _checked_indices(indices: Any, n: int) -> np.ndarray:
    try:
        rows = np.asarray(indices)
    except (TypeError, ValueError):  # A ragged list, or keys of JAX.
        rows = np.empty((0, 0))
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise TypeError(
            f"indices must be integers of shape (m,); got indices={shown(indices)}."
        )
    outside = (rows < 0) | (rows >= n)
    if outside.any():
        raise ValueError(
            f"indices must lie in 0..{n - 1}; got {rows[np.argmax(outside)]}."
        )
    return rows


def _compare(
    path: Path, records: list[bytes], rows: np.ndarray, checksums: np.ndarray
) -> None:
    found = np.fromiter(map(zlib.crc32, records), np.uint32, len(records))
    other = found != checksums[rows] if len(rows) else np.zeros(0, bool)
    if other.any():
        raise ValueError(
            f"{path} has changed since it was written: example "
            f"{rows[np.argmax(other)]} differs. Use the original file, or write the "
            "records again."
        )


def _arrays_of(piece: Any, number: int) -> dict[str, np.ndarray]:
    """Return the arrays of a piece by name."""
    check_instance(
        f"pieces[{number}]", piece, Batch, "Write research.types.Batch(x, y)."
    )
    if piece.key is not None:
        raise ValueError(
            f"pieces[{number}] has a key, which is not stored. Pass key=None."
        )
    x = piece.x
    named = (
        {"x.values": x.values, "x.length": x.length}
        if isinstance(x, Sequences)
        else {"x": x}
    ) | {"y": piece.y}
    for name, array in named.items():
        check_not_deleted(f"{name} of pieces[{number}]", array)
        if not is_array(array) or np.dtype(array.dtype).kind not in KINDS:
            raise TypeError(
                f"{name} of pieces[{number}] must be an array of numbers; got "
                f"{shown(array)}."
            )
    shapes = {name: tuple(array.shape) for name, array in named.items()}
    lengths = {shape[:1] for shape in shapes.values()}
    if () in lengths or len(lengths) > 1:
        raise ValueError(
            f"the arrays of pieces[{number}] must have the same number of examples "
            f"along their first axis; got the shapes {shapes}."
        )
    # Records hold the bytes in one order, whatever that of the array is.
    return {
        name: np.asarray(array, np.dtype(array.dtype).newbyteorder("<"), order="C")
        for name, array in named.items()
    }


def _encoded(arrays: dict[str, np.ndarray]) -> Iterator[bytes]:
    """Yield each example as bytes: its arrays one after the other."""
    columns = [
        array.reshape(len(array), math.prod(array.shape[1:])).view(np.uint8)
        for array in arrays.values()
    ]
    for row in zip(*columns, strict=True):
        yield b"".join(column.tobytes() for column in row)


def _decoded(path: Path, records: list[bytes], leaves: tuple[_Leaf, ...]) -> Batch:
    m, size = len(records), sum(leaf.size for leaf in leaves)
    if any(len(record) != size for record in records):
        raise _damaged(path, ValueError(f"its examples do not have {size} bytes each"))
    table = np.frombuffer(b"".join(records), np.uint8).reshape(m, size)
    arrays, start = {}, 0
    for leaf in leaves:
        part = np.ascontiguousarray(table[:, start : start + leaf.size])
        arrays[leaf.name] = part.view(leaf.dtype).reshape(m, *leaf.shape)
        start += leaf.size
    x = (
        arrays["x"]
        if "x" in arrays
        else Sequences(arrays["x.values"], arrays["x.length"])
    )
    return Batch(x, arrays["y"])


def _described(leaves: tuple[_Leaf, ...]) -> str:
    return ", ".join(f"{leaf.name} {leaf.dtype}{list(leaf.shape)}" for leaf in leaves)
