"""Reverse-mode rule of a single equation, taken from JAX."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.derivatives.errors import UnsupportedPrimitiveError
from research.derivatives.ledger.tape import Equation, Tape, is_inexact

# For each variable, the positions of the equation's inputs where it occurs.
Places = Sequence[tuple[int, ...]]
# Errors that JAX raises for a missing rule.
NO_RULE = (NotImplementedError, ValueError, TypeError)


def linearize(
    call: Callable[..., Any], values: Sequence[Any], places: Places
) -> tuple[Any, Callable[..., Any]]:
    """Evaluate an equation, and return a pullback that adds to existing adjoints.

    The equation is one operation of a traced function. The adjoint of a value is the
    derivative of the whole function with respect to this value.

    Args:
      call: Function from the values of the inputs to the values of the outputs.
      values: Values of the inputs.
      places: For each variable with respect to which the equation is differentiated,
        the positions of the variable among the inputs. A variable can be several inputs
        at once, as in a * a.
    Returns:
      (results, pullback). The pullback is a function of one argument, a pair: the tuple
      of the adjoints of the outputs, and the tuple of the existing adjoints of the
      variables. It returns the new adjoints of the variables. If a derivative rule
      gives several terms, they are added to the existing adjoint in the same order as
      in jax.grad.
    """

    def beside_identity(*given: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        merged = list(values)
        for where, value in zip(places, given, strict=True):
            for place in where:
                merged[place] = value
        return tuple(call(merged)), given

    (results, _), pullback = jax.vjp(
        beside_identity, *[values[where[0]] for where in places]
    )
    return results, pullback


def active_places(tape: Tape, equation: Equation) -> list[tuple[int, ...]]:
    """Return a tuple (position,) for each active input of an equation.

    The position is the index of the input among all inputs of the equation. An input is
    active if it depends on a differentiated input of the function.
    """
    return [
        (i,) for i, operand in enumerate(equation.inputs) if tape.is_active(operand)
    ]


def shared_places(tape: Tape, equation: Equation) -> dict[int, tuple[int, ...]]:
    """Return a dict from each active node to its positions among the equation's inputs.

    The tape is the record of an evaluation of the function, and a node is the index of
    a value on the tape. A node is active if its value depends on a differentiated input
    of the function. A node has several positions if the equation reads it several
    times, as in a * a.
    """
    positions: dict[int, tuple[int, ...]] = {}
    for i, operand in enumerate(equation.inputs):
        if isinstance(operand, int) and tape.active[operand]:
            positions[operand] = (*positions.get(operand, ()), i)
    return positions


def pull(
    tape: Tape, equation: Equation, adjoints: Sequence[Any], before: Sequence[Any]
) -> list[Any]:
    """Compute the new adjoints of the active inputs of an equation.

    An input is active if it depends on a differentiated input of the function. A new
    adjoint is the existing adjoint plus the contribution of the equation through this
    input. If the equation reads one value twice, as in a * a, the result has a new
    adjoint for each of the two inputs. Each is the existing adjoint plus the
    contribution through this input alone.

    Args:
      tape: Record of the evaluation of the function.
      equation: Equation of the tape.
      adjoints: Adjoint of each output. None for an output without an adjoint.
      before: Existing adjoint of each active input. None for an input without one.
    Returns:
      The new adjoints, in the order of the active inputs.
    Raises:
      UnsupportedPrimitiveError: The equation has no rule for reverse mode.
    """
    try:
        if equation.pullback is None:
            values = [tape.value(operand) for operand in equation.inputs]
            equation.pullback = linearize(
                equation.call, values, active_places(tape, equation)
            )[1]
        nodes = [equation.inputs[place] for (place,) in active_places(tape, equation)]
        return _pulled(
            tape, equation, equation.pullback, adjoints, zip(nodes, before, strict=True)
        )
    except NO_RULE as error:
        raise UnsupportedPrimitiveError(
            f"{equation.primitive} at {equation.source or 'an unknown line'} has no "
            f"reverse rule ({str(error).splitlines()[0]}). Use jax.jvp, or give the "
            "function a custom derivative rule"
        ) from error


def pull_shared(
    tape: Tape, equation: Equation, adjoints: Sequence[Any], before: dict[int, Any]
) -> list[Any]:
    """Compute the new adjoints of the active nodes that an equation reads.

    A node is the index of a value on the tape. A node is active if its value depends on
    a differentiated input of the function. The new adjoint of a node is the existing
    one plus the contribution of the equation. If a node occurs twice among the inputs
    of the equation, the node counts as one variable.

    Args:
      tape: Record of the evaluation of the function.
      equation: Equation of the tape.
      adjoints: Adjoint of each output of the equation. None for an output without an
        adjoint.
      before: Dict from each active node to its existing adjoint, or to None if there is
        none.
    Returns:
      The new adjoints, in the order of `before`.
    """
    values = [tape.value(operand) for operand in equation.inputs]
    pullback = linearize(
        equation.call, values, list(shared_places(tape, equation).values())
    )[1]
    return _pulled(tape, equation, pullback, adjoints, before.items())


def _pulled(
    tape: Tape,
    equation: Equation,
    pullback: Callable[..., Any],
    adjoints: Sequence[Any],
    before: Iterable[tuple[Any, Any]],
) -> list[Any]:
    there = tuple(cotangent(tape.value(node), adjoint) for node, adjoint in before)
    arriving = tuple(
        cotangent(tape.values[o], a)
        for o, a in zip(equation.outputs, adjoints, strict=True)
    )
    return list(pullback((arriving, there)))


def cotangent(out: Any, adjoint: Any) -> Any:
    """Return the adjoint of the value `out` in the form that JAX requires.

    If `out` is neither floating nor complex, the result is zero with the dtype float0.
    For any other `out`, the adjoint None becomes zero, and every other adjoint is
    returned unchanged.
    """
    if not is_inexact(out):
        return np.zeros(np.shape(out), jax.dtypes.float0)
    return jnp.zeros_like(out) if adjoint is None else adjoint
