"""The problems of More, Garbow and Hillstrom: they are the paper's, and quasi-Newton
rules minimise them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.descent import Outcome, minimise
from research.update_rules import bfgs, lbfgs, trust_region_newton
from tests.rules import mgh

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

# A program a rule and problem is a second: these twelve have the hard traits between
# them (a curved valley, bad scales, a singular Hessian, exponentials, a trigonometric
# argument, real data); all 42 are done by `python -m benchmarks.more_garbow_hillstrom`.
CHOSEN = (
    *(
        "rosenbrock",
        "powell_badly_scaled",
        "brown_badly_scaled",
        "helical_valley",
        "powell_singular",
        "wood",
    ),
    *(
        "kowalik_osborne",
        "brown_dennis",
        "osborne_1",
        "penalty_1_n4",
        "broyden_banded_n10",
        "chebyquad_n8",
    ),
)
FEW = ["rosenbrock", "powell_badly_scaled", "helical_valley", "kowalik_osborne"]
RULES = {"bfgs": bfgs, "lbfgs": lbfgs}
TOLERANCE = 1e-6


@functools.cache
def values_and_gradients():
    """Of all problems, where the reference has them, as one program."""
    points = {
        name: np.array([point["x"] for point in case["points"]])
        for name, case in mgh.CASES.items()
    }

    def at_all(points):
        return {
            name: jax.vmap(jax.value_and_grad(mgh.objective_of(name)))(x)
            for name, x in points.items()
        }

    return jax.jit(at_all)(points)


@pytest.mark.thorough(
    "the functions themselves; make test-ci reaches the recorded minima of two"
)
@pytest.mark.parametrize("name", mgh.CASES)
def test_value_and_gradient_equal_the_exact_ones(name):
    for k, point in enumerate(mgh.CASES[name]["points"]):
        value, grad = (np.asarray(leaf[k]) for leaf in values_and_gradients()[name])
        exact = np.array(point["grad"], np.float64)
        assert value == pytest.approx(float(point["f"]), rel=1e-12)
        np.testing.assert_allclose(
            grad, exact, rtol=0, atol=1e-12 * np.max(np.abs(exact))
        )


@functools.cache
def minima(name):
    """{rule: the Minimum} from the starting point of one problem, both rules in one
    program.
    """
    objective, start = mgh.objective_of(name), jnp.asarray(mgh.CASES[name]["start"])
    rules = {key: constructor() for key, constructor in RULES.items()}
    return jax.jit(
        lambda x: {
            k: minimise(objective, rule, x, tolerance=TOLERANCE, max_steps=500)
            for k, rule in rules.items()
        }
    )(start)


@pytest.mark.on_ci(
    "both rules; test_lbfgs_takes_about_as_many_evaluations_as_scipys "
    "(test_minimise.py) reaches a minimum of another function"
)
@pytest.mark.thorough("the other problems", but="powell_badly_scaled")
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", CHOSEN)
def test_quasi_newton_rules_reach_a_recorded_minimum(name, rule):
    found = minima(name)[rule]
    assert found.outcome == Outcome.CONVERGED
    assert found.gradient_norm <= TOLERANCE
    assert mgh.minimum_at(name, float(found.value)) == "global"


@pytest.mark.on_ci("the trust region; nothing shorter shows this")
@pytest.mark.thorough("the other problems", but="kowalik")
@pytest.mark.parametrize(
    "name", ["rosenbrock", "helical_valley", "wood", "kowalik_osborne"]
)
def test_newton_in_a_trust_region_reaches_a_recorded_minimum(name):
    objective, x = mgh.objective_of(name), jnp.asarray(mgh.CASES[name]["start"])
    found = minimise(
        objective, trust_region_newton(), x, tolerance=TOLERANCE, max_steps=200
    )
    assert found.outcome == Outcome.CONVERGED
    assert mgh.minimum_at(name, float(found.value)) == "global"


@pytest.mark.thorough(
    "bfgs, and several problems together; "
    "test_lbfgs_takes_about_as_many_evaluations_as_scipys (test_minimise.py) has one"
)
@pytest.mark.parametrize("names", [FEW, CHOSEN], ids=len)
@pytest.mark.parametrize("rule", RULES)
def test_quasi_newton_rules_take_no_more_evaluations_than_scipys(rule, names):
    """On the problems together; scipy's BFGS stops at 1e-5, ours at 1e-6."""
    ours = [int(minima(name)[rule].evaluations) for name in names]
    theirs = [
        min(mgh.CASES[name]["scipy"][key]["nfev"] for key in ("BFGS", "L-BFGS-B"))
        for name in names
    ]
    ratios = np.array(ours) / np.array(theirs)
    assert np.exp(np.mean(np.log(ratios))) <= 1.3
    assert np.max(ratios) <= 3.0


def test_every_problem_is_there():
    assert len(mgh.CASES) == 42
    for name, case in mgh.CASES.items():
        assert jax.eval_shape(
            mgh.residuals_of(name), jnp.asarray(case["start"])
        ).shape == (case["m"],)
