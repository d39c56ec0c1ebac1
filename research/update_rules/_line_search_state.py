"""Shared code of rules with a line search.

This code finds a line search by name, keeps the result of the last search in the state,
and chooses the first step size.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from research.checks import shown
from research.schedules import Schedule
from research.types import Array, Outcome, Params, Scalar
from research.update_rules._checks import check_floating, rate_at
from research.update_rules._line_searches import (
    LineSearch,
    backtracking,
    inner,
    norm_of_tree,
    strong_wolfe,
)
from research.update_rules._transforms import cast, working_dtype

Search = Callable[
    ..., LineSearch
]  # (value_fn, params, direction, value, grad, first_step) -> LineSearch
LINE_SEARCHES: dict[str, Search] = {
    "backtracking": backtracking,
    "strong_wolfe": strong_wolfe,
}


class Searched(NamedTuple):
    """Result of the last line search, as kept in a rule's state.

    Attributes:
      learning_rate: Step size along the direction, shape (). 0 if the search failed.
        Before the first search, it is the learning rate of the rule.
      evaluations: Number of evaluations of the objective in the search, int32, shape
        ().
      outcome: `research.types.Outcome` of the search, int32, shape ().
      value_after, grad_after: Objective after the step, shape (), and its gradient
        there, shaped like the params. None if the line search of the rule computes no
        gradients, or if the rule has no line search.
    """

    learning_rate: Float[Array, ""]
    evaluations: Int[Array, ""]
    outcome: Int[Array, ""]
    value_after: Params = None
    grad_after: Params = None


def find_line_search(linesearch: str | Search | None) -> Search | None:
    """Return the line search with the given name, "backtracking" or "strong_wolfe".

    A function is returned unchanged. None, which means a fixed step, gives None.

    Raises:
      ValueError: No line search has this name.
    Example:
      >>> find_line_search("backtracking").__name__
      'backtracking'
    """
    if linesearch is None or callable(linesearch):
        return linesearch
    if not isinstance(linesearch, str) or linesearch not in LINE_SEARCHES:
        raise ValueError(
            f"linesearch must be one of {', '.join(map(repr, LINE_SEARCHES))}, a "
            "function with the arguments of strong_wolfe, or, if the rule allows a "
            f"fixed step, None; got linesearch={shown(linesearch)}."
        )
    return LINE_SEARCHES[linesearch]


def not_yet(
    search: Search | None, params: Params, learning_rate: Scalar | Schedule
) -> Searched:
    """Return the `Searched` that a state holds before the first search.

    The field learning_rate is the rate of the rule, or the value of its schedule at
    step 0. The fields value_after and grad_after are zeros, or None if `search` is None
    or computes no gradients. Only the structure, the shapes and the dtypes of params
    are used.

    Raises:
      TypeError: A leaf of params is not floating, and `search` is not None.
    """
    dtype = working_dtype(params)
    searched = Searched(
        jnp.array(rate_at(learning_rate, _zero()), dtype), *(_zero() for _ in range(2))
    )
    if search is None:
        return searched
    check_floating(params)
    like = jax.tree.map(jnp.zeros_like, params)
    found = jax.eval_shape(
        lambda x, one: search(lambda _: one, x, x, one, x, one),
        params,
        jnp.zeros((), dtype),
    )
    return (
        searched
        if found.grad is None
        else searched._replace(value_after=jnp.zeros((), dtype), grad_after=like)
    )


def take_step(
    search: Search | None,
    direction: Params,
    params: Params,
    grad: Params,
    extra: dict[str, Any],
    first_step: Scalar,
) -> tuple[Params, Searched]:
    """Return the update along a direction, by a line search or with a fixed step size.

    Args:
      search: Line search from `find_line_search`. If it is None, the update is
        first_step times the direction.
      direction, params, grad: Direction, params, and gradient of the objective at the
        params, pytrees of the same structure.
      extra: Extra arguments of update, including `value` and `value_fn`.
      first_step: First step size to try, shape ().
    Returns:
      (updates, searched): the update, shaped like the params, and the `Searched` of
      this step.
    Raises:
      ValueError: search is not None, and params, value or value_fn is missing.
    """
    if search is None:
        rate = jnp.asarray(first_step, working_dtype(direction))
        return _times(rate, direction), Searched(rate, _zero(), _zero() + Outcome.FOUND)
    value, value_fn = extra.get("value"), extra.get("value_fn")
    if params is None or value is None or value_fn is None:
        raise ValueError(
            "a line search needs the objective; call update(grads, state, params, "
            "value=..., value_fn=...), where value_fn maps params to the loss. "
            "research.descent.build and research.descent.minimise pass both."
        )
    dtype = working_dtype(params)
    value = jnp.asarray(value, dtype)
    first_step = _usable(jnp.asarray(first_step, dtype))
    found = search(
        lambda x: jnp.asarray(value_fn(x), dtype),
        params,
        direction,
        value,
        grad,
        first_step,
    )
    searched = Searched(found.step, found.evaluations, found.outcome)
    if found.grad is not None:
        searched = searched._replace(value_after=found.value, grad_after=found.grad)
    return _times(found.step, direction), searched


def _zero() -> Array:
    return jnp.zeros((), jnp.int32)


def _usable(first_step: Array) -> Array:
    """Make the first step size positive and finite.

    A computed step size may overflow or underflow the dtype. Outside of jit, the search
    would then raise an error, as if the user had passed a wrong first step.
    """
    finite = jnp.where(jnp.isfinite(first_step), first_step, 1.0)
    return jnp.maximum(finite, jnp.finfo(first_step.dtype).tiny).astype(
        first_step.dtype
    )


def _times(step: Array, direction: Params) -> Params:
    return jax.tree.map(lambda d: cast(step, d) * d, direction)


def failed(searched: Searched) -> Bool[Array, ""]:
    """Return whether the last search failed to find a step."""
    return searched.outcome >= Outcome.FIRST_FAILURE


def capped_inverse_norm(grad: Params, norm: str = "euclidean") -> Float[Array, ""]:
    """Return min(1, 1 / |g|), the factor that shortens g to a norm of at most 1.

    Args:
      grad: Gradient g.
      norm: "euclidean" for the Euclidean norm over all leaves, as in optax, or
        "absolute" for the sum of the absolute values, as in torch.
    Returns:
      The factor, shape (); 1 if the gradient is zero, and NaN if the norm is NaN.
    Example:
      >>> print(
      ...     capped_inverse_norm(jnp.array([3.0, 4.0])),
      ...     capped_inverse_norm(jnp.array([0.1])),
      ... )
      0.2 1.0
    """
    if norm == "euclidean":
        size = norm_of_tree(grad)
    else:
        size = inner(jax.tree.map(jnp.sign, grad), grad)
    return jnp.where(
        size > 1.0, 1.0 / size, jnp.where(jnp.isnan(size), size, 1.0)
    ).astype(size.dtype)
