"""Draw a confusion matrix, and list its most frequent errors."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from numpy.typing import ArrayLike

from research.checks import check_count, check_numbers, check_sequence

SHADES = "Blues"  # Light to dark, so that it can be read without colours too.
# Exponent that turns a share into a shade. With 1, one error in a hundred would be
# invisible.
EXPONENT = 0.4
# Share from which the number in a square is white. On both sides of this value, the
# contrast is at least 4.5.
DARK = 0.43
# Names are horizontal if the number of classes times the longest name's length is at
# most this; otherwise they are rotated.
LEVEL = 30


def draw_confusion(axes: Axes, counts: ArrayLike, classes: Sequence[str]) -> None:
    """Draw a confusion matrix as a heat map.

    Rows are true classes, columns are predicted classes. Each square shows its number
    of examples, unless this number is 0. The shade of a square shows
    (this number / sum of the row)^0.4. The power makes rare errors visible.

    Args:
      axes: Axes to draw on.
      counts: Numbers of examples, shape (K, K), as `sklearn.metrics.confusion_matrix`
        returns them. Row i has the examples of class i.
      classes: Names of the K classes.
    Raises:
      ValueError: counts does not have shape (K, K), or has a negative entry.
    """
    _check_counts(counts, classes)
    counts, size = np.asarray(counts), len(classes)
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


def _check_counts(counts: ArrayLike, classes: Sequence[str]) -> None:
    check_numbers("counts", counts)
    check_sequence("classes", classes, "names", str)
    size = len(classes)
    if np.shape(counts) != (size, size) or not size or np.any(np.asarray(counts) < 0):
        raise ValueError(
            f"counts must have shape ({size}, {size}) for {size} classes, without "
            f"negative entries; got shape {np.shape(counts)}. Make them with "
            "sklearn.metrics.confusion_matrix."
        )


def commonest_errors(
    counts: ArrayLike, classes: Sequence[str], most: int = 5
) -> list[tuple[str, str, int, int]]:
    """Return the pairs of classes that were confused most often.

    Args:
      counts: Confusion matrix, shape (K, K). Entry (i, j) is the number of examples of
        class i that were predicted as class j, as in
        `sklearn.metrics.confusion_matrix`.
      classes: Names of the K classes.
      most: Maximum number of pairs. Pairs without errors are not listed.
    Returns:
      Tuples (true class, predicted class, number of errors, number of examples of the
        true class), the most frequent error first. Equally frequent errors are in the
        order of the classes.
    Example:
      >>> commonest_errors([[5, 2], [0, 3]], ["cat", "dog"])
      [('cat', 'dog', 2, 7)]
    """
    _check_counts(counts, classes)
    check_count("most", most, 0)
    counts = np.asarray(counts)
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts).astype(np.int64)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(counts)) for place in order if wrong.flat[place]]
    return [
        (classes[i], classes[j], int(wrong[i, j]), int(counts[i].sum()))
        for i, j in pairs
    ]
