"""Gradient descent, momentum and signs: the rates that theory proves, with its
constants, and identities.
"""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.update_rules import (
    ema_momentum,
    gradient_descent,
    heavy_ball,
    nesterov,
    sign_descent,
    signum,
)
from research.update_rules._first_order import MomentumState
from research.update_rules._tuning import (
    gradient_descent_rate,
    heavy_ball_constants,
    nesterov_constants,
    nesterov_momentum,
    tuned_nesterov_constants,
)
from research.verification import trajectory

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

GRADIENTS = jnp.asarray(
    np.exp(np.random.default_rng(0).uniform(-3, 3, (50, 4))) * [1.0, -1.0, 1.0, -1.0]
)


def updates_of(rule, gradients):
    """The updates a rule answers to rows of gradients; params stay where they are."""
    params = jnp.zeros_like(gradients[0])

    def step(state, g):
        updates, state = rule.update(g, state, params)
        return state, updates

    return jax.lax.scan(step, rule.init(params), gradients)[1]


def test_gradient_descent_contracts_each_eigendirection():
    # On ½ Σ λ x², x_(t+1) = (1 - η λ) x_t; its derivative by η at step t is -t λ (1 - η
    # λ)^(t-1) x_0.
    eigenvalues, rate, t = np.array([1.0, 10.0, 100.0]), 0.019, np.arange(41)[:, None]

    def path(rate):
        return trajectory(
            gradient_descent(rate), lambda x: eigenvalues * x, jnp.ones(3), 40
        )

    contraction = 1 - rate * eigenvalues[None]
    np.testing.assert_allclose(path(rate), contraction**t, rtol=1e-13)
    slope = -t * eigenvalues[None] * contraction ** np.maximum(t - 1, 0)
    np.testing.assert_allclose(jax.jacfwd(path)(rate), slope, rtol=1e-13)


@pytest.mark.thorough("the other numbers of steps", but="10")
@pytest.mark.parametrize("num_steps", [1, 5, 10, 50])
def test_gradient_descent_attains_its_bound_on_a_huber_function(num_steps):
    # Drori & Teboulle, Math. Program. 145 (2014): with step 1 / L no convex function is
    # worse, f(x_N) - f* = L R² / (4 N + 2).
    smoothness, radius = 2.0, 3.0
    knee = radius / (2 * num_steps + 1)
    slope = lambda x: smoothness * jnp.clip(x, -knee, knee)
    last = float(
        trajectory(
            gradient_descent(1 / smoothness), slope, jnp.array(radius), num_steps
        )[-1]
    )
    assert last >= knee
    gap = smoothness * knee * last - smoothness * knee**2 / 2
    assert gap == pytest.approx(smoothness * radius**2 / (4 * num_steps + 2), rel=1e-14)


@pytest.mark.parametrize(
    ("kappa", "factor"), [(10, 0.818182), (100, 0.980198), (1000, 0.998002)]
)
def test_gradient_descent_contracts_by_its_best_factor(kappa, factor):
    # On diag(1, κ) from (1, 1) both entries shrink by (κ - 1) / (κ + 1) a step, one of
    # them changing its sign.
    path = trajectory(
        gradient_descent(gradient_descent_rate(kappa, 1.0)),
        lambda x: np.array([1.0, kappa]) * x,
        jnp.ones(2),
        50,
    )
    assert (kappa - 1) / (kappa + 1) == pytest.approx(factor, abs=1e-6)
    np.testing.assert_allclose(
        path[1:] / path[:-1],
        np.tile([[1, -1]], (50, 1)) * (kappa - 1) / (kappa + 1),
        rtol=1e-12,
    )


def spectral_radii(make_rule, constants, curvatures):
    """Of the linear maps (x, state) -> (x, state) of one step on ½ Σ λ x², by rows of
    constants (rate, momentum).
    """
    zero = jnp.zeros(len(curvatures))

    def linear_map(rate, momentum):
        rule = make_rule(rate, momentum)
        start, unravel = jax.flatten_util.ravel_pytree((zero, rule.init(zero)))

        def step(flat):
            x, state = unravel(flat)
            updates, state = rule.update(curvatures * x, state, x)
            return jax.flatten_util.ravel_pytree((x + updates, state))[0]

        return jax.jacfwd(step)(start)

    maps = jax.jit(jax.vmap(linear_map))(*jnp.asarray(constants).T)
    return np.max(np.abs(np.linalg.eigvals(maps)), axis=1)


