"""A comparison from the command line: a rule of a file, what is kept of it, and what is
refused.
"""

import re
import textwrap

import numpy as np
import pytest

from experiments import compare
from research import cli, comparison, report, runs, workloads
from research.cli import commands, received
from research.comparison.command import name_rules

COMPILE_QUICKLY = True  # tests/conftest.py

RULE = """
    import jax
    import optax

    def mine(learning_rate):
        return optax.GradientTransformation(
            lambda params: (),
            lambda updates, state, params=None: (
                jax.tree.map(lambda g: -learning_rate * g, updates), ()
            ),
        )
    """
WORDS = [
    "--workload",
    "quadratic",
    "--searches",
    "2",
    "--budget",
    "3",
    "--passes",
    "60",
    "--target",
    "0.5",
    "--seeds",
    "0..3",
    "--tuning-seeds",
    "1000..1003",
    "--quiet",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder with a file of a rule."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rules.py").write_text(textwrap.dedent(RULE))
    return tmp_path


def finished(folder):
    return sorted(
        (folder / "results/compare").iterdir(), key=lambda run: run.stat().st_mtime
    )


@pytest.mark.thorough(
    "three studies; test_commands.py compares the rule of a file, and a changed "
    "file is refused below"
)
def test_a_rule_of_a_file_is_compared_drawn_and_run_anew_when_the_file_changes(
    folder, capsys
):
    spaces = [
        "--space",
        *(f"{name}.learning_rate=1e-3..10" for name in ("mine", "gradient_descent")),
    ]
    words = [
        "--rule",
        "my_rules.py:mine",
        "--rule",
        "gradient_descent",
        *spaces,
        *WORDS,
    ]
    assert cli.main(compare, words) == 0
    assert capsys.readouterr().out.startswith(
        "mine and gradient_descent are not distinguishable"
    )
    short = ["compare", "my_rules.py:mine", "gradient_descent", *spaces, *WORDS]
    assert commands.main(short) == 0  # The same study, which is drawn again.
    (run,) = finished(folder)
    arrays = runs.load_result(run).arrays
    # It is the same rule, so our own has every bit at the points that its searches
    # chose.
    terms = {"searches": 2, "tuning_seeds": 2, "passes": 60, "target": 0.5, "seeds": 4}
    reported, passes = comparison.train_trials(
        workloads.make_workload("quadratic"),
        *comparison.make_contenders(["gradient_descent"]),
        comparison.make_protocol(**terms),
        {"learning_rate": arrays["quadratic/mine/chosen"][:, 0]},
        2,
    )
    np.testing.assert_array_equal(arrays["quadratic/mine/passes"], passes)
    np.testing.assert_array_equal(arrays["quadratic/mine/costs"], reported.costs)
    np.testing.assert_array_equal(
        arrays["quadratic/mine/curves"], reported.curves.reshape(8, -1)
    )
    assert np.isfinite(reported.costs).all()
    assert {"report.html", "ratios.svg", "trials.svg", "rates.svg", "curves.svg"} <= {
        f.name for f in run.iterdir()
    }
    (digest,) = runs.read_manifest(run)["config"]["files"]
    (folder / "my_rules.py").write_text(
        textwrap.dedent(RULE).replace("-learning_rate", "-2 * learning_rate")
    )
    assert cli.main(compare, words) == 0
    assert len(finished(folder)) == 2
    with pytest.raises(SystemExit):
        cli.main(compare, [*words, "--files", digest])
    assert "my_rules.py changed after this run" in capsys.readouterr().err


