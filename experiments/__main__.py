"""Run experiments and other commands that need a clone: python -m experiments NAME."""

import ast
import importlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import research
from research.cli import commands, flags
from research.cli.parser import Parser
from research.cli.reproduce import (
    add_options,
    pin_libraries_of,
    reproduce_reference,
    reproduce_run,
)
from research.cli.spread import spread
from research.naming import nearest

FOLDER = Path(__file__).parent
HELP = """
Run one:  python -m experiments NAME [flags]
Its flags:  python -m experiments NAME --help
Split its work into jobs, on this machine or on a cluster:
  python -m experiments spread NAME [flags] --jobs 4
Reproduce a run, or the stored reference of an experiment:
  python -m experiments reproduce results/NAME/ID  (or NAME)
Store a run and its picture as reference in experiments/reference:
  python -m experiments keep results/NAME/ID
Draw the picture of an experiment from the numbers of its stored reference:
  python -m experiments keep NAME --from-reference

These commands need no clone of the repository; see descent --help (or python -m
research --help): verify, compare, networks, explain, reproduce, launch, data, pack,
leaderboard."""


def main(argv: Sequence[str]) -> int:
    """Run the experiment or command that the first argument names.

    Without arguments, list all experiments and commands.

    Args:
      argv: Command-line arguments after the program's name.
    Returns:
      The exit status.
    Raises:
      SystemExit: As in `research.cli.main`.
    """
    with research.cli.errors_in_one_line():
        if not argv or argv[0] in ("-h", "--help"):
            print(listing())
            return research.cli.SUCCESS
        name, *words = argv
        if name in COMMANDS:
            return COMMANDS[name](words)
        file = FOLDER / f"{find(name)}.py"
    research.cli.run_file(file, words)
    return research.cli.SUCCESS


def listing() -> str:
    """Return a text that lists the experiments, their questions, and the commands."""
    known = questions()
    width = max(map(len, known), default=0)
    rows = [f"{name:{width}}  {question}" for name, question in known.items()]
    return "\n".join([*rows, HELP])


def questions(folder: Path = FOLDER) -> dict[str, str]:
    """Return the question of each experiment: the first paragraph of its docstring.

    The experiments are parsed, not imported.

    Args:
      folder: Folder with the experiments.
    Returns:
      Dict name -> question.
    """
    files = [
        file for file in sorted(folder.glob("*.py")) if not file.stem.startswith("_")
    ]
    docstrings = {
        file.stem: ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        for file in files
    }
    return {name: flags.question_of(text) for name, text in docstrings.items()}


def load(name: str) -> ModuleType:
    """Import an experiment by its name, in any spelling that `find` accepts."""
    return importlib.import_module(f"experiments.{find(name)}")


def find(name: str) -> str:
    """Return the name of an experiment's module for any spelling of the name.

    Raises:
      ValueError: The experiment does not exist. The message suggests the most similar
        name. If the name is a command of `descent`, the message gives this command.
    """
    known, stem = questions(), Path(name).stem.replace("-", "_")
    if stem in known:
        return stem
    if name in commands.COMMANDS and name not in COMMANDS:
        raise ValueError(
            f"{name} is not an experiment but a command of descent: descent {name}, or "
            f"python -m research {name}."
        )
    hint = nearest(stem, [*known, *COMMANDS])
    raise ValueError(f"Unknown experiment {name!r}. {hint}")


