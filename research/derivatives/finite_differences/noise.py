"""Bounds on the error of function values, by rounding errors and by samples."""

import functools
from math import comb

import numpy as np

from research.derivatives.finite_differences.ladder import APART, Ladder
from research.derivatives.finite_differences.sampling import Sampler

_ORDERS = 6  # Highest order of the differences in a window.
# Size of the differences of order 1, 2, ... of independent noise of size 1.
_NORMS = np.array([np.sqrt(comb(2 * m, m)) for m in range(1, _ORDERS + 1)])
_SUDDEN = 30.0  # Noise up to this many rounding errors may be rounding errors.
# Growth of smooth differences of order 2 to 4 from one window to the next.
_GROWTH = np.array([16.0**m for m in range(2, 5)])
_HOMOGENEOUS = 1 / 16  # Below this fraction of |x|, noise is the same at all distances.
_WIDE = 0.2  # f that is constant up to this fraction of max(|x|, 1) counts as constant.
_FLAT = 1e-6  # A staircase with a smaller mean slope is a rounded function.
_TELLING = 3  # If this many windows show noise, they are assumed to show all of it.
_JUMPS = 0.25  # Evaluated at closer points, a jump keeps more than this share.
_SILENT = 2  # Number of windows in a row that may miss the noise by chance.
_GAP = 2  # Windows with noise that are further apart do not belong together.
# Windows show that noise grows with the distance if their distances differ by a factor
# of 2^_SPAN, and if the root mean square deviation of log2(noise / distance) is at most
# _ALIKE, and at most _CLOSE more than that of log2(noise).
_SPAN, _ALIKE, _CLOSE = 0.5, 2.0, 0.5
_NONE = 5e-324  # Smallest positive number, for noise that is 0.


def noise_bounds(ladder: Ladder, sampler: Sampler | None = None) -> np.ndarray:
    """Return a bound on the error of f at each distance from x, shape (levels,).

    A level is one of the distances. A window is a group of eight equally spaced points
    near one level. The noise of f is an error of its values, such as a rounding error.
    The bound is the largest of three parts:

    - Rounding error: R = ε (|f| + |x f'|) / 2, because f rounds its value and the
      intermediate results that it computes from x. Here ε is the relative spacing of
      the floats that f returns. The windows may correct R, as described below.
    - Noise in the windows: the noise of a window counts if it is above 30 R and one of
      two conditions holds: one of the next three windows also shows noise, or fewer
      than two windows follow. (Two windows between noisy ones may look smooth by
      chance.) It counts at the distance of the window, at the three next smaller
      distances and at all larger ones. (A kink or a jump of f affects only one window.)
      Noise is recognised from the fifth and sixth differences of the values in a
      window. Each difference is divided by the size that it would have for noise of
      size 1. For a smooth function, the sixth differences are then far smaller than the
      fifth differences. For noise, both have about the same size.
    - Quantum, if f is constant around x and then jumps: the change f - f(x) at the
      smallest distance where the change is not 0. This change may be the sum of several
      jumps. The sampler evaluates f at more points to distinguish a jump from a kink,
      such as that of max(x, 0). If f is constant up to the distance max(|x|, 1) / 5, it
      counts as constant, and this part is the rounding error of its largest value. But
      if f has at least three nearly equal jumps beyond this distance and a mean slope
      below 1e-6, this part is the smallest jump. Without a sampler this part is left
      out.

    The windows correct R in two ways. First, R may be too small. If the noise of some
    windows is above R, but not above about 30 R, R is multiplied by the largest ratio
    of their noise to R. Second, R may be too large. For example, (x - 1) g(x) does not
    have a noise of ε |x f'| / 2 at x = 1, because x - 1 has no rounding error there. So
    if at least three windows show noise, and this noise is smaller than R, the noise of
    the windows is used instead of R, but at least ε |f| / 2.

    If the noise of a window, divided by R, is more than 900 times that of all windows
    at smaller distances, it is an oscillation of f (`appears`). Then it counts at this
    distance and at all larger ones, and does not correct R.

    In three cases, the noise is assumed to be larger than the windows show:

    - The noise appears suddenly: the window before shows neither noise nor much
      curvature. Then f is quantised (by cancellation or by a conversion to single
      precision), and only looks smooth at smaller distances. The noise at the smaller
      distances is assumed to be as large as at this distance.
    - The noise falls fast towards larger distances while |f| does not fall. Then it
      comes from a cancellation near x, and is assumed to rise further towards x.
    - The noise grows in proportion to the distance, as that of t - sin(t) near 0
      (`_rising`). Then it is assumed to grow further at large distances, where the
      curvature of f hides it from the windows.

    Args:
      ladder: Values of f around x, and in the windows.
      sampler: Evaluator of f, or None.
    """
    seen = _seen(ladder, rounding(ladder))
    return seen if sampler is None else np.maximum(seen, _quantum(ladder, sampler))


