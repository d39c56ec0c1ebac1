"""Enclosures of a function and of its derivatives, over one box or over many."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.checks import (
    check_callable,
    check_count,
    check_not_deleted,
    check_numbers,
    refuse_traced,
)
from research.derivatives._float64 import in_float64
from research.derivatives.certified.intervals import (
    FINE,
    MAYBE_UNDEFINED,
    Interval,
    check_exact,
    point,
)
from research.derivatives.certified.program import (
    check_derivatives,
    evaluate,
    trace,
)
from research.derivatives.errors import (
    NotInexactError,
    NotScalarError,
    UnsupportedPrimitiveError,
)
from research.derivatives.exact.arguments import described
from research.tracing import AdviceOnTracing

MOST_ORDER = 10
CHUNKS = (16, 256)  # Numbers of boxes for which a program is traced.


class Enclosure(NamedTuple):
    """Proved bounds of the values of a function over a box.

    A box is a product of intervals, one for each coordinate of a point.

    Attributes:
      low, high: The bounds, float64 arrays of the shape of the value. low <= value <=
        high for every point of the box at which the function has a value. A bound may
        be infinite.
      smooth: True if two statements are proved: the function has a value at every point
        of the box, and each comparison in the function has the same answer at all these
        points.
      lines: Lines of the source code, such as "model.py:12". On these lines, a
        comparison may be true at one point of the box and false at another, or a value
        may be undefined. Empty if `smooth` is True.
    """

    low: np.ndarray
    high: np.ndarray
    smooth: bool
    lines: tuple[str, ...]

    def __str__(self) -> str:
        ends = (np.array2string(end, precision=17) for end in (self.low, self.high))
        text = f"[{', '.join(ends)}]"
        return (
            text
            if self.smooth
            else f"{text}, open at {', '.join(self.lines) or 'the border'}"
        )


def enclose(f: Callable[..., Any], low: Any, high: Any) -> Enclosure:
    """Return proved bounds of f(x) over a box: all x with low <= x <= high.

    f is traced by JAX, and its operations are evaluated in interval arithmetic: lower
    ends are rounded down and upper ends up. The bounds hold for f in exact arithmetic,
    where no operation rounds. A constant in f has exactly the value of its float: 0.1
    means the float64 number nearest to 0.1. The bounds are proved, but not tight. If a
    variable occurs several times in f, the bounds may be much wider than the range of
    f. The bounds tighten as the box shrinks.

    Args:
      f: Function of one array of floats that JAX can trace. It returns one array.
      low, high: Ends of the box, finite arrays of the same shape with low <= high. They
        are converted to float64.
    Returns:
      An `Enclosure` with arrays of the shape of f(x). Its field `smooth` is True if two
      statements are proved: f has a value everywhere in the box, and each comparison in
      f has the same answer everywhere in the box.
    Raises:
      ValueError: The ends have different shapes, low > high, or an end is not finite.
      TypeError: f is not callable, or an end is not a real number.
      NotScalarError: f does not return one array.
      UnsupportedPrimitiveError: f uses an operation that cannot be enclosed. The
        message names the line of this operation.
      RuntimeError: The processor replaces the smallest floats by 0 (flush to zero), but
        the proof assumes the usual rounding.
    References:
      Moore, Kearfott & Cloud, Introduction to interval analysis, 2009, chapter 5.
    Example:
      >>> found = enclose(lambda x: x * x - 2 * x, 0.5, 1.5)
      >>> print(found.low.round(6), found.high.round(6), found.smooth)
      -2.75 1.25 True
    """
    check_callable("f", f)
    refuse_traced("enclose", low=low, high=high)
    box = checked_box(low, high)
    program = trace(f, jax.ShapeDtypeStruct(box.low.shape, jnp.float64))
    return _enclosure(program, box)


def derivative_enclosure(
    f: Callable[..., Any], low: Any, high: Any = None, order: int = 1
) -> Enclosure:
    """Return proved bounds of a derivative of f over a box, or at a point.

    The box is all x with low <= x <= high. If low is a number, the derivative of every
    order is a number. If low has axes, order 1 is the gradient and order 2 the Hessian.
    If `smooth` is True in the result, the derivative exists everywhere in the box.

    JAX differentiates f. If f uses `stop_gradient`, a derivative rule of the user
    (`jax.custom_jvp`, `jax.custom_vjp`) or an iterative linear solver, an error is
    raised, because the result of JAX might not be the derivative of f.

    Args:
      f: Function of one array of floats that returns one number.
      low, high: Ends of the box, as in `enclose`. If high is None, the box is the
        single point low.
      order: Order of the derivative, an integer from 1 to 10. If low has axes, the
        order is 1 or 2. Each further order about doubles the number of operations.
    Returns:
      An `Enclosure`. Its arrays have shape () if low is a number. Otherwise they have
      the shape low.shape for order 1, and low.shape + low.shape for order 2.
    Raises:
      ValueError: As in `enclose`, or the order is out of range.
      TypeError, RuntimeError: As in `enclose`.
      NotScalarError: f does not return one number.
      NotInexactError: f returns an integer or a bool.
      UnsupportedPrimitiveError: As in `enclose`, or f uses `stop_gradient`, a
        derivative rule of the user (`jax.custom_jvp`, `jax.custom_vjp`) or an iterative
        linear solver.
    References:
      Moore, Kearfott & Cloud, Introduction to interval analysis, 2009, chapter 6.
    Example:
      >>> found = derivative_enclosure(lambda x: x**3, 1.0, 2.0)
      >>> bool(found.low <= 3.0), bool(found.high >= 12.0)
      (True, True)
    """
    check_callable("f", f)
    refuse_traced("derivative_enclosure", low=low, high=high)
    check_count("order", order)
    if order > MOST_ORDER:
        raise ValueError(f"order must be at most {MOST_ORDER}; got order={order}.")
    box = checked_box(low, low if high is None else high)
    if box.low.ndim and order > 2:
        raise ValueError(
            f"order must be 1 or 2 for an array of shape {box.low.shape}; got "
            f"order={order}."
        )
    shape = jax.ShapeDtypeStruct(box.low.shape, jnp.float64)
    check_scalar(f, shape)
    functions = [f]
    for k in range(order):
        functions.append(jax.jacfwd(functions[-1]) if k else jax.grad(functions[-1]))
    *lower, program = (trace(function, shape) for function in functions)
    return _enclosure(program, box, lower)


def _enclosure(program: Any, box: Interval, lower: Sequence[Any] = ()) -> Enclosure:
    """Enclose the result of a program, which computes f or a derivative of f.

    For a derivative, `lower` has the programs of f and of the lower derivatives. They
    show where f or a lower derivative jumps. The program of the derivative does not
    show this, because JAX's derivative of a step, such as floor or a comparison, is 0.
    """
    lines: dict[str, str] = {}
    doubts = [one.trouble for part in lower for one in evaluate(part, [box], lines)]
    results = evaluate(program, [box], lines)
    if len(results) != 1:
        raise NotScalarError(
            f"f must return one array; it returns {len(results)} arrays."
        )
    (found,) = results
    if not found.is_float:
        try:
            check_exact(found)
        except NotImplementedError as problem:
            raise UnsupportedPrimitiveError(
                f"the result of f cannot be enclosed: {problem}."
            ) from problem
        found = Interval(
            found.low.astype(float), found.high.astype(float), found.trouble
        )
    smooth = not any(np.any(trouble) for trouble in (found.trouble, *doubts))
    return Enclosure(found.low, found.high, smooth, () if smooth else tuple(lines))


def checked_box(low: Any, high: Any) -> Interval:
    """Check the ends of a box, and return the box as an `Interval` of float64 arrays.

    Raises:
      TypeError: An end is not an array of real numbers.
      ValueError: The ends have different shapes, low > high, or an end is not finite.
      RuntimeError: The processor replaces the smallest floats by 0.
    """
    ends = []
    for name, value in (("low", low), ("high", high)):
        check_numbers(name, value, kinds="iuf")
        check_not_deleted(name, value)
        array = np.asarray(value)
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} must be finite; got {name}={value!r}.")
        ends.append(np.array(array, np.float64))
    if ends[0].shape != ends[1].shape:
        raise ValueError(
            f"low and high must have the same shape; got {ends[0].shape} and "
            f"{ends[1].shape}."
        )
    if np.any(ends[0] > ends[1]):
        raise ValueError(f"low must not be above high; got low={low!r}, high={high!r}.")
    check_denormals()
    same = np.array_equal(ends[0], ends[1])
    return point(ends[0]) if same else Interval(ends[0], ends[1], np.asarray(FINE))


def check_denormals() -> None:
    """Raise RuntimeError if the processor replaces denormal floats by 0."""
    smallest = np.array([5e-324])
    if (smallest * 1.0)[0] == 0 or np.nextafter(np.zeros(1), 1.0)[0] == 0:
        raise RuntimeError(
            "this process flushes the smallest floats to 0, so no bound can be proved; "
            "do not set flush-to-zero."
        )


def check_scalar(f: Callable[..., Any], shape: jax.ShapeDtypeStruct) -> None:
    """Check that f returns one number, and that JAX's derivative of f is trusted.

    JAX's own derivative rules are trusted. A custom derivative rule is not trusted,
    because it may be wrong. `stop_gradient` changes the derivative on purpose.

    Args:
      f: Function of one array.
      shape: Shape and dtype of this array.
    Raises:
      NotScalarError: f does not return one number.
      NotInexactError: The number is not real and floating.
      UnsupportedPrimitiveError: f uses `stop_gradient` or a derivative rule that is not
        JAX's.
    """
    with in_float64(), AdviceOnTracing():
        result = jax.eval_shape(f, shape)
    if getattr(result, "shape", None) != ():
        raise NotScalarError(
            f"f must return one number; it returns {described(result)}."
        )
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise NotInexactError(f"f must return a float; it returns {result.dtype}.")
    check_derivatives(trace(f, shape).jaxpr)


class TimeOver(Exception):
    """Raised if the time limit passes before a function is enclosed on all boxes."""


class Batched:
    """Enclosure of a function over many boxes at once.

    The enclosure for a box is an interval that contains the value of the function at
    every point of the box. The object is called with two arguments, low and high: the
    ends of the boxes, each of shape (boxes, size). The call returns an `Interval` with
    the enclosure for each box.

    Attributes:
      function: The function, mapped over points by `jax.vmap`.
      size: Number of coordinates of a point.
      deadline: Value of `time.monotonic()` after which a call for several boxes raises
        TimeOver. A call for one box is always completed.
      lines: Dict from a line of the function's source code to the name of the operation
        on this line. It has the lines at which a value may be undefined, or a
        comparison may be true at one point of a box and false at another.
    """

    def __init__(
        self, function: Callable[..., Any], size: int, deadline: float = math.inf
    ) -> None:
        self.function = jax.vmap(function)
        self.size, self.deadline = size, deadline
        self.programs: dict[int, Any] = {}
        self.lines: dict[str, str] = {}

    def __call__(self, low: np.ndarray, high: np.ndarray) -> Interval:
        """Enclose the results over boxes; `trouble` has the shape (boxes,).

        Raises:
          TimeOver: There are several boxes, and the deadline passes before the last one
            is enclosed.
        """
        chunk = CHUNKS[0] if len(low) <= CHUNKS[0] else CHUNKS[-1]
        same = low is high
        parts = []
        for start in range(0, len(low), chunk):
            if len(low) > 1 and time.monotonic() >= self.deadline:
                raise TimeOver
            one = low[start : start + chunk]
            other = one if same else high[start : start + chunk]
            parts.append(self._chunk(one, other, chunk))
        return Interval(*(np.concatenate(ends) for ends in zip(*parts, strict=True)))

    def _program(self, chunk: int) -> Any:
        if chunk not in self.programs:
            shape = jax.ShapeDtypeStruct((chunk, self.size), jnp.float64)
            self.programs[chunk] = trace(self.function, shape)
        return self.programs[chunk]

    def _chunk(self, low: np.ndarray, high: np.ndarray, chunk: int) -> Interval:
        count = len(low)
        filled = [
            np.concatenate([end, np.repeat(end[:1], chunk - count, axis=0)])
            for end in ((low,) if low is high else (low, high))
        ]
        box = (
            point(filled[0])
            if len(filled) == 1
            else Interval(filled[0], filled[1], np.asarray(FINE))
        )
        (found,) = evaluate(self._program(chunk), [box], self.lines)
        trouble = np.broadcast_to(found.trouble, found.low.shape).reshape(chunk, -1)
        undefined = np.isnan(found.low) | np.isnan(found.high)
        worst = np.where(
            np.any(undefined.reshape(chunk, -1), axis=1),
            MAYBE_UNDEFINED,
            np.max(trouble, axis=1, initial=0),
        )
        return Interval(
            np.where(undefined, -np.inf, found.low)[:count],
            np.where(undefined, np.inf, found.high)[:count],
            worst[:count],
        )
