"""Equality of the equations of jaxprs, with all constants inside them.

The text of a jaxpr does not show the values of its constants, so jaxprs with equal
texts may differ.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.checks import is_array, is_traced
from research.derivatives.costs.jaxprs import caller, closed, name_of_rule

# A custom rule may contain functions with custom rules, often the function itself. The
# rules are compared to this depth. Deeper ones count as equal if they have one name.
DEPTH = 3
RULE = "jvp_jaxpr_fun"
# JAX's steps around a user's rule that only convert its arguments and results.
_PLAIN = frozenset(["_flatten_jvp", "_get_result_paths_thunk"])


def equal_params(
    mine: Mapping[str, Any], other: Mapping[str, Any], depth: int = DEPTH
) -> bool:
    """Return whether two jaxpr equations of one primitive have equal parameters.

    Suppose that the equations are calls of a function with a custom derivative rule
    (`jax.custom_jvp`). The rule of this function is not compared. All other parameters
    are compared. If a parameter is a jaxpr that calls further functions with custom
    rules, the rules of these functions are compared.

    Args:
      mine, other: Parameters of the two equations.
      depth: As in `equal`, for the custom rules that are compared.
    """
    return mine.keys() == other.keys() and all(
        equal(mine[name], other[name], depth) for name in mine if name != RULE
    )


def equal(a: Any, b: Any, depth: int = DEPTH) -> bool:
    """Return whether two constants or parameters of jaxpr equations are equal.

    The result is False if they differ, or if it is unknown whether they are equal.
    There is an exception for deeply nested custom derivative rules: see `depth` below.
    Jaxprs are equal if they have the same equations and the same constants, and if the
    jaxprs inside the equations are equal, too. Arrays are equal if they have the same
    shape, dtype, weak type and bits, so NaN equals NaN and 0 differs from -0. A tracer
    equals only itself.

    Args:
      a, b: Arrays, numbers, jaxprs, other parameters, or tuples, lists and dicts of
        these.
      depth: Number of levels of custom derivative rules whose jaxprs are compared. A
        rule may call functions with custom rules, and so on without end. Two rules at
        deeper levels count as equal if the functions to which they belong have the same
        name.
    """
    if a is b:
        return True
    if is_traced(a) or is_traced(b):
        return False
    if _is_jaxpr(a) and _is_jaxpr(b):
        return _equal_jaxprs(closed(a), closed(b), depth)
    if type(a) is not type(b):
        return False
    if is_array(a):
        return _equal_arrays(a, b)
    if isinstance(a, float | complex):
        return repr(a) == repr(b)  # NaN equals NaN, and 0 differs from -0.
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(equal(a[k], b[k], depth) for k in a)
    if isinstance(a, tuple | list):
        return _equal_all(a, b, depth)
    return bool(a == b)


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def _equal_all(a: Sequence[Any], b: Sequence[Any], depth: int) -> bool:
    return len(a) == len(b) and all(map(lambda u, v: equal(u, v, depth), a, b))


def _equal_arrays(a: Any, b: Any) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if getattr(a, "weak_type", False) != getattr(b, "weak_type", False):
        return False
    if jnp.issubdtype(a.dtype, jax.dtypes.extended) or a.dtype.hasobject:
        return False
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _equal_jaxprs(a: Any, b: Any, depth: int) -> bool:
    """Compare closed jaxprs, whose variables may have different names."""
    if not _equal_all(a.consts, b.consts, depth):
        return False
    partner: dict[Any, Any] = {}  # From a variable of a to the one of b in its place.

    def bound(mine: Sequence[Any], others: Sequence[Any]) -> bool:
        if [str(v.aval) for v in mine] != [str(v.aval) for v in others]:
            return False
        partner.update(zip(mine, others, strict=True))
        return True

    def same(mine: Sequence[Any], others: Sequence[Any]) -> bool:
        return len(mine) == len(others) and all(map(same_atom, mine, others))

    def same_atom(mine: Any, other: Any) -> bool:
        if hasattr(mine, "val") and hasattr(other, "val"):
            is_alike = str(mine.aval) == str(other.aval)
            return is_alike and equal(mine.val, other.val, depth)
        return not hasattr(mine, "val") and partner[mine] is other

    one, two = a.jaxpr, b.jaxpr
    return (
        bound(one.constvars, two.constvars)
        and bound(one.invars, two.invars)
        and len(one.eqns) == len(two.eqns)
        and all(
            same(mine.invars, other.invars)
            and _equal_equations(mine, other, depth)
            and bound(mine.outvars, other.outvars)
            for mine, other in zip(one.eqns, two.eqns, strict=True)
        )
        and same(one.outvars, two.outvars)
    )


def _equal_equations(mine: Any, other: Any, depth: int) -> bool:
    """Compare two equations inside jaxprs, apart from their inputs and outputs."""
    if mine.primitive is not other.primitive:
        return False
    if not equal_params(mine.params, other.params, depth):
        return False
    if RULE not in mine.params or have_one_rule(mine, other):
        return True
    if not depth:
        return name_of_rule(mine) == name_of_rule(other)
    return equal(_slope(mine), _slope(other), depth - 1)


def have_one_rule(mine: Any, other: Any) -> bool:
    """Return whether two jaxpr equations call functions with the same derivative rule.

    The result is True if both rules are the same Python function, called with arguments
    of the same structure. Otherwise, or if JAX does not show the Python function of a
    rule, the result is False.
    """
    if mine.params[RULE] is other.params[RULE]:
        return True
    one, two = _users_rule(mine), _users_rule(other)
    return one is not None and two is not None and one[0] is two[0] and one[1] == two[1]


def _users_rule(equation: Any) -> tuple[Any, Any] | None:
    """Return the user's derivative rule and the structure of its arguments, or None.

    JAX wraps the rule again each time it evaluates the equation in another trace. This
    function removes these wrappers.
    """
    wrapped, form = equation.params[RULE], []
    while wrapped is not None:
        inner = _in_closure(_in_closure(wrapped.f, "fn"), "jvp")
        transforms = getattr(inner, "transforms", ())
        steps = {getattr(step[0], "__name__", ""): step[1] for step in transforms}
        # Others pass arguments on which the rule depends.
        if inner is None or not steps.keys() <= _PLAIN:
            return None
        parts = [part for step in steps.values() for part in step]
        form += [p for p in parts if isinstance(p, jax.tree_util.PyTreeDef)]
        wrapped = _in_closure(inner.f, RULE)
        if wrapped is None:
            return inner.f, form
        # Without constants, the wrapped rule gets the same arguments.
        form += filter(None, [_in_closure(inner.f, "num_consts")])
    return None


def _in_closure(function: Any, name: str) -> Any:
    """Return the value of a variable in a function's closure, or None."""
    cells = getattr(function, "__closure__", None)
    if not cells:
        return None
    found = dict(zip(function.__code__.co_freevars, cells, strict=True)).get(name)
    return None if found is None else found.cell_contents


def _slope(equation: Any) -> Any:
    """Return the jaxpr of a custom function's derivative, by the function's rule."""
    at = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
    moves = [jnp.issubdtype(one.dtype, jnp.inexact) for one in at]

    def slope(values: list[Any], rates: list[Any]) -> Any:
        def of(moving: list[Any]) -> Any:
            given = iter(moving)
            merged = [
                next(given) if moved else v
                for moved, v in zip(moves, values, strict=True)
            ]
            return caller(equation)(merged)

        moving = [v for moved, v in zip(moves, values, strict=True) if moved]
        return jax.jvp(of, (moving,), (rates,))[1]

    rates = [one for moved, one in zip(moves, at, strict=True) if moved]
    return jax.make_jaxpr(slope)(at, rates)
