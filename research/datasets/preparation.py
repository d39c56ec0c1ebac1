"""From raw arrays to a training part that may be trusted: checked, split, standardised."""

from collections.abc import Sequence

import numpy as np

from research.checks import check_count, check_numbers


def check_xy(x: np.ndarray, y: np.ndarray) -> None:
    """Refuses data on which a training would go wrong quietly.

    Args:
      x: Inputs, shape (n, ...), floating.
      y: Targets, shape (n, ...), floating or integer.
    Raises:
      TypeError: x is not floating, or y is not numeric.
      ValueError: x or y is empty or has no axis, holds NaN or infinity, or they differ in length. The message names
        the argument, how many rows are at fault and the first of them.
    Example:
      >>> check_xy(np.array([[1.0], [np.nan]]), np.array([0, 1]))
      Traceback (most recent call last):
      ValueError: x has 1 row of 2 with NaN or infinity; the first is row 1. Drop or repair such rows first.
    """
    check_numbers("x", x)
    check_numbers("y", y)
    x, y = np.asarray(x), np.asarray(y)
    if not np.issubdtype(x.dtype, np.floating):
        raise TypeError(
            f"x must be floating; got dtype {x.dtype}. Convert it first: x.astype(np.float64)."
        )
    if not (np.issubdtype(y.dtype, np.floating) or np.issubdtype(y.dtype, np.integer)):
        raise TypeError(
            f"y must be floating or integer; got dtype {y.dtype}. Encode labels as 0, 1, 2, ..."
        )
    for name, array in (("x", x), ("y", y)):
        if array.ndim == 0 or array.size == 0:
            raise ValueError(
                f"{name} is empty: its shape is {array.shape}. At least one row is needed."
            )
    if len(x) != len(y):
        raise ValueError(
            f"x and y differ in length: {len(x)} rows and {len(y)} targets. Each row needs its target."
        )
    for name, array in (("x", x), ("y", y)):
        bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
        if bad.size:
            rows = "row" if bad.size == 1 else "rows"
            raise ValueError(
                f"{name} has {bad.size} {rows} of {len(array)} with NaN or infinity; the first is row {bad[0]}. "
                "Drop or repair such rows first."
            )


def split(
    x: np.ndarray,
    y: np.ndarray,
    seed: int = 0,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Deals the rows out at random into disjoint parts that cover the data.

    Part k ends at row ⌊n (fractions[0] + ... + fractions[k])⌋ of a permutation drawn by numpy's default generator, so
    the same seed gives the same parts on every machine. Classes are not balanced.

    Args:
      x: Inputs, shape (n, ...).
      y: Targets, shape (n, ...).
      seed: Chooses the permutation.
      fractions: Share of each part; positive, with sum 1.
    Returns:
      One (x, y) for each fraction: training, validation and test by default.
    Raises:
      TypeError, ValueError: As `check_xy`; fractions are not positive with sum 1; a part would be empty.
    Example:
      >>> parts = split(np.ones((1797, 64)), np.arange(1797))
      >>> [len(x) for x, y in parts]
      [1257, 270, 270]
    """
    check_count("seed", seed, 0)
    check_numbers("fractions", fractions, ndim=1)
    check_xy(x, y)
    x, y = np.asarray(x), np.asarray(y)
    shares = np.asarray(fractions, np.float64)
    if shares.ndim != 1 or not (shares > 0).all() or abs(shares.sum() - 1.0) > 1e-9:
        raise ValueError(
            f"fractions must be positive with sum 1; got {fractions!r}, e.g. (0.7, 0.15, 0.15)."
        )
    ends = np.floor(np.cumsum(shares) * len(x) + 1e-6).astype(
        int
    )  # 0.7 + 0.15 + 0.15 may fall just short of 1.
    if (np.diff(ends, prepend=0) == 0).any():
        raise ValueError(
            f"fractions={fractions!r} of {len(x)} rows leave a part empty; use fewer parts or more rows."
        )
    order = np.random.default_rng(seed).permutation(len(x))
    return tuple((x[rows], y[rows]) for rows in np.split(order, ends[:-1]))


def mean_and_sd(train_x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measures each column's mean and population standard deviation, Σ(x - mean)² / n under the root.

    A constant column has sd ∞, not 0: then (x - mean) / sd is 0 for it, in the training part and in any other.

    Args:
      train_x: Inputs, shape (n, ...), floating.
    Returns:
      (mean, sd), each of one row's shape and of the inputs' dtype; of integers, float64.
    Example:
      >>> mean, sd = mean_and_sd(np.array([[1.0, 5.0], [3.0, 5.0]]))
      >>> mean.tolist(), sd.tolist()
      ([2.0, 5.0], [1.0, inf])
    """
    check_numbers("train_x", train_x)
    train_x = np.asarray(train_x)
    # In float64, for a long sum in float32 loses its last digits.
    mean, sd = (
        train_x.mean(axis=0, dtype=np.float64),
        train_x.std(axis=0, dtype=np.float64),
    )
    # Rounding may give a constant column an sd just above 0, so the values themselves are asked.
    sd = np.where(train_x.max(axis=0) == train_x.min(axis=0), np.inf, sd)
    dtype = train_x.dtype if np.issubdtype(train_x.dtype, np.floating) else np.float64
    return mean.astype(dtype), sd.astype(dtype)


def standardise(train_x: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Shifts and scales each column to mean 0 and sd 1 on the training part, and other parts by the same numbers.

    (x - mean) / sd with `mean_and_sd(train_x)`: nothing is learnt from the other parts. Columns that are constant on
    the training part become 0 everywhere. scikit-learn's StandardScaler does the same, but leaves a column constant
    in training unscaled, so that it may differ from 0 elsewhere.

    Args:
      train_x: The training part, shape (n, ...), floating.
      *others: Validation, test, ...: each of shape (m, ...).
    Returns:
      The standardised arrays, in the order given.
    Example:
      >>> train, test = standardise(np.array([[0.0], [2.0]]), np.array([[5.0]]))
      >>> train.tolist(), test.tolist()
      ([[-1.0], [1.0]], [[4.0]])
    """
    for other in others:
        check_numbers("each of others", other)
    mean, sd = mean_and_sd(train_x)
    return tuple((part - mean) / sd for part in (train_x, *others))
