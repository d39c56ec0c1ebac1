"""Batch, stochastic or mini-batch gradient descent: which do I use, and why?

One rule fed by three samplers, on real data whose exact optimum is known, with rates chosen on other seeds than those
reported. The first figure is gradient descent alone; then come the adaptive rules, sampling with and without
replacement, and a large set.

    python experiments/batch_stochastic_minibatch.py            # under two minutes on two cores
    python experiments/batch_stochastic_minibatch.py --full     # every workload and rule, under twenty minutes

The number to expect (`EXPECTED`): where the stochastic curve of constant rate stops, over where η tr(C) / 4b says.
"""

import dataclasses
import sys
import time

import numpy as np

import research

EXPECTED = {"floor_over_prediction": (0.8, 1.25)}

TARGETS = (1e-2, 1e-4, 1e-6)
LARGE = "overlapping_50k"
FIXED_RATES = (2.0**-5, 2.0**-7)  # For the floors with and without replacement.
SMALL_RULE = "gradient_descent"


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    workload: tuple[str, ...] = ("breast_cancer", "diabetes")
    """Workloads with a known optimum; the first one has the first figure."""
    rule: tuple[str, ...] = ("gradient_descent", "heavy_ball", "rmsprop", "adam")
    """Update rules; gradient_descent is always among them."""
    batch_size: int = 32
    """Of the mini-batch regime."""
    passes: int = 300
    """Budget of every training, in passes over the data."""
    large_passes: int = 20
    """Budget on the large generated set; 0 leaves it out."""
    seeds: str = "0..9"
    """Seeds that are reported: 0..9, or 1,4,7."""
    tuning_seeds: str = "100..102"
    """Seeds on which rates are chosen; none of them may be reported."""
    width: int = 8
    """Lanes in a block; the bits of a cell depend on it."""


FULL = Config(
    workload=("breast_cancer", "diabetes", "diabetes_ridge", "digits"),
    rule=("gradient_descent", "heavy_ball", "nesterov", "adagrad", "rmsprop", "adam", "adamw"),
)


@dataclasses.dataclass(frozen=True)
class Regime:
    """A sampler with a word on its rate: what the experiment compares."""

    name: str
    batch_size: int | None = None  # None: the whole set.
    replacement: bool = False
    decaying: bool = False

    def sampler(self, n):
        """The sampler of this regime for n examples."""
        if self.batch_size is None:
            return research.samplers.full_batch(n)
        return research.samplers.minibatch(n, self.batch_size, replacement=self.replacement)

    def make_rule(self, rule, n):
        """learning_rate -> rule, its rate constant or falling as 1/sqrt(1 + passes)."""
        if not self.decaying:
            return rule
        return lambda learning_rate: rule(research.schedules.inverse_square_root(learning_rate, float(n)))


def theory_regimes(batch_size):
    """Those of the first figure: drawn with replacement, which is the case that the noise floor is derived for."""
    return (
        Regime("full batch"),
        Regime(f"mini-batch {batch_size}, with replacement", batch_size, replacement=True),
        Regime("stochastic, with replacement", 1, replacement=True),
        Regime("stochastic, decaying rate", 1, replacement=True, decaying=True),
    )


def practice_regimes(batch_size):
    """Those that people use: every epoch a new order."""
    return Regime("full batch"), Regime(f"mini-batch {batch_size}", batch_size), Regime("stochastic", 1)


