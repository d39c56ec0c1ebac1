"""Do the published numbers of an optimizer benchmark hold when its data are shuffled
anew each epoch?

DeepOBS (Schneider, Balles & Hennig 2019) compares optimizers on `quadratic_deep`, the
mean of ½ (θ - x_i)ᵀH(θ - x_i) over 1000 examples x_i with a fixed matrix H. DeepOBS
publishes every loss. This experiment repeats these trainings, with the same H, data and
initial point: 100 epochs of seven batches of 128. The examples have one order for all
epochs of a seed (fixed), or a new order in each epoch (reshuffled). The published
mini-batch losses repeat every seven steps, which is one epoch. This is a fact. The
probable cause is a shuffle whose fixed seed was set again in each epoch. This is an
inference. The published rates were chosen on the test loss of one seed. Here rates are
chosen by the mean validation loss of ten seeds, and the results are reported on other
seeds. The validation set is drawn in the same way as the test set.

    python experiments/deepobs_audit.py            # under a minute on two cores
    # All 36 published rates, and 100 seeds reported.
    python experiments/deepobs_audit.py --full

Expected numbers (`EXPECTED`):

- the initial test loss;
- for each rule, the mean of the last test loss over ten seeds in fixed order, as a
  deviation from the published value;
- for gradient descent, how much the mini-batch losses change over one epoch, divided by
  how much they change over fewer steps;
- the last test loss of heavy ball at its published rate if the data are reshuffled,
  minus the published loss.
"""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import research

