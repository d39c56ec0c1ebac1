"""The folder of one run: opened under the hash of its config, held by one process,
finished with a result."""

import contextlib
import dataclasses
import hashlib
import math
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from research.checks import (
    check_count,
    check_flag,
    check_instance,
    check_path,
    check_sequence,
    check_text,
)
from research.reading import Is, check_shape, parse_json
from research.runs._environment import differences, environment
from research.runs.command import command_line
from research.runs.files import canonical, explained, json_bytes, kept, write_atomically
from research.runs.manifest import (
    ARRAYS,
    MANIFEST,
    NAME,
    RESULT,
    read_file,
    read_manifest,
)
from research.runs.result import Result, check_result, read_result, result_bytes

METRICS, LOCK = "metrics.jsonl", ".lock"
CHECKPOINTS = "checkpoints"


class Run(NamedTuple):
    """An open run folder.

    Attributes:
      path: results/<experiment>/<id>.
      id: As `run_id` gives it.
      experiment: Name of the experiment.
      config: Its config, as given.
      finished: Whether the folder holds a whole result, to be had from
        `load_result(path)`.
      resumed: Whether an earlier process left checkpoints from which this run goes on.
      seconds: What earlier processes spent on it.
      lock: Held while the run is open, so that no second process works in the folder;
        released by `finish`.
    """

    path: Path
    id: str
    experiment: str
    config: Any
    finished: bool
    resumed: bool = False
    seconds: float = 0.0
    lock: filelock.BaseFileLock | None = None

    @property
    def checkpoints(self) -> Path:
        """Where the run keeps what it has so far."""
        return self.path / CHECKPOINTS


def run_id(experiment: str, config: Any) -> str:
    """Names a run by what it computes: the first 12 hexadecimal digits of the SHA-256
    of experiment and config.

    Neither the time nor a path enters, nor the order of fields; 1, 1.0 and True are
    three values.

    Args:
      experiment: Name of the experiment; it names a folder: letters, digits, `_` and
        `-`.
      config: Dataclass or mapping of numbers, strings, None, booleans, and tuples,
        lists and mappings of them.
    Raises:
      ValueError: The experiment's name cannot name a folder.
      TypeError: The config holds something else; the message names the field.
    Example:
      >>> run_id("trajectory", {"seed": 0, "rate": 0.1}) == run_id("trajectory", {"rate": 0.1, "seed": 0})
      True
    """
    check_experiment(experiment)
    if not isinstance(config, Mapping) and (
        not dataclasses.is_dataclass(config) or isinstance(config, type)
    ):
        raise TypeError(
            f"config must be an instance of a dataclass, or a mapping; got {config!r}."
        )
    return _identity(experiment, config)


def check_experiment(experiment: Any) -> None:
    """Raise unless it can name a folder."""
    check_text("experiment", experiment)
    if not re.fullmatch(NAME, experiment):
        raise ValueError(
            "experiment names a folder, so it is letters, digits, _ and -; got "
            f"{experiment!r}."
        )


