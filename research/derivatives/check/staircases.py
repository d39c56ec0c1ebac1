"""Recognition of float32 inside a function that cannot be traced."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

_POINTS = 8  # Number of points at a distance d from their neighbours.
# Distances of the points, in units of ε. An intermediate result may change by far less
# than a spacing if x changes by one.
_DISTANCES = (1, 8, 64)
_COARSE = 16 * float(np.finfo(np.float32).eps)  # True steps of f may be this far apart.
# Distances of the points of a pair, in units of these distances. The larger ones are
# divided by the number of entries, because the float32 of each entry jumps by itself.
_CLOSE, _APART = 2.0**-12, (2.0**-6, 2.0**-8)
_ALIKE = 0.2  # Largest relative difference of M from close and from farther pairs.
_SHARE = 1e-3  # Share of the changes that the slopes must leave unexplained.
_SPREADS = 2.0  # The unexplained part must also exceed so many spreads of slopes,
_OF_VALUE = 2.0**-34  # and this share of f. Less is the noise of a formula in float64.
# So many intervals must have an unexplained part, of at least this share of the largest
# one. A jump or a kink is in one interval.
_INTERVALS, _PART = 3, 0.1
_OUTLIER = 10.0  # A slope so many spreads from the others is that of a jump.
_OUTPUTS = 0.5  # Share of the outputs that must look rounded.


def is_rounded_to_float32(
    along: Callable[[float], Float[np.ndarray, "outputs"]], entries: int
) -> bool:
    """Return whether a function rounds its argument or its results to float32.

    A function that computes in float32 in places and in float64 in others, such as
    `float(loss32(w)) + 0.01 * np.sum(w**2)`, returns values that only float64 can
    represent. But its part in float32 is constant over distances far below the spacing
    of float32. So the slopes between very close points show only the other part, and do
    not explain how f changes over a few spacings.

    f is evaluated at eight points, and again at a second point close to each of them.
    The distances d = ε, 8 ε and 64 ε of neighbouring points are tried in turn, where ε
    is the relative spacing of float32. Each pair of close points has the distance 2^-12
    d and gives a slope. Let M_j be the change of an output from one of the eight points
    to the next, minus the change that the integral of the slopes predicts. Let M be the
    sum of all M_j, and let W be the sum of the absolute changes. The output looks
    rounded under five conditions:

    - |M| is larger than the sum of three numbers: 0.1 % of W, twice the spread of the
      slopes times the whole distance, and 2^-34 times the largest absolute value.
    - |M| is smaller than 2 W.
    - At least three |M_j| are larger than a tenth of the largest.
    - At least one slope is not 0, or d is ε or 8 ε.
    - All this also holds if the two points of each pair have another distance, and M
      then differs by at most a fifth. Two such distances are tried, and one is enough:
      2^-6 d and 2^-8 d, divided by the number of entries of x, but at least 2^-12 d.

    For a smooth f, M is about 0. Noise of f in float64, or an oscillation of f,
    violates one of these conditions: the slopes have a large spread, or their integral
    is larger than the changes, or M depends on the distance between the two points of a
    pair. A jump or a kink of f makes only one M_j large. The result is True if at least
    half of the outputs look rounded for the same d.

    Args:
      along: Function (t) -> values of f at x moved by the fraction t in some direction.
      entries: Number of entries of x.
    """
    for factor in _DISTANCES:
        distance = factor * float(np.finfo(np.float32).eps)
        close = _unexplained(along, distance, _CLOSE)
        for apart in _APART if _are_most(close != 0) else ():
            other = _unexplained(along, distance, max(_CLOSE, apart / entries))
            differs = np.abs(close - other) > _ALIKE * np.abs(close)
            if _are_most((close != 0) & ~differs):
                return True
    return False


def _are_most(flags: np.ndarray) -> bool:
    return bool(len(flags)) and bool(np.mean(flags) >= _OUTPUTS)


def _unexplained(
    along: Callable[[float], np.ndarray], distance: float, pair: float
) -> Float[np.ndarray, "outputs"]:
    """Return M for each output, or 0 where a condition on M does not hold."""
    points = distance * (np.arange(_POINTS) - _POINTS / 2)
    # Both points of a pair one after the other, because f may have a state.
    sampled = [(along(t), along(t + pair * distance)) for t in points]
    values = np.stack([value for value, _ in sampled])
    with np.errstate(all="ignore"):
        slopes = np.stack([beside - value for value, beside in sampled])
        slopes = _without_jumps(values, slopes / (pair * distance), pair * distance)
        changes = np.diff(values, axis=0)
        parts = changes - distance * (slopes[1:] + slopes[:-1]) / 2
        spread = _spread(values, slopes, pair * distance)
        whole = np.sum(np.abs(changes), axis=0)
        least = _SPREADS * spread * distance * len(changes) + _SHARE * whole
        least += _OF_VALUE * np.max(np.abs(values), axis=0)
        large = np.abs(parts) > _PART * np.max(np.abs(parts), axis=0)
        several = np.sum(large, axis=0) >= _INTERVALS
        missing = np.sum(parts, axis=0)
        shown = (np.abs(missing) > least) & (np.abs(missing) < 2 * whole)
    shown &= slopes.any(axis=0) | (distance < _COARSE)
    return np.where(several & shown, missing, 0.0)


def _spread(values: np.ndarray, slopes: np.ndarray, distance: float) -> np.ndarray:
    """Return the spread of slopes, but at least the rounding error of a slope.

    The spread is the median distance of the slopes from their median.
    """
    spread = np.median(np.abs(slopes - np.median(slopes, axis=0)), axis=0)
    rounding = np.finfo(np.float64).eps * np.max(np.abs(values), axis=0)
    return np.maximum(spread, rounding / distance)


def _without_jumps(
    values: np.ndarray, slopes: np.ndarray, distance: float
) -> np.ndarray:
    """Return the slopes, with the median in place of outliers.

    The two points of a pair may lie on different sides of a jump.
    """
    usual = np.median(slopes, axis=0)
    away = np.abs(slopes - usual) > _OUTLIER * _spread(values, slopes, distance)
    return np.where(away, usual, slopes)
