"""Winograd's convolution: an identity in exact arithmetic, few multiplications, and
what it costs in rounding.
"""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.models import convolution
from research.models.winograd import INPUTS, OUTPUTS, TAPS, matrices, winograd

COMPILE_QUICKLY = True  # tests/conftest.py


def test_the_matrices_give_the_correlation_in_exact_arithmetic():
    of_inputs, of_taps, of_outputs = matrices()
    exact = np.vectorize(Fraction, otypes=[object])
    # G has thirds, which no double has: its columns are given by its scales, to be
    # checked against the definition.
    of_taps = np.vectorize(
        lambda a: Fraction(a).limit_denominator(10**4), otypes=[object]
    )(of_taps)
    np.testing.assert_allclose(of_taps.astype(float), matrices()[1], rtol=1e-15)
    for i, j in np.ndindex(INPUTS, TAPS):  # The map is bilinear: its basis is enough.
        d, g = np.eye(INPUTS, dtype=int)[i], np.eye(TAPS, dtype=int)[j]
        y = exact(of_outputs) @ ((of_taps @ g) * (exact(of_inputs) @ d))
        assert list(y) == [int(i == k + j) for k in range(OUTPUTS)]


def products(channels, dtype=np.float32, size=(3, 3)):
    """The multiplications of all matrix products in one convolution of an image of 24 x
    24.
    """
    arrays = [
        jax.ShapeDtypeStruct(s, dtype)
        for s in ((1, 24, 24, channels), (*size, channels, channels), (channels,))
    ]
    jaxpr = jax.make_jaxpr(convolution)(*arrays)
    sizes = [
        (e.invars[0].aval.shape, e.invars[1].aval.shape)
        for e in jaxpr.eqns
        if e.primitive.name == "dot_general"
    ]
    return [
        shapes
        for shapes in sizes
        if shapes[0][-1] in (channels, 9 * channels, 25 * channels)
    ]


def test_it_takes_a_quarter_of_the_multiplications_where_it_pays():
    assert products(16) == [((36, 36, 16), (36, 16, 16))]  # 36 tiles.
    assert 36 * 36 * 16 * 16 * 4 == 24 * 24 * 9 * 16 * 16
    assert products(15) == [((576, 135), (15, 135))]
    assert products(16, size=(5, 5)) == [((576, 400), (16, 400))]
    assert products(16, np.float16) == [((576, 144), (16, 144))]


def test_no_image_has_no_convolution():
    y = jax.eval_shape(
        convolution, *map(jnp.zeros, ((0, 5, 5, 16), (3, 3, 16, 17), (17,)))
    )
    assert y.shape == (0, 5, 5, 17)


@pytest.mark.on_ci("large convolutions; nothing shorter shows this")
@pytest.mark.thorough("more channels", but="32")
@pytest.mark.parametrize(("channels", "told"), [(32, 7e-7), (256, 1.6e-6)])
def test_its_rounding_in_float32_is_as_told(channels, told, monkeypatch):
    rng = np.random.default_rng(0)
    x, weights = (
        rng.normal(size=(1, 26, 26, channels)),
        rng.normal(size=(3, 3, channels, 32)) / np.sqrt(9 * channels),
    )
    layout = ("NHWC", "HWIO", "NHWC")
    exact = np.asarray(
        jax.lax.conv_general_dilated(
            x, weights, (1, 1), "VALID", dimension_numbers=layout
        )
    )

    def error(dtype):
        """Root mean square, relative to that of the outputs."""
        y = np.asarray(
            winograd(jnp.asarray(x, dtype), jnp.asarray(weights, dtype)), np.float64
        )
        return np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2))

    assert told / 1.5 < error(np.float32) < 1.3 * told
    assert error(np.float64) < 1e-14
    monkeypatch.setitem(matrices.__globals__, "POINTS", (0.0, 1.0, -1.0, 2.0, -2.0))
    assert error(np.float32) > 1.5 * told  # Why the points are no whole numbers.
