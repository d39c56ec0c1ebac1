"""Rules around rules: accumulation, skipping, state dtypes, each against optax's and
against what it promises.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.schedules import inverse_time
from research.update_rules import (
    accumulate_gradients,
    adam,
    adamw,
    add_decayed_weights,
    cautious,
    cautious_adamw,
    gradient_descent,
    heavy_ball,
    polyak_step,
    saga,
    sam,
    skip_nonfinite,
    svrg,
    with_state_dtype,
)

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

PARAMS = {
    "w": jnp.array([[1.0, -2.0], [0.5, 3.0]]),
    "b": jnp.array(0.25, float),
    "empty": jnp.zeros((0,)),
}


def gradients(num_steps, seed=0, dtype=float):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jnp.asarray(rng.standard_normal((num_steps, *x.shape)), dtype), PARAMS
    )


def walk(rule, given, params=PARAMS, **extra):
    """Updates and states of a rule on given gradients, in one scan."""
    rule = optax.with_extra_args_support(rule)

    def step(carry, gradient):
        x, state = carry
        updates, state = rule.update(gradient, state, x, **extra)
        return (optax.apply_updates(x, updates), state), (updates, state)

    return jax.jit(lambda x: jax.lax.scan(step, (x, rule.init(x)), given)[1])(params)


def assert_same(found, expected, **tolerance):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **tolerance), found, expected
    )


@pytest.mark.thorough("an accumulation of one", but="3")
@pytest.mark.parametrize("every", [1, 3])
def test_accumulation_equals_optax(every):
    given = gradients(12)
    # optax 0.2.8 takes the mean in float32 unless told otherwise, 0.2.6 in the dtype of
    # the params.
    wide = (
        {"accumulator_dtype": jnp.float64}
        if "accumulator_dtype" in inspect.signature(optax.MultiSteps).parameters
        else {}
    )
    theirs = optax.MultiSteps(optax.adamw(0.1), every, **wide).gradient_transformation()
    assert_same(
        walk(accumulate_gradients(adamw(0.1), every), given)[0],
        walk(theirs, given)[0],
        rtol=1e-13,
    )


@pytest.mark.thorough("the mean of gradients; test_accumulation_equals_optax has it")
def test_accumulation_is_the_step_of_the_larger_batch():
    given = gradients(12)
    larger = jax.tree.map(
        lambda g: jnp.mean(g.reshape(4, 3, *g.shape[1:]), axis=1), given
    )
    found = walk(accumulate_gradients(adam(0.1), 3), given)[0]
    assert_same(
        jax.tree.map(lambda u: u[2::3], found), walk(adam(0.1), larger)[0], rtol=1e-12
    )
    for waiting in (0, 1):
        assert_same(
            jax.tree.map(lambda u, k=waiting: u[k::3], found),
            jax.tree.map(lambda u: 0 * u[:4], found),
        )


def test_accumulation_hands_on_the_mean_value_and_gradient():
    """Polyak's step f / |g|² of two batches is that of their means."""
    rule, x = accumulate_gradients(polyak_step(), 2), jnp.array([3.0, 4.0])
    state = rule.init(x)
    for value, g in ((6.0, jnp.array([2.0, 0.0])), (2.0, jnp.array([0.0, 4.0]))):
        updates, state = rule.update(g, state, x, value=value, grad=g)
    assert_same(updates, -(4.0 / 5.0) * jnp.array([1.0, 2.0]), rtol=1e-14)


def test_accumulation_hands_on_the_mean_as_the_argument_grad():
    given_back = optax.GradientTransformationExtraArgs(
        lambda x: (), lambda updates, state, x=None, *, grad, **extra: (grad, state)
    )
    rule, x = accumulate_gradients(given_back, 2), jnp.zeros(2)
    state = rule.init(x)
    for g in (jnp.array([2.0, 0.0]), jnp.array([0.0, 4.0])):
        updates, state = rule.update(g, state, x, value=1.0, grad=g)
    assert_same(updates, jnp.array([1.0, 2.0]), rtol=1e-14)


@pytest.mark.parametrize(
    "rule", [svrg(0.1, 2), saga(0.1, 2), sam(0.1)], ids=["svrg", "saga", "sam"]
)
def test_accumulation_refuses_a_rule_that_calls_the_objective(rule):
    around, x = accumulate_gradients(rule, 2), jnp.ones(2)
    with pytest.raises(
        ValueError, match="accumulate_gradients cannot wrap a rule that calls value_fn"
    ):
        around.update(
            x,
            around.init(x),
            x,
            value_fn=lambda x, indices=None: jnp.sum(x**2),
            indices=jnp.array([0]),
        )


