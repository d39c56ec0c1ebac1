"""Seven rules against optax's in all its wrappers: random pytrees in three dtypes,
schedules. test_every_rule has all.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import schedules
from research.update_rules import UPDATE_RULES, add_decayed_weights
from research.verification import CARDS

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

NAMES = (
    "gradient_descent",
    "heavy_ball",
    "nesterov",
    "adagrad",
    "rmsprop",
    "adam",
    "adamw",
)
OPTAX_COUNTERPARTS = {name: (UPDATE_RULES[name], CARDS[name].optax) for name in NAMES}
NUM_STEPS = 50
RATES = (0.3, 0.01, 0.0)
# In units of the dtype's eps, relative to the largest update of the run. Measured: 0,
# or 1 in bfloat16 where a division stands for optax's product with a reciprocal. In
# float64 Adam is 31 apart, for optax rounds 1 - b2^t = 0.001 at the size of 1; for the
# narrower dtypes it computes that in float64, too.
TOLERANCE = {"float64": 64, "float32": 4, "bfloat16": 4}


def normal(seed, dtype, *shape):
    """Entries that differ in size by up to e^6."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(
        np.exp(rng.uniform(-3.0, 3.0, shape)) * rng.standard_normal(shape), dtype
    )


def nested(seed, dtype, *leading):
    """A pytree with scalars and empty leaves."""
    seeds = [(seed, leaf) for leaf in range(5)]
    shapes = [(4, 3), (3,), (), (0,), (2, 0, 3)]
    w, b, scalar, *empty = (
        normal(s, dtype, *leading, *shape)
        for s, shape in zip(seeds, shapes, strict=True)
    )
    return {"dense": ({"w": w, "b": b}, scalar), "empty": empty}


def updates_of(rule, params, gradients):
    """What a rule answers to a given sequence of gradients, with a leading axis."""

    def step(carry, g):
        params, state = carry
        updates, state = rule.update(g, state, params)
        return (optax.apply_updates(params, updates), state), updates

    return jax.lax.scan(step, (params, rule.init(params)), gradients)[1]


def drawn(dtype, draw=nested):
    return draw(1, dtype), draw(2, dtype, NUM_STEPS)


@functools.cache
def over_rates(dtype):
    """{name: (our updates, optax's)} with a leading axis of rates: one program, rates
    traced, scanned and vmapped.
    """

    def all_rules(rate, params, gradients):
        return {
            name: [
                updates_of(constructor(rate), params, gradients) for constructor in pair
            ]
            for name, pair in OPTAX_COUNTERPARTS.items()
        }

    return jax.jit(jax.vmap(all_rules, (0, None, None)))(
        jnp.asarray(RATES, dtype), *drawn(dtype)
    )


def assert_same(ours, theirs, dtype):
    """Leaf by leaf of equal dtype and, within tolerance · eps of the largest entry, of
    equal value.
    """
    tolerance = TOLERANCE[dtype] * float(jnp.finfo(dtype).eps)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype == dtype
        assert a.shape == b.shape
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.all(np.abs(a - b) <= tolerance * np.max(np.abs(b), initial=0.0))


@pytest.mark.thorough("the narrower dtypes", but="float64")
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_updates_equal_optax(name, dtype):
    ours, theirs = over_rates(dtype)[name]
    for lane in range(len(RATES)):
        pick = functools.partial(jax.tree.map, lambda leaf, lane=lane: leaf[lane])
        assert_same(pick(ours), pick(theirs), dtype)


@functools.cache
def lone():
    """{name: our updates} for the first rate, which is a constant of the program."""
    rules = {
        name: constructor(RATES[0])
        for name, (constructor, _) in OPTAX_COUNTERPARTS.items()
    }
    run = jax.jit(
        lambda *drawn: {name: updates_of(rule, *drawn) for name, rule in rules.items()}
    )
    return run(*drawn("float64"))


@pytest.mark.thorough(
    "traced and constant rates; test_every_rule.py has them for every rule"
)
@pytest.mark.parametrize("name", NAMES)
def test_traced_rate_under_vmap_equals_constant_rate(name):
    vmapped = jax.tree.map(lambda leaf: leaf[0], over_rates("float64")[name][0])
    assert_same(vmapped, lone()[name], "float64")


@pytest.mark.thorough(
    "steps outside of jit; test_every_rule.py has them for every rule"
)
@pytest.mark.parametrize("name", NAMES)
def test_eager_equals_jit(name):
    rule, (params, gradients) = UPDATE_RULES[name](RATES[0]), drawn("float64")
    state = rule.init(params)
    for t in range(2):
        updates, state = rule.update(
            jax.tree.map(lambda g, t=t: g[t], gradients), state, params
        )
        params = optax.apply_updates(params, updates)
        jitted = jax.tree.map(lambda leaf, t=t: leaf[t], lone()[name])
        assert_same(updates, jitted, "float64")


def small(seed, dtype, *leading):
    return {
        "w": normal((seed, 0), dtype, *leading, 3),
        "b": normal((seed, 1), dtype, *leading),
    }


def clipped(constructor, decay):
    return optax.chain(optax.clip_by_global_norm(1.0), decay(0.1), constructor(0.1))


def masked(constructor, _):
    return optax.masked(constructor(0.1), {"w": True, "b": False})


def every_third(constructor, _):
    return optax.MultiSteps(constructor(0.1), 3).gradient_transformation()


def injected(constructor, _):
    return optax.inject_hyperparams(constructor)(learning_rate=0.1)


def scheduled(constructor, _):
    return constructor(schedules.cosine(0.1, 40, 0.01))


def injected_schedule(constructor, _):
    return optax.inject_hyperparams(constructor)(
        learning_rate=schedules.inverse_time(0.1, 5.0)
    )


WRAPPERS = [clipped, masked, every_third, injected, scheduled, injected_schedule]


# One wrapper a rule, and each wrapper once.
IN_TURN = "|".join(
    f"^{name}-{WRAPPERS[i % len(WRAPPERS)].__name__}]" for i, name in enumerate(NAMES)
)


@pytest.mark.thorough("the other wrappers of each rule", but=IN_TURN)
@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda wrapper: wrapper.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_inside_optax_equals_optax(name, wrapper):
    decays = (add_decayed_weights, optax.add_decayed_weights)
    pair = [
        wrapper(constructor, decay)
        for constructor, decay in zip(OPTAX_COUNTERPARTS[name], decays, strict=True)
    ]
    run = jax.jit(lambda *drawn: [updates_of(rule, *drawn) for rule in pair])
    assert_same(*run(*drawn("float64", small)), "float64")


@pytest.mark.parametrize("name", NAMES)
def test_comparison_rejects_a_rate_off_by_a_part_in_a_million(name):
    ours, theirs = (
        jax.tree.map(lambda leaf: leaf[0], side) for side in over_rates("float64")[name]
    )
    with pytest.raises(AssertionError):
        assert_same(jax.tree.map(lambda leaf: leaf * 1.000001, ours), theirs, "float64")
