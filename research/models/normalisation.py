"""Normalisation within one example: no running statistics, so a model stays a pure function of its params."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from research.checks import check_count, check_numbers, check_real
from research.types import Array


def layer_normalisation(
    x: ArrayLike, scale: ArrayLike, bias: ArrayLike, *, epsilon: float = 1e-5
) -> Array:
    """Gives the last axis mean 0 and variance 1, then a learned scale and shift: scale (x - m) / √(v + ε) + bias.

    m and v = mean of (x - m)² are of the last axis alone, so each example, and each position in it, is normalised by
    itself. The variance divides by d, not d - 1. Half precision is computed in float32 and rounded in the end, as Flax does.

    Args:
      x: Floating, shape (..., d).
      scale, bias: Shape (d,).
      epsilon: ε > 0, inside the root; PyTorch's 1e-5 (Flax's default is 1e-6).
    Returns:
      Shape (..., d).
    Raises:
      ValueError: The shapes do not fit, or epsilon is not positive.
    References:
      Ba, Kiros & Hinton, Layer normalization, arXiv:1607.06450, eq. 3 and 4.
    Example:
      >>> y = layer_normalisation(jnp.array([1.0, 3.0]), jnp.array([1.0, 2.0]), jnp.array([0.0, 5.0]))
      >>> [f"{value:.2f}" for value in y]
      ['-1.00', '7.00']
    """
    for name, value in (("x", x), ("scale", scale), ("bias", bias)):
        check_numbers(name, value)
    x = jnp.asarray(x)
    check_normalisation(x, scale, bias, epsilon)
    return _scaled(_standardised(x, (-1,), epsilon), scale, bias)


def group_normalisation(
    x: ArrayLike,
    scale: ArrayLike,
    bias: ArrayLike,
    num_groups: int,
    *,
    epsilon: float = 1e-5,
) -> Array:
    """Gives each group of neighbouring channels of each image mean 0 and variance 1, then scales and shifts channels.

    The mean and variance are over a group's pixels and channels: one group is layer normalisation of the whole image,
    as many groups as channels is instance normalisation.

    Args:
      x: Floating images, shape (..., H, W, C).
      scale, bias: Shape (C,).
      num_groups: Divides C.
      epsilon: ε > 0, inside the root.
    Returns:
      Shape (..., H, W, C).
    Raises:
      ValueError: The shapes do not fit, num_groups does not divide C, or epsilon is not positive.
    References:
      Wu & He, Group normalization, ECCV 2018, eq. 1, 2 and 7.
    Example:
      >>> x = jnp.array([1.0, 3.0, 10.0, 30.0]).reshape(1, 1, 4)
      >>> [f"{value:.2f}" for value in group_normalisation(x, jnp.ones(4), jnp.zeros(4), 2).ravel()]
      ['-1.00', '1.00', '-1.00', '1.00']
    """
    for name, value in (("x", x), ("scale", scale), ("bias", bias)):
        check_numbers(name, value)
    x = jnp.asarray(x)
    check_normalisation(x, scale, bias, epsilon)
    if x.ndim < 3:
        raise ValueError(f"x must be images, (..., H, W, C); got x of shape {x.shape}.")
    check_groups(num_groups, x.shape[-1])
    groups = x.reshape(*x.shape[:-1], num_groups, x.shape[-1] // num_groups)
    return _scaled(
        _standardised(groups, (-4, -3, -1), epsilon).reshape(x.shape), scale, bias
    )


def check_groups(num_groups: int, channels: int) -> None:
    """Refuses a number of groups that does not divide the channels."""
    check_count("num_groups", num_groups)
    if channels % num_groups:
        raise ValueError(
            f"num_groups must divide the {channels} channels; got num_groups={num_groups!r}."
        )


def check_normalisation(
    x: Array, scale: ArrayLike, bias: ArrayLike, epsilon: float
) -> None:
    """Refuses shapes that would broadcast in silence."""
    if (
        x.ndim == 0
        or jnp.shape(scale) != x.shape[-1:]
        or jnp.shape(bias) != x.shape[-1:]
    ):
        raise ValueError(
            f"scale and bias must have shape {x.shape[-1:]}, for x of shape {x.shape}; got {jnp.shape(scale)} and "
            f"{jnp.shape(bias)}."
        )
    check_real("epsilon", epsilon)
    if not epsilon > 0:
        raise ValueError(
            f"epsilon must be positive; got epsilon={epsilon!r}. A constant input would be divided by 0."
        )


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _standardised(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    return _centred_and_inverse(_wide(x), axes, epsilon)[0].astype(x.dtype)


def _wide(x: Array) -> Array:
    """In float32 at least: a square overflows in float16 from 256 on, and bfloat16 would lose the mean's digits."""
    return x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)


def _centred_and_inverse(
    x: Array, axes: tuple[int, ...], epsilon: float
) -> tuple[Array, Array]:
    """n = (x - m) r, and r = 1 / √(v + ε)."""
    centred = x - jnp.mean(x, axis=axes, keepdims=True)
    # Twice through the data, because mean of squares less square of mean loses its digits where the mean is large.
    inverse = jax.lax.rsqrt(
        jnp.mean(centred * centred, axis=axes, keepdims=True) + epsilon
    )
    return centred * inverse, inverse


@_standardised.defjvp
def _derivative_of_standardised(
    axes: tuple[int, ...], epsilon: float, primals, tangents
):
    """dn = r (d - n mean(n d)) with d = dx - mean(dx): fewer passes over x than through the root."""
    (x,), (dx,) = primals, tangents
    n, inverse = _centred_and_inverse(_wide(x), axes, epsilon)
    wide = _wide(dx)
    centred = wide - jnp.mean(wide, axis=axes, keepdims=True)
    derivative = inverse * (
        centred - n * jnp.mean(n * centred, axis=axes, keepdims=True)
    )
    return n.astype(x.dtype), derivative.astype(dx.dtype)


def _scaled(x: Array, scale: ArrayLike, bias: ArrayLike) -> Array:
    return x * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(bias, x.shape)
