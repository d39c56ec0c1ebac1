"""Draw how the score of a rule depends on its learning rate."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes

from research import figures
from research.figures.study_curves import show_few_numbers
from research.figures.study_looks import Cast, listed, name_lines, panels, written
from research.statistics.costs import MOST_BUDGETS, full_length

RATE = "learning_rate"
MOST_PANELS = 12  # Maximum number of panels with one rule each.
OVERLAID = 3  # Maximum number of rules in one panel.


class Valley(NamedTuple):
    """Scores of one rule on one workload, as a function of the learning rate.

    A trial is one choice of hyper-parameters, which a search trains with several seeds.
    The score of a trial is the geometric mean of its costs over these seeds, in passes
    over the data. All searches together start with t trials. Trials that a search adds
    later are not among these t trials. In the end, each search chooses one trial.
    Besides the scores of the t trials, the score is known at r learning rates, which
    make a line in the picture. On this line, all other hyper-parameters have the values
    of the best of the trials that the searches chose.

    Attributes:
      rates: Learning rate of each trial, ascending, shape (t,).
      scores: Score of each trial, shape (t,).
      low, high: Smallest and largest cost of each trial over the seeds, shape (t,).
      diverged: Whether a run of the trial diverged or had the largest possible cost,
        shape (t,). The largest possible cost is ten times the budget, the length of a
        full training in passes.
      chosen: Index of the trial with the lowest score among the t trials. If several
        trials have the lowest score, it is the one that was made first.
      along: Learning rates of the line, ascending, shape (r,).
      line: Score at each rate of `along`, shape (r,).
      floor, ceiling: Smallest and largest cost over the seeds at each rate of `along`,
        shape (r,).
      near: Range of good learning rates, a pair (lowest rate, highest rate). In this
        range around the best rate of the line, the score is at most 10 % above the
        lowest score of the line. None if this lowest score is above the budget of
        passes, or if the study is so old that it does not contain the range.
      decades: Width of the range of good rates in decades. None if the lowest score of
        the line is above the budget of passes.
      at_end: Whether `near` reaches an end of the line. The range of good rates may
        then continue beyond this end.
      name: Name of the hyper-parameter that is the learning rate.
    """

    rates: Float[np.ndarray, " t"]
    scores: Float[np.ndarray, " t"]
    low: Float[np.ndarray, " t"]
    high: Float[np.ndarray, " t"]
    diverged: Bool[np.ndarray, " t"]
    chosen: int
    along: Float[np.ndarray, " r"]
    line: Float[np.ndarray, " r"]
    floor: Float[np.ndarray, " r"]
    ceiling: Float[np.ndarray, " r"]
    near: tuple[float, float] | None
    decades: float | None
    at_end: bool
    name: str


def valley(
    numbers: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    workload: str,
    rule: str,
) -> Valley | None:
    """Return the scores of a rule on a workload as a function of the learning rate.

    `numbers` and `arrays` are fields of the study's result. The returned value is None
    if the rule has no learning rate.
    """
    cell = next(
        c for c in numbers["cells"] if (c["workload"], c["rule"]) == (workload, rule)
    )
    names, key = list(cell["hyperparameters"]), f"{workload}/{rule}"
    name = cell.get("rate_name", RATE)
    if name not in names:
        return None
    points = np.asarray(arrays[f"{key}/trials"], float)
    rates = points.reshape(-1, points.shape[-1])[:, names.index(name)]
    order = np.argsort(rates, kind="stable")
    screening = np.asarray(arrays[f"{key}/screening"], float)
    tuning = np.exp(screening.reshape(-1, screening.shape[-1]))[order]
    rates, budget = rates[order], _budget(numbers, cell, arrays, key)
    scores = np.exp(np.log(tuning).mean(axis=1))
    lost = tuning >= MOST_BUDGETS * budget * (1 - 1e-9)
    diverged = lost.any(axis=1)
    chosen = int(np.lexsort((order, scores))[0])
    along = arrays[f"{key}/rates"]
    logs = np.asarray(arrays[f"{key}/rate_scores"], float)
    near, decades, at_end = _span(cell)
    return Valley(
        rates=rates,
        scores=scores,
        low=tuning.min(axis=1),
        high=tuning.max(axis=1),
        diverged=diverged,
        chosen=chosen,
        along=along,
        line=np.exp(logs.mean(axis=1)),
        floor=np.exp(logs.min(axis=1)),
        ceiling=np.exp(logs.max(axis=1)),
        near=near,
        decades=decades,
        at_end=at_end,
        name=name,
    )


def _budget(
    numbers: Mapping[str, Any],
    cell: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    key: str,
) -> float:
    """Return the budget in passes. A run that misses the target costs ten budgets.

    The budget is the length of a full training, which is the same for all rules. In
    older studies, the budget is the length of the rule's own trainings, which may be
    shorter. In such a study, no cost is above ten times the shorter length. The shorter
    length is also returned if no run missed the target; it then has no effect.
    """
    length = float(arrays[f"{key}/passes"][-1])
    dearest = float(np.exp(np.max(arrays[f"{key}/screening"])))
    if dearest <= MOST_BUDGETS * length * (1 + 1e-9):
        return length
    evaluations = cell.get("evaluations", 1.0)
    return full_length(length, numbers["protocol"]["passes"], evaluations)


def _span(
    cell: Mapping[str, Any],
) -> tuple[tuple[float, float] | None, float | None, bool]:
    """Return `near`, `decades` and `at_end` of a Valley.

    Older studies have only `decades`.
    """
    decades, low, high = (
        cell.get(name) for name in ("robustness", "robust_low", "robust_high")
    )
    near = (
        None
        if decades is None or low is None or high is None
        else (float(low), float(high))
    )
    return near, decades, bool(cell.get("robust_at_end"))


def rates(
    numbers: Mapping[str, Any], arrays: Mapping[str, np.ndarray], who: Cast
) -> figures.Picture | None:
    """Plot the scores of the trials of each rule against the learning rate.

    A trial is one choice of hyper-parameters. The score of a trial is the geometric
    mean of its costs over the seeds, in passes over the data. Only rules with a
    learning rate are drawn. If there are more than three such rules, and they make at
    most twelve pairs of rule and workload, each pair has its own panel. Otherwise, each
    workload has one panel with at most three rules. These are the first rules of
    `who.shown` that have a learning rate. `who.shown` begins with the baseline,
    followed by the rules with the lowest cost. If there is no rule to draw, the
    returned value is None.

    `numbers` and `arrays` are fields of the study's result, and `who` has the order and
    the colours of the rules.
    """
    workloads = numbers["workloads"]
    valleys = {
        (w, r): valley(numbers, arrays, w, r) for w in workloads for r in who.order
    }
    with_rate = [rule for rule in who.order if any(valleys[w, rule] for w in workloads)]
    shown = [rule for rule in who.shown if rule in with_rate]
    if len(with_rate) > OVERLAID and len(with_rate) * len(workloads) <= MOST_PANELS:
        figure, drawn = _grid(workloads, with_rate, valleys, who), with_rate
    elif shown:
        drawn = shown[:OVERLAID]
        figure = _overlaid(workloads, drawn, valleys, who)
    else:  # In one panel, grey rules could not be distinguished.
        return None
    figure.supxlabel("learning rate", fontsize=10)
    figure.supylabel("cost on the tuning seeds, in passes", fontsize=10)
    return figures.Picture(
        "How robust is the learning rate?",
        _caption(numbers, who, drawn, with_rate, valleys),
        figure,
    )


def _overlaid(
    workloads: Sequence[str],
    rules: Sequence[str],
    valleys: Mapping[tuple[str, str], Valley | None],
    who: Cast,
):
    figure, used, spare = panels(workloads, each=2.6)
    for panel, workload in zip(used, workloads, strict=True):
        here = [
            (rule, v) for rule in rules if (v := valleys[workload, rule]) is not None
        ]
        _scale(panel, [v for _, v in here])
        for row, (rule, v) in enumerate(here):
            draw_valley(panel, v, who.colours[rule], rule, row)
    name_lines(figure, used, spare, who._replace(shown=tuple(rules)), at_ends=False)
    return figure


def _grid(
    workloads: Sequence[str],
    rules: Sequence[str],
    valleys: Mapping[tuple[str, str], Valley | None],
    who: Cast,
):
    """Draw one panel for each pair of rule and workload.

    If there are several workloads, each workload has its own column.
    """
    pairs = [(workload, rule) for rule in rules for workload in workloads]
    titles = [
        rule if len(workloads) == 1 else f"{rule} on {workload}"
        for workload, rule in pairs
    ]
    wrap = len(workloads) if len(workloads) > 1 else 4
    figure, used, _ = panels(titles, each=1.75, wrap=wrap, sharex=True)
    for panel, (workload, rule) in zip(used, pairs, strict=True):
        if (v := valleys[workload, rule]) is None:
            panel.text(
                0.5,
                0.5,
                "no learning rate",
                ha="center",
                transform=panel.transAxes,
                fontsize=8,
            )
            continue
        _scale(panel, [v])
        draw_valley(panel, v, who.colours[rule], rule, 0)
    return figure


def _scale(panel: Axes, valleys: list[Valley]) -> None:
    """Set log axes around the trials that did not diverge.

    The limits leave room for the crosses above and the bars below.
    """
    fine = [a[~v.diverged] for v in valleys for a in (v.low, v.high)]
    fine += [v.scores[[v.chosen]] for v in valleys] + [
        v.floor[[v.line.argmin()]] for v in valleys
    ]
    values = np.concatenate(fine) if fine else np.ones(1)
    values = values[values > 0] if (values > 0).any() else np.ones(1)
    span = max(values.max() / values.min(), 2.0)
    panel.set(
        xscale="log",
        yscale="log",
        ylim=(values.min() / span**0.22 / 1.1, values.max() * span**0.2),
    )
    show_few_numbers(panel)


def draw_valley(panel: Axes, v: Valley, colour: str, rule: str, row: int) -> None:
    """Draw the scores of one rule against its learning rate.

    A trial is a choice of hyper-parameters. The score of a trial is the geometric mean
    of its costs over the seeds. Each trial is a dot at its score, with a stroke from
    its smallest to its largest cost. The curve shows the score if only the learning
    rate varies. The other hyper-parameters are those of the best of the trials that the
    searches chose. The band around the curve goes from the smallest to the largest cost
    over the seeds. A ring marks the trial with the lowest score. Trials with
    `v.diverged` have a cross at the top instead of a dot. A bar at the bottom marks
    `v.near`, the range of good rates.

    Args:
      panel: Panel. The scales and limits of its axes must be set before.
      v: Scores to draw.
      colour: Colour of the rule.
      rule: Label of the curve.
      row: Index of the rule in the panel. The bar and the crosses of each rule are
        shifted vertically by this index, so that they do not overlap.
    """
    figures.band(
        panel,
        v.along,
        v.line,
        v.floor,
        v.ceiling,
        color=colour,
        linewidth=1.6,
        label=rule,
        zorder=3,
    )
    _draw_trials(panel, v, colour)
    edge = {"transform": panel.get_xaxis_transform(), "color": colour, "zorder": 4}
    panel.plot(
        v.rates[v.diverged],
        np.full(v.diverged.sum(), 0.96 - 0.055 * row),
        "x",
        markersize=5,
        label="_diverged",
        **edge,
    )
    if v.near is not None:
        _draw_good_rates(panel, v.near, 0.045 + 0.05 * row, edge)


def _draw_trials(panel: Axes, v: Valley, colour: str) -> None:
    """Draw the trials that did not diverge, and a ring around the best one."""
    fine = ~v.diverged
    panel.vlines(
        v.rates[fine],
        v.low[fine],
        v.high[fine],
        color=colour,
        linewidth=0.9,
        alpha=0.4,
        zorder=2,
    )
    panel.plot(
        v.rates[fine],
        v.scores[fine],
        "o",
        color=colour,
        markersize=3.4,
        label="_trials",
        zorder=4,
    )
    best = v.chosen
    ring = {
        "markersize": 8,
        "markerfacecolor": "none",
        "markeredgecolor": colour,
        "markeredgewidth": 1.3,
    }
    panel.plot(v.rates[best], v.scores[best], "o", label="_chosen", zorder=5, **ring)


def _draw_good_rates(
    panel: Axes, near: tuple[float, float], height: float, style: Mapping[str, Any]
) -> None:
    """Draw the range of good rates as a bar, or as a short stroke for a single rate."""
    panel.plot(
        near,
        [height, height],
        linewidth=4.5,
        solid_capstyle="butt",
        label="_robust",
        **style,
    )
    if near[0] == near[1]:
        panel.plot(
            near[0],
            height,
            "|",
            markersize=6,
            markeredgewidth=2,
            label="_robust",
            **style,
        )


def _width(v: Valley) -> str:
    if v.decades is None:
        return "target not reached"
    return f"robust {'at least ' if v.at_end else ''}{v.decades:.2g} decades"


def _caption(
    numbers: Mapping[str, Any],
    who: Cast,
    drawn: list[str],
    with_rate: list[str],
    valleys: Mapping[tuple[str, str], Valley | None],
) -> str:
    sentences = []
    for workload in numbers["workloads"]:
        here = [
            (rule, v) for rule in drawn if (v := valleys[workload, rule]) is not None
        ]
        words = [
            f"{rule} {written(float(v.scores[v.chosen]))} at {v.rates[v.chosen]:.2g}, "
            f"{_width(v)}, {v.diverged.sum()} of {len(v.rates)} crossed out"
            for rule, v in here
        ]
        sentences.append(f"On {workload}: {'; '.join(words)}.")
    several = any(
        len(cell["hyperparameters"]) > 1
        for cell in numbers["cells"]
        if cell["rule"] in drawn
    )
    others = (
        "Other hyperparameters vary too, so points scatter around the line. "
        if several
        else ""
    )
    named = {
        f"{rule} by its {v.name}"
        for (_, rule), v in valleys.items()
        if v and rule in drawn and v.name != RATE
    }
    left = [rule for rule in who.order if rule not in drawn and rule in with_rate]
    left = [f"the {len(left)} other rules"] if len(left) > MOST_PANELS else left
    without = [rule for rule in who.order if rule not in with_rate]
    return (
        "Cost of each of the first trials of all searches, in passes (geometric mean "
        "over the screening seeds, its range as a stroke), against its learning rate. "
        "A run that misses the target counts as ten full trainings. "
        f"{others}The line varies only the rate of the best choice; its band is the "
        "range over tuning seeds. The best trial is ringed. Crosses at the top "
        "diverged or made no progress on some seed. The bar at the bottom spans the "
        "rates within 10 % of the line's best, where the target is reached. "
        f"{' '.join(sentences)}"
        f"{f' Not drawn: {listed(left)}.' if left else ''}"
        f"{f' Shown is {listed(sorted(named))}.' if named else ''}"
        f"{f' Without a learning rate: {listed(without)}.' if without else ''}"
    )
