"""Rules that find their own rate: what theory proves of Polyak's step, Barzilai and
Borwein's, and AdGD.
"""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.update_rules import (
    adgd,
    barzilai_borwein,
    dadapt_adamw,
    dowg,
    mechanic,
    momo,
    momo_adam,
    polyak_step,
)

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

CURVATURES = np.array([1.0, 20.0])
START = np.array([3.0, -2.0])


def quadratic(x):
    return 0.5 * jnp.sum(CURVATURES * x**2)


def logistic(x):
    return jnp.sum(jnp.logaddexp(0.0, ROWS @ x)) + 0.05 * jnp.sum(x**2)


ROWS = np.array([[1.0, 2.0], [-1.5, 0.5], [2.0, -1.0], [0.5, 1.0]])
LOGISTIC_SMOOTHNESS = 0.25 * np.linalg.eigvalsh(ROWS.T @ ROWS)[-1] + 0.1


def walk(rule, objective, start, num_steps):
    """x_0, ..., x_T, and of each step the rate, the value and the gradient."""
    rule = optax.with_extra_args_support(rule)

    def step(carry, _):
        x, state = carry
        value, g = jax.value_and_grad(objective)(x)
        updates, state = rule.update(g, state, x, value=value)
        return (x + updates, state), (
            x,
            optax.tree_utils.tree_get(state, "learning_rate"),
            value,
            g,
        )

    (last, state), (x, rate, value, g) = jax.lax.scan(
        step, (start, rule.init(start)), length=num_steps
    )
    path = np.concatenate([x, last[None]])
    return path, np.asarray(rate), np.asarray(value), np.asarray(g), state


@pytest.mark.thorough(
    "a ball; test_polyak_step_comes_nearer_by_the_squared_gap_over_the_gradient has "
    "two other functions"
)
def test_polyak_step_halves_the_way_on_a_ball():
    # On ½ L |x|² the tangent's root is half of the way, whatever L; and with c = 2 it
    # arrives.
    for smoothness in (0.01, 7.0):
        path, rate, *_ = walk(
            polyak_step(),
            lambda x, k=smoothness: 0.5 * k * jnp.sum(x**2),
            jnp.asarray(START),
            20,
        )
        np.testing.assert_allclose(
            path, START * 0.5 ** np.arange(21)[:, None], rtol=1e-12
        )
        np.testing.assert_allclose(rate, 0.5 / smoothness, rtol=1e-12)
    path, *_ = walk(
        polyak_step(2.0), lambda x: 3.5 * jnp.sum(x**2), jnp.asarray(START), 3
    )
    np.testing.assert_allclose(path[1:], 0.0, atol=1e-15)


def test_polyak_step_comes_nearer_by_the_squared_gap_over_the_gradient():
    # Polyak (1969): |x_(t+1) - x*|² <= |x_t - x*|² - (f - f*)² / |g|²; of an L-smooth,
    # m-convex f, at most (1 - m / 4L) as far.
    path, rate, value, g, _ = walk(polyak_step(), quadratic, jnp.asarray(START), 60)
    away = np.sum(path**2, axis=1)
    assert np.all(away[1:] <= away[:-1] - value**2 / np.sum(g**2, axis=1) + 1e-15)
    assert np.all(away[1:] <= (1 - 1.0 / (4 * 20.0)) * away[:-1])
    assert np.all(rate >= 1 / (2 * 20.0) - 1e-15)
    # And on a sharp function, f = |x|_1, where no constant rate converges,
    # geometrically.
    sharp = lambda x: jnp.sum(jnp.abs(x))
    path, *_ = walk(polyak_step(), sharp, jnp.asarray([3.0, -2.2]), 40)
    away = np.linalg.norm(path, axis=1)
    assert np.all(away[1:] <= away[:-1] * np.sqrt(0.5) + 1e-300)


def test_polyak_step_keeps_its_limit_and_stands_still_below_f_min():
    _, rate, value, g, _ = walk(
        polyak_step(0.5, f_min=-1.0, max_learning_rate=0.04, eps=0.1),
        quadratic,
        jnp.asarray(START),
        30,
    )
    np.testing.assert_allclose(
        rate,
        0.5 * np.minimum((value + 1) / (np.sum(g**2, axis=1) + 0.1), 0.04),
        rtol=1e-14,
    )
    assert np.any(rate == 0.02)
    assert np.any(rate < 0.02)
    for positive_part, expected in ((False, 3.0), (True, 0.0)):
        rule, x = polyak_step(f_min=5.0, positive_part=positive_part), jnp.array([2.0])
        updates, state = rule.update(jnp.array([1.0]), rule.init(x), x, value=2.0)
        np.testing.assert_array_equal(updates, [expected])
        assert state.learning_rate == -expected
    updates, state = (rule := polyak_step()).update(
        jnp.zeros(2), rule.init(jnp.zeros(2)), value=1.0
    )
    np.testing.assert_array_equal(updates, 0.0)
    updates, _ = rule.update(jnp.ones(2), state, value=jnp.nan)
    assert np.all(np.isnan(updates))


