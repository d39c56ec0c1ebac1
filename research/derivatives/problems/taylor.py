"""One-sided derivatives from one-sided Taylor series with sixty digits.

A series contains the coefficients of f(x + t) = c_0 + c_1 t + ... + c_4 t^4 + ... at a
point x. It is valid for small t of one sign. For these t, the first coefficient that is
not zero and the sign of t give the sign of the series. `maximum`, `abs` and comparisons
use this sign, so each side of a kink has its own series.
"""

from collections.abc import Sequence
from typing import Any

import mpmath
from mpmath import mp, mpf

DIGITS = 60
MOST_ORDER = 4
_LENGTH = MOST_ORDER + 1


class Series:
    """A Taylor series in t that is valid for t > 0 (side 1) or for t < 0 (side -1).

    Attributes:
      c: List of the coefficients of t^0 to t^4.
      side: 1 or -1.
    """

    __slots__ = ("c", "side")

    def __init__(self, c: Sequence[Any], side: int):
        self.c, self.side = list(c), side

    def lifted(self, other: Any) -> "Series":
        """Convert a number to a constant series on the same side.

        A series is returned unchanged.
        """
        return (
            other
            if isinstance(other, Series)
            else Series([mpf(other)] + [mpf(0)] * MOST_ORDER, self.side)
        )

    def __add__(self, other: Any) -> "Series":
        return Series(
            [a + b for a, b in zip(self.c, self.lifted(other).c, strict=True)],
            self.side,
        )

    __radd__ = __add__

    def __neg__(self) -> "Series":
        return Series([-a for a in self.c], self.side)

    def __sub__(self, other: Any) -> "Series":
        return self + -self.lifted(other)

    def __rsub__(self, other: Any) -> "Series":
        return self.lifted(other) - self

    def __mul__(self, other: Any) -> "Series":
        a, b = self.c, self.lifted(other).c
        return Series(
            [mpmath.fdot(a[: k + 1], b[k::-1]) for k in range(_LENGTH)], self.side
        )

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Series":
        below, quotient = self.lifted(other).c, []
        for k in range(_LENGTH):
            rest = sum((quotient[i] * below[k - i] for i in range(k)), mpf(0))
            quotient.append((self.c[k] - rest) / below[0])
        return Series(quotient, self.side)

    def __rtruediv__(self, other: Any) -> "Series":
        return self.lifted(other) / self

    def __pow__(self, exponent: Any) -> "Series":
        if not isinstance(exponent, int) or exponent < 0:
            return power(self, exponent)
        product = self.lifted(1)
        for _ in range(exponent):
            product = product * self
        return product

    def sign(self) -> int:
        """Return the sign of the series for small t on its side: -1, 0 or 1."""
        for k, coefficient in enumerate(self.c):
            if coefficient:
                return (1 if coefficient > 0 else -1) * (self.side if k % 2 else 1)
        return 0

    def __lt__(self, other: Any) -> bool:
        return (self - other).sign() < 0

    def __le__(self, other: Any) -> bool:
        return (self - other).sign() <= 0

    def __gt__(self, other: Any) -> bool:
        return (self - other).sign() > 0

    def __ge__(self, other: Any) -> bool:
        return (self - other).sign() >= 0

    def __abs__(self) -> "Series":
        return -self if self.sign() < 0 else self


def _integral(start: Any, rate: Series) -> Series:
    return Series([start] + [rate.c[k] / (k + 1) for k in range(MOST_ORDER)], rate.side)


def _rate(u: Series) -> Series:
    """Return the derivative u'. Its last coefficient is not needed and is set to 0."""
    return Series([(k + 1) * u.c[k + 1] for k in range(MOST_ORDER)] + [mpf(0)], u.side)


def power(u: Series, n: Any) -> Series:
    """Return the Taylor series of the power u^n, for a real number n.

    Let u_k and c_k be the coefficients of u and of u^n. u_0 must not be 0. For k >= 1,
    k u_0 c_k = Σ_j (n j - (k - j)) u_j c_{k-j}, with the sum over j from 1 to k.
    """
    n = mpf(n)
    c = [u.c[0] ** n]
    for k in range(1, _LENGTH):
        terms = ((n * j - (k - j)) * u.c[j] * c[k - j] for j in range(1, k + 1))
        c.append(sum(terms, mpf(0)) / (k * u.c[0]))
    return Series(c, u.side)


def exp(u: Series) -> Series:
    """Return the Taylor series of e^u.

    Let u_k and c_k be the coefficients of u and of e^u. For k >= 1 they satisfy
    k c_k = Σ_j j u_j c_{k-j}, with the sum over j from 1 to k.
    """
    c = [mp.exp(u.c[0])]
    for k in range(1, _LENGTH):
        c.append(sum((j * u.c[j] * c[k - j] for j in range(1, k + 1)), mpf(0)) / k)
    return Series(c, u.side)


