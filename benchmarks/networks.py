"""Time a training step of MLP, CNN, LSTM, GRU and Transformer, ours and each peer's.

python -m benchmarks.networks                     # every network, some minutes
python -m benchmarks.networks --only cnn --quick  # a smoke run
"""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import clock
from benchmarks.alone import print_part
from benchmarks.contender import Contender
from benchmarks.network_jobs import RATE, Job, chosen, make_job, sampler_of
from benchmarks.tables import (
    Section,
    faster_in,
    number,
    optional,
    spread_words,
    table,
)
from research import backend, objectives, update_rules
from research.descent._train_loop import compile_training
from research.types import Batch

STEPS, ROUNDS = 60, 9
# Relative, of the last step's loss: in float32 the same job differs by rounding, which
# Adam magnifies.
TOLERANCE = 1e-3
# Ours is timed on one device and on so many, which share each batch. Everyone has as
# many threads, and PyTorch has one if it is faster so.
DEVICES = 2
OURS, ON_DEVICES = "ours", f"ours, on {DEVICES} devices"


class NetworkRow(NamedTuple):
    """One contender on one job.

    Times are None where it did not run, and note says why.
    """

    job: str
    words: str
    contender: str
    note: str
    milliseconds: clock.Spread | None = None  # A step.
    compile_seconds: float | None = None
    # How many times as fast ours is on one device, and on DEVICES.
    ratio: clock.Spread | None = None
    ratio_on_devices: clock.Spread | None = None
    loss: float | None = None
    apart: float | None = None


def ours(job: Job, devices: int = 1) -> Contender:
    """Build our contender with `research.descent.train`.

    As in the experiments, it draws the order and keeps its info.
    """
    objective = objectives.empirical_risk(job.model, job.loss)
    sampler = sampler_of(len(job.x), job.batch_size)
    dataset = Batch(jnp.asarray(job.x), jnp.asarray(job.y))
    built = []

    def build():
        rule = update_rules.adam(RATE)
        options = {"noisy": False, "devices": devices}
        built.append(
            compile_training(
                objective,
                rule,
                dataset,
                sampler,
                job.params,
                jax.random.key(1),
                **options,
            )
        )
        run(1)

    def run(steps: int) -> np.ndarray:
        compiled = built[0]
        batches = compiled.epoch_batches(jax.random.key(1), 0)
        _, info = compiled.advance(
            compiled.start.state, compiled.start.info, batches, 0, steps
        )
        return np.asarray(info.loss)

    seconds = clock.seconds_of(build)
    name = OURS if devices == 1 else ON_DEVICES
    return Contender(name, lambda: run(job.steps), seconds)


def contenders(job: Job) -> tuple[list[Contender], list[tuple[str, str]]]:
    """Return the contenders for this job, ours first, and reasons for the others."""
    from benchmarks import networks_linen

    found, absent = [ours(job)], []
    if len(jax.devices()) >= DEVICES:
        found.append(ours(job, DEVICES))
    found.append(networks_linen.python_loop(job))
    if find_spec("torch"):
        from benchmarks import networks_torch

        found.append(networks_torch.eager(job))
        try:
            found.append(networks_torch.compiled(job))
        except Exception as error:  # No C++ compiler, most likely; the row tells.
            absent.append(("torch.compile", f"did not run: {type(error).__name__}"))
    else:
        absent += [
            ("PyTorch eager", "not installed"),
            ("torch.compile", "PyTorch is not installed"),
        ]
    if find_spec("tensorflow"):
        from benchmarks import networks_tensorflow

        found.append(networks_tensorflow.graph(job))
    else:
        absent.append(("TensorFlow", "not installed"))
    return found, absent


