"""Scores of a rule's trials on one workload, and the choice of a trial."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from research.checks import check_numbers, check_real, shown


class Scores(NamedTuple):
    """Scores of all trials of one rule on one workload.

    A workload is a named optimisation problem. A trial is a choice of hyper-parameters.
    Trial 0 is the rule's defaults. A trial is chosen on the tuning seeds, and its cost
    is reported on the reporting seeds. There are t trials, m tuning seeds and n
    reporting seeds.

    Attributes:
      tuning: Scores by which a trial is chosen, finite, shape (t, m). A lower score is
        better.
      costs: Passes over the data until the target was reached, for each trial and each
        reporting seed, shape (t, n). The cost is inf for a run that did not reach the
        target.
      budget: Number of passes after which a run was stopped. A larger cost counts as a
        run that did not reach the target.
    """

    tuning: Float[np.ndarray, "trials tuning_seeds"]
    costs: Float[np.ndarray, "trials seeds"]
    budget: float


def choose(tuning: Float[np.ndarray, "trials tuning_seeds"]) -> int:
    """Return the trial with the lowest mean score over the tuning seeds.

    A trial is a choice of hyper-parameters. Each trial was run on the same tuning
    seeds.

    Args:
      tuning: Scores of t trials on m seeds, lower is better, shape (t, m).
    Returns:
      Index of the trial's row in `tuning`, counted from 0. If several trials have the
      lowest mean, the result is the first of these trials.
    Raises:
      ValueError, TypeError: There is no trial or no seed, or a score is not a finite
        number.
    Example:
      >>> choose(np.array([[3.0, 1.0], [1.0, 2.0], [2.0, 1.0]]))
      1
    """
    check_numbers("tuning", tuning)
    tuning = np.asarray(tuning, float)
    if tuning.ndim != 2 or not tuning.size:
        raise ValueError(
            "tuning must be of shape (trials, seeds), at least one of each; got "
            f"{tuning.shape}."
        )
    if not np.isfinite(tuning).all():
        raise ValueError(
            "tuning contains a score that is not finite. Use `penalised_passes`, "
            "which gives every run a finite score."
        )
    return int(np.argmin(tuning.mean(axis=1)))


def checked(scores: Scores, name: str = "scores") -> Scores:
    """Check scores, and return them with arrays of floats.

    Args:
      scores: Scores from a user or a file.
      name: Name of the argument, for error messages.
    Returns:
      The same scores, as arrays of floats.
    Raises:
      TypeError: `scores` does not have the fields of `Scores`, or a field contains
        something other than numbers.
      ValueError: There are fewer than two tuning or reporting seeds, `tuning` and
        `costs` have different numbers of trials, a score is not finite, a cost is
        negative or NaN, or the budget is not positive and finite.
    Example:
      >>> checked(Scores(np.ones((1, 3)), np.ones((1, 2)), 4)).budget
      4.0
    """
    if not all(hasattr(scores, field) for field in Scores._fields):
        raise TypeError(
            f"{name} must be research.statistics.Scores(tuning, costs, budget); got "
            f"{name}={shown(scores)}."
        )
    check_numbers(f"{name}.tuning", scores.tuning)
    check_numbers(f"{name}.costs", scores.costs)
    check_real(f"{name}.budget", scores.budget)
    tuning, costs, budget = (
        np.asarray(scores.tuning, float),
        np.asarray(scores.costs, float),
        float(scores.budget),
    )
    choose(tuning)
    if costs.ndim != 2 or len(costs) != len(tuning):
        raise ValueError(
            f"costs must have a row for each of the {len(tuning)} trials and a column "
            f"for each seed; got {costs.shape}."
        )
    for name, array, usual in (("tuning", tuning, 3), ("reported", costs, 20)):
        if array.shape[1] < 2:
            raise ValueError(
                f"an interval needs at least two {name} seeds ({usual} or more are "
                f"recommended); got {array.shape[1]}."
            )
    if np.isnan(costs).any() or (costs < 0).any():
        raise ValueError(
            "every cost must be a number of passes, at least 0, or inf if the target "
            "was not reached; at least one is neither."
        )
    if not 0 < budget < np.inf:
        raise ValueError(
            f"budget must be a positive number of passes; got {scores.budget}."
        )
    return Scores(tuning, costs, budget)
