"""The folder of one run: opened under the hash of its config, filled with metrics, finished with a result."""

import dataclasses
import hashlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from research.runs.command import command_line
from research.runs.environment import environment
from research.runs.files import canonical, explained, json_bytes, kept, read_json, write_atomically
from research.runs.result import Result, read_result, result_bytes

MANIFEST, METRICS, RESULT, ARRAYS = "manifest.json", "metrics.jsonl", "result.json", "arrays.npz"


class Run(NamedTuple):
    """An open run folder.

    Attributes:
      path: results/<experiment>/<id>.
      id: As `run_id` gives it.
      experiment: Name of the experiment.
      config: Its config, as given.
      finished: Whether the folder holds a whole result, to be had from `load_result(path)`.
    """

    path: Path
    id: str
    experiment: str
    config: Any
    finished: bool


def run_id(experiment: str, config: Any) -> str:
    """Names a run by what it computes: the first 12 hexadecimal digits of the SHA-256 of experiment and config.

    Neither the time nor a path enters, nor the order of fields; 1, 1.0 and True are three values.

    Args:
      experiment: Name of the experiment; it names a folder: letters, digits, `_` and `-`.
      config: Dataclass or mapping of numbers, strings, None, booleans, and tuples, lists and mappings of them.
    Raises:
      ValueError: The experiment's name cannot name a folder.
      TypeError: The config holds something else; the message names the field.
    Example:
      >>> run_id("trajectory", {"seed": 0, "rate": 0.1}) == run_id("trajectory", {"rate": 0.1, "seed": 0})
      True
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", experiment):
        raise ValueError(f"experiment names a folder, so it is letters, digits, _ and -; got {experiment!r}.")
    if not isinstance(config, Mapping) and (not dataclasses.is_dataclass(config) or isinstance(config, type)):
        raise TypeError(f"config must be an instance of a dataclass, or a mapping; got {config!r}.")
    return _identity(experiment, config)


def open_run(
    experiment: str, config: Any, results: str | Path = "results", fresh: bool = False, width: int | None = None
) -> Run:
    """Opens the run folder of a config, making it if need be.

    A folder with a whole result is left as it is, and said to be finished. In any other the manifest is written anew
    (status "running") and the metrics begin again; an earlier result stays until `finish` replaces it. This starts
    JAX's backend, whose devices the manifest names: call `backend.configure` first.

    Args:
      experiment, config: As for `run_id`; the folder is results/<experiment>/<run id>.
      results: The folder of all results.
      fresh: Whether to begin anew, whatever the folder holds.
      width: Lanes that advance together, as in `environment`.
    Raises:
      ValueError: The folder holds another run.
      OSError: The folder cannot be made or written; the message says why.
    Example:
      >>> import tempfile
      >>> results = tempfile.mkdtemp()
      >>> run = open_run("trajectory", {"seed": 0}, results)
      >>> run = finish(run, Result("It descends.", (), {}, {"final_loss": 0.25}), seconds=1.5)
      >>> open_run("trajectory", {"seed": 0}, results).finished, load_result(run.path).numbers
      (True, {'final_loss': 0.25})
    """
    identity = run_id(experiment, config)
    run = Run(Path(results) / experiment / identity, identity, experiment, config, finished=False)
    with explained(f"Cannot make the run folder {run.path}", lambda: "Give another folder for results (--results)."):
        run.path.mkdir(parents=True, exist_ok=True)
    if not fresh and _holds_result(run):
        return run._replace(finished=True)
    manifest = {
        "experiment": experiment,
        "id": identity,
        "status": "running",
        "config": config,
        "command": command_line(experiment, config),
        "environment": environment(width),
    }
    write_atomically(run.path / MANIFEST, json_bytes(manifest))
    for left_over in (run.path / METRICS, *run.path.glob(".*.partial")):
        left_over.unlink(missing_ok=True)
    return run


def append_metrics(run: Run, **values: Any) -> None:
    """Adds a line of JSON to metrics.jsonl, where it can be read at once.

    Args:
      run: An open run.
      values: JSON values by name (NaN and infinities too).
    Raises:
      OSError: The line cannot be written; the message says why.
    """
    line = json_bytes(values, "metrics", indent=None)
    path = run.path / METRICS
    with explained(f"Cannot add to {path}", lambda: kept(run.path)), open(path, "ab") as file:
        file.write(line)


def finish(run: Run, result: Result, **facts: Any) -> Run:
    """Saves the result of a run: arrays.npz, result.json, then the manifest with their digests and status "finished".

    Whatever stops it on the way, the folder then counts as unfinished and every file in it is whole.

    Args:
      run: An open run.
      result: What it found.
      facts: JSON values for the manifest, such as seconds taken and hashes of the compiled programs.
    Returns:
      The run, finished.
    Raises:
      OSError: A file cannot be written; the message says why, and what is still there.
    """
    manifest = read_manifest(run.path)
    text, arrays = result_bytes(result)
    files = {ARRAYS: arrays, RESULT: text}
    manifest |= {"status": "finished", "facts": facts, "digests": {name: _sha256(files[name]) for name in files}}
    files[MANIFEST] = json_bytes(manifest)
    for name, data in files.items():
        write_atomically(run.path / name, data)
    return run._replace(finished=True)


def load_result(path: str | Path) -> Result:
    """Loads what a finished run found, exactly as it was saved.

    Args:
      path: The run folder.
    Raises:
      ValueError: The run is not finished, or a file is damaged or missing.
    """
    path = Path(path)
    manifest = read_manifest(path)
    fault = _fault(path, manifest)
    if fault:
        raise ValueError(f"{path} holds no whole result: {fault}. Run it again: {manifest.get('command')}")
    return read_result((path / RESULT).read_bytes(), (path / ARRAYS).read_bytes())


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Reads the manifest of a run folder.

    Raises:
      ValueError: There is none, or it cannot be read.
    """
    file = Path(path) / MANIFEST
    try:
        manifest = read_json(file.read_bytes())
        if not {"experiment", "id", "status", "config", "environment"} <= manifest.keys():
            raise ValueError("entries are missing")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} cannot be read: {error}. Is {Path(path)} a run folder?") from error
    return manifest


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
            f"{run.path} holds another run: {canonical(manifest['config'])} of {manifest['experiment']}, not "
            f"{canonical(run.config)} of {run.experiment}. Give another folder (--results), or --fresh to overwrite it."
        )
    fault = _fault(run.path, manifest)
    if fault and manifest["status"] == "finished":
        warnings.warn(f"{run.path}: {fault}, so the run begins anew.", stacklevel=3)
    return fault is None


def _fault(path: Path, manifest: dict[str, Any]) -> str | None:
    if manifest["status"] != "finished":
        return f"its status is {manifest['status']!r}"
    for name in (RESULT, ARRAYS):
        if not (path / name).exists():
            return f"{name} is missing"
        if _sha256((path / name).read_bytes()) != manifest.get("digests", {}).get(name):
            return f"{name} is damaged (its digest is not the manifest's)"
    return None


def _identity(experiment: str, config: Any) -> str:
    return _sha256(canonical({"experiment": experiment, "config": config}, "run").encode())[:12]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
