"""A reference: a small file with the result of a run, stored beside the experiment.

Other people can compare their results with the reference.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.checks import check_mapping, check_path, check_sequence, shown
from research.files import json_bytes, write_atomically
from research.reading import NUMBER, check_shape, parse_json, read_bytes
from research.runs.comparison import CLOCK
from research.runs.folder import load_result
from research.runs.manifest import ORIGIN, check_origin, read_manifest
from research.runs.result import TABLE, check_rows, hash_arrays

LARGEST = 20_000  # Bytes; people read references, and version control stores them.
DIGITS = 16  # Number of digits of a hash.
# Relative to the larger of two numbers: numbers closer than this share six digits.
# Tables print three or four.
SIX_DIGITS = 1e-6
MOST_BYTES = 2**24  # Maximum size that is read; references are much smaller.
_VALUE = (str, bool, *NUMBER, type(None))
SHAPE = {
    "manifest": ORIGIN,
    "table": TABLE,
    "numbers": {str: (*_VALUE, list)},
    "hashes": {str: str},
    "answer?": str,
    "intervals?": {str: [NUMBER]},
}


def keep(path: str | Path, folder: str | Path) -> Path:
    """Write the reference of a run to <folder>/<experiment>.json.

    A reference is a small file with the main results of a run, with which later runs
    are compared. `reference_of` describes the parts of a reference. <experiment> is the
    name of the experiment.

    Args:
      path: Folder of a finished run.
      folder: Folder to write to, such as experiments/reference.
    Returns:
      Path of the written file.
    Raises:
      ValueError: The run is not finished, the run cannot become a reference (see
        `reference_of`), or the reference would be larger than 20 kB.
      OSError: The file cannot be written.
    """
    check_path("path", path)
    check_path("folder", folder)
    reference = reference_of(path)
    data = json_bytes(reference)
    if len(data) > LARGEST:
        raise ValueError(
            f"the reference of {path} would have {len(data):,} bytes; at most "
            f"{LARGEST:,} are allowed. Store fewer numbers or a smaller first table."
        )
    file = Path(folder) / f"{reference['manifest']['experiment']}.json"
    write_atomically(file, data)
    return file


def reference_of(
    path: str | Path, like: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the reference of a finished run, as a dict.

    A reference contains the main results of a run. `keep` writes a reference to a file,
    and later runs are compared with the reference. The dict has the keys "manifest",
    "facts", "answer", "table", "numbers" and "hashes", and sometimes "intervals". It
    contains these parts:

    - From the run's manifest: experiment, id, config, command, environment and facts
      (such as the duration).
    - From the run's result: the answer and the first table. Floats in the table are
      rounded to four significant digits.
    - Those entries of the result's `numbers` that are a number, a string, None, or a
      list of at most 20 numbers or strings.
    - The dict `intervals` of the result's `numbers`, if there is one. This dict maps
      the name of a number to its interval (low, high).
    - Instead of the arrays, hashes of 16 hexadecimal digits. Arrays whose names are
      equal up to the last "/", such as "adam/loss" and "adam/norm", have one common
      hash. An experiment must give such names only to arrays that one compiled program
      computes. Arrays with "seconds" in their name are times, which are not hashed.

    Args:
      path: Folder of the run.
      like: Reference with which the result will be compared, or None. This argument
        matters only for a float of the table that lies halfway between two numbers of
        four digits, up to a relative error of 1e-6. If one of these two numbers is at
        the same place in the table of `like`, the float is rounded to this number. For
        example, 1.2345 becomes 1.235 if `like` has 1.235. Otherwise the float is
        rounded to the nearer number, so a rounding error can decide.
    Raises:
      ValueError: The run is not finished, its result has no table, or its manifest
        lacks the entry `command` or the entry `facts`.
      TypeError: `like` is not a reference.
    """
    if like is not None:
        check_reference("like", like)
    manifest, result = read_manifest(path), load_result(path)
    check_origin(manifest, path)
    if not result.tables or not {"command", "facts"} <= manifest.keys():
        raise ValueError(
            f"{path} cannot become a reference: its result needs a table, and its "
            "manifest needs the entries 'command' and 'facts'."
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
            "rows": _short_rows(table.rows, like["table"]["rows"] if like else ()),
        },
        "numbers": {
            name: value for name, value in result.numbers.items() if _plain(value)
        },
        **({"intervals": intervals} if intervals else {}),
        "hashes": _hashes(result.arrays),
    }


def read_reference(file: str | Path) -> dict[str, Any]:
    """Read a reference from a file that `keep` wrote.

    A reference contains the main results of a finished run. Later runs are compared
    with the reference. The reference is a dict, and `reference_of` describes its
    entries.

    Raises:
      ValueError: The file cannot be read, or is not a reference.
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
        if any(len(ends) != 2 for ends in reference.get("intervals", {}).values()):
            raise ValueError("the reference.intervals must have two ends each")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file} cannot be read as a reference: {str(error).rstrip('.')}."
        ) from error
    return reference


def check_reference(name: str, given: Any) -> None:
    """Raise a TypeError unless the argument called `name` is a reference."""
    parts = ("manifest", "table", "numbers", "hashes")
    if not isinstance(given, Mapping) or not set(parts) <= given.keys():
        raise TypeError(
            f"{name} must be a result of read_reference; got {name}={shown(given)}."
        )
    for part in parts:
        check_mapping(f"{name}[{part!r}]", given[part])
    for part in ("columns", "rows"):
        check_sequence(f"{name}['table'][{part!r}]", given["table"].get(part))
    check_mapping(
        f"{name}['manifest']['environment']", given["manifest"].get("environment")
    )


def _hashes(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    groups: dict[str, list[np.ndarray]] = {}
    for name in sorted(name for name in arrays if CLOCK not in name):
        groups.setdefault(name.rpartition("/")[0] or name, []).append(arrays[name])
    return {group: hash_arrays(*members)[:DIGITS] for group, members in groups.items()}


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(v, int | float | str) for v in value) and len(value) <= 20
    return value is None or isinstance(value, int | float | str)


def _short_rows(
    rows: Sequence[Sequence[Any]], like: Sequence[Sequence[Any]]
) -> list[list[Any]]:
    """Round the floats in rows to four digits.

    If a float is halfway between two such numbers, and `like` has one of them at the
    same place, the float becomes this number.
    """
    pairs = itertools.zip_longest(rows, like[: len(rows)], fillvalue=())
    return [
        [
            _short(*entry)
            for entry in itertools.zip_longest(row, there[: len(row)], fillvalue=None)
        ]
        for row, there in pairs
    ]


def _short(value: Any, there: Any = None) -> Any:
    if not isinstance(value, float):
        return value
    ways = [
        float(f"{value * factor:.4g}") for factor in (1 - SIX_DIGITS, 1 + SIX_DIGITS)
    ]
    is_tie = isinstance(there, float) and there in ways
    return there if is_tie else float(f"{value:.4g}")
