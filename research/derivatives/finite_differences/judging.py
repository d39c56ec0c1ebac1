"""What tables of estimates say: the value that all scales agree on, or that there is none."""

from typing import NamedTuple

import numpy as np

from research.derivatives.finite_differences.ladder import LOWEST, Ladder
from research.derivatives.finite_differences.tables import Table

CAUTION = 1.5  # Times the estimated error of truncation and noise.
VANISHES = 0.1  # The least power of the step that counts as vanishing.
CONFIDENT = 0.1  # The largest error, as a share of the derivative, or of its scale, that is an answer.


class Estimate(NamedTuple):
    """A value and a bound on its error, from the level `level`; error is infinite where nothing was found."""

    value: float
    error: float
    level: int

    @property
    def is_known(self) -> bool:
        """Whether there is a value with a bound."""
        return bool(np.isfinite(self.error))


NOTHING = Estimate(float("nan"), float("inf"), 0)


class Column(NamedTuple):
    """The best estimate of each level: its value and its bound, shape (levels,); infinite bounds where there is none."""

    values: np.ndarray
    bounds: np.ndarray

    @property
    def end(self) -> int:
        """The first level that contradicts two smaller ones, beyond both bounds (a single one may be unlucky)."""
        there = np.flatnonzero(np.isfinite(self.bounds))
        values, bounds = self.values[there], self.bounds[there]
        apart = np.abs(values[:, None] - values) > 2 * (bounds[:, None] + bounds)
        against = np.flatnonzero(np.tril(apart, -1).sum(axis=1) > 1)
        return int(there[against[0]]) if len(against) else len(self.values)


def best_of_each_level(*tables: Table) -> Column:
    """Return the estimate with the smallest bound at each level, of all tables."""
    values = np.concatenate([table.values for table in tables])
    bounds = np.concatenate([table.bounds for table in tables])
    row = np.argmin(bounds, axis=0)[None]
    return Column(
        np.take_along_axis(values, row, 0)[0], np.take_along_axis(bounds, row, 0)[0]
    )


def settle(column: Column, end: int | None = None) -> Estimate:
    """Return the estimate with the smallest bound among the levels on which all smaller ones agree.

    A large step may look settled because it steps over the oscillations of f: so one climbs from the smallest step, and
    stops at the first level that contradicts two smaller ones.

    Args:
      column: Estimates of each level.
      end: A level to stop at, if it comes before that.
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
    """Return the power of the step with which sizes vanish at the smallest steps where they stand out from the noise.

    Returns:
      (the slope of log2 size against log2 step, the sizes it is from); (inf, none) with fewer than four of them.
    """
    stands_out = np.isfinite(sizes) & (sizes > 10 * noise) & (sizes > 0)
    # A single one may be noise after all.
    four = stands_out[:-3] & stands_out[1:-2] & stands_out[2:-1] & stands_out[3:]
    if not four.any():
        return float("inf"), sizes[:0]
    clear = np.flatnonzero(stands_out & (np.arange(len(sizes)) >= np.argmax(four)))[
        :levels
    ]
    typical = np.median(sizes[clear])
    lower = np.arange(len(sizes)) < clear[0]
    if np.sum(lower & (sizes + noise < typical / 2)) >= 2:
        return float("inf"), sizes[
            :0
        ]  # They vanish at steps at which they would be seen.
    x, y = powers[clear] - np.mean(powers[clear]), np.log2(sizes[clear])
    return float(np.sum(x * y) / np.sum(x * x)), sizes[clear]


def rate(table: Table, powers: np.ndarray) -> float:
    """Return the power of the step with which the plain quotients stop changing; infinite where no change is seen."""
    change = np.abs(np.diff(table.values[0]))
    noise = (table.noise[0, 1:] + table.noise[0, :-1]) / 4
    return growth(change, noise, powers[:-1])[0]


def jumps(ladder: Ladder, noise: np.ndarray, side: np.ndarray) -> bool:
    """Return whether f on one side, at the smallest steps, keeps a distance from f(x)."""
    low = side[:LOWEST] - ladder.centre
    distance = np.median(low)
    floor = 10 * max(float(np.max(noise[:LOWEST])), ladder.epsilon * abs(ladder.centre))
    return bool(
        abs(distance) > floor and np.max(np.abs(low - distance)) <= 0.1 * abs(distance)
    )
