"""Report of cheap_gradient: answer, tables and figures."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import research
from experiments.cheap_gradient import EXCEPTIONS, MODES
from experiments.reports import _dots as dots

BOUND = 5.0  # Theoretical bound of the ratio of operations.


def answer(findings: research.runs.Findings) -> str:
    """State the bound, the function closest to it, and the functions that exceed it."""
    numbers = findings.numbers
    found = numbers["functions"]
    above = _above(found)
    listed = ", ".join(f"{name} {found[name]['ratio']:.4g}" for name in above)
    exceed = (
        f"JAX's own derivative rules exceed the theoretical bound of {BOUND:g} for: "
        f"{listed}."
        if above
        else f"No function exceeds the theoretical bound of {BOUND:g}."
    )
    seconds = {name: part["ratio_of_seconds"] for name, part in found.items()}
    slow = max(seconds, key=lambda name: seconds[name])
    measured = not math.isnan(seconds[slow])  # With --seconds 0, no program is timed.
    return (
        f"For {len(found) - len(EXCEPTIONS)} of {len(found)} functions, a gradient "
        f"takes at most {numbers['largest_ratio']:.1f} times the operations of its "
        f"function (most for the {numbers['dearest']}). {exceed} For the Rosenbrock "
        f"function of up to {numbers['largest']:,} variables, a gradient takes at most "
        f"{numbers['ratio_at_any_n']:.1f} times the operations in reverse mode. With "
        f"{numbers['largest']:,} variables in forward mode, it takes "
        f"{numbers['forward_at_largest']:,.0f} times."
        + (
            f" In seconds the ratio is at most {seconds[slow]:.1f} ({slow})."
            if measured
            else ""
        )
    )


def _above(found: Mapping[str, Any]) -> list[str]:
    """Return the names of the functions whose ratio exceeds the bound."""
    return [name for name, part in found.items() if part["ratio"] > BOUND]


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the only table."""
    return (table(findings.numbers),)


def table(numbers: dict[str, Any]):
    """Return the table of all functions."""
    rows = [
        (
            name,
            f["operations"],
            f["ratio"],
            f["hessian_vector_ratio"],
            f["ratio_of_seconds"],
            f["function_seconds"],
        )
        for name, f in numbers["functions"].items()
    ]
    return research.runs.Table(
        "Cost of a gradient relative to its function",
        (
            "function",
            "operations",
            "gradient",
            "Hessian times a vector",
            "gradient in seconds",
            "seconds of f",
        ),
        tuple(rows),
        "Ratios of counted operations; the last column but one is a ratio of the "
        "times of the fastest calls. Above the bound of "
        f"{BOUND:g}: {', '.join(_above(numbers['functions'])) or 'no function'}.",
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the ratio of every function, and the ratio of one function for every n."""
    figure, axes = research.figures.new_figure(
        1, 2, width=11, height=4.8, width_ratios=(1.25, 1)
    )
    found, numbers = result.numbers["functions"], result.numbers
    draw_zoo(axes[0, 0], found)
    draw_growth(axes[0, 1], result.arrays)
    caption = (
        "Left: all partial derivatives in reverse mode cost at most "
        f"{numbers['largest_ratio']:.1f} times the operations of the function (dots; "
        f"the line is the bound of {BOUND:g}). The exceptions are "
        f"{', '.join(EXCEPTIONS)}, whose rules in JAX differ from plain reverse mode. "
        "Circles are ratios of seconds, which include memory traffic and overhead. "
        "Right: for the Rosenbrock function of n variables the ratio is at most "
        f"{numbers['ratio_at_any_n']:.1f} in reverse mode; it grows with n in forward "
        "mode and for differences."
    )
    return {"ratios": research.figures.Picture("The cheap gradient", caption, figure)}


def draw_reference(reference: Mapping[str, Any]) -> research.figures.Picture:
    """Draw the ratio of every function of a stored reference."""
    found = {
        row["function"].replace(" by ", "\nby "): {
            "ratio": row["gradient"],
            "ratio_of_seconds": row["gradient in seconds"],
        }
        for row in dots.rows(reference)
    }
    figure, axes = research.figures.new_figure(width=dots.WIDTH, height=7.6)
    draw_zoo(axes[0, 0], found)
    axes[0, 0].get_legend().remove()
    dear = research.figures.COLOURS["stochastic"]
    axes[0, 0].plot([], [], "o", color=dear, label="operations, exceptions")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2)
    numbers = reference["numbers"]
    caption = (
        "All partial derivatives in reverse mode cost at most "
        f"{numbers['largest_ratio']:.1f} times the operations of the function (dots; "
        f"the line is the bound of {BOUND:g}). The exceptions, orange, are "
        f"{', '.join(EXCEPTIONS)}. Circles are ratios of seconds. {dots.SOURCE}"
    )
    return research.figures.Picture("The cheap gradient", caption, figure)


def draw_zoo(axes: Axes, found: dict[str, Any]):
    """Draw one row for each function."""
    colours, rows = research.figures.COLOURS, np.arange(len(found))[::-1]
    for i, (name, part) in zip(rows, found.items(), strict=True):
        dear = name.replace("\n", " ") in EXCEPTIONS
        colour = colours["stochastic" if dear else "full batch"]
        axes.plot(
            part["ratio"],
            i,
            "o",
            color=colour,
            label="operations" if i == rows[0] else None,
        )
        hollow = {
            "mfc": "none",
            "color": colours["data"],
            "label": "seconds" if i == rows[0] else None,
        }
        axes.plot(part["ratio_of_seconds"], i, "o", markersize=7, **hollow)
    axes.axvline(BOUND, color=colours["exact"], lw=1, ls=(0, (5, 3)))
    axes.set(xscale="log", xlabel="gradient / function")
    ticks = [
        t
        for t in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 300, 1000)
        if axes.get_xlim()[0] < t < axes.get_xlim()[1]
    ]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(rows, list(found))
    axes.legend(loc="lower right")


def draw_growth(axes: Axes, arrays: dict[str, np.ndarray]):
    """Draw the cost of all partial derivatives against n, in three ways."""
    colours = dict(zip(MODES, ("full batch", "mini-batch", "stochastic"), strict=True))
    for mode in MODES:
        axes.loglog(
            arrays["n"],
            arrays[mode],
            color=research.figures.COLOURS[colours[mode]],
            label=mode,
        )
    axes.set(
        xlabel="number of inputs n",
        ylabel="operations of gradient / function",
    )
    axes.legend(loc="upper left")
