"""The slope of a function along a line, from its values alone: with an honest error, and a word on kinks."""

from typing import NamedTuple

import numpy as np

LEVELS = 27  # Steps h = 1, 1/2, ..., 2^-26, in units of the direction.
STEPS = 2.0 ** -np.arange(LEVELS)
OFFSETS = np.concatenate(
    [-STEPS, [0.0], STEPS[::-1]]
)  # Where the line is sampled, ascending.
NUDGED = np.arange(0, LEVELS, 4)  # Levels at which rounding is measured.
NUDGED_OFFSETS = np.concatenate([-STEPS[NUDGED], STEPS[NUDGED][::-1]])
_DEPTH = 4  # Richardson's extrapolations.
_SEEN = 40  # Times the noise: a difference of one-sided slopes that is visible.
_FEW = 2  # Steps that hardly agree by chance, where noise is an eighth of what they tell apart.
_SAME = 8  # Times the noise: one that contradicts another.


class Slope(NamedTuple):
    """The slope at the middle of a line.

    Attributes:
      value: Extrapolated central difference; NaN where no step gave one.
      error: What it may be off by.
      noise: Of one value of the function at each of STEPS, shape (LEVELS,).
      jump: The slope to the right less the slope to the left where it does not shrink with the step: a kink. Else 0.
      left, right: One-sided slopes at the smallest step at which they can be told from noise.
      bends: The slope to the right less the slope to the left, at each of STEPS.
      unsure: What noise does to such a difference.
      central: Central differences at each of STEPS.
    """

    value: float
    error: float
    noise: np.ndarray
    jump: float
    left: float
    right: float
    bends: np.ndarray
    unsure: np.ndarray
    central: np.ndarray

    def times(self, factor: float) -> "Slope":
        """The slopes in a unit that is 1 / factor as long."""
        value, error, noise, jump, left, right, bends, unsure, central = self
        sides = (jump * factor, left * factor, right * factor)
        arrays = (bends * factor, unsure * factor, central * factor)
        return Slope(value * factor, error * factor, noise, *sides, *arrays)

    def agrees_with(self, rate: float, gap: float) -> bool:
        """Whether the smallest steps at which noise is well below a gap show a rate, to a quarter of it."""
        seen = np.flatnonzero(np.isfinite(self.central) & (_SAME * self.unsure < gap))[
            -_FEW:
        ]
        return len(seen) == _FEW and bool(
            (np.abs(self.central[seen] - rate) < gap / 4).all()
        )

    def contradicts(self, jump: float) -> bool:
        """Whether a step at which such a jump would be seen shows less than half of it."""
        return bool(
            (
                (_SAME * self.unsure < 0.25 * abs(jump))
                & (np.abs(self.bends) < 0.5 * abs(jump))
            ).any()
        )


def slope_at_middle(values: np.ndarray, rounding: float | np.ndarray) -> Slope:
    """The slope of a line sampled at OFFSETS.

    Central differences at halving steps are extrapolated by Richardson's table; the entry is taken whose distance from its
    neighbours, and from what noise of the values does at its steps, is the smallest.

    Args:
      values: f at OFFSETS, shape (2 LEVELS + 1,); those that are not finite are passed over.
      rounding: What rounding does to one value, at least: a number, or one for each of STEPS.
    Returns:
      Slope.
    """
    middle, right = values[LEVELS], values[LEVELS + 1 :][::-1]
    left = values[:LEVELS]
    with np.errstate(all="ignore"):
        central = (right - left) / (2 * STEPS)
        scatter = _scatter(central)
        noise = np.maximum(np.broadcast_to(rounding, STEPS.shape), scatter)
        value, error = _extrapolated(central, noise)
        change = spread(values)
        if change and scatter > max(1e-3 * change, 100 * float(np.min(rounding))):
            error = float(
                "inf"
            )  # It jumps, or it changes faster than the smallest step: its slope is not seen.
        forward, backward = (right - middle) / STEPS, (middle - left) / STEPS
        bends, unsure = forward - backward, noise / STEPS
        jump, level = _jump(bends, unsure)
    return Slope(
        value,
        error,
        noise,
        jump,
        float(backward[level]),
        float(forward[level]),
        bends,
        unsure,
        central,
    )


def noise_of_levels(
    nudged: np.ndarray, values: np.ndarray, floor: float, epsilon: float
) -> np.ndarray:
    """Return the rounding of one value at each of STEPS: as measured, and at least ε times the values there.

    Args:
      nudged: Its measured size at NUDGED_OFFSETS, shape (2 len(NUDGED),); NaN where there is none.
      values: f at OFFSETS.
      floor: At least.
      epsilon: Of the precision in which f is computed.
    Returns:
      One for each of STEPS, which no smaller step exceeds.
    """
    left, right = values[:LEVELS], values[LEVELS + 1 :][::-1]
    with np.errstate(all="ignore"):
        sizes = np.maximum(_finite(np.abs(left)), _finite(np.abs(right)))
        slopes = np.maximum(
            _finite(np.abs(np.diff(left))), _finite(np.abs(np.diff(right)))
        ) / -np.diff(STEPS)
        # x itself is rounded, by ε of its size, which is about a step of 1.
        least = np.maximum(epsilon / 2 * (sizes + np.append(slopes, 0.0)), floor)
        two = _finite(nudged).reshape(2, -1)
        measured = np.maximum(
            np.sqrt((two[0] ** 2 + two[1][::-1] ** 2) / 2), np.finfo(float).tiny
        )
    between = np.exp(np.interp(np.arange(LEVELS), NUDGED, np.log(measured)))
    return np.maximum.accumulate(np.maximum(least, between)[::-1])[::-1]


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, 0.0)


