"""Function along the directions in which its Hessian is singular or unconfirmed.

The Hessian at a point is unconfirmed in a direction if the gradient around the point
does not change as the Hessian predicts. In the other directions, the function is
minimised or maximised.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from research.derivatives.critical.curvature import Curvature, directions
from research.derivatives.critical.landscape import Landscape

# Steps that rounding changes by more than this fraction are not used.
REPRESENTED = 0.004
VISIBLE = 8.0  # A rise counts if it exceeds this many times its error.
# Number of simplified Newton steps to the minimum or maximum over the firm directions.
INWARD = 8
# A rise counts if it exceeds this many times the rise due to the remaining gradient.
CLEAR = 8.0
RUN = 4  # Number of consecutive distances that must confirm the firm curvature.


class Rises(NamedTuple):
    """Rises f(y + d) - f(y) around a point y, for w steps d at each of r radii.

    `Reduced.rises` defines the steps d. A rise is positive if f rises and negative if f
    falls, with one exception: if f curves down in the firm directions, all rises are
    multiplied by -1. `Reduced` says which directions are firm.

    Each rise is computed in two ways: from gradients of f, and from the two values
    f(y + d) and f(y). Let D be the absolute difference of the two results. The results
    contradict each other if D > `error` + |`rise`| / 2 + 16 ε |f(y)| + 3 M. Here ε is
    the relative spacing of the floats, and M is the largest D at radii of at most a
    quarter of the radius. M allows for larger rounding errors of the values of f.

    Attributes:
      rise: Rise of f, computed from gradients of f, shape (r, w).
      error: Estimated error of `rise`, same shape. Infinite if the rise is unknown.
      denied: Whether the two results contradict each other, same shape. False if the
        rise is unknown.
      beyond: The rise computed from the two values, minus `rise`, same shape. 0 if D is
        at most 16 ε |f(y)|, because rounding errors of the two values may then be the
        only cause of D. NaN if the rise is unknown.
    """

    rise: Float[np.ndarray, "r w"]
    error: Float[np.ndarray, "r w"]
    denied: Bool[np.ndarray, "r w"]
    beyond: Float[np.ndarray, "r w"]

    @property
    def signs(self) -> Float[np.ndarray, "r w"]:
        """Sign of each rise, or 0 if the absolute rise is at most 8 times its error."""
        return np.where(
            np.abs(self.rise) > VISIBLE * self.error, np.sign(self.rise), 0.0
        )


class Reduced:
    """The function f along the loose directions, minimised over the firm directions.

    A direction is firm if the Hessian at a point y predicts how the gradient changes
    along it around y. It is loose if the Hessian is singular in this direction, or if
    the gradients around y do not confirm its prediction. `Curvature` defines both.

    A straight step may hide how f changes along a curved valley. An example is
    f = (v - u²)² - u⁴ / 2 around 0. There u is a loose direction and v a firm one. On
    the line v = 0, f = u⁴ / 2 rises. But on the curve v = u², f = -u⁴ / 2 falls. So for
    each step from y in the loose directions, f is minimised over the firm directions.
    If f curves down in the firm directions, f is maximised over them instead. f must
    not curve up in one firm direction and down in another.
    """

    def __init__(self, land: Landscape, y: np.ndarray, curvature: Curvature):
        self.land, self.y, self.curvature = land, y, curvature
        self.sign = float(curvature.signs[0]) if curvature.signs.size else 1.0

    def rises(
        self,
        ways: Float[np.ndarray, "r w c"],
        radii: Float[np.ndarray, "r"],
        noise: Float[np.ndarray, "r 1"] | None = None,
    ) -> Rises:
        """Compute the rises of f for steps along the loose directions.

        A rise is f(y + d) - f(y), multiplied by 1 or -1. The step d is the sum of a
        given step in the loose directions and a computed step in the firm directions
        (see the class). There are two cases:

        - f curves up in the firm directions, or there are none. Then the computed step
          minimises f over the firm directions, and the rise is multiplied by 1.
        - f curves down in the firm directions. Then the computed step maximises f over
          these directions, and the rise is multiplied by -1. So it is the rise of -f,
          which curves up as in the first case.

        The error of a rise is the sum of 4 times the error of `Landscape.rise`, an
        error due to the computed step, and 8 times the absolute rise that the gradient
        at y causes along the given step, because y may lie a little beside the critical
        point.

        Args:
          ways: Unit vectors, shape (r, w, c): w vectors for each of r radii, with a
            coordinate for each of the c loose directions.
          radii: Lengths of the given steps in these coordinates, shape (r,).
          noise: Lower bound of the errors of the rises at each radius. None means that
            this bound is estimated from the noise of the gradient
            (`noise_of_gradient`).
        Returns:
          The `Rises`. A rise is unknown if rounding changes the step d too much, if a
          number is not finite, or if the absolute rise is at most `least` of the
          `Landscape`.
        """
        z = (radii[:, None, None] * ways).reshape(-1, ways.shape[2])
        straight = z @ self.curvature.loose.T
        d, short = self._inward(straight)
        _, moved = self.land.moved(self.y, d)
        off = np.abs(moved - d) <= REPRESENTED * np.abs(straight).max(
            axis=1, keepdims=True
        )
        kept = off.all(axis=1) & np.isfinite(d).all(axis=1)
        with np.errstate(invalid="ignore", over="ignore"):
            rise, error, by_value = self.land.rise(
                self.y, np.where(kept[:, None], moved, 0.0)
            )
            rise = self.sign * rise - short / 2
            beyond = self.sign * by_value - rise
            gap = np.abs(beyond)
            error = (
                4 * error
                + short
                + CLEAR * np.abs(z @ (self.curvature.loose.T @ self.curvature.gradient))
            )
        kept &= (
            np.isfinite(rise)
            & np.isfinite(by_value)
            & np.isfinite(error)
            & (np.abs(rise) > self.land.least)
        )
        rise, gap = (
            np.where(kept, part, 0.0).reshape(ways.shape[:2]) for part in (rise, gap)
        )
        rounding = 16 * self.land.eps * abs(self.curvature.value)
        beyond = np.where(np.abs(beyond) > rounding, beyond, 0.0)
        beyond = np.where(kept, beyond, np.nan).reshape(ways.shape[:2])
        error = np.where(kept, error, np.inf).reshape(ways.shape[:2])
        error = np.maximum(
            error, noise_of_gradient(error, radii) if noise is None else noise
        )
        allowed = error + np.abs(rise) / 2 + 3 * _before(gap, radii) + rounding
        return Rises(rise, error, gap > allowed, beyond)

    def firm_around(self) -> bool:
        """Return whether the firm directions have the same curvature at nearby points.

        The nearby points are y plus steps in the loose directions (`Curvature` defines
        firm and loose directions). In the coordinates along these directions, the steps
        have the lengths 1/2, 1/4, 1/8, ... Steps that rounding changes too much are
        left out. Let H(z) be the Hessian at a point z, and let a and b be firm
        directions. Their lengths are such that aᵀH(y)b is 1 or -1 if a and b are the
        same direction, and 0 otherwise. The result is True if, at all nearby points z
        of four consecutive lengths, aᵀH(z)b differs by less than 0.5 from aᵀH(y)b for
        all a and b. Near a kink of f, the curvature differs.
        """
        firm, loose = self.curvature.firm, self.curvature.loose
        ways, radii = directions(loose.shape[1]), 0.5 * 2.0 ** -np.arange(0, 60)
        straight = (radii[:, None, None] * (ways @ loose.T)).reshape(-1, len(firm))
        there, moved = self.land.moved(self.y, straight)
        kept = (
            np.abs(moved - straight)
            <= REPRESENTED * np.abs(straight).max(axis=1, keepdims=True)
        ).all(axis=1)
        alike = np.ones(len(straight), bool)
        for column, unit in zip(firm.T, np.eye(firm.shape[1]), strict=True):
            curved = self.land.at(there, np.broadcast_to(column, there.shape))[2] @ firm
            with np.errstate(invalid="ignore"):
                alike &= (np.abs(curved - self.sign * unit) < 0.5).all(axis=1)
        good = np.where(kept, alike, True).reshape(len(radii), -1).all(axis=1)
        tested = kept.reshape(len(radii), -1).any(axis=1)
        runs = np.convolve(good & tested, np.ones(RUN), "valid") == RUN
        return bool(runs.any())

    def _inward(self, straight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Change steps along the firm directions until ∇f has no firm component.

        Returns:
          (steps, squared length of the remaining firm component of the gradient).
        """
        firm = self.curvature.firm
        if not firm.shape[1]:
            return straight, np.zeros(len(straight))
        aside, left = (
            np.zeros((len(straight), firm.shape[1])),
            np.zeros((len(straight), firm.shape[1])),
        )
        best, least = aside.copy(), np.full(len(straight), np.inf)
        for _ in range(INWARD):
            with np.errstate(invalid="ignore", over="ignore"):
                left = (
                    self.land.at(self.land.moved(self.y, straight + aside @ firm.T)[0])[
                        1
                    ]
                    @ firm
                )
                size = np.nan_to_num((left**2).sum(axis=1), nan=np.inf)
            shorter = size < least
            best[shorter], least[shorter] = aside[shorter], size[shorter]
            aside = np.where(np.isfinite(left), aside - self.sign * left, 0.0)
        return straight + best @ firm.T, least


