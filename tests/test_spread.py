"""Laws of spreading: jobs that share an experiment find what one process finds, and
nothing finished is done again.
"""

import os
import signal
import sys
import textwrap
import time
import types
from pathlib import Path

import filelock
import numpy as np
import pytest

from experiments import __main__ as experiments
from experiments import compare
from research import cli, comparison, runs
from research.cli import flags, job, spread

COMPILE_QUICKLY = CHILDREN_COMPILE_QUICKLY = True  # tests/conftest.py

# An experiment that adds, and says who computed what; `fault` is what goes wrong with
# its last term.
ADDS = '''"""Does it add up?"""

import dataclasses, os, pathlib, signal, time
import research


@dataclasses.dataclass(frozen=True)
class Config:
    terms: tuple[int, ...] = (1, 2, 3, 4)
    folder: str = ""
    fault: str = ""


FULL = Config()


def term(config, number, checkpoints):
    def compute(parts):
        folder = pathlib.Path(config.folder)
        with open(folder / "log", "a") as log:
            log.write(f"{number} {os.getpid()}\\n")
        in_a_job = "SUBMITIT_EXECUTOR" in os.environ
        if in_a_job and number == config.terms[-1] and not (folder / "spared").exists():
            if config.fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if config.fault == "wrong":
                raise ValueError("terms must be odd; got 4.")
            while config.fault == "slow":
                time.sleep(0.01)
        return research.types.Saved({}, number)

    return research.runs.remembered(checkpoints, f"term {number}", compute).values


def share(config, part, parts, checkpoints):
    for number in config.terms[part::parts]:
        term(config, number, checkpoints)


def run(config, on_progress, checkpoints):
    total = sum(term(config, number, checkpoints) for number in config.terms)
    return research.runs.Result(f"It adds up to {total}.", (), {}, {"total": total})


def draw(result):
    return {}
'''
wait = time.sleep  # One test replaces it.
CLOCKS = {"compile_seconds", "seconds", "seconds_per_pass"}


