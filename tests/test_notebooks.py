"""Each notebook is what its text source gives, carries setup.cfg's address, and runs from the package alone."""

import ast
import configparser
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

import jupytext
import pytest
from matplotlib import pyplot

TOP = Path(__file__).parent.parent
NAME = "batch_stochastic_minibatch"
SOURCE = (TOP / f"notebooks/{NAME}.py").read_text("utf-8")
NOTEBOOK = (TOP / f"notebooks/{NAME}.ipynb").read_text("utf-8")
MOST_LINES = 25  # Of a cell of code.
# So that it runs in seconds: what is replaced in the source, and by what.
TINY = {
    "PASSES = 100": "PASSES = 2",
    "range(5), range(100, 102)": "range(1), range(100, 101)",
    "jnp.arange(20)": "jnp.arange(2)",
    "ladder=regime.ladder(RULE)": "ladder=[0.25]",
}


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, TOP / f"notebooks/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load("build")


def address() -> str:
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg", encoding="utf-8")
    return setup["metadata"]["url"]


def is_what_its_source_gives(source: str, notebook: str) -> Iterator[str]:
    wanted = [(cell.cell_type, cell.source) for cell in jupytext.reads(source, fmt="py:percent").cells]
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(notebook)["cells"]]
    if found != wanted:
        yield "the .ipynb is not what its source gives: make notebooks"


def is_stripped(source: str, notebook: str) -> Iterator[str]:
    content = json.loads(notebook)
    metadata = content["metadata"]
    if metadata.pop("kernelspec", None) != {"display_name": "Python 3", "language": "python", "name": "python3"}:
        yield "it names a kernel of some machine"
    if metadata != {"language_info": {"name": "python"}}:
        yield f"it has metadata: {metadata}"
    for number, cell in enumerate(content["cells"]):
        if cell.get("outputs") or cell.get("execution_count") is not None or cell["metadata"]:
            yield f"cell {number} has outputs, a count or metadata"


def opens_with_its_badge_and_one_pip_line(source: str, notebook: str) -> Iterator[str]:
    cells = json.loads(notebook)["cells"]
    repository = address().removeprefix("https://github.com/")
    target = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{NAME}.ipynb"
    if not re.match(rf"\[!\[Open in Colab\]\(\S+\.svg\)\]\({re.escape(target)}\)\n", "".join(cells[0]["source"])):
        yield f"it does not open with a badge for {target}"
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    if [cell for cell in code if "pip " in cell] != [f"%pip install --quiet git+{address()}"] or "pip" not in code[0]:
        yield "its first code is not the one pip line with setup.cfg's address"
    if code[1].split("\n") != ["import research", "", "research.backend.configure(x64=True)"]:
        yield "it does not configure the backend before all else"


def needs_the_package_alone(source: str, notebook: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        packages = {name.partition(".")[0] for name in names} - {"research", "jax", "numpy", "matplotlib"}
        yield from (f"it imports {package}" for package in packages)


def has_short_cells(source: str, notebook: str) -> Iterator[str]:
    for cell in jupytext.reads(source, fmt="py:percent").cells:
        if cell.cell_type == "code" and cell.source.count("\n") >= MOST_LINES:
            yield f"the cell of {cell.source[:40]!r} is longer than {MOST_LINES} lines"


LAWS = (
    is_what_its_source_gives,
    is_stripped,
    opens_with_its_badge_and_one_pip_line,
    needs_the_package_alone,
    has_short_cells,
)
PLANTED = [  # (law, in the source?, what is there, what is planted instead)
    (is_what_its_source_gives, True, "BATCH_SIZE = 32", "BATCH_SIZE = 16"),
    (is_stripped, False, '"outputs": []', '"outputs": [{}]'),
    (is_stripped, False, '"execution_count": null', '"execution_count": 3'),
    (is_stripped, False, '"name": "python3"', '"name": "mine"'),
    (is_stripped, False, '"language_info": {', '"jupytext": {}, "language_info": {'),
    (opens_with_its_badge_and_one_pip_line, False, "/blob/main/", "/blob/other/"),
    (opens_with_its_badge_and_one_pip_line, False, "git+https", "https"),
    (opens_with_its_badge_and_one_pip_line, False, "%pip install", "%pip install torch"),
    (opens_with_its_badge_and_one_pip_line, False, "import research\\n", "import jax\\n"),
    (needs_the_package_alone, True, "import jax\n", "import jax\nimport experiments\n"),
    (needs_the_package_alone, True, "import jax\n", "import jax\nfrom torch import nn\n"),
    (has_short_cells, True, "n = len(workload.train.y)\n", "n = len(workload.train.y)\n" * 30),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_notebook_keeps_the_law(law):
    assert not list(law(SOURCE, NOTEBOOK))


@pytest.mark.parametrize(("law", "in_source", "right", "wrong"), PLANTED)
def test_law_sees_what_breaks_it(law, in_source, right, wrong):
    assert right in (SOURCE if in_source else NOTEBOOK)
    source, notebook = SOURCE, NOTEBOOK
    if in_source:
        source = SOURCE.replace(right, wrong)
    else:
        notebook = NOTEBOOK.replace(right, wrong)
    assert list(law(source, notebook))


def test_building_again_changes_no_byte():
    source = build.put_address(SOURCE, build.read_address(), NAME)
    assert (source, build.convert(source)) == (SOURCE, NOTEBOOK)


def test_another_address_enters_badge_and_pip_line_and_nothing_else():
    other = build.put_address(SOURCE, "https://github.com/ada/engine", NAME)
    changed = [line for line, before in zip(other.splitlines(), SOURCE.splitlines(), strict=True) if line != before]
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
    (tmp_path / "setup.cfg").write_text("[metadata]\nurl = https://example.com/descent\n")
    monkeypatch.setattr(build, "TOP", tmp_path)
    with pytest.raises(ValueError, match=r"setup\.cfg's url must be https://github\.com/<owner>/<name>"):
        build.read_address()


def test_code_runs_small_and_draws_three_pictures(capsys, monkeypatch):
    source = SOURCE
    for size, tiny in TINY.items():
        assert source.count(size) == 1
        source = source.replace(size, tiny)
    monkeypatch.setattr(pyplot, "show", lambda: None)  # Without a screen it warns.
    try:
        exec(compile(source, f"{NAME}.py", "exec"), {"__name__": "notebook"})
        titles = [pyplot.figure(number).axes[0].get_title(loc="left") for number in pyplot.get_fignums()]
    finally:
        pyplot.close("all")
    assert [title.partition(", ")[2] for title in titles] == [
        "against passes over the data",
        "against seconds",
        "batches of 32 on breast_cancer",
    ]
    assert len(re.findall(r"rate \S+ +[\d.]+ ms a pass", capsys.readouterr().out)) == 3


def test_readme_carries_the_address_too():
    text = (TOP / "README.md").read_text("utf-8")
    assert build.put_address(text, build.read_address(), NAME) == text
    moved = build.put_address(text, "https://github.com/ada/descent-2.0", NAME)
    assert "`%pip install --quiet git+https://github.com/ada/descent-2.0`" in moved
    assert build.put_address(moved, build.read_address(), NAME) == text
