"""What a user reads of `descent verify`: the verdict with its table, and bad input by
its name.
"""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from research.cli import commands, rule_lookup
from research.cli import verify as verify_command
from research.comparison.origins import rule_word
from research.files import read_json
from research.verification import PROBLEMS

COMPILE_QUICKLY = CHILDREN_COMPILE_QUICKLY = True  # tests/conftest.py

TOP = Path(__file__).parent.parent
RULES = """
import jax
import jax.numpy as jnp
import optax

RATE = 0.1
made = optax.adam(0.01)


def my_adam(step_size, b1=0.9, eps=1e-8):
    return optax.adam(step_size, b1=b1, eps=eps)


def inside(step_size):
    return optax.adam(step_size, eps=0.0, eps_root=1e-8)


def nothing():
    return made


def hungry(learning_rate, momentum):
    return optax.sgd(learning_rate, momentum)


def anything(learning_rate, **options):
    return optax.adam(learning_rate, **options)


def number(learning_rate):
    return learning_rate


def _by(update):
    return lambda rate: optax.GradientTransformation(
        lambda params: optax.EmptyState(), lambda g, s, p: (update(g), s)
    )


pair = _by(lambda g: (g, g))
short = _by(lambda g: jax.tree.map(lambda a: a[:1], g))
half = _by(lambda g: jax.tree.map(lambda a: a.astype(jnp.float16), g))
nan = _by(lambda g: jax.tree.map(lambda a: a * jnp.nan, g))


def wild(rate):
    def update(g, s, p):
        if jax.tree.leaves(g)[0].sum() > 0:
            g = s
        return g, s

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def careless(rate):
    return _by(lambda g: g["weights"])(rate)


def by_keyword(*, learning_rate):
    return optax.adam(learning_rate)
"""


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A test of another file may have imported a module of this name.
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    Path("mine.py").write_text(RULES)
    Path("broken.py").write_text("x = 1\nraise KeyError('no luck')\n")
    Path("quits.py").write_text("import sys\nsys.exit(0)\n")
    Path("typo.py").write_text("def f(:\n")
    Path("lonely.py").write_text("import a_package_that_is_not_there\n")
    Path("neighbour.py").write_text("from mine import my_adam as rule\n")
    Path("empty.py").write_text("")
    Path("several.py").write_text("def loss(x): ...\ndef good(rate): ...\n")


def verify(words):
    return commands.main(["verify", *words.split()])


def refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        verify(words)
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert not printed.out
    assert printed.err.count("\n") == 1
    return printed.err


def test_same_rule_is_status_0_with_a_table_of_problems(capsys):
    assert verify("mine.py:my_adam --against adam") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "The same rule: on 8 problems the two rules differ by at most "
    )
    assert lines[2] == "mine.py:my_adam against adam"
    assert lines[4].split("  ")[0] == "problem"
    rows = {line.split()[0]: line.split()[1:] for line in lines[6:14]}
    assert list(rows)[:3] == ["quadratic", "rosenbrock", "softmax_regression"]
    assert rows["zero_gradient"] == ["0.05", "0", "none", "none", "none"]
    assert 0 < float(rows["quadratic"][1]) < 1e-13
    assert lines[15].startswith("Each problem runs for 50 steps in float64; jax ")


@pytest.mark.on_ci("two verifications on all problems; nothing shorter shows this")
def test_rules_that_are_both_built_have_no_rate_in_the_table(capsys):
    assert verify("mine.py:made --against mine.py:made") == 0
    out = capsys.readouterr().out
    assert out.count("built in") == len(PROBLEMS)
    assert verify("mine.py:made --against mine.py:made --json") == 0
    rows = json.loads(capsys.readouterr().out)["problems"]
    assert {row["learning_rate"] for row in rows} == {None}


@pytest.mark.on_ci("the search for a cause; nothing shorter shows this")
def test_different_rule_is_status_1_with_its_cause(capsys):
    assert verify("mine.py:inside --against optax.adam --dtype float32") == 1
    out = capsys.readouterr().out
    assert out.startswith("Not the same rule. On the problem ")
    assert "Likely cause: ε is inside the root (the rule has `" in out.splitlines()[0]
    assert "50 steps in float32" in out


