"""Chain rule as a sum over the paths from an input to the output."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp

from research.derivatives.ledger import _backward as backward
from research.derivatives.ledger.reverse import cotangent
from research.derivatives.ledger.tape import Equation, Link, Literal, OwnReverse, Tape

MOST_PATHS = 10_000


class GradientPath(NamedTuple):
    """A path of values from an input of a function to its output.

    By the chain rule, the gradient with respect to the input is a sum over all such
    paths.

    Attributes:
      nodes: Names of the values on the path, from the input to the output.
      derivative: The path's term of the sum, in the shape of the input.
    """

    nodes: tuple[str, ...]
    derivative: Any


def paths_from(
    tape: Tape, start: int, output: int, names: dict[int, str]
) -> list[GradientPath]:
    """List all paths from an input to the output, with their contributions.

    The contribution of a path is the adjoint of the output, multiplied by the local
    derivatives along the path.

    Args:
      tape: Record of the evaluation of the function.
      start: Node of the input. A node is the index of a value on the tape.
      output: Node of the output.
      names: Dict from a node to its name.
    Returns:
      A list with a `GradientPath` for each path.
    Raises:
      ValueError: There are more than 10,000 paths.
    """
    ways = _count(tape, start)
    if ways.get(output, 0) > MOST_PATHS:
        raise ValueError(
            f"{names[start]} has {ways[output]:,} paths to the output; at most "
            f"{MOST_PATHS:,} can be listed. Explain a smaller function."
        )
    makers = _makers(tape)
    result: list[GradientPath] = []
    # A stack in place of a recursion, which Python limits to a thousand equations.
    stack: list[tuple[int, Any, tuple[int, ...]]] = [
        (output, jnp.ones_like(tape.values[output]), (output,))
    ]
    while stack:
        node, adjoint, way = stack.pop()
        if node == start:
            result.append(GradientPath(tuple(names.get(n, "") for n in way), adjoint))
        elif node in ways:
            steps = [
                (
                    earlier,
                    share,
                    way if names.get(earlier) == names.get(way[0]) else (earlier, *way),
                )
                for earlier, share in makers[node](adjoint)
            ]
            stack.extend(reversed(steps))
    return result


def _count(tape: Tape, start: int) -> dict[int, int]:
    """Return the number of paths from the start to each node that the start affects."""
    ways = {start: 1}
    for entry in tape.entries:
        if isinstance(entry, Link):
            ways |= {
                given: ways[taken]
                for taken, given in zip(entry.inputs, entry.outputs, strict=True)
                if taken in ways
            }
        elif isinstance(entry, OwnReverse) or entry.is_active:
            operands = (
                operand for operand in entry.inputs if not isinstance(operand, Literal)
            )
            number = sum(
                ways.get(operand, 0) for operand in operands if tape.is_active(operand)
            )
            ways |= dict.fromkeys(entry.outputs, number) if number else {}
    return ways


def _makers(tape: Tape) -> dict[int, Callable[[Any], Iterator[tuple[int, Any]]]]:
    """Return a dict from a node to a function that pulls its adjoint back by one step.

    The function yields pairs (earlier node, contribution). If the equation reads an
    earlier node twice, the node occurs in two pairs.
    """
    makers = {}
    for entry in tape.entries:
        if isinstance(entry, Link):
            for taken, given in zip(entry.inputs, entry.outputs, strict=True):
                makers[given] = lambda adjoint, taken=taken: iter([(taken, adjoint)])
        elif isinstance(entry, OwnReverse) or entry.is_active:
            for place, node in enumerate(entry.outputs):
                makers[node] = _shares(tape, entry, place)
    return makers


def _shares(
    tape: Tape, entry: Equation | OwnReverse, place: int
) -> Callable[[Any], Iterator[tuple[int, Any]]]:
    def shares(adjoint: Any) -> Iterator[tuple[int, Any]]:
        adjoints = [adjoint if i == place else None for i in range(len(entry.outputs))]
        if isinstance(entry, Equation):
            contributions = backward.contributions(tape, entry, adjoints)
            by_input = contributions or (None,) * len(entry.inputs)
        else:
            outs = [tape.values[o] for o in entry.outputs]
            by_input = entry.pullback(tuple(map(cotangent, outs, adjoints)))
        for operand, share in zip(entry.inputs, by_input, strict=True):
            if share is not None and not isinstance(operand, Literal):
                yield operand, share

    return shares
