"""Optimistic rules on a saddle point, and rules that divide by the norm of a leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.update_rules import (
    adam,
    fromage,
    gradient_descent,
    lars,
    madgrad,
    novograd,
    optimistic_adam,
    optimistic_gradient_descent,
)
from research.update_rules._edges import leaf_norm, norm_of

COMPILE_QUICKLY = True  # tests/conftest.py


def distances(rule, num_steps):
    """Distance from the saddle point of f = x y after each step, from (1, 2)."""

    def step(carry, _):
        z, state = carry
        updates, state = rule.update(jnp.array([z[1], -z[0]]), state, z)
        z = optax.apply_updates(z, updates)
        return (z, state), jnp.linalg.norm(z)

    start = jnp.array([1.0, 2.0])
    return jax.lax.scan(step, (start, rule.init(start)), length=num_steps)[1]


@pytest.mark.on_ci("2,000 steps; laws/test_every_rule.py has the formula")
def test_the_optimistic_rule_converges_where_gradient_descent_does_not():
    # |z|² grows by the factor 1 + η² in each step of gradient descent.
    np.testing.assert_allclose(
        distances(gradient_descent(0.1), 50)[-1] ** 2, 5 * 1.01**50, rtol=1e-12
    )
    found = distances(optimistic_gradient_descent(0.1), 1000)
    assert found[-1] < 0.05
    rule = optimistic_adam(1.0, alpha=0.01, beta=1.0, nesterov=True)
    assert distances(rule, 1025)[-1] < 0.01
    assert distances(adam(0.01), 2000)[-1] > 0.5


@pytest.mark.on_ci("the other strength of optimism", but=r"^0\.5\]")
@pytest.mark.parametrize("optimism", [None, 0.5])
def test_optimistic_adam_is_both_of_optax(optimism):
    ours = optimistic_adam(
        0.1, beta=1.0 if optimism is None else optimism / 0.1, nesterov=True
    )
    with pytest.deprecated_call():
        theirs = optax.optimistic_adam(0.1, optimism)
    np.testing.assert_allclose(distances(ours, 30), distances(theirs, 30), rtol=1e-12)


@pytest.mark.on_ci("a special case of the formula, which laws/test_every_rule.py has")
def test_without_optimism_it_is_the_plain_rule():
    for ours, theirs in (
        (optimistic_gradient_descent(0.1, beta=0.0), gradient_descent(0.1)),
        (optimistic_adam(0.1, beta=0.0), adam(0.1)),
    ):
        np.testing.assert_array_equal(distances(ours, 9), distances(theirs, 9))


def step_of(rule, g, x):
    return rule.update(g, rule.init(x), x)[0]


@pytest.mark.on_ci("tiny gradients", but="^1000")
@pytest.mark.parametrize(
    "rule", [lars(1.0), novograd(0.1, eps=0.0), fromage(0.1, min_norm=0.0)]
)
@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_the_size_of_the_gradient_does_not_change_the_step(rule, factor):
    g, x = jnp.array([1.0, -2.0, 0.5]), jnp.array([3.0, 0.0, 4.0])
    np.testing.assert_allclose(
        step_of(rule, factor * g, x), step_of(rule, g, x), rtol=1e-13
    )


@pytest.mark.on_ci("what follows from the formula, which laws/test_every_rule.py has")
def test_fromage_keeps_the_norm_if_the_gradient_is_orthogonal():
    g, x = jnp.array([4.0, -3.0]), jnp.array([3.0, 4.0])
    for rate in (1e-9, 0.1, 10.0):
        moved = x + step_of(fromage(rate), g, x)
        np.testing.assert_allclose(jnp.linalg.norm(moved), 5.0, rtol=1e-14)
        np.testing.assert_allclose(jnp.vdot(moved, g) / jnp.vdot(moved, x), -rate)


@pytest.mark.on_ci("the other entries", but="entries0")
@pytest.mark.parametrize(
    "entries", [np.full(1000, 1e18), np.append(1e-18, np.full(1000, 2.0**-63.5))]
)
def test_norm_of_many_entries_is_that_of_float64(entries):
    # Each square is in the range of float32, or nearly so, but their sum is not.
    for norm in (leaf_norm, norm_of):
        found = norm(jnp.asarray(entries, "float32"))
        np.testing.assert_allclose(found, np.linalg.norm(entries), rtol=1e-6)


@pytest.mark.on_ci("the other dtypes", but="float32")
@pytest.mark.parametrize(
    ("dtype", "power"), [("float32", 100), ("complex64", 100), ("float64", 900)]
)
def test_norms_of_extreme_entries_are_those_of_a_multiple(dtype, power):
    for k in (power, -power):
        x = 2.0**k * jnp.asarray([3.0, 0.0, -4.0], dtype)
        for norm in (leaf_norm, norm_of):
            assert norm(x) == 2.0**k * 5
            assert norm(x.at[1].set(jnp.inf)) == jnp.inf
            assert np.isnan(norm(x.at[1].set(jnp.nan)))


def test_lars_leaves_out_masked_leaves():
    g, x = (
        {"w": jnp.full(4, 2.0), "b": jnp.ones(1)},
        {"w": jnp.ones(4), "b": jnp.ones(1)},
    )
    rule = lars(
        1.0, weight_decay=0.5, mask={"w": True, "b": False},
        trust_coefficient=0.1, ratio_mask={"w": True, "b": False},
    )  # fmt: skip
    # |x| = 2, |g| = 4: the ratio is 0.1 · 2 / (4 + 0.5 · 2), and g + λ x = 2.5.
    found = step_of(rule, g, x)
    np.testing.assert_allclose(found["w"], -0.04 * 2.5)
    np.testing.assert_allclose(found["b"], -1.0)


def test_madgrad_with_a_schedule_weighs_each_gradient_by_its_rate():
    rates, g = (0.5, 0.25, 0.125), jnp.array([8.0])
    rule, x = (
        madgrad(lambda t: jnp.asarray(rates)[t], momentum=0.0, eps=0.0),
        jnp.zeros(1),
    )
    state, s, v = rule.init(x), 0.0, 0.0
    for t, rate in enumerate(rates, 1):
        updates, state = rule.update(g, state, x)
        x = x + updates
        s, v = s + rate * np.sqrt(t) * 8, v + rate * np.sqrt(t) * 64
        np.testing.assert_allclose(x, -s / np.cbrt(v), rtol=1e-13)


@pytest.mark.on_ci("a fault of optax; laws/test_every_rule.py has our formula")
def test_optax_madgrad_computes_its_weights_in_float32():
    g, x = jnp.asarray(np.random.default_rng(0).standard_normal((5, 3))), jnp.zeros(3)

    def walked(rule):
        def step(carry, g):
            x, state = carry
            updates, state = rule.update(g, state, x)
            return (x + updates, state), x

        return jax.lax.scan(step, (x, rule.init(x)), g)[0][0]

    ours, theirs = (walked(r) for r in (madgrad(0.1), optax.contrib.madgrad(0.1)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert np.max(np.abs(ours / theirs - 1)) > 1e-9
