"""Activation functions and their derivatives, both by name."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from research.checks import shown
from research.types import Array

Activation = Callable[[Array], Array]  # Elementwise, in the dtype of its argument.


def identity(z: ArrayLike) -> Array:
    """φ(z) = z: a network of it is linear, however deep."""
    return jnp.asarray(z)


def sigmoid(z: ArrayLike) -> Array:
    """φ(z) = 1 / (1 + exp(-z)), which does not overflow."""
    return jax.nn.sigmoid(jnp.asarray(z))


def tanh(z: ArrayLike) -> Array:
    """φ(z) = (exp(z) - exp(-z)) / (exp(z) + exp(-z))."""
    return jnp.tanh(z)


def relu(z: ArrayLike) -> Array:
    """φ(z) = max(z, 0); its derivative at the kink is taken as 0, as everywhere."""
    return jax.nn.relu(jnp.asarray(z))


def silu(z: ArrayLike) -> Array:
    """φ(z) = z σ(z), also called swish."""
    z = jnp.asarray(z)
    return z * jax.nn.sigmoid(z)


def gelu(z: ArrayLike) -> Array:
    """φ(z) = z Φ(z), where Φ is the standard normal distribution function, by the error function.

    This is the definition, and what PyTorch's default computes. `jax.nn.gelu` and `flax.linen.gelu` approximate it unless
    told otherwise, z (1 + tanh(√(2/π) (z + 0.044715 z³))) / 2, which is off by up to 4.8e-4.

    Args:
      z: Floating, any shape.
    Returns:
      The same shape and dtype.
    References:
      Hendrycks & Gimpel, Gaussian Error Linear Units, arXiv:1606.08415, section 2.
    Example:
      >>> z = jnp.array([-1.0, 0.0, 2.7])
      >>> print(gelu(z).round(5), f"{jnp.abs(jax.nn.gelu(z) - gelu(z)).max():.1e}")
      [-0.15866  0.       2.69064] 4.7e-04
    """
    z = jnp.asarray(z)
    return z * _normal_distribution(z)


def _normal_distribution(z: Array) -> Array:
    """Φ(z) = (1 + erf(z / √2)) / 2, to half an ε of 1; erfc would keep its digits in the lower tail, and costs more."""
    return 0.5 + 0.5 * jax.lax.erf(z * float(np.sqrt(0.5)))


def _derivative_of_sigmoid(z: Array) -> Array:
    """σ (1 - σ)."""
    h = sigmoid(z)
    return h * (1 - h)


def _derivative_of_tanh(z: Array) -> Array:
    """1 - tanh², by factors: the square would lose half the digits where the unit is nearly saturated."""
    h = tanh(z)
    return (1 + h) * (1 - h)


def _derivative_of_silu(z: Array) -> Array:
    """σ + z σ (1 - σ)."""
    h = sigmoid(z)
    return h + z * h * (1 - h)


def _derivative_of_gelu(z: Array) -> Array:
    """Φ(z) + z times the normal density."""
    return _normal_distribution(z) + z * (
        jnp.exp(-0.5 * z * z) * float(1 / np.sqrt(2 * np.pi))
    )


ACTIVATIONS: dict[str, Activation] = {
    "identity": identity,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "relu": relu,
    "silu": silu,
    "gelu": gelu,
}

# z -> φ'(z), elementwise; what the backward pass by hand multiplies by.
ACTIVATION_DERIVATIVES: dict[str, Activation] = {
    "identity": jnp.ones_like,
    "sigmoid": _derivative_of_sigmoid,
    "tanh": _derivative_of_tanh,
    "relu": lambda z: (z > 0).astype(z.dtype),
    "silu": _derivative_of_silu,
    "gelu": _derivative_of_gelu,
}


def find_activation(name: str) -> Activation:
    """The activation of that name.

    Args:
      name: A key of `ACTIVATIONS`.
    Returns:
      φ, elementwise; its derivative is `ACTIVATION_DERIVATIVES[name]`.
    Raises:
      ValueError: There is none of that name.
    Example:
      >>> print(find_activation("relu")(jnp.array([-1.0, 2.0])))
      [0. 2.]
    """
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {', '.join(ACTIVATIONS)}; got activation={shown(name)}. Give its name."
        )
    return ACTIVATIONS[name]
