"""A small file that says what a run found: committed beside the experiment, for others to compare theirs with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from research.runs.comparison import CLOCK
from research.runs.files import json_bytes, read_json, write_atomically
from research.runs.folder import load_result, read_manifest
from research.runs.result import hash_arrays

LARGEST = 20_000  # Bytes; a reference is read by people, and lives in version control.
DIGITS = 16  # Of a hash.


def keep(path: str | Path, folder: str | Path) -> Path:
    """Writes <folder>/<experiment>.json: the run's manifest, answer, first table, plain numbers and hashes.

    Args:
      path: The folder of a finished run.
      folder: Where to write, such as experiments/reference.
    Returns:
      The file.
    Raises:
      ValueError: The run is not finished, or the reference would be larger than 20 kB.
      OSError: The file cannot be written.
    """
    reference = reference_of(path)
    data = json_bytes(reference)
    if len(data) > LARGEST:
        raise ValueError(f"the reference of {path} would be {len(data):,} bytes; at most {LARGEST:,} are kept.")
    file = Path(folder) / f"{reference['manifest']['experiment']}.json"
    write_atomically(file, data)
    return file


def reference_of(path: str | Path) -> dict[str, Any]:
    """What `keep` writes of a finished run.

    A float of the table has four digits. Of the result's numbers, those are kept that are no tables of their own:
    numbers, texts, and lists of at most 20; and under `intervals`, where the result has them, the (low, high) of numbers
    by their names. Arrays that share a name up to its last "/" (a program's, say) have one
    hash, of 16 hexadecimal digits; those of the clock have none.

    Raises:
      ValueError: The run is not finished.
    """
    manifest, result = read_manifest(path), load_result(path)
    table = result.tables[0]
    intervals = result.numbers.get("intervals")
    return {
        "manifest": {name: manifest[name] for name in ("experiment", "id", "config", "command", "environment")},
        "facts": manifest["facts"],
        "answer": result.answer,
        "table": {"title": table.title, "columns": table.columns, "rows": [[_short(v) for v in r] for r in table.rows]},
        "numbers": {name: value for name, value in result.numbers.items() if _plain(value)},
        **({"intervals": intervals} if intervals else {}),
        "hashes": _hashes(result.arrays),
    }


def read_reference(file: str | Path) -> dict[str, Any]:
    """Reads what `keep` has written.

    Raises:
      ValueError: It cannot be read.
    """
    try:
        reference = read_json(Path(file).read_bytes())
        if not {"manifest", "table", "numbers", "hashes"} <= reference.keys():
            raise ValueError("entries are missing")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} cannot be read as a reference: {error}.") from error
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
