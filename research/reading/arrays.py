"""Archives and arrays that anybody may have written: nothing swells, and no array is
larger than its file."""

import io
import lzma
import math
import re
import reprlib
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

MOST_MEMBERS = 100_000  # Of a .zip.
MOST_AXES = 32  # Of every version of numpy.
# Kinds of dtypes: neither objects nor the extended types (bfloat16), which load as
# void.
SAVABLE = "biufcSUMm"
_MAGIC = b"\x93NUMPY"
# As numpy writes it; its own parser runs Python's, which stumbles in too many ways.
_HEAD = re.compile(
    rb"\{'descr': '([<>|=][%s][0-9]{1,9}(?:\[[0-9]{0,9}[a-zA-Z]{1,2}\])?)', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,19}, ?)*(?:[0-9]{1,19})?)\), \} *\n" % SAVABLE.encode()
)
# What zipfile, tarfile and numpy stumble over in bytes that anybody may have written.
STUMBLES = (
    *(
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        OverflowError,
        struct.error,
    ),
    *(
        KeyError,
        IndexError,
        TypeError,
        SyntaxError,
        MemoryError,
        zlib.error,
        lzma.LZMAError,
        UserWarning,
    ),
)


def read_npz(data: bytes) -> dict[str, np.ndarray]:
    """Read the bytes of an .npz file as `research.runs` writes it.

    What is stored as it is cannot swell, and no array has more entries than there are
    bytes.

    Raises:
      ValueError: They are no such file: damaged, compressed, with a name that comes
        twice, or with an array that is none of numbers, texts and times.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        with open_zip(data) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError(f"the array {name!r} comes twice")
                if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                    raise ValueError(f"the array {name!r} is compressed or encrypted")
                arrays[name] = read_npy(
                    read_member(archive, member, len(data)), f"the array {name!r}"
                )
    except STUMBLES as error:
        raise ValueError(
            "it is no archive of arrays, or damaged "
            f"({str(error) or type(error).__name__})."
        ) from error
    return arrays


def open_zip(data: bytes) -> zipfile.ZipFile:
    """Open a .zip in memory, unless its directory alone would fill it.

    Raises:
      ValueError: It has more members than any file of this package.
      Others of STUMBLES: It is damaged.
    """
    if data.count(b"PK\x01\x02") > MOST_MEMBERS:
        raise ValueError(f"it has more than {MOST_MEMBERS:,} members")
    return zipfile.ZipFile(io.BytesIO(data))


def read_npy(data: bytes, what: str) -> np.ndarray:
    """The array of a .npy file, which must say its own size right before it is made.

    Raises:
      ValueError: It is no such file, or of Python objects; `what` opens the message.
    """
    shape, fortran, dtype, start = read_npy_head(data, len(data), what)
    array = (
        np.frombuffer(data, dtype, offset=start)
        if math.prod(shape)
        else np.empty(0, dtype)
    )
    return array.reshape(shape, order="F" if fortran else "C").copy(order="K")


def read_npy_head(
    head: bytes, size: int, what: str
) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """What the head of a .npy file says, which must fit the file's size.

    Args:
      head: The file, or its first bytes.
      size: Bytes of the whole file.
      what: Its name, for messages.
    Returns:
      Shape, whether it is in Fortran's order, dtype, and where the entries start.
    Raises:
      ValueError: It is no such file, of Python objects, or of another size; `what`
        opens the message.
    """
    length = (
        2 if head[6:7] == b"\1" else 4
    )  # Of the number that says how long the head is, in formats 1 and 2.
    start = 8 + length + int.from_bytes(head[8 : 8 + length], "little")
    found = _HEAD.fullmatch(head[8 + length : start])
    if not head.startswith((_MAGIC + b"\1\0", _MAGIC + b"\2\0")) or found is None:
        raise ValueError(
            f"{what} is damaged, or is not an array of numbers, texts or times: its "
            "header has another format"
        )
    try:
        dtype = np.dtype(found[1].decode())
    except TypeError as error:
        raise ValueError(
            f"{what} has a header with an unknown dtype, {found[1].decode()!r}"
        ) from error
    shape, rest = tuple(map(int, re.findall(rb"[0-9]+", found[3]))), size - start
    if (
        math.prod(n for n in shape if n) >= 2**62
        or len(shape) > MOST_AXES
        or not dtype.itemsize
    ):
        raise ValueError(
            f"{what} has a header with dtype {dtype} and shape "
            f"{reprlib.repr(shape)}, which no array can have"
        )
    if math.prod(shape) * dtype.itemsize != rest:
        raise ValueError(
            f"{what} has {rest:,} bytes of data, but its header has shape "
            f"{reprlib.repr(shape)} and dtype {dtype}"
        )
    return shape, found[2] == b"True", dtype, start


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    """The content of a member, no more of it than the archive's own directory says.

    Raises:
      ValueError: It is larger than `most`.
      Others of STUMBLES: It is damaged.
    """
    if member.file_size > most:
        raise ValueError(
            f"{member.filename!r} has {member.file_size:,} bytes; at most {most:,} are "
            "read"
        )
    with (
        warnings.catch_warnings(action="error"),
        archive.open(member) as file,
    ):  # Python warns of members that overlap.
        return file.read(member.file_size)


def check_arrays(
    arrays: Mapping[str, np.ndarray], wanted: Mapping[str, Any], where: str
) -> None:
    """Hold arrays that were read against what is needed.

    Args:
      arrays: By name.
      wanted: Name -> an array, of whose shape and dtype it must be.
      where: What they are, for messages.
    Raises:
      ValueError: One is missing, or of another shape or dtype.
    Example:
      >>> check_arrays({"loss": np.zeros(3)}, {"loss": np.zeros(4)}, "the checkpoint")
      Traceback (most recent call last):
      ValueError: the checkpoint has 'loss' of float64[3], not float64[4].
    """
    for name, model in wanted.items():
        if name not in arrays:
            raise ValueError(f"{where} has no array {name!r}.")
        found = arrays[name]
        if (found.shape, found.dtype) != (model.shape, model.dtype):
            raise ValueError(
                f"{where} has {name!r} of {found.dtype}{list(found.shape)}, not "
                f"{model.dtype}{list(model.shape)}."
            )
