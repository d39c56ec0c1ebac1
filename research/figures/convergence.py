"""Draw curves of f - f* on logarithmic axes, with bands and predicted final values."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes

from research import figures, statistics


class Curve(NamedTuple):
    """One line of a figure: the progress of several runs that differ only in the seed.

    Attributes:
      label: Name of the curve, such as "mini-batch", shown at its end or in the legend.
      x: Passes over the data, or seconds, shape (k,). Entries that are not positive are
        not drawn.
      values: Positive values, one row for each of s seeds, shape (s, k). The figure
        shows the median over the seeds with a 95 % bootstrap interval.
      colour: Any matplotlib colour.
      floor: Predicted value at which the curve levels off, drawn as a dashed line. None
        means that there is no prediction.
      dashes: A matplotlib line style.
    """

    label: str
    x: Float[np.ndarray, " k"]
    values: Float[np.ndarray, "s k"]
    colour: str
    floor: float | None = None
    dashes: str = "-"


# Below this share of its initial value, f - f* in float64 consists of rounding errors.
_SMALLEST = 1e-15


def draw_curves(
    axes: Axes,
    curves: Sequence[Curve],
    *,
    x_label: str,
    y_label: str = "",
    resamples: int = 500,
) -> None:
    """Draw the median of each curve over the seeds, with a band, on log-log axes.

    The band is a 95 % bootstrap interval of the median. The field `floor` of a curve, a
    predicted value, is drawn as a dashed line.

    Args:
      axes: Axes to draw on.
      curves: Curves, in the order in which they are drawn.
      x_label, y_label: Labels of the axes, with units.
      resamples: Number of bootstrap resamples for the band.
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


def thin(x: Float[np.ndarray, " k"], points: int = 160) -> Int[np.ndarray, " chosen"]:
    """Return indices of at most `points` positive entries of x, to draw fewer points.

    The entries of x are ascending, and at least one is positive. The selected entries
    are spaced about evenly on a log axis. The last positive entry is always selected.
    """
    positive = np.flatnonzero(x > 0)
    wanted = np.geomspace(x[positive[0]], x[positive[-1]], points)
    return positive[
        np.unique(
            np.searchsorted(x[positive], wanted * (1 - 1e-12)).clip(
                max=len(positive) - 1
            )
        )
    ]
