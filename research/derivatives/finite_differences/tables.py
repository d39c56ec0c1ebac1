"""Difference quotients at all steps, their extrapolations to 0, and error bounds."""

from functools import lru_cache
from math import factorial
from typing import NamedTuple

import numpy as np

from research.derivatives.finite_differences.ladder import Ladder, reach, runs
from research.derivatives.grid import fornberg_weights

COLUMNS = 9  # Number of rows of a table: 0 to 8 extrapolations.
# Factor on the noise in a bound. Sums of independent errors sometimes exceed their root
# mean square.
_SHARE = 1.2
# Smallest factor by which halving the step is assumed to reduce the error of each row.
_SHRINKS = 2.0 ** (1.2 * np.arange(1, COLUMNS + 1))
# In the first _FEW rows in h², the last extrapolation removes more error than remains.
_FEW = 4
_LATE = 3.0  # Factor on the observed change in the later rows in h².
_NODES = 4  # Largest number of distances in a formula.


class Table(NamedTuple):
    """Estimates of one derivative of f from difference quotients at many steps h.

    Row m contains the estimates after m Richardson extrapolations, for m from 0 to 8.
    Each extrapolation combines the estimates at h and at 2h so that one power of h
    disappears from their error. Each column, or level, belongs to one step h.

    Attributes:
      values: Estimates, shape (rows, levels). An estimate is nan if a value of f that
        it needs is missing.
      noise: Effect of the noise of f on each estimate, same shape. The noise of f is an
        error of its values, such as a rounding error.
      is_even: If True, the powers of h that disappear one after another increase by 2,
        as in h², h⁴, ... or in h, h³, ... If False, they increase by 1, as in
        h, h², ...
    """

    values: np.ndarray
    noise: np.ndarray
    is_even: bool = False

    @property
    def bounds(self) -> np.ndarray:
        """Bound on the error of each estimate, in the shape of `values`.

        Let v(m, h) be the estimate at the step h in row m, after m extrapolations. Its
        bound is 1.2 times its noise, plus the largest of three changes:

        - First change: |v(m, h) - v(m - 1, h)|, which is due to the last extrapolation.
          Row 0 has no extrapolation. There, the first change is |v(0, h) - v(0, 2h)|.
        - Second change: |v(m, h) - v(m, h/2)|.
        - Third change: |v(m, h) - v(m, 2h)| / F with F = 2^(1.2 (m + 1)). It is left
          out if there is no v(m, 2h). In row 0 it is the first change, divided by F, so
          it is never the largest.

        The bound is infinite if there is no v(m, h) or no v(m, h/2), as at the smallest
        step. In row 0 it is also infinite if there is no v(0, 2h), as at the largest
        step.

        The first change is about the error of v(m - 1, h), or in row 0 of v(0, 2h).
        This error is usually larger than that of v(m, h). The second change is about
        the error of v(m, h), because the error of v(m, h/2) is usually smaller. The
        third change assumes that halving the step divides the error in row m by at
        least F. The largest change is used, because a single change may vanish by
        chance, or because the error does not have the powers of h that the
        extrapolation removes.

        There are two corrections if `is_even` is True, which means that the powers of h
        that the extrapolations remove increase by 2:

        - In rows 0 to 3, the second change is reduced by 0.5 times the noise of
          v(m, h/2), but not below 0. The second change contains this noise, which for a
          derivative of order n is 2^n times as large as the noise of v(m, h). The bound
          remains large enough, because in these rows the first change is usually larger
          than the error of v(m, h).
        - From row 4 on, the largest of the three changes is multiplied by 3. The last
          extrapolation gives almost no weight to the largest steps in these rows. So it
          changes the estimate too little if the series of f diverges at these steps.

        The numbers 0.5, 4 and 3 were chosen on random functions.
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
        change = np.maximum(change, half)  # NaN, so without a bound, if one is missing.
        if self.is_even:
            change[_FEW:] *= _LATE
        total = change + _SHARE * self.noise
        return np.where(np.isfinite(values) & np.isfinite(total), total, np.inf)


class Tables(NamedTuple):
    """Tables of estimates of one derivative, from values of f at many step lengths.

    Let n be the order of this derivative, x its point, and h the step length. A jump of
    a derivative at x is its value from the right minus its value from the left.

    Attributes:
      even: Table of the central quotient, which uses f at equal distances to the left
        and to the right of x. It is extrapolated as a series in h². The error of the
        quotient is such a series if f is smooth.
      central: Table of the central quotient, extrapolated as a series in h. The error
        of the quotient is such a series if the derivative of order n + 1 jumps at x.
      left, right: Tables of the one-sided derivatives of order n.
      gaps: Tables of the jumps of the derivatives at x, one table for each order from
        1 to n. They contain differences of one-sided quotients.
      jumps: Tables of the same jumps as `gaps`, computed in another way. If f is smooth
        to the left of x and to the right of x, this way detects much smaller jumps. The
        table of order k uses only one part of f: for odd k the even part
        (f(x + t) + f(x - t)) / 2, and for even k the odd part
        (f(x + t) - f(x - t)) / 2. If f is smooth at x, too, the Taylor series of this
        part in t has no term with t^k. A jump of the k-th derivative adds such a term,
        so even a small jump is visible.
      next_jumps: The tables that `jumps` would have for the orders n + 1 and n + 2.
    """

    even: Table
    central: Table
    left: Table
    right: Table
    gaps: tuple[Table, ...]
    jumps: tuple[Table, ...]
    next_jumps: tuple[Table, Table]


class _Formulas(NamedTuple):
    """Weights of several formulas that are extrapolated with the same powers of h.

    In the arrays, a row is one formula. A formula gives h^order times a derivative, or
    h^order times the jump of a derivative at x.

    Attributes:
      weights: Weights of f - f(x) at -h, -2h, -4h, ... and at h, 2h, 4h, ..., shape
        (rows, 2, _NODES).
      orders: Order of the derivative in each row, shape (rows,).
      counts: Number of distances in each row, shape (rows,).
      needs: Whether a row uses the left side, and whether the right, shape (rows, 2).
      richardson: Weights of the quotients at h, 2h, 4h, ... in each extrapolation,
        shape (COLUMNS, COLUMNS), a row for each number of extrapolations.
      samples: Square of the weight of f - f(x) at each node after each extrapolation,
        shape (rows, COLUMNS, 2, nodes). The weights are in units of h^-order.
      centre: Square of the weight of f(x) after each extrapolation, in the same units,
        shape (rows, COLUMNS).
    """

    weights: np.ndarray
    orders: np.ndarray
    counts: np.ndarray
    needs: np.ndarray
    richardson: np.ndarray
    samples: np.ndarray
    centre: np.ndarray


def formula(order: int, side: int) -> tuple[np.ndarray, int]:
    """Return the weights of a difference formula for h^order times the derivative.

    The weights belong to the differences f(x + t) - f(x) at t = -h, -2h, -4h, ... and
    at t = h, 2h, 4h, ... The formula can use these differences, because the weights of
    f at all nodes, including x, sum to 0. The differences are small, so their weighted
    sum has a smaller rounding error than a weighted sum of the values of f.

    Args:
      order: Order of the derivative, 1 to 4.
      side: 0 for the central formula, 1 for the forward formula, -1 for the backward
        formula.
    Returns:
      (weights, count). The weights have shape (2, 4): row 0 is for -h, -2h, -4h, -8h,
      and row 1 for h, 2h, 4h, 8h. The count is the number of distances in the formula.
      The weights of all further distances are 0.
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


