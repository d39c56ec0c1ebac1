"""Update rules: closed forms and published numbers, dtypes, what the state records, and
bad input.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import schedules
from research.update_rules import (
    ALIASES,
    RULE_TABLE,
    UPDATE_RULES,
    adagrad,
    adam,
    adamw,
    add_decayed_weights,
    find_rule,
    gradient_descent,
    heavy_ball,
    momo_adam,
    rmsprop,
)
from research.verification import trajectory

COMPILE_QUICKLY = DRAWS_NO_KEYS = True  # tests/conftest.py

# They take nothing but the gradient, and their rate scales the update.
PLAIN = (
    "gradient_descent",
    "heavy_ball",
    "nesterov",
    "adagrad",
    "rmsprop",
    "adam",
    "adamw",
    "lion",
    "adan",
    "radam",
)


def updates_of(rule, gradients, params=None):
    """The updates a rule answers to rows of gradients; params stay where they are."""
    params = jnp.zeros_like(gradients[0]) if params is None else params

    def step(state, g):
        updates, state = rule.update(g, state, params)
        return state, updates

    return jax.lax.scan(step, rule.init(params), gradients)[1]


GRADIENTS = jnp.asarray(
    np.exp(np.random.default_rng(0).uniform(-3, 3, (50, 4))) * [1.0, -1.0, 1.0, -1.0]
)


@pytest.mark.on_ci("four more lines of the table", but="rule[35]-")
@pytest.mark.parametrize(
    ("rule", "published"),
    [
        (gradient_descent(0.4), (-0.943467, -0.000073)),
        (gradient_descent(0.6), (-0.387814, -1673.365109)),
        (heavy_ball(0.6, 0.5), (0.007188, 0.002553)),
        (heavy_ball(0.6, 0.25), (-0.126340, -0.186632)),
        (adagrad(0.4, initial_accumulator_value=0.0, eps=1e-6), (-2.382563, -0.158591)),
        (rmsprop(0.4, 0.9, eps=1e-6), (-0.010599, 0.0)),
    ],
)
def test_rules_give_the_printed_numbers_of_a_textbook(rule, published):
    # Zhang et al., Dive into Deep Learning, chapter 12: f = 0.1 x1² + 2 x2² from (-5,
    # -2), 20 steps, six decimals.
    path = trajectory(
        rule, lambda x: np.array([0.2, 4.0]) * x, jnp.array([-5.0, -2.0]), 20
    )
    np.testing.assert_allclose(path[-1], published, atol=1.1e-6)


def test_adagrad_stands_still_where_no_gradient_was():
    found = updates_of(
        adagrad(0.1, initial_accumulator_value=0.0, eps=0.0),
        jnp.array([[0.0, 3.0], [0.0, 4.0]]),
    )
    np.testing.assert_allclose(found, [[0.0, -0.1], [0.0, -0.08]], rtol=1e-14)


@pytest.mark.on_ci(
    "the first step; test_adam_takes_unit_steps_on_a_constant_gradient_in_float32 has "
    "twenty"
)
def test_adam_first_step_is_the_rate_times_the_sign():
    first = updates_of(adam(0.01, eps=0.0), GRADIENTS)[0]
    np.testing.assert_allclose(first, -0.01 * np.sign(GRADIENTS[0]), rtol=1e-13)


@pytest.mark.on_ci("what follows from the formula, which laws/test_every_rule.py has")
def test_adam_does_not_see_the_scale_of_the_gradient():
    rule = adam(0.01, eps=0.0)
    np.testing.assert_allclose(
        updates_of(rule, 1024.0 * GRADIENTS), updates_of(rule, GRADIENTS), rtol=1e-14
    )


def test_adam_without_averages_is_sign_descent():
    found = updates_of(adam(0.5, b1=0.0, b2=0.0, eps=0.0), GRADIENTS)
    np.testing.assert_allclose(found, -0.5 * np.sign(GRADIENTS), rtol=3e-16)


@pytest.mark.on_ci("what follows from the formulas, which laws/test_every_rule.py has")
def test_adam_without_momentum_is_rmsprop_corrected():
    # v̂_t = v_t / (1 - β^t), so that the update is RMSProp's times √(1 - β^t).
    factor = np.sqrt(1 - 0.9 ** np.arange(1, 51))[:, None]
    plain = updates_of(rmsprop(0.01, decay=0.9, eps=0.0), GRADIENTS)
    np.testing.assert_allclose(
        updates_of(adam(0.01, b1=0.0, b2=0.9, eps=0.0), GRADIENTS),
        factor * plain,
        rtol=1e-13,
    )


@pytest.mark.on_ci("constant averages", but="True")
@pytest.mark.parametrize("traced", [False, True])
def test_adam_takes_unit_steps_on_a_constant_gradient_in_float32(traced):
    # m̂ = g and v̂ = g² at every step; 1 - b2^t in float32 would be wrong by 1e-5 of
    # itself at first.
    betas = [jnp.float32(b) if traced else b for b in (0.9, 0.999)]
    run = jax.jit(
        lambda *b: updates_of(
            adam(1.0, *b, eps=0.0), jnp.full((20, 1), 0.3, jnp.float32)
        )
    )
    steps = (
        run(*betas)
        if traced
        else updates_of(adam(1.0, *betas, eps=0.0), jnp.full((20, 1), 0.3, jnp.float32))
    )
    np.testing.assert_allclose(steps, -1.0, rtol=1e-6)


def test_adamw_without_decay_is_adam():
    found = updates_of(adamw(0.1, weight_decay=0.0), GRADIENTS, jnp.ones(4))
    np.testing.assert_allclose(found, updates_of(adam(0.1), GRADIENTS), rtol=1e-14)


def test_decoupled_decay_shrinks_by_the_rate_times_the_decay():
    path = trajectory(
        adamw(0.1, weight_decay=0.5, mask={"w": True, "b": False}),
        zeros,
        {"w": 1.0, "b": 1.0},
        20,
    )
    np.testing.assert_allclose(path["w"], (1 - 0.1 * 0.5) ** np.arange(21), rtol=1e-14)
    np.testing.assert_array_equal(path["b"], 1.0)


def zeros(params):
    return jax.tree.map(jnp.zeros_like, params)


@pytest.mark.on_ci("two more rules", but=r"^adam\]")
@pytest.mark.thorough("the other rules", but=r"^(gradient_descent|adam|lion)\]")
@pytest.mark.parametrize("name", PLAIN)
def test_coupled_decay_is_a_quadratic_penalty(name):
    decay, x = 0.3, jnp.array([1.0, -2.0])
    chained = optax.chain(add_decayed_weights(decay), UPDATE_RULES[name](0.1))
    np.testing.assert_allclose(
        trajectory(chained, jnp.tanh, x, 20),
        trajectory(UPDATE_RULES[name](0.1), lambda x: jnp.tanh(x) + decay * x, x, 20),
        rtol=1e-14,
    )


@pytest.mark.on_ci("another rule", but=r"^adam\]")
@pytest.mark.thorough("the other rules", but=r"^(gradient_descent|adam)\]")
@pytest.mark.parametrize("name", PLAIN)
def test_state_keeps_the_rate_constant_or_of_a_schedule(name):
    schedule, params, gradients = (
        schedules.inverse_time(0.3, 2.0),
        {"w": jnp.ones(2)},
        {"w": jnp.ones(2)},
    )
    rule = UPDATE_RULES[name](schedule)

    def step(state, _):
        state = rule.update(gradients, state, params)[1]
        return state, optax.tree_utils.tree_get(state, "learning_rate")

    state = rule.init(params)
    assert optax.tree_utils.tree_get(state, "learning_rate") == schedule(0)
    _, rates = jax.lax.scan(step, state, length=6)
    np.testing.assert_allclose(rates, schedule(jnp.arange(6)), rtol=1e-15)
    constant = UPDATE_RULES[name](0.3).init(params)
    assert optax.tree_utils.tree_get(constant, "learning_rate") == 0.3


@pytest.mark.on_ci("another rule", but="adam")
@pytest.mark.parametrize("name", ["adam", "gradient_descent"])
def test_count_stays_at_the_largest_integer(name):
    rule, x = UPDATE_RULES[name](schedules.inverse_square_root(0.1)), jnp.ones(2)
    top = jnp.iinfo(jnp.int32).max
    state = jax.tree.map(
        lambda s: jnp.full_like(s, top) if s.dtype == jnp.int32 else s, rule.init(x)
    )
    updates, state = rule.update(x, state, x)
    assert jnp.all(jnp.isfinite(updates))
    assert {int(s) for s in jax.tree.leaves(state) if s.dtype == jnp.int32} == {
        int(top)
    }


def test_find_rule_finds_and_guesses():
    assert all(find_rule(name) is rule for name, rule in UPDATE_RULES.items())
    known = "Known: " + ", ".join(UPDATE_RULES)
    with pytest.raises(
        ValueError, match=f"unknown rule 'adm'; did you mean 'adam'\\? {known}"
    ):
        find_rule("adm")
    with pytest.raises(ValueError, match=f"unknown rule 'zzz'. {known}"):
        find_rule("zzz")


@pytest.mark.parametrize("elsewhere", ALIASES)
def test_find_rule_knows_what_others_call_it(elsewhere):
    with pytest.raises(ValueError, match=f"did you mean '{ALIASES[elsewhere]}'"):
        find_rule(elsewhere)
    assert ALIASES[elsewhere] in RULE_TABLE
    assert elsewhere not in UPDATE_RULES


@pytest.mark.parametrize("name", ["svrg", "levenberg_marquardt"])
def test_find_rule_says_where_the_others_are(name):
    with pytest.raises(
        ValueError, match=f"it needs .*. Call research.update_rules.{name}"
    ):
        find_rule(name)


@pytest.mark.parametrize("name", ["adagrad", "rmsprop", "adam", "adamw"])
def test_arguments_have_the_names_and_defaults_of_optax(name):
    theirs = {
        key: value.default
        for key, value in inspect.signature(getattr(optax, name)).parameters.items()
    }
    for key, parameter in inspect.signature(UPDATE_RULES[name]).parameters.items():
        assert key not in theirs or parameter.default == theirs[key], key


@pytest.mark.parametrize(
    "bad",
    [
        -0.1,
        np.nan,
        np.inf,
        "0.1",
        None,
        True,
        [0.1],
        np.array([0.1, 0.2]),
        jnp.array(-1.0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_bad_rate_raises(name, bad):
    with pytest.raises(
        (ValueError, TypeError),
        match=r"learning_rate must be a finite number, (at least 0|positive); got",
    ):
        UPDATE_RULES[name](bad)


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_bad_argument_raises(name):
    for key, parameter in inspect.signature(UPDATE_RULES[name]).parameters.items():
        if key != "learning_rate" and type(parameter.default) is float:
            for bad in (np.nan, "0.9", None, True):
                with pytest.raises(
                    (ValueError, TypeError), match=rf"{key} must be .*got"
                ):
                    UPDATE_RULES[name](0.1, **{key: bad})


@pytest.mark.parametrize("key", ["b1", "b2"])
@pytest.mark.parametrize("bad", [-0.1, 1.0, 1.5, jnp.array(1.5)], ids=repr)
def test_an_average_that_forgets_nothing_raises(key, bad):
    with pytest.raises(
        ValueError, match=f"{key} must be a finite number, at least 0 and below 1"
    ):
        adam(0.1, **{key: bad})


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, constructor in UPDATE_RULES.items()
        if "learning_rate" in inspect.signature(constructor).parameters
    ],
)
def test_a_function_that_is_no_schedule_is_named(name):
    for wrong in (schedules.cosine, lambda: 0.1):
        with pytest.raises(
            TypeError,
            match=(
                r"learning_rate must be (a function of \(t\).*which takes|"
                r"a finite number, .*got a schedule)"
            ),
        ):
            UPDATE_RULES[name](learning_rate=wrong)


@pytest.mark.parametrize(
    "wrong", ["a", None, lambda t: 0.1], ids=["text", "None", "function"]
)
@pytest.mark.parametrize("name", ["adam", "adafactor", "dog", "schedule_free_sgd"])
def test_a_schedule_that_returns_no_number_is_named(name, wrong):
    rule, x = UPDATE_RULES[name](lambda t: wrong), jnp.ones(2)
    with pytest.raises(
        TypeError, match=r"learning_rate must be a schedule.*; this one returns"
    ):
        rule.update(x, rule.init(x), x)


def test_an_unknown_argument_is_shown_beside_the_known_ones():
    with pytest.raises(
        TypeError, match=r"adam\(\) got .* 'beta1'\. Known: learning_rate, b1, b2, eps"
    ):
        adam(0.1, beta1=0.9)


def test_several_rates_are_sent_to_vmap():
    with pytest.raises(TypeError, match=r"one number.*jax\.vmap over the constructor"):
        gradient_descent(jnp.array([0.1, 0.2]))


@pytest.mark.parametrize("rule", [add_decayed_weights(0.1), adamw(0.1)])
def test_decay_without_weights_raises(rule):
    with pytest.raises(ValueError, match=r"call update\(grads, state, params\)"):
        rule.update(jnp.ones(2), rule.init(jnp.ones(2)))
    with pytest.raises(ValueError, match="weight_decay must be a finite number"):
        add_decayed_weights(-0.1)


@pytest.mark.parametrize("leaf", ["text", -1, 0.5])
def test_a_leaf_of_the_state_that_is_no_array_is_named(leaf):
    rule, x = momo_adam(0.1), jnp.ones(2)
    state = rule.init(x)._replace(mean_value=leaf)
    with pytest.raises(
        TypeError, match=rf"state must be .* got state\.mean_value={leaf!r}\. Pass"
    ):
        rule.update(x, state, x, value=jnp.array(1.0))
