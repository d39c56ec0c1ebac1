"""Optimistic rules, for saddle points: gradient descent and Adam with a correction.

The correction is the last change of the gradient, or of the direction of Adam. In the
formulas, g_t is the gradient, u_t the update and η_t the learning rate at step t. All
operations act entry by entry.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Int

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Params, Scalar
from research.update_rules._adam import adam
from research.update_rules._adam_scheduled import nadam
from research.update_rules._checks import checked
from research.update_rules._edges import complete, within_range
from research.update_rules._entry import Range, RuleEntry, gradient_rate, step_rate
from research.update_rules._transforms import (
    cast,
    descend,
    direction_of,
    increment,
    like,
)


class OptimisticState(NamedTuple):
    """Part of the state of `optimistic_gradient_descent` and of `optimistic_adam`.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      previous: Last gradient (optimistic descent) or last direction of Adam (optimistic
        Adam), shaped like the params.
    """

    count: Int[Array, ""]
    previous: Params


@checked
def optimistic_gradient_descent(
    learning_rate: Scalar | Schedule,
    alpha: Scalar = 1.0,
    beta: Scalar = 1.0,
) -> optax.GradientTransformation:
    """Step against the gradient and its last change.

    u_t = -η_t (α g_t + β (g_t - g_(t-1))), with g_0 = g_1. Here g_t is the gradient,
    u_t the update and η_t the learning rate at step t. Daskalakis et al. use α = β = 1.
    With these values, the rule steps against g_t + (g_t - g_(t-1)), a guess of the next
    gradient. optax.optimistic_gradient_descent is the same rule. torch does not have
    the rule.

    Use it for games and other saddle points, where f(x, y) is minimised over x and
    maximised over y. Pass the negative gradient for y. On f = x y, gradient descent
    moves away from the saddle point for every rate η > 0. This rule, with α = β = 1,
    converges to the saddle point for 0 < η < 1 / √3.

    Args:
      learning_rate: Rate η: a nonnegative number, a traced scalar or a schedule (number
        of earlier steps -> η).
      alpha: Factor α of the gradient, at least 0; may be traced.
      beta: Factor β of the change, at least 0; may be traced. With α = 1 and β = 0, the
        rule is `gradient_descent`.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number.
    References:
      Daskalakis, Ilyas, Syrgkanis & Zeng, Training GANs with optimism, ICLR 2018,
      equation (OMD). Mokhtari, Ozdaglar & Pattathil, A unified analysis of extra-
      gradient and optimistic gradient methods for saddle point problems, AISTATS 2020,
      for α and β.
    Example:
      >>> rule = optimistic_gradient_descent(0.5)
      >>> updates, state = rule.update(jnp.array([2.0]), rule.init(jnp.zeros(1)))
      >>> print(updates, rule.update(jnp.array([4.0]), state)[0])
      [-1.] [-3.]
    """
    return optax.chain(_optimistic(alpha, beta), descend(learning_rate))


@checked
def optimistic_adam(
    learning_rate: Scalar | Schedule,
    alpha: Scalar = 1.0,
    beta: Scalar = 1.0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Adam's step plus the change of Adam's step since the last update.

    u_t = -η_t (α d_t + β (d_t - d_(t-1))), with d_0 = d_1. Here u_t is the update, η_t
    the learning rate, and -d_t the update of `adam` with the rate 1.

    Daskalakis et al. use α = β = 1 and d_0 = 0. optax.optimistic_adam_v2(η, alpha=α,
    beta=β) is the same rule as here, with d_0 = d_1. But its default is nesterov=True,
    with the direction of `nadam`, while the default here is False. The older
    optax.optimistic_adam(η, optimism=o) is the rule with α = 1 and β = o / η, but does
    not accept a schedule. torch does not have the rule.

    Use it for games such as GANs, where Adam circles around the saddle point.

    Args:
      learning_rate, b1, b2, eps, eps_root: Rate η, decays β1 and β2, and constants ε
        and ε_root, as in `adam`.
      alpha: Factor α of the direction, at least 0; may be traced.
      beta: Factor β of the change, at least 0; may be traced. With α = 1 and β = 0, the
        rule is `adam`.
      nesterov: If True, -d_t is the update of `nadam` with the rate 1. If False, -d_t
        is the update of `adam` with the rate 1.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number.
    References:
      Daskalakis, Ilyas, Syrgkanis & Zeng, Training GANs with optimism, ICLR 2018,
      algorithm 1.
    Example:
      >>> rule = optimistic_adam(0.5, b1=0.0, b2=0.0, eps=0.0)
      >>> updates, state = rule.update(jnp.array([2.0]), rule.init(jnp.zeros(1)))
      >>> print(updates, rule.update(jnp.array([-4.0]), state)[0])
      [-0.5] [1.5]
    """
    constructor = nadam if nesterov else adam
    direction = direction_of(constructor(1.0, b1, b2, eps, eps_root))
    return optax.chain(direction, _optimistic(alpha, beta), descend(learning_rate))


def _optimistic(alpha: Scalar, beta: Scalar) -> optax.GradientTransformation:
    check_number("alpha", alpha)
    check_number("beta", beta)

    def init(params: Params):
        return OptimisticState(
            jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params)
        )

    def update(updates: Params, state: Any, params: Params | None = None):
        del params

        def guess(g: Array, before: Array):
            change = jnp.where(
                state.count == 0, 0.0, within_range(like(g, before) - before)
            )
            return cast(alpha, g) * g + like(cast(beta, change) * change, g)

        previous = jax.tree.map(like, updates, state.previous)
        moved = jax.tree.map(guess, updates, state.previous)
        return moved, OptimisticState(increment(state.count), previous)

    return complete(optax.GradientTransformation(init, update))


RULES = (
    RuleEntry(
        optimistic_gradient_descent,
        {
            "learning_rate": gradient_rate(0.01),
            "beta": Range(0.01, 10.0, "log", 1.0),
        },
    ),
    RuleEntry(
        optimistic_adam,
        {"learning_rate": step_rate(1e-3), "beta": Range(0.01, 10.0, "log", 1.0)},
        aliases=("optimistic_adam_v2",),
    ),
)
