"""How large should a batch be?

Gradient descent runs until f - f* is a hundredth of the initial f - f*. The batches
have sizes from one example to the full set, on a small real data set and on a
generated one of a million rows. Each size has its own learning rate. The rate is chosen
on seeds that are not reported. Batches are drawn with replacement. The small set is
computed in float64. The large set is computed in float32, and f - f* is estimated on a
fixed sixtieth of the examples. Up to a certain batch size, the knee, a batch of twice
the size needs about half the steps. Far beyond the knee, the number of steps hardly
decreases, and most examples of a batch are wasted.

    python experiments/batch_size.py            # under a minute on two cores
    # Every power of two, under eight minutes.
    python experiments/batch_size.py --full

Expected number (`EXPECTED`): the law of McCandlish et al. 2018 says that batches of b
examples need m (1 + b / knee) example gradients. m and the knee are fitted to all batch
sizes. The expected values are the smallest and the largest ratio of the measured number
and that of the law, on each data set.
"""

import dataclasses
import functools
import sys
import timeit
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import research

EXPECTED = {"examples_over_law": (0.6, 1.6)}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    """Batch sizes on the small set. The sizes below the number of examples are used, at
    least two, and then the full batch."""
    large_batch_sizes: tuple[int, ...] = (1, 8, 64, 512, 4_096, 32_768, 262_144)
    """Batch sizes on the large set, at least two. The full batch is added at the
    end."""
    large_examples: int = 1_000_000
    """Rows of the large set. 0 leaves this set out."""
    target: float = 1e-2
    """Target, as a share of the initial f - f*. f* is the minimum of f."""
    most_steps: int = 32_768
    """Maximum number of steps of every training."""
    seeds: str = "0..7"
    """Reported seeds, written as 0..9 or as 1,4,7."""
    tuning_seeds: str = "100..101"
    """Seeds for the choice of rates. They must differ from the reported seeds."""
    width: int = 8
    """Number of runs trained together. The last bits of each run depend on it."""


FULL = Config(
    large_batch_sizes=tuple(2**k for k in range(20)),
    seeds="0..15",
    tuning_seeds="100..103",
)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import least_squares

from experiments._trainings import parse_both_seeds
from research.cli.progress import OnProgress
from research.types import Batch, Checkpoints, Params

