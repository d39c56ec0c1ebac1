"""Exact optima of linear models, computed by NumPy and SciPy only.

The optima are used to measure the error of gradient descent. Therefore the solvers
share no code with gradient descent.
"""

from research.optima.linear import curvature as curvature
from research.optima.linear import least_squares as least_squares
from research.optima.linear import ridge as ridge
from research.optima.logistic import logistic_regression as logistic_regression
from research.optima.logistic import softmax_regression as softmax_regression
