"""Exact least-squares optima by QR, and the curvature of linear models."""

import math

import numpy as np
import scipy.linalg
from jaxtyping import Float, Num

from research.checks import check_numbers
from research.optima.design import centred, checked, pivoted_qr, with_ones
from research.types import Optimum


def least_squares(x: Float[np.ndarray, "n d"], y: Num[np.ndarray, "n"]) -> Optimum:
    """Solve linear regression: minimise f(w, b) = 1/(2n) Σ_i (x_i w + b - y_i)².

    The sum is over the n rows x_i of x. The params are the weights w and the intercept
    b.

    Args:
      x: Inputs, shape (n, d), floating.
      y: Targets, shape (n,).
    Returns:
      The `Optimum`, computed by QR. Its params are {"weights": (d,), "intercept": ()},
      float64.
    Raises:
      ValueError: The data are invalid, or there are many minimisers. There are many
        minimisers if the columns of x, together with a column of ones, are linearly
        dependent.
    References:
      Golub & Van Loan, Matrix Computations, 4th ed., sections 5.3 and 5.4.
    Example:
      >>> optimum = least_squares(
      ...     np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 3.0, 5.0])
      ... )
      >>> print(f"{optimum.params['weights'][0]:.3f} {optimum.params['intercept']:.3f}")
      2.000 1.000
    """
    return ridge(x, y, 0.0)


def ridge(
    x: Float[np.ndarray, "n d"], y: Num[np.ndarray, "n"], penalty: float
) -> Optimum:
    """Solve ridge regression.

    Minimise f(w, b) = 1/(2n) Σ_i (x_i w + b - y_i)² + penalty/2 |w|² over the weights w
    and the intercept b. The sum is over the n rows x_i of x. scikit-learn's Ridge
    solves the same problem if alpha = n penalty.

    The minimiser is the least-squares solution of n + d linear equations: the n
    equations x_i w + b = y_i, and the d equations √(n penalty) w = 0. First, the
    columns of x are centred. Then the columns of the matrix of the n + d equations are
    scaled to norm 1. The equations are solved by QR with column pivoting, followed by
    two steps of iterative refinement.

    Args:
      x: Inputs, shape (n, d), floating.
      y: Targets, shape (n,).
      penalty: Factor of the penalty, at least 0. The intercept is not penalised.
    Returns:
      The `Optimum`. Its params are {"weights": (d,), "intercept": ()}, float64.
    Raises:
      ValueError: The data or the penalty are invalid. Or, up to rounding errors of
        float64, there are many minimisers. This can happen only if the penalty is 0 or
        very small. `least_squares` says when there are many minimisers.
    References:
      Golub & Van Loan, Matrix Computations, 4th ed., sections 5.3 and 6.1.
    Example:
      >>> optimum = ridge(np.array([[-1.0], [1.0]]), np.array([0.0, 2.0]), penalty=1.0)
      >>> print(f"{optimum.params['weights'][0]:.3f} {optimum.params['intercept']:.3f}")
      0.500 1.000
    """
    x, y = checked(x, y, penalty)
    n, d = x.shape
    root = math.sqrt(n * penalty)
    shift, rows = centred(x)
    basis, triangle, order, scale = pivoted_qr(
        np.block([[np.ones((n, 1)), rows], [np.zeros((d, 1)), root * np.eye(d)]])
    )
    weights, intercept = np.zeros(d), 0.0
    for _ in range(3):
        residual = np.concatenate([y - (x @ weights + intercept), -root * weights])
        correction = np.zeros(d + 1)
        correction[order] = (
            scipy.linalg.solve_triangular(triangle, basis.T @ residual) / scale[order]
        )
        weights = weights + correction[1:]
        intercept = intercept + correction[0] - shift @ correction[1:]
    residual = x @ weights + intercept - y
    gradient = np.append(x.T @ residual / n + penalty * weights, residual.mean())
    initial = np.append(x.T @ y, y.sum()) / n
    return Optimum(
        {"weights": weights, "intercept": np.float64(intercept)},
        float(0.5 * np.mean(residual**2) + 0.5 * penalty * (weights @ weights)),
        float(np.linalg.norm(gradient)),
        float(np.linalg.norm(initial)),
        "QR",
    )


def curvature(
    x: Float[np.ndarray, "n d"],
    penalty: float = 0.0,
    example_curvature: float | Float[np.ndarray, "n"] = 1.0,
) -> tuple[float, float]:
    """Compute the extreme eigenvalues μ and L of the Hessian for a linear model.

    The objective is the mean loss of the n examples plus penalty/2 |w|². The weights w
    do not contain the intercept. The Hessian of the objective is
    1/n Σ_i c_i z_i z_iᵀ + penalty diag(0, 1, ..., 1), with z_i = (1, x_i) for the n
    rows x_i of x. Here c_i is the second derivative of the loss of example i with
    respect to the output of the model. The argument `example_curvature` contains the
    numbers c_i. Choose them as follows:

    * c_i = 1 for half the squared error. Then μ and L do not depend on the params.
    * c_i = p_i (1 - p_i) for the logistic loss, at params that predict the
      probabilities p_i.
    * c_i = 1/4 for the logistic loss, or c_i = 1/2 for softmax regression. Then L is an
      upper bound of the Hessian's largest eigenvalue at all params.

    Args:
      x: Inputs, shape (n, d), floating.
      penalty: Factor of the penalty, at least 0. The intercept is not penalised.
      example_curvature: Second derivatives c_i: one number for all examples, or an
        array of shape (n,).
    Returns:
      The smallest eigenvalue μ and the largest eigenvalue L.
    Raises:
      ValueError: The data or the penalty are invalid, or example_curvature is neither
        one number nor of shape (n,).
    References:
      Böhning (1992), Multinomial logistic regression algorithm, Ann. Inst. Statist.
      Math. 44(1), theorem 2.1.
    Example:
      >>> print(*(f"{value:.2f}" for value in curvature(np.array([[-2.0], [2.0]]))))
      1.00 4.00
    """
    check_numbers("x", x, ndim=2)
    check_numbers("example_curvature", example_curvature)
    if np.shape(example_curvature) not in ((), (len(x),)):
        raise ValueError(
            f"example_curvature must be one number, or one for each of the {len(x)} "
            f"rows of x; got shape {np.shape(example_curvature)}."
        )
    x, weights = checked(
        x, np.broadcast_to(np.asarray(example_curvature, np.float64), len(x)), penalty
    )
    design = with_ones(x)
    strength = np.append(0.0, np.full(x.shape[1], penalty))
    eigenvalues = np.linalg.eigvalsh(
        design.T @ (weights[:, None] * design) / len(x) + np.diag(strength)
    )
    return float(eigenvalues[0]), float(eigenvalues[-1])
