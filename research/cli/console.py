"""Print the answer, the tables and the paths of files to a terminal or a pipe."""

import numbers
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import rich.console
    import rich.table

    from research import runs

PIPE_WIDTH = (
    10_000  # Lines are not wrapped in a pipe or a log; a terminal has its own width.
)
GAP = 3  # Number of spaces between two columns of a table.


def show(
    result: "runs.Result",
    paths: Mapping[str, Path],
    tables: bool = True,
    stream: TextIO | None = None,
    width: int | None = None,
    question: str = "",
) -> None:
    """Print the question, the answer, the first table, and the paths of files.

    In the table, floats have three significant digits, and None is printed as "not
    reached". If there are other tables, a line says that they are in the report. A pipe
    gets plain text without control codes or line wrapping. If a terminal is too narrow
    for the table, each row is printed as a short list.

    Args:
      result: Result of an experiment.
      paths: Paths of files by name.
      tables: Whether to print the first table.
      stream: Output stream. None means standard output.
      width: Width in characters. None means the width of the terminal, or an unlimited
        width if the stream is not a terminal.
      question: Question to print above the answer. "" means that no question is
        printed.
    Example:
      >>> from research import runs
      >>> table = runs.Table(
      ...     "Effort",
      ...     ["sampler", "epochs"],
      ...     [["mini-batch", 7.4051], ["stochastic", None]],
      ...     "To 1 %.",
      ... )
      >>> show(
      ...     runs.Result("Mini-batch wins.", (table,), {}, {}),
      ...     {"report": Path("results", "report.html")},
      ... )
      Mini-batch wins.
      <BLANKLINE>
      Effort
      <BLANKLINE>
      sampler           epochs
      ────────────────────────
      mini-batch          7.41
      stochastic   not reached
      <BLANKLINE>
      To 1 %.
      <BLANKLINE>
      report: results/report.html
    """
    console = _console(stream or sys.stdout, width)
    if question:
        console.print(question, style="bold")
        console.print()
    console.print(result.answer)
    for table in result.tables[:1] if tables else ():
        console.print()
        _print_table(console, table)
    more = len(result.tables) - 1
    if tables and more > 0:
        console.print()
        console.print(
            f"{more} more {'table is' if more == 1 else 'tables are'} in the report."
        )
    console.print()
    for name, path in paths.items():
        console.print(
            f"{name}: {path}", soft_wrap=True
        )  # A path split over two lines cannot be clicked.


def cell(value: Any) -> str:
    """Return one value of a table as text, with three significant digits for a float.

    Args:
      value: A string, a number, True, False, or None, which means "not reached".
    Returns:
      The text. Integers have all their digits.
    Example:
      >>> values = (None, True, 1797, 0.025249, 12345.6, 1e-9, float("nan"), "adam")
      >>> [cell(value) for value in values]
      ['not reached', 'yes', '1,797', '0.0252', '12,300', '1e-09', 'nan', 'adam']
    """
    if value is None:
        return "not reached"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    if not isinstance(value, numbers.Real):
        return str(value)
    number = float(f"{value:.2e}")  # Rounded first, so that 999.6 is printed as 1,000.
    return f"{number:,.0f}" if 1e3 <= abs(number) < 1e6 else f"{number:.3g}"


def _console(stream: TextIO, width: int | None) -> "rich.console.Console":
    import rich.console

    if width is None and not stream.isatty():
        width = PIPE_WIDTH
    return rich.console.Console(
        file=stream,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        force_jupyter=False,
        log_time=False,
    )


def _print_table(console: "rich.console.Console", table: "runs.Table") -> None:
    import rich.box
    import rich.table

    rows = [[cell(value) for value in row] for row in table.rows]
    widths = _widths(table.columns, rows, console.width)
    console.print(table.title, style="bold")
    if widths is None:
        _print_as_lists(console, table.columns, rows)
    else:
        grid = rich.table.Table(
            box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False
        )
        for index, (name, width) in enumerate(zip(table.columns, widths, strict=True)):
            numeric = all(
                row[index] is None or isinstance(row[index], numbers.Real)
                for row in table.rows
            )
            grid.add_column(
                _wrapped(name, width), justify="right" if numeric else "left"
            )
        for row in rows:
            grid.add_row(*map(_wrapped, row, widths))
        console.print()
        console.print(grid)
    if table.note:
        console.print()
        console.print(table.note)


def _wrapped(text: str, width: int) -> str:
    """Wrap a text at spaces.

    The package rich is not used for this, because before version 14.3 it makes the
    first and the last column wider than the given `width`.
    """
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _widths(
    columns: Sequence[str], rows: Sequence[Sequence[str]], available: int
) -> list[int] | None:
    """Return the width of each column, or None if the table does not fit.

    A column is as wide as its widest entry. If necessary, headings and texts are broken
    at spaces; numbers are never broken.
    """
    widths, least = [], []
    for heading, *cells in zip(columns, *rows, strict=True):
        words = [word for text in (heading, *cells) for word in text.split()]
        unbroken = [text for text in cells if text[:1].isdigit() or text[:1] in "+-±−"]
        widths.append(max(map(len, (heading, *cells))))
        least.append(max(map(len, (*words, *unbroken)), default=0))
    room = available - GAP * (len(columns) - 1)
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widest = max(
            (i for i in range(len(widths)) if widths[i] > least[i]),
            key=widths.__getitem__,
        )
        widths[widest] -= 1
    return widths


def _print_as_lists(
    console: "rich.console.Console",
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
) -> None:
    for row in rows:
        console.print()
        for name, text in zip(columns, row, strict=True):
            console.print(f"  {name}: {text}")
