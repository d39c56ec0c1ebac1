"""Critical points: search by Newton's method, and classification by derivatives."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from research.checks import (
    check_callable,
    check_count,
    check_number,
    check_numbers,
    refuse_traced,
)
from research.derivatives.certified import certified_critical_points
from research.derivatives.critical.classifying import CriticalPoint, described, judged
from research.derivatives.critical.finding import (
    found_points,
    settled,
    zero_of_gradient,
)
from research.derivatives.critical.landscape import Landscape, power_of_two
from research.derivatives.critical.result import CriticalPoints
from research.derivatives.errors import NotInexactError
from research.derivatives.exact.arguments import described as tree_described
from research.derivatives.exact.arguments import title
from research.sizes import check_room

__all__ = [
    "CriticalPoint",
    "CriticalPoints",
    "classify_critical_point",
    "critical_points",
    "grid_of_starts",
]

# Distances, relative to the scale, at which the gradient should be long.
AWAY = 0.1 * 2.0 ** -np.arange(110)


def critical_points(
    f: Callable[..., Any],
    starts: Any,
    bounds: Any,
    *,
    separation: Any = 1e-5,
    prove_seconds: float = 0.0,
) -> CriticalPoints:
    """Find and classify critical points of f by Newton's method from given starts.

    A critical point is a point at which the gradient ∇f is 0. The result contains the
    points *found from these starts* and may be incomplete. Print the result to see how
    many starts found a point. If `prove_seconds` is positive, the function
    `certified_critical_points` afterwards examines the whole box of the bounds, and
    divides it into smaller boxes. The result then also says how many points Newton's
    method has missed, and how many of the smaller boxes may contain further points.

    Three runs of Newton's method search for zeros of ∇f, for all starts at once:

    - undamped steps x <- x - H⁺ ∇f from the starts, where H⁺ is the pseudoinverse of
      the Hessian;
    - damped steps x <- x - s H⁺ ∇f from the starts, where s is the number in 1, 1/2,
      ..., 1/1024 that gives the shortest gradient. A Levenberg-Marquardt step is used
      instead if it gives a shorter gradient;
    - undamped steps from the end points of the second run.

    For each start, the best point is the end point with the shortest gradient. If the
    Newton step at the best point is still longer than about 1e-3 times the widths of
    the bounds, two more runs begin at this point: one like the second and one like the
    third. Their end points are added to the earlier ones. Such runs are added at most
    three times. Before H⁺ is computed, the coordinates are scaled so that all rows of
    the Hessian are about equally large. So the search can follow a valley that narrows
    quickly, such as that of (y - x⁴)(y - 2x⁴).

    An end point belongs to the result if it lies inside the bounds, the gradient
    vanishes there, and f changes around the point by more than the rounding errors of
    f. Because of rounding errors, the computed gradient is rarely exactly 0. So a test
    decides whether the gradient vanishes. The test depends on the Hessian:

    - If the Hessian is regular, the Newton step must be at most about 1e-5 times the
      widths of the bounds, or the gradient must be a rounding error. A longer Newton
      step shows that something prevents the search from making this step. For example,
      f is NaN where the step ends.
    - If the Hessian is singular, or does not predict how the gradient changes around
      the point, the gradient must be at most ε^0.55 times the longest gradient at a
      start. Here ε is the relative spacing of the floats, so ε^0.55 is about 2e-9 in
      float64. But a gradient of this size does not prove that there is a critical point
      nearby. For example, the gradient x² + 1e-9 of x³/3 + 1e-9 x is never 0. Therefore
      a second test follows if the gradient is larger than its rounding error. The
      search then tries to shorten the gradient with multiples of Newton's steps. The
      point is dropped if the gradient does not become as small as its rounding error.

    If several points are closer together than `separation`, the result has only the
    point with the shortest gradient.

    The points and their kinds do not change if f is multiplied by a power of two, from
    about 2^-300 to 2^300. If the unit of a coordinate changes by a power of two, the
    points change accordingly, and the kinds do not change.

    f must be continuous with a continuous gradient. At a kink or a jump of f, the
    gradient that JAX returns may be 0, so the result may contain such a point. If
    samples of f around the point show the kink or the jump, the field `kind` of the
    point is "degenerate". The field `note` then starts with "undecided", or with what
    the point is, such as "a minimum" for the kink of |x|. If the samples do not show
    the kink or the jump, the point is classified as if f were smooth there.

    Args:
      f: Function of an array of shape (n,) that returns one real number.
      starts: Starting points, shape (k, n). `grid_of_starts(bounds, per_axis)` returns
        a lattice of starts.
      bounds: (low, high) of each coordinate, shape (n, 2).
      separation: Smallest distance between two different points. It is a number in
        units of the widths of the bounds, or an array of shape (n,) with one number for
        each coordinate, in the units of that coordinate.
      prove_seconds: Time limit in seconds for a proof of how many points Newton's
        method has missed. 0 means no proof.
    Returns:
      A `CriticalPoints`, which is a tuple of `CriticalPoint`s in ascending order of f.
      Five attributes count the starts by outcome: `converged`, `outside`, `stalled`,
      `not_finite` and `flat`. The attribute `starts` is the sum of these five numbers.
      Three attributes have the result of the proof, or None without `prove_seconds`:

      - `missed` is the number of critical points that are proved to lie inside the
        bounds and are not in the tuple. Points that were dropped because of
        `separation` are counted here.
      - `around` is the number of boxes around points of the tuple that may contain
        further critical points.
      - `unexplored` is the number of all other boxes that may contain critical points.
    Raises:
      ValueError: starts or bounds has a wrong shape, a lower bound is not below the
        upper bound, a number is not finite, separation is not positive, or
        prove_seconds is negative. Or f jumps in the box, and a proof is asked for.
      TypeError: starts, bounds, separation or prove_seconds does not consist of real
        numbers.
      NotInexactError: starts or the value of f is not floating.
      NotScalarError: f does not return one number.
      UnsupportedPrimitiveError: A proof is asked for, and f contains an operation for
        which `enclose` has no rule.
    References:
      Ortega & Rheinboldt, Iterative solution of nonlinear equations in several
      variables, 1970.
    Example:
      >>> f = lambda x: x[0] ** 3 - 3 * x[0] + x[1] ** 2
      >>> bounds = [(-2.0, 2.0), (-1.0, 1.0)]
      >>> points = critical_points(f, grid_of_starts(bounds, 4), bounds)
      >>> [(p.kind, p.x.round(6).tolist()) for p in points]
      [('minimum', [1.0, 0.0]), ('saddle', [-1.0, 0.0])]
      >>> points.starts, points.converged
      (16, 16)
    """
    check_callable("f", f, "x")
    refuse_traced("critical_points", starts=starts, bounds=bounds)
    check_numbers("separation", separation)
    check_number("prove_seconds", prove_seconds)
    starts, bounds = _checked(starts, bounds)
    widths = bounds[:, 1] - bounds[:, 0]
    separation = _separation(separation, widths)
    unit = power_of_two(widths)
    land = Landscape(f, unit, starts.dtype)
    with np.errstate(all="ignore"):  # Values that are not finite are counted.
        points, counts = found_points(
            land, starts / unit, bounds / unit[:, None], separation / unit
        )
        made = described(land, points)
    found = CriticalPoints(sorted(made, key=lambda point: point.value), **counts)
    if prove_seconds:
        proved = certified_critical_points(f, bounds, seconds=prove_seconds)
        away = _distances(proved.points, found, separation)
        found.missed = len(away) - _pairs(away)
        inside = (_distances(proved.undecided, found, separation) <= 1).any(axis=1)
        found.unexplored, found.around = int(np.sum(~inside)), int(np.sum(inside))
    return found


def _distances(
    boxes: Sequence[Any], found: CriticalPoints, unit: np.ndarray
) -> Float[np.ndarray, "boxes points"]:
    """Return the distance of each box from each point, 0 for a point in the box.

    The distance is the largest of the distances in each coordinate, in units of `unit`.
    """
    shape = (len(boxes), 1, len(unit))
    low, high = (
        np.array([getattr(box, end) for box in boxes]).reshape(shape)
        for end in ("low", "high")
    )
    x = np.array([point.x for point in found]).reshape(1, len(found), len(unit))
    return (np.maximum(0.0, np.maximum(low - x, x - high)) / unit).max(axis=2)


def _pairs(away: Float[np.ndarray, "boxes points"]) -> int:
    """Return the number of pairs of a box and a point at a distance of at most 1.

    Each box contains one critical point, so no box and no point is in two pairs. The
    closest pairs are formed first.

    Args:
      away: Distance of each box from each point.
    """
    left, count = np.where(away <= 1, away, np.inf), 0
    while left.size and np.isfinite(left).any():
        box, point = np.unravel_index(np.argmin(left), left.shape)
        left[box], left[:, point], count = np.inf, np.inf, count + 1
    return count


def classify_critical_point(
    f: Callable[..., Any], x: Any, *, tolerance: float = 1e-6, scale: Any = None
) -> CriticalPoint:
    """Classify the critical point x as minimum, maximum, saddle or degenerate.

    If all eigenvalues of the Hessian at x are reliable, their signs give the kind:
    "minimum", "maximum" or "saddle". Otherwise the kind is "degenerate", and the note
    of the result says what else is known about the point.

    The Hessian at x predicts how the gradient changes around x. An eigenvalue of the
    Hessian is *reliable* if two conditions hold:

    - The prediction is correct along its eigenvector, at distances from x of at least
      four times the Newton step. Such distances are needed because the exact critical
      point is about one Newton step away from x.
    - The eigenvalue is much larger than its rounding error. To measure this error, f is
      also evaluated with an artificial, larger rounding error in each operation.

    There are three cases:

    - All eigenvalues are reliable. Then their signs give the kind.
    - Only some eigenvalues are reliable, but these have both signs. Then the kind is
      "degenerate", and the note says that the point is a saddle.
    - Otherwise the kind is "degenerate", and samples of f decide what the note says.

    The samples lie on both sides of x at many distances. The change of f between x and
    a sample is computed in two ways. One is the integral of the gradient, in which no
    digits cancel. The other is the difference of the values of f, which also shows
    jumps of f. The decision uses the smallest distances at which the change of f
    exceeds its rounding error. If f has a curved valley or ridge, the samples follow
    the valley or ridge. The note says "undecided" in these cases:

    - The samples do not decide.
    - The Hessian is not finite.
    - x lies on a curve of minimum points.
    - The dtype of x is narrower than float64, and the Hessian in float64 shows another
      kind than the samples.

    x may lie a little beside the critical point, for example if x is the result of a
    minimiser. If an eigenvalue changes a lot over the Newton step from x, or if the
    samples around x do not decide, Newton's steps lead from x to a better point. The
    result then describes this point.

    The distances of the samples from x go from about `scale` / 2 down to about 1e-72
    times `scale` in float64, and to 1e-18 times `scale` in float32. They are never
    below the spacing of the floats at x. So a rough value of `scale` is enough. If a
    distance r is very small, a term such as r² in f may be rounded to 0 in the
    precision of f. At such distances, the prediction of the Hessian does not count as
    correct.

    Samples cannot show everything:

    - If a term outweighs the others only at distances that are smaller than those of
      the samples, the term is not seen. An example is 1e-80 x³ in x⁴ + 1e-80 x³. Far
      from 0, a term is also not seen if it outweighs the others only within about fifty
      spacings of the floats at x.
    - If f is sampled in several directions, the samples may miss a sector of directions
      that is narrower than about 0.02 radians. In this sector, f may change
      differently.
    - If f changes like a power of the distance, and the exponent is within 0.03 of a
      whole number, as in |x|^4.02, the exponent counts as this whole number.

    Args:
      f: Function of an array of shape (n,) that returns one real number.
      x: Critical point, shape (n,), or () for a function of one number.
      tolerance: Largest ratio of two norms for which x counts as a critical point: the
        norm of the gradient at x, divided by the largest norm of the gradient at points
        within a tenth of `scale` around x.
      scale: Length over which f changes: a number, or an array of shape (n,) with one
        length for each coordinate. None means 1 + |x_i| for coordinate i.
    Returns:
      The `CriticalPoint`.
    Raises:
      ValueError: x is not a critical point (the message shows the norm of the
        gradient), x is empty, x or f(x) is not finite, scale or tolerance is not
        positive, or scale has another shape than x.
      TypeError: x does not consist of real numbers, or tolerance is not a real number.
      NotInexactError: x is not floating or has more than one axis, or the value of f is
        not floating.
      NotScalarError: f does not return one number.
    Example:
      >>> f = lambda x: x[0] ** 4 + x[1] ** 2
      >>> point = classify_critical_point(f, jnp.zeros(2))
      >>> point.kind, point.order, point.note
      ('degenerate', 4, 'a minimum by the fourth derivative')
    """
    check_callable("f", f, "x")
    refuse_traced("classify_critical_point", x=x)
    check_number("tolerance", tolerance)
    given = _checked_point(x)
    x = np.atleast_1d(given)
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive; got tolerance={tolerance}.")
    land = Landscape(
        f,
        power_of_two(_scale(scale, x)),
        x.dtype,
        "classify_critical_point",
        of_number=not given.ndim,
    )
    y = x.astype(float) / land.unit
    with np.errstate(all="ignore"):  # Values that are not finite do not decide.
        value = float(land.at(y[None])[0][0])
        if not np.isfinite(value):
            raise ValueError(
                f"f must be finite at x; got f(x)={value} at x={x.tolist()}. A branch "
                "of jnp.where may be NaN there."
            )
        length, most = _slopes(land, y)
        if length and not length <= tolerance * most:
            raise ValueError(
                f"x must be a critical point of {title(f)}; its gradient has length "
                f"{length:.3g} there and {most:.3g} around it. Find one with "
                "critical_points(f, starts, bounds)."
            )
        point = judged(land, *settled(land, y))
        if length and (point.evidence is None or not point.evidence.kind):
            zero = zero_of_gradient(land, point.y, point.curvature)
            if zero is None:
                raise ValueError(
                    f"x must be a critical point of {title(f)}; its gradient is short "
                    f"there ({length:.3g}), but no zero of the gradient was found near "
                    "x. Find one with critical_points(f, starts, bounds)."
                )
            if zero[0] is not point.y:
                point = judged(land, *zero)
        return described(land, [point])[0]


def _checked_point(x: Any) -> np.ndarray:
    """Return x as an array of shape (n,) or () whose numbers are finite."""
    if jax.tree.structure(x) != jax.tree.structure(0) and not isinstance(
        x, list | tuple
    ):
        raise TypeError(
            f"x must be one array of shape (n,); got {tree_described(x)}. Flatten it: "
            "flat, unravel = jax.flatten_util.ravel_pytree(x). Then pass flat, and "
            "lambda flat: f(unravel(flat)) as f."
        )
    check_numbers("x", x)
    x = np.asarray(x) if not isinstance(x, jax.Array) else x
    if not jnp.issubdtype(x.dtype, jnp.floating) or x.ndim > 1:
        raise NotInexactError(
            f"x must be floating numbers of shape (n,); got dtype {x.dtype}, shape "
            f"{x.shape}."
        )
    x = np.asarray(x)
    x = x.astype(jax.dtypes.canonicalize_dtype(x.dtype))  # float32 without x64.
    if not x.size:
        raise ValueError("x must have at least one coordinate; got shape (0,).")
    if not np.isfinite(x.astype(float)).all():
        raise ValueError(f"x must be finite; got x={np.atleast_1d(x).tolist()}.")
    return x


def grid_of_starts(
    bounds: Any, per_axis: int | Sequence[int]
) -> Float[np.ndarray, "k n"]:
    """Return a lattice of starting points: the centres of equal boxes in the bounds.

    Args:
      bounds: (low, high) of each coordinate, shape (n, 2).
      per_axis: Number of points on each axis: one number for all axes, or a list with
        one number for each axis.
    Returns:
      The points, shape (k, n). k is the product of the numbers of points on the n axes.
    Raises:
      ValueError: bounds is not finite or does not have shape (n, 2), a number in
        per_axis is not positive, per_axis does not have n numbers, or k points do not
        fit into memory.
      TypeError: bounds or per_axis is not an array of numbers.
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
            "bounds must be finite numbers (low, high) for each coordinate, shape (n, "
            "2), and per_axis one number or n numbers; got bounds of shape "
            f"{bounds.shape} and per_axis={per_axis!r}."
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
            "bounds must have the shape (n, 2), (low, high) with low < high for each "
            f"coordinate; got {bounds.tolist()}."
        )
    if not np.isfinite(bounds).all():
        raise ValueError(
            "bounds must be finite, because their widths are the units of length; got "
            f"{bounds.tolist()}."
        )
    if starts.ndim != 2 or starts.shape[1] != len(bounds) or not len(starts):
        raise ValueError(
            f"starts must have shape (k, {len(bounds)}), one row for each start; got "
            f"{starts.shape}. Pass [x] for one start, or grid_of_starts(bounds, "
            "per_axis)."
        )
    if not np.isfinite(np.asarray(starts)).all():
        raise ValueError(
            "starts must be finite, but some are NaN or infinite. Remove them."
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
    """Convert the separation to one number for each coordinate."""
    given = np.asarray(separation, float)
    if (
        given.shape not in ((), widths.shape)
        or not (given > 0).all()
        or not np.isfinite(given).all()
    ):
        raise ValueError(
            "separation must be positive: one number in units of the bounds' widths, "
            f"or {len(widths)} numbers in the coordinates' units; got "
            f"separation={separation}."
        )
    return given * widths if given.ndim == 0 else given


def _scale(scale: Any, x: np.ndarray) -> np.ndarray:
    if scale is None:
        return 1 + np.abs(x.astype(float))
    check_numbers("scale", scale)
    given = np.asarray(scale, float)
    if (
        given.shape not in ((), x.shape)
        or not (given > 0).all()
        or not np.isfinite(given).all()
    ):
        raise ValueError(
            f"scale must be positive, one number or {x.size} of them; got "
            f"scale={scale}."
        )
    return np.broadcast_to(given, x.shape)


def _slopes(land: Landscape, y: np.ndarray) -> tuple[float, float]:
    """Return the length of the gradient at y, and the largest finite one nearby."""
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