@pytest.fixture
def adds(tmp_path, monkeypatch):
    """Name of an experiment -> the module of ADDS, in a folder of its own that is the
    working one.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(spread, "SECONDS_BETWEEN_LOOKS", 0.05)
    (tmp_path / "adds.py").write_text(ADDS)
    module = types.ModuleType("adds")
    module.__file__ = str(tmp_path / "adds.py")
    monkeypatch.setitem(sys.modules, "adds", module)
    exec(compile(ADDS, module.__file__, "exec"), vars(module))
    return lambda name: module


def call(adds, *words):
    """Spreads the experiment, bad input in one line and all."""
    with cli.errors_in_one_line():
        return spread.spread(["adds", "--folder", str(Path.cwd()), *words], adds)


def computed():
    """(term, process) in the order of the log."""
    return [
        tuple(map(int, line.split())) for line in Path("log").read_text().splitlines()
    ]


def folder():
    (path,) = Path("results/adds").iterdir()
    return path


def values(numbers):
    """Numbers without those of a clock."""
    if isinstance(numbers, dict):
        return {
            name: values(value) for name, value in numbers.items() if name not in CLOCKS
        }
    return (
        [values(value) for value in numbers] if isinstance(numbers, list) else numbers
    )


@pytest.mark.thorough("a whole comparison; make test spreads an experiment that adds")
def test_spread_comparison_has_the_bits_of_one_process(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "draw", lambda result: {})
    words = [
        "--rule",
        "gradient_descent",
        "heavy_ball",
        "--workload",
        "quadratic",
        "--searches",
        "2",
        "--budget",
        "2",
        "--quiet",
    ]
    words += ["--passes", "4", "--seeds", "0..2", "--tuning-seeds", "7,8,9,10"]
    module, here = sys.modules["research.comparison.trials"], []
    measure_contender = comparison.measure_contender
    monkeypatch.setattr(
        module,
        "measure_contender",
        lambda *a, **k: here.append(a) or measure_contender(*a, **k),
    )
    assert (
        experiments.main(
            [
                "spread",
                "compare",
                *words,
                "--results",
                str(tmp_path / "spread"),
                "--jobs",
                "2",
            ]
        )
        == 0
    )
    assert not here  # The jobs, which are other processes, did all of it.
    command = flags.parse(compare, [*words, "--results", str(tmp_path / "alone")])
    alone = runs.load_result(cli.carry_out(compare, command)[0].path)
    assert len(here) == 2
    (path,) = (tmp_path / "spread/compare").iterdir()
    together = runs.load_result(path)
    assert list(together.arrays) == list(alone.arrays)
    assert {n: a.tobytes() for n, a in together.arrays.items()} == {
        n: a.tobytes() for n, a in alone.arrays.items()
    }
    assert together.answer == alone.answer
    assert values(together.numbers) == values(alone.numbers)
    assert path.name in capsys.readouterr().out
    assert np.isfinite(together.arrays["quadratic/heavy_ball/final"]).all()


@pytest.mark.on_ci(
    "a job that is killed; test_debug_jobs_run_in_this_process_and_leave_only_logs has "
    "jobs that are not"
)
def test_killed_job_costs_what_it_had_not_finished(adds, capsys):
    words = ("--fault", "killed", "--jobs", "2")
    with pytest.raises(SystemExit):
        call(adds, *words)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: job 2 of 2: it was stopped from outside")
    assert sorted(number for number, _ in computed()) == [1, 2, 3, 4]
    Path("spared").touch()
    assert call(adds, *words) == 0
    assert [number for number, _ in computed()[4:]] == [4]
    processes = {process for _, process in computed()}
    assert len(processes) == 3
    assert os.getpid() not in processes
    assert runs.load_result(folder()).numbers == {"total": 10}
    assert call(adds, *words) == 0  # It is finished: nothing is submitted any more.
    assert "the report is made from" in capsys.readouterr().err
    assert len(computed()) == 5


@pytest.mark.on_ci("jobs in other processes; nothing shorter shows this")
def test_failed_job_is_told_with_its_error_and_its_log(adds, capsys):
    with pytest.raises(SystemExit):
        call(adds, "--fault", "wrong", "--jobs", "2")
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        "error: job 2 of 2: terms must be odd; got 4. (log: results/adds/"
    )
    assert error.endswith(
        "The finished work is kept; rerun the same command to resume."
    )
    log = Path(error.partition("(log: ")[2].partition(")")[0])
    assert "ValueError: terms must be odd; got 4." in log.read_text()
    assert 'adds.py", line' in log.read_text()
    assert sorted(number for number, _ in computed()) == [1, 2, 3, 4]


def test_debug_jobs_run_in_this_process_and_leave_only_logs(adds):
    assert (
        call(
            adds,
            "--cluster",
            "debug",
            "--jobs",
            "3",
            "--minutes",
            "1",
            "--memory",
            "1.5",
        )
        == 0
    )
    assert computed() == [(number, os.getpid()) for number in (1, 4, 2, 3)]
    assert runs.load_result(folder()).numbers == {"total": 10}
    left = [
        file
        for file in (folder() / "jobs").rglob("*")
        if file.is_file() and file.name != "current"
    ]
    assert not [file for file in left if file.suffix not in (".out", ".err")]


def ends(process, seconds=60.0):
    """Whether a process ends in this time: a job dies a moment after its signal."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        wait(0.05)
    return False


@pytest.mark.on_ci("jobs in other processes; nothing shorter shows this")
def test_ctrl_c_stops_the_jobs_and_keeps_what_they_finished(adds, monkeypatch, capfd):
    def sleep(seconds):
        wait(seconds)
        if Path("log").exists() and len(computed()) == 4 and not stopped:
            stopped.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    stopped = []
    monkeypatch.setattr(spread.time, "sleep", sleep)
    with pytest.raises(SystemExit) as end:
        call(adds, "--fault", "slow", "--jobs", "2")
    assert end.value.code == 130
    printed = capfd.readouterr().err
    assert "rerun the same command to resume" in printed
    assert "Traceback" not in printed
    job.refuse_if_busy(Path(folder()))
    for _, process in computed():
        assert ends(process)
    assert {file.parent.name[:6] for file in folder().glob("checkpoints/*/*.json")} == {
        "term-1",
        "term-2",
        "term-3",
    }


