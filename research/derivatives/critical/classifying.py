"""Classification of a critical point by its Hessian or by samples of f around it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from research.derivatives.critical.curvature import Curvature
from research.derivatives.critical.landscape import Landscape
from research.derivatives.critical.sampling import Evidence, evidence

# Radii of the first balls in which the change of the Hessian is sampled, in units of
# the landscape.
COARSE = 2.0 ** np.arange(2, -42, -2)
# Finer radii, relative to the largest coarse radius that the Hessian's change allows.
FINE = 2.0 ** (np.arange(8, -1, -1) / 4)
SAMPLES = 24  # Number of pairs of opposite directions.
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
    """A point where the gradient vanishes.

    Attributes:
      x: Coordinates of the point, shape (n,).
      value: f(x).
      gradient_norm: Norm of the gradient at x.
      eigenvalues: Eigenvalues of the Hessian, ascending, shape (n,).
      kind: "minimum", "maximum", "saddle", or "degenerate". It is "degenerate" if an
        eigenvalue is zero, or if the gradient around x does not confirm an eigenvalue.
      newton_radius: *Estimate* of the distance within which Newton's method converges
        to this point. The estimate is 2 / (3 β L), where β = ‖H⁻¹‖ for the Hessian H at
        x, and L estimates the Lipschitz constant of the Hessian from samples around x.
        L is not a bound, so the estimate is not a guarantee. If the Hessian is
        singular, `newton_radius` is 0.
      order: Order of the derivatives that decide the kind: 2, 3 or 4. It is 0 if higher
        derivatives or values of f decide, or if the kind is undecided.
      note: For a degenerate point, a text with the kind and the reason. The text starts
        with "a minimum", "a maximum", "a saddle", "no extremum" or "undecided". For any
        other point, "".
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
    """A critical point in the units of the landscape, with the evidence for its kind.

    Attributes:
      y: Coordinates of the point, shape (n,).
      curvature: Curvature at the point; None if the Hessian is not finite.
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
    """Return the point y with the evidence for its kind, and sample f if necessary."""
    if (
        curvature is None
        or not curvature.loose.shape[1]
        or len({*curvature.signs}) == 2
    ):
        return Judged(y, curvature, None)
    return Judged(y, curvature, evidence(land, y, curvature))


def described(land: Landscape, point: Judged) -> CriticalPoint:
    """Classify a point, and convert it to the coordinates of f."""
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
    radius = _newton_radius(land, point.y, hessian) if point.regular else 0.0
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
        if np.isfinite(proof.power) and abs(proof.power - round(proof.power)) < 0.1
        else 0
    )
    if proof.smooth and power == 3 and proof.kind == "no extremum":
        return "degenerate", 3, "no extremum: the third derivative does not vanish"
    name = proof.kind if proof.kind == "no extremum" else f"a {proof.kind}"
    if proof.smooth and power == 4 and proof.kind != "no extremum":
        return "degenerate", 4, f"{name} by the fourth derivative"
    like = (
        f", like the {POWERS[power]}" + (" of the distance" if power > 1 else "")
        if power in POWERS
        else ""
    )
    return "degenerate", 0, f"{name}: {HOW[proof.kind]}{like}"


def _newton_radius(land: Landscape, y: np.ndarray, hessian: np.ndarray) -> float:
    """Return the largest radius r with r <= 2 / (3 β L), as in `_largest`.

    The radius is 0 if no tested radius fulfils the condition.
    """
    best = _largest(land, y, hessian, float(land.unit.min()) * COARSE, SAMPLES // 4)
    return _largest(land, y, hessian, best * FINE, SAMPLES) or best / 4 if best else 0.0


def _largest(
    land: Landscape, y: np.ndarray, hessian: np.ndarray, radii: np.ndarray, samples: int
) -> float:
    """Return the largest of the radii r with r <= 2 / (3 β L), or 0.

    β is the norm of the inverse Hessian at y. L is the largest value of ‖H(z) - H(y)‖ /
    r among samples z at the distance r.
    """
    unit = land.unit.astype(float)
    least = np.abs(np.linalg.eigvalsh(hessian / unit / unit[:, None])).min()
    ways = np.random.default_rng(0).normal(size=(samples, y.size))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    ways = np.concatenate([ways, -ways])
    points = y + (radii[:, None, None] * ways / unit).reshape(-1, y.size)
    change = (land.hessians(points)[2] - hessian) / unit / unit[:, None]
    finite = np.isfinite(change).all(axis=(1, 2))
    norms = np.linalg.norm(np.where(finite[:, None, None], change, 0.0), 2, axis=(1, 2))
    lipschitz = (
        np.where(finite, norms, np.inf).reshape(len(radii), -1).max(axis=1) / radii
    )
    # The condition must hold in all smaller balls, too.
    fits = np.logical_and.accumulate((3 * lipschitz * radii <= 2 * least)[::-1])[::-1]
    return float(radii[fits][0]) if fits.any() else 0.0
