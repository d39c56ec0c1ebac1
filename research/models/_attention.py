"""Multi-head self-attention.

Each position receives a weighted mean of the values. A weight measures how well the
query of the position matches a key.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from research.checks import check_numbers, check_tree, shown
from research.models._linear import check_count, dense
from research.sizes import check_room
from research.types import Array, Params


def attention(
    params: Params,
    x: Float[ArrayLike, "*batch T width"],
    mask: Bool[ArrayLike, "..."] | None = None,
    *,
    num_heads: int,
) -> Float[Array, "*batch T width"]:
    """Apply multi-head self-attention.

    The result is concat_h(softmax(Q_h K_hᵀ / sqrt(d) + M) V_h) W_output + b_output with
    d = width / num_heads. Q, K and V are the three parts of one product x W + b. Head h
    uses the columns h d, ..., (h + 1) d - 1 of each part. M is 0 where the mask is True
    and -∞ where it is False.

    Args:
      params: {"query_key_value": {"weights": (width, 3 width), "bias": (3 width,)},
        "output": {"weights": (width, width), "bias": (width,)}}. A missing bias means
        0.
      x: Inputs, shape (..., T, width).
      mask: Booleans of shape (T, T), (..., 1, T) or (..., T, T), where "..." stands for
        the leading axes of x. Entry (i, j) is True if query i may attend to key j. None
        means that all entries are True. Each row needs at least one True.
      num_heads: Number of heads, a divisor of the width.
    Returns:
      The outputs, shape (..., T, width).
    Raises:
      ValueError: The width is not divisible by num_heads, or x does not fit the
        weights.
      TypeError: The mask is not boolean.
    References:
      Vaswani et al., Attention is all you need, NeurIPS 2017, section 3.2.
    Example:
      >>> identity = {"weights": jnp.eye(2)}
      >>> threefold = {"weights": jnp.tile(jnp.eye(2), (1, 3))}
      >>> sums = {"query_key_value": threefold, "output": identity}
      >>> x = jnp.zeros((3, 2)).at[0].set(1.0)
      >>> print(attention(sums, x, causal_mask(3), num_heads=1).round(3))
      [[1.    1.   ]
       [0.5   0.5  ]
       [0.333 0.333]]
    """
    _check_attended(params, x, mask, ("query_key_value", "output"))
    x = jnp.asarray(x)
    weights, values = _weights_and_values(params, x, mask, num_heads)
    joined = jnp.swapaxes(weights @ values, 1, 2).reshape(x.shape)
    return project(params["output"], joined)


def attention_weights(
    params: Params,
    x: Float[ArrayLike, "*batch T width"],
    mask: Bool[ArrayLike, "..."] | None = None,
    *,
    num_heads: int,
) -> Float[Array, "*batch num_heads T T"]:
    """Compute the attention weights softmax(Q_h K_hᵀ / sqrt(d) + M).

    Every row sums to 1. `attention` defines the symbols.

    Args, Raises:
      As in `attention`.
    Returns:
      The weights, shape (..., num_heads, T, T). The last two axes are queries and keys.
    Example:
      >>> params = {"query_key_value": {"weights": jnp.zeros((2, 6))}}
      >>> print(
      ...     attention_weights(params, jnp.ones((2, 2)), causal_mask(2), num_heads=1)
      ... )
      [[[1.  0. ]
        [0.5 0.5]]]
    """
    _check_attended(params, x, mask, ("query_key_value",))
    x = jnp.asarray(x)
    weights, _ = _weights_and_values(params, x, mask, num_heads)
    return weights.reshape(*x.shape[:-2], *weights.shape[1:])


def causal_mask(length: int) -> Bool[Array, "length length"]:
    """Return the mask that lets each position attend to itself and earlier positions.

    Example:
      >>> print(causal_mask(3).astype(int))
      [[1 0 0]
       [1 1 0]
       [1 1 1]]
    """
    check_count("length", length, 1)
    check_room(f"length={length}", length, length, itemsize=1)
    return jnp.asarray(np.tril(np.ones((length, length), bool)))


def project(
    params: Params, x: Float[ArrayLike, "*batch d"]
) -> Float[Array, "*batch K"]:
    """Apply `dense` with params {"weights", "bias"}, where a missing bias means 0."""
    weights = jnp.asarray(params["weights"])
    return dense(x, weights, params.get("bias", jnp.zeros((), weights.dtype)))


def _check_attended(
    params: Params, x: ArrayLike, mask: ArrayLike | None, names: tuple[str, ...]
) -> None:
    check_numbers("x", x)
    if mask is not None:
        check_numbers("mask", mask, wanted="boolean")
        if jnp.asarray(mask).dtype != bool:
            raise TypeError(
                "mask must be boolean, True where a query may attend; got dtype "
                f"{jnp.asarray(mask).dtype}. For an additive mask pass mask == 0."
            )
    parts = (
        [params.get(name) for name in names] if isinstance(params, Mapping) else [None]
    )
    if not all(isinstance(part, Mapping) and "weights" in part for part in parts):
        raise TypeError(
            "params must be "
            "{'query_key_value': {'weights': ...}, 'output': {'weights': ...}}; got "
            f"params={shown(params)}."
        )
    check_tree("params", params)


def check_heads(width: int, num_heads: int) -> None:
    """Raise ValueError if the width is not divisible by the number of heads."""
    check_count("num_heads", num_heads, 1)
    if width % num_heads:
        divisors = ", ".join(str(k) for k in range(1, width + 1) if width % k == 0)
        raise ValueError(
            f"width must be divisible by num_heads; got width={width}, "
            f"num_heads={num_heads}. Divisors: {divisors}."
        )


def _weights_and_values(
    params: Params, x: Array, mask: ArrayLike | None, num_heads: int
) -> tuple[Array, Array]:
    """Return weights (n, heads, T, T) and values (n, heads, T, d).

    The leading axes of x are flattened into n.
    """
    if x.ndim < 2 or jnp.shape(params["query_key_value"]["weights"]) != (
        x.shape[-1],
        3 * x.shape[-1],
    ):
        raise ValueError(
            "x must have shape (..., T, width) and query_key_value's weights (width, "
            f"3 width); got x of shape {x.shape} and weights of "
            f"{jnp.shape(params['query_key_value']['weights'])}."
        )
    length, width = x.shape[-2:]
    check_heads(width, num_heads)
    projected = project(params["query_key_value"], x.reshape(-1, length, width))
    parts = projected.reshape(-1, length, 3, num_heads, width // num_heads).transpose(
        2, 0, 3, 1, 4
    )
    queries, keys, values = (
        parts[0] / np.sqrt(width // num_heads).item(),
        parts[1],
        parts[2],
    )
    scores = queries @ jnp.swapaxes(keys, -1, -2)
    if mask is None:
        return jax.nn.softmax(scores, axis=-1), values
    return _masked_softmax(scores, _spread(mask, x.shape[:-2])), values


@jax.custom_jvp
def _masked_softmax(scores: Array, mask: Array) -> Array:
    """Compute the softmax over the unmasked entries of the last axis.

    Masked entries become 0.
    """
    return jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)


@_masked_softmax.defjvp
def _masked_softmax_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Any]
) -> tuple[Array, Array]:
    """Compute dp = p (ds - Σ p ds) for the weights p and the scores s.

    dp is 0 at masked entries, because p is 0 there.
    """
    weights, change = _masked_softmax(*primals), tangents[0]
    return weights, weights * (
        change - jnp.sum(weights * change, axis=-1, keepdims=True)
    )


def _spread(mask: ArrayLike, leading: tuple[int, ...]) -> Array:
    """Flatten the mask's leading axes into one and add an axis for the heads."""
    mask = jnp.asarray(mask)
    if mask.dtype != bool:
        raise TypeError(
            "mask must be boolean, True where a query may attend; got dtype "
            f"{mask.dtype}. For an additive mask pass mask == 0."
        )
    if mask.ndim == 2:
        return mask[None, None]
    return jnp.broadcast_to(mask, (*leading, *mask.shape[-2:])).reshape(
        -1, 1, *mask.shape[-2:]
    )
