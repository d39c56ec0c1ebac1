"""Is this file the one that it should be: its sha256, read once in a process."""

import functools
import gzip
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

from research.datasets.tar import files_in
from research.reading import check_regular

MOST_BYTES = 2**30  # Of a file that is read whole, unpacked.
CHUNK = 1 << 20
GZIP = b"\x1f\x8b"


def digest(path: Path, hashed: str = "file") -> str:
    """The sha256 of a file, remembered as long as its size and time stay.

    Args:
      path: The file.
      hashed: As in `research.datasets.sources.File`.
    Returns:
      64 hexadecimal digits; of an archive that is cut off or no archive, a few words instead, which are no hash.
    Raises:
      OSError: The file cannot be read.
    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = Path(folder, "empty")
      ...     _ = file.write_bytes(b"")
      ...     digest(file)[:8]
      'e3b0c442'
    """
    status = path.stat()
    try:
        return _digest(str(path), hashed, status.st_size, status.st_mtime_ns)
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile):
        return "unknown (it cannot be unpacked: damaged or cut off)"


@functools.cache
def _digest(path: str, hashed: str, *status: int) -> str:
    del status  # Only in the key: a file that has changed is read again.
    found = hashlib.sha256()
    if hashed == "wavs":
        lines = {
            name: f"{hashlib.sha256(content).hexdigest()}  {name}\n"
            for name, content in wavs_in(Path(path))
        }
        for name in sorted(lines):
            found.update(lines[name].encode())
        return found.hexdigest()
    for chunk in _chunks(Path(path), hashed == "content"):
        found.update(chunk)
    return found.hexdigest()


def _chunks(path: Path, unpack: bool) -> Iterator[bytes]:
    with path.open("rb") as file:
        packed = unpack and file.read(2) == GZIP
        file.seek(0)
        with gzip.open(file) if packed else file as opened:
            while chunk := opened.read(CHUNK):
                yield chunk


def content(path: Path, most: int = MOST_BYTES) -> bytes:
    """All bytes of a file, unpacked if it is gzip's, whatever it is called.

    Args:
      path: The file.
      most: Bytes that are read at most.
    Raises:
      ValueError: It begins as gzip's and cannot be unpacked, or has more bytes.
      OSError: It cannot be read.
    """
    check_regular(path)
    found, size = [], 0
    try:
        for chunk in _chunks(path, True):
            found.append(chunk)
            size += len(chunk)
            if size > most:
                raise ValueError(f"it holds more than {most:,} bytes")
    except (EOFError, zlib.error, gzip.BadGzipFile, ValueError) as problem:
        raise ValueError(
            f"{path} is cut off or damaged: {problem}. Delete it and fetch it anew."
        ) from problem
    return b"".join(found)


def wavs_in(path: Path) -> Iterator[tuple[str, bytes]]:
    """The wav files of a tar archive, in its order, without unpacking it onto the disk.

    Args:
      path: The archive, compressed or not.
    Yields:
      Each name without its folders, and the bytes.
    Raises:
      ValueError: It is no archive, or cut off or damaged.
      OSError: It cannot be read.
    """
    for name, content in files_in(path, lambda name: name.endswith(".wav")):
        yield Path(name).name, content
