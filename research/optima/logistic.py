"""Exact optima of logistic and softmax regression, by damped Newton steps."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.special
from jaxtyping import Float, Num

from research.checks import check_count, check_flag
from research.optima.design import (
    centred,
    checked,
    checked_labels,
    pivoted_qr,
    with_ones,
)
from research.sizes import check_room
from research.types import Optimum

_MAX_STEPS = 100
_GRADIENT_TOLERANCE = 1e-12  # Relative to the gradient norm at params = 0.
_ROUNDING_TOLERANCE = 16.0  # In units of ε times the sizes of the gradient's terms.
# The optimum is at infinity if the last step still changes a logit by more than this.
_LOGIT_TOLERANCE = 1e-6
_NO_OPTIMUM = (
    "The classes {}: the loss decreases without limit as params grow, so without a "
    "penalty no finite optimum exists. Pass penalty > 0."
)


def logistic_regression(
    x: Float[np.ndarray, "n d"],
    y: Num[np.ndarray, "n"],
    penalty: float,
    penalise_intercept: bool = False,
) -> Optimum:
    """Solve logistic regression by damped Newton steps.

    Minimise f(w, b) = 1/n Σ_i log(1 + exp(-s_i (x_i w + b))) + penalty/2 |w|² over the
    weights w and the intercept b. The sum is over the n rows x_i of x. The sign s_i =
    2 y_i - 1 is 1 for the label 1, and -1 for the label 0. scikit-learn's
    LogisticRegression solves the same problem if C = 1 / (n penalty).

    Args:
      x: Inputs, shape (n, d), floating.
      y: Labels 0 and 1, shape (n,). Both labels must occur.
      penalty: Factor of the penalty, at least 0. If it is 0 and the classes are
        linearly separable, there is no optimum, and an error is raised.
      penalise_intercept: If True, the term penalty/2 b² is added to f.
    Returns:
      The `Optimum`. Its params are {"weights": (d,), "intercept": ()}, float64.
    Raises:
      ValueError: The data, the labels or the penalty are invalid. Or the penalty is 0
        and there is no unique optimum: the classes are linearly separable, the columns
        of x are linearly dependent, or a linear combination of them is constant.
      RuntimeError: Newton's method did not converge. The message shows the norm of the
        gradient at the end.
    References:
      Boyd & Vandenberghe, Convex Optimization, algorithm 9.5 (damped Newton) and
      section 7.1.1 (logistic).
    Example:
      >>> optimum = logistic_regression(
      ...     np.array([[-1.0], [1.0]]), np.array([0, 1]), penalty=0.25
      ... )
      >>> weights, intercept = optimum.params["weights"], optimum.params["intercept"]
      >>> print(f"{weights[0]:.4f}, {abs(intercept):.4f}")  # w (1 + exp w) = 4
      1.0426, 0.0000
    """
    check_flag("penalise_intercept", penalise_intercept)
    x, y = checked(x, y, penalty)
    sign = 2.0 * checked_labels(y, 2) - 1.0
    return _minimise(
        functools.partial(_logistic, sign),
        x,
        np.zeros(x.shape[1] + 1),
        penalty,
        penalise_intercept,
    )


def softmax_regression(
    x: Float[np.ndarray, "n d"],
    y: Num[np.ndarray, "n"],
    num_classes: int,
    penalty: float,
    penalise_intercept: bool = False,
) -> Optimum:
    """Solve softmax regression by damped Newton steps.

    Minimise f(W, b) = 1/n Σ_i -log softmax(x_i W + b)[y_i] + penalty/2 |W|² over the
    weights W and the intercepts b. The sum is over the n rows x_i of x.

    The loss does not change if the same number is added to all logits x_i W + b of a
    row. Therefore the solver considers only pairs (W, b) whose sums over the classes
    are 0. If the penalty is positive, exactly one of these pairs is optimal. If the
    penalty is 0, there may be several optimal pairs, or none. In both cases, an error
    is raised. If the penalty is 0 or penalise_intercept is False, pairs whose sums are
    not 0 can also be optimal. The solver does not return such pairs.

    Args:
      x: Inputs, shape (n, d), floating.
      y: Labels 0..K-1, shape (n,). Every label must occur.
      num_classes: Number K of classes, at least 2.
      penalty: Factor of the penalty, at least 0. If it is 0 and the classes are
        linearly separable, there is no optimum, and an error is raised.
      penalise_intercept: If True, the term penalty/2 |b|² is added to f.
    Returns:
      The `Optimum`. Its params are {"weights": (d, K), "intercept": (K,)}, float64.
      Their sums over the classes are 0.
    Raises:
      ValueError: The data, the labels or the penalty are invalid, or the Hessian does
        not fit into memory. Or the penalty is 0 and there is no unique optimum: the
        classes are linearly separable, the columns of x are linearly dependent, or a
        linear combination of them is constant.
      RuntimeError: Newton's method did not converge. The message shows the norm of the
        gradient at the end.
    References:
      Böhning (1992), Multinomial logistic regression algorithm, Ann. Inst. Statist.
      Math. 44(1), eq. 2.4 (Hessian).
    Example:
      >>> optimum = softmax_regression(
      ...     np.array([[-1.0], [0.0], [1.0]]), np.array([0, 1, 2]), 3, penalty=0.1
      ... )
      >>> print(f"{optimum.value:.4f}, {optimum.gradient_norm < 1e-12}")
      0.7140, True
    """
    check_flag("penalise_intercept", penalise_intercept)
    x, y = checked(x, y, penalty)
    check_count("num_classes", num_classes, 2)
    size = (x.shape[1] + 1) * int(num_classes)
    check_room("the Hessian for num_classes", size, size)
    labels = checked_labels(y, num_classes)
    start = np.zeros((x.shape[1] + 1, num_classes))
    return _minimise(
        functools.partial(_softmax, labels), x, start, penalty, penalise_intercept
    )


class _Problem(NamedTuple):
    """Functions that Newton's method needs.

    The array theta contains the intercept in its first row and the weights below, shape
    (d + 1,) or (d + 1, K).
    """

    value: Callable[[np.ndarray], float]
    gradient: Callable[[np.ndarray], np.ndarray]
    # Function (theta, gradient) -> inverse Hessian times gradient.
    step: Callable[[np.ndarray, np.ndarray], np.ndarray]
    logits: Callable[[np.ndarray], np.ndarray]
    # Derivative of each example's loss with respect to its logits.
    residual: Callable[[np.ndarray], np.ndarray]
    # Positive if theta classifies every example correctly.
    margin: Callable[[np.ndarray], float]


def _logistic(sign: np.ndarray, design: np.ndarray, strength: np.ndarray) -> _Problem:
    def value(theta: np.ndarray) -> float:
        return float(
            np.mean(np.logaddexp(0.0, -sign * (design @ theta)))
            + 0.5 * np.sum(strength * theta**2)
        )

    def residual(theta: np.ndarray) -> np.ndarray:
        # This form of σ(t) - y keeps the digits of a small residual.
        return -sign * scipy.special.expit(-sign * (design @ theta))

    def gradient(theta: np.ndarray) -> np.ndarray:
        return design.T @ residual(theta) / len(design) + strength * theta

    def step(theta: np.ndarray, slope: np.ndarray) -> np.ndarray:
        logits = design @ theta
        curvatures = scipy.special.expit(logits) * scipy.special.expit(-logits)
        return _solve(
            design.T @ (curvatures[:, None] * design) / len(design) + np.diag(strength),
            slope,
        )

    def margin(theta: np.ndarray) -> float:
        logits = design @ theta
        return float(np.min(sign * logits) - 1e-12 * np.max(np.abs(logits)))

    logits = lambda theta: design @ theta
    return _Problem(value, gradient, step, logits, residual, margin)


def _softmax(labels: np.ndarray, design: np.ndarray, strength: np.ndarray) -> _Problem:
    rows, num_classes = np.arange(len(design)), int(labels.max()) + 1
    # Orthonormal columns with sum 0, shape (K, K - 1).
    contrasts = scipy.linalg.null_space(np.ones((1, num_classes)))

    def value(theta: np.ndarray) -> float:
        logits = design @ theta
        log_odds = logits - logits[rows, labels][:, None]
        return float(
            np.mean(scipy.special.logsumexp(log_odds, axis=1))
            + 0.5 * np.sum(strength[:, None] * theta**2)
        )

    def residual(theta: np.ndarray) -> np.ndarray:
        p = scipy.special.softmax(design @ theta, axis=1)
        p[rows, labels] = 0.0
        # This form of p - 1 keeps the digits of a small residual.
        p[rows, labels] = -p.sum(axis=1)
        return p

    def gradient(theta: np.ndarray) -> np.ndarray:
        return design.T @ residual(theta) / len(design) + strength[:, None] * theta

    def step(theta: np.ndarray, slope: np.ndarray) -> np.ndarray:
        p = scipy.special.softmax(design @ theta, axis=1)
        hessian = _softmax_hessian(design, p, contrasts) + np.diag(
            np.repeat(strength, num_classes - 1)
        )
        return (
            _solve(hessian, (slope @ contrasts).ravel()).reshape(len(theta), -1)
            @ contrasts.T
        )

    def margin(theta: np.ndarray) -> float:
        logits = design @ theta
        others = logits.copy()
        others[rows, labels] = -np.inf
        return float(
            np.min(logits[rows, labels] - others.max(axis=1))
            - 1e-12 * np.max(np.abs(logits))
        )

    logits = lambda theta: design @ theta
    return _Problem(value, gradient, step, logits, residual, margin)


def _minimise(
    problem_of: Callable[[np.ndarray, np.ndarray], _Problem],
    x: np.ndarray,
    start: np.ndarray,
    penalty: float,
    penalise_intercept: bool,
) -> Optimum:
    """Minimise with centred columns of x, and evaluate the result with x itself.

    The columns are not centred if the intercept is penalised.
    """
    shift, rows = centred(x)
    if penalty == 0:
        pivoted_qr(with_ones(rows))
    if penalise_intercept:
        shift, rows = np.zeros(x.shape[1]), x
    strength = np.append(
        penalty if penalise_intercept else 0.0, np.full(x.shape[1], penalty)
    )
    design = with_ones(rows)
    problem = problem_of(design, strength)
    tolerance = _tolerance(problem, design, start)
    theta, num_steps = _newton(problem, start, tolerance, penalty)
    theta[0] -= shift @ theta[1:]
    design = with_ones(x)
    problem = problem_of(design, strength)
    norm, initial = (
        float(np.linalg.norm(problem.gradient(point))) for point in (theta, start)
    )
    tolerance = _tolerance(problem, design, start)
    if norm > tolerance:
        raise _stalled(norm, tolerance)
    params = {"weights": theta[1:], "intercept": theta[0]}
    return Optimum(
        params, problem.value(theta), norm, initial, f"Newton, {num_steps} steps"
    )


def _tolerance(problem: _Problem, design: np.ndarray, start: np.ndarray) -> float:
    """Return the gradient norm that Newton's method must reach.

    This tolerance is a small fraction of the gradient norm at params = 0. At params =
    0, the terms of the gradient may cancel, for example if both labels have the same
    inputs. The tolerance is then about the size of the rounding errors of the gradient.
    """
    initial = float(np.linalg.norm(problem.gradient(start)))
    terms = np.abs(design).T @ np.abs(problem.residual(start)) / len(design)
    rounding = float(np.finfo(np.float64).eps * np.linalg.norm(terms))
    return max(_GRADIENT_TOLERANCE * initial, _ROUNDING_TOLERANCE * rounding)


def _newton(
    problem: _Problem, theta: np.ndarray, tolerance: float, penalty: float
) -> tuple[np.ndarray, int]:
    """Take damped Newton steps until only rounding errors of the gradient remain."""
    slope = problem.gradient(theta)
    initial = norm = float(np.linalg.norm(slope))
    for num_steps in range(_MAX_STEPS):
        if penalty == 0 and problem.margin(theta) > 0:
            raise ValueError(_NO_OPTIMUM.format("are separable"))
        try:
            direction = problem.step(theta, slope)
        except np.linalg.LinAlgError:
            break
        following = theta - _step_length(problem, theta, slope, direction) * direction
        next_slope = problem.gradient(following)
        next_norm = float(np.linalg.norm(next_slope))
        if (
            norm <= tolerance
            and np.max(np.abs(problem.logits(direction))) < _LOGIT_TOLERANCE
            and (
                next_norm >= 0.5 * norm  # Equal if both are exactly 0.
                or norm <= 1e-9 * tolerance  # Near params = 0, it may keep halving.
            )
        ):
            return theta, num_steps
        theta, slope, norm = following, next_slope, next_norm
    if penalty == 0 and norm <= 1e-3 * initial:
        raise ValueError(
            _NO_OPTIMUM.format(
                "are separable except for points on the boundary, or nearly separable"
            )
        )
    raise _stalled(norm, tolerance)


def _stalled(norm: float, tolerance: float) -> RuntimeError:
    return RuntimeError(
        f"Newton's method stopped at gradient norm {norm:.3e}; it must reach "
        f"{tolerance:.3e}, which is {_GRADIENT_TOLERANCE:.0e} times the norm at params "
        "= 0, or the size of its rounding errors there if this is larger. Standardise "
        "x, or increase the penalty."
    )


def _step_length(
    problem: _Problem, theta: np.ndarray, slope: np.ndarray, direction: np.ndarray
) -> float:
    """Halve the step from 1 until the value decreases enough (Armijo's condition).

    Near the optimum, rounding errors hide the decrease of the value. Therefore an
    increase by 1e-14 times the value is also accepted.
    """
    value, decrement = problem.value(theta), float(np.sum(slope * direction))
    length = 1.0
    while length > 1e-10 and not (
        problem.value(theta - length * direction)
        <= value - 1e-4 * length * decrement + 1e-14 * abs(value)
    ):
        length /= 2.0
    return length


def _solve(hessian: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Compute the inverse Hessian times the slope by Cholesky decomposition.

    First, the Hessian is scaled to a unit diagonal. The condition number then does not
    depend on the units of the columns.
    """
    scale = 1.0 / np.sqrt(np.maximum(np.diag(hessian), np.finfo(np.float64).tiny))
    factor = scipy.linalg.cho_factor(
        scale[:, None] * hessian * scale, lower=True, overwrite_a=True
    )
    return scale * scipy.linalg.cho_solve(factor, scale * slope)


def _softmax_hessian(
    design: np.ndarray, p: np.ndarray, contrasts: np.ndarray
) -> np.ndarray:
    """Compute the Hessian 1/n Σ (z_i z_iᵀ) ⊗ Cᵀ (diag p_i - p_i p_iᵀ) C.

    Here z_i is row i of the design, and p_i are the probabilities that the model
    predicts for example i. The columns of C (`contrasts`) are an orthonormal basis of
    the vectors with sum 0. The loop treats one column of C at a time.
    """
    size, num_contrasts = design.shape[1], contrasts.shape[1]
    hessian = np.empty((size, num_contrasts, size, num_contrasts))
    centred = p @ contrasts
    for j in range(num_contrasts):
        rest = slice(0, j + 1)
        weights = (
            p @ (contrasts[:, j, None] * contrasts[:, rest])
            - centred[:, j, None] * centred[:, rest]
        )
        weighted = (weights[:, :, None] * design[:, None, :]).reshape(len(design), -1)
        block = (design.T @ weighted / len(design)).reshape(size, j + 1, size)
        hessian[:, j, :, rest] = block.transpose(0, 2, 1)
        hessian[:, rest, :, j] = block
    return hessian.reshape(size * num_contrasts, size * num_contrasts)
