"""The value on which all scales of a table agree, or none."""

from typing import NamedTuple

import numpy as np

from research.derivatives.finite_differences.ladder import LOWEST, Ladder
from research.derivatives.finite_differences.tables import Table

CAUTION = 1.5  # Factor on the estimated error of truncation and noise.
VANISHES = 0.1  # Smallest power of the step that counts as vanishing.
# Largest error of an answer, as a share of the derivative or of its scale.
CONFIDENT = 0.1


class Estimate(NamedTuple):
    """A value, a bound on its error, and the level of its step.

    The error is infinite if there is no estimate.
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
    """The best estimate of each level, with its bound, shape (levels,).

    The bound is infinite at levels without an estimate.
    """

    values: np.ndarray
    bounds: np.ndarray

    @property
    def end(self) -> int:
        """First level that differs from two smaller ones by more than both bounds.

        One contradiction does not count, because it may be chance.
        """
        there = np.flatnonzero(np.isfinite(self.bounds))
        values, bounds = self.values[there], self.bounds[there]
        apart = np.abs(values[:, None] - values) > 2 * (bounds[:, None] + bounds)
        against = np.flatnonzero(np.tril(apart, -1).sum(axis=1) > 1)
        return int(there[against[0]]) if len(against) else len(self.values)


def best_of_each_level(*tables: Table) -> Column:
    """Return the estimate with the smallest bound of all tables, for each level."""
    values = np.concatenate([table.values for table in tables])
    bounds = np.concatenate([table.bounds for table in tables])
    row = np.argmin(bounds, axis=0)[None]
    return Column(
        np.take_along_axis(values, row, 0)[0], np.take_along_axis(bounds, row, 0)[0]
    )


def settle(column: Column, end: int | None = None) -> Estimate:
    """Return the estimate with the smallest bound among levels that agree.

    Large steps may agree with each other because they step over the oscillations of f.
    So the search starts at the smallest step and stops at the first level that
    contradicts two smaller ones.

    Args:
      column: Estimates of each level.
      end: Level to stop at, if it comes earlier.
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
) -> tuple[float, np.ndarray]:
    """Return the power of the step with which sizes go to 0.

    The power is fitted at the smallest steps where sizes exceed the noise.

    Returns:
      (slope of log2 size against log2 step, the sizes of the fit), or (inf, no sizes)
      with fewer than four sizes.
    """
    stands_out = np.isfinite(sizes) & (sizes > 10 * noise) & (sizes > 0)
    # A single size may be noise, so four in a row are required.
    four = stands_out[:-3] & stands_out[1:-2] & stands_out[2:-1] & stands_out[3:]
    if not four.any():
        return float("inf"), sizes[:0]
    clear = np.flatnonzero(stands_out & (np.arange(len(sizes)) >= np.argmax(four)))[
        :levels
    ]
    typical = np.median(sizes[clear])
    lower = np.arange(len(sizes)) < clear[0]
    if np.sum(lower & (sizes + noise < typical / 2)) >= 2:
        # They vanish at steps where they would exceed the noise.
        return float("inf"), sizes[:0]
    x, y = powers[clear] - np.mean(powers[clear]), np.log2(sizes[clear])
    return float(np.sum(x * y) / np.sum(x * x)), sizes[clear]


def rate(table: Table, powers: np.ndarray) -> float:
    """Return the power of the step with which the changes of the quotients go to 0.

    It is infinite if no change exceeds the noise.
    """
    change = np.abs(np.diff(table.values[0]))
    noise = (table.noise[0, 1:] + table.noise[0, :-1]) / 4
    return growth(change, noise, powers[:-1])[0]


def jumps(ladder: Ladder, noise: np.ndarray, side: np.ndarray) -> bool:
    """Return whether f keeps a distance from f(x) at the smallest steps of a side."""
    low = side[:LOWEST] - ladder.centre
    distance = np.median(low)
    floor = 10 * max(float(np.max(noise[:LOWEST])), ladder.epsilon * abs(ladder.centre))
    return bool(
        abs(distance) > floor and np.max(np.abs(low - distance)) <= 0.1 * abs(distance)
    )
