"""implicit_minimum and minimise against closed forms: derivatives in every mode,
reports and refusals.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import descent
from research.derivatives import NotInexactError, NotScalarError
from research.descent import SingularHessianError, implicit_minimum, minimise
from research.types import Outcome
from research.update_rules import bfgs, gradient_descent, newton

COMPILE_QUICKLY = True  # tests/conftest.py

RANDOM = np.random.default_rng(0)
A = jnp.asarray(RANDOM.normal(size=(30, 6)))
B = jnp.asarray(RANDOM.normal(size=30))
W = jnp.asarray(RANDOM.normal(size=6))
RULE = bfgs()


def ridge(x, theta):
    rest = A @ x - B * theta["scale"]
    return 0.5 * rest @ rest / 30 + 0.5 * theta["penalty"] * x @ x


def closed(theta):
    hessian = A.T @ A / 30 + theta["penalty"] * jnp.eye(6)
    return jnp.linalg.solve(hessian, A.T @ B * theta["scale"] / 30)


THETA = {"scale": jnp.asarray(1.3), "penalty": jnp.asarray(0.2)}


def ours(theta, **options):
    options = {"tolerance": 1e-13, "rule": RULE, **options}
    return implicit_minimum(ridge, jnp.zeros(6), theta, **options)


@pytest.mark.thorough(
    "Jacobians and second derivatives; test_minimise_is_differentiable_in_reverse has "
    "gradients of ridge"
)
@pytest.mark.parametrize("order", ["reverse", "forward", "second"])
def test_derivatives_of_ridge_are_the_closed_form(order):
    transform = {
        "reverse": jax.jacrev,
        "forward": jax.jacfwd,
        "second": lambda f: jax.jacfwd(jax.jacrev(f)),
    }[order]
    found = jax.jit(transform(lambda theta: ours(theta).params))(THETA)
    truth = jax.jit(transform(closed))(THETA)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13),
        found,
        truth,
    )


@pytest.mark.thorough(
    "implicit_minimum's value; test_minimise_is_differentiable_in_reverse has that of "
    "minimise"
)
def test_value_has_its_derivative():
    found = jax.grad(lambda theta: ours(theta).value)(THETA)
    truth = jax.grad(lambda theta: ridge(closed(theta), theta))(THETA)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), found, truth
    )


@pytest.mark.on_ci("the numbers of the report; nothing shorter shows them")
def test_report_is_that_of_the_hessian():
    found = ours(THETA)
    values = jnp.linalg.eigvalsh(A.T @ A / 30 + 0.2 * jnp.eye(6))
    np.testing.assert_allclose(found.smallest_eigenvalue, values[0], rtol=1e-12)
    np.testing.assert_allclose(found.largest_eigenvalue, values[-1], rtol=1e-12)
    slope = jax.grad(ridge)(found.params, THETA)
    np.testing.assert_allclose(found.residual, jnp.max(jnp.abs(slope)), atol=1e-16)
    assert found.outcome == Outcome.CONVERGED


@pytest.mark.thorough(
    "the estimates of Lanczos's method; "
    "test_smooth_minimum_is_not_refused_at_a_moderate_tolerance needs them for 200 "
    "parameters"
)
def test_eigenvalues_of_a_large_hessian_are_bounded_by_lanczos():
    scales = jnp.linspace(1.0, 3.0, 200).at[7].set(0.01).at[9].set(10.0)
    f = lambda x, theta: 0.5 * jnp.sum(scales * (x - theta) ** 2)
    found = implicit_minimum(f, jnp.zeros(200), 1.0, rule=RULE)
    np.testing.assert_allclose(found.smallest_eigenvalue, 0.01, rtol=1e-6)
    np.testing.assert_allclose(found.largest_eigenvalue, 10.0, rtol=1e-6)
    # One eigenvalue alone: the Krylov space has one dimension.
    same = lambda x, theta: 0.5 * jnp.sum((x - theta) ** 2)
    found = implicit_minimum(same, jnp.zeros(200), 1.0, rule=RULE)
    np.testing.assert_allclose(found.smallest_eigenvalue, 1.0, rtol=1e-10)


@pytest.mark.thorough("early stops")
def test_derivative_of_an_early_stop_is_nearer_than_that_of_the_steps():
    step = lambda x, theta: x - 0.3 * jax.grad(ridge)(x, theta)

    def unrolled(theta):
        return jax.lax.fori_loop(0, 20, lambda i, x: step(x, theta), jnp.zeros(6))

    early = lambda theta: ours(theta, rule=gradient_descent(0.3), max_steps=20).params
    truth = jax.jacfwd(closed)(THETA)["penalty"]
    error = lambda f: float(jnp.max(jnp.abs(jax.jacfwd(f)(THETA)["penalty"] - truth)))
    assert error(early) < 0.5 * error(unrolled)


@pytest.mark.thorough(
    "the bytes; reverse mode, as in test_minimise_is_differentiable_in_reverse, fails "
    "if it meets the loop of the steps"
)
def test_memory_does_not_grow_with_the_steps():
    def temporary(steps):
        f = lambda theta: jnp.sum(
            ours(theta, rule=gradient_descent(0.01), max_steps=steps).params
        )
        compiled = jax.jit(jax.grad(f)).lower(THETA).compile()
        analysis: Any = compiled.memory_analysis()
        return analysis.temp_size_in_bytes

    assert temporary(10) == temporary(100_000)


@pytest.mark.thorough("vmap")
def test_theta_maps():
    penalties = jnp.array([0.1, 0.5, 2.0])
    f = lambda p: ours({"scale": jnp.asarray(1.0), "penalty": p}).params
    slopes = jax.vmap(jax.jacrev(f))(penalties)
    truth = [
        jax.jacrev(lambda p: closed({"scale": 1.0, "penalty": p}))(p) for p in penalties
    ]
    np.testing.assert_allclose(slopes, jnp.stack(truth), rtol=1e-11)


SINGULAR = {
    "flat": lambda x, theta: 0.5 * (x[0] + x[1] - theta) ** 2,
    "saddle": lambda x, theta: 0.5 * x[0] ** 2 - 0.5 * x[1] ** 2 - theta * x[0],
    "quartic": lambda x, theta: jnp.sum((x - theta) ** 4),
    "none": lambda x, theta: 0.0 * jnp.sum(x) * theta,
}


@pytest.mark.thorough("other kinds of Hessian", but="flat")
@pytest.mark.parametrize("name", SINGULAR)
def test_singular_hessian_is_refused(name):
    f = SINGULAR[name]
    start = jnp.full(2, 0.5) if name == "quartic" else jnp.zeros(2)
    options = {"rule": gradient_descent(0.1), "max_steps": 50}
    at = lambda theta: implicit_minimum(f, start, theta, **options)
    theta = jnp.asarray(0.5)
    with pytest.raises(SingularHessianError, match="must be positive definite"):
        at(theta)
    with pytest.raises(SingularHessianError):
        jax.grad(lambda theta: jnp.sum(at(theta).params))(theta)
    slope = jax.jit(jax.grad(lambda theta: jnp.sum(at(theta).params)))(theta)
    assert jnp.isnan(slope)  # A trace cannot raise.


ROTATED = jnp.linalg.qr(jnp.asarray(RANDOM.normal(size=(3, 3))))[0]
# The Hessian is singular at the minimum, and not where a search ends. The third has a
# direction that is flatter and quadratic, and the last no minimum.
DEGENERATE = {
    "quartic": lambda x, t: jnp.sum(x**4) / 4 - t * jnp.sum(x),
    "rotated": lambda x, t: _one_quartic(ROTATED @ x, 1.0) - t * (ROTATED @ x)[0],
    "beside flat": lambda x, t: _one_quartic(x, 1e-6) - t * x[0],
    "sixth power": lambda x, t: jnp.sum(x**6) - t * jnp.sum(x),
    "none": lambda x, t: jnp.sum(jnp.exp(-x * (1 + t))),
}


def _one_quartic(x, curvature):
    return x[0] ** 4 / 4 + 0.5 * curvature * jnp.sum((x[1:] - 1) ** 2)


@pytest.mark.on_ci("an objective without a minimum; nothing shorter shows this")
@pytest.mark.thorough("the powers", but="none")
@pytest.mark.parametrize("name", DEGENERATE)
def test_search_that_ends_before_a_singular_hessian_is_refused(name):
    start = jnp.array([0.5, 1.0, 1.0])
    if name == "rotated":
        start = ROTATED.T @ start

    def at(theta, tolerance):
        options = {"rule": bfgs(), "tolerance": tolerance, "max_steps": 10_000}
        return implicit_minimum(DEGENERATE[name], start, theta, **options)

    slope = jax.jit(jax.grad(lambda theta, tol: jnp.sum(at(theta, tol).params)))
    for tolerance in (1e-3, 1e-6):
        with pytest.raises(SingularHessianError, match="ends too far from it"):
            at(0.0, tolerance)
        assert jnp.isnan(slope(0.0, tolerance))


@pytest.mark.on_ci("200 curvatures and 2000 steps; nothing shorter shows this")
@pytest.mark.thorough("the other size", but="200")
@pytest.mark.parametrize("size", [3, 200])
def test_smooth_minimum_is_not_refused_at_a_moderate_tolerance(size):
    # At the minimum x = a t^(1/3); the curvatures 3 x² differ by a factor of 100. The
    # relative error of dx/dt is 2 (gradient / curvature) / x, which is below 0.011.
    at = jnp.geomspace(0.5, 5.0, size)
    objective = lambda x, t: jnp.sum(x**4 / 4 - t * at**3 * x)
    found = lambda t: (
        implicit_minimum(
            objective, 1.2 * at, t, rule=optax.sgd(0.01), tolerance=2e-3, max_steps=2000
        ).params
    )
    np.testing.assert_allclose(jax.jacfwd(found)(1.0), at / 3, rtol=0.011)


@pytest.mark.on_ci("a Hessian of condition 1e12; nothing shorter shows this")
@pytest.mark.thorough("the other condition", but="1000000000000.0")
@pytest.mark.parametrize("condition", [1e9, 1e12])
def test_an_ill_conditioned_hessian_leaves_three_digits(condition):
    size, random = 40, np.random.default_rng(3)
    basis, _ = np.linalg.qr(random.normal(size=(size, size)))
    hessian = jnp.asarray((basis / np.geomspace(1.0, condition, size)) @ basis.T)
    target = jnp.asarray(random.normal(size=size))

    def objective(x, theta):
        return 0.5 * x @ hessian @ x - theta * (hessian @ target) @ x

    at = lambda theta: implicit_minimum(objective, target, theta, rule=RULE).params
    slope = jax.jit(jax.jacfwd(at))(1.0)
    assert jnp.linalg.norm(slope - target) <= 1e-3 * jnp.linalg.norm(target)


@pytest.mark.thorough(
    "a formula of 0; test_a_search_that_jumps_over_a_kink_gives_no_derivative "
    "has another one"
)
def test_a_derivative_that_may_not_exist_is_nan_although_its_formula_is_zero():
    """The gradient of |x - θ| does not depend on θ, except at the kink."""
    objective = lambda x, theta: jnp.abs(x - theta) + 0.0 * x**2
    at = lambda theta: implicit_minimum(objective, 0.3, theta, rule=newton()).params
    for transform in (jax.grad, jax.jacfwd):
        assert jnp.isnan(jax.jit(transform(at))(0.3))
    with pytest.raises(SingularHessianError):
        at(0.3)


@pytest.mark.on_ci("150 coordinates; nothing shorter shows this")
@pytest.mark.thorough("three of the four draws", but="3")
@pytest.mark.parametrize("seed", range(4))
def test_a_kink_in_one_of_many_coordinates_gives_no_derivative(seed):
    size, random = 150, np.random.default_rng(seed)
    place = int(random.integers(size))
    weights = jnp.asarray(10 ** random.uniform(-1, 0, size))
    target = jnp.asarray(random.normal(size=size))

    def objective(x, theta):
        square = 0.5 * jnp.sum(weights * (x - theta * target) ** 2)
        return square + 3 * jnp.abs(x[place])

    with pytest.raises(SingularHessianError, match="beside a kink"):
        implicit_minimum(
            objective, jnp.full(size, 0.01), 1.0, rule=optax.sgd(0.5), max_steps=500
        )


@pytest.mark.on_ci("three derivatives of a minimum; nothing shorter shows this")
def test_minimise_is_differentiable_in_reverse():
    def at(theta):
        return minimise(lambda x: ridge(x, theta), RULE, jnp.zeros(6), tolerance=1e-13)

    weighted = lambda theta: W @ at(theta).params
    truth = jax.grad(lambda theta: W @ closed(theta))(THETA)
    for found in (jax.grad(weighted)(THETA), jax.jacfwd(weighted)(THETA)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, truth
        )
    found = jax.grad(lambda theta: at(theta).value)(THETA)
    truth = jax.grad(lambda theta: ridge(closed(theta), theta))(THETA)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), found, truth
    )


@pytest.mark.thorough("the other size", but="200")
def test_only_one_leaf_may_depend_on_what_is_differentiated():
    """JAX's transposition of a linear solution fails for a leaf with a constant b."""
    start = {"far": jnp.zeros(2), "near": jnp.zeros(())}

    def at(theta):
        f = lambda p: jnp.sum((p["far"] - theta) ** 2) + (p["near"] - 1.0) ** 2
        return minimise(f, optax.sgd(0.25), start, tolerance=1e-10).params

    theta = jnp.array([2.0, 3.0])
    gradient = jax.grad(lambda theta: jnp.sum(at(theta)["far"] ** 2))(theta)
    np.testing.assert_allclose(gradient, [4.0, 6.0], rtol=1e-8)
    constant = jax.grad(lambda theta: at(theta)["near"])(theta)
    np.testing.assert_allclose(constant, 0.0, atol=1e-12)


