"""Reader of the IDX format of MNIST and Fashion-MNIST."""

import math
import struct
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from research.datasets.hashing import content

UNSIGNED_BYTE = 0x08
MOST_AXES = 32  # Every version of NumPy supports this number of axes.


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """Read an array of unsigned bytes from an IDX file, compressed by gzip or not.

    The file starts with the bytes 0, 0 and 8 (the code for unsigned bytes) and a byte
    with the number of axes. Next are the lengths of the axes, each a big-endian 32-bit
    integer. The entries follow in C order.

    Args:
      path: Path of the file.
    Returns:
      The array, uint8.
    Raises:
      ValueError: The first bytes are wrong, the file is truncated or damaged, or its
        length does not match its axes.
      OSError: The file cannot be read.
    References:
      LeCun, Cortes & Burges, The MNIST database of handwritten digits: "The IDX file
      format".
    """
    read = content(path)
    if (
        len(read) < 4
        or read[:3] != bytes([0, 0, UNSIGNED_BYTE])
        or not 0 < read[3] <= MOST_AXES
    ):
        raise ValueError(
            f"{path} is not an IDX file of bytes: it must begin with 00 00 08 and the "
            f"number of axes, 1 to {MOST_AXES}; it begins with "
            f"{read[:4].hex(' ') or 'nothing'}. Fetch the original file."
        )
    start = 4 + 4 * read[3]
    shape = struct.unpack(f">{read[3]}I", read[4:start].ljust(4 * read[3], b"\0"))
    expected = start + math.prod(shape)
    if len(read) != expected or math.prod(n for n in shape if n) >= 2**62:
        raise ValueError(
            f"{path} has {len(read):,} bytes; its header (shape {shape}) requires "
            f"{expected:,}. It is truncated or was changed: fetch it again."
        )
    return np.frombuffer(read, np.uint8, offset=start).reshape(shape).copy()