def open_run(
    experiment: str,
    config: Any,
    results: str | Path = "results",
    fresh: bool = False,
    width: int | None = None,
    code: Sequence[str | Path] = (),
    command: str | None = None,
) -> Run:
    """Opens the run folder of a config, making it if need be.

    A folder with a whole result is left as it is, and said to be finished. One with
    checkpoints is gone on with if they were made by the same code, versions, processor
    and settings, on which the bits depend; else they go, aloud. In any other the run
    begins anew; an earlier result stays until `finish` replaces it. This starts JAX's
    backend, whose devices the manifest names: call `backend.configure` first.

    Args:
      experiment, config: As for `run_id`; the folder is results/<experiment>/<run id>.
      results: The folder of all results.
      fresh: Whether to begin anew, whatever the folder holds.
      width: Lanes that advance together, as in `environment`.
      code: The experiment's own files, as in `environment`.
      command: What makes the run again; None: the experiment's command line with that
        config.
    Raises:
      ValueError: The folder holds another run.
      OSError: The folder cannot be made or written, or another process is at work in
        it; the message says why.
    Example:
      >>> import tempfile
      >>> results = tempfile.mkdtemp()
      >>> run = open_run("trajectory", {"seed": 0}, results)
      >>> run = finish(run, Result("It descends.", (), {}, {"final_loss": 0.25}), seconds=1.5)
      >>> open_run("trajectory", {"seed": 0}, results).finished, load_result(run.path).numbers
      (True, {'final_loss': 0.25})
    """
    check_path("results", results)
    check_flag("fresh", fresh)
    if width is not None:
        check_count("width", width)
    check_sequence("code", code, "paths", (str, Path))
    if command is not None:
        check_text("command", command)
    identity = run_id(experiment, config)
    run = Run(
        Path(results) / experiment / identity,
        identity,
        experiment,
        config,
        finished=False,
    )
    with explained(
        f"Cannot make the run folder {run.path}",
        lambda: "Give another folder for results (--results).",
    ):
        run.path.mkdir(parents=True, exist_ok=True)
        if not fresh and _holds_result(run):
            return run._replace(finished=True)
    run = run._replace(lock=_lock(run.path))
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(close, run)
        if not fresh and _holds_result(run):  # Another process has just finished it.
            return run._replace(finished=True, lock=None)
        manifest = {
            "experiment": experiment,
            "id": identity,
            "status": "running",
            "config": config,
            "command": command or command_line(experiment, config),
            "environment": environment(width, code),
        }
        with explained(f"Cannot begin in {run.path}", lambda: kept(run.path)):
            if not fresh and _goes_on(run, manifest):
                run = run._replace(
                    resumed=True, seconds=_mend_metrics(run.path / METRICS)
                )
            else:
                (run.path / METRICS).unlink(missing_ok=True)
                if run.checkpoints.exists():
                    shutil.rmtree(
                        run.checkpoints
                    )  # What cannot be deleted must not be gone on with.
            for left_over in run.path.rglob(".*.partial"):
                left_over.unlink(missing_ok=True)
        write_atomically(run.path / MANIFEST, json_bytes(manifest))
        on_failure.pop_all()
    return run


def append_metrics(run: Run, **values: Any) -> None:
    """Adds a line of JSON to metrics.jsonl, where it can be read at once.

    Args:
      run, values: An open run, and JSON values by name (NaN and infinities too).
    Raises:
      OSError: The line cannot be written; the message says why.
    """
    check_instance(
        "run", run, Run, "Open one by research.runs.open_run(experiment, config)."
    )
    check_path("run.path", run.path)
    line = json_bytes(values, "metrics", indent=None)
    path = run.path / METRICS
    with (
        explained(f"Cannot add to {path}", lambda: kept(run.path)),
        open(path, "ab") as file,
    ):
        file.write(line)


def finish(run: Run, result: Result, **facts: Any) -> Run:
    """Saves the result of a run: arrays.npz, result.json, then the manifest with their
    digests and status "finished".

    Whatever stops it on the way, the folder then counts as unfinished and every file in
    it is whole. Checkpoints go last, and the folder's lock is released.

    Args:
      run: An open run.
      result: What it found.
      facts: JSON values for the manifest, such as the seconds taken.
    Returns:
      The run, finished.
    Raises:
      OSError: A file cannot be written; the message says why, and what is still there.
    """
    check_instance(
        "run", run, Run, "Open one by research.runs.open_run(experiment, config)."
    )
    check_path("run.path", run.path)
    check_result("result", result)
    manifest = read_manifest(run.path)
    text, arrays = result_bytes(result)
    files = {ARRAYS: arrays, RESULT: text}
    manifest |= {
        "status": "finished",
        "facts": facts,
        "digests": {name: _sha256(files[name]) for name in files},
    }
    files[MANIFEST] = json_bytes(manifest)
    for name, data in files.items():
        write_atomically(run.path / name, data)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    close(run)
    return run._replace(finished=True, lock=None)


def close(run: Run) -> None:
    """Lets go of the run folder, finished or not, so that another process may go on in
    it."""
    check_instance(
        "run", run, Run, "Open one by research.runs.open_run(experiment, config)."
    )
    if run.lock is not None:
        run.lock.release()


