"""The values of a function along a line, sampled at steps of several lengths until they show its slope."""

import numpy as np

from research.derivatives.check.line import Line
from research.derivatives.check.slopes import (
    Slope,
    noise_of_levels,
    remainder_slope,
    slope_at_middle,
    spread,
)

SHORTER = (
    2.0**-20,
    2.0**-40,
)  # Lengths of the longest step, where those of the size of x find f rough,
LONGER = (2.0**6, 2.0**12)  # or so flat that rounding hides its slope.
OTHER = 0.7  # Length of the steps that confirm what the first ones find.


class Values:
    """The values of ⟨w, f⟩ along v, and the slope that they have.

    Attributes:
      slope: From the steps that show it best.
      change: How far the values spread over steps of the size of x.
    """

    def __init__(
        self,
        line: Line,
        v: np.ndarray,
        w: np.ndarray,
        eps: float,
        size: float,
        seed: int,
    ):
        self._line, self._v, self._w, self._eps, self._size, self._seed = (
            line,
            v,
            w,
            eps,
            size,
            seed,
        )
        self._length, (self.slope, self._values) = 1.0, self._at(1.0)
        self.change = spread(self._values)

    def _at(self, length: float) -> tuple[Slope, np.ndarray]:
        """The slope from steps of that length down, and the values."""
        v = length * self._v
        values = self._line.sampled(v, self._w)
        nudged = self._line.rounding(v, self._w, self._seed, values)
        noise = noise_of_levels(nudged, values, self._eps * self._size, self._eps)
        return slope_at_middle(values, noise).times(1 / length), values

    def resolve(self, enough: float) -> None:
        """Shortens the steps where f is too rough for them, or lengthens them where it is too flat.

        It stops when the error is no larger than is enough.
        """
        for length in (*SHORTER, *LONGER):
            if self.slope.jump == 0 and self.slope.error <= enough:
                return
            if self.slope.jump and length > 1:
                return
            slope, values = self._at(length)
            if self._is_worse_than(slope, length):
                self.slope, self._values, self._length = slope, values, length

    def _is_worse_than(self, other: Slope, length: float) -> bool:
        if self.slope.jump:
            return other.contradicts(self.slope.jump)
        apart = abs(other.value - self.slope.value)
        return other.error < self.slope.error and (
            length < 1 or not apart > other.error + self.slope.error
        )

    def confirm(self) -> None:
        """Widens the error, and drops a jump, where steps of another length do not bear it out."""
        again, _ = self._at(OTHER * self._length)
        jump, error = (
            self.slope.jump,
            max(self.slope.error, again.error, abs(again.value - self.slope.value)),
        )
        stays = jump and abs(again.jump - jump) < 0.3 * abs(jump)
        self.slope = self.slope._replace(
            error=self.slope.error if np.isnan(error) else error,
            jump=jump if stays else 0.0,
        )

    def deny(self, rates: list[float]) -> None:
        """Takes the slope back where the smallest steps show what the derivative says: f changes its slope beside x.

        Args:
          rates: What the derivative says, where it is off.
        """
        for length in (
            self._length,
            *(short for short in SHORTER if short < self._length),
        ):
            slope, _ = self._at(length)
            if any(
                slope.agrees_with(rate, abs(rate - self.slope.value)) for rate in rates
            ):
                self.slope = self.slope._replace(error=float("inf"))
                return

    def remainder(self, rate: float) -> float:
        """The power of h in the Taylor remainder of a rate of change."""
        return remainder_slope(self._values, self._length * rate, self.slope.noise)
