"""Report of batch_stochastic_minibatch: answer, tables and figures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import research
from experiments.batch_stochastic_minibatch import FIRST_RULE, find
from research import figures
from research.figures.convergence import Curve, draw_curves
from research.runs import Result, Table

LARGE = 10_000  # Number of examples from which the answer calls a set large.
# Times of two regimes that differ by a smaller factor are too close to choose one: the
# seconds of a pass are measured only once.
NEAR = 1.1


def answer(findings: research.runs.Findings) -> str:
    """Say which regime to use on small and on large sets, and why there is a floor."""
    numbers = findings.numbers
    sentences = [advice(numbers, numbers["first"])]
    if numbers["large"]:
        sentences.append(advice(numbers, numbers["large"]))
    ratios = [ratio for ratio in numbers["without_lower_by"] if np.isfinite(ratio)]
    lower = f" (up to {max(ratios):.0f} times lower)" if ratios else ""
    sentences.append(
        "At a constant rate η, the noise of single examples keeps stochastic descent "
        f"from the minimum: here it levels off at f - f* = "
        f"{numbers['floor_measured']:.2g}, where η tr(C) / (4b) predicts "
        f"{numbers['floor_predicted']:.2g} (b: batch size, C: covariance of the "
        "gradients of single examples). The level is lower with a smaller or falling "
        "rate, with a larger batch, or with a new order of the examples in every epoch"
        f"{lower}."
    )
    return " ".join(sentences)


def advice(numbers: dict[str, Any], workload: str):
    """Return one sentence on one workload, for gradient descent alone."""
    rows = [
        find(numbers, workload, regime.name)
        for regime in research.tuning.practice_regimes(numbers["batch_size"])
    ]
    best = numbers["first_in_seconds"][workload]
    n = f"{rows[0]['n']:,}"
    if best["regime"] is None:
        return f"On {workload} (n = {n}) no regime reached 1e-02 of the initial f - f*."
    costs = "; ".join(f"{row['regime']} {cost(row, best['target'])}" for row in rows)
    size = "large" if rows[0]["n"] >= LARGE else "small"
    times = {row["regime"]: seconds(row, best["target"]) for row in rows}
    least = times[best["regime"]]
    near = sorted((n for n in times if times[n] <= NEAR * least), key=times.__getitem__)
    use = " or ".join(near)
    if len(near) > 1:
        use += f", whose times differ by less than {100 * (NEAR - 1):.0f} %"
    return (
        f"On a {size} set ({workload}, n = {n}) use {use}: to reach {best['target']} "
        f"of the initial f - f*, {costs}."
    )


def seconds(row: dict[str, Any], target: float) -> float:
    """Return the seconds that a regime needs to reach a target; inf if it does not."""
    passes = row["targets"][target][0]
    return np.inf if passes is None else passes * row["seconds_per_pass"]


def cost(row: dict[str, Any], target: float):
    """Say how many passes and seconds a regime needs to reach a target."""
    passes = row["targets"][target][0]
    if passes is None:
        return "does not reach it"
    return f"takes {passes:.2g} passes and {seconds(row, target):.2g} s"


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the first figure, the small multiples and the floors from saved arrays."""
    return {
        "figure": first_figure(
            result,
            [
                r.name
                for r in research.tuning.theory_regimes(result.numbers["batch_size"])
            ],
        ),
        "rules": small_multiples(
            result,
            [
                r.name
                for r in research.tuning.practice_regimes(result.numbers["batch_size"])
            ],
        ),
        "replacement": replacement(result),
    }


_GAP = "f − f*, as a share of the initial gap"


