"""A job that computes a part of an experiment: what it is told, what it answers, and
how it makes sure of its place."""

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
)  # In the run folder: what the jobs leave, and which command's jobs they are.
VARIABLES = (
    "XLA_FLAGS",
    "NPROC",
    "CUDA_VISIBLE_DEVICES",
    "DESCENT_DATA",
)  # Of a job as of the submitting process.
SECONDS_TO_CLAIM = 10.0


class Task(NamedTuple):
    """What a job is told, in plain data: it may start on another machine, a day later.

    Attributes:
      experiment: The name of its module, and the folder that the name starts from.
      top: That folder.
      config: As JSON values.
      part, parts: The job, and how many there are.
      run: The run folder.
      command: Which command submitted it.
      variables: Of the environment, as the submitting process has them.
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
    """What a job answers.

    Attributes:
      fault: What went wrong, in a line; None where nothing did.
      differences: Between its processor and the submitting process's, in words.
    """

    fault: str | None
    differences: list[str]


def compute_part(task: Task) -> Outcome:
    """What a job does: computes its part of an experiment into the run's checkpoints;
    an error goes to its log, too."""
    try:
        return Outcome(None, _compute_part(task))
    except Exception as problem:
        traceback.print_exc()
        if (
            type(problem).__name__ == "UncompletedJobError"
        ):  # Submitit's way to say so, shortly before the end.
            return Outcome("it ran out of time (--minutes)", [])
        return Outcome(
            problems.explain(problem).removesuffix(
                " (DESCENT_TRACEBACK=1 shows where.)"
            ),
            [],
        )


def _compute_part(task: Task) -> list[str]:
    local = (
        os.environ.get("SUBMITIT_EXECUTOR") == "local"
    )  # A queue hands out its accelerators itself.
    os.environ.update(
        {
            k: v
            for k, v in task.variables.items()
            if local or k != "CUDA_VISIBLE_DEVICES"
        }
    )
    if local and "CUDA_VISIBLE_DEVICES" not in task.variables:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # Submitit hides them.
    from research import backend, runs

    backend.configure(x64=True)
    if task.top not in sys.path:
        sys.path.insert(0, task.top)
    experiment, folder = importlib.import_module(task.experiment), Path(task.run)
    config = flags.with_values(experiment.Config(), task.config, "the job")
    with _claimed(folder, task):
        differences = _differences(experiment, config, folder)
        experiment.share(
            config, task.part, task.parts, runs.checkpoints_in(folder / "checkpoints")
        )
    return differences


def _differences(experiment: types.ModuleType, config: Any, folder: Path) -> list[str]:
    """Between this processor and the one that the run was begun on; anything else that
    differs is refused."""
    from research import runs
    from research.runs._environment import differences

    file = Path(experiment.__file__ or experiment.__name__)
    here = runs.environment(getattr(config, "width", None), [file])
    found = differences(runs.read_manifest(folder)["environment"], here)
    others = [words for words in found if not words.startswith("processor ")]
    if others:
        raise ValueError(
            "The job would not compute what the run was begun with: "
            f"{'; '.join(others)}."
        )
    return found


@contextlib.contextmanager
def _claimed(folder: Path, task: Task) -> Iterator[None]:
    """Holds a lock while the job works, so that no later command begins beside it; a
    later command's claim wins."""
    import filelock

    with filelock.FileLock(
        folder / JOBS / f"{task.part}.lock", timeout=SECONDS_TO_CLAIM
    ):
        if (folder / JOBS / CURRENT).read_text() != task.command:
            raise ValueError(
                "The job was submitted by an earlier command, and a later one has "
                "begun since."
            )
        yield


def refuse_if_busy(folder: Path) -> None:
    """Raises if a job of an earlier command is at work in the run folder."""
    import filelock

    for file in (folder / JOBS).glob("*.lock"):
        try:
            with filelock.FileLock(file, timeout=0):
                pass
        except filelock.Timeout:
            raise OSError(
                f"Jobs of an earlier command are still at work in {folder}. Wait until "
                "they have finished or stop them; or give another folder for results "
                "(--results)."
            ) from None
