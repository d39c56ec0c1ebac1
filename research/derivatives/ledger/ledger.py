"""Result of `explain`: a table of equations, the gradient, and methods to show them."""

from typing import Any

from research.derivatives.ledger import (
    graph,
    kinks,
    layout,
    nonfinite,
    page,
    paths,
    picture,
    table,
)
from research.derivatives.ledger.fields import LedgerFields, Recorded
from research.derivatives.ledger.rows import (
    make_row,
    name_nodes,
    name_of,
    shown_equations,
)
from research.derivatives.ledger.tape import Literal, Operand, Tape


class Ledger(LedgerFields):
    """The table that `explain` returns. It shows backpropagation through a function f.

    The adjoint of a value is the derivative of f with respect to this value.

    Attributes:
      title: Name of f.
      rows: Tuple with a `Row` for each equation that is shown, in the order of
        evaluation.
      value: f(*args), a number.
      grads: Gradient with respect to every argument. It has the structure of the
        arguments, with None for each leaf without a derivative, such as an integer. If
        `explain` was called with several arguments, `grads` is a tuple with a gradient
        for each argument. If f cannot be differentiated in reverse mode, `grads` is
        None, and `note` gives the reason.
      inputs: Dict from the name of each argument leaf to its value.
      output: Name of the output f(*args).
      note: Remark for the reader, or "".
      recorded: The record of the evaluation from which the table was made.
    """

    __slots__ = ()

    def paths(self, name: str) -> list[paths.GradientPath]:
        """Split the gradient into its contributions from all paths (the chain rule).

        A path leads from one input of the function to the output.

        Args:
          name: Name of an input, as in `inputs`.
        Returns:
          A list with a `GradientPath` for each path. The derivatives of the paths add
          up to the gradient with respect to the input.
        Raises:
          ValueError: There is no such input, the function has no gradient, or there are
            more than 10,000 paths.
        """
        tape, inputs, output, _, names = self.recorded
        if name not in inputs:
            raise ValueError(
                f"name must be an input of {self.title}: {', '.join(inputs)}; got "
                f"{name!r}."
            )
        if self.grads is None:
            raise ValueError(f"{self.title} has no gradient to split. {self.note}")
        return (
            []
            if isinstance(output, Literal)
            else paths.paths_from(tape, inputs[name], output, names)
        )

    def first_nonfinite(self) -> nonfinite.NonFinite | None:
        """Find the row of the table that creates the first NaN or infinity.

        The search begins with the value of f and continues with the gradient. The
        result is a `NonFinite`, which describes the row. If both the value and the
        gradient are finite, the result is None, even if a row has an infinity.
        """
        return nonfinite.first_nonfinite(
            self.recorded.tape,
            self.recorded.output,
            self.recorded.inputs,
            self.recorded.names,
        )

    def at_kinks(self) -> list[kinks.Kink]:
        """Return a `Kink` for each row that is at a tie, or that may contain a tie.

        A row is at a tie if its equation may have no derivative at its inputs, as for
        the max of two equal numbers, or abs at 0. Other ties are:

        - an argsort of equal entries;
        - a nonzero whole number that is converted from floating to int;
        - a complex number on a branch cut;
        - equal eigenvalues with different adjoints.

        At a tie, the gradient is a convention of JAX. Some operations are not searched
        for ties:

        - the steps of a scan, unless the argument `expand` of `explain` shows them;
        - a function inside another equation, such as that of `lax.reduce`;
        - a `while` loop.

        If one of the first two could be at a tie, the row has a `Kink` that says so. A
        `while` loop has no such `Kink`, because no adjoint passes through the loop.
        """
        return kinks.at_kinks(self.recorded.tape, self.recorded.names)

    def gradient(self, name: str) -> Any:
        """Return the gradient with respect to an input.

        The result is None if the input is not floating, or if f cannot be
        differentiated in reverse mode.

        Args:
          name: Name of the input, as in `inputs`.
        """
        return table.gradients(self).get(name) if self.grads is not None else None

    def drawing(self, constants: bool = True) -> tuple[graph.Graph, layout.Layout]:
        """Return the graph that `svg` draws, and the layout of the graph.

        Args:
          constants: If True, the graph includes the rows that have no adjoint.
        """
        whole = graph.make_graph(self)
        whole = whole if constants else graph.without_constants(whole)
        return whole, layout.arrange(whole)

    def text(self) -> str:
        """Return the value and the gradient as a sentence, then the rows as a table.

        If there is no gradient, the `note` follows the value. If there is a gradient, a
        remark may follow the first sentence:

        - If the value or the gradient is not finite, the remark says so.
        - Otherwise, if a row is at a tie, as max(a, b) is for a = b, the remark
          describes the first row at a tie and counts the others (see `at_kinks`).
        """
        return table.as_text(self)

    def svg(self) -> str:
        """Return a drawing of the function as a graph, as the text of an SVG file.

        Boxes show values and adjoints. Edges show local derivatives ("× ...") and
        contributions to adjoints ("+ ..."). In graphs of more than 60 rows, several
        rows share a box. The file needs no other files and no CSS: browsers, Inkscape,
        LaTeX (by Inkscape or rsvg-convert) and PowerPoint draw it with its colours.
        """
        return picture.as_svg(self)

    def html(self) -> str:
        """Return a page to explore the table, as the text of an HTML file.

        The page shows the graph and the table. Point at a row or a box, or move to it
        with Tab or the arrow keys. Then the page highlights the rows that contribute to
        the adjoint of this row or box. For each contribution, the page lists the row
        from which it comes, the derivative rule and the numbers. The rows of a
        function, of a branch or of a step of a loop can be folded. The page needs no
        other files and no network.

        Example:
          >>> from research.derivatives import explain
          >>> page = explain(lambda x: (3 * x**2 + 2) ** 3, 0.5).html()
          >>> page.startswith("<!doctype html>")
          True
        """
        return page.as_page(self)

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
    """Build the table of `explain` from a recorded function.

    Args:
      title: Name of the function.
      tape: Record of the evaluation of the function, with adjoints.
      leaves: Dict from the name of each argument leaf to its node. A node is the index
        of a value on the tape.
      output: Node of the value of the function, or a constant.
      grads: Gradient. None if the function cannot be differentiated in reverse mode.
      note: Remark for the reader, or "".
      level: "mathematics" or "primitives", which selects the rows.
    """
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
