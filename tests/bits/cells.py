"""What the bit contract speaks of: every cell of a few sweeps, and one SHA-256 of all
that it leaves.

python tests/bits/cells.py --devices 2

It prints {job: {"hashes": of each cell, "values": its objective}}.
"""

import argparse
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research import (
    backend,
    descent,
    losses,
    objectives,
    runs,
    samplers,
    update_rules,
    workloads,
)
from research.models._linear import dense
from research.types import Model, Sampler, Workload

NUM_EPOCHS = 6  # Chunks of 2, 3 and 6 divide it.
# Four blocks of eight, the last one short: four devices have work, and there is
# padding.
NUM_CELLS = 26


class Job(NamedTuple):
    """A sweep: what is trained, by which rule, on which batches, around which rate."""

    workload: Callable[[], Workload]
    rule: str
    sampler: Callable[[int], Sampler]
    learning_rate: float


@functools.cache
def mlp() -> Workload:
    """Digits through 64 hidden units: unlike the convex models, large enough for the
    thread pool to enter its bits.
    """
    digits = workloads.make_workload("digits")
    sizes = (64, 64, 10)

    def init(key):
        draw = lambda i: jax.random.uniform(
            jax.random.fold_in(key, i), sizes[i : i + 2], jnp.float64, -0.3, 0.3
        )
        return [(draw(i), jnp.zeros(sizes[i + 1])) for i in range(2)]

    def apply(params, x, key=None):
        return dense(jnp.tanh(dense(x, *params[0])), *params[1])

    model = Model(init, apply)
    objective = objectives.empirical_risk(model, losses.softmax_cross_entropy)
    return digits._replace(
        name="mlp", init=init, objective=objective, model=model, optimum=None
    )


def named(name: str) -> Callable[[], Workload]:
    """The workload of that name, built when it is asked for."""
    return lambda: workloads.make_workload(name)


def by_32(n: int) -> Sampler:
    """Mini-batches of 32."""
    return samplers.minibatch(n, 32)


MLP = "mlp, full batch, heavy ball"  # The one whose bits the pool enters.
JOBS = {
    "linear, full batch, gradient descent": Job(
        named("diabetes"), "gradient_descent", samplers.full_batch, 0.1
    ),
    "logistic, batch 32, heavy ball": Job(
        named("breast_cancer"), "heavy_ball", by_32, 0.02
    ),
    "logistic, batch 1, gradient descent": Job(
        named("breast_cancer"), "gradient_descent", samplers.stochastic, 0.01
    ),
    "softmax, full batch, adam": Job(
        named("digits"), "adam", samplers.full_batch, 0.05
    ),
    MLP: Job(mlp, "heavy_ball", samplers.full_batch, 0.2),
    "mlp, batch 32, adam": Job(mlp, "adam", by_32, 0.01),
}


def program(name: str, **options: Any) -> descent.SweepProgram:
    """The program of a job; options are those of `descent.compile_sweep`."""
    job = JOBS[name]
    workload = job.workload()
    assert workload.train is not None
    sampler = job.sampler(len(workload.train.y))
    return descent.compile_sweep(
        workload, update_rules.find_rule(job.rule), sampler, NUM_EPOCHS, **options
    )


def sweep(name: str) -> dict[str, np.ndarray]:
    """The cells of a job: seeds, and rates up to a factor of two around its own."""
    rates = JOBS[name].learning_rate * np.geomspace(0.5, 2.0, NUM_CELLS)
    return {"seed": np.arange(NUM_CELLS), "learning_rate": rates}


def take(cells: Mapping[str, np.ndarray], rows: Any) -> dict[str, np.ndarray]:
    """Those rows of the cells."""
    return {name: values[rows] for name, values in cells.items()}


def hashes(trained: descent.SweepResult) -> list[str]:
    """For each cell, the SHA-256 of its last parameters, its values, its info and its
    first bad step.
    """
    leaves = jax.tree.leaves(
        (trained.params, trained.values, trained.info, trained.first_bad_step)
    )
    return [
        runs.hash_arrays(*(leaf[i] for leaf in leaves))
        for i in range(len(trained.values))
    ]


def main() -> None:
    """Prints what each job gives."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=1, help="CPU devices (1)")
    parser.add_argument("--pool", type=int, default=2, help="threads in XLA's pool (2)")
    parser.add_argument(
        "--width",
        type=int,
        help="runs trained together (as compile_sweep chooses)",
    )
    parser.add_argument(
        "--job",
        action="append",
        choices=list(JOBS),
        help="only this job; may be repeated",
    )
    options = parser.parse_args()
    backend.configure(devices=options.devices, pool=options.pool, x64=True)
    found = {}
    for name in options.job or JOBS:
        compiled = program(name, width=options.width)
        assert len(compiled.devices) == options.devices
        trained = descent.sweep(compiled, sweep(name))
        found[name] = {"hashes": hashes(trained), "values": trained.values.tolist()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
