"""Max and average pooling of images."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from research.checks import check_numbers
from research.models._convolution import check_image, padding_margins, pair, shifted
from research.types import Array

Pair = tuple[int, int]


def max_pool(
    x: Num[ArrayLike, "*batch H W C"],
    window: int | Pair = 2,
    *,
    stride: int | Pair | None = None,
) -> Num[Array, "*batch height width C"]:
    """Apply max pooling: return the largest value of each window, in each channel.

    If k entries of a window are equal to its largest value, each of them gets 1/k of
    the derivative, as in `jnp.max`. This is the subgradient of least norm. PyTorch
    assigns the whole derivative to the first of these entries. A NaN in a window makes
    the largest value and all derivatives of the window NaN.

    Args:
      x: Images, shape (..., H, W, C).
      window: Height and width of the window, or one number for both.
      stride: Step between windows along height and width, or one number for both. None
        means the window size, so that windows are adjacent.
    Returns:
      The pooled images, shape (..., height, width, C). Here
      height = floor((H - window) / stride) + 1, with the window and the stride along
      the height. The same formula holds for the width. Rows and columns at the end that
      do not fill a window are dropped.
    Raises:
      ValueError: x has fewer than three axes, the window is larger than the image, or a
        number is not a positive integer.
    Example:
      >>> image = jnp.arange(16.0).reshape(4, 4, 1)
      >>> print(max_pool(image)[..., 0])
      [[ 5.  7.]
       [13. 15.]]
    """
    return _over_windows(_largest, x, window, stride)


def average_pool(
    x: Float[ArrayLike, "*batch H W C"],
    window: int | Pair = 2,
    *,
    stride: int | Pair | None = None,
) -> Float[Array, "*batch height width C"]:
    """Apply average pooling: return the mean of each window, in each channel.

    Args:
      x: Floating images, shape (..., H, W, C).
      window, stride: As in `max_pool`.
    Returns:
      The pooled images, shape (..., height, width, C), as in `max_pool`.
    Raises:
      ValueError: As in `max_pool`.
    Example:
      >>> image = jnp.arange(16.0).reshape(4, 4, 1)
      >>> print(average_pool(image, (4, 2))[..., 0])
      [[6.5 8.5]]
    """
    return _over_windows(jnp.mean, x, window, stride)


def _over_windows(
    reduce: Callable[..., Array],
    x: ArrayLike,
    window: int | Pair,
    stride: int | Pair | None,
) -> Array:
    """Apply `reduce` to the entries of each window."""
    check_numbers("x", x)
    x = jnp.asarray(x)
    check_image(x)
    sizes = pair("window", window, 1)
    strides = sizes if stride is None else pair("stride", stride, 1)
    padding_margins("valid", x.shape[-3:-1], sizes, strides)  # Checks the size.
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
    """Compute jnp.max, with the same derivative in fewer passes over x."""
    return jnp.max(x, axis=axis)


@_largest.defjvp
def _derivative_of_largest(
    axis: int | tuple[int, ...], primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    y = _largest(x, axis)
    whole = jnp.broadcast_to(jnp.expand_dims(y, axis), x.shape)
    is_bad = y != y  # If y is NaN, no entry equals y, and all derivatives are NaN.
    among = (x == whole) | (whole != whole)
    picked = jnp.where(among, dx, jnp.zeros((), dx.dtype))
    count = jnp.sum(among, axis=axis, dtype=dx.dtype)
    # XLA may round x and y differently, so that no entry equals the largest value.
    nan = jnp.asarray(jnp.nan, dx.dtype)
    count = jnp.where(is_bad, nan, jnp.maximum(count, 1))
    return y, jnp.sum(picked, axis=axis) / count
