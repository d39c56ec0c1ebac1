"""A sweep: the cells of the main experiment for one program, at once, against the same cells one after another."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import clock
from benchmarks.problems import (
    BATCH_SIZE,
    DTYPE,
    MODELS,
    REGIMES,
    draw_order,
    make_sampler,
    training_data,
)
from research import descent, tuning, update_rules, workloads
from research.types import Params, Sampler, Workload

MODEL = "logistic"
TUNING_SEEDS, SEEDS = (100, 101, 102), tuple(range(10))
CHOSEN = (8.0, 0.25, 1 / 128)  # Rates of the ten reported seeds, by regime.
EPOCHS = (
    150,
    150,
    10,
)  # The experiment's, but 10 for stochastic descent: PyTorch's loop would take ten minutes.
LARGEST_STABLE = (
    8.0,
    1.0,
    1 / 16,
)  # Beyond it a training is chaotic and magnifies rounding to whole digits.
ROUNDS = 3
TOLERANCE = 1e-9  # Relative, of every evaluation of every stable cell.


class Sweep(NamedTuple):
    """The cells and what they share.

    Attributes:
      regime, workload, sampler, num_epochs: As of one program.
      seeds, rates: One entry a cell.
      starts: Initial params of each seed.
      orders: Every draw of each seed, shape (steps, batch size), or None for the full batch.
      marks: Steps after which the training objective is evaluated, as in the experiment.
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
        """Updates of one cell."""
        return self.num_epochs * self.sampler.num_batches


class Sweeper(NamedTuple):
    """One way through the sweep: train() -> values (cells, 1 + marks), after building, with its first step."""

    name: str
    train: Callable[[], np.ndarray]
    compile_seconds: float
    note: str = ""


