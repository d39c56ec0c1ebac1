"""Interval arithmetic in float64, with every rounding outwards.

An interval [low, high] contains all values of an expression over a box. Sums,
differences, products, quotients and square roots of float64 are rounded to nearest
(IEEE 754), so the exact result lies between the neighbours of the computed one. NumPy
evaluates these operations one by one. XLA is not used, because it would fuse, reorder
and replace them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

FINE, NOT_SMOOTH, MAYBE_UNDEFINED = np.uint8(0), np.uint8(1), np.uint8(2)
UNIT = 2.0**-53  # Largest relative error of one rounding to nearest.
SMALLEST = float(np.nextafter(0.0, 1.0))
LARGEST = float(np.finfo(np.float64).max)


class Interval(NamedTuple):
    """An array of intervals that enclose the values of a function on a box of points.

    If the function has a value at a point of the box, the value lies between `low` and
    `high`.

    Attributes:
      low, high: Ends of the intervals, float64, int64 or bool arrays of one shape. Ends
        may be infinite. Ends that are integers or bools have no rounding error.
      trouble: A number for each interval, uint8. The array has the same shape, or the
        shape () if one number holds for all intervals. FINE (0) means that there is no
        trouble. NOT_SMOOTH (1) means that a comparison in the function may be true at
        one point of the box and false at another. MAYBE_UNDEFINED (2) means that the
        function may have no value at some point.
    """

    low: np.ndarray
    high: np.ndarray
    trouble: np.ndarray

    @property
    def is_float(self) -> bool:
        """True if the ends are floats."""
        return self.low.dtype == np.float64

    @property
    def is_point(self) -> bool:
        """True if low and high are the same array object."""
        return self.low is self.high


def point(value: Any) -> Interval:
    """Return the interval [x, x] for each entry x of an array.

    Floats are converted to float64, and integers to int64. Bools are kept.

    Raises:
      TypeError: The array holds anything else, such as complex numbers.
      NotImplementedError: An integer is too large for int64.
    """
    array = np.asarray(value)
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        array = array.astype(np.float64)
    elif array.dtype.kind in "iu":
        if array.size and int(np.max(array)) > np.iinfo(np.int64).max:
            raise NotImplementedError(
                "it has an integer beyond 2^63, which int64 cannot hold; use smaller "
                "integers"
            )
        array = array.astype(np.int64)
    elif array.dtype.kind != "b":
        raise TypeError(
            f"intervals hold real numbers; got an array of dtype {array.dtype.name}."
        )
    return Interval(array, array, np.asarray(FINE))


def check_exact(x: Interval) -> None:
    """Raise NotImplementedError if an integer may exceed 2^53 in absolute value.

    x is an array of intervals of integers. Above 2^53, float64 does not contain every
    integer.
    """
    ends = (int(np.min(x.low, initial=0)), int(np.max(x.high, initial=0)))
    if max(map(abs, ends)) > 2**53:
        raise NotImplementedError(
            "its integers may lie beyond 2^53, where float64 skips integers; use "
            "smaller integers or a smaller box"
        )


def interval(low: Any, high: Any, *causes: Interval) -> Interval:
    """Return the interval [low, high], given the intervals it was computed from.

    The intervals enclose values of a function over a box of points. The field `trouble`
    of the result is the largest `trouble` of `causes`. The values of this field in
    ascending order are FINE, NOT_SMOOTH (the function may be not smooth in the box) and
    MAYBE_UNDEFINED (the function may have no value at some point).

    Args:
      low, high: Ends of the interval.
      causes: The intervals from which low and high were computed. Without causes,
        `trouble` is FINE.
    """
    return Interval(np.asarray(low), np.asarray(high), worst(*causes))


def worst(*intervals: Interval) -> np.ndarray:
    """Return, for each entry, the largest `trouble` of several intervals.

    `trouble` says whether the enclosed function may be undefined or not smooth. The
    values in ascending order are FINE, NOT_SMOOTH and MAYBE_UNDEFINED. If no interval
    is given, the result is FINE.
    """
    trouble = np.asarray(FINE)
    for one in intervals:
        if one.trouble.ndim or one.trouble > 0 or trouble.ndim:
            trouble = np.maximum(trouble, one.trouble)
    return trouble


def with_trouble(x: Interval, where: np.ndarray, kind: np.uint8) -> Interval:
    """Mark the intervals x with a kind of trouble where `where` is True.

    x is an array of intervals that enclose the values of a function on a box. `kind` is
    0 (no trouble), 1 (a comparison in the function may be true at one point of the box
    and false at another) or 2 (the function may have no value at some point). At the
    marked entries, the field `trouble` of the result is the larger of `x.trouble` and
    `kind`.
    """
    if not np.any(where):
        return x
    return x._replace(trouble=np.maximum(x.trouble, np.where(where, kind, FINE)))


def down(x: np.ndarray) -> np.ndarray:
    """Return the next smaller float for each entry."""
    return np.nextafter(x, -np.inf)


def up(x: np.ndarray) -> np.ndarray:
    """Return the next larger float for each entry."""
    return np.nextafter(x, np.inf)


def add_down(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a lower bound of a + b. The bound is exact if a + b is a float."""
    total, error = _two_sum(a, b)
    return np.where(error >= 0, total, down(total))


