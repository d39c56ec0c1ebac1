"""The slope of a function along a line, from its values alone: with an honest error, and a word on kinks."""

from typing import NamedTuple

import numpy as np

LEVELS = 27  # Steps h = 1, 1/2, ..., 2^-26, in units of the direction.
STEPS = 2.0 ** -np.arange(LEVELS)
OFFSETS = np.concatenate([-STEPS, [0.0], STEPS[::-1]])  # Where the line is sampled, ascending.
_DEPTH = 4  # Richardson's extrapolations.


class Slope(NamedTuple):
    """The slope at the middle of a line.

    Attributes:
      value: Extrapolated central difference; NaN where no step gave one.
      error: What it may be off by.
      noise: Of one value of the function.
      jump: The slope to the right less the slope to the left where it does not shrink with the step: a kink. Else 0.
      left, right: One-sided slopes at the smallest step at which they can be told from noise.
    """

    value: float
    error: float
    noise: float
    jump: float
    left: float
    right: float


def slope_at_middle(values: np.ndarray, rounding: float) -> Slope:
    """The slope of a line sampled at OFFSETS.

    Central differences at halving steps are extrapolated by Richardson's table; the entry is taken whose distance from its
    neighbours, and from what noise of the values does at its step, is the smallest.

    Args:
      values: f at OFFSETS, shape (2 LEVELS + 1,); those that are not finite are passed over.
      rounding: What rounding does to one value, at least.
    Returns:
      Slope.
    """
    middle, right = values[LEVELS], values[LEVELS + 1 :][::-1]
    left = values[:LEVELS]
    with np.errstate(all="ignore"):
        central = (right - left) / (2 * STEPS)
        noise = max(rounding, _noise(central))
        value, error = _extrapolated(central, noise)
        change = spread(values)
        if change and noise > 1e-3 * change:
            error = float("inf")  # It jumps, or it changes faster than the smallest step: its slope is not seen.
        forward, backward = (right - middle) / STEPS, (middle - left) / STEPS
        jump, level = _jump(forward - backward, noise)
    return Slope(value, error, noise, jump, float(backward[level]), float(forward[level]))


def remainder_slope(values: np.ndarray, derivative: float, noise: float) -> float:
    """The power of h in |f(x + h v) - f(x) - h f'(x) v| at the smallest steps where it is no noise: 2 for a right derivative.

    A wrong one leaves a term in h itself, so that the power falls to 1.

    Returns:
      The power, or NaN where fewer than four steps show a remainder.
    """
    with np.errstate(all="ignore"):
        remainder = np.abs(values[LEVELS + 1 :][::-1] - values[LEVELS] - STEPS * derivative)
        seen = np.flatnonzero(np.isfinite(remainder) & (remainder > 20 * noise))
    if len(seen) < 4 or seen[-1] - seen[-4] != 3:
        return float("nan")
    last = seen[-1]
    return float(np.log2(remainder[last - 3] / remainder[last]) / 3)


def spread(values: np.ndarray) -> float:
    """Largest less smallest of the finite ones; 0 where there are none."""
    finite = values[np.isfinite(values)]
    return float(np.ptp(finite)) if len(finite) else 0.0


def _noise(central: np.ndarray) -> float:
    """Of one value, from how quotients at the smallest steps scatter, where truncation no longer does."""
    scatter = np.abs(np.diff(central))[-8:] * STEPS[-8:]
    scatter = scatter[np.isfinite(scatter)]
    return float(np.median(scatter)) if len(scatter) else 0.0


def _extrapolated(central: np.ndarray, noise: float) -> tuple[float, float]:
    column, best = central, (float("nan"), float("inf"))
    for j in range(1, _DEPTH + 1):
        longer = (4**j * column[1:] - column[:-1]) / (4**j - 1)
        error = np.maximum(np.abs(longer - column[1:]), np.abs(longer - column[:-1])) + 3 * noise / STEPS[j:]
        fine = np.isfinite(error) & _agrees_with_smaller_steps(longer, error, central, noise, j)
        error = np.where(fine, error, np.inf)
        k = int(np.argmin(error))
        if error[k] < best[1]:
            best = float(longer[k]), float(error[k])
        column = longer
    return best


def _agrees_with_smaller_steps(
    longer: np.ndarray, error: np.ndarray, central: np.ndarray, noise: float, j: int
) -> np.ndarray:
    """Whether central differences at smaller steps come no further from an entry than the one at its own step.

    Where steps are longer than a wave of f, quotients are all small and seem to agree.
    """
    fine = np.ones(len(longer), bool)
    for i, value in enumerate(longer):
        k = i + j
        off = np.abs(central[k + 1 :] - value)
        limit = 2 * abs(central[k] - value) + 2 * error[i] + 6 * noise / STEPS[k + 1 :]
        fine[i] = not (off > limit).any()
    return fine


def _jump(differences: np.ndarray, noise: float) -> tuple[float, int]:
    """The kink's jump in slope, or 0; and the level of the smallest step at which it was looked for.

    Of a smooth function the difference of one-sided slopes halves with the step; at a kink it stays.
    """
    limits = 20 * 4 * noise / STEPS
    seen = np.flatnonzero(np.isfinite(differences) & (np.abs(differences) > limits))
    if not len(seen) or seen[-1] < 4:
        return 0.0, min(LEVELS - 1, 13)
    k = int(seen[-1])
    here, wider = abs(differences[k]), abs(differences[k - 4])
    # A kink that is near x but not at it is gone at the next smaller step.
    stays = k == LEVELS - 1 or abs(differences[k + 1]) > 0.6 * here
    return (float(differences[k]), k) if stays and wider < 3 * here else (0.0, k)
