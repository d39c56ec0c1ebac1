"""The reverse rule of a single equation, taken from JAX."""

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
    """Evaluate an equation, and return its pullback that also adds existing adjoints.

    Args:
      call: values of the inputs -> values of the outputs.
      values: Values of the inputs.
      places: Positions of the variables.
    Returns:
      The results, and (adjoints of the outputs, existing adjoints of the
      variables) -> the variables' new adjoints. A rule may give several terms. Each is
      added to the existing adjoint, in the order of jax.grad.
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
    """List the positions of active inputs, one by one."""
    return [
        (i,) for i, operand in enumerate(equation.inputs) if tape.is_active(operand)
    ]


def shared_places(tape: Tape, equation: Equation) -> dict[int, tuple[int, ...]]:
    """Map each active node to all its positions among the inputs."""
    positions: dict[int, tuple[int, ...]] = {}
    for i, operand in enumerate(equation.inputs):
        if isinstance(operand, int) and tape.active[operand]:
            positions[operand] = (*positions.get(operand, ()), i)
    return positions


def pull(
    tape: Tape, equation: Equation, adjoints: Sequence[Any], before: Sequence[Any]
) -> list[Any]:
    """Compute new adjoints of an equation's active inputs, each taken by itself.

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
            f"{equation.primitive} at {equation.source or 'an unknown line'} has no "
            f"reverse rule ({str(error).splitlines()[0]})"
        ) from error


def pull_shared(
    tape: Tape, equation: Equation, adjoints: Sequence[Any], before: dict[int, Any]
) -> list[Any]:
    """Compute new adjoints with one variable for each node, even if it is read twice.

    `before` maps nodes to their existing adjoints.
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
    """Convert an adjoint for JAX: zeros if there is none, float0 for integers."""
    if not is_inexact(out):
        return np.zeros(np.shape(out), jax.dtypes.float0)
    return jnp.zeros_like(out) if adjoint is None else adjoint
