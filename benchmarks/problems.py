"""Give every contender the same workload, order of examples, rate and updates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research import samplers, workloads
from research.types import Key, Params, Sampler, Workload

DTYPE = "float64"  # Of every contender; it is what the experiments use.
BATCH_SIZE = 32
REGIMES = ("full batch", f"mini-batch {BATCH_SIZE}", "stochastic")
MODELS = {"linear": "diabetes", "logistic": "breast_cancer", "softmax": "digits"}
PENALTIES = {
    "linear": 0.0,
    "logistic": 0.01,
    "softmax": 0.01,
}  # As the workloads have them; equal losses prove it.
# Small enough that every training is stable: a chaotic one would magnify rounding until
# losses differ.
RATES = {
    "linear": (0.1, 0.05, 0.005),
    "logistic": (0.25, 0.1, 0.01),
    "softmax": (0.1, 0.05, 0.005),
}
STEPS = {
    "linear": (2000, 2000, 6000),
    "logistic": (2000, 2000, 6000),
    "softmax": (400, 1000, 4000),
}
QUICK_STEPS = 40


class Problem(NamedTuple):
    """One training that every contender makes.

    Attributes:
      model, regime: As in MODELS and REGIMES.
      workload, sampler: Data and objective, and whose draws feed the steps.
      key: The key of all epochs, which fixes the order.
      params: The initial point.
      rate, penalty: η, and λ of the workload's penalty.
      num_epochs: Length.
      order: Every draw of the run, in turn, shape (steps, batch size); None for the
        full batch.
    """

    model: str
    regime: str
    workload: Workload
    sampler: Sampler
    key: Key
    params: Params
    rate: float
    penalty: float
    num_epochs: int
    order: np.ndarray | None

    @property
    def steps(self) -> int:
        """Return the number of updates in the whole training."""
        return self.num_epochs * self.sampler.num_batches


def training_data(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of a workload; all workloads here have data."""
    assert workload.train is not None
    return np.asarray(workload.train.x), np.asarray(workload.train.y)


def make_sampler(regime: str, n: int) -> Sampler:
    """Return the sampler of a regime for n examples."""
    makers = (
        samplers.full_batch,
        lambda n: samplers.minibatch(n, BATCH_SIZE),
        samplers.stochastic,
    )
    return makers[REGIMES.index(regime)](n)


def draw_order(sampler: Sampler, key: Key, num_epochs: int) -> np.ndarray | None:
    """Return the indices that `research.descent.run` draws from this key.

    They are in the order of the epochs, shape (steps, batch size).
    """
    if sampler.indices(key) is None:
        return None
    draws = jax.jit(
        jax.vmap(lambda epoch: sampler.indices(jax.random.fold_in(key, epoch)))
    )(jnp.arange(num_epochs))
    return np.asarray(draws).reshape(-1, sampler.batch_size)


def make_problem(model: str, regime: str, quick: bool = False) -> Problem:
    """Return the training for a model and a regime.

    Its number of updates is a whole number of epochs.
    """
    workload = workloads.make_workload(MODELS[model], dtype=DTYPE)
    sampler, place = (
        make_sampler(regime, len(training_data(workload)[1])),
        REGIMES.index(regime),
    )
    steps = QUICK_STEPS if quick else STEPS[model][place]
    num_epochs = max(2, round(steps / sampler.num_batches))
    key = jax.random.key(1)
    return Problem(
        model=model,
        regime=regime,
        workload=workload,
        sampler=sampler,
        key=key,
        params=workload.init(jax.random.key(0)),
        rate=RATES[model][place],
        penalty=PENALTIES[model],
        num_epochs=num_epochs,
        order=draw_order(sampler, key, num_epochs),
    )


def numpy_batches(
    workload: Workload, order: np.ndarray | None, steps: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the (x, y) of every step, gathered beforehand.

    So no peer has to gather examples or draw an order.
    """
    x, y = training_data(workload)
    if order is None:
        return [(x, y)] * steps
    return [(x[indices], y[indices]) for indices in order]


def final_loss(problem: Problem, params: Any) -> float:
    """Return the training objective at a contender's last params.

    The same function evaluates all contenders.
    """
    arrays = jax.tree.map(lambda leaf: jnp.asarray(leaf, DTYPE), params)
    return float(problem.workload.objective(arrays, problem.workload.train))
