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
from research.derivatives.check.underflow import Underflow

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
# Longest step, as a share of the longest step used so far, that shows a sharp bend. At
# longer steps, higher derivatives of a smooth f change the power of the step.
_SHORT = 2.0**-12


class Values:
    """Values of ⟨w, f⟩ along a direction v, and their slope.

    In the methods, f stands for ⟨w, f⟩. The slope is an estimate of the derivative of
    f(x + h v) with respect to h at h = 0. It follows from values of f at h = 0 and at
    the steps ±length, ±length / 2, ±length / 4, ... The methods replace the estimate,
    or set its error to infinity if the slope of f cannot be found from the values. The
    tested derivative is the derivative that the check compares with this slope.

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
      eps, seed: The arguments of these names.
      slope: The present estimate, a `Slope` from the best step length.
      length: Length of the longest step, as a multiple of v.
      change: Largest value minus smallest value at the sampled points from x - v to
        x + v.
      is_refuted: Whether the method `deny` has found its case 2 or 3: short steps
        confirm neither the slope from long steps nor the tested derivative.
      leap: Size of a jump of f at x that no step length refutes, or 0 if there is no
        such jump.
      noise: Measured rounding error of a value of f beside x.
      is_split: Whether the method `split` has computed the slope as a sum.
      underflows: Whether numbers inside f are so small that their errors hide the slope
        (`watch_underflow`).
      hidden_step: The distance s of the method `hide`, as a multiple of v: up to s,
        rounding errors hide how f changes, although JAX's derivative varies. 0 if this
        method has not found such a distance.
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
        self._is_watched = self.underflows = False
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
        if self._is_watched:
            known = (v, self._w, self.seed, values)
            nudged = nudged + self._line.rounding(*known, 1.0, kind=Underflow)
        if self._may_round:
            self._quantum = max(self._quantum, quantum(values, self.eps))
        least = max(self.eps * self._size, self._quantum / 2, self._underflow)
        noise = noise_of_levels(nudged, values, least, self.eps)
        return slope_at_middle(values, noise).times(1 / length), values

    def resolve(self, enough: float) -> None:
        """Adapt the length of the longest step to f.

        Shorter steps help if f varies too much within a step, and longer steps help if
        rounding errors hide how f changes. So the lengths 2^-20, 2^-40, ... are tried
        first, and then 2^6, 2^12, ... The search ends when the error of the slope is at
        most `enough` and f shows no kink. If f shows a kink, only shorter steps are
        tried.

        Each length gives a new slope. It replaces the old one under these conditions:

        - If the old steps show a kink, the new steps must rule out this kink.
        - Otherwise, the new slope must have a smaller error. If its steps are longer
          than those of the first slope, the two slopes must also agree within their
          errors.

        If the central differences at shorter steps drift (`Slope.drifts`), the search
        ends, and the error of the slope is set to infinity.
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

    def watch_underflow(self) -> None:
        """Add to the noise the errors of numbers that are too small for their dtype.

        The present slope and all later ones include these errors. To measure the
        errors, f is compiled once more, which takes time. So they are measured only if
        a rate seems wrong.
        """
        before, self._is_watched = self.slope.error, True
        self.slope, self._values = self._at(self.length)
        self.confirm()
        self.underflows = not self.slope.error <= 2 * before

    def approach(self, enough: float) -> None:
        """Use much shorter steps, if all entries of x that move are 0.

        Near 0, f may vary at a scale that is tiny compared with the usual steps. For
        example, if x is the energy of an atom in joules, f may vary at the scale 1e-21,
        and a usual step is 1. The lengths 2^-80, 2^-120, ..., 2^-240 are tried. The
        slope from such short steps replaces the slope from long steps under three
        conditions:

        1. The slope from short steps has an error of at most `enough`, and these steps
           show no kink.
        2. The slope from long steps is doubtful: its error is larger than `enough`, the
           long steps show a kink, or the two slopes contradict each other.
        3. JAX's derivative of f beside x agrees with the slope from short steps. If JAX
           cannot trace f, the tested derivative must agree instead. Without this
           agreement, f may have lost its digits at short steps: for example, a term in
           float32 may be rounded to 0.

        In two cases, the error of the slope is set to infinity:

        - f computes only in float64, the long steps show a kink, and only condition 3
          fails. A custom derivative rule of f may then be wrong.
        - The three conditions hold, but the steps are about as short as the smallest
          numbers of float32, or shorter. In addition, f computes in a lower precision
          than float64, or JAX cannot trace f.
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
        """Compute the slope as a sum of two slopes along different entries of x.

        One part of v moves the entries of x that are 0, and the other part moves the
        other entries. Where f is smooth, its slope along v is the sum of the slopes
        along these two parts. The steps along the entries that are 0 can be much
        shorter (`approach`). Nothing changes in these cases:

        - All or none of the moved entries are 0.
        - The slope along the entries that are 0 does not need much shorter steps.
        - One of the two slopes has an error above `enough`, or its steps show a kink.
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
        elsewhere floats are not dense enough.

        Let g be the largest distance of a tested rate from the slope, or the jump of
        the slope at the seeming kink if this is larger. Let s be the smallest step at
        which rounding cannot hide that two slopes differ by g. JAX's derivative is
        computed at x, very close to x, and at the ends of the steps ±s, ±8 s and ±64 s
        from x. The error is set to infinity if s is below 2^-20 and four conditions
        hold:

        1. JAX's derivative is about the same at x and very close to x.
        2. At the end of at least one step, JAX's derivative differs by more than g / 4
           from that at x. So the derivative varies within this step.
        3. For ±s, ±8 s or ±64 s, the mean of JAX's derivatives at the two ends is about
           the slope of the values. So JAX's derivative there fits the values.
        4. The tested derivative agrees with JAX's derivative at x.

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

        The longest step is 0.7 times as long as before. The new error estimate is the
        largest of three numbers: the two error estimates, and the distance between the
        two slopes. If the jump of the slope at a kink differs by 30 % or more in the
        second estimate, the jump is set to 0.
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
        floats near a are at least b apart.

        A perturbation of size s multiplies x, and the result of each operation inside
        f, by random factors of about 1 ± s. A smooth f changes in proportion to s. The
        change that comes from x alone is about s times `rate`. But sin(1e20 x) changes
        by at most 2, however far x moves. The error is set to infinity in three cases:

        1. All perturbed values are NaN, as `rounding_of` returns them for a mod b.
        2. f hardly follows a perturbation of a large size s. It changes, but by less
           than 1/8 of s times `rate`, and by less than 1/8 of its change under a small
           perturbation, enlarged in proportion to s.
        3. The derivative at x predicts that f changes more from x to a neighbouring
           float than over all sampled points from x - v to x + v. In addition, the
           derivative differs between the floats beside x. (If it did not differ, the
           derivative would be wrong instead.) The predicted change is about ε times
           `rate`, where ε is the relative spacing of the floats. This test also works
           if rounding errors of larger terms of f hide case 2.

        Cases 1 and 2 are tested only if JAX can trace f, and case 2 only if the
        precision of f is about float32 or higher.

        Args:
          rate: Change of f that the derivative predicts for random relative changes of
            about s in the entries of x, divided by s.
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
        """Enlarge the slope's error if short steps do not confirm the slope.

        The attribute `slope` is an estimate, and the tested derivative differs from it.
        The estimate may be wrong, for example if the curvature of f is large near x. So
        it is compared with central differences at short steps: the shortest steps at
        which rounding errors cannot hide the distance between the estimate and the
        derivative. The short steps are chosen from the steps used so far, then from
        steps up to 2^-20, up to 2^-40, ... In three cases, the error of the estimate is
        set to infinity, because the derivative may be right:

        1. The short steps agree with the derivative (`Slope.agrees_with`).
        2. The short steps agree neither with the derivative nor with the estimate
           (`Slope.refutes`).
        3. Let h be the shortest such step of those used so far. The derivative is
           computed at 16 random pairs of points between x - h v and x + h v. It
           scatters by more than a quarter of the distance between the estimate and the
           derivative at x, and its mean is about the estimate. The values show only
           this mean, because it is equal to the central difference
           (f(x + h v) - f(x - h v)) / (2 h). So the derivative at x may be right
           although it is not the estimate. An example is a fast wave of f that rounding
           errors hide.

        Otherwise, if f bends so sharply at x that its derivative changes much within
        the smallest steps (`Slope.sharp_bend`), the error is at least this change.

        Args:
          rates: Values of the derivative in the tested direction that differ from the
            estimate: by forward mode, by reverse mode, or both.
        """
        gaps: dict[float, float] = {}
        bend = 0.0
        for length in (
            self.length,
            *(short for short in self._shorter if short < self.length),
        ):
            slope, _ = self._at(length)
            found = slope.sharp_bend(_SHORT if length == self.length else 1.0)
            bend = bend if found is None else found  # Shorter steps decide.
            gaps = {rate: abs(rate - self.slope.value) for rate in rates}
            agrees = any(slope.agrees_with(rate, gap) for rate, gap in gaps.items())
            self.is_refuted = not agrees and any(
                slope.refutes(self.slope.value, gap) for gap in gaps.values()
            )
            if agrees or self.is_refuted:
                self.slope = self.slope._replace(error=float("inf"))
                return
        self.is_refuted = any(self._varies_around(gap) for gap in gaps.values())
        least = float("inf") if self.is_refuted else bend
        self.slope = self.slope._replace(error=max(self.slope.error, least))

    def _varies_around(self, gap: float) -> bool:
        """Return whether the tested derivative scatters around the slope (`deny`).

        `gap` is the distance between the slope and the derivative at x. The derivative
        is computed at random pairs of points within the smallest step at which rounding
        errors cannot hide the gap. It must scatter by more than a quarter of the gap,
        and its mean must be about the slope.
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
