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
    check_number,
    check_numbers,
    check_tree,
    shown,
)
from research.models._attention import attention, project
from research.models._dropout import dropout
from research.models._linear import check_drawn
from research.models.activations import find_activation
from research.models.normalisation import layer_normalisation
from research.types import Array, Key, Params

ORDERS = ("pre", "post")
SCALE = 0.02  # Standard deviation of the initial weights, as in GPT-2.


def block(
    params: Params,
    x: Float[ArrayLike, "*batch T width"],
    mask: Bool[ArrayLike, "..."] | None = None,
    *,
    num_heads: int,
    order: str = "pre",
    activation: str | Callable[[Array], Array] = "gelu",
    dropout_rate: float = 0.0,
    key: Key | None = None,
) -> Float[Array, "*batch T width"]:
    """Apply a Transformer block: attention, then a network with one hidden layer.

    Each of these two sublayers is added to its input (residual sum). LN_1 and LN_2 are
    the layer normalisations:

    order "pre": x <- x + attention(LN_1(x)), x <- x + network(LN_2(x)).
    order "post": x <- LN_1(x + attention(x)), x <- LN_2(x + network(x)).

    The network is activation(x W_1 + b_1) W_2 + b_2 at each position.

    Args:
      params: {"normalisation_1": {"scale", "bias"}, "attention": as in `attention`,
        "normalisation_2", "dense_1": {"weights": (width, hidden), "bias"}, "dense_2":
        {"weights": (hidden, width), "bias"}}.
      x: Inputs, shape (..., T, width).
      mask, num_heads: As in `attention`.
      order: Order of normalisation and sublayer, "pre" or "post".
      activation: Name of the activation, a key of `ACTIVATIONS`, or a function.
      dropout_rate: Dropout rate of the outputs of the two sublayers.
      key: Key for dropout in this block and step. None means no dropout.
    Returns:
      The outputs, shape (..., T, width).
    Raises:
      ValueError: order or activation is unknown.
    References:
      Vaswani et al., Attention is all you need, NeurIPS 2017, sections 3.1 and 3.3.
      Xiong et al., On layer normalization in the Transformer architecture, ICML 2020,
      table 1 (both orders).
    Example:
      >>> params = init_block(jax.random.key(0), 8, 32, 1, None)
      >>> block(params, jnp.ones((2, 4, 8)), num_heads=2).shape
      (2, 4, 8)
    """
    check_name("order", order, ORDERS)
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
    check_number("dropout_rate", dropout_rate, below=1.0)
    key_attention, key_network = (
        None if key is None else jax.random.fold_in(key, child) for child in range(2)
    )

    def network(x: Array) -> Array:
        return project(params["dense_2"], activate(project(params["dense_1"], x)))

    x = jnp.asarray(x)
    for name, sublayer, key_sublayer in (
        (
            "normalisation_1",
            lambda x: attention(params["attention"], x, mask, num_heads=num_heads),
            key_attention,
        ),
        ("normalisation_2", network, key_network),
    ):
        entering = normalise(params[name], x) if order == "pre" else x
        x = x + dropout(key_sublayer, sublayer(entering), dropout_rate)
        x = normalise(params[name], x) if order == "post" else x
    return x


def init_block(
    key: Key, width: int, hidden: int, num_layers: int, dtype: DTypeLike | None
) -> Params:
    """Draw the parameters of one block.

    The weights whose outputs are added to a residual sum are divided by sqrt(2
    num_layers).
    """
    residual = SCALE / np.sqrt(2 * num_layers).item()
    layers = {
        "query_key_value": (width, 3 * width, SCALE),
        "output": (width, width, residual),
        "dense_1": (width, hidden, SCALE),
        "dense_2": (hidden, width, residual),
    }
    drawn = {}
    for child, (name, (fan_in, fan_out, scale)) in enumerate(layers.items()):
        weights = draw_weights(
            jax.random.fold_in(key, child), (fan_in, fan_out), scale, dtype
        )
        drawn[name] = {
            "weights": weights,
            "bias": jnp.zeros(fan_out, dtype=weights.dtype),
        }
    return {
        "normalisation_1": init_normalisation(width, dtype),
        "attention": {name: drawn[name] for name in ("query_key_value", "output")},
        "normalisation_2": init_normalisation(width, dtype),
        "dense_1": drawn["dense_1"],
        "dense_2": drawn["dense_2"],
    }


def init_normalisation(width: int, dtype: DTypeLike | None) -> Params:
    """Return the params of a normalisation: scale 1 and bias 0."""
    chosen = jnp.result_type(float) if dtype is None else dtype
    return {
        "scale": jnp.ones(width, dtype=chosen),
        "bias": jnp.zeros(width, dtype=chosen),
    }


def draw_weights(
    key: Key, shape: tuple[int, ...], scale: float, dtype: DTypeLike | None
) -> Array:
    """Draw normal weights with the given standard deviation."""
    check_drawn(key, shape, jnp.result_type(float) if dtype is None else dtype)
    return scale * jax.random.normal(
        key, shape, dtype=jnp.result_type(float) if dtype is None else dtype
    )


def normalise(params: Params, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Apply `layer_normalisation` with params {"scale", "bias"}."""
    return layer_normalisation(x, params["scale"], params["bias"])


def check_name(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise ValueError if the name is unknown."""
    check_choice(name, value, known)
