"""Runs a finished run, or a kept reference, once more, and says whether it came out again."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from research import cli
from research.cli import flags

if TYPE_CHECKING:
    from research import runs

SAME, DIFFERENT = 0, 1


def reproduce_run(folder: Path, load: Callable[[str], ModuleType], options: flags.Options) -> int:
    """Runs what the manifest of a finished run asks for, in another folder, and compares every array and number.

    Args:
      folder: The run folder.
      load: Name of an experiment -> its module.
      options: `results` is where the new run goes; it is run anew there, whatever the folder holds.
    Returns:
      0 if it is bit-identical, 1 if not; the verdict is printed.
    Raises:
      ValueError: The run is not finished or damaged, or its config does not fit the experiment any more.
    """
    from research import runs
    from research.runs.manifest import check_origin

    manifest, before = runs.read_manifest(folder), runs.load_result(folder)
    check_origin(manifest, folder)
    if (options.results / manifest["experiment"] / manifest["id"]).resolve() == folder.resolve():
        raise ValueError(f"The new run would take the place of {folder}; give another folder for it (--results).")
    run = _again(load(manifest["experiment"]), manifest["config"], str(folder / "manifest.json"), options)
    environments = [manifest["environment"], runs.read_manifest(run.path)["environment"]]
    comparison = runs.compare(before, runs.load_result(run.path), environments)
    return _tell(runs.verdict(comparison), comparison.same, run.path)


def reproduce_reference(file: Path, load: Callable[[str], ModuleType], options: flags.Options) -> int:
    """Runs what a kept reference asks for, and compares table, numbers and hashes.

    Args:
      file: experiments/reference/<name>.json.
      load, options: As for `reproduce_run`.
    Returns:
      0 if table and numbers are the same, whatever the hashes say, 1 if not; the verdict is printed.
    Raises:
      ValueError: The reference cannot be read, or its config does not fit the experiment any more.
    """
    from research import runs

    reference = runs.read_reference(file)
    manifest = reference["manifest"]
    run = _again(load(manifest["experiment"]), manifest["config"], str(file), options)
    agreement = runs.hold_against(reference, run.path)
    return _tell(runs.agreement_verdict(agreement), not agreement.other_values, run.path)


def _again(experiment: ModuleType, values: dict[str, Any], where: str, options: flags.Options) -> "runs.Run":
    """Runs a config anew; a reproduction that was stopped goes on."""
    config = flags.with_values(experiment.Config(), values, where)
    run, finished_before = cli.carry_out(experiment, flags.Command(config, options), exactly=True)
    if finished_before:
        again = flags.Options(results=options.results, quiet=options.quiet, fresh=True)
        run, _ = cli.carry_out(experiment, flags.Command(config, again), exactly=True)
    return run


def _tell(verdict: str, same: bool, folder: Path) -> int:
    print(verdict)
    print(f"\nnew run: {folder}")
    return SAME if same else DIFFERENT
