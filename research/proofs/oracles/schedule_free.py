"""Authorities on schedule-free descent."""

import optax.contrib

from research.proofs.oracles.oracle import Oracle


def optax_sgd(learning_rate, b1=0.9, weight_decay=0.0, weight_power=2.0):
    """optax.contrib.schedule_free_sgd, without warm-up, where it moves by one schedule and weighs by another."""
    return optax.contrib.schedule_free_sgd(
        learning_rate, b1=b1, weight_decay=weight_decay, weight_lr_power=weight_power
    )


def optax_adamw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, weight_power=2.0):
    """optax.contrib.schedule_free_adamw, without warm-up."""
    return optax.contrib.schedule_free_adamw(
        learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, weight_lr_power=weight_power
    )


_NOT_RECORDED = "torch has none; the authors' package writes it in place, its traces are not recorded"

ORACLES = {
    "schedule_free_sgd": Oracle(
        optax_sgd,
        _NOT_RECORDED,
        arguments={"b1": 0.5, "weight_decay": 0.1, "weight_power": 1.0},
        unit_steps=False,
    ),
    "schedule_free_adamw": Oracle(
        optax_adamw,
        _NOT_RECORDED,
        arguments={"b1": 0.5, "b2": 0.9, "eps": 0.01, "weight_decay": 0.1, "weight_power": 1.0},
    ),
}
