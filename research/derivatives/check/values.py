"""Values of a function along a line, sampled at several step lengths."""

import numpy as np

from research.derivatives.check.line import Line
from research.derivatives.check.rounding import NUDGE
from research.derivatives.check.slopes import (
    LEVELS,
    OFFSETS,
    Slope,
    is_constant_near,
    noise_of_levels,
    quantum,
    remainder_slope,
    slope_at_middle,
    spread,
)

# Factor between the lengths of the longest step if f is rough over steps of the size
# of x, and the least number of such lengths. There are more if entries of x need them.
SHORTER, FEWEST = 2.0**-20, 2
# Much shorter lengths if only entries move that are 0, because floats are dense there.
# Beside such a step, JAX's derivative of f is compared at these shares of it.
NEAREST, BESIDE = SHORTER ** np.arange(4.0, 13.0, 2.0), 2.0**-20 * np.array([1, -1, 2])
# Relative lengths of the longest step if f is so flat that rounding hides its slope. If
# a leaf is tiny beside others, there are more, up to the size of the largest leaf.
LONGER = (2.0**6, 2.0**12)
OTHER = 0.7  # Relative length of the steps that confirm a result.
# Factors by which perturbations are enlarged to see whether f follows them, the largest
# relative perturbation, and the share of the expected change that f must reach.
WIDER, WIDEST, FOLLOWS = (2.0**12, 2.0**22), 2.0**-14, 1 / 8
# In the method `hide`, rounding hides f at most up to this step. The derivative is
# compared at these multiples of it.
FARTHEST, AFAR = 2.0**-20, np.array([1.0, 8.0, 64.0])
PAIRS = 16  # Number of pairs of points around x at which the derivative is compared.


