"""Report of which_rule: answer, tables and figures."""

from collections.abc import Mapping
from typing import Any

import research
from experiments.reports import _dots as dots
from experiments.which_rule import PLAIN, USUAL
from research.comparison import tables as comparison_tables
from research.figures import studies
from research.statistics.measured import NEITHER, nothing_reached, reaches

SHOWN = 4  # Maximum number of rules that a sentence names.


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the table of rules, the tables of the study, and the rules left out."""
    numbers = findings.numbers
    return (
        rules_table(numbers),
        *comparison_tables.study_tables(numbers),
        left_out_table(),
    )


def rules_table(numbers: dict[str, Any]):
    """Return a table with one row for each rule."""
    protocol, first = numbers["protocol"], numbers["first"]
    rows = tuple(rule_row(row, numbers) for row in numbers["by_rule"])
    columns = (
        "rule",
        "reaches the target on",
        f"ratio to {first}",
        "low",
        "high",
        "verdict",
        "times the best",
        "defaults reach it on",
        "defaults, times the best",
        "decades of rate within 10 %",
        "searches disagree on",
        "diverged",
        f"seconds a pass, times {PLAIN}'s",
    )
    note = (
        f"The ratio is that of the example gradients to {protocol['target']:g} of the "
        f"initial f - f*, relative to {first}: the geometric mean over workloads, "
        f"{protocol['searches']} independent searches and {len(protocol['seeds'])} "
        "seeds, where a run that misses the target counts as ten full trainings. Its "
        "interval covers other searches and other seeds, and is corrected for the "
        "number of rules. Times the best: cost relative to the best rule on each "
        "workload, over the workloads where the rule reaches the target. Defaults: "
        "the first trial alone. Searches disagree: workloads on which independent "
        "searches of the rule differ by a factor of 1.25 or more, and by more than the "
        "seeds explain. Diverged: share of the runs of "
        "the first trials. Seconds a pass are those of one training that runs alone "
        "on this machine."
    )
    return research.runs.Table("What to use first", columns, rows, note)


def rule_row(row: Mapping[str, Any], numbers: Mapping[str, Any]) -> tuple:
    """Return the row of one rule."""
    on, ends = len(numbers["workloads"]), ("", "")
    both = {"rule": row["rule"], "baseline": numbers["first"]}
    missed = nothing_reached(both, numbers)
    if row["verdict"] != "first" and not missed:
        ends = row["low"], row["high"]
    return (
        row["rule"],
        f"{row['reached_on']} of {on}",
        NEITHER if missed else row["ratio"],
        *ends,
        row["verdict"],
        row["times_best"],
        f"{row['defaults_reached_on']} of {on}",
        row["defaults_times_best"],
        "none" if row["decades"] is None else row["decades"],
        f"{row['disagree_on']} of {on}",
        f"{100 * row['diverged']:.0f} %",
        row["times_seconds"],
    )


def left_out_table():
    """Return the table of the rules that are not compared, with the reasons."""
    rows = tuple(research.tuning.NOT_COMPARED.items())
    return research.runs.Table("Rules that are not compared", ("rule", "why"), rows)


def answer(findings: research.runs.Findings) -> str:
    """Say which rule to use first, which rules are as good, and which works untuned.

    The answer also compares the rules with the simple baseline.
    """
    numbers = findings.numbers
    first, on, rows = (
        numbers["first"],
        len(numbers["workloads"]),
        {row["rule"]: row for row in numbers["by_rule"]},
    )
    own = rows[first]
    if all(row["times_best"] is None for row in rows.values()):
        return f"No rule reaches the target on any of the {on} workloads."
    if own["times_best"] is None:
        return (
            f"{first} is the best on the tuning seeds, but on the reporting seeds it "
            f"does not reach the target on any of the {on} workloads, and other rules "
            "do. Give more tuning seeds."
        )
    sentences = [
        f"Use {first} first. When it is tuned well, it reaches the target on "
        f"{own['reached_on']} of {on} workloads, with {own['times_best']:.2f} times "
        "the example gradients of the best rule on each."
    ]
    for verdict, words in (
        ("better", "On the reporting seeds, {} even fewer"),
        ("undecided", "{} cannot be distinguished from it"),
    ):
        names = [row["rule"] for row in numbers["by_rule"] if row["verdict"] == verdict]
        if names:
            listed = ", ".join(names[:SHOWN]) + (
                f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            )
            verb = (
                f"{listed} {'needs' if len(names) == 1 else 'need'}"
                if verdict == "better"
                else listed
            )
            sentences.append(words.format(verb) + ".")
    sentences += [
        beside(numbers, rows, rule) for rule in (PLAIN, USUAL) if rule != first
    ]
    sentences.append(first_by_workload(numbers))
    untuned = rows[numbers["first_untuned"]]
    if untuned["defaults_times_best"] is None:
        sentences.append("Without any tuning, no rule reaches the target.")
        return " ".join(sentences)
    sentences.append(
        f"Without any tuning use {untuned['rule']}: its defaults reach the target on "
        f"{untuned['defaults_reached_on']} of {on}, and need "
        f"{untuned['defaults_times_best']:.1f} times the example gradients of the best "
        "rule on each."
    )
    return " ".join(sentences)


def first_by_workload(numbers: dict[str, Any]):
    """Say which rule is first on each workload, and where no rule reaches the target.

    The first rule on a workload is also chosen on the tuning seeds.
    """
    reached = {cell["workload"] for cell in numbers["cells"] if reaches(cell)}
    places, missed = {}, []
    for workload, rule in numbers["first_on"].items():
        if workload in reached:
            places.setdefault(rule, []).append(workload)
        else:
            missed.append(workload)
    start = f"No rule reaches the target on {', '.join(missed)}. " if missed else ""
    if len(places) == 1:
        other = "other " if missed else ""
        return f"{start}{next(iter(places))} comes first on every {other}workload."
    listed = "; ".join(f"{rule} on {', '.join(on)}" for rule, on in places.items())
    return f"{start}No rule comes first everywhere: {listed}."


def beside(numbers: dict[str, Any], rows: dict[str, dict[str, Any]], rule: str):
    """Describe a well-known rule in one sentence."""
    row = rows[rule]
    return (
        f"{rule} needs {row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}] times "
        f"the example gradients of {numbers['first']}, and reaches the target on "
        f"{row['reached_on']} workloads."
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw ratios, trials, rates, curves and the profile."""
    return studies.draw_study(result.numbers, result.arrays)