def exact_walk(start, first, num_steps, short):
    """Barzilai and Borwein on ½ Σ λ x² in rationals, where s = -η g_(t-1) and y = λ
    s.
    """
    curvatures, x, step, path = (
        (Fraction(1), Fraction(20)),
        [Fraction(v) for v in start],
        Fraction(first),
        [],
    )
    for _ in range(num_steps):
        path.append((x, step))
        g = [c * v for c, v in zip(curvatures, x, strict=True)]
        x = [v - step * d for v, d in zip(x, g, strict=True)]
        moments = [
            sum(c**k * d**2 for c, d in zip(curvatures, g, strict=True))
            for k in range(3)
        ]
        step = moments[1] / moments[2] if short else moments[0] / moments[1]
    return path


@pytest.mark.parametrize("short", [False, True])
def test_barzilai_borwein_takes_the_exact_step_of_the_iterate_before(short):
    # On a quadratic the long step is Cauchy's (gᵀg / gᵀAg) one iterate late, the short
    # one that of least gradient.
    path, rate, *_ = walk(
        barzilai_borwein(0.125, short), quadratic, jnp.asarray(START), 7
    )
    expected = exact_walk(START, Fraction(1, 8), 7, short)
    np.testing.assert_allclose(rate, [float(step) for _, step in expected], rtol=1e-10)
    np.testing.assert_allclose(
        path[:-1], [[float(v) for v in x] for x, _ in expected], rtol=1e-10, atol=1e-15
    )
    assert np.all((rate[1:] >= 1 / 20 - 1e-12) & (rate[1:] <= 1 + 1e-12))


def test_barzilai_borwein_is_superlinear_in_two_dimensions():
    # Barzilai & Borwein (1988), section 4: in the plane the gradient vanishes
    # R-superlinearly (exact, for floats soon end).
    path = exact_walk(START, Fraction(1, 8), 16, short=False)
    squares = [x[0] ** 2 + 400 * x[1] ** 2 for x, _ in path]
    digits = [
        (math.log10(s.denominator) - math.log10(s.numerator)) / 2 for s in squares
    ]
    digits_gained = [digits[k + 5] - digits[k] for k in (0, 5, 10)]
    assert digits_gained[0] < digits_gained[1] < digits_gained[2]
    found, *_ = walk(barzilai_borwein(0.125), quadratic, jnp.asarray(START), 16)
    assert np.linalg.norm(found[-1]) < 1e-12
    assert (19 / 21) ** 16 > 0.1  # Where the best constant rate would be.


def test_barzilai_borwein_ends_in_two_steps_where_all_curvatures_are_one():
    path, *_ = walk(
        barzilai_borwein(0.125), lambda x: 2.0 * jnp.sum(x**2), jnp.asarray(START), 4
    )
    np.testing.assert_allclose(path[2:], 0.0, atol=1e-15)


def test_long_step_is_the_longer():
    x, before = jnp.asarray(START), jnp.array([1.0, 1.0])
    for seed in range(2):
        a = np.random.default_rng(seed).standard_normal((2, 2))
        slope = lambda x, a=a: a @ (a.T @ x) + 0.01 * x
        rates = []
        for short in (False, True):
            rule = barzilai_borwein(0.1, short)
            _, state = rule.update(slope(before), rule.init(before), before)
            rates.append(float(rule.update(slope(x), state, x)[1].learning_rate))
        assert 0 < rates[1] <= rates[0]


def test_barzilai_borwein_keeps_its_rate_where_there_is_no_curvature_and_counts():
    rule, x = barzilai_borwein(0.25), jnp.array([1.0])
    _, state = rule.update(jnp.array([1.0]), rule.init(x), x)
    assert (state.refused, state.count, state.learning_rate) == (0, 1, 0.25)
    _, state = rule.update(
        jnp.array([0.5]), state, jnp.array([2.0])
    )  # The slope fell as x grew: concave.
    _, state = rule.update(
        jnp.array([0.5]), state, jnp.array([2.0])
    )  # It did not move.
    assert (state.refused, state.count, state.learning_rate) == (2, 3, 0.25)
    updates, state = rule.update(jnp.array([jnp.nan]), state, jnp.array([3.0]))
    assert np.isnan(state.learning_rate)
    assert np.all(np.isnan(updates))


