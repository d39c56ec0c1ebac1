"""Proved enclosures of elementary functions at floats, and over intervals.

For most functions, the argument is first reduced to a small number. Then a Taylor sum
is evaluated in interval arithmetic, and a bound of the remainder is added. So the
result contains all rounding errors. The math libraries of NumPy and XLA are not
trusted, because no bound of their errors is proved. A constant whose name ends in
_ENCLOSED is an interval. mpmath computes the exact constant with sixty digits. The ends
of the interval are the floats just below and just above the rounded constant.
"""

import collections
import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import mpmath
import numpy as np

from research.derivatives.certified.intervals import (
    FINE,
    MAYBE_UNDEFINED,
    NOT_SMOOTH,
    UNIT,
    Interval,
    add,
    divide,
    down,
    integer_power,
    interval,
    is_infinite,
    magnitude,
    multiply,
    negative,
    point,
    polynomial_of_square,
    positive_polynomial,
    square_root,
    subtract,
    up,
    with_trouble,
    worst,
)

DIGITS = 60
HUGE = 2.0**29  # Multiples of π/2 up to here are subtracted exactly enough.


def around(value: Any) -> Interval:
    """Return an interval of floats that contains a number.

    The number is a Fraction or an mpmath number of sixty digits. Let r be the float
    nearest to the number. The ends of the interval are the two floats next to r.
    """
    nearest = np.asarray(float(value))
    return Interval(down(nearest), up(nearest), np.asarray(FINE))


def _split(value: mpmath.mpf, bits: int, parts: int) -> tuple[list[float], Interval]:
    """Split a constant into floats of `bits` bits, and an enclosure of the rest."""
    pieces, rest = [], value
    for _ in range(parts):
        exponent = bits - 1 - int(mpmath.floor(mpmath.log(abs(rest), 2)))
        piece = (
            mpmath.floor(rest * mpmath.mpf(2) ** exponent) / mpmath.mpf(2) ** exponent
        )
        pieces.append(float(piece))
        rest = rest - piece
    return pieces, around(rest)


with mpmath.workdps(DIGITS):
    LN2_PARTS, LN2_REST = _split(mpmath.log(2), 40, 1)
    HALF_PI_PARTS, HALF_PI_REST = _split(mpmath.pi / 2, 24, 3)
    HALF_PI_ENCLOSED = around(mpmath.pi / 2)
    PI_ENCLOSED = around(mpmath.pi)
    TWO_OVER_ROOT_PI_ENCLOSED = around(2 / mpmath.sqrt(mpmath.pi))
    ATAN_STEPS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    _ATANS = [around(mpmath.atan(step)) for step in ATAN_STEPS]
ATANS_LOW = np.array([a.low for a in _ATANS]) * (ATAN_STEPS > 0)
ATANS_HIGH = np.array([a.high for a in _ATANS]) * (ATAN_STEPS > 0)


def _coefficients(fractions: list[Fraction]) -> list[Interval]:
    return [
        point(float(one)) if Fraction(float(one)) == one else around(one)
        for one in fractions
    ]


INVERSE_FACTORIALS = _coefficients([Fraction(1, math.factorial(i)) for i in range(20)])
ODD_INVERSES = _coefficients([Fraction(1, 2 * i + 1) for i in range(12)])
SINE_SERIES, COSINE_SERIES = (
    _coefficients([Fraction((-1) ** i, math.factorial(2 * i + k)) for i in range(9)])
    for k in (1, 0)
)
ALTERNATING = _coefficients([Fraction((-1) ** i, 2 * i + 1) for i in range(10)])


def _widened(x: Interval, by: np.ndarray | float) -> Interval:
    """Return x, wider by at least `by` on each side."""
    return x._replace(low=down(x.low - by), high=up(x.high + by))


def _at(x: np.ndarray) -> Interval:
    return Interval(x, x, np.asarray(FINE))


# At floats.


