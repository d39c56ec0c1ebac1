"""Authorities on DoG and Prodigy."""

import optax.contrib

from research.proofs.oracles.oracle import Oracle
from research.proofs.problems import PROBLEMS


def optax_dog(learning_rate=1.0, initial_distance=None, eps=1e-8):
    """optax.contrib.dog; it takes the distance of rounded params."""
    first = ("heuristic", 1e-6) if initial_distance is None else ("distance", initial_distance)
    return optax.contrib.dog(learning_rate, first, eps)


def optax_prodigy(learning_rate=1.0, **arguments):
    raise NotImplementedError


_RATE_OF_ONE = dict.fromkeys(PROBLEMS, 1.0)

ORACLES = {
    "dog": Oracle(
        optax_dog,
        "torch has none; the authors' package is another source, its traces are not recorded",
        arguments={"initial_distance": 0.125, "eps": 0.01},
        rates=_RATE_OF_ONE,
    ),
}
