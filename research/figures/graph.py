"""Axes on which backpropagation is seen: a program's graph with values and adjoints, and adjoints as an image."""

import itertools
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from research.figures import new_figure

INCH = 96.0  # Pixels of a layout.
VALUE, ADJOINT, QUIET = "#00588C", "#B04000", "#8A919B"
FILL = {"input": "#E3F0FA", "output": "#FDEEE2"}


def new_graph(
    size: np.ndarray, panels: int = 0, width: float = 4.6
) -> tuple[Figure, Axes, list[Axes]]:
    """A figure for a graph of (width, height) pixels, and beside it as many panels above each other.

    Returns:
      (figure, axes of the graph, axes of the panels).
    """
    across, down = size / INCH
    if not panels:
        figure, axes = new_figure(width=across, height=down)
        return figure, axes[0, 0], []
    figure, axes = new_figure(
        panels, 2, width=across + width, height=down, width_ratios=(across, width)
    )
    for spare in axes[1:, 0]:
        spare.remove()
    whole = axes[0, 0]
    whole.set_subplotspec(axes[0, 0].get_gridspec()[:, 0])
    return figure, whole, list(axes[:, 1])


def draw_graph(axes: Axes, arrays: Mapping[str, np.ndarray], name: str) -> None:
    """A graph of boxes with value and adjoint; what is not finite stands out.

    Args:
      axes: Where.
      arrays: Holds name/boxes (n, 4): centres and sizes; name/texts (n, 4): title, value, adjoint, kind; name/ways: points
        of all edges, one after another; name/way_lengths; name/places (edges, 2): of labels; name/labels (edges, 3): local
        derivative, contribution, kind; name/size.
      name: Prefix.
    """
    width, height = arrays[f"{name}/size"]
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    axes.axis("off")
    ends = np.cumsum(arrays[f"{name}/way_lengths"])
    ways = np.split(arrays[f"{name}/ways"], ends[:-1])
    for way, place, label in zip(
        ways, arrays[f"{name}/places"], arrays[f"{name}/labels"], strict=True
    ):
        _draw_edge(axes, way, place, *map(str, label))
    for box, text in zip(arrays[f"{name}/boxes"], arrays[f"{name}/texts"], strict=True):
        _draw_box(axes, box, *map(str, text))


def _draw_box(
    axes: Axes, box: np.ndarray, title: str, value: str, adjoint: str, kind: str
) -> None:
    x, y, width, height = box
    spoilt = _is_spoilt(value) or _is_spoilt(adjoint)
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=6",
            facecolor="#FBDDDD" if spoilt else FILL.get(kind, "#F4F6F8"),
            edgecolor="#C00020" if spoilt else QUIET,
            linewidth=2.0 if kind == "fold" or spoilt else 1.0,
        )
    )
    lines = [
        (title, "#1B1F24", "bold"),
        (value, VALUE, "normal"),
        (f"adjoint {adjoint}" if adjoint else "", ADJOINT, "normal"),
    ]
    top = y - height / 2 + 13
    for text, colour, weight in lines:
        if text:
            axes.text(
                x,
                top,
                _plain(text),
                color=colour,
                weight=weight,
                fontsize=7.6,
                ha="center",
                va="center",
            )
            top += 16


def _draw_edge(
    axes: Axes,
    way: np.ndarray,
    place: np.ndarray,
    local: str,
    contribution: str,
    kind: str,
) -> None:
    points = []
    for start, end in itertools.pairwise(way):
        t = np.linspace(0, 1, 21)[:, None]
        middle = (start[1] + end[1]) / 2
        corners = np.array([start, (start[0], middle), (end[0], middle), end])
        weights = np.concatenate(
            [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1
        )
        points.append(weights @ corners)
    style = {"rule": (ADJOINT, (0, (4, 3))), "constant": (QUIET, (0, (1, 2)))}.get(
        kind, (QUIET, "-")
    )
    axes.plot(*np.concatenate(points).T, color=style[0], ls=style[1], lw=1.1, zorder=1)
    x, y = place
    shown = [
        (text, colour)
        for text, colour in ((local, VALUE), (contribution, ADJOINT))
        if text
    ]
    for k, (text, colour) in enumerate(shown):
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        height = y + 13 * (k - (len(shown) - 1) / 2)
        axes.text(
            x,
            height,
            _plain(text),
            color=colour,
            fontsize=7,
            ha="center",
            va="center",
            bbox=ground,
            zorder=2,
        )


def draw_heat(
    axes: Axes, values: np.ndarray, title: str, across: str, down: str = ""
) -> None:
    """A matrix as an image, white at 0, with its scale; without `down` its pixels are square and not counted."""
    axes.grid(False)
    aspect = "auto" if down else "equal"
    image = axes.imshow(
        values,
        cmap="RdBu_r",
        norm=CenteredNorm(),
        aspect=aspect,
        interpolation="nearest",
    )
    axes.set(xlabel=across, ylabel=down)
    if not down:
        axes.set(xticks=[], yticks=[])
    axes.set_title(title, loc="left", fontsize=10)
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(image, ax=axes, shrink=0.85 if down else 0.5).ax.tick_params(
            labelsize=8
        )


def _is_spoilt(text: str) -> bool:
    return "nan" in text or "inf" in text


def _plain(text: str) -> str:
    """Without the sign that matplotlib takes for mathematics."""
    return text.replace("$", r"\$")
