"""The nested bootstrap: a trial is chosen anew on resampled tuning seeds, and scored on resampled reporting seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from research.sizes import MOST_RESAMPLES, check_most, check_room
from research.statistics.costs import ratio, spent_and_reached
from research.statistics.scores import Scores

# Ratios closer to 1 than this are rounding, whatever their interval says.
ROUNDING = 1e-9


class Replicates(NamedTuple):
    """What a study might have found on other seeds; each of shape (..., resamples).

    Attributes:
      choice: The outcome on the reported seeds, for the trials chosen on resampled tuning seeds.
      reporting: By how much resampled reporting seeds change the outcome, averaged over those choices.
      freedom: Degrees of freedom of the variance of `choice`, shape (...).
    """

    choice: np.ndarray
    reporting: np.ndarray
    freedom: np.ndarray


def replicate(
    pairs: Sequence[tuple[Scores, Scores]],
    trials: int | None,
    resamples: int,
    seed: int,
) -> tuple[Replicates, Replicates]:
    """Bootstrap replicates of the comparison of two rules, on one or several workloads.

    Seeds are drawn with replacement, and the same ones for both rules, for they are paired. Tuning seeds are drawn for each
    workload by itself, m - 1 of m, for m of m would give a mean over so few too small a variance; reporting seeds are drawn
    once for all workloads, so that whatever a seed means on several of them is kept.

    Args:
      pairs: (mine, other) for each workload; all with the same number of reporting seeds.
      trials: How many of its trials each rule is allowed, drawn anew for each choice, the defaults always among them, and
        the same ones for rules that made equally many; None allows all.
      resamples: Replicates.
      seed: Of the resampling.
    Returns:
      Of log(ERT(mine) / ERT(other)), and of the share of seeds on which mine was cheaper; each (workloads, resamples). The
      variance of the choice has m - 1 degrees of freedom when one rule has all of it, and up to 2 (m - 1) when both do.
    References:
      Rao & Wu, Resampling inference with complex survey data, JASA 83, 1988: m - 1 draws.
    """
    generator = np.random.default_rng(seed)
    runs, ratio_choices, win_choices, freedom = [], [], [], []
    for mine, other in pairs:
        chosen = _choices(mine, other, trials, resamples, generator)
        costs = [np.where(s.costs <= s.budget, s.costs, np.inf) for s in (mine, other)]
        won = wins(costs[0][chosen[0]], costs[1][chosen[1]])
        times = [ert_of_all(s)[j] for s, j in zip((mine, other), chosen, strict=True)]
        freedom.append(
            pooled([_log_variance(t) for t in times], [mine.tuning.shape[1] - 1.0] * 2)
        )
        ratio_choices.append(log_ratio(*times))
        win_choices.append(won.mean(axis=1))
        runs.append(
            [*_mixed(mine, chosen[0]), *_mixed(other, chosen[1]), won.mean(axis=0)]
        )
    # Every row is a number per reporting seed; resampling seeds takes the mean of columns.
    drawn, whole = (
        resampled_means(np.concatenate(runs), resamples, generator),
        np.concatenate(runs).mean(axis=1),
    )
    logs, shares = _outcomes(drawn.reshape(len(pairs), 5, -1))
    middle_logs, middle_shares = _outcomes(whole.reshape(len(pairs), 5, 1))
    return (
        Replicates(
            np.array(ratio_choices), minus(logs, middle_logs), np.array(freedom)
        ),
        Replicates(np.array(win_choices), shares - middle_shares, np.array(freedom)),
    )


def replicate_best_of(scores: Scores, resamples: int, seed: int) -> Replicates:
    """Bootstrap replicates of the log of the cost with the best of 1, ..., t trials; shape (t, resamples)."""
    generator = np.random.default_rng(seed)
    spent, reached = spent_and_reached(scores.costs, scores.budget)
    means = resampled_means(scores.tuning, resamples, generator, left_out=1).T
    weights = np.stack([choice_weights(means, k) for k in range(1, len(spent) + 1)])
    choice = ratio(weights @ spent.sum(axis=1), weights @ reached.sum(axis=1))
    rows = np.concatenate(
        [weights.mean(axis=1) @ spent, weights.mean(axis=1) @ reached]
    )
    drawn, whole = resampled_means(rows, resamples, generator), rows.mean(axis=1)
    costs, middle = ratio(*np.split(drawn, 2)), ratio(*np.split(whole[:, None], 2))
    freedom = np.full(len(spent), scores.tuning.shape[1] - 1.0)
    return Replicates(np.log(choice), minus(np.log(costs), np.log(middle)), freedom)


def choice_weights(means: np.ndarray, trials: int) -> np.ndarray:
    """The probability that each trial is the one chosen from a random subset that holds trial 0.

    With the others ordered by their mean, number i = 1, 2, ... is chosen when it is in the subset, those before it are not,
    and it is better than trial 0: C(t - 1 - i, k - 2) / C(t - 1, k - 1) of the subsets. Trial 0 has the rest.

    Args:
      means: By which a trial is chosen, lowest first, shape (..., t).
      trials: k, the size of the subset, at least 1; above t counts as t.
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
    return np.concatenate(
        [np.maximum(1 - others.sum(axis=-1, keepdims=True), 0.0), others], axis=-1
    )


