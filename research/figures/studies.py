"""Draw the pictures of a study, which compares rules with a baseline."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

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
    reaches,
    written,
)

# Colour and filling: a verdict is visible without colour, and written beside its row.
VERDICTS = {
    "better": ("#0072B2", "full"),
    "worse": ("#D55E00", "left"),
    "undecided": ("#6B737C", "none"),
}
MARKS = "os^vPX<>*p"  # One marker for each workload.
WIDEST = 12  # An interval that exceeds all ratios by a larger factor ends in an arrow.
MOST_INTERVALS = 24  # With more single workloads, only markers are drawn, no intervals.


def draw_study(
    numbers: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, figures.Picture]:
    """Draw the pictures of a finished study. The first picture shows the answer.

    Args:
      numbers: The `numbers` of the study's result. The entries protocol, baseline,
        rules, workloads, cells, comparisons and overall are used.
      arrays: The `arrays` of the study's result, with names such as
        <workload>/<rule>/curves.
    Returns:
      Pictures by name: ratios, trials, rates (only if a rule has a learning rate),
      curves, and profile (only if there are at least three workloads). A rule has the
      same colour in all pictures except ratios. In ratios, the colour shows the
      verdict.
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
    """Draw a forest plot of the cost of each rule relative to the baseline.

    The cost is the number of example gradients. The plot shows the overall ratio and
    the ratio on each workload.
    """
    workloads, rules = (
        numbers["workloads"],
        [rule for rule in who.order if rule != numbers["baseline"]],
    )
    overall = {row["rule"]: row for row in numbers["overall"]}
    single = (
        {(row["rule"], row["workload"]): row for row in numbers["comparisons"]}
        if len(workloads) > 1
        else {}
    )
    with_intervals = (
        len(rules) * len(workloads) <= MOST_INTERVALS and len(workloads) > 1
    )
    row_height = 0.30 + (
        0.14 * len(workloads) if with_intervals else 0.14 if single else 0.0
    )
    figure, axes = figures.new_figure(height=max(2.4, 1.3 + row_height * len(rules)))
    panel = axes[0, 0]
    _frame(panel, [*overall.values(), *single.values()])
    depth = 0.14 / row_height if with_intervals else 0.0
    top = 0.15 / row_height - 0.5 if single else 0.0
    for place, rule in enumerate(rules):
        _draw_overall(panel, place + top, overall[rule], _words(numbers, overall[rule]))
        for index, workload in enumerate(workloads if single else []):
            height = (
                place
                + top
                + (depth * (index + 1.3) if with_intervals else 0.2 / row_height)
            )
            row, share = (
                single[rule, workload],
                (len(workloads) - index) / (len(workloads) + 1),
            )
            _draw_workload(
                panel, height, row, MARKS[index % len(MARKS)], with_intervals, share
            )
    panel.set(
        ylim=(len(rules) - 0.5, -0.5),
        xlabel=f"example gradients to the target, relative to {plain(numbers['baseline'])}",
    )
    panel.set_yticks(
        [place + top for place in range(len(rules))],
        [plain(rule) for rule in rules],
        fontsize=9,
    )
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="y", visible=False)
    for place in range(1, len(rules)):
        panel.axhline(place - 0.5, color="#EEF0F2", linewidth=0.8, zorder=0)
    if single:
        marks = [
            panel.plot([], [], mark, color=WORDS, mfc="white", ms=4.5)[0]
            for mark, _ in zip(MARKS, workloads, strict=False)
        ]
        figure.legend(
            marks,
            [plain(w) for w in workloads],
            loc="outside lower center",
            ncols=5,
            fontsize=8,
            frameon=False,
        )
    return figures.Picture(
        "Which rule needs fewer gradients?",
        _ratios_caption(numbers, rules, overall),
        figure,
    )


def _frame(panel: Axes, rows: list[dict[str, Any]]) -> None:
    """Set up the log axis, the line at 1, and margins for ratios of 0 or infinity."""
    numbers = [_numbers(row) for row in rows]
    middles = [ratio for ratio, _, _ in numbers if 0 < ratio < math.inf]
    low, high = min([1.0, *middles]), max([1.0, *middles])
    ends = [
        end
        for _, *both in numbers
        for end in both
        if low / WIDEST <= end <= WIDEST * high
    ]
    low, high = min([low, *ends]) / 1.15, max([high, *ends]) * 1.15
    low, high = min(low, 1 / 1.5), max(high, 1.5)
    room = (high / low) ** 0.08
    panel.set_xscale("log")
    shades = {"facecolor": "#F1F3F5", "zorder": 0}
    places: dict[str, Any] = {
        "transform": panel.get_xaxis_transform(),
        "fontsize": 8,
        "color": WORDS,
        "va": "bottom",
    }
    right = (
        high * room**2 if any(ratio == math.inf for ratio, _, _ in numbers) else high
    )
    left = low / room**2 if any(ratio == 0 for ratio, _, _ in numbers) else low
    if right > high:
        panel.axvspan(high, right, **shades)
        panel.text(high * room, 1.01, "not reached", ha="center", **places)
    if left < low:
        panel.axvspan(left, low, **shades)
        panel.text(low / room, 1.01, "alone reaches it", ha="center", **places)
    panel.set_xlim(left, right)
    panel.axvline(1, color=figures.COLOURS["exact"], linewidth=1.2, zorder=1)
    panel.text(1, 1.01, "← needs less", ha="right", **places)
    ticks = few_numbers(low, high)
    panel.set_xticks(ticks, [f"{t:g}" for t in ticks])
    panel.set_xticks([], minor=True)


