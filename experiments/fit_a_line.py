"""How does descent find the line through the data?

Disease progression is fitted by body mass index. There are two parameters, a slope and
an intercept, so the whole path of descent can be drawn. One update rule is combined
with three samplers from one starting point, and every step is saved. The index is
standardised, so f - f* = ((intercept - a)² + (slope - b)²) / 2 exactly, where a and b
belong to the least-squares line. The landscape is a round bowl, and the three samplers
differ only in the noise of their gradients. The rates are small so that the paths are
visible. (With a rate of 1, full-batch descent would reach the minimum in one step.)
Another experiment asks which regime is the cheapest.

    python experiments/fit_a_line.py            # some seconds

Expected numbers (`EXPECTED`): the relative distance from the exact line at the end of
full-batch descent; and the number of passes until full-batch descent is within 1 %.
This number is the smallest integer that is not below log(1 / 100) / log(1 - η).
"""

import dataclasses
import math
import sys
from typing import Any

import research

EXPECTED = {"full_batch_error": (0.0, 1e-9), "full_batch_passes": (44, 44)}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    passes: int = 200
    """Epochs of each training."""
    batch_size: int = 32
    """Batch size of the mini-batch regime."""
    full_batch_rate: float = 0.1
    """Learning rate of the full batch."""
    minibatch_rate: float = 0.05
    """Learning rate of the mini-batch regime."""
    stochastic_rate: float = 0.002
    """Learning rate of the stochastic regime."""
    seed: int = 0
    """Seed of the starting point and of the order of the examples."""


FULL = Config(passes=1000)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np

from research.checks import check_count
from research.cli.progress import OnProgress
from research.types import Checkpoints, Sampler

WORKLOAD = "diabetes_bmi"
CLOSE = 0.01  # Tolerance: within 1 % of the exact slope and the exact intercept.


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Train each regime from one start, and compare each step with the exact line."""
    del checkpoints  # The experiment takes seconds, so no checkpoint is saved.
    workload = research.workloads.make_workload(WORKLOAD)
    arrays = problem(workload)
    n, regimes = len(arrays["y"]), {}
    plans = plan(config, n)
    for done, (name, sampler, rate) in enumerate(plans):
        if on_progress:
            on_progress(done, len(plans), name)
        lines = train(workload, sampler, rate, config)
        passes = np.arange(len(lines)) * sampler.batch_size / n
        arrays |= {f"{name}/passes": passes, f"{name}/lines": lines}
        regimes[name] = facts(passes, lines, arrays["exact"], rate, sampler)
    if on_progress:
        on_progress(len(plans), len(plans), "done")
    numbers = {
        "n": n,
        "exact": dict(
            zip(("intercept", "slope"), arrays["exact"].tolist(), strict=True)
        ),
        "regimes": regimes,
        "full_batch_error": regimes["full batch"]["error"],
        "full_batch_passes": regimes["full batch"]["passes"],
    }
    return research.runs.Findings(arrays, numbers)


def problem(workload: Any):
    """Return the examples, each of shape (n,), and the exact (intercept, slope)."""
    exact = workload.optimum.params
    return {
        "x": np.asarray(workload.train.x[:, 0]),
        "y": np.asarray(workload.train.y),
        "exact": np.array([exact["intercept"], exact["weights"][0]]),
    }


def plan(config: Config, n: int):
    """Check the config, and return (name, sampler, rate) of each regime."""
    rates = (config.full_batch_rate, config.minibatch_rate, config.stochastic_rate)
    for field, value in zip(
        ("full_batch_rate", "minibatch_rate", "stochastic_rate"), rates, strict=True
    ):
        if not 0 < value < math.inf:
            raise ValueError(f"{field} must be a positive number; got {field}={value}.")
    check_count("passes", config.passes)
    names = ("full batch", f"mini-batch {config.batch_size}", "stochastic")
    samplers = research.samplers
    feeds = (
        samplers.full_batch(n),
        samplers.minibatch(n, config.batch_size),
        samplers.stochastic(n),
    )
    return tuple(zip(names, feeds, rates, strict=True))


def train(workload: Any, sampler: Sampler, rate: float, config: Config):
    """Train once, and return (intercept, slope) before the first and after each step.

    The result has shape (steps + 1, 2).
    """
    key_init, key_epochs = (
        jax.random.fold_in(jax.random.key(config.seed), child) for child in range(2)
    )
    rule = research.update_rules.find_rule("gradient_descent")(rate)
    init, step = research.descent.build(workload.objective, rule, workload.train)

    def line(state: research.descent.State, info: research.descent.Info):
        del info
        return jnp.array([state.params["intercept"], state.params["weights"][0]])

    @jax.jit
    def every_step(state: research.descent.State):
        epochs = jnp.arange(config.passes)
        _, info = research.descent.run(
            step, state, sampler, key_epochs, epochs, observe=line
        )
        return info.steps.reshape(-1, 2)

    params = workload.init(key_init)
    first = np.array([[params["intercept"], params["weights"][0]]])
    lines = np.concatenate([first, every_step(init(params))])
    bad = np.flatnonzero(~np.isfinite(lines).all(axis=1))
    if len(bad):
        raise ValueError(
            f"a learning rate of {rate} diverges: step {bad[0]} is not finite. Choose "
            "a smaller one."
        )
    return lines


def relative_errors(lines: np.ndarray, exact: np.ndarray):
    """Return the relative error of each line: the larger one of intercept and slope.

    The result has shape (steps + 1,).
    """
    return np.max(np.abs(lines - exact) / np.abs(exact), axis=-1)


def facts(
    passes: np.ndarray,
    lines: np.ndarray,
    exact: np.ndarray,
    rate: float,
    sampler: Sampler,
):
    """Return the results of one regime, as JSON.

    "passes" is the number of passes until a line is within CLOSE of the exact line, or
    null if no line is.
    """
    errors = relative_errors(lines, exact)
    close = np.flatnonzero(errors <= CLOSE)
    last = passes >= passes[-1] - 1
    return {
        "batch_size": sampler.batch_size,
        "steps_per_epoch": sampler.num_batches,
        "rate": rate,
        "intercept": float(lines[-1, 0]),
        "slope": float(lines[-1, 1]),
        "error": float(errors[-1]),
        "largest_error_in_last_pass": float(errors[last].max()),
        "error_after_one_pass": float(
            errors[np.searchsorted(passes, 1.0, side="right") - 1]
        ),
        "passes": float(passes[close[0]]) if len(close) else None,
        "steps": int(close[0]) if len(close) else None,
    }
