"""Draw ratios with intervals whose values come from an untrusted source."""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

from research import figures
from research.checks import check_sequence, check_text
from research.figures.studies import VERDICTS
from research.figures.study_curves import few_numbers
from research.figures.study_looks import WORDS, plain

MOST_ROWS = 40  # The picture has no more rows.
LONGEST = 48  # Characters of a label.
WIDEST = 1e4  # Ratios beyond this factor are drawn at the edge.


class Ratio(NamedTuple):
    """One row of the picture of `draw_ratios`.

    Attributes:
      label: Name of the row.
      ratio, low, high: A ratio, such as the cost of a rule divided by that of the
        baseline, and the ends of its interval. None means unknown.
      verdict: "better", "worse" or "undecided". Another word is drawn like "undecided".
    """

    label: str
    ratio: float | None
    low: float | None
    high: float | None
    verdict: str


def draw_ratios(title: str, rows: Sequence[Ratio], axis: str) -> figures.Picture:
    """Draw each ratio as a mark with its interval, on a logarithmic axis.

    The labels and the numbers may come from an untrusted source. Every number is
    accepted. A ratio gets a mark at the edge of the picture if it is 0, negative or
    infinite, above about 10,000, or below about 1 / 10,000. NaN or None gets no mark.
    Only the first 40 rows are drawn. The caption says how many are missing.

    Args:
      title: Title of the picture.
      rows: Ratios with their intervals, from top to bottom.
      axis: Label of the axis.
    Returns:
      The picture. Its caption gives the same ratios as text.
    """
    check_text("title", title)
    check_sequence("rows", rows, "Ratios", Ratio)
    check_text("axis", axis)
    shown = rows[:MOST_ROWS]
    with warnings.catch_warnings(action="ignore"):  # Names with signs of no font.
        figure, axes = figures.new_figure(height=1.1 + 0.26 * max(len(shown), 2))
        panel = axes[0, 0]
        low, high = _ends(shown)
        panel.set_xscale("log")
        panel.set_xlim(low, high)
        panel.axvline(1, color=figures.COLOURS["exact"], linewidth=1.2)
        for place, row in enumerate(shown):
            colour, fill = VERDICTS.get(row.verdict, VERDICTS["undecided"])
            ends = [_clipped(end, low, high) for end in (row.low, row.high)]
            if None not in ends:
                panel.plot(ends, [place, place], color=colour, linewidth=1.8)
            middle = _clipped(row.ratio, low, high)
            if middle is not None:
                panel.plot(
                    middle, place, "D", color=colour, fillstyle=fill, clip_on=False
                )
        panel.set_yticks(
            range(len(shown)), [plain(_cut(row.label)) for row in shown], fontsize=8
        )
        panel.set_ylim(len(shown) - 0.5, -0.5)
        ticks = few_numbers(low, high)
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.set_xticks([], minor=True)
        panel.set_xlabel(plain(_cut(axis, 100)), color=WORDS)
        panel.grid(axis="y", visible=False)
    return figures.Picture(title, _caption(rows, axis), figure)


def _ends(rows: Sequence[Ratio]) -> tuple[float, float]:
    values = [
        min(max(value, 1 / WIDEST), WIDEST)
        for row in rows
        for value in (row.ratio, row.low, row.high)
        if value is not None and math.isfinite(value) and value > 0
    ]
    return min([1 / 1.5, *values]) / 1.1, max([1.5, *values]) * 1.1


def _clipped(value: float | None, low: float, high: float) -> float | None:
    if value is None or math.isnan(value):
        return None
    return float(min(max(value, low), high))


def _cut(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _caption(rows: Sequence[Ratio], axis: str) -> str:
    words = "; ".join(
        f"{_cut(row.label)} {_written(row.ratio)} [{_written(row.low)}, "
        f"{_written(row.high)}], {_cut(row.verdict)}"
        for row in rows[:MOST_ROWS]
    )
    left = len(rows) - MOST_ROWS
    more = f" {left:,} more rows are not shown." if left > 0 else ""
    return f"{_cut(axis, 200)}: {words or 'nothing was compared'}.{more}"


def _written(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
