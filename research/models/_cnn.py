"""Convolutional networks: blocks of convolutions, then dense layers."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, Num

from research.checks import check_choice, shown
from research.models._convolution import Padding, check_image, convolution, pair
from research.models._dropout import check_dropout_rate
from research.models._dropout import dropout as dropped
from research.models._linear import check_model_dtype, check_size, check_sizes, dense
from research.models.activations import Activation, find_activation
from research.models.initialisers import Initialiser, find_initialiser
from research.models.normalisation import group_normalisation, layer_normalisation
from research.models.parameters import shapes_of, with_own_parameters
from research.models.pooling import average_pool, max_pool
from research.types import Array, Key, Model, Params

CHANNELS_OF_A_GROUP = 16  # The best value in a table of Wu & He.


def cnn(
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    channels: Sequence[int] = (32, 64),
    kernel_size: int | tuple[int, int] = 3,
    stride: int | tuple[int, int] = 1,
    padding: Padding = "same",
    strides: Sequence[int | tuple[int, int]] | None = None,
    paddings: Sequence[Padding] | None = None,
    pool: int | Sequence[int] = 2,
    pooling: Literal["max", "average"] = "max",
    hidden: Sequence[int] = (128,),
    activation: str | Activation = "relu",
    normalisation: Literal["layer", "group"] | None = None,
    dropout: float = 0.0,
    initialiser: str = "he_normal",
    dtype: DTypeLike | None = None,
) -> Model:
    """Build a convolutional network for the classification of images.

    The network is a chain of blocks. Each block consists of a convolution, an optional
    normalisation, the activation and pooling. Dense layers follow the last block.

    Args:
      image_shape: Shape (H, W, C) of one image, channels last.
      num_classes: Number of outputs.
      channels: Number of output channels of each block.
      kernel_size: Height and width of the filters, or one number for both.
      stride, padding: Options of every convolution, as in
        `research.models.convolution`.
      strides, paddings: Stride and padding of each block's convolution, one entry for
        each block. If `strides` is None, all blocks use `stride`. If `paddings` is
        None, all blocks use `padding`.
      pool: Height and width of the pooling windows at the end of each block: one number
        for all blocks, or a sequence with one number for each block. 1 means no
        pooling.
      pooling: "max" for `research.models.max_pool`, "average" for
        `research.models.average_pool`.
      hidden: Widths of the dense layers before the last one.
      activation: Activation after every layer except the last: a key of
        `research.models.ACTIVATIONS`, or an elementwise function.
      normalisation: Normalisation between convolution and activation. "layer"
        normalises over the channels of each pixel. "group" normalises over the pixels
        and channels of each group of 16 adjacent channels. If the number of channels is
        not a multiple of 16, the size of a group is the greatest common divisor of 16
        and the number of channels. None means no normalisation.
      dropout: Dropout rate of the inputs of every dense layer. Dropout is active only
        if apply gets a key.
      initialiser: Name of the initialiser of all weights, a key of
        `research.models.INITIALISERS`. Biases start at 0.
      dtype: Dtype of the parameters. None means JAX's default: float64 if JAX's 64-bit
        mode is on, otherwise float32.
    Returns:
      A model. Its apply maps images of shape (..., H, W, C) to (..., num_classes). Its
      params are a dict with a dict of arrays for each layer. In the names of the
      layers, k is 1, 2, ... "convolution_k" has "weights" of shape (height, width,
      inputs, outputs) and "bias" of shape (outputs,). Here inputs and outputs are
      numbers of channels, and outputs is channels[k - 1]. "normalisation_k" has "scale"
      and "bias", both of shape (channels[k - 1],). This entry exists only if there is
      normalisation. "dense_k" has "weights" of shape (inputs, outputs) and "bias" of
      shape (outputs,). The inputs of "dense_1" are all entries of an image after the
      last block. The last dense layer has num_classes outputs. Every other dense layer
      has hidden[k - 1] outputs.
    Raises:
      ValueError: A number is out of range, a name is unknown, or a layer gets an image
        that is smaller than its filter or pooling window. In apply: the images do not
        have shape image_shape.
      TypeError: dtype is not floating. In apply: x is uint8.
    References:
      LeCun, Bottou, Bengio & Haffner, Gradient-based learning applied to document
      recognition, Proc. IEEE 1998.
    Example:
      >>> model = cnn((28, 28, 1), 10)
      >>> params = model.init(jax.random.key(0))
      >>> model.apply(params, jnp.zeros((5, 28, 28, 1))).shape
      (5, 10)
      >>> params["convolution_2"]["weights"].shape, params["dense_1"]["weights"].shape
      ((3, 3, 32, 64), (3136, 128))
    """
    pools = _check(
        image_shape,
        num_classes,
        channels,
        kernel_size,
        stride,
        pool,
        hidden,
        normalisation,
        dropout,
    )
    every_stride = _for_each("strides", strides, stride, len(channels))
    every_padding = _for_each("paddings", paddings, padding, len(channels))
    for i, one in enumerate(every_stride):
        pair(f"strides[{i}]" if strides is not None else "stride", one, 1)
    check_choice("pooling", pooling, ("max", "average"))
    smaller = max_pool if pooling == "max" else average_pool
    check_model_dtype(dtype)
    activate, draw = find_activation(activation), find_initialiser(initialiser)

    def features(
        params: Params, x: Float[Array, "*batch H W C"]
    ) -> Float[Array, "*batch d"]:
        for i, window in enumerate(pools, 1):
            x = convolution(
                x,
                **params[f"convolution_{i}"],
                stride=every_stride[i - 1],
                padding=every_padding[i - 1],
            )
            if normalisation:
                x = _normalised(normalisation, x, **params[f"normalisation_{i}"])
            # Do not pool before the activation: max pooling commutes only with a
            # nondecreasing activation.
            x = activate(x)
            x = smaller(x, window) if window > 1 else x
        return x.reshape(*x.shape[:-3], math.prod(x.shape[-3:]))

    def init(key: Key) -> Params:
        chosen = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
        params, keys = {}, iter(jax.random.split(key, len(pools) + len(hidden) + 1))
        for i, (before, after) in enumerate(
            zip((image_shape[-1], *channels), channels, strict=False), 1
        ):
            shape = (*pair("kernel_size", kernel_size, 1), before, after)
            params[f"convolution_{i}"] = _layer(draw, next(keys), shape, chosen)
            if normalisation:
                params[f"normalisation_{i}"] = {
                    "scale": jnp.ones(after, chosen),
                    "bias": jnp.zeros(after, chosen),
                }
        image = jax.ShapeDtypeStruct(image_shape, chosen)
        widths = (*jax.eval_shape(features, params, image).shape, *hidden, num_classes)
        for i, shape in enumerate(itertools.pairwise(widths), 1):
            params[f"dense_{i}"] = _layer(draw, next(keys), shape, chosen)
        return params

    def apply(params: Params, x: ArrayLike, key: Key | None = None) -> Array:
        x = jnp.asarray(x)
        check_image_shape(x, image_shape)
        if x.dtype == jnp.uint8:
            raise TypeError(
                "x must be floating; got dtype uint8. Wrap the model with "
                "research.models.on_images, or divide x by 255."
            )
        x = features(params, x)
        for i in range(1, len(hidden) + 2):
            x = dense(_dropped(key, i, x, dropout), **params[f"dense_{i}"])
            x = activate(x) if i <= len(hidden) else x
        return x

    # Raise the error for a too small image here rather than at the first step.
    shapes_of(init)
    return with_own_parameters(init, apply)


def _for_each(name: str, values: Any, value: Any, num_blocks: int) -> list[Any]:
    """Return one value for each block: the entries of values, or `value` for all."""
    if values is None:
        return [value] * num_blocks
    if not isinstance(values, list | tuple) or len(values) != num_blocks:
        raise ValueError(
            f"{name} must have one entry for each of {num_blocks} blocks; got "
            f"{name}={shown(values)}."
        )
    return list(values)


def check_image_shape(x: Num[Array, "..."], image_shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless x has shape (..., *image_shape)."""
    check_image(x, image_shape[-1])
    if x.shape[-3:] != tuple(image_shape):
        raise ValueError(
            f"x must be images of shape {tuple(image_shape)} (H, W, C), with any "
            f"leading axes; got x of shape {x.shape}."
        )


