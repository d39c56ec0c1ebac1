"""Multi-head self-attention.

Each position i receives a weighted mean of the values of other positions j and of i
itself. The weight of j measures how well the query of i matches the key of j.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float

from research.checks import check_number, check_numbers, check_tree, shown
from research.models._linear import (
    at_least_single,
    check_model_dtype,
    check_size,
    dense,
)
from research.models.normalisation import rms_normalisation
from research.sizes import check_room
from research.types import Array, Params


def attention(
    params: Params,
    x: Float[ArrayLike, "*batch T width"],
    mask: Bool[ArrayLike, "..."] | None = None,
    *,
    num_heads: int,
    num_key_value_heads: int | None = None,
    angles: Float[ArrayLike, "context d/2"] | None = None,
) -> Float[Array, "*batch T width"]:
    """Apply multi-head self-attention.

    The result is concat_h(softmax(Q_h K_hᵀ / sqrt(d) + M) V_h) W_output + b_output. The
    symbols are:

    - h = 0, ..., num_heads - 1: index of a head;
    - d = width / num_heads: width of a head;
    - W, b, W_output and b_output: weights and biases in the params;
    - Q, K and V: queries, keys and values, the three parts of one product x W + b;
    - Q_h, K_h and V_h: columns h d to (h + 1) d - 1 of Q, K and V (grouped: see below);
    - M: 0 where the mask is True, and -∞ where the mask is False.

    In half precision, the softmax is computed in float32.

    If num_key_value_heads is smaller than num_heads (grouped-query attention), Q has
    num_heads heads, and K and V have num_key_value_heads heads of d columns. Each head
    of K and V is shared by num_heads / num_key_value_heads adjacent heads of Q.

    If the params contain "query_normalisation" and "key_normalisation", each query and
    each key of a head is first normalised by `rms_normalisation` over its d entries.
    With `angles`, queries and keys are then rotated by `rotate`.

    Args:
      params: Arrays of these shapes: {"query_key_value": {"weights": (width, 3 width),
        "bias": (3 width,)}, "output": {"weights": (width, width), "bias": (width,)}}.
        "query_key_value" has W and b, and "output" has W_output and b_output. A missing
        bias means 0. With grouped queries, replace 3 width by
        (num_heads + 2 num_key_value_heads) d. "query_normalisation" and
        "key_normalisation" are optional. Each of them is {"scale": (d,)}.
      x: Inputs at T positions, shape (..., T, width).
      mask: Booleans of shape (T, T), (..., 1, T) or (..., T, T), where "..." stands for
        the leading axes of x. Entry (i, j) is True if query i may attend to key j. None
        means that all entries are True. If row i of the mask has no True, the output at
        position i is NaN.
      num_heads: Number of query heads, a divisor of the width.
      num_key_value_heads: Number of key heads and of value heads, a divisor of
        num_heads. None means num_heads.
      angles: Table of `rotary_angles` for heads of d entries and at least T positions.
        None means no rotation.
    Returns:
      The outputs, shape (..., T, width).
    Raises:
      ValueError: The width is not divisible by num_heads, num_heads is not divisible by
        num_key_value_heads, x does not fit the weights, the mask does not fit x, or the
        table of angles is too short or does not fit the heads.
      TypeError: The mask is not boolean, or "query_key_value" or "output" is missing.
    References:
      Vaswani et al., Attention is all you need, NeurIPS 2017, section 3.2.
      Ainslie et al., GQA: training generalized multi-query transformer models, EMNLP
      2023, section 2.2.
      Dehghani et al., Scaling vision transformers to 22 billion parameters, ICML 2023,
      section 2 (normalised queries and keys, but with layer normalisation instead of
      RMS).
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
    weights, values = _weights_and_values(
        params, x, mask, num_heads, num_key_value_heads, angles
    )
    joined = jnp.swapaxes(_by_group(weights, values), 1, 2).reshape(x.shape)
    return project(params["output"], joined)


