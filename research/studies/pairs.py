"""One rule on one workload: every trial on every seed, and what became of it."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from research import lanes, samplers
from research.studies.contenders import Contender
from research.studies.costs import passes_to_target, penalised_passes
from research.studies.protocol import Protocol
from research.studies.scores import Scores
from research.studies.spaces import added_trials, edges, trials, widen
from research.studies.statistics import best_of, choose
from research.studies.timing import time_alone
from research.types import Checkpoints, Sampler, Saved, Workload, nowhere

MOST_WIDENINGS = 2
AS_GOOD = 1.1  # A rate within 10 % of the best is as good.
AROUND = 2.0 ** np.arange(
    -4, 4.5, 0.5
)  # Rates looked at around the chosen one, which count as no trials: nothing is chosen.


class _Outcomes(NamedTuple):
    """Every trial on every seed; leading axes (trials, tuning seeds) or (trials, reporting seeds)."""

    tuning: np.ndarray
    costs: np.ndarray
    curves: np.ndarray
    diverged: np.ndarray


def measure_pair(
    workload: Workload,
    contender: Contender,
    protocol: Protocol,
    *,
    timed: bool = True,
    on_chunk: Callable[[lanes.Progress], None] | None = None,
    checkpoints: Checkpoints = nowhere,
) -> Saved:
    """Trains every trial of a rule on every seed of a workload.

    A choice in the outer tenth of a range (the outer 1 / budget, with fewer than ten trials) widens it by a third beyond
    that side, with a third more trials, twice at most.

    Args:
      workload: With the parts that the protocol needs.
      contender: The rule and its space.
      protocol: The terms.
      timed: Whether one training at the chosen trial is timed by itself, which costs another compilation.
      on_chunk: Called with the Progress of the cells under way, its share that of the whole.
      checkpoints: Where the cells are kept on the way, for the rule and workload that the caller has named.
    Returns:
      Arrays `trials` (t, h), `tuning` (t, m), `costs` and `final` (t, n), `passes` (k,), `curves` (n, k) of the chosen
      trial, `best_of` (t, 3), and `rates` (r,) around the chosen one with their tuning scores `rate_scores` (r, m); as
      values the facts of the pair in JSON, as a study's `cells` have them.
    Raises:
      ValueError: The workload lacks a part.
    """
    sampler = sampler_of(workload, protocol.batch_size)
    num_epochs = max(1, round(protocol.passes / contender.evaluations))
    space = dict(contender.space)
    program = lanes.compile_program(
        workload,
        contender.make_rule,
        sampler,
        num_epochs,
        hyperparameters=tuple(space),
        width=protocol.width,
        evaluate_on=(protocol.tune_on, protocol.reported_on),
    )
    made = trials(space, protocol.budget)
    count = _count(made, protocol.budget)
    outcomes, passes = _train(program, workload, contender, protocol, made, count, _part(on_chunk, 0), checkpoints)
    hit: list[str] = []
    outer = max(0.1, 1 / protocol.budget)  # Few trials leave wide gaps: the last of them is then an edge.
    for widened in range(MOST_WIDENINGS + 1):
        chosen = choose(outcomes.tuning)
        hit = [f"{name}, {side}" for name, side in edges(space, {name: v[chosen] for name, v in made.items()}, outer)]
        wider = [widen(space, *place.split(", ")) for place in hit] if widened < MOST_WIDENINGS else []
        wider = [(whole, part) for whole, part in wider if part is not None]
        if not wider:
            break
        space, part = wider[0]
        more = added_trials(part, math.ceil(protocol.budget / 3), start=count)
        added = math.ceil(protocol.budget / 3)
        new, _ = _train(program, workload, contender, protocol, more, added, _part(on_chunk, widened + 1), checkpoints)
        made = {name: np.concatenate([made[name], more[name]]) for name in made}
        outcomes = _Outcomes(*(np.concatenate(both) for both in zip(outcomes, new, strict=True)))
        count += added
    arrays = {
        "trials": np.stack([*made.values()], 1) if made else np.empty((count, 0)),
        "tuning": outcomes.tuning,
        "costs": outcomes.costs,
        "final": outcomes.curves[..., -1],
        "passes": passes,
        "curves": outcomes.curves[chosen],
    }
    arrays["best_of"] = best_of(scores_of(arrays), level=protocol.level)
    chosen_values = {name: float(values[chosen]) for name, values in made.items()}
    rate = rate_name(space)
    if rate is not None:
        swept = {name: np.full(len(AROUND), value) for name, value in chosen_values.items()}
        swept[rate] *= AROUND
        around, _ = _train(
            program, workload, contender, protocol, swept, len(AROUND), None, checkpoints, tuning_only=True
        )
        arrays |= {"rates": swept[rate], "rate_scores": around.tuning}
    facts = {
        "workload": workload.name,
        "rule": contender.name,
        "n": _examples(workload),
        "hyperparameters": list(made),
        "chosen": chosen_values,
        "trials": count,
        "widened": widened,
        "edges": hit,
        "evaluations": contender.evaluations,
        "diverged": float(outcomes.diverged[: protocol.budget].mean()),
        "rate_name": rate,
        "robustness": None if rate is None else robust_decades(arrays["rates"], arrays["rate_scores"]),
        "compile_seconds": program.compile_seconds,
    }
    facts |= _costs(arrays, protocol, chosen, sampler, facts)
    per_pass = _seconds_per_pass(workload, contender, sampler, chosen_values, num_epochs) if timed else None
    seconds = None if per_pass is None or facts["cost"] is None else per_pass * facts["cost"]
    return Saved(arrays, facts | {"seconds_per_pass": per_pass, "seconds": seconds})


def sampler_of(workload: Workload, batch_size: int | None) -> Sampler:
    """Mini-batches of that size, or the full batch where that is asked for or there is no data."""
    n = _examples(workload)
    if workload.train is None or batch_size is None:
        return samplers.full_batch(n)
    return samplers.minibatch(n, batch_size)


def scores_of(arrays: Mapping[str, np.ndarray]) -> Scores:
    """What the statistics of a pair are made of, from its arrays.

    Example:
      >>> arrays = {"tuning": np.ones((4, 3)), "costs": np.ones((4, 20)), "passes": np.arange(6.0)}
      >>> scores_of(arrays).budget
      5.0
    """
    return Scores(arrays["tuning"], arrays["costs"], float(arrays["passes"][-1]))


def rate_name(space: Mapping[str, Any]) -> str | None:
    """The hyper-parameter that is the rate: the one of that name, else the first; None where there is none."""
    return "learning_rate" if "learning_rate" in space else next(iter(space), None)


def robust_decades(rates: np.ndarray, scores: np.ndarray) -> float:
    """How many decades of rates score within 10 % of the best, around it, interpolated in log rate.

    Args:
      rates: Ascending, shape (r,).
      scores: Lower is better, shape (r, m); their means over m count.
    Returns:
      Decades; where the good rates reach an end of those given, at least so many.
    Example:
      >>> rates = np.array([0.01, 0.1, 1.0, 10.0])
      >>> round(robust_decades(rates, np.array([[3.0], [2.0], [2.0], [3.0]])), 12)
      1.4
    """
    logs, means = np.log10(rates), scores.mean(axis=1)
    best, limit = int(np.argmin(means)), AS_GOOD * means.min()

    def edge(step: int) -> float:
        at = best
        while 0 <= at + step < len(means) and means[at + step] <= limit:
            at += step
        beyond = at + step
        if not 0 <= beyond < len(means):
            return logs[at]
        return logs[at] + (logs[beyond] - logs[at]) * (limit - means[at]) / (means[beyond] - means[at])

    return float(edge(1) - edge(-1))


def _train(
    program: lanes.Program,
    workload: Workload,
    contender: Contender,
    protocol: Protocol,
    made: Mapping[str, np.ndarray],
    count: int,
    on_chunk: Callable[[lanes.Progress], None] | None,
    checkpoints: Checkpoints,
    tuning_only: bool = False,
) -> tuple[_Outcomes, np.ndarray]:
    """The outcomes of some trials, and the passes at which they were looked at."""
    seeds = np.array(protocol.tuning_seeds + (() if tuning_only else protocol.seeds))
    cells = {name: np.repeat(values, len(seeds)) for name, values in made.items()}
    trained = lanes.train(program, {"seed": np.tile(seeds, count), **cells}, on_chunk, checkpoints)
    passes = trained.passes * contender.evaluations
    gaps = {part: _relative(workload, part, values) for part, values in trained.values_on.items()}
    gaps = {part: values.reshape(count, len(seeds), -1) for part, values in gaps.items()}
    m = len(protocol.tuning_seeds)
    tuning, reported = gaps[protocol.tune_on][:, :m], gaps[protocol.reported_on][:, m:]
    outcomes = _Outcomes(
        penalised_passes(passes, tuning, protocol.target),
        passes_to_target(passes, reported, protocol.target),
        np.where(np.isfinite(reported), reported, np.inf),
        ~np.isfinite(tuning[..., -1]),
    )
    return outcomes, passes


def _relative(workload: Workload, part: str, values: np.ndarray) -> np.ndarray:
    """(f - f*) / (f_0 - f*), f on that part of the data and f* there at the optimum of the training part; 0 if unknown."""
    best = 0.0
    if workload.optimum is not None:
        best = workload.optimum.value
        if part != "train":
            best = float(workload.objective(workload.optimum.params, getattr(workload, part)))
    with np.errstate(invalid="ignore", over="ignore"):
        return (values - best) / (values[:, :1] - best)


def _costs(
    arrays: Mapping[str, np.ndarray], protocol: Protocol, chosen: int, sampler: Sampler, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What it costs to reach the target, at an equal number of trials, and where the chosen trial ends."""
    cost, low, high = arrays["best_of"][min(protocol.budget, facts["trials"]) - 1]
    final = np.quantile(arrays["final"][chosen], [0.5, 0.1, 0.9], method="inverted_cdf")
    per_step = sampler.batch_size * facts["evaluations"]
    return {
        "cost": _or_none(cost),
        "cost_low": _or_none(low),
        "cost_high": _or_none(high),
        "reached": float(np.isfinite(arrays["costs"][chosen]).mean()),
        "example_gradients": _or_none(cost * facts["n"]),
        "steps": _or_none(cost * facts["n"] / per_step),
        "final": float(final[0]),
        "final_low": float(final[1]),
        "final_high": float(final[2]),
    }


def _seconds_per_pass(
    workload: Workload, contender: Contender, sampler: Sampler, chosen: Mapping[str, float], num_epochs: int
) -> float:
    timing = time_alone(workload, contender.make_rule, sampler, chosen, max(1, num_epochs // 10))
    passes = sampler.num_batches * sampler.batch_size / _examples(workload) * contender.evaluations
    return timing.seconds_per_epoch / passes


def _part(on_chunk: Callable[[lanes.Progress], None] | None, round_: int) -> Callable[[lanes.Progress], None] | None:
    """Tells the share of the whole: the first trials are three quarters of it, for more may follow."""
    if on_chunk is None:
        return None
    low, width = (0.0, 0.75) if round_ == 0 else (0.75 + 0.12 * (round_ - 1), 0.12)
    return lambda progress: on_chunk(progress._replace(share=low + width * progress.share))


def _examples(workload: Workload) -> int:
    return 1 if workload.train is None else len(workload.train.y)


def _count(made: Mapping[str, np.ndarray], budget: int) -> int:
    """Trials that were made: a rule without hyper-parameters has one."""
    return len(next(iter(made.values()))) if made else 1


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
