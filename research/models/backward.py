"""Backpropagation by hand for a multilayer perceptron."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Float, Num

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

# Function (z, y) -> (mean loss, gradient with respect to z), for z of shape (n, K).
Loss = Callable[[Any, Any], tuple[Array, Array]]


class Forward(NamedTuple):
    """Results of the forward pass of an `mlp` of K layers, for n examples.

    Layer k = 1, ..., K computes z_k = h_(k-1) W_k + b_k with the weights W_k and the
    bias b_k. Here h_0 = x are the inputs of the network, and h_k = φ(z_k) for k < K
    with the activation φ.

    Attributes:
      inputs: Inputs of each layer: h_0 = x, h_1, ..., h_(K-1), each of shape (n,
        width).
      sums: Sums z_1, ..., z_K, each of shape (n, width). The last sum z_K is the
        prediction.
    """

    inputs: tuple[Array, ...]
    sums: tuple[Array, ...]


class Backward(NamedTuple):
    """Results of the backward pass of an `mlp` of K layers, for n examples.

    Let x be the inputs, and let z_k = h_(k-1) W_k + b_k be the sums of layer k = 1,
    ..., K before the activation, as in `Forward`.

    Attributes:
      grads: Gradient of the loss, in the pytree of the params.
      deltas: Derivatives δ_0, ..., δ_K, each of shape (n, width). δ_k is the derivative
        of the loss with respect to z_k, and δ_0 is the derivative with respect to x.
    """

    grads: Params
    deltas: tuple[Array, ...]


def mlp_value_and_gradient(
    params: Params,
    x: Float[ArrayLike, "n d"],
    y: Num[ArrayLike, "n *K"],
    *,
    activation: str = "relu",
    loss: str = "softmax_cross_entropy",
) -> tuple[Float[Array, ""], Params]:
    """Compute the mean loss of an `mlp` on a batch, and the gradient by the chain rule.

    An `mlp` is a multilayer perceptron. No automatic differentiation is used.

    The layers k = 1, ..., K have the weights W_k and the biases b_k. The activation is
    φ. The forward pass starts from h_0 = x. It computes z_k = h_(k-1) W_k + b_k for
    each layer, and h_k = φ(z_k) for each layer except the last. The prediction is z_K,
    without an activation.

    Let f be the mean loss and δ_k = ∂f/∂z_k. Row i of δ_k, written δ_k[i], belongs to
    example i. The backward pass starts from δ_K. For k = K, ..., 1 it computes

      ∂f/∂W_k = h_(k-1)ᵀ δ_k,    ∂f/∂b_k = Σ_i δ_k[i],
      δ_(k-1) = (δ_k W_kᵀ) φ'(z_(k-1))  if k > 1.

    Here φ' is the derivative of the activation, and the product with φ'(z_(k-1)) is
    elementwise. The result equals `jax.value_and_grad` of the same mean loss up to
    rounding error.

    Args:
      params: Params of an `mlp`, one entry for each layer.
      x: Inputs, shape (n, d) for n examples of d features.
      y: Targets. For "softmax_cross_entropy" they are classes of shape (n,). For the
        other losses they have the shape of the prediction z_K.
      activation: Name of the activation φ, as in `mlp`.
      loss: "softmax_cross_entropy", "squared_error" or "logistic". The loss with this
        name in `research.losses` is averaged over the batch. If an example has several
        outputs, "logistic" is the sum of their losses.
    Returns:
      The loss, shape (), and the gradient in the pytree of the params.
    Raises:
      ValueError: A name is unknown, params do not have the layers of an `mlp`, or
        shapes do not fit. For "softmax_cross_entropy": y contains a number that is not
        a class. For "logistic": y contains a number outside [0, 1]. Under jit, such a y
        makes the loss and the gradient of the last layer NaN instead.
      TypeError: params are not a mapping, or a layer does not have exactly the entries
        "weights" and "bias".
    References:
      Rumelhart, Hinton & Williams, Learning representations by back-propagating errors,
      Nature 1986.
      Goodfellow, Bengio & Courville, Deep Learning (2016), algorithm 6.4.
    Example:
      >>> params = {
      ...     "dense_1": {"weights": jnp.array([[2.0]]), "bias": jnp.array([1.0])},
      ...     "dense_2": {"weights": jnp.array([[3.0]]), "bias": jnp.array([0.0])},
      ... }
      >>> x, y = jnp.array([[1.0]]), jnp.array([[8.0]])
      >>> # The prediction is 3 (2 · 1 + 1) = 9, so δ_2 = 9 - 8 and δ_1 = 1 · 3.
      >>> value, grads = mlp_value_and_gradient(params, x, y, loss="squared_error")
      >>> print(value, grads["dense_2"]["weights"], grads["dense_1"]["weights"])
      0.5 [[3.]] [[3.]]
    """
    check_choice("loss", loss, BATCH_LOSSES)
    check_numbers("y", y)
    forward = mlp_forward(params, x, activation=activation)
    value, delta = BATCH_LOSSES[loss](forward.sums[-1], jnp.asarray(y))
    return value, mlp_backward(params, forward, delta, activation=activation).grads


def mlp_forward(
    params: Params, x: Float[ArrayLike, "n d"], *, activation: str
) -> Forward:
    """Run the forward pass of an `mlp`.

    Args:
      params, x, activation: As in `mlp_value_and_gradient`.
    Returns:
      A `Forward`: the inputs h_(k-1) and the sums z_k = h_(k-1) W_k + b_k of every
      layer k, with the weights W_k and the biases b_k.
    Raises:
      ValueError: x is not a batch (n, features) of at least one example, params do not
        have the layers of an `mlp`, or shapes do not fit.
      TypeError: As in `mlp_value_and_gradient`.
    Example:
      >>> layer = {"weights": jnp.array([[2.0]]), "bias": jnp.array([1.0])}
      >>> params = {"dense_1": layer}
      >>> x = jnp.array([[1.0], [3.0]])
      >>> print(mlp_forward(params, x, activation="relu").sums[-1].T)
      [[3. 7.]]
    """
    check_numbers("x", x)
    check_choice("activation", activation, ACTIVATION_DERIVATIVES)
    phi, batch = find_activation(activation), jnp.asarray(x)
    if batch.ndim != 2 or len(batch) < 1:
        raise ValueError(
            "x must be a batch of shape (n, features), n at least 1; got x of shape "
            f"{batch.shape}."
        )
    inputs, sums = [batch], []
    for name in _names(params):
        if sums:
            inputs.append(phi(sums[-1]))
        sums.append(dense(inputs[-1], **params[name]))
    return Forward(tuple(inputs), tuple(sums))


def mlp_backward(
    params: Params,
    forward: Forward,
    delta: Float[ArrayLike, "n K"],
    *,
    activation: str,
) -> Backward:
    """Run the backward pass of an `mlp`.

    The sums of a layer are inputs @ weights + bias, before the activation.

    Args:
      params, activation: As in `mlp_value_and_gradient`.
      forward: Result of `mlp_forward` with the same params and activation.
      delta: Derivative of any loss with respect to the prediction, shape (n, outputs).
    Returns:
      A `Backward`. Its field `grads` has the derivatives of the loss with respect to
      the parameters. Its field `deltas` has the derivative with respect to the inputs
      of the network, and then the derivatives with respect to the sums of each layer.
      Under jit, unused parts are not computed.
    Raises:
      ValueError: delta does not have the shape of the prediction, or params do not have
        the layers of an `mlp`.
      TypeError: As in `mlp_value_and_gradient`.
    Example:
      >>> layer = {"weights": jnp.array([[2.0]]), "bias": jnp.array([1.0])}
      >>> params = {"dense_1": layer}
      >>> forward = mlp_forward(params, jnp.array([[1.0], [3.0]]), activation="relu")
      >>> delta = jnp.array([[1.0], [10.0]])
      >>> back = mlp_backward(params, forward, delta, activation="relu")
      >>> layer = back.grads["dense_1"]
      >>> print(layer["weights"], layer["bias"], back.deltas[0].T)
      [[31.]] [11.] [[ 2. 20.]]
    """
    check_choice("activation", activation, ACTIVATION_DERIVATIVES)
    slope, deltas = ACTIVATION_DERIVATIVES[activation], [jnp.asarray(delta)]
    if deltas[0].shape != forward.sums[-1].shape:
        raise ValueError(
            f"delta must have the prediction's shape {forward.sums[-1].shape}; got "
            f"{deltas[0].shape}."
        )
    grads = {}
    for k, name in reversed(tuple(enumerate(_names(params)))):
        own = deltas[-1]
        new = {"weights": forward.inputs[k].T @ own, "bias": jnp.sum(own, axis=0)}
        grads[name] = {
            what: array.astype(params[name][what].dtype) for what, array in new.items()
        }
        before = own @ params[name]["weights"].T
        deltas.append(before * slope(forward.sums[k - 1]) if k > 0 else before)
    return Backward(grads, tuple(reversed(deltas)))


def mlp_rounding_bound(
    params: Params,
    x: Float[ArrayLike, "n d"],
    y: Num[ArrayLike, "n *K"],
    *,
    activation: str,
    loss: str,
) -> Params:
    """Bound how much the gradient changes if sums are computed in another order.

    Use the bounds as tolerances when you compare two implementations of a gradient,
    such as `mlp_value_and_gradient` and `jax.grad`.

    The backward pass of `mlp_value_and_gradient` starts from δ_K, the derivative of the
    mean loss with respect to the prediction. Here K is the number of layers. The other
    factors in the backward pass are the weights, the inputs of each layer, and the
    derivatives of the activation. The backward pass multiplies δ_K by these factors and
    sums the products: in each layer over the outputs of the layer, and at the end over
    the n examples. The result is the gradient.

    The bound on an entry of the gradient is m ε A:

    - m is n plus the widths of the inputs, of all hidden layers and of the outputs.
    - ε is the machine epsilon.
    - A is the entry that the backward pass gives if δ_K is replaced by |δ_K| + 1/n, and
      each other factor by its absolute value.

    The term 1/n stands for the rounding error of δ_K itself. This error arises when a
    target is subtracted and the difference is divided by n. The term assumes targets of
    size about 1 or less. The bound is approximate. It does not include the rounding
    errors of the forward pass.

    Args:
      params, x, y, activation, loss: As in `mlp_value_and_gradient`.
    Returns:
      Bounds, in the pytree and dtype of the params.
    Raises:
      ValueError, TypeError: As in `mlp_value_and_gradient`.
    References:
      Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. (2002), section
      3.1.
    Example:
      >>> layer = {"weights": jnp.array([[2.0]]), "bias": jnp.array([1.0])}
      >>> params = jax.tree.map(lambda a: a.astype("float32"), {"dense_1": layer})
      >>> y = jnp.array([[8.0]], jnp.float32)
      >>> bound = mlp_rounding_bound(
      ...     params, y, y, activation="relu", loss="squared_error"
      ... )
      >>> epsilon = jnp.finfo(jnp.float32).eps  # m = 3, |δ_K| = 9, 1/n = 1.
      >>> print(f"{bound['dense_1']['bias'][0] / epsilon:.0f}")
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
    # The term 1 / n stands for the rounding error of δ_K, which may be large relative
    # to δ_K: the loss subtracts the target from the prediction.
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
    """Compute the mean of -log softmax(z)_y, and its derivative (softmax(z) - e_y) / n.

    The mean is over the n examples, and e_y is the one-hot vector of class y. A traced
    label out of range gives NaN.
    """
    n, num_classes = z.shape
    if y.shape != (n,) or not jnp.issubdtype(y.dtype, jnp.integer):
        raise ValueError(
            f"y must be integer classes of shape ({n},); got shape {y.shape} of "
            f"{y.dtype}."
        )
    # 8 bits cannot hold the number of classes 256.
    y = y if y.dtype.itemsize >= 4 else y.astype(jnp.int32)
    valid = (y >= 0) & (y < num_classes)
    if not isinstance(valid, Tracer) and not valid.all():
        raise ValueError(
            f"y must be classes in 0..{num_classes - 1}; got {y[~valid][0]}."
        )
    log_probability = jax.nn.log_softmax(z)
    true = y[:, None] == jnp.arange(num_classes)[None, :]
    losses = -jnp.sum(jnp.where(true, log_probability, 0), axis=1)
    delta = jax.nn.softmax(z) - true.astype(z.dtype)
    return jnp.mean(jnp.where(valid, losses, jnp.nan)), jnp.where(
        valid[:, None], delta, jnp.nan
    ) / n


