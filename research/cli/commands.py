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
    """One command of the command-line program `descent`.

    Attributes:
      module: Name of the command's module in `research.cli`. The module is imported
        only when the command is used.
      function: Name of the command's function in this module. The function takes the
        command-line arguments and returns an exit status.
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
    "networks": Command(
        "compare_networks", "networks", "compare update rules on networks"
    ),
    "explain": Command(
        "explain", "explain", "show the chain rule of a function as a table"
    ),
    "reproduce": Command(
        "reproduce", "reproduce", "rerun a finished study and compare the results"
    ),
    "launch": Command(
        "launch", "launch", "start the processes of a training, and watch them"
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
    """Run the command named by the first argument, and pass it the other arguments.

    Args:
      argv: Command-line arguments after the program's name. None means the arguments of
        this process.
    Returns:
      The exit status.
    Raises:
      SystemExit: The exit status is 2 after bad input, 130 after Ctrl-C, and 141 if the
        program that reads the output has closed the pipe.
    """
    with cli.errors_in_one_line():
        words = list(sys.argv[1:] if argv is None else argv)
        if not words or words[0] in ("-h", "--help", "help"):
            print(listing())
            return cli.SUCCESS
        if words[0] in ("-V", "--version"):
            if words[1:]:
                raise ValueError(
                    f"{words[0]} takes no arguments; got {' '.join(words[1:])!r}."
                )
            print(versions())
            return cli.SUCCESS
        return find(words[0])(words[1:])


def find(name: str) -> Callable[[Sequence[str]], int]:
    """Return the function that runs a command, such as `compare`.

    Raises:
      ValueError: There is no command with this name.
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
    """Return a text that describes the commands of `descent` and has examples."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:{width}}  {row.summary}" for name, row in COMMANDS.items()]
    head = ["usage: descent COMMAND ...", "       descent --version", "", "commands:"]
    return "\n".join([*head, *rows, EXAMPLES])


def versions() -> str:
    """Return a text with the versions of this package, JAX, jaxlib, NumPy and Python.

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
