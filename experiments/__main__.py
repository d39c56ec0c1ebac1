"""Lists the experiments, runs one, or does one of COMMANDS: python -m experiments [NAME
| COMMAND]."""

import argparse
import ast
import importlib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import research
from research.cli.data import data
from research.cli.leaderboard import leaderboard, pack
from research.cli.reproduce import reproduce_reference, reproduce_run
from research.cli.spread import spread
from research.cli.verify import verify

FOLDER = Path(__file__).parent
HELP = """
Run one:  python -m experiments NAME [flags]     its flags:  python -m experiments NAME --help
Data: what there is, and bringing it here:  python -m experiments data [fetch NAME | verify]
Share its work among jobs, here or on a queue:  python -m experiments spread NAME [flags] --jobs 4
Verify a rule of yours:  python -m experiments verify FILE.py:rule --against optax.adam
Reproduce a run, or the reference that is kept here:  python -m experiments reproduce results/NAME/ID  (or NAME)
Keep a run in experiments/reference:  python -m experiments keep results/NAME/ID
Hand a run on, as one file, and put the studies of many on one page:
  python -m experiments pack results/NAME/ID
  python -m experiments leaderboard results/compare STUDY.zip ..."""
COMMANDS = ("data", "verify", "reproduce", "keep", "pack", "leaderboard", "spread")


def questions(folder: Path = FOLDER) -> dict[str, str]:
    """The question of each experiment, by name: the first line of its docstring, read
    without importing it."""
    files = [
        file for file in sorted(folder.glob("*.py")) if not file.stem.startswith("_")
    ]
    docstrings = {
        file.stem: ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        for file in files
    }
    return {
        name: (docstring or "").partition("\n")[0]
        for name, docstring in docstrings.items()
    }


def main(argv: Sequence[str]) -> int:
    """Runs the experiment that the first word names, with the other words as its flags;
    without a word, lists all."""
    with research.cli.errors_in_one_line():
        if not argv or argv[0] in ("-h", "--help"):
            known = questions()
            width = max(map(len, known), default=0)
            print(
                "\n".join(
                    [
                        *(
                            f"{name:{width}}  {question}"
                            for name, question in known.items()
                        ),
                        HELP,
                    ]
                )
            )
            return 0
        if argv[0] == "data":
            return data(argv[1:])
        if argv[0] == "leaderboard":
            return leaderboard(argv[1:])
        if argv[0] == "spread":
            return spread(argv[1:], load)
        if argv[0] == "pack":
            return pack(argv[1:])
        if argv[0] == "keep":
            return keep(argv[1:])
        if argv[0] == "verify":
            return verify(argv[1:])
        if argv[0] == "reproduce":
            return reproduce(argv[1:])
        file = FOLDER / f"{find(argv[0])}.py"
    words, sys.argv = sys.argv, [str(file), *argv[1:]]
    try:
        runpy.run_path(str(file), run_name="__main__")
    finally:
        sys.argv = words
    return 0


def load(name: str) -> ModuleType:
    """Import the experiment of that name, whole."""
    return importlib.import_module(f"experiments.{find(name)}")


def find(name: str) -> str:
    """Return the module's name of an experiment, however it is spelled."""
    known, stem = questions(), Path(name).stem.replace("-", "_")
    if stem not in known:
        raise ValueError(
            f"There is no experiment {name!r}. "
            f"{research.cli.flags.nearest(stem, [*known, *COMMANDS])}"
        )
    return stem


def keep(words: Sequence[str]) -> int:
    """Writes experiments/reference/NAME.json from one finished run."""
    parser = argparse.ArgumentParser(
        "python -m experiments keep", description=keep.__doc__
    )
    parser.add_argument(
        "run", type=Path, help="the folder of a finished run, results/NAME/ID"
    )
    print(research.runs.keep(parser.parse_args(words).run, FOLDER / "reference"))
    return 0


def reproduce(words: Sequence[str]) -> int:
    """Runs a finished run, or the reference kept of an experiment, once more; status 0
    if it came out again, else 1.

    A run comes out again in every bit, a reference in table and numbers: its hashes are
    compared and told."""
    parser = argparse.ArgumentParser(
        "python -m experiments reproduce", description=reproduce.__doc__
    )
    parser.add_argument(
        "what",
        help=(
            "the folder of a finished run, results/NAME/ID, or the NAME of an "
            "experiment"
        ),
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results", "reproduced"),
        help="folder of the new run (%(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="print the verdict alone")
    given = parser.parse_args(words)
    options = research.cli.flags.Options(results=given.results, quiet=given.quiet)
    if Path(given.what).is_dir():
        return reproduce_run(Path(given.what), load, options)
    if len(Path(given.what).parts) > 1:
        raise ValueError(
            f"There is no run folder {given.what!r}. Give results/NAME/ID, or the NAME "
            "of an experiment."
        )
    name = load(given.what).__name__.rpartition(".")[2]
    reference = FOLDER / "reference" / f"{name}.json"
    if not reference.exists():
        raise ValueError(
            f"No reference of {name} is kept; give the folder of a run of yours: "
            f"results/{name}/ID."
        )
    return reproduce_reference(reference, load, options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