def test_momentum_has_its_spectral_radius():
    # On diag(m, κ m), with √κ = r: Polyak's constants have (r - 1) / (r + 1),
    # Nesterov's 1 - 1 / r, and those that Lessard, Recht & Packard tune 1 - 2 / √(3 κ +
    # 1). Double eigenvalues are known to √eps.
    strong, kappas = 0.5, np.array([10.0, 100.0, 1000.0])
    r = np.sqrt(kappas)
    for make_rule, constants, theory, printed in (
        (
            heavy_ball,
            heavy_ball_constants,
            (r - 1) / (r + 1),
            (0.519494, 0.818182, 0.938693),
        ),
        (nesterov, nesterov_constants, 1 - 1 / r, (0.683772, 0.9, 0.968377)),
        (
            nesterov,
            tuned_nesterov_constants,
            1 - 2 / np.sqrt(3 * kappas + 1),
            (0.640789, 0.884722, 0.963491),
        ),
    ):
        for kappa, of_theory, in_print in zip(kappas, theory, printed, strict=True):
            found = spectral_radii(
                make_rule,
                [constants(kappa * strong, strong)],
                strong * np.array([1.0, kappa]),
            )[0]
            assert found == pytest.approx(of_theory, abs=1e-6)
            assert found == pytest.approx(in_print, abs=1e-6)


@pytest.mark.thorough(
    "Nesterov's; test_momentum_has_its_spectral_radius has the printed radii",
    but=r"^heavy_ball",
)
@pytest.mark.parametrize(
    "constants", [heavy_ball_constants, nesterov_constants, tuned_nesterov_constants]
)
def test_tuned_constants_are_where_no_neighbour_is_better(constants):
    # Each is the best pair of its rule on quadratics, or (Nesterov's) the best momentum
    # at the rate 1 / L.
    rate, momentum = constants(50.0, 1.0)
    neighbours = [(rate, 0.97 * momentum), (rate, 1.03 * momentum)]
    if constants is not nesterov_constants:
        neighbours += [(0.97 * rate, momentum), (1.03 * rate, momentum)]
    make_rule = heavy_ball if constants is heavy_ball_constants else nesterov
    best, *others = spectral_radii(
        make_rule, [(rate, momentum), *neighbours], np.geomspace(1.0, 50.0, 12)
    )
    assert min(others) > best + 1e-4


def test_heavy_ball_cycles_on_the_counter_example():
    # Lessard, Recht & Packard, SIAM J. Optim. 26 (2016), section 4.6: f' = 25 x, then x
    # + 24, then 25 x - 24.
    def exact_slope(x):
        return 25 * x if x < 1 else x + 24 if x < 2 else 25 * x - 24

    cycle = [Fraction(n, 1225) for n in (792, -2208, 2592)]
    x, velocity = cycle[0], (cycle[2] - cycle[0]) * 9  # x_0 = x_(-1) - η m_0.
    for t in range(9):
        assert x == cycle[t % 3]
        velocity = Fraction(4, 9) * velocity + exact_slope(x)
        x -= velocity / 9

    def slope(x):
        return jnp.where(x < 1, 25 * x, jnp.where(x < 2, x + 24, 25 * x - 24))

    rule = heavy_ball(1 / 9, 4 / 9)
    _, descending = rule.init(jnp.array(0.0))
    x, state = (
        jnp.array(792 / 1225),
        (MomentumState(jnp.array(float((cycle[2] - cycle[0]) * 9))), descending),
    )
    for t in range(9):
        assert float(x) == pytest.approx(float(cycle[t % 3]), abs=1e-14)
        updates, state = rule.update(slope(x), state)
        x += updates
    paths = np.asarray(
        trajectory(rule, slope, jnp.array([3.06, 3.07, 3.3, 3.46, 3.47]), 300)
    ).T
    for path, is_caught in zip(paths, (False, True, True, True, False), strict=True):
        np.testing.assert_allclose(
            np.sort(path[-3:]),
            np.sort([float(c) for c in cycle]) if is_caught else 0.0,
            rtol=1e-12,
            atol=1e-12,
        )
    assert trajectory(gradient_descent(2 / 26), slope, jnp.array(3.3), 300)[
        -1
    ] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.thorough(
    "bounds on the worst function; laws/test_every_rule.py has the formulas of these "
    "rules"
)
@pytest.mark.parametrize("num_steps", [5, 50])
def test_no_rule_beats_the_lower_bound_and_nesterov_keeps_the_upper_one(num_steps):
    # Nesterov's worst function in n = 2 k + 1: after k steps along spans of gradients
    # the gap is at least 3 L R² / (32 (k + 1)²), and with momentum t / (t + 3) or his
    # own at most 2 L R² / (k + 1)², at each k.
    n, k = 2 * num_steps + 1, np.arange(1, num_steps + 1)
    a = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    gradient = lambda x: (a @ x - np.eye(n)[0]) / 4  # L = 1.
    value = lambda x: (0.5 * np.einsum("ti,ij,tj->t", x, a, x) - x[:, 0]) / 4
    best = 1 - np.arange(1, n + 1) / (n + 1)
    least, radius2 = (-1 + 1 / (n + 1)) / 8, np.sum(best**2)
    assert value(best[None])[0] == pytest.approx(least, abs=1e-14)
    a_t = [1.0]
    for _ in range(num_steps):
        a_t.append((1 + np.sqrt(4 * a_t[-1] ** 2 + 1)) / 2)
    own = jnp.asarray([(now - 1) / after for now, after in itertools.pairwise(a_t)])
    gaps = {}
    for name, rule in (
        ("descent", gradient_descent(1.0)),
        ("ball", heavy_ball(1.0, 0.9)),
        ("nesterov", nesterov(1.0, nesterov_momentum)),
        ("nesterov's own", nesterov(1.0, lambda t: own[t])),
    ):
        path = np.asarray(trajectory(rule, gradient, jnp.zeros(n), num_steps))
        if name.startswith(
            "nesterov"
            # The params are where it looked ahead to; the theorem is about where it
            # stepped.
        ):
            path = np.concatenate(
                [path[:1], path[:-1] - (path[:-1] @ a - np.eye(n)[:1]) / 4]
            )
        gaps[name] = value(path)[1:] - least
        assert gaps[name][-1] >= 3 * radius2 / (32 * (num_steps + 1) ** 2), name
    for name in ("nesterov", "nesterov's own"):
        assert np.all(gaps[name] <= 2 * radius2 / (k + 1) ** 2), name
    if num_steps == 50:
        assert radius2 == pytest.approx(33.50163, abs=1e-5)
        assert gaps["descent"][-1] == pytest.approx(0.0127919, abs=1e-7)
        assert gaps["nesterov's own"][-1] == pytest.approx(0.0038177, abs=1e-7)