def jump_formula(order: int) -> tuple[np.ndarray, int]:
    """Return the weights of a formula for h^order times the jump of a derivative.

    The jump is the derivative from the right minus the derivative from the left, both
    at x. The formula is a weighted sum of one expression at the steps h, 2h, 4h, ...
    There are two cases:

    - For an odd order, the expression is f(x + h) + f(x - h) - 2 f(x). If f is smooth,
      its series in h has only the powers h², h⁴, ...
    - For an even order, the expression is f(x + h) - f(x - h). If f is smooth, its
      series in h has only the powers h, h³, ...

    A jump J of the derivative of the given order adds the term J h^order / order! to
    the expression. A smooth f has no term with this power. The weights are chosen so
    that the powers below h^order cancel.

    Args:
      order: Order of the derivative that jumps, 1 to 6.
    Returns:
      (weights, count). The weights have shape (2, 4) and belong to the differences
      f(x + t) - f(x). Row 0 is for t = -h, -2h, -4h, -8h, and row 1 for t = h, 2h, 4h,
      8h. The count is the number of distances h, 2h, 4h, ... that the formula uses. The
      weights of all further distances are 0.
    """
    lower = np.arange(1 + order % 2, order, 2)
    powers = np.append(lower, order)
    steps = 2.0 ** np.arange(len(powers))
    side = np.linalg.solve(
        steps[None, :] ** powers[:, None], (powers == order) * float(factorial(order))
    )
    weights = np.zeros((2, _NODES))
    weights[1, : len(steps)] = side
    weights[0, : len(steps)] = side if order % 2 else -side
    return weights, len(steps)


