"""Report of tuning_protocol: answer, tables and figures."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import research
from experiments.reports import _dots as dots
from experiments.tuning_protocol import (
    CLEAR,
    COMPARE,
    NULLS,
    PLANTED,
    RIVAL,
    RULES,
    TRIALS,
)

LINES = {  # Procedures whose errors are drawn against the true ratio, with colours.
    "mine tuned, other defaults": "#D55E00",
    "one seed": "#E69F00",
    "tuned on what is reported": "#CC79A7",
    "fixed trials": "#0072B2",
    "trials redrawn": "#56B4E9",
}


def percent(estimate: Sequence[float]):
    """Format a share with its interval."""
    share, low, high = (
        f"{100 * value:.{1 if value < 0.0995 else 0}f}" for value in estimate
    )
    return f"{share} % [{low}, {high}]"


def answer(findings: research.runs.Findings) -> str:
    """Say how often each procedure names a wrong winner, the simple rival first."""
    numbers = findings.numbers
    by_name = {row["way"]: row for row in numbers["ways"]}
    defaults, one_seed, reported, fixed, _ = (by_name[name] for name in LINES)
    overall = {
        row["way"]: row for row in numbers["searched"] if row["workload"] == "all"
    }
    rival, compare = overall[RIVAL], overall[COMPARE]
    least = min(numbers["power_by_rule"][COMPARE].values())
    return (
        f"A t-test after one search of each rule, with {numbers['reported_seeds']} "
        "seeds and equal budgets, names a winner between a rule and itself in "
        f"{percent(rival['false'])} of the studies. `descent compare`, with "
        f"{numbers['searches']} independent searches of each rule, does so in "
        f"{percent(compare['false'])}. {clear_winners(rival, compare)} Compare "
        f"finds a planted factor of {PLANTED:g} in "
        f"{percent(compare['planted'])}, and in {100 * least:.0f} % for the rule "
        "where it does so least often. If each rule has one fixed set of trials, the "
        f"wrong winner is named in {percent(defaults[TRIALS]['wrong'])} of "
        f"{numbers['counted'][TRIALS]:,} "
        "studies that leave the other rule at its defaults; in "
        f"{percent(one_seed[TRIALS]['wrong'])} if one seed is tuned on and reported; "
        f"in {percent(reported[TRIALS]['wrong'])} with a t-test over many such seeds; "
        f"and in {percent(fixed[TRIALS]['wrong'])} with an interval over seeds. But "
        "between a rule and itself with other trials, this interval names a winner in "
        f"{percent(fixed['other trials'])}."
    )


def clear_winners(rival: Mapping[str, Any], compare: Mapping[str, Any]) -> str:
    """Say how often the t-test and `compare` are wrong if the better rule is clear."""
    if rival["wrong"] is None or compare["wrong"] is None:
        return (
            f"No study has two rules whose true costs differ by a factor of {CLEAR:g} "
            "or more, so wrong winners are not counted."
        )
    return (
        f"Between two rules whose true costs differ by a factor of {CLEAR:g} or more, "
        f"the t-test names the wrong one in {percent(rival['wrong'])}, compare in "
        f"{percent(compare['wrong'])}; compare leaves "
        f"{percent(compare['undecided'])} undecided."
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return four tables: searches, fixed trials, the procedures, and true costs."""
    numbers = findings.numbers
    shown = [
        (kind, outcome) for kind in (TRIALS, RULES) for outcome in ("right", "wrong")
    ] + [(RULES, "undecided")]
    columns = [
        "way",
        *(f"{outcome} {kind}" for kind, outcome in shown),
        *(f"null: {kind}" for kind in NULLS),
    ]
    rows = tuple(
        (
            row["way"],
            *(percent(row[kind][outcome]) for kind, outcome in shown),
            *(percent(row[null]) for null in NULLS),
        )
        for row in numbers["ways"]
    )
    note = (
        "Shares of studies with 95 % binomial intervals, for these recorded runs. The "
        f"{numbers['pairs']} pairs of rules on a workload have about equally many "
        "studies, with each rule as mine in turn. Of these trials: the better rule has "
        "the better best trial among the trials of the study "
        f"({numbers['counted'][TRIALS]:,} studies without a tie). Of the rules: among "
        f"all {numbers['trials']} trials ({numbers['counted'][RULES]:,} studies). "
        "Null: a winner is named between a rule and itself "
        f"({numbers['studies']:,} studies of each kind)."
    )
    ways = research.runs.Table(
        "One fixed set of trials: who is named", tuple(columns), rows, note
    )
    costs = numbers["true_costs"]
    true = tuple((workload, *found.values()) for workload, found in costs.items())
    columns = ("workload", *next(iter(costs.values())))
    note = (
        "Expected running time, in passes, of the trial that is best over all seeds; "
        "inf if it never reaches the target."
    )
    return (
        searched(numbers),
        ways,
        how(numbers),
        research.runs.Table("True costs of the rules", columns, true, note),
    )