def test_one_bad_gradient_spoils_only_its_own_accumulation():
    given = jax.tree.map(lambda g: g.at[0].set(jnp.nan), gradients(4))
    found = walk(accumulate_gradients(gradient_descent(0.1), 2), given, params=PARAMS)[
        0
    ]["w"]
    assert np.all(np.isnan(found[1]))
    assert np.all(np.isfinite(found[3]))


def with_bad_ones(given, steps, bad=jnp.nan):
    return {**given, "w": given["w"].at[jnp.array(steps), 0, 1].set(bad)}


@pytest.mark.on_ci(
    "the same beside optax; test_skipping_counts_and_leaves_everything_as_it_was has "
    "no optax"
)
@pytest.mark.thorough("seven in nine pairs", but=r"^(nan-1|inf-2)\]")
@pytest.mark.parametrize("most", [1, 2, 5])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_skipping_equals_optax(most, bad):
    given = with_bad_ones(gradients(12), [0, 3, 5, 6, 7], bad)
    found, state = walk(skip_nonfinite(heavy_ball(0.1), most), given)
    expected, of_optax = walk(optax.apply_if_finite(optax.sgd(0.1, 0.9), most), given)
    assert_same(found, expected, rtol=1e-14)
    np.testing.assert_array_equal(state.consecutive[:6], of_optax.notfinite_count[:6])


def test_skipping_counts_and_leaves_everything_as_it_was():
    bad, given = [0, 3, 4], gradients(8)
    found, state = walk(skip_nonfinite(adam(0.1)), with_bad_ones(given, bad))
    good = np.array([t for t in range(8) if t not in bad])
    expected, inner = walk(adam(0.1), jax.tree.map(lambda g: g[good], given))
    assert_same(jax.tree.map(lambda u: u[good], found), expected, rtol=1e-13)
    assert_same(jax.tree.map(lambda s: s[good], state.inner), inner, rtol=1e-13)
    assert all(np.all(leaf[np.array(bad)] == 0) for leaf in jax.tree.leaves(found))
    np.testing.assert_array_equal(state.skipped, [1, 1, 1, 2, 3, 3, 3, 3])
    np.testing.assert_array_equal(state.consecutive, [1, 0, 0, 1, 2, 0, 0, 0])


def test_a_bad_step_that_is_applied_is_not_counted_as_skipped():
    given = jnp.array([[jnp.nan], [jnp.nan], [1.0]])
    updates, state = walk(skip_nonfinite(gradient_descent(0.1), 1), given, jnp.ones(1))
    np.testing.assert_array_equal(np.isnan(updates.ravel()), [False, True, False])
    np.testing.assert_array_equal(state.skipped, [1, 1, 1])
    np.testing.assert_array_equal(state.consecutive, [1, 2, 0])


def test_skipping_sees_an_update_that_is_not_finite():
    # As of Polyak's step where the gradient is zero and the value is not the minimum:
    # it divides by 0.
    broken = optax.GradientTransformation(
        lambda x: (), lambda g, s, x=None: (jax.tree.map(lambda a: a / 0.0, g), s)
    )
    rule = skip_nonfinite(broken)
    updates, state = rule.update(jnp.ones(2), rule.init(jnp.ones(2)))
    np.testing.assert_array_equal(updates, 0.0)
    assert state.skipped == 1


@pytest.mark.thorough("adamw", but="heavy_ball")
@pytest.mark.parametrize("constructor", [heavy_ball, adamw])
def test_state_dtype_is_the_rule_in_that_dtype(constructor):
    """bfloat16 params and gradients: what the rule does in float32 with their values,
    and only then rounded.
    """
    given = gradients(6, dtype=jnp.bfloat16)
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    rule, plain = with_state_dtype(constructor(0.1), "float32"), constructor(0.1)
    x, state, inner = (
        narrow,
        rule.init(narrow),
        plain.init(jax.tree.map(lambda x: x.astype(jnp.float32), narrow)),
    )
    # The rate that a rule reports is not worked with: it keeps its own dtype.
    worked_with = optax.tree_utils.tree_set(state, learning_rate=None)
    floats = {
        leaf.dtype
        for leaf in jax.tree.leaves(worked_with)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    }
    assert floats == {jnp.dtype(jnp.float32)}
    for t in range(6):
        g = jax.tree.map(lambda g, t=t: g[t], given)
        wide_g, wide_x = (
            jax.tree.map(lambda a: a.astype(jnp.float32), tree) for tree in (g, x)
        )
        updates, state = rule.update(g, state, x)
        expected, inner = plain.update(wide_g, inner, wide_x)
        jax.tree.map(
            np.testing.assert_array_equal,
            updates,
            jax.tree.map(lambda u: u.astype(jnp.bfloat16), expected),
        )
        jax.tree.map(np.testing.assert_array_equal, state, inner)
        x = optax.apply_updates(x, updates)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {
        jnp.dtype(jnp.bfloat16)
    }


