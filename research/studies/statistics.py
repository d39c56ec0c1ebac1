"""Which of two rules is better here, by how much, and whether one may say so."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from research.studies.costs import ratio, spent_and_reached
from research.studies.resampling import choice_weights, log_ratio, replicate, replicate_best_of, wins
from research.studies.scores import Scores, checked, choose

# The difference that `more_seeds` asks to detect, and how surely.
DETECTED = 0.1
POWER = 0.8


class Difference(NamedTuple):
    """How two rules differ on one workload."""

    ratio: float
    low: float
    high: float
    win: float
    win_low: float
    win_high: float
    verdict: str
    more_seeds: int


class Overall(NamedTuple):
    """How two rules differ over several workloads."""

    ratio: float
    low: float
    high: float
    win: float
    win_low: float
    win_high: float
    verdict: str
    workloads: int


def difference(
    mine: Scores,
    other: Scores,
    *,
    trials: int | None = None,
    level: float = 0.95,
    comparisons: int = 1,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """ERT(mine) / ERT(other) with its interval, verdict and the seeds still missing."""
    outcome, deviation = _compare([(mine, other)], trials, level, comparisons, resamples, seed)
    n = np.shape(mine.costs)[1]
    more = -1 if not np.isfinite(deviation) else max(0, seeds_needed(deviation * np.sqrt(n), level, comparisons) - n)
    return Difference(*outcome, more)


def overall(
    pairs: Sequence[tuple[Scores, Scores]],
    *,
    trials: int | None = None,
    level: float = 0.95,
    comparisons: int = 1,
    resamples: int = 2000,
    seed: int = 0,
) -> Overall:
    """The geometric mean of the ratios over workloads."""
    outcome, _ = _compare(pairs, trials, level, comparisons, resamples, seed)
    return Overall(*outcome, len(pairs))


def best_of(scores: Scores, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """Cost with the best of k trials, for k = 1, ..., t, with its interval; shape (t, 3)."""
    scores = checked(scores)
    spent, reached = (a.sum(axis=1) for a in spent_and_reached(scores.costs, scores.budget))
    weights = np.stack([choice_weights(scores.tuning.mean(axis=1), k) for k in range(1, len(spent) + 1)])
    drawn = replicate_best_of(scores, resamples, seed)
    low, high = interval(drawn, scores.costs.shape[1], level)
    return np.stack([ratio(weights @ spent, weights @ reached), low, high], axis=1)


def interval(replicates: np.ndarray, n: int, level: float, comparisons: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The expanded percentile interval along the last axis."""
    tail = stats.norm.cdf(-critical(n, level, comparisons))
    last = replicates.shape[-1] - 1
    ordered = np.sort(replicates, axis=-1)
    return ordered[..., int(np.floor(tail * last))], ordered[..., int(np.ceil((1 - tail) * last))]


def critical(n: int, level: float, comparisons: int = 1) -> float:
    """Half-width of the interval in bootstrap standard deviations."""
    return float(stats.t.isf((1 - level) / comparisons / 2, n - 1) * np.sqrt(n / (n - 1)))


def seeds_needed(deviation: float, level: float = 0.95, comparisons: int = 1) -> int:
    """Seeds that detect a difference of 10 % with power 0.8, from the standard deviation that one seed contributes."""
    shift = -np.log1p(-DETECTED)
    tail = (1 - level) / comparisons / 2

    def power(n: int) -> float:
        return float(stats.nct.sf(stats.t.isf(tail, n - 1), n - 1, shift * np.sqrt(n) / max(deviation, 1e-12)))

    high = 2
    while power(high) < POWER and high < 2**40:
        high *= 2
    low = max(2, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle + 1, high)
    return high


def _compare(pairs, trials, level, comparisons, resamples, seed):
    pairs = [(checked(mine), checked(other)) for mine, other in pairs]
    observed, win = np.array([_observed(mine, other, trials) for mine, other in pairs]).T
    drawn = replicate(pairs, trials, resamples, seed)
    n = pairs[0][0].costs.shape[1]
    with np.errstate(invalid="ignore"):
        logs = drawn.log_ratio.mean(axis=0)
    logs = np.where(np.isnan(logs), 0.0, logs)
    low, high = interval(logs, n, level, comparisons)
    win_low, win_high = interval(drawn.win.mean(axis=0), n, level, comparisons)
    verdict = "better" if high < 0 else "worse" if low > 0 else "undecided"
    outcome = (np.exp(observed.mean()), np.exp(low), np.exp(high), win.mean(), win_low, win_high)
    deviation = float(np.std(logs, ddof=1)) * np.sqrt(n / (n - 1)) if np.isfinite(logs).all() else np.inf
    return (*map(float, outcome), verdict), deviation


def _observed(mine: Scores, other: Scores, trials: int | None) -> tuple[float, float]:
    costs = []
    for s in (mine, other):
        weights = choice_weights(s.tuning.mean(axis=1), trials or len(s.tuning))
        costs.append(ratio(*(weights @ a.sum(axis=1) for a in spent_and_reached(s.costs, s.budget))))
    if np.isinf(costs).all():
        return np.nan, 0.5
    picks = [spent_and_reached(s.costs[choose(s.tuning)], s.budget) for s in (mine, other)]
    return float(log_ratio(*costs)), float(wins(*picks[0], *picks[1]).mean())
