"""Tables and figures of the language models of characters."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments._characters import CLAIM, FALLBACK
from research.figures import COLOURS, new_figure, style
from research.runs import Table

NOT_THE_CLAIM = (
    f"NOT THE CLAIM: these results are for {FALLBACK}; the claim is about {CLAIM}. "
)
INSTEAD = (
    f" To use {CLAIM}, leave out --fast and --text; if it is in a folder of yours, "
    f"pass that folder by --data-dir. To download it, run: descent data fetch {CLAIM}"
)
SHOWN_ORDERS = (
    2,
    3,
    4,
)  # Orders drawn besides the best: the lines of longer n-grams are too close.
LINE, LINES = 44, 15  # Characters in a line of a sample, and number of lines.


def learning_and_context(
    arrays: Mapping[str, np.ndarray],
    numbers: Mapping[str, Any],
    looks: Mapping[str, tuple[str, str]],
) -> Figure:
    """Draw losses by step, and below by length of the context.

    The context is the number of characters before the predicted one. The losses of
    n-grams are drawn as lines for comparison.

    Args:
      arrays: Losses of each network and seed. name/seed/sampled has losses at evenly
        spaced steps, from step 0 on. name/seed/positions has the losses of characters
        with 1, 2, ... characters before them. ngrams/smoothing has the losses of order
        1, 2, ...
      numbers: Numbers with the entries "smoothing", "batch_size" and "networks". Each
        entry of "networks" has "steps".
      looks: Label and name of the colour of each network.
    Returns:
      The figure.
    """
    figure, (learning, context) = new_figure(2, 1, width=4.6, height=8.4)
    axes = np.array([[learning[0], context[0]]])
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
        axes[0, 0].set_title("Learning curves and n-grams", loc="left")
        words = "characters before the predicted one"
        _logarithmic(axes[0, 1], [2**k for k in range(12)], numbers["context"], words)
        axes[0, 1].set_title("Loss by context", loc="left")
        figure.legend(
            *axes[0, 1].get_legend_handles_labels(), loc="outside lower center", ncols=2
        )
    return figure


def of_seeds(arrays: Mapping[str, np.ndarray], name: str, what: str) -> np.ndarray:
    """Return one array with the arrays name/seed/what of all seeds, stacked."""
    return np.stack(
        [
            a
            for key, a in arrays.items()
            if key.startswith(f"{name}/") and key.endswith(f"/{what}")
        ]
    )


def texts(samples: Sequence[tuple[str, str, str]]) -> Figure:
    """Draw texts in three columns, with long lines broken.

    Each text is (title, name of the colour, text).
    """
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
            )  # A dollar sign would begin a formula.
            look = {
                "va": "top",
                "family": "monospace",
                "fontsize": 7.5,
                "linespacing": 1.25,
            }
            panel.text(0, 1, plain, transform=panel.transAxes, **look)
    return figure


def drawn_orders(losses: np.ndarray | Sequence[float]) -> list[int]:
    """Return the orders of the n-grams whose loss is drawn as a line, ascending.

    `losses` has the losses of order 1, 2, ...
    """
    best = int(np.argmin(losses)) + 1
    return sorted({order for order in SHOWN_ORDERS if order <= len(losses)} | {best})


def _ngram_lines(axes: Axes, losses: np.ndarray) -> None:
    for order in drawn_orders(losses):
        axes.axhline(
            losses[order - 1], color=COLOURS["exact"], lw=0.9, ls=(0, (4, 3)), zorder=1
        )
        look = {
            "va": "bottom",
            "ha": "right",
            "fontsize": 8.5,
            "color": COLOURS["exact"],
            "zorder": 5,
            "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        }
        axes.text(
            1.0,
            losses[order - 1],
            f"{order}-gram",
            transform=axes.get_yaxis_transform(),
            **look,
        )


def _ngram_points(axes: Axes, losses: np.ndarray) -> None:
    if len(losses) < 2:  # The 1-gram uses no characters, and the axis is logarithmic.
        return
    look = {"color": COLOURS["exact"], "markersize": 4.5, "lw": 1, "zorder": 4}
    last = f" to {len(losses)}" if len(losses) > 2 else ""
    axes.plot(
        np.arange(1, len(losses)),
        losses[1:],
        "o--",
        label=f"n-grams of order 2{last}",
        **look,
    )


def _logarithmic(axes: Axes, ticks: Sequence[int], last: int, words: str) -> None:
    axes.set(xscale="log", xlabel=words, ylabel="nats a character (validation)")
    first, right = axes.get_xlim()
    shown = [tick for tick in ticks if first <= tick <= last]
    axes.set_xticks(shown, [f"{tick:,}" for tick in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlim(first, right)


def costs_table(
    counted: Sequence[Mapping[str, Any]],
    networks: Sequence[tuple[str, Mapping[str, Any]]],
    note: str,
) -> Table:
    """Return a table with a row for each model, with n-grams in the first rows.

    Args:
      counted: Dict for each n-gram model, with "name", "loss", "counts" (number of
        different n-grams in the text) and "seconds".
      networks: Pairs (name, facts). The facts have the intervals "whole", "half_full"
        and "sampled", and "parameters", "passes" and "seconds".
      note: Text below the table.
    Returns:
      The table.
    """
    rows = [
        (
            m["name"],
            *_digits(m["loss"], None, m["loss"], None),
            m["counts"],
            1.0,
            m["seconds"],
        )
        for m in counted
    ]
    for name, n in networks:
        losses = _digits(
            n["whole"][0], n["whole"][1:], n["half_full"][0], n["sampled"][0]
        )
        rows.append((name, *losses, n["parameters"], n["passes"], n["seconds"]))
    columns = (
        "model",
        "whole",
        "95 % interval",
        "half full",
        "sampled",
        "parameters",
        "passes",
        "seconds",
    )
    return Table(
        "Nats a character on the last tenth of the text", columns, tuple(rows), note
    )


def orders_table(losses: Mapping[str, Sequence[float]]) -> Table:
    """Return the losses of n-grams by order, with a column for each smoothing."""
    columns = ("order", *(name.replace("_", " ") for name in losses))
    rows = tuple(
        (order, *_digits(*row))
        for order, row in enumerate(zip(*losses.values(), strict=True), 1)
    )
    note = (
        "Nats a character on the whole validation part. Kneser-Ney is modified and "
        "interpolated (Chen & Goodman 1999)."
    )
    return Table("n-grams", columns, rows, note)


def _digits(*losses: float | Sequence[float | None] | None) -> tuple[str, ...]:
    """Format losses with three decimals, because models differ in the second.

    A missing value is a dash, because None would mean "not reached".
    """
    words = []
    for loss in losses:
        if loss is None or (isinstance(loss, Sequence) and loss[0] is None):
            words.append("–")
        else:
            words.append(
                " to ".join(
                    f"{x:.3f}"
                    for x in (loss if isinstance(loss, Sequence) else (loss,))
                )
            )
    return tuple(words)
