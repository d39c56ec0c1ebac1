"""Evaluation of a function equation by equation.

In the package `ledger`, only this module evaluates the equations of a jaxpr.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.derivatives.costs.jaxprs import (
    WRAPPERS,
    caller,
    closed,
    is_library,
    name_of_rule,
    scan_sizes,
    source_line,
)
from research.derivatives.ledger.reverse import NO_RULE, linearize
from research.derivatives.ledger.tape import (
    Equation,
    Link,
    Literal,
    Operand,
    OwnReverse,
    OwnRule,
    Tape,
    is_inexact,
)
from research.tracing import AdviceOnTracing

# Lines of code in these folders do not belong to the user.
OURS = (
    os.path.dirname(os.path.abspath(__file__)),
    str(pathlib.Path(__file__).resolve().parents[1] / "costs"),
    str(pathlib.Path(__file__).resolve().parents[2] / "cli"),
)


@dataclasses.dataclass(frozen=True)
class Place:
    """Position of the evaluation in nested functions.

    Attributes:
      scope: Names of the enclosing functions, derivative rules, branches and steps of
        loops, outermost first.
      calls: A number for each name in `scope`. Two calls of the same function have
        different numbers.
      source: Innermost line of the user's code.
      is_rule: Whether the position is inside a custom derivative rule.
      active: Whether adjoints pass through the equations at this position. This is
        False inside a function with a custom rule.
      in_library: Whether the position is inside a function of JAX. The equations of
        such a function have no line of the user's code, so they get the line of the
        call.
    """

    scope: tuple[str, ...] = ()
    calls: tuple[int, ...] = ()
    source: str = ""
    is_rule: bool = False
    active: bool = True
    in_library: bool = False

    def inside(self, tape: Tape, name: str, **changes: Any) -> "Place":
        """Return the position in a new scope that begins with the next equation.

        Args:
          tape: Record of the evaluation.
          name: Name of the new scope.
          changes: New values of other attributes.
        """
        calls = (*self.calls, len(tape.entries))
        return dataclasses.replace(
            self, scope=(*self.scope, name), calls=calls, **changes
        )


def record(
    f: Callable[..., Any], leaves: Sequence[Any], expand: Sequence[str] = ()
) -> tuple[Tape, list[int], list[Operand]]:
    """Evaluate and record f(*leaves) equation by equation.

    Every floating leaf is marked as an input of the differentiation.

    Args:
      f: Function from arrays to a flat list of arrays.
      leaves: Arguments of f.
      expand: ("scan",) to record each step of a scan separately, or ().
    Returns:
      (tape, inputs, outputs): the record, the list of the nodes of the leaves, and the
      list with a node or a constant for each output. A node is the index of a value on
      the tape.
    """
    with AdviceOnTracing():
        made = jax.make_jaxpr(f)(*leaves)
    tape = Tape(frozenset(expand))
    inputs = [tape.node(leaf, True) for leaf in leaves]
    return tape, inputs, _walk(tape, made.jaxpr, made.consts, inputs, Place())


def walk_reverse_rule(
    tape: Tape, entry: OwnReverse, adjoints: tuple[Any, ...]
) -> tuple[Any, ...]:
    """Evaluate and record a custom reverse rule, given the adjoints of the outputs.

    Args:
      tape: Tape that records the equations.
      entry: Call of a function with a custom reverse rule (custom_vjp).
      adjoints: Adjoints of the outputs of this function.
    Returns:
      Contribution of the rule to the adjoint of each input in `entry.inputs`.
    """
    made = jax.make_jaxpr(entry.pullback)(adjoints)
    entry.arriving = tuple(tape.node(adjoint, False) for adjoint in adjoints)
    place = Place(
        entry.scope,
        (len(tape.entries),) * len(entry.scope),
        entry.source,
        is_rule=True,
        active=False,
    )
    return tuple(
        tape.value(o)
        for o in _walk(tape, made.jaxpr, made.consts, entry.arriving, place)
    )


def _walk(
    tape: Tape,
    jaxpr: Any,
    consts: Sequence[Any],
    inputs: Sequence[Operand],
    place: Place,
) -> list[Operand]:
    known: dict[Any, Operand] = dict(zip(jaxpr.invars, inputs, strict=True))
    for var, const in zip(jaxpr.constvars, consts, strict=True):
        known[var] = Literal(const) if np.ndim(const) == 0 else tape.node(const, False)

    def read(atom: Any) -> Operand:
        return Literal(atom.val) if hasattr(atom, "val") else known[atom]

    for equation in jaxpr.eqns:
        outputs = _step(tape, equation, [read(atom) for atom in equation.invars], place)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _step(
    tape: Tape, equation: Any, inputs: list[Operand], place: Place
) -> Sequence[Operand]:
    name, params = equation.primitive.name, equation.params
    if not place.in_library:
        place = dataclasses.replace(place, source=_source(equation) or place.source)
    if name in WRAPPERS and WRAPPERS[name] in params:
        inner = closed(params[WRAPPERS[name]])
        within = place.inside(
            tape,
            params.get("name", name),
            in_library=place.in_library or is_library(inner),
        )
        return _walk(tape, inner.jaxpr, inner.consts, inputs, within)
    if name == "cond":
        taken = int(np.clip(int(tape.value(inputs[0])), 0, len(params["branches"]) - 1))
        branch = closed(params["branches"][taken])
        within = place.inside(
            tape,
            f"branch {taken} of cond",
            in_library=place.in_library or is_library(branch),
        )
        return _walk(tape, branch.jaxpr, branch.consts, inputs[1:], within)
    if name.startswith(("custom_jvp_call", "custom_vjp_call")):
        return _own_rule(tape, equation, inputs, place)
    if name == "scan" and "scan" in tape.expand:
        return _scan_in_steps(tape, equation, inputs, place)
    return _row(tape, name, inputs, caller(equation), place, params)


def _row(
    tape: Tape,
    name: str,
    inputs: list[Operand],
    call: Callable[..., Any],
    place: Place,
    params: dict[str, Any] | None = None,
) -> list[int]:
    values = [tape.value(operand) for operand in inputs]
    places = [
        (i,)
        for i, operand in enumerate(inputs)
        if place.active and tape.is_active(operand)
    ]
    active, pullback = bool(places) and name != "stop_gradient", None
    # The forward values of jax.grad may differ from plain values by rounding (cumprod,
    # svd).
    try:
        results, pullback = (
            linearize(call, values, places) if active else (call(values), None)
        )
    except NO_RULE:
        results = call(values)  # The rule may never be needed.
    outputs = tuple(tape.node(result, active) for result in results)
    where = (place.source, place.scope, place.calls, active, place.is_rule)
    tape.entries.append(
        Equation(name, tuple(inputs), outputs, call, params or {}, *where, pullback)
    )
    return list(outputs)


def _own_rule(
    tape: Tape, equation: Any, inputs: list[Operand], place: Place
) -> list[int]:
    """Record a function with a custom rule, and return the nodes of its outputs.

    The equations of the function's value are recorded first, then those of the rule.
    """
    call = caller(equation)
    inner, name = closed(equation.params["call_jaxpr"]), name_of_rule(equation)
    place = dataclasses.replace(place, in_library=place.in_library or is_library(inner))
    start = len(tape.entries)
    outs = _walk(
        tape, inner.jaxpr, inner.consts, inputs, place.inside(tape, name, active=False)
    )
    # Create a new node if the function returns an input or a constant unchanged, or the
    # same value twice: each output has its own adjoint.
    outputs: list[int] = []
    for o in outs:
        if isinstance(o, Literal) or o in inputs or o in outputs:
            o = tape.node(tape.value(o), False)
        outputs.append(o)
    diff = {
        i: o
        for i, o in enumerate(inputs)
        if not isinstance(o, Literal) and tape.active[o] and place.active
    }
    if not diff:
        return outputs
    # A rule may index its residuals by a traced number, which a NumPy constant forbids.
    values = [
        jnp.asarray(value) if isinstance(value, np.ndarray) else value
        for value in map(tape.value, inputs)
    ]

    def of_active(*given: Any) -> tuple[Any, ...]:
        merged = list(values)
        for i, value in zip(diff, given, strict=True):
            merged[i] = value
        return call(merged)

    primals, taken = [values[i] for i in diff], tuple(diff.values())
    rule, value = place.inside(tape, f"rule of {name}"), tuple(tape.entries[start:])
    if equation.primitive.name.startswith("custom_vjp_call"):
        results, pullback = jax.vjp(of_active, *primals)
        reverse = OwnReverse(taken, tuple(outputs), pullback, place.source, rule.scope)
        tape.entries.append(reverse)
        tape.rules.append(OwnRule(name, taken, tuple(outputs), value, reverse=reverse))
    else:
        results, within = _forward_rule(tape, of_active, primals, taken, outputs, rule)
        tape.rules.append(OwnRule(name, taken, tuple(outputs), value, within))
    for output, result in zip(outputs, results, strict=True):
        tape.values[output], tape.active[output] = result, is_inexact(result)
    return outputs


def _forward_rule(
    tape: Tape,
    f: Callable[..., Any],
    primals: list[Any],
    inputs: tuple[int, ...],
    outputs: list[int],
    place: Place,
) -> tuple[Sequence[Any], tuple[int, ...]]:
    """Record the equations of a custom forward rule at zero tangents.

    The rule is linear in the tangents, so its pullback is the same for all tangents.

    Returns:
      (values of the outputs, nodes of the tangents).
    """
    point = tuple(primals)
    zeros = tuple(jnp.zeros_like(primal) for primal in point)
    made = jax.make_jaxpr(lambda point, tangents: jax.jvp(f, point, tangents))(
        point, zeros
    )
    tangents = tuple(tape.node(zero, True) for zero in zeros)
    tape.entries.append(Link(inputs, tangents))
    # Add the point again as a constant, because factors of the rule that depend on the
    # point are not differentiated.
    fixed = [tape.node(primal, False) for primal in point]
    tape.copies |= dict(zip(fixed, inputs, strict=True))
    given = [*fixed, *tangents]
    outs = _walk(
        tape,
        made.jaxpr,
        made.consts,
        given,
        dataclasses.replace(place, is_rule=True),
    )
    results, changes = outs[: len(outputs)], outs[len(outputs) :]
    pairs = [
        (change, output)
        for change, output in zip(changes, outputs, strict=True)
        if not isinstance(change, Literal) and tape.active[change]
    ]
    tape.entries.append(
        Link(tuple(change for change, _ in pairs), tuple(output for _, output in pairs))
    )
    return [tape.value(result) for result in results], tangents


def _scan_in_steps(
    tape: Tape, equation: Any, inputs: list[Operand], place: Place
) -> list[Operand]:
    params = equation.params
    num_consts, num_carry = scan_sizes(params)
    length = params["length"]
    consts, carry = (
        inputs[:num_consts],
        list(inputs[num_consts : num_consts + num_carry]),
    )
    xs, body = inputs[num_consts + num_carry :], closed(params["jaxpr"])
    stacked: list[list[Operand]] = []
    order = range(length)[::-1] if params["reverse"] else range(length)
    for step in order:
        inside = place.inside(
            tape, f"step {step}", in_library=place.in_library or is_library(body)
        )
        slices = [
            _row(
                tape, "index", [x], lambda v, t=step: (v[0][t],), inside, {"step": step}
            )[0]
            for x in xs
        ]
        outs = _walk(tape, body.jaxpr, body.consts, [*consts, *carry, *slices], inside)
        carry = outs[:num_carry]
        stacked.append(outs[num_carry:])
    stacked = stacked[::-1] if params["reverse"] else stacked
    if not length:
        empty = (v.aval for v in equation.outvars[num_carry:])
        return [
            *carry,
            *(tape.node(jnp.zeros(a.shape, a.dtype), False) for a in empty),
        ]
    ys = [
        _row(tape, "stack", list(y), lambda v: (jnp.stack(v),), place)[0]
        for y in zip(*stacked, strict=True)
    ]
    return [*carry, *ys]


def _source(equation: Any) -> str:
    return source_line(equation, OURS)
