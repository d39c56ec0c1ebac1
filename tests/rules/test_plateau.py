"""A scale that falls on a plateau, against optax's; and noise in the gradient, from its
own draws.
"""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest
from optax.contrib import reduce_on_plateau as reduce_on_plateau_of_optax

from research.update_rules import (
    by_group,
    gradient_descent,
    noisy_sgd,
    reduce_on_plateau,
)
from research.update_rules._rule_info import rule_info
from research.verification import CARDS
from research.verification.formula import Function, mistaken
from research.verification.leaves import DIGITS, Leaves

COMPILE_QUICKLY = True  # tests/conftest.py


def scales(rule, values):
    """The scale of each step: the update of a gradient of 1."""
    rule = optax.with_extra_args_support(rule)

    def step(state, value):
        updates, state = rule.update(jnp.ones(()), state, value=value)
        return state, updates

    return np.asarray(jax.lax.scan(step, rule.init(jnp.ones(())), values)[1])


def values(seed):
    """Values that fall, and then stay, with noise."""
    random = np.random.default_rng(seed)
    return jnp.asarray(
        np.maximum(3.0 - 0.1 * np.arange(80), 1.0) + random.normal(size=80) / 9
    )


@pytest.mark.thorough(
    "the other arguments and seed", but=r"^0-.*(cooldown': 3|atol|min_scale)"
)
@pytest.mark.on_ci("the other arguments", but="cooldown")
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"factor": 0.5, "patience": 3},
        {"patience": 2, "cooldown": 4},
        {"patience": 1, "min_scale": 0.01},
        {"patience": 3, "accumulation_size": 4},
        {"patience": 2, "rtol": 0.0, "atol": 0.2},
        {"patience": 2, "cooldown": 3, "accumulation_size": 2, "factor": 0.9},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_scale_is_that_of_optax(given, seed):
    ours = scales(reduce_on_plateau(**given), values(seed))
    theirs = scales(optax.contrib.reduce_on_plateau(**given), values(seed))
    np.testing.assert_allclose(ours, theirs, rtol=1e-14)
    assert ours[-1] < 1.0 or given == {}


def test_the_scale_falls_after_as_many_bad_values_as_patience_says():
    found = scales(reduce_on_plateau(0.5, patience=3), jnp.full(8, 2.0))
    np.testing.assert_array_equal(found, [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25])
    found = scales(reduce_on_plateau(0.5, patience=3), 2.0 - 0.1 * jnp.arange(8))
    np.testing.assert_array_equal(found, 1.0)


@pytest.mark.parametrize("plateau", [reduce_on_plateau, reduce_on_plateau_of_optax])
def test_the_rate_of_a_step_is_the_length_of_its_update(plateau):
    rule = optax.chain(gradient_descent(0.5), plateau(0.1, patience=1))
    state = rule.init(jnp.ones(()))
    for _ in range(4):
        updates, state = rule.update(jnp.ones(()), state, value=1.0)
        np.testing.assert_allclose(rule_info(state).learning_rate, -updates, rtol=1e-6)
    assert -updates < 0.01


def test_the_plateau_of_another_group_does_not_change_the_rate():
    rules = {
        "own": gradient_descent(lambda step: 0.5),
        "other": optax.chain(optax.scale(-1.0), reduce_on_plateau(0.5, patience=1)),
    }
    rule = by_group(rules, {"a": "own", "b": "other"})
    params = {"a": jnp.ones(()), "b": jnp.ones(())}
    state = rule.init(params)
    for _ in range(4):
        updates, state = rule.update(params, state, params, value=1.0)
        assert rule_info(state).learning_rate == -updates["a"] == 0.5


def test_hyperparameters_may_be_traced():
    def last(factor, patience):
        rule = reduce_on_plateau(factor, patience, cooldown=patience)
        return scales_of(rule)

    def scales_of(rule):
        def step(state, value):
            updates, state = rule.update(jnp.ones(()), state, value=value)
            return state, updates

        return jax.lax.scan(step, rule.init(jnp.ones(())), values(0))[1]

    traced = jax.jit(last)(0.5, 3)
    np.testing.assert_allclose(traced, scales_of(reduce_on_plateau(0.5, 3, cooldown=3)))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"factor": 1.0}, "factor must be"),
        ({"patience": 0}, "patience must be"),
        ({"rtol": 1.5}, "rtol must be at most 1"),
    ],
)
def test_bad_arguments_raise(given, said):
    with pytest.raises(ValueError, match=said):
        reduce_on_plateau(**given)


