"""Newton's rules and the natural gradient: their rates, saddles, singular Hessians,
published optima, and bad input.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree

from research import descent, losses, models, objectives
from research.types import Batch, Outcome
from research.update_rules import _second_order as second_order
from research.update_rules._natural_gradient import canonical_fisher, natural_gradient
from research.update_rules._newton import newton, trust_region_newton, trust_region_step
from research.verification import FORMULAS, PROBLEMS
from research.verification.walks import distance, walk, walk_exactly

COMPILE_QUICKLY = True  # tests/conftest.py

EPS = np.finfo("float64").eps


STEPS = 40


def quadratic(x):
    return 0.5 * x @ jnp.array([[4.0, 1.0], [1.0, 3.0]]) @ x - x[0]


def smooth(x):
    """Convex, minimal at 0, with third derivatives: Newton's error is squared, not
    better.
    """
    return jnp.sum(jnp.exp(x) - x)


def rosenbrock(x):
    return (1.0 - x[0]) ** 2 + 100.0 * (x[1] - x[0] ** 2) ** 2


def saddle(x):
    """Minima of -1/4 at (0, ±1), a saddle at 0."""
    return x[0] ** 2 + x[1] ** 4 / 4 - x[1] ** 2 / 2


def log_cosh(x):
    """Newton's full step overshoots from beyond |x| = 1.0886."""
    return jnp.sum(jax.nn.softplus(2 * x) - x)


def plane(x):
    return x[0] - 2.0 * x[1]


FUNCTIONS = (quadratic, smooth, rosenbrock, saddle, log_cosh, plane)
NO_SEARCH = functools.partial(newton, line_search=False)
STOP = functools.partial(newton, indefinite="stop")
KEEP = functools.partial(newton, indefinite="keep", line_search=False)


@functools.cache
def program(make):
    """Forty steps of a rule on each of the functions, at any rate and coordinates."""

    @jax.jit
    def run(rate, which, x, coordinates):
        rule = make(rate)
        f = lambda z, indices=None: jax.lax.switch(which, FUNCTIONS, coordinates @ z)

        def step(carry, _):
            x, state = carry
            value, g = jax.value_and_grad(f)(x)
            updates, state = rule.update(g, state, x, value=value, value_fn=f)
            return (x + updates, state), (x + updates, state)

        return jax.lax.scan(step, (x, rule.init(x)), length=STEPS)[1]

    return run


def path(make, f, x, num_steps, rate=1.0, coordinates=((1.0, 0.0), (0.0, 1.0))) -> Any:
    """Iterates, x_0 first, and the states after each step."""
    x, run = np.array(x), program(make)
    points, states = run(rate, FUNCTIONS.index(f), x, np.array(coordinates))
    first = jax.tree.map(lambda a: a[:num_steps], (np.asarray(points), states))
    return np.concatenate([x[None], first[0]]), first[1]


@functools.cache
def one_answer(make, f, **functions):
    value_fn = None if f is None else lambda x, indices=None: f(x)

    @jax.jit
    def run(rate, g, x, grad):
        rule = make(rate)
        more = {"value_fn": value_fn, "grad": grad, **functions}
        return rule.update(g, rule.init(x), x, **more)

    return run


def answer(make, g, x, f=None, grad=None, rate=1.0, **functions) -> Any:
    """What a rule answers to one gradient, compiled: (updates, state)."""
    run = one_answer(make, f, **functions)
    return run(rate, g, x, g if grad is None else grad)


@pytest.mark.on_ci("test_every_rule.py has Newton's formula")
@pytest.mark.thorough(
    "the other rules, of which make test has the walks or a step that is Newton's",
    but=r"^newton",
)
@pytest.mark.parametrize(
    ("make", "rate"),
    [(newton, 1.0), (trust_region_newton, 10.0), (natural_gradient, 1.0)],
)
def test_one_step_minimises_a_quadratic(make, rate):
    points, _ = path(make, quadratic, [3.0, -2.0], 1, rate)
    np.testing.assert_allclose(points[1], np.array([3.0, -1.0]) / 11.0, rtol=1e-14)


