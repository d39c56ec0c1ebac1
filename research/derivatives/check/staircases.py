"""Recognition of low precision inside a function that cannot be traced."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

_POINTS = 8  # Number of points of a window.
# Dtypes, and distances of the points in units of ε. The argument of a root, for
# example, may change by less than a spacing if x changes by one.
_WINDOWS = (
    *((np.float32, 1), (np.float32, 8)),
    *((np.float16, 1), (np.float16, 8), (jnp.bfloat16, 1)),
)
_PAIR = 2.0**-12  # Distance of the points of a pair, in units of that distance.
_SHARE = 1e-3  # Share of the changes that the slopes must leave unexplained.
_SPREADS = 2.0  # The unexplained part must also exceed so many spreads of slopes.
# So many intervals must have an unexplained part, of at least this share of the largest
# one. A jump or a kink is in one interval.
_INTERVALS, _PART = 3, 0.1
_OUTLIER = 10.0  # A slope so many spreads from the others is that of a jump.


def precision_of_steps(along: Callable[[float], np.ndarray]) -> np.dtype:
    """Return the precision to which a function rounds its argument or its results.

    A function that computes in float32 in places and in float64 in others, such as
    `float(loss32(w)) + 0.01 * np.sum(w**2)`, returns values that only float64 can
    represent. But its part in float32 is constant over distances far below the spacing
    of float32. So the slopes between very close points show only the other part, and do
    not explain how f changes over a few spacings.

    For each dtype, f is evaluated at eight points, and again at a distance of 2^-12 d
    from each of them. Here d, the distance of neighbouring points, is ε, the relative
    spacing of the dtype; for float32 and float16, there is a second window with d = 8
    ε. The second
    points give slopes. Let M_j be the change of f from one point to the next, minus the
    integral of the slopes, and M the sum of all M_j. f rounds to this dtype under three
    conditions: |M| is between 0.1 % and 200 % of the sum of the changes; it exceeds
    twice the spread of the slopes times the whole distance; and at least three M_j
    exceed a tenth of the largest. For a smooth f, M is about 0. If f has noise in
    float64, or if it oscillates, the slopes spread, or their integral is larger than
    the changes. A jump or a kink belongs to one M_j.

    A function whose slopes are all exactly 0 at the distances of float16 or bfloat16
    may also have steps, such as those of floor. Then these two dtypes are left out.

    Args:
      along: Function t -> values, shape (outputs,), of f at x moved by the fraction t
        in some direction.
    Returns:
      float32; or bfloat16 if f rounds to float16 or bfloat16, which cannot be
      distinguished; or float64 if f seems to round to none of them.
    """
    for dtype, factor in _WINDOWS:
        distance = factor * float(jnp.finfo(dtype).eps)
        points = distance * (np.arange(_POINTS) - _POINTS / 2)
        pair = _PAIR * distance
        values = np.stack([along(t) for t in points])
        beside = np.stack([along(t + pair) for t in points])
        slopes = _without_jumps(values, (beside - values) / pair, pair)
        if dtype != np.float32 and not slopes.any():
            continue
        if unexplained(values, slopes, distance).any():
            return np.dtype(np.float32 if dtype == np.float32 else jnp.bfloat16)
    return np.dtype(np.float64)


def unexplained(
    values: Float[np.ndarray, "points outputs"],
    slopes: Float[np.ndarray, "points outputs"],
    distance: float,
) -> Float[np.ndarray, "outputs"]:
    """Return whether slopes do not explain how each output changes.

    Args:
      values, slopes: Values and slopes at equally spaced points.
      distance: Distance of neighbouring points.
    """
    with np.errstate(all="ignore"):
        changes = np.diff(values, axis=0)
        parts = changes - distance * (slopes[1:] + slopes[:-1]) / 2
        spread = _spread(values, slopes, _PAIR * distance)
        whole = np.sum(np.abs(changes), axis=0)
        least = _SPREADS * spread * distance * len(changes) + _SHARE * whole
        large = np.abs(parts) > _PART * np.max(np.abs(parts), axis=0)
        several = np.sum(large, axis=0) >= _INTERVALS
        missing = np.abs(np.sum(parts, axis=0))
        return several & (missing > least) & (missing < 2 * whole)


def _spread(values: np.ndarray, slopes: np.ndarray, pair: float) -> np.ndarray:
    """Return the median distance of the slopes from their median, or their rounding."""
    spread = np.median(np.abs(slopes - np.median(slopes, axis=0)), axis=0)
    rounding = np.finfo(np.float64).eps * np.max(np.abs(values), axis=0)
    return np.maximum(spread, rounding / pair)


def _without_jumps(values: np.ndarray, slopes: np.ndarray, pair: float) -> np.ndarray:
    """Return the slopes, with the median in place of outliers.

    The two points of a pair may lie on different sides of a jump.
    """
    with np.errstate(all="ignore"):
        usual = np.median(slopes, axis=0)
        away = np.abs(slopes - usual) > _OUTLIER * _spread(values, slopes, pair)
        return np.where(away, usual, slopes)