def measure_job(job: Job, rounds: int) -> list[NetworkRow]:
    """Measure every contender of one job.

    Before the timing, its losses are compared with ours.
    """
    runners, absent = contenders(job)
    last = {runner.name: runner.train()[-1] for runner in runners}
    apart = clock.check_equal(
        last, f"the loss of the last step ({job.name})", TOLERANCE
    )
    seconds = clock.take_turns(
        {runner.name: runner.train for runner in runners}, rounds
    )

    def beside(name: str, mine: str) -> clock.Spread | None:
        if name.startswith(OURS) or mine not in seconds:
            return None
        return clock.ratio(seconds[name], seconds[mine])

    rows = [
        NetworkRow(
            job.name,
            job.words,
            runner.name,
            runner.note,
            clock.spread(1e3 * seconds[runner.name] / job.steps),
            runner.compile_seconds,
            beside(runner.name, OURS),
            beside(runner.name, ON_DEVICES),
            float(last[runner.name]),
            apart,
        )
        for runner in runners
    ]
    return rows + [NetworkRow(job.name, job.words, name, why) for name, why in absent]


def measure(
    quick: bool, tell: Callable[[str], Any], only: Sequence[str] | None = None
) -> list[NetworkRow]:
    """Measure every network, each in its own process with two devices.

    If quick, measure one of them for a few steps.

    Raises:
      ValueError: A name in `only` is no network's.
    """
    rows = []
    for name in chosen(only, quick):
        tell(f"networks: {name}")
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            rows += process.submit(
                _measured, name, 3 if quick else STEPS, 1 if quick else ROUNDS
            ).result()
    return rows


def _measured(name: str, steps: int, rounds: int) -> list[NetworkRow]:
    backend.configure(devices=DEVICES, pool=DEVICES)
    return measure_job(make_job(name, steps), rounds)


def section(rows: list[NetworkRow]) -> Section:
    """Describe the rows in a section of the page."""
    # By ours: the words, and each peer with its ratio.
    beside = {
        f"on {where}": [(row, ratio) for row in rows if (ratio := getattr(row, field))]
        for where, field in (
            ("one device", "ratio"),
            (f"{DEVICES} devices", "ratio_on_devices"),
        )
    }
    words = " and ".join(
        f"{where} in {faster_in([ratio for _, ratio in pairs], 1.0)}"
        for where, pairs in beside.items()
        if pairs
    )
    answer = (
        f"A step of training a network is at least as fast as a peer's {words}."
        if words
        else ""
    )
    columns = [
        "network",
        "contender",
        "ms a step",
        "ours is faster by",
        f"on {DEVICES} devices by",
        "compile s",
        "loss",
        "note",
    ]
    lines = [
        [
            row.job,
            row.contender,
            spread_words(row.milliseconds),
            *(
                "" if row.contender.startswith(OURS) else spread_words(ratio)
                for ratio in (row.ratio, row.ratio_on_devices)
            ),
        ]
        + [
            optional(row.compile_seconds),
            "-" if row.loss is None else f"{row.loss:.6f}",
            row.note,
        ]
        for row in rows
    ]
    sizes = "; ".join(
        f"{name}: {words}"
        for name, words in {row.job: row.words for row in rows}.items()
    )
    apart = max((row.apart for row in rows if row.apart is not None), default=0.0)
    text = (
        f"{table(columns, lines)}\n\n{sizes}. Everyone has the same first params, "
        f"batches and Adam in float32; the losses of the last step are {apart:.1e} "
        "apart at most, relatively. Compile s is building, with the first step. Ours "
        f"is timed on one device and on {DEVICES} that share each batch, and PyTorch "
        "with one or two threads, whichever is faster in a trial."
    )
    missed = [
        f"network, {row.job}: {row.contender} is faster, ours {where} has "
        f"{number(ratio.median)} of its speed"
        for where, pairs in beside.items()
        for row, ratio in pairs
        if ratio.median < 1
    ]
    return Section("A step of training a network", answer, text, missed)


if __name__ == "__main__":
    print_part(__doc__, measure, section, "a network; may be repeated (default: all)")
