"""Finished studies, one's own and other people's: read without executing anything, checked, and gathered."""

import reprlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from research import runs
from research.checks import check_flag, check_path, check_sequence
from research.runs.archive import read_contents
from research.runs.folder import MANIFEST
from research.studies.study import FORMAT

_NUMBER, _PERHAPS, _NONE = (int, float), (int, float, type(None)), type(None)
_KINDS = {int: "an integer", float: "a number", str: "a printable text", list: "a list", _NONE: "None"}
# What a reader of a study may rely on; other entries are allowed.
PROTOCOL = {
    **dict.fromkeys(("seeds", "tuning_seeds"), (list,)),
    **dict.fromkeys(("tune_on", "reported_on"), (str,)),
    **dict.fromkeys(("passes", "target", "level"), _NUMBER),
    **{"budget": (int,), "batch_size": (int, _NONE)},
}
CELL = {
    **dict.fromkeys(("workload", "rule"), (str,)),
    **dict.fromkeys(("n", "trials"), (int,)),
    **dict.fromkeys(("cost", "cost_low", "cost_high", "example_gradients", "seconds"), _PERHAPS),
    **dict.fromkeys(("final", "final_low", "final_high", "reached", "diverged"), _PERHAPS),
}
COMPARISON = {
    **dict.fromkeys(("workload", "rule", "baseline", "verdict"), (str,)),
    **dict.fromkeys(("ratio", "low", "high", "more_seeds"), _PERHAPS),
}


class FinishedStudy(NamedTuple):
    """A study as it was saved.

    Attributes:
      name: Of its file or folder, without where that lies.
      manifest: Of its run: id, command, environment, digests.
      numbers: What it found; the entries of PROTOCOL, CELL and COMPARISON are there and of the right type.
    """

    name: str
    manifest: dict[str, Any]
    numbers: dict[str, Any]

    @property
    def key(self) -> tuple[str, ...]:
        """What two copies of one study share: its id and the digests of its files."""
        return self.manifest["id"], *(f"{name} {digest}" for name, digest in sorted(self.manifest["digests"].items()))

    def fact(self, *path: str) -> str:
        """An entry of the manifest, which may lack it or hold anything: strangers wrote it."""
        entry: Any = self.manifest
        for name in path:
            entry = entry.get(name) if isinstance(entry, dict) else None
        return str(entry) if isinstance(entry, str | int | float) else "unknown"


class Gathered(NamedTuple):
    """What came of reading many.

    Attributes:
      studies: Those that could be read, each once, in the order given.
      repeated: Names of further copies of them.
      left_out: Name and reason of those that could not be read.
    """

    studies: tuple[FinishedStudy, ...]
    repeated: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


def read_study(path: str | Path) -> FinishedStudy:
    """Reads a study from its run folder, or from the .zip that `research.runs.archive.pack` made of it.

    Args:
      path: The folder or the file.
    Raises:
      ValueError: It holds no whole study, or one of a version that is not known here; the message names it.
      OSError: It cannot be read.
    """
    check_path("path", path)
    contents = read_contents(path)
    numbers: Any = contents.found.get("numbers")
    try:
        _check_format(contents.manifest["experiment"], numbers)
        _check_numbers(numbers)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    return FinishedStudy(contents.name, contents.manifest, numbers)


def gather(paths: Sequence[str | Path], skip_bad: bool = False) -> Gathered:
    """Reads the studies at many places; a folder that is no run stands for the runs and the .zip files in it.

    Args:
      paths: Run folders, .zip files, and folders of these.
      skip_bad: Whether to go on after one that cannot be read.
    Raises:
      ValueError: One cannot be read (and skip_bad is False), or none can.
      OSError: As for `read_study`.
    """
    check_sequence("paths", paths, "paths", (str, Path))
    check_flag("skip_bad", skip_bad)
    studies: dict[tuple[str, ...], FinishedStudy] = {}
    repeated, left_out = [], []
    for path, study in _read_each(paths):
        if isinstance(study, FinishedStudy):
            repeated += [study.name] if study.key in studies else []
            studies.setdefault(study.key, study)
        elif skip_bad:
            left_out.append((path.name, str(study).replace(str(path), path.name)))
        else:
            raise ValueError(f"{study} To go on without it, leave it out, or add --skip-bad.") from study
    if not studies:
        raise ValueError(f"no study could be read. {' '.join(reason for _, reason in left_out)}".rstrip())
    return Gathered(tuple(studies.values()), tuple(repeated), tuple(left_out))


