"""Token embeddings, position vectors, and masks of padded sequences."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float, Int, Num

from research.checks import check_numbers, check_text
from research.models._linear import check_model_dtype, check_size
from research.sizes import check_room
from research.types import Array, Sequences


def embed(
    weights: Float[ArrayLike, "V width"], tokens: Int[ArrayLike, "*shape"]
) -> Float[Array, "*shape width"]:
    """Look up the row of `weights` for each token: the result is weights[tokens].

    A token outside 0..V-1 raises no error, with or without jit. The nearest row is used
    instead: row 0 or row V-1. Call `check_tokens` on the data before training.

    Args:
      weights: Weights with one row for each symbol, shape (V, width).
      tokens: Integers in 0..V-1, shape (...).
    Returns:
      The rows, shape (..., width), in the dtype of the weights.
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
            "tokens must be integers, the indices of rows of weights; got dtype "
            f"{tokens.dtype}, shape {tokens.shape}."
        )
    return jnp.take(weights, tokens, axis=0, mode="clip")


def sinusoidal_positions(
    context: int, width: int, *, dtype: DTypeLike | None = None
) -> Float[Array, "context width"]:
    """Compute the position vectors of a Transformer from sines and cosines.

    Row t of the result P is the vector of position t = 0, ..., context - 1. For each
    pair of columns 2i and 2i + 1 with i = 0, 1, ...:

    P[t, 2i] = sin(t / 10000^(2i / width)),
    P[t, 2i + 1] = cos(t / 10000^(2i / width)).

    Args:
      context: Number of positions.
      width: Number of columns. If it is odd, the last column is a sine.
      dtype: Dtype of the result. None means JAX's default.
    Returns:
      The matrix P, shape (context, width).
    Raises:
      ValueError: context or width is not a positive integer.
      TypeError: dtype is not floating.
    References:
      Vaswani et al., Attention is all you need, NeurIPS 2017, section 3.5.
    Example:
      >>> print(sinusoidal_positions(2, 4, dtype=jnp.float32).round(3))
      [[0.    1.    0.    1.   ]
       [0.841 0.54  0.01  1.   ]]
    """
    check_size("context", context, 1)
    check_size("width", width, 1)
    check_model_dtype(dtype)
    check_room(f"context={context} and width={width}", context, width)
    angles = (
        np.arange(context)[:, None] / 10000 ** (np.arange(0, width, 2) / width)[None]
    )
    waves = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(context, -1)[
        :, :width
    ]
    return jnp.asarray(waves, dtype=jnp.result_type(float) if dtype is None else dtype)


def check_tokens(
    tokens: Int[ArrayLike, "..."], vocabulary_size: int, name: str = "tokens"
) -> None:
    """Raise an error if a token lies outside 0..vocabulary_size - 1.

    Call this function on the data before training.

    Args:
      tokens: Integers of any shape, not traced by JAX.
      vocabulary_size: Number V of symbols.
      name: Name of the argument, for the error message.
    Raises:
      TypeError: The tokens are not integers.
      ValueError: A token lies outside 0..V-1, or vocabulary_size is not a positive
        integer.
    Example:
      >>> check_tokens(np.array([0, 65]), 65)
      Traceback (most recent call last):
      ValueError: tokens must lie in 0..64, for a vocabulary of 65 symbols; got 65 ...
    """
    check_size("vocabulary_size", vocabulary_size, 1)
    check_text("name", name)
    check_numbers(name, tokens, kinds="biufc", wanted="an array of integers")
    tokens = np.asarray(tokens)
    if not np.issubdtype(tokens.dtype, np.integer):
        raise TypeError(
            f"{name} must be integers; got dtype {tokens.dtype}, shape {tokens.shape}."
        )
    wrong = np.argwhere((tokens < 0) | (tokens >= vocabulary_size))
    if len(wrong):
        index = tuple(wrong[0].tolist())
        raise ValueError(
            f"{name} must lie in 0..{vocabulary_size - 1}, for a vocabulary of "
            f"{vocabulary_size} symbols; got {tokens[index]} at index {index}. Map "
            "unknown symbols to a symbol of the vocabulary."
        )


def check_every(logits: tuple[int, ...], tokens: tuple[int, ...]) -> None:
    """Raise ValueError unless there are logits for each token.

    The arguments are shapes. For tokens of shape (..., T), the logits must have shape
    (..., T, V), where V is the number of symbols.
    """
    if logits[:-1] != tokens:
        raise ValueError(
            "the model must return logits for each token, shape "
            f"{tokens + logits[-1:]}; got shape {logits}. "
            'Build recurrent with outputs="every".'
        )


