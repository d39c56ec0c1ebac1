"""Laws of the activations: values by SciPy, derivatives by mpmath at fifty digits and
by jax.grad.
"""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import special, stats

from research import models

COMPILE_QUICKLY = True  # tests/conftest.py

POINTS = np.concatenate([np.linspace(-8, 8, 65), [-30.0, -0.1, 0.1, 30.0]])


def cubic(z):
    """0.044715 is the double nearest to it, in every precision."""
    return z + 0.044715 * z**3


VALUES = {
    "identity": lambda z: z,
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "relu": lambda z: np.where(z > 0, z, 0),
    "silu": lambda z: z * special.expit(z),
    "gelu": lambda z: z * stats.norm.cdf(z),
    "gelu_tanh": lambda z: z * special.expit(2 * np.sqrt(2 / np.pi) * cubic(z)),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
}
EXACT = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "tanh": mpmath.tanh,
    "relu": lambda z: max(z, mpmath.mpf(0)),
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "gelu": lambda z: z * mpmath.ncdf(z),
    "gelu_tanh": lambda z: (
        z * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * cubic(z))) / 2
    ),
    "elu": lambda z: z if z > 0 else mpmath.expm1(z),
}


def test_every_activation_is_under_test():
    assert (
        set(models.ACTIVATIONS)
        == set(models.ACTIVATION_DERIVATIVES)
        == set(VALUES)
        == set(EXACT)
    )


@pytest.mark.parametrize("name", VALUES)
def test_activation_equals_scipy_also_in_the_tails(name):
    # Relative: in the lower tail silu is tiny. Of gelu 1 + erf leaves no digit there:
    # it is off by |z| ε / 2, as PyTorch's.
    ours = models.find_activation(name)(jnp.asarray(POINTS))
    lost = np.abs(POINTS) * np.finfo(float).eps / 2 if name == "gelu" else 0
    assert (
        np.abs(ours - VALUES[name](POINTS))
        <= 3e-14 * np.abs(VALUES[name](POINTS)) + lost
    ).all()


@pytest.mark.parametrize("name", VALUES)
def test_derivative_equals_mpmaths(name):
    points = POINTS[::4][
        POINTS[::4] != 0
    ]  # ReLU has none at 0, which the next test takes.
    with mpmath.workdps(50):
        exact = [
            float(
                mpmath.diff(EXACT[name], mpmath.mpf(float(z)), h=mpmath.mpf(10) ** -20)
            )
            for z in points
        ]
    np.testing.assert_allclose(
        models.ACTIVATION_DERIVATIVES[name](jnp.asarray(points)),
        exact,
        rtol=1e-14,
        atol=4e-16,
    )


@pytest.mark.on_ci("the other activations", but="^relu")
@pytest.mark.parametrize("name", VALUES)
def test_derivative_equals_jaxs_at_the_kink_and_where_units_saturate(name):
    points = jnp.array([-1e5, -700.0, -40.0, -0.0, 0.0, 40.0, 700.0, 1e5])
    theirs = jax.vmap(jax.grad(models.find_activation(name)))(points)
    np.testing.assert_allclose(
        models.ACTIVATION_DERIVATIVES[name](points), theirs, rtol=0, atol=4e-16
    )


@pytest.mark.on_ci("the other activations", but="^silu")
@pytest.mark.parametrize("name", VALUES)
def test_derivative_in_half_precision_is_finite_wherever_the_argument_is(name):
    points = np.array([-65504, -900, -300, -80, 0, 80, 300, 900, 65504], "float16")
    found = models.ACTIVATION_DERIVATIVES[name](jnp.asarray(points))
    exact = models.ACTIVATION_DERIVATIVES[name](jnp.asarray(points, float))
    np.testing.assert_allclose(found.astype(float), exact, rtol=0, atol=1e-3)


@pytest.mark.on_ci(
    "the other dtypes and activations", but="^(silu|gelu_tanh|elu)-float16"
)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", VALUES)
def test_derivative_by_hand_is_constant_far_from_0(name, dtype):
    # Beyond 800, every activation is linear or constant, also in float64.
    far = jnp.asarray(jnp.geomspace(800, float(jnp.finfo(dtype).max) * 0.99, 40), dtype)
    slope = jax.jit(jax.vmap(jax.grad(models.ACTIVATION_DERIVATIVES[name])))
    assert (slope(far) == 0).all()
    assert (slope(-far) == 0).all()


@pytest.mark.on_ci(
    "values and slopes far away; test_derivative_by_hand_is_constant_far_from_0 has "
    "the derivative of the slope"
)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_gelu_tanh_and_its_derivatives_are_those_of_its_limits_far_from_0(dtype):
    f = models.find_activation("gelu_tanh")
    far = jnp.asarray(jnp.geomspace(41, float(jnp.finfo(dtype).max) * 0.99, 40), dtype)
    slope = jax.grad(f)
    for g, above in ((f, far), (jax.vmap(slope), 1), (jax.vmap(jax.grad(slope)), 0)):
        np.testing.assert_array_equal(jax.jit(g)(far), above)
        np.testing.assert_array_equal(jax.jit(g)(-far), 0)
    assert np.isnan(slope(jnp.asarray(jnp.nan, dtype)))


@pytest.mark.parametrize("table", [models.ACTIVATIONS, models.ACTIVATION_DERIVATIVES])
@pytest.mark.parametrize("name", VALUES)
def test_activation_keeps_dtype_and_shape(table, name):
    jaxpr = jax.make_jaxpr(table[name])(jnp.zeros((3, 2), jnp.float32))
    assert jaxpr.out_avals[0].shape == (3, 2)
    assert "f64[3" not in str(jaxpr)


@pytest.mark.on_ci("test_activation_equals_scipy_also_in_the_tails has the exact gelu")
def test_gelu_is_exact_where_jaxs_default_approximates():
    z = jnp.linspace(-6, 6, 1201)
    off = jnp.abs(jax.nn.gelu(z) - models.find_activation("gelu")(z)).max()
    assert 4.5e-4 < off < 4.8e-4
    np.testing.assert_allclose(
        models.find_activation("gelu")(z),
        jax.nn.gelu(z, approximate=False),
        rtol=1e-14,
        atol=1e-15,
    )


def test_elu_and_gelu_tanh_are_jaxs():
    z = jnp.linspace(-6, 6, 1201)
    for name, theirs in (("gelu_tanh", jax.nn.gelu), ("elu", jax.nn.elu)):
        np.testing.assert_allclose(
            models.find_activation(name)(z), theirs(z), rtol=1e-13, atol=2e-15
        )


def test_unknown_activation_is_refused_by_name():
    with pytest.raises(
        ValueError,
        match=r"activation must be one of identity, .*; got activation='swish'",
    ):
        models.find_activation("swish")
