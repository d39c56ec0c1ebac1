"""An experiment from its command line: flags to Config, a run with progress, then tables, figures and a report."""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from research.cli import console, flags, problems, progress

if TYPE_CHECKING:
    from research import runs

SUCCESS, BAD_INPUT, STOPPED = 0, 2, 130


def main(experiment: ModuleType, argv: Sequence[str] | None = None) -> int:
    """Runs an experiment as its command line says: the last line of every file in experiments/.

    A run that has already finished is loaded and drawn again at once. Bad input is one line on stderr; the environment
    variable DESCENT_TRACEBACK=1 shows where it was found.

    Args:
      experiment: A module with a docstring that opens with its question, and with Config, FULL, run and draw.
      argv: The words after the program's name; None means those of this process.
    Returns:
      0.
    Raises:
      SystemExit: Status 2 after bad input, 130 after Ctrl-C.
    """
    try:
        perform(experiment, flags.parse(experiment, sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt as stop:
        print(f"\nStopped. {stop}".rstrip(), file=sys.stderr)
        sys.exit(STOPPED)
    except (ValueError, TypeError, OSError, ImportError) as problem:
        if os.environ.get("DESCENT_TRACEBACK") == "1":
            raise
        print(f"error: {problems.explain(problem)}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    return SUCCESS


def perform(experiment: ModuleType, command: flags.Command) -> Path:
    """Does what a parsed command line asks for.

    Args:
      experiment: As for `main`.
      command: From `flags.parse`.
    Returns:
      The run folder.
    """
    from research import backend, figures, report, runs

    options = command.options
    backend.configure(x64=True)
    name = Path(experiment.__file__ or experiment.__name__).stem
    width = getattr(command.config, "width", None)  # Lanes advanced together: the bits depend on it.
    run = runs.open_run(name, command.config, options.results, options.fresh, width)
    if run.finished:
        _say(options, f"Already finished: drawn again from {run.path}. --fresh runs it anew.")
    else:
        run = _run(experiment, run, options)
    result = runs.load_result(run.path)
    with figures.style():
        drawn = experiment.draw(result)
    pictures = {name: figures.save(picture, run.path, name) for name, picture in drawn.items()}
    written = report.write_report(run.path, list(pictures.values()), question=experiment.__doc__ or "")
    paths = {name: saved.motion or saved.still for name, saved in pictures.items()}
    console.show(result, {**paths, "report": written}, tables=not options.quiet)
    return run.path


def _run(experiment: ModuleType, run: "runs.Run", options: flags.Options) -> "runs.Run":
    from research import runs

    _say(options, f"Running in {run.path}; the first compilation takes a while.")
    start = time.monotonic()
    with contextlib.nullcontext(_silent) if options.quiet else progress.shown() as show:

        def on_progress(done: float, total: float, message: str) -> None:
            runs.append_metrics(run, done=done, total=total, message=message, seconds=time.monotonic() - start)
            show(done, total, message)

        try:
            result = experiment.run(run.config, on_progress)
        except KeyboardInterrupt:
            saved = ", ".join(sorted(file.name for file in run.path.iterdir()))
            raise KeyboardInterrupt(f"{run.path} keeps {saved}; the same command starts the run again.") from None
        except Exception:
            _forget_if_empty(run.path)
            raise
    return runs.finish(run, result, seconds=time.monotonic() - start, hashes=result.numbers.get("hashes", {}))


def _forget_if_empty(folder: Path) -> None:
    """Bad input leaves no folder behind: one that holds a manifest alone says nothing."""
    if [file.name for file in folder.iterdir()] == ["manifest.json"]:
        shutil.rmtree(folder)


def _silent(done: float, total: float, message: str) -> None:
    del done, total, message


def _say(options: flags.Options, sentence: str) -> None:
    if not options.quiet:
        print(sentence, file=sys.stderr, flush=True)
