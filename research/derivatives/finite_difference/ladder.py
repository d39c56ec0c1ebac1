"""Difference quotients at every scale at once: steps that double, formulas on them, and the noise of the function."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from research.derivatives.finite_difference.sampling import sample
from research.derivatives.grid import fornberg_weights

LOWEST = 10  # Steps, the smallest ones, at which noise and jumps are looked for.


class Ladder(NamedTuple):
    """f around x, at distances that are powers of two.

    Attributes:
      x, centre: The point and f there.
      exponents: log2 of the distances, ascending, shape (levels,); mostly they rise by 1.
      plus, minus: f at x + 2^exponent and x - 2^exponent, shape (levels,); nan where f is not defined.
      noise: A bound on the error of one value of f at each level, shape (levels,).
      evaluations: Numbers at which f was evaluated.
      epsilon: Relative spacing of the type that f returns.
    """

    x: float
    centre: float
    exponents: np.ndarray
    plus: np.ndarray
    minus: np.ndarray
    noise: np.ndarray
    evaluations: int
    epsilon: float


class Quotients(NamedTuple):
    """Estimates of one derivative, a row a level; columns are extrapolations by so many of the next larger steps.

    Attributes:
      values: Shape (levels, columns); nan where a sample is missing.
      noise: How far the noise of f can move each, same shape.
    """

    values: np.ndarray
    noise: np.ndarray


def exponents(x: float) -> np.ndarray:
    """log2 of the distances at which f is looked at.

    From four spacings of the floats at x to eight times the larger of |x| and 1, in doublings. For x near 0 there are
    two such bands, about |x| and about 1, because either may be the scale of f; at 0 itself a few much smaller ones.
    """
    small, large = -56, 3
    if abs(x) < 2.0**-1015:  # So small that there is no room for steps below it.
        return np.concatenate([np.arange(-1020, small - 32, 32), np.arange(small, large + 1)])
    place = int(np.floor(np.log2(abs(x))))
    lowest = max(int(np.log2(np.spacing(abs(x)))) + 2, -1070)
    own = np.arange(lowest, min(place + large, 1020) + 1)
    if own[-1] >= large:
        return own
    return np.unique(np.concatenate([own, np.arange(max(small, place + large + 1), large + 1)]))


def climb(f: Callable[[Any], Any], x: float) -> Ladder:
    """Evaluates f on the ladder about x."""
    powers = exponents(x)
    distances = np.ldexp(1.0, powers)
    with np.errstate(all="ignore"):
        seen = sample(f, np.concatenate([[x], x + distances, x - distances]))
    finite = np.where(np.isfinite(seen.values), seen.values, np.nan)
    plus, minus = finite[1 : len(powers) + 1], finite[len(powers) + 1 :]
    bare = Ladder(x, seen.values[0], powers, plus, minus, np.zeros(len(powers)), seen.evaluations, seen.epsilon)
    return bare._replace(noise=noise(bare))


def noise(ladder: Ladder) -> np.ndarray:
    """A bound on the error of one value of f at each level, shape (levels,).

    At least half a unit of rounding of the values. And what is seen: on each side f(4h) - 3 f(2h) + 2 f(h) vanishes for
    straight lines, so that at small h it is six errors of f at most; where it begins to grow as h² it is curvature, and
    no longer counts. f(x) itself is left out, that a jump at x be no noise.
    """
    seen = np.fmax(_bends(ladder, ladder.plus), _bends(ladder, ladder.minus))
    seen = np.nan_to_num(seen)
    start = int(np.argmax(_runs(ladder.exponents, 3)))  # Below it steps more than double.
    knee = _knee(seen, start)
    below = np.where(np.arange(len(seen)) < knee, seen, 0.0)
    running = np.maximum.accumulate(below)
    # An f computed to few digits can look smooth below its noise. That is seen at many steps, a kink nearby at three.
    near = ladder.exponents <= np.log2(1e-3 * max(abs(ladder.x), 1e-2))
    everywhere = np.sort(np.where(near, below, 0.0))[-4]
    running = np.maximum(running, max(everywhere, running[min(start + LOWEST, len(seen) - 1)]))
    values = np.fmax(np.fmax(np.abs(ladder.plus), np.abs(ladder.minus)), abs(ladder.centre))
    rounding = np.nan_to_num(values) * ladder.epsilon / 2
    # What is seen at a few points is not the worst yet; and an f noisier than its rounding (a cancellation) is often
    # noisier still where x ± h comes near 0.
    share = np.minimum(np.ldexp(1.0, ladder.exponents) / abs(ladder.x), 0.75) if ladder.x else 0.75
    caution = np.where(running > 12 * rounding, 1.5 / (1 - share) ** 2, 1.0)
    return np.maximum(caution * running / 3, rounding)


def _bends(ladder: Ladder, side: np.ndarray) -> np.ndarray:
    """|f(4h) - 3 f(2h) + 2 f(h)| at each level h, nan where the steps do not double."""
    bends = np.full(len(side), np.nan)
    bends[:-2] = np.abs(side[2:] - 3 * side[1:-1] + 2 * side[:-2])
    return np.where(_runs(ladder.exponents, 3), bends, np.nan)


def _knee(seen: np.ndarray, start: int) -> int:
    """The first level from which on `seen` grows steadily, as no noise does; the number of levels where it never does.

    Steadily is three times in a row by more than 2.5 (curvature grows by 4), or six times at all (what is not smooth).
    """
    for k in range(start, len(seen) - 3):
        rise = seen[k : k + 7]
        if rise[0] > 0 and (
            np.all(rise[1:4] > 2.5 * rise[:3]) or (len(rise) == 7 and np.all(rise[1:] > 1.05 * rise[:-1]))
        ):
            return k
    return len(seen)


def _runs(powers: np.ndarray, length: int) -> np.ndarray:
    """Whether so many levels from each on rise by 1, shape (levels,)."""
    whole = np.zeros(len(powers), bool)
    whole[: len(powers) - length + 1] = powers[length - 1 :] - powers[: len(powers) - length + 1] == length - 1
    return whole


@lru_cache(maxsize=64)
def formula(order: int, side: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(weights at +h, +2h, +4h, ..., weights at -h, -2h, ..., weight at 0) of the derivative times h^order.

    Args:
      order: Of the derivative, positive.
      side: 0 for central, 1 for forward, -1 for backward.
    """
    if side:
        count = order
        nodes = side * 2.0 ** np.arange(count)
        weights = fornberg_weights(np.append(0.0, nodes), 0.0, order)
        outside, nothing = weights[1:], np.zeros(count)
        return (outside, nothing, weights[0]) if side > 0 else (nothing, outside, weights[0])
    count = (order + 1) // 2
    nodes = 2.0 ** np.arange(count)
    weights = fornberg_weights(np.concatenate([[0.0], nodes, -nodes]), 0.0, order)
    return weights[1 : count + 1], weights[count + 1 :], 0.0 if order % 2 else weights[0]


