"""Write the answer and the tables of a study from its numbers."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from research import runs
from research.comparison.measurements import HALF
from research.statistics.bootstrap import ROUNDING

Numbers = Mapping[str, Any]  # Numbers of a study, or one entry of its lists.

MOST_NAMED = 3  # Number of rules that a sentence names at most.
_VERDICTS = {
    "better": "fewer for",
    "worse": "more for",
    "undecided": "not distinguishable at this budget for",
}


def answer(numbers: Numbers) -> str:
    """Return the answer of a study in one or two sentences.

    With one rule besides the baseline, the answer is about both. With more rules, it
    names the first three of each verdict.

    Example:
      >>> overall = {"rule": "mine", "baseline": "adam", "verdict": "better"}
      >>> overall |= {"ratio": 0.71, "low": 0.64, "high": 0.79, "workloads": 2}
      >>> numbers = {"workloads": ["a", "b"], "cells": [], "comparisons": []}
      >>> print(answer(numbers | {"overall": [overall]}))
      mine needs 0.71 [0.64, 0.79] of adam's example gradients to reach the target on ...
    """
    if len(numbers["overall"]) == 1:
        return _sentence(numbers["overall"][0], numbers)
    parts = []
    for verdict, words in _VERDICTS.items():
        ratios = sorted(
            (one for one in numbers["overall"] if one["verdict"] == verdict),
            key=lambda one: sortable(one["ratio"]),
        )
        if ratios:
            listed = ", ".join(
                f"{one['rule']} ({interval(one)}{_share(one, numbers)})"
                for one in ratios[:MOST_NAMED]
            )
            parts.append(f"{words} {listed}{_more(len(ratios) - MOST_NAMED)}")
    never = _never(numbers)
    return (
        f"Example gradients to the target, compared with {numbers['baseline']}: "
        f"{'; '.join(parts)}.{never and ' ' + never}"
    )


def _share(one: Numbers, numbers: Numbers) -> str:
    """Return " on K of N" if both rules reach the target on only K of N workloads."""
    total = len(numbers["workloads"])
    return f" on {one['workloads']} of {total}" if 0 < one["workloads"] < total else ""


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _sentence(one: Numbers, numbers: Numbers) -> str:
    rule, baseline, names = one["rule"], one["baseline"], numbers["workloads"]
    where = (
        names[0] if len(names) == 1 else f"{one['workloads']} of {len(names)} workloads"
    )
    never = _never(numbers)
    if not one["workloads"]:
        winner = {"better": rule, "worse": baseline}.get(one["verdict"])
        alone = (
            f"Only {winner} reaches it." if winner else "So the two cannot be compared."
        )
        text = f"On no workload do both {rule} and {baseline} reach the target. {alone}"
    elif one["high"] < 1 - ROUNDING or one["low"] > 1 + ROUNDING:
        times = "times " if one["ratio"] > 1 else "of "
        text = (
            f"{rule} needs {interval(one)} {times}{baseline}'s example gradients to "
            f"reach the target on {where}."
        )
    else:
        text = (
            f"{rule} and {baseline} are not distinguishable at this budget ({rule} needs "
            f"{interval(one)} of its example gradients on {where}): "
            f"{_how_many_more(one, numbers)}."
        )
    return f"{text} {never}" if never else text


def _how_many_more(one: Numbers, numbers: Numbers) -> str:
    absent = {
        measurement["workload"]
        for measurement in numbers["cells"]
        if measurement["reached"] < HALF
    }
    needed = [
        comparison["more_seeds"]
        for comparison in numbers["comparisons"]
        if comparison["rule"] == one["rule"] and comparison["workload"] not in absent
    ]
    if not needed or min(needed) < 0:
        return (
            "to detect a difference of 10 %, use more tuning seeds, or trials that "
            "reach the target on every seed"
        )
    if max(needed) == 0:
        return "four of five such studies would detect a difference of 10 %"
    each = " on each" if len(numbers["workloads"]) > 1 else ""
    return f"{max(needed)} more seeds would detect a difference of 10 %{each}"


def _never(numbers: Numbers) -> str:
    """Return a sentence with the rules that missed the target, and the workloads."""
    workloads: dict[str, list[str]] = {}
    for one in numbers["cells"]:
        if one["reached"] < HALF:
            workloads.setdefault(one["rule"], []).append(one["workload"] + _why(one))
    parts = [f"by {rule} on {', '.join(names)}" for rule, names in workloads.items()]
    if not parts:
        return ""
    named, more = "; ".join(parts[:MOST_NAMED]), _more(len(parts) - MOST_NAMED)
    return f"Not reached: {named}{more}."


def _why(measurement: Numbers) -> str:
    """Return, if it is known, why a rule missed the target; else ""."""
    if measurement["diverged"] == 1:
        return " (every training diverged)"
    return (
        " (the loss at the end is higher than at the start)"
        if measurement["final"] > 1
        else ""
    )


def interval(one: Numbers) -> str:
    """Return a ratio with its interval, "0.71 [0.64, 0.79]", or why it is missing."""
    if not one["workloads"]:
        return {"better": "alone reaches it", "worse": "does not reach it"}.get(
            one["verdict"], "no common workload"
        )
    return f"{short(one['ratio'])} [{short(one['low'])}, {short(one['high'])}]"


def sortable(value: float | None) -> float:
    """Return the number, or inf if it is None."""
    return math.inf if value is None else value


def short(value: Any) -> str:
    """Return a value as a short text; None becomes "not reached"."""
    if value is None:
        return "not reached"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def study_tables(numbers: Numbers) -> tuple[runs.Table, ...]:
    """Return the three tables of a study.

    They show costs, the comparison over all workloads, and the chosen trials.
    """
    return costs_table(numbers), comparisons_table(numbers), choices_table(numbers)


def costs_table(numbers: Numbers) -> runs.Table:
    """Return the table of the costs of each rule on each workload, in every unit."""
    ratios = {(c["workload"], c["rule"]): c for c in numbers["comparisons"]}
    rows = tuple(
        _costs_row(one, ratios.get((one["workload"], one["rule"])))
        for one in _by_cost(numbers["cells"])
    )
    columns = (
        "workload",
        "rule",
        "passes to the target",
        "low",
        "high",
        f"ratio to {numbers['baseline']}",
        "interval",
        "verdict",
        "P(beats it)",
        "reached by",
        "steps",
        "seconds",
        "gap at the end",
    )
    note = _costs_note(numbers)
    return runs.Table("What it costs to reach the target", columns, rows, note)


def _costs_row(measurement: Numbers, comparison: Numbers | None) -> tuple[Any, ...]:
    if comparison is None:
        compared = (1.0, "baseline", "", "")
    else:
        low, high = short(comparison["low"]), short(comparison["high"])
        win, win_low, win_high = (comparison[n] for n in ("win", "win_low", "win_high"))
        compared = (
            comparison["ratio"],
            f"[{low}, {high}]",
            comparison["verdict"],
            f"{win:.2f} [{win_low:.2f}, {win_high:.2f}]",
        )
    timed = measurement["seconds_per_pass"] is not None
    return (
        measurement["workload"],
        measurement["rule"],
        measurement["cost"],
        measurement["cost_low"],
        measurement["cost_high"],
        *compared,
        f"{100 * measurement['reached']:.0f} %",
        measurement["steps"],
        measurement["seconds"] if timed else "not measured",
        measurement["final"],
    )


def _costs_note(numbers: Numbers) -> str:
    protocol = numbers["protocol"]
    whole = protocol["batch_size"] is None or all(
        measurement["n"] == 1 for measurement in numbers["cells"]
    )
    batch = "full batch" if whole else f"mini-batch {protocol['batch_size']}"
    held_out = (
        ", where f* is f at the optimum of the training part"
        if protocol["reported_on"] == "test"
        else ""
    )
    return (
        f"Target: {protocol['target']:g} of the initial f - f* within "
        f"{protocol['passes']} passes, {batch}, on the {protocol['reported_on']} "
        f"part{held_out}. Passes: example gradients / n of all runs, divided by the "
        f"number of runs that reached the target. Each rule had {protocol['budget']} "
        "trials (one if it has nothing to search). The best trial is chosen on "
        f"{len(protocol['tuning_seeds'])} tuning seeds by the {protocol['tune_on']} "
        f"objective and reported on {len(protocol['seeds'])} other seeds. Intervals: "
        f"{100 * protocol['level']:g} %; they include the choice, and those of ratios "
        "are corrected for their number. They treat the tried points as given. "
        "Seconds: one training alone on this machine, without compilation."
    )


def comparisons_table(numbers: Numbers) -> runs.Table:
    """Return the table that compares each rule with the baseline on all workloads."""
    names = ("ratio", "low", "high", "verdict", "win", "win_low", "win_high")
    rows = tuple(
        (one["rule"], *(one[name] for name in names), one["workloads"])
        for one in sorted(numbers["overall"], key=lambda one: sortable(one["ratio"]))
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
        "workloads",
    )
    note = (
        "Ratio: geometric mean over the workloads on which both rules reach the "
        "target in half of their runs; the last column is their number. A workload "
        "that only one rule reaches counts in favour of that rule if the comparison "
        "there is decided. P: share of seeds on which the rule needs fewer example "
        "gradients, averaged over all workloads; a tie counts as one half."
    )
    return runs.Table("All workloads together", columns, rows, note)


def choices_table(numbers: Numbers) -> runs.Table:
    """Return the table of the chosen trials, and of how much the choice mattered."""
    columns = (
        "workload",
        "rule",
        "chosen",
        "trials",
        "at an edge",
        "diverged",
        "decades of rate within 10 %",
        "gradients a step",
        "seconds a pass",
        "seconds to compile",
    )
    rows = tuple(
        _choices_row(measurement) for measurement in _by_cost(numbers["cells"])
    )
    note = (
        "Diverged: share of the trainings of the first space on tuning seeds whose "
        "loss or update was not finite. Decades: range of learning rates around the "
        "chosen one whose score is within 10 % of the best; 'none' if no rate reached "
        "the target. If the choice was at an edge, the space was widened and more "
        "trials than the budget were run. Comparisons draw as many of them as the "
        "budget; the curve and the final gap belong to the best of all. Gradients a "
        "step: gradients of the batch. Compilation: for all trainings of the pair "
        "together."
    )
    return runs.Table("Chosen trials, and their influence", columns, rows, note)


def _choices_row(measurement: Numbers) -> tuple[Any, ...]:
    chosen = ", ".join(
        f"{name} {short(value)}" for name, value in measurement["chosen"].items()
    )
    per_pass = measurement["seconds_per_pass"]
    return (
        measurement["workload"],
        measurement["rule"],
        chosen or "nothing to choose",
        measurement["trials"],
        "; ".join(measurement["edges"]) or "none",
        f"{100 * measurement['diverged']:.0f} %",
        _decades(measurement),
        measurement["evaluations"],
        "not measured" if per_pass is None else per_pass,
        measurement["compile_seconds"],
    )


def _decades(measurement: Numbers) -> str:
    """Return the decades of learning rate whose score is within 10 % of the best.

    The text starts with "≥" if the first or last rate that was tried is still good.
    """
    if measurement["robustness"] is None:
        return "none"
    at_end = "≥ " if measurement["robust_at_end"] else ""
    return f"{at_end}{measurement['robustness']:.2g}"


def as_text(table: runs.Table) -> str:
    """Return a table as aligned plain text.

    Example:
      >>> rows = (("adam", 3.14159), ("mine", None))
      >>> print(as_text(runs.Table("Costs", ("rule", "passes"), rows)))
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


def _by_cost(measurements: Sequence[Numbers]) -> list[Numbers]:
    """Sort measurements by workload, then by cost, the cheapest rule first.

    Rules that did not reach the target come last, sorted by their final gap.
    """
    order = list(dict.fromkeys(one["workload"] for one in measurements))
    return sorted(
        measurements,
        key=lambda one: (
            order.index(one["workload"]),
            sortable(one["cost"]),
            one["final"],
        ),
    )
