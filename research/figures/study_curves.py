"""Line plots of a study: cost by trials, gap by passes, and performance profile."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from research import figures
from research.figures.study_looks import (
    QUIET,
    WORDS,
    Cast,
    listed,
    name_lines,
    number,
    panels,
    percent,
    written,
)
from research.statistics.costs import MOST_BUDGETS

SMALLEST = 1e-12  # Smaller relative gaps are rounding errors.
LARGEST = 10.0  # Runs with larger relative gaps have diverged.
MOST_NAMED = 12  # Numbers in a caption; with more, only for the baseline and the best.

Arrays = Mapping[str, np.ndarray]


def trials(numbers: Mapping[str, Any], arrays: Arrays, who: Cast) -> figures.Picture:
    """For each rule, plot the expected cost of the best of k trials against k.

    A trial is one choice of hyper-parameters. The gap is f - f*, where f* is the
    minimum of the objective f. The target is a given fraction of the initial gap. The
    cost is the number of passes over the data until the gap has fallen to the target.
    The band around a line is an interval for the expected cost. The interval accounts
    for the variation between trials and between seeds. `numbers` and `arrays` are
    fields of the study's result, and `who` has the order and the colours of the rules.
    """
    figure, used, spare = panels(numbers["workloads"])
    ends: dict[tuple[str, str], np.ndarray] = {}
    for panel, workload in zip(used, numbers["workloads"], strict=True):
        for rule in who.quiet:
            middle = arrays[f"{workload}/{rule}/best_of"][:, 0]
            panel.plot(
                np.arange(1, len(middle) + 1),
                middle,
                color=QUIET,
                linewidth=0.8,
                label=f"_{rule}",
                zorder=1,
            )
        for rule in reversed(who.shown):
            best = np.asarray(arrays[f"{workload}/{rule}/best_of"], float)
            k = np.arange(1, len(best) + 1)
            style = {
                "color": who.colours[rule],
                "label": rule,
                "marker": "o",
                "markersize": 3,
                "zorder": 3,
            }
            figures.band(panel, k, *best.T, **style)
            ends[workload, rule] = best[:, 0]
        _scale_costs(panel)
    figure.supylabel("expected passes to the target", fontsize=10)
    figure.supxlabel("trials", fontsize=10)
    name_lines(
        figure, used, spare, who, grey=f"{len(who.quiet)} others" if who.quiet else ""
    )
    protocol = numbers["protocol"]
    caption = (
        f"Expected passes to {protocol['target']:g} of the initial gap when the best "
        "of k trials is taken, against k. The bands are "
        f"{percent(protocol['level'])} intervals over other points and seeds. The "
        "first trial is the rule's defaults, the others are random points of its "
        "space. A run that misses the target counts as "
        f"{MOST_BUDGETS:g} full trainings ({MOST_BUDGETS * protocol['passes']:g} "
        "passes). The searches of the study refine beyond this. "
        f"{_sentences(numbers, who, lambda w, r: _gain(ends[w, r]))}"
        f"{_grey(who, named=True)}"
    )
    return figures.Picture("What tuning costs", caption, figure)


def curves(numbers: Mapping[str, Any], arrays: Arrays, who: Cast) -> figures.Picture:
    """Draw each rule's relative gap to the minimum against passes over the data.

    The gap is f - f*, where f* is the minimum of the objective f. The relative gap is
    the gap divided by its initial value. A trial is one choice of hyper-parameters. The
    study runs independent searches for each rule, and each search chooses one trial.
    The study then trains this trial on the reporting seeds, which no search uses. The
    line of a rule is the median over searches and reporting seeds. The band contains
    the middle 80 % of the runs. `numbers` and `arrays` are fields of the study's
    result, and `who` has the order and the colours of the rules.
    """
    target = numbers["protocol"]["target"]
    figure, used, spare = panels(numbers["workloads"])
    leaves = False  # Whether a line leaves its panel at the bottom.
    for panel, workload in zip(used, numbers["workloads"], strict=True):
        middles = _draw_gaps(panel, arrays, workload, who)
        lowest = min([target, *middles[middles > SMALLEST]])
        leaves |= bool((middles <= SMALLEST).any())
        panel.axhline(
            target, color=WORDS, linestyle=(0, (4, 3)), linewidth=1.1, label="_target"
        )
        panel.set_yscale("log")
        panel.set_ylim(max(lowest, SMALLEST) / 2, _top(panel))
        panel.set_xlim(left=0)
    figure.supylabel("f − f*, as a share of the initial gap", fontsize=10)
    figure.supxlabel("passes over the data", fontsize=10)
    name_lines(
        figure, used, spare, who, grey=f"{len(who.quiet)} others" if who.quiet else ""
    )
    caption = _curves_caption(numbers, who, leaves)
    return figures.Picture("Descent of the chosen trials", caption, figure)


def _draw_gaps(panel: Axes, arrays: Arrays, workload: str, who: Cast) -> np.ndarray:
    """Draw the relative gaps of all rules on one workload.

    Returns:
      Median gaps of the rules that are not drawn in grey.
    """
    for rule in who.quiet:
        middle = quantiles(arrays[f"{workload}/{rule}/curves"])[0]
        panel.plot(
            arrays[f"{workload}/{rule}/passes"],
            finite(middle),
            color=QUIET,
            lw=0.8,
            label=f"_{rule}",
            zorder=1,
        )
    middles = []
    for rule in reversed(who.shown):
        middle, low, high = quantiles(arrays[f"{workload}/{rule}/curves"])
        figures.band(
            panel,
            arrays[f"{workload}/{rule}/passes"],
            middle,
            low,
            # The band of a diverged run ends above the picture.
            np.minimum(high, 10 * LARGEST),
            color=who.colours[rule],
            label=rule,
            zorder=3,
        )
        middles.append(middle)
    return np.concatenate(middles)


def _curves_caption(numbers: Mapping[str, Any], who: Cast, leaves: bool) -> str:
    target = numbers["protocol"]["target"]
    cells = {(cell["workload"], cell["rule"]): cell for cell in numbers["cells"]}
    leaving = (
        f" Lines leave at the bottom where the gap is below {SMALLEST:g}, or negative."
    )
    caption = (
        f"The choices of each rule's searches on the "
        f"{len(numbers['protocol']['seeds'])} reporting seeds: median of the relative "
        f"gap over searches and seeds, and the band from its 10 to its 90 % "
        f"quantile; the dashed line is the target, {target:g}. "
        f"{_sentences(numbers, who, lambda w, r: _end(cells[w, r]))}{_grey(who)}"
        f"{leaving if leaves else ''}"
    )
    return caption.strip()


def profile(numbers: Mapping[str, Any], arrays: Arrays, who: Cast) -> figures.Picture:
    """Draw the performance profile of the rules of a study.

    The gap is f - f*, where f* is the minimum of the objective f. The target is a given
    fraction of the initial gap. The cost of a rule on a workload is the number of
    passes over the data until the gap has fallen to the target. For each rule and each
    factor c, the profile shows the fraction of the workloads on which the cost of the
    rule is at most c times the lowest cost of any rule. `numbers` and `arrays` are
    fields of the study's result, and `who` has the order and the colours of the rules.
    """
    figure, axes = figures.new_figure(height=4.4)
    panel, factors = axes[0, 0], arrays["profile/factors"]
    for rule in (*who.quiet, *reversed(who.shown)):
        grey = rule in who.quiet
        style = {
            "color": who.colours[rule],
            "label": f"_{rule}" if grey else rule,
            "lw": 0.8 if grey else 1.8,
        }
        panel.step(
            factors,
            arrays[f"profile/{rule}"],
            where="post",
            zorder=1 if grey else 3,
            **style,
        )
    count = len(numbers["workloads"])
    panel.set(xscale="log", ylim=(-0.02, 1.04), xlim=(factors[0], factors[-1]))
    panel.set(
        xlabel="passes relative to the cheapest rule",
        ylabel=f"share of the {count} workloads",
    )
    panel.yaxis.set_major_formatter(lambda value, _: percent(value))
    ticks = few_numbers(*panel.get_xlim())
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.set_xticks([], minor=True)
    name_lines(figure, [panel], [], who)
    sentences = [
        f"{rule} is cheapest on {percent(arrays[f'profile/{rule}'][0])} and within a "
        f"factor of {factors[-1]:.3g} on {percent(arrays[f'profile/{rule}'][-1])}"
        for rule in who.shown
    ]
    caption = (
        f"Performance profile (Dolan & Moré 2002): the share of {count} workloads on "
        "which a rule costs at most a given multiple of the cheapest rule: "
        f"{'; '.join(sentences)}.{_grey(who)} Higher and further left is better. A "
        "line that ends below 100 % does not reach the other workloads, or only at a "
        "larger multiple."
    )
    return figures.Picture(
        "On how many workloads is each rule near the best?", caption, figure
    )


def quantiles(values: Float[np.ndarray, "runs k"]) -> Float[np.ndarray, "3 k"]:
    """Return three rows: the median, the 10 % and the 90 % quantile over the runs.

    Each quantile is one of the values, without interpolation. Values that are not
    finite are treated as ∞, and values below 1e-12 as 1e-12.
    """
    values = np.where(np.isfinite(values), np.maximum(values, SMALLEST), np.inf)
    return np.quantile(values, [0.5, 0.1, 0.9], axis=0, method="inverted_cdf")


def finite(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Replace values that are not finite by NaN, so that a plotted line has a gap."""
    return np.where(np.isfinite(values), values, np.nan)


