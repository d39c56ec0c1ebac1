"""Command lines from end to end, on a toy experiment: flags, files, results, bad
input.
"""

import dataclasses
import importlib.util
import json
import shlex
import sys
import time
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from research import cli, runs
from research.cli import flags

TOY = Path(__file__).parent / "toy.py"


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toy as a module; the current folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("toy", TOY)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "toy", module)  # Dataclasses look their module up.
    spec.loader.exec_module(module)
    return module


def test_number_that_no_experiment_can_use_is_refused_before_the_run(toy, capsys):
    for words, sentence in (
        ("--learning-rate nan", "learning_rate must be a finite number; got"),
        ("--learning-rate inf", "learning_rate must be a finite number; got"),
        (
            f"--terms 1 {10**30}",
            "terms must be at most 2,147,483,647; got terms=(1, 1000",
        ),
    ):
        with pytest.raises(SystemExit, match="2"):
            cli.main(toy, words.split())
        assert sentence in capsys.readouterr().err
    assert not Path("runs.log").exists()
    for seed in (-1, 2**32):
        config = dataclasses.make_dataclass("Config", ["seed", "search_seed"])
        for bad in (config(seed, 0), config(0, seed)):
            with pytest.raises(
                ValueError, match=r"seed must be an integer in 0\.\.2³²-1"
            ):
                flags.check_values(bad)
    flags.check_values(config(0, 2**32 - 1))


def test_run_is_announced_when_its_config_is_accepted(toy, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(toy, ["--fault", "value"])
    assert "Running in" not in capsys.readouterr().err
    cli.main(toy, [])
    assert capsys.readouterr().err.count("Running in") == 1


def test_run_without_progress_is_announced_after_a_while(toy, capsys, monkeypatch):
    def conduct(*given):
        time.sleep(0.5)
        assert capsys.readouterr().err.count("Running in") == 1
        raise ValueError("too late")

    monkeypatch.setattr(cli, "SILENT_SECONDS", 0.01)
    monkeypatch.setattr(cli, "conduct", conduct)
    with pytest.raises(SystemExit, match="2"):
        cli.main(toy, [])
    assert "Running in" not in capsys.readouterr().err


def times_run():
    return len(Path("runs.log").read_text().splitlines())


# Flags


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ("--terms 4 5", "terms", (4, 5)),
        ("--terms", "terms", ()),
        ("--terms 4 --terms 5", "terms", (4, 5)),
        ("--terms=4 --label big --terms 5 6", "terms", (4, 5, 6)),
        ("--names digits breast_cancer --loud", "names", ("digits", "breast_cancer")),
        ("--learning-rate 1e-3", "learning_rate", 1e-3),
        ("--learning_rate=2", "learning_rate", 2.0),
        ("--label big", "label", "big"),
        ("--loud --no-loud", "loud", False),
        ("--full", "terms", (10, 20, 30)),
        ("--full --terms 7", "terms", (7,)),
    ],
)
def test_flag_sets_its_field(toy, words, field, value):
    given = getattr(flags.parse(toy, words.split()).config, field)
    assert given == value
    assert type(given) is type(value)


def test_options_are_those_of_every_experiment(toy):
    options = flags.parse(toy, ["--results", "elsewhere", "--fresh", "--quiet"]).options
    assert options == flags.Options(results=Path("elsewhere"), fresh=True, quiet=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--learning-rat 3",
            "Unknown flag --learning-rat. Did you mean --learning-rate?",
        ),
        (
            "--leanring_rate=3",
            "Unknown flag --leanring_rate. Did you mean --learning-rate?",
        ),
        ("--ful", "Unknown flag --ful. Did you mean --full?"),
        ("--terms 1 --result x", "Unknown flag --result. Did you mean --results?"),
        ("--zzz", "Unknown flag --zzz. Choose from --terms, --names,"),
        ("3", "Unexpected words '3' on the command line"),
        ("--config nowhere.toml", "--config must name a file that exists; 'nowhere."),
        ("--loud yes", "--loud takes no value; got 'yes'. Write --loud or --no-loud."),
    ],
)
def test_unknown_word_is_refused_with_the_nearest(toy, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        cli.main(toy, words.split())
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {message}")
    assert printed.err.count("\n") == 1
    assert not printed.out
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("--terms 1 x", "--terms"),
        ("--learning-rate x", "--learning-rate"),
        ("--label", "--label"),
    ],
)
def test_wrong_type_names_the_flag(toy, capsys, words, flag):
    with pytest.raises(SystemExit) as stop:
        cli.main(toy, words.split())
    assert stop.value.code == 2
    assert flag in capsys.readouterr().err


@pytest.mark.thorough(
    "drawn configs; test_command_line_makes_the_same_config_again "
    "(test_runs_values.py) has the law of a few"
)
@hypothesis.given(
    st.builds(
        dict,
        terms=st.lists(st.integers(max_value=2**31 - 1)).map(tuple),
        names=st.lists(st.from_regex(r"[a-z_]+", fullmatch=True)).map(tuple),
        learning_rate=st.floats(allow_nan=False, allow_infinity=False),
        label=st.none() | st.from_regex(r"[a-z]+[ a-z\"'$]*", fullmatch=True),
        loud=st.booleans(),
    )
)
@hypothesis.settings(
    max_examples=30,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
    deadline=None,
)
def test_command_in_the_manifest_gives_the_same_config(toy, values):
    config = toy.Config(**values)
    python, script, *words = shlex.split(runs.command_line("toy", config))
    assert (python, script) == ("python", "experiments/toy.py")
    assert flags.parse(toy, words).config == config


