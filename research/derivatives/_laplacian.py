"""The Laplacian: the sum of the second derivatives along all axes."""

import importlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from research.checks import check_callable, check_choice, check_count, check_key
from research.derivatives.errors import UnsupportedPrimitiveError
from research.derivatives.exact.arguments import (
    ForwardRuleNeeded,
    floating,
    outputs_of,
    title,
)
from research.sizes import check_most

__all__ = ["LaplacianEstimate", "laplacian", "laplacian_estimate"]

LaplacianMethod = Literal["forward", "loop", "folx"]
MOST_SAMPLES = 10_000_000


class LaplacianEstimate(NamedTuple):
    """Estimate of a Laplacian from random directions, with its standard error.

    Attributes:
      value: Estimate of the Laplacian of a function f at a point x, in the structure
        and shapes of f(x).
      standard_error: Standard error of `value`, estimated from the samples, in the same
        structure and shapes.
    """

    value: Any
    standard_error: Any


def laplacian(
    f: Callable[..., Any], x: Any, method: LaplacianMethod = "forward"
) -> Any:
    """Compute the Laplacian Δf = Σ_i ∂²f / ∂x_i², the trace of the Hessian.

    The Hessian is not stored. Let n be the number of entries of x.

    * "forward" evaluates f and its first two derivatives along all n axes at once, by
      nested forward mode. This method needs about n times the memory of f.
    * "loop" does the same for one axis after another. This method needs only the memory
      for one axis.
    * "folx" calls the package folx, which propagates the value, the Jacobian and the
      Laplacian of every intermediate result together. On neural networks, this is often
      faster than the other two methods. The method needs `pip install folx`. Version
      0.2.30 of folx works with JAX 0.7.2 to 0.12, but has no rule for loops
      (`jax.lax.scan`) on JAX 0.12.

    If f selects between branches (`jnp.where`, `lax.cond`), the result is the Laplacian
    of the branch that is selected at x.

    Args:
      f: Function of one pytree of floating arrays. It returns a number, an array or a
        pytree. The Laplacian of each entry of f(x) is computed.
      x: Point of evaluation.
      method: "forward", "loop" or "folx", as above.
    Returns:
      The Laplacian, in the structure and shapes of f(x).
    Raises:
      NotInexactError: A leaf of x or the value of f is not floating.
      UnsupportedPrimitiveError: f has a derivative rule for reverse mode only
        (`jax.custom_vjp`), or folx cannot differentiate f.
      ValueError: method is unknown.
      ModuleNotFoundError: method is "folx", and folx is not installed.
    References:
      Li et al., A computational framework for neural network-based variational Monte
      Carlo with forward Laplacian, Nature Machine Intelligence 6 (2024), for "folx".
    Example:
      >>> f = lambda x: x[0] ** 2 + 3 * x[1] ** 2 + x[0] * x[1]
      >>> float(laplacian(f, jnp.array([1.0, 2.0])))
      8.0
    """
    check_callable("f", f, "x")
    check_choice("method", method, get_args(LaplacianMethod))
    x = floating(x, "x")
    shapes = outputs_of(f, x)
    flat, unravel = ravel_pytree(x)
    if not flat.size:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    of_flat = lambda y: f(unravel(y))
    if method == "folx":
        return _by_folx(f, of_flat, flat)
    along = lambda i: _second(f, of_flat, flat, jnp.zeros_like(flat).at[i].set(1))
    axes = jnp.arange(flat.size)
    if method == "forward":
        return jax.tree.map(lambda own: jnp.sum(own, axis=0), jax.vmap(along)(axes))
    add = lambda total, i: (jax.tree.map(jnp.add, total, _wide(along(i))), None)
    return _like(jax.lax.scan(add, _wide_zeros(shapes), axes)[0], shapes)


def _wide(tree: Any) -> Any:
    """Convert leaves of half precision to float32.

    A sum in half precision stops growing after a few hundred terms.
    """
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), tree
    )


def _wide_zeros(shapes: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, jnp.float32)),
        shapes,
    )


def _like(tree: Any, shapes: Any) -> Any:
    return jax.tree.map(lambda leaf, shape: leaf.astype(shape.dtype), tree, shapes)


