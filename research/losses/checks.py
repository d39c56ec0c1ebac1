"""What losses refuse, and how they say it."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array

from research.checks import check_numbers, is_traced


def floating(name: str, value: ArrayLike) -> Array:
    """The array; TypeError unless it is floating."""
    array = numeric(name, value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be floating; got dtype {array.dtype}. Convert first: {name}.astype(jnp.float32)."
        )
    return array


def numeric(name: str, value: ArrayLike) -> Array:
    """The array; TypeError unless it holds real numbers."""
    if not isinstance(value, jax.Array) or not is_traced(value):
        check_numbers(name, value)
    return jnp.asarray(value)


def wide(label: Array) -> Array:
    """A label in 32 bits at least: 8 bits cannot hold the number of classes that it is compared with."""
    return label if label.dtype.itemsize >= 4 else label.astype(jnp.int32)


def one_or_nan(valid: Array, dtype: DTypeLike) -> Array:
    """A factor for the loss of a traced label: 1 where it is valid, else NaN. The gradient is NaN then, too.

    The gradient of `jnp.where(valid, loss, jnp.nan)` would be 0 where the loss is NaN: a training would go on, and only the
    loss would show that an example is not learnt.
    """
    return jnp.where(valid, jnp.asarray(1, dtype), jnp.asarray(jnp.nan, dtype))


def one_example(wanted: str, first: Array, second: Array) -> str:
    """What to say where a batch came instead of an example."""
    return f"A loss takes one example, {wanted}; got shapes {first.shape} and {second.shape}. Use jax.vmap for a batch."


def negative_absolute(x: Array) -> Array:
    """-|x| with derivative +1 at 0, not JAX's 0: a smooth even function of it then keeps its derivatives there."""
    return jnp.where(x > 0, -x, x)