def rounding(ladder: Ladder) -> np.ndarray:
    """Return the rounding error ε (|f| + |x f'|) / 2 of f, shape (levels,).

    A ladder has values of f at many distances from x. Each of these distances is called
    a level. The result has one value for each level. ε is the relative spacing of the
    floats that f returns. |f| and |f'| are the largest absolute values up to the
    distance of the level, and f' is estimated from neighbouring points.

    The first term, ε |f| / 2, is due to the rounding of the value of f. The second term
    is due to the rounding of the intermediate results that f computes from x. It is the
    change of f if x changes by its own rounding error, ε |x| / 2.
    """
    # Slopes between neighbours ignore a jump of f at x.
    rises = np.abs(np.diff(np.stack([ladder.minus, ladder.plus]), axis=1)) / np.diff(
        ladder.steps
    )
    slope = _outward(np.append(np.fmax(*rises), 0.0))
    # If f rounds x, it is constant at the smallest distances, but its slope is not 0.
    first = int(np.argmax(slope > 0))
    slope[:first] = slope[first]
    return np.maximum(
        ladder.epsilon / 2 * (_size(ladder) + abs(ladder.x) * slope), _NONE
    )


def _size(ladder: Ladder) -> np.ndarray:
    """Return the largest |f| up to each distance, shape (levels,)."""
    beside = np.fmax(np.abs(ladder.plus), np.abs(ladder.minus))
    return _outward(np.fmax(beside, abs(ladder.centre)))


def windows_noise(ladder: Ladder) -> np.ndarray:
    """Return the noise of f that each window shows, shape (windows,).

    `ladder` has the values of f at points around a point x. A window is a group of
    eight equally spaced points on one side of x. The noise is an error of the values of
    f. To estimate it, the fifth and the sixth differences of the values in the window
    are divided by the size that they would have for noise of size 1. Let D5 and D6 be
    the root mean squares of the results. For noise, both are about as large as the
    noise. For a smooth function, D6 is far smaller than D5. So the result is
    2 max(D5, D6) if D6 > D5 / 4. Otherwise the window shows no noise, and the result is
    0.
    """
    return _windows(ladder.windows)[0]


def largest_noise(ladder: Ladder) -> np.ndarray:
    """Return an upper bound on the noise of f in each window, shape (windows,).

    A window is a group of eight equally spaced points near a distance from x. The bound
    is twice D6, the root mean square of the sixth differences in the window, divided by
    the size of these differences for noise of size 1. In contrast to the result of
    `windows_noise`, the bound also counts for a window in which f looks smooth. It is
    infinite where f is not defined.
    """
    return np.nan_to_num(2 * _difference_sizes(ladder.windows)[0][-1], nan=np.inf)


def appears(share: np.ndarray) -> np.ndarray:
    """Return, for each window, whether its noise is an oscillation of f.

    Otherwise it may consist of rounding errors.

    Rounding errors of x and of f have about the same size at all small distances. So
    noise is no rounding error if it is more than 900 times that of all windows at
    smaller distances, and at least two of these show noise. An example is
    (x - a)² + sin(x - a) near a = 10⁹: R is ε |x f'| / 2, but x - a has no rounding
    error.

    Args:
      share: Noise of each window divided by R, shape (windows,).
    Returns:
      Booleans, shape (windows,).
    """
    before = np.append(0, share[:-1])
    telling = np.cumsum(before > 0) >= 2
    return telling & (share > _SUDDEN**2 * np.maximum.accumulate(before))


def _outward(values: np.ndarray) -> np.ndarray:
    return np.fmax.accumulate(np.nan_to_num(values))


