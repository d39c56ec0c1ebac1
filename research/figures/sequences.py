"""Sequences as pictures, and what models make of them: a point for each seed, a point for each speaker."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from research.figures import COLOURS, new_figure

MODELS = (
    ("data", "s"),
    ("full batch", "o"),
    ("mini-batch", "D"),
    ("stochastic", "^"),
)  # Colour and mark, in turn.


def draw_sequences(arrays: dict[str, np.ndarray]) -> Figure:
    """Sequences as images."""
    names = sorted(name for name in arrays if name.startswith("first/"))
    words = sorted(name for name in arrays if name.startswith("words/"))
    rows = 2 if words else 1
    figure, axes = new_figure(rows, len(names), width=11, height=2.3 * rows)
    for place, name in zip(axes[0], names, strict=True):
        _, label, _ = name.split("/")
        place.imshow(
            arrays[name].T,
            aspect="auto",
            cmap="RdBu_r",
            vmin=-2.5,
            vmax=2.5,
            interpolation="nearest",
        )
        place.set_title(f"class {int(label) + 1}", loc="left", fontsize=9)
    for place, name in zip(
        axes[1] if words else (), [*words, None, None], strict=False
    ):
        if name is None:
            place.set_axis_off()
            continue
        _, speaker, digit = name.split("/")
        place.imshow(
            arrays[name].T,
            aspect="auto",
            cmap="Greys",
            origin="lower",
            interpolation="nearest",
        )
        place.set_title(f"{speaker}: “{digit}”", loc="left", fontsize=9)
    for place in axes.ravel():
        place.grid(False)
        place.set(yticks=[])
    axes[-1, 0].set_xlabel("step")
    return figure


def draw_accuracy(numbers: dict[str, Any], labels: dict[str, str]) -> Figure:
    """Accuracy by model, with a point for each seed."""
    figure, axes = new_figure(width=7, height=3.6)
    place = axes[0, 0]
    for x, row in enumerate(numbers["first"]):
        draw_points(place, x, row["by_seed"], row["accuracy"])
    place.set_xticks(range(len(labels)), list(labels.values()))
    place.set(ylabel="test accuracy", xlim=(-0.5, len(labels) - 0.5))
    place.set_title(
        f"{numbers['dataset']}: a dot for each seed, mean and 95 % interval", loc="left"
    )
    return figure


def draw_points(
    place: Axes, x: float, points: Sequence[float], estimate: Sequence[Any]
) -> None:
    """Points beside each other, and their mean with its interval."""
    mean, low, high = estimate
    spread = (
        x + 0.16 * np.linspace(-1, 1, len(points)) if len(points) > 1 else np.full(1, x)
    )
    style = {
        "color": COLOURS["mini-batch"],
        "markersize": 5,
        "alpha": 0.75,
        "markeredgewidth": 0,
    }
    place.plot(spread, points, "o", **style)
    ends = None if low is None else [[mean - low], [high - mean]]
    bar = {
        "color": COLOURS["exact"],
        "capsize": 5,
        "lw": 1.4,
        "marker": "_",
        "markersize": 14,
    }
    place.errorbar([x], [mean], yerr=ends, zorder=3, **bar)


def draw_voices(numbers: dict[str, Any], labels: dict[str, str]) -> Figure:
    """The models side by side: on speakers that are shared, on each one left out, and on the mean of those."""
    figure, axes = new_figure(width=9.5, height=4)
    place, speakers = axes[0, 0], numbers["speakers"]
    for k, (row, (colour, marker)) in enumerate(
        zip(numbers["digits"], MODELS, strict=False)
    ):
        at = np.arange(len(speakers) + 2) + 0.15 * (
            k - (len(numbers["digits"]) - 1) / 2
        )
        middles = [row["shared"][0], *row["by_speaker"], row["left_out"][0]]
        place.plot(
            at,
            middles,
            marker,
            color=COLOURS[colour],
            markersize=6,
            label=labels[row["model"]],
            zorder=3,
        )
        for x, (mean, low, high) in ((at[0], row["shared"]), (at[-1], row["left_out"])):
            if low is not None and high is not None:
                ends = [[mean - low], [high - mean]]
                place.errorbar(
                    [x],
                    [mean],
                    yerr=ends,
                    color=COLOURS[colour],
                    capsize=3,
                    lw=1.4,
                    fmt="none",
                )
    for edge in (0.5, len(speakers) + 0.5):
        place.axvline(edge, color=COLOURS["data"], lw=1)
    place.set_xticks(
        range(len(speakers) + 2),
        ["shared", *speakers, "mean of the six" if len(speakers) == 6 else "mean"],
    )
    place.set(ylabel="test accuracy", ylim=(0, 1.03))
    place.set_title(
        "Spoken digits: speakers shared (left), each left out (middle), and their mean",
        loc="left",
    )
    place.legend(loc="lower left", ncols=4)
    return figure
