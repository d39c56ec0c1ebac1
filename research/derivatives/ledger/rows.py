"""Rows of the table of `explain`: equations with values, derivatives and adjoints."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from research.derivatives.ledger import _backward as backward
from research.derivatives.ledger.tape import (
    Equation,
    Link,
    Literal,
    Operand,
    OwnReverse,
    Tape,
)
from research.derivatives.ledger.wording import (
    ELEMENTWISE,
    SHAPE_ONLY,
    as_array,
    as_written,
    constant,
    in_words,
)

MATHEMATICS, PRIMITIVES = LEVELS = ("mathematics", "primitives")


class Row(NamedTuple):
    """One equation of the function that `explain` shows, with values and derivatives.

    The adjoint of a value is the derivative of the function with respect to this value.
    The forward pass computes the values, and the backward pass computes the adjoints.

    Attributes:
      name: Name of the value, such as "v3", or "v3, v4" for two values. Rows of a
        custom derivative rule have names such as "r3".
      primitive: Name of the JAX primitive.
      inputs: Names of the inputs. A constant is shown by its value.
      expression: Right side of the equation in mathematical notation.
      value: Value of the equation, or a tuple if there are several values.
      local: Tuple with the derivative of the value with respect to each input. If there
        are several values, or if the backward pass does not reach the row, all entries
        are None. Otherwise an entry is a number or an array in two cases: the value is
        a single number, or the equation is elementwise and the input has the shape of
        the value. In any other case the entry is None, and the adjoint is passed on by
        a vector-Jacobian product.
      adjoint: Adjoint of the value, or a tuple if there are several values. It is None
        if the backward pass does not reach the row. Examples: the function does not
        depend on the value, the value does not depend on a floating argument, or the
        value is computed inside a function with a custom derivative rule.
      contributions: Tuple with the contribution of this row to the adjoint of each
        input. An entry is None if there is no contribution.
      rule: Derivative rule in words.
      source: Line of the user's code, such as "file.py:12".
      scope: Names of the enclosing functions, derivative rules, branches and steps of
        loops, outermost first.
      is_rule: Whether the row belongs to a custom derivative rule (custom_jvp,
        custom_vjp).
    """

    name: str
    primitive: str
    inputs: tuple[str, ...]
    expression: str
    value: Any
    local: tuple[Any, ...]
    adjoint: Any
    contributions: tuple[Any, ...]
    rule: str
    source: str
    scope: tuple[str, ...]
    is_rule: bool


def shown_equations(tape: Tape, level: str) -> list[Equation]:
    """List the equations of a tape that a level of detail shows.

    The tape is the record of the evaluation of a function. The level "primitives" shows
    all equations. The level "mathematics" leaves out two kinds of equations: equations
    that only change a shape or a dtype, and equations of a custom rule for forward mode
    (custom_jvp) that the backward pass does not reach. An equation that rounds or
    reorders numbers does not count as a change of shape or dtype alone. The same holds
    for an equation that copies numbers, if a sum or a product of arrays reads the
    copies.
    """
    added = _added(tape)
    backward_only = {
        id(entry)
        for rule in tape.rules
        if rule.reverse
        for entry in rule.reverse.entries
    }
    return [
        equation
        for equation in tape.equations()
        if level == PRIMITIVES
        or (
            not keeps_numbers(tape, equation, added)
            and not _is_of_constants(equation)
            and (
                not equation.is_rule
                or equation.contributions is not None
                or id(equation) in backward_only
            )
        )
    ]


def _is_of_constants(equation: Equation) -> bool:
    """Return whether an equation changes only the shape or the dtype of constants."""
    constants = all(isinstance(operand, Literal) for operand in equation.inputs)
    return equation.primitive in SHAPE_ONLY and constants


def _added(tape: Tape) -> set[Operand]:
    """Return the nodes whose entries an equation combines, for example by a sum.

    An equation that computes such a node by copying entries changes the sum.
    """
    nodes: set[Operand] = set()
    for equation in tape.equations()[::-1]:
        combines = equation.primitive not in SHAPE_ONLY | ELEMENTWISE
        passes = equation.primitive in SHAPE_ONLY and nodes.intersection(
            equation.outputs
        )
        if combines or passes:
            nodes |= {node for node in equation.inputs if isinstance(node, int)}
    return nodes


def keeps_numbers(tape: Tape, equation: Equation, added: set[Operand]) -> bool:
    """Return whether an equation only changes a shape or a dtype, and no number.

    A conversion keeps every number if the new dtype holds all numbers of the old one.
    If no adjoint passes through the equation, it suffices that the new dtype holds the
    numbers that occur. `added` has the nodes whose entries an equation combines, for
    example by a sum. A broadcast to such a node does not count as a change of shape
    alone, because it changes the sum.
    """
    if equation.primitive not in SHAPE_ONLY:
        return False
    old, new = tape.value(equation.inputs[0]), tape.values[equation.outputs[0]]
    if equation.primitive == "broadcast_in_dim":
        matters = equation.is_active or _is_of_constants(equation)
        copies = matters and np.size(new) > np.size(old)
        return not (copies and equation.outputs[0] in added)
    if equation.primitive not in ("convert_element_type", "reduce_precision"):
        return True
    if not equation.is_active:
        return np.array_equal(as_array(old), as_array(new), equal_nan=True)
    if equation.primitive == "convert_element_type":
        return np.can_cast(jnp.result_type(old), jnp.result_type(new))
    kept, asked = jnp.finfo(jnp.result_type(old)), equation.params
    return kept.nexp <= asked["exponent_bits"] and kept.nmant <= asked["mantissa_bits"]


def name_nodes(
    tape: Tape, leaves: dict[str, int], shown: Sequence[Equation]
) -> dict[int, str]:
    """Return a dict from each node (index of a value on the tape) to its name.

    `leaves` is a dict from the name of each input to its node, and `shown` contains the
    equations that are rows of the table. If an equation that only changes a shape or a
    dtype has no row, its output gets the name of its input. If any other equation has
    no row, the name of its output is a text with the value, or with the shape if the
    value has more than three entries.
    """
    added = _added(tape)
    names = {node: name for name, node in leaves.items()}
    names |= {node: rule.name for rule in tape.rules for node in rule.outputs}
    visible, counts = {id(equation) for equation in shown}, {"v": 0, "r": 0}
    for entry in tape.entries:
        if isinstance(entry, Link):
            for taken, given in zip(entry.inputs, entry.outputs, strict=True):
                names.setdefault(given, f"d{names.get(taken, '')}")
        elif isinstance(entry, OwnReverse):
            names |= {
                given: f"∂{names.get(node, '')}"
                for given, node in zip(entry.arriving, entry.outputs, strict=False)
            }
        else:
            inputs = entry.inputs if keeps_numbers(tape, entry, added) else ()
            _name_outputs(tape, entry, id(entry) in visible, inputs, names, counts)
    return names


def _name_outputs(
    tape: Tape,
    equation: Equation,
    is_shown: bool,
    kept: Sequence[Operand],
    names: dict[int, str],
    counts: dict[str, int],
) -> None:
    """Name the outputs of an equation.

    `kept` contains the inputs whose numbers the outputs repeat. It has several inputs
    for an equation such as `optimization_barrier`, and none if the numbers are new.
    """
    for copy in equation.inputs:
        if isinstance(copy, int) and tape.copies.get(copy) in names:
            names.setdefault(copy, names[tape.copies[copy]])
    letter = "r" if equation.is_rule else "v"
    for place, node in enumerate(equation.outputs):
        if is_shown:
            counts[letter] += 1
            names[node] = f"{letter}{counts[letter]}"
        elif place < len(kept):
            names[node] = name_of(tape, kept[place], names)
        else:
            names[node] = constant(tape.values[node])


def name_of(tape: Tape, operand: Operand, names: dict[int, str]) -> str:
    """Return the name of an input of an equation.

    An equation is one operation of the function that the tape records. `names` is a
    dict from the index of a value on the tape to the name of the value. If the input is
    a constant or has no name, the value of the input is returned as text.
    """
    if not isinstance(operand, Literal) and operand in names:
        return names[operand]
    return constant(tape.value(operand))


def make_row(tape: Tape, equation: Equation, names: dict[int, str]) -> Row:
    """Return the row of an equation in the table of `explain`.

    The row includes the local derivatives, as the field `local` of `Row` describes.
    `names` is a dict from each node to its name. A node is the index of a value on the
    tape, the record of the evaluation of the function.
    """
    values = [tape.values[o] for o in equation.outputs]
    adjoints = [tape.adjoints[o] for o in equation.outputs]
    inputs = tuple(name_of(tape, operand, names) for operand in equation.inputs)
    several = len(values) != 1
    return Row(
        name=", ".join(names[o] for o in equation.outputs),
        primitive=equation.primitive,
        inputs=inputs,
        expression=as_written(
            equation.primitive,
            inputs,
            equation.params,
            [np.ndim(tape.value(operand)) for operand in equation.inputs],
        ),
        value=tuple(values) if several else values[0],
        local=_locals(tape, equation),
        adjoint=_several(adjoints) if several else adjoints[0],
        contributions=equation.contributions or (None,) * len(equation.inputs),
        rule=in_words(equation.primitive),
        source=equation.source,
        scope=equation.scope,
        is_rule=equation.is_rule,
    )


def _several(adjoints: Sequence[Any]) -> tuple[Any, ...] | None:
    return tuple(adjoints) if any(adjoint is not None for adjoint in adjoints) else None


def _locals(tape: Tape, equation: Equation) -> tuple[Any, ...]:
    """Return the local derivative of an equation with respect to each input, or None.

    The pullback of an adjoint of ones is the local derivative if the value is a single
    number, or if the equation is elementwise. Otherwise the result for the input is
    None.
    """
    nothing = (None,) * len(equation.inputs)
    if len(equation.outputs) != 1 or equation.contributions is None:
        return nothing
    out = tape.values[equation.outputs[0]]
    shapes = [np.shape(tape.value(operand)) for operand in equation.inputs]
    single = np.size(out) == 1
    plain = [
        single or (equation.primitive in ELEMENTWISE and shape == np.shape(out))
        for shape in shapes
    ]
    if not any(plain):
        return nothing
    shares = backward.contributions(tape, equation, [jnp.ones_like(out)]) or nothing
    return tuple(
        share if keep else None for share, keep in zip(shares, plain, strict=True)
    )
