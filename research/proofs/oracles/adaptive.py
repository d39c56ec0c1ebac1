"""Authorities on rules with a rate by coordinate."""

import optax

from research.proofs.oracles.oracle import Oracle, Recorded

ORACLES = {
    "adagrad": Oracle(
        optax.adagrad,
        "torch starts from 0 and puts ε outside the root: another rule",
        arguments={"initial_accumulator_value": 0.5, "eps": 0.01},
    ),
    "rmsprop": Oracle(
        optax.rmsprop,
        (Recorded("rmsprop/matched decay 0.9 eps 0.001, eps_in_sqrt=False", {"eps": 0.001, "eps_in_sqrt": False}),),
        arguments={"decay": 0.5, "eps": 0.01, "initial_scale": 1.0, "eps_in_sqrt": False},
        # At 0.05 it comes to the minimum within 50 steps, and there divides a gradient of rounding by its own size.
        rates={"quadratic": 0.02, "softmax_regression": 0.02},
    ),
    "adam": Oracle(
        optax.adam,
        (Recorded("adam/defaults"), Recorded("adam/b1 0.8 b2 0.95 eps 0.1", {"b1": 0.8, "b2": 0.95, "eps": 0.1})),
        arguments={"b1": 0.5, "b2": 0.9, "eps": 0.01, "eps_root": 0.001},
    ),
    "adamw": Oracle(
        optax.adamw,
        (Recorded("adamw/weight decay 0.1", {"weight_decay": 0.1}),),
        arguments={"b1": 0.5, "b2": 0.9, "eps": 0.01, "eps_root": 0.001, "weight_decay": 0.1},
    ),
}
