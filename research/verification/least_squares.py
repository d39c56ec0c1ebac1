"""Formulas of Gauss-Newton and Levenberg-Marquardt, from their papers.

The formulas need more than a gradient. f.residuals(x) is the list r of residuals, and
f.jacobian(x) is their Jacobian as a list of rows.
"""

from collections.abc import Iterator
from typing import Any

import mpmath

from research.verification.card import Card
from research.verification.formula import Formula, Mistake
from research.verification.leaves import Leaves, column, flat, like, norm
from research.verification.newton import model_minimum


def gauss_newton(
    x: Leaves,
    f: Any,
    learning_rate: float = 1.0,
    sufficient_decrease: float = 1e-4,
    shrink: float = 0.5,
) -> Iterator[Leaves]:
    """Yield the iterates of Gauss-Newton: equation (10.23) of Nocedal & Wright (2006).

    r are the residuals at x, and J is their Jacobian. The direction h solves JᵀJ h =
    -Jᵀr. Armijo's backtracking (algorithm 3.1) gives the step length t: the first of
    learning_rate, shrink · learning_rate, shrink² · learning_rate, ... for which the
    step t h lowers ½ |r|² by at least sufficient_decrease · t |rᵀJh|. Here rᵀJh is the
    slope of ½ |r|² along h, which is at most 0.
    """
    while True:
        r, j = linearised(f, x)
        t, h = learning_rate, -mpmath.lu_solve(j.T * j, j.T * r)
        while (
            half_square(f, x + t * like(h, x))
            > half_square(f, x) + sufficient_decrease * t * (r.T * j * h)[0]
        ):
            t = shrink * t
        x = x + t * like(h, x)
        yield x


def levenberg_marquardt(
    x: Leaves, f: Any, learning_rate: float = 1.0
) -> Iterator[Leaves]:
    """Yield the iterates of Levenberg-Marquardt, with a second model.

    This is algorithm 7.1 of Moré (1978). The second model, which the last paragraph
    describes, is not part of this algorithm.

    r are the residuals at x, and J is their Jacobian. Each step h minimises |J h + r|
    subject to |D h| <= Δ, where Δ is the radius of the trust region. D is a diagonal
    matrix. Its entry k is the largest norm so far of column k of J, or 1 if this norm
    is 0. The minimum is computed with fifty digits. The first Δ is the product
    learning_rate · |D x|, or learning_rate if x is 0. A trial is one step h. If the
    decrease of ½ |r|² is at most 1e-4 times the predicted decrease, the trial is
    rejected, and x is yielded again.

    The first model of ½ |r(x + h)|² is ½ |J h + r|², in which r is linear. The second
    model is the second-order Taylor polynomial of ½ |r(x + h)|². If the first model
    predicts the decrease much worse than the second model in three successive trials, h
    minimises the second model in the following trials. The rule returns to the first
    model after a trial in which both models predict the decrease badly, and the second
    model predicts the decrease worse than the first.
    """
    scale, radius, misses = None, None, 0
    while True:
        r, j = linearised(f, x)
        lengths = [mpmath.norm(j[:, k]) for k in range(j.cols)]
        scale = (
            lengths
            if scale is None
            else [max(pair) for pair in zip(scale, lengths, strict=True)]
        )
        d = mpmath.diag([s or 1 for s in scale])
        if radius is None:
            radius = learning_rate * (mpmath.norm(d * column(x)) or 1)
            first = True
        scaled, quadratic = d**-1 * j.T * j * d**-1, misses == 3
        if quadratic:
            scaled += d**-1 * bending(f, x, r) * d**-1
        p, damping = model_minimum(scaled, like(d**-1 * j.T * r, x), radius)
        h, length = like(d**-1 * column(p), x), norm(p)
        decrease = half_square(f, x) - half_square(f, x + h)
        squares = mpmath.norm(j * column(h)) ** 2 / 2
        linear = -(r.T * j * column(h))[0] - squares
        bend = second(f, x, r, h) / 2
        error, other = abs(decrease - linear), abs(decrease - linear + bend)
        off = error > abs(linear) / 10
        if off and 10 * other < error:
            misses = min(misses + 1, 3)
        elif not quadratic or (off and other > error):
            misses = 0
        promised = linear - bend if quadratic else squares + damping * length**2
        gain = decrease / (promised or 1)
        if gain > mpmath.mpf(1e-4):
            x = x + h
        if gain < mpmath.mpf("0.25"):
            radius = length / 10
        elif gain >= mpmath.mpf("0.75") or damping == 0:
            radius = 2 * length
        elif first:
            radius = length
        first = False
        yield x


