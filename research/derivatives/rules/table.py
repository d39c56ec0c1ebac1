"""Table of the rules of differentiation, each with an example f and its derivative."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Constants = Mapping[str, Any]


class Rule(NamedTuple):
    """Rule of differentiation, with its domain and an example.

    A rule may have constants, such as n in (x^n)' = n x^(n-1). The second argument of
    each function below is a dict from the name of a constant to its value.

    Attributes:
      text: Formula of the rule, in one line.
      domain: Domain of the rule in words.
      interval: Interval (low, high) for random points x. It lies inside the domain for
        all random values of the constants.
      contains: Function (x, constants) -> whether the rule holds at x.
      function: Function (x, constants) -> f(x) for an example f. If a rule is about any
        two functions u and v, the example uses a particular u and v, which depend on
        the constants.
      derivative: Function (x, constants) -> f'(x) by the rule.
      constants: Dict from the name of a constant to the interval for its random values.
        If both ends of the interval are integers, the values are integers.
    """

    text: str
    domain: str
    interval: tuple[float, float]
    contains: Callable[[Any, Constants], bool]
    function: Callable[[Any, Constants], Any]
    derivative: Callable[[Any, Constants], Any]
    constants: Mapping[str, tuple[float, float]]


def _everywhere(x: Any, c: Constants) -> bool:
    del x, c
    return True


def _positive(x: Any, c: Constants) -> bool:
    del c
    return x > 0


def _inside_one(x: Any, c: Constants) -> bool:
    del c
    return abs(x) < 1


def _not_zero(x: Any, c: Constants) -> bool:
    del c
    return x != 0


# Examples u and v for the rules about any two functions, with v > 0.
def _u(x: Any, c: Constants) -> Any:
    return jnp.sin(c["a"] * x)


def _du(x: Any, c: Constants) -> Any:
    return c["a"] * jnp.cos(c["a"] * x)


def _v(x: Any, c: Constants) -> Any:
    return 2 + jnp.tanh(c["b"] * x)


def _dv(x: Any, c: Constants) -> Any:
    return c["b"] * (1 - jnp.tanh(c["b"] * x) ** 2)


def _root_of_cubic(x: Any, c: Constants) -> Any:
    """Solve y³ + a y = x by Newton's method, which is monotone from the start x / a."""
    a = c["a"]
    return jax.lax.fori_loop(0, 40, lambda i, y: (2 * y**3 + x) / (3 * y**2 + a), x / a)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + jnp.exp(-x))


ALL, WIDE, INNER = "every x", (-3.0, 3.0), (-0.9, 0.9)
_AB = {"a": (0.5, 2.0), "b": (-1.5, 1.5)}
_X_POSITIVE = "x > 0"

