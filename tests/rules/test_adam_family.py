"""Adam's family: theorems and counter-examples with their numbers, what is a special
case of what, faults elsewhere.
"""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest

from research import schedules
from research.update_rules import (
    UPDATE_RULES,
    adabelief,
    adadelta,
    adagrad,
    adam,
    adamax,
    adamw,
    adan,
    ademamix,
    adopt,
    amsgrad,
    ema_momentum,
    gradient_descent,
    heavy_ball,
    lion,
    nadam,
    radam,
    rmsprop,
    sign_descent,
    signum,
    yogi,
)
from research.update_rules._bias_correction import effective_length
from research.update_rules._rule_info import rule_info
from research.verification import (
    FORMULAS,
    PROBLEMS,
    trajectory,
    verify_rule,
    walk,
    walk_exactly,
)
from research.verification.walks import distance

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

SIGNS = np.array([1.0, -1.0, 1.0, -1.0])
GRADIENTS = jnp.asarray(
    np.exp(np.random.default_rng(0).uniform(-3, 3, (50, 4))) * SIGNS
)


def answers(rule, gradients, params=None):
    """The updates and states of a rule that is given rows of gradients; params stay
    where they are.
    """
    params = jnp.zeros_like(gradients[0]) if params is None else params

    def step(state, g):
        updates, state = rule.update(g, state, params)
        return state, (updates, state)

    return jax.lax.scan(step, rule.init(params), gradients)[1]


def updates_of(rule, gradients, params=None):
    return answers(rule, gradients, params)[0]


# Counter-examples and theorems.


def online(rule, gradients):
    """Mean loss and last point of Σ g_t x_t on [-1, 1], from x = 1."""

    def step(carry, g):
        x, state = carry
        updates, state = rule.update(g, state, x)
        return (jnp.clip(x + updates, -1.0, 1.0), state), g * x

    x = jnp.array(1.0)
    (last, _), losses = jax.lax.scan(step, (x, rule.init(x)), gradients)
    return float(jnp.mean(losses)), float(last)


@pytest.mark.on_ci(
    "30,000 steps; laws/test_every_rule.py has the formulas that the theorem is about"
)
def test_adam_goes_to_the_worst_point_and_amsgrad_does_not():
    # Reddi, Kale & Kumar (2018), theorem 1: C x once in three steps, else -x, with C =
    # 4, b2 = 1 / (1 + C²), η_t = ½ / √t. The best point is -1, with mean loss -(C - 2)
    # / 3; at 1 the mean regret is (2 C - 4) / 3 = 4/3.
    num_steps, b2 = 30_000, 1 / 17
    gradients = jnp.where(jnp.arange(num_steps) % 3 == 0, 4.0, -1.0)
    rate = schedules.inverse_square_root(0.5)
    loss, last = online(adam(rate, b1=0.0, b2=b2, eps=0.0), gradients)
    assert last == 1.0
    assert loss + 2 / 3 >= 4 / 3 - 1e-4
    uncorrected, last = online(
        rmsprop(rate, decay=b2, eps=0.0), gradients
    )  # The rule of the theorem.
    assert last == 1.0
    assert uncorrected + 2 / 3 == pytest.approx(1.3359, abs=0.003)
    for rule in (
        amsgrad(rate, 0.0, b2, 0.0, 0.0, False, False),
        adopt(rate, b1=0.0, b2=b2, use_clipping=False),
    ):
        loss, last = online(rule, gradients)
        assert last < -0.99
        assert loss + 2 / 3 < 0.02


@pytest.mark.thorough(
    "a second counter-example; "
    "test_adam_goes_to_the_worst_point_and_amsgrad_does_not has the first"
)
def test_adam_drifts_up_where_the_mean_gradient_is_positive_and_amsgrad_down():
    # Reddi, Kale & Kumar (2018), section 5: 1010 once in 101 steps, else -10.
    gradients = jnp.where(jnp.arange(101 * 60) % 101 == 0, 1010.0, -10.0)
    assert gradients[:101].sum() == 10.0
    of_adam, of_amsgrad = (
        float(updates_of(rule, gradients)[-101:].sum())
        for rule in (
            adam(1.0, 0.9, 0.99),
            amsgrad(1.0, 0.9, 0.99, 1e-8, 0.0, False, False),
        )
    )
    assert of_adam > 0.0 > of_amsgrad