def balance(reduced: Reduced) -> Float[np.ndarray, "c"]:
    """Return a scale for each of the c loose directions, shape (c,).

    In a loose direction, the gradient around the point y of `reduced` does not confirm
    the curvature that the Hessian at y predicts (`Curvature`). Steps whose lengths are
    proportional to these scales change f by about the same amount in each of the c
    directions. A direction in which f does not change has the scale 1.

    f is sampled at the distances 1/2, 1/4, 1/8, ... on both sides of y. For each
    direction, take the largest change of f at the distances from 1/2 to 1/16. Let m be
    the smallest of these changes that rounding does not hide. The scale of a direction
    is twice the smallest distance at which f changes by at least m.
    """
    n, radii = reduced.curvature.loose.shape[1], 0.5 * 2.0 ** -np.arange(0, 120)
    rises = reduced.rises(
        np.broadcast_to(
            np.concatenate([np.eye(n), -np.eye(n)]), (len(radii), 2 * n, n)
        ),
        radii,
    )
    size = (
        np.where(rises.signs != 0, np.abs(rises.rise), 0.0)
        .reshape(len(radii), 2, n)
        .max(axis=1)
    )
    first = size[:4].max(axis=0)
    changing = first > 0
    if not changing.any():
        return np.ones(n)
    level = first[changing].min()
    reaching = np.where(size >= level, np.arange(len(radii))[:, None], 0).max(axis=0)
    return np.where(changing, 2.0**-reaching, 1.0)


