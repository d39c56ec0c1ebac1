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
    """Half the squared error: ½ Σ (p - y)².

    The factor ½ makes the gradient the residual p - y. This is the convention of
    Bishop, Pattern Recognition and Machine Learning (2006), eq. 3.12. optax.l2_loss has
    the same factor and does not sum; optax.squared_error has no factor.

    Args:
      prediction: p, floating, any shape.
      target: y, the same shape; converted to the dtype of the prediction.
    Returns:
      The loss in the dtype of the prediction, shape ().
    Raises:
      TypeError: prediction is not floating.
      ValueError: The shapes differ. They are never broadcast.
    Example:
      >>> print(squared_error(jnp.array([1.0, 4.0]), jnp.array([1.0, 2.0])))
      2.0
    """
    return 0.5 * jnp.sum(_residual(prediction, target) ** 2)


def absolute_error(
    prediction: Float[ArrayLike, "*shape"], target: Num[ArrayLike, "*shape"]
) -> Float[Array, ""]:
    """Absolute error: Σ |p - y|.

    The gradient at a residual of 0 is 0, the subgradient that leaves a perfect
    prediction unchanged. (The derivative of jnp.abs at 0 is +1.)

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
    """Huber loss: squared error near the target and absolute error far from it.

    The loss is Σ h(p - y) with h(r) = r²/2 if |r| <= δ, else δ (|r| - δ/2). The
    gradient is the residual clipped to [-δ, δ]. The Hessian is 1 for |r| <= δ and 0
    beyond. optax.huber_loss does not sum, and its Hessian at |r| = δ is 1/4.

    Args:
      prediction: p, floating, any shape.
      target: y, the same shape.
      delta: δ > 0, where the parabola meets the line.
    Returns:
      The loss in the dtype of the prediction, shape ().
    Raises:
      TypeError, ValueError: As in `squared_error`; also if delta is not positive.
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
    """Log-cosh loss, a smooth variant of the Huber loss: Σ log cosh(p - y).

    It is close to r²/2 for small residuals r and to |r| - log 2 for large ones. The
    gradient is tanh(r) and the Hessian is 1 - tanh²(r). optax.log_cosh is the same
    function, but does not sum.

    Args, Returns, Raises:
      As in `squared_error`.
    Example:
      >>> print(f"{log_cosh(jnp.array(1000.0), jnp.array(0.0)):.2f}")  # cosh itself overflows
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