@pytest.mark.on_ci("test_singular_hessian_is_refused has the other case")
@pytest.mark.parametrize("size", [40, 200])
def test_a_derivative_in_the_range_of_a_singular_hessian_is_found(size):
    random = np.random.default_rng(0)
    inputs = jnp.asarray(random.normal(size=(10, size)) / np.sqrt(size))
    targets = jnp.asarray(random.normal(size=10))

    def at(theta):
        objective = lambda x: 0.5 * jnp.sum((inputs @ x - theta * targets) ** 2)
        start = jnp.zeros(size)
        return minimise(objective, optax.sgd(0.5), start, tolerance=1e-10).params

    slope = jax.jit(jax.jacfwd(at))(1.0)
    np.testing.assert_allclose(slope, np.linalg.pinv(inputs) @ targets, atol=1e-8)


@pytest.mark.on_ci("narrow dtypes; nothing shorter shows this")
@pytest.mark.parametrize(("size", "dtype"), [(3, "bfloat16"), (0, "float64")])
def test_minimise_of_narrow_or_no_params_has_derivatives(size, dtype):
    start = jnp.zeros(size, dtype)

    def at(theta):
        objective = lambda x: 0.5 * jnp.sum((x - theta) ** 2)
        return minimise(objective, optax.sgd(0.5), start, tolerance=1e-2).params

    np.testing.assert_array_equal(jax.jacfwd(at)(jnp.asarray(1.0, dtype)), 1.0)


