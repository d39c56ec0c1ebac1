"""Classification of a point by samples of f, if its Hessian is singular or unconfirmed.

In a firm direction, the gradient around the point changes as the Hessian predicts. In a
loose direction, it does not, or the Hessian is singular. In suitable coordinates around
the point, f is the sum of two parts (splitting lemma): squares in the firm directions,
each with a sign, and a function g of the loose directions. The function g is f,
minimised or maximised over the firm directions.

This module samples g. If there is one loose direction, the samples lie on both sides of
the point. If there are several, the module searches for the smallest and the largest
rise of g on circles or spheres around the point. The decision uses the smallest
distances at which the change of g exceeds its rounding error.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from research.derivatives.critical.curvature import (
    CLEAR,
    Curvature,
    breaks,
    directions,
    unit_columns,
)
from research.derivatives.critical.landscape import Landscape
from research.derivatives.critical.reduced import (
    Reduced,
    Rises,
    balance,
    noise_of_gradient,
)

ON_LINE = 0.5 * 2.0 ** (-np.arange(0, 480) / 2)  # Distances, decreasing.
ON_SPHERE = 0.5 * 2.0 ** -np.array([*range(20), *range(20, 64, 4)])
# Smaller distances, which count only if squares do not underflow there.
TINY_ON_SPHERE = 0.5 * 2.0 ** -np.arange(64, 256, 16)
# Rounds of refining an extreme direction on a circle and on a sphere, factor of the
# cone after each, and number of directions refined.
ROUNDS, SPHERE_ROUNDS = 10, 24
NARROWER, SPHERE_NARROWER = 1 / 3, 2**-0.5
SEEDS = 4
# The refined direction is assumed to miss the extreme one by at most this many times
# the width of the last cone. Beside a line along which f falls, a miss of δ leaves a
# rise of about δ² times the largest one.
MISSED = 8.0
# An extreme that the last round moved by more than this fraction is unknown.
SETTLED = 0.1
# If rises on opposite sides differ relatively by less than this, f counts as smooth.
ALIKE = 0.1
RUN = 4  # Number of consecutive radii that must agree; on a line, twice as many.
# Smallest power of the distance with which f may change at a critical point.
LEAST_POWER = 1.2
# Largest power of the distance that counts as the square.
QUADRATIC = 2.1
# Largest Newton step at which a square counts, relative to the distance R at which it
# takes over (`_is_square_closer`).
CLOSE = 0.06
STEADY = 0.8  # Largest allowed change of this power over a run.
JUMPS = "f jumps there"
LEVEL = "f does not change beyond rounding"
ON_SOME_SIDE = f"{LEVEL} on some side"
IN_SOME_DIRECTION = f"{LEVEL} in some direction"
UNSURE = "the gradients around the point are too inexact, or jump"
CHANGES = 1e4  # A rise of more than this many rounding errors of f is a change of f.
ROUGH = "the second derivatives of f do not exist there"


class Evidence(NamedTuple):
    """Kind of a critical point of f, according to samples of f around it.

    Attributes:
      kind: "minimum", "maximum", "saddle" (a minimum along one line or curve, and a
        maximum along another), "no extremum" (along a line or curve through the point,
        f increases on one side and decreases on the other), "flat" (f is constant), or
        "" if the samples do not decide.
      power: Power p for which f changes like distance^p. NaN if the power differs
        between directions, or if `kind` is "flat" or "".
      smooth: True if the changes of f on opposite sides of the point have about equal
        absolute values, as for a smooth function. (The changes are equal if the power
        is even, and opposite if the power is odd.)
      distance: Smallest distance at which the change of f is visible, in the scaled
        coordinates of `Landscape`. The distance is 0 if `kind` is "flat". It is also 0
        if `kind` is "", unless `reason` says that another power of the distance takes
        over where rounding hides f.
      reason: Reason why the samples do not decide, or "".
    """

    kind: str
    power: float
    smooth: bool
    distance: float
    reason: str


def evidence(
    land: Landscape, y: Float[np.ndarray, "n"], curvature: Curvature
) -> Evidence:
    """Find the kind of the point y, from samples of f around y (`_sampled`).

    The samples do not decide if the square of the distance takes over closer to y
    (`_is_square_closer`).
    """
    if curvature.loose.shape[1] > 1:
        curvature = curvature._replace(
            loose=curvature.loose * balance(Reduced(land, y, curvature))
        )
    found = _sampled(land, y, curvature)
    if not _is_square_closer(land, y, curvature, found):
        return found
    return _undecided(
        "another power of the distance takes over where rounding hides f",
        found.distance,
    )


def _is_square_closer(
    land: Landscape, y: np.ndarray, curvature: Curvature, found: Evidence
) -> bool:
    """Return whether the Hessian decides at distances that the samples do not show.

    Far from 0, the floats are so coarse that f may be sampled only where a cube is
    larger than a square. Let d be a unit vector in a loose direction, λ = dᵀ H d, and R
    the distance at which the slopes of the square and of the sampled power would be
    equal. The result is True if |λ| exceeds 8 times its rounding error, and the Newton
    step along d is at most 0.06 R. (If y is not the exact critical point of x³ or x⁴,
    but a point beside it, the Newton step is about R / 4 or R / 5.)
    """
    if not found.kind or found.kind == "flat" or found.power <= QUADRATIC:
        return False
    ways, lengths = unit_columns(curvature.loose)
    size = np.abs(np.einsum("ik,ij,jk->k", ways, curvature.hessian, ways))
    if not size.any():
        return False
    of_gradient, of_hessian = land.noise(y)
    unsure = np.abs(of_gradient @ ways).max(axis=0)
    noise = np.abs(np.einsum("ik,mij,jk->mk", ways, of_hessian, ways)).max(axis=0)
    distance = found.distance * lengths
    there, d = land.moved(y, np.concatenate([distance * ways, -distance * ways], 1).T)
    slope = ((land.at(there)[1] - curvature.gradient) * d).sum(axis=1)
    # An unknown power may be that of a cube.
    power = found.power if np.isfinite(found.power) else 3.0
    with np.errstate(divide="ignore", invalid="ignore"):
        newton = (np.abs(ways.T @ curvature.gradient) + unsure) / size
        share = size * distance**2 / np.abs(slope).reshape(2, -1).max(axis=0)
        reach = distance * np.minimum(share, 1.0) ** (1 / (power - 2))
        return bool(((size > CLEAR * noise) & (newton <= CLOSE * reach)).any())


def _sampled(
    land: Landscape, y: Float[np.ndarray, "n"], curvature: Curvature
) -> Evidence:
    """Find the kind of the point y, from samples of f around y.

    In a loose direction, the gradient around y does not confirm the curvature that the
    Hessian at y predicts. In a firm direction, it does. `curvature` has these
    directions, and `land` has f. Let g be the function f of the loose directions,
    minimised or maximised over the firm directions (`Reduced`). If the Hessian of f is
    continuous around y, two things give the kind (splitting lemma): samples of g, and
    the signs of the curvature of f in the firm directions. In two cases the Hessian
    does not seem continuous, and f is sampled in all directions instead:

    - the curvature in the firm directions differs at nearby points;
    - g changes like distance^p with p at most 2.1. If the Hessian is continuous, p is
      above 2.
    """
    reduced = Reduced(land, y, curvature)
    if not curvature.signs.size:
        return _judged(reduced)
    if reduced.firm_around():
        found = _judged(reduced)
        # Only if f has a continuous Hessian may it be reduced to its loose directions.
        # Then it changes there like a higher power than the square.
        if not found.power <= QUADRATIC:
            return found
    everything = np.concatenate(
        [curvature.firm / np.abs(curvature.firm).max(axis=0), curvature.loose], axis=1
    )
    whole = curvature._replace(
        signs=curvature.signs[:0], firm=curvature.firm[:, :0], loose=everything
    )
    return _judged(Reduced(land, y, whole))


def _judged(reduced: Reduced) -> Evidence:
    is_line = reduced.curvature.loose.shape[1] == 1
    return _on_line(reduced) if is_line else _on_spheres(reduced)


def _on_line(reduced: Reduced) -> Evidence:
    rises = reduced.rises(
        np.broadcast_to([[[1.0], [-1.0]]], (len(ON_LINE), 2, 1)), ON_LINE
    )
    if _jumps(rises, 24):
        return _undecided(JUMPS)
    signs = rises.signs
    words = [
        "?" if 0 in pair else {2: "+", -2: "-", 0: "m"}[int(sum(pair))]
        for pair in signs
    ]
    run, reason = _run(words, 2 * RUN)
    if run is None:
        return _nothing(reduced, rises) if reason is None else _undecided(reason)
    if _contradicted(rises, run):
        return _undecided("values of f contradict its derivatives")
    size = np.abs(rises.rise[run])
    power, steady = _power(size, ON_LINE[run])
    odd = np.abs(size[:, 0] - size[:, 1]) / size.sum(axis=1)
    word = words[run.start]
    if reduced.curvature.is_rough and power > LEAST_POWER:
        return _undecided(ROUGH)
    if word == "m" and not _flattens(size, ON_LINE[run]):
        return _undecided(
            "f rises and falls in proportion to the distance, so the gradient does not "
            "vanish"
        )
    if not steady or (word != "m" and odd[-1] > 0.02 and odd[-1] > 1.5 * odd[0]):
        return _undecided(
            "another power of the distance takes over where rounding hides f",
            float(ON_LINE[run][-1]),
        )
    return Evidence(
        _kind(word, reduced, up=False, down=False),
        power,
        bool(odd[-1] < ALIKE),
        float(ON_LINE[run][-1]),
        "",
    )


def _on_spheres(reduced: Reduced) -> Evidence:
    tiny = TINY_ON_SPHERE[reduced.land.underflow <= TINY_ON_SPHERE**2]
    ways = directions(reduced.curvature.loose.shape[1])
    radii = np.concatenate([ON_SPHERE, tiny])
    grid = reduced.rises(np.broadcast_to(ways, (len(radii), *ways.shape)), radii)
    if _jumps(grid, 8):
        return _undecided(JUMPS)
    if not grid.signs.any():
        return _nothing(reduced, grid)
    low, high = _extremes(reduced, grid, radii)
    words = _words(grid, low, high)
    run, reason = _run(words, RUN)
    if run is None:
        return _undecided(reason or IN_SOME_DIRECTION)
    if _contradicted(grid, run):
        return _undecided("values of f contradict its derivatives")
    size = np.abs(np.stack([low.rise[run, 0], high.rise[run, 0]], axis=1))
    power, steady = _power(size, radii[run])
    if "m" in words[run] and not _flattens(size, radii[run]):
        return _undecided(
            "f rises and falls in proportion to the distance, so the gradient does not "
            "vanish"
        )
    if not steady:
        return _undecided(
            "another power of the distance takes over where rounding hides f",
            float(radii[run][-1]),
        )
    if reduced.curvature.is_rough and not power <= LEAST_POWER:
        return _undecided(ROUGH)
    rises = _in_pairs(grid.rise[run], low.rise[run], high.rise[run])
    both = _in_pairs(grid.signs[run], low.signs[run], high.signs[run]).sum(axis=1)
    up, down = (
        bool((both == double).any(axis=1).sum() >= RUN / 2) for double in (2, -2)
    )
    kind = _kind(words[run.start], reduced, up, down)
    return Evidence(kind, power, _is_smooth(rises[-1]), float(radii[run][-1]), "")


def _extremes(
    reduced: Reduced, grid: Rises, radii: Float[np.ndarray, " radii"]
) -> tuple[Rises, Rises]:
    """Return the smallest and the largest rise at each radius.

    If the grid shows that f both rises and falls at each radius, the smallest and the
    largest rise of the grid are returned. Otherwise a search refines them.
    """
    low, high = (_extreme_of_grid(grid, sign) for sign in (1.0, -1.0))
    if {*_words(grid, low, high)} == {"m"}:
        return low, high
    noise = noise_of_gradient(grid.error, radii)
    low, high = (_extreme(reduced, grid, radii, noise, sign) for sign in (1.0, -1.0))
    return low, high


def _in_pairs(
    grid: Float[np.ndarray, "radii ways"],
    low: Float[np.ndarray, "radii 2"],
    high: Float[np.ndarray, "radii 2"],
) -> Float[np.ndarray, "radii 2 pairs"]:
    """Return the values along all directions, with opposite directions in pairs."""
    parts = [grid.reshape(len(grid), 2, -1), low[:, :, None], high[:, :, None]]
    return np.concatenate(parts, axis=2)


def _is_smooth(rises: Float[np.ndarray, "2 pairs"]) -> bool:
    """Return whether rises in opposite directions are about equal, or about opposite.

    For a smooth function, they are about equal if f changes like an even power of the
    distance, and about opposite if the power is odd.
    """
    alike, opposite = np.abs(rises[0] - rises[1]), np.abs(rises[0] + rises[1])
    return bool(min(alike.max(), opposite.max()) < 2 * ALIKE * np.abs(rises).max())


def _jumps(rises: Rises, count: int) -> bool:
    """Return whether f jumps at the point in some direction.

    f jumps if, at the `count` smallest distances, the rises of f computed from values
    differ from those computed from gradients, and always by about the same number.
    """
    return any(breaks(column, count) for column in rises.beyond.T)


def _contradicted(rises: Rises, run: slice) -> bool:
    """Return whether values of f contradict its derivatives.

    `run` is a range of distances at which f changes in the same way. The test uses this
    range and all larger distances, because rounding hides fewer contradictions there.
    """
    visible = (rises.signs != 0)[: run.stop]
    return bool(
        (rises.denied[: run.stop] & visible).sum() > 0.5 * visible.sum()
    ) and bool(rises.denied[run.start // 2 : run.stop].any())


def _word(grid: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """Return a mark for the change of f on a sphere around the point.

    The mark is "+" if f rises in all directions, and "-" if f falls in all directions.
    It is "m" if f rises in some directions and falls in others, and "?" if rounding
    hides the change.
    """
    signs = {*grid, *low, *high}
    if {1.0, -1.0} <= signs:
        return "m"
    if (grid == 1).all() and low[0] == 1:
        return "+"
    return "-" if (grid == -1).all() and high[0] == -1 else "?"


def _words(grid: Rises, low: Rises, high: Rises) -> list[str]:
    """Return the mark of `_word` for each radius."""
    return [
        _word(*parts) for parts in zip(grid.signs, low.signs, high.signs, strict=True)
    ]


def _extreme_of_grid(grid: Rises, sign: float) -> Rises:
    """Return the smallest rise (sign 1) or the largest rise (sign -1) of the grid.

    Column 0 has this rise, and column 1 has the rise in the opposite direction.
    """
    rows, half = np.arange(len(grid.rise)), grid.rise.shape[1] // 2
    best = np.where(np.isfinite(grid.error), sign * grid.rise, np.inf).argmin(axis=1)
    columns = np.stack([best, (best + half) % (2 * half)], axis=1)
    return Rises(*(part[rows[:, None], columns] for part in grid))


def _extreme(
    reduced: Reduced, grid: Rises, radii: np.ndarray, noise: np.ndarray, sign: float
) -> Rises:
    """Find the smallest rise (sign 1) or the largest rise (sign -1) at each radius.

    Column 0 has this rise, and column 1 has the rise in the opposite direction. The
    search starts from the best directions of the grid and refines them in cones that
    become narrower. An extreme is unknown in two cases: if it still moves in the last
    round, or if it is so small that f may be 0 or have the other sign in a direction
    within the last cone. (For example, x²y² - x⁶ is negative along y = 0.) Then its
    error is set to infinity, so the extreme counts as hidden by rounding.
    """
    ways = directions(reduced.curvature.loose.shape[1])
    count, n = ways.shape
    rounds, narrower = (
        (ROUNDS, NARROWER) if n == 2 else (SPHERE_ROUNDS, SPHERE_NARROWER)
    )
    height = np.where(np.isfinite(grid.error), sign * grid.rise, np.inf)
    seeds = ways[_seeds(height, ways)]
    value, cone = np.full(seeds.shape[:2], np.inf), 4.0 / count if n == 2 else 0.5
    before, rows = value, np.arange(len(radii))[:, None]
    for turn in range(rounds):
        tried = seeds[:, :, None, :] + cone * _offsets(n, turn)[None, None]
        tried /= np.linalg.norm(tried, axis=3, keepdims=True)
        flat = tried.reshape(len(radii), -1, n)
        trials = reduced.rises(flat, radii, noise)
        heights = np.where(
            np.isfinite(trials.error), sign * trials.rise, np.inf
        ).reshape(tried.shape[:3])
        best = heights.argmin(axis=2)
        column = np.arange(seeds.shape[1])[None]
        seeds, before, value = (
            tried[rows, column, best],
            value,
            heights[rows, column, best],
        )
        cone *= narrower
    first = value.argmin(axis=1)
    chosen = seeds[rows[:, 0], first]
    final = reduced.rises(np.stack([chosen, -chosen], axis=1), radii, noise)
    last, earlier = value[rows[:, 0], first], before[rows[:, 0], first]
    largest = np.where(np.isfinite(grid.error), np.abs(grid.rise), 0.0).max(axis=1)
    last_cone = cone / narrower
    with np.errstate(invalid="ignore"):
        unknown = ~(np.abs(earlier - last) <= SETTLED * np.abs(last))
        unknown |= last <= largest * (MISSED * last_cone) ** 2
    final.error[unknown & (last > 0)] = np.inf
    return final


def _offsets(n: int, turn: int) -> np.ndarray:
    """Return steps to nearby directions on the sphere, shape (number, n)."""
    if n == 2:
        ring = np.linspace(-1, 1, 9)
        return np.concatenate(
            [np.stack([ring, np.zeros(9)], 1), np.stack([np.zeros(9), ring], 1)]
        )
    drawn = np.random.default_rng(turn).normal(size=(15, n)) / np.sqrt(n)
    return np.concatenate([np.zeros((1, n)), drawn, np.eye(n), -np.eye(n)])


def _seeds(height: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """Return indices of SEEDS directions in which `height` is low, shape (r, SEEDS).

    Directions near one that is already chosen are left out.
    """
    near = ways @ ways.T > (0.97 if ways.shape[1] == 2 else 0.8)
    left, out = height.copy(), []
    for _ in range(SEEDS):
        out.append(left.argmin(axis=1))
        left = np.where(near[out[-1]], np.inf, left)
    return np.stack(out, axis=1)


def _kind(word: str, reduced: Reduced, up: bool, down: bool) -> str:
    """Return the kind of a point, by how f changes in loose and in firm directions.

    `Curvature` defines loose and firm directions.

    Args:
      word: Mark for the change of the reduced function, as returned by `_word`.
      reduced: Reduced function with its curvature.
      up: Whether the reduced function rises on both sides along some line.
      down: Whether the reduced function falls on both sides along some line.
    """
    firm = bool(reduced.curvature.signs.size)
    if word == "m":
        return "saddle" if (up or firm) and down else "no extremum"
    if word == "-" and firm:
        return "saddle"
    return "minimum" if (word == "+") == (reduced.sign > 0) else "maximum"


def _undecided(reason: str, distance: float = 0.0) -> Evidence:
    return Evidence("", np.nan, False, distance, reason)


def _power(size: np.ndarray, radii: np.ndarray) -> tuple[float, bool]:
    """Return the power p for which f changes like distance^p.

    Returns:
      (power, whether the power is about the same at all distances). The power is nan if
      it differs between columns.
    """
    with np.errstate(divide="ignore"):
        powers = np.diff(np.log2(size), axis=0) / np.diff(np.log2(radii))[:, None]
    steady = bool((np.ptp(powers, axis=0) <= STEADY).all()) and bool(
        (powers > 0.3).all()
    )
    whole = _whole_power(size, radii)
    return (float(whole.mean()) if np.ptp(whole) < 0.3 else np.nan), steady


def _flattens(size: np.ndarray, radii: np.ndarray) -> bool:
    """Return whether f changes like distance^p with a power p above LEAST_POWER.

    At a critical point, the result is True. If the gradient does not vanish, p is 1.
    """
    return bool((_whole_power(size, radii) > LEAST_POWER).all())


def _whole_power(size: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return the power of the distance from the first to the last row, by column."""
    return np.log2(size[0] / size[-1]) / np.log2(radii[0] / radii[-1])


