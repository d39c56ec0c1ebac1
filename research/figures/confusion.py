"""A confusion matrix: which classes are taken for which."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from numpy.typing import ArrayLike

SHADES = "Blues"  # Light to dark, so that it reads without colours too.
EXPONENT = 0.4  # Of a share before it is a shade: otherwise one error in a hundred would look like none.
DARK = 0.43  # Share from which the number in a cell is white: at either side it has a contrast of 4.5 or more.
LEVEL = 30  # Most letters of all names together, each as long as the longest, that stand level; else they are turned.


def draw_confusion(axes: Axes, counts: ArrayLike, classes: Sequence[str]) -> None:
    """A confusion matrix as a heat map: a row for each true class, a column for each predicted one.

    Each cell says how many examples it holds, an empty one nothing; its shade is their share of the row's class, raised to
    a small power, so that rare errors are seen beside what is right.

    Args:
      axes: To draw on.
      counts: As `research.studies.count_confusions` gives them, shape (K, K): row i has the examples of class i.
      classes: The K names.
    Raises:
      ValueError: counts is not square, with as many rows as there are names, or has a negative entry.
    """
    counts = np.asarray(counts)
    size = len(classes)
    if counts.shape != (size, size) or np.any(counts < 0):
        raise ValueError(
            f"counts must have shape ({size}, {size}), for {size} classes, and no negative entry; got shape "
            f"{counts.shape}. Make them with research.studies.count_confusions."
        )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap=SHADES, norm=PowerNorm(EXPONENT, 0, 1))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            shade = "white" if shares[row, column] >= DARK else "black"
            weight = "bold" if row == column else "normal"
            text = {"ha": "center", "va": "center", "fontsize": 8 if size > 5 else 10}
            axes.text(column, row, f"{count:,}", color=shade, fontweight=weight, **text)
    axes.grid(False)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    turned = size * max(map(len, classes), default=0) > LEVEL
    axes.set_xticks(
        range(size),
        classes,
        rotation=45 if turned else 0,
        ha="right" if turned else "center",
    )
    if turned:
        for label in axes.get_xticklabels():
            label.set_rotation_mode("anchor")
    axes.set_yticks(range(size), classes)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="true")