EXPECTED = {
    "initial_loss": (353.44323, 353.45030),
    "gradient_descent_off": (-0.8, 0.8),
    "heavy_ball_off": (-0.2, 0.2),
    "adam_off": (-0.2, 0.2),
    "repetition": (0.0, 0.01),
    "repetition_reshuffled": (0.5, 2.0),
    "heavy_ball_reshuffled": (0.7, 2.5),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    rates: tuple[int, ...] = tuple(range(5, 21))
    """Learning rates, given by k: the rate is 10^(-5 + k/5). The published rates are
    always included."""
    epochs: int = 100
    """Epochs of each training. Results are compared with published results only after
    100 epochs."""
    tuning_seeds: str = "42..51"
    """Seeds of the published results. Rates are chosen on these seeds."""
    seeds: str = "52..71"
    """Reported seeds. They must differ from the tuning seeds."""


FULL = Config(rates=tuple(range(36)), seeds="52..151")


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from experiments._trainings import parse_both_seeds
from research.cli.progress import OnProgress
from research.types import Checkpoints

EXAMPLES, DIMENSION, BATCH, STEPS = (
    1000,
    100,
    128,
    7,
)  # Steps per epoch: the last 104 examples of an epoch's order are not used.
PUBLISHED_AFTER = (
    1,
    10,
    100,
)  # Epochs with published test losses; a training of another length lacks the last one.
LAST = 21  # Number of final mini-batch losses that are kept: three epochs.
ORDERS = ("fixed", "reshuffled")


class Published(NamedTuple):
    """Published results of DeepOBS_Baselines (MIT licence).

    The rate with index k is 10^(-5 + k/5). Losses are means over the seeds 42 to 51.
    """

    name: str
    k: int  # Index k of the chosen rate.
    losses: tuple[
        float, float, float
    ]  # Test losses at that rate, after PUBLISHED_AFTER.
    # Last test losses at seed 42 for k = 0, 1, ..., up to the first that is not finite.
    sweep: tuple[float, ...]


# fmt: off
PUBLISHED = {
    "gradient_descent": Published("SGD", 16, (105.3304, 92.97845, 87.39747), (
        236.09, 195.76, 156.29, 126.62, 111.44, 106.63, 105.10, 103.63, 101.60, 98.96,
        95.85, 92.72, 90.15, 88.47, 87.60, 87.28, 87.28, 87.38)),
    "heavy_ball": Published("momentum 0.99", 12, (271.158, 134.2614, 87.04504), (
        96.76, 93.21, 90.27, 88.52, 87.87, 87.29, 87.24, 87.14, 87.13, 87.25, 87.08,
        87.27, 87.04, 87.16, 87.49, 87.59, 234.99, 100.89, 88.95, 102.60)),
    "adam": Published("Adam", 18, (141.8246, 94.73044, 87.11188), (
        345.21, 340.49, 333.17, 321.92, 304.99, 280.31, 246.19, 203.19, 157.34, 121.85,
        106.70, 102.18, 98.08, 93.93, 90.61, 88.53, 87.54, 87.20, 87.12, 87.13, 87.25,
        87.74, 89.30, 93.06, 93.97, 88.82, 90.91, 97.59, 118.22, 112.41, 143.17, 286.12,
        141.54, 258.71, 101.94, 331.96)),
}
# The last mini-batch losses of SGD at its chosen rate, seed 42.
PUBLISHED_BATCHES = (
    87.79, 83.85, 88.59, 88.13, 82.27, 87.16, 76.69, 87.79, 83.84, 88.59, 88.13, 82.27,
    87.16, 76.68, 87.79, 83.84, 88.59, 88.13, 82.27, 87.15, 76.68,
)
# fmt: on


class Problem(NamedTuple):
    """Test problem: H, and the training, validation and test examples.

    H is given by its eigenvalues, shape (d,), and by its eigenvectors, which are the
    rows of an array of shape (d, d).
    """

    eigenvalues: np.ndarray
    rotation: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Train every rule at every rate on every seed in both orders, and summarise."""
    checkpoints = checkpoints or research.types.no_checkpoints
    ks, seeds, tuning = check(config)
    problem, all_seeds = make_problem(), [*tuning, *seeds]
    arrays = {"rates": rate(ks), "seeds": np.array(all_seeds)}
    jobs = [(order, rule) for order in ORDERS for rule in PUBLISHED]
    for done, (order, rule) in enumerate(jobs):
        if on_progress:
            on_progress(done, len(jobs), f"{rule}, {order} order")
        compute = functools.partial(
            train, problem, order, rule, ks, all_seeds, config.epochs
        )
        saved = research.runs.remembered(
            checkpoints, f"{order}/{rule}", lambda parts, compute=compute: compute()
        )
        arrays |= {
            f"{order}/{rule}/{name}": array for name, array in saved.arrays.items()
        }
    numbers = summarise(arrays, ks, len(tuning))
    return research.runs.Findings(arrays, numbers)


def check(config: Config):
    """Check the config, and return its rates and seeds.

    The result is the indices k of the rates, the reported seeds, and the tuning seeds.
    """
    if not jax.config.read("jax_enable_x64"):
        raise ValueError(
            "the audit needs float64, which is off in JAX. First call "
            "research.backend.configure(x64=True)."
        )
    if not config.rates or min(config.rates) < 0 or max(config.rates) > 35:
        raise ValueError(
            "rates must be numbers k from 0 to 35, for the rates 10^(-5 + k/5), at "
            f"least one; got rates={config.rates}."
        )
    if config.epochs < 10:
        raise ValueError(
            "epochs must be at least 10, the first epoch with published losses; got "
            f"epochs={config.epochs}."
        )
    seeds, tuning = parse_both_seeds(config)
    if min(len(seeds), len(tuning)) < 2:
        raise ValueError(
            "seeds and tuning_seeds must each have at least two seeds, for an "
            "interval and a mean. 52..71 are twenty seeds."
        )
    return (
        sorted({*config.rates, *(published.k for published in PUBLISHED.values())}),
        seeds,
        tuning,
    )


def rate(k: Any):
    """Return the learning rates of DeepOBS with indices k: five rates per decade."""
    return 10.0 ** (-5 + np.asarray(k) / 5)


def make_problem():
    """Return H and the examples, from NumPy's old generator, which DeepOBS uses.

    The validation set does not exist in DeepOBS. Its seed is 44.
    """
    random = np.random.RandomState(42)
    eigenvalues = np.concatenate([random.uniform(0, 1, 90), random.uniform(30, 60, 10)])
    rotation = draw_rotation(random, DIMENSION)
    sets = [
        np.random.RandomState(seed).normal(0, 0.6, (EXAMPLES, DIMENSION))
        for seed in (42, 44, 43)
    ]
    return Problem(
        eigenvalues, rotation, *(x.astype(np.float32).astype(np.float64) for x in sets)
    )


def draw_rotation(random: np.random.RandomState, dimension: int):
    """Draw a uniform rotation by the subgroup algorithm.

    The algorithm is from Diaconis & Shahshahani (1987). A uniform rotation of k + 1
    dimensions is built from a uniform rotation of k dimensions, which acts on the last
    k axes. Then a reflection maps the first axis e_1 to a uniformly random direction v.
    The reflection is I - 2 u uᵀ, where u is the unit vector along v - e_1.
    """
    rotation, angle = np.eye(dimension), 2 * np.pi * random.uniform()
    rotation[-2:, -2:] = [
        [np.cos(angle), np.sin(angle)],
        [-np.sin(angle), np.cos(angle)],
    ]
    for size in range(3, dimension + 1):
        v = random.normal(size=size)
        v /= np.linalg.norm(v)
        v[0] -= 1
        block = rotation[-size:, -size:]
        block -= 2 * np.outer(v, v @ block) / (v @ v)
    return rotation


def energy(problem: Problem, x: Any):
    """Return ½ xᵀHx for each row of x."""
    return 0.5 * (x @ problem.rotation.T) ** 2 @ problem.eigenvalues


def bowls(problem: Problem, x: Any, rows: Any, size: int):
    """Write the loss of each batch of x[rows] as a quadratic ½ (θ - m)ᵀH(θ - m) + c.

    Returns:
      Means m of shape (batches, d), and constants c of shape (batches,).
    """
    means = x[rows].reshape(-1, size, DIMENSION).mean(axis=1)
    return means, energy(problem, x)[rows].reshape(-1, size).mean(axis=1) - energy(
        problem, means
    )


def training_bowls(problem: Problem, order: str, seeds: Sequence[int], epochs: int):
    """Return means and constants (see `bowls`) of the batches of every seed.

    Their shapes are (seeds, batches, d) and (seeds, batches).
    """
    fed = [
        bowls(problem, problem.train, epochs_of(order, seed, epochs), BATCH)
        for seed in seeds
    ]
    return tuple(np.stack(part) for part in zip(*fed, strict=True))


def held_out_bowls(problem: Problem):
    """Return means and constants (see `bowls`) of the validation and the test set.

    As in training, only the first 896 examples of a set are used.
    """
    rows = slice(BATCH * STEPS)
    held_out = [
        bowls(problem, x, rows, BATCH * STEPS)
        for x in (problem.validation, problem.test)
    ]
    return tuple(np.concatenate(part) for part in zip(*held_out, strict=True))


def epochs_of(order: str, seed: int, epochs: int):
    """Return the indices of the examples in the batches of all epochs, in order.

    If all epochs have the same order, only one epoch is returned.
    """
    random = np.random.default_rng(seed)
    count = epochs if order == "reshuffled" else 1
    return np.concatenate(
        [random.permutation(EXAMPLES)[: BATCH * STEPS] for _ in range(count)]
    )


def train(
    problem: Problem, order: str, rule: str, ks: Any, seeds: Sequence[int], epochs: int
):
    """Train a rule at every rate on every seed.

    Returns:
      Arrays by name. The last validation losses and the last test losses have shape
      (rates, seeds). Other arrays are measured only at the published rate: the test
      loss after each epoch has shape (seeds, epochs + 1), and the last mini-batch
      losses have shape (seeds, LAST).
    """
    # Gradient descent, with or without momentum, is invariant to rotations, so H can be
    # diagonal. Adam depends on the axes.
    rotated = rule != "adam"
    basis = problem.rotation if rotated else np.eye(DIMENSION)
    curvature = (
        problem.eigenvalues
        if rotated
        else (problem.rotation.T * problem.eigenvalues) @ problem.rotation
    )
    more = {"momentum": 0.99} if rule == "heavy_ball" else {}
    make_rule = functools.partial(research.update_rules.find_rule(rule), **more)
    means, constants = training_bowls(problem, order, seeds, epochs)
    centres, least = held_out_bowls(problem)

    def bowl(theta: jax.Array, batch: Any):
        off = theta - batch.x
        return 0.5 * off @ (curvature * off if rotated else curvature @ off) + batch.y

    def training(learning_rate: float, means: Any, constants: tuple):
        dataset, rule = research.types.Batch(means, constants), make_rule(learning_rate)
        init, step = research.descent.build(bowl, rule, dataset)

        def epoch(state: Any, number: Any):
            indices = (number * STEPS + jnp.arange(STEPS)) % len(means)
            state, info = jax.lax.scan(
                step, state, research.descent.BatchIndices(indices)
            )
            return state, (evaluate(state.params), info.loss)

        start = init(jnp.asarray(basis.sum(axis=1)))  # θ = (1, ..., 1).
        _, (after, losses) = jax.lax.scan(epoch, start, jnp.arange(epochs))
        return jnp.concatenate([evaluate(start.params)[None], after]), losses.ravel()[
            -LAST:
        ]

    def evaluate(theta: jax.Array):
        batch = research.types.Batch(jnp.asarray(centres @ basis.T), jnp.asarray(least))
        return jax.vmap(bowl, (None, 0))(theta, batch)

    every = jax.jit(jax.vmap(jax.vmap(training, (None, 0, 0)), (0, None, None)))
    values, losses = jax.device_get(every(rate(ks), means @ basis.T, constants))
    at = ks.index(PUBLISHED[rule].k)
    last = {"validation": values[:, :, -1, 0], "test": values[:, :, -1, 1]}
    return research.types.Saved(
        last | {"curves": values[at, :, :, 1], "batches": losses[at], "least": least}
    )


def repetition(losses: np.ndarray):
    """Return how much the mini-batch losses change over one epoch.

    The losses have shape (..., LAST), and an epoch has STEPS steps. The result is the
    mean change over STEPS steps, divided by the mean change over 1 to STEPS - 1 steps.
    """
    changes = [
        np.mean(np.abs(losses[..., lag:] - losses[..., :-lag]))
        for lag in range(1, STEPS + 1)
    ]
    return float(changes[-1] / np.mean(changes[:-1]))


def mean_interval(samples: np.ndarray):
    """Return (mean, low, high): the mean over seeds and its 95 % bootstrap interval."""
    interval = stats.bootstrap(
        (samples,), np.mean, n_resamples=2000, method="percentile", rng=0
    ).confidence_interval
    return float(np.mean(samples)), float(interval.low), float(interval.high)


def summarise(arrays: dict[str, np.ndarray], ks: Any, tuned: int):
    """Return the numbers for the table and the answer, as JSON.

    The first `tuned` seeds are the tuning seeds. The other seeds are reported.
    """
    epochs = arrays["fixed/adam/curves"].shape[1] - 1
    same_length = epochs == PUBLISHED_AFTER[-1]
    numbers = {"seeds": len(arrays["seeds"]), "rows": [], "picked": []}
    for rule, published in PUBLISHED.items():
        for order in ORDERS:
            row = summary_row(arrays, ks, tuned, rule, order)
            numbers["rows"].append(row)
            last = finite_or_inf(arrays[f"{order}/{rule}/test"])
            picks = np.bincount(np.argmin(last, axis=0), minlength=len(ks))
            numbers["picked"] += [
                [published.name, order, float(rate(ks[i])), int(picks[i])]
                for i in picks.nonzero()[0]
            ]
            if order == "fixed" and same_length:
                numbers[f"{rule}_off"] = row["losses"][-1] - published.losses[-1]
    fixed, reshuffled = (
        arrays[f"{order}/gradient_descent/batches"][:tuned] for order in ORDERS
    )
    momentum = numbers["rows"][3]
    if same_length:
        numbers["heavy_ball_reshuffled"] = (
            momentum["losses"][-1] - momentum["published"][-1]
        )
    return numbers | {
        "initial_loss": float(arrays["fixed/adam/curves"][0, 0]),
        "least": float(arrays["fixed/adam/least"][1]),
        "repetition": repetition(fixed),
        "repetition_reshuffled": repetition(reshuffled),
        "repetition_published": repetition(np.array(PUBLISHED_BATCHES)),
        "best_two": best_two(arrays, numbers["rows"], tuned),
    }


def summary_row(
    arrays: dict[str, np.ndarray], ks: Any, tuned: int, rule: str, order: str
):
    """Return the losses of one rule and order at the published and the chosen rate.

    The rate with the lowest mean validation loss on the tuning seeds is chosen.
    """
    published = PUBLISHED[rule]
    validation, test = (
        finite_or_inf(arrays[f"{order}/{rule}/{name}"])
        for name in ("validation", "test")
    )
    curves = arrays[f"{order}/{rule}/curves"]
    epochs = curves.shape[1] - 1
    *earlier, last = published.losses
    scores = validation[:, :tuned].mean(axis=1)
    best = int(np.argmin(scores))
    mean, low, high = mean_interval(test[best, tuned:])
    return {
        "name": published.name,
        "order": order,
        "epochs": epochs,
        "published": [*earlier, last if epochs == PUBLISHED_AFTER[-1] else None],
        "rate": float(rate(published.k)),
        "chosen": float(rate(ks[best])),
        "tuned": float(scores[best]),
        "losses": np.mean(curves[:tuned, [1, 10, -1]], axis=0).tolist(),
        "there": float(np.mean(test[ks.index(published.k), tuned:])),
        "mean": mean,
        "low": low,
        "high": high,
    }


def finite_or_inf(losses: np.ndarray):
    """Return the losses with infinity for each one that is not finite."""
    return np.where(np.isfinite(losses), losses, np.inf)


def best_two(arrays: dict[str, np.ndarray], rows: Any, tuned: int):
    """Compare the two rules that are best on the tuning seeds.

    They are compared on the reported seeds. Only one pair is compared, so no correction
    for multiple comparisons is needed.
    """
    ranked = sorted(
        zip(PUBLISHED, rows[1::2], strict=True), key=lambda pair: pair[1]["tuned"]
    )[:2]
    at = [np.argmin(np.abs(arrays["rates"] - row["chosen"])) for _, row in ranked]
    ends = [
        arrays[f"reshuffled/{rule}/test"][i, tuned:]
        for (rule, _), i in zip(ranked, at, strict=True)
    ]
    return {
        "names": [row["name"] for _, row in ranked],
        "difference": mean_interval(ends[0] - ends[1]),
    }
