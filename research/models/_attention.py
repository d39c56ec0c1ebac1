"""Attention: each position takes a mean of the values of others, weighted by how well its query fits their keys."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from research.checks import check_numbers, check_tree, shown
from research.models._linear import check_count, dense
from research.sizes import check_room
from research.types import Array, Params


def attention(
    params: Params, x: ArrayLike, mask: ArrayLike | None = None, *, num_heads: int
) -> Array:
    """Multi-head self-attention: concat_h(softmax(Q_h K_hᵀ / sqrt(d) + M) V_h) W_output, d = width / num_heads.

    Q, K and V are x W + b for three parts of one product; head h has columns h d .. (h + 1) d - 1 of each part. M is 0
    where a position may look and -∞ where not.

    Args:
      params: {"query_key_value": {"weights": (width, 3 width), "bias": (3 width,)}, "output": {"weights":
        (width, width), "bias": (width,)}}; either bias may be absent, and is 0 then.
      x: Shape (..., T, width).
      mask: Booleans of shape (T, T), or (..., 1, T) or (..., T, T) with the leading axes of x: whether the query of the
        row may look at the key of the column; None means everywhere. Each row needs at least one True.
      num_heads: A divisor of the width.
    Returns:
      Shape (..., T, width).
    Raises:
      ValueError: The width is not divisible by num_heads, or x does not fit the weights.
      TypeError: The mask is not of booleans.
    References:
      Vaswani et al., Attention is all you need, NeurIPS 2017, section 3.2.
    Example:
      >>> sums = {"query_key_value": {"weights": jnp.tile(jnp.eye(2), (1, 3))}, "output": {"weights": jnp.eye(2)}}
      >>> print(attention(sums, jnp.zeros((3, 2)).at[0].set(1.0), causal_mask(3), num_heads=1).round(3))
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
    params: Params, x: ArrayLike, mask: ArrayLike | None = None, *, num_heads: int
) -> Array:
    """What `attention` weighs the values with: softmax(Q_h K_hᵀ / sqrt(d) + M), whose rows sum to 1.

    Args, Raises:
      As in `attention`.
    Returns:
      Shape (..., num_heads, T, T): query by key.
    Example:
      >>> params = {"query_key_value": {"weights": jnp.zeros((2, 6))}}
      >>> print(attention_weights(params, jnp.ones((2, 2)), causal_mask(2), num_heads=1))
      [[[1.  0. ]
        [0.5 0.5]]]
    """
    _check_attended(params, x, mask, ("query_key_value",))
    x = jnp.asarray(x)
    weights, _ = _weights_and_values(params, x, mask, num_heads)
    return weights.reshape(*x.shape[:-2], *weights.shape[1:])


def causal_mask(length: int) -> Array:
    """Booleans (length, length): a position looks at itself and at what stands before it.

    Example:
      >>> print(causal_mask(3).astype(int))
      [[1 0 0]
       [1 1 0]
       [1 1 1]]
    """
    check_count("length", length, 1)
    check_room(f"length={length}", length, length, itemsize=1)
    return jnp.asarray(np.tril(np.ones((length, length), bool)))


def project(params: Params, x: ArrayLike) -> Array:
    """`dense` of {"weights", "bias"}, where an absent bias is 0."""
    weights = jnp.asarray(params["weights"])
    return dense(x, weights, params.get("bias", jnp.zeros((), weights.dtype)))


def _check_attended(
    params: Params, x: ArrayLike, mask: ArrayLike | None, names: tuple[str, ...]
) -> None:
    check_numbers("x", x)
    if mask is not None:
        check_numbers("mask", mask, wanted="of booleans")
        if jnp.asarray(mask).dtype != bool:
            raise TypeError(
                f"mask must be of booleans, True where a query may look; got {jnp.asarray(mask).dtype}. If additive: mask == 0."
            )
    parts = (
        [params.get(name) for name in names] if isinstance(params, Mapping) else [None]
    )
    if not all(isinstance(part, Mapping) and "weights" in part for part in parts):
        raise TypeError(
            "params must be those of attention, {'query_key_value': {'weights': ...}, 'output': {'weights': ...}}; got "
            f"params={shown(params)}."
        )
    check_tree("params", params)


def check_heads(width: int, num_heads: int) -> None:
    """Refuses a width that the heads cannot share equally."""
    check_count("num_heads", num_heads, 1)
    if width % num_heads:
        divisors = ", ".join(str(k) for k in range(1, width + 1) if width % k == 0)
        raise ValueError(
            f"width must be divisible by num_heads; got width={width}, num_heads={num_heads}. Divisors: {divisors}."
        )


def _weights_and_values(
    params: Params, x: Array, mask: ArrayLike | None, num_heads: int
) -> tuple[Array, Array]:
    """(n, heads, T, T) and (n, heads, T, d), with the leading axes of x flattened into n."""
    if x.ndim < 2 or jnp.shape(params["query_key_value"]["weights"]) != (
        x.shape[-1],
        3 * x.shape[-1],
    ):
        raise ValueError(
            f"x must have shape (..., T, width) and query_key_value's weights (width, 3 width); got x of shape {x.shape} and "
            f"weights of {jnp.shape(params['query_key_value']['weights'])}."
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
    """The softmax over the last axis of what the mask lets through, 0 elsewhere."""
    return jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)


@_masked_softmax.defjvp
def _masked_softmax_jvp(primals, tangents):
    """p (ds - Σ p ds): where p is 0 by the mask so is its derivative, and no second pass through the mask is needed."""
    weights, change = _masked_softmax(*primals), tangents[0]
    return weights, weights * (
        change - jnp.sum(weights * change, axis=-1, keepdims=True)
    )


def _spread(mask: ArrayLike, leading: tuple[int, ...]) -> Array:
    """The mask with one flattened leading axis, and one for the heads."""
    mask = jnp.asarray(mask)
    if mask.dtype != bool:
        raise TypeError(
            f"mask must be of booleans, True where a query may look; got {mask.dtype}. If additive: mask == 0."
        )
    if mask.ndim == 2:
        return mask[None, None]
    return jnp.broadcast_to(mask, (*leading, *mask.shape[-2:])).reshape(
        -1, 1, *mask.shape[-2:]
    )