@pytest.mark.thorough(
    "what the library refuses, in its words (test_compare.py)",
    but=r"^words(\d|15)-(?!log|seeds)",
)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--rule", "your_rules.py:mine", "adam"],
            "The file 'your_rules.py' does not exist",
        ),
        (
            ["--rule", "my_rules.py:mien", "adam"],
            "my_rules.py has no 'mien'. Did you mean mine?",
        ),
        (
            ["--rule", "rmspop", "adam"],
            "Unknown rule 'rmspop'. Did you mean rmsprop?",
        ),
        (
            ["--rule", "sgd", "adam"],
            "Unknown rule 'sgd'. Did you mean gradient_descent?",
        ),
        (["--rule", "adam", "adam"], "give each rule once"),
        (
            ["--rule", "adam", "rmsprop", "--space", "adam.learning_rate=0..1"],
            "log scale",
        ),
        (
            ["--rule", "adam", "rmsprop", "--evaluations", "adam"],
            "--evaluations must be RULE=NUMBER",
        ),
        (
            ["--rule", "adam", "rmsprop", "--evaluations", "=2"],
            "--evaluations must be RULE=NUMBER",
        ),
        (
            ["--rule", "adam", "rmsprop", "--evaluations", "adam=2", "adam=3"],
            "--evaluations must name each rule once; got 'adam' twice",
        ),
        (
            ["--rule", "adam", "rmsprop", "--seeds", "0"],
            "seeds: at least 3 seeds are needed",
        ),
        (
            ["--rule", "adam", "rmsprop", "--seeds", "0"],
            "seeds: at least 3 seeds are needed; got 1.",
        ),
        (
            ["--rule", "adam", "rmsprop", "--searches", "1"],
            "searches must be at least 2",
        ),
        (
            ["--rule", "adam", "rmsprop", "--tuning-seeds", "1000..1004"],
            "5 seeds cannot be divided among 2 searches",
        ),
        (["--rule", "adam", "rmsprop", "--workload", "digit"], "did you mean 'digits'"),
        (
            ["--rule", "adam", "rmsprop", "--budget", "0"],
            "budget must be a positive integer; got budget=0",
        ),
        (
            ["--rule", "adam", "rmsprop", "--baseline", "sgd"],
            "baseline must be one of the rules",
        ),
        (
            ["--rule", "my_rules.py:mine", "adam", "--files", "my_rules.py 0"],
            "my_rules.py changed after this run",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(folder, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        cli.main(compare, [*WORDS, *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not [
        run
        for run in (folder / "results/compare").glob("*")
        if (run / "result.json").exists()
    ]


def test_what_a_file_of_rules_imports_from_its_folder_is_digested(folder):
    (folder / "pkg").mkdir()
    texts = {
        "my_rules.py": "import random, helper\ndef mine(rate):\n    import late\n",
        "helper.py": "from pkg import part\n",
        "late.py": "FACTOR = 1.0\n",
        "pkg/__init__.py": "",
        "pkg/part.py": "from . import other\nfrom .. import helper\n",
        "pkg/other.py": "import my_rules\n",
        "unused.py": "",
        "random.py": "",  # It would hide Python's own if that were not loaded.
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    digests = comparison.digest_files(["v1=my_rules.py:mine", "adam"])
    names = [one.partition(" ")[0] for one in digests]
    others = set(texts) - {"my_rules.py", "unused.py"}
    assert names == ["my_rules.py", *sorted(others)]
    for name, text in texts.items():
        (folder / name).write_text(text + "# Changed.\n")
        if name in names:
            with pytest.raises(ValueError, match=f"files: {name} changed after this"):
                comparison.digest_files(["my_rules.py:mine"], digests)
        else:
            comparison.digest_files(["my_rules.py:mine"], digests)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ('importlib.import_module("helper")', ["helper.py"]),
        ('import_module("pkg.part")', ["pkg/__init__.py", "pkg/part.py"]),
        ('__import__("helper")', ["helper.py"]),
        ('spec_from_file_location("x", HERE / "pkg/part.py")', ["pkg/part.py"]),
        ('runpy.run_path("../helper.py" + "a/b.c")', []),  # It is outside.
        ('import_module("no-name \\0.py", "", ".helper")', []),
        ('print("helper")', []),
    ],
)
def test_what_a_file_of_rules_imports_by_a_call_is_digested(folder, call, found):
    (folder / "pkg").mkdir()
    for name in ("helper.py", "pkg/__init__.py", "pkg/part.py"):
        (folder / name).write_text("")
    (folder / "my_rules.py").write_text(f"def mine(rate):\n    return {call}\n")
    digests = comparison.digest_files(["my_rules.py:mine"])
    assert [one.partition(" ")[0] for one in digests] == ["my_rules.py", *found]


def test_a_name_that_ends_in_py_is_not_a_file(folder):
    assert comparison.digest_files(["v1.py=adam"]) == ()
    named = comparison.digest_files(["v1.py=my_rules.py:mine"])
    assert named == comparison.digest_files(["my_rules.py:mine"])


def test_each_source_of_a_received_study_has_a_file_of_its_own(tmp_path, monkeypatch):
    long = "a" * 70
    names = ["mine.1", "mine-1", "a:mine", "a.mine", "A_mine", "mine_1_2"]
    names += [long, f"{long}b", "", "", "rule_10"]
    texts = [f"number = {k}\n" for k in range(len(names))]
    code = [{"rules": [n], "text": t} for n, t in zip(names, texts, strict=True)]
    result = runs.Result("", (), {}, {"origin": {"code": code}})
    monkeypatch.setattr(runs, "load_result", lambda folder: result)
    monkeypatch.setattr(report, "write_report", lambda *_, **__: None)
    received.redraw(compare, tmp_path)
    files = sorted((tmp_path / "sources").iterdir())
    assert sorted(file.read_text() for file in files) == sorted(texts)
    assert len({file.name.lower() for file in files}) == len(names)
    assert all(re.fullmatch(r"\w+\.py", file.name) for file in files)
    assert (tmp_path / "sources/mine_1.py").read_text() == texts[0]


def test_short_names_are_told_apart():
    assert name_rules(["a.py:mine", "adam"]) == {
        "mine": "a.py:mine",
        "adam": "adam",
    }
    assert list(name_rules(["a.py:mine", "in/b.py:mine"])) == ["a:mine", "b:mine"]
    assert name_rules(["r.py:adam", "adam"]) == {
        "r:adam": "r.py:adam",
        "adam": "adam",
    }
    assert name_rules(["v1=r.py:mine", "v2=r.py:mine"]) == {
        "v1": "r.py:mine",
        "v2": "r.py:mine",
    }
