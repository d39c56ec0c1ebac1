"""Rules that find their own rate, as their papers print them."""

import mpmath

from research.verification.formulas.formula import Formula, Mistake
from research.verification.formulas.leaves import by_leaf, dot, norm, sqrt  # noqa: F401, a mistake uses by_leaf


def polyak_step(
    x,
    f,
    learning_rate=1.0,
    f_min=0.0,
    max_learning_rate=None,
    eps=0.0,
    positive_part=False,
):
    """Polyak (1969), with the limit of Loizou et al. (2021), equation (3), and optax's ε."""
    while True:
        g = f.gradient(x)
        gap = f.value(x) - f_min
        if positive_part:
            gap = max(gap, 0)
        step = gap / (dot(g, g) + eps)
        if max_learning_rate is not None:
            step = min(step, max_learning_rate)
        x = x - learning_rate * step * g
        yield x


def barzilai_borwein(x, f, learning_rate=1e-3, short=False):
    """Barzilai & Borwein (1988), equations (5) and (6); where the curvature is not positive the step stays."""
    g, step = f.gradient(x), learning_rate
    while True:
        x, before = x - step * g, x
        yield x
        g, g_before = f.gradient(x), g
        s, y = x - before, g - g_before
        if not dot(s, y) <= 0:
            step = dot(s, y) / dot(y, y) if short else dot(s, s) / dot(s, y)


def adgd(x, f, learning_rate=1e-3):
    """Malitsky & Mishchenko (2020), algorithm 1; where the iterates stand still, so do λ and θ."""
    g, step, theta = f.gradient(x), learning_rate, mpmath.inf
    while True:
        x, before = x - step * g, x
        yield x
        g, g_before = f.gradient(x), g
        s, y = norm(x - before), norm(g - g_before)
        if s == 0:
            continue
        found = _smaller(sqrt(1 + theta) * step, mpmath.inf if y == 0 else s / (2 * y))
        if found < mpmath.inf or mpmath.isnan(found):
            theta, step = found / step, found


def _smaller(a, b):
    """The smaller one; NaN if either is."""
    return a if mpmath.isnan(a) or a < b else b


FORMULAS = {
    "polyak_step": Formula(
        polyak_step,
        (
            Mistake("the gap is divided by |g|, not |g|²", "dot(g, g)", "norm(g)"),
            Mistake(
                "the step is half as long: Loizou's constant c is 2, not 1",
                "step = gap /",
                "step = gap / 2 /",
            ),
            Mistake(
                "each leaf has its own |g|²",
                "dot(g, g)",
                "by_leaf(lambda a: (a * a).sum(), g)",
            ),
            Mistake(
                "the gap has the wrong sign", "f.value(x) - f_min", "f_min - f.value(x)"
            ),
        ),
    ),
    "barzilai_borwein": Formula(
        barzilai_borwein,
        (
            Mistake(
                "the step is the curvature, not its inverse",
                "dot(s, s) / dot(s, y)",
                "dot(s, y) / dot(s, s)",
            ),
            Mistake(
                "the difference of gradients has the wrong sign",
                "g - g_before",
                "g_before - g",
            ),
            Mistake(
                "the step is |s| / |y|, between the long and the short",
                "dot(s, s) / dot(s, y)",
                "norm(s) / norm(y)",
            ),
            Mistake(
                "a negative curvature is used as it is, and the step goes uphill",
                "not dot(s, y) <= 0",
                "dot(s, y) != 0",
            ),
        ),
    ),
    "adgd": Formula(
        adgd,
        (
            Mistake(
                "the second term is |s| / |y|, without the half", "s / (2 * y)", "s / y"
            ),
            Mistake(
                "the growth is limited by 1 + θ, without its root",
                "sqrt(1 + theta)",
                "(1 + theta)",
            ),
            Mistake(
                "the growth is not limited", "sqrt(1 + theta) * step", "mpmath.inf"
            ),
            Mistake(
                "θ is inverted",
                "theta, step = found / step",
                "theta, step = step / found",
            ),
        ),
    ),
}
