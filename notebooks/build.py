"""Write the notebooks (.ipynb) from their text sources, with setup.cfg's address.

The address is also written into each text source and README.md.

The .py beside a notebook is its source, in jupytext's percent format; the .ipynb is
made, for readers who have no jupytext (Colab, GitHub), and holds no output. `make
notebooks` runs this after a source or the address has changed. tests/test_notebooks.py
checks that the files are what this script writes.
"""

import configparser
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import jupytext

TOP = Path(__file__).parent.parent
# The main experiment, then the lessons in the order of the article's sections.
NAMES = (
    "batch_stochastic_minibatch",
    "mathematics_behind_ai",
    "what_is_a_derivative",
    "where_is_the_minimum",
    "the_chain_rule_at_work",
    "write_adam",
    "fit_a_line",
    "decision_boundary",
    "a_tape_by_hand",
    "image_recognition",
    "spoken_words",
    "character_language_model",
    "bring_your_own_rule",
    "your_rule_on_a_network",
)
SOURCES = tuple(TOP / f"notebooks/{name}.py" for name in NAMES)
README = TOP / "README.md"  # With the badge of the first.
BRANCH = "main"
COLAB = "https://colab.research.google.com"
PIP = "%pip install --quiet git+"
# What jupytext does not need to know of the machine that wrote the file.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def read_address() -> str:
    """Return the repository's address, which only setup.cfg has by hand.

    Returns:
      https://github.com/<owner>/<name>.
    Raises:
      ValueError: It is not of that form, which Colab's links need.
    """
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg", encoding="utf-8")
    address = setup["metadata"]["url"]
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        raise ValueError(
            "setup.cfg's url must be https://github.com/<owner>/<name> for Colab to "
            f"open it; got {address!r}."
        )
    return address


def badge(address: str, name: str) -> str:
    """Return the picture that opens notebooks/<name>.ipynb in Colab, as Markdown."""
    repository = address.removeprefix("https://github.com/")
    target = f"{COLAB}/github/{repository}/blob/{BRANCH}/notebooks/{name}.ipynb"
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({target})"


def put_address(source: str, address: str, name: str) -> str:
    """Return the text source with this address in its badge and its pip line.

    It replaces any earlier address.

    Raises:
      ValueError: The source has not exactly one badge and one pip line.
    """
    parts = (
        (r"\[!\[Open in Colab\]\(.*?\)\]\(.*?\)", badge(address, name)),
        (rf"{re.escape(PIP)}[\w:/.-]+", f"{PIP}{address}"),
    )
    for pattern, replacement in parts:
        source, found = re.subn(pattern, lambda _, new=replacement: new, source)
        if found != 1:
            raise ValueError(
                f"{name} must have exactly one {replacement!r}; it has {found}."
            )
    return source


def convert(source: str) -> str:
    """Return the .ipynb of a text source, without outputs and counts.

    The bytes are the same each time.
    """
    notebook = jupytext.reads(source, fmt="py:percent")
    notebook.metadata = METADATA
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def set_owner(owner: str) -> None:
    """Write an owner into the address in setup.cfg.

    Args:
      owner: Name of the owner of the repository on GitHub.
    Raises:
      ValueError: GitHub allows no such name.
    """
    if not re.fullmatch(r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}", owner):
        raise ValueError(
            "OWNER must be a name on GitHub: up to 39 letters, digits and single "
            f"hyphens; got {owner!r}. Write make owner OWNER=name."
        )
    old = read_address()
    new = f"https://github.com/{owner}/{old.rpartition('/')[2]}"
    setup = TOP / "setup.cfg"
    text = setup.read_text(encoding="utf-8").replace(f"url = {old}\n", f"url = {new}\n")
    setup.write_text(text, encoding="utf-8")


def main(words: Sequence[str]) -> None:
    """Write every source and notebook again, and the address in the README.

    Args:
      words: Nothing, or the owner whose name enters the address first.
    """
    for owner in words:
        set_owner(owner)
    address = read_address()
    README.write_text(
        put_address(README.read_text(encoding="utf-8"), address, SOURCES[0].stem),
        encoding="utf-8",
    )
    for path in SOURCES:
        source = put_address(path.read_text(encoding="utf-8"), address, path.stem)
        path.write_text(source, encoding="utf-8")
        path.with_suffix(".ipynb").write_text(convert(source), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
