"""Choice of the most reliable estimate from many step lengths, and tests for jumps."""

from typing import NamedTuple

import numpy as np

from research.derivatives.finite_differences.ladder import LOWEST, Ladder
from research.derivatives.finite_differences.tables import Table

CAUTION = 1.5  # Factor on the estimated error of truncation and noise.
VANISHES = 0.1  # Sizes like step^p count as vanishing if p is at least this.
# Largest error bound of an "ok" result, relative to the derivative or to its scale.
CONFIDENT = 0.1
# If changes grow by at least this factor when the step doubles, the bounds cover them.
# For central differences of a smooth f, the factor is 16 after one extrapolation.
_FAST = 14.0
# If the bound at four times the step is more than so many times the bound at the step
# itself, a kink may lie between.
_ACROSS = 72.0


class Estimate(NamedTuple):
    """Estimate of a derivative, with a bound on its error.

    Attributes:
      value: Estimated derivative. NaN if there is no estimate.
      error: Bound on the error of `value`. Infinite if there is no estimate.
      level: Index of the step length that was used; 0 if there is no estimate.
    """

    value: float
    error: float
    level: int

    @property
    def is_known(self) -> bool:
        """Whether the estimate has a finite bound."""
        return bool(np.isfinite(self.error))


NOTHING = Estimate(float("nan"), float("inf"), 0)


class Column(NamedTuple):
    """Best estimate of a derivative at each level.

    A level is one step length.

    Attributes:
      values: Estimates, shape (levels,).
      bounds: Bound on the error of each estimate, shape (levels,). The bound is
        infinite at a level without an estimate.
    """

    values: np.ndarray
    bounds: np.ndarray

    @property
    def end(self) -> int:
        """Index of the first level that contradicts two or more lower levels.

        A lower level has a smaller step. Two levels contradict each other if their
        values differ by more than twice the sum of their bounds. A single contradiction
        may be chance and does not count. If no level contradicts two lower levels, the
        result is the number of levels.
        """
        there = np.flatnonzero(np.isfinite(self.bounds))
        values, bounds = self.values[there], self.bounds[there]
        apart = np.abs(values[:, None] - values) > 2 * (bounds[:, None] + bounds)
        against = np.flatnonzero(np.tril(apart, -1).sum(axis=1) > 1)
        return int(there[against[0]]) if len(against) else len(self.values)


def best_of_each_level(*tables: Table) -> Column:
    """Return, for each level, the estimate with the smallest bound on its error.

    A level is one step length of the difference quotients. A `Table` contains several
    estimates of the derivative for each level. All tables are of the same derivative
    and have the same levels. The best estimate of a level may be from any of the
    tables.
    """
    values = np.concatenate([table.values for table in tables])
    bounds = np.concatenate([table.bounds for table in tables])
    row = np.argmin(bounds, axis=0)[None]
    return Column(
        np.take_along_axis(values, row, 0)[0], np.take_along_axis(bounds, row, 0)[0]
    )


def settle(column: Column, end: int | None = None) -> Estimate:
    """Return the estimate with the smallest bound among the levels that agree.

    A level is one step length, and the levels are ordered from small to large steps.
    Two levels contradict each other if their estimates differ by more than twice the
    sum of their bounds. The levels that agree are those before the first level that
    contradicts two levels with smaller steps. The small steps decide, because large
    steps that skip the oscillations of f may agree with each other.

    The bound of the result is 1.5 times the larger of b and d / 4, plus the rounding
    error ε |value| of the chosen estimate, with the relative spacing ε of float64. Here
    b is the bound of the chosen estimate, and d is the largest difference between the
    chosen estimate and one of its neighbours. The neighbours are the estimates that are
    at most two levels away and have a bound of at most 8 b.

    Args:
      column: Best estimate of each level.
      end: Only the levels before this index are considered. None means all levels.
    Returns:
      The `Estimate`. The field `value` is NaN if no level has a finite bound.
    """
    last = min(column.end, len(column.values) if end is None else end)
    levels = np.flatnonzero(np.isfinite(column.bounds[:last]))
    if not len(levels):
        return NOTHING
    values, bounds = column.values[levels], column.bounds[levels]
    best = int(np.argmin(bounds))
    near = (np.abs(levels - levels[best]) <= 2) & (bounds <= 8 * bounds[best])
    spread = np.max(np.abs(values[near] - values[best]))
    rounding = abs(values[best]) * np.finfo(np.float64).eps
    error = (
        CAUTION * max(bounds[best], spread / 4) + rounding + np.finfo(np.float64).tiny
    )
    return Estimate(float(values[best]), float(error), int(levels[best]))