def _seen(ladder: Ladder, nominal: np.ndarray) -> np.ndarray:
    """Return the noise of f without the quantum, shape (levels,).

    The result is the larger of two parts of `noise_bounds`: the corrected rounding
    error, and the noise in the windows. `nominal` is the rounding error at each level.
    """
    noise, grown = _windows(ladder.windows)
    floor, factor = np.zeros(len(nominal)), 1.0
    oscillates = appears(noise / nominal[ladder.places])
    for j, k in enumerate(ladder.places):
        usual = nominal[k] * factor
        if noise[j] <= max(usual, floor[k]):
            continue
        if oscillates[j] and noise[j] <= _SUDDEN * usual:
            floor[k:] = np.maximum(floor[k:], noise[j])
            continue
        if noise[j] <= _SUDDEN * usual:
            factor = max(factor, noise[j] / nominal[k])
            if ladder.steps[k] < abs(ladder.x) * _HOMOGENEOUS:
                floor[:k] = np.maximum(floor[:k], noise[j])
            continue
        lowest = max(k - 3, 0)
        # Here the noise is only a little larger than in the windows before.
        if noise[j] <= _SUDDEN * floor[k]:
            floor[lowest:] = np.maximum(floor[lowest:], noise[j])
            continue
        # A kink or a jump of f affects one window, but not the following ones. Steps of
        # equal heights may look like a straight line in two windows.
        following = range(j + 1, min(j + _SILENT + 2, len(noise)))
        again = any(
            noise[i]
            > min(noise[j] / _SUDDEN, _SUDDEN * nominal[ladder.places[i]] * factor)
            for i in following
        )
        # An oscillation that is too fast for the window looks like noise. The window
        # below then has curvature, or noise of its own, as for x² sin(1 / x).
        grows = (
            j > 0 and noise[j - 1] > _SUDDEN * nominal[ladder.places[j - 1]] * factor
        )
        smooth = grows or (j > 0 and grown[j - 1] >= 0.15 * noise[j])
        if _fades(ladder, noise, nominal, j):
            # It grows towards x as much as it falls in the other direction.
            floor[: k + 1] = np.maximum(floor[: k + 1], noise[j] ** 2 / noise[j + 1])
        elif again and not smooth:
            floor[: k + 1] = np.maximum(floor[: k + 1], noise[j])
        if again or len(following) < 2:
            floor[lowest:] = np.maximum(floor[lowest:], noise[j])
    floor = np.maximum(floor, _rising(ladder, noise, nominal))
    return np.maximum(
        np.minimum(factor * nominal, _most(ladder, noise, nominal)), floor
    )


def _rising(ladder: Ladder, noise: np.ndarray, nominal: np.ndarray) -> np.ndarray:
    """Return the noise that grows with the distance from x, shape (levels,).

    The terms of t - sin(t) have the size |t| and cancel near 0. At the distance h from
    x, their rounding errors are proportional to |x| + h. At larger h, the windows do
    not show these errors, because the curvature of f hides them. So the errors are
    predicted from the windows that show them. The result is 0 if the noise does not
    grow in this way, or if few windows show noise.

    Args:
      ladder: Samples of f.
      noise: Noise in each window, shape (windows,).
      nominal: Rounding error at each level, shape (levels,).
    """
    none = np.zeros(len(nominal))
    loud = np.flatnonzero(noise > _SUDDEN * nominal[ladder.places])
    if len(loud) < _TELLING:
        return none
    rows = np.split(loud, np.flatnonzero(np.diff(loud) > _GAP) + 1)
    row = max(rows, key=len)
    if len(row) < _TELLING:
        return none
    distance, places = abs(ladder.x) + ladder.steps, ladder.places[row]
    bits, size = np.log2(noise[row]), np.log2(distance[places])
    flat, rising = np.std(bits), np.std(bits - size)
    if np.ptp(size) < _SPAN or rising > min(flat + _CLOSE, _ALIKE):
        return none
    grown = 2.0 ** np.max((bits - size)[-_TELLING:]) * distance
    # Far from x, the terms do not cancel, and their rounding errors are those of f.
    if not grown[-1] <= _SUDDEN * nominal[-1]:
        return none
    grown[: places[0]] = 0.0
    return grown


