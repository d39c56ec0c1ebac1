"""Softmax regression: a linear model with one logit for each class."""

from jax.typing import DTypeLike

from research.models._linear import check_size, dense_model
from research.types import Model


def softmax(
    num_features: int,
    num_classes: int,
    *,
    scale: float = 0.1,
    dtype: DTypeLike | None = None,
) -> Model:
    """Build a softmax regression model with K logits z = xᵀ weights + intercept.

    Use the model with `research.losses.softmax_cross_entropy`. The probabilities are
    `jax.nn.softmax(logits)`. The probabilities do not change if the same vector is
    added to every column of the weights, or the same number to every intercept. The
    optimum can therefore be unique only if weights and intercepts are penalised.

    Args:
      num_features: Number d of features, at least 1.
      num_classes: Number K of classes, at least 2.
      scale: Standard deviation of the initial weights. The intercept starts at 0.
      dtype: Dtype of the parameters. None means JAX's default.
    Returns:
      A model with params {"weights": (d, K), "intercept": (K,)}. Its apply maps x of
      shape (..., d) to logits of shape (..., K).
    Raises:
      ValueError: num_features or num_classes is too small, or scale is negative. In
        apply: the last axis of x does not have length d, or params belong to another
        architecture.
      TypeError: dtype is not floating, or scale is not a number.
    References:
      Murphy, Probabilistic Machine Learning: An Introduction (2022), section 10.3.
    Example:
      >>> import jax
      >>> model = softmax(64, 10)
      >>> params = model.init(jax.random.key(0))
      >>> model.apply(params, jax.numpy.ones((5, 64))).shape
      (5, 10)
    """
    check_size("num_features", num_features, 1)
    check_size("num_classes", num_classes, 2)
    return dense_model((num_features, num_classes), scale, dtype)
