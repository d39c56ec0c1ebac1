"""The console command `descent`: its list, typos, statuses, and each command outside a
clone.
"""

import configparser
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import research.__main__
from experiments import __main__ as experiments
from research.cli import commands, launch
from research.runs import Result, finish, open_run
from research.runs.archive import pack, read_contents, unpack

COMPILE_QUICKLY = CHILDREN_COMPILE_QUICKLY = True  # tests/conftest.py

TOP = Path(__file__).parent.parent
SECONDS = 0.5  # Of processor time, for any --help.
STUDY = [
    *("--workload", "quadratic", "--budget", "1", "--passes", "5", "--target", "0.9"),
    *("--searches", "2", "--tuning-seeds", "1000..1003", "--seeds", "0..2"),
    *("--width", "2", "--quiet"),
]
RULE = "import optax\ndef mine(rate):\n    return optax.sgd(rate)\n"
# Runs each list of words as one command, and prints their statuses at the end.
SEVERAL = """
import glob, json, sys
from research.cli.commands import main
statuses = []
for words in json.loads(sys.argv[1]):
    words = [(glob.glob(word) or [word])[0] if "*" in word else word for word in words]
    try:
        statuses.append(main(words))
    except SystemExit as end:
        statuses.append(end.code)
import research
facts = [statuses, research.__file__, "experiments" in sys.modules]
print("statuses", json.dumps(facts))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds what the wheel holds, and nothing else of the clone."""
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg", encoding="utf-8")
    kept = ("*.py", *setup["options.package_data"]["*"].split())
    folder = tmp_path_factory.mktemp("installed")

    def others(path, names):
        files = [name for name in names if Path(path, name).is_file()]
        return [n for n in files if not any(map(Path(n).match, kept))] + ["__pycache__"]

    shutil.copytree(TOP / "research", folder / "research", ignore=others)
    return folder


def outside(installed, folder, *words):
    """A Python process in a folder that is no clone, on the installed package alone."""
    variables = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


def several(installed, folder, *lines):
    """What several commands print in one process outside a clone, and their
    statuses.
    """
    done = outside(installed, folder, "-c", SEVERAL, json.dumps(lines))
    assert done.returncode == 0, done.stderr
    out, _, last = done.stdout.rpartition("statuses ")
    statuses, place, has_experiments = json.loads(last)
    assert Path(place).is_relative_to(installed)
    assert not has_experiments
    return out, done.stderr, statuses


def command(capsys, *words):
    """The status, standard output and standard error of one command."""
    capsys.readouterr()
    try:
        status = commands.main([str(word) for word in words])
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


def refused(capsys, *words):
    """The one line of a command that is refused."""
    status, out, err = command(capsys, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    return err.removeprefix("error: ").strip()


# The list of commands


def test_entry_point_is_the_function_of_python_m_research():
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg", encoding="utf-8")
    name, _, place = setup["options.entry_points"]["console_scripts"].partition("=")
    module, _, function = place.strip().partition(":")
    assert name.strip() == "descent"
    assert getattr(sys.modules[module], function) is research.__main__.main


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_list_names_every_command_and_fits_88_columns(words, capsys):
    status, out, err = command(capsys, *words)
    assert (status, err) == (0, "")
    for name, entry in commands.COMMANDS.items():
        assert f"  {name:11}  {entry.summary}\n" in out
    assert max(map(len, out.splitlines())) <= 88


def test_version_names_what_bits_depend_on(capsys):
    status, out, _ = command(capsys, "--version")
    assert status == 0
    names = [line.partition(" ")[0] for line in out.splitlines()]
    assert names == ["descent-jax", "jax", "jaxlib", "numpy", "python"]
    assert command(capsys, "-V")[1] == out


@pytest.mark.thorough("the other commands", but=r"^(|compare|explain|leaderboard)\]")
@pytest.mark.on_ci(
    "the help of the program and of two more commands", but=r"^compare\]"
)
@pytest.mark.parametrize("name", ["", *commands.COMMANDS])
def test_help_costs_little_and_imports_no_jax(name):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = (
        "import atexit, sys\nfrom research.cli.commands import main\n"
        "atexit.register(lambda: print('jax' in sys.modules))\nmain(sys.argv[1:])"
    )
    words = [sys.executable, "-c", code, *filter(None, [name]), "--help"]
    done = subprocess.run(words, cwd=TOP, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.startswith(f"usage: descent {name}".rstrip())
    assert done.stdout.endswith("False\n")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < SECONDS


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["verfy"], "Unknown command 'verfy'. Did you mean verify?"),
        (["--versoin"], "Unknown flag --versoin. Did you mean --version?"),
        (["--version", "foo"], "--version takes no arguments; got 'foo'."),
        (["compare", "--predict", "x.png"], "descent compare has no --predict"),
        (["networks", "--predict", "x.png"], "descent networks has no --predict"),
        (
            ["networks", "--search-schedule", "maybe"],
            "--search-schedule takes no value; got 'maybe'. Write --search-schedule or",
        ),
        (["compare", "--workload", "mlp_digits"], "descent networks --network mlp_dig"),
        (["zzz"], "Unknown command 'zzz'. Choose from verify, compare, networks"),
        (["fit_a_line"], "Experiments need a clone of the repository: python -m"),
        (["data", "fech"], "Unknown action `data fech`. Did you mean fetch?"),
    ],
)
def test_what_there_is_not_is_refused_with_a_hint(words, sentence, capsys):
    assert sentence in refused(capsys, *words)


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_unknown_flag_ends_with_status_2(name, capsys):
    status, out, err = command(capsys, name, "--no-such-flag")
    assert (status, out) == (2, "")
    assert "error: " in err