def cells_of(regime: str, quick: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rates and seeds: 8 rates x 3 tuning seeds, then 10 seeds at the chosen rate: 34 cells; if quick, 2 x 1 + 2."""
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
    """The cells with all that they share; if quick, for two epochs."""
    workload = workloads.make_workload(MODELS[MODEL], dtype=DTYPE)
    sampler = make_sampler(regime, len(training_data(workload)[1]))
    num_epochs = 2 if quick else EPOCHS[REGIMES.index(regime)]
    rates, seeds = cells_of(regime, quick)
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


def ours(sweep: Sweep) -> Sweeper:
    """`research.descent.sweep`: one program for all cells, in blocks of eight, which draws the orders itself."""
    program = descent.compile_sweep(
        sweep.workload, update_rules.gradient_descent, sweep.sampler, sweep.num_epochs
    )
    cells = {"seed": sweep.seeds, "learning_rate": sweep.rates}
    return Sweeper(
        "ours",
        lambda: descent.sweep(program, cells).values,
        program.compile_seconds,
        "compiled once",
    )


def one_by_one(
    sweep: Sweep,
    begin: Callable,
    training: Callable,
    evaluate: Callable,
    batches: dict[int, list],
) -> Callable[[], list[list]]:
    """() -> the evaluations of every cell, each trained by itself, in a Python loop.

    Args:
      sweep: Whose cells.
      begin: params -> the state to start from.
      training: (state, rate, batches) -> state.
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


def optax_loop(sweep: Sweep) -> Sweeper:
    """One cell after another by the jitted step with optax; it compiles once, since the rate is traced."""
    import optax

    from benchmarks import peers_jax

    training, workload = peers_jax.optax_training(sweep.workload), sweep.workload
    objective = jax.jit(lambda params: workload.objective(params, workload.train))

    def begin(params):
        return params, optax.sgd(1.0).init(params)

    def evaluate(state):
        return objective(state[0])

    def with_traced_rate(state, rate, batches):
        return training(state, jnp.asarray(rate), batches)

    batches = {
        seed: peers_jax.place_batches(workload, order, sweep.steps)
        for seed, order in sweep.orders.items()
    }
    seed = int(sweep.seeds[0])
    first = clock.seconds_of(
        lambda: jax.block_until_ready(
            evaluate(
                with_traced_rate(begin(sweep.starts[seed]), 0.1, batches[seed][:1])
            )
        )
    )
    run = one_by_one(sweep, begin, with_traced_rate, evaluate, batches)
    return Sweeper(
        "optax, one by one",
        lambda: np.array(jax.device_get(run())),
        first,
        "compiled once",
    )


def sweepers(
    sweep: Sweep, with_torch: bool
) -> tuple[list[Sweeper], list[tuple[str, str]]]:
    """Those that run, ours first, and those that cannot, with the reason."""
    runners, absent = [ours(sweep), optax_loop(sweep)], []
    if not with_torch:
        return runners, [("PyTorch", "not installed")]
    from benchmarks import sweep_torch

    runners.append(sweep_torch.eager(sweep))
    for make in (
        sweep_torch.compiled,
        sweep_torch.vmapped,
        sweep_torch.compiled_vmapped,
    ):
        try:
            runners.append(make(sweep))
        except Exception as error:  # No C++ compiler, most likely; the row tells.
            absent.append(
                (f"PyTorch, {make.__name__}", f"did not run: {type(error).__name__}")
            )
    return runners, absent


class SweepRow(NamedTuple):
    """One contender in one sweep.

    Attributes:
      regime, contender, note: Which.
      cells, steps: How many cells, and updates of each.
      compile_seconds, seconds: Building it, and all cells, a Spread; None where it did not run.
      ratio, ratio_with_compiling: How many times as fast ours is, without compilation (a Spread) and with it.
      loss: Mean over the stable cells of the last training objective.
      stable, apart: How many cells have a rate of at most LARGEST_STABLE, and the largest relative difference of any
        evaluation of those.
    """

    regime: str
    contender: str
    note: str
    cells: int
    steps: int
    compile_seconds: float | None = None
    seconds: clock.Spread | None = None
    ratio: clock.Spread | None = None
    ratio_with_compiling: float | None = None
    loss: float | None = None
    stable: int = 0
    apart: float | None = None


def measure_sweep(sweep: Sweep, runners: list[Sweeper], rounds: int) -> list[SweepRow]:
    """Every contender of one sweep, all their evaluations held against ours first."""
    values = {runner.name: runner.train() for runner in runners}
    stable = sweep.rates <= LARGEST_STABLE[REGIMES.index(sweep.regime)]
    compared = {name: value[stable] for name, value in values.items()}
    apart = clock.check_equal(
        compared, f"the training objective ({sweep.regime})", TOLERANCE
    )
    seconds = clock.take_turns(
        {runner.name: runner.train for runner in runners}, rounds
    )
    totals = {
        runner.name: runner.compile_seconds + np.median(seconds[runner.name])
        for runner in runners
    }
    return [
        SweepRow(
            sweep.regime,
            runner.name,
            runner.note,
            len(sweep.seeds),
            sweep.steps,
            runner.compile_seconds,
            clock.spread(seconds[runner.name]),
            clock.ratio(seconds[runner.name], seconds["ours"])
            if runner.name != "ours"
            else None,
            float(totals[runner.name] / totals["ours"])
            if runner.name != "ours"
            else None,
            float(compared[runner.name][:, -1].mean()),
            int(stable.sum()),
            apart,
        )
        for runner in runners
    ]


def measure(
    quick: bool, with_torch: bool, tell: Callable[[str], Any]
) -> list[SweepRow]:
    """All three regimes; if quick, one."""
    rows = []
    for regime in REGIMES[1:2] if quick else REGIMES:
        tell(f"sweep: {regime}")
        sweep = make_sweep(regime, quick)
        runners, absent = sweepers(sweep, with_torch)
        rows += measure_sweep(sweep, runners, 1 if quick else ROUNDS)
        rows += [
            SweepRow(regime, name, why, len(sweep.seeds), sweep.steps)
            for name, why in absent
        ]
    return rows