@pytest.mark.on_ci("an infinite slope; nothing shorter shows this")
def test_an_infinite_slope_beside_the_minimum_is_no_part_of_it():
    objective = lambda x, theta: 0.5 * (x - theta["a"]) ** 2

    def at(s):
        theta = {"a": s + 1, "unused": jnp.sqrt(s)}
        return implicit_minimum(objective, 0.3, theta, rule=newton()).params

    assert jax.jacfwd(at)(0.0) == pytest.approx(1.0)


@pytest.mark.on_ci(
    "test_singular_hessian_is_refused has a flat objective of implicit_minimum"
)
def test_minimise_of_a_flat_objective_has_no_derivative():
    # H = 0, and the gradient depends on theta.
    linear = lambda theta: minimise(
        lambda x: theta * x[0], gradient_descent(0.1), jnp.zeros(2), max_steps=3
    )
    assert jnp.isnan(jax.grad(lambda theta: linear(theta).params[0])(0.5))


class Unhashable:
    __hash__ = None

    def __call__(self, x, theta):
        return (x - theta) ** 2


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"theta": 1}, NotInexactError, "theta must be real floating numbers; got int"),
        ({"start": 1}, NotInexactError, "start must be real floating"),
        ({"start": ()}, TypeError, "start must hold at least one array"),
        ({"objective": lambda x, t: jnp.ones(2)}, NotScalarError, "an array of shape"),
        ({"objective": lambda x: x}, TypeError, "objective must be a function of"),
        ({"rule": 0.1}, TypeError, "rule"),
        ({"tolerance": -1.0}, ValueError, "tolerance"),
        ({"max_steps": 1.5}, TypeError, "max_steps"),
        ({"objective": Unhashable()}, TypeError, "objective must be hashable"),
    ],
)
def test_bad_input_is_named(change, error, words):
    call = {
        "objective": lambda x, theta: (x - theta) ** 2,
        "start": 0.0,
        "theta": 1.0,
        "rule": optax.sgd(0.1),
    } | change
    with pytest.raises(error, match=re.escape(words)):
        descent.implicit_minimum(**call)


