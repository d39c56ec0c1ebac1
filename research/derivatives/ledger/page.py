"""Page to explore the table of `explain` in a browser, offline."""

import html
import itertools
import json
import string
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research.derivatives.ledger.fields import LedgerFields
from research.derivatives.ledger.graph import Graph, make_graph
from research.derivatives.ledger.layout import arrange
from research.derivatives.ledger.picture import draw, heading_of
from research.derivatives.ledger.rows import Row
from research.derivatives.ledger.table import answer, gradients
from research.derivatives.ledger.tape import is_key
from research.derivatives.ledger.wording import as_array, short

TEMPLATE = Path(__file__).with_name("page.html")
MOST_ENTRIES = 1000  # An array with more entries is not stored in the page.
HEADINGS = ("row", "equation", "value", "adjoint", "rule", "line")


class Part(NamedTuple):
    """Contribution to an adjoint, as shown in the browser page of `explain`.

    Attributes:
      number: Number of the row from which the contribution comes. `as_page` describes
        the numbering.
      text: Text that describes the contribution.
    """

    number: int
    text: str


def as_page(ledger: LedgerFields) -> str:
    """Return the text of an HTML file that shows a table of `explain`.

    In the page, values are numbered: first the inputs from 0, and then the rows. The
    element with the id "ledger" contains, as JSON, all digits of the values and
    adjoints. Arrays of more than 1000 entries are left out.
    """
    graph = make_graph(ledger)
    words = {"title": heading_of(ledger), "answer": answer(ledger)}
    drawing = draw(graph, arrange(graph), *words.values(), dark=True, marks=True)
    data = json.dumps(_data(ledger, graph), ensure_ascii=False, allow_nan=False)
    return string.Template(TEMPLATE.read_text("utf-8")).substitute(
        {name: html.escape(text) for name, text in words.items()},
        drawing=drawing,
        first="Nothing is chosen.",
        rows=_inputs(ledger) + _scopes(ledger),
        # The text of a script ends at "</script" and changes its meaning at "<!--".
        data=data.replace("<", "\\u003c"),
    )


def _data(ledger: LedgerFields, graph: Graph) -> dict[str, Any]:
    """Return the data that the script of the page shows, as JSON values."""
    parts = _parts(ledger)
    grads = gradients(ledger) if ledger.grads is not None else {}
    nodes = _nodes_of_values(ledger, graph)
    values = [
        _value(name, "(input)", value, grads.get(name), "", parts.get(name, []))
        for name, value in ledger.inputs.items()
    ]
    values += [
        _value(
            row.name,
            f"= {row.expression}",
            row.value,
            row.adjoint,
            row.rule,
            [part for own in row.name.split(", ") for part in parts.get(own, [])],
            is_output=row.name == ledger.output,
        )
        for row in ledger.rows
    ]
    for number, value in enumerate(values):
        value["nodes"] = [n for n, owner in enumerate(nodes) if number in owner]
    return {
        "values": values,
        "nodes": [owner[-1] if owner else None for owner in nodes],
    }


def _value(
    name: str,
    kind: str,
    value: Any,
    adjoint: Any,
    rule: str,
    parts: Sequence[Part],
    is_output: bool = False,
) -> dict[str, Any]:
    if adjoint is None:
        total = "No adjoint passes: the result does not depend on it by a derivative."
    elif is_output:
        total = f"adjoint = {short(adjoint)}: the derivative of the result by itself."
    elif parts:
        total = f"adjoint of {name} = {short(adjoint)}, the sum of:"
    else:
        total = f"adjoint = {short(adjoint)}: nothing that is shown reads it."
    return {
        "title": f"{name} {kind}: {short(value)}",
        "rule": rule,
        "sum": total,
        "parts": [{"from": part.number, "text": part.text} for part in parts],
        "value": _digits(value),
        "adjoint": _digits(adjoint),
    }


