"""Critical points: found by Newton's method, and classified by second and higher derivatives."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.checks import check_callable, check_count, check_number, check_numbers, check_real
from research.derivatives.critical.classifying import CriticalPoint, classified
from research.derivatives.errors import NotInexactError
from research.derivatives.exact.arguments import scalar, title

__all__ = ["CriticalPoint", "classify_critical_point", "critical_points", "grid_of_starts"]

STEPS = 200  # Of Newton's method; it halves the distance to a degenerate point at each, or better.
SHARES = 2.0 ** -np.arange(11)  # Of a Newton step; the one that leaves the shortest gradient is taken.
FLAT = 0.55  # ε to this power (2e-9): a gradient that short, over the longest one at a start, is zero.
STILL = 0.35  # ε to this power (3e-6): so short a Newton step, over 1 + |x|, has arrived. In the tail of e^x none is.


def critical_points(f: Callable, starts: Any, bounds: Any, *, separation: float = 1e-5) -> tuple[CriticalPoint, ...]:
    """The critical points of f that Newton's method reaches from the given starts, each classified.

    ∇f = 0 is solved by damped Newton steps, x <- x - s H⁺ ∇f with the s among 1, 1/2, ..., 1/1024 that leaves the shortest
    gradient, from all starts at once. What ends outside of the bounds or where the gradient has not vanished is dropped, and
    of points that are the same one is kept. The list is what was *found from these starts*; nothing proves that it is all.

    Args:
      f: Function of an array of shape (n,) that gives one real number.
      starts: Where to start, shape (k, n); `grid_of_starts(bounds, per_axis)` makes a lattice.
      bounds: (low, high) of each coordinate, shape (n, 2).
      separation: Points closer than this, over 1 + |x|, are one.
    Returns:
      `CriticalPoint`s by rising f.
    Raises:
      ValueError: starts or bounds has a wrong shape, a bound is not below the other, or separation is not positive.
      NotScalarError, NotInexactError: As `gradient`.
    References:
      Ortega & Rheinboldt, Iterative solution of nonlinear equations in several variables, 1970.
    Example:
      >>> f = lambda x: x[0] ** 3 - 3 * x[0] + x[1] ** 2
      >>> bounds = [(-2.0, 2.0), (-1.0, 1.0)]
      >>> [(p.kind, p.x.round(6).tolist()) for p in critical_points(f, grid_of_starts(bounds, 4), bounds)]
      [('minimum', [1.0, 0.0]), ('saddle', [-1.0, 0.0])]
    """
    check_callable("f", f, "x")
    check_real("separation", separation)
    starts, bounds = _checked(starts, bounds)
    if not separation > 0:
        raise ValueError(f"separation must be positive; got separation={separation}.")
    checked = scalar(f, "critical_points")
    ends, first, last, moves = (np.asarray(part) for part in _newton(checked, starts))
    eps = float(jnp.finfo(starts.dtype).eps)
    inside = ((ends >= bounds[:, 0]) & (ends <= bounds[:, 1])).all(axis=1)
    flat = last <= eps**FLAT * first[np.isfinite(first)].max(initial=0.0)
    arrived = moves <= eps**STILL * (1 + np.linalg.norm(ends, axis=1))
    kept = inside & flat & arrived
    noise = 10 * eps * first[np.isfinite(first)].max(initial=0.0)
    unique = [x for x in _distinct(ends[kept], last[kept], separation) if _rests(checked, x, noise)]
    return tuple(sorted((classified(checked, x) for x in unique), key=lambda point: point.value))


def classify_critical_point(f: Callable, x: Any, *, tolerance: float = 1e-6) -> CriticalPoint:
    """What kind of critical point x is: minimum, maximum, saddle, or degenerate, and then what higher orders say.

    By the eigenvalues of the Hessian where none is zero. An eigenvalue counts as zero where it is below what the
    third and fourth derivatives change it by within 1e-6 (1 + |x|) of x; then derivatives of order 3 and 4 along its
    directions decide, if they can, with the correction of the fourth for a valley that bends.

    Args:
      f: Function of an array of shape (n,) that gives one real number.
      x: A critical point, shape (n,) (or () for a function of one number).
      tolerance: How long the gradient may be, over its length a tenth of (1 + |x|) away.
    Returns:
      CriticalPoint.
    Raises:
      ValueError: x is not stationary; the message says how long the gradient is.
      NotScalarError, NotInexactError: As `gradient`.
    Example:
      >>> point = classify_critical_point(lambda x: x[0] ** 4 + x[1] ** 2, jnp.zeros(2))
      >>> point.kind, point.order, point.note
      ('degenerate', 4, 'a minimum by the fourth derivative')
    """
    check_callable("f", f, "x")
    check_number("tolerance", tolerance)
    check_numbers("x", x)
    x = np.asarray(x) if not isinstance(x, jax.Array) else x
    if not jnp.issubdtype(x.dtype, jnp.floating) or x.ndim > 1:
        raise NotInexactError(f"x must be floating numbers of shape (n,); got {x.dtype} of shape {x.shape}.")
    checked = scalar(f if x.ndim else lambda y: f(y[0]), "classify_critical_point")
    x = np.atleast_1d(np.asarray(x))
    slope = jax.grad(checked)
    length = float(np.linalg.norm(slope(jnp.asarray(x))))
    away = 0.1 * (1 + np.linalg.norm(x))
    near = [x + sign * away * unit for unit in np.eye(x.size, dtype=x.dtype) for sign in (-1, 1)]
    scale = max(0.0, *(float(np.linalg.norm(slope(jnp.asarray(y)))) for y in near))
    if not length <= tolerance * scale and length:
        raise ValueError(
            f"x must be a critical point of {title(f)}; its gradient there has length {length:.3g}, against {scale:.3g} "
            f"around it. Find one by critical_points(f, starts, bounds)."
        )
    return classified(checked, x)


def grid_of_starts(bounds: Any, per_axis: int | Sequence[int]) -> np.ndarray:
    """A lattice of starting points: the middles of equal cells.

    Args:
      bounds: (low, high) of each coordinate, shape (n, 2).
      per_axis: Points on each axis, or a number for each.
    Returns:
      Points, shape (product of per_axis, n).
    Example:
      >>> grid_of_starts([(0.0, 1.0)], 2).tolist()
      [[0.25], [0.75]]
    """
    check_numbers("bounds", bounds, ndim=2)
    check_numbers("per_axis", per_axis, kinds="iu")
    for entry in per_axis if isinstance(per_axis, list | tuple | np.ndarray) and np.ndim(per_axis) else [per_axis]:
        check_count("per_axis", entry)
    bounds = np.asarray(bounds, float)
    if (
        bounds.shape[1] != 2
        or not np.isfinite(bounds).all()
        or (np.ndim(per_axis) and np.shape(per_axis) != bounds.shape[:1])
    ):
        raise ValueError(
            "bounds must be finite numbers (low, high) of each coordinate, shape (n, 2), and per_axis one number or n; got "
            f"bounds of shape {bounds.shape} and per_axis={per_axis!r}."
        )
    numbers = np.broadcast_to(per_axis, len(bounds))
    axes = [low + (high - low) * (np.arange(k) + 0.5) / k for (low, high), k in zip(bounds, numbers, strict=True)]
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)


def _checked(starts: Any, bounds: Any) -> tuple[jax.Array, np.ndarray]:
    check_numbers("bounds", bounds, ndim=2)
    check_numbers("starts", starts)
    bounds, starts = np.asarray(bounds, float), jnp.asarray(starts)
    if bounds.ndim != 2 or bounds.shape[1] != 2 or not (bounds[:, 0] < bounds[:, 1]).all():
        raise ValueError(f"bounds must be (low, high) with low < high for each coordinate; got {bounds.tolist()}.")
    if starts.ndim != 2 or starts.shape[1] != len(bounds) or not len(starts):
        raise ValueError(
            f"starts must have the shape (k, {len(bounds)}), a row for each start; got {starts.shape}. "
            "One start is starts=[x]; grid_of_starts(bounds, per_axis) makes a lattice."
        )
    if not np.isfinite(np.asarray(starts)).all():
        raise ValueError("starts must be finite; got a NaN or an infinity among them. Leave those starts out.")
    if not jnp.issubdtype(starts.dtype, jnp.floating):
        raise NotInexactError(f"starts must be floating numbers; got {starts.dtype}. Write 3.0, not 3.")
    return starts, bounds


def _newton(f: Callable, starts: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Where the walks end, how long the gradient is at their starts and ends, and the Newton step that is left."""
    slope, curvature = jax.grad(f), jax.hessian(f)
    shares = jnp.asarray(SHARES, starts.dtype)

    def length(x: jax.Array) -> jax.Array:
        found = jnp.linalg.norm(slope(x))
        return jnp.where(jnp.isfinite(found), found, jnp.inf)

    def move(x: jax.Array) -> jax.Array:
        values, vectors = jnp.linalg.eigh(curvature(x))
        small = jnp.abs(values) <= jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(values))
        inverse = jnp.where(small, 0.0, 1 / jnp.where(small, 1.0, values))
        return vectors @ (inverse * (vectors.T @ slope(x)))

    def step(_: Any, x: jax.Array) -> jax.Array:
        trials = jnp.concatenate([x[None, :] - shares[:, None] * move(x)[None, :], x[None, :]])
        return trials[jnp.argmin(jax.vmap(length)(trials))]

    def walk(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        end = jax.lax.fori_loop(0, STEPS, step, x)
        return end, length(x), length(end), jnp.linalg.norm(move(end))

    return jax.jit(jax.vmap(walk))(starts)


def _rests(f: Callable, x: np.ndarray, noise: float) -> bool:
    """Whether the gradient has vanished along the directions that a Newton step leaves out, where the Hessian is 0, too."""
    slope, start = jax.grad(f), jnp.asarray(x)
    values, vectors = np.linalg.eigh(np.nan_to_num(jax.hessian(f)(start)))
    away = 0.1 * (1 + np.linalg.norm(x))
    for q in vectors.T[np.abs(values) <= np.finfo(x.dtype).eps * np.abs(values).max()]:
        near, here, far = (float(slope(start + jnp.asarray(t * q, start.dtype)) @ q) for t in (-away, 0.0, away))
        if not abs(here) <= noise + 1e-3 * max(abs(near), abs(far)):
            return False
    return True


def _distinct(points: np.ndarray, lengths: np.ndarray, separation: float) -> list[np.ndarray]:
    """One of each group of points that are the same, the one with the shortest gradient."""
    kept: list[np.ndarray] = []
    for i in np.argsort(lengths, kind="stable"):
        limit = separation * (1 + np.linalg.norm(points[i]))
        if all(np.linalg.norm(points[i] - other) > limit for other in kept):
            kept.append(points[i])
    return kept
