"""Runs a finished run, or a kept reference, once more, and says whether it came out again."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from research import cli
from research.cli import flags

if TYPE_CHECKING:
    from research import runs

SAME, DIFFERENT = 0, 1


def reproduce_run(
    folder: Path, load: Callable[[str], ModuleType], options: flags.Options
) -> int:
    """Runs what the manifest of a finished run asks for, in another folder, and compares every array and number.

    Where versions, processor, settings and code are the same, every bit must be. Elsewhere table and numbers decide, as
    they do for a reference.

    Args:
      folder: The run folder.
      load: Name of an experiment -> its module.
      options: `results` is where the new run goes; it is run anew there, whatever the folder holds.
    Returns:
      0 if it came out again, 1 if not; the verdict is printed.
    Raises:
      ValueError: The run is not finished or damaged, its config does not fit the experiment any more, or it was run on
        data that are not here and that other data would take the place of.
    """
    from research import runs
    from research.runs.manifest import check_origin

    manifest, before = runs.read_manifest(folder), runs.load_result(folder)
    check_origin(manifest, folder)
    if (
        options.results / manifest["experiment"] / manifest["id"]
    ).resolve() == folder.resolve():
        raise ValueError(
            f"The new run would take the place of {folder}; give another folder for it (--results)."
        )
    experiment = load(manifest["experiment"])
    run, left_out = _again(
        experiment, manifest["config"], str(folder / "manifest.json"), options
    )
    environments = [
        manifest["environment"],
        runs.read_manifest(run.path)["environment"],
    ]
    comparison = runs.compare(before, runs.load_result(run.path), environments)
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
    """Runs what a kept reference asks for, and compares table, numbers and hashes.

    Args:
      file: experiments/reference/<name>.json.
      load, options: As for `reproduce_run`.
    Returns:
      0 if table and numbers are the same to the printed digits or within their intervals, whatever the hashes say, 1 if
      not; the verdict is printed.
    Raises:
      ValueError: The reference cannot be read, its config does not fit the experiment any more, or it was run on data that
        are not here and that other data would take the place of.
    """
    from research import runs

    reference = runs.read_reference(file)
    manifest = reference["manifest"]
    experiment = load(manifest["experiment"])
    run, left_out = _again(experiment, manifest["config"], str(file), options)
    agreement = _held_against(reference, run, experiment, left_out)
    return _tell(runs.agreement_verdict(agreement), agreement.agrees, run.path)


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
    experiment: ModuleType, values: dict[str, Any], where: str, options: flags.Options
) -> "tuple[runs.Run, list[str]]":
    """Runs a config anew, and says what it had to do without; a reproduction that was stopped goes on."""
    config = flags.with_values(experiment.Config(), values, where)
    run, finished_before = cli.carry_out(
        experiment, flags.Command(config, options), exactly=True
    )
    if finished_before:
        again = flags.Options(results=options.results, quiet=options.quiet, fresh=True)
        run, _ = cli.carry_out(experiment, flags.Command(config, again), exactly=True)
    return run, [
        f"{name}={was!r}"
        for name, (was, _) in cli.changed_fields(config, run.config).items()
    ]


def _tell(verdict: str, same: bool, folder: Path) -> int:
    print(verdict)
    print(f"\nnew run: {folder}")
    return SAME if same else DIFFERENT
