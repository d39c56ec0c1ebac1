"""Test whether gradients around a point confirm the eigenvalues of its Hessian."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from research.derivatives.critical.landscape import Landscape

# Radii at which the gradient is compared with the Hessian. The range is wide, so that
# the scale of f need not be known.
RADII = 2.0 ** -np.arange(0, 110)
# If the Hessian nearby exceeds LARGER / √ε times an eigenvalue, rounding errors may
# decide: the eigenvalue may be one, or they may have split a multiple zero of the
# gradient into simple ones.
LARGER = 2.0**-10
CLEAR = 8.0  # Such an eigenvalue must exceed this many times its noise.
# The Hessian is confirmed at a radius if it predicts the gradient's change up to this
# relative error.
CHANGE = 0.25
# Number of consecutive radii, each half of the last, that must confirm the Hessian.
RUN = 3
# Largest allowed ratio of the remaining Newton step, with its rounding error, to the
# largest confirmed radius.
NEWTON = 0.25
# Steps that rounding changes by more than this fraction are not used.
REPRESENTED = 0.02
# At a break of f, the height of the break is the same at all small distances: over so
# many octaves, up to this fraction.
OCTAVES, SAME = 12, 0.02
# Where the gradient is not differentiable, its change from one side of the point to the
# other is a power of the distance from 0 to 1: the exponent varies by less than this.
STEADY = 0.15
# An error of the slope with this power of the distance or more belongs to a gradient
# that is Lipschitz continuous. Rounding may change a power of 1 a little.
LEAST_SMOOTH = 0.98


class Curvature(NamedTuple):
    """Hessian at a point y, split into firm and loose directions.

    The directions are eigenvectors of the Hessian H at y, in coordinates that are
    scaled so that all rows of H are about equally large (`equilibrium`). Let d be a
    unit vector in such a direction, and let λ = dᵀ H d. From y to y + r d, H predicts
    that the derivative of f along d changes by λ r. The direction is firm if the
    gradients around y confirm this prediction, and loose otherwise. The prediction must
    be correct up to 25 % at three distances r, r / 2 and r / 4, on both sides of y. The
    distances must be at least four times the Newton step along d, because the exact
    critical point is about one Newton step away from y. Even so, the direction is loose
    in four cases:

    - λ may be a rounding error: |λ| is at most 8 times its measured rounding error, or
      the eigenvalue in the scaled coordinates is at most 10 ε times the largest one in
      absolute value. Here ε is the relative spacing of the floats.
    - At four consecutive distances, the derivative changes by about -λ r, and the
      prediction is not confirmed at shorter distances.
    - Values of f contradict the gradients, or f is rough along d (`is_rough`).
    - H predicts the gradients along sums of firm directions wrongly, as at a kink of f,
      or f is rough along such a sum. Then all directions are loose.

    Attributes:
      value: f(y).
      gradient: ∇f(y), shape (n,).
      hessian: Hessian at y, shape (n, n).
      signs: Sign, 1 or -1, of the eigenvalue in each firm direction, shape (a,), where
        a is the number of firm directions.
      firm: Firm directions as columns, shape (n, a). The length of a column d is such
        that dᵀ H d is 1 or -1, where H is `hessian`.
      loose: Loose directions as columns, shape (n, n - a).
      radius: For each firm direction, the largest distance r at which the prediction is
        confirmed, divided by the length of the column of `firm`, shape (a,).
      is_rough: Whether, along at least one line through y, f jumps at y, or the
        gradient of f jumps at y or is not Lipschitz continuous there. The tested lines
        have the directions of the eigenvectors and of sums of eigenvectors.
    """

    value: float
    gradient: Float[np.ndarray, "n"]
    hessian: Float[np.ndarray, "n n"]
    signs: Float[np.ndarray, "a"]
    firm: Float[np.ndarray, "n a"]
    loose: Float[np.ndarray, "n b"]
    radius: Float[np.ndarray, "a"]
    is_rough: bool


def curvatures(
    land: Landscape, points: Float[np.ndarray, "m n"], wary: bool = False
) -> list[Curvature | None]:
    """Return the `Curvature` at each point, or None where the Hessian is not finite.

    Args:
      land: The function f in scaled coordinates.
      points: Points, shape (m, n).
      wary: Whether to measure the rounding errors of the Hessian at every point. If
        False, these errors are measured only at points where rounding errors may decide
        the sign of an eigenvalue. This is so if, at some distance on both sides of the
        point, the derivative of f along the eigenvector changes by more than 2^-10 / √ε
        times as much as the eigenvalue predicts. Here ε is the relative spacing of the
        floats, so this factor is 65536 in float64.
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
    scaled = scale[:, None] * hessian * scale
    spectrum, vectors = np.linalg.eigh(scaled)
    vectors = scale[:, None] * vectors
    # In these units, the largest entries of H are about 1, also where H_ii is 0.
    with np.errstate(divide="ignore"):  # The Hessian may be 0.
        units = scale / np.sqrt(np.abs(scaled).max())
    around = functools.partial(_mismatch, land, y, value, gradient, hessian, units)
    size = np.abs(spectrum)
    candidates = np.flatnonzero(size > 10 * land.eps * size.max())
    # Beside a flat direction, the scale of a steep one is so small that the steps would
    # be shorter than the Newton step. As unit vectors, both have the same steps.
    ways, lengths = unit_columns(vectors)
    spectrum, size = spectrum / lengths / lengths, size / lengths / lengths
    radius = np.zeros(len(y))
    checked = _by_direction(around, ways[:, candidates], spectrum[candidates], land.eps)
    noise, unsure = np.zeros(len(y)), np.zeros(len(y))
    if wary or any(suspect for _, _, suspect, _ in checked):
        of_gradient, of_hessian = land.noise(y)
        unsure = np.abs(of_gradient @ ways).max(axis=0)
        noise = CLEAR * np.abs(np.einsum("ik,mij,jk->mk", ways, of_hessian, ways)).max(
            axis=0
        )
    is_rough = any(rough for *_, rough in checked)
    for k, (ratio, opposed, *_) in zip(candidates, checked, strict=True):
        newton = (abs(ways[:, k] @ gradient) + unsure[k]) / size[k]
        radius[k] = 0.0 if opposed or size[k] <= noise[k] else _confirmed(ratio, newton)
    sure = radius > 0
    firm = ways[:, sure] / np.sqrt(size[sure])
    if sure.sum() > 1:
        holds, breaks_between = _between(
            around, firm, radius[sure] * np.sqrt(size[sure])
        )
        is_rough |= breaks_between
        if not holds or breaks_between:
            sure = np.zeros_like(sure)
    reach = (radius * np.sqrt(size))[sure]
    return Curvature(
        value,
        gradient,
        hessian,
        np.sign(spectrum[sure]),
        ways[:, sure] / np.sqrt(size[sure]),
        vectors[:, ~sure],
        reach,
        is_rough,
    )


