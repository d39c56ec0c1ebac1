"""Layout of a graph in layers from top to bottom."""

import collections
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from research.derivatives.ledger.graph import Graph, Node

LETTER, LINE, GAP, BETWEEN = 6.6, 16.0, 34.0, 54.0  # Widths and heights in pixels.
# Number of rounds that move boxes towards their neighbours. In the last BOTH rounds the
# neighbours above and below are used, in the others only one of the two sides.
ROUNDS, BOTH = 32, 20


class Layout(NamedTuple):
    """Positions of the boxes and edges of a graph in a drawing.

    All numbers are in pixels, and y points downwards.

    Attributes:
      centres: Centres of the boxes, shape (nodes, 2).
      sizes: Widths and heights of the boxes, shape (nodes, 2).
      ways: For each edge, the points of its line, from the lower side of the start box
        to the upper side of the end box.
      labels: Centre of the label of each edge, shape (edges, 2).
      width, height: Size of the drawing.
    """

    centres: Float[np.ndarray, "nodes 2"]
    sizes: Float[np.ndarray, "nodes 2"]
    ways: tuple[Float[np.ndarray, "points 2"], ...]
    labels: Float[np.ndarray, "edges 2"]
    width: float
    height: float


def arrange(graph: Graph) -> Layout:
    """Return a layout of a graph in layers from top to bottom.

    The layers are numbered from the top. The number of a node's layer is the length of
    the longest path from an input to the node. The inputs themselves are an exception:
    an input is one layer above the highest node that reads it. Nodes are drawn as
    boxes. An edge that crosses a layer passes between the boxes of this layer.

    References:
      Sugiyama, Tagawa & Toda, Methods for visual understanding of hierarchical system
      structures, 1981.
    """
    sizes = np.array([_size(node) for node in graph.nodes], float).reshape(-1, 2)
    layer = _layers(graph)
    # A long edge becomes a chain with one point in each layer that it crosses.
    chains, widths, layers = [], list(sizes[:, 0]), list(layer)
    for edge in graph.edges:
        between = range(layer[edge.start] + 1, layer[edge.end])
        chains.append(
            [edge.start, *range(len(widths), len(widths) + len(between)), edge.end]
        )
        widths += [10.0] * len(between)
        layers += between
    joined: list[list[int]] = [[] for _ in widths]
    for chain in chains:
        for above, below in itertools.pairwise(chain):
            joined[above].append(below)
            joined[below].append(above)
    x = _across(joined, np.array(widths), np.array(layers, int))
    tops, heights = _down(sizes, layer)
    y = np.array([tops[k] + heights[k] / 2 for k in layers])
    half = np.array([*(sizes[:, 1] / 2), *([0.0] * (len(widths) - len(sizes)))])
    ways = tuple(_way(chain, x, y, half, heights, layers) for chain in chains)
    centres = np.stack([x[: len(sizes)], y[: len(sizes)]], axis=1)
    right = max((x + np.array(widths) / 2).max(initial=0), 1)
    labels = _labels(graph, ways)
    return Layout(
        centres,
        sizes,
        ways,
        labels,
        float(right + GAP),
        float(tops[-1] + heights[-1] + GAP),
    )


def _labels(graph: Graph, ways: Sequence[np.ndarray]) -> np.ndarray:
    """Return the centre of the label of each edge, shape (edges, 2).

    Labels keep away from nodes with many edges. Labels at about the same height are
    placed side by side.
    """
    parts = collections.Counter(edge.start for edge in graph.edges)
    shares = [0.65 if parts[edge.start] > 1 else 0.4 for edge in graph.edges]
    places = [
        (1 - share) * way[0] + share * way[1]
        for share, way in zip(shares, ways, strict=True)
    ]
    centres = np.array(places).reshape(-1, 2)
    widths = np.array(
        [LETTER * max(len(edge.local), len(edge.contribution)) for edge in graph.edges]
    )
    heights = np.argsort(centres[:, 1], kind="stable")
    for row in np.split(
        heights, np.flatnonzero(np.diff(centres[heights, 1]) > BETWEEN / 2) + 1
    ):
        order = row[np.argsort(centres[row, 0], kind="stable")]
        shown = order[widths[order] > 0]
        centres[shown, 0] = _apart(
            centres[shown, 0], widths[shown], np.ones(len(shown)), 4.0
        )
    return centres


