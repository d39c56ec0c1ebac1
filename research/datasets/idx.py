"""The IDX format of MNIST's and Fashion-MNIST's files."""

import math
import struct
from pathlib import Path

import numpy as np

from research.datasets.hashing import content

UNSIGNED_BYTE = 0x08
MOST_AXES = 32  # Of every version of numpy.


def read_idx(path: Path) -> np.ndarray:
    """Reads an array of unsigned bytes, from a file packed by gzip or not.

    The file is the bytes 0, 0, 8 (the code of an unsigned byte) and the number of axes, then each axis's length as a
    big-endian 32-bit integer, then the entries in C order.

    Args:
      path: The file.
    Returns:
      uint8, the caller's own.
    Raises:
      ValueError: The first bytes are others, the file is cut off or damaged, or its length is not what its axes say.
      OSError: It cannot be read.
    References:
      LeCun, Cortes & Burges, The MNIST database of handwritten digits: "The IDX file format".
    """
    read = content(path)
    if (
        len(read) < 4
        or read[:3] != bytes([0, 0, UNSIGNED_BYTE])
        or not 0 < read[3] <= MOST_AXES
    ):
        raise ValueError(
            f"{path} is no IDX file of bytes: it begins with {read[:4].hex(' ') or 'nothing'}, and should with 00 00 08 and "
            f"the number of axes, 1 to {MOST_AXES}. Fetch the original file."
        )
    start = 4 + 4 * read[3]
    shape = struct.unpack(f">{read[3]}I", read[4:start].ljust(4 * read[3], b"\0"))
    expected = start + math.prod(shape)
    if len(read) != expected or math.prod(n for n in shape if n) >= 2**62:
        raise ValueError(
            f"{path} has {len(read):,} bytes; its own head, of shape {shape}, asks for {expected:,}. It is cut off or was "
            "changed: fetch it anew."
        )
    return np.frombuffer(read, np.uint8, offset=start).reshape(shape).copy()