def add_up(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return an upper bound of a + b. The bound is exact if a + b is a float."""
    total, error = _two_sum(a, b)
    return np.where(error <= 0, total, up(total))


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rounded sum and its rounding error (Knuth 1969); NaN on overflow."""
    with np.errstate(invalid="ignore", over="ignore"):
        return _sum_and_error(a, b)


def _sum_and_error(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def polynomial_of_square(
    coefficients: Sequence[Interval], square: Interval
) -> Interval:
    """Enclose Σ c_i s^i by Horner's scheme, for all numbers s in an interval in [0, 1].

    The intervals c_0, c_1, ... are `coefficients`, and the interval of s is `square`.
    The function is faster than `multiply` and `add`: because s is not negative, each
    bound needs two products instead of four.
    """
    low, high = coefficients[-1].low, coefficients[-1].high
    for coefficient in coefficients[-2::-1]:
        low = np.minimum(square.low * low, square.high * low)
        high = np.maximum(square.low * high, square.high * high)
        low, high = _sum_of_product(coefficient, low, high)
    return Interval(low, high, np.asarray(FINE))


def positive_polynomial(coefficients: Sequence[Interval], x: Interval) -> Interval:
    """Enclose Σ c_i x^i by Horner's scheme, if all partial sums are positive.

    The intervals c_0, c_1, ... are `coefficients`. The partial sums are
    s_i = c_i + c_(i + 1) x + c_(i + 2) x² + ... for each i. They must be positive for
    all numbers x in the given interval, and this interval must be bounded. A step of
    Horner's scheme computes s_i = c_i + x s_(i + 1). Because s_(i + 1) is positive, the
    product is smallest at the lower end of the interval of x, and largest at the upper
    end. The sum s_(i + 1) is known as an interval, and the end of x is multiplied by
    both ends of this interval. So two products are compared for each bound. The
    function `multiply` compares four.
    """
    low, high = coefficients[-1].low, coefficients[-1].high
    for coefficient in coefficients[-2::-1]:
        ends = (
            np.minimum(x.low * low, x.low * high),
            np.maximum(x.high * low, x.high * high),
        )
        low, high = _sum_of_product(coefficient, *ends)
    return Interval(low, high, np.asarray(FINE))


def _sum_of_product(
    c: Interval, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of c + [low, high], where low and high are rounded products."""
    below, error = _sum_and_error(c.low, down(low))
    below = np.where(error >= 0, below, down(below))
    above, error = _sum_and_error(c.high, up(high))
    return below, np.where(error <= 0, above, up(above))


def add(a: Interval, b: Interval) -> Interval:
    """Enclose a + b for all numbers in a and b.

    a and b are arrays of intervals, and so is the result.
    """
    low = add_down(a.low, b.low)
    high = add_up(a.high, b.high)
    found = interval(_or(low, -np.inf), _or(high, np.inf), a, b)
    # Infinite ends may be attained, and inf - inf is NaN.
    nothing = ((a.low == -np.inf) & (b.high == np.inf)) | (
        (a.high == np.inf) & (b.low == -np.inf)
    )
    return with_trouble(found, nothing, MAYBE_UNDEFINED)


def negative(a: Interval) -> Interval:
    """Return the interval of the numbers -z for all numbers z in a.

    a is an array of intervals, and so is the result.
    """
    return a._replace(low=-a.high, high=-a.low)


def subtract(a: Interval, b: Interval) -> Interval:
    """Enclose a - b for all numbers in a and b.

    a and b are arrays of intervals, and so is the result.
    """
    return add(a, negative(b))


def _or(values: np.ndarray, otherwise: float) -> np.ndarray:
    """Replace each NaN, which comes from inf - inf, by the infinite end `otherwise`."""
    return np.where(np.isnan(values), otherwise, values)


def multiply(a: Interval, b: Interval) -> Interval:
    """Enclose the product a b for all numbers a and b in the two intervals."""
    if b.is_point:
        a, b = b, a
    if a.is_point:
        ends = (_product(a.low, b.low), _product(a.low, b.high))
    else:
        ends = (
            _product(a.low, b.low),
            _product(a.low, b.high),
            _product(a.high, b.low),
            _product(a.high, b.high),
        )
    low, high = _least(ends), _largest(ends)
    # A product with an exact factor of 0 or ±1 is exact.
    exact = _is_simple(a) | _is_simple(b)
    found = interval(
        np.where(exact, low, down(low)), np.where(exact, high, up(high)), a, b
    )
    # Infinite ends may be attained, and infinity times 0 is NaN.
    nothing = (is_infinite(a) & _has_zero(b)) | (is_infinite(b) & _has_zero(a))
    return with_trouble(found, nothing, MAYBE_UNDEFINED)


def is_infinite(x: Interval) -> np.ndarray:
    """Return where an end of x is infinite, so that x may contain infinity itself."""
    return np.isinf(x.low) | np.isinf(x.high)


def _has_zero(x: Interval) -> np.ndarray:
    return (x.low <= 0) & (x.high >= 0)


def _product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return x y, with 0 times infinity as 0.

    This is right if infinity is only a bound. The caller sets `trouble`, because
    infinity may also be a value.
    """
    product = x * y
    return np.where((x == 0) | (y == 0), 0.0, product)


def _is_simple(x: Interval) -> np.ndarray:
    if not x.is_point:
        return np.asarray(False)
    return (x.low == 0) | (np.abs(x.low) == 1)


def _least(ends: tuple[np.ndarray, ...]) -> np.ndarray:
    least = ends[0]
    for end in ends[1:]:
        least = np.minimum(least, end)
    return least


def _largest(ends: tuple[np.ndarray, ...]) -> np.ndarray:
    largest = ends[0]
    for end in ends[1:]:
        largest = np.maximum(largest, end)
    return largest


def divide(a: Interval, b: Interval) -> Interval:
    """Enclose the quotient a / b for all numbers a and b in the two intervals.

    Where b contains 0, the field `trouble` of the result is MAYBE_UNDEFINED (the
    quotient may have no value).
    """
    through_zero = (b.low <= 0) & (b.high >= 0)
    safe_low = np.where(through_zero, 1.0, b.low)
    safe_high = np.where(through_zero, 1.0, b.high)
    ends = tuple(
        _quotient(x, y) for x in (a.low, a.high) for y in (safe_low, safe_high)
    )
    exact = b.is_point & (np.abs(b.low) == 1)
    low, high = _least(ends), _largest(ends)
    low, high = np.where(exact, low, down(low)), np.where(exact, high, up(high))
    # If b only touches 0, 1 / b is bounded on one side.
    touches_below = (b.low == 0) & (b.high > 0)
    touches_above = (b.high == 0) & (b.low < 0)
    inverse = Interval(
        np.where(touches_below, np.maximum(down(1.0 / safe(b.high)), 0.0), -np.inf),
        np.where(touches_above, np.minimum(up(1.0 / safe(b.low)), 0.0), np.inf),
        np.asarray(FINE),
    )
    wide = multiply(a, inverse)
    found = interval(
        np.where(through_zero, wide.low, low),
        np.where(through_zero, wide.high, high),
        a,
        b,
    )
    nothing = through_zero | (is_infinite(a) & is_infinite(b))
    return with_trouble(found, nothing, MAYBE_UNDEFINED)


def safe(x: np.ndarray) -> np.ndarray:
    """Replace each 0 in x by 1, so that a division by the result is never by 0.

    The caller does not use the quotients where x is 0.
    """
    return np.where(x == 0, 1.0, x)


def _quotient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return x / y for y that is not 0, and 0 for inf / inf."""
    return np.where(np.isinf(x) & np.isinf(y), 0.0, x / y)


def square_root(a: Interval) -> Interval:
    """Enclose √a over the part of a that is not negative.

    If a contains negative numbers, the field `trouble` of the result is MAYBE_UNDEFINED
    (the root may have no value).
    """
    low, high = np.sqrt(np.maximum(a.low, 0.0)), np.sqrt(np.maximum(a.high, 0.0))
    # The square of an integer below 2^26 is exact, and so is its root.
    exact = (low == np.floor(low)) & (low < 2.0**26) & (low * low == a.low)
    found = interval(np.maximum(np.where(exact, low, down(low)), 0.0), up(high), a)
    return with_trouble(found, a.low < 0, MAYBE_UNDEFINED)


def magnitude(a: Interval) -> Interval:
    """Return the interval of the absolute values |a|."""
    crosses = (a.low < 0) & (a.high > 0)
    ends = np.abs(a.low), np.abs(a.high)
    zero = np.zeros((), a.low.dtype)
    return a._replace(
        low=np.where(crosses, zero, np.minimum(*ends)), high=np.maximum(*ends)
    )


def integer_power(a: Interval, n: int) -> Interval:
    """Enclose aⁿ for all numbers in a, for an integer n."""
    if n < 0:
        return divide(point(1.0), integer_power(a, -n))
    if n == 0:
        return interval(np.ones_like(a.low), np.ones_like(a.high), a)
    size = magnitude(a)
    low, high = _power(size.low, n, down), _power(size.high, n, up)
    low = np.maximum(low, 0.0)
    if n % 2 == 0:
        return interval(low, high, a)
    # An odd power keeps the sign of each end.
    of_low = np.where(
        a.low >= 0, _power(np.abs(a.low), n, down), -_power(np.abs(a.low), n, up)
    )
    of_high = np.where(
        a.high >= 0, _power(np.abs(a.high), n, up), -_power(np.abs(a.high), n, down)
    )
    return interval(of_low, of_high, a)


def _power(
    size: np.ndarray, n: int, rounded: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return a bound of sizeⁿ for sizes of at least 0, by repeated squaring."""
    simple = (size == 0) | (size == 1)
    result: Any = None  # There is no factor yet.
    base = size
    while n:
        if n % 2:
            result = base if result is None else rounded(result * base)
        n //= 2
        if n:
            base = np.maximum(rounded(base * base), 0.0)
    return np.where(simple, size, np.maximum(result, 0.0))


def minimum(a: Interval, b: Interval) -> Interval:
    """Return the interval of min(x, y) for all numbers x in a and y in b."""
    return interval(np.minimum(a.low, b.low), np.minimum(a.high, b.high), a, b)


def maximum(a: Interval, b: Interval) -> Interval:
    """Return the interval of max(x, y) for all numbers x in a and y in b."""
    return interval(np.maximum(a.low, b.low), np.maximum(a.high, b.high), a, b)


def hull(a: Interval, b: Interval) -> Interval:
    """Return the smallest interval that contains a and b."""
    return interval(np.minimum(a.low, b.low), np.maximum(a.high, b.high), a, b)


def total(a: Interval, axes: tuple[int, ...]) -> Interval:
    """Enclose the sum of an array of intervals over some axes.

    NumPy adds the lower ends, and then the upper ends. If the ends are floats, each of
    the two sums is then moved outwards by `sum_error`, a bound of the rounding error of
    the sum. For n floats in any order, the rounding error is at most γ times the sum of
    their absolute values, where γ = (n - 1) u / (1 - (n - 1) u) and u = 2^-53 (Higham,
    Accuracy and stability of numerical algorithms, 2002, equation (4.4)).

    If one term may be inf and another may be -inf, the field `trouble` of the sum is
    MAYBE_UNDEFINED, as in `add`.
    """
    trouble = a.trouble
    if trouble.ndim:
        trouble = np.max(np.broadcast_to(trouble, a.low.shape), axis=axes, initial=0)
    if not a.is_float:
        low = np.sum(a.low, axis=axes)
        return Interval(low, low if a.is_point else np.sum(a.high, axis=axes), trouble)
    count = int(np.prod([a.low.shape[axis] for axis in axes], dtype=np.int64))
    if count <= 1:
        shape = [n for axis, n in enumerate(a.low.shape) if axis not in axes]
        if count == 0:
            return Interval(np.zeros(shape), np.zeros(shape), trouble)
        return Interval(a.low.reshape(shape), a.high.reshape(shape), trouble)
    low = np.sum(a.low, axis=axes) - sum_error(np.abs(a.low), axes, count)
    high = np.sum(a.high, axis=axes) + sum_error(np.abs(a.high), axes, count)
    found = Interval(_or(down(low), -np.inf), _or(up(high), np.inf), trouble)
    if np.isfinite(found.low).all():  # No term may be -inf.
        return found
    return with_trouble(
        found, opposite(a, lambda x: np.sum(x, axis=axes)), MAYBE_UNDEFINED
    )


def opposite(a: Interval, summed: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return where a sum may contain inf - inf, which is NaN.

    Args:
      a: The terms, an array of intervals. If an end is infinite, the term is assumed to
        be possibly infinite.
      summed: Function that adds the entries of an array which belong to one sum of the
        terms, such as x -> np.sum(x, axis=axes).
    """
    below, above = a.low == -np.inf, a.high == np.inf
    # The pairs of two different terms, of which one may be -inf and the other inf.
    return summed(below) * summed(above) > summed(below & above)


def sum_error(sizes: np.ndarray, axes: tuple[int, ...], count: int) -> np.ndarray:
    """Return a bound of the rounding error of sums of floats over some axes.

    The bound is 1.01 n u S, where n is `count`, u = 2^-53, and S is the sum of the
    absolute values as NumPy computes it (`total` gives the theorem). The factor 1.01
    allows for the rounding error of S.

    Args:
      sizes: Absolute values of the floats.
      axes: Axes that are summed.
      count: Number of floats in each sum.
    """
    # The sum of sizes is itself rounded; the factor 1.01 is more than its error.
    return up(1.01 * count * UNIT * np.sum(sizes, axis=axes))
