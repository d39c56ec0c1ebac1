"""A sampler that was made for another dataset is refused wherever the two meet, with
both numbers.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import descent, losses, models, objectives, samplers, update_rules
from research.types import Batch, Sampler, Sequences, Workload

COMPILE_QUICKLY = True  # tests/conftest.py

N = 12
MODEL = models.linear(3)
OBJECTIVE = objectives.empirical_risk(MODEL, losses.squared_error)
DATA = Batch(
    jnp.asarray(np.random.default_rng(0).normal(size=(N, 3))), jnp.arange(float(N))
)
KEY = jax.random.key(1)
PARAMS = {"weights": jnp.zeros(3), "intercept": jnp.zeros(())}


def run(sampler, rule, data=DATA, objective=OBJECTIVE):
    init, step = descent.build(objective, rule, data)
    return descent.run(step, init(PARAMS), sampler, KEY, jnp.arange(2))[0].params


def train(sampler, rule, data=DATA, objective=OBJECTIVE):
    return descent.train(
        objective, rule, data, sampler, num_epochs=2, params=PARAMS, key=KEY
    ).params


def sweep(sampler, rule, data=DATA, objective=OBJECTIVE):
    workload = Workload(
        "w", data, None, None, lambda key: PARAMS, objective, None, "", None, None
    )
    program = descent.compile_sweep(
        workload, lambda learning_rate: rule, sampler, 2, width=2
    )
    return descent.sweep(program, {"seed": [0], "learning_rate": [0.1]}).params


WAYS = {"run": run, "train": train, "sweep": sweep}
SGD = optax.sgd(0.01)


def made_for(n):
    """Every kind of sampler for n examples."""
    return [
        samplers.full_batch(n),
        samplers.stochastic(n),
        samplers.minibatch(n, min(n, 5)),
        samplers.minibatch(n, min(n, 5), replacement=True),
        samplers.full_batch(n)._replace(num_batches=3, num_examples=None),
    ]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("n", [1, 5, 11, 13, 40])
def test_a_sampler_for_another_number_of_examples_is_refused_with_both_numbers(way, n):
    for sampler in made_for(n):
        with pytest.raises(
            ValueError,
            match=(
                rf"built for num_examples={n}, but the dataset has 12 examples\. Build "
                r"it with n=12"
            ),
        ):
            way(sampler, SGD)


@pytest.mark.on_ci("a run, which train calls", but="train")
@pytest.mark.thorough(
    "a sweep; "
    "test_an_index_that_leaves_the_dataset_in_a_later_epoch_turns_the_params_to_nan "
    "has one",
    but="run|train",
)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_sampler_of_ones_own_that_leaves_the_dataset_is_refused(way):
    inside = Sampler(2, 3, lambda key: jax.random.randint(key, (2, 3), 0, N))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(way(inside, SGD)))
    for indices, words in (
        (
            lambda key: jnp.full((2, 3), N),
            "draws index 12, which is outside the dataset of 12 examples",
        ),
        (
            lambda key: jnp.full((2, 3), -1),
            "draws index -1, which is outside the dataset of 12 examples",
        ),
        (
            lambda key: jnp.zeros((2, 4), int),
            r"must have the shape \(num_batches, batch_size\) = \(2, 3\); got \(2, 4\)",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            way(Sampler(2, 3, indices), SGD)
    with pytest.raises(TypeError, match="indices must be integers; got dtype bool"):
        way(Sampler(2, 3, lambda key: jnp.ones((2, 3), bool)), SGD)
    with pytest.raises(TypeError, match="sampler must be a Sampler; got"):
        way((2, 3, inside.indices), SGD)


@pytest.mark.on_ci(
    "a whole sweep; test_a_sampler_of_ones_own_that_leaves_the_dataset_is_refused "
    "has the first epoch, and nothing shorter a later one"
)
@pytest.mark.thorough("a run alone", but="sweep")
@pytest.mark.parametrize("way", [run, sweep])
def test_an_index_that_leaves_the_dataset_in_a_later_epoch_turns_the_params_to_nan(way):
    """Nothing can be raised in the middle of a program; a finite number would be a
    wrong one.
    """
    first = jax.random.fold_in(
        KEY if way is run else jax.random.fold_in(jax.random.key(0), descent.EPOCHS), 0
    )
    of = lambda key: jax.random.key_data(key).sum().astype(jnp.int64)
    late = lambda key: (
        jnp.where((of(key) == of(first)) | (of(key) == of(jax.random.key(0))), 0, N)
        * jnp.ones((2, 3), int)
    )
    assert all(
        np.isnan(leaf).all() for leaf in jax.tree.leaves(way(Sampler(2, 3, late), SGD))
    )


def test_an_eager_step_refuses_indices_outside_of_the_dataset():
    init, step = descent.build(OBJECTIVE, SGD, DATA)
    state = init(PARAMS)
    assert np.isfinite(step(state, descent.BatchIndices(jnp.array([0, N - 1])))[1].loss)
    for wrong in (N, -1, 2**31 - 1):
        with pytest.raises(
            ValueError,
            match=(
                rf"batch_indices has the index {wrong}, which is outside the dataset "
                r"of 12 examples\. Use indices in 0\.\.11"
            ),
        ):
            step(state, descent.BatchIndices(jnp.array([0, wrong])))


def test_a_batch_is_gathered_from_arrays_of_equal_length():
    indices, x = np.array([2, 0]), np.array([1.0, 5.0, 3.0])
    gather = lambda data, at: descent.gather(data, descent.BatchIndices(at))
    with pytest.raises(ValueError, match=r"same number of examples.*y of shape \(2,\)"):
        gather(Batch(x, x[:2]), indices)
    with pytest.raises(TypeError, match=r"list of numbers\. Write jnp\.asarray"):
        gather(Batch(x.tolist(), x.tolist()), indices)
    # A traced index into an array of NumPy.
    traced = jax.jit(lambda at: gather(Batch(x, -x), at)[:2])(indices)
    np.testing.assert_array_equal(traced, [[3.0, 1.0], [-3.0, -1.0]])


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_leaves_of_different_length_are_refused(way):
    objective = lambda params, batch: jnp.sum(params["weights"]) * jnp.mean(batch.y)
    for data in (
        Batch(DATA.x, DATA.y[:-1]),
        Batch({"a": DATA.x, "b": DATA.x[:5]}, DATA.y),
        Batch(
            Sequences(DATA.x, jnp.array([2])), DATA.y
        ),  # One length would be broadcast over all sequences.
        Batch(DATA.x, jnp.array(1.0)),
    ):
        with pytest.raises(
            ValueError,
            match=r"all arrays of a dataset must have .*; got x.* of shape",
        ):
            way(samplers.full_batch(N), SGD, data, objective)
    with pytest.raises(ValueError, match="the dataset has no examples"):
        way(samplers.full_batch(1), SGD, Batch(DATA.x[:0], DATA.y[:0]), objective)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_lists_of_numbers_are_named(way):
    objective = lambda params, batch: jnp.sum(params["weights"]) * jnp.mean(batch.y)
    for name, data in (
        ("x", Batch(np.asarray(DATA.x).tolist(), DATA.y)),
        ("y", Batch(DATA.x, np.asarray(DATA.y).tolist())),
    ):
        with pytest.raises(
            TypeError,
            match=rf"dataset\.{name} must be .*; got a list .* jnp\.asarray\({name}\)",
        ):
            way(samplers.full_batch(N), SGD, data, objective)


def test_few_shapes_of_a_dataset_of_many_arrays_are_listed():
    data = Batch({str(i): jnp.zeros(i + 1) for i in range(30)}, jnp.zeros(30))
    with pytest.raises(ValueError, match=r"x\['0'\] of shape \(1,\), .* and 25 more\."):
        samplers.num_examples(data)


@pytest.mark.on_ci("two more places", but="in a group|in another dtype")
@pytest.mark.parametrize("wrap", ["alone", "in sam", "in a group", "in another dtype"])
def test_saga_refuses_a_table_of_another_length_wherever_it_stands(wrap):
    def make(n):
        saga = lambda rate: update_rules.saga(rate, n)
        if wrap == "in sam":
            return update_rules.sam(0.01, inner=saga)
        if wrap == "in a group":
            return update_rules.by_group(
                {"all": saga(0.01)},
                lambda params: jax.tree.map(lambda _: "all", params),
            )
        return (
            saga(0.01)
            if wrap == "alone"
            else update_rules.with_state_dtype(saga(0.01), "float32")
        )

    for n in (5, 20):
        words = (
            rf"saga\(num_examples={n}\) keeps {n} gradients, but the dataset has 12 "
            r"examples. Pass num_examples=12"
        )
        with pytest.raises(ValueError, match=words):
            run(samplers.minibatch(N, 4), make(n))


def test_saga_on_its_own_refuses_concrete_indices_outside_of_its_table():
    rule, x = update_rules.saga(0.1, 5), jnp.zeros(())
    value_fn = lambda x, indices=None: jnp.sum(x) ** 2
    for index in (5, 11, -1):
        with pytest.raises(ValueError, match=f"keeps no gradient of example {index}"):
            rule.update(
                x, rule.init(x), x, value_fn=value_fn, indices=jnp.array([0, index])
            )


@pytest.mark.parametrize("way", [run, train])
def test_mini_batches_of_no_data_are_refused(way):
    objective = lambda params, batch: jnp.sum(params["weights"] ** 2)
    way(samplers.full_batch(1), SGD, None, objective)
    with pytest.raises(
        ValueError, match="draws batches of 4 examples, but dataset is None"
    ):
        way(samplers.minibatch(N, 4), SGD, None, objective)


def test_passes_of_an_objective_without_data_are_steps():
    """A full batch of 12 where there are none would count each step as twelve
    passes.
    """
    objective = lambda params, batch: jnp.sum(params["weights"] ** 2)
    sweep(samplers.full_batch(1), SGD, None, objective)
    with pytest.raises(
        ValueError, match=r"made for 12 examples, but workload\.train is None\. Use"
    ):
        sweep(samplers.full_batch(N), SGD, None, objective)
    with pytest.raises(ValueError, match=r"made for 12 .* samplers\.full_batch\(1\)"):
        sweep(samplers.minibatch(N, 4), SGD, None, objective)
