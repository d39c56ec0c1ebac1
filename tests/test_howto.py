"""The code of the front and how-to pages runs, and prints what the pages say."""

import contextlib
import doctest
import io
import re
import shlex
from pathlib import Path

import pytest

from experiments.__main__ import COMMANDS, load
from research.cli import spread
from research.cli.commands import COMMANDS as PROGRAM

TOP = Path(__file__).parent.parent
PAGES = {
    path.stem: path.read_text("utf-8")
    for path in (TOP / "docs/index.md", *sorted(TOP.glob("docs/howto/*.md")))
}
# A block of Python, and the block without a language that follows: what it prints.
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```\n(.*?)^```)?", re.M | re.S)
SHELL = re.compile(r"^(?:descent|python -m experiments) .*$", re.M)


def differences(text: str) -> list[str]:
    """What the code of a page prints that the page does not say."""
    names: dict = {}
    found = []
    for code, said in BLOCK.findall(text):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "page", "exec"), names)
        if not doctest.OutputChecker().check_output(
            said, printed.getvalue(), doctest.ELLIPSIS
        ):
            found.append(f"{code}\nprints\n{printed.getvalue()}\nnot\n{said}")
    return found


@pytest.mark.on_ci("the page that takes longest", but="find")
@pytest.mark.thorough("the other pages, which take seconds", but="check|find")
@pytest.mark.parametrize("page", PAGES)
def test_code_of_a_page_prints_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not differences(PAGES[page])


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1)\n```\n\n```\n2\n```\n",
        "```python\nprint(1)\n```\n",
        "```python\nx = 1\n```\n\n```\n1\n```\n",
    ],
)
def test_a_page_that_says_something_else_is_seen(text):
    assert differences(text)


@pytest.mark.on_ci(
    "two pages, whose experiments take seconds to import",
    but="^(?!your_images|run_on_a_cluster)",
)
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_are_commands_with_such_flags(page):
    for line in SHELL.findall(PAGES[page]):
        program, *words = shlex.split(line)
        if program == "descent":
            assert words[0] in PROGRAM
            continue
        name = words[2]
        if name == "spread":
            _, flags = spread._parser().parse_known_args(words[3:])
            fields = load(words[3]).Config.__dataclass_fields__
            named = {flag[2:].replace("-", "_") for flag in flags if flag[:2] == "--"}
            assert named <= {*fields, "full"}
        else:
            assert name in COMMANDS or name == "NAME" or load(name)