def _size(node: Node) -> tuple[float, float]:
    lines = [node.title, node.value, node.adjoint]
    longest = max(len(node.title) * 1.06, len(node.value) + 2, len(node.adjoint) + 9)
    return max(longest * LETTER + 22, 96.0), LINE * sum(map(bool, lines)) + 12


def _layers(graph: Graph) -> list[int]:
    layer = [0] * len(graph.nodes)
    for edge in sorted(graph.edges, key=lambda e: (e.end, e.start)):
        layer[edge.end] = max(layer[edge.end], layer[edge.start] + 1)
    for place in range(len(graph.nodes))[::-1]:  # Inputs go next to their first reader.
        after = [layer[edge.end] for edge in graph.edges if edge.start == place]
        if after and not any(edge.end == place for edge in graph.edges):
            layer[place] = min(after) - 1
    return layer


def _across(
    joined: Sequence[Sequence[int]], widths: np.ndarray, layers: np.ndarray
) -> np.ndarray:
    """Return the x of each box and point, after moves towards their neighbours."""
    rows = [np.flatnonzero(layers == k) for k in range(layers.max(initial=0) + 1)]
    x = np.zeros(len(widths))
    # Nodes with few neighbours have small weights, so they give way to others.
    weights = np.array([max(len(near), 0.5) ** 2.0 for near in joined])
    for row in rows:
        x[row] = np.cumsum(widths[row] + GAP) - (widths[row].sum() + GAP * len(row)) / 2
    for round_ in range(ROUNDS):
        for k in range(len(rows)) if round_ % 2 == 0 else range(len(rows))[::-1]:
            # Neighbours above (-1), below (1), or both (0) in the last rounds.
            side = 0 if round_ >= ROUNDS - BOTH else -1 if round_ % 2 == 0 else 1
            wanted = np.array(
                [_wanted(int(i), joined, layers, x, side) for i in rows[k]]
            )
            order = np.argsort(wanted, kind="stable")
            rows[k] = rows[k][order]
            x[rows[k]] = _apart(wanted[order], widths[rows[k]], weights[rows[k]])
    return x - (x - widths / 2).min(initial=0) + GAP


def _wanted(
    i: int,
    joined: Sequence[Sequence[int]],
    layers: np.ndarray,
    x: np.ndarray,
    side: int,
) -> float:
    near = [
        x[j] for j in joined[i] if side == 0 or np.sign(layers[j] - layers[i]) == side
    ]
    return (
        float(np.mean(near)) if near else float(np.mean(x) if not joined[i] else x[i])
    )


def _apart(
    wanted: np.ndarray, widths: np.ndarray, weights: np.ndarray, gap: float = GAP
) -> np.ndarray:
    """Return positions that leave gaps between boxes and are nearest to `wanted`.

    The method is weighted isotonic regression.
    """
    least = np.concatenate([[0.0], np.cumsum((widths[1:] + widths[:-1]) / 2 + gap)])[
        : len(wanted)
    ]
    # Each block is (weighted sum of positions, sum of weights, number of boxes).
    blocks: list[tuple[float, float, int]] = []
    for place, weight in zip(wanted - least, weights, strict=True):
        blocks.append((place * weight, weight, 1))
        while (
            len(blocks) > 1
            and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]
        ):
            last, before = blocks.pop(), blocks.pop()
            blocks.append(
                (last[0] + before[0], last[1] + before[1], last[2] + before[2])
            )
    return (
        np.array(
            [total / weight for total, weight, count in blocks for _ in range(count)]
        )
        + least
    )


def _down(sizes: np.ndarray, layer: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    heights = np.zeros(max(layer, default=0) + 1)
    np.maximum.at(heights, np.array(layer, int), sizes[:, 1])
    return GAP + np.concatenate([[0.0], np.cumsum(heights + BETWEEN)[:-1]]), heights


def _way(
    chain: Sequence[int],
    x: np.ndarray,
    y: np.ndarray,
    half: np.ndarray,
    heights: np.ndarray,
    layers: Sequence[int],
) -> np.ndarray:
    points = [(x[chain[0]], y[chain[0]] + half[chain[0]])]
    for i in chain[1:-1]:
        points += [
            (x[i], y[i] - heights[layers[i]] / 2),
            (x[i], y[i] + heights[layers[i]] / 2),
        ]
    return np.array([*points, (x[chain[-1]], y[chain[-1]] - half[chain[-1]])])
