"""The pictures of a study: which rule needs less than the baseline, by how much, and what it took to find out."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from research import figures
from research.figures import study_curves, study_rates
from research.figures.study_curves import few_numbers
from research.figures.study_looks import QUIET, WORDS, Cast, cast, listed, number, percent, plain, written

# Colour, filled or hollow: a verdict is seen without its colour too, and is written beside its row.
VERDICTS = {"better": ("#0072B2", "full"), "worse": ("#D55E00", "left"), "undecided": ("#6B737C", "none")}
MARKS = "os^vPX<>*p"  # A shape for each workload.
WIDEST = 12  # An interval that goes further beyond all ratios ends in an arrow.
MOST_INTERVALS = 24  # Of single workloads; with more they are marks alone.


def draw_study(numbers: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, figures.Picture]:
    """The pictures of a finished study, the answer first.

    Args:
      numbers: Of the study's result: protocol, baseline, rules, workloads, cells, comparisons, overall.
      arrays: Of the study's result, under <workload>/<rule>/<what>.
    Returns:
      By name: ratios, trials, rates (where a rule has a learning rate), curves, and with three workloads or more profile.
      A rule has the same colour in all of them but ratios, where colour says the verdict.
    """
    who = cast(numbers)
    with figures.style():
        pictures = {
            "ratios": ratios(numbers, who),
            "trials": study_curves.trials(numbers, arrays, who),
            "rates": study_rates.rates(numbers, arrays, who),
            "curves": study_curves.curves(numbers, arrays, who),
            "profile": study_curves.profile(numbers, arrays, who) if len(numbers["workloads"]) >= 3 else None,
        }
    return {name: picture for name, picture in pictures.items() if picture is not None}


def ratios(numbers: Mapping[str, Any], who: Cast) -> figures.Picture:
    """A forest plot: each rule's example gradients over the baseline's, overall and on each workload."""
    workloads, rules = numbers["workloads"], [rule for rule in who.order if rule != numbers["baseline"]]
    overall = {row["rule"]: row for row in numbers["overall"]}
    single = {(row["rule"], row["workload"]): row for row in numbers["comparisons"]} if len(workloads) > 1 else {}
    with_intervals = len(rules) * len(workloads) <= MOST_INTERVALS and len(workloads) > 1
    row_height = 0.30 + (0.14 * len(workloads) if with_intervals else 0.14 if single else 0.0)
    figure, axes = figures.new_figure(height=max(2.4, 1.3 + row_height * len(rules)))
    panel = axes[0, 0]
    _frame(panel, [*overall.values(), *single.values()])
    depth = 0.14 / row_height if with_intervals else 0.0
    top = 0.15 / row_height - 0.5 if single else 0.0
    for place, rule in enumerate(rules):
        _draw_overall(panel, place + top, overall[rule], _absent(numbers, rule))
        for index, workload in enumerate(workloads if single else []):
            height = place + top + (depth * (index + 1.3) if with_intervals else 0.2 / row_height)
            row, share = single[rule, workload], (len(workloads) - index) / (len(workloads) + 1)
            _draw_workload(panel, height, row, MARKS[index % len(MARKS)], with_intervals, share)
    panel.set(
        ylim=(len(rules) - 0.5, -0.5),
        xlabel=f"example gradients to the target, over those of {plain(numbers['baseline'])}",
    )
    panel.set_yticks([place + top for place in range(len(rules))], [plain(rule) for rule in rules], fontsize=9)
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
            marks, [plain(w) for w in workloads], loc="outside lower center", ncols=5, fontsize=8, frameon=False
        )
    return figures.Picture("Which rule needs less?", _ratios_caption(numbers, rules, overall), figure)


def _frame(panel: Axes, rows: list[dict[str, Any]]) -> None:
    """The log axis around what is finite, the line at 1, and margins for what one side or both never reached."""
    middles = [r for row in rows if 0 < (r := number(row["ratio"])) < math.inf]
    low, high = min([1.0, *middles]), max([1.0, *middles])
    ends = [v for row in rows for end in ("low", "high") if low / WIDEST <= (v := number(row[end])) <= WIDEST * high]
    low, high = min([low, *ends]) / 1.15, max([high, *ends]) * 1.15
    low, high = min(low, 1 / 1.5), max(high, 1.5)
    room = (high / low) ** 0.08
    panel.set_xscale("log")
    shades = {"facecolor": "#F1F3F5", "zorder": 0}
    places: dict[str, Any] = {"transform": panel.get_xaxis_transform(), "fontsize": 8, "color": WORDS, "va": "bottom"}
    right = high * room**2 if any(math.isinf(number(row["ratio"])) for row in rows) else high
    left = low / room**2 if any(number(row["ratio"]) == 0 for row in rows) else low
    if right > high:
        panel.axvspan(high, right, **shades)
        panel.text(high * room, 1.01, "not reached", ha="center", **places)
    if left < low:
        panel.axvspan(left, low, **shades)
        panel.text(low / room, 1.01, "baseline: not reached", ha="center", **places)
    panel.set_xlim(left, right)
    panel.axvline(1, color=figures.COLOURS["exact"], linewidth=1.2, zorder=1)
    panel.text(1, 1.01, "← needs less", ha="right", **places)
    ticks = few_numbers(low, high)
    panel.set_xticks(ticks, [f"{t:g}" for t in ticks])
    panel.set_xticks([], minor=True)


def _place(panel: Axes, ratio: float, share: float = 0.5) -> float:
    """Where a ratio is drawn: what is infinite or zero in its margin, at that share of it, the rest within the axis."""
    left, right = panel.get_xlim()
    room = (right / left) ** (0.12 * share)
    return right / room if math.isinf(ratio) else left * room if ratio == 0 else min(max(ratio, left), right)


def _draw_overall(panel: Axes, height: float, row: dict[str, Any], absent: str) -> None:
    colour, fill = VERDICTS[row["verdict"]]
    ratio, low, high = (number(row[name]) for name in ("ratio", "low", "high"))
    reached = 0 < ratio < math.inf
    if reached:
        _draw_interval(panel, height, low, high, color=colour, linewidth=1.8)
    style = {"color": colour, "fillstyle": fill, "markerfacecoloralt": "white", "markeredgewidth": 1.4, "zorder": 4}
    if fill == "none" or not reached:
        style |= {"markerfacecolor": "white" if reached else colour, "fillstyle": "full"}
    panel.plot(_place(panel, ratio), height, marker="D" if reached else "X", markersize=7.5, label=row["rule"], **style)
    text = f"{written(ratio)} [{written(low)}, {written(high)}]" if reached else absent
    beside = {"transform": panel.get_yaxis_transform(), "va": "center", "fontsize": 8.5}
    panel.text(1.015, height, f"{row['verdict']}   {text}", color=colour, **beside)


def _absent(numbers: Mapping[str, Any], rule: str) -> str:
    """On how many workloads the rule, or else the baseline, never reached the target."""
    count = len(numbers["workloads"])
    for name in (rule, numbers["baseline"]):
        missing = sum(cell["rule"] == name and cell["cost"] is None for cell in numbers["cells"])
        if missing:
            whose = "" if name == rule else f"{name}: "
            return f"{whose}not reached" + (f" on {missing} of {count}" if count > 1 else "")
    return "not reached"


def _draw_interval(panel: Axes, height: float, low: float, high: float, **style) -> None:
    """A line with arrows where the interval goes on beyond the axis."""
    left, right = panel.get_xlim()
    panel.plot([max(low, left), min(high, right)], [height, height], label="_interval", zorder=3, **style)
    for beyond, place, mark in ((low < left, left, "<"), (high > right, right, ">")):
        if beyond:
            panel.plot(place, height, mark, color=style["color"], markersize=5, clip_on=False, label="_more", zorder=3)


def _draw_workload(
    panel: Axes, height: float, row: dict[str, Any], mark: str, with_interval: bool, share: float
) -> None:
    ratio = number(row["ratio"])
    if with_interval and 0 < ratio < math.inf:
        _draw_interval(panel, height, number(row["low"]), number(row["high"]), color=QUIET, linewidth=1.0)
    style = {"color": WORDS, "markerfacecolor": "white", "markeredgewidth": 0.9, "markersize": 4.5, "zorder": 4}
    panel.plot(_place(panel, ratio, share), height, mark, label=f"_{row['rule']} on {row['workload']}", **style)


def _ratios_caption(numbers: Mapping[str, Any], rules: list[str], overall: Mapping[str, dict[str, Any]]) -> str:
    protocol, workloads = numbers["protocol"], numbers["workloads"]
    parts, absent = [], []
    for rule in rules:
        row = overall[rule]
        ratio, low, high = (number(row[name]) for name in ("ratio", "low", "high"))
        if math.isinf(ratio):
            absent.append(f"{rule} ({_absent(numbers, rule)})")
        elif ratio == 0:
            parts.append(f"{rule} reaches the target where {numbers['baseline']} never does ({row['verdict']})")
        else:
            parts.append(f"{rule} {written(ratio)} [{written(low)}, {written(high)}], {row['verdict']}")
    marks = "; small marks are the single workloads" if len(workloads) > 1 else ""
    never = f" Without a ratio, at the right: {listed(absent)}." if absent else ""
    return (
        f"Example gradients to {protocol['target']:g} of the initial gap, over those of {numbers['baseline']}, "
        f"{'geometric mean over' if len(workloads) > 1 else 'on'} {listed(workloads)}, with the {percent(protocol['level'])} "
        f"interval{marks}: {'; '.join(parts) or 'none'}.{never} Left of 1 is less. A full diamond is better, a half one "
        "worse, a hollow one undecided."
    )