def _richardson(powers: np.ndarray) -> np.ndarray:
    """Return the weights of the quotients at h, 2h, 4h, ... in each extrapolation.

    Args:
      powers: Powers of h that are removed one after another, shape (COLUMNS - 1,).
    Returns:
      The weights, shape (COLUMNS, COLUMNS), a row for each number of extrapolations.
    """
    rows = np.zeros((COLUMNS, COLUMNS))
    rows[0, 0] = 1.0
    for m, factor in enumerate(2.0**powers, 1):
        rows[m] = (factor * rows[m - 1] - np.append(0.0, rows[m - 1, :-1])) / (
            factor - 1
        )
    return rows


@lru_cache(maxsize=4)
def _formulas(order: int) -> tuple[_Formulas, _Formulas, _Formulas]:
    """Return the formulas for a derivative of one order, in three groups.

    Returns:
      A tuple of three groups, which are extrapolated differently. With the order n they
      contain:

      - the central quotient, the differences between the right and the left derivative
        of orders 1 to n, and the left and the right derivative of order n, all
        extrapolated as series in h;
      - the central quotient, extrapolated as a series in h²;
      - the jumps of orders 1 to n + 2, extrapolated as series in h, h³, h⁵, ...
    """
    forward = [formula(m, 1) for m in range(1, order + 1)]
    backward = [formula(m, -1) for m in range(1, order + 1)]
    gaps = [(f - b, m) for (f, m), (b, _) in zip(forward, backward, strict=True)]
    up_to, after = list(range(1, order + 1)), [order + 1, order + 2]
    first = np.arange(1, COLUMNS)
    return (
        _group(
            [formula(order, 0), *gaps, backward[-1], forward[-1]],
            [order, *up_to, order, order],
            first,
        ),
        _group([formula(order, 0)], [order], 2 * first),
        _group(
            [jump_formula(m) for m in (*up_to, *after)],
            [*up_to, *after],
            2 * first - 1,
        ),
    )


def _group(
    rows: list[tuple[np.ndarray, int]], orders: list[int], powers: np.ndarray
) -> _Formulas:
    """Return formulas with the squared weights after each extrapolation."""
    weights, richardson = np.stack([w for w, _ in rows]), _richardson(powers)
    total = np.zeros((len(weights), COLUMNS, 2, COLUMNS + _NODES - 1))
    for shift in range(COLUMNS):
        part = richardson[:, shift][None, :, None, None] * weights[:, None]
        total[..., shift : shift + _NODES] += (
            part * 2.0 ** (-shift * np.array(orders))[:, None, None, None]
        )
    return _Formulas(
        weights,
        np.array(orders),
        np.array([count for _, count in rows]),
        (weights != 0).any(axis=2),
        richardson,
        total**2,
        total.sum(axis=(2, 3)) ** 2,
    )


