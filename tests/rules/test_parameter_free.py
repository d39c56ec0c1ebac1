"""Rules without a rate: their steps in closed form, what they do not see, and the bound
on Prodigy's estimate.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.schedules import inverse_time
from research.update_rules import (
    cocob,
    dadapt_adamw,
    dog,
    dowg,
    gradient_descent,
    mechanic,
    momo,
    momo_adam,
    prodigy,
)
from research.verification import PROBLEMS

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

CURVATURES = np.array([4.0, 1.0, 0.01])
MINIMUM = np.array([0.5, -3.0, 2.0])
START = jnp.zeros(3)


def slope(x):
    return CURVATURES * (x - MINIMUM)


def walk(rule, num_steps=60, slope=slope, start=START):
    """The iterates after each step, and the states."""

    def step(carry, _):
        x, state = carry
        updates, state = rule.update(slope(x), state, x)
        return (x + updates, state), (x + updates, state)

    return jax.jit(
        lambda x: jax.lax.scan(step, (x, rule.init(x)), length=num_steps)[1]
    )(start)


def test_dog_steps_by_distance_over_gradients():
    x, state = walk(dog(0.5, initial_distance=0.1, eps=0.01))
    x = np.concatenate([[START], x])
    gradients = np.asarray(slope(x[:-1]))
    distances = np.maximum.accumulate(
        np.maximum(np.linalg.norm(x[:-1] - x[:1], axis=1), 0.1)
    )
    rates = 0.5 * distances / np.sqrt(np.cumsum(np.sum(gradients**2, axis=1)) + 0.01)
    np.testing.assert_allclose(state.learning_rate, rates, rtol=1e-12)
    np.testing.assert_allclose(
        np.diff(x, axis=0), -rates[:, None] * gradients, rtol=1e-11, atol=1e-13
    )


def test_dog_first_moves_by_its_first_distance():
    x = {"w": jnp.full((2, 2), 1.5), "b": jnp.array(4.0)}  # |x| = 5.
    rule = dog(eps=0.0)
    updates, _ = rule.update(jax.tree.map(jnp.cos, x), rule.init(x), x)
    length = np.sqrt(sum(np.sum(np.square(u)) for u in jax.tree.leaves(updates)))
    assert length == pytest.approx(1e-6 * 6.0, rel=1e-14)


DRAWN = jnp.asarray(np.random.default_rng(0).standard_normal((40, 5)))


@pytest.mark.thorough("a tiny scale", but="1099511627776")
@pytest.mark.on_ci("prodigy", but="dog")
@pytest.mark.parametrize("scale", [2.0**-40, 2.0**40])
@pytest.mark.parametrize(
    "rule", [dog(eps=0.0), prodigy(eps=0.0)], ids=["dog", "prodigy"]
)
def test_updates_do_not_see_the_scale_of_the_gradient(rule, scale):
    def updates_of(gradients):
        def step(state, g):
            updates, state = rule.update(g, state)
            return state, updates

        return jax.lax.scan(step, rule.init(jnp.ones(5)), gradients)[1]

    np.testing.assert_allclose(updates_of(scale * DRAWN), updates_of(DRAWN), rtol=1e-12)


@pytest.mark.thorough(
    "scaled params; test_updates_do_not_see_the_scale_of_the_gradient has gradients"
)
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_distances_scale_with_the_problem(scale):
    # Of f(x / c) from 0 with c times the first distance, both walk c times the path.
    rules = [
        (lambda d: dog(initial_distance=d, eps=0.0)),
        (lambda d: prodigy(initial_distance=d, eps=0.0)),
    ]
    for rule in rules:
        plain, _ = walk(rule(0.125), 25)
        scaled, _ = walk(rule(0.125 * scale), 25, lambda x: slope(x / scale) / scale)
        np.testing.assert_allclose(scaled, scale * plain, rtol=1e-9)


@pytest.mark.thorough("prodigy", but=r"^dog")
@pytest.mark.parametrize("rule", [dog(), prodigy()], ids=["dog", "prodigy"])
def test_from_a_first_step_of_a_millionth_both_find_the_size_of_the_way(rule):
    x, _ = walk(rule, 2000, lambda x: x - MINIMUM)
    assert np.linalg.norm(x[0]) < 1e-5
    assert np.linalg.norm(x[-1] - MINIMUM) < 0.1 * np.linalg.norm(MINIMUM)


def test_prodigy_estimate_never_shrinks_nor_exceeds_the_distance_on_convex_functions():
    # Σ w <g, x_0 - x_k> <= <s, x_0 - x*> <= |s|_1 |x_0 - x*|_∞ where f is convex.
    for factor in (1.0, 0.5):
        _, state = walk(prodigy(distance_factor=factor), 300)
        assert np.all(np.diff(state.distance) >= 0)
        assert 0.2 * factor < state.distance[-1] <= factor * np.max(np.abs(MINIMUM))


@pytest.mark.parametrize(
    ("correction", "length"), [(False, 0.1 / np.sqrt(0.001)), (True, 1.0)]
)
def test_prodigy_first_step(correction, length):
    rule = prodigy(eps=0.0, initial_distance=0.01, bias_correction=correction)
    updates, _ = rule.update(slope(START), rule.init(START))
    np.testing.assert_allclose(
        updates, -0.01 * length * np.sign(slope(START)), rtol=1e-12
    )


@pytest.mark.on_ci("decay; laws/test_rules_equal_optax.py has prodigy")
def test_prodigy_with_decay_is_the_authors_code_as_optax_has_it():
    objective, start = (
        PROBLEMS["softmax_regression"].objective,
        PROBLEMS["softmax_regression"].start,
    )
    start = jax.tree.map(jnp.asarray, start)
    ours = prodigy(
        inverse_time(1.0, 50.0),
        initial_distance=0.01,
        weight_decay=0.1,
        bias_correction=True,
    )
    theirs = optax.contrib.prodigy(
        inverse_time(1.0, 50.0), estim_lr0=0.01, weight_decay=0.1
    )

    @jax.jit
    def both(x):
        return [walk_tree(rule, jax.grad(objective), x) for rule in (ours, theirs)]

    chex.assert_trees_all_close(*both(start), rtol=1e-11, atol=1e-12)


def walk_tree(rule, gradient, x):
    def step(carry, _):
        x, state = carry
        updates, state = rule.update(gradient(x), state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    return jax.lax.scan(step, (x, rule.init(x)), length=25)[1]


@pytest.mark.parametrize("rule", [dog(eps=0.0), prodigy()], ids=["dog", "prodigy"])
def test_nothing_moves_before_the_first_gradient_and_a_nan_shows(rule):
    state = rule.init(START)
    updates, state = rule.update(jnp.zeros(3), state)
    np.testing.assert_array_equal(updates, 0.0)
    chex.assert_tree_all_finite(state)
    updates, state = rule.update(slope(START), state)
    assert np.all(updates != 0)
    for g in (jnp.array([jnp.nan, 1.0, 1.0]), jnp.ones(3)):
        updates, state = rule.update(g, state)
        assert np.isnan(updates).any()


def test_a_first_move_keeps_its_digits_beside_float32_params():
    x = jnp.full(3, 1.0, jnp.float32)
    rule = dog(eps=0.0)
    updates, state = rule.update(slope(x).astype(jnp.float32), rule.init(x), x)
    assert np.linalg.norm(np.float64(state.moved)) == pytest.approx(
        1e-6 * (1 + np.sqrt(3)), rel=1e-6
    )
    rounded = np.linalg.norm(np.float64(x + updates) - 1.0)
    assert abs(rounded / np.linalg.norm(np.float64(state.moved)) - 1) > 1e-3


def test_bad_input_raises():
    with pytest.raises(
        ValueError,
        match=(
            "initial_distance must be a finite number, at least 0; got "
            "initial_distance=-1"
        ),
    ):
        dog(initial_distance=-1.0)
    with pytest.raises(
        ValueError,
        match=(
            "initial_distance must be a finite number, positive; got initial_distance=0"
        ),
    ):
        prodigy(initial_distance=0.0)
    with pytest.raises(
        ValueError,
        match=r"b3 must be a finite number, at least 0 and below 1; got b3=1\.0",
    ):
        prodigy(b3=1.0)
    rule = prodigy(weight_decay=0.1)
    with pytest.raises(ValueError, match=r"call update\(grads, state, params\)"):
        rule.update(START, rule.init(START))


@pytest.mark.thorough("no decay", but=r"0\.01")
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_mechanic_is_optax_mechanize_up_to_the_digits_that_optax_loses(weight_decay):
    # optax subtracts params of size 3 that first move by 1e-6: it keeps ten digits.
    # Later both paths overshoot the minimum, where rounding grows.
    inner = lambda rate: optax.sgd(rate, 0.9)
    rules = (
        mechanic(0.1, inner, weight_decay),
        optax.contrib.mechanize(inner(0.1), weight_decay),
    )
    ours, theirs = (walk(rule, 60, start=START + 3.0)[0] for rule in rules)
    assert np.max(np.abs(ours[-1] - START - 3.0)) > 0.01
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)
    first = [np.diff(path[:30], axis=0) for path in (ours, theirs)]
    np.testing.assert_allclose(*first, rtol=1e-4)


@pytest.mark.thorough(
    "200 steps; test_mechanic_is_optax_mechanize_up_to_the_digits_that_optax_loses "
    "has its steps"
)
def test_mechanic_of_a_rule_that_moves_ten_times_as_far_finds_nearly_the_same_path():
    paths = [
        walk(mechanic(rate, gradient_descent, 0.0), 200)[0] for rate in (0.01, 0.1)
    ]
    values = [np.sum(CURVATURES * (p[-1] - MINIMUM) ** 2) for p in paths]
    first = np.sum(CURVATURES * MINIMUM**2)
    assert max(values) < 0.2 * first


def test_mechanic_says_that_a_length_cannot_be_traced():
    given = optax.inject_hyperparams(mechanic)(0.1, num_betas=3)
    with pytest.raises(TypeError, match=r"num_betas cannot be traced.* static_args"):
        jax.eval_shape(given.init, START)


@pytest.mark.thorough("the other rules", but="rule0")
@pytest.mark.parametrize("rule", [dowg(), cocob(), dadapt_adamw()])
def test_rules_without_a_rate_come_near_the_minimum(rule):
    first = np.sum(CURVATURES * MINIMUM**2)
    x, _ = walk(rule, 1000)
    assert np.sum(CURVATURES * (x[-1] - MINIMUM) ** 2) < 0.05 * first


@pytest.mark.thorough("the other factor", but=r"0\.001")
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_cocob_does_not_see_the_scale_of_the_objective(factor):
    plain, _ = walk(cocob(eps=1e-300), 40)
    scaled, _ = walk(cocob(eps=1e-300), 40, slope=lambda x: factor * slope(x))
    np.testing.assert_allclose(plain, scaled, rtol=1e-11)


@pytest.mark.thorough(
    "no decay; test_momo_with_weight_decay_minimises_the_model_with_both_penalties "
    "has a huge rate too"
)
def test_momo_with_a_huge_rate_takes_polyak_steps_and_never_overshoots():
    # Without momentum and with f* = min f, the step is (f - f*) / |g|².
    def f(x):
        return 0.5 * jnp.sum(CURVATURES * (x - MINIMUM) ** 2)

    def path(rule, steps):
        def step(carry, _):
            x, state = carry
            updates, state = rule.update(slope(x), state, x, value=f(x))
            return (x + updates, state), (x, updates)

        return jax.lax.scan(step, (START, rule.init(START)), length=steps)[1]

    x, u = map(np.asarray, path(momo(1e6, beta=0.0), 30))
    g = slope(x)
    gap = 0.5 * np.sum(CURVATURES * (x - MINIMUM) ** 2, axis=1)
    np.testing.assert_allclose(u, -(gap / np.sum(g**2, axis=1))[:, None] * g, rtol=1e-9)
    for rule in (momo(1e6), momo_adam(1e6)):
        values = [float(f(point)) for point in path(rule, 300)[0]]
        assert values[-1] < 0.05 * values[0]


@pytest.mark.parametrize("rate", [0.05, 1e3])
def test_momo_with_weight_decay_minimises_the_model_with_both_penalties(rate):
    # Schaipp et al., section 4: the next point minimises the truncated model plus
    # |y - x|² / (2 η) + λ |y|² / 2. So no other point has a lower sum.
    value, decay = 7.0, 0.3
    g, x = np.asarray(slope(START)), np.asarray(START)

    def summed(y):
        model = np.maximum(value + (y - x) @ g, 0.0)
        away, size = np.sum((y - x) ** 2, axis=-1), np.sum(y**2, axis=-1)
        return model + away / (2 * rate) + decay * size / 2

    rule = momo(rate, beta=0.0, weight_decay=decay)
    updates, _ = rule.update(slope(START), rule.init(START), START, value=value)
    found = x + np.asarray(updates)
    directions = np.random.default_rng(0).normal(size=(2000, len(x)))
    for length in (1.0, 1e-1, 1e-2, 1e-3):
        assert np.all(summed(found + length * directions) > summed(found))


@pytest.mark.on_ci("a rate of 1e6; nothing shorter shows this")
@pytest.mark.parametrize("make_rule", [momo, momo_adam])
def test_a_huge_rate_with_weight_decay_does_not_overflow_in_float16(make_rule):
    rule = make_rule(1e6, weight_decay=0.3)
    x = jnp.array([1.0, 0.0, 300.0], jnp.float16)
    updates, _ = rule.update(x, rule.init(x), x, value=jnp.float16(100.0))
    np.testing.assert_allclose(np.asarray(updates, float), [-1, 0, -300], rtol=1e-2)


@pytest.mark.on_ci("the other rules", but="cocob")
@pytest.mark.parametrize(
    "make_rule", [cocob, prodigy, partial(mechanic, 0.1, gradient_descent)]
)
def test_an_entry_without_gradient_stays_in_float16(make_rule):
    # There ε rounds to 0, and a divisor of 6e-6 has the reciprocal ∞.
    rule, x = make_rule(), jnp.array([1.0, 2.0], "float16")
    state, first = rule.init(x), jnp.array([0.0, 1.0], "float16")
    still, state = rule.update(first, state, x)
    moved, _ = rule.update(jnp.ones_like(first), state, x + still)
    assert still[0] == 0
    assert np.all(np.isfinite(np.concatenate([still, moved])))


def test_momo_estimates_the_minimum_as_its_lower_bound():
    def f(x):
        return 5.0 + 0.5 * jnp.sum(CURVATURES * (x - MINIMUM) ** 2)

    rule = momo(0.2, adapt_lower_bound=True)

    def step(carry, _):
        x, state = carry
        updates, state = rule.update(slope(x), state, x, value=f(x))
        return (x + updates, state), state.lower_bound

    bounds = jax.lax.scan(step, (START, rule.init(START)), length=400)[1]
    assert abs(bounds[-1] - 5.0) < 0.1


def test_momo_needs_the_value():
    for rule in (momo(), momo_adam()):
        with pytest.raises(
            ValueError, match=r"needs the params and the objective's value"
        ):
            rule.update(START, rule.init(START), START)
