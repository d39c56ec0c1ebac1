"""The bit contract of networks: a process, a look, a kill and company in a block of
lanes leave every bit alone.

python tests/bits/test_network_bits.py

It prints {network: SHA-256 of all that its training leaves}.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import (
    backend,
    descent,
    losses,
    models,
    objectives,
    runs,
    samplers,
    update_rules,
)
from research.descent import _train as loop
from research.descent._train_loop import compile_training
from research.runs import checkpoints
from research.types import Batch, Model, Sequences, Workload

TOP = Path(__file__).parents[2]
NUM_EXAMPLES, NUM_EPOCHS, NUM_CELLS, WIDTH = (
    12,
    2,
    5,
    2,
)  # Three blocks, the last one short: there is padding.
SAMPLER = samplers.minibatch(NUM_EXAMPLES, 4)


class Network(NamedTuple):
    """A tiny network, its loss of one example, and what it is trained on."""

    model: Model
    loss: Callable
    dataset: Batch

    @property
    def objective(self):
        return objectives.empirical_risk(self.model, self.loss)


def floats(*shape):
    return jnp.array(
        np.random.default_rng(0).normal(size=(NUM_EXAMPLES, *shape)), jnp.float32
    )


def classes(*shape, num=3):
    return jnp.array(
        np.random.default_rng(1).integers(0, num, (NUM_EXAMPLES, *shape)), jnp.int32
    )


def mlp():
    model = models.mlp((4, 5, 3), activation="tanh", dtype=jnp.float32)
    return Network(model, losses.softmax_cross_entropy, Batch(floats(4), classes()))


def cnn():
    model = models.cnn(
        (5, 5, 1), 3, channels=(2,), hidden=(), dropout=0.2, dtype=jnp.float32
    )
    return Network(
        model, losses.softmax_cross_entropy, Batch(floats(5, 5, 1), classes())
    )


def rnn():
    model = models.recurrent(2, 3, 3, cell="gru", dtype=jnp.float32)
    length = 1 + classes(num=4)
    return Network(
        model,
        losses.softmax_cross_entropy,
        Batch(Sequences(floats(4, 2), length), classes()),
    )


def transformer():
    options = {
        "width": 4,
        "num_layers": 1,
        "num_heads": 2,
        "hidden": 4,
        "tied": True,
        "positions": "sinusoidal",
    }
    model = models.transformer_decoder(5, 4, **options, dtype=jnp.float32)
    tokens = classes(5, num=5)
    return Network(
        model, losses.sequence_cross_entropy, Batch(tokens[:, :-1], tokens[:, 1:])
    )


NETWORKS = {"MLP": mlp, "CNN": cnn, "RNN": rnn, "Transformer": transformer}


def start(model):
    """Params of the model's shapes, without the model's draw, which costs as much to
    compile as its training.
    """
    generator = np.random.default_rng(2)
    draw = lambda leaf: jnp.array(0.5 * generator.normal(size=leaf.shape), leaf.dtype)
    return jax.tree.map(draw, jax.eval_shape(model.init, jax.random.key(0)))


def fit(name, **options):
    """The training of that network; the CNN has dropout."""
    network = NETWORKS[name]()
    options |= {
        "num_epochs": NUM_EPOCHS,
        "params": start(network.model),
        "key": jax.random.key(1),
    }
    options |= {"noisy": name == "CNN"}
    return descent.train(
        network.objective,
        update_rules.heavy_ball(0.01),
        network.dataset,
        SAMPLER,
        **options,
    )


def hashed(trained):
    return runs.hash_arrays(
        *jax.tree.leaves((trained.params, trained.steps, trained.first_bad_step))
    )


@pytest.fixture(scope="module")
def elsewhere(request):
    """name -> the hash of its training in a process of its own, which runs beside what
    follows.
    """
    asked = [item.name for item in request.session.items]
    if not any(name.startswith("test_another_process") for name in asked):
        yield None
        return
    path = os.pathsep.join([str(TOP), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, __file__]
    environment = os.environ | {"PYTHONPATH": path}
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        yield functools.cache(lambda: json.loads(process.communicate()[0]))
        process.kill()


@pytest.fixture(scope="module")
def programs():
    """name -> the compiled loop of its training."""
    return {}


@pytest.fixture
def fit_once_compiled(programs, monkeypatch):
    """`fit`, whose program is compiled once a network."""

    def fit_by_program(name, **options):
        def once(*words, **keywords):
            if name not in programs:
                programs[name] = compile_training(*words, **keywords)
            return programs[name]

        monkeypatch.setattr(loop, "compile_training", once)
        return fit(name, **options)

    return fit_by_program


@pytest.mark.thorough(
    "four networks; test_training.py has the laws of looks, kills and resumptions on "
    "a small MLP"
)
@pytest.mark.parametrize("name", NETWORKS)
def test_looks_and_a_kill_leave_the_bits_alone(
    name, elsewhere, fit_once_compiled, monkeypatch, tmp_path
):
    whole = hashed(fit_once_compiled(name))
    monkeypatch.setattr(checkpoints, "LARGEST_SHARE", float("inf"))
    monkeypatch.setattr(loop, "FIRST_LOOK", 1)
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_LOOKS", 0.0)
    kept, looks = runs.checkpoints_in(tmp_path, 0.0)(name), []

    def kill(share, words):
        looks.append(share)
        if len(looks) == 5:  # In the second epoch.
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fit_once_compiled(name, checkpoint=kept, on_progress=kill)
    resumed = fit_once_compiled(
        name, checkpoint=kept, on_progress=lambda share, words: looks.append(share)
    )
    assert hashed(resumed) == whole
    assert len(looks) == 5 + 1  # The step of the look that killed it was saved.


@pytest.mark.thorough(
    "a process that trains every network; .ci/run has one with two devices "
    "(test_bit_contract.py)"
)
@pytest.mark.parametrize("name", NETWORKS)
def test_another_process_leaves_the_bits_alone(name, elsewhere, fit_once_compiled):
    assert elsewhere()[name] == hashed(fit_once_compiled(name))


# Rows of the sweep that are trained together, in blocks of two.
COMPANIES = {
    "permuted": [3, 0, 4, 2, 1],
    "alone, with a copy": [2],
    "others, and twice": [4, 1, 4],
}


@pytest.mark.thorough(
    "networks; test_bit_contract.py and test_sweep.py have the law of company on "
    "convex models"
)
@pytest.mark.parametrize("name", NETWORKS)
def test_company_leaves_the_bits_alone(name):
    model, _, dataset = network = NETWORKS[name]()
    params = start(model)

    def init(key):
        scale = 1 + jax.random.uniform(key, (), jnp.float32)
        return jax.tree.map(lambda leaf: scale * leaf, params)

    workload = Workload(
        name, dataset, None, None, init, network.objective, None, "", model, None
    )
    sampler = samplers.full_batch(NUM_EXAMPLES)
    program = descent.compile_sweep(
        workload, update_rules.heavy_ball, sampler, NUM_EPOCHS, width=WIDTH
    )
    cells = {
        "seed": np.arange(NUM_CELLS),
        "learning_rate": np.geomspace(0.005, 0.02, NUM_CELLS),
    }
    sweep = cell_hashes(descent.sweep(program, cells))
    assert len(set(sweep)) == NUM_CELLS
    for rows in COMPANIES.values():
        trained = descent.sweep(
            program, {key: values[rows] for key, values in cells.items()}
        )
        assert cell_hashes(trained) == [sweep[row] for row in rows]
    assert {leaf.dtype for leaf in jax.tree.leaves(trained.params)} == {
        np.dtype("float32")
    }


def cell_hashes(trained):
    leaves = jax.tree.leaves((trained.params, trained.values, trained.info))
    return [
        runs.hash_arrays(*(leaf[i] for leaf in leaves))
        for i in range(len(trained.values))
    ]


if __name__ == "__main__":
    backend.configure(devices=1, pool=2, x64=True)
    print(json.dumps({name: hashed(fit(name)) for name in NETWORKS}))