def check_sizes_of_images(image_shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless image_shape is (H, W, C), three positive integers."""
    if not (isinstance(image_shape, tuple | list) and len(image_shape) == 3):
        raise ValueError(
            f"image_shape must be (H, W, C); got image_shape={image_shape!r}. Grey "
            "images have C = 1."
        )
    check_sizes("image_shape", image_shape)


def _layer(
    draw: Initialiser, key: Key, shape: tuple[int, ...], dtype: DTypeLike
) -> Params:
    return {"weights": draw(key, shape, dtype), "bias": jnp.zeros(shape[-1], dtype)}


def _normalised(kind: str, x: Array, scale: Array, bias: Array) -> Array:
    if kind == "layer":
        return layer_normalisation(x, scale, bias)
    return group_normalisation(x, scale, bias, number_of_groups(x.shape[-1]))


def number_of_groups(channels: int) -> int:
    """Return the number of groups of channels in a group normalisation.

    Each group has 16 channels, or as many as the largest common divisor of 16 and the
    number of channels.
    """
    return channels // math.gcd(channels, CHANNELS_OF_A_GROUP)


def _dropped(key: Key | None, layer: int, x: Array, rate: float) -> Array:
    return dropped(key if key is None else jax.random.fold_in(key, layer), x, rate)


def _check(
    image_shape: tuple[int, int, int],
    num_classes: int,
    channels: Sequence[int],
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int],
    pool: int | Sequence[int],
    hidden: Sequence[int],
    normalisation: str | None,
    dropout: float,
) -> list[int]:
    """Check the arguments of `cnn` and return the pooling window of each block."""
    check_sizes_of_images(image_shape)
    check_sizes("channels", channels)
    check_sizes("hidden", hidden)
    check_size("num_classes", num_classes, 1)
    pair("kernel_size", kernel_size, 1)
    pair("stride", stride, 1)
    check_dropout_rate("dropout", dropout)
    if normalisation is not None and not (
        isinstance(normalisation, str) and normalisation in ("layer", "group")
    ):
        raise ValueError(
            'normalisation must be "layer", "group" or None; got '
            f"normalisation={normalisation!r}."
        )
    pools: list[int] = (
        list(pool) if isinstance(pool, Sequence) else [pool] * len(channels)
    )
    if len(pools) != len(channels):
        raise ValueError(
            f"pool must be one number, or one for each of {len(channels)} blocks; got "
            f"pool={pool!r}."
        )
    for i, window in enumerate(pools):
        check_size(f"pool[{i}]", window, 1)
    return pools
