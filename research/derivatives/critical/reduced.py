"""f in the directions that the Hessian does not decide, at its least value over the others."""

from typing import NamedTuple

import numpy as np

from research.derivatives.critical.curvature import Curvature, directions
from research.derivatives.critical.landscape import Landscape

REPRESENTED = 0.004  # A step that rounding changes by more than this share is not made.
VISIBLE = 8.0  # How many times its error a rise must be to count.
INWARD = (
    8  # Simplified Newton steps to the bottom of the valley (or the top of the ridge).
)
CLEAR = 8.0  # A rise counts from this many times what the gradient that is left at the point makes.
RUN = 4  # Distances in a row at which the firm curvature must be confirmed.


class Rises(NamedTuple):
    """f(y + d) - f(y) in each direction at each radius, how wrong that is, and whether values of f contradict it."""

    rise: np.ndarray
    error: np.ndarray
    denied: np.ndarray

    @property
    def signs(self) -> np.ndarray:
        """1, -1, or 0 where rounding hides it."""
        return np.where(
            np.abs(self.rise) > VISIBLE * self.error, np.sign(self.rise), 0.0
        )


class Reduced:
    """f along its loose directions, at its least value over the firm ones (its greatest, where these curve down)."""

    def __init__(self, land: Landscape, y: np.ndarray, curvature: Curvature):
        self.land, self.y, self.curvature = land, y, curvature
        self.sign = float(curvature.signs[0]) if curvature.signs.size else 1.0

    def rises(
        self, ways: np.ndarray, radii: np.ndarray, noise: np.ndarray | None = None
    ) -> Rises:
        """The rise at radii (r,) times unit directions (r, w, c), times the sign of the firm curvature; each of shape (r, w)."""
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
            gap = np.abs(self.sign * by_value - rise)
            error = (
                4 * error
                + short
                + CLEAR * np.abs(z @ (self.curvature.loose.T @ self.curvature.gradient))
            )
        kept &= (
            np.isfinite(rise) & np.isfinite(error) & (np.abs(rise) > self.land.least)
        )
        rise, gap = (
            np.where(kept, part, 0.0).reshape(ways.shape[:2]) for part in (rise, gap)
        )
        error = np.where(kept, error, np.inf).reshape(ways.shape[:2])
        error = np.maximum(
            error, noise_of_gradient(error, radii) if noise is None else noise
        )
        allowed = (
            error
            + np.abs(rise) / 2
            + 3 * _before(gap, radii)
            + 16 * self.land.eps * abs(self.curvature.value)
        )
        return Rises(rise, error, gap > allowed)

    def firm_around(self) -> bool:
        """Whether the firm curvature is the same beside the point in the loose directions; at a kink it is not."""
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
        """The steps moved along the firm directions to where the gradient has none of them, and the square of what is left."""
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


def balance(reduced: Reduced) -> np.ndarray:
    """Powers of two, at most 1, by which the loose directions are shortened so that f changes alike along each."""
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


def noise_of_gradient(error: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return the error of a rise from the gradient's noise: that within half the radius, times the ratio of radii, (r, 1)."""
    per_way = np.where(np.isfinite(error), error / radii[:, None], 0.0)
    return (
        _before(np.quantile(per_way, 0.25, axis=1)[:, None], radii, 2) * radii[:, None]
    )


def _before(gap: np.ndarray, radii: np.ndarray, times: float = 4) -> np.ndarray:
    """The largest gap at a radius that many times smaller, or more, shape (r, 1)."""
    largest = np.maximum.accumulate(gap.max(axis=1)[::-1])[::-1]
    index = np.searchsorted(-radii, -radii / times)
    return np.where(
        index < len(radii), largest[np.minimum(index, len(radii) - 1)], 0.0
    )[:, None]
