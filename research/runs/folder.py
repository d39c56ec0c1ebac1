"""The folder of a run, named by a hash of the config and locked by one process."""

import contextlib
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
from research.files import canonical, explained, json_bytes, kept, write_atomically
from research.models.saving import save
from research.reading import Is, check_shape, parse_json
from research.runs._environment import differences, environment
from research.runs.command import check_config, command_line
from research.runs.manifest import (
    ARRAYS,
    MANIFEST,
    NAME,
    RESULT,
    check_sizes,
    read_file,
    read_manifest,
)
from research.runs.result import (
    Result,
    TrainedModel,
    check_result,
    read_result,
    result_bytes,
)
from research.runs.step_metrics import write_step_metrics
from research.sizes import check_most

METRICS, LOCK = "metrics.jsonl", ".lock"
CHECKPOINTS, MODELS = "checkpoints", "models"
ROOT = Path(__file__).parents[2]  # Contains the folder `experiments` in a clone.


class Run(NamedTuple):
    """A run of an experiment with its folder, as `open_run` returns it.

    Attributes:
      path: The folder, <results>/<experiment>/<id>.
      id: Id of the run, from `run_id`.
      experiment: Name of the experiment.
      config: Config (settings) of the run, as passed to `open_run`.
      finished: Whether the folder contains a complete result. `load_result(path)` loads
        the result.
      resumed: Whether this run continues from checkpoints of an earlier process.
      seconds: Seconds that earlier processes spent on the run.
      lock: Lock that prevents a second process from working in the folder while the run
        is open. `finish` and `close` release the lock. None if the run is finished.
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
        """Folder of the run's checkpoints."""
        return self.path / CHECKPOINTS


def run_id(experiment: str, config: Any) -> str:
    """Return the id of a run: 12 hexadecimal digits of a hash of experiment and config.

    The hash is SHA-256. The id does not depend on the time, on a path, or on the order
    of the config's fields. In a config, 1, 1.0 and True are three different values.

    Args:
      experiment: Name of the experiment. It is also the name of a folder, so only
        letters, digits, `_` and `-` are allowed.
      config: Dataclass or mapping. Each of its values is a number, a string, a boolean
        or None, or a tuple, list, mapping or dataclass of such values.
    Raises:
      ValueError: The name of the experiment contains another character, or is empty.
      TypeError: The config contains a value of another type. The message names the
        field.
    Example:
      >>> run_id("trajectory", {"seed": 0, "rate": 0.1}) == run_id(
      ...     "trajectory", {"rate": 0.1, "seed": 0}
      ... )
      True
    """
    check_experiment(experiment)
    check_config(config)
    return _identity(experiment, config)


def check_experiment(experiment: Any) -> None:
    """Raise an error unless the name of an experiment can be the name of a folder.

    Args:
      experiment: Name of the experiment.
    Raises:
      TypeError: The name is not a str.
      ValueError: The name has other characters than letters, digits, _ and -.
    """
    check_text("experiment", experiment)
    if not re.fullmatch(NAME, experiment):
        raise ValueError(
            "experiment must consist of letters, digits, _ and -, because it names a "
            f"folder; got {experiment!r}."
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
    """Open the run folder of a config, and create it if it does not exist.

    Without `fresh`, there are three cases:

    - If the folder has a complete result, the folder is left unchanged, and the
      returned run is finished.
    - If the folder has only checkpoints, the run continues from the checkpoints. There
      is one exception: if the code, the version of a package, the processor or a
      setting of JAX has changed, the checkpoints are deleted with a warning, and the
      run starts from the beginning. Otherwise the result might not be bit-identical to
      the result of an uninterrupted run.
    - If the folder has neither a result nor usable checkpoints, the run starts from the
      beginning.

    With `fresh`, the run always starts from the beginning, and checkpoints are deleted.
    The files of an earlier result stay in the folder until `finish` replaces them, but
    they no longer count as a result.

    If the returned run is not finished, this function writes the file manifest.json to
    the folder. This manifest describes the run and the devices. To list the devices,
    the function starts JAX's backend. If you use `backend.configure`, call
    `backend.configure` before this function.

    Args:
      experiment, config: Name of the experiment and config of the run, as in `run_id`.
        The run folder is <results>/<experiment>/<run id>.
      results: Folder of all results.
      fresh: If True, start from the beginning, even if the folder has checkpoints or a
        result.
      width: Number of runs that one compiled program computes together. The bits of
        each run depend on this number, so the manifest contains this number. None means
        that each run is computed alone.
      code: Files of the experiment itself, which lie outside this package. The manifest
        has one common digest of these files and the Python files of this package.
      command: Command that reproduces the run. None means the command line of the
        experiment with this config.
    Raises:
      ValueError, TypeError: The folder contains another run, or an argument is not
        valid.
      OSError: The folder cannot be created or written, or another process is working in
        the folder. The message says why.
    Example:
      >>> import tempfile
      >>> results = tempfile.mkdtemp()
      >>> run = open_run("trajectory", {"seed": 0}, results)
      >>> run = finish(
      ...     run, Result("It descends.", (), {}, {"final_loss": 0.25}), seconds=1.5
      ... )
      >>> (
      ...     open_run("trajectory", {"seed": 0}, results).finished,
      ...     load_result(run.path).numbers,
      ... )
      (True, {'final_loss': 0.25})
    """
    check_path("results", results)
    check_flag("fresh", fresh)
    if width is not None:
        check_count("width", width)
        check_most(width=width)
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
        lambda: "Choose another folder for results (--results).",
    ):
        run.path.mkdir(parents=True, exist_ok=True)
        # A fault is reported below, after the second look.
        if not fresh and _holds_result(run, warn=False):
            return run._replace(finished=True)
    run = run._replace(lock=_lock(run.path))
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(close, run)
        # Another process may have finished the run in the meantime.
        if not fresh and _holds_result(run, warn=True):
            return run._replace(finished=True, lock=None)
        manifest = {
            "experiment": experiment,
            "id": identity,
            "status": "running",
            "config": config,
            "command": command or command_line(experiment, config),
            "environment": environment(width, code),
        }
        with explained(f"Cannot start in {run.path}", lambda: kept(run.path)):
            if not fresh and _goes_on(run, manifest):
                seconds = _mend_metrics(run.path / METRICS)
                run = run._replace(resumed=True, seconds=seconds)
            else:
                _delete_progress(run)
            _delete_unfinished_files(run.path)
        write_atomically(run.path / MANIFEST, json_bytes(manifest))
        on_failure.pop_all()
    return run