def _pair(u: Series, first: Any, second: Any, sign: int) -> tuple[Series, Series]:
    """Solve s' = c u' and c' = sign s u' for the pair (s, c) with given first terms."""
    s, c = [first], [second]
    for k in range(1, _LENGTH):
        s_k = sum((j * u.c[j] * c[k - j] for j in range(1, k + 1)), mpf(0)) / k
        c_k = sign * sum((j * u.c[j] * s[k - j] for j in range(1, k + 1)), mpf(0)) / k
        s.append(s_k)
        c.append(c_k)
    return Series(s, u.side), Series(c, u.side)


def sin(u: Series) -> Series:
    """Return the Taylor series of sin u, given the series of u."""
    return _pair(u, mp.sin(u.c[0]), mp.cos(u.c[0]), -1)[0]


def cos(u: Series) -> Series:
    """Return the Taylor series of cos u, given the series of u."""
    return _pair(u, mp.sin(u.c[0]), mp.cos(u.c[0]), -1)[1]


def sinh(u: Series) -> Series:
    """Return the Taylor series of sinh u, given the series of u."""
    return _pair(u, mp.sinh(u.c[0]), mp.cosh(u.c[0]), 1)[0]


def cosh(u: Series) -> Series:
    """Return the Taylor series of cosh u, given the series of u."""
    return _pair(u, mp.sinh(u.c[0]), mp.cosh(u.c[0]), 1)[1]


def tanh(u: Series) -> Series:
    """Return the Taylor series of tanh u, given the series of u."""
    s, c = _pair(u, mp.sinh(u.c[0]), mp.cosh(u.c[0]), 1)
    return s / c


def log(u: Series) -> Series:
    """Return the Taylor series of the natural logarithm of u, by (log u)' = u' / u."""
    return _integral(mpmath.log(u.c[0]), _rate(u) / u)


def log1p(u: Series) -> Series:
    """Return the Taylor series of log(1 + u), given the series of u."""
    return _integral(mpmath.log1p(u.c[0]), _rate(u) / (1 + u))


def sqrt(u: Series) -> Series:
    """Return the Taylor series of the square root of u, given the series of u."""
    return power(u, mpf(1) / 2)


def atan(u: Series) -> Series:
    """Return the Taylor series of atan u, by (atan u)' = u' / (1 + u²)."""
    return _integral(mp.atan(u.c[0]), _rate(u) / (1 + u * u))


def erf(u: Series) -> Series:
    """Return the Taylor series of erf u for a Taylor series u.

    The series follows from (erf u)' = (2 / √π) e^(-u²) u'.
    """
    return _integral(
        mpmath.erf(u.c[0]), _rate(u) * exp(-(u * u)) * (2 / mp.sqrt(mp.pi))
    )


def maximum(a: Any, b: Any) -> Series:
    """Return the larger of a and b as a series.

    a and b are Taylor series in t, which are valid either for t > 0 or for t < 0. They
    are compared for small t of this sign.
    """
    return a if a - b >= 0 else b - 0 * a


def minimum(a: Any, b: Any) -> Series:
    """Return the smaller of a and b as a series.

    a and b are Taylor series in t, which are valid either for t > 0 or for t < 0. They
    are compared for small t of this sign.
    """
    return b - 0 * a if a - b >= 0 else a


def where(chosen: bool, a: Any, b: Any) -> Any:
    """Return a if `chosen` is True, else b.

    `chosen` is the result of a comparison of two Taylor series in t. The series are
    valid either for t > 0 or for t < 0. They are compared for small t of this sign.
    """
    return a if chosen else b


def _exact(u: Series, *_: Any) -> Series:
    return u


# "rounded", "single" and "stepped" round the function. The true derivative is that of
# the function before rounding.
NAMES: dict[str, Any] = {
    **{
        f.__name__: f
        for f in (exp, sin, cos, sinh, cosh, tanh, log, log1p, sqrt, atan, erf)
    },
    **{f.__name__: f for f in (maximum, minimum, where)},
    "abs": abs,
    **dict.fromkeys(("rounded", "single", "stepped"), _exact),
}


def one_sided_derivatives(expression: str, x: float) -> tuple[list[float], list[float]]:
    """Return the derivatives of an expression at x from the left and from the right.

    Args:
      expression: Python expression of x, numbers and the names in `NAMES`. The function
        eval executes it, so pass only text that you trust.
      x: Point of the derivatives.
    Returns:
      (left, right). Each is the list of the one-sided derivatives of orders 0 to 4.
    Raises:
      ZeroDivisionError, ValueError, TypeError: The expression has no Taylor series on
        one side of x.
    Example:
      >>> one_sided_derivatives("abs(x) + x**2", 0.0)
      ([0.0, -1.0, 2.0, 0.0, 0.0], [0.0, 1.0, 2.0, 0.0, 0.0])
    """
    sides = []
    with mp.workdps(DIGITS):
        for side in (-1, 1):
            t = Series([mpf(x), mpf(1)] + [mpf(0)] * (MOST_ORDER - 1), side)
            value = t.lifted(0) + eval(expression, dict(NAMES), {"x": t})
            sides.append([float(a * mp.factorial(k)) for k, a in enumerate(value.c)])
    return sides[0], sides[1]
