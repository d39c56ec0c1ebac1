"""The pictures of batch, stochastic and mini-batch descent: one rule under several samplers."""

from collections.abc import Sequence

import numpy as np

from research import figures
from research.figures.convergence import Curve, draw_curves
from research.runs import Result

_GAP = "f − f*, as a share of the initial gap"


def first_figure(
    result: Result, regimes: Sequence[str], rule: str = "gradient_descent"
) -> figures.Picture:
    """One rule on the first workload against passes and against seconds; theory's noise floors dashed.

    Args:
      result: Of the experiment batch_stochastic_minibatch.
      regimes: Names of the regimes to draw; those drawn with replacement at constant rate get their floor.
      rule: The rule.
    Returns:
      The picture, whose caption says where the curves come to rest.
    """
    numbers, workload = result.numbers, result.numbers["first"]
    figure, axes = figures.new_figure(1, 2, width=10, height=4.6, sharey=True)
    rows = {
        row["regime"]: row
        for row in numbers["rows"]
        if (row["workload"], row["rule"]) == (workload, rule)
    }
    trace = numbers["floors"]["trace"]
    for panel, label in (
        (0, "passes over the data"),
        (1, "seconds of one training by itself, compilation apart"),
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
        draw_curves(
            axes[0, panel], curves, x_label=label, y_label="" if panel else _GAP
        )
    axes[0, 0].set_ylim(1e-9, 3)
    axes[0, 0].set_title("against passes over the data")
    axes[0, 1].set_title("against seconds")
    axes[0, 0].legend(loc="lower left", fontsize=9)
    measured, predicted = numbers["floor_measured"], numbers["floor_predicted"]
    best = numbers["first_in_seconds"][workload]
    figure.suptitle(
        f"{workload}, n = {rows[regimes[0]]['n']}: {best['regime']} is first to {best['target']}; "
        f"the stochastic curve stops at {measured:.2g}, theory says {predicted:.2g}",
        x=0.01,
        ha="left",
        fontsize=12,
    )
    caption = (
        f"Gradient descent on {workload}: median over the seeds with its 95 % bootstrap band. Dashed: the noise floor "
        f"η tr(C) / 4b of sampling with replacement. Stochastic descent of constant rate comes to rest at f - f* = "
        f"{measured:.2g} (theory {predicted:.2g}); full batch has no floor above rounding."
    )
    return figures.Picture("Gradient descent alone", caption, figure)


def small_multiples(result: Result, regimes: Sequence[str]) -> figures.Picture:
    """Every workload (rows) and rule (columns) under the regimes that people use."""
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
            curves = [
                Curve(
                    regime,
                    *_relative(result, f"{workload}/{rule}/{regime}"),
                    figures.colour(regime),
                )
                for regime in regimes
            ]
            draw_curves(
                axes[i, j], curves, x_label="passes over the data", resamples=200
            )
            axes[i, j].set_title(
                f"{workload} (n = {here[0]['n']:,})\n{rule}" if j == 0 else rule,
                fontsize=10,
            )
    axes[0, 0].set_ylim(1e-9, 3)
    figure.supylabel(_GAP, fontsize=10)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False)
    caption = (
        "Each rule on each workload at its own chosen rate, a new order every epoch: median over the seeds with its "
        f"95 % bootstrap band. Rows: {', '.join(workloads)}; columns: {', '.join(rules)}. The table of every rule and "
        "regime has the numbers."
    )
    return figures.Picture("All workloads and rules", caption, figure)


def replacement(result: Result) -> figures.Picture:
    """Sampling with and without replacement at fixed rates, beside the predicted floor."""
    rows = result.numbers["floors"]["rows"]
    figure, axes = figures.new_figure(1, len(rows), width=11, height=3.7, sharey=True)
    for panel, row in zip(axes[0], rows, strict=True):
        curves = []
        for name, dashes in (
            (f"{row['regime']}, with replacement", "-"),
            (row["regime"], "-"),
        ):
            key = f"floors/{name}/{row['rate']}"
            colour = (
                figures.colour(name)
                if "with replacement" in name
                else figures.COLOURS["exact"]
            )
            floor = row["predicted"] if "with replacement" in name else None
            label = (
                "with replacement"
                if "with replacement" in name
                else "without: a new order every epoch"
            )
            curves.append(
                Curve(
                    label,
                    result.arrays[f"{key}/passes"],
                    result.arrays[f"{key}/gaps"],
                    colour,
                    floor,
                    dashes,
                )
            )
        draw_curves(
            panel,
            curves,
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
        f"Gradient descent on {result.numbers['floors']['workload']} at fixed rates. Without replacement it comes to "
        f"rest {', '.join(lower)} times lower than with it (panels from left to right); dashed is η tr(C) / 4b, which holds "
        "with replacement."
    )
    return figures.Picture("With and without replacement", caption, figure)


def _relative(result: Result, key: str) -> tuple[np.ndarray, np.ndarray]:
    gaps = result.arrays[f"{key}/gaps"]
    return result.arrays[f"{key}/passes"], gaps / gaps[:, :1]
