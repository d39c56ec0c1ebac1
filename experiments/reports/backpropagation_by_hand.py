"""Report of backpropagation_by_hand: answer, tables and figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import research
from experiments.backpropagation_by_hand import DTYPES, NETS, WAYS
from research.figures import COLOURS


def answer(findings: research.runs.Findings) -> str:
    """Say whether the gradients agree, and compare the seconds of the three ways."""
    numbers, config = findings.numbers, findings.numbers["config"]
    name = config["nets"][-1]
    ratio, low, high = numbers["nets"][name]["ratio_of_seconds"]
    count = len(config["nets"]) * len(config["activations"]) * config["seeds"]
    pace = "as fast" if low <= 1 <= high else "faster" if high < 1 else "slower"
    return (
        f"{'Yes' if numbers['largest_share_of_bound'] < 1 else 'No'}: in {count} "
        "gradients in float64, the gradient by hand and that of jax.grad differ by at "
        f"most {numbers['largest_difference']:.1f} ε, relative to the largest entry of "
        "the gradient. In float64 and float32, the difference of an entry is at most "
        f"{100 * numbers['largest_share_of_bound']:.0f} % of its rounding bound. On "
        f"average over the networks, {100 * numbers['share_equal']:.0f} % of the "
        "entries are bit-identical in float64. A descent step with the gradient by "
        f"hand is {pace}: on {name} it takes {ratio:.2f} ({low:.2f} to {high:.2f}) "
        "times as long as with jax.grad. Central differences have an error of up to "
        f"{numbers['difference_error']:.0e} of the largest entry and would take "
        f"{numbers['difference_ratio_of_seconds']:,.0f} times as long."
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the tables of the networks and of the activations."""
    return table_of_ways(findings.numbers), table_of_activations(
        findings.arrays, findings.numbers
    )


def table_of_ways(numbers: dict[str, Any]):
    """Return the table of networks, with the results of the three ways."""
    rows, config = [], numbers["config"]
    for name, found in numbers["nets"].items():
        apart = "{:,.0f} ({:,.0f} to {:,.0f})".format(
            *found["difference_ratio_of_seconds"]
        )
        ratios = (
            apart,
            "{:.2f} ({:.2f} to {:.2f})".format(*found["ratio_of_seconds"]),
            "1",
        )
        off = (
            found["difference_error"],
            found["largest_difference"]["float64"] * float(np.finfo(float).eps),
            0.0,
        )
        equal = (found["difference_share_equal"], found["share_equal"]["float64"], 1.0)
        parts = (WAYS, off, equal, found["seconds"], ratios, found["compile_seconds"])
        rows += [
            (f"{name}, batch {NETS[name].batch}", *row)
            for row in zip(*parts, strict=True)
        ]
    columns = (
        "net",
        "way",
        "off by",
        "bits equal",
        "seconds",
        "seconds over jax.grad's",
        "seconds to compile",
    )
    note = (
        "Off by: largest difference from jax.grad, relative to the largest entry of "
        "the gradient, in float64, over all activations and seeds. Bits equal: share "
        "of entries that are equal to the last bit. Central differences are computed "
        f"for the first seed only, at up to {config['probes']} entries. "
        "Seconds: one descent step in float32 in a compiled loop; for central "
        "differences, the time of the loss times twice the number of params. Ratios "
        f"are medians over {config['repeats']} samples, taken in alternation, with 95 "
        "% intervals."
    )
    return research.runs.Table("A gradient in three ways", columns, tuple(rows), note)


