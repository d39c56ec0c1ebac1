"""Lists the experiments, runs one, or keeps a run as the reference: python -m experiments [NAME [flags] | keep RUN]."""

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import research


def questions(folder: Path = Path(__file__).parent) -> dict[str, str]:
    """The question of each experiment, by name: the first line of its docstring, read without importing it."""
    files = [file for file in sorted(folder.glob("*.py")) if not file.stem.startswith("_")]
    docstrings = {file.stem: ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) for file in files}
    return {name: (docstring or "").partition("\n")[0] for name, docstring in docstrings.items()}


def main(argv: Sequence[str]) -> int:
    """Runs the experiment that the first word names, with the other words as its flags; without a word, lists all."""
    known = questions()
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, known), default=0)
        for name, question in known.items():
            print(f"{name:{width}}  {question}")
        print("\nRun one:  python -m experiments NAME [flags]     its flags:  python -m experiments NAME --help")
        print("Keep a run in experiments/reference:  python -m experiments keep results/NAME/ID")
        return 0
    if argv[0] == "keep":
        return keep(argv[1:])
    name = Path(argv[0]).stem.replace("-", "_")
    if name not in known:
        print(f"error: There is no experiment {argv[0]!r}. {research.cli.flags.nearest(name, known)}", file=sys.stderr)
        return 2
    return research.cli.main(importlib.import_module(f"experiments.{name}"), argv[1:])


def keep(paths: Sequence[str]) -> int:
    """Writes experiments/reference/NAME.json from one finished run."""
    if len(paths) != 1:
        print(f"error: keep takes one run folder, such as results/NAME/ID; got {len(paths)}.", file=sys.stderr)
        return 2
    try:
        print(research.runs.keep(paths[0], Path(__file__).parent / "reference"))
    except (ValueError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
