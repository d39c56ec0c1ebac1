"""Report of honest_errors: answer, tables and figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import research
from experiments.honest_errors import ORDERS, OURS, PEERS


def times(ratio: float):
    """Format a ratio."""
    return f"{ratio:.2g}" if ratio < 100 else f"{ratio:.0f}"


def answer(findings: research.runs.Findings) -> str:
    """State the scores of `finite_difference` and of the other packages."""
    numbers = findings.numbers
    others = "; ".join(
        f"{name} {100 * s['coverage']:.0f} %, {times(s['sharpness'])} times, "
        f"{100 * s['answered']:.0f} % and {s['false_answers']}"
        for name, s in numbers["scores"].items()
        if name != OURS and s["answered"]
    )
    missing = [
        name
        for name in dict.fromkeys(n.removesuffix(", all") for n in PEERS)
        if name not in numbers["scores"]
    ]
    absent = (
        f" Not installed: {' and '.join(missing)} (pip install '.[peers]')."
        if missing
        else ""
    )
    without = numbers["problems"] - numbers["exist"]
    words = (
        f"{verdict(numbers)} On the {numbers['half']} problems "
        f"{100 * numbers['coverage']:.0f} % of its error bounds hold. In the median, a "
        f"bound is {times(numbers['sharpness'])} times the error. It answers "
        f"{100 * numbers['answered']:.0f} % of the {numbers['exist']} problems with a "
        f"derivative, and gives {numbers['false_answers']} confident answers on the "
        f"{without} problems without one."
    )
    compared = (
        " The same four numbers for other packages (all: also where the package "
        f"reports no success): {others}."
        if others
        else ""
    )
    return f"{words}{compared}{on_random(numbers)}{absent}"


def verdict(numbers: dict[str, Any]):
    """Say whether every answer of `finite_difference` is right."""
    worst = worst_class(numbers)
    if worst and worst["wrong"]:
        return (
            "Not always: finite_difference gives a wrong answer to "
            f"{worst['wrong']:,} of {worst['functions']:,} random functions of its "
            f"worst class ({worst['class']}, order {worst['order']})."
        )
    holds = numbers["coverage"] == 1 and not numbers["false_answers"]
    return "Yes, for finite_difference." if holds else "Not always."


def worst_class(numbers: dict[str, Any]) -> dict[str, Any] | None:
    """Return the row of the class with the largest share of our wrong answers."""
    return max(
        (row for row in numbers.get("random", ()) if row["package"] == OURS),
        key=lambda row: row["wrong"] / row["functions"],
        default=None,
    )


def on_random(numbers: dict[str, Any]):
    """Describe the wrong answers to random functions.

    The text is empty if the random functions were left out.
    """
    if "random" not in numbers:
        return ""
    first = [
        row
        for row in numbers["random"]
        if row["order"] == 1 and row["class"] == "smooth" and row["package"] != OURS
    ]
    others = ", ".join(
        f"{row['package']} {100 * row['wrong'] / row['functions']:.1f} %"
        for row in first
    )
    return (
        " On random functions, orders 1 to 4, finite_difference is wrong in "
        f"{100 * numbers['smooth_wrong']:.2f} % of cases if f is smooth or x is a "
        f"root, and in {100 * numbers['kinks_wrong']:.2f} % at kinks."
        + (
            f" Wrong answers at order 1 of smooth functions: {others}."
            if others
            else ""
        )
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the tables: scores, answers without a derivative, and random functions."""
    numbers = findings.numbers
    asked = (random_table(numbers),) if "random" in numbers else ()
    return scores_table(numbers), answers_table(numbers), *asked