@pytest.mark.on_ci(
    "six steps; laws/test_every_rule.py has Newton's formula in fifty digits"
)
@pytest.mark.thorough(
    "the trust region; test_walk_is_that_of_the_formula has its steps", but=r"^newton"
)
@pytest.mark.parametrize(("make", "rate"), [(newton, 1.0), (trust_region_newton, 10.0)])
def test_right_digits_double_with_every_step(make, rate):
    # With e the error, e_next / e² -> f''' / (2 f'') = 1/2 at the minimum of
    # exp(x) - x.
    points, _ = path(make, smooth, [1.0, 0.0], 6, rate)
    errors = np.abs(points[:, 0])
    ratios = errors[1:] / errors[:-1] ** 2
    np.testing.assert_allclose(ratios[2:4], 0.5, rtol=0.02)
    digits = -np.log10(np.maximum(errors, 1e-17))
    assert np.all(digits[2:5] >= 2.0 * digits[1:4])
    assert digits[6] >= 15


@pytest.mark.thorough(
    "half of the step; test_walk_is_that_of_the_formula has seven eighths"
)
def test_a_fraction_of_the_step_converges_linearly_alone():
    errors = np.abs(path(NO_SEARCH, smooth, [0.01, 0.0], 20, 0.5)[0][:, 0])
    np.testing.assert_allclose(errors[10:] / errors[9:-1], 0.5, rtol=1e-3)


def test_newton_does_not_see_the_coordinates():
    # In coordinates z with x = A z the steps are the same steps: f(A z) from A⁻¹ x_0.
    a = np.array([[3.0, 1.0], [-2.0, 5e-3]])
    points, _ = path(newton, rosenbrock, [-1.25, 1.0], 12)
    start = np.linalg.solve(a, points[0])
    turned, _ = path(newton, rosenbrock, start, 12, coordinates=a)
    np.testing.assert_allclose(turned @ a.T, points, rtol=1e-9)


def test_backtracking_saves_newton_where_the_full_step_diverges():
    with_search, states = path(newton, log_cosh, [3.0, 0.0], 10)
    assert abs(with_search[-1, 0]) < 1e-15
    assert states.learning_rate[0] < 1.0


@pytest.mark.thorough(
    "no search; test_natural_gradient_of_a_canonical_link_is_newton has none either"
)
def test_the_full_step_diverges_from_where_backtracking_saves_it():
    assert not abs(path(NO_SEARCH, log_cosh, [3.0, 0.0], 4)[0][-1, 0]) < 1e3


@pytest.mark.thorough(
    "the trust region; test_mgh.py has a minimum of it", but=r"^newton\]"
)
@pytest.mark.parametrize("make", [newton, trust_region_newton])
def test_minimum_is_that_of_scipy(make):
    start = np.array([-1.25, 1.0])
    found = scipy.optimize.minimize(
        jax.jit(rosenbrock),
        start,
        method="trust-exact",
        jac=jax.jit(jax.grad(rosenbrock)),
        hess=jax.jit(jax.hessian(rosenbrock)),
        options={"gtol": 1e-12},
    )
    points, _ = path(make, rosenbrock, start, STEPS)
    np.testing.assert_allclose(points[-1], found.x, rtol=1e-12)


@pytest.mark.on_ci(
    'a second program, for indefinite="stop"; nothing shorter shows this',
    but="reflect",
)
@pytest.mark.parametrize(
    ("make", "end"), [(newton, [0.0, 1.0]), (STOP, [1.0, 0.1])], ids=["reflect", "stop"]
)
def test_a_step_from_negative_curvature_is_what_was_asked_for(make, end):
    points, states = path(make, saddle, [1.0, 0.1], 30)
    np.testing.assert_allclose(points[-1], end, atol=1e-12)
    assert (
        second_order.curvature_in_words(states.curvature[0])
        == "the Hessian has negative curvature"
    )
    assert Outcome(int(states.outcome[0])).words == (
        "no descent direction" if make is STOP else "found"
    )


@pytest.mark.on_ci(
    'a second program, for indefinite="keep"; nothing shorter shows this'
)
def test_newton_left_alone_goes_to_the_saddle():
    points, _ = path(KEEP, saddle, [1.0, 0.1], 10)
    np.testing.assert_allclose(points[-1], 0.0, atol=1e-14)