def first_figure(
    result: Result, regimes: Sequence[str], rule: str = "gradient_descent"
) -> figures.Picture:
    """Draw one rule on the first workload against passes and against seconds.

    Predicted noise floors are dashed.

    Args:
      result: Result of the experiment batch_stochastic_minibatch.
      regimes: Names of the regimes to draw. For regimes with replacement at a constant
        rate, the predicted floor is drawn too.
      rule: Name of the rule.
    Returns:
      The picture. Its caption gives the floors of the curves.
    """
    numbers, workload = result.numbers, result.numbers["first"]
    figure, axes = figures.new_figure(2, 1, width=4.6, height=7.6, sharey=True)
    panels = axes[:, 0]
    rows = {
        row["regime"]: row
        for row in numbers["rows"]
        if (row["workload"], row["rule"]) == (workload, rule)
    }
    trace = numbers["floors"]["trace"]
    for panel, label in (
        (0, "passes over the data"),
        (1, "seconds of one training alone, without compilation"),
    ):
        curves = []
        for regime in regimes:
            row = rows[regime]
            floor = (
                row["rate"] * trace / (4 * row["batch_size"])
                if "with replacement" in regime
                else None
            )
            passes, relative = _relative(result, f"{workload}/{rule}/{regime}")
            x = passes * (row["seconds_per_pass"] if panel else 1.0)
            share = floor and floor / row["initial_gap"]
            curves.append(Curve(regime, x, relative, figures.colour(regime), share))
        draw_curves(panels[panel], curves, x_label=label, y_label=_GAP)
    panels[0].set_ylim(1e-9, 3)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=1
    )
    measured, predicted = numbers["floor_measured"], numbers["floor_predicted"]
    initial = next(iter(rows.values()))["initial_gap"]  # The axis is relative to it.
    panels[0].set_title(
        f"{workload}, n = {rows[regimes[0]]['n']}: the stochastic\ncurve stops at "
        f"{measured / initial:.2g}, theory says {predicted / initial:.2g}"
    )
    caption = (
        f"Gradient descent on {workload}: median over the seeds with its 95 % "
        "bootstrap band. Dashed: the noise floor η tr(C) / 4b for sampling with "
        "replacement. The vertical axes show shares of the initial f - f*, "
        f"{initial:.3g}. Stochastic descent at a constant rate levels off at f - f* = "
        f"{measured:.2g} (theory {predicted:.2g}), which is {measured / initial:.2g} "
        "of it. The full batch has no floor above rounding."
    )
    return figures.Picture("Gradient descent alone", caption, figure)


def small_multiples(result: Result, regimes: Sequence[str]) -> figures.Picture:
    """Draw every workload (rows) and rule (columns) under the regimes of practice."""
    rows = result.numbers["rows"]
    workloads = list(dict.fromkeys(row["workload"] for row in rows))
    rules = list(dict.fromkeys(row["rule"] for row in rows))
    width, height = 2.6 * len(rules) + 0.6, 2.3 * len(workloads) + 0.6
    figure, axes = figures.new_figure(
        len(workloads),
        len(rules),
        width=max(width, 6),
        height=height,
        sharex="row",
        sharey=True,
    )
    for i, workload in enumerate(workloads):
        for j, rule in enumerate(rules):
            here = [
                row
                for row in rows
                if (row["workload"], row["rule"]) == (workload, rule)
            ]
            if not here:
                axes[i, j].axis("off")
                continue
            draw_regimes(axes[i, j], result, f"{workload}/{rule}", regimes)
            axes[i, j].set_title(
                f"{workload} (n = {here[0]['n']:,})\n{rule}" if j == 0 else rule,
                fontsize=10,
            )
    axes[0, 0].set_ylim(1e-9, 3)
    figure.supylabel(_GAP, fontsize=10)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False)
    caption = (
        "Each rule on each workload at its own chosen rate, with a new order every "
        "epoch: median over the seeds with its 95 % bootstrap band. Rows: "
        f"{', '.join(workloads)}. Columns: {', '.join(rules)}. The numbers are in the "
        "table of every rule and regime."
    )
    return figures.Picture("All workloads and rules", caption, figure)


def draw_regimes(axes: Axes, result: Result, key: str, regimes: Sequence[str]) -> None:
    """Draw the curve of each regime. `key` is the workload and the rule, with a /."""
    curves = [
        Curve(regime, *_relative(result, f"{key}/{regime}"), figures.colour(regime))
        for regime in regimes
    ]
    draw_curves(axes, curves, x_label="passes over the data", resamples=200)


