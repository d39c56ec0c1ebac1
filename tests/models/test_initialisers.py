"""Laws of the initialisers: their distributions by SciPy, their fans by JAX's own,
orthogonality by linear algebra.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import initializers
from scipy import stats

from research import models

COMPILE_QUICKLY = True  # tests/conftest.py

FAN_IN, FAN_OUT = 120, 80
VARIANCES = {"lecun": 1 / FAN_IN, "glorot": 2 / (FAN_IN + FAN_OUT), "he": 2 / FAN_IN}
RANDOM = [f"{name}_{kind}" for name in VARIANCES for kind in ("normal", "uniform")]
JAXS = {
    "lecun_uniform": initializers.lecun_uniform(),
    "glorot_uniform": initializers.glorot_uniform(),
    "he_uniform": initializers.he_uniform(),
}


def test_every_initialiser_is_under_test():
    assert set(models.INITIALISERS) == {*RANDOM, "orthogonal"}


@pytest.mark.parametrize("name", RANDOM)
def test_weights_have_the_distribution_of_the_paper(name):
    family, kind = name.split("_")
    weights = np.asarray(
        models.find_initialiser(name)(jax.random.key(0), (FAN_IN, FAN_OUT), jnp.float64)
    ).ravel()
    scale = np.sqrt(VARIANCES[family])
    assert (
        abs(np.mean(weights**2) / scale**2 - 1) < 0.05
    )  # Three and a half standard deviations of 9,600 squares.
    wide = np.sqrt(3) * scale
    law = stats.norm(0, scale) if kind == "normal" else stats.uniform(-wide, 2 * wide)
    assert (
        stats.kstest(weights, law.cdf).pvalue > 0.01
    )  # A scale that is off by 15 % gives less than 1e-4 ...
    assert stats.kstest(1.15 * weights, law.cdf).pvalue < 1e-4  # ... as here.


@pytest.mark.on_ci("the other draws", but="^(he_uniform|the weights)")
@pytest.mark.parametrize(
    "draw",
    [
        *RANDOM,
        "the weights of a linear model",
        "the tokens' vectors of a network",
        "those of a transformer",
    ],
)
def test_in_half_precision_weights_are_those_of_single_precision_rounded(draw):
    # Numbers drawn in bfloat16 have a mean of -0.011 standard deviations. Weighted by
    # them, the sum of 4,096 positive inputs has a mean of -0.6.
    makers = {
        "the weights of a linear model": lambda dtype: models.linear(
            4096, scale=1.0, dtype=dtype
        ),
        "the tokens' vectors of a network": lambda dtype: models.recurrent(
            512, 8, 2, embedding=64, dtype=dtype
        ),
        "those of a transformer": lambda dtype: models.transformer_decoder(
            512, 4, width=64, num_layers=1, num_heads=2, dtype=dtype
        ),
    }

    def drawn(dtype):
        key = jax.random.key(0)
        if draw in makers:
            return makers[draw](dtype).init(key)
        return models.INITIALISERS[draw](key, (4096, 64), dtype)

    for dtype in ("bfloat16", "float16"):
        jax.tree.map(
            lambda half, single, dtype=dtype: np.testing.assert_array_equal(
                half, single.astype(dtype)
            ),
            drawn(dtype),
            drawn("float32"),
        )


@pytest.mark.thorough("the convolution", but="shape0")
@pytest.mark.parametrize("shape", [(12, 8), (3, 5, 4, 2)])
@pytest.mark.parametrize("name", JAXS)
def test_uniform_weights_are_jaxs_for_dense_and_convolution(name, shape):
    ours, theirs = (
        draw(jax.random.key(1), shape, jnp.float64)
        for draw in (models.INITIALISERS[name], JAXS[name])
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-14)


@pytest.mark.thorough("the other families", but="glorot")
@pytest.mark.on_ci("the normal distribution", but="uniform")
@pytest.mark.parametrize("name", RANDOM)
def test_given_fans_take_the_place_of_the_shapes(name):
    draw = models.find_initialiser(name)
    square = draw(jax.random.key(2), (10, 10), jnp.float64)
    given = draw(jax.random.key(2), (10, 10), jnp.float64, fan_in=40, fan_out=40)
    np.testing.assert_allclose(2 * given, square, rtol=1e-14)
    assert draw(jax.random.key(2), (7,), jnp.float64, fan_in=3, fan_out=1).shape == (7,)


@pytest.mark.on_ci("the docstring's example has orthonormal weights")
@pytest.mark.thorough("the other shapes", but="shape0")
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (2, 3, 2, 4)])
def test_orthogonal_weights_are_orthonormal_and_jaxs(shape):
    weights = models.find_initialiser("orthogonal")(
        jax.random.key(3), shape, jnp.float64
    )
    assert weights.shape == shape
    matrix = np.asarray(weights).reshape(-1, shape[-1])
    small = matrix.T @ matrix if len(matrix) >= shape[-1] else matrix @ matrix.T
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-14)
    # Signs too, without which the matrix would not be uniform among the orthogonal
    # ones.
    np.testing.assert_allclose(
        weights,
        initializers.orthogonal()(jax.random.key(3), shape, jnp.float64),
        atol=1e-13,
    )


@pytest.mark.on_ci(
    "the other initialisers", but=r"^(lecun_normal|glorot_uniform|orthogonal)\]"
)
@pytest.mark.parametrize("name", models.INITIALISERS)
def test_weights_have_the_dtype_asked_for_and_differ_with_the_key(name):
    draw = models.find_initialiser(name)
    first, second = (
        draw(jax.random.key(seed), (6, 4), jnp.float32) for seed in range(2)
    )
    assert first.dtype == jnp.float32
    assert not np.any(np.asarray(first) == np.asarray(second))


@pytest.mark.on_ci(
    "two networks; test_weights_have_the_distribution_of_the_paper has the variance "
    "that this follows from"
)
def test_he_keeps_the_size_of_a_signal_through_relu_layers():
    # He et al., eq. 8-10: E[z²] is the same at every layer; with LeCun's it halves at
    # each, and is 1/32 after five.
    x = jax.random.normal(jax.random.key(4), (64, 256), jnp.float32)
    ratios = {}
    for name in ("he_normal", "lecun_normal"):
        model = models.mlp((256,) * 7, initialiser=name, dtype=jnp.float32)
        params = model.init(jax.random.key(5))
        first = models.mlp((256, 256), dtype=jnp.float32).apply(
            {"dense_1": params["dense_1"]}, x
        )
        ratios[name] = float(jnp.mean(model.apply(params, x) ** 2) / jnp.mean(first**2))
    assert 0.6 < ratios["he_normal"] < 1.6
    assert 0.6 < 32 * ratios["lecun_normal"] < 1.6


@pytest.mark.parametrize("name", models.INITIALISERS)
@pytest.mark.parametrize("shape", [(5,), (0, 3)])
def test_shape_without_fans_is_refused(name, shape):
    with pytest.raises(ValueError, match=r"shape must be \(\.\.\., in, out\)"):
        models.find_initialiser(name)(jax.random.key(0), shape, jnp.float64)


def test_wrong_fans_and_unknown_names_are_refused():
    with pytest.raises(ValueError, match="fan_in=0"):
        models.find_initialiser("he_normal")(
            jax.random.key(0), (2, 2), jnp.float64, fan_in=0
        )
    with pytest.raises(
        ValueError,
        match=r"initialiser must be one of lecun_normal, .*; got initialiser='xavier'",
    ):
        models.find_initialiser("xavier")
