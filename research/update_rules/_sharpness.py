"""Sharpness-aware minimisation: descent on the worst loss in a neighbourhood."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.checks import check_number
from research.schedules import Schedule
from research.types import Params, Scalar
from research.update_rules._checks import checked, make_inner
from research.update_rules._edges import (
    accepting_none,
    blanked,
    complete,
    filled,
    widened,
)
from research.update_rules._entry import Range, RuleEntry, gradient_rate
from research.update_rules._first_order import gradient_descent
from research.update_rules._transforms import cast


class SamState(NamedTuple):
    """State of `sam`.

    Attributes:
      inner: State of the inner rule.
    """

    inner: optax.OptState


@checked
def sam(
    learning_rate: Scalar | Schedule,
    rho: Scalar = 0.05,
    inner: Callable[..., optax.GradientTransformation] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Descend with the gradient at the worst point in a neighbourhood.

    e_t = ρ g_t / |g_t|, and the inner rule receives the gradient ∇f(x_t + e_t). The
    inner rule is the rule that makes the step (argument `inner`). Here f is the
    objective, x_t are the params and g_t = ∇f(x_t). To first order, x_t + e_t is the
    point with the largest loss within the distance ρ of x_t. |g_t| is the Euclidean
    norm over all leaves (the paper's p = 2). If |g_t| is 0, e_t = 0. Each step costs
    two gradients, both on the examples of the mini-batch.

    The inner rule works with the shifted function y -> f(y + e_t) at y = x_t: the inner
    rule receives the value, grad and value_fn of the shifted function. Weight decay in
    the inner rule applies to x_t, not to x_t + e_t. SAM uses the incoming gradient only
    for the direction of e_t. A clip of the norm before SAM therefore has no effect, so
    clip inside `inner`.

    If g_t is not 0, the rule is the same as optax.contrib.sam(inner(η),
    chain(normalize(), sgd(ρ)), opaque_mode=True). If g_t is 0, optax divides 0 by 0. By
    default, optax splits the same step into two calls of update. torch does not have
    SAM.

    Use it to improve the generalisation of networks that fit their training set. A step
    costs about twice as much as a step of the inner rule alone. On a strongly convex
    problem, which has only one minimum, there is nothing to gain. With a constant rate,
    SAM does not even converge to this minimum, because e_t has the length ρ even near
    the minimum.

    Args:
      learning_rate: Learning rate η of the inner rule. A number of at least 0, a traced
        scalar, or a schedule (number of earlier steps -> η).
      rho: Radius ρ of the neighbourhood, at least 0; may be traced. 0 gives the inner
        rule itself.
      inner: Constructor of the inner rule, called with the learning rate; None means
        gradient_descent.
    Returns:
      The rule; its update needs params and value_fn, the objective as a function of the
      params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number; inner
        is not a constructor; update received no params or value_fn; in init, the params
        are complex.
    References:
      Foret, Kleiner, Mobahi & Neyshabur, Sharpness-aware minimization for efficiently
      improving generalization, ICLR 2021, equations (2)-(3) and algorithm 1.
    Example:
      >>> rule, x = sam(0.5, rho=1.0), jnp.array([3.0])
      >>> # At 3 the worst point nearby is 4, with the gradient 8.
      >>> f = lambda x: jnp.sum(x**2)
      >>> print(rule.update(jax.grad(f)(x), rule.init(x), x, value_fn=f)[0])
      [-4.]
    """
    check_number("rho", rho)
    rule = accepting_none(make_inner(inner, learning_rate, gradient_descent))

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        value: Any = None,
        grad: Any = None,
        value_fn: Any = None,
        **extra: Any,
    ):
        del value, grad
        if params is None or value_fn is None:
            raise ValueError(
                "sam needs params and value_fn to compute the gradient at another "
                "point; call update(grads, state, params, value_fn=f), as "
                "research.descent.build does."
            )
        ascent = _ascent(rho, filled(updates, params), params)

        @functools.wraps(
            value_fn
        )  # Keep the attributes `num_examples` and `is_of_a_part`.
        def moved(x: Params, *drawn: Any, **named: Any):
            return value_fn(jax.tree.map(jnp.add, x, ascent), *drawn, **named)

        value, gradient = jax.value_and_grad(moved)(params)
        gradient = jax.tree.map(
            lambda g, u: g.astype(u.dtype), gradient, filled(updates, params)
        )
        updates, inner_state = rule.update(
            blanked(gradient, updates),
            state.inner,
            params,
            value=value,
            grad=gradient,
            value_fn=moved,
            **extra,
        )
        return updates, SamState(inner_state)

    whole = optax.GradientTransformationExtraArgs(
        lambda params: SamState(rule.init(params)), update
    )
    return complete(whole, only_real="sam", needs_value_fn=True, sees_none=True)


def _ascent(rho: Scalar, gradient: Params, params: Params) -> Params:
    """Return ρ g / |g| in the dtypes of the params.

    The result is 0 if the gradient g is 0, and NaN if an entry of g is NaN.
    """
    # Use at least float32, because the square of a gradient in half precision
    # easily overflows or underflows.
    wide = [widened(g) for g in jax.tree.leaves(gradient)]
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in wide))
    return jax.tree.map(
        lambda g, x: cast(rho, x) * jnp.where(norm == 0, 0.0, g / norm).astype(x.dtype),
        gradient,
        params,
    )


RULES = (
    RuleEntry(
        sam,
        {"learning_rate": gradient_rate(0.01), "rho": Range(1e-3, 1.0, "log", 0.05)},
        evaluations=2.0,
    ),
)
