"""Measure steps per second of one training, ours and each peer's in turns.

There are three models and three regimes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks import clock, peers_jax
from benchmarks.contender import Contender
from benchmarks.problems import MODELS, REGIMES, Problem, final_loss, make_problem

# Relative, of the loss at the end: the same job in float64 differs by rounding alone.
TOLERANCE = 1e-9
ROUNDS = 9


class StepRow(NamedTuple):
    """One contender for one model and regime.

    Attributes:
      model, regime, contender, note: Which.
      steps: Updates in the training that was timed.
      per_second: Steps per second, a Spread over the rounds; None where it did not run,
        and note says why.
      compile_seconds: Building it, with its first step, or its first training where
        it has no shorter call.
      ratio: How many times as fast ours is, a Spread; None for ours itself.
      loss: The training objective at the end.
      apart: The largest relative difference of that loss within the cell.
    """

    model: str
    regime: str
    contender: str
    note: str
    steps: int
    per_second: clock.Spread | None = None
    compile_seconds: float | None = None
    ratio: clock.Spread | None = None
    loss: float | None = None
    apart: float | None = None


def contenders(
    problem: Problem, with_torch: bool
) -> tuple[list[Contender], list[tuple[str, str]]]:
    """Return the contenders for this job, ours first, and reasons for the others."""
    runners, absent = [peers_jax.ours(problem), peers_jax.optax_loop(problem)], []
    if with_torch:
        from benchmarks import peers_torch

        runners.append(peers_torch.eager(problem))
        try:
            runners.append(peers_torch.compiled(problem))
        except Exception as error:  # No C++ compiler, most likely; the row tells.
            absent.append(("torch.compile", f"did not run: {type(error).__name__}"))
    else:
        absent += [
            ("PyTorch eager", "not installed"),
            ("torch.compile", "PyTorch is not installed"),
        ]
    from benchmarks import peers_sklearn

    if peers_sklearn.does_the_same(problem):
        runners.append(peers_sklearn.sgd(problem))
    return runners, absent


def measure_cell(
    problem: Problem, runners: list[Contender], rounds: int
) -> list[StepRow]:
    """Measure every contender of one model and regime.

    Before the timing, its loss is compared with ours.
    """
    losses = {runner.name: final_loss(problem, runner.train()) for runner in runners}
    apart = clock.check_equal(
        losses, f"the last loss ({problem.model}, {problem.regime})", TOLERANCE
    )
    seconds = clock.take_turns(
        {runner.name: runner.train for runner in runners}, rounds
    )
    return [
        StepRow(
            problem.model,
            problem.regime,
            runner.name,
            runner.note,
            problem.steps,
            clock.spread(problem.steps / seconds[runner.name]),
            runner.compile_seconds,
            clock.ratio(seconds[runner.name], seconds["ours"])
            if runner.name != "ours"
            else None,
            losses[runner.name],
            apart,
        )
        for runner in runners
    ]


def measure(quick: bool, with_torch: bool, tell: Callable[[str], Any]) -> list[StepRow]:
    """Measure all nine combinations; if quick, those of one model."""
    rows = []
    for model in ["logistic"] if quick else MODELS:
        for regime in REGIMES:
            tell(f"steps: {model}, {regime}")
            problem = make_problem(model, regime, quick)
            runners, absent = contenders(problem, with_torch)
            rows += measure_cell(problem, runners, 2 if quick else ROUNDS)
            rows += [
                StepRow(model, regime, name, why, problem.steps) for name, why in absent
            ]
    return rows
