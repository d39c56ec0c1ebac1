"""Convolution and pooling against loops, scipy and XLA's own convolution; what they
obey, and what they refuse.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from research.models import average_pool, convolution, max_pool

COMPILE_QUICKLY = True  # tests/conftest.py

# Image (H, W), kernel, channels in and out, stride, padding, and the zeros that the
# padding stands for.
CASES = {
    "same": ((5, 4), (3, 3), 2, 3, 1, "same", ((1, 1), (1, 1))),
    "same, even kernel": ((5, 4), (2, 4), 1, 2, 1, "same", ((0, 1), (1, 2))),
    "same, stride 2": ((5, 4), (3, 3), 2, 1, 2, "same", ((1, 1), (0, 1))),
    "same, stride over kernel": ((5, 7), (1, 2), 1, 1, 3, "same", ((0, 0), (0, 1))),
    "valid": ((5, 4), (3, 2), 3, 2, 1, "valid", ((0, 0), (0, 0))),
    "valid, stride (2, 1)": ((6, 4), (3, 3), 1, 1, (2, 1), "valid", ((0, 0), (0, 0))),
    "one pixel": ((3, 2), (1, 1), 2, 2, 1, "valid", ((0, 0), (0, 0))),
    "number": ((4, 5), (3, 3), 1, 2, 2, 2, ((2, 2), (2, 2))),
    "pairs": ((4, 3), (2, 3), 2, 1, 1, ((0, 2), (1, 0)), ((0, 2), (1, 0))),
    "tiles, none whole": (
        (5, 4),
        (3, 3),
        16,
        17,
        1,
        "valid",
        ((0, 0), (0, 0)),
    ),  # From here on by Winograd.
    "tiles, each more than one": ((9, 7), (3, 3), 16, 16, 1, "same", ((1, 1), (1, 1))),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
some_cases = pytest.mark.parametrize(
    "case",
    [
        CASES[name]
        for name in ("same, stride 2", "number", "pairs", "tiles, each more than one")
    ],
)


def drawn(case, n=3):
    """A batch of images, weights and a bias."""
    size, kernel, channels, outputs, *_ = case
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(n, *size, channels)),
        rng.normal(size=(*kernel, channels, outputs)),
        rng.normal(size=outputs),
    )


def by_loop(x, weights, bias, stride, margins):
    """The sum of the docstring, written out."""
    s, t = stride if isinstance(stride, tuple) else (stride, stride)
    x = np.pad(x, ((0, 0), *margins, (0, 0)))
    a, b = weights.shape[:2]
    height, width = (x.shape[1] - a) // s + 1, (x.shape[2] - b) // t + 1
    y = np.empty((len(x), height, width, weights.shape[-1]))
    for m, i, j, o in np.ndindex(*y.shape):
        y[m, i, j, o] = bias[o] + np.sum(
            x[m, s * i : s * i + a, t * j : t * j + b] * weights[..., o]
        )
    return y


def by_xla(x, weights, bias, stride, margins):
    strides = stride if isinstance(stride, tuple) else (stride, stride)
    layout = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(
        x, weights, strides, margins, dimension_numbers=layout
    )
    return y + jnp.broadcast_to(bias, y.shape)


def ours(case):
    *_, stride, padding, _ = case
    return lambda x, weights, bias: convolution(
        x, weights, bias, stride=stride, padding=padding
    )


def theirs(case):
    *_, stride, _, margins = case
    return lambda x, weights, bias: by_xla(x, weights, bias, stride, margins)


def bent(conv):
    """A scalar of the convolution with derivatives of every order."""
    return lambda *arguments: jnp.sum(jnp.sin(conv(*arguments)))


@pytest.mark.on_ci(
    "other paddings; nothing shorter shows this",
    but="even|2, 1|tiles",
)
@pytest.mark.thorough("five more shapes", but="even|2, 1|number|pairs|tiles")
@each_case
def test_convolution_equals_the_sum_written_out(case):
    arguments, (*_, stride, _, margins) = drawn(case), case
    np.testing.assert_allclose(
        jax.jit(ours(case))(*arguments),
        by_loop(*arguments, stride, margins),
        rtol=1e-12,
        atol=1e-13,
    )


@pytest.mark.thorough("the other padding", but="valid")
@pytest.mark.parametrize("mode", ["valid", "same"])
def test_one_channel_equals_scipys_correlation(mode):
    x, weights, _ = drawn(((5, 6), (3, 3), 1, 1))
    expected = [correlate(image[..., 0], weights[..., 0, 0], mode=mode) for image in x]
    y = jax.jit(lambda x: convolution(x, weights, np.zeros(1), padding=mode))(x)
    np.testing.assert_allclose(y[..., 0], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.on_ci("a stride of 2 without tiles", but="case3")
@pytest.mark.thorough(
    "two other paddings; test_vmap_over_weights_equals_the_loop has one of them",
    but="case[03]",
)
@some_cases
def test_gradients_equal_those_of_xlas_convolution(case):
    arguments = drawn(case)
    gradients = [
        jax.jit(jax.grad(bent(conv), (0, 1, 2)))(*arguments)
        for conv in (ours(case), theirs(case))
    ]
    for mine, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-12, atol=1e-12)


@pytest.fixture(params=["pairs", "tiles, none whole"])
def few_at_a_time(request, monkeypatch):
    """Three images at a time, so that seven images are two slices and one more, and six
    are two.
    """
    case = CASES[request.param]
    monkeypatch.setitem(convolution.__globals__, "PATCH_NUMBERS", 3 * 5 * 2 * 12)
    monkeypatch.setitem(convolution.__globals__, "TILE_NUMBERS", 3 * 36 * 33)
    return case


@pytest.mark.thorough(
    "all derivatives; test_vmap_over_weights_equals_the_loop has the gradient of slices"
)
def test_slices_of_a_batch_give_the_values_and_derivatives_of_the_whole(few_at_a_time):
    case = few_at_a_time
    arguments = drawn(case, 7)
    assert "scan" in str(jax.make_jaxpr(ours(case))(*arguments))
    tangents = jax.tree.map(np.cos, arguments)

    def all_derivatives(conv):
        """Value, directional derivative, gradient, and the Hessian in that direction by
        both orders.
        """
        f = bent(conv)
        gradient = jax.grad(f, (0, 1, 2))
        slope = lambda *a: sum(
            jnp.sum(g * t) for g, t in zip(gradient(*a), tangents, strict=True)
        )
        both = lambda a: (
            f(*a),
            gradient(*a),
            jax.jvp(gradient, a, tangents)[1],
            jax.grad(slope, (0, 1, 2))(*a),
        )
        return jax.jit(lambda a: (jax.jvp(f, a, tangents)[1], both(a)))(arguments)

    mine, other = all_derivatives(ours(case)), all_derivatives(theirs(case))
    for one, two in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-11, atol=1e-11)


@pytest.mark.on_ci("large programs; nothing shorter shows this")
def test_vmap_over_weights_equals_the_loop(few_at_a_time):
    x, weights, bias = drawn(few_at_a_time, 5)
    gradient = jax.jit(jax.vmap(jax.grad(bent(ours(few_at_a_time)), 1), (None, 0, 0)))
    lanes = gradient(x, np.stack([weights, -2 * weights]), np.stack([bias, bias]))
    single = jax.jit(jax.grad(bent(theirs(few_at_a_time)), 1))
    for lane, factor in zip(lanes, (1, -2), strict=True):
        np.testing.assert_allclose(
            lane, single(x, factor * weights, bias), rtol=1e-12, atol=1e-12
        )


@pytest.mark.thorough("fewer axes", but="leading2")
@pytest.mark.parametrize("leading", [(), (0,), (2, 3)])
def test_leading_axes_of_any_number_and_size_equal_the_loop_over_images(leading):
    case = CASES["same"]
    _, weights, bias = drawn(case)
    x = np.random.default_rng(1).normal(size=(*leading, 5, 4, 2))
    y = jax.jit(ours(case))(x, weights, bias)
    assert y.shape == (*leading, 5, 4, 3)
    for index in np.ndindex(leading):
        expected = by_loop(x[index][None], weights, bias, 1, ((1, 1), (1, 1)))[0]
        np.testing.assert_allclose(y[index], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.thorough(
    "a consequence; test_convolution_equals_the_sum_written_out has the sums"
)
@pytest.mark.parametrize("stride", [1, 2])
def test_shifted_images_have_shifted_convolutions(stride):
    _, weights, bias = drawn(((3, 3), (3, 3), 1, 2))
    x = np.zeros((9, 9, 1))
    x[3:5, 3:6, 0] = np.random.default_rng(2).normal(size=(2, 3))
    shift = jax.jit(lambda x: convolution(x, weights, bias, stride=stride))
    before, after = shift(x), shift(np.roll(x, stride, (0, 1)))
    np.testing.assert_allclose(
        after, np.roll(before, 1, (0, 1)), rtol=1e-13, atol=1e-13
    )


def test_convolution_is_one_product_of_matrices_and_none_of_xlas():
    case = CASES["same"]
    jaxpr = jax.make_jaxpr(ours(case))(*drawn(case))
    assert "conv_general_dilated" not in str(jaxpr)
    (product,) = (
        equation for equation in jaxpr.eqns if equation.primitive.name == "dot_general"
    )
    assert [value.aval.ndim for value in product.invars] == [2, 2]


def test_float32_stays_float32():
    x, weights, bias = (a.astype(np.float32) for a in drawn(CASES["same"]))
    assert "f64" not in str(jax.make_jaxpr(ours(CASES["same"]))(x, weights, bias))
    assert "f64" not in str(
        jax.make_jaxpr(jax.grad(lambda x: jnp.sum(average_pool(max_pool(x)))))(x)
    )


REFUSED = {
    "channels first": (
        (2, 3, 5, 5),
        {},
        r"channels last; got.*\(2, 3, 5, 5\).*moveaxis\(x, -3, -1\)",
    ),
    "no channels": ((5, 5), {}, r"x must be images of shape \(\.\.\., H, W, 3\)"),
    "wrong channels": ((5, 5, 4), {}, r"H, W, 3\).*\(5, 5, 4\)"),
    "small image": (
        (2, 5, 3),
        {"padding": "valid"},
        "window of 3 x 3 does not fit into an image of 2 x 5",
    ),
    "stride": (
        (5, 5, 3),
        {"stride": 0},
        "stride must be an integer >= 1.*stride=0",
    ),
    "three strides": ((5, 5, 3), {"stride": (1, 1, 1)}, r"stride=\(1, 1, 1\)"),
    "padding": ((5, 5, 3), {"padding": "full"}, "padding must be \"same\".*'full'"),
    "negative padding": ((5, 5, 3), {"padding": -1}, "padding=-1"),
    "one pair": ((5, 5, 3), {"padding": (1, 1)}, r"padding=\(1, 1\)"),
    "weights of torch": (
        (5, 5, 3),
        {"weights": (3, 3, 2)},
        "weights must have shape.*PyTorch",
    ),
    "weights of torch, as they are": (
        (5, 5, 1),
        {"weights": (4, 1, 3, 3)},
        r"PyTorch's .*transpose\(weights, \(2, 3, 1, 0",
    ),
    "bias": ((5, 5, 3), {"bias": (1,)}, r"bias must have shape \(4,\).*\(1,\)"),
}


@pytest.mark.parametrize(("shape", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused_with_what_to_do(shape, options, message):
    shapes = [
        options.pop(name, default)
        for name, default in (("weights", (3, 3, 3, 4)), ("bias", (4,)))
    ]
    with pytest.raises(ValueError, match=message):
        convolution(jnp.zeros(shape), *map(jnp.zeros, shapes), **options)


def test_grey_images_without_a_channel_axis_are_told_apart():
    with pytest.raises(ValueError, match=r"x\[\.\.\., None\]"):
        convolution(jnp.zeros((2, 5, 5)), jnp.zeros((3, 3, 1, 1)), jnp.zeros(1))


# Window and stride, as a number or a pair; the second pair of each overlaps or leaves
# rows out.
WINDOWS = [(2, None), (1, 2), ((2, 3), (1, 2))]


def pooled_by_loop(x, window, stride, reduce):
    (a, b), (s, t) = (
        n if isinstance(n, tuple) else (n, n)
        for n in (window, window if stride is None else stride)
    )
    height, width = (x.shape[1] - a) // s + 1, (x.shape[2] - b) // t + 1
    windows = [
        reduce(x[:, s * i : s * i + a, t * j : t * j + b], axis=(1, 2))
        for i, j in itertools.product(range(height), range(width))
    ]
    return np.stack(windows, axis=1).reshape(len(x), height, width, x.shape[-1])


@pytest.mark.parametrize(("window", "stride"), WINDOWS)
@pytest.mark.parametrize(
    ("pool", "reduce"),
    [(max_pool, np.max), (average_pool, np.mean)],
    ids=["max", "average"],
)
def test_pooling_equals_the_loop_over_windows(pool, reduce, window, stride):
    x = np.random.default_rng(3).normal(size=(2, 5, 7, 2))
    expected = pooled_by_loop(x, window, stride, reduce)
    both = jax.jit(
        lambda x: (pool(x, window, stride=stride), pool(x[0], window, stride=stride))
    )(x)
    np.testing.assert_allclose(both[0], expected, rtol=1e-14)
    np.testing.assert_allclose(both[1], expected[0], rtol=1e-14)


@pytest.mark.thorough("windows that do not overlap", but="3-2")
@pytest.mark.parametrize(("window", "stride"), [(2, None), (3, 2)])
def test_the_gradient_of_max_pooling_goes_to_the_largest(window, stride):
    x = (
        np.random.default_rng(4).permutation(2 * 5 * 7).reshape(2, 5, 7, 1) / 7.0
    )  # No two are equal.
    sizes, strides = (1, window, window, 1), (1, stride or window, stride or window, 1)
    xla = lambda x: jax.lax.reduce_window(
        x, -np.inf, jax.lax.max, sizes, strides, "VALID"
    )
    mine, other = (
        jax.jit(jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x)))))(x)
        for f in (lambda x: max_pool(x, window, stride=stride), xla)
    )
    np.testing.assert_allclose(mine, other, rtol=1e-14, atol=1e-15)


def test_equal_largest_values_share_the_derivative():
    x = jnp.array([[1.0, 5.0, 2.0, 2.0], [5.0, 5.0, 2.0, 2.0]])[..., None]
    expected = [[0, 1 / 3, 1 / 4, 1 / 4], [1 / 3, 1 / 3, 1 / 4, 1 / 4]]
    np.testing.assert_allclose(
        jax.jit(jax.grad(lambda x: jnp.sum(max_pool(x))))(x)[..., 0],
        expected,
        rtol=1e-15,
    )
    _, slope = jax.jit(lambda x, dx: jax.jvp(max_pool, (x,), (dx,)))(
        x, np.arange(8.0).reshape(2, 4, 1)
    )
    np.testing.assert_allclose(
        slope[..., 0], [[(1 + 4 + 5) / 3, (2 + 3 + 6 + 7) / 4]], rtol=1e-15
    )


@pytest.mark.on_ci("many small calls; nothing shorter shows this")
@pytest.mark.thorough("windows that overlap", but="None")
@pytest.mark.parametrize(("window", "stride"), [(2, None), (2, 1)])
def test_nan_in_a_window_gives_the_derivatives_of_the_maximum(window, stride):
    x = jnp.arange(16.0).reshape(4, 4, 1).at[1, 1].set(jnp.nan)
    step = stride or window

    def of_windows(x):
        places = range(0, 3, step)
        return sum(
            jnp.sum(jnp.max(x[i : i + 2, j : j + 2], axis=(0, 1)))
            for i in places
            for j in places
        )

    pooled = lambda x: jnp.sum(max_pool(x, window, stride=stride))
    np.testing.assert_array_equal(jax.grad(pooled)(x), jax.grad(of_windows)(x))
    assert jnp.isnan(jax.grad(pooled)(x)).any()


def test_second_derivatives_pass_through_max_pooling():
    x = np.random.default_rng(5).normal(size=(4, 4, 1))
    hessian = jax.jit(jax.hessian(lambda x: jnp.sum(max_pool(x) ** 3)))(x).reshape(
        16, 16
    )
    largest = (
        x == np.kron(np.asarray(max_pool(x))[..., 0], np.ones((2, 2)))[..., None]
    ).ravel()
    np.testing.assert_allclose(
        hessian, np.diag(6 * x.ravel() * largest), rtol=1e-14, atol=1e-15
    )


@pytest.mark.parametrize("pool", [max_pool, average_pool])
def test_pooling_refuses_what_it_cannot_do(pool):
    with pytest.raises(
        ValueError, match="window of 3 x 3 does not fit into an image of 2 x 4"
    ):
        pool(jnp.zeros((2, 4, 1)), 3)
    with pytest.raises(ValueError, match=r"window must be an integer >= 1.*window=0"):
        pool(jnp.zeros((4, 4, 1)), 0)
    with pytest.raises(ValueError, match=r"channels last.*\(4, 4\)"):
        pool(jnp.zeros((4, 4)))
