"""Newton's method on ∇f = 0 from many starts at once, damped and undamped."""

from typing import NamedTuple

import numpy as np

from research.derivatives.critical.landscape import Landscape

DAMPED, UNDAMPED = (
    30,
    60,
)  # Steps at most. Undamped ones divide the distance to a point of multiplicity m by m / (m - 1) each.
SHARES = 2.0 ** -np.arange(
    11
)  # Of a Newton step; the one that leaves the shortest gradient is taken.
DAMPING = 10.0 ** -np.arange(
    0, 9, 2
)  # Of Levenberg and Marquardt, over the largest eigenvalue.
LONGEST = 1.0  # An undamped step, in units of the landscape.


class Walks(NamedTuple):
    """Where each start led.

    Attributes:
      ends: Where the gradient was shortest on each walk, shape (k, n).
      slope: How long it is there, shape (k,); infinite where f or its gradient is not finite.
      broken: Whether the walk met a place where f, its gradient or its Hessian is not finite, shape (k,).
    """

    ends: np.ndarray
    slope: np.ndarray
    broken: np.ndarray


class Model(NamedTuple):
    """Gradients, and eigenvalues and eigenvectors of Hessians, row by row; 0 where they are not finite."""

    gradients: np.ndarray
    values: np.ndarray
    vectors: np.ndarray

    def newton_moves(self, eps: float) -> np.ndarray:
        """H⁺ ∇f, shape (k, n)."""
        small = np.abs(self.values) <= eps * np.abs(self.values).max(
            axis=1, keepdims=True
        )
        inverse = np.where(small, 0.0, 1 / np.where(small, 1.0, self.values))
        along = np.einsum("kij,ki->kj", self.vectors, self.gradients)
        return np.einsum("kij,kj->ki", self.vectors, inverse * along)

    def damped_moves(self) -> np.ndarray:
        """(H² + μ)⁻¹ H ∇f for several μ, shape (k, s, n)."""
        along = np.einsum("kij,ki->kj", self.vectors, self.gradients)
        damping = (np.abs(self.values).max(axis=1)[:, None] * DAMPING) ** 2
        bottom = self.values[:, None, :] ** 2 + damping[:, :, None]
        top = self.values[:, None, :] * along[:, None, :]
        steps = np.divide(top, bottom, out=np.zeros_like(bottom), where=bottom > 0)
        return np.einsum("kij,ksj->ksi", self.vectors, steps)


def walks(land: Landscape, starts: np.ndarray) -> list[Walks]:
    """Undamped steps from the starts, damped ones, and undamped ones from where these end.

    Damped steps shorten the gradient, and so come to rest in a bent valley with a degenerate bottom, where undamped ones go on.
    """
    damped = _damped(land, starts)
    return [_undamped(land, starts), damped, _undamped(land, damped.ends)]


def _undamped(land: Landscape, starts: np.ndarray) -> Walks:
    """y <- y - H⁺ ∇f."""
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
    """y <- y - s H⁺ ∇f with the s that leaves the shortest gradient; where none shortens it, Levenberg and Marquardt's step."""
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


def newton_lengths(land: Landscape, y: np.ndarray) -> np.ndarray:
    """The largest entry of the Newton step at each row of y; infinite where the Hessian is not finite."""
    if not len(y):
        return np.zeros(0)
    values, model = _model(land, y)
    return np.where(
        np.isfinite(values), np.abs(model.newton_moves(land.eps)).max(axis=1), np.inf
    )


def _model(land: Landscape, y: np.ndarray) -> tuple[np.ndarray, Model]:
    values, gradients, hessians = land.hessians(y)
    finite = np.isfinite(hessians).all(axis=(1, 2)) & np.isfinite(gradients).all(axis=1)
    spectrum, vectors = np.linalg.eigh(np.where(finite[:, None, None], hessians, 0.0))
    return np.where(finite, values, np.nan), Model(
        np.where(finite[:, None], gradients, 0.0), spectrum, vectors
    )


def length(values: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Length of the gradient; infinite where it or f is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(gradients, axis=1)
    return np.where(np.isfinite(lengths) & np.isfinite(values), lengths, np.inf)
