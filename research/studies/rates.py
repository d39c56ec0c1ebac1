"""Choosing a learning rate on seeds that are not reported, and what a rate is chosen by."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from research.checks import check_callable, check_count, check_number, check_numbers, check_real

# Below this share of the initial gap, differences are rounding: it counts as twelve digits and no more.
SMALLEST_GAP = 1e-12

# How often a choice at the edge may widen the ladder before it is reported as an edge.
MAX_WIDENINGS = 6

# The first ladder of learning rates of each rule, ascending; a choice at an end widens it.
_MOMENTUM_FREE, _ADAPTIVE = 2.0 ** np.arange(-7, 1), 2.0 ** np.arange(-10, -2)
LADDERS = {
    "gradient_descent": _MOMENTUM_FREE,
    "heavy_ball": _MOMENTUM_FREE / 8,
    "nesterov": _MOMENTUM_FREE / 8,
    "adagrad": _MOMENTUM_FREE,
    "rmsprop": _ADAPTIVE,
    "adam": _ADAPTIVE,
    "adamw": _ADAPTIVE,
}
ANY_LADDER = 2.0 ** np.arange(-10, 1)


class Choice(NamedTuple):
    """A learning rate, and how it was chosen.

    Attributes:
      rate: The rate with the lowest mean score.
      rates: Every rate tried, ascending, shape (k,).
      scores: One row a rate, one column a tuning seed; inf where the run diverged, shape (k, s).
      widened: How often the ladder was widened.
      at_edge: Whether the choice still lies at an end of the ladder.
    """

    rate: float
    rates: np.ndarray
    scores: np.ndarray
    widened: int
    at_edge: bool


def choose_rate(
    score: Callable[[np.ndarray], np.ndarray],
    ladder: Sequence[float] | np.ndarray,
    *,
    factor: float = 2.0,
    added: int = 2,
) -> Choice:
    """The rate of the lowest mean score over the tuning seeds; a choice at the edge widens the ladder.

    Args:
      score: rates (k,) -> scores (k, number of tuning seeds), lower is better, inf or NaN where a run diverged.
      ladder: The first rates, positive, ascending.
      factor: Ratio of the rates that are added beyond an edge.
      added: How many are added each time.
    Returns:
      The choice. Ties go to the larger rate, and a ladder on which everything diverges is widened downwards.
    Raises:
      ValueError: The ladder is empty, not positive or not ascending.
    Example:
      >>> choice = choose_rate(lambda rates: (np.log(rates) - np.log(0.04))[:, None] ** 2, [0.5, 1.0, 2.0])
      >>> choice.rate, choice.widened, choice.at_edge
      (0.03125, 3, False)
    """
    check_callable("score", score, "rates")
    check_numbers("ladder", ladder)
    check_real("factor", factor)
    if factor <= 1:
        raise ValueError(f"factor must exceed 1, for the ladder to grow; got factor={factor}.")
    check_count("added", added)
    rates = np.asarray(ladder, float)
    if rates.ndim != 1 or not rates.size or not np.all(rates > 0) or np.any(np.diff(rates) <= 0):
        raise ValueError(f"ladder must be positive and ascending; got {list(ladder)}.")
    first = score(rates)
    check_numbers("what score gives", first, ndim=2)
    if len(first) != len(rates):
        raise ValueError(f"score must give a row for each of {len(rates)} rates; got shape {np.shape(first)}.")
    scores = _no_nan(first)
    steps = factor ** np.arange(1, added + 1)
    for widened in range(MAX_WIDENINGS + 1):
        means = scores.mean(axis=1)
        best = len(rates) - 1 - int(np.argmin(means[::-1])) if np.isfinite(means).any() else 0
        at_edge = len(rates) > 1 and best in (0, len(rates) - 1)
        if not at_edge or widened == MAX_WIDENINGS:
            break
        more = rates[0] / steps[::-1] if best == 0 else rates[-1] * steps
        new = _no_nan(score(more))
        rates, scores = (
            (np.concatenate([more, rates]), np.concatenate([new, scores]))
            if best == 0
            else (np.concatenate([rates, more]), np.concatenate([scores, new]))
        )
    return Choice(float(rates[best]), rates, scores, widened, at_edge)


def _check_gaps(passes: np.ndarray, gaps: np.ndarray) -> None:
    check_numbers("passes", passes, ndim=1)
    check_numbers("gaps", gaps)
    if not np.ndim(gaps) or np.shape(gaps)[-1] != len(passes) or not len(passes):
        raise ValueError(
            f"passes must be of shape (k,), k > 0, and gaps of shape (..., k); got {np.shape(passes)} and {np.shape(gaps)}."
        )


def digits_gained(passes: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Mean over the passes of log10((f - f*) / (f_0 - f*)): how many digits a run had on average, with a minus sign.

    It rewards a run for being low early and for ending low, and asks for no target.

    Args:
      passes: Where the gaps were measured, shape (k,), ascending.
      gaps: f - f*, shape (..., k); column 0 is the initial gap.
    Returns:
      The mean by the trapezoidal rule, shape (...); inf where a gap is not finite.
    Example:
      >>> print(digits_gained(np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.1, 0.01])))
      -1.0
    """
    _check_gaps(passes, gaps)
    with np.errstate(invalid="ignore", over="ignore"):
        relative = np.asarray(gaps) / np.asarray(gaps)[..., :1]
        logs = np.log10(np.maximum(relative, SMALLEST_GAP))
    bad = np.asarray(~np.isfinite(logs).all(axis=-1))
    means = np.trapezoid(np.where(bad[..., None], 0.0, logs), passes, axis=-1) / (passes[-1] - passes[0])
    return np.where(bad, np.inf, means)


def first_reached(passes: np.ndarray, gaps: np.ndarray, target: float) -> np.ndarray:
    """Passes at the first evaluation whose gap is at most `target` of the initial one; inf where none is.

    Args:
      passes: Shape (k,).
      gaps: f - f*, shape (..., k); column 0 is the initial gap.
      target: Share of the initial gap, such as 1e-4.
    Returns:
      Passes, shape (...).
    Example:
      >>> print(first_reached(np.array([0.0, 1.0, 2.0]), np.array([[1.0, 0.1, 0.01], [1.0, 0.9, 0.8]]), 0.05))
      [ 2. inf]
    """
    _check_gaps(passes, gaps)
    check_number("target", target, positive=True)
    reached = np.asarray(gaps) <= target * np.asarray(gaps)[..., :1]
    return np.where(reached.any(axis=-1), passes[np.argmax(reached, axis=-1)], np.inf)


def _no_nan(scores: np.ndarray) -> np.ndarray:
    scores = np.atleast_2d(np.asarray(scores, float))
    return np.where(np.isnan(scores), np.inf, scores)
