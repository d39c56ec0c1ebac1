"""Report of taylor_mode: answer, tables and figure."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import research
from experiments.reports import _dots as dots
from experiments.taylor_mode import (
    JET,
    NESTED,
    ORDERS,
    STEPS,
    TAYLOR,
    TIMED,
)

COLOURS = {TAYLOR: "#0072B2", NESTED: "#D55E00", JET: "#009E73"}


def answer(findings: research.runs.Findings) -> str:
    """Compare the costs at the largest orders, and give the error of the pendulum."""
    numbers, arrays = findings.numbers, findings.arrays
    found = arrays[f"scalar/{TAYLOR}"], arrays[f"scalar/{NESTED}"]
    order, nested = map(_largest_order, found)
    last = min(order, nested)
    fails = [
        name for name, part in numbers["functions"].items() if not part["works"][JET]
    ]
    jet = (
        f"no rule for operations of {len(fails)} functions ({', '.join(fails)})"
        if fails
        else "rules for every function"
    )
    return (
        "In Taylor mode, the operations grow at most "
        f"{numbers['growth_of_taylor']:.1f} times from order {order // 2} to {order}; "
        "those of nested derivatives grow up to "
        f"{numbers['growth_of_nested']:.1f} times from order "
        f"{nested // 2} to {nested}. Up to order {last}, the derivatives of the scalar "
        f"function take {found[0][last]:.0f} times the operations of the function in "
        f"Taylor mode, and {found[1][last]:.0f} times nested. JAX's jet has {jet}. "
        "A pendulum that is integrated by series of order 12, with 64 steps in a "
        "period, returns to its start with an error of "
        f"{numbers['pendulum_error']:.0e}."
    )


def _largest_order(counts: np.ndarray) -> int:
    """Return the largest order whose operations were counted."""
    return int(np.flatnonzero(np.isfinite(counts))[-1])


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the table of operations, the table of seconds, and the pendulum's."""
    counts, timed = [], []
    for name, part in findings.numbers["functions"].items():
        for way in COLOURS:
            count = findings.arrays[f"{name}/{way}"]
            row = [
                float(count[k]) if k < len(count) and np.isfinite(count[k]) else None
                for k in TIMED
            ]
            counts.append(research.runs.dashed((f"{name}, {way}", *row)))
            ratios = part["ratio_of_seconds"]
            seconds = [ratios.get(f"{way}/{order}") for order in TIMED]
            compiling = [part["compile_seconds"].get(f"{way}/{k}") for k in TIMED]
            timed.append(research.runs.dashed((f"{name}, {way}", *seconds, *compiling)))
    swings = [
        (f"order {order}", *map(float, row))
        for order, row in zip(ORDERS, findings.arrays["pendulum"], strict=True)
    ]
    heads = [f"order {order}" for order in TIMED]
    return (
        research.runs.Table(
            "Operations, relative to the function",
            ("function and way", *heads),
            tuple(counts),
            "All derivatives up to the order, along one direction. A dash: the way has "
            "no rule for the function, or the order was not tried.",
        ),
        research.runs.Table(
            "Seconds, and seconds to compile",
            (
                "function and way",
                *(f"{head}, seconds / f" for head in heads),
                *(f"{head}, seconds to compile" for head in heads),
            ),
            tuple(timed),
            "Ratios of seconds are medians of one run, measured in turns. A dash: not "
            "measured.",
        ),
        research.runs.Table(
            "Error of the pendulum after a period",
            ("series", *(f"{steps} steps" for steps in STEPS)),
            tuple(swings),
            "Distance from the start, in angle and velocity.",
        ),
    )


def draw_reference(reference: Mapping[str, Any]) -> research.figures.Picture:
    """Draw the operations of a stored reference by order, for two functions."""
    figure, axes = research.figures.new_figure(
        2, 1, width=dots.WIDTH, height=7.2, sharex=True, sharey=True
    )
    rows = {row["function and way"]: row for row in dots.rows(reference)}
    for panel, name in zip(axes[:, 0], ("scalar", "network"), strict=True):
        for way, colour in COLOURS.items():
            row = rows[f"{name}, {way}"]
            found = [dots.number(row[f"order {order}"]) for order in TIMED]
            known = [(k, v) for k, v in zip(TIMED, found, strict=True) if v is not None]
            if known:
                panel.semilogy(*zip(*known, strict=True), "o-", color=colour, label=way)
        panel.set(ylabel="operations / those of f", xlabel="order of the derivative")
        panel.set_title(f"f: {name}", loc="left")
        panel.set_xticks(TIMED)
        panel.yaxis.set_major_formatter("{x:,.0f}")
        panel.label_outer()
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3
    )
    numbers = reference["numbers"]
    caption = (
        "Operations for all derivatives up to an order, divided by those of the "
        "function. In Taylor mode they grow at most "
        f"{numbers['growth_of_taylor']:.1f} times "
        "from order 5 to 10; nested derivatives grow up to "
        f"{numbers['growth_of_nested']:.0f} times from order 3 to 6. {dots.SOURCE}"
    )
    return research.figures.Picture("The cost of high derivatives", caption, figure)


def draw(findings: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw operations and compile times by order, and the pendulum's error."""
    figure, axes = research.figures.new_figure(1, 3, width=13, height=4.4)
    counts, times, swing = axes[0]
    styles = {"scalar": "-", "network": (0, (4, 2))}
    for name, dashes in styles.items():
        part = findings.numbers["functions"][name]
        for way, colour in COLOURS.items():
            found = findings.arrays[f"{name}/{way}"]
            label = f"{way}, {name}"
            counts.semilogy(
                np.arange(len(found)), found, color=colour, ls=dashes, label=label
            )
            compiling = part["compile_seconds"]
            known = [k for k in TIMED if f"{way}/{k}" in compiling]
            seconds = [compiling[f"{way}/{k}"] for k in known]
            times.semilogy(known, seconds, marker="o", ls=dashes, ms=4, color=colour)
    counts.set(xlabel="order", ylabel="operations / operations of f")
    times.set(xlabel="order", ylabel="seconds to compile")
    for order, row, colour in zip(
        ORDERS,
        findings.arrays["pendulum"],
        ("#8A8F98", "#E69F00", "#009E73", "#0072B2"),
        strict=True,
    ):
        shown = np.maximum(row, 1e-16)
        swing.loglog(STEPS, shown, "o-", ms=4, color=colour, label=f"order {order}")
    swing.set(xlabel="steps in a period", ylabel="error after a period")
    swing.set_xticks(STEPS, [str(steps) for steps in STEPS])
    swing.minorticks_off()
    swing.legend(loc="lower left")
    figure.legend(
        *counts.get_legend_handles_labels(), loc="outside lower center", ncols=3
    )
    numbers = findings.numbers
    nested = _largest_order(findings.arrays[f"scalar/{NESTED}"])
    return {
        "orders": research.figures.Picture(
            "The cost of high derivatives",
            "Left: operations for all derivatives up to an order, relative to the "
            "function. They grow like a power of the order in Taylor mode, and "
            f"up to {numbers['growth_of_nested']:.0f}-fold from order {nested // 2} to "
            f"{nested} for nested derivatives. Middle: the seconds to compile. Right: "
            "the error of a pendulum after a period, integrated by its Taylor series.",
            figure,
        )
    }
