"""Rprop sees signs alone: closed forms of its sizes, what it does after an overshoot,
and optax's late steps named.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.schedules import constant
from research.update_rules import rprop
from research.verification import PROBLEMS, trajectory, verify_rule

COMPILE_QUICKLY = True  # tests/conftest.py


def updates_of(rule, gradients):
    def step(state, g):
        updates, state = rule.update(g, state)
        return state, updates

    return np.asarray(
        jax.lax.scan(step, rule.init(jnp.zeros_like(gradients[0])), gradients)[1]
    )


DRAWN = jnp.asarray(np.random.default_rng(0).standard_normal((30, 6)))


@pytest.mark.parametrize("scale", [1e-290, 1e-9, 1e200])
def test_rprop_does_not_see_the_scale_of_a_gradient(scale):
    scales = scale * np.exp(np.random.default_rng(1).uniform(-20, 20, DRAWN.shape))
    np.testing.assert_array_equal(
        updates_of(rprop(0.1), DRAWN * scales), updates_of(rprop(0.1), DRAWN)
    )


def test_rprop_sizes_grow_geometrically_up_to_the_largest():
    found = updates_of(rprop(0.1, max_step_size=0.3), jnp.ones((12, 1)))
    np.testing.assert_allclose(
        found[:, 0], -np.minimum(0.1 * 1.2 ** np.arange(12), 0.3), rtol=1e-14
    )


def test_rprop_waits_once_after_a_change_of_sign_and_shrinks_once():
    signs = [1, 1, -1, -1, -1, 1, -1, 1]
    found = updates_of(rprop(1.0), jnp.array(signs, float)[:, None])[:, 0]
    # Sizes 1, 1.2, then 0.6 at the change, kept for the next step, 0.72, 0.36 at the
    # change, and so on.
    np.testing.assert_allclose(
        found, [-1.0, -1.2, 0.0, 0.6, 0.72, 0.0, 0.36, 0.0], rtol=1e-14
    )


def test_rprop_does_not_go_below_the_smallest_size():
    found = updates_of(
        rprop(1.0, min_step_size=0.1), jnp.array([1.0, -1.0] * 20)[:, None]
    )[:, 0]
    np.testing.assert_array_equal(found[1::2], 0.0)
    np.testing.assert_allclose(
        np.abs(found[::2]), np.maximum(0.5 ** np.arange(20), 0.1), rtol=1e-14
    )


def test_rprop_descends_a_badly_scaled_bowl_as_a_round_one():
    round_one = trajectory(rprop(0.1), lambda x: x, jnp.array([1.0, -2.0, 0.5]), 60)
    scales = np.array([1e8, 1.0, 1e-8])
    np.testing.assert_array_equal(
        trajectory(rprop(0.1), lambda x: scales * x, round_one[0], 60), round_one
    )
    assert np.max(np.abs(round_one[-1])) < 1e-3


def test_rprop_of_optax_is_named_one_call_late():
    found = verify_rule(
        optax.rprop,
        "rprop",
        problems=[PROBLEMS["softmax_regression"]],
        learning_rate=0.1,
    )
    assert not found.same
    assert "each step comes one call too late" in str(found.cause)


def test_a_nan_shows_and_stays_in_its_entry():
    found = updates_of(rprop(0.1), jnp.array([[1.0, 1.0], [jnp.nan, 1.0], [1.0, 1.0]]))
    assert np.isnan(found[1:, 0]).all()
    assert np.isfinite(found[:, 1]).all()


def test_bad_input_raises():
    with pytest.raises(TypeError, match="learning_rate must be a finite number"):
        rprop(constant(0.1))
    with pytest.raises(
        ValueError,
        match=(
            r"eta_minus must be a finite number, at least 0 and below 1; got "
            r"eta_minus=1\.2"
        ),
    ):
        rprop(0.1, eta_minus=1.2)
    with pytest.raises(
        ValueError, match=r"eta_plus must be at least 1; got eta_plus=0\.5"
    ):
        rprop(0.1, eta_plus=0.5)
    with pytest.raises(
        ValueError,
        match=(
            r"max_step_size must be at least min_step_size = 0\.1; got "
            r"max_step_size=0\.01"
        ),
    ):
        rprop(0.1, min_step_size=0.1, max_step_size=0.01)
