"""Dropout: noise that zeroes entries at random and keeps the mean."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from research import checks
from research.types import Array, Key


def dropout(key: Key | None, x: ArrayLike, rate: float | Array) -> Array:
    """Zeroes each entry of x with probability `rate` and divides the others by 1 - rate, so that the mean stays x.

    This is inverted dropout: what is not trained (key None) needs no rescaling. The same key zeroes the same entries,
    whatever the dtype of x; layers therefore need different keys, `jax.random.fold_in(key, layer)`.

    Args:
      key: Of this layer in this step; None means no noise, and x comes back as it is.
      x: Floating, any shape.
      rate: Probability of zero, in [0, 1).
    Returns:
      Of the shape and dtype of x.
    Raises:
      ValueError: rate lies outside [0, 1).
    References:
      Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, JMLR 2014.
    Example:
      >>> x = jnp.ones(1000)
      >>> bool(jnp.all(dropout(None, x, 0.5) == x))
      True
      >>> sorted(set(dropout(jax.random.key(0), x, 0.5).tolist()))
      [0.0, 2.0]
    """
    check_dropout_rate("rate", rate)
    checks.check_numbers("x", x)
    if key is not None:
        checks.check_key("key", key)
    x = jnp.asarray(x)
    if key is None or (isinstance(rate, (int, float)) and rate == 0):
        return x
    # Uniforms of float32 whatever x is: in 64-bit mode the default would be twice the work, and other zeros.
    kept = (
        jax.random.uniform(key, x.shape, jnp.float32, np.float32(0), np.float32(1))
        >= rate
    )
    return jnp.where(kept, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros((), x.dtype))


def check_dropout_rate(name: str, rate: float | Array) -> None:
    """Refuses a rate outside [0, 1); a traced one passes."""
    checks.check_real(name, rate)
    if not isinstance(rate, Tracer) and not 0 <= rate < 1:
        raise ValueError(
            f"{name} must lie in [0, 1); got {name}={rate!r}. It is the probability that an entry is zeroed, not kept."
        )
