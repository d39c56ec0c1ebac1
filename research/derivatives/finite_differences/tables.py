"""Difference quotients at every scale, their extrapolations to step 0, and what each may be wrong by."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from research.derivatives.finite_differences.ladder import Ladder, reach, runs
from research.derivatives.grid import fornberg_weights

COLUMNS = 9  # Extrapolations, at most.
_SHARE = 1.2  # Of the noise in a bound: independent errors add up to more than their root mean square now and then.
_SHRINKS = 2.0 ** (
    1.2 * np.arange(1, COLUMNS + 1)
)  # By how much an error shrinks at least when the step is halved.
_FEW = 4  # Rows in h² of which the last extrapolation corrects more than it leaves.
_LATE = 3.0  # Times the change that is seen: what the later rows may be wrong by.
_NODES = 4  # Distances that a formula uses, at most.


class Table(NamedTuple):
    """Estimates of one number: a row for each number of extrapolations, a column for each level of the ladder.

    Attributes:
      values: Shape (COLUMNS, levels); nan where a sample is missing.
      noise: How far the noise of f moves each, same shape.
      is_even: Whether they are extrapolated as a series in h².
    """

    values: np.ndarray
    noise: np.ndarray
    is_even: bool = False

    @property
    def bounds(self) -> np.ndarray:
        """What each value may be wrong by; infinite where that cannot be said.

        The noise, plus the largest of three changes: by the last extrapolation; from the value at half the step, which is
        wrong by less; and from that at twice the step, which is wrong by more, by a known factor. Any one alone may vanish by
        chance, or because f does not have the powers that are extrapolated.

        The value at half the step has 2^order times the noise. In the first rows in h²
        half of that noise is no change: there the last extrapolation says enough. In
        the later ones it says too little, for the largest steps have almost no weight,
        and may lie where the series of f diverges: there the change counts three times.
        These numbers were found on random functions.
        """
        values = self.values
        change = np.full(values.shape, np.nan)
        change[1:] = np.abs(values[1:] - values[:-1])
        change[0, :-1] = np.abs(values[0, 1:] - values[0, :-1])
        double = np.abs(values[:, 1:] - values[:, :-1]) / _SHRINKS[:, None]
        change[:, :-1] = np.fmax(change[:, :-1], double)
        half = np.full(values.shape, np.nan)
        half[:, 1:] = np.abs(values[:, 1:] - values[:, :-1])
        if self.is_even:
            half[:_FEW, 1:] = np.maximum(
                half[:_FEW, 1:] - self.noise[:_FEW, :-1] / 2, 0.0
            )
        change = np.maximum(change, half)  # Without either there is no bound.
        if self.is_even:
            change[_FEW:] *= _LATE
        total = change + _SHARE * self.noise
        return np.where(np.isfinite(values) & np.isfinite(total), total, np.inf)


class Tables(NamedTuple):
    """All that a ladder says of the derivative of one order.

    Attributes:
      even: Of the central quotient, whose error is a series in h² where f is smooth: extrapolated so.
      central: Of the same, as a series in h, which it is where the next derivative of f jumps at x.
      left, right: Of the one-sided derivatives.
      gaps: Of the differences of the one-sided derivatives of orders 1 to this one.
    """

    even: Table
    central: Table
    left: Table
    right: Table
    gaps: tuple[Table, ...]


class _Formulas(NamedTuple):
    """Rows: the central quotient, the gaps of order 1 to n, left, right; times h^order of each.

    Attributes:
      weights: Of f at -h, -2h, ... and h, 2h, ..., less f(x), shape (rows, 2, _NODES).
      orders, counts: Of the derivative, and of the distances, shape (rows,).
      needs: Whether each side is used, shape (rows, 2).
      plain, even: Weights of the samples after each number of extrapolations, as a series in h and in h² (the first row
        alone), squared and with that of f(x) at the end: shape (rows, COLUMNS, 2, nodes) and the sum's square.
    """

    weights: np.ndarray
    orders: np.ndarray
    counts: np.ndarray
    needs: np.ndarray
    plain: tuple[np.ndarray, np.ndarray]
    even: tuple[np.ndarray, np.ndarray]


def formula(order: int, side: int) -> tuple[np.ndarray, int]:
    """Return the weights of f at -h, -2h, -4h, ... and h, 2h, 4h, ..., less f(x), for the derivative times h^order.

    Args:
      order: Of the derivative, 1 to 4.
      side: 0 for central, 1 for forward, -1 for backward.
    Returns:
      (weights, shape (2, 4); how many distances are used). The weights of all nodes add up to 0, so that they may be
      applied to differences from f(x), which round less.
    """
    weights = np.zeros((2, _NODES))
    if side:
        nodes = side * 2.0 ** np.arange(order)
        weights[(side + 1) // 2, :order] = fornberg_weights(
            np.append(0.0, nodes), 0.0, order
        )[1:]
        return weights, order
    count = (order + 1) // 2
    nodes = 2.0 ** np.arange(count)
    found = fornberg_weights(np.concatenate([[0.0], nodes, -nodes]), 0.0, order)
    weights[1, :count], weights[0, :count] = found[1 : count + 1], found[count + 1 :]
    return weights, count


@lru_cache(maxsize=2)
def _richardson(base: float) -> np.ndarray:
    """Weights of the quotients at h, 2h, 4h, ... after each number of extrapolations, shape (COLUMNS, COLUMNS)."""
    rows = np.zeros((COLUMNS, COLUMNS))
    rows[0, 0] = 1.0
    for m in range(1, COLUMNS):
        rows[m] = (base**m * rows[m - 1] - np.append(0.0, rows[m - 1, :-1])) / (
            base**m - 1
        )
    return rows


@lru_cache(maxsize=4)
def _formulas(order: int) -> _Formulas:
    forward = [formula(m, 1) for m in range(1, order + 1)]
    backward = [formula(m, -1) for m in range(1, order + 1)]
    rows = [formula(order, 0)]
    rows += [(f - b, m) for (f, m), (b, _) in zip(forward, backward, strict=True)]
    rows += [backward[-1], forward[-1]]
    weights = np.stack([w for w, _ in rows])
    orders = np.array([order, *range(1, order + 1), order, order])
    counts = np.array([count for _, count in rows])
    return _Formulas(
        weights,
        orders,
        counts,
        (weights != 0).any(axis=2),
        _squares(weights, orders, 2.0),
        _squares(weights[:1], orders[:1], 4.0),
    )


def _squares(
    weights: np.ndarray, orders: np.ndarray, base: float
) -> tuple[np.ndarray, np.ndarray]:
    """Squares of the weights of the samples, and of f(x), after each number of extrapolations, in units of h^-order."""
    richardson = _richardson(base)
    total = np.zeros((len(weights), COLUMNS, 2, COLUMNS + _NODES - 1))
    for shift in range(COLUMNS):
        part = richardson[:, shift][None, :, None, None] * weights[:, None]
        total[..., shift : shift + _NODES] += (
            part * 2.0 ** (-shift * orders)[:, None, None, None]
        )
    return total**2, total.sum(axis=(2, 3)) ** 2


def tables(ladder: Ladder, noise: np.ndarray, order: int) -> Tables:
    """Return the tables for the derivative of this order.

    Args:
      ladder: Samples of f.
      noise: A bound on the error of each, shape (levels,).
      order: 1 to 4.
    """
    formulas = _formulas(order)
    samples = np.nan_to_num(ladder.changes, posinf=0.0, neginf=0.0)
    quotients = np.einsum("rsn,skn->rk", formulas.weights, _ahead(samples, _NODES))
    scale = -ladder.exponents * np.ones((len(quotients), 1), int)
    for done in range(
        order
    ):  # Dividing step by step keeps tiny steps from underflowing when raised to the order.
        quotients = np.where(
            (formulas.orders > done)[:, None], np.ldexp(quotients, scale), quotients
        )
    room = np.where(
        np.isfinite(ladder.changes), 0, -1
    )  # Levels in a row whose samples are there.
    room = np.minimum(runs(room == 0), reach(ladder.exponents))
    room = np.min(
        np.where(formulas.needs[:, :, None], room[None], len(noise) + _NODES), axis=1
    )
    # Lonely levels, far below the others at x = 0, show jumps alone: there squares of distances underflow.
    room = np.where(reach(ladder.exponents) > 1, room, 0)
    valid = (
        room[:, None, :]
        >= formulas.counts[:, None, None] + np.arange(COLUMNS)[None, :, None]
    )
    ahead = _ahead(np.nan_to_num(quotients, posinf=0.0, neginf=0.0), COLUMNS)
    plain = np.where(valid, np.einsum("cn,rkn->rck", _richardson(2.0), ahead), np.nan)
    even = np.where(
        valid[0], np.einsum("cn,kn->ck", _richardson(4.0), ahead[0]), np.nan
    )
    errors = _errors(formulas.plain, formulas.orders, noise, ladder.exponents)
    of_even = _errors(formulas.even, formulas.orders[:1], noise, ladder.exponents)[0]
    central, *gaps, left, right = (
        Table(v, e) for v, e in zip(plain, errors, strict=True)
    )
    return Tables(Table(even, of_even, is_even=True), central, left, right, tuple(gaps))


def _ahead(values: np.ndarray, count: int) -> np.ndarray:
    """Each value and the next ones, 0 beyond the end, shape (..., levels, count)."""
    padded = np.concatenate(
        [values, np.zeros((*values.shape[:-1], count - 1))], axis=-1
    )
    return np.lib.stride_tricks.sliding_window_view(padded, count, axis=-1)


def _errors(
    squares: tuple[np.ndarray, np.ndarray],
    orders: np.ndarray,
    noise: np.ndarray,
    powers: np.ndarray,
) -> np.ndarray:
    """The errors of the samples, added up as independent ones are, shape (rows, COLUMNS, levels)."""
    samples, centre = squares
    ahead = _ahead(noise, samples.shape[-1])
    relative = np.minimum(ahead / noise[:, None], 1e100) ** 2
    total = (
        np.sqrt(np.einsum("rcsn,kn->rck", samples, relative) + centre[..., None])
        * noise
    )
    for done in range(int(orders.max())):
        total = np.where(
            (orders > done)[:, None, None], np.ldexp(total, -powers), total
        )
    return total
