"""Verification by comparison: a rule of ours against another implementation of it, iterate by iterate."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.checks import check_callable, check_dtype, check_number, check_tree
from research.types import Array, Batch, Params
from research.update_rules import find_rule
from research.update_rules._checks import check_rule
from research.verification.cards import CARDS


class TrajectoryDeviation(NamedTuple):
    """Where two trajectories from one start lie furthest apart.

    Attributes:
      largest: max |a - b| / (1 + |b|) over steps and components, b the reference; inf where exactly one of a and b is
        finite or both are NaN, so that runs which broke down never count as equal.
      step: The step, from 0, after which it is attained first.
      leaf: The path of the leaf in which it is, as `jax.tree_util.keystr` writes it ("" for a bare array).
    """

    largest: float
    step: int
    leaf: str


def trajectory(
    rule: optax.GradientTransformation,
    gradient: Callable[[Params], Params],
    params: Params,
    num_steps: int,
) -> Params:
    """The iterates x_0, x_1, ..., x_T of x_(t+1) = x_t + u_t, in one scan.

    Args:
      rule: Any gradient transformation, ours or another's.
      gradient: params -> gradient, such as jax.grad(f).
      params: x_0.
      num_steps: T, a positive integer.
    Returns:
      The params with a leading axis of length num_steps + 1 on every leaf.
    Raises:
      ValueError, TypeError: num_steps is not a positive integer, or the gradient's dtypes are not those of the params.
    Example:
      >>> print(trajectory(optax.sgd(0.5), jax.grad(lambda x: x**2 / 2), jnp.array(8.0), 3))
      [8. 4. 2. 1.]
    """
    check_rule(rule)
    check_callable("gradient", gradient, "params")
    check_tree("params", params)
    check_number("num_steps", num_steps, positive=True, integer=True)
    params = _cast(params, None)
    _check_dtypes("gradient", jax.eval_shape(gradient, params), params)

    rule = optax.with_extra_args_support(rule)

    def step(carry, _):
        carry = _advance(rule, gradient, carry)
        return carry, carry[0]

    _, iterates = jax.lax.scan(step, (params, rule.init(params)), length=num_steps)
    return jax.tree.map(
        lambda first, rest: jnp.concatenate([jnp.expand_dims(first, 0), rest]),
        params,
        iterates,
    )


def deviation(
    rule: optax.GradientTransformation,
    reference: optax.GradientTransformation,
    gradient: Callable[[Params], Params],
    params: Params,
    num_steps: int,
    dtype: Any = None,
) -> TrajectoryDeviation:
    """The largest difference between the iterates of two rules over a whole trajectory, each following its own.

    Neither trajectory is kept: both run in one compiled scan that returns a number for each step and leaf.

    Args:
      rule, reference: The two, as gradient transformations.
      gradient: params -> gradient.
      params: The common start.
      num_steps: A positive integer.
      dtype: Params are cast to it first; None leaves them. The gradient must then compute in it, too.
    Returns:
      The TrajectoryDeviation.
    Raises:
      TypeError: The gradient, or an update, has another dtype than the params: the comparison would be in neither.
      ValueError: num_steps is not a positive integer, or dtype is float64 while JAX's float64 is off.
    Example:
      >>> gradient = jax.grad(lambda x: jnp.sum(x["w"] ** 2) / 2)
      >>> found = deviation(optax.sgd(0.5), optax.sgd(0.25), gradient, {"w": jnp.ones(3)}, num_steps=2)
      >>> print(f"{found.largest:.3f} after step {found.step} in {found.leaf}")
      0.200 after step 1 in ['w']
    """
    check_rule(rule)
    check_rule(reference, "reference")
    check_callable("gradient", gradient, "params")
    check_tree("params", params)
    check_number("num_steps", num_steps, positive=True, integer=True)
    params = _cast(params, dtype)
    differences = jax.jit(
        lambda start: _differences(rule, reference, gradient, start, num_steps)
    )(params)
    return _largest(differences, params)


def deviation_from_optax(
    name: str,
    objective: Callable[[Params, Any], Array],
    params: Params,
    batch: Any,
    learning_rate: float,
    num_steps: int,
    dtype: Any = jnp.float64,
) -> TrajectoryDeviation:
    """The deviation of our rule of that name, with its defaults, from its counterpart in optax on full-batch descent.

    Args:
      name: A key of CARDS, whose entry has a counterpart in optax.
      objective: (params, batch) -> (), such as a workload's.
      params: The start.
      batch: What the objective takes: a Batch, None, or any pytree; its floats are cast, too.
      learning_rate: A number of at least 0.
      num_steps: A positive integer.
      dtype: Of params, batch and rate.
    Returns:
      The TrajectoryDeviation.
    Raises:
      ValueError, TypeError: As in `deviation`; the name is unknown, or optax has no such rule.
    Example:
      >>> objective = lambda x, batch: jnp.sum((x - batch) ** 2)
      >>> deviation_from_optax("heavy_ball", objective, jnp.ones(3), jnp.zeros(3), 0.1, 50, "float32").largest < 1e-6
      True
    """
    constructor, counterpart = find_rule(name), CARDS[name].optax
    check_callable("objective", objective, "params", "batch")
    check_tree("params", params)
    check_tree("batch", batch._replace(key=None) if isinstance(batch, Batch) else batch)
    check_number("learning_rate", learning_rate)
    check_number("num_steps", num_steps, positive=True, integer=True)
    if isinstance(counterpart, str):
        raise ValueError(f"rule {name!r} has no counterpart in optax: {counterpart}.")
    params, batch, rate = _cast(
        (params, batch, jnp.asarray(learning_rate, float)), dtype
    )
    differences = _differences_from_optax(
        (constructor, counterpart), objective, int(num_steps), params, batch, rate
    )
    return _largest(differences, params)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _differences_from_optax(constructors, objective, num_steps, params, batch, rate):
    ours, theirs = (
        constructor(rate) for constructor in constructors
    )  # The rate is traced: one program for all rates.

    def value_fn(x, indices=None):
        del indices
        return objective(x, batch)

    return _differences(ours, theirs, jax.grad(value_fn), params, num_steps, value_fn)


def _differences(rule, reference, gradient, params, num_steps, value_fn=None) -> Array:
    """The largest relative difference of each leaf after each step, shape (num_steps, number of leaves)."""
    check_number("num_steps", num_steps, positive=True, integer=True)
    _check_dtypes("gradient", jax.eval_shape(gradient, params), params)

    def difference(a, b):
        d = jnp.where(a == b, 0.0, jnp.abs(a - b) / (1.0 + jnp.abs(b)))
        return jnp.max(jnp.where(jnp.isnan(d), jnp.inf, d), initial=0.0)

    def step(carry, _):
        mine, other = (
            _advance(r, gradient, c, value_fn)
            for r, c in zip(rules, carry, strict=True)
        )
        return (mine, other), jnp.stack(
            jax.tree.leaves(jax.tree.map(difference, mine[0], other[0]))
        )

    rules = [optax.with_extra_args_support(r) for r in (rule, reference)]
    return jax.lax.scan(
        step, tuple((params, r.init(params)) for r in rules), length=num_steps
    )[1]


def _advance(rule, gradient, carry, value_fn=None):
    """One step, with the extra arguments that a step of descent passes where there is a function to ask."""
    params, state = carry
    grads = gradient(params)
    extra = (
        {}
        if value_fn is None
        else {
            "value": value_fn(params),
            "grad": grads,
            "value_fn": value_fn,
            "indices": None,
        }
    )
    updates, state = rule.update(grads, state, params, **extra)
    _check_dtypes("update", updates, params)
    return optax.apply_updates(params, updates), state


def _largest(differences: Array, params: Params) -> TrajectoryDeviation:
    values = np.asarray(differences, dtype=np.float64)
    step, leaf = np.unravel_index(np.argmax(values), values.shape)
    paths = [
        jax.tree_util.keystr(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    return TrajectoryDeviation(float(values[step, leaf]), int(step), paths[leaf])


def _cast(tree: Any, dtype: Any) -> Any:
    """As arrays; the floats among them of that dtype, unless it is None."""
    if dtype is not None:
        check_dtype("dtype", dtype)
    if (
        dtype is not None
        and jnp.dtype(dtype) == jnp.float64
        and not jax.config.read("jax_enable_x64")
    ):
        raise ValueError(
            "dtype=float64, but JAX's float64 is off; call research.backend.configure(x64=True) first."
        )

    def cast(leaf):
        leaf = jnp.asarray(leaf)
        return (
            leaf.astype(dtype)
            if dtype is not None and jnp.issubdtype(leaf.dtype, jnp.floating)
            else leaf
        )

    return jax.tree.map(cast, tree)


def _check_dtypes(what: str, tree: Params, params: Params) -> None:
    for (path, leaf), x in zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(params), strict=True
    ):
        if leaf.dtype != x.dtype:
            raise TypeError(
                f"the {what} at {jax.tree_util.keystr(path) or 'the only leaf'} is {leaf.dtype} where the params are "
                f"{x.dtype}; cast the data that it is computed from, and traced hyper-parameters, to {x.dtype}."
            )
