"""Costs of runs and rules: passes over the data until a target is reached."""

import math

import numpy as np
from jaxtyping import Float

from research.checks import check_number, check_numbers, check_real

# Relative gaps below this are rounding: at most twelve digits count.
SMALLEST_GAP = 1e-12
# A run that missed the target costs at most this many budgets. A run that diverged
# costs exactly this many (the 10 of PAR10).
MOST_BUDGETS = 10.0
# A rule reaches the target if this share of its reported runs reach it.
HALF = 0.5
# Least cost on a log scale, in budgets.
SMALLEST_COST = 1e-6
# Weight of the progress of a run that missed the target, in `search_scores`.
TIE_BREAK = 1e-3
# A quotient that is closer to an integer than this, relative to it, is the integer.
ROUNDING = 1e-12


def epochs_within(passes: float, evaluations: float) -> int:
    """Return the number of whole epochs of a training of at most `passes` passes.

    Args:
      passes: Largest length of the training in passes over the data.
      evaluations: Cost of an epoch in passes. It is the number of gradients of the
        batch that a step of the rule costs.
    Returns:
      The largest integer k with k · `evaluations` <= `passes`, up to rounding errors.
    Raises:
      ValueError, TypeError: An argument is not a positive number.
    Example:
      >>> epochs_within(31, 2.0), epochs_within(11, 1.1)
      (15, 10)
    """
    check_number("passes", passes, positive=True)
    check_number("evaluations", evaluations, positive=True)
    return math.floor(passes / evaluations * (1 + ROUNDING))


def full_length(length: float, passes: float, evaluations: float) -> float:
    """Return the length of a full training, which is the same for all rules.

    A rule trains for whole epochs, so its trainings may be shorter than those of a rule
    with cheaper steps. A missed target must cost both rules the same. The cost of a
    missed target is therefore a multiple of the full length, not of the length of the
    rule's trainings.

    Args:
      length: Length of the rule's trainings in passes over the data.
      passes: Largest length of the trainings of all rules. Here an epoch counts all
        examples, also those that it leaves out.
      evaluations: Cost of an epoch of the rule, as in `epochs_within`.
    Returns:
      The length that the trainings would have if the number of epochs did not have to
      be an integer. It is at least `length`.
    Raises:
      ValueError, TypeError: An argument is not a positive number.
    Example:
      >>> full_length(7.0, 13, 7.0), full_length(13.0, 13, 1.0)
      (13.0, 13.0)
    """
    check_number("length", length, positive=True)
    epochs = max(1, epochs_within(passes, evaluations))
    return length * max(1.0, passes / (evaluations * epochs))


def passes_to_target(
    passes: Float[np.ndarray, " evaluations"],
    relative: Float[np.ndarray, "*runs evaluations"],
    target: float,
) -> Float[np.ndarray, "*runs"]:
    """Return the passes over the data at which each run first reaches the target.

    The relative gap of a run is r = (f - f*) / (f_0 - f*), where f is the objective,
    f_0 its initial value and f* its minimum. The target is a value of r. The objective
    is evaluated only at some points of a run, so the passes p to the target are
    interpolated linearly in log r:

    p = p_a + (p_b - p_a) log(r_a / target) / log(r_a / r_b).

    Here r_b is the first relative gap at or below the target, measured after p_b
    passes. r_a is the relative gap at the previous evaluation, after p_a passes.

    Args:
      passes: Passes at each evaluation, shape (k,), ascending from 0.
      relative: Relative gaps, shape (..., k). Column 0 belongs to the initial point and
        is 1.
      target: Target as a share of the initial gap, such as 1e-2.
    Returns:
      Passes, shape (...). The result is inf for a run that did not reach the target, or
      whose gap was NaN or infinite before the target was reached. If the target is 1 or
      more, each run reaches it at the initial point, after `passes[0]` passes. Relative
      gaps below 1e-12 are rounding errors. The interpolation therefore replaces gaps
      below m by m, where m is the smaller of 1e-12 and the target.
    Raises:
      ValueError, TypeError: The shapes do not fit, `passes` does not ascend or is not
        finite, or `target` is not a positive number.
    Example:
      >>> relative = np.array([[1.0, 0.1, 0.001], [1.0, 0.9, 0.8]])
      >>> print(passes_to_target(np.array([0.0, 1.0, 2.0]), relative, 0.01))
      [1.5 inf]
    """
    passes, relative = _checked(passes, relative, target)
    alive = np.logical_and.accumulate(np.isfinite(relative), axis=-1)
    crossed = alive & (relative <= target)
    last = np.argmax(crossed, axis=-1)[..., None]
    before = np.maximum(last - 1, 0)
    logs = np.log(
        np.maximum(np.where(alive, relative, 1.0), min(SMALLEST_GAP, target))
    ) - np.log(target)
    high, low = (np.take_along_axis(logs, i, axis=-1)[..., 0] for i in (before, last))
    start, stop = passes[before[..., 0]], passes[last[..., 0]]
    share = np.divide(high, high - low, out=np.ones_like(high), where=high > low)
    return np.where(crossed.any(axis=-1), start + (stop - start) * share, np.inf)