def quotients(ladder: Ladder, order: int, side: int, columns: int) -> Quotients:
    """Estimates of the derivative from each level, extrapolated to step 0 by Richardson's scheme.

    Args:
      ladder: Samples of f.
      order: Of the derivative.
      side: 0 for central formulas, whose error is a series in h²; 1 and -1 for one-sided ones, a series in h.
      columns: Of the table: 1 for the plain quotients.
    """
    ahead, behind, middle = formula(order, side)
    count, levels = len(ahead), len(ladder.exponents)
    total = np.zeros(levels)
    for i in range(count):  # The weights add up to 0: so do they for differences from f(x), which round less.
        if ahead[i]:
            total = total + ahead[i] * (_shifted(ladder.plus, i) - ladder.centre)
        if behind[i]:
            total = total + behind[i] * (_shifted(ladder.minus, i) - ladder.centre)
    size = np.sum(np.abs(ahead)) + np.sum(np.abs(behind)) + abs(middle)
    whole = _runs(ladder.exponents, count)
    # Dividing step by step keeps tiny steps from underflowing when raised to the order.
    values, spread = np.where(whole, total, np.nan), size * ladder.noise
    for _ in range(order):
        values, spread = np.ldexp(values, -ladder.exponents), np.ldexp(spread, -ladder.exponents)
    table, noises = [values], [spread]
    for m in range(1, columns):
        factor = 2.0 ** (m * (1 if side else 2))
        doubles = _runs(ladder.exponents, 2)
        values = np.where(doubles, (factor * values - _shifted(values, 1)) / (factor - 1), np.nan)
        spread = (factor * spread + _shifted(spread, 1)) / (factor - 1)
        table.append(values)
        noises.append(spread)
    return Quotients(np.stack(table, axis=1), np.stack(noises, axis=1))


def _shifted(values: np.ndarray, by: int) -> np.ndarray:
    """The value so many levels up; nan beyond the end."""
    return values if by == 0 else np.append(values[by:], np.full(by, np.nan))
