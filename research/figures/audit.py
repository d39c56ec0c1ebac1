"""A published comparison rerun: what repeats in it, how its losses fall, and which rate each seed picks."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from research import figures

_COLOURS = {
    "fixed": figures.COLOURS["first class"],
    "reshuffled": figures.COLOURS["second class"],
}
_PUBLISHED = figures.COLOURS["exact"]


def repeating_batches(
    axes: Axes, published: Sequence[float], ours: dict[str, np.ndarray], epoch: int
) -> None:
    """Draws the last mini-batch losses, one a step, with a line where an epoch ends.

    Args:
      axes: To draw on.
      published: The losses that were published, k of them.
      ours: By order of the examples ("fixed", "reshuffled"): k losses.
      epoch: Steps in an epoch.
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
        xlabel="step, counted from the last (dotted: an epoch ends)",
        ylabel="loss of the mini-batch",
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


def loss_by_epoch(
    axes: Axes,
    curves: dict[str, np.ndarray],
    epochs: Sequence[int],
    published: Sequence[float],
    least: float,
) -> None:
    """Draws test losses by epoch above their least, log-log, a line a seed, and what was published after some epochs.

    Args:
      axes: To draw on.
      curves: By order: shape (seeds, epochs + 1), from before the first step on.
      epochs, published: Losses that were published, after these epochs.
      least: Taken off all of them.
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
    """Draws last losses against the rate, a line a seed; discs at the bottom are the rates that single seeds pick.

    Args:
      axes: To draw on.
      rates: Learning rates, shape (r,), ascending.
      losses: By order: shape (r, seeds); those not finite leave a gap.
      published: Rates and losses that were published, shape (2, k).
      chosen: The rate that was published as the best.
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