def searched(numbers: dict[str, Any]):
    """Return the table of studies with independent searches, by workload."""
    names = {COMPARE: f"compare, {numbers['searches']} searches", RIVAL: "t-test"}
    columns = (
        "way",
        "workload",
        "false winners",
        "wrong winners",
        "undecided",
        f"finds a factor of {PLANTED:g}",
        "detectable factor",
    )
    rows = tuple(
        (
            names[row["way"]],
            row["workload"],
            *(
                "none to count" if row[name] is None else percent(row[name])
                for name in ("false", "wrong", "undecided", "planted")
            ),
            row["detectable"] if row["way"] == COMPARE else "not stated",
        )
        for row in sorted(numbers["searched"], key=lambda row: row["way"] == COMPARE)
    )
    worst = "; ".join(
        f"{rule} {100 * power:.0f} %"
        for rule, power in numbers["power_by_rule"][COMPARE].items()
    )
    note = (
        f"{numbers['studies']:,} studies of each kind, drawn from {numbers['pool']} "
        "independent searches of each rule on each workload, whose choices ran on all "
        "seeds. The t-test uses one search of each rule. False winners: between a "
        "rule and itself with other searches. Wrong winners and undecided: between "
        f"two rules whose true costs differ by {CLEAR:g} or more. The truth is the "
        "mean log cost over all searches and seeds. Compare finds the factor of "
        f"{PLANTED:g} for: {worst}. Detectable factor: median of what compare states. "
        "Brackets are binomial intervals for these pools. They do not cover other "
        "pools: studies from one pool share searches."
    )
    return research.runs.Table("Independent searches", columns, rows, note)


