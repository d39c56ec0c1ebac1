"""Authorities on rules that search along a line."""

import math

import optax

from research.verification.oracles.oracle import Oracle, Recorded
from research.verification.problems import PROBLEMS

_NO_VALUE = {
    problem.name: "it searches along a line, and only gradients are given"
    for problem in PROBLEMS.values()
    if problem.objective is None
}
_CONJUGATE = {
    "quadratic": "three steps end it, and the rest is rounding; the rule's own tests compare those three",
    "softmax_regression": "conjugate directions magnify rounding tenfold every three steps; the rule's own tests compare "
    "the first six steps",
}
# In Rosenbrock's valley, and where a search takes another branch because two values tie, a rounding grows to thousands
# of times itself within fifty steps, and by how much changes with the rate and with the version of the compiler.
_VALLEY = {
    "rosenbrock": "its valley magnifies rounding a thousandfold and more; the rule's own tests compare the first ten steps"
}


def armijo(
    learning_rate=1.0,
    sufficient_decrease=1e-4,
    shrink=0.5,
    increase=None,
    max_evaluations=50,
):
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
        # Conjugate directions magnify rounding until the minimum is reached, after twenty steps; measured: 402.
        bounds={"formula": 4000.0},
    ),
    "bfgs": Oracle(
        "optax has no such rule",
        "no trajectory of another implementation is recorded: torch has no such rule",
        arguments={"linesearch": None, "first_step": "absolute", "min_curvature": 1e-8},
        rates=dict.fromkeys(PROBLEMS, 0.25),
        reasons={**_NO_VALUE, **_VALLEY},
    ),
    "lbfgs": Oracle(
        "optax.lbfgs searches in another way, so that only the limits agree; with fixed steps it is the same rule, which "
        "the rule's own tests compare",
        (
            Recorded(
                "lbfgs/fixed step, memory 5",
                {
                    "memory_size": 5,
                    "linesearch": None,
                    "first_step": "absolute",
                    "min_curvature": 1e-10,
                },
            ),
        ),
        arguments={
            "linesearch": None,
            "memory_size": 3,
            "first_step": "absolute",
            "min_curvature": 1e-8,
        },
        rates=dict.fromkeys(PROBLEMS, 0.5),
        reasons={**_NO_VALUE, **_VALLEY},
        # The difference of two gradients is smaller than they are, and so its rounding counts for more; measured: 236.
        # Torch's trace of Rosenbrock runs into the valley: 1e-11 in float64 and 1e-2 in float32 at its end, where
        # optax's own run is 6e-12 from the rule in fifty digits; until step 30 it is within 1e-15.
        bounds={"formula": 1000.0, "recorded": 5e5},
    ),
}