def test_a_step_without_value_raises():
    rule = reduce_on_plateau()
    with pytest.raises(
        ValueError, match="reduce_on_plateau needs the objective's value"
    ):
        rule.update(jnp.ones(1), rule.init(jnp.ones(1)))


# Noise

SHAPES = {"b": (3,), "w": (2, 2)}
KEY = jax.random.key(5)


def draws(num_steps):
    """The numbers of each step and leaf, by the convention of the docstring."""
    of_leaf = lambda t, k, shape: jax.random.normal(
        jax.random.fold_in(jax.random.fold_in(KEY, t), k), shape, float
    )
    return [
        [of_leaf(t, k, shape) for k, shape in enumerate(SHAPES.values())]
        for t in range(num_steps)
    ]


def exact(iterates, num_steps=6):
    with mpmath.workdps(DIGITS):
        x = Leaves([np.ones(shape) for shape in SHAPES.values()])
        noise = [
            Leaves([np.asarray(a, np.float64) for a in row]) for row in draws(num_steps)
        ]
        path = iterates(
            x,
            Function(lambda x: x),
            mpmath.mpf(0.1),
            noise,
            mpmath.mpf(0.5),
            mpmath.mpf(0.75),
        )
        return [
            np.concatenate([np.ravel(a) for a in x.arrays]).astype(float) for x in path
        ]


def test_noisy_descent_is_its_formula_with_its_draws():
    rule = noisy_sgd(0.1, KEY, eta=0.5, gamma=0.75)
    x = {name: jnp.ones(shape) for name, shape in SHAPES.items()}
    state, formula = rule.init(x), CARDS["noisy_sgd"].formula
    right = exact(formula.iterates)
    for row in right:
        updates, state = rule.update(x, state, x)
        x = optax.apply_updates(x, updates)
        found = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(x)])
        np.testing.assert_allclose(found, row, rtol=1e-14)
    for mistake in formula.mistakes:
        assert (
            np.max(np.abs(np.array(exact(mistaken(formula, mistake))) - right)) > 1e-3
        )


@pytest.mark.on_ci(
    "a million draws; test_noisy_descent_is_its_formula_with_its_draws has the "
    "draws of a few params, in float64"
)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_the_noise_has_the_variance_that_falls(dtype):
    rule, x = noisy_sgd(1.0, KEY, eta=4.0, gamma=0.5), jnp.zeros(1_000_000, dtype)
    state = rule.init(x)
    for t in (1, 2, 3):
        updates, state = rule.update(x, state, x)
        updates = updates.astype(float)
        # The variance of a sample variance of n normal numbers is 2 σ^4 / n.
        assert abs(jnp.var(updates) / (4.0 / t**0.5) - 1) < 5 * (2 / 1_000_000) ** 0.5
        assert abs(jnp.mean(updates)) < 5 * (4.0 / 1_000_000) ** 0.5


def test_without_noise_it_is_gradient_descent():
    x, (ours, theirs) = (
        jnp.array([1.0, 2.0]),
        (noisy_sgd(0.1, KEY, 0.0), gradient_descent(0.1)),
    )
    found, wanted = (rule.update(x, rule.init(x), x)[0] for rule in (ours, theirs))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.on_ci("a random draw under vmap; nothing shorter shows this")
def test_keys_under_vmap_are_separate_noises():
    run = lambda key: (rule := noisy_sgd(1.0, key)).update(
        jnp.ones(3), rule.init(jnp.ones(3))
    )[0]
    found = jax.vmap(run)(jax.random.split(KEY, 2))
    assert (found[0] != found[1]).all()
    with pytest.raises(TypeError, match="key must be a key"):
        noisy_sgd(0.1, 3)


def test_noisy_descent_takes_arguments_that_nobody_knows():
    rule, x = noisy_sgd(0.1, KEY), {name: jnp.ones(s) for name, s in SHAPES.items()}
    more = {"value": 1.0, "grad": x, "value_fn": None, "indices": None}
    step = lambda x: rule.update(x, rule.init(x), x, **more, nobody_knows=1)
    jax.eval_shape(step, x)


def test_rtol_one_counts_a_first_mean_as_better():
    rule, x = reduce_on_plateau(0.5, patience=2, rtol=1.0), jnp.ones(1)
    state, scales = rule.init(x), []
    for _ in range(3):
        updates, state = rule.update(jnp.ones(1), state, x, value=3.0)
        scales.append(float(updates[0]))
    assert scales == [1.0, 1.0, 0.5]