def _parts(ledger: LedgerFields) -> dict[str, list[Part]]:
    """Return the contributions to the adjoint of each value, by the value's name."""
    parts: dict[str, list[Part]] = {}
    first, numbers = len(ledger.inputs), {}
    for number, row in enumerate(ledger.rows, first):
        numbers |= dict.fromkeys(row.name.split(", "), number)
        for name, local, share in zip(
            row.inputs, row.local, row.contributions, strict=True
        ):
            if share is not None:
                text = f"{short(share)} from {row.name} = {row.expression}"
                if local is not None:
                    text += f": {short(local)} × adjoint {short(row.adjoint)}"
                parts.setdefault(name, []).append(Part(number, f"{text} ({row.rule})"))
    tape, _, _, _, names = ledger.recorded
    for rule in tape.rules:
        shares = rule.contributions(tape.adjoints)
        for node, share in zip(rule.inputs, shares, strict=False):
            name, own = names.get(node, ""), names.get(rule.outputs[0], "")
            if share is not None and own in numbers:
                text = f"{short(share)} from {own}: the derivative rule of {rule.name}"
                parts.setdefault(name, []).append(Part(numbers[own], text))
    return parts


def _nodes_of_values(ledger: LedgerFields, graph: Graph) -> list[list[int]]:
    """Return the numbers of the values in each node of the graph."""
    names, first = list(ledger.inputs), len(ledger.inputs)
    return [
        [first + place for place in node.rows]
        or [number for number, name in enumerate(names) if name == node.title]
        for node in graph.nodes
    ]


def _digits(value: Any) -> Any:
    """Return all digits of a value as JSON; NaN and infinities as texts."""
    if isinstance(value, tuple):
        return [_digits(part) for part in value]
    if value is None or is_key(value) or np.size(value) > MOST_ENTRIES:
        return None
    return _plain(as_array(value).tolist())


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, complex):
        return str(value)
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float) else str(value)


def _inputs(ledger: LedgerFields) -> str:
    grads: Mapping[str, Any] = gradients(ledger) if ledger.grads is not None else {}
    lines = [
        _line(number, (name, "input", short(value), short(grads.get(name)), "", ""))
        for number, (name, value) in enumerate(ledger.inputs.items())
    ]
    return f"<details open><summary>Inputs</summary>{_table(lines)}</details>"


def _scopes(ledger: LedgerFields) -> str:
    """Return the rows as HTML tables, each scope in an element that can be folded."""
    numbered = list(enumerate(ledger.rows, len(ledger.inputs)))
    summary = f"{html.escape(ledger.title)}: {len(numbered)} rows"
    inside = _folded(numbered, 0)
    return f"<details open><summary>{summary}</summary>{inside}</details>"


def _folded(numbered: Sequence[tuple[int, Row]], depth: int) -> str:
    made = []
    scope_at = lambda pair: pair[1].scope[depth : depth + 1]
    for scope, group in itertools.groupby(numbered, scope_at):
        rows = list(group)
        if scope:
            summary = f"{html.escape(scope[0])}: {len(rows)} rows"
            inside = _folded(rows, depth + 1)
            made.append(f"<details open><summary>{summary}</summary>{inside}</details>")
        else:
            made.append(_table([_line(number, _cells(row)) for number, row in rows]))
    return "".join(made)


def _cells(row: Row) -> tuple[str, ...]:
    values = short(row.value), short(row.adjoint)
    return row.name, row.expression, *values, row.rule, row.source


def _line(number: int, cells: Iterable[str]) -> str:
    columns = "".join(
        f'<td class="{heading}">{html.escape(cell)}</td>'
        for heading, cell in zip(HEADINGS, cells, strict=True)
    )
    return f'<tr data-value="{number}" tabindex="0">{columns}</tr>'


def _table(lines: Iterable[str]) -> str:
    head = "".join(f"<th>{heading}</th>" for heading in HEADINGS)
    body = "".join(lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
