"""Report of chain_rule_ledger: answer, tables and figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm

import research
from experiments.chain_rule_ledger import NAMED, NEURON, SHOWN_EXAMPLES
from research.derivatives.ledger import picture
from research.derivatives.ledger.graph import Edge, Graph, Node
from research.derivatives.ledger.layout import Layout
from research.figures import new_figure


def answer(findings: research.runs.Findings) -> str:
    """Say what was explained, and how large the errors are."""
    numbers = findings.numbers
    softmax = numbers["models"]["softmax"]
    return (
        "Line by line, by the chain rule: the table of one neuron has "
        f"{numbers['neuron_rows']} rows, {by_hand(numbers)}, and that of softmax "
        f"regression on the digits has {softmax['rows']}. Of the "
        f"{numbers['entries']:,} entries of all gradients, "
        f"{numbers['bits_that_differ']} differ in any bit from jax.grad, run operation "
        f"by operation. The table names the line of {numbers['bugs_found']} of "
        f"{numbers['bugs']} planted bugs that produce a NaN or an infinity."
    )


def by_hand(numbers: dict[str, Any]):
    """Say how much the neuron's table differs from the numbers by hand."""
    error = numbers["error_by_hand"]
    return (
        f"within {error:.0e} of the numbers computed by hand"
        if error
        else "equal to the numbers computed by hand"
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the tables of the neuron, of the programs, and of the bugs."""
    numbers = findings.numbers
    return (
        table_of_neuron(numbers),
        table_of_models(numbers),
        table_of_bugs(numbers["hunted"]),
    )


def table_of_neuron(numbers: dict[str, Any]):
    """Return the table of the neuron."""
    rows = tuple(map(tuple, numbers["neuron"]))
    return research.runs.Table(
        "One sigmoid neuron at "
        f"{', '.join(f'{name} = {value:g}' for name, value in NEURON.items())}",
        (
            "row",
            "equation",
            "value",
            "input: × local derivative → contribution to its adjoint",
            "adjoint",
            "rule",
        ),
        rows,
        "Read values downwards and adjoints upwards. An adjoint is the sum of the "
        "contributions of the rows below it.",
    )


def table_of_models(numbers: dict[str, Any]):
    """Return the sizes of the programs' tables."""
    rows = tuple(
        (NAMED[name], f["rows"], f["with_adjoint"], f["entries"], f["value"], f["norm"])
        for name, f in numbers["models"].items()
    )
    columns = (
        "program",
        "rows",
        "rows with an adjoint",
        "entries of the gradient",
        "value",
        "norm of the gradient",
    )
    return research.runs.Table("The programs", columns, rows)


def table_of_bugs(hunted: Sequence[dict[str, Any]]):
    """Return the table that shows where each NaN was found."""
    rows = tuple(
        (
            f["bug"],
            f["primitive"],
            "backward" if f["backward"] else "forward",
            f["line"],
            f["right"],
        )
        for f in hunted
    )
    columns = ("bug", "found at", "in the pass", "line", "as planted")
    return research.runs.Table(
        "Origin of the first NaN or infinity", columns, rows, hunted[0]["sentence"]
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the graphs of the neuron, the two models and a bug.

    The models' adjoints are drawn as images.
    """
    arrays, numbers = result.arrays, result.numbers
    network = numbers["models"]["network"]
    pictures = {
        "neuron": (
            "Backpropagation through one neuron",
            neuron_caption(numbers),
            draw_graph(arrays, "neuron"),
        ),
        "softmax": (
            "The backward pass of softmax regression",
            softmax_caption(numbers),
            draw_graph(arrays, "softmax"),
        ),
        "softmax_adjoints": (
            "What the backward pass of softmax regression computes",
            softmax_adjoints_caption(),
            draw_softmax_adjoints(arrays),
        ),
        "network": (
            "The backward pass of a network",
            f"A network with one hidden layer of tanh and {network['entries']} "
            "parameters. Rows without an adjoint are left out.",
            draw_graph(arrays, "network"),
        ),
        "network_adjoints": (
            "How the error of each digit spreads over the hidden units",
            "The adjoints of the network's two matrix products, for at most "
            f"{SHOWN_EXAMPLES} digits. Left: the last product. Right: the first "
            "product, which the pass reaches later. Each row is one example (red: "
            "positive, blue: negative). The error of each digit is spread over the "
            "units that caused it.",
            draw_network_adjoints(arrays),
        ),
        "bug": ("Origin of a NaN", bug_caption(numbers), draw_graph(arrays, "bug")),
    }
    return {
        key: research.figures.Picture(*picture) for key, picture in pictures.items()
    }


def neuron_caption(numbers: dict[str, Any]):
    """Return the caption of the first figure."""
    return (
        f"The {numbers['neuron_rows']} rows of a sigmoid neuron with squared error. "
        "Blue, computed downwards: the values, and the local derivative on each edge. "
        "Red, computed upwards: the adjoints, and the contribution of each edge to "
        f"the adjoint above. All numbers are {by_hand(numbers)}."
    )


def softmax_caption(numbers: dict[str, Any]):
    """Return the caption of the second figure."""
    found = numbers["models"]["softmax"]
    return (
        f"The {found['with_adjoint']} rows with an adjoint; arrays are shown by shape "
        "and Euclidean norm. The norm of the gradient, intercepts included, is "
        f"{found['norm']:.3g}."
    )


def softmax_adjoints_caption():
    """Return the caption of the third figure."""
    return (
        f"Left: the adjoints of the logits of {SHOWN_EXAMPLES} digits, which are "
        "(softmax - one-hot label) / n. Right: the gradient with respect to the "
        "weights, an 8 × 8 image for each class."
    )


def bug_caption(numbers: dict[str, Any]):
    """Return the caption of the last figure."""
    return (
        f"{numbers['hunted'][0]['sentence']} The thick red line is the edge on which "
        "it arises: the adjoint below it is finite, the contribution above it is not. "
        "The mask removes the infinite slope from "
        "the value but not from the chain rule: 0 times infinity is NaN. The table "
        f"locates {numbers['bugs_found']} of {numbers['bugs']} planted bugs in this "
        "way."
    )


def draw_graph(arrays: Mapping[str, np.ndarray], name: str) -> str:
    """Return the saved graph of a program as `Ledger.svg` draws it.

    Args:
      arrays: Arrays of the graph. name/boxes, shape (n, 4), has centres and sizes.
        name/texts, shape (n, 4), has title, value, adjoint and kind. name/ways has the
        points of all edges, one after another, and name/way_lengths the number of
        points of each edge. name/places, shape (edges, 2), has the positions of the
        labels. name/labels, shape (edges, 3), has local derivative, contribution and
        kind. name/size has width and height.
      name: Prefix of the names of the arrays.
    """
    saved = {key: arrays[f"{name}/{key}"] for key in ("boxes", "texts", "labels")}
    nodes = tuple(Node(*map(str, text), hint="") for text in saved["texts"])
    stops = np.cumsum(arrays[f"{name}/way_lengths"])
    ways = np.split(arrays[f"{name}/ways"], stops[:-1])
    edges = tuple(
        Edge(*ends(saved["boxes"], way), *map(str, label))
        for way, label in zip(ways, saved["labels"], strict=True)
    )
    layout = Layout(
        saved["boxes"][:, :2],
        saved["boxes"][:, 2:],
        tuple(ways),
        arrays[f"{name}/places"],
        *map(float, arrays[f"{name}/size"]),
    )
    heading = f"Backpropagation through {NAMED.get(name, 'a planted bug')}"
    return picture.draw(Graph(nodes, edges), layout, heading, "", dark=False)


def ends(boxes: np.ndarray, way: np.ndarray) -> tuple[int, int]:
    """Return the numbers of the boxes at which an edge starts and ends."""
    half = boxes[:, 2:] * [0, 0.5]
    below, above = boxes[:, :2] + half, boxes[:, :2] - half
    nearest = lambda places, end: int(np.argmin(np.sum((places - end) ** 2, axis=1)))
    return nearest(below, way[0]), nearest(above, way[-1])


def draw_softmax_adjoints(arrays: dict[str, np.ndarray]):
    """Draw the adjoints of the logits, and the gradient as images of the classes."""
    images = np.pad(
        arrays["softmax/gradient 0"].T.reshape(2, 5, 8, 8),
        ((0, 0), (0, 0), (1, 1), (1, 1)),
    )
    images = images.transpose(0, 2, 1, 3).reshape(20, 50)
    figure, axes = new_figure(1, 2, width_ratios=(1, 1.6))
    logits = arrays["softmax/adjoint 0"]
    draw_heat(axes[0, 0], logits, "adjoints of the logits", "class", "example")
    draw_heat(
        axes[0, 1], images, "gradient by the weights", "classes 0 to 4 and 5 to 9"
    )
    return figure


def draw_network_adjoints(arrays: dict[str, np.ndarray]):
    """Draw the adjoints of the network's two matrix products, the last one first."""
    figure, axes = new_figure(1, 2)
    panels = (
        (arrays["network/adjoint 1"], "adjoints of the last product", "class"),
        (arrays["network/adjoint 0"], "adjoints of the first product", "hidden unit"),
    )
    for panel, parts in zip(axes[0], panels, strict=True):
        draw_heat(panel, *parts, "example")
    return figure


def draw_heat(
    axes: Axes, values: np.ndarray, title: str, across: str, down: str = ""
) -> None:
    """Draw a matrix as an image with a colour scale. The colour of 0 is white.

    If `down` is empty, the pixels are square and the axes have no ticks.
    """
    axes.grid(False)
    aspect = "auto" if down else "equal"
    image = axes.imshow(
        values,
        cmap="RdBu_r",
        norm=CenteredNorm(),
        aspect=aspect,
        interpolation="nearest",
    )
    axes.set(xlabel=across, ylabel=down)
    if not down:
        axes.set(xticks=[], yticks=[])
    axes.set_title(title, loc="left", fontsize=10)
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(image, ax=axes, shrink=0.85 if down else 0.5).ax.tick_params(
            labelsize=8
        )
