"""Report of deepobs_audit: answer, tables and figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import research
from experiments.deepobs_audit import (
    EXPECTED,
    LAST,
    ORDERS,
    PUBLISHED,
    PUBLISHED_AFTER,
    PUBLISHED_BATCHES,
    STEPS,
    rate,
)
from research import figures

SEEDS_DRAWN = 10  # Maximum number of seeds with a curve of their own.


def length(numbers: dict[str, Any]):
    """Return the number of epochs of these trainings."""
    return numbers["rows"][0]["epochs"]


def answer(findings: research.runs.Findings) -> str:
    """Say whether the published numbers hold, and what the held-out seeds show."""
    numbers = findings.numbers
    fixed, reshuffled = numbers["rows"][::2], numbers["rows"][1::2]
    share = 100 * numbers["repetition_published"]
    ours = (
        not_compared(
            numbers,
            (
                "those of this code, after another number of epochs, up to "
                f"{percent(numbers['repetition'])}"
            ),
        )
        or "as those of this code do"
    )
    return (
        f"{compared(numbers, fixed)}. The published mini-batch losses repeat every "
        f"{STEPS} steps, which is one epoch (except for {share:.1g} % of their change "
        f"over fewer steps), {ours} in a fixed order. (From this we infer that a "
        "seeded shuffle restarted in each epoch.) With a new shuffle in each epoch, "
        "momentum at its published rate ends at "
        f"{reshuffled[1]['losses'][-1]:.2f}. With rates chosen on a validation set, "
        "other seeds give: "
        f"{', '.join(map(held_out, reshuffled))}. {verdict(numbers['best_two'])}."
    )


def compared(numbers: dict[str, Any], fixed: Sequence[dict[str, Any]]):
    """Say whether the published losses are reproduced in a fixed order.

    Only losses after the same number of epochs are compared.
    """
    at_end = length(numbers) == PUBLISHED_AFTER[-1]
    which = -1 if at_end else 1
    losses = ", ".join(
        f"{row['name']} {row['losses'][which]:.2f} ({row['published'][which]:.2f})"
        for row in fixed
    )
    start = (
        f"the test loss is {numbers['initial_loss']:.5f} at the start (published "
        "353.44676)"
    )
    if not at_end:
        return (
            f"The end cannot be compared: these trainings have {length(numbers)} "
            f"epochs, the published ones {PUBLISHED_AFTER[-1]}. With the examples in a "
            f"fixed order, {start}. After {PUBLISHED_AFTER[1]} epochs the means over "
            f"seeds are {losses}, published values in brackets"
        )
    met = all(
        EXPECTED[key][0] <= numbers[key] <= EXPECTED[key][1]
        for key in list(EXPECTED)[:4]
    )
    kept = abs(numbers["heavy_ball_reshuffled"]) <= EXPECTED["heavy_ball_off"][1]
    hold = "Yes" if kept and met else "Not all of them"
    return (
        f"{hold}. With the examples in a fixed order "
        f"they are {'reproduced' if met else 'not reproduced'}: {start}, and at the "
        f"end the means over seeds are {losses}, published values in brackets"
    )


def percent(share: float):
    """Format a share as a percentage with two significant digits: 0.044 %, 100 %."""
    return f"{float(f'{100 * share:.2g}'):g} %"


def held_out(row: dict[str, Any]):
    """Describe the reported loss with its interval and the chosen rate."""
    return (
        f"{row['name']} {row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}] (rate "
        f"{row['chosen']:.2g})"
    )


def verdict(best: dict[str, Any]):
    """Say which rule is better on the reported seeds, or that this is not decided.

    The order of the two rules on the tuning seeds has no effect.
    """
    first, second = best["names"]
    mean, low, high = best["difference"]
    apart = (
        f"differ, and {first if high < 0 else second} is better"
        if high < 0 or low > 0
        else "do not differ clearly"
    )
    return (
        f"The two best in tuning, {first} and {second}, {apart}: the mean difference "
        f"by seed is {mean:.3f} [{low:.3f}, {high:.3f}]"
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the tables: published and new losses, held-out seeds, and single seeds."""
    numbers = findings.numbers
    return losses_table(numbers), held_out_table(numbers), picked_table(numbers)


