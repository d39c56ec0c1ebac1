"""Logistic regression: the linear model read as log-odds."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from research.checks import check_numbers
from research.models._linear import linear
from research.types import Array, Model


def logistic(
    num_features: int, *, scale: float = 0.1, dtype: DTypeLike | None = None
) -> Model:
    """The logistic model: it predicts the logit z = xᵀ weights + intercept, which is the log-odds of a 1.

    The logit rather than the probability, because a loss of the probability loses its digits where the model is sure.
    Pair it with `research.losses.logistic`; `probability` turns logits into probabilities.

    Args:
      num_features: d, at least 1.
      scale: Standard deviation of the drawn weights; the intercept starts at 0.
      dtype: Of the parameters; None means JAX's default.
    Returns:
      A model with params {"weights": (d,), "intercept": ()}; its apply maps x of shape (..., d) to logits (...).
    Raises:
      ValueError: As in `research.models.linear`.
    References:
      Murphy, Probabilistic Machine Learning: An Introduction (2022), section 10.2.
    Example:
      >>> params = {"weights": jnp.array([2.0]), "intercept": jnp.array(-1.0)}
      >>> print(logistic(1).apply(params, jnp.array([[0.0], [3.0]])))
      [-1.  5.]
    """
    return linear(num_features, scale=scale, dtype=dtype)


def probability(logit: ArrayLike) -> Array:
    """The probability of a 1: σ(z) = 1 / (1 + exp(-z)).

    Args:
      logit: z, any shape.
    Returns:
      Values in [0, 1], of the same shape; the probability of a 0 is `probability(-logit)`, to full precision.
    Example:
      >>> print(probability(jnp.array([0.0, -1000.0])))
      [0.5 0. ]
    """
    check_numbers("logit", logit, kinds="f", wanted="floating")
    return jax.nn.sigmoid(jnp.asarray(logit))
