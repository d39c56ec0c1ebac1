"""Write the answer and the tables of a study from its numbers."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from research import runs
from research.columns import aligned
from research.statistics.measured import NEITHER, nothing_reached, reaches

Numbers = Mapping[str, Any]  # Numbers of a study, or one entry of its lists.

MOST_NAMED = 3  # Number of rules that a sentence names at most.
SMALL = 100.0  # Smaller factors are written with two decimals.
_VERDICTS = {
    "better": "fewer for",
    "worse": "more for",
    "undecided": "not distinguishable from it:",
}


def answer(numbers: Numbers) -> str:
    """Return the answer of a study in a few sentences.

    `numbers` is the field `numbers` of the study's result. If there is one rule besides
    the baseline, the answer compares the two. If there are more rules, the answer names
    up to three rules for each verdict (better, worse, undecided). The answer also says
    how large the ratio of two costs must be for this study to detect a difference. For
    several rules, it gives the range of these ratios. If all runs of a rule and of the
    baseline miss the target, there is no such ratio for this rule. The answer names up
    to three pairs of a rule and a workload for which independent searches disagree on
    the cost of the rule. The answer also names up to three rules that missed the target
    in more than half of their runs on a workload. The example prints only the beginning
    of the answer.

    Example:
      >>> overall = {"rule": "mine", "baseline": "adam", "verdict": "better"}
      >>> overall |= {"ratio": 0.71, "low": 0.64, "high": 0.79, "detectable": 1.14}
      >>> numbers = {"workloads": ["a", "b"], "cells": [], "overall": [overall]}
      >>> print(answer(numbers).split(". ")[0])
      mine needs 0.71 [0.64, 0.79] times as many example gradients as adam to reach ...
    """
    said = [
        _sentence(numbers["overall"][0], numbers)
        if len(numbers["overall"]) == 1
        else _sentence_of_many(numbers),
        _detectable(numbers),
        _disagreement(numbers),
        _never(numbers),
    ]
    return " ".join(text for text in said if text)


def _sentence(one: Numbers, numbers: Numbers) -> str:
    rule, baseline, names = one["rule"], one["baseline"], numbers["workloads"]
    where = names[0] if len(names) == 1 else f"{len(names)} workloads"
    needs = f"{interval(one)} times as many example gradients as {baseline}"
    if not _anything_reached((rule, baseline), numbers):
        return f"Neither {rule} nor {baseline} reaches the target on {where}."
    missing = [
        cell["rule"]
        for cell in numbers["cells"]
        if not reaches(cell) and cell["rule"] in (rule, baseline)
    ]
    if len(names) == 1 and len(missing) == 1:
        alone = baseline if missing == [rule] else rule
        return f"Only {alone} reaches the target on {where}, not {missing[0]}."
    if one["verdict"] == "undecided":
        return (
            f"{rule} and {baseline} are not distinguishable on {where}: {rule} needs "
            f"{needs}."
        )
    return f"{rule} needs {needs} to reach the target on {where}."


def _sentence_of_many(numbers: Numbers) -> str:
    parts = []
    for verdict, words in _VERDICTS.items():
        ratios = sorted(
            (one for one in _measured(numbers) if one["verdict"] == verdict),
            key=lambda one: sortable(one["ratio"]),
        )
        if ratios:
            listed = ", ".join(
                f"{one['rule']} ({interval(one)})" for one in ratios[:MOST_NAMED]
            )
            parts.append(f"{words} {listed}{and_more(len(ratios) - MOST_NAMED)}")
    none = [one["rule"] for one in numbers["overall"] if nothing_reached(one, numbers)]
    if none:
        parts.append(
            "not measured, because neither the baseline nor the rule reaches the "
            f"target: {', '.join(none[:MOST_NAMED])}{and_more(len(none) - MOST_NAMED)}"
        )
    return (
        f"Example gradients to the target, relative to {numbers['baseline']}: "
        f"{'; '.join(parts)}."
    )


def _anything_reached(rules: Sequence[str], numbers: Numbers) -> bool:
    cells = [one for one in numbers["cells"] if one["rule"] in rules]
    return not cells or any(map(reaches, cells))


def _measured(numbers: Numbers) -> list[Numbers]:
    return [one for one in numbers["overall"] if not nothing_reached(one, numbers)]


def _detectable(numbers: Numbers) -> str:
    """Return a sentence with the smallest factor that the study could have detected."""
    factors = sorted(one["detectable"] for one in _measured(numbers))
    if not factors:
        return "No run reaches it, so this study cannot detect any factor."
    written = [f"{f:.2f}" if f < SMALL else f"{f:.2g}" for f in factors]
    start = "The smallest factor that this study could detect is"
    if len(factors) == 1:
        return f"{start} {written[0]}."
    return f"{start} {written[0]} to {written[-1]}, depending on the rule."


def _disagreement(numbers: Numbers) -> str:
    """Return a sentence with the rules whose searches disagree, or ""."""
    cells = [one for one in numbers["cells"] if one.get("searches_disagree")]
    if not cells:
        return ""
    cells.sort(key=lambda one: -one["search_spread"])
    listed = "; ".join(
        f"{one['rule']} on {one['workload']} (costs differ by a factor of "
        f"{one['search_spread']:.2g})"
        for one in cells[:MOST_NAMED]
    )
    return (
        f"Independent searches disagree, so the rule is hard to tune: {listed}"
        f"{and_more(len(cells) - MOST_NAMED)}."
    )


def and_more(count: int) -> str:
    """Return the end of a list that leaves out names, such as " and 2 more".

    `count` is the number of names that are left out. The result is "" if `count` is not
    positive.

    Example:
      >>> and_more(2), and_more(0)
      (' and 2 more', '')
    """
    return f" and {count} more" if count > 0 else ""


def _never(numbers: Numbers) -> str:
    """Return a sentence with the rules that missed the target, and the workloads."""
    workloads: dict[str, list[str]] = {}
    for one in numbers["cells"]:
        if not reaches(one):
            workloads.setdefault(one["rule"], []).append(one["workload"] + _why(one))
    parts = [f"{rule} on {', '.join(names)}" for rule, names in workloads.items()]
    if not parts:
        return ""
    named, more = "; ".join(parts[:MOST_NAMED]), and_more(len(parts) - MOST_NAMED)
    return (
        f"Target not reached by at least half of the runs: {named}{more}. Each run "
        "that misses it counts as ten full trainings."
    )


def _why(measurement: Numbers) -> str:
    """Return the reason why a rule missed the target, or "" if it is not known."""
    if measurement["diverged"] == 1:
        return " (every training diverged)"
    return (
        " (the loss at the end is higher than at the start)"
        if measurement["final"] > 1
        else ""
    )


def interval(one: Numbers) -> str:
    """Return a ratio with its interval as text: "0.71 [0.64, 0.79]".

    `one` has the entries "ratio", "low" and "high".
    """
    return f"{short(one['ratio'])} [{short(one['low'])}, {short(one['high'])}]"


def sortable(value: float | None) -> float:
    """Return the value, or inf for None, so that missing values are sorted last."""
    return math.inf if value is None else value


def short(value: Any) -> str:
    """Return a value as a short text.

    A float gets three significant digits. None, such as the cost of a rule that misses
    the target, becomes "not reached".
    """
    if value is None:
        return "not reached"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def study_tables(numbers: Numbers) -> tuple[runs.Table, ...]:
    """Return the three tables of a study.

    The tables show the costs, the comparison over all workloads, and the chosen trials
    (choices of hyper-parameters). `numbers` are the numbers of the study.
    """
    return costs_table(numbers), comparisons_table(numbers), choices_table(numbers)


def costs_table(numbers: Numbers) -> runs.Table:
    """Return the table of the costs of each rule on each workload.

    `numbers` is the field `numbers` of the study's result. The costs to reach the
    target are given in passes over the data, steps and seconds.
    """
    ratios = {(c["workload"], c["rule"]): c for c in numbers["comparisons"]}
    rows = tuple(
        _costs_row(one, ratios.get((one["workload"], one["rule"])), numbers)
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
        "detectable factor",
        "runs at the target",
        "steps",
        "seconds",
        "gap at the end",
    )
    note = _costs_note(numbers)
    return runs.Table("What it costs to reach the target", columns, rows, note)


def _costs_row(
    measurement: Numbers, comparison: Numbers | None, numbers: Numbers
) -> tuple[Any, ...]:
    if comparison is None:
        compared = (1.0, "baseline", "", "", "")
    elif nothing_reached(comparison, numbers):
        compared = (NEITHER, "", comparison["verdict"], "", "")
    else:
        low, high = short(comparison["low"]), short(comparison["high"])
        win, win_low, win_high = (comparison[n] for n in ("win", "win_low", "win_high"))
        compared = (
            comparison["ratio"],
            f"[{low}, {high}]",
            comparison["verdict"],
            f"{win:.2f} [{win_low:.2f}, {win_high:.2f}]",
            comparison["detectable"],
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
    held_out = (
        ", where f* is f at the optimum of the training part"
        if protocol["reported_on"] == "test"
        else ""
    )
    return (
        f"The target is {protocol['target']:g} of the initial f - f* within "
        f"{protocol['passes']} passes, {_batch(numbers)}, on the "
        f"{protocol['reported_on']} "
        f"part{held_out}. The cost is the number of passes over the data (example "
        "gradients / n): the geometric mean over searches and seeds, where a run "
        "that misses the target counts as ten full trainings. It is missing if fewer "
        f"than half of the runs reach the target. Each rule has {protocol['searches']} "
        f"independent searches that start with {protocol['budget']} trials (a rule "
        "with nothing to search has one) and choose on "
        f"{len(protocol['tuning_seeds']) // protocol['searches']} tuning seeds each "
        f"by the {protocol['tune_on']} objective. The choices are reported on "
        f"{len(protocol['seeds'])} other seeds. The {100 * protocol['level']:g} % "
        "intervals cover other searches and other seeds; those of the ratios are "
        "corrected for the number of comparisons. The detectable factor is the "
        "smallest one that such a study detects with power 0.8. Seconds are those of "
        "one training that runs alone on this machine, without compilation."
    )


def _batch(numbers: Numbers) -> str:
    """Return a text with the batch size, and whether an epoch leaves out examples."""
    size = numbers["protocol"]["batch_size"]
    examples = {measurement["n"] for measurement in numbers["cells"]} - {1}
    if size is None or not examples:
        return "full batch"
    if all(n % size == 0 for n in examples):
        return f"mini-batch {size}"
    return (
        f"mini-batch {size} (the passes count the examples that an epoch leaves out; "
        "the costs do not)"
    )


def comparisons_table(numbers: Numbers) -> runs.Table:
    """Return the table that compares each rule with the baseline over all workloads.

    The comparison joins all workloads: a ratio of costs is the geometric mean of the
    ratios on the single workloads. `numbers` is the field `numbers` of the study's
    result. The table has one row for each rule except the baseline.
    """
    names = (
        *("ratio", "low", "high", "verdict", "detectable", "from_searches"),
        *("win", "win_low", "win_high", "workloads"),
    )
    rows = tuple(
        _comparison_row(one, names, numbers)
        for one in sorted(numbers["overall"], key=lambda one: sortable(one["ratio"]))
    )
    columns = (
        "rule",
        f"ratio to {numbers['baseline']}",
        "low",
        "high",
        "verdict",
        "detectable factor",
        "variance from searches",
        "P(beats it)",
        "P, low",
        "P, high",
        "workloads",
    )
    note = (
        "The ratio is the geometric mean over workloads, searches and seeds. P is "
        "the probability that the rule needs fewer example gradients than the "
        "baseline, for a random search of each rule and a random seed; ties count "
        "half. If most of the variance comes from the searches, more searches narrow "
        "the interval; otherwise more reporting seeds do."
    )
    return runs.Table("All workloads together", columns, rows, note)


def _comparison_row(
    one: Numbers, names: Sequence[str], numbers: Numbers
) -> tuple[Any, ...]:
    if nothing_reached(one, numbers):
        known = {name: one[name] for name in ("verdict", "workloads")}
        one = dict.fromkeys(names, "") | {"rule": one["rule"], "ratio": NEITHER} | known
    return (one["rule"], *(one[name] for name in names))


def choices_table(numbers: Numbers) -> runs.Table:
    """Return the table of the chosen trials, and of how much the choice mattered.

    A trial is a choice of hyper-parameters. There is one row for each pair (workload,
    rule). Several searches choose a trial for each pair. The row has the choice of one
    of them: the search with the lowest cost on its own tuning seeds. The row also shows
    how much the costs differ between the searches and between learning rates. The note
    of the table explains the columns.
    """
    columns = (
        "workload",
        "rule",
        "best choice",
        "spread of the searches",
        "outside the space",
        "diverged",
        "decades of rate within 10 %",
        "trainings",
        "gradients a step",
        "seconds a pass",
        "seconds to compile",
    )
    rows = tuple(
        _choices_row(measurement) for measurement in _by_cost(numbers["cells"])
    )
    note = (
        "The best choice is that of the search with the lowest cost on its tuning "
        "seeds. The spread is the highest cost of a search divided by the lowest, on "
        "the reporting seeds; the searches disagree if it is 1.25 or more and larger "
        "than seeds explain. Outside the space: ranges that the refinement left, by "
        "at most a third of their width. Diverged: share of the first trials' runs "
        "whose loss or update was not finite. Decades: range of rates around the "
        "best choice whose cost is within 10 % of the lowest; none if no rate "
        "reaches the target. Trainings: all runs of the searches. Gradients a step: "
        "number of gradients of the batch that a step costs."
    )
    return runs.Table("Chosen trials, and their influence", columns, rows, note)


def _choices_row(measurement: Numbers) -> tuple[Any, ...]:
    chosen = ", ".join(
        f"{name} {short(value)}" for name, value in measurement["chosen"].items()
    )
    per_pass = measurement["seconds_per_pass"]
    spread = f"{measurement['search_spread']:.3g}"
    return (
        measurement["workload"],
        measurement["rule"],
        chosen or "nothing to choose",
        f"{spread}, they disagree" if measurement["searches_disagree"] else spread,
        "; ".join(measurement["edges"]) or "none",
        f"{100 * measurement['diverged']:.0f} %",
        _decades(measurement),
        measurement["trainings"],
        measurement["evaluations"],
        "not measured" if per_pass is None else per_pass,
        measurement["compile_seconds"],
    )


def _decades(measurement: Numbers) -> str:
    """Return the width of the range of good learning rates, in decades, as text.

    A rate is good if its cost is within 10 % of the lowest. The text starts with "≥" if
    the first or last rate that was tried is still good.
    """
    if measurement["robustness"] is None:
        return "none"
    at_end = "≥ " if measurement["robust_at_end"] else ""
    return f"{at_end}{measurement['robustness']:.2g}"


def as_text(table: runs.Table) -> str:
    """Return a table as plain text with aligned columns.

    A float gets three significant digits. None, such as the cost of a rule that misses
    the target, becomes "not reached".

    Example:
      >>> rows = (("adam", 3.14159), ("mine", None))
      >>> print(as_text(runs.Table("Costs", ("rule", "passes"), rows)))
      Costs
      rule  passes
      adam  3.14
      mine  not reached
    """
    rows = [table.columns, *([short(value) for value in row] for row in table.rows)]
    return "\n".join([table.title, *aligned(rows), *textwrap.wrap(table.note, 120)])


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
