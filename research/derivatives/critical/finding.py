"""Search for critical points from many starts, and grouping of the end points."""

import numpy as np
from jaxtyping import Float

from research.derivatives.critical.classifying import Judged, judged
from research.derivatives.critical.curvature import (
    CHANGE,
    Curvature,
    curvatures,
    unit_columns,
)
from research.derivatives.critical.landscape import Landscape
from research.derivatives.critical.sampling import LEVEL, ON_SOME_SIDE, UNSURE
from research.derivatives.critical.walking import (
    ARRIVED,
    Walks,
    length,
    lengthened,
    newton_lengths,
    walks,
)

# A gradient below ε to this power (2e-9) times the longest one at a start may be 0.
FLAT = 0.55
# If a gradient remains, its change must exceed SMALL times the gradient at some of
# these distances on both sides. On a slope or in a tail it does not.
NEAR = 2.0 ** -np.arange(5, 45)
SMALL = 8.0
# f is constant around a point if it is so up to this distance, in the same units.
PLATEAU = 2.0**-12
TINY = 1e-5  # A coordinate below this, in the landscape's units, may be 0.
# A Newton step below this, in the landscape's units, has converged, and two ends of
# searches that are closer are one point.
CLOSE = 1e-9
ROUNDED = 16.0  # A gradient below this many rounding errors counts as 0.
# Largest number of steps that show whether a remaining gradient goes to 0.
GOING_ON = 16
SETTLING = 4  # Largest number of Newton steps before a given point is classified.
FATES = ("converged", "flat", "not_finite", "outside", "stalled")


def found_points(
    land: Landscape,
    starts: Float[np.ndarray, "k n"],
    bounds: Float[np.ndarray, "n 2"],
    separation: Float[np.ndarray, "n"],
) -> tuple[list[Judged], dict[str, int]]:
    """Return the distinct critical points in the bounds, and counts of the outcomes.

    At a critical point, the gradient of f is 0. Several runs of Newton's method are
    made for each starting point (`walks`). All lengths are in the scaled coordinates of
    `Landscape`. The outcome of a starting point is the first one in this list that
    applies:

    - "converged": a run reaches a critical point.
    - "flat": a run ends where f is constant, or changes by less than its rounding
      errors.
    - "not_finite": a run reaches a point where f or a derivative is not finite.
    - "outside": all runs end outside the bounds.
    - "stalled": none of these.

    Args:
      land: The function f in scaled coordinates.
      starts: Starting points, shape (k, n).
      bounds: (low, high) of each coordinate, shape (n, 2).
      separation: Smallest distance between two different points, for each coordinate,
        shape (n,).
    Returns:
      (points, counts). The list `points` has a `Judged` for each critical point. The
      dict `counts` has the number of starting points for each outcome.
    """
    led = walks(land, starts)
    ends, slope = _snapped(
        land,
        np.concatenate([walk.ends for walk in led]),
        np.concatenate([walk.slope for walk in led]),
        separation,
    )
    inside = _is_inside(land, ends, bounds)
    longest = np.linalg.norm(
        np.nan_to_num(land.at(starts)[1], posinf=0, neginf=0), axis=1
    ).max()
    short = slope <= land.eps**FLAT * longest
    hopeful = np.isfinite(slope) & inside
    hopeful[hopeful] = short[hopeful] | (newton_lengths(land, ends[hopeful]) <= ARRIVED)
    group, leaders = _groups(ends, slope, hopeful, separation)
    points, fates = _judged_leaders(
        land,
        ends[leaders],
        short[leaders],
        group.reshape(len(led), -1),
        separation,
        bounds,
    )
    fate = np.array([*fates, ""], object)[group].reshape(len(led), -1)
    inside = inside.reshape(len(led), -1) & (fate != "outside")
    return points, _counts(led, fate, inside)


