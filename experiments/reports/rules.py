"""Report of rules: answer, tables and figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import research
from experiments.reports import _dots as dots
from experiments.rules import WHO, largest
from research.verification.docstrings import describe


def answer(findings: research.runs.Findings) -> str:
    """Say whether every rule agrees with its references, and by how much."""
    numbers = findings.numbers
    every = (
        "Yes"
        if not numbers["over_bound"]
        else f"No, {numbers['over_bound']} table entries exceed their bound"
    )
    compared = {cell["who"] for cell in numbers["cells"] if cell["reason"] is None}
    others = {
        "optax": f"by at most {numbers['optax_float64']:.1e} from optax if it has the "
        "same rule",
        "recorded": f"by at most {numbers['recorded_float64']:.1e} from recorded "
        "results of other packages",
    }
    clauses = [words for who, words in others.items() if who in compared]
    beside = f", {', and '.join(clauses)}" if clauses else ""
    one = numbers["rules"] == 1
    return (
        f"{every}: {numbers['rules']} {'rule differs' if one else 'rules differ'} by "
        f"at most {numbers['formula_float64']:.1e} from the formulas of their papers "
        f"in float64 ({numbers['formula_float32']:.1e} in float32){beside}. These are "
        f"{numbers['numbers']:,} comparisons; for {numbers['reasons']:,} more the "
        "tables give a reason why they are impossible."
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the tables: all rules, reasons for missing numbers, and each family."""
    names, cells = findings.numbers["names"], findings.numbers["cells"]
    return (
        verification_table(cells, names),
        reasons_table(cells),
        *family_tables(names),
    )


def verification_table(cells: list[dict[str, Any]], names: Sequence[str]):
    """Return the table of the largest differences of each rule from each authority."""
    rows = []
    for name in names:
        row = [name]
        for who in WHO:
            worst = largest(cells, who, "float64", name)
            row += (
                [f"{worst['largest']:.0e}", f"{worst['problem']}, {worst['step']}"]
                if worst
                else ["none", ""]
            )
        for who in ("formula", "optax"):
            worst = largest(cells, who, "float32", name)
            row.append(f"{worst['largest']:.0e}" if worst else "none")
        rows.append(
            (*row, sum(c["reason"] is not None for c in cells if c["rule"] == name))
        )
    columns = ["rule"]
    for who in WHO:
        columns += [who, f"{who}: problem, step"]
    columns = (*columns, "formula, float32", "optax, float32", "reasons")
    note = (
        "Largest difference over problems and arguments, in float64 unless the column "
        "name says otherwise. Recorded: results of torch and timm."
    )
    return research.runs.Table(
        "Every rule and its references", columns, tuple(rows), note
    )


def reasons_table(cells: list[dict[str, Any]]):
    """Return the reasons for missing numbers, with counts."""
    counted = {}
    for cell in cells:
        if cell["reason"] is not None:
            counted.setdefault((WHO[cell["who"]], cell["reason"]), []).append(
                cell["rule"]
            )
    rows = tuple(
        (who, reason, ", ".join(dict.fromkeys(rules)), len(rules))
        for (who, reason), rules in counted.items()
    )
    return research.runs.Table(
        "Reasons for missing numbers", ("beside", "reason", "rules", "cells"), rows
    )


def family_tables(names: Sequence[str]):
    """Return one table for each family of rules.

    For each rule, the table says what it does and when to use it, and gives its
    defaults and its paper.
    """
    families = {}
    for name in names:
        found = describe(name)
        row = (
            found.signature,
            " ".join((found.summary, *found.formula)),
            found.use,
            found.papers,
            found.line,
        )
        families.setdefault(found.family, []).append(row)
    return [
        research.runs.Table(
            f"The rules of research/update_rules/{family}.py",
            (
                "rule and defaults",
                "formula and differences",
                "when to use it",
                "papers",
                "line",
            ),
            tuple(rows),
        )
        for family, rows in families.items()
    ]


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw how many digits agree, for each rule and problem."""
    arrays, numbers = result.arrays, result.numbers
    panels = [
        ("formula_float64", "formula, float64"),
        ("optax_float64", "optax, float64"),
        ("formula_float32", "formula, float32"),
    ]
    names, columns = (
        numbers["names"],
        [name.replace("_", " ") for name in numbers["problems"]],
    )
    height = 1.6 + 0.2 * len(names)
    figure, axes = research.figures.new_figure(
        1, len(panels), width=10.0, height=height, sharey=True
    )
    for axis, (key, title) in zip(axes[0], panels, strict=True):
        eps = np.finfo(key.rpartition("_")[2]).eps
        draw_digits(axis, np.log10(np.maximum(arrays[key], eps / 4)), columns, names)
        axis.set_title(title)
    caption = (
        f"Difference of each of {len(names)} rules from its formula in fifty digits "
        "and from optax: power of ten of the largest difference within fifty steps. "
        "White: no number; the table gives the reason."
    )
    return {
        "verification": research.figures.Picture(
            "Every rule and its references", caption, figure
        )
    }


# Column of the table, and the label, colour, marker and filling in the figure.
SHOWN = (
    ("formula", "formula", "full batch", "o", "full"),
    ("optax", "optax", "second class", "s", "none"),
    ("formula, float32", "formula, float32", "stochastic", "^", "full"),
)


def draw_reference(reference: Mapping[str, Any]) -> research.figures.Picture:
    """Draw the largest differences of each rule of a stored reference."""
    rows = dots.rows(reference)[::-1]
    figure, axes = research.figures.new_figure(
        width=dots.WIDTH, height=1.0 + 0.17 * len(rows)
    )
    panel, eps = axes[0, 0], np.finfo(float).eps
    for column, label, colour, mark, fill in SHOWN:
        found = [
            (max(float(row[column]), eps / 4), height)
            for height, row in enumerate(rows)
            if row[column] != "none"
        ]
        look = {"color": research.figures.COLOURS[colour], "fillstyle": fill}
        panel.plot(*np.transpose(found), mark, ms=5, label=label, **look)
    for dtype in ("float64", "float32"):
        end = float(np.finfo(dtype).eps)
        panel.axvline(end, color=research.figures.COLOURS["exact"], lw=1, ls="--")
    panel.set(xscale="log", xlim=(1e-17, 1e-2), xlabel="largest difference")
    panel.set_xticks([1e-15, 1e-10, 1e-5])
    panel.minorticks_off()
    panel.set_yticks(range(len(rows)), [row["rule"] for row in rows])
    panel.set_ylim(-0.8, len(rows) - 0.2)
    panel.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=2)
    caption = (
        f"Largest difference of each of {len(rows)} rules from its formula in fifty "
        "digits and from optax, over all problems and fifty steps. Dashed: ε of "
        "float64 and of float32. Without an optax mark: optax does not have the rule. "
        f"A difference of 0 is drawn at ε / 4. {dots.SOURCE}"
    )
    return research.figures.Picture("Every rule and its references", caption, figure)


def draw_digits(
    axis: Axes, exponents: np.ndarray, columns: Sequence[str], rows: Sequence[str]
):
    """Draw a grid of colours labelled with the exponents."""
    axis.imshow(
        exponents, cmap="viridis_r", vmin=-17, vmax=-5, aspect="auto", alpha=0.75
    )
    axis.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    axis.grid(visible=False)
    for (row, column), exponent in np.ndenumerate(exponents):
        if np.isfinite(exponent):
            ink = "white" if exponent > -8.5 else "black"
            axis.text(
                column,
                row,
                f"{exponent:.0f}".replace("-", "−"),
                ha="center",
                va="center",
                fontsize=6,
                color=ink,
            )