def penalised_passes(
    passes: Float[np.ndarray, " evaluations"],
    relative: Float[np.ndarray, "*runs evaluations"],
    target: float,
    budget: float | None = None,
) -> Float[np.ndarray, "*runs"]:
    """Return the passes to the target, or a finite penalty for a run that missed it.

    All values are finite, so all runs can be ranked. A pass is one pass over the data.
    The gap f - f* is the objective f minus its minimum f*. The relative gap is the gap
    divided by its initial value.

    If a run reached the target, the result is that of `passes_to_target`. If a run
    missed the target, the passes are extrapolated, as if the gap fell by the same
    factor in each pass. The result is then L log(target) / log(r_last), but at most
    10 B. Here L = `passes[-1]` is the length of the run, r_last is its last relative
    gap, and B is the budget in passes. If r_last is not below 1, or if a gap of the run
    is not finite, the result is 10 B.

    Counting a failed run as 10 B is the convention of PAR10, a score from the field of
    algorithm selection. The extrapolation is not part of PAR10.

    Args:
      passes: Passes at each evaluation, shape (k,), ascending from 0.
      relative: Relative gaps, shape (..., k). Column 0 belongs to the initial point and
        is 1.
      target: Target as a share of the initial gap, below 1.
      budget: Budget B in passes, at least `passes[-1]`. A run costs at most 10 B. None
        means `passes[-1]`. To compare rules whose runs differ in length, use the same
        budget for all rules.
    Returns:
      Passes, shape (...), finite.
    Raises:
      ValueError, TypeError: `passes_to_target` rejects the arguments, `target` is not
        below 1, or the budget is less than `passes[-1]`.
    References:
      Bischl et al., ASlib: a benchmark library for algorithm selection, Artificial
      Intelligence 237, 2016: PAR10.
    Example:
      >>> gaps = np.array([[1.0, 0.5, 0.1], [1.0, 2.0, np.inf], [1.0, 0.1, 0.01]])
      >>> print(penalised_passes(np.array([0.0, 1.0, 2.0]), gaps, 0.01))
      [ 4. 20.  2.]
    """
    check_real("target", target)
    if not 0 < target < 1:
        raise ValueError(
            "target must be a share of the initial gap, between 0 and 1, such as 1e-2; "
            f"got {target}."
        )
    reached = passes_to_target(passes, relative, target)
    passes, relative = _checked(passes, relative, target)
    length = float(passes[-1])
    most = MOST_BUDGETS * _checked_budget(budget, length)
    last = relative[..., -1]
    moved = np.isfinite(relative).all(axis=-1) & (last < 1)
    # A run may reach the target and leave it again; then `reached` is used, not this.
    guess = np.log(target) / np.log(
        np.where(moved, np.maximum(last, SMALLEST_GAP), 0.5)
    )
    guess = np.where(moved, np.minimum(length * guess, most), most)
    return np.where(np.isfinite(reached), reached, guess)


