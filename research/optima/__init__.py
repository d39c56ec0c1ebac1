"""Exact optima by numpy and scipy alone: the authority that descent is measured against, sharing no code with it."""

from research.optima.linear import curvature as curvature
from research.optima.linear import least_squares as least_squares
from research.optima.linear import ridge as ridge
from research.optima.logistic import logistic_regression as logistic_regression
from research.optima.logistic import softmax_regression as softmax_regression
