"""Exact derivatives by JAX: any order, pytrees, forward or reverse mode."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from research.checks import check_callable, shown
from research.derivatives._taylor import coefficients
from research.derivatives.errors import NotScalarError
from research.derivatives.exact.arguments import (
    ForwardRuleNeeded,
    described,
    floating,
    outputs_of,
    point_and_direction,
    scalar,
    size,
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
    "taylor",
]

# Largest order. The number of operations grows with its square.
MOST_ORDER = 100
MOST_NESTED = 2  # Above this order, series replace nested forward mode.


def derivative(f: Callable[..., Any], x: Any, order: int = 1) -> Any:
    """Return the derivative of f at a number x, of any order.

    Orders 1 and 2 are computed by nested forward mode. A higher order n is computed
    from the Taylor series of f(x + t) in t (see `taylor`): the derivative is n! times
    the coefficient of t^n. For most functions, the cost is then at most about n² times
    the cost of f. Nested forward mode would cost 2^n times as much as f. For many
    points use `jax.vmap` over x, and for all derivatives up to an order use `taylor`.

    If f selects between branches (`jnp.where`, `lax.cond`), the result is the
    derivative of the branch that is selected at x. If x lies where one branch ends, the
    result may differ from the derivative of f. For example, for
    f(x) = jnp.where(x == 0, 1, jnp.sin(x) / x) all derivatives at 0 are returned as 0,
    although f''(0) = -1/3. Instead use `jnp.sinc`, a series near 0, or
    `finite_difference`, which uses values of f on both sides of x.

    Some formulas divide 0 by 0 at a point where the function has a limit. Examples are
    sin(x) / x and (1 - cos(x)) / x² at 0. If f contains such a formula, and x is near
    such a point, as x = 1e-3 is, the rounding errors of the result grow by a factor of
    about 1 / x with each order. The result does not show their size.
    Instead use a formula that does not divide 0 by 0, such as `jnp.sinc`, or
    `finite_difference`, whose result has an error bound.

    Some functions of JAX compute an approximation that has the right value but not the
    right derivatives of high order. The result is the derivative of the approximation.
    Examples are:

    - `jax.scipy.linalg.expm` of a matrix close to 0. The error at order 7 is 5 %.
    - `jax.scipy.special.bessel_jn(x, v=1)`, the Bessel functions J_0 and J_1, at x
      below about 1. At x = 0.3, the seventh derivative of J_0 is 0.08, but the result
      is 22.

    For the scaled Bessel functions `jax.scipy.special.i0e` and `i1e`, the error grows
    by a factor of about x with each order. At x = 300, the error is 5e-4 at order 5 and
    6 % at order 6. JAX's rule for `jnp.linalg.det` is wrong at many singular matrices.
    For example, the rule gives the gradient 0 at diag(0, 1, 2).

    Args:
      f: Function of one real number. It returns a number, an array or a pytree. Each
        entry of its value is differentiated.
      x: Point of evaluation, a floating number, shape ().
      order: Order of the derivative, an integer in 0..100. For order 0, the result is
        f(x).
    Returns:
      The derivative, in the structure and shapes of f(x).
    Raises:
      NotScalarError: x is not a single number.
      NotInexactError: x or the value of f is not floating.
      UnsupportedPrimitiveError: f has a derivative rule for reverse mode only
        (`jax.custom_vjp`).
      ValueError: order is not an integer in 0..100.
    Example:
      >>> [float(derivative(lambda x: x**3, 2.0, order=n)) for n in range(5)]
      [8.0, 12.0, 12.0, 6.0, 0.0]
    """
    check_callable("f", f, "x")
    _check_order(order, least=0, advice="")
    x = floating(x, "x")
    if not isinstance(x, jax.Array) or x.shape:
        raise NotScalarError(
            f"x must be a single number; got {described(x)}. Use gradient(f, x) if f "
            "returns a number, jacobian(f, x) if it returns more, or jax.vmap(lambda "
            "x: derivative(f, x)) for f at each entry."
        )
    shapes = outputs_of(f, x) if order else None
    if order > MOST_NESTED:
        return _by_series(f, x, int(order), shapes)

    with ForwardRuleNeeded(f, "gradient(f, x)" if order == 1 else "hessian(f, x)"):
        return _nested(f, int(order))(x)


def _nested(f: Callable[..., Any], order: int) -> Callable[..., Any]:
    """Return the derivative of f, of the given order, by nested forward mode."""
    if not order:
        return f
    lower = _nested(f, order - 1)
    return lambda t: jax.jvp(lower, (t,), (jnp.ones_like(t),))[1]


def _check_order(order: Any, least: int, advice: str) -> None:
    if (
        not isinstance(order, int | np.integer)
        or isinstance(order, bool)
        or not least <= order <= MOST_ORDER
    ):
        raise ValueError(
            f"order must be an integer in {least}..{MOST_ORDER}; got "
            f"order={shown(order)}.{advice}"
        )


def _by_series(f: Callable[..., Any], x: jax.Array, order: int, shapes: Any) -> Any:
    """Return order! times the coefficient of t^order of f(x + t).

    The coefficients are computed for f(x + s t), where s is the power of two next to
    (order!)^(1 / order). So they neither overflow nor underflow before the derivative
    does, and dividing by s is exact.
    """
    exponent = round(math.log2(math.factorial(order)) / order)
    scale = math.factorial(order) / 2 ** (exponent * order)
    found = coefficients(f, x, jnp.full_like(x, 2.0**exponent), order)
    return jax.tree.map(lambda _, own: scale * own[order], shapes, found)


def taylor(f: Callable[..., Any], x: Any, v: Any, order: int) -> Any:
    """Compute the Taylor coefficients c_k of f(x + t v) = c_0 + c_1 t + c_2 t² + ...

    c_k is 1/k! times the k-th derivative of f(x + t v) at t = 0. So c_0 = f(x), and c_1
    is the directional derivative. If f returns one number, c_2 is vᵀ H v / 2, where H
    is the Hessian of f at x.

    f is evaluated once, on truncated power series instead of numbers. For most
    functions, the cost is at most about (order + 1)² times the cost of f. Nested
    derivatives would cost 2^order times as much as f. For most operations in f, the
    coefficients of the operation's result follow from a recurrence, or are a linear
    function of the coefficients of its inputs. For any other operation, JAX's
    derivative rule gives the series of the derivative of the result. This series is
    then integrated.

    f may contain loops and branches. `taylor` may be called inside `jax.jit`,
    `jax.vmap` and `jax.grad`. If f selects between branches, the result is the series
    of the branch that is selected at x, as in `derivative`. Some formulas divide 0 by 0
    at a point, as sin(x) / x does at 0. If x is near such a point, for example
    x = 1e-3, rounding errors grow by a factor of about 1 / x with each order. See
    `derivative` for what to use instead, and for functions of JAX whose coefficients of
    high order are wrong.

    Args:
      f: Function of one pytree of floating arrays. It returns a number, an array or a
        pytree.
      x: Point of evaluation.
      v: Direction, in the structure and shapes of x.
      order: Largest order, an integer in 1..100.
    Returns:
      The coefficients, in the structure of f(x). A leaf of shape s becomes an array of
      shape (order + 1, *s), with the coefficient of order k at index k.
    Raises:
      NotInexactError: A leaf of x or v, or the value of f, is not floating.
      UnsupportedPrimitiveError: f contains a function with a derivative rule for
        reverse mode only (`jax.custom_vjp`), or an operation that has no derivative
        rule. The message names the operation.
      ValueError: order is not in 1..100, or v does not have the structure and shapes of
        x.
    References:
      Griewank & Walther, Evaluating Derivatives, 2nd ed., SIAM 2008, chapter 13.
    Example:
      >>> taylor(lambda x: 1 / (1 - x), 0.0, 1.0, order=4).tolist()
      [1.0, 1.0, 1.0, 1.0, 1.0]
      >>> f = lambda p: p["a"] * jnp.sum(p["b"] ** 2)
      >>> x = {"a": 2.0, "b": jnp.array([1.0, 3.0])}
      >>> v = {"a": 1.0, "b": jnp.array([0.0, 1.0])}
      >>> taylor(f, x, v, order=3).tolist()
      [20.0, 22.0, 8.0, 1.0]
    """
    check_callable("f", f, "x")
    _check_order(order, least=1, advice=" For order 0, call f(x).")
    x, v = point_and_direction(x, v)
    shapes = outputs_of(f, x)
    found = coefficients(f, x, v, int(order))
    return jax.tree.map(lambda _, own: jnp.stack(own), shapes, found)


def gradient(f: Callable[..., Any], x: Any, mode: ModeName = "auto") -> Any:
    """Return the gradient (∂f/∂x_1, ..., ∂f/∂x_n) of a function f with one real value.

    If f selects between branches, the result is the gradient of the branch that is
    selected at x, as in `derivative`. If the derivative of the other branch is not
    finite at x, reverse mode returns NaN, because it multiplies this derivative by 0.
    An example is jnp.where(x == 0, 1, jnp.sin(x) / x) at x = 0. The branch that is not
    selected there is sin(x) / x. To keep its derivative finite, set
    safe = jnp.where(x == 0, 1, x), and then use
    jnp.where(x == 0, 1, jnp.sin(safe) / safe).

    JAX's rule for `jnp.linalg.det` is wrong at many singular matrices (see
    `derivative`). `check_derivative` finds such errors.

    Args:
      f: Function of one pytree of floating arrays that returns one real number, shape
        ().
      x: Point of evaluation.
      mode: "forward", "reverse" or "auto". "auto" means the mode that
        `chosen_mode(f, x)` returns.
    Returns:
      The partial derivatives, in the structure and shapes of x.
    Raises:
      NotScalarError: f does not return one number.
      NotInexactError: A leaf of x or the value of f is not floating.
      ValueError: mode is unknown.
    Example:
      >>> f = lambda p: p["a"] * jnp.sum(p["b"] ** 2)
      >>> gradient(f, {"a": 2.0, "b": jnp.array([1.0, 3.0])})["b"].tolist()
      [4.0, 12.0]
    """
    check_callable("f", f, "x")
    x = floating(x, "x")
    return differentiated_in(scalar(f, "gradient"), x, mode, outputs=1)


def jacobian(f: Callable[..., Any], x: Any, mode: ModeName = "auto") -> Any:
    """Return the Jacobian J_ij = ∂f_i / ∂x_j of a function f at x.

    Args:
      f: Function of one pytree of floating arrays that returns an array or a pytree of
        arrays.
      x: Point of evaluation.
      mode: "forward", "reverse" or "auto". "auto" means the mode that
        `chosen_mode(f, x)` returns: forward mode if x has at most as many entries as
        f(x), and reverse mode otherwise. If f has no derivative rule for this mode,
        "auto" means the other mode.
    Returns:
      If x and f(x) are arrays, an array of shape f(x).shape + x.shape. If they are
      pytrees, a tree like f(x) in which each leaf is replaced by a tree like x. For
      example, result["a"]["b"] is the derivative of the leaf a of f(x) with respect to
      the leaf b of x, an array of shape a.shape + b.shape.
    Raises:
      NotInexactError: A leaf of x or the value of f is not floating.
      ValueError: mode is unknown.
    Example:
      >>> f = lambda x: jnp.array([x[0] * x[1], x[0] + x[1]])
      >>> jacobian(f, jnp.array([2.0, 5.0])).tolist()
      [[5.0, 2.0], [1.0, 1.0]]
    """
    check_callable("f", f, "x")
    x = floating(x, "x")
    return differentiated_in(f, x, mode, size(outputs_of(f, x)))


def hessian(f: Callable[..., Any], x: Any, mode: ModeName = "auto") -> Any:
    """Return the Hessian H_ij = ∂²f / ∂x_i ∂x_j of a function f with one real value.

    The Hessian is the derivative of the gradient. This derivative is computed in
    forward mode, or in reverse mode if f has no derivative rule for forward mode. If f
    selects between branches, the result is the Hessian of the branch that is selected
    at x, as in `derivative` and `gradient`.

    Args:
      f: Function of one pytree of floating arrays that returns one real number.
      x: Point of evaluation.
      mode: Mode in which the gradient is computed: "forward", "reverse" or "auto".
        "auto" means forward mode if x is one number, and reverse mode otherwise. If f
        has no derivative rule for this mode, "auto" means the other mode.
    Returns:
      If x is an array, an array of shape x.shape + x.shape. If x is a pytree, a tree
      like x in which each leaf is replaced by a tree like x. For example,
      result["a"]["b"] has the second derivatives for the leaves a and b of x, an array
      of shape a.shape + b.shape.
    Raises:
      NotScalarError, NotInexactError, ValueError: As in `gradient`.
    Example:
      >>> hessian(lambda x: x[0] ** 2 * x[1], jnp.array([3.0, 5.0])).tolist()
      [[10.0, 6.0], [6.0, 0.0]]
    """
    check_callable("f", f, "x")
    x = floating(x, "x")
    return differentiated_in(_slopes(f, "hessian", mode), x, "auto", size(x))


def hessian_vector_product(f: Callable[..., Any], x: Any, v: Any) -> Any:
    """Compute the product H v of the Hessian H of f and a vector v, without storing H.

    The product is the derivative of the gradient along v. If x has several numbers, the
    gradient is computed in reverse mode and its derivative in forward mode. The cost is
    therefore a small multiple of the cost of f, however many numbers x has.

    Args:
      f: Function of one pytree of floating arrays that returns one real number.
      x: Point of evaluation.
      v: Direction, in the structure and shapes of x.
    Returns:
      The product (H v)_i = Σ_j (∂²f / ∂x_i ∂x_j) v_j, in the structure and shapes of x.
    Raises:
      NotScalarError, NotInexactError: As in `gradient`.
      ValueError: v does not have the structure and shapes of x.
    Example:
      >>> x, v = jnp.array([3.0, 5.0]), jnp.array([1.0, 0.0])
      >>> hessian_vector_product(lambda x: x[0] ** 2 * x[1], x, v).tolist()
      [10.0, 6.0]
    """
    check_callable("f", f, "x")
    x, v = point_and_direction(x, v)
    return jax.jvp(_slopes(f, "hessian_vector_product", "auto"), (x,), (v,))[1]


def _slopes(f: Callable[..., Any], caller: str, mode: str) -> Callable[[Any], Any]:
    """Return the gradient of f as a function. Messages name the caller."""
    checked = scalar(f, caller)
    return lambda x: differentiated_in(checked, x, mode, outputs=1)


def hessian_diagonal(f: Callable[..., Any], x: Any) -> Any:
    """Return the diagonal ∂²f / ∂x_i² of the Hessian of f.

    The second derivatives are computed one after another by nested forward mode. If x
    has n numbers, f is evaluated n times, once for each second derivative. The Hessian
    with its n² numbers is not stored.

    Args:
      f: Function of one pytree of floating arrays that returns one real number.
      x: Point of evaluation.
    Returns:
      The diagonal, in the structure and shapes of x.
    Raises:
      NotScalarError, NotInexactError: As in `gradient`.
      UnsupportedPrimitiveError: f has a derivative rule for reverse mode only
        (`jax.custom_vjp`).
    Example:
      >>> f = lambda x: x[0] ** 2 * x[1] ** 3
      >>> hessian_diagonal(f, jnp.array([3.0, 2.0])).tolist()
      [16.0, 108.0]
    """
    check_callable("f", f, "x")
    flat, unravel = ravel_pytree(floating(x, "x"))
    checked = scalar(f, "hessian_diagonal")
    if not flat.size:
        return unravel(flat)

    def along(unit: jax.Array) -> jax.Array:
        on_line = lambda t: checked(unravel(flat + t * unit))
        return _nested(on_line, 2)(jnp.zeros((), flat.dtype))

    with ForwardRuleNeeded(f, "the diagonal of hessian(f, x)"):
        return unravel(
            jax.lax.map(
                lambda i: along(jnp.zeros_like(flat).at[i].set(1)),
                jnp.arange(flat.size),
            )
        )


def directional_derivative(f: Callable[..., Any], x: Any, v: Any) -> Any:
    """Return the directional derivative J v = lim (f(x + t v) - f(x)) / t for t -> 0.

    J is the Jacobian of f at x. The cost is one pass of forward mode. The vector v is
    not normalised. To get the rate of change per unit length, divide the result by the
    length of v.

    Args:
      f: Function of one pytree of floating arrays. It returns a number, an array or a
        pytree.
      x: Point of evaluation.
      v: Direction, in the structure and shapes of x.
    Returns:
      The directional derivative, in the structure and shapes of f(x).
    Raises:
      NotInexactError: A leaf of x or v, or the value of f, is not floating.
      UnsupportedPrimitiveError: f has a derivative rule for reverse mode only
        (`jax.custom_vjp`).
      ValueError: v does not have the structure and shapes of x.
    Example:
      >>> x, v = jnp.array([2.0, 5.0]), jnp.array([1.0, 1.0])
      >>> float(directional_derivative(lambda x: x[0] * x[1], x, v))
      7.0
    """
    check_callable("f", f, "x")
    x, v = point_and_direction(x, v)
    outputs_of(f, x)
    with ForwardRuleNeeded(f, "jacobian(f, x)"):
        return jax.jvp(f, (x,), (v,))[1]
