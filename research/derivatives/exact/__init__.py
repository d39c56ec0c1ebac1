"""Exact derivatives by JAX: of any order, of pytrees, forward or reverse as the shapes ask, and said which."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from research.checks import check_callable, shown
from research.derivatives.errors import NotScalarError, UnsupportedPrimitiveError
from research.derivatives.exact.arguments import (
    described,
    floating,
    outputs_of,
    point_and_direction,
    scalar,
    size,
    title,
)
from research.derivatives.exact.modes import (
    Mode,
    ModeName,
    chosen_mode,
    differentiated_in,
)

__all__ = [
    "Mode",
    "chosen_mode",
    "derivative",
    "directional_derivative",
    "gradient",
    "hessian",
    "hessian_diagonal",
    "hessian_vector_product",
    "jacobian",
]

MOST_ORDER = 100  # Python's own recursion ends soon after, and no program of 2^order operations ends before.


def derivative(f: Callable, x: Any, order: int = 1) -> Any:
    """The derivative of f at a number x: f'(x), or of any order, by forward mode nested in itself.

    Nesting costs about 2^order times f; order 6 takes seconds to trace. For many points, `jax.vmap` over x.

    Where f chooses between branches (`jnp.where`, `lax.cond`), the derivative is that of the branch taken at x, not of f: of
    jnp.where(x == 0, 1, jnp.sin(x) / x) at 0 it is 0 for every order, where f'' = -1/3. Use `jnp.sinc`, a series near 0, or
    `finite_difference`, which looks at the values on both sides.

    Args:
      f: Function of one real number; it may give an array or a pytree, whose every entry is differentiated.
      x: A floating number, shape ().
      order: How often to differentiate; 0 gives f(x).
    Returns:
      The derivative, in the shape of f(x).
    Raises:
      NotScalarError: x is no single number.
      NotInexactError: x, or what f gives, is no floating number.
      UnsupportedPrimitiveError: f has a rule for reverse mode alone (`jax.custom_vjp`).
      ValueError: order is negative or no integer.
    Example:
      >>> [float(derivative(lambda x: x**3, 2.0, order=n)) for n in range(5)]
      [8.0, 12.0, 12.0, 6.0, 0.0]
    """
    check_callable("f", f, "x")
    if (
        not isinstance(order, int | np.integer)
        or isinstance(order, bool)
        or not 0 <= order <= MOST_ORDER
    ):
        raise ValueError(
            f"order must be a whole number from 0 on, at most {MOST_ORDER}; got order={shown(order)}."
        )
    x = floating(x, "x")
    if not isinstance(x, jax.Array) or x.shape:
        raise NotScalarError(
            f"x must be a single number; got {described(x)}. Use gradient(f, x) where f gives a number, jacobian(f, x) "
            "where it gives more, or jax.vmap(lambda x: derivative(f, x)) for f at each entry."
        )

    def differentiated(times: int) -> Callable:
        if not times:
            return f
        lower = differentiated(times - 1)
        return lambda t: jax.jvp(lower, (t,), (jnp.ones_like(t),))[1]

    if order:
        outputs_of(f, x)
    try:
        return differentiated(int(order))(x)
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise UnsupportedPrimitiveError(
            f"{title(f)} has a derivative of its own for reverse mode alone (jax.custom_vjp); use gradient(f, x)."
        ) from error


def gradient(f: Callable, x: Any, mode: ModeName = "auto") -> Any:
    """The gradient of a function with one real value: all its partial derivatives, (∂f/∂x_1, ..., ∂f/∂x_n).

    As with `derivative`, it is that of the branch which f takes at x. Reverse mode gives NaN where the branch not taken is not
    finite, as sin(x) / x at 0, for 0 times NaN is NaN. Keep that branch finite, too: safe = jnp.where(x == 0, 1, x), then
    jnp.where(x == 0, 1, jnp.sin(safe) / safe).

    Args:
      f: Function of one pytree of floating arrays that gives one real number, shape ().
      x: Where.
      mode: "forward", "reverse", or "auto": as `chosen_mode(f, x)` says.
    Returns:
      The partial derivatives, in the structure and shapes of x.
    Raises:
      NotScalarError: f gives something other than one number.
      NotInexactError: A leaf of x, or what f gives, is no floating number.
      ValueError: mode is unknown.
    Example:
      >>> gradient(lambda p: p["a"] * jnp.sum(p["b"] ** 2), {"a": 2.0, "b": jnp.array([1.0, 3.0])})["b"].tolist()
      [4.0, 12.0]
    """
    check_callable("f", f, "x")
    x = floating(x, "x")
    return differentiated_in(scalar(f, "gradient"), x, mode, outputs=1)


def jacobian(f: Callable, x: Any, mode: ModeName = "auto") -> Any:
    """Every output's derivative in every input: J_ij = ∂f_i / ∂x_j.

    Args:
      f: Function of one pytree of floating arrays that gives an array, or a pytree of them.
      x: Where.
      mode: "forward", "reverse", or "auto": as `chosen_mode(f, x)` says.
    Returns:
      For arrays, an array of shape f(x).shape + x.shape; for pytrees, in each leaf of f(x) the structure of x.
    Raises:
      NotInexactError: A leaf of x, or what f gives, is no floating number.
      ValueError: mode is unknown.
    Example:
      >>> jacobian(lambda x: jnp.array([x[0] * x[1], x[0] + x[1]]), jnp.array([2.0, 5.0])).tolist()
      [[5.0, 2.0], [1.0, 1.0]]
    """
    check_callable("f", f, "x")
    x = floating(x, "x")
    return differentiated_in(f, x, mode, size(outputs_of(f, x)))


def hessian(f: Callable, x: Any, mode: ModeName = "auto") -> Any:
    """All second partial derivatives of a function with one real value: H_ij = ∂²f / ∂x_i ∂x_j.

    They are those of the branch that f takes at x, as for `derivative` and `gradient`.

    The gradient, which has as many outputs as inputs, is itself differentiated forward (in reverse, if that is all
    that f allows).

    Args:
      f: Function of one pytree of floating arrays that gives one real number.
      x: Where.
      mode: Of the gradient within; "auto" is reverse for more inputs than one.
    Returns:
      For an array, an array of shape x.shape + x.shape; for a pytree, in each leaf of x the structure of x.
    Raises:
      NotScalarError, NotInexactError, ValueError: As `gradient`.
    Example:
      >>> hessian(lambda x: x[0] ** 2 * x[1], jnp.array([3.0, 5.0])).tolist()
      [[10.0, 6.0], [6.0, 0.0]]
    """
    check_callable("f", f, "x")
    x = floating(x, "x")
    return differentiated_in(lambda y: gradient(f, y, mode), x, "auto", size(x))


def hessian_vector_product(f: Callable, x: Any, v: Any) -> Any:
    """H v without the Hessian: the derivative of the gradient along v, forward over reverse.

    It costs a small multiple of f, whatever the number of inputs.

    Args:
      f: Function of one pytree of floating arrays that gives one real number.
      x: Where.
      v: A direction, in the structure and shapes of x.
    Returns:
      Σ_j ∂²f/∂x_i∂x_j v_j, in the structure and shapes of x.
    Raises:
      NotScalarError, NotInexactError: As `gradient`.
      ValueError: v has not the structure or the shapes of x.
    Example:
      >>> hessian_vector_product(lambda x: x[0] ** 2 * x[1], jnp.array([3.0, 5.0]), jnp.array([1.0, 0.0])).tolist()
      [10.0, 6.0]
    """
    check_callable("f", f, "x")
    x, v = point_and_direction(x, v)
    mode = "forward" if size(x) == 1 else "auto"
    return jax.jvp(lambda y: gradient(f, y, mode), (x,), (v,))[1]


def hessian_diagonal(f: Callable, x: Any) -> Any:
    """The second partial derivatives ∂²f / ∂x_i², without the mixed ones: n passes, no n² numbers kept.

    Args:
      f: Function of one pytree of floating arrays that gives one real number.
      x: Where.
    Returns:
      The diagonal, in the structure and shapes of x.
    Raises:
      NotScalarError, NotInexactError: As `gradient`.
    Example:
      >>> hessian_diagonal(lambda x: x[0] ** 2 * x[1] ** 3, jnp.array([3.0, 2.0])).tolist()
      [16.0, 108.0]
    """
    check_callable("f", f, "x")
    flat, unravel = ravel_pytree(floating(x, "x"))
    checked = scalar(f, "hessian_diagonal")
    if not flat.size:
        return unravel(flat)

    def along(unit: jax.Array) -> jax.Array:
        return derivative(
            lambda t: checked(unravel(flat + t * unit)),
            jnp.zeros((), flat.dtype),
            order=2,
        )

    return unravel(
        jax.lax.map(
            lambda i: along(jnp.zeros_like(flat).at[i].set(1)), jnp.arange(flat.size)
        )
    )


def directional_derivative(f: Callable, x: Any, v: Any) -> Any:
    """How fast f changes along v: lim (f(x + t v) - f(x)) / t = J v, in one pass forward.

    The length of v counts; divide by it for the slope per unit of way.

    Args:
      f: Function of one pytree of floating arrays, with any output.
      x: Where.
      v: A direction, in the structure and shapes of x.
    Returns:
      The rate of change, in the structure and shapes of f(x).
    Raises:
      NotInexactError: A leaf of x or v, or what f gives, is no floating number.
      ValueError: v has not the structure or the shapes of x.
    Example:
      >>> float(directional_derivative(lambda x: x[0] * x[1], jnp.array([2.0, 5.0]), jnp.array([1.0, 1.0])))
      7.0
    """
    check_callable("f", f, "x")
    x, v = point_and_direction(x, v)
    outputs_of(f, x)
    return jax.jvp(f, (x,), (v,))[1]
