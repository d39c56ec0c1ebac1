"""An experiment from its command line: flags to Config, a run with progress, then
tables, figures and a report."""

import contextlib
import dataclasses
import importlib
import math
import os
import select
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from research.cli import console, data, flags, job, progress
from research.cli import errors as problems

if TYPE_CHECKING:
    from research import runs
    from research.types import Checkpoints

SUCCESS, BAD_INPUT, STOPPED, UNREAD = 0, 2, 130, 141


def main(experiment: ModuleType, argv: Sequence[str] | None = None) -> int:
    """Run an experiment as its command line says: the line that follows the flags in
    each file of experiments/.

    A finished run is loaded and drawn again at once. Bad input is one line on stderr;
    the environment variable DESCENT_TRACEBACK=1 shows where it was found.

    Args:
      experiment: A module with a docstring that opens with its question, and with
        Config and FULL; FAST where there is a configuration that takes seconds. Where
        the module has no `run` yet, because its file calls `main` before its heavy
        imports, it is imported whole once the flags are read. Whole, it has run(config,
        on_progress, checkpoints) -> Findings, or a Result; complete(config) -> config
        where the config names what may change; and share(config, part, parts,
        checkpoints) where the work can be shared among processes. A Config's `devices`
        is how many devices JAX is shown (see `backend.configure`). `report_of` says
        where its words and pictures are.
      argv: The words after the program's name; None means those of this process.
    Returns:
      0.
    Raises:
      SystemExit: Status 2 after bad input, 130 after Ctrl-C, 141 where nobody reads the
        output.
    """
    with errors_in_one_line():
        command = flags.parse(experiment, sys.argv[1:] if argv is None else argv)
        if not hasattr(experiment, "run"):
            experiment = import_whole(Path(experiment.__file__ or ""))
            # The same fields, as the class of the module that runs them.
            config = experiment.Config(**vars(command.config))
            command = command._replace(config=config)
        perform(experiment, command)
    return SUCCESS


def import_whole(file: Path) -> ModuleType:
    """Import an experiment's file under its own name: a package's folder is part of
    it."""
    file = file.resolve()
    top, names = file.parent, [file.stem]
    while (top / "__init__.py").exists():
        top, names = top.parent, [top.name, *names]
    if str(top) not in sys.path:
        sys.path.insert(0, str(top))
    return importlib.import_module(".".join(names))


def report_of(experiment: ModuleType) -> ModuleType:
    """The module with an experiment's answer, tables and draw: itself, or the one of
    its name in `reports` beside it."""
    if hasattr(experiment, "draw"):
        return experiment
    package, _, name = experiment.__name__.rpartition(".")
    return importlib.import_module(".".join(filter(None, (package, "reports", name))))


def conduct(
    experiment: ModuleType,
    config: Any,
    on_progress: progress.OnProgress | None = None,
    checkpoints: "Checkpoints | None" = None,
) -> "runs.Result":
    """Run an experiment, and let its report add answer and tables to what was found.

    Args:
      experiment: As for `main`.
      config, on_progress, checkpoints: For its `run`.
    """
    from research import runs

    findings = experiment.run(config, on_progress, checkpoints)
    if isinstance(findings, runs.Result):
        return findings
    report = report_of(experiment)
    return runs.Result(report.answer(findings), report.tables(findings), *findings)


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Bad input as one line on stderr and status 2, Ctrl-C as a sentence and status
    130, warnings without their place.

    Where nobody reads on, as behind `| head`, it ends without a word, with status 141,
    as other programs do."""
    formatwarning = warnings.formatwarning
    warnings.formatwarning = lambda message, *place, **more: f"warning: {message}\n"
    try:
        try:
            yield
        finally:
            # Here, and not when the interpreter ends, it is found out whether somebody
            # reads.
            sys.stdout.flush()
    except KeyboardInterrupt as stop:
        print(f"\nStopped. {stop}".rstrip(), file=sys.stderr)
        sys.exit(STOPPED)
    except (ValueError, TypeError, OSError, ImportError) as problem:
        if os.environ.get("DESCENT_TRACEBACK") == "1":
            raise
        if isinstance(problem, BrokenPipeError) and _is_unread():
            sys.exit(UNREAD)
        print(f"error: {problems.explain(problem)}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    finally:
        warnings.formatwarning = formatwarning


def _is_unread() -> bool:
    """Whether it is our output that nobody reads, and not a socket or a process's pipe;
    the rest then goes nowhere."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # Errors are told without being asked for.
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def perform(experiment: ModuleType, command: flags.Command) -> Path:
    """Does what a parsed command line asks for.

    Args:
      experiment: As for `main`.
      command: From `flags.parse`.
    Returns:
      The run folder.
    """
    from research import figures, report, runs

    options = command.options
    run, drawn_again = carry_out(experiment, command)
    if drawn_again:
        other = runs.read_manifest(run.path)["environment"].get(
            "code"
        ) != runs.code_digest([Path(experiment.__file__ or "")])
        _say(
            options,
            f"Already finished{', by other code than this' * other}: drawn again from "
            f"{run.path}. --fresh runs it anew.",
        )
    result = runs.load_result(run.path)
    with figures.style():
        drawn = report_of(experiment).draw(result)
    pictures = {
        name: figures.save(picture, run.path, name) for name, picture in drawn.items()
    }
    written = report.write_report(
        run.path, list(pictures.values()), question=experiment.__doc__ or ""
    )
    paths = {name: saved.motion or saved.still for name, saved in pictures.items()}
    console.show(
        result,
        {**paths, "report": written},
        tables=not options.quiet,
        question="" if options.quiet else flags.question_of(experiment.__doc__),
    )
    return run.path


