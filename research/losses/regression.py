"""Losses for regression."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Num

from research.checks import check_real
from research.losses.checks import (
    check_terms,
    floating,
    negative_absolute,
    numeric,
    one_example,
    only,
    weighted,
)


def squared_error(
    prediction: Float[ArrayLike, "*shape"],
    target: Num[ArrayLike, "*shape"],
    *,
    where: Bool[ArrayLike, "*shape"] | None = None,
    weights: Num[ArrayLike, "*shape"] | None = None,
) -> Float[Array, ""]:
    """Compute half the squared error: ½ Σ (p - y)².

    Here p is the prediction and y the target, and the sum is over their entries. With
    the factor ½, the gradient is the residual p - y. Bishop, Pattern Recognition and
    Machine Learning (2006), eq. 3.12, has the same factor. optax.l2_loss also has this
    factor, but does not sum. optax.squared_error has no factor, and does not sum
    either.

    Args:
      prediction: Prediction p, floating, any shape.
      target: Target y with the shape of the prediction. It is converted to the dtype of
        the prediction.
      where: Booleans with the shape of the prediction. The sum runs over the entries at
        which `where` is True. At all other entries, prediction and target may be NaN.
        None means that the sum runs over all entries.
      weights: Factors of the terms of the sum, with the shape of the prediction, finite
        and at least 0. None means that all weights are 1.
    Returns:
      The loss in the dtype of the prediction, shape ().
    Raises:
      TypeError: prediction is not floating, target or weights are not numbers, or where
        is not boolean.
      ValueError: The shapes differ (the arguments are never broadcast), or a concrete
        weight is negative or not finite.
    Example:
      >>> print(squared_error(jnp.array([1.0, 4.0]), jnp.array([1.0, 2.0])))
      2.0
    """
    residual = _residual(prediction, target, where, weights)
    return 0.5 * jnp.sum(weighted(residual**2, None, weights))


def absolute_error(
    prediction: Float[ArrayLike, "*shape"],
    target: Num[ArrayLike, "*shape"],
    *,
    where: Bool[ArrayLike, "*shape"] | None = None,
    weights: Num[ArrayLike, "*shape"] | None = None,
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
    residual = _residual(prediction, target, where, weights)
    return jnp.sum(weighted(residual * jnp.sign(residual), None, weights))


def huber(
    prediction: Float[ArrayLike, "*shape"],
    target: Num[ArrayLike, "*shape"],
    delta: float | Float[Array, ""] = 1.0,
    *,
    where: Bool[ArrayLike, "*shape"] | None = None,
    weights: Num[ArrayLike, "*shape"] | None = None,
) -> Float[Array, ""]:
    """Compute the Huber loss: quadratic near the target, linear far from the target.

    Let r = p - y be the residual and δ = delta. The loss is Σ h(r), where h(r) = r²/2
    if |r| <= δ, and h(r) = δ (|r| - δ/2) otherwise. The gradient is the residual,
    clipped to [-δ, δ]. At |r| = δ, h has no second derivative. There, JAX returns the
    second derivative for smaller |r|, which is 1. optax.huber_loss differs in two
    points: it does not sum, and its second derivative by JAX at |r| = δ is 1/4.

    Args:
      prediction: Prediction p, floating, any shape.
      target: Target y with the shape of the prediction.
      delta: Value of |r| at which the loss changes from a parabola to a line, positive.
      where, weights: As in `squared_error`.
    Returns:
      The loss in the dtype of the prediction, shape ().
    Raises:
      TypeError: As in `squared_error`. Also if delta is not a number.
      ValueError: As in `squared_error`. Also if delta is not positive or not finite.
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
    residual = _residual(prediction, target, where, weights)
    delta = jnp.asarray(delta, residual.dtype)
    size = jnp.abs(residual)
    terms = jnp.where(size <= delta, 0.5 * residual**2, delta * (size - 0.5 * delta))
    return jnp.sum(weighted(terms, None, weights))


def log_cosh(
    prediction: Float[ArrayLike, "*shape"],
    target: Num[ArrayLike, "*shape"],
    *,
    where: Bool[ArrayLike, "*shape"] | None = None,
    weights: Num[ArrayLike, "*shape"] | None = None,
) -> Float[Array, ""]:
    """Compute the log-cosh loss Σ log cosh(p - y), a smooth variant of the Huber loss.

    For a small residual r = p - y, a term of the sum is close to r²/2. For a large
    residual, the term is close to |r| - log 2. The first derivative of a term is
    tanh(r), and the second is 1 - tanh²(r). optax.log_cosh is the same function, but
    does not sum.

    Args, Returns, Raises:
      As in `squared_error`.
    Example:
      >>> # Cosh itself overflows
      >>> print(
      ...     f"{log_cosh(jnp.array(1000.0), jnp.array(0.0)):.2f}"
      ... )
      999.31
    """
    residual = _residual(prediction, target, where, weights)
    is_small = jnp.abs(residual) < 1
    # For a small r, the terms of `far` would cancel. Use cosh² r = 1 + sinh² r instead.
    near = 0.5 * jnp.log1p(jnp.sinh(jnp.where(is_small, residual, 0)) ** 2)
    below = negative_absolute(residual)
    far = jnp.log1p(jnp.exp(2 * below)) - below - jnp.asarray(np.log(2), below.dtype)
    return jnp.sum(weighted(jnp.where(is_small, near, far), where, weights))


