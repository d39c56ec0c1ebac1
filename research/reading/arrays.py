"""Archives and arrays that anybody may have written: nothing swells, and no array is larger than its file."""

import io
import lzma
import math
import reprlib
import struct
import warnings
import zipfile
import zlib

import numpy as np

MOST_MEMBERS = 100_000  # Of a .zip.
SAVABLE = "biufcSUMm"  # Kinds of dtypes: neither objects nor the extended types (bfloat16), which load as void.
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
    *(KeyError, IndexError, TypeError, SyntaxError, MemoryError, zlib.error, lzma.LZMAError),
)


def read_npz(data: bytes) -> dict[str, np.ndarray]:
    """Read the bytes of an .npz file as `research.runs` writes it.

    What is stored as it is cannot swell, and no array has more entries than there are bytes.

    Raises:
      ValueError: They are no such file: damaged, compressed, with a name that comes twice, or with an array that
        is none of numbers, texts and times.
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
                arrays[name] = read_npy(read_member(archive, member, len(data)), f"the array {name!r}")
    except STUMBLES as error:
        raise ValueError(f"it is no archive of arrays, or damaged ({str(error) or type(error).__name__}).") from error
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
    array = np.frombuffer(data, dtype, offset=start) if math.prod(shape) else np.empty(0, dtype)
    return array.reshape(shape, order="F" if fortran else "C").copy(order="K")


def read_npy_head(head: bytes, size: int, what: str) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """What the head of a .npy file says, which must fit the file's size.

    Args:
      head: The file, or its first bytes.
      size: Bytes of the whole file.
      what: Its name, for messages.
    Returns:
      Shape, whether it is in Fortran's order, dtype, and where the entries start.
    Raises:
      ValueError: It is no such file, of Python objects, or of another size; `what` opens the message.
    """
    file = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"its format is {version}")
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings(action="error"):  # NumPy repairs what Python 2 wrote, aloud; that is not ours.
            shape, fortran, dtype = read_header(file)
    except (*STUMBLES, RecursionError, UserWarning) as error:
        raise ValueError(f"{what} is damaged or no array ({str(error) or type(error).__name__})") from error
    if dtype.kind not in SAVABLE or dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"{what} has the dtype {dtype}, which is none of numbers, texts and times")
    rest = size - file.tell()
    if math.prod(n for n in shape if n) >= 2**62:  # An empty array may have any other axis.
        raise ValueError(f"{what} says that its shape is {reprlib.repr(shape)}")
    if any(isinstance(n, bool) or n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != rest or len(shape) > 32:
        raise ValueError(f"{what} has {rest:,} bytes, and says that its shape is {reprlib.repr(shape)}")
    return shape, fortran, dtype, file.tell()


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    """The content of a member, no more of it than the archive's own directory says.

    Raises:
      ValueError: It is larger than `most`.
      Others of STUMBLES: It is damaged.
    """
    if member.file_size > most:
        raise ValueError(f"{member.filename!r} has {member.file_size:,} bytes; at most {most:,} are read")
    with archive.open(member) as file:
        return file.read(member.file_size)
