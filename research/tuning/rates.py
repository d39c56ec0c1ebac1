"""Choice of a learning rate on tuning seeds, which are not reported."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from research.checks import check_callable, check_count, check_numbers, check_real
from research.sizes import check_most

# The ladder is widened at most this often; then the choice is reported as at an edge.
MAX_WIDENINGS = 6

# First ladder of learning rates for a rule that does not state its own.
ANY_LADDER = 2.0 ** np.arange(-10, 1)


class Choice(NamedTuple):
    """A learning rate, and how it was chosen.

    Attributes:
      rate: The rate with the lowest mean score.
      rates: All k rates that were tried, ascending, shape (k,).
      scores: Score of each of the k rates on each of s seeds, shape (k, s). Lower is
        better. inf means that the run diverged.
      widened: Number of times that rates were added below the smallest or above the
        largest.
      at_edge: Whether the chosen rate is the smallest or the largest of all rates that
        were tried. If so, a better rate may lie outside. False if only one rate was
        tried.
    """

    rate: float
    rates: Float[np.ndarray, " rates"]
    scores: Float[np.ndarray, "rates seeds"]
    widened: int
    at_edge: bool


def choose_rate(
    score: Callable[[Float[np.ndarray, " k"]], Float[np.ndarray, "k seeds"]],
    ladder: Sequence[float] | Float[np.ndarray, " rates"],
    *,
    factor: float = 2.0,
    added: int = 2,
) -> Choice:
    """Choose the learning rate with the lowest mean score over the tuning seeds.

    The tuning seeds are used for this choice only, not for reported results.

    The ladder is the sequence of rates to try. If its first or its last rate is the
    best, more rates are added at this end. This is repeated up to six times. A rate
    that would be 0 or infinite in floating-point arithmetic is not added. A ladder of
    one rate is never extended.

    In the example, the smallest rate is the best three times in a row. Each time, two
    rates are added below it, so the field `widened` of the result is 3. After that, the
    best rate is between other tried rates, so the field `at_edge` is False.

    Args:
      score: Function that takes an array of k rates, shape (k,), and returns their
        scores, shape (k, number of tuning seeds). Lower is better. inf or NaN means
        that the run diverged. The score -inf is refused, because the mean of -inf and
        inf is not defined.
      ladder: Rates to try first, positive and ascending.
      factor: Factor, above 1, between an added rate and the rate beside it.
      added: Number of rates that are added each time.
    Returns:
      The `Choice`. A rate at which a run diverges has the mean score inf. If all rates
      have the mean score inf, the smallest rate counts as the best. Otherwise, if
      several rates have the lowest mean score, the largest of them is chosen.
    Raises:
      ValueError, TypeError: The ladder is empty, not positive or not ascending,
        `factor` is not above 1, `added` is not between 1 and 1000, the scores do not
        have the shape (k, number of tuning seeds), or a score is -inf.
    Example:
      >>> score = lambda rates: (np.log(rates) - np.log(0.04))[:, None] ** 2
      >>> choice = choose_rate(score, [0.5, 1.0, 2.0])
      >>> choice.rate, choice.widened, choice.at_edge
      (0.03125, 3, False)
    """
    check_callable("score", score, "rates")
    check_numbers("ladder", ladder)
    check_real("factor", factor)
    check_count("added", added)
    rates = np.asarray(ladder, float)
    good = (
        rates.ndim == 1
        and rates.size
        and np.all(np.isfinite(rates) & (rates > 0))
        and np.all(np.diff(rates) > 0)
    )
    if not good:
        raise ValueError(
            "ladder must contain positive, finite rates in ascending order; got "
            f"{ladder!r}."
        )
    if not 1 < factor < np.inf:
        raise ValueError(
            f"factor must be above 1, so that all rates differ; got factor={factor!r}."
        )
    check_most(1_000, added=added)
    scores = _scores(score(rates), rates)
    with np.errstate(over="ignore"):
        steps = factor ** np.arange(1.0, added + 1)
    for widened in range(MAX_WIDENINGS + 1):
        means = scores.mean(axis=1)
        best = (
            len(rates) - 1 - int(np.argmin(means[::-1]))
            if np.isfinite(means).any()
            else 0
        )
        at_edge = len(rates) > 1 and best in (0, len(rates) - 1)
        if not at_edge or widened == MAX_WIDENINGS:
            break
        with np.errstate(over="ignore"):
            more = rates[0] / steps[::-1] if best == 0 else rates[-1] * steps
        more = more[np.isfinite(more) & (more > 0)]
        if not more.size:
            break
        new = _scores(score(more), more)
        rates, scores = (
            (np.concatenate([more, rates]), np.concatenate([new, scores]))
            if best == 0
            else (np.concatenate([rates, more]), np.concatenate([scores, new]))
        )
    return Choice(float(rates[best]), rates, scores, widened, at_edge)


def _scores(
    scores: Float[np.ndarray, "rates seeds"], rates: Float[np.ndarray, " rates"]
) -> Float[np.ndarray, "rates seeds"]:
    check_numbers("the result of score", scores)
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or len(scores) != len(rates) or not scores.shape[1]:
        raise ValueError(
            f"score must return a row for each of the {len(rates)} rates and a column "
            f"for each seed; it returned shape {scores.shape}."
        )
    if np.isneginf(scores).any():
        raise ValueError(
            "score must return numbers, or inf for a run that diverged; it returned "
            f"-inf for the rate {rates[np.isneginf(scores).any(axis=1)][0]:g}."
        )
    return np.where(np.isnan(scores), np.inf, scores)
