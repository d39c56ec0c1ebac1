"""Laws of batches of runs saved between chunks: any state comes back exactly, and a
sweep goes on to its bits.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import descent, runs, samplers, update_rules, workloads
from research.descent._sweep_batch import RunBatch, from_saved, to_saved
from research.descent._sweep_program import padded
from research.runs import checkpoints

COMPILE_QUICKLY = True  # tests/conftest.py


def odd_rule(learning_rate):
    """Gradient descent that drags along a state of every kind: a key, bfloat16, flags,
    scalars, nothing, not a number.
    """

    def init(params):
        size = jax.tree.leaves(params)[0].size
        return {
            "key": jax.random.key(7),
            "typed": jax.random.key(7, impl="rbg"),
            "half": jnp.full((size, 2), 1.5, jnp.bfloat16),
            "eighth": jnp.full(3, 0.5, jnp.float8_e4m3fn),
            "count": jnp.zeros((), jnp.int32),
            "odd": jnp.array(True),
            "bad": jnp.array([jnp.nan, jnp.inf, -0.0]),
            "empty": jnp.zeros((0, 2)),
            "none": None,
            "small": jnp.zeros((), jnp.bfloat16),
        }

    def update(updates, state, params=None):
        leaves, structure = jax.tree.flatten(updates)
        key, *noise = jax.random.split(state["key"], 1 + len(leaves))
        state = {
            **state,
            "key": key,
            "half": (state["half"] * 1.01).astype(jnp.bfloat16),
            "count": state["count"] + 1,
            "odd": ~state["odd"],
            "small": state["small"] + jnp.asarray(0.1, jnp.bfloat16),
        }
        noisy = [
            g + 0.01 * jax.random.normal(k, g.shape, g.dtype)
            for g, k in zip(leaves, noise, strict=True)
        ]
        return jax.tree.unflatten(structure, [-learning_rate * g for g in noisy]), state

    return optax.GradientTransformation(init, update)


@functools.cache
def compiled(rule, epochs=8):
    workload = workloads.make_workload("breast_cancer_two_features")
    assert workload.train is not None
    sampler = samplers.minibatch(
        len(workload.train.y), 100
    )  # So that the number of the epoch matters.
    return descent.compile_sweep(workload, rule, sampler, epochs, chunk=2, width=2)


RUNS = {"seed": np.arange(3), "learning_rate": np.array([0.1, 0.2, 0.3])}


def leaf_bits(tree):
    """Of every leaf: its kind, and its bits."""
    plain = lambda leaf: (
        jax.random.key_data(leaf)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else leaf
    )
    return [
        (str(leaf.dtype), leaf.shape, np.asarray(plain(leaf)).tobytes())
        for leaf in jax.tree.leaves(tree)
    ]


@pytest.mark.on_ci("a state of every kind; nothing shorter shows this")
def test_batches_of_any_state_round_trip_exactly(tmp_path):
    made = runs.checkpoints_in(tmp_path)
    shared, states = compiled(odd_rule), []
    batches = [
        RunBatch({name: values[i : i + 2] for name, values in RUNS.items()})
        for i in (0, 2)
    ]
    two = padded(batches[0].runs, 2)
    state, initial = shared.begin[0](two, shared.data[0])
    epochs = jnp.arange(2, dtype=jnp.int32)
    orders = shared.orders[0](two, epochs)
    state, info = shared.advance[0](state, two, epochs, orders, shared.data[0])
    begun = [
        batches[0]._replace(state=state, initial=initial, info=(info,), done=1),
        batches[1],
    ]
    made("sweep").save(to_saved(begun))
    saved = made("sweep").load()
    assert saved is not None
    back = from_saved(shared, batches, saved)
    states = [jax.tree.leaves(b.state) for b in (begun[0], back[0])]
    assert leaf_bits(states[0]) == leaf_bits(states[1])
    assert len({dtype for dtype, *_ in leaf_bits(states[1])}) == 7
    assert jax.tree.structure(back[0].state) == jax.tree.structure(state)
    assert leaf_bits(back[0].initial) == leaf_bits(initial)
    assert leaf_bits(back[0].info[0]) == leaf_bits(info)
    assert (back[0].done, back[1]) == (1, batches[1])


class Stop(Exception):
    """Where a training is stopped."""


@pytest.mark.on_ci("test_training.py kills a training at each step")
@pytest.mark.thorough(
    "a state of every kind, which test_batches_of_any_state_round_trip_exactly has",
    but="adam",
)
@pytest.mark.parametrize("rule", [update_rules.adam, odd_rule], ids=["adam", "odd"])
def test_training_that_was_stopped_at_any_chunk_goes_on_to_the_same_bits(
    tmp_path, monkeypatch, rule
):
    monkeypatch.setattr(checkpoints, "LARGEST_SHARE", float("inf"))
    shared = compiled(rule)
    alone = descent.sweep(shared, RUNS)
    for chunk in range(1, 9):  # Two batches of four chunks.
        made, chunks = (
            runs.checkpoints_in(tmp_path / str(chunk), seconds_between=0.0),
            [],
        )

        def stop(progress, chunks=chunks, chunk=chunk):
            chunks.append(progress.share)
            if len(chunks) == chunk:
                raise Stop

        with pytest.raises(Stop):
            descent.sweep(shared, RUNS, stop, made)
        again = []
        trained = descent.sweep(shared, RUNS, again.append, made)
        assert len(again) == 8 - chunk
        assert leaf_bits(trained._replace(seconds=np.zeros(()))) == leaf_bits(
            alone._replace(seconds=np.zeros(()))
        )


@pytest.mark.on_ci("test_training.py refuses checkpoints of another program")
def test_other_runs_are_not_taken_for_these(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "LARGEST_SHARE", float("inf"))
    made, shared = (
        runs.checkpoints_in(tmp_path, seconds_between=0.0),
        compiled(update_rules.adam),
    )
    for other in (
        RUNS,
        dict(RUNS, seed=RUNS["seed"] + 1),
        dict(RUNS, learning_rate=RUNS["learning_rate"] * 2),
    ):
        alone, chunks = descent.sweep(shared, other), []
        kept = descent.sweep(shared, other, chunks.append, made)
        assert leaf_bits(alone._replace(seconds=np.zeros(()))) == leaf_bits(
            kept._replace(seconds=np.zeros(()))
        )
        assert len(chunks) == 8
    longer, chunks = compiled(update_rules.adam, 12), []
    descent.sweep(longer, RUNS, chunks.append, made)
    assert len(chunks) == 12


@pytest.mark.on_ci("two programs; nothing shorter shows this")
def test_a_checkpoint_of_another_rule_is_refused_and_says_what_to_do(tmp_path):
    """As one from before a rule kept its rate: a state of fewer leaves, or of more."""
    states = {"plain": optax.sgd, "ours": update_rules.heavy_ball}
    for wrote, reads in (("plain", "ours"), ("ours", "plain")):
        made = runs.checkpoints_in(tmp_path / wrote, seconds_between=0.0)
        descent.sweep(compiled(states[wrote]), RUNS, checkpoints=made)
        with pytest.raises(ValueError, match=r"Use --fresh to start"):
            descent.sweep(compiled(states[reads]), RUNS, checkpoints=made)
