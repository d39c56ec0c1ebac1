"""Train the small GPT on characters, each rule at the best of five rates."""

from collections.abc import Iterable

import jax
import numpy as np
import scipy.stats

from research import descent, samplers
from research.cli.progress import OnProgress
from research.comparison.network_contenders import network_contenders, scheduled
from research.workloads.networks import make_network

RATES = tuple(float(f"{rate:.3g}") for rate in np.geomspace(1e-3, 1e-1, 5))
TUNING_SEED, SEEDS = 1000, (0, 1, 2, 3)


def train(
    rules: Iterable[str], on_progress: OnProgress | None = None
) -> dict[str, tuple[float, float, float]]:
    """Return the validation loss of each rule at the end, with a 95 % interval.

    The rate is the best of `RATES` on one seed. It warms up over 10 % of the training
    and then falls linearly to zero. The loss is the geometric mean over four other
    seeds, at the chosen rate. Its interval is that of Student's t. Other
    hyper-parameters have their defaults, or the geometric mean of the ends of their
    range if they have no default.

    Args:
      rules: Names of rules of this package.
      on_progress: Function that is called with (done, total, message).
    """
    network = make_network("gpt_characters")
    contenders = network_contenders([*rules], search_schedule=False)
    found = {}
    for done, plain in enumerate(contenders):
        if on_progress is not None:
            on_progress(done, len(contenders), f"{plain.name} on {network.name}")
        contender = scheduled(plain, network.num_steps)
        program = descent.compile_sweep(
            network.workload,
            contender.make_rule,
            samplers.minibatch(network.num_examples, network.batch_size),
            network.num_epochs,
            hyperparameters=tuple(contender.space),
            chunk=network.num_epochs,
            width=1,
            evaluate_on=("validation",),
        )
        fixed = {
            name: range_.default or float(np.sqrt(range_.low * range_.high))
            for name, range_ in contender.space.items()
        }
        tuned = _losses(program, fixed, [*RATES], [TUNING_SEED] * len(RATES))
        rate = RATES[int(np.argmin(tuned))]
        logs = np.log(_losses(program, fixed, [rate] * len(SEEDS), [*SEEDS]))
        half = scipy.stats.t.ppf(0.975, len(SEEDS) - 1) * scipy.stats.sem(logs)
        ends = np.exp(logs.mean() + half * np.array([0.0, -1.0, 1.0]))
        found[plain.name] = tuple(float(f"{end:.6g}") for end in ends)
        jax.clear_caches()
    return found


def _losses(
    program: descent.SweepProgram,
    fixed: dict[str, float],
    rates: list[float],
    seeds: list[int],
):
    """Return the validation loss at the end of each run; inf if it diverged."""
    columns = {name: np.full(len(rates), value) for name, value in fixed.items()}
    columns |= {"learning_rate": np.array(rates), "seed": np.array(seeds)}
    swept = descent.sweep(program, columns)
    return np.nan_to_num(swept.values[:, -1], nan=np.inf)