def test_second_command_waits_for_the_jobs_of_the_first(adds, capsys):
    config = adds("adds").Config(folder=str(Path.cwd()))
    path = Path("results/adds") / runs.run_id("adds", config)
    (path / "jobs").mkdir(parents=True)
    with filelock.FileLock(path / "jobs/0.lock"), pytest.raises(SystemExit):
        call(adds)
    assert "Jobs of an earlier command are still running" in capsys.readouterr().err
    assert not (path / "manifest.json").exists()


def task_of(path, command="now"):
    config = {"folder": str(Path.cwd())}
    return job.Task("adds", str(Path.cwd()), config, 0, 1, str(path), command, {})


def test_job_of_an_earlier_command_does_not_begin(adds, tmp_path):
    run = runs.open_run(
        "adds", adds("adds").Config(), tmp_path / "results", code=["adds.py"]
    )
    (run.path / "jobs").mkdir()
    (run.path / "jobs/current").write_text("now")
    outcome = job.compute_part(task_of(run.path, "before"))
    assert outcome.fault.startswith("The job 0 stops: another command has begun")
    assert str(run.path) in outcome.fault
    assert not Path("log").exists()
    assert job.compute_part(task_of(run.path)) == job.Outcome(None, [])
    runs.close(run)


def test_job_with_other_code_is_refused_and_another_processor_told(
    adds, tmp_path, monkeypatch, capsys
):
    run = runs.open_run(
        "adds", adds("adds").Config(), tmp_path / "results", code=["adds.py"]
    )
    (run.path / "jobs").mkdir()
    (run.path / "jobs/current").write_text("now")
    environment = runs.environment

    def elsewhere(*of):
        return environment(*of) | {"processor": {"model": "Abacus"}}

    monkeypatch.setattr(runs, "environment", elsewhere)
    outcome = job.compute_part(task_of(run.path))
    assert outcome.fault is None
    (words,) = outcome.differences
    assert words.startswith("processor ")
    assert "Abacus here" in words
    spread._check([outcome, outcome], [tmp_path, tmp_path])
    assert capsys.readouterr().err.count("Abacus") == 1
    Path("adds.py").write_text(ADDS.replace("term(config", "term (config"))
    fault = job.compute_part(task_of(run.path)).fault
    assert fault is not None
    assert "other code" in fault
    runs.close(run)


BAD = [
    (["--jobs", "0"], "error: --jobs must be at least 1; got 0."),
    (["--minutes", "0"], "error: --minutes must be at least 1; got 0."),
    (
        ["--cluster", "locale"],
        "error: Unknown cluster 'locale'. Did you mean local?",
    ),
    (
        ["--slurm", "partition"],
        "error: --slurm must be NAME=VALUE, such as partition=short; got 'partition'.",
    ),
    (["--terns", "1"], "error: Unknown flag --terns. Did you mean --terms?"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_bad_input_is_one_line_and_leaves_nothing(adds, capsys, words, message):
    with pytest.raises(SystemExit) as end:
        call(adds, *words)
    assert (end.value.code, capsys.readouterr().err.strip()) == (2, message)
    assert not Path("results").exists()


def test_queue_that_is_not_there_is_said(adds, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit):
        call(adds, "--cluster", "slurm")
    assert "needs srun, which is not installed" in capsys.readouterr().err


def test_experiment_that_cannot_be_shared_is_named(capsys):
    with pytest.raises(SystemExit):
        experiments.main(["spread", "fit_a_line"])
    error = capsys.readouterr().err
    assert error.startswith("error: fit_a_line cannot be split into jobs")
    assert "python -m experiments fit_a_line" in error


def test_missing_package_is_named_with_what_to_install(adds, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SystemExit):
        call(adds)
    assert "pip install submitit" in textwrap.shorten(capsys.readouterr().err, 200)