@pytest.mark.on_ci("test_singular_hessian_is_refused has another refusal")
def test_a_search_that_jumps_over_a_kink_gives_no_derivative():
    # The minimum of t |x| + (x - 1)² / 2 stays at 0 for t > 1.
    lasso = lambda x, t: jnp.abs(x) * t + 0.5 * (x - 1) ** 2
    found = lambda t: implicit_minimum(lasso, 0.5, t, rule=gradient_descent(0.01))
    with pytest.raises(ValueError, match="ends too far from it"):
        found(2.0)
    assert jnp.isnan(jax.jit(jax.grad(lambda t: found(t).params))(2.0))
    # A line search stops so close to the kink that rounding errors cross it.
    search = optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(20))
    with pytest.raises(ValueError, match="beside a kink"):
        implicit_minimum(lasso, 0.5, 2.0, rule=search)


@pytest.mark.thorough(
    "float32; test_smooth_minimum_is_not_refused_at_a_moderate_tolerance is in float64"
)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_rounding_of_the_gradient_is_no_kink_in_float32(scale, float64_off):
    with float64_off:
        a = jnp.asarray(RANDOM.normal(size=(200, 5)), "float32")
        b = jnp.asarray(RANDOM.normal(size=200), "float32")
        ridge = lambda x, t: scale * (jnp.sum((a @ x - b) ** 2) + t * jnp.sum(x**2))
        found = lambda t: implicit_minimum(
            ridge, jnp.zeros(5), t, rule=bfgs(), max_steps=200
        ).params[0]
        slope, traced = jax.grad(found)(1.0), jax.jit(jax.grad(found))(1.0)
    a, b = np.asarray(a, float), np.asarray(b, float)
    inverse = np.linalg.inv(a.T @ a + np.eye(5))
    truth = -(inverse @ inverse @ a.T @ b)[0]
    assert slope == pytest.approx(truth, rel=1e-3)
    assert traced == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_start_narrower_than_float32_is_refused(dtype):
    objective = lambda x, theta: jnp.sum((x - theta) ** 2)
    start, theta = jnp.ones(3, dtype), jnp.ones((), dtype)
    with pytest.raises(NotInexactError, match="float32 or float64"):
        implicit_minimum(objective, start, theta, rule=bfgs())
