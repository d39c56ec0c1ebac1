"""Generated problems with known answers, such as quadratics and linear data."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Num

from research.checks import (
    check_count,
    check_number,
    check_numbers,
    check_real,
    is_integer,
)
from research.sizes import check_most, check_room


class Function(NamedTuple):
    """A function to minimise, with its known minimum.

    f and its gradient accept NumPy and JAX arrays of shape (d,).

    Attributes:
      f: Function (x) -> value, shape (), in the dtype of x.
      gradient: Function (x) -> gradient, shape (d,), computed by a formula.
      minimiser: Minimiser x*, shape (d,), float64.
      minimum: Smallest value f(x*).
      eigenvalues: Eigenvalues of the Hessian at x*, ascending, shape (d,).
    """

    f: Callable[[Any], Any]
    gradient: Callable[[Any], Any]
    minimiser: Float64[np.ndarray, "d"]
    minimum: float
    eigenvalues: Float64[np.ndarray, "d"]


class Problem(NamedTuple):
    """Generated data with the true coefficients.

    Attributes:
      x: Inputs, shape (n, d), float64.
      y: Targets, shape (n,): float64, or int64 labels 0 and 1.
      weights: True coefficients w of the columns of x, shape (d,). For data from
        `separable_classes`, the weights are the direction u of largest margin. The
        docstring of `separable_classes` defines u.
      intercept: True constant term.
    """

    x: Float64[np.ndarray, "n d"]
    y: Num[np.ndarray, "n"]
    weights: Float64[np.ndarray, "d"]
    intercept: float


def quadratic(
    seed: int, eigenvalues: Sequence[float] | Num[np.ndarray, "d"]
) -> Function:
    """Build the quadratic f(x) = ½ xᵀAx - bᵀx with given eigenvalues of A.

    Here A = Q diag(eigenvalues) Qᵀ, and Q is drawn uniformly from the orthogonal
    matrices. The minimiser x* is drawn from N(0, I), and b = A x*. The minimum is f(x*)
    = -½ x*ᵀ A x*. The result is a `Function`. Its fields `minimiser` and `minimum` are
    x* and f(x*).

    Args:
      seed: Seed of Q and x*.
      eigenvalues: Eigenvalues of A, at least 0, with at least one positive. If an
        eigenvalue is 0, x* is one of many minimisers.
    Returns:
      The function with its minimum.
    Raises:
      TypeError: seed is not an integer >= 0.
      ValueError: An eigenvalue is negative or not finite, or all eigenvalues are 0.
    References:
      Mezzadri (2007), How to generate random matrices from the classical compact
      groups, Notices of the AMS 54(5).
    Example:
      >>> problem = quadratic(0, [1.0, 10.0])
      >>> bool(abs(problem.f(problem.minimiser) - problem.minimum) < 1e-14)
      True
    """
    check_numbers("eigenvalues", eigenvalues, ndim=1)
    spectrum = np.sort(np.asarray(eigenvalues, np.float64))
    if (
        spectrum.ndim != 1
        or not np.isfinite(spectrum).all()
        or not (spectrum >= 0).all()
        or not spectrum.any()
    ):
        raise ValueError(
            "eigenvalues must be a row of numbers >= 0, not all of them 0; got "
            f"{eigenvalues!r}."
        )
    random = np.random.default_rng(_checked_seed(seed))
    basis = _orthogonal(random, len(spectrum))
    minimiser = random.standard_normal(len(spectrum))
    product = (basis * spectrum) @ basis.T
    matrix = 0.5 * (product + product.T)
    vector = matrix @ minimiser

    def f(x: Any) -> Any:
        a, b = in_dtype_of(x)
        return 0.5 * (x @ a @ x) - x @ b

    def gradient(x: Any) -> Any:
        a, b = in_dtype_of(x)
        return x @ a - b

    def in_dtype_of(x: Any) -> tuple[np.ndarray, np.ndarray]:
        if x.dtype.kind in "biu":
            raise TypeError(
                f"x must be floating; got {x.dtype}. Convert it with .astype(float)."
            )
        return matrix.astype(x.dtype), vector.astype(x.dtype)

    return Function(f, gradient, minimiser, float(-0.5 * minimiser @ vector), spectrum)


def rosenbrock(dimension: int = 2) -> Function:
    """Build Rosenbrock's function f(x) = Σ_i [100 (x_{i+1} - x_i²)² + (1 - x_i)²].

    The sum is over i = 1, ..., d - 1. The minimum is f(1, ..., 1) = 0. If the dimension
    is at least 4, there is also a local minimum near (-1, 1, ..., 1).

    Args:
      dimension: Dimension d of x, at least 2.
    Returns:
      The function with its minimum.
    Raises:
      ValueError: dimension is not an integer >= 2.
    References:
      Rosenbrock (1960), An automatic method for finding the greatest or least value of
      a function, Computer Journal 3.
      Shang & Qiu (2006), A note on the extended Rosenbrock function, Evolutionary
      Computation 14(1): the second minimum.
    Example:
      >>> valley = rosenbrock()
      >>> print(f"{valley.f(np.array([-1.2, 1.0])):.1f}")
      24.2
    """
    if not is_integer(dimension) or dimension < 2:
        raise ValueError(f"dimension must be an integer >= 2; got {dimension!r}.")
    dimension = int(dimension)
    check_room(f"dimension={dimension}", dimension)
    # At (1, ..., 1) the term 100 (b - a²)² + (1 - a)² has the second derivatives 802
    # (a, a), 200 (b, b) and -400 (a, b).
    diagonal = np.full(dimension, 1002.0)
    diagonal[0], diagonal[-1] = 802.0, 200.0
    beside = np.full(dimension - 1, -400.0)
    hessian = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)

    def f(x: Any) -> Any:
        head, tail = x[:-1], x[1:]
        return (100.0 * (tail - head**2) ** 2 + (1.0 - head) ** 2).sum()

    def gradient(x: Any) -> Any:
        # Term i depends on x_i and x_{i+1}. Products with 0/1 matrices add each part to
        # the right entry, in NumPy and in JAX.
        head, tail = x[:-1], x[1:]
        rise = tail - head**2
        identity = np.eye(dimension, dtype=x.dtype)
        return (-400.0 * head * rise - 2.0 * (1.0 - head)) @ identity[:-1] + (
            200.0 * rise
        ) @ identity[1:]

    return Function(f, gradient, np.ones(dimension), 0.0, np.linalg.eigvalsh(hessian))


def linear_problem(
    seed: int, n: int, d: int, noise: float, condition: float
) -> Problem:
    """Generate regression data whose sample covariance has a given condition number.

    The targets are y = x w + c + noise · ε, where w are the weights, c is the intercept
    and noise · ε are the errors. The distributions are w ~ N(0, I), c ~ N(0, 1) and
    ε ~ N(0, I).

    The columns of x are centred and satisfy xᵀx / n = V diag(λ) Vᵀ. Here V is a random
    orthogonal matrix, and λ is a geometric sequence of d numbers from 1 / condition to
    1. (For d = 1, λ is 1 / condition.)

    Take half the mean squared error as the loss. Its Hessian has the eigenvalues λ for
    the weights and the eigenvalue 1 for the intercept. So the smoothness constant of
    the loss (the largest eigenvalue) is L = 1, and its strong convexity constant (the
    smallest eigenvalue) is μ = 1 / condition.

    Args:
      seed: Seed of V, w, c, x and ε.
      n: Number of rows, more than d.
      d: Number of columns.
      noise: Standard deviation of the errors noise · ε, at least 0. If noise is 0,
        (w, c) is the least-squares solution.
      condition: Ratio of the largest to the smallest eigenvalue of xᵀx / n, at least 1.
        (For d = 1, the only eigenvalue is 1 / condition.)
    Returns:
      The data, with the weights w and the intercept c.
    Raises:
      TypeError: seed is not an integer >= 0.
      ValueError: An argument is out of range.
    Example:
      >>> problem = linear_problem(0, n=100, d=3, noise=0.0, condition=10.0)
      >>> print(f"{np.linalg.cond(problem.x.T @ problem.x):.3f}")
      10.000
    """
    _check_sizes(n, d)
    if n <= d:
        raise ValueError(
            f"n must exceed d for a covariance of full rank; got n={n}, d={d}."
        )
    check_number("noise", noise)
    random = np.random.default_rng(_checked_seed(seed))
    weights, intercept, root = (
        random.standard_normal(d),
        float(random.standard_normal()),
        _root(random, d, condition),
    )
    x = random.standard_normal((n, d))
    x -= x.mean(axis=0)
    # Let xᵀx / n = C Cᵀ (Cholesky). Then the covariance of the rows of x C⁻ᵀ is the
    # identity, up to rounding.
    x = x @ np.linalg.inv(np.linalg.cholesky(x.T @ x / n)).T @ root.T
    y = x @ weights + intercept + noise * random.standard_normal(n)
    return Problem(x, y, weights, intercept)


def overlapping_classes(
    seed: int, n: int, d: int, separation: float, condition: float = 1.0
) -> Problem:
    """Generate two overlapping Gaussian classes whose log-odds are exactly linear.

    The classes 0 and 1 have probability ½ each. The covariance within a class is B Bᵀ
    for a random matrix B. The eigenvalues of B Bᵀ are a geometric sequence of d numbers
    from 1 / condition to 1. (For d = 1, the eigenvalue is 1 / condition.) The mean of
    class 1 is ½ · separation · B u for a random unit vector u, and the mean of class 0
    is -½ · separation · B u.

    So the log-odds of class 1 at a point x are x w, without an intercept. Here w is
    separation · B⁻ᵀ u. The smallest error rate that a classifier can reach (the Bayes
    error) is Φ(-separation / 2), where Φ is the standard normal distribution function.

    Args:
      seed: Seed of u, B, the labels and the points.
      n: Number of rows.
      d: Number of columns.
      separation: Mahalanobis distance between the two means, positive.
      condition: Ratio of the largest to the smallest eigenvalue of the covariance, at
        least 1.
    Returns:
      The data, with the weights w and the intercept 0. These coefficients minimise the
      expected logistic loss. The coefficients that minimise the mean loss of the n rows
      differ from w and 0 by O(1 / √n).
    Raises:
      TypeError: seed is not an integer >= 0.
      ValueError: An argument is out of range.
    Example:
      >>> problem = overlapping_classes(0, n=1000, d=3, separation=2.0)
      >>> print(f"{np.mean((problem.x @ problem.weights > 0) == problem.y):.1f}")
      0.8
    """
    _check_sizes(n, d)
    _check_positive("separation", separation)
    random = np.random.default_rng(_checked_seed(seed))
    root, direction = _root(random, d, condition), _unit(random, d)
    y = random.integers(0, 2, n)
    x = random.standard_normal((n, d))
    x += np.outer(y - 0.5, separation * direction)
    return Problem(x @ root.T, y, np.linalg.solve(root.T, separation * direction), 0.0)


def separable_classes(seed: int, n: int, d: int, margin: float) -> Problem:
    """Generate two linearly separable classes with a known maximum-margin direction u.

    The margin of a plane that separates the classes is its distance from the nearest
    point. The maximum-margin direction u is the unit normal vector of the plane with
    the largest margin. In gradient descent on the logistic loss, the direction of the
    weights converges to u.

    Here u is a random unit vector, and the points are placed around the plane x u = 0:

    - The first two points are -margin · u (class 0) and margin · u (class 1).
    - Every other point lies on the same side of the plane as the first point of its
      class. Its distance from the plane is margin plus the absolute value of a standard
      normal number. Its position along the plane is normally distributed.

    No point is closer to the plane than the first two points, and the line between
    these two is perpendicular to the plane. Any other plane that separates these two
    points is closer than `margin` to one of them. Therefore u is the unique direction
    of largest margin.

    Args:
      seed: Seed of u, the labels and the points.
      n: Number of rows, at least 2. The first two rows have labels 0 and 1.
      d: Number of columns.
      margin: Smallest distance of a point from the plane x u = 0, positive.
    Returns:
      The data, with the direction u as weights and intercept 0. Up to rounding error,
      each row satisfies (2y - 1) (x u) >= margin.
    Raises:
      TypeError: seed is not an integer >= 0.
      ValueError: An argument is out of range.
    References:
      Soudry, Hoffer, Nacson, Gunasekar & Srebro (2018), The implicit bias of gradient
      descent on separable data, JMLR.
    Example:
      >>> problem = separable_classes(0, n=100, d=3, margin=0.5)
      >>> print(f"{np.min((2 * problem.y - 1) * (problem.x @ problem.weights)):.3f}")
      0.500
    """
    _check_sizes(n, d)
    if n < 2:
        raise ValueError(f"n must be at least 2, one point for each class; got n={n}.")
    _check_positive("margin", margin)
    random = np.random.default_rng(_checked_seed(seed))
    direction = _unit(random, d)
    y = random.integers(0, 2, n)
    y[:2] = (0, 1)
    x = random.standard_normal((n, d))
    x -= np.outer(x @ direction, direction)
    distance = margin + np.abs(random.standard_normal(n))
    distance[:2], x[:2] = margin, 0.0
    x += np.outer((2 * y - 1) * distance, direction)
    return Problem(x, y, direction, 0.0)


def _root(random: np.random.Generator, d: int, condition: float) -> np.ndarray:
    """Draw a matrix B with B Bᵀ = Q diag(λ) Qᵀ.

    Q is a random orthogonal matrix, and λ is a geometric sequence from 1 / condition to
    1.
    """
    check_real("condition", condition)
    if not condition >= 1:
        raise ValueError(
            f"condition must be a finite number >= 1; got condition={condition!r}."
        )
    return _orthogonal(random, d) * np.sqrt(np.geomspace(1.0 / condition, 1.0, d))


def _orthogonal(random: np.random.Generator, d: int) -> np.ndarray:
    """Draw from the uniform distribution over the orthogonal group (Mezzadri, 2007).

    The result is the Q in the QR decomposition of a Gaussian matrix, with the signs
    that make R's diagonal positive.
    """
    basis, triangle = np.linalg.qr(random.standard_normal((d, d)))
    return basis * np.sign(np.diag(triangle))


def _unit(random: np.random.Generator, d: int) -> np.ndarray:
    """Draw from the uniform distribution over the unit sphere."""
    vector = random.standard_normal(d)
    return vector / np.linalg.norm(vector)


def _checked_seed(seed: int) -> int:
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
        raise TypeError(
            "seed must be an integer >= 0 (NumPy takes a seed, not a JAX key); got "
            f"{seed!r}."
        )
    return int(seed)


def _check_sizes(n: int, d: int) -> None:
    for name, value in (("n", n), ("d", d)):
        check_count(name, value)
    check_most(n=n, d=d)
    check_room(f"n={n} and d={d}", n, d)
    check_room(f"d={d}", d, d)


def _check_positive(name: str, value: float) -> None:
    check_number(name, value, positive=True)
