"""Report of batch_size: answer, tables and figures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import research
from experiments.batch_size import fit_law
from experiments.reports import _dots as dots
from research import figures


def answer(findings: research.runs.Findings) -> str:
    """Say up to which size larger batches are useful, and what a full batch costs."""
    numbers = findings.numbers
    curves = numbers["curves"]
    limits = [
        f"{c['pays_up_to']:,} on {c['workload']} (n = {c['n']:,})"
        for c in curves
        if c["pays_up_to"] is not None
    ]
    none = [c["workload"] for c in curves if c["pays_up_to"] is None]
    task = f"to reach {numbers['target']:g} of the initial f - f*"
    words = []
    if limits:
        words.append(
            f"Up to {' and '.join(limits)}: these are the largest batches that need at "
            f"most twice as many example gradients as very small batches {task}."
        )
    if none:
        words.append(
            f"On {' and '.join(none)}, every measured batch needs more than twice as "
            f"many example gradients as very small batches {task}."
        )
    return " ".join([*words, *map(cost, curves)])


def cost(curve: dict[str, Any]):
    """Say what a full batch costs on one data set, and which batch is fastest."""
    full = curve["full_over_least"]
    times = (
        "does not reach the target"
        if full is None
        else f"needs {rounded(full)} times as many"
    )
    return (
        f"On {curve['workload']} very small batches need about "
        f"{rounded(curve['least_examples'])} example gradients, by a fit to all sizes; "
        f"the full batch {times}. In seconds, b = {curve['fastest_in_seconds']:,} is "
        f"the fastest ({curve['fastest_seconds']:.2g} s)."
    )


def rounded(value: float):
    """Format a number with two significant digits: 1,400."""
    return f"{float(f'{value:.2g}'):,.10g}"


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the tables. The terminal shows the first table, the report all tables."""
    return sizes_table(findings.numbers), knees_table(findings.numbers)


def sizes_table(numbers: Mapping[str, Any]) -> research.runs.Table:
    """Return the table of the cost to reach the target, by data set and batch size."""
    return research.runs.Table(
        f"Cost to reach {numbers['target']:g} of the initial f - f*",
        (
            "workload",
            "batch",
            "rate",
            "steps",
            "example gradients",
            "low",
            "high",
            "seconds",
            "reached",
        ),
        tuple(
            (
                c["workload"],
                r["batch_size"],
                r["rate"],
                r["steps"][0],
                *r.get("examples", [None] * 3),
                r["seconds"],
                f"{r['reached']} of {r['seeds']}",
            )
            for c in numbers["curves"]
            for r in c["rows"]
        ),
        "Medians over the reported seeds at the first evaluation at or below the "
        "target; the interval of the example gradients is a 95 % bootstrap interval. "
        "Seconds: one training alone, without compilation and evaluation. The last "
        "batch of each data set is the full batch." + rates_at_edges(numbers),
    )


def rates_at_edges(numbers: Mapping[str, Any]) -> str:
    """Name the batches whose rate is the least or the greatest of all rates tried."""
    names = [
        f"{r['batch_size']:,} on {c['workload']}"
        for c in numbers["curves"]
        for r in c["rows"]
        if r["rate_at_edge"]
    ]
    if not names:
        return ""
    return (
        " The rate is the least or the greatest of all rates tried, so a better one "
        f"may exist, for these batches: {', '.join(names)}."
    )


