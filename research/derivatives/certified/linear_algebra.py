"""Enclosure of triangular factors and solutions of small linear systems.

This is Gaussian elimination in interval arithmetic. The pivots are chosen once for each
interval matrix, at its midpoint. If no pivot can be 0, the pivots are valid for every
matrix inside the interval matrix.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from research.derivatives.certified.intervals import (
    FINE,
    NOT_SMOOTH,
    Interval,
    divide,
    magnitude,
    multiply,
    square_root,
    subtract,
)
from research.derivatives.certified.primitives import rule


def _entry(x: Interval, i: Any, j: Any) -> Interval:
    trouble = x.trouble if x.trouble.ndim == 0 else x.trouble[..., i, j]
    return Interval(x.low[..., i, j], x.high[..., i, j], trouble)


def _put(x: Interval, i: Any, j: Any, value: Interval) -> None:
    x.low[..., i, j], x.high[..., i, j] = value.low, value.high
    x.trouble[..., i, j] = value.trouble


def _writable(x: Interval) -> Interval:
    trouble = np.broadcast_to(x.trouble, x.low.shape).copy()
    return Interval(x.low.copy(), x.high.copy(), trouble)


def _outer(column: Interval, row: Interval) -> Interval:
    return multiply(_lifted(column, -1), _lifted(row, -2))


def _lifted(x: Interval, axis: int) -> Interval:
    trouble = x.trouble if x.trouble.ndim == 0 else np.expand_dims(x.trouble, axis)
    return Interval(np.expand_dims(x.low, axis), np.expand_dims(x.high, axis), trouble)


@rule("lu")
def _lu(a: Interval, **params: Any) -> Sequence[Interval]:
    """Return (L and U as one matrix, exchanges of rows, order of the rows)."""
    m, n = a.low.shape[-2:]
    a = _writable(a)
    order = np.broadcast_to(np.arange(m), a.low.shape[:-1]).copy()
    pivots = np.zeros((*a.low.shape[:-2], min(m, n)), np.int64)
    doubt = np.zeros(a.low.shape[:-2], np.uint8)
    for k in range(min(m, n)):
        middle = np.abs(0.5 * a.low[..., k:, k] + 0.5 * a.high[..., k:, k])
        chosen = k + np.argmax(np.where(np.isnan(middle), 0.0, middle), axis=-1)
        pivots[..., k] = chosen
        doubt = np.maximum(doubt, _is_open(a, k, chosen))
        for rows in (a.low, a.high, a.trouble):
            _exchange(rows, k, chosen)
        _exchange(order[..., None], k, chosen)
        below = slice(k + 1, m)
        factors = divide(_entry(a, below, k), _lifted(_entry(a, k, k), -1))
        _put(a, below, k, factors)
        rest = slice(k + 1, n)
        if m > k + 1 and n > k + 1:
            change = _outer(factors, _entry(a, k, rest))
            _put(a, below, rest, subtract(_entry(a, below, rest), change))
    a = a._replace(trouble=np.maximum(a.trouble, doubt[..., None, None]))
    return (
        a,
        Interval(pivots, pivots, np.broadcast_to(doubt[..., None], pivots.shape)),
        Interval(order, order, np.broadcast_to(doubt[..., None], order.shape)),
    )


def _is_open(a: Interval, k: int, chosen: np.ndarray) -> np.ndarray:
    """Return whether another row may have the largest entry of column k (the pivot)."""
    size = magnitude(_entry(a, slice(k, None), k))
    at = (chosen - k)[..., None]
    least = np.take_along_axis(size.low, at, axis=-1)
    others = size.high.copy()
    np.put_along_axis(others, at, -1.0, axis=-1)
    largest = np.max(others, axis=-1, initial=-1.0)
    return np.where(largest >= least[..., 0], NOT_SMOOTH, FINE)


def _exchange(rows: np.ndarray, k: int, chosen: np.ndarray) -> None:
    """Exchange row k with the chosen row of each matrix."""
    index = chosen[..., None, None]
    other = np.take_along_axis(rows, index, axis=-2)
    own = rows[..., k : k + 1, :].copy()
    np.put_along_axis(rows, np.broadcast_to(index, own.shape[:-1] + (1,)), own, axis=-2)
    rows[..., k : k + 1, :] = other


@rule("triangular_solve")
def _triangular_solve(
    a: Interval,
    b: Interval,
    *,
    left_side: bool,
    lower: bool,
    transpose_a: bool,
    unit_diagonal: bool,
    **params: Any,
) -> Interval:
    """Return X with A X = B, or with X A = B, by substitution."""
    if not left_side:
        flipped = _triangular_solve(
            a,
            _turned(b),
            left_side=True,
            lower=lower,
            transpose_a=not transpose_a,
            unit_diagonal=unit_diagonal,
        )
        return _turned(flipped)
    if transpose_a:
        a, lower = _turned(a), not lower
    n = a.low.shape[-1]
    x = _writable(b)
    for i in range(n) if lower else reversed(range(n)):
        if not unit_diagonal:
            _put(
                x,
                i,
                slice(None),
                divide(_entry(x, i, slice(None)), _lifted(_entry(a, i, i), -1)),
            )
        rest = slice(i + 1, n) if lower else slice(0, i)
        if rest.stop > rest.start:
            change = _outer(_entry(a, rest, i), _entry(x, i, slice(None)))
            _put(x, rest, slice(None), subtract(_entry(x, rest, slice(None)), change))
    return x


def _turned(x: Interval) -> Interval:
    trouble = x.trouble if x.trouble.ndim == 0 else np.swapaxes(x.trouble, -1, -2)
    return Interval(np.swapaxes(x.low, -1, -2), np.swapaxes(x.high, -1, -2), trouble)


@rule("cholesky")
def _cholesky(a: Interval, **params: Any) -> Interval:
    """Return the lower triangular L with L Lᵀ = A."""
    n = a.low.shape[-1]
    a = _writable(a)
    for k in range(n):
        root = square_root(_entry(a, k, k))
        _put(a, k, k, root)
        below = slice(k + 1, n)
        _put(a, below, k, divide(_entry(a, below, k), _lifted(root, -1)))
        _put(a, k, below, Interval(np.zeros(()), np.zeros(()), np.asarray(FINE)))
        column = _entry(a, below, k)
        if n > k + 1:
            _put(
                a,
                below,
                below,
                subtract(_entry(a, below, below), _outer(column, column)),
            )
    # Where one pivot is negative, JAX fills the whole matrix with NaN.
    diagonal = np.einsum("...ii->...i", a.trouble)
    largest = np.max(diagonal, axis=-1, initial=FINE)[..., None, None]
    return a._replace(trouble=np.maximum(a.trouble, largest))