def attention_weights(
    params: Params,
    x: Float[ArrayLike, "*batch T width"],
    mask: Bool[ArrayLike, "..."] | None = None,
    *,
    num_heads: int,
    num_key_value_heads: int | None = None,
    angles: Float[ArrayLike, "context d/2"] | None = None,
) -> Float[Array, "*batch num_heads T T"]:
    """Compute the attention weights softmax(Q_h K_hᵀ / sqrt(d) + M) of each head h.

    Q_h and K_h are the queries and the keys of the head, and d is the width of a head.
    M is 0 where the mask is True and -∞ where the mask is False. If a row of the mask
    has no True, the same row of the weights is NaN. Each other row of the weights has
    the sum 1. The params do not need the entry "output".

    Args, Raises:
      As in `attention`.
    Returns:
      The weights, shape (..., num_heads, T, T). Entry (..., h, i, j) is the weight of
      key j for query i in head h.
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
    weights, _ = _weights_and_values(
        params, x, mask, num_heads, num_key_value_heads, angles
    )
    return weights.reshape(*x.shape[:-2], *weights.shape[1:])


def causal_mask(length: int) -> Bool[Array, "length length"]:
    """Return the mask that lets each position attend to itself and earlier positions.

    The mask has shape (length, length). Entry (i, j) is True if j <= i, so query i may
    attend to key j.

    Example:
      >>> print(causal_mask(3).astype(int))
      [[1 0 0]
       [1 1 0]
       [1 1 1]]
    """
    check_size("length", length, 1)
    check_room(f"length={length}", length, length, itemsize=1)
    return jnp.asarray(np.tril(np.ones((length, length), bool)))


def rotary_angles(
    context: int, size: int, *, base: float = 10000.0, dtype: DTypeLike | None = None
) -> Float[Array, "context size/2"]:
    """Compute the table of angles t / base^(2i / size) for rotary position embedding.

    `rotate` turns pairs of entries of queries and keys by these angles. Row t = 0, ...,
    context - 1 of the table belongs to position t. Column i = 0, ..., size / 2 - 1
    belongs to the pair of entries 2i and 2i + 1 of a query or a key.

    Args:
      context: Number of positions.
      size: Number of entries of a head's query or key, even.
      base: Base of the powers, positive. With a larger base, the angles grow more
        slowly with t, except in column 0.
      dtype: Dtype of the result. None means JAX's default.
    Returns:
      The angles in radians, shape (context, size / 2).
    Raises:
      ValueError: context is not a positive integer, size is not a positive even
        integer, or base is not positive.
      TypeError: dtype is not floating.
    References:
      Su et al., RoFormer: Enhanced transformer with rotary position embedding,
      arXiv:2104.09864, section 3.2.2.
    Example:
      >>> print(rotary_angles(3, 4))
      [[0.   0.  ]
       [1.   0.01]
       [2.   0.02]]
    """
    check_size("context", context, 1)
    check_size("size", size, 1)
    if size % 2:
        raise ValueError(
            f"size must be even, because rotary positions turn pairs; got size={size}."
        )
    check_number("base", base, positive=True)
    check_model_dtype(dtype)
    check_room(f"context={context} and size={size}", context, size)
    powers = float(base) ** (np.arange(0, size, 2) / size)
    angles = np.arange(context)[:, None] / powers[None]
    return jnp.asarray(angles, jnp.result_type(float) if dtype is None else dtype)


def rotate(
    x: Float[ArrayLike, "*batch T d"], angles: Float[ArrayLike, "context d/2"]
) -> Float[Array, "*batch T d"]:
    """Rotate each pair of entries of queries or keys by the angle of its position.

    Let a = angles[t, i]. At position t, the pair (x[t, 2i], x[t, 2i + 1]) = (u, v)
    becomes (u cos a - v sin a, u sin a + v cos a). The scalar product of a rotated
    query at position s and a rotated key at position t depends on the positions only
    through s - t.

    Meta's code for Llama rotates the same pairs of entries, 2i and 2i + 1. In Hugging
    Face's transformers, the pairs are the entries i and i + d/2. To convert a model
    from one of these conventions to the other, permute the columns of the weights that
    compute the queries and the keys.

    Args:
      x: Queries or keys, shape (..., T, d).
      angles: Table of `rotary_angles`, shape (context, d / 2) with context >= T.
    Returns:
      The rotated vectors, shape (..., T, d), in the dtype of x. If x has half
      precision, the rotation is computed in float32 and then rounded.
    Raises:
      ValueError: The table does not have d / 2 columns, or it has fewer than T rows.
    References:
      Su et al., RoFormer: Enhanced transformer with rotary position embedding,
      arXiv:2104.09864, eq. 34.
    Example:
      >>> turns = jnp.array([[0.0], [jnp.pi / 3]])
      >>> print(rotate(jnp.array([[1.0, 0.0], [1.0, 0.0]]), turns).round(3))
      [[1.    0.   ]
       [0.5   0.866]]
    """
    for name, value in (("x", x), ("angles", angles)):
        check_numbers(name, value, kinds="f", wanted="a floating array")
    x, angles = jnp.asarray(x), jnp.asarray(angles)
    if x.ndim < 2 or angles.ndim != 2 or x.shape[-1] != 2 * angles.shape[1]:
        raise ValueError(
            "x must have shape (..., T, d) and angles (context, d / 2); got x of shape "
            f"{x.shape} and angles of shape {angles.shape}."
        )
    length = x.shape[-2]
    if length > len(angles):
        raise ValueError(
            f"angles must have a row for each of {length} positions; got a table of "
            f"{len(angles)}. Call rotary_angles with context={length} or more."
        )
    turns = angles[:length].astype(at_least_single(x.dtype))
    pairs = x.reshape(*x.shape[:-1], -1, 2).astype(turns.dtype)
    first, second = pairs[..., 0], pairs[..., 1]
    cos, sin = (
        jnp.broadcast_to(wave, first.shape) for wave in (jnp.cos(turns), jnp.sin(turns))
    )
    turned = jnp.stack(
        [first * cos - second * sin, first * sin + second * cos], axis=-1
    )
    return turned.reshape(x.shape).astype(x.dtype)


def project(
    params: Params, x: Float[ArrayLike, "*batch d"]
) -> Float[Array, "*batch K"]:
    """Apply the dense layer with the params {"weights": (d, K), "bias": (K,)} to x.

    A missing bias means 0.
    """
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
    """Raise ValueError unless num_heads is a positive divisor of the width."""
    check_size("num_heads", num_heads, 1)
    if width % num_heads:
        divisors = ", ".join(str(k) for k in range(1, width + 1) if width % k == 0)
        raise ValueError(
            f"width must be divisible by num_heads; got width={width}, "
            f"num_heads={num_heads}. num_heads may be one of {divisors}."
        )


def check_groups_of_heads(num_heads: int, num_key_value_heads: int | None) -> int:
    """Return the number of key heads, which is also the number of value heads.

    This number is num_key_value_heads, or num_heads if num_key_value_heads is None.
    Raises ValueError if num_key_value_heads is not a positive divisor of num_heads.
    """
    if num_key_value_heads is None:
        return num_heads
    check_size("num_key_value_heads", num_key_value_heads, 1)
    if num_heads % num_key_value_heads:
        raise ValueError(
            "num_heads must be divisible by num_key_value_heads; got "
            f"num_heads={num_heads}, num_key_value_heads={num_key_value_heads}."
        )
    return num_key_value_heads


def _weights_and_values(
    params: Params,
    x: Array,
    mask: ArrayLike | None,
    num_heads: int,
    num_key_value_heads: int | None,
    angles: ArrayLike | None,
) -> tuple[Array, Array]:
    """Return the attention weights and the values V of each head.

    The weights have shape (n, num_heads, T, T), and the values (n, num_key_value_heads,
    T, d). The leading axes of x are flattened into one axis of length n.
    """
    given = jnp.shape(params["query_key_value"]["weights"])
    outputs, columns = 3 * x.shape[-1] if x.ndim else 0, "3 width"
    if num_key_value_heads is not None and x.ndim:
        check_heads(x.shape[-1], num_heads)
        pairs = check_groups_of_heads(num_heads, num_key_value_heads)
        outputs = (num_heads + 2 * pairs) * (x.shape[-1] // num_heads)
        columns = "(num_heads + 2 num_key_value_heads) width / num_heads"
    if x.ndim < 2 or given != (x.shape[-1], outputs):
        raise ValueError(
            "x must have shape (..., T, width) and query_key_value's weights (width, "
            f"{columns}); got x of shape {x.shape} and weights of {given}."
        )
    length, width = x.shape[-2:]
    check_heads(width, num_heads)
    queries, keys, values = _heads(
        project(params["query_key_value"], x.reshape(-1, length, width)),
        num_heads,
        check_groups_of_heads(num_heads, num_key_value_heads),
        width // num_heads,
    )
    if "query_normalisation" in params:
        queries, keys = (
            rms_normalisation(part, params[name]["scale"])
            for part, name in (
                (queries, "query_normalisation"),
                (keys, "key_normalisation"),
            )
        )
    if angles is not None:
        queries, keys = rotate(queries, angles), rotate(keys, angles)
    queries = queries / np.sqrt(width // num_heads).item()
    scores = _by_group(queries, jnp.swapaxes(keys, -1, -2))
    wide = scores.astype(at_least_single(scores.dtype))
    if mask is None:
        weights = jax.nn.softmax(wide, axis=-1)
    else:
        weights = _masked_softmax(wide, _spread(mask, x.shape[:-1]))
    return weights.astype(scores.dtype), values


def _heads(
    projected: Array, num_heads: int, pairs: int, size: int
) -> tuple[Array, Array, Array]:
    """Split the columns into queries, keys and values, each (n, heads, T, d)."""
    n, length, _ = projected.shape
    if pairs == num_heads:
        parts = projected.reshape(n, length, 3, num_heads, size)
        parts = parts.transpose(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]
    split = jnp.split(
        projected, (num_heads * size, (num_heads + pairs) * size), axis=-1
    )
    queries, keys, values = (
        part.reshape(n, length, -1, size).transpose(0, 2, 1, 3) for part in split
    )
    return queries, keys, values


def _by_group(left: Array, right: Array) -> Array:
    """Multiply the matrix of each head in left by the matrix of its group in right.

    left has shape (n, heads, T, a) and right (n, groups, a, b). Each group consists of
    heads / groups adjacent heads. The matrices (T, a) of these heads are stacked, so
    that one product is enough for the group.
    """
    n, heads, length, size = left.shape
    groups = right.shape[1]
    if heads == groups:
        return left @ right
    stacked = left.reshape(n, groups, heads // groups * length, size)
    return (stacked @ right).reshape(n, heads, length, right.shape[-1])


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


def _spread(mask: ArrayLike, positions: tuple[int, ...]) -> Array:
    """Flatten the mask's leading axes into one and add an axis for the heads.

    `positions` are the axes of the inputs without the width, shape (..., T).
    """
    mask, (*leading, length) = jnp.asarray(mask), positions
    if mask.shape == (length, length):
        return mask[None, None]
    if mask.shape not in ((*leading, 1, length), (*leading, length, length)):
        raise ValueError(
            "mask must have the shape (T, T), (..., 1, T) or (..., T, T), where the "
            f"axes (..., T) of x are {positions}; got mask of shape {mask.shape}. If "
            "it says which positions a sequence has, pass mask[..., None, :]."
        )
    return mask.reshape(-1, 1, *mask.shape[-2:])
