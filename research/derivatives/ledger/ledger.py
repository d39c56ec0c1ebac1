"""What `explain` gives: rows, the gradient they add up to, and what one may ask of them."""

from typing import Any, NamedTuple

from research.derivatives.ledger import (
    graph,
    kinks,
    layout,
    nonfinite,
    paths,
    picture,
    table,
)
from research.derivatives.ledger.rows import (
    Row,
    make_row,
    name_nodes,
    name_of,
    shown_equations,
)
from research.derivatives.ledger.tape import Equation, Literal, Operand, Tape


class Recorded(NamedTuple):
    """What a ledger was made from.

    Attributes:
      tape: Values, equations and adjoints.
      inputs: Name -> node of each leaf of the arguments.
      output: Where the function's value is.
      shown: The equation of each row.
      names: Node -> name.
    """

    tape: Tape
    inputs: dict[str, int]
    output: Operand
    shown: list[Equation]
    names: dict[int, str]


class Ledger(NamedTuple):
    """Backpropagation as a table.

    Attributes:
      title: Of the function.
      rows: In the order of evaluation.
      value: f(*args), a number.
      grads: The gradient by every argument, in the arguments' own structure (a tuple, unless there is one); None where
        the function cannot be differentiated in reverse, and `note` says why.
      inputs: Name -> value of each leaf of the arguments.
      output: Name of the last value.
      note: What a reader should know; "" where nothing.
      recorded: What it was made from.
    """

    title: str
    rows: tuple[Row, ...]
    value: Any
    grads: Any
    inputs: dict[str, Any]
    output: str
    note: str
    recorded: Recorded

    def paths(self, name: str) -> list[paths.Path]:
        """The chain rule as a sum over paths: every way from an input to the output, with what it adds to the gradient.

        Args:
          name: Of an input, as in `inputs`.
        Raises:
          ValueError: There is no such input, the function has no gradient, or there are more than 10,000 paths.
        """
        tape, inputs, output, _, names = self.recorded
        if name not in inputs:
            raise ValueError(
                f"there is no input {name!r}; choose from {', '.join(inputs)}."
            )
        if self.grads is None:
            raise ValueError(f"there is no gradient to split. {self.note}")
        return (
            []
            if isinstance(output, Literal)
            else paths.paths_from(tape, inputs[name], output, names)
        )

    def first_nonfinite(self) -> nonfinite.NonFinite | None:
        """The row where the NaN or infinity in the value, or else in the gradient, is born; None where both are finite."""
        return nonfinite.first_nonfinite(
            self.recorded.tape,
            self.recorded.output,
            self.recorded.inputs,
            self.recorded.names,
        )

    def at_kinks(self) -> list[kinks.Kink]:
        """Rows that sit on a tie (equal arguments of a max, 0 in an abs): there the gradient is JAX's choice.

        Of the rows that there are: a scan or a while is one, and its steps are not looked at unless `expand` names it.
        """
        return kinks.at_kinks(self.recorded.tape, self.recorded.names)

    def gradient(self, name: str) -> Any:
        """The gradient by an input, by its name in `inputs`; None where that is a whole number or there is none."""
        return table.gradients(self).get(name) if self.grads is not None else None

    def drawing(self, constants: bool = True) -> tuple[graph.Graph, layout.Layout]:
        """What `svg` draws, for another hand: the graph, and where its boxes and edges stand.

        Args:
          constants: Whether rows that no adjoint reaches are in it.
        """
        whole = graph.make_graph(self)
        whole = whole if constants else graph.without_constants(whole)
        return whole, layout.arrange(whole)

    def text(self) -> str:
        """The answer in a sentence, then the rows as a table."""
        return table.as_text(self)

    def svg(self) -> str:
        """The function as a graph: boxes with value and adjoint, edges with "× local derivative" and "+ contribution".

        One file with nothing from outside, for light pages and dark ones; more than 60 rows are folded by scope.
        """
        return picture.as_svg(self)

    def _repr_html_(self) -> str:
        return picture.as_html(self)

    def __repr__(self) -> str:
        return self.text()


def make_ledger(
    title: str,
    tape: Tape,
    leaves: dict[str, int],
    output: Operand,
    grads: Any,
    note: str,
    level: str,
) -> Ledger:
    """Names the nodes and makes the rows that a level shows."""
    shown = shown_equations(tape, level)
    names = name_nodes(tape, leaves, shown)
    return Ledger(
        title=title,
        rows=tuple(make_row(tape, equation, names) for equation in shown),
        value=tape.value(output),
        grads=grads,
        inputs={name: tape.values[node] for name, node in leaves.items()},
        output=name_of(tape, output, names),
        note=note,
        recorded=Recorded(tape, leaves, output, shown, names),
    )
