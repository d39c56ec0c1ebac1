"""`minimise`: with any rule, over pytrees, under vmap, and it says why it ended."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from research.descent import Outcome, minimise
from research.schedules import linear_warmup
from research.update_rules import (
    accumulate_gradients,
    adam,
    adopt,
    bfgs,
    by_group,
    gradient_descent,
    lbfgs,
    with_state_dtype,
)
from research.update_rules._least_squares import gauss_newton, levenberg_marquardt
from research.update_rules._newton import newton, trust_region_newton

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

RNG = np.random.default_rng(7)
TARGET = {
    "w": RNG.standard_normal((2, 2)),
    "b": RNG.standard_normal(2),
    "none": np.zeros(0),
}
START = jax.tree.map(jnp.zeros_like, TARGET)


def objective(params):
    parts = jax.tree.map(lambda x, t: jnp.sum(jnp.cosh(x - t)), params, TARGET)
    return jnp.sum(jnp.stack(jax.tree.leaves(parts)))


RULES = {"adam": adam(0.05), "optax": optax.sgd(0.3), "lbfgs": lbfgs(), "bfgs": bfgs()}


def words(end):
    return Outcome(int(end.outcome)).words


def of_two_dtypes(dtype, scale=1.0):
    start = {"a": jnp.zeros(3, dtype), "b": jnp.zeros(2)}
    residuals = lambda p: {"a": p["a"] - scale, "b": p["b"] - 2 * scale}
    squares = lambda p: sum(jnp.sum(r**2) for r in residuals(p).values())
    return squares, start, residuals


@pytest.mark.on_ci("params of two dtypes; nothing shorter shows this")
@pytest.mark.parametrize("make", [gradient_descent, newton, levenberg_marquardt])
def test_params_of_two_dtypes_reach_the_minimum(make):
    rule = make(0.1) if make is gradient_descent else make()
    for dtype in ("float64", "float32"):  # One rule, whose state depends on the dtypes.
        squares, start, residuals = of_two_dtypes(dtype)
        end = minimise(squares, rule, start, tolerance=1e-5, residual_fn=residuals)
        assert end.outcome == Outcome.CONVERGED
        assert end.params["a"].dtype == dtype
        np.testing.assert_allclose(end.params["a"], 1.0, rtol=1e-4)
        np.testing.assert_allclose(end.params["b"], 2.0, rtol=1e-4)


@pytest.mark.on_ci("two dtypes; test_implicit_minimum.py has the derivatives in one")
def test_params_of_two_dtypes_have_implicit_derivatives():
    def b(scale):
        squares, start, _ = of_two_dtypes("float32", scale)
        return minimise(squares, newton(), start, tolerance=1e-5).params["b"][0]

    np.testing.assert_allclose(jax.grad(b)(1.5), 2.0, rtol=1e-5)  # b = 2 scale.


def test_a_weakly_typed_leaf_may_be_wider_than_another():
    square = lambda p: (p[0] - 1.0) ** 2 + (p[1] - 2.0) ** 2
    start = (jnp.asarray(0.0), jnp.zeros((), "float32"))
    end = minimise(square, gradient_descent(0.5), start)
    assert end.outcome == Outcome.CONVERGED
    assert [float(leaf) for leaf in end.params] == [1.0, 2.0]


@functools.cache
def found(name):
    return minimise(objective, RULES[name], START, tolerance=1e-6)


@pytest.mark.thorough("the other rules", but="adam")
@pytest.mark.parametrize("name", RULES)
def test_any_rule_ends_at_the_minimum_of_a_pytree(name):
    end = found(name)
    assert end.outcome == Outcome.CONVERGED
    assert end.gradient_norm <= 1e-6
    for x, t in zip(jax.tree.leaves(end.params), jax.tree.leaves(TARGET), strict=True):
        np.testing.assert_allclose(x, t, atol=1e-6)
    assert end.value == pytest.approx(6.0)
    assert end.evaluations >= end.steps + 1


@pytest.mark.on_ci(
    "counts from outside; test_line_searches.py has the evaluations of a search"
)
def test_evaluations_are_what_the_objective_was_asked():
    """Counted outside: a search asks what it tells."""
    asked = []

    def told(params):
        jax.debug.callback(lambda: asked.append(1))
        return objective(params)

    end = minimise(told, RULES["lbfgs"], START, tolerance=1e-6)
    jax.effects_barrier()
    assert len(asked) == end.evaluations


@pytest.mark.thorough("a rule of optax", but="adam")
@pytest.mark.parametrize("name", ["adam", "optax"])
def test_a_rule_without_a_search_asks_once_a_step_and_once_at_the_start(name):
    assert found(name).evaluations == found(name).steps + 1


def valley(x):
    """Residuals of Rosenbrock's valley, on whose way each rule has a trial refused."""
    return jnp.stack([1.0 - x[0], 10.0 * (x[1] - x[0] ** 2)])