def unit_columns(
    vectors: Float[np.ndarray, "n k"],
) -> tuple[Float[np.ndarray, "n k"], Float[np.ndarray, "k"]]:
    """Return the columns divided by their lengths, and the lengths."""
    largest = np.abs(vectors).max(axis=0)  # Squares of small entries underflow.
    lengths = largest * np.linalg.norm(vectors / largest, axis=0)
    return vectors / lengths, lengths


def equilibrium(
    hessian: Float[np.ndarray, "*k n n"],
) -> Float[np.ndarray, "*k n"]:
    """Return scales s for which all rows of |s_i H_ij s_j| have about the same maximum.

    Each Hessian of a stack gets its own scales. The scales are powers of two, and the
    largest scale is 1. A row of zeros has scale 1.

    References:
      Ruiz, A scaling algorithm to equilibrate both rows and columns norms in matrices,
      2001.
    """
    size = np.abs(hessian)
    scale = np.ones(size.shape[:-1])
    for _ in range(60):
        rows = (scale[..., :, None] * size * scale[..., None, :]).max(axis=-1)
        factor = np.where(rows > 0, 1 / np.sqrt(np.where(rows > 0, rows, 1.0)), 1.0)
        scale = scale * factor
        if (np.abs(np.log2(factor)) < 0.1).all():
            break
    used = size.any(axis=-1)
    largest = np.where(used, scale, 0.0).max(axis=-1, keepdims=True)
    scale = np.where(used, scale / np.where(largest > 0, largest, 1.0), 1.0)
    return np.ldexp(1.0, np.rint(np.log2(scale)).astype(int))


