"""Language models in pictures: losses beside those of n-grams, what context is worth, and samples of text."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from research.figures import COLOURS, new_figure, style

SHOWN_ORDERS = (
    2,
    3,
    4,
)  # Beside the best one: the lines of longer n-grams lie too close.
LINE, LINES = 44, 15  # Of a sample: characters in a line, and how many lines.


def learning_and_context(
    arrays: Mapping[str, np.ndarray],
    numbers: Mapping[str, Any],
    looks: Mapping[str, tuple[str, str]],
) -> Figure:
    """Left, losses by step between the lines of n-grams; right, losses by how many characters stand before.

    Args:
      arrays: name/seed/sampled, the loss at equidistant steps from 0 on, and name/seed/positions, the loss with 1, 2, ...
        characters before, of each network and seed; ngrams/smoothing, the loss of order 1, 2, ...
      numbers: "smoothing", "batch_size", and by name in "networks" its "steps".
      looks: Of each network the label, and the colour's name.
    Returns:
      The figure.
    """
    figure, axes = new_figure(1, 2, width=11, height=4.6)
    ngrams = arrays[f"ngrams/{numbers['smoothing']}"]
    with style():
        for name, (label, colour) in looks.items():
            curves, positions = (
                of_seeds(arrays, name, "sampled"),
                of_seeds(arrays, name, "positions").mean(axis=0),
            )
            steps = np.linspace(0, numbers["networks"][name]["steps"], curves.shape[1])[
                1:
            ]
            for i, curve in enumerate(curves[:, 1:]):
                axes[0, 0].plot(
                    steps,
                    curve,
                    color=COLOURS[colour],
                    lw=1.3,
                    label=None if i else label,
                )
            axes[0, 1].plot(
                np.arange(1, len(positions) + 1),
                positions,
                color=COLOURS[colour],
                lw=1.6,
                label=label,
            )
        _ngram_lines(axes[0, 0], ngrams)
        _ngram_points(axes[0, 1], ngrams)
        words = f"steps of {numbers['batch_size']} windows"
        last = max(found["steps"] for found in numbers["networks"].values())
        _logarithmic(
            axes[0, 0], [m * 10**k for k in range(8) for m in (1, 2, 5)], last, words
        )
        axes[0, 0].set_title("Learning, and the lines of the n-grams", loc="left")
        axes[0, 0].legend(
            loc="lower left", frameon=True, framealpha=1, edgecolor="none"
        )  # Curves begin above.
        words = "characters seen before the one guessed"
        _logarithmic(axes[0, 1], [2**k for k in range(12)], numbers["context"], words)
        axes[0, 1].set_title("What context is worth", loc="left")
        axes[0, 1].legend(loc="upper right")
    return figure


def of_seeds(arrays: Mapping[str, np.ndarray], name: str, what: str) -> np.ndarray:
    """The arrays name/seed/what of every seed, stacked."""
    return np.stack(
        [
            a
            for key, a in arrays.items()
            if key.startswith(f"{name}/") and key.endswith(f"/{what}")
        ]
    )


def texts(samples: Sequence[tuple[str, str, str]]) -> Figure:
    """Texts in three columns, their long lines broken: (title, colour's name, text) of each."""
    rows = -(-len(samples) // 3)
    figure, axes = new_figure(rows, 3, width=11.5, height=2.7 * rows)
    with style():
        for panel in axes.ravel():
            panel.set_axis_off()
        for panel, (title, colour, text) in zip(axes.ravel(), samples, strict=False):
            panel.set_title(title, loc="left", color=COLOURS[colour])
            lines = [
                part
                for line in text.strip().split("\n")
                for part in textwrap.wrap(line, LINE) or [""]
            ]
            plain = "\n".join(lines[:LINES]).replace(
                "$", r"\$"
            )  # A dollar would begin a formula.
            look = {
                "va": "top",
                "family": "monospace",
                "fontsize": 7.5,
                "linespacing": 1.25,
            }
            panel.text(0, 1, plain, transform=panel.transAxes, **look)
    return figure


def _ngram_lines(axes: Axes, losses: np.ndarray) -> None:
    best = int(np.argmin(losses)) + 1
    for order in sorted(
        {order for order in SHOWN_ORDERS if order <= len(losses)} | {best}
    ):
        axes.axhline(
            losses[order - 1], color=COLOURS["exact"], lw=0.9, ls=(0, (4, 3)), zorder=1
        )
        look = {
            "va": "bottom",
            "ha": "right",
            "fontsize": 8.5,
            "color": COLOURS["exact"],
        }
        axes.text(
            1.0,
            losses[order - 1],
            f"{order}-gram",
            transform=axes.get_yaxis_transform(),
            **look,
        )


def _ngram_points(axes: Axes, losses: np.ndarray) -> None:
    look = {"color": COLOURS["exact"], "markersize": 4.5, "lw": 1, "zorder": 4}
    axes.plot(
        np.arange(1, len(losses)),
        losses[1:],
        "o--",
        label=f"n-grams of order 2 to {len(losses)}",
        **look,
    )


def _logarithmic(axes: Axes, ticks: Sequence[int], last: int, words: str) -> None:
    axes.set(xscale="log", xlabel=words, ylabel="nats a character (validation)")
    first, right = axes.get_xlim()
    shown = [tick for tick in ticks if first <= tick <= last]
    axes.set_xticks(shown, [f"{tick:,}" for tick in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlim(first, right)