def how(numbers: dict[str, Any]):
    """Return the table that says what each procedure does."""
    budget, seeds, tuning = (
        numbers[name] for name in ("budget", "reported_seeds", "tuning_seeds")
    )
    rows = []
    for row in numbers["ways"]:
        tuned = f"{tuning} others" if row["held_out"] else "the same"
        decides = row["decide"] + (
            f", {row['redrawn']} trials redrawn" if row["redrawn"] else ""
        )
        rows.append(
            (
                row["way"],
                f"{budget}, {row['others_trials'] or budget}",
                row["seeds"] or seeds,
                tuned,
                decides,
            )
        )
    columns = ("way", "trials of mine, other", "seeds", "tuned on", "winner by")
    return research.runs.Table("The ways", columns, tuple(rows))


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the outcomes of each procedure, and wrong winners by the true ratio.

    Studies of two different rules, and studies of a rule and itself, are shown
    separately.
    """
    numbers = result.numbers
    figure, axes = research.figures.new_figure(
        1, 3, width=13, height=4.4, sharey=True, width_ratios=(3, 3, 2.4)
    )
    for axis, kind in zip(axes[0], (TRIALS, RULES), strict=False):
        draw_outcomes(axis, numbers["ways"], kind)
    draw_null(axes[0, 2], numbers["ways"])
    axes[0, 0].invert_yaxis()
    fixed, one = (
        next(row for row in numbers["ways"] if row["way"] == name)
        for name in ("fixed trials", "one seed")
    )
    caption = (
        "Winners in studies with one fixed set of trials. Left: judged by the trials "
        f"of the study on all seeds ({numbers['counted'][TRIALS]:,} studies). Middle: "
        f"judged by all {numbers['trials']} trials ({numbers['counted'][RULES]:,} "
        "studies). Right: how often a winner is named between a rule and itself, with "
        "the same trials on other seeds (filled) and with other trials (open). With "
        f"one seed, {percent(one[TRIALS]['wrong'])} are wrong on the left; with fixed "
        f"trials {percent(fixed[TRIALS]['wrong'])}, but with other trials it names a "
        f"winner between a rule and itself in {percent(fixed['other trials'])} "
        "(dashed: the promised 5 %). Bars are binomial intervals."
    )
    second, axes = research.figures.new_figure(1, 2, width=11, height=4.2, sharey=True)
    for axis, kind in zip(axes[0], (TRIALS, RULES), strict=True):
        draw_by_ratio(axis, result, kind)
    axes[0, 0].legend()
    by_ratio = (
        "Share of studies with a wrong winner against the true ratio of the costs; "
        "each point is a fifth of the studies. Left: judged by the trials of the "
        f"study ({numbers['counted'][TRIALS]:,} studies). Noise misleads where rules "
        "are nearly equal; defaults on one side mislead everywhere. Right: judged by "
        f"all trials ({numbers['counted'][RULES]:,} studies). A search that was lucky "
        "for one rule misleads at any ratio."
    )
    return {
        "searches": draw_searches(numbers),
        "winners": research.figures.Picture("Who is named the winner", caption, figure),
        "by_ratio": research.figures.Picture(
            "Wrong winners by true ratio", by_ratio, second
        ),
    }


def draw_reference(reference: Mapping[str, Any]) -> research.figures.Picture:
    """Draw false winners and power of a stored reference, by workload."""
    figure, axes = research.figures.new_figure(2, 1, width=dots.WIDTH, height=8.6)
    rows = dots.rows(reference)
    names = list(dict.fromkeys(row["workload"] for row in rows))
    looks = {"t-test": "stochastic", "compare, 6 searches": "mini-batch"}
    for panel, column, words in zip(
        axes[:, 0],
        ("false winners", "finds a factor of 1.25"),
        ("% winners between a rule and itself", "% that find a factor of 1.25"),
        strict=True,
    ):
        points = []
        for name in names:
            for row in (row for row in rows if row["workload"] == name):
                share, low, high = map(float, re.findall(r"[\d.]+", row[column]))
                points.append(dots.Dot("", share, low, high, looks[row["way"]]))
        dots.draw_dots(panel, points, digits=0)
        places = 2 * np.arange(len(names))[::-1] + 0.5
        panel.set_yticks(places, [name.replace("_", "\n") for name in names])
        panel.set(xlim=(-4, 108), xlabel=words)
        for y in places[1:] + 1:
            panel.axhline(y, color="#E6E8EB", lw=1)
    line = {"color": research.figures.COLOURS["exact"], "lw": 1, "ls": "--"}
    for way, colour in looks.items():
        colour = research.figures.COLOURS[colour]
        axes[0, 0].plot([], [], "o", ms=8, color=colour, label=way)
    axes[0, 0].axvline(5, label="5 %", **line)
    figure.legend(loc="outside upper left", ncols=2)
    numbers = reference["numbers"]
    caption = (
        "Above: studies of a rule and itself that name a winner (dashed: the 5 % that "
        f"a 95 % interval allows): {100 * numbers['rival_in_null']:.0f} % by a t-test "
        f"after one search, {100 * numbers['compare_in_null']:.1f} % by compare. "
        "Below: studies that find a rule whose cost was multiplied by 1.25. With 95 % "
        f"intervals. {dots.SOURCE}"
    )
    return research.figures.Picture("How often is the winner wrong?", caption, figure)


def draw_searches(numbers: dict[str, Any]):
    """Draw false winners and power, by workload, of the t-test and of `compare`."""
    on = list(dict.fromkeys(row["workload"] for row in numbers["searched"]))
    figure, axes = research.figures.new_figure(
        1, 2, width=10, height=1.6 + 0.45 * len(on), sharey=True
    )
    looks = {
        RIVAL: ("t-test, one search", research.figures.COLOURS["stochastic"], 0.13),
        COMPARE: ("compare", research.figures.COLOURS["mini-batch"], -0.13),
    }
    titles = {
        "false": "% winners between a rule and itself",
        "planted": f"% that find a planted factor of {PLANTED:g}",
    }
    for panel, (name, title) in zip(axes[0], titles.items(), strict=True):
        for way, (label, colour, shift) in looks.items():
            rows = [row for row in numbers["searched"] if row["way"] == way]
            shares = 100 * np.array([row[name] for row in rows])
            panel.errorbar(
                shares[:, 0],
                np.arange(len(on)) + shift,
                xerr=np.abs(shares[:, 1:] - shares[:, :1]).T,
                fmt="o",
                color=colour,
                markersize=6,
                label=label,
            )
        panel.set(xlim=(-4, 104), xlabel=title)
    axes[0, 0].axvline(
        5, color=research.figures.COLOURS["exact"], lw=1.2, ls=(0, (5, 3))
    )
    axes[0, 0].set_yticks(np.arange(len(on)), on)
    axes[0, 0].invert_yaxis()
    axes[0, 1].legend(loc="lower left")
    overall = {
        row["way"]: row for row in numbers["searched"] if row["workload"] == "all"
    }
    caption = (
        "Left: winners between a rule and itself with other searches, where 5 % "
        f"(dashed) is promised: {percent(overall[RIVAL]['false'])} by a t-test after "
        f"one search, {percent(overall[COMPARE]['false'])} by compare. Right: studies "
        f"that find a planted factor of {PLANTED:g}: "
        f"{percent(overall[RIVAL]['planted'])} and "
        f"{percent(overall[COMPARE]['planted'])}. Bars are binomial intervals."
    )
    return research.figures.Picture(
        "How often is the luck of a search a winner?", caption, figure
    )


def draw_outcomes(axes: Axes, ways: Sequence[dict[str, Any]], kind: str):
    """Draw stacked bars: the shares of right, undecided and wrong studies."""
    colours = research.figures.COLOURS
    places, left = np.arange(len(ways)), np.zeros(len(ways))
    looks = {
        "right": colours["mini-batch"],
        "undecided": "#D5D8DC",
        "wrong": colours["stochastic"],
    }
    for outcome, colour in looks.items():
        shares = 100 * np.array([row[kind][outcome][0] for row in ways])
        axes.barh(places, shares, left=left, color=colour, label=outcome, height=0.72)
        for place, share, start in zip(places, shares, left, strict=True):
            if share >= 5:
                ink = "black" if outcome == "undecided" else "white"
                axes.text(
                    start + share / 2,
                    float(place),
                    f"{share:.0f}",
                    ha="center",
                    va="center",
                    color=ink,
                    fontsize=9,
                )
        left += shares
    axes.set_yticks(places, [row["way"] for row in ways])
    axes.set(xlim=(0, 100), xlabel=f"% of studies, judged {kind}")
    axes.grid(visible=False)
    axes.legend(
        ncols=3,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        columnspacing=1.2,
        handlelength=1.2,
    )


def draw_null(axes: Axes, ways: Sequence[dict[str, Any]]):
    """Draw the shares of winners between a rule and itself, with their intervals."""
    colour = research.figures.COLOURS["stochastic"]
    for kind, face, shift in zip(NULLS, (colour, "white"), (-0.13, 0.13), strict=True):
        shares = 100 * np.array([row[kind] for row in ways])
        spread = np.abs(shares[:, 1:] - shares[:, :1]).T
        look = {
            "color": colour,
            "markerfacecolor": face,
            "label": kind,
            "markersize": 6,
        }
        axes.errorbar(
            shares[:, 0], np.arange(len(ways)) + shift, xerr=spread, fmt="o", **look
        )
    axes.axvline(5, color=research.figures.COLOURS["exact"], lw=1.2, ls=(0, (5, 3)))
    axes.set(xlim=(-4, 104), xlabel="% named between a rule and itself")
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        ncols=2,
        columnspacing=1.2,
        handlelength=1.2,
    )


def draw_by_ratio(axes: Axes, result: research.runs.Result, kind: str):
    """Draw the shares of wrong winners in five groups of studies.

    The studies are sorted by the true ratio of the two costs and cut into fifths.
    """
    named, truth = (
        result.arrays["rules/named"],
        result.arrays["rules/truth"][:, (RULES, TRIALS).index(kind)],
    )
    order = [study for study in np.argsort(np.abs(truth)) if truth[study] != 0]
    fifths = [fifth for fifth in np.array_split(order, 5) if len(fifth)]
    for way, row in enumerate(result.numbers["ways"]):
        if row["way"] in LINES:
            shares = [
                100 * np.mean(named[fifth, way] * np.sign(truth[fifth]) < 0)
                for fifth in fifths
            ]
            middles = [np.exp(np.median(np.abs(truth[fifth]))) for fifth in fifths]
            axes.plot(
                middles,
                shares,
                "o-",
                label=row["way"],
                color=LINES[row["way"]],
                markersize=5,
            )
    axes.set(
        xscale="log",
        xlabel="true ratio of costs, dearer over cheaper",
        ylabel="% wrong winners",
        title=kind,
    )
    axes.label_outer()
    low, high = axes.get_xlim()
    ticks = [tick for tick in (1, 1.2, 1.5, 2, 3, 5, 10, 20) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
