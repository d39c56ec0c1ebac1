"""Report of chain_rule_ledger: answer, tables and figures."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

import research
from experiments.chain_rule_ledger import NAMED, NEURON, SHOWN_EXAMPLES
from research.figures import new_figure


def answer(findings: research.runs.Findings) -> str:
    """Say what was explained, and how large the errors are."""
    numbers = findings.numbers
    softmax = numbers["models"]["softmax"]
    return (
        "Line by line, by the chain rule: the ledger of one neuron has "
        f"{numbers['neuron_rows']} rows, {by_hand(numbers)}, and that of softmax "
        f"regression on the digits has {softmax['rows']}. Of the "
        f"{numbers['entries']:,} entries of all gradients, "
        f"{numbers['bits_that_differ']} differ in any bit from jax.grad, run operation "
        f"by operation. The ledger names the line of {numbers['bugs_found']} of "
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
            draw_beside(arrays, "neuron"),
        ),
        "softmax": (
            "The backward pass of softmax regression",
            softmax_caption(numbers),
            draw_softmax(arrays),
        ),
        "network": (
            "The backward pass of a network",
            f"A network with one hidden layer of tanh and {network['entries']} "
            "parameters. Right, from bottom to top as the pass runs: adjoints of the "
            "entries of the last product, then of the first product, one row for each "
            "example (red: positive, blue: negative). The error of each digit is "
            "spread over the units that caused it.",
            draw_network(arrays),
        ),
        "bug": (
            "Origin of a NaN",
            bug_caption(numbers),
            draw_beside(arrays, "bug"),
        ),
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
        f"Left: the {found['with_adjoint']} rows with an adjoint; arrays are shown by "
        "shape and Euclidean norm. Right: the adjoints of the logits of "
        f"{SHOWN_EXAMPLES} digits, which are (softmax - one-hot label) / n, and the "
        "gradient with respect to the weights, an 8 × 8 image for each class. The "
        f"norm of the gradient, intercepts included, is {found['norm']:.3g}."
    )


def bug_caption(numbers: dict[str, Any]):
    """Return the caption of the last figure."""
    return (
        f"{numbers['hunted'][0]['sentence']} The mask removes the infinite slope from "
        "the value but not from the chain rule: 0 times infinity is NaN. The ledger "
        f"locates {numbers['bugs_found']} of {numbers['bugs']} planted bugs in this "
        "way."
    )


def draw_beside(arrays: dict[str, np.ndarray], name: str, panels: Sequence[tuple] = ()):
    """Draw the graph of a program, and images beside the graph.

    `panels` has one tuple (values, title, across, down) for each image. These are the
    arguments of `draw_heat`.
    """
    figure, axes, beside = new_graph(arrays[f"{name}/size"], len(panels))
    draw_graph(axes, arrays, name)
    for panel, parts in zip(beside, panels, strict=True):
        draw_heat(panel, *parts)
    return figure


def draw_softmax(arrays: dict[str, np.ndarray]):
    """Draw softmax regression: graph, adjoints of the logits, and gradient images."""
    images = np.pad(
        arrays["softmax/gradient 0"].T.reshape(2, 5, 8, 8),
        ((0, 0), (0, 0), (1, 1), (1, 1)),
    )
    images = images.transpose(0, 2, 1, 3).reshape(20, 50)
    logits = (arrays["softmax/adjoint 0"], "adjoints of the logits", "class", "example")
    return draw_beside(
        arrays,
        "softmax",
        (logits, (images, "gradient by the weights", "classes 0 to 4 and 5 to 9")),
    )


def draw_network(arrays: dict[str, np.ndarray]):
    """Draw the graph of the network, and the adjoints of its two matrix products."""
    last = (
        arrays["network/adjoint 1"],
        "adjoints of the last product",
        "class",
        "example",
    )
    first = (
        arrays["network/adjoint 0"],
        "adjoints of the first product",
        "hidden unit",
        "example",
    )
    return draw_beside(arrays, "network", (first, last))


INCH = 96.0  # Pixels of a layout per inch.
VALUE, ADJOINT, QUIET = "#00588C", "#B04000", "#8A919B"
FILL = {"input": "#E3F0FA", "output": "#FDEEE2"}


def new_graph(
    size: np.ndarray, panels: int = 0, width: float = 4.6
) -> tuple[Figure, Axes, list[Axes]]:
    """Return a figure for a graph of (width, height) pixels, with panels on its side.

    Returns:
      (figure, axes of the graph, axes of the panels).
    """
    across, down = size / INCH
    if not panels:
        figure, axes = new_figure(width=across, height=down)
        return figure, axes[0, 0], []
    figure, axes = new_figure(
        panels, 2, width=across + width, height=down, width_ratios=(across, width)
    )
    for spare in axes[1:, 0]:
        spare.remove()
    whole = axes[0, 0]
    whole.set_subplotspec(axes[0, 0].get_gridspec()[:, 0])
    return figure, whole, list(axes[:, 1])


def draw_graph(axes: Axes, arrays: Mapping[str, np.ndarray], name: str) -> None:
    """Draw a graph of boxes with values and adjoints.

    Values that are not finite are highlighted.

    Args:
      axes: Axes to draw on.
      arrays: Arrays of the graph. name/boxes, shape (n, 4), has centres and sizes.
        name/texts, shape (n, 4), has title, value, adjoint and kind. name/ways has the
        points of all edges, one after another, and name/way_lengths the number of
        points of each edge. name/places, shape (edges, 2), has the positions of the
        labels. name/labels, shape (edges, 3), has local derivative, contribution and
        kind. name/size has width and height.
      name: Prefix of the names of the arrays.
    """
    width, height = arrays[f"{name}/size"]
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    axes.axis("off")
    ends = np.cumsum(arrays[f"{name}/way_lengths"])
    ways = np.split(arrays[f"{name}/ways"], ends[:-1])
    for way, place, label in zip(
        ways, arrays[f"{name}/places"], arrays[f"{name}/labels"], strict=True
    ):
        _draw_edge(axes, way, place, *map(str, label))
    for box, text in zip(arrays[f"{name}/boxes"], arrays[f"{name}/texts"], strict=True):
        _draw_box(axes, box, *map(str, text))


def _draw_box(
    axes: Axes, box: np.ndarray, title: str, value: str, adjoint: str, kind: str
) -> None:
    x, y, width, height = box
    spoilt = _is_spoilt(value) or _is_spoilt(adjoint)
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=6",
            facecolor="#FBDDDD" if spoilt else FILL.get(kind, "#F4F6F8"),
            edgecolor="#C00020" if spoilt else QUIET,
            linewidth=2.0 if kind == "fold" or spoilt else 1.0,
        )
    )
    lines = [
        (title, "#1B1F24", "bold"),
        (value, VALUE, "normal"),
        (f"adjoint {adjoint}" if adjoint else "", ADJOINT, "normal"),
    ]
    top = y - height / 2 + 13
    for text, colour, weight in lines:
        if text:
            axes.text(
                x,
                top,
                _plain(text),
                color=colour,
                weight=weight,
                fontsize=7.6,
                ha="center",
                va="center",
            )
            top += 16


def _draw_edge(
    axes: Axes,
    way: np.ndarray,
    place: np.ndarray,
    local: str,
    contribution: str,
    kind: str,
) -> None:
    points = []
    for start, end in itertools.pairwise(way):
        t = np.linspace(0, 1, 21)[:, None]
        middle = (start[1] + end[1]) / 2
        corners = np.array([start, (start[0], middle), (end[0], middle), end])
        weights = np.concatenate(
            [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1
        )
        points.append(weights @ corners)
    style = {"rule": (ADJOINT, (0, (4, 3))), "constant": (QUIET, (0, (1, 2)))}.get(
        kind, (QUIET, "-")
    )
    axes.plot(*np.concatenate(points).T, color=style[0], ls=style[1], lw=1.1, zorder=1)
    x, y = place
    shown = [
        (text, colour)
        for text, colour in ((local, VALUE), (contribution, ADJOINT))
        if text
    ]
    for k, (text, colour) in enumerate(shown):
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        height = y + 13 * (k - (len(shown) - 1) / 2)
        axes.text(
            x,
            height,
            _plain(text),
            color=colour,
            fontsize=7,
            ha="center",
            va="center",
            bbox=ground,
            zorder=2,
        )


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


def _is_spoilt(text: str) -> bool:
    return "nan" in text or "inf" in text


def _plain(text: str) -> str:
    """Escape the dollar signs of a text, which start mathematics in matplotlib."""
    return text.replace("$", r"\$")
