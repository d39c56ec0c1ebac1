"""Report of audit_of_rules: answer, tables and figure."""

from typing import Any

import numpy as np

import research
from experiments import _audit_rows as audit

# Keys of research.figures.COLOURS.
COLOURS = {
    audit.AGREES: "full batch",
    audit.CONVENTION: "second class",
    audit.DIFFERS: "stochastic",
    audit.BUG: "exact",
    audit.NOT_JUDGED: "data",
}


def answer(findings: research.runs.Findings) -> str:
    """Return the answer in a few sentences."""
    n = findings.numbers
    judged = n["optimizers"] - n["not_judged"]
    most = "Most do" if 2 * n["agrees"] > judged else "Not most of them"
    wrong = (
        f" Rows that contradict what was found: {n['contradictions']}."
        if n["contradictions"]
        else ""
    )
    return (
        f"{most}: of {n['optimizers']} optimizers and options, {judged} were judged, "
        f"and {n['agrees']} of these agree with the formula. {n['convention']} differ "
        f"by a convention, {n['differs']} differ otherwise, and {n['bug']} contradict "
        "their paper in a way that a second reader confirmed. "
        f"{n['not_judged']} are not judged, for the reasons in the table.{wrong}"
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
        "describes. If this cell is empty, the cause of a deviation was read from the "
        "source and not tested in this way.",
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
    """Draw the verdicts of each library as a bar, with the counts in it."""
    numbers = result.numbers
    figure, axes = research.figures.new_figure(width=4.6, height=3.8)
    axis, libraries = axes[0, 0], numbers["libraries"]
    left = np.zeros(len(libraries))
    for verdict, colour in COLOURS.items():
        counts = np.array(numbers[f"{verdict.replace(' ', '_')}_by_library"])
        fill = research.figures.COLOURS[colour]
        bars = axis.barh(range(len(libraries)), counts, left=left, color=fill)
        bars.set_label(f"{verdict}: {counts.sum()}")
        words = [str(count) if count > 5 else "" for count in counts]
        ink = "black" if colour in ("second class", "data") else "white"
        axis.bar_label(bars, words, label_type="center", color=ink, weight="bold")
        left = left + counts
    axis.set_yticks(
        range(len(libraries)), [name.replace("_", "_\n") for name in libraries]
    )
    axis.invert_yaxis()
    axis.set(xlabel="optimizers and options")
    axis.grid(False, axis="y")
    figure.legend(loc="outside upper left", ncols=2)
    counted = ", ".join(
        f"{numbers[verdict.replace(' ', '_')]} {verdict}" for verdict in audit.VERDICTS
    )
    caption = (
        f"Verdicts on {numbers['optimizers']} optimizers and options of "
        f"{', '.join(libraries)}: {counted}. Counts of five and less are not written "
        "in their bars."
    )
    return {"verdicts": research.figures.Picture("Verdicts", caption, figure)}
