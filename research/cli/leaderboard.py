"""The commands `descent leaderboard` (merge studies) and `descent pack` (pack runs)."""

import sys
from collections.abc import Sequence
from pathlib import Path

from research.cli import console
from research.cli.parser import Parser

PAGE = Path("leaderboard.html")
EXAMPLES = """
examples:
  descent pack results/compare/0123456789ab --output mine.zip
  descent leaderboard results/compare mine.zip theirs.zip

A study is a small archive of plain files. Reading it executes nothing; its digests,
format and numbers are checked."""


def leaderboard(words: Sequence[str]) -> int:
    """Merge finished studies into one sortable page that opens offline.

    Args:
      words: Command-line arguments after `leaderboard`.
    Returns:
      0. The function prints the leading rules, the first columns of the first table of
      the page, and the path of the page.
    Raises:
      ValueError, OSError: A study cannot be read, or the page cannot be written.
        `research.cli.errors_in_one_line` reports the error in one line.
      SystemExit: Status 2 if an argument is missing or a value has the wrong type.
    """
    asked = _parser().parse_args(words)
    from research import leaderboard as page
    from research import runs
    from research.leaderboard.rankings import answer

    rankings = page.write_leaderboard(asked.studies, asked.output, asked.skip_bad)
    for _, reason in rankings.gathered.left_out:
        print(f"warning: skipped: {reason}", file=sys.stderr)
    title, columns, rows, note = page.tables(rankings)[0]
    most = columns.index("verdict") + 1
    texts = tuple(
        tuple(getattr(value, "text", value) for value in row[:most]) for row in rows
    )
    table = runs.Table(title, columns[:most], texts, note)
    console.show(
        runs.Result(" ".join(answer(rankings)), (table,), {}, {}),
        {"leaderboard": asked.output},
    )
    return 0


def _parser() -> Parser:
    parser = Parser(
        "descent leaderboard",
        description=(leaderboard.__doc__ or "").partition("\n")[0],
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add(
        "studies",
        nargs="+",
        type=Path,
        metavar="FOLDER_OR_ZIP",
        help=(
            "run folders (results/NAME/ID), folders of runs (results/NAME), or .zip "
            "files of runs"
        ),
    )
    add(
        "--output",
        type=Path,
        default=PAGE,
        metavar="PAGE.html",
        help="page to write (default: %(default)s)",
    )
    add(
        "--skip-bad",
        action="store_true",
        help="skip studies that cannot be read; the page lists them",
    )
    return parser


def pack(words: Sequence[str]) -> int:
    """Write a finished run as one file: report, numbers, and sources of its rules.

    Args:
      words: Command-line arguments after `pack`.
    Returns:
      0. The function prints the path of the archive and a summary of its contents.
    Raises:
      ValueError, OSError: The run is not finished, or a file cannot be read or written.
        `research.cli.errors_in_one_line` reports the error in one line.
      SystemExit: Status 2 if an argument is missing or a value has the wrong type.
    """
    parser = Parser(
        "descent pack",
        description=(pack.__doc__ or "").partition("\n")[0],
    )
    parser.add_argument(
        "run", type=Path, help="folder of a finished run, results/NAME/ID"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="STUDY.zip",
        help="archive to write (default: NAME-ID.zip)",
    )
    asked = parser.parse_args(words)
    from research import report
    from research.runs.archive import REPORT, read_contents
    from research.runs.archive import pack as write

    contents = read_contents(asked.run)
    manifest = contents.manifest
    written = write(
        asked.run,
        asked.output or Path(f"{manifest['experiment']}-{manifest['id']}.zip"),
    )
    size = written.stat().st_size
    has_report = (asked.run / REPORT).exists()
    print(
        f"{written} ({size / 1000:,.0f} kB) contains the "
        f"{'report, ' * has_report}results, command, package versions and processor "
        f"of {asked.run}."
    )
    others = report.rule_sources(contents.found["numbers"])
    if others:
        names = ", ".join(names for names, _ in others)
        print(f"It also contains the source of: {names}.")
    return 0
