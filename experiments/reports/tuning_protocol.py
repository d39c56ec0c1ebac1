"""Report of tuning_protocol: answer, tables and figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import research
from experiments.tuning_protocol import NULLS, RULES, TRIALS

LINES = {  # Procedures whose errors are drawn against the true ratio, with colours.
    "mine tuned, other defaults": "#D55E00",
    "one seed": "#E69F00",
    "tuned on what is reported": "#CC79A7",
    "ours": "#0072B2",
    "ours, trials redrawn": "#56B4E9",
}


def percent(estimate: Sequence[float]):
    """Format a share with its interval."""
    share, low, high = (
        f"{100 * value:.{1 if value < 0.0995 else 0}f}" for value in estimate
    )
    return f"{share} % [{low}, {high}]"


def answer(findings: research.runs.Findings) -> str:
    """Say how often four procedures are wrong, for different rules and for equal rules.

    The answer also says which uncertainty our procedure ignores.
    """
    numbers = findings.numbers
    by_name = {row["way"]: row for row in numbers["ways"]}
    *usual, ours, redrawn = (by_name[name] for name in LINES)
    wrong = [percent(row[TRIALS]["wrong"]) for row in (*usual, ours)]
    null, of = (
        ", ".join(percent(row["same trials"]) for row in usual),
        numbers["counted"],
    )
    return (
        f"The wrong winner is named in {wrong[0]} of {of[TRIALS]:,} simulated studies "
        f"if the other rule keeps its defaults, in {wrong[1]} if one seed is used for "
        f"tuning and for the report, in {wrong[2]} with {numbers['reported_seeds']} "
        f"such seeds, equal budgets and a t-test, and in {wrong[3]} with the protocol "
        "of this project. Between a rule and itself on other seeds the first three "
        f"name a winner in {null} of the studies, and this protocol, which promises 5 "
        f"%, in {percent(ours['same trials'])}. These shares are judged by the trials "
        f"that were run. {numbers['budget']} trials may miss what {numbers['trials']} "
        "find: judged by all of those, this protocol is wrong in "
        f"{percent(ours[RULES]['wrong'])} of {of[RULES]:,} studies, and between a rule "
        "and itself with other trials it names a winner in "
        f"{percent(ours['other trials'])}. Redrawing half of the trials lowers these "
        f"to {percent(redrawn[RULES]['wrong'])} and "
        f"{percent(redrawn['other trials'])}, and leaves "
        f"{percent(redrawn[RULES]['undecided'])} of the studies undecided."
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the tables of the winners, of the procedures, and of the truth."""
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
        f"Shares with binomial intervals (95 %), given these runs: {numbers['pairs']} "
        "pairs of rules in equal parts, with each rule once as mine. A named winner "
        "is right or wrong of these trials, those of the study "
        f"({numbers['counted'][TRIALS]:,} studies without a tie), or of the rules, "
        f"with all {numbers['trials']} trials ({numbers['counted'][RULES]:,} studies). "
        f"Null: a winner is named between a rule and itself ({numbers['studies']:,} "
        "studies of each kind)."
    )
    ways = research.runs.Table("Who is named", tuple(columns), rows, note)
    costs = numbers["true_costs"]
    true = tuple((workload, *found.values()) for workload, found in costs.items())
    columns = ("workload", *next(iter(costs.values())))
    note = (
        "Expected running time, in passes, of the trial that is best over all seeds; "
        "inf if it never reaches the target."
    )
    return (
        ways,
        how(numbers),
        research.runs.Table("True costs of the rules", columns, true, note),
    )


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
    ours, one = (
        next(row for row in numbers["ways"] if row["way"] == name)
        for name in ("ours", "one seed")
    )
    caption = (
        "Named winners in studies of two different rules, judged by all seeds for "
        f"these trials (left, {numbers['counted'][TRIALS]:,} studies) and for the "
        f"rules with all {numbers['trials']} trials (middle, "
        f"{numbers['counted'][RULES]:,} studies). Right: share of studies that name a "
        "winner between a rule and itself, with the same trials on other seeds "
        "(filled) and with other trials (open). Wrong for these trials: "
        f"{percent(one[TRIALS]['wrong'])} with one seed, "
        f"{percent(ours[TRIALS]['wrong'])} with this project's protocol. Winners "
        f"between equal rules: {percent(one['same trials'])} and "
        f"{percent(ours['same trials'])}; the promise is 5 % (dashed). Bars: binomial "
        "intervals."
    )
    second, axes = research.figures.new_figure(1, 2, width=11, height=4.2, sharey=True)
    for axis, kind in zip(axes[0], (TRIALS, RULES), strict=True):
        draw_by_ratio(axis, result, kind)
    axes[0, 0].legend()
    by_ratio = (
        "Share of studies that name the wrong winner, against the true ratio of "
        "costs; each point is a fifth of the studies. Left, judged for these trials "
        f"({numbers['counted'][TRIALS]:,} studies): noise misleads if the rules are "
        "nearly equal; defaults on one side mislead at any ratio. Right, judged for "
        f"the rules ({numbers['counted'][RULES]:,} studies): a lucky search for one "
        "rule misleads at any ratio."
    )
    return {
        "winners": research.figures.Picture("Named winners", caption, figure),
        "by_ratio": research.figures.Picture(
            "Wrong winners by true ratio", by_ratio, second
        ),
    }


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
