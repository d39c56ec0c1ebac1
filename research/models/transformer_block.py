"""One block of the Transformer: attention and a small network with residual sums."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float

from research.checks import (
    check_choice,
    check_key,
    check_numbers,
    check_tree,
    shown,
)
from research.models._attention import attention, project
from research.models._dropout import check_dropout_rate, dropout
from research.models._linear import check_drawn, draw_normal
from research.models.activations import find_activation
from research.models.normalisation import layer_normalisation, rms_normalisation
from research.types import Array, Key, Params

ORDERS = ("pre", "post")
NORMALISATIONS = ("layer", "rms")
SCALE = 0.02  # Standard deviation of the initial weights, as in GPT-2.


def block(
    params: Params,
    x: Float[ArrayLike, "*batch T width"],
    mask: Bool[ArrayLike, "..."] | None = None,
    *,
    num_heads: int,
    order: str = "pre",
    activation: str | Callable[[Array], Array] = "gelu",
    normalisation: str = "layer",
    num_key_value_heads: int | None = None,
    angles: Float[ArrayLike, "context d/2"] | None = None,
    dropout_rate: float = 0.0,
    key: Key | None = None,
) -> Float[Array, "*batch T width"]:
    """Apply a Transformer block: attention, then a network with one hidden layer.

    The output of each of these two sublayers is added to x (residual sum). With the
    normalisations LN_1 and LN_2, the block computes

    order "pre": x <- x + attention(LN_1(x)), x <- x + network(LN_2(x)).
    order "post": x <- LN_1(x + attention(x)), x <- LN_2(x + network(x)).

    The network is activation(x W_1 + b_1) W_2 + b_2 at each position. If the params
    contain "gate", the network is
    (activation(x W_gate + b_gate) ⊙ (x W_1 + b_1)) W_2 + b_2 with the elementwise
    product ⊙. With the activation "silu", this gated network is SwiGLU.

    Args:
      params: Nested dict of arrays of these shapes:
        {"normalisation_1": {"scale": (width,), "bias": (width,)}, "attention": as in
        `attention`, "normalisation_2": as "normalisation_1", "dense_1": {"weights":
        (width, hidden), "bias": (hidden,)}, "dense_2": {"weights": (hidden, width),
        "bias": (width,)}}. "dense_1" contains W_1 and b_1, and "dense_2" contains W_2
        and b_2. An optional entry "gate" contains W_gate and b_gate, with the shapes of
        "dense_1". A missing bias means 0.
      x: Inputs, shape (..., T, width).
      mask, num_heads, num_key_value_heads, angles: As in `attention`.
      order: Order of normalisation and sublayer, "pre" or "post".
      activation: Name of the activation, a key of `ACTIVATIONS`, or an elementwise
        function.
      normalisation: "layer" for `layer_normalisation`, or "rms" for
        `rms_normalisation`.
      dropout_rate: Dropout rate of the outputs of the two sublayers.
      key: Key for the dropout in this call. None means no dropout.
    Returns:
      The outputs, shape (..., T, width).
    Raises:
      ValueError: As in `attention`. Or order, activation or normalisation is unknown,
        or dropout_rate lies outside [0, 1).
      TypeError: As in `attention`. Or params lack an entry, or dropout_rate is not a
        number.
    References:
      Vaswani et al., Attention is all you need, NeurIPS 2017, sections 3.1 and 3.3.
      Shazeer, GLU variants improve Transformer, arXiv:2002.05202, eq. 6 (the gate).
      Xiong et al., On layer normalization in the Transformer architecture, ICML 2020,
      table 1 (both orders).
    Example:
      >>> params = init_block(jax.random.key(0), 8, 32, 1, None)
      >>> block(params, jnp.ones((2, 4, 8)), num_heads=2).shape
      (2, 4, 8)
    """
    check_choice("order", order, ORDERS)
    check_choice("normalisation", normalisation, NORMALISATIONS)
    activate = activation if callable(activation) else find_activation(activation)
    check_tree("params", params)
    names = ("normalisation_1", "attention", "normalisation_2", "dense_1", "dense_2")
    if not isinstance(params, Mapping) or not all(
        isinstance(params.get(name), Mapping) for name in names
    ):
        raise TypeError(
            f"params must be a dict of {', '.join(names)}; got params={shown(params)}."
        )
    check_numbers("x", x)
    if key is not None:
        check_key("key", key)
    check_dropout_rate("dropout_rate", dropout_rate)
    key_attention, key_network = (
        None if key is None else jax.random.fold_in(key, child) for child in range(2)
    )

    def network(x: Array) -> Array:
        hidden = project(params["dense_1"], x)
        if "gate" in params:
            hidden = activate(project(params["gate"], x)) * hidden
        else:
            hidden = activate(hidden)
        return project(params["dense_2"], hidden)

    def attend(x: Array) -> Array:
        return attention(
            params["attention"],
            x,
            mask,
            num_heads=num_heads,
            num_key_value_heads=num_key_value_heads,
            angles=angles,
        )

    x = jnp.asarray(x)
    for name, sublayer, key_sublayer in (
        ("normalisation_1", attend, key_attention),
        ("normalisation_2", network, key_network),
    ):
        entering = normalise(params[name], x, normalisation) if order == "pre" else x
        x = x + dropout(key_sublayer, sublayer(entering), dropout_rate)
        x = normalise(params[name], x, normalisation) if order == "post" else x
    return x


def init_block(
    key: Key,
    width: int,
    hidden: int,
    num_layers: int,
    dtype: DTypeLike | None,
    *,
    normalisation: str = "layer",
    gated: bool = False,
    bias: bool = True,
    num_key_value: int | None = None,
    head_size: int | None = None,
) -> Params:
    """Draw the parameters of one block of a Transformer with num_layers blocks.

    The result is the params of `block`. Weights are normal. Their standard deviation is
    0.02, but 0.02 / sqrt(2 num_layers) for "dense_2" and for "output" in the attention.
    Biases are 0 and scales are 1.

    width, hidden, num_layers, dtype, normalisation, gated and bias are as in
    `transformer_decoder`. The weights "query_key_value" of the attention have width
    columns for the queries and num_key_value columns for the keys and values of all
    heads. num_key_value=None means 2 * width. If head_size is given, `attention`
    normalises queries and keys, and the params also contain the scales of this
    normalisation, of shape (head_size,).
    """
    residual = SCALE / np.sqrt(2 * num_layers).item()
    num_key_value = 2 * width if num_key_value is None else num_key_value
    layers = {
        "query_key_value": (width, width + num_key_value, SCALE),
        "output": (width, width, residual),
        "dense_1": (width, hidden, SCALE),
        "dense_2": (hidden, width, residual),
    } | ({"gate": (width, hidden, SCALE)} if gated else {})
    drawn = {}
    for child, (name, (fan_in, fan_out, scale)) in enumerate(layers.items()):
        weights = draw_weights(
            jax.random.fold_in(key, child), (fan_in, fan_out), scale, dtype
        )
        drawn[name] = {"weights": weights}
        if bias:
            drawn[name]["bias"] = jnp.zeros(fan_out, dtype=weights.dtype)
    attention = {name: drawn.pop(name) for name in ("query_key_value", "output")}
    if head_size is not None:
        for name in ("query_normalisation", "key_normalisation"):
            attention[name] = init_normalisation(head_size, dtype, bias=False)
    with_bias = bias and normalisation == "layer"
    return {
        "normalisation_1": init_normalisation(width, dtype, bias=with_bias),
        "attention": attention,
        "normalisation_2": init_normalisation(width, dtype, bias=with_bias),
        **drawn,
    }


def init_normalisation(
    width: int, dtype: DTypeLike | None, *, bias: bool = True
) -> Params:
    """Return the initial params of a normalisation: scale 1 and bias 0.

    Both arrays have shape (width,). If `bias` is False, the params contain no bias.
    dtype=None means JAX's default.
    """
    chosen = jnp.result_type(float) if dtype is None else dtype
    scale = {"scale": jnp.ones(width, dtype=chosen)}
    return scale | ({"bias": jnp.zeros(width, dtype=chosen)} if bias else {})


def draw_weights(
    key: Key, shape: tuple[int, ...], scale: float, dtype: DTypeLike | None
) -> Array:
    """Draw normal weights with mean 0 and the standard deviation `scale`.

    dtype=None means JAX's default.
    """
    chosen = jnp.result_type(float) if dtype is None else dtype
    check_drawn(key, shape, chosen)
    return draw_normal(key, shape, scale, chosen)


def normalise(
    params: Params, x: Float[Array, "*n d"], kind: str = "layer"
) -> Float[Array, "*n d"]:
    """Apply `rms_normalisation` or `layer_normalisation` over the last axis of x.

    `kind` is "rms" or "layer". The params are {"scale": (d,)}, and for "layer" also
    {"bias": (d,)}. A missing bias means 0.
    """
    if kind == "rms":
        return rms_normalisation(x, params["scale"])
    bias = params["bias"] if "bias" in params else jnp.zeros_like(params["scale"])
    return layer_normalisation(x, params["scale"], bias)
