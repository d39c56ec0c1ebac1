"""Each notebook is what its text source gives, carries setup.cfg's address, and runs
from the package alone.

Those that teach ask before each cell, and say after it what the cell has shown.
"""

import ast
import configparser
import importlib
import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jupytext
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from notebooks import build

TOP = Path(__file__).parent.parent
MOST_LINES = 25  # Of a cell of code.
# So that it runs in seconds: what is replaced in the source, and by what.
TINY = {
    "PASSES = 100": "PASSES = 2",
    "range(5), range(100, 102)": "range(1), range(100, 101)",
    "jnp.arange(20)": "jnp.arange(2)",
    "ladder=regime.ladder(RULE)": "ladder=[0.25]",
}


class Notebook(NamedTuple):
    name: str
    source: str
    notebook: str


ALL = [
    Notebook(
        path.stem,
        path.read_text("utf-8"),
        path.with_suffix(".ipynb").read_text("utf-8"),
    )
    for path in build.SOURCES
]
FIRST, *TEACHING = ALL
NAME, SOURCE, NOTEBOOK = FIRST
SETUP = 3  # Cells of code that install, configure and import.
PICTURES = {"what_is_a_derivative": 2, "the_chain_rule_at_work": 1, "write_adam": 1}
PICTURES |= {
    "bring_your_own_rule": 4,
    "your_rule_on_a_network": 2,
    "image_recognition": 3,
    "spoken_words": 2,
    "character_language_model": 2,
}
PICTURES |= {
    "mathematics_behind_ai": 2,
    "where_is_the_minimum": 3,
    "fit_a_line": 2,
    "decision_boundary": 2,
    "a_tape_by_hand": 1,
}


def address() -> str:
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg", encoding="utf-8")
    return setup["metadata"]["url"]


def is_what_its_source_gives(name: str, source: str, notebook: str) -> Iterator[str]:
    wanted = [
        (cell.cell_type, cell.source)
        for cell in jupytext.reads(source, fmt="py:percent").cells
    ]
    found = [
        (cell["cell_type"], "".join(cell["source"]))
        for cell in json.loads(notebook)["cells"]
    ]
    if found != wanted:
        yield "the .ipynb is not what its source gives: make notebooks"


def is_stripped(name: str, source: str, notebook: str) -> Iterator[str]:
    content = json.loads(notebook)
    metadata = content["metadata"]
    if metadata.pop("kernelspec", None) != {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }:
        yield "it names a kernel of some machine"
    if metadata != {"language_info": {"name": "python"}}:
        yield f"it has metadata: {metadata}"
    for number, cell in enumerate(content["cells"]):
        if (
            cell.get("outputs")
            or cell.get("execution_count") is not None
            or cell["metadata"]
        ):
            yield f"cell {number} has outputs, a count or metadata"


def opens_with_its_badge_and_one_pip_line(
    name: str, source: str, notebook: str
) -> Iterator[str]:
    cells = json.loads(notebook)["cells"]
    repository = address().removeprefix("https://github.com/")
    colab = "https://colab.research.google.com/github"
    target = f"{colab}/{repository}/blob/main/notebooks/{name}.ipynb"
    if not re.match(
        rf"\[!\[Open in Colab\]\(\S+\.svg\)\]\({re.escape(target)}\)\n",
        "".join(cells[0]["source"]),
    ):
        yield f"it does not open with a badge for {target}"
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    if [cell for cell in code if "pip " in cell] != [
        f"%pip install --quiet git+{address()}"
    ] or "pip" not in code[0]:
        yield "its first code is not the one pip line with setup.cfg's address"
    if code[1].split("\n") != [
        "import research",
        "",
        "research.backend.configure(x64=True)",
    ]:
        yield "it does not configure the backend before all else"