def log_costs(
    costs: Float[np.ndarray, "*runs"], budget: float
) -> Float[np.ndarray, "*runs"]:
    """Return the log of each cost, where a missed target costs ten times the budget.

    Args:
      costs: For each run, the number of passes over the data until the run reached its
        target, or inf if the run missed the target, shape (...). A cost above the
        budget counts as a missed target. A cost below 1e-6 budgets counts as 1e-6
        budgets, because the log of the cost 0 is not finite. (A run that starts at the
        target has the cost 0.)
      budget: Number of passes after which a run was stopped.
    Returns:
      Log costs, shape (...), finite.
    Raises:
      ValueError, TypeError: A cost is negative or NaN, or the budget is not a positive
        number.
    References:
      Bischl et al., ASlib: a benchmark library for algorithm selection, Artificial
      Intelligence 237, 2016: PAR10, which counts a failed run as ten budgets.
    Example:
      >>> print(np.exp(log_costs(np.array([4.0, np.inf]), 30.0)))
      [  4. 300.]
    """
    check_numbers("costs", costs)
    check_real("budget", budget)
    costs = np.asarray(costs, float)
    if np.isnan(costs).any() or (costs < 0).any():
        raise ValueError(
            "every cost must be a number of passes, at least 0, or inf if the target "
            "was not reached; at least one is negative or NaN."
        )
    if not 0 < budget < np.inf:
        raise ValueError(f"budget must be a positive number; got budget={budget!r}.")
    reached = costs <= budget
    least = SMALLEST_COST * budget
    return np.log(np.where(reached, np.maximum(costs, least), MOST_BUDGETS * budget))


def search_scores(
    passes: Float[np.ndarray, " evaluations"],
    relative: Float[np.ndarray, "*runs evaluations"],
    target: float,
    budget: float | None = None,
) -> Float[np.ndarray, "*runs"]:
    """Return the score of each run for a search of hyper-parameters (lower is better).

    The cost of a run is the number of passes over the data until the run reaches the
    target. If a run reached the target, its score is the log of its cost (`log_costs`).
    If a run missed the target, its score is

    log(10 B) - 0.001 log(10 L / P).

    Here B is the budget, and L = `passes[-1]` is the length of the run. P is the result
    of `penalised_passes` for this run with budget=L. P lies between L and 10 L, and is
    smaller if the run came closer to the target. The first term is the log cost of a
    run that missed the target. The second term, 0.001 log(10 L / P), is between 0 and
    0.0023. So among the runs that missed the target, the score is lower for the runs
    that came closer to the target.

    Args:
      passes: Passes at each evaluation, shape (k,), ascending from 0.
      relative: Relative gaps, shape (..., k), as for `penalised_passes`.
      target: Target as a share of the initial gap, below 1.
      budget: Budget B in passes, at least `passes[-1]`. A missed target costs about
        10 B. None means `passes[-1]`. Scores of rules whose runs differ in length are
        comparable only with the same budget.
    Returns:
      Scores, shape (...), finite.
    Raises:
      ValueError, TypeError: As for `penalised_passes`, or the budget is less than
        `passes[-1]`.
    Example:
      >>> gaps = np.array([[1.0, 0.5, 0.01], [1.0, 0.5, 0.2], [1.0, 0.9, 0.8]])
      >>> scores = search_scores(np.array([0.0, 1.0, 2.0]), gaps, 0.01)
      >>> print(scores.round(4))
      [0.6931 2.9945 2.9957]
    """
    guesses = np.log(penalised_passes(passes, relative, target))
    length = float(np.asarray(passes, float)[-1])
    budget = _checked_budget(budget, length)
    costs = passes_to_target(passes, relative, target)
    behind = guesses - np.log(MOST_BUDGETS * length)
    missed = np.log(MOST_BUDGETS * budget) + TIE_BREAK * behind
    return np.where(np.isfinite(costs), log_costs(costs, budget), missed)


