"""Choice of the most reliable estimate from many step lengths, and tests for jumps."""

from typing import NamedTuple

import numpy as np

from research.derivatives.finite_differences.ladder import LOWEST, Ladder
from research.derivatives.finite_differences.tables import Table

CAUTION = 1.5  # Factor on the estimated error of truncation and noise.
VANISHES = 0.1  # Smallest power of the step that counts as vanishing.
# Largest error bound of an "ok" result, relative to the derivative or to its scale.
CONFIDENT = 0.1
# Changes that grow by this factor at each step are covered by the bounds. For central
# differences of a smooth function, it is 16 after one extrapolation.
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
    sum of their bounds. Large steps may agree with each other because they skip the
    oscillations of f. So the search starts at the smallest step and stops before the
    first level that contradicts two levels with smaller steps.

    Let b be the bound of the chosen estimate. The neighbours of this estimate are the
    estimates that are at most two levels away and have a bound of at most 8 b. Let d be
    the largest distance of a neighbour from the chosen estimate. The bound of the
    result is 1.5 times the larger of b and d / 4, plus the rounding error of the chosen
    estimate.

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
    of a quotient. A level is one step length. The power is fitted at the smallest steps
    where the sizes are more than ten times as large as the noise.

    Args:
      sizes: Size of the quantity at each level, shape (n,).
      noise: Noise of each size, shape (n,).
      powers: log2 of the step at each level, shape (n,).
      levels: Largest number of levels in the fit.
    Returns:
      (power, sizes that were fitted, misfit). The power is the slope of log2 size
      against log2 step. The misfit is the root mean square of the deviations of log2
      size from this line. The result is (inf, empty array, inf) in two cases: if no
      four consecutive sizes are more than ten times as large as the noise, or if the
      sizes vanish at smaller steps. Sizes vanish if at least two of the steps smaller
      than all fitted steps have size plus noise below half of the size on the line. (If
      the power of the line is negative, this test uses a constant instead of the line.)
      A power near 0 shows sizes that do not shrink, and a positive or infinite power
      shows sizes that do.
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
    power is infinite if no four consecutive changes are clearly larger than the noise,
    or if the changes vanish at smaller steps.

    Args:
      table: Table whose first row contains the difference quotients.
      powers: log2 of the steps, shape (levels,).
    """
    change = np.abs(np.diff(table.values[0]))
    noise = (table.noise[0, 1:] + table.noise[0, :-1]) / 4
    return growth(change, noise, powers[:-1])[0]


def slow_error(found: Estimate, *tables: Table) -> float:
    """Return an error bound for an estimate that converges slowly, otherwise 0.

    The function detects an error that behaves like a power of the step and that no
    extrapolation removes, as for x² + 1e-6 |x|^2.5, even if noise hides this error at
    smaller steps. Let e_0 be the estimate at the step of `found`, and e_1 and e_2
    estimates at two and four times this step. Let c = e_1 - e_0 and
    q = (e_2 - e_1) / c. If |c| exceeds the noise and 1 < q < 14, the error behaves like
    step^p with p = log2(q), and the bound is 1.5 |c| / (q - 1). If |c| exceeds the
    noise and 0 < q <= 1, the estimates do not converge, and the bound is 1.5 |c| / ε
    with the relative spacing ε of float64. In all other cases the bounds of the tables
    are large enough, and the result is 0.

    At each step, the tables contain several estimates, so the formula is used with two
    choices. In the first choice, e_0 is the estimate with the smallest bound at its
    step, and e_1 and e_2 are from the same table and have the same number of
    extrapolations. In the second choice, each of e_0, e_1 and e_2 is the estimate with
    the smallest bound at its step. The second choice is left out if the bound of e_2 is
    so much larger than the bound of e_0 that the step of e_2 may cross a kink of f. The
    result is the larger bound of the two choices.

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

    f jumps if f - f(x) has nearly the same value at each of the ten smallest distances
    from x, and the absolute value of this difference exceeds ten times the noise.

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
