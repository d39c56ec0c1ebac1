"""Logistic regression: a linear model of the log-odds."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float

from research.checks import check_numbers
from research.models._linear import linear
from research.types import Array, Model


def logistic(
    num_features: int, *, scale: float = 0.1, dtype: DTypeLike | None = None
) -> Model:
    """Build a logistic regression model with the logit z = xᵀ weights + intercept.

    The logit is the log-odds of label 1. Use the model with `research.losses.logistic`,
    which computes the loss from the logit. A loss computed from the probability would
    lose digits for confident predictions. `probability` converts logits to
    probabilities.

    Args:
      num_features: Number d of features, at least 1.
      scale: Standard deviation of the initial weights. The intercept starts at 0.
      dtype: Dtype of the parameters. None means JAX's default.
    Returns:
      A model with params {"weights": (d,), "intercept": ()}. Its apply maps x of shape
      (..., d) to logits of shape (...).
    Raises:
      ValueError, TypeError: As in `research.models.linear`.
    References:
      Murphy, Probabilistic Machine Learning: An Introduction (2022), section 10.2.
    Example:
      >>> params = {"weights": jnp.array([2.0]), "intercept": jnp.array(-1.0)}
      >>> print(logistic(1).apply(params, jnp.array([[0.0], [3.0]])))
      [-1.  5.]
    """
    return linear(num_features, scale=scale, dtype=dtype)


def probability(logit: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Compute the probability of label 1: σ(z) = 1 / (1 + exp(-z)).

    Args:
      logit: Logits z, any shape.
    Returns:
      Probabilities in [0, 1], with the shape of the logits. `probability(-logit)` is
      the probability of label 0, with a smaller rounding error than 1 -
      probability(logit).
    Example:
      >>> print(probability(jnp.array([0.0, -1000.0])))
      [0.5 0. ]
    """
    check_numbers("logit", logit, kinds="f", wanted="floating")
    return jax.nn.sigmoid(jnp.asarray(logit))
