"""What a training costs against the size of its batches, and the knee from which larger ones no longer pay."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from research import figures


def steps_and_examples(
    curves: Sequence[dict[str, Any]], write: Callable[[float], str]
) -> Figure:
    """Steps to the target on the left, example gradients on the right, with the two limits and the knee of each curve.

    Args:
      curves: Of batch_size's numbers: workload, n, rows, least_examples, knee.
      write: A number in words, for the knee.
    """
    figure, axes = figures.new_figure(1, 2, height=4.4)
    colours = [figures.COLOURS[name] for name in ("first class", "second class")]
    for curve, colour in zip(curves, colours, strict=False):
        rows = [row for row in curve["rows"] if "examples" in row]
        sizes = np.array([row["batch_size"] for row in rows])
        for ax, name, line in zip(
            axes[0],
            ("steps", "examples"),
            (1 / sizes, np.ones(len(sizes))),
            strict=True,
        ):
            middle, low, high = np.array([row[name] for row in rows], float).T
            label = f"{curve['workload']}, n = {curve['n']:,}"
            figures.band(
                ax,
                sizes,
                middle,
                low,
                high,
                color=colour,
                label=label,
                marker="o",
                markersize=4,
            )
            ax.plot(
                sizes, curve["least_examples"] * line, "--", color=colour, linewidth=1
            )
            ax.axvline(
                curve["knee"], 0, 0.78, color=colour, linestyle=":", linewidth=1.2
            )
            place = {"ha": "center", "transform": ax.get_xaxis_transform()}
            ax.text(
                curve["knee"],
                0.79,
                f"knee {write(curve['knee'])}",
                color=colour,
                **place,
            )
    for ax, title in zip(axes[0], ("Steps", "Example gradients"), strict=True):
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="batch size",
            title=f"{title} to the target",
        )
    axes[0, 0].set_ylim(bottom=1)
    axes[0, 0].legend(loc="upper right", frameon=False)
    return figure
