"""Every schedule against its formula in numpy and, where there is one, against optax's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import schedules
from research.schedules import SCHEDULES, join

# name: (arguments, formula in numpy, optax's schedule of the same arguments or None)
ORACLES = {
    "constant": ([0.3], lambda t: 0.3 + 0.0 * t, optax.constant_schedule(0.3)),
    "step": (
        [0.3, 0.5, 7],
        lambda t: 0.3 * 0.5 ** (t // 7),
        optax.exponential_decay(0.3, 7, 0.5, staircase=True),
    ),
    "exponential": ([0.3, 0.7, 9.0], lambda t: 0.3 * 0.7 ** (t / 9), optax.exponential_decay(0.3, 9, 0.7)),
    "polynomial": (
        [0.3, 0.02, 30, 1.5],
        lambda t: 0.02 + 0.28 * (1 - np.minimum(t, 30) / 30) ** 1.5,
        optax.polynomial_schedule(0.3, 0.02, 1.5, 30),
    ),
    "cosine": (
        [0.3, 30, 0.02],
        lambda t: 0.02 + 0.14 * (1 + np.cos(np.pi * np.minimum(t, 30) / 30)),
        optax.cosine_decay_schedule(0.3, 30, alpha=0.02 / 0.3),
    ),
    "inverse_square_root": ([0.3, 9.0], lambda t: 0.3 / np.sqrt(1 + t / 9), None),
    "inverse_time": ([0.3, 9.0], lambda t: 0.3 / (1 + t / 9), None),
    "linear_warmup": (
        [0.3, 30, 0.02],
        lambda t: 0.02 + 0.28 * np.minimum(t, 30) / 30,
        optax.linear_schedule(0.02, 0.3, 30),
    ),
}
COUNTS = np.arange(64.0)


def assert_same(ours, theirs, initial=0.3):
    # Relative to the rate at the start: 1 + cos cancels near the end.
    np.testing.assert_allclose(ours, theirs, rtol=1e-15, atol=1e-15 * initial)


def test_every_schedule_has_an_oracle():
    missing = SCHEDULES.keys() - ORACLES.keys()
    assert not missing, f"give {sorted(missing)} arguments, a formula and optax's counterpart (or None) in ORACLES"


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_equals_its_formula(name):
    arguments, formula, _ = ORACLES[name]
    rates = SCHEDULES[name](*arguments)(jnp.asarray(COUNTS))
    assert rates.dtype == jnp.float64
    assert rates.shape == COUNTS.shape
    assert_same(rates, formula(COUNTS))


@pytest.mark.parametrize("name", [name for name, (_, _, theirs) in ORACLES.items() if theirs])
def test_schedule_equals_optax(name):
    arguments, _, theirs = ORACLES[name]
    counts = jnp.asarray(COUNTS)
    assert_same(SCHEDULES[name](*arguments)(counts), jnp.broadcast_to(theirs(counts), counts.shape))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_of_integer_counts_equals_that_of_float_counts(name):
    schedule = SCHEDULES[name](*ORACLES[name][0])
    whole = jnp.asarray(COUNTS)
    of_integers = [schedule(whole.astype(jnp.int32)), jnp.stack([schedule(int(t)) for t in COUNTS])]
    for rates in of_integers:
        assert rates.dtype == jnp.float64
        assert_same(rates, schedule(whole))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_of_traced_values_equals_that_of_floats(name):
    arguments = ORACLES[name][0]
    traced = jax.jit(lambda values, t: SCHEDULES[name](*values)(t))
    for scale in (1.0, 0.5):
        values = [scale * arguments[0], *arguments[1:]]
        assert_same(traced(values, jnp.asarray(COUNTS)), SCHEDULES[name](*values)(jnp.asarray(COUNTS)))
    assert traced._cache_size() == 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_bends_where_its_formula_does(name):
    """The comparison above rejects a schedule that is late by one step, or off by a part in 10^12."""
    arguments, formula, _ = ORACLES[name]
    schedule = SCHEDULES[name](*arguments)
    for wrong in (schedule(COUNTS + 1.0), schedule(COUNTS) * (1 + 1e-12)):
        if name == "constant" and np.array_equal(wrong, schedule(COUNTS)):
            continue  # A constant cannot be late.
        with pytest.raises(AssertionError):
            assert_same(wrong, formula(COUNTS))


def test_ends_are_exact():
    counts = jnp.array([30, 31, 10**9])
    np.testing.assert_array_equal(schedules.cosine(0.3, 30, 0.02)(counts), 0.02)
    np.testing.assert_array_equal(schedules.polynomial(0.3, 0.02, 30)(counts), 0.02)
    np.testing.assert_allclose(schedules.linear_warmup(0.3, 30, 0.02)(counts), 0.3, rtol=2e-16)
    for name, (arguments, formula, _) in ORACLES.items():
        assert SCHEDULES[name](*arguments)(0) == pytest.approx(formula(0.0), rel=1e-15), name


def test_step_drops_at_every_multiple():
    # A product by 1 / every in place of the division would drop late: 49 · (1 / 49) < 1.
    counts = np.arange(3000, dtype=np.int32)
    for every in (3, 7, 49):
        rates = schedules.step(1.0, 0.5, every)(jnp.asarray(counts))
        np.testing.assert_allclose(rates, np.ldexp(1.0, -(counts // every)), rtol=1e-12)


def test_join_equals_optax():
    parts = [schedules.linear_warmup(0.3, 8), schedules.cosine(0.3, 20), schedules.constant(0.01)]
    counts = jnp.asarray(COUNTS)
    assert_same(join(parts, [8, 28])(counts), optax.join_schedules(parts, [8, 28])(counts))
    assert_same(join(parts, [8, 28])(COUNTS.astype(np.int32)), join(parts, [8, 28])(counts))


def test_join_keeps_derivatives_finite():
    parts = [schedules.linear_warmup(0.3, 8), schedules.inverse_square_root(0.3)]
    slope = jax.grad(join(parts, [8]))(3.0)
    assert slope == pytest.approx(0.3 / 8, rel=1e-15)


NUMBERS = [-0.1, float("nan"), float("inf"), "0.1", None, True, [0.1], jnp.array([0.1, 0.2]), jnp.array(jnp.nan)]


@pytest.mark.parametrize("bad", NUMBERS, ids=repr)
@pytest.mark.parametrize("name", SCHEDULES)
def test_bad_rate_raises(name, bad):
    argument = {"constant": "value", "linear_warmup": "peak"}.get(name, "initial")
    with pytest.raises((ValueError, TypeError), match=f"{argument} must be a finite number, at least 0; got"):
        SCHEDULES[name](bad, *ORACLES[name][0][1:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.step(1.0, 0.0, 5), "factor must be a finite number, positive; got factor=0.0"),
        (lambda: schedules.step(1.0, 0.5, 0), "every must be an integer, positive; got every=0"),
        (lambda: schedules.step(1.0, 0.5, 2.5), "every must be an integer, positive; got every=2.5"),
        (lambda: schedules.exponential(1.0, -1.0), "factor must be"),
        (lambda: schedules.exponential(1.0, 0.5, 0.0), "timescale must be a finite number, positive"),
        (lambda: schedules.polynomial(1.0, -1.0, 5), "final must be a finite number, at least 0"),
        (lambda: schedules.polynomial(1.0, 0.0, 5.0), "num_steps must be an integer"),
        (lambda: schedules.polynomial(1.0, 0.0, 5, 0.0), "power must be a finite number, positive"),
        (lambda: schedules.cosine(1.0, -5), "num_steps must be an integer, positive; got num_steps=-5"),
        (lambda: schedules.inverse_square_root(1.0, 0.0), "timescale must be"),
        (lambda: schedules.inverse_time(1.0, -1.0), "timescale must be"),
        (lambda: schedules.linear_warmup(1.0, 5, -1.0), "initial must be"),
        (lambda: join([schedules.constant(1.0)], [5]), "1 schedules and boundaries=\\[5\\]. Give 0 of them"),
        (lambda: join([schedules.constant(1.0)] * 3, [5, 5]), "boundaries must increase; got boundaries=\\[5, 5\\]"),
        (lambda: join([schedules.constant(1.0)] * 2, [0]), "each of boundaries must be an integer, positive"),
    ],
)
def test_bad_argument_raises(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
