"""Share the work of an experiment among jobs, on this machine or through Slurm.

Example: python -m experiments spread compare --jobs 4.
"""

import argparse
import contextlib
import importlib
import os
import shutil
import sys
import time
import types
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from research import cli
from research.cli import flags
from research.cli.job import (
    CURRENT,
    JOBS,
    VARIABLES,
    Outcome,
    Task,
    compute_part,
    refuse_if_busy,
)
from research.naming import nearest

CLUSTERS = ("local", "debug", "slurm")
SECONDS_BETWEEN_LOOKS, SECONDS_BETWEEN_NEWS = 0.2, 10.0
SECONDS_TO_STOP = 10.0
MINUTES = 24 * 60

DESCRIPTION = """Run an experiment as several jobs, wait for them, and make the report
from their results. The experiment must have a function `share`. Flags of the experiment
itself are accepted too."""
EXAMPLES = """
examples:
  python -m experiments spread compare --rule heavy_ball adam --jobs 4
  python -m experiments spread compare --full --jobs 6 --cluster slurm --minutes 90 \\
    --memory 4 --slurm partition=short

If a job is killed, its finished work is kept. Rerun the same command to resume, with
any number of jobs."""


def spread(words: Sequence[str], load: Callable[[str], types.ModuleType]) -> int:
    """Run an experiment from a command line, and share the work among several jobs.

    Args:
      words: Command-line arguments after `spread`: the name of the experiment, the
        flags of the experiment, and the flags of the jobs.
      load: Function (name of an experiment) -> module of the experiment.
    Returns:
      Exit status 0. If the run fails, an exception is raised.
    Raises:
      ValueError, TypeError, OSError, ImportError: The input is bad, a job failed, or
        submitit is not installed. If a job failed, the message gives the error of the
        job and the path of its log. `research.cli.errors_in_one_line` reports the error
        in one line.
    """
    asked, own = _parser().parse_known_args(words)
    if asked.jobs < 1:
        raise ValueError(f"--jobs must be at least 1; got {asked.jobs}.")
    if asked.minutes < 1:
        raise ValueError(f"--minutes must be at least 1; got {asked.minutes}.")
    if asked.cluster not in CLUSTERS:
        raise ValueError(
            f"Unknown cluster {asked.cluster!r}. {nearest(asked.cluster, CLUSTERS)}"
        )
    parameters = _parameters(asked)
    experiment = load(asked.experiment)
    if not hasattr(experiment, "share"):
        name = experiment.__name__.rpartition(".")[2]
        raise ValueError(
            f"{name} cannot be split into jobs, because it has no function "
            "share(config, part, parts, checkpoints). Run it without spread: python "
            f"-m experiments {name}"
        )
    executor = _executor(asked.cluster)
    command = flags.parse(experiment, own)
    if command.options.portable:
        raise ValueError(
            "spread cannot make portable runs yet. Leave out --portable, or run the "
            "experiment in one process: python -m experiments NAME --portable."
        )
    if hasattr(experiment, "complete"):
        command = command._replace(config=experiment.complete(command.config))
    folder = _folder(experiment, command)
    refuse_if_busy(folder)
    shared = types.ModuleType(experiment.__name__, experiment.__doc__)
    vars(shared).update(vars(experiment))

    def run(config: Any, on_progress: Callable, checkpoints: Any) -> Any:
        """Run the jobs, then the experiment, which loads the results of the jobs.

        The results are in the checkpoints.
        """
        _compute(
            experiment, config, folder, asked.jobs, executor, parameters, on_progress
        )
        return experiment.run(config, on_progress, checkpoints)

    vars(shared)["run"] = run
    cli.perform(shared, command)
    return cli.SUCCESS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m experiments spread",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "experiment",
        help="name of the experiment; for its flags: python -m experiments NAME --help",
    )
    add("--jobs", type=int, default=2, help="number of jobs (default: %(default)s)")
    add(
        "--cluster",
        default="local",
        help=(
            "local: processes on this machine; debug: in this process; slurm "
            "(default: %(default)s)"
        ),
    )
    add(
        "--minutes",
        type=int,
        default=MINUTES,
        help="time limit of each job in minutes (default: %(default)s, a day)",
    )
    add(
        "--memory",
        type=float,
        metavar="GB",
        help=(
            "memory of each job in GB, if the cluster limits it (default: the "
            "cluster's)"
        ),
    )
    add(
        "--slurm",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="further options of sbatch, such as partition=short",
    )
    return parser


