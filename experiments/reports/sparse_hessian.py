"""Report of sparse_hessian: answer, table and figure."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import research
from experiments.reports import _dots as dots
from experiments.sparse_hessian import EXPECTED

SHOWN = ("banded", "convolution", "arrow")  # Patterns in the figure.


def answer(findings: research.runs.Findings) -> str:
    """Say how many products each matrix takes, and what that costs."""
    found = findings.numbers["problems"]
    parts = [
        f"{name} ({part['size']:,} variables): {part['colours']} products, "
        f"{part['seconds']['sparse'][1]:.1f} times the seconds of f"
        + (
            f", where the dense matrix takes {part['seconds']['dense'][1]:,.0f}"
            if "dense" in part["seconds"]
            else ""
        )
        for name, part in found.items()
    ]
    return (
        "It takes one product of the matrix with a vector for each colour, instead of "
        "one for each column or row. Columns or rows that one product computes "
        "together have the same colour. "
        + ". ".join(part[0].upper() + part[1:] for part in parts)
        + ". The seconds leave out the search for the pattern, which is needed once."
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return one table with a row for each problem."""
    rows = []
    for name, part in findings.numbers["problems"].items():
        rows.append(
            (
                f"{name}, {'Hessian' if part['second'] else 'Jacobian'}",
                part["size"],
                part["entries"],
                part["colours"],
                part["operations"],
                part["dense_operations"],
                _compared(part),
                _ratio(part, "sparse"),
                _ratio(part, "dense"),
                part["pattern_seconds"],
            )
        )
    return (
        research.runs.Table(
            "Sparse and dense derivatives",
            (
                "problem",
                "variables",
                "entries",
                "products",
                "operations / f",
                "operations / f, dense",
                "compared with the dense matrix",
                "seconds / f",
                "seconds / f, dense",
                "seconds of the first call",
            ),
            tuple(rows),
            "Seconds are ratios to those of f, measured in turns. The sparse "
            "derivative is compiled with its pattern, and includes the check of the "
            "pattern by a product with a random vector. The first call finds the "
            "pattern, and compiles. A dense matrix with too many columns is not "
            "computed. Compared: yes, if the largest difference from it is at most "
            f"{EXPECTED['largest_difference'][1]:g} of its largest entry; no, if there "
            "is no dense matrix.",
        ),
    )


def _compared(part: dict[str, Any]) -> bool | str:
    """Return whether a dense matrix confirms the sparse one, or how much it differs."""
    if part["difference"] is None:
        return False
    agrees = part["difference"] <= EXPECTED["largest_difference"][1]
    return agrees or f"differs by {part['difference']:.1e}"


def _ratio(part: dict[str, Any], way: str) -> str:
    if way not in part["seconds"]:
        return "not computed"
    _, ratio, low, high = part["seconds"][way]
    return f"{ratio:,.1f} [{low:,.1f}, {high:,.1f}]"


def draw_reference(reference: Mapping[str, Any]) -> research.figures.Picture:
    """Draw the operations of a stored reference, sparse and dense."""
    figure, axes = research.figures.new_figure(width=dots.WIDTH, height=4.6)
    place, rows = axes[0, 0], dots.rows(reference)[::-1]
    for column, label, colour in (
        ("operations / f", "by colouring", "full batch"),
        ("operations / f, dense", "dense", "stochastic"),
    ):
        x = [row[column] for row in rows]
        fill = research.figures.COLOURS[colour]
        place.plot(x, range(len(rows)), "o", ms=8, color=fill, label=label)
        for y, value in enumerate(x):
            place.annotate(
                f"{value:,.0f}",
                (value, y),
                (0, 8),
                textcoords="offset points",
                ha="center",
            )
    place.set(xscale="log", xlabel="operations of the derivative / those of f")
    place.set_yticks(
        range(len(rows)), [row["problem"].replace(", ", ",\n") for row in rows]
    )
    place.set_ylim(-0.5, len(rows) - 0.3)
    place.xaxis.set_major_formatter("{x:,.0f}")
    place.margins(x=0.1)
    place.minorticks_off()
    figure.legend(loc="outside upper left", ncols=2)
    counts = ", ".join(f"{row['products']} for {row['problem']}" for row in rows[::-1])
    caption = (
        "Operations of a Hessian or Jacobian that is mostly zero, divided by those of "
        f"the function. By colouring it takes few products: {counts}. {dots.SOURCE}"
    )
    return research.figures.Picture("Sparse and dense derivatives", caption, figure)


def draw(findings: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw a corner of three patterns, and the seconds of the derivatives."""
    found = findings.numbers["problems"]
    figure, axes = research.figures.new_figure(
        1, len(SHOWN) + 1, width=10, height=3.4, width_ratios=(1, 1, 1, 1.7)
    )
    colours, places = research.figures.COLOURS, np.arange(len(found))[::-1]
    for panel, name in zip(axes[0], SHOWN, strict=False):
        part = found[name]
        panel.grid(False)
        panel.imshow(findings.arrays[f"{name}/pattern"], cmap="Greys", vmax=1.3)
        panel.set(xticks=[], yticks=[])
        panel.set_title(name, loc="left")
        panel.set_xlabel(f"{part['colours']} products")
    last = axes[0, len(SHOWN)]
    for way, colour in (("sparse", "full batch"), ("dense", "stochastic")):
        known = [
            (part["seconds"][way][1], place)
            for part, place in zip(found.values(), places, strict=True)
            if way in part["seconds"]
        ]
        if known:
            last.plot(*np.array(known).T, "o", ms=8, color=colours[colour], label=way)
    last.set(xscale="log", xlabel="seconds of the derivative / seconds of f")
    last.set_yticks(places, list(found))
    last.legend(loc="lower right")
    return {
        "patterns": research.figures.Picture(
            "Patterns, and the cost of derivatives",
            "The first 64 rows and columns of three patterns. The number of products "
            "that give all entries: "
            + ", ".join(f"{name} {part['colours']}" for name, part in found.items())
            + ". Right: seconds of the sparse and of the dense derivative, relative to "
            "the function.",
            figure,
        )
    }
