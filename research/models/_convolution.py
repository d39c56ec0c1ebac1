"""Convolution of images, computed as products of matrices."""

from collections.abc import Callable
from numbers import Integral
from typing import cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from research.checks import check_numbers
from research.models.winograd import INPUTS, OUTPUTS, TAPS, winograd
from research.sizes import MOST_PIXELS, check_most
from research.types import Array

# Numbers of zeros ((top, bottom), (left, right)).
Margins = tuple[tuple[int, int], tuple[int, int]]
Padding = str | int | Margins
# Largest number of entries in the patches computed at once: 2 MiB of float32. Larger
# patches do not fit into the processor's cache.
PATCH_NUMBERS = 2**19
# Largest number of entries in Winograd's tiles and products computed at once. It is
# large, so that few batches are cut into several slices. With several slices, the
# gradient repeats the forward pass.
TILE_NUMBERS = 2**24
# Smallest number of input and output channels for Winograd's algorithm. With fewer
# channels, the direct sum is fast enough, and it is more accurate.
LEAST_CHANNELS = 16


def convolution(
    x: Num[ArrayLike, "*batch H W C_in"],
    weights: Float[ArrayLike, "kernel_height kernel_width C_in C_out"],
    bias: Float[ArrayLike, "C_out"],
    *,
    stride: int | tuple[int, int] = 1,
    padding: Padding = "same",
) -> Float[Array, "*batch height width C_out"]:
    """Convolve images with small filters.

    With the strides s and t along height and width, the output is

      y[i, j, o] = bias[o] + Σ_{a,b,c} x[s i + a, t j + b, c] weights[a, b, c, o].

    Here x is the image with its padding, (a, b) runs over the pixels of the filter, and
    c over the input channels. As is usual in deep learning, the filter is not flipped,
    so the operation is a cross-correlation.

    Filters of 3 x 3 with stride 1 use `research.models.winograd` if there are at least
    16 input and 16 output channels, and x and weights are both float32 or both float64.
    Winograd's algorithm needs a quarter of the multiplications of the sum above. For
    all other filters, each patch of x under the filter becomes a row of one matrix.
    This matrix is multiplied by the weights. A large batch is processed a few images at
    a time, so that the patches usually fit into the processor's cache. The memory for
    the patches does not grow with the batch.

    XLA's own convolution is not used. On a GPU, XLA's convolution is faster. On a CPU,
    XLA's convolution has two drawbacks. First, its gradient with respect to the weights
    is slow inside `lax.scan`. Second, `vmap` over weights turns XLA's convolution into
    a grouped convolution.

    Args:
      x: Images with channels last, shape (..., H, W, C_in).
      weights: Filters, shape (kernel height, kernel width, C_in, C_out).
      bias: Bias, shape (C_out,).
      stride: Step between patches: a pair (s, t) for height and width, or one number
        for both.
      padding: Number of zeros around x, in one of four forms. "valid" means no zeros.
        "same" means that the output has ceil(H / s) x ceil(W / t) pixels. If an axis
        then needs an odd number of zeros, the extra zero is at the bottom or on the
        right, as in TensorFlow and Flax. An integer is the number of zeros on each of
        the four sides, as in PyTorch. ((top, bottom), (left, right)) gives each side
        its own number.
    Returns:
      The output images, shape (..., height, width, C_out). Here
      height = floor((H + top + bottom - kernel height) / s) + 1, where top and bottom
      are the numbers of rows of zeros. The width follows in the same way from W, left,
      right, the kernel width and t.
    Raises:
      ValueError: The shapes do not fit, the padded image is smaller than the filter, or
        stride or padding is invalid.
    References:
      Goodfellow, Bengio & Courville, Deep Learning (2016), section 9.1.
      Chellapilla, Puri & Simard, High performance convolutional neural networks for
      document processing, IWFHR 2006 (patches as a matrix).
    Example:
      >>> image = jnp.arange(9.0).reshape(3, 3, 1)
      >>> # The difference of each pixel and its left neighbour:
      >>> difference = jnp.array([[-1.0, 1.0]]).reshape(1, 2, 1, 1)
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
        # One row for each output channel: XLA computes the gradient faster in this
        # order.
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
    """Return whether the filters are 3 x 3 with enough channels and precision."""
    exact = x.dtype == weights.dtype and x.dtype in (jnp.float32, jnp.float64)
    return (
        exact
        and weights.shape[:2] == (TAPS, TAPS)
        and min(weights.shape[2:]) >= LEAST_CHANNELS
    )


def _in_slices(
    function: Callable[..., Array], images: Array, most: int, *others: Array
) -> Array:
    """Compute function(images, *others) for slices of at most `most` images.

    If there are several slices, the gradient recomputes each slice to save memory.
    """
    n = len(images)
    if n <= most:
        return function(images, *others)
    size = max(d for d in range(1, most + 1) if n % d == 0)
    # If n has no good divisor, the remaining images become one more slice, which is
    # compiled separately.
    if 2 * size < most:
        size = -(-n // -(-n // most))
    whole = n - n % size
    again = jax.checkpoint(function, prevent_cse=False)
    y = jax.lax.map(
        lambda part: again(part, *others),
        images[:whole].reshape(-1, size, *images.shape[1:]),
    )
    y = y.reshape(whole, *y.shape[2:])
    return y if whole == n else jnp.concatenate([y, again(images[whole:], *others)])


def patches(
    images: Float[Array, "n H W C"], window: tuple[int, int], strides: tuple[int, int]
) -> Float[Array, "n height width d"]:
    """Copy each window of the images into one row of d numbers.

    d is window[0] * window[1] * C. The windows start every strides[0] rows and every
    strides[1] columns.
    """
    return jnp.concatenate(shifted(images, window, strides), axis=-1)


def shifted(
    images: Float[Array, "n H W C"], window: tuple[int, int], strides: tuple[int, int]
) -> list[Float[Array, "n height width C"]]:
    """Return one array of pixels for each position (a, b) in the window.

    The window slides over the images, as in a convolution. The arrays are in the order
    (0, 0), (0, 1), ... With the strides (s, t), entry [n, i, j] of the array of (a, b)
    is images[n, s i + a, t j + b].
    """
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
    """Compute the number of windows along an axis.

    The number is floor((length - window) / stride) + 1, where `length` is the length of
    the axis with its padding.
    """
    return (length - window) // stride + 1


def padding_margins(
    padding: Padding,
    size: tuple[int, ...],
    window: tuple[int, int],
    strides: tuple[int, int],
) -> Margins:
    """Return the numbers of zeros on each side of an image.

    The result is ((top, bottom), (left, right)). `padding` is as in `convolution`,
    `size` is the shape (H, W) of the image, `window` is the shape of the filter, and
    `strides` are the steps of the filter along height and width.
    Raises ValueError if `padding` is invalid, or if the window is larger than the
    padded image.
    """
    if isinstance(padding, str) and padding == "valid":
        margins = ((0, 0), (0, 0))
    elif isinstance(padding, str) and padding == "same":
        # There are ceil(length / stride) windows. The zeros are split evenly; an odd
        # zero is at the end.
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
            'padding must be "same", "valid", a number of zeros on each side, or '
            f"((top, bottom), (left, right)), none negative; got padding={padding!r}."
        )
    padded = tuple(n + low + high for n, (low, high) in zip(size, margins, strict=True))
    if any(n < k for n, k in zip(padded, window, strict=True)):
        raise ValueError(
            f"a window of {window[0]} x {window[1]} does not fit into an image of "
            f"{size[0]} x {size[1]} padded to {padded[0]} x {padded[1]}. Use a smaller "
            "window, a larger image or padding='same'."
        )
    return margins


def pair(name: str, value: int | tuple[int, int], least: int) -> tuple[int, int]:
    """Check a value for height and width, and return it as two integers.

    The value is one integer for both axes, or two integers. Raises ValueError if the
    value has another form, or if an integer is smaller than `least` or above 10,000.
    `name` is the name of the argument in the message.
    """
    both = value if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2 or not all(_is_count(n, least) for n in both):
        raise ValueError(
            f"{name} must be an integer >= {least}, or two of them for height and "
            f"width; got {name}={value!r}."
        )
    check_most(MOST_PIXELS, **{name: max(both)})
    return int(both[0]), int(both[1])


def check_image(x: Num[Array, "..."], channels: int | None = None) -> None:
    """Raise ValueError unless x has shape (..., H, W, C).

    If `channels` is given, C must be equal to it. If the channels seem to come first,
    the message says how to move their axis.
    """
    if x.ndim < 3 or (channels is not None and x.shape[-1] != channels):
        last = "C" if channels is None else channels
        message = (
            f"x must be images of shape (..., H, W, {last}), with the channels last; "
            f"got x of shape {x.shape}."
        )
        if channels == 1 and x.ndim >= 2:
            message += " Add a channel axis to grey images: x[..., None]."
        if x.ndim >= 3 and channels is not None and x.shape[-3] == channels:
            message += (
                " The channels seem to come first (CHW, NCHW): jnp.moveaxis(x, -3, -1)."
            )
        raise ValueError(message)


def _check_shapes(x: Array, weights: Array, bias: Array) -> None:
    if weights.ndim != 4:
        raise ValueError(
            "weights must have shape (kernel height, kernel width, C_in, C_out); got "
            f"{weights.shape}. Convert PyTorch's (C_out, C_in, height, width) by "
            "jnp.transpose(weights, (2, 3, 1, 0))."
        )
    if x.ndim >= 3 and x.shape[-1] == weights.shape[1] != weights.shape[2]:
        raise ValueError(
            f"weights of shape {weights.shape} have {weights.shape[2]} input channels, "
            f"but x has {x.shape[-1]}. If they are PyTorch's (C_out, C_in, height, "
            "width), use jnp.transpose(weights, (2, 3, 1, 0))."
        )
    check_image(x, weights.shape[2])
    if bias.shape != weights.shape[3:]:
        raise ValueError(
            f"bias must have shape {weights.shape[3:]}, one for each output channel; "
            f"got {bias.shape}. Pass zeros for no bias."
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
