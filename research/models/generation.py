"""Text generation with a language model, one token at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Int

from research.checks import (
    check_key,
    check_leaves_not_deleted,
    check_numbers,
    check_real,
)
from research.models._linear import at_least_single, check_size
from research.models.embedding import check_every, check_tokens
from research.models.images import check_model
from research.sizes import check_room
from research.types import Array, Key, Model, Params, Scalar


def generate(
    model: Model,
    params: Params,
    key: Key,
    prompt: Int[ArrayLike, "*batch T"],
    num_tokens: int,
    *,
    context: int,
    temperature: Scalar = 1.0,
    top_k: int | None = None,
) -> Int[Array, "*batch num_tokens"]:
    """Sample tokens from a language model, one after another.

    The probability of a token is the softmax of logits / temperature over the top_k
    largest logits. The model reads only the last `context` tokens, so the beginning of
    a longer prompt has no effect.

    The sampled tokens are counted from i = 0. Token i is drawn with the key
    `jax.random.fold_in(key, i)`. Therefore, a larger num_tokens only adds tokens at the
    end. JAX does not compile the sampling again for another length T of the prompt,
    other values of params, or another temperature.

    Args:
      model: Model that maps integers (..., T) to logits (..., T, V), where V is the
        number of different tokens. The logits at a position may depend only on tokens
        up to this position. Examples are `transformer_decoder`, and `recurrent` with
        outputs="every". A recurrent model keeps no state between tokens: for each new
        token, it reads the last `context` tokens again, from its initial state.
      params: Params of the model.
      key: Key for all draws.
      prompt: Integers in 0..V - 1, shape (..., T), T >= 1. Texts along the leading axes
        are continued independently.
      num_tokens: Number of tokens to sample.
      context: Largest number of tokens that the model reads, at most the context for
        which the model was built.
      temperature: Number >= 0. Values below 1 make likely tokens likelier. 0 always
        selects the likeliest token (greedy).
      top_k: The next token is one of the top_k likeliest tokens. None means all V
        tokens.
    Returns:
      The sampled tokens without the prompt, int32 of shape (..., num_tokens).
    Raises:
      TypeError: The prompt does not consist of integers.
      ValueError: num_tokens, context or top_k is not a positive integer, top_k is more
        than V, temperature is negative, the prompt is empty or contains a token outside
        0..V - 1, or the model does not return logits for each token. Under jit, tokens
        and temperature are not checked.
    References:
      Fan, Lewis & Dauphin, Hierarchical neural story generation, ACL 2018, section 5.3
      (top-k).
    Example:
      >>> def follow(params, tokens, key=None):  # Token t is followed by t + 1.
      ...     return 100 * jax.nn.one_hot((tokens + 1) % 5, 5)
      >>> model = Model(lambda key: None, follow)
      >>> print(generate(model, None, jax.random.key(0), [1, 2], 6, context=3))
      [3 4 0 1 2 3]
    """
    check_model(model)
    check_leaves_not_deleted("params", params)
    check_key("key", key)
    check_numbers("prompt", prompt)
    check_real("temperature", temperature)
    prompt = np.asarray(prompt) if not isinstance(prompt, Tracer) else prompt
    _check_prompt(prompt)
    check_size("num_tokens", num_tokens, 1)
    check_size("context", context, 1)
    if top_k is not None:
        check_size("top_k", top_k, 1)
    _check_temperature(temperature)
    check_room(f"num_tokens={num_tokens}", *prompt.shape[:-1], num_tokens, itemsize=4)
    check_room(f"context={context}", *prompt.shape[:-1], context, itemsize=4)
    shape = jax.ShapeDtypeStruct((*prompt.shape[:-1], context), jnp.int32)
    logits = jax.eval_shape(model.apply, params, shape).shape
    check_every(logits, shape.shape)
    num_symbols = logits[-1]
    if top_k is not None and top_k > num_symbols:
        raise ValueError(
            f"top_k must be at most the {num_symbols} symbols of the model; got "
            f"top_k={top_k}."
        )
    if not isinstance(prompt, Tracer):
        check_tokens(prompt, num_symbols)
    known = jnp.asarray(prompt[..., -context:], dtype=jnp.int32)
    filled = known.shape[-1]
    window = jnp.pad(known, [(0, 0)] * (known.ndim - 1) + [(0, context - filled)])
    temperature = jnp.asarray(temperature, dtype=jnp.float32)
    return _continue(
        params,
        key,
        window,
        jnp.int32(filled),
        temperature,
        model=model,
        num_tokens=num_tokens,
        top_k=top_k,
    )


def _check_prompt(prompt: np.ndarray | Tracer) -> None:
    """Raise an error unless the prompt is integers of shape (..., T), T >= 1."""
    if not jnp.issubdtype(prompt.dtype, jnp.integer):
        raise TypeError(
            f"prompt must be integers; got dtype {prompt.dtype}, shape {prompt.shape}."
        )
    if prompt.ndim == 0 or prompt.shape[-1] == 0:
        raise ValueError(
            f"prompt must have shape (..., T) with T >= 1; got shape {prompt.shape}. "
            "Start for example with a line break."
        )


def _check_temperature(temperature: Scalar) -> None:
    """Raise ValueError unless the temperature is one number >= 0."""
    if jnp.ndim(temperature):
        raise ValueError(
            "temperature must be one number, shape (); got shape "
            f"{jnp.shape(temperature)}."
        )
    if not isinstance(temperature, Tracer) and not temperature >= 0:
        raise ValueError(
            f"temperature must be at least 0; got temperature={temperature}. Use 0 for "
            "the likeliest token."
        )


@functools.partial(jax.jit, static_argnames=("model", "num_tokens", "top_k"))
def _continue(
    params: Params,
    key: Key,
    window: Array,
    filled: Array,
    temperature: Array,
    *,
    model: Model,
    num_tokens: int,
    top_k: int | None,
) -> Array:
    """Sample num_tokens tokens.

    The window holds `filled` known tokens, followed by zeros.
    """
    context = window.shape[-1]

    def draw_next(
        state: tuple[Array, Array], index: Array
    ) -> tuple[tuple[Array, Array], Array]:
        window, filled = state
        logits = jnp.take(model.apply(params, window), filled - 1, axis=-2)
        token = _draw(jax.random.fold_in(key, index), logits, temperature, top_k)
        full = filled == context
        window = jnp.where(full, jnp.roll(window, -1, axis=-1), window)
        filled = jnp.where(full, filled, filled + 1)
        window = jnp.where(jnp.arange(context) == filled - 1, token[..., None], window)
        return (window, filled), token

    _, tokens = jax.lax.scan(
        draw_next, (window, filled), jnp.arange(num_tokens, dtype=jnp.int32)
    )
    return jnp.moveaxis(tokens, 0, -1)


def _draw(key: Key, logits: Array, temperature: Array, top_k: int | None) -> Array:
    """Draw one token for each leading index. Temperature 0 selects the likeliest."""
    # In half precision, the random noise has so few values that ties are common, and
    # the first of the tied tokens would be drawn too often.
    logits = logits.astype(at_least_single(logits.dtype))
    values, candidates = jax.lax.top_k(logits, top_k or logits.shape[-1])
    cold = temperature == 0
    chosen = jax.random.categorical(
        key, values / jnp.where(cold, 1, temperature).astype(values.dtype), axis=-1
    )
    chosen = jnp.where(cold, 0, chosen)
    return jnp.take_along_axis(candidates, chosen[..., None], axis=-1)[..., 0].astype(
        jnp.int32
    )
