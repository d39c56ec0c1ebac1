"""Rules that search along a line, as Nocedal & Wright print them: the searches, conjugate gradients, BFGS and L-BFGS."""

import mpmath
import numpy as np

from research.verification.formulas.formula import Formula, Mistake
from research.verification.formulas.leaves import (
    Leaves,
    absolute,
    dot,
    norm,
    zeros_like,
)


def backtracking(f, x, d, first, c=1e-4, shrink=0.5, most=50):
    """Algorithm 3.1: the first of first, shrink first, shrink² first, ... with sufficient decrease; 0 if there is none."""
    value, slope = f.value(x), dot(f.gradient(x), d)
    if not slope < 0:
        return 0
    a = first
    for _ in range(most):
        if f.value(x + a * d) <= value + c * a * slope:
            return a
        a = shrink * a
    return 0


def strong_wolfe(f, x, d, first, c1=1e-4, c2=0.9, most=30):
    """Algorithms 3.5 and 3.6; each point is (a, φ(a), φ'(a)). 0 if nothing lowers f enough."""
    points = []

    def phi(a):
        points.append((a, f.value(x + a * d), dot(f.gradient(x + a * d), d)))
        return points[-1]

    _, value, slope = start = (mpmath.mpf(0), f.value(x), dot(f.gradient(x), d))
    if not slope < 0:
        return 0

    def zoom(low, high):
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


def cubic(left, right):
    """Equation (3.59): the minimiser of the cubic through two points; NaN if it has none."""
    (a, va, sa), (b, vb, sb) = left, right
    d1 = sa + sb - 3 * (va - vb) / (a - b)
    if d1**2 - sa * sb < 0:
        return mpmath.nan
    d2 = mpmath.sign(b - a) * mpmath.sqrt(d1**2 - sa * sb)
    return b - (b - a) * (sb + d2 - d1) / (sb - sa + 2 * d2)


def inwards(low, high):
    """The cubic's minimiser, at least a tenth of the bracket away from its ends; the middle where there is none."""
    left, right = sorted((low[0], high[0]))
    margin, a = mpmath.mpf(0.1) * (right - left), cubic(low, high)
    return (
        (left + right) / 2
        if mpmath.isnan(a)
        else min(max(a, left + margin), right - margin)
    )


def outwards(before, point):
    """The cubic's minimiser, 2.1 to 5 times as far from the point before as the last one."""
    width, a = point[0] - before[0], cubic(before, point)
    nearest, furthest = point[0] + mpmath.mpf(1.1) * width, point[0] + 4 * width
    return furthest if not a > point[0] else min(max(a, nearest), furthest)


SEARCHES = {
    "backtracking": backtracking,
    "strong_wolfe": strong_wolfe,
    None: lambda f, x, d, first: first,
}


def backtracking_descent(
    x,
    f,
    learning_rate=1.0,
    sufficient_decrease=1e-4,
    shrink=0.5,
    increase=None,
    max_evaluations=50,
):
    """Armijo (1966); Nocedal & Wright, algorithm 3.1, along -g."""
    a = 0
    while True:
        d = -f.gradient(x)
        first = (
            learning_rate
            if increase is None or a == 0
            else min(learning_rate, increase * a)
        )
        a = backtracking(f, x, d, first, sufficient_decrease, shrink, max_evaluations)
        x = x + a * d
        yield x


def nonlinear_conjugate_gradient(
    x, f, learning_rate=1.0, beta="polak_ribiere_plus", linesearch="strong_wolfe"
):
    """Nocedal & Wright, algorithm 5.4 with (5.41), (5.44), (5.45), (5.46) or (5.49), and the first trial of section 3.5."""
    a, g_before, d, slope_before = 0, None, None, 0
    while True:
        g = f.gradient(x)
        share = 0 if d is None else conjugacy(beta, g, g_before, d)
        d = -g if d is None else -g + share * d
        if dot(g, d) >= 0:
            d = -g
        slope = dot(g, d)
        first = (
            a * slope_before / slope
            if a != 0 and slope != 0
            else learning_rate * capped(norm(g))
        )
        a = {"strong_wolfe": flat, "backtracking": backtracking}[linesearch](
            f, x, d, first
        )
        x, g_before, slope_before = x + a * d, g, slope
        yield x


def flat(f, x, d, first):
    """The search for conjugate directions, with c2 = 0.1."""
    return strong_wolfe(f, x, d, first, c2=0.1)


def conjugacy(beta, g, g_before, d):
    """β by its name; 0 where it would divide by zero."""
    y = g - g_before
    above = dot(g, g) if beta in ("fletcher_reeves", "dai_yuan") else dot(g, y)
    below = (
        dot(d, y)
        if beta in ("hestenes_stiefel", "dai_yuan")
        else dot(g_before, g_before)
    )
    found = above / below if below != 0 else 0
    return max(found, 0) if beta == "polak_ribiere_plus" else found


def capped(size):
    """min(1, 1 / size)."""
    return 1 / size if size > 1 else 1


def first_scale(g, first_step):
    """min(1, 1 / |g|), the norm Euclidean or the sum of sizes."""
    return capped(
        norm(g) if first_step == "euclidean" else dot(absolute(g), zeros_like(g) + 1)
    )


