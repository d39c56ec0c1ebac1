"""What a comparison found, in words, tables and numbers."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research import runs

HALF = 0.5  # A rule reaches the target on a workload if so many of its reported runs do.
FORMAT = 1  # Of a study's numbers; a reader refuses those that it does not know.


class Study(NamedTuple):
    """A finished comparison: print it, draw it with `research.figures.studies.draw_study`, save it.

    Attributes:
      answer: Which rule, by how much, or that it cannot be said.
      tables: The first has a row a (workload, rule).
      arrays, numbers: What tables and figures are made of.
    """

    answer: str
    tables: tuple[runs.Table, ...]
    arrays: dict[str, np.ndarray]
    numbers: dict[str, Any]

    def __str__(self) -> str:
        """The answer, and the first table as plain text."""
        return f"{self.answer}\n\n{as_text(self.tables[0])}"

    def save(self, results: str | Path = "results") -> Path:
        """Saves the study as the run folder results/compare/<id>; `research.report.write_report` adds a page.

        Returns:
          The folder.
        Raises:
          OSError: It cannot be written.
        """
        wanted = ("protocol", "baseline", "rules", "sources", "spaces", "evaluations", "workloads")
        config = {name: self.numbers[name] for name in wanted}
        width = self.numbers["protocol"]["width"]
        run = runs.open_run("compare", config, results, fresh=True, width=width, command=_call(self.numbers))
        try:
            return runs.finish(run, runs.Result(*self)).path
        finally:
            runs.close(run)


def _call(numbers: Mapping[str, Any]) -> str:
    """What makes the study again, in Python, once `rules` holds the rules by name."""
    terms = {name: value for name, value in numbers["protocol"].items() if name != "reported_on"}
    terms |= {name: numbers[name] for name in ("baseline", "evaluations")}
    given = ", ".join(f"{name}={value!r}" for name, value in terms.items())
    spaces = ", ".join(
        f"{rule!r}: {{{', '.join(f'{name!r}: research.studies.Range{tuple(given)!r}' for name, given in space.items())}}}"
        for rule, space in numbers["spaces"].items()
    )
    return f"research.studies.compare(rules, {numbers['workloads']!r}, {given}, spaces={{{spaces}}})"


def told(numbers: Mapping[str, Any]) -> tuple[str, tuple[runs.Table, ...]]:
    """The answer and the tables of a study, from its numbers."""
    return answer(numbers), (cells_table(numbers), comparisons_table(numbers), choices_table(numbers))


def answer(numbers: Mapping[str, Any]) -> str:
    """The answer in a sentence or two: two rules by name, more of them counted.

    Example:
      >>> one = {"rule": "mine", "baseline": "adam", "ratio": 0.71, "low": 0.64, "high": 0.79, "win": 0.9, "workloads": 2}
      >>> answer({"workloads": ["a", "b"], "overall": [one | {"verdict": "better"}], "cells": [], "comparisons": []})
      "mine needs 0.71 [0.64, 0.79] of adam's example gradients to reach the target on 2 of 2 workloads."
    """
    if len(numbers["overall"]) == 1:
        return _sentence(numbers["overall"][0], numbers)
    parts = []
    for verdict, words in _VERDICTS.items():
        found = sorted((o for o in numbers["overall"] if o["verdict"] == verdict), key=lambda o: _sortable(o["ratio"]))
        if found:
            listed = ", ".join(f"{o['rule']} ({interval(o)})" for o in found[:MOST_NAMED])
            parts.append(f"{words} {listed}{_more(len(found) - MOST_NAMED)}")
    never = _never(numbers)
    return (
        f"Example gradients to the target, beside {numbers['baseline']}'s: {'; '.join(parts)}.{never and ' ' + never}"
    )


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


_VERDICTS = {"better": "fewer for", "worse": "more for", "undecided": "not distinguishable at this budget for"}
MOST_NAMED = 3


def _sentence(one: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    rule, baseline, names = one["rule"], one["baseline"], numbers["workloads"]
    where = names[0] if len(names) == 1 else f"{one['workloads']} of {len(names)} workloads"
    never = _never(numbers)
    if not one["workloads"]:
        winner = {"better": rule, "worse": baseline}.get(one["verdict"])
        alone = f"{winner} alone reaches it." if winner else "Nothing can be said of the two."
        text = f"On no workload do both {rule} and {baseline} reach the target. {alone}"
    elif not one["low"] <= 1 <= one["high"]:
        times = "times " if one["ratio"] > 1 else "of "
        text = f"{rule} needs {interval(one)} {times}{baseline}'s example gradients to reach the target on {where}."
    else:
        text = (
            f"{rule} and {baseline} are not distinguishable at this budget ({rule} needs {interval(one)} of its example "
            f"gradients on {where}): {_how_many_more(one, numbers)}."
        )
    return f"{text} {never}" if never else text


def _how_many_more(one: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    absent = {cell["workload"] for cell in numbers["cells"] if cell["reached"] < HALF}
    own = [c for c in numbers["comparisons"] if c["rule"] == one["rule"] and c["workload"] not in absent]
    needed = [c["more_seeds"] for c in own]
    if not needed or min(needed) < 0:
        return "to detect 10 % takes more tuning seeds, or trials that reach the target on every seed"
    if max(needed) == 0:
        return "10 % would have shown in four of five such studies"
    return f"{max(needed)} more seeds would detect 10 %{' on each' if len(numbers['workloads']) > 1 else ''}"


def _never(numbers: Mapping[str, Any]) -> str:
    """Which rules did not reach the target, and where."""
    places: dict[str, list[str]] = {}
    for cell in numbers["cells"]:
        if cell["reached"] < HALF:
            places.setdefault(cell["rule"], []).append(cell["workload"])
    told = [f"by {rule} on {', '.join(on)}" for rule, on in places.items()]
    return f"Not reached: {'; '.join(told[:MOST_NAMED])}{_more(len(told) - MOST_NAMED)}." if told else ""


def interval(one: Mapping[str, Any]) -> str:
    """A ratio with its interval, "0.71 [0.64, 0.79]", or why there is none."""
    if not one["workloads"]:
        return {"better": "alone reaches it", "worse": "does not reach it"}.get(one["verdict"], "no common workload")
    return f"{_short(one['ratio'])} [{_short(one['low'])}, {_short(one['high'])}]"


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
                "baseline" if seen is None else f"[{_short(seen['low'])}, {_short(seen['high'])}]",
                "" if seen is None else seen["verdict"],
                "" if seen is None else f"{seen['win']:.2f} [{seen['win_low']:.2f}, {seen['win_high']:.2f}]",
                f"{100 * cell['reached']:.0f} %",
                cell["steps"],
                "not measured" if cell["seconds_per_pass"] is None else cell["seconds"],
                cell["final"],
            )
        )
    columns = ("workload", "rule", "passes to the target", "low", "high", f"ratio to {numbers['baseline']}", "interval")
    columns += ("verdict", "P(beats it)", "reached by", "steps", "seconds", "gap at the end")
    whole = protocol["batch_size"] is None or all(cell["n"] == 1 for cell in numbers["cells"])
    budget = "full batch" if whole else f"mini-batch {protocol['batch_size']}"
    note = (
        f"Target: {protocol['target']:g} of the initial f - f* within {protocol['passes']} passes, {budget}, on the "
        f"{protocol['reported_on']} part. Passes: example gradients / n spent by all runs, over the runs that got there. "
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
        for one in sorted(numbers["overall"], key=lambda o: _sortable(o["ratio"]))
    )
    columns = ("rule", f"ratio to {numbers['baseline']}", "low", "high", "verdict", "P(beats it)", "P, low", "P, high")
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
            ", ".join(f"{name} {_short(value)}" for name, value in cell["chosen"].items()) or "nothing to choose",
            cell["trials"],
            "; ".join(cell["edges"]) or "none",
            f"{100 * cell['diverged']:.0f} %",
            _decades(cell),
            cell["evaluations"],
            "not measured" if cell["seconds_per_pass"] is None else cell["seconds_per_pass"],
            cell["compile_seconds"],
        )
        for cell in _by_cost(numbers["cells"])
    )
    columns = ("workload", "rule", "chosen", "trials", "at an edge", "diverged", "decades of rate within 10 %")
    note = (
        "Diverged: share of the trainings of the first space on tuning seeds whose loss or update was not finite. Decades: of "
        "rates around the chosen one whose score is within 10 % of the best; none where no rate got to the target. More "
        "trials than the budget were made where a choice at an edge widened the space; comparisons draw as many as the budget "
        "of them, the curve and the end are of the best of all. Gradients a step: of the batch. Compilation is of all "
        "trainings of the pair together."
    )
    columns = (*columns, "gradients a step", "seconds a pass", "seconds to compile")
    return runs.Table("What was chosen, and how much that mattered", columns, rows, note)


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
    rows = [table.columns, *([_short(value) for value in row] for row in table.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([table.title, *lines, *textwrap.wrap(table.note, 120)])


def as_number(seen: Any) -> dict[str, Any]:
    """The fields of a Difference or an Overall as JSON has them: None for what is no number."""
    return {name: _plain(value) for name, value in seen._asdict().items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else float(value)
    return int(value) if isinstance(value, int | np.integer) else value


def _by_cost(cells: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Workloads in their order, in each the cheapest first; of those that never got there, the lowest end first."""
    order = list(dict.fromkeys(cell["workload"] for cell in cells))
    return sorted(cells, key=lambda c: (order.index(c["workload"]), _sortable(c["cost"]), c["final"]))


def _sortable(value: float | None) -> float:
    return math.inf if value is None else value


def _short(value: Any) -> str:
    if value is None:
        return "not reached"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)
