"""Power series whose coefficients are computed one after another, on demand.

A coefficient is an array, or None if it is known to be zero. The coefficients stay in
Python lists, because one stacked array takes ten times as long to compile and to run.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jax import lax

Coefficient = Any  # An array, or None for zero.
# What a rule indexes: a series, or a list with the coefficients so far.
Indexed = Any
_NAMES = itertools.count()


class Series:
    """A power series x(t) = Σ_k x[k] t^k for k = 0, 1, 2, ...

    Attributes:
      is_constant: If True, all coefficients except the first are zero.
      name: Value that identifies the series. Two series with the same name have the
        same coefficients, so two equal jaxpr equations whose inputs have the same names
        have the same result.
    """

    def __init__(self, rows: "Rows", column: int, is_constant: bool = False):
        self._rows, self._column, self.is_constant = rows, column, is_constant
        self.name: Any = next(_NAMES)

    def __getitem__(self, k: int) -> Coefficient:
        if k and self.is_constant:
            return None
        return self._rows[k][self._column]


class Constant(Series):
    """A power series that does not depend on t: its later coefficients are 0."""

    def __init__(self, value: Any):
        self.value, self.is_constant = value, True
        self.name: Any = next(_NAMES)

    def __getitem__(self, k: int) -> Coefficient:
        return None if k else self.value


class Rows:
    """The coefficients of several series. Row k holds coefficient k of each series."""

    def __init__(self, rows: Iterable[Sequence[Coefficient]]):
        self._known: list[Sequence[Coefficient]] = []
        self._rest = iter(rows)

    def __getitem__(self, k: int) -> Sequence[Coefficient]:
        while len(self._known) <= k:
            self._known.append(next(self._rest))
        return self._known[k]


def columns(
    rows: Iterable[Sequence[Coefficient]], moving: Sequence[bool]
) -> list[Series]:
    """Return several series, given the rows of their coefficients.

    Args:
      rows: Row k holds coefficient k of each series.
      moving: For each series, whether it depends on t.
    """
    shared = Rows(rows)
    return [Series(shared, column, not moves) for column, moves in enumerate(moving)]


def series(coefficients: Iterable[Coefficient]) -> Series:
    """Return the power series c_0 + c_1 t + c_2 t² + ... with the given coefficients.

    Each coefficient c_k is an array, or None if it is known to be zero. The iterable is
    read on demand, one coefficient after another.
    """
    return columns(((c,) for c in coefficients), [True])[0]


def differentiated(x: Series) -> Series:
    """Return the series of x'(t) = Σ_k (k + 1) x[k + 1] t^k."""
    return series(times(k + 1, x[k + 1]) for k in itertools.count())


def grow(first: Any, slope: Callable[[int, list[Coefficient]], Coefficient]) -> Any:
    """Yield the coefficients of y with y(0) = first and y'(t) = Σ_k slope(k, y) t^k.

    The sum is over k = 0, 1, 2, ... In the call slope(k, y), the argument y is not the
    function but the list of the coefficients 0 to k of y(t).
    """
    y = [first]
    for k in itertools.count():
        yield y[k]
        y.append(times(1 / (k + 1), slope(k, y)))


def times(factor: float, coefficient: Coefficient) -> Coefficient:
    """Return a coefficient times a number; None counts as zero."""
    if coefficient is None or factor == 1:
        return coefficient
    return lax.mul(coefficient, np.asarray(factor, coefficient.dtype))


def total(terms: Iterable[Coefficient]) -> Coefficient:
    """Return the sum of terms, with None as zero. If all are None, return None."""
    result = None
    for term in terms:
        if term is not None:
            result = term if result is None else lax.add(result, term)
    return result


def minus(a: Coefficient, b: Coefficient) -> Coefficient:
    """Return a - b; None counts as zero."""
    if b is None:
        return a
    return lax.neg(b) if a is None else lax.sub(a, b)


def product(
    k: int, a: Indexed, b: Indexed, first: int = 0, call: Callable[..., Any] = lax.mul
) -> Coefficient:
    """Return coefficient k of a(t) b(t), without the terms of a[0] to a[first - 1].

    This is the sum of a[j] b[k - j] over j from `first` to k.

    Args:
      k: Order of the coefficient.
      a, b: The factors, each a series or the list of its first coefficients.
      first: Index of the first coefficient of a that is used.
      call: Function that multiplies a coefficient of a and a coefficient of b.
    """
    pairs = ((a[j], b[k - j]) for j in range(first, k + 1))
    return total(
        call(left, right)
        for left, right in pairs
        if left is not None and right is not None
    )


def square(k: int, a: Indexed, first: int = 0) -> Coefficient:
    """Return coefficient k of a(t)², without the terms of a[0] to a[first - 1].

    This is the sum of a[j] a[k - j] over all j with j >= first and k - j >= first.
    """
    halves = ((a[j], a[k - j]) for j in range(first, (k + 1) // 2))
    twice = times(
        2,
        total(
            lax.mul(left, right)
            for left, right in halves
            if left is not None and right is not None
        ),
    )
    middle = a[k // 2] if k % 2 == 0 and k // 2 >= first else None
    return total((twice, None if middle is None else lax.mul(middle, middle)))


def multiplied(a: Series, b: Series) -> Series:
    """Return the power series of the product a(t) b(t)."""
    return series(
        square(k, a) if a is b else product(k, a, b) for k in itertools.count()
    )


def divided(a: Series, b: Series) -> Iterator[Coefficient]:
    """Yield the coefficients of y = a(t) / b(t), from b y = a."""
    y: list[Coefficient] = []
    for k in itertools.count():
        rest = minus(a[k], product(k, b, y, first=1))
        y.append(None if rest is None else lax.div(rest, b[0]))
        yield y[k]
