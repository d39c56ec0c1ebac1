"""Result of a derivative check, and its report as text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from research.columns import aligned

# At a kink, a rate may lie outside the two slopes by this share of their difference.
BESIDE = 0.02
# An error may come from a tolerance, as of an adjoint ODE, below this relative size.
APPROXIMATE = 1e-5
AT_ZERO, NOT_ZERO = "entries that are 0", "entries that are not 0"


class Probe(NamedTuple):
    """Derivative of a function f along one direction v, computed in three ways.

    A rate is the derivative of f(x + h v) with respect to h at h = 0. If f has several
    outputs, f stands for the inner product ⟨w, f⟩ with random weights w.

    A direction has one of these names:

    - "random 3", or another number: a random direction.
    - "gradient": the direction of the gradient.
    - "leaf " and the leaf's name: a direction that moves only this leaf of x. If only a
      part of the leaf moves, the name also contains the entries.
    - "entries that are 0" or "entries that are not 0": a direction that moves only
      these entries of x.
    - "outputs 0 to 3 along random 1", or similar: the direction "random 1", where the
      other outputs have weight 0.

    Attributes:
      name: Name of the direction, as in the list above.
      forward: Rate by forward mode. NaN if f has no forward mode, or if the user gave
        the derivative.
      reverse: Rate by reverse mode, or by the derivative that the user gave. NaN if
        neither exists.
      differences: Slope from differences of f.
      floor: Tolerance of the comparison: a rate counts as wrong if its distance from
        `differences` is larger. The tolerance is five times the error estimate of
        `differences` plus ten times the rounding error.
      scale: Number by which errors along v are divided to make them relative. Usually,
        `scale` is the root mean square of the rate over random directions, or
        |differences| if f has no reverse mode. If this number is not larger than its
        rounding error, the gradient counts as 0. In this case, `scale` is the
        difference of the largest and the smallest value of f at sampled points from x -
        v to x + v. If f hardly changes there, `scale` is the size of f.
      taylor_slope: Order p of the Taylor remainder |f(x + h v) - f(x) - h rate| ≈ C h^p
        at small steps h. The rate is `reverse`, or `forward` if `reverse` is not
        finite. The order is about 2 for a correct derivative and 1 for a wrong one. NaN
        if the remainder is not visible above the rounding error.
      jump: Difference `right` - `left` of the slopes at a kink, and 0 if there is no
        kink.
      left, right: Slopes of f along v for h < 0 and for h > 0. If `is_nearby` is True,
        the smallest and the largest slope at points near x.
      is_nearby: Whether the kink shows only in the slopes at points near x.
    """

    name: str
    forward: float
    reverse: float
    differences: float
    floor: float
    scale: float
    taylor_slope: float
    jump: float
    left: float
    right: float
    is_nearby: bool = False

    @property
    def is_kink(self) -> bool:
        """Whether f has a kink along the direction.

        The result is True in two cases:

        - |jump| is larger than `floor` and larger than 1e-6 `scale`.
        - |jump| is larger than `floor`, `is_off` is True, and `gap` is at most 3/4 of
          |jump|. The kink then explains the error of the derivative. (At a kink,
          `differences` is the mean of `left` and `right`. A derivative that is one of
          these slopes then has the gap |jump| / 2.)
        """
        # At a kink the derivative may differ from the central slope by half the jump.
        explains = self.is_off and self.gap <= 0.75 * abs(self.jump)
        return abs(self.jump) > (
            self.floor if explains else max(self.floor, 1e-6 * self.scale)
        )

    @property
    def is_off_beside_kinks(self) -> bool:
        """Whether the derivative has an error that a kink does not explain.

        There are two such cases:

        - `is_kink` is False, `jump` is 0, and `is_off` is True. In addition, the
          direction moves only one leaf or only the entries that are not 0, or the
          weights are 0 outside a part of the outputs.
        - `is_kink` is True, and a rate lies outside the range from `left` to `right`,
          at a distance that is larger than `floor`, than 1e-6 `scale` and than 2 % of
          |jump|. A smaller distance is allowed because the two slopes are not exact if
          f is curved.
        """
        if not self.is_kink:
            parts = ("leaf ", "output", NOT_ZERO)
            return self.is_off and self.jump == 0 and self.name.startswith(parts)
        low, high = sorted((self.left, self.right))
        # Both slopes contain curvature over a step.
        allowed = max(self.floor, 1e-6 * self.scale, BESIDE * abs(self.jump))
        rates = [rate for rate in (self.forward, self.reverse) if not np.isnan(rate)]
        return any(not low - allowed <= rate <= high + allowed for rate in rates)

    @property
    def gap(self) -> float:
        """Largest distance of the forward and reverse rates from `differences`.

        A rate that is NaN is left out. The result is infinity if both are NaN.
        """
        gaps = [
            abs(rate - self.differences)
            for rate in (self.forward, self.reverse)
            if not np.isnan(rate)
        ]
        return max(gaps, default=float("inf"))

    @property
    def dot_product_gap(self) -> float:
        """Gap |⟨Jv, w⟩ - ⟨v, Jᵀw⟩| of forward and reverse mode, divided by `scale`.

        J is the Jacobian, v is the direction, w are the weights of the outputs, and ⟨,⟩
        is the inner product. In exact arithmetic, the two inner products are equal. The
        result is NaN if one of the two modes is missing.
        """
        return abs(self.forward - self.reverse) / self.scale

    @property
    def is_off(self) -> bool:
        """Whether `gap` exceeds `floor`, so that the derivative counts as wrong."""
        return bool(self.gap > self.floor)


class CheckReport(NamedTuple):
    """Result of `check_derivative`.

    `bool(report)` is True if the verdict is "right", and False otherwise.

    The field `smallest_error` says how small an error the check would have detected. A
    relative error is the norm of the error divided by the norm of the whole gradient.
    For several kinds of errors, the check computes the smallest relative error that it
    would detect with probability 0.99. `smallest_error` is the largest of these
    numbers, which belongs to the kind that is hardest to detect. Infinite numbers are
    left out. The kinds of errors are:

    - An error in a random direction, with the Euclidean norm.
    - An error in a random direction, with a weighted norm. For this norm, each leaf of
      the error and of the gradient is first multiplied by the root mean square of the
      same leaf of x.
    - A wrong factor of the whole derivative. Such an error is detected with certainty,
      not only with probability 0.99.
    - If x has several leaves: an error that is 0 outside one leaf. There is one such
      kind for each leaf.

    If the gradient is 0, an error cannot be divided by the norm of the gradient.
    Instead, the error along a direction v is divided by the change of f between x - v
    and x + v, where v is about as long as x. If rounding hides this change, the error
    along v is divided by the size of f.

    Attributes:
      verdict: "right", "wrong", "kink" (f has no derivative at x), "unresolved" (the
        values of f do not decide), or "nan" (f is not finite, or the derivative is not
        finite in float64 or in the dtype of x).
      smallest_error: Smallest relative error of the derivative that this check would
        detect, as described above. Infinite for the verdict "nan", and if the slopes of
        f are too large for floats.
      relative_error: Largest relative error |d - s| / scale that was observed along a
        direction. Here d is the tested derivative along the direction, s is the slope
        from differences of f, and `scale` is a field of the direction's `Probe`.
      taylor_slope: Power p for which the Taylor remainder |f(x + h v) - f(x) - h d|
        shrinks like h^p, where d is the tested derivative along v. This is the median
        over the random directions v. p is about 2 for a correct derivative and 1 for a
        wrong derivative. NaN if f is linear along the directions.
      dot_product_gap: Relative difference between forward and reverse mode: the largest
        value of |⟨Jv, w⟩ - ⟨v, Jᵀw⟩| / scale over all probes. J is the Jacobian. v is
        the direction of the probe, w are the weights of the outputs in this probe, and
        `scale` is a field of the probe. NaN if forward or reverse mode is missing.
      probes: Tuple with one `Probe` for each direction.
      precision: Text that names the precision in which f and its derivative were
        evaluated.
      own_precision_gap: Relative distance between the derivative in the precision of x
        and the derivative in float64. Infinite if the derivative is not finite in the
        precision of x. NaN if the two were not compared, for example because x is
        already in float64.
      explanation: Text that gives the reason for the verdict. If an error was found,
        the text names the leaf or the direction, and says whether the cause is a kink
        or a bug. For the verdict "right", the text is empty unless the gradient is 0 up
        to rounding, or the derivative has few correct digits in the precision of x.
    """

    verdict: str
    smallest_error: float
    relative_error: float
    taylor_slope: float
    dot_product_gap: float
    probes: tuple[Probe, ...]
    precision: str
    own_precision_gap: float
    explanation: str

    @property
    def is_right(self) -> bool:
        """Whether the verdict is "right"."""
        return self.verdict == "right"

    def __bool__(self) -> bool:
        """Return `is_right`, so that `assert check_derivative(...)` finds an error."""
        return self.is_right

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """Return the verdict, the smallest detectable error and all probes as text."""
        slope = (
            "not visible above the rounding error"
            if np.isnan(self.taylor_slope)
            else f"{self.taylor_slope:.2f}"
        )
        dots = (
            "only one mode"
            if np.isnan(self.dot_product_gap)
            else f"{self.dot_product_gap:.1e}"
        )
        is_finite = np.isfinite(self.relative_error)
        distance = (
            f"{self.relative_error:.1e} from differences of f (relative)"
            if is_finite
            else "not finite"
        )
        if self.verdict == "unresolved" and not is_finite:
            distance = "finite"
        lines = [
            f"{self.verdict}: the derivative is {distance}.",
            "Smallest relative error that this check would catch: "
            f"{self.smallest_error:.1e}.",
            *([self.explanation] if self.explanation else []),
            f"Taylor remainder: slope {slope} (2 if right, 1 if wrong). Dot products, "
            f"forward minus reverse: {dots}.",
            self.precision,
        ]
        if not np.isnan(self.own_precision_gap):
            lines.append(
                "In x's own precision the derivative differs by "
                f"{self.own_precision_gap:.1e} (relative)."
            )
        rows = [
            ("direction", "forward", "reverse", "differences", "gap", "floor", "slope"),
            *map(_row, self.probes),
        ]
        return "\n".join([*lines, *aligned(rows)])


def _row(probe: Probe) -> tuple[str, ...]:
    rates = (
        f"{rate:.9g}" for rate in (probe.forward, probe.reverse, probe.differences)
    )
    mark = " *" if probe.is_off else ""
    return (
        probe.name,
        *rates,
        f"{probe.gap:.1e}{mark}",
        f"{probe.floor:.1e}",
        f"{probe.taylor_slope:.2f}",
    )


def explained(
    verdict: str,
    probes: tuple[Probe, ...],
    f: str,
    is_finite: bool,
    chooses: bool,
    hidden: Sequence[str] = (),
) -> str:
    """Return a text that explains the verdict of a check, or "" if none is needed.

    The check compares the derivative of a function f with the values of f.

    Args:
      verdict: Verdict of the check, as in `CheckReport`.
      probes: Results of the check, one Probe for each direction.
      f: Name of the function.
      is_finite: Whether f is finite at x.
      chooses: Whether f selects between two values, as `where` does. If the derivative
        is not finite, the text then names `where` as a possible cause.
      hidden: Names of the leaves of x in which steps hardly change f.
    """
    if verdict == "nan":
        return (
            _not_finite(probes, f, chooses)
            if is_finite
            else f"{f} is not finite at x itself. Choose another point."
        )
    if verdict == "kink":
        worst = max(probes, key=lambda probe: abs(probe.jump) / probe.scale)
        says = worst.forward if np.isnan(worst.reverse) else worst.reverse
        where = (
            f"lies between {worst.left:.6g} and {worst.right:.6g} at points around it"
            if worst.is_nearby
            else f"is {worst.left:.6g} before the point and {worst.right:.6g} after it"
        )
        return (
            f"{f} has a kink here, and the check finds no other error. Along "
            f"{worst.name} the slope {where}. The derivative does not exist; "
            f"{says:.6g} is a convention."
        )
    if verdict == "unresolved" and hidden:
        return (
            f"Inconclusive: steps of the size of {', '.join(hidden)} hardly change "
            f"{f}, so its values do not show an error of the derivative there. Check "
            f"{'it' if len(hidden) == 1 else 'them'} with the other leaves fixed."
        )
    if verdict == "unresolved":
        return (
            f"Inconclusive: the values of {f} are too coarse or too noisy near the "
            f"point, or {f} jumps there, or it changes within less than the smallest "
            "step."
        )
    return _bug(probes, f) if verdict == "wrong" else ""


def at_the_edge(f: str) -> str:
    """Return the explanation of a check in which f is not finite at points beside x.

    `f` is the name of the function.
    """
    return (
        f"Inconclusive: {f} is not finite at points beside x, along every random "
        f"direction, so there is no slope to compare with. Is x at the edge of {f}'s "
        "domain? Check the derivative at a point inside."
    )


def underflowing(f: str) -> str:
    """Return the explanation of a check in which numbers are too small for their dtype.

    `f` is the name of the function.
    """
    return (
        f"Inconclusive: x or numbers inside {f} or its derivative are so close to 0 "
        "that floats have too few digits there or round to 0. Check a scaled function "
        "of a scaled x."
    )


def beyond_range(f: str) -> str:
    """Return the explanation of a check that fails because f changes too fast.

    In such a check, f and f' are finite, but the slope of f times a step of the size of
    x is larger than the largest float64. `f` is the name of the function.
    """
    return (
        f"Inconclusive: the slope of {f} times a step of the size of x is beyond the "
        "range of float64. Check a scaled function of a scaled x."
    )


def _not_finite(probes: tuple[Probe, ...], f: str, chooses: bool) -> str:
    bad = [p for p in probes if not (np.isnan(p.forward) or np.isfinite(p.forward))]
    alone = not bad and not all(np.isnan(p.forward) for p in probes)
    where = ", in reverse mode only" if alone else ""
    text = f"The derivative is not finite although {f} is{where}: "
    text += f"explain({f}, x).first_nonfinite() names the line."
    slope = next(
        (p for p in probes if np.isfinite(p.differences) and np.isfinite(p.floor)), None
    )
    if slope is not None:
        text += (
            f" Central differences of {f} show the slope {slope.differences:.6g} ± "
            f"{slope.floor:.1g} along {slope.name}. (At a kink, they show the mean of "
            "the slopes on the two sides.)"
        )
    if chooses:
        text += (
            " The cause may be a `where`: it computes both branches, and reverse mode "
            "multiplies the derivative of the unused one by 0; infinity times 0 is "
            "nan. Give that branch an argument where it is smooth (the double where): "
            "where(ok, g(where(ok, x, 1.0)), other) instead of where(ok, g(x), other)."
        )
    return text


DRAWS = (
    "the numbers of jax.random depend on the dtype. Name it: "
    "jax.random.normal(key, shape, jnp.float32)."
)


def other_values(f: str, own: Any, in_float64: Any) -> str:
    """Return the text of a report on an f whose value at x depends on the precision.

    The text says that f computes something else in float64 than in the precision of x,
    for example because f draws random numbers. The check of the derivative is therefore
    inconclusive.

    Args:
      f: Name of the function.
      own, in_float64: Value of f in the precision of x, and value of f in float64.
    """
    return (
        f"Inconclusive: {f} computes something else in float64, which this check uses, "
        f"than in the precision of x: {np.ravel(own)[0]:.6g} in the precision of x and "
        f"{np.ravel(in_float64)[0]:.6g} in float64. For example, {DRAWS}"
    )


def other_gradients(f: str, apart: float, own: Any, in_float64: Any) -> str:
    """Return the text of a report on an f whose gradient depends on the precision.

    Args:
      f: Name of the function.
      apart: Distance between the gradients in the precision of x and in float64,
        divided by the norm of the gradient in float64.
      own, in_float64: Value of f in the precision of x, and value of f in float64.
    """
    return (
        f"Inconclusive: the gradients of {f} in the precision of x and in float64, "
        f"which this check uses, differ by {apart:.2g} times the size of the gradient. "
        f"(The values are {np.ravel(own)[0]:.6g} and {np.ravel(in_float64)[0]:.6g}.) "
        "There are two likely causes. Close to a minimum, most digits of a gradient "
        f"cancel: check it further away, or at an x of float64. And {DRAWS}"
    )


def leaping(f: str, direction: str, leap: float) -> str:
    """Return the text of a report on an f that jumps at x.

    Args:
      f: Name of the function.
      direction: Name of a direction along which f jumps.
      leap: Size of the jump.
    """
    return (
        f"Inconclusive: {f} seems to jump at the point. Along {direction}, a value "
        f"there and a value beside it differ by about {leap:.3g}, even over the "
        "shortest step of the check. If a `where` gives the value at a single point, "
        "check that this value is the limit. If entries of x differ very much in size, "
        "this step is long for the small ones: check these entries alone."
    )


def hiding(f: str, direction: str, distance: float) -> str:
    """Return the text of a report on an f whose changes are hidden by rounding.

    If the entries of x that are 0 move a little, JAX's derivative changes, but the
    values of f change by no more than the rounding error of f.

    Args:
      f: Name of the function.
      direction: Name of a direction that moves entries of x that are 0.
      distance: Length of a step, as a multiple of the direction. Up to this length, the
        change of f is at most its rounding error.
    """
    return (
        f"Inconclusive: along {direction}, JAX's derivative of {f} changes near "
        f"entries of x that are 0, within a step of {distance:.1g}. The change of {f} "
        "over this step is not larger than its rounding error, so the values do not "
        f"show it. Check this part of {f} without the terms that are large at x."
    )


def not_finite_in(dtype: str, f: str) -> str:
    """Return the text of a report on a derivative that is finite only in float64.

    Args:
      dtype: Name of the dtype of x.
      f: Name of the function.
    """
    return (
        f"The derivative is not finite in {dtype}, the precision of x. In float64 it "
        f"is right. An intermediate value is beyond the range of {dtype}, or 0 in "
        f"{dtype}. If the derivative is JAX's, explain({f}, x).first_nonfinite() names "
        f"the line of {f}."
    )


def coarse_in(dtype: str) -> str:
    """Return a sentence that says that a derivative has few correct digits.

    The report contains this sentence if the verdict is "right", but the derivative is
    not accurate when it is computed in `dtype`, the dtype of x.
    """
    return (
        f"In {dtype}, the precision of x, the derivative has few right digits: most of "
        f"them cancel, or a value is beyond the range of {dtype}."
    )


def coarse_derivative(eps: float) -> str:
    """Return the text of a report on a user's derivative that has a low precision.

    `eps` is the relative spacing of the floats in which the user's function returns the
    derivative.
    """
    return (
        f"Inconclusive: the derivative is returned in floats with a spacing of "
        f"{eps:.1g}, and their rounding hides errors. Return it in float32 or float64."
    )


def vanishing(f: str, smallest: float, of_change: float, by_size: bool) -> str:
    """Return the explanation of a check in which the gradient is 0 up to rounding.

    The text says how small an error of the gradient the check can detect.

    Args:
      f: Name of the function.
      smallest: Smallest error that the check can detect, relative to the gradient.
      of_change: Smallest error that the check can detect, relative to the size of f if
        `by_size` is true, and to the change of f over a step otherwise.
      by_size: Whether `of_change` is relative to the size of f. This is so if f hardly
        changes over a step.
    """
    times = (
        f", which is {smallest:.1e} times the gradient" if smallest != of_change else ""
    )
    return (
        f"The gradient is zero, or not larger than the rounding error of {f}. The "
        f"smallest error that this check would catch is {of_change:.1e} times the "
        f"{'size' if by_size else 'change'} of {f} over a step of the size of x{times}."
    )


def wrong_beside(f: str, derivative: float, slope: float) -> str:
    """Return the explanation of an error of the derivative at points beside a kink.

    `f` is the name of the function. `derivative` and `slope` are the tested derivative
    and the slope of f at one of the points, along a random direction.
    """
    return (
        f"{f} has a kink here. Beside it, where the derivative exists, it is wrong: at "
        f"points near x, the derivative along a random direction is {derivative:.6g}, "
        f"but the slope of f is {slope:.6g}."
    )


def _bug(probes: tuple[Probe, ...], f: str) -> str:
    off = [probe for probe in probes if probe.is_off_beside_kinks] or [
        probe for probe in probes if probe.is_off
    ]
    leaves = [probe for probe in off if probe.name.startswith("leaf ")]
    worst = max(
        leaves or off,
        key=lambda probe: probe.gap / probe.floor if probe.floor else np.inf,
    )
    where = ", ".join(probe.name.removeprefix("leaf ") for probe in leaves)
    modes = [
        m
        for m in ("forward", "reverse")
        if abs(getattr(worst, m) - worst.differences) > worst.floor
    ]
    alone = len(modes) == 1 and not np.isnan(worst.forward + worst.reverse)
    says = getattr(worst, modes[0])
    leaf = f" in {where}" if where else ""
    mode = f", in {modes[0]} mode only" if alone else ""
    said, shown = _distinct(says, worst.differences)
    is_close = abs(says - worst.differences) < APPROXIMATE * abs(worst.differences)
    bug = "A bug, or an approximate derivative" if is_close else "A bug"
    ratio = f"{shown} on both sides{_hint(says, worst)}."
    if worst.name.startswith("output"):
        return (
            f"{bug}{leaf}{mode}: the derivative of {worst.name} is {said}, but the "
            f"values have the slope {ratio}"
        )
    return (
        f"{bug}{leaf}{mode}: along {worst.name} the derivative is {said}, but the "
        f"slope of {f} is {ratio}"
    )


def _distinct(one: float, other: float) -> tuple[str, str]:
    """Return two numbers as texts, with nine digits or enough to show a difference."""
    digits = next((n for n in range(9, 17) if f"{one:.{n}g}" != f"{other:.{n}g}"), 17)
    digits = min(17, digits + 2 * (digits > 9))
    return f"{one:.{digits}g}", f"{other:.{digits}g}"


def _hint(wrong: float, probe: Probe) -> str:
    ratio = wrong / probe.differences if probe.differences else float("inf")
    known = {
        -1.0: "the sign is wrong",
        2.0: "a factor of 2",
        0.5: "a factor of 1/2",
        0.0: "the contribution is missing",
    }
    near = [words for factor, words in known.items() if abs(ratio - factor) < 1e-6]
    written = f"{ratio:.6g}"
    written = _distinct(ratio, 1.0)[0] if written == "1" else written
    return f", a ratio of {written}" + (f": {near[0]}" if near else "")
