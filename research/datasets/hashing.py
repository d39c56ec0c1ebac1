"""Is this file the one that it should be: its sha256, read once in a process."""

import functools
import gzip
import hashlib
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

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
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, lzma.LZMAError):
        return "unknown (it cannot be unpacked: damaged or cut off)"


@functools.cache
def _digest(path: str, hashed: str, *status: int) -> str:
    del status  # Only in the key: a file that has changed is read again.
    found = hashlib.sha256()
    if hashed == "wavs":
        lines = {name: f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in wavs_in(Path(path))}
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


def content(path: Path) -> bytes:
    """All bytes of a file, unpacked if it is gzip's, whatever it is called.

    Args:
      path: The file.
    Raises:
      ValueError: It begins as gzip's and cannot be unpacked.
      OSError: It cannot be read.
    """
    try:
        return b"".join(_chunks(path, True))
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise ValueError(f"{path} is cut off or damaged: {problem}. Delete it and fetch it anew.") from problem


def wavs_in(path: Path) -> Iterator[tuple[str, bytes]]:
    """The wav files of a tar archive, in its order, without unpacking it onto the disk.

    Args:
      path: The archive, compressed or not.
    Yields:
      Each name without its folders, and the bytes.
    Raises:
      tarfile.TarError, EOFError, zlib.error, lzma.LZMAError: It is no archive, or cut off.
    """
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".wav"):
                opened = archive.extractfile(member)
                assert opened is not None  # It is a file.
                yield Path(member.name).name, opened.read()
