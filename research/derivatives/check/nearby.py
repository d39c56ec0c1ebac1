"""Slopes of a function at points around x, to explain a derivative at a kink."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from research.derivatives.check.line import Line
from research.derivatives.check.rounding import OF_CONSTANTS, ROUNDINGS
from research.derivatives.check.slopes import (
    LEVELS,
    STEPS,
    is_constant_near,
    limit_of_slopes,
    noise_of_levels,
    slope_at_middle,
)

POINTS = 32  # Number of lines on which points near x are taken.
# Distance of the points whose gradients choose the first lines, and of the points at
# which values test the derivative.
CLOSE = 2.0**-12
APART = 1 / 8  # Distance of two lines, relative to the length of their direction.
SURE = 1 / 8  # A slope counts if its error is below this fraction of the gap.
CLEAR = 3.0  # Slopes that differ by more than this many errors differ.
# Half circles around x, and points on each; the latter at this distance from x.
ARCS, ON_ARC, ON_CIRCLE = 3, 512, 2.0**-36
MOST = 2**22  # Most entries of the points on a half circle.
# Points at which values test the derivative, how many of them must be accurate, and how
# many must differ from the derivative.
WITNESSES, ENOUGH, MANY = 10, 4, 2
SIGNS = (1, 1, -1, -1)  # Signs of the entries of more such points.
NARROW = 2.0**-8  # Longest step from such a point, relative to its distance from x.
ACCURATE = 1e-4  # Largest error of a slope there, relative to the size of a slope.
# A jump counts if it is larger than this, relative to the size of a slope, and (where
# smooth parts change, too) than so many times the median change between two points.
LEAST, SUDDEN = 1e-9, 8
NESTED = 4  # If kinks lie within one another, jumps may be so many times as large.


class Neighbourhood(NamedTuple):
    """A point x, and a direction along which slopes near x are measured.

    Attributes:
      line: The function f and the point x.
      v: Direction of the slopes.
      w: Weights of the outputs of f. The slopes are those of the weighted sum ⟨w, f⟩.
      eps: Relative spacing of the floats in which f is computed.
      size: The rounding error of a value of f is taken to be at least eps * size.
      noise: Measured rounding error of a value of f beside x.
      length: Largest factor h of a step. A step from x is h u, where u is a direction
        as long as v.
      random: Source of random directions.
    """

    line: Line
    v: Float[np.ndarray, "n"]
    w: np.ndarray
    eps: float
    size: float
    noise: float
    length: float
    random: np.random.Generator


class Range(NamedTuple):
    """Smallest and largest slope of f along a direction, at points close to x.

    If several smooth pieces of f meet at x, each slope is that of one piece. Clarke's
    generalised gradient is the set of weighted means of the pieces' gradients at x.
    If each piece contains at least one of the points close to x, the following holds
    for any vector in this set: its product with the direction lies between the smallest
    and the largest slope.

    Attributes:
      low, high: Smallest and largest slope. Both are NaN if they do not clearly differ,
        or if no slope is accurate enough.
    """

    low: float
    high: float


def slopes_nearby(near: Neighbourhood, gap: float) -> Range:
    """Return the range of the slopes of ⟨w, f⟩ along v at points close to x.

    `near` contains f, x, v and the weights w of the outputs of f. f may consist of
    smooth pieces that meet at kinks. The slopes are computed on 32 lines through x. A
    line consists of the points x + h u, where u is its direction and h any number. A
    kink at x may separate the points of a line with h > 0 from those with h < 0. So
    each line has two sides. On each side, the slope along v has a limit for h -> 0: the
    slope of the piece of f that contains this side. The result is the smallest and the
    largest of these limits. If f is smooth, each limit is the derivative along v, so
    the limits do not differ.

    The slope at x + h u is the difference of the values at x + h (u ± v / 8), divided
    by h / 4. Up to four directions u are chosen so that they probably lead to the
    smallest and the largest slope. The others are random.

    Args:
      near: The point and the direction v.
      gap: Absolute difference between two numbers of the derivative check at x: the
        derivative that is tested, and the measured slope of ⟨w, f⟩ along v. A limit
        counts only if its error estimate is below gap / 8.
    Returns:
      The `Range`. Both slopes are NaN if no limit counts, or if the two slopes differ
      by at most three times the sum of their error estimates.
    """
    found: list[tuple[float, float]] = []
    chosen = [_as_long(near, u) for u in _extreme_lines(near)]
    for u in (*chosen, *_drawn(near, POINTS - len(chosen))):
        found += _limits(near, u, len(found))
    sure = np.array([each for each in found if each[1] < SURE * gap])
    if not len(sure):
        return Range(float("nan"), float("nan"))
    low, high = sure[np.argmin(sure[:, 0])], sure[np.argmax(sure[:, 0])]
    if not high[0] - low[0] > CLEAR * (high[1] + low[1]):
        return Range(float("nan"), float("nan"))
    return Range(float(low[0]), float(high[0]))


def _drawn(near: Neighbourhood, count: int) -> list[np.ndarray]:
    """Return random directions, as long as v."""
    drawn = near.random.normal(size=(count, near.v.size)) * near.line.scales
    return [_as_long(near, u) for u in drawn]


def _as_long(near: Neighbourhood, u: np.ndarray) -> np.ndarray:
    """Return u scaled to the length of v, measured in units of `line.scales`."""
    scales = near.line.scales
    return u * np.linalg.norm(near.v / scales) / np.linalg.norm(u / scales)


def _limits(near: Neighbourhood, u: np.ndarray, seed: int) -> list[tuple[float, float]]:
    """Return the limits of the slope along v at x + h u, for h > 0 and h < 0, h -> 0.

    The slope is the difference of the values of ⟨w, f⟩ at x + h (u ± v / 8), divided by
    h / 4. The result has a pair (limit, error estimate) for h > 0 and one for h < 0.
    """
    line, v, w, eps, size, _, length, _ = near
    sides = [length * (u + side * APART * v) for side in (1, -1)]
    right, left = (line.sampled(side, w) for side in sides)
    nudged = line.rounding(sides[0], w, seed, right)
    noise = noise_of_levels(nudged, right, eps * size, eps) / APART
    with np.errstate(all="ignore"):
        slopes = (right - left) / (2 * APART * length)
        ahead, behind = slopes[LEVELS + 1 :][::-1], slopes[:LEVELS]
        return [
            limit_of_slopes(each, noise / length)
            for each in (ahead / STEPS, behind / -STEPS)
        ]


def _extreme_lines(near: Neighbourhood) -> list[np.ndarray]:
    """Return directions from x to pieces of f whose slope along v is likely extreme.

    If x has many kinks, random directions miss these pieces. For example, k rectifiers
    that are all at 0 have 2^k pieces. In two directions, all entries have one sign. The
    other two are computed from a random direction u and JAX's gradients at x + h u and
    at x - h u. For each entry i, the products of v_i and entry i of the two gradients
    are compared. The third direction has the entry u_i if the product at x + h u is the
    lower one, and -u_i otherwise. The fourth direction has u_i if this product is the
    higher one. If each kink depends on one entry of x, these two directions lead to the
    smallest and the largest slope. All entries are about equally large, so that both
    points x + h (u ± v / 8) lie on the same side of a kink.
    """
    line, v, random = near.line, near.v, near.random
    up = line.scales * random.uniform(0.75, 1.25, v.shape)
    u = up * random.choice([-1.0, 1.0], v.shape)
    step = CLOSE * near.length * u
    gradients = [line.pulled_at(line.flat + side * step, near.w) for side in (1, -1)]
    if any(gradient is None for gradient in gradients):
        return [up, -up]
    ahead, behind = (v * gradient for gradient in gradients)
    low = np.where(ahead < behind, u, -u)
    high = np.where(ahead > behind, u, -u)
    return [up, -up, low, high]


def slopes_of_all_pieces(
    near: Neighbourhood, scale: float, beside: Sequence["Witness"]
) -> Range:
    """Return the range of the slopes at x for all choices of a side at each kink.

    Several kinks may pass through x. If JAX takes the slope on one side of each kink,
    there may be no point near x that lies on all of these sides. So JAX's derivative at
    x need not be that of any smooth piece of f near x. An example is a sum over i of
    c[i] leaky_relu(⟨a[i], x⟩) at x = 0. JAX takes the slope 1 of every leaky rectifier,
    although there may be no point at which ⟨a[i], x⟩ > 0 for all i.

    Suppose that f is a sum of terms with one kink each, and that all of these kinks
    pass through x. The range follows from the derivative along v on a half circle
    around x, from x + r v to x - r v with a small r > 0. The half circle crosses each
    kink once. At each crossing, one term changes to its other side, and the derivative
    jumps. Let D be the derivative at the first point. Another choice of sides adds some
    of the jumps to D. So the slope for every choice lies between two bounds: D plus all
    negative jumps, and D plus all positive jumps. Three half circles are used, and the
    range contains the bounds of each.

    If the input of a function with a kink has a kink itself, as in a network of two
    layers, the jump at one kink depends on the side of the other kink. So if there are
    several jumps, each jump is multiplied by four.

    The derivative on the half circle is not measured: it is the derivative that is
    tested. The range is used only if the values of f confirm this derivative at random
    points near x. A `Witness` compares the derivative with the values at one of these
    points. There must be at least four witnesses, and at most one of them may differ
    (`Witness.differs`).

    Args:
      near: The point and the direction v.
      scale: Size of a slope along v. Only jumps above 1e-9 times this size count.
      beside: The `witnesses` of this point and direction.
    Returns:
      The `Range`. Both slopes are NaN if the values do not confirm the derivative, if
      there is no kink, or if x has more than 8192 entries.
    """
    line, v = near.line, near.v
    unknown = Range(float("nan"), float("nan"))
    if ON_ARC * v.size > MOST:
        return unknown
    if len(beside) < ENOUGH or sum(each.differs for each in beside) >= MANY:
        return unknown
    angles, ranges = np.linspace(0, np.pi, ON_ARC)[:, None], []
    # A derivative in a lower precision takes a closer point for x. Farther away, smooth
    # parts of the derivative change, too.
    is_narrow = bool(line.eps_of_given.any())
    radius = near.length * (CLOSE if is_narrow else ON_CIRCLE)
    for u in _drawn(near, ARCS):
        circle = radius * (np.cos(angles) * v + np.sin(angles) * u)
        rates = line.rates_at(line.flat + circle, v, near.w)
        jumps = np.diff(rates)
        smooth = SUDDEN * float(np.median(np.abs(jumps))) if is_narrow else 0.0
        jumps = np.where(np.abs(jumps) > max(LEAST * scale, smooth), jumps, 0.0)
        jumps *= NESTED if np.count_nonzero(jumps) > 1 else 1
        ranges.append(
            (rates[0] + jumps[jumps < 0].sum(), rates[0] + jumps[jumps > 0].sum())
        )
    lows, highs = np.transpose(ranges)
    low, high = float(np.min(lows)), float(np.max(highs))
    return Range(low, high) if high > low else unknown


class Witness(NamedTuple):
    """The tested derivative and the slope of f along a direction, at a point near x.

    Attributes:
      derivative: Tested derivative along the direction.
      slope: Slope of f along the direction, computed from values of f.
      allowed: Largest distance between `derivative` and `slope` that does not count as
        an error of the derivative. It is three times the error estimate of `slope` plus
        ten times the rounding error of the derivative.
    """

    derivative: float
    slope: float
    allowed: float

    @property
    def differs(self) -> bool:
        """Whether `derivative` and `slope` differ by more than `allowed`."""
        return not abs(self.derivative - self.slope) <= self.allowed


def witness_against(
    beside: Sequence[Witness], scale: float, is_given: bool
) -> Witness | None:
    """Return the witness that contradicts the tested derivative most, or None.

    At a kink, f has no derivative, so its values there do not show whether the tested
    derivative is right. But beside the kink, where the witnesses are, f is smooth. A
    witness holds the tested derivative and the slope of f at one point near x. It
    contradicts the derivative if the two numbers differ by more than `Witness.allowed`
    and by more than 1e-4 times `scale`. The result is None in two cases:

    - Fewer than two witnesses contradict the derivative.
    - The user gave the derivative, and it is the same at all witnesses. A derivative
      that was computed at x alone says nothing about other points.

    Args:
      beside: The `witnesses`.
      scale: Size of a slope along their direction.
      is_given: Whether the user gave the tested derivative.
    """
    if is_given and len({each.derivative for each in beside}) < MANY:
        return None
    gap = lambda each: abs(each.derivative - each.slope)
    against = [e for e in beside if e.differs and gap(e) > ACCURATE * scale]
    return max(against, key=gap) if len(against) >= MANY else None


def witnesses(near: Neighbourhood, scale: float) -> list[Witness]:
    """Return a `Witness` at each of up to fourteen points near x.

    A `Witness` holds the tested derivative and the slope of f at one point. Ten points
    lie in random directions from x. Four more lie in directions whose entries all have
    one sign, because random directions may miss a narrow piece of f. The slope at a
    point follows from values of f at steps that are at most 2^-8 times as long as the
    distance of the point from x. A point is left out in these cases:

    - The values show a kink at the point.
    - The slope is not accurate: `Witness.allowed` is at least 1e-4 times `scale`.
    - JAX cannot trace f, and f has equal values close to the point. Then f may round
      its values.

    Args:
      near: The point x, and the direction v of the tested derivative. The slopes at
        all points are along v.
      scale: Typical absolute value of a slope along v.
    """
    line, v, w, eps, size, noise, length, random = near
    slopes, rounding = {}, eps + float(np.max(line.eps_of_given))
    rounding += OF_CONSTANTS if line.given is not None and line.is_lifted else 0.0
    up = line.scales * random.uniform(0.5, 1.5, (len(SIGNS), v.size))
    signed = [_as_long(near, sign * u) for sign, u in zip(SIGNS, up, strict=True)]
    ways = np.array([*signed, *_drawn(near, WITNESSES)])
    points, step = line.flat + CLOSE * length * ways, NARROW * CLOSE * length
    for i, point in enumerate(points):
        values = line.sampled(step * v, w, point)
        nudged = line.rounding(step * v, w, i, values, point=point)
        if line.jaxpr is None and is_constant_near(values):
            continue  # f may round its values.
        floor = max(eps * size, noise)
        slope = slope_at_middle(values, noise_of_levels(nudged, values, floor, eps))
        allowed = CLEAR * slope.error / step + ROUNDINGS * rounding * scale
        if not slope.jump and allowed < ACCURATE * scale:
            slopes[i] = (slope.value / step, allowed)
    if not slopes:
        return []
    # At all points, because another number of points is another program.
    rates = line.rates_at(points, v, w)
    return [Witness(float(rates[i]), *slope) for i, slope in slopes.items()]
