"""Taylor series of a function along a line, from the series of its operations.

A jaxpr is the program that JAX records when it traces a function. In this package, only
the module `evaluation` evaluates the equations of a jaxpr.
"""

from collections.abc import Callable
from typing import Any

import jax

from research.derivatives._taylor.evaluation import Context, dense, evaluate
from research.derivatives._taylor.power_series import series


def coefficients(f: Callable[..., Any], x: Any, v: Any, order: int) -> Any:
    """Return the Taylor coefficients c_k of f(x + t v) = c_0 + c_1 t + c_2 t² + ...

    c_k is 1/k! times the k-th derivative of f(x + t v) with respect to t, at t = 0.

    Args:
      f: Function of one pytree of floating arrays.
      x: Point, a pytree of arrays.
      v: Direction, in the structure, shapes and dtypes of x.
      order: Largest power of t, at least 1.
    Returns:
      A pytree like f(x), in which each leaf is replaced by the list of its coefficients
      c_0, c_1, ..., c_order.
    """
    jaxpr, shapes = jax.make_jaxpr(f, return_shape=True)(x)
    inputs = [
        series([value, slope, *[None] * (order - 1)])
        for value, slope in zip(jax.tree.leaves(x), jax.tree.leaves(v), strict=True)
    ]
    outputs = evaluate(jaxpr, inputs, Context(order, {}))
    return jax.tree.unflatten(
        jax.tree.structure(shapes),
        [[dense(y, k) for k in range(order + 1)] for y in outputs],
    )
