"""Axes on which a small network is seen as a chain of layers: what goes forward along it, and what flows back."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from research.figures import COLOURS

AHEAD, BACK = COLOURS["full batch"], COLOURS["stochastic"]
APART, HIGH = 4.0, 2.0  # Of layers, and of units in a layer.
HALF_LINE = 0.27  # Of the text in a unit.


def draw_chain(
    axes: Axes,
    values: Sequence[np.ndarray],
    deltas: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    gradients: Sequence[np.ndarray],
    names: Sequence[Sequence[str]],
) -> None:
    """Units as circles, with the value that goes forward and the δ that comes back; on each edge weight and derivative.

    Args:
      axes: Where.
      values, deltas: Of each layer, the input's first, each of shape (units,).
      weights, gradients: Between layers, each of shape (units before, units after).
      names: Of the units of each layer.
    """
    places = [
        [(APART * k, HIGH * ((len(layer) - 1) / 2 - i)) for i in range(len(layer))]
        for k, layer in enumerate(values)
    ]
    for k, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
        for i, start in enumerate(places[k]):
            # Where edges cross, the labels of those from one unit stand nearer to it than those from the next.
            share = (
                0.45
                if weight.shape[1] == 1
                else 0.28 + 0.34 * i / max(weight.shape[0] - 1, 1)
            )
            for j, end in enumerate(places[k + 1]):
                _draw_edge(
                    axes,
                    np.array(start),
                    np.array(end),
                    share,
                    weight[i, j],
                    gradient[i, j],
                )
    for column, value, delta, name in zip(places, values, deltas, names, strict=True):
        for i, (x, y) in enumerate(column):
            axes.plot(
                x, y, "o", ms=52, color="white", mec=COLOURS["exact"], mew=1.2, zorder=4
            )
            axes.text(
                x,
                y + HALF_LINE,
                name[i],
                ha="center",
                va="center",
                weight="bold",
                zorder=5,
            )
            axes.text(
                x, y, f"{value[i]:.2f}", ha="center", va="center", color=AHEAD, zorder=5
            )
            axes.text(
                x,
                y - HALF_LINE,
                f"δ {delta[i]:.2f}",
                ha="center",
                va="center",
                color=BACK,
                zorder=5,
            )
    tallest = max(len(layer) for layer in values)
    axes.set(
        xlim=(-0.8, APART * (len(values) - 1) + 0.8),
        ylim=(-HIGH * tallest / 2 - 0.7, HIGH * tallest / 2 - 0.2),
    )
    axes.axis("off")


def draw_way(axes: Axes, y: float, text: str, back: bool) -> None:
    """A long arrow below the chain, with what goes that way."""
    left, right = axes.get_xlim()
    start, end = (right - 1, left + 1) if back else (left + 1, right - 1)
    colour = BACK if back else AHEAD
    axes.annotate(
        "",
        (end, y),
        (start, y),
        arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.6},
    )
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 2.0}
    axes.text(
        (left + right) / 2, y, text, ha="center", va="center", color=colour, bbox=ground
    )


def _draw_edge(
    axes: Axes,
    start: np.ndarray,
    end: np.ndarray,
    share: float,
    weight: float,
    gradient: float,
) -> None:
    axes.plot(*zip(start, end, strict=True), color=COLOURS["data"], lw=1.0, zorder=1)
    x, y = start + share * (end - start)
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    axes.text(
        x,
        y,
        "-0.00\n-0.00",
        fontsize=8.5,
        ha="center",
        va="center",
        bbox=ground,
        color="white",
        zorder=2,
    )
    for number, side, colour in ((weight, "bottom", AHEAD), (gradient, "top", BACK)):
        axes.text(
            x,
            y,
            f"{number:.2f}",
            fontsize=8.5,
            ha="center",
            va=side,
            color=colour,
            zorder=3,
        )