def quantile(
    prediction: Float[ArrayLike, "*shape"],
    target: Num[ArrayLike, "*shape"],
    level: float | Float[Array, ""],
    *,
    where: Bool[ArrayLike, "*shape"] | None = None,
    weights: Num[ArrayLike, "*shape"] | None = None,
) -> Float[Array, ""]:
    """Compute the quantile loss Σ max(τ (y - p), (τ - 1) (y - p)) (the pinball loss).

    Here p is the prediction, y the target and τ the level. If one number p predicts
    many targets, the p with the smallest mean loss is a τ-quantile of these targets. An
    entry of the gradient is 1 - τ if p > y, and -τ if p < y. Where p = y, this entry is
    0, as for `absolute_error`. With τ = ½, the loss is half of `absolute_error`. optax
    does not have this loss. If the target of an example is one number, the mean of this
    loss over the examples is scikit-learn's mean_pinball_loss.

    Args:
      prediction: Prediction p, floating, any shape.
      target: Target y with the shape of the prediction.
      level: Level τ of the quantile, between 0 and 1, both excluded. It may be traced.
      where, weights: As in `squared_error`.
    Returns:
      The loss in the dtype of the prediction, shape ().
    Raises:
      TypeError: As in `squared_error`. Also if level is not a number.
      ValueError: As in `squared_error`. Also if level is not between 0 and 1.
    References:
      Koenker & Bassett, Regression quantiles, Econometrica 1978, eq. 2.2.
    Example:
      >>> print(quantile(jnp.array([1.0, 4.0]), jnp.array([2.0, 2.0]), 0.75))
      1.25
    """
    check_real("level", level)
    if not isinstance(level, Tracer) and not 0 < float(np.asarray(level)) < 1:
        raise ValueError(
            f"level must be between 0 and 1; got level={level}. Use 0.5 for the median."
        )
    residual = _residual(prediction, target, where, weights)
    level = jnp.asarray(level, residual.dtype)
    slope = jnp.where(
        residual > 0, 1 - level, jnp.where(residual < 0, -level, 0 * level)
    )
    return jnp.sum(weighted(residual * slope, None, weights))


def cosine_distance(
    prediction: Float[ArrayLike, "d"],
    target: Num[ArrayLike, "d"],
    *,
    where: Bool[ArrayLike, "d"] | None = None,
    weights: Num[ArrayLike, "d"] | None = None,
) -> Float[Array, ""]:
    """Compute the cosine distance 1 - pᵀ y / (|p| |y|) of two vectors p and y.

    The distance is 0 for vectors of the same direction, 1 for orthogonal vectors and 2
    for opposite vectors. It is computed as ½ |u - v|² with u = p / |p| and v = y / |y|.
    The two forms are equal, but the second is also accurate for small distances. First,
    each vector is divided by its largest absolute entry, so that no square overflows.
    optax.cosine_distance with the default epsilon = 0 is the same function.

    Args:
      prediction: Prediction p, floating, shape (d,).
      target: Target y, shape (d,). It is converted to the dtype of the prediction.
      where: Booleans, shape (d,). The entries of p and y at which `where` is False are
        replaced by 0. None means that no entry is replaced.
      weights: Weights w of the entries, shape (d,), finite and at least 0. With
        weights, pᵀ y, |p|² and |y|² are replaced by Σ w p y, Σ w p² and Σ w y². None
        means that all weights are 1.
    Returns:
      The distance in the dtype of the prediction, shape (). It is NaN if p or y is 0,
      because a zero vector has no direction.
    Raises:
      TypeError: prediction is not floating, target or weights are not numbers, or
        where is not boolean.
      ValueError: The arguments are not vectors of one length, or a concrete weight is
        negative or not finite.
    References:
      Manning, Raghavan & Schütze, Introduction to Information Retrieval (2008), eq.
      6.10.
    Example:
      >>> print(cosine_distance(jnp.array([2.0, 0.0]), jnp.array([0.0, 3.0])))
      1.0
    """
    _residual(prediction, target, None, None)  # Raises the errors of the shapes.
    p = jnp.asarray(prediction)
    y = jnp.asarray(target, p.dtype)
    if p.ndim != 1:
        raise ValueError(
            one_example(
                "prediction and target of the same shape (d,)",
                p,
                y,
                ranks=(1, 1),
                hint="Pass vectors.",
            )
        )
    check_terms(p.shape, "prediction", where, weights)
    if weights is not None:  # Entries of weight 0 must not affect the scaling, either.
        p, y = only(jnp.asarray(weights) != 0, p, y)
    p, y = (_direction(vector, weights) for vector in only(where, p, y))
    return 0.5 * jnp.sum(weighted((p - y) ** 2, None, weights))


def _direction(vector: Array, weights: ArrayLike | None) -> Array:
    """Divide a vector by its norm. The vector 0 gives NaN."""
    # The direction does not depend on the size, so the size may count as a constant.
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(vector), initial=0))
    vector = vector / size
    return vector / jnp.sqrt(jnp.sum(weighted(vector**2, None, weights)))


def _residual(
    prediction: ArrayLike,
    target: ArrayLike,
    where: ArrayLike | None,
    weights: ArrayLike | None,
) -> Array:
    """Compute p - y, which is 0 where `where` is False."""
    prediction = floating("prediction", prediction)
    target = jnp.asarray(numeric("target", target), prediction.dtype)
    if prediction.shape != target.shape:
        raise ValueError(
            one_example(
                "prediction and target of the same shape",
                prediction,
                target,
                hint="Give the target the shape of the prediction.",
            )
        )
    check_terms(prediction.shape, "prediction", where, weights)
    prediction, target = only(where, prediction, target)
    return prediction - target
