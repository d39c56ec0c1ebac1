"""Every schedule against its formula in numpy and, where there is one, against
optax's.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import schedules
from research.schedules import SCHEDULES, join

COMPILE_QUICKLY = DRAWS_NO_KEYS = True  # tests/conftest.py


def restarted(t, period, factor):
    """Equation (5) of SGDR with the paper's loop: T_cur counts up to T_i, which then
    grows.
    """
    while t >= period:
        t, period = t - period, period * factor
    return 0.02 + 0.14 * (1 + np.cos(np.pi * t / period))


# name: (arguments, formula in numpy, optax's schedule of the same arguments or None)
CARDS = {
    "constant": ([0.3], lambda t: 0.3 + 0.0 * t, optax.constant_schedule(0.3)),
    "step": (
        [0.3, 0.5, 7],
        lambda t: 0.3 * 0.5 ** (t // 7),
        optax.exponential_decay(0.3, 7, 0.5, staircase=True),
    ),
    "exponential": (
        [0.3, 0.7, 9.0],
        lambda t: 0.3 * 0.7 ** (t / 9),
        optax.exponential_decay(0.3, 9, 0.7),
    ),
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
    "piecewise": (
        [0.3, [7, 20], [0.6, 0.02]],
        lambda t: np.select([t < 7, t < 20], [0.3, 0.6], 0.02) + 0.0 * t,
        optax.piecewise_constant_schedule(0.3, {7: 2.0, 20: 0.02 / 0.6}),
    ),
    "one_cycle": (
        [0.3, 30, 0.3, 20.0, 100.0],
        lambda t: np.where(
            t < 9,
            0.015 + 0.1425 * (1 - np.cos(np.pi * t / 9)),
            0.00015 + 0.149925 * (1 + np.cos(np.pi * np.clip((t - 9) / 21, 0, 1))),
        ),
        jax.vmap(
            optax.cosine_onecycle_schedule(30, 0.3, 0.3, 20.0, 100.0)
        ),  # It takes one count at a time.
    ),
    "warm_restarts": (
        [0.3, 5, 3, 0.02],
        np.vectorize(lambda t: restarted(t, 5, 3)),
        optax.sgdr_schedule(
            [
                {
                    "init_value": 0.3,
                    "peak_value": 0.3,
                    "warmup_steps": 0,
                    "decay_steps": steps,
                    "end_value": 0.02,
                }
                for steps in (5, 15, 45)
            ]
        ),
    ),
}
COUNTS = np.arange(64.0)


def assert_same(ours, theirs, initial=0.3):
    # Relative to the rate at the start: 1 + cos cancels near the end.
    np.testing.assert_allclose(ours, theirs, rtol=1e-15, atol=1e-15 * initial)


def test_every_schedule_has_an_oracle():
    missing = SCHEDULES.keys() - CARDS.keys()
    assert not missing, (
        f"give {sorted(missing)} arguments, a formula and optax's counterpart (or None)"
        " in CARDS"
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_equals_its_formula(name):
    arguments, formula, _ = CARDS[name]
    rates = SCHEDULES[name](*arguments)(jnp.asarray(COUNTS))
    assert rates.dtype == jnp.float64
    assert rates.shape == COUNTS.shape
    assert_same(rates, formula(COUNTS))


@pytest.mark.on_ci(
    "optax's schedules; test_schedule_equals_its_formula has every schedule"
)
@pytest.mark.thorough(
    "one_cycle, which compiles longest; torch has it below", but=r"^(?!one_cycle)"
)
@pytest.mark.parametrize(
    "name", [name for name, (_, _, theirs) in CARDS.items() if theirs]
)
def test_schedule_equals_optax(name):
    arguments, _, theirs = CARDS[name]
    counts = jnp.asarray(COUNTS)
    assert_same(
        SCHEDULES[name](*arguments)(counts),
        jnp.broadcast_to(theirs(counts), counts.shape),
    )


@pytest.mark.thorough("the other schedules", but=r"^(cosine|polynomial|inverse_time)\]")
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_of_integer_counts_equals_that_of_float_counts(name):
    schedule = SCHEDULES[name](*CARDS[name][0])
    whole = jnp.asarray(COUNTS)
    of_integers = [
        schedule(whole.astype(jnp.int32)),
        jnp.stack([schedule(int(t)) for t in COUNTS]),
    ]
    for rates in of_integers:
        assert rates.dtype == jnp.float64
        assert_same(rates, schedule(whole))


@pytest.mark.thorough("the other schedules", but=r"^(step|polynomial|warm_restarts)\]")
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_of_traced_values_equals_that_of_floats(name):
    arguments = CARDS[name][0]
    traced = jax.jit(lambda values, t: SCHEDULES[name](*values)(t))
    for scale in (1.0, 0.5):
        values = [scale * arguments[0], *arguments[1:]]
        assert_same(
            traced(values, jnp.asarray(COUNTS)),
            SCHEDULES[name](*values)(jnp.asarray(COUNTS)),
        )
    assert traced._cache_size() == 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_bends_where_its_formula_does(name):
    """The comparison above rejects a schedule that is late by one step, or off by a
    part in 10^12.
    """
    arguments, formula, _ = CARDS[name]
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
    np.testing.assert_allclose(
        schedules.linear_warmup(0.3, 30, 0.02)(counts), 0.3, rtol=2e-16
    )
    for name, (arguments, formula, _) in CARDS.items():
        assert SCHEDULES[name](*arguments)(0) == pytest.approx(
            formula(0.0), rel=1e-15
        ), name


def test_step_drops_at_every_multiple():
    # A product by 1 / every in place of the division would drop late: 49 · (1 / 49) <
    # 1.
    counts = np.arange(3000, dtype=np.int32)
    for every in (3, 7, 49):
        rates = schedules.step(1.0, 0.5, every)(jnp.asarray(counts))
        np.testing.assert_allclose(rates, np.ldexp(1.0, -(counts // every)), rtol=1e-12)


def test_join_equals_optax():
    parts = [
        schedules.linear_warmup(0.3, 8),
        schedules.cosine(0.3, 20),
        schedules.constant(0.01),
    ]
    counts = jnp.asarray(COUNTS)
    assert_same(
        join(parts, [8, 28])(counts), optax.join_schedules(parts, [8, 28])(counts)
    )
    assert_same(
        join(parts, [8, 28])(COUNTS.astype(np.int32)), join(parts, [8, 28])(counts)
    )


def test_join_keeps_derivatives_finite():
    parts = [schedules.linear_warmup(0.3, 8), schedules.inverse_square_root(0.3)]
    slope = jax.grad(join(parts, [8]))(3.0)
    assert slope == pytest.approx(0.3 / 8, rel=1e-15)


@pytest.mark.on_ci("torch's formula; test_schedule_equals_its_formula has one_cycle")
def test_one_cycle_equals_the_formula_of_torch():
    # OneCycleLR(max_lr=0.3, total_steps=40, pct_start=0.25, anneal_strategy="cos"),
    # read from its source: phases end at pct_start · total_steps - 1 and total_steps -
    # 1, each annealed by end + (start - end) / 2 · (1 + cos(π part)).
    lowest, last, ends = 0.3 / 25, 0.3 / 25 / 1e4, (0.25 * 40 - 1, 40 - 1)
    rates = []
    for t in range(40):
        begin, end, part = (
            (lowest, 0.3, t / ends[0])
            if t <= ends[0]
            else (0.3, last, (t - 9) / (ends[1] - ends[0]))
        )
        rates.append(end + (begin - end) / 2 * (1 + np.cos(np.pi * part)))
    assert_same(
        schedules.one_cycle(0.3, 39, (0.25 * 40 - 1) / 39)(jnp.arange(40.0)), rates
    )


@pytest.mark.on_ci(
    "long periods; test_compiled_restarts_come_at_their_step has shorter ones"
)
@pytest.mark.parametrize(
    ("period", "factor"), [(1, 1), (7, 1), (1, 2), (3, 3), (10, 7), (1, 1000)]
)
def test_warm_restarts_start_where_the_sum_of_periods_says(period, factor):
    # A logarithm alone, as in torch, misses some of these by rounding; at its start a
    # period is at its highest rate.
    lengths = [period * factor**i for i in range(60) if period * factor**i < 10**8]
    # The last is repeated: with as many for each factor, JAX compiles each operation
    # once.
    starts, lengths = (
        np.pad(a, (0, 60 - len(a)), mode="edge") for a in (np.cumsum(lengths), lengths)
    )
    rates = schedules.warm_restarts(1.0, period, factor)
    np.testing.assert_array_equal(rates(jnp.asarray(starts)), 1.0)
    before = rates(jnp.asarray(starts - 1))
    expected = [0.5 * (1 + np.cos(np.pi * (length - 1) / length)) for length in lengths]
    np.testing.assert_allclose(before, expected, rtol=0, atol=1e-15)


def test_piecewise_changes_at_the_boundary_itself():
    rates = schedules.piecewise(0.0, [2, 3], [1.0, 0.5])(jnp.arange(5))
    np.testing.assert_array_equal(rates, [0.0, 0.0, 1.0, 0.5, 0.5])
    np.testing.assert_array_equal(
        schedules.piecewise(0.25, [], [])(jnp.arange(2)), 0.25
    )


NUMBERS = [
    -0.1,
    float("nan"),
    float("inf"),
    "0.1",
    None,
    True,
    [0.1],
    jnp.array([0.1, 0.2]),
    jnp.array(jnp.nan),
]


@pytest.mark.parametrize("bad", NUMBERS, ids=repr)
@pytest.mark.parametrize("name", SCHEDULES)
def test_bad_rate_raises(name, bad):
    argument = {"constant": "value", "linear_warmup": "peak", "one_cycle": "peak"}.get(
        name, "initial"
    )
    with pytest.raises(
        (ValueError, TypeError),
        match=f"{argument} must be a finite number, at least 0; got",
    ):
        SCHEDULES[name](bad, *CARDS[name][0][1:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: schedules.step(1.0, 0.0, 5),
            "factor must be a finite number, positive; got factor=0.0",
        ),
        (
            lambda: schedules.step(1.0, 0.5, 0),
            "every must be an integer, positive; got every=0",
        ),
        (
            lambda: schedules.step(1.0, 0.5, 2.5),
            "every must be an integer, positive; got every=2.5",
        ),
        (lambda: schedules.exponential(1.0, -1.0), "factor must be"),
        (
            lambda: schedules.exponential(1.0, 0.5, 0.0),
            "timescale must be a finite number, positive",
        ),
        (
            lambda: schedules.polynomial(1.0, -1.0, 5),
            "final must be a finite number, at least 0",
        ),
        (lambda: schedules.polynomial(1.0, 0.0, 5.0), "num_steps must be an integer"),
        (
            lambda: schedules.polynomial(1.0, 0.0, 5, 0.0),
            "power must be a finite number, positive",
        ),
        (
            lambda: schedules.cosine(1.0, -5),
            "num_steps must be an integer, positive; got num_steps=-5",
        ),
        (lambda: schedules.inverse_square_root(1.0, 0.0), "timescale must be"),
        (lambda: schedules.inverse_time(1.0, -1.0), "timescale must be"),
        (lambda: schedules.linear_warmup(1.0, 5, -1.0), "initial must be"),
        (
            lambda: schedules.one_cycle(1.0, 0),
            "num_steps must be an integer, positive; got num_steps=0",
        ),
        (
            lambda: schedules.one_cycle(1.0, 5, 1.0),
            "warmup_fraction must be a finite number, positive and below 1",
        ),
        (lambda: schedules.one_cycle(1.0, 5, 0.0), "warmup_fraction must be"),
        (
            lambda: schedules.one_cycle(1.0, 5, 0.3, 0.0),
            "initial_divisor must be a finite number, positive",
        ),
        (
            lambda: schedules.one_cycle(1.0, 5, 0.3, 2.0, -1.0),
            "final_divisor must be a finite number, positive",
        ),
        (
            lambda: schedules.warm_restarts(1.0, 0),
            "first_period must be an integer, positive; got first_period=0",
        ),
        (
            lambda: schedules.warm_restarts(1.0, 5, 1.5),
            "period_factor must be an integer, positive",
        ),
        (
            lambda: schedules.warm_restarts(1.0, 5, 2, -1.0),
            "final must be a finite number, at least 0",
        ),
        (
            lambda: schedules.piecewise(1.0, [5], []),
            "one value for every boundary; got boundaries=\\[5\\]",
        ),
        (
            lambda: schedules.piecewise(1.0, [5, 4], [1.0, 2.0]),
            "must increase; got .* Sort them together with their values",
        ),
        (
            lambda: schedules.piecewise(1.0, [0], [1.0]),
            r"boundaries\[0\] must be an integer, positive",
        ),
        (
            lambda: schedules.piecewise(1.0, [1], [-1.0]),
            r"values\[0\] must be a finite number, at least 0",
        ),
        (lambda: join([], []), "schedules must hold at least one schedule; got none"),
        (
            lambda: join([schedules.constant(1.0), 0.2], [5]),
            r"got schedules\[1\]=0.2. For a constant rate, use constant\(rate\)",
        ),
        (
            lambda: join([schedules.constant(1.0)], [5]),
            "1 schedules and boundaries=\\[5\\]. Give 0 boundaries",
        ),
        (
            lambda: join([schedules.constant(1.0)] * 3, [5, 5]),
            "boundaries must increase; got boundaries=\\[5, 5\\]",
        ),
        (
            lambda: join([schedules.constant(1.0)] * 2, [0]),
            r"boundaries\[0\] must be an integer, positive",
        ),
    ],
)
def test_bad_argument_raises(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_is_no_step_count_is_refused(name):
    # Before 0, a step decay was above its start and a warm-up below 0; a join of NaN
    # was the last rate.
    schedule = SCHEDULES[name](*CARDS[name][0])
    for bad in (-1, -2.5, float("nan"), np.int8(-3), np.array([1.0, -1.0]), [1, -1]):
        with pytest.raises(ValueError, match=r"t must be .* at least 0; got t="):
            schedule(bad)
    for bad in (True, "3", None):
        with pytest.raises(TypeError, match="t must be"):
            schedule(bad)
    for large in (2**31, 2**63, 10**30, np.uint64(2**63)):
        assert np.isfinite(schedule(large))


@pytest.mark.thorough("periods of one length", but=r"^2\]")
@pytest.mark.parametrize("factor", [1, 2])
def test_compiled_restarts_come_at_their_step(factor):
    for period in (41, 47, 49, 55, 98, 103):
        starts = period * np.cumsum([0, *(factor**i for i in range(4))])
        rate = jax.jit(schedules.warm_restarts(1.0, period, factor))
        np.testing.assert_array_equal(rate(jnp.asarray(starts)), 1.0)