def tables(ladder: Ladder, noise: np.ndarray, order: int) -> Tables:
    """Return tables with estimates of a derivative of f at x.

    Each table contains estimates from difference quotients at many step lengths, before
    and after extrapolation.

    Args:
      ladder: Values of f around x.
      noise: Bound on the error of f at each level (distance from x), shape (levels,).
      order: Order of the derivative, 1 to 4.
    """
    plain, squares, parity = _formulas(order)
    central, *gaps, left, right = _extrapolated(plain, ladder, noise, False)
    even = _extrapolated(squares, ladder, noise, True)[0]
    *jumps, one, two = _extrapolated(parity, ladder, noise, True)
    return Tables(even, central, left, right, tuple(gaps), tuple(jumps), (one, two))


def _extrapolated(
    formulas: _Formulas, ladder: Ladder, noise: np.ndarray, is_even: bool
) -> list[Table]:
    """Return a table for each formula of a group."""
    samples = np.nan_to_num(ladder.changes, posinf=0.0, neginf=0.0)
    quotients = np.einsum("rsn,skn->rk", formulas.weights, _ahead(samples, _NODES))
    scale = -ladder.exponents * np.ones((len(quotients), 1), int)
    # Divide by the step `order` times, because a power of a tiny step would underflow.
    for done in range(int(formulas.orders.max())):
        quotients = np.where(
            (formulas.orders > done)[:, None], np.ldexp(quotients, scale), quotients
        )
    # Number of consecutive levels with samples.
    room = np.where(np.isfinite(ladder.changes), 0, -1)
    room = np.minimum(runs(room == 0), reach(ladder.exponents))
    room = np.min(
        np.where(formulas.needs[:, :, None], room[None], len(noise) + _NODES), axis=1
    )
    # At x = 0 some isolated levels lie far below the others. They serve only to detect
    # jumps, because squares of such distances underflow.
    room = np.where(reach(ladder.exponents) > 1, room, 0)
    valid = (
        room[:, None, :]
        >= formulas.counts[:, None, None] + np.arange(COLUMNS)[None, :, None]
    )
    ahead = _ahead(np.nan_to_num(quotients, posinf=0.0, neginf=0.0), COLUMNS)
    values = np.einsum("cn,rkn->rck", formulas.richardson, ahead)
    errors = _errors(formulas, noise, ladder.exponents)
    return [
        Table(v, e, is_even)
        for v, e in zip(np.where(valid, values, np.nan), errors, strict=True)
    ]


def _ahead(values: np.ndarray, count: int) -> np.ndarray:
    """Return each value with the values that follow it, shape (..., levels, count).

    Values beyond the end are 0.
    """
    padded = np.concatenate(
        [values, np.zeros((*values.shape[:-1], count - 1))], axis=-1
    )
    return np.lib.stride_tricks.sliding_window_view(padded, count, axis=-1)


def _errors(formulas: _Formulas, noise: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """Return the effect of noise on each estimate, shape (rows, COLUMNS, levels).

    The squares of the samples' errors are added, because the errors are assumed to be
    independent.
    """
    ahead = _ahead(noise, formulas.samples.shape[-1])
    relative = np.minimum(ahead / noise[:, None], 1e100) ** 2
    total = (
        np.sqrt(
            np.einsum("rcsn,kn->rck", formulas.samples, relative)
            + formulas.centre[..., None]
        )
        * noise
    )
    for done in range(int(formulas.orders.max())):
        total = np.where(
            (formulas.orders > done)[:, None, None], np.ldexp(total, -powers), total
        )
    return total
