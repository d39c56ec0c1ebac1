"""What rules that search along a direction share: the search by name, what their states
keep of it, a first step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from research.schedules import Schedule
from research.types import Array, Outcome, Params
from research.update_rules._checks import rate_at
from research.update_rules._line_searches import (
    LineSearch,
    backtracking,
    inner,
    norm_of,
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
    """What a state keeps of the last search.

    Attributes:
      learning_rate: The step it took along the direction, shape (); 0 if it failed, the
        first trial before any.
      evaluations: Of the objective, in that search; int32, shape ().
      outcome: An `Outcome`, int32, shape ().
      value_after, grad_after: The objective and its gradient after the step; None of a
        search without gradients.
    """

    learning_rate: Array
    evaluations: Array
    outcome: Array
    value_after: Params = None
    grad_after: Params = None


def find_line_search(linesearch: str | Search | None) -> Search | None:
    """The search of that name; a function is itself, and None, a fixed step, is None.

    Raises:
      ValueError: There is none of that name.
    Example:
      >>> find_line_search("backtracking").__name__
      'backtracking'
    """
    if linesearch is None or callable(linesearch):
        return linesearch
    if linesearch not in LINE_SEARCHES:
        raise ValueError(
            f"linesearch must be one of {', '.join(map(repr, LINE_SEARCHES))}, a "
            "function with the arguments of strong_wolfe, or where the rule allows it "
            f"None, a fixed step; got linesearch={linesearch!r}."
        )
    return LINE_SEARCHES[linesearch]


def not_yet(
    search: Search | None, params: Params, learning_rate: float | Array | Schedule
) -> Searched:
    """What a state keeps before the first search."""
    dtype = working_dtype(params)
    searched = Searched(
        jnp.array(rate_at(learning_rate, _zero()), dtype), *(_zero() for _ in range(2))
    )
    if search is None:
        return searched
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
    first_step: float | Array,
) -> tuple[Params, Searched]:
    """The update along a direction, by a line search or, where search is None, of
    first_step times it.

    Args:
      search: From `find_line_search`.
      direction, params, grad: Pytrees of one structure.
      extra: The extra arguments of update, `value` and `value_fn` among them.
      first_step: The search's first trial, shape ().
    Returns:
      (updates, Searched).
    Raises:
      ValueError: params, value or value_fn is missing.
    """
    if search is None:
        rate = jnp.asarray(first_step, working_dtype(direction))
        return _times(rate, direction), Searched(rate, _zero(), _zero() + Outcome.FOUND)
    value, value_fn = extra.get("value"), extra.get("value_fn")
    if params is None or value is None or value_fn is None:
        raise ValueError(
            "a line search needs the objective; call update(grads, state, params, "
            "value=..., value_fn=...), with value_fn: params -> (). A step of "
            "research.descent and research.descent.minimise pass them."
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
    """The first trial, which has to be positive and finite, also where computing it has
    left the range of the dtype.

    Outside of jit a search would refuse another one as if the user had chosen it.
    """
    finite = jnp.where(jnp.isfinite(first_step), first_step, 1.0)
    return jnp.maximum(finite, jnp.finfo(first_step.dtype).tiny).astype(
        first_step.dtype
    )


def _times(step: Array, direction: Params) -> Params:
    return jax.tree.map(lambda d: cast(step, d) * d, direction)


def failed(searched: Searched) -> Array:
    """Whether the last search found no step."""
    return searched.outcome >= Outcome.FIRST_FAILURE


def capped_inverse_norm(grad: Params, norm: str = "euclidean") -> Array:
    """min(1, 1 / |g|): what makes a first step along the gradient no longer than one.

    Args:
      grad: g.
      norm: "euclidean", |g|_2, as optax has it, or "absolute", |g|_1, as torch does.
    Returns:
      The factor, shape (); 1 where the gradient is zero.
    Example:
      >>> print(capped_inverse_norm(jnp.array([3.0, 4.0])), capped_inverse_norm(jnp.array([0.1])))
      0.2 1.0
    """
    euclidean = norm == "euclidean"
    size = norm_of(grad) if euclidean else inner(jax.tree.map(jnp.sign, grad), grad)
    return jnp.where(
        size > 1.0, 1.0 / size, jnp.where(jnp.isnan(size), size, 1.0)
    ).astype(size.dtype)
