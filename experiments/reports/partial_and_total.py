"""Report of partial_and_total: answer, tables and figures."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

import research


def answer(findings: research.runs.Findings) -> str:
    """Give the partial and the total derivative, at the given and at the best price."""
    numbers = findings.numbers
    way = "raise the price" if numbers["total"] > 0 else "lower the price"
    if abs(numbers["total"]) < 1e-9 * abs(numbers["partial"]):
        way = "this is the best price"
    return (
        "The total derivative includes the effects of the price on everything that "
        "depends on it. The partial one does not. At a price of "
        f"{numbers['price']:g} the partial derivative of the profit, with demand and "
        f"cost held fixed, is {numbers['partial']:+.1f}. Alone it suggests a higher "
        f"price. The total derivative is {numbers['total']:+.1f}: {way}. At the best "
        "price, "
        f"{numbers['best_price']:g}, the total derivative is zero and the partial one "
        f"is still {numbers['partial_at_best']:+.1f}. On {numbers['graphs']} random "
        "graphs the sums over paths differ from jax.grad of the composed function by "
        f"at most {numbers['disagreement']:.1e} of its largest entry."
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the only table."""
    return (table(findings.numbers),)


def table(numbers: dict[str, Any]):
    """Return the table of every path from the price to the profit."""
    rows = [(path, value) for path, value in numbers["paths"].items()]
    return research.runs.Table(
        f"Effect of the price on the profit at a price of {numbers['price']:g}",
        ("path", "profit per unit of price"),
        (*rows, ("total", numbers["total"])),
        "The first path is the partial derivative. The sum of all paths is the total "
        "derivative.",
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the profit with the partial and total slopes, and the slope by path."""
    figure, axes = research.figures.new_figure(2, 1, width=4.6, height=7.6)
    draw_slopes(axes[0, 0], result.arrays, result.numbers)
    draw_parts(axes[1, 0], result.arrays, result.numbers)
    n = result.numbers
    caption = (
        "Above: profit against price, where demand and cost depend on the price. At a "
        f"price of {n['price']:g} the partial derivative ({n['partial']:+.1f}, dashed) "
        "is the slope of the profit if the demand did not change; the total "
        f"derivative ({n['total']:+.1f}) is the actual slope. Below: the total "
        "derivative is the sum of three paths. It is zero at the best price, "
        f"{n['best_price']:g} (dotted), where the partial derivative (the direct path) "
        f"is {n['partial_at_best']:.1f}."
    )
    return {
        "slopes": research.figures.Picture(
            "Partial and total derivative of a profit", caption, figure
        )
    }


def draw_slopes(axes: Axes, arrays: dict[str, np.ndarray], numbers: dict[str, Any]):
    """Draw the profit, and a short tangent for each derivative."""
    colours = research.figures.COLOURS
    axes.plot(arrays["price"], arrays["profit"], color=colours["exact"])
    reach = np.array([-4.0, 4.0])
    looks = (("partial", "stochastic", (0, (4, 2))), ("total", "full batch", "-"))
    for name, colour, dashes in looks:
        heights = numbers["profit"] + numbers[name] * reach
        label = f"{name}: {numbers[name]:+.1f}"
        axes.plot(
            numbers["price"] + reach,
            heights,
            color=colours[colour],
            ls=dashes,
            label=label,
        )
    axes.plot(numbers["price"], numbers["profit"], "o", color=colours["exact"])
    axes.axvline(numbers["best_price"], color=colours["data"], lw=1, ls=":")
    axes.set(xlabel="price", ylabel="profit")
    axes.legend(title="slope from the derivative:", loc="lower right")


def draw_parts(axes: Axes, arrays: dict[str, np.ndarray], numbers: dict[str, Any]):
    """Draw each path's share of the slope."""
    colours = research.figures.COLOURS
    lines = (
        ("direct", "stochastic"),
        ("via demand", "mini-batch"),
        ("via cost", "decaying"),
        ("total", "full batch"),
    )
    labels = {
        "direct": "direct (partial derivative)",
        "via cost": "via demand and cost",
    }
    for name, colour in lines:
        width = 2.6 if name == "total" else 1.6
        axes.plot(
            arrays["price"],
            arrays[name],
            color=colours[colour],
            lw=width,
            label=labels.get(name, name),
        )
    axes.axhline(0, color=colours["exact"], lw=0.8)
    axes.axvline(numbers["best_price"], color=colours["data"], lw=1, ls=":")
    axes.set(xlabel="price", ylabel="profit per unit of price")
    axes.legend(loc="upper right")
