"""Formulas of Newton's method, damped and in a trust region, from textbooks."""

from collections.abc import Iterator

import mpmath

from research.verification.card import Card
from research.verification.formula import Formula, Function, Matrix, Mistake
from research.verification.leaves import Leaves, Number, dot, flat, like, norm
from research.verification.problems import GIVEN


def newton(
    x: Leaves,
    f: Function,
    learning_rate: float = 1.0,
    sufficient_decrease: float = 1e-4,
    shrink: float = 0.5,
) -> Iterator[Leaves]:
    """Yield the iterates of algorithms 3.1 and 3.2 of Nocedal & Wright (2006).

    The rule is Newton's method with a line search. The direction p solves B p = -g.
    Here g is the gradient of f at x, and B is the Hessian with its eigenvalues replaced
    by their absolute values (`definite`). Armijo's backtracking gives the step length
    t: the first of learning_rate, shrink · learning_rate, shrink² · learning_rate, ...
    for which the step t p lowers f by at least sufficient_decrease · t |gᵀp|. Here gᵀp
    is the slope of f along p, which is at most 0.
    """
    while True:
        g, t = f.gradient(x), learning_rate
        p = solve(definite(hessian(f, x)), -g)
        while not low_enough(f, x, t * p, sufficient_decrease * t * dot(g, p)):
            t = shrink * t
        x = x + t * p
        yield x


def trust_region_newton(
    x: Leaves,
    f: Function,
    learning_rate: float = 1.0,
    max_radius: float = 1000.0,
    acceptance: float = 0.15,
) -> Iterator[Leaves]:
    """Yield the iterates of algorithm 4.1 of Nocedal & Wright (2006).

    The rule is Newton's method in a trust region. Each step p minimises the quadratic
    model of f at x under the condition |p| <= Δ, where Δ is the radius. `model_minimum`
    solves this problem to the full precision, by theorem 4.1. The first radius is
    `learning_rate`, and the radius never grows beyond `max_radius`. A step is taken if
    the decrease of f is more than `acceptance` times the decrease of the model.
    Otherwise x does not change.
    """
    radius = learning_rate
    while True:
        g, h = f.gradient(x), hessian(f, x)
        p, multiplier = model_minimum(h, g, radius)
        promised = promise(h, g, p)
        gain = decrease(f, x, x + p, promised) / promised if promised else 1
        if not gain <= acceptance:
            x = x + p
        if gain < mpmath.mpf("0.25"):
            radius = radius / 4
        elif gain > mpmath.mpf("0.75") and multiplier > 0:
            radius = min(2 * radius, max_radius)
        yield x


def hessian(f: Function, x: Leaves):
    """Return the Hessian of f at x.

    Some problems of the verification have no objective. They give a gradient for each
    step, which does not depend on x. For such an f, the result is 0. Any other f may
    give its Hessian as the function `f.hessian`. If it does not, the Hessian is
    computed by central differences of the gradient and is accurate to 30 digits.
    """
    n = len(flat(x))
    if f.value is None:
        return mpmath.zeros(n)
    if f.hessian is not None:
        return f.hessian(x)
    h = mpmath.mpf(10) ** -16
    found = mpmath.matrix(n)
    for k in range(n):
        e = like([h * (i == k) for i in range(n)], x)
        column = flat(f.gradient(x + e) - f.gradient(x - e)) / (2 * h)
        found[:, k] = mpmath.matrix(column)
    return (found + found.T) / 2


def definite(h: Matrix):
    """Return H with its eigenvalues replaced by their absolute values.

    H is the symmetric matrix `h`. If H is positive definite, return H itself.
    """
    values, vectors = mpmath.eigsy(h)
    if min(values) > 0:
        return h
    return vectors * mpmath.diag([abs(v) for v in values]) * vectors.T


def damped(h: Matrix, damping: Number):
    """Return H + λ I, where H is the matrix h and λ is the damping."""
    return h + damping * mpmath.eye(h.rows)


def diagonal(h: Matrix):
    """Return the matrix H with all off-diagonal entries set to 0.

    H is the argument h. A `Mistake` is a change that makes a formula wrong. Some
    mistakes of the Newton-like rules call this function, to imitate a program that
    ignores the off-diagonal entries of the Hessian.
    """
    return mpmath.diag([h[i, i] for i in range(h.rows)])


def rooted(h: Matrix, damping: Number):
    """Return the square root of the symmetric matrix H + λ I, where λ is the damping.

    `h` is the matrix H. Negative eigenvalues of H + λ I are replaced by their absolute
    values. Some programs for the rule `natural_gradient` by mistake divide the gradient
    by the root of H + λ I, and not by H + λ I itself. This function imitates them.
    """
    values, vectors = mpmath.eigsy(damped(h, damping))
    return vectors * mpmath.diag([mpmath.sqrt(abs(v)) for v in values]) * vectors.T


def of_length(length: Number, p: Leaves, g: Leaves):
    """Multiply p by `length` / √(pᵀg).

    g is the gradient. If p = H⁻¹ g for a symmetric matrix H, then √(pᵀg) = √(pᵀHp) is
    the length of p in the metric H, and the result has the given length in this metric.
    If √(pᵀg) is 0, return p. The formula of natural gradient descent does not use this
    function. Only a wrong variant of the formula, a `Mistake`, uses it.
    """
    size = mpmath.sqrt(dot(p, g))
    return length / size * p if size else p


