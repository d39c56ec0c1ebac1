"""Common parts of the pictures of a study: rule colours, panels, names of lines."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from research import figures
from research.statistics.measured import reaches

# Colour of the baseline, then Okabe & Ito's colours without yellow (hard to see on
# white), and a wine red. Colour-blind readers can distinguish any two of them.
RULE_COLOURS = (
    "#222222",
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#882255",
)
QUIET = "#BCC3CB"
WORDS = "#4A5159"
BEST_SHOWN = (
    5  # Coloured rules besides the baseline if there are more rules than colours.
)


class Cast(NamedTuple):
    """Order and colours of the rules in a study's pictures.

    Attributes:
      order: All rules, the best first. The rules are sorted by the ratio of their cost
        to the cost of the baseline (the geometric mean over all workloads). The ratio
        of the baseline is 1, and a missing ratio is treated as infinite. Among rules
        with equal ratios, the rules that miss the target on fewer workloads come first.
        If the rules miss the target on equally many workloads, they are sorted by the
        sum of their log costs on the workloads where they reach the target.
      shown: Rules drawn in colour: first the baseline, then the best other rules.
      quiet: The remaining rules, drawn in grey, the best first.
      colours: Colour of every rule.
    """

    order: tuple[str, ...]
    shown: tuple[str, ...]
    quiet: tuple[str, ...]
    colours: dict[str, str]


def cast(numbers: Mapping[str, Any]) -> Cast:
    """Sort the rules of a study, and give each a colour for all pictures.

    `numbers` is a field of the study's result. The ratio of a rule is its cost divided
    by the cost of the baseline. The rules are sorted by this ratio, the cheapest rule
    first. The baseline has the ratio 1. A rule whose ratio is None comes after all
    rules that have a ratio.

    Example:
      >>> overall = [{"rule": "mine", "ratio": 0.7}, {"rule": "yours", "ratio": None}]
      >>> cast(
      ...     {
      ...         "baseline": "adam",
      ...         "rules": ["adam", "yours", "mine"],
      ...         "overall": overall,
      ...         "cells": [],
      ...     }
      ... ).order
      ('mine', 'adam', 'yours')
    """
    baseline = numbers["baseline"]
    ratios = {row["rule"]: number(row["ratio"]) for row in numbers["overall"]} | {
        baseline: 1.0
    }  # Rules without a ratio are last.
    order = tuple(
        sorted(
            numbers["rules"],
            key=lambda rule: (ratios.get(rule, math.inf), *_price(numbers, rule)),
        )
    )
    others = [rule for rule in order if rule != baseline]
    most = len(others) if len(order) <= len(RULE_COLOURS) else BEST_SHOWN
    shown, quiet = (baseline, *others[:most]), tuple(others[most:])
    return Cast(
        order,
        shown,
        quiet,
        dict.fromkeys(order, QUIET) | dict(zip(shown, RULE_COLOURS, strict=False)),
    )


def _price(numbers: Mapping[str, Any], rule: str) -> tuple[int, float]:
    """Return the key by which rules with equal ratios are sorted, a pair of numbers.

    The first is the number of workloads on which the rule misses the target. The second
    is the sum of the log costs on the other workloads.
    """
    cells = [cell for cell in numbers["cells"] if cell["rule"] == rule]
    costs = [number(cell["cost"]) for cell in cells if reaches(cell)]
    return len(cells) - len(costs), sum(
        math.log(cost) for cost in costs if 0 < cost < math.inf
    )


def number(value: float | None) -> float:
    """Convert a cost from the JSON of a study to a float.

    None and NaN become inf. None means that the target was not reached.
    """
    return math.inf if value is None or math.isnan(value) else float(value)


def written(value: float) -> str:
    """Format a number with few digits.

    Zero and numbers from 0.1 to 10 have two decimals. Numbers from 10 to 100 have three
    significant digits. Numbers from 100 on are rounded to integers. Numbers below 0.1
    have two significant digits. For a negative number, the absolute value decides.

    Example:
      >>> [
      ...     written(value)
      ...     for value in (0.7071, 4.186, 12.52, 1234.5, 3.21e-5, float("inf"))
      ... ]
      ['0.71', '4.19', '12.5', '1,234', '3.2e-05', '∞']
    """
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0 or 0.1 <= abs(value) < 10:
        return f"{value:.2f}"
    return (
        f"{value:,.0f}"
        if abs(value) >= 100
        else f"{value:.3g}"
        if abs(value) >= 10
        else f"{value:.2g}"
    )


def percent(share: float) -> str:
    """Format a fraction as a percentage: 0.95 becomes 95 %."""
    return f"{100 * share:.3g} %"


def plain(text: str) -> str:
    """Escape the dollar signs of a text, because matplotlib reads $ as mathematics."""
    return text.replace("$", r"\$")


def listed(words: Iterable[str]) -> str:
    """Join names for a sentence: a, b and c.

    Example:
      >>> listed(["a", "b", "c"])
      'a, b and c'
    """
    *most, last = list(words) or [""]
    return f"{', '.join(most)} and {last}" if most else last


def panels(
    titles: Sequence[str], *, each: float = 2.5, wrap: int = 3, **keywords: Any
) -> tuple[Figure, list[Axes], list[Axes]]:
    """Return a figure with one panel for each title.

    Args:
      titles: Titles of the panels, in order.
      each: Height of a row of panels in inches. A single row of one or two panels is
        higher.
      wrap: Maximum number of panels in a row. Four panels are drawn as two rows of two
        if this number is 3 (the default).
      **keywords: Arguments for `research.figures.new_figure`.
    Returns:
      The figure, the list of panels, and the list of blank axes in the unused places.
    """
    columns = (
        {1: 1, 2: 2, 4: 2}.get(len(titles), wrap)
        if wrap == 3
        else min(wrap, len(titles))
    )
    rows = -(-len(titles) // columns)
    height = 4.2 if rows == 1 and columns < 3 else 0.6 + each * rows
    figure, axes = figures.new_figure(
        rows, columns, width=9.0, height=height, **keywords
    )
    used, spare = list(axes.flat[: len(titles)]), list(axes.flat[len(titles) :])
    for panel, title in zip(used, titles, strict=True):
        panel.set_title(plain(title), loc="left", fontsize=9 if each < 2 else 10)
        panel.tick_params(labelsize=8)
    for panel in spare:
        panel.axis("off")
    return figure, used, spare


def name_lines(
    figure: Figure,
    used: Sequence[Axes],
    spare: Sequence[Axes],
    who: Cast,
    *,
    grey: str = "",
    at_ends: bool = True,
) -> None:
    """Label the coloured lines with the names of their rules.

    If `at_ends` is True and there are at most two panels in a row, the names are
    written at the ends of the lines. Otherwise there is one legend for all panels.

    Args:
      figure: The figure.
      used: Panels with lines. The matplotlib label of a line is the name of the rule.
      spare: Blank axes. If there are any, the legend is placed on the first of them.
      who: Order and colours of the rules.
      grey: Legend text for the grey lines. "" means that the legend does not mention
        them.
      at_ends: If False, names are never written at the ends of lines.
    """
    grid = used[0].get_gridspec()
    if at_ends and (grid is None or grid.ncols <= 2):
        for panel in used:
            _name_ends(panel, figure.get_figheight() / (grid.nrows if grid else 1), who)
        return
    handles = [Line2D([], [], color=who.colours[rule]) for rule in who.shown]
    names = [plain(rule) for rule in who.shown]
    if grey:
        handles.append(Line2D([], [], color=QUIET, linewidth=0.9))
        names.append(grey)
    if spare:
        spare[0].legend(handles, names, loc="center left", fontsize=8, frameon=False)
    else:
        figure.legend(
            handles,
            names,
            loc="outside upper center",
            ncols=4,
            fontsize=8,
            frameon=False,
        )


def _name_ends(panel: Axes, inches: float, who: Cast) -> None:
    """Write each rule's name beside the last point of its line, without overlaps.

    The name of a line without points stands at the top.
    """
    lines = {str(line.get_label()): line for line in panel.lines}
    ends = {rule: _end(panel, lines[rule]) for rule in who.shown if rule in lines}
    size = min(8.0, 60 * (inches - 0.8) / max(len(ends), 1))
    step = 1.25 * size / 72 / max(inches - 0.8, 0.5)
    names = sorted(
        ends, key=lambda rule: (round(ends[rule][1], 6), -who.order.index(rule))
    )  # Among equal heights, the best rule is on top.
    heights = spread([ends[rule][1] for rule in names], step)
    for rule, height in zip(names, heights, strict=True):
        x, y, drawn = ends[rule]
        text = plain(rule) if drawn else f"{plain(rule)}: not reached"
        panel.text(
            1.05,
            height,
            text,
            color=who.colours[rule],
            fontsize=size,
            va="center",
            transform=panel.transAxes,
        )
        if drawn:
            way = ([x, max(x, 1.0), 1.04], [y, y, height])
            panel.plot(
                *way,
                color=who.colours[rule],
                lw=0.6,
                clip_on=False,
                label="_way",
                transform=panel.transAxes,
            )


def _end(panel: Axes, line: Any) -> tuple[float, float, bool]:
    """Return a line's last finite point in axes coordinates.

    The third value says whether the line has a finite point.
    """
    points = np.column_stack(
        [np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)]
    )
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return 1.0, 1.0, False
    x, y = panel.transAxes.inverted().transform(panel.transData.transform(points[-1]))
    return float(x), float(np.clip(y, 0, 1)), True


def spread(places: Sequence[float], step: float) -> list[float]:
    """Move positions of labels apart until neighbours differ by at least `step`.

    The positions are ascending and lie in [0, 1]. They are moved as little as possible,
    and stay in [0, 1] if there is room.

    Example:
      >>> spread([0.5, 0.5, 0.9], 0.1)
      [0.45, 0.55, 0.9]
    """
    groups: list[
        list[float]
    ] = []  # Pairs (middle, number of members); overlapping groups are merged.
    for place in places:
        groups.append([place, 1])
        while (
            len(groups) > 1
            and _top(groups[-2], step) + step > _bottom(groups[-1], step) + 1e-12
        ):
            (a, m), (b, n) = groups[-2:]
            groups[-2:] = [[(a * m + b * n) / (m + n), m + n]]
    return [
        round(_bottom(group, step) + step * k, 12)
        for group in groups
        for k in range(int(group[1]))
    ]


def _bottom(group: Sequence[float], step: float) -> float:
    middle, members = group
    half = step * (members - 1) / 2
    return max(min(middle, 1.0 - half), half) - half


def _top(group: Sequence[float], step: float) -> float:
    return _bottom(group, step) + step * (group[1] - 1)