def losses_table(numbers: dict[str, Any]) -> research.runs.Table:
    """Return the table of published and new test losses at the published rates."""
    epochs = (*PUBLISHED_AFTER[:-1], "last")
    losses = [
        (
            row["name"],
            row["order"],
            row["rate"],
            epoch,
            theirs,
            ours,
            None if theirs is None else ours - theirs,
        )
        for row in numbers["rows"]
        for epoch, theirs, ours in zip(
            epochs, row["published"], row["losses"], strict=True
        )
    ]
    return research.runs.Table(
        "Test losses at the published rates",
        ("optimizer", "order", "rate", "epoch", "published", "ours", "difference"),
        tuple(map(research.runs.dashed, losses)),
        "Means over the tuning seeds. The published values are means over seeds 42 to "
        "51."
        + not_compared(
            numbers,
            " Final losses are not compared: these trainings have {} epochs, the "
            "published ones {}.",
        ),
    )


def held_out_table(numbers: dict[str, Any]) -> research.runs.Table:
    """Return the table of the reported losses at the chosen and published rates."""
    shown = ("order", "chosen", "mean", "low", "high", "rate", "there")
    return research.runs.Table(
        "Held out",
        (
            "optimizer",
            "order",
            "chosen rate",
            "test loss",
            "low",
            "high",
            "published rate",
            "test loss there",
        ),
        tuple((row["name"], *(row[key] for key in shown)) for row in numbers["rows"]),
        "Rates are chosen by the mean validation loss of the tuning seeds. Means "
        "are over the reported seeds, with 95 % bootstrap intervals for the chosen "
        "rate; the choice itself is not resampled.",
    )


def picked_table(numbers: dict[str, Any]) -> research.runs.Table:
    """Return the table of the rates that single seeds choose."""
    return research.runs.Table(
        "The rate that each seed chooses by its own last test loss",
        ("optimizer", "order", "rate", "seeds"),
        tuple(map(tuple, numbers["picked"])),
        f"Results for {numbers['seeds']} seeds; the published rates were chosen "
        "with one seed.",
    )


