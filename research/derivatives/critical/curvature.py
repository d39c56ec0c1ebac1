"""Which eigenvalues of a Hessian can be trusted: those that the gradient confirms around the point."""

import functools
from typing import NamedTuple

import numpy as np

from research.derivatives.critical.landscape import Landscape

RADII = (
    2.0 ** -np.arange(0, 110)
)  # Where the gradient is compared with the Hessian; a fixed wide range needs no scale of f.
LARGER = (
    2.0**-10
)  # Where the Hessian grows to this over ε times an eigenvalue, that may be left of terms that cancel.
CLEAR = 8.0  # It then must be so many times what larger roundings change it by.
CHANGE = 0.25  # A Hessian that predicts the gradient's change to this share is confirmed at that radius.
RUN = 3  # Radii in a row, each half of the one before, at which it must be.
NEWTON = 0.25  # The Newton step that is left, over the largest radius where the Hessian is confirmed, is at most this.
REPRESENTED = 0.02  # A step that rounding changes by more than this share is not made.


class Curvature(NamedTuple):
    """The Hessian at y in coordinates that make its rows equally long, split by what the gradient confirms.

    Attributes:
      value: f(y).
      gradient: ∇f(y), shape (n,).
      hessian: Shape (n, n).
      signs: Of the confirmed eigenvalues, shape (a,).
      firm: Their directions, each as long as makes its curvature ±1, shape (n, a).
      loose: The other eigenvectors in the scaled coordinates, shape (n, n - a).
      radius: How far along each firm direction its curvature is confirmed, shape (a,).
    """

    value: float
    gradient: np.ndarray
    hessian: np.ndarray
    signs: np.ndarray
    firm: np.ndarray
    loose: np.ndarray
    radius: np.ndarray


def curvatures(
    land: Landscape, points: np.ndarray, wary: bool = False
) -> list[Curvature | None]:
    """The confirmed and the other directions at each row of points; None where the Hessian is not finite.

    With wary, the noise of the Hessian is always measured, else where it grows so much nearby that it may matter.
    """
    values, gradients, hessians = land.hessians(points)
    return [
        _split(land, y, value, gradient, hessian, wary)
        if np.isfinite(hessian).all()
        else None
        for y, value, gradient, hessian in zip(
            points, values, gradients, hessians, strict=True
        )
    ]


def _split(
    land: Landscape,
    y: np.ndarray,
    value: float,
    gradient: np.ndarray,
    hessian: np.ndarray,
    wary: bool,
) -> Curvature:
    scale = equilibrium(hessian)
    spectrum, vectors = np.linalg.eigh(scale[:, None] * hessian * scale)
    vectors = scale[:, None] * vectors
    around = functools.partial(_mismatch, land, y, value, gradient, hessian)
    size = np.abs(spectrum)
    candidates = np.flatnonzero(size > 10 * land.eps * size.max())
    radius = np.zeros(len(y))
    checked = _by_direction(
        around, vectors[:, candidates], spectrum[candidates], land.eps
    )
    noise = np.zeros(len(y))
    if wary or any(suspect for *_, suspect in checked):
        noise = CLEAR * np.abs(
            np.einsum("ik,mij,jk->mk", vectors, land.noise(y)[1], vectors)
        ).max(axis=0)
    for k, (ratio, opposed, _) in zip(candidates, checked, strict=True):
        newton = abs(vectors[:, k] @ gradient) / size[k]
        radius[k] = 0.0 if opposed or size[k] <= noise[k] else _confirmed(ratio, newton)
    sure = radius > 0
    firm = vectors[:, sure] / np.sqrt(size[sure])
    if sure.sum() > 1 and not _holds_between(
        around, firm, radius[sure] * np.sqrt(size[sure])
    ):
        sure = np.zeros_like(sure)
    reach = (radius * np.sqrt(size))[sure]
    return Curvature(
        value,
        gradient,
        hessian,
        np.sign(spectrum[sure]),
        vectors[:, sure] / np.sqrt(size[sure]),
        vectors[:, ~sure],
        reach,
    )


def equilibrium(hessian: np.ndarray) -> np.ndarray:
    """Powers of two s, the largest 1, that bring the largest entry of each row of s_i H_ij s_j near one; 1 for a row of zeros.

    Ruiz, A scaling algorithm to equilibrate both rows and columns norms in matrices, 2001.
    """
    scale, size = np.ones(len(hessian)), np.abs(hessian)
    for _ in range(60):
        rows = (scale[:, None] * size * scale).max(axis=1)
        factor = np.where(rows > 0, 1 / np.sqrt(np.where(rows > 0, rows, 1.0)), 1.0)
        scale = scale * factor
        if (np.abs(np.log2(factor)) < 0.1).all():
            break
    used = size.any(axis=1)
    if used.any():
        scale = np.where(used, scale / scale[used].max(), 1.0)
    return np.ldexp(1.0, np.rint(np.log2(scale)).astype(int))


