"""Graph of inputs, rows and contributions, for the drawing of `explain`.

The nodes are the inputs of a function and the rows of its table, which are operations.
In a large graph, several neighbouring rows form one node.
"""

import collections
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.derivatives.ledger.fields import LedgerFields
from research.derivatives.ledger.rows import Row
from research.derivatives.ledger.tape import (
    Equation,
    Literal,
    Operand,
    OwnRule,
    is_key,
)
from research.derivatives.ledger.wording import as_array, short

LARGEST = 60  # If there are more rows, they are grouped into at most this many nodes.
MOST_READERS = 3  # An input with more readers is drawn once for each reader.
CLOSED = -1  # Mark of rows that always form one group.


class Node(NamedTuple):
    """Node of the graph by which a table of `explain` is drawn.

    Each row of the table is one operation of a function. A node is an input of the
    function, one row, or several rows. A node is drawn as a box.

    Attributes:
      title: Name of the input, or name and equation of the row. If the node has several
        rows, the title names the function or the lines of code that contain the rows,
        and the number of rows.
      value: Value of the input or of the row, as a short text. If the node has several
        rows, the value of the last row.
      adjoint: Adjoint of this value as a short text, or "" if there is no adjoint.
      kind: "output" if the row, or the last of several rows, computes the output of the
        function. Otherwise "input", "constant" (one row without an adjoint), "row" (any
        other single row) or "fold" (several rows).
      hint: Text with more details. For an input, it is "an input". For one row, it has
        the primitive, the derivative rule in words, and the line of code. For several
        rows, it has the name of the first row, and the name and equation of the last.
      rows: Positions of the rows of the node in `Ledger.rows`. Empty for an input.
    """

    title: str
    value: str
    adjoint: str
    kind: str
    hint: str
    rows: tuple[int, ...] = ()


class Edge(NamedTuple):
    """Edge of the graph by which a table of `explain` is drawn.

    An edge goes from the node of a value to a node that reads the value.

    Attributes:
      start, end: Indices of the two nodes.
      local: Local derivative, such as "× 3", or "" if it is not shown.
      contribution: Contribution to the adjoint of the start node, such as "+ 108.4". ""
        if there is none, or if several values of the start node get contributions.
      kind: "row" (a row of the table contributes to the adjoint of the start node),
        "constant" (nothing contributes) or "rule" (a custom derivative rule
        contributes).
    """

    start: int
    end: int
    local: str
    contribution: str
    kind: str


