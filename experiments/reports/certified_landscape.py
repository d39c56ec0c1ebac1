"""Report of certified_landscape: answer, table and figure."""

import numpy as np

import research
from experiments._landscapes import MARKS
from experiments.certified_landscape import KINDS, LANDSCAPES

SHOWN = ("himmelblau", "camel", "rastrigin")
CROWDED = 100  # With more points than this, contour lines are left out.


def answer(findings: research.runs.Findings) -> str:
    """Say how many points are proved, and how many a search finds."""
    found = findings.numbers["landscapes"]
    parts = [
        f"{name.capitalize()}: the box is proved to contain "
        f"{'exactly' if part['complete'] else 'at least'} {part['proved']} critical "
        f"point{'s' if part['proved'] != 1 else ''}; Newton's "
        f"method from {part['starts']} starts finds {part['searched']}"
        for name, part in found.items()
    ]
    return f"{'. '.join(parts)}."


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return one table with a row for each function."""
    rows = [
        (
            name,
            part["formula"],
            part["minimum"],
            part["saddle"],
            part["maximum"],
            part["unproved"],
            part["undecided"],
            part["boxes"],
            part["widest"],
            part["searched"],
            f"[{part['minimum_low']:.10g}, {part['minimum_high']:.10g}]",
        )
        for name, part in findings.numbers["landscapes"].items()
    ]
    return (
        research.runs.Table(
            "Proved critical points",
            (
                "function",
                "formula",
                "minima",
                "saddles",
                "maxima",
                "kind unproved",
                "undecided boxes",
                "boxes examined",
                "widest box of a point",
                "found by a search",
                "proved bounds of the minimum",
            ),
            tuple(rows),
            "Each point lies in a box that contains exactly one critical point. The "
            "kind follows from the signs of the eigenvalues of the Hessian. All of "
            "this is proved by interval arithmetic with outward rounding, for the "
            "function of real numbers that the program describes.",
        ),
    )


def draw(findings: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the points on the contours of three functions."""
    figure, axes = research.figures.new_figure(len(SHOWN), 1, width=4.6, height=11.0)
    for panel, name in zip(axes[:, 0], SHOWN, strict=True):
        bounds = LANDSCAPES[name][2]
        heights = findings.arrays[f"{name}/heights"]
        x, y = (np.linspace(*ends, len(heights)) for ends in bounds)
        panel.grid(False)
        points = findings.arrays[f"{name}/points"]
        if len(points) <= CROWDED:
            lines = {"colors": "#B8BDC4", "linewidths": 0.6}
            panel.contour(x, y, np.log1p(heights - heights.min()), 12, **lines)
        kinds = findings.arrays[f"{name}/kinds"]
        for kind, (colour, mark) in MARKS.items():
            panel.plot(
                *points[kinds == KINDS.index(kind)].T,
                mark,
                color=research.figures.COLOURS[colour],
                markersize=3 if len(points) > CROWDED else 6,
                label=kind,
                lw=0,
            )
        panel.set_title(f"{name}: {len(points)} points", loc="left")
        panel.set(xlabel="x", ylabel="y")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3
    )
    found = findings.numbers["landscapes"]
    counts = ", ".join(f"{found[name]['proved']} of {name}" for name in SHOWN)
    title = (
        "Every critical point in the box, proved complete"
        if all(found[name]["complete"] for name in SHOWN)
        else "The critical points that are proved in the given time"
    )
    return {
        "points": research.figures.Picture(
            "Critical points of three functions",
            f"{title}: {counts}. The lines "
            "are contours of log(1 + f - min f). They are left out if there are many "
            "points.",
            figure,
        )
    }