def run(config, on_progress=None):
    """Tunes, trains and times every (workload, rule, regime); the answer is made from what came out."""
    seeds = research.runs.parse_seeds(config.seeds)
    tuning = research.runs.parse_seeds(config.tuning_seeds)
    jobs = plan(config)
    rows, arrays, programs = [], {}, {}
    for done, (workload, rule, regime, passes) in enumerate(jobs):
        label = f"{workload.name}, {rule}, {regime.name}"

        def on_chunk(share, done=done, label=label):
            if on_progress:
                on_progress(done + share, len(jobs), label)

        on_chunk(0.0)
        measured = research.studies.measure(
            workload,
            regime.make_rule(research.update_rules.find_rule(rule), len(workload.train.y)),
            regime.sampler(len(workload.train.y)),
            passes,
            seeds=seeds,
            tuning_seeds=tuning,
            ladder=research.studies.LADDERS.get(rule, research.studies.ANY_LADDER),
            width=config.width,
            on_chunk=on_chunk,
        )
        key = f"{workload.name}/{rule}/{regime.name}"
        rows.append(summary(workload, rule, regime, measured))
        arrays |= {f"{key}/passes": measured.trained.passes, f"{key}/gaps": measured.gaps}
        programs[key] = measured.program
    first = jobs[0][0]
    floors, floor_arrays = replacement_floors(first, programs, seeds, config.batch_size)
    deviations = deviations_from_optax(first, config.rule)
    numbers = {
        "rows": rows,
        "floors": floors,
        "deviations": deviations,
        "first": first.name,
        "large": LARGE if config.large_passes else None,
        "batch_size": config.batch_size,
        "optima": {w.name: optimum_facts(w) for w in {job[0].name: job[0] for job in jobs}.values()},
    }
    numbers |= headline(numbers)
    return research.runs.Result(answer(numbers), tables(numbers), arrays | floor_arrays, numbers)


def plan(config):
    """Every (workload, rule, regime, passes), after all names have been looked up: a typo stops nothing half way."""
    for name, value in (("passes", config.passes), ("batch_size", config.batch_size), ("width", config.width)):
        if value < 1:
            raise ValueError(f"{name} must be a positive integer; got {name}={value}.")
    if not config.workload or not config.rule:
        raise ValueError("workload and rule must each name at least one; got an empty list.")
    rules = dict.fromkeys((SMALL_RULE, *config.rule))
    for rule in rules:
        research.update_rules.find_rule(rule)
    jobs = []
    for name in dict.fromkeys(config.workload):
        workload = research.workloads.make_workload(name)
        if workload.train is None or workload.optimum is None:
            raise ValueError(f"workload {name!r} has no data to sample or no known optimum; choose one that has both.")
        for rule in rules:
            theory = theory_regimes(config.batch_size) if rule == SMALL_RULE else ()
            regimes = dict.fromkeys(theory + practice_regimes(config.batch_size))
            jobs += [(workload, rule, regime, config.passes) for regime in regimes]
    if config.large_passes:
        large = research.workloads.make_workload(LARGE)
        jobs += [(large, SMALL_RULE, regime, config.large_passes) for regime in practice_regimes(config.batch_size)]
    for workload, _, regime, _ in jobs:
        regime.sampler(len(workload.train.y))
    return jobs


def summary(workload, rule, regime, measured):
    """The facts of one (workload, rule, regime), as JSON."""
    trained, gaps = measured.trained, measured.gaps
    n, sampler = len(workload.train.y), measured.program.sampler
    per_pass = measured.timing.seconds_per_epoch * n / (sampler.num_batches * sampler.batch_size)
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
        "alone": measured.timing._asdict(),
        "seconds_per_pass": per_pass,
        "initial_gap": float(np.median(gaps[:, 0])),
        "floor": interval(late(trained.passes, relative)),
        "hash": research.runs.hash_arrays(trained.values, *[np.asarray(p) for p in leaves(trained.params)]),
        "targets": {},
    }
    for target in TARGETS:
        median, low, high = research.studies.median_interval(
            research.studies.first_reached(trained.passes, gaps, target)
        )
        facts["targets"][f"{target:.0e}"] = [none_if_never(v) for v in (median, low, high)]
    return facts


def leaves(tree):
    """The arrays of a pytree, in JAX's order."""
    import jax

    return jax.tree.leaves(tree)


def late(passes, gaps):
    """Mean gap of each seed over the last third of the budget: where the curve has come to rest, if it has."""
    return gaps[:, passes >= passes[-1] * 2 / 3].mean(axis=1)


