"""Draw the pictures of a study, which compares rules with a baseline."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from research import figures
from research.figures import study_curves, study_rates
from research.figures.study_curves import few_numbers
from research.figures.study_looks import (
    QUIET,
    WORDS,
    Cast,
    cast,
    listed,
    percent,
    plain,
    written,
)
from research.statistics.measured import NEITHER, nothing_reached, reaches

# Colour and filling: a verdict is visible without colour, and written beside its row.
VERDICTS = {
    "better": ("#0072B2", "full"),
    "worse": ("#D55E00", "left"),
    "undecided": ("#6B737C", "none"),
}
MISSES = "misses the target on"
MARKS = "os^vPX<>*p"  # One marker for each workload.
WIDEST = 12  # An interval that exceeds all ratios by a larger factor ends in an arrow.
MOST_INTERVALS = 24  # With more single workloads, only markers are drawn, no intervals.


def draw_study(
    numbers: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, figures.Picture]:
    """Draw the pictures of a finished study, which compares rules with a baseline.

    The gap is f - f*, where f* is the minimum of the objective f. A run reaches the
    target when its gap has fallen to a given fraction of the initial gap. In the
    picture "ratios", the cost of an update rule is the number of gradients of single
    examples until the target is reached. In the other pictures, the cost is the number
    of passes over the data until then. The picture "ratios" comes first and shows which
    rules are better than the baseline.

    Args:
      numbers: The `numbers` of the study's result. The entries "protocol", "baseline",
        "rules", "workloads", "cells", "comparisons" and "overall" are used.
      arrays: The `arrays` of the study's result, with names such as
        <workload>/<rule>/curves.
    Returns:
      Pictures by name: "ratios" (cost relative to the baseline), "trials" (cost against
      the number of trials), "rates" (cost against the learning rate), "curves"
      (gap to the minimum against passes) and "profile" (performance profile). A trial
      is one choice of hyper-parameters. "rates" is there only if a rule has a learning
      rate, and "profile" only if there are at least three workloads (optimisation
      problems). A rule has the same colour in all pictures except "ratios", where the
      colour shows the verdict: better, worse or undecided.
    """
    who = cast(numbers)
    with figures.style():
        pictures = {
            "ratios": ratios(numbers, who),
            "trials": study_curves.trials(numbers, arrays, who),
            "rates": study_rates.rates(numbers, arrays, who),
            "curves": study_curves.curves(numbers, arrays, who),
            "profile": study_curves.profile(numbers, arrays, who)
            if len(numbers["workloads"]) >= 3
            else None,
        }
    return {name: picture for name, picture in pictures.items() if picture is not None}


def ratios(numbers: Mapping[str, Any], who: Cast) -> figures.Picture:
    """Draw the cost of each rule relative to the baseline, with confidence intervals.

    The cost is the number of gradients of single examples that a rule needs to reach
    the target (see `draw_study`). The ratio of a rule on a workload is its cost divided
    by the cost of the baseline. The picture has a row for each rule except the
    baseline. A row shows the geometric mean of the ratios on all workloads, with a
    confidence interval. If there are several workloads, the row also shows the ratio on
    each workload. A ratio is not drawn if all runs of the rule and of the baseline miss
    the target.

    `numbers` is the field `numbers` of the study's result, and `who` has the order of
    the rules.
    """
    workloads = numbers["workloads"]
    rules = [rule for rule in who.order if rule != numbers["baseline"]]
    overall = {row["rule"]: row for row in numbers["overall"]}
    single = (
        {(row["rule"], row["workload"]): row for row in numbers["comparisons"]}
        if len(workloads) > 1
        else {}
    )
    with_intervals = (
        len(rules) * len(workloads) <= MOST_INTERVALS and len(workloads) > 1
    )
    words = {rule: _words(numbers, overall[rule]) for rule in rules}
    # Inches above the diamond of a row, for one line of words or two.
    above = 0.5 if any(MISSES in text for text in words.values()) else 0.33
    row_height = (
        above
        + 0.17
        + (0.16 * len(workloads) if with_intervals else 0.14 if single else 0.0)
    )
    legend_rows = -(-len(workloads) // 2) if single else 0
    figure, axes = figures.new_figure(
        width=4.6, height=1.0 + 0.2 * legend_rows + row_height * len(rules)
    )
    panel = axes[0, 0]
    measured = [
        row
        for row in (*overall.values(), *single.values())
        if not nothing_reached(row, numbers)
    ]
    _frame(panel, measured)
    depth = 0.16 / row_height if with_intervals else 0.0
    top = above / row_height - 0.5
    for place, rule in enumerate(rules):
        if overall[rule] in measured:
            _draw_overall(panel, place + top, overall[rule])
        _write_verdict(panel, place - 0.5, overall[rule], words[rule])
        for index, workload in enumerate(workloads if single else []):
            height = (
                place
                + top
                + (depth * (index + 1.3) if with_intervals else 0.2 / row_height)
            )
            row, mark = single[rule, workload], MARKS[index % len(MARKS)]
            if row in measured:
                _draw_workload(panel, height, row, mark, with_intervals)
    panel.set_xlabel(
        f"example gradients to the target,\nrelative to {plain(numbers['baseline'])}"
    )
    _name_rows(panel, rules, top)
    if single:
        _name_workloads(figure, panel, workloads)
    return figures.Picture(
        "Which rule needs fewer gradients?",
        _ratios_caption(numbers, rules, overall),
        figure,
    )


def _frame(panel: Axes, rows: list[dict[str, Any]]) -> None:
    """Set up the log axis, and draw the line at the ratio 1."""
    numbers = [_numbers(row) for row in rows]
    middles = [ratio for ratio, _, _ in numbers]
    low, high = min([1.0, *middles]), max([1.0, *middles])
    ends = [
        end
        for _, *both in numbers
        for end in both
        if low / WIDEST <= end <= WIDEST * high
    ]
    low, high = min([low, *ends]) / 1.15, max([high, *ends]) * 1.15
    low, high = min(low, 1 / 1.5), max(high, 1.5)
    panel.set_xscale("log")
    places: dict[str, Any] = {
        "transform": panel.get_xaxis_transform(),
        "color": WORDS,
        "va": "bottom",
    }
    panel.set_xlim(low, high)
    panel.axvline(1, color=figures.COLOURS["exact"], linewidth=1.2, zorder=1)
    panel.text(1, 1.01, "← needs less", ha="right", **places)
    ticks = few_numbers(low, high)
    panel.set_xticks(ticks, [f"{t:g}" for t in ticks])
    panel.set_xticks([], minor=True)


def _name_rows(panel: Axes, rules: list[str], top: float) -> None:
    """Write the name of each rule beside its diamond, with lines between the rows.

    `top` is the height of the diamond of row 0. Each row has the height 1.
    """
    panel.set_ylim(len(rules) - 0.5, -0.5)
    panel.set_yticks(
        [place + top for place in range(len(rules))],
        [plain(rule) for rule in rules],
    )
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="y", visible=False)
    for place in range(1, len(rules)):
        panel.axhline(place - 0.5, color="#EEF0F2", linewidth=0.8, zorder=0)


def _name_workloads(figure: Figure, panel: Axes, workloads: list[str]) -> None:
    """Draw the legend below the panel, with the marker of each workload."""
    marks = [
        panel.plot([], [], mark, color=WORDS, mfc="white", ms=4.5)[0]
        for mark, _ in zip(MARKS, workloads, strict=False)
    ]
    figure.legend(
        marks,
        [plain(w) for w in workloads],
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )


def _numbers(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return (ratio, low, high) of a row."""
    return float(row["ratio"]), float(row["low"]), float(row["high"])