SMALL, LARGE = "breast_cancer", "overlapping_1m"
LARGE_DTYPE = (
    "float32"  # For the large set: its rounding errors are far below the target.
)
FIRST_RATE = (
    2.0**-6
)  # A larger batch starts from the rate of the last size that reached the target.
PROBE = 2**14  # Maximum number of examples on which the gap is estimated.
LEAST_SIZES = 3  # A law with two constants fits any two sizes.
EVALUATIONS_PER_DOUBLING = 8  # Counts of steps are too high by at most 9 percent.
# In tuning, a training stops after this many times the steps of the fastest one.
PATIENCE = 4.0


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Tune and train every batch size on both data sets."""
    checkpoints = checkpoints or research.types.no_checkpoints
    seeds, tuning = check(config)
    jobs = plan(config)
    curves, arrays, done, total = [], {}, 0, sum(len(sizes) for _, sizes in jobs)
    for workload, sizes in jobs:
        probe, rate = make_probe(workload.train), FIRST_RATE
        there, points, rows = [], [], []
        for size in sizes:
            if on_progress:
                on_progress(done, total, f"{workload.name}, batches of {size:,}")
            compute = functools.partial(
                measure, workload, probe, size, rate, seeds, tuning, config
            )
            saved = research.runs.remembered(
                checkpoints, f"{workload.name}/{size}", compute
            )
            params = reached_params(workload, saved.arrays)
            if saved.values["steps"][0] is not None:
                rate = saved.values["rate"]
            there, done = params or there, done + 1
            rows.append(saved.values)
            points.append(saved.arrays["steps"])
        arrays |= {
            f"{workload.name}/batch_sizes": np.array(sizes),
            f"{workload.name}/steps": np.array(points),
        }
        starts = [
            workload.init(cell_key(seed, research.descent.INIT)) for seed in seeds
        ]
        curves.append(summary(workload, rows))
        noise = {"noise_at_start": starts, "noise_at_target": there}
        curves[-1] |= {
            name: noise_scale(workload, probe, points) for name, points in noise.items()
        }
    numbers = {"target": config.target, "probe": PROBE, "curves": curves}
    numbers["examples_over_law"] = [
        ratio for curve in curves for ratio in curve["examples_over_law"]
    ]
    return research.runs.Findings(arrays, numbers)


def check(config: Config):
    """Check the config, and return the reported seeds and the tuning seeds."""
    for name in ("batch_sizes", "large_batch_sizes"):
        sizes = getattr(config, name)
        if not sizes or min(sizes) < 1 or list(sizes) != sorted(set(sizes)):
            raise ValueError(
                f"{name} must be positive integers, ascending; got {name}={sizes}."
            )
    for name, least in (("large_examples", 0), ("most_steps", 1), ("width", 1)):
        if getattr(config, name) < least:
            raise ValueError(
                f"{name} must be at least {least}; got {name}={getattr(config, name)}."
            )
    if not 0 < config.target < 1:
        raise ValueError(
            "target must be a share of the initial f - f*, between 0 and 1; got "
            f"target={config.target}."
        )
    return parse_both_seeds(config)


def plan(config: Config):
    """Return each workload with its batch sizes. The last size is the full batch."""
    make = research.workloads.make_workload
    jobs = [with_full_batch(make(SMALL, holdout=False), config.batch_sizes)]
    if config.large_examples:
        large = make(LARGE, n=config.large_examples, holdout=False, dtype=LARGE_DTYPE)
        jobs.append(with_full_batch(large, config.large_batch_sizes))
    return jobs


def with_full_batch(workload: Any, sizes: Sequence[int]):
    """Return the workload with its batch sizes.

    These are the sizes below the number n of examples, and then n.
    """
    n = len(workload.train.y)
    used = [size for size in sizes if size < n] + [n]
    if len(used) < LEAST_SIZES:
        raise ValueError(
            f"{workload.name} needs at least {LEAST_SIZES - 1} batch sizes below its "
            f"{n:,} examples, because a law with two constants is fitted; got "
            f"{used[:-1]}."
        )
    return workload, used


def make_probe(train: Batch):
    """Return the examples on which f - f* is estimated.

    The result is the whole set if the set is small, and a fixed random subset
    otherwise.
    """
    n = len(train.y)
    if n <= PROBE:
        return train
    return jax.tree.map(
        lambda a: a[np.random.default_rng(0).choice(n, PROBE, replace=False)], train
    )


def gap_on(workload: Any, params: Params, probe: Batch):
    """Return f(x) - f(x*) - ∇f(x*)ᵀ(x - x*) on the probe.

    If the probe is the whole set, the gradient at x* is 0, and the result is f - f*. If
    the probe is a subset, its own minimum does not lie at x*, and the result is an
    estimate of f - f*. The last term removes the sampling error to first order. The
    remaining error is proportional to f - f*.
    """
    best = workload.optimum.params
    value, gradient = jax.value_and_grad(workload.objective)(best, probe)
    products = jax.tree.map(lambda g, x, b: (g * (x - b)).sum(), gradient, params, best)
    return workload.objective(params, probe) - value - sum(jax.tree.leaves(products))


def cell_key(seed: int, child: int):
    """Return a child key of a run's root key."""
    return jax.random.fold_in(jax.random.key(seed), child)


