"""Result of a search for critical points from many starts."""

from collections.abc import Iterable
from typing import Any

from research.derivatives.critical.classifying import CriticalPoint


class CriticalPoints(tuple):
    """Critical points of a function f, and statistics of the search for them.

    This class is a tuple of `CriticalPoint`s in ascending order of f. A start is a
    point at which searches for a critical point begin. Several searches begin at each
    start, and they may end differently. Each start is counted once, under the first
    outcome of this list that applies to it: converged, flat, not_finite, outside,
    stalled.

    With the argument `prove_seconds` of `critical_points`, you can ask for a proof that
    no point is missing. The proof divides the space inside the bounds into boxes, and
    tries to exclude critical points from each box. If no proof was asked for, the
    attributes missed, unexplored and around are None.

    Attributes:
      starts: Number of all starts: the sum of the next five numbers.
      converged: Number of starts from which a search reached a critical point inside
        the bounds.
      outside: Number of starts from which all searches ended outside the bounds.
      stalled: Number of starts to which none of the other four outcomes applies. From
        such a start, a search ended inside the bounds at a point where the gradient
        does not vanish.
      not_finite: Number of starts from which a search reached a point where f, its
        gradient or its Hessian is not finite.
      flat: Number of starts from which a search ended where f is constant, or changes
        by less than the rounding errors of f. No such point is in this tuple.
      missed: Number of critical points that are proved to lie inside the bounds and are
        not in this tuple.
      unexplored: Number of boxes in which the proof does not exclude critical points.
        Boxes around points of this tuple are not counted here.
      around: Number of boxes around points of this tuple in which the proof does not
        exclude further critical points. Such boxes may occur around a degenerate point.
    """

    starts: int
    converged: int
    outside: int
    stalled: int
    not_finite: int
    flat: int
    missed: int | None
    unexplored: int | None
    around: int | None

    def __new__(
        cls, points: Iterable[CriticalPoint], **counts: int | None
    ) -> "CriticalPoints":
        """Build the tuple of points, with the number of starts for each outcome."""
        made = super().__new__(cls, points)
        for name in ("converged", "outside", "stalled", "not_finite", "flat"):
            setattr(made, name, int(counts.get(name) or 0))
        for name in ("missed", "unexplored", "around"):
            setattr(made, name, counts.get(name))
        made.starts = (
            made.converged + made.outside + made.stalled + made.not_finite + made.flat
        )
        return made

    def text(self) -> str:
        """Return a text with the points and the number of starts with each outcome.

        Each point is on a line of its own. If a proof was asked for, the last line has
        `missed`, and the sum of `unexplored` and `around`.
        """
        lines = [
            f"{len(self)} critical point{'' if len(self) == 1 else 's'} found from "
            f"{self.starts} starts."
        ]
        lines += [
            f"  {_kind(point)} at {_numbers(point.x)}, f = {point.value:.6g}"
            for point in self
        ]
        lines += [f"  {number} {words}" for number, words in self._fates() if number]
        if self.missed is not None:
            more = f"  {self.missed} more are proved to lie inside the bounds"
            lines.append(f"{more}, and {self._others()}.")
        return "\n".join(lines)

    def _others(self) -> str:
        boxes = (self.unexplored or 0) + (self.around or 0)
        if not boxes:
            return "there are no others"
        where = "" if self.unexplored else " around listed points"
        return f"{boxes} box{'' if boxes == 1 else 'es'}{where} may contain others"

    def _fates(self) -> list[tuple[int, str]]:
        return [
            (self.converged, "reached one of these points."),
            (self.outside, "left the bounds."),
            (self.stalled, "stalled where the gradient does not vanish."),
            (
                self.not_finite,
                "reached a point where f or its gradient is not finite, and stopped.",
            ),
            (
                self.flat,
                "ended where f is constant, or changes by less than its rounding "
                "errors; such points are not listed.",
            ),
        ]

    def __str__(self) -> str:
        return self.text()

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (tuple(self), vars(self))


def _made(points: tuple[CriticalPoint, ...], counts: dict[str, int]) -> CriticalPoints:
    return CriticalPoints(points, **counts)


def _kind(point: CriticalPoint) -> str:
    return point.kind if not point.note else f"{point.kind} ({point.note})"


def _numbers(x: Iterable[float]) -> str:
    return "(" + ", ".join(f"{float(number):.6g}" for number in x) + ")"
