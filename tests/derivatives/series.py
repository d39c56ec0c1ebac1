"""One-sided Taylor series of an expression in sixty digits: the truth behind random functions."""

import mpmath
from mpmath import mp, mpf

LENGTH = 5  # Coefficients: up to the fourth derivative.


class Series:
    """A Taylor series in t on one side of t = 0; exact where mpmath is."""

    __array_ufunc__ = None
    __slots__ = ("c", "side")

    def __init__(self, c, side):
        self.c, self.side = c, side

    def _lift(self, other):
        return other if isinstance(other, Series) else Series([mpf(other)] + [mpf(0)] * (LENGTH - 1), self.side)

    def __add__(self, other):
        return Series([a + b for a, b in zip(self.c, self._lift(other).c, strict=True)], self.side)

    __radd__ = __add__

    def __neg__(self):
        return Series([-a for a in self.c], self.side)

    def __sub__(self, other):
        return self + -self._lift(other)

    def __rsub__(self, other):
        return self._lift(other) - self

    def __mul__(self, other):
        if not isinstance(other, Series):
            factor = mpf(other)
            return Series([a * factor for a in self.c], self.side)
        a, b = self.c, other.c
        return Series([mpmath.fdot(a[: k + 1], b[k::-1]) for k in range(LENGTH)], self.side)

    __rmul__ = __mul__

    def __truediv__(self, other):
        if not isinstance(other, Series):
            return Series([a / mpf(other) for a in self.c], self.side)
        q = []
        for k in range(LENGTH):
            q.append((self.c[k] - sum((q[i] * other.c[k - i] for i in range(k)), mpf(0))) / other.c[0])
        return Series(q, self.side)

    def __rtruediv__(self, other):
        return self._lift(other) / self

    def __pow__(self, n):
        if isinstance(n, int) and n >= 0:
            out = self._lift(1)
            for _ in range(n):
                out = out * self
            return out
        return power(self, n)

    def sign(self):
        """The sign just beside t = 0, on this side."""
        for k, a in enumerate(self.c):
            if a:
                return (1 if a > 0 else -1) * (self.side if k % 2 else 1)
        return 0

    def __lt__(self, other):
        return (self - other).sign() < 0

    def __le__(self, other):
        return (self - other).sign() <= 0

    def __gt__(self, other):
        return (self - other).sign() > 0

    def __ge__(self, other):
        return (self - other).sign() >= 0

    def __abs__(self):
        return -self if self.sign() < 0 else self


def _integral(start, slope):
    """The series with this value at 0 and this derivative."""
    return Series([start] + [slope.c[k] / (k + 1) for k in range(LENGTH - 1)], slope.side)


def _rate(u):
    """u' as a series (its last coefficient is not needed)."""
    return Series([(k + 1) * u.c[k + 1] for k in range(LENGTH - 1)] + [mpf(0)], u.side)


def power(u, n):
    c, n = [u.c[0] ** mpf(n)], mpf(n)
    for k in range(1, LENGTH):
        c.append(sum(((n * j - (k - j)) * u.c[j] * c[k - j] for j in range(1, k + 1)), mpf(0)) / (k * u.c[0]))
    return Series(c, u.side)


def exp(u):
    c = [mp.exp(u.c[0])]
    for k in range(1, LENGTH):
        c.append(sum((j * u.c[j] * c[k - j] for j in range(1, k + 1)), mpf(0)) / k)
    return Series(c, u.side)


def _pair(u, first, second, sign):
    """(s, c) with s' = c u', c' = sign s u'."""
    s, c = [first], [second]
    for k in range(1, LENGTH):
        s.append(sum((j * u.c[j] * c[k - j] for j in range(1, k + 1)), mpf(0)) / k)
        c.append(sign * sum((j * u.c[j] * s[k - j] for j in range(1, k + 1)), mpf(0)) / k)
    return Series(s, u.side), Series(c, u.side)


def sin(u):
    return _pair(u, mp.sin(u.c[0]), mp.cos(u.c[0]), -1)[0]


def cos(u):
    return _pair(u, mp.sin(u.c[0]), mp.cos(u.c[0]), -1)[1]


def sinh(u):
    return _pair(u, mp.sinh(u.c[0]), mp.cosh(u.c[0]), 1)[0]


def cosh(u):
    return _pair(u, mp.sinh(u.c[0]), mp.cosh(u.c[0]), 1)[1]


def tanh(u):
    s, c = _pair(u, mp.sinh(u.c[0]), mp.cosh(u.c[0]), 1)
    return s / c


def log(u):
    return _integral(mp.log(u.c[0]), _rate(u) / u)


def log1p(u):
    return _integral(mp.log1p(u.c[0]), _rate(u) / (1 + u))


def expm1(u):
    return Series([mp.expm1(u.c[0])] + exp(u).c[1:], u.side)


def sqrt(u):
    return power(u, mpf(1) / 2)


def atan(u):
    return _integral(mp.atan(u.c[0]), _rate(u) / (1 + u * u))


def erf(u):
    return _integral(mp.erf(u.c[0]), _rate(u) * exp(-(u * u)) * (2 / mp.sqrt(mp.pi)))


def maximum(a, b):
    return a if a - b >= 0 else b - 0 * a


def minimum(a, b):
    return b - 0 * a if a - b >= 0 else a


def where(chosen, a, b):
    return a if chosen else b


def same(u, *_):
    return u


NAMES = {
    **{f.__name__: f for f in (exp, sin, cos, sinh, cosh, tanh, log, log1p, expm1, sqrt, atan, erf)},
    **{f.__name__: f for f in (maximum, minimum, where)},
    "abs": abs,
    **dict.fromkeys(("rounded", "single", "stepped"), same),
}


def one_sided_derivatives(expression, x):
    """(from the left, from the right) of orders 0 to 4, as floats."""
    with mp.workdps(60):
        out = []
        for side in (-1, 1):
            t = Series([mpf(x), mpf(1)] + [mpf(0)] * (LENGTH - 2), side)
            value = eval(expression, dict(NAMES), {"x": t})
            value = t._lift(0) + value
            out.append([float(a * mp.factorial(k)) for k, a in enumerate(value.c)])
    return out