def _mismatch(
    land: Landscape,
    y: np.ndarray,
    value: float,
    gradient: np.ndarray,
    hessian: np.ndarray,
    units: np.ndarray,
    steps: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the errors of the predictions that the Hessian makes for each step d.

    In the given units of the coordinates, the largest entry of each row of H is about
    1. So the squares that f computes from a step d are about as large as the sum of
    (d_i / units_i)². This sum shows whether they may underflow.

    Returns:
      (gradient error, value error, slope, predicted slope), with one entry of each for
      every step. The gradient error is |dᵀ(∇f(y+d) - ∇f(y)) - dᵀHd| for the Hessian H.
      The value error is the distance of f(y+d) from the value that the gradient and H
      predict, or 0 if rounding hides this distance. The slope is dᵀ(∇f(y+d) - ∇f(y)),
      and its prediction is dᵀHd. Here d is the step that floats represent. All four are
      NaN if d differs much from the given step. The gradient error is infinite at
      steps so short that squares may underflow. There, numbers that f compares may seem
      equal, so such steps may contradict the Hessian, but do not confirm it.
    """
    there, d = land.moved(y, steps)
    size = np.linalg.norm(steps, axis=1)
    ok = (
        np.abs(d - steps) <= REPRESENTED * np.abs(steps).max(axis=1, keepdims=True)
    ).all(axis=1) & (size > 0)
    off, values, slope, predicted = np.full((4, len(d)), np.nan)
    if not ok.any():
        return off, values, slope, predicted
    f, g, _ = land.at(there[ok])
    d = d[ok]
    with np.errstate(invalid="ignore", over="ignore"):
        slope[ok] = ((g - gradient) * d).sum(axis=1)
        predicted[ok] = np.einsum("mi,ij,mj->m", d, hessian, d)
        is_large = ((d / units) ** 2).sum(axis=1) >= land.underflow
        off[ok] = np.where(is_large, np.abs(slope[ok] - predicted[ok]), np.inf)
        wrong = np.abs(f - value - d @ gradient - predicted[ok] / 2)
        values[ok] = np.maximum(0.0, wrong - 32 * land.eps * (np.abs(f) + abs(value)))
    return off, values, slope, predicted


def _by_direction(
    around: Callable[..., tuple[np.ndarray, ...]],
    vectors: np.ndarray,
    eigenvalues: np.ndarray,
    eps: float,
) -> list[tuple[np.ndarray, bool, bool, bool]]:
    """Test the eigenvalue λ of each direction against the gradient and values of f.

    Returns:
      For each direction, (mismatch, opposed, suspect, rough):

      - The mismatch is an array with a number for each radius r: the error of the
        predicted gradient, relative to |λ| r², on the side where it is larger.
      - `opposed` is True in three cases. At four consecutive radii, the gradient
        changes as if λ had the other sign, and no smaller radii confirm λ. Or values of
        f contradict the gradient where it confirms λ. Or `rough` is True.
      - `suspect` is True if the gradient changes so much more than λ predicts that
        rounding errors may decide the sign of λ.
      - `rough` is True if f is rough along the direction (`_is_rough`).
    """
    n, count = vectors.shape
    steps = np.concatenate(
        [sign * vectors.T[:, None, :] * RADII[None, :, None] for sign in (1.0, -1.0)]
    )
    off, values, slope, predicted = (
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
        opposed = (
            bool(good.any()) and value_ratio[k][np.flatnonzero(good)[0]] > 2 * CHANGE
        )
        turned, confirmed = (
            np.flatnonzero(np.convolve(part, np.ones(run), "valid") == run)
            for part, run in ((against, 4), (good, RUN))
        )
        opposed |= bool(turned.size) and not (
            confirmed.size and confirmed[-1] > turned[-1]
        )
        change, wanted = (part[:, k].sum(axis=0) / RADII for part in (slope, predicted))
        rough = _is_rough(change, wanted, values[:, k])
        opposed |= rough
        suspect = bool(
            (np.abs(slope[:, k]).min(axis=0) > LARGER / np.sqrt(eps) * unit[k]).any()
        )
        out.append((ratio[k], opposed, suspect, rough))
    return out


def _is_rough(change: np.ndarray, wanted: np.ndarray, values: np.ndarray) -> bool:
    """Return whether f is rough along a direction.

    f is rough if f jumps at the point, or if its gradient jumps there or is not
    Lipschitz continuous there. The arguments have a number for each distance, the
    largest distance first. NaN means that the number is unknown.

    Args:
      change: Change of the slope from one side of the point to the other.
      wanted: Prediction of this change by the Hessian.
      values: Errors of the values of f that derivatives predict, on both sides.
    """
    off = (change - wanted)[np.isfinite(change)][-OCTAVES:]
    wanted = np.abs(wanted[np.isfinite(change)][-OCTAVES:])
    if len(off) == OCTAVES and (np.abs(off) > CHANGE * wanted).all():
        powers = -np.diff(np.log2(np.abs(off)))
        # Rounding errors vary from one distance to the next, and have both signs.
        if abs(np.sign(off).sum()) == OCTAVES and np.ptp(powers) < STEADY:
            return bool(-STEADY < np.mean(powers) < LEAST_SMOOTH)
    return any(breaks(height, OCTAVES) for height in values)


def breaks(height: np.ndarray, count: int) -> bool:
    """Return whether the errors of predicted values of f show a jump of f at a point.

    The values of f at several distances from the point are predicted from derivatives
    of f. Derivatives contain no information about a jump. So if f jumps at the point,
    the errors of the predictions at small distances are about equal to the height of
    the jump. If f is smooth, these errors tend to 0, or they are rounding errors, which
    vary.

    `height` has the error of the prediction for each distance, the largest distance
    first. NaN means that the error is unknown. The result is True if the last `count`
    known errors (those at the smallest distances) are not 0 and differ by at most 2 %
    of the largest absolute value among them. The result is False if fewer than `count`
    errors are known.
    """
    last = height[np.isfinite(height)][-count:]
    return bool(
        len(last) == count
        and np.abs(last).min() > 0
        and np.ptp(last) <= SAME * np.abs(last).max()
    )


def _confirmed(ratio: np.ndarray, newton: float) -> float:
    """Return the largest confirmed radius that is long relative to the Newton step.

    Return 0 if there is no such radius.
    """
    with np.errstate(invalid="ignore"):
        good = (ratio <= CHANGE) & (newton <= NEWTON * RADII)
    runs = np.convolve(good, np.ones(RUN), "valid") == RUN
    return float(RADII[np.flatnonzero(runs)[0]]) if runs.any() else 0.0


def _between(
    around: Callable[..., tuple[np.ndarray, ...]],
    firm: np.ndarray,
    reach: np.ndarray,
) -> tuple[bool, bool]:
    """Test whether the Hessian predicts the gradient along sums of firm directions.

    `Curvature` defines the firm directions. The Hessian already predicts the gradient
    along each firm direction alone. But at a kink of f, its prediction along a sum of
    them is wrong.

    Returns:
      (whether the prediction holds, whether f is rough along a sum (`_is_rough`)).
    """
    ways = directions(firm.shape[1])
    radii = reach.min() * RADII[1:41]
    steps = (radii[:, None, None] * (ways @ firm.T)[None]).reshape(-1, len(firm))
    off, values, slope, predicted = (
        part.reshape(len(radii), len(ways)) for part in around(steps)
    )
    with np.errstate(invalid="ignore"):
        good = (off <= CHANGE * radii[:, None] ** 2).all(axis=1)
    runs = np.flatnonzero(np.convolve(good, np.ones(RUN), "valid") == RUN)
    holds = bool(runs.size) and bool(
        (values[runs[0]] <= 2 * CHANGE * radii[runs[0]] ** 2).all()
    )
    half = len(ways) // 2  # The second half has the opposite directions.
    change, wanted = (
        (part[:, :half] + part[:, half:]) / radii[:, None]
        for part in (slope, predicted)
    )
    return holds, any(
        _is_rough(change[:, k], wanted[:, k], values[:, [k, k + half]].T)
        for k in range(half)
    )


@functools.cache
def directions(n: int) -> Float[np.ndarray, "m n"]:
    """Return unit vectors along the n axes and in other directions, shape (m, n).

    If the result contains a vector d, it also contains -d. The number m of vectors is 2
    for n = 1, 32 for n = 2, and larger for n > 2.
    """
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
