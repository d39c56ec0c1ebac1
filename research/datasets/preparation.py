"""Preparation of arrays for training: check, split, standardise."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num

from research.checks import check_count, check_numbers, refuse_traced


def check_xy(x: Float[np.ndarray, "n *d"], y: Num[np.ndarray, "n *k"]) -> None:
    """Raise an error for inputs or targets on which training would fail silently.

    Args:
      x: Inputs, shape (n, ...), floating.
      y: Targets, shape (n, ...), floating or integer.
    Raises:
      TypeError: x is not floating, or y is not numeric.
      ValueError: x and y have different lengths. Or x or y is empty, has no axis, or
        contains NaN or infinity. For NaN and infinity, the message shows the number of
        bad rows and the index of the first bad row.
    Example:
      >>> check_xy(np.array([[1.0], [np.nan]]), np.array([0, 1]))
      Traceback (most recent call last):
      ValueError: x has 1 row of 2 with NaN or infinity; the first is row 1. ...
    """
    check_numbers("x", x)
    check_numbers(
        "y",
        y,
        wanted="an array of real numbers; np.unique(y, return_inverse=True)[1] numbers "
        "classes",
    )
    x, y = np.asarray(x), np.asarray(y)
    if not np.issubdtype(x.dtype, np.floating):
        raise TypeError(
            f"x must be floating; got dtype {x.dtype}. Convert it first: "
            "x.astype(np.float64)."
        )
    if not (np.issubdtype(y.dtype, np.floating) or np.issubdtype(y.dtype, np.integer)):
        raise TypeError(
            f"y must be floating or integer; got dtype {y.dtype}. Encode labels as 0, "
            "1, 2, ..."
        )
    for name, array in (("x", x), ("y", y)):
        if array.ndim == 0 or array.size == 0:
            raise ValueError(
                f"{name} must have at least one row; got shape {array.shape}."
            )
    if len(x) != len(y):
        raise ValueError(
            f"x and y must have the same length; got {len(x)} rows and {len(y)} "
            "targets."
        )
    for name, array in (("x", x), ("y", y)):
        bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
        if bad.size:
            rows = "row" if bad.size == 1 else "rows"
            raise ValueError(
                f"{name} has {bad.size} {rows} of {len(array)} with NaN or infinity; "
                f"the first is row {bad[0]}. Remove or repair these rows first."
            )


def split(
    x: Float[np.ndarray, "n *d"],
    y: Num[np.ndarray, "n *k"],
    seed: int = 0,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
) -> tuple[tuple[Float[np.ndarray, "_ *d"], Num[np.ndarray, "_ *k"]], ...]:
    """Split the rows at random into disjoint parts that cover the data.

    The n rows are permuted by NumPy's default generator, so the same seed gives the
    same parts on every machine. The first rows of the permutation are part 0, the next
    rows are part 1, and so on. Part k ends before row ⌊n (fractions[0] + ... +
    fractions[k])⌋ of the permutation. The split is not stratified: if y holds class
    labels, the shares of the classes can differ between the parts.

    Args:
      x: Inputs, shape (n, ...).
      y: Targets, shape (n, ...).
      seed: Seed of the permutation.
      fractions: Fraction of each part. Fractions are positive and have sum 1.
    Returns:
      One pair (x, y) for each fraction: by default the training, validation and test
      parts.
    Raises:
      TypeError: x is not floating, or y is not numeric.
      ValueError: x or y is not valid (see `check_xy`), seed is not an integer >= 0,
        fractions are not positive with sum 1, or a part would be empty.
    Example:
      >>> parts = split(np.ones((1797, 64)), np.arange(1797))
      >>> [len(x) for x, y in parts]
      [1257, 270, 270]
    """
    refuse_traced("split", x=x, y=y, fractions=fractions, seed=seed)
    check_count("seed", seed, 0)
    check_numbers("fractions", fractions, ndim=1)
    check_xy(x, y)
    x, y = np.asarray(x), np.asarray(y)
    shares = np.asarray(fractions, np.float64)
    if shares.ndim != 1 or not (shares > 0).all() or abs(shares.sum() - 1.0) > 1e-9:
        raise ValueError(
            f"fractions must be positive with sum 1; got {fractions!r}. Pass for "
            "example (0.7, 0.15, 0.15)."
        )
    # 0.7 + 0.15 + 0.15 may be just below 1.
    ends = np.floor(np.cumsum(shares) * len(x) + 1e-6).astype(int)
    if (np.diff(ends, prepend=0) == 0).any():
        raise ValueError(
            f"fractions={fractions!r} of {len(x)} rows leave a part empty. Use fewer "
            "parts or more rows."
        )
    order = np.random.default_rng(seed).permutation(len(x))
    return tuple((x[rows], y[rows]) for rows in np.split(order, ends[:-1]))


def mean_and_sd(
    train_x: Num[np.ndarray, "n *d"],
) -> tuple[Float[np.ndarray, "*d"], Float[np.ndarray, "*d"]]:
    """Compute the mean and the standard deviation of each column.

    The standard deviation is √(Σ (x - mean)² / n), with n and not n - 1. For a constant
    column, the function returns the standard deviation ∞ instead of 0. Then
    (x - mean) / sd is 0 in this column, even in a validation or test part in which the
    column varies.

    Args:
      train_x: Inputs, shape (n, ...), floating or integer.
    Returns:
      The mean and the standard deviation, each with the shape of one row and the dtype
      of the inputs (float64 for integers).
    Raises:
      TypeError: train_x does not hold numbers.
      ValueError: train_x has no rows.
    Example:
      >>> mean, sd = mean_and_sd(np.array([[1.0, 5.0], [3.0, 5.0]]))
      >>> mean.tolist(), sd.tolist()
      ([2.0, 5.0], [1.0, inf])
    """
    _check_rows(train_x)
    train_x = np.asarray(train_x)
    mean, sd = _mean_and_sd(train_x)
    dtype = _floating_dtype(train_x)
    return mean.astype(dtype), sd.astype(dtype)


def _check_rows(train_x: np.ndarray) -> None:
    check_numbers("train_x", train_x)
    shape = np.shape(train_x)
    if not shape or not shape[0]:
        raise ValueError(f"train_x must have at least one row; got shape {shape}.")


def _mean_and_sd(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and sd, computed in float64: a long float32 sum loses digits."""
    mean, sd = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    # Compare the values, because rounding may give a constant column an sd just above
    # 0.
    return mean, np.where(x.max(axis=0) == x.min(axis=0), np.inf, sd)