def growth(
    sizes: np.ndarray, noise: np.ndarray, powers: np.ndarray, levels: int = 8
) -> tuple[float, np.ndarray, float]:
    """Return the power p for which sizes shrink like step^p as the step goes to 0.

    The sizes may be those of any quantity that depends on the step, such as the change
    of a difference quotient. A power near 0 shows sizes that do not shrink. A positive
    or infinite power shows sizes that do. A level is one step length.

    The power is the slope of a straight line that is fitted to log2 size against log2
    step. Only sizes that are more than ten times as large as their noise are fitted.
    The fit begins at the smallest step where four such sizes follow each other, because
    a single one may be noise. It uses the first `levels` such sizes from there on.

    The power is infinite in two cases:

    - No four consecutive sizes are more than ten times as large as the noise.
    - The sizes vanish below the fitted steps: for at least two steps there, the size
      plus its noise is below half of the size on the line. (Where the power is
      negative, the line would rise towards small steps. This test then uses the mean of
      the fitted log2 sizes instead of the line.)

    Args:
      sizes: Size of the quantity at each level, shape (n,).
      noise: Noise of each size, shape (n,).
      powers: log2 of the step at each level, ascending, shape (n,).
      levels: Largest number of levels in the fit.
    Returns:
      (power, sizes that were fitted, misfit). The misfit is the root mean square of the
      deviations of log2 size from the line. If the power is infinite, the result is
      (inf, empty array, inf).
    """
    stands_out = np.isfinite(sizes) & (sizes > 10 * noise) & (sizes > 0)
    # A single size may be noise, so four in a row are required.
    four = stands_out[:-3] & stands_out[1:-2] & stands_out[2:-1] & stands_out[3:]
    if not four.any():
        return float("inf"), sizes[:0], float("inf")
    clear = np.flatnonzero(stands_out & (np.arange(len(sizes)) >= np.argmax(four)))[
        :levels
    ]
    middle, y = np.mean(powers[clear]), np.log2(sizes[clear])
    x = powers[clear] - middle
    power = float(np.sum(x * y) / np.sum(x * x))
    line = 2.0 ** (np.mean(y) + max(power, 0.0) * (powers - middle))
    lower = np.arange(len(sizes)) < clear[0]
    if np.sum(lower & (sizes + noise < line / 2)) >= 2:
        # The sizes are small at steps where larger ones would be visible.
        return float("inf"), sizes[:0], float("inf")
    misfit = float(np.std(y - power * x))
    return power, sizes[clear], misfit


def rate(table: Table, powers: np.ndarray) -> float:
    """Return the power p such that difference quotients change like step^p.

    A change is the difference between the quotients at two neighbouring steps. The
    power is fitted to the changes that are more than 2.5 times as large as the sum of
    the noises of their two quotients. It is infinite if there are no four consecutive
    changes of this size, or if the changes vanish at smaller steps (see `growth`).

    Args:
      table: Table whose first row contains the difference quotients.
      powers: log2 of the steps, shape (levels,).
    """
    change = np.abs(np.diff(table.values[0]))
    noise = (table.noise[0, 1:] + table.noise[0, :-1]) / 4
    return growth(change, noise, powers[:-1])[0]


