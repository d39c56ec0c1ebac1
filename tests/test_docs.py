"""What the pages say of the code is so: each law is also shown a page that breaks it,
and must see it.
"""

import ast
import doctest
import functools
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from research.cli.flags import question_of

TOP = Path(__file__).parent.parent
NAMES = (
    "README.md",
    "CONTRIBUTING.md",
    "experiments/README.md",
    *sorted(f"docs/{p.name}" for p in TOP.glob("docs/*.md")),
    *sorted(f"docs/howto/{p.name}" for p in TOP.glob("docs/howto/*.md")),
)
PAGES = {name: (TOP / name).read_text("utf-8") for name in NAMES}
ARTICLE, ARCHITECTURE = PAGES["docs/article.md"], PAGES["docs/architecture.md"]
SECTIONS = [
    *("1.1", "1.2", "2.1", "2.2", "3.1", "3.2", "3.3", "4.1"),
    *("4.2", "5.1", "5.2", "6.1", "6.2", "7", "8.1", "8.2"),
]
FIELDS = ("Claims", "Wrong or missing", "Experiment", "Number", "Test", "Notebook")
FOLDERS = {
    "research",
    "experiments",
    "tests",
    "docs",
    "benchmarks",
    "notebooks",
    "requirements",
    ".ci",
}
FILES = r"[\w-]+\.(py|cfg|toml|yml)|Makefile"
# In pieces, so that this file does not break its own law.
MACHINES = [f"/{name}/" for name in ("root", "home", "Users", "work", "opt", "tmp")] + [
    f"../{'shared'}",
    "file://",
]

Law = Callable[
    [str, str], Iterator[str]
]  # (path in the repository, its text) -> what breaks the law


def spans(text: str) -> list[str]:
    """Inline code, lines of indented code, and of code blocks other than trees of
    files.
    """
    blocks = [
        block
        for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
        if "\n  " not in block
    ]
    rest = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return (
        lines
        + re.findall(r"`([^`\n]+)`", rest)
        + re.findall(r"^ {4,}(\S.*)$", rest, re.M)
    )


def names_only_paths_that_exist(path: str, text: str) -> Iterator[str]:
    for word in (word for span in spans(text) for word in span.split()):
        file, _, test = word.partition("::")
        in_a_folder = "/" in file and file.split("/")[0] in FOLDERS
        if re.search("[<*]", file) or not (in_a_folder or re.fullmatch(FILES, file)):
            continue
        if not (TOP / file).exists():
            yield f"{path} names {file}, which does not exist"
        elif test and not re.search(
            rf"^def {re.escape(test)}\(", (TOP / file).read_text("utf-8"), re.M
        ):
            yield f"{path} names {word}, and there is no such test"


def names_only_figures_that_are_drawn(path: str, text: str) -> Iterator[str]:
    files = [*(TOP / "experiments").rglob("*.py"), TOP / "research/figures/studies.py"]
    drawn = " ".join(file.read_text("utf-8") for file in files)
    for name in re.findall(r"`(\w+)\.(?:svg|png|apng)`", text):
        named = rf'"{name}"(?:: |\] = )'  # In a dict, or put into one.
        if not re.search(named, drawn.partition("\ndef draw(")[2]):
            yield f"{path} names the figure {name}, which no experiment draws"


def links_only_to_what_exists(path: str, text: str) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if "://" in file:
            continue
        page = (TOP / path).parent / file if file else TOP / path
        if not page.exists():
            yield f"{path} links to {target}, which does not exist"
        elif anchor and anchor not in anchors(
            text if not file else page.read_text("utf-8")
        ):
            yield f"{path} links to {target}, which has no such heading"


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    slugs = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in headings
    }
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


def names_only_modules_that_exist(path: str, text: str) -> Iterator[str]:
    for name in (
        name
        for span in spans(text)
        for name in re.findall(r"(?<![\w/.])research(?:\.[A-Za-z_]\w*)+", span)
    ):
        if not resolves(name):
            yield f"{path} names {name}, which does not exist"


def resolves(name: str) -> bool:
    package, *attributes = name.split(".")
    found = importlib.import_module(package)
    for attribute in attributes:
        if not hasattr(found, attribute):
            return False
        found = getattr(found, attribute)
    return True


def names_only_flags_that_exist(path: str, text: str) -> Iterator[str]:
    options = fields("research/cli/flags.py", "Options")
    for span in spans(text):
        command = re.match(r"(?:python experiments/|descent )(\w+)(?:\.py)?\b", span)
        if command and (file := config_file(command[1])).exists():
            known = options | fields(file, "Config") | {"help"}
            if command[1] == "character_language_model" and "--modern" in span:
                # This flag starts another experiment.
                file = config_file("modern_language_model")
                known = options | fields(file, "Config") | {"help", "modern"}
            flags = [flag.replace("-", "_") for flag in re.findall(r"--([\w-]+)", span)]
            yield from (
                f"{path}: {command[1]} has no flag {flag}"
                for flag in flags
                if flag not in known
            )


