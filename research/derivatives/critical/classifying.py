"""What a critical point is: by its Hessian, by higher derivatives where that is singular, and how far Newton's method sees it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.derivatives.exact import derivative

NEAR = 1e-6  # How far, over 1 + |x|, a point may lie from the critical point that it stands for.
DIRECTIONS = 24  # That are tried where the Hessian vanishes on a plane or more.
RADII = 2.0 ** -np.arange(-2, 12)  # Balls, over 1 + |x|, in which the Hessian's change is sampled.


class CriticalPoint(NamedTuple):
    """A point where the gradient vanishes.

    Attributes:
      x: Where, shape (n,).
      value: f(x).
      gradient_norm: What is left of the gradient.
      eigenvalues: Of the Hessian, rising, shape (n,).
      kind: "minimum", "maximum", "saddle", or "degenerate" where an eigenvalue is zero.
      newton_radius: An *estimate* of how close a start must be for Newton's method to converge to this point, 2 / (3 β L)
        with β = ‖H⁻¹‖ and L the largest change of the Hessian over the way, from samples in that ball: a sample bounds
        nothing, so that this certifies nothing. 0 where the Hessian is singular.
      order: The order of the derivatives that decide: 2, 3 or 4; 0 where none up to 4 does.
      note: For a degenerate point, what it is by the higher derivatives; else "".
    """

    x: np.ndarray
    value: float
    gradient_norm: float
    eigenvalues: np.ndarray
    kind: str
    newton_radius: float
    order: int
    note: str


def classified(f: Callable, x: np.ndarray) -> CriticalPoint:
    """The critical point at x, which is taken for one."""
    value, slope, curvature = _local(f)(jnp.asarray(x))
    curvature = np.asarray(curvature)
    nowhere = CriticalPoint(
        x, float(value), float(np.linalg.norm(slope)), np.full(x.size, np.nan), "degenerate", 0.0, 0, ""
    )
    if not np.isfinite(curvature).all():
        return nowhere._replace(note="undecided: the Hessian is not finite")
    values, vectors = np.linalg.eigh(curvature)
    along = _along(f, x)
    near = NEAR * (1 + np.linalg.norm(x))
    higher = np.array([along(q) for q in vectors.T])
    if not np.isfinite(higher).all():
        return nowhere._replace(eigenvalues=values, note="undecided: a third or fourth derivative is not finite")
    doubt = near * np.abs(higher[:, 0]) + near**2 / 2 * np.abs(higher[:, 1])
    zero = np.abs(values) <= np.maximum(doubt, 100 * np.finfo(values.dtype).eps * np.abs(values).max())
    point = nowhere._replace(eigenvalues=values)
    if not zero.any():
        kind = "minimum" if values[0] > 0 else "maximum" if values[-1] < 0 else "saddle"
        return point._replace(kind=kind, order=2, newton_radius=_newton_radius(f, x, curvature))
    order, note = _by_higher_orders(f, x, values, vectors, zero, along)
    return point._replace(order=order, note=note)


def _local(f: Callable) -> Callable:
    return jax.jit(lambda x: (f(x), jax.grad(f)(x), jax.hessian(f)(x)))


def _along(f: Callable, x: np.ndarray) -> Callable:
    """q -> third and fourth derivative of f along q."""
    start = jnp.asarray(x)

    @jax.jit
    def both(q: jax.Array) -> tuple[jax.Array, jax.Array]:
        line = lambda t: f(start + t * q)
        zero = jnp.zeros((), start.dtype)
        return derivative(line, zero, order=3), derivative(line, zero, order=4)

    return lambda q: tuple(float(d) for d in both(jnp.asarray(q)))


def _by_higher_orders(f: Callable, x: np.ndarray, values, vectors, zero, along) -> tuple[int, str]:
    """(order, note) of a point with a singular Hessian."""
    rest = values[~zero]
    if (rest > 0).any() and (rest < 0).any():
        return 2, "a saddle: the Hessian has eigenvalues of both signs"
    directions = _directions(vectors[:, zero])
    thirds_fourths = np.array([along(q) for q in directions])
    scale = max(np.abs(thirds_fourths).max(), np.abs(values).max(), np.finfo(float).tiny)
    third = np.abs(thirds_fourths[:, 0])
    if third.max() > 1e-4 * scale:
        return 3, "no extremum: the third derivative does not vanish"
    fourths = np.array(
        [_fourth(f, x, q, values, vectors, zero, d4) for q, (_, d4) in zip(directions, thirds_fourths, strict=True)]
    )
    signs = {int(s) for s in np.sign(np.where(np.abs(fourths) > 1e-4 * scale, fourths, 0.0))}
    all_signs = signs | {int(s) for s in np.sign(rest)}
    if {1, -1} <= all_signs:
        return 4, "a saddle by the fourth derivative"
    if 0 in signs:
        return 0, "undecided: the fourth derivative vanishes too"
    return 4, f"a {'minimum' if 1 in signs else 'maximum'} by the fourth derivative"


def _fourth(f: Callable, x: np.ndarray, q: np.ndarray, values, vectors, zero, plain: float) -> float:
    """The fourth derivative along the bottom of the valley (or ridge) that leaves x along q.

    The valley bends towards each other direction p by -D³f(q, q, p) t² / (2 λ_p), so that f on it has the fourth
    derivative D⁴f(q, q, q, q) - 3 Σ_p D³f(q, q, p)² / λ_p.
    """
    start, along = jnp.asarray(x), jnp.asarray(q)
    bend = jax.grad(lambda y: derivative(lambda t: f(y + t * along), jnp.zeros((), start.dtype), order=2))(start)
    parts = np.asarray(vectors.T @ np.asarray(bend))[~zero]
    return plain - 3 * float(np.sum(parts**2 / values[~zero]))


def _directions(null: np.ndarray) -> np.ndarray:
    """Unit directions in the span of the columns: one where there is one, else a fixed sample."""
    if null.shape[1] == 1:
        return null.T
    if null.shape[1] == 2:
        angle = np.pi * (np.arange(DIRECTIONS) + 0.3) / DIRECTIONS
        return np.stack([np.cos(angle), np.sin(angle)], axis=1) @ null.T
    drawn = np.random.default_rng(0).normal(size=(4 * DIRECTIONS, null.shape[1]))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True) @ null.T


def _newton_radius(f: Callable, x: np.ndarray, curvature: np.ndarray) -> float:
    """The largest sampled ball whose own Lipschitz estimate allows its radius."""
    inverse = 1 / np.abs(np.linalg.eigvalsh(curvature)).min()
    drawn = np.random.default_rng(0).normal(size=(DIRECTIONS, x.size))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    drawn = np.concatenate([drawn, -drawn])
    change = jax.jit(
        jax.vmap(lambda y, h: jnp.linalg.norm(jax.hessian(f)(y) - h, 2), in_axes=(0, None)),
    )
    radii = RADII * (1 + np.linalg.norm(x))
    points = (x[None, None, :] + radii[:, None, None] * drawn[None, :, :]).reshape(-1, x.size)
    changes = np.asarray(change(jnp.asarray(points, x.dtype), jnp.asarray(curvature))).reshape(len(radii), -1)
    lipschitz = np.max(changes, axis=1) / radii
    with np.errstate(divide="ignore"):
        allowed = np.where(lipschitz > 0, 2 / (3 * inverse * lipschitz), np.inf)
    fits = np.isfinite(lipschitz) & (radii <= allowed)
    if fits.any():
        return float(radii[fits].max())
    return float(allowed[-1]) if np.isfinite(allowed[-1]) else 0.0
