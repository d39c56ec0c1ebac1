"""Matrices of intervals: products, Krawczyk's operator, and signs of eigenvalues."""

import numpy as np

from research.derivatives.certified.intervals import (
    FINE,
    Interval,
    add,
    down,
    magnitude,
    multiply,
    point,
    subtract,
    sum_error,
    total,
    up,
)


def product(a: Interval, b: Interval) -> Interval:
    """Enclose the product A B for all matrices A in a and all matrices B in b.

    A has shape (..., m, k), and B has shape (..., k, n).
    """
    left = Interval(a.low[..., :, :, None], a.high[..., :, :, None], np.asarray(FINE))
    if a.is_point:
        left = point(left.low)
    right = Interval(b.low[..., None, :, :], b.high[..., None, :, :], np.asarray(FINE))
    if b.is_point:
        right = point(right.low)
    return total(multiply(left, right), (a.low.ndim - 1,))


def applied(a: Interval, v: Interval) -> Interval:
    """Enclose the product A v of a matrix and a vector.

    `a` encloses A, shape (..., m, k), and `v` encloses the vector, shape (..., k).
    """
    column = Interval(v.low[..., None], v.high[..., None], np.asarray(FINE))
    if v.is_point:
        column = point(column.low)
    found = product(a, column)
    return Interval(found.low[..., 0], found.high[..., 0], np.asarray(FINE))


@np.errstate(all="ignore")  # Infinite ends are no bound.
def krawczyk(
    low: np.ndarray,
    high: np.ndarray,
    middle: np.ndarray,
    value: Interval,
    jacobian: Interval,
) -> Interval:
    """Return a box that contains all roots of F in a box X, by Krawczyk's operator.

    Let m be a point in X, J(X) an enclosure of the Jacobian of F over X, and I the
    identity matrix. For a matrix Y, let K be the box m - Y F(m) + (I - Y J(X)) (X - m).
    For any Y, the following holds:

    - K contains all roots of F in X. Let x be such a root. By the mean value theorem,
      there is a matrix J in J(X) with 0 = F(m) + J (x - m). Multiplied by Y and
      rearranged, this is x = m - Y F(m) + (I - Y J) (x - m), a point of K.
    - If K lies in the interior of X, then X contains exactly one root of F.

    The function uses an approximate inverse of the midpoint of J(X) as Y. If J(X) is
    narrow, Y J(X) is then near I, so K is narrow.

    Args:
      low, high: Ends of the boxes X, shape (boxes, n).
      middle: A point m of each box, shape (boxes, n).
      value: Enclosure of F(m), shape (boxes, n).
      jacobian: Enclosure of the Jacobian over X, shape (boxes, n, n).
    Returns:
      The box K for each X, an `Interval` of shape (boxes, n).
    References:
      Krawczyk, Newton-Algorithmen zur Bestimmung von Nullstellen mit Fehlerschranken,
      Computing 4 (1969). Neumaier, Interval methods for systems of equations, 1990,
      theorem 5.1.8.
    """
    n = low.shape[-1]
    y = point(_inverse(0.5 * jacobian.low + 0.5 * jacobian.high))
    centre = point(middle)
    around = subtract(Interval(low, high, np.asarray(FINE)), centre)
    contraction = subtract(point(np.eye(n)), product(y, jacobian))
    return add(subtract(centre, applied(y, value)), applied(contraction, around))


def _inverse(matrices: np.ndarray) -> np.ndarray:
    """Return approximate inverses, and the identity where there is none."""
    usable = np.all(np.isfinite(matrices), axis=(-1, -2))
    identity = np.eye(matrices.shape[-1])
    matrices = np.where(usable[..., None, None], matrices, identity)
    singular = np.abs(np.linalg.det(matrices)) == 0
    inverse = np.linalg.inv(np.where(singular[..., None, None], identity, matrices))
    return np.where(np.isfinite(inverse), inverse, 0.0)


