"""Write files atomically, and store values exactly as strict JSON and .npz."""

import contextlib
import dataclasses
import errno
import io
import json
import math
import os
import shlex
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from research.checks import check_path, shown
from research.reading import NOT_FINITE, parse_json
from research.reading.arrays import MOST_MEMBERS, SAVABLE
from research.reading.safetensors import DTYPES, METADATA

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota on this disk is used up",
    errno.EACCES: "you have no permission to write there",
    errno.EPERM: "you have no permission to write there",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a file is in the place of a folder",
    errno.EEXIST: "a file is in the place of a folder",
    errno.EISDIR: "a folder is in the place of a file",
    errno.ENOENT: "the folder does not exist",
}


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file in one step, so that no reader sees a partly written file.

    The bytes are written to a temporary file in the same folder and flushed to the
    disk. The temporary file is then renamed to the target.

    Args:
      path: Path of the file. The folder must exist.
      data: New content of the file.
    Raises:
      OSError: The file cannot be written, and the old content remains. The message
        gives the path, the reason, and the names of the files in the folder.
      TypeError: data is not bytes.
    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "answer.txt"
      >>> write_atomically(path, b"42")
      >>> path.read_bytes()
      b'42'
    """
    check_path("path", path)
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(
            f"data must be bytes; got data={shown(data)}. Text: data.encode()."
        )
    path = Path(path)
    # Threads, and processes of other machines, may write the same file.
    unique = f"{os.getpid()}.{uuid.uuid4().hex[:8]}"
    partial = path.with_name(f".{path.name}.{unique}.partial")
    with explained(f"Cannot write {path}", lambda: kept(path.parent)):
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            _flush_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


def _flush_folder(folder: Path) -> None:
    """Flush a folder, so that a rename survives a loss of power (not on Windows)."""
    if os.name == "posix":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        except OSError as problem:
            if problem.errno not in (
                errno.EINVAL,
                errno.ENOTSUP,
            ):  # Some file systems cannot flush a folder.
                raise
        finally:
            os.close(opened)


@contextlib.contextmanager
def explained(task: str, advice: Callable[[], str]) -> Iterator[None]:
    """Replace an OSError in a `with` block by an OSError with a longer message.

    The message says what failed and why, and ends with the result of `advice`.

    Args:
      task: Description of what failed, for the message, such as "Cannot write x.npz".
      advice: Function that returns the last sentence of the message.
    """
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise OSError(error.errno, f"{task}: {reason}. {advice()}") from error


def kept(folder: Path) -> str:
    """Return a sentence that lists the files of a folder, for an error message.

    The sentence is "Unchanged: a, b." for files with the names a and b. Hidden files,
    whose names begin with a dot, are not listed. If the folder does not exist but can
    be made, the sentence is "Make the folder first: mkdir -p <folder>." In all other
    cases, such as an empty folder, the sentence is "Nothing was saved there before."
    """
    nearest = next((part for part in folder.parents if part.exists()), folder)
    if not folder.exists() and nearest.is_dir():
        return f"Make the folder first: mkdir -p {shlex.quote(str(folder))}."
    try:
        names = sorted(
            entry.name for entry in folder.iterdir() if not entry.name.startswith(".")
        )
    except OSError:
        names = []
    return (
        f"Unchanged: {', '.join(names)}."
        if names
        else "Nothing was saved there before."
    )


def plain(value: Any, where: str = "value") -> Any:
    """Return a value in a form that strict JSON can represent.

    Dataclasses and mappings become dicts, tuples become lists, and NumPy scalars become
    Python numbers. NaN and the infinities become {"$float": "nan"}, {"$float": "inf"}
    and {"$float": "-inf"}.

    Args:
      value: Value to convert.
      where: Name of the value, for the message of an error.
    Returns:
      The converted value.
    Raises:
      TypeError: JSON cannot store a part of the value exactly. Also if a key of a
        mapping is not a str, or is "$float". The message names the wrong part or the
        mapping, for example value.sizes[0].
    Example:
      >>> plain({"loss": float("inf"), "sizes": (64, 10)})
      {'loss': {'$float': 'inf'}, 'sizes': [64, 10]}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {NOT_FINITE: str(value)}
    if isinstance(value, int) and value.bit_length() > 1023:
        raise TypeError(
            f"{where} is an integer of {value.bit_length():,} bits, too large for a "
            "float. Store it as text."
        )
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str) or name == NOT_FINITE:
                reason = (
                    "this key is reserved"
                    if name == NOT_FINITE
                    else "keys must be strings"
                )
                raise TypeError(f"{where} has the key {name!r}; {reason}.")
        return {name: plain(item, f"{where}.{name}") for name, item in value.items()}
    raise TypeError(
        f"{where} is a {type(value).__name__}, {value!r}, which JSON cannot store "
        "exactly. Use numbers, strings, None, and tuples, lists or mappings of them: "
        "float(x) for an array with one number, x.tolist() for larger arrays."
    )


