"""Drawing of the table of `explain` as SVG.

Every element has its own colours, so that programs without CSS draw it too (Inkscape,
LaTeX, PowerPoint). A style sheet adds a dark theme for browsers.
"""

import html
import re
import zlib

import numpy as np

from research.derivatives.ledger.fields import LedgerFields
from research.derivatives.ledger.graph import Edge, Graph, Node, make_graph
from research.derivatives.ledger.layout import LINE, Layout, arrange
from research.derivatives.ledger.table import HEADINGS, all_cells, answer, remark

LIGHT = {
    "ground": "#ffffff",
    "text": "#1b1f24",
    "quiet": "#5c636d",
    "value": "#00588c",
    "adjoint": "#b04000",
    "line": "#8a919b",
    "box": "#f4f6f8",
    "input": "#e3f0fa",
    "output": "#fdeee2",
    "spoilt": "#fbdddd",
    "alarm": "#c00020",
}
DARK = {
    "ground": "#14171c",
    "text": "#e8eaed",
    "quiet": "#a2aab5",
    "value": "#7cc4f5",
    "adjoint": "#f7a96b",
    "line": "#6b7480",
    "box": "#20252d",
    "input": "#17324a",
    "output": "#452b16",
    "spoilt": "#4d1620",
    "alarm": "#ff7a8a",
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Arial, sans-serif"
SHORT = 20  # A table with at most this many rows is open at first.
LEGEND = (
    ("value", "value, computed downwards"),
    ("adjoint", "adjoint: derivative of the result by this value, computed upwards"),
    ("text", "× local derivative, + contribution of this edge to the adjoint above it"),
)


def as_svg(ledger: LedgerFields) -> str:
    """Draw the table of `explain` as a graph, and return the text of an SVG file.

    A box of the graph stands for an input, for a row of the table (one equation of the
    function) or for several rows.
    """
    return _drawn(ledger, dark=False)


def _drawn(ledger: LedgerFields, *, dark: bool) -> str:
    graph = make_graph(ledger)
    return draw(graph, arrange(graph), heading_of(ledger), answer(ledger), dark=dark)


def heading_of(ledger: LedgerFields) -> str:
    """Return the title of the drawing of a ledger, the table that `explain` returns."""
    return f"Backpropagation through {ledger.title}"


def draw(
    graph: Graph,
    layout: Layout,
    heading: str,
    words: str,
    *,
    dark: bool = False,
    marks: bool = False,
) -> str:
    """Return a graph with its layout as the text of an SVG file.

    Each node of the graph is drawn as a box, which shows a value and its adjoint. Boxes
    with a NaN or an infinity are red. The place where the first NaN or infinity arises
    is drawn thick. If it arises in the forward pass, this place is a box whose inputs
    are all finite. If it arises in the backward pass, this place is an edge from a
    finite adjoint to a contribution that is NaN or infinite.

    Args:
      graph, layout: Results of `Ledger.drawing`.
      heading: Title, for readers who cannot see the drawing.
      words: Sentence for readers who cannot see the drawing. It comes before the
        description of the boxes.
      dark: If True, the drawing has a style sheet that makes it dark for readers who
        prefer dark pages. Only browsers use this style sheet.
      marks: If True, the SVG elements of the boxes and edges contain the numbers of
        their nodes, so that a script can find them.
    """
    width, height = max(layout.width, 560.0), layout.height + LINE * (len(LEGEND) + 1)
    shift = (width - layout.width) / 2
    described = html.escape(f"{words} {_description(graph.nodes)}".strip())
    name = f"ledger-{zlib.crc32((words + str(graph)).encode()):08x}"
    born_boxes, born_edges = _births(graph)
    drawn = [
        _drawn_edge(edge, way, marks, edge in born_edges)
        for edge, way in zip(graph.edges, layout.ways, strict=True)
    ]
    boxes = [
        _drawn_node(node, layout, i, marks, i in born_boxes)
        for i, node in enumerate(graph.nodes)
    ]
    labels = [
        _drawn_label(edge, place, marks, edge in born_edges)
        for edge, place in zip(graph.edges, layout.labels, strict=True)
    ]
    legend = [
        f'<text class="{kind}" x="{14}" '
        f'y="{height - LINE * (len(LEGEND) - i) + 4:.1f}" fill="{LIGHT[kind]}">'
        f"{html.escape(text)}</text>"
        for i, (kind, text) in enumerate(LEGEND)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="{name}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" '
            f'font-family="{FONT}" font-size="12" '
            f'role="img" aria-labelledby="{name}-title {name}-desc">',
            f'<title id="{name}-title">{html.escape(heading)}</title>',
            (f'<desc id="{name}-desc">{described}</desc>'),
            *([f"<style>{_dark_style(name)}</style>"] if dark else []),
            f'<rect class="ground" width="{width:.0f}" height="{height:.0f}" '
            f'fill="{LIGHT["ground"]}"/>',
            f'<g transform="translate({shift:.1f} 0)">',
            *drawn,
            *boxes,
            *labels,
            "</g>",
            *legend,
            "</svg>",
        ]
    )


