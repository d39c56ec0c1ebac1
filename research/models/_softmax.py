"""Softmax regression: one linear score for each class."""

from jax.typing import DTypeLike

from research.models._linear import check_count, dense_model
from research.types import Model


def softmax(
    num_features: int,
    num_classes: int,
    *,
    scale: float = 0.1,
    dtype: DTypeLike | None = None,
) -> Model:
    """The softmax model: it predicts logits z = xᵀ weights + intercept, one for each of K classes.

    Probabilities are `jax.nn.softmax(logits)`. All K classes have weights, so adding one vector to every column changes
    no probability: without a penalty the optimum is not unique. Pair it with `research.losses.softmax_cross_entropy`.

    Args:
      num_features: d, at least 1.
      num_classes: K, at least 2.
      scale: Standard deviation of the drawn weights; the intercept starts at 0.
      dtype: Of the parameters; None means JAX's default.
    Returns:
      A model with params {"weights": (d, K), "intercept": (K,)}; its apply maps x of shape (..., d) to (..., K).
    Raises:
      ValueError: num_features or num_classes is too small, or scale negative; in apply, x does not end in d features,
        or params are those of another architecture.
    References:
      Murphy, Probabilistic Machine Learning: An Introduction (2022), section 10.3.
    Example:
      >>> import jax
      >>> model = softmax(64, 10)
      >>> params = model.init(jax.random.key(0))
      >>> model.apply(params, jax.numpy.ones((5, 64))).shape
      (5, 10)
    """
    check_count("num_features", num_features, 1)
    check_count("num_classes", num_classes, 2)
    return dense_model((num_features, num_classes), scale, dtype)