def canonical(value: Any, where: str = "value") -> str:
    """Return a value as JSON text in one fixed form: sorted keys, no spaces, ASCII.

    The function `plain` first converts the value, for example a tuple to a list. It
    raises TypeError if JSON cannot represent the value. The argument `where` is the
    name of the value in the message of this error.
    """
    return json.dumps(
        plain(value, where), sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def json_bytes(value: Any, where: str = "value", indent: int | None = 1) -> bytes:
    """Return a value as the bytes of readable JSON, with keys in the given order.

    Args:
      value: Value that `plain` can convert: numbers, strings, None, and tuples, lists,
        mappings and dataclasses of these.
      where: Name of the value, for the message of the TypeError that is raised if JSON
        cannot store the value.
      indent: Number of spaces per level. None puts everything on one line.
    """
    text = json.dumps(
        plain(value, where), indent=indent, allow_nan=False, ensure_ascii=False
    )
    return (text + "\n").encode(errors="surrogatepass")


def read_json(data: bytes) -> Any:
    """Return the value from the bytes that `json_bytes` has written.

    Tuples come back as lists, and dataclasses as dicts.

    Raises:
      ValueError: The bytes are not valid JSON in UTF-8.
      TypeError: data is not bytes.
    """
    return parse_json(data)


def npz_bytes(arrays: Mapping[str, Any]) -> bytes:
    """Return named arrays as the bytes of an .npz file, without pickle.

    The same arrays always give the same bytes.

    Raises:
      TypeError: An array has a dtype that .npz cannot store exactly.
      ValueError: There are more arrays than `read_npz` accepts in one file.
    """
    if len(arrays) > MOST_MEMBERS:
        raise ValueError(
            f"arrays must hold at most {MOST_MEMBERS:,} arrays; got {len(arrays):,}. "
            "Join some of them to one array."
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w"
    ) as archive:  # np.savez does not accept an array named "file".
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(
                    member, _savable(array, name), allow_pickle=False
                )
    return buffer.getvalue()


def _savable(array: Any, name: str) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in SAVABLE:
        raise TypeError(
            f"arrays[{name!r}] has dtype {array.dtype}, which .npz cannot store "
            "exactly. Convert it: astype('float32')."
        )
    return array


def safetensors_bytes(arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """Return named arrays and texts (metadata) as the bytes of a .safetensors file.

    The same arrays and texts always give the same bytes. The arrays are sorted by the
    size of one entry in bytes, largest first. These sizes are 8, 4, 2 or 1, so each
    array begins at a position that is a multiple of the size of its entries.

    Raises:
      TypeError: An array has a dtype that the format cannot store.
      ValueError: A name is "__metadata__".
    """
    found = {name: np.asarray(array) for name, array in arrays.items()}
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {METADATA: dict(metadata)}
    parts, end = [], 0
    for name in sorted(found, key=lambda name: (-found[name].dtype.itemsize, name)):
        dtype = found[name].dtype.newbyteorder("<")
        if dtype not in names:
            raise TypeError(
                f"{name!r} has dtype {dtype}, which a .safetensors file cannot store. "
                "Convert it: astype('float32')."
            )
        if name == METADATA:
            raise ValueError(f"An array cannot have the name {METADATA!r}; rename it.")
        parts.append(found[name].astype(dtype, order="C", copy=False).tobytes())
        header[name] = {
            "dtype": names[dtype],
            "shape": found[name].shape,
            "data_offsets": (end, end + len(parts[-1])),
        }
        end += len(parts[-1])
    text = canonical(header, "header").encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])