def _fades(ladder: Ladder, noise: np.ndarray, nominal: np.ndarray, first: int) -> bool:
    """Return whether the noise falls fast towards larger distances, but |f| does not.

    Such noise comes from a cancellation near x, as in (1 - cos x) / x² at 1e-8. There
    the numerator is constant between two jumps, so f looks smooth near x. A smooth
    function that varies too fast for a window, such as 1 / x near 0, may look like
    noise, too. But only the fourth differences of noise change their sign within a
    window.

    Args:
      ladder: Samples of f.
      noise: Noise in each window, shape (windows,).
      nominal: Rounding error at each level, shape (levels,).
      first: Index of the first window with noise.
    """
    some = slice(first, first + 3)
    shown, size = noise[some], np.max(np.abs(ladder.windows[some]), axis=1)
    fourth = np.diff(ladder.windows[some], n=4, axis=1)
    return bool(
        len(shown) == 3
        and ((fourth > 0).any(axis=1) & (fourth < 0).any(axis=1)).all()
        and (shown > _SUDDEN * nominal[ladder.places[some]]).all()
        and (shown[1:] <= shown[:-1] / 4).all()
        and shown[2] <= shown[0] / 64
        and (size[1:] >= size[:-1] / 4).all()
    )


def _most(ladder: Ladder, noise: np.ndarray, nominal: np.ndarray) -> np.ndarray:
    """Return an upper bound on the noise at each level from windows, shape (levels,).

    A window shows the noise at its own level. It is assumed that the noise does not
    grow faster than |f| at higher levels, and does not shrink faster than |f| at lower
    levels. So the noise of a window is multiplied by the change of |f| from the window
    to a level, and the bound at the level is the largest result of all windows. Windows
    beyond the first one above the level count only if their noise may be rounding
    errors. The bound is infinite if few windows show noise. At a root of f, this bound
    distinguishes a noise of ε |f| from a noise of ε |x f'|. All windows are used,
    because those at small distances show too little noise if the rounding errors follow
    a pattern, like those of 1 - x² near 1.

    Args:
      ladder: Samples of f.
      noise: Noise in each window, shape (windows,). 0 for a window that shows no noise.
      nominal: Rounding error at each level, shape (levels,).
    """
    size, levels = _size(ladder), np.arange(len(ladder.exponents))
    telling = np.flatnonzero(noise > 0)
    if len(telling) < _TELLING:
        return np.full(len(levels), np.inf)
    places = ladder.places[telling, None]
    change = size / np.maximum(size[places], _NONE)
    counts = places <= levels + APART
    shown = np.where(counts, noise[telling, None] * np.maximum(change, 1.0), 0.0)
    usual = (noise <= _SUDDEN * nominal[ladder.places])[telling, None]
    hidden = np.where(
        ~counts & usual, noise[telling, None] * np.minimum(change, 1.0), 0.0
    )
    most = np.max(np.maximum(shown, hidden), axis=0)
    most = np.maximum(most, ladder.epsilon / 2 * size)
    return np.where(counts.any(axis=0), most, np.inf)


def _windows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise in each window, and the expected curvature in the next window.

    The method uses differences of equally spaced values. They are divided by the size
    that these differences have for noise of size 1.

    Returns:
      (noise, curvature), shape (windows,) each. The noise is 0 for a window that shows
      no noise.
    References:
      Moré and Wild, Estimating computational noise, SIAM J. Sci. Comput. 33 (2011),
      1292-1314, section 3.
    """
    sizes, largest = _difference_sizes(values)
    shows = (sizes[5] > sizes[4] / 4) & (sizes[5] > 0)
    noise = np.where(shows, 2 * np.maximum(sizes[4], sizes[5]), 0.0)
    smooth = [np.where(sizes[m] > 8 * sizes[5], largest[m], 0.0) for m in (1, 2, 3)]
    return np.nan_to_num(noise), np.max(
        np.nan_to_num(np.stack(smooth)) * _GROWTH[:, None], axis=0
    )


def _difference_sizes(values: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the sizes of the differences of order 1 to 6 in each window.

    Returns:
      (sizes, largest), with one array of shape (windows,) for each order. A size is the
      root mean square of the differences, divided by that for noise of size 1. A number
      of `largest` is the largest absolute difference. Squares do not overflow.
    """
    sizes, largest, differences = [], [], values
    for norm in _NORMS:
        differences = np.diff(differences, axis=1)
        top = np.max(np.abs(differences), axis=1)
        unit = np.where(top > 0, top, 1.0)
        largest.append(top)
        sizes.append(
            unit * np.sqrt(np.mean((differences / unit[:, None]) ** 2, axis=1)) / norm
        )
    return sizes, largest


