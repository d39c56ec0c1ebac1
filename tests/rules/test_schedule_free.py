"""Schedule-free descent: x is an average of z, its two ends are known methods, and the
paper's theorem holds.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.schedules import inverse_time
from research.update_rules import (
    adamw,
    gradient_descent,
    schedule_free_adamw,
    schedule_free_sgd,
)
from research.verification import PROBLEMS, trajectory, verify_rule

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

CURVATURES = np.array([4.0, 1.0, 0.25])
START = jnp.array([1.0, -2.0, 3.0])


def gradient(x):
    return CURVATURES * x + jnp.sin(3.0 * x)


def walk(rule, num_steps=30, slope=gradient, start=START):
    """y_t, x_t, z_t for t = 2, 3, ..., and the recorded rates."""

    def step(carry, _):
        y, state = carry
        updates, state = rule.update(slope(y), state, y)
        y = y + updates
        x = state.evaluation_params
        return (y, state), (
            y,
            x,
            x + state.lead,
            optax.tree_utils.tree_get(state, "learning_rate", jnp.nan),
        )

    return jax.jit(
        lambda y: jax.lax.scan(step, (y, rule.init(y)), length=num_steps)[1]
    )(start)


@pytest.mark.thorough("without Adam", but="adamw")
@pytest.mark.parametrize("constructor", [schedule_free_sgd, schedule_free_adamw])
def test_x_is_the_weighted_average_of_z_and_y_lies_between(constructor):
    rates = 0.05 * np.minimum(1.0, np.arange(1, 31) / 7) / (1 + np.arange(30) / 10)
    rule = constructor(
        inverse_time(0.05, 10.0),
        warmup_steps=7,
        b1=0.8,
        weight_decay=0.1,
        weight_power=1.5,
    )
    y, x, z, recorded = walk(rule)
    weights = np.cumsum(rates**1.5)[:, None]
    np.testing.assert_allclose(
        x, np.cumsum(rates[:, None] ** 1.5 * z, axis=0) / weights, rtol=1e-13
    )
    np.testing.assert_allclose(y, 0.2 * z + 0.8 * x, rtol=1e-13)
    np.testing.assert_allclose(recorded, rates, rtol=1e-14)


@pytest.mark.thorough("with Adam", but="sgd")
@pytest.mark.parametrize(
    ("ours", "fast"),
    [
        (schedule_free_sgd(0.1, b1=0.0), gradient_descent(0.1)),
        (
            schedule_free_adamw(0.1, b1=0.0, weight_decay=0.1),
            adamw(0.1, b1=0.0, weight_decay=0.1),
        ),
    ],
    ids=["sgd", "adamw"],
)
def test_at_beta_0_it_is_the_plain_rule_beside_its_polyak_average(ours, fast):
    y, x, _, _ = walk(ours)
    plain = trajectory(fast, gradient, START, 30)[1:]
    np.testing.assert_allclose(y, plain, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(
        x, np.cumsum(plain, axis=0) / np.arange(1, 31)[:, None], rtol=1e-12
    )


def test_at_beta_1_it_is_primal_averaging():
    y, x, _, _ = walk(schedule_free_sgd(0.1, b1=1.0))
    np.testing.assert_allclose(y, x, rtol=1e-14)
    at, z = np.asarray(START), np.asarray(START)
    for t in range(1, 31):  # Gradients at the average move z, which is averaged.
        z = z - 0.1 * np.asarray(gradient(at))
        at = (1 - 1 / t) * at + z / t
        np.testing.assert_allclose(y[t - 1], at, rtol=1e-12)


@pytest.mark.thorough("the other averages and lengths", but=r"^(10-0\.5|100-0\.9)\]")
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("num_steps", [10, 100, 1000])
def test_the_average_is_within_the_bound_of_theorem_1(beta, num_steps):
    # f = max_i |a_i x_i|, of Lipschitz constant G = 2 and distance D: f(x_T) - f* <= D
    # G / √T at the rate D / (G √T).
    scales = np.array([2.0, 1.0, 0.5])

    def slope(x):
        steepest = jnp.argmax(jnp.abs(scales * x))
        return jnp.zeros(3).at[steepest].set((scales * jnp.sign(x))[steepest])

    distance = np.linalg.norm(START)
    rate = distance / (2.0 * np.sqrt(num_steps))
    _, x, _, _ = walk(schedule_free_sgd(rate, b1=beta), num_steps, slope)
    assert np.max(np.abs(scales * x[-1])) <= 2.0 * distance / np.sqrt(num_steps)


def test_a_rate_of_zero_leaves_all_three_where_they_are():
    y, x, z, _ = walk(schedule_free_sgd(lambda t: jnp.where(t < 3, 0.0, 0.1)))
    for path in (y, x, z):
        np.testing.assert_array_equal(path[:3], np.broadcast_to(START, (3, 3)))
    np.testing.assert_allclose(x[3], z[3], rtol=1e-15)


def test_small_updates_keep_their_digits_beside_large_params():
    found, _ = schedule_free_sgd(1.0, b1=0.9).update(
        jnp.array([1e-13]), schedule_free_sgd(1.0).init(jnp.ones(1)), jnp.ones(1)
    )
    np.testing.assert_allclose(found, -1e-13, rtol=1e-15)


def test_warm_up_of_optax_is_named_one_step_off():
    theirs = optax.contrib.schedule_free_sgd(0.1, warmup_steps=5)
    # Its warm-up divides in float32, even of float64 params.
    problems, arguments = (
        [PROBLEMS["softmax_regression"]],
        {"learning_rate": 0.1, "warmup_steps": 5},
    )
    found = verify_rule(
        theirs, "schedule_free_sgd", problems=problems, tolerance=1e-6, **arguments
    )
    assert not found.same
    assert "it moves by the rate of the step before, as in optax" in str(found.cause)


def test_bad_input_raises():
    with pytest.raises(
        ValueError,
        match=r"b1 must be a finite number, at least 0 and at most 1; got b1=1\.1",
    ):
        schedule_free_sgd(0.1, b1=1.1)
    with pytest.raises(
        TypeError,
        match=r"warmup_steps must be an integer, at least 0; got warmup_steps=0\.5",
    ):
        schedule_free_adamw(0.1, warmup_steps=0.5)
    with pytest.raises(
        ValueError,
        match=r"b2 must be a finite number, at least 0 and below 1; got b2=1\.0",
    ):
        schedule_free_adamw(0.1, b2=1.0)
    rule = schedule_free_sgd(0.1)
    with pytest.raises(ValueError, match=r"call update\(grads, state, params\)"):
        rule.update(START, rule.init(START))
