"""Laws of a training: closed forms on a quadratic, the same bits in chunks, what their
info says.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import descent, samplers, update_rules
from research.types import Batch

COMPILE_QUICKLY = True  # tests/conftest.py

EIGENVALUES = jnp.array([0.5, 1.0, 4.0])


def quadratic(params, batch):
    del batch
    return 0.5 * jnp.sum(EIGENVALUES * params**2)


def least_squares(params, batch):
    return 0.5 * jnp.mean((batch.x @ params - batch.y) ** 2)


# Their rate is what they find.
ADAPTIVE = {
    *("polyak_step", "barzilai_borwein", "adgd", "dog", "prodigy"),
    *("dowg", "cocob", "dadapt_adamw", "momo", "momo_adam"),
    *("backtracking_descent", "nonlinear_conjugate_gradient", "bfgs", "lbfgs"),
    *("newton", "trust_region_newton", "natural_gradient"),
}
CONSTANT = {
    name: make
    for name, make in update_rules.UPDATE_RULES.items()
    if name not in ADAPTIVE
}


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(20, 3))
    return Batch(
        jnp.array(x), jnp.array(x @ [1.0, -2.0, 0.5] + 0.1 * generator.normal(size=20))
    )


def train(objective, rule, dataset, sampler, params, epochs, **keywords):
    init, step = descent.build(objective, rule, dataset)
    return descent.run(
        step,
        init(params),
        sampler,
        jax.random.key(1),
        epochs,
        **keywords,
    )


@pytest.mark.on_ci("the other rates", but=r"0\.3\]")
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.49])
def test_descent_contracts_each_eigendirection_by_one_minus_rate_times_eigenvalue(
    rate,
):
    # x_{t+1} = x_t - η λ x_t, so x_t = (1 - η λ)^t x_0.
    state, _ = train(
        quadratic,
        optax.sgd(rate),
        None,
        samplers.full_batch(1),
        jnp.ones(3),
        jnp.arange(30),
    )
    np.testing.assert_allclose(state.params, (1 - rate * EIGENVALUES) ** 30, rtol=1e-13)


@pytest.mark.on_ci(
    "2000 steps at two rates; "
    "test_descent_contracts_each_eigendirection_by_one_minus_rate_times_eigenvalue has "
    "the factor of a step"
)
def test_descent_diverges_just_above_two_over_the_largest_eigenvalue_not_just_below():
    def norm_after(rate):
        state, _ = train(
            quadratic,
            optax.sgd(rate),
            None,
            samplers.full_batch(1),
            jnp.ones(3),
            jnp.arange(2000),
        )
        return float(jnp.linalg.norm(state.params))

    assert norm_after(0.5 * 1.01) > 1e6
    assert norm_after(0.5 * 0.99) < 1e-6


@pytest.mark.on_ci("mini-batches by hand; nothing shorter shows this")
@pytest.mark.thorough("the other samplers", but="sampler1")
@pytest.mark.parametrize(
    "sampler",
    [samplers.full_batch(20), samplers.minibatch(20, 6), samplers.stochastic(20)],
)
def test_run_equals_the_plain_loop(data, sampler):
    rule = optax.sgd(0.05, momentum=0.9)
    state, info = train(
        least_squares,
        rule,
        data,
        sampler,
        jnp.zeros(3),
        jnp.arange(3),
        observe=lambda state, info: info,
    )
    params, rule_state, losses = jnp.zeros(3), rule.init(jnp.zeros(3)), []
    for epoch in range(3):
        order = sampler.indices(jax.random.fold_in(jax.random.key(1), epoch))
        for i in range(sampler.num_batches):
            batch = data if order is None else Batch(data.x[order[i]], data.y[order[i]])
            loss, grads = jax.value_and_grad(least_squares)(params, batch)
            updates, rule_state = rule.update(grads, rule_state, params)
            params, losses = params + updates, losses + [loss]
    np.testing.assert_allclose(state.params, params, rtol=1e-13)
    np.testing.assert_allclose(info.steps.loss.ravel(), losses, rtol=1e-12)
    np.testing.assert_allclose(
        info.loss, np.reshape(losses, (3, -1)).mean(axis=1), rtol=1e-12
    )


@pytest.mark.on_ci(
    "chunks of four lengths; test_chunk_length_leaves_the_bits_alone "
    "(bits/test_bit_contract.py) has chunks of a sweep"
)
@pytest.mark.thorough("mini-batches", but="sampler0")
@pytest.mark.parametrize(
    "sampler", [samplers.full_batch(20), samplers.minibatch(20, 6)]
)
def test_a_run_in_chunks_has_the_bits_of_the_run_at_once(data, sampler):
    rule = optax.adam(0.05)
    init, step = descent.build(least_squares, rule, data)

    @jax.jit
    def advance(state, epochs):
        evaluate = lambda params: least_squares(params, data)
        return descent.run(
            step, state, sampler, jax.random.key(1), epochs, evaluate=evaluate
        )

    whole, info = advance(init(jnp.zeros(3)), jnp.arange(12))
    # Not chunks of one epoch: XLA unrolls a loop of one trip, and on jax 0.12 a full
    # batch then has other last bits.
    for length in (2, 3, 4, 6):
        state, parts = init(jnp.zeros(3)), []
        for first in range(0, 12, length):
            state, part = advance(state, jnp.arange(first, first + length))
            parts.append(part)
        joined = jax.tree.map(lambda *a: np.concatenate(a), *parts)
        jax.tree.map(np.testing.assert_array_equal, (whole, info), (state, joined))


@pytest.mark.on_ci("many chunk lengths; nothing shorter shows this")
def test_evaluations_stand_at_their_points_and_nowhere_else(data):
    sampler = samplers.stochastic(20)
    evaluate = lambda params: least_squares(params, data)
    rule = optax.sgd(0.02)
    _, info = train(
        least_squares,
        rule,
        data,
        sampler,
        jnp.zeros(3),
        jnp.arange(3),
        evaluate=evaluate,
    )
    points = descent.evaluation_points(20)
    assert points == (1, 2, 4, 6, 8, 13, 20)
    params, seen = jnp.zeros(3), []
    for i in np.array(sampler.indices(jax.random.fold_in(jax.random.key(1), 0)))[:, 0]:
        params = params - 0.02 * jax.grad(least_squares)(
            params, Batch(data.x[i : i + 1], data.y[i : i + 1])
        )
        seen.append(evaluate(params))
    np.testing.assert_allclose(
        info.evaluations[0], np.array(seen)[np.array(points) - 1], rtol=1e-12
    )
    assert np.isnan(info.evaluations[1:, :-1]).all()
    assert np.isfinite(info.evaluations[1:, -1]).all()


@pytest.mark.thorough(
    "test_evaluations_stand_at_their_points_and_nowhere_else has the trajectory by hand"
)
def test_evaluating_leaves_the_trajectory_alone(data):
    evaluate = lambda params: least_squares(params, data)
    arguments = (
        least_squares,
        optax.sgd(0.02),
        data,
        samplers.stochastic(20),
        jnp.zeros(3),
        jnp.arange(2),
    )
    with_it, without = train(*arguments, evaluate=evaluate)[0], train(*arguments)[0]
    np.testing.assert_allclose(with_it.params, without.params, rtol=1e-14)


@pytest.mark.on_ci(
    "a loop by hand; "
    "test_first_bad_step_is_where_the_loss_is_infinite_though_all_else_is_finite is "
    "shorter"
)
def test_first_bad_step_is_where_the_loop_first_overflows(data):
    rule = optax.sgd(1e60)
    _, info = train(
        least_squares,
        rule,
        data,
        samplers.minibatch(20, 5),
        jnp.zeros(3),
        jnp.arange(2),
    )
    params, bad = jnp.zeros(3), None
    for t, rows in enumerate(
        samplers.minibatch(20, 5).indices(jax.random.fold_in(jax.random.key(1), 0))
    ):
        loss, grads = jax.value_and_grad(least_squares)(
            params, Batch(data.x[rows], data.y[rows])
        )
        params = params - 1e60 * grads
        if bad is None and not (
            np.isfinite(loss) and np.isfinite(jnp.linalg.norm(1e60 * grads))
        ):
            bad = t
    assert info.first_bad_step[0] == bad
    assert info.first_bad_step[1] == 0


def test_first_bad_step_is_where_the_loss_is_infinite_though_all_else_is_finite():
    """The slope is 1 everywhere, and the loss is infinite below -0.25. The steps start
    at 0, -0.1, -0.2, and then at -0.3.
    """
    wall = lambda x, batch: x + jnp.where(x < -0.25, jnp.inf, 0.0)
    sampler = samplers.full_batch(1)._replace(num_batches=6)
    state, info = train(
        wall, optax.sgd(0.1), None, sampler, jnp.array(0.0), jnp.arange(2)
    )
    np.testing.assert_allclose(state.params, -1.2, rtol=1e-14)
    np.testing.assert_allclose(info.update_norm, 0.1, rtol=1e-14)
    np.testing.assert_array_equal(info.first_bad_step, [3, 0])


@pytest.mark.thorough("test_data_of_numpy_and_norms_of_float16 has a good run")
def test_a_good_run_has_no_bad_step(data):
    _, info = train(
        least_squares,
        optax.sgd(0.01),
        data,
        samplers.stochastic(20),
        jnp.zeros(3),
        jnp.arange(2),
    )
    assert (np.array(info.first_bad_step) == -1).all()


def test_info_holds_root_mean_square_norms_and_the_rules_own_rate(data):
    _, info = train(
        least_squares,
        update_rules.gradient_descent(0.05),
        data,
        samplers.minibatch(20, 5),
        jnp.zeros(3),
        jnp.arange(1),
        observe=lambda state, info: info,
    )
    np.testing.assert_allclose(info.update_norm, 0.05 * info.gradient_norm, rtol=1e-14)
    np.testing.assert_allclose(
        info.gradient_norm[0],
        np.sqrt(np.mean(np.square(info.steps.gradient_norm[0]))),
        rtol=1e-14,
    )
    np.testing.assert_array_equal(info.learning_rate, [0.05])


def test_info_holds_the_rate_of_the_last_step_of_each_epoch(data):
    _, info = train(
        least_squares,
        update_rules.gradient_descent(lambda t: 0.05 / (1 + t)),
        data,
        samplers.minibatch(20, 5),
        jnp.zeros(3),
        jnp.arange(2),
    )
    np.testing.assert_allclose(info.learning_rate, [0.05 / 4, 0.05 / 8], rtol=1e-14)


RATES = {
    **{name: (make(0.25), 0.25) for name, make in CONSTANT.items()},
    "injected": (optax.inject_hyperparams(optax.sgd)(0.25), 0.25),
    "injected, ours": (optax.inject_hyperparams(CONSTANT["adam"])(0.25), 0.25),
    "a plain rule of optax": (optax.sgd(0.25), np.nan),
    "groups of two rates": (
        update_rules.by_group(
            {"a": update_rules.adam(0.5), "b": update_rules.adam(0.25)},
            {"a": "a", "b": "b"},
        ),
        np.nan,
    ),
}


@pytest.mark.on_ci(
    "most rules, whose state holds the rate in the same way",
    but="^(gradient_descent|lookahead|injected|a plain|groups)",
)
@pytest.mark.thorough("two thirds of the rules", but="^([g-n]|a plain)")
@pytest.mark.parametrize(("rule", "rate"), RATES.values(), ids=RATES)
def test_a_constant_rate_is_read_from_the_rule(rule, rate):
    """Also where a parameter has that name."""
    objective = lambda x, batch: x["a"] ** 2 + jnp.sum(x["b"]["learning_rate"] ** 2)
    init, step = descent.build(objective, rule, None)
    first = init({"a": jnp.array(1.0), "b": {"learning_rate": jnp.array(2.0)}})
    _, info = step(first, descent.BatchIndices(None))
    np.testing.assert_array_equal(info.learning_rate, rate)


@pytest.mark.thorough("test_run_equals_the_plain_loop observes the info of each step")
def test_what_is_observed_is_kept_for_each_step(data):
    """As a hand-written loop has it, and without a change of any bit of the rest."""
    sampler, rule = samplers.minibatch(20, 6), update_rules.heavy_ball(0.05)
    arguments = least_squares, rule, data, sampler, jnp.zeros(3), jnp.arange(4)
    observe = lambda state, info: {"at": state.params, "loss": info.loss}
    state, info = train(*arguments, observe=observe)
    assert info.steps["at"].shape == (4, 3, 3)
    np.testing.assert_array_equal(info.steps["at"][-1, -1], state.params)
    init, step = descent.build(least_squares, rule, data)
    by_hand, step = init(jnp.zeros(3)), jax.jit(step)
    for epoch in range(4):
        for i, indices in enumerate(
            sampler.indices(jax.random.fold_in(jax.random.key(1), epoch))
        ):
            by_hand, one = step(by_hand, descent.BatchIndices(indices))
            at, loss = info.steps["at"][epoch, i], info.steps["loss"][epoch, i]
            np.testing.assert_allclose(at, by_hand.params, rtol=1e-13)
            np.testing.assert_allclose(loss, one.loss, rtol=1e-13)
    bare, without = train(*arguments)
    assert without.steps is None
    np.testing.assert_array_equal(bare.params, state.params)
    np.testing.assert_array_equal(without.loss, info.loss)


@pytest.mark.on_ci("sixteen noisy steps; nothing shorter shows this")
def test_a_noisy_objective_gets_a_key_of_its_own_each_step(data):
    def noisy(params, batch):
        return (
            least_squares(params, batch)
            + 0 * params[0]
            + jax.random.normal(batch.key, (), params.dtype)
        )

    arguments = (
        noisy,
        optax.sgd(0.0),
        data,
        samplers.minibatch(20, 5),
        jnp.zeros(3),
        jnp.arange(4),
    )
    _, info = train(*arguments, noisy=True, observe=lambda state, info: info)
    noise = info.steps.loss.ravel()
    assert len(set(np.array(noise).tolist())) == 16


@pytest.mark.on_ci("the derivative of a whole run; nothing shorter shows this")
def test_a_run_can_be_differentiated_through(data):
    def last_loss(rate):
        state, _ = train(
            quadratic,
            optax.sgd(rate),
            None,
            samplers.full_batch(1),
            jnp.ones(3),
            jnp.arange(5),
        )
        return quadratic(state.params, None)

    # f = Σ λ (1 - ηλ)^{10} / 2, so df/dη = -5 Σ λ² (1 - ηλ)^9.
    expected = -5 * jnp.sum(EIGENVALUES**2 * (1 - 0.1 * EIGENVALUES) ** 9)
    np.testing.assert_allclose(jax.grad(last_loss)(0.1), expected, rtol=1e-12)


def test_rules_that_ask_for_more_than_the_gradient_get_it(data):
    def update(updates, state, params=None, *, value, grad, value_fn, indices, **extra):
        del extra, state
        assert indices.shape == (5,)
        again, full = value_fn(params), value_fn(params, indices=None)
        return jax.tree.map(jnp.zeros_like, updates), (
            value - again,
            full,
            grad - updates,
        )

    rule = optax.GradientTransformationExtraArgs(
        lambda params: (jnp.zeros(()), jnp.zeros(()), params), update
    )
    state, _ = train(
        least_squares, rule, data, samplers.minibatch(20, 5), jnp.ones(3), jnp.arange(1)
    )
    difference, full, gradient_difference = state.rule
    assert difference == 0
    assert not gradient_difference.any()
    np.testing.assert_allclose(full, least_squares(jnp.ones(3), data), rtol=1e-15)


@pytest.mark.parametrize("epochs", [3, jnp.arange(4.0), jnp.zeros((2, 2), int)])
def test_epochs_of_the_wrong_kind_are_named(data, epochs):
    with pytest.raises(TypeError, match=r"epochs must be integers of shape \(e,\)"):
        train(
            least_squares,
            optax.sgd(0.1),
            data,
            samplers.full_batch(20),
            jnp.zeros(3),
            epochs,
        )


def test_data_of_numpy_and_norms_of_float16():
    batch = Batch(np.ones((4, 2), np.float16), np.zeros(4, np.float16))
    objective = lambda x, batch: 300 * jnp.mean(batch.x @ x)
    init, step = descent.build(objective, optax.sgd(1e-3), batch)
    x = jnp.zeros(2, jnp.float16)
    sampler = samplers.minibatch(4, 2)
    _, info = descent.run(
        step,
        init(x),
        sampler,
        jax.random.key(0),
        jnp.arange(1),
    )
    np.testing.assert_allclose(info.gradient_norm, 300 * np.sqrt(2), rtol=1e-3)
    assert int(info.first_bad_step[0]) == -1


@pytest.mark.on_ci("two of three dtypes", but="^(?!.*(bool|complex))")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda x: x, r"an array of shape \(3,\)\. Return its mean or sum"),
        (lambda x: jnp.sum(x)[None], r"an array of shape \(1,\)"),
        (lambda x: None, r"None\. Add a return statement"),
        (lambda x: 1, r"1\. Compute it from params"),
        (lambda x: 1.0, r"1\.0\. Compute it from params"),
        (lambda x: "a", "'a'"),
        (lambda x: jnp.sum(x) > 0, "a number of dtype bool"),
        (lambda x: jnp.sum(x).astype(int), "a number of dtype int"),
        (lambda x: 1j * jnp.sum(x), "a number of dtype complex"),
    ],
)
def test_an_objective_that_returns_no_number_is_named(value, message):
    objective, rule, x = lambda x, batch: value(x), optax.sgd(0.1), jnp.ones(3)
    init, step = descent.build(objective, rule, None)
    for call in (
        lambda: step(init(x), descent.BatchIndices(None)),
        lambda: descent.minimise(value, rule, x),
        lambda: descent.train(
            objective,
            rule,
            None,
            samplers.full_batch(1),
            num_epochs=1,
            params=x,
            key=jax.random.key(0),
        ),
    ):
        with pytest.raises(
            TypeError,
            match=f"objective must return one real .*; it returns {message}",
        ):
            call()


def test_complex_params_are_refused_also_by_a_step_whose_init_never_saw_them():
    """The gradient of jax is the conjugate of the direction of ascent, so that a step
    along it would be a wrong one.
    """
    params, rule = jnp.array(1.0 + 1.0j), optax.sgd(0.1)
    step = descent.build(lambda z, batch: jnp.abs(z) ** 2, rule, None).step
    with pytest.raises(TypeError, match=r"complex.*conjugate of jax\.grad"):
        step(descent.State(params, rule.init(params)), descent.BatchIndices(None))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            lambda q: jnp.array(3),
            r"evaluate is int\d+\[\], not a floating scalar\. Convert",
        ),
        (lambda q: {"all": q.sum() > 0}, r"evaluate\['all'\] is bool\[\], not"),
        (lambda q: "low", "evaluate is 'low', not a floating scalar"),
        (lambda q: q, r"evaluate has the shape \(3,\), but must have the shape \(\)"),
    ],
)
def test_results_of_evaluate_that_are_no_floating_scalars_are_named(
    data, result, message
):
    sampler = samplers.minibatch(20, 2)
    arguments = (least_squares, optax.sgd(0.1), data, sampler, jnp.ones(3))
    with pytest.raises(TypeError, match=message):
        train(*arguments, jnp.arange(2), evaluate=result)


def test_evaluate_may_return_a_number_of_python(data):
    sampler = samplers.minibatch(20, 2)
    arguments = (least_squares, optax.sgd(0.1), data, sampler, jnp.ones(3))
    _, info = train(*arguments, jnp.arange(2), evaluate=lambda q: 1.5)
    found = np.asarray(info.evaluations)
    assert found[:, -1].tolist() == [1.5, 1.5]
    assert np.isnan(found[1, :-1]).all()