def _quantum(ladder: Ladder, sampler: Sampler) -> float:
    """Return the first change of an f that is constant around x and then jumps.

    The result is 0 if f varies at the smallest distances. If f is constant over a wide
    interval, f counts as constant, and the result is the rounding error of its largest
    value, or the quantum of f if f looks rounded beyond this interval (`_stair`). If f
    is constant over a narrow interval, f may be quantised, or have a kink at the end of
    the interval, like max(x, 0). More values of f distinguish these two cases.
    """
    changes, steps = ladder.changes, ladder.steps
    moved = np.nan_to_num(changes) != 0
    if moved[:, :3].any() or not moved.any():
        return 0.0
    firsts = np.where(moved.any(axis=1), np.argmax(moved, axis=1), len(steps))
    if steps[firsts.min()] >= _WIDE * max(abs(ladder.x), 1.0):
        values = np.concatenate([ladder.plus, ladder.minus, [ladder.centre]])
        last_digits = ladder.epsilon / 2 * float(np.nanmax(np.abs(values)))
        return max(last_digits, _stair(ladder, sampler, firsts))
    for side, first in enumerate(firsts):
        if first > min(firsts.min() + 6, len(steps) - 1):
            continue
        quantum = abs(changes[side, first])
        rounding_errors = 8 * ladder.epsilon * abs(ladder.centre)
        if quantum <= rounding_errors:
            continue
        look = functools.partial(_first_change, ladder.x, 1 if side else -1, sampler)
        far, ends = look(float(steps[first - 1]), float(steps[first]))
        near, _ = look(*ends)
        if near > max(_JUMPS * far, rounding_errors):
            return float(quantum)
    return 0.0


def _first_change(
    x: float, way: int, sampler: Sampler, low: float, high: float
) -> tuple[float, tuple[float, float]]:
    """Return the first change of f between two distances from x, and its place.

    f is evaluated at 33 points. The change is the larger of two: over the first
    interval where f is not constant, and over the next interval. The place is the range
    of both intervals. Another call for this place gives a change that is sixteen times
    as small if f has a kink there. The change stays the same if f jumps there.
    """
    points = np.linspace(low, high, 33)
    moves = np.nan_to_num(np.abs(np.diff(sampler(x + way * points))))
    at = int(np.argmax(moves > 0))
    end = min(at + 2, len(moves))
    return float(np.max(moves[at:end])), (float(points[at]), float(points[end]))


def _stair(ladder: Ladder, sampler: Sampler, firsts: np.ndarray) -> float:
    """Return the quantum of f if f looks like a rounded function, otherwise 0.

    The quantum is the smallest jump. f looks rounded if it has at least three jumps up
    to the largest distance, all about equally large, and is constant between them.
    Values cannot distinguish a rounded function from a step function like floor(x). So
    f counts as rounded only if its mean slope is below 1e-6.

    Args:
      ladder: Samples of f.
      sampler: Evaluator of f.
      firsts: For each side, index of the first level at which f differs from f(x).
    """
    steps, jumps = ladder.steps, []
    for side, first in enumerate(firsts):
        if first == len(steps):
            continue
        way = np.linspace(steps[max(first - 1, 0)], steps[-1], 65)
        rises = np.abs(np.diff(sampler(ladder.x + (1 if side else -1) * way)))
        rising = rises > 0
        if not np.isfinite(rises).all() or (rising[1:] & rising[:-1]).any():
            return 0.0
        jumps += list(rises[rising])
    if len(jumps) < 3 or max(jumps) > 2.5 * min(jumps):
        return 0.0
    is_flat = sum(jumps) < _FLAT * 2 * steps[-1]
    return float(min(jumps)) if is_flat else 0.0
