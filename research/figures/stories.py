"""The pictures of text classification: accuracy against epochs beside the baseline, and what is taken for what."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from research import figures
from research.figures import confusion
from research.runs import Result

LINES = {"whole": "-", "cut": (0, (4, 3))}  # Of the baselines.


def draw(result: Result, baselines: Mapping[str, str]) -> dict[str, figures.Picture]:
    """All pictures of the experiment text_classification, by name.

    Args:
      result: Of the experiment.
      baselines: Their names, as the pictures show them.
    """
    numbers, kept = result.numbers, result.arrays
    curves, axes = figures.new_figure(1, 3, width=11.5, height=3.8)
    for panel, (name, label) in zip(
        axes[0],
        (("accuracy", "test accuracy"), ("macro_f1", "test macro-F1")),
        strict=False,
    ):
        draw_score(panel, numbers, kept[name], name, baselines)
        panel.set_ylabel(label)
    axes[0, 0].legend(loc="lower right", fontsize=8)
    draw_runs(axes[0, 2], np.arange(1, kept["loss"].shape[1] + 1), kept["loss"])
    axes[0, 2].set(ylabel="training loss, mean of the epoch", yscale="log")
    for panel in axes[0]:
        panel.set_xlabel("epochs")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    matrix, axes = figures.new_figure(1, 1, width=7.0, height=5.8)
    confusion.draw_confusion(axes[0, 0], kept["confusions"], numbers["classes"])
    return {
        "curves": figures.Picture(
            "Learning, against the baseline", curves_caption(numbers), curves
        ),
        "confusions": figures.Picture(
            "What the Transformer takes for what", confusion_caption(numbers), matrix
        ),
    }


def draw_score(
    axes: Axes,
    numbers: Mapping[str, Any],
    scores: np.ndarray,
    name: str,
    baselines: Mapping[str, str],
) -> None:
    """One score of every seed by epoch, from the first on, and the baselines' as lines."""
    draw_runs(axes, np.arange(1, scores.shape[1]), scores[:, 1:])
    for row in numbers["models"]:
        if row["name"] in baselines:
            style = {
                "color": figures.COLOURS["stochastic"],
                "lw": 1.6,
                "ls": LINES[row["name"]],
            }
            axes.axhline(row[name][0], label=baselines[row["name"]], zorder=1, **style)


def draw_runs(axes: Axes, x: np.ndarray, runs: np.ndarray) -> None:
    """Every seed thin, their mean with dots."""
    colour = figures.COLOURS["full batch"]
    axes.plot(x, runs.T, color=colour, lw=0.8, alpha=0.5)
    axes.plot(
        x, runs.mean(axis=0), "o-", color=colour, markersize=4, label="Transformer"
    )


def curves_caption(numbers: Mapping[str, Any]) -> str:
    """What the first figure shows."""
    return (
        f"On {numbers['n_test']:,} test stories after each of {numbers['epochs']} epochs, {numbers['seeds']} seeds (thin) "
        f"and their mean (dots); the peak rate, {numbers['rate']:g}, and the number of epochs were chosen on "
        f"{numbers['held_out']:,} training stories that were held out, not on these. Macro-F1 weighs each topic alike, "
        "however rare. The baselines (orange) count words."
    )


def confusion_caption(numbers: Mapping[str, Any]) -> str:
    """What the second figure shows."""
    errors = "; ".join(
        f"{true} for {taken}, {count} of {n:,}"
        for true, taken, count, n in numbers["errors"][:3]
    )
    return f"Rows are the true topics, columns what the first seed's network says. Its commonest errors: {errors}."