def replacement(result: Result) -> figures.Picture:
    """Draw curves and floors for sampling with and without replacement.

    The learning rates are fixed.
    """
    rows = result.numbers["floors"]["rows"]
    figure, axes = figures.new_figure(1, len(rows), width=11, height=3.7, sharey=True)
    for panel, row in zip(axes[0], rows, strict=True):
        draw_curves(
            panel,
            replacement_curves(result, row),
            x_label="passes",
            y_label="f − f*" if panel is axes[0, 0] else "",
        )
        lower = row["with"][0] / row["without"][0]
        panel.set_title(
            f"{row['regime']}, η = {row['rate']:.3g}\nlower by {lower:.3g}", fontsize=10
        )
        panel.legend(loc="lower left", fontsize=7.5)
    lower = [f"{row['with'][0] / row['without'][0]:.3g}" for row in rows]
    caption = (
        f"Gradient descent on {result.numbers['floors']['workload']} at fixed rates. "
        f"Sampling without replacement levels off {', '.join(lower)} times lower than "
        "sampling with replacement (panels from left to right). Dashed: η tr(C) / 4b, "
        "which holds with replacement."
    )
    return figures.Picture("With and without replacement", caption, figure)


def replacement_curves(result: Result, row: Mapping[str, Any]) -> list[Curve]:
    """Return the curves of one regime with replacement, and then without."""
    with_replacement = f"{row['regime']}, with replacement"
    curves = []
    for name, label, colour, floor in (
        (
            with_replacement,
            "with replacement",
            figures.colour(with_replacement),
            row["predicted"],
        ),
        (
            row["regime"],
            "without replacement: a new order every epoch",
            figures.COLOURS["exact"],
            None,
        ),
    ):
        key = f"floors/{name}/{row['rate']}"
        passes, gaps = (result.arrays[f"{key}/{part}"] for part in ("passes", "gaps"))
        curves.append(Curve(label, passes, gaps, colour, floor))
    return curves


def _relative(result: Result, key: str) -> tuple[np.ndarray, np.ndarray]:
    gaps = result.arrays[f"{key}/gaps"]
    return result.arrays[f"{key}/passes"], gaps / gaps[:, :1]


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the tables. The terminal shows the first table, the report all tables.

    The tables show costs, floors, differences from optax, rules, targets and optima.
    """
    numbers = findings.numbers
    return (
        costs_table(numbers),
        floors_table(numbers),
        deviations_table(numbers),
        rules_table(numbers),
        targets_table(numbers),
        optima_table(numbers),
    )


def table(
    title: str,
    rows: Iterable[Any],
    columns: Mapping[str, Callable[[Any], Any]],
    note: str,
) -> Table:
    """Return a table whose columns are computed by functions of a row.

    `columns` is a dict from the name of a column to its function.
    """
    cells = tuple(tuple(column(row) for column in columns.values()) for row in rows)
    return Table(title, tuple(columns), cells, note)


def key_columns(*names: str) -> dict[str, Callable[[dict], Any]]:
    """Return columns for `table` that show the entries of a row with these names."""
    return {name: lambda row, name=name: row[name] for name in names}


def times(passes: float | None, factor: float) -> float | None:
    """Multiply passes by a factor. None, which means "not reached", stays None."""
    return None if passes is None else passes * factor


def costs_table(numbers: dict[str, Any]) -> Table:
    """Return the table of gradient descent's passes and seconds to each target."""
    names = list(numbers["rows"][0]["targets"])
    columns = key_columns("workload", "regime", "rate")
    columns |= {f"passes to {t}": lambda row, t=t: row["targets"][t][0] for t in names}
    columns |= {
        f"seconds to {t}": lambda row, t=t: times(
            row["targets"][t][0], row["seconds_per_pass"]
        )
        for t in names
    }
    columns |= {"levels off at": lambda row: row["floor"][0]}
    return table(
        "Gradient descent: cost to reach a share of the initial f - f*",
        [row for row in numbers["rows"] if row["rule"] == FIRST_RULE],
        columns,
        "Medians over the reported seeds. Seconds: one training alone, without "
        "compilation. The last column is the mean over the last third of the budget, "
        "as a share of the initial gap.",
    )


