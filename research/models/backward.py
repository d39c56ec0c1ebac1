"""The gradient of a multilayer perceptron by hand: the chain rule, layer by layer, from the loss back to the input."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike

from research.checks import (
    check_choice,
    check_mapping,
    check_numbers,
    check_tree,
    shown,
)
from research.models._linear import dense
from research.models._mlp import layer_names
from research.models.activations import ACTIVATION_DERIVATIVES, find_activation
from research.types import Array, Params

Loss = Callable[
    [Any, Any], tuple[Array, Array]
]  # (z (n, K), y) -> (mean loss (), its gradient in z (n, K))


class Forward(NamedTuple):
    """What the way forward keeps for the way back.

    Attributes:
      inputs: Of each layer: h_0 = x, h_1, ..., h_(K-1), each (n, width).
      sums: z_1, ..., z_K, each (n, width); the last is the prediction.
    """

    inputs: tuple[Array, ...]
    sums: tuple[Array, ...]


class Backward(NamedTuple):
    """What the way back gives.

    Attributes:
      grads: The gradient, in the params' own pytree.
      deltas: δ_0, ..., δ_K, each (n, width): δ_k is the derivative of the loss by z_k, and δ_0 that by x itself.
    """

    grads: Params
    deltas: tuple[Array, ...]


def mlp_value_and_gradient(
    params: Params,
    x: ArrayLike,
    y: ArrayLike,
    *,
    activation: str = "relu",
    loss: str = "softmax_cross_entropy",
) -> tuple[Array, Params]:
    """The mean loss of an `mlp` on a batch, and its gradient by the chain rule, without automatic differentiation.

    Forward, h_0 = x, z_k = h_(k-1) W_k + b_k, h_k = φ(z_k). Back, from δ_K = ∂f/∂z_K,

      ∂f/∂W_k = h_(k-1)ᵀ δ_k,    ∂f/∂b_k = Σ_i δ_k[i],    δ_(k-1) = (δ_k W_kᵀ) φ'(z_(k-1)).

    It equals `jax.value_and_grad` of the same mean loss but for rounding.

    Args:
      params: As from `mlp(...).init`, one entry a layer.
      x: Inputs, shape (n, sizes[0]).
      y: Targets: classes (n,) for "softmax_cross_entropy"; else the shape of the prediction, (n, sizes[-1]).
      activation: φ, as given to `mlp`.
      loss: A name in `BATCH_LOSSES`; each is the mean over the batch of the loss of that name in `research.losses`.
    Returns:
      (value, grads): the loss, shape (), and the gradient in the pytree of the params.
    Raises:
      ValueError: A name is unknown, params are not an `mlp`'s, shapes do not fit, or a y that is not traced is no
        class, or for "logistic" outside 0..1.
    References:
      Rumelhart, Hinton & Williams, Learning representations by back-propagating errors, Nature 1986. Goodfellow, Bengio
      & Courville, Deep Learning (2016), algorithm 6.4.
    Example:
      >>> params = {"dense_1": {"weights": jnp.array([[2.0]]), "bias": jnp.array([1.0])},
      ...           "dense_2": {"weights": jnp.array([[3.0]]), "bias": jnp.array([0.0])}}
      >>> value, grads = mlp_value_and_gradient(params, jnp.array([[1.0]]), jnp.array([[8.0]]), loss="squared_error")
      >>> print(value, grads["dense_2"]["weights"], grads["dense_1"]["weights"])  # δ_2 = 9 - 8, δ_1 = 1 · 3
      0.5 [[3.]] [[3.]]
    """
    check_choice("loss", loss, BATCH_LOSSES)
    check_numbers("y", y)
    forward = mlp_forward(params, x, activation=activation)
    value, delta = BATCH_LOSSES[loss](forward.sums[-1], jnp.asarray(y))
    return value, mlp_backward(params, forward, delta, activation=activation).grads


def mlp_forward(params: Params, x: ArrayLike, *, activation: str) -> Forward:
    """The way forward, with all that the way back needs.

    Args:
      params, x, activation: As in `mlp_value_and_gradient`.
    Returns:
      Forward.
    Raises:
      ValueError: x is not a batch (n, features) of at least one example, params are not an `mlp`'s, or shapes do not fit.
    Example:
      >>> params = {"dense_1": {"weights": jnp.array([[2.0]]), "bias": jnp.array([1.0])}}
      >>> print(mlp_forward(params, jnp.array([[1.0], [3.0]]), activation="relu").sums[-1].T)
      [[3. 7.]]
    """
    check_numbers("x", x)
    phi, batch = find_activation(activation), jnp.asarray(x)
    if batch.ndim != 2 or len(batch) < 1:
        raise ValueError(
            f"x must be a batch of shape (n, features), n at least 1; got x of shape {batch.shape}."
        )
    inputs, sums = [batch], []
    for name in _names(params):
        if sums:
            inputs.append(phi(sums[-1]))
        sums.append(dense(inputs[-1], params[name]["weights"], params[name]["bias"]))
    return Forward(tuple(inputs), tuple(sums))


def mlp_backward(
    params: Params, forward: Forward, delta: ArrayLike, *, activation: str
) -> Backward:
    """The way back: from the derivative by the prediction to those by all parameters, and by x.

    Args:
      params, activation: As in `mlp_value_and_gradient`.
      forward: As from `mlp_forward` with the same.
      delta: δ_K, the derivative of any loss by the last sums, shape (n, outputs).
    Returns:
      Backward. Under jit what is not used of it costs nothing.
    Raises:
      ValueError: delta has another shape than the last sums, or params are not an `mlp`'s.
    Example:
      >>> params = {"dense_1": {"weights": jnp.array([[2.0]]), "bias": jnp.array([1.0])}}
      >>> forward = mlp_forward(params, jnp.array([[1.0], [3.0]]), activation="relu")
      >>> back = mlp_backward(params, forward, jnp.array([[1.0], [10.0]]), activation="relu")
      >>> print(back.grads["dense_1"]["weights"], back.grads["dense_1"]["bias"], back.deltas[0].T)
      [[31.]] [11.] [[ 2. 20.]]
    """
    find_activation(activation)  # An unknown name is refused in the same words.
    slope, deltas = ACTIVATION_DERIVATIVES[activation], [jnp.asarray(delta)]
    if deltas[0].shape != forward.sums[-1].shape:
        raise ValueError(
            f"delta must have the prediction's shape {forward.sums[-1].shape}; got {deltas[0].shape}."
        )
    grads = {}
    for k, name in reversed(tuple(enumerate(_names(params)))):
        own = deltas[-1]
        found = {"weights": forward.inputs[k].T @ own, "bias": jnp.sum(own, axis=0)}
        grads[name] = {
            what: array.astype(params[name][what].dtype)
            for what, array in found.items()
        }
        before = own @ params[name]["weights"].T
        deltas.append(before * slope(forward.sums[k - 1]) if k > 0 else before)
    return Backward(grads, tuple(reversed(deltas)))


def mlp_rounding_bound(
    params: Params, x: ArrayLike, y: ArrayLike, *, activation: str, loss: str
) -> Params:
    """How far the gradient may move, entry by entry, when its sums are taken in another order.

    An entry is a chain of sums, of n terms in the last and of a layer's width in each before it, m terms in all. Rounding
    costs each at most about ε times the same chain of absolute values, so the bound is m ε times the way back with |δ_K|,
    |W|, |h| and |φ'|. The way forward is taken as given.

    Args:
      params, x, y, activation, loss: As in `mlp_value_and_gradient`.
    Returns:
      Bounds, in the pytree and dtype of the params.
    Raises:
      ValueError: As there.
    References:
      Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. (2002), section 3.1.
    Example:
      >>> params = {"dense_1": {"weights": jnp.array([[2.0]], jnp.float32), "bias": jnp.array([1.0], jnp.float32)}}
      >>> y = jnp.array([[8.0]], jnp.float32)
      >>> bound = mlp_rounding_bound(params, y, y, activation="relu", loss="squared_error")
      >>> print(f"{bound['dense_1']['bias'][0] / jnp.finfo(jnp.float32).eps:.0f}")  # 3 terms of a residual 9, plus 1
      30
    """
    check_choice("loss", loss, BATCH_LOSSES)
    check_numbers("y", y)
    forward = mlp_forward(params, x, activation=activation)
    slope, last, n = (
        ACTIVATION_DERIVATIVES[activation],
        forward.sums[-1],
        len(forward.sums[-1]),
    )
    # The loss takes off what is true, about 1 over n, and what is left may be small beside its rounding.
    size = jnp.abs(BATCH_LOSSES[loss](last, jnp.asarray(y))[1]) + 1 / n
    unit = (n + sum(h.shape[1] for h in forward.inputs) + last.shape[1]) * float(
        jnp.finfo(last.dtype).eps
    )
    bound = {}
    for k, name in reversed(tuple(enumerate(_names(params)))):
        bound[name] = {
            "weights": unit * jnp.abs(forward.inputs[k]).T @ size,
            "bias": unit * jnp.sum(size, axis=0),
        }
        if k > 0:
            size = (
                size
                @ jnp.abs(params[name]["weights"]).T
                * jnp.abs(slope(forward.sums[k - 1]))
            )
    return bound


def _softmax_cross_entropy(z: Array, y: Array) -> tuple[Array, Array]:
    """-log softmax(z)_y; by z, softmax(z) less 1 at the true class. A traced class that is none gives NaN."""
    n, num_classes = z.shape
    if y.shape != (n,) or not jnp.issubdtype(y.dtype, jnp.integer):
        raise ValueError(
            f"y must be integer classes of shape ({n},); got shape {y.shape} of {y.dtype}."
        )
    y = (
        y if y.dtype.itemsize >= 4 else y.astype(jnp.int32)
    )  # 8 bits cannot hold 256, the number of classes.
    valid = (y >= 0) & (y < num_classes)
    if not isinstance(valid, Tracer) and not valid.all():
        raise ValueError(
            f"y must hold classes in 0..{num_classes - 1}; got {y[~valid][0]}."
        )
    log_probability = jax.nn.log_softmax(z)
    true = y[:, None] == jnp.arange(num_classes)[None, :]
    losses = -jnp.sum(jnp.where(true, log_probability, 0), axis=1)
    delta = jax.nn.softmax(z) - true.astype(z.dtype)
    return jnp.mean(jnp.where(valid, losses, jnp.nan)), jnp.where(
        valid[:, None], delta, jnp.nan
    ) / n


def _squared_error(z: Array, y: Array) -> tuple[Array, Array]:
    """½ Σ (z - y)²; by z, the residual z - y."""
    residual = z - _targets(z, y)
    return jnp.mean(0.5 * jnp.sum(residual**2, axis=1)), residual / len(z)


def _logistic(z: Array, y: Array) -> tuple[Array, Array]:
    """Σ log(1 + exp(z)) - y z; by z, σ(z) - y, which does not cancel where the prediction is right and sure.

    A traced y outside 0..1 gives NaN.
    """
    y = _targets(z, y)
    valid = (y >= 0) & (y <= 1)
    if not isinstance(valid, Tracer) and not valid.all():
        raise ValueError(f"y must be 0 or 1 (or a probability); got {y[~valid][0]}.")
    size = jnp.exp(-jnp.abs(z))
    losses = jnp.log1p(size) + z * jnp.where(z > 0, 1 - y, -y)
    small = size / (1 + size)  # σ(-|z|)
    delta = jnp.where(z > 0, (1 - y) - small, small - y)
    losses, delta = (jnp.where(valid, array, jnp.nan) for array in (losses, delta))
    return jnp.mean(jnp.sum(losses, axis=1)), delta / len(z)


def _targets(z: Array, y: Array) -> Array:
    if y.shape != z.shape:
        raise ValueError(
            f"y must have the prediction's shape {z.shape}; got {y.shape}. Targets are never broadcast."
        )
    return y.astype(z.dtype)


# With each, the derivative by the prediction is what the model says less what is true, over n.
BATCH_LOSSES: dict[str, Loss] = {
    "softmax_cross_entropy": _softmax_cross_entropy,
    "squared_error": _squared_error,
    "logistic": _logistic,
}


def _names(params: Params) -> tuple[str, ...]:
    check_mapping("params", params, "layers of an mlp")
    names = layer_names(len(params))
    if not names or set(params) != set(names):
        raise ValueError(
            f"params must hold the layers dense_1, dense_2, ... of an mlp; got {', '.join(sorted(params))}."
        )
    for name, layer in params.items():
        if not isinstance(layer, Mapping) or set(layer) != {"weights", "bias"}:
            raise TypeError(
                f"params must hold weights and bias of each layer; got params[{name!r}]={shown(layer)}."
            )
    check_tree("params", params)
    return names
