"""BFGS, L-BFGS, conjugate gradients and Armijo's rule: their theorems on quadratics,
scipy, optax, recorded traces.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.types import Outcome
from research.update_rules._gradient_line_search import (
    BETAS,
    backtracking_descent,
    nonlinear_conjugate_gradient,
)
from research.update_rules._line_searches import strong_wolfe
from research.update_rules._quasi_newton import bfgs, lbfgs
from research.verification import FORMULAS
from research.verification.problems import PROBLEMS
from research.verification.recorded import recorded_walks
from research.verification.walks import walk, walk_exactly

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

N = 6
RNG = np.random.default_rng(3)
BASIS = np.linalg.qr(RNG.standard_normal((N, N)))[0]
A = BASIS @ np.diag(np.geomspace(0.5, 20.0, N)) @ BASIS.T
B = RNG.standard_normal(N)
START = jnp.asarray(RNG.standard_normal(N))
EXACT = functools.partial(strong_wolfe, curvature=1e-9, sufficient_decrease=1e-4)


def quadratic(x):
    return 0.5 * x @ A @ x - B @ x


def steps_of(rule, objective, start, num_steps):
    """The iterates and the states of a rule, as one program."""

    def step(carry, _):
        x, state = carry
        value, grad = jax.value_and_grad(objective)(x)
        updates, state = rule.update(
            grad, state, x, value=value, grad=grad, value_fn=objective
        )
        x = optax.apply_updates(x, updates)
        return (x, state), (x, state)

    return jax.jit(
        lambda x: jax.lax.scan(step, (x, rule.init(x)), length=num_steps)[1]
    )(start)


RULES_OF_N_STEPS = {
    **{
        beta: functools.partial(
            nonlinear_conjugate_gradient, beta=beta, linesearch=EXACT
        )
        for beta in BETAS
    },
    "bfgs": functools.partial(bfgs, linesearch=EXACT),
    "lbfgs": functools.partial(lbfgs, memory_size=N, linesearch=EXACT),
}


@functools.cache
def on_the_quadratic(name):
    return steps_of(RULES_OF_N_STEPS[name](), quadratic, START, N)


@pytest.mark.thorough(
    "conjugate gradients and bfgs; make test has their formulas", but=r"^lbfgs\]"
)
@pytest.mark.parametrize("name", RULES_OF_N_STEPS)
def test_exact_searches_end_a_quadratic_after_n_steps(name):
    """Nocedal & Wright, theorems 5.1 and 6.4: n steps, and not one fewer."""
    iterates = np.asarray(on_the_quadratic(name)[0])
    errors = np.linalg.norm(iterates - np.linalg.solve(A, B), axis=1)
    assert errors[-1] < 1e-6  # 1e-9 is how flat the searches end; the condition is 40.
    assert errors[-2] > 1e-3


@pytest.mark.thorough(
    "conjugate gradients and bfgs; make test has their formulas", but=r"^lbfgs\]"
)
@pytest.mark.parametrize("name", RULES_OF_N_STEPS)
def test_exact_searches_take_the_steps_of_the_linear_conjugate_gradients(name):
    """All are one method there (theorem 6.4); the linear method is written out below,
    without a search.
    """
    x, r = np.asarray(START), B - A @ np.asarray(START)
    p, expected = r, []
    for _ in range(N):
        a = r @ r / (p @ A @ p)
        x, r_next = x + a * p, r - a * A @ p
        p, r = r_next + r_next @ r_next / (r @ r) * p, r_next
        expected.append(x)
    np.testing.assert_allclose(on_the_quadratic(name)[0], expected, atol=1e-6)


@pytest.mark.thorough(
    "the last H; test_bfgs_satisfies_the_secant_equation_and_keeps_h_positive has each"
)
def test_bfgs_learns_the_inverse_hessian_of_a_quadratic_in_n_steps():
    """Nocedal & Wright, theorem 6.4; the last pair enters with step n + 1."""
    _, states = steps_of(bfgs(linesearch=EXACT), quadratic, START, N + 1)
    np.testing.assert_allclose(states.inverse_hessian[-1], np.linalg.inv(A), atol=1e-4)


@pytest.mark.on_ci(
    "20 steps; test_quasi_newton_rules_equal_their_formulas_while_rounding_is_small "
    "has ten, written out"
)
def test_bfgs_satisfies_the_secant_equation_and_keeps_h_positive():
    problem = PROBLEMS["rosenbrock"]
    x, states = steps_of(bfgs(), problem.objective, jnp.asarray(problem.start), 20)
    for t in range(1, 20):
        s, y = x[t - 1] - states.params[t - 1], states.grad[t] - states.grad[t - 1]
        np.testing.assert_allclose(
            states.inverse_hessian[t] @ y, s, rtol=1e-9, atol=1e-12
        )
        assert np.all(np.linalg.eigvalsh(states.inverse_hessian[t]) > 0)


def test_the_product_that_bfgs_keeps_is_that_of_its_two_fields():
    """Also after a step whose pair is not used, and of the first gradient."""
    cubic = lambda x: jnp.sum(0.05 * jnp.cos(3 * x) - x**3 / 30) + quadratic(x)
    rule = bfgs(0.02, linesearch=None, min_curvature=1e-4)
    _, states = steps_of(rule, cubic, 3 * START, 40)
    used = np.diff(states.num_pairs, prepend=0)
    assert set(used.tolist()) == {0, 1}
    for k in range(40):
        truth = states.inverse_hessian[k] @ states.grad[k]
        np.testing.assert_allclose(
            states.product[k], truth, rtol=1e-9, atol=1e-9 * np.abs(truth).max()
        )


@pytest.mark.thorough(
    "matrices; test_fixed_step_lbfgs_is_that_of_optax_and_of_torch has the steps"
)
def test_two_loop_recursion_is_the_product_form_over_the_kept_pairs():
    """Nocedal & Wright, (7.19): the kept pairs update γ I of the newest pair, from the
    oldest to the newest.
    """
    problem = PROBLEMS["softmax_regression"]
    leaves = [jnp.asarray(leaf) for leaf in problem.start]
    n = sum(leaf.size for leaf in leaves)
    iterates, states = steps_of(lbfgs(memory_size=4), problem.objective, leaves, 7)
    last = jax.tree.map(lambda leaf: np.asarray(leaf[-1]), states)

    def flat(tree, k):
        return np.concatenate([leaf[k].ravel() for leaf in tree])

    matrix = last.scale * np.eye(n)
    for age in reversed(range(4)):
        k = (last.newest - age) % 4
        s, y = flat(last.steps, k), flat(last.changes, k)
        left = np.eye(n) - np.outer(s, y) / (s @ y)
        matrix = left @ matrix @ left.T + np.outer(s, s) / (s @ y)
    gradient = np.concatenate([leaf.ravel() for leaf in last.grad])
    before = np.concatenate([leaf[-1].ravel() for leaf in states.params])
    after = np.concatenate([leaf[-1].ravel() for leaf in iterates])
    np.testing.assert_allclose(
        after - before,
        -last.search.learning_rate * matrix @ gradient,
        rtol=1e-10,
        atol=1e-13,
    )


REFERENCE = json.loads(
    (Path(__file__).parents[1] / "reference/optimizer_trajectories.json").read_text(
        "utf-8"
    )
)
FIXED = [
    case
    for case in REFERENCE["cases"]
    if case["id"].startswith("optim/lbfgs/fixed step")
]
LIBRARIES = {
    "optax": ("iterates_exact_optax_rule", {"first_step": "euclidean"}),
    "torch": (
        "iterates_exact_second_rule",
        {"first_step": "absolute", "min_curvature": 1e-10},
    ),
}


@pytest.mark.on_ci("torch", but="quadratic-optax")
@pytest.mark.thorough(
    "the other pairs of problem and library", but="quadratic-optax|rosenbrock-torch"
)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("case", FIXED, ids=lambda case: case["problem"])
def test_fixed_step_lbfgs_is_that_of_optax_and_of_torch(case, library):
    key, arguments = LIBRARIES[library]
    exact = np.asarray(case[key], np.float64)[1:]
    found = walk(
        lbfgs(case["learning_rate"], 5, None, **arguments), PROBLEMS[case["problem"]]
    ).iterates
    apart = np.abs(found - exact) / (1 + np.abs(exact))
    assert np.max(apart[:30]) <= 1e-12
    # On Rosenbrock a pair of little curvature then multiplies rounding a
    # hundredthousandfold: measured up to 1.4e-11, and 6e-12 for optax's own run.
    assert np.max(apart) <= 1e-10


BETA_STEPS = {"quadratic": 3, "rosenbrock": 10, "softmax_regression": 6}


@pytest.mark.on_ci("the other formulas of β", but="hestenes")
@pytest.mark.thorough(
    "the other problems, and the default β, which laws/test_every_rule.py has",
    but=r"^(?!polak).*rosenbrock",
)
@pytest.mark.parametrize("problem", BETA_STEPS)
@pytest.mark.parametrize("beta", BETAS)
def test_conjugate_gradients_equal_their_formula_while_rounding_is_small(beta, problem):
    """Conjugate directions magnify rounding tenfold in a few steps; before, each β is
    its formula to 1e-11.
    """
    num_steps = BETA_STEPS[problem]
    found = walk(
        nonlinear_conjugate_gradient(beta=beta), PROBLEMS[problem], num_steps=num_steps
    ).iterates
    iterates = FORMULAS["nonlinear_conjugate_gradient"].iterates
    exact = walk_exactly(
        iterates, PROBLEMS[problem], num_steps, learning_rate=1.0, beta=beta
    ).iterates
    assert np.max(np.abs(found - exact) / (1 + np.abs(exact))) <= 1e-11


TEN_STEPS = {
    "bfgs": (bfgs, {}),
    "bfgs backtracking": (bfgs, {"linesearch": "backtracking"}),
    "lbfgs": (lbfgs, {}),
    "lbfgs of three, backtracking": (
        lbfgs,
        {"linesearch": "backtracking", "memory_size": 3},
    ),
}


@pytest.mark.on_ci("L-BFGS with backtracking", but="^bfgs")
@pytest.mark.thorough(
    (
        "the other two pairs of rule and search, and the quadratic, which "
        "laws/test_every_rule.py has"
    ),
    but=r"^(bfgs|lbfgs of three, backtracking)-rosenbrock",
)
@pytest.mark.parametrize("problem", ["quadratic", "rosenbrock"])
@pytest.mark.parametrize("name", TEN_STEPS)
def test_quasi_newton_rules_equal_their_formulas_while_rounding_is_small(name, problem):
    """With the first trial 1, so that searches widen, shrink and interpolate; ten
    steps, before rounding is magnified.
    """
    make, arguments = TEN_STEPS[name]
    found = walk(make(**arguments), PROBLEMS[problem], num_steps=10).iterates
    iterates = FORMULAS[make.__name__].iterates
    exact = walk_exactly(
        iterates, PROBLEMS[problem], 10, learning_rate=1.0, **arguments
    ).iterates
    assert np.max(np.abs(found - exact) / (1 + np.abs(exact))) <= 1e-12


@pytest.mark.thorough(
    "ends; test_fixed_step_lbfgs_is_that_of_optax_and_of_torch has torch's steps"
)
@pytest.mark.parametrize("problem", ["quadratic", "rosenbrock"])
def test_searching_lbfgs_ends_where_torchs_ends(problem):
    """Each with its own search; on the quadratic the ends of optax and torch lie
    7.9e-13 apart, and twice that is asked.
    """
    _, theirs = recorded_walks("lbfgs/line search, memory 10")[problem]
    found = walk(lbfgs(), PROBLEMS[problem]).iterates[-1]
    assert np.max(np.abs(found - theirs.iterates[-1])) <= 1.6e-12


MAKERS = {
    "backtracking_descent": backtracking_descent,
    "nonlinear_conjugate_gradient": nonlinear_conjugate_gradient,
    "bfgs": bfgs,
    "lbfgs": lbfgs,
}


@functools.cache
def at_a_maximum():
    """Each rule at the top of a parabola, and where its gradient points the wrong way,
    as one program.
    """

    def all_rules(x):
        def updated(rule, grad):
            return rule.update(
                grad, rule.init(x), x, value=-x @ x, value_fn=lambda x: -x @ x
            )

        return {
            name: [updated(make(), grad) for grad in (0.0 * x, 2.0 * x)]
            for name, make in MAKERS.items()
        }

    return jax.jit(all_rules)(jnp.array([1.0, 2.0]))


@pytest.mark.on_ci(
    "four rules with their searches; "
    "test_every_failure_has_its_reason_and_a_step_of_zero in test_line_searches.py "
    "has the searches"
)
@pytest.mark.parametrize("name", MAKERS)
def test_no_descent_is_an_outcome_with_a_zero_update(name):
    (flat, state), (wrong, state_of_wrong) = at_a_maximum()[name]
    np.testing.assert_array_equal(flat, 0.0)
    assert state.search.outcome == Outcome.NO_DESCENT_DIRECTION
    assert state.search.learning_rate == 0.0
    np.testing.assert_array_equal(wrong, 0.0)
    assert state_of_wrong.search.outcome >= Outcome.FIRST_FAILURE


@pytest.mark.thorough("the other rules", but=r"^(lbfgs|backtracking_descent)\]")
@pytest.mark.parametrize("name", MAKERS)
def test_a_missing_objective_is_refused_by_name(name):
    rule, x = MAKERS[name](), jnp.ones(2)
    with pytest.raises(ValueError, match="value_fn"):
        rule.update(x, rule.init(x), x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lbfgs(memory_size=0), "memory_size"),
        (lambda: lbfgs(linesearch="wolfe"), "linesearch"),
        (lambda: lbfgs(linesearch=3), "linesearch must be .*; got linesearch=3"),  # pyright: ignore[reportArgumentType]
        (lambda: bfgs(first_step="manhattan"), "first_step"),
        (lambda: bfgs(min_curvature=-1.0), "min_curvature"),
        (lambda: nonlinear_conjugate_gradient(beta="polak"), "beta"),
        (lambda: nonlinear_conjugate_gradient(linesearch=None), "linesearch"),  # pyright: ignore[reportArgumentType]
        (lambda: backtracking_descent(shrink=1.0), "shrink"),
        (lambda: backtracking_descent(increase=0.0), "increase"),
    ],
)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.on_ci(
    "a gradient in float32 for params in bfloat16; nothing shorter has a search with "
    "both"
)
@pytest.mark.thorough("lbfgs", but=r"^bfgs\]")
@pytest.mark.parametrize("rule", [lbfgs, bfgs])
def test_gradients_may_be_wider_than_the_params(rule):
    """As after the accumulation of gradients of bfloat16 in float32."""
    x, loss = jnp.ones(3, jnp.bfloat16), lambda x: jnp.sum(x.astype(jnp.float32) ** 2)
    g = jnp.full(3, 2.0, jnp.float32)
    updates, state = rule().update(
        g, rule().init(x), x, value=loss(x), value_fn=loss, grad=g
    )
    assert jnp.all(updates < 0)
    assert state.search.outcome == Outcome.FOUND
