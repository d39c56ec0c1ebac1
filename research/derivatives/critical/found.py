"""The critical points found from many starts, and the count of the starts that found none."""

from collections.abc import Iterable

from research.derivatives.critical.classifying import CriticalPoint


class CriticalPoints(tuple):
    """The critical points by rising f: a tuple of `CriticalPoint`s that also says where every start ended.

    Attributes:
      starts: Number of starts; the five numbers below add up to it.
      converged: Starts from which a critical point inside the bounds was reached.
      outside: Starts from which the search ended outside of the bounds.
      stalled: Starts from which the search came to rest where the gradient does not vanish.
      not_finite: Starts where f or its gradient is not finite, or from which the search ended at such a place.
      flat: Starts that lie where f does not change at all, so that every point is critical; these are not listed.
    """

    starts: int
    converged: int
    outside: int
    stalled: int
    not_finite: int
    flat: int

    def __new__(
        cls, points: Iterable[CriticalPoint], **counts: int
    ) -> "CriticalPoints":
        """The points, with the numbers of starts by name."""
        made = super().__new__(cls, points)
        for name in ("converged", "outside", "stalled", "not_finite", "flat"):
            setattr(made, name, int(counts.get(name, 0)))
        made.starts = (
            made.converged + made.outside + made.stalled + made.not_finite + made.flat
        )
        return made

    def text(self) -> str:
        """The points, one a line, and what became of the starts."""
        lines = [
            f"{len(self)} critical point{'' if len(self) == 1 else 's'} found from {self.starts} starts."
        ]
        lines += [
            f"  {_kind(point)} at {_numbers(point.x)}, f = {point.value:.6g}"
            for point in self
        ]
        lines += [f"  {number} {words}" for number, words in self._fates() if number]
        return "\n".join(lines)

    def _fates(self) -> list[tuple[int, str]]:
        return [
            (self.converged, "reached one of these points."),
            (self.outside, "left the bounds."),
            (self.stalled, "came to rest where the gradient does not vanish."),
            (
                self.not_finite,
                "met a place where f or its gradient is not finite: no critical point there can be found.",
            ),
            (
                self.flat,
                "lie where f does not change at all; such points are not listed.",
            ),
        ]

    def __str__(self) -> str:
        return self.text()

    def __reduce__(self) -> tuple:
        return _made, (tuple(self), vars(self))


def _made(points: tuple, counts: dict[str, int]) -> CriticalPoints:
    return CriticalPoints(points, **counts)


def _kind(point: CriticalPoint) -> str:
    return point.kind if not point.note else f"{point.kind} ({point.note})"


def _numbers(x: Iterable[float]) -> str:
    return "(" + ", ".join(f"{float(number):.6g}" for number in x) + ")"
