"""Transformers: a language model (decoder) and a classifier of sequences (encoder)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from research.checks import check_flag
from research.models._attention import causal_mask, check_heads, project
from research.models._dropout import check_dropout_rate, dropout
from research.models._linear import check_count, check_model_dtype
from research.models.activations import find_activation
from research.models.embedding import embed, sinusoidal_positions, split_sequences
from research.models.parameters import with_own_parameters
from research.models.transformer_block import (
    ORDERS,
    SCALE,
    block,
    check_name,
    draw_weights,
    init_block,
    init_normalisation,
    normalise,
)
from research.sizes import MOST_LAYERS, check_most
from research.types import Array, Key, Model, Params

POSITIONS = ("learned", "sinusoidal")


def transformer_decoder(
    vocabulary_size: int,
    context: int,
    *,
    width: int = 128,
    num_layers: int = 4,
    num_heads: int = 4,
    hidden: int | None = None,
    positions: str = "learned",
    order: str = "pre",
    activation: str = "gelu",
    dropout: float = 0.0,
    tied: bool = False,
    dtype: DTypeLike | None = None,
) -> Model:
    """Build a Transformer language model: logits of the next token at each position.

    The model computes x = E[tokens] + P, where E is the embedding and P are the
    positions. Then it applies the blocks and, if order is "pre", a layer normalisation.
    The logits are x W_output, or x Eᵀ if tied.

    Weights are drawn from N(0, 0.02²), as in GPT-2. The two matrices of a block whose
    outputs are added to the residual sum are scaled by 1 / sqrt(2 num_layers), so that
    the sum initially has a scale of about one. Biases start at 0. With sinusoidal
    positions, the embedding is drawn from N(0, 1 / width) and multiplied by sqrt(width)
    (Vaswani et al., section 3.4). E[tokens] and P are then both of order one. Dropout
    acts on E[tokens] + P and on the outputs of the attention and of the small network
    in each block. It does not act on the attention weights.

    Args:
      vocabulary_size: Number V of symbols.
      context: Largest number of tokens in a sequence.
      width: Width of the vectors, a multiple of num_heads.
      num_layers: Number of blocks.
      num_heads: Number of heads of each attention.
      hidden: Number of hidden units of each block's network. None means 4 * width.
      positions: "learned", or "sinusoidal", which has no parameters.
      order: "pre" normalises the input of a sublayer f: x + f(LN(x)). "post" normalises
        the residual sum: LN(x + f(x)).
      activation: Name of the activation, a key of `research.models.ACTIVATIONS`.
      dropout: Dropout rate. Dropout is active only if apply gets a key.
      tied: Whether the output layer uses the weights of the embedding.
      dtype: Dtype of the parameters. None means JAX's default.
    Returns:
      A model. Its apply maps integers of shape (..., T), 1 <= T <= context, or
      `Sequences` of integers, to logits of shape (..., T, V). Tokens after the end of a
      sequence do not change earlier logits. Logits after the end have no meaning.
    Raises:
      ValueError: A count is not a positive integer, the width is not divisible by
        num_heads, dropout is not in [0, 1), or a name is unknown. In apply: T is not in
        1..context.
      TypeError: In apply: the tokens are not integers.
    References:
      Vaswani et al., Attention is all you need, NeurIPS 2017.
      Radford et al., Language models are unsupervised multitask learners, 2019, section
      2.3 (the order "pre", the scale of the residual weights).
    Example:
      >>> model = transformer_decoder(65, 16, width=8, num_layers=1, num_heads=2)
      >>> params = model.init(jax.random.key(0))
      >>> model.apply(params, jnp.array([[1, 2, 3]])).shape
      (1, 3, 65)
    """
    check_count("vocabulary_size", vocabulary_size, 1)
    check_flag("tied", tied)
    init_body, apply_body = _body(
        vocabulary_size,
        context,
        width,
        num_layers,
        num_heads,
        hidden,
        positions,
        order,
        activation,
        dropout,
        dtype,
    )

    def init(key: Key) -> Params:
        params = init_body(jax.random.fold_in(key, 0))
        if not tied:
            params["output"] = {
                "weights": draw_weights(
                    jax.random.fold_in(key, 1), (width, vocabulary_size), SCALE, dtype
                )
            }
        return params

    def apply(params: Params, x: Any, key: Key | None = None) -> Array:
        tokens, _ = split_sequences(x, context, vocabulary_size)
        vectors = apply_body(params, tokens, causal_mask(tokens.shape[-1]), key)
        return project(
            {"weights": jnp.transpose(params["tokens"]["weights"])}
            if tied
            else params["output"],
            vectors,
        )

    return with_own_parameters(init, apply)


def transformer_encoder(
    vocabulary_size: int,
    context: int,
    num_classes: int,
    *,
    width: int = 128,
    num_layers: int = 4,
    num_heads: int = 4,
    hidden: int | None = None,
    positions: str = "learned",
    order: str = "pre",
    activation: str = "gelu",
    dropout: float = 0.0,
    dtype: DTypeLike | None = None,
) -> Model:
    """Build a Transformer classifier of token sequences.

    The architecture is the same as in `transformer_decoder`, but without the causal
    mask. So each position attends to all positions. The logits are mean_t(x_t) W_output
    + b_output, where x_t is the last vector at position t.

    Args:
      vocabulary_size, context, width, num_layers, num_heads, hidden, positions, order,
        activation, dropout, dtype: As in `transformer_decoder`.
      num_classes: Number K of classes, at least 2.
    Returns:
      A model. Its apply maps integers of shape (..., T), 1 <= T <= context, or
      `Sequences` of integers, to logits of shape (..., K). Tokens after the end of a
      sequence change neither a logit nor a gradient.
    Raises:
      ValueError, TypeError: As in `transformer_decoder`, or num_classes is not an
        integer >= 2.
    References:
      Vaswani et al., Attention is all you need, NeurIPS 2017, section 3.1.
    Example:
      >>> model = transformer_encoder(65, 16, 3, width=8, num_layers=1, num_heads=2)
      >>> params = model.init(jax.random.key(0))
      >>> model.apply(params, jnp.array([[1, 2, 3, 4]])).shape
      (1, 3)
    """
    check_count("vocabulary_size", vocabulary_size, 1)
    check_count("num_classes", num_classes, 2)
    init_body, apply_body = _body(
        vocabulary_size,
        context,
        width,
        num_layers,
        num_heads,
        hidden,
        positions,
        order,
        activation,
        dropout,
        dtype,
    )

    def init(key: Key) -> Params:
        params = init_body(jax.random.fold_in(key, 0))
        weights = draw_weights(
            jax.random.fold_in(key, 1), (width, num_classes), SCALE, dtype
        )
        params["output"] = {
            "weights": weights,
            "bias": jnp.zeros(num_classes, dtype=weights.dtype),
        }
        return params

    def apply(params: Params, x: Any, key: Key | None = None) -> Array:
        tokens, counts = split_sequences(x, context, vocabulary_size)
        vectors = apply_body(
            params, tokens, None if counts is None else counts[..., None, :], key
        )
        return project(params["output"], _mean_over_positions(vectors, counts))

    return with_own_parameters(init, apply)


def _body(
    vocabulary_size: int,
    context: int,
    width: int,
    num_layers: int,
    num_heads: int,
    hidden: int | None,
    positions: str,
    order: str,
    activation: str,
    rate: float,
    dtype: DTypeLike | None,
) -> tuple[Callable[[Key], Params], Callable[..., Array]]:
    """Build init and apply of the part that both models share.

    It computes the last vectors from the tokens.
    """
    counts = {
        "context": context,
        "width": width,
        "num_layers": num_layers,
        "num_heads": num_heads,
    }
    check_count("width", width, 1)
    hidden = 4 * width if hidden is None else hidden
    for name, value in (counts | {"hidden": hidden}).items():
        check_count(name, value, 1)
    check_most(MOST_LAYERS, num_layers=num_layers)
    check_heads(width, num_heads)
    check_name("positions", positions, POSITIONS)
    check_name("order", order, ORDERS)
    check_dropout_rate("dropout", rate)
    check_model_dtype(dtype)
    activate, learned = find_activation(activation), positions == "learned"

    def init(key: Key) -> Params:
        key_tokens, key_positions, key_blocks = (
            jax.random.fold_in(key, child) for child in range(3)
        )
        scale = SCALE if learned else 1 / np.sqrt(width).item()
        params = {
            "tokens": {
                "weights": draw_weights(
                    key_tokens, (vocabulary_size, width), scale, dtype
                )
            }
        }
        if learned:
            params["positions"] = {
                "weights": draw_weights(key_positions, (context, width), SCALE, dtype)
            }
        for layer in range(num_layers):
            key_block = jax.random.fold_in(key_blocks, layer)
            params[f"block_{layer + 1}"] = init_block(
                key_block, width, hidden, num_layers, dtype
            )
        return params | (
            {"normalisation": init_normalisation(width, dtype)}
            if order == "pre"
            else {}
        )

    def apply(
        params: Params, tokens: Array, mask: Array | None, key: Key | None
    ) -> Array:
        keys = [
            None if key is None else jax.random.fold_in(key, child)
            for child in range(num_layers + 1)
        ]
        x = _embed(params, tokens, learned)
        x = dropout(keys[0], x, rate)
        for layer in range(num_layers):
            options = {"num_heads": num_heads, "order": order, "activation": activate}
            x = block(
                params[f"block_{layer + 1}"],
                x,
                mask,
                **options,
                dropout_rate=rate,
                key=keys[layer + 1],
            )
        return normalise(params["normalisation"], x) if order == "pre" else x

    return init, apply


def _embed(params: Params, tokens: Array, learned: bool) -> Array:
    """Embed tokens and add their positions, shape (..., T, width)."""
    vectors = embed(params["tokens"]["weights"], tokens)
    length, width = vectors.shape[-2:]
    if learned:
        places = params["positions"]["weights"][:length]
    else:
        vectors = vectors * np.sqrt(width).item()
        places = sinusoidal_positions(length, width, dtype=vectors.dtype)
    return vectors + jnp.broadcast_to(places, vectors.shape)


def _mean_over_positions(vectors: Array, counts: Array | None) -> Array:
    """Compute the mean of the vectors over the positions before the end."""
    if counts is None:
        return jnp.mean(vectors, axis=-2)
    kept = jnp.where(counts[..., None], vectors, jnp.zeros((), vectors.dtype))
    return jnp.sum(kept, axis=-2) / jnp.sum(
        counts, axis=-1, keepdims=True, dtype=vectors.dtype
    )
