"""Authorities on sharpness-aware minimisation."""

import jax
import jax.numpy as jnp
import optax

from research.verification.oracles.oracle import Oracle


def _unit() -> optax.GradientTransformation:
    """optax.contrib.normalize, which divides 0 by 0 where the gradient is zero; here it stays zero."""

    def update(updates, state, params=None):
        del params
        norm = optax.tree.norm(updates)
        return jax.tree.map(
            lambda g: jnp.where(norm == 0, 0.0, g / norm).astype(g.dtype), updates
        ), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def _sam(learning_rate, rho=0.05) -> optax.GradientTransformationExtraArgs:
    """optax.contrib.sam as one step, given its gradients by a step's value_fn."""
    theirs = optax.contrib.sam(
        optax.sgd(learning_rate), optax.chain(_unit(), optax.sgd(rho)), opaque_mode=True
    )

    def update(updates, state, params=None, **extra):
        return theirs.update(
            updates, state, params, grad_fn=lambda x, _: jax.grad(extra["value_fn"])(x)
        )

    return optax.GradientTransformationExtraArgs(theirs.init, update)


ORACLES = {
    "sam": Oracle(
        _sam,
        "torch and timm have no such rule",
        # A radius much larger than the distance to the minimum makes chaos of the last bit: at 0.25, 1e-11 after 50 steps.
        arguments={"rho": 0.1},
        unit_steps=False,
    ),
}