@pytest.mark.thorough(
    "the other pairs of function and first step", but=r"^0\.4-logistic"
)
@pytest.mark.parametrize(
    ("objective", "smoothness"), [(quadratic, 20.0), (logistic, LOGISTIC_SMOOTHNESS)]
)
@pytest.mark.parametrize("first", [1e-6, 1e-2, 0.4])
def test_adgd_keeps_its_steps_above_half_the_inverse_smoothness_and_its_energy_falls(
    objective, smoothness, first
):
    # Malitsky & Mishchenko (2020): λ_k >= 1 / 2L for k >= 1, and the energy of their
    # theorem 1, |x_(k+1) - x*|² + ½ |x_(k+1) - x_k|² + 2 λ_k (1 + θ_k) (f(x_k) - f*),
    # never grows.
    path, rate, value, *_ = walk(adgd(first), objective, jnp.asarray(START), 120)
    moved = np.sum(np.diff(path, axis=0) ** 2, axis=1)
    far = moved[:-1] > 1e-14  # Nearer, differences of gradients are rounding.
    assert np.all(rate[1:][far] >= 1 / (2 * smoothness) * (1 - 1e-6))
    assert np.sum(far) > 20
    best = walk(adgd(first), objective, jnp.asarray(START), 800)
    best, least = best[0][-1], best[2].min()
    theta = rate[1:] / rate[:-1]
    assert np.all(theta[1:] <= np.sqrt(1 + theta[:-1]) * (1 + 1e-12))
    away = np.sum((path - best) ** 2, axis=1)
    energy = (
        away[2:] + 0.5 * moved[1:] + 2 * rate[1:] * (1 + theta) * (value[1:] - least)
    )
    assert np.all(np.diff(energy) <= 1e-9 * energy[:-1] + 1e-14)
    assert energy[-1] < 1e-4 * energy[0]


def test_adgd_second_step_does_not_depend_on_the_first():
    # θ_0 is infinite, so λ_1 = |s| / (2 |y|), which on a ball is 1 / 2L.
    for first in (1e-4, 10.0):
        _, rate, *_ = walk(
            adgd(first), lambda x: 1.5 * jnp.sum(x**2), jnp.asarray(START), 3
        )
        np.testing.assert_allclose(rate, [first, 1 / 6, 1 / 6], rtol=1e-9)


def test_adgd_stays_where_it_stands_and_shows_nan():
    rule, x = adgd(0.25), jnp.array([1.0])
    state = rule.init(x)
    _, state = rule.update(jnp.zeros(1), state, x)
    _, state = rule.update(jnp.zeros(1), state, x)  # It did not move.
    assert state.learning_rate == 0.25
    _, state = rule.update(
        jnp.zeros(1), state, x + 1
    )  # It was moved, and the gradient did not change: flat.
    assert state.learning_rate == 0.25
    updates, state = rule.update(jnp.array([jnp.nan]), state, x)
    assert np.isnan(state.learning_rate)
    assert np.all(np.isnan(updates))


@pytest.mark.on_ci("all but adgd", but="rule1")
@pytest.mark.parametrize(
    "rule",
    [
        *(barzilai_borwein(0.1), adgd(0.1), polyak_step()),
        # The steps of these depend on estimates over all leaves, too.
        *(dowg(initial_distance=1.0), mechanic(initial_scale=1.0)),
        *(dadapt_adamw(), momo(), momo_adam(1.0)),
    ],
)
def test_rates_count_all_leaves_as_one_vector(rule):
    rule = optax.with_extra_args_support(rule)
    gradients = jnp.asarray(np.random.default_rng(0).standard_normal((4, 5)))
    split = lambda v: {"w": v[:4].reshape(2, 2), "b": v[4], "none": v[:0]}

    def updates_of(tree_of):
        x, found = tree_of(jnp.zeros(5)), []
        state, update = rule.init(x), jax.jit(functools.partial(rule.update, value=1.0))
        for g in gradients:
            updates, state = update(tree_of(g), state, x)
            x = optax.apply_updates(x, updates)
            found.append(x)
        return found

    for whole, parts in zip(updates_of(lambda v: v), updates_of(split), strict=True):
        np.testing.assert_allclose(parts["w"], whole[:4].reshape(2, 2), rtol=1e-13)
        np.testing.assert_allclose(parts["b"], whole[4], rtol=1e-13)


def test_what_a_rule_needs_is_asked_for():
    x = jnp.ones(2)
    for rule, message in (
        (
            polyak_step(),
            (
                r"polyak_step needs the objective's value; call update\(grads, state, "
                r"params, value=value\)"
            ),
        ),
        (
            barzilai_borwein(),
            r"barzilai_borwein needs the params; call update\(grads, state, params\)",
        ),
        (adgd(), r"adgd needs the params; call update\(grads, state, params\)"),
    ):
        with pytest.raises(ValueError, match=message):
            rule.update(x, rule.init(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: polyak_step(-1.0),
            "learning_rate must be a finite number, at least 0",
        ),
        (
            lambda: polyak_step(f_min=np.inf),
            "f_min must be a finite number; got f_min=inf",
        ),
        (
            lambda: polyak_step(f_min="0"),
            "f_min must be a finite number; got f_min='0'",
        ),
        (
            lambda: polyak_step(max_learning_rate=-1.0),
            "max_learning_rate must be a finite number, at least 0",
        ),
        (lambda: polyak_step(eps=-1.0), "eps must be a finite number, at least 0"),
        (
            lambda: polyak_step(positive_part=1),
            "positive_part must be True or False; got positive_part=1",
        ),
        (
            lambda: barzilai_borwein(np.nan),
            "learning_rate must be a finite number, at least 0",
        ),
        (
            lambda: barzilai_borwein(0.1, "long"),
            "short must be True or False; got short='long'",
        ),
        (lambda: adgd(0.0), "learning_rate must be a finite number, positive"),
    ],
)
def test_bad_argument_raises(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
