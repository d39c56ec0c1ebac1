"""Read the arrays of .safetensors files from untrusted sources.

A file has 8 bytes with the length N of its header (little-endian), N bytes of JSON, and
the bytes of the arrays, without gaps. The header maps each name to {"dtype", "shape",
"data_offsets"}, and "__metadata__" to texts by name.
"""

import math
import reprlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from research.reading import check_shape, parse_json
from research.reading.arrays import MOST_AXES

MOST_HEADER = 2**23  # Maximum length of a header, which is room for 50,000 arrays.
METADATA = "__metadata__"
DTYPES = {
    "BOOL": np.dtype("bool"),
    "U8": np.dtype("<u1"),
    "I8": np.dtype("<i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
_ENTRY = {"dtype": str, "shape": [int], "data_offsets": [int]}


class TruncatedError(ValueError):
    """Raised if a file ends before its header or its arrays end."""


def read_safetensors(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the arrays and the metadata of a .safetensors file.

    No array can be larger than the file. Nothing in the file is executed.

    Args:
      data: Content of the file.
    Returns:
      Two dicts. The first has the arrays by name, in the order of their bytes in the
      file. The second has the metadata, texts by name.
    Raises:
      TruncatedError: The file ends before its header or its arrays end.
      ValueError: The file is not a .safetensors file, or its header contradicts itself:
        two arrays have the same name or share bytes, there are bytes without an array,
        or a size does not fit a shape.
    References:
      The safetensors format, github.com/huggingface/safetensors, README, "Format".
    """
    header, start = _header(data)
    metadata = header.pop(METADATA, {})
    check_shape(metadata, {str: str}, METADATA)
    entries = {name: _entry(name, header[name]) for name in header}
    in_order = sorted(entries, key=lambda name: entries[name][2])
    end = 0
    for name in in_order:
        _, _, (first, last) = entries[name]
        if first != end:
            fault = "shares bytes with" if first < end else "leaves a gap to"
            raise ValueError(
                f"its array {_short(name)} {fault} the bytes before it (it begins at "
                f"byte {first}, not at {end})"
            )
        end = last
    if end > len(data) - start:
        raise TruncatedError(
            f"it is truncated: its arrays need {end:,} bytes, but it has "
            f"{len(data) - start:,}"
        )
    if end < len(data) - start:
        raise ValueError(f"it has {len(data) - start - end:,} bytes after its arrays")
    return {name: _array(data, start, *entries[name]) for name in in_order}, metadata


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """Return the header and the position of the first byte after it."""
    if len(data) < 8:
        raise TruncatedError(
            f"it is truncated: it has {len(data)} bytes, and a header needs more"
        )
    length = int.from_bytes(data[:8], "little")
    if length > MOST_HEADER:
        raise ValueError(
            "it is not a .safetensors file: its first 8 bytes would mean a header of "
            f"{length:,} bytes, and at most {MOST_HEADER:,} are accepted"
        )
    if length > len(data) - 8:
        raise TruncatedError(
            f"it is truncated: its header needs {length:,} bytes, but it has "
            f"{len(data) - 8:,}"
        )
    try:
        header = parse_json(data[8 : 8 + length])
    except ValueError as error:
        raise ValueError(
            f"it is not a .safetensors file, or its header is damaged: {error}"
        ) from error
    check_shape(header, {str: dict}, "its header")
    return header, 8 + length


def _entry(
    name: str, entry: dict[str, Any]
) -> tuple[np.dtype, tuple[int, ...], tuple[int, int]]:
    """Check an entry of the header; return its dtype, its shape and its byte range."""
    check_shape(entry, _ENTRY, f"its array {_short(name)}")
    shape, offsets = tuple(entry["shape"]), tuple(entry["data_offsets"])
    if entry["dtype"] not in DTYPES:
        raise ValueError(
            f"its array {_short(name)} has dtype {_short(entry['dtype'])}; it must be "
            f"one of {', '.join(DTYPES)}"
        )
    dtype = DTYPES[entry["dtype"]]
    # The rank is checked first: the product of a million numbers would take long.
    if (
        len(shape) > MOST_AXES
        or min(shape, default=0) < 0
        or math.prod(n for n in shape if n) >= 2**62
    ):
        raise ValueError(
            f"its array {_short(name)} has shape {_short(list(shape))}, but a shape "
            f"has at most {MOST_AXES} lengths, none of them negative, and fewer than "
            "2^62 entries. The file is damaged: get it again"
        )
    num_bytes = math.prod(shape) * dtype.itemsize
    if len(offsets) != 2 or offsets[0] < 0 or offsets[1] - offsets[0] != num_bytes:
        raise ValueError(
            f"its array {_short(name)} has the byte range {_short(list(offsets))}, but "
            f"{entry['dtype']} of shape {_short(list(shape))} needs {num_bytes:,} bytes"
        )
    return dtype, shape, (offsets[0], offsets[1])


def _array(
    data: bytes,
    start: int,
    dtype: np.dtype,
    shape: tuple[int, ...],
    offsets: tuple[int, int],
) -> np.ndarray:
    found = np.frombuffer(data[start + offsets[0] : start + offsets[1]], np.uint8)
    if dtype == np.dtype("bool") and found.max(initial=0) > 1:
        raise ValueError("it has truth values with bytes other than 0 and 1")
    return found.view(dtype).reshape(shape).copy()


def _short(value: Any) -> str:
    return reprlib.repr(value)
