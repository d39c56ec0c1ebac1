"""Decide whether a function acts on each entry of its split arrays independently."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from research.derivatives.costs.jaxprs import inner, is_wrapper

# Primitives whose output entry i depends on the entries i of their inputs alone.
NAMES = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp
    convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp
    exp2 expm1 floor ge gt imag integer_pow is_finite le lgamma log log1p logistic
    lt max min mul ne neg nextafter not optimization_barrier or pow real
    reduce_precision rem round rsqrt select_n sign sin sinh sqrt square
    stop_gradient sub tan tanh xor
"""
ENTRYWISE = frozenset(NAMES.split())


def is_entrywise(f: Callable[..., Any], args: Any, split: Sequence[bool]) -> bool:
    """Return whether f can be computed on parts of its arrays, without communication.

    The result is True if each operation that uses split arrays, or results of them, is
    entrywise. An operation is entrywise if entry i of its output depends only on the
    entries i of its inputs, and if its inputs that come from split arrays have the
    shape of the output. The result may be False although f can be computed on parts.

    Args:
      f: Function, called as f(*args).
      args: Tuple of arguments of f, with arrays or `jax.ShapeDtypeStruct` as leaves.
      split: For each leaf of args, True if the leaf is split over devices.
    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.ones(4)
      >>> is_entrywise(lambda x: x / (1 + jnp.sqrt(x)), (x,), [True])
      True
      >>> is_entrywise(lambda x: x / jnp.sum(x), (x,), [True])
      False
    """
    jaxpr: Any = jax.make_jaxpr(f)(*args).jaxpr
    shapes = [
        v.aval.shape if own else None
        for v, own in zip(jaxpr.invars, split, strict=True)
    ]
    return _followed(jaxpr, shapes) is not None


def _followed(jaxpr: Any, shapes: Sequence[Any]) -> list[Any] | None:
    """Return the shape of each output that depends on split arrays; None for others.

    `shapes` says the same of the inputs: the shape of each split array, and None for
    others. If some operation is not entrywise, the whole result is None.
    """
    of = dict(zip(jaxpr.invars, shapes, strict=True))

    def shape_of(variable: Any) -> Any:
        return None if hasattr(variable, "val") else of.get(variable)

    for equation in jaxpr.eqns:
        given = [shape_of(v) for v in equation.invars]
        if not any(shape is not None for shape in given):
            continue
        found = _outputs(equation, given)
        if found is None:
            return None
        of.update(zip(equation.outvars, found, strict=True))
    return [shape_of(v) for v in jaxpr.outvars]


def _outputs(equation: Any, given: list[Any]) -> list[Any] | None:
    name, within = equation.primitive.name, inner(equation)
    if is_wrapper(equation):
        return _followed(within[0], given)
    if name == "cond" and given[0] is None:
        branches = [_followed(branch, given[1:]) for branch in within]
        if any(branch is None for branch in branches):
            return None
        both = [*zip(*branches, strict=True)]  # pyright: ignore[reportArgumentType]
        return [next((s for s in shapes if s is not None), None) for shapes in both]
    shapes = {shape for shape in given if shape is not None}
    if name not in ENTRYWISE or len(shapes) != 1:
        return None
    (shape,) = shapes
    same = all(v.aval.shape == shape for v in equation.outvars)
    return [shape] * len(equation.outvars) if same else None