KEEPING = [newton(), trust_region_newton(), levenberg_marquardt(), gauss_newton()]


@pytest.mark.on_ci("many rules; nothing shorter shows this")
@pytest.mark.thorough("the other rules; make test has Levenberg-Marquardt", but="rule2")
@pytest.mark.parametrize("rule", KEEPING)
def test_what_a_state_keeps_of_the_objective_is_what_it_is_where_the_step_ended(rule):
    f = lambda x: jnp.sum(valley(x) ** 2) / 2

    def step(carry, _):
        x, state, value, grad = carry
        updates, state = rule.update(
            grad, state, x, value=value, grad=grad, value_fn=f, residual_fn=valley
        )
        x, of_squares = x + updates, rule in KEEPING[2:]
        told = (
            (state.squares_after, state.squares_grad_after)
            if of_squares
            else (state.value_after, state.grad_after)
        )
        return (x, state, *told), (
            x,
            told,
            jax.value_and_grad(f)(x),
            jnp.all(updates == 0),
            state.evaluations,
        )

    start = jnp.array([-1.25, 1.0])
    run = jax.jit(
        lambda x: jax.lax.scan(
            step, (x, rule.init(x), *jax.value_and_grad(f)(x)), length=12
        )[1]
    )
    _, told, true, stayed, evaluations = run(start)
    for a, b in zip(told, true, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    assert np.any(stayed) or np.any(evaluations > 1)


@pytest.mark.on_ci("three minimisations; nothing shorter shows this")
@pytest.mark.thorough("the other rules; make test-ci has Newton", but="rule0")
@pytest.mark.parametrize("rule", KEEPING)
def test_nothing_is_evaluated_twice(rule):
    start, f = jnp.array([-1.25, 1.0]), lambda x: jnp.sum(valley(x) ** 2) / 2
    one_step = jax.jit(
        lambda x: rule.update(
            jax.grad(f)(x), rule.init(x), x, value_fn=f, residual_fn=valley
        )
    )
    end = minimise(None, rule, start, residual_fn=valley, max_steps=1)
    assert end.evaluations == 1 + one_step(start)[1].evaluations
    end = minimise(None, rule, start, residual_fn=valley)
    assert end.outcome == Outcome.CONVERGED
    if rule in KEEPING[1:3]:  # One trial a step.
        assert end.evaluations == end.steps + 1


@pytest.mark.on_ci(
    "Levenberg-Marquardt on another objective; nothing shorter shows this"
)
def test_squares_do_not_stand_for_another_objective():
    mean = lambda x: jnp.mean(valley(x) ** 2) + 7.0
    end = minimise(
        mean, levenberg_marquardt(), jnp.array([-1.25, 1.0]), residual_fn=valley
    )
    assert end.value == 7.0
    assert end.evaluations == 2 * end.steps + 1


@pytest.mark.thorough("lbfgs", but="rule1")
@pytest.mark.parametrize("rule", [lbfgs(), newton()])
def test_value_is_that_at_the_params_also_where_a_rule_is_wrapped(rule):
    f = lambda x: jnp.sum((x - 3.0) ** 2)
    end = minimise(f, optax.chain(rule, optax.scale(0.5)), jnp.zeros(2))
    assert end.outcome == Outcome.CONVERGED
    np.testing.assert_allclose(end.params, 3.0, atol=1e-8)
    assert end.value == f(end.params)


@pytest.mark.on_ci(
    "lanes that end at different steps; "
    "test_numbers_are_kept_on_the_device_but_never_tracers has one lane"
)
def test_vmap_over_starts_and_rates_equals_each_alone():
    def run(start, rate):
        return minimise(
            lambda x: jnp.sum((x - 1.0) ** 2),
            gradient_descent(rate),
            start,
            tolerance=1e-6,
            max_steps=50,
        )

    starts, rates = (
        jnp.array([[0.0, 3.0], [2.0, 2.0], [5.0, 5.0]]),
        jnp.array([0.25, 0.5, 1e-3]),
    )
    together = jax.vmap(run)(starts, rates)
    converged, used_up = Outcome.CONVERGED, Outcome.STEPS_USED_UP
    assert together.outcome.tolist() == [converged, converged, used_up]
    for k in range(3):
        alone = run(starts[k], rates[k])
        assert alone.steps == together.steps[k]
        np.testing.assert_allclose(alone.params, together.params[k], rtol=1e-14)


def test_second_call_compiles_nothing():
    traced = []

    def watched(params):
        traced.append(1)
        return objective(params)

    minimise(watched, RULES["optax"], START, tolerance=1e-6)
    count = len(traced)
    minimise(
        watched,
        RULES["optax"],
        jax.tree.map(lambda x: x + 1.0, START),
        tolerance=1e-3,
        max_steps=7,
    )
    assert len(traced) == count > 0


class Unhashable:
    __hash__ = None

    def __call__(self, params):
        return params


def test_what_cannot_be_minimised_is_refused_by_name():
    rule, start = gradient_descent(0.1), jnp.ones(2)
    of_steps = lambda steps: minimise(jnp.sum, rule, start, max_steps=steps)
    for call, told in (
        (lambda: minimise(Unhashable(), rule, start), "objective must be hashable"),
        (
            lambda: minimise(None, rule, start, residual_fn=Unhashable()),
            "residual_fn must be hashable",
        ),
        (
            lambda: minimise(None, rule, start, residual_fn=lambda x: []),
            r"residual_fn must return at least one array .*; it returns \[\]",
        ),
        (lambda: jax.jit(of_steps)(3), "max_steps must be a concrete integer"),
    ):
        with pytest.raises(TypeError, match=told):
            call()


@pytest.mark.thorough("the norm of the other tests of this file", but="2")
@pytest.mark.parametrize(("norm", "size"), [(jnp.inf, 4.0), (2, 5.0)])
def test_the_norm_is_the_one_asked_for(norm, size):
    point = jnp.array([3.0, 4.0])
    end = minimise(
        lambda x: x @ x / 2, gradient_descent(0.1), point, max_steps=0, norm=norm
    )
    assert end.gradient_norm == size
    assert words(end) == "max_steps used up"


@pytest.mark.on_ci(
    "five minimisations; the tests here have three of the outcomes, but no value that "
    "is not finite and no wrong gradient"
)
def test_what_cannot_go_on_says_why():
    """One program: a rule that stands still, NaN on the way, a wrong gradient, a
    minimum at the start.
    """

    def ends(x):
        return {
            Outcome.STEPS_USED_UP: minimise(
                lambda x: x @ x, gradient_descent(0.1), x, max_steps=3
            ),
            Outcome.NO_PROGRESS: minimise(lambda x: x @ x, gradient_descent(0.0), x),
            Outcome.NOT_FINITE: minimise(
                lambda x: jnp.sum(jnp.log(x)), gradient_descent(1.0), x
            ),
            Outcome.EVALUATIONS_USED_UP: minimise(
                lambda x: jnp.sum(_upside_down(x)), lbfgs(linesearch="backtracking"), x
            ),
            Outcome.CONVERGED: minimise(lambda x: x @ x, lbfgs(), 0.0 * x),
        }

    for outcome, end in jax.jit(ends)(jnp.array([0.5, 0.25])).items():
        assert end.outcome == outcome, (outcome, words(end))


@pytest.mark.on_ci("many searches; nothing shorter shows this")
def test_a_rule_whose_state_alone_moves_has_ten_steps_of_patience():
    found = minimise(lambda x: jnp.sum((x - 3.0) ** 2), adam(0.0), jnp.zeros(2))
    assert found.outcome == Outcome.NO_PROGRESS
    assert found.steps == 10


@jax.custom_jvp
def _upside_down(x):
    """x², with the sign of its derivative wrong, so that no step along it descends."""
    return x * x


@_upside_down.defjvp
def _(primals, tangents):
    return primals[0] ** 2, -2.0 * primals[0] * tangents[0]


def test_every_outcome_has_words_of_its_own():
    assert len({outcome.words for outcome in Outcome}) == len(Outcome) == 10
    assert Outcome.CONVERGED < Outcome.DECREASE_ONLY < Outcome.FIRST_FAILURE
    assert min(Outcome.NO_PROGRESS, Outcome.STEPS_USED_UP) >= Outcome.FIRST_FAILURE


def test_a_minimum_prints_its_outcome_in_words():
    objective = lambda params: jnp.sum((params["Ab"] - 1.0) ** 2)
    ended = lambda start, **options: minimise(
        objective, gradient_descent(0.5), {"Ab": start}, **options
    )
    text = str(ended(jnp.zeros(2)))
    assert text.startswith("the gradient is within the tolerance (steps: 1, ")
    assert "Ab" in text
    used_up = str(ended(jnp.zeros(2), max_steps=0))
    assert used_up.startswith("max_steps used up (steps: 0, evaluations: 1)")
    assert "\nvalue: 2\n" in used_up


@pytest.mark.on_ci("printing under vmap; nothing shorter shows this")
def test_a_minimum_under_vmap_prints():
    objective = lambda params: jnp.sum((params["Ab"] - 1.0) ** 2)
    ended = lambda start: minimise(objective, gradient_descent(0.5), {"Ab": start})
    batched = jax.vmap(ended)(jnp.zeros((3, 2)))
    assert str(batched) == repr(batched)


@pytest.mark.thorough(
    "Minima of a narrow dtype and of a derivative; make test prints others, in the "
    "tests above"
)
def test_every_minimum_prints():
    narrow = minimise(lambda x: jnp.sum(x**2), lbfgs(), jnp.ones(2, jnp.bfloat16))
    assert "value: 0" in str(narrow)
    at = lambda c: minimise(lambda x: jnp.sum((x - c) ** 2), lbfgs(), jnp.ones(2))
    _, tangent = jax.jvp(at, (0.5,), (1.0,))
    assert str(tangent) == repr(tangent)


@pytest.mark.on_ci("residuals without an objective; nothing shorter shows this")
def test_residuals_alone_are_an_objective():
    rows = RNG.standard_normal((5, 2))
    end = minimise(
        None,
        lbfgs(),
        jnp.zeros(2),
        residual_fn=lambda x: {"data": rows @ x - 1.0, "prior": x},
        tolerance=1e-9,
    )
    expected = np.linalg.solve(rows.T @ rows + np.eye(2), rows.T @ np.ones(5))
    np.testing.assert_allclose(end.params, expected, rtol=1e-8)


def test_lbfgs_takes_about_as_many_evaluations_as_scipys():
    n = 10
    scales = np.geomspace(1.0, 1e3, n)

    def function(x):
        return jnp.sum(scales * (jnp.cosh(x) - 1.0))

    end = minimise(function, lbfgs(), jnp.ones(n), tolerance=1e-6)
    theirs = scipy.optimize.minimize(
        lambda x: (np.sum(scales * (np.cosh(x) - 1.0)), scales * np.sinh(x)),
        np.ones(n),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": 1e-6, "ftol": 0.0},
    )
    assert end.outcome == Outcome.CONVERGED
    assert end.evaluations <= 1.5 * theirs.nfev


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tolerance": -1.0}, "tolerance"),
        ({"max_steps": 1.5}, "max_steps"),
        ({"norm": 1}, "norm must be"),
        ({"objective": None}, "residual_fn"),
    ],
)
def test_bad_arguments_are_refused_by_name(change, message):
    arguments = {"objective": objective, **change}
    with pytest.raises((ValueError, TypeError), match=message):
        minimise(arguments.pop("objective"), lbfgs(), START, **arguments)


