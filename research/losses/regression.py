"""Losses for regression."""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num

from research.checks import check_real
from research.losses.checks import floating, negative_absolute, numeric, one_example


def squared_error(
    prediction: Float[ArrayLike, "*shape"], target: Num[ArrayLike, "*shape"]
) -> Float[Array, ""]:
    """Compute half the squared error: ½ Σ (p - y)².

    Here p is the prediction and y the target. With the factor ½, the gradient is the
    residual p - y. This is the convention of Bishop, Pattern Recognition and Machine
    Learning (2006), eq. 3.12. optax.l2_loss has the same factor, but does not sum.
    optax.squared_error has no factor, and does not sum either.

    Args:
      prediction: Prediction p, floating, any shape.
      target: Target y with the shape of the prediction. It is converted to the dtype of
        the prediction.
    Returns:
      The loss in the dtype of the prediction, shape ().
    Raises:
      TypeError: prediction is not floating.
      ValueError: The shapes differ. (The arguments are never broadcast.)
    Example:
      >>> print(squared_error(jnp.array([1.0, 4.0]), jnp.array([1.0, 2.0])))
      2.0
    """
    return 0.5 * jnp.sum(_residual(prediction, target) ** 2)


def absolute_error(
    prediction: Float[ArrayLike, "*shape"], target: Num[ArrayLike, "*shape"]
) -> Float[Array, ""]:
    """Compute the absolute error Σ |p - y| of the prediction p and the target y.

    Where the residual p - y is 0, the gradient is 0, so gradient descent leaves a
    perfect prediction unchanged. (JAX's derivative of jnp.abs at 0 is +1.)

    Args, Returns, Raises:
      As in `squared_error`.
    Example:
      >>> print(absolute_error(jnp.array([1.0, 4.0]), jnp.array([1.0, 2.0])))
      2.0
    """
    residual = _residual(prediction, target)
    return jnp.sum(residual * jnp.sign(residual))


def huber(
    prediction: Float[ArrayLike, "*shape"],
    target: Num[ArrayLike, "*shape"],
    delta: float | Float[Array, ""] = 1.0,
) -> Float[Array, ""]:
    """Compute the Huber loss: quadratic near the target, linear far from the target.

    Let r = p - y be the residual and δ = delta. The loss is Σ h(r), where h(r) = r²/2
    if |r| <= δ, and h(r) = δ (|r| - δ/2) otherwise. The gradient is the residual,
    clipped to [-δ, δ]. The Hessian is 1 for |r| <= δ and 0 for larger |r|.
    optax.huber_loss does not sum, and its Hessian at |r| = δ is 1/4.

    Args:
      prediction: Prediction p, floating, any shape.
      target: Target y with the shape of the prediction.
      delta: Value of |r| at which the loss changes from a parabola to a line, positive.
    Returns:
      The loss in the dtype of the prediction, shape ().
    Raises:
      TypeError, ValueError: As in `squared_error`. Also if delta is not positive.
    References:
      Huber, Robust estimation of a location parameter, Annals of Mathematical
      Statistics 1964.
    Example:
      >>> print(huber(jnp.array([0.5, 4.0]), jnp.array([0.0, 1.0])))
      2.625
    """
    check_real("delta", delta)
    if not isinstance(delta, Tracer) and not float(np.asarray(delta)) > 0:
        raise ValueError(
            f"delta must be positive; got delta={delta}. Use absolute_error for a pure "
            "absolute error."
        )
    residual = _residual(prediction, target)
    delta = jnp.asarray(delta, residual.dtype)
    size = jnp.abs(residual)
    return jnp.sum(
        jnp.where(size <= delta, 0.5 * residual**2, delta * (size - 0.5 * delta))
    )


def log_cosh(
    prediction: Float[ArrayLike, "*shape"], target: Num[ArrayLike, "*shape"]
) -> Float[Array, ""]:
    """Compute the log-cosh loss Σ log cosh(p - y), a smooth variant of the Huber loss.

    For a small residual r = p - y, a term is close to r²/2. For a large residual, it is
    close to |r| - log 2. The gradient is tanh(r), and the Hessian is 1 - tanh²(r).
    optax.log_cosh is the same function, but does not sum.

    Args, Returns, Raises:
      As in `squared_error`.
    Example:
      >>> # Cosh itself overflows
      >>> print(
      ...     f"{log_cosh(jnp.array(1000.0), jnp.array(0.0)):.2f}"
      ... )
      999.31
    """
    below = negative_absolute(_residual(prediction, target))
    return jnp.sum(
        jnp.log1p(jnp.exp(2 * below)) - below - jnp.asarray(np.log(2), below.dtype)
    )


def _residual(prediction: ArrayLike, target: ArrayLike) -> Array:
    prediction = floating("prediction", prediction)
    target = jnp.asarray(numeric("target", target), prediction.dtype)
    if prediction.shape != target.shape:
        raise ValueError(
            one_example("prediction and target of the same shape", prediction, target)
        )
    return prediction - target