@pytest.mark.on_ci("test_same_rule_is_status_0_with_a_table_of_problems has the table")
def test_json_holds_the_verdict_and_every_problem(capsys):
    """Other programs read it: strict JSON, with the numbers of the table."""
    words = "gradient_descent --against optax.sgd --json"
    assert verify(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["same"]
    assert found["cause"] is None
    assert found["summary"].startswith("The same rule: ")
    assert set(found["versions"]) >= {"jax", "optax"}
    rows = {row["problem"]: row for row in found["problems"]}
    assert next(iter(rows)) == "quadratic"
    assert rows["zero_gradient"]["step"] is None
    assert rows["quadratic"]["largest"] <= found["largest"] <= found["tolerance"]
    assert verify("mine.py:nan --against gradient_descent --json") == 1
    found = read_json(capsys.readouterr().out.encode())
    assert not found["same"]
    assert found["largest"] == math.inf
    assert "NaN" in found["cause"]
    assert found["problem"] == "quadratic"


def test_class_of_pytorch_without_pytorch_is_one_clear_line(capsys, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "torch" else find_spec(name, *rest),
    )
    assert refused("torch.optim.Adam --against adam", capsys) == (
        "error: PyTorch is not installed, so that torch.optim.Adam cannot be "
        "verified. Install the package torch.\n"
    )


@pytest.mark.on_ci("a rule with NaN from the command line; nothing shorter shows this")
def test_nan_at_once_is_a_result(capsys):
    assert verify("mine.py:nan --against gradient_descent") == 1
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "Not the same rule. On the problem quadratic, the two rules differ from step 1 "
        "on. The largest difference is inf, at step 1."
    )
    assert first.endswith(
        "its params are NaN after step 1 on quadratic, where those of the reference are"
        " finite."
    )


@pytest.mark.thorough(
    "three proofs; make test has the same law of the function (test_verify_rule.py)"
)
def test_arguments_go_to_both_or_are_said_not_to(capsys):
    assert verify("neighbour.py:rule --against adam --argument b1=0.5 eps=0.01") == 0
    assert (
        verify("mine.py:inside --against adam --argument b1=0.5 --learning-rate 0.01")
        == 1
    )
    assert (
        "mine.py:inside has no argument b1, so only adam received it."
        in capsys.readouterr().out
    )


@pytest.mark.thorough("a proof; test_verify_rule.py has two rules that are made")
def test_rule_that_is_made_is_compared_at_its_rate(capsys):
    assert verify("mine.py:made --against mine.py:anything --learning-rate 0.01") == 0
    assert "mine.py:made against mine.py:anything" in capsys.readouterr().out


