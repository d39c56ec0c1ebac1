"""Laws of grid_derivative: the order that is asked for at every point, and a word of
warning where NumPy has none.
"""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import interpolate

from research.derivatives import errors
from research.derivatives.grid import fornberg_weights, grid_derivative

F = {0: np.sin, 1: np.cos, 2: lambda x: -np.sin(x), 3: lambda x: -np.cos(x), 4: np.sin}


def uniform(n):
    return np.linspace(0.3, 1.5, n)


def graded(n):
    return 0.3 + 1.2 * np.expm1(np.linspace(0, 1, n)) / np.expm1(1)


def wavy(n):
    t = np.linspace(0, 1, n)
    return 0.3 + 1.2 * (t + 0.08 * np.sin(2 * np.pi * t))


# Fornberg 1988, tables 1 and 2: central and one-sided weights.
TABLES = [
    ([-2, -1, 0, 1, 2], 1, [1 / 12, -2 / 3, 0, 2 / 3, -1 / 12]),
    ([-2, -1, 0, 1, 2], 2, [-1 / 12, 4 / 3, -5 / 2, 4 / 3, -1 / 12]),
    ([-3, -2, -1, 0, 1, 2, 3], 3, [1 / 8, -1, 13 / 8, 0, -13 / 8, 1, -1 / 8]),
    ([-2, -1, 0, 1, 2], 4, [1, -4, 6, -4, 1]),
    ([0, 1, 2], 1, [-3 / 2, 2, -1 / 2]),
    ([0, 1, 2, 3], 2, [2, -5, 4, -1]),
    ([0, 1, 2, 3, 4], 3, [-5 / 2, 9, -12, 7, -3 / 2]),
    ([0.5, -0.5], 0, [0.5, 0.5]),
]