def append_metrics(run: Run, **values: Any) -> None:
    """Append a line of JSON to metrics.jsonl in the run folder.

    Other processes can read the line immediately.

    Args:
      run: An open run.
      values: Keyword arguments: the entries of the line, which are JSON values. NaN and
        infinities are allowed.
    Raises:
      OSError: The line cannot be written. The message says why.
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
    """Save the result of a run and release the lock of the run folder.

    The function first writes the trained models to the folder `models`. Each model
    becomes a .safetensors file. If the metrics of the model's training steps are known,
    they are written to a .csv file. The function then writes arrays.npz, result.json
    and, as the last file, the manifest. The manifest contains the digests of arrays.npz
    and result.json, and the status "finished". If the function is interrupted before it
    has written the manifest, the run remains unfinished, and no file is incomplete.
    Checkpoints are deleted at the end.

    Args:
      run: An open run.
      result: Result of the run.
      facts: Keyword arguments: JSON values for the manifest, such as `seconds`, the
        duration of the run.
    Returns:
      The run, marked as finished.
    Raises:
      OSError: A file cannot be written. The message gives the reason and the files that
        remain.
      ValueError, TypeError: The manifest of the run cannot be read, or the result is
        not valid or too large.
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
    check_sizes(files)  # Checkpoints are deleted only for a result that can be read.
    _write_models(run.path / MODELS, result.models)
    for name, data in files.items():
        write_atomically(run.path / name, data)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    close(run)
    return run._replace(finished=True, lock=None)


def _write_models(folder: Path, models: Mapping[str, TrainedModel]) -> None:
    """Write each model and its metrics, and delete the models of an earlier run."""
    if folder.exists():
        shutil.rmtree(folder)
    if models:
        with explained(f"Cannot make {folder}", lambda: kept(folder.parent)):
            folder.mkdir()
    for name, model in models.items():
        save(folder / f"{name}.safetensors", model.params, model.architecture)
        if model.steps:
            write_step_metrics(folder / f"{name}.csv", model.steps, model.evaluations)


def model_file(path: str | Path, name: str) -> Path:
    """Return the path of the weights of a model that a finished run has saved.

    Args:
      path: Run folder.
      name: Name of the model.
    Returns:
      Path of a .safetensors file, which `research.models.load` loads.
    Raises:
      ValueError: The run is not finished, or has not saved this model. The message says
        what to run.
    """
    check_path("path", path)
    check_text("name", name)
    manifest, path = read_manifest(path), Path(path)
    file = path / MODELS / f"{name}.safetensors"
    fault = _fault(path, manifest)
    if fault is None and not file.exists():
        fault = f"it has no {MODELS}/{file.name}"
    if fault:
        command = _command(manifest)
        raise ValueError(
            f"{path} contains no trained model {name!r}: {fault}. Run it again with "
            + (f"--fresh: {command} --fresh" if command else "fresh=True.")
        )
    return file


