"""Report of derivative_rules: answer, tables and figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import research
from experiments.derivative_rules import WAYS


def answer(findings: research.runs.Findings) -> str:
    """Say that the rules hold, and how many digits each method confirms."""
    numbers = findings.numbers
    rules, (jax_off, values_off) = (
        numbers["rules"],
        (numbers[f"disagreement_with_{who}"] for who in ("jax", "values")),
    )
    worst = max(rules, key=lambda name: max(rules[name][way] for way in WAYS[2:]))
    return (
        f"Yes, all {len(rules)}: JAX, forward and in reverse, differs from them by "
        f"{jax_off:.1e} at most, which is rounding, and difference quotients of f "
        f"alone by {values_off:.1e} (worst for {worst}). Each rule holds only where it "
        "says: outside its domain it is an error, not a number."
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the only table."""
    return (table(findings.numbers),)


def table(numbers: dict[str, Any]):
    """Return the table of every rule with its domain and the four methods."""
    rows = [
        (name, f["text"], f["domain"], *(f[way] for way in WAYS))
        for name, f in numbers["rules"].items()
    ]
    return research.runs.Table(
        "The rules and what four others say of them",
        ("rule", "text", "domain", *WAYS),
        tuple(rows),
        "The last four columns: the largest distance from the rule's f', over the "
        "larger of |f'| and |f| / (1 + |x|).",
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw each method's disagreement with each rule."""
    figure, axes = research.figures.new_figure(width=9, height=8.2)
    draw_witnesses(
        axes[0, 0], list(result.numbers["rules"]), result.arrays["disagreement"]
    )
    jax_off, values_off = (
        result.numbers[f"disagreement_with_{who}"] for who in ("jax", "values")
    )
    caption = (
        "How far four other ways to the derivative are from each of "
        f"{len(result.numbers['rules'])} rules, relatively. JAX's two modes (dots) are "
        f"within {jax_off:.1e}: rounding, the dashed line being ε. What knows only the "
        f"values of f (triangles) comes within {values_off:.1e}, and lies further "
        "right by what cancels in a difference. Exact agreement is drawn at the left "
        "edge."
    )
    return {
        "witnesses": research.figures.Picture(
            "The rules before four witnesses", caption, figure
        )
    }


def draw_witnesses(axes: Axes, names: Sequence[str], disagreement: np.ndarray):
    """Draw one row for each rule, with one marker for each method."""
    colours = research.figures.COLOURS
    looks = (
        ("full batch", "o"),
        ("mini-batch", "o"),
        ("stochastic", ">"),
        ("decaying", "<"),
    )
    left, rows = 1e-17, np.arange(len(names))[::-1]
    for i, (way, (colour, mark)) in enumerate(zip(WAYS, looks, strict=True)):
        x = np.maximum(disagreement[:, i], left)
        axes.plot(
            x,
            rows + 0.12 * (1.5 - i),
            mark,
            color=colours[colour],
            markersize=4.5,
            label=way,
            alpha=0.9,
        )
    axes.axvline(np.finfo(float).eps, color=colours["exact"], lw=1, ls=(0, (5, 3)))
    axes.set(
        xscale="log",
        xlim=(left / 2, 1e-11),
        ylim=(-0.8, len(names) - 0.2),
        xlabel="relative disagreement with the rule",
    )
    axes.set_yticks(rows, names)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.4, 1.06), ncols=4, handletextpad=0.2
    )
