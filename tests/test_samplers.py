"""Laws of samplers: what an epoch holds, and that its draws are uniform and never
shared.
"""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from research import samplers
from research.types import Batch

COMPILE_QUICKLY = CHILDREN_COMPILE_QUICKLY = True  # tests/conftest.py

TOP = Path(__file__).parent.parent


def epochs(sampler, count, seed=0):
    root = jax.random.key(seed)
    indices = lambda epoch: sampler.indices(jax.random.fold_in(root, epoch))
    return np.array(jax.jit(jax.vmap(indices))(jnp.arange(count)))


@pytest.mark.thorough("the other sizes", but="3")
@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_without_replacement_each_example_comes_at_most_once_an_epoch(batch_size):
    drawn = epochs(samplers.minibatch(10, batch_size), 20).reshape(20, -1)
    assert drawn.shape[1] == 10 - 10 % batch_size
    for epoch in drawn:
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(10))


def test_without_replacement_the_left_out_examples_differ_between_epochs():
    drawn = epochs(samplers.minibatch(10, 4), 30).reshape(30, -1)
    left_out = {frozenset(range(10)) - frozenset(epoch.tolist()) for epoch in drawn}
    assert len(left_out) > 10


@pytest.mark.thorough(
    "without replacement; test_every_order_is_equally_likely has that", but="True"
)
@pytest.mark.parametrize("replacement", [True, False])
def test_every_example_is_equally_likely_at_every_place(replacement):
    drawn = epochs(samplers.minibatch(6, 2, replacement=replacement), 3000)
    for place in drawn.reshape(3000, -1).T:
        # Chi-squared of 5 degrees of freedom; one of six places below 1e-5 would come
        # once in 17,000 runs.
        assert stats.chisquare(np.bincount(place, minlength=6)).pvalue > 1e-5


def test_with_replacement_draws_within_an_epoch_are_independent():
    drawn = epochs(samplers.minibatch(5, 1, replacement=True), 4000)[:, :2, 0]
    table = np.zeros((5, 5))
    np.add.at(table, (drawn[:, 0], drawn[:, 1]), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-5
    assert np.trace(table) > 0  # The same example twice in an epoch does happen.


def test_full_batch_gathers_nothing():
    sampler = samplers.full_batch(7)
    assert (
        sampler.num_batches,
        sampler.batch_size,
        sampler.indices(jax.random.key(0)),
    ) == (1, 7, None)


@pytest.mark.on_ci(
    "two samplers without jit; "
    "test_epochs_have_distinct_orders_and_the_same_key_the_same_order has the "
    "stochastic one"
)
def test_stochastic_is_a_minibatch_of_one():
    key = jax.random.key(3)
    ours, theirs = samplers.stochastic(9), samplers.minibatch(9, 1)
    np.testing.assert_array_equal(
        ours.indices(key), theirs.indices(jax.random.clone(key))
    )


def test_epochs_have_distinct_orders_and_the_same_key_the_same_order():
    drawn = epochs(samplers.stochastic(8), 50).reshape(50, -1)
    assert len({tuple(epoch) for epoch in drawn}) == 50
    np.testing.assert_array_equal(
        drawn, epochs(samplers.stochastic(8), 50).reshape(50, -1)
    )


def test_every_order_is_equally_likely():
    drawn = epochs(samplers.stochastic(4), 24_000).reshape(-1, 4)
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-5


@pytest.mark.on_ci("a process of its own; nothing shorter has 32 bits")
def test_order_is_the_same_without_float64():
    program = (
        "import jax, numpy; from research import backend, samplers; "
        "backend.configure(x64=False); "
        "print(*numpy.ravel(samplers.stochastic(398).indices(jax.random.key(5))))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=TOP,
    ).stdout
    np.testing.assert_array_equal(
        np.array(printed.split(), int),
        np.ravel(samplers.stochastic(398).indices(jax.random.key(5))),
    )


@pytest.mark.parametrize("batch_size", [0, -1, 11, 2.0, True, "4"])
def test_bad_batch_size_is_named(batch_size):
    with pytest.raises(ValueError, match=f"batch_size.*{batch_size}"):
        samplers.minibatch(10, batch_size)


def test_keys_are_no_examples():
    keys = jax.random.split(jax.random.key(0), 3)
    with pytest.raises(TypeError, match=r"must hold numbers; its x has dtype key<fry>"):
        samplers.num_examples(Batch(keys, np.zeros(3)))


@pytest.mark.parametrize("n", [0, -3, 1.5])
def test_bad_number_of_examples_is_named(n):
    with pytest.raises(ValueError, match=f"n must be a positive integer; got n={n}"):
        samplers.full_batch(n)


@pytest.mark.on_ci("integers of NumPy; nothing shorter has them")
def test_index_outside_names_a_bad_number_of_examples():
    with pytest.raises(ValueError, match="n must be an integer of at least 0; got n="):
        samplers.index_outside([0, 1], {"a"})


def test_sizes_may_be_integers_of_numpy():
    found = samplers.minibatch(np.int64(10), np.int16(3)).indices(jax.random.key(0))
    expected = samplers.minibatch(10, 3).indices(jax.random.key(0))
    np.testing.assert_array_equal(found, expected)
    assert samplers.minibatch(np.int64(60_000), np.int16(32)).num_batches == 1875