def second(f: Any, x: Leaves, r: Any, h: Leaves):
    """Return Σ r_i hᵀ∇²r_i h for the step h, with the residuals r_i at x."""
    along = lambda t: (r.T * mpmath.matrix(f.residuals(x + t * h)))[0]
    return mpmath.diff(along, 0, 2)


def bending(f: Any, x: Leaves, r: Any):
    """Return the matrix Σ r_i ∇²r_i, computed from second derivatives along lines.

    r_i are the residuals at x. The lines have the directions of the axes and of sums of
    two axes.
    """
    n = len(list(flat(x)))
    axes = [like([int(i == k) for i in range(n)], x) for k in range(n)]
    own = [second(f, x, r, axis) for axis in axes]
    return mpmath.matrix(
        [
            [
                own[i]
                if i == k
                else (second(f, x, r, axes[i] + axes[k]) - own[i] - own[k]) / 2
                for k in range(n)
            ]
            for i in range(n)
        ]
    )


def linearised(f: Any, x: Leaves):
    """Return the residuals r of f at x and their Jacobian J, as mpmath matrices."""
    return mpmath.matrix(f.residuals(x)), mpmath.matrix(f.jacobian(x))


def half_square(f: Any, x: Leaves):
    """Return ½ |r|², where r are the residuals of f at x."""
    return mpmath.fsum(r**2 for r in f.residuals(x)) / 2


CARDS = {
    "gauss_newton": Card(
        Formula(
            gauss_newton,
            (
                Mistake(
                    "the gradient of |r|² replaces that of ½ |r|²: the step is twice "
                    "as long",
                    "t, h = learning_rate",
                    "t, h = 2 * learning_rate",
                ),
                Mistake(
                    "the residuals are not evaluated again: no line search",
                    "while (",
                    "while False and (",
                ),
                Mistake(
                    "the step goes down the gradient",
                    "-mpmath.lu_solve(j.T * j, j.T * r)",
                    "-j.T * r",
                ),
                Mistake(
                    "the residuals have the wrong sign",
                    "-mpmath.lu_solve(",
                    "mpmath.lu_solve(",
                ),
            ),
        ),
        optax="optax has no rule for residuals",
        recorded=(
            "no trajectory of another implementation is recorded; "
            "tests/rules/test_least_squares.py has NIST's optima"
        ),
    ),
    "levenberg_marquardt": Card(
        Formula(
            levenberg_marquardt,
            (
                Mistake(
                    "the variables are not scaled",
                    "[s or 1 for s in scale]",
                    "[1 for s in scale]",
                ),
                Mistake("the radius never grows", "radius = 2 * length", "pass"),
                Mistake(
                    "a bad trial divides the step's length by 4, not by 10",
                    "length / 10",
                    "length / 4",
                ),
                Mistake(
                    "a rejected step is taken",
                    "gain > mpmath.mpf(1e-4)",
                    "True",
                ),
                Mistake(
                    "the first radius is a length, whatever the size of x",
                    "(mpmath.norm(d * column(x)) or 1)",
                    "1",
                ),
                Mistake(
                    "the second derivatives are never used",
                    "misses == 3",
                    "False",
                ),
                Mistake(
                    "a single miss changes the model",
                    "min(misses + 1, 3)",
                    "3",
                ),
            ),
        ),
        optax="optax has no rule for residuals",
        recorded=(
            "no trajectory of another implementation is recorded; "
            "tests/rules/test_least_squares.py has NIST's optima"
        ),
    ),
}