def table_of_activations(arrays: dict[str, np.ndarray], numbers: dict[str, Any]):
    """Return the table of activations, with the results over all networks."""
    rows, config = [], numbers["config"]
    for i, activation in enumerate(config["activations"]):
        parts = [
            [arrays[f"{name}/{key}"][i] for name in config["nets"]]
            for key in ("differences", "equal", "shares")
        ]
        off, equal, share = (np.stack(part) for part in parts)  # (nets, dtypes, seeds)
        error = max(arrays[f"{name}/errors"][i].max() for name in config["nets"])
        counts = (
            *off.max((0, 2)).tolist(),
            *equal.mean((0, 2)).tolist(),
            float(share.max()),
        )
        rows.append((activation, float(error), *counts))
    columns = (
        "activation",
        "central differences off by",
        *(f"by hand off by, ε of {d}" for d in DTYPES),
    )
    columns += (*(f"bits equal, {d}" for d in DTYPES), "share of the bound")
    note = (
        f"Over {', '.join(config['nets'])} and {config['seeds']} seeds; relative to "
        "the largest entry. Bits equal: share of entries, averaged over networks and "
        "seeds."
    )
    return research.runs.Table(
        "Difference from jax.grad by activation", columns, tuple(rows), note
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the small network with its deltas, and the measurements of all networks."""
    arrays, numbers = result.arrays, result.numbers
    chain, axes = research.figures.new_figure(width=4.6, height=5.9)
    draw_example(
        axes[0, 0],
        {
            key.partition("/")[2]: arrays[key]
            for key in arrays
            if key.startswith("example/")
        },
    )
    measured, axes = research.figures.new_figure(
        1, 2, width=11, height=4.2, width_ratios=(1.2, 1)
    )
    draw_differences(axes[0, 0], numbers["nets"])
    draw_seconds(axes[0, 1], numbers["nets"])
    forward_and_back = (
        "A 2-3-1 network with tanh and one example with y = 1. Blue, from left to "
        "right: the output of each unit in the forward pass. Orange, from right to "
        "left: δ, the derivative of the loss with respect to the input of the unit. "
        "At the output δ is σ(z) - y. A hidden unit gets the δ on its right times the "
        "weight of the edge times tanh' = 1 - h². Each edge shows its weight and "
        "below it the derivative by the weight, which is the blue number on its left "
        "times the orange number on its right."
    )
    both = (
        "Left: largest difference from jax.grad, relative to the largest entry of the "
        "gradient, over all activations and seeds. By hand it is at most "
        f"{numbers['largest_difference']:.1f} ε in float64. Right: time by hand "
        "divided by the time of jax.grad in float32, with 95 % intervals. On the "
        "vertical line both are equally fast."
    )
    return {
        "chain": research.figures.Picture(
            "The chain rule from the loss to the inputs", forward_and_back, chain
        ),
        "measured": research.figures.Picture("Accuracy and speed", both, measured),
    }


def draw_example(axes: Axes, a: dict[str, np.ndarray]):
    """Draw the small network, and below it arrows for the two directions."""
    values, deltas = (
        (a["h0"], a["h1"], a["z2"]),
        (a["delta0"], a["delta1"], a["delta2"]),
    )
    names = (("x₁", "x₂"), ("h₁", "h₂", "h₃"), ("z",))
    draw_chain(axes, values, deltas, (a["w1"], a["w2"]), (a["dw1"], a["dw2"]), names)
    axes.text(8.7, -2.1, f"f = log(1 + exp(-z))\n= {float(a['f']):.2f}", ha="right")
    draw_way(axes, -3.2, "forward", "h = tanh(W₁ᵀ x + b₁),  z = W₂ᵀ h + b₂", False)
    formulas = "δ of z = σ(z) - y,  δ of h = (W₂ δ) (1 - h²),\nδ of x = W₁ δ"
    draw_way(axes, -4.2, "back", formulas, True)
    axes.set_ylim(bottom=-5.3)


def draw_differences(axes: Axes, nets: dict[str, Any]):
    """Draw the errors of the gradient by hand and of central differences.

    There is one row for each network.
    """
    blue, rows = research.figures.COLOURS["full batch"], np.arange(len(nets))[::-1]
    errors = [found["difference_error"] for found in nets.values()]
    axes.plot(
        errors, rows, "s", color=research.figures.COLOURS["stochastic"], label=WAYS[0]
    )
    for dtype, face in (("float32", "none"), ("float64", blue)):
        eps = float(np.finfo(dtype).eps)
        off = [found["largest_difference"][dtype] * eps for found in nets.values()]
        axes.plot(off, rows, "o", mfc=face, color=blue, label=f"by hand, {dtype}")
        axes.axvline(eps, color=research.figures.COLOURS["data"], lw=1, ls=(0, (4, 3)))
    axes.set(
        xscale="log",
        xlabel="largest difference / largest entry (dashed: ε)",
        ylim=(-0.6, len(nets) + 0.2),
    )
    axes.set_yticks(rows, list(nets))
    axes.legend(
        loc="upper center", ncols=3, fontsize=8.5, columnspacing=1.0, handletextpad=0.3
    )


def draw_seconds(axes: Axes, nets: dict[str, Any]):
    """Draw the ratio of seconds and its interval, with one row for each network."""
    blue, rows = research.figures.COLOURS["full batch"], np.arange(len(nets))[::-1]
    ends = np.array([found["ratio_of_seconds"] for found in nets.values()])
    for row, (middle, low, high) in zip(rows, ends, strict=True):
        axes.plot([low, high], [row, row], color=blue)
        axes.plot(middle, row, "o", color=blue)
        axes.text(max(high, 1) + 0.02, row, f"{middle:.2f}", va="center")
    axes.axvline(1, color=research.figures.COLOURS["exact"], lw=1)
    axes.set(
        xlabel="seconds by hand / seconds of jax.grad", ylim=(-0.6, len(nets) + 0.2)
    )
    axes.set(xlim=(min(0.7, ends.min() - 0.1), max(1.3, ends.max() + 0.15)))
    axes.set_yticks(rows, ["" for _ in nets])


AHEAD, BACK = COLOURS["full batch"], COLOURS["stochastic"]
APART, HIGH = 4.0, 2.0  # Distance between layers, and between units of a layer.
HALF_LINE = 0.27  # Half the line height of the text in a unit.


def draw_chain(
    axes: Axes,
    values: Sequence[np.ndarray],
    deltas: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    gradients: Sequence[np.ndarray],
    names: Sequence[Sequence[str]],
) -> None:
    """Draw units as circles with their values and deltas δ.

    Each edge shows its weight and the derivative with respect to it.

    Args:
      axes: Axes to draw on.
      values, deltas: Values and deltas of each layer, the input first, each of shape
        (units,).
      weights, gradients: Weights between two layers, and the derivatives with respect
        to these weights, each of shape (units before, units after).
      names: Names of the units of each layer.
    """
    places = [
        [(APART * k, HIGH * ((len(layer) - 1) / 2 - i)) for i in range(len(layer))]
        for k, layer in enumerate(values)
    ]
    for k, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
        for i, start in enumerate(places[k]):
            # Edges cross, so the distance of a label from its unit differs from unit to
            # unit.
            share = (
                0.45
                if weight.shape[1] == 1
                else 0.4 + 0.26 * i / max(weight.shape[0] - 1, 1)
            )
            for j, end in enumerate(places[k + 1]):
                _draw_edge(
                    axes,
                    np.array(start),
                    np.array(end),
                    share,
                    weight[i, j],
                    gradient[i, j],
                )
    for column, value, delta, name in zip(places, values, deltas, names, strict=True):
        for i, place in enumerate(column):
            _draw_unit(axes, place, name[i], value[i], delta[i])
    tallest = max(len(layer) for layer in values)
    axes.set(
        xlim=(-0.8, APART * (len(values) - 1) + 0.8),
        ylim=(-HIGH * tallest / 2 - 0.7, HIGH * tallest / 2 - 0.2),
    )
    axes.axis("off")


def draw_way(axes: Axes, y: float, name: str, formulas: str, back: bool) -> None:
    """Draw a long named arrow below the network, and formulas below the arrow."""
    left, right = axes.get_xlim()
    start, end = (right - 1, left + 1) if back else (left + 1, right - 1)
    colour = BACK if back else AHEAD
    axes.annotate(
        "",
        (end, y),
        (start, y),
        arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.6},
    )
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 2.0}
    axes.text(
        (left + right) / 2, y, name, ha="center", va="center", color=colour, bbox=ground
    )
    axes.text(
        (left + right) / 2, y - 0.25, formulas, ha="center", va="top", color=colour
    )


def _draw_unit(
    axes: Axes, place: tuple[float, float], name: str, value: float, delta: float
) -> None:
    """Draw a circle with the name, the value and the delta of a unit."""
    x, y = place
    axes.plot(x, y, "o", ms=52, color="white", mec=COLOURS["exact"], mew=1.2, zorder=4)
    centred: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 5}
    axes.text(x, y + HALF_LINE, name, weight="bold", **centred)
    axes.text(x, y, f"{value:.2f}", color=AHEAD, **centred)
    axes.text(x, y - HALF_LINE, f"δ {delta:.2f}", color=BACK, **centred)


def _draw_edge(
    axes: Axes,
    start: np.ndarray,
    end: np.ndarray,
    share: float,
    weight: float,
    gradient: float,
) -> None:
    axes.plot(*zip(start, end, strict=True), color=COLOURS["data"], lw=1.0, zorder=1)
    x, y = start + share * (end - start)
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    axes.text(
        x,
        y,
        "-0.00\n-0.00",
        ha="center",
        va="center",
        bbox=ground,
        color="white",
        zorder=2,
    )
    for number, side, colour in ((weight, "bottom", AHEAD), (gradient, "top", BACK)):
        axes.text(
            x,
            y,
            f"{number:.2f}",
            ha="center",
            va=side,
            color=colour,
            zorder=3,
        )