def config_file(name: str) -> Path:
    """The file that defines the Config of an experiment; some are commands."""
    folder = "research/cli" if name.startswith("compare") else "experiments"
    return TOP / folder / f"{name}.py"


def fields(path: str | Path, name: str) -> set[str]:
    classes = [
        node
        for node in ast.parse((TOP / path).read_text("utf-8")).body
        if isinstance(node, ast.ClassDef)
    ]
    body = next(node for node in classes if node.name == name).body
    return {
        ast.unparse(node.target) for node in body if isinstance(node, ast.AnnAssign)
    }


def names_no_machine(path: str, text: str) -> Iterator[str]:
    yield from (
        f"{path} names {m}"
        for m in MACHINES
        if re.search(rf"(?<![\w.>}}/]){re.escape(m)}", text)
    )


def tells_every_section(path: str, text: str) -> Iterator[str]:
    if path != "docs/article.md":
        return
    parts = {
        m[1]: m[2]
        for m in re.finditer(
            r"^## ([\d.]+) \S.*? · .+?\n(.*?)(?=^## |\Z)", text, re.M | re.S
        )
    }
    rows = re.findall(r"^\| \[([\d.]+)\]\(#\d+\) \|", text, re.M)
    if list(parts) != SECTIONS or rows != SECTIONS:
        yield f"{path} has the sections {list(parts)} and the rows {rows}"
    for number, part in parts.items():
        named = {
            name.strip().capitalize()
            for names in re.findall(r"\*\*([^*]+)\.\*\*", part)
            for name in names.split(",")
        }
        yield from (
            f"{path}: {number} has no {field}" for field in FIELDS if field not in named
        )


def claims_every_experiment(path: str, text: str) -> Iterator[str]:
    if path != "experiments/README.md":
        return
    rows = {
        row[0]: row[1:]
        for row in re.findall(
            r"^\| \[(\w+)\]\(\1\.py\) \|(.*)\|(.*)\|(.*)\|(.*)\|$", text, re.M
        )
    }
    files = {
        file.stem: file
        for file in (TOP / "experiments").glob("*.py")
        if not file.stem.startswith("_")
    }
    yield from (
        f"{path} has a row or a file alone: {name}"
        for name in rows.keys() ^ files.keys()
    )
    for name in rows.keys() & files.keys():
        question, command, time, number = (cell.strip() for cell in rows[name])
        docstring, (keys, bounds) = page_of(files[name])
        if question != question_of(docstring):
            yield (
                f"{path}: the question of {name} is not its docstring's first paragraph"
            )
        if command != f"`python experiments/{name}.py`" or not time:
            yield f"{path}: {name} has no command or no time"
        yield from (
            f"{path}: {name} does not say {key}"
            for key in keys
            if f"`{key}`" not in number
        )
        yield from (
            f"{path}: {name} does not say {bound:g}"
            for bound in bounds - numbers(number)
        )


def repeats_what_is_expected(path: str, text: str) -> Iterator[str]:
    if path != "docs/article.md":
        return
    for paragraph in re.findall(r"^- \*\*Number.*?(?=^- |\Z)", text, re.M | re.S):
        for file in re.findall(r"`python (experiments/\w+\.py)`", paragraph):
            _, (_, bounds) = page_of(TOP / file)
            yield from (
                f"{path} does not say {bound:g} of {file}"
                for bound in bounds - numbers(paragraph)
            )


def numbers(text: str) -> set[float]:
    return {float(number) for number in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", text)}


@functools.cache  # Each page that breaks a law is compared with all experiments.
def page_of(file: Path) -> tuple[str | None, tuple[list[str], set[float]]]:
    """The docstring of an experiment, and what it expects."""
    tree = ast.parse(file.read_text("utf-8"))
    return ast.get_docstring(tree), expectations(tree)


def expectations(tree: ast.Module) -> tuple[list[str], set[float]]:
    """The keys of EXPECTED and its bounds other than zero and infinity, read without
    running the file.
    """
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXPECTED":
            constants = [
                n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)
            ]
            keys = [constant for constant in constants if isinstance(constant, str)]
            return keys, {
                float(c) for c in constants if isinstance(c, int | float) and c
            }
    return [], set()


def draws_the_tree_as_it_is(path: str, text: str) -> Iterator[str]:
    if path != "docs/architecture.md":
        return
    tree = re.search(r"^## The tree\n+```\n(.*?)^```", text, re.M | re.S)
    drawn = {
        line.split()[0].rstrip("/")
        for line in (tree[1] if tree else "").splitlines()
        if line.startswith("  ")
    }
    there = {
        f.name
        for f in (TOP / "research").iterdir()
        if not f.name.startswith(("_", ".")) and f.name != "py.typed"
    }
    yield from (f"{path} draws, or leaves out, {name}" for name in drawn ^ there)


