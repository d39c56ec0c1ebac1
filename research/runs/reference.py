"""A small file that says what a run found: committed beside the experiment, for others to compare theirs with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research.checks import check_count, check_instance, check_mapping, check_path, check_sequence, shown
from research.runs.comparison import CLOCK, Difference, largest, likely_cause, number_difference
from research.runs.environment import differences
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
    check_path("path", path)
    check_path("folder", folder)
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
    numbers, texts, and lists of at most 20. Arrays that share a name up to its last "/" (a program's, say) have one
    hash, of 16 hexadecimal digits; those of the clock have none.

    Raises:
      ValueError: The run is not finished.
    """
    manifest, result = read_manifest(path), load_result(path)
    table = result.tables[0]
    return {
        "manifest": {name: manifest[name] for name in ("experiment", "id", "config", "command", "environment")},
        "facts": manifest["facts"],
        "answer": result.answer,
        "table": {"title": table.title, "columns": table.columns, "rows": [[_short(v) for v in r] for r in table.rows]},
        "numbers": {name: value for name, value in result.numbers.items() if _plain(value)},
        "hashes": _hashes(result.arrays),
    }


def read_reference(file: str | Path) -> dict[str, Any]:
    """Reads what `keep` has written.

    Raises:
      ValueError: It cannot be read.
    """
    check_path("file", file)
    try:
        reference = read_json(Path(file).read_bytes())
        if not {"manifest", "table", "numbers", "hashes"} <= reference.keys():
            raise ValueError("entries are missing")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} cannot be read as a reference: {error}.") from error
    return reference


class Agreement(NamedTuple):
    """What came of holding a run against a reference.

    Attributes:
      values: Entries of the table and numbers that were compared, those of the clock left out.
      other_values: Those that differ.
      hashes: How many hashes.
      other_hashes: Names of those that differ.
      causes: What the environments differ in, likeliest first.
    """

    values: int
    other_values: tuple[Difference, ...]
    hashes: int
    other_hashes: tuple[str, ...]
    causes: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether every value and every hash is the reference's."""
        return not self.other_values and not self.other_hashes


def hold_against(reference: Mapping[str, Any], path: str | Path) -> Agreement:
    """Holds the finished run at `path` against a reference of the same config.

    Raises:
      ValueError: The run is not finished.
    """
    check_path("path", path)
    if not isinstance(reference, Mapping) or not {"manifest", "table", "numbers", "hashes"} <= reference.keys():
        raise TypeError(f"reference must be what read_reference gives; got reference={shown(reference)}.")
    for name in ("manifest", "table", "numbers", "hashes"):
        check_mapping(f"reference[{name!r}]", reference[name])
    for name in ("columns", "rows"):
        check_sequence(f"reference['table'][{name!r}]", reference["table"].get(name))
    check_mapping("reference['manifest']['environment']", reference["manifest"].get("environment"))
    here = read_json(json_bytes(reference_of(path)))
    values = [_values(entry) for entry in (reference, here)]
    places = dict.fromkeys([*values[0], *values[1]])
    other = (number_difference(place, *(given.get(place, "missing") for given in values)) for place in places)
    hashes = dict.fromkeys([*reference["hashes"], *here["hashes"]])
    return Agreement(
        len(places),
        tuple(difference for difference in other if difference is not None),
        len(hashes),
        tuple(name for name in hashes if reference["hashes"].get(name) != here["hashes"].get(name)),
        tuple(differences(reference["manifest"]["environment"], here["manifest"]["environment"])),
    )


def agreement_verdict(agreement: Agreement) -> str:
    """The agreement in a sentence or two."""
    check_instance("agreement", agreement, Agreement, "It is what hold_against gives.")
    check_sequence("agreement.other_values", agreement.other_values, "Differences", Difference)
    check_sequence("agreement.other_hashes", agreement.other_hashes, "names", str)
    check_sequence("agreement.causes", agreement.causes, "texts", str)
    check_count("agreement.values", agreement.values, 0)
    check_count("agreement.hashes", agreement.hashes, 0)
    values = f"{agreement.values} values of table and numbers"
    if agreement.same:
        return f"Bit-identical: the {values} and the hashes of all {agreement.hashes} programs are the reference's."
    bits = f"{len(agreement.other_hashes)} of {agreement.hashes} programs have other bits"
    if not agreement.other_values:
        return f"The same table: all {values} are the reference's; {bits}. {likely_cause(agreement.causes)}"
    worst = max(agreement.other_values, key=lambda difference: difference.relative)
    other = f"{len(agreement.other_values)} of {values} differ, and {bits}"
    return f"Another result: {other}. {largest(worst)} {likely_cause(agreement.causes)}"


def _values(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Every entry of the table and every plain number by its place, those of the clock left out."""
    table = reference["table"]
    values = {
        f"row {i + 1}, {column}": value
        for i, row in enumerate(table["rows"])
        for column, value in zip(table["columns"], row, strict=True)
    }
    for name, value in reference["numbers"].items():
        for i, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
            values[name if i is None else f"{name}[{i}]"] = item
    return {place: value for place, value in values.items() if CLOCK not in place}


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
