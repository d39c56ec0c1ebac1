"""Choosing a rate without looking at what is reported, and saying how sure a number is."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from research import lanes
from research.types import Sampler, Workload

# Below this share of the initial gap, differences are rounding: it counts as twelve digits and no more.
SMALLEST_GAP = 1e-12

_NEVER = 1e100

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


class Measured(NamedTuple):
    """One rule with one sampler on one workload: tuned on some seeds, reported on others.

    Attributes:
      choice: The rate, chosen on the tuning seeds.
      trained: The reported seeds at that rate.
      gaps: f - f* of the reported seeds, shape (seeds, k), at trained.passes.
      timing: One training by itself.
      compile_seconds: Of the program of all cells.
      cells: How many trainings were made in all.
      program: The program, for more cells.
    """

    choice: Choice
    trained: lanes.Trained
    gaps: np.ndarray
    timing: lanes.Timing
    compile_seconds: float
    cells: int
    program: lanes.Program


def measure(
    workload: Workload,
    make_rule: lanes.MakeRule,
    sampler: Sampler,
    num_epochs: int,
    *,
    seeds: Sequence[int],
    tuning_seeds: Sequence[int],
    ladder: Sequence[float] = ANY_LADDER,
    width: int = lanes.WIDTH,
    on_chunk: Callable[[float], None] | None = None,
) -> Measured:
    """Chooses the learning rate on the tuning seeds by `digits_gained`, then trains the reported seeds with it.

    Args:
      workload: With a known optimum.
      make_rule: learning_rate -> rule.
      sampler: Built for the workload's training data.
      num_epochs: Length of every training.
      seeds, tuning_seeds: Disjoint.
      ladder: First rates to try.
      width: Lanes in a block.
      on_chunk: Called with a share in 0..1 that only grows.
    Returns:
      Measured.
    Raises:
      ValueError: The workload has no known optimum, or a seed is used for both.
    """
    if workload.optimum is None:
        raise ValueError(f"workload {workload.name!r} has no known optimum, so there is no f - f* to choose a rate by.")
    both = sorted(set(seeds) & set(tuning_seeds))
    if both:
        raise ValueError(
            f"seeds and tuning_seeds must be disjoint, or the choice sees what is reported; both have {both}."
        )
    program = lanes.compile_program(workload, make_rule, sampler, num_epochs, width=width)
    made = 0

    def gaps_of(
        rates: np.ndarray, seeds: Sequence[int], share: tuple[float, float]
    ) -> tuple[lanes.Trained, np.ndarray]:
        nonlocal made
        made += len(rates) * len(seeds)
        cells = {"seed": np.tile(np.array(seeds), len(rates)), "learning_rate": np.repeat(rates, len(seeds))}
        low, high = share
        trained = lanes.train(program, cells, on_chunk and (lambda part: on_chunk(low + (high - low) * part)))
        return trained, trained.values - workload.optimum.value

    def score(rates: np.ndarray) -> np.ndarray:
        share = (0.0, 0.6) if made == 0 else (0.6, 0.7)
        trained, gaps = gaps_of(rates, tuning_seeds, share)
        return digits_gained(trained.passes, gaps).reshape(len(rates), len(tuning_seeds))

    choice = choose_rate(score, ladder)
    trained, gaps = gaps_of(np.array([choice.rate]), seeds, (0.7, 1.0))
    timing = lanes.time_alone(workload, make_rule, sampler, {"learning_rate": choice.rate}, max(1, num_epochs // 30))
    return Measured(choice, trained, gaps, timing, program.compile_seconds, made, program)


def choose_rate(
    score: Callable[[np.ndarray], np.ndarray], ladder: Sequence[float], *, factor: float = 2.0, added: int = 2
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
    rates = np.asarray(ladder, float)
    if rates.ndim != 1 or not rates.size or not np.all(rates > 0) or np.any(np.diff(rates) <= 0):
        raise ValueError(f"ladder must be positive and ascending; got {list(ladder)}.")
    scores = _no_nan(score(rates))
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
    with np.errstate(invalid="ignore", over="ignore"):
        relative = np.asarray(gaps) / np.asarray(gaps)[..., :1]
        logs = np.log10(np.maximum(relative, SMALLEST_GAP))
    bad = ~np.isfinite(logs).all(axis=-1)
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
    reached = np.asarray(gaps) <= target * np.asarray(gaps)[..., :1]
    return np.where(reached.any(axis=-1), passes[np.argmax(reached, axis=-1)], np.inf)


def median_interval(
    samples: np.ndarray, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The median over the first axis with its percentile bootstrap interval.

    Args:
      samples: Shape (m, ...): one row a seed. A run that never got there counts as inf, and is not dropped.
      level: Coverage asked for; with ten seeds the percentile interval covers a little less.
      resamples: Bootstrap resamples.
      seed: Of the resampling.
    Returns:
      (median, low, high), each of shape (...).
    References:
      Efron & Tibshirani, An introduction to the bootstrap, 1993, section 13.3; `scipy.stats.bootstrap` computes it.
    Example:
      >>> median, low, high = median_interval(np.arange(11.0))
      >>> print(median, low <= 5 <= high)
      5.0 True
    """
    samples = np.asarray(samples, float)
    median = np.median(samples, axis=0)
    if len(samples) == 1:
        return median, median, median
    # Medians and percentiles only compare, so a huge finite number stands in for infinity (whose mean scipy also takes).
    finite = np.where(np.isfinite(samples), samples, _NEVER)
    outcome = stats.bootstrap(
        (finite,), np.median, axis=0, n_resamples=resamples, confidence_level=level, method="percentile", rng=seed
    )
    low, high = (np.where(v >= _NEVER / 4, np.inf, v) for v in outcome.confidence_interval)
    return median, low, high


def _no_nan(scores: np.ndarray) -> np.ndarray:
    scores = np.atleast_2d(np.asarray(scores, float))
    return np.where(np.isnan(scores), np.inf, scores)