def training_step(workload: Any, batch_size: int, train: Batch):
    """Return a function (state, cell, i) -> state that makes step i of a training.

    The batch is drawn with replacement, unless it is the whole set. `cell` contains the
    seed and the learning rate of the run.
    """
    n = len(train.y)

    def step(state: Any, cell: dict[str, Any], i: int):
        key = jax.random.fold_in(cell_key(cell["seed"], research.descent.EPOCHS), i)
        indices = (
            None
            if batch_size == n
            else jax.random.randint(key, (batch_size,), 0, n, dtype="int32")
        )
        rule = research.update_rules.gradient_descent(cell["learning_rate"])
        descent = research.descent.build(workload.objective, rule, train)
        return descent.step(state, research.descent.BatchIndices(indices))[0]

    return step


def begin(workload: Any, cell: dict[str, Any]):
    """Return the state before the first step."""
    params = workload.init(cell_key(cell["seed"], research.descent.INIT))
    rule = research.update_rules.gradient_descent(cell["learning_rate"])
    return research.descent.build(workload.objective, rule, None).init(params)


def evaluation_steps(most: int):
    """Return the numbers of steps after which f - f* is evaluated.

    The first number is 0, and the last is `most`. In between, there are eight numbers
    for each factor of two.
    """
    steps = np.round(
        2
        ** (
            np.arange(np.log2(most) * EVALUATIONS_PER_DOUBLING)
            / EVALUATIONS_PER_DOUBLING
        )
    )
    return np.unique([0, *steps, most]).astype(np.int32)


def compile_program(
    workload: Any,
    probe: Batch,
    batch_size: int,
    target: float,
    most_steps: int,
    width: int,
):
    """Compile the training for one batch size.

    The result is `train` with the compiled program, so its arguments are seeds, rates
    and patience.

    A group of parallel runs stops at the first evaluation after which every run has
    reached the target or has diverged. It also stops after `most_steps` steps, or
    after `patience` times the steps of its fastest run.
    """

    def trainings(
        cells: dict[str, np.ndarray],
        patience: int,
        train: Batch,
        probe: Batch,
        steps: jax.Array,
    ):
        step = jax.vmap(training_step(workload, batch_size, train), (0, 0, None))
        gaps = jax.vmap(lambda params: gap_on(workload, params, probe))
        state = jax.vmap(lambda cell: begin(workload, cell))(cells)
        goal = target * gaps(state.params)

        def going(carry: Any):
            k, _, taken, gap, _ = carry
            limit = patience * jnp.min(jnp.where(taken < 0, jnp.inf, taken))
            return (
                (k < len(steps) - 1)
                & (steps[k] < limit)
                & jnp.any((taken < 0) & jnp.isfinite(gap))
            )

        def more(carry: Any):
            k, state, taken, _, there = carry
            state = jax.lax.fori_loop(
                steps[k], steps[k + 1], lambda i, s: step(s, cells, i), state
            )
            gap = gaps(state.params)
            now = (taken < 0) & (gap <= goal)
            there = jax.tree.map(
                functools.partial(jax.vmap(jnp.where), now), state.params, there
            )
            return k + 1, state, jnp.where(now, steps[k + 1], taken), gap, there

        nowhere = jnp.full(width, -1, steps.dtype)
        _, _, taken, gap, there = jax.lax.while_loop(
            going, more, (0, state, nowhere, goal, state.params)
        )
        return taken, there, gap / goal

    arguments = (workload.train, probe, jnp.asarray(evaluation_steps(most_steps)))
    cells = {"seed": np.zeros(width, np.int64), "learning_rate": np.ones(width)}
    compiled = jax.jit(trainings).lower(cells, np.float64(1), *arguments).compile()
    return functools.partial(train, compiled, arguments, width)