def values_and_length(x: Any) -> tuple[Num[Array, "..."], Int[Array, "..."] | None]:
    """Return the values of x as an array, and the length of each sequence.

    x is an array, or `Sequences` with padded values and lengths. For an array, None is
    returned instead of lengths.

    Raises:
      TypeError: x is a tuple that is not `Sequences`.
    Example:
      >>> print(values_and_length([3, 4, 9]))
      (Array([3, 4, 9], dtype=...), None)
    """
    if isinstance(x, Sequences):
        return jnp.asarray(x.values), jnp.asarray(x.length)
    if isinstance(x, tuple):
        raise TypeError(
            "x must be an array, or Sequences(values, length); got a plain tuple of "
            f"length {len(x)}."
        )
    return jnp.asarray(x), None


def split_sequences(
    x: Any, context: int, num_symbols: int | None = None
) -> tuple[Int[Array, "... T"], Bool[Array, "... T"] | None]:
    """Check tokens, and return them with a mask of the tokens inside the sequences.

    `Sequences` are padded to one length T, and the mask is False in the padding. Under
    jit, where values are traced, only dtypes and shapes are checked.

    Args:
      x: Tokens of shape (..., T), or `Sequences` of tokens.
      context: Largest allowed T.
      num_symbols: Number of symbols. None means that the values of the tokens are not
        checked.
    Returns:
      (tokens, mask), both of shape (..., T). An entry of the mask is True if its token
      lies before the end of the sequence. The mask is None if x is not `Sequences`.
    Raises:
      TypeError: The tokens or the lengths are not integers, or x is a tuple that is not
        `Sequences`.
      ValueError: T is 0 or above the context, the lengths have the wrong shape, a
        length lies outside 1..T, or a token before the end of its sequence lies outside
        0..num_symbols - 1.
    Example:
      >>> x = Sequences(jnp.array([3, 4, 9]), jnp.array(2))
      >>> tokens, mask = split_sequences(x, 5)
      >>> print(tokens, mask)
      [3 4 9] [ True  True False]
    """
    tokens, length = values_and_length(x)
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(
            f"x: tokens must be integers; got dtype {tokens.dtype}, shape "
            f"{tokens.shape}."
        )
    if tokens.ndim == 0 or not 1 <= tokens.shape[-1] <= context:
        raise ValueError(
            f"x: tokens must have shape (..., T) with T in 1..{context}, the context "
            f"of this model; got shape {tokens.shape}. Cut them, or build a model with "
            "a larger context."
        )
    inside = None
    if length is not None:
        # x.length may be a concrete NumPy array under jit.
        check_length(x.length, tokens.shape)
        positions = jax.lax.broadcasted_iota(jnp.int32, tokens.shape, tokens.ndim - 1)
        inside = positions < length[..., None]
    if (
        num_symbols is not None
        and not isinstance(tokens, Tracer)
        and not isinstance(inside, Tracer)
    ):
        check_tokens(
            np.asarray(tokens if inside is None else jnp.where(inside, tokens, 0)),
            num_symbols,
        )
    return tokens, inside


def check_length(length: Any, shape: tuple[int, ...], least: int = 1) -> None:
    """Raise an error unless the lengths are integers in least..T.

    `length` is an array of the lengths of sequences, and `least` is the smallest length
    that is allowed. `shape` is the shape (..., T) of the padded tokens, and the lengths
    must have the shape (...). If the lengths are traced (under jit), only their dtype
    and shape are checked. Raises TypeError if the lengths are not integers, and
    ValueError if their shape is wrong or a length lies outside least..T.
    """
    if not jnp.issubdtype(jnp.asarray(length).dtype, jnp.integer):
        raise TypeError(
            f"length must have an integer dtype; got {jnp.asarray(length).dtype}. "
            "Convert it with .astype(int)."
        )
    if jnp.shape(length) != shape[:-1]:
        raise ValueError(
            f"length must have shape {shape[:-1]}, for values of shape {shape}; got "
            f"{jnp.shape(length)}."
        )
    if isinstance(length, Tracer):
        return
    length = np.asarray(length)
    for index in np.argwhere((length < least) | (length > shape[-1]))[:1]:
        where = f" of sequence {', '.join(map(str, index))}" if length.ndim else ""
        raise ValueError(
            f"length must lie in {least}..{shape[-1]}; the length{where} is "
            f"{length[tuple(index)]}. Remove empty sequences."
        )
