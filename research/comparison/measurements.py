"""Measurements: results of the searches of one rule on one workload."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from research.checks import check_mapping
from research.comparison.protocol import Protocol
from research.statistics.costs import HALF, MOST_BUDGETS, full_length, log_costs
from research.statistics.searches import best_of_trials, searched_cost
from research.types import Saved

AS_GOOD = 1.1  # A rate counts as good if its score is within 10 % of the best.

Arrays = Mapping[str, Float[np.ndarray, "..."]]


def measurement(
    arrays: Arrays,
    nearby: Arrays,
    known: Mapping[str, Any],
    protocol: Protocol,
    batch_size: int,
) -> Saved:
    """Summarise the searches of a rule on a workload.

    Args:
      arrays: Arrays of all searches: those that `measure_contender` returns, without
        `best_of`, `rates` and `rate_scores`.
      nearby: Dict of two arrays: `rates` (learning rates around the chosen one) and
        `rate_scores` (their log costs). {} if the rule has no learning rate.
      known: Values that are already known, by name. They must include `n` (number of
        examples), `evaluations` (cost of a step, as in `Contender`) and
        `seconds_per_pass`, which may be None.
      protocol: Protocol of the comparison.
      batch_size: Examples in a batch.
    Returns:
      A `Saved`. Its arrays are those of `arrays` and `nearby`, and `best_of`, which has
      the expected cost of the best of k trials for each number k. A trial is a choice
      of hyper-parameters. The values of the `Saved` are the known values, the range of
      rates whose cost is near the lowest (`robust_rates`), and results such as the
      costs in passes over the data and in seconds. JSON can store all these values. If
      less than half of the runs with the chosen trials reach the target, a cost is
      None. The seconds are also None if `seconds_per_pass` is None.
    """
    best_of = best_of_trials(arrays["screening"], level=protocol.level)
    arrays = {**arrays, "best_of": best_of, **nearby}
    budget = budget_of(arrays, known["evaluations"], protocol)
    facts = {
        **known,
        **_robustness(arrays, budget),
        **_costs(arrays, known, budget, protocol.level, batch_size),
    }
    cost, per_pass = facts["cost"], facts["seconds_per_pass"]
    seconds = None if cost is None or per_pass is None else per_pass * cost
    return Saved(arrays, facts | {"seconds": seconds})


def budget_of(arrays: Arrays, evaluations: float, protocol: Protocol) -> float:
    """Return the length of a full training on a workload, the same for all rules.

    `arrays` has the arrays of a measurement by name; only `passes` is used.
    `evaluations` is the cost of a step, as in `Contender`. The length is in passes over
    the data (`full_length`).
    """
    return full_length(float(arrays["passes"][-1]), protocol.passes, evaluations)


def logs_of(
    arrays: Arrays, budget: float | None = None
) -> Float[np.ndarray, "searches seeds"]:
    """Return the log costs of the trial that each search chose, on the reporting seeds.

    A trial is a choice of hyper-parameters. The reporting seeds are the seeds that no
    search uses. The cost of a run is the number of passes over the data until the
    target is reached.

    Args:
      arrays: Dict from names to the arrays of a measurement. Two of them are used.
        `costs` has the costs of the runs, inf for a run that missed the target, shape
        (J, n) for J searches and n reporting seeds. `passes` has the number of passes
        at each evaluation of the objective in a run. The last entry of `passes` is the
        length of a run.
      budget: Number of passes. A run that missed the target costs ten times this
        number. None means the length of a run. If `Protocol.passes` is not a multiple
        of the cost of a step (`Contender.evaluations`), this length differs between
        rules. To compare such rules, give the same budget for all, as `conclude` does.
    Returns:
      Log costs, shape (J, n).
    Example:
      >>> arrays = {"costs": np.array([[2.0, np.inf]]), "passes": np.arange(4.0)}
      >>> print(np.exp(logs_of(arrays)))
      [[ 2. 30.]]
    """
    check_mapping("arrays", arrays, "names to arrays")
    length = float(arrays["passes"][-1])
    return log_costs(arrays["costs"], length if budget is None else budget)


def robust_rates(
    rates: Float[np.ndarray, " rates"], scores: Float[np.ndarray, "rates seeds"]
) -> tuple[float, float]:
    """Return the range of learning rates whose mean cost is within 10 % of the lowest.

    The range contains the best rate. The mean cost of a rate is exp of its mean log
    cost. The ends of the range are interpolated between two rates, as if the mean log
    cost were linear in the log rate.

    Args:
      rates: Rates, ascending, shape (r,).
      scores: Log cost of each of r rates on each of m seeds, shape (r, m).
    Returns:
      The pair (low, high). low is the first rate if the costs of all rates below the
      best rate are within 10 % of the lowest cost. high is the last rate if the same
      holds for all rates above the best rate.
    Example:
      >>> rates = np.array([0.01, 0.1, 1.0, 10.0])
      >>> costs = np.array([[3.0], [2.0], [2.0], [3.0]])
      >>> low, high = robust_rates(rates, np.log(costs))
      >>> round(low, 4), round(high, 4)
      (0.0582, 1.7182)
    """
    logs, means = np.log10(rates), scores.mean(axis=1)
    best, limit = int(np.argmin(means)), math.log(AS_GOOD) + means.min()

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


def _robustness(arrays: Arrays, budget: float) -> dict[str, Any]:
    """Return the range of good rates (`robust_rates`) and its width in decades.

    All values are None if the mean cost of every rate is above the budget of passes, or
    if the rule has no learning rate.
    """
    nothing: dict[str, Any] = dict.fromkeys(
        ("robustness", "robust_low", "robust_high", "robust_at_end")
    )
    if "rates" not in arrays or arrays["rate_scores"].mean(axis=1).min() > np.log(
        budget
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
    budget: float,
    level: float,
    batch_size: int,
) -> dict[str, Any]:
    """Return the cost to reach the target, and the final gap, of the chosen trials.

    If less than half of the runs reach the target, the cost is None. A number would
    mostly depend on the convention that a missed target counts as ten full trainings.
    """
    costs = searched_cost(logs_of(arrays, budget), level=level)
    reached = float(np.isfinite(arrays["costs"]).mean())
    there = reached >= HALF
    most = MOST_BUDGETS * budget
    final = np.quantile(arrays["final"], [0.5, 0.1, 0.9], method="inverted_cdf")
    per_step = batch_size * known["evaluations"]
    gradients = costs.cost * known["n"]
    return {
        "cost": costs.cost if there else None,
        "cost_low": costs.low if there else None,
        "cost_high": min(costs.high, most) if there else None,
        "search_spread": costs.spread,
        "searches_disagree": costs.disagree,
        "reached": reached,
        "example_gradients": gradients if there else None,
        "steps": gradients / per_step if there else None,
        "final": float(final[0]),
        "final_low": float(final[1]),
        "final_high": float(final[2]),
    }
