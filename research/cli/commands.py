"""The console command `descent` and the table of its commands.

Each command is in a module of its own.
"""

import importlib
import importlib.metadata
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from research import cli
from research.cli.errors import DISTRIBUTION
from research.naming import nearest

VERSIONS = (
    "jax",
    "jaxlib",
    "numpy",
)  # The bits of a run depend on these and on Python.


class Command(NamedTuple):
    """One command of `descent`.

    Attributes:
      module: Name of its module in `research.cli`, which is imported when it is used.
      function: Name of its function: command-line arguments -> exit status.
      summary: Description in the list of commands.
    """

    module: str
    function: str
    summary: str


COMMANDS = {
    "verify": Command(
        "verify", "verify", "check a rule step by step against a reference"
    ),
    "compare": Command(
        "compare", "compare", "compare update rules, each tuned, on several problems"
    ),
    "explain": Command(
        "explain", "explain", "show the chain rule of a function as a table"
    ),
    "reproduce": Command(
        "reproduce", "reproduce", "rerun a finished study and compare the results"
    ),
    "data": Command("data", "data", "list, fetch and verify data sets"),
    "pack": Command("leaderboard", "pack", "write a finished run as one .zip file"),
    "leaderboard": Command(
        "leaderboard", "leaderboard", "combine studies from several people on one page"
    ),
}
EXAMPLES = """
examples:
  descent verify mine.py:my_adam --against optax.adam
  descent compare mine.py:my_adam adam --workload digits breast_cancer
  descent explain "x**2 * sin(x)" --at x=1.0
  descent data fetch fashion_mnist
  descent reproduce theirs.zip

`descent COMMAND --help` shows the flags of a command. `python -m research` is the
same program. The exit status is 0 after success, 1 if a check failed, 2 after bad
input and 130 after Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names, with the other arguments.

    Args:
      argv: Command-line arguments after the program's name; None: those of this
        process.
    Returns:
      The exit status.
    Raises:
      SystemExit: Status 2 after bad input, 130 after Ctrl-C, 141 if the reader of the
        output has closed the pipe.
    """
    with cli.errors_in_one_line():
        words = list(sys.argv[1:] if argv is None else argv)
        if not words or words[0] in ("-h", "--help", "help"):
            print(listing())
            return cli.SUCCESS
        if words[0] in ("-V", "--version"):
            print(versions())
            return cli.SUCCESS
        return find(words[0])(words[1:])


def find(name: str) -> Callable[[Sequence[str]], int]:
    """Return the function of a command.

    Raises:
      ValueError: The command does not exist, or is an experiment.
    """
    if name in COMMANDS:
        module = importlib.import_module(f"research.cli.{COMMANDS[name].module}")
        return getattr(module, COMMANDS[name].function)
    if name.startswith("-"):
        raise ValueError(
            f"Unknown flag {name}. {nearest(name, ['--help', '--version'])}"
        )
    raise ValueError(
        f"Unknown command {name!r}. {nearest(name, COMMANDS)} Experiments need a clone "
        "of the repository: python -m experiments."
    )


def listing() -> str:
    """Return the list of commands with their descriptions, and examples."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:{width}}  {row.summary}" for name, row in COMMANDS.items()]
    head = ["usage: descent COMMAND ...", "       descent --version", "", "commands:"]
    return "\n".join([*head, *rows, EXAMPLES])


def versions() -> str:
    """Return the versions of this package, of JAX, jaxlib and NumPy, and of Python.

    The packages are not imported.
    """
    names = (DISTRIBUTION, *VERSIONS)
    lines = [f"{name} {_version(name)}" for name in names]
    return "\n".join([*lines, f"python {platform.python_version()}"])


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if name == DISTRIBUTION:
            return f"(not installed; from {Path(__file__).parents[2]})"
        return "(not installed)"