def scores_table(numbers: dict[str, Any]):
    """Return the table of scores, with one row for each package."""
    keys = (
        "coverage",
        "off_tenfold",
        "sharpness",
        "answered",
        "eight_digits",
        "false_answers",
        "evaluations",
        "milliseconds",
    )
    rows = [
        (name, *(numbers["scores"][name][key] for key in keys))
        for name in numbers["scores"]
    ]
    rows += [
        (f"{name}: not installed, pip install '.[peers]'", *(["-"] * len(keys)))
        for name in PEERS
        if name not in numbers["scores"]
    ]
    return research.runs.Table(
        f"Claims on the {numbers['half']} problems",
        (
            "package",
            "claims that hold",
            "off tenfold",
            "claim over error",
            "answered",
            "eight digits",
            "false answers",
            "evaluations",
            "milliseconds",
        ),
        tuple(rows),
        "Claim over error and evaluations are medians. Off tenfold: share of errors "
        "of more than ten times the claim and ten times the rounding of the value. "
        'For scipy.differentiate only results with reported success count; "all" '
        "uses its value and error in every case. Eight digits: share of answers "
        "with a relative error of at most 1e-8. False answers: claims of at most a "
        "tenth of max(|value|, 1) although the derivative does not exist. Time "
        "depends on the machine; each evaluation here is a NumPy call.",
    )


def random_table(numbers: dict[str, Any]):
    """Return the table of random functions, with one row for each class and order."""
    of = {
        (row["class"], row["order"], row["package"]): row for row in numbers["random"]
    }
    packages = list(dict.fromkeys(row["package"] for row in numbers["random"]))
    rows = []
    for kind, order in dict.fromkeys(
        (row["class"], row["order"]) for row in numbers["random"]
    ):
        ours = of[kind, order, OURS]
        cells = [kind, order, "-" if ours["sharpness"] is None else ours["sharpness"]]
        for name in packages:
            row = of.get((kind, order, name))
            cells += (
                ["-", "-"]
                if row is None
                else [row["wrong"] / row["functions"], row["answered"]]
            )
        rows.append(tuple(cells))
    columns = [
        column
        for name in packages
        for column in (f"{name}: wrong", f"{name}: answered")
    ]
    return research.runs.Table(
        f"Random functions, {numbers['per_class']:,} of each class",
        ("class", "order", f"{OURS}: claim over error", *columns),
        tuple(rows),
        "Wrong: share of functions for which the package returns an answer whose "
        "error bound does not hold. If the derivative does not exist, a bound fails "
        "if it is below half the gap between the two sides. Answered: share of "
        "functions with an answer. At a kink, or at a jump of the requested "
        "derivative, the right result is no answer. Claim over error: median over the "
        "functions with a derivative; an error below one ulp counts as one ulp. A "
        "dash: not tested, or no value.",
    )


