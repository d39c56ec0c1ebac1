"""Arithmetic to fifty digits on the leaves of a pytree, for rules that are written as
their papers print them."""

import operator
from collections.abc import Callable, Iterable
from typing import Any

import mpmath
import numpy as np

DIGITS = 50  # `research.verification.walks` sets mpmath to them while a formula runs.


class Leaves:
    """The leaves of a pytree, each a numpy array of mpmath numbers: they add, multiply
    and divide entry by entry.

    Args:
      arrays: Arrays of any shape, of floats (taken for exactly the numbers they are) or
        of mpmath numbers.
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

    def __add__(self, other):
        return _each(operator.add, self, other)

    def __radd__(self, other):
        return _each(lambda a, b: b + a, self, other)

    def __sub__(self, other):
        return _each(operator.sub, self, other)

    def __rsub__(self, other):
        return _each(lambda a, b: b - a, self, other)

    def __mul__(self, other):
        return _each(operator.mul, self, other)

    def __rmul__(self, other):
        return _each(lambda a, b: b * a, self, other)

    def __truediv__(self, other):
        return _each(operator.truediv, self, other)

    def __rtruediv__(self, other):
        return _each(lambda a, b: b / a, self, other)

    def __pow__(self, power):
        return _each(operator.pow, self, power)

    def __neg__(self):
        return self * -1


_exact = np.frompyfunc(mpmath.mpf, 1, 1)


def _each(operation: Callable[..., Any], *operands: Any) -> Leaves:
    """Entry by entry over Leaves of one structure, and numbers, which stand for all
    entries."""
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
    """function of mpmath numbers, applied entry by entry: for what has no name
    below."""
    return _each(function, *operands)


def by_leaf(function: Callable[..., Any], *operands: Leaves) -> Leaves:
    """function of whole arrays (a norm, a matrix product), applied leaf by leaf; it
    gives an array or a number each."""
    return Leaves(
        function(*arrays) for arrays in zip(*(o.arrays for o in operands), strict=True)
    )


def sqrt(x: Any) -> Any:
    """√x, entry by entry, or of a number; NaN below 0."""
    if isinstance(x, Leaves):
        return _each(sqrt, x)
    return mpmath.sqrt(x) if x >= 0 else mpmath.nan


def absolute(x: Leaves) -> Leaves:
    """|x|, entry by entry."""
    return _each(abs, x)


def sign(x: Leaves) -> Leaves:
    """-1, 0 or 1, entry by entry; NaN of NaN."""
    return _each(lambda a: a if mpmath.isnan(a) else mpmath.sign(a), x)


def maximum(x: Leaves, y: Leaves | Any) -> Leaves:
    """The greater one, entry by entry; NaN if either is."""
    return _each(lambda a, b: a if mpmath.isnan(a) or a > b else b, x, y)


def dot(x: Leaves, y: Leaves) -> Any:
    """Σ x y over all leaves."""
    return mpmath.fsum(entry for a in (x * y).arrays for entry in a.flat)


def norm(x: Leaves) -> Any:
    """The Euclidean norm over all leaves."""
    return mpmath.sqrt(dot(x, x))


def zeros_like(x: Leaves) -> Leaves:
    """0 for every entry."""
    return _each(lambda a: mpmath.mpf(0), x)