def wilson(num_positive, num_negative):
    """Training data, and the three features that unseen examples share with them."""
    y = np.array([1.0] * num_positive + [-1.0] * num_negative)
    x = np.zeros((len(y), 3 + 5 * len(y)))
    x[:, 0], x[:, 1:3] = y, 1.0
    for i, label in enumerate(y):
        x[i, 3 + 5 * i : 3 + 5 * i + (1 if label > 0 else 5)] = 1.0
    return x, y


@pytest.mark.on_ci("the rule that generalises", but="rule3")
@pytest.mark.thorough("one of the two rules on each side", but="rule0|rule3")
@pytest.mark.parametrize(
    ("rule", "generalises"),
    [
        (gradient_descent(0.5), True),
        (heavy_ball(0.1, 0.9), True),
        (adagrad(0.1, initial_accumulator_value=0.0, eps=1e-30), False),
        (adam(0.01, eps=1e-30), False),
    ],
)
def test_adaptive_rules_find_the_solution_that_does_not_generalise(rule, generalises):
    # Wilson et al., The marginal value of adaptive gradient methods, NeurIPS 2017,
    # section 3: least squares from 0.
    x, y = wilson(12, 8)
    assert np.array_equal(x @ np.sign(x.T @ y), 4 * y)
    w = np.asarray(
        trajectory(
            rule, lambda w: x.T @ (x @ w - y) / len(y), jnp.zeros(x.shape[1]), 1000
        )[-1]
    )
    assert np.array_equal(np.sign(x @ w), y)  # Fits what it has seen.
    unseen = (
        w[0] * np.array([1.0, -1.0]) + w[1] + w[2]
    )  # Of a positive and of a negative example.
    assert (unseen[1] < 0) == generalises
    assert unseen[0] > 0
    if not generalises:
        used = np.abs(w[np.any(x != 0, axis=0)])
        assert used.max() / used.min() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.thorough(
    "what follows from the formula, which laws/test_every_rule.py has"
)
def test_adam_steps_are_bounded():
    # Kingma & Ba (2015), section 2.1, say at most η (1 - b1) / √(1 - b2), which a
    # gradient attains after a long silence. By Cauchy and Schwarz the bound is that
    # over √(1 - b1² / b2), 2.3 times as far: a gradient that grows by b2 / b1 a step
    # attains it.
    rate, bound = 0.01, 0.01 * 0.1 / np.sqrt(0.001)
    steps = updates_of(adam(rate, eps=0.0), GRADIENTS)
    np.testing.assert_allclose(steps[0], -rate * SIGNS, rtol=1e-13)
    assert np.max(np.abs(steps)) <= bound
    rule, x = adam(rate, eps=0.0), jnp.array([0.0])
    state = jax.tree.map(
        lambda s: s + 100_000 if s.dtype == jnp.int32 else s, rule.init(x)
    )
    assert -rule.update(jnp.array([7.0]), state)[0][0] == pytest.approx(bound, rel=1e-9)
    for t in range(300):
        updates, state = rule.update(jnp.array([(0.999 / 0.9) ** (t - 200)]), state)
    assert -updates[0] == pytest.approx(bound / np.sqrt(1 - 0.81 / 0.999), rel=1e-9)


@pytest.mark.on_ci("two more rules", but="rule8")
@pytest.mark.thorough("two in three rules", but="rule[468]")
@pytest.mark.parametrize(
    "rule",
    [
        adam(0.01, eps=0.0),
        amsgrad(0.01, eps=0.0),
        adamax(0.01, eps=0.0),
        nadam(0.01, eps=0.0),
        adabelief(0.01, eps=0.0, eps_root=0.0),
        yogi(0.01, eps=0.0, initial_accumulator_value=0.0),
        adan(0.01, eps=0.0, eps_root=0.0),
        lion(0.01),
        adopt(0.01),
    ],
)
def test_the_scale_of_the_gradients_is_not_seen(rule):
    params = jnp.zeros(4)
    np.testing.assert_allclose(
        updates_of(rule, 1000.0 * GRADIENTS, params),
        updates_of(rule, GRADIENTS, params),
        rtol=1e-12,
        atol=1e-16,
    )


