"""The files of a tar archive, one at a time, without unpacking it onto the disk."""

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from research.reading import check_regular
from research.reading.arrays import STUMBLES

MOST_MEMBERS, MOST_BYTES = 1_000_000, 2**28  # Of an archive, and of one of its files.


class _Member(tarfile.TarInfo):
    """A member whose size is not negative: Python before 3.14 goes round in circles on one (CVE-2025-8194)."""

    def _block(self, count: int) -> int:
        if count < 0:
            raise tarfile.ReadError("a member has a negative size")
        return super()._block(count)  # pyright: ignore


def files_in(
    path: Path, is_wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    """Read the files of an archive whose names are wanted, in its order; links, folders and devices are left out.

    Args:
      path: The archive, compressed or not.
      is_wanted: name -> whether its bytes are.
    Yields:
      The name as it stands in the archive, and the bytes.
    Raises:
      ValueError: It is no archive, cut off or damaged, or larger than any that is read here.
      OSError: It cannot be read.
    """
    check_regular(path)
    number = 0
    try:
        with tarfile.open(path, tarinfo=_Member) as archive:
            for number, member in enumerate(archive, 1):
                if number > MOST_MEMBERS:
                    raise ValueError(f"it has more than {MOST_MEMBERS:,} members")
                if not member.isfile() or not is_wanted(member.name):
                    continue
                if member.size > MOST_BYTES:
                    raise ValueError(
                        f"{member.name!r} in it has {member.size:,} bytes; at most {MOST_BYTES:,} are read"
                    )
                opened = archive.extractfile(member)
                content = opened.read() if opened else b""
                if len(content) != member.size:
                    raise ValueError(f"{member.name!r} in it is cut off")
                yield member.name, content
    except (*STUMBLES, tarfile.TarError, RecursionError) as problem:
        _damaged(path, problem)


def _damaged(path: Path, problem: Exception) -> NoReturn:
    if (
        isinstance(problem, OSError) and problem.errno is not None
    ):  # Of the disk, not of what stands on it.
        raise problem
    raise ValueError(
        f"{path} is cut off or no tar archive. Delete it and fetch it anew ({str(problem) or type(problem).__name__})."
    ) from problem
