"""Report of edge_of_stability: answer, table and figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import research
from experiments.edge_of_stability import RATES, SLOW

COLOURS = ("#D55E00", "#E69F00", "#009E73", "#0072B2", "#8A8F98")


def answer(findings: research.runs.Findings) -> str:
    """Say where the sharpness ends, and at which rates it does not arrive."""
    numbers = findings.numbers
    edge, small = numbers["rows"][: len(RATES)], numbers["rows"][len(RATES) :]
    ends, slow = (
        [f"{row['end']:.2f} (η = {row['rate']})" for row in rows]
        for rows in (edge, small)
    )
    first = [row["first"] for row in edge if row["first"] is not None]
    arrives = (
        f"{_arrivals(first)} " + _rises(numbers["rises_before"], numbers["rises_after"])
        if first
        else "It does not reach 2 / η within these steps. "
    )
    smaller = (
        "At smaller rates the quotient ends at"
        if _arrives(small)
        else "At smaller rates, the sharpness does not reach 2 / η within these steps: "
        "the quotient ends at"
    )
    return (
        f"The sharpness divided by 2 / η ends at {', '.join(ends)}. {arrives}{smaller} "
        f"{' and '.join(slow)}."
    )


def _arrives(rows: Sequence[dict[str, Any]]) -> bool:
    """Return whether the sharpness reaches 2 / η at a rate of these rows."""
    return any(row["first"] is not None for row in rows)


def _arrivals(first: Sequence[int]) -> str:
    """Say after how many steps the sharpness arrives, and at how many of RATES."""
    steps = " to ".join(map(str, sorted({min(first), max(first)})))
    if len(first) == len(RATES):
        return f"It first reaches 2 / η after {steps} steps."
    return (
        f"It reaches 2 / η at {len(first)} of these {len(RATES)} rates, first after "
        f"{steps} steps."
    )


def _rises(before: float | None, after: float | None) -> str:
    """Say how often the loss rises; None means that no steps were counted."""
    if after is None:
        if before is None:
            return ""
        return f"Before, the loss rises in at most {100 * before:.1f} % of the steps. "
    earlier = "" if before is None else f"; before, in at most {100 * before:.1f} %"
    return (
        f"From then on, the loss rises in at least {100 * after:.0f} % of the steps"
        f"{earlier}. In the end it is lower all the same. "
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return one table with a row for each rate."""
    percent = lambda share: "–" if share is None else f"{100 * share:.1f} %"
    rows = [
        (
            row["rate"],
            row["start"],
            row["end"],
            f"{row['least_of_last_quarter']:.3f} to "
            f"{row['greatest_of_last_quarter']:.3f}",
            row["first"],
            percent(row["rises_before"]),
            percent(row["rises_after"]),
            row["loss"],
        )
        for row in findings.numbers["rows"]
    ]
    return (
        research.runs.Table(
            "Sharpness divided by 2 / η",
            (
                "rate η",
                "at the start",
                "at the end",
                "last quarter",
                "steps until it reaches 1",
                "steps that raise the loss, before",
                "after",
                "last loss",
            ),
            tuple(rows),
            "Not reached: the sharpness did not reach 2 / η. All steps then count as "
            "steps before. A dash: there are no such steps.",
        ),
    )


def draw(findings: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the sharpness divided by 2 / η, and the loss, by step."""
    figure, axes = research.figures.new_figure(2, 1, width=4.6, height=6.4, sharex=True)
    upper, lower = axes[:, 0]
    for rate, colour in zip((*RATES, *SLOW), COLOURS, strict=True):
        ratio = findings.arrays[f"{rate}/ratio"]
        losses = findings.arrays[f"{rate}/loss"]
        style = "-" if rate in RATES else (0, (4, 2))
        steps = np.linspace(0, len(losses) - 1, len(ratio))
        upper.plot(steps, ratio, color=colour, ls=style, label=f"η = {rate:g}")
        lower.semilogy(losses, color=colour, ls=style, lw=1.0)
    upper.axhline(1, color=research.figures.COLOURS["exact"], lw=1.0)
    upper.set(ylabel="sharpness / (2 / η)", ylim=(0, None))
    lower.set(xlabel="step", ylabel="loss", xlim=(0, None))
    figure.legend(
        *upper.get_legend_handles_labels(), loc="outside lower center", ncols=2
    )
    numbers = findings.numbers
    arrived = all(row["first"] is not None for row in numbers["rows"][: len(RATES)])
    late = _arrives(numbers["rows"][len(RATES) :])
    return {
        "sharpness": research.figures.Picture(
            "The edge of stability",
            "Above: the largest eigenvalue of the Hessian, divided by 2 / η, along "
            f"full-batch gradient descent. At {len(RATES)} rates it "
            f"{'rises to 1, and ' if arrived else ''}ends at "
            f"{numbers['least_at_end']:.2f} to "
            f"{numbers['greatest_at_end']:.2f}. At smaller rates (dashed) it "
            f"{'rises later' if late else 'does not reach 1'}. "
            "Below: the loss."
            + (
                " Once the sharpness is there, the loss rises in many steps and falls "
                "all the same."
                if arrived and numbers["rises_after"]
                else ""
            ),
            figure,
        )
    }
