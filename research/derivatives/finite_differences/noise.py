"""How far a computed value of a function may be from the function: what rounding does, and what the values show."""

from math import comb

import numpy as np

from research.derivatives.finite_differences.ladder import APART, Ladder
from research.derivatives.finite_differences.sampling import Sampler

_ORDERS = 6  # Of the differences that are taken in a window.
_NORMS = np.array(
    [np.sqrt(comb(2 * m, m)) for m in range(1, _ORDERS + 1)]
)  # What each makes of noise of size 1.
_SUDDEN = 30.0  # Times the usual noise: noise that grows by less is the same noise.
_GROWTH = np.array(
    [16.0**m for m in range(2, 5)]
)  # Of differences of order 2 to 4, from one window to the next.
_HOMOGENEOUS = 1 / 16  # Of |x|: the noise of f is the same at all distances below.
_WIDE = 0.2  # Of max(|x|, 1): an f that is constant as far as that is believed to be constant.
_TELLING = 3  # So many windows that show noise are believed to show all of it.
_NONE = 5e-324


def noise_bounds(ladder: Ladder, sampler: Sampler) -> np.ndarray:
    """Return a bound on the error of a value of f at each distance of the ladder, shape (levels,).

    It is the largest of three.
    *Rounding*: ε (|f| + |x f'|) / 2, for f is rounded, and so is what it computes from x.
    Where the windows show less, it is that, and at least ε |f| / 2: at x = 1 the
    function (x - 1) g(x) has no noise of ε |x f'|, for x - 1 is exact.
    *Noise that the windows show*: in one, the sixth difference of a smooth function is far below the fifth, that of noise
    is not. Where noise sets in all at once, at a distance at which nothing below announces it, f is quantised (a
    cancellation, a conversion to single precision) and its noise is that also below, where f looks smooth and is not.
    *A quantum*: f is constant about x, and then jumps.
    """
    nominal = rounding(ladder)
    return np.maximum(_seen(ladder, nominal), _quantum(ladder, sampler))


def rounding(ladder: Ladder) -> np.ndarray:
    """Return ε (|f| + |x f'|) / 2 at each distance: f is rounded, and so is what it computes from x, shape (levels,)."""
    # Between neighbours, so that a jump of f at x is not taken for a slope.
    rises = np.abs(np.diff(np.stack([ladder.minus, ladder.plus]), axis=1)) / np.diff(
        ladder.steps
    )
    slope = _outward(np.append(np.fmax(*rises), 0.0))
    return np.maximum(
        ladder.epsilon / 2 * (_size(ladder) + abs(ladder.x) * slope), _NONE
    )


def _size(ladder: Ladder) -> np.ndarray:
    """The largest |f| at each distance or a smaller one, shape (levels,)."""
    beside = np.fmax(np.abs(ladder.plus), np.abs(ladder.minus))
    return _outward(np.fmax(beside, abs(ladder.centre)))


def _outward(values: np.ndarray) -> np.ndarray:
    return np.fmax.accumulate(np.nan_to_num(values))


def _seen(ladder: Ladder, nominal: np.ndarray) -> np.ndarray:
    """The noise at each level: the nominal one, or what the windows show."""
    noise, grown = _windows(ladder.windows)
    floor, factor = np.zeros(len(nominal)), 1.0
    for j, k in enumerate(ladder.places):
        usual = nominal[k] * factor
        if noise[j] <= max(usual, floor[k]):
            continue
        if noise[j] <= _SUDDEN * usual:
            factor = max(factor, noise[j] / nominal[k])
            if ladder.steps[k] < abs(ladder.x) * _HOMOGENEOUS:
                floor[:k] = np.maximum(floor[:k], noise[j])
            continue
        lowest = max(k - 3, 0)
        if (
            noise[j] <= _SUDDEN * floor[k]
        ):  # The noise of the windows before, a little larger.
            floor[lowest:] = np.maximum(floor[lowest:], noise[j])
            continue
        # A kink or a jump of f lies in one window, and leaves the next ones as they were.
        following = range(j + 1, min(j + 3, len(noise)))
        again = any(
            noise[i]
            > min(noise[j] / _SUDDEN, _SUDDEN * nominal[ladder.places[i]] * factor)
            for i in following
        )
        # An oscillation too fast for the window looks like noise; curvature announces it in the window below.
        grows = (
            j > 0 and noise[j - 1] > _SUDDEN * nominal[ladder.places[j - 1]] * factor
        )  # As that of x² sin(1 / x).
        if again and not grows and not (j > 0 and grown[j - 1] >= 0.15 * noise[j]):
            floor[: k + 1] = np.maximum(floor[: k + 1], noise[j])
        if again or len(following) < 2:
            floor[lowest:] = np.maximum(floor[lowest:], noise[j])
    return np.maximum(np.minimum(factor * nominal, _most(ladder, noise)), floor)


