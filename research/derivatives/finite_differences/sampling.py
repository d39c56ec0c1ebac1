"""Evaluation of a function at many points, in one call if that is safe."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.checks import shown
from research.derivatives.errors import NotScalarError

# Number of points where f of an array is compared with f of a number. There are more if
# f returns an array of integers: np.vectorize takes the type of the first value, and
# would truncate the other values.
_CHECKED, _CHECKED_INTEGERS = 3, 24
# What a solver, a table or an assertion may raise outside of the domain of f. At the
# point of interest, such an error is a mistake of the user and is not hidden. MISTAKES
# are RuntimeErrors, too, but they are not hidden at any point.
UNDEFINED_ELSEWHERE = (RuntimeError, IndexError, AssertionError)
MISTAKES = (NotImplementedError, RecursionError, jax.errors.JaxRuntimeError)


class Sampler:
    """Callable that evaluates f, a function of one float, at many points.

    If f acts on each entry of an array, one call is enough. But an f that accepts an
    array may compute something else from it, such as a mean, a sum, a difference of
    neighbours or a sort. To detect this, the points are passed in random order, and
    three of the values are compared with f of single numbers. If f returns an array of
    integers, 24 values are compared. If the compared values are equal up to rounding
    errors, the array of values is used. Otherwise f is called for one point after
    another, and this sampler never passes an array to f again. An entry that is masked
    in a NumPy masked array counts as nan.

    Attributes:
      evaluations: Number of points where f was evaluated, including the comparisons.
      epsilon: Machine epsilon of the least precise dtype that f returned in all calls
        so far. 0 before the first call.
      unit: Number by which the values of f are multiplied, 1 by default.
    Example:
      >>> Sampler(lambda x: x**2)(np.array([3.0, 4.0]))
      array([ 9., 16.])
    """

    def __init__(self, f: Callable[[Any], Any]):
        self.f = f
        self.evaluations = 0
        self.epsilon = 0.0
        self.unit = 1.0
        self._takes_arrays = True  # As far as is known.

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return f at the points times `unit`, as float64.

        The value is nan at a point where f has no real value, or raises an
        ArithmeticError or a ValueError. At all points but the first, the value is also
        nan if f raises an error of `UNDEFINED_ELSEWHERE` that is not one of `MISTAKES`.

        Args:
          points: Points, shape (n,). The first is the point of interest. Infinite
            points are not passed to f.
        Raises:
          NotScalarError: f of a point is not a single number, or f of the first point
            is a complex number.
          Exception: f raises another error.
        """
        there = np.isfinite(points)
        values = np.full(points.shape, np.nan)
        with np.errstate(all="ignore"):
            values[there] = self.unit * self._sampled(points[there])
        return values

    def _sampled(self, points: np.ndarray) -> np.ndarray:
        first, _ = _at(self.f, points[0], strict=True)  # Errors of f are raised here.
        values, epsilon, is_floating = (
            _at_once(self.f, points) if self._takes_arrays else (None, 0.0, True)
        )
        number = _CHECKED if is_floating else _CHECKED_INTEGERS
        checked = np.linspace(0, len(points) - 1, number).astype(int)[1:]
        self.evaluations += len(points) + number
        if (
            values is not None
            and _same(float(values[0]), first, epsilon)
            and all(
                _same(float(values[i]), _at(self.f, points[i], False)[0], epsilon)
                for i in checked
            )
        ):
            self.epsilon = max(self.epsilon, epsilon)
            return values
        self._takes_arrays = False
        pairs = [_at(self.f, point, strict=i == 0) for i, point in enumerate(points)]
        self.epsilon = max(self.epsilon, *(e for _, e in pairs))
        return np.array([v for v, _ in pairs])


