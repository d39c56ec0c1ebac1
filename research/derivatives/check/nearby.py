"""Slopes of a function at points around x, to explain a derivative at a kink."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from research.derivatives.check.line import Line
from research.derivatives.check.slopes import (
    LEVELS,
    STEPS,
    limit_of_slopes,
    noise_of_levels,
)

POINTS = 32  # Number of lines on which points near x are taken.
CLOSE = 2.0**-12  # Distance of the points whose gradients choose the first lines.
APART = 1 / 8  # Distance of two lines, relative to the length of their direction.
SURE = 1 / 8  # A slope counts if its error is below this fraction of the gap.
CLEAR = 3.0  # Slopes that differ by more than this many errors differ.


class Range(NamedTuple):
    """Smallest and largest slope of f along a direction, at points close to x.

    If f has several smooth pieces that meet at x, each slope is that of one piece.
    Clarke's generalised gradient is the set of weighted means of the pieces' gradients
    at x. If each piece contains at least one of the points, the product of the
    direction and any vector in this set lies between the smallest and the largest
    slope.

    Attributes:
      low, high: Smallest and largest slope. Both are NaN if they do not clearly differ,
        or if no slope is accurate enough.
    """

    low: float
    high: float


def slopes_nearby(
    line: Line,
    v: Float[np.ndarray, "n"],
    w: np.ndarray,
    eps: float,
    size: float,
    gap: float,
    length: float,
    random: np.random.Generator,
) -> Range:
    """Return the range of the slopes of ⟨w, f⟩ along v at points close to x.

    The points x + h u lie on lines through x with directions u. Up to four directions u
    are chosen so that they probably lead to the smallest and the largest slope. The
    others are random. The slope at such a point is the difference of the values at x +
    h (u ± v / 8), divided by h / 4. A kink may separate the points with h > 0 from
    those with h < 0. On each of these two sides, the slope has a limit for h -> 0: the
    slope of the smooth piece of f that contains the side. For a smooth f, all of these
    limits are the derivative along v.

    Args:
      line: The function f and the point x.
      v: Direction of the slopes.
      w: Weights of the outputs.
      eps: Relative spacing of the floats in which f is computed.
      size: Lower bound of the rounding error of a value, in units of eps.
      gap: Distance between the tested derivative and the slope at x. A slope near x is
        used only if its error is much smaller than this distance.
      length: Length of the longest step, relative to the size of x.
      random: Source of the random lines.
    Returns:
      The `Range`.
    """
    found: list[tuple[float, float]] = []
    chosen = _extreme_lines(line, v, w, CLOSE * length, random)
    drawn = random.normal(size=(POINTS - len(chosen), v.size)) * line.scales
    for u in (*chosen, *drawn):
        u = u * np.linalg.norm(v / line.scales) / np.linalg.norm(u / line.scales)
        sides = [length * (u + side * APART * v) for side in (1, -1)]
        right, left = (line.sampled(side, w) for side in sides)
        nudged = line.rounding(sides[0], w, len(found), right)
        noise = noise_of_levels(nudged, right, eps * size, eps) / APART
        with np.errstate(all="ignore"):
            apart = (right - left) / (2 * APART * length)
            ahead, behind = apart[LEVELS + 1 :][::-1], apart[:LEVELS]
            for slopes in (ahead / STEPS, behind / -STEPS):
                found.append(limit_of_slopes(slopes, noise / length))
    sure = np.array([each for each in found if each[1] < SURE * gap])
    if not len(sure):
        return Range(float("nan"), float("nan"))
    low, high = sure[np.argmin(sure[:, 0])], sure[np.argmax(sure[:, 0])]
    if not high[0] - low[0] > CLEAR * (high[1] + low[1]):
        return Range(float("nan"), float("nan"))
    return Range(float(low[0]), float(high[0]))


def _extreme_lines(
    line: Line, v: np.ndarray, w: np.ndarray, h: float, random: np.random.Generator
) -> list[np.ndarray]:
    """Return directions from x to pieces of f whose slope along v is likely extreme.

    With many kinks at x, random directions miss these pieces. For example, k rectifiers
    that are all at 0 have 2^k pieces. In two directions, all entries have one sign. The
    other two are chosen entry by entry, from a random direction u. The sign of an entry
    is that of u or of -u, whichever has the lower product of v and JAX's gradient at x
    + h u or x - h u, and in the last direction the higher product. If each kink depends
    on one entry of x, these two lead to the smallest and the largest slope. All entries
    are about equally large, so that x + h (u ± v / 8) lie on one side of a kink.
    """
    up = line.scales * random.uniform(0.75, 1.25, v.shape)
    u = up * random.choice([-1.0, 1.0], v.shape)
    gradients = [line.pulled_at(line.flat + side * h * u, w) for side in (1, -1)]
    if any(gradient is None for gradient in gradients):
        return [up, -up]
    ahead, behind = (v * gradient for gradient in gradients)
    low = np.where(ahead < behind, u, -u)
    high = np.where(ahead > behind, u, -u)
    return [up, -up, low, high]
