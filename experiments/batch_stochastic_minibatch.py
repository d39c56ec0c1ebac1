"""Batch, stochastic or mini-batch gradient descent: which do I use, and why?

Each rule is combined with three samplers on real data whose exact optimum is known.
Rates are chosen on seeds that are not reported. The first figure shows only gradient
descent. The other figures show the other rules, sampling with and without
replacement, and a large data set.

    # Under two minutes on two cores.
    python experiments/batch_stochastic_minibatch.py
    # Every workload and rule, four minutes there.
    python experiments/batch_stochastic_minibatch.py --full

Expected number (`EXPECTED`): the final f - f* of gradient descent at a constant rate η,
on examples drawn with replacement, divided by the prediction η tr(C) / (4b). C is the
covariance of the gradients of single examples, and b is the batch size.
"""

import concurrent.futures
import dataclasses
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import research

EXPECTED = {"floor_over_prediction": (0.8, 1.25)}
TIMES_COMPILATION = True  # So compiled programs are not kept on disk.


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    workload: tuple[str, ...] = ("breast_cancer", "diabetes")
    """Workloads with a known optimum. The first figure shows the first workload."""
    rule: tuple[str, ...] = ("gradient_descent", "heavy_ball", "rmsprop", "adam")
    """Update rules. gradient_descent is always included."""
    batch_size: int = 32
    """Batch size of the mini-batch regime."""
    passes: int = 150
    """Passes over the data in every training."""
    large_passes: int = 5
    """Passes over the large generated set. 0 leaves this set out."""
    seeds: str = "0..9"
    """Reported seeds, written as 0..9 or as 1,4,7."""
    tuning_seeds: str = "100..102"
    """Seeds for the choice of rates. They must differ from the reported seeds."""
    width: int = 8
    """Number of runs trained together. The last bits of each run depend on it."""
    full_batch_width: int = 16
    """Number of full-batch runs trained together, which are faster in larger groups.
    The last bits of each run depend on it."""


FULL = Config(
    workload=("breast_cancer", "diabetes", "diabetes_ridge", "digits"),
    rule=(
        "gradient_descent",
        "heavy_ball",
        "nesterov",
        "adagrad",
        "rmsprop",
        "adam",
        "adamw",
    ),
)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np

from experiments._trainings import parse_both_seeds
from research.checks import check_count
from research.cli.progress import OnProgress
from research.tuning import Measured, Regime
from research.types import Checkpoints

