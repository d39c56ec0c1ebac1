"""Adafactor and SM3: what they keep of a matrix, and what that bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.update_rules import adafactor, adagrad, sm3
from research.update_rules._factored import _two_longest
from research.verification import FORMULAS, walk, walk_exactly
from research.verification.problems import NUM_STEPS, Problem
from research.verification.walks import distance

COMPILE_QUICKLY = True  # tests/conftest.py


def of_shape(*shape):
    """A problem of random gradients for one leaf."""
    random = np.random.default_rng(7)
    draw = lambda *s: random.standard_normal(s).astype("float32").astype("float64")
    return Problem(f"leaf {shape}", draw(*shape), gradients=draw(NUM_STEPS, *shape))


def updates_of(rule, gradients, params):
    def step(state, g):
        updates, state = rule.update(g, state, params)
        return state, updates

    return jax.lax.scan(step, rule.init(params), gradients)


@pytest.mark.parametrize(
    ("shape", "row", "column"),
    [((3, 4), (3,), (4,)), ((4, 3), (3,), (4,)), ((2, 5, 3), (2, 3), (2, 5)),
     ((5, 2, 3), (2, 3), (5, 2)), ((3, 3), (3,), (3,))],
)  # fmt: skip
def test_adafactor_keeps_the_means_over_the_two_longest_axes(shape, row, column):
    state = adafactor(0.1, min_dim_size_to_factor=2).init(jnp.zeros(shape))[0]
    assert state.nu.row.shape == row
    assert state.nu.column.shape == column


def test_adafactor_factors_no_leaf_with_a_short_second_axis():
    assert _two_longest((128, 128), 128) == (0, 1)
    assert _two_longest((127, 500), 128) is None
    assert _two_longest((500,), 1) is None
    assert adafactor(0.1).init(jnp.zeros((200, 3)))[0].nu.shape == (200, 3)


@pytest.mark.on_ci("the other shapes", but="2, 5|1, 4")
@pytest.mark.parametrize("shape", [(2, 5, 3), (5, 2, 3), (3, 3), (1, 4)], ids=str)
def test_adafactor_is_its_formula_for_leaves_of_any_shape(shape):
    problem, given = of_shape(*shape), {"min_dim_size_to_factor": 1}
    found = walk(adafactor(0.05, **given), problem, num_steps=20)
    exact = walk_exactly(
        FORMULAS["adafactor"].iterates, problem, 20, learning_rate=0.05, **given
    )
    assert distance(found, exact, problem).largest <= 64 * np.finfo("float64").eps


@pytest.mark.on_ci(
    "adafactor without factors; "
    "test_adafactor_is_its_formula_for_leaves_of_any_shape has the factors"
)
def test_adafactor_on_squares_of_rank_one_is_adafactor_without_factors():
    g = jnp.outer(jnp.array([1.0, -3.0]), jnp.array([2.0, 0.5, -1.0]))
    x = jnp.ones((2, 3))
    one, whole = (
        updates_of(adafactor(0.1, min_dim_size_to_factor=n), jnp.stack([g, 2 * g]), x)[
            1
        ]
        for n in (1, 9)
    )
    np.testing.assert_allclose(one, whole, rtol=1e-13)


def test_optax_adafactor_computes_its_decay_in_float32():
    g = jnp.asarray(np.random.default_rng(0).standard_normal((9, 5)))
    x = jnp.ones(5)
    ours, theirs = (
        updates_of(rule, g, x)[1] for rule in (adafactor(0.1), optax.adafactor(0.1))
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert np.max(np.abs(ours / theirs - 1)) > 1e-9


def test_adafactor_says_that_a_shape_cannot_be_traced():
    given = optax.inject_hyperparams(adafactor)(0.1, min_dim_size_to_factor=3)
    with pytest.raises(TypeError, match=r"decides the shapes .* static_args"):
        jax.eval_shape(given.init, jnp.zeros(2))


def test_rules_that_scale_by_params_need_them():
    rule = adafactor(0.1)
    with pytest.raises(ValueError, match="adafactor needs the params"):
        rule.update(jnp.ones(2), rule.init(jnp.ones(2)))


def test_sm3_bounds_the_sum_of_squares_of_every_entry():
    g = jnp.asarray(np.random.default_rng(1).standard_normal((20, 3, 4, 2)))
    state, _ = updates_of(sm3(0.1), g, jnp.zeros((3, 4, 2)))
    largest = state[0].largest
    assert [a.shape for a in largest] == [(3,), (4,), (2,)]
    bound = np.minimum.reduce(
        np.broadcast_arrays(
            largest[0][:, None, None], largest[1][None, :, None], largest[2][None, None]
        )
    )
    assert (bound >= np.sum(g**2, axis=0) * (1 - 1e-12)).all()


def test_sm3_on_vectors_without_momentum_is_adagrad():
    g = jnp.asarray(np.random.default_rng(2).standard_normal((20, 3)))
    ours, theirs = (
        updates_of(rule, g, jnp.zeros(3))[1]
        for rule in (
            sm3(0.1, momentum=0.0, eps=1e-7),
            adagrad(0.1, initial_accumulator_value=0.0, eps=1e-7),
        )
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)


def test_optax_sm3_hides_a_nan_from_the_other_entries_of_its_row():
    g = jnp.array([[jnp.nan, 1.0], [1.0, 1.0]])
    rules = (sm3(0.1), optax.sm3(0.1))
    second = [
        updates_of(rule, jnp.stack([g, jnp.ones((2, 2))]), g)[1][1] for rule in rules
    ]
    assert np.isnan(second[0][0, 1])
    assert second[1][0, 1] != 0
    assert np.isfinite(second[1][0, 1])
