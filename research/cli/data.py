"""The command `descent data`: list, fetch and verify data sets."""

import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from research.cli import errors as problems
from research.cli import progress
from research.cli.parser import Parser
from research.naming import nearest

if TYPE_CHECKING:
    from research.datasets.sources import Source

SUCCESS, FAILURE = 0, 1
ALL = "all"
WIDTH = 80
EXAMPLES = """
examples:
  descent data                       list the data sets, and which are on this machine
  descent data fetch fashion_mnist   download a data set into the cache
  descent data verify                compare every file on this machine with its hash

A data set is searched in the folder given by --data-dir or the variable DESCENT_DATA,
then in the folder of the system's package, then in the cache. Exit status of verify: 0
if every file is correct, 1 otherwise."""


def data(words: Sequence[str]) -> int:
    """List the data sets, fetch data sets, or verify the data sets on this machine.

    Args:
      words: Command-line arguments after `data`.
    Returns:
      1 if a verified file has the wrong content, and 0 otherwise.
    Raises:
      ValueError, OSError: The input is bad, or a data set cannot be fetched.
        `research.cli.errors_in_one_line` reports the error in one line.
      SystemExit: Status 2 if an argument is missing or a value has the wrong type.
    """
    parser = Parser(
        "descent data",
        description=(data.__doc__ or "").partition("\n")[0],
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "action", nargs="?", default="list", help="list (the default), fetch or verify"
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="names of data sets, as in `data list`, or `all` (2.7 GB)",
    )
    parser.add_argument("--data-dir", type=Path, help="look in this folder first")
    asked = parser.parse_args(words)
    if asked.action not in ACTIONS:
        raise ValueError(
            f"Unknown action `data {asked.action}`. {nearest(asked.action, ACTIONS)}"
        )
    use_folder(asked.data_dir)
    return ACTIONS[asked.action](_chosen(asked.names, asked.action))


def use_folder(folder: Path | None) -> None:
    """Make `folder` the first place to search for data, also in child processes.

    Args:
      folder: Folder from the flag --data-dir. None changes nothing.
    Raises:
      ValueError: The folder does not exist.
    """
    from research.datasets.finding import VARIABLE

    if folder is None:
        return
    if not folder.is_dir():
        raise ValueError(
            f"--data-dir must be an existing folder with data; got {str(folder)!r}."
        )
    os.environ[VARIABLE] = str(folder.absolute())


def _chosen(names: Sequence[str], action: str) -> "list[Source]":
    from research.datasets import SOURCES

    for name in names:
        if name not in (*SOURCES, ALL):
            raise ValueError(
                f"Unknown data set {name!r}. {nearest(name, [*SOURCES, ALL])}"
            )
    if not names and action == "fetch":
        raise ValueError(
            f"data fetch needs the names of data sets, or {ALL}; for example: data "
            "fetch fashion_mnist. `data list` shows the names."
        )
    if not names or ALL in names:
        return list(SOURCES.values())
    return [SOURCES[name] for name in dict.fromkeys(names)]


def _list(sources: "list[Source]") -> int:
    from research.datasets.table import size_in_words

    width = max(len(source.name) for source in sources)
    print(f"{'name':{width}}  {'download':>8}  licence; contents; location")
    for source in sources:
        head = f"{source.name:{width}}  {size_in_words(source):>8}  "
        below = " " * len(head)
        print()
        print(
            textwrap.fill(
                source.licence, WIDTH, initial_indent=head, subsequent_indent=below
            )
        )
        print(f"  {source.what}\n  {_where(source)}")
    return SUCCESS


def _where(source: "Source") -> str:
    from research.datasets.finding import copies

    if not source.files:
        return "in scikit-learn"
    found = [copies(source, file) for file in source.files]
    if all(found):
        return ", ".join(dict.fromkeys(_short(places[0][1].parent) for places in found))
    return (
        f"{'incomplete' if any(found) else 'missing'}; to download it: descent data "
        f"fetch {source.name}"
    )


def _short(path: Path) -> str:
    return (
        f"~/{path.relative_to(Path.home())}"
        if path.is_relative_to(Path.home())
        else str(path)
    )


def _fetch(sources: "list[Source]") -> int:
    from research.datasets.finding import find_files

    missed = []
    for source in sources:
        try:
            with progress.shown() as show:
                paths = find_files(source, show)
        except (OSError, ValueError) as problem:
            if len(sources) == 1:
                raise
            missed.append(source.name)
            print(f"error: {problems.explain(problem)}", file=sys.stderr)
            continue
        where = (
            ", ".join(dict.fromkeys(_short(path.parent) for path in paths))
            or "comes with scikit-learn"
        )
        print(f"{source.name}: {where} (licence: {source.licence})")
    if missed:
        raise ValueError(
            f"{len(missed)} of {len(sources)} sets could not be fetched: "
            f"{', '.join(missed)}."
        )
    return SUCCESS


def _verify(sources: "list[Source]") -> int:
    from research.datasets.finding import copies, fault

    num_right, wrong = 0, []
    for source in sources:
        for file in source.files:
            for _, path in copies(source, file):
                found = fault(path, file)
                print(
                    f"{source.name}: {_short(path)}: "
                    f"{'correct' if found is None else 'WRONG'}"
                )
                wrong += [found] if found else []
                num_right += not found
    for sentence in wrong:
        print(f"error: {sentence}", file=sys.stderr)
    if wrong:
        print(f"Correct files: {num_right}. Wrong files: {len(wrong)}.")
    else:
        print(
            f"All {num_right} files on this machine are correct."
            if num_right
            else "None of these files is on this machine."
        )
    return FAILURE if wrong else SUCCESS


ACTIONS: "dict[str, Callable[[list[Source]], int]]" = {
    "list": _list,
    "fetch": _fetch,
    "verify": _verify,
}
