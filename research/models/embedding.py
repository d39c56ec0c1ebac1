"""From tokens to vectors: what a symbol is, where it stands, and which entries of a padded sequence count."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from research.checks import check_numbers, check_text
from research.models._linear import check_count, check_model_dtype
from research.sizes import check_room
from research.types import Array, Sequences


def embed(weights: ArrayLike, tokens: ArrayLike) -> Array:
    """The row of weights that each token names: e_t = weights[token_t].

    The product of one-hot rows with the weights is the same, and on a CPU no faster. A token outside 0..V-1 gives no
    error, which a compiled program cannot raise, but the nearest row: `check_tokens` is for the data.

    Args:
      weights: Shape (V, width).
      tokens: Integers in 0..V-1, shape (...).
    Returns:
      Shape (..., width), in the dtype of the weights.
    Raises:
      TypeError: tokens are not integers.
    Example:
      >>> print(embed(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1, 0, 1])))
      [[3. 4.]
       [1. 2.]
       [3. 4.]]
    """
    weights, tokens = jnp.asarray(weights), jnp.asarray(tokens)
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(
            f"tokens must be integers; got {tokens.dtype}{list(tokens.shape)}. Each names a row of weights."
        )
    return jnp.take(weights, tokens, axis=0, mode="clip")


def sinusoidal_positions(
    context: int, width: int, *, dtype: DTypeLike | None = None
) -> Array:
    """Positions as waves: P[t, 2i] = sin(t / 10000^(2i / width)) and P[t, 2i + 1] = cos(t / 10000^(2i / width)).

    Args:
      context: Number of positions.
      width: Of the vectors.
      dtype: Of the result; None means JAX's default.
    Returns:
      Shape (context, width).
    References:
      Vaswani et al., Attention is all you need, NeurIPS 2017, section 3.5.
    Example:
      >>> print(sinusoidal_positions(2, 4, dtype=jnp.float32).round(3))
      [[0.    1.    0.    1.   ]
       [0.841 0.54  0.01  1.   ]]
    """
    check_count("context", context, 1)
    check_count("width", width, 1)
    check_model_dtype(dtype)
    check_room(f"context={context} and width={width}", context, width)
    angles = (
        np.arange(context)[:, None] / 10000 ** (np.arange(0, width, 2) / width)[None]
    )
    waves = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(context, -1)[
        :, :width
    ]
    return jnp.asarray(waves, dtype=jnp.result_type(float) if dtype is None else dtype)


def check_tokens(tokens: ArrayLike, vocabulary_size: int, name: str = "tokens") -> None:
    """Refuses tokens that name no symbol; for data, before a model is trained on them.

    Args:
      tokens: Any shape, concrete.
      vocabulary_size: V.
      name: What the argument is called.
    Raises:
      TypeError: They are not integers.
      ValueError: One lies outside 0..V-1.
    Example:
      >>> check_tokens(np.array([0, 65]), 65)
      Traceback (most recent call last):
      ValueError: tokens must lie in 0..64, for a vocabulary of 65 symbols; got 65 at index (1,). Map unknown symbols ...
    """
    check_count("vocabulary_size", vocabulary_size, 1)
    check_text("name", name)
    check_numbers(name, tokens, kinds="biufc", wanted="an array of integers")
    tokens = np.asarray(tokens)
    if not np.issubdtype(tokens.dtype, np.integer):
        raise TypeError(
            f"{name} must be integers; got {tokens.dtype}{list(tokens.shape)}. Each names a symbol."
        )
    wrong = np.argwhere((tokens < 0) | (tokens >= vocabulary_size))
    if len(wrong):
        index = tuple(wrong[0].tolist())
        raise ValueError(
            f"{name} must lie in 0..{vocabulary_size - 1}, for a vocabulary of {vocabulary_size} symbols; got "
            f"{tokens[index]} at index {index}. Map unknown symbols to one of the vocabulary."
        )


def check_every(logits: tuple[int, ...], tokens: tuple[int, ...]) -> None:
    """Refuses the shape of logits that are not of every token, (..., T, V) for tokens (..., T)."""
    if logits[:-1] != tokens:
        raise ValueError(
            f"the model must give logits after each token, shape {tokens + logits[-1:]}; it gives {logits}. recurrent does "
            'so with outputs="every".'
        )


def values_and_length(x: Any) -> tuple[Array, Array | None]:
    """The values of x as an array, and the lengths where it is `Sequences`.

    Raises:
      TypeError: x is a plain tuple.
    Example:
      >>> print(values_and_length([3, 4, 9]))
      (Array([3, 4, 9], dtype=...), None)
    """
    if isinstance(x, Sequences):
        return jnp.asarray(x.values), jnp.asarray(x.length)
    if isinstance(x, tuple):
        raise TypeError(
            f"x must be an array, or Sequences(values, length); got a plain tuple of {len(x)}."
        )
    return jnp.asarray(x), None


def split_sequences(
    x: Any, context: int, num_symbols: int | None = None
) -> tuple[Array, Array | None]:
    """The tokens of x and which of them count, checked.

    Args:
      x: Tokens (..., T), or `Sequences` of them.
      context: The largest T.
      num_symbols: The vocabulary, for tokens that are concrete; traced ones cannot be checked. None: not checked.
    Returns:
      (tokens, counts): both of shape (..., T); counts is None where all do.
    Raises:
      TypeError: The tokens, or the lengths, are not integers; x is a plain tuple.
      ValueError: T is 0 or above the context, or a length or a token that is concrete is out of range.
    Example:
      >>> tokens, counts = split_sequences(Sequences(jnp.array([3, 4, 9]), jnp.array(2)), 5)
      >>> print(tokens, counts)
      [3 4 9] [ True  True False]
    """
    tokens, length = values_and_length(x)
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(
            f"x: tokens must be integers; got {tokens.dtype}{list(tokens.shape)}. Each names a symbol."
        )
    if tokens.ndim == 0 or not 1 <= tokens.shape[-1] <= context:
        raise ValueError(
            f"x: tokens must have shape (..., T) with T in 1..{context}, the context of this model; got shape "
            f"{tokens.shape}. Cut them, or make a model of a larger context."
        )
    counts = None
    if length is not None:
        check_length(
            x.length, tokens.shape
        )  # Under jit an array of NumPy is still concrete here.
        positions = jax.lax.broadcasted_iota(jnp.int32, tokens.shape, tokens.ndim - 1)
        counts = positions < length[..., None]
    if (
        num_symbols is not None
        and not isinstance(tokens, Tracer)
        and not isinstance(counts, Tracer)
    ):
        check_tokens(
            np.asarray(tokens if counts is None else jnp.where(counts, tokens, 0)),
            num_symbols,
        )
    return tokens, counts


def check_length(length: Any, shape: tuple[int, ...], least: int = 1) -> None:
    """Refuses lengths that are no integers in least..T, for values of shape (..., T), which a traced length may be."""
    if not jnp.issubdtype(jnp.asarray(length).dtype, jnp.integer):
        raise TypeError(
            f"length must be integers; got {jnp.asarray(length).dtype}. Convert it with .astype(int)."
        )
    if jnp.shape(length) != shape[:-1]:
        raise ValueError(
            f"length must have shape {shape[:-1]}, for values of shape {shape}; got {jnp.shape(length)}."
        )
    if isinstance(length, Tracer):
        return
    length = np.asarray(length)
    for index in np.argwhere((length < least) | (length > shape[-1]))[:1]:
        where = f" of sequence {', '.join(map(str, index))}" if length.ndim else ""
        raise ValueError(
            f"length must lie in {least}..{shape[-1]}; that{where} is {length[tuple(index)]}. Leave empty sequences out."
        )