def needs_the_package_alone(name: str, source: str, notebook: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        names = (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        )
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        packages = {name.partition(".")[0] for name in names} - {
            "research",
            "jax",
            "numpy",
            "matplotlib",
            "optax",
            "sklearn",  # research requires it.
        }
        yield from (f"it imports {package}" for package in packages)


def has_short_cells(name: str, source: str, notebook: str) -> Iterator[str]:
    for cell in jupytext.reads(source, fmt="py:percent").cells:
        if cell.cell_type == "code" and cell.source.count("\n") >= MOST_LINES:
            yield f"the cell of {cell.source[:40]!r} is longer than {MOST_LINES} lines"


def asks_before_each_cell_and_tells_after(
    name: str, source: str, notebook: str
) -> Iterator[str]:
    if name == NAME:  # It has one question, which all of it answers.
        return
    cells = jupytext.reads(source, fmt="py:percent").cells
    code = [number for number, cell in enumerate(cells) if cell.cell_type == "code"]
    for number in code[SETUP:]:
        before, after = cells[number - 1], cells[number + 1]
        if before.cell_type == "code" or not re.search(
            r"^\*\*Predict\.\*\*.*\?", before.source, re.M | re.S
        ):
            yield f"the cell of {cells[number].source[:40]!r} has no question before it"
        if after.cell_type == "code" or not after.source.startswith("**Seen.**"):
            yield f"nothing is said after the cell of {cells[number].source[:40]!r}"
    if re.findall(r"^(\d)\. \*\*|^## Exercises", cells[-1].source, re.M) != [
        "",
        "1",
        "2",
        "3",
    ]:
        yield "it does not end with three exercises"


LAWS = (
    is_what_its_source_gives,
    is_stripped,
    opens_with_its_badge_and_one_pip_line,
    needs_the_package_alone,
    has_short_cells,
    asks_before_each_cell_and_tells_after,
)
PLANTED = [  # (law, in the source?, what is there, what is planted instead)
    (is_what_its_source_gives, True, "BATCH_SIZE = 32", "BATCH_SIZE = 16"),
    (is_stripped, False, '"outputs": []', '"outputs": [{}]'),
    (is_stripped, False, '"execution_count": null', '"execution_count": 3'),
    (is_stripped, False, '"name": "python3"', '"name": "mine"'),
    (is_stripped, False, '"language_info": {', '"jupytext": {}, "language_info": {'),
    (opens_with_its_badge_and_one_pip_line, False, "/blob/main/", "/blob/other/"),
    (opens_with_its_badge_and_one_pip_line, False, "git+https", "https"),
    (
        opens_with_its_badge_and_one_pip_line,
        False,
        "%pip install",
        "%pip install torch",
    ),
    (
        opens_with_its_badge_and_one_pip_line,
        False,
        "import research\\n",
        "import jax\\n",
    ),
    (needs_the_package_alone, True, "import jax\n", "import jax\nimport experiments\n"),
    (
        needs_the_package_alone,
        True,
        "import jax\n",
        "import jax\nfrom torch import nn\n",
    ),
    (
        has_short_cells,
        True,
        "n = len(workload.train.y)\n",
        "n = len(workload.train.y)\n" * 30,
    ),
]


UNTAUGHT = [
    ("**Predict.** What is it for", "What is it for"),
    ("what do the others tend to?", "the others."),
]
UNTAUGHT += [
    ("**Seen.** Two valleys", "Two valleys"),
    ("# 3. **Price", "# **Price"),
    ("## Exercises", "## More"),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("notebook", ALL, ids=lambda notebook: notebook.name)
def test_notebook_keeps_the_law(notebook, law):
    assert not list(law(*notebook))


@pytest.mark.parametrize(("law", "in_source", "right", "wrong"), PLANTED)
def test_law_sees_what_breaks_it(law, in_source, right, wrong):
    assert right in (SOURCE if in_source else NOTEBOOK)
    source, notebook = SOURCE, NOTEBOOK
    if in_source:
        source = SOURCE.replace(right, wrong)
    else:
        notebook = NOTEBOOK.replace(right, wrong)
    assert list(law(NAME, source, notebook))


@pytest.mark.parametrize(("right", "wrong"), UNTAUGHT)
def test_lesson_that_does_not_ask_or_tell_is_seen(right, wrong):
    name, source, notebook = next(n for n in ALL if n.name == "what_is_a_derivative")
    assert source.count(right) == 1
    assert list(
        asks_before_each_cell_and_tells_after(
            name, source.replace(right, wrong), notebook
        )
    )


@pytest.mark.parametrize("notebook", ALL, ids=lambda notebook: notebook.name)
def test_building_again_changes_no_byte(notebook):
    source = build.put_address(notebook.source, build.read_address(), notebook.name)
    assert (source, build.convert(source)) == (notebook.source, notebook.notebook)


def test_another_address_enters_badge_and_pip_line_and_nothing_else():
    other = build.put_address(SOURCE, "https://github.com/ada/engine", NAME)
    changed = [
        line
        for line, before in zip(other.splitlines(), SOURCE.splitlines(), strict=True)
        if line != before
    ]
    assert [("github/ada/engine/blob" in line, line) for line in changed] == [
        (True, changed[0]),
        (False, "# %pip install --quiet git+https://github.com/ada/engine"),
    ]
    assert build.put_address(other, address(), NAME) == SOURCE


@pytest.mark.parametrize("wrong", [SOURCE.replace("%pip", "!pip"), SOURCE + SOURCE])
def test_source_without_exactly_one_place_for_the_address_is_refused(wrong):
    with pytest.raises(ValueError, match="must have exactly one"):
        build.put_address(wrong, address(), NAME)


def test_address_that_colab_cannot_open_is_refused(tmp_path, monkeypatch):
    (tmp_path / "setup.cfg").write_text(
        "[metadata]\nurl = https://example.com/descent\n"
    )
    monkeypatch.setattr(build, "TOP", tmp_path)
    with pytest.raises(
        ValueError, match=r"setup\.cfg's url must be https://github\.com/<owner>/<name>"
    ):
        build.read_address()


def test_owner_enters_the_address_and_nothing_else(tmp_path, monkeypatch):
    setup = (TOP / "setup.cfg").read_text("utf-8")
    (tmp_path / "setup.cfg").write_text(setup, "utf-8")
    monkeypatch.setattr(build, "TOP", tmp_path)
    for owner in ("ada", "Ada-Lovelace1"):
        build.set_owner(owner)
        assert build.read_address() == f"https://github.com/{owner}/descent"
    changed = (tmp_path / "setup.cfg").read_text("utf-8")
    pairs = zip(changed.splitlines(), setup.splitlines(), strict=True)
    assert sum(new != old for new, old in pairs) == 1
    for owner in ("", "a b", "-a", "a--b", "a/b", "x" * 40, "ada\n"):
        with pytest.raises(ValueError, match="OWNER must be a name on GitHub"):
            build.set_owner(owner)


@pytest.mark.thorough("the main notebook")
def test_code_runs_small_and_draws_three_pictures(capsys, monkeypatch):
    source = SOURCE
    for size, tiny in TINY.items():
        assert source.count(size) == 1
        source = source.replace(size, tiny)
    monkeypatch.setattr(pyplot, "show", lambda: None)  # Without a screen it warns.
    try:
        exec(compile(source, f"{NAME}.py", "exec"), {"__name__": "notebook"})
        titles = [
            pyplot.figure(number).axes[0].get_title(loc="left")
            for number in pyplot.get_fignums()
        ]
    finally:
        pyplot.close("all")
    assert [title.partition(", ")[2] for title in titles] == [
        "against passes over the data",
        "against seconds",
        "batches of 32 on breast_cancer",
    ]
    assert len(re.findall(r"rate \S+ +[\d.]+ ms a pass", capsys.readouterr().out)) == 3


def run_cell(cell: str, names: dict) -> bool:
    """As a kernel does: a ledger in the last line is shown, here as text; whether a
    figure in the last line is shown.
    """
    tree = ast.parse(cell)
    exec(compile(tree, "cell.py", "exec"), names)
    last = tree.body[-1]
    if isinstance(last, ast.Expr) and isinstance(last.value, ast.Name):
        print(names[last.value.id].text())
    if not (isinstance(last, ast.Expr) and isinstance(last.value, ast.Attribute)):
        return False
    return isinstance(
        eval(compile(ast.Expression(last.value), "cell.py", "eval"), names), Figure
    )


def unshown(told: str, code: str, output: str) -> list[str]:
    """What stands in backticks without being in the output: numbers, and words that are
    not in the code either.
    """
    spans = re.findall(r"`([^`]+)`", told)
    where = [output if re.match(r"[-\d(]", span) else output + code for span in spans]
    whole = [rf"(?<!\w)(?<!\d\.){re.escape(span)}(?!\w|\.\d)" for span in spans]
    return [
        span
        for span, pattern, text in zip(spans, whole, where, strict=True)
        if not re.search(pattern, text)
    ]


@pytest.mark.thorough(
    "whole lessons; make test has what they import and how they stand"
)
@pytest.mark.parametrize("notebook", TEACHING, ids=lambda notebook: notebook.name)
def test_lesson_shows_the_numbers_and_pictures_that_it_tells_of(
    notebook, capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(pyplot, "show", lambda: None)
    monkeypatch.chdir(tmp_path)  # For what it saves.
    cells = jupytext.reads(notebook.source, fmt="py:percent").cells
    code = [number for number, cell in enumerate(cells) if cell.cell_type == "code"]
    names, missing, pictures = {"__name__": "notebook"}, {}, 0
    try:
        for number in code[1:]:  # Without the pip line.
            pictures += run_cell(cells[number].source, names)
            output, told = capsys.readouterr().out, cells[number + 1].source
            if told.startswith("**Seen.**"):
                missing[number] = unshown(told, cells[number].source, output)
        pictures += len(pyplot.get_fignums())
    finally:
        pyplot.close("all")
    assert len(missing) == len(code) - SETUP
    assert {number: spans for number, spans in missing.items() if spans} == {}
    assert pictures == PICTURES[notebook.name]


def test_number_that_a_lesson_did_not_show_is_seen():
    told = "It is `-1.5`, not `2`; `limit` says `kink`, or `1.`."
    assert not unshown(told, "limit = 2", "kink: -1.5 [1. 2]")
    assert unshown(told, "limit = 2", "limit: -1.55 [21. 2.5]") == [
        "-1.5",
        "2",
        "kink",
        "1.",
    ]


@pytest.mark.parametrize(
    "source",
    [
        "plt.show()",
        "draw('passes')",
        "pictures['trials'].figure",
        "ledger = explain(f, 1.0)\nledger",
    ],
)
def test_cell_that_lost_its_picture_is_seen(monkeypatch, source):
    monkeypatch.setitem(sys.modules, "nbclient", types.ModuleType("nbclient"))
    monkeypatch.setitem(sys.modules, "build", build)
    check_pictures = importlib.import_module("notebooks.execute").check_pictures
    right = (
        {"text/html": "<div><svg/></div>"}
        if source.endswith("ledger")
        else {"image/png": "..."}
    )
    for data in ({"text/plain": "<Figure>"}, right):
        cell = types.SimpleNamespace(
            cell_type="code", source=source, outputs=[{"data": data}]
        )
        notebook = types.SimpleNamespace(
            cells=[types.SimpleNamespace(cell_type="markdown", source=source), cell]
        )
        if data is right:
            check_pictures(notebook)
        else:
            with pytest.raises(ValueError, match="came of this cell"):
                check_pictures(notebook)


def test_readme_carries_the_address_too():
    text = (TOP / "README.md").read_text("utf-8")
    assert build.put_address(text, build.read_address(), NAME) == text
    moved = build.put_address(text, "https://github.com/ada/descent-2.0", NAME)
    assert "`%pip install --quiet git+https://github.com/ada/descent-2.0`" in moved
    assert build.put_address(moved, build.read_address(), NAME) == text
