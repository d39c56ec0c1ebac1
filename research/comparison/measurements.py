"""Measurements: results of the trials of one rule on one workload."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from research.comparison.protocol import Protocol
from research.statistics.bootstrap import choice_weights
from research.statistics.differences import best_of
from research.statistics.scores import Scores
from research.types import Saved

AS_GOOD = 1.1  # A rate counts as good if its score is within 10 % of the best.
HALF = 0.5  # A rule reaches the target if this share of its reported runs reach it.

Arrays = Mapping[str, Float[np.ndarray, "..."]]


def measurement(
    arrays: Arrays,
    nearby: Arrays,
    known: Mapping[str, Any],
    protocol: Protocol,
    batch_size: int,
) -> Saved:
    """Summarise the trials of a rule on a workload.

    Args:
      arrays: Arrays of all trials (`trials`, `tuning`, `costs`, `final`, `passes`), and
        `curves` of the chosen trial, whose last column is the final gap.
      nearby: Array `rates`, rates around the chosen one, and their `rate_scores`; {} if
        the rule has no learning rate.
      known: Facts that are known already, such as `trials`, `evaluations`, `n` and
        `seconds_per_pass`.
      protocol: Protocol of the comparison.
      batch_size: Examples in a batch.
    Returns:
      All arrays, with `best_of` added; and all facts as values for JSON, with
      robustness and costs added. Costs are None if the target was not reached.
    """
    scores = Scores(arrays["tuning"], arrays["costs"], float(arrays["passes"][-1]))
    arrays = {**arrays, "best_of": best_of(scores, level=protocol.level), **nearby}
    facts = {
        **known,
        **_robustness(arrays),
        **_costs(arrays, known, protocol.budget, batch_size),
    }
    cost, per_pass = facts["cost"], facts["seconds_per_pass"]
    seconds = None if cost is None or per_pass is None else per_pass * cost
    return Saved(arrays, facts | {"seconds": seconds})


def robust_rates(
    rates: Float[np.ndarray, " rates"], scores: Float[np.ndarray, "rates seeds"]
) -> tuple[float, float]:
    """Return the range of rates around the best whose score is within 10 % of the best.

    The ends of the range are interpolated in log rate.

    Args:
      rates: Rates, ascending, shape (r,).
      scores: Score of each rate on each seed, lower is better, shape (r, m). Their
        means over seeds are used.
    Returns:
      The pair (low, high). If the first or last rate is itself within 10 %, the range
      ends there.
    Example:
      >>> rates = np.array([0.01, 0.1, 1.0, 10.0])
      >>> low, high = robust_rates(rates, np.array([[3.0], [2.0], [2.0], [3.0]]))
      >>> round(low, 4), round(high, 4)
      (0.0631, 1.5849)
    """
    logs, means = np.log10(rates), scores.mean(axis=1)
    best, limit = int(np.argmin(means)), AS_GOOD * means.min()

    def edge(step: int) -> float:
        at = best
        while 0 <= at + step < len(means) and means[at + step] <= limit:
            at += step
        beyond = at + step
        if not 0 <= beyond < len(means):
            return rates[at]
        return 10 ** (
            logs[at]
            + (logs[beyond] - logs[at])
            * (limit - means[at])
            / (means[beyond] - means[at])
        )

    return float(edge(-1)), float(edge(1))


def _robustness(arrays: Arrays) -> dict[str, Any]:
    """Return the range of good rates (`robust_rates`) and its width in decades.

    All values are None if no rate reaches the target within the budget of passes.
    """
    nothing: dict[str, Any] = dict.fromkeys(
        ("robustness", "robust_low", "robust_high", "robust_at_end")
    )
    if (
        "rates" not in arrays
        or arrays["rate_scores"].mean(axis=1).min() > arrays["passes"][-1]
    ):
        return nothing
    low, high = robust_rates(arrays["rates"], arrays["rate_scores"])
    at_end = low == arrays["rates"][0] or high == arrays["rates"][-1]
    return {
        "robustness": math.log10(high / low),
        "robust_low": low,
        "robust_high": high,
        "robust_at_end": at_end,
    }


def _costs(
    arrays: Arrays,
    known: Mapping[str, Any],
    budget: int,
    batch_size: int,
) -> dict[str, Any]:
    """Return the cost to reach the target, and the final gap of the chosen trial."""
    cost, low, high = arrays["best_of"][min(budget, known["trials"]) - 1]
    reached = np.isfinite(arrays["costs"]).mean(axis=1)
    ends = arrays["curves"][..., -1]
    final = np.quantile(ends, [0.5, 0.1, 0.9], method="inverted_cdf")
    per_step = batch_size * known["evaluations"]
    return {
        "cost": _or_none(cost),
        "cost_low": _or_none(low),
        "cost_high": _or_none(high),
        "reached": float(
            choice_weights(arrays["tuning"].mean(axis=1), budget) @ reached
        ),
        "example_gradients": _or_none(cost * known["n"]),
        "steps": _or_none(cost * known["n"] / per_step),
        "final": float(final[0]),
        "final_low": float(final[1]),
        "final_high": float(final[2]),
    }


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
