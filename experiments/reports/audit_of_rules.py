"""Report of audit_of_rules: answer, tables and figure."""

from typing import Any

import numpy as np

import research
from experiments import _audit_rows as audit


def answer(findings: research.runs.Findings) -> str:
    """Return the answer in a few sentences."""
    n = findings.numbers
    judged = n["optimizers"] - n["not_judged"]
    return (
        f"Most do: of {n['optimizers']} optimizers, {judged} were judged and "
        f"{n['agrees']} of these agree with the formula. {n['convention']} differ by a "
        f"convention, {n['differs']} differ otherwise, and {n['bug']} contradict their "
        f"paper in a way that a second reader confirmed. {n['not_judged']} are not "
        "judged, for the reasons in the table."
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the tables: counts, and one table for each library."""
    n = findings.numbers
    return (
        counts_table(n),
        *(library_table(library, n) for library in n["libraries"]),
    )


def counts_table(numbers: dict[str, Any]) -> research.runs.Table:
    """Return the number of optimizers by library and verdict."""
    rows = []
    for k, library in enumerate(numbers["libraries"]):
        counts = [
            numbers[f"{verdict.replace(' ', '_')}_by_library"][k]
            for verdict in audit.VERDICTS
        ]
        version = numbers["versions"][library]
        rows.append((library, version, *counts, sum(counts)))
    totals = [sum(row[k] for row in rows) for k in range(2, 3 + len(audit.VERDICTS))]
    return research.runs.Table(
        "Verdicts by library",
        ("library", "version", *audit.VERDICTS, "all"),
        (*rows, ("all", "", *totals)),
        "An optimizer with other options is a row of its own.",
    )


def library_table(library: str, numbers: dict[str, Any]) -> research.runs.Table:
    """Return the rows of one library."""
    columns = (
        "optimizer",
        "formula",
        "verdict",
        "largest difference",
        "from step",
        "changed formula",
        "cause",
    )
    rows = tuple(row_of(row) for row in numbers["rows"] if row["library"] == library)
    return research.runs.Table(
        f"{library} {numbers['versions'][library]}",
        columns,
        rows,
        "Changed formula: the largest difference after the change that the cause "
        "describes.",
    )


def row_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return the cells of one optimizer."""
    judged = row["verdict"] != audit.NOT_JUDGED
    return (
        row["optimizer"],
        row["reference"],
        row["verdict"],
        f"{row['largest']:.0e} ({row['problem']})" if judged else "",
        row["first"] or "",
        f"{row['explained']:.0e}" if row["explained"] == row["explained"] else "",
        row["cause"],
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the verdicts of each library as stacked bars."""
    numbers = result.numbers
    figure, axes = research.figures.new_figure(1, 1, width=7.0, height=3.0)
    axis, left = axes[0][0], np.zeros(len(numbers["libraries"]))
    for verdict in audit.VERDICTS:
        counts = numbers[f"{verdict.replace(' ', '_')}_by_library"]
        axis.barh(numbers["libraries"], counts, left=left, label=verdict)
        left = left + np.array(counts)
    axis.set_xlabel("optimizers")
    axis.legend(frameon=False, ncols=len(audit.VERDICTS), fontsize=7)
    caption = "Verdicts on the optimizers of each library."
    return {"verdicts": research.figures.Picture("Verdicts", caption, figure)}
