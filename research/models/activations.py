"""Activation functions and their derivatives, by name."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from research.checks import check_callable, shown
from research.types import Array

Activation = Callable[[Array], Array]  # Elementwise; keeps the dtype.


def identity(z: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Return z as an array: the activation φ(z) = z."""
    return jnp.asarray(z)


def sigmoid(z: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Compute the logistic sigmoid φ(z) = 1 / (1 + exp(-z)) without overflow."""
    return jax.nn.sigmoid(jnp.asarray(z))


def tanh(z: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Compute tanh: φ(z) = (exp(z) - exp(-z)) / (exp(z) + exp(-z))."""
    return jnp.tanh(z)


def relu(z: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Compute the rectified linear unit φ(z) = max(z, 0), with derivative 0 at 0."""
    return jax.nn.relu(jnp.asarray(z))


def silu(z: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Compute the sigmoid linear unit (swish) φ(z) = z σ(z), with the sigmoid σ."""
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


def gelu_tanh(z: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Compute the tanh approximation of `gelu`: z (1 + tanh(u)) / 2 = z σ(2u).

    Here u = √(2/π) (z + 0.044715 z³) and σ is the sigmoid. The form z σ(2u) is
    computed, because it is accurate also where 1 + tanh(u) is near 0. GPT-2 uses this
    activation. Up to rounding errors, the activation equals `jax.nn.gelu(z)` and
    PyTorch's gelu with approximate="tanh".

    Above z = 40, the value is z itself, and below z = -40, it is -0: there σ(2u) rounds
    to 1 and to 0 in every dtype. The derivatives by `jax.grad` and `jax.jvp` are 1 and
    0, also where z³ overflows. Those of `jax.nn.gelu(z)` may be NaN there.

    Args:
      z: Floating array of any shape.
    Returns:
      The values of the activation, with the shape and dtype of z.
    References:
      Hendrycks & Gimpel, Gaussian Error Linear Units, arXiv:1606.08415, section 2.
    Example:
      >>> print(gelu_tanh(jnp.array([-1.0, 0.0, 2.7])).round(4))
      [-0.1588  0.      2.6911]
    """
    z = jnp.asarray(z)
    far = jnp.abs(z) > 40
    # Without this inner choice, z³ may overflow, and the derivative would be 0 · ∞.
    near = jnp.where(far, jnp.zeros_like(z), z)
    value = near * jax.nn.sigmoid(2 * _argument_of_tanh(near))
    limit = jnp.where(z < 0, jnp.full_like(z, -0.0), z)
    return jnp.where(far, limit, value)


def elu(z: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Compute the exponential linear unit: φ(z) = z if z > 0, and exp(z) - 1 otherwise.

    The derivative at 0 is 1. `jax.nn.elu(z)` computes the same function.

    Args:
      z: Floating array of any shape.
    Returns:
      φ(z), with the shape and dtype of z.
    References:
      Clevert, Unterthiner & Hochreiter, Fast and accurate deep network learning by
      exponential linear units, ICLR 2016, eq. 15 with α = 1.
    Example:
      >>> print(elu(jnp.array([-1.0, 0.0, 2.0])).round(4))
      [-0.6321  0.      2.    ]
    """
    z = jnp.asarray(z)
    # The inner minimum prevents an overflow of expm1, whose derivative would be NaN.
    return jnp.where(z > 0, z, jnp.expm1(jnp.where(z > 0, jnp.zeros_like(z), z)))


def _argument_of_tanh(z: Array) -> Array:
    """Compute √(2/π) (z + 0.044715 z³)."""
    return float(np.sqrt(2 / np.pi)) * (z + 0.044715 * z * z * z)


def _normal_distribution(z: Array) -> Array:
    """Compute Φ(z) = (1 + erf(z / √2)) / 2.

    The absolute error is half the machine epsilon. If Φ were computed by erfc, it would
    also keep its relative precision for z far below 0, but erfc costs more.
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


def _derivative_of_gelu_tanh(z: Array) -> Array:
    """Compute σ(2u) + 2 z u' σ(2u) σ(-2u), with u as in `gelu_tanh`."""
    # Clip z to avoid 0 · ∞: beyond ±40, h or rest is 0 in every dtype, but slope and
    # the derivatives of u may be infinite.
    z = jnp.clip(z, -40, 40)
    u = _argument_of_tanh(z)
    h, rest = sigmoid(2 * u), sigmoid(-2 * u)
    slope = float(np.sqrt(2 / np.pi)) * (1 + 3 * 0.044715 * z * z)
    return h + 2 * z * slope * h * rest


def _derivative_of_elu(z: Array) -> Array:
    """Compute 1 if z > 0, and exp(z) otherwise."""
    return jnp.exp(jnp.minimum(z, jnp.zeros_like(z)))


# Name -> function φ, elementwise, between the layers of a network.
ACTIVATIONS: dict[str, Activation] = {
    "identity": identity,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "relu": relu,
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "elu": elu,
}

# z -> φ'(z), elementwise, for the backward pass by hand.
ACTIVATION_DERIVATIVES: dict[str, Activation] = {
    "identity": jnp.ones_like,
    "sigmoid": _derivative_of_sigmoid,
    "tanh": _derivative_of_tanh,
    "relu": lambda z: (z > 0).astype(z.dtype),
    "silu": _derivative_of_silu,
    "gelu": _derivative_of_gelu,
    "gelu_tanh": _derivative_of_gelu_tanh,
    "elu": _derivative_of_elu,
}


def find_activation(name: str | Activation) -> Activation:
    """Return the activation with a given name, or a given function after a check.

    Args:
      name: A key of `ACTIVATIONS`, or an elementwise function of one array, such as
        `jax.nn.leaky_relu`.
    Returns:
      The elementwise function φ. If `name` is a key, `ACTIVATION_DERIVATIVES[name]` is
      the derivative of φ.
    Raises:
      ValueError: The name is unknown, or the function returns an array of another shape
        or dtype than its argument.
      TypeError: The function cannot be called with one array.
    Example:
      >>> print(find_activation("relu")(jnp.array([-1.0, 2.0])))
      [0. 2.]
      >>> print(find_activation(lambda z: z * z)(jnp.array([-1.0, 2.0])))
      [1. 4.]
    """
    if callable(name):
        _check_elementwise(name)
        return name
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {', '.join(ACTIVATIONS)}; got "
            f"activation={shown(name)}. Pass one of these names, or a function of one "
            "array."
        )
    return ACTIVATIONS[name]


def _check_elementwise(function: Activation) -> None:
    """Raise an error unless a function keeps shape and dtype of an array."""
    check_callable("activation", function, "z")
    z = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    try:
        result = jax.eval_shape(function, z)
    except (TypeError, ValueError, IndexError) as error:
        raise TypeError(
            "activation must be a function of one array; got "
            f"activation={shown(function)}, which raises {type(error).__name__} for an "
            f"array of shape (2, 3): {error}"
        ) from error
    if getattr(result, "shape", None) != z.shape or result.dtype != z.dtype:
        raise ValueError(
            "activation must return an array of the shape and dtype of its argument; "
            f"got activation={shown(function)}, which returns {shown(result)} for an "
            "array of shape (2, 3), float32. Apply the function to each entry."
        )
