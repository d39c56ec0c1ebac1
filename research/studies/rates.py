"""Choosing a learning rate on seeds that are not reported, and what a rate is chosen by."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from research.checks import check_callable, check_count, check_numbers, check_real
from research.sizes import check_most

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
      ValueError: The ladder is empty, not positive or not ascending; factor or added widen nothing; or what score gives has not
        the shape (k, number of tuning seeds).
    Example:
      >>> choice = choose_rate(lambda rates: (np.log(rates) - np.log(0.04))[:, None] ** 2, [0.5, 1.0, 2.0])
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
            f"ladder must be positive and ascending, and finite; got {ladder!r}."
        )
    if not 1 < factor < np.inf:
        raise ValueError(
            f"factor must be above 1, for the ladder to grow; got factor={factor!r}."
        )
    check_most(1_000, added=added)
    scores = _scores(score(rates), rates)
    steps = factor ** np.arange(1, added + 1)
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
        more = rates[0] / steps[::-1] if best == 0 else rates[-1] * steps
        new = _scores(score(more), more)
        rates, scores = (
            (np.concatenate([more, rates]), np.concatenate([new, scores]))
            if best == 0
            else (np.concatenate([rates, more]), np.concatenate([scores, new]))
        )
    return Choice(float(rates[best]), rates, scores, widened, at_edge)


def digits_gained(passes: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Mean over the passes of log10((f - f*) / (f_0 - f*)): how many digits a run had on average, with a minus sign.

    It rewards a run for being low early and for ending low, and asks for no target.

    Args:
      passes: Where the gaps were measured, shape (k,), ascending.
      gaps: f - f*, shape (..., k); column 0 is the initial gap.
    Returns:
      The mean by the trapezoidal rule, shape (...); inf where a gap is not finite, or the initial gap is not positive, of which
      there is no share.
    Raises:
      ValueError: passes do not ascend, are fewer than two, or do not fit the gaps.
    Example:
      >>> print(digits_gained(np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.1, 0.01])))
      -1.0
    """
    passes, gaps = _checked_passes(passes, gaps)
    if len(passes) < 2:
        raise ValueError(
            f"passes must be at least two, to take a mean over; got {passes}."
        )
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        relative = gaps / gaps[..., :1]
        logs = np.log10(np.maximum(relative, SMALLEST_GAP))
    bad = np.asarray(~np.isfinite(logs).all(axis=-1) | ~(gaps[..., 0] > 0))
    means = np.trapezoid(np.where(bad[..., None], 0.0, logs), passes, axis=-1) / (
        passes[-1] - passes[0]
    )
    return np.where(bad, np.inf, means)


def first_reached(passes: np.ndarray, gaps: np.ndarray, target: float) -> np.ndarray:
    """Passes at the first evaluation whose gap is at most `target` of the initial one; inf where none is.

    Args:
      passes: Shape (k,).
      gaps: f - f*, shape (..., k); column 0 is the initial gap.
      target: Share of the initial gap, such as 1e-4.
    Returns:
      Passes, shape (...); inf, too, where the initial gap is not positive, or a gap before is not finite.
    Raises:
      ValueError: passes do not ascend or do not fit the gaps, or the target is not positive and finite.
    Example:
      >>> print(first_reached(np.array([0.0, 1.0, 2.0]), np.array([[1.0, 0.1, 0.01], [1.0, 0.9, 0.8]]), 0.05))
      [ 2. inf]
    """
    passes, gaps = _checked_passes(passes, gaps)
    check_real("target", target)
    if not 0 < target < np.inf:
        raise ValueError(
            f"target must be a positive share of the initial gap, such as 1e-4; got target={target!r}."
        )
    alive = np.logical_and.accumulate(np.isfinite(gaps), axis=-1) & (gaps[..., :1] > 0)
    with np.errstate(invalid="ignore"):
        reached = alive & (gaps <= target * gaps[..., :1])
    return np.where(reached.any(axis=-1), passes[np.argmax(reached, axis=-1)], np.inf)


def _checked_passes(
    passes: np.ndarray, gaps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    check_numbers("passes", passes)
    check_numbers("gaps", gaps)
    passes, gaps = np.asarray(passes, float), np.asarray(gaps, float)
    if passes.ndim != 1 or not passes.size or gaps.shape[-1:] != passes.shape:
        raise ValueError(
            f"passes must be of shape (k,) and gaps of shape (..., k); got {passes.shape} and {gaps.shape}."
        )
    if not np.isfinite(passes).all() or (np.diff(passes) <= 0).any():
        raise ValueError(f"passes must be finite and ascend; got {passes}.")
    return passes, gaps


def _scores(scores: np.ndarray, rates: np.ndarray) -> np.ndarray:
    check_numbers("what score gives", scores)
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or len(scores) != len(rates) or not scores.shape[1]:
        raise ValueError(
            f"score must give a row for each of the {len(rates)} rates and a column for each seed; it gives {scores.shape}."
        )
    return np.where(np.isnan(scores), np.inf, scores)
