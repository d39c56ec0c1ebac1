"""Paths over a landscape of two parameters, and what their steps do."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from research import figures

# Okabe & Ito's, the dark ones first; from the eighth path on they come again, dashed.
PATH_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#222222",
    "#56B4E9",
)
GROUND = LinearSegmentedColormap.from_list("ground", ["#D3DCE6", "#E9EEF3", "#FBFCFD"])
SMALLEST = 1e-18  # Share of the largest value down to which curves are shown.
STEP_PANELS = {
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm",
    "update_norm": "update norm",
    "update_over_params": "update / parameters",
    "cosine": "cosine (update, -gradient)",
}


def look(number: int) -> dict[str, Any]:
    """Colour and dashes of the path of that number."""
    dashes = ("-", (0, (4, 2)), (0, (1, 1.5)))[number // len(PATH_COLOURS) % 3]
    return {"color": PATH_COLOURS[number % len(PATH_COLOURS)], "linestyle": dashes}


def draw_landscape(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    heights: np.ndarray,
    minima: Sequence[Sequence[float]],
) -> None:
    """The ground, darker where it is lower, with lines of equal height in equal ratios, and a star at each minimum.

    Args:
      axes: To draw on.
      x, y: Of the lattice, shapes (m,) and (n,).
      heights: f - f* there, at least 0, shape (n, m).
      minima: Points.
    """
    log = np.log10(np.maximum(heights, 1e-2 * np.median(heights)))
    levels = np.linspace(log.min(), log.max(), 15)
    axes.grid(False)
    axes.contourf(x, y, log, levels, cmap=GROUND)
    axes.contour(x, y, log, levels, colors="#B4BEC9", linewidths=0.6, linestyles="-")
    for minimum in minima:
        axes.plot(
            *minimum,
            "*",
            color="white",
            markeredgecolor=figures.COLOURS["exact"],
            markersize=13,
            zorder=8,
        )
    axes.set(xlabel="x", ylabel="y", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))


def draw_paths(
    axes: Axes, points: Mapping[str, np.ndarray], labels: Mapping[str, str]
) -> None:
    """Each path as a line with its steps as dots, from the start, a circle, to its end, a larger dot."""
    for number, (name, path) in enumerate(points.items()):
        style = look(number)
        axes.plot(*path.T, lw=1.3, label=labels[name], zorder=3, **style)
        axes.plot(*path.T, ".", color=style["color"], markersize=2.8, zorder=4)
        axes.plot(
            *path[-1],
            "o",
            color=style["color"],
            markeredgecolor="white",
            markersize=7,
            zorder=7,
        )
    _draw_start(axes, points)


def _draw_start(axes: Axes, points: Mapping[str, np.ndarray]) -> None:
    start = next(iter(points.values()))[0]
    axes.plot(
        *start,
        "o",
        color="white",
        markeredgecolor=figures.COLOURS["exact"],
        markersize=8,
        zorder=5,
    )
    axes.legend(frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)


def draw_growing_paths(
    axes: Axes, points: Mapping[str, np.ndarray], labels: Mapping[str, str]
) -> Callable[[float], None]:
    """The same paths as far as they have come.

    Returns:
      show: share in 0..1 of all steps -> None.
    """
    lines, heads = {}, {}
    for number, (name, path) in enumerate(points.items()):
        style = look(number)
        lines[name] = axes.plot(
            *path[:1].T, lw=1.8, label=labels[name], zorder=3, **style
        )[0]
        heads[name] = axes.plot(
            *path[0],
            "o",
            color=style["color"],
            markeredgecolor="white",
            markersize=8,
            zorder=7,
        )[0]
    _draw_start(axes, points)
    title = axes.set_title("0 steps", loc="left")

    def show(share: float) -> None:
        for name, path in points.items():
            last = round(share * (len(path) - 1))
            lines[name].set_data(*path[: last + 1].T)
            heads[name].set_data(*path[last : last + 1].T)
            title.set_text(f"{last:,} steps")

    return show


def _log_scale(panel: Axes) -> None:
    """A logarithmic axis that ends where rounding begins: what is smaller is no longer told apart."""
    panel.set_yscale("log")
    drawn = np.concatenate(
        [np.asarray(line.get_ydata(), float) for line in panel.lines]
    )
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn):
        panel.set_ylim(max(drawn.min(), SMALLEST * drawn.max()) / 2, 2 * drawn.max())


def curves(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """f - f* and the distance to the nearest minimum after each step."""
    figure, axes = figures.new_figure(1, 2, width=10.5, height=4.2)
    for panel, (key, title) in zip(
        axes[0],
        (("gaps", "f - f*"), ("distances", "distance to the nearest minimum")),
        strict=True,
    ):
        for number, name in enumerate(names):
            values = arrays[f"{name}/{key}"]
            panel.plot(
                np.where(values > 0, values, np.nan), label=name, lw=1.6, **look(number)
            )
        _log_scale(panel)
        panel.set_xlabel("steps")
        panel.set_title(title, loc="left")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(len(names), 5),
    )
    return figure


def steps(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """Five panels of what each step does, and the legend in the place of a sixth."""
    figure, axes = figures.new_figure(2, 3, width=11, height=6.0, sharex=True)
    for panel, (key, title) in zip(axes.flat, STEP_PANELS.items(), strict=False):
        for number, name in enumerate(names):
            values = np.asarray(arrays[f"{name}/{key}"], float)
            shown = values if key == "cosine" else np.where(values > 0, values, np.nan)
            panel.plot(
                np.arange(1, len(values) + 1), shown, label=name, lw=1.2, **look(number)
            )
        if key == "cosine":
            panel.set_ylim(-1.08, 1.08)
        else:
            _log_scale(panel)
        panel.set_title(title, loc="left")
        panel.tick_params(labelbottom=True)
        panel.set_xlabel("step")
    axes[1, 2].axis("off")
    axes[1, 2].legend(
        *axes[0, 0].get_legend_handles_labels(), loc="center left", fontsize=11
    )
    return figure