def test_long_search_says_what_it_does(capsys, monkeypatch):
    monkeypatch.setattr(verify_command, "SILENT_SECONDS", -1.0)
    assert verify("gradient_descent --against optax.sgd") == 0
    assert capsys.readouterr().err == "  0 %  0 s  comparing on quadratic\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "none.py:rule --against adam",
            (
                "The file 'none.py' does not exist. Pass FILE.py:name, where name is "
                "a rule in"
            ),
        ),
        (
            "mine.py:my_adm --against adam",
            "mine.py has no 'my_adm'. Did you mean my_adam?",
        ),
        (
            "mine.py --against adam",
            (
                "Which rule of mine.py? Write mine.py:NAME. Choose from made, "
                "my_adam, inside,"
            ),
        ),
        (
            "empty.py:rule --against adam",
            (
                "empty.py has no 'rule'. It contains neither functions nor an "
                "optax.Gradient"
            ),
        ),
        (
            "mine.py:RATE --against adam",
            (
                "mine.py:RATE is not an update rule but a value of type float. Name "
                "an optax.Gradient"
            ),
        ),
        (
            "mine.py:my_adam --against adam --argument b1=[1,2]",
            "--argument b1 must be a number, as its default 0.9 is; got b1=[1, 2].",
        ),
        (
            "several.py --against adam",
            "Which rule of several.py? Write several.py:NAME. Choose from good.",
        ),
        (
            "mine.py:nothing --against adam",
            "mine.py:nothing must take the learning rate as its first argument",
        ),
        (
            "mine.py:by_keyword --against adam",
            "mine.py:by_keyword must take the learning rate as its first argument",
        ),
        (
            "mine.py:my_adam --against adam --argument learning_rate=0.1",
            "The learning rate is set by --learning-rate RATE, not by --argument.",
        ),
        (
            "mine.py:hungry --against adam",
            (
                "mine.py:hungry needs a value for momentum. Pass --argument "
                "momentum=VALUE."
            ),
        ),
        (
            "mine.py:number --against adam",
            (
                "mine.py:number is not an update rule: called with a learning rate, "
                "it returned a value of type"
            ),
        ),
        (
            "mine.py:made --against adam",
            (
                "mine.py:made is already built with a learning rate. Give the other "
                "rule the same one:"
            ),
        ),
        (
            "mine.py:pair --against adam",
            (
                "mine.py:pair: the rule's updates have the structure PyTreeDef((*, "
                "*)), but the params"
            ),
        ),
        (
            "mine.py:short --against adam",
            (
                "mine.py:short: the update at the only leaf is float64[1] where the "
                "params are"
            ),
        ),
        (
            "mine.py:half --against adam",
            (
                "mine.py:half: the update at the only leaf is float16[3] where the "
                "params are"
            ),
        ),
        (
            "mine.py:wild --against adam",
            (
                "mine.py:wild raised TracerBoolConversionError in update (line 48 of "
                "mine.py): "
            ),
        ),
        ("mine.py:careless --against adam", "mine.py:careless raised "),
        (
            "broken.py:rule --against adam",
            (
                "broken.py raised KeyError while it was imported (line 2 of "
                "broken.py): 'no luck'"
            ),
        ),
        (
            "typo.py:rule --against adam",
            "typo.py raised SyntaxError while it was imported",
        ),
        (
            "quits.py:rule --against adam",
            (
                "quits.py exits while it is imported; put the code that it runs "
                "under `if __name__"
            ),
        ),
        (
            "lonely.py:rule --against adam",
            "lonely.py raised ModuleNotFoundError while it was imported (line 1 of",
        ),
        (
            "mine.py:my_adam --against optax.addam",
            "Unknown rule optax.addam. Did you mean optax.adam?",
        ),
        (
            "mine.py:my_adam --against optax.contrib.mun",
            "Unknown rule optax.contrib.mun. Did you mean optax.contrib.muon?",
        ),
        (
            "mine.py:my_adam --against optax.xyzzy_qq",
            "Unknown rule optax.xyzzy_qq. Name one such as optax.adam.",
        ),
        ("mine.py:my_adam --against optax.contrib", "Unknown rule optax.contrib. "),
        (
            "mine.py:my_adam --against optax.scale_by_adam",
            (
                "optax.scale_by_adam is not an update rule, because its first "
                "argument is not a"
            ),
        ),
        (
            "mine.py:my_adam --against optax.apply_updates",
            (
                "optax.apply_updates is not an update rule, because its first "
                "argument is not a"
            ),
        ),
        (
            "no_such_package.Adam --against adam",
            "the module 'no_such_package' of 'no_such_package.Adam' is not installed.",
        ),
        (
            "numpy.ndarray --against adam",
            (
                "numpy.ndarray is not an update rule: it is neither a rule of optax "
                "nor a subclass of torch.optim"
            ),
        ),
        ("mine.py:my_adam --against adm", "Unknown rule 'adm'. Did you mean "),
        (
            "mine.py:my_adam --against xyzzy_qq",
            "Unknown rule 'xyzzy_qq'. Choose from gradient_descent, heavy_ball,",
        ),
        (
            "mine.py:my_adam --against adam --argument b_1=0.8",
            "adam has no argument b_1. Did you mean b1?",
        ),
        (
            "mine.py:my_adam --against optax.adam --argument epss=0.8",
            "optax.adam has no argument epss. Did you mean eps?",
        ),
        (
            "mine.py:my_adam --against optax.noisy_sgd --argument b",
            "--argument must be NAME=VALUE, such as b1=0.8; got 'b'.",
        ),
        (
            "mine.py:my_adam --against adam --learning-rate -1",
            "--learning-rate must be a positive number; got -1.0.",
        ),
        (
            "mine.py:my_adam --against adam --learning-rate nan",
            "--learning-rate must be a positive number; got nan.",
        ),
        (
            "mine.py:my_adam --against adam --argument b1=high",
            "--argument b1 must be a number, as its default 0.9 is; got b1='high'.",
        ),
    ],
)
def test_bad_input_is_one_line_that_names_it(words, line, capsys):
    assert refused(words, capsys).startswith(f"error: {line}")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("mine.py:my_adam", "the following arguments are required: --against"),
        (
            "mine.py:my_adam --against adam --dtype float16",
            "argument --dtype: invalid choice: 'float16'",
        ),
        (
            "mine.py:my_adam --against adam --learning-rate fast",
            "argument --learning-rate: invalid float value: 'fast'",
        ),
        (
            "mine.py:my_adam --agianst adam",
            "Unknown flag --agianst. Did you mean --against?",
        ),
    ],
)
def test_bad_flag_is_refused_by_its_name(words, line, capsys):
    with pytest.raises(SystemExit) as stop:
        verify(words)
    assert stop.value.code == 2
    assert line in capsys.readouterr().err


