"""Curves of f - f* on logarithmic axes, with their bands and the floors that theory predicts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from research import figures, statistics


class Curve(NamedTuple):
    """One regime's curve.

    Attributes:
      label: Named at the curve's end, or in the legend.
      x: Passes or seconds, shape (k,); entries that are not positive are not drawn.
      values: One row a seed, shape (s, k), positive; drawn as the median with its bootstrap interval.
      colour: Any matplotlib colour.
      floor: Where theory says that it stops, or None.
      dashes: A matplotlib line style.
    """

    label: str
    x: np.ndarray
    values: np.ndarray
    colour: str
    floor: float | None = None
    dashes: str = "-"


# Rounding: below this share of the start, f - f* in float64 is noise.
_SMALLEST = 1e-15


def draw_curves(
    axes: Axes,
    curves: Sequence[Curve],
    *,
    x_label: str,
    y_label: str = "",
    resamples: int = 500,
) -> None:
    """Draws each curve's median and band on log-log axes, and its floor as a dashed line.

    Args:
      axes: To draw on.
      curves: What to draw, in order.
      x_label, y_label: With units.
      resamples: Bootstrap resamples of the band.
    """
    for curve in curves:
        shown = thin(curve.x)
        values = np.maximum(
            np.where(np.isnan(curve.values), np.inf, curve.values), _SMALLEST
        )[:, shown]
        median, low, high = statistics.median_interval(values, resamples=resamples)
        style = {"color": curve.colour, "label": curve.label, "linestyle": curve.dashes}
        figures.band(axes, curve.x[shown], median, low, high, **style)
        if curve.floor is not None:
            axes.axhline(
                curve.floor, color=curve.colour, linestyle=(0, (4, 3)), linewidth=1.2
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)


def thin(x: np.ndarray, points: int = 160) -> np.ndarray:
    """Indices of at most `points` positive entries of x, about evenly spaced on a log axis; the last is always kept."""
    positive = np.flatnonzero(x > 0)
    wanted = np.geomspace(x[positive[0]], x[positive[-1]], points)
    return positive[
        np.unique(
            np.searchsorted(x[positive], wanted * (1 - 1e-12)).clip(
                max=len(positive) - 1
            )
        )
    ]
