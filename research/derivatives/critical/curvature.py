"""Eigenvalues of a Hessian that the gradient around the point confirms."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from research.derivatives.critical.landscape import Landscape

# Radii at which the gradient is compared with the Hessian. The range is wide, so that
# the scale of f need not be known.
RADII = 2.0 ** -np.arange(0, 110)
# An eigenvalue may be left of cancelling terms if the Hessian grows nearby to this,
# divided by ε, times the eigenvalue.
LARGER = 2.0**-10
CLEAR = 8.0  # Such an eigenvalue must exceed this many times its noise.
# The Hessian is confirmed at a radius where it predicts the gradient's change up to
# this relative error.
CHANGE = 0.25
RUN = 3  # Number of consecutive radii, each half of the last, that must confirm it.
# Largest allowed ratio of the remaining Newton step to the largest confirmed radius.
NEWTON = 0.25
REPRESENTED = 0.02  # Steps that rounding changes by more than this are not used.


class Curvature(NamedTuple):
    """The Hessian at y, split into directions that the gradient confirms and others.

    The coordinates are scaled so that the Hessian's rows are equally long.

    Attributes:
      value: f(y).
      gradient: ∇f(y), shape (n,).
      hessian: The Hessian, shape (n, n).
      signs: Signs of the confirmed eigenvalues, shape (a,).
      firm: Their directions, scaled so that the curvature is ±1, shape (n, a).
      loose: The other eigenvectors in the scaled coordinates, shape (n, n - a).
      radius: Distance up to which each firm direction is confirmed, shape (a,).
    """

    value: float
    gradient: Float[np.ndarray, "n"]
    hessian: Float[np.ndarray, "n n"]
    signs: Float[np.ndarray, "a"]
    firm: Float[np.ndarray, "n a"]
    loose: Float[np.ndarray, "n b"]
    radius: Float[np.ndarray, "a"]


def curvatures(
    land: Landscape, points: Float[np.ndarray, "m n"], wary: bool = False
) -> list[Curvature | None]:
    """Split the directions at each point; None if the Hessian is not finite.

    With `wary` the noise of the Hessian is always measured, else only where it grows so
    much nearby that it may matter.
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


def equilibrium(hessian: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n"]:
    """Scale a Hessian so that the largest entry of each row of s_i H_ij s_j is near 1.

    The scales s are powers of two with maximum 1; a row of zeros has scale 1.

    References:
      Ruiz, A scaling algorithm to equilibrate both rows and columns norms in matrices,
      2001.
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
    land: Landscape,
    y: np.ndarray,
    value: float,
    gradient: np.ndarray,
    hessian: np.ndarray,
    steps: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors of the Hessian's predictions for each step d.

    Returns |dᵀ(∇f(y+d) - ∇f(y)) - dᵀHd|, the distance of f(y+d) from its parabola (0 if
    rounding hides it), and dᵀ(∇f(y+d) - ∇f(y)). They are NaN if rounding changes d.
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
    around: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]],
    vectors: np.ndarray,
    eigenvalues: np.ndarray,
    eps: float,
) -> list[tuple[np.ndarray, bool, bool]]:
    """For each direction: the relative mismatch at each radius, and two flags.

    The mismatch is relative to |λ| r², for the worse of both sides. The first flag says
    that the eigenvalue is opposed: at four consecutive radii the gradient changes as
    for the other sign, or values of f contradict a confirming gradient. The second says
    that the Hessian grows so much nearby that the eigenvalue may be rounding.
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
    """Largest confirmed radius that is long relative to the Newton step; or 0."""
    with np.errstate(invalid="ignore"):
        good = (ratio <= CHANGE) & (newton <= NEWTON * RADII)
    runs = np.convolve(good, np.ones(RUN), "valid") == RUN
    return float(RADII[np.flatnonzero(runs)[0]]) if runs.any() else 0.0


def _holds_between(
    around: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]],
    firm: np.ndarray,
    reach: np.ndarray,
) -> bool:
    """Whether the Hessian also predicts the gradient between its firm directions.

    At a kink it does not.
    """
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
def directions(n: int) -> Float[np.ndarray, "m n"]:
    """Unit directions in pairs ±d, with the axes: 32 on a circle, else more."""
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