def draw_reference(reference: Mapping[str, Any]) -> research.figures.Picture:
    """Draw the ratio of each rule of a stored reference to the first rule."""
    first = reference["numbers"]["first"]
    points = []
    for row in dots.rows(reference):
        ratio = float(row[f"ratio to {first}"])
        low, high = dots.number(row["low"]), dots.number(row["high"])
        colour = "exact" if low is None else "stochastic"
        label = row["rule"].replace("schedule_free", "schedule_\nfree")
        points.append(dots.Dot(label, ratio, low, high, colour))
    figure, axes = research.figures.new_figure(width=dots.WIDTH, height=6.4)
    dots.draw_dots(axes[0, 0], points, digits=2)
    axes[0, 0].set_xscale("log")
    axes[0, 0].set_xticks([1, 2, 4], ["1", "2", "4"])
    axes[0, 0].minorticks_off()
    axes[0, 0].set_xlabel("example gradients,\ndivided by those of the first rule")
    values = ", ".join(
        f"{row['rule']} {point.value:.2f}"
        for row, point in zip(dots.rows(reference), points, strict=True)
    )
    workloads = ", ".join(reference["numbers"]["workloads"])
    caption = (
        f"Example gradients to the target, divided by those of {first}: {values}. The "
        f"geometric mean over {workloads}, with 95 % intervals over searches and "
        f"seeds. {dots.SOURCE}"
    )
    return research.figures.Picture("Which rule to use first", caption, figure)
