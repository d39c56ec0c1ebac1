"""Line searches from Nocedal & Wright."""

import mpmath

from research.verification.formula import Function
from research.verification.leaves import (
    Leaves,
    Number,
    dot,
)

Point = tuple[Number, Number, Number]  # (a, φ(a), φ'(a)) with φ(a) = f(x + a d).


def backtracking(
    f: Function,
    x: Leaves,
    d: Leaves,
    first: Number,
    c: Number = 1e-4,
    shrink: Number = 0.5,
    most: int = 50,
):
    """Return the first step length with sufficient decrease.

    This is algorithm 3.1 of Nocedal & Wright. A step length a has sufficient decrease
    if f(x + a d) <= f(x) + c a gᵀd, where g is the gradient at x and d the direction.
    The step lengths tried are `first` times 1, shrink, shrink², ..., at most `most` of
    them. The result is 0 if none of them gives a sufficient decrease, or if gᵀd is not
    negative.
    """
    value, slope = f.value(x), dot(f.gradient(x), d)
    if not slope < 0:
        return 0
    a = first
    for _ in range(most):
        if f.value(x + a * d) <= value + c * a * slope:
            return a
        a = shrink * a
    return 0


def strong_wolfe(
    f: Function,
    x: Leaves,
    d: Leaves,
    first: Number,
    c1: Number = 1e-4,
    c2: Number = 0.9,
    most: int = 30,
):
    """Return a step length a that satisfies the strong Wolfe conditions.

    The conditions are φ(a) <= φ(0) + c1 a φ'(0) and |φ'(a)| <= c2 |φ'(0)|, where φ(a) =
    f(x + a d) and d is the direction. The search is that of algorithms 3.5 and 3.6 of
    Nocedal & Wright, and begins with a = `first`. At most `most` values of a are tried.
    If none of them satisfies both conditions, the result is the value with the smallest
    φ(a) among the values that satisfy the first condition, or 0 if no value does. The
    result is also 0 if φ'(0) is not negative.
    """
    points = []

    def phi(a: Number):
        points.append((a, f.value(x + a * d), dot(f.gradient(x + a * d), d)))
        return points[-1]

    _, value, slope = start = (mpmath.mpf(0), f.value(x), dot(f.gradient(x), d))
    if not slope < 0:
        return 0

    def zoom(low: Point, high: Point):
        while len(points) < most:
            a, v, s = point = phi(inwards(low, high))
            if v > value + c1 * a * slope or v >= low[1]:
                high = point
            else:
                if abs(s) <= -c2 * slope:
                    return a
                if s * (high[0] - low[0]) >= 0:
                    high = low
                low = point
        return low[0]

    before, point = start, phi(mpmath.mpf(first))
    while True:
        a, v, s = point
        if v > value + c1 * a * slope or (v >= before[1] and len(points) > 1):
            return zoom(before, point)
        if abs(s) <= -c2 * slope:
            return a
        if s >= 0:
            return zoom(point, before)
        if len(points) == most:
            return a
        before, point = point, phi(outwards(before, point))


def cubic(left: Point, right: Point):
    """Return the minimiser of a cubic polynomial through two points.

    Each point is a triple (a, φ(a), φ'(a)). Here a is a step length, and φ(a) is the
    objective after a step of this length. The cubic has the values φ and the slopes
    φ' of the two points. Equation (3.59) of Nocedal & Wright gives its minimiser. The
    result is NaN if there is no minimiser.
    """
    (a, va, sa), (b, vb, sb) = left, right
    d1 = sa + sb - 3 * (va - vb) / (a - b)
    if d1**2 - sa * sb < 0:
        return mpmath.nan
    d2 = mpmath.sign(b - a) * mpmath.sqrt(d1**2 - sa * sb)
    return b - (b - a) * (sb + d2 - d1) / (sb - sa + 2 * d2)


def inwards(low: Point, high: Point):
    """Return the next step length to try, between the ends `low` and `high`.

    Each end is a triple (a, φ(a), φ'(a)), where a is a step length and φ(a) the value
    of f after this step. The cubic polynomial through both ends has the values φ and
    the slopes φ' of the ends. The result is the minimiser of this polynomial. The
    minimiser is moved, if necessary, to a distance from each end of at least a tenth of
    the distance between the ends. If there is no minimiser, the result is the middle
    between the ends.
    """
    left, right = sorted((low[0], high[0]))
    margin, a = mpmath.mpf(0.1) * (right - left), cubic(low, high)
    return (
        (left + right) / 2
        if mpmath.isnan(a)
        else min(max(a, left + margin), right - margin)
    )


def outwards(before: Point, point: Point):
    """Return the next step length to try, beyond that of the last point.

    Each point is a triple (a, φ(a), φ'(a)). Here a is a step length, and φ(a) is the
    objective after a step of this length. The line search calls this function until two
    step lengths with a minimum between them are known. `before` and `point` are the
    last two points. A cubic polynomial has the values φ and the slopes φ' of both
    points, and the result is its minimiser. If h is the distance from `before` to
    `point`, the distance of the result from `before` is kept between 2.1 h and 5 h. If
    there is no minimiser beyond `point`, this distance is 5 h.
    """
    width, a = point[0] - before[0], cubic(before, point)
    nearest, furthest = point[0] + mpmath.mpf(1.1) * width, point[0] + 4 * width
    return furthest if not a > point[0] else min(max(a, nearest), furthest)


SEARCHES = {
    "backtracking": backtracking,
    "strong_wolfe": strong_wolfe,
    None: lambda f, x, d, first: first,
}


def capped(size: Number):
    """Return min(1, 1 / size), the factor that limits a vector's length `size` to 1."""
    return 1 / size if size > 1 else 1
