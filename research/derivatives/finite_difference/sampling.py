"""Values of any function of a number at many points: one call where that is safe, else a loop."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from research.derivatives.errors import NotScalarError

_CHECKED = 3  # Points at which what f makes of an array is compared with what it makes of a number.


class Samples(NamedTuple):
    """What f is at the points.

    Attributes:
      values: float64, the shape of the points; nan where f has no real value or stops with an arithmetic error.
      evaluations: Numbers at which f was evaluated, those of the comparison included.
      epsilon: Relative spacing of the type that f returns.
    """

    values: np.ndarray
    evaluations: int
    epsilon: float


def sample(f: Callable[[Any], Any], points: np.ndarray) -> Samples:
    """Evaluates f at the points, in one call if f acts on arrays number by number.

    An f that accepts an array may mean something else by it: a mean, a sum, a difference of neighbours, a sort. So the
    points are passed in mixed order, and three of the values must be, to a few units of rounding, those that f gives
    for the single numbers. An f that fails this, or an array, is called in a loop.

    Args:
      f: A function of a float.
      points: Shape (n,); the first one is the point of interest.
    Raises:
      NotScalarError: f of a number is not a single number.
      Exception: What f raises at the first point, other than a domain or arithmetic error.
    Example:
      >>> sample(lambda x: x**2, np.array([3.0, 4.0])).values
      array([ 9., 16.])
    """
    checked = np.linspace(0, len(points) - 1, _CHECKED).astype(int)
    with np.errstate(all="ignore"):
        expected = [_at(f, points[i]) for i in checked]
        values, epsilon = _at_once(f, points)
        if values is not None and all(
            _same(float(values[i]), e, epsilon) for i, (e, _) in zip(checked, expected, strict=True)
        ):
            return Samples(values, len(points) + _CHECKED, epsilon)
        pairs = [_at(f, point) for point in points]
    return Samples(np.array([v for v, _ in pairs]), len(points) + _CHECKED, max(e for _, e in pairs))


def _at_once(f: Callable[[Any], Any], points: np.ndarray) -> tuple[np.ndarray | None, float]:
    """f of all points in mixed order, put back in order, or None where f gives no array of real numbers of their shape."""
    order = np.random.default_rng(0).permutation(len(points))
    try:
        mixed = np.asarray(f(points[order]))
    except Exception:  # Whatever an f of single numbers makes of an array; the loop will tell what is really wrong.
        return None, 0.0
    if mixed.shape != points.shape or mixed.dtype.kind not in "fiub":
        return None, 0.0
    values = np.empty(len(points))
    values[order] = mixed
    return values, _epsilon(mixed.dtype)


def _at(f: Callable[[Any], Any], point: Any) -> tuple[float, float]:
    """(f(point) as a float, the relative spacing of its type), for a NumPy float64, which is a float too."""
    try:
        value = f(point)
    except (ArithmeticError, ValueError):  # math.log(-1.0), 1.0 / 0.0, math.exp(1000.0)
        return float("nan"), 0.0
    array: Any = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiubc":
        raise NotScalarError(
            f"f must give one number for a number; f({float(point)!r}) has the shape {array.shape} and the type {array.dtype}. "
            "For the derivatives of several outputs call jacobian(f, x), or differentiate one at a time: "
            "finite_difference(lambda x: f(x)[0], x)."
        )
    number = array.reshape(-1)[0]
    if array.dtype.kind == "c":
        return (float(number.real) if number.imag == 0 else float("nan")), _epsilon(array.real.dtype)
    return float(number), _epsilon(array.dtype)


def _epsilon(dtype: np.dtype) -> float:
    return float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps)


def _same(one: float, other: float, epsilon: float) -> bool:
    if not (np.isfinite(one) and np.isfinite(other)):
        return bool(np.isfinite(one) == np.isfinite(other))
    return abs(one - other) <= 64 * epsilon * max(abs(one), abs(other))
