"""Proved roots, critical points and minima in a box, by branch and bound.

A box is dropped if it is proved to contain no root. Krawczyk's operator may prove that
a box contains exactly one root, or that it contains none. Otherwise the operator may
make the box smaller, and the box is cut in two. Tiny boxes for which nothing is proved
are reported as undecided.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from research.checks import (
    check_callable,
    check_count,
    check_number,
    check_numbers,
    refuse_traced,
)
from research.derivatives.certified.enclosing import (
    Batched,
    TimeOver,
    check_scalar,
    checked_box,
)
from research.derivatives.certified.intervals import (
    FINE,
    MAYBE_UNDEFINED,
    NOT_SMOOTH,
    Interval,
    divide,
    down,
    multiply,
    point,
    total,
    up,
)
from research.derivatives.certified.matrices import (
    applied,
    eigenvalue_bounds,
    krawczyk,
    signs_of_eigenvalues,
)
from research.derivatives.certified.program import check_derivatives, trace
from research.derivatives.exact.arguments import described

TINY = 2.0**-34  # Boxes narrower than this, relative to the whole, are not cut.
MOST_BOXES_AT_ONCE = 1024
MOST_UNDECIDED = 20_000
INFLATION = 0.1  # By which a box is enlarged on each side, to prove roots at its faces.
REFINEMENTS = 8
NARROW = 1e-3  # A side of a box whose share is smaller, beside the others, is not cut.
MOST_GROUPS = 200  # That an undecided box is compared with.
FOLLOWED = 8  # Boxes in which a jump is looked for.
JUMP = 1e6  # A value that moves by so many gradients times the box has jumped.


class CertifiedPoint(NamedTuple):
    """A box that is proved to contain exactly one critical point of a function f.

    Attributes:
      low, high: Ends of the box low <= x <= high, shape (n,).
      kind: "minimum", "maximum" or "saddle" if the signs of all eigenvalues of the
        Hessian are proved, otherwise "unproved".
      value_low, value_high: Bounds of f at the critical point.
    """

    low: np.ndarray
    high: np.ndarray
    kind: str
    value_low: float
    value_high: float

    @property
    def x(self) -> np.ndarray:
        """The middle of the box, shape (n,)."""
        return 0.5 * (self.low + self.high)


class Undecided(NamedTuple):
    """A box that may contain critical points or roots, with the reason for the doubt.

    Attributes:
      low, high: Ends of the box, shape (n,).
      reason: Reason why nothing is proved for the box, in words.
    """

    low: np.ndarray
    high: np.ndarray
    reason: str


class Certified(NamedTuple):
    """Proved critical points of a function in a box.

    Attributes:
      points: The critical points, in ascending order of `value_low`. Each is given by a
        small box that contains exactly one critical point.
      undecided: Boxes that may contain further critical points. If the search ended
        normally, these boxes are small. If the search stopped early (its time was over,
        or there were too many undecided boxes), these boxes may be large.
      complete: True if `undecided` is empty. `points` then has all critical points of
        the function in the box that was searched.
      boxes: Number of boxes that were examined during the search.
    """

    points: tuple[CertifiedPoint, ...]
    undecided: tuple[Undecided, ...]
    complete: bool
    boxes: int

    def text(self) -> str:
        """Describe the result as text, with one line for each critical point.

        The first line has the number of critical points of each kind, and the number of
        boxes that were examined. If boxes are undecided, the first line also has their
        number, and the reason for the first of them.
        """
        kinds = [point.kind for point in self.points]
        counts = ", ".join(
            f"{kinds.count(kind)} {kind}{'' if kinds.count(kind) == 1 else ' points'}"
            for kind in ("minimum", "maximum", "saddle", "unproved")
            if kind in kinds
        )
        found = f"{len(self.points)} critical points are proved ({counts or 'none'})"
        rest = (
            "and there is no other in the box"
            if self.complete
            else f"and {len(self.undecided)} boxes are undecided "
            f"({self.undecided[0].reason})"
            if self.undecided
            else "and the search was not finished"
        )
        lines = [f"{found}, {rest}; {self.boxes:,} boxes."]
        lines += [
            f"{point.kind} at {np.array2string(point.x, precision=10)}, "
            f"f = {0.5 * (point.value_low + point.value_high):.10g}"
            for point in self.points
        ]
        return "\n".join(lines)

    __str__ = text


class Roots(NamedTuple):
    """Proved roots of a system of equations in a box.

    Attributes:
      low, high: Lower and upper ends of the boxes of the roots, shape (roots, n) for n
        unknowns. Each of these boxes contains exactly one root.
      undecided: Tuple with one `Undecided` for each box that may contain further roots.
      complete: True if `undecided` is empty. The result then has all roots in the box
        that was searched.
      boxes: Number of boxes that were examined during the search.
    """

    low: np.ndarray
    high: np.ndarray
    undecided: tuple[Undecided, ...]
    complete: bool
    boxes: int


def certified_roots(
    f: Callable[..., Any], bounds: Any, *, seconds: float = 60.0
) -> Roots:
    """Find the roots of f in a box, and prove that there are no other roots.

    Each proved root is returned as a small box that contains exactly one root. Boxes
    for which nothing could be proved are returned as undecided. If no box is undecided,
    the result has all roots in the searched box, and its field `complete` is True.

    Args:
      f: Function that JAX can trace. It takes an array of shape (n,) and returns an
        array of shape (n,).
      bounds: (low, high) of each coordinate, shape (n, 2), finite.
      seconds: Time after which the search stops. If f or its Jacobian is being
        evaluated at that time, on at most 256 boxes, the search first waits for the end
        of this evaluation. If nothing is proved for a box when the search stops, the
        box is undecided. The search also stops if more than 20,000 boxes are undecided.
    Returns:
      The `Roots`.
    Raises:
      ValueError: bounds has a wrong shape, is not finite, or low >= high; seconds is
        negative; or f does not return an array of shape (n,).
      UnsupportedPrimitiveError: f uses `stop_gradient`, a derivative rule of the user
        (`jax.custom_jvp`, `jax.custom_vjp`), or an operation for which `enclose` has no
        rule.
    References:
      Neumaier, Interval methods for systems of equations, 1990, chapter 5.
    Example:
      >>> found = certified_roots(lambda x: x**2 - 2.0, [(0.0, 3.0)])
      >>> found.complete, found.low.round(6).tolist()
      (True, [[1.414214]])
    """
    refuse_traced("certified_roots", bounds=bounds)
    low, high = _checked_bounds(bounds)
    check_callable("f", f)
    check_number("seconds", seconds)
    limit, size = _TimeLimit(seconds), len(low)
    _check_system(f, size)
    function, jacobian = (Batched(g, size, limit.end) for g in (f, jax.jacfwd(f)))
    search = _Search(function, jacobian, low, high, limit, None)
    search.run()
    roots = search.roots
    return Roots(
        np.array([root[0] for root in roots]).reshape(-1, size),
        np.array([root[1] for root in roots]).reshape(-1, size),
        tuple(search.undecided()),
        not search.open_boxes,
        search.boxes,
    )


def certified_critical_points(
    f: Callable[..., Any], bounds: Any, *, seconds: float = 60.0
) -> Certified:
    """Find the critical points of f in a box, and prove that the list is complete.

    A critical point is a root of the gradient. Its kind follows from the signs of the
    eigenvalues of the Hessian (Sylvester's law of inertia). All bounds come from
    interval arithmetic: lower ends are rounded down and upper ends up. Boxes for which
    nothing could be proved are returned as undecided. If no box is undecided, the
    result has all critical points in the searched box, and its field `complete` is
    True. A critical point with a singular Hessian cannot be proved in this way. It
    stays in a small box that is undecided.

    Args:
      f: Function of an array of shape (n,) that returns one number, and that JAX can
        trace and differentiate twice. f must not jump in the box.
      bounds: (low, high) of each coordinate, shape (n, 2), finite.
      seconds: Time after which the search stops, as in `certified_roots`. The remaining
        boxes are then undecided.
    Returns:
      A `Certified`. `print` shows its points.
    Raises:
      ValueError: bounds has a wrong shape, is not finite, or low >= high; seconds is
        negative; or f jumps in the box (the message names the line of code).
      NotScalarError: f does not return one number.
      NotInexactError: f returns an integer or a bool.
      UnsupportedPrimitiveError: As in `certified_roots`.
    References:
      Krawczyk, Newton-Algorithmen zur Bestimmung von Nullstellen mit Fehlerschranken,
      Computing 4 (1969); Neumaier, Interval methods for systems of equations, 1990,
      sections 5.1 and 5.6.
    Example:
      >>> f = lambda x: x[0] ** 3 - 3 * x[0] + x[1] ** 2
      >>> found = certified_critical_points(f, [(-2.0, 2.0), (-1.0, 1.1)])
      >>> found.complete, [point.kind for point in found.points]
      (True, ['minimum', 'saddle'])
    """
    refuse_traced("certified_critical_points", bounds=bounds)
    low, high = _checked_bounds(bounds)
    check_callable("f", f)
    check_number("seconds", seconds)
    limit, size = _TimeLimit(seconds), len(low)
    check_scalar(f, jax.ShapeDtypeStruct((size,), np.float64))
    values, gradient, hessian = (
        Batched(g, size, limit.end) for g in (f, jax.grad(f), jax.hessian(f))
    )
    _refuse_jumps(values, gradient, low, high, limit)
    search = _Search(gradient, hessian, low, high, limit, values)
    search.run()
    return Certified(
        tuple(sorted(search.points, key=lambda point: point.value_low)),
        tuple(search.undecided()),
        not search.open_boxes,
        search.boxes,
    )


class _TimeLimit:
    """Time limit of a search. The time starts when the object is created."""

    def __init__(self, seconds: float) -> None:
        self.seconds = float(seconds)
        self.end = time.monotonic() + self.seconds

    def is_over(self) -> bool:
        return time.monotonic() >= self.end


def _refuse_jumps(
    values: Batched,
    gradient: Batched,
    low: np.ndarray,
    high: np.ndarray,
    limit: "_TimeLimit",
) -> None:
    """Raise ValueError if f changes so much in a tiny box that f seems to jump.

    Boxes in which a comparison of f has two possible answers are cut in two. The halves
    in which f may change most are cut again, until they are tiny. If the time ends
    before that, no error is raised, because the search then proves nothing more.
    """
    whole = high - low
    lows, highs = low[None], high[None]
    for _ in range(34 * len(low)):
        if limit.is_over():
            return
        value = values(lows, highs)
        is_open = value.trouble == NOT_SMOOTH
        if not np.any(is_open):
            return
        order = np.argsort(-(value.high - value.low)[is_open], kind="stable")[:FOLLOWED]
        lows, highs = lows[is_open][order], highs[is_open][order]
        if np.all(highs - lows <= TINY * whole):
            break
        lows, highs = _halves(lows, highs, whole)
    value, slope = values(lows, highs), gradient(lows, highs)
    is_open = value.trouble == NOT_SMOOTH
    steepest = np.maximum(np.abs(slope.low), np.abs(slope.high)) * (highs - lows)
    size = np.maximum(np.abs(value.low), np.abs(value.high))
    allowed = JUMP * (np.sum(steepest, axis=-1) + 1e-15 * size)
    jumps = is_open & np.isfinite(size) & (value.high - value.low > allowed)
    if np.any(jumps):
        k = int(np.argmax(jumps))
        raise ValueError(
            f"f jumps near {0.5 * (lows[k] + highs[k])} ({', '.join(values.lines)}), "
            "so its critical points cannot be proved. Choose a box without the jump."
        )


def _described(
    lows: np.ndarray, highs: np.ndarray, values: Batched, hessian: Batched
) -> list[CertifiedPoint]:
    """Return proved roots of a gradient with their kinds and values."""
    value, matrix = values(lows, highs), hessian(lows, highs)
    positive, negative = signs_of_eigenvalues(matrix)
    n = lows.shape[-1]
    decided = (positive + negative == n) & (matrix.trouble == FINE)
    kinds = np.select(
        [~decided, positive == n, negative == n],
        ["unproved", "minimum", "maximum"],
        "saddle",
    )
    return [
        CertifiedPoint(low, high, str(kind), float(bottom), float(top))
        for low, high, kind, bottom, top in zip(
            lows, highs, kinds, value.low, value.high, strict=True
        )
    ]


def _check_system(f: Callable[..., Any], size: int) -> None:
    shape = jax.ShapeDtypeStruct((size,), np.float64)
    program = trace(f, shape)
    found = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in program.out_avals]
    if [value.shape for value in found] != [(size,)]:
        raise ValueError(
            f"f must return one array of shape ({size},), as its argument has; it "
            f"returns {described(found[0] if len(found) == 1 else tuple(found))}."
        )
    check_derivatives(program.jaxpr)


def _checked_bounds(bounds: Any) -> tuple[np.ndarray, np.ndarray]:
    check_numbers("bounds", bounds, kinds="iuf")
    array = np.asarray(bounds)
    if array.ndim != 2 or array.shape[-1] != 2 or not len(array):
        raise ValueError(
            "bounds must have the shape (n, 2), a low and a high end for each "
            f"coordinate; got shape {array.shape}."
        )
    box = checked_box(array[:, 0], array[:, 1])
    if np.any(box.low >= box.high):
        raise ValueError(
            f"each lower bound must be below its upper bound; got {bounds!r}."
        )
    return box.low, box.high


class _Search:
    """Branch and bound for the roots of a system in a box."""

    def __init__(
        self,
        function: Batched,
        jacobian: Batched,
        low: np.ndarray,
        high: np.ndarray,
        limit: _TimeLimit,
        values: Batched | None,
    ) -> None:
        self.function, self.jacobian, self.values = function, jacobian, values
        self.low, self.high = low, high
        self.width = high - low
        self.limit = limit
        self.stack_low, self.stack_high = low[None].copy(), high[None].copy()
        self.roots: list[tuple[np.ndarray, np.ndarray]] = []
        self.regions: list[tuple[np.ndarray, np.ndarray]] = []
        self.points: list[CertifiedPoint] = []  # The roots, if they are those of ∇f.
        self.open_boxes: list[tuple[np.ndarray, np.ndarray, str]] = []
        self.boxes = 0

    @np.errstate(all="ignore")  # Infinite ends are no bound.
    def run(self) -> None:
        """Examine boxes, the last ones first, until none is left or time is over."""
        while len(self.stack_low):
            if self.limit.is_over():
                self._give_up(f"the time of {self.limit.seconds:g} s was over")
                return
            if len(self.open_boxes) > MOST_UNDECIDED:
                self._give_up(f"more than {MOST_UNDECIDED:,} boxes are undecided")
                return
            self._step()

    def _step(self) -> None:
        """Examine the last boxes of the stack.

        If the time ends before all of them are examined, they stay on the stack, and
        the results of this step are removed.
        """
        results = (self.roots, self.regions, self.points, self.open_boxes)
        lengths = [len(result) for result in results]
        before = self.stack_low, self.stack_high
        start = max(len(self.stack_low) - MOST_BOXES_AT_ONCE, 0)
        low, high = (end[start:] for end in before)
        self.stack_low, self.stack_high = (end[:start] for end in before)
        try:
            self._examine(low, high)
            self.boxes += len(low)
        except TimeOver:
            self.stack_low, self.stack_high = before
            for result, length in zip(results, lengths, strict=True):
                del result[length:]

    def _give_up(self, reason: str) -> None:
        self.open_boxes += [
            (low, high, reason)
            for low, high in zip(self.stack_low, self.stack_high, strict=True)
        ]
        self.stack_low = self.stack_low[:0]

    def _push(self, low: np.ndarray, high: np.ndarray) -> None:
        self.stack_low = np.concatenate([self.stack_low, low])
        self.stack_high = np.concatenate([self.stack_high, high])

    def _examine(self, low: np.ndarray, high: np.ndarray) -> None:
        value = self.function(low, high)
        possible = np.all((value.low <= 0) & (value.high >= 0), axis=-1)
        low, high = low[possible], high[possible]
        if not len(low):
            return
        low, high, slopes = self._newton(low, high)
        if not len(low):
            return
        tiny = np.all(high - low <= TINY * self.width, axis=-1)
        self._keep_open(low[tiny], high[tiny])
        self._cut(low[~tiny], high[~tiny], slopes[~tiny])

    def _newton(
        self, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Apply Krawczyk's operator: keep proved roots, and drop or shrink boxes.

        Returns:
          (low, high, slopes): the boxes for which nothing is proved yet, and bounds of
          |J_ij| in each of these boxes, where J is the Jacobian.
        """
        pad = INFLATION * (high - low)
        wide_low, wide_high = down(low - pad), up(high + pad)
        jacobian = self.jacobian(wide_low, wide_high)
        middle = 0.5 * (low + high)
        at_middle = self.function(middle, middle)
        smooth = (jacobian.trouble == FINE) & self._is_smooth(wide_low, wide_high)
        image = krawczyk(wide_low, wide_high, middle, at_middle, jacobian)
        usable = smooth & np.all(
            np.isfinite(image.low) & np.isfinite(image.high), axis=-1
        )
        inside = usable & np.all(
            (image.low > wide_low) & (image.high < wide_high), axis=-1
        )
        self._add_roots(
            Interval(image.low[inside], image.high[inside], np.asarray(FINE)),
            wide_low[inside],
            wide_high[inside],
        )
        new_low, new_high = np.maximum(low, image.low), np.minimum(high, image.high)
        empty = usable & np.any(new_low > new_high, axis=-1)
        left = ~inside & ~empty
        shrunk = usable & left
        low = np.where(shrunk[:, None], new_low, low)
        high = np.where(shrunk[:, None], new_high, high)
        slopes = np.maximum(np.abs(jacobian.low), np.abs(jacobian.high))
        return low[left], high[left], slopes[left]

    def _is_smooth(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Return where the system is proved smooth, and f too if the system is ∇f."""
        smooth = self.function(low, high).trouble == FINE
        if self.values is not None:
            smooth &= self.values(low, high).trouble == FINE
        return smooth

    def _add_roots(
        self, images: Interval, region_low: np.ndarray, region_high: np.ndarray
    ) -> None:
        """Keep the proved roots that lie inside the whole box and are not yet known.

        Each region contains exactly one root. The root lies in the box in `images`.
        """
        if not len(region_low):
            return
        lows, highs = self._refined(images.low, images.high)
        known = len(self.roots)
        for low, high, *region in zip(
            lows, highs, region_low, region_high, strict=True
        ):
            if np.any(low > high):
                self.open_boxes.append((high, low, "the bounds contradict each other"))
                continue
            if np.any((high < self.low) | (low > self.high)):
                continue  # The root of the enlarged box is outside of the bounds.
            if np.any((low < self.low) | (high > self.high)):
                self.open_boxes.append(
                    (low, high, "a root lies at the border of the box")
                )
            elif not self._is_known(low, high, region):
                self.roots.append((low, high))
                self.regions.append((region[0], region[1]))
        if self.values is not None and self.roots[known:]:
            lows, highs = map(np.array, zip(*self.roots[known:], strict=True))
            self.points += _described(lows, highs, self.values, self.jacobian)

    def _is_known(
        self, low: np.ndarray, high: np.ndarray, region: list[np.ndarray]
    ) -> bool:
        """Return whether a root is already known.

        A region contains only one root, so two proved boxes inside one region contain
        the same root.
        """
        if not self.roots:
            return False
        known_low, known_high = (
            np.array(ends) for ends in zip(*self.roots, strict=True)
        )
        region_low, region_high = (
            np.array(ends) for ends in zip(*self.regions, strict=True)
        )
        same = np.all((low >= region_low) & (high <= region_high), axis=-1) | np.all(
            (known_low >= region[0]) & (known_high <= region[1]), axis=-1
        )
        if np.any(same):
            return True
        overlaps = np.all((low <= known_high) & (high >= known_low), axis=-1)
        if np.any(overlaps):
            self.open_boxes.append((low, high, "two proved boxes overlap"))
        return bool(np.any(overlaps))

    def _refined(
        self, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Make the boxes of proved roots as small as rounding allows."""
        for _ in range(REFINEMENTS):
            middle = 0.5 * (low + high)
            image = krawczyk(
                low,
                high,
                middle,
                self.function(middle, middle),
                self.jacobian(low, high),
            )
            new_low, new_high = np.maximum(low, image.low), np.minimum(high, image.high)
            if not np.any(new_high - new_low < 0.9 * (high - low)):
                break
            low, high = new_low, new_high
        return low, high

    def _keep_open(self, low: np.ndarray, high: np.ndarray) -> None:
        if not len(low):
            return
        trouble_of = [
            self.jacobian(low, high).trouble,
            self.function(low, high).trouble,
        ]
        lines = (
            ", ".join({**self.function.lines, **self.jacobian.lines}) or "the border"
        )
        for k, trouble in enumerate(np.maximum(*trouble_of)):
            reason = (
                "the Jacobian may be singular here"
                if trouble == FINE
                else f"the function may be undefined here ({lines})"
                if trouble == MAYBE_UNDEFINED
                else f"a comparison is open here ({lines})"
            )
            self.open_boxes.append((low[k], high[k], reason))

    def _cut(self, low: np.ndarray, high: np.ndarray, slopes: np.ndarray) -> None:
        """Cut each box in two, near its middle, at the side that matters most.

        This is the side j with the largest |J_ij| (high_j - low_j) of all i and j, so
        entry i of the function may change most along this side (maximal smear). The
        width of a side is measured relative to that side of the whole box. A side that
        is much narrower than the others is not cut. If a slope is unknown (infinite),
        or if all are 0, the widest side is cut.

        Kearfott, Rigorous Global Search: Continuous Problems, 1996, section 4.3.2.
        """
        if not len(low):
            return
        share = (high - low) / self.width
        smear = np.max(slopes * (high - low)[:, None, :], axis=1)
        smear[share < NARROW * np.max(share, axis=-1, keepdims=True)] = 0.0
        known = np.all(np.isfinite(smear), axis=-1) & np.any(smear > 0, axis=-1)
        side = np.argmax(np.where(known[:, None], smear, share), axis=-1)
        rows = np.arange(len(low))
        # Not exactly in the middle, where roots of symmetric functions lie.
        where = low[rows, side] + 0.4921875 * (high[rows, side] - low[rows, side])
        left_high, right_low = high.copy(), low.copy()
        left_high[rows, side] = where
        right_low[rows, side] = where
        self._push(np.concatenate([low, right_low]), np.concatenate([left_high, high]))

    def undecided(self) -> list[Undecided]:
        """Return the open boxes, joined where they touch and have the same reason."""
        if not self.open_boxes:
            return []
        lows, highs, reasons = map(np.array, zip(*self.open_boxes, strict=True))
        sentences, reasons = np.unique(reasons, return_inverse=True)
        count = 0  # The first rows of the arrays become those of the groups.
        for low, high, reason in zip(lows, highs, reasons, strict=True):
            last = slice(max(count - MOST_GROUPS, 0), count)
            touches = np.all((low <= highs[last]) & (high >= lows[last]), axis=-1)
            joined = np.flatnonzero(touches & (reasons[last] == reason))
            if len(joined):
                k = last.start + joined[0]
                np.minimum(lows[k], low, out=lows[k])
                np.maximum(highs[k], high, out=highs[k])
            else:
                lows[count], highs[count], reasons[count] = low, high, reason
                count += 1
        return [
            Undecided(low, high, str(sentences[reason]))
            for low, high, reason in zip(
                lows[:count], highs[:count], reasons[:count], strict=True
            )
        ]


class Minimum(NamedTuple):
    """Proved bounds of the minimum of a function f over a box.

    Attributes:
      low, high: Bounds of the minimum value f*, low <= f* <= high.
      x: A point of the box with f(x) <= high, shape (n,).
      complete: True if high - low is at most the requested tolerance.
      boxes: Number of boxes that were examined during the search.
    """

    low: float
    high: float
    x: np.ndarray
    complete: bool
    boxes: int


def certified_minimum(
    f: Callable[..., Any],
    bounds: Any,
    *,
    tolerance: float = 1e-8,
    seconds: float = 60.0,
) -> Minimum:
    """Find proved bounds of the global minimum of f over a closed box.

    The box is cut into smaller and smaller boxes. Let v be the smallest value of f that
    was found so far at the midpoint of a box. If a lower bound of f in a smaller box is
    above v - `tolerance`, this smaller box is not cut further.

    The lower bound of f in a smaller box X comes from interval arithmetic, which gives
    an interval that contains all values of f in X. If f is proved to be smooth in X,
    there is a second lower bound, from the mean value form f(m) + ∇f(X) (X - m). Here m
    is the midpoint of X, and ∇f(X) has an interval for each entry of the gradient. The
    interval contains all values of this entry in X. The larger of the two lower bounds
    is used.

    Args:
      f: Function of an array of shape (n,) that returns one number, and that JAX can
        trace and differentiate.
      bounds: (low, high) of each coordinate, shape (n, 2), finite.
      tolerance: Positive number. The search stops when `high - low` of the result is at
        most this number.
      seconds: Time after which the search stops, as in `certified_roots`.
    Returns:
      A `Minimum`. If the time is over, or the boxes become too small to be cut, before
      the tolerance is reached, the bounds are valid but farther apart.
    Raises:
      ValueError: bounds has a wrong shape, is not finite, or low >= high; tolerance is
        not above 0; or seconds is negative.
      NotScalarError, NotInexactError, UnsupportedPrimitiveError: As in
        `certified_critical_points`.
    References:
      Hansen & Walster, Global optimization using interval analysis, 2004, chapter 12.
    Example:
      >>> f = lambda x: (x[0] - 1) ** 2 + x[0] ** 4
      >>> found = certified_minimum(f, [(-2.0, 2.0)])
      >>> found.complete, round(found.low, 6)
      (True, 0.289273)
    """
    refuse_traced("certified_minimum", bounds=bounds)
    low, high = _checked_bounds(bounds)
    check_callable("f", f)
    check_number("tolerance", tolerance)
    check_number("seconds", seconds)
    _check_tolerance(tolerance)
    limit, size = _TimeLimit(seconds), len(low)
    check_scalar(f, jax.ShapeDtypeStruct((size,), np.float64))
    values, gradient = (Batched(g, size, limit.end) for g in (f, jax.grad(f)))
    whole = high - low
    lows, highs = low[None], high[None]
    floors = np.array([-np.inf])
    best, best_x, boxes = np.inf, 0.5 * (low + high), 0
    dropped = np.inf  # The smallest lower bound of a box that was too small to cut.
    while len(lows):
        order = np.argsort(floors, kind="stable")[:MOST_BOXES_AT_ONCE]
        rest = np.setdiff1d(np.arange(len(lows)), order)
        now_low, now_high = lows[order], highs[order]
        middle = 0.5 * (now_low + now_high)
        try:
            at_middle = values(middle, middle)
            floor = _floors(values, gradient, now_low, now_high, middle, at_middle)
        except TimeOver:
            break
        boxes += len(order)
        defined = at_middle.trouble < MAYBE_UNDEFINED
        tops = np.where(defined, at_middle.high, np.inf)
        if np.min(tops) < best:
            best, best_x = float(np.min(tops)), middle[np.argmin(tops)]
        floor = np.maximum(floor, floors[order])
        tiny = np.all(now_high - now_low <= 2.0**-48 * whole, axis=-1)
        dropped = min(dropped, float(np.min(floor[tiny], initial=np.inf)))
        going = (floor <= best - tolerance) & ~tiny
        finished = (floor > best - tolerance) & ~tiny & (floor <= best)
        dropped = min(dropped, float(np.min(floor[finished], initial=np.inf)))
        cut_low, cut_high = _halves(now_low[going], now_high[going], whole)
        keep = floors[rest] <= best - tolerance
        dropped = min(dropped, float(np.min(floors[rest][~keep], initial=np.inf)))
        lows = np.concatenate([lows[rest][keep], cut_low])
        highs = np.concatenate([highs[rest][keep], cut_high])
        floors = np.concatenate([floors[rest][keep], np.tile(floor[going], 2)])
        if limit.is_over():
            break
    bottom = min(dropped, float(np.min(floors, initial=np.inf)), best)
    return Minimum(bottom, best, best_x, bool(best - bottom <= tolerance), boxes)


def _check_tolerance(tolerance: float) -> None:
    if not tolerance > 0:
        raise ValueError(f"tolerance must be above 0; got tolerance={tolerance!r}.")


def _floors(
    values: Batched,
    gradient: Batched,
    low: np.ndarray,
    high: np.ndarray,
    middle: np.ndarray,
    at_middle: Interval,
) -> np.ndarray:
    """Return lower bounds of f over boxes."""
    natural = values(low, high)
    slopes = gradient(low, high)
    reach = up(np.maximum(up(high - middle), up(middle - low)))
    steepest = np.maximum(np.abs(slopes.low), np.abs(slopes.high))
    change = up(1.001 * np.sum(up(steepest * reach), axis=-1))
    form = down(at_middle.low - change)
    smooth = (slopes.trouble == FINE) & (natural.trouble == FINE)
    form = np.where(smooth & ~np.isnan(form), form, -np.inf)
    return np.maximum(natural.low, form)


def _halves(
    low: np.ndarray, high: np.ndarray, whole: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cut each box in two at its widest side, relative to the sides of `whole`."""
    side = np.argmax((high - low) / whole, axis=-1)
    rows = np.arange(len(low))
    middle = 0.5 * (low[rows, side] + high[rows, side])
    left_high, right_low = high.copy(), low.copy()
    left_high[rows, side] = middle
    right_low[rows, side] = middle
    return np.concatenate([low, right_low]), np.concatenate([left_high, high])


class CurvatureBound(NamedTuple):
    """Proved bounds of the curvature of a function over a box.

    Attributes:
      low, high: Every eigenvalue of the Hessian, at every point of the box, lies in
        [low, high].
      reached: Proved lower bound of the largest eigenvalue at some point of the box.
        The largest eigenvalue over the whole box therefore lies in [reached, high].
      boxes: Number of boxes that were examined during the search.
    """

    low: float
    high: float
    reached: float
    boxes: int


def curvature_bound(
    f: Callable[..., Any],
    bounds: Any,
    *,
    tolerance: float = 0.02,
    most_boxes: int = 20_000,
    seconds: float = 60.0,
) -> CurvatureBound:
    """Bound the eigenvalues of the Hessian of f over a box.

    Every eigenvalue of the Hessian in the box lies between `low` and `high` of the
    result. So the gradient of f has the Lipschitz constant L = max(|low|, |high|) in
    the box. Gradient descent with a learning rate below 2 / L therefore never increases
    f while the iterates stay in the box.

    Args:
      f: Function of an array of shape (n,) that returns one number, and that JAX can
        trace and differentiate twice.
      bounds: (low, high) of each coordinate, shape (n, 2), finite.
      tolerance: Relative tolerance of the bounds, a positive number. There are two
        searches. The first search is for `high` and λ, where λ is the field `reached`
        of the result. The largest eigenvalue over the box lies in [λ, high]. This
        search stops when high - λ is at most tolerance · |λ|. The second search is for
        `low` and a number μ, which is not part of the result. The smallest eigenvalue
        over the box lies in [low, μ]. This search stops when μ - low is at most
        tolerance · max(|λ|, |μ|), so a μ near 0 does not prolong this search.
      most_boxes: Number of boxes after which the two searches stop. Each search gets
        half of these boxes. If a search stops for this reason, the bounds are valid but
        farther apart.
      seconds: Time after which the two searches stop, as in `certified_roots`. If the
        time is over before the tolerance is reached, the bounds are valid but farther
        apart. The search for `high` gets half of this time, and the search for `low`
        gets the rest.
    Returns:
      A `CurvatureBound`. Its bounds are infinite if f may be undefined or not smooth
      somewhere in the box.
    Raises:
      ValueError: As in `certified_minimum`, or most_boxes is not a positive integer.
      NotScalarError, NotInexactError, UnsupportedPrimitiveError: As in
        `certified_minimum`.
    References:
      Nesterov, Introductory lectures on convex optimization, 2004, theorem 2.1.14, for
      the learning rate.
    Example:
      >>> f = lambda x: x[0] ** 2 + 3 * x[1] ** 2
      >>> found = curvature_bound(f, [(-1.0, 1.0)] * 2)
      >>> round(found.low, 6), round(found.high, 6)
      (2.0, 6.0)
    """
    refuse_traced("curvature_bound", bounds=bounds)
    low, high = _checked_bounds(bounds)
    check_callable("f", f)
    check_number("tolerance", tolerance)
    _check_tolerance(tolerance)
    check_count("most_boxes", most_boxes)
    check_number("seconds", seconds)
    limit, size = _TimeLimit(seconds), len(low)
    check_scalar(f, jax.ShapeDtypeStruct((size,), np.float64))
    hessian, most = _SmoothHessian(f, size), most_boxes // 2
    hessian.stop_at(limit.end - 0.5 * limit.seconds)
    top = _extreme(hessian, low, high, tolerance, most, sign=1)
    hessian.stop_at(limit.end)
    bottom = _extreme(hessian, low, high, tolerance, most, sign=-1, scale=abs(top[1]))
    return CurvatureBound(-bottom[0], top[0], top[1], top[2] + bottom[2])


class _SmoothHessian:
    """Enclosure of the Hessian over boxes.

    `trouble` is the largest `trouble` of the Hessian, of the gradient and of f.
    """

    def __init__(self, f: Callable[..., Any], size: int) -> None:
        self.parts = [Batched(g(f), size) for g in (jax.hessian, jax.grad, lambda f: f)]

    def stop_at(self, deadline: float) -> None:
        """Set the deadline of the enclosures, as in `Batched`."""
        for part in self.parts:
            part.deadline = deadline

    def __call__(self, low: np.ndarray, high: np.ndarray) -> Interval:
        found, *others = (part(low, high) for part in self.parts)
        trouble = np.max([found.trouble, *(o.trouble for o in others)], axis=0)
        return found._replace(trouble=trouble)


@np.errstate(all="ignore")  # Infinite ends are no bound.
def _extreme(
    hessian: Callable[..., Interval],
    low: np.ndarray,
    high: np.ndarray,
    tolerance: float,
    most_boxes: int,
    sign: int,
    scale: float = 0.0,
) -> tuple[float, float, int]:
    """Bound the largest eigenvalue of sign·H over a box.

    Returns:
      (upper bound, lower bound, number of boxes that were examined).
    """
    lows, highs, whole = low[None], high[None], high - low
    tops = _largest(hessian, lows, highs, sign)
    reached, boxes = _reached(hessian, lows, highs, sign), 1
    while boxes < most_boxes:
        worst = float(np.max(tops))
        if worst <= reached + tolerance * max(abs(reached), scale):
            break
        # Each box that is split gives two.
        count = min(MOST_BOXES_AT_ONCE, most_boxes - boxes + 1) // 2
        order = np.argsort(-tops, kind="stable")[:count]
        rest = np.setdiff1d(np.arange(len(lows)), order)
        splittable = np.any(highs[order] - lows[order] > 2.0**-40 * whole, axis=-1)
        if not np.all(splittable):
            break
        new_low, new_high = _halves(lows[order], highs[order], whole)
        try:
            new_tops = _largest(hessian, new_low, new_high, sign)
            new_reached = _reached(hessian, new_low, new_high, sign)
        except TimeOver:
            break
        boxes += len(new_low)
        reached = max(reached, new_reached)
        lows = np.concatenate([lows[rest], new_low])
        highs = np.concatenate([highs[rest], new_high])
        tops = np.concatenate(
            [tops[rest], np.minimum(new_tops, np.tile(tops[order], 2))]
        )
    return float(np.max(tops)), reached, boxes


def _largest(
    hessian: Callable[..., Interval], low: np.ndarray, high: np.ndarray, sign: int
) -> np.ndarray:
    """Return upper bounds of the largest eigenvalue of sign·H over boxes."""
    matrices = hessian(low, high)
    smallest, largest = eigenvalue_bounds(matrices)
    found = largest if sign > 0 else -smallest
    return np.where(matrices.trouble == FINE, found, np.inf)


def _reached(
    hessian: Callable[..., Interval], low: np.ndarray, high: np.ndarray, sign: int
) -> float:
    """Return a lower bound of the largest eigenvalue of sign·H in the boxes' middles.

    The bound is the largest Rayleigh quotient of an approximate eigenvector.
    """
    middle = 0.5 * (low + high)
    at = hessian(middle, middle)
    numbers = np.where(np.isfinite(at.low), at.low, 0.0)
    _, vectors = np.linalg.eigh(0.5 * (numbers + np.swapaxes(numbers, -1, -2)))
    v = point(vectors[..., :, -1 if sign > 0 else 0])
    across = total(multiply(v, applied(at, v)), (1,))
    quotient = divide(across, total(multiply(v, v), (1,)))
    found = quotient.low if sign > 0 else -quotient.high
    usable = np.isfinite(found) & (at.trouble == FINE)
    return float(np.max(found, initial=-np.inf, where=usable))
