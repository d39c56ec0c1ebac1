"""SVRG and SAGA on least squares with single examples: unbiased, exact at the ends, and
linear where SGD stops.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import samplers
from research.descent import build, run
from research.schedules import inverse_time
from research.types import Batch
from research.update_rules import add_decayed_weights, gradient_descent
from research.update_rules._variance_reduction import saga, svrg

COMPILE_QUICKLY = True  # tests/conftest.py

N = 12
RNG = np.random.default_rng(0)
INPUTS = RNG.standard_normal((N, 3))
TARGETS = RNG.standard_normal(N)
SMOOTHNESS = float(
    np.max(np.sum(INPUTS**2, axis=1))
)  # The largest of the examples' L_i = |x_i|².
OPTIMUM = np.linalg.lstsq(INPUTS, TARGETS, rcond=None)[0]
START = jnp.array([1.0, -2.0, 0.5])


def objective(params, batch):
    return 0.5 * jnp.mean((batch.x @ params - batch.y) ** 2)


def value_fn(params, indices=None):
    drawn = slice(None) if indices is None else indices
    return objective(
        params, Batch(jnp.asarray(INPUTS)[drawn], jnp.asarray(TARGETS)[drawn])
    )


def example_gradient(x, i):
    return INPUTS[i] * (INPUTS[i] @ x - TARGETS[i])


def full_gradient(x):
    return INPUTS.T @ (INPUTS @ x - TARGETS) / N


def walk(rule, draws, x=START):
    """Iterates and states of a rule that is told which examples to draw."""

    def step(carry, drawn):
        x, state = carry
        gradient = jax.grad(value_fn)(x, drawn)
        updates, state = rule.update(
            gradient, state, x, value_fn=value_fn, indices=drawn
        )
        x = x + updates
        return (x, state), (x, state)

    return jax.jit(lambda x: jax.lax.scan(step, (x, rule.init(x)), draws)[1])(x)


def test_svrg_equals_its_paper():
    draws, rate, period, x = (
        RNG.integers(0, N, (40, 1)),
        0.5 / SMOOTHNESS,
        7,
        np.asarray(START),
    )
    expected = []
    for t, (i,) in enumerate(draws):  # Figure 1, with option I.
        if t % period == 0:
            snapshot, mean = x, full_gradient(x)
        x = x - rate * (example_gradient(x, i) - example_gradient(snapshot, i) + mean)
        expected.append(x)
    np.testing.assert_allclose(
        walk(svrg(rate, period), jnp.asarray(draws))[0],
        expected,
        rtol=1e-13,
        atol=1e-13,
    )


@pytest.mark.on_ci(
    "single examples; test_saga_of_batches_equals_its_formula has batches of four"
)
def test_saga_equals_its_paper():
    draws, rate, x = (
        RNG.integers(0, N, (40, 1)),
        1 / (3 * SMOOTHNESS),
        np.asarray(START),
    )
    table, expected = np.array([example_gradient(x, i) for i in range(N)]), []
    for (j,) in draws:  # Equation (1).
        new = example_gradient(x, j)
        x = x - rate * (new - table[j] + np.mean(table, axis=0))
        table[j] = new
        expected.append(x)
    iterates, (state, _) = walk(saga(rate, N), jnp.asarray(draws))
    np.testing.assert_allclose(iterates, expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(state.table[-1], table, rtol=1e-13, atol=1e-13)


def test_saga_of_batches_equals_its_formula():
    # With repeated examples, as drawing with replacement gives them: twice in the
    # batch's mean, once in the table.
    draws, rate, x = (
        RNG.integers(0, N, (30, 4)),
        1 / (3 * SMOOTHNESS),
        np.asarray(START),
    )
    assert any(len(set(drawn)) < 4 for drawn in draws.tolist())
    table, expected = np.array([example_gradient(x, i) for i in range(N)]), []
    for drawn in draws:
        new = np.array([example_gradient(x, j) for j in drawn])
        x = x - rate * (np.mean(new - table[drawn], axis=0) + np.mean(table, axis=0))
        table[drawn] = new
        expected.append(x)
    np.testing.assert_allclose(
        walk(saga(rate, N), jnp.asarray(draws))[0], expected, rtol=1e-13, atol=1e-13
    )


@pytest.mark.thorough(
    "500 steps; test_saga_of_batches_equals_its_formula has this mean"
)
@pytest.mark.parametrize("size", [1, 3])
def test_saga_keeps_the_mean_of_its_table(size):
    draws = jnp.asarray(RNG.integers(0, N, (500, size)))
    state = walk(saga(1 / (3 * SMOOTHNESS), N), draws)[1][0]
    np.testing.assert_allclose(state.mean, np.mean(state.table, axis=1), atol=1e-14)


@pytest.mark.thorough(
    "what follows from the formulas; test_svrg_equals_its_paper has SVRG's"
)
@pytest.mark.parametrize("rule", [svrg(0.1, 50), saga(0.1, N)], ids=["svrg", "saga"])
def test_mean_over_all_examples_is_the_step_of_the_full_gradient(rule):
    """From a state with a history, where snapshot and table are not of the present
    params.
    """
    iterates, states = walk(rule, jnp.asarray(RNG.integers(0, N, (15, 1))))
    x, state = iterates[-1], jax.tree.map(lambda s: s[-1], states)

    def update(i):
        return rule.update(
            jax.grad(value_fn)(x, i), state, x, value_fn=value_fn, indices=i
        )[0]

    updates = jax.jit(jax.vmap(update))(jnp.arange(N)[:, None])
    assert np.max(np.std(updates, axis=0)) > 1e-3  # No example alone gives it.
    np.testing.assert_allclose(
        np.mean(updates, axis=0),
        -0.1 * full_gradient(np.asarray(x)),
        rtol=1e-13,
        atol=1e-15,
    )


@pytest.mark.on_ci("what follows from the formula; test_svrg_equals_its_paper has it")
def test_svrg_of_period_one_is_gradient_descent():
    draws = jnp.asarray(RNG.integers(0, N, (40, 1)))
    found = walk(svrg(0.2, 1), draws)[0]
    whole = walk(gradient_descent_on_the_whole_set(0.2), draws)[0]
    np.testing.assert_allclose(found, whole, rtol=1e-14, atol=1e-15)


def gradient_descent_on_the_whole_set(rate):
    def update(updates, state, params=None, *, value_fn, **extra):
        del updates, extra
        return gradient_descent(rate).update(jax.grad(value_fn)(params), state)

    return optax.GradientTransformationExtraArgs(gradient_descent(rate).init, update)


@pytest.mark.on_ci("two descents; nothing shorter shows this")
@pytest.mark.thorough("saga", but="svrg")
@pytest.mark.parametrize("rule", [svrg(0.2, 5), saga(0.2, N)], ids=["svrg", "saga"])
def test_whole_set_in_a_batch_is_gradient_descent(rule):
    dataset = Batch(jnp.asarray(INPUTS), jnp.asarray(TARGETS))
    init, step = build(objective, rule, dataset)
    state, info = run(
        step,
        init(START),
        samplers.full_batch(N),
        jax.random.key(0),
        jnp.arange(20),
    )
    plain = build(objective, gradient_descent(0.2), dataset)
    expected, _ = run(
        plain.step,
        plain.init(START),
        samplers.full_batch(N),
        jax.random.key(0),
        jnp.arange(20),
    )
    np.testing.assert_allclose(state.params, expected.params, rtol=1e-13)
    assert np.all(np.diff(info.loss) < 0)


@pytest.mark.thorough(
    "600 steps; test_svrg_equals_its_paper and test_saga_equals_its_paper have the "
    "formulas"
)
@pytest.mark.parametrize(
    "make",
    [lambda rate: svrg(rate, 2 * N), lambda rate: saga(rate, N)],
    ids=["svrg", "saga"],
)
def test_corrected_descent_converges_linearly_where_stochastic_descent_stops(make):
    dataset, rate = (
        Batch(jnp.asarray(INPUTS), jnp.asarray(TARGETS)),
        1 / (3 * SMOOTHNESS),
    )

    def errors(rule):
        init, step = build(objective, rule, dataset)
        _, info = run(
            step,
            init(START),
            samplers.stochastic(N),
            jax.random.key(1),
            jnp.arange(600),
            evaluate=lambda x: jnp.sum((x - OPTIMUM) ** 2),
        )
        return info.evaluations[:, -1]

    stopped, found = errors(gradient_descent(rate)), errors(make(rate))
    assert np.min(stopped) > 1e-6
    assert np.max(found[-100:]) < 1e-28
    # A linear rate needs twice as long for twice the digits, a rate of 1/k their
    # square.
    eight, sixteen = (int(np.argmax(found < tolerance)) for tolerance in (1e-8, 1e-16))
    assert 0 < eight < sixteen < 2.5 * eight


@pytest.mark.on_ci("four programs; nothing shorter shows this")
@pytest.mark.thorough("saga", but="svrg")
@pytest.mark.parametrize(
    "make",
    [lambda rate: svrg(rate, 3), lambda rate: saga(rate, N)],
    ids=["svrg", "saga"],
)
def test_rate_may_be_traced_vmapped_and_scheduled(make):
    draws = jnp.asarray(RNG.integers(0, N, (8, 1)))
    rates = jnp.array([0.05, 0.1])
    together = jax.vmap(lambda rate: walk(make(rate), draws)[0])(rates)
    np.testing.assert_allclose(
        together, [walk(make(float(rate)), draws)[0] for rate in rates], rtol=1e-13
    )
    states = walk(make(inverse_time(0.1, 4.0)), draws)[1]
    shown = optax.tree_utils.tree_get(states, "learning_rate")
    np.testing.assert_allclose(shown, inverse_time(0.1, 4.0)(jnp.arange(8)), rtol=1e-15)


@pytest.mark.on_ci("steps in bfloat16; nothing shorter shows this")
@pytest.mark.thorough("the other dtype", but="bfloat16")
@pytest.mark.parametrize(
    "make",
    [lambda rate: svrg(rate, 3), lambda rate: saga(rate, 4)],
    ids=["svrg", "saga"],
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_dtypes_and_structure_are_kept(make, dtype):
    x = {
        "w": jnp.ones((2, 3), dtype),
        "s": jnp.ones((), dtype),
        "empty": jnp.ones((0,), dtype),
    }

    def f(x, indices=None):
        drawn = jnp.arange(4) if indices is None else indices
        return jnp.mean(drawn) * sum(
            jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(x)
        )

    def step(state, i):
        updates, state = rule.update(jax.grad(f)(x, i), state, x, value_fn=f, indices=i)
        return state, updates

    rule = make(jnp.float32(0.1))
    _, updates = jax.lax.scan(step, rule.init(x), jnp.array([[0], [1]]))
    assert jax.tree.map(lambda u: (u.shape[1:], u.dtype), updates) == jax.tree.map(
        lambda a: (a.shape, a.dtype), x
    )


def test_decay_before_the_correction_is_not_corrected_away():
    i = jnp.array([3])
    chained = optax.chain(add_decayed_weights(0.5), svrg(0.1, 5))
    gradient = jax.grad(value_fn)(START, i)
    updates, _ = chained.update(
        gradient, chained.init(START), START, value_fn=value_fn, indices=i
    )
    expected = -0.1 * (full_gradient(np.asarray(START)) + 0.5 * np.asarray(START))
    np.testing.assert_allclose(updates, expected, rtol=1e-13)


def test_index_outside_the_table_shows():
    i = jnp.array([N])
    rule = saga(0.1, N - 2)
    step = lambda drawn: rule.update(
        jnp.ones(3), rule.init(START), START, value_fn=value_fn, indices=drawn
    )[0]
    for outside in (i - 1, jnp.array([-1])):
        assert np.all(np.isnan(jax.jit(step)(outside)))
    with pytest.raises(
        ValueError,
        match=rf"saga\(num_examples={N - 2}\) keeps no gradient of example {N - 1}",
    ):
        step(i - 1)


def test_bad_arguments_raise():
    for bad in (0, -1, 2.5, None, True):
        with pytest.raises(
            (ValueError, TypeError),
            match="period must be an integer, positive; got period=",
        ):
            svrg(0.1, bad)  # pyright: ignore
        with pytest.raises(
            (ValueError, TypeError), match="num_examples must be an integer, positive"
        ):
            saga(0.1, bad)  # pyright: ignore
    for name, rule in {"svrg": svrg(0.1, 5), "saga": saga(0.1, N)}.items():
        for params, f in ((None, value_fn), (START, None)):
            with pytest.raises(ValueError, match=f"{name} needs params and value_fn"):
                rule.update(START, rule.init(START), params, value_fn=f)
        with pytest.raises(ValueError, match="learning_rate must be a finite number"):
            {"svrg": svrg, "saga": saga}[name](-0.1, 3)