@pytest.mark.on_ci("without bias correction", but="True")
@pytest.mark.parametrize("corrected", [True, False])
def test_the_maximum_of_amsgrad_never_falls(corrected):
    _, states = answers(amsgrad(0.1, b2=0.5, bias_correction_nu=corrected), GRADIENTS)
    largest = np.asarray(optax.tree_utils.tree_get(states, "nu_max"))
    assert np.all(np.diff(largest, axis=0) >= 0.0)
    assert np.any(
        np.diff(np.asarray(optax.tree_utils.tree_get(states, "nu")), axis=0) < 0.0
    )


# What is a special case of what: Choi et al., On empirical comparisons of optimizers
# for deep learning (2019), and more.

SAME = {
    "Adam without momentum is RMSProp, corrected": (
        adam(0.1, b1=0.0),
        rmsprop(0.1, decay=0.999, eps_in_sqrt=False, bias_correction=True),
    ),
    "AdamW without decay is Adam": (adamw(0.1, weight_decay=0.0), adam(0.1)),
    "Adam without averages is sign descent": (
        adam(0.1, b1=0.0, b2=0.0, eps=0.0),
        sign_descent(0.1),
    ),
    "Adam with a huge ε is momentum": (
        adam(1e13, eps=1e14),
        optax.chain(optax.ema(0.9), optax.scale(-0.1)),
    ),
    "the heavy ball is the average, at a smaller rate": (
        heavy_ball(0.1),
        ema_momentum(0.1 / (1 - 0.9)),
    ),
    "Lion with equal betas is signum": (
        lion(0.1, b1=0.9, b2=0.9, weight_decay=0.0),
        signum(0.1, momentum=0.9),
    ),
    "Adamax without averages is sign descent": (
        adamax(0.1, b1=0.0, b2=0.0, eps=0.0),
        sign_descent(0.1),
    ),
    "NAdam without momentum is Adam": (nadam(0.1, b1=0.0), adam(0.1, b1=0.0)),
    "NAdam with half the momentum, unscheduled": (
        nadam(0.1, b1=0.8, momentum_schedule="paper", momentum_decay=0.0, eps=0.0),
        optax.chain(nadam(0.1, b1=0.4, eps=0.0), optax.scale(1 / np.sqrt(0.999))),
    ),
    "Adan that does not look ahead is Adam": (
        adan(0.1, b1=0.9, b2=0.0, b3=0.999),
        adam(0.1, eps_root=1e-8),
    ),
    "RAdam that waits is momentum, corrected": (
        radam(0.1, threshold=1e9),
        optax.chain(optax.ema(0.9), optax.scale(-0.1)),
    ),
    "AdaBelief without momentum believes": (
        adabelief(0.1, b1=0.0, b2=0.0, eps=0.5, eps_root=0.25),
        gradient_descent(0.1),
    ),
    "RMSProp's rate, constant, inside or outside its momentum": (
        rmsprop(0.1, momentum=0.9, nesterov=True),
        rmsprop(0.1, momentum=0.9, nesterov=True, rate_in_momentum=False),
    ),
    "RMSProp with momentum is momentum of RMSProp": (
        rmsprop(0.1, momentum=0.9, rate_in_momentum=False),
        optax.chain(rmsprop(1.0), optax.scale(-1.0), heavy_ball(0.1)),
    ),
}


@pytest.mark.on_ci("three more pairs", but="Lion|momentum of RMSProp")
@pytest.mark.thorough(
    "two in three pairs",
    but="AdaBelief|RAdam|Lion|half the momentum|momentum of RMSProp",
)
@pytest.mark.parametrize("name", SAME)
def test_one_rule_is_a_special_case_of_another(name):
    one, other = (updates_of(rule, GRADIENTS) for rule in SAME[name])
    np.testing.assert_allclose(one, other, rtol=2e-12)


def test_yogi_moves_as_far_as_the_square_whatever_it_has():
    ones = jnp.ones((50, 1))
    steps = {}
    for start in (0.0, 16.0):
        _, states = answers(yogi(0.1, initial_accumulator_value=start), ones)
        steps[start] = np.diff(
            np.asarray(optax.tree_utils.tree_get(states, "nu"))[:, 0]
        )
    np.testing.assert_allclose(steps[0.0], 0.001, rtol=1e-10)
    np.testing.assert_allclose(
        steps[16.0], -0.001, rtol=1e-10
    )  # Where Adam's would fall by 0.015.


# Closed forms.


def test_adadelta_first_step_is_in_units_of_epsilon():
    first = updates_of(adadelta(), GRADIENTS)[0]
    np.testing.assert_allclose(
        first,
        -np.sqrt(1e-6) * GRADIENTS[0] / np.sqrt(0.1 * GRADIENTS[0] ** 2 + 1e-6),
        rtol=1e-13,
    )


