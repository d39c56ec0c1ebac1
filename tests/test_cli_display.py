"""What a command line shows: progress, tables, errors, help within half a second, and
what Ctrl-C leaves.
"""

import io
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from research import cli, runs
from research.cli import console, progress
from research.cli import errors as problems

TOP = Path(__file__).parent.parent
TOY = TOP / "tests/toy.py"
PAGES = [
    TOY,
    *(
        file
        for file in sorted((TOP / "experiments").glob("*.py"))
        if not file.stem.startswith("_")
    ),
]
HEAVY = {"jax", "jaxlib", "optax", "flax", "sklearn", "scipy", "matplotlib"}
# Runs a script as `python SCRIPT --help` does, then names what was imported.
HELP = """
import atexit, runpy, sys
atexit.register(lambda: print("imported", *sys.modules))
sys.argv = [sys.argv[1], "--help"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
TABLE = runs.Table(
    "Effort on breast_cancer, in passes over the data",
    (
        "regime",
        "learning rate",
        "to 1 %",
        "95 % interval",
        "to 0.01 %",
        "95 % interval",
        "reached",
        "seconds a pass",
    ),
    (
        (
            "mini-batch of 32 without replacement",
            0.0625,
            7.4051,
            "7.1 to 7.9",
            41.0,
            "39.7 to 44.1",
            10,
            1.25e-3,
        ),
        ("full batch", 2.0, 120.0, "118 to 122", None, None, 0, 5.5e-4),
    ),
    "Ten seeds each.",
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def python(*words, cwd=TOP):
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=cwd
    )


def seconds_of(*words):
    """Seconds of a processor that `python WORDS` takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    python(*words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def shown(width=None, stream=None, tables=(TABLE,)):
    stream = stream or io.StringIO()
    console.show(
        runs.Result("Mini-batch wins.", tables, {}, {}),
        {"report": Path("r.html")},
        stream=stream,
        width=width,
    )
    return stream.getvalue()


# Help and the list


@pytest.mark.on_ci("another experiment", but="compare")
@pytest.mark.thorough("the other experiments", but=r"^(fit_a_line|compare)\]")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_help_imports_no_jax_and_describes_every_flag(page):
    done = python("-c", HELP, page)
    assert done.returncode == 0, done.stderr
    text, _, imported = done.stdout.partition("imported ")
    assert text.count("--full") >= 1
    assert not HEAVY & set(imported.split())


@pytest.mark.thorough("fifteen processes; make test sees that help imports no jax")
def test_help_and_the_list_cost_little_more_than_the_libraries_they_import():
    """A ratio in one run, the least of five: how busy the machine is falls out.
    benchmarks/startup.py has the seconds.
    """
    help_text, experiments, libraries = [], [], []
    for _ in range(5):
        libraries.append(
            seconds_of("-c", "import numpy, rich.console, typeguard, tyro")
        )
        help_text.append(seconds_of(PAGES[-1], "--help"))
        experiments.append(seconds_of("-m", "experiments"))
    assert min(help_text) < 1.8 * min(libraries)
    assert min(experiments) < min(libraries)


@pytest.mark.on_ci("two processes; nothing shorter shows this")
def test_help_shows_the_question_the_defaults_and_what_each_flag_means():
    text = python(TOY, "--help").stdout
    for part in (
        "Does a toy add up?",
        "--learning-rate FLOAT",
        "Does nothing. (default: 0.1)",
        "Stands above the sum.",
    ):
        assert part in text
    assert "(default: 10 20 30)" in python(TOY, "--full", "--help").stdout


def test_experiments_are_listed_with_their_questions_without_importing_them():
    done = python("-X", "importtime", "-m", "experiments")
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in done.stderr.splitlines()
    }
    assert not HEAVY & imported
    listed = dict(
        line.split("  ", 1) for line in done.stdout.partition("\n\n")[0].splitlines()
    )
    assert list(map(str.strip, listed)) == [page.stem for page in PAGES[1:]]
    assert all(question.strip().endswith("?") for question in listed.values())


@pytest.mark.on_ci("two processes; nothing shorter shows this")
def test_experiment_is_run_by_name_and_the_nearest_is_offered():
    name = PAGES[-1].stem
    assert (
        f"experiments/{name}.py" in python("-m", "experiments", name, "--help").stdout
    )
    done = python("-m", "experiments", name[:-1])
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == f"error: Unknown experiment {name[:-1]!r}. Did you mean {name}?\n"
    )


# Progress


def test_log_gets_a_line_at_most_every_minute_with_time_left():
    log, now = io.StringIO(), 0.0
    with progress.shown(log, clock=lambda: now) as on_progress:
        for second in range(0, 241, 5):
            now = float(second)
            on_progress(second, 480, f"step {second}")
    assert log.getvalue().splitlines() == [
        "  0 %  0 s  step 0",
        " 12 %  1 min 0 s, 7 min 0 s left  step 60",
        " 25 %  2 min 0 s, 6 min 0 s left  step 120",
        " 38 %  3 min 0 s, 5 min 0 s left  step 180",
        " 50 %  4 min 0 s, 4 min 0 s left  step 240",
    ]


def test_time_left_of_a_resumed_run_counts_what_this_process_did():
    log, now = io.StringIO(), 0.0
    with progress.shown(log, clock=lambda: now) as on_progress:
        for second, done in ((0, 90), (60, 95)):
            now = float(second)
            on_progress(done, 100, "digits")
    assert log.getvalue().splitlines()[-1] == " 95 %  1 min 0 s, 1 min 0 s left  digits"