def carry_out(
    experiment: ModuleType, command: flags.Command, *, exactly: bool = False
) -> "tuple[runs.Run, bool]":
    """Runs what a command line asks for, to the end, unless it has been run.

    Args:
      experiment, command: As for `perform`.
      exactly: Whether the config must be run as it is, and not with something in the
        place of data that are missing. It may be run without them, where a field of the
        config that names them can be empty: the run's config then has it so.
    Returns:
      The finished run, and whether it was finished before.
    Raises:
      ValueError: Exactly this config cannot be run here.
    """
    from research import backend, runs

    options = command.options
    data.use_folder(options.data_dir)
    devices = getattr(command.config, "devices", 1)
    backend.configure(devices=devices, pool=max(2, devices), x64=True)
    file = Path(experiment.__file__ or experiment.__name__)
    # What a config names may change (a file of rules): `complete` writes into it what
    # it was.
    config = (
        experiment.complete(command.config)
        if hasattr(experiment, "complete")
        else command.config
    )
    for name, (was, now) in changed_fields(command.config, config).items():
        if exactly and now:
            raise ValueError(
                f"It was run with {name}={was!r}, which is not here; {now!r} is "
                "another run."
            )
    job.refuse_if_busy(options.results / file.stem / runs.run_id(file.stem, config))
    width = getattr(config, "width", None)  # Runs advanced together: bits depend on it.
    run = runs.open_run(
        file.stem,
        config,
        options.results,
        options.fresh,
        width,
        code=[file],
        command=runs.command_line(file.stem, config, flags.program(experiment)),
    )
    if run.finished:
        return run, True
    try:
        return _run(experiment, run, options), False
    finally:
        runs.close(run)


def changed_fields(before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """Those fields of two configs of one class that differ, by name: (before,
    after)."""
    names = (
        [field.name for field in dataclasses.fields(before)]
        if dataclasses.is_dataclass(before)
        else []
    )
    pairs = {name: (getattr(before, name), getattr(after, name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _run(experiment: ModuleType, run: "runs.Run", options: flags.Options) -> "runs.Run":
    from research import runs

    if run.resumed:
        _say(
            options,
            f"Going on in {run.path}, after {progress.duration(run.seconds)}; --fresh "
            "would begin anew.",
        )
    else:
        _say(options, f"Running in {run.path}; the first compilation takes a while.")
    start = time.monotonic() - run.seconds
    with contextlib.nullcontext(_silent) if options.quiet else progress.shown() as show:
        on_progress = _recorded(run, show, start)
        try:
            checkpoints = runs.checkpoints_in(run.checkpoints)
            result = conduct(experiment, run.config, on_progress, checkpoints)
            return runs.finish(run, result, seconds=time.monotonic() - start)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_what_is_kept(run)) from None
        except Exception as problem:
            _forget_if_empty(run.path)
            if (
                isinstance(problem, OSError)
                and problem.strerror
                and run.checkpoints.exists()
            ):
                raise OSError(
                    problem.errno, f"{problem.strerror} {_what_is_kept(run)}"
                ) from problem
            raise


def _recorded(
    run: "runs.Run", show: progress.OnProgress, start: float
) -> progress.OnProgress:
    """Shows progress, and writes it to the metrics: each piece as it begins, and how
    far it is once a second."""
    from research import runs

    last = -math.inf

    def on_progress(done: float, total: float, message: str) -> None:
        nonlocal last
        now = time.monotonic()
        if done == int(done) or now - last >= 1.0:
            last = now
            runs.append_metrics(
                run, done=done, total=total, message=message, seconds=now - start
            )
        show(done, total, message)

    return on_progress


def _what_is_kept(run: "runs.Run") -> str:
    if run.checkpoints.exists():
        return (
            f"What was done is kept in {run.path}; the same command goes on from there."
        )
    return (
        f"Nothing in {run.path} was worth keeping yet; the same command starts the run "
        "again."
    )


def _forget_if_empty(folder: Path) -> None:
    """Bad input leaves no folder behind: one that holds a manifest alone says
    nothing."""
    if {file.name for file in folder.iterdir()} <= {"manifest.json", ".lock"}:
        shutil.rmtree(folder)


def _silent(done: float, total: float, message: str) -> None:
    del done, total, message


def _say(options: flags.Options, sentence: str) -> None:
    if not options.quiet:
        print(sentence, file=sys.stderr, flush=True)
