"""The result of a check of a derivative, and its report in words."""

from typing import NamedTuple

import numpy as np


class Probe(NamedTuple):
    """The derivative along one direction, from three sides; numbers are rates of change along the direction.

    Attributes:
      name: "random 3", "gradient", or "leaf " with a leaf's name.
      forward: By the derivative that is checked, in forward mode; NaN where there is none.
      reverse: The same in reverse mode (or by the derivative that was given).
      differences: By differences of f.
      floor: What must lie between them to count as an error: what differences and rounding may be off by.
      scale: What an error is relative to: the expected size of such a rate.
      taylor_slope: Power of h in the Taylor remainder at small h: 2 where right, 1 where wrong, NaN without remainder.
      jump: Right less left slope at a kink, else 0.
      left, right: One-sided slopes.
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

    @property
    def is_kink(self) -> bool:
        """Whether f has a kink along the direction."""
        explains = self.is_off and self.gap <= 0.75 * abs(
            self.jump
        )  # What the derivative may be off by at a kink is half.
        return abs(self.jump) > (
            self.floor if explains else max(self.floor, 1e-6 * self.scale)
        )

    @property
    def is_off_beside_kinks(self) -> bool:
        """Whether no kink excuses an error: there is none along this leaf, or the derivative is not between its two sides."""
        if not self.is_kink:
            return self.is_off and self.jump == 0 and self.name.startswith("leaf ")
        low, high = sorted((self.left, self.right))
        allowed = max(
            self.floor, 1e-6 * self.scale, 0.25 * abs(self.jump)
        )  # Curvature over a step is in both slopes.
        rates = [rate for rate in (self.forward, self.reverse) if not np.isnan(rate)]
        return any(not low - allowed <= rate <= high + allowed for rate in rates)

    @property
    def gap(self) -> float:
        """The larger distance of forward and reverse from the differences."""
        gaps = [
            abs(rate - self.differences)
            for rate in (self.forward, self.reverse)
            if not np.isnan(rate)
        ]
        return max(gaps, default=float("inf"))

    @property
    def dot_product_gap(self) -> float:
        """|⟨Jv, w⟩ - ⟨v, Jᵀw⟩| over the scale; NaN where one of the two modes is not there."""
        return abs(self.forward - self.reverse) / self.scale

    @property
    def is_off(self) -> bool:
        """Whether the derivative along this direction is further off than the differences may be."""
        return bool(self.gap > self.floor)


class CheckReport(NamedTuple):
    """The result of `check_derivative`.

    Attributes:
      verdict: "right", "wrong", "kink" (no derivative there), "unresolved" (the values of f cannot tell), or "nan".
      smallest_error: The smallest error of the derivative, relative to the length of the gradient, that this check would
        have caught in 99 of 100 draws, whether lengths are taken as they are or in units of the leaves' sizes. Where the
        gradient is 0, relative to how f changes over a step of the size of x.
      relative_error: The largest gap that was seen, relative likewise.
      taylor_slope: Median over the random directions: 2 for a right derivative; NaN where f is linear along them.
      dot_product_gap: Largest |⟨Jv, w⟩ - ⟨v, Jᵀw⟩|, relative; NaN where only one of the two modes is there.
      probes: One for each direction.
      precision: In words: in which precision f and derivative were evaluated.
      own_precision_gap: How far the derivative in x's own precision is from the one in float64, over its length; NaN
        where they are the same.
      explanation: Of anything but "right": which leaf, which direction, kink or bug. Of "right": empty, or that the
        gradient vanishes.
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

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """The report: the verdict, the smallest error that would have been caught, and a row for each direction."""
        slope = (
            "no remainder (linear along them)"
            if np.isnan(self.taylor_slope)
            else f"{self.taylor_slope:.2f}"
        )
        dots = (
            "one mode alone"
            if np.isnan(self.dot_product_gap)
            else f"{self.dot_product_gap:.1e}"
        )
        is_finite = np.isfinite(self.relative_error)
        distance = (
            f"{self.relative_error:.1e} from differences of f, relatively"
            if is_finite
            else "not finite"
        )
        lines = [
            f"{self.verdict}: the derivative is {distance}.",
            f"The smallest relative error that this check would have caught: {self.smallest_error:.1e}.",
            *([self.explanation] if self.explanation else []),
            f"Taylor remainder: slope {slope} (2 if right, 1 if wrong). Dot products, forward against reverse: {dots}.",
            self.precision,
        ]
        if not np.isnan(self.own_precision_gap):
            lines.append(
                f"In its own precision the derivative is {self.own_precision_gap:.1e} from that in float64."
            )
        rows = [
            ("direction", "forward", "reverse", "differences", "gap", "floor", "slope"),
            *map(_row, self.probes),
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += [
            "  ".join(
                cell.ljust(width) for cell, width in zip(row, widths, strict=True)
            ).rstrip()
            for row in rows
        ]
        return "\n".join(lines)


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
    verdict: str, probes: tuple[Probe, ...], f: str, is_finite: bool, chooses: bool
) -> str:
    """Which leaf, which direction, kink or bug."""
    if verdict == "nan":
        return (
            _not_finite(probes, f, chooses)
            if is_finite
            else f"{f} is not finite at x itself: choose another point."
        )
    if verdict == "kink":
        worst = max(probes, key=lambda probe: abs(probe.jump) / probe.scale)
        says = worst.forward if np.isnan(worst.reverse) else worst.reverse
        return (
            f"A kink, and no error seen beside it: along {worst.name} {f} comes to the point with slope {worst.left:.6g} and "
            f"leaves it with {worst.right:.6g}; the derivative says {says:.6g}. There is none there, only a convention."
        )
    if verdict == "unresolved":
        return (
            f"The values of {f} cannot tell: they are too coarse or too noisy near the point, or {f} jumps there, or changes "
            "faster than the smallest step."
        )
    return _bug(probes, f) if verdict == "wrong" else ""