def laplacian_estimate(
    f: Callable[..., Any], x: Any, key: jax.Array, samples: int
) -> LaplacianEstimate:
    """Estimate the Laplacian as the mean of vᵀ H v over random directions v.

    H is the Hessian of f at x, and its trace is the Laplacian. The entries of each v
    are drawn independently and are 1 or -1 with equal probability. So the mean of v vᵀ
    is the identity, and the mean of vᵀ H v is the trace of H.

    Look at the standard error before you use the estimate. The estimate has the
    variance 2 S / samples, where S is the sum of the squares of all entries of H off
    the diagonal. If H is diagonal, the estimate therefore has no random error. If the
    entries off the diagonal are large, the error can be larger than the Laplacian.

    A sample costs a few evaluations of f. If x has n numbers, `laplacian` costs about n
    times as much as one sample.

    Args:
      f: Function of one pytree of floating arrays, as in `laplacian`.
      x: Point of evaluation.
      key: Random key from which the directions are drawn.
      samples: Number of directions, at least 2.
    Returns:
      The `LaplacianEstimate`.
    Raises:
      NotInexactError, UnsupportedPrimitiveError: As in `laplacian`.
      ValueError: samples is not an integer in 2..10,000,000.
      TypeError: key is not a key.
    References:
      Hutchinson, A stochastic estimator of the trace of the influence matrix for
      Laplacian smoothing splines, Communications in Statistics 18 (1989).
    Example:
      >>> f = lambda x: jnp.sum(x) ** 2  # Each entry of the Hessian is 2.
      >>> found = laplacian_estimate(f, jnp.ones(3), jax.random.key(0), samples=4000)
      >>> abs(float(found.value) - 6.0) < 4 * float(found.standard_error) < 0.5
      True
    """
    check_callable("f", f, "x")
    check_count("samples", samples, 2)
    check_most(MOST_SAMPLES, samples=samples)
    check_key("key", key)
    x = floating(x, "x")
    shapes = outputs_of(f, x)
    flat, unravel = ravel_pytree(x)
    of_flat = lambda y: f(unravel(y))
    zeros = _wide_zeros(shapes)

    # Welford's recurrence: the sum of squares about the mean, without cancellation.
    def sample(state: Any, i: Array) -> tuple[Any, None]:
        mean, squares = state
        v = jax.random.rademacher(jax.random.fold_in(key, i), flat.shape, flat.dtype)
        own = _wide(_second(f, of_flat, flat, v))
        step = jax.tree.map(jnp.subtract, own, mean)
        mean = jax.tree.map(lambda m, s: m + s / (i + 1), mean, step)
        squares = jax.tree.map(
            lambda q, s, o, m: q + s * (o - m), squares, step, own, mean
        )
        return (mean, squares), None

    (mean, squares), _ = jax.lax.scan(sample, (zeros, zeros), jnp.arange(samples))
    count = float(samples) * (samples - 1)
    error = jax.tree.map(lambda q: jnp.sqrt(q / count), squares)
    return LaplacianEstimate(_like(mean, shapes), _like(error, shapes))


def _second(
    f: Callable[..., Any], of_flat: Callable[..., Any], x: Array, v: Array
) -> Any:
    """Return vᵀ H v for each output of f, where H is the Hessian of this output."""
    first = lambda y: jax.jvp(of_flat, (y,), (v,))[1]
    with ForwardRuleNeeded(f, "jnp.trace(hessian(f, x))"):
        return jax.jvp(first, (x,), (v,))[1]


def _by_folx(f: Callable[..., Any], of_flat: Callable[..., Any], x: Array) -> Any:
    try:
        folx: Any = importlib.import_module("folx")  # Of the extra `laplacian`.
    except ImportError as error:
        raise ModuleNotFoundError(
            'method="folx" needs the package folx, which cannot be imported. Run '
            '`pip install folx`, or use method="forward".'
        ) from error
    try:
        with jax.numpy_rank_promotion("allow"):  # folx promotes ranks.
            found = folx.forward_laplacian(of_flat)(x)
    except Exception as error:  # Its rules raise errors of any kind.
        raise UnsupportedPrimitiveError(
            f"folx cannot differentiate {title(f)}: {type(error).__name__}: {error} "
            'Use method="forward".'
        ) from error
    is_result = lambda leaf: hasattr(leaf, "laplacian")
    return jax.tree.map(
        lambda leaf: leaf.laplacian if is_result(leaf) else jnp.zeros_like(leaf),
        found,
        is_leaf=is_result,
    )
