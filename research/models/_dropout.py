"""Dropout: set random entries to zero without changing the mean."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Float

from research import checks
from research.types import Array, Key, Scalar


def dropout(
    key: Key | None, x: Float[ArrayLike, "*shape"], rate: Scalar
) -> Float[Array, "*shape"]:
    """Set each entry to 0 with probability `rate`, else divide the entry by 1 - rate.

    This is inverted dropout: the expected value of the result is x. Outside training,
    pass key=None: x is then returned unchanged. The choice of the entries that become 0
    depends on the key, the rate and the shape of x, but not on the dtype of x. Use a
    different key for each layer, such as `jax.random.fold_in(key, layer)`.

    Args:
      key: Key for this layer and step, or None for no dropout.
      x: Floating array of any shape.
      rate: Probability that an entry is set to zero, in [0, 1).
    Returns:
      An array with the shape and dtype of x.
    Raises:
      ValueError: rate lies outside [0, 1). A rate that is traced (under jit) is not
        checked.
      TypeError: x is not floating, rate is not a number, or key is not a key.
    References:
      Srivastava et al., Dropout: a simple way to prevent neural networks from
        overfitting, JMLR 2014.
    Example:
      >>> x = jnp.ones(1000)
      >>> bool(jnp.all(dropout(None, x, 0.5) == x))
      True
      >>> sorted(set(dropout(jax.random.key(0), x, 0.5).tolist()))
      [0.0, 2.0]
    """
    check_dropout_rate("rate", rate)
    checks.check_numbers("x", x, kinds="f", wanted="a floating array")
    if key is not None:
        checks.check_key("key", key)
    x = jnp.asarray(x)
    if key is None or (isinstance(rate, (int, float)) and rate == 0):
        return x
    # Draw float32 for every dtype of x: float64 would be slower and would set other
    # entries to zero.
    kept = (
        jax.random.uniform(key, x.shape, jnp.float32, np.float32(0), np.float32(1))
        >= rate
    )
    return jnp.where(kept, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros((), x.dtype))


def check_dropout_rate(name: str, rate: Scalar) -> None:
    """Raise an error unless the rate is a number in [0, 1).

    A rate that is traced (under jit) is not checked. `name` is the name of the argument
    in the message. Raises TypeError if the rate is not a number, and ValueError if the
    rate is a number outside [0, 1).
    """
    checks.check_real(name, rate)
    if not isinstance(rate, Tracer) and not 0 <= rate < 1:
        raise ValueError(
            f"{name} must lie in [0, 1); got {name}={rate!r}. It is the probability of "
            "zeroing an entry, not of keeping it."
        )
