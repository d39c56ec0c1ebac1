"""Read finished studies from many paths, without duplicates."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from research import runs
from research.checks import check_flag, check_sequence
from research.comparison.archive import SavedStudy, read_study
from research.runs.manifest import MANIFEST


class Gathered(NamedTuple):
    """The studies that were read from several paths.

    Attributes:
      studies: Studies without duplicates, in the order of the paths.
      repeated: Names of the studies that are duplicates. Of several equal studies, only
        the first is in `studies`.
      left_out: Pairs (name, reason) of the studies that could not be read.
    """

    studies: tuple[SavedStudy, ...]
    repeated: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


def gather(paths: Sequence[str | Path], skip_bad: bool = False) -> Gathered:
    """Read the studies from several paths.

    A study is a finished comparison of update rules. The run folder of the comparison,
    or a .zip file of this folder, contains the study. If a path is a folder of run
    folders and .zip files, all of these are read. Runs in such a folder that are not
    finished are skipped with a warning.

    Args:
      paths: Run folders, .zip files, and folders that contain run folders or .zip
        files.
      skip_bad: If True, a study that cannot be read is left out. If False, such a study
        raises an error.
    Returns:
      The studies. Of several equal studies, only the first is kept. The result also has
      the names of the duplicates, and of the studies that could not be read.
    Raises:
      ValueError: A study cannot be read although `skip_bad` is False, or no study can
        be read.
      TypeError: `paths` is not a sequence of paths, or `skip_bad` is not a bool.
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
                f"{study} To continue, remove this study, or add --skip-bad."
            ) from study
    if not studies:
        reasons = " ".join(reason for _, reason in left_out)
        raise ValueError(f"no study could be read. {reasons}".rstrip())
    return Gathered(tuple(studies.values()), tuple(repeated), tuple(left_out))


def run_paths(path: Path) -> list[Path]:
    """Return the run folders and .zip files in a folder, sorted by name.

    A run that is not finished is skipped with a warning. If the path is a run folder or
    is not a folder, the list contains only this path.

    Raises:
      ValueError: The folder has no finished run and no .zip file.
      OSError: The folder cannot be read.
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
            f"{path} contains no run folder and no .zip. Pass results/NAME/ID, "
            "results/NAME or the .zip of a run."
        )
    return entries


def _is_finished(entry: Path) -> bool:
    """Return whether a path is the folder of a finished run.

    Warn if the run is not finished.
    """
    if not (entry / MANIFEST).exists():
        return False
    try:
        running = runs.read_manifest(entry)["status"] == "running"
    except ValueError:
        return True  # `read_study` will raise an error that explains the problem.
    if running:
        warnings.warn(f"{entry} is skipped: the run is not finished.", stacklevel=4)
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