class Graph(NamedTuple):
    """Graph of a table of `explain`, for a drawing of the table.

    Attributes:
      nodes: Nodes in an order of evaluation. A node is an input, or one or more rows of
        the table.
      edges: Edges, each from the node of a value to a node that reads the value.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


class _Unit(NamedTuple):
    title: str
    value: Any
    adjoint: Any
    kind: str
    hint: str
    scope: tuple[str, ...]
    calls: tuple[int, ...]
    source: str
    row: tuple[int, ...] = ()


class _Share(NamedTuple):
    start: int
    end: int
    node: Operand
    local: Any
    contribution: Any
    kind: str


def make_graph(ledger: LedgerFields, largest: int = LARGEST) -> Graph:
    """Return the graph of a table of `explain`.

    The nodes are the inputs of the function and the rows of the table. An edge leads
    from the node of a value to a node that reads this value. If the table has more rows
    than `largest`, neighbouring rows share a node.

    The table may contain a call of a function g with a custom derivative rule. Then one
    node contains the rows that compute the value of g. An edge of kind "rule" leads
    from an input of g to this node, and shows what the rule contributes to the adjoint
    of this input.

    Args:
      ledger: Table of `explain`.
      largest: Largest number of nodes, not counting the inputs.
    """
    units, shares = _units(ledger)
    groups = fold(
        [(unit.calls, unit.source, unit.kind == "input") for unit in units], largest
    )
    number = {unit: place for place, group in enumerate(groups) for unit in group}
    nodes = [_node([units[i] for i in group]) for group in groups]
    edges = []
    merged = itertools.groupby(
        sorted(shares, key=lambda s: (number[s.start], number[s.end])),
        lambda s: (number[s.start], number[s.end]),
    )
    for (start, end), group in merged:
        if start != end:
            edges.append(_edge(start, end, list(group)))
    nodes, edges = _with_copies(nodes, edges)
    read = {edge.start for edge in edges} | {edge.end for edge in edges}
    shown = [
        i
        for i, node in enumerate(nodes)
        if i in read or node.kind != "input" or node.adjoint
    ]
    kept = {place: i for i, place in enumerate(shown or range(len(nodes)))}
    moved = (
        edge._replace(start=kept[edge.start], end=kept[edge.end]) for edge in edges
    )
    return Graph(tuple(nodes[i] for i in kept), tuple(moved))


def without_constants(whole: Graph) -> Graph:
    """Return the graph without the nodes of kind "constant", which have no adjoint."""
    kept = {
        i: place
        for place, i in enumerate(
            i for i, node in enumerate(whole.nodes) if node.kind != "constant"
        )
    }
    edges = [
        e._replace(start=kept[e.start], end=kept[e.end])
        for e in whole.edges
        if {e.start, e.end} <= kept.keys()
    ]
    return Graph(tuple(whole.nodes[i] for i in kept), tuple(edges))


def _with_copies(
    nodes: list[Node], edges: Sequence[Edge]
) -> tuple[list[Node], list[Edge]]:
    """Draw an input with many readers several times: one copy for each reader.

    This avoids long edges.
    """
    readers = collections.Counter(edge.start for edge in edges)
    moved, all_nodes = [], list(nodes)
    for edge in edges:
        if nodes[edge.start].kind == "input" and readers[edge.start] > MOST_READERS:
            all_nodes.append(Node(nodes[edge.start].title, "", "", "input", "an input"))
            edge = edge._replace(start=len(all_nodes) - 1)
        moved.append(edge)
    return all_nodes, moved


def _units(ledger: LedgerFields) -> tuple[list[_Unit], list[_Share]]:
    tape, inputs, output, shown, names = ledger.recorded
    units = [
        _Unit(n, tape.values[i], tape.adjoints[i], "input", "an input", (), (), "")
        for n, i in inputs.items()
    ]
    makers = {node: place for place, node in enumerate(inputs.values())}
    rows = {
        id(equation): (place, row)
        for place, (equation, row) in enumerate(zip(shown, ledger.rows, strict=True))
        if not row.is_rule
    }
    shares: list[_Share] = []
    # The value of a function with a custom rule is one box, because no adjoint passes
    # through its rows.
    closed = {
        id(e): (CLOSED, place)
        for place, rule in enumerate(tape.rules)
        for e in rule.entries
    }
    for equation in tape.equations():
        place, row = rows.get(id(equation), (0, None))
        if row is not None:
            makers |= dict.fromkeys(equation.outputs, len(units))
            shares += _row_shares(row, equation.inputs, makers, len(units))
            units.append(
                _row_unit(
                    row,
                    closed.get(id(equation), equation.calls),
                    output in equation.outputs,
                )._replace(row=(place,))
            )
        elif equation.inputs:
            makers |= _passed_on(equation, makers)
    for rule in tape.rules:
        for node in rule.outputs:
            if node not in makers:  # The function returns an input unchanged.
                makers[node] = len(units)
                value, adjoint = tape.values[node], tape.adjoints[node]
                units.append(_Unit(names[node], value, adjoint, "row", "", (), (), ""))
        shares += _rule_shares(rule, tape.adjoints, makers)
    return units, shares


def _passed_on(equation: Equation, makers: Mapping[int, int]) -> dict[int, int]:
    """Return the makers of the values that an equation without a row passes on.

    A maker is the index of the unit that computes a value.
    """
    number = len(equation.outputs)
    same = len(equation.inputs) == number
    sources = equation.inputs if same else equation.inputs[:1] * number
    return {
        node: makers[source]
        for node, source in zip(equation.outputs, sources, strict=True)
        if not isinstance(source, Literal) and source in makers
    }


def _rule_shares(
    rule: OwnRule, adjoints: Sequence[Any], makers: Mapping[int, int]
) -> list[_Share]:
    """Return what the rule of a function contributes to the adjoints of its inputs."""
    given = rule.contributions(adjoints)
    local = f"rule of {rule.name}"
    return [
        _Share(makers[node], makers[rule.outputs[0]], node, local, share, "rule")
        for node, share in zip(rule.inputs, given, strict=False)
        if share is not None and node in makers
    ]


def _row_unit(row: Row, calls: tuple[int, ...], is_output: bool) -> _Unit:
    kind = "output" if is_output else "constant" if row.adjoint is None else "row"
    hint = f"{row.primitive}: {row.rule}; {row.source}"
    return _Unit(
        f"{row.name} = {row.expression}",
        row.value,
        row.adjoint,
        kind,
        hint,
        row.scope,
        calls,
        row.source,
    )


def _row_shares(
    row: Row, operands: Iterable[Operand], makers: dict[int, int], end: int
) -> list[_Share]:
    return [
        _Share(makers[o], end, o, local, share, "constant" if share is None else "row")
        for o, local, share in zip(operands, row.local, row.contributions, strict=True)
        if not isinstance(o, Literal) and o in makers and makers[o] != end
    ]


def fold(
    places: Sequence[tuple[tuple[int, ...], str, bool]], largest: int
) -> list[list[int]]:
    """Group the rows of a table of `explain` into at most `largest` groups.

    A unit is a row of the table or an input. Each input is a group of its own, and
    these groups are not counted. The grouping has three stages, and stops as soon as at
    most `largest` groups of rows are left:

    1. The units of each call of a function form one group, beginning with the innermost
       calls.
    2. The units of each line of code form one group, if they have the same outermost
       call. This replaces the groups of stage 1.
    3. Each k consecutive groups of stage 2 form one group, with the smallest k that
       suffices.

    Only neighbours in the order of evaluation are grouped, so no group depends on
    itself through another group.

    Args:
      places: (calls, line, alone) of each unit. `calls` are the numbers of the calls
        around the unit, from the outermost to the innermost. If `calls` is (CLOSED,
        number) with the constant CLOSED of this module, the unit is a row of a function
        with a custom derivative rule. In stage 1, such a unit is always grouped with
        its neighbours of the same number. `line` is the line of code. `alone` is True
        for an input.
      largest: Largest number of groups, not counting the inputs.
    Returns:
      The groups, as lists of indices of units.
    Example:
      >>> first, second = ((7,), "a.py:2", False), ((7,), "a.py:3", False)
      >>> fold([((), "a.py:1", True), first, second, ((), "a.py:4", False)], 2)
      [[0], [1, 2], [3]]
    """
    alone = [[i] for i, place in enumerate(places) if place[2]]
    rest = [i for i, place in enumerate(places) if not place[2]]
    deepest = max((len(places[i][0]) for i in rest), default=0)

    def by_depth(depth: int) -> Callable[[int], Any]:
        def key(i: int) -> Any:
            calls = places[i][0]
            return (
                calls
                if calls[:1] == (CLOSED,)
                else calls[:depth]
                if len(calls) >= depth
                else i
            )

        return key

    ways = [
        *(by_depth(depth) for depth in range(deepest + 1, 0, -1)),
        lambda i: (places[i][0][:1], places[i][1]),
    ]
    groups: list[list[int]] = []
    for way in ways:
        groups = [list(group) for _, group in itertools.groupby(rest, way)]
        if len(groups) <= largest:
            return alone + groups
    size = -(-len(groups) // largest)
    return alone + [
        list(itertools.chain(*groups[i : i + size]))
        for i in range(0, len(groups), size)
    ]


def _node(units: Sequence[_Unit]) -> Node:
    last = units[-1]
    if len(units) == 1:
        return Node(
            last.title,
            brief(last.value),
            brief(last.adjoint),
            last.kind,
            last.hint,
            last.row,
        )
    hint = f"{units[0].title.split(' =')[0]} to {last.title}"
    kind = "output" if last.kind == "output" else "fold"
    return Node(
        f"{_place(units)}: {len(units)} rows",
        brief(last.value),
        brief(last.adjoint),
        kind,
        hint,
        tuple(place for unit in units for place in unit.row),
    )


def _place(units: Sequence[_Unit]) -> str:
    """Return the innermost scope that all units share, or else their lines of code."""
    common = [
        first
        for first, *others in zip(*(unit.scope for unit in units), strict=False)
        if set(others) <= {first}
    ]
    lines = list(dict.fromkeys(unit.source for unit in units if unit.source)) or [""]
    if common:
        return common[-1]
    return lines[0] if len(lines) == 1 else f"{lines[0]} to {lines[-1].split(':')[-1]}"


def _edge(start: int, end: int, shares: Sequence[_Share]) -> Edge:
    active = [share for share in shares if share.contribution is not None]
    kind = (
        "constant"
        if not active
        else "rule"
        if all(share.kind == "rule" for share in active)
        else "row"
    )
    locals_ = [share.local for share in active if share.local is not None]
    factors = [
        local if isinstance(local, str) else f"× {brief(local)}" for local in locals_
    ]
    total = None
    if len({share.node for share in active}) == 1:
        total = sum(
            (np.asarray(share.contribution) for share in active[1:]),
            np.asarray(active[0].contribution),
        )
    return Edge(
        start=start,
        end=end,
        local=" and ".join(dict.fromkeys(factors)) if len(factors) <= 2 else "",
        contribution="" if total is None else f"+ {brief(total)}",
        kind=kind,
    )


def brief(value: Any) -> str:
    """Return a short text for a value, for the drawing of a function as a graph.

    An array of more than two entries is shown by its shape. If the entries are floating
    or complex, the Euclidean norm follows, written ‖norm‖.

    Example:
      >>> brief(0.5), brief(np.array([3.0, 4.0])), brief(np.ones((2, 8)))
      ('0.5', '[3, 4]', '2×8 ‖4‖')
    """
    if isinstance(value, tuple):
        return ", ".join(brief(part) for part in value if part is not None)
    if value is None or is_key(value) or np.size(value) <= 2:
        return short(value)
    array = as_array(value)
    norm = f" ‖{_norm(array.astype(complex)):.3g}‖" if array.dtype.kind in "fcV" else ""
    return "×".join(map(str, array.shape)) + norm


def _norm(array: np.ndarray) -> float:
    """Return the Euclidean norm, also if the squares of the entries overflow."""
    largest = float(np.max(np.abs(array), initial=0.0))
    if largest == 0 or not np.isfinite(largest):
        return largest
    return largest * float(np.linalg.norm(array.ravel() / largest))