def orders_layers_as_they_are(path: str, text: str) -> Iterator[str]:
    if path != "docs/architecture.md":
        return
    laws = ast.parse((TOP / "tests/test_architecture.py").read_text("utf-8"))
    layers = next(
        n.value
        for n in laws.body
        if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "LAYERS"
    )
    there = {file.stem for file in (TOP / "research").iterdir()} | {"experiments"}
    wanted = [
        {name for name in layer if name in there} for layer in ast.literal_eval(layers)
    ]
    block = re.search(r"^## Who may import whom\n.*?```\n(.*?)```", text, re.M | re.S)
    written = [
        set(re.findall(r"\w+", layer))
        for layer in (block[1] if block else "").split("<")
    ]
    if written != wanted:
        yield f"{path} orders the layers {written}; they are {wanted}"


LAWS: tuple[Law, ...] = (
    names_only_paths_that_exist,
    names_only_figures_that_are_drawn,
    links_only_to_what_exists,
    names_only_modules_that_exist,
    names_only_flags_that_exist,
    names_no_machine,
    tells_every_section,
    claims_every_experiment,
    repeats_what_is_expected,
    draws_the_tree_as_it_is,
    orders_layers_as_they_are,
)
CLAIMED = PAGES["experiments/README.md"]
PLANTED = [
    (names_only_paths_that_exist, "docs/new.md", "see `research/gossip.py`"),
    (
        names_only_paths_that_exist,
        "docs/new.md",
        "```\npython experiments/gossip.py\n```",
    ),
    (
        names_only_paths_that_exist,
        "docs/new.md",
        "`tests/test_descent.py::test_gossip`",
    ),
    (names_only_paths_that_exist, "docs/new.md", "see `gossip.toml`"),
    (
        names_only_paths_that_exist,
        "docs/new.md",
        "Run:\n\n    python experiments/gossip.py --full  # all of it",
    ),
    (names_only_figures_that_are_drawn, "docs/new.md", "see `gossip.svg`"),
    (links_only_to_what_exists, "docs/new.md", "[this](gossip.md)"),
    (links_only_to_what_exists, "docs/new.md", "[this](architecture.md#gossip)"),
    (links_only_to_what_exists, "docs/new.md", "# One\n[this](#two)"),
    (names_only_modules_that_exist, "docs/new.md", "`research.gossip`"),
    (names_only_modules_that_exist, "docs/new.md", "call `research.descent.gossip(3)`"),
    (
        names_only_flags_that_exist,
        "docs/new.md",
        "`python experiments/batch_stochastic_minibatch.py --gossip 3`",
    ),
    (
        names_only_flags_that_exist,
        "docs/new.md",
        "`python experiments/character_language_model.py --modern --longer-steps 9`",
    ),
    (names_no_machine, "docs/new.md", f"see {MACHINES[1]}ada/descent"),
    (names_no_machine, "docs/new.md", f"see {MACHINES[6]}/design"),
    (tells_every_section, "docs/article.md", ARTICLE.replace("\n## 3.2 ", "\n## 3.9 ")),
    (tells_every_section, "docs/article.md", ARTICLE.replace("| [7](#7) |", "|")),
    (
        tells_every_section,
        "docs/article.md",
        ARTICLE.replace("- **Wrong or missing.**", "-", 1),
    ),
    (
        claims_every_experiment,
        "experiments/README.md",
        CLAIMED.replace("and why?", "and how?"),
    ),
    (
        claims_every_experiment,
        "experiments/README.md",
        CLAIMED.replace("| [batch_stoch", "| [match_stoch"),
    ),
    (
        claims_every_experiment,
        "experiments/README.md",
        CLAIMED.replace("`floor_over_prediction`", "a share"),
    ),
    (
        claims_every_experiment,
        "experiments/README.md",
        CLAIMED.replace("| `python experiments/batch_stoch", "| `"),
    ),
    (
        claims_every_experiment,
        "experiments/README.md",
        CLAIMED.replace("0.8 to 1.25", "0.7 to 1.25"),
    ),
    (
        repeats_what_is_expected,
        "docs/article.md",
        ARTICLE.replace("0.8 to 1.25", "0.8 to 1.3"),
    ),
    (
        draws_the_tree_as_it_is,
        "docs/architecture.md",
        ARCHITECTURE.replace("  tuning/ ", "  turning/ "),
    ),
    (
        orders_layers_as_they_are,
        "docs/architecture.md",
        ARCHITECTURE.replace("verification, workloads", "workloads"),
    ),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_pages_keep_the_law(law):
    broken = [fault for path, text in PAGES.items() for fault in law(path, text)]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(("law", "path", "text"), PLANTED)
def test_law_sees_what_breaks_it(law, path, text):
    before = list(law(path, PAGES.get(path, "")))
    assert len(list(law(path, text))) > len(before)


@pytest.mark.parametrize("path", PAGES)
def test_examples_print_what_they_say(path):
    test = doctest.DocTestParser().get_doctest(PAGES[path], {}, path, path, 0)
    outcome = doctest.DocTestRunner(verbose=False).run(test)
    assert outcome.failed == 0
    assert outcome.attempted == len(re.findall(r"^ *>>> ", PAGES[path], re.M))
