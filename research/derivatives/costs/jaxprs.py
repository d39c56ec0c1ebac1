"""Queries on jaxprs: their equations, the functions inside them, their precision."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from research.tracing import AdviceOnTracing

# Primitives that only wrap other equations, with the parameter that contains these.
WRAPPERS = {
    **dict.fromkeys(
        ("jit", "pjit", "remat", "remat2", "checkpoint", "custom_lin"), "jaxpr"
    ),
    **dict.fromkeys(("closed_call", "core_call", "eval_jaxpr"), "call_jaxpr"),
}


def traced(f: Callable[..., Any], *args: Any) -> Any:
    """Return the jaxpr of f(*args), the program that JAX records when it traces f.

    An array that f uses but does not take as an argument may become a constant of the
    jaxpr. The result has a variable for each constant, but not its value.
    """
    with AdviceOnTracing():
        return jax.make_jaxpr(f)(*args).jaxpr


def inner(equation: Any) -> list[Any]:
    """Return the jaxprs inside an equation, such as the body of a loop.

    For a function with a custom derivative rule, the list has the jaxpr of the
    function, but not the jaxpr of the rule.
    """
    jaxprs = []
    for value in equation.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                jaxprs.append(part)
    if equation.primitive.name.startswith("custom_"):
        return jaxprs[:1]  # The function itself, without its derivative rules.
    return jaxprs


def source_line(equation: Any, left_out: tuple[str, ...] = ()) -> str:
    """Return the user's line that an equation comes from, such as "model.py:12".

    Args:
      equation: The equation of a jaxpr.
      left_out: Beginnings of paths. If the path of the line's file begins with one of
        them, "" is returned.
    """
    # JAX has no public function for the user's line.
    from jax._src import source_info_util

    text = source_info_util.summarize(equation.source_info)
    path, _, rest = text.partition(":")
    if left_out and path.startswith(left_out):
        return ""
    return (
        f"{os.path.basename(path)}:{rest.split(' ')[0].split(':')[0]}" if rest else text
    )


def scan_sizes(params: dict[str, Any]) -> tuple[int, int]:
    """Return the number of constants and the number of carried values of a scan.

    `params` are the parameters of the equation of the scan.
    """
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # Since jax 0.11.
    return len(consts.vals), len(carry.vals)


def alive(
    jaxpr: Any, wanted: list[bool] | None = None
) -> Iterator[tuple[Any, list[bool]]]:
    """Yield the equations of a jaxpr that affect its wanted outputs, in reverse order.

    Equations with side effects are yielded too.

    Args:
      jaxpr: The jaxpr.
      wanted: For each output of the jaxpr, whether it is wanted. None means that all
        outputs are wanted.
    Yields:
      (equation, flags). The flags say which outputs of the equation are needed.
    """
    outputs = (
        jaxpr.outvars
        if wanted is None
        else [o for o, want in zip(jaxpr.outvars, wanted, strict=True) if want]
    )
    needed = {v for v in outputs if not hasattr(v, "val")}
    for equation in jaxpr.eqns[::-1]:
        of_own = [v in needed for v in equation.outvars]
        if any(of_own) or getattr(equation, "effects", None):
            yield equation, of_own
            needed |= {v for v in equation.invars if not hasattr(v, "val")}


def is_wrapper(equation: Any) -> bool:
    """Return whether an equation of a jaxpr only wraps an inner function.

    A wrapper gives the function a name, compiles it, or adds a derivative rule to it.
    """
    held = inner(equation)
    own = equation.primitive.name in ("scan", "while", "cond")
    return len(held) == 1 and not own and len(held[0].invars) == len(equation.invars)


def is_inexact(value: Any) -> bool:
    """Return whether an array, or its abstract value, is floating or complex."""
    return jnp.issubdtype(getattr(value, "dtype", np.dtype(int)), jnp.inexact)


def lowest_precision(f: Callable[..., Any], *args: Any) -> Any:
    """Return the least precise floating dtype of args and of what f computes from them.

    Numbers that are computed from integers or bools alone are left out. If there is no
    floating dtype, the result is float64.
    """
    found = precisions(traced(f, *args)) or {np.dtype(np.float64)}
    return max(found, key=lambda dtype: jnp.finfo(dtype).eps)


def precisions(jaxpr: Any) -> set[Any]:
    """Return the floating dtypes in the part of a jaxpr that varies with its inputs.

    Numbers that are computed from integers or bools alone do not vary close to a point,
    so their dtypes are left out. For `reduce_precision`, the reduced dtype is included.
    """
    return _precisions(jaxpr, [True] * len(jaxpr.invars))


def _precisions(jaxpr: Any, active: list[bool]) -> set[Any]:
    depends = {
        v for v, a in zip(jaxpr.invars, active, strict=True) if a and is_inexact(v.aval)
    }
    found = {v.aval.dtype for v in depends if _is_floating(v)}
    for equation in jaxpr.eqns:
        of_inputs = [not hasattr(v, "val") and v in depends for v in equation.invars]
        if not any(of_inputs):
            continue
        depends |= {v for v in equation.outvars if is_inexact(v.aval)}
        found |= {v.aval.dtype for v in equation.outvars if _is_floating(v)}
        if equation.primitive.name == "reduce_precision":
            found.add(_reduced(equation))
        for within in inner(equation):
            found |= _precisions(
                within,
                of_inputs if is_wrapper(equation) else [True] * len(within.invars),
            )
    return found


def _is_floating(variable: Any) -> bool:
    return jnp.issubdtype(getattr(variable.aval, "dtype", np.dtype(int)), jnp.floating)


def _reduced(equation: Any) -> Any:
    """Return a floating dtype for the precision that `reduce_precision` keeps.

    The result is the first of these dtypes that has no more digits than are kept: the
    dtype of the output, float32, and float16. float16 is tried only if it has at least
    as many exponent bits as are kept. If no dtype fits, the result is bfloat16.
    """
    dtypes = [equation.outvars[0].aval.dtype, np.float32]
    if equation.params["exponent_bits"] <= jnp.finfo(np.float16).nexp:
        dtypes.append(np.float16)
    digits = equation.params["mantissa_bits"]
    fitting = [np.dtype(d) for d in dtypes if jnp.finfo(d).nmant <= digits]
    return fitting[0] if fitting else np.dtype(jnp.bfloat16)


def closed(jaxpr: Any) -> Any:
    """Return a jaxpr as a closed jaxpr.

    A closed jaxpr is returned unchanged. A jaxpr that is not closed becomes a closed
    jaxpr without constants.
    """
    return jaxpr if hasattr(jaxpr, "consts") else jax.extend.core.ClosedJaxpr(jaxpr, ())


LIBRARY = os.path.dirname(os.path.abspath(jax.__file__))


def is_library(function: Any) -> bool:
    """Return whether a function that is given as a closed jaxpr belongs to JAX.

    The lines of the equations do not show this. JAX traces each of its own functions
    only once, so their equations may name the user's line of an earlier call.
    """
    information = getattr(function.jaxpr, "debug_info", None)
    place = str(getattr(information, "func_src_info", ""))
    # The wrapper of jax.custom_gradient stands in JAX, and its function does not.
    return LIBRARY + os.sep in place and "custom_derivatives.py" not in place


def caller(equation: Any) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Return a function that computes the results of one equation of a jaxpr.

    The function maps the values of the inputs of the equation to a tuple of its
    results.
    """

    def call(values: Sequence[Any]) -> tuple[Any, ...]:
        bound = equation.primitive.get_bind_params(equation.params)
        # jax up to about 0.9 returns a pair (subfunctions, params).
        subfunctions, params = bound if isinstance(bound, tuple) else ((), bound)
        with equation.ctx.manager:
            results = equation.primitive.bind(*subfunctions, *values, **params)
        return tuple(results) if equation.primitive.multiple_results else (results,)

    return call


def name_of_rule(equation: Any) -> str:
    """Return the name of the function with a custom derivative that a jaxpr calls.

    The argument is the equation of the jaxpr that calls the function. The function has
    a derivative rule by `jax.custom_jvp` or `jax.custom_vjp`. If JAX does not know the
    name of the function, "custom" is returned.
    """
    inner = equation.params["call_jaxpr"]
    information = getattr(getattr(inner, "jaxpr", inner), "debug_info", None)
    name = (
        getattr(information, "func_name", None)
        or getattr(information, "func_src_info", "")
        or "custom"
    )
    return str(name).split(" ")[0]
