"""The tables of a comparison, from its numbers."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from research import runs
from research.comparison.answers import short, sortable


def study_tables(numbers: Mapping[str, Any]) -> tuple[runs.Table, ...]:
    """What the target costs, all workloads together, and what was chosen."""
    return cells_table(numbers), comparisons_table(numbers), choices_table(numbers)


def cells_table(numbers: Mapping[str, Any]) -> runs.Table:
    """A row a (workload, rule): what the target costs, in every unit."""
    protocol = numbers["protocol"]
    ratios = {(c["workload"], c["rule"]): c for c in numbers["comparisons"]}
    rows = []
    for cell in _by_cost(numbers["cells"]):
        seen = ratios.get((cell["workload"], cell["rule"]))
        rows.append(
            (
                cell["workload"],
                cell["rule"],
                cell["cost"],
                cell["cost_low"],
                cell["cost_high"],
                1.0 if seen is None else seen["ratio"],
                "baseline"
                if seen is None
                else f"[{short(seen['low'])}, {short(seen['high'])}]",
                "" if seen is None else seen["verdict"],
                ""
                if seen is None
                else f"{seen['win']:.2f} [{seen['win_low']:.2f}, {seen['win_high']:.2f}]",
                f"{100 * cell['reached']:.0f} %",
                cell["steps"],
                "not measured" if cell["seconds_per_pass"] is None else cell["seconds"],
                cell["final"],
            )
        )
    columns = (
        "workload",
        "rule",
        "passes to the target",
        "low",
        "high",
        f"ratio to {numbers['baseline']}",
        "interval",
    )
    columns += (
        "verdict",
        "P(beats it)",
        "reached by",
        "steps",
        "seconds",
        "gap at the end",
    )
    whole = protocol["batch_size"] is None or all(
        cell["n"] == 1 for cell in numbers["cells"]
    )
    budget = "full batch" if whole else f"mini-batch {protocol['batch_size']}"
    held_out = (
        ", where f* is f at the optimum of the training part"
        if protocol["reported_on"] == "test"
        else ""
    )
    note = (
        f"Target: {protocol['target']:g} of the initial f - f* within {protocol['passes']} passes, {budget}, on the "
        f"{protocol['reported_on']} part{held_out}. Passes: example gradients / n spent by all runs, over the runs that got "
        "there. "
        f"Each rule had {protocol['budget']} trials (one where nothing is searched), chosen on "
        f"{len(protocol['tuning_seeds'])} tuning seeds by the {protocol['tune_on']} objective, reported on "
        f"{len(protocol['seeds'])} others. Intervals: {100 * protocol['level']:g} %, the choice included, those of ratios "
        "corrected for how many there are; the points that were tried are taken as they are. Seconds: one training by itself "
        "on this machine, without compilation."
    )
    return runs.Table("What it costs to reach the target", columns, tuple(rows), note)


def comparisons_table(numbers: Mapping[str, Any]) -> runs.Table:
    """A row a rule: beside the baseline on all workloads together."""
    rows = tuple(
        (
            one["rule"],
            one["ratio"],
            one["low"],
            one["high"],
            one["verdict"],
            one["win"],
            one["win_low"],
            one["win_high"],
            one["workloads"],
        )
        for one in sorted(numbers["overall"], key=lambda o: sortable(o["ratio"]))
    )
    columns = (
        "rule",
        f"ratio to {numbers['baseline']}",
        "low",
        "high",
        "verdict",
        "P(beats it)",
        "P, low",
        "P, high",
    )
    note = (
        "Ratio: geometric mean over the workloads where both reach the target in half of their runs (their number in the "
        "last column); one where a rule alone does counts for it if that comparison is decided. P: share of seeds on which "
        "the rule needs fewer example gradients, ties by halves, averaged over all workloads."
    )
    return runs.Table("All workloads together", (*columns, "workloads"), rows, note)


def choices_table(numbers: Mapping[str, Any]) -> runs.Table:
    """A row a (workload, rule): what was chosen, and how much that mattered."""
    rows = tuple(
        (
            cell["workload"],
            cell["rule"],
            ", ".join(
                f"{name} {short(value)}" for name, value in cell["chosen"].items()
            )
            or "nothing to choose",
            cell["trials"],
            "; ".join(cell["edges"]) or "none",
            f"{100 * cell['diverged']:.0f} %",
            _decades(cell),
            cell["evaluations"],
            "not measured"
            if cell["seconds_per_pass"] is None
            else cell["seconds_per_pass"],
            cell["compile_seconds"],
        )
        for cell in _by_cost(numbers["cells"])
    )
    columns = (
        "workload",
        "rule",
        "chosen",
        "trials",
        "at an edge",
        "diverged",
        "decades of rate within 10 %",
    )
    note = (
        "Diverged: share of the trainings of the first space on tuning seeds whose loss or update was not finite. Decades: of "
        "rates around the chosen one whose score is within 10 % of the best; none where no rate got to the target. More "
        "trials than the budget were made where a choice at an edge widened the space; comparisons draw as many as the budget "
        "of them, the curve and the end are of the best of all. Gradients a step: of the batch. Compilation is of all "
        "trainings of the pair together."
    )
    columns = (*columns, "gradients a step", "seconds a pass", "seconds to compile")
    return runs.Table(
        "What was chosen, and how much that mattered", columns, rows, note
    )


def _decades(cell: Mapping[str, Any]) -> str:
    """Decades of rate as good as the best, "≥" where the rates that were looked at end first."""
    if cell["robustness"] is None:
        return "none"
    return f"{'≥ ' if cell['robust_at_end'] else ''}{cell['robustness']:.2g}"


def as_text(table: runs.Table) -> str:
    """A table as aligned plain text.

    Example:
      >>> print(as_text(runs.Table("Costs", ("rule", "passes"), (("adam", 3.14159), ("mine", None)))))
      Costs
      rule  passes
      adam  3.14
      mine  not reached
    """
    rows = [table.columns, *([short(value) for value in row] for row in table.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    lines = [
        "  ".join(
            text.ljust(width) for text, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([table.title, *lines, *textwrap.wrap(table.note, 120)])


def _by_cost(cells: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Workloads in their order, in each the cheapest first; of those that never got there, the lowest end first."""
    order = list(dict.fromkeys(cell["workload"] for cell in cells))
    return sorted(
        cells,
        key=lambda c: (order.index(c["workload"]), sortable(c["cost"]), c["final"]),
    )