def wins(mine: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 where mine cost less, 0 where the other did, 1/2 where both cost the same to rounding or neither got there."""
    return np.where(
        np.isclose(mine, other, rtol=ROUNDING, atol=0.0),
        0.5,
        (mine < other).astype(float),
    )


def log_ratio(mine: np.ndarray, other: np.ndarray) -> np.ndarray:
    """log(mine / other) of costs; where both are the same, infinity too, 0: nothing tells them apart."""
    with np.errstate(divide="ignore"):
        return minus(np.log(mine), np.log(other))


def minus(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left - right, where infinity less itself is 0."""
    with np.errstate(invalid="ignore"):
        return np.where(left == right, 0.0, np.subtract(left, right))


def ert_of_all(scores: Scores) -> np.ndarray:
    """ERT of every trial, shape (t,)."""
    return ratio(
        *(array.sum(axis=1) for array in spent_and_reached(scores.costs, scores.budget))
    )


def pooled(
    variances: Sequence[float] | np.ndarray, freedom: Sequence[float] | np.ndarray
) -> float:
    """Satterthwaite's degrees of freedom of a sum of independent variances: (sum V)^2 / sum(V^2 / freedom).

    Example:
      >>> pooled([1.0, 1.0], [4.0, 4.0]), pooled([1.0, 0.0], [4.0, 4.0])
      (8.0, 4.0)
    """
    shares, freedom = np.asarray(variances, float), np.asarray(freedom, float)
    if not shares.sum() > 0:
        return float(freedom.sum())
    shares = shares / shares.sum()
    return float(1 / np.sum(shares**2 / freedom))


def resampled_means(
    rows: np.ndarray,
    resamples: int,
    generator: np.random.Generator,
    *,
    left_out: int = 0,
) -> np.ndarray:
    """Means over columns drawn with replacement by `scipy.stats.bootstrap`, the same columns for every row.

    Args:
      rows: Shape (rows, seeds).
      resamples: How many means of each row.
      generator: Draws.
      left_out: By how many fewer columns are drawn than there are.
    Returns:
      Shape (rows, resamples).
    """

    def means(columns: np.ndarray, axis: int = -1) -> np.ndarray:
        return rows[:, columns[:, left_out:].astype(int)].mean(axis=axis)

    check_most(MOST_RESAMPLES, resamples=resamples)
    check_room(f"resamples={resamples}", resamples, max(1, len(rows)))
    indices, batch = (
        (np.arange(rows.shape[1]),),
        max(1, min(resamples, 2_000_000 // rows.size)),
    )
    outcome = stats.bootstrap(
        indices,
        means,
        n_resamples=resamples,
        batch=batch,
        vectorized=True,
        method="percentile",
        rng=generator,
    )
    return outcome.bootstrap_distribution


def _choices(
    mine: Scores,
    other: Scores,
    trials: int | None,
    resamples: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """The trials chosen of mine and of the other, shape (2, resamples)."""
    rules = (mine, other)
    most = max(len(s.tuning) for s in rules)
    means = resampled_means(
        np.concatenate([s.tuning for s in rules]), resamples, generator, left_out=1
    )
    order = generator.random((most, resamples))
    order[0] = -1.0  # The defaults are always among the trials drawn.
    return np.array(
        [
            np.argmin(np.where(_among(order[: len(m)], trials), m, np.inf), axis=0)
            for m in np.split(means, [len(mine.tuning)])
        ]
    )


def _among(order: np.ndarray, trials: int | None) -> np.ndarray:
    if trials is None or trials >= len(order):
        return np.ones(order.shape, bool)
    return order <= np.sort(order, axis=0)[trials - 1]


def _mixed(scores: Scores, chosen: np.ndarray) -> list[np.ndarray]:
    """Passes spent and targets reached on each reporting seed, averaged over the choices."""
    shares = np.bincount(chosen, minlength=len(scores.costs)) / len(chosen)
    return [shares @ array for array in spent_and_reached(scores.costs, scores.budget)]


def _outcomes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mine_spent, mine_reached, other_spent, other_reached, won = rows.swapaxes(0, 1)
    return log_ratio(
        ratio(mine_spent, mine_reached), ratio(other_spent, other_reached)
    ), won


def _log_variance(costs: np.ndarray) -> float:
    costs = costs[np.isfinite(costs)]
    return float(np.var(np.log(costs))) if len(costs) else 0.0