@pytest.mark.parametrize(("nodes", "order", "weights"), TABLES)
def test_weights_are_those_of_fornbergs_tables(nodes, order, weights):
    np.testing.assert_allclose(
        fornberg_weights(nodes, 0.0, order), weights, rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_weights_are_those_of_the_interpolating_polynomial(order):
    rng = np.random.default_rng(0)
    nodes = np.sort(rng.uniform(-1, 1, (5, 6)), axis=-1)
    at = rng.uniform(-1, 1, 5)
    values = rng.normal(size=6)
    for row, point, weights in zip(
        nodes, at, fornberg_weights(nodes, at, order), strict=True
    ):
        expected = interpolate.BarycentricInterpolator(row, values).derivative(
            point, max(order, 1)
        )
        if order:
            assert weights @ values == pytest.approx(
                float(np.squeeze(expected)), rel=1e-7
            )
        else:
            assert weights @ values == pytest.approx(
                float(interpolate.BarycentricInterpolator(row, values)(point))
            )


@pytest.mark.parametrize("grid", [uniform, graded, wavy])
@pytest.mark.parametrize("accuracy", [1, 2, 3, 4])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_observed_order_is_the_requested_one_at_every_point_and_at_the_ends(
    grid, accuracy, order
):
    sizes = (40, 80)
    errors_ = [
        np.abs(
            grid_derivative(np.sin(grid(n)), grid(n), order, accuracy)
            - F[order](grid(n))
        )
        for n in sizes
    ]
    for pick in (lambda e: e.max(), lambda e: e[0], lambda e: e[-1]):
        observed = math.log2(pick(errors_[0]) / pick(errors_[1])) / math.log2(79 / 39)
        assert observed > accuracy - 0.25


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("accuracy", [1, 2, 5])
def test_polynomials_of_lower_degree_than_points_are_differentiated_exactly(
    order, accuracy
):
    rng = np.random.default_rng(1)
    x = np.sort(rng.uniform(-1, 1, 14))
    polynomial = np.polynomial.Polynomial(rng.normal(size=order + accuracy))
    exact = polynomial.deriv(order)(x)
    np.testing.assert_allclose(
        grid_derivative(polynomial(x), x, order, accuracy),
        exact,
        atol=1e-6 * np.max(np.abs(exact)),
    )


def test_even_grid_has_the_textbook_weights():
    rows = grid_derivative(np.eye(7), 0.5 * np.arange(7.0), order=2, axis=0)
    np.testing.assert_allclose(
        rows[3], np.array([0, 0, 1, -2, 1, 0, 0]) / 0.25, atol=1e-12
    )
    np.testing.assert_allclose(
        rows[0], np.array([2, -5, 4, -1, 0, 0, 0]) / 0.25, atol=1e-12
    )
    first = grid_derivative(np.eye(5), np.arange(5.0), axis=0)
    np.testing.assert_allclose(
        first[[0, 2]], [[-1.5, 2, -0.5, 0, 0], [0, -0.5, 0, 0.5, 0]], atol=1e-12
    )


@pytest.mark.parametrize("grid", [uniform, graded, wavy])
def test_second_order_equals_numpys_with_edge_order_two(grid):
    x, y = grid(30), np.exp(grid(30))
    np.testing.assert_allclose(
        grid_derivative(y, x), np.gradient(y, x, edge_order=2), rtol=1e-9
    )


def test_descending_shifted_and_scaled_grids_give_the_same_derivative():
    x = graded(25)
    y = np.sin(x)
    expected = grid_derivative(y, x, 2, 3)
    np.testing.assert_allclose(
        grid_derivative(y[::-1], x[::-1], 2, 3)[::-1], expected, rtol=1e-9
    )
    np.testing.assert_allclose(
        grid_derivative(y, 1e-200 * x, 1, 3) * 1e-200,
        grid_derivative(y, x, 1, 3),
        rtol=1e-9,
    )
    np.testing.assert_allclose(
        grid_derivative(y, x + 1024.0, 2, 3), expected, rtol=1e-6
    )


def test_other_axes_complex_samples_and_integers():
    x = uniform(20)
    table = np.stack([np.sin(x), np.cos(x)])
    along = grid_derivative(table.T, x, axis=0)
    np.testing.assert_array_equal(along, grid_derivative(table, x).T)
    turning = grid_derivative(np.exp(1j * x), x, accuracy=6)
    np.testing.assert_allclose(turning, 1j * np.exp(1j * x), rtol=1e-7)
    np.testing.assert_allclose(
        grid_derivative(np.arange(6) ** 2, np.arange(6)), 2.0 * np.arange(6), atol=1e-12
    )
    assert grid_derivative(table.astype(np.float32), x).dtype == np.float32


def test_samples_of_jax_are_traced_and_the_derivative_is_linear_in_them():
    x = graded(12)
    apply = jax.jit(lambda y: grid_derivative(y, x, 2, 2))
    y = jnp.sin(x)
    np.testing.assert_allclose(
        apply(y), grid_derivative(np.asarray(y), x, 2, 2), rtol=1e-10
    )
    matrix = jax.jacobian(apply)(y)
    np.testing.assert_allclose(
        matrix @ jnp.cos(x), apply(jnp.cos(x)), rtol=1e-8, atol=1e-8
    )


@pytest.mark.on_ci("a million points; nothing shorter has several blocks")
def test_a_million_uneven_points_take_seconds_at_most_and_blocks_meet():
    n = 1_000_000
    x = np.linspace(0, 100, n)
    x[1:-1] += 1e-5 * np.sin(np.arange(1, n - 1))
    start = time.process_time()
    slope = grid_derivative(np.sin(x), x)
    assert (
        time.process_time() - start < 6
    )  # Of a processor; measured: about one second.
    assert np.max(np.abs(slope - np.cos(x))) < 1e-6


@pytest.mark.parametrize(
    ("y", "x"),
    [
        (9.0, 3.0),
        (np.float64(9.0), np.array([3.0])),
        (jnp.array(9.0), 3.0),
        (9, np.arange(3.0)),
    ],
)
def test_scalar_gets_the_explanation_of_numpys_trap(y, x):
    with pytest.raises(
        errors.GridTooSmallError,
        match=r"np\.gradient\(f\(x\), x\).*empty tuple.*derivative\(f, x\)",
    ):
        grid_derivative(y, x)


def test_scalar_abscissa_gets_the_other_half_of_the_explanation():
    with pytest.raises(
        errors.GridTooSmallError,
        match=r"single number x=3\.0.*as the spacing.*derivative\(f, x\)",
    ):
        grid_derivative(np.arange(4.0), 3.0)


def test_numpy_still_falls_into_the_trap():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert np.gradient(9.0, 3.0) == ()
    with pytest.raises(TypeError, match="can't multiply sequence"):
        3.0 - 0.1 * np.gradient(9.0, 3.0)
    assert (3.0 - 0.1 * np.array(np.gradient(9.0, 3.0))).shape == (0,)
    assert jnp.gradient(9.0, 3.0) == []
    with pytest.raises(ValueError, match="too small"):
        np.gradient([9.0], 3.0)
    np.testing.assert_allclose(np.gradient(x**2, x), [3, 4, 6, 7])
    np.testing.assert_allclose(np.gradient(x**2, 3.0), [1, 4 / 3, 2, 7 / 3])
    with np.errstate(all="ignore"):
        assert np.isnan(
            np.gradient(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 1.0]))
        ).any()


