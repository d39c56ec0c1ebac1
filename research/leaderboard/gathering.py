"""The finished studies at many places, each once."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from research import runs
from research.checks import check_flag, check_sequence
from research.comparison.archive import SavedStudy, read_study
from research.runs.manifest import MANIFEST


class Gathered(NamedTuple):
    """The studies of several places.

    Attributes:
      studies: Those that could be read, each once, in the order given.
      repeated: Names of further copies of them.
      left_out: Name and reason of those that could not be read.
    """

    studies: tuple[SavedStudy, ...]
    repeated: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


def gather(paths: Sequence[str | Path], skip_bad: bool = False) -> Gathered:
    """Read the studies of several places.

    A folder that is no run stands for the runs and the .zip files in it.

    Args:
      paths: Run folders, .zip files, and folders of these.
      skip_bad: Whether to go on after one that cannot be read.
    Returns:
      The studies, and what was left out.
    Raises:
      ValueError: One cannot be read (and skip_bad is False), or none can.
      OSError: As for `read_study`.
    """
    check_sequence("paths", paths, "paths", (str, Path))
    check_flag("skip_bad", skip_bad)
    studies: dict[tuple[str, ...], SavedStudy] = {}
    repeated, left_out = [], []
    for path, study in _read_each(paths):
        if isinstance(study, SavedStudy):
            repeated += [study.name] if study.key in studies else []
            studies.setdefault(study.key, study)
        elif skip_bad:
            left_out.append((path.name, str(study).replace(str(path), path.name)))
        else:
            raise ValueError(
                f"{study} To go on without it, leave it out, or add --skip-bad."
            ) from study
    if not studies:
        reasons = " ".join(reason for _, reason in left_out)
        raise ValueError(f"no study could be read. {reasons}".rstrip())
    return Gathered(tuple(studies.values()), tuple(repeated), tuple(left_out))


def run_paths(path: Path) -> list[Path]:
    """Return the run folders and .zip files of a path, by name.

    A run folder or a file stands for itself.

    Raises:
      ValueError: There are none.
    """
    if not path.is_dir() or (path / MANIFEST).exists():
        return [path]
    entries = [
        entry
        for entry in sorted(path.iterdir())
        if entry.suffix == ".zip" or _is_finished(entry)
    ]
    if not entries:
        raise ValueError(
            f"{path} holds no run folder and no .zip; give results/NAME/ID, results/NAME "
            "or a .zip of a run."
        )
    return entries


def _is_finished(entry: Path) -> bool:
    """Whether it is the folder of a finished run; of an unfinished one, warn."""
    if not (entry / MANIFEST).exists():
        return False
    try:
        running = runs.read_manifest(entry)["status"] == "running"
    except ValueError:
        return True  # Reading it says what is wrong with it.
    if running:
        warnings.warn(f"{entry} is left out: it was not run to its end.", stacklevel=4)
    return not running


def _read_each(
    paths: Sequence[str | Path],
) -> Iterator[tuple[Path, SavedStudy | Exception]]:
    for given in map(Path, paths):
        try:
            entries = run_paths(given)
        except (ValueError, OSError) as error:
            yield given, error
            continue
        for path in entries:
            try:
                yield path, read_study(path)
            except (ValueError, OSError) as error:
                yield path, error