def keep(words: Sequence[str]) -> int:
    """Write the reference of an experiment from a run: reference/NAME.json.

    A picture is stored beside the reference, as reference/NAME.svg or NAME.png. If the
    report of the experiment can draw a reference, the picture is drawn from the
    reference. Otherwise it is the first picture of the run.
    """
    parser = Parser("python -m experiments keep", description=keep.__doc__)
    parser.add_argument(
        "run",
        type=Path,
        help="the folder of a finished run, results/NAME/ID; with --from-reference, "
        "the NAME of an experiment",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--only-picture",
        action="store_true",
        help="store only the picture, of a run that agrees with the stored reference",
    )
    instead.add_argument(
        "--from-reference",
        action="store_true",
        help="store only a picture that is drawn from the stored reference",
    )
    given = parser.parse_args(words)
    folder = FOLDER / "reference"
    if given.from_reference:
        print(_keep_picture_of_reference(str(given.run), folder))
        return research.cli.SUCCESS
    if given.only_picture:
        _check_agrees(given.run, folder)
        print(_keep_picture(given.run, folder))
    else:
        print(*_keep_both(given.run, folder), sep="\n")
    return research.cli.SUCCESS


def _keep_both(run: Path, folder: Path) -> list[Path]:
    """Write the reference and the picture of a run.

    Both are written into a temporary folder first. So an error while the picture is
    drawn does not leave a new reference beside the old picture.
    """
    pictures = importlib.import_module("experiments._pictures")
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        made = [research.runs.keep(run, aside), _keep_picture(run, Path(aside))]
        kept = [file.replace(folder / file.name) for file in made]
    pictures.remove_other(kept[1])
    return kept


def _check_agrees(run: Path, folder: Path) -> None:
    name = research.runs.read_manifest(run)["experiment"]
    reference = research.runs.read_reference(folder / f"{name}.json")
    varies = getattr(load(name), "VARIES", {})
    agreement = research.runs.hold_against(reference, run, varies=varies)
    if not agreement.agrees:
        raise ValueError(
            f"{run} does not agree with the stored reference, so its picture is not "
            f"the reference's: {research.runs.agreement_verdict(agreement)}"
        )


def _keep_picture(run: Path, folder: Path) -> Path:
    """Write the picture of a run into a folder that has the run's reference."""
    pictures = importlib.import_module("experiments._pictures")
    name = research.runs.read_manifest(run)["experiment"]
    experiment = load(name)
    if hasattr(research.cli.report_of(experiment), "draw_reference"):
        return _keep_picture_of_reference(name, folder)
    return pictures.keep_picture(experiment, research.runs.load_result(run), folder)


def _keep_picture_of_reference(name: str, folder: Path) -> Path:
    pictures = importlib.import_module("experiments._pictures")
    experiment = load(name)
    stem = pictures.short_name(experiment)
    reference = research.runs.read_reference(folder / f"{stem}.json")
    return pictures.keep_picture_of_reference(experiment, reference, folder)


def reproduce(words: Sequence[str]) -> int:
    """Repeat a finished run or the run of a stored reference, and compare the results.

    The new results must agree with a run in every bit, and with a reference in the
    table and the numbers. Differences from the hashes of a reference are only shown.
    The status is 0 if the results agree, and 1 otherwise.
    """
    parser = Parser("python -m experiments reproduce", description=reproduce.__doc__)
    parser.add_argument(
        "what", help="a finished run, results/NAME/ID, or the NAME of an experiment"
    )
    add_options(parser)
    given = parser.parse_args(words)
    options = flags.Options(results=given.results, quiet=given.quiet)
    if Path(given.what).is_dir():
        pin_libraries_of(Path(given.what, "manifest.json"))
        return reproduce_run(Path(given.what), load, options)
    if len(Path(given.what).parts) > 1:
        raise ValueError(
            f"The run folder {given.what!r} does not exist. Pass results/NAME/ID, or "
            "the NAME of an experiment."
        )
    name = find(given.what)
    reference = FOLDER / "reference" / f"{name}.json"
    pin_libraries_of(reference)
    if not reference.exists():
        raise ValueError(
            f"No reference of {name} is stored. Pass the folder of one of your runs: "
            f"results/{name}/ID."
        )
    return reproduce_reference(reference, load, options)


def _spread(words: Sequence[str]) -> int:
    return spread(words, load)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "reproduce": reproduce,
    "keep": keep,
    "spread": _spread,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