def remainder_slope(values: np.ndarray, derivative: float, noise: np.ndarray) -> float:
    """The power of h in |f(x + h v) - f(x) - h f'(x) v| at the smallest steps where it is no noise: 2 for a right derivative.

    A wrong one leaves a term in h itself, so that the power falls to 1.

    Returns:
      The power, or NaN where fewer than four steps show a remainder.
    """
    with np.errstate(all="ignore"):
        remainder = np.abs(
            values[LEVELS + 1 :][::-1] - values[LEVELS] - STEPS * derivative
        )
        seen = np.flatnonzero(np.isfinite(remainder) & (remainder > 20 * noise))
    if len(seen) < 4 or seen[-1] - seen[-4] != 3:
        return float("nan")
    last = seen[-1]
    return float(np.log2(remainder[last - 3] / remainder[last]) / 3)


def spread(values: np.ndarray) -> float:
    """Largest less smallest of the finite ones; 0 where there are none."""
    finite = values[np.isfinite(values)]
    return float(np.ptp(finite)) if len(finite) else 0.0


def _scatter(central: np.ndarray) -> float:
    """Noise of one value, from how quotients at the smallest steps scatter, where truncation no longer does."""
    scatter = np.abs(np.diff(central))[-8:] * STEPS[-8:]
    scatter = scatter[np.isfinite(scatter)]
    return float(np.median(scatter)) if len(scatter) else 0.0


def _extrapolated(central: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
    column, moved, best = central, noise / STEPS, (float("nan"), float("inf"))
    for j in range(1, _DEPTH + 1):
        longer = (4**j * column[1:] - column[:-1]) / (4**j - 1)
        moved = (4**j * moved[1:] + moved[:-1]) / (4**j - 1)  # By noise, at most.
        error = (
            _truncation(
                np.maximum(np.abs(longer - column[1:]), np.abs(longer - column[:-1])), j
            )
            + moved / 2
        )
        fine = np.isfinite(error) & _agrees_with_smaller_steps(
            longer, error, central, noise, j
        )
        error = np.where(fine, error, np.inf)
        k = int(np.argmin(error))
        if error[k] < best[1]:
            best = float(longer[k]), float(error[k])
        column = longer
    return best


def _truncation(distances: np.ndarray, j: int) -> np.ndarray:
    """Distances of entries from their neighbours, without the small ones that are chance.

    Truncation falls by 4^j from one step to the next and noise doubles: where a distance is smaller than both of these make
    of those beside it, columns only cross.
    """
    fallen = np.concatenate([[0.0], distances[:-1]]) / 4**j
    grown = np.append(distances[1:], 0.0) / 2
    return np.where(
        np.isnan(distances), np.inf, np.fmax(distances, np.fmax(fallen, grown))
    )


def _agrees_with_smaller_steps(
    longer: np.ndarray,
    error: np.ndarray,
    central: np.ndarray,
    noise: np.ndarray,
    j: int,
) -> np.ndarray:
    """Whether central differences at smaller steps come no further from an entry than the one at its own step.

    Where steps are longer than a wave of f, quotients are all small and seem to agree.
    """
    own = (2 * np.abs(central[j:] - longer) + 2 * error)[:, None]
    off = np.abs(central[None, :] - longer[:, None])
    smaller = np.arange(LEVELS)[None, :] > np.arange(j, LEVELS)[:, None]
    return np.logical_not((smaller & (off > own + 6 * noise / STEPS)).any(axis=1))


def _jump(differences: np.ndarray, unsure: np.ndarray) -> tuple[float, int]:
    """The kink's jump in slope, or 0; and the level of the smallest step at which it was looked for.

    Of a smooth function the difference J of one-sided slopes halves with the step, so that 2 J(h / 2) - J(h) vanishes; at
    a kink it is the jump, the same at many steps, and no smaller step contradicts it.
    """
    visible = np.isfinite(differences) & (np.abs(differences) > _SEEN * unsure)
    seen = np.flatnonzero(visible)
    if not len(seen) or seen[-1] < 5:
        return 0.0, min(LEVELS - 1, 13)
    k = int(seen[-1])
    if not visible[k - 4 : k].all():
        return 0.0, k
    without_curvature = 2 * differences[k - 3 : k + 1] - differences[k - 4 : k]
    jump = float(np.median(without_curvature))
    stays = np.ptp(without_curvature) < 0.3 * abs(jump) and abs(jump) > 0.5 * abs(
        differences[k]
    )
    beyond = slice(k + 1, None)
    agrees = ~(np.abs(differences[beyond] - jump) > _SAME * unsure[beyond])
    return (float(differences[k]), k) if stays and agrees.all() else (0.0, k)