def train(
    compiled: Callable,
    arguments: tuple,
    width: int,
    seeds: Sequence[int] | np.ndarray,
    rates: np.ndarray,
    patience: float = np.inf,
):
    """Return steps, parameters at the target and the last f - f*, for each run.

    If a run does not reach the target, its number of steps is inf. The last f - f* is
    divided by the target. The runs are trained in groups of `width`.
    """
    cells = {
        "seed": np.asarray(seeds, np.int64),
        "learning_rate": np.asarray(rates, float),
    }
    outcomes = []
    for start in range(0, len(seeds), width):
        block = {name: v[start : start + width] for name, v in cells.items()}
        missing = width - len(block["seed"])
        padded = {
            name: np.concatenate([v, np.repeat(v[-1:], missing)])
            for name, v in block.items()
        }
        outcome = jax.device_get(compiled(padded, np.float64(patience), *arguments))
        outcomes.append(
            jax.tree.map(lambda a, missing=missing: a[: len(a) - missing], outcome)
        )
    taken, params, gaps = jax.tree.map(lambda *a: np.concatenate(a), *outcomes)
    return np.where(taken < 0, np.inf, taken), params, gaps


def measure(
    workload: Any,
    probe: Batch,
    batch_size: int,
    first_rate: float,
    seeds: Sequence[int],
    tuning: Sequence[int],
    config: Config,
    parts: Checkpoints | None = None,
):
    """Measure one batch size.

    The rate is chosen on the tuning seeds. Then the reported seeds are trained with
    this rate. Finally, a training that runs alone is timed.
    """
    del parts  # This takes seconds, so no checkpoint is saved.
    trained = compile_program(
        workload, probe, batch_size, config.target, config.most_steps, config.width
    )

    def score(rates: np.ndarray):
        cells = np.tile(tuning, len(rates)), np.repeat(rates, len(tuning))
        taken, _, gaps = trained(*cells, patience=PATIENCE)
        scores = tuning_scores(taken, gaps, config.most_steps * len(tuning))
        return scores.reshape(len(rates), len(tuning))

    choice = research.tuning.choose_rate(score, first_rate * 2.0 ** np.arange(-1, 3))
    taken, params, _ = trained(seeds, np.full(len(seeds), choice.rate))
    steps = [
        float(v) if np.isfinite(v) else None
        for v in research.statistics.median_interval(taken)
    ]
    row = {
        "batch_size": batch_size,
        "rate": choice.rate,
        "rate_at_edge": choice.at_edge,
        "steps": steps,  # Median, low, high; None: not reached.
        "reached": int(np.isfinite(taken).sum()),
        "seeds": len(seeds),
        "seconds": None
        if steps[0] is None
        else seconds_alone(workload, batch_size, choice.rate, int(steps[0])),
    }
    leaves = {f"params/{i}": leaf for i, leaf in enumerate(jax.tree.leaves(params))}
    return research.types.Saved({"steps": taken} | leaves, row)


def tuning_scores(taken: np.ndarray, gaps: np.ndarray, large: int):
    """Return the score of each tuning run: the steps to the target, or a larger number.

    A run that does not reach the target has a score above `large`: the closer it came
    to the target, the lower its score. So if no rate reaches the target, the rate that
    came closest is chosen. A run that diverged has the score inf.

    Args:
      taken: Number of steps to the target; inf: not reached.
      gaps: Last f - f*, divided by the target.
      large: Number above the sum of the steps of all tuning seeds.
    """
    slow = np.where(
        np.isfinite(gaps), large * (1.0 + np.maximum(gaps, 0.0).astype(float)), np.inf
    )
    return np.where(np.isfinite(taken), taken, slow)


def reached_params(workload: Any, arrays: dict[str, np.ndarray]):
    """Return the parameters at the target, for each seed that reached the target."""
    structure = jax.tree.structure(workload.optimum.params)
    stacked = jax.tree.unflatten(
        structure, [arrays[f"params/{i}"] for i in range(structure.num_leaves)]
    )
    return [
        jax.tree.map(lambda a, i=i: a[i], stacked)
        for i in np.flatnonzero(np.isfinite(arrays["steps"]))
    ]


