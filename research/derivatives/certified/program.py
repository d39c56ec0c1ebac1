"""Enclosure of a JAX program over boxes: each equation is enclosed by its rule.

The program is read with real numbers: constants are the floats of the program, and no
operation of it rounds. Four constants of JAX's own derivative rules, such as 2/√π, are
widened to contain the real number. A precision such as float32 does not matter.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from research.derivatives._float64 import in_float64
from research.derivatives.certified import elementary
from research.derivatives.certified import linear_algebra as linear_algebra
from research.derivatives.certified.convolution import convolution
from research.derivatives.certified.intervals import (
    FINE,
    Interval,
    down,
    hull,
    integer_power,
    negative,
    point,
    up,
    worst,
)
from research.derivatives.certified.primitives import (
    MOVED_BY_JAX,
    RULES,
    moved_by_jax,
    scattered,
)
from research.derivatives.costs.jaxprs import (
    caller,
    closed,
    name_of_rule,
    scan_sizes,
    source_line,
)
from research.derivatives.errors import UnsupportedPrimitiveError

MOST_ITERATIONS = 100_000
INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")
# Constants of JAX's derivative rules that are rounded: of erf, exp2 and log2, and cbrt.
ROUNDED = (2 / math.sqrt(math.pi), math.log(2), 1 / math.log(2), 1 / 3)
HERE = os.path.dirname(os.path.abspath(__file__))


def trace(function: Callable[..., Any], *shapes: jax.ShapeDtypeStruct) -> Any:
    """Trace a function in float64 as a program without values."""
    with in_float64():
        return jax.make_jaxpr(function)(*shapes)


def evaluate(
    program: Any, inputs: Sequence[Interval], lines: dict[str, str] | None = None
) -> list[Interval]:
    """Enclose the results of a program.

    Args:
      program: The closed jaxpr that `trace` returns.
      inputs: Enclosures of the arguments.
      lines: Dict that gets the lines of the program at which a comparison was open or a
        value may be undefined.
    Raises:
      UnsupportedPrimitiveError: An equation has no rule. The message names its line.
    """
    lines = {} if lines is None else lines
    with np.errstate(all="ignore"):
        return _walk(
            program.jaxpr, [point(c) for c in program.consts], list(inputs), lines
        )


def _walk(
    jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Any], lines: dict[str, str]
) -> list[Any]:
    known: dict[Any, Any] = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True)
    )
    for equation in jaxpr.eqns:
        values = [_value(atom, known) for atom in equation.invars]
        results = _results(equation, values, lines)
        _note(equation, values, results, lines)
        known.update(zip(equation.outvars, results, strict=True))
    return [_value(atom, known) for atom in jaxpr.outvars]


def _value(atom: Any, known: dict[Any, Any]) -> Any:
    if not hasattr(atom, "val"):
        return known[atom]
    constant = point(atom.val)
    if constant.is_float and constant.low.ndim == 0 and abs(constant.low) in ROUNDED:
        return Interval(down(constant.low), up(constant.low), constant.trouble)
    return constant


def _note(
    equation: Any, values: Sequence[Any], results: Sequence[Any], lines: dict[str, str]
) -> None:
    """Keep the line of an equation whose result has more trouble than its inputs."""
    before = max((int(np.max(v.trouble, initial=0)) for v in values), default=0)
    after = max((int(np.max(r.trouble, initial=0)) for r in results), default=0)
    if after > before:
        lines.setdefault(_line(equation) or "the program", equation.primitive.name)


def _results(equation: Any, values: list[Any], lines: dict[str, str]) -> Sequence[Any]:
    name, params = equation.primitive.name, equation.params
    try:
        if name in ("eq", "ne") and equation.invars[0] is equation.invars[1]:
            # x != x asks for NaN, which no real number is.
            same = np.full(values[0].low.shape, name == "eq")
            found = Interval(same, same, values[0].trouble)
        elif name in RULES:
            found = RULES[name](*values, **params)
        elif name in MOVED_BY_JAX:
            found = moved_by_jax(equation, values)
        elif name in ("scatter-add", "scatter", "scatter_add"):
            found = scattered(equation, values)
        elif name == "conv_general_dilated":
            found = convolution(equation, *values)
        elif all(_is_known(value) for value in values):
            found = [
                point(np.asarray(r)) for r in caller(equation)(_known(equation, values))
            ]
        elif name in STRUCTURES:
            found = STRUCTURES[name](equation, values, lines)
        elif inner := _inner(params):
            found = _walk(inner.jaxpr, [point(c) for c in inner.consts], values, lines)
        else:
            raise NotImplementedError("it has no rule")
    except (NotImplementedError, TypeError, AttributeError) as problem:
        where = _line(equation)
        if isinstance(problem, UnsupportedPrimitiveError):
            if where and " at " not in str(problem):
                text = str(problem).replace(" cannot", f" at {where} cannot", 1)
                raise UnsupportedPrimitiveError(text) from problem
            raise
        raise UnsupportedPrimitiveError(
            f"{name}{f' at {where}' if where else ''} cannot be enclosed: {problem}. "
            "Supported are arithmetic, elementary functions, comparisons, indexing, "
            "dot and conv, jit, cond, scan, bounded while loops and small linear "
            "solves."
        ) from problem
    return [found] if isinstance(found, Interval) else list(found)


def _inner(params: dict[str, Any]) -> Any:
    """The program that a wrapper such as jit contains, or None."""
    for key in INNER:
        if key in params:
            return closed(params[key])
    return None


def _line(equation: Any) -> str:
    return source_line(equation, (HERE,))


def _run(program: Any, values: Sequence[Any], lines: dict[str, str]) -> list[Any]:
    program = closed(program)
    return _walk(program.jaxpr, [point(c) for c in program.consts], list(values), lines)


def _cond(equation: Any, values: list[Any], lines: dict[str, str]) -> list[Any]:
    """Enclose the branch that the index names, or the hull of all that it may name."""
    index, *operands = values
    branches = equation.params["branches"]
    last = len(branches) - 1
    first_branch = int(np.clip(np.min(index.low), 0, last))
    last_branch = int(np.clip(np.max(index.high), 0, last))
    results = [
        _run(branches[k], operands, lines) for k in range(first_branch, last_branch + 1)
    ]
    found = results[0]
    for more in results[1:]:
        found = [
            hull(a, b)._replace(trouble=np.maximum(worst(a, b), 1))
            for a, b in zip(found, more, strict=True)
        ]
    return found


def _scan(equation: Any, values: list[Any], lines: dict[str, str]) -> list[Any]:
    params = equation.params
    num_consts, num_carry = scan_sizes(params)
    consts, carry = values[:num_consts], values[num_consts : num_consts + num_carry]
    xs = values[num_consts + num_carry :]
    order = range(params["length"])
    stacked: list[list[Any]] = []
    for step in reversed(order) if params["reverse"] else order:
        slices = [
            Interval(
                x.low[step],
                x.high[step],
                x.trouble
                if x.trouble.ndim == 0
                else np.broadcast_to(x.trouble, x.low.shape)[step],
            )
            for x in xs
        ]
        outs = _run(params["jaxpr"], [*consts, *carry, *slices], lines)
        carry = outs[:num_carry]
        stacked.append(outs[num_carry:])
    if params["reverse"]:
        stacked = stacked[::-1]
    columns = zip(*stacked, strict=True) if stacked else ()
    return [*carry, *(_stack(list(column)) for column in columns)]


def _stack(parts: list[Interval]) -> Interval:
    trouble = [np.broadcast_to(part.trouble, part.low.shape) for part in parts]
    plain = not any(np.any(t) for t in trouble)
    return Interval(
        np.stack([part.low for part in parts]),
        np.stack([part.high for part in parts]),
        np.asarray(FINE) if plain else np.stack(trouble),
    )


def _while(equation: Any, values: list[Any], lines: dict[str, str]) -> list[Any]:
    """Repeat the body while its condition holds in the whole box."""
    params = equation.params
    of_cond, of_body = params["cond_nconsts"], params["body_nconsts"]
    cond_consts = values[:of_cond]
    body_consts, carry = (
        values[of_cond : of_cond + of_body],
        values[of_cond + of_body :],
    )
    for _ in range(MOST_ITERATIONS):
        (goes_on,) = _run(params["cond_jaxpr"], [*cond_consts, *carry], lines)
        if not np.any(goes_on.high):
            return carry
        if not np.all(goes_on.low):
            raise NotImplementedError(
                "the number of iterations depends on the point in the box"
            )
        carry = _run(params["body_jaxpr"], [*body_consts, *carry], lines)
    raise NotImplementedError(f"it has more than {MOST_ITERATIONS:,} iterations")


def _custom_rule(equation: Any, values: list[Any], lines: dict[str, str]) -> list[Any]:
    """A function with its own derivative rule: the function itself is enclosed."""
    params = equation.params
    if (
        "call_jaxpr" in params and name_of_rule(equation) == "exp_neg_sq"
    ):  # JAX splits x by its bits for e^(-x²).
        return [elementary.exp(negative(integer_power(values[0], 2)))]
    inner = params.get("call_jaxpr", params.get("fun_jaxpr", params.get("jaxpr")))
    return _run(inner, values, lines)


def _linear_solve(equation: Any, values: list[Any], lines: dict[str, str]) -> list[Any]:
    """Solve as JAX does, by the factors of the matrix, which are enclosed too."""
    lengths, jaxprs = equation.params["const_lengths"], equation.params["jaxprs"]
    start = lengths.matvec + lengths.vecmat
    consts = values[start : start + lengths.solve]
    right_sides = values[start + lengths.solve + lengths.transpose_solve :]
    return _run(jaxprs.solve, [*consts, *right_sides], lines)


def _is_known(value: Interval) -> bool:
    return not value.is_float and np.array_equal(value.low, value.high)


def _known(equation: Any, values: Sequence[Interval]) -> list[Any]:
    """Return integers and bools with the dtypes of the program."""
    return [
        value.low.astype(atom.aval.dtype)
        for value, atom in zip(values, equation.invars, strict=True)
    ]


STRUCTURES: dict[str, Callable[..., list[Any]]] = {
    "cond": _cond,
    "scan": _scan,
    "while": _while,
    "custom_jvp_call": _custom_rule,
    "custom_vjp_call": _custom_rule,
    "custom_vjp_call_jaxpr": _custom_rule,
    "custom_linear_solve": _linear_solve,
}
