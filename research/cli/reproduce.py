"""Repeat a finished run or the run of a stored reference, and compare the results."""

import argparse
import contextlib
import dataclasses
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from research import cli, portable
from research.cli import compare, compare_networks, flags, received
from research.cli.parser import Parser
from research.reading import check_regular, parse_json, read_bytes

if TYPE_CHECKING:
    from research import runs

SAME, DIFFERENT = 0, 1
RESULTS = Path("results", "reproduced")
MOST_BYTES = 2**27  # Largest manifest or reference.
RECEIVED = "received"  # Folder in the results for the studies from .zip files.
STUDIES = {module.NAME: module for module in (compare, compare_networks)}
EXAMPLES = """
examples:
  descent reproduce results/compare/0123456789ab
  descent reproduce theirs.zip
  descent reproduce theirs.zip --rule mine=mine.py:mine

A .zip is redrawn first: its report is made from its numbers, and nothing in it is
executed. A rule that is not part of this package or of optax is trained from a file of
yours (--rule). Read its source in the report first.

If the answer or a table does not follow from the numbers, the results do not agree.

exit status: 0 if the results agree, 1 if not, 2 after bad input"""


def reproduce(words: Sequence[str]) -> int:
    """Make the report of a study again, repeat its trainings, and compare the results.

    The comparison covers every array and number, except times. The report is made again
    only for a study from a .zip file. `reproduce_study` explains the steps.

    Args:
      words: Command-line arguments after `reproduce`.
    Returns:
      0 if the results agree or nothing was trained, and 1 otherwise. It is also 1 if
      the answer or a table of the study does not follow from its numbers. The verdict
      is printed.
    Raises:
      ValueError, OSError: The input is bad. `research.cli.errors_in_one_line` reports
        the error in one line.
      SystemExit: Status 2 if an argument is missing or a value has the wrong type.
    """
    parser = Parser(
        "descent reproduce",
        description=(reproduce.__doc__ or "").partition("\n")[0],
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "study",
        metavar="FOLDER|FILE.zip",
        type=Path,
        help="a finished study: results/compare/ID, or its .zip (from descent pack)",
    )
    parser.add_argument(
        "--rule",
        nargs="+",
        action="extend",
        default=[],
        metavar="RULE=FILE.py:NAME",
        help=(
            "files of the rules that are not part of this package; FILE.py alone if "
            "the names are those of the study"
        ),
    )
    parser.add_argument(
        "--redraw", action="store_true", help="only redraw; do not train"
    )
    add_options(parser)
    given = parser.parse_args(words)
    options = flags.Options(results=given.results, quiet=given.quiet)
    return reproduce_study(given.study, options, given.rule, redraw_only=given.redraw)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags --results and --quiet to the parser of a command."""
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        help="folder for the new run (default: %(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="print only the verdict")


def reproduce_study(
    path: Path,
    options: flags.Options,
    rules: Sequence[str] = (),
    *,
    redraw_only: bool = False,
) -> int:
    """Redraw a study, train it again, and compare the results.

    To redraw a study means to make its report again from its numbers. Only a study from
    a .zip file is redrawn. Nothing that a .zip file contains is executed. A rule that
    is neither from this package nor from optax must come from a file on this machine.
    Without such a file, a .zip file is redrawn but not trained, and a run folder raises
    an error.

    Args:
      path: Run folder of the study, or a .zip file that `descent pack` made from such a
        folder.
      options: Options. The field `results` is the folder for the new run.
      rules: Files of rules: FILE.py, FILE.py:NAME or RULE=FILE.py:NAME.
      redraw_only: If True, the function ends before the training. A run folder is then
        only checked.
    Returns:
      0 if the results agree or nothing was trained, and 1 otherwise. It is also 1 if
      the answer or a table of the study does not follow from its numbers
      (`received.retell`). The verdict is printed.
    Raises:
      ValueError: The path is not a finished study, the digest of a file in `rules`
        differs from the one that the study recorded, or the study in a run folder
        cannot be trained without a file that was not given. If the path is a run of
        another experiment, the message gives the command that reproduces the run in a
        clone of the repository.
      OSError: The path cannot be read.
    """
    pin_libraries_of(path if path.suffix == ".zip" else path / "manifest.json")
    from research.runs import archive

    if not path.exists() and path.suffix != ".zip":
        raise ValueError(
            f"{path} does not exist. Pass a finished study: results/compare/ID or its "
            ".zip. To reproduce the reference of an experiment, use a clone of the "
            f"repository: python -m experiments reproduce {path}."
        )
    manifest = archive.read_contents(path).manifest
    _check_study(path, manifest)
    folder, study = path, _study(manifest["experiment"])
    if redraw_only and path.is_dir():
        print(f"{path} is a finished study. Only a .zip file is redrawn.")
        return SAME
    if path.is_dir():
        retold = received.retell(study, folder)
    else:
        folder = archive.unpack(path, options.results / RECEIVED)
        try:
            retold = received.retell(study, folder)
            report = received.redraw(study, folder, _with_remarks(retold))
        except ValueError as error:  # Its cause has no command of a stranger.
            raise ValueError(
                f"{path} contains no result of a run: {error.__cause__ or error}"
            ) from error
        print(f"report: {report}")
    for remark in retold.remarks:
        print(f"note: {remark}")
    if redraw_only:
        return _tell_of_words(retold)
    try:
        changes = received.with_files(
            manifest["config"], rules, folder, trusted=path.is_dir()
        )
    except received.NotHereError as missing:
        if path.is_dir():
            raise ValueError(f"{path} cannot be trained again: {missing}") from None
        print(f"Not trained again: {missing}")
        return _tell_of_words(retold)
    trained = reproduce_run(folder, _study, options, changes)
    return max(trained, _tell_of_words(retold))


def _with_remarks(retold: received.Retold) -> "runs.Result":
    """Return the result, with the contradictions and remarks added to its answer."""
    said = (*retold.contradictions, *retold.remarks)
    answer = " ".join((retold.result.answer, *said))
    return retold.result._replace(answer=answer)


def _tell_of_words(retold: received.Retold) -> int:
    """Print what does not follow from the numbers of a study, and return a status."""
    if retold.contradictions:
        print(f"Does not agree: {' '.join(retold.contradictions)}")
    return DIFFERENT if retold.contradictions else SAME


def _check_study(path: Path, manifest: Mapping[str, Any]) -> None:
    name = manifest["experiment"]
    if name not in STUDIES:
        raise ValueError(
            f"{path} is a run of the experiment {name}, which needs a clone of the "
            f"repository: python -m experiments reproduce {path}."
        )
    if "protocol" in manifest["config"]:
        raise ValueError(
            f"{path} was made in Python with an older version of this package. Make it "
            f"again with this call: {received.printable(manifest.get('command'))}."
        )


def _study(name: str) -> ModuleType:
    """Return the module of a study, which is also its experiment."""
    return STUDIES[name]


def reproduce_run(
    folder: Path,
    load: Callable[[str], ModuleType],
    options: flags.Options,
    changes: Mapping[str, Any] | None = None,
) -> int:
    """Run the config of a finished run again in another folder, and compare results.

    If versions, processor, settings and code are the same in both runs, every array and
    number must be bit-identical, except times. If the versions, the processor, the
    settings or the code differ, or if the new run left out data sets that are missing
    on this machine, only the first table of the result and the numbers of the result
    must agree. `reproduce_reference` explains when two of their values agree.

    Args:
      folder: Run folder.
      load: Function (name of an experiment) -> module of the experiment.
      options: Options. The field `results` is the folder for the new run. An earlier
        call may have left its run there. If that run was interrupted, it continues from
        its checkpoints. If that run is finished, it starts again from the beginning.
      changes: New values of fields of the config, such as other paths of the same
        files.
    Returns:
      0 if the results agree, and 1 otherwise. The verdict is printed.
    Raises:
      ValueError: The run is unfinished or damaged, the experiment does not accept the
        config any more, or the new run would overwrite the run folder. Or a data set of
        the run is missing here, and the experiment would not leave it out, but replace
        it by another data set.
    """
    from research import runs
    from research.runs.manifest import check_origin

    manifest, before = runs.read_manifest(folder), runs.load_result(folder)
    check_origin(manifest, folder)
    if (
        options.results / manifest["experiment"] / manifest["id"]
    ).resolve() == folder.resolve():
        raise ValueError(
            f"The new run would overwrite {folder}. Choose another folder (--results)."
        )
    experiment = load(manifest["experiment"])
    run, left_out = _again(
        experiment,
        manifest["config"] | dict(changes or {}),
        str(folder / "manifest.json"),
        options,
        _is_portable(manifest),
    )
    environments = [
        manifest["environment"],
        runs.read_manifest(run.path)["environment"],
    ]
    comparison = runs.compare(
        received.without_origin(before),
        received.without_origin(runs.load_result(run.path)),
        environments,
    )
    if not left_out and (comparison.same or not comparison.causes):
        return _tell(runs.verdict(comparison), comparison.same, run.path)
    agreement = _held_against(runs.reference_of(folder), run, experiment, left_out)
    return _tell(
        f"{runs.agreement_verdict(agreement)}\n{runs.verdict(comparison)}",
        agreement.agrees,
        run.path,
    )


def reproduce_reference(
    file: Path, load: Callable[[str], ModuleType], options: flags.Options
) -> int:
    """Run the config of a stored reference again, and compare the results with it.

    Args:
      file: Path of the reference (the main results of an earlier run),
        experiments/reference/<name>.json.
      load: Function (name of an experiment) -> module of the experiment.
      options: Options. The field `results` is the folder for the new run.
    Returns:
      0 if the results agree, and 1 otherwise. The entries of the table and the numbers
      are compared, except times. Two values agree if their difference is as small as a
      rounding error, or, for estimates with confidence intervals, if the intervals
      overlap (`research.runs.hold_against`). The dict VARIES of the experiment lists
      values that are not reproducible. For such a value, VARIES has two limits or None.
      With limits, an old and a new value that differ still agree if both lie between
      the limits. With None, a difference is printed but not judged. VARIES has no
      effect on a value that has a confidence interval in both runs. The reference also
      has hashes of the arrays. The printed verdict counts the hashes that differ, but
      these hashes do not affect whether the results agree.
    Raises:
      ValueError: The reference cannot be read, the experiment does not accept the
        config any more, or the data are missing here and would have to be replaced by
        other data.
    """
    from research import runs

    reference = runs.read_reference(file)
    manifest = reference["manifest"]
    experiment = load(manifest["experiment"])
    run, left_out = _again(
        experiment, manifest["config"], str(file), options, _is_portable(manifest)
    )
    agreement = _held_against(reference, run, experiment, left_out)
    return _tell(runs.agreement_verdict(agreement), agreement.agrees, run.path)


def _is_portable(manifest: Mapping[str, Any]) -> bool:
    return manifest["environment"].get("portable") is not None


def pin_libraries_of(file: Path) -> None:
    """Call `portable.pin_libraries` if a file describes a portable run.

    The bits of a portable run are the same on every x86-64 processor with AVX2 and FMA.
    For this, NumPy and SciPy need environment variables, which `pin_libraries` sets.
    Call this function before NumPy is imported. `file` is the path of the manifest or
    the .zip file of a run, or the path of a stored reference. Errors in the file are
    ignored here. The code that reads the file later reports these errors.
    """
    found: Any = None
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):
        found = parse_json(_manifest_bytes(file))
    for name in ("manifest", "environment", "portable"):
        inside = found.get(name) if isinstance(found, dict) else None
        found = found if name == "manifest" and inside is None else inside
    if found is not None:
        portable.pin_libraries()


def _manifest_bytes(file: Path) -> bytes:
    """Read a manifest or a reference, or the manifest of a packed run."""
    if file.suffix != ".zip":
        return read_bytes(file, MOST_BYTES)
    check_regular(file)  # A pipe would be waited for.
    with zipfile.ZipFile(file) as packed, packed.open("manifest.json") as opened:
        return opened.read(MOST_BYTES)


def _held_against(
    reference: Mapping[str, Any],
    run: "runs.Run",
    experiment: ModuleType,
    left_out: list[str],
) -> "runs.Agreement":
    from research import runs

    return runs.hold_against(
        reference, run.path, varies=getattr(experiment, "VARIES", {}), left_out=left_out
    )


def _again(
    experiment: ModuleType,
    values: dict[str, Any],
    where: str,
    options: flags.Options,
    is_portable: bool,
) -> "tuple[runs.Run, list[str]]":
    """Run a config again, and return the run with a list of the missing data.

    An interrupted reproduction continues from its checkpoints.
    """
    config = flags.with_values(experiment.Config(), values, where)
    options = dataclasses.replace(options, portable=is_portable)
    run, finished_before = cli.carry_out(
        experiment, flags.Command(config, options), exactly=True
    )
    if finished_before:
        again = dataclasses.replace(options, fresh=True)
        run, _ = cli.carry_out(experiment, flags.Command(config, again), exactly=True)
    return run, [
        f"{name}={was!r}"
        for name, (was, _) in cli.changed_fields(config, run.config).items()
    ]


def _tell(verdict: str, same: bool, folder: Path) -> int:
    print(verdict)
    print(f"\nnew run: {folder}")
    return SAME if same else DIFFERENT