def slow_error(found: Estimate, *tables: Table) -> float:
    """Return an error bound for an estimate that converges slowly, otherwise 0.

    Let e_0 be the estimate at the step h of `found`, and e_1 and e_2 estimates at 2h
    and 4h. Let c = e_1 - e_0 and q = (e_2 - e_1) / c. There are three cases:

    - |c| exceeds the sum of the noises of e_0 and e_1, and 1 < q < 14: the bound is
      1.5 |c| / (q - 1).
    - |c| exceeds this sum, and 0 < q <= 1: the estimates do not converge, and the bound
      is 1.5 |c| / ε with the relative spacing ε of float64.
    - Otherwise, the result is 0. The bounds of the tables are then large enough.

    The reason for the first bound: if the error of an estimate is A step^p, then
    c = A h^p (2^p - 1) and q = 2^p. So the error of e_0 is A h^p = c / (q - 1). No
    extrapolation removes this error if the power p is not one that it expects, as for
    x² + 1e-6 |x|^2.5. Noise may hide the error at smaller steps.

    At each step, the tables contain several estimates. So the formula is used with two
    choices of e_0, e_1 and e_2, and the result is the larger of the two bounds:

    - e_0 is the estimate with the smallest bound at its step, and e_1 and e_2 are from
      the same table and have the same number of extrapolations.
    - Each of e_0, e_1 and e_2 is the estimate with the smallest bound at its step. This
      choice is left out if the bound of e_2 is more than 72 times the bound of e_0. The
      step of e_2 may then cross a kink of f, and says nothing about the convergence.

    Args:
      found: The estimate whose error is bounded. Only the field `level`, which is the
        index of the step, is used.
      *tables: Tables of Richardson's extrapolation that contain the estimate.
    """
    near = slice(found.level, found.level + 3)
    bounds = np.concatenate([table.bounds[:, near] for table in tables])
    values = np.concatenate([table.values[:, near] for table in tables])
    noise = np.concatenate([table.noise[:, near] for table in tables])
    if bounds.shape[1] < 3:
        return 0.0
    best = np.argmin(bounds, axis=0)
    same = np.full(3, best[0])
    found_slow = [_slow_error(values[same, range(3)], noise[same, range(3)])]
    # A step that crosses a kink shows nothing about the convergence.
    if bounds[best[2], 2] <= _ACROSS * bounds[best[0], 0]:
        found_slow.append(_slow_error(values[best, range(3)], noise[best, range(3)]))
    return max(found_slow)


def _slow_error(values: np.ndarray, noise: np.ndarray) -> float:
    first, second = np.diff(values)
    ratio = second / first
    if not abs(first) > noise[0] + noise[1] or not 0 < ratio < _FAST:
        return 0.0
    return float(CAUTION * abs(first) / max(ratio - 1.0, np.finfo(np.float64).eps))


def jumps(ladder: Ladder, noise: np.ndarray, side: np.ndarray) -> bool:
    """Return whether f jumps at x on one side.

    Let M be the median of f - f(x) at the ten smallest distances from x, as far as f is
    defined there. The result is True if two conditions hold:

    - At each of these distances, f - f(x) differs from M by at most |M| / 10.
    - |M| is more than ten times as large as the noise. The noise is the largest `noise`
      at the ten distances, but at least ε |f(x)| with the relative spacing ε of the
      floats that f returns.

    The result is False if f is defined at none of these distances. If f is continuous,
    f - f(x) goes to 0 as the distance goes to 0. If f jumps, it goes to the height of
    the jump.

    Args:
      ladder: Values of f at several distances from x. Each distance is a level.
      noise: Bound on the error of f at each level, shape (levels,).
      side: Values of f on this side, `ladder.plus` or `ladder.minus`.
    """
    low = side[:LOWEST] - ladder.centre
    low = low[np.isfinite(low)]
    if not len(low):
        return False
    distance = np.median(low)
    floor = 10 * max(float(np.max(noise[:LOWEST])), ladder.epsilon * abs(ladder.centre))
    return bool(
        abs(distance) > floor and np.max(np.abs(low - distance)) <= 0.1 * abs(distance)
    )
