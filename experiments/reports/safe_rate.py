"""Report of safe_rate: answer, table and figure."""

from collections.abc import Callable

import numpy as np

import research
from experiments.safe_rate import FUNCTIONS, MULTIPLES
from research.figures import motion

BEYOND = (0.9, 1.04)  # Rates of the picture for teachers, in multiples of 2 / L.
FRAMES = 10  # Steps of these descents.


def answer(findings: research.runs.Findings) -> str:
    """Say what the proved rates are, and what happens above them."""
    rows = findings.numbers["rows"]
    rates = ", ".join(
        f"{2 / row['proved']:.3g} for {row['function']}"
        for row in rows
        if row["multiple"] == MULTIPLES[0]
    )
    above = [row for row in rows if row["multiple"] > 1 and row["rises"]]
    names = sorted({row["function"] for row in above})
    others = [name for name in FUNCTIONS if name not in names]
    return (
        "Below these rates no step increases f as long as it stays in the box, and "
        f"this is proved: {rates}. In all descents below these rates, "
        f"{findings.numbers['rises_below']} steps increased f. Above these rates, "
        f"steps increase f on {', '.join(names) or 'no function'}"
        + (f", but not on {', '.join(others)}." if names and others else ".")
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return one table with a row for each function and rate."""
    rows = [
        (
            row["function"],
            row["proved"],
            row["seen"],
            row["multiple"],
            row["rate"],
            row["rises"],
            f"{100 * row['left']:.0f} %",
            "all left" if row["end"] is None else row["end"],
        )
        for row in findings.numbers["rows"]
    ]
    return (
        research.runs.Table(
            "Descents below and above the proved rate",
            (
                "function",
                "L, proved",
                "L, largest on a lattice",
                "rate, times 2 / L",
                "rate",
                "steps that increase f",
                "descents that left the box",
                "median of the last f",
            ),
            tuple(rows),
            "L is a bound of all eigenvalues of the Hessian in the box, proved by "
            "interval arithmetic. A descent that leaves the box is not followed "
            "further, because the bound does not hold outside. An increase of at most "
            "1e-12 (1 + |f|) is a rounding error and does not count. The median is "
            "over the descents that stayed in the box.",
        ),
    )


def draw(findings: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the median of f over the starts at each step, for each function and rate."""
    figure, axes = research.figures.new_figure(
        len(FUNCTIONS), 1, width=4.6, height=9.6, sharex=True
    )
    colours = ("#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7")
    for panel, name in zip(axes[:, 0], FUNCTIONS, strict=True):
        values = findings.arrays[f"{name}/values"]
        lowest = np.nanmin(values)
        steps = np.arange(1, values.shape[-1])
        for multiple, of_rate, colour in zip(MULTIPLES, values, colours, strict=True):
            gap = of_rate[:, 1:] - lowest
            finite = np.isfinite(gap).any(axis=0)
            middle = np.full(gap.shape[1], np.nan)
            middle[finite] = np.nanmedian(gap[:, finite], axis=0)
            panel.plot(
                steps,
                np.maximum(middle, 1e-16),
                color=colour,
                label=f"{multiple:g} · 2 / L",
            )
        panel.set(xscale="log", yscale="log", xlabel="step", ylabel="f - lowest f")
        panel.label_outer()
        panel.set_title(name, loc="left")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
    )
    return {
        "descents": research.figures.Picture(
            "Descent below and above the proved rate",
            "The median of f minus its lowest value, over the starts that are still in "
            "the box, for rates from half to twice the proved rate 2 / L. Below 2 / L, "
            "no step in the box increases f.",
            figure,
        ),
        "beyond": draw_beyond(),
    }


def draw_beyond() -> research.figures.Picture:
    """Draw descents on a parabola below and above 2 / L, also animated."""
    still, axes = research.figures.new_figure(2, 1, width=4.6, height=6.4, sharex=True)
    draw_parabolas(axes[:, 0], FRAMES)
    moving, axes = research.figures.new_figure(2, 1, width=4.6, height=6.4, sharex=True)
    film = motion.record(moving, draw_parabolas(axes[:, 0], 0), FRAMES + 1, colours=32)
    low, high = (1 - 2 * multiple for multiple in BEYOND)
    caption = (
        f"Descent on f = ½ L x² from x = 1. A step multiplies x by 1 - rate · L. With "
        f"{BEYOND[0]:g} · 2 / L this is {low:.2f}: every step is smaller than the one "
        f"before. With {BEYOND[1]:g} · 2 / L it is {high:.2f}: every step jumps over "
        "the minimum to a higher place, and the descent diverges."
    )
    return research.figures.Picture("A step beyond 2 / L", caption, still, film)


def draw_parabolas(panels: np.ndarray, shown: int) -> Callable[[int], None]:
    """Draw the first steps of both descents, and return a function that draws more.

    Args:
      panels: Two axes.
      shown: Number of steps that are drawn at first.
    """
    x = np.linspace(-2.6, 2.6, 201)
    lines = []
    for panel, multiple, colour in zip(
        panels, BEYOND, ("#0072B2", "#D55E00"), strict=True
    ):
        panel.plot(x, 0.5 * x**2, color=research.figures.COLOURS["data"], lw=1.4)
        path = (1 - 2 * multiple) ** np.arange(FRAMES + 1)
        lines.append((panel.plot([], [], "o-", color=colour, markersize=4)[0], path))
        panel.set_title(f"rate = {multiple:g} · 2 / L", loc="left")
        panel.set(ylabel="f / L", ylim=(-0.15, 3.4), xlim=(-2.6, 2.6))
    panels[-1].set_xlabel("x")

    def show(k: int) -> None:
        for line, path in lines:
            line.set_data(path[: k + 1], 0.5 * path[: k + 1] ** 2)

    show(shown)
    return show
