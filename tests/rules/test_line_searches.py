"""Line searches: the conditions they promise hold at every step they take, and every
failure has its reason.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.descent import minimise
from research.types import Outcome
from research.update_rules import bfgs, lbfgs, nonlinear_conjugate_gradient
from research.update_rules._line_searches import backtracking, strong_wolfe

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

NUM_LINES = 200
ROUNDING = (
    10 * np.finfo(np.float64).eps
)  # What strong_wolfe takes for the rounding of a value.


def bumpy(x):
    """Bounded below, with many minima, along lines of any direction."""
    return jnp.sum(jnp.cos(3.0 * x) + 0.1 * x**2) + jnp.log1p(jnp.sum(x**4))


def exponential(x):
    """Overflows a short way up, so that a long trial is inf."""
    return jnp.sum(jnp.exp(40.0 * x)) - jnp.sum(x)


FUNCTIONS = {function.__name__: function for function in (bumpy, exponential)}


@functools.cache
def searched(search, name, **arguments):
    """A search on NUM_LINES drawn points, directions of descent of any length, and
    first steps, as one program.
    """
    function = FUNCTIONS[name]
    rng = np.random.default_rng(1)
    x = rng.standard_normal((NUM_LINES, 3))
    d = rng.standard_normal((NUM_LINES, 3)) * np.exp(rng.uniform(-4, 4, (NUM_LINES, 1)))
    first = np.exp(rng.uniform(-3, 3, NUM_LINES))

    def one(x, d, first):
        value, grad = jax.value_and_grad(function)(x)
        d = jnp.where(grad @ d < 0, d, -d)
        found = search(function, x, d, value, grad, first, **arguments)
        there = x + found.step * d
        return found, value, grad @ d, function(there), jax.grad(function)(there) @ d

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(x, d, first))


@pytest.mark.on_ci(
    "long walks; test_every_failure_has_its_reason_and_a_step_of_zero stays"
)
@pytest.mark.thorough(
    "a function that overflows; make test has one that is infinite beyond a wall",
    but="bumpy",
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_strong_wolfe_conditions_hold_at_every_step_taken(name):
    found, value, slope, value_there, slope_there = searched(strong_wolfe, name)
    good = found.outcome == Outcome.FOUND
    assert np.mean(good) >= 0.99
    enough = value_there <= value + 1e-4 * found.step * slope + ROUNDING * np.abs(value)
    assert np.all(enough[good])
    assert np.all(np.abs(slope_there[good]) <= -0.9 * slope[good] * (1 + 1e-12))
    np.testing.assert_allclose(found.value, value_there, rtol=1e-12)
    assert np.all(found.evaluations[good] <= 30)


@pytest.mark.thorough(
    "a smaller curvature; test_strong_wolfe_is_exact_on_a_parabola has one"
)
def test_a_smaller_curvature_gives_flatter_steps():
    found, _, slope, _, slope_there = searched(strong_wolfe, "bumpy", curvature=1e-3)
    good = found.outcome == Outcome.FOUND
    assert np.mean(good) >= 0.99
    assert np.all(np.abs(slope_there[good]) <= -1e-3 * slope[good] * (1 + 1e-9))


@pytest.mark.thorough("the other function", but="exponential")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_armijo_condition_holds_at_the_first_trial_that_meets_it(name):
    found, value, slope, value_there, _ = searched(backtracking, name)
    assert np.all(found.outcome == Outcome.FOUND)
    assert np.all(
        value_there <= value + 1e-4 * found.step * slope + ROUNDING * np.abs(value)
    )
    np.testing.assert_allclose(found.value, value_there, rtol=1e-12)


def parabola(x):
    return jnp.sum(jnp.square(x["a"] - 1.0)) + jnp.square(x["b"])


X = {"a": np.array([2.0, 4.0]), "b": np.array(3.0)}


def test_strong_wolfe_is_exact_on_a_parabola():
    """A cubic through two points of a parabola is that parabola; only the safeguards
    keep the search from its end.
    """

    @jax.jit
    @jax.vmap
    def search_from(first):
        value, grad = jax.value_and_grad(parabola)(X)
        return strong_wolfe(
            parabola,
            X,
            jax.tree.map(jnp.negative, grad),
            value,
            grad,
            first,
            curvature=1e-6,
        )

    found = search_from(jnp.array([1e-3, 0.3, 1.0, 20.0]))
    np.testing.assert_allclose(found.step, 0.5, rtol=1e-6)
    np.testing.assert_allclose(found.value, 0.0, atol=1e-10)
    np.testing.assert_allclose(found.grad["b"], 0.0, atol=1e-4)


def test_backtracking_tries_powers_of_the_factor():
    value, grad = jax.value_and_grad(parabola)(X)
    down = jax.tree.map(jnp.negative, grad)
    found = jax.jit(
        lambda: backtracking(
            parabola, X, down, value, grad, 4.0, sufficient_decrease=0.4
        )
    )()
    # Along -∇f, f(x) - f(x + a d) = 4 (a - a²) f(x), and c a |∇f|² = 1.6 a f(x):
    # accepted from a = 0.6 down.
    assert found.step == 0.5
    assert found.evaluations == 4


def searched_from(search, function, x, direction, **arguments):
    value, grad = jax.value_and_grad(function)(x)
    return search(function, x, direction, value, grad, **arguments)


def square(x):
    return x @ x


def walled(x):
    """Infinite at 1, and NaN beyond."""
    inside = jnp.where(x < 1.0, 1.0 - x, 1.0)
    return jnp.sum(jnp.where(x < 1.0, -jnp.log(inside) - 3.0 * x, jnp.nan))


@functools.cache
def cases(search):
    """{how it should end: what it found}, as one program."""
    x, zero = jnp.array([1.0, -2.0]), jnp.zeros(2)
    return jax.jit(
        lambda: {
            "no descent direction": [
                searched_from(search, square, x, x),
                searched_from(search, square, zero, x),
            ],
            "not finite": [
                searched_from(search, lambda x: x @ x * jnp.nan, x, x),
                searched_from(search, square, x, -jnp.inf * x),
            ],
            "the step became too small": [
                searched_from(
                    search, square, x, -x, first_step=1e-30, max_evaluations=10
                ),
            ],
            "evaluations used up": [
                searched_from(search, square, x, -x, first_step=1e9, max_evaluations=3)
            ],
            "found": [
                searched_from(search, walled, zero, jnp.ones(2), first_step=50.0)
            ],
        }
    )()


@pytest.mark.on_ci(
    "backtracking; test_backtracking_tries_powers_of_the_factor has it",
    but="strong_wolfe",
)
@pytest.mark.parametrize("search", [backtracking, strong_wolfe])
def test_every_failure_has_its_reason_and_a_step_of_zero(search):
    for reason, ends in cases(search).items():
        for found in ends:
            assert Outcome(int(found.outcome)).words == reason
            assert (found.step == 0.0) == (reason != "found")
    assert [end.evaluations for end in cases(search)["no descent direction"]] == [0, 0]
    assert (
        cases(search)["evaluations used up"][0].value == 5.0
    )  # That of the point where it stays.


@pytest.mark.on_ci(
    "backtracking; test_backtracking_tries_powers_of_the_factor has it",
    but="strong_wolfe",
)
@pytest.mark.parametrize("search", [backtracking, strong_wolfe])
def test_values_that_are_not_finite_count_as_too_high(search):
    """A first trial far beyond the wall still ends on this side of it."""
    found = cases(search)["found"][0]
    assert 0.0 < found.step < 1.0
    assert found.value < 0.0


def test_a_steep_point_that_is_lower_is_taken_and_told():
    run = jax.jit(
        lambda: searched_from(
            strong_wolfe,
            lambda x: -jnp.sum(x),
            jnp.zeros(2),
            jnp.ones(2),
            max_evaluations=4,
        )
    )
    found = run()
    assert found.outcome == Outcome.DECREASE_ONLY < Outcome.FIRST_FAILURE
    assert found.step > 1.0
    assert found.evaluations == 4


@pytest.mark.on_ci(
    "a whole minimisation; test_every_failure_has_its_reason_and_a_step_of_zero has "
    "the value and the step"
)
def test_a_failed_search_describes_the_point_where_it_stays():
    # The change of f is below its rounding error, so no decrease counts as one.
    flat = lambda x: 1e10 + jnp.sum(x**2)
    x = jnp.array([1e-3])
    search = functools.partial(strong_wolfe, curvature=0.1, max_evaluations=1)
    found = jax.jit(lambda: searched_from(search, flat, x, -0.8 * x))()
    assert found.outcome >= Outcome.FIRST_FAILURE
    assert found.step == 0.0
    assert found.value == flat(x)
    np.testing.assert_array_equal(found.grad, 2 * x)
    rule = nonlinear_conjugate_gradient(0.4, linesearch=search)
    end = minimise(flat, rule, x, tolerance=1e-3)
    assert end.outcome >= Outcome.FIRST_FAILURE
    assert end.gradient_norm == 2 * end.params[0] == 2e-3


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("first_step", 0.0),
        ("sufficient_decrease", 1.0),
        ("max_evaluations", 2.5),
        ("max_evaluations", 0),
    ],
)
@pytest.mark.parametrize("search", [backtracking, strong_wolfe])
def test_arguments_out_of_range_are_refused(search, argument, value):
    with pytest.raises((ValueError, TypeError), match=argument):
        searched_from(search, square, jnp.ones(1), -jnp.ones(1), **{argument: value})


def test_integers_are_refused_before_a_search_differentiates():
    for rule in (bfgs(), lbfgs(), nonlinear_conjugate_gradient()):
        with pytest.raises(TypeError, match=r"params must be floating; params\['w'\]"):
            rule.init({"w": jnp.arange(3)})


def test_an_unknown_outcome_is_refused():
    with pytest.raises(ValueError, match="Outcome"):
        Outcome(99)


@pytest.mark.on_ci("a rule without jit; nothing shorter shows this")
def test_conjugate_gradients_at_the_minimum_stand_still_without_jit_too():
    rule, x, f = (
        nonlinear_conjugate_gradient(),
        jnp.array(3.0),
        lambda x, indices=None: x**2,
    )
    state = rule.init(x)
    for _ in range(3):
        value, grad = jax.value_and_grad(f)(x)
        updates, state = rule.update(grad, state, x, value=value, grad=grad, value_fn=f)
        x = x + updates
    assert float(x) == 0.0