def knees_table(numbers: Mapping[str, Any]) -> research.runs.Table:
    """Return the table of knees, noise scales, and deviations from the law."""
    return research.runs.Table(
        "The knee",
        (
            "workload",
            "n",
            "numbers",
            "least steps",
            "least example gradients",
            "knee",
            "pays up to",
            "noise scale at the start",
            "at the target",
            "lowest over law",
            "highest over law",
        ),
        tuple(
            (
                c["workload"],
                c["n"],
                c["dtype"],
                c["least_steps"],
                c["least_examples"],
                c["knee"],
                "–" if c["pays_up_to"] is None else c["pays_up_to"],
                c["noise_at_start"],
                c["noise_at_target"],
                *c["examples_over_law"],
            )
            for c in numbers["curves"]
        ),
        "The law of McCandlish et al. 2018 (An empirical model of large-batch "
        "training) is fitted to all sizes: example gradients = least × (1 + b / knee). "
        "Knee: their critical batch size. Least steps: least example gradients / knee, "
        "the steps of very large batches. Pays up to: the largest batch that needs at "
        "most twice the least example gradients. Over law: the measured number "
        "divided by that of the law. Noise scale: tr(C) "
        "/ |∇f|², the batch size at which noise and signal in the gradient are equal; "
        f"it grows as ∇f shrinks. If n exceeds {numbers['probe']:,}, gaps and noise "
        "scales are estimated on that many examples.",
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw steps and example gradients against the batch size."""
    figure = steps_and_examples(result.numbers["curves"], rounded)
    return {
        "batch_size": research.figures.Picture(
            "How large should a batch be?", caption(result.numbers), figure
        )
    }


def draw_reference(reference: Mapping[str, Any]) -> research.figures.Picture:
    """Draw the same figure from the table of a stored reference."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for row in dots.rows(reference):
        if row["low"] is not None:
            b = row["batch"]
            examples = [row[key] for key in ("example gradients", "low", "high")]
            steps = [None if value is None else value / b for value in examples]
            found = {"batch_size": b, "steps": steps, "examples": examples}
            curves.setdefault(row["workload"], []).append(found)
    made = []
    for name, rows in curves.items():
        law = fit_law(
            [row["batch_size"] for row in rows], [row["examples"][0] for row in rows]
        )
        n = rows[-1]["batch_size"]  # The full batch comes last.
        made.append({"workload": name, "n": n, "rows": rows} | law._asdict())
    knees = "; ".join(f"{rounded(c['knee'])} on {c['workload']}" for c in made)
    words = f"{without_knees(reference['numbers'])}: {knees}. {dots.SOURCE}"
    figure = steps_and_examples(made, rounded)
    return research.figures.Picture("How large should a batch be?", words, figure)


def caption(numbers: dict[str, Any]):
    """Return the caption of the figure, with the important numbers."""
    knees = "; ".join(
        f"{rounded(c['knee'])} on {c['workload']} (the noise scale is "
        f"{rounded(c['noise_at_start'])} at the start, {rounded(c['noise_at_target'])} "
        "at the target)"
        for c in numbers["curves"]
    )
    return f"{without_knees(numbers)}: {knees}."


def without_knees(numbers: Mapping[str, Any]):
    """Return the beginning of the caption, up to the positions of the knees."""
    return (
        f"Gradient descent to {numbers['target']:g} of the initial f - f*, each batch "
        "size at its own best rate; medians over seeds with 95 % intervals. Dashed: "
        "perfect scaling, where doubling the batch halves the steps. Dotted: the knee "
        "of the fitted law, where a batch needs twice as many example gradients as "
        "very small batches"
    )


def steps_and_examples(
    curves: Sequence[dict[str, Any]], write: Callable[[float], str]
) -> Figure:
    """Draw steps to the target above and example gradients below.

    For each curve, perfect scaling and the knee of the fitted law are also drawn.

    Args:
      curves: The `curves` in the numbers of batch_size, each with workload, n, rows,
        least_examples and knee.
      write: Function that formats the batch size at the knee.
    """
    figure, axes = figures.new_figure(2, 1, width=4.6, height=7.4)
    colours = [figures.COLOURS[name] for name in ("first class", "second class")]
    for curve, colour, side in zip(curves, colours, ("right", "left"), strict=False):
        rows = [row for row in curve["rows"] if "examples" in row]
        sizes = np.array([row["batch_size"] for row in rows])
        for ax, name, line in zip(
            axes[:, 0],
            ("steps", "examples"),
            (1 / sizes, np.ones(len(sizes))),
            strict=True,
        ):
            middle, low, high = np.array([row[name] for row in rows], float).T
            label = f"{curve['workload']}, n = {curve['n']:,}"
            figures.band(
                ax,
                sizes,
                middle,
                low,
                high,
                color=colour,
                label=label,
                marker="o",
                markersize=4,
            )
            ax.plot(
                sizes, curve["least_examples"] * line, "--", color=colour, linewidth=1
            )
            mark_knee(ax, curve["knee"], write(curve["knee"]), colour, side)
    label_axes(axes[:, 0])
    axes[0, 0].legend(loc="upper right", frameon=False)
    return figure


def mark_knee(ax: Axes, knee: float, words: str, colour: Any, side: str) -> None:
    """Draw a dotted line at the knee, with its batch size in words on one side."""
    ax.axvline(knee, 0, 0.78, color=colour, linestyle=":", linewidth=1.2)
    place = {"ha": side, "transform": ax.get_xaxis_transform()}
    ax.text(knee, 0.79, f" knee {words} ", color=colour, **place)


def label_axes(axes: np.ndarray) -> None:
    """Set the scales, ticks and titles of the axes of steps and of examples."""
    for ax, title in zip(axes, ("Steps", "Example gradients"), strict=True):
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="batch size",
            title=f"{title} to the target",
        )
    axes[0].set_ylim(bottom=1)
    for ax in axes:  # Powers of ten as exponents are too small on a page.
        ax.set_xticks([1, 100, 10_000, 1_000_000])
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.yaxis.set_major_formatter("{x:,.0f}")