def floors_table(numbers: dict[str, Any]) -> Table:
    """Return the table of floors at fixed rates, with and without replacement."""
    floors = numbers["floors"]
    columns = key_columns("regime", "rate") | {
        "η tr(C) / 4b": lambda row: row["predicted"],
        "with replacement": lambda row: row["with"][0],
        "over prediction": lambda row: row["with"][0] / row["predicted"],
        "without": lambda row: row["without"][0],
        "lower by": lambda row: row["with"][0] / row["without"][0],
    }
    return table(
        f"Where gradient descent at a fixed rate levels off on {floors['workload']}",
        floors["rows"],
        columns,
        f"f - f*, medians over the reported seeds; tr(C) = {floors['trace']:.4g} at "
        "x*. The prediction is for sampling with replacement, to first order in the "
        "rate.",
    )


def deviations_table(numbers: dict[str, Any]) -> Table:
    """Return the table of differences between our rules and optax."""
    columns = {"rule": lambda item: item[0]}
    for dtype in ("float32", "float64"):
        columns[dtype] = lambda item, dtype=dtype: item[1][dtype]["largest"]
        columns[f"{dtype}: at step"] = lambda item, dtype=dtype: item[1][dtype]["step"]
    return table(
        "Largest deviation of each rule from optax over a whole trajectory",
        numbers["deviations"].items(),
        columns,
        "max |this package - optax| / (1 + |optax|), full batch on "
        f"{numbers['first']}, {numbers['proof']['steps']} steps at rate "
        f"{numbers['proof']['rate']:.3g}, computed in this run.",
    )


def rules_table(numbers: dict[str, Any]) -> Table:
    """Return the table of all programs, with rates, outcomes and seconds.

    The seconds of compilation, of the first call and of later calls are separate.
    """
    columns = key_columns("workload", "rule", "regime", "rate") | {
        "rate at edge": lambda row: "yes" if row["rate_at_edge"] else "no",
        "trainings": lambda row: row["cells"],
        "diverged": lambda row: row["diverged"],
        "ends at": lambda row: row["floor"][0],
        "low": lambda row: row["floor"][1],
        "high": lambda row: row["floor"][2],
        "s to compile all": lambda row: row["compile_seconds"],
        "s to compile one": lambda row: row["alone"]["compile_seconds"],
        "s, first call": lambda row: row["alone"]["first_call_seconds"],
        "s a pass": lambda row: row["seconds_per_pass"],
    }
    return table(
        "Every rule and regime at its chosen rate",
        numbers["rows"],
        columns,
        "Ends at: mean over the last third of the budget as a share of the initial "
        "gap; median over seeds with its 95 % bootstrap interval. The weight decay of "
        "AdamW moves its fixed point away from x*. Two combinations compile at the "
        "same time. A program that an earlier combination compiled is not compiled "
        "again. The seconds of a pass are measured while no other work runs.",
    )


def targets_table(numbers: dict[str, Any]) -> Table:
    """Return the table of steps, example gradients and seconds to each target."""
    rows = [(row, target) for row in numbers["rows"] for target in row["targets"]]
    columns = {
        name: lambda item, name=name: item[0][name]
        for name in ("workload", "rule", "regime")
    } | {
        "target": lambda item: item[1],
        "steps": lambda item: times(
            item[0]["targets"][item[1]][0], item[0]["n"] / item[0]["batch_size"]
        ),
        "example gradients": lambda item: times(
            item[0]["targets"][item[1]][0], item[0]["n"]
        ),
        "passes, low": lambda item: item[0]["targets"][item[1]][1],
        "passes, high": lambda item: item[0]["targets"][item[1]][2],
        "seconds": lambda item: times(
            item[0]["targets"][item[1]][0], item[0]["seconds_per_pass"]
        ),
    }
    return table(
        "Steps, example gradients and seconds to each target",
        rows,
        columns,
        "First evaluation at or below the target: median over seeds, with the "
        "interval of the passes beside it.",
    )


def optima_table(numbers: dict[str, Any]) -> Table:
    """Return the table that shows how exact the optima are."""
    columns = {
        "workload": lambda item: item[0],
        "f*": lambda item: item[1]["value"],
        "gradient norm": lambda item: item[1]["gradient_norm"],
        "over the one at 0": lambda item: item[1]["relative_gradient_norm"],
        "solver": lambda item: item[1]["solver"],
    }
    note = "Solved in float64 by code that is independent of the descent code."
    return table(
        "The exact optimum of each workload", numbers["optima"].items(), columns, note
    )
