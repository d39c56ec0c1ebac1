"""Distances at which a function begins to look noisy, and whether it jumps there."""

import numpy as np

from research.derivatives.finite_differences.ladder import WINDOW, Ladder
from research.derivatives.finite_differences.noise import rounding, windows_noise
from research.derivatives.finite_differences.sampling import Sampler

# Noise above _APPEARS usual rounding errors in all larger windows, or above _SUDDEN
# nominal rounding errors in one, is not rounding.
_APPEARS = 3.0
_SUDDEN = 30.0
_POINTS = 33  # Number of points of one look at a break.
_LOOKS = 3  # Number of looks; each is sixteen times as close as the one before.
_SHRINKS = 8.0  # At a kink, the looks shrink the break by more than this factor.


def quiet_part(ladder: Ladder) -> tuple[Ladder, np.ndarray, int] | None:
    """Return the levels below the first window that shows noise beyond rounding errors.

    A ladder has values of f at many distances from x, which are its levels, and in
    windows. A window is a group of points near a distance. The rounding errors of some
    functions, such as those with matrix products, are a few times larger than
    `rounding`. So noise that is only a few times larger counts if all larger windows
    show it too.

    Returns:
      (ladder of these levels, rounding error at each of them, index of the window). The
      result is None if the first window shows such noise, or if no window shows it.
    """
    share = windows_noise(ladder) / rounding(ladder)[ladder.places]
    before = np.maximum.accumulate(np.append(1.0, share[:-1]))
    stays = np.minimum.accumulate(share[::-1])[::-1] > _APPEARS * before
    loud = np.flatnonzero(stays | (share > _SUDDEN))
    if not len(loud) or not loud[0]:
        return None
    window = int(loud[0])
    end, count = int(ladder.places[window]), window
    quiet = ladder._replace(
        exponents=ladder.exponents[:end],
        plus=ladder.plus[:end],
        minus=ladder.minus[:end],
        places=ladder.places[:count],
        windows=ladder.windows[:count],
    )
    return quiet, before[window] * rounding(quiet), window


def is_continuous(ladder: Ladder, sampler: Sampler, window: int) -> bool:
    """Return whether f bends, but does not jump, where the noise of a window appears.

    A window is a group of points near a distance from x. The sampler evaluates f around
    this window, and then again and again at closer points around the place where the
    slope changes most. At a jump, the change of f between neighbouring points stays the
    same. At a kink, it shrinks with the distance of the points. This distinguishes a
    function that interpolates a table with straight lines from a function that is
    rounded.
    """
    side = -1.0 if window % 2 else 1.0
    step = ladder.steps[ladder.places[window]]
    low, high = step / 16, step * 2 * WINDOW[-1]
    sizes = []
    for _ in range(_LOOKS + 1):
        points = np.linspace(low, high, _POINTS)
        bends = np.abs(np.diff(sampler(ladder.x + side * points), 2))
        bends = np.where(np.isfinite(bends), bends, 0.0)
        sizes.append(float(np.max(bends)))
        at = int(np.argmax(bends)) + 1
        low, high = points[at - 1], points[at + 1]
    return sizes[-1] * _SHRINKS < sizes[0]