def solve(h: Matrix, b: Leaves):
    """Return H⁻¹ b, or 0 if H is 0. If b has a NaN, all entries of the result are NaN.

    h is the matrix H.
    """
    if mpmath.mnorm(h) == 0:
        return 0 * norm(b) * b
    return like(list(mpmath.lu_solve(h, mpmath.matrix(flat(b)))), b) + 0 * norm(b)


def low_enough(f: Function, x: Leaves, step: Leaves, bound: Number):
    """Return whether f(x + step) <= f(x) + bound, or True if f has no values.

    f has no values if the problem is a sequence of given gradients.
    """
    return f.value is None or f.value(x + step) <= f.value(x) + bound


def decrease(f: Function, x: Leaves, y: Leaves, of_linear: Number):
    """Return f(x) - f(y), or `of_linear` if f has no values.

    f has no values if the problem is a sequence of given gradients. In this case, f
    counts as linear, and `of_linear` is the decrease of this linear function from x to
    y.
    """
    return of_linear if f.value is None else f.value(x) - f.value(y)


def promise(h: Matrix, g: Leaves, p: Leaves):
    """Return -(gᵀp + ½ pᵀHp), the decrease that the model predicts for the step p.

    The model is the quadratic model of f at x: f(x) + gᵀp + ½ pᵀHp. Here g is the
    gradient of f, and H is the Hessian, the argument h.
    """
    column = mpmath.matrix(flat(p))
    return -dot(g, p) - (column.T * h * column)[0] / 2


def model_minimum(h: Matrix, g: Leaves, radius: Number):
    """Return the p with |p| <= radius that minimises gᵀp + ½ pᵀHp, and a multiplier.

    g is the gradient, and H is the Hessian h. The multiplier σ belongs to the
    constraint |p| <= radius: p and σ satisfy (H + σ I) p = -g. Bisection finds σ.
    """
    if norm(g) == 0 or mpmath.isnan(norm(g)):
        return norm(g) * g, 0
    if mpmath.mnorm(h) == 0:
        return -radius / norm(g) * g, norm(g) / radius
    values, vectors = mpmath.eigsy(h)
    parts = vectors.T * mpmath.matrix(flat(g))

    def length(sigma: Number):
        return mpmath.sqrt(
            mpmath.fsum(
                (c / (v + sigma)) ** 2 for c, v in zip(parts, values, strict=True)
            )
        )

    low = max(mpmath.mpf(0), -min(values))
    high = low + norm(g) / radius
    if min(values) > 0 and length(0) <= radius:
        high = low
    while high - low > mpmath.mpf(10) ** -45 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if length(middle) > radius else (low, middle)
    scaled = mpmath.matrix(
        [-c / (v + high) for c, v in zip(parts, values, strict=True)]
    )
    return like(list(vectors * scaled), g), high


# With full steps the rule would reach the minimum after a few steps, so a fraction of
# the step is used. On given gradients, whose function is linear, the natural gradient
# takes no step unless it is damped.
FRACTIONS = {
    "quadratic": 0.25,
    "rosenbrock": 0.5,
    "softmax_regression": 0.5,
    **dict.fromkeys(GIVEN, 1.0),
}


RADII = {
    "quadratic": 0.125,
    "rosenbrock": 0.125,
    "softmax_regression": 0.25,
    **dict.fromkeys(GIVEN, 0.25),
}


CARDS = {
    "newton": Card(
        Formula(
            newton,
            (
                Mistake(
                    "the diagonal of the Hessian replaces the Hessian",
                    "definite(h",
                    "diagonal(h",
                ),
                Mistake(
                    "the Hessian is left out: steepest descent with backtracking",
                    "solve(definite(hessian(f, x)), -g)",
                    "-g",
                ),
                Mistake(
                    "no line search: every first trial is taken",
                    "while not low_enough",
                    "while False and low_enough",
                ),
                Mistake(
                    "the step is halved once more",
                    "x = x + t * p",
                    "x = x + shrink * t * p",
                ),
            ),
        ),
        optax="optax has no Newton's method",
        recorded="neither torch nor timm has Newton's method",
        arguments={"sufficient_decrease": 0.25, "shrink": 0.25},
        rates={
            **FRACTIONS,
            "rosenbrock": 0.875,
        },  # Some trial steps are refused. At rate 1, rounding errors grow to 2500 eps.
        reasons=dict.fromkeys(
            GIVEN,
            "a problem of given gradients is linear and has no curvature, so the rule "
            "takes no step",
        ),
    ),
    "trust_region_newton": Card(
        Formula(
            trust_region_newton,
            (
                Mistake(
                    "the radius grows though the step ended inside",
                    " and multiplier > 0",
                    "",
                ),
                Mistake(
                    "a rejected step is taken",
                    "not gain <= acceptance",
                    "True",
                ),
                Mistake(
                    "the radius is halved instead of quartered",
                    "radius / 4",
                    "radius / 2",
                ),
                Mistake(
                    "the radius is quadrupled instead of doubled",
                    "2 * radius",
                    "4 * radius",
                ),
                Mistake(
                    "the model has no curvature: every step goes down the gradient to "
                    "the edge",
                    "model_minimum(h",
                    "model_minimum(0 * h",
                ),
            ),
        ),
        optax="optax has no trust region",
        recorded="neither torch nor timm has a trust region",
        arguments={"max_radius": 0.25, "acceptance": 0.0625},
        rates=RADII,
    ),
}