@pytest.mark.on_ci("the other schedules", but="^paper")
@pytest.mark.parametrize(
    ("schedule", "first"), [("constant", 28 / 19), ("torch", 1.0565), ("paper", 1.3111)]
)
def test_nadam_first_step(schedule, first):
    step = updates_of(nadam(1.0, eps=0.0, momentum_schedule=schedule), GRADIENTS)[0]
    np.testing.assert_allclose(-step * SIGNS, first, rtol=1e-4)


def test_adopt_waits_one_step_and_clips_to_the_fourth_root():
    steps = -updates_of(adopt(1.0, b1=0.0), jnp.array([[1e-3]] + [[1.0]] * 20))[:, 0]
    np.testing.assert_allclose(steps, np.arange(21) ** 0.25, rtol=1e-12)
    unclipped = -updates_of(
        adopt(1.0, b1=0.0, use_clipping=False), jnp.array([[0.0], [1.0]])
    )[1, 0]
    assert unclipped == pytest.approx(1e6)  # g / ε.


def test_rectification_begins_at_the_sixth_step():
    # Liu et al. (2020): with b2 = 0.999 the first five steps are momentum; r_6 =
    # 0.0258, r_t -> 1.
    steps = -updates_of(radam(1.0, b1=0.0, eps=0.0), jnp.full((20_000, 1), 8.0))[:, 0]
    np.testing.assert_allclose(steps[:5], 8.0, rtol=1e-13)
    with mpmath.workdps(30):
        b, t = mpmath.mpf(0.999), 6
        most = 2 / (1 - b) - 1
        length = most - 2 * t * b**t / (1 - b**t)
        r = mpmath.sqrt(
            (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
        )
    assert steps[5] == pytest.approx(float(r), rel=1e-14)
    assert np.all(np.diff(steps[5:]) > -1e-12)
    assert steps[-1] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.on_ci(
    "the length alone; test_rectification_begins_at_the_sixth_step has what is made "
    "of it"
)
@pytest.mark.thorough("the other averages", but=r"^0\.999\]")
@pytest.mark.parametrize("decay", [0.9, 0.999, 0.99999])
def test_effective_length_has_every_digit(decay):
    # The formula, taken as it stands in float64, loses up to five of them.
    counts = np.array([1, 2, 5, 6, 50, 900, 1100, 100_000, 1_000_000])
    found = np.asarray(
        jax.vmap(lambda t: effective_length(decay, t))(jnp.asarray(counts, jnp.int32))
    )
    traced = np.asarray(
        jax.jit(jax.vmap(effective_length, (None, 0)))(
            decay, jnp.asarray(counts, jnp.int32)
        )
    )
    with mpmath.workdps(60):
        b = mpmath.mpf(decay)
        exact = [
            float(2 / (1 - b) - 1 - 2 * int(t) * b ** int(t) / (1 - b ** int(t)))
            for t in counts
        ]
    np.testing.assert_allclose(found, exact, rtol=4e-15)
    np.testing.assert_allclose(traced, exact, rtol=4e-15)


def test_implicit_decay_divides_the_step():
    rate, decay, x = (
        schedules.inverse_time(0.5, 3.0),
        0.25,
        {"w": jnp.array([2.0]), "b": jnp.array([2.0])},
    )
    gradients = jax.tree.map(
        lambda leaf: jnp.linspace(1.0, 2.0, 5)[:, None] * leaf[None], x
    )
    plain = answers(adan(rate), gradients, x)[0]
    found = answers(
        adan(rate, weight_decay=decay, mask={"w": True, "b": False}, proximal=True),
        gradients,
        x,
    )[0]
    rates = np.asarray(rate(np.arange(5)))[:, None]
    np.testing.assert_allclose(
        found["w"], (2.0 + plain["w"]) / (1 + decay * rates) - 2.0, rtol=1e-12
    )
    np.testing.assert_array_equal(found["b"], plain["b"])


def test_a_schedule_stands_inside_the_momentum_or_outside():
    rate, mu, v, inside, outside = schedules.inverse_time(0.5, 3.0), 0.9, 0.0, 0.0, 0.0
    rows = [
        updates_of(rmsprop(rate, momentum=mu, rate_in_momentum=where), GRADIENTS)[:, 0]
        for where in (True, False)
    ]
    for t, g in enumerate(np.asarray(GRADIENTS[:, 0])):
        v = 0.9 * v + 0.1 * g**2
        d, eta = g / np.sqrt(v + 1e-8), float(rate(t))
        inside, outside = mu * inside + eta * d, mu * outside + d
        assert rows[0][t] == pytest.approx(-inside, rel=1e-12)
        assert rows[1][t] == pytest.approx(-eta * outside, rel=1e-12)


VARIANTS = [  # That the verification table does not ask.
    ("rmsprop", {"bias_correction": True, "initial_scale": 0.5}),
    ("rmsprop", {"bias_correction": True, "centered": True, "eps": 0.1}),
    ("rmsprop", {"momentum": 0.5, "rate_in_momentum": False}),
    ("nadam", {"momentum_schedule": "paper", "momentum_decay": 0.1}),
    ("nadamw", {"same_correction": True, "weight_decay": 0.1}),
    ("amsgrad", {"bias_correction_mu": False, "correct_before_max": False}),
    ("yogi", {"bias_correction": False, "initial_mu": 0.5}),
    ("radam", {"b2": 0.75, "threshold": 4.0, "eps_before_correction": True}),
    ("adan", {"weight_decay": 0.1}),
    ("ademamix", {"warmup_steps": 12, "weight_decay": 0.1}),
    ("ademamix", {"warmup_steps": 40, "b1": 0.5, "b3": 0.99}),
    ("mars", {"gamma": 0.5}),
    ("cautious_adamw", {"plus_one": True}),
    ("cautious_adamw", {"cautious_decay": True, "weight_decay": 0.5}),
    ("lars", {"weight_decay": 0.1, "eps": 0.01}),
    ("lars", {"nesterov": True}),
    ("adafactor", {"relative_step": True, "min_dim_size_to_factor": 2}),
    ("adafactor", {"multiply_by_parameter_scale": False}),
    ("adafactor", {"momentum": 0.9, "min_scale": 2.0}),
    ("madgrad", {"eps_in_rate": False}),
    ("dadapt_adamw", {"weight_decay": 0.1, "initial_distance": 0.1}),
    ("mechanic", {"weight_decay": 0.1, "num_betas": 2}),
    ("optimistic_adam", {"nesterov": True}),
]


@pytest.mark.on_ci("six more variants", but=r"arguments(7|13)\]")
@pytest.mark.thorough("two in three variants", but=r"arguments(1|4|7|9|13|16|19|21)\]")
@pytest.mark.parametrize(("name", "arguments"), VARIANTS)
def test_variant_is_its_formula(name, arguments):
    problem = PROBLEMS["random_pytree"]
    found = walk(UPDATE_RULES[name](0.05, **arguments), problem, num_steps=20)
    exact = walk_exactly(
        FORMULAS[name].iterates, problem, num_steps=20, learning_rate=0.05, **arguments
    )
    assert distance(found, exact, problem).largest <= 64 * np.finfo("float64").eps


# Faults of other implementations, met here and not shared. Where one is mended, its
# test says so by failing.


@pytest.mark.on_ci(
    "a fault of optax, and that it is named; "
    "test_optax_yogi_moves_where_there_is_no_gradient has another fault"
)
def test_optax_adan_hardly_looks_ahead():
    found = verify_rule(optax.adan, "adan", problems=[PROBLEMS["quadratic"]])
    assert not found.same
    assert "changes are multiplied by 1 - b2" in found.cause
    theirs, ours = (
        rule(0.1, b2=0.5) for rule in (optax.adan, adan)
    )  # Where 1 - b2 is b2 they agree.
    params = jnp.zeros(4)
    np.testing.assert_allclose(
        updates_of(ours, GRADIENTS, params),
        updates_of(theirs, GRADIENTS, params),
        rtol=1e-12,
    )


def test_optax_yogi_moves_where_there_is_no_gradient():
    still = jnp.zeros((10, 1))
    theirs = updates_of(optax.yogi(1.0), still)
    assert -theirs[0, 0] == pytest.approx(2.8e-4, rel=0.02)
    np.testing.assert_array_equal(updates_of(yogi(1.0), still), 0.0)
    np.testing.assert_allclose(
        updates_of(yogi(1.0, initial_mu=1e-6), still), theirs, rtol=1e-12
    )


@pytest.mark.on_ci("four hundred steps; nothing shorter shows this")
def test_a_variance_of_gradients_that_hardly_change_is_no_nan():
    gradients = (
        jnp.float32(1.0)
        + jnp.float32(1e-5) * jnp.sin(jnp.arange(400, dtype=jnp.float32))[:, None]
    )
    arguments = {"centered": True, "eps": 1e-12, "decay": 0.9}
    assert np.any(
        np.isnan(
            updates_of(optax.rmsprop(1.0, eps_in_sqrt=False, **arguments), gradients)
        )
    )
    ours = updates_of(rmsprop(1.0, eps_in_sqrt=False, **arguments), gradients)
    exact = updates_of(
        rmsprop(1.0, eps_in_sqrt=False, **arguments), gradients.astype("float64")
    )
    np.testing.assert_allclose(ours[-100:], exact[-100:], rtol=0.05)


# Bad input.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: nadam(0.1, momentum_schedule="cosine"),
            "must be one of constant, torch, paper; got 'cosine'",
        ),
        (
            lambda: nadam(0.1, momentum_decay=-1.0),
            "momentum_decay must be a finite number, at least 0; got",
        ),
        (
            lambda: radam(0.1, threshold=3.0),
            "threshold must be at least 4, .* got threshold=3.0",
        ),
        (lambda: rmsprop(0.1, nesterov=True), "got momentum=None. Pass a number"),
        (
            lambda: rmsprop(0.1, momentum=1.0),
            "momentum must be a finite number, at least 0 and below 1; got",
        ),
        (
            lambda: adan(0.1, b3=1.0),
            "b3 must be a finite number, at least 0 and below 1; got b3=1.0",
        ),
        (
            lambda: adadelta(rho=1.0),
            "rho must be a finite number, at least 0 and below 1; got rho=1.0",
        ),
        (
            lambda: yogi(0.1, initial_mu=-1.0),
            "initial_mu must be a finite number, at least 0; got initial_mu=-1.0",
        ),
        (
            lambda: lion(0.1, weight_decay=-1.0),
            "weight_decay must be a finite number, at least 0; got",
        ),
    ],
)
def test_bad_argument_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("rule", [lion(0.1), adan(0.1)])
def test_decay_without_weights_raises(rule):
    with pytest.raises(ValueError, match=r"call update\(grads, state, params\)"):
        rule.update(jnp.ones(2), rule.init(jnp.ones(2)))


