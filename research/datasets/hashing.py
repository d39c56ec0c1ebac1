"""Hashes of data files, computed once per process while the file does not change."""

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
LOGS = "/records/track_3_optimization/"


def digest(path: Path, hashed: str = "file") -> str:
    """Compute the sha256 of a file.

    The hash is cached until the file's size or modification time changes.

    Args:
      path: Path of the file.
      hashed: Data from which the hash is computed: "file", "content", "wavs" or "logs".
        `research.datasets.sources.File` explains these names.
    Returns:
      The hash, 64 hexadecimal digits. If the file cannot be unpacked, the result is a
      short text that says so.
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
    if hashed in MEMBERS:
        lines = {
            name: f"{hashlib.sha256(content).hexdigest()}  {name}\n"
            for name, content in MEMBERS[hashed](Path(path))
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
    """Read all bytes of a file, and unpack them if they are compressed by gzip.

    The first bytes of the file show whether the file is compressed. The file name is
    ignored.

    Args:
      path: Path of the file.
      most: Largest number of unpacked bytes.
    Raises:
      ValueError: The file cannot be unpacked, or has more than `most` bytes.
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
    """Yield the wav files of a tar archive without extracting it.

    Args:
      path: Path of the archive, which may be compressed.
    Yields:
      A pair for each file, in the order of the archive: the name without folders, and
      the content.
    Raises:
      ValueError: The file is not a tar archive, or is truncated or damaged.
      OSError: The file cannot be read.
    """
    for name, content in files_in(path, lambda name: name.endswith(".wav")):
        yield Path(name).name, content


def logs_in(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield, from a tar archive, the text files that the loader `benchmark_logs` loads.

    These files are the .txt, .stdout, .out and .md files in the folder
    records/track_3_optimization of the repository modded-nanogpt. `path` is the archive
    of this repository. The function raises the same errors as `wavs_in`.

    Yields:
      A pair for each file: the path below records/track_3_optimization, and the
      content.
    """
    for name, content in files_in(path, _is_log):
        yield name.partition(LOGS)[2], content


def _is_log(name: str) -> bool:
    return LOGS in name and name.endswith((".txt", ".stdout", ".out", ".md"))


# Files of an archive from which a hash is computed, whatever the packing.
MEMBERS = {"wavs": wavs_in, "logs": logs_in}
