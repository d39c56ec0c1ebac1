"""Reader of tar archives, one file at a time, without extracting them."""

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from research.reading import check_regular
from research.reading.arrays import STUMBLES

# Largest number of members of an archive, and largest size of a file in it.
MOST_MEMBERS, MOST_BYTES = 1_000_000, 2**28


class _Member(tarfile.TarInfo):
    """Member of an archive that raises an error for a negative size.

    Python before 3.14 loops forever on a negative size (CVE-2025-8194).
    """

    def _block(self, count: int) -> int:
        if count < 0:
            raise tarfile.ReadError("a member has a negative size")
        return super()._block(count)  # pyright: ignore


def files_in(
    path: Path, is_wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    """Yield the selected files of a tar archive.

    Links, folders and devices are skipped.

    Args:
      path: Path of the archive, which may be compressed.
      is_wanted: Function (name of a file) -> whether to read the file.
    Yields:
      A pair for each file, in the order of the archive: the name in the archive, and
      the content.
    Raises:
      ValueError: The file is not a tar archive, is truncated or damaged, has more than
        1,000,000 members, or contains a selected file of more than 2^28 bytes.
      OSError: The file cannot be read.
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
                        f"{member.name!r} in it has {member.size:,} bytes; the limit "
                        f"is {MOST_BYTES:,}"
                    )
                opened = archive.extractfile(member)
                content = opened.read() if opened else b""
                if len(content) != member.size:
                    raise ValueError(f"{member.name!r} in it is truncated")
                yield member.name, content
    except (*STUMBLES, tarfile.TarError, RecursionError) as problem:
        _damaged(path, problem)


def _damaged(path: Path, problem: Exception) -> NoReturn:
    # An error number means that the disk failed, not the archive.
    if isinstance(problem, OSError) and problem.errno is not None:
        raise problem
    raise ValueError(
        f"{path} is truncated or not a tar archive. Delete it and fetch it again "
        f"({str(problem) or type(problem).__name__})."
    ) from problem