@pytest.mark.thorough(
    "a walk; the example of trust_region_newton has the step that leaves such a saddle"
)
def test_trust_region_leaves_an_exact_saddle():
    points, states = path(trust_region_newton, saddle, [0.0, 0.0], 12)
    np.testing.assert_allclose(np.abs(points[-1]), [0.0, 1.0], atol=1e-12)
    assert states.curvature[0] == second_order.INDEFINITE


def test_newton_stays_at_an_exact_saddle_and_tells_it():
    stays, states = path(newton, saddle, [0.0, 0.0], 1)
    assert np.all(stays == 0.0)
    assert states.curvature[0] == second_order.INDEFINITE


@pytest.mark.thorough("the other seeds", but="0")
@pytest.mark.parametrize("seed", range(3))
def test_trust_region_step_meets_the_conditions_of_the_exact_minimum(seed):
    # Nocedal & Wright, theorem 4.1: (H + σ I) p = -g, σ (Δ - |p|) = 0, σ >= 0, H + σ I
    # positive semidefinite.
    rng = np.random.default_rng(seed)
    step = jax.jit(trust_region_step)
    a, g = rng.standard_normal((4, 4)), rng.standard_normal(4)
    for h in (a @ a.T, a + a.T, -a @ a.T, np.outer(a[0], a[0])):
        values, vectors = np.linalg.eigh(h)
        for gradient in (g, g - vectors[:, 0] * (vectors[:, 0] @ g), 0 * g, 1e-12 * g):
            for radius in (1e-3, 1.0, 1e3):
                found = step(values, vectors, gradient, radius)
                p, sigma, _ = (np.asarray(a) for a in found)
                scale = max(1.0, np.abs(values).max()) * max(
                    np.linalg.norm(p), np.linalg.norm(gradient), 1e-300
                )
                np.testing.assert_allclose(
                    (h @ p + sigma * p + gradient) / scale, 0.0, atol=64 * EPS
                )
                assert sigma >= 0
                assert values[0] + sigma >= -8 * EPS * np.abs(values).max()
                assert np.linalg.norm(p) <= radius * (1 + 1e-9)
                if sigma > 64 * EPS * np.abs(values).max() and np.any(gradient):
                    assert np.linalg.norm(p) >= radius * (1 - 1e-9)


def test_a_function_without_curvature_is_told():
    _, states = path(newton, plane, [1.0, 1.0], 1)
    assert Outcome(int(states.outcome[0])).words == "singular matrix"
    assert (
        second_order.curvature_in_words(states.curvature[0])
        == "the matrix is singular up to rounding errors"
    )


@pytest.mark.on_ci(
    "two programs; "
    "test_a_step_that_is_refused_keeps_the_gradient_and_not_what_came_in_for_it moves "
    "nothing either"
)
def test_no_descent_is_an_outcome_and_moves_nothing():
    # The gradient is a lie: it points up, where the Hessian is that of the function.
    x = jnp.array([1.0, 1.0])
    updates, state = answer(newton, -jax.grad(quadratic)(x), x, quadratic)
    assert np.all(updates == 0.0)
    assert (state.learning_rate, state.evaluations) == (0.0, 50)
    assert Outcome(int(state.outcome)).words == "evaluations used up"
    keep = functools.partial(newton, indefinite="keep")
    updates, state = answer(keep, jnp.ones(2), x, lambda x: -quadratic(x))
    assert np.all(updates == 0.0)
    assert Outcome(int(state.outcome)).words == "no descent direction"


@pytest.mark.thorough("the trust region", but=r"^newton")
@pytest.mark.parametrize(("make", "rate"), [(newton, 1.0), (trust_region_newton, 1e3)])
def test_a_step_that_is_refused_keeps_the_gradient_and_not_what_came_in_for_it(
    make, rate
):
    x, g = jnp.array([1.0, 1.0]), jnp.array([4.0, 4.0])
    updates, state = answer(make, -100.0 * g, x, quadratic, g, rate)
    assert np.all(updates == 0.0)
    np.testing.assert_array_equal(state.grad_after, g)
    assert state.value_after == quadratic(x)