def places(path: Path) -> list[Path]:
    """A run folder or a file itself; of another folder, the run folders and .zip files in it, by name.

    Raises:
      ValueError: There are none.
    """
    if not path.is_dir() or (path / MANIFEST).exists():
        return [path]
    found = [entry for entry in sorted(path.iterdir()) if entry.suffix == ".zip" or _is_finished(entry)]
    if not found:
        raise ValueError(
            f"{path} holds no run folder and no .zip; give results/NAME/ID, results/NAME or a .zip of a run."
        )
    return found


def _is_finished(entry: Path) -> bool:
    """Whether it is a run folder, and not one that was stopped, or failed, on the way: that is left out, aloud."""
    if not (entry / MANIFEST).exists():
        return False
    try:
        running = runs.read_manifest(entry)["status"] == "running"
    except ValueError:
        return True  # It is read, and told what is wrong with it.
    if running:
        warnings.warn(f"{entry} is left out: it was not run to its end.", stacklevel=4)
    return not running


def _read_each(paths: Sequence[str | Path]) -> Iterator[tuple[Path, FinishedStudy | Exception]]:
    for given in map(Path, paths):
        try:
            found = places(given)
        except (ValueError, OSError) as error:
            yield given, error
            continue
        for path in found:
            try:
                yield path, read_study(path)
            except (ValueError, OSError) as error:
                yield path, error


def _check_format(experiment: str, numbers: Any) -> None:
    if not isinstance(numbers, dict) or "study" not in numbers:
        raise ValueError(
            f"holds a run of {experiment!r}, which is no study; give runs of python -m experiments compare."
        )
    version = numbers["study"]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"holds a study of the format {reprlib.repr(version)}, which there never was: run it again.")
    if version > FORMAT:
        raise ValueError(
            f"was written by a newer version of Descent (study format {version}; this one reads up to {FORMAT}): update "
            "descent-jax, or ask for it from an older one."
        )


def _check_numbers(numbers: Mapping[str, Any]) -> None:
    """Holds what strangers wrote against the format, so that the rest need not ask."""
    protocol = numbers.get("protocol")
    _check_entries("protocol", protocol, PROTOCOL)
    seen = set()
    for name, kinds in (("cells", CELL), ("comparisons", COMPARISON)):
        entries = numbers.get(name)
        if not isinstance(entries, list) or (name == "cells" and not entries):
            raise ValueError(f"holds a study whose {name} are missing or no list.")
        for index, entry in enumerate(entries):
            _check_entries(f"{name}[{index}]", entry, kinds)
            place = (name, entry["workload"], entry["rule"])
            if place in seen:
                raise ValueError(f"holds a study with {entry['rule']!r} on {entry['workload']!r} twice in its {name}.")
            seen.add(place)
    for index, cell in enumerate(numbers["cells"]):
        _check_cost(f"cells[{index}]", cell)


def _check_entries(where: str, entry: Any, kinds: Mapping[str, tuple[type, ...]]) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"holds a study whose {where} is {reprlib.repr(entry)}, no object.")
    for name, kind in kinds.items():
        if name not in entry:
            raise ValueError(f"holds a study whose {where} has no entry {name!r}.")
        value = entry[name]
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if not fits or (isinstance(value, str) and not value.isprintable()):  # A terminal obeys what is not.
            raise ValueError(
                f"holds a study whose {where}.{name} is {reprlib.repr(value)}; it must be {_wanted(kind)}."
            )


def _wanted(kind: tuple[type, ...]) -> str:
    """In words; an integer is a number."""
    return " or ".join(_KINDS[one] for one in kind if one is not int or float not in kind)


def _check_cost(where: str, cell: Mapping[str, Any]) -> None:
    """What places are made of: None where the target is not reached, or not negative."""
    for name in ("cost", "cost_low", "cost_high", "example_gradients"):
        value = cell[name]
        if value is not None and not value >= 0:
            raise ValueError(
                f"holds a study whose {where}.{name} is {value!r}; it must be positive or 0, or None (not reached)."
            )
    if (cell["cost"] is None) != (cell["example_gradients"] is None) or cell["n"] < 1:
        raise ValueError(
            f"holds a study whose {where} has a cost in passes and none in example gradients, or no examples."
        )