def _squared_error(z: Array, y: Array) -> tuple[Array, Array]:
    """Compute the mean of ½ Σ (z - y)², and its derivative (z - y) / n.

    The mean is over the n examples, and the sum over the outputs.
    """
    residual = z - _targets(z, y)
    return jnp.mean(0.5 * jnp.sum(residual**2, axis=1)), residual / len(z)


def _logistic(z: Array, y: Array) -> tuple[Array, Array]:
    """Compute the mean of Σ log(1 + exp(z)) - y z, and its derivative (σ(z) - y) / n.

    The mean is over the n examples. The derivative is computed without cancellation for
    confident, correct predictions. A traced y outside 0..1 gives NaN.
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
            f"y must have the prediction's shape {z.shape}; got {y.shape}. Targets are "
            "never broadcast."
        )
    return y.astype(z.dtype)


# Each function returns the mean loss and its derivative with respect to the prediction.
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
            "params must have the layers dense_1, dense_2, ... of an mlp; got "
            f"{', '.join(sorted(params))}."
        )
    for name, layer in params.items():
        if not isinstance(layer, Mapping) or set(layer) != {"weights", "bias"}:
            raise TypeError(
                "params must have weights and bias for each layer; got "
                f"params[{name!r}]={shown(layer)}."
            )
    check_tree("params", params)
    return names