SHIFTED = lambda x: jnp.sum((x - 3.0) ** 2)


@pytest.mark.thorough("other rules with steps of 0", but="accumulated")
@pytest.mark.parametrize(
    "rule",
    [
        adopt(0.1),
        gradient_descent(linear_warmup(0.3, 10)),
        accumulate_gradients(gradient_descent(0.1), 4),
    ],
    ids=["adopt", "warm-up", "accumulated"],
)
def test_a_step_of_0_that_is_meant_is_no_end(rule):
    found = minimise(SHIFTED, rule, jnp.zeros(2), max_steps=2000)
    assert int(found.outcome) == Outcome.CONVERGED


@pytest.mark.thorough("another rule beside it", but="rule0")
@pytest.mark.on_ci("two groups; nothing shorter shows this")
@pytest.mark.parametrize("rule", [gradient_descent(0.1), newton()])
def test_a_group_that_has_come_to_its_end_does_not_end_the_others(rule):
    f = lambda x: x["a"] ** 2 + (x["b"] - 3.0) ** 2
    start = {"a": jnp.array(1.0), "b": jnp.array(0.0)}
    found = minimise(
        f, by_group({"a": lbfgs(), "b": rule}, {"a": "a", "b": "b"}), start
    )
    assert int(found.outcome) == Outcome.CONVERGED