def _parameters(asked: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters of the jobs under submitit's names."""
    found: dict[str, Any] = {
        "timeout_min": asked.minutes,
        "mem_gb": asked.memory,
        "name": asked.experiment,
    }
    for word in asked.slurm:
        name, equals, value = word.partition("=")
        if not (equals and name and value):
            raise ValueError(
                f"--slurm must be NAME=VALUE, such as partition=short; got {word!r}."
            )
        found[f"slurm_{name}"] = int(value) if value.isdecimal() else value
    return found


def _executor(cluster: str) -> Callable[[Path], Any]:
    """Return a function folder -> executor of submitit, which is imported here."""
    try:
        with _environment(
            SUBMITIT_LOG_LEVEL="NOCONFIG"
        ):  # Otherwise its import closes the log streams of other packages.
            submitit = importlib.import_module("submitit")
    except ModuleNotFoundError as problem:
        raise ImportError(
            "spread needs the package submitit, which is not installed: pip install "
            "submitit"
        ) from problem
    if cluster == "slurm" and shutil.which("srun") is None:
        raise ValueError(
            "--cluster slurm needs srun, which is not installed on this machine. Run "
            "the command on a login node of the cluster, or use --cluster local."
        )
    return lambda folder: submitit.AutoExecutor(folder, cluster=cluster)


def _folder(experiment: types.ModuleType, command: flags.Command) -> Path:
    from research import runs

    name = Path(experiment.__file__ or experiment.__name__).stem
    return (
        Path(command.options.results).absolute()
        / name
        / runs.run_id(name, command.config)
    )


def _compute(
    experiment: types.ModuleType,
    config: Any,
    folder: Path,
    parts: int,
    executor: Callable[[Path], Any],
    parameters: Mapping[str, Any],
    on_progress: Callable[[float, float, str], None],
) -> None:
    """Submit the jobs and wait until all have ended; raise if one failed."""
    from research.files import json_bytes, read_json, write_atomically

    command, depth = uuid.uuid4().hex[:12], experiment.__name__.count(".")
    own = folder / JOBS / command
    own.mkdir(parents=True)
    write_atomically(
        folder / JOBS / CURRENT, command.encode()
    )  # From here on, jobs of earlier commands refuse to start.
    refuse_if_busy(folder)
    top = Path(experiment.__file__ or "").absolute().parents[depth]
    plain = read_json(json_bytes(config, "config"))
    variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    tasks = [
        Task(
            experiment.__name__,
            str(top),
            plain,
            part,
            parts,
            str(folder),
            command,
            variables,
        )
        for part in range(parts)
    ]
    jobs = _submitted(executor(own), parameters, tasks)
    try:
        _wait(jobs, on_progress)
    except BaseException:
        _stop(jobs)
        raise
    _check([_outcome(job) for job in jobs], [Path(job.paths.stderr) for job in jobs])
    for left_over in [
        *own.glob("*.pkl"),
        *own.glob("*.sh"),
        *(folder / JOBS).glob("*.lock"),
    ]:
        left_over.unlink(missing_ok=True)  # The logs are kept.


def _submitted(
    executor: Any, parameters: Mapping[str, Any], tasks: Sequence[Task]
) -> list[Any]:
    ours = [
        str(Path(__file__).parents[2]),
        *filter(None, [os.environ.get("PYTHONPATH")]),
    ]  # Lets the jobs import this package.
    try:
        threads = int(
            os.environ["NPROC"]
        )  # Size of XLA's thread pool, which `backend.configure` has fixed.
        executor.update_parameters(cpus_per_task=threads, **parameters)
        with (
            _environment(PYTHONPATH=os.pathsep.join(ours)),
            _errors_to(Path(executor.folder, "jobs.err")),
            executor.batch(),
        ):
            return [executor.submit(compute_part, task) for task in tasks]
    except NameError as problem:  # submitit raises this for an unknown parameter.
        raise ValueError(f"--slurm: {str(problem).partition(chr(10))[0]}") from problem


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables within the context, and restore them afterwards."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def _errors_to(file: Path) -> Iterator[None]:
    """Redirect stderr of processes started within the context to a file.

    Otherwise submitit's watcher processes of local jobs would print their errors after
    Ctrl-C.
    """
    before = os.dup(2)
    with open(file, "ab") as opened:
        os.dup2(opened.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _wait(
    jobs: Sequence[Any], on_progress: Callable[[float, float, str], None]
) -> None:
    waiting, last_news = list(jobs), None
    while waiting:
        waiting = [job for job in waiting if not _has_ended(job)]
        done, now = len(jobs) - len(waiting), time.monotonic()
        if (
            last_news is None
            or last_news[0] != done
            or now - last_news[1] > SECONDS_BETWEEN_NEWS
        ):
            last_news = done, now
            on_progress(done, len(jobs), f"{done} of {len(jobs)} jobs done")
        if waiting:
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _has_ended(job: Any) -> bool:
    if hasattr(
        job, "cancelled"
    ):  # Only in the debug executor; the job runs here. `done` would open a debugger.
        job.exception()
        return True
    return job.done()


def _outcome(job: Any) -> Outcome:
    """Return the outcome of an ended job, or an outcome that says it was killed."""
    killed = Outcome(
        "it was stopped from outside: killed, out of memory, or out of time", []
    )
    process = getattr(job, "_process", None)
    if process is not None and not job.paths.result_pickle.exists():
        # The file of a local job will not appear. On a queue's file system, submitit
        # waits some time for it.
        return killed
    try:
        return job.result()
    except Exception:
        return killed._replace(fault=f"{killed.fault} (its state: {job.state})")


def _check(outcomes: Sequence[Outcome], logs: Sequence[Path]) -> None:
    """Raise if a job failed, and warn if a job ran on a different processor."""
    failed = [
        f"job {i + 1} of {len(outcomes)}: {outcome.fault} (log: {_shown(log)})"
        for i, (outcome, log) in enumerate(zip(outcomes, logs, strict=True))
        if outcome.fault is not None
    ]
    if failed:
        raise ChildProcessError(
            f"{'; '.join(failed)}. The finished work is kept; rerun the same command "
            "to resume."
        )
    for words in dict.fromkeys(
        words for outcome in outcomes for words in outcome.differences
    ):
        print(
            f"warning: a job had another {words}, so its bits may differ from a run on "
            "this machine.",
            file=sys.stderr,
        )


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _stop(jobs: Sequence[Any]) -> None:
    """Cancel the jobs that have not ended, and wait briefly while they save work."""
    local = [
        process
        for job in jobs
        if (process := getattr(job, "_process", None)) is not None
    ]
    for job in jobs:
        with contextlib.suppress(Exception):
            job.cancel(check=False)
    end = time.monotonic() + SECONDS_TO_STOP
    while any(process.poll() is None for process in local) and time.monotonic() < end:
        time.sleep(SECONDS_BETWEEN_LOOKS)