@pytest.mark.on_ci("steps in bfloat16; nothing shorter shows this")
@pytest.mark.thorough("steps that try nothing; make test rounds x", but="bfloat16")
@pytest.mark.parametrize(
    ("make", "dtype"), [(NO_SEARCH, "float64"), (trust_region_newton, "bfloat16")]
)
def test_nothing_is_kept_of_the_objective_where_nothing_was_tried_or_rounding_moves_x(
    make, dtype
):
    x = jnp.ones(2, dtype)
    _, state = answer(make, x, x, lambda x: jnp.sum(x**2))
    assert state.value_after is state.grad_after is None


@pytest.mark.on_ci("the other rules", but=r"^newton\]")
@pytest.mark.parametrize("make", [newton, trust_region_newton, natural_gradient])
def test_what_is_not_finite_shows(make):
    updates, state = answer(make, jnp.array([1.0, jnp.nan]), jnp.ones(2), quadratic)
    assert np.all(np.isnan(updates))
    assert Outcome(int(state.outcome)).words == "not finite"


@functools.cache
def simulated(n, p):
    """benchopt's simulated data for ℓ2-regularised logistic regression, and 13 steps of
    Newton on it: penalty -> ...

    beta is drawn first, then X, from RandomState(42); y = sign(X beta).
    """
    rng = np.random.RandomState(42)
    beta = rng.randn(p)
    x = rng.randn(n, p)
    y = np.sign(x @ beta)

    @jax.jit
    def solve(penalty):
        f = lambda w: jnp.sum(jax.nn.softplus(-y * (x @ w))) + 0.5 * penalty * w @ w
        rule: Any = newton()

        def step(carry: Any, _):
            w, state = carry
            updates, state = rule.update(
                jax.grad(f)(w), state, w, value_fn=lambda w, indices=None: f(w)
            )
            return (w + updates, state), state.outcome

        start = jnp.zeros(p)
        (w, _), ends = jax.lax.scan(step, (start, rule.init(start)), length=13)
        return f(start), f(w), jnp.linalg.norm(jax.grad(f)(w)), ends

    return solve


# (n, p, λ, f*): published with fifteen digits.
BENCHOPT = [
    (1000, 10, 1.0, 107.10781148637034),
    (1000, 10, 0.01, 22.98927134710869),
    (200, 500, 1.0, 7.148337323130479),
    (200, 500, 0.01, 0.22482228602713628),
]


@pytest.mark.thorough("published optima; test_minimum_is_that_of_scipy has a minimum")
@pytest.mark.parametrize(("n", "p", "penalty", "published"), BENCHOPT)
def test_newton_finds_the_published_optimum_of_benchopt(n, p, penalty, published):
    at_zero, value, slope, ends = simulated(n, p)(penalty)
    assert at_zero == pytest.approx(n * np.log(2), rel=1e-14)
    assert value == pytest.approx(published, rel=1e-13)
    assert slope < 1e-12
    assert np.all(ends == Outcome.FOUND)


def logistic_problem():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3))
    batch = Batch(jnp.asarray(x), jnp.asarray(rng.integers(0, 2, 40)))
    model, penalty = models.logistic(3), objectives.l2_penalty(0.1)
    return (
        model,
        penalty,
        batch,
        objectives.regularised(
            objectives.empirical_risk(model, losses.logistic), penalty
        ),
    )


def softmax_problem():
    rng = np.random.default_rng(1)
    batch = Batch(
        jnp.asarray(rng.standard_normal((40, 3))), jnp.asarray(rng.integers(0, 4, 40))
    )
    model, penalty = models.softmax(3, 4), objectives.l2_penalty(0.1)
    risk = objectives.empirical_risk(model, losses.softmax_cross_entropy)
    return model, penalty, batch, objectives.regularised(risk, penalty)


