"""Multilayer perceptron: dense layers with an activation between them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from research.models._linear import check_model_dtype, check_sizes, dense
from research.models.activations import Activation, find_activation
from research.models.initialisers import find_initialiser
from research.models.parameters import with_own_parameters
from research.types import Array, Key, Model, Params


def mlp(
    sizes: Sequence[int],
    *,
    activation: str | Activation = "relu",
    initialiser: str = "he_normal",
    dtype: DTypeLike | None = None,
) -> Model:
    """Build a multilayer perceptron.

    The network has K = len(sizes) - 1 layers. Layer k = 1, ..., K computes
    z_k = h_(k-1) W_k + b_k with the weights W_k and the bias b_k. Here h_0 is the input
    x of the network, and h_k = φ(z_k) for 1 <= k < K with the activation φ. The
    prediction is z_K, without an activation. The prediction can be logits or the values
    of a regression. With two sizes, the model is linear. `mlp_value_and_gradient`
    computes the gradient of a loss without automatic differentiation.

    Args:
      sizes: Number of inputs, number of units of each hidden layer, and number of
        outputs, in this order. At least two positive integers.
      activation: Name of the activation φ, a key of `ACTIVATIONS`, or an elementwise
        function. `mlp_value_and_gradient` needs a name.
      initialiser: Name of the initialiser of the weights, a key of `INITIALISERS`.
        Biases start at 0. "he_normal" is usual with ReLU, "lecun_normal" or
        "glorot_uniform" with tanh.
      dtype: Dtype of the parameters. None means JAX's default.
    Returns:
      A model with params {"dense_1": {"weights": (in, out), "bias": (out,)}, "dense_2":
      ...}. Its apply maps x of shape (..., sizes[0]) to (..., sizes[-1]).
    Raises:
      ValueError: sizes are not at least two positive integers, a name is unknown, or an
        activation function is not elementwise. In apply: the last axis of x does not
        have length sizes[0], or params belong to another architecture.
      TypeError: dtype is not floating, or an activation function cannot be called with
        one array.
    References:
      Goodfellow, Bengio & Courville, Deep Learning (2016), chapter 6.
    Example:
      >>> model = mlp((2, 3, 1), activation="tanh")
      >>> params = model.init(jax.random.key(0))
      >>> jax.tree.map(jnp.shape, params["dense_1"])
      {'bias': (3,), 'weights': (2, 3)}
      >>> model.apply(params, jnp.ones((5, 2))).shape
      (5, 1)
    """
    check_sizes("sizes", sizes)
    if len(sizes) < 2:
        raise ValueError(
            "sizes must have at least two entries, the numbers of inputs and outputs; "
            f"got sizes={sizes}."
        )
    sizes = tuple(sizes)
    check_model_dtype(dtype)
    phi, draw = find_activation(activation), find_initialiser(initialiser)
    names = layer_names(len(sizes) - 1)

    def init(key: Key) -> Params:
        chosen = jnp.result_type(float) if dtype is None else dtype
        return {
            name: {
                "weights": draw(jax.random.fold_in(key, k), sizes[k : k + 2], chosen),
                "bias": jnp.zeros(sizes[k + 1], dtype=chosen),
            }
            for k, name in enumerate(names)
        }

    def apply(params: Params, x: ArrayLike, key: Key | None = None) -> Array:
        del key  # The model is deterministic.
        z = dense(x, **params[names[0]])
        for name in names[1:]:
            z = dense(phi(z), **params[name])
        return z

    return with_own_parameters(init, apply)


def layer_names(num_layers: int) -> tuple[str, ...]:
    """Return the names of the layers in an `mlp`'s params, starting at the input.

    Example:
      >>> layer_names(2)
      ('dense_1', 'dense_2')
    """
    return tuple(f"dense_{k}" for k in range(1, num_layers + 1))