def not_compared(numbers: dict[str, Any], words: str):
    """Return `words` and two lengths, or "" if the lengths are equal.

    The lengths are the numbers of epochs of these trainings and of the published
    trainings.
    """
    epochs = length(numbers), PUBLISHED_AFTER[-1]
    return "" if epochs[0] == epochs[1] else words.format(*epochs)


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the repetition, the test losses by epoch, and the losses by rate."""
    return {
        "order": draw_order(result),
        "curves": draw_curves(result),
        "rates": draw_rates(result),
    }


def draw_order(result: research.runs.Result) -> research.figures.Picture:
    """Draw the last mini-batch losses, which repeat in a fixed order."""
    figure, axes = research.figures.new_figure(width=4.6, height=4.0)
    losses = {
        order: result.arrays[f"{order}/gradient_descent/batches"][0] for order in ORDERS
    }
    repeating_batches(axes[0, 0], PUBLISHED_BATCHES, losses, STEPS)
    axes[0, 0].set_title("SGD at its published rate")
    return research.figures.Picture(
        "The order repeats", order_caption(result.numbers), figure
    )


def draw_curves(result: research.runs.Result) -> research.figures.Picture:
    """Draw the test losses by epoch at the published rates, one panel for each rule."""
    numbers = result.numbers
    figure, axes = research.figures.new_figure(1, 3, width=11, height=4.0, sharey=True)
    after = [epochs for epochs in PUBLISHED_AFTER if epochs <= length(numbers)]
    for panel, (rule, published) in zip(axes[0], PUBLISHED.items(), strict=True):
        by_epoch = {
            order: result.arrays[f"{order}/{rule}/curves"][:SEEDS_DRAWN]
            for order in ORDERS
        }
        loss_by_epoch(
            panel, by_epoch, after, published.losses[: len(after)], numbers["least"]
        )
        panel.set_title(f"{published.name}, rate {rate(published.k):.2g}")
    axes[0, 0].set_ylabel("test loss above its minimum")
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return research.figures.Picture(
        "Test losses at the published rates", curves_caption(numbers), figure
    )


def draw_rates(result: research.runs.Result) -> research.figures.Picture:
    """Draw the final test losses by learning rate, one panel for each rule."""
    numbers, arrays = result.numbers, result.arrays
    figure, axes = research.figures.new_figure(1, 3, width=11, height=4.4, sharey=True)
    for panel, (rule, published) in zip(axes[0], PUBLISHED.items(), strict=True):
        swept = 0 if not_compared(numbers, "not") else len(published.sweep)
        sweep = np.array([rate(np.arange(swept)), published.sweep[:swept]])
        by_rate = {order: arrays[f"{order}/{rule}/test"] for order in ORDERS}
        loss_by_rate(panel, arrays["rates"], by_rate, sweep, float(rate(published.k)))
        panel.set_title(published.name)
    axes[0, 0].set_ylabel("test loss after the last epoch")
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return research.figures.Picture(
        "Which rate each seed chooses", rates_caption(numbers), figure
    )


def order_caption(numbers: dict[str, Any]):
    """Return the caption of the first figure."""
    names = ("repetition_published", "repetition", "repetition_reshuffled")
    published, fixed, reshuffled = (percent(numbers[name]) for name in names)
    return (
        f"Losses of the last {LAST} mini-batches. Over an epoch ({STEPS} steps), the "
        f"published losses change by {published} of their change over fewer steps. "
        f"The losses here change by {fixed} in a fixed order and by {reshuffled} if "
        "reshuffled. The order here is not the published one, so the losses "
        "themselves differ."
    )


def curves_caption(numbers: dict[str, Any]):
    """Return the caption of the second figure."""
    ends = ", ".join(
        f"{row['name']} {row['losses'][-1]:.2f} {row['order']}"
        for row in numbers["rows"]
    )
    missing = not_compared(numbers, " (up to the length of these trainings, {} epochs)")
    return (
        "Test loss after each epoch at the published rates, minus its smallest "
        f"possible value, {numbers['least']:.2f}. One line for each of "
        f"{min(SEEDS_DRAWN, numbers['seeds'])} seeds; black: the published "
        f"means after 1, 10 and 100 epochs{missing}."
        f" Mean loss at the end: {ends}. In a fixed order the noise repeats and the "
        "losses settle. With reshuffling the noise persists, most with momentum."
    )


def rates_caption(numbers: dict[str, Any]):
    """Return the caption of the third figure."""
    picked = [
        rate
        for name, order, rate, _ in numbers["picked"]
        if "mom" in name and order == "reshuffled"
    ]
    missing = not_compared(
        numbers, " (not shown: these trainings have {} epochs, the published ones {})"
    )
    return (
        "Final test loss against the learning rate, one line for each of "
        f"{numbers['seeds']} seeds. Black: published, seed "
        f"42{missing};"
        " dotted: the rate published as best. Discs show the rates that single seeds "
        "choose, larger for more seeds. With reshuffling, the choices for momentum "
        f"lie between {min(picked):.1g} and {max(picked):.1g}."
    )


_COLOURS = {
    "fixed": figures.COLOURS["first class"],
    "reshuffled": figures.COLOURS["second class"],
}
_PUBLISHED = figures.COLOURS["exact"]


def repeating_batches(
    axes: Axes, published: Sequence[float], ours: dict[str, np.ndarray], epoch: int
) -> None:
    """Draw the last mini-batch losses, one per step. Vertical lines end the epochs.

    Args:
      axes: Axes to draw on.
      published: The k published losses.
      ours: k losses for each order of the examples. The keys are "fixed" and
        "reshuffled".
      epoch: Number of steps in an epoch.
    """
    steps = np.arange(-len(published) + 1, 1)
    axes.plot(
        steps,
        published,
        "o-",
        color=_PUBLISHED,
        lw=1.2,
        markersize=4,
        label="published",
    )
    for order, losses in ours.items():
        axes.plot(
            steps,
            losses,
            "o-",
            color=_COLOURS[order],
            lw=1.2,
            markersize=4,
            label=f"ours, {order}",
        )
    for end in steps[-epoch - 1 :: -epoch]:
        axes.axvline(end + 0.5, color=figures.COLOURS["data"], lw=1, ls=":")
    axes.set_xticks(steps[:: -(epoch // 2)])
    axes.set(
        xlabel="step, counted from the last\n(dotted: ends of epochs)",
        ylabel="loss of the mini-batch",
    )
    axes.figure.legend(loc="outside lower center", ncols=2)


def loss_by_epoch(
    axes: Axes,
    curves: dict[str, np.ndarray],
    epochs: Sequence[int],
    published: Sequence[float],
    least: float,
) -> None:
    """Draw test losses minus their minimum by epoch, and the published losses.

    The axes are logarithmic. There is one line for each seed.

    Args:
      axes: Axes to draw on.
      curves: Losses by order, shape (seeds, epochs + 1), starting before the first
        step.
      epochs, published: Epochs after which the published losses were measured, and
        these losses.
      least: Minimum, which is subtracted from all losses.
    """
    for order, losses in reversed(curves.items()):
        axes.plot(
            np.arange(1, losses.shape[1]),
            losses[:, 1:].T - least,
            color=_COLOURS[order],
            lw=0.7,
            alpha=0.8,
        )
        axes.plot([], [], color=_COLOURS[order], label=f"ours, {order}")
    axes.plot(
        epochs,
        np.asarray(published) - least,
        "D",
        color=_PUBLISHED,
        markersize=5,
        label="published",
        zorder=5,
    )
    axes.set(xscale="log", yscale="log", xlabel="epoch")


def loss_by_rate(
    axes: Axes,
    rates: np.ndarray,
    losses: dict[str, np.ndarray],
    published: np.ndarray,
    chosen: float,
) -> None:
    """Draw final losses against the rate, with one line for each seed.

    Discs at the bottom mark the best rates of single seeds.

    Args:
      axes: Axes to draw on.
      rates: Learning rates, shape (r,), ascending.
      losses: Losses by order, shape (r, seeds). A line has a gap where a loss is not
        finite.
      published: Published rates and losses, shape (2, k).
      chosen: Published best rate.
    """
    for place, (order, values) in enumerate(reversed(losses.items())):
        axes.plot(
            rates,
            np.where(np.isfinite(values), values, np.nan),
            color=_COLOURS[order],
            lw=0.5,
            alpha=0.5,
        )
        axes.plot([], [], color=_COLOURS[order], label=f"ours, {order}")
        best = np.argmin(np.where(np.isfinite(values), values, np.inf), axis=0)
        picked, seeds = np.unique(best, return_counts=True)
        sizes = 200 * seeds / values.shape[1]
        axes.scatter(
            rates[picked],
            np.full(len(picked), 86.6 - 0.3 * place),
            sizes,
            _COLOURS[order],
            linewidths=0,
        )
    axes.plot(*published, ".", color=_PUBLISHED, label="published, one seed", zorder=5)
    axes.axvline(chosen, color=_PUBLISHED, lw=1, ls=":")
    axes.set(
        xscale="log",
        ylim=(86.1, 90.5),
        xlim=(rates[0] / 1.2, rates[-1] * 1.2),
        xlabel="learning rate",
    )
