"""The rules of differentiation, and a check of each in two independent ways."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.checks import check_count, check_key, check_numbers
from research.derivatives.exact import derivative
from research.derivatives.rules.table import DERIVATIVE_RULES, Rule
from research.naming import known_names

__all__ = [
    "DERIVATIVE_RULES",
    "Rule",
    "RuleCheck",
    "find_rule",
    "verify_derivative_rule",
]

# Of the difference quotient by which a rule is checked: f'(x) = Σ w_k (f(x + k h) - f(x - k h)) / h + O(h⁶).
_WEIGHTS = (3 / 4, -3 / 20, 1 / 60)


class RuleCheck(NamedTuple):
    """A rule at drawn points, against differentiation by JAX and by differences.

    Attributes:
      name: Of the rule.
      points: Where, shape (n,).
      constants: name -> their values, shape (n,).
      derivative: f' by the rule, shape (n,).
      by_jax: f' by forward mode, shape (n,).
      by_differences: f' by a six-point difference quotient of f, shape (n,).
      residual_jax: Largest |rule - JAX|, over the larger of |f'| and |f| / (1 + |x|).
      residual_differences: The same against the difference quotient.
    """

    name: str
    points: np.ndarray
    constants: dict[str, np.ndarray]
    derivative: np.ndarray
    by_jax: np.ndarray
    by_differences: np.ndarray
    residual_jax: float
    residual_differences: float


def verify_derivative_rule(
    name: str, key: jax.Array | None = None, points: Any = None, number: int = 32
) -> RuleCheck:
    """Holds a rule of `DERIVATIVE_RULES` against JAX and against a difference quotient.

    Neither knows the rule: one differentiates f's program, the other only evaluates f. In float64 a right rule has
    residuals near 1e-15 and 1e-11.

    Args:
      name: Of the rule.
      key: Draws points and constants.
      points: Where to check instead of at drawn points.
      number: How many points are drawn.
    Returns:
      RuleCheck.
    Raises:
      ValueError: There is no such rule, a point lies outside of the rule's domain, or neither key nor points is given.
    Example:
      >>> check = verify_derivative_rule("product", jax.random.key(0))
      >>> print(check.residual_jax < 1e-5, DERIVATIVE_RULES["product"].text)
      True (u v)' = u' v + u v'
    """
    rule = find_rule(name)
    check_count("number", number)
    if key is not None:
        check_key("key", key)
    if points is not None:
        check_numbers("points", points)
    if key is None and points is None:
        raise ValueError(
            "verify_derivative_rule draws its points: give a key, such as jax.random.key(0), or points."
        )
    key_points, key_constants = jax.random.split(
        jax.random.key(0) if key is None else key
    )
    if points is None:
        low, high = rule.interval
        points = jax.random.uniform(key_points, (number,), float, low, high)
    x = np.atleast_1d(np.asarray(points, float))
    constants = _draw(rule, key_constants, len(x))
    for i, point in enumerate(x):
        at = {constant: values[i] for constant, values in constants.items()}
        if not rule.contains(point, at):
            said = "".join(
                f", {constant} = {value:g}" for constant, value in at.items()
            )
            raise ValueError(
                f"the rule {name} holds for {rule.domain}; got x = {point:g}{said}."
            )
    return _compare(name, rule, jnp.asarray(x), constants)


def find_rule(name: str) -> Rule:
    """The rule of that name in `DERIVATIVE_RULES`.

    Raises:
      ValueError: There is none; the message names the nearest.
    Example:
      >>> find_rule("sine").text
      "(sin x)' = cos x"
    """
    if not isinstance(name, str) or name not in DERIVATIVE_RULES:
        raise ValueError(
            f"unknown rule {name!r}{known_names(name, DERIVATIVE_RULES)} Give its name."
        )
    return DERIVATIVE_RULES[name]


def _draw(rule: Rule, key: jax.Array, number: int) -> dict[str, np.ndarray]:
    drawn = {}
    for i, (constant, (low, high)) in enumerate(rule.constants.items()):
        uniform = np.asarray(
            jax.random.uniform(jax.random.fold_in(key, i), (number,), float), float
        )
        whole = isinstance(low, int) and isinstance(high, int)
        drawn[constant] = (
            np.floor(low + uniform * (high + 1 - low))
            if whole
            else low + uniform * (high - low)
        )
    return drawn


def _compare(
    name: str, rule: Rule, x: jax.Array, constants: dict[str, np.ndarray]
) -> RuleCheck:
    def all_three(x: jax.Array, constants: dict[str, jax.Array]) -> tuple:
        f = lambda t: jnp.asarray(rule.function(t, constants), x.dtype)
        step = _step(rule, x)
        quotient = (
            sum(
                w * (f(x + k * step) - f(x - k * step))
                for k, w in enumerate(_WEIGHTS, 1)
            )
            / step
        )
        return (
            f(x),
            jnp.asarray(rule.derivative(x, constants), x.dtype),
            derivative(f, x),
            quotient,
        )

    found = jax.jit(jax.vmap(all_three))(
        x, {constant: jnp.asarray(v, x.dtype) for constant, v in constants.items()}
    )
    value, by_rule, by_jax, by_differences = map(np.asarray, found)
    points = np.asarray(x)
    scale = (
        np.maximum(np.abs(by_rule), np.abs(value) / (1 + np.abs(points)))
        + np.finfo(points.dtype).tiny
    )
    residual = lambda other: float(np.max(np.abs(by_rule - other) / scale))
    return RuleCheck(
        name,
        points,
        constants,
        by_rule,
        by_jax,
        by_differences,
        residual(by_jax),
        residual(by_differences),
    )


def _step(rule: Rule, x: jax.Array) -> jax.Array:
    """ε^(1/7) times a tenth of the distance over which the functions change, and never out of the interval's reach."""
    low, high = rule.interval
    room = jnp.minimum(jnp.abs(x - low), jnp.abs(high - x)) + 0.05 * (high - low)
    return jnp.finfo(x.dtype).eps ** (1 / 7) * jnp.minimum(1.0, room)
