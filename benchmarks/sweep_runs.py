"""Define the runs of the main experiment that are timed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.clock import seconds_of
from benchmarks.problems import (
    BATCH_SIZE,
    DTYPE,
    MODELS,
    REGIMES,
    draw_order,
    make_sampler,
    training_data,
)
from research import descent, tuning, workloads
from research.descent import _shared_programs
from research.types import Params, Sampler, Workload

MODEL = "logistic"
TUNING_SEEDS, SEEDS = (100, 101, 102), tuple(range(10))
CHOSEN = (8.0, 0.25, 1 / 128)  # Rates of the ten reported seeds, by regime.
# The experiment's, but 10 for stochastic descent, because PyTorch's loop would take ten
# minutes.
EPOCHS = (150, 150, 10)
# Beyond it a training is chaotic and magnifies rounding to whole digits.
LARGEST_STABLE = (8.0, 1.0, 1 / 16)


class Sweep(NamedTuple):
    """The runs and what they share.

    Attributes:
      regime, workload, sampler, num_epochs: As of one program.
      seeds, rates: One entry a run; in a study, rates has a row a run, with a
        column for each hyper-parameter.
      starts: Initial params of each seed.
      orders: Every draw of each seed, shape (steps, batch size), or None for the full
        batch.
      marks: Steps after which the training objective is evaluated, as in the
        experiment.
    """

    regime: str
    workload: Workload
    sampler: Sampler
    num_epochs: int
    seeds: np.ndarray
    rates: np.ndarray
    starts: dict[int, Params]
    orders: dict[int, np.ndarray | None]
    marks: tuple[int, ...]

    @property
    def steps(self) -> int:
        """Return the number of updates of one run."""
        return self.num_epochs * self.sampler.num_batches


def runs_of(regime: str, quick: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the rates and seeds of the runs.

    There are 8 rates x 3 tuning seeds, then 10 seeds at the chosen rate: 34 runs; if
    quick, 2 x 1 + 2.
    """
    choosing, seeds = (TUNING_SEEDS[:1], SEEDS[:2]) if quick else (TUNING_SEEDS, SEEDS)
    (ladder,) = (
        r.ladder("gradient_descent")
        for r in tuning.practice_regimes(BATCH_SIZE)
        if r.name == regime
    )
    ladder = ladder[:2] if quick else ladder
    rates = np.concatenate(
        [
            np.repeat(ladder, len(choosing)),
            np.full(len(seeds), CHOSEN[REGIMES.index(regime)]),
        ]
    )
    return rates, np.concatenate([np.tile(choosing, len(ladder)), seeds])


def make_sweep(regime: str, quick: bool = False) -> Sweep:
    """Return the runs with all that they share; if quick, for two epochs."""
    workload = workloads.make_workload(MODELS[MODEL], dtype=DTYPE)
    sampler = make_sampler(regime, len(training_data(workload)[1]))
    num_epochs = 2 if quick else EPOCHS[REGIMES.index(regime)]
    rates, seeds = runs_of(regime, quick)
    return share(regime, workload, sampler, num_epochs, seeds, rates)


def share(
    regime: str,
    workload: Workload,
    sampler: Sampler,
    num_epochs: int,
    seeds: np.ndarray,
    rates: np.ndarray,
) -> Sweep:
    """Return these runs with the starts and orders of their seeds, and their marks."""
    keys = {seed: jax.random.key(seed) for seed in set(seeds.tolist())}
    fold = jax.random.fold_in
    ends = sampler.num_batches * np.arange(2, num_epochs + 1)
    return Sweep(
        regime=regime,
        workload=workload,
        sampler=sampler,
        num_epochs=num_epochs,
        seeds=seeds,
        rates=rates,
        starts={
            seed: workload.init(fold(key, descent.INIT)) for seed, key in keys.items()
        },
        orders={
            seed: draw_order(sampler, fold(key, descent.EPOCHS), num_epochs)
            for seed, key in keys.items()
        },
        marks=(
            *descent.evaluation_points(sampler.num_batches),
            *(int(end) for end in ends),
        ),
    )


def compile_anew(
    sweep: Sweep, make_rule: Callable[..., Any], names: tuple[str, ...]
) -> tuple[descent.SweepProgram, float]:
    """Return our program of a sweep, and the seconds until it has made its first run.

    It compiles all its parts, also those that an earlier sweep of this process had,
    because the peers compile all of theirs.

    Args:
      sweep: Whose runs.
      make_rule: As of `descent.compile_sweep`.
      names: The hyper-parameters.
    """
    _shared_programs.forget()
    made = []

    def build() -> None:
        program = descent.compile_sweep(
            sweep.workload,
            make_rule,
            sweep.sampler,
            sweep.num_epochs,
            hyperparameters=names,
        )
        made.append(program)
        one = sweep._replace(seeds=sweep.seeds[:1], rates=sweep.rates[:1])
        descent.sweep(program, runs_by_name(one, names))

    seconds = seconds_of(build)
    return made[0], seconds


def runs_by_name(sweep: Sweep, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return seeds and hyper-parameters of all runs, as `descent.sweep` takes them."""
    columns = sweep.rates.reshape(len(sweep.seeds), -1).T
    return {"seed": sweep.seeds, **dict(zip(names, columns, strict=True))}


def one_by_one(
    sweep: Sweep,
    begin: Callable,
    training: Callable,
    evaluate: Callable,
    batches: dict[int, list],
) -> Callable[[], list[list]]:
    """Return () -> evaluations of every run, each trained alone, in a Python loop.

    Args:
      sweep: Whose runs.
      begin: params -> the state to start from.
      training: (state, entry of `sweep.rates`, batches) -> state.
      evaluate: state -> the training objective, which may still be pending.
      batches: Of each seed, one a step.
    """
    cuts = list(zip((0, *sweep.marks), sweep.marks, strict=False))
    segments = {
        seed: [every[low:high] for low, high in cuts] for seed, every in batches.items()
    }

    def train():
        values = []
        for seed, rate in zip(sweep.seeds.tolist(), sweep.rates.tolist(), strict=True):
            state = begin(sweep.starts[seed])
            seen = [evaluate(state)]
            for segment in segments[seed]:
                state = training(state, rate, segment)
                seen.append(evaluate(state))
            values.append(seen)
        return values

    return train
