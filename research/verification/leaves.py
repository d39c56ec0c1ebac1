"""Arithmetic in fifty digits on the leaves of a pytree, for formulas from papers."""

import operator
from collections.abc import Callable, Iterable
from typing import Any

import mpmath
import numpy as np
from jaxtyping import Shaped

DIGITS = 50  # Precision of mpmath while a formula runs (`research.verification.walks`).

Number = Any  # A number of mpmath. Exact integers are allowed, too.
Leaf = Shaped[np.ndarray, "..."]  # One leaf: an array of numbers of mpmath.


class Leaves:
    """The leaves of a pytree, each a NumPy array of mpmath numbers.

    Arithmetic works entry by entry.

    Args:
      arrays: Arrays of any shape, of mpmath numbers or of floats. Floats are converted
        exactly.
    Example:
      >>> with mpmath.workdps(DIGITS):
      ...     x = Leaves([[1.0, 4.0], 9.0])
      ...     print(norm(sqrt(x) - 1), float(dot(x, x)))
      2.2360679774997896964091736687312762354406183596115 98.0
    """

    def __init__(self, arrays: Iterable[Any]):
        self.arrays = [
            np.asarray(_exact(np.asarray(a, object)), object) for a in arrays
        ]

    def __add__(self, other: Any) -> "Leaves":
        return _each(operator.add, self, other)

    def __radd__(self, other: Any) -> "Leaves":
        return _each(lambda a, b: b + a, self, other)

    def __sub__(self, other: Any) -> "Leaves":
        return _each(operator.sub, self, other)

    def __rsub__(self, other: Any) -> "Leaves":
        return _each(lambda a, b: b - a, self, other)

    def __mul__(self, other: Any) -> "Leaves":
        return _each(operator.mul, self, other)

    def __rmul__(self, other: Any) -> "Leaves":
        return _each(lambda a, b: b * a, self, other)

    def __truediv__(self, other: Any) -> "Leaves":
        return _each(operator.truediv, self, other)

    def __rtruediv__(self, other: Any) -> "Leaves":
        return _each(lambda a, b: b / a, self, other)

    def __pow__(self, power: Any) -> "Leaves":
        return _each(operator.pow, self, power)

    def __neg__(self) -> "Leaves":
        return self * -1


_exact = np.frompyfunc(mpmath.mpf, 1, 1)


def _each(operation: Callable[..., Any], *operands: Any) -> Leaves:
    """Apply an operation entry by entry to Leaves of one structure.

    Numbers among the operands are used for all entries.
    """
    columns = [o.arrays if isinstance(o, Leaves) else None for o in operands]
    count = next(len(c) for c in columns if c is not None)
    entry = np.frompyfunc(operation, len(operands), 1)
    found = Leaves([])
    for k in range(count):
        given = [
            o if c is None else c[k] for c, o in zip(columns, operands, strict=True)
        ]
        found.arrays.append(np.asarray(entry(*given), object))
    return found


def entrywise(function: Callable[..., Any], *operands: Leaves | Any) -> Leaves:
    """Apply a function of mpmath numbers to the operands, entry by entry.

    Each operand is a `Leaves` (a list of arrays) or a number. A number is combined with
    all entries.
    """
    return _each(function, *operands)


def by_leaf(function: Callable[..., Any], *operands: Leaves) -> Leaves:
    """Apply a function of whole arrays, such as a norm or matrix product, leaf by leaf.

    `function` gets one leaf of each operand, and returns an array or a number.
    """
    return Leaves(
        function(*arrays) for arrays in zip(*(o.arrays for o in operands), strict=True)
    )


def sqrt(x: Any) -> Any:
    """Return √x of each entry of Leaves, or of a number. √x is NaN if x < 0."""
    if isinstance(x, Leaves):
        return _each(sqrt, x)
    return mpmath.sqrt(x) if x >= 0 else mpmath.nan


def absolute(x: Leaves) -> Leaves:
    """Return the absolute value of each entry of each leaf."""
    return _each(abs, x)


def sign(x: Leaves) -> Leaves:
    """Return the sign of each entry of each leaf: -1, 0 or 1, or NaN for NaN."""
    return _each(lambda a: a if mpmath.isnan(a) else mpmath.sign(a), x)


def maximum(x: Leaves, y: Leaves | Any) -> Leaves:
    """Return the greater of x and y for each entry; NaN if either is NaN."""
    return _each(lambda a, b: a if mpmath.isnan(a) or a > b else b, x, y)


def dot(x: Leaves, y: Leaves) -> Any:
    """Return the inner product of x and y, the sum over all entries of all leaves."""
    return mpmath.fsum(entry for a in (x * y).arrays for entry in a.flat)


def norm(x: Leaves) -> Any:
    """Return the Euclidean norm of all entries of all leaves together."""
    return mpmath.sqrt(dot(x, x))


def flat(x: Leaves) -> np.ndarray:
    """Return the entries of all leaves as one array with one axis."""
    return np.concatenate([np.ravel(a) for a in x.arrays])


def column(x: Leaves) -> Any:
    """Return the entries of all leaves as an mpmath matrix with one column."""
    return mpmath.matrix(list(flat(x)))


def like(entries: Iterable[Number], x: Leaves) -> Leaves:
    """Return numbers as Leaves with the shapes of x.

    The numbers fill the arrays of x in order. They may be a column, an mpmath matrix.
    """
    rest = iter(entries)
    return Leaves(
        np.array([next(rest) for _ in range(a.size)], object).reshape(a.shape)
        for a in x.arrays
    )


def zeros_like(x: Leaves) -> Leaves:
    """Return Leaves with the shapes of x, in which every entry is 0."""
    return _each(lambda a: mpmath.mpf(0), x)
