"""Transformers: a language model (decoder) and a classifier of sequences (encoder)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from research.checks import check_choice, check_flag, check_number
from research.models._attention import (
    causal_mask,
    check_groups_of_heads,
    check_heads,
    project,
    rotary_angles,
)
from research.models._dropout import check_dropout_rate, dropout
from research.models._linear import check_model_dtype, check_size
from research.models.activations import Activation, find_activation
from research.models.embedding import embed, sinusoidal_positions, split_sequences
from research.models.parameters import with_own_parameters
from research.models.transformer_block import (
    NORMALISATIONS,
    ORDERS,
    SCALE,
    block,
    draw_weights,
    init_block,
    init_normalisation,
    normalise,
)
from research.sizes import MOST_LAYERS, check_most
from research.types import Array, Key, Model, Params

POSITIONS = ("learned", "sinusoidal", "rotary")


class _Body(NamedTuple):
    """Arguments of the part that decoder and encoder share."""

    vocabulary_size: int
    context: int
    width: int
    num_layers: int
    num_heads: int
    hidden: int | None
    positions: str
    order: str
    activation: str | Activation
    dropout: float
    dtype: DTypeLike | None
    normalisation: str = "layer"
    gated: bool = False
    num_key_value_heads: int | None = None
    bias: bool = True
    query_key_normalisation: bool = False
    rotary_base: float = 10000.0


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
    activation: str | Activation = "gelu",
    dropout: float = 0.0,
    tied: bool = False,
    normalisation: str = "layer",
    gated: bool = False,
    num_key_value_heads: int | None = None,
    bias: bool = True,
    query_key_normalisation: bool = False,
    logit_softcap: float | None = None,
    rotary_base: float = 10000.0,
    dtype: DTypeLike | None = None,
) -> Model:
    """Build a Transformer language model: logits of the next token at each position.

    The model computes x = E[tokens] + P, where E is the matrix of the embedding and P
    are vectors of the positions. With positions="rotary", there is no P: x = E[tokens],
    and the attention rotates its queries and keys by the position. Then the blocks are
    applied to x. If order is "pre", a last normalisation follows. A block consists of
    attention and a small network with one hidden layer (`research.models.block`). If
    tied is False, the logits are x W_output, where W_output are the weights of the
    output layer. If tied is True, the logits are x Eᵀ. With tied=True and
    activation="gelu_tanh", the architecture is that of GPT-2. With positions="rotary",
    normalisation="rms", gated=True, activation="silu" and bias=False, the architecture
    is that of Llama.

    Biases start at 0. Weights are drawn from N(0, 0.02²), as in GPT-2, with two
    exceptions:

    - In each block, the last matrix of the attention and the last matrix of the network
      are drawn with the standard deviation 0.02 / sqrt(2 num_layers). All blocks
      together have 2 num_layers of these matrices, and the output of each is added to
      x. With this standard deviation, the initial size of x after the last block hardly
      depends on num_layers.
    - With sinusoidal positions, E is drawn from N(0, 1 / width), and x = sqrt(width)
      E[tokens] + P (Vaswani et al., section 3.4). Both terms are then of order one.
      With tied=True, the logits use E without the factor sqrt(width).

    Dropout acts on E[tokens] + P, and in each block on the outputs of the attention and
    of the network. Dropout does not act on the attention weights.

    Args:
      vocabulary_size: Number V of symbols.
      context: Largest number of tokens in a sequence.
      width: Width of the vectors, a multiple of num_heads.
      num_layers: Number of blocks.
      num_heads: Number of heads of each attention.
      hidden: Number of hidden units of each block's network. None means 4 * width, or
        8 * width // 3 if gated. With and without a gate, the network then has about the
        same number of weights.
      positions: "learned" for one vector of parameters per position, "sinusoidal" for
        `research.models.sinusoidal_positions`, or "rotary". With "rotary", nothing is
        added to E[tokens]: each block rotates its queries and keys
        (`research.models.rotate`), and width / num_heads must be even.
      order: Order of the normalisation LN and a sublayer f, which is the attention or
        the network of a block. "pre" normalises the input: x + f(LN(x)). "post"
        normalises the residual sum: LN(x + f(x)).
      activation: Name of the activation, a key of `research.models.ACTIVATIONS`, or an
        elementwise function.
      dropout: Dropout rate. Dropout is active only if apply gets a key.
      tied: If True, the output layer uses the weights of the embedding.
      normalisation: "layer" for `research.models.layer_normalisation`, "rms" for
        `research.models.rms_normalisation`.
      gated: If True, the network of a block has a gate. Apart from biases, the network
        then computes (φ(x W_gate) ⊙ (x W_1)) W_2, where φ is the activation and ⊙ the
        elementwise product. With the activation "silu", the network is SwiGLU.
      num_key_value_heads: Number of key heads and of value heads, a divisor of
        num_heads (grouped-query attention). None means num_heads. 1 means multi-query
        attention.
      bias: If True, the layers of the blocks and the layer normalisations have a bias.
        The output layer never has a bias.
      query_key_normalisation: If True, each query and key of a head is normalised by
        `rms_normalisation` with a learned scale. Rotary positions rotate the normalised
        queries and keys.
      logit_softcap: Positive number c. The logits z become c tanh(z / c), between -c
        and c. None means no cap.
      rotary_base: Base of `research.models.rotary_angles`. It has an effect only if
        positions is "rotary".
      dtype: Dtype of the parameters. None means JAX's default.
    Returns:
      A model. Its apply maps integers of shape (..., T), 1 <= T <= context, or
      `research.types.Sequences` of integers, to logits of shape (..., T, V).
      `Sequences` are padded to one length T. The tokens in the padding have no effect
      on the logits before the padding. The logits of the padding have no meaning.
    Raises:
      ValueError: A count is not a positive integer, dropout is not in [0, 1),
        logit_softcap or rotary_base is not positive, or a name is unknown. Or the width
        is not divisible by num_heads, or num_heads is not divisible by
        num_key_value_heads. Or positions is "rotary", and width / num_heads is odd. In
        apply: T is not in 1..context, a length of `Sequences` is not in 1..T, or a
        token is not in 0..V - 1. Under jit, lengths and tokens are not checked.
      TypeError: dtype is not floating. In apply: the tokens are not integers.
    References:
      Vaswani et al., Attention is all you need, NeurIPS 2017.
      Radford et al., Language models are unsupervised multitask learners, 2019, section
      2.3 (the order "pre", the scale of the residual weights).
      Touvron et al., LLaMA: open and efficient foundation language models,
      arXiv:2302.13971, section 2.2 (rms, gated, rotary).
      Gemma Team, Gemma 2: improving open language models at a practical size,
      arXiv:2408.00118, section 2 (the cap of the logits, grouped queries).
    Example:
      >>> model = transformer_decoder(65, 16, width=8, num_layers=1, num_heads=2)
      >>> params = model.init(jax.random.key(0))
      >>> model.apply(params, jnp.array([[1, 2, 3]])).shape
      (1, 3, 65)
    """
    check_size("vocabulary_size", vocabulary_size, 1)
    check_flag("tied", tied)
    if logit_softcap is not None:
        check_number("logit_softcap", logit_softcap, positive=True)
    init_body, apply_body = _body(
        _Body(
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
            normalisation,
            gated,
            num_key_value_heads,
            bias,
            query_key_normalisation,
            rotary_base,
        )
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
        logits = project(
            {"weights": jnp.transpose(params["tokens"]["weights"])}
            if tied
            else params["output"],
            vectors,
        )
        if logit_softcap is None:
            return logits
        cap = jnp.asarray(logit_softcap, logits.dtype)
        return cap * jnp.tanh(logits / cap)

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
    activation: str | Activation = "gelu",
    dropout: float = 0.0,
    dtype: DTypeLike | None = None,
) -> Model:
    """Build a Transformer classifier of token sequences.

    The architecture is that of `transformer_decoder`. Arguments of the decoder that are
    missing here have their default values. There are two differences:

    - There is no causal mask. Each position attends to all positions of its sequence.
    - Each sequence has one vector of logits, mean_t(x_t) W_output + b_output. Here x_t
      is the vector at position t before the output layer. The mean is taken over all
      positions of the sequence. W_output and b_output are the weights and the bias of
      the output layer.

    Args:
      vocabulary_size, context, width, num_layers, num_heads, hidden, positions, order,
        activation, dropout, dtype: As in `transformer_decoder`.
      num_classes: Number K of classes, at least 2.
    Returns:
      A model. Its apply maps integers of shape (..., T), 1 <= T <= context, or
      `research.types.Sequences` of integers, to logits of shape (..., K). `Sequences`
      are padded to one length T. The tokens in the padding have no effect on logits and
      gradients.
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
    check_size("vocabulary_size", vocabulary_size, 1)
    check_size("num_classes", num_classes, 2)
    init_body, apply_body = _body(
        _Body(
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
        tokens, inside = split_sequences(x, context, vocabulary_size)
        vectors = apply_body(
            params, tokens, None if inside is None else inside[..., None, :], key
        )
        return project(params["output"], _mean_over_positions(vectors, inside))

    return with_own_parameters(init, apply)


def _body(body: _Body) -> tuple[Callable[[Key], Params], Callable[..., Array]]:
    """Build init and apply of the part that decoder and encoder share.

    This part computes the vectors after the last block from the tokens.
    """
    hidden = _check_body(body)
    width, num_layers, dtype = body.width, body.num_layers, body.dtype
    learned, head_size = body.positions == "learned", width // body.num_heads
    pairs = check_groups_of_heads(body.num_heads, body.num_key_value_heads)
    activate = find_activation(body.activation)
    of_layers = body.normalisation == "layer"

    def init(key: Key) -> Params:
        key_tokens, key_positions, key_blocks = (
            jax.random.fold_in(key, child) for child in range(3)
        )
        scale = 1 / np.sqrt(width).item() if body.positions == "sinusoidal" else SCALE
        params = {
            "tokens": {
                "weights": draw_weights(
                    key_tokens, (body.vocabulary_size, width), scale, dtype
                )
            }
        }
        if learned:
            params["positions"] = {
                "weights": draw_weights(
                    key_positions, (body.context, width), SCALE, dtype
                )
            }
        for layer in range(num_layers):
            params[f"block_{layer + 1}"] = init_block(
                jax.random.fold_in(key_blocks, layer),
                width,
                hidden,
                num_layers,
                dtype,
                normalisation=body.normalisation,
                gated=body.gated,
                bias=body.bias,
                num_key_value=2 * pairs * head_size,
                head_size=head_size if body.query_key_normalisation else None,
            )
        if body.order == "pre":
            params["normalisation"] = init_normalisation(
                width, dtype, bias=body.bias and of_layers
            )
        return params

    def apply(
        params: Params, tokens: Array, mask: Array | None, key: Key | None
    ) -> Array:
        keys = [
            None if key is None else jax.random.fold_in(key, child)
            for child in range(num_layers + 1)
        ]
        x = _embed(params, tokens, body.positions)
        x = dropout(keys[0], x, body.dropout)
        angles = (
            rotary_angles(tokens.shape[-1], head_size, base=body.rotary_base)
            if body.positions == "rotary"
            else None
        )
        for layer in range(num_layers):
            x = block(
                params[f"block_{layer + 1}"],
                x,
                mask,
                num_heads=body.num_heads,
                order=body.order,
                activation=activate,
                normalisation=body.normalisation,
                num_key_value_heads=pairs,
                angles=angles,
                dropout_rate=body.dropout,
                key=keys[layer + 1],
            )
        if body.order == "post":
            return x
        return normalise(params["normalisation"], x, body.normalisation)

    return init, apply


def _check_body(body: _Body) -> int:
    """Check the arguments and return the number of hidden units."""
    check_size("width", body.width, 1)
    check_flag("gated", body.gated)
    usual = max(1, 8 * body.width // 3) if body.gated else 4 * body.width
    hidden = usual if body.hidden is None else body.hidden
    for name in ("context", "num_layers", "num_heads"):
        check_size(name, getattr(body, name), 1)
    check_size("hidden", hidden, 1)
    check_most(MOST_LAYERS, num_layers=body.num_layers)
    check_heads(body.width, body.num_heads)
    check_groups_of_heads(body.num_heads, body.num_key_value_heads)
    check_choice("positions", body.positions, POSITIONS)
    check_choice("order", body.order, ORDERS)
    check_choice("normalisation", body.normalisation, NORMALISATIONS)
    check_flag("bias", body.bias)
    check_flag("query_key_normalisation", body.query_key_normalisation)
    check_number("rotary_base", body.rotary_base, positive=True)
    if body.positions == "rotary" and body.width // body.num_heads % 2:
        raise ValueError(
            'width / num_heads must be even for positions="rotary", which rotates '
            f"pairs of features; got width={body.width}, num_heads={body.num_heads}."
        )
    check_dropout_rate("dropout", body.dropout)
    check_model_dtype(body.dtype)
    return hidden


def _embed(params: Params, tokens: Array, positions: str) -> Array:
    """Embed tokens and add their positions, shape (..., T, width)."""
    vectors = embed(params["tokens"]["weights"], tokens)
    if positions == "rotary":
        return vectors
    length, width = vectors.shape[-2:]
    if positions == "learned":
        places = params["positions"]["weights"][:length]
    else:
        vectors = vectors * np.sqrt(width).item()
        places = sinusoidal_positions(length, width, dtype=vectors.dtype)
    return vectors + jnp.broadcast_to(places, vectors.shape)


def _mean_over_positions(vectors: Array, inside: Array | None) -> Array:
    """Compute the mean of the vectors over the positions inside each sequence."""
    if inside is None:
        return jnp.mean(vectors, axis=-2)
    kept = jnp.where(inside[..., None], vectors, jnp.zeros((), vectors.dtype))
    return jnp.sum(kept, axis=-2) / jnp.sum(
        inside, axis=-1, keepdims=True, dtype=vectors.dtype
    )