# Files


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", 'terms = [4, 5]\nlearning-rate = 1\nlabel = "x"'),
        ("a.json", '{"terms": [4, 5], "learning_rate": 1.0, "label": "x"}'),
        (
            "manifest.json",
            (
                '{"id": "f00", "config": {"terms": [4, 5], "learning_rate": 1.0, '
                '"label": "x"}}'
            ),
        ),
    ],
)
def test_file_is_a_start_that_flags_win_over(toy, name, text):
    Path(name).write_text(text)
    assert flags.parse(toy, ["--config", name]).config == toy.Config(
        terms=(4, 5), learning_rate=1.0, label="x"
    )
    assert flags.parse(
        toy, ["--label", "y", f"--config={name}", "--full"]
    ).config == toy.Config(terms=(4, 5), learning_rate=1.0, label="y")


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        (
            "a.toml",
            "leaning_rate = 1",
            ValueError,
            (
                "'leaning_rate', which is not a field of Config. Did you mean "
                "learning_rate"
            ),
        ),
        (
            "a.toml",
            'learning_rate = "fast"',
            TypeError,
            "learning_rate must be float; got 'fast' in a.toml",
        ),
        (
            "a.toml",
            'learning_rate = "3"',
            TypeError,
            "learning_rate must be float; got '3'",
        ),
        (
            "a.toml",
            "learning_rate = true",
            TypeError,
            "learning_rate must be float; got True",
        ),
        (
            "a.toml",
            "terms = [1, 2.5]",
            TypeError,
            r"terms must be tuple\[int, ...\]; got \[1, 2.5\]",
        ),
        ("a.toml", "terms = 1", TypeError, "terms must be"),
        ("a.json", '{"loud": 1}', TypeError, "loud must be bool; got 1"),
        ("a.json", '{"terms": [true]}', TypeError, "terms must be"),
        ("a.json", '{"label": 3}', TypeError, "label must be str | None; got 3"),
        ("a.json", "[1]", ValueError, "must contain a table"),
        ("a.json", "{", ValueError, r"^a.json is not valid JSON \(Expecting"),
        ("a.toml", "= 3", ValueError, "a.toml is not valid TOML"),
        ("a.yaml", "", ValueError, "ends in .toml or .json; got 'a.yaml'"),
    ],
)
def test_bad_file_is_refused_by_name(toy, name, text, error, message):
    Path(name).write_text(text)
    with pytest.raises(error, match=message.replace("|", r"\|")):
        flags.parse(toy, ["--config", name])


# From end to end


def test_run_prints_its_answer_its_tables_and_where_the_files_are(toy, capsys):
    assert cli.main(toy, ["--learning-rate", "0.2"]) == 0
    printed = capsys.readouterr()
    (folder,) = Path("results/toy").iterdir()
    lines = printed.out.splitlines()
    assert lines[:3] == ["Does a toy add up?", "", "It adds up to [6]."]
    assert lines[-2:] == [f"sum: {folder}/sum.svg", f"report: {folder}/report.html"]
    assert [line.split() for line in lines if line.startswith(("one", "name"))] == [
        ["name", "value"],
        ["one", "1"],
    ]
    assert "No term is lost." in lines
    assert "\x1b" not in printed.out
    assert "the first compilation takes a while" in printed.err
    assert "Does a toy add up?" in (folder / "report.html").read_text()
    metrics = [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["message"] for line in metrics] == ["adding 1", "adding 2", "adding 3"]


@pytest.mark.on_ci("three runs; nothing shorter shows this from the command line")
def test_finished_run_is_drawn_again_without_running(toy, capsys):
    cli.main(toy, [])
    first = capsys.readouterr()
    cli.main(toy, [])
    second = capsys.readouterr()
    assert times_run() == 1
    assert second.out == first.out
    assert second.err.startswith(
        "Already finished: the report is made from results/toy/"
    )
    cli.main(toy, ["--fresh"])
    assert times_run() == 2
    cli.main(toy, ["--terms", "1"])
    assert times_run() == 3


def test_quiet_prints_answer_and_paths_alone(toy, capsys):
    cli.main(toy, ["--quiet"])
    printed = capsys.readouterr()
    assert not printed.err
    assert [line.partition(" ")[0] for line in printed.out.splitlines() if line] == [
        "It",
        "sum:",
        "report:",
    ]


@pytest.mark.on_ci("other errors", but="^value")
@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (
            "value",
            (
                "terms must be positive; got -1. Choose others. (Set "
                "DESCENT_TRACEBACK=1 to see the traceback.)"
            ),
        ),
        (
            "shape",
            (
                "operands could not be broadcast together with shapes (2,) (3,) (Set "
                "DESCENT_TRACEBACK=1 to see the traceback.)"
            ),
        ),
        (
            "package",
            "This needs the package tensorboard_that_is_not_there, which is not "
            "installed: pip install 'tensorboard_that_is_not_there'",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    toy, capsys, monkeypatch, fault, line
):
    with pytest.raises(SystemExit) as stop:
        cli.main(toy, ["--fault", fault, "--quiet"])
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", f"error: {line}\n")
    assert not list(Path("results/toy").iterdir())
    monkeypatch.setenv("DESCENT_TRACEBACK", "1")
    with pytest.raises((ValueError, ImportError)):
        cli.main(toy, ["--fault", fault])
