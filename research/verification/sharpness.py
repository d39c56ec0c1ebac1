"""Formula of sharpness-aware minimisation, from its paper."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from research.types import Params
from research.verification.card import Card
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import Leaves, norm


def sam(
    x: Leaves, f: Function, learning_rate: float, rho: float = 0.05
) -> Iterator[Leaves]:
    """Yield the iterates of SAM: algorithm 1 of Foret et al. (2021) with p = 2.

    p = 2 means that |g| is the Euclidean norm. For the params w and the objective L
    with the gradient g, the steps are ε̂ = ρ g / |g| and w <- w - η ∇L(w + ε̂). Here η
    is the learning rate, and ρ is `rho`. If g is 0, ε̂ is 0.
    """
    while True:
        g = f.gradient(x)
        length = norm(g)
        climb = rho * (g / length) if length != 0 else 0 * g
        # Where gradients are given they are a linear function's, the same everywhere.
        worst = f.gradient(x + climb) if f.value else g
        x = x - learning_rate * worst
        yield x


def _unit() -> optax.GradientTransformation:
    """Return optax.contrib.normalize with zero gradients left at zero.

    For a zero gradient, optax itself divides 0 by 0.
    """

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        norm = optax.tree.norm(updates)
        return jax.tree.map(
            lambda g: jnp.where(norm == 0, 0.0, g / norm).astype(g.dtype), updates
        ), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def _sam(
    learning_rate: float, rho: float = 0.05
) -> optax.GradientTransformationExtraArgs:
    """Return optax.contrib.sam, with a whole step of SAM in each update.

    The gradient at w + ε̂ (see `sam`) is that of value_fn, an extra argument of the
    update.
    """
    theirs = optax.contrib.sam(
        optax.sgd(learning_rate), optax.chain(_unit(), optax.sgd(rho)), opaque_mode=True
    )

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        return theirs.update(
            updates, state, params, grad_fn=lambda x, _: jax.grad(extra["value_fn"])(x)
        )

    return optax.GradientTransformationExtraArgs(theirs.init, update)


CARDS = {
    "sam": Card(
        Formula(
            sam,
            (
                Mistake(
                    "the gradient at the worst point nearby is never taken",
                    "f.gradient(x + climb)",
                    "g",
                ),
                Mistake(
                    "the gradient is taken at the best point nearby, not at the worst",
                    "x + climb",
                    "x - climb",
                ),
                Mistake("the ascent is not normalised", "g / length", "g"),
                Mistake(
                    "the descent starts from the worst point, not from the params",
                    "x - learning",
                    "x + climb - learning",
                ),
            ),
        ),
        optax=_sam,
        recorded="torch and timm have no such rule",
        # If the radius is much larger than the distance to the minimum, rounding errors
        # grow chaotically: with 0.25, to 1e-11 after 50 steps.
        arguments={"rho": 0.1},
        unit_steps=False,
    ),
}