@pytest.mark.thorough(
    "Hessians; test_natural_gradient_of_a_canonical_link_is_newton has the logistic "
    "one, and test_fisher_matrix_is_the_covariance_of_the_score the softmax"
)
@pytest.mark.parametrize("problem", [logistic_problem, softmax_problem])
def test_fisher_matrix_of_a_canonical_link_is_the_hessian(problem):
    model, penalty, batch, objective = problem()
    flat, unflatten = ravel_pytree(model.init(jax.random.key(0)))
    both = jax.jit(
        lambda z: (
            canonical_fisher(model.apply, batch.x, penalty)(unflatten(z)),
            jax.hessian(lambda z: objective(unflatten(z), batch))(z),
        )
    )
    np.testing.assert_allclose(*both(flat), atol=1e-15)


@pytest.mark.on_ci("descents of two rules; nothing shorter shows this")
@pytest.mark.thorough(
    "no matrix, so that it is the Hessian, as in laws/test_every_rule.py", but="True"
)
@pytest.mark.parametrize("is_given", [True, False])
def test_natural_gradient_of_a_canonical_link_is_newton(is_given):
    model, penalty, batch, objective = logistic_problem()
    fisher_fn = canonical_fisher(model.apply, batch.x, penalty) if is_given else None
    ends = []
    for rule in (natural_gradient(fisher_fn=fisher_fn), newton(line_search=False)):
        init, step = descent.build(objective, rule, batch)
        first = init(model.init(jax.random.key(0)))
        state, info = jax.jit(step)(first, descent.BatchIndices(None))
        ends.append(ravel_pytree(state.params)[0])
        assert info.learning_rate == 1.0
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-13)


@pytest.mark.on_ci("five matrices; the example of canonical_fisher has one")
def test_fisher_matrix_is_the_covariance_of_the_score():
    # F = (1/n) Σ_i Σ_c p_c ∇log p_c ∇log p_cᵀ, class by class; here of a net, whose
    # Hessian is another matrix.
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal((5, 2)))
    params = {
        "a": jnp.asarray(rng.standard_normal((2, 3))),
        "b": jnp.asarray(rng.standard_normal((3, 3))),
    }
    apply = lambda params, x: jnp.tanh(x @ params["a"]) @ params["b"]
    flat, unflatten = ravel_pytree(params)
    log_p = jax.jit(lambda z: jax.nn.log_softmax(apply(unflatten(z), x)))
    scores, p = np.asarray(jax.jit(jax.jacrev(log_p))(flat)), np.exp(log_p(flat))
    expected = np.einsum("nk,nkd,nke->de", p, scores, scores) / 5
    net = jax.jit(canonical_fisher(apply, x))
    np.testing.assert_allclose(net(params), expected, atol=1e-15)
    np.testing.assert_allclose(net(params, jnp.arange(5)), expected, atol=1e-15)
    np.testing.assert_allclose(
        net(params, jnp.array([4, 4])),
        jax.jit(canonical_fisher(apply, x[4:]))(params),
        atol=1e-15,
    )
    logistic = canonical_fisher(lambda w, x: x @ w, x)
    of_two = canonical_fisher(lambda w, x: jnp.stack([jnp.zeros(len(x)), x @ w], 1), x)
    both = jax.jit(lambda w: (logistic(w), of_two(w)))(jnp.ones(2))
    np.testing.assert_allclose(*both, atol=1e-15)


def test_singular_fisher_moves_only_where_it_sees():
    fisher_fn, x, g = (
        lambda x, indices=None: jnp.diag(jnp.array([2.0, 0.0])),
        jnp.ones(2),
        jnp.array([2.0, 1.0]),
    )
    seeing = functools.partial(natural_gradient, fisher_fn=fisher_fn)
    updates, state = answer(seeing, g, x)
    np.testing.assert_allclose(updates, [-1.0, 0.0])
    assert (state.curvature, state.outcome) == (second_order.SINGULAR, Outcome.FOUND)
    stop = functools.partial(natural_gradient, singular="stop")
    updates, state = answer(stop, g, x, fisher_fn=fisher_fn)
    assert np.all(updates == 0.0)
    assert state.outcome == Outcome.SINGULAR


