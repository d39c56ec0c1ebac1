"""Random functions in nine classes, with their one-sided derivatives.

A function is a Python expression in x with NumPy's names. The expression is evaluated
twice. NumPy evaluates it to compute values of the function. The module `taylor`
evaluates it with Taylor series and sixty digits to compute the true derivatives. The
classes are:

- smooth: sums, products and compositions of elementary functions, scaled and shifted.
- root: x is a root of f, exactly or up to rounding errors.
- jump in f'', jump in f''': f is smooth to the left and to the right of x, but the left
  and the right value of this derivative differ.
- kink: the left and the right value of f' differ, by about 1e-8 to 100 times the usual
  size of f'.
- kink near: f has a kink at a distance of 1e-9 to 1 from x, in a unit of length that is
  1 or between 1e-4 and 1e4.
- cancellation: terms of f cancel, so the noise of f exceeds ε |f|.
- quantised: f is rounded to a grid or to float32. The true derivative is the derivative
  of f without this rounding.
- far from 0: a polynomial plus a wave, at an x that is up to 3e13 times as large as
  their unit of length.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from research.derivatives.problems import taylor

LARGEST = 1e100  # Cases with a larger derivative are drawn again.


def _stepped(u: Any, q: float) -> Any:
    return np.floor(u / q) * q


_OF_NUMPY = (
    "exp",
    "log",
    "log1p",
    "sin",
    "cos",
    "sinh",
    "cosh",
    "tanh",
    "sqrt",
    "where",
    "maximum",
    "minimum",
    "abs",
)
NAMES = {
    **{name: getattr(np, name) for name in _OF_NUMPY},
    **{
        "atan": np.arctan,
        "erf": special.erf,
        "rounded": np.round,
        "single": np.float32,
        "stepped": _stepped,
    },
}


class Case(NamedTuple):
    """A random function f at a point.

    Attributes:
      expression: Python expression of f in x.
      x: Point of the derivatives.
      kind: Class of the function, a key of `CLASSES`, such as "kink".
      left, right: Lists of the one-sided derivatives of orders 0 to 4. The left and the
        right value of an order are equal if the derivative of this order exists.
    """

    expression: str
    x: float
    kind: str
    left: list[float]
    right: list[float]

    def function(self) -> Callable[[Any], Any]:
        """Return f as a Python function of a number or a NumPy array."""
        return eval("lambda x: " + self.expression, dict(NAMES))

    def exists(self, order: int) -> bool:
        """Return whether the derivatives of f at x exist up to the given order."""
        return self.left[: order + 1] == self.right[: order + 1]

    def gap(self, order: int) -> float:
        """Return the largest |right - left| of the derivatives of orders 1 to `order`.

        `order` is at least 1.
        """
        return max(
            abs(a - b)
            for a, b in zip(
                self.left[1 : order + 1], self.right[1 : order + 1], strict=True
            )
        )


def random_cases(kind: str, count: int, seed: int) -> list[Case]:
    """Draw random functions of a class, with their one-sided derivatives.

    With the same seed and a larger `count`, the first functions are the same. In the
    example, the first derivative does not exist: the derivatives from the left and from
    the right differ, and `gap` is the absolute value of their difference.

    Args:
      kind: Class of the functions, a key of `CLASSES`, such as "kink".
      count: Number of functions.
      seed: Seed of the draws, an integer of at least 0.
    Returns:
      A list of `count` cases.
    Raises:
      ValueError: kind is not in `CLASSES`.
    Example:
      >>> case = random_cases("kink", 1, 0)[0]
      >>> case.exists(1), case.gap(1) > 0
      (False, True)
    """
    rng = np.random.default_rng([seed, list(CLASSES).index(kind)])
    cases: list[Case] = []
    while len(cases) < count:
        expression, x = CLASSES[kind](rng)
        try:
            left, right = taylor.one_sided_derivatives(expression, x)
            value = _value(expression, x)
        except (ZeroDivisionError, ValueError, OverflowError):
            continue  # The series does not exist, as for the log of a negative number.
        if (
            np.isfinite([*left, *right, value]).all()
            and max(map(abs, left + right)) <= LARGEST
        ):
            cases.append(Case(expression, x, kind, left, right))
    return cases


_Expression = tuple[str, float]  # (text, point)


def _text(number: float) -> str:
    return f"({number!r})"


def _number(rng: np.random.Generator, low: float = 0.3, high: float = 3.0) -> float:
    """Draw a number of random sign whose absolute value lies between low and high."""
    return float(rng.uniform(low, high) * rng.choice([-1, 1]))


def _atom(rng: np.random.Generator, v: str) -> str:
    a, b = _number(rng), float(rng.uniform(-2, 2))
    u = f"({_text(a)}*{v} + {_text(b)})"
    return [
        f"sin({u})",
        f"cos({u})",
        f"exp({_text(a)}*{v})",
        f"tanh({u})",
        f"atan({u})",
        f"1 / (1 + {u}**2)",
        f"log({_text(abs(a) + 0.2)} + {v}**2)",
        f"sqrt({_text(abs(a) + 0.1)} + {v}**2)",
        f"{u}**{int(rng.integers(1, 8))}",
        f"log1p(exp({u}))",
        f"exp(-{u}**2)",
        f"erf({u})",
        f"cosh({_text(a)}*{v})",
        f"{v}**2*{u}",
    ][rng.integers(14)]


def _smooth_expression(rng: np.random.Generator, v: str) -> str:
    one = _atom(rng, v)
    kind = rng.integers(7)
    if kind < 2:
        return one
    two = _atom(rng, v)
    return [
        f"({one} + {two})",
        f"({one}) * ({two})",
        f"({one}) / (2 + sin({two}))",
        f"sin({one})",
        f"({one} + {_text(_number(rng))})**2",
    ][kind - 2]


class _Setting(NamedTuple):
    """Point x and unit of length, for a random function written in v = x / unit.

    Attributes:
      x: Point of the derivatives.
      v: Expression of v in x.
      per_unit: 1 / unit.
    """

    x: float
    v: str
    per_unit: float

    def beside(self) -> str:
        """Return an expression of (x - point) / unit, or of x - point if unit is 1."""
        return (
            f"(({_text(self.per_unit)})*(x - {_text(self.x)}))"
            if self.v != "x"
            else f"(x - {_text(self.x)})"
        )


def _setting(rng: np.random.Generator) -> _Setting:
    unit = 1.0 if rng.random() < 0.6 else float(10.0 ** rng.uniform(-4, 4))
    x = float(unit * rng.uniform(-3, 3))
    if rng.random() < 0.1:
        x = float(np.round(x, 1))
    if rng.random() < 0.05:
        x = 0.0
    return _Setting(x, "x" if unit == 1 else f"(x * {_text(1 / unit)})", 1 / unit)


def _rescaled(rng: np.random.Generator, e: str) -> str:
    return (
        f"{_text(float(10.0 ** rng.uniform(-8, 8)))} * ({e})"
        if rng.random() < 0.3
        else e
    )


def _smooth(rng: np.random.Generator) -> _Expression:
    at = _setting(rng)
    e = _rescaled(rng, _smooth_expression(rng, at.v))
    if rng.random() < 0.15:
        e = f"{_text(float(10.0 ** rng.uniform(-2, 5)))} + {e}"
    return e, at.x


def _value(e: str, x: float) -> float:
    with np.errstate(all="ignore"):
        return float(eval("lambda x: " + e, dict(NAMES))(np.float64(x)))


_KNOWN_ROOTS: list[Callable[[np.random.Generator], _Expression]] = [
    lambda rng: ("sqrt(x) - 1", 1.0),
    lambda rng: ("1/x - 1", 1.0),
    lambda rng: ("x**3 - 8", 2.0),
    lambda rng: ("log(x)", 1.0),
    lambda rng: ("x**3 - x", 1.0),
    lambda rng: ("exp(x) - 1", 0.0),
    lambda rng: ("x**2 - 2", math.sqrt(2)),
    lambda rng: ("sin(x)", float(math.pi * rng.integers(1, 20))),
    lambda rng: ("cos(x)", float(math.pi * (rng.integers(1, 20) + 0.5))),
    lambda rng: ("x - cos(x)", 0.7390851332151607),
    lambda rng: ("3*x", 0.0),
    lambda rng: ("tanh(x)", 0.0),
    lambda rng: ("x**4 - 16", 2.0),
    lambda rng: ("x**5 - x**3", -1.0),
    lambda rng: ("1/x**2 - 4", 0.5),
    lambda rng: ("x*exp(-x)-0.36787944117144233*x", 1.0),
]


def _polynomial_at_its_root(rng: np.random.Generator) -> _Expression:
    """Draw a polynomial with integer coefficients, and an integer root of it.

    The expression is a sum of powers, or has nested brackets (Horner's scheme).
    """
    degree, root = int(rng.integers(2, 6)), int(rng.integers(-4, 5)) or 1
    factor = rng.integers(-5, 6, degree)
    factor[-1] = factor[-1] or 1
    coefficients = np.polynomial.polynomial.polymul(factor, [-root, 1])
    e = " + ".join(f"({int(c)})*x**{k}" for k, c in enumerate(coefficients) if c)
    if rng.random() < 0.3:
        e = "0"
        for c in coefficients[::-1]:
            e = f"(({e})*x + ({int(c)}))"
    return e, float(root)


def _root(rng: np.random.Generator) -> _Expression:
    kind = rng.integers(6)
    if kind == 0:
        return _polynomial_at_its_root(rng)
    if kind == 1:
        return _KNOWN_ROOTS[rng.integers(len(_KNOWN_ROOTS))](rng)
    at = _setting(rng)
    e = _smooth_expression(rng, at.v)
    if kind == 2:
        return _rescaled(rng, f"(x - {_text(at.x)}) * ({e})"), at.x
    return _rescaled(rng, f"(({e}) - {_text(_value(e, at.x))})"), at.x


def _known_jumps(power: int, edge: float) -> list[_Expression]:
    """Return known functions with a jump in the derivative of order `power`.

    For order 2 they include the Huber loss, the squared hinge loss and ELU.
    """
    if power == 2:
        c = _text(edge)
        huber = f"where(abs(x) <= {c}, x**2/2, {c}*(abs(x) - {c}/2))"
        elu = "where(x > 0, x, exp(x) - 1)"
        return [
            (huber, edge),
            ("maximum(1 - x, 0)**2", 1.0),
            (elu, 0.0),
            ("x*abs(x)", 0.0),
        ]
    return [
        ("abs(x)**3", 0.0),
        (f"maximum(x - {_text(edge)}, 0)**3", edge),
        ("where(x > 0, x + x**2/2, exp(x) - 1)", 0.0),
        (f"abs(x - {_text(edge)})**3 + sin(x)", edge),
    ]


def _glued(rng: np.random.Generator, power: int) -> _Expression:
    """Draw a smooth function plus one whose derivative of order `power` jumps."""
    at = _setting(rng)
    e, d = _smooth_expression(rng, at.v), at.beside()
    size = _number(rng) * float(10.0 ** rng.uniform(-3, 1))
    kind = rng.integers(4)
    taylor_of_exp = " + ".join(
        f"{d}**{k}/{float(math.factorial(k))!r}" for k in range(power)
    )
    jump = [
        f"maximum({d}, 0)**{power}",
        f"where({d} > 0, {d}**{power} * cos({d}), 0*{d})",
        f"abs({d}) * {d}**{power - 1}" if power % 2 == 0 else f"abs({d})**{power}",
        f"where({d} < 0, exp({d}), {taylor_of_exp})",
    ][kind]
    if rng.random() < 0.15:
        known = _known_jumps(power, float(rng.uniform(0.2, 3)))
        return known[rng.integers(len(known))]
    return _rescaled(rng, f"({e}) + {_text(size)}*{jump}"), at.x


def _kink(rng: np.random.Generator) -> _Expression:
    at = _setting(rng)
    e, d = _smooth_expression(rng, at.v), f"(x - {_text(at.x)})"
    size = _number(rng) * float(10.0 ** rng.uniform(-8, 2)) * at.per_unit
    kind, c = rng.integers(5), _text(size)
    if kind == 0:
        e = f"({e}) + {c}*abs({d})"
    elif kind == 1:
        e = f"({e}) + {c}*maximum({d}, 0)"
    elif kind == 2:
        e = f"({e}) + {c}*where({d} > 0, sin({d}), {d}*{d})"
    elif kind == 3:
        e = f"({e}) + maximum({c}*{d}, {_text(_number(rng))}*{c}*{d})"
    else:
        e = f"({e}) + abs({c}*(exp({d} * {_text(at.per_unit)}) - 1))"
    return _rescaled(rng, e), at.x


def _kink_near(rng: np.random.Generator) -> _Expression:
    at = _setting(rng)
    e = _smooth_expression(rng, at.v)
    a = _text(
        float(
            at.x + float(10.0 ** rng.uniform(-9, 0)) / at.per_unit * rng.choice([-1, 1])
        )
    )
    size = _number(rng) * float(10.0 ** rng.uniform(-6, 2)) * at.per_unit
    kink = [
        f"abs(x - {a})",
        f"maximum(x - {a}, 0)",
        f"maximum(x - {a}, {_text(float(rng.uniform(-2, 0.9)))}*(x - {a}))",
    ][rng.integers(3)]
    return _rescaled(rng, f"({e}) + {_text(size)}*{kink}"), at.x


_CANCELLING = [
    "(1 - cos(x)) / x**2",
    "(exp(x) - 1) / x",
    "(x - sin(x)) / x**3",
    "(sqrt(1 + x**2) - 1) / x**2",
    "log(1 + x) / x",
    "(exp(x) - 1 - x) / x**2",
    "(cosh(x) - 1) / x**2",
    "x / (exp(x) - 1)",
    "sqrt(x + 1) - 1",
    "exp(x) - 1",
    "(1 - cos(x)) / x",
    "log(cosh(x))",
    "(1 + x)**3 - 1 - 3*x",
    "1/(1 + x) - 1 + x",
    "(tanh(x) - x)/x**3",
    "sqrt(1+x) - sqrt(1-x)",
    "1/x - 1/sinh(x)",
]


def _cancellation(rng: np.random.Generator) -> _Expression:
    kind = rng.integers(10)
    if kind < 7:  # Near 0, where the formula cancels.
        e = _CANCELLING[rng.integers(len(_CANCELLING))]
        x = float(10.0 ** rng.uniform(-12, -0.3))
        if rng.random() < 0.3:
            x = -x
        return e, abs(x) if "log(1 + x)" in e else x
    if kind == 7:  # (x - 1)^n expanded in powers, near 1.
        n, t = int(rng.integers(3, 8)), float(rng.uniform(-0.05, 0.05))
        return " + ".join(
            f"({math.comb(n, k) * (-1) ** (n - k)})*x**{k}" for k in range(n + 1)
        ), 1 + t
    if kind == 8:  # A large number is added and subtracted.
        at = _setting(rng)
        large = _text(float(10.0 ** rng.uniform(4, 12)))
        return f"(({_smooth_expression(rng, at.v)}) + {large}) - {large}", at.x
    t = float(rng.uniform(20, 45))
    tails = [
        ("log(1 + exp(x))", -t),
        ("log(1 + exp(-x))", t),
        ("1 - tanh(x)", t / 3),
        ("1 - 1/(1 + exp(-x))", t / 1.5),
    ]
    return tails[rng.integers(4)]


def _quantised(rng: np.random.Generator) -> _Expression:
    at = _setting(rng)
    e = _smooth_expression(rng, at.v)
    kind = rng.integers(3)
    if kind == 0:
        return f"rounded({e}, {int(rng.integers(3, 12))})", at.x
    if kind == 1:
        return f"single({e})", at.x
    return f"stepped({e}, {_text(float(10.0 ** rng.uniform(-12, -3)))})", at.x


def _far_from_0(rng: np.random.Generator) -> _Expression:
    """Draw a polynomial plus a wave of (x - a) / unit, with x near a and a large.

    An example of x is the time in seconds since 1970.
    """
    unit = float(10.0 ** rng.uniform(-1, 2))
    a = float(_number(rng) * 10.0 ** rng.uniform(2, 12))
    v = f"((x - {_text(a)}) * {_text(1 / unit)})"
    waves = [f"sin({v})", f"cos(1.7*{v})", f"exp(-({v}**2))", f"tanh({v})"]
    powers = ["{c}*{v}", "{c}*{v}**2 + {v}", "{c}*{v}**3", "{c}*{v}*({v} + {d})"]
    wave = f"{_text(float(10.0 ** rng.uniform(-3, 0)))}*{waves[rng.integers(4)]}"
    c, d = _text(_number(rng)), _text(_number(rng))
    rest = powers[rng.integers(4)].format(c=c, d=d, v=v)
    offset = _text(float(10.0 ** rng.uniform(-2, 7)))
    return f"{offset} + {wave} + {rest}", float(a + rng.uniform(-3, 3) * unit)


CLASSES: dict[str, Callable[[np.random.Generator], _Expression]] = {
    "smooth": _smooth,
    "root": _root,
    "jump in f''": lambda rng: _glued(rng, 2),
    "jump in f'''": lambda rng: _glued(rng, 3),
    "kink": _kink,
    "kink near": _kink_near,
    "cancellation": _cancellation,
    "quantised": _quantised,
    "far from 0": _far_from_0,
}