def _scale_costs(panel: Axes) -> None:
    """Scale a vertical log axis to the lines, not to their bands.

    The ticks are written without powers of ten. The horizontal axis shows whole numbers
    of trials.
    """
    drawn = np.concatenate(
        [np.asarray(line.get_ydata(), float) for line in panel.lines]
    )
    drawn = drawn[np.isfinite(drawn) & (drawn > 0)]
    panel.set_yscale("log")
    panel.set_ylim(drawn.min() / 1.5, drawn.max() * 1.6)
    panel.set_xlim(
        0.5, max(len(np.asarray(line.get_xdata())) for line in panel.lines) + 0.5
    )
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    show_few_numbers(panel)


def show_few_numbers(panel: Axes) -> None:
    """Label a vertical log axis with round numbers."""
    ticks = few_numbers(*panel.get_ylim())
    panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.set_yticks([], minor=True)


def few_numbers(low: float, high: float) -> list[float]:
    """Return round tick values for a log axis from `low` to `high`.

    A tick is a factor times a power of ten. All such numbers between `low` and `high`
    are ticks. If high / low > 3000, the only factor is 1. If 8 < high / low <= 3000,
    the factors are 1, 2 and 5. Otherwise, the factors are 1, 1.5, 2, 3, 5 and 7.

    Example:
      >>> few_numbers(0.3, 12)
      [0.5, 1.0, 2.0, 5.0, 10.0]
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (
        (1,)
        if high / low > 3e3
        else (1, 2, 5)
        if high / low > 8
        else (1, 1.5, 2, 3, 5, 7)
    )
    ticks = [
        float(f"{digit * 10.0**decade:.6g}") for decade in decades for digit in digits
    ]
    return [tick for tick in ticks if low <= tick <= high]


def _top(panel: Axes) -> float:
    tops = [
        np.nanmax(y, initial=1.0)
        for y in (np.asarray(line.get_ydata(), float) for line in panel.lines)
    ]
    return 1.5 * min(max(tops), LARGEST)


def _gain(costs: np.ndarray) -> str:
    first, last = costs[0], costs[-1]
    if len(costs) == 1:
        return f"{written(last)} with its only trial"
    return (
        f"{written(first)} with its defaults, {written(last)} with {len(costs)} trials"
    )


def _end(cell: Mapping[str, Any]) -> str:
    reached, cost = number(cell["reached"]), number(cell["cost"])
    least = (
        f"after {written(cost)} passes" if np.isfinite(cost) else "at an unknown cost"
    )
    return (
        f"{percent(reached)} of the runs reach it, {least}"
        if reached > 0
        else "no run reaches it"
    )


def _sentences(
    numbers: Mapping[str, Any], who: Cast, words: Callable[[str, str], str]
) -> str:
    """Describe the numbers of each workload.

    If there are many numbers, only those of the baseline and of the best rule are
    given.
    """
    rules: Sequence[str] = who.shown
    if len(rules) * len(numbers["workloads"]) > MOST_NAMED:
        rules = who.shown[:2]
    sentences = [
        (
            f"On {workload}: "
            f"{'; '.join(f'{rule}: {words(workload, rule)}' for rule in rules)}."
        )
        for workload in numbers["workloads"]
    ]
    return " ".join(sentences)


def _grey(who: Cast, named: bool = False) -> str:
    names = listed(who.quiet) if named else f"the {len(who.quiet)} other rules"
    return f" In grey: {names}." if who.quiet else ""
