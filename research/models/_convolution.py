"""Convolution of images as products of matrices, which are fast inside a compiled loop where XLA's own is not."""

from collections.abc import Callable
from numbers import Integral
from typing import cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from research.checks import check_numbers
from research.models.winograd import INPUTS, OUTPUTS, TAPS, winograd
from research.sizes import MOST_PIXELS, check_most
from research.types import Array

Margins = tuple[
    tuple[int, int], tuple[int, int]
]  # Zeros ((top, bottom), (left, right)).
Padding = str | int | Margins
# Most numbers in the patches held at once: 2 MiB of float32. Half and twice as many trained as fast within a tenth; the
# patches of a whole batch of 64 took 1.3 times as long.
PATCH_NUMBERS = 2**19
TILE_NUMBERS = (
    2**24
)  # The same for Winograd's tiles and products, which do not repay a second forward pass.
# In and out, for Winograd's tiles. They were the faster from 8 on; small networks, whose time is little, keep the exacter sum.
LEAST_CHANNELS = 16


def convolution(
    x: ArrayLike,
    weights: ArrayLike,
    bias: ArrayLike,
    *,
    stride: int | tuple[int, int] = 1,
    padding: Padding = "same",
) -> Array:
    """Slides a small filter over images: y[i, j, o] = bias[o] + Σ_{a,b,c} x[s i + a, s j + b, c] weights[a, b, c, o].

    As everywhere in deep learning the filter is not flipped: it is a cross-correlation. Filters of 3 x 3 and stride 1
    between 16 channels or more, in float32 or float64, go by `research.models.winograd`, with a quarter of the
    multiplications. For all others the patches that the filter meets are laid out as rows and multiplied by the weights
    as one matrix, a few images at a time, so that the patches stay in the processor's cache. Either way a batch of any
    size fits into memory. The gradient by the weights of XLA's own convolution is 20 times slower, or more, inside
    `lax.scan` on CPU, and under `vmap` over weights it becomes a grouped convolution; on a GPU it is the faster one.

    Args:
      x: Images with channels last, shape (..., H, W, C_in), any leading axes.
      weights: Shape (kernel height, kernel width, C_in, C_out).
      bias: Shape (C_out,).
      stride: s, the step between patches; one number or one for each of height and width.
      padding: Zeros around x, before s is applied. "valid": none; "same": so many that the output has
        ceil(H / s) x ceil(W / s) pixels, the odd one at the bottom and right (as in TensorFlow and Flax); a number:
        that many on each side (as in PyTorch); ((top, bottom), (left, right)).
    Returns:
      Shape (..., height, width, C_out), where height = floor((H + top + bottom - kernel height) / s) + 1.
    Raises:
      ValueError: The shapes do not fit, the padded image is smaller than the filter, or stride or padding is none of
        the above.
    References:
      Goodfellow, Bengio & Courville, Deep Learning (2016), section 9.1; Chellapilla, Puri & Simard, High performance
      convolutional neural networks for document processing, IWFHR 2006 (patches as a matrix).
    Example:
      >>> image = jnp.arange(9.0).reshape(3, 3, 1)
      >>> difference = jnp.array([[-1.0, 1.0]]).reshape(1, 2, 1, 1)  # Of each pixel and its left neighbour.
      >>> print(convolution(image, difference, jnp.zeros(1), padding="valid")[..., 0])
      [[1. 1.]
       [1. 1.]
       [1. 1.]]
    """
    for name, value in (("x", x), ("weights", weights), ("bias", bias)):
        check_numbers(name, value)
    x, weights, bias = jnp.asarray(x), jnp.asarray(weights), jnp.asarray(bias)
    _check_shapes(x, weights, bias)
    (a, b), strides = weights.shape[:2], pair("stride", stride, 1)
    margins = padding_margins(padding, x.shape[-3:-1], (a, b), strides)
    (top, bottom), (left, right) = margins
    height = output_length(x.shape[-3] + top + bottom, a, strides[0])
    width = output_length(x.shape[-2] + left + right, b, strides[1])
    padded = lambda images: jnp.pad(images, ((0, 0), *margins, (0, 0)))

    def by_patches(images: Array, rows: Array, bias: Array) -> Array:
        columns = patches(padded(images), (a, b), strides)
        product = jax.lax.dot_general(
            columns.reshape(-1, columns.shape[-1]), rows, (((1,), (1,)), ((), ()))
        )
        return (product + jnp.broadcast_to(bias, product.shape)).reshape(
            *columns.shape[:-1], len(rows)
        )

    def by_tiles(images: Array, weights: Array, bias: Array) -> Array:
        y = winograd(padded(images), weights)
        return y + jnp.broadcast_to(bias, y.shape)

    images = x.reshape(-1, *x.shape[-3:])
    if strides == (1, 1) and _suits_winograd(x, weights):
        numbers = (
            INPUTS**2
            * -(-height // OUTPUTS)
            * -(-width // OUTPUTS)
            * sum(weights.shape[2:])
        )
        y = _in_slices(by_tiles, images, max(1, TILE_NUMBERS // numbers), weights, bias)
    else:
        # A row for each output channel: XLA multiplies for the gradient in this order about 1.6 times as fast.
        rows = jnp.moveaxis(weights, -1, 0).reshape(weights.shape[-1], -1)
        y = _in_slices(
            by_patches,
            images,
            max(1, PATCH_NUMBERS // (height * width * rows.shape[1])),
            rows,
            bias,
        )
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def _suits_winograd(x: Array, weights: Array) -> bool:
    """Whether the filters are of 3 x 3, between channels enough, and the numbers exact enough."""
    exact = x.dtype == weights.dtype and x.dtype in (jnp.float32, jnp.float64)
    return (
        exact
        and weights.shape[:2] == (TAPS, TAPS)
        and min(weights.shape[2:]) >= LEAST_CHANNELS
    )


def _in_slices(
    function: Callable[..., Array], images: Array, most: int, *others: Array
) -> Array:
    """function(images, *others), at most `most` images at a time; for the gradient each slice is computed again."""
    n = len(images)
    if n <= most:
        return function(images, *others)
    size = max(d for d in range(1, most + 1) if n % d == 0)
    if (
        2 * size < most
    ):  # No good divisor: the images that are left over are one more slice, compiled for itself.
        size = -(-n // -(-n // most))
    whole = n - n % size
    again = jax.checkpoint(function, prevent_cse=False)
    y = jax.lax.map(
        lambda part: again(part, *others),
        images[:whole].reshape(-1, size, *images.shape[1:]),
    )
    y = y.reshape(whole, *y.shape[2:])
    return y if whole == n else jnp.concatenate([y, again(images[whole:], *others)])


def patches(images: Array, window: tuple[int, int], strides: tuple[int, int]) -> Array:
    """Every window of each image as one row: (n, H, W, C) -> (n, height, width, window height * window width * C)."""
    return jnp.concatenate(shifted(images, window, strides), axis=-1)


def shifted(
    images: Array, window: tuple[int, int], strides: tuple[int, int]
) -> list[Array]:
    """For each entry of the window, row by row, the pixels that lie under it: each (n, height, width, C)."""
    n, *size, channels = images.shape
    height, width = (
        output_length(*both) for both in zip(size, window, strides, strict=True)
    )
    return [
        jax.lax.slice(
            images,
            (0, a, b, 0),
            (
                n,
                a + (height - 1) * strides[0] + 1,
                b + (width - 1) * strides[1] + 1,
                channels,
            ),
            (1, *strides, 1),
        )
        for a in range(window[0])
        for b in range(window[1])
    ]


def output_length(length: int, window: int, stride: int) -> int:
    """How many windows fit side by side: floor((length - window) / stride) + 1."""
    return (length - window) // stride + 1


def padding_margins(
    padding: Padding,
    size: tuple[int, ...],
    window: tuple[int, int],
    strides: tuple[int, int],
) -> Margins:
    """The zeros that `padding` stands for, for images of `size` (H, W)."""
    if isinstance(padding, str) and padding == "valid":
        margins = ((0, 0), (0, 0))
    elif isinstance(padding, str) and padding == "same":
        # ceil(length / stride) windows; what they reach over is shared, the odd zero after the end.
        reach = [
            (-(-n // s) - 1) * s + k - n
            for n, k, s in zip(size, window, strides, strict=True)
        ]
        margins = cast(
            Margins, tuple((max(r, 0) // 2, max(r, 0) - max(r, 0) // 2) for r in reach)
        )
    elif _is_count(padding):
        check_most(MOST_PIXELS, padding=padding)
        margins = cast(Margins, ((padding, padding),) * 2)
    elif _is_two_pairs(padding):
        check_most(
            MOST_PIXELS, padding=max(max(margins) for margins in cast(Margins, padding))
        )
        margins = cast(Margins, padding)
    else:
        raise ValueError(
            f'padding must be "same", "valid", a number of zeros on each side, or ((top, bottom), (left, right)), none '
            f"negative; got padding={padding!r}."
        )
    padded = tuple(n + low + high for n, (low, high) in zip(size, margins, strict=True))
    if any(n < k for n, k in zip(padded, window, strict=True)):
        raise ValueError(
            f"A window of {window[0]} x {window[1]} does not fit into an image of {size[0]} x {size[1]} padded to "
            f"{padded[0]} x {padded[1]}. Take a smaller window, a larger image or padding='same'."
        )
    return margins


def pair(name: str, value: int | tuple[int, int], least: int) -> tuple[int, int]:
    """One number for height and width, or one for each, checked to be integers of at least `least`."""
    both = value if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2 or not all(_is_count(n, least) for n in both):
        raise ValueError(
            f"{name} must be an integer of at least {least}, or two of them for height and width; got {name}={value!r}."
        )
    check_most(MOST_PIXELS, **{name: max(both)})
    return int(both[0]), int(both[1])


def check_image(x: Array, channels: int | None = None) -> None:
    """Refuses what is no (..., H, W, C), and says how to transpose where the channels seem to stand first."""
    if x.ndim < 3 or (channels is not None and x.shape[-1] != channels):
        many = (
            "channels"
            if channels is None
            else f"{channels} channel{'s' if channels != 1 else ''}"
        )
        message = f"x must be images with {many} last, (..., H, W, C) (one image HWC, a batch NHWC); got x of shape {x.shape}."
        if channels == 1 and x.ndim >= 2:
            message += " Grey images without a channel axis: x[..., None]."
        if x.ndim >= 3 and channels is not None and x.shape[-3] == channels:
            message += (
                " Channels seem to stand first (CHW, NCHW): jnp.moveaxis(x, -3, -1)."
            )
        raise ValueError(message)


def _check_shapes(x: Array, weights: Array, bias: Array) -> None:
    if weights.ndim != 4:
        raise ValueError(
            f"weights must have shape (kernel height, kernel width, C_in, C_out); got {weights.shape}. From PyTorch's "
            f"(C_out, C_in, height, width): jnp.transpose(weights, (2, 3, 1, 0))."
        )
    if x.ndim >= 3 and x.shape[-1] == weights.shape[1] != weights.shape[2]:
        raise ValueError(
            f"weights of shape {weights.shape} are of {weights.shape[2]} channels, x of {x.shape[-1]}: PyTorch's (C_out, "
            "C_in, height, width)? jnp.transpose(weights, (2, 3, 1, 0))."
        )
    check_image(x, weights.shape[2])
    if bias.shape != weights.shape[3:]:
        raise ValueError(
            f"bias must have shape {weights.shape[3:]}, one for each output channel; got {bias.shape}. Without a bias: "
            f"zeros of that shape."
        )


def _is_count(value: object, least: int = 0) -> bool:
    return (
        isinstance(value, Integral)
        and not isinstance(value, bool)
        and int(value) >= least
    )


def _is_two_pairs(value: object) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(
            isinstance(p, tuple | list) and len(p) == 2 and all(map(_is_count, p))
            for p in value
        )
    )
