"""An unbiased estimate of a gradient that uses forward mode alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from research.checks import check_callable, check_count, check_key
from research.derivatives.exact.arguments import floating, scalar
from research.sizes import check_most

__all__ = ["ForwardGradient", "forward_gradient"]

MOST_SAMPLES = 10_000_000


class ForwardGradient(NamedTuple):
    """Estimate of a gradient from random directions, with the size of its error.

    Attributes:
      gradient: The estimate, in the structure and shapes of the point of evaluation x.
      relative_error: Expected relative error √((n + 1) / samples). Here n is the number
        of entries of x, and `samples` is the number of directions. For every f with a
        true gradient g that is not 0, this number is the root mean square of
        |`gradient` - g| / |g| over all random choices of the directions.
    """

    gradient: Any
    relative_error: float


def forward_gradient(
    f: Callable[..., Any], x: Any, key: jax.Array, samples: int = 1
) -> ForwardGradient:
    """Estimate a gradient as the mean of (∇f · v) v over random directions v.

    The entries of each v are independent and standard normal, so the expected value of
    v vᵀ is the identity matrix, and the estimate is unbiased. Forward mode computes
    ∇f · v for about twice the cost of f. Unlike reverse mode, it stores no intermediate
    values.

    But the mean square of the error is (n + 1) / samples times |∇f|², where n is the
    number of entries of x. Even with n samples, the error is about as long as the
    gradient itself. An error of 1 % takes 10,000 (n + 1) samples. In contrast, the
    result of the function `gradient` has only rounding errors. In reverse mode,
    `gradient` costs as much as a few evaluations of f, whatever n is.

    Use `forward_gradient` to learn why reverse mode matters. It also helps if f has no
    derivative rule for reverse mode, and n is too large for the exact gradient by n
    passes of forward mode.

    Args:
      f: Function of one pytree of floating arrays that returns one real number.
      x: Point of evaluation.
      key: Random key from which the directions are drawn.
      samples: Number of directions, at least 1.
    Returns:
      The `ForwardGradient`.
    Raises:
      NotScalarError, NotInexactError: As in `gradient`.
      ValueError: samples is not an integer from 1 to 10,000,000.
      TypeError: key is not a key.
    References:
      Baydin, Pearlmutter, Syme, Wood & Torr, Gradients without backpropagation,
      arXiv:2202.08587, section 3.
    Example:
      >>> f = lambda x: jnp.sum(x**2)
      >>> x = jnp.array([1.0, 2.0])
      >>> found = forward_gradient(f, x, jax.random.key(0), samples=30_000)
      >>> bool(jnp.allclose(found.gradient, 2 * x, rtol=0.1))
      True
      >>> print(f"{found.relative_error:.2f}")  # √(3 / 30,000)
      0.01
    """
    check_callable("f", f, "x")
    check_count("samples", samples)
    check_most(MOST_SAMPLES, samples=samples)
    check_key("key", key)
    flat, unravel = ravel_pytree(floating(x, "x"))
    checked = scalar(f, "forward_gradient")
    # A sum in half precision stops growing after a few hundred terms.
    wide = flat.dtype if flat.dtype.itemsize >= 4 else jnp.float32

    def sample(total: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        # In bfloat16, drawn numbers would have a mean that is not 0.
        v = jax.random.normal(jax.random.fold_in(key, i), flat.shape, wide)
        v = v.astype(flat.dtype)
        slope = jax.jvp(lambda y: checked(unravel(y)), (flat,), (v,))[1]
        return total + (slope * v).astype(total.dtype), None

    total, _ = jax.lax.scan(sample, jnp.zeros(flat.shape, wide), jnp.arange(samples))
    mean = (total / samples).astype(flat.dtype)
    return ForwardGradient(unravel(mean), ((flat.size + 1) / samples) ** 0.5)
