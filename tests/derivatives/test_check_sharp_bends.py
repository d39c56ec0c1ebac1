"""Laws of `check_derivative` where small entries make f bend sharply beside x."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.derivatives import check_derivative

FUNCTIONS = {
    "powers of 1.8": lambda x: jnp.sum(jnp.abs(x) ** 1.8),
    "powers of 2.06": lambda x: jnp.sum(jnp.abs(x) ** 2.06),
    "squares times logarithms": lambda x: jnp.sum(x**2 * jnp.log(jnp.abs(x))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_right_derivative_beside_a_sharp_bend_is_not_rejected(name):
    """f'' or f''' is huge beside the small entries, at distances that rounding hides.
    Values show another slope than that at x.
    """
    rng = np.random.default_rng(5)
    for i in range(4):
        x = 10.0 ** rng.uniform(-9, 0, 5) * rng.choice([-1, 1], 5)
        report = check_derivative(FUNCTIONS[name], jnp.array(x), jax.random.key(i))
        assert report.verdict in ("right", "unresolved"), report.text()
    x = jnp.array([1e-9, -1e-9, 1e-7, 0.002, -0.4])
    for i in range(2):
        report = check_derivative(FUNCTIONS[name], x, jax.random.key(i))
        assert report.verdict in ("right", "unresolved"), report.text()


def test_an_error_beside_a_sharp_bend_is_found():
    f = FUNCTIONS["powers of 1.8"]
    x = jnp.array([1e-9, -1e-9, 1e-7, 0.002, -0.4])
    wrong = lambda x: jax.grad(f)(x) * jnp.array([1.0, 1.0, 1.0, 1.1, 1.0])
    assert check_derivative(f, x, jax.random.key(0), wrong).verdict == "wrong"