def seconds_alone(workload: Any, batch_size: int, rate: float, steps: int):
    """Measure the seconds of a training that runs alone.

    Evaluation and compilation are not included. The result is the fastest of five
    calls.
    """
    cell = {"seed": np.int64(0), "learning_rate": np.float64(rate)}

    def training(state: Any, steps: Any, train: Batch):
        step = training_step(workload, batch_size, train)
        return jax.lax.fori_loop(0, steps, lambda i, s: step(s, cell, i), state)

    arguments = begin(workload, cell), np.int32(steps), workload.train
    compiled = jax.jit(training).lower(*arguments).compile()
    return min(
        timeit.repeat(
            lambda: jax.block_until_ready(compiled(*arguments)), number=1, repeat=5
        )
    )


def noise_scale(workload: Any, probe: Batch, points: Any):
    """Return the median over the points of tr(C) / |∇f|².

    C is the covariance of the gradients of single examples, and ∇f is the full
    gradient. A batch of b examples has a gradient with variance tr(C) / b. If b equals
    the result, this variance is |∇f|².
    """

    def scale(params: Params):
        gradient = jax.tree.leaves(jax.grad(workload.objective)(params, probe))
        trace = research.objectives.gradient_covariance_trace(
            workload.objective, params, probe
        )
        return trace / sum((g**2).sum() for g in gradient)

    return float(np.median(jax.device_get(list(map(jax.jit(scale), points)))))


def summary(workload: Any, rows: Sequence[dict[str, Any]]):
    """Return the facts of one workload.

    There is a row for each batch size. Other facts are the knee and the two limits of
    the fitted law: the number of steps of very large batches, and the number of example
    gradients of very small ones.
    """
    reached = [row for row in rows if row["steps"][0] is not None]
    if len(reached) < LEAST_SIZES:
        raise ValueError(
            f"On {workload.name}, {len(reached)} of {len(rows)} batch sizes reached "
            f"the target, and the law needs {LEAST_SIZES}. Increase most_steps or "
            "target."
        )
    for row in reached:
        row["examples"] = [
            None if v is None else v * row["batch_size"] for v in row["steps"]
        ]
    law = fit_law(
        [row["batch_size"] for row in reached], [row["examples"][0] for row in reached]
    )
    fastest = min(reached, key=lambda row: row["seconds"])
    full = rows[-1].get("examples", [None])[0]
    over_law = [row["examples"][0] / law.examples(row["batch_size"]) for row in reached]
    pays = [
        row["batch_size"]
        for row in reached
        if row["examples"][0] <= 2 * law.least_examples
    ]
    return {
        "workload": workload.name,
        "n": len(workload.train.y),
        "dtype": str(workload.train.x.dtype),
        "rows": rows,
        "least_steps": law.least_examples / law.knee,
        "least_examples": law.least_examples,
        "fastest_in_seconds": fastest["batch_size"],
        "fastest_seconds": fastest["seconds"],
        "knee": law.knee,
        "examples_over_law": [min(over_law), max(over_law)],
        "pays_up_to": max(pays, default=None),
        "full_over_least": None if full is None else full / law.least_examples,
    }


class Law(NamedTuple):
    """The law of McCandlish et al. 2018 for the cost to reach a target.

    Attributes:
      least_examples: Number m of example gradients that very small batches need.
      knee: Batch size that needs 2 m example gradients. Very large batches need
        m / knee steps.
    """

    least_examples: float
    knee: float

    def examples(self, batch_size: int) -> float:
        """Return m (1 + b / knee), the example gradients of batches of b examples."""
        return self.least_examples * (1 + batch_size / self.knee)


def fit_law(sizes: Sequence[int], examples: Sequence[float]) -> Law:
    """Fit the law to measured numbers of example gradients.

    The sum of squares of log(measured / law) is minimised. So every batch size counts
    equally, and a lucky median of one size hardly moves the result.
    """
    b, logs = np.array(sizes, float), np.log(examples)

    def residuals(logs_of_law: np.ndarray):
        m, knee = logs_of_law
        return np.logaddexp(m, m + np.log(b) - knee) - logs

    steps = logs - np.log(b)
    start = [logs.min(), logs.min() - steps.min()]
    return Law(*map(float, np.exp(least_squares(residuals, start).x)))