class Values:
    """Values of ⟨w, f⟩ along a direction v, and their slope.

    Args:
      line: The function f and its point x.
      v: Direction.
      w: Weights of the outputs of f.
      eps: Relative spacing of the floats.
      size: Lower bound of the rounding error of a value, in units of eps.
      seed: Seed of the perturbations with which the rounding error is measured.
      may_round: Whether f may round its values to a few digits. If False, equal values
        mean a slope of 0.
    Attributes:
      eps, seed: As given.
      slope: Slope from the best step length.
      length: Length of the longest step, as a multiple of v.
      change: Largest value minus smallest value at the sampled points from x - v to
        x + v.
      is_refuted: Whether short steps confirm neither the slope from long steps nor the
        tested derivative. False until the method `deny` has been called.
      leap: Size of a jump of f at x that no step length refutes, or 0 if there is no
        such jump.
      noise: Measured rounding error of a value of f beside x.
      is_split: Whether the method `split` has computed the slope as a sum.
      hidden_step: A distance from x at which JAX's derivative differs from that at x,
        although rounding errors hide how f changes up to this distance. 0 if the method
        `hide` has not found such a distance.
    """

    def __init__(
        self,
        line: Line,
        v: np.ndarray,
        w: np.ndarray,
        eps: float,
        size: float,
        seed: int,
        may_round: bool,
    ):
        self._line, self._v, self._w, self.eps, self._size, self.seed = (
            line,
            v,
            w,
            eps,
            size,
            seed,
        )
        sizes = np.abs(line.flat[line.flat != 0] / line.scales[line.flat != 0])
        least = float(np.log2(np.min(sizes, initial=1.0)) / np.log2(SHORTER))
        self._shorter = SHORTER ** np.arange(1, max(FEWEST, int(least)) + 1)
        self._is_at_zero = bool(np.all(line.flat[v != 0] == 0))
        largest = np.max(line.scales[v != 0], initial=0.0)
        ratio = np.max(line.scales) / largest if largest else 1.0
        more = int(np.log2(min(max(ratio, 1.0), 2.0**60)) / 6)
        self._longer = (*LONGER, *(2.0 ** (6 * k) for k in range(3, more + 1)))
        self._may_round, self._quantum, self._underflow = may_round, 0.0, 0.0
        self.length, (self.slope, self._values) = 1.0, self._at(1.0)
        if may_round and not self._quantum and is_constant_near(self._values):
            self._at(LONGER[0])  # A rounded f has more steps here.
            if self._quantum:
                self.slope, self._values = self._at(1.0)
        self.change, self.is_refuted = spread(self._values), False
        if line.has_float16 or eps == np.finfo(np.float16).eps:
            # Below its smallest normal number, its rounding errors are not relative.
            smallest = float(np.finfo(np.float16).smallest_normal)
            self._underflow = smallest / np.max(np.abs(v)) * self.change
        self.leap, self.noise = self.slope.leap, float(self.slope.noise[-1])
        self.is_split, self.hidden_step = False, 0.0

    def _at(self, length: float) -> tuple[Slope, np.ndarray]:
        """Return the slope from steps up to that length, and the sampled values."""
        v = length * self._v
        values = self._line.sampled(v, self._w)
        nudged = self._line.rounding(v, self._w, self.seed, values)
        if self._may_round:
            self._quantum = max(self._quantum, quantum(values, self.eps))
        least = max(self.eps * self._size, self._quantum / 2, self._underflow)
        noise = noise_of_levels(nudged, values, least, self.eps)
        return slope_at_middle(values, noise).times(1 / length), values

    def resolve(self, enough: float) -> None:
        """Adapt the length of the steps to f.

        The steps become shorter if f varies too much within them, and longer if
        rounding errors hide how f changes. The search for a better length ends when the
        error of the slope is at most `enough`.
        """
        if self.slope.drifts:
            return
        for length in (*self._shorter, *self._longer):
            if self.slope.jump == 0 and self.slope.error <= enough:
                return
            if self.slope.jump and length > 1:
                return
            slope, values = self._at(length)
            if length > 1 and slope.jump and self.slope.contradicts(slope.jump):
                return  # From afar, a smooth bend looks like a kink.
            is_seen = slope.leap or 8 * np.min(slope.noise) >= self.leap
            if length < 1 and not is_seen:
                self.leap = 0.0
            if slope.drifts and length < 1:  # Shorter steps show only noise.
                self.slope = self.slope._replace(error=float("inf"), jump=0.0)
                return
            if self._is_worse_than(slope, length):
                self.slope, self._values, self.length = slope, values, length

    def approach(self, enough: float) -> None:
        """Use much shorter steps, if all entries of x that move are 0.

        Near 0, f may vary at a scale that is tiny compared with the usual steps. For
        example, if x is the energy of an atom in joules, f may vary at the scale 1e-21,
        and a usual step is 1. The slope from very short steps replaces the slope from
        long steps under three conditions. First, its error is at most `enough`. Second,
        the error of the slope from long steps is larger than `enough`, or the two
        slopes contradict each other. Third, JAX's derivative of f beside x agrees with
        the slope from short steps. If JAX cannot trace f, the tested derivative must
        agree instead. Without this agreement, f may have lost its digits at short
        steps: for example, a term in float32 may be rounded to 0.

        In two cases, the slope becomes unknown. First, f computes in float64 alone, the
        long steps show a kink, and of the three conditions only the third fails. A
        custom derivative rule of f may then be wrong. Second, the three conditions
        hold, but f computes in a lower precision or JAX cannot trace f, and the steps
        are about as short as the smallest numbers of float32, or shorter.
        """
        for length in NEAREST if self._is_at_zero else ():
            slope, values = self._at(length)
            if slope.drifts or slope.jump or not slope.error <= enough:
                continue
            is_coarse = self.eps > np.finfo(float).eps or self._line.jaxpr is None
            if is_coarse and not values[LEVELS - 1 : LEVELS + 2].any():
                continue  # Rounding to 0 hides f, and is not measured.
            apart = abs(slope.value - self.slope.value)
            is_known = self.slope.error <= enough and not self.slope.jump
            if is_known and apart <= slope.error + self.slope.error:
                continue
            agrees = self._is_derivative(slope, apart, length, enough)
            if agrees and (not is_coarse or length == NEAREST[0]):
                self.slope, self._values, self.length = slope, values, length
                self.leap = 0.0
            elif agrees or (self.slope.jump and not is_coarse):
                self.slope = self.slope._replace(error=float("inf"), jump=0.0)
                self.leap = 0.0
                return

    def _is_derivative(
        self, slope: Slope, apart: float, length: float, enough: float
    ) -> bool:
        """Return whether a slope is the derivative of f very close to x.

        The derivative is JAX's, or the tested one if JAX cannot trace f.
        """
        rates = self._line.rates_of_f(self._v, self._w, length * BESIDE)
        is_known = np.isfinite(self.slope.error)
        gap = max(abs(self.slope.jump), apart, self.slope.error if is_known else 0.0)
        allowed = max(gap / 10, slope.error if is_known else enough)
        return bool(np.all(np.abs(rates - slope.value) <= allowed))

    def split(self, enough: float) -> None:
        """Compute the slope as a sum: along entries that are 0, and along the others.

        The steps along the entries that are 0 can be much shorter (`approach`). Nothing
        changes if all or none of the moved entries are 0, if such short steps are not
        needed, or if the error of one of the two slopes is above `enough`.
        """
        is_zero, slopes = self._line.flat == 0, []
        if not self._v[is_zero].any() or not self._v[~is_zero].any():
            return
        for v in (np.where(is_zero, self._v, 0.0), np.where(is_zero, 0.0, self._v)):
            known = (self.eps, self._size, self.seed, self._may_round)
            part = Values(self._line, v, self._w, *known)
            part.resolve(enough)
            part.approach(enough)
            if part.slope.jump or not part.slope.error <= enough:
                return
            if not slopes and part.length > NEAREST[0]:
                return
            slopes.append(part.slope)
        at_zero, others = slopes
        value, error = at_zero.value + others.value, at_zero.error + others.error
        self.slope = others._replace(value=value, error=error, left=value, right=value)
        self.is_split, self.leap = True, 0.0

    def hide(self, rates: list[float]) -> None:
        """Set the slope's error to infinity if rounding hides how f varies near 0.

        An example is f(x) = 1 + √(x² + ε²) at x = 0, where ε is 1e-30. The values of f
        show a kink, but f is smooth. Only entries of x that are 0 move, because
        elsewhere floats are not dense enough. The error is set to infinity under four
        conditions. First, JAX's derivative of f is the same at x and very close to x.
        Second, JAX's derivative has another value at the end of a short step over which
        rounding no longer hides the change of f. Third, the mean of JAX's derivatives
        at the ends of such a step and of the opposite step is about the slope of the
        values. Fourth, the tested derivative agrees with JAX's derivative at x.

        Args:
          rates: Values of the tested derivative along the direction.
        """
        v = np.where(self._line.flat == 0, self._v, 0.0)
        gaps = [abs(rate - self.slope.value) for rate in rates if np.isfinite(rate)]
        gap = max(abs(self.slope.jump), *gaps, 0.0)
        step = self.length * self.slope.smallest_step(gap)
        if not v.any() or not 0 < step < FARTHEST:
            return
        far = step * np.outer(AFAR, [1, -1])
        distances = np.array([0.0, *NEAREST[-1] * BESIDE, *far.ravel()])
        found = self._line.rates_of_f(v, self._w, distances)
        close, beyond = found[1 : 1 + len(BESIDE)], found[1 + len(BESIDE) :]
        along_others = self._line.rates_of_f(self._v - v, self._w, np.zeros(1))
        means = beyond.reshape(far.shape).mean(axis=1) + along_others
        at_x = found[0] + along_others[0]
        if (
            (np.abs(close - found[0]) < gap / 10).all()
            and np.abs(beyond - found[0]).max() > gap / 4
            and np.abs(means - self.slope.value).min() < gap / 100
            and all(abs(rate - at_x) < gap / 100 for rate in rates)
        ):
            self.hidden_step = step
            self.slope = self.slope._replace(error=float("inf"), jump=0.0)

    def _is_worse_than(self, other: Slope, length: float) -> bool:
        if self.slope.jump:
            return other.contradicts(self.slope.jump)
        apart = abs(other.value - self.slope.value)
        return other.error < self.slope.error and (
            length < 1 or not apart > other.error + self.slope.error
        )

    def confirm(self) -> None:
        """Estimate the slope again with another step length.

        The new error estimate is the largest of three numbers: the two error estimates,
        and the distance between the two slopes. If the second estimate does not confirm
        the jump at a kink, the jump is set to 0.
        """
        again, _ = self._at(OTHER * self.length)
        jump, error = (
            self.slope.jump,
            max(self.slope.error, again.error, abs(again.value - self.slope.value)),
        )
        stays = jump and abs(again.jump - jump) < 0.3 * abs(jump)
        self.slope = self.slope._replace(
            error=self.slope.error if np.isnan(error) else error,
            jump=jump if stays else 0.0,
        )

    def doubt(self, rate: float) -> None:
        """Set the slope's error to infinity if f varies between neighbouring floats.

        An example is sin(1e20 x), whose waves are shorter than the spacing of floats.
        No difference quotient shows its slope. Another example is a mod b where the
        floats near a are at least b apart. Such an f is recognised in three ways:

        1. All measured rounding errors are NaN, as for a mod b.
        2. The measured rounding errors do not grow in proportion to the perturbations,
        and they are smaller than the derivative predicts.
        3. The derivative predicts that f changes more between neighbouring floats than
        over all steps, and the derivative differs between these floats. This test also
        works if larger terms of f hide the rounding errors.

        Args:
          rate: Change of f that the derivative predicts for a relative perturbation of
            x, divided by the size of the perturbation.
        """
        if self.eps * rate > self.change and not self._line.is_steady(
            self._v, self._w, self.eps
        ):
            self.slope = self.slope._replace(error=float("inf"), jump=0.0)
            return
        at_x, values = 0 * self._v, np.full(len(OFFSETS), self._values[LEVELS])
        rounding = lambda nudge: self._line.rounding(
            at_x, self._w, self.seed, values, nudge
        )
        small = rounding(NUDGE)
        if self._line.jaxpr is not None and np.isnan(small).all():
            self.slope = self.slope._replace(error=float("inf"), jump=0.0)
            return
        for wider in WIDER:
            wider = min(wider, WIDEST / (NUDGE * self.eps))
            if wider * FOLLOWS <= 1:  # The precision of f is too low for such a test.
                return
            large = wider * NUDGE * np.median(rounding(wider * NUDGE))
            predicted = wider * NUDGE * self.eps * rate
            most = min(wider * NUDGE * np.median(small), predicted)
            if 0 < large < FOLLOWS * most:
                self.slope = self.slope._replace(error=float("inf"), jump=0.0)
                return

    def deny(self, rates: list[float]) -> None:
        """Set the slope's error to infinity if short steps do not confirm the slope.

        The slope from long steps differs from a correct derivative if the curvature of
        f is large near x. The slope from short steps then agrees with the derivative,
        or with neither the derivative nor the slope from long steps. In both cases the
        long steps do not show that the derivative is wrong. There is a third such case.
        Let h be the shortest step at which the difference between the derivative and
        the slope exceeds the rounding error. In the third case, the derivative varies
        over the step h, and its mean over this step is the slope.

        Args:
          rates: Values of the derivative in the tested direction that differ from the
            slope: by forward mode, by reverse mode, or both.
        """
        gaps: dict[float, float] = {}
        for length in (
            self.length,
            *(short for short in self._shorter if short < self.length),
        ):
            slope, _ = self._at(length)
            gaps = {rate: abs(rate - self.slope.value) for rate in rates}
            agrees = any(slope.agrees_with(rate, gap) for rate, gap in gaps.items())
            self.is_refuted = not agrees and any(
                slope.refutes(self.slope.value, gap) for gap in gaps.values()
            )
            if agrees or self.is_refuted:
                self.slope = self.slope._replace(error=float("inf"))
                return
        self.is_refuted = any(self._varies_around(gap) for gap in gaps.values())
        if self.is_refuted:
            self.slope = self.slope._replace(error=float("inf"))

    def _varies_around(self, gap: float) -> bool:
        """Return whether the derivative varies by a gap within the smallest such step.

        Its mean over such a step must then be the slope. The values show only this
        mean, as for a fast wave that the rounding error of f hides.
        """
        step = self.length * self.slope.smallest_step(gap)
        if not 0 < step < np.inf:
            return False
        shares = np.random.default_rng(self.seed).uniform(0, 1, PAIRS)
        rates = self._line.rates_around(self._v, self._w, step * shares)
        # In units of the gap, because squares of large rates overflow.
        apart = (rates - self.slope.value) / gap
        if not np.isfinite(apart).all():
            return False
        curvature = np.polynomial.Polynomial.fit(shares**2, apart, 1)
        varies = np.std(apart - curvature(shares**2))
        return bool(varies > 0.25 and abs(np.mean(apart)) < 3 * varies / PAIRS**0.5)

    def remainder(self, rate: float) -> float:
        """Return the order in h of the remainder |f(x + h v) - f(x) - h rate|.

        f stands for ⟨w, f⟩ with the weights w of the outputs, and `rate` is the
        derivative to check, along the direction v. The order is about 2 for a correct
        derivative and about 1 for a wrong one. It is NaN if noise hides the remainder.
        It is also NaN if `split` has computed the slope as a sum, because the two
        slopes have different step lengths.
        """
        if self.is_split:
            return float("nan")
        return remainder_slope(self._values, self.length * rate, self.slope.noise)
