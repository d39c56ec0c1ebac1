"""One training, for the tests of processes: as many devices as asked, in one process or
in many.

python tests/processes/training.py '{"model": "mlp", "rule": "adam", "devices": 4}'
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from research import backend, cluster

asked = {
    "devices": 4,
    "model": "mlp",
    "rule": "adam",
    "shard": False,
    "exact": True,
    "epochs": 3,
    "folder": None,
    "kill": None,
    "slow": 0.0,
    "seconds": 60,
    "rate": 0.01,
} | json.loads(sys.argv[1])
place = cluster.join(seconds=asked["seconds"])
backend.configure(devices=asked["devices"] // place.num_processes, pool=4)
import jax
import jax.numpy as jnp

from research import (
    descent,
    losses,
    models,
    objectives,
    runs,
    samplers,
    update_rules,
)
from research.types import Batch

jax.config.update(
    "jax_compilation_cache_dir",
    str(Path(__file__).parents[2] / ".pytest_cache" / "programs"),
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def mlp():
    generator = np.random.default_rng(0)
    model = models.mlp((6, 8, 3), dtype=jnp.float32)
    x = generator.normal(size=(64, 6)).astype(np.float32)
    y = generator.integers(0, 3, 64).astype(np.int32)
    return model, losses.softmax_cross_entropy, Batch(x, y)


def gpt():
    tokens = np.random.default_rng(0).integers(0, 16, (64, 9)).astype(np.int32)
    model = models.transformer_decoder(
        16,
        8,
        width=16,
        num_layers=1,
        num_heads=2,
        hidden=32,
        tied=True,
        positions="sinusoidal",
        dtype=jnp.float32,
    )
    return model, losses.sequence_cross_entropy, Batch(tokens[:, :-1], tokens[:, 1:])


model, loss, data = {"mlp": mlp, "gpt": gpt}[asked["model"]]()
objective = objectives.empirical_risk(model, loss)
rule = update_rules.UPDATE_RULES[asked["rule"]](asked["rate"])
kill = asked["kill"]  # {"process": 1, "after": share}


def look(share, words):
    time.sleep(asked["slow"])


def evaluate(params):
    value = float(objective(params, data))
    evaluate.calls += 1
    if kill and kill["process"] == place.process_id and evaluate.calls > kill["epoch"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"loss": value}


evaluate.calls = 0
checkpoint = None
if asked["folder"]:
    checkpoint = runs.checkpoints_in(asked["folder"], 0.0)("training")
trained = descent.train(
    objective,
    rule,
    data,
    samplers.minibatch(64, 16),
    num_epochs=asked["epochs"],
    params=model.init(jax.random.key(0)),
    key=jax.random.key(1),
    evaluate=evaluate,
    on_progress=look,
    checkpoint=checkpoint,
    mesh=descent.mesh(
        asked["devices"], shard_params=asked["shard"], exact=asked["exact"]
    ),
)
leaves = jax.tree.leaves((trained.params, trained.steps, trained.evaluations))
print(
    "hash",
    place.process_id,
    runs.hash_arrays(*leaves)[:16],
    trained.evaluations["loss"][-1],
    evaluate.calls,
    flush=True,
)