def noise_of_gradient(
    error: Float[np.ndarray, "r w"], radii: Float[np.ndarray, "r"]
) -> Float[np.ndarray, "r 1"]:
    """Return the error that noise of the gradient causes in a rise, at each of r radii.

    A rise is f(y + d) - f(y) for a step d that a direction and a radius define. It is
    computed as an integral of the gradient along d. Noise of the gradient is its
    rounding error. The error that it causes in the integral is proportional to the
    radius.

    `error` has the errors of the rises in w directions, shape (r, w). These errors are
    divided by their radii. An infinite error counts as 0. At each radius, the lower
    quartile of the w quotients is taken. The result at a radius R is R times the
    largest of these quartiles at radii up to R / 2, or 0 if there is no such radius.
    The shape of the result is (r, 1).
    """
    per_way = np.where(np.isfinite(error), error / radii[:, None], 0.0)
    return (
        _before(np.quantile(per_way, 0.25, axis=1)[:, None], radii, 2) * radii[:, None]
    )


def _before(gap: np.ndarray, radii: np.ndarray, times: float = 4) -> np.ndarray:
    """Return, for each radius, the largest gap at radii <= radius / times, (r, 1)."""
    largest = np.maximum.accumulate(gap.max(axis=1)[::-1])[::-1]
    index = np.searchsorted(-radii, -radii / times)
    return np.where(
        index < len(radii), largest[np.minimum(index, len(radii) - 1)], 0.0
    )[:, None]
