"""Authorities on DoG and Prodigy."""

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from research.verification.oracles.from_zero import from_zero
from research.verification.oracles.oracle import Oracle
from research.verification.problems import PROBLEMS


def optax_dog(learning_rate=1.0, initial_distance=None, eps=1e-8):
    """optax.contrib.dog, told the distance from the start; of rounded params it is wrong by 1e-10 of itself at first."""
    first = (
        ("heuristic", 1e-6)
        if initial_distance is None
        else ("distance", initial_distance)
    )
    return from_zero(optax.contrib.dog(learning_rate, first, eps), "init_params")


def optax_prodigy(
    learning_rate=1.0,
    b1=0.9,
    b2=0.999,
    b3=None,
    eps=1e-8,
    initial_distance=1e-6,
    distance_factor=1.0,
    bias_correction=False,
):
    """optax.contrib.prodigy, at rest until a gradient is not 0: there it divides 0 by 0, and its params are NaN.

    It corrects every rate for bias; without, a schedule divides by what it multiplies with.
    """

    def uncorrected(count):
        t = count + 1.0
        return learning_rate * (1.0 - b1**t) / jnp.sqrt(1.0 - b2**t)

    rate = learning_rate if bias_correction else uncorrected
    rule = optax.contrib.prodigy(
        rate, (b1, b2), b3, eps, initial_distance, distance_factor
    )
    return _at_rest_before_gradients(from_zero(rule, "params0"))


def _at_rest_before_gradients(
    rule: optax.GradientTransformation,
) -> optax.GradientTransformation:
    def update(updates, state, params=None):
        after = rule.update(updates, state, params)
        # The count goes on.
        inner = jax.tree.map(
            lambda a, b: jnp.where(jnp.issubdtype(a.dtype, jnp.integer), b, a),
            state,
            after[1],
        )
        unmoved = optax.tree_utils.tree_get(state, "exp_avg_sq")
        resting = jnp.array(
            [jnp.all(x == 0) for x in jax.tree.leaves((updates, unmoved))]
        ).all()
        still = (jax.tree.map(jnp.zeros_like, updates), inner)
        return jax.tree.map(lambda a, b: jnp.where(resting, a, b), still, tuple(after))

    return optax.GradientTransformation(rule.init, update)


# Their rate is a factor, and 1 by default.
_RATES = dict.fromkeys(PROBLEMS, 1.0)

ORACLES = {
    "dog": Oracle(
        optax_dog,
        "torch has none; the authors' package is for torch, its traces are not recorded",
        arguments={"initial_distance": 0.03125, "eps": 0.01},
        rates=_RATES,
    ),
    "prodigy": Oracle(
        optax_prodigy,
        "torch has none; the authors' package is for torch, its traces are not recorded",
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "initial_distance": 0.01,
            "distance_factor": 0.25,
            "bias_correction": True,
        },
        rates=_RATES,
        # optax keeps its sums over all leaves in bfloat16, ours in float32. After fifty steps they are 9 eps apart on one
        # processor (32 and 25 from the exact rule), 44 on another (48 and 20).
        bounds={"bfloat16": 16.0},
    ),
}