def _not_finite(probes: tuple[Probe, ...], f: str, chooses: bool) -> str:
    bad = [p for p in probes if not (np.isnan(p.forward) or np.isfinite(p.forward))]
    alone = not bad and not all(np.isnan(p.forward) for p in probes)
    text = f"The derivative is not finite where {f} is{', in reverse mode alone' if alone else ''}: "
    text += f"explain({f}, x).first_nonfinite() names the line."
    seen = next(
        (p for p in probes if np.isfinite(p.differences) and np.isfinite(p.floor)), None
    )
    if seen is not None:
        text += f" The values of {f} do have a slope there: {seen.differences:.6g} ± {seen.floor:.1g} along {seen.name}."
    if chooses:
        text += (
            " A where computes both of its branches, and reverse mode multiplies the derivative of the one that is not "
            "chosen by 0: infinity times 0 is nan. Use the double where: give that branch an argument at which it is smooth, "
            "where(ok, g(where(ok, x, 1.0)), other) instead of where(ok, g(x), other)."
        )
    return text


def vanishing(f: str, smallest: float, of_change: float, by_size: bool) -> str:
    """Return the sentence for a gradient that is no larger than the rounding of f; by_size: f itself hardly changes."""
    times = (
        f", which is {smallest:.1e} times the gradient" if smallest != of_change else ""
    )
    return (
        f"The gradient vanishes, or is no larger than what rounding does to {f}. The check would have caught an error of "
        f"{of_change:.1e} of {f'the size of {f}' if by_size else f'what {f} changes by'}, over a step of the size of x{times}."
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
    return (
        f"A bug{f' in {where}' if where else ''}{f', in {modes[0]} mode alone' if alone else ''}: along {worst.name} the "
        f"derivative says {says:.9g}, while {f} changes by {worst.differences:.9g} on both sides{_hint(says, worst)}."
    )


def _hint(wrong: float, probe: Probe) -> str:
    ratio = wrong / probe.differences if probe.differences else float("inf")
    known = {
        -1.0: "the sign",
        2.0: "a factor of 2",
        0.5: "a factor of 1/2",
        0.0: "nothing of it arrives",
    }
    near = [words for factor, words in known.items() if abs(ratio - factor) < 1e-6]
    return f", a ratio of {ratio:.6g}" + (f": {near[0]}" if near else "")