def test_nesterov_takes_the_gradient_at_the_look_ahead_point():
    # The paper's two sequences: x_(t+1) = y_t - η ∇f(y_t), y_(t+1) = x_(t+1) + μ
    # (x_(t+1) - x_t). Ours keeps y.
    rate, start = 0.3, np.array([2.0, -1.0])
    for momentum in (0.8, nesterov_momentum, lambda t: 0.5 + 0.4 / (t + 1)):
        x = y = start
        looks = [y]
        for t in range(30):
            ahead = y - rate * np.tanh(y)
            mu = float(momentum(t)) if callable(momentum) else momentum
            y, x = ahead + mu * (ahead - x), ahead
            looks.append(y)
        found = trajectory(nesterov(rate, momentum), jnp.tanh, jnp.asarray(start), 30)
        np.testing.assert_allclose(found, looks, atol=1e-14)


def test_a_constant_schedule_of_momentum_is_the_constant():
    found = updates_of(nesterov(0.1, lambda t: 0.9), GRADIENTS)
    np.testing.assert_allclose(
        found, updates_of(nesterov(0.1, 0.9), GRADIENTS), rtol=1e-14
    )


def test_average_form_is_the_heavy_ball_at_a_smaller_rate():
    found = updates_of(ema_momentum(0.3, 0.9), GRADIENTS)
    np.testing.assert_allclose(
        found, updates_of(heavy_ball(0.3 * (1 - 0.9), 0.9), GRADIENTS), rtol=1e-13
    )


def test_average_form_is_the_weighted_sum():
    t = np.arange(50)
    weights = np.where(
        t[None] <= t[:, None], 0.2 * 0.8 ** np.maximum(t[:, None] - t[None], 0), 0.0
    )
    np.testing.assert_allclose(
        updates_of(ema_momentum(0.5, 0.8), GRADIENTS),
        -0.5 * weights @ GRADIENTS,
        rtol=1e-12,
    )
    weights[:, 0] /= 0.2  # torch's first step is undamped.
    found = updates_of(ema_momentum(0.5, 0.8, undamped_start=True), GRADIENTS)
    np.testing.assert_allclose(found, -0.5 * weights @ GRADIENTS, rtol=1e-12)


