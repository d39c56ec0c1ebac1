"""Time imports, --help, and the first step, each in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import NO_CACHES, clock

TOP = Path(__file__).parent.parent
ROUNDS = 3
FIRST_STEP = "logistic regression, mini-batch 32"
PROGRAMS = {
    "python, nothing else": ("-c", "pass"),
    "import research": ("-c", "import research"),
    "the main experiment's --help": (
        "experiments/batch_stochastic_minibatch.py",
        "--help",
    ),
    "import jax": ("-c", "import jax"),
    "import torch": ("-c", "import torch"),
    "import sklearn.linear_model": ("-c", "import sklearn.linear_model"),
    "first step: ours": ("-m", "benchmarks.startup", "ours"),
    "first step: optax": ("-m", "benchmarks.startup", "optax"),
    "first step: PyTorch eager": ("-m", "benchmarks.startup", "eager"),
    "first step: torch.compile": ("-m", "benchmarks.startup", "compile"),
}
OF_TORCH = ("import torch", "first step: PyTorch eager", "first step: torch.compile")


class StartupRow(NamedTuple):
    """One program.

    Attributes:
      program: What was started.
      seconds: From starting Python to its end, a Spread; None where it failed, and note
        says why.
      compile_seconds: For a first step: building it and making it, imports and data
        apart, a Spread.
      note: Why there are no seconds, or "".
    """

    program: str
    seconds: clock.Spread | None
    compile_seconds: clock.Spread | None = None
    note: str = ""


def start(words: tuple[str, ...]) -> str:
    """Run Python with these arguments and the common settings; return its output."""
    environment = os.environ | {"PYTHONPATH": str(TOP)} | NO_CACHES
    done = subprocess.run(
        [sys.executable, *words],
        cwd=TOP,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout


def measure(
    quick: bool, with_torch: bool, tell: Callable[[str], Any]
) -> list[StartupRow]:
    """Time every program, in turns.

    The first start of each is not counted, so that files are in memory.
    """
    printed: dict[str, list[float]] = {}
    calls, rows = {}, []

    def call(name: str) -> None:
        said = start(PROGRAMS[name])
        if name.startswith("first step"):
            printed.setdefault(name, []).append(float(said.split()[-1]))

    for name in PROGRAMS:
        tell(f"startup: {name}")
        if not with_torch and name in OF_TORCH:
            rows.append(StartupRow(name, None, note="PyTorch is not installed"))
            continue
        try:
            call(name)
            calls[name] = lambda name=name: call(name)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            rows.append(StartupRow(name, None, note=_why(error)))
    seconds = clock.take_turns(calls, 1 if quick else ROUNDS)
    for name in calls:
        built = clock.spread(printed[name][1:]) if name in printed else None
        rows.append(StartupRow(name, clock.spread(seconds[name]), built))
    return sorted(rows, key=lambda row: list(PROGRAMS).index(row.program))


def _why(error: subprocess.CalledProcessError | subprocess.TimeoutExpired) -> str:
    """Say why a program has no seconds."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"did not end within {error.timeout:.0f} s"
    said = error.stderr.strip().splitlines() or [f"exit status {error.returncode}"]
    return f"did not run: {said[-1][:100]}"


def first_step(contender: str) -> float:
    """Return the seconds to build and take the first step of FIRST_STEP.

    Ours builds and makes the whole run of three epochs, because it has no shorter call.
    """
    import research

    research.backend.configure(x64=True)
    from benchmarks import peers_jax
    from benchmarks.problems import REGIMES, make_problem

    problem = make_problem("logistic", REGIMES[1], quick=True)
    if contender in ("ours", "optax"):
        make = peers_jax.ours if contender == "ours" else peers_jax.optax_loop
        return make(problem).compile_seconds
    from benchmarks import peers_torch

    batches = peers_torch.place_batches(
        problem.model, problem.workload, problem.order, problem.steps
    )[:1]
    if contender == "eager":
        run = peers_torch.eager_training(problem.model, problem.penalty)
    else:
        run = peers_torch.compiled_training(
            peers_torch.compiled_step(problem.model, problem.penalty)
        )
    return clock.seconds_of(
        lambda: run(peers_torch.place(problem.params), problem.rate, batches)
    )


if __name__ == "__main__":
    print(first_step(sys.argv[1]))
