"""Laws of `check_derivative` where small entries make f bend sharply beside x."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.derivatives import check_derivative

# Each x has small entries.
MIXED = (1e-9, -1e-9, 1e-7, 0.002, -0.4)
OTHER = (0.0354826553, -0.0047321019, 0.550943062, -1.16365235e-9, 8.30711161e-6)
CASES = {
    "powers of 1.8": (lambda x: jnp.sum(jnp.abs(x) ** 1.8), MIXED),
    "powers of 2.055": (lambda x: jnp.sum(jnp.abs(x) ** 2.0554017658557795), OTHER),
    "squares times logarithms": (lambda x: jnp.sum(x**2 * jnp.log(jnp.abs(x))), MIXED),
}


@pytest.mark.on_ci("six checks of each function; nothing shorter shows this")
@pytest.mark.parametrize("name", CASES)
def test_a_right_derivative_beside_a_sharp_bend_is_not_rejected(name):
    """The second or third derivative is huge beside the small entries, at distances
    that rounding hides. Values show another slope than that at x.
    """
    f, fixed = CASES[name]
    rng = np.random.default_rng(5)
    random = [10.0 ** rng.uniform(-9, 0, 5) * rng.choice([-1, 1], 5) for _ in range(4)]
    for i, x in enumerate([fixed, fixed, *random]):
        report = check_derivative(f, jnp.array(x), jax.random.key(i))
        assert report.verdict in ("right", "unresolved"), report.text()


@pytest.mark.on_ci("the larger error", but=r"1\.001")
@pytest.mark.parametrize("factor", [1.001, 1.1])
def test_an_error_beside_a_sharp_bend_is_found(factor):
    f, x = CASES["powers of 1.8"]
    wrong = lambda x: jax.grad(f)(x) * jnp.array([1.0, 1.0, 1.0, factor, 1.0])
    report = check_derivative(f, jnp.array(x), jax.random.key(0), wrong)
    assert report.verdict == "wrong"
