"""Authorities on rules that find their own rate."""

import math

import optax

from research.proofs.oracles.oracle import Oracle
from research.proofs.problems import PROBLEMS


def polyak_sgd(learning_rate=1.0, f_min=0.0, max_learning_rate=None, eps=0.0, positive_part=False):
    """optax.polyak_sgd under our names, and without its limit where there is none."""
    limit = math.inf if max_learning_rate is None else max_learning_rate
    return optax.polyak_sgd(limit, learning_rate, f_min, eps, "sps+" if positive_part else "sps")


ORACLES = {
    "polyak_step": Oracle(
        polyak_sgd,
        "no trajectory of another implementation is recorded: torch has no such rule",
        arguments={"f_min": -0.5, "max_learning_rate": 0.125, "eps": 0.01, "positive_part": True},
        rates=dict.fromkeys(PROBLEMS, 1.0),
        reasons={
            problem.name: "it needs the objective's value, and only gradients are given"
            for problem in PROBLEMS.values()
            if problem.objective is None
        },
    ),
    "barzilai_borwein": Oracle(
        "optax has no such rule: its rates depend on the step count or on the value",
        "no trajectory of another implementation is recorded: torch has no such rule",
        arguments={"short": True},
        unit_steps=False,
    ),
    "adgd": Oracle(
        "optax has no such rule: its rates depend on the step count or on the value",
        "no trajectory of another implementation is recorded: torch has no such rule",
        unit_steps=False,
    ),
}