def _command(manifest: Mapping[str, Any]) -> str | None:
    """Return the command of a run, or None if the command's file does not exist.

    A run that was opened in Python may have a name for which there is no file.
    """
    command = manifest.get("command")
    file = re.match(r"python (experiments/[\w-]+\.py)", command or "")
    if file and not any((at / file[1]).exists() for at in (Path.cwd(), ROOT)):
        return None
    return command


def close(run: Run) -> None:
    """Release the run folder so that another process can open it.

    The run may be finished or unfinished.
    """
    check_instance(
        "run", run, Run, "Open one by research.runs.open_run(experiment, config)."
    )
    if run.lock is not None:
        run.lock.release()


def load_result(path: str | Path) -> Result:
    """Load the result of a finished run, without its models.

    The arrays have the bits that were saved. Two things differ from the saved result.
    The fields `tables` and `numbers` have Python scalars in place of NumPy scalars. The
    field `numbers` has lists in place of tuples.

    Args:
      path: Run folder.
    Raises:
      ValueError: The run is not finished, or a file is missing, is damaged, or was not
        written by `finish`.
    """
    check_path("path", path)
    path = Path(path)
    manifest = read_manifest(path)
    fault = _fault(path, manifest)
    command = _command(manifest)
    if fault:
        raise ValueError(
            f"{path} contains no complete result: {fault}. Run it again"
            + (f": {command}" if command else ".")
        )
    try:
        return read_result(read_file(path, RESULT), read_file(path, ARRAYS))
    except ValueError as error:
        raise ValueError(
            f"{path} contains no result of a run: {error} Run it again"
            + (f": {command}" if command else ".")
        ) from error


def _holds_result(run: Run, warn: bool) -> bool:
    if not (run.path / MANIFEST).exists():
        return False
    try:
        manifest = read_manifest(run.path)
    except ValueError as error:
        if warn:
            warnings.warn(f"{error} The run starts from the beginning.", stacklevel=3)
        return False
    if _identity(manifest["experiment"], manifest["config"]) != run.id:
        raise ValueError(
            f"{run.path} contains another run: {canonical(manifest['config'])} of "
            f"{manifest['experiment']}, not {canonical(run.config)} of "
            f"{run.experiment}. Choose another folder (--results), or use --fresh to "
            "overwrite it."
        )
    fault = _fault(run.path, manifest)
    if warn and fault and manifest["status"] == "finished":
        warnings.warn(
            f"{run.path}: {fault}, so the run starts from the beginning.", stacklevel=3
        )
    return fault is None


def _lock(path: Path) -> filelock.BaseFileLock:
    lock = filelock.FileLock(path / LOCK)
    advice = lambda: "Choose another folder for results (--results)."
    with (
        explained(f"Cannot lock {path}", advice),
        contextlib.suppress(filelock.Timeout),
    ):
        lock.acquire(blocking=False)
    if not lock.is_locked:
        raise OSError(
            f"Another process is using {path}. Wait for it, stop it, or choose another "
            "folder for results (--results)."
        )
    return lock


def _goes_on(run: Run, manifest: dict[str, Any]) -> bool:
    """Return whether the run may continue from its checkpoints.

    The run may continue if the checkpoints were made in an environment that gives the
    same bits as the environment in `manifest`.
    """
    if not run.checkpoints.exists():
        return False
    try:
        earlier = read_manifest(run.path)
    except ValueError:
        # There was a warning if the manifest is unreadable. Without a manifest, the
        # environment of the checkpoints is unknown.
        return False
    changed = differences(earlier["environment"], manifest["environment"])
    if changed:
        warnings.warn(
            f"the checkpoints in {run.path} would not lead to the same bits, so the "
            f"run starts from the beginning: {'; '.join(changed)}.",
            stacklevel=3,
        )
    return not changed


def _delete_progress(run: Run) -> None:
    """Delete the metrics and the checkpoints of a run."""
    (run.path / METRICS).unlink(missing_ok=True)
    if run.checkpoints.exists():
        # A checkpoint that cannot be deleted must not be used, so errors are raised.
        shutil.rmtree(run.checkpoints)


def _delete_unfinished_files(folder: Path) -> None:
    """Delete the files and folders that an interrupted process did not finish."""
    for left_over in list(folder.rglob(".*.partial")):
        if left_over.is_dir() and not left_over.is_symlink():
            shutil.rmtree(left_over)
        else:
            left_over.unlink(missing_ok=True)


def _mend_metrics(path: Path) -> float:
    """Remove an incomplete last line; return the seconds of the last complete line."""
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
        if (path / name).is_dir():
            return f"{name} is a folder, which you must remove"
        if not (path / name).exists():
            return f"{name} is missing"
        if _sha256(read_file(path, name)) != manifest.get("digests", {}).get(name):
            return f"{name} is damaged (its digest differs from the manifest)"
    return None


def _identity(experiment: str, config: Any) -> str:
    return _sha256(
        canonical({"experiment": experiment, "config": config}, "run").encode()
    )[:12]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