@pytest.mark.parametrize(
    ("y", "x", "keywords", "error", "message"),
    [
        (
            np.ones(3),
            [0.0, 1.0, 1.0],
            {},
            ValueError,
            r"x\[1\] = x\[2\] = 1.0.*Average",
        ),
        (
            np.ones(4),
            [0.0, 2.0, 1.0, 3.0],
            {},
            ValueError,
            r"x must be increasing or decreasing.*argsort",
        ),
        (np.ones(3), [0.0, np.nan, 1.0], {}, ValueError, r"x\[1\]=nan"),
        (np.ones(3), np.ones((3, 1)), {}, ValueError, r"x of shape \(3, 1\)"),
        (
            np.ones(3),
            np.arange(4.0),
            {},
            ValueError,
            r"y of shape \(3,\) and 4 abscissae",
        ),
        (np.ones((3, 4)), np.arange(4.0), {"axis": 2}, ValueError, "axis=2"),
        (
            np.ones(2),
            np.arange(2.0),
            {},
            errors.GridTooSmallError,
            "needs 3 points; the grid has 2",
        ),
        (
            np.ones(5),
            np.arange(5.0),
            {"order": 2, "accuracy": 4},
            errors.GridTooSmallError,
            "needs 6 points",
        ),
        (np.ones(5), np.arange(5.0), {"order": 0}, ValueError, "order=0"),
        (np.ones(5), np.arange(5.0), {"accuracy": 1.5}, ValueError, "accuracy=1.5"),
    ],
)
def test_bad_input_is_named_with_its_value_and_a_remedy(y, x, keywords, error, message):
    with pytest.raises(error, match=message):
        grid_derivative(y, x, **keywords)


def test_weights_of_tiny_and_of_huge_offsets_are_those_of_one():
    plain = fornberg_weights(np.arange(30) / 32, 0.0, 1)
    for power in (-600, -40, 30, 300):
        nodes = np.ldexp(np.arange(30) / 32, power)
        found = fornberg_weights(nodes, 0.0, 1)
        np.testing.assert_array_equal(np.ldexp(found, power), plain)
    found = fornberg_weights(np.array([-1e-200, 0, 1e-200]), 0.0, 1)
    np.testing.assert_allclose(found, [-5e199, 0, 5e199])


def test_an_uneven_grid_far_from_zero_is_not_even():
    k = np.array([0, 1, 3, 4, 6, 7, 9])
    found = grid_derivative(k.astype(float) ** 3, 2.0**30 + k * 2.0**-22, order=2)
    np.testing.assert_allclose(found / 2.0**44, 6.0 * k, atol=1e-6)


@pytest.mark.on_ci("the first derivative, and the other dtype", but="2-float16")
@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
@pytest.mark.parametrize("order", [1, 2])
def test_samples_in_half_precision_have_the_derivative_of_float32(dtype, order):
    # The weights of the second derivative are about 1e6, above the largest float16.
    x = 1e-3 * np.arange(9.0)
    y = np.asarray(1000 * x**2, dtype)
    wide = grid_derivative(y.astype(np.float32), x, order)
    for samples in (y, jnp.asarray(y)):
        found = grid_derivative(samples, x, order)
        assert found.dtype == dtype
        np.testing.assert_array_equal(np.asarray(found), wide.astype(dtype))


def test_whole_numbers_become_floats_of_the_precision_of_jax(float64_off):
    with float64_off:
        found = grid_derivative(jnp.arange(5) ** 2, np.arange(5.0))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 2.0 * np.arange(5))
