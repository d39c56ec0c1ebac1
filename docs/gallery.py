"""Write the gallery of the site: a card and a page for each experiment.

The cards stand in the sections of docs/article.md. What they say comes from the
experiments' files and from experiments/reference.
"""

import ast
import base64
import functools
import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from PIL import Image

from docs import typeset
from experiments.__main__ import questions
from research.report import first_sentence

TOP = Path(__file__).parent.parent
REFERENCES = TOP / "experiments/reference"
SECTION = re.compile(
    r"^## (?P<number>[\d.]+) .*? · (?P<title>.+?)\n(?P<text>.*?)(?=^## |\Z)",
    re.M | re.S,
)
EXPERIMENT = re.compile(r"experiments/(\w+)\.py")
NOTEBOOK = re.compile(r"notebooks/(\w+)\.ipynb")
DESCRIBED = "{http://purl.org/dc/elements/1.1/}description"


class Section(NamedTuple):
    """A section of the article, with what belongs to it."""

    title: str
    experiments: list[str]
    notebooks: list[str]


@functools.cache
def experiments() -> dict[str, str]:
    """Return name -> question, of every experiment."""
    return questions()


@functools.cache
def notebooks() -> dict[str, tuple[str, str]]:
    """Return name -> (title, first sentence), of every notebook."""
    found = {}
    for path in sorted(TOP.glob("notebooks/*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        text = "\n\n".join(
            "".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"
        )
        heading = re.search(r"^# (.+)\n+((?:.+\n?)+)", text, re.M)
        if not heading:
            raise ValueError(f"{path} has no title with a paragraph below it")
        said, _ = first_sentence(" ".join(heading[2].split()))
        found[path.stem] = (heading[1], said)
    return found


def sections() -> list[Section]:
    """Return the article's sections, each experiment and notebook in its first one."""
    left, books = list(experiments()), list(notebooks())
    found = []
    article = (TOP / "docs/article.md").read_text("utf-8")
    for section in SECTION.finditer(article):
        title = f"{section['number']} {section['title']}"
        mine = taken(left, EXPERIMENT.findall(section["text"]))
        found.append(
            Section(title, mine, taken(books, NOTEBOOK.findall(section["text"])))
        )
    found.append(Section("Beyond the article", left, books))
    return [section for section in found if section.experiments or section.notebooks]


def taken(left: list[str], named: list[str]) -> list[str]:
    """Take the named entries from a list, which gets shorter."""
    mine = [name for name in dict.fromkeys(named) if name in left]
    left[:] = [name for name in left if name not in mine]
    return mine


def reference(name: str) -> dict[str, Any] | None:
    """Return the kept run of an experiment, or None."""
    file = REFERENCES / f"{name}.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else None


def picture(name: str) -> Path | None:
    """Return the kept picture of an experiment, or None. One is the README's."""
    files = [REFERENCES / f"{name}{suffix}" for suffix in (".svg", ".png")]
    files.append(TOP / f"docs/{name}.svg")
    return next((file for file in files if file.exists()), None)


def description(file: Path) -> str:
    """Return the text in the picture's file that stands for the picture."""
    if file.suffix == ".svg":
        found = ElementTree.parse(file).find(f".//{DESCRIBED}")
        return " ".join((found.text or "").split()) if found is not None else ""
    with Image.open(file) as image:
        return " ".join(str(image.info.get("Description", "")).split())


def number(name: str, kept: dict[str, Any]) -> str:
    """Return the first number of EXPECTED, as the kept run has it."""
    for key in expected(name):
        if key in kept["numbers"]:
            return f"`{key}`: {shown(kept['numbers'][key])}"
    return ""


def expected(name: str) -> list[str]:
    """Return the names in an experiment's EXPECTED, without running the file."""
    tree = ast.parse((TOP / f"experiments/{name}.py").read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXPECTED":
            assert isinstance(node.value, ast.Dict)
            return [ast.literal_eval(key) for key in node.value.keys if key]
    return []


def shown(value: Any) -> str:
    """Write three digits of a number, or the ends of a list."""
    if isinstance(value, list):
        return f"{shown(min(value))} to {shown(max(value))}"
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}"


def title(page: str) -> str:
    """Return the title of a card's page, from its path in the site's source."""
    name = Path(page).stem
    is_notebook = page.startswith("notebooks/")
    return f"{notebooks()[name][0]} (notebook)" if is_notebook else name


def pages(pictures: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return path in the site's source -> text, of the gallery's pages.

    Args:
      pictures: Path in the site's source of a picture of each notebook that has one.
    """
    written = {f"gallery/{name}.md": page(name) for name in experiments()}
    return written | {"gallery.md": overview(pictures)}


def overview(pictures: Mapping[str, str] | None = None) -> str:
    """Write the page with all cards."""
    drawn = pictures or {}
    parts = [
        "# Gallery",
        "Every experiment and notebook, in the order of "
        "[the article](docs/article.md). Pictures and numbers come from the recorded "
        "runs in [experiments/reference](experiments/README.md).",
    ]
    for section in sections():
        cards = [card(name) for name in section.experiments]
        cards += [notebook_card(name, drawn.get(name)) for name in section.notebooks]
        inner = "\n".join(cards)
        parts.append(f"## {section.title}\n\n::::{{container}} cards\n{inner}\n::::")
    toc = "\n".join(f"notebooks/{name}" for name in notebooks())
    parts.append(f"```{{toctree}}\n:hidden:\n\n{toc}\n```")
    return "\n\n".join(parts) + "\n"


def with_pictures(article: str) -> str:
    """Return the article with the pictures of each section's experiments.

    A file of an experiment is linked to its page in the gallery.
    """
    known = "|".join(experiments())
    for section in SECTION.finditer(article):
        names = dict.fromkeys(EXPERIMENT.findall(section["text"]))
        shown_ones = [(name, file) for name in names if (file := picture(name))]
        pictures = "\n\n".join(
            f"[![{alternative(file)}](../{file.relative_to(TOP).as_posix()})]"
            f"(../gallery/{name}.md)"
            for name, file in shown_ones
        )
        text, anchor, rest = section["text"].rstrip().partition("\n<a id=")
        article = article.replace(
            section["text"], f"{text}\n\n{pictures}\n{anchor}{rest}\n"
        )
    return re.sub(
        rf"`(experiments/({known})\.py)`", r"[`\1`](../gallery/\2.md)", article
    )


def card(name: str) -> str:
    """Write the card of an experiment."""
    kept, file = reference(name), picture(name)
    lines = [f"[**{escaped(experiments()[name])}**](gallery/{name}.md)"]
    if file:
        alt = alternative(file)
        lines.insert(0, f"![{alt}]({file.relative_to(TOP).as_posix()})")
    if kept:
        headline, _ = first_sentence(kept["answer"])
        lines += [escaped(headline), number(name, kept)]
    else:
        lines.append("No run is recorded.")
    return boxed(lines)


def notebook_card(name: str, drawn: str | None = None) -> str:
    """Write the card of a notebook, with a picture if there is one."""
    heading, said = notebooks()[name]
    lines = [f"[**{heading}**](notebooks/{name}.ipynb)", "Notebook.", said]
    if drawn:
        lines.insert(0, f"![The first picture that the notebook draws]({drawn})")
    return boxed(lines)


def first_picture(notebook: Mapping[str, Any]) -> bytes | None:
    """Return the first picture among the outputs of a notebook, as PNG, or None."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                return base64.b64decode("".join(png))
    return None


def boxed(lines: list[str]) -> str:
    """Write a card around some paragraphs."""
    inner = "\n\n".join(line for line in lines if line)
    return f":::{{container}} card-of\n{inner}\n:::"


def alternative(file: Path) -> str:
    """Return the text for readers who do not see a picture, for Markdown."""
    text = description(file) or f"Figure of {file.stem}"
    return escape(text, quote=False).replace("[", "(").replace("]", ")")


def escaped(text: str) -> str:
    """Escape a text, also where it has brackets, as intervals do."""
    return typeset.escaped(text).replace("[", r"\[")


def page(name: str) -> str:
    """Write the page of an experiment: question, answer, picture, table, command."""
    kept, file = reference(name), picture(name)
    parts = ["---\norphan: true\n---", f"# {escaped(experiments()[name])}"]
    parts.append(f"[Gallery](../gallery.md) · `experiments/{name}.py`")
    if kept:
        parts.append(escaped(kept["answer"]))
    if file:
        parts += [
            f"![{alternative(file)}](../{file.relative_to(TOP).as_posix()})",
            escaped(description(file)),
        ]
    if kept:
        parts += recorded(name, kept)
    parts.append(used_names(f"gallery/{name}.md"))
    parts.append(
        f"Source: [experiments/{name}.py](../experiments/{name}.py). "
        "[All experiments](../experiments/README.md), with commands, times and the "
        "numbers to expect."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def recorded(name: str, kept: dict[str, Any]) -> Iterator[str]:
    """Write the table and the command of a kept run."""
    table = kept["table"]
    rows = [table["columns"], ["---"] * len(table["columns"]), *table["rows"]]
    yield f"## {escaped(table['title'])}"
    yield "\n".join(
        "| " + " | ".join(cell(entry) for entry in row) + " |" for row in rows
    )
    yield (
        f"This run took the command below. "
        f"[The recorded run](../experiments/reference/{name}.json) has its settings, "
        "versions and numbers."
    )
    yield f"```\n{kept['manifest']['command']}\n```"


def cell(entry: object) -> str:
    """Write one entry of a table: three digits of a number, words for None."""
    if entry is None or isinstance(entry, dict):  # JSON keeps what is not finite so.
        return "not reached"
    if entry == "---":
        return "---"
    return f"{entry:.3g}" if isinstance(entry, float) else escaped(str(entry))


def used_names(page_path: str) -> str:
    """Link the API pages of the names that a card's source uses."""
    names = sorted(
        full.removeprefix("research.")
        for full, cards in uses().items()
        if page_path in cards
    )
    links = ", ".join(f"[{name}](../api/{name}.md)" for name in names)
    return f"It uses {links}." if links else ""


@functools.cache
def uses() -> dict[str, list[str]]:
    """Return public name -> pages of the cards whose source uses it."""
    from docs import api

    found: dict[str, list[str]] = {}
    known = {f"research.{full}" for full in api.public_names()}
    sources = {
        f"gallery/{name}.md": (
            f"experiments/{name}.py",
            f"experiments/reports/{name}.py",
        )
        for name in experiments()
    }
    sources |= {
        f"notebooks/{name}.ipynb": (f"notebooks/{name}.py",) for name in notebooks()
    }
    for path, files in sources.items():
        texts = [
            (TOP / file).read_text("utf-8") for file in files if (TOP / file).exists()
        ]
        for name in sorted(set().union(*map(dotted, texts)) & known):
            found.setdefault(name, []).append(path)
    return found


def dotted(source: str) -> set[str]:
    """Return the full names below `research` that a source uses.

    A source may import a name, or give a module a short name: models = research.models.
    """
    tree = ast.parse(source)
    known = {"research": "research"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            known |= {
                alias.asname or alias.name: f"{node.module}.{alias.name}"
                for alias in node.names
                if node.module.partition(".")[0] == "research"
            }
        elif isinstance(node, ast.Assign):
            known |= dict(shorter_names(node))
    names = {*known.values()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            if first in known:
                names.add(f"{known[first]}.{rest}")
    return names


def shorter_names(node: ast.Assign) -> Iterator[tuple[str, str]]:
    """Return pairs (short, full) of an assignment a, b = research.a, research.b."""
    targets, values = node.targets[0], node.value
    if not isinstance(targets, ast.Tuple) or not isinstance(values, ast.Tuple):
        pairs = [(targets, values)]
    else:
        pairs = list(zip(targets.elts, values.elts, strict=False))
    for target, value in pairs:
        full = ast.unparse(value)
        if isinstance(target, ast.Name) and re.fullmatch(r"research(\.\w+)+", full):
            yield target.id, full
