"""Report of derivative_rules: answer, tables and figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import research
from experiments.derivative_rules import EXPECTED, WAYS

# Shorter names for the figure.
LABELS = {"power with a whole exponent": "power, whole exponent"}


def answer(findings: research.runs.Findings) -> str:
    """Say whether the rules hold, and how many digits each method confirms."""
    numbers = findings.numbers
    rules, (jax_off, values_off) = (
        numbers["rules"],
        (numbers[f"disagreement_with_{who}"] for who in ("jax", "values")),
    )
    worst = max(rules, key=lambda name: max(rules[name][way] for way in WAYS[2:]))
    rounding = EXPECTED["disagreement_with_jax"][1]
    holds = jax_off <= rounding  # False for NaN.
    verdict = f"Yes, all {len(rules)}" if holds else f"Not within {rounding:.0e}"
    return (
        f"{verdict}: JAX, in forward and in reverse mode, differs from the rules by at "
        f"most {jax_off:.1e}{', which is rounding' if holds else ''}. Difference "
        f"quotients of f differ by at most {values_off:.1e} (for {worst}). Each rule "
        "holds only on its domain. Outside the domain, it raises an error and returns "
        "no number."
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
        "The rules and four other methods",
        ("rule", "text", "domain", *WAYS),
        tuple(rows),
        "The last four columns: largest difference from the rule's f', divided by the "
        "larger of |f'| and |f| / (1 + |x|).",
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw each method's disagreement with each rule."""
    figure, axes = research.figures.new_figure(width=4.6, height=8.6)
    draw_witnesses(
        axes[0, 0], list(result.numbers["rules"]), result.arrays["disagreement"]
    )
    jax_off, values_off = (
        result.numbers[f"disagreement_with_{who}"] for who in ("jax", "values")
    )
    caption = (
        f"Relative difference between each of {len(result.numbers['rules'])} rules and "
        f"four other methods. The two modes of JAX (dots) agree to {jax_off:.1e}; the "
        "dashed line is ε. The methods that use only values of "
        f"f (triangles) agree to {values_off:.1e}; cancellation in their differences "
        "costs digits. Exact agreement is drawn at the left edge."
    )
    return {
        "witnesses": research.figures.Picture(
            "The rules and four other methods", caption, figure
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
    most = np.max(disagreement, where=np.isfinite(disagreement), initial=0.0)
    axes.axvline(np.finfo(float).eps, color=colours["exact"], lw=1, ls=(0, (5, 3)))
    axes.set(
        xscale="log",
        xlim=(left / 2, max(1e-11, 2 * most)),
        ylim=(-0.8, len(names) - 0.2),
        xlabel="relative difference from the rule",
    )
    axes.set_xticks([1e-17, 1e-15, 1e-13, 1e-11])
    axes.minorticks_off()
    axes.set_yticks(rows, [LABELS.get(name, name) for name in names])
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(
        handles, labels, loc="outside upper left", ncols=2, handletextpad=0.2
    )
