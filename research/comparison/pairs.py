"""One rule on one workload: every trial on every seed, and what became of it."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from research import descent, samplers
from research.checks import (
    check_callable,
    check_count,
    check_flag,
    check_instance,
    check_mapping,
)
from research.comparison._contenders import Contender
from research.comparison.protocol import Protocol
from research.descent._sweep_program import check_workload
from research.statistics.bootstrap import choice_weights
from research.statistics.costs import passes_to_target, penalised_passes
from research.statistics.differences import best_of
from research.statistics.scores import Scores, choose
from research.tuning.spaces import Range, added_trials, edges, trials, widen
from research.tuning.timing import time_alone
from research.types import Checkpoints, Sampler, Saved, Workload, no_checkpoints
from research.workloads import known_optimum

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
    on_chunk: Callable[[descent.SweepProgress], None] | None = None,
    checkpoints: Checkpoints = no_checkpoints,
) -> Saved:
    """Trains every trial of a rule on every seed of a workload.

    A choice in the outer tenth of a range (the outer 1 / budget, with fewer than ten trials, the outer quarter at most)
    widens it by a third beyond that side, with a third more trials, twice at most. One trial is the defaults alone.

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
      ValueError: The workload lacks a part, or its optimum is not known.
    """
    check_workload("workload", workload)
    check_instance(
        "contender",
        contender,
        Contender,
        "Make one by research.comparison.contenders(rules).",
    )
    check_instance(
        "protocol",
        protocol,
        Protocol,
        "Make one by research.comparison.make_protocol().",
    )
    check_flag("timed", timed)
    if on_chunk is not None:
        check_callable("on_chunk", on_chunk, "progress")
    check_callable("checkpoints", checkpoints, "name")
    known_optimum(workload)
    sampler = sampler_of(workload, protocol.batch_size)
    num_epochs = int(
        protocol.passes // contender.evaluations
    )  # `plan` has seen to it that it is one at least.
    space = dict(contender.space)
    program = descent.compile_sweep(
        workload,
        contender.make_rule,
        sampler,
        num_epochs,
        hyperparameters=tuple(space),
        width=protocol.width,
        evaluate_on=(protocol.tune_on, protocol.reported_on),
    )
    made = trials(space, protocol.budget)
    count = protocol.budget if made else 1
    most = MOST_WIDENINGS if protocol.budget > 1 else 0
    outcomes, passes = _train(
        program,
        workload,
        contender,
        protocol,
        made,
        count,
        _part(on_chunk, 0),
        checkpoints,
    )
    hit: list[str] = []
    outer = min(
        0.25, max(0.1, 1 / protocol.budget)
    )  # Few trials leave wide gaps: the last of them is then an edge.
    for widened in range(most + 1):
        chosen = choose(outcomes.tuning)
        hit = [
            f"{name}, {side}"
            for name, side in edges(
                space, {name: v[chosen] for name, v in made.items()}, outer
            )
        ]
        wider = (
            [widen(space, *place.split(", ")) for place in hit]
            if widened < most
            else []
        )
        wider = [(whole, part) for whole, part in wider if part is not None]
        if not wider:
            break
        (space, part), added = wider[0], math.ceil(protocol.budget / 3)
        more = added_trials(part, added, start=count)
        new, _ = _train(
            program,
            workload,
            contender,
            protocol,
            more,
            added,
            _part(on_chunk, widened + 1),
            checkpoints,
        )
        made = {name: np.concatenate([made[name], more[name]]) for name in made}
        outcomes = _Outcomes(
            *(np.concatenate(both) for both in zip(outcomes, new, strict=True))
        )
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
        swept = {
            name: np.full(len(AROUND), value) for name, value in chosen_values.items()
        }
        swept[rate] *= AROUND
        around, _ = _train(
            program,
            workload,
            contender,
            protocol,
            swept,
            len(AROUND),
            None,
            checkpoints,
            tuning_only=True,
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
        "compile_seconds": program.compile_seconds,
    }
    facts |= (
        _robustness(arrays)
        | _costs(arrays, protocol, chosen, sampler, facts)
        | _yardstick(workload, protocol)
    )
    per_pass = (
        _seconds_per_pass(workload, contender, sampler, chosen_values, num_epochs)
        if timed
        else None
    )
    seconds = (
        None if per_pass is None or facts["cost"] is None else per_pass * facts["cost"]
    )
    return Saved(arrays, facts | {"seconds_per_pass": per_pass, "seconds": seconds})


def sampler_of(workload: Workload, batch_size: int | None) -> Sampler:
    """Mini-batches of that size, or the full batch where that is asked for (None) or there is no data.

    Raises:
      ValueError: There are fewer examples.
    """
    check_instance(
        "workload",
        workload,
        Workload,
        "Make one by research.workloads.make_workload(name).",
    )
    if batch_size is not None:
        check_count("batch_size", batch_size)
    n = _examples(workload)
    if workload.train is None or batch_size is None:
        return samplers.full_batch(n)
    if batch_size > n:
        raise ValueError(
            f"batch_size={batch_size} is more than the {n} examples of {workload.name}; give at most that, or None for all "
            "of them (--batch-size 0)."
        )
    return samplers.minibatch(n, batch_size)


def scores_of(arrays: Mapping[str, np.ndarray]) -> Scores:
    """What the statistics of a pair are made of, from its arrays.

    Example:
      >>> arrays = {"tuning": np.ones((4, 3)), "costs": np.ones((4, 20)), "passes": np.arange(6.0)}
      >>> scores_of(arrays).budget
      5.0
    """
    check_mapping("arrays", arrays, "names to arrays")
    return Scores(arrays["tuning"], arrays["costs"], float(arrays["passes"][-1]))


def rate_name(space: Mapping[str, Range]) -> str | None:
    """The hyper-parameter that is the rate: the one of that name, else the first on a log scale; None where there is none."""
    if "learning_rate" in space:
        return "learning_rate"
    return next((name for name, range_ in space.items() if range_.scale == "log"), None)


def robust_rates(rates: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest rate around the best whose score is within 10 % of the best, interpolated in log rate.

    Args:
      rates: Ascending, shape (r,).
      scores: Lower is better, shape (r, m); their means over m count.
    Returns:
      (low, high); where good rates reach an end of those given, that end.
    Example:
      >>> rates = np.array([0.01, 0.1, 1.0, 10.0])
      >>> low, high = robust_rates(rates, np.array([[3.0], [2.0], [2.0], [3.0]]))
      >>> round(low, 4), round(high, 4)
      (0.0631, 1.5849)
    """
    logs, means = np.log10(rates), scores.mean(axis=1)
    best, limit = int(np.argmin(means)), AS_GOOD * means.min()

    def edge(step: int) -> float:
        at = best
        while 0 <= at + step < len(means) and means[at + step] <= limit:
            at += step
        beyond = at + step
        if not 0 <= beyond < len(means):
            return rates[at]
        return 10 ** (
            logs[at]
            + (logs[beyond] - logs[at])
            * (limit - means[at])
            / (means[beyond] - means[at])
        )

    return float(edge(-1)), float(edge(1))


