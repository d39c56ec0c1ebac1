"""A small file that says what a run found: committed beside the experiment, for others
to compare theirs with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from research.checks import check_path
from research.reading import NUMBER, check_shape, parse_json, read_bytes
from research.runs.comparison import CLOCK
from research.runs.files import json_bytes, write_atomically
from research.runs.folder import load_result
from research.runs.manifest import ORIGIN, check_origin, read_manifest
from research.runs.result import TABLE, check_rows, hash_arrays

LARGEST = 20_000  # Bytes; a reference is read by people, and lives in version control.
DIGITS = 16  # Of a hash.
MOST_BYTES = 2**24  # That are read; a reference is smaller by far.
_VALUE = (str, bool, *NUMBER, type(None))
SHAPE = {
    "manifest": ORIGIN,
    "table": TABLE,
    "numbers": {str: (*_VALUE, list)},
    "hashes": {str: str},
    "answer?": str,
}


def keep(path: str | Path, folder: str | Path) -> Path:
    """Writes <folder>/<experiment>.json: the run's manifest, answer, first table, plain
    numbers and hashes.

    Args:
      path: The folder of a finished run.
      folder: Where to write, such as experiments/reference.
    Returns:
      The file.
    Raises:
      ValueError: The run is not finished, or the reference would be larger than 20 kB.
      OSError: The file cannot be written.
    """
    check_path("path", path)
    check_path("folder", folder)
    reference = reference_of(path)
    data = json_bytes(reference)
    if len(data) > LARGEST:
        raise ValueError(
            f"the reference of {path} would be {len(data):,} bytes; at most "
            f"{LARGEST:,} are kept."
        )
    file = Path(folder) / f"{reference['manifest']['experiment']}.json"
    write_atomically(file, data)
    return file


def reference_of(path: str | Path) -> dict[str, Any]:
    """What `keep` writes of a finished run.

    A float of the table has four digits. Of the result's numbers, those are kept that
    are no tables of their own: numbers, texts, and lists of at most 20; and under
    `intervals`, where the result has them, the (low, high) of numbers by their names.
    Arrays that share a name up to its last "/" (a program's, say) have one hash, of 16
    hexadecimal digits; those of the clock have none.

    Raises:
      ValueError: The run is not finished, or has no table.
    """
    manifest, result = read_manifest(path), load_result(path)
    check_origin(manifest, path)
    if not result.tables or not {"command", "facts"} <= manifest.keys():
        raise ValueError(
            f"{path} has no table, command or facts, so no reference can be made of it."
        )
    table = result.tables[0]
    intervals = result.numbers.get("intervals")
    return {
        "manifest": {
            name: manifest[name]
            for name in ("experiment", "id", "config", "command", "environment")
        },
        "facts": manifest["facts"],
        "answer": result.answer,
        "table": {
            "title": table.title,
            "columns": table.columns,
            "rows": [[_short(v) for v in r] for r in table.rows],
        },
        "numbers": {
            name: value for name, value in result.numbers.items() if _plain(value)
        },
        **({"intervals": intervals} if intervals else {}),
        "hashes": _hashes(result.arrays),
    }


def read_reference(file: str | Path) -> dict[str, Any]:
    """Reads what `keep` has written.

    Raises:
      ValueError: It cannot be read.
    """
    check_path("file", file)
    try:
        reference = parse_json(read_bytes(file, MOST_BYTES))
        check_shape(reference, SHAPE, "the reference")
        check_rows(reference["table"], "the reference.table")
        lists = {
            name: value
            for name, value in reference["numbers"].items()
            if isinstance(value, list)
        }
        check_shape(lists, {str: [_VALUE]}, "the reference.numbers")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file} cannot be read as a reference: {str(error).rstrip('.')}."
        ) from error
    return reference


def _hashes(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    groups: dict[str, list[np.ndarray]] = {}
    for name in sorted(name for name in arrays if CLOCK not in name):
        groups.setdefault(name.rpartition("/")[0] or name, []).append(arrays[name])
    return {group: hash_arrays(*members)[:DIGITS] for group, members in groups.items()}


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(v, int | float | str) for v in value) and len(value) <= 20
    return value is None or isinstance(value, int | float | str)


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