def interval(samples):
    """[median, low, high] as JSON numbers."""
    return [float(v) for v in research.studies.median_interval(samples)]


def none_if_never(passes):
    """JSON has no infinity: a target that is not reached is null."""
    return float(passes) if np.isfinite(passes) else None


def optimum_facts(workload):
    """How exact the yardstick is."""
    optimum = workload.optimum
    return {
        "value": optimum.value,
        "gradient_norm": optimum.gradient_norm,
        "relative_gradient_norm": optimum.gradient_norm / optimum.initial_gradient_norm,
        "solver": optimum.solver,
    }


def replacement_floors(workload, programs, seeds, batch_size):
    """Where gradient descent comes to rest at fixed rates, with and without replacement, beside η tr(C) / 4b."""
    trace = float(
        research.objectives.gradient_covariance_trace(workload.objective, workload.optimum.params, workload.train)
    )
    rows, arrays = [], {}
    for size, name in ((batch_size, f"mini-batch {batch_size}"), (1, "stochastic")):
        for rate in FIXED_RATES:
            row = {"regime": name, "rate": rate, "predicted": rate * trace / (4 * size)}
            for how, regime in (("with", f"{name}, with replacement"), ("without", name)):
                program = programs[f"{workload.name}/{SMALL_RULE}/{regime}"]
                cells = {"seed": np.array(seeds), "learning_rate": np.full(len(seeds), rate)}
                trained = research.lanes.train(program, cells)
                gaps = trained.values - workload.optimum.value
                row[how] = interval(late(trained.passes, gaps))
                arrays |= {
                    f"floors/{regime}/{rate}/passes": trained.passes,
                    f"floors/{regime}/{rate}/gaps": gaps,
                }
            rows.append(row)
    return {"workload": workload.name, "trace": trace, "rows": rows}, arrays


def deviations_from_optax(workload, rules):
    """For each rule the largest deviation from optax's over a whole trajectory, computed here and now."""
    import jax
    import jax.numpy as jnp

    params = workload.init(jax.random.key(0))
    return {
        rule: {
            name: research.proofs.deviation_from_optax(
                rule, workload.objective, params, workload.train, learning_rate=2.0**-5, num_steps=200, dtype=dtype
            ).largest
            for name, dtype in (("float32", jnp.float32), ("float64", jnp.float64))
        }
        for rule in rules
    }


def find(numbers, workload, regime, rule=SMALL_RULE):
    """The row of one program."""
    return next(
        r for r in numbers["rows"] if (r["workload"], r["rule"], r["regime"]) == (workload, rule, regime)
    )


def cheapest(rows, target, cost):
    """The row of lowest median cost to the target, or None where none reaches it."""
    reached = [row for row in rows if row["targets"][target][0] is not None]
    return min(reached, key=lambda row: row["targets"][target][0] * cost(row), default=None)


def headline(numbers):
    """The numbers that the answer is made of."""
    batch = numbers["batch_size"]
    theory = [find(numbers, numbers["first"], regime.name) for regime in theory_regimes(batch)]
    practice = [find(numbers, numbers["first"], regime.name) for regime in practice_regimes(batch)]
    constant = theory[2]
    floor = numbers["floors"]["trace"] * constant["rate"] / 4
    return {
        "floor_measured": constant["floor"][0] * constant["initial_gap"],
        "floor_predicted": floor,
        "floor_over_prediction": [row["with"][0] / row["predicted"] for row in numbers["floors"]["rows"]],
        "without_lower_by": [row["with"][0] / row["without"][0] for row in numbers["floors"]["rows"]],
        "fastest": {
            target: {"passes": name(cheapest(practice, target, lambda row: 1.0)),
                     "seconds": name(cheapest(practice, target, lambda row: row["seconds_per_pass"]))}
            for target in practice[0]["targets"]
        },
    }


def name(row):
    """Of its regime."""
    return row and row["regime"]
