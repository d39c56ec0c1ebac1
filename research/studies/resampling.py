"""The nested bootstrap: a trial is chosen anew on resampled tuning seeds, and scored on resampled reporting seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from research.studies.costs import ratio, spent_and_reached
from research.studies.scores import Scores


class Replicates(NamedTuple):
    """What a study might have found on other seeds; shape (workloads, resamples).

    Attributes:
      log_ratio: log of ERT(mine) / ERT(other); 0 where neither reached the target.
      win: Share of seeds on which mine was cheaper; ties count half.
    """

    log_ratio: np.ndarray
    win: np.ndarray


def replicate(pairs: Sequence[tuple[Scores, Scores]], trials: int | None, resamples: int, seed: int) -> Replicates:
    """Bootstrap replicates of the comparison of two rules, on one or several workloads.

    Each draws reporting seeds with replacement, the same for both rules (they are paired) and for every workload, and for
    every workload tuning seeds, the same for both rules: m - 1 of m, so that the variance of a mean over so few is not
    underestimated by (m - 1) / m. On these it chooses the trial.

    Args:
      pairs: (mine, other) for each workload; all with the same number of reporting seeds.
      trials: How many of its trials each rule is allowed, drawn anew in each replicate, the defaults always among them;
        None allows all.
      resamples: Replicates.
      seed: Of the resampling.
    Returns:
      The Replicates.
    References:
      Rao & Wu, Resampling inference with complex survey data, JASA 83, 1988: m - 1 draws. Hesterberg, 2015, section 5.
    """
    prepared = [[(s, *spent_and_reached(s.costs, s.budget)) for s in pair] for pair in pairs]
    generator = np.random.default_rng(seed)
    most = [max(len(s.tuning) for s in pair) for pair in pairs]

    def statistic(reporting: np.ndarray, *tunings: np.ndarray, axis: int = -1) -> np.ndarray:
        seeds, rows = reporting.astype(int), []
        for pair, tuning, columns in zip(prepared, tunings, most, strict=True):
            order = None if trials is None else generator.random((len(seeds), columns))
            runs = []
            for scores, spent, reached in pair:
                means = scores.tuning[:, tuning[:, 1:].astype(int)].mean(axis=axis).T
                chosen = np.argmin(_allowed(means, order, trials), axis=1)[:, None]
                runs.append((spent[chosen, seeds], reached[chosen, seeds]))
                rows += [array.sum(axis=axis) for array in runs[-1]]
            rows.append(wins(*runs[0], *runs[1]).mean(axis=axis))
        return np.array(rows)

    drawn = _bootstrap(
        [pairs[0][0].costs.shape[1], *(mine.tuning.shape[1] for mine, _ in pairs)], statistic, resamples, seed
    )
    mine_spent, mine_reached, other_spent, other_reached, win = drawn.reshape(len(pairs), 5, -1).swapaxes(0, 1)
    return Replicates(log_ratio(ratio(mine_spent, mine_reached), ratio(other_spent, other_reached)), win)


def replicate_best_of(scores: Scores, resamples: int, seed: int) -> np.ndarray:
    """Bootstrap replicates of the cost with the best of 1, ..., t trials; shape (t, resamples)."""
    spent, reached = spent_and_reached(scores.costs, scores.budget)

    def statistic(reporting: np.ndarray, tuning: np.ndarray, axis: int = -1) -> np.ndarray:
        means = scores.tuning[:, tuning[:, 1:].astype(int)].mean(axis=axis).T
        sums = [array[:, reporting.astype(int)].sum(axis=axis).T for array in (spent, reached)]
        weights = np.stack([choice_weights(means, k) for k in range(1, len(spent) + 1)])
        return np.concatenate([(weights * s).sum(axis=-1) for s in sums])

    drawn = _bootstrap([scores.costs.shape[1], scores.tuning.shape[1]], statistic, resamples, seed)
    return ratio(*drawn.reshape(2, len(spent), -1))


def choice_weights(means: np.ndarray, trials: int) -> np.ndarray:
    """The probability that each trial is the one chosen from a random subset that holds trial 0.

    With the others ordered by their mean, number i = 1, 2, ... is chosen when it is in the subset, those before it are not,
    and it is better than trial 0: C(t - 1 - i, k - 2) / C(t - 1, k - 1) of the subsets. Trial 0 has the rest.

    Args:
      means: By which a trial is chosen, lowest first, shape (..., t).
      trials: k, the size of the subset; at most t.
    Returns:
      Weights, shape (..., t), that sum to 1.
    References:
      Dodge, Gururangan, Card, Schwartz & Smith, Show your work, EMNLP 2019: the expected best of k, there drawn with
      replacement; here without, and with the defaults.
    Example:
      >>> print(choice_weights(np.array([2.0, 3.0, 1.0]), 2))
      [0.5 0.  0.5]
    """
    means, t = np.asarray(means, float), np.shape(means)[-1]
    k = min(trials, t)
    if k == 1:
        return np.broadcast_to(np.arange(t) == 0, means.shape).astype(float)
    rank = np.argsort(np.argsort(means[..., 1:], axis=-1, kind="stable"), axis=-1) + 1
    chances = special.comb(t - 1 - rank, k - 2) / special.comb(t - 1, k - 1)
    others = np.where(means[..., 1:] < means[..., :1], chances, 0.0)
    return np.concatenate([1 - others.sum(axis=-1, keepdims=True), others], axis=-1)


def wins(spent: np.ndarray, reached: np.ndarray, other_spent: np.ndarray, other_reached: np.ndarray) -> np.ndarray:
    """1 where mine was cheaper, 0 where the other was, 1/2 where both cost the same or neither reached the target."""
    costs, others = np.where(reached > 0, spent, np.inf), np.where(other_reached > 0, other_spent, np.inf)
    return np.where(costs == others, 0.5, (costs < others).astype(float))


def log_ratio(mine: np.ndarray, other: np.ndarray) -> np.ndarray:
    """log(mine / other) of positive costs; where both are infinite 0, for then nothing tells them apart."""
    mine, other = np.asarray(mine, float), np.asarray(other, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(mine) - np.log(other)
    return np.where(mine == other, 0.0, logs)


def _allowed(means: np.ndarray, order: np.ndarray | None, trials: int | None) -> np.ndarray:
    """The means, inf for the trials that are not among those drawn; the defaults always are."""
    if order is None or trials is None or trials >= means.shape[1]:
        return means
    order = order[:, : means.shape[1]].copy()
    order[:, 0] = -1.0
    return np.where(order <= np.sort(order, axis=1)[:, trials - 1 : trials], means, np.inf)


def _bootstrap(sizes: Sequence[int], statistic, resamples: int, seed: int) -> np.ndarray:
    indices = tuple(np.arange(size) for size in sizes)
    batch = max(1, min(resamples, 4_000_000 // (30 * max(sizes))))
    return stats.bootstrap(
        indices, statistic, n_resamples=resamples, batch=batch, vectorized=True, method="percentile", rng=seed
    ).bootstrap_distribution