def expected_running_time(
    costs: Float[np.ndarray, "*rules runs"], budget: float
) -> Float[np.ndarray, "*rules"]:
    """Return the mean number of passes to the target, if failed runs are restarted.

    Suppose that runs are started one after another, each with at most `budget` passes
    over the data, until one run reaches the target. The expected running time (ERT) is
    the expected total number of passes of these runs. To compute the ERT, the number of
    passes of all runs in `costs` is divided by the number of runs that reach the
    target. A run that misses the target counts with `budget` passes. Let p > 0 be the
    share of the runs that reach the target, and c the mean cost of these runs. Then the
    ERT is c + budget (1 - p) / p.

    Args:
      costs: Passes over the data to the target for n runs, inf for a run that missed
        the target, shape (..., n). If a cost is NaN or above the budget, the run counts
        as a run that missed the target.
      budget: Number of passes after which a run was stopped.
    Returns:
      Expected running time in passes, shape (...). inf if no run reached the target.
    Raises:
      ValueError, TypeError: There is no run, a cost is negative, or the budget is not a
        positive number.
    References:
      Auger & Hansen, Performance evaluation of an advanced local search evolutionary
      algorithm, CEC 2005: success performance (SP) and ERT. Hansen, Auger, Ros,
      Mersmann, Tusar & Brockhoff, COCO, Optimization Methods and Software 36, 2021.
    Example:
      >>> costs = np.array([[4.0, 6.0], [4.0, np.inf], [np.inf, np.inf]])
      >>> print(expected_running_time(costs, 10.0))
      [ 5. 14. inf]
    """
    if (np.asarray(costs, float) < 0).any():
        raise ValueError(
            "every cost must be a number of passes, at least 0, or inf if the target "
            "was not reached; at least one of them is negative."
        )
    spent, reached = spent_and_reached(costs, budget)
    if spent.shape[-1:] in ((), (0,)):
        raise ValueError(
            "costs must hold at least one run along its last axis; got none."
        )
    return ratio(spent.sum(axis=-1), reached.sum(axis=-1))


def spent_and_reached(
    costs: Float[np.ndarray, "*runs"], budget: float
) -> tuple[Float[np.ndarray, "*runs"], Float[np.ndarray, "*runs"]]:
    """Return the passes that each run spent, and whether it reached the target.

    A pass goes once over the data. `costs` has the number of passes after which each
    run reached the target. If a cost is NaN or above the budget, the run missed the
    target and spent the whole budget. The second array is 1.0 for a run that reached
    the target, else 0.0. The expected running time is the sum of the first array
    divided by the sum of the second.
    """
    check_numbers("costs", costs)
    check_real("budget", budget)
    costs = np.asarray(costs, float)
    if not 0 < budget < np.inf:
        raise ValueError(f"budget must be a positive number of passes; got {budget}.")
    return np.minimum(np.where(np.isnan(costs), np.inf, costs), budget), (
        costs <= budget
    ).astype(float)


