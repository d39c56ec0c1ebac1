"""The chain rule path by path: every way from an input to the output, and what it adds to the gradient."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp

from research.derivatives.ledger import _backward as backward
from research.derivatives.ledger.reverse import cotangent
from research.derivatives.ledger.tape import Equation, Link, Literal, OwnReverse, Tape

MOST_PATHS = 10_000


class Path(NamedTuple):
    """One way from an input to the output.

    Attributes:
      nodes: Names, from the input to the output.
      derivative: What this way adds to the gradient, of the input's shape.
    """

    nodes: tuple[str, ...]
    derivative: Any


def paths_from(
    tape: Tape, start: int, output: int, names: dict[int, str]
) -> list[Path]:
    """The chain rule as a sum over paths; each one's derivative is the adjoint 1 pulled back along it alone.

    Raises:
      ValueError: There are more than 10,000 paths.
    """
    ways = _count(tape, start)
    if ways.get(output, 0) > MOST_PATHS:
        raise ValueError(
            f"there are {ways[output]:,} paths from {names[start]}, more than {MOST_PATHS:,}; explain a smaller function."
        )
    makers = _makers(tape)
    found: list[Path] = []

    def back(node: int, adjoint: Any, way: tuple[int, ...]) -> None:
        if node == start:
            found.append(Path(tuple(names.get(n, "") for n in way), adjoint))
        elif node in ways:
            for earlier, share in makers[node](adjoint):
                back(
                    earlier,
                    share,
                    way if names.get(earlier) == names.get(way[0]) else (earlier, *way),
                )

    back(output, jnp.ones_like(tape.values[output]), (output,))
    return found


def _count(tape: Tape, start: int) -> dict[int, int]:
    """In how many ways each node is reached from the start; those that are not reached are left out."""
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
    """node -> (adjoint -> each earlier node with its share), a node that is read twice given twice."""
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
            found = backward.contributions(tape, entry, adjoints) or (None,) * len(
                entry.inputs
            )
        else:
            outs = [tape.values[o] for o in entry.outputs]
            found = entry.pullback(tuple(map(cotangent, outs, adjoints)))
        for operand, share in zip(entry.inputs, found, strict=True):
            if share is not None and not isinstance(operand, Literal):
                yield operand, share

    return shares
