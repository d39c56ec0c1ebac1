"""Exact optima of linear models, computed by NumPy and SciPy alone.

The solvers share no code with the gradient descent whose error their results measure.
"""

from research.optima.linear import curvature as curvature
from research.optima.linear import least_squares as least_squares
from research.optima.linear import ridge as ridge
from research.optima.logistic import logistic_regression as logistic_regression
from research.optima.logistic import softmax_regression as softmax_regression