TARGETS = (1e-2, 1e-4, 1e-6)
LARGE = "overlapping_50k"
FIXED_RATES = {
    "mini-batch": (2.0**-1, 2.0**-3),
    "stochastic": (2.0**-5, 2.0**-7),
}  # Rates at which the floors, the levels where f - f* stops falling, are measured.
FIRST_RULE = "gradient_descent"
THREADS = 2  # Number of combinations that are compiled and trained at the same time.
PROOF_RATE, PROOF_STEPS = (
    2.0**-8,
    200,
)  # Rate and steps of the trajectory on which each rule is compared with optax.


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Tune, train and time every combination of workload, rule and regime."""
    checkpoints = checkpoints or research.types.no_checkpoints
    seeds = research.runs.parse_seeds(config.seeds)
    tuning = research.runs.parse_seeds(config.tuning_seeds)
    jobs = plan(config)
    work = Work(jobs, on_progress, checkpoints)
    rows, arrays = [], {}
    for job, saved in zip(jobs, train_all(config, work, seeds, tuning), strict=True):
        key, rate = key_of(job), saved.values["rate"]

        def compute(
            parts: Checkpoints, key: str = key, job: tuple = job, rate: float = rate
        ):
            # A resumed run has not compiled all trainings.
            training = work.alone.get(key) or compile_alone(job, rate)
            return research.types.Saved({}, timing_of(job, training))

        timing = research.runs.remembered(checkpoints, f"alone/{key}", compute)
        rows.append(saved.values | timing.values)
        arrays |= {f"{key}/{name}": array for name, array in saved.arrays.items()}
    first = jobs[0][0]
    floors = research.runs.remembered(
        checkpoints,
        "floors",
        lambda parts: replacement_floors(config, first, work.programs, seeds, parts),
    )
    numbers = {
        "rows": rows,
        "floors": floors.values,
        "deviations": deviations_from_optax(first, config.rule),
        "first": first.name,
        "large": LARGE if config.large_passes else None,
        "batch_size": config.batch_size,
        "proof": {"rate": PROOF_RATE, "steps": PROOF_STEPS},
        "optima": {
            w.name: optimum_facts(w)
            for w in {job[0].name: job[0] for job in jobs}.values()
        },
    }
    numbers |= headline(numbers)
    return research.runs.Findings(arrays | floors.arrays, numbers)


def regimes_of(config: Config, rule: str):
    """Return the regimes of a rule.

    A regime is a way to draw batches, with a learning rate that is constant or decays.
    The first rule gets the regimes for which theory predicts the final f - f*, and the
    regimes of practice. The other rules get only the regimes of practice.
    """
    theory = (
        research.tuning.theory_regimes(config.batch_size) if rule == FIRST_RULE else ()
    )
    return tuple(
        dict.fromkeys(theory + research.tuning.practice_regimes(config.batch_size))
    )


def key_of(job: tuple):
    """Return the name of a combination of workload, rule and regime."""
    workload, rule, regime, _ = job
    return f"{workload.name}/{rule}/{regime.name}"


class Work:
    """Progress, checkpoints and compiled programs, which all threads use."""

    def __init__(
        self,
        jobs: Sequence[tuple],
        on_progress: OnProgress | None,
        checkpoints: Checkpoints,
    ):
        self.jobs, self.on_progress = jobs, on_progress
        self.programs, self.alone = {}, {}
        self.shares = dict.fromkeys(map(key_of, jobs), 0.0)
        self.stopped, self.lock = threading.Event(), threading.RLock()
        self.checkpoints = self.one_at_a_time(checkpoints)

    def show(self, key: str, share: float, message: str):
        """Show the progress of all combinations together.

        If another thread has stopped, stop here too, as Ctrl-C would.
        """
        if self.stopped.is_set():
            raise KeyboardInterrupt
        with self.lock:
            self.shares[key] = share
            if self.on_progress:
                self.on_progress(sum(self.shares.values()), len(self.jobs), message)

    def one_at_a_time(self, checkpoints: Checkpoints) -> Checkpoints:
        """Return checkpoints of which only one is read or written at a time."""

        def checkpoint(name: str):
            load, save, due = checkpoints(name)

            def load_alone():
                with self.lock:
                    return load()

            def save_alone(saved: research.types.Saved):
                with self.lock:
                    save(saved)

            return research.types.Checkpoint(load_alone, save_alone, due)

        return checkpoint


def train_all(config: Config, work: Work, seeds: Sequence[int], tuning: Sequence[int]):
    """Return the facts and arrays of all combinations, trained in THREADS threads.

    While one thread traces or trains, another can compile. If a combination fails or
    is stopped, the others stop and are saved, and the exception is raised.
    """
    train = lambda job: train_one(config, job, work, seeds, tuning)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(train, job) for job in work.jobs]
        first = concurrent.futures.FIRST_EXCEPTION
        try:
            for future in concurrent.futures.wait(futures, return_when=first).done:
                future.result()
        finally:
            work.stopped.set()
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]


def train_one(
    config: Config,
    job: tuple,
    work: Work,
    seeds: Sequence[int],
    tuning: Sequence[int],
):
    """Tune and train one combination, and compile what is timed later."""
    workload, rule, regime, _ = job
    key, label = key_of(job), f"{workload.name}, {rule}, {regime.name}"

    def compute(parts: Checkpoints):
        on_chunk = lambda at: work.show(key, at.share, f"{at}: {label}")
        measured = measure(config, job, seeds, tuning, on_chunk, parts)
        work.programs[key] = measured.program
        work.alone[key] = compile_alone(job, measured.choice.rate)
        return facts_of_runs(job, measured)

    work.show(key, 0.0, label)
    saved = research.runs.remembered(work.checkpoints, key, compute)
    work.show(key, 1.0, label)
    return saved


def measure(
    config: Config,
    job: tuple,
    seeds: Sequence[int],
    tuning: Sequence[int],
    on_chunk: Callable,
    checkpoints: Checkpoints,
):
    """Tune and train one combination of workload, rule and regime."""
    workload, rule, regime, passes = job
    return research.tuning.measure(
        workload,
        make_rule(rule, regime, workload),
        regime.sampler(len(workload.train.y)),
        passes,
        seeds=seeds,
        tuning_seeds=tuning,
        ladder=regime.ladder(rule),
        width=config.full_batch_width if regime.batch_size is None else config.width,
        on_chunk=on_chunk,
        checkpoints=checkpoints,
        timed=False,
    )


def facts_of_runs(job: tuple, measured: Measured):
    """Return the facts and the arrays of the runs of one combination."""
    workload, rule, regime, _ = job
    trained = measured.trained
    arrays = {
        "passes": trained.passes,
        "gaps": measured.gaps,
        "hashes": cell_hashes(trained),
    }
    return research.types.Saved(arrays, summary(workload, rule, regime, measured))


def compile_alone(job: tuple, rate: float):
    """Compile one training of a combination, to be timed while no other work runs."""
    workload, rule, regime, passes = job
    return research.tuning.compile_alone(
        workload,
        make_rule(rule, regime, workload),
        regime.sampler(len(workload.train.y)),
        {"learning_rate": rate},
        max(1, passes // 30),
    )


def timing_of(job: tuple, alone: research.tuning.TrainingAlone):
    """Time one training of a combination, and return its facts as JSON."""
    workload, _, regime, _ = job
    sampler, n = regime.sampler(len(workload.train.y)), len(workload.train.y)
    timing = alone.time()
    per_pass = timing.seconds_per_epoch * n / (sampler.num_batches * sampler.batch_size)
    return {"alone": timing._asdict(), "seconds_per_pass": per_pass}


def make_rule(rule: str, regime: Regime, workload: Any):
    """Return a function learning_rate -> rule for the regime."""
    return regime.make_rule(
        research.update_rules.find_rule(rule), len(workload.train.y)
    )


def check(config: Config) -> None:
    """Raise ValueError if a number, a list or the seeds of the config are wrong."""
    for name, least in (
        ("passes", 1),
        ("large_passes", 0),
        ("width", 1),
        ("full_batch_width", 1),
    ):
        check_count(name, getattr(config, name), least=least)
    if config.batch_size < 2:
        raise ValueError(
            "batch_size must be at least 2, because stochastic descent already has "
            f"batches of one example; got batch_size={config.batch_size}."
        )
    parse_both_seeds(config)
    if not config.workload or not config.rule:
        raise ValueError(
            "workload and rule must each name at least one; got an empty list."
        )


def plan(config: Config):
    """Return a list of all tuples (workload, rule, regime, passes).

    The config is checked and all names are looked up first, so that a typo cannot stop
    a run half way.
    """
    check(config)
    rules = dict.fromkeys((FIRST_RULE, *config.rule))
    for rule in rules:
        research.update_rules.find_rule(rule)
    jobs = []
    for name in dict.fromkeys(config.workload):
        workload = research.workloads.make_workload(name)
        if workload.train is None or workload.optimum is None:
            raise ValueError(
                f"workload {name!r} has no data to sample or no known optimum; choose "
                "one that has both."
            )
        for rule in rules:
            jobs += [
                (workload, rule, regime, config.passes)
                for regime in regimes_of(config, rule)
            ]
    if config.large_passes and LARGE not in config.workload:
        large = research.workloads.make_workload(LARGE)
        jobs += [
            (large, FIRST_RULE, regime, config.large_passes)
            for regime in research.tuning.practice_regimes(config.batch_size)
        ]
    for workload, _, regime, _ in jobs:
        regime.sampler(len(workload.train.y))
    return jobs


def summary(workload: Any, rule: str, regime: Regime, measured: Measured):
    """Return the facts of one combination of workload, rule and regime, as JSON."""
    trained, gaps = measured.trained, measured.gaps
    n, sampler = len(workload.train.y), measured.program.sampler
    relative = gaps / gaps[:, :1]
    facts = {
        "workload": workload.name,
        "rule": rule,
        "regime": regime.name,
        "n": n,
        "batch_size": sampler.batch_size,
        "rate": measured.choice.rate,
        "rates_tried": measured.choice.rates.tolist(),
        "rate_at_edge": measured.choice.at_edge,
        "widened": measured.choice.widened,
        "cells": measured.cells,
        "diverged": int((trained.first_bad_step >= 0).sum()),
        "first_bad_step": int(trained.first_bad_step.max()),
        "compile_seconds": measured.compile_seconds,
        "initial_gap": float(np.median(gaps[:, 0])),
        "floor": interval(late(trained.passes, relative)),
        "targets": {},
    }
    for target in TARGETS:
        median, low, high = research.statistics.median_interval(
            research.statistics.first_reached(trained.passes, gaps, target)
        )
        facts["targets"][f"{target:.0e}"] = [
            none_if_never(v) for v in (median, low, high)
        ]
    return facts


def cell_hashes(trained: Any):
    """Return the SHA-256 of each run's values and last parameters.

    The result is an array of bytes of shape (runs, 32).
    """
    leaves = [trained.values, *map(np.asarray, jax.tree.leaves(trained.params))]
    digests = [
        research.runs.hash_arrays(*[leaf[i] for leaf in leaves])
        for i in range(len(trained.values))
    ]
    return np.array([list(bytes.fromhex(digest)) for digest in digests], np.uint8)


def late(passes: np.ndarray, gaps: np.ndarray):
    """Return the mean gap of each seed over the last third of the budget.

    If the curve has stopped falling, this mean is the floor of the curve.
    """
    return gaps[:, passes >= passes[-1] * 2 / 3].mean(axis=1)


def interval(samples: np.ndarray):
    """Return [median, low, high] as JSON numbers."""
    return [float(v) for v in research.statistics.median_interval(samples)]


def none_if_never(passes: Any):
    """Replace ∞, which means that the target was not reached, by None for JSON."""
    return float(passes) if np.isfinite(passes) else None


def optimum_facts(workload: Any):
    """Return numbers that show how exact the optimum is."""
    optimum = workload.optimum
    return {
        "value": optimum.value,
        "gradient_norm": optimum.gradient_norm,
        "relative_gradient_norm": optimum.gradient_norm / optimum.initial_gradient_norm,
        "solver": optimum.solver,
    }


def replacement_floors(
    config: Config,
    workload: Any,
    programs: dict[str, Any],
    seeds: Sequence[int],
    checkpoints: Checkpoints,
):
    """Measure gradient descent's floors at fixed rates, with and without replacement.

    A floor is the level at which f - f* stops falling. The predicted floor is
    η tr(C) / (4b).
    """
    trace = float(
        research.objectives.gradient_covariance_trace(
            workload.objective, workload.optimum.params, workload.train
        )
    )
    regimes = {regime.name: regime for regime in regimes_of(config, FIRST_RULE)}
    rows, arrays = [], {}
    for size, name in (
        (config.batch_size, f"mini-batch {config.batch_size}"),
        (1, "stochastic"),
    ):
        for rate in FIXED_RATES[name.split()[0]]:
            row = {"regime": name, "rate": rate, "predicted": rate * trace / (4 * size)}
            for how, regime in (
                ("with", f"{name}, with replacement"),
                ("without", name),
            ):
                program = floor_program(config, workload, regimes[regime], programs)
                cells = {
                    "seed": np.array(seeds),
                    "learning_rate": np.full(len(seeds), rate),
                }
                parts = lambda part, regime=regime: checkpoints(f"{regime}/{part}")
                trained = research.descent.sweep(program, cells, checkpoints=parts)
                gaps = trained.values - workload.optimum.value
                row[how] = interval(late(trained.passes, gaps))
                arrays |= {
                    f"floors/{regime}/{rate}/passes": trained.passes,
                    f"floors/{regime}/{rate}/gaps": gaps,
                }
            rows.append(row)
    return research.types.Saved(
        arrays, {"workload": workload.name, "trace": trace, "rows": rows}
    )


def floor_program(
    config: Config, workload: Any, regime: Regime, programs: dict[str, Any]
):
    """Return the compiled training of gradient descent in a regime.

    A resumed run has not compiled it. It is then compiled and added to `programs`.
    """
    key = key_of((workload, FIRST_RULE, regime, config.passes))
    if key not in programs:
        programs[key] = research.descent.compile_sweep(
            workload,
            make_rule(FIRST_RULE, regime, workload),
            regime.sampler(len(workload.train.y)),
            config.passes,
            width=config.width,
        )
    return programs[key]


def deviations_from_optax(workload: Any, rules: Sequence[str]):
    """Compute each rule's largest deviation from optax over a trajectory.

    Rules that do not exist in optax are left out.
    """
    params = workload.init(jax.random.key(0))
    return {
        rule: {
            name: research.verification.deviation_from_optax(
                rule,
                workload.objective,
                params,
                workload.train,
                PROOF_RATE,
                PROOF_STEPS,
                dtype,
            )._asdict()
            for name, dtype in (("float32", jnp.float32), ("float64", jnp.float64))
        }
        for rule in dict.fromkeys((FIRST_RULE, *rules))
        if not isinstance(research.verification.CARDS[rule].optax, str)
    }


def find(numbers: dict[str, Any], workload: str, regime: str, rule: str = FIRST_RULE):
    """Return the row of one combination of workload, regime and rule."""
    return next(
        r
        for r in numbers["rows"]
        if (r["workload"], r["rule"], r["regime"]) == (workload, rule, regime)
    )


def headline(numbers: dict[str, Any]):
    """Return the numbers that the answer uses."""
    batch = numbers["batch_size"]
    constant = find(
        numbers, numbers["first"], research.tuning.theory_regimes(batch)[2].name
    )
    rows = numbers["floors"]["rows"]
    best = {}
    for workload in dict.fromkeys(row["workload"] for row in numbers["rows"]):
        practice = [
            find(numbers, workload, regime.name)
            for regime in research.tuning.practice_regimes(batch)
        ]
        best[workload] = recommended(practice)
    return {
        "floor_measured": constant["floor"][0] * constant["initial_gap"],
        "floor_predicted": constant["rate"] * numbers["floors"]["trace"] / 4,
        "floor_over_prediction": [row["with"][0] / row["predicted"] for row in rows],
        "without_lower_by": [row["with"][0] / row["without"][0] for row in rows],
        "first_in_seconds": best,
    }


def recommended(rows: Sequence[dict[str, Any]]):
    """Return the regime that is the fastest in seconds, and its target.

    The target is the strictest target that any regime reaches.
    """
    for target in reversed(rows[0]["targets"]):
        costs = {
            row["regime"]: row["targets"][target][0] * row["seconds_per_pass"]
            for row in rows
            if row["targets"][target][0] is not None
        }
        if costs:
            return {
                "regime": min(costs, key=lambda regime: costs[regime]),
                "target": target,
            }
    return {"regime": None, "target": None}
