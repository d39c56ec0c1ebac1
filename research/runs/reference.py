"""A small file that says what a run found: committed beside the experiment, for others to compare theirs with."""

from pathlib import Path
from typing import Any

from research.runs.files import json_bytes, write_atomically
from research.runs.folder import load_result, read_manifest

LARGEST = 20_000  # Bytes; a reference is read by people, and lives in version control.


def keep(path: str | Path, folder: str | Path) -> Path:
    """Writes <folder>/<experiment>.json: the run's manifest, answer, first table, plain numbers and hashes.

    The hashes are the result's `hashes`, one for each program's cells, to 16 digits; of its other numbers, those that are
    no tables of their own: numbers, texts, and lists of numbers.

    Args:
      path: The folder of a finished run.
      folder: Where to write, such as experiments/reference.
    Returns:
      The file.
    Raises:
      ValueError: The run is not finished, or the reference would be larger than 20 kB.
      OSError: The file cannot be written.
    """
    manifest, result = read_manifest(path), load_result(path)
    table = result.tables[0]
    facts = {name: value for name, value in manifest["facts"].items() if name != "hashes"}  # They stand below, shorter.
    reference = {
        "manifest": {name: manifest[name] for name in ("experiment", "id", "config", "command", "environment")},
        "facts": facts,
        "answer": result.answer,
        "table": {"title": table.title, "columns": table.columns, "rows": [[_short(v) for v in r] for r in table.rows]},
        "numbers": {name: value for name, value in result.numbers.items() if _plain(value)},
        "hashes": {name: digest[:16] for name, digest in result.numbers.get("hashes", {}).items()},
    }
    data = json_bytes(reference)
    if len(data) > LARGEST:
        raise ValueError(f"the reference of {path} would be {len(data):,} bytes; at most {LARGEST:,} are kept.")
    file = Path(folder) / f"{manifest['experiment']}.json"
    write_atomically(file, data)
    return file


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(v, int | float | str) for v in value) and len(value) <= 20
    return value is None or isinstance(value, int | float | str)


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
