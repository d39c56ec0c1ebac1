"""Checks and preparation of the data for the exact solvers."""

import math
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int, Num, Shaped

from research.checks import check_count, check_numbers, check_real


def centred(
    x: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, "d"], Float[np.ndarray, "n d"]]:
    """Return the means of the columns of x, and x minus these means.

    A constant column of x becomes exactly 0.
    """
    shift = x.mean(axis=0)
    return shift, np.where(x.max(axis=0) == x.min(axis=0), 0.0, x - shift)


def pivoted_qr(
    matrix: Float[np.ndarray, "n p"],
) -> tuple[
    Float[np.ndarray, "n p"],
    Float[np.ndarray, "p p"],
    Int[np.ndarray, "p"],
    Float[np.ndarray, "p"],
]:
    """Compute a QR decomposition with column pivoting.

    Each column of `matrix` is scaled to norm 1 before the decomposition. The first
    column belongs to the intercept of a linear model. The other columns belong to the
    columns of the model's inputs x, in the same order.

    Returns:
      Four arrays: Q of shape (n, p), R of shape (p, p), the order of the columns and
      the norms of the columns, both of shape (p,). The arrays satisfy Q R = (matrix /
      norms)[:, order].
    Raises:
      ValueError: A column is a linear combination of the others, up to rounding errors.
        The message lists the indices of such columns in x, counted from 0.
    """
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1.0
    # The type of the result depends on the flags.
    factors: Any = scipy.linalg.qr(matrix / scale, mode="economic", pivoting=True)
    basis, triangle, order = factors
    dependent = order[
        np.abs(np.diag(triangle)) <= len(matrix) * np.finfo(np.float64).eps
    ]
    if len(triangle) < matrix.shape[1] or dependent.size:
        columns = sorted(
            int(column) - 1
            for column in [*order[len(triangle) :], *dependent]
            if column > 0
        )
        raise ValueError(
            f"columns {columns} of x are constant or depend on the others, so many "
            "params are optimal. Drop these columns, or pass penalty > 0 (or a larger "
            "one)."
        )
    return basis, triangle, order, scale


def with_ones(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d+1"]:
    """Prepend a column of ones, so that the intercept is the first coefficient."""
    return np.column_stack([np.ones(len(x)), x])


def checked(
    x: Shaped[np.ndarray, "n d"], y: Num[np.ndarray, "n"], penalty: float
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n"]]:
    """Check x, y and the penalty, and return x and y in float64.

    Raises TypeError if x or y is not an array of numbers, or if the penalty is not a
    number. Raises ValueError unless x is floating of shape (n, d) with n and d at least
    1, y has shape (n,), all numbers are finite, and the penalty is at least 0.
    """
    check_numbers("x", x)
    check_numbers("y", y)
    check_real("penalty", penalty)
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or x.size == 0 or not np.issubdtype(x.dtype, np.floating):
        raise ValueError(
            f"x must be floating of shape (n, d), n and d at least 1; got {x.dtype} of "
            f"shape {x.shape}."
        )
    if y.shape != x.shape[:1]:
        raise ValueError(
            f"y must have shape {x.shape[:1]}, one target for each row of x; got "
            f"{y.shape}."
        )
    for name, array in (("x", x), ("y", y)):
        if not np.isfinite(array).all():
            raise ValueError(
                f"{name} contains NaN or infinity. Use research.datasets.check_xy to "
                "see where."
            )
    if not (math.isfinite(penalty) and penalty >= 0):
        raise ValueError(
            f"penalty must be a finite number >= 0; got penalty={penalty!r}."
        )
    return x.astype(np.float64), y.astype(np.float64)


def checked_labels(y: Float[np.ndarray, "n"], num_classes: int) -> Int[np.ndarray, "n"]:
    """Return y as integers, or raise ValueError if the labels are not 0..num_classes-1.

    Each of these labels must occur in y. No other label may occur. num_classes must be
    at least 2.
    """
    check_count("num_classes", num_classes, 2)
    found = np.unique(y)
    if num_classes < 2 or not np.array_equal(found, np.arange(num_classes)):
        raise ValueError(
            f"y must contain each label 0..{num_classes - 1} "
            f"(num_classes={num_classes}, at least 2) and no other; got "
            f"{found[:12].tolist()}. A class without examples has no finite intercept."
        )
    return y.astype(np.int64)