def _draw_overall(panel: Axes, height: float, row: dict[str, Any]) -> None:
    colour, fill = VERDICTS[row["verdict"]]
    ratio, low, high = _numbers(row)
    _draw_interval(panel, height, low, high, color=colour, linewidth=1.8)
    style = {
        "color": colour,
        "fillstyle": fill,
        "markerfacecoloralt": "white",
        "markeredgewidth": 1.4,
        "zorder": 4,
    }
    if fill == "none":
        style |= {"markerfacecolor": "white", "fillstyle": "full"}
    panel.plot(ratio, height, "D", markersize=7.5, label=row["rule"], **style)


def _write_verdict(panel: Axes, height: float, row: dict[str, Any], words: str) -> None:
    """Write the verdict on a rule above its row. `height` is the top of the row."""
    text = f"{row['verdict']}   {words}".replace(f", {MISSES}", f",\n{MISSES}")
    panel.annotate(
        text,
        (0.01, height),
        (0, -2),
        xycoords=panel.get_yaxis_transform(),
        textcoords="offset points",
        va="top",
        color=VERDICTS[row["verdict"]][0],
        linespacing=1.05,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        zorder=2,
    )


def _words(numbers: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Describe a ratio with its interval, and say where the rule misses the target."""
    if nothing_reached(row, numbers):
        return f"{NEITHER} the target"
    ratio, low, high = _numbers(row)
    text = f"{written(ratio)} [{written(low)}, {written(high)}]"
    cells = [cell for cell in numbers["cells"] if cell["rule"] == row["rule"]]
    missed = sum(not reaches(cell) for cell in cells)
    if not missed:
        return text
    return f"{text}, {MISSES} {missed} of {len(cells)}"


def _draw_interval(
    panel: Axes, height: float, low: float, high: float, **style: Any
) -> None:
    """Draw an interval as a line, with an arrow where it exceeds the axis."""
    left, right = panel.get_xlim()
    panel.plot(
        [max(low, left), min(high, right)],
        [height, height],
        label="_interval",
        zorder=3,
        **style,
    )
    for beyond, place, mark in ((low < left, left, "<"), (high > right, right, ">")):
        if beyond:
            panel.plot(
                place,
                height,
                mark,
                color=style["color"],
                markersize=5,
                clip_on=False,
                label="_more",
                zorder=3,
            )


def _draw_workload(
    panel: Axes,
    height: float,
    row: dict[str, Any],
    mark: str,
    with_interval: bool,
) -> None:
    ratio, low, high = _numbers(row)
    if with_interval:
        _draw_interval(panel, height, low, high, color=QUIET, linewidth=1.0)
    style = {
        "color": WORDS,
        "markerfacecolor": "white",
        "markeredgewidth": 0.9,
        "markersize": 4.5,
        "zorder": 4,
    }
    panel.plot(
        ratio,
        height,
        mark,
        label=f"_{row['rule']} on {row['workload']}",
        **style,
    )


def _ratios_caption(
    numbers: Mapping[str, Any], rules: list[str], overall: Mapping[str, dict[str, Any]]
) -> str:
    protocol, workloads = numbers["protocol"], numbers["workloads"]
    words = [
        f"{rule} {_words(numbers, overall[rule])}, {overall[rule]['verdict']}"
        for rule in rules
    ]
    marks = " Small marks are the single workloads." if len(workloads) > 1 else ""
    mean = ", the geometric mean over" if len(workloads) > 1 else " on"
    return (
        f"Example gradients to {protocol['target']:g} of the initial gap, relative to "
        f"{numbers['baseline']}{mean} {listed(workloads)}, with "
        f"{percent(protocol['level'])} intervals over searches and seeds: "
        f"{'; '.join(words)}.{marks} A run that misses the target counts as ten "
        f"full trainings. Left of 1, a rule needs less than {numbers['baseline']}. A "
        "full diamond is better, a half one worse, a hollow one undecided."
    )
