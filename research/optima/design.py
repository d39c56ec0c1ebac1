"""What every exact solver asks of its data first."""

import math
from typing import Any

import numpy as np
import scipy.linalg

from research.checks import check_count, check_numbers, check_real


def centred(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each column and x without it: exactly 0, whatever the rounding, where a column is constant."""
    shift = x.mean(axis=0)
    return shift, np.where(x.max(axis=0) == x.min(axis=0), 0.0, x - shift)


def pivoted_qr(
    matrix: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """QR of the matrix with unit columns in pivoted order, refused where a column depends on others."""
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1.0
    factors: Any = scipy.linalg.qr(
        matrix / scale, mode="economic", pivoting=True
    )  # Its type depends on its flags.
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
            f"Columns {columns} of x are constant or depend on the others, so that many params are optimal. "
            "Drop such columns, or pass penalty > 0 (or a larger one)."
        )
    return basis, triangle, order, scale


def with_ones(x: np.ndarray) -> np.ndarray:
    """The rows (1, x_i), so that the intercept is the first coefficient."""
    return np.column_stack([np.ones(len(x)), x])


def checked(
    x: np.ndarray, y: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """x and y in float64, once their shapes and values are sound."""
    check_numbers("x", x)
    check_numbers("y", y)
    check_real("penalty", penalty)
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or x.size == 0 or not np.issubdtype(x.dtype, np.floating):
        raise ValueError(
            f"x must be floating of shape (n, d), n and d at least 1; got {x.dtype} of shape {x.shape}."
        )
    if y.shape != x.shape[:1]:
        raise ValueError(
            f"y must have shape {x.shape[:1]}, one target for each row of x; got {y.shape}."
        )
    for name, array in (("x", x), ("y", y)):
        if not np.isfinite(array).all():
            raise ValueError(
                f"{name} holds NaN or infinity; research.datasets.check_xy says where."
            )
    if not (math.isfinite(penalty) and penalty >= 0):
        raise ValueError(f"penalty must be a finite number >= 0; got {penalty!r}.")
    return x.astype(np.float64), y.astype(np.float64)


def checked_labels(y: np.ndarray, num_classes: int) -> np.ndarray:
    """y as integers, once each of 0..num_classes-1 is among them and nothing else is."""
    check_count("num_classes", num_classes, 2)
    found = np.unique(y)
    if num_classes < 2 or not np.array_equal(found, np.arange(num_classes)):
        raise ValueError(
            f"y must hold each label 0..{num_classes - 1} (num_classes={num_classes}, at least 2) and nothing else; "
            f"got {found[:12].tolist()}. A class without examples has no finite intercept."
        )
    return y.astype(np.int64)
