"""Newton's method for ∇f = 0 from many starts at once, with and without damping."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from research.derivatives.critical.curvature import equilibrium
from research.derivatives.critical.landscape import Landscape

# Largest numbers of steps. An undamped step divides the distance from a point of
# multiplicity m by m / (m - 1).
DAMPED, UNDAMPED = 30, 60
# Fractions of a Newton step. The one that gives the shortest gradient is used.
SHARES = 2.0 ** -np.arange(11)
# Levenberg-Marquardt damping relative to the largest eigenvalue.
DAMPING = 10.0 ** -np.arange(0, 9, 2)
# Multiples of a Newton step for zeros of higher multiplicity.
TIMES = np.array([1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0])
LONGEST = 1.0  # Largest undamped step, in the landscape's units.
# If the Newton step at a point is below this, in the landscape's units, the point may
# be critical.
ARRIVED = 1e-3
# Most repetitions from the end points of the starts that have not arrived.
AGAIN = 3


class Walks(NamedTuple):
    """End points of one run of Newton's method from each of k starts.

    Attributes:
      ends: For each start, the point with the shortest gradient that the run reached,
        shape (k, n).
      slope: Norm of the gradient at the end point, shape (k,). The norm is infinite if
        f or its gradient is not finite there.
      broken: Whether the run reached a point where f or its gradient is not finite,
        shape (k,). In a run of undamped steps, a point where the Hessian is not finite
        also makes `broken` True.
    """

    ends: Float[np.ndarray, "k n"]
    slope: Float[np.ndarray, "k"]
    broken: Bool[np.ndarray, "k"]


class Model(NamedTuple):
    """Gradients and Hessians of a function at k points.

    The function `equilibrium` scales the coordinates of each point so that all rows of
    the Hessian at this point are about equally large. Without the scaling, a small
    curvature in one coordinate could be taken for the rounding error of a large
    curvature in another coordinate. An example is the valley of (y - x⁴)(y - 2 x⁴). If
    the gradient or the Hessian at a point is not finite, both are set to 0.

    Attributes:
      gradients: Gradients in the original coordinates, shape (k, n).
      scale: Scale of each coordinate, shape (k, n).
      values: Eigenvalues of the scaled Hessians, shape (k, n).
      vectors: Eigenvectors of the scaled Hessians in columns, shape (k, n, n).
    """

    gradients: Float[np.ndarray, "k n"]
    scale: Float[np.ndarray, "k n"]
    values: Float[np.ndarray, "k n"]
    vectors: Float[np.ndarray, "k n n"]

    def newton_moves(self, eps: float) -> Float[np.ndarray, "k n"]:
        """Compute H⁺ ∇f at each point, where H⁺ is the pseudoinverse of the Hessian.

        The pseudoinverse is computed in the scaled coordinates, and the result is in
        the original coordinates. An eigenvalue counts as 0 if its absolute value is at
        most `eps` times the largest absolute eigenvalue.
        """
        small = np.abs(self.values) <= eps * np.abs(self.values).max(
            axis=1, keepdims=True
        )
        inverse = np.where(small, 0.0, 1 / np.where(small, 1.0, self.values))
        along = self._along()
        return self.scale * np.einsum("kij,kj->ki", self.vectors, inverse * along)

    def damped_moves(self) -> Float[np.ndarray, "k s n"]:
        """Compute Levenberg-Marquardt steps (H² + μ I)⁻¹ H ∇f for five numbers μ.

        H and ∇f are in the scaled coordinates, and I is the identity matrix. The steps
        are converted to the original coordinates. √μ is 1, 1e-2, 1e-4, 1e-6 or 1e-8
        times the largest absolute eigenvalue of H. The result has shape (k, 5, n).
        """
        along = self._along()
        damping = (np.abs(self.values).max(axis=1)[:, None] * DAMPING) ** 2
        bottom = self.values[:, None, :] ** 2 + damping[:, :, None]
        top = self.values[:, None, :] * along[:, None, :]
        steps = np.divide(top, bottom, out=np.zeros_like(bottom), where=bottom > 0)
        moves = np.einsum("kij,ksj->ksi", self.vectors, steps)
        return self.scale[:, None, :] * moves

    def _along(self) -> Float[np.ndarray, "k n"]:
        """Return the components of the scaled gradient along the eigenvectors."""
        return np.einsum("kij,ki->kj", self.vectors, self.scale * self.gradients)


def walks(land: Landscape, starts: Float[np.ndarray, "k n"]) -> list[Walks]:
    """Run Newton's method from all starts, and return the end points of each run.

    There are three runs: undamped steps from the starts, damped steps from the starts,
    and undamped steps from the end points of the second run. Both kinds of steps are
    needed:

    - A damped step must shorten the gradient. So damped steps may stall in a curved
      valley of f with a degenerate bottom, where some of the steps along the valley
      lengthen the gradient.
    - Undamped steps continue in such a valley, but may leap away from a zero of the
      gradient that is already close.

    The best end point of a start is the one with the shortest gradient. If the largest
    absolute entry of the Newton step from this point exceeds 1e-3, in the scaled
    coordinates of `Landscape`, two more runs are made: one with damped steps from this
    point, and one with undamped steps from the end point of these damped steps. This is
    done at most three times. The result has the end points of all runs.
    """
    damped = _damped(land, starts)
    led = [_undamped(land, starts), damped, _undamped(land, damped.ends)]
    for _ in range(AGAIN):
        best = _shortest(led)
        rows = np.flatnonzero(np.isfinite(best.slope) & (best.slope > 0))
        rows = rows[newton_lengths(land, best.ends[rows]) > ARRIVED]
        if not rows.size:
            break
        damped = _damped(land, best.ends[rows])
        undamped = _undamped(land, damped.ends)
        for part in (damped, undamped):
            led.append(best._replace(**{k: v.copy() for k, v in _fields(best)}))
            for name, values in _fields(part):
                getattr(led[-1], name)[rows] = values
    return led


def _fields(walk: Walks) -> list[tuple[str, np.ndarray]]:
    return list(walk._asdict().items())


def _shortest(led: list[Walks]) -> Walks:
    """Return, for each start, the end point with the shortest gradient."""
    stacked = [np.stack(column) for column in zip(*led, strict=True)]
    best, row = stacked[1].argmin(axis=0), np.arange(stacked[1].shape[1])
    return Walks(*(column[best, row] for column in stacked))


def _undamped(land: Landscape, starts: np.ndarray) -> Walks:
    """Iterate y <- y - H⁺ ∇f from all starts."""
    y = land.rounded(starts).astype(float)
    ends, slope = y.copy(), length(*land.at(y)[:2])
    broken = ~np.isfinite(slope)
    active = np.isfinite(slope) & (slope > 0)
    for _ in range(UNDAMPED):
        rows = np.flatnonzero(active)
        if not rows.size:
            break
        values, model = _model(land, y[rows])
        here = length(values, model.gradients)
        broken[rows] |= ~np.isfinite(here)
        shorter = here < slope[rows]
        ends[rows[shorter]], slope[rows[shorter]] = y[rows[shorter]], here[shorter]
        moves = model.newton_moves(land.eps)
        moves *= LONGEST / np.maximum(LONGEST, np.abs(moves).max(axis=1, keepdims=True))
        there = land.rounded(y[rows] - moves).astype(float)
        going = (
            np.isfinite(here)
            & (here > 0)
            & (np.abs(there - y[rows]) > land.eps * np.abs(there)).any(axis=1)
        )
        y[rows] = there
        active[rows] = going
    return Walks(ends, slope, broken)


def _damped(land: Landscape, starts: np.ndarray) -> Walks:
    """Iterate y <- y - s H⁺ ∇f with the factor s that gives the shortest gradient.

    H⁺ is the pseudoinverse of the Hessian. A Levenberg-Marquardt step is used instead
    if the gradient at its end is shorter.
    """
    y = land.rounded(starts).astype(float)
    slope = length(*land.at(y)[:2])
    active = np.isfinite(slope) & (slope > 0)
    for _ in range(DAMPED):
        rows = np.flatnonzero(active)
        if not rows.size:
            break
        _, model = _model(land, y[rows])
        moves = np.concatenate(
            [
                SHARES[None, :, None] * model.newton_moves(land.eps)[:, None, :],
                model.damped_moves(),
            ],
            1,
        )
        trials = land.rounded(y[rows, None, :] - moves).astype(float)
        lengths = length(*land.at(trials.reshape(-1, y.shape[1]))[:2]).reshape(
            moves.shape[:2]
        )
        best, row = lengths.argmin(axis=1), np.arange(len(rows))
        shorter = lengths[row, best] < slope[rows]
        y[rows[shorter]] = trials[row, best][shorter]
        slope[rows[shorter]] = lengths[row, best][shorter]
        active[rows] = shorter
    return Walks(y, slope, ~np.isfinite(slope))


def newton_lengths(
    land: Landscape, y: Float[np.ndarray, "k n"]
) -> Float[np.ndarray, "k"]:
    """Return the largest absolute entry of the Newton step at each row of y.

    Each row of y is a point in the scaled coordinates of `land`. The result is infinite
    for a row where f, its gradient or its Hessian is not finite.
    """
    if not len(y):
        return np.zeros(0)
    values, model = _model(land, y)
    return np.where(
        np.isfinite(values), np.abs(model.newton_moves(land.eps)).max(axis=1), np.inf
    )


def lengthened(
    land: Landscape, y: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "n"] | None:
    """Return the point with the shortest gradient among y - m H⁺ ∇f for several m.

    Here f is the function of `land`, H⁺ is the pseudoinverse of the Hessian of f at y,
    and m is 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10 or 12. If the gradient has a zero of
    multiplicity m near y, the step with this m is as good as Newton's step near a
    simple zero. The result is None if no step shortens the gradient.
    """
    values, model = _model(land, y[None])
    trials = land.rounded(y - TIMES[:, None] * model.newton_moves(land.eps))
    lengths = length(*land.at(trials)[:2])
    best = int(lengths.argmin())
    here = float(length(values, model.gradients)[0])
    return trials[best].astype(float) if lengths[best] < here else None


def _model(land: Landscape, y: np.ndarray) -> tuple[np.ndarray, Model]:
    values, gradients, hessians = land.hessians(y)
    finite = np.isfinite(hessians).all(axis=(1, 2)) & np.isfinite(gradients).all(axis=1)
    hessians = np.where(finite[:, None, None], hessians, 0.0)
    scale = equilibrium(hessians)
    spectrum, vectors = np.linalg.eigh(scale[:, :, None] * hessians * scale[:, None, :])
    return np.where(finite, values, np.nan), Model(
        np.where(finite[:, None], gradients, 0.0), scale, spectrum, vectors
    )


def length(
    values: Float[np.ndarray, "k"], gradients: Float[np.ndarray, "k n"]
) -> Float[np.ndarray, "k"]:
    """Return the norm of the gradient at each point.

    `values` are the values of f at k points, and row i of `gradients` is the gradient
    of f at point i. The result is infinite where f or the gradient is not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(gradients, axis=1)
    return np.where(np.isfinite(lengths) & np.isfinite(values), lengths, np.inf)