def _mismatch(
    land, y, value, gradient, hessian, steps: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At each step d: how far dᵀ(∇f(y+d) - ∇f(y)) is from dᵀHd, how far f(y+d) is from its parabola, and the first itself.

    NaN where rounding changes d; the second is 0 where the rounding of f hides it.
    """
    there, d = land.moved(y, steps)
    size = np.linalg.norm(steps, axis=1)
    ok = (
        np.abs(d - steps) <= REPRESENTED * np.abs(steps).max(axis=1, keepdims=True)
    ).all(axis=1) & (size > 0)
    slope, off, values = (
        np.full(len(d), np.nan),
        np.full(len(d), np.nan),
        np.full(len(d), np.nan),
    )
    if not ok.any():
        return slope, off, values
    f, g, _ = land.at(there[ok])
    d = d[ok]
    with np.errstate(invalid="ignore", over="ignore"):
        slope[ok] = ((g - gradient) * d).sum(axis=1)
        curved = np.einsum("mi,ij,mj->m", d, hessian, d)
        off[ok] = np.abs(slope[ok] - curved)
        wrong = np.abs(f - value - d @ gradient - curved / 2)
        values[ok] = np.maximum(0.0, wrong - 32 * land.eps * (np.abs(f) + abs(value)))
    return off, values, slope


def _by_direction(
    around, vectors: np.ndarray, eigenvalues: np.ndarray, eps: float
) -> list[tuple[np.ndarray, bool, bool]]:
    """For each direction: the mismatch over |λ| r² at each radius, the worse of both sides, whether it is opposed, and
    whether the Hessian grows so much nearby that the eigenvalue may be rounding.

    Opposed: at four radii in a row the gradient changes as if the eigenvalue had the other sign, or where the gradient confirms
    it, values of f do not.
    """
    n, count = vectors.shape
    steps = np.concatenate(
        [sign * vectors.T[:, None, :] * RADII[None, :, None] for sign in (1.0, -1.0)]
    )
    off, values, slope = (
        part.reshape(2, count, len(RADII)) for part in around(steps.reshape(-1, n))
    )
    unit = np.abs(eigenvalues)[:, None] * RADII**2
    other_sign = -slope * np.sign(eigenvalues)[:, None] / unit
    ratio, value_ratio = (off / unit).max(axis=0), (values / unit).max(axis=0)
    out = []
    for k in range(count):
        with np.errstate(invalid="ignore"):
            good, against = (
                ratio[k] <= CHANGE,
                ((other_sign[:, k] > 0.5) & (other_sign[:, k] < 2)).all(axis=0),
            )
        denied = (
            bool(good.any()) and value_ratio[k][np.flatnonzero(good)[0]] > 2 * CHANGE
        )
        suspect = bool((np.abs(slope[:, k]).min(axis=0) > LARGER / eps * unit[k]).any())
        out.append(
            (
                ratio[k],
                denied or bool((np.convolve(against, np.ones(4), "valid") == 4).any()),
                suspect,
            )
        )
    return out


def _confirmed(ratio: np.ndarray, newton: float) -> float:
    """The largest radius that begins a run of good ones and is long against the Newton step; 0 if there is none."""
    with np.errstate(invalid="ignore"):
        good = (ratio <= CHANGE) & (newton <= NEWTON * RADII)
    runs = np.convolve(good, np.ones(RUN), "valid") == RUN
    return float(RADII[np.flatnonzero(runs)[0]]) if runs.any() else 0.0


def _holds_between(around, firm: np.ndarray, reach: np.ndarray) -> bool:
    """Whether the Hessian predicts the gradient in directions between its firm ones, too: it does not at a kink."""
    ways = directions(firm.shape[1])
    radii = reach.min() * RADII[1:41]
    steps = (radii[:, None, None] * (ways @ firm.T)[None]).reshape(-1, len(firm))
    off, values, _ = (part.reshape(len(radii), len(ways)) for part in around(steps))
    with np.errstate(invalid="ignore"):
        good = (off <= CHANGE * radii[:, None] ** 2).all(axis=1)
    runs = np.flatnonzero(np.convolve(good, np.ones(RUN), "valid") == RUN)
    return bool(runs.size) and bool(
        (values[runs[0]] <= 2 * CHANGE * radii[runs[0]] ** 2).all()
    )


@functools.cache
def directions(n: int) -> np.ndarray:
    """Unit directions in pairs ±d, the axes among them: 32 around a circle, more on a sphere."""
    if n == 1:
        return np.array([[1.0], [-1.0]])
    if n == 2:
        angle = np.pi * np.arange(16) / 16
        half = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        half[0], half[8] = (1.0, 0.0), (0.0, 1.0)
    else:
        drawn = np.random.default_rng(0).normal(size=(24, n))
        pairs = [
            np.eye(n)[i] + s * np.eye(n)[j]
            for i in range(n)
            for j in range(i)
            for s in (1, -1)
        ][:32]
        half = np.concatenate([np.eye(n), pairs, drawn])
        half /= np.linalg.norm(half, axis=1, keepdims=True)
    return np.concatenate([half, -half])