@pytest.mark.on_ci("another command", but="data")
@pytest.mark.thorough("the other commands", but="data|pack")
@pytest.mark.parametrize("name", ["verify", "data", "pack", "leaderboard"])
def test_in_a_clone_there_is_one_way_to_each_command(name, capsys):
    with pytest.raises(SystemExit) as end:
        experiments.main([name])
    assert end.value.code == 2
    assert f"descent {name}, or python -m research {name}." in capsys.readouterr().err
    assert experiments.COMMANDS.keys().isdisjoint({name})


# Outside a clone


@pytest.mark.thorough(
    "a second process; test_study_is_made_packed_ranked_and_reproduced_outside_a_clone "
    "has other commands there, test_verify_cli.py, datasets/test_data_command.py and "
    "test_explain_differentiates these in a clone"
)
def test_commands_work_outside_a_clone(installed, tmp_path):
    (tmp_path / "mine.py").write_text(RULE)
    out, err, statuses = several(
        installed,
        tmp_path,
        ["--version"],
        ["verify", "mine.py:mine", "--against", "optax.sgd"],
        ["verify", "mine.py:mine", "--against", "optax.adam"],
        ["explain", "x**2 * sin(x)", "--at", "x=1.0", "--svg", "a.svg"],
        ["data"],
        ["data", "verify", "digits"],
        ["pack", "nowhere"],
        ["leaderboard", "nowhere"],
        ["fit_a_line"],
    )
    assert statuses == [0, 0, 1, 0, 0, 0, 2, 2, 2]
    assert "its derivative is 2.223." in out
    assert "fashion_mnist" in out
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert "Traceback" not in err


@pytest.mark.on_ci("a whole study; nothing shorter runs these commands outside a clone")
def test_study_is_made_packed_ranked_and_reproduced_outside_a_clone(
    installed, tmp_path
):
    (tmp_path / "mine.py").write_text(RULE)
    out, err, statuses = several(
        installed,
        tmp_path,
        ["compare", "mine.py:mine", "adam", *STUDY],
        ["pack", "results/compare/*", "--output", "mine.zip"],
        ["leaderboard", "mine.zip"],
        ["reproduce", "mine.zip", "--quiet"],
        ["reproduce", "fit_a_line"],
    )
    assert statuses == [0, 0, 0, 0, 2], err
    assert "Traceback" not in err
    assert "Bit-identical: all " in out
    manifest = read_contents(tmp_path / "mine.zip").manifest
    assert manifest["command"].startswith("descent compare --rule mine.py:mine adam ")
    assert (tmp_path / "leaderboard.html").exists()
    assert "python -m experiments reproduce fit_a_line." in err


