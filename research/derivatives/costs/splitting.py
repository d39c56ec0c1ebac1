"""Search for operations inside a function that may have a kink or a jump."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.derivatives.costs.jaxprs import (
    caller,
    closed,
    inner,
    is_inexact,
    is_wrapper,
    name_of_rule,
    scan_sizes,
)

COMPARISONS = frozenset(["lt", "le", "gt", "ge", "eq", "ne"])
JUMPS = frozenset(["sign", "floor", "ceil", "round"])
# Operations that have a kink or a jump where compared or ordered values are equal, or
# where their argument is a number such as 0.
SPLITTING = frozenset(
    [
        *(*COMPARISONS, *JUMPS, "max", "min", "abs", "clamp", "rem", "sort", "top_k"),
        *("reduce_max", "reduce_min", "argmax", "argmin", "cummax", "cummin"),
        *("reduce_window_max", "reduce_window_min", "scatter_max", "scatter_min"),
        *("svd", "eigh", "eig", "bessel_i0e"),
    ]
)


def may_split(primitive: str, params: dict[str, Any], flags: Sequence[bool]) -> bool:
    """Return whether a function inside an equation may have a kink or a jump.

    An equation is one operation of a jaxpr. Some operations, such as a loop, contain
    functions. The result is True if a function contains an operation with these
    properties:

    - It may have a kink or a jump, as a comparison or abs may.
    - A floating input of the operation depends on an input of the equation that varies.
    - The result of the function depends on the operation, and not only through
      `stop_gradient`.

    Args:
      primitive: Name of the primitive of the equation.
      params: Parameters of the equation. They contain the functions as jaxprs, such as
        the body of a loop.
      flags: For each input of the equation, whether the input varies. An input varies
        if it depends on the variables with respect to which a derivative is taken.
    """
    if primitive == "scan":  # A carried constant may move after the first step.
        num_consts, num_carry = scan_sizes(params)
        carried = range(num_consts, num_consts + num_carry)
        flags = [flag or i in carried for i, flag in enumerate(flags)]
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(part, "jaxpr", part)
            if hasattr(jaxpr, "eqns") and _may_split(jaxpr, flags):
                return True
    return False


def _may_split(
    jaxpr: Any, flags: Sequence[bool], enclosing: tuple[str, ...] = ()
) -> bool:
    """Return whether an operation that may have a kink has an input that varies.

    `flags` say which inputs of the jaxpr vary. `enclosing` are the names of the
    functions whose custom rules contain the jaxpr. A rule often calls its own function,
    which is not examined again.
    """
    if len(flags) != len(jaxpr.invars):
        flags = [True] * len(jaxpr.invars)
    moving = {v for v, flag in zip(jaxpr.invars, flags, strict=True) if flag}
    needed = _needed(jaxpr)
    for equation in jaxpr.eqns:
        of_inputs = [
            not hasattr(v, "val") and v in moving and is_inexact(v.aval)
            for v in equation.invars
        ]
        if not any(of_inputs) or equation.primitive.name == "stop_gradient":
            continue
        if not needed.isdisjoint(equation.outvars) and (
            _splits(equation) or _may_split_inside(equation, of_inputs, enclosing)
        ):
            return True
        moving |= set(equation.outvars)
    return False


def _splits(equation: Any) -> bool:
    """Return whether an equation of a jaxpr may have a kink at finite values."""
    name = equation.primitive.name.replace("-", "_")
    if name not in COMPARISONS:
        return name in SPLITTING
    bounds = [v.val for v in equation.invars if hasattr(v, "val")]
    is_test = equation.invars[0] is equation.invars[1]  # Of whether it is NaN.
    return not is_test and all(np.all(np.isfinite(bound)) for bound in bounds)


def _may_split_inside(
    equation: Any, flags: list[bool], enclosing: tuple[str, ...]
) -> bool:
    name = equation.primitive.name
    if name == "custom_jvp_call":
        name = name_of_rule(equation)
        return name not in enclosing and _may_split(
            _rule(equation), [True] * len(equation.invars), (*enclosing, name)
        )
    if name == "scan":
        return _may_split(closed(equation.params["jaxpr"]).jaxpr, flags, enclosing)
    return any(
        _may_split(
            within,
            flags if is_wrapper(equation) else [True] * len(within.invars),
            enclosing,
        )
        for within in inner(equation)
    )


def _rule(equation: Any) -> Any:
    """Return the jaxpr of a custom function's derivative, by the function's rule."""
    at = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
    call = lambda *values: caller(equation)(values)
    rates = lambda values: [
        jnp.ones_like(v) if is_inexact(v) else np.zeros(np.shape(v), jax.dtypes.float0)
        for v in values
    ]
    slope = lambda *values: jax.jvp(call, values, tuple(rates(values)))[1]
    return jax.make_jaxpr(slope)(*at).jaxpr


def _needed(jaxpr: Any) -> set[Any]:
    """Return the variables that outputs depend on, other than through stop_gradient."""
    needed = {v for v in jaxpr.outvars if not hasattr(v, "val")}
    for equation in jaxpr.eqns[::-1]:
        if equation.primitive.name == "stop_gradient":
            continue
        if not needed.isdisjoint(equation.outvars):
            needed |= {v for v in equation.invars if not hasattr(v, "val")}
    return needed
