"""Critical points: found by Newton's method, and classified by second and higher derivatives."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.checks import check_callable, check_count, check_number, check_numbers
from research.derivatives.critical.classifying import CriticalPoint, described, judged
from research.derivatives.critical.curvature import curvatures
from research.derivatives.critical.finding import found_points, vanishes
from research.derivatives.critical.found import CriticalPoints
from research.derivatives.critical.landscape import Landscape, power_of_two
from research.derivatives.errors import NotInexactError
from research.derivatives.exact.arguments import scalar, title
from research.sizes import check_room

__all__ = [
    "CriticalPoint",
    "CriticalPoints",
    "classify_critical_point",
    "critical_points",
    "grid_of_starts",
]

AWAY = 0.1 * 2.0 ** -np.arange(
    40
)  # Over the scale: distances at which a gradient must be long against the one left.


def critical_points(
    f: Callable, starts: Any, bounds: Any, *, separation: Any = 1e-5
) -> CriticalPoints:
    """The critical points of f that Newton's method reaches from the given starts, each classified.

    ∇f = 0 is solved from all starts at once by undamped Newton steps, by damped ones, x <- x - s H⁺ ∇f with the s among 1, 1/2,
    ..., 1/1024 that leaves the shortest gradient, and by undamped ones from where these end. Points outside of the bounds, and
    those where the gradient has not vanished, are dropped. Of points closer than `separation` one is kept. The list is what
    was *found from these starts*; nothing proves that it is complete. `print` shows what became of the starts.

    Where the Hessian is singular, a gradient of ε^0.55 of the longest one at a start (2e-9 in float64) cannot be told from 0:
    x³/3 + 1e-9 x has no critical point, and one at 0 is given, "degenerate, no extremum".

    The widths of the bounds are the units of all lengths. So f may be multiplied by a power of two, and each coordinate with
    its starts and bounds by its own: the same points are found, with the same kinds.

    Args:
      f: Function of an array of shape (n,) that gives one real number.
      starts: Where to start, shape (k, n); `grid_of_starts(bounds, per_axis)` makes a lattice.
      bounds: (low, high) of each coordinate, shape (n, 2).
      separation: Points closer than this are one. A number counts in widths of the bounds; an array of shape (n,) in each
        coordinate's own units.
    Returns:
      `CriticalPoints`: a tuple of `CriticalPoint`s by rising f, with the numbers of starts that converged, left the bounds,
      stalled, met what is not finite, or lie where f is constant.
    Raises:
      ValueError: starts or bounds has a wrong shape, a bound is not below the other, a number is not finite, or separation is
        not positive.
      NotScalarError, NotInexactError: As `gradient`.
    References:
      Ortega & Rheinboldt, Iterative solution of nonlinear equations in several variables, 1970.
    Example:
      >>> f = lambda x: x[0] ** 3 - 3 * x[0] + x[1] ** 2
      >>> bounds = [(-2.0, 2.0), (-1.0, 1.0)]
      >>> found = critical_points(f, grid_of_starts(bounds, 4), bounds)
      >>> [(p.kind, p.x.round(6).tolist()) for p in found]
      [('minimum', [1.0, 0.0]), ('saddle', [-1.0, 0.0])]
      >>> found.starts, found.converged
      (16, 16)
    """
    check_callable("f", f, "x")
    check_numbers("separation", separation)
    starts, bounds = _checked(starts, bounds)
    widths = bounds[:, 1] - bounds[:, 0]
    separation = _separation(separation, widths)
    unit = power_of_two(widths)
    land = Landscape(scalar(f, "critical_points"), unit, starts.dtype)
    with np.errstate(
        all="ignore"
    ):  # What overflows or is not finite is dropped or counted.
        points, counts = found_points(
            land, starts / unit, bounds / unit[:, None], separation / unit
        )
        made = [described(land, point) for point in points]
    return CriticalPoints(sorted(made, key=lambda point: point.value), **counts)


def classify_critical_point(
    f: Callable, x: Any, *, tolerance: float = 1e-6, scale: Any = None
) -> CriticalPoint:
    """Classify the critical point x: minimum, maximum, saddle or degenerate; then describe f around it.

    The Hessian decides in the directions where the gradient around x changes as it predicts, at some distance that is long
    against the Newton step that x still lacks, and where larger roundings of f do not change it. In the other directions f is
    sampled on both sides at many distances, by integrals of its gradient and by its values; the smallest distances that
    rounding leaves visible decide, and a valley that bends is followed. What the samples cannot decide is called "undecided".
    So is a point where the Hessian is not finite, and a minimum that is shared by a curve of points.

    No scale of f has to be known: all distances that x's own rounding allows are tried.

    Args:
      f: Function of an array of shape (n,) that gives one real number.
      x: A critical point, shape (n,) (or () for a function of one number).
      tolerance: How long the gradient may be, over its length somewhere within a tenth of the scale.
      scale: Lengths over which f changes, a number or shape (n,); if None, 1 + |x|.
    Returns:
      CriticalPoint.
    Raises:
      ValueError: x is not stationary; the message says how long the gradient is. Or scale or tolerance is not positive.
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
        raise NotInexactError(
            f"x must be floating numbers of shape (n,); got {x.dtype} of shape {x.shape}."
        )
    checked = scalar(f if x.ndim else lambda y: f(y[0]), "classify_critical_point")
    x = np.atleast_1d(np.asarray(x))
    if not x.size:
        raise ValueError("x must have at least one coordinate; got shape (0,).")
    if not np.isfinite(x.astype(float)).all():
        raise ValueError(f"x must be finite; got x={x.tolist()}.")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive; got tolerance={tolerance}.")
    land = Landscape(checked, power_of_two(_scale(scale, x)), x.dtype)
    y = x.astype(float) / land.unit
    with np.errstate(all="ignore"):  # What overflows or is not finite decides nothing.
        length, most = _slopes(land, y)
        (curvature,) = curvatures(land, y[None], wary=True)
        point = judged(land, y, curvature)
        doubtful = (
            point.evidence is not None
            and not point.evidence.kind
            and not vanishes(land, y, curvature)
        )
        if length and (doubtful or not length <= tolerance * most):
            raise ValueError(
                f"x must be a critical point of {title(f)}; its gradient there has length {length:.3g}, against {most:.3g} "
                f"around it. Find one by critical_points(f, starts, bounds)."
            )
        return described(land, point)


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
    for entry in (
        per_axis
        if isinstance(per_axis, list | tuple | np.ndarray) and np.ndim(per_axis)
        else [per_axis]
    ):
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
    check_room(f"per_axis={per_axis}", *(max(1, int(k)) for k in numbers), len(bounds))
    axes = [
        low + (high - low) * (np.arange(k) + 0.5) / k
        for (low, high), k in zip(bounds, numbers, strict=True)
    ]
    return np.stack(
        [axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1
    )


def _checked(starts: Any, bounds: Any) -> tuple[np.ndarray, np.ndarray]:
    check_numbers("bounds", bounds, ndim=2)
    check_numbers("starts", starts)
    bounds, starts = np.asarray(bounds, float), np.asarray(starts)
    if (
        bounds.ndim != 2
        or bounds.shape[1] != 2
        or not (bounds[:, 0] < bounds[:, 1]).all()
    ):
        raise ValueError(
            f"bounds must be (low, high) with low < high for each coordinate; got {bounds.tolist()}."
        )
    if not np.isfinite(bounds).all():
        raise ValueError(
            f"bounds must be finite, for their widths are the units of length; got {bounds.tolist()}."
        )
    if starts.ndim != 2 or starts.shape[1] != len(bounds) or not len(starts):
        raise ValueError(
            f"starts must have the shape (k, {len(bounds)}), a row for each start; got {starts.shape}. "
            "One start is starts=[x]; grid_of_starts(bounds, per_axis) makes a lattice."
        )
    if not np.isfinite(np.asarray(starts)).all():
        raise ValueError(
            "starts must be finite; got a NaN or an infinity among them. Leave those starts out."
        )
    if not jnp.issubdtype(starts.dtype, jnp.floating):
        raise NotInexactError(
            f"starts must be floating numbers; got {starts.dtype}. Write 3.0, not 3."
        )
    starts = starts.astype(jax.dtypes.canonicalize_dtype(starts.dtype))
    bad = np.flatnonzero(~np.isfinite(starts.astype(float)).all(axis=1))
    if bad.size:
        raise ValueError(
            f"starts must be finite; got starts[{bad[0]}]={starts[bad[0]].tolist()}."
        )
    return starts, bounds


def _separation(separation: Any, widths: np.ndarray) -> np.ndarray:
    """The separation in each coordinate."""
    given = np.asarray(separation, float)
    if (
        given.shape not in ((), widths.shape)
        or not (given > 0).all()
        or not np.isfinite(given).all()
    ):
        raise ValueError(
            f"separation must be positive, one number in widths of the bounds or {len(widths)} in the coordinates' units; got "
            f"separation={separation}."
        )
    return given * widths if given.ndim == 0 else given


def _scale(scale: Any, x: np.ndarray) -> np.ndarray:
    if scale is None:
        return 1 + np.abs(x.astype(float))
    given = np.asarray(scale, float)
    if (
        given.shape not in ((), x.shape)
        or not (given > 0).all()
        or not np.isfinite(given).all()
    ):
        raise ValueError(
            f"scale must be positive, one number or {x.size} of them; got scale={scale}."
        )
    return np.broadcast_to(given, x.shape)


def _slopes(land: Landscape, y: np.ndarray) -> tuple[float, float]:
    """How long the gradient is at y, and how long it gets nearby."""
    steps = (
        AWAY[:, None, None] * np.concatenate([np.eye(len(y)), -np.eye(len(y))])[None]
    )
    slopes = (
        land.at(np.concatenate([y[None], y + steps.reshape(-1, len(y))]))[1] / land.unit
    )
    lengths = np.linalg.norm(slopes, axis=1)
    return float(lengths[0]), float(
        lengths[1:][np.isfinite(lengths[1:])].max(initial=0.0)
    )