def test_numbers_are_kept_on_the_device_but_never_tracers():
    """The first call of a new tolerance is traced; a later one is not."""
    rule, start = optax.sgd(0.5), jnp.zeros(2)
    run = lambda x: minimise(
        lambda x: jnp.sum((x - 3.0) ** 2), rule, x, tolerance=1.25e-7, max_steps=77
    )
    traced = jax.jit(run)(start)
    assert jax.jit(jax.vmap(run))(start[None]).steps == traced.steps
    np.testing.assert_array_equal(run(start).params, traced.params)


@pytest.mark.on_ci(
    "a state of another dtype; "
    "test_value_is_that_at_the_params_also_where_a_rule_is_wrapped has a rule that "
    "keeps another value"
)
@pytest.mark.thorough("the other rule", but="lbfgs")
@pytest.mark.parametrize("rule", [newton, lbfgs])
def test_a_rule_that_keeps_other_params_does_not_report_their_value(rule):
    f = lambda x: 0.5 * jnp.sum((x - 3) ** 2)
    narrow = with_state_dtype(rule(), "float32")
    found = minimise(f, narrow, jnp.array([1000.1]), max_steps=30)
    np.testing.assert_allclose(found.value, f(found.params), rtol=1e-12)
    gradient = jnp.max(jnp.abs(jax.grad(f)(found.params)))
    np.testing.assert_allclose(found.gradient_norm, gradient, rtol=1e-12)


@pytest.mark.thorough(
    "a rule that stands still; "
    "test_a_rule_whose_state_alone_moves_has_ten_steps_of_patience has one"
)
def test_a_rule_that_stands_still_in_float32_says_so():
    found = minimise(
        lambda x: 0.5 * jnp.sum(jnp.abs(x)),
        optax.sgd(0.0),
        jnp.ones(2, "float32"),
        norm=2,
    )
    assert found.outcome == Outcome.NO_PROGRESS


def test_the_norm_of_a_large_gradient_does_not_overflow():
    x = jnp.array([3e20, 4e20], "float32")
    steep = lambda y: jnp.vdot(x, y)
    found = minimise(steep, optax.sgd(0.0), jnp.zeros(2, "float32"), norm=2)
    np.testing.assert_allclose(found.gradient_norm, 5e20, rtol=1e-6)
