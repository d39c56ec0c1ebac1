"""A job that computes one part of an experiment, possibly on another machine."""

import contextlib
import importlib
import os
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from research.cli import errors as problems
from research.cli import flags

JOBS, CURRENT = (
    "jobs",
    "current",
)  # In the run folder: the folder of the jobs, and the file with the current command.
VARIABLES = (
    "XLA_FLAGS",
    "NPROC",
    "CUDA_VISIBLE_DEVICES",
    "DESCENT_DATA",
)  # Copied from the submitting process to each job.
SECONDS_TO_CLAIM = 10.0


def configure(config: Any, *, portable: bool = False) -> None:
    """Configure JAX for an experiment, in float64 and with as many devices as it needs.

    Args:
      config: Config of the experiment. If it has a field `devices`, this is the number
        of devices; otherwise there is one.
      portable: As for `research.backend.configure`.
    """
    from research import backend

    devices = getattr(config, "devices", 1)
    backend.configure(
        devices=devices, pool=max(2, devices), x64=True, portable=portable
    )


class Task(NamedTuple):
    """Description of what a job computes, made of strings, numbers, dicts and lists.

    A job computes one part of an experiment. Because the description has only these
    types, it can be sent to another machine. The job may start there much later.

    Attributes:
      experiment: Dotted name of the experiment's module, such as experiments.compare.
        Python imports the module from the folder `top`.
      top: Folder that contains the module's top package.
      config: Config as JSON values.
      part, parts: Index of this job, from 0 to parts - 1, and number of all jobs.
      run: Run folder.
      command: Identifier of the command that submitted the job.
      variables: Environment variables of the submitting process that the job needs.
    """

    experiment: str
    top: str
    config: dict[str, Any]
    part: int
    parts: int
    run: str
    command: str
    variables: dict[str, str]


class Outcome(NamedTuple):
    """Outcome of a job, which computes one part of an experiment.

    A run of the experiment is divided into jobs, which may run on other machines.

    Attributes:
      fault: Error message in one line. None means success.
      differences: Descriptions of the differences between the processor of the job and
        the processor on which the run was started. Empty after an error.
    """

    fault: str | None
    differences: list[str]


def compute_part(task: Task) -> Outcome:
    """Compute one job's part of an experiment, and save it in the run's checkpoints.

    A job is a process, possibly on another machine. Several jobs compute the parts of
    one experiment. An error is returned in the outcome, not raised, and its traceback
    is written to the job's log.
    """
    try:
        return Outcome(None, _compute_part(task))
    except Exception as problem:
        traceback.print_exc()
        if (
            type(problem).__name__ == "UncompletedJobError"
        ):  # submitit raises this shortly before the time limit.
            return Outcome("it reached its time limit (--minutes)", [])
        return Outcome(
            problems.explain(problem).removesuffix(
                " (Set DESCENT_TRACEBACK=1 to see the traceback.)"
            ),
            [],
        )


def _compute_part(task: Task) -> list[str]:
    local = (
        os.environ.get("SUBMITIT_EXECUTOR") == "local"
    )  # A queue assigns its accelerators itself.
    os.environ.update(
        {
            k: v
            for k, v in task.variables.items()
            if local or k != "CUDA_VISIBLE_DEVICES"
        }
    )
    if local and "CUDA_VISIBLE_DEVICES" not in task.variables:
        os.environ.pop(
            "CUDA_VISIBLE_DEVICES", None
        )  # submitit sets this variable and so hides the devices.
    from research import backend, runs

    if task.top not in sys.path:
        sys.path.insert(0, task.top)
    experiment, folder = importlib.import_module(task.experiment), Path(task.run)
    config = flags.with_values(experiment.Config(), task.config, "the job")
    configure(config)
    backend.keep_programs()
    with _claimed(folder, task):
        differences = _differences(experiment, config, folder)
        experiment.share(
            config, task.part, task.parts, runs.checkpoints_in(folder / "checkpoints")
        )
    return differences


def _differences(experiment: types.ModuleType, config: Any, folder: Path) -> list[str]:
    """Return the differences between this processor and the one that started the run.

    Any other difference between the two environments raises an error.
    """
    from research import runs
    from research.runs._environment import differences

    file = Path(experiment.__file__ or experiment.__name__)
    here = runs.environment(getattr(config, "width", None), [file])
    found = differences(runs.read_manifest(folder)["environment"], here)
    others = [words for words in found if not words.startswith("processor ")]
    if others:
        raise ValueError(
            "The job would not compute the same bits as the command that started the "
            f"run: {'; '.join(others)}."
        )
    return found


@contextlib.contextmanager
def _claimed(folder: Path, task: Task) -> Iterator[None]:
    """Hold a lock while the job works, so that no later command can start.

    If a later command has already taken over the run, the job raises an error.
    """
    import filelock

    with filelock.FileLock(
        folder / JOBS / f"{task.part}.lock", timeout=SECONDS_TO_CLAIM
    ):
        if (folder / JOBS / CURRENT).read_text() != task.command:
            raise ValueError(
                f"The job {task.part} stops: another command has begun the run in "
                f"{folder} since. Nothing is to be done; that command computes it."
            )
        yield


def refuse_if_busy(folder: Path) -> None:
    """Raise OSError if a job of an earlier command still works in the run folder.

    A job is a process that computes one part of an experiment.
    """
    import filelock

    for file in (folder / JOBS).glob("*.lock"):
        try:
            with filelock.FileLock(file, timeout=0):
                pass
        except filelock.Timeout:
            raise OSError(
                f"Jobs of an earlier command are still running in {folder}. Wait for "
                "them, stop them, or choose another folder (--results)."
            ) from None