def load_result(path: str | Path) -> Result:
    """Loads what a finished run found, exactly as it was saved.

    Args:
      path: The run folder.
    Raises:
      ValueError: The run is not finished, or a file is damaged or missing, or is not
        what `finish` writes.
    """
    check_path("path", path)
    path = Path(path)
    manifest = read_manifest(path)
    fault = _fault(path, manifest)
    if fault:
        raise ValueError(
            f"{path} holds no whole result: {fault}. Run it again: "
            f"{manifest.get('command')}"
        )
    try:
        return read_result(read_file(path, RESULT), read_file(path, ARRAYS))
    except ValueError as error:
        raise ValueError(
            f"{path} holds no result of a run: {error} Run it again: "
            f"{manifest.get('command')}"
        ) from error


def _holds_result(run: Run) -> bool:
    if not (run.path / MANIFEST).exists():
        return False
    try:
        manifest = read_manifest(run.path)
    except ValueError as error:
        warnings.warn(f"{error} The run begins anew.", stacklevel=3)
        return False
    if _identity(manifest["experiment"], manifest["config"]) != run.id:
        raise ValueError(
            f"{run.path} holds another run: {canonical(manifest['config'])} of "
            f"{manifest['experiment']}, not {canonical(run.config)} of "
            f"{run.experiment}. Give another folder (--results), or --fresh to "
            "overwrite it."
        )
    fault = _fault(run.path, manifest)
    if fault and manifest["status"] == "finished":
        warnings.warn(f"{run.path}: {fault}, so the run begins anew.", stacklevel=3)
    return fault is None


def _lock(path: Path) -> filelock.BaseFileLock:
    lock = filelock.FileLock(path / LOCK)
    advice = lambda: "Give another folder for results (--results)."
    with (
        explained(f"Cannot lock {path}", advice),
        contextlib.suppress(filelock.Timeout),
    ):
        lock.acquire(blocking=False)
    if not lock.is_locked:
        raise OSError(
            f"Another process is at work in {path}. Wait until it has finished or stop "
            "it; or give another folder for results (--results)."
        )
    return lock


def _goes_on(run: Run, manifest: dict[str, Any]) -> bool:
    """Whether the checkpoints in the folder were made under what this manifest says."""
    if not run.checkpoints.exists():
        return False
    try:
        earlier = read_manifest(run.path)
    except ValueError:
        # Unreadable was said aloud already; without one, nothing says what made the
        # checkpoints.
        return False
    changed = differences(earlier["environment"], manifest["environment"])
    if changed:
        warnings.warn(
            f"{run.path} keeps checkpoints that would not lead to the same bits, so "
            f"the run begins anew: {'; '.join(changed)}.",
            stacklevel=3,
        )
    return not changed


def _mend_metrics(path: Path) -> float:
    """Cuts off a last line that a kill left unfinished; the seconds of the line before
    it."""
    lines = (
        read_file(path.parent, METRICS).splitlines(keepends=True)
        if path.exists()
        else []
    )
    whole = [line for line in lines if line.endswith(b"\n")]
    if len(whole) < len(lines):
        write_atomically(path, b"".join(whole))
    try:
        last = parse_json(whole[-1]) if whole else {"seconds": 0.0}
        check_shape(
            last,
            {
                "seconds": Is(
                    (int, float), lambda seconds: 0 <= seconds < math.inf, "seconds"
                )
            },
            "the line",
        )
        return float(last["seconds"])
    except ValueError:
        return 0.0


def _fault(path: Path, manifest: dict[str, Any]) -> str | None:
    if manifest["status"] != "finished":
        return f"its status is {manifest['status']!r}"
    for name in (RESULT, ARRAYS):
        if not (path / name).exists():
            return f"{name} is missing"
        if _sha256(read_file(path, name)) != manifest.get("digests", {}).get(name):
            return f"{name} is damaged (its digest is not the manifest's)"
    return None


def _identity(experiment: str, config: Any) -> str:
    return _sha256(
        canonical({"experiment": experiment, "config": config}, "run").encode()
    )[:12]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
