"""Build the site: python -m docs.make_site, then open docs/_build/html/index.html.

The Markdown pages of the repository, the notebooks, and the pages of docs/api.py and
docs/gallery.py are put together in docs/_build/source, in the folders of the
repository. Sphinx makes the site from them. Every warning is an error, and so is a
link that leads nowhere (docs/check_site.py).
"""

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx.cmd.build import main as run_sphinx

from docs import api, check_site, gallery
from docs.source_links import FOLDER, SCHEME

HERE = Path(__file__).parent
TOP = HERE.parent
BUILD = HERE / "_build"
HOW_TO = (
    "your_images",
    "your_data",
    "data_larger_than_memory",
    "check_a_gradient",
    "choose_a_derivative",
    "find_a_nan",
    "verify_your_rule",
    "compare_your_rule",
    "send_a_study",
    "train_on_many_devices",
    "run_on_a_cluster",
    "portable_bits",
)
SOURCE, SITE = BUILD / "source", BUILD / "html"
FRONT = "docs/index.md"  # Stands at the top of the site.
# The pages of the menu, by heading. A page outside it is reached by links and search.
MENU = {
    "Learn": (
        "Overview <README>",
        "gallery",
        "docs/article",
        "docs/choosing",
        "docs/networks",
    ),
    "How to": tuple(f"docs/howto/{name}" for name in HOW_TO),
    "Reference": ("api/index", "docs/update_rules", "docs/audit", "benchmarks/RESULTS"),
    "The project": (
        "docs/architecture",
        "experiments/README",
        "benchmarks/README",
        "requirements/README",
        "CONTRIBUTING",
        "CHANGELOG",
    ),
}
PATTERNS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/*.md",
    "docs/howto/*.md",
    "docs/rules/*.md",
    "experiments/README.md",
    "benchmarks/*.md",
    "requirements/README.md",
)
# Where the link to a folder leads.
FOLDERS = {
    "experiments/reference": "gallery.md",
    "notebooks": "gallery.md",
    "docs/rules": "docs/update_rules.md",
    "research/verification": "api/verification.md",
}
OUTSIDE_THE_MENU = "---\norphan: true\n---\n\n"
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
BADGE = re.compile(r"\[!\[(Open in Colab)\]\([^)]*\)\](\([^)]*\))")
ANCHOR = re.compile(r'^<a id="([^"]+)"></a>$', re.M)
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2", re.M | re.S)


def texts(drawn: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return path in the site's source -> text, of every page in Markdown.

    Args:
      drawn: Path in the site's source of a picture of each notebook that has one.
    """
    written = {
        path.relative_to(TOP).as_posix(): path.read_text("utf-8")
        for pattern in PATTERNS
        for path in sorted(TOP.glob(pattern))
    }
    written["index.md"] = written.pop(FRONT) + menu()
    article = "docs/article.md"
    written[article] = gallery.with_pictures(written[article])
    for path, text in written.items():
        if path.startswith("docs/rules/"):
            written[path] = OUTSIDE_THE_MENU + text
    return written | gallery.pages(drawn) | api.pages()


def menu() -> str:
    """Write the tables of contents at the end of the front page, for the menu."""
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n"
        + "\n".join(members)
        + "\n```\n"
        for title, members in MENU.items()
    )


def notebooks(executed: Path | None) -> dict[str, str]:
    """Return path -> text of each notebook, executed if there is a folder of these.

    Raises:
      ValueError: A cell of an executed notebook failed.
      OSError: The folder lacks a notebook.
    """
    found = {}
    for path in sorted(TOP.glob("notebooks/*.ipynb")):
        notebook = json.loads(path.read_text("utf-8"))
        if executed:
            put_outputs(notebook, executed / path.name)
        text = json.dumps(notebook, ensure_ascii=False)
        found[f"notebooks/{path.name}"] = BADGE.sub(r"[\1]\2", text)
    return found


def put_outputs(notebook: dict[str, Any], executed: Path) -> None:
    """Put the outputs of an executed notebook into one without outputs.

    The outputs of the cell that installs the package are left out.
    """
    cells = json.loads(executed.read_text("utf-8"))["cells"]
    outputs = {cell["id"]: cell.get("outputs", []) for cell in cells}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and "%pip" not in "".join(cell["source"]):
            cell["outputs"] = outputs[cell["id"]]
            if any(one["output_type"] == "error" for one in cell["outputs"]):
                raise ValueError(f"{executed} failed; no page is made from it.")


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Change the text outside blocks of code."""
    parts, end = [], 0
    for block in FENCE.finditer(text):
        parts += [change(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(text[end:])])


def with_links(path: str, text: str, pages: Iterable[str]) -> str:
    """Return the text of a page, with each link to its target's place in the site.

    A link to a page stays as it is. A link to another file leads to a copy of it.
    """
    origin = FRONT if path == "index.md" else path
    pages = {*pages}

    def moved(found: re.Match[str]) -> str:
        return found[1] + target(origin, path, found[2], pages) + found[3]

    def change(part: str) -> str:
        return ANCHOR.sub(r"(\1)=", LINK.sub(moved, BADGE.sub(r"[\1]\2", part)))

    return outside_code(text, change)


def target(origin: str, path: str, address: str, pages: set[str]) -> str:
    """Return the address in the site, from the page `path`, of a link in `origin`."""
    file, _, anchor = address.partition("#")
    if "://" in address or address.startswith(SCHEME) or not file:
        return address
    meant = os.path.normpath(os.path.join(os.path.dirname(origin), file))
    meant = FOLDERS.get(meant, "index.md" if meant == FRONT else meant)
    if meant in pages or Path(meant).suffix in (".svg", ".png"):
        moved = os.path.relpath(meant, os.path.dirname(path) or ".")
        return f"{moved}#{anchor}" if anchor else moved
    if not (TOP / meant).is_file():
        raise ValueError(f"{origin} links to {address}, which is neither page nor file")
    return f"{SCHEME}{meant}#{anchor}" if anchor else f"{SCHEME}{meant}"


def assemble(executed: Path | None) -> set[str]:
    """Write the sources of the site, and return the source files that they link to."""
    made_by_jupyter = notebooks(executed)
    drawn = first_pictures(made_by_jupyter)
    pages = texts({Path(path).stem: path for path in drawn})
    names = {*pages, *made_by_jupyter}
    forget_others(names)
    linked: set[str] = set()
    for path, text in pages.items():
        text = with_links(path, text, names)
        linked |= set(re.findall(rf"\]\({SCHEME}([^)#]+)", text))
        put(path, text)
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
            file = os.path.normpath(os.path.join(os.path.dirname(path), picture))
            if file not in drawn:
                copy_picture(file)
    for path, text in made_by_jupyter.items():
        put(path, text)
    for path, data in drawn.items():
        (SOURCE / path).write_bytes(data)
    return linked


def first_pictures(made_by_jupyter: Mapping[str, str]) -> dict[str, bytes]:
    """Return path in the site's source -> PNG, of the executed notebooks that draw."""
    found = {
        Path(path).with_suffix(".png").as_posix(): gallery.first_picture(
            json.loads(text)
        )
        for path, text in made_by_jupyter.items()
    }
    return {path: picture for path, picture in found.items() if picture}


def forget_others(names: set[str]) -> None:
    """Remove an earlier build if it has a page that this one does not have."""
    before = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*")
        if path.suffix in (".md", ".ipynb")
    }
    if before - names:
        shutil.rmtree(SOURCE)
        shutil.rmtree(SITE, ignore_errors=True)


def put(path: str, text: str) -> None:
    """Write one source file, unless it has this text already: Sphinx looks at times."""
    file = SOURCE / path
    if not file.exists() or file.read_text("utf-8") != text:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")


def copy_picture(path: str) -> None:
    """Copy a picture of the repository to the same place in the site's source."""
    (SOURCE / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(TOP / path, SOURCE / path)


def write_copy(path: str) -> None:
    """Write a source file as a page with line numbers, each with its anchor."""
    text = (TOP / path).read_text("utf-8")
    try:
        lexer = get_lexer_for_filename(path)
    except ClassNotFound:
        lexer = TextLexer()
    look = HtmlFormatter(linenos="inline", lineanchors="L", anchorlinenos=True)
    up = "../" * (path.count("/") + 1)
    code = highlight(text, lexer, look)
    file = SITE / FOLDER / f"{path}.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(COPY.format(title=path, up=up, code=code), "utf-8")


COPY = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="{up}_static/pygments.css">
<link rel="stylesheet" href="{up}_static/site.css"></head>
<body class="copy"><p><a href="{up}index.html">Descent</a> · {title}</p>
{code}</body></html>
"""


def build(executed: Path | None = None) -> int:
    """Build the site and check its links; return the exit status."""
    linked = assemble(executed)
    words = ["-b", "html", "-W", "--keep-going", "-q", "-j", "2", "-c", str(HERE)]
    words += ["-d", str(BUILD / "doctrees"), str(SOURCE), str(SITE)]
    if status := run_sphinx(words):
        return status
    for path in sorted(linked):
        write_copy(path)
    faults = list(check_site.faults(SITE))
    print(*faults or [f"Built: {SITE / 'index.html'}"], sep="\n")
    return min(len(faults), 1)


def main() -> int:
    """Build the site from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--executed",
        type=Path,
        metavar="FOLDER",
        help="notebooks with outputs, from notebooks/execute.py (default: no outputs)",
    )
    return build(parser.parse_args().executed)


if __name__ == "__main__":
    sys.exit(main())
