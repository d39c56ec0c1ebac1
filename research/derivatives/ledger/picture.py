"""Drawing of the table of `explain` as SVG, with a light and a dark theme."""

import html
import re
import zlib

import numpy as np

from research.derivatives.ledger.fields import LedgerFields
from research.derivatives.ledger.graph import Edge, Graph, Node, make_graph
from research.derivatives.ledger.layout import LINE, Layout, arrange
from research.derivatives.ledger.table import HEADINGS, all_cells, answer

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
SHORT = 20  # A table with at most this many rows is open at first.
LEGEND = (
    ("value", "value, computed downwards"),
    ("adjoint", "adjoint: derivative of the result by this value, computed upwards"),
    ("text", "× local derivative, + contribution of this edge to the adjoint above it"),
)


def as_svg(ledger: LedgerFields) -> str:
    """Return the graph of a table of `explain` as the text of an SVG file."""
    graph = make_graph(ledger)
    heading = f"Backpropagation through {ledger.title}"
    return draw(graph, arrange(graph), heading, answer(ledger))


def draw(
    graph: Graph, layout: Layout, heading: str, words: str, *, dark: bool = True
) -> str:
    """Return a graph with its layout as the text of an SVG file.

    Boxes with a NaN or an infinity are red.

    Args:
      graph, layout: Results of `Ledger.drawing`.
      heading: Title, for readers who cannot see the drawing.
      words: Sentence that comes before the description of the boxes for these readers.
      dark: Whether the drawing is dark where the reader prefers dark pages.
    """
    width, height = max(layout.width, 560.0), layout.height + LINE * (len(LEGEND) + 1)
    shift = (width - layout.width) / 2
    described = html.escape(f"{words} {_description(graph.nodes)}".strip())
    name = f"ledger-{zlib.crc32((words + str(graph)).encode()):08x}"
    drawn = [
        _drawn_edge(edge, way)
        for edge, way in zip(graph.edges, layout.ways, strict=True)
    ]
    boxes = [_drawn_node(node, layout, i) for i, node in enumerate(graph.nodes)]
    labels = [
        _drawn_label(edge, *place)
        for edge, place in zip(graph.edges, layout.labels, strict=True)
    ]
    legend = [
        f'<text class="{kind}" x="{14}" '
        f'y="{height - LINE * (len(LEGEND) - i) + 4:.1f}">{html.escape(text)}</text>'
        for i, (kind, text) in enumerate(LEGEND)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="{name}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" '
            f'role="img" aria-labelledby="{name}-title {name}-desc">',
            f'<title id="{name}-title">{html.escape(heading)}</title>',
            (f'<desc id="{name}-desc">{described}</desc>'),
            f"<style>{_style(name, dark)}</style>",
            f'<rect class="ground" width="{width:.0f}" height="{height:.0f}"/>',
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
    """Format the sentence, the drawing and the table as HTML for a notebook."""
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
        f"<div><p><b>{html.escape(answer(ledger))}</b></p>"
        '<div style="overflow-x:auto;max-height:48em;overflow-y:auto">'
        f"{as_svg(ledger)}</div>"
        f"<details{opened}><summary>The ledger: {len(ledger.rows)} rows</summary>"
        f'<div style="overflow-x:auto"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        "</details></div>"
    )


def _style(name: str, dark: bool) -> str:
    def colours(palette: dict[str, str]) -> str:
        return (
            f".{name}{{"
            + "".join(f"--{key}:{value};" for key, value in palette.items())
            + "}"
        )

    rules = {
        "": (
            "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',"
            "sans-serif;font-size:12px"
        ),
        " text": "fill:var(--text)",
        " .ground": "fill:var(--ground)",
        " .title": "font-weight:600",
        " .value": "fill:var(--value)",
        " .adjoint": "fill:var(--adjoint)",
        " rect.box": "fill:var(--box);stroke:var(--line)",
        " rect.input": "fill:var(--input)",
        " rect.output": "fill:var(--output)",
        " rect.fold": "stroke-width:2.5",
        " .spoilt rect.box": "fill:var(--spoilt);stroke:var(--alarm);stroke-width:2.5",
        " .constant text": "fill:var(--quiet)",
        " rect.constant": "stroke-dasharray:2 3",
        " path": "fill:none;stroke:var(--line);stroke-width:1.4",
        " path.constant": "stroke-dasharray:2 4",
        " path.rule": "stroke:var(--adjoint);stroke-dasharray:7 4",
        " .label text": "font-size:11px",
    }
    css = "".join(f".{name}{selector}{{{rule}}}" for selector, rule in rules.items())
    if not dark:
        return f"{colours(LIGHT)}{css}"
    return f"{colours(LIGHT)}@media (prefers-color-scheme:dark){{{colours(DARK)}}}{css}"


def _drawn_node(node: Node, layout: Layout, place: int) -> str:
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
                f'text-anchor="middle">{html.escape(text)}</text>'
            )
            top += LINE
    box = (
        f'<rect class="box {node.kind}" x="{x - width / 2:.1f}" '
        f'y="{y - height / 2:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" rx="6"/>'
    )
    hint = f"<title>{html.escape(node.hint)}</title>" if node.hint else ""
    kind = f"{node.kind} spoilt" if _is_spoilt(node) else node.kind
    return f'<g class="{kind}">{hint}{box}{"".join(texts)}</g>'


def _is_spoilt(node: Node) -> bool:
    """Return whether the value or the adjoint has a NaN or an infinity."""
    numbers = re.findall(r"[a-z]+", f"{node.value} {node.adjoint}".lower())
    return not {"nan", "inf"}.isdisjoint(numbers)


def _drawn_edge(edge: Edge, way: np.ndarray) -> str:
    start, *rest = way
    path = [f"M{start[0]:.1f} {start[1]:.1f}"]
    for point in rest:
        middle = (start[1] + point[1]) / 2
        path.append(
            f"C{start[0]:.1f} {middle:.1f} {point[0]:.1f} {middle:.1f} "
            f"{point[0]:.1f} {point[1]:.1f}"
        )
        start = point
    return f'<path class="{edge.kind}" d="{"".join(path)}"/>'


def _drawn_label(edge: Edge, x: float, y: float) -> str:
    parts = [("value", edge.local), ("adjoint", edge.contribution)]
    shown = [(kind, text) for kind, text in parts if text]
    y += 4 - (len(shown) - 1) * 6.5
    wide = 6.0 * max((len(text) for _, text in shown), default=0) + 4
    size = f'width="{wide:.1f}" height="{13 * len(shown) + 2}"'
    ground = (
        f'<rect class="ground" x="{x - wide / 2:.1f}" y="{y - 11:.1f}" {size} rx="3"/>'
    )
    texts = (
        f'<text class="{kind}" x="{x:.1f}" y="{y + 13 * i:.1f}" '
        f'text-anchor="middle">{html.escape(text)}</text>'
        for i, (kind, text) in enumerate(shown)
    )
    return f'<g class="label">{ground}{"".join(texts)}</g>' if shown else ""


def _description(nodes: tuple[Node, ...]) -> str:
    """Describe the boxes in words, for readers who cannot see the drawing."""
    return " ".join(
        f"{node.title}: {node.value}"
        f"{f', adjoint {node.adjoint}' if node.adjoint else ''}."
        for node in nodes[:80]
    )
