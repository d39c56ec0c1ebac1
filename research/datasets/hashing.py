"""Hashes of data files, each computed once per process."""

import functools
import gzip
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

from research.datasets.tar import files_in
from research.reading import check_regular

MOST_BYTES = 2**30  # Largest uncompressed file that is read at once.
CHUNK = 1 << 20
GZIP = b"\x1f\x8b"


def digest(path: Path, hashed: str = "file") -> str:
    """Compute the sha256 of a file; cache it until the file's size or time changes.

    Args:
      path: The file.
      hashed: As in `research.datasets.sources.File`.
    Returns:
      64 hexadecimal digits, or a few words if the file is not an archive or is
      truncated.
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
        return "unknown (it cannot be unpacked: damaged or truncated)"


@functools.cache
def _digest(path: str, hashed: str, *status: int) -> str:
    del status  # Part of the cache's key, so that a changed file is read again.
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
    """Read all bytes of a file, unpacked if it is compressed by gzip.

    The first bytes decide whether it is compressed, not the file's name.

    Args:
      path: Path of the file.
      most: Largest number of bytes to read.
    Raises:
      ValueError: The file cannot be unpacked or has more bytes.
      OSError: The file cannot be read.
    """
    check_regular(path)
    found, size = [], 0
    try:
        for chunk in _chunks(path, True):
            found.append(chunk)
            size += len(chunk)
            if size > most:
                raise ValueError(f"it has more than {most:,} bytes")
    except (EOFError, zlib.error, gzip.BadGzipFile, ValueError) as problem:
        raise ValueError(
            f"{path} is truncated or damaged: {problem}. Delete it and fetch it again."
        ) from problem
    return b"".join(found)


def wavs_in(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the wav files of a tar archive, in its order, without extracting it.

    Args:
      path: Path of the archive, compressed or not.
    Yields:
      The name without folders, and the content.
    Raises:
      ValueError: The file is not a tar archive, or is truncated or damaged.
      OSError: The file cannot be read.
    """
    for name, content in files_in(path, lambda name: name.endswith(".wav")):
        yield Path(name).name, content