def test_signs_are_steps_of_the_rate():
    np.testing.assert_array_equal(
        updates_of(sign_descent(0.25), GRADIENTS), -0.25 * np.sign(GRADIENTS)
    )
    still = updates_of(sign_descent(0.25), jnp.array([[0.0, -0.0, np.nan]]))
    np.testing.assert_array_equal(still, [[0.0, 0.0, np.nan]])


def test_signum_is_the_sign_of_the_heavy_ball():
    drawn = jnp.asarray(np.random.default_rng(1).standard_normal((50, 4)))
    found = updates_of(signum(0.25, 0.9), drawn)
    np.testing.assert_array_equal(
        found, 0.25 * np.sign(updates_of(heavy_ball(1.0, 0.9), drawn))
    )
    np.testing.assert_array_equal(
        updates_of(signum(0.25, 0.0), drawn), updates_of(sign_descent(0.25), drawn)
    )
    assert np.any(found != updates_of(sign_descent(0.25), drawn))


def test_sign_descent_reaches_the_box_of_its_rate_and_stays():
    # On a separable convex function each coordinate walks to its minimum, and then
    # steps over it for ever.
    path = np.asarray(
        trajectory(
            sign_descent(0.3),
            lambda x: np.array([1.0, 1e6, 1e-6]) * x,
            jnp.array([2.0, -1.0, 1.1]),
            40,
        )
    )
    assert np.all(np.abs(path[10:]) <= 0.3 + 1e-12)
    np.testing.assert_allclose(np.abs(np.diff(path, axis=0)), 0.3, rtol=1e-12)


@pytest.mark.parametrize(
    ("constants", "bad", "message"),
    [
        (
            heavy_ball_constants,
            (0.0, 1.0),
            "smoothness must be a finite number, positive",
        ),
        (
            nesterov_constants,
            (1.0, 0.0),
            "strong_convexity must be a finite number, positive",
        ),
        (
            tuned_nesterov_constants,
            (1.0, 2.0),
            "strong_convexity must be at most smoothness",
        ),
        (
            gradient_descent_rate,
            (1.0, np.nan),
            "strong_convexity must be a finite number",
        ),
    ],
)
def test_bad_curvatures_raise(constants, bad, message):
    with pytest.raises(ValueError, match=message):
        constants(*bad)


def test_constants_may_be_traced():
    for constants in (
        heavy_ball_constants,
        nesterov_constants,
        tuned_nesterov_constants,
    ):
        many = jax.vmap(lambda m, c=constants: c(9.0, m))(jnp.array([1.0, 4.0]))
        np.testing.assert_allclose(
            many, np.transpose([constants(9.0, 1.0), constants(9.0, 4.0)]), rtol=1e-14
        )


def test_bad_flag_raises():
    with pytest.raises(
        TypeError, match=r"undamped_start must be True or False; got undamped_start=0.9"
    ):
        ema_momentum(0.1, 0.9, 0.9)  # pyright: ignore[reportArgumentType]


def test_state_records_the_rate_beside_a_schedule_of_momentum():
    rule = nesterov(lambda t: 0.5 / (1 + t), nesterov_momentum)
    state = rule.init(jnp.ones(2))
    for t in range(3):
        _, state = rule.update(jnp.ones(2), state)
        assert optax.tree_utils.tree_get(state, "learning_rate") == 0.5 / (1 + t)


@pytest.mark.thorough("a million steps; laws/test_every_rule.py has the formula")
def test_gradient_descent_on_separable_classes_finds_the_largest_margin():
    # Soudry et al., The implicit bias of gradient descent on separable data, JMLR 19
    # (2018): the direction tends to that of the largest margin, here (1, 1) / √2 with
    # margin √2, and t · loss · η · margin² to 1. A million steps of η = 1/2.
    examples, rate, num_steps = jnp.array([[0.5, 1.5], [1.5, 0.5]]), 0.5, 10**6
    loss = lambda w: (
        2.0 * jnp.sum(jnp.logaddexp(0.0, -examples @ w))
    )  # Each example and its mirror image.
    rule = gradient_descent(rate)

    def step(_, w):
        return w + rule.update(jax.grad(loss)(w), rule.init(w))[0]

    w = jax.jit(lambda w: jax.lax.fori_loop(0, num_steps, step, w))(
        jnp.array([0.3, -0.2])
    )
    direction = w / jnp.linalg.norm(w)
    assert jnp.min(examples @ direction) == pytest.approx(1.41355, abs=5e-6)
    assert 1.0 - jnp.sum(direction) / np.sqrt(2.0) == pytest.approx(4.4e-7, abs=5e-9)
    assert num_steps * loss(w) * rate * 2.0 == pytest.approx(1.0, abs=5e-5)