@pytest.mark.on_ci(
    "100 steps; test_state_dtype_is_the_rule_in_that_dtype has the sums of six"
)
def test_state_dtype_keeps_small_sums_that_bfloat16_loses():
    """A hundred gradients of 2^-9 added to 1 in a momentum: bfloat16 stays at 1, as 1 +
    2^-9 rounds to 1.
    """
    ones = jnp.concatenate([jnp.ones((1, 1)), jnp.full((100, 1), 2.0**-9)]).astype(
        jnp.bfloat16
    )
    params = jnp.zeros(1, jnp.bfloat16)
    rule = heavy_ball(1.0, 1.0 - 2.0**-20)
    lost = walk(rule, ones, params)[1][0].velocity[-1]
    kept = walk(with_state_dtype(rule, "float32"), ones, params)[1][0].velocity[-1]
    assert lost == 1.0
    assert kept == pytest.approx(1 + 100 * 2.0**-9, rel=1e-3)


def test_state_dtype_hands_on_all_that_a_rule_may_ask_for():
    x, seen, asked = jnp.array([3.0, 4.0], jnp.bfloat16), {}, []

    def f(x, indices=None):
        asked.append(str(x.dtype))
        return 0.5 * jnp.sum(x**2)

    def remember(updates, state, params=None, **extra):
        seen.update(extra, params=params)
        seen["there"] = jax.value_and_grad(extra["value_fn"])(params, indices=None)
        return updates, state

    rule = with_state_dtype(
        optax.GradientTransformationExtraArgs(lambda x: (), remember), "float32"
    )
    updates, _ = rule.update(
        x, rule.init(x), x, value=f(x), grad=x, value_fn=f, indices=None, other=7
    )
    kinds = [seen[k].dtype for k in ("params", "value", "grad")] + [
        leaf.dtype for leaf in seen["there"]
    ]
    assert {str(kind) for kind in kinds} == {"float32"}
    # The objective itself is asked in the dtype of the params, here and by the rule.
    assert asked == ["bfloat16"] * 2
    assert (seen["other"], seen["indices"], updates.dtype) == (7, None, jnp.bfloat16)


@pytest.mark.on_ci(
    "three combinators in one another, with traced rates; other tests have each alone"
)
def test_combinators_nest_in_a_chain_with_a_traced_rate():
    given = gradients(8)

    def make(rate):
        rule = optax.chain(
            skip_nonfinite(
                accumulate_gradients(with_state_dtype(adam(rate), "float64"), 2)
            )
        )
        return optax.chain(optax.identity(), rule)

    rates = jnp.array([0.1, 0.3])
    together = jax.vmap(lambda rate: walk(make(rate), given)[0]["w"])(rates)
    np.testing.assert_allclose(
        together, [walk(make(float(r)), given)[0]["w"] for r in rates], rtol=1e-12
    )


@pytest.mark.thorough(
    "nested combinators with a schedule; .ci/run has them with traced rates, above"
)
def test_nested_combinators_show_the_rate_of_a_schedule():
    rule = accumulate_gradients(
        with_state_dtype(adam(inverse_time(0.1, 2.0)), "float64"), 2
    )
    chained = optax.chain(optax.identity(), optax.chain(skip_nonfinite(rule)))
    states = walk(chained, gradients(8))[1]
    shown = optax.tree_utils.tree_get(states, "learning_rate")
    np.testing.assert_allclose(
        shown[1::2], inverse_time(0.1, 2.0)(jnp.arange(4)), rtol=1e-14
    )


