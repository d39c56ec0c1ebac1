"""Time a sweep in one program, and the same runs one after another.

The runs are those of the main experiment for one program.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import clock
from benchmarks.contender import Contender
from benchmarks.problems import REGIMES
from benchmarks.sweep_runs import (
    LARGEST_STABLE,
    Sweep,
    compile_anew,
    make_sweep,
    one_by_one,
    runs_by_name,
)
from research import descent, update_rules

ROUNDS = 3
TOLERANCE = 1e-9  # Relative, of every evaluation of every stable run.


def ours(sweep: Sweep) -> Contender:
    """Build our contender: `research.descent.sweep`, one program for all runs.

    It makes batches of eight runs, of sixteen with the full batch, and draws the orders
    itself.
    """
    names = ("learning_rate",)
    program, seconds = compile_anew(sweep, update_rules.gradient_descent, names)
    runs = runs_by_name(sweep, names)
    return Contender(
        "ours", lambda: descent.sweep(program, runs).values, seconds, "compiled once"
    )


def optax_loop(sweep: Sweep) -> Contender:
    """Make one run after another by the jitted step with optax.

    It compiles once, since the rate is traced.
    """
    import optax

    from benchmarks import peers_jax

    training, workload = peers_jax.optax_training(sweep.workload), sweep.workload
    objective = jax.jit(lambda params: workload.objective(params, workload.train))

    def begin(params: Any):
        return params, optax.sgd(1.0).init(params)

    def evaluate(state: Any):
        return objective(state[0])

    def with_traced_rate(state: Any, rate: float, batches: list):
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
    return Contender(
        "optax, one by one",
        lambda: np.array(jax.device_get(run())),
        first,
        "compiled once",
    )


def sweepers(
    sweep: Sweep, with_torch: bool
) -> tuple[list[Contender], list[tuple[str, str]]]:
    """Return the contenders that run, ours first, and reasons for the others."""
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
      runs, steps: How many runs, and updates of each.
      compile_seconds, seconds: Building it, with the first run of ours and the first
        step of a peer, and all runs, a Spread; None where it did not run.
      ratio, ratio_with_compiling: How many times as fast ours is, without compilation
        (a Spread) and with it.
      loss: Mean over the stable runs of the last training objective.
      stable, apart: How many runs have a rate of at most LARGEST_STABLE, and the
        largest relative difference of any evaluation of those.
    """

    regime: str
    contender: str
    note: str
    runs: int
    steps: int
    compile_seconds: float | None = None
    seconds: clock.Spread | None = None
    ratio: clock.Spread | None = None
    ratio_with_compiling: float | None = None
    loss: float | None = None
    stable: int = 0
    apart: float | None = None


def measure_sweep(
    sweep: Sweep, runners: list[Contender], rounds: int
) -> list[SweepRow]:
    """Measure every contender of one sweep.

    All evaluations of the stable runs are first compared with ours.
    """
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
    """Measure all three regimes; if quick, one."""
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