def _exp_at(x: np.ndarray) -> Interval:
    """Enclose e^x = 2^k e^r, where x = k log 2 + r, by 14 terms of a series of e^r."""
    clipped = np.clip(x, -760.0, 760.0)
    k = np.rint(clipped / math.log(2))
    r = _less_multiples(clipped, k, LN2_PARTS, LN2_REST)
    r = _clipped(r, 0.36)
    # |r|^14 / 14! e^|r| < 0.36^14 / 8.7e10 * 1.44 < 1.1e-17.
    value = _widened(positive_polynomial(INVERSE_FACTORIALS[:14], r), 1.1e-17)
    shift = k.astype(np.int64)
    low, high = _scaled(value.low, shift), _scaled(value.high, shift)
    # Scaling by a power of two is exact unless the result is below the normal floats.
    low = np.where(low < 1e-300, down(low), low)
    high = np.where(high < 1e-300, up(high), high)
    low = np.where(np.isinf(low), np.finfo(float).max, np.maximum(low, 0.0))
    return Interval(
        np.where(x < -760, 0.0, np.where(x == 0, 1.0, low)),
        np.where(x < -760, 5e-324, np.where(x == 0, 1.0, high)),
        np.asarray(FINE),
    )


def _scaled(x: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return x 2^shift, in two steps because 2^shift itself may overflow."""
    half = shift // 2
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(np.ldexp(x, half), shift - half)


def _less_multiples(
    x: np.ndarray, k: np.ndarray, parts: list[float], rest: Interval
) -> Interval:
    """Enclose x - k c, where c is the sum of `parts` and `rest`.

    Each part has few bits, so the product of k and a part is exact.
    """
    result = _at(x)
    for part in parts:
        result = subtract(result, _at(k * part))
    return subtract(result, multiply(_at(k), rest))


def _clipped(x: Interval, size: float) -> Interval:
    """Limit the ends to [-size, size]. Only entries that are not used exceed this."""
    return x._replace(
        low=np.clip(x.low, -size, size), high=np.clip(x.high, -size, size)
    )


def _expm1_at(x: np.ndarray) -> Interval:
    """Enclose e^x - 1; near 0 by x (1 + x/2 + x²/6 + ...)."""
    small = np.abs(x) < 0.35
    r = _at(np.where(small, x, 0.0))
    # The terms left out are below 0.35^14 / 15! * 1.5 < 5e-19, relative to x.
    series = positive_polynomial(INVERSE_FACTORIALS[1:15], r)
    near = multiply(r, _widened(series, 5e-19))
    far = subtract(_exp_at(np.where(small, 1.0, x)), point(1.0))
    return _choose(small, near, far)


def _choose(where: np.ndarray, a: Interval, b: Interval) -> Interval:
    return Interval(
        np.where(where, a.low, b.low), np.where(where, a.high, b.high), np.asarray(FINE)
    )


def _log_at(x: np.ndarray) -> Interval:
    """Enclose log x = log m + k log 2, where x = m 2^k > 0, by the series of log m."""
    usable = np.where((x > 0) & np.isfinite(x), x, 1.0)
    m, k = np.frexp(usable)
    lower = m < math.sqrt(0.5)
    m, k = np.where(lower, 2 * m, m), np.where(lower, k - 1, k).astype(np.float64)
    near = _twice_artanh(divide(_at(m - 1.0), add(_at(m), point(1.0))))
    of_two = add(_at(k * LN2_PARTS[0]), multiply(_at(k), LN2_REST))
    found = add(of_two, near)
    return Interval(
        np.where(x == 0, -np.inf, np.where(np.isinf(x), 709.0, found.low)),
        np.where(x == 0, -700.0, np.where(np.isinf(x), np.inf, found.high)),
        np.asarray(FINE),
    )


def _twice_artanh(s: Interval) -> Interval:
    """Enclose 2 artanh(s) = 2 s (1 + s²/3 + s⁴/5 + ...) for |s| <= 0.172."""
    square = multiply(s, s)
    square = square._replace(low=np.maximum(square.low, 0.0))
    # 12 terms; the next ones are below 0.172^24 / 25 / (1 - 0.03) < 2e-20.
    series = _widened(polynomial_of_square(ODD_INVERSES, square), 2e-20)
    return multiply(point(2.0), multiply(s, series))


def _log1p_at(x: np.ndarray) -> Interval:
    """Enclose log(1 + x) for x > -1; near 0 by 2 artanh(x / (2 + x))."""
    small = np.abs(x) < 0.25
    r = np.where(small, x, 0.0)
    near = _twice_artanh(divide(_at(r), add(point(2.0), _at(r))))
    shifted = add(point(1.0), _at(np.where(small, 1.0, x)))
    far = Interval(
        _log_at(shifted.low).low, _log_at(shifted.high).high, np.asarray(FINE)
    )
    return _choose(small, near, far)


class _Turned(NamedTuple):
    """Enclosures of sin r and cos r, and the integers k, where x = k π/2 + r."""

    sine: Interval
    cosine: Interval
    turns: np.ndarray


def _of_recent_arrays(function: Callable[[np.ndarray], Any]) -> Callable[..., Any]:
    """Return a function that keeps its results for the last few arrays.

    A call with the same array object returns the kept result. A program often needs the
    sine and the cosine of the same array. The array becomes read-only, because a change
    would make the kept result wrong.
    """
    recent: collections.deque[tuple[np.ndarray, Any]] = collections.deque(maxlen=8)

    @functools.wraps(function)
    def kept(x: np.ndarray) -> Any:
        for array, result in tuple(recent):
            if array is x:
                return result
        x.setflags(write=False)
        result = function(x)
        recent.append((x, result))
        return result

    return kept


@_of_recent_arrays
def _turned(x: np.ndarray) -> _Turned:
    """Enclose sin r and cos r by their series, where x = k π/2 + r."""
    usable = np.where(np.abs(x) < HUGE, x, 0.0)
    k = np.rint(usable * (2 / math.pi))
    r = _clipped(_less_multiples(usable, k, HALF_PI_PARTS, HALF_PI_REST), 0.79)
    square = multiply(r, r)
    square = square._replace(low=np.maximum(square.low, 0.0))
    # sin: 9 terms, the next one is below 0.79^18 / 19! < 2e-19, relative to r.
    sine = multiply(r, _widened(polynomial_of_square(SINE_SERIES, square), 2e-19))
    # cos: 9 terms, the next one is below 0.79^18 / 18! < 3e-18.
    cosine = _widened(polynomial_of_square(COSINE_SERIES, square), 3e-18)
    return _Turned(sine, cosine, k.astype(np.int64))


def _sine_at(x: np.ndarray, quarter_turns: int = 0) -> Interval:
    """Enclose sin(x + quarter_turns π/2) by the series at r, where x = k π/2 + r."""
    sine, cosine, turns = _turned(x)
    turn = np.mod(turns + quarter_turns, 4)
    low = np.choose(turn, [sine.low, cosine.low, -sine.high, -cosine.high])
    high = np.choose(turn, [sine.high, cosine.high, -sine.low, -cosine.low])
    large = ~(np.abs(x) < HUGE)
    return Interval(
        np.where(large, -1.0, np.maximum(low, -1.0)),
        np.where(large, 1.0, np.minimum(high, 1.0)),
        np.asarray(FINE),
    )


@_of_recent_arrays
def _quarters(x: np.ndarray) -> Interval:
    """Enclose x / (π/2)."""
    return divide(_at(x), HALF_PI_ENCLOSED)


def _atan_at(x: np.ndarray) -> Interval:
    """Enclose atan x. If |x| > 1, this is π/2 - atan(1/|x|), with the sign of x."""
    size = np.abs(x)
    outside = size > 1.0
    inner = divide(
        _at(np.where(outside, 1.0, size)), _at(np.where(outside, safe_size(size), 1.0))
    )
    index = np.rint(np.clip(0.5 * (inner.low + inner.high), 0.0, 1.0) * 4).astype(
        np.int64
    )
    step = _at(ATAN_STEPS[index])
    t = divide(subtract(inner, step), add(point(1.0), multiply(inner, step)))
    t = _clipped(t, 0.13)
    square = multiply(t, t)
    square = square._replace(low=np.maximum(square.low, 0.0))
    # 10 terms; the next one is below 0.13^20 / 21 < 1e-19, relative to t.
    series = multiply(t, _widened(polynomial_of_square(ALTERNATING, square), 1e-19))
    found = add(Interval(ATANS_LOW[index], ATANS_HIGH[index], np.asarray(FINE)), series)
    turned = subtract(HALF_PI_ENCLOSED, found)
    found = _choose(outside, turned, found)
    negative_one = x < 0
    found = _choose(negative_one, negative(found), found)
    return _choose(x == 0, point(0.0), found)


def safe_size(size: np.ndarray) -> np.ndarray:
    """Return `size`, with infinity replaced by the largest float64.

    `size` is an array of non-negative numbers.
    """
    return np.minimum(size, np.finfo(float).max)


def _erf_at(x: np.ndarray) -> Interval:
    """Enclose erf x = 2/√π e^(-x²) Σ 2^n x^(2n+1) / (1 3 5 ... (2n+1))."""
    size = np.minimum(np.abs(x), 6.0)
    r = _at(size)
    square = multiply(r, r)
    term, series = r, r
    for n in range(1, 160):
        term = divide(
            multiply(term, multiply(point(2.0), square)), point(float(2 * n + 1))
        )
        series = add(series, term)
    # From here on each term is less than 0.25 times the one before: 2 · 36 / 321.
    series = series._replace(high=up(series.high + 0.34 * term.high))
    weight = exp(negative(square))
    found = multiply(multiply(TWO_OVER_ROOT_PI_ENCLOSED, weight), series)
    high = np.where(np.abs(x) > 6.0, 1.0, np.minimum(found.high, 1.0))
    # 1 - erf(6) < 2.2e-17, and erf grows.
    low = np.where(np.abs(x) > 6.0, 1.0 - UNIT, np.maximum(found.low, 0.0))
    low, high = np.where(x == 0, 0.0, low), np.where(x == 0, 0.0, high)
    return Interval(
        np.where(x < 0, -high, low), np.where(x < 0, -low, high), np.asarray(FINE)
    )


# Over intervals.


def _increasing(function: Callable[[np.ndarray], Interval], x: Interval) -> Interval:
    low = function(x.low)
    return interval(low.low, low.high if x.is_point else function(x.high).high, x)


def exp(x: Interval) -> Interval:
    """Enclose e^x for all numbers in x."""
    return _increasing(_exp_at, x)


def expm1(x: Interval) -> Interval:
    """Enclose e^x - 1 for all numbers in x.

    x is an array of intervals, and the result has an interval for each of them.
    """
    return _increasing(_expm1_at, x)


def log(x: Interval) -> Interval:
    """Enclose log x over the part of x above 0.

    If x contains other numbers, the field `trouble` of the result is MAYBE_UNDEFINED
    (log x may have no value).
    """
    found = _increasing(
        _log_at, x._replace(low=np.maximum(x.low, 0.0), high=np.maximum(x.high, 0.0))
    )
    found = found._replace(low=np.where(x.low <= 0, -np.inf, found.low))
    return with_trouble(found, x.low <= 0, MAYBE_UNDEFINED)


def log1p(x: Interval) -> Interval:
    """Enclose log(1 + x) over the part of x above -1.

    If x contains other numbers, the field `trouble` of the result is MAYBE_UNDEFINED
    (log(1 + x) may have no value).
    """
    inside = np.nextafter(-1.0, 0.0)
    clipped = x._replace(low=np.maximum(x.low, inside), high=np.maximum(x.high, inside))
    found = _increasing(_log1p_at, clipped)
    found = found._replace(low=np.where(x.low <= -1, -np.inf, found.low))
    return with_trouble(found, x.low <= -1, MAYBE_UNDEFINED)


def sin(x: Interval) -> Interval:
    """Enclose sin x for all numbers in x.

    x is an array of intervals, and the result has an interval for each of them. Where x
    has an infinite end, the field `trouble` of the result is MAYBE_UNDEFINED (the sine
    of infinity is NaN).
    """
    return _wave(x, 0)


def cos(x: Interval) -> Interval:
    """Enclose cos x = sin(x + π/2) for all numbers in x, as `sin` does."""
    return _wave(x, 1)


def _wave(x: Interval, quarter_turns: int) -> Interval:
    """Return sin(x + quarter_turns π/2), which is NaN where x is infinite."""
    found = _wave_of_reals(x, quarter_turns)
    return with_trouble(found, is_infinite(x), MAYBE_UNDEFINED)


def _wave_of_reals(x: Interval, quarter_turns: int) -> Interval:
    """Enclose sin(x + quarter_turns π/2), from the ends of x and the extremes in x."""
    at_low = _sine_at(x.low, quarter_turns)
    if x.is_point:
        return interval(at_low.low, at_low.high, x)
    at_high = _sine_at(x.high, quarter_turns)
    # sin(x + q π/2) is 1 at x = π/2 (4 k + 1 - q), and -1 at x = π/2 (4 k - 1 - q).
    quarters_low = _quarters(x.low).low
    quarters_high = _quarters(x.high).high
    with np.errstate(invalid="ignore"):
        tops = _holds_integer(quarters_low, quarters_high, 1 - quarter_turns)
        bottoms = _holds_integer(quarters_low, quarters_high, -1 - quarter_turns)
    return interval(
        np.where(bottoms, -1.0, np.minimum(at_low.low, at_high.low)),
        np.where(tops, 1.0, np.maximum(at_low.high, at_high.high)),
        x,
    )


def _holds_integer(low: np.ndarray, high: np.ndarray, offset: int) -> np.ndarray:
    """Return whether [low, high] may contain 4 k + offset for an integer k.

    low, high and offset are in units of π/2, a quarter turn.
    """
    lower = down(down((low - offset) / 4))
    upper = up(up((high - offset) / 4))
    return ~(np.ceil(lower) > np.floor(upper))


def tan(x: Interval) -> Interval:
    """Enclose tan x for all numbers in x.

    If x may contain a pole, the result is the whole real line, and its `trouble` is
    MAYBE_UNDEFINED (tan x may have no value). The same holds if x contains numbers of
    absolute value 2^29 or more.
    """
    quarters_low = _quarters(x.low).low
    quarters_high = _quarters(x.high).high
    lower, upper = down((quarters_low - 1) / 2), up((quarters_high - 1) / 2)
    with np.errstate(invalid="ignore"):
        pole = (
            ~(np.ceil(lower) > np.floor(upper))
            | (np.abs(x.low) >= HUGE)
            | (np.abs(x.high) >= HUGE)
        )
    at_low = _tan_at(np.where(pole, 0.0, x.low))
    at_high = at_low if x.is_point else _tan_at(np.where(pole, 0.0, x.high))
    found = interval(
        np.where(pole, -np.inf, at_low.low), np.where(pole, np.inf, at_high.high), x
    )
    return with_trouble(found, pole, MAYBE_UNDEFINED)


def _tan_at(x: np.ndarray) -> Interval:
    return divide(_sine_at(x), _sine_at(x, 1))


def _tanh_at(x: np.ndarray) -> Interval:
    """Enclose tanh x, where |tanh x| = e / (e + 2) with e = expm1(2 |x|)."""
    size = np.minimum(np.abs(x), 30.0)
    e = _expm1_at(2 * size)
    # e / (e + 2) = 1 - 2 / (e + 2) grows with e, so each end needs one end of e.
    low = divide(_at(e.low), add(_at(e.low), point(2.0))).low
    high = divide(_at(e.high), add(_at(e.high), point(2.0))).high
    high = np.where(np.abs(x) > 20.0, 1.0, np.minimum(high, 1.0))
    low = np.maximum(low, 0.0)
    low, high = np.where(x == 0, 0.0, low), np.where(x == 0, 0.0, high)
    return Interval(
        np.where(x < 0, -high, low), np.where(x < 0, -low, high), np.asarray(FINE)
    )


def tanh(x: Interval) -> Interval:
    """Enclose tanh x for all numbers in x."""
    return _increasing(_tanh_at, x)


def _logistic_at(x: np.ndarray) -> Interval:
    """Enclose 1 / (1 + e^-x)."""
    e = _exp_at(-x)
    low = divide(point(1.0), add(point(1.0), _at(e.high))).low
    high = divide(point(1.0), add(point(1.0), _at(e.low))).high
    return Interval(np.maximum(low, 0.0), np.minimum(high, 1.0), np.asarray(FINE))


def logistic(x: Interval) -> Interval:
    """Enclose 1 / (1 + e^-x) for all numbers in x.

    x is an array of intervals, and the result has an interval for each of them.
    """
    return _increasing(_logistic_at, x)


def _sinh_at(x: np.ndarray) -> Interval:
    """Enclose sinh x, where |sinh x| = (e + e / (e + 1)) / 2 with e = expm1(|x|)."""
    e = _expm1_at(np.abs(x))
    low = _half_sum(_at(e.low)).low
    high = _half_sum(_at(e.high)).high
    low, high = np.where(x == 0, 0.0, np.maximum(low, 0.0)), np.where(x == 0, 0.0, high)
    return Interval(
        np.where(x < 0, -high, low), np.where(x < 0, -low, high), np.asarray(FINE)
    )


def _half_sum(e: Interval) -> Interval:
    finite = _at(safe_size(e.low))
    part = divide(finite, add(finite, point(1.0)))
    return multiply(point(0.5), add(e, part))


def sinh(x: Interval) -> Interval:
    """Enclose sinh x for all numbers in x.

    x is an array of intervals, and the result has an interval for each of them.
    """
    return _increasing(_sinh_at, x)


def cosh(x: Interval) -> Interval:
    """Enclose cosh x = (e^|x| + e^-|x|) / 2 for all numbers in x."""
    size = magnitude(x)
    low, high = _cosh_at(size.low), _cosh_at(size.high)
    return interval(np.maximum(low.low, 1.0), high.high, x)


def _cosh_at(size: np.ndarray) -> Interval:
    return multiply(point(0.5), add(_exp_at(size), _exp_at(-size)))


def atan(x: Interval) -> Interval:
    """Enclose the arc tangent of all numbers in x."""
    return _increasing(_atan_at, x)


def _asin_at(x: np.ndarray) -> Interval:
    """Enclose asin x = atan(x / √((1 - x) (1 + x)))."""
    inside = np.clip(x, -1.0, 1.0)
    edge = np.abs(inside) == 1.0
    usable = _at(np.where(edge, 0.0, inside))
    root = square_root(multiply(subtract(point(1.0), usable), add(point(1.0), usable)))
    ratio = divide(usable, root)
    found = Interval(
        _atan_at(ratio.low).low, _atan_at(ratio.high).high, np.asarray(FINE)
    )
    ends = _choose(inside > 0, HALF_PI_ENCLOSED, negative(HALF_PI_ENCLOSED))
    return _choose(edge, ends, found)


def asin(x: Interval) -> Interval:
    """Enclose the arc sine over the part of x in [-1, 1].

    If x contains other numbers, the field `trouble` of the result is MAYBE_UNDEFINED
    (the arc sine may have no value).
    """
    found = _increasing(_asin_at, x)
    return with_trouble(found, (x.low < -1) | (x.high > 1), MAYBE_UNDEFINED)


def acos(x: Interval) -> Interval:
    """Enclose the arc cosine over the part of x in [-1, 1].

    If x contains other numbers, the field `trouble` of the result is MAYBE_UNDEFINED
    (the arc cosine may have no value).
    """
    return subtract(HALF_PI_ENCLOSED, asin(x))


def _asinh_at(x: np.ndarray) -> Interval:
    """Enclose asinh x, where |asinh x| = log1p(|x| + x² / (1 + √(1 + x²)))."""
    size = _at(np.minimum(np.abs(x), 1e150))
    square = multiply(size, size)
    root = square_root(add(point(1.0), square))
    inner = add(size, divide(square, add(point(1.0), root)))
    low = np.where(np.abs(x) > 1e150, 345.0, np.maximum(_log1p_at(inner.low).low, 0.0))
    large = np.where(np.isinf(x), np.inf, 711.0)
    high = np.where(np.abs(x) > 1e150, large, _log1p_at(inner.high).high)
    low, high = np.where(x == 0, 0.0, low), np.where(x == 0, 0.0, high)
    return Interval(
        np.where(x < 0, -high, low), np.where(x < 0, -low, high), np.asarray(FINE)
    )


def asinh(x: Interval) -> Interval:
    """Enclose asinh x, the inverse of sinh, for all numbers in x."""
    return _increasing(_asinh_at, x)


def acosh(x: Interval) -> Interval:
    """Enclose acosh x = log(x + √(x² - 1)) over the part of x with x >= 1.

    acosh x is computed as log1p(t + √(2 t + t²)), with t = x - 1. If x contains numbers
    below 1, the field `trouble` of the result is MAYBE_UNDEFINED (acosh x may have no
    value).
    """
    t = subtract(x, point(1.0))
    clipped = t._replace(low=np.maximum(t.low, 0.0), high=np.maximum(t.high, 0.0))
    square = multiply(clipped, add(clipped, point(2.0)))
    root = square_root(square._replace(low=np.maximum(square.low, 0.0)))
    found = log1p(add(clipped, root))
    return with_trouble(found, t.low < 0, MAYBE_UNDEFINED)


def atanh(x: Interval) -> Interval:
    """Enclose atanh x = ½ log1p(2 x / (1 - x)) over the part of x inside (-1, 1).

    If x contains other numbers, the field `trouble` of the result is MAYBE_UNDEFINED
    (atanh x may have no value).
    """
    outside = (x.low <= -1) | (x.high >= 1)
    inside = np.nextafter(1.0, 0.0)
    clipped = x._replace(
        low=np.clip(x.low, -inside, inside), high=np.clip(x.high, -inside, inside)
    )
    found = _increasing(_atanh_at, clipped)
    found = found._replace(
        low=np.where(x.low <= -1, -np.inf, found.low),
        high=np.where(x.high >= 1, np.inf, found.high),
    )
    return with_trouble(found, outside, MAYBE_UNDEFINED)


def _atanh_at(x: np.ndarray) -> Interval:
    size = _at(np.abs(x))
    ratio = divide(multiply(point(2.0), size), subtract(point(1.0), size))
    low = np.maximum(0.5 * _log1p_at(ratio.low).low, 0.0)
    high = 0.5 * _log1p_at(ratio.high).high
    low, high = np.where(x == 0, 0.0, low), np.where(x == 0, 0.0, high)
    return Interval(
        np.where(x < 0, -high, low), np.where(x < 0, -low, high), np.asarray(FINE)
    )


def atan2(y: Interval, x: Interval) -> Interval:
    """Enclose the angle of the points (x, y), from -π to π.

    The angle jumps at the points with y = 0 and x <= 0. If the box of all (x, y)
    contains such a point, or if both x and y have an infinite end, the result encloses
    [-π, π], and the field `trouble` of the result is NOT_SMOOTH (the function may jump
    in the box).
    """
    # The angle of (inf, inf) is π/4, but the quotient of infinities is NaN.
    known = ~(is_infinite(x) & is_infinite(y))
    right, above, below = (known & side for side in (x.low > 0, y.low > 0, y.high < 0))
    one = point(1.0)
    of_right = atan(divide(y, _where(right, x, one)))
    over_y = atan(divide(x, _where(above | below, y, one)))
    of_above = subtract(HALF_PI_ENCLOSED, over_y)
    of_below = subtract(negative(HALF_PI_ENCLOSED), over_y)
    anything = Interval(
        np.full(right.shape, -PI_ENCLOSED.high),
        np.full(right.shape, PI_ENCLOSED.high),
        np.asarray(FINE),
    )
    found = _choose(below, of_below, anything)
    found = _choose(above, of_above, found)
    found = _choose(right, of_right, found)
    found = interval(found.low, found.high, x, y)
    return with_trouble(found, ~(right | above | below), NOT_SMOOTH)


def _where(condition: np.ndarray, x: Interval, otherwise: Interval) -> Interval:
    low = np.where(condition, x.low, otherwise.low)
    return Interval(low, np.where(condition, x.high, otherwise.high), x.trouble)


def erf(x: Interval) -> Interval:
    """Enclose the error function of all numbers in x.

    x is an array of intervals, and the result has an interval for each of them.
    """
    return _increasing(_erf_at, x)


def cube_root(x: Interval) -> Interval:
    """Enclose ∛x for all numbers in x.

    NumPy's cube roots of the ends of x are first guesses. The lower guess is moved down
    until its cube is proved to be at most the lower end of x. The upper guess is moved
    up until its cube is proved to be at least the upper end.
    """
    low, high = _cube_root_at(x.low), _cube_root_at(x.high)
    return interval(low.low, high.high, x)


def _cube_root_at(x: np.ndarray) -> Interval:
    size = np.abs(x)
    guess = np.cbrt(size)
    low, high = guess, guess
    for _ in range(60):
        too_large = up(up(low * low) * low) > size
        too_small = down(down(high * high) * high) < size
        if not (np.any(too_large) or np.any(too_small)):
            break
        low = np.where(too_large, np.maximum(down(low * (1 - 2.0**-52)), 0.0), low)
        high = np.where(too_small, up(high * (1 + 2.0**-52)), high)
    else:
        low, high = np.zeros_like(size), np.maximum(size, 1.0)
    low, high = np.where(size == 0, 0.0, low), np.where(size == 0, 0.0, high)
    low, high = (
        np.where(np.isinf(size), guess, low),
        np.where(np.isinf(size), guess, high),
    )
    return Interval(
        np.where(x < 0, -high, low), np.where(x < 0, -low, high), np.asarray(FINE)
    )


def power(x: Interval, y: Interval) -> Interval:
    """Enclose x^y for all numbers in x and y.

    x and y are arrays of intervals. There are three cases:
    - If every interval in y is a single integer below 2^31 in absolute value, x^y is
      computed by products.
    - If every interval in y is the single number 0.5, x^y is the square root.
    - Otherwise x^y is enclosed as e^(y log x) over the part of x that is not negative.

    In the third case, the following holds for each entry. The field `trouble` of the
    result is MAYBE_UNDEFINED (x^y may have no value) if the interval in x contains
    negative numbers, or if it contains 0 and the interval in y contains a number that
    is 0 or negative. The result is the whole real line if the interval in x contains
    negative numbers and the interval in y contains an integer.
    """
    if y.is_point and np.all(y.low == np.rint(y.low)) and np.all(np.abs(y.low) < 2**31):
        return _integer_powers(x, y)
    if y.is_point and y.low.size and np.all(y.low == 0.5):
        return _with(square_root(x), y)
    found = exp(multiply(y, log(_nonnegative(x))))
    may_be_integer = np.floor(y.high) >= np.ceil(y.low)
    unknown = (x.low < 0) & may_be_integer
    at_zero = (x.low <= 0) & ~unknown
    low = np.where(unknown, -np.inf, np.where(at_zero, 0.0, found.low))
    # 0 has infinite negative powers, and 0^0 = 1. IEEE 754 gives -inf infinite powers.
    infinite = ((x.low <= 0) & (y.low <= 0)) | (x.low == -np.inf)
    high = np.where(unknown | infinite, np.inf, found.high)
    undefined = (x.low < 0) | ((x.low == 0) & (y.low <= 0))
    return with_trouble(interval(low, high, x, y), undefined, MAYBE_UNDEFINED)


def _nonnegative(x: Interval) -> Interval:
    """Return the part of x that is not negative. The caller sets `trouble`."""
    return Interval(np.maximum(x.low, 0.0), np.maximum(x.high, 0.0), np.asarray(FINE))


def _with(found: Interval, other: Interval) -> Interval:
    return found._replace(trouble=worst(found, other))


def _integer_powers(x: Interval, y: Interval) -> Interval:
    """Return x^y for known integers y, which may differ by entry."""
    shape = np.broadcast_shapes(x.low.shape, y.low.shape)
    exponents = np.broadcast_to(y.low, shape)
    low, high = np.zeros(shape), np.zeros(shape)
    trouble = np.zeros(shape, np.uint8)
    for exponent in np.unique(exponents):
        one = _with(integer_power(x, int(exponent)), y)
        here = exponents == exponent
        low = np.where(here, one.low, low)
        high = np.where(here, one.high, high)
        trouble = np.where(here, one.trouble, trouble)
    return Interval(low, high, trouble if np.any(trouble) else np.asarray(FINE))
