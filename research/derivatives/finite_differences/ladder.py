"""Values of a function around a point: at distances that double, and in windows that show its noise."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from research.derivatives.finite_differences.sampling import Sampler

LOWEST = 10  # Steps, the smallest ones, at which jumps are looked for.
APART = 4  # Doublings between one window and the next.
WINDOW = 0.8172649105735923 * (
    1 + np.arange(8) / 8
)  # Eight equal steps, at no distance that is a power of two.


class Ladder(NamedTuple):
    """f around x, at distances that are powers of two, and in windows between them.

    Attributes:
      x, centre: The point and f there.
      exponents: log2 of the distances, ascending, shape (levels,); mostly they rise by 1.
      plus, minus: f at x + 2^exponent and x - 2^exponent, shape (levels,); nan where f is not defined.
      places: The levels that have a window, on the right and on the left in turns, shape (windows,).
      windows: f at about x ± 2^exponent WINDOW, shape (windows, 8).
      evaluations: Numbers at which f was evaluated.
      epsilon: Relative spacing of the type that f returns.
    """

    x: float
    centre: float
    exponents: np.ndarray
    plus: np.ndarray
    minus: np.ndarray
    places: np.ndarray
    windows: np.ndarray
    evaluations: int
    epsilon: float

    @property
    def steps(self) -> np.ndarray:
        """The distances, shape (levels,)."""
        return np.ldexp(1.0, self.exponents)

    @property
    def changes(self) -> np.ndarray:
        """f at each distance less f(x), on the left and on the right, shape (2, levels)."""
        return np.stack([self.minus, self.plus]) - self.centre


def exponents(x: float) -> np.ndarray:
    """Return log2 of the distances at which f is evaluated.

    From four spacings of the floats at x to eight times the larger of |x| and 1, in doublings. For x near 0 there are
    two such bands, about |x| and about 1, because either may be the scale of f; at 0 itself a few much smaller ones.
    """
    small, large = -56, 3
    if abs(x) < 2.0**-1015:  # So small that there is no room for steps below it.
        return np.concatenate(
            [np.arange(-1020, small - 32, 32), np.arange(small, large + 1)]
        )
    place = int(np.floor(np.log2(abs(x))))
    lowest = max(int(np.log2(math.ulp(x))) + 2, -1070)
    own = np.arange(lowest, min(place + large, 1020) + 1)
    if own[-1] >= large:
        return own
    return np.unique(
        np.concatenate([own, np.arange(max(small, place + large + 1), large + 1)])
    )


def reach(powers: np.ndarray) -> np.ndarray:
    """Return how many levels in a row, from each on, rise by 1, shape (levels,)."""
    return runs(np.append(np.diff(powers) == 1, False)) + 1


def runs(flags: np.ndarray) -> np.ndarray:
    """Return how many flags in a row are set, from each on along the last axis."""
    index = np.arange(flags.shape[-1])
    ends = np.where(
        flags, flags.shape[-1], index
    )  # The next flag that is not set, from the right.
    return np.minimum.accumulate(ends[..., ::-1], axis=-1)[..., ::-1] - index


def _within(x: float, steps: np.ndarray) -> np.ndarray:
    """Return the points of the windows, about x + step WINDOW, shape (steps, 8).

    They are multiples of a spacing of floats, so that they are equally spaced exactly.
    Else the rounding of x + step would look like noise of f.
    Their last digits are not 0, so that f rounds there as at most numbers:
    x² - 1 does not round at 1 ± 2^k, and does at these.
    """
    largest = np.minimum(abs(x) + 2 * np.abs(steps), np.finfo(np.float64).max)
    grid = np.spacing(largest)
    first = np.rint((x + steps * WINDOW[0]) / grid) * grid
    apart = np.rint(steps * (WINDOW[1] - WINDOW[0]) / grid) * grid
    return first[:, None] + apart[:, None] * np.arange(len(WINDOW))


def climb(f: Callable[[Any], Any], x: float) -> Ladder:
    """Evaluate f on the ladder about x."""
    return climbed(Sampler(f), x)


def climbed(sampler: Sampler, x: float) -> Ladder:
    """Evaluate a sampler's function on the ladder about x."""
    powers = exponents(x)
    levels = len(powers)
    first = int(np.argmax(reach(powers) >= APART)) + 3
    places = np.arange(first, levels - 1, APART)
    distances = np.ldexp(1.0, powers)
    sides = np.where(np.arange(len(places)) % 2, -1.0, 1.0) * distances[places]
    with np.errstate(all="ignore"):
        within = _within(x, sides)
        values = sampler(
            np.concatenate([[x], x + distances, x - distances, within.ravel()])
        )
    finite = np.where(np.isfinite(values), values, np.nan)
    return Ladder(
        x,
        float(values[0]),
        powers,
        finite[1 : levels + 1],
        finite[levels + 1 : 2 * levels + 1],
        places,
        finite[2 * levels + 1 :].reshape(len(places), len(WINDOW)),
        sampler.evaluations,
        sampler.epsilon,
    )