@pytest.mark.thorough("the other dtypes", but="bfloat16")
@pytest.mark.parametrize(
    "around",
    [
        lambda rule: accumulate_gradients(rule, 2),
        skip_nonfinite,
        lambda rule: with_state_dtype(rule, "float32"),
    ],
    ids=["accumulate_gradients", "skip_nonfinite", "with_state_dtype"],
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_dtypes_and_structure_are_kept(around, dtype):
    given, params = (
        gradients(3, dtype=dtype),
        jax.tree.map(lambda x: x.astype(dtype), PARAMS),
    )
    updates = walk(around(heavy_ball(0.1)), given, params)[0]
    assert jax.tree.map(lambda u: (u.shape, u.dtype), updates) == jax.tree.map(
        lambda g: (g.shape, g.dtype), given
    )


def test_bad_input_raises():
    for bad in (0, -1, 2.5, None, True):
        with pytest.raises(
            (ValueError, TypeError),
            match="every must be an integer, positive; got every=",
        ):
            accumulate_gradients(adam(0.1), bad)  # pyright: ignore
    for bad in (0, -1, 2.5, True):
        with pytest.raises(
            (ValueError, TypeError),
            match="max_consecutive must be an integer, positive",
        ):
            skip_nonfinite(adam(0.1), bad)  # pyright: ignore
    with pytest.raises(
        TypeError,
        match="of a floating dtype, such as \"float32\"; got dtype='int32'",
    ):
        with_state_dtype(adam(0.1), "int32")


# Cautious rules


def two_steps(rule, gradients, x):
    state = rule.init(x)
    for g in gradients:
        updates, state = rule.update(g, state, x)
    return updates


def test_a_cautious_rule_without_momentum_is_the_rule():
    g, x = jnp.array([1.0, -2.0, 3.0]), jnp.ones(3)
    np.testing.assert_array_equal(
        two_steps(cautious(gradient_descent(0.1)), [g, g], x), -0.1 * g
    )


@pytest.mark.on_ci("without the one in the share", but="True")
@pytest.mark.parametrize("plus_one", [False, True])
def test_a_cautious_rule_leaves_out_what_goes_up_and_moves_the_others_further(plus_one):
    gradients = [jnp.array([4.0, 4.0, 4.0, 4.0]), jnp.array([-1.0, 1.0, 0.0, 1.0])]
    plain = two_steps(heavy_ball(1.0, 0.5), gradients, jnp.zeros(4))
    found = two_steps(cautious(heavy_ball(1.0, 0.5), plus_one), gradients, jnp.zeros(4))
    kept = np.array([0.0, 1.0, 0.0, 1.0])
    np.testing.assert_allclose(found, plain * kept * 4 / (3 if plus_one else 2))


def test_a_cautious_rule_divides_by_no_smaller_share_than_it_may():
    """One entry in four is kept, and moves twice as far, not four times."""
    gradients = [jnp.full(4, 4.0), jnp.array([-1.0, -1.0, -1.0, 1.0])]
    rule = cautious(heavy_ball(1.0, 0.5), min_share=0.5)
    found = two_steps(rule, gradients, jnp.zeros(4))
    np.testing.assert_allclose(found, [0.0, 0.0, 0.0, 2 * -3.0])


@pytest.mark.on_ci(
    "nine steps; laws/test_every_rule.py has the formula of cautious_adamw"
)
def test_cautious_adamw_without_decay_is_the_cautious_adam():
    random = np.random.default_rng(0)
    gradients, x = jnp.asarray(random.standard_normal((9, 5))), jnp.ones(5)
    rules = cautious_adamw(0.1, weight_decay=0.0), cautious(adam(0.1))
    np.testing.assert_allclose(*(two_steps(r, gradients, x) for r in rules), rtol=1e-14)


def test_a_cautious_rule_keeps_a_nan_and_the_smallest_numbers():
    rule = cautious(gradient_descent(1e-3))
    g = jnp.array([jnp.nan, 1e-30], "float32")
    found = rule.update(g, rule.init(g), g)[0]
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1], -1e-33, rtol=1e-6)


def test_cautious_decay_spares_weights_whose_direction_makes_them_larger():
    d, x = jnp.array([1.0, -1.0, 0.0]), jnp.array([2.0, 2.0, 2.0])
    rule = add_decayed_weights(0.5, cautious=True)
    np.testing.assert_array_equal(rule.update(d, rule.init(x), x)[0], [2.0, -1.0, 1.0])


def test_cautious_refuses_what_is_not_a_rule():
    with pytest.raises(
        TypeError, match=r"rule must be an optax\.GradientTransformation"
    ):
        cautious(0.1)
    with pytest.raises(ValueError, match="min_share must be a finite number, positive"):
        cautious(gradient_descent(0.1), min_share=0.0)
