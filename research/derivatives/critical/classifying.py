"""Classification of a critical point by its Hessian or by samples of f around it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from research.derivatives._float64 import in_float64
from research.derivatives.critical.curvature import Curvature, curvatures
from research.derivatives.critical.landscape import Landscape
from research.derivatives.critical.sampling import Evidence, evidence

# Radii of the first balls in which the change of the Hessian is sampled, in units of
# the landscape.
COARSE = 2.0 ** np.arange(2, -42, -2)
# Factors of these radii. The next one is used where no radius is short enough.
LONGEST = (1.0, 2.0**-44, 2.0**-88)
# Finer radii, relative to the largest coarse radius that the Hessian's change allows.
FINE = 2.0 ** (np.arange(8, -1, -1) / 4)
SAMPLES = 24  # Number of pairs of opposite directions.
MOST = (
    2**16
)  # Largest number of rows of f that are evaluated at once for several points.
WHOLE = 0.03  # A power this close to a whole number counts as this number.
POWERS = {
    1: "distance itself",
    2: "square",
    3: "cube",
    4: "fourth power",
    5: "fifth power",
    6: "sixth power",
    8: "eighth power",
}
HOW = {
    "minimum": "f increases on all sides",
    "maximum": "f decreases on all sides",
    "saddle": "f increases along one line or curve and decreases along another",
    "no extremum": "f increases on one side and decreases on another",
}


class CriticalPoint(NamedTuple):
    """A point where the gradient of a function f vanishes.

    Attributes:
      x: Coordinates of the point, shape (n,).
      value: f(x).
      gradient_norm: Norm of the gradient at x.
      eigenvalues: Eigenvalues of the Hessian, ascending, shape (n,). NaN if the Hessian
        is not finite.
      kind: "minimum", "maximum", "saddle", or "degenerate". A point is "degenerate" if
        an eigenvalue of its Hessian is zero up to rounding, if the change of the
        gradient near x does not fit the eigenvalues, or if the Hessian is not finite.
      newton_radius: *Estimate* of the distance from x within which Newton's method
        converges to x, not a guarantee. Let H be the Hessian at x, H(z) the Hessian at
        z, and β = ‖H⁻¹‖. For a distance r, let L(r) be the largest value of
        ‖H(z) - H‖ / r for samples z at the distance r from x. L(r) estimates the
        Lipschitz constant of the Hessian. A tested distance r passes if
        r <= 2 / (3 β L(r)). `newton_radius` is the largest tested distance such that it
        and all shorter tested distances pass. It is 0 for a degenerate point, and if
        the samples give no estimate.
      order: Order of the derivatives that decide what the point is. 2 if the point is
        not degenerate. For a degenerate point: 2 if the Hessian shows a saddle, and 3
        or 4 if the third or fourth derivative decides. Otherwise 0: derivatives of a
        higher order or values of f decide, or nothing decides.
      note: "" if the point is not degenerate. For a degenerate point, a text that says
        what the point is, with the reason. The text starts with "a minimum", "a
        maximum", "a saddle", "no extremum" or "undecided". Here "no extremum" means
        that, along a line or curve through x, f increases on one side and decreases on
        the other.
    """

    x: Float[np.ndarray, "n"]
    value: float
    gradient_norm: float
    eigenvalues: Float[np.ndarray, "n"]
    kind: str
    newton_radius: float
    order: int
    note: str


class Judged(NamedTuple):
    """A critical point of f in scaled coordinates, with the evidence for its kind.

    `Landscape` defines the scaled coordinates.

    Attributes:
      y: Coordinates of the point, shape (n,).
      curvature: `Curvature` at the point; None if the Hessian is not finite.
      evidence: Evidence from samples of f; None if f was not sampled.
    """

    y: np.ndarray
    curvature: Curvature | None
    evidence: Evidence | None

    @property
    def regular(self) -> bool:
        """Whether the gradient confirms every eigenvalue of the Hessian."""
        return self.curvature is not None and self.curvature.loose.shape[1] == 0


def judged(land: Landscape, y: np.ndarray, curvature: Curvature | None) -> Judged:
    """Collect the evidence for the kind of a critical point, such as minimum or saddle.

    The result, a `Judged`, has the point, its Hessian and the evidence from samples of
    f. If the Hessian is finite but does not decide the kind, f is sampled around the
    point. Otherwise f is not sampled, and the evidence is None.

    Args:
      land: The function f in scaled coordinates. `Landscape` defines them.
      y: The critical point in scaled coordinates, shape (n,).
      curvature: `Curvature` at y: the Hessian, and the directions in which the Hessian
        predicts correctly how the gradient changes around y. None if the Hessian is not
        finite.
    """
    if (
        curvature is None
        or not curvature.loose.shape[1]
        or len({*curvature.signs}) == 2
    ):
        return Judged(y, curvature, None)
    found = evidence(land, y, curvature)
    shown = _kind_in_double(land, y) if found.kind not in ("", "flat") else ""
    if shown and shown != found.kind:
        reason = (
            f"values in {land.dtype.name} show {_named(found.kind)}, but the Hessian "
            f"in float64 shows {_named(shown)}"
        )
        found = Evidence("", np.nan, False, 0.0, reason)
    return Judged(y, curvature, found)


def _kind_in_double(land: Landscape, y: np.ndarray) -> str:
    """Return the kind of a critical point that its Hessian in float64 shows.

    Eigenvalues that are rounding errors in a narrower dtype may decide in float64. The
    result is "minimum", "maximum" or "saddle". It is "" if f is already evaluated in
    float64, if f cannot be evaluated in float64, or if the Hessian does not decide.
    """
    if land.eps <= np.finfo(float).eps:
        return ""
    with in_float64():
        try:
            (curvature,) = curvatures(land.in_double, y[None].astype(float))
        except Exception:  # f may not accept float64, in whatever way it says so.
            return ""
    if curvature is None:
        return ""
    signs = {*curvature.signs}
    if len(signs) == 2:
        return "saddle"
    if curvature.loose.shape[1]:
        return ""
    return "minimum" if signs == {1.0} else "maximum"


def described(land: Landscape, points: Sequence[Judged]) -> list[CriticalPoint]:
    """Classify critical points, and convert them to the original coordinates.

    `land` is the function f in scaled coordinates. `points` are critical points in
    these coordinates, from `judged`. The result has a `CriticalPoint` for each of them,
    in the same order.
    """
    regular = [i for i, point in enumerate(points) if point.regular]
    radii = np.zeros(len(points))
    radii[regular] = _newton_radii(land, [points[i] for i in regular])
    return [
        _described(land, *each) for each in zip(points, radii.tolist(), strict=True)
    ]


def _described(land: Landscape, point: Judged, radius: float) -> CriticalPoint:
    unit = land.unit.astype(float)
    if point.curvature is None:
        value, slope, _ = (part[0] for part in land.at(point.y[None]))
        norm, values = float(np.linalg.norm(slope / unit)), np.full(len(unit), np.nan)
        note = "undecided: the Hessian is not finite"
        return CriticalPoint(
            _x(land, point.y), float(value), norm, values, "degenerate", 0.0, 0, note
        )
    value, slope, hessian = point.curvature[:3]
    values = np.linalg.eigvalsh(hessian / unit / unit[:, None])
    kind, order, note = _words(point, point.curvature)
    return CriticalPoint(
        _x(land, point.y),
        float(value),
        float(np.linalg.norm(slope / unit)),
        values,
        kind,
        radius,
        order,
        note,
    )


def _x(land: Landscape, y: np.ndarray) -> np.ndarray:
    return land.rounded(y) * land.unit


def _words(point: Judged, curvature: Curvature) -> tuple[str, int, str]:
    """Return (kind, order, note), as in `CriticalPoint`."""
    signs = {*curvature.signs}
    if point.regular:
        return (
            {frozenset({1.0}): "minimum", frozenset({-1.0}): "maximum"}.get(
                frozenset(signs), "saddle"
            ),
            2,
            "",
        )
    if len(signs) == 2:
        return "degenerate", 2, "a saddle: the Hessian has eigenvalues of both signs"
    proof = point.evidence
    if proof is None or proof.kind in ("", "flat"):
        return (
            "degenerate",
            0,
            f"undecided: {proof.reason if proof else 'nothing was sampled'}",
        )
    power = (
        round(proof.power)
        if np.isfinite(proof.power) and abs(proof.power - round(proof.power)) < WHOLE
        else 0
    )
    if proof.smooth and power == 3 and proof.kind == "no extremum":
        return "degenerate", 3, "no extremum: the third derivative does not vanish"
    name = _named(proof.kind)
    if proof.smooth and power == 4 and proof.kind != "no extremum":
        return "degenerate", 4, f"{name} by the fourth derivative"
    like = (
        f", like the {POWERS[power]}" + (" of the distance" if power > 1 else "")
        if power in POWERS
        else ""
    )
    return "degenerate", 0, f"{name}: {HOW[proof.kind]}{like}"


def _named(kind: str) -> str:
    return kind if kind == "no extremum" else f"a {kind}"


def _newton_radii(land: Landscape, points: Sequence[Judged]) -> Float[np.ndarray, "m"]:
    """Return, for each point, the largest tested r with r <= 2 / (3 β L), or 0.

    `_largest` defines β and L.
    """
    if not points:
        return np.zeros(0)
    y = np.stack([point.y for point in points])
    hessians = np.stack(
        [point.curvature.hessian for point in points if point.curvature]
    )
    best, left = np.zeros(len(y)), np.arange(len(y))
    for longest in LONGEST:
        coarse = np.broadcast_to(
            land.unit.min().astype(float) * longest * COARSE, (len(left), len(COARSE))
        )
        radii = _largest(land, y[left], hessians[left], coarse, SAMPLES // 4)
        # Steps of a few roundings of x show nothing of how the Hessian changes.
        rounding = land.eps * np.abs(y[left] * land.unit.astype(float)).max(axis=1)
        best[left] = np.where(radii > 64 * rounding, radii, 0.0)
        left = left[best[left] == 0]
        if not left.size:
            break
    known = best > 0
    fine = _largest(land, y[known], hessians[known], best[known, None] * FINE, SAMPLES)
    best[known] = np.where(fine > 0, fine, best[known] / 4)
    return best


def _largest(
    land: Landscape,
    y: np.ndarray,
    hessians: np.ndarray,
    radii: np.ndarray,
    samples: int,
) -> np.ndarray:
    """Return the largest of the radii r with r <= 2 / (3 β L), or 0, for each point.

    β is the norm of the inverse Hessian at y. L is the largest value of ‖H(z) - H(y)‖ /
    r among samples z at the distance r.

    Args:
      land: Landscape of f.
      y: Points, shape (m, n).
      hessians: Hessians at the points, shape (m, n, n).
      radii: Radii of each point, descending, shape (m, r).
      samples: Number of pairs of opposite directions.
    """
    m, n = y.shape
    unit = land.unit.astype(float)
    ways = np.random.default_rng(0).normal(size=(samples, n))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    ways = np.concatenate([ways, -ways])
    at_once = max(1, MOST // (radii.shape[1] * len(ways) * n))
    found = np.zeros(m)
    for start in range(0, m, at_once):
        part = slice(start, start + at_once)
        hessian, radius = hessians[part, None], radii[part]
        least = np.abs(np.linalg.eigvalsh(hessians[part] / unit / unit[:, None]))
        points = y[part, None, None] + radius[:, :, None, None] * ways / unit
        there = land.hessians(points.reshape(-1, n))[2]
        there = there.reshape(len(radius), -1, n, n)
        change = (there - hessian) / unit / unit[:, None]
        finite = np.isfinite(change).all(axis=(2, 3))
        norms = np.linalg.norm(
            np.where(finite[..., None, None], change, 0.0), 2, axis=(2, 3)
        )
        norms = np.where(finite, norms, np.inf).reshape(*radius.shape, len(ways))
        lipschitz = norms.max(axis=2) / radius
        fits = 3 * lipschitz * radius <= 2 * least.min(axis=1)[:, None]
        # The condition must hold in all smaller balls, too.
        fits = np.logical_and.accumulate(fits[:, ::-1], axis=1)[:, ::-1]
        largest = radius[np.arange(len(radius)), fits.argmax(axis=1)]
        found[part] = np.where(fits.any(axis=1), largest, 0.0)
    return found
