"""Train by each rule on four devices, and compare with one device.

python tests/processes/every_rule.py            # every rule
python tests/processes/every_rule.py adam muon  # these

It prints {rule: {mode: largest difference from one device}}.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from research import backend, descent, samplers, update_rules
from research.types import Batch

NUM_EXAMPLES, NUM_EPOCHS = 16, 2
generator = np.random.default_rng(0)
DATA = Batch(
    generator.normal(size=(NUM_EXAMPLES, 8)), generator.normal(size=NUM_EXAMPLES)
)
# Leaves that four devices divide along the first axis, along the second and along none.
START = {
    "first": generator.normal(size=(8, 3)),
    "second": generator.normal(size=(3, 4)),
    "odd": generator.normal(size=(3,)),
    "scalar": np.array(0.5),
    "small": generator.normal(size=(1, 2)),
}
MODES = {
    "data parallel": {"shard_params": False},
    "fully sharded": {"shard_params": True},
    "fully sharded, fast": {"shard_params": True, "exact": False},
}


def objective(params, batch):
    """The mean squared error of a small network, with a penalty."""
    hidden = jnp.tanh(batch.x @ params["first"] + params["odd"])
    found = jnp.tanh(hidden @ params["second"]).sum(1) * params["scalar"]
    penalty = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
    return jnp.mean((found - batch.y) ** 2) + 0.05 * penalty


def fisher(params, indices=None):
    """The curvature of the penalty, for a rule that asks for a matrix."""
    del indices
    return jnp.eye(sum(leaf.size for leaf in jax.tree.leaves(params)))


def rules():
    """Every rule of the table, and those that need more than a learning rate."""
    rates = {"natural_gradient": 0.1}
    found = {}
    for name, make in update_rules.UPDATE_RULES.items():
        rate = rates.get(name, 0.01)
        found[name] = lambda make=make, rate=rate: make(rate)
    key = jax.random.key(3)
    return found | {
        "natural_gradient": lambda: update_rules.natural_gradient(
            0.1, fisher_fn=fisher
        ),
        "psgd_kron": lambda: update_rules.psgd_kron(0.01, key),
        "adahessian": lambda: update_rules.adahessian(0.01, key),
        "saga": lambda: update_rules.saga(0.01, NUM_EXAMPLES),
        "svrg": lambda: update_rules.svrg(0.01, 2),
    }


def trained(rule, batch_size=8, **options):
    """The params and the losses after the training."""
    found = descent.train(
        objective,
        rule,
        DATA,
        samplers.minibatch(NUM_EXAMPLES, batch_size),
        num_epochs=NUM_EPOCHS,
        params=jax.tree.map(jnp.asarray, START),
        key=jax.random.key(1),
        **options,
    )
    return [*jax.tree.leaves(found.params), found.steps.loss, found.steps.update_norm]


def differences(name):
    """The largest difference from one device, in each mode."""
    make = rules()[name]
    one = trained(make())
    start = max(
        float(np.abs(a - b).max())
        for a, b in zip(one, jax.tree.leaves(START), strict=False)
    )
    found = {"moved": start}
    for mode, options in MODES.items():
        several = trained(make(), mesh=descent.mesh(4, **options))
        found[mode] = max(
            float(np.abs(a - b).max()) for a, b in zip(one, several, strict=True)
        )
    return found


if __name__ == "__main__":
    backend.configure(devices=4, pool=4)
    asked = sys.argv[1:] or [*rules()]
    for name in asked:
        try:
            print(json.dumps({name: differences(name)}), flush=True)
        except Exception as error:
            print(
                json.dumps({name: f"{type(error).__name__}: {error}"[:600]}), flush=True
            )