def _run(words: list[str], length: int) -> tuple[slice | None, str | None]:
    """Find the smallest distances with `length` consecutive equal marks other than "?".

    `words` has a mark of `_word` for each distance, the largest distance first. At
    still smaller distances, at most two other marks are allowed, apart from "?".

    Returns:
      (slice of these distances, None), or (None, reason) if there are none. The reason
      is None if fewer than two different marks are known.
    """
    for last in range(len(words) - 1, length - 2, -1):
        if words[last] != "?" and {*words[last - length + 1 : last + 1]} == {
            words[last]
        }:
            below = [
                word for word in words[last + 1 :] if word not in ("?", words[last])
            ]
            if len(below) <= 2:
                return slice(last - length + 1, last + 1), None
            break
    known = {*words} - {"?"}
    return (
        None,
        "the sign of the change of f varies with the distance"
        if len(known) > 1
        else None,
    )


def _nothing(reduced: Reduced, rises: Rises) -> Evidence:
    """Return that no kind is known, with the reason, if no sign of a rise is known."""
    curvature = reduced.curvature
    flat = (
        not rises.rise.any()
        and not curvature.gradient.any()
        and not curvature.hessian.any()
    )
    sizes = np.nan_to_num(np.abs(rises.rise))
    least = CHANGES * reduced.land.eps * abs(curvature.value)
    if (sizes > np.maximum(rises.error, least)).any():
        return _undecided(ON_SOME_SIDE)
    if (sizes > least).any() and least:
        return _undecided(UNSURE)
    if curvature.signs.size:  # In firm directions, f changes.
        return _undecided(IN_SOME_DIRECTION)
    return _undecided(LEVEL)._replace(kind="flat" if flat else "")
