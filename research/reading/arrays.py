"""Read archives and arrays from untrusted sources without using excessive memory."""

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

MOST_MEMBERS = 100_000  # Maximum number of files in a .zip.
MOST_AXES = 32  # Maximum rank that every version of NumPy supports.
# Allowed kinds of dtypes. Python objects are excluded, and extended types (bfloat16),
# which load as void.
SAVABLE = "biufcSUMm"
_MAGIC = b"\x93NUMPY"
# The header as NumPy writes it. NumPy reads it with Python's parser, which can fail
# in many ways.
_HEAD = re.compile(
    rb"\{'descr': '([<>|=][%s][0-9]{1,9}(?:\[[0-9]{0,9}[a-zA-Z]{1,2}\])?)', "
    rb"'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,19}, ?)*(?:[0-9]{1,19})?)\), \} *\n" % SAVABLE.encode()
)
# Errors that zipfile, tarfile and NumPy raise for damaged or malicious bytes.
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
    """Read the arrays in an .npz file that `research.runs` wrote.

    `data` is the content of the file, and the result maps the name of each array to the
    array. Arrays must be stored uncompressed, so no array can be larger than the file.

    Raises:
      ValueError: The file is damaged or compressed, two arrays have the same name, or
        an array does not consist of numbers, booleans, strings, dates or durations.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        with open_zip(data) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError(f"the array {name!r} appears twice")
                if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                    raise ValueError(f"the array {name!r} is compressed or encrypted")
                arrays[name] = read_npy(
                    read_member(archive, member, len(data)), f"the array {name!r}"
                )
    except STUMBLES as error:
        raise ValueError(
            "the file is not an archive of arrays, or it is damaged "
            f"({str(error) or type(error).__name__}). Get or make it again."
        ) from error
    return arrays


def open_zip(data: bytes) -> zipfile.ZipFile:
    """Open a .zip in memory, unless it has too many members.

    Raises:
      ValueError: The archive has more than 100,000 members.
      Exception: The archive is damaged. The tuple `STUMBLES` of this module contains
        the possible classes of the exception.
    """
    if data.count(b"PK\x01\x02") > MOST_MEMBERS:
        raise ValueError(f"it has more than {MOST_MEMBERS:,} members")
    return zipfile.ZipFile(io.BytesIO(data))


def read_npy(data: bytes, what: str) -> np.ndarray:
    """Read the array of a .npy file.

    `data` is the content of the file, and `what` names the array in error messages.

    The header of the file contains the shape and the dtype of the array. Before memory
    for the array is allocated, the size of the file is compared with the size that
    follows from the header.

    Raises:
      ValueError: The bytes are not a .npy file, contain Python objects, or do not have
        the size that follows from the header. The message begins with `what`.
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
    """Read the header of a .npy file, and check that it agrees with the file size.

    Args:
      head: Content of the file, or only the first bytes of the content.
      size: Size of the whole file in bytes.
      what: Name of the array, for messages.
    Returns:
      Four values: the shape, whether the array is stored in Fortran order, the dtype,
      and the number of bytes before the first entry.
    Raises:
      ValueError: The bytes are not a .npy file, contain Python objects, or do not agree
        with `size`. The message begins with `what`.
    """
    length = (
        2 if head[6:7] == b"\1" else 4
    )  # Number of bytes that store the header's length, in formats 1 and 2.
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
            f"{what} has a header with dtype {dtype} and shape {reprlib.repr(shape)}, "
            "which no array can have"
        )
    if math.prod(shape) * dtype.itemsize != rest:
        raise ValueError(
            f"{what} has {rest:,} bytes of data, but its header says shape "
            f"{reprlib.repr(shape)} and dtype {dtype}, which take "
            f"{math.prod(shape) * dtype.itemsize:,} bytes"
        )
    return shape, found[2] == b"True", dtype, start


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    """Read a member of an archive.

    The directory of the archive lists the size of the member. The function reads no
    more bytes than this size.

    Raises:
      ValueError: The size is larger than `most` bytes.
      Exception: The member is damaged. The tuple `STUMBLES` of this module contains the
        possible classes of the exception.
    """
    if member.file_size > most:
        raise ValueError(
            f"{member.filename!r} has {member.file_size:,} bytes; a file with more "
            f"than {most:,} bytes is not read"
        )
    with (
        warnings.catch_warnings(action="error"),
        archive.open(member) as file,
    ):  # Python warns about overlapping members.
        return file.read(member.file_size)


def check_arrays(
    arrays: Mapping[str, np.ndarray], wanted: Mapping[str, Any], where: str
) -> None:
    """Check that arrays from a file have the required shapes and dtypes.

    Args:
      arrays: Arrays by name.
      wanted: Required arrays: a mapping from a name to an array with the required shape
        and dtype. The numbers in these arrays are not used.
      where: Description of the arrays, for messages.
    Raises:
      ValueError: An array is missing or has another shape or dtype.
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