def bfgs(
    x,
    f,
    learning_rate=1.0,
    linesearch="strong_wolfe",
    first_step="euclidean",
    min_curvature=0.0,
):
    """Nocedal & Wright, algorithm 6.1 with (6.17), the first pair scaling H by (6.20)."""
    g, inverse = f.gradient(x), None
    while True:
        d = (
            -g * first_scale(g, first_step)
            if inverse is None
            else like(-(inverse * column(g)), g)
        )
        a = SEARCHES[linesearch](f, x, d, learning_rate)
        x, before = x + a * d, x
        yield x
        g, g_before = f.gradient(x), g
        s, y = column(x - before), column(g - g_before)
        curvature = (s.T * y)[0]
        if curvature > min_curvature:
            identity = mpmath.eye(len(s))
            if inverse is None:
                inverse = curvature / (y.T * y)[0] * identity
            left = identity - s * y.T / curvature
            inverse = left * inverse * left.T + s * s.T / curvature


def lbfgs(
    x,
    f,
    learning_rate=1.0,
    memory_size=10,
    linesearch="strong_wolfe",
    first_step="euclidean",
    min_curvature=0.0,
):
    """Nocedal & Wright, algorithms 7.4 and 7.5, with γ from (7.20)."""
    g, pairs = f.gradient(x), []
    while True:
        q, shares = g, []
        for s, y in reversed(pairs):
            shares.append(dot(s, q) / dot(y, s))
            q = q - shares[-1] * y
        r = (
            q * first_scale(g, first_step)
            if not pairs
            else q * (dot(*pairs[-1]) / dot(pairs[-1][1], pairs[-1][1]))
        )
        for s, y in pairs:
            r = r + s * (shares.pop() - dot(y, r) / dot(y, s))
        a = SEARCHES[linesearch](f, x, -r, learning_rate)
        x, before = x - a * r, x
        yield x
        g, g_before = f.gradient(x), g
        if dot(x - before, g - g_before) > min_curvature:
            pairs = [*pairs, (x - before, g - g_before)][-int(memory_size) :]


def column(x):
    """All entries, as a column."""
    return mpmath.matrix([entry for a in x.arrays for entry in a.flat])


def like(flat, x):
    """A column as Leaves of that structure."""
    entries = iter(flat)
    return Leaves(
        np.array([next(entries) for _ in range(a.size)], object).reshape(a.shape)
        for a in x.arrays
    )


FORMULAS = {
    "backtracking_descent": Formula(
        backtracking_descent,
        (
            Mistake(
                "the two constants are swapped",
                "sufficient_decrease, shrink, max_evaluations)",
                "shrink, sufficient_decrease, max_evaluations)",
            ),
            Mistake(
                "each search starts from the last accepted step",
                "first = learning_rate if",
                "first = a or learning_rate if",
            ),
            Mistake(
                "the step is one trial shorter than the accepted one",
                "x + a * d",
                "x + shrink * a * d",
            ),
            Mistake(
                "the direction is normalised",
                "-f.gradient(x)",
                "-f.gradient(x) / norm(f.gradient(x))",
            ),
        ),
    ),
    "nonlinear_conjugate_gradient": Formula(
        nonlinear_conjugate_gradient,
        (
            Mistake(
                "it is plain gradient descent: the last direction is left out",
                "-g + share * d",
                "-g",
            ),
            Mistake("the last direction is subtracted", "-g + share", "-g - share"),
            Mistake(
                "β divides by |g_t|², not by the last gradient's",
                "g_before, d)",
                "g_before, d) * dot(g_before, g_before) / dot(g, g)",
            ),
            Mistake(
                "the first trial is scaled the wrong way round",
                "a * slope_before / slope if",
                "a * slope / slope_before if",
            ),
        ),
    ),
    "bfgs": Formula(
        bfgs,
        (
            Mistake(
                "the first pair does not scale H",
                "curvature / (y.T * y)[0] * identity",
                "identity",
            ),
            Mistake(
                "s and y are swapped: this is DFP's Hessian, not its inverse",
                "s * y.T / curvature",
                "y * s.T / curvature",
            ),
            Mistake(
                "the last term s sᵀ / <s, y> is left out", " + s * s.T / curvature", ""
            ),
            Mistake(
                "the first step is not shortened",
                "-g * first_scale(g, first_step)",
                "-g",
            ),
        ),
    ),
    "lbfgs": Formula(
        lbfgs,
        (
            Mistake(
                "the initial H is not scaled by <s, y> / <y, y>",
                "q * (dot(*pairs[-1]) / dot(pairs[-1][1], pairs[-1][1]))",
                "q",
            ),
            Mistake(
                "the scale is that of the oldest pair",
                "(dot(*pairs[-1]) / dot(pairs[-1][1], pairs[-1][1]))",
                "(dot(*pairs[0]) / dot(pairs[0][1], pairs[0][1]))",
            ),
            Mistake(
                "the first loop runs from the oldest pair to the newest",
                "in reversed(pairs)",
                "in list(pairs)",
            ),
            Mistake(
                "the first step is not shortened", "q * first_scale(g, first_step)", "q"
            ),
            Mistake(
                "the memory keeps the oldest pairs",
                "[-int(memory_size) :]",
                "[: int(memory_size)]",
            ),
        ),
    ),
}