def test_study_of_another_experiment_or_of_python_is_refused(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    finished = [
        finish(open_run(name, config, "results"), Result("So.", (), {}, {})).path
        for name, config in (("toy", {}), ("compare", {"protocol": {}}))
    ]
    for run in finished:
        pack(run, f"{run.name}.zip")
    for run, sentence in zip(
        finished,
        ("a run of the experiment toy, which needs a clone", "made in Python with an"),
        strict=True,
    ):
        assert sentence in refused(capsys, "reproduce", run)
        assert sentence in refused(capsys, "reproduce", f"{run.name}.zip")
    assert "nowhere.zip does not exist" in refused(capsys, "reproduce", "nowhere.zip")
    Path("bad.zip").write_text("bad")
    assert "bad.zip is not an archive of a run" in refused(
        capsys, "reproduce", "bad.zip"
    )


def test_archive_is_unpacked_to_the_run_that_it_was(tmp_path):
    run = finish(open_run("toy", {}, tmp_path), Result("So.", (), {}, {})).path
    again = unpack(pack(run, tmp_path / "toy.zip"), tmp_path / "again")
    assert again == tmp_path / "again/toy" / run.name
    for name in ("manifest.json", "result.json", "arrays.npz"):
        assert (again / name).read_bytes() == (run / name).read_bytes()


@pytest.mark.on_ci(
    "two processes; test_entry_point_is_the_function_of_python_m_research has the "
    "entry point, but starts no process"
)
def test_python_m_research_is_the_same_program(installed, tmp_path):
    done = outside(installed, tmp_path, "-m", "research")
    assert (done.returncode, done.stdout) == (0, commands.listing() + "\n")
    done = outside(installed, tmp_path, "-m", "research", "vrify")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: Unknown command 'vrify'. Did you mean")


def test_ctrl_c_ends_in_one_line(monkeypatch, capsys):
    def interrupted(words):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("research.cli.data.data", interrupted)
    assert command(capsys, "data") == (130, "", "\nStopped.\n")


# explain


def explained(capsys, *words):
    status, out, err = command(capsys, "explain", *words)
    assert (status, err) == (0, "")
    return out


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["x**2 * sin(x)", "--at", "x=1"], "its derivative is 2.223."),
        (["3*x**2 + y", "--at", "x=2", "y=1"], "its gradient is 12 by x, 1 by y."),
        (["sum(w * w)", "--at", "w=[1, 2]"], "its gradient is [2, 4]."),
        (["-x[1] / 2", "--at", "x=[1, 2]"], "its gradient is [0, -0.5]."),
        (["where(x > 0, x, 0)", "--at", "x=3"], "its derivative is 1."),
        (["jnp.log(x) + jax.nn.relu(x)", "--at", "x=2"], "its derivative is 1.5."),
        (["mean(x, axis=-1) * pi", "--at", "x=[1., 2.]"], "[1.571, 1.571]."),
        (["jax.nn:softplus", "--at", "x=2.0"], "its derivative is 0.8808."),
    ],
)
def test_explain_differentiates(words, answer, capsys):
    assert answer in explained(capsys, *words).partition("\n")[0]