def test_terminal_gets_a_bar_with_message_and_time_left():
    terminal = Terminal()
    with progress.shown(terminal) as on_progress:
        on_progress(1, 4, "breast_cancer")
        on_progress(2.0, 4.0, "diabetes")
    last = terminal.getvalue().split("\r")[-1 - terminal.getvalue().endswith("\r")]
    assert "50 % |" in terminal.getvalue()
    assert "left  diabetes" in terminal.getvalue()
    assert not last.strip()  # The bar makes way for the answer.


# Tables


def test_pipe_gets_whole_rows_and_no_control_codes():
    text = shown()
    assert "\x1b" not in text
    (row,) = [line for line in text.splitlines() if line.startswith("mini-batch")]
    for cell in (
        "mini-batch of 32 without replacement",
        "0.0625",
        "7.41",
        "39.7 to 44.1",
        "10",
        "0.00125",
    ):
        assert cell in row
    (row,) = [line for line in text.splitlines() if line.startswith("full batch")]
    assert row.split("  ").count("") > 0
    assert row.count("not reached") == 2


@pytest.mark.parametrize("width", [200, 120, 100, 90])
def test_table_fits_its_terminal_and_breaks_no_number_and_no_word(width):
    text = shown(width, Terminal()).replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert max(map(len, text.splitlines())) <= width
    words = set(text.split())
    cells = [console.cell(value) for row in TABLE.rows for value in row]
    assert {word for text in (*cells, *TABLE.columns) for word in text.split()} <= words
    for interval in ("7.1 to 7.9", "39.7 to 44.1", "118 to 122"):
        assert interval in text


@pytest.mark.parametrize("width", [80, 40])
def test_terminal_too_narrow_for_the_numbers_gets_a_list_a_row(width):
    lines = shown(width, Terminal()).splitlines()
    assert max(map(len, lines)) <= width + len("\x1b[1m\x1b[0m")
    assert "  to 1 %: 7.41" in lines
    assert "  to 0.01 %: not reached" in lines
    assert "  seconds a pass: 0.00125" in lines


def test_table_of_six_columns_fits_80():
    table = TABLE._replace(
        columns=TABLE.columns[:6], rows=tuple(row[:6] for row in TABLE.rows)
    )
    text = shown(80, Terminal(), (table,))
    assert "full batch" in text
    assert "  to 1 %: 7.41" not in text.splitlines()


def test_first_table_is_printed_and_the_others_are_counted():
    text = shown(
        tables=(TABLE, TABLE._replace(title="Other"), TABLE._replace(title="Third"))
    )
    assert "Other" not in text
    assert "2 more tables are in the report." in text.splitlines()
    assert "1 more table is in the report." in shown(tables=(TABLE, TABLE)).splitlines()


def test_brackets_in_text_are_printed_as_they_are():
    table = runs.Table("[bold]", ("[red]a",), (("[x] :smile:",),))
    text = shown(tables=(table,))
    assert all(part in text for part in ("[bold]", "[red]a", "[x] :smile:"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float64(0.123456), "0.123"),
        (np.int64(70000), "70,000"),
        (999.6, "1,000"),
        (1234.5, "1,230"),
        (999_999.0, "1e+06"),
        (-45678.0, "-45,700"),
        (0.0, "0"),
        (1e-12, "1e-12"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_cell_has_three_significant_digits(value, text):
    assert console.cell(value) == text


# Errors and stops


def test_missing_package_names_the_extra_that_brings_it():
    selenium = problems.explain(
        ModuleNotFoundError("No module named 'selenium'", name="selenium.webdriver")
    )
    assert (
        selenium
        == "This needs the package selenium, which is not installed: pip install"
        " 'descent-jax[browser]'"
    )
    sklearn = problems.explain(
        ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    )
    assert sklearn.startswith(
        "This needs the package sklearn, which is not installed: pip install "
        "'scikit-learn>="
    )


def test_our_own_message_comes_without_a_hint_and_a_slip_with_one():
    from research import backend

    with pytest.raises(ValueError, match="devices") as ours:
        backend.configure(devices=0)
    assert (
        problems.explain(ours.value)
        == "devices must be a positive integer, at most 65536; got devices=0."
    )
    with pytest.raises(TypeError) as slip:
        progress.duration(None)
    assert problems.explain(slip.value).endswith(
        "(Set DESCENT_TRACEBACK=1 to see the traceback.)"
    )


@pytest.mark.on_ci(
    "a process that is stopped; test_ctrl_c_ends_in_one_line (test_commands.py) has "
    "the status and the line"
)
def test_ctrl_c_says_what_is_saved_and_exits_with_130(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    command = [sys.executable, str(TOY), "--fault", "slow"]
    with subprocess.Popen(
        command,
        stdout=-1,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment,
    ) as process:
        for line in process.stderr:
            if "adding 1" in line:
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    (folder,) = (tmp_path / "results/toy").iterdir()
    sentence = (
        f"Stopped. No progress is saved in {folder.relative_to(tmp_path)} yet; rerun "
        "the same command to start"
    )
    assert err.strip().startswith(sentence)
    assert "Traceback" not in err


@pytest.mark.thorough("a run; make test has the list", but=r"^-m")
@pytest.mark.parametrize("words", [f"{TOY} --quiet", "-m experiments"])
def test_reader_that_has_seen_enough_is_no_error(tmp_path, words):
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    command = f"{sys.executable} {words} | true"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_broken_pipe_that_is_not_our_output_is_an_error(tmp_path, capfd):
    with open(tmp_path / "out", "w") as out, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as stop, cli.errors_in_one_line():
            raise BrokenPipeError(32, "Broken pipe")
    assert stop.value.code == cli.BAD_INPUT
    assert "Broken pipe" in capfd.readouterr().err