def _at_once(
    f: Callable[[Any], Any], points: np.ndarray
) -> tuple[np.ndarray | None, float, bool]:
    """Return the values of f from one call with the points in random order.

    Returns:
      (values, relative spacing of their dtype, whether this dtype is floating). The
      values are None if f does not return a real array of the same shape as the points.
    """
    order = np.random.default_rng(0).permutation(len(points))
    try:
        mixed = _filled(f(points[order]))
    except Exception:  # f may not accept arrays; the loop raises real errors again.
        return None, 0.0, True
    if mixed.shape != points.shape or _kind(mixed.dtype) not in "fiub":
        return None, 0.0, True
    values = np.empty(len(points))
    values[order] = mixed.astype(float)
    return values, _epsilon(mixed.dtype), _kind(mixed.dtype) == "f"


def _at(f: Callable[[Any], Any], point: Any, strict: bool) -> tuple[float, float]:
    """Return the value of f as a float, and the relative spacing of its type."""
    try:
        value = f(point)
    except (ArithmeticError, ValueError):  # math.log(-1.0), 1.0 / 0.0, math.exp(1000.0)
        return float("nan"), 0.0
    except UNDEFINED_ELSEWHERE as error:
        if strict or isinstance(error, MISTAKES):
            raise
        return float("nan"), 0.0
    array: Any = _filled(value)
    if isinstance(value, str | bytes):
        raise NotScalarError(
            f"f must return one real number; f({float(point)!r}) = {shown(value)} is a "
            "text."
        )
    if array.size != 1 or _kind(array.dtype) not in "fiubcO":
        raise NotScalarError(
            f"f must return one real number; f({float(point)!r}) has shape "
            f"{array.shape} and dtype {array.dtype}. For several outputs call "
            "jacobian(f, x), or differentiate one at a time: "
            "finite_difference(lambda x: f(x)[0], x)."
        )
    number = array.reshape(-1)[0]
    if array.dtype.kind == "O":
        return _exact(number, point)
    if array.dtype.kind != "c":
        return float(number), _epsilon(array.dtype)
    if number.imag and strict:
        raise NotScalarError(
            f"f must return one real number; f({float(point)!r}) = {number!r} is "
            "complex. Differentiate the parts one at a time: "
            "finite_difference(lambda x: f(x).real, x) and "
            "finite_difference(lambda x: f(x).imag, x)."
        )
    return (float("nan") if number.imag else float(number.real)), _epsilon(
        array.real.dtype
    )


def _filled(value: Any) -> np.ndarray:
    """Return a value of f as an array, with nan where it is masked."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        inexact = value.dtype.kind in "fc"
        return np.ma.filled(value if inexact else value.astype(float), np.nan)
    return np.asarray(value)


def _exact(number: Any, point: Any) -> tuple[float, float]:
    """Convert a Fraction, a Decimal or a number of mpmath to a float.

    Returns:
      (float, relative spacing of float64).
    """
    try:
        if isinstance(number, (str, bytes)):
            raise TypeError
        return float(number), _epsilon(np.dtype(np.float64))
    except OverflowError:
        return float("nan"), _epsilon(np.dtype(np.float64))
    except (TypeError, ValueError):
        raise NotScalarError(
            f"f must return one real number; f({float(point)!r}) has type "
            f"{type(number).__name__}, which float() does not accept. Convert it in f: "
            "finite_difference(lambda x: float(f(x)), x)."
        ) from None


def _epsilon(dtype: np.dtype) -> float:
    """Return the relative spacing of values of a dtype after conversion to float64."""
    double = np.finfo(np.float64).eps
    return float(max(jnp.finfo(dtype).eps, double) if _kind(dtype) == "f" else double)


def _kind(dtype: np.dtype) -> str:
    """Return NumPy's letter for the kind of a dtype, and "f" also for bfloat16."""
    return "f" if jnp.issubdtype(dtype, jnp.floating) else dtype.kind


def _same(one: float, other: float, epsilon: float) -> bool:
    if not (np.isfinite(one) and np.isfinite(other)):
        return bool(np.isfinite(one) == np.isfinite(other))
    return abs(one - other) <= 64 * epsilon * max(abs(one), abs(other))