def test_traceback_is_shown_on_demand(monkeypatch):
    monkeypatch.setenv("DESCENT_TRACEBACK", "1")
    with pytest.raises(ValueError, match="raised TracerBoolConversionError") as caught:
        verify("mine.py:wild --against adam")
    assert type(caught.value.__cause__).__name__ == "TracerBoolConversionError"


def test_command_is_listed_and_near_misses_find_it(capsys):
    assert commands.main([]) == 0
    assert (
        "descent verify mine.py:my_adam --against optax.adam" in capsys.readouterr().out
    )
    with pytest.raises(SystemExit):
        commands.main(["verfiy"])
    assert "Unknown command 'verfiy'. Did you mean verify?" in capsys.readouterr().err


def test_help_has_an_example_and_the_statuses_and_needs_no_jax():
    words = [
        sys.executable,
        "-c",
        (
            "import sys\nfrom research.cli.commands import main\ntry:\n    "
            "main(['verify', '--help'])\nexcept SystemExit:\n    print('jax' in "
            "sys.modules)"
        ),
    ]
    done = subprocess.run(words, cwd=TOP, capture_output=True, text=True, check=True)
    assert "descent verify mine.py:my_adam --against optax.adam" in done.stdout
    assert (
        "status: 0 if they are the same rule, 1 if not, 2 after bad input"
        in done.stdout
    )
    assert done.stdout.endswith("False\n")


@pytest.mark.on_ci("a verification on all problems; nothing shorter shows this")
def test_a_file_with_a_dataclass_is_imported(tmp_path):
    (tmp_path / "with_state.py").write_text(
        "from __future__ import annotations\n"
        "import dataclasses\nimport optax\n"
        "@dataclasses.dataclass\nclass Settings:\n    scale: float = 1.0\n"
        "def mine(rate):\n    return optax.sgd(Settings().scale * rate)\n"
    )
    assert verify(f"{tmp_path}/with_state.py:mine --against gradient_descent") == 0


HELPED = (
    "import optax\nfrom helper import F\ndef mine(r):\n    return optax.sgd(F * r)\n"
)


def test_files_of_two_folders_import_their_own_modules(tmp_path):
    for folder, factor in (("old", 1.0), ("new", 2.0)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rules.py").write_text(HELPED)
        (tmp_path / folder / "helper.py").write_text(f"F = {factor}\n")
    before = set(sys.modules)
    files = [f"{folder}/rules.py:mine" for folder in ("old", "new", "old")]
    rules = [rule_lookup.find(file).rule for file in files]
    assert [rule.__globals__["F"] for rule in rules] == [1.0, 2.0, 1.0]
    assert [rule_word(rule) for rule in rules[:2]] == [
        f"{folder}/rules.py:mine" for folder in ("old", "new")
    ]
    for name in {"rules", "helper"} & (set(sys.modules) - before):
        del sys.modules[name]


def test_a_module_of_the_folder_can_be_imported_later(tmp_path):
    (tmp_path / "own_module.py").write_text("F = 2.0\n")
    text = "import own_module\ndef mine(r):\n    from own_module import F\n"
    (tmp_path / "late.py").write_text(text + "    return F * r\n")
    assert rule_lookup.find("late.py:mine").rule(3.0) == 6.0
    (tmp_path / "other").mkdir()
    (tmp_path / "other/late.py").write_text(text + "    return -F * r\n")
    (tmp_path / "other/own_module.py").write_text("F = 5.0\n")
    other = rule_lookup.find("other/late.py:mine").rule
    with pytest.raises(ModuleNotFoundError):  # Two modules have this name.
        other(3.0)


def test_an_argument_that_is_given_twice_is_refused(capsys):
    words = "mine.py:my_adam --against adam --argument b1=0.8 b1=0.9"
    assert "sets b1 twice" in refused(words, capsys)


def test_a_constructor_that_accepts_any_name_gets_no_second_learning_rate():
    named = rule_lookup.Named("mine", lambda rate, **_: None, None, ())
    given = {"decay": 0.1}
    assert rule_lookup.check_arguments(named, given, all_taken=True) == given
    with pytest.raises(ValueError, match="set by --learning-rate RATE"):
        rule_lookup.check_arguments(named, {"learning_rate": 0.1}, all_taken=True)
