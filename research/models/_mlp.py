"""The multilayer perceptron: dense layers with an activation between them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from research.models._linear import check_counts, check_model_dtype, dense
from research.models.activations import find_activation
from research.models.initialisers import find_initialiser
from research.models.parameters import with_own_parameters
from research.types import Array, Key, Model, Params


def mlp(
    sizes: Sequence[int],
    *,
    activation: str = "relu",
    initialiser: str = "he_normal",
    dtype: DTypeLike | None = None,
) -> Model:
    """A multilayer perceptron: h_0 = x, z_k = h_(k-1) W_k + b_k, h_k = φ(z_k); the prediction is the last z.

    The last layer has no activation: it gives logits, or the numbers of a regression. Two sizes make a linear model. Its
    gradient by hand is `mlp_value_and_gradient`.

    Args:
      sizes: (inputs, hidden units of each layer, outputs), at least two positive integers.
      activation: φ, a name in `ACTIVATIONS`.
      initialiser: Of the weights, a name in `INITIALISERS`; biases start at 0. Of "he_normal" the variance suits ReLU;
        "lecun_normal" or "glorot_uniform" is usual with tanh.
      dtype: Of the parameters; None means JAX's default.
    Returns:
      A model with params {"dense_1": {"weights": (in, out), "bias": (out,)}, "dense_2": ...}; its apply maps x of shape
      (..., sizes[0]) to (..., sizes[-1]).
    Raises:
      ValueError: sizes are not at least two positive integers, or a name is unknown; in apply, x does not end in
        sizes[0] features, or params hold other layers.
    References:
      Goodfellow, Bengio & Courville, Deep Learning (2016), chapter 6.
    Example:
      >>> model = mlp((2, 3, 1), activation="tanh")
      >>> params = model.init(jax.random.key(0))
      >>> jax.tree.map(jnp.shape, params)
      {'dense_1': {'bias': (3,), 'weights': (2, 3)}, 'dense_2': {'bias': (1,), 'weights': (3, 1)}}
      >>> model.apply(params, jnp.ones((5, 2))).shape
      (5, 1)
    """
    check_counts("sizes", sizes)
    if len(sizes) < 2:
        raise ValueError(
            f"sizes must name the inputs and the outputs at least; got sizes={sizes}."
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
        del key  # Nothing here is drawn.
        z = dense(x, params[names[0]]["weights"], params[names[0]]["bias"])
        for name in names[1:]:
            z = dense(phi(z), params[name]["weights"], params[name]["bias"])
        return z

    return with_own_parameters(init, apply)


def layer_names(num_layers: int) -> tuple[str, ...]:
    """The names of an `mlp`'s layers in its params, from the input on.

    Example:
      >>> layer_names(2)
      ('dense_1', 'dense_2')
    """
    return tuple(f"dense_{k}" for k in range(1, num_layers + 1))
