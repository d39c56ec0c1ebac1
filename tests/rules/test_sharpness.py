"""SAM against optax's, its formula, and what follows from it on quadratics."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.schedules import inverse_time
from research.update_rules import adamw, gradient_descent, heavy_ball
from research.update_rules._sharpness import sam

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

CURVATURES = np.array([4.0, 1.0, 0.25])
START = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.5, float)}


def value_fn(x, indices=None):
    del indices
    return 0.5 * (4.0 * x["a"][0] ** 2 + x["a"][1] ** 2 + 0.25 * x["b"] ** 2) + jnp.sum(
        jnp.cos(3.0 * x["a"])
    )


def walk(rule, f=value_fn, x=START, num_steps=30):
    rule = optax.with_extra_args_support(rule)

    def step(carry, _):
        x, state = carry
        value, gradient = jax.value_and_grad(f)(x)
        updates, state = rule.update(
            gradient, state, x, value=value, grad=gradient, value_fn=f, indices=None
        )
        x = optax.apply_updates(x, updates)
        return (x, state), x

    return jax.jit(
        lambda x: jax.lax.scan(step, (x, rule.init(x)), length=num_steps)[1]
    )(x)


def of_optax(inner, rho):
    theirs = optax.contrib.sam(
        inner, optax.chain(optax.contrib.normalize(), optax.sgd(rho)), opaque_mode=True
    )

    def update(updates, state, params=None, *, value_fn, **extra):
        del extra
        return theirs.update(
            updates, state, params, grad_fn=lambda x, _: jax.grad(value_fn)(x)
        )

    return optax.GradientTransformationExtraArgs(theirs.init, update)


@pytest.mark.thorough("the other inner rules and radius", but=r"^0\.05-adamw")
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (gradient_descent, optax.sgd),
        (heavy_ball, lambda rate: optax.sgd(rate, 0.9)),
        (
            lambda rate: adamw(rate, weight_decay=0.1),
            lambda rate: optax.adamw(rate, weight_decay=0.1),
        ),
    ],
    ids=["gradient_descent", "heavy_ball", "adamw"],
)
@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_sam_equals_optax(ours, theirs, rho):
    found, expected = walk(sam(0.05, rho, ours)), walk(of_optax(theirs(0.05), rho))
    chex.assert_trees_all_close(found, expected, rtol=1e-12, atol=1e-12)


def test_sam_of_radius_zero_is_the_inner_rule():
    found, expected = walk(sam(0.05, 0.0, heavy_ball)), walk(heavy_ball(0.05))
    chex.assert_trees_all_close(found, expected, rtol=1e-14)


def test_sam_does_not_see_the_scale_of_the_gradient_it_is_given():
    # It gives the direction of the ascent alone; that of the descent comes from
    # value_fn.
    gradient, rule = jax.grad(value_fn)(START), sam(0.1, 0.5)
    larger = jax.tree.map(lambda g: 1024.0 * g, gradient)
    one, other = (
        rule.update(g, rule.init(START), START, value_fn=value_fn)[0]
        for g in (gradient, larger)
    )
    chex.assert_trees_all_close(one, other, rtol=1e-14)


def test_sam_swings_about_a_minimum_at_a_distance_of_its_radius():
    """On c x²/2 the step is x <- x - η c (x + ρ sign(x)): it ends between ±η c ρ / (2 -
    η c), one step each way.
    """
    curvature, rate, rho = 2.0, 0.25, 0.3
    path = walk(
        sam(rate, rho),
        lambda x, indices=None: 0.5 * curvature * x**2,
        jnp.array(1.0, float),
        200,
    )
    size = rate * curvature * rho / (2 - rate * curvature)
    np.testing.assert_allclose(np.abs(path[-2:]), size, rtol=1e-13)
    assert path[-1] * path[-2] < 0


def test_zero_gradient_stays_and_nan_shows():
    rule = sam(0.1)
    flat = lambda x, indices=None: 0.0 * jnp.sum(x)
    assert np.all(
        rule.update(jnp.zeros(2), rule.init(jnp.ones(2)), jnp.ones(2), value_fn=flat)[0]
        == 0.0
    )
    curved = lambda x, indices=None: jnp.sum(x**2)
    given = jnp.array([jnp.nan, 1.0])
    assert np.all(
        np.isnan(rule.update(given, rule.init(given), jnp.ones(2), value_fn=curved)[0])
    )


def test_inner_rule_sees_the_moved_function():
    seen = {}

    def inner(learning_rate):
        def update(updates, state, params=None, **extra):
            seen.update(extra, params=params, updates=updates)
            return jax.tree.map(lambda g: -learning_rate * g, updates), state

        return optax.GradientTransformationExtraArgs(
            lambda params: optax.EmptyState(), update
        )

    x, f = (
        jnp.array([3.0, 4.0]),
        lambda x, indices=None: (
            0.5 * jnp.sum(x**2) * (1.0 if indices is None else indices)
        ),
    )
    rule = sam(0.1, 5.0, inner)
    rule.update(x, rule.init(x), x, value=f(x), grad=x, value_fn=f, indices=None)
    np.testing.assert_allclose(seen["params"], [3.0, 4.0])
    np.testing.assert_allclose(seen["updates"], [6.0, 8.0])
    np.testing.assert_allclose(seen["grad"], [6.0, 8.0])
    assert seen["value"] == pytest.approx(50.0)
    assert seen["value_fn"](x) == pytest.approx(50.0)
    assert seen["value_fn"](x, indices=2.0) == pytest.approx(100.0)


@pytest.mark.thorough(
    "dtypes and empty leaves; laws/test_every_rule.py has the dtypes of every rule, "
    "and laws/test_rules_for_optax_users.py the leaves"
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_dtypes_and_structure_are_kept(dtype):
    x = {
        "w": jnp.ones((2, 3), dtype),
        "s": jnp.ones((), dtype),
        "empty": jnp.ones((0,), dtype),
    }
    rule = sam(jnp.float32(0.1), jnp.asarray(0.05))
    f = lambda x, indices=None: sum(
        jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(x)
    )
    updates, _ = rule.update(jax.grad(f)(x), rule.init(x), x, value_fn=f)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, x)


def test_both_numbers_may_be_traced_and_the_rate_scheduled():
    rates, radii = jnp.array([0.01, 0.05]), jnp.array([0.5, 0.1])
    together = jax.vmap(lambda rate, rho: walk(sam(rate, rho))["a"])(rates, radii)
    alone = [
        walk(sam(float(rate), float(rho)))["a"]
        for rate, rho in zip(rates, radii, strict=True)
    ]
    np.testing.assert_allclose(together, alone, rtol=1e-12)
    rule = sam(inverse_time(0.3, 2.0))
    assert optax.tree_utils.tree_get(
        rule.init(START), "learning_rate"
    ) == pytest.approx(0.3)


def test_bad_input_raises():
    with pytest.raises(TypeError, match=r"inner must be a function of \(learning_ra"):
        sam(0.1, inner=lambda: gradient_descent(0.1))
    for bad in (-0.1, np.nan, np.inf, "0.1", None):
        with pytest.raises(
            (ValueError, TypeError),
            match="rho must be a finite number, at least 0; got rho=",
        ):
            sam(0.1, bad)
        with pytest.raises(
            (ValueError, TypeError),
            match="learning_rate must be a finite number, at least 0",
        ):
            sam(bad)
    for params, f in ((None, value_fn), (START, None)):
        with pytest.raises(ValueError, match="sam needs params and value_fn"):
            sam(0.1).update(START, sam(0.1).init(START), params, value_fn=f)
