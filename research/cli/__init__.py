"""Run an experiment from its command line.

The flags are parsed into a Config. The experiment runs with a progress display. Then
tables, figures and a report are made.
"""

import contextlib
import dataclasses
import importlib
import math
import os
import runpy
import select
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from research import portable
from research.cli import console, data, flags, job, progress
from research.cli import errors as problems

if TYPE_CHECKING:
    from research import runs
    from research.types import Checkpoints

SUCCESS, BAD_INPUT, STOPPED, UNREAD = 0, 2, 130, 141
SILENT_SECONDS = 1.0  # After which a run is announced, if it has shown no progress.


def main(experiment: ModuleType, argv: Sequence[str] | None = None) -> int:
    """Run an experiment from its command line.

    Each file of experiments/ calls this function. If a run with the same config is
    already finished, the result of this run is loaded and drawn again, unless --fresh
    is given. Bad input is reported in one line on stderr. If the environment variable
    DESCENT_TRACEBACK is 1, the traceback is shown instead.

    The docstring of the module `experiment` begins with the question of the experiment.
    The module has a dataclass `Config` and an instance `FULL` of Config. The module may
    also have an instance `FAST`, with which the experiment takes only seconds. The flag
    --full selects `FULL`, and the flag --fast selects `FAST`. Without these flags, the
    config is Config().

    The experiment's file may call `main` before its heavy imports and before it defines
    `run`, so that --help is fast. In this case, `main` first parses the flags, and then
    imports the whole file. The file defines these functions, of which only `run` is
    required:

        run(config, on_progress, checkpoints) -> Findings or Result
        complete(config) -> config with the digest of each file that config names
        predict(config, folder, file) -> Result, if the experiment saves models
        share(config, part, parts, checkpoints), if processes can share the work

    `run` reports its progress by on_progress(done, total, message), where done / total
    is the share of the work that is done. checkpoints(name) returns a
    `research.types.Checkpoint`, which saves finished work, so that a stopped run can be
    resumed. If a file named in the config has changed, the digest from `complete` gives
    the run another id and another folder. `complete` may also replace missing data by
    other data. `predict` makes a prediction for `file` with the models in the run
    folder `folder`. `share` computes one of `parts` parts of the work, and saves it by
    `checkpoints`. The argument `part` is the index of the part, from 0 to parts - 1.

    The module may also have a dict `OTHERS`. A key is the name of a flag, and its value
    is the name of another experiment, whose file is in the same folder. If the flag is
    given, `main` runs the other experiment with the remaining flags.

    If Config has a field `devices`, this field is the number of devices that JAX shows
    (see `backend.configure`). Compiled programs are kept for the next run (see
    `backend.keep_programs`), unless the module sets TIMES_COMPILATION = True.
    The functions that make the texts and the figures are in the module that `report_of`
    returns.

    Args:
      experiment: Module of the experiment, as described above.
      argv: Command-line arguments after the program's name. None means the arguments of
        this process.
    Returns:
      0.
    Raises:
      SystemExit: The exit status is 2 after bad input, 130 after Ctrl-C, and 141 if the
        program that reads the output has closed the pipe.
    """
    with errors_in_one_line():
        words = sys.argv[1:] if argv is None else list(argv)
        for name, other in getattr(experiment, "OTHERS", {}).items():
            if f"--{name}" in words:
                words.remove(f"--{name}")
                run_file(
                    Path(experiment.__file__ or "").with_name(f"{other}.py"), words
                )
                return SUCCESS
        command = flags.parse(experiment, words)
        if command.options.portable:
            portable.pin_libraries()  # Before NumPy is imported.
        if not hasattr(experiment, "run"):
            experiment = import_whole(Path(experiment.__file__ or ""))
            # The same fields in the Config class of the imported module.
            config = experiment.Config(**vars(command.config))
            command = command._replace(config=config)
        (predict if command.options.predict else perform)(experiment, command)
    return SUCCESS


