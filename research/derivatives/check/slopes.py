"""Estimate of the slope of a function along a line, with an error estimate."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LEVELS = 27  # Number of steps h = 1, 1/2, ..., 2^-26, in units of the direction.
STEPS = 2.0 ** -np.arange(LEVELS)
# Sample points on the line, ascending.
OFFSETS = np.concatenate([-STEPS, [0.0], STEPS[::-1]])
NUDGED = np.arange(0, LEVELS, 4)  # Levels at which rounding is measured.
# The digit to which f is rounded is at least this many rounding errors, and at least
# this many of the sampled values differ.
CLEARLY, DISTINCT = 1e3, 4
NUDGED_OFFSETS = np.concatenate([-STEPS[NUDGED], STEPS[NUDGED][::-1]])
_DEPTH = 4  # Number of Richardson extrapolations.
_SEEN = 40  # A difference of one-sided slopes above this many noise units is visible.
_FEW = 2  # Number of low-noise steps whose agreement is unlikely to be chance.
VISIBLE, HIDDEN = "visible", "hidden"  # Drifts at the smallest steps.
_ABOVE = 3  # Number of larger steps whose changes also bound the noise of a step.
_MANY = 8  # Number of smallest steps that show a jump or a drift.
# If one-sided slopes differ by more than _CLEAR noise units at _SIX steps, noise does
# not change all of the powers with which the difference shrinks by _BENT.
_CLEAR, _SIX, _BENT = 400, 6, 0.002
_SAME = 8  # A difference above this many noise units is a contradiction.


class Slope(NamedTuple):
    """Slope of f along a line through x, at x, estimated from values on the line.

    STEPS are the lengths 1, 1/2, ..., 2^-26 of the steps from x, relative to the
    longest step. LEVELS is the number of these lengths. Let f(h) be the value of f at
    the position h on the line, where x is at 0. For each length h in STEPS, there are
    three estimates of the slope: the right slope (f(h) - f(0)) / h, the left slope
    (f(0) - f(-h)) / h, and their mean, the central difference. The right and the left
    slope are called one-sided. At a kink, they have different limits for h -> 0. The
    noise is the error of a value of f, for example because of rounding.

    Attributes:
      value: Extrapolated central difference; NaN if there is none.
      error: Error estimate of `value`.
      noise: Error of one function value at each length in STEPS, shape (LEVELS,).
      jump: Right slope minus left slope if f has a kink at x; 0 if there is no kink. At
        a kink, this difference does not shrink with the step.
      left, right: One-sided slopes at the smallest step where they differ by more than
        40 times `unsure`. If this step is longer than 2^-5, or if there is none, the
        slopes are those at the step 2^-13.
      bends: Right slope minus left slope at each length in STEPS, shape (LEVELS,).
      unsure: Error of a slope because of noise, at each length in STEPS: the noise
        divided by the length, shape (LEVELS,).
      central: Central difference at each length in STEPS, shape (LEVELS,).
      drifts: Whether the central differences do not converge. This is so if at least
        eight successive halvings of the step length change the central difference by
        about the same amount, down to the steps at which noise hides the changes.
      leap: Size of the jump of f at x, or 0 if there is no jump. The size is the larger
        of two distances: between the values of f on the two sides of x, and between
        f(x) and the mean of these two values. A distance counts only if it is about the
        same at all small steps.
    """

    value: float
    error: float
    noise: np.ndarray
    jump: float
    left: float
    right: float
    bends: np.ndarray
    unsure: np.ndarray
    central: np.ndarray
    drifts: bool = False
    leap: float = 0.0

    def times(self, factor: float) -> "Slope":
        """Return a `Slope` whose slopes and slope errors are multiplied by a factor.

        This changes the unit of length.
        """
        scaled = (
            "value",
            "error",
            "jump",
            "left",
            "right",
            "bends",
            "unsure",
            "central",
        )
        return self._replace(**{name: getattr(self, name) * factor for name in scaled})

    def agrees_with(self, rate: float, gap: float) -> bool:
        """Return whether the central differences at small steps are close to a rate.

        `rate` is the derivative that is checked, and `gap` is its distance from the
        slope that `Values.deny` tests. A step is quiet if noise changes its central
        difference by less than gap / 8. The result is True if the central differences
        at the two smallest quiet steps lie within gap / 4 of the rate. They are then
        much closer to the rate than to the slope.

        Two estimates of the noise are tried, and success with one of them is enough:

        - The first estimate is `unsure`. It may be far too large if only small terms of
          f are computed in a low precision, because it assumes this precision for all
          of f.
        - The second estimate follows from the central differences themselves: how much
          they change from one step to the next, close to this step and at all smaller
          steps.
        """
        return any(
            len(apart) == _FEW and bool((apart < gap / 4).all())
            for apart in (
                np.abs(self._at_small_steps(_SAME * unsure < gap) - rate)
                for unsure in (self.unsure, self._shown())
            )
        )

    def refutes(self, slope: float, gap: float) -> bool:
        """Return whether the central differences at small steps are far from a slope.

        `slope` is the estimate that `Values.deny` tests, and `gap` is its distance from
        the derivative that is checked. A step is quiet if noise changes its central
        difference by less than gap / 8. The result is True if the central differences
        at the two smallest quiet steps fulfil two conditions:

        1. Both are farther from the slope than gap / 2.
        2. Both are farther from the slope than half of their distance from each other.

        If f is smooth and the slope is right, the second condition fails. The distance
        of a central difference from the slope is then its error, which is about
        proportional to the square of the step. The two steps are usually h and h / 2,
        so the errors are about e and e / 4. The two differences are then 3 e / 4 apart,
        and e / 4 is less than half of this.
        """
        apart = self._at_small_steps(_SAME * self.unsure < gap) - slope
        least = np.min(np.abs(apart), initial=np.inf)
        return len(apart) == _FEW and bool(least > max(gap, np.ptp(apart)) / 2)

    def smallest_step(self, gap: float) -> float:
        """Return the smallest step at which noise cannot hide a difference of slopes.

        `gap` is the difference of the slopes. Noise cannot hide it at a step where
        `unsure` is less than gap / 8. The result is NaN if there is no such step.
        """
        steps = STEPS[_SAME * self.unsure < gap]
        return float(steps[-1]) if len(steps) else float("nan")

    def _at_small_steps(self, quiet: np.ndarray) -> np.ndarray:
        """Return the central differences at the two smallest of the quiet steps."""
        return self.central[np.isfinite(self.central) & quiet][-_FEW:]

    def _shown(self) -> np.ndarray:
        """Estimate the errors of the central differences from their own changes.

        For each step, the changes from one central difference to the next are taken at
        this step, at the next three larger steps and at all smaller ones. Each change
        is multiplied by its step, so it is a change of f. The result is the largest of
        them, divided by the step. It is infinite at steps so small that f does not
        change, or that the central differences are all equal.
        """
        with np.errstate(all="ignore"):
            moved = np.abs(np.diff(self.central, append=np.nan)) * STEPS
        moved = np.where(np.isfinite(moved), moved, 0.0)
        below = np.maximum.accumulate(moved[::-1])[::-1]
        above = np.max([np.roll(moved, k) for k in range(1, _ABOVE + 1)], axis=0)
        shown = np.maximum(below, above) / STEPS
        return np.where((self.central != 0) & (shown > 0), shown, np.inf)

    def sharp_bend(self, longest: float) -> float | None:
        """Return by how much the derivative may change within the smallest clear step.

        A step is clear if the right slope minus the left slope there is more than 400
        times `unsure`. This difference shrinks with a power of the step. For a smooth
        f, the power is 1, or at least 3 where the second derivative is 0. For |t|^1.8
        at 1e-9, the power is 0.8 at steps above 1e-9. If the six smallest clear steps
        show another power from 0.1 to 2, from each to the next, the result is the
        difference at the smallest of them. Otherwise it is 0. The result is None if
        fewer than six steps of at most `longest`, one after another, are clear.
        """
        sizes = np.abs(self.bends)
        clear = np.flatnonzero(np.isfinite(sizes) & (sizes > _CLEAR * self.unsure))
        some = clear[-_SIX:]
        if len(some) < _SIX or some[-1] - some[0] != _SIX - 1:
            return None
        if STEPS[some[0]] > longest:
            return None
        powers = -np.diff(np.log2(sizes[some]))
        off = np.abs(powers - 1)
        is_sharp = (powers > 0.1).all() and (powers < 2).all() and off.min() > _BENT
        # Higher derivatives of a smooth f make the power differ from 1, too, but a
        # quarter as much at half the step.
        return float(sizes[some[-1]]) if is_sharp and 2 * off[-1] > off[0] else 0.0

    def contradicts(self, jump: float) -> bool:
        """Return whether the slopes at some step rule out a kink with this jump.

        `jump` is the right slope minus the left slope at the kink. A step rules out the
        kink if the two slopes differ by less than half of the jump, and noise cannot be
        the reason: `unsure` is less than 1/32 of the jump.
        """
        return bool(
            (
                (_SAME * self.unsure < 0.25 * abs(jump))
                & (np.abs(self.bends) < 0.5 * abs(jump))
            ).any()
        )


def slope_at_middle(
    values: Float[np.ndarray, "n"], rounding: float | Float[np.ndarray, "levels"]
) -> Slope:
    """Estimate the derivative of f along a line, from values of f on the line.

    The derivative is taken at the middle of the line. The constants of this module
    define the points: STEPS are the step lengths 1, 1/2, ..., 2^-26, LEVELS is their
    number, and OFFSETS are the positions of the points, which are 0 (the middle) and
    ±STEPS.

    For each step length h, there is a central difference (f(h) - f(-h)) / (2 h), where
    f(h) is the value at the position h. Richardson's table extrapolates them to h = 0.
    The result is the entry of the table with the smallest error estimate. The error
    estimate of an entry combines two parts: the distances of the entry from its
    neighbours, and the effect of the noise of the values on the entry. The noise is
    `rounding`, or the scatter of the values at the smallest steps if that is larger.
    An entry is left out if the central differences at smaller steps contradict it.

    The error is infinite in three cases:

    - The scatter is more than 1/1000 of the range of the values, and more than 100
      times `rounding`. Then f jumps, or varies much within the smallest step.
    - Each halving of small steps changes the central difference by about the same
      amount, so the central differences do not converge.
    - f jumps at the middle (`Slope.leap`).

    Args:
      values: Values of f at OFFSETS in ascending order, shape (2 LEVELS + 1,). Values
        that are not finite are skipped.
      rounding: Lower bound on the rounding error of a value: either one number, or an
        array with one number for each length in STEPS.
    Returns:
      The `Slope`.
    """
    middle, right = values[LEVELS], values[LEVELS + 1 :][::-1]
    left = values[:LEVELS]
    with np.errstate(all="ignore"):
        central = (right - left) / (2 * STEPS)
        scatter = _scatter(central)
        noise = np.maximum(np.broadcast_to(rounding, STEPS.shape), scatter)
        value, error = _extrapolated(central, noise, 4)
        change = spread(values)
        if change and scatter > max(1e-3 * change, 100 * float(np.min(rounding))):
            # f jumps, or changes faster than the smallest step: the slope is unknown.
            error = float("inf")
        drift = _drift(central, noise / STEPS)
        forward, backward = (right - middle) / STEPS, (middle - left) / STEPS
        bends, unsure = forward - backward, noise / STEPS
        leap = max(
            4 * _leap(central, float(np.min(rounding))),
            _leap(bends, 4 * float(np.min(rounding))),
        )
        if drift or leap:
            error = float("inf")
        jump, level = _jump(bends, unsure)
    return Slope(
        value,
        error,
        noise,
        jump,
        float(backward[level]),
        float(forward[level]),
        bends,
        unsure,
        central,
        drift == HIDDEN,
        leap,
    )


def _leap(quotients: np.ndarray, rounding: float) -> float:
    """Return |a| if the quotients contain 2 a / h at the smallest steps h, else 0.

    If they do, all changes from one quotient to the next, times the smaller of the two
    steps, are about a. If f jumps by b at the middle, the central differences contain
    b / (2 h), so a is b / 4. If only f(x) is off by b, the right slope minus the left
    slope contains 2 b / h in absolute value, so |a| is |b|.
    """
    sizes = (np.diff(quotients) * STEPS[1:])[-_MANY:]
    if not _are_alike(sizes, 0.5) or not np.min(np.abs(sizes)) > 100 * rounding:
        return 0.0
    return float(np.min(np.abs(sizes)))


def _drift(central: np.ndarray, unsure: np.ndarray) -> str:
    """Return how the central differences drift, or "" if they do not.

    If the slope changes like log h, the central differences change by the same amount
    from step to step. If the slope converges, the changes shrink. The result is VISIBLE
    if the drift is visible down to the smallest steps, or HIDDEN if noise hides it
    there.
    """
    changes = np.diff(central)
    visible = np.abs(changes) > 20 * (unsure[1:] + unsure[:-1])
    shown = np.flatnonzero(visible)
    if len(shown) < _MANY or shown[-1] - shown[-_MANY] != _MANY - 1:
        return ""
    if not _are_alike(changes[shown[-_MANY:]], 0.7):
        return ""
    return VISIBLE if shown[-1] == len(changes) - 1 else HIDDEN


def _are_alike(numbers: np.ndarray, least: float) -> bool:
    """Return whether numbers have one sign and are about equally large.

    The smallest absolute value must be larger than `least` times the largest.
    """
    sizes = np.abs(numbers)
    return bool(
        np.isfinite(numbers).all()
        and abs(np.sum(np.sign(numbers))) == len(numbers)
        and np.min(sizes) > least * np.max(sizes)
    )


def noise_of_levels(
    nudged: Float[np.ndarray, "m"],
    values: Float[np.ndarray, "n"],
    floor: float,
    epsilon: float,
) -> Float[np.ndarray, "levels"]:
    """Return the rounding error of a value of f at each of the distances STEPS from x.

    f is evaluated at points on a line through x. The offset of a point is its position
    on the line, and x has the offset 0. STEPS are the distances 1, 1/2, ..., 2^-26.

    The rounding errors were measured at a few offsets, the NUDGED_OFFSETS. The result
    interpolates them. It is at least ε / 2 times the sum of |f| and |f'|, where f' is
    the derivative with respect to the offset. The term |f'| is there because x is
    rounded, too. The size of x is about one unit of the offset, so this rounding moves
    the point by about ε / 2 in units of the offset.

    Args:
      nudged: Measured rounding error at each of NUDGED_OFFSETS, which are ±1, ±1/16,
        ..., ±2^-24 in ascending order, shape (14,). NaN where the error is unknown.
      values: Values of f at OFFSETS, which are 0 and ±STEPS in ascending order.
      floor: Another lower bound of the result.
      epsilon: Relative spacing ε of the floats in which f is computed.
    Returns:
      Rounding error at each distance in STEPS. The error does not increase towards
      smaller distances.
    """
    left, right = values[:LEVELS], values[LEVELS + 1 :][::-1]
    with np.errstate(all="ignore"):
        sizes = np.maximum(_finite(np.abs(left)), _finite(np.abs(right)))
        slopes = np.maximum(
            _finite(np.abs(np.diff(left))), _finite(np.abs(np.diff(right)))
        ) / -np.diff(STEPS)
        # x itself is rounded by ε times its size, and its size is about a step of 1.
        least = np.maximum(epsilon / 2 * (sizes + np.append(slopes, 0.0)), floor)
        two = _finite(nudged).reshape(2, -1)
        measured = np.maximum(
            root_mean_square(np.stack([two[0], two[1][::-1]])), np.finfo(float).tiny
        )
    between = np.exp(np.interp(np.arange(LEVELS), NUDGED, np.log(measured)))
    return np.maximum.accumulate(np.maximum(least, between)[::-1])[::-1]


def is_constant_near(values: Float[np.ndarray, "n"]) -> bool:
    """Return whether f is constant at the points closest to x on at least one side.

    `values` are the values of f at OFFSETS, points on a line through x. The result is
    True if, on at least one side of x, f has the same value at x and at the two points
    closest to x.
    """
    left, right = values[LEVELS - 2 : LEVELS + 1], values[LEVELS : LEVELS + 3]
    return bool(np.ptp(left) == 0 or np.ptp(right) == 0)


def quantum(values: Float[np.ndarray, "n"], epsilon: float) -> float:
    """Return the number q if f looks rounded to multiples of q, otherwise 0.

    The result is q if the values have four properties:

    - All of their differences are multiples of q.
    - On at least one side of x, the values at x and at the two points closest to x are
      equal.
    - There are at least four different values.
    - q is more than 1000 times the rounding error ε |f| of the values.

    A function that rounds its value to a few digits has the first two properties.

    Args:
      values: Values of f at OFFSETS. Those that are not finite are left out.
      epsilon: Relative spacing ε of the floats in which f is computed.
    """
    levels = np.unique(values[np.isfinite(values)])
    if len(levels) < DISTINCT or not is_constant_near(values):
        return 0.0
    gaps = np.sort(np.diff(levels))
    q = float(gaps[0])
    if not q > CLEARLY * epsilon * np.abs(levels).max():
        return 0.0
    for gap in gaps:
        multiple = np.round(gap / q)
        if abs(gap / q - multiple) > 0.02:
            return 0.0
        q = float(gap / multiple)  # A larger gap has a smaller relative error.
    return q


def root_mean_square(values: np.ndarray) -> np.ndarray:
    """Return √(mean of the squares) over the first axis.

    The sum of the squares does not overflow or underflow. Before the values are
    squared, they are divided by a power of two near the largest absolute value.
    """
    largest = np.max(np.abs(values), axis=0)
    unit = np.ldexp(1.0, np.frexp(np.where(largest > 0, largest, 1.0))[1] - 1)
    return unit * np.sqrt(np.mean((values / unit) ** 2, axis=0))


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, 0.0)


def remainder_slope(
    values: Float[np.ndarray, "n"],
    derivative: float,
    noise: Float[np.ndarray, "levels"],
) -> float:
    """Return the order of the Taylor remainder |f(x + h v) - f(x) - h f'(x) v| in h.

    The order is measured at the four smallest steps h > 0 whose remainder exceeds 20
    times the noise. For a correct derivative, the order is about 2, or higher if the
    second derivative along v is 0. For a wrong derivative, the order is about 1,
    because the remainder contains a term in h.

    Args:
      values: Values f(x + h v) at h = 0, ±1, ±1/2, ..., ±2^-26 in ascending order.
      derivative: The rate f'(x) v.
      noise: Error of a value at each step length 1, 1/2, ..., 2^-26.
    Returns:
      The order. It is NaN if fewer than four steps have a remainder above 20 times the
      noise, or if the four smallest of these steps are not consecutive.
    """
    with np.errstate(all="ignore"):
        remainder = np.abs(
            values[LEVELS + 1 :][::-1] - values[LEVELS] - STEPS * derivative
        )
        steps = np.flatnonzero(np.isfinite(remainder) & (remainder > 20 * noise))
    if len(steps) < 4 or steps[-1] - steps[-4] != 3:
        return float("nan")
    last = steps[-1]
    return float(np.log2(remainder[last - 3] / remainder[last]) / 3)


def spread(values: Float[np.ndarray, "n"]) -> float:
    """Return the largest minus the smallest finite value, or 0 if none is finite."""
    finite = values[np.isfinite(values)]
    return float(np.ptp(finite)) if len(finite) else 0.0


def _scatter(central: np.ndarray) -> float:
    """Estimate the noise of one value from the scatter of quotients at small steps."""
    scatter = np.abs(np.diff(central))[-8:] * STEPS[-8:]
    scatter = scatter[np.isfinite(scatter)]
    return float(np.median(scatter)) if len(scatter) else 0.0


def limit_of_slopes(
    slopes: Float[np.ndarray, "levels"], noise: Float[np.ndarray, "levels"]
) -> tuple[float, float]:
    """Return the limit of slopes as the step goes to 0, and an error estimate.

    The slopes are given at the step lengths in STEPS, which are 1, 1/2, ..., 2^-26. The
    slopes are extrapolated as a power series in the step length h. (For central
    differences, a series in h² is enough. One-sided slopes need all powers of h.)

    Args:
      slopes: Slope at each length h in STEPS. Slopes that are not finite are skipped.
      noise: Error of the product h · slope at each length.
    Returns:
      (limit, error estimate).
    """
    with np.errstate(all="ignore"):
        return _extrapolated(slopes, noise, 2)


def _extrapolated(
    slopes: np.ndarray, noise: np.ndarray, base: int
) -> tuple[float, float]:
    """Return the limit of slopes for h -> 0, and its error estimate.

    Args:
      slopes: Slope at each length h in STEPS.
      noise: Error of the product h · slope at each length.
      base: 4 if the error of a slope is a series in h², and 2 if it is one in h.
    """
    column, moved, best = slopes, noise / STEPS, (float("nan"), float("inf"))
    for j in range(1, _DEPTH + 1):
        power = base**j
        longer = (power * column[1:] - column[:-1]) / (power - 1)
        moved = (power * moved[1:] + moved[:-1]) / (power - 1)  # Largest effect.
        error = (
            _truncation(
                np.maximum(np.abs(longer - column[1:]), np.abs(longer - column[:-1])),
                power,
            )
            + moved / 2
        )
        fine = np.isfinite(error) & _agrees_with_smaller_steps(
            longer, error, slopes, noise, j
        )
        error = np.where(fine, error, np.inf)
        k = int(np.argmin(error))
        if error[k] < best[1]:
            best = float(longer[k]), float(error[k])
        column = longer
    return best


def _truncation(distances: np.ndarray, power: int) -> np.ndarray:
    """Return distances of table entries from their neighbours, with a lower bound.

    Between one step and the next smaller one, the truncation error falls by the factor
    `power`, and the noise doubles. This gives two predictions of each distance, one
    from each neighbouring step. If the distance is smaller than a prediction, it is
    small by accident, and the larger prediction is returned.
    """
    fallen = np.concatenate([[0.0], distances[:-1]]) / power
    grown = np.append(distances[1:], 0.0) / 2
    return np.where(
        np.isnan(distances), np.inf, np.fmax(distances, np.fmax(fallen, grown))
    )


def _agrees_with_smaller_steps(
    longer: np.ndarray,
    error: np.ndarray,
    slopes: np.ndarray,
    noise: np.ndarray,
    j: int,
) -> np.ndarray:
    """Return for each entry whether the quotients at smaller steps agree with it.

    A quotient agrees if it lies at most about twice as far from the entry as the
    quotient at the entry's own step. This test is needed because long steps may span
    whole waves of f: their quotients are all small, and agree only with each other.
    """
    own = (2 * np.abs(slopes[j:] - longer) + 2 * error)[:, None]
    off = np.abs(slopes[None, :] - longer[:, None])
    smaller = np.arange(LEVELS)[None, :] > np.arange(j, LEVELS)[:, None]
    return np.logical_not((smaller & (off > own + 6 * noise / STEPS)).any(axis=1))


def _jump(differences: np.ndarray, unsure: np.ndarray) -> tuple[float, int]:
    """Find the jump in slope at a kink, and the index of the step that shows it.

    The jump is 0 if there is no kink. Let J(h) be the difference of one-sided slopes at
    the step h. For a smooth function, J halves with the step, so 2 J(h / 2) - J(h) is
    about 0. At a kink, 2 J(h / 2) - J(h) equals the jump in slope. There is a kink if
    this expression is the same at many steps and no smaller step contradicts it.
    """
    visible = np.isfinite(differences) & (np.abs(differences) > _SEEN * unsure)
    levels = np.flatnonzero(visible)
    if not len(levels) or levels[-1] < 5:
        return 0.0, min(LEVELS - 1, 13)
    k = int(levels[-1])
    if not visible[k - 4 : k].all():
        return 0.0, k
    without_curvature = 2 * differences[k - 3 : k + 1] - differences[k - 4 : k]
    jump = float(np.median(without_curvature))
    stays = np.ptp(without_curvature) < 0.3 * abs(jump) and abs(jump) > 0.5 * abs(
        differences[k]
    )
    beyond = slice(k + 1, None)
    agrees = ~(np.abs(differences[beyond] - jump) > _SAME * unsure[beyond])
    return (float(differences[k]), k) if stays and agrees.all() else (0.0, k)
