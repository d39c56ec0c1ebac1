"""Pooling: each window of an image becomes its largest or its mean value."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from research.checks import check_numbers
from research.models._convolution import check_image, padding_margins, pair, shifted
from research.types import Array

Pair = tuple[int, int]


def max_pool(
    x: ArrayLike, window: int | Pair = 2, *, stride: int | Pair | None = None
) -> Array:
    """The largest value of each window, in each channel.

    Where several entries of a window are equally large the derivative is shared among them equally, as that of
    `jnp.max` is: the subgradient of least norm. PyTorch gives all of it to the first.

    Args:
      x: Images, shape (..., H, W, C).
      window: Height and width of the window, or one number for both.
      stride: Step between windows; None means the window itself, so that they lie side by side.
    Returns:
      Shape (..., height, width, C), height = floor((H - window) / stride) + 1: rows and columns that fill no window are
      left out ("valid").
    Raises:
      ValueError: x has fewer than three axes, the window is larger than the image, or a number is no positive integer.
    Example:
      >>> image = jnp.arange(16.0).reshape(4, 4, 1)
      >>> print(max_pool(image)[..., 0])
      [[ 5.  7.]
       [13. 15.]]
    """
    return _over_windows(_largest, x, window, stride)


def average_pool(
    x: ArrayLike, window: int | Pair = 2, *, stride: int | Pair | None = None
) -> Array:
    """The mean value of each window, in each channel.

    Args:
      x: Floating images, shape (..., H, W, C).
      window, stride: As in `max_pool`.
    Returns:
      Shape (..., height, width, C), as in `max_pool`.
    Raises:
      ValueError: As in `max_pool`.
    Example:
      >>> image = jnp.arange(16.0).reshape(4, 4, 1)
      >>> print(average_pool(image, (4, 2))[..., 0])
      [[6.5 8.5]]
    """
    return _over_windows(jnp.mean, x, window, stride)


def _over_windows(
    reduce, x: ArrayLike, window: int | Pair, stride: int | Pair | None
) -> Array:
    """Reduces the two window axes of (n, height, window height, width, window width, C)."""
    check_numbers("x", x)
    x = jnp.asarray(x)
    check_image(x)
    sizes = pair("window", window, 1)
    strides = sizes if stride is None else pair("stride", stride, 1)
    padding_margins("valid", x.shape[-3:-1], sizes, strides)  # The window must fit.
    images = x.reshape(-1, *x.shape[-3:])
    if sizes == strides:
        n, height, width, channels = images.shape
        height, width = height // sizes[0], width // sizes[1]
        images = images[:, : height * sizes[0], : width * sizes[1]]
        y = reduce(
            images.reshape(n, height, sizes[0], width, sizes[1], channels), axis=(2, 4)
        )
    else:
        y = reduce(jnp.stack(shifted(images, sizes, strides)), axis=0)
    return y.reshape(*x.shape[:-3], *y.shape[1:])


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _largest(x: Array, axis: int | tuple[int, ...]) -> Array:
    """jnp.max with the same derivative, which is computed in fewer passes over x."""
    return jnp.max(x, axis=axis)


@_largest.defjvp
def _derivative_of_largest(axis: int | tuple[int, ...], primals, tangents):
    (x,), (dx,) = primals, tangents
    y = _largest(x, axis)
    among = x == jnp.broadcast_to(jnp.expand_dims(y, axis), x.shape)
    picked = jnp.where(among, dx, jnp.zeros((), dx.dtype))
    count = jnp.sum(among, axis=axis, dtype=dx.dtype)
    return y, jnp.sum(picked, axis=axis) / jnp.maximum(
        count, 1
    )  # XLA may round x and y apart: then none is the largest.