@pytest.mark.on_ci("params of several leaves", but="quadratic")
@pytest.mark.parametrize("problem", ["quadratic", "random_pytree"])
def test_amsgrad_of_the_paper_is_its_formula(problem):
    arguments = {"b2": 0.9, "bias_correction_mu": False, "bias_correction_nu": False}
    found = walk(amsgrad(0.05, **arguments), PROBLEMS[problem])
    exact = walk_exactly(
        FORMULAS["amsgrad"].iterates, PROBLEMS[problem], learning_rate=0.05, **arguments
    )
    assert distance(found, exact, PROBLEMS[problem]).largest <= 1e-14


@pytest.mark.on_ci("the other schedules", but="paper")
@pytest.mark.parametrize("schedule", ["torch", "paper", "constant"])
def test_nadam_goes_on_where_its_count_has_come_to_its_largest(schedule):
    rule, x = nadam(0.1, momentum_schedule=schedule), jnp.ones(1)
    adam_state, *others = rule.init(x)
    settled = {"mu": jnp.ones(1), "nu": jnp.ones(1), "product": jnp.zeros((), float)}
    state = (adam_state._replace(count=jnp.int32(2**31 - 2), **settled), *others)
    for _ in range(3):
        updates, state = rule.update(jnp.ones(1), state, x)
    np.testing.assert_allclose(updates, [-0.1], rtol=1e-3)


def test_rmsprop_with_momentum_reports_its_rate():
    rule, x = rmsprop(0.01, momentum=0.9), jnp.ones(2)
    state = rule.update(x, rule.init(x), x)[1]
    np.testing.assert_allclose(rule_info(state).learning_rate, 0.01)


def test_ademamix_without_a_slow_average_warms_up():
    rule, x = ademamix(0.1, b3=0.0, warmup_steps=10), jnp.ones(2)
    state = rule.init(x)
    for _ in range(3):
        updates, state = rule.update(jnp.array([1.0, -2.0]), state, x)
        assert np.all(np.isfinite(updates))