@pytest.mark.on_ci(
    "rates at which trials are refused; laws/test_every_rule.py has the formulas at "
    "another rate"
)
@pytest.mark.parametrize(
    ("name", "rule", "rate"),
    [("newton", newton, 0.875), ("trust_region_newton", trust_region_newton, 1.0)],
)
def test_walk_is_that_of_the_formula(name, rule, rate):
    # In fifty digits, at rates at which trials are refused; measured 51 and 18 eps, of
    # which the valley's condition, 2500, is the cause.
    exact = walk_exactly(
        FORMULAS[name].iterates, PROBLEMS["rosenbrock"], learning_rate=rate
    )
    assert (
        distance(
            walk(rule(rate), PROBLEMS["rosenbrock"]), exact, PROBLEMS["rosenbrock"]
        ).largest
        <= 100 * EPS
    )


@pytest.mark.on_ci(
    "a step on leaves of bfloat16; laws/test_every_rule.py has the dtypes of every rule"
)
@pytest.mark.thorough("the other rules, which flatten as Newton does", but=r"^newton\]")
@pytest.mark.parametrize(
    "make",
    [
        *(newton, trust_region_newton),
        functools.partial(natural_gradient, damping=0.1),
    ],
)
def test_pytrees_with_scalars_empty_leaves_and_narrow_dtypes_are_kept(make):
    params = {
        "w": jnp.ones((2, 1), "bfloat16"),
        "b": jnp.ones((), "bfloat16"),
        "none": jnp.ones((0, 3), "bfloat16"),
    }
    f = lambda p: jnp.sum(p["w"] ** 2) + p["b"] ** 2 + jnp.sum(p["none"])
    g = jax.tree.map(lambda x: 2 * x, params)
    state, (updates, after) = make().init(params), answer(make, g, params, f)
    assert jax.tree.map(lambda u: (u.shape, u.dtype), updates) == jax.tree.map(
        lambda x: (x.shape, x.dtype), params
    )
    assert jax.tree.map(lambda s: s.dtype, state) == jax.tree.map(
        lambda s: s.dtype, after
    )
    assert f(optax.apply_updates(params, updates)) < f(params)


@pytest.mark.parametrize("constructor", [newton, trust_region_newton, natural_gradient])
def test_missing_arguments_are_named(constructor):
    rule, x = constructor(), jnp.ones(2)
    with pytest.raises(
        ValueError,
        match=r"needs value_fn; call update\(grads, state, params, value_fn=value_fn\)",
    ):
        rule.update(x, rule.init(x), x)
    with pytest.raises(ValueError, match="needs params"):
        rule.update(x, rule.init(x), value_fn=quadratic)
    with pytest.raises(TypeError, match="must be floating; updates is int"):
        rule.update(
            jnp.ones(2, int),
            rule.init(x),
            jnp.ones(2, int),
            value_fn=lambda x, indices=None: jnp.sum(x),
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: newton(-1.0), "learning_rate must be a finite number, at least 0"),
        (
            lambda: newton(indefinite="hope"),
            (
                "indefinite must be one of 'reflect', 'keep', 'stop'; got "
                "indefinite='hope'"
            ),
        ),
        (
            lambda: newton(shrink=1.0),
            "shrink must be a finite number, positive and below 1",
        ),
        (
            lambda: newton(max_evaluations=0),
            "max_evaluations must be an integer, positive",
        ),
        (
            lambda: trust_region_newton(0.0),
            "learning_rate must be a finite number, positive",
        ),
        (
            lambda: trust_region_newton(acceptance=0.5),
            "acceptance must be a finite number, at least 0 and below 0.25",
        ),
        (
            lambda: natural_gradient(damping=-1.0),
            "damping must be a finite number, at least 0",
        ),
        (
            lambda: natural_gradient(singular="hope"),
            "singular must be one of drop, stop; got singular='hope'",
        ),
    ],
)
def test_bad_argument_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_fisher_of_another_shape_is_refused():
    rule, x = (
        natural_gradient(fisher_fn=lambda x, indices=None: jnp.ones(3)),
        jnp.ones(2),
    )
    with pytest.raises(
        ValueError, match=r"fisher_fn must return shape \(2, 2\); it returned \(3,\)"
    ):
        rule.update(x, rule.init(x), x)
