"""Report of learn_the_penalty: answer, tables and figure."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

import research
from experiments._peers import NOT_INSTALLED
from experiments.learn_the_penalty import IMPLICIT, OPTIMISTIX, PROBLEMS, UNROLLED

REACHED = 1.01  # At most this factor times the lowest validation loss of the grid.


def answer(findings: research.runs.Findings) -> str:
    """Compare one learnt penalty with the grid, and many penalties with one."""
    numbers = findings.numbers
    parts = []
    for name, found in numbers["problems"].items():
        change = found["many_test"] / found["one_test"] - 1
        better = f"{100 * abs(change):.0f} % {'lower' if change < 0 else 'higher'}"
        if round(100 * abs(change)) == 0:
            better = "about the same"
        parts.append(
            f"{name}: one learnt penalty reaches {found['one'] / found['grid']:.4f} "
            "times the validation loss of the best of the grid. "
            f"With a penalty for each of the {found['features']} features, the "
            f"validation loss is {found['many'] / found['one']:.2f} times that with "
            f"one penalty, and the test loss is {better}"
        )
    reached = all(
        found["one"] <= REACHED * found["grid"]
        for found in numbers["problems"].values()
    )
    verdict = "Yes" if reached else "Not with these steps and this rate"
    found = ". ".join(part[0].upper() + part[1:] for part in parts)
    return (
        f"{verdict}. {found}. For ridge regression, the gradient has a relative error "
        f"of {numbers['gradient_error']:.0e}, and needs "
        f"{numbers['ways'][IMPLICIT]['bytes'] / 1e3:.1f} kB of memory, where reverse "
        "mode through all steps of a gradient descent needs "
        f"{numbers['ways'][UNROLLED]['bytes'] / 1e3:.0f} kB."
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the table of losses, and the table of ways to differentiate."""
    rows = []
    for name, found in findings.numbers["problems"].items():
        for way, words in (
            ("grid", "best of the grid"),
            ("one", "one learnt penalty"),
            ("many", f"{found['features']} learnt penalties"),
        ):
            rows.append((name, words, found[way], found[f"{way}_test"]))
    losses = research.runs.Table(
        "Losses with chosen penalties",
        ("problem", "penalties", "validation loss", "test loss"),
        tuple(rows),
        "Penalties are chosen on the validation part. The test part chooses nothing.",
    )
    return losses, _ways(findings.numbers)


def _ways(numbers: dict[str, Any]) -> research.runs.Table:
    rows = []
    peer = {"error": numbers["peer_error"], "bytes": numbers["peer_bytes"]}
    for way, found in {**numbers["ways"], OPTIMISTIX: peer}.items():
        if way not in numbers["seconds"]:
            rows.append((way, NOT_INSTALLED, NOT_INSTALLED, NOT_INSTALLED))
            continue
        _, ratio, low, high = numbers["seconds"][way]
        rows.append(
            (
                way,
                found["error"],
                found["bytes"],
                f"{ratio:.2f} [{low:.2f}, {high:.2f}]",
            )
        )
    return research.runs.Table(
        "Ways to differentiate the minimum",
        (
            "way",
            "relative error",
            "bytes",
            f"seconds, relative to {IMPLICIT}",
        ),
        tuple(rows),
        "Gradient of the validation loss of ridge regression, with the search for the "
        "minimum. Seconds are ratios, measured in turns. Relative error: the largest "
        "difference from the gradient by the closed form, divided by its largest "
        "entry, over three points. It includes the error of an unfinished search. The "
        f"searches differ: {IMPLICIT} uses Newton's method, reverse mode uses "
        f"gradient descent, and {OPTIMISTIX} uses BFGS.",
    )


def draw(findings: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the grid, and the descents on one penalty and on many."""
    figure, axes = research.figures.new_figure(
        2 * len(PROBLEMS), 1, width=4.6, height=12
    )
    for at, name in enumerate(PROBLEMS):
        draw_grid(axes[2 * at, 0], findings, name)
        draw_descent(axes[2 * at + 1, 0], findings, name)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    more = axes[1, 0].get_legend_handles_labels()
    figure.legend(
        handles + more[0],
        labels + ["one for each feature", *more[1][1:]],
        loc="outside lower center",
        ncols=2,
    )
    ratios = ", ".join(
        f"{found['many'] / found['one']:.2f} for {name}"
        for name, found in findings.numbers["problems"].items()
    )
    return {
        "penalties": research.figures.Picture(
            "Penalties learnt from the validation loss",
            "For each problem, above: the loss for a grid of penalties, and the "
            "penalty that descent finds. Below: the validation loss during descent on "
            "one penalty, and then on one for each feature; the dashed line is the "
            "best of the grid. Validation loss with many penalties over that with "
            f"one: {ratios}.",
            figure,
        )
    }


def draw_grid(axes: Axes, findings: research.runs.Result, name: str) -> None:
    """Draw both losses of one problem for a grid of penalties, and the learnt one."""
    colours, arrays = research.figures.COLOURS, findings.arrays
    found = findings.numbers["problems"][name]
    for column, part in enumerate(("validation", "test")):
        axes.plot(
            arrays[f"{name}/grid"],
            arrays[f"{name}/grid_losses"][:, column],
            "o-",
            ms=3,
            color=colours["data" if column else "full batch"],
            label=f"grid, {part}",
        )
    axes.plot(
        found["one_log_penalty"],
        found["one"],
        "*",
        ms=14,
        color=colours["stochastic"],
        label="one learnt penalty",
    )
    axes.set(xlabel="logarithm of the penalty", ylabel="loss")
    axes.set_title(f"{name}: one penalty", loc="left")


def draw_descent(axes: Axes, findings: research.runs.Result, name: str) -> None:
    """Draw the validation loss of one problem by step: one penalty, then many."""
    colours, arrays = research.figures.COLOURS, findings.arrays
    found = findings.numbers["problems"][name]
    losses = np.concatenate([arrays[f"{name}/one"], arrays[f"{name}/many"]])
    turn = len(arrays[f"{name}/one"])
    axes.plot(np.arange(turn), losses[:turn], color=colours["stochastic"])
    axes.plot(
        np.arange(turn, len(losses)),
        losses[turn:],
        color=colours["mini-batch"],
        label=f"{found['features']} penalties",
    )
    axes.axhline(
        found["grid"],
        color=colours["full batch"],
        lw=1,
        ls=(0, (4, 2)),
        label="best of the grid",
    )
    axes.set(xlabel="step of descent on the penalties", ylabel="validation loss")
    axes.set_title(f"{name}: one, then {found['features']} penalties", loc="left")