def answers_table(numbers: dict[str, Any]):
    """Return the table of answers where no derivative exists."""
    rows = [
        (
            f"{kind} ({n})",
            *(numbers["answers"][name][kind] for name in numbers["scores"]),
        )
        for kind, n in numbers["kinds"].items()
    ]
    return research.runs.Table(
        "Confident answers where no derivative exists",
        ("kind (problems)", *numbers["scores"]),
        tuple(rows),
        "Kink: |x| at 0. Jump: sign(x) at 0. One-sided: sqrt(x) at 0. Unresolved: x "
        "sin(1/x) at 0. Nan: 1/x at 0.",
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the claimed error against the error, with one panel for each package."""
    names = [name for name in result.numbers["scores"] if not name.endswith(", all")]
    figure, axes = research.figures.new_figure(
        len(names), 1, width=4.6, height=3.5 * len(names) + 0.6, sharex=True
    )
    for panel, name in zip(axes[:, 0], names, strict=True):
        draw_claims(panel, result, name)
    axes[-1, 0].set_xlabel("error / |derivative|")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=1
    )
    scores = result.numbers["scores"].items()
    covered = ", ".join(
        f"{name} {100 * s['coverage']:.0f} %"
        for name, s in scores
        if s["answered"] and not name.endswith(", all")
    )
    caption = (
        f"One dot for each answer to the {result.numbers['exist']} "
        f"{result.numbers['half']} problems with a derivative: claimed error against "
        "actual error, both relative. A claim holds on and above the dashed line (blue "
        "dots) and fails below it (orange crosses). A dot at the left or lower "
        f"edge has an error or a claim of 0. Claims that hold: {covered}."
    )
    pictures = {
        "claims": research.figures.Picture("Claimed and actual errors", caption, figure)
    }
    if "random" in result.numbers:
        pictures["random"] = draw_random(
            result.numbers["random"], result.numbers["per_class"]
        )
    return pictures


def draw_random(rows: Sequence[dict[str, Any]], per_class: int):
    """Draw the share of wrong answers by class, with one panel for each order."""
    classes = list(dict.fromkeys(row["class"] for row in rows))
    packages = list(dict.fromkeys(row["package"] for row in rows))
    figure, axes = research.figures.new_figure(
        2, 2, width=7.0, height=7.0, sharey=True, sharex=True
    )
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
    for panel, order in zip(axes.flat, ORDERS, strict=True):
        for name, colour, marker in zip(packages, colours, "osD^", strict=False):
            of = {
                row["class"]: row
                for row in rows
                if row["package"] == name and row["order"] == order
            }
            shares = [100 * row["wrong"] / row["functions"] for row in of.values()]
            panel.plot(
                shares,
                [classes.index(kind) for kind in of],
                marker,
                color=colour,
                label=name,
                markersize=6,
                alpha=0.85,
            )
        panel.set(xscale="symlog", xlim=(-0.15, 150), title=f"order {order}")
        panel.set_xscale("symlog", linthresh=0.5)
        panel.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
        panel.grid(axis="y", lw=0.5, alpha=0.4)
    for panel in axes[1]:
        panel.set_xlabel("wrong answers, %")
    axes[0, 0].set_yticks(range(len(classes)), classes)
    axes[0, 0].invert_yaxis()
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=min(2, len(packages)),
    )
    caption = (
        f"{per_class:,} random functions of each class: share of functions for which a "
        "package returns an answer whose error bound does not hold. finite_difference "
        "answers less often if the values do not determine the derivative; the table "
        "shows how often."
    )
    return research.figures.Picture(
        "Wrong answers on random functions", caption, figure
    )


def relative_errors(result: research.runs.Result, name: str):
    """Return the actual errors of a package, the claimed errors, and which claims hold.

    Errors are divided by |derivative|, or by 1 if it is 0. Functions without a
    derivative, an answer or a claim are left out.
    """
    truth, value, claim = (
        result.arrays["truth"],
        *(result.arrays[f"{name}/{column}"] for column in ("value", "claim")),
    )
    shown = np.isfinite(truth) & np.isfinite(value) & np.isfinite(claim)
    size = np.maximum(np.abs(truth[shown]), np.where(truth[shown] == 0, 1.0, 0.0))
    error, claimed = np.abs(value - truth)[shown], claim[shown]
    return error / size, claimed / size, error <= claimed


def draw_claims(axes: Axes, result: research.runs.Result, name: str):
    """Draw the answers of one package. Points outside the axes are at the edge."""
    error, claimed, holds = relative_errors(result, name)
    low, high = 1e-17, 1e3
    x, y = (np.clip(column, low, high) for column in (error, claimed))
    axes.plot(
        [low, high],
        [low, high],
        color=research.figures.COLOURS["exact"],
        lw=1.1,
        ls=(0, (5, 3)),
    )
    axes.plot(
        x[holds],
        y[holds],
        "o",
        color="#0072B2",
        markersize=4.5,
        alpha=0.75,
        markeredgewidth=0,
        label="the claim holds",
    )
    axes.plot(
        x[~holds],
        y[~holds],
        "x",
        color="#D55E00",
        markersize=6,
        markeredgewidth=1.8,
        label="the claim fails: the error is larger",
    )
    axes.set(
        xscale="log",
        yscale="log",
        ylabel="claimed error / |derivative|",
        xlim=(low / 2, 2 * high),
        ylim=(low / 2, 2 * high),
    )
    axes.text(
        0.97,
        0.06,
        f"{np.sum(~holds)} of {len(holds)} claims fail",
        transform=axes.transAxes,
        ha="right",
    )
    axes.set_title(name, loc="left")
