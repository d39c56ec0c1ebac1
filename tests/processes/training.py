"""One training on a mesh, for the tests of processes.

python tests/processes/training.py '{"model": "mlp", "rule": "adam", "devices": 4}'
"""

import json
import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from research import (
    backend,
    cluster,
    descent,
    losses,
    models,
    objectives,
    runs,
    samplers,
)
from research.types import Batch
from research.update_rules import UPDATE_RULES

PROGRAMS = Path(__file__).parents[2] / ".pytest_cache/programs"
DEFAULTS = {
    "devices": 4,
    "pool": 4,
    "model": "mlp",  # Or gpt.
    "rule": "adam",
    "shard": False,
    "exact": True,
    "num_epochs": 3,
    "folder": None,  # Of checkpoints.
    "kill": None,  # [process, epoch]: that process kills itself before that evaluation.
    "differ": None,  # Process that starts from other params.
    "absent": None,  # Process that never joins.
    "seconds": 120,  # To wait for the others.
}


def mlp():
    """A network on 64 examples; its last layer has leaves that four do not divide."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(64, 6)).astype(np.float32)
    y = generator.integers(0, 3, 64).astype(np.int32)
    model = models.mlp((6, 8, 3), dtype=jnp.float32)
    return model, losses.softmax_cross_entropy, Batch(x, y)


def gpt():
    """A small GPT on characters that are drawn at random."""
    tokens = np.random.default_rng(0).integers(0, 16, (64, 9)).astype(np.int32)
    sizes = {"width": 16, "num_layers": 1, "num_heads": 2, "hidden": 32}
    model = models.transformer_decoder(
        16, 8, **sizes, tied=True, positions="sinusoidal", dtype=jnp.float32
    )
    return model, losses.sequence_cross_entropy, Batch(tokens[:, :-1], tokens[:, 1:])


class Evaluation:
    """The loss on all data; it can kill its process."""

    def __init__(self, objective, data, kill):
        self.objective, self.data, self.kill, self.calls = objective, data, kill, 0

    def __call__(self, params):
        if self.kill == [jax.process_index(), self.calls]:
            os.kill(os.getpid(), signal.SIGKILL)
        self.calls += 1
        return {"loss": float(self.objective(params, self.data))}


def fit(asked):
    """Train, and return a hash of all results and the number of evaluations."""
    model, loss, data = {"mlp": mlp, "gpt": gpt}[asked["model"]]()
    objective = objectives.empirical_risk(model, loss)
    evaluate = Evaluation(objective, data, asked["kill"])
    seed = int(asked["differ"] == jax.process_index())
    folder = asked["folder"]
    checkpoint = folder and runs.checkpoints_in(folder, 0.0)("training")
    trained = descent.train(
        objective,
        UPDATE_RULES[asked["rule"]](0.01),
        data,
        samplers.minibatch(64, 16),
        num_epochs=asked["num_epochs"],
        params=model.init(jax.random.key(seed)),
        key=jax.random.key(1),
        evaluate=evaluate,
        checkpoint=checkpoint,
        mesh=descent.mesh(
            asked["devices"], shard_params=asked["shard"], exact=asked["exact"]
        ),
    )
    leaves = jax.tree.leaves((trained.params, trained.steps, trained.evaluations))
    return runs.hash_arrays(*leaves)[:16], evaluate.calls


def main():
    """Join the other processes, and train."""
    asked = DEFAULTS | json.loads(sys.argv[1])
    assert asked.keys() == DEFAULTS.keys()
    if str(asked["absent"]) == os.environ.get(cluster.PROCESS_ID):
        return
    place = cluster.join(seconds=asked["seconds"])
    each = asked["devices"] // place.num_processes
    backend.configure(devices=each, pool=asked["pool"])
    jax.config.update("jax_compilation_cache_dir", str(PROGRAMS))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    hashed, calls = fit(asked)
    # One write, so that the lines of several processes do not mix.
    sys.stdout.write(f"process {place.process_id}: {hashed}, {calls} calls\n")


if __name__ == "__main__":
    main()
