"""Report of critical_points: answer, tables and figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle

import research
from experiments._landscapes import MARKS
from experiments.critical_points import EXPECTED, LANDSCAPES


def kinds(points: Sequence[dict[str, Any]]):
    """Say how many points there are of each kind."""
    numbers = {kind: sum(point["kind"] == kind for point in points) for kind in MARKS}
    plural = {"minimum": "minima", "saddle": "saddles", "maximum": "maxima"}
    return ", ".join(
        f"{number} {kind if number == 1 else plural[kind]}"
        for kind, number in numbers.items()
    )


def answer(findings: research.runs.Findings) -> str:
    """Say what Newton's method and descent found on both landscapes."""
    numbers = findings.numbers
    himmelblau, camel = (
        numbers["landscapes"][name] for name in ("himmelblau", "camel")
    )
    return (
        "The gradient of Himmelblau's function vanishes at "
        f"{numbers['himmelblau_found']} points ({kinds(himmelblau['points'])}), that "
        f"of the six-hump camel at {numbers['camel_found']} "
        f"({kinds(camel['points'])}). {how_many(numbers)} "
        f"{elsewhere(numbers['descents_elsewhere'])} If the Hessian is singular, "
        "the derivatives of orders 3 and 4 decide the kind, or leave it undecided."
    )


def how_many(numbers: dict[str, Any]):
    """Say whether Newton's method finds all critical points of both functions."""
    found = {name: EXPECTED[name][0] for name in ("himmelblau_found", "camel_found")}
    starts = numbers["landscapes"]["himmelblau"]["starts"]
    if all(numbers[name] == total for name, total in found.items()):
        return (
            "These are all critical points; Newton's method finds them from "
            f"{starts} starts."
        )
    totals = " and ".join(map(str, found.values()))
    return (
        f"There are {totals}. From {starts} starts, Newton's method misses the others; "
        "more starts are needed."
    )


def elsewhere(share: float):
    """Say where descents end. `share` is the larger share of both functions."""
    if share == 0:
        return "Gradient descent ends in a minimum from every start."
    return (
        f"Up to {100 * share:.1f} % of the descents on a function do not end in a "
        "minimum."
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the tables of the critical points and of the degenerate points."""
    numbers = findings.numbers
    return points_table(numbers["landscapes"]), degenerate_table(numbers["degenerate"])


def points_table(found: dict[str, Any]):
    """Return the table of every critical point of both landscapes."""
    rows = [
        (
            name,
            point["kind"],
            *point["x"],
            point["value"],
            *point["eigenvalues"],
            point["newton_radius"],
        )
        for name, part in found.items()
        for point in part["points"]
    ]
    return research.runs.Table(
        "Critical points",
        (
            "function",
            "kind",
            "x",
            "y",
            "f",
            "least eigenvalue",
            "largest",
            "Newton's radius",
        ),
        tuple(rows),
        "Newton's radius: estimate, from samples, of how close a start must be for "
        "Newton's method to converge to the point.",
    )


def degenerate_table(degenerate: dict[str, Any]):
    """Return the table of degenerate points, with the verdict of higher orders."""
    rows = [
        (name, part["order"] or "none", part["note"])
        for name, part in degenerate.items()
    ]
    return research.runs.Table(
        "Degenerate points: the Hessian at 0 has a zero eigenvalue",
        ("function", "deciding order", "verdict"),
        tuple(rows),
        "Peano's function has a minimum at 0 along every straight line, but not in "
        "the plane.",
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw both landscapes with every critical point."""
    figure, axes = research.figures.new_figure(2, 1, width=4.6, height=8.0)
    for panel, (name, found) in zip(
        axes[:, 0], result.numbers["landscapes"].items(), strict=True
    ):
        draw_landscape(
            panel,
            {
                key: result.arrays[f"{name}/{key}"]
                for key in ("x", "y", "heights", "ends")
            },
        )
        draw_points(panel, found["points"])
        panel.set_title(f"{name}:\n{LANDSCAPES[name][0]}", loc="left", fontsize=10)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2
    )
    parts = result.numbers["landscapes"]
    caption = (
        "Contour lines and every point where the gradient vanishes: "
        f"{kinds(parts['himmelblau']['points'])} above, "
        f"{kinds(parts['camel']['points'])} below. From inside a circle, "
        "Newton's method is estimated to converge to its centre. "
        f"{elsewhere(result.numbers['descents_elsewhere'])} Crosses mark the ends."
    )
    return {
        "landscapes": research.figures.Picture(
            "Critical points of two functions", caption, figure
        )
    }


def draw_landscape(axes: Axes, arrays: dict[str, np.ndarray]):
    """Draw contour lines, denser near the minimum, and the ends of the descents."""
    heights = arrays["heights"]
    levels = heights.min() + np.ptp(heights) * np.linspace(0.02, 1, 16) ** 3
    axes.grid(False)
    axes.contour(
        arrays["x"], arrays["y"], heights, levels, colors="#B8BDC4", linewidths=0.8
    )
    x, y = arrays["ends"].T
    axes.plot(
        x,
        y,
        "x",
        color=research.figures.COLOURS["exact"],
        markersize=9,
        label="ends of descents",
        lw=0,
    )
    axes.set(xlabel="x", ylabel="y")


def draw_points(axes: Axes, points: Sequence[dict[str, Any]]):
    """Draw a marker for each point, by kind, and the circle of Newton's method."""
    for kind, (name, mark) in MARKS.items():
        of_kind = [point for point in points if point["kind"] == kind]
        colour = research.figures.COLOURS[name]
        x = np.array([point["x"] for point in of_kind]).reshape(-1, 2)
        axes.plot(*x.T, mark, color=colour, markersize=6, label=kind, lw=0)
        for point in of_kind:
            axes.add_patch(
                Circle(
                    tuple(point["x"]),
                    point["newton_radius"],
                    fill=False,
                    color=colour,
                    lw=1,
                )
            )
