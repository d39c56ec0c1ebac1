"""Values of a function around a point, at distances that are doubled each time.

Windows of equally spaced points between these distances show the noise.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from research.derivatives.finite_differences.sampling import Sampler

LOWEST = 10  # Number of the smallest steps at which jumps are searched.
APART = 4  # Number of doublings from one window to the next.
# Eight equally spaced distances. None of them is a power of two.
WINDOW = 0.8172649105735923 * (1 + np.arange(8) / 8)


class Ladder(NamedTuple):
    """Values of f around x, at power-of-two distances and in windows between them.

    A level is one of the distances, and a window is a group of eight equally spaced
    points near a level.

    Attributes:
      x, centre: The point x, and f(x).
      exponents: log2 of the distances, ascending, shape (levels,). Most neighbouring
        exponents differ by 1.
      plus, minus: Values of f at x + 2^exponent and at x - 2^exponent, shape (levels,).
        They are nan where f is not defined.
      places: Index of the level of each window, shape (windows,). The windows lie
        alternately to the right and to the left of x.
      windows: Values of f at eight points in each window, shape (windows, 8). The
        points are about x + s WINDOW. Here s is plus or minus the distance of the
        level, and WINDOW contains eight equally spaced numbers from 0.82 to 1.53.
      evaluations: Number of points where f was evaluated.
      epsilon: Relative spacing of the floats that f returns.
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
        """Distances from x, shape (levels,)."""
        return np.ldexp(1.0, self.exponents)

    @property
    def changes(self) -> np.ndarray:
        """Changes f - f(x) to the left and to the right of x, shape (2, levels)."""
        return np.stack([self.minus, self.plus]) - self.centre


def exponents(x: float) -> np.ndarray:
    """Return log2 of the distances from x at which `finite_difference` evaluates f.

    Usually each distance is twice the previous one. The smallest is about four spacings
    of the floats at x, and the largest is about eight times the larger of |x| and 1.

    If x is close to 0, f may vary over distances of about |x| or of about 1. There are
    then two ranges of distances, with a gap between them:

    - If |x| is at least 2^-1015 and below 2^-60, the first range begins as usual and
      ends at about 8 |x|. The second goes from 2^-56 to 8.
    - If |x| is below 2^-1015, the first range has thirty distances from 2^-1020, each
      of them 2^32 times the previous one. The second goes from 2^-56 to 8.
    """
    small, large = -56, 3
    if abs(x) < 2.0**-1015:  # There are no floats for steps smaller than x.
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
    """Count the consecutive exponents from each level upwards, shape (levels,).

    `powers` contains the exponents, ascending, shape (levels,). A level is an index of
    `powers`. Exponents are consecutive if each exponent is larger by 1 than the
    exponent before it. The count at a level begins with the exponent of this level. For
    example, the counts for the exponents 1, 2, 3, 7 are 3, 2, 1, 1.
    """
    return runs(np.append(np.diff(powers) == 1, False)) + 1


def runs(flags: np.ndarray) -> np.ndarray:
    """Return the length of the run of True that starts at each flag.

    `flags` is a boolean array, and the runs are along its last axis. The length is 0 at
    a flag that is False. The result has the shape of `flags`.
    """
    index = np.arange(flags.shape[-1])
    # The minimum from the right is the index of the next flag that is not set.
    ends = np.where(flags, flags.shape[-1], index)
    return np.minimum.accumulate(ends[..., ::-1], axis=-1)[..., ::-1] - index


def _within(x: float, steps: np.ndarray) -> np.ndarray:
    """Return the points of the windows, about x + step WINDOW, shape (steps, 8).

    The points are multiples of a spacing of floats, so they are exactly equally spaced.
    Otherwise the rounding error of x + step would look like noise of f. The last digits
    of the points are not 0, so f has its usual rounding errors there. For example, x² -
    1 is exact at 1 ± 2^k, but it has rounding errors at these points.
    """
    largest = np.minimum(abs(x) + 2 * np.abs(steps), np.finfo(np.float64).max)
    grid = np.spacing(largest)
    first = np.rint((x + steps * WINDOW[0]) / grid) * grid
    apart = np.rint(steps * (WINDOW[1] - WINDOW[0]) / grid) * grid
    return first[:, None] + apart[:, None] * np.arange(len(WINDOW))


def climb(f: Callable[[Any], Any], x: float) -> Ladder:
    """Evaluate f around x, and return its values as a `Ladder`.

    The values of f are those at x, at many distances 2^k on both sides of x, and in
    windows of eight points near some of these distances.
    """
    return climbed(Sampler(f), x)


def climbed(sampler: Sampler, x: float) -> Ladder:
    """Return a `Ladder`: values of a function f around x, at many distances from x.

    `sampler` evaluates f at an array of points.
    """
    powers = exponents(x)
    with np.errstate(all="ignore"):
        values = sampler(nodes(x, powers))
    return from_values(x, powers, values, sampler.epsilon, sampler.evaluations)


def nodes(x: float, powers: np.ndarray) -> np.ndarray:
    """Return x and the points around x at which `finite_difference` evaluates f.

    The result is one array. The order of the points is:

    - the point x
    - the points x + 2^powers
    - the points x - 2^powers
    - the points of the windows

    A window is a group of eight equally spaced points. Every fourth of the distances
    2^powers has one window near it. The windows lie alternately to the right and to the
    left of x.

    Args:
      x: Point at the centre.
      powers: log2 of the distances from x, ascending, shape (levels,).
        `finite_difference` uses exponents(x).
    """
    places, distances = _places(powers), np.ldexp(1.0, powers)
    sides = np.where(np.arange(len(places)) % 2, -1.0, 1.0) * distances[places]
    return np.concatenate(
        [[x], x + distances, x - distances, _within(x, sides).ravel()]
    )


def from_values(
    x: float,
    powers: np.ndarray,
    values: np.ndarray,
    epsilon: float,
    evaluations: int = 0,
) -> Ladder:
    """Return the `Ladder` with the given values of f.

    A ladder has the values of f at x, at the distances 2^powers on both sides of x, and
    in windows of eight points near some of these distances.

    Args:
      x: Point at the centre of the ladder.
      powers: log2 of the distances from x, ascending, shape (levels,).
      values: Values of f at the points nodes(x, powers), in this order.
      epsilon: Relative spacing of the floats that f returns.
      evaluations: Number of points where f was evaluated. The `Ladder` stores this
        number.
    """
    levels, places = len(powers), _places(powers)
    finite = np.where(np.isfinite(values), values, np.nan)
    return Ladder(
        x,
        float(values[0]),
        powers,
        finite[1 : levels + 1],
        finite[levels + 1 : 2 * levels + 1],
        places,
        finite[2 * levels + 1 :].reshape(len(places), len(WINDOW)),
        evaluations,
        epsilon,
    )


def window_points(ladder: Ladder) -> np.ndarray:
    """Return the points of the windows, shape (windows, 8).

    f is evaluated at x ± h for many steps h. Some of the steps h have a window, a group
    of eight equally spaced points. These are at distances from about 0.82 h to 1.53 h
    from x, all on one side.
    """
    sides = np.where(np.arange(len(ladder.places)) % 2, -1.0, 1.0)
    return _within(ladder.x, sides * ladder.steps[ladder.places])


def _places(powers: np.ndarray) -> np.ndarray:
    """Return the indices of the levels that have a window."""
    first = int(np.argmax(reach(powers) >= APART)) + 3
    return np.arange(first, len(powers) - 1, APART)