def ratio(
    spent: Float[np.ndarray, "*shape"], reached: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Return spent / reached, or inf where `reached` is 0.

    `spent` is the number of passes that some runs took, and `reached` is the number of
    these runs that reached the target. Both may also be averages over the same runs.
    """
    spent, reached = np.asarray(spent, float), np.asarray(reached, float)
    return np.divide(
        spent,
        reached,
        out=np.full(np.broadcast(spent, reached).shape, np.inf),
        where=reached > 0,
    )


def digits_gained(
    passes: Float[np.ndarray, " evaluations"],
    gaps: Float[np.ndarray, "*runs evaluations"],
) -> Float[np.ndarray, "*runs"]:
    """Return the mean of log10((f - f*) / (f_0 - f*)) over the passes of each run.

    Here f_0 is the initial value of the objective f, and f* is its minimum. A pass is
    one pass over the data. The result is minus the number of decimal digits that a run
    gained, averaged over the passes. A low result is good: the gap f - f* falls early
    and ends low. Unlike `passes_to_target`, this function needs no target. A gap below
    1e-12 times the initial gap counts as 1e-12 times the initial gap.

    Args:
      passes: Passes at each evaluation, shape (k,), ascending.
      gaps: Gaps f - f*, shape (..., k); column 0 is the initial gap.
    Returns:
      The mean by the trapezoidal rule, shape (...). The result is inf if a gap is NaN
      or infinite, or if the initial gap is not positive.
    Raises:
      ValueError, TypeError: `passes` does not ascend, is not finite, has fewer than two
        entries, or does not fit the shape of `gaps`.
    Example:
      >>> print(digits_gained(np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.1, 0.01])))
      -1.0
    """
    passes, gaps = _checked_passes(passes, gaps)
    if len(passes) < 2:
        raise ValueError(
            "passes must have at least two entries, because the result is a mean over "
            f"the interval between them; got {passes}."
        )
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        relative = gaps / gaps[..., :1]
        logs = np.log10(np.maximum(relative, SMALLEST_GAP))
    # A gap of -inf has a finite log, that of the smallest gap.
    finite = (np.isfinite(gaps) & np.isfinite(logs)).all(axis=-1)
    bad = np.asarray(~finite | ~(gaps[..., 0] > 0))
    means = np.trapezoid(np.where(bad[..., None], 0.0, logs), passes, axis=-1) / (
        passes[-1] - passes[0]
    )
    return np.where(bad, np.inf, means)


def first_reached(
    passes: Float[np.ndarray, " evaluations"],
    gaps: Float[np.ndarray, "*runs evaluations"],
    target: float,
) -> Float[np.ndarray, "*runs"]:
    """Return the number of passes after which each run reaches its target.

    The gap is f - f*, where f is the objective and f* its minimum. A run reaches the
    target at the first evaluation whose gap is at most `target` times the initial gap.

    Args:
      passes: Passes over the data at each evaluation, shape (k,), ascending.
      gaps: Gaps f - f*, shape (..., k); column 0 is the initial gap.
      target: Target as a share of the initial gap, such as 1e-4.
    Returns:
      Passes, shape (...). The result is inf if the run never reaches the target, if the
      initial gap is not positive, or if a gap is not finite before the run reaches the
      target.
    Raises:
      ValueError, TypeError: `passes` does not ascend, is not finite, or does not fit
        the shape of `gaps`, or `target` is not positive and finite.
    Example:
      >>> gaps = np.array([[1.0, 0.1, 0.01], [1.0, 0.9, 0.8]])
      >>> print(first_reached(np.array([0.0, 1.0, 2.0]), gaps, 0.05))
      [ 2. inf]
    """
    passes, gaps = _checked_passes(passes, gaps)
    check_real("target", target)
    if not 0 < target < np.inf:
        raise ValueError(
            "target must be a positive share of the initial gap, such as 1e-4; got "
            f"target={target!r}."
        )
    alive = np.logical_and.accumulate(np.isfinite(gaps), axis=-1) & (gaps[..., :1] > 0)
    with np.errstate(invalid="ignore"):
        reached = alive & (gaps <= target * gaps[..., :1])
    return np.where(reached.any(axis=-1), passes[np.argmax(reached, axis=-1)], np.inf)


def _checked_budget(budget: float | None, length: float) -> float:
    if budget is None:
        return length
    check_real("budget", budget)
    if not length <= budget < np.inf:
        raise ValueError(
            f"budget must be at least passes[-1]={length!r}, the length of a run; got "
            f"budget={budget!r}."
        )
    return budget


def _checked_passes(
    passes: np.ndarray, gaps: np.ndarray, name: str = "gaps"
) -> tuple[np.ndarray, np.ndarray]:
    check_numbers("passes", passes)
    check_numbers(name, gaps)
    passes, gaps = np.asarray(passes, float), np.asarray(gaps, float)
    if passes.ndim != 1 or gaps.shape[-1:] != passes.shape:
        raise ValueError(
            f"passes must be of shape (k,) and {name} of shape (..., k); got "
            f"{passes.shape} and {gaps.shape}."
        )
    if not passes.size or (np.diff(passes) <= 0).any() or not np.isfinite(passes).all():
        raise ValueError(
            f"passes must have at least one entry, finite and ascending; got {passes}."
        )
    return passes, gaps


def _checked(
    passes: np.ndarray, relative: np.ndarray, target: float
) -> tuple[np.ndarray, np.ndarray]:
    passes, relative = _checked_passes(passes, relative, "relative")
    check_real("target", target)
    if not 0 < target < np.inf:
        raise ValueError(
            "target must be a positive share of the initial gap, such as 1e-2; got "
            f"{target}."
        )
    return passes, relative
