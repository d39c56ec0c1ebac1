"""The reverse rule of a single equation, as JAX has it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.derivatives.errors import UnsupportedPrimitiveError
from research.derivatives.ledger.tape import Equation, Tape, is_inexact

Places = Sequence[
    tuple[int, ...]
]  # Of each variable, the inputs of the equation that it stands at.
NO_RULE = (
    NotImplementedError,
    ValueError,
    TypeError,
)  # What JAX raises, said in one way or another.


def linearize(
    call: Callable, values: Sequence[Any], places: Places
) -> tuple[Any, Callable]:
    """Evaluates an equation, and gives its pullback beside the identity.

    Args:
      call: values of the inputs -> values of the outputs.
      values: Of its inputs.
      places: Which of them are variables.
    Returns:
      The results, and (adjoints of the outputs, adjoints that the variables have already) -> the variables' new adjoints.
      A rule may give several terms; jax.grad adds each to what is there, and so does this.
    """

    def beside_identity(*given: Any) -> tuple[tuple, tuple]:
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
    """Each active input of an equation by itself."""
    return [
        (i,) for i, operand in enumerate(equation.inputs) if tape.is_active(operand)
    ]


def shared_places(tape: Tape, equation: Equation) -> dict[int, tuple[int, ...]]:
    """Each active node, with all inputs that it stands at."""
    found: dict[int, tuple[int, ...]] = {}
    for i, operand in enumerate(equation.inputs):
        if isinstance(operand, int) and tape.active[operand]:
            found[operand] = (*found.get(operand, ()), i)
    return found


def pull(
    tape: Tape, equation: Equation, adjoints: Sequence[Any], before: Sequence[Any]
) -> list[Any]:
    """New adjoints of an equation's active inputs, each taken by itself, of its outputs' and those they have.

    Raises:
      UnsupportedPrimitiveError: The equation has no reverse rule.
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
            f"{equation.primitive} at {equation.source or 'an unknown line'} has no reverse rule "
            f"({str(error).splitlines()[0]})"
        ) from error


def pull_shared(
    tape: Tape, equation: Equation, adjoints: Sequence[Any], before: dict[int, Any]
) -> list[Any]:
    """The same with a variable for each active node, which may stand at several inputs; before: node -> adjoint."""
    values = [tape.value(operand) for operand in equation.inputs]
    pullback = linearize(
        equation.call, values, list(shared_places(tape, equation).values())
    )[1]
    return _pulled(tape, equation, pullback, adjoints, before.items())


def _pulled(
    tape: Tape,
    equation: Equation,
    pullback: Callable,
    adjoints: Sequence[Any],
    before: Iterable,
) -> list[Any]:
    there = tuple(cotangent(tape.value(node), adjoint) for node, adjoint in before)
    arriving = tuple(
        cotangent(tape.values[o], a)
        for o, a in zip(equation.outputs, adjoints, strict=True)
    )
    return list(pullback((arriving, there)))


def cotangent(out: Any, adjoint: Any) -> Any:
    """An adjoint as JAX wants it: zeros where none arrives, and its own kind of nothing for whole numbers."""
    if not is_inexact(out):
        return np.zeros(np.shape(out), jax.dtypes.float0)
    return jnp.zeros_like(out) if adjoint is None else adjoint