DERIVATIVE_RULES: dict[str, Rule] = {
    # Elementary rules.
    "constant": Rule(
        "(c)' = 0",
        ALL,
        WIDE,
        _everywhere,
        lambda x, c: c["c"] + 0 * x,
        lambda x, c: 0 * x,
        {"c": (-5.0, 5.0)},
    ),
    "identity": Rule(
        "(x)' = 1", ALL, WIDE, _everywhere, lambda x, c: x, lambda x, c: 1 + 0 * x, {}
    ),
    "power with a whole exponent": Rule(
        "(x^n)' = n x^(n-1)",
        "every x, for n = 1, 2, ...",
        WIDE,
        lambda x, c: c["n"] >= 1 and c["n"] == int(c["n"]),
        # JAX's derivative of sign(x) |x| at 0 is 0.
        lambda x, c: jnp.where(
            c["n"] == 1, x, jnp.sign(x) ** c["n"] * jnp.abs(x) ** c["n"]
        ),
        lambda x, c: c["n"] * jnp.sign(x) ** (c["n"] - 1) * jnp.abs(x) ** (c["n"] - 1),
        {"n": (1, 6)},
    ),
    "power": Rule(
        "(x^r)' = r x^(r-1)",
        "x > 0, for every real r",
        (0.3, 3.0),
        _positive,
        lambda x, c: x ** c["r"],
        lambda x, c: c["r"] * x ** (c["r"] - 1),
        {"r": (-3.0, 4.0)},
    ),
    "square root": Rule(
        "(√x)' = 1 / (2 √x)",
        _X_POSITIVE,
        (0.3, 4.0),
        _positive,
        lambda x, c: jnp.sqrt(x),
        lambda x, c: 1 / (2 * jnp.sqrt(x)),
        {},
    ),
    "reciprocal": Rule(
        "(1 / x)' = -1 / x²",
        "x ≠ 0",
        (0.3, 3.0),
        _not_zero,
        lambda x, c: 1 / x,
        lambda x, c: -1 / x**2,
        {},
    ),
    "absolute value": Rule(
        "|x|' = sign(x)",
        "x ≠ 0",
        (0.3, 3.0),
        _not_zero,
        lambda x, c: jnp.abs(x),
        lambda x, c: jnp.sign(x),
        {},
    ),
    "exponential": Rule(
        "(e^x)' = e^x",
        ALL,
        WIDE,
        _everywhere,
        lambda x, c: jnp.exp(x),
        lambda x, c: jnp.exp(x),
        {},
    ),
    "exponential of base a": Rule(
        "(a^x)' = a^x ln a",
        "every x, for a > 0",
        WIDE,
        lambda x, c: c["a"] > 0,
        lambda x, c: c["a"] ** x,
        lambda x, c: c["a"] ** x * jnp.log(c["a"]),
        {"a": (0.3, 4.0)},
    ),
    "logarithm": Rule(
        "(ln x)' = 1 / x",
        _X_POSITIVE,
        (0.3, 4.0),
        _positive,
        lambda x, c: jnp.log(x),
        lambda x, c: 1 / x,
        {},
    ),
    "logarithm of base a": Rule(
        "(log_a x)' = 1 / (x ln a)",
        "x > 0, for a > 0 other than 1",
        (0.3, 4.0),
        lambda x, c: x > 0 and c["a"] > 0 and c["a"] != 1,
        lambda x, c: jnp.log(x) / jnp.log(c["a"]),
        lambda x, c: 1 / (x * jnp.log(c["a"])),
        {"a": (1.5, 10.0)},
    ),
    # Rules of combination.
    "constant multiple": Rule(
        "(c u)' = c u'",
        ALL,
        WIDE,
        _everywhere,
        lambda x, c: c["b"] * _u(x, c),
        lambda x, c: c["b"] * _du(x, c),
        _AB,
    ),
    "sum": Rule(
        "(u + v)' = u' + v'",
        ALL,
        WIDE,
        _everywhere,
        lambda x, c: _u(x, c) + _v(x, c),
        lambda x, c: _du(x, c) + _dv(x, c),
        _AB,
    ),
    "difference": Rule(
        "(u - v)' = u' - v'",
        ALL,
        WIDE,
        _everywhere,
        lambda x, c: _u(x, c) - _v(x, c),
        lambda x, c: _du(x, c) - _dv(x, c),
        _AB,
    ),
    "product": Rule(
        "(u v)' = u' v + u v'",
        ALL,
        WIDE,
        _everywhere,
        lambda x, c: _u(x, c) * _v(x, c),
        lambda x, c: _du(x, c) * _v(x, c) + _u(x, c) * _dv(x, c),
        _AB,
    ),
    "quotient": Rule(
        "(u / v)' = (u' v - u v') / v²",
        "v(x) ≠ 0",
        WIDE,
        lambda x, c: bool(_v(x, c) != 0),
        lambda x, c: _u(x, c) / _v(x, c),
        lambda x, c: (_du(x, c) * _v(x, c) - _u(x, c) * _dv(x, c)) / _v(x, c) ** 2,
        _AB,
    ),
    "chain": Rule(
        "(u(v(x)))' = u'(v(x)) v'(x)",
        "u differentiable at v(x), v at x",
        WIDE,
        _everywhere,
        lambda x, c: _u(_v(x, c), c),
        lambda x, c: _du(_v(x, c), c) * _dv(x, c),
        _AB,
    ),
    "inverse function": Rule(
        "(g⁻¹)'(x) = 1 / g'(g⁻¹(x)), here g(y) = y³ + a y",
        "g'(g⁻¹(x)) ≠ 0",
        (-2.0, 2.0),
        lambda x, c: c["a"] > 0,
        _root_of_cubic,
        lambda x, c: 1 / (3 * _root_of_cubic(x, c) ** 2 + c["a"]),
        {"a": (0.5, 2.0)},
    ),
    "power of functions": Rule(
        "(v^u)' = v^u (u' ln v + u v' / v)",
        "v(x) > 0",
        WIDE,
        lambda x, c: bool(_v(x, c) > 0),
        lambda x, c: _v(x, c) ** _u(x, c),
        lambda x, c: (
            _v(x, c) ** _u(x, c)
            * (_du(x, c) * jnp.log(_v(x, c)) + _u(x, c) * _dv(x, c) / _v(x, c))
        ),
        _AB,
    ),
    # Common functions.
    "sine": Rule(
        "(sin x)' = cos x",
        ALL,
        WIDE,
        _everywhere,
        lambda x, c: jnp.sin(x),
        lambda x, c: jnp.cos(x),
        {},
    ),
    "cosine": Rule(
        "(cos x)' = -sin x",
        ALL,
        WIDE,
        _everywhere,
        lambda x, c: jnp.cos(x),
        lambda x, c: -jnp.sin(x),
        {},
    ),
    "tangent": Rule(
        "(tan x)' = 1 / cos² x",
        "cos x ≠ 0",
        (-1.0, 1.0),
        lambda x, c: bool(jnp.cos(x) != 0),
        lambda x, c: jnp.tan(x),
        lambda x, c: 1 / jnp.cos(x) ** 2,
        {},
    ),
    "arcsine": Rule(
        "(arcsin x)' = 1 / √(1 - x²)",
        "|x| < 1",
        (-0.7, 0.7),
        _inside_one,
        lambda x, c: jnp.arcsin(x),
        lambda x, c: 1 / jnp.sqrt(1 - x**2),
        {},
    ),
    "arccosine": Rule(
        "(arccos x)' = -1 / √(1 - x²)",
        "|x| < 1",
        (-0.7, 0.7),
        _inside_one,
        lambda x, c: jnp.arccos(x),
        lambda x, c: -1 / jnp.sqrt(1 - x**2),
        {},
    ),
    "arctangent": Rule(
        "(arctan x)' = 1 / (1 + x²)",
        ALL,
        WIDE,
        _everywhere,
        lambda x, c: jnp.arctan(x),
        lambda x, c: 1 / (1 + x**2),
        {},
    ),
    "hyperbolic sine": Rule(
        "(sinh x)' = cosh x",
        ALL,
        WIDE,
        _everywhere,
        lambda x, c: jnp.sinh(x),
        lambda x, c: jnp.cosh(x),
        {},
    ),
    "hyperbolic cosine": Rule(
        "(cosh x)' = sinh x",
        ALL,
        WIDE,
        _everywhere,
        lambda x, c: jnp.cosh(x),
        lambda x, c: jnp.sinh(x),
        {},
    ),
    "hyperbolic tangent": Rule(
        "(tanh x)' = 1 - tanh² x",
        ALL,
        WIDE,
        _everywhere,
        lambda x, c: jnp.tanh(x),
        lambda x, c: 1 - jnp.tanh(x) ** 2,
        {},
    ),
    "sigmoid": Rule(
        "σ' = σ (1 - σ), where σ(x) = 1 / (1 + e^-x)",
        ALL,
        WIDE,
        _everywhere,
        lambda x, c: _sigmoid(x),
        lambda x, c: _sigmoid(x) * (1 - _sigmoid(x)),
        {},
    ),
    "softplus": Rule(
        "(ln(1 + e^x))' = σ(x)",
        ALL,
        WIDE,
        _everywhere,
        lambda x, c: jnp.logaddexp(x, 0.0),
        lambda x, c: _sigmoid(x),
        {},
    ),
    "rectifier": Rule(
        "max(x, 0)' = 0 for x < 0, 1 for x > 0",
        "x ≠ 0",
        (0.3, 3.0),
        _not_zero,
        lambda x, c: jnp.maximum(x, 0),
        lambda x, c: jnp.heaviside(x, 0.0),
        {},
    ),
}
