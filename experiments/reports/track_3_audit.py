"""Report of track_3_audit: answer, tables and figures."""

from typing import Any

import numpy as np

import research
from experiments.track_3_audit import ASSUMED, LEVEL

Numbers = dict[str, Any]


def answer(findings: research.runs.Findings) -> str:
    """Say how many records are distinguishable, and how the small GPT ranks rules."""
    numbers = findings.numbers
    low, high = numbers["sigma_low"], numbers["sigma_high"]
    sigma = f"{numbers['sigma']:.5f} [{low:.5f}, {high:.5f}]"
    return (
        f"By the benchmark's own formula, {numbers['distinguishable']} of "
        f"{numbers['comparisons']} records are distinguishable from the record before. "
        f"The logs give a standard deviation of {sigma} ({numbers['freedom']} degrees "
        f"of freedom) instead of the assumed {ASSUMED}; with it, "
        f"{numbers['distinguishable_here']} are distinguishable, and "
        f"{numbers['distinguishable_adjusted']} after Holm's correction for the number "
        "of tests. With ten runs of each rule, a gain of "
        f"{numbers['detectable_steps']:.0f} steps is detected in 80 % of cases. "
        f"{correlation(numbers)}"
    )


def correlation(numbers: Numbers) -> str:
    """Say how well the small GPT's order agrees with the benchmark's."""
    low, high = numbers["kendall_low"], numbers["kendall_high"]
    does = "does not contain" if low > 0 or high < 0 else "contains"
    return (
        f"On the {numbers['shared_rules']} rules that our GPT on characters shares "
        "with the benchmark, Kendall's rank correlation is "
        f"{numbers['kendall']:.2f} [{low:.2f}, {high:.2f}]; the interval {does} 0."
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the tables of the records and of the shared rules."""
    return records_table(findings.numbers), shared_table(findings.numbers)


def records_table(numbers: Numbers) -> research.runs.Table:
    """Return the table of the tests of each record against the one before."""
    records = tuple(
        (
            f"#{row['number']}",
            f"#{row['before']}",
            row["rule"],
            row["steps"],
            row["saved"],
            f"{row['z']:.2f}",
            row["p"],
            f"{row['gain_in_steps']:.0f} ± {row['error_in_steps']:.0f}",
            row["p_here"],
            row["p_adjusted"],
            verdict(row),
        )
        for row in numbers["rows"]
    )
    columns = ("record", "before", "rule", "steps", "steps saved", "z", "p, theirs")
    columns += ("gain in steps", "p, ours", "p, Holm", "distinguishable")
    note = (
        "p, theirs: one-sided z-test with the published means, a standard deviation of "
        f"{ASSUMED} and 0.0045 of loss for 100 steps. p, ours: one-sided t-test with "
        "the losses in the logs, their standard deviation and the slope with its "
        "error. Gain: steps saved, corrected by the difference of the losses, with its "
        f"standard error. Distinguishable: p below {LEVEL:g}. Yes: by our test, "
        "even after Holm's correction for the number of tests. By both tests: by "
        "theirs and by ours, without this correction. By one test: by ours alone. By "
        "theirs: by theirs alone. Claims that the logs do not confirm to 1e-4: "
        f"{listed(numbers)}."
    )
    return research.runs.Table("Each record and the one before", columns, records, note)


def shared_table(numbers: Numbers) -> research.runs.Table:
    """Return the table of the rules that our GPT shares with the benchmark."""
    shared = tuple(
        (
            one["rule"],
            f"#{one['result']}",
            one["steps_to_target"],
            one["loss"],
            f"[{one['low']:.4g}, {one['high']:.4g}]",
            one["note"] or "the same rule",
        )
        for one in sorted(numbers["shared"], key=lambda one: one["steps_to_target"])
    )
    note = (
        "Steps to 3.28: published steps, corrected by the slope to a mean loss of "
        "3.28. Loss here: validation loss on gpt_characters at the end of the "
        "schedule, with its 95 % interval. The benchmark's network has 124 million "
        "parameters, ours about 30 thousand, and every rule was tuned by other people "
        "there."
    )
    return research.runs.Table(
        "The shared rules",
        ("rule", "result", "steps to 3.28", "loss here", "interval", "there"),
        shared,
        note,
    )


def verdict(row: Numbers) -> str:
    """Say by which tests a record is distinguishable."""
    if row["p_adjusted"] < LEVEL:
        return "yes"
    if row["p_here"] < LEVEL:
        return "by one test" if row["p"] >= LEVEL else "by both tests"
    return "no" if row["p"] >= LEVEL else "by theirs"


def listed(numbers: Numbers) -> str:
    """List the claims that differ from the logs."""
    return "; ".join(numbers["claims_that_differ"]) or "none"


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the gains of the records, and the two orders of the shared rules."""
    return {"gains": draw_gains(result.numbers), "orders": draw_orders(result.numbers)}


def draw_gains(numbers: Numbers) -> research.figures.Picture:
    """Draw the gain of each record in steps, with a 90 % interval."""
    rows = numbers["rows"]
    figure, axes = research.figures.new_figure(width=4.6, height=6.4)
    panel = axes[0, 0]
    for place, row in enumerate(rows):
        clear = row["p_here"] < LEVEL
        colour = research.figures.COLOURS["full batch" if clear else "data"]
        gain, half = row["gain_in_steps"], 1.645 * row["error_in_steps"]
        panel.plot([gain - half, gain + half], [place] * 2, color=colour, lw=1.8)
        panel.plot(
            gain, place, "D", color=colour, fillstyle="full" if clear else "none"
        )
        panel.plot(row["saved"], place, "|", color="black", markersize=9)
    names = [f"#{row['before']} → #{row['number']}" for row in rows]
    panel.set_yticks(range(len(rows)), names)
    panel.invert_yaxis()
    panel.axvline(0, color="black", lw=1)
    panel.set_xlabel("gain in steps over the record before")
    looks = (
        ("full batch", "D", "full", "distinguishable"),
        ("data", "D", "none", "not distinguishable"),
        ("exact", "|", "full", "published saving"),
    )
    for colour, mark, fill, label in looks:
        colour = research.figures.COLOURS[colour]
        panel.plot([], [], mark, color=colour, fillstyle=fill, ms=8, label=label)
    figure.legend(loc="outside upper left", ncols=2)
    caption = (
        f"{numbers['distinguishable_here']} of {numbers['comparisons']} records are "
        "distinguishable from the one before (filled; one-sided test at 5 %). Lines: "
        "90 % intervals of the gain. Black ticks: the published saving of steps."
    )
    return research.figures.Picture("What each record gains", caption, figure)


def draw_orders(numbers: Numbers) -> research.figures.Picture:
    """Draw the loss on our small GPT against the benchmark's steps."""
    figure, axes = research.figures.new_figure(width=6.5, height=4.2)
    panel = axes[0, 0]
    for one in numbers["shared"]:
        x, y = one["steps_to_target"], one["loss"]
        panel.plot([x, x], [one["low"], one["high"]], color="#0072B2", lw=1.5)
        panel.plot(x, y, "o", color="#0072B2")
        panel.annotate(one["rule"], (x, y), (6, 5), textcoords="offset points")
    panel.set(
        xscale="log",
        xlabel="steps to a loss of 3.28 in the benchmark",
        ylabel="validation loss on gpt_characters",
    )
    ticks = np.array([3000, 3500, 4000, 5000, 6000])
    panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    panel.minorticks_off()
    words = "; ".join(
        f"{one['rule']} {one['steps_to_target']:,.0f} and {one['loss']:.3f}"
        for one in numbers["shared"]
    )
    caption = (
        f"Steps there and loss here: {words}. Kendall's rank correlation is "
        f"{numbers['kendall']:.2f} [{numbers['kendall_low']:.2f}, "
        f"{numbers['kendall_high']:.2f}]."
    )
    return research.figures.Picture("Two orders of the same rules", caption, figure)