def test_explain_takes_a_function_of_a_file_and_shows_its_lines(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("my_loss.py").write_text(
        "def loss(w, b=1.0, *, scale=2.0):\n    return scale * (w * 3.0 + b) ** 2\n"
    )
    out = explained(capsys, "my_loss.py:loss", "--at", "w=1.0", "--html", "a.html")
    assert out.startswith("loss = 32 at w = 1; its derivative is 48.")
    assert "my_loss.py:2" in out
    assert out.endswith("\nhtml: a.html\n")
    page = Path("a.html").read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert "its derivative is 48." in page
    assert "loss = 8 at scale = 0.5, w" not in out
    out = explained(capsys, "my_loss:loss", "--at", "scale=0.5", "w=1.0", "b=1.0")
    assert out.startswith("loss = 8 at w = 1, b = 1, scale = 0.5; its gradient is")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["__import__('os').system('true')"], "a formula must not call __import__"),
        (["open('x')"], "a formula must not call open. --help lists"),
        (["x.__class__"], "the formula must not contain 'x.__class__'"),
        (["[y for y in x]"], "the formula must not contain '[y for y in x]'"),
        (["lambda x: x"], "the formula must not contain 'lambda x: x'"),
        (["'a' * x"], "the formula must not contain \"'a'\""),
        (["sin(*x)"], "the formula must not contain 'sin(*x)'"),
        (["x if x else 1"], "the formula must not contain 'x if x else 1'"),
        (["0 < x < 1"], "the formula must not contain '0 < x < 1'"),
        (["zeros(x)"], "a formula must not call zeros"),
        (["os.sin(x)"], "a formula must not call os.sin"),
        (["sine(x)"], "Did you mean sin?"),
        (["sin(x"], "cannot read the formula 'sin(x': '(' was never closed."),
        (["("], "cannot read the formula"),
        (["(" * 300 + "x" + ")" * 300], "cannot read the formula"),
        (
            ["(-" * 90 + "x" + ")" * 90],
            "a formula may be nested at most 60 levels deep.",
        ),
        (["x + " * 400 + "x"], "a formula may have at most 1,000 characters"),
        (["9**9**9**9 * x"], "cannot be evaluated at these values: OverflowError"),
        (["math:sqrt"], "cannot be evaluated at these values: ConcretizationTypeError"),
        (["x[3]"], "cannot be evaluated at these values: IndexError"),
        (["2"], "the formula '2' has no variable"),
        (["y"], "the formula has no variable x. Choose from y."),
        (["x + y"], "the formula needs a value for y. Pass for example --at y=1.0."),
        (["nowhere.py:f"], "The file 'nowhere.py' does not exist"),
        (["no_such_module:f"], "The module no_such_module does not exist"),
        (["x * [1]"], "the formula must not contain '[1]'"),
        (["x^2"], "a power is written x**2."),
        (
            ["sin x"],
            "cannot read the formula 'sin x': invalid syntax. Did you mean sin(",
        ),
        (["where(x > 0, x)"], "where needs a condition and two values"),
        (["max(x, 0)"], "of two numbers, write maximum(x, 0)"),
        (
            ["x * (y + z)", "--at", "y=[1, 2]", "z=[1, 2, 3]"],
            "the two sides of y + z have length 2 and length 3.",
        ),
        (
            ["x * y", "--at", "y=[1, 2]"],
            "the formula must return one real number; it returns float64[2]. Pass the "
            "sum: sum(x * y).",
        ),
        (["jax.nn:sofplus"], "jax.nn has no 'sofplus'. Did you mean softplus?"),
        (["math:pi"], "math:pi must be a function; it is a value of type float."),
        (["x", "--at", "x"], "--at must be NAME=VALUE"),
        (["x", "--at", "x=a"], "--at must be NAME=VALUE"),
        (["x", "--at", "x=2"], "--at sets x twice"),
        (["x", "--at", "x=[]"], "--at must be NAME=VALUE"),
        (["x", "--at", "y=[[1],[1,2]]"], "must have equal lengths, as in"),
        (["x", "--at", "y=[1,[2]]"], "must have equal lengths, as in"),
        (["x", "--at", "y=[[[1]],[[1],[2]]]"], "must have equal lengths, as in"),
        (["x", "--svg", "a.png"], "--svg must name a file that ends in .svg"),
        (["x", "--svg", "no/such/folder/a.svg"], "no/such/folder"),
    ],
)
def test_explain_refuses_in_one_line(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(capsys, "explain", *words, "--at", "x=1.0")
    assert not list(tmp_path.iterdir())


def test_a_missing_module_did_not_fail_while_it_was_imported(capsys):
    for module in ("no_such_module", "no_such_module.x"):
        error = refused(capsys, "explain", f"{module}:f", "--at", "x=1.0")
        assert error.startswith(f"The module {module} does not exist.")


# launch


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere.py"], "The file 'nowhere.py' does not exist."),
        (["--process-id", "0", "a.py"], "Pass --processes N, or leave --process-id"),
        (
            ["--process-id", "5", "--processes", "2", "a.py"],
            "Pass --coordinator HOST:P",
        ),
        (
            ["--process-id", "5", "--processes", "2", "--coordinator", "a:1", "a.py"],
            "--process-id must lie in 0..1, below --processes 2; got 5.",
        ),
        (["--processes", "0", "a.py"], "--processes must be at least 1; got 0."),
    ],
)
def test_launch_refuses_in_one_line(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.py").write_text("")
    assert sentence in refused(capsys, "launch", *words)


def test_launch_says_how_a_process_failed(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    lines = "import os", "raise SystemExit(3 * int(os.environ['DESCENT_PROCESS_ID']))"
    Path("a.py").write_text("\n".join(lines))
    assert commands.main(["launch", "--processes", "2", "a.py"]) == 1
    assert capfd.readouterr().err == "error: process 1 ended with status 3.\n"


@pytest.mark.parametrize(
    ("number", "name"), [(9, "SIGKILL"), (35, signal.strsignal(35))]
)
def test_launch_says_which_signal_stopped_a_process(number, name):
    assert f"by signal {number} ({name}): killed" in launch._sentence(1, -number)


def test_launch_blames_neither_memory_nor_time_for_ctrl_c(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    lines = "import os, signal", "signal.signal(signal.SIGINT, signal.SIG_DFL)"
    Path("a.py").write_text("\n".join([*lines, "os.kill(os.getpid(), signal.SIGINT)"]))
    assert commands.main(["launch", "--processes", "2", "a.py"]) == 130
    assert not capfd.readouterr().err


def test_number_in_a_formula_is_real_and_an_exponent_whole(capsys):
    assert "x³" in explained(capsys, "x**3 / 2", "--at", "x=2")
    out = explained(capsys, "1 / 2 * x", "--at", "x=2")
    assert out.startswith("f = 1 at x = 2; its derivative is 0.5.")


def test_an_entry_outside_of_a_vector_is_refused(capsys):
    for index in ("3", "-4", "5"):
        with pytest.raises(SystemExit):
            commands.main(["explain", f"x[{index}]**2", "--at", "x=[1, 2, 3]"])
        assert "outside of 3 entries" in capsys.readouterr().err


def test_an_argument_by_position_takes_the_defaults_before_it(capsys, tmp_path):
    (tmp_path / "by_place.py").write_text("def f(a=1.0, b=2.0, /):\n    return a - b\n")
    words = ["explain", f"{tmp_path}/by_place.py:f", "--at", "b=5.0"]
    assert commands.main(words) == 0
    assert "f = -4" in capsys.readouterr().out
