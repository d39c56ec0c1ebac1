"""Lookahead and averages of iterates: plain loops in numpy say what they are, and
descent evaluates where they say.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import descent, samplers
from research.update_rules import (
    adam,
    evaluation_params,
    exponential_averaging,
    gradient_descent,
    heavy_ball,
    lookahead,
    polyak_averaging,
    polyak_step,
)
from research.verification.averaging import optax_lookahead

COMPILE_QUICKLY = True  # tests/conftest.py

START = {"w": np.array([3.0, -2.0]), "b": np.array(1.0), "none": np.zeros((0, 2))}


def slope(x):
    return jax.tree.map(jnp.tanh, x)


def walk(rule, num_steps, start=None):
    """Iterates x_1, ..., x_T, and where the rule wants to be evaluated after each."""
    start = jax.tree.map(jnp.asarray, START if start is None else start)
    rule = optax.with_extra_args_support(rule)

    def step(carry, _):
        x, state = carry
        updates, state = rule.update(slope(x), state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), (x, evaluation_params(state, x))

    return jax.jit(
        lambda x: jax.lax.scan(step, (x, rule.init(x)), length=num_steps)[1]
    )(start)


def assert_near(found, expected):
    chex.assert_trees_all_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("start", [0, 4])
def test_polyak_averaging_is_the_mean_of_the_iterates(start):
    path, means = walk(polyak_averaging(0.3, heavy_ball, start), 12)
    assert_near(path, walk(heavy_ball(0.3), 12)[0])
    expected = lambda x: np.array(
        [np.mean(x[min(start, t) : t + 1], axis=0) for t in range(12)]
    )
    assert_near(means, jax.tree.map(expected, jax.tree.map(np.asarray, path)))


@pytest.mark.thorough("the other decay rates", but=r"0\.75")
@pytest.mark.parametrize("decay", [0.0, 0.75, 0.999])
def test_exponential_averaging_is_the_weighted_mean(decay):
    path, means = walk(exponential_averaging(0.3, decay=decay), 12)
    weights = np.array(
        [[decay ** (t - k) if k <= t else 0.0 for k in range(12)] for t in range(12)]
    )
    normalised = weights / weights.sum(axis=1, keepdims=True)
    assert_near(means, jax.tree.map(lambda x: np.tensordot(normalised, x, 1), path))
    path, means = walk(exponential_averaging(0.3, decay=decay, debias=False), 12)
    powers = decay ** np.arange(1, 13)
    from_start = lambda x, x0: (
        np.tensordot((1 - decay) * weights, x, 1) + np.multiply.outer(powers, x0)
    )
    assert_near(means, jax.tree.map(from_start, path, START))


@pytest.mark.on_ci(
    "1,000 walks of 400 steps; test_descent_evaluates_at_the_average has the average "
    "of twelve steps without noise"
)
def test_averaging_loses_the_noise_that_a_constant_rate_keeps_up():
    # x_(t+1) = (1 - η λ) x_t + η e_t: the mean of T iterates has the variance of e over
    # λ² T, the last iterate η / λ (2 - η λ).
    def noisy(key):
        noise = jax.random.normal(key, (400,))
        rule = polyak_averaging(0.5)

        def step(carry, e):
            x, state = carry
            updates, state = rule.update(x + e, state, x)
            return (x + updates, state), None

        (x, state), _ = jax.lax.scan(
            step, (jnp.array(0.0), rule.init(jnp.array(0.0))), noise
        )
        return x, evaluation_params(state, x)

    last, mean = jax.jit(jax.vmap(noisy))(jax.random.split(jax.random.key(0), 1000))
    # A variance of 1000 draws is known to √(2 / 1000) = 4.5 %; four of these.
    assert np.var(last) == pytest.approx(0.5 / 1.5, rel=0.18)
    assert np.var(mean) == pytest.approx(1 / 400, rel=0.18)


@pytest.mark.thorough("the other periods", but="^5-")
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("period", "share"), [(1, 0.5), (5, 0.25), (3, 1.0)])
def test_lookahead_is_the_loop_of_its_paper(period, share, reset):
    x = slow = START["w"]
    m, path, slows = 0.0, [], []
    for t in range(1, 13):
        m = 0.9 * m + np.tanh(x)
        x = x - 0.3 * m
        if t % period == 0:
            x = slow = slow + share * (x - slow)
            m = 0.0 if reset else m
        path.append(x)
        slows.append(slow)
    rule = lookahead(0.3, sync_period=period, slow_step_size=share, reset_state=reset)
    assert_near(walk(rule, 12, START["w"]), (np.array(path), np.array(slows)))
    assert_near(
        walk(optax_lookahead(0.3, period, share, reset), 12, START["w"]),
        (np.array(path), np.array(slows)),
    )


def test_lookahead_that_goes_all_the_way_is_the_inner_rule():
    path, _ = walk(lookahead(0.3, adam, slow_step_size=1.0), 12)
    assert_near(path, walk(adam(0.3), 12)[0])


def test_lookahead_is_evaluated_at_its_params_to_the_bit_when_it_has_come_back():
    path, slow = walk(lookahead(0.3), 10)
    for t in (4, 9):
        jax.tree.map(
            lambda x, s, t=t: np.testing.assert_array_equal(x[t], s[t]), path, slow
        )
    assert np.all(path["w"][3] != slow["w"][3])


def test_evaluation_params_of_other_rules_are_the_params_themselves():
    x = {"evaluation_params": jnp.ones(2)}  # Even if a leaf has that name.
    for rule in (adam(0.1), optax.adam(0.1), optax.sgd(0.1, 0.9)):
        assert evaluation_params(rule.init(x), x) is x


def test_outer_averages_are_read_and_each_part_has_its_own():
    x = {"a": jnp.array(4.0), "b": jnp.array(8.0), "c": jnp.array(2.0)}
    rule = polyak_averaging(
        0.5, lambda rate: lookahead(rate, gradient_descent, sync_period=2)
    )
    state = rule.init(x)
    updates, state = rule.update(x, state, x)
    assert_near(
        evaluation_params(state, optax.apply_updates(x, updates)),
        {"a": 2.0, "b": 4.0, "c": 1.0},
    )
    parts = optax.chain(
        optax.masked(polyak_averaging(0.5), {"a": True, "b": False, "c": False}),
        optax.masked(lookahead(0.0), {"a": False, "b": True, "c": False}),
    )
    state = parts.init(x)
    for _ in range(2):
        updates, state = parts.update(x, state, x)  # The params stay where they are.
    assert_near(
        evaluation_params(state, {"a": 0.0, "b": 0.0, "c": -1.0}),
        {"a": 2.0, "b": 8.0, "c": -1.0},
    )


def test_descent_evaluates_at_the_average():
    objective = lambda x, batch: 0.5 * jnp.sum(x**2)
    rule = polyak_averaging(0.1)
    init, step = descent.build(objective, rule, None)
    sampler = samplers.full_batch(1)._replace(num_batches=6)
    state = init(jnp.array([1.0]))
    state, info = descent.run(
        step,
        state,
        sampler,
        jax.random.key(0),
        jnp.arange(2),
        evaluate=lambda x: jnp.sum(x),
        observe=lambda state, info: info,
    )
    iterates = 0.9 ** np.arange(1, 13)
    points = np.array(descent.evaluation_points(6))
    means = np.cumsum(iterates) / np.arange(1, 13)
    np.testing.assert_allclose(info.evaluations[0], means[points - 1], rtol=1e-13)
    np.testing.assert_allclose(info.evaluations[1, -1], means[-1], rtol=1e-13)
    np.testing.assert_allclose(state.params, iterates[-1:], rtol=1e-13)


def test_averages_may_be_wider_than_the_params():
    x = jnp.ones(2, jnp.bfloat16)
    for rule in (
        polyak_averaging(1e-3, accumulator_dtype="float32"),
        exponential_averaging(1e-3, accumulator_dtype="float32"),
    ):
        state = rule.init(x)
        updates, state = rule.update(x, state, x)
        assert updates.dtype == jnp.bfloat16
        assert state.evaluation_params.dtype == jnp.float32
        assert evaluation_params(state, x).dtype == jnp.bfloat16


def test_wider_averages_hold_what_the_params_cannot():
    """bfloat16 holds the iterates 1 - k / 2^8 exactly, but not their means."""
    steps = np.arange(4)
    for make, weights in (
        (polyak_averaging, np.ones(4)),
        (lambda *a, **b: exponential_averaging(*a, decay=0.5, **b), 2.0**steps),
    ):
        rule, x = make(2.0**-8, accumulator_dtype="float32"), jnp.ones(2, jnp.bfloat16)
        state, path = rule.init(x), []
        for _ in steps:
            updates, state = rule.update(jnp.ones_like(x), state, x)
            x = optax.apply_updates(x, updates)
            path.append(np.asarray(x, float))
        mean = np.average(path, axis=0, weights=weights)
        np.testing.assert_allclose(state.evaluation_params, mean, rtol=1e-6)


def test_inner_rules_get_their_extra_arguments_and_show_their_rate():
    x = jnp.array([4.0])
    for outer in (lookahead, polyak_averaging, exponential_averaging):
        rule = outer(1.0, polyak_step)
        updates, state = rule.update(x, rule.init(x), x, value=8.0)
        np.testing.assert_allclose(updates, [-2.0])
        assert optax.tree_utils.tree_get(state, "learning_rate") == 0.5
        scheduled = outer(lambda t: 0.25 / (1 + t))
        _, state = scheduled.update(x, scheduled.init(x), x)
        assert optax.tree_utils.tree_get(state, "learning_rate") == 0.25


@pytest.mark.parametrize("make", [lookahead, polyak_averaging, exponential_averaging])
def test_params_are_asked_for_and_inner_is_a_constructor(make):
    x = jnp.ones(2)
    with pytest.raises(
        ValueError,
        match=rf"{make.__name__} needs the params; call update\(grads, state, params\)",
    ):
        make(0.1).update(x, make(0.1).init(x))
    with pytest.raises(
        TypeError, match="inner must be a constructor that takes learning_rate"
    ):
        make(0.1, gradient_descent(0.1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: lookahead(0.1, sync_period=0),
            "sync_period must be an integer, positive",
        ),
        (
            lambda: lookahead(0.1, sync_period=2.5),
            "sync_period must be an integer, positive",
        ),
        (
            lambda: lookahead(0.1, slow_step_size=1.5),
            "slow_step_size must lie between 0 and 1; got slow_step_size=1.5",
        ),
        (
            lambda: lookahead(0.1, slow_step_size=-0.5),
            "slow_step_size must be a finite number, at least 0",
        ),
        (lambda: lookahead(-0.1), "learning_rate must be a finite number, at least 0"),
        (
            lambda: polyak_averaging(0.1, start=-1),
            "start must be an integer, at least 0",
        ),
        (
            lambda: exponential_averaging(0.1, decay=1.0),
            "decay must be a finite number, at least 0 and below 1",
        ),
    ],
)
def test_bad_argument_raises(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
