"""Formulas of rules that find their own learning rate, from their papers."""

import math
from collections.abc import Iterator

import mpmath
import optax

from research.verification.card import Card
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import (  # noqa: F401, a mistake uses by_leaf
    Leaves,
    Number,
    by_leaf,
    dot,
    norm,
    sqrt,
)
from research.verification.problems import GIVEN


def polyak_step(
    x: Leaves,
    f: Function,
    learning_rate: float = 1.0,
    f_min: float = 0.0,
    max_learning_rate: float | None = None,
    eps: float = 0.0,
    positive_part: bool = False,
) -> Iterator[Leaves]:
    """Yield the iterates of gradient descent with Polyak's step size (1969).

    The step size is (f - f_min) / (|g|² + ε), where g is the gradient of f. Polyak has
    ε = 0. With positive_part=True, a negative f - f_min is replaced by 0. The step size
    is limited to `max_learning_rate`, as in equation (3) of Loizou et al. (2021).
    max_learning_rate=None means no limit. Finally the step size is multiplied by
    `learning_rate`.
    """
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


def barzilai_borwein(
    x: Leaves, f: Function, learning_rate: float = 1e-3, short: bool = False
) -> Iterator[Leaves]:
    """Yield the iterates of equations (5) and (6) of Barzilai & Borwein (1988).

    The first step size is `learning_rate`. Each later step size is ⟨s, s⟩ / ⟨s, y⟩, or
    ⟨s, y⟩ / ⟨y, y⟩ with short=True. Here s is the last change of the params, and y is
    the last change of the gradient. If ⟨s, y⟩ is not positive, the step size does not
    change.
    """
    g, step = f.gradient(x), learning_rate
    while True:
        x, before = x - step * g, x
        yield x
        g, g_before = f.gradient(x), g
        s, y = x - before, g - g_before
        if not dot(s, y) <= 0:
            step = dot(s, y) / dot(y, y) if short else dot(s, s) / dot(s, y)


def adgd(x: Leaves, f: Function, learning_rate: float = 1e-3) -> Iterator[Leaves]:
    """Yield the iterates of AdGD: algorithm 1 of Malitsky & Mishchenko (2020).

    λ is the step size, and θ is λ divided by the step size before it. The next λ is the
    smaller of √(1 + θ) λ and |s| / (2 |y|), where s is the last change of the params
    and y that of the gradient. The first λ is `learning_rate`, and the first θ is
    infinite. If the iterates do not move, or if the next λ would be infinite, λ and θ
    do not change.
    """
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


def _smaller(a: Number, b: Number):
    """Return the smaller number; NaN if either is NaN."""
    return a if mpmath.isnan(a) or a < b else b


def polyak_sgd(
    learning_rate: float = 1.0,
    f_min: float = 0.0,
    max_learning_rate: float | None = None,
    eps: float = 0.0,
    positive_part: bool = False,
) -> optax.GradientTransformation:
    """Return optax.scale_by_polyak, followed by a multiplication by -learning_rate.

    This is not optax.polyak_sgd. That rule has no learning rate, but it has an argument
    `scaling`, which multiplies the gradient before scale_by_polyak. Because
    scale_by_polyak divides by the square of the norm of its input, a larger `scaling`
    gives a shorter step.
    """
    limit = math.inf if max_learning_rate is None else max_learning_rate
    step = optax.scale_by_polyak(f_min, limit, eps, "sps+" if positive_part else "sps")
    return optax.chain(step, optax.sgd(learning_rate))


SHRINKING = (
    "given gradients have no curvature, so its rate shrinks until steps are lost in "
    "the rounding of the params"
)


CARDS = {
    "polyak_step": Card(
        Formula(
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
                    "the gap has the wrong sign",
                    "f.value(x) - f_min",
                    "f_min - f.value(x)",
                ),
            ),
        ),
        optax=polyak_sgd,
        recorded=(
            "no trajectory of another implementation is recorded: torch has no such "
            "rule"
        ),
        arguments={
            "f_min": -4.0,
            "max_learning_rate": 0.125,
            "eps": 0.01,
            "positive_part": True,
        },
        # If f cannot reach f_min, full steps end in chaos; a fiftieth of each step
        # does not get that far.
        rates={"quadratic": 1.0, "rosenbrock": 0.02, "softmax_regression": 0.02},
        reasons=dict.fromkeys(
            GIVEN,
            (
                "it needs the value of the objective, but the problem gives only "
                "gradients"
            ),
        ),
    ),
    "barzilai_borwein": Card(
        Formula(
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
                    "a negative curvature is used, and the step goes uphill",
                    "not dot(s, y) <= 0",
                    "dot(s, y) != 0",
                ),
            ),
        ),
        optax=(
            "optax has no such rule: its rates depend on the step count or on the value"
        ),
        recorded=(
            "no trajectory of another implementation is recorded: torch has no such "
            "rule"
        ),
        arguments={"short": True},
        rates={
            "quadratic": 0.2,
            "softmax_regression": 8.0,
            **dict.fromkeys(GIVEN, 0.25),
        },
        reasons={
            "rosenbrock": (
                "the long step is chaotic there: from every first step tried, rounding "
                "grew 10^4 to 10^10 times"
            ),
            "sparse_gradients": SHRINKING,
        },
        # A step divides by the change of the previous one, and is sometimes longer than
        # 2 / L. Up to 840 eps measured.
        bounds={"formula": 4000.0},
    ),
    "adgd": Card(
        Formula(
            adgd,
            (
                Mistake(
                    "the second term is |s| / |y|, without the half",
                    "s / (2 * y)",
                    "s / y",
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
        optax=(
            "optax has no such rule: its rates depend on the step count or on the value"
        ),
        recorded=(
            "no trajectory of another implementation is recorded: torch has no such "
            "rule"
        ),
        rates={
            "rosenbrock": 0.4,
            "softmax_regression": 0.25,
            **dict.fromkeys(GIVEN, 0.25),
        },
        reasons={
            "quadratic": (
                "its steps there grow to several times 2 / L, which magnifies rounding "
                "to 2,000 eps and more"
            ),
            "sparse_gradients": SHRINKING,
        },
        bounds={"formula": 2000.0},  # As above: up to 320 eps measured.
    ),
}
