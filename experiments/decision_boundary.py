"""Where does logistic regression draw the line, and how does it get there?

The task is to classify tumours as benign or malignant from two measurements of their
nuclei. The model is P(benign) = 1 / (1 + exp(-z)) with the score z = wᵀx + b. The
boundary, where the probability is one half, is the straight line z = 0. It is known
exactly, because Newton's method finds the optimum. Descent has two speeds. One step
reduces the angle between the boundary and the exact one from 126° to 23°, and the test
accuracy is then already as high as after the last step. The length of w determines how
sharply the probability changes across the boundary. This length needs a hundred steps.

    python experiments/decision_boundary.py            # some seconds

Expected numbers (`EXPECTED`): the test accuracy after one epoch and at the end; the
first epoch from which on |w| is within 1 % of its exact value; and, at the end, f - f*
and the angle between the boundary and the exact boundary, in degrees.
"""

import dataclasses
import math
import sys
from typing import Any

import research

EXPECTED = {
    "accuracy_after_one": (0.93, 0.96),
    "accuracy": (0.92, 0.94),
    "epochs_to_length": (95, 115),
    "gap": (-1e-15, 1e-9),
    "angle": (0.0, 1e-2),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    epochs: int = 400
    """Epochs of the training."""
    learning_rate: float = 1.0
    """Learning rate of gradient descent."""
    batch_size: int = 0
    """Examples in a batch. 0 means the full batch."""
    seed: int = 0
    """Seed of the starting point, and of the order of the examples if batches are
    used."""


FULL = Config(epochs=2000)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np

from research.checks import check_count
from research.cli.progress import OnProgress
from research.types import Checkpoints

WORKLOAD = "breast_cancer_two_features"
LENGTH_CLOSE = 0.01  # Tolerance: |w| is within 1 % of its exact length.


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Train, and compare the boundary of every epoch with the exact one."""
    del checkpoints  # The experiment takes seconds, so no checkpoint is saved.
    if not 0 < config.learning_rate < math.inf:
        raise ValueError(
            "learning_rate must be a positive number; got "
            f"learning_rate={config.learning_rate}."
        )
    check_count("epochs", config.epochs)
    check_count("batch_size", config.batch_size, least=0)
    if on_progress:
        on_progress(0, 1, WORKLOAD)
    workload = research.workloads.make_workload(WORKLOAD)
    arrays = measure(workload, config)
    numbers = facts(config, arrays, workload)
    if on_progress:
        on_progress(1, 1, WORKLOAD)
    return research.runs.Findings(arrays, numbers)


def measure(workload: Any, config: Config):
    """Return the examples and the boundaries.

    There is a boundary (w1, w2, b) after each epoch, and the exact boundary.
    """
    training, optimum = train(workload, config), workload.optimum
    exact = np.array([*optimum.params["weights"], optimum.params["intercept"]])
    params = np.stack([training["w1"], training["w2"], training["b"]], axis=1)
    return {
        "x": np.asarray(workload.train.x),
        "y": np.asarray(workload.train.y),
        "exact": exact,
        "params": params,
        "gaps": training["f"] - optimum.value,
        "accuracies": training["accuracy"],
        "angles": angles(params, exact),
        "lengths": np.hypot(params[:, 0], params[:, 1]) / np.hypot(exact[0], exact[1]),
    }


def train(workload: Any, config: Config):
    """Train once, and return values before training and after each epoch, by name.

    The array of each value begins with an axis of length epochs + 1.
    """
    key_init, key_epochs = (
        jax.random.fold_in(jax.random.key(config.seed), child) for child in range(2)
    )
    n, samplers = len(workload.train.y), research.samplers
    sampler = (
        samplers.minibatch(n, config.batch_size)
        if config.batch_size
        else samplers.full_batch(n)
    )
    rule = research.update_rules.find_rule("gradient_descent")(config.learning_rate)
    init, step = research.descent.build(workload.objective, rule, workload.train)

    def evaluate(params: Any):
        weights = params["weights"]
        accuracy = workload.metric(params, workload.test).astype(weights.dtype)
        f = workload.objective(params, workload.train)
        return {
            "w1": weights[0],
            "w2": weights[1],
            "b": params["intercept"],
            "f": f,
            "accuracy": accuracy,
        }

    @jax.jit
    def whole(params: Any):
        state, epochs = init(params), jnp.arange(config.epochs)
        _, info = research.descent.run(
            step, state, sampler, key_epochs, epochs, evaluate=evaluate
        )
        return evaluate(params), jax.tree.map(
            lambda leaf: leaf[:, -1], info.evaluations
        )

    first, later = whole(workload.init(key_init))
    training = {
        name: np.concatenate([np.asarray(first[name])[None], later[name]])
        for name in first
    }
    bad = np.flatnonzero(~np.isfinite(training["f"]))
    if len(bad):
        raise ValueError(
            f"learning_rate={config.learning_rate} diverges: f is not finite after "
            f"epoch {bad[0]}. Choose a smaller one."
        )
    return training


def angles(params: Any, exact: np.ndarray):
    """Return the angle in degrees between each (w1, w2) and the exact (w1, w2).

    The angle is computed with atan2, which is accurate for small angles.
    """
    across = params[:, 0] * exact[1] - params[:, 1] * exact[0]
    along = params[:, 0] * exact[0] + params[:, 1] * exact[1]
    return np.degrees(np.abs(np.arctan2(across, along)))


def facts(config: Config, arrays: dict[str, np.ndarray], workload: Any):
    """Return the results of the training, as JSON."""
    close = np.abs(arrays["lengths"] - 1) <= LENGTH_CLOSE
    last_far = np.flatnonzero(~close)[-1]
    return {
        "n": len(arrays["y"]),
        "n_test": len(workload.test.y),
        "epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "regime": f"mini-batch {config.batch_size}"
        if config.batch_size
        else "full batch",
        "weights": arrays["params"][-1, :2].tolist(),
        "intercept": float(arrays["params"][-1, 2]),
        "exact": {
            "weights": arrays["exact"][:2].tolist(),
            "intercept": float(arrays["exact"][2]),
        },
        "solver": workload.optimum.solver,
        "angle_at_start": float(arrays["angles"][0]),
        "angle_after_one": float(arrays["angles"][1]),
        "angle": float(arrays["angles"][-1]),
        "length_after_one": float(arrays["lengths"][1]),
        "length": float(arrays["lengths"][-1]),
        "epochs_to_length": None if last_far == config.epochs else int(last_far + 1),
        "initial_gap": float(arrays["gaps"][0]),
        "gap": float(arrays["gaps"][-1]),
        "accuracy_at_start": float(arrays["accuracies"][0]),
        "accuracy_after_one": float(arrays["accuracies"][1]),
        "accuracy": float(arrays["accuracies"][-1]),
        "exact_accuracy": float(
            workload.metric(workload.optimum.params, workload.test)
        ),
    }
