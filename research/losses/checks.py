"""Checks of a loss's arguments, and their error messages."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array

from research.checks import check_numbers, is_traced


def floating(name: str, value: ArrayLike) -> Array:
    """Convert to an array, or raise TypeError if the values are not floating."""
    array = numeric(name, value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be floating; got dtype {array.dtype}. Convert first: "
            f"{name}.astype(jnp.float32)."
        )
    return array


def numeric(name: str, value: ArrayLike) -> Array:
    """Convert to an array, or raise TypeError if the values are not real numbers."""
    if not isinstance(value, jax.Array) or not is_traced(value):
        check_numbers(name, value)
    return jnp.asarray(value)


def wide(label: Array) -> Array:
    """Convert a label to at least 32 bits.

    8 bits cannot hold a number of classes above 127, which the label is compared with.
    """
    return label if label.dtype.itemsize >= 4 else label.astype(jnp.int32)


def one_or_nan(valid: Array, dtype: DTypeLike) -> Array:
    """Factor for the loss of a traced label: 1 where the label is valid, else NaN.

    The factor makes the gradient NaN as well. The gradient of `jnp.where(valid, loss,
    jnp.nan)` would be 0, so training would continue and silently ignore the example.
    """
    return jnp.where(valid, jnp.asarray(1, dtype), jnp.asarray(jnp.nan, dtype))


def one_example(wanted: str, first: Array, second: Array) -> str:
    """Message for a batch that was passed where one example is expected."""
    return (
        f"A loss takes one example, {wanted}; got shapes {first.shape} and "
        f"{second.shape}. Use jax.vmap for a batch."
    )


def negative_absolute(x: Array) -> Array:
    """Compute -|x| with derivative +1 at 0 (JAX takes 0 there).

    A smooth even function that is computed from it keeps its derivatives at 0.
    """
    return jnp.where(x > 0, -x, x)