def eigenvalue_bounds(symmetric: Interval) -> tuple[np.ndarray, np.ndarray]:
    """Bound the eigenvalues of all symmetric matrices in an interval matrix A.

    Let M be such a matrix, and let the columns of Q be approximate eigenvectors of the
    midpoint of A. The extreme eigenvalues of M are the extreme values of xᵀMx / xᵀx.
    With x = Q y, this quotient is (yᵀQᵀMQy / yᵀy) / (yᵀQᵀQy / yᵀy). Its numerator lies
    between the extreme eigenvalues of QᵀMQ, and its denominator between those of QᵀQ.
    So bounds of these eigenvalues give bounds of the quotient.

    Gershgorin circles bound the eigenvalues of QᵀMQ and of QᵀQ. Each row of a matrix
    has such a circle. The centre of the circle is the diagonal entry of the row, and
    its radius is the sum of the absolute values of the other entries. Every eigenvalue
    of the matrix lies in one of the circles. The circles of the interval matrix QᵀAQ
    contain those of QᵀMQ for all M. If M is near the midpoint of A, QᵀMQ is almost
    diagonal, and its circles are small.

    Args:
      symmetric: Interval matrices A, shape (..., n, n).
    Returns:
      (lower bound of the smallest eigenvalue, upper bound of the largest), each of
      shape (...). They are -inf and inf where nothing is proved.
    """
    centres, radii, gram_low, gram_high = _circles(symmetric)
    smallest = np.min(down(centres.low - radii), axis=-1)
    largest = np.max(up(centres.high + radii), axis=-1)
    # xᵀAx / xᵀx with x = Q y is (yᵀ QᵀAQ y) / (yᵀ QᵀQ y), and yᵀQᵀQy is near yᵀy.
    low = np.where(smallest >= 0, down(smallest / gram_high), down(smallest / gram_low))
    high = np.where(largest >= 0, up(largest / gram_low), up(largest / gram_high))
    usable = (gram_low > 0) & np.isfinite(low) & np.isfinite(high)
    return np.where(usable, low, -np.inf), np.where(usable, high, np.inf)


def signs_of_eigenvalues(symmetric: Interval) -> tuple[np.ndarray, np.ndarray]:
    """Count the positive and the negative eigenvalues of an interval matrix A.

    If the counts are proved, they hold for all symmetric matrices M in A. Let Q be the
    matrix of approximate eigenvectors of the midpoint of A, as columns.
    `eigenvalue_bounds` defines the Gershgorin circles of a matrix. The counts are
    proved in three steps:

    - If no circle of QᵀQ contains 0, QᵀQ has no eigenvalue 0, so Q is invertible.
    - By Sylvester's law of inertia, M then has as many positive eigenvalues as QᵀMQ,
      and as many negative eigenvalues as QᵀMQ.
    - If no circle of QᵀAQ contains 0, the circles to the right of 0 and those to the
      left of 0 are separate. By Gershgorin's theorem, QᵀMQ then has as many positive
      eigenvalues as there are circles to the right of 0, and as many negative
      eigenvalues as there are circles to the left of 0.

    Args:
      symmetric: Interval matrices A, shape (..., n, n).
    Returns:
      (number of positive eigenvalues, number of negative eigenvalues), each of shape
      (...). Where a circle of QᵀAQ or of QᵀQ contains 0, nothing is proved, and both
      numbers are 0.
    """
    centres, radii, gram_low, _ = _circles(symmetric)
    positive, negative = down(centres.low - radii) > 0, up(centres.high + radii) < 0
    decided = np.all(positive | negative, axis=-1) & (gram_low > 0)
    return (
        np.where(decided, np.sum(positive, axis=-1), 0),
        np.where(decided, np.sum(negative, axis=-1), 0),
    )


@np.errstate(all="ignore")  # Infinite ends are no bound.
def _circles(
    symmetric: Interval,
) -> tuple[Interval, np.ndarray, np.ndarray, np.ndarray]:
    """Return centres and radii of the circles of QᵀAQ, and bounds of those of QᵀQ."""
    middle = 0.5 * symmetric.low + 0.5 * symmetric.high
    middle = np.where(np.isfinite(middle), middle, 0.0)
    _, vectors = np.linalg.eigh(0.5 * (middle + np.swapaxes(middle, -1, -2)))
    q, turned = point(vectors), point(np.swapaxes(vectors, -1, -2))
    similar = product(product(turned, symmetric), q)
    gram = product(turned, q)
    centres, radii = _gershgorin(similar)
    gram_centres, gram_radii = _gershgorin(gram)
    gram_low = np.min(down(gram_centres.low - gram_radii), axis=-1)
    gram_high = np.max(up(gram_centres.high + gram_radii), axis=-1)
    return centres, radii, gram_low, gram_high


def _gershgorin(a: Interval) -> tuple[Interval, np.ndarray]:
    """Return the diagonal of a, and upper bounds of Σ_j |a_ij| over all j ≠ i."""
    n = a.low.shape[-1]
    index = np.arange(n)
    centres = Interval(
        a.low[..., index, index], a.high[..., index, index], np.asarray(FINE)
    )
    sizes = magnitude(a).high * (1 - np.eye(n))
    sizes = np.where(np.isnan(sizes), 0.0, sizes)  # Infinity times 0, on the diagonal.
    radii = np.sum(sizes, axis=-1)
    return centres, up(radii + sum_error(sizes, (sizes.ndim - 1,), n))
