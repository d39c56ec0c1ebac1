"""What a ladder says of a derivative: the value that all scales agree on, or why there is none."""

from typing import NamedTuple

import numpy as np

from research.derivatives.finite_difference.ladder import LOWEST, Ladder, Quotients

COLUMNS = 7  # Extrapolations, at most.
CAUTION = 3.0  # Times the estimated error of truncation and noise.
VANISHES = 0.1  # The least power of the step that counts as vanishing.
SMOOTH = 1.5  # The least power with which central quotients of a smooth function converge is 2.
CONFIDENT = 0.1  # The largest error, as a share of the derivative, or of its scale, that is an answer.


class Estimate(NamedTuple):
    """A value and a bound on its error, from the level `level`; error is infinite where nothing was found."""

    value: float
    error: float
    level: int


NOTHING = Estimate(float("nan"), float("inf"), 0)


def settle(table: Quotients, usable: np.ndarray, order: int) -> Estimate:
    """The estimate with the smallest error bound among the levels on which all smaller ones agree.

    A level's bound is the noise and what its last extrapolation changed. A large step may look settled because it steps
    over the oscillations of f: so one climbs from the smallest step, and stops at the first level that contradicts two
    smaller steps, beyond both bounds (a single one may have been unlucky).
    """
    values, errors = _best_of_each_level(table)
    seen: list[Estimate] = []
    for level in np.flatnonzero(usable & np.isfinite(values) & np.isfinite(errors)):
        one = Estimate(float(values[level]), float(errors[level]), int(level))
        against = sum(abs(one.value - other.value) > 2 * (one.error + other.error) for other in seen)
        if against > 1:
            break
        seen.append(one)
    if not seen:
        return NOTHING
    best = min(seen, key=lambda one: one.error)
    near = [one for one in seen if abs(one.level - best.level) <= 2 and one.error <= 8 * best.error]
    spread = max(abs(one.value - best.value) for one in near)
    bound = CAUTION * order * max(best.error, spread / 4) + abs(best.value) * np.finfo(np.float64).eps
    return best._replace(error=float(bound))


def _best_of_each_level(table: Quotients) -> tuple[np.ndarray, np.ndarray]:
    """The value of each row with the smallest bound, and that bound; nan where a row has none."""
    values, noise = table
    change = np.full(values.shape, np.nan)
    change[:, 1:] = np.abs(values[:, 1:] - values[:, :-1])
    change[:-1, 0] = np.abs(values[1:, 0] - values[:-1, 0])
    bounds = np.where(np.isfinite(values) & np.isfinite(change + noise), change + noise, np.inf)
    column = np.argmin(bounds, axis=1)
    rows = np.arange(len(values))
    found = np.isfinite(bounds[rows, column])
    return np.where(found, values[rows, column], np.nan), np.where(found, bounds[rows, column], np.nan)


def growth(sizes: np.ndarray, noise: np.ndarray, powers: np.ndarray, levels: int = 8) -> tuple[float, np.ndarray]:
    """The power of the step with which sizes vanish at the smallest steps where they stand out from the noise.

    Returns:
      (the slope of log2 size against log2 step, the sizes it is from); (inf, none) with fewer than four of them.
    """
    stands_out = np.isfinite(sizes) & (sizes > 10 * noise) & (sizes > 0)
    first = [k for k in range(len(sizes) - 3) if stands_out[k : k + 4].all()][
        :1
    ]  # A single one may be noise after all.
    clear = np.flatnonzero(stands_out & (np.arange(len(sizes)) >= first[0]))[:levels] if first else []
    if len(clear) < 4:
        return float("inf"), sizes[:0]
    typical = np.median(sizes[clear])
    lower = np.arange(len(sizes)) < clear[0]
    if np.sum(lower & (sizes + noise < typical / 2)) >= 2:
        return float("inf"), sizes[:0]  # They vanish at steps at which they would be seen.
    x, y = powers[clear] - np.mean(powers[clear]), np.log2(sizes[clear])
    return float(np.sum(x * y) / np.sum(x * x)), sizes[clear]


def jumps(ladder: Ladder, side: np.ndarray) -> bool:
    """Whether f on one side, at the smallest steps, keeps a distance from f(x)."""
    low = side[:LOWEST] - ladder.centre
    distance = np.median(low)
    floor = 10 * max(float(np.max(ladder.noise[:LOWEST])), ladder.epsilon * abs(ladder.centre))
    return bool(abs(distance) > floor and np.max(np.abs(low - distance)) <= 0.1 * abs(distance))


def usable_levels(ladder: Ladder) -> np.ndarray:
    """Levels whose values tell of a slope: not those on which a quantised f has not changed yet.

    An f that is computed to few digits is constant on a short interval about x, and its slope there is nothing but
    noise. A wide interval is believed, and so is one that ends on one side alone, as that of max(x, 0) does.
    """
    change = np.stack([ladder.plus, ladder.minus]) - ladder.centre
    moved = np.where(np.isfinite(change), change != 0, False)
    everywhere = np.ones(len(ladder.exponents), bool)
    if not moved.any(axis=1).all():
        return everywhere
    first = np.argmax(moved, axis=1)
    start, end = int(np.min(first)), int(np.max(first))
    quantum = np.max(np.abs(change[[0, 1], first]))
    width = 2.0 ** ladder.exponents[start]
    wide = width >= 1e-2 * max(abs(ladder.x), 1e-2)
    if start == 0 or end - start > 6 or wide or quantum < 50 * ladder.epsilon * abs(ladder.centre):
        return everywhere
    return np.arange(len(everywhere)) >= start + 2