def _numbers(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return (ratio, low, high) of a row.

    A missing ratio is NaN; a missing interval is (0, inf).
    """
    found = zip(
        (row[name] for name in ("ratio", "low", "high")),
        (math.nan, 0.0, math.inf),
        strict=True,
    )
    ratio, low, high = (
        missing if value is None or math.isnan(value) else float(value)
        for value, missing in found
    )
    return ratio, low, high


def _place(panel: Axes, ratio: float, share: float = 0.5) -> float:
    """Return the position of a ratio on the axis.

    A ratio of 0 or infinity is placed in its margin, at the given share of the margin's
    width.
    """
    left, right = panel.get_xlim()
    room = (right / left) ** (0.12 * share)
    return (
        right / room
        if math.isinf(ratio)
        else left * room
        if ratio == 0
        else min(max(ratio, left), right)
    )


def _draw_overall(panel: Axes, height: float, row: dict[str, Any], words: str) -> None:
    colour, fill = VERDICTS[row["verdict"]]
    ratio, low, high = _numbers(row)
    if 0 < ratio < math.inf:
        _draw_interval(panel, height, low, high, color=colour, linewidth=1.8)
    style = {
        "color": colour,
        "fillstyle": fill,
        "markerfacecoloralt": "white",
        "markeredgewidth": 1.4,
        "zorder": 4,
    }
    if fill == "none" or ratio == math.inf:
        style |= {
            "markerfacecolor": colour if ratio == math.inf else "white",
            "fillstyle": "full",
        }
    if not math.isnan(ratio):
        mark = "X" if ratio == math.inf else "D"
        panel.plot(
            _place(panel, ratio),
            height,
            marker=mark,
            markersize=7.5,
            label=row["rule"],
            **style,
        )
    beside = {"transform": panel.get_yaxis_transform(), "va": "center", "fontsize": 8.5}
    panel.text(1.015, height, f"{row['verdict']}   {words}", color=colour, **beside)


def _words(numbers: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Describe a ratio with its interval, or say which rule reaches the target.

    If this does not hold for all workloads, the text adds for how many.
    """
    count = len(numbers["workloads"])
    mine, other = (_reached_by(numbers, row[name]) for name in ("rule", "baseline"))
    ratio, low, high = _numbers(row)
    if 0 < ratio < math.inf:
        text, places = (
            f"{written(ratio)} [{written(low)}, {written(high)}]",
            row["workloads"],
        )
        return text if places == count else f"{text} on {places} of {count}"
    if mine and other:
        return "each reaches it elsewhere"
    if not mine and not other:
        return "neither reaches it"
    text, places = (
        ("alone reaches it", mine)
        if mine
        else ("not reached", set(numbers["workloads"]) - mine)
    )
    return f"{text} on {len(places)} of {count}" if count > 1 else text


def _reached_by(numbers: Mapping[str, Any], rule: str) -> set[str]:
    """Return the workloads on which the rule reaches the target."""
    return {
        cell["workload"]
        for cell in numbers["cells"]
        if cell["rule"] == rule and reaches(cell)
    }


def _draw_interval(
    panel: Axes, height: float, low: float, high: float, **style
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
    share: float,
) -> None:
    ratio, low, high = _numbers(row)
    if math.isnan(ratio):
        return  # Neither rule reaches the target here.
    if with_interval and 0 < ratio < math.inf:
        _draw_interval(panel, height, low, high, color=QUIET, linewidth=1.0)
    style = {
        "color": WORDS,
        "markerfacecolor": "white",
        "markeredgewidth": 0.9,
        "markersize": 4.5,
        "zorder": 4,
    }
    panel.plot(
        _place(panel, ratio, share),
        height,
        mark,
        label=f"_{row['rule']} on {row['workload']}",
        **style,
    )


def _ratios_caption(
    numbers: Mapping[str, Any], rules: list[str], overall: Mapping[str, dict[str, Any]]
) -> str:
    protocol, workloads = numbers["protocol"], numbers["workloads"]
    groups: dict[str, list[str]] = {"ratio": [], "left": [], "right": [], "none": []}
    for rule in rules:
        ratio, words = _numbers(overall[rule])[0], _words(numbers, overall[rule])
        if 0 < ratio < math.inf:
            groups["ratio"].append(f"{rule} {words}, {overall[rule]['verdict']}")
        else:
            place = "none" if math.isnan(ratio) else "left" if ratio == 0 else "right"
            groups[place].append(f"{rule} ({words}, {overall[rule]['verdict']})")
    marks = "; small marks show single workloads" if len(workloads) > 1 else ""
    mean = (
        "geometric mean over the workloads that both reach, among"
        if len(workloads) > 1
        else "on"
    )
    starts = {"left": "At the left", "right": "At the right", "none": "Without a ratio"}
    others = "".join(
        f" {start}: {listed(groups[name])}."
        for name, start in starts.items()
        if groups[name]
    )
    fewer = any(0 < row["workloads"] < len(workloads) for row in overall.values())
    alone = (
        (
            " A workload that only one rule reaches counts in favour of that rule if the "
            "comparison there is decided."
        )
        if fewer
        else ""
    )
    cross = (
        ", a cross that the rule does not reach the target" if groups["right"] else ""
    )
    return (
        f"Example gradients to reach {protocol['target']:g} of the initial gap, "
        f"relative to {numbers['baseline']}: {mean} {listed(workloads)}, with the "
        f"{percent(protocol['level'])} interval{marks}: "
        f"{'; '.join(groups['ratio']) or 'none'}.{others}{alone} A rule reaches the "
        "target on a workload if at least half of its reported runs do. Left of 1 "
        "means fewer gradients. A full diamond means better, a half one worse, a "
        f"hollow one undecided{cross}."
    )
