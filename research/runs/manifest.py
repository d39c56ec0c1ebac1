"""Read the manifest and the other files of a run folder, with size limits."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.checks import check_path
from research.reading import Is, check_shape, parse_json, read_bytes
from research.runs._environment import SHAPE as ENVIRONMENT

MANIFEST, RESULT, ARRAYS = "manifest.json", "result.json", "arrays.npz"
MOST_BYTES = {
    MANIFEST: 2**24,
    RESULT: 2**27,
    ARRAYS: 2**32,
}  # Maximum number of bytes that are read of each file.
NAME = r"[A-Za-z0-9_-]+"
_NAME = Is(
    (str,),
    lambda text: re.fullmatch(NAME, text) is not None,
    "letters, digits, _ and -",
)
# Entries that describe how to reproduce a run; an unfinished run has no facts.
ORIGIN = {
    "experiment": _NAME,
    "id": _NAME,
    "config": dict,
    "environment": ENVIRONMENT,
    "command?": str,
    "facts?": dict,
}
SHAPE = ORIGIN | {"experiment": str, "id": str, "status": str, "digests?": {str: str}}


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Read the manifest of a run folder.

    The manifest is the file manifest.json. The result is the content of this file: a
    dict with the experiment, the id, the config, the environment and the status of the
    run, and the command that reproduces the run. `path` is the path of the folder.

    Raises:
      ValueError: The manifest is missing, cannot be read, or is not a manifest of a
        run.
    """
    check_path("path", path)
    file = Path(path) / MANIFEST
    try:
        manifest = parse_json(read_file(file.parent, MANIFEST))
        check_shape(manifest, SHAPE, "the manifest")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file} cannot be read: {str(error).rstrip('.')}. Check that {Path(path)} "
            "is a run folder."
        ) from error
    return manifest


def check_origin(manifest: dict[str, Any], path: str | Path) -> None:
    """Check that a manifest is sufficient to reproduce its run.

    A manifest must contain the experiment, the id, the config and the environment of
    the run. The name of the experiment and the id are used as folder names, so they may
    contain only letters, digits, _ and -. With other characters, such as "/", they
    could lead to another folder.

    Raises:
      ValueError: The manifest fails the check. The message names the path.
    """
    try:
        check_shape(manifest, ORIGIN, "the manifest")
    except ValueError as error:
        raise ValueError(f"{path} cannot be run again: {error}") from error


def read_file(path: Path, name: str) -> bytes:
    """Read the file `name` in the run folder `path`, as bytes.

    Raises:
      ValueError: The file is too large, or not a regular file.
      OSError: The file cannot be read.
    """
    return read_bytes(path / name, _most_bytes(name))


def check_sizes(files: Mapping[str, bytes]) -> None:
    """Raise ValueError if a file of a run folder has more bytes than `read_file` reads.

    `files` maps the names of files to their content.
    """
    for name, data in files.items():
        if len(data) > _most_bytes(name):
            raise ValueError(
                f"{name} must have at most {_most_bytes(name):,} bytes; this result "
                f"needs {len(data):,}. Keep fewer or smaller arrays in it."
            )


def _most_bytes(name: str) -> int:
    return MOST_BYTES.get(name, 2**30)
