"""Rules of differentiation, each verified in two independent ways."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from research.checks import check_count, check_key, check_numbers, shown
from research.derivatives._float64 import in_float64
from research.derivatives.exact import derivative
from research.derivatives.finite_differences.estimate import difference_of_values
from research.derivatives.finite_differences.ladder import exponents, nodes
from research.derivatives.rules.table import DERIVATIVE_RULES, Rule
from research.naming import known_names

__all__ = [
    "DERIVATIVE_RULES",
    "Rule",
    "RuleCheck",
    "find_derivative_rule",
    "verify_derivative_rule",
]


class RuleCheck(NamedTuple):
    """Comparison of a derivative rule with JAX and finite differences at n points.

    A derivative rule is a formula such as (sin x)' = cos x, stored as a `Rule`. Each
    rule has an example function f (`Rule.function`), which may have constants.

    Attributes:
      name: Name of the rule.
      points: Points x, shape (n,).
      constants: Dict from the name of a constant of f, such as a in sin(a x), to an
        array of shape (n,). Each point has its own value of the constant.
      derivative: f'(x) by the rule, shape (n,).
      by_jax: f'(x) by JAX's forward mode, shape (n,).
      by_differences: f'(x) by `finite_difference`, shape (n,). It is nan where the
        verdict of `finite_difference` is not "ok".
      residual_jax: Largest difference between the rule and JAX, relative to the larger
        of |f'| and |f| / (1 + |x|).
      residual_differences: Largest difference between the rule and the finite
        differences, relative to the larger of |f'| and |f| / (1 + |x|). It is nan if
        `by_differences` contains nan.
    """

    name: str
    points: Float[np.ndarray, "n"]
    constants: dict[str, np.ndarray]
    derivative: Float[np.ndarray, "n"]
    by_jax: Float[np.ndarray, "n"]
    by_differences: Float[np.ndarray, "n"]
    residual_jax: float
    residual_differences: float


def verify_derivative_rule(
    name: str, key: jax.Array | None = None, points: Any = None, number: int = 32
) -> RuleCheck:
    """Compare a rule of `DERIVATIVE_RULES` with JAX and with finite differences.

    A rule is a formula such as (sin x)' = cos x, and has an example function f. At each
    point, f'(x) by the rule is compared with two other values of f'(x). Neither value
    depends on the rule: JAX differentiates the code of f, and `finite_difference` uses
    only values of f. `finite_difference` extrapolates its difference quotients, so its
    error is much smaller than that of plain differences.

    The field `residual_jax` of the result is the largest relative difference between
    the rule and JAX. The field `residual_differences` is the largest relative
    difference between the rule and `finite_difference`. For a correct rule in float64,
    `residual_jax` is near 1e-15, and `residual_differences` is below 1e-12.

    Args:
      name: Name of the rule, a key of `DERIVATIVE_RULES`.
      key: Random key from which the points and the constants of f are drawn. It may be
        None if `points` is given. With key=None, the constants are drawn from
        jax.random.key(0).
      points: A point x, or n points x as an array of shape (n,), to use instead of
        random points.
      number: Number of random points. Not used if `points` is given.
    Returns:
      The comparison, a `RuleCheck`.
    Raises:
      ValueError: There is no such rule, neither key nor points is given, or number is
        not a positive integer. Or points is empty or has more than one axis, or a point
        is not finite or lies outside the rule's domain.
      TypeError: key is not a key, or points are not real numbers.
    Example:
      >>> check = verify_derivative_rule("product", jax.random.key(0))
      >>> print(check.residual_jax < 1e-5, DERIVATIVE_RULES["product"].text)
      True (u v)' = u' v + u v'
    """
    rule = find_derivative_rule(name)
    check_count("number", number)
    if key is not None:
        check_key("key", key)
    if points is not None:
        _check_points(points)
    if key is None and points is None:
        raise ValueError(
            "key or points must be given; pass for example jax.random.key(0)."
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
            with_constants = "".join(
                f", {constant} = {value:g}" for constant, value in at.items()
            )
            raise ValueError(
                f"points of the rule {name} must lie in its domain, {rule.domain}; got "
                f"x = {point:g}{with_constants}."
            )
    return _compare(name, rule, jnp.asarray(x), constants)


def _check_points(points: Any) -> None:
    check_numbers("points", points)
    given = np.asarray(points, float)
    if given.ndim > 1 or not given.size:
        raise ValueError(
            "points must be a number, or an array of shape (n,) with n >= 1; got shape "
            f"{given.shape}. Pass np.ravel(points) for an array of more axes."
        )
    if not np.all(np.isfinite(given)):
        raise ValueError(f"points must be finite; got points={shown(points)}.")


def find_derivative_rule(name: str) -> Rule:
    """Return the derivative rule with the given name in `DERIVATIVE_RULES`.

    Raises:
      ValueError: The name is unknown. The message suggests the most similar known name.
    Example:
      >>> find_derivative_rule("sine").text
      "(sin x)' = cos x"
    """
    if not isinstance(name, str) or name not in DERIVATIVE_RULES:
        raise ValueError(
            f"unknown rule {name!r}{known_names(name, DERIVATIVE_RULES)} Pass one of "
            "these names."
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
    def derivatives(
        x: jax.Array, constants: dict[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        f = lambda t: jnp.asarray(rule.function(t, constants), x.dtype)
        return jnp.asarray(rule.derivative(x, constants), x.dtype), derivative(f, x)

    of_x = {name: jnp.asarray(value, x.dtype) for name, value in constants.items()}
    by_rule, by_jax = map(np.asarray, jax.jit(jax.vmap(derivatives))(x, of_x))
    values = _around(rule, x, of_x)
    differences = map(difference_of_values, map(float, x), values)
    by_differences = np.array(
        [one.value if one.verdict == "ok" else np.nan for one in differences]
    )
    value = np.array([around[0] for around in values])
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


def _around(
    rule: Rule, x: jax.Array, constants: dict[str, jax.Array]
) -> list[np.ndarray]:
    """Evaluate the example f of a rule in float64 at points around each x.

    The points are those at which `finite_difference` evaluates f. The first is x.
    """
    ladders = [nodes(point, exponents(point)) for point in map(float, x)]
    lengths = [len(ladder) for ladder in ladders]
    each = np.repeat(np.arange(len(x)), lengths)
    with in_float64():
        values = jax.jit(jax.vmap(rule.function))(
            np.concatenate(ladders),
            {name: np.asarray(value, float)[each] for name, value in constants.items()},
        )
    return np.split(np.asarray(values, float), np.cumsum(lengths)[:-1])
