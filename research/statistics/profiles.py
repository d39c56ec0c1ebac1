"""Performance profiles: the share of workloads on which a rule is near the best."""

import numpy as np
from jaxtyping import Float

from research.checks import check_numbers


def performance_profile(
    costs: Float[np.ndarray, "workloads rules"],
    factors: Float[np.ndarray, " factors"],
) -> Float[np.ndarray, "rules factors"]:
    """Return the share of workloads on which each rule is within a factor of the best.

    A workload is a named optimisation problem. The cost of an update rule on a workload
    is what the rule needs to reach a target, for example a number of passes. The share
    of a rule at a factor is the share of workloads on which the rule's cost is at most
    the factor times the lowest cost of all rules.

    At factor 1, the share of a rule is the share of workloads on which the rule has the
    lowest cost, alone or together with other rules. As the factor grows, the share of
    the rule rises to the share of workloads on which the rule reaches the target. A
    workload on which no rule reaches the target counts as failed for all rules.

    Args:
      costs: Positive cost of each rule on each workload, shape (workloads, rules). A
        lower cost is better. inf if a rule did not reach the target.
      factors: Factors, at least 1, shape (f,).
    Returns:
      Share of each rule at each factor, shape (rules, f).
    Raises:
      ValueError, TypeError: The shapes do not fit, `costs` is empty, a cost is neither
        a positive number nor inf, or a factor is below 1.
    References:
      Dolan & More, Benchmarking optimization software with performance profiles,
      Mathematical Programming 91, 2002.
    Example:
      >>> costs = np.array([[1.0, 2.0], [9.0, 3.0], [5.0, np.inf]])
      >>> print(performance_profile(costs, np.array([1.0, 2.0, 4.0])))
      [[0.66666667 0.66666667 1.        ]
       [0.33333333 0.66666667 0.66666667]]
    """
    check_numbers("costs", costs)
    check_numbers("factors", factors)
    costs, factors = np.asarray(costs, float), np.asarray(factors, float)
    if costs.ndim != 2 or not costs.size or factors.ndim != 1:
        raise ValueError(
            "costs must be of shape (workloads, rules) and factors of shape (f,); "
            f"got {costs.shape} and {factors.shape}."
        )
    if not (costs > 0).all():
        raise ValueError(
            "every cost must be a positive number of passes, or inf if the target was "
            "not reached; at least one is neither."
        )
    if not (factors >= 1).all():
        raise ValueError(
            "factors must be at least 1, because no rule is cheaper than the "
            f"cheapest; got {factors.min()}."
        )
    best = costs.min(axis=1, keepdims=True)
    ratios = np.where(
        np.isfinite(costs), costs / np.where(np.isfinite(best), best, 1.0), np.inf
    )
    reached = np.isfinite(ratios)[..., None]
    return (reached & (ratios[..., None] <= factors)).mean(axis=0)