def as_html(ledger: LedgerFields) -> str:
    """Return the text of an HTML element for a notebook.

    The element shows the result of `explain`: a sentence with the value and the
    gradient of the function, a drawing of the graph of its equations, and the table of
    these equations.
    """
    cells = [line for lines in all_cells(ledger) for line in lines]
    left = ' style="text-align:left"'
    head = "".join(f"<th{left}>{html.escape(heading)}</th>" for heading in HEADINGS)
    rows = (
        "".join(f"<td{left}>{html.escape(cell)}</td>" for cell in line)
        for line in cells
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    opened = " open" if len(ledger.rows) <= SHORT else ""
    return (
        f"<div><p><b>{html.escape(answer(ledger))}</b> "
        f"{html.escape(remark(ledger))}</p>"
        '<div style="overflow-x:auto;max-height:48em;overflow-y:auto">'
        f"{_drawn(ledger, dark=True)}</div>"
        f"<details{opened}><summary>The ledger: {len(ledger.rows)} rows</summary>"
        f'<div style="overflow-x:auto"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        "</details></div>"
    )


def _dark_style(name: str) -> str:
    """Return a style sheet that replaces the colours where dark pages are preferred."""
    rules = {
        " text": "fill:{text}",
        " .ground": "fill:{ground}",
        " .value": "fill:{value}",
        " .adjoint": "fill:{adjoint}",
        " rect.box": "fill:{box};stroke:{line}",
        " rect.input": "fill:{input}",
        " rect.output": "fill:{output}",
        " .spoilt rect.box": "fill:{spoilt};stroke:{alarm}",
        " .constant text": "fill:{quiet}",
        " path": "stroke:{line}",
        " path.rule": "stroke:{adjoint}",
        " path.birth": "stroke:{alarm}",
    }
    css = "".join(
        f".{name}{selector}{{{rule.format(**DARK)}}}"
        for selector, rule in rules.items()
    )
    return f"@media (prefers-color-scheme:dark){{{css}}}"


def _births(graph: Graph) -> tuple[set[int], set[Edge]]:
    """Return the boxes and the edges at which the first NaN or infinity arises.

    Edges are returned only if all values are finite, because the backward pass of a
    value that is not finite is not finite either.
    """
    bad = {i for i, node in enumerate(graph.nodes) if _is_spoilt_text(node.value)}
    reached = {edge.end for edge in graph.edges if edge.start in bad}
    if bad:
        return bad - reached, set()
    return set(), {
        edge
        for edge in graph.edges
        if _is_spoilt_text(edge.contribution)
        and not _is_spoilt_text(graph.nodes[edge.end].adjoint)
    }


def _box_paint(kind: str, is_spoilt: bool, is_birth: bool) -> str:
    """Return the attributes that colour a box."""
    fill = LIGHT["spoilt"] if is_spoilt else LIGHT.get(kind, LIGHT["box"])
    stroke = LIGHT["alarm" if is_spoilt else "line"]
    wide = 3.5 if is_birth else 2.5 if kind == "fold" else 1
    dashes = ' stroke-dasharray="2 3"' if kind == "constant" else ""
    return f'fill="{fill}" stroke="{stroke}" stroke-width="{wide}"{dashes}'


def _edge_paint(kind: str, is_birth: bool) -> str:
    """Return the attributes that colour an edge."""
    if is_birth:
        return f'fill="none" stroke="{LIGHT["alarm"]}" stroke-width="3.5"'
    stroke = LIGHT["adjoint" if kind == "rule" else "line"]
    dashes = {"constant": "2 4", "rule": "7 4"}.get(kind)
    more = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'fill="none" stroke="{stroke}" stroke-width="1.4"{more}'


def _text_paint(kind: str, is_quiet: bool) -> str:
    """Return the attributes that colour a text."""
    weight = ' font-weight="600"' if kind == "title" else ""
    colour = LIGHT["quiet"] if is_quiet else LIGHT.get(kind, LIGHT["text"])
    return f'fill="{colour}"{weight}'


def _drawn_node(
    node: Node, layout: Layout, place: int, marks: bool, is_birth: bool
) -> str:
    (x, y), (width, height) = layout.centres[place], layout.sizes[place]
    lines = [
        ("title", node.title),
        ("value", node.value),
        ("adjoint", f"adjoint {node.adjoint}" if node.adjoint else ""),
    ]
    texts, top = [], y - height / 2 + LINE + 1
    for kind, text in lines:
        if text:
            texts.append(
                f'<text class="{kind}" x="{x:.1f}" y="{top:.1f}" '
                f'text-anchor="middle" {_text_paint(kind, node.kind == "constant")}>'
                f"{html.escape(text)}</text>"
            )
            top += LINE
    paint = _box_paint(node.kind, _is_spoilt(node), is_birth)
    box = (
        f'<rect class="box {node.kind}" x="{x - width / 2:.1f}" '
        f'y="{y - height / 2:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" rx="6" {paint}/>'
    )
    hint = f"<title>{html.escape(node.hint)}</title>" if node.hint else ""
    kind = f"{node.kind} spoilt" if _is_spoilt(node) else node.kind
    mark = f' data-node="{place}" tabindex="0"' if marks else ""
    return f'<g class="{kind}"{mark}>{hint}{box}{"".join(texts)}</g>'


def _is_spoilt(node: Node) -> bool:
    """Return whether the value or the adjoint has a NaN or an infinity."""
    return _is_spoilt_text(f"{node.value} {node.adjoint}")


def _is_spoilt_text(text: str) -> bool:
    return not {"nan", "inf"}.isdisjoint(re.findall(r"[a-z]+", text.lower()))


def _drawn_edge(edge: Edge, way: np.ndarray, marks: bool, is_birth: bool) -> str:
    start, *rest = way
    path = [f"M{start[0]:.1f} {start[1]:.1f}"]
    for point in rest:
        middle = (start[1] + point[1]) / 2
        path.append(
            f"C{start[0]:.1f} {middle:.1f} {point[0]:.1f} {middle:.1f} "
            f"{point[0]:.1f} {point[1]:.1f}"
        )
        start = point
    kind = f"{edge.kind} birth" if is_birth else edge.kind
    paint = f"{_edge_paint(edge.kind, is_birth)}{_edge_mark(edge, marks)}"
    return f'<path class="{kind}" d="{"".join(path)}" {paint}/>'


def _edge_mark(edge: Edge, marks: bool) -> str:
    return f' data-start="{edge.start}" data-end="{edge.end}"' if marks else ""


def _drawn_label(edge: Edge, place: np.ndarray, marks: bool, is_birth: bool) -> str:
    x, y = place
    parts = [("value", edge.local), ("adjoint", edge.contribution)]
    shown = [(kind, text) for kind, text in parts if text]
    y += 4 - (len(shown) - 1) * 6.5
    wide = 6.0 * max((len(text) for _, text in shown), default=0) + 4
    size = f'width="{wide:.1f}" height="{13 * len(shown) + 2}"'
    ground = (
        f'<rect class="ground" x="{x - wide / 2:.1f}" y="{y - 11:.1f}" {size} rx="3" '
        f'fill="{LIGHT["spoilt" if is_birth else "ground"]}"/>'
    )
    texts = (
        f'<text class="{kind}" x="{x:.1f}" y="{y + 13 * i:.1f}" '
        f'text-anchor="middle" font-size="11" fill="{LIGHT[kind]}">'
        f"{html.escape(text)}</text>"
        for i, (kind, text) in enumerate(shown)
    )
    mark = _edge_mark(edge, marks)
    return f'<g class="label"{mark}>{ground}{"".join(texts)}</g>' if shown else ""


def _description(nodes: tuple[Node, ...]) -> str:
    """Describe the first 80 boxes in words, for readers who cannot see the drawing."""
    return " ".join(
        f"{node.title}: {node.value}"
        f"{f', adjoint {node.adjoint}' if node.adjoint else ''}."
        for node in nodes[:80]
    )
