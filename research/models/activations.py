"""Activation functions and their derivatives, by name."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from research.checks import shown
from research.types import Array

Activation = Callable[[Array], Array]  # Elementwise; keeps the dtype.


def identity(z: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Return z itself: φ(z) = z."""
    return jnp.asarray(z)


def sigmoid(z: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Compute the logistic sigmoid φ(z) = 1 / (1 + exp(-z)) without overflow."""
    return jax.nn.sigmoid(jnp.asarray(z))


def tanh(z: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Compute tanh: φ(z) = (exp(z) - exp(-z)) / (exp(z) + exp(-z))."""
    return jnp.tanh(z)


def relu(z: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Compute the rectified linear unit φ(z) = max(z, 0); its derivative at 0 is 0."""
    return jax.nn.relu(jnp.asarray(z))


def silu(z: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Compute the sigmoid linear unit φ(z) = z σ(z), also called swish."""
    z = jnp.asarray(z)
    return z * jax.nn.sigmoid(z)


def gelu(z: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Compute the Gaussian error linear unit φ(z) = z Φ(z).

    Φ is the standard normal distribution function. It is computed by the error
    function, as in PyTorch's default. By default `jax.nn.gelu` and `flax.linen.gelu`
    use the approximation z (1 + tanh(√(2/π) (z + 0.044715 z³))) / 2, whose error is up
    to 4.8e-4.

    Args:
      z: Floating array of any shape.
    Returns:
      φ(z), with the shape and dtype of z.
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
    """Compute Φ(z) = (1 + erf(z / √2)) / 2.

    The absolute error is half an ε. erfc would keep the digits of the lower tail, but
    costs more.
    """
    return 0.5 + 0.5 * jax.lax.erf(z * float(np.sqrt(0.5)))


def _derivative_of_sigmoid(z: Array) -> Array:
    """Compute σ (1 - σ)."""
    h = sigmoid(z)
    return h * (1 - h)


def _derivative_of_tanh(z: Array) -> Array:
    """Compute 1 - tanh² as a product, which keeps its digits where tanh is near ±1."""
    h = tanh(z)
    return (1 + h) * (1 - h)


def _derivative_of_silu(z: Array) -> Array:
    """Compute σ + z σ (1 - σ)."""
    h = sigmoid(z)
    return h + z * h * (1 - h)


def _derivative_of_gelu(z: Array) -> Array:
    """Compute Φ(z) + z φ(z), where φ is the normal density."""
    return _normal_distribution(z) + z * (
        jnp.exp(-0.5 * z * z) * float(1 / np.sqrt(2 * np.pi))
    )


# Name -> function φ, elementwise, between the layers of a network.
ACTIVATIONS: dict[str, Activation] = {
    "identity": identity,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "relu": relu,
    "silu": silu,
    "gelu": gelu,
}

# z -> φ'(z), elementwise, for the backward pass by hand.
ACTIVATION_DERIVATIVES: dict[str, Activation] = {
    "identity": jnp.ones_like,
    "sigmoid": _derivative_of_sigmoid,
    "tanh": _derivative_of_tanh,
    "relu": lambda z: (z > 0).astype(z.dtype),
    "silu": _derivative_of_silu,
    "gelu": _derivative_of_gelu,
}


def find_activation(name: str) -> Activation:
    """Return the activation that has this name in `ACTIVATIONS`.

    Args:
      name: A key of `ACTIVATIONS`.
    Returns:
      The elementwise function φ. Its derivative is `ACTIVATION_DERIVATIVES[name]`.
    Raises:
      ValueError: The name is unknown.
    Example:
      >>> print(find_activation("relu")(jnp.array([-1.0, 2.0])))
      [0. 2.]
    """
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {', '.join(ACTIVATIONS)}; got "
            f"activation={shown(name)}. Pass one of these names."
        )
    return ACTIVATIONS[name]
