"""Authorities on rules that search along a line."""

import math

import optax

from research.proofs.oracles.oracle import Oracle, Recorded
from research.proofs.problems import PROBLEMS

_NO_VALUE = {
    problem.name: "it searches along a line, and only gradients are given"
    for problem in PROBLEMS.values()
    if problem.objective is None
}
_CONJUGATE = {
    "quadratic": "three steps end it, and the rest is rounding; the rule's own tests compare those three",
    "softmax_regression": "conjugate directions magnify rounding tenfold every three steps; the rule's own tests compare "
    "the first ten steps",
}
# Each step compares gradients whose difference is smaller than they are, and a search takes another branch where two
# values tie: on Rosenbrock's valley a rounding grows, at most rates, to a thousand times itself and more within fifty
# steps. The rates are among those where it grows least; measured there: 72 (bfgs) and 319 (lbfgs).
_MAGNIFIED = 4000.0


def armijo(learning_rate=1.0, sufficient_decrease=1e-4, shrink=0.5, increase=None, max_evaluations=50):
    """optax's backtracking under our names."""
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


ORACLES = {
    "backtracking_descent": Oracle(
        armijo,
        "no trajectory of another implementation is recorded: torch has no such rule",
        arguments={"increase": 1.5, "sufficient_decrease": 0.01},
        rates=dict.fromkeys(PROBLEMS, 1.0),
        reasons=_NO_VALUE,
    ),
    "nonlinear_conjugate_gradient": Oracle(
        "optax has no such rule",
        "no trajectory of another implementation is recorded: torch has no such rule",
        arguments={"beta": "hestenes_stiefel"},
        rates=dict.fromkeys(PROBLEMS, 1.0),
        reasons={**_NO_VALUE, **_CONJUGATE},
        bounds={"formula": _MAGNIFIED},
    ),
    "bfgs": Oracle(
        "optax has no such rule",
        "no trajectory of another implementation is recorded: torch has no such rule",
        arguments={"linesearch": "backtracking", "min_curvature": 1e-8},
        rates={**dict.fromkeys(PROBLEMS, 0.25), "rosenbrock": 0.3},
        reasons=_NO_VALUE,
        bounds={"formula": _MAGNIFIED},
    ),
    "lbfgs": Oracle(
        "optax.lbfgs searches in another way, so that only the limits agree; with fixed steps it is the same rule, which "
        "the rule's own tests compare",
        (
            Recorded(
                "lbfgs/fixed step, memory 5",
                {"memory_size": 5, "linesearch": None, "first_step": "absolute", "min_curvature": 1e-10},
            ),
        ),
        arguments={"linesearch": None, "memory_size": 3, "first_step": "absolute", "min_curvature": 1e-8},
        rates={**dict.fromkeys(PROBLEMS, 0.5), "rosenbrock": 0.8},
        reasons=_NO_VALUE,
        # Torch's trace of Rosenbrock ends at the minimum, where the pairs are mostly rounding: 3e-12 in float64, 1e-2
        # in float32; its own distance from the rule in fifty digits is 2e-13.
        bounds={"formula": _MAGNIFIED, "recorded": 1e5},
    ),
}
