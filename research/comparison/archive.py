"""Finished studies, one's own and other people's: read without executing anything, checked, and gathered."""

import math
import reprlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from research import runs
from research.checks import check_flag, check_path, check_sequence
from research.comparison.study import FORMAT
from research.reading import NUMBER, PERHAPS, Is, check_shape
from research.runs.archive import read_contents
from research.runs.manifest import MANIFEST

LONGEST, MOST_CELLS = 1_000, 10_000  # Characters of a name; cells of a study.


def _is_share(value: Any) -> bool:
    return value is None or 0 <= value <= 1


_WORDS = Is(
    (str,),
    lambda text: (
        text.isprintable() and len(text) <= LONGEST
    ),  # A terminal obeys what is not printable.
    f"a printable text of at most {LONGEST:,} characters",
)
_COUNT = Is(
    (int,), lambda count: 1 <= count < 2**53, "an integer of at least 1 and below 2**53"
)
_PERHAPS_COUNT = Is(
    (int, type(None)),
    lambda n: n is None or 1 <= n < 2**53,
    "an integer of at least 1, or None",
)
_POSITIVE = Is(NUMBER, lambda number: 0 < number < math.inf, "a positive number")
_COST = Is(
    PERHAPS,
    lambda cost: cost is None or cost >= 0,
    "positive or 0, or None (not reached)",
)
_SHARE = Is(PERHAPS, _is_share, "a number or None, from 0 to 1")
# What a reader of a study may rely on; other entries are allowed.
PROTOCOL = {
    **{"seeds": [int], "tuning_seeds": [int]},
    **dict.fromkeys(("tune_on", "reported_on"), _WORDS),
    **dict.fromkeys(("passes", "target"), _POSITIVE),
    "level": Is(NUMBER, lambda level: 0 < level < 1, "a number between 0 and 1"),
    **{"budget": _COUNT, "batch_size": _PERHAPS_COUNT},
}
CELL = {
    **dict.fromkeys(("workload", "rule"), _WORDS),
    **dict.fromkeys(("n", "trials"), _COUNT),
    **dict.fromkeys(("cost", "cost_low", "cost_high", "example_gradients"), _COST),
    **dict.fromkeys(("seconds", "final", "final_low", "final_high"), PERHAPS),
    **dict.fromkeys(("reached", "diverged"), _SHARE),
}
COMPARISON = {
    **dict.fromkeys(("workload", "rule", "baseline", "verdict"), _WORDS),
    **dict.fromkeys(("ratio", "low", "high", "more_seeds"), PERHAPS),
}
_CELLS = Is(
    (list,),
    lambda cells: 1 <= len(cells) <= MOST_CELLS,
    f"a list of 1 to {MOST_CELLS:,} entries",
)
_COMPARISONS = Is(
    (list,),
    lambda entries: len(entries) <= MOST_CELLS,
    f"a list of at most {MOST_CELLS:,} entries",
)


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
        return self.manifest["id"], *(
            f"{name} {digest}"
            for name, digest in sorted(self.manifest["digests"].items())
        )

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
            raise ValueError(
                f"{study} To go on without it, leave it out, or add --skip-bad."
            ) from study
    if not studies:
        raise ValueError(
            f"no study could be read. {' '.join(reason for _, reason in left_out)}".rstrip()
        )
    return Gathered(tuple(studies.values()), tuple(repeated), tuple(left_out))


def places(path: Path) -> list[Path]:
    """A run folder or a file itself; of another folder, the run folders and .zip files in it, by name.

    Raises:
      ValueError: There are none.
    """
    if not path.is_dir() or (path / MANIFEST).exists():
        return [path]
    found = [
        entry
        for entry in sorted(path.iterdir())
        if entry.suffix == ".zip" or _is_finished(entry)
    ]
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


def _read_each(
    paths: Sequence[str | Path],
) -> Iterator[tuple[Path, FinishedStudy | Exception]]:
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
            f"holds a run of {experiment!r}, which is no study; give runs of descent compare."
        )
    version = numbers["study"]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(
            f"holds a study of the format {reprlib.repr(version)}, which there never was: run it again."
        )
    if version > FORMAT:
        raise ValueError(
            f"was written by a newer version of Descent (study format {version}; this one reads up to {FORMAT}): update "
            "descent-jax, or ask for it from an older one."
        )


def _check_numbers(numbers: Mapping[str, Any]) -> None:
    """Holds what strangers wrote against the format, so that the rest need not ask."""
    try:
        check_shape(
            numbers,
            {"protocol": PROTOCOL, "cells": _CELLS, "comparisons": _COMPARISONS},
            "study",
        )
        check_shape(numbers, {"cells": [CELL], "comparisons": [COMPARISON]}, "study")
    except ValueError as error:
        raise ValueError(f"holds a study that cannot be ranked: {error}") from error
    for name in ("cells", "comparisons"):
        seen = set()
        for entry in numbers[name]:
            place = (entry["workload"], entry["rule"])
            if place in seen:
                raise ValueError(
                    f"holds a study with {entry['rule']!r} on {entry['workload']!r} twice in its {name}."
                )
            seen.add(place)
    for index, cell in enumerate(numbers["cells"]):
        if (cell["cost"] is None) != (cell["example_gradients"] is None):
            raise ValueError(
                f"holds a study whose cells[{index}] has a cost in passes and none in example gradients."
            )