def run_file(file: Path, words: Sequence[str]) -> None:
    """Run an experiment's file, as `python FILE WORDS` would do."""
    before, sys.argv = sys.argv, [str(file), *words]
    try:
        runpy.run_path(str(file), run_name="__main__")
    finally:
        sys.argv = before


def import_whole(file: Path) -> ModuleType:
    """Import an experiment's file as a module with the name of the file.

    If the file belongs to a package, the name of the module begins with the name of the
    package.
    """
    file = file.resolve()
    top, names = file.parent, [file.stem]
    while (top / "__init__.py").exists():
        top, names = top.parent, [top.name, *names]
    if str(top) not in sys.path:
        sys.path.insert(0, str(top))
    return importlib.import_module(".".join(names))


def report_of(experiment: ModuleType) -> ModuleType:
    """Return the module with an experiment's functions `answer`, `tables` and `draw`.

    If the experiment's module has a function `draw`, the result is this module.
    Otherwise the result is the module with the same name in the subfolder `reports` of
    the folder of the experiments.
    """
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
    """Run an experiment, and return its Result, with the answer and the tables.

    Args:
      experiment: Module of the experiment, as described in `main`.
      config, on_progress, checkpoints: Arguments of the experiment's function `run`.
        `on_progress` is called with (done, total, message), where done / total is the
        share of the work that is done.
    """
    from research import runs

    findings = experiment.run(config, on_progress, checkpoints)
    if isinstance(findings, runs.Result):
        return findings
    report = report_of(experiment)
    return runs.Result(report.answer(findings), report.tables(findings), *findings)


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Report errors in one line on stderr, and exit with a status.

    This context manager handles the errors that are raised in its context. After bad
    input (ValueError, TypeError, OSError or ImportError), the exit status is 2. After
    Ctrl-C, it is 130. Warnings are printed without their location. If the program that
    reads the output has closed the pipe (`| head`), this program ends silently with
    status 141.
    """
    formatwarning = warnings.formatwarning
    warnings.formatwarning = lambda message, *place, **more: f"warning: {message}\n"
    try:
        try:
            yield
        finally:
            # Flush here, so that a closed pipe raises its error here and not when the
            # interpreter exits.
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
    """Return whether the pipe that broke is the output of this process.

    If True, the rest of the output is discarded.
    """
    poll = select.poll()
    poll.register(
        sys.stdout.fileno(), 0
    )  # poll always reports errors, even with no events requested.
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def perform(experiment: ModuleType, command: flags.Command) -> Path:
    """Run a parsed command line, draw the figures, write the report, print the result.

    Args:
      experiment: Module of the experiment, as described in `main`.
      command: Parsed command line, from `flags.parse`.
    Returns:
      Path of the run folder.
    """
    options = command.options
    if options.portable:
        portable.pin_libraries()  # Before NumPy is imported.
    from research import runs

    run, drawn_again = carry_out(experiment, command)
    if drawn_again:
        other = runs.read_manifest(run.path)["environment"].get(
            "code"
        ) != runs.code_digest([Path(experiment.__file__ or "")])
        _say(
            options,
            f"Already finished{' with other code than this' * other}: the report is "
            f"made from {run.path}. Use --fresh to run it again.",
        )
    paths = write_pictures(experiment, run.path)
    console.show(
        runs.load_result(run.path),
        paths,
        tables=not options.quiet,
        question="" if options.quiet else flags.question_of(experiment.__doc__),
    )
    return run.path


def predict(experiment: ModuleType, command: flags.Command) -> None:
    """Apply the models of a finished run to a file, and print the prediction.

    The file is an image, a recording or a text, depending on the experiment.

    Args:
      experiment: Module of the experiment, as described in `main`.
      command: Parsed command line, from `flags.parse`. Its config determines the run,
        and its option `predict` names the file.
    Raises:
      ValueError: The experiment saves no models, or the run is not finished. The
        message says what to run.
    """
    from research import backend, runs

    options, file = command.options, Path(experiment.__file__ or experiment.__name__)
    if not hasattr(experiment, "predict"):
        raise ValueError(
            f"{getattr(experiment, 'PROGRAM', file.stem)} has no --predict, because it "
            "saves no models. "
            "image_recognition, spoken_words, text_classification and "
            "character_language_model have it."
        )
    data.use_folder(options.data_dir)
    job.configure(command.config, portable=options.portable)
    backend.keep_programs()
    config = command.config
    folder_of = lambda config: (
        options.results / file.stem / runs.run_id(file.stem, config)
    )
    if hasattr(experiment, "complete") and not folder_of(config).exists():
        # A prediction needs no data, so they are sought only if there is no such run:
        # it may have replaced data that were missing.
        config = experiment.complete(config)
    folder = folder_of(config)
    if not folder.exists():
        program = flags.program(experiment)
        raise ValueError(
            f"{folder} does not exist: --predict needs the models of a finished run. "
            f"Run first: {runs.command_line(file.stem, config, program)}"
        )
    console.show(experiment.predict(config, folder, options.predict), {})


def write_pictures(
    experiment: ModuleType, folder: Path, result: "runs.Result | None" = None
) -> dict[str, Path]:
    """Draw the figures of a finished run, and write them and the report to its folder.

    Args:
      experiment: Module of the experiment, as described in `main`.
      folder: Run folder.
      result: Result that the report shows. None means the result in the run folder.
    Returns:
      Dict from a name to a path. The names are those of the figures, "report", and
      "models" if the run saved models.
    """
    from research import figures, report, runs

    with figures.style():
        drawn = report_of(experiment).draw(runs.load_result(folder))
    pictures = {
        name: figures.save(picture, folder, name) for name, picture in drawn.items()
    }
    written = report.write_report(
        folder,
        list(pictures.values()),
        question=experiment.__doc__ or "",
        result=result,
    )
    paths = {name: saved.motion or saved.still for name, saved in pictures.items()}
    models = folder / "models"
    return {**paths, "report": written} | (
        {"models": models} if models.exists() else {}
    )


def carry_out(
    experiment: ModuleType, command: flags.Command, *, exactly: bool = False
) -> "tuple[runs.Run, bool]":
    """Run a parsed command line to its end, unless the run is already finished.

    Args:
      experiment: Module of the experiment, as described in `main`.
      command: Parsed command line, from `flags.parse`.
      exactly: Data that the config names may be missing on this machine. If `exactly`
        is False, the experiment may use other data instead. If `exactly` is True, this
        is an error. If the experiment can run without the missing data, it leaves them
        out, whether `exactly` is True or False. In the config of the returned run, the
        field for the data that were left out is empty.
    Returns:
      The finished run, and whether it was already finished before this call.
    Raises:
      ValueError: One of these:

        - `exactly` is True, and missing data would be replaced;
        - the options have --portable (bits that are the same on many processors, as
          `backend.configure` explains), and this process cannot compute such bits;
        - `exactly` is False, the run is already finished, and the run and the options
          differ in --portable.
      OSError: Another process is working in the run folder, or the folder cannot be
        written.
    """
    from research import backend, runs

    options = command.options
    data.use_folder(options.data_dir)
    if options.portable:
        portable.pin_libraries()
    job.configure(command.config, portable=options.portable)
    if not getattr(experiment, "TIMES_COMPILATION", False):
        backend.keep_programs()
    file = Path(experiment.__file__ or experiment.__name__)
    config = _completed(experiment, command.config, exactly)
    job.refuse_if_busy(options.results / file.stem / runs.run_id(file.stem, config))
    # Number of runs advanced together; the bits depend on it.
    width = getattr(config, "width", None)
    run = runs.open_run(
        file.stem,
        config,
        options.results,
        options.fresh,
        width,
        code=[file],
        command=runs.command_line(file.stem, config, flags.program(experiment))
        + " --portable" * options.portable,
    )
    if run.finished:
        if not exactly:  # A reproduction begins anew.
            _check_as_portable(run.path, options)
        return run, True
    try:
        return _run(experiment, run, options), False
    finally:
        runs.close(run)


def _completed(experiment: ModuleType, config: Any, exactly: bool) -> Any:
    """Return a config with the digests of its files, and with data that exist.

    If `exactly` is True, ValueError is raised if missing data would be replaced.
    """
    # A file that a config names may change (a file of rules). `complete` writes its
    # digest into the config.
    complete = (
        experiment.complete(config) if hasattr(experiment, "complete") else config
    )
    for name, (was, now) in changed_fields(config, complete).items():
        if exactly and now:
            raise ValueError(
                f"The run used {name}={was!r}, which is missing on this machine. With "
                f"{name}={now!r} the result would be that of another run. Provide "
                f"{was!r}, and try again."
            )
    return complete


def _check_as_portable(folder: Path, options: flags.Options) -> None:
    """Raise ValueError if a finished run and the options differ in --portable."""
    from research import runs

    was = runs.read_manifest(folder)["environment"].get("portable") is not None
    if was != options.portable:
        raise ValueError(
            f"The run in {folder} was made {'with' if was else 'without'} --portable. "
            f"{'Add' if was else 'Leave out'} the flag to see it, use --fresh to run "
            "it again, or choose another folder (--results)."
        )


def changed_fields(before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two configs of the same class differ.

    Returns:
      Dict from the name of each such field to the pair (value before, value after). The
      dict is empty if `before` is not a dataclass.
    """
    names = (
        [field.name for field in dataclasses.fields(before)]
        if dataclasses.is_dataclass(before)
        else []
    )
    pairs = {name: (getattr(before, name), getattr(after, name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _run(experiment: ModuleType, run: "runs.Run", options: flags.Options) -> "runs.Run":
    from research import runs

    sentence = (
        f"Resuming {run.path} after {progress.duration(run.seconds)}; use --fresh "
        "to start from the beginning."
        if run.resumed
        else f"Running in {run.path}; the first compilation takes a while."
    )
    start = time.monotonic() - run.seconds
    with contextlib.nullcontext(_silent) if options.quiet else progress.shown() as show:
        announce = _once(lambda: _say(options, sentence))
        timer = threading.Timer(SILENT_SECONDS, announce)
        timer.daemon = True
        timer.start()
        on_progress = _recorded(run, _announced(show, announce), start)
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
        finally:
            timer.cancel()


def _once(action: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls `action` only once, whichever thread calls first."""
    lock, left = threading.Lock(), [action]

    def act() -> None:
        with lock:
            if left:
                left.pop()()

    return act


def _announced(
    show: progress.OnProgress, announce: Callable[[], None]
) -> progress.OnProgress:
    """Return an `on_progress` that first announces the run, and then shows progress.

    An experiment reports progress only after it has checked its config. So a run whose
    config is refused is not announced. If the first progress takes longer than
    `SILENT_SECONDS`, a timer announces the run.
    """

    def on_progress(done: float, total: float, message: str) -> None:
        announce()
        show(done, total, message)

    return on_progress


def _recorded(
    run: "runs.Run", show: progress.OnProgress, start: float
) -> progress.OnProgress:
    """Return an `on_progress` that shows the progress and writes it to the metrics.

    A line is appended to the metrics when a unit of work begins or ends (`done` is then
    an integer), and otherwise at most once a second.
    """
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
        return f"The progress is saved in {run.path}; rerun the same command to resume."
    return (
        f"No progress is saved in {run.path} yet; rerun the same command to start "
        "again."
    )


def _forget_if_empty(folder: Path) -> None:
    """Delete a run folder that contains only a manifest and a lock.

    Bad input leaves such a folder.
    """
    if {file.name for file in folder.iterdir()} <= {"manifest.json", ".lock"}:
        shutil.rmtree(folder)


def _silent(done: float, total: float, message: str) -> None:
    del done, total, message


def _say(options: flags.Options, sentence: str) -> None:
    if not options.quiet:
        print(sentence, file=sys.stderr, flush=True)