def _most(ladder: Ladder, noise: np.ndarray) -> np.ndarray:
    """What the windows show the noise to be at most at each level, shape (levels,).

    A window shows noise at its level. Below it the noise is no larger, and above it
    grows no faster than |f|. So a level has the largest that the windows below it and
    the next one above it show. Where few windows show noise, the answer is infinite.
    At a root this tells a noise of ε |f| from one of ε |x f'|.

    Args:
      ladder: Samples of f.
      noise: What each window shows, or 0, shape (windows,).
    """
    size, levels = _size(ladder), np.arange(len(ladder.exponents))
    telling = np.flatnonzero(noise > 0)
    if len(telling) < _TELLING:
        return np.full(len(levels), np.inf)
    places = ladder.places[telling, None]
    growth = np.maximum(size / np.maximum(size[places], _NONE), 1.0)
    counts = places <= levels + APART
    shown = np.where(counts, noise[telling, None] * growth, 0.0)
    most = np.maximum(np.max(shown, axis=0), ladder.epsilon / 2 * size)
    return np.where(counts.any(axis=0), most, np.inf)


def _windows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the noise that each window shows, or 0; how large its curvature would be in the next), shape (windows,) each.

    References:
      Moré and Wild, Estimating computational noise, SIAM J. Sci. Comput. 33 (2011), 1292-1314, section 3: differences of
      equally spaced values, in units of what they make of noise.
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
    shows = (sizes[5] > sizes[4] / 4) & (sizes[5] > 0)
    noise = np.where(shows, 2 * np.maximum(sizes[4], sizes[5]), 0.0)
    smooth = [np.where(sizes[m] > 8 * sizes[5], largest[m], 0.0) for m in (1, 2, 3)]
    return np.nan_to_num(noise), np.max(
        np.nan_to_num(np.stack(smooth)) * _GROWTH[:, None], axis=0
    )


def _quantum(ladder: Ladder, sampler: Sampler) -> float:
    """The smallest jump of an f that is constant about x and then jumps; 0 where it varies at the smallest distances.

    An f that is constant over a wide interval is taken at its word, to the rounding of its largest value. On a narrow
    one it may be quantised, or have a kink at the end of the interval (max(x, 0) has one); a look at more values tells.
    """
    changes, steps = ladder.changes, ladder.steps
    moved = np.nan_to_num(changes) != 0
    if moved[:, :3].any() or not moved.any():
        return 0.0
    firsts = np.where(moved.any(axis=1), np.argmax(moved, axis=1), len(steps))
    if steps[firsts.min()] >= _WIDE * max(abs(ladder.x), 1.0):
        values = np.concatenate([ladder.plus, ladder.minus, [ladder.centre]])
        return ladder.epsilon / 2 * float(np.nanmax(np.abs(values)))
    for side, first in enumerate(firsts):
        if first > min(firsts.min() + 6, len(steps) - 1):
            continue
        quantum = abs(changes[side, first])
        if quantum <= 8 * ladder.epsilon * abs(ladder.centre):
            continue
        ends = steps[first - 1], steps[min(first + 2, len(steps) - 1)]
        values = sampler(ladder.x + (1 if side else -1) * np.linspace(*ends, 33))
        jumps = np.abs(np.diff(values))
        jumps = jumps[np.isfinite(jumps)]
        if len(jumps) and np.max(jumps) > 20 * np.median(jumps):
            return float(quantum)
    return 0.0
