"""Backward pass over a tape, which is the record of an evaluation.

The pass computes the contribution of each equation to the adjoint of each of its
inputs. The adjoint of a value is the sum of the contributions to it.
"""

from collections.abc import Sequence
from typing import Any

import jax

from research.derivatives.ledger._walking import walk_reverse_rule
from research.derivatives.ledger.reverse import (
    active_places,
    cotangent,
    pull,
    pull_shared,
    shared_places,
)
from research.derivatives.ledger.tape import Equation, Link, OwnReverse, Tape


def pull_back(tape: Tape, output: int, adjoint: Any) -> None:
    """Run the backward pass over a recorded function, and store adjoints on the tape.

    The adjoint of a value is the derivative of the function with respect to this value.
    An equation contributes to the adjoint of each of its inputs.

    Args:
      tape: Record of the evaluation of the function.
      output: Index of the value of the function on the tape.
      adjoint: Adjoint of this value, for example 1.
    Raises:
      UnsupportedPrimitiveError: An equation between the inputs and the output has no
        rule for reverse mode.
    """
    tape.adjoints[output] = adjoint
    for entry in tape.entries[::-1]:
        if isinstance(entry, Equation):
            _pass_on(tape, entry)
        elif isinstance(entry, Link):
            for given, taken in zip(entry.outputs, entry.inputs, strict=True):
                if tape.adjoints[given] is not None:
                    _add(tape, taken, tape.adjoints[given])
        elif any(tape.adjoints[o] is not None for o in entry.outputs):
            entry.contributions = _own_shares(tape, entry)
            for node, share in zip(entry.inputs, entry.contributions, strict=True):
                _add(tape, node, share)


def contributions(
    tape: Tape, equation: Equation, adjoints: Sequence[Any]
) -> tuple[Any, ...] | None:
    """Return the contributions of an equation to the adjoints of its inputs.

    The adjoint of a value is the derivative of the function with respect to this value.
    Each equation that reads a value adds a contribution to the adjoint of this value.

    Args:
      tape: Record of the evaluation of the function.
      equation: Equation of the tape.
      adjoints: Adjoint of each output of the equation. None for an output without an
        adjoint.
    Returns:
      A tuple with the contribution to each input. An entry is None if the input does
      not depend on a differentiated input of the function. If the backward pass does
      not reach the equation, the result is None instead of a tuple.
    Raises:
      UnsupportedPrimitiveError: The equation has no rule for reverse mode.
    """
    places = active_places(tape, equation)
    if (
        not equation.is_active
        or not places
        or all(adjoint is None for adjoint in adjoints)
    ):
        return None
    shares = pull(tape, equation, adjoints, [None] * len(places))
    by_input: list[Any] = [None] * len(equation.inputs)
    for (place,), share in zip(places, shares, strict=True):
        by_input[place] = share
    return tuple(by_input)


def _pass_on(tape: Tape, equation: Equation) -> None:
    adjoints = [tape.adjoints[o] for o in equation.outputs]
    equation.contributions = contributions(tape, equation, adjoints)
    if equation.contributions is None:
        return
    before = {node: tape.adjoints[node] for node in shared_places(tape, equation)}
    if len(before) < len(active_places(tape, equation)):
        sums = pull_shared(tape, equation, adjoints, before)
    elif any(adjoint is not None for adjoint in before.values()):
        sums = pull(tape, equation, adjoints, list(before.values()))
    else:
        sums = [share for share in equation.contributions if share is not None]
    for node, total in zip(before, sums, strict=True):
        tape.adjoints[node] = total


def _own_shares(tape: Tape, entry: OwnReverse) -> tuple[Any, ...]:
    """Run a custom reverse rule, and return its contributions.

    The equations of the rule are recorded at the end of the tape.
    """
    start = len(tape.entries)
    adjoints = tuple(cotangent(tape.values[o], tape.adjoints[o]) for o in entry.outputs)
    shares = walk_reverse_rule(tape, entry, adjoints)
    entry.entries = tape.entries[start:]
    return shares


def _add(tape: Tape, node: int, share: Any) -> None:
    before = tape.adjoints[node]
    if share.dtype != jax.dtypes.float0:
        tape.adjoints[node] = share if before is None else before + share
