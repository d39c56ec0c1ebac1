"""Layer, root-mean-square and group normalisation, without running statistics.

Because there are no running statistics, a model remains a pure function of its params.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float

from research.checks import check_count, check_numbers, check_real
from research.types import Array


def layer_normalisation(
    x: Float[ArrayLike, "*batch d"],
    scale: Float[ArrayLike, "d"],
    bias: Float[ArrayLike, "d"],
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "*batch d"]:
    """Apply layer normalisation: compute scale (x - m) / √(v + ε) + bias.

    Here m is the mean and v the variance over the last axis of x, and ε is `epsilon`.
    Each vector along the last axis has its own m and v. For v, the sum of (x - m)² is
    divided by the length d of the axis, not by d - 1. If x has half precision,
    (x - m) / √(v + ε) is computed in float32 and rounded to the dtype of x. Then scale
    and bias are applied.

    Args:
      x: Floating array, shape (..., d).
      scale, bias: Scale and bias of each entry, shape (d,).
      epsilon: Positive number inside the root. The default is the same as in PyTorch.
        Flax's default is 1e-6.
    Returns:
      The normalised array, shape (..., d), dtype jnp.result_type(x, scale, bias).
    Raises:
      ValueError: The shapes do not fit, or epsilon is not positive.
    References:
      Ba, Kiros & Hinton, Layer normalization, arXiv:1607.06450, eq. 3 and 4.
    Example:
      >>> scale, bias = jnp.array([1.0, 2.0]), jnp.array([0.0, 5.0])
      >>> y = layer_normalisation(jnp.array([1.0, 3.0]), scale, bias)
      >>> [f"{value:.2f}" for value in y]
      ['-1.00', '7.00']
    """
    check_numbers("x", x, kinds="f", wanted="a floating array")
    for name, value in (("scale", scale), ("bias", bias)):
        check_numbers(name, value)
    x = jnp.asarray(x)
    check_normalisation(x, scale, bias, epsilon)
    return _scaled(_standardised(x, (-1,), epsilon, True), scale, bias)


def rms_normalisation(
    x: Float[ArrayLike, "*batch d"],
    scale: Float[ArrayLike, "d"],
    *,
    epsilon: float = 1e-6,
) -> Float[Array, "*batch d"]:
    """Apply root-mean-square normalisation: compute scale * x / √(mean(x²) + ε).

    The mean is taken over the last axis, and ε is `epsilon`. Unlike in
    `layer_normalisation`, no mean is subtracted from x and there is no bias. If x has
    half precision, x / √(mean(x²) + ε) is computed in float32 and rounded to the dtype
    of x. Then the scale is applied.

    Args:
      x: Floating array, shape (..., d).
      scale: Scale of each entry, shape (d,).
      epsilon: Positive number inside the root. The default is the same as in
        `flax.linen.RMSNorm`. PyTorch's default is the machine epsilon.
    Returns:
      The normalised array, shape (..., d), dtype jnp.result_type(x, scale).
    Raises:
      ValueError: The shapes do not fit, or epsilon is not positive.
    References:
      Zhang & Sennrich, Root mean square layer normalization, NeurIPS 2019, eq. 4.
    Example:
      >>> y = rms_normalisation(jnp.array([1.0, 7.0]), jnp.array([5.0, 10.0]))
      >>> [f"{value:.2f}" for value in y]
      ['1.00', '14.00']
    """
    check_numbers("x", x, kinds="f", wanted="a floating array")
    check_numbers("scale", scale)
    x = jnp.asarray(x)
    if x.ndim == 0 or jnp.shape(scale) != x.shape[-1:]:
        raise ValueError(
            f"scale must have shape {x.shape[-1:]} for x of shape {x.shape}; got "
            f"{jnp.shape(scale)}."
        )
    _check_epsilon(epsilon)
    return _standardised(x, (-1,), epsilon, False) * jnp.broadcast_to(scale, x.shape)


def group_normalisation(
    x: Float[ArrayLike, "*batch H W C"],
    scale: Float[ArrayLike, "C"],
    bias: Float[ArrayLike, "C"],
    num_groups: int,
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "*batch H W C"]:
    """Apply group normalisation to images: standardise groups of adjacent channels.

    The C channels are divided into num_groups groups of equal size. For each image and
    group, the result is scale (x - m) / √(v + ε) + bias. Here m and v are the mean and
    the variance over the pixels and channels of the group in this image, and ε is
    `epsilon`. Each channel has its own scale and bias. If num_groups = C, this is
    instance normalisation.

    Args:
      x: Floating images, shape (..., H, W, C).
      scale, bias: Scale and bias of each channel, shape (C,).
      num_groups: Number of groups, a divisor of C.
      epsilon: Positive number inside the root.
    Returns:
      The normalised images, shape (..., H, W, C).
    Raises:
      ValueError: The shapes do not fit, num_groups does not divide C, or epsilon is not
        positive.
    References:
      Wu & He, Group normalization, ECCV 2018, eq. 1, 2 and 7.
    Example:
      >>> x = jnp.array([1.0, 3.0, 10.0, 30.0]).reshape(1, 1, 4)
      >>> y = group_normalisation(x, jnp.ones(4), jnp.zeros(4), 2)
      >>> [f"{value:.2f}" for value in y.ravel()]
      ['-1.00', '1.00', '-1.00', '1.00']
    """
    check_numbers("x", x, kinds="f", wanted="a floating array")
    for name, value in (("scale", scale), ("bias", bias)):
        check_numbers(name, value)
    x = jnp.asarray(x)
    check_normalisation(x, scale, bias, epsilon)
    if x.ndim < 3:
        raise ValueError(f"x must be images, (..., H, W, C); got x of shape {x.shape}.")
    check_groups(num_groups, x.shape[-1])
    groups = x.reshape(*x.shape[:-1], num_groups, x.shape[-1] // num_groups)
    return _scaled(
        _standardised(groups, (-4, -3, -1), epsilon, True).reshape(x.shape), scale, bias
    )


def check_groups(num_groups: int, channels: int) -> None:
    """Raise ValueError unless num_groups is a positive divisor of `channels`."""
    check_count("num_groups", num_groups)
    if channels % num_groups:
        raise ValueError(
            f"num_groups must divide the {channels} channels; got "
            f"num_groups={num_groups!r}."
        )


def check_normalisation(
    x: Float[Array, "*n d"], scale: ArrayLike, bias: ArrayLike, epsilon: float
) -> None:
    """Raise ValueError unless scale and bias have shape (d,) and epsilon is positive.

    d is the length of the last axis of x.
    """
    if (
        x.ndim == 0
        or jnp.shape(scale) != x.shape[-1:]
        or jnp.shape(bias) != x.shape[-1:]
    ):
        raise ValueError(
            f"scale and bias must have shape {x.shape[-1:]} for x of shape {x.shape}; "
            f"got {jnp.shape(scale)} and {jnp.shape(bias)}."
        )
    _check_epsilon(epsilon)


def _check_epsilon(epsilon: float) -> None:
    check_real("epsilon", epsilon)
    if not epsilon > 0:
        raise ValueError(
            f"epsilon must be positive; got epsilon={epsilon!r}. It prevents a "
            "division by 0 for constant inputs."
        )


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _standardised(
    x: Array, axes: tuple[int, ...], epsilon: float, centred: bool
) -> Array:
    return _normal_and_inverse(_wide(x), axes, epsilon, centred)[0].astype(x.dtype)


def _wide(x: Array) -> Array:
    """Convert an array to at least float32.

    Squares of numbers above 255 overflow in float16, and bfloat16 loses digits of the
    mean.
    """
    return x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)


def _normal_and_inverse(
    x: Array, axes: tuple[int, ...], epsilon: float, centred: bool
) -> tuple[Array, Array]:
    """Compute n = (x - m) r and r = 1 / √(v + ε), with the mean m and variance v.

    If `centred` is False, m is 0 and v is the mean square.
    """
    x = _centred(x, axes) if centred else x
    # Take two passes over the data, because mean(x²) - mean(x)² loses digits if the
    # mean is large.
    inverse = jax.lax.rsqrt(jnp.mean(x * x, axis=axes, keepdims=True) + epsilon)
    return x * inverse, inverse


def _centred(x: Array, axes: tuple[int, ...]) -> Array:
    return x - jnp.mean(x, axis=axes, keepdims=True)


@_standardised.defjvp
def _derivative_of_standardised(
    axes: tuple[int, ...],
    epsilon: float,
    centred: bool,
    primals: tuple[Array],
    tangents: tuple[Array],
) -> tuple[Array, Array]:
    """Compute the derivative dn = r (d - n mean(n d)) with d = dx - mean(dx).

    `_normal_and_inverse` defines n and r. If `centred` is False, d is dx. This formula
    takes fewer passes over x than differentiating the square root.
    """
    (x,), (dx,) = primals, tangents
    n, inverse = _normal_and_inverse(_wide(x), axes, epsilon, centred)
    d = _centred(_wide(dx), axes) if centred else _wide(dx)
    derivative = inverse * (d - n * jnp.mean(n * d, axis=axes, keepdims=True))
    return n.astype(x.dtype), derivative.astype(dx.dtype)


def _scaled(x: Array, scale: ArrayLike, bias: ArrayLike) -> Array:
    return x * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(bias, x.shape)
