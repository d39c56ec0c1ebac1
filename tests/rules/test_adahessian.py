"""AdaHessian: its formula in fifty digits on the same draws, planted mistakes,
draws, and bad input.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.update_rules import adahessian, adahessian_draws
from research.verification import PROBLEMS, verify_rule
from research.verification.adam_variants import ADAHESSIAN
from research.verification.formula import Formula, mistaken
from research.verification.problems import NUM_STEPS

COMPILE_QUICKLY = True  # tests/conftest.py

KEY = jax.random.key(5)
FUNCTIONS = ["quadratic", "rosenbrock", "softmax_regression"]


def draws(problem):
    """The signs of each step, as the formula takes them."""
    params = jax.tree.map(jnp.asarray, problem.start)
    steps = jax.jit(jax.vmap(lambda t: adahessian_draws(KEY, t, params)))
    leaves = jax.tree.leaves(steps(jnp.arange(NUM_STEPS)))
    return [[np.asarray(leaf[t]) for leaf in leaves] for t in range(NUM_STEPS)]


def compared(name, **arguments: Any):
    problem = PROBLEMS[name]
    return verify_rule(
        lambda rate, draws, **given: adahessian(rate, KEY, **given),
        ADAHESSIAN,
        problems=[problem],
        learning_rate=problem.rate_of_unit_steps,
        draws=draws(problem),
        **arguments,
    )


@pytest.mark.on_ci(
    "steps in fifty digits; test_sizes_are_averaged_over_kernels_alone has one step "
    "by hand"
)
@pytest.mark.thorough("the other problems", but="softmax")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_adahessian_is_its_formula_on_the_same_draws(name):
    assert compared(name).same
    other = {"b1": 0.5, "b2": 0.9, "eps": 0.01, "weight_decay": 0.1}
    assert compared(name, hessian_power=0.5, **other).same


@pytest.mark.parametrize("mistake", ADAHESSIAN.mistakes, ids=lambda m: m.cause)
def test_a_mistake_in_the_formula_is_named(mistake):
    """The formula with the mistake stands for a wrong rule."""
    problem = PROBLEMS["quadratic"]
    found = verify_rule(
        Formula(mistaken(ADAHESSIAN, mistake)),
        ADAHESSIAN,
        problems=[problem],
        learning_rate=0.1,
        draws=draws(problem),
        weight_decay=0.1,
    )
    assert not found.same
    assert mistake.cause in str(found.cause)


@pytest.mark.thorough(
    "three keys; test_sizes_are_averaged_over_kernels_alone has such a Hessian"
)
def test_the_diagonal_of_a_diagonal_hessian_is_exact():
    """Then D is the diagonal whatever the signs, and a step with b1 = 0 is Newton's."""
    curvature = jnp.array([2.0, 0.5, -4.0])
    f = lambda x, indices=None: 0.5 * jnp.sum(curvature * x**2)
    x = jnp.array([1.0, -3.0, 2.0])
    for seed in range(3):
        rule = adahessian(1.0, jax.random.key(seed), b1=0.0, eps=1e-12)
        updates: Any = rule.update(jax.grad(f)(x), rule.init(x), x, value_fn=f)[0]
        np.testing.assert_allclose(updates, jnp.array([-1.0, 3.0, 2.0]), rtol=1e-9)


def test_sizes_are_averaged_over_kernels_alone():
    """A kernel of shape (2, 2, 3, 1) has one size for each pair of channels."""
    curvature = jnp.arange(1.0, 13.0).reshape(2, 2, 3, 1)
    f = lambda x, indices=None: 0.5 * jnp.sum(curvature * x**2)
    x = jnp.ones((2, 2, 3, 1))

    def step(average) -> Any:
        rule = adahessian(1.0, KEY, b1=0.0, eps=1e-12, average_kernels=average)
        return rule.update(curvature, rule.init(x), x, value_fn=f)[0]

    mean = curvature.mean((0, 1), keepdims=True)
    np.testing.assert_allclose(step(True), -curvature / mean, rtol=1e-9)
    np.testing.assert_allclose(step(False), -jnp.ones_like(x), rtol=1e-9)


def test_signs_are_fair_and_differ_by_step_key_and_leaf():
    x = {"a": jnp.zeros(4000), "b": jnp.zeros(4000)}
    signs = adahessian_draws(KEY, 0, x)
    found = [*signs.values(), *adahessian_draws(KEY, 1, x).values()]
    found += adahessian_draws(jax.random.key(6), 0, x).values()
    for k, a in enumerate(found):
        assert set(np.unique(a)) == {-1.0, 1.0}
        assert abs(a.mean()) < 0.1  # Six standard deviations.
        assert all(abs(jnp.mean(a * b)) < 0.1 for b in found[:k])


@pytest.mark.on_ci("half precision; nothing shorter has it")
def test_half_precision_keeps_the_average_in_float32():
    f = lambda x, indices=None: jnp.sum(300.0 * x**2)
    x = jnp.ones(3, "float16")
    rule = adahessian(0.1, KEY, b1=0.0)
    updates: Any
    updates, state = rule.update(jax.grad(f)(x), rule.init(x), x, value_fn=f)
    assert updates.dtype == x.dtype
    nu: Any = jax.tree.leaves(state)[2]
    assert nu.dtype == jnp.float32
    np.testing.assert_allclose(np.asarray(updates, float), -0.1, rtol=1e-2)


def test_bad_input_raises():
    with pytest.raises(TypeError, match=r"key must be a key, such as jax\.random\.key"):
        adahessian(0.1, 0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="eps must be a finite number, positive"):
        adahessian(0.1, KEY, eps=0.0)
    with pytest.raises(ValueError, match="hessian_power must be a finite number"):
        adahessian(0.1, KEY, hessian_power=-1.0)
    rule, x = adahessian(0.1, KEY), jnp.ones(2)
    with pytest.raises(ValueError, match="adahessian needs params and value_fn"):
        rule.update(x, rule.init(x), x)
    with pytest.raises(TypeError, match="defined for real params only"):
        rule.init(jnp.ones(2, complex))
