"""Residual networks for images, with weight standardisation and no batch statistics."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float

from research.checks import check_number, check_numbers
from research.models._cnn import (
    check_image_shape,
    check_sizes_of_images,
    number_of_groups,
)
from research.models._convolution import convolution
from research.models._linear import check_model_dtype, check_size, check_sizes, dense
from research.models.activations import Activation, find_activation
from research.models.initialisers import he_normal
from research.models.normalisation import group_normalisation
from research.models.parameters import shapes_of, with_own_parameters
from research.sizes import MOST_LAYERS, check_most
from research.types import Array, Key, Model, Params


def resnet(
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    channels: Sequence[int] = (16, 32, 64),
    blocks: int = 2,
    activation: str | Activation = "relu",
    dtype: DTypeLike | None = None,
) -> Model:
    """Build a residual network for images, without batch normalisation.

    The first layer is a convolution of 3 x 3. Then come several stages, one for each
    entry of `channels`. A stage is a chain of residual blocks. With the group
    normalisation GN and the activation φ, a block computes its output y from its input
    x:

        a = φ(GN_1(x)),    y = s(x) + C_2(φ(GN_2(C_1(a)))).

    C_1 and C_2 are convolutions of 3 x 3. The shortcut s(x) is x, if x has the size and
    the number of channels of y. Otherwise s(x) is C_3(a), with a 1 x 1 convolution C_3.
    In each stage after the first, the first block has stride 2, in C_1 and in the
    shortcut. Let z be the output of the last block. The network computes φ(GN(z)),
    takes the mean over all pixels, and applies a dense layer to this mean.

    All convolutions use `standardise_weights` and have no bias. Standardised weights
    and group normalisation together replace batch normalisation. They do not need the
    mean and variance of a batch, so the prediction for an image does not depend on the
    other images of the batch.

    Args:
      image_shape: Shape (H, W, C) of one image, channels last.
      num_classes: Number K of outputs.
      channels: Number of channels of each stage. GN has groups of 16 channels. If the
        number of channels is not a multiple of 16, the size of a group is the greatest
        common divisor of 16 and the number of channels.
      blocks: Number of blocks of each stage. With three stages, the network has
        6 * blocks + 2 layers of weights, not counting the shortcuts.
      activation: Name of the activation φ, a key of `research.models.ACTIVATIONS`, or
        an elementwise function.
      dtype: Dtype of the parameters. None means JAX's default.
    Returns:
      A model. Its apply maps images of shape (..., H, W, C) to (..., K). Its params are
      {"convolution": {"weights", "gain"}, "block_1": {"normalisation_1": {"scale",
      "bias"}, "convolution_1", "normalisation_2", "convolution_2", "shortcut"}, ...,
      "normalisation", "dense": {"weights", "bias"}}. All convolutions have "weights"
      and "gain". The entry "shortcut" exists only if the shortcut is a convolution. All
      parameters of the dense layer are initially 0, as in the model BiT.
    Raises:
      ValueError: A number is not a positive integer, or a name is unknown. In apply:
        the images do not have shape image_shape.
      TypeError: dtype is not floating. In apply: x is not floating.
    References:
      He, Zhang, Ren & Sun, Identity mappings in deep residual networks, ECCV 2016,
      figure 4 (e).
      Kolesnikov et al., Big transfer (BiT), ECCV 2020, section 2.1 (group normalisation
      with weight standardisation).
    Example:
      >>> model = resnet((32, 32, 3), 10)
      >>> params = jax.eval_shape(model.init, jax.random.key(0))
      >>> images = jax.ShapeDtypeStruct((2, 32, 32, 3), "float32")
      >>> jax.eval_shape(model.apply, params, images).shape
      (2, 10)
      >>> params["block_3"]["shortcut"]["weights"].shape
      (1, 1, 16, 32)
    """
    check_sizes_of_images(image_shape)
    check_sizes("channels", channels)
    if not channels:
        raise ValueError("channels must have at least one stage; got channels=().")
    check_size("num_classes", num_classes, 1)
    check_size("blocks", blocks, 1)
    check_most(MOST_LAYERS, blocks=blocks * len(channels))
    check_model_dtype(dtype)
    activate = find_activation(activation)
    layout = _layout(channels, blocks)

    def init(key: Key) -> Params:
        chosen = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
        params: dict[str, Any] = {
            "convolution": _draw(
                jax.random.fold_in(key, 0), 3, image_shape[-1], channels[0], chosen
            )
        }
        for i, (before, after, stride) in enumerate(layout, 1):
            key_block = jax.random.fold_in(key, i)
            keys = [jax.random.fold_in(key_block, child) for child in range(3)]
            params[f"block_{i}"] = {
                "normalisation_1": _start(before, chosen),
                "convolution_1": _draw(keys[0], 3, before, after, chosen),
                "normalisation_2": _start(after, chosen),
                "convolution_2": _draw(keys[1], 3, after, after, chosen),
            }
            if before != after or stride > 1:
                params[f"block_{i}"]["shortcut"] = _draw(
                    keys[2], 1, before, after, chosen
                )
        return params | {
            "normalisation": _start(channels[-1], chosen),
            "dense": {
                "weights": jnp.zeros((channels[-1], num_classes), chosen),
                "bias": jnp.zeros(num_classes, chosen),
            },
        }

    def apply(params: Params, x: ArrayLike, key: Key | None = None) -> Array:
        del key  # The model is deterministic.
        x = jnp.asarray(x)
        check_image_shape(x, image_shape)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(
                f"x must be floating; got dtype {x.dtype}. Wrap the model with "
                "research.models.on_images, or divide x by 255."
            )
        x = _convolve(params["convolution"], x, 1)
        for i, (_, _, stride) in enumerate(layout, 1):
            x = _block(params[f"block_{i}"], x, stride, activate)
        x = activate(_normalised(params["normalisation"], x))
        return dense(jnp.mean(x, axis=(-3, -2)), **params["dense"])

    shapes_of(init)
    return with_own_parameters(init, apply)


def standardise_weights(
    weights: Float[ArrayLike, "*fan_in C_out"],
    gain: Float[ArrayLike, "C_out"],
    *,
    epsilon: float = 1e-6,
) -> Float[Array, "*fan_in C_out"]:
    """Give the weights of each output channel mean 0 and variance gain² / N.

    Let W be the N weights of an output channel, m their mean, and v their variance,
    mean((W - m)²). The result is gain (W - m) / √(N (v + ε)), where ε is `epsilon`. The
    result has these properties:

    - Adding a constant to W does not change the result.
    - If v is much larger than ε, multiplying W by a positive constant hardly changes
      the result.
    - If v is much larger than ε, the variance of the result is gain² / N up to a small
      error. A layer with these weights then maps independent inputs of variance 1 to
      outputs of variance gain².

    For weights in half precision, the result is computed in float32 and then rounded.

    Args:
      weights: Weights, shape (..., C_out), such as the filters of
        `research.models.convolution`.
      gain: Gain of each output channel, shape (C_out,).
      epsilon: Positive number inside the root.
    Returns:
      The standardised weights, in the shape and dtype of `weights`.
    Raises:
      ValueError: The shapes do not fit, or epsilon is not positive.
    References:
      Qiao, Wang, Liu, Shen & Yuille, Micro-batch training with batch-channel
      normalization and weight standardization, arXiv:1903.10520, section 3.1.
      Brock, De & Smith, Characterizing signal propagation to close the performance gap
      in unnormalized ResNets, ICLR 2021, section 4 (the division by √N and the gain).
    Example:
      >>> print(standardise_weights(jnp.array([[1.0], [3.0]]), jnp.ones(1)).round(3).T)
      [[-0.707  0.707]]
    """
    for name, value in (("weights", weights), ("gain", gain)):
        check_numbers(name, value, kinds="f", wanted="a floating array")
    weights, gain = jnp.asarray(weights), jnp.asarray(gain)
    if weights.ndim < 2 or gain.shape != weights.shape[-1:]:
        raise ValueError(
            "weights must have shape (..., C_out) with at least two axes, and gain "
            f"(C_out,); got {weights.shape} and {gain.shape}."
        )
    check_number("epsilon", epsilon, positive=True)
    wide = weights if weights.dtype.itemsize >= 4 else weights.astype(jnp.float32)
    axes = tuple(range(weights.ndim - 1))
    centred = wide - jnp.mean(wide, axis=axes, keepdims=True)
    fan_in = math.prod(weights.shape[:-1])
    squares = jnp.mean(centred * centred, axis=axes, keepdims=True)
    factor = gain.astype(wide.dtype) / np.sqrt(fan_in).item()
    scaled = centred * jax.lax.rsqrt(squares + float(epsilon))
    return (scaled * jnp.broadcast_to(factor, scaled.shape)).astype(weights.dtype)


def _layout(channels: Sequence[int], blocks: int) -> list[tuple[int, int, int]]:
    """List (input channels, output channels, stride) for each residual block."""
    layout, before = [], channels[0]
    for stage, after in enumerate(channels):
        for block in range(blocks):
            layout.append((before, after, 2 if stage and not block else 1))
            before = after
    return layout


def _block(params: Params, x: Array, stride: int, activate: Activation) -> Array:
    entering = activate(_normalised(params["normalisation_1"], x))
    if "shortcut" in params:
        x = _convolve(params["shortcut"], entering, stride)
    hidden = _convolve(params["convolution_1"], entering, stride)
    hidden = activate(_normalised(params["normalisation_2"], hidden))
    return x + _convolve(params["convolution_2"], hidden, 1)


def _convolve(params: Params, x: Array, stride: int) -> Array:
    weights = standardise_weights(params["weights"], params["gain"])
    no_bias = jnp.zeros(weights.shape[-1], weights.dtype)
    return convolution(x, weights, no_bias, stride=stride)


def _normalised(params: Params, x: Array) -> Array:
    groups = number_of_groups(x.shape[-1])
    return group_normalisation(x, params["scale"], params["bias"], groups)


def _draw(key: Key, size: int, before: int, after: int, dtype: DTypeLike) -> Params:
    return {
        "weights": he_normal(key, (size, size, before, after), dtype),
        "gain": jnp.ones(after, dtype),
    }


def _start(channels: int, dtype: DTypeLike) -> Params:
    return {"scale": jnp.ones(channels, dtype), "bias": jnp.zeros(channels, dtype)}
