"""Authorities on rules that find their own rate."""

import math

import optax

from research.verification.oracles.oracle import Oracle
from research.verification.problems import PROBLEMS


def polyak_sgd(
    learning_rate=1.0, f_min=0.0, max_learning_rate=None, eps=0.0, positive_part=False
):
    """optax.scale_by_polyak, which optax.polyak_sgd is made of, with the factor after it.

    polyak_sgd multiplies the gradient by its `scaling` before it takes the norm, so that the step is divided by it.
    """
    limit = math.inf if max_learning_rate is None else max_learning_rate
    step = optax.scale_by_polyak(f_min, limit, eps, "sps+" if positive_part else "sps")
    return optax.chain(step, optax.sgd(learning_rate))


GIVEN = [problem.name for problem in PROBLEMS.values() if problem.objective is None]
SHRINKING = "given gradients have no curvature, so its rate shrinks until steps are lost in the rounding of the params"

ORACLES = {
    "polyak_step": Oracle(
        polyak_sgd,
        "no trajectory of another implementation is recorded: torch has no such rule",
        arguments={
            "f_min": -4.0,
            "max_learning_rate": 0.125,
            "eps": 0.01,
            "positive_part": True,
        },
        # Where f_min is out of reach its steps end in chaos; a fiftieth of them does not get that far.
        rates={"quadratic": 1.0, "rosenbrock": 0.02, "softmax_regression": 0.02},
        reasons=dict.fromkeys(
            GIVEN, "it needs the objective's value, and only gradients are given"
        ),
    ),
    "barzilai_borwein": Oracle(
        "optax has no such rule: its rates depend on the step count or on the value",
        "no trajectory of another implementation is recorded: torch has no such rule",
        arguments={"short": True},
        rates={
            "quadratic": 0.2,
            "softmax_regression": 8.0,
            **dict.fromkeys(GIVEN, 0.25),
        },
        reasons={
            "rosenbrock": "the long step is chaotic there: from every first step tried, rounding grew 10^4 to 10^10 times",
            "sparse_gradients": SHRINKING,
        },
        # A step divides by what the last one changed, and is longer than 2 / L every so often: up to 840 eps measured.
        bounds={"formula": 4000.0},
    ),
    "adgd": Oracle(
        "optax has no such rule: its rates depend on the step count or on the value",
        "no trajectory of another implementation is recorded: torch has no such rule",
        rates={
            "rosenbrock": 0.4,
            "softmax_regression": 0.25,
            **dict.fromkeys(GIVEN, 0.25),
        },
        reasons={
            "quadratic": "its steps there grow to several times 2 / L, which magnifies rounding to 2,000 eps and more",
            "sparse_gradients": SHRINKING,
        },
        bounds={"formula": 2000.0},  # As above: up to 320 eps measured.
    ),
}