def _floating_dtype(x: np.ndarray) -> np.dtype:
    return x.dtype if np.issubdtype(x.dtype, np.floating) else np.dtype(np.float64)


def standardise(
    train_x: Num[np.ndarray, "n *d"], *others: Num[np.ndarray, "m *d"]
) -> tuple[Float[np.ndarray, "_ *d"], ...]:
    """Standardise columns to mean 0 and standard deviation 1 on the training part.

    The result is (x - mean) / sd for the training part and all other parts, with the
    mean and sd of `mean_and_sd(train_x)`. Columns that are constant on the training
    part become 0 in all parts. scikit-learn's StandardScaler only subtracts the mean
    from such columns, so they may differ from 0 in other parts.

    Args:
      train_x: Inputs of the training part, shape (n, ...), floating or integer.
      *others: Inputs of other parts (validation, test, ...), each of shape (m, ...).
    Returns:
      The standardised arrays, in the given order.
    Raises:
      TypeError: train_x or another part does not hold numbers.
      ValueError: train_x has no rows, or the rows of another part have another shape.
    Example:
      >>> train, test = standardise(np.array([[0.0], [2.0]]), np.array([[5.0]]))
      >>> train.tolist(), test.tolist()
      ([[-1.0], [1.0]], [[4.0]])
    """
    _check_rows(train_x)
    row = np.shape(train_x)[1:]
    for place, other in enumerate(others):
        check_numbers(f"others[{place}]", other)
        # A single row and groups of rows are standardised, too.
        if np.shape(other)[np.ndim(other) - len(row) :] != row:
            raise ValueError(
                f"others[{place}] must have rows of shape {row}, as train_x; got shape "
                f"{np.shape(other)}."
            )
    parts = [np.asarray(part) for part in (train_x, *others)]
    # In float32, the mean of large values is too coarse to be subtracted.
    mean, sd = _mean_and_sd(parts[0])
    return tuple(((part - mean) / sd).astype(_floating_dtype(part)) for part in parts)