def _is_inside(land: Landscape, y: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return whether points lie inside the bounds, up to rounding errors."""
    slack = 64 * land.eps * np.abs(bounds).max(axis=1)
    return ((y >= bounds[:, 0] - slack) & (y <= bounds[:, 1] + slack)).all(axis=-1)


def _snapped(
    land: Landscape, ends: np.ndarray, slope: np.ndarray, separation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Set tiny coordinates of end points to 0 if that does not lengthen the gradient.

    Near a degenerate point, Newton's method cannot make these coordinates smaller. A
    tiny coordinate is at most half the separation, so two points that are farther apart
    than the separation remain two points.

    Returns:
      (points, lengths of their gradients).
    """
    tiny = np.minimum(TINY, separation / 2)
    snapped = np.where(np.abs(ends) <= tiny, 0.0, ends)
    there = length(*land.at(snapped)[:2])
    better = there <= slope
    return np.where(better[:, None], snapped, ends), np.where(better, there, slope)


def _groups(
    ends: np.ndarray, slope: np.ndarray, hopeful: np.ndarray, separation: np.ndarray
) -> tuple[np.ndarray, list[int]]:
    """Form groups: a leader and the end points closer to it than the separation.

    Returns:
      (group number of each point, index of the leader of each group). The leader of a
      group is the point with the shortest gradient. A point that cannot be critical has
      the group number -1.
    """
    group, leaders = np.full(len(ends), -1), []
    order = np.argsort(slope, kind="stable")
    left = order[hopeful[order]]
    while left.size:
        apart = (ends[left[0]] - ends[left]) / separation
        near = np.linalg.norm(apart, axis=1) <= 1
        group[left[near]] = len(leaders)
        leaders.append(int(left[0]))
        left = left[~near]
    return group, leaders


def _judged_leaders(
    land: Landscape,
    y: np.ndarray,
    short: np.ndarray,
    group: np.ndarray,
    separation: np.ndarray,
    bounds: np.ndarray,
) -> tuple[list[Judged], list[str]]:
    """Return the critical points among the groups' leaders, and each group's outcome.

    The leader of a group of end points is the one with the shortest gradient. A
    degenerate leader is classified only if one of the starts of its group has not
    reached a critical point yet. So a curve of degenerate points gives at most one
    point for each start. A regular leader counts only if Newton's step from it is
    short, or its gradient is a rounding error. Otherwise something stands between the
    leader and the zero of the gradient, such as a NaN or a kink.
    """
    points, fates, reached = [], [""] * len(y), np.zeros(group.shape[1], bool)
    known = curvatures(land, y) if len(y) else []
    regular = [
        curvature is not None and not curvature.loose.shape[1] for curvature in known
    ]
    for i in sorted(range(len(y)), key=lambda i: not regular[i]):
        members, zero = (group == i).any(axis=0), (y[i], known[i])
        if not regular[i]:
            if reached[members].all():
                continue
            if _constant(land, y[i], known[i]):
                fates[i] = "flat"
                continue
            zero = zero_of_gradient(land, y[i], known[i]) if short[i] else None
        else:
            zero = _converged(land, y[i], known[i])
        if zero is None:
            continue
        if not _is_inside(land, zero[0], bounds):  # The search had stopped early.
            fates[i] = "outside"
            continue
        if not any(
            _is_same(zero[0], point)
            or (zero[0] is not y[i] and np.abs(zero[0] - point.y).max() <= CLOSE)
            or (not regular[i] and _is_near(zero[0], point, separation))
            for point in points
        ):
            point = judged(land, *zero)
            if _is_level(point):
                fates[i] = "flat"
                continue
            points.append(point)
        fates[i] = "converged"
        reached |= members
    return points, fates


def _is_level(point: Judged) -> bool:
    """Return whether the gradient is not 0, but rounding hides every change of f there.

    An example is tanh near 18, where the gradient is short, but nowhere 0. On a curve
    of minimum points, f changes in the firm directions.
    """
    found, curvature = point.evidence, point.curvature
    if curvature is None or curvature.signs.size or not curvature.gradient.any():
        return False
    reasons = (LEVEL, ON_SOME_SIDE, UNSURE)
    return bool(found and not found.kind and found.reason in reasons)


def _is_same(y: np.ndarray, point: Judged) -> bool:
    """Return whether rounding hides the distance of y from a known degenerate point."""
    return bool(point.evidence and np.abs(y - point.y).max() <= point.evidence.distance)


def _is_near(y: np.ndarray, point: Judged, separation: np.ndarray) -> bool:
    """Return whether y is closer to a known point than the separation."""
    return bool(np.linalg.norm((y - point.y) / separation) <= 1)


def _neighbours(
    land: Landscape, y: np.ndarray, ways: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evaluate f and its gradient at small distances from y, along ±ways.

    Returns:
      (steps, values, gradients), each of shape (2, directions, distances, ...).
    """
    steps = NEAR[None, None, :, None] * np.stack([ways, -ways])[:, :, None, :]
    value, slope, _ = land.at(y + steps.reshape(-1, len(y)))
    return steps, value.reshape(steps.shape[:3]), slope.reshape(steps.shape)


def _constant(land: Landscape, y: np.ndarray, curvature: Curvature | None) -> bool:
    """Return whether f is constant around the point y, up to the distance PLATEAU.

    f may change at larger distances.
    """
    if curvature is None or curvature.gradient.any() or curvature.hessian.any():
        return False
    _, value, slope = _neighbours(land, y, np.eye(len(y)))
    near = NEAR <= PLATEAU
    is_level = (value == curvature.value)[:, :, near].all()
    return bool(is_level and not slope[:, :, near].any())


def zero_of_gradient(
    land: Landscape, y: np.ndarray, curvature: Curvature | None
) -> tuple[np.ndarray, Curvature | None] | None:
    """Return a point where the gradient vanishes: y itself, or a point close to y.

    y is the end of a search for a critical point. A direction is loose if the Hessian
    is singular in this direction, or if the gradient around y does not change along
    this direction as the Hessian predicts (see `Curvature`). The gradient counts as 0
    at a point if its component in every loose direction is at most 16 times the
    estimated rounding error of this component. There are four cases:

    - The Hessian at y is not finite (`curvature` is None). Then y is returned without a
      test.
    - The gradient at y counts as 0. Then y is returned.
    - The gradient at y does not count as 0, and its component in some loose direction
      changes little around y. This means: at each tested distance in this direction, on
      at least one side of y, the component differs from its value at y by less than 8
      times the absolute value at y. Then y lies on a slope, and the result is None.
    - Otherwise the search may have stopped early, because it converges slowly to a zero
      of higher multiplicity. So at most 16 further steps are made, each a multiple of
      Newton's step (`lengthened`). The first point where the gradient counts as 0 is
      returned. If no such point is reached by steps that are short and shorten the
      gradient, the result is None.

    Returns:
      (the point, its curvature), or None if there seems to be no such point. An example
      is f(x) = x³/3 + 1e-9 x near x = 0, where the gradient is small but nowhere 0.
    """
    if curvature is None or _is_rounding(land, y, curvature):
        return y, curvature
    left = np.abs(curvature.loose.T @ curvature.gradient)
    ways, _ = unit_columns(curvature.loose)
    _, _, slope = _neighbours(land, y, ways.T)
    change = np.abs(
        np.einsum("swrn,nw->swr", slope - curvature.gradient, curvature.loose)
    )
    grown = np.where(np.isfinite(change), change, 0.0).min(axis=0).max(axis=1)
    if not (SMALL * left <= grown).all():
        return None
    for _ in range(GOING_ON):
        there = lengthened(land, y)
        if there is None or np.abs(there - y).max() > ARRIVED:
            return None
        y, (curvature,) = there, curvatures(land, there[None])
        if curvature is None:
            return None
        if _is_rounding(land, y, curvature):
            return y, curvature
    return None


def settled(land: Landscape, y: np.ndarray) -> tuple[np.ndarray, Curvature | None]:
    """Return a point and its curvature: y, or the point where Newton steps from y end.

    y is a point with a short gradient. It may lie a little beside the critical point.
    Then some eigenvalues of the Hessian may have other signs at y than at the critical
    point. An example is a point y beside a curve of minimum points.

    A direction is firm if the Hessian is not singular in this direction, and the
    gradient around y changes along this direction as the Hessian predicts (see
    `Curvature`). A Newton step from y in the firm directions leads to a new point. The
    new point replaces y if three conditions hold:

    - The Hessian at the new point is finite.
    - The gradient at the new point is shorter than at y.
    - In a firm direction, the curvature at the new point differs from that at y by more
      than 25 %, or the new point has more firm directions than y.

    The same is then done from the new point. There are at most four such steps.
    """
    (curvature,) = curvatures(land, y[None], wary=True)
    for _ in range(SETTLING):
        if curvature is None or not curvature.signs.size:
            break
        firm = curvature.firm
        step = firm @ (curvature.signs * (firm.T @ curvature.gradient))
        there = land.rounded(y - step).astype(float)
        (moved,) = curvatures(land, there[None], wary=True)
        if moved is None or not _is_shorter(moved.gradient, curvature.gradient):
            break
        change = np.einsum("ik,ij,jk->k", firm, moved.hessian - curvature.hessian, firm)
        if (np.abs(change) <= CHANGE).all() and len(moved.signs) <= len(firm.T):
            break
        y, curvature = there, moved
    return y, curvature


def _is_shorter(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.linalg.norm(one) < np.linalg.norm(other))


def _is_rounding(land: Landscape, y: np.ndarray, curvature: Curvature) -> bool:
    """Return whether the gradient is a rounding error in all loose directions."""
    left = np.abs(curvature.loose.T @ curvature.gradient)
    return bool((left <= _rounding(land, y, curvature, curvature.loose)).all())


def _converged(
    land: Landscape, y: np.ndarray, curvature: Curvature | None
) -> tuple[np.ndarray, Curvature | None] | None:
    """Return the zero of the gradient at a regular end of a search, with its curvature.

    An end y is regular if the gradient around y confirms every eigenvalue of the
    Hessian. The end counts if Newton's step from y is below TINY, or if the gradient at
    y is a rounding error. A search stops after a number of steps, so it may stop before
    it has converged. More steps are then made as long as they shorten the gradient. If
    the search has converged, the point of the result is y itself.

    Returns:
      (the point, its curvature), or None if the end does not count.
    """
    if curvature is None:
        return y, curvature
    end, step = y, newton_lengths(land, y[None])[0]
    rounding = _rounding(land, y, curvature, np.eye(len(y)))
    if step > TINY and not (np.abs(curvature.gradient) <= rounding).all():
        return None
    for _ in range(GOING_ON):
        there = lengthened(land, end) if step > CLOSE else None
        if there is None or np.abs(there - y).max() > ARRIVED:
            break
        end, step = there, newton_lengths(land, there[None])[0]
    return (y, curvature) if end is y else (end, curvatures(land, end[None])[0])


def _rounding(
    land: Landscape,
    y: np.ndarray,
    curvature: Curvature,
    ways: Float[np.ndarray, "n b"],
) -> Float[np.ndarray, "b"]:
    """Return, for each direction, the largest component of ∇f that counts as 0."""
    return ROUNDED * (
        np.abs(land.noise(y)[0] @ ways).max(axis=0)
        + land.eps * np.abs(ways.T) @ np.abs(curvature.hessian) @ np.abs(y)
    )


def _counts(led: list[Walks], fate: np.ndarray, inside: np.ndarray) -> dict[str, int]:
    """Count the starts by outcome.

    The outcome of a start is the first one in FATES that applies.
    """
    converged, flat = (fate == "converged").any(axis=0), (fate == "flat").any(axis=0)
    broken = np.array([walk.broken for walk in led]).any(axis=0)
    outside = ~inside.any(axis=0)
    out, left = {}, np.ones(len(converged), bool)
    for name, met in zip(
        FATES, (converged, flat, broken, outside, np.ones_like(left)), strict=True
    ):
        out[name] = int((left & met).sum())
        left &= ~met
    return out
