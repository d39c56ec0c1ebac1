"""Formulas of rules that search along a line, from Nocedal & Wright.

The rules are backtracking descent and conjugate gradients.
"""

import math
from collections.abc import Iterator
from typing import Any

import optax

from research.verification.card import Card
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import (
    Leaves,
    Number,
    dot,
    norm,
)
from research.verification.line_searches import backtracking, capped, strong_wolfe
from research.verification.problems import PROBLEMS


def backtracking_descent(
    x: Leaves,
    f: Function,
    learning_rate: float = 1.0,
    sufficient_decrease: float = 1e-4,
    shrink: float = 0.5,
    increase: float | None = None,
    max_evaluations: int = 50,
) -> Iterator[Leaves]:
    """Yield the iterates of backtracking along -g, from Armijo (1966).

    This is algorithm 3.1 of Nocedal & Wright, with the negative gradient -g as the
    direction. Each step tries step lengths s, until f(x - s g) <= f(x) -
    sufficient_decrease · s |g|². By default, the first s is `learning_rate`. But if
    `increase` is given, and the step before had a step length a that is not 0, the
    first s is the smaller of `learning_rate` and increase · a. Each further s is
    `shrink` times the s before. A step tries at most `max_evaluations` step lengths. If
    none of them satisfies the condition, the step length is 0.
    """
    a = 0
    while True:
        d = -f.gradient(x)
        first = learning_rate
        if increase is not None and a != 0:
            first = min(learning_rate, increase * a)
        a = backtracking(f, x, d, first, sufficient_decrease, shrink, max_evaluations)
        x = x + a * d
        yield x


def nonlinear_conjugate_gradient(
    x: Leaves,
    f: Function,
    learning_rate: float = 1.0,
    beta: str = "polak_ribiere_plus",
    linesearch: str = "strong_wolfe",
) -> Iterator[Leaves]:
    """Yield the iterates of algorithm 5.4 of Nocedal & Wright.

    The rule is the nonlinear conjugate gradient method. The argument `beta` names the
    formula for β, the factor of the last direction: "fletcher_reeves" (equation 5.41),
    "polak_ribiere_plus" (5.45), "hestenes_stiefel" (5.46) or "dai_yuan" (5.49). Any
    other name selects the formula of Polak and Ribière (5.44). `linesearch` is
    "strong_wolfe" or "backtracking". The first line search begins with the step length
    learning_rate · min(1, 1 / |g|), where g is the gradient. Each later search begins
    with the step length a · r / s (section 3.5). Here a is the step length of the last
    step, r is the slope of the last step, and s is the slope of the present step. A
    slope is gᵀd, where d is the direction. If gᵀd is not negative, -g replaces d. If a
    or s is 0, the search begins like the first search.
    """
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


def flat(f: Function, x: Leaves, d: Leaves, first: Number):
    """Return the step length of `strong_wolfe` with the bound c2 = 0.1 on the slope.

    The search demands that the absolute slope along d falls to at most c2 times its
    value at x. The value 0.1 is usual for conjugate gradients.
    """
    return strong_wolfe(f, x, d, first, c2=0.1)


def conjugacy(beta: str, g: Leaves, g_before: Any, d: Leaves):
    """Return the factor β of the last direction, by the formula that `beta` names.

    The next direction is -g + β d, where g is the present gradient and d is the last
    direction. g_before is the gradient one step earlier. β is 0 if the formula divides
    by zero. `nonlinear_conjugate_gradient` lists the names of the formulas.
    """
    y = g - g_before
    above = dot(g, g) if beta in ("fletcher_reeves", "dai_yuan") else dot(g, y)
    below = (
        dot(d, y)
        if beta in ("hestenes_stiefel", "dai_yuan")
        else dot(g_before, g_before)
    )
    found = above / below if below != 0 else 0
    return max(found, 0) if beta == "polak_ribiere_plus" else found


NO_VALUE = {
    problem.name: "it searches along a line, but the problem gives only gradients"
    for problem in PROBLEMS.values()
    if problem.objective is None
}


_CONJUGATE = {
    "quadratic": (
        "it ends after three steps, and the rest is rounding; the rule's own tests "
        "compare these three steps"
    ),
    "softmax_regression": (
        "conjugate directions magnify rounding tenfold every three steps; the rule's "
        "own tests compare the first six steps"
    ),
}


def armijo(
    learning_rate: float = 1.0,
    sufficient_decrease: float = 1e-4,
    shrink: float = 0.5,
    increase: float | None = None,
    max_evaluations: int = 50,
) -> optax.GradientTransformation:
    """Return optax's backtracking descent, with this library's argument names."""
    return optax.chain(
        optax.sgd(1.0),
        optax.scale_by_backtracking_linesearch(
            max_evaluations,
            slope_rtol=sufficient_decrease,
            decrease_factor=shrink,
            increase_factor=math.inf if increase is None else increase,
            max_learning_rate=learning_rate,
        ),
    )


CARDS = {
    "backtracking_descent": Card(
        Formula(
            backtracking_descent,
            (
                Mistake(
                    "sufficient_decrease and shrink are swapped",
                    "sufficient_decrease, shrink, max_evaluations)",
                    "shrink, sufficient_decrease, max_evaluations)",
                ),
                Mistake(
                    "each search starts from the last accepted step",
                    "first = learning_rate",
                    "first = a or learning_rate",
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
        optax=armijo,
        recorded=(
            "no trajectory of another implementation is recorded: torch has no such "
            "rule"
        ),
        arguments={"increase": 1.5, "sufficient_decrease": 0.01},
        rates=dict.fromkeys(PROBLEMS, 1.0),
        reasons=NO_VALUE,
    ),
    "nonlinear_conjugate_gradient": Card(
        Formula(
            nonlinear_conjugate_gradient,
            (
                Mistake(
                    "the last direction is missing: this is gradient descent",
                    "-g + share * d",
                    "-g",
                ),
                Mistake("the last direction is subtracted", "-g + share", "-g - share"),
                Mistake(
                    "β divides by |g_t|², not by |g_(t-1)|²",
                    "g_before, d)",
                    "g_before, d) * dot(g_before, g_before) / dot(g, g)",
                ),
                Mistake(
                    "the first trial is scaled the wrong way round",
                    "a * slope_before / slope",
                    "a * slope / slope_before",
                ),
            ),
        ),
        optax="optax has no such rule",
        recorded=(
            "no trajectory of another implementation is recorded: torch has no such "
            "rule"
        ),
        arguments={"beta": "hestenes_stiefel"},
        rates=dict.fromkeys(PROBLEMS, 1.0),
        reasons={**NO_VALUE, **_CONJUGATE},
        # Conjugate directions magnify rounding errors until they reach the minimum
        # after twenty steps. Measured: 402.
        bounds={"formula": 4000.0},
    ),
}