def _robustness(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Decades of rates within 10 % of the best; None where no rate gets to the target within the budget of passes."""
    nothing: dict[str, Any] = dict.fromkeys(
        ("robustness", "robust_low", "robust_high", "robust_at_end")
    )
    if (
        "rates" not in arrays
        or arrays["rate_scores"].mean(axis=1).min() > arrays["passes"][-1]
    ):
        return nothing
    low, high = robust_rates(arrays["rates"], arrays["rate_scores"])
    at_end = low == arrays["rates"][0] or high == arrays["rates"][-1]
    return {
        "robustness": math.log10(high / low),
        "robust_low": low,
        "robust_high": high,
        "robust_at_end": at_end,
    }


def _yardstick(workload: Workload, protocol: Protocol) -> dict[str, Any]:
    """By which a reader of two studies sees whether they are about the same problem."""
    start = jax.random.fold_in(jax.random.key(protocol.seeds[0]), descent.INIT)
    initial = float(workload.objective(workload.init(start), workload.train))
    return {"initial": initial, "optimum": known_optimum(workload).value}


def _train(
    program: descent.SweepProgram,
    workload: Workload,
    contender: Contender,
    protocol: Protocol,
    made: Mapping[str, np.ndarray],
    count: int,
    on_chunk: Callable[[descent.SweepProgress], None] | None,
    checkpoints: Checkpoints,
    tuning_only: bool = False,
) -> tuple[_Outcomes, np.ndarray]:
    """The outcomes of some trials, and the passes at which they were looked at."""
    seeds = np.array(protocol.tuning_seeds + (() if tuning_only else protocol.seeds))
    cells = {name: np.repeat(values, len(seeds)) for name, values in made.items()}
    trained = descent.sweep(
        program, {"seed": np.tile(seeds, count), **cells}, on_chunk, checkpoints
    )
    passes = trained.passes * contender.evaluations
    gaps = {
        part: _relative(workload, part, values)
        for part, values in trained.values_on.items()
    }
    gaps = {
        part: values.reshape(count, len(seeds), -1) for part, values in gaps.items()
    }
    m = len(protocol.tuning_seeds)
    tuning, reported = gaps[protocol.tune_on][:, :m], gaps[protocol.reported_on][:, m:]
    outcomes = _Outcomes(
        penalised_passes(passes, tuning, protocol.target),
        passes_to_target(passes, reported, protocol.target),
        np.where(np.isfinite(reported), reported, np.inf),
        (trained.first_bad_step >= 0).reshape(count, -1)[:, :m]
        | ~np.isfinite(tuning[..., -1]),
    )
    return outcomes, passes


def _relative(workload: Workload, part: str, values: np.ndarray) -> np.ndarray:
    """(f - f*) / (f_0 - f*), f on that part of the data and f* there at the optimum of the training part."""
    optimum = known_optimum(workload)
    best = optimum.value
    if part != "train":
        best = float(workload.objective(optimum.params, getattr(workload, part)))
    initial = (
        values[:, :1] - best
    )  # On held-out data it may not be positive: there is no share of such a gap.
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        return np.where(initial > 0, (values - best) / initial, np.nan)


def _costs(
    arrays: Mapping[str, np.ndarray],
    protocol: Protocol,
    chosen: int,
    sampler: Sampler,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """What it costs to reach the target, at an equal number of trials, and where the chosen trial ends."""
    cost, low, high = arrays["best_of"][min(protocol.budget, facts["trials"]) - 1]
    reached = np.isfinite(arrays["costs"]).mean(axis=1)
    final = np.quantile(arrays["final"][chosen], [0.5, 0.1, 0.9], method="inverted_cdf")
    per_step = sampler.batch_size * facts["evaluations"]
    return {
        "cost": _or_none(cost),
        "cost_low": _or_none(low),
        "cost_high": _or_none(high),
        "reached": float(
            choice_weights(arrays["tuning"].mean(axis=1), protocol.budget) @ reached
        ),
        "example_gradients": _or_none(cost * facts["n"]),
        "steps": _or_none(cost * facts["n"] / per_step),
        "final": float(final[0]),
        "final_low": float(final[1]),
        "final_high": float(final[2]),
    }


def _seconds_per_pass(
    workload: Workload,
    contender: Contender,
    sampler: Sampler,
    chosen: Mapping[str, float],
    num_epochs: int,
) -> float:
    timing = time_alone(
        workload, contender.make_rule, sampler, chosen, max(1, num_epochs // 10)
    )
    passes = (
        sampler.num_batches
        * sampler.batch_size
        / _examples(workload)
        * contender.evaluations
    )
    return timing.seconds_per_epoch / passes


def _part(
    on_chunk: Callable[[descent.SweepProgress], None] | None, round_: int
) -> Callable[[descent.SweepProgress], None] | None:
    """Tells the share of the whole: the first trials are three quarters of it, for more may follow."""
    if on_chunk is None:
        return None
    low, width = (0.0, 0.75) if round_ == 0 else (0.75 + 0.12 * (round_ - 1), 0.12)
    return lambda progress: on_chunk(
        progress._replace(share=low + width * progress.share)
    )


def _examples(workload: Workload) -> int:
    return samplers.num_examples(workload.train) or 1


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
