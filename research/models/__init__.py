"""Models as pairs of pure functions: init(key) -> params, apply(params, x, key=None) -> prediction."""

from research.models.linear import dense, linear
from research.models.logistic import logistic, probability
from research.models.softmax import softmax

__all__ = ["dense", "linear", "logistic", "probability", "softmax"]
