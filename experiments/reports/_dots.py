"""Draw the numbers of a stored reference: a dot with its interval for each row."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from research import figures

WIDTH = 4.6  # Inches. On a page of 400 pixels, letters are then 12 pixels or more.
SOURCE = "Drawn from the numbers that are kept of the recorded run."


class Dot(NamedTuple):
    """One row of a picture: an estimate, perhaps with an interval and a target.

    Attributes:
      label: Name of the row.
      value, low, high: The estimate, and the ends of its interval or None.
      colour: Key of `research.figures.COLOURS`.
      target: Number to reach, drawn as a line, or None.
      marker: Marker of matplotlib.
    """

    label: str
    value: float
    low: float | None
    high: float | None
    colour: str
    target: float | None = None
    marker: str = "o"


def rows(reference: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a reference's table as dicts from column to entry."""
    table = reference["table"]
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def number(entry: Any) -> float | None:
    """Return an entry of a table as a number. A dash is None."""
    return None if entry in ("-", "–", "", None) else float(entry)


def percent(entry: Any) -> float | None:
    """Return an entry of a table, a share, as a percentage. A dash is None."""
    share = number(entry)
    return None if share is None else 100 * share


def draw_dots(axes: Axes, dots: Sequence[Dot], digits: int = 1) -> None:
    """Draw dots one below the other, with their values above them.

    Args:
      axes: Axes to draw on.
      dots: Rows, from top to bottom.
      digits: Number of digits after the point of a written value.
    """
    for place, dot in enumerate(reversed(dots)):
        colour = figures.COLOURS[dot.colour]
        if dot.low is not None and dot.high is not None:
            ends = [[dot.value - dot.low], [dot.high - dot.value]]
            axes.errorbar(
                dot.value, place, xerr=ends, color=colour, capsize=4, lw=1.6, fmt="none"
            )
        if dot.target is not None:
            axes.plot(
                [dot.target] * 2, [place - 0.3, place + 0.1], ":", color=colour, lw=2
            )
        axes.plot(dot.value, place, dot.marker, color=colour, markersize=8)
        axes.annotate(
            f"{dot.value:.{digits}f}",
            (dot.value, place),
            (0, 8),
            textcoords="offset points",
            ha="center",
        )
    axes.set_yticks(range(len(dots)), [dot.label for dot in reversed(dots)])
    axes.set_ylim(-0.5, len(dots) - 0.35)
    axes.margins(x=0.12)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
