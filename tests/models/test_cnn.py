"""The convolutional network against its layers written out, dropout against its
definition, and what both refuse.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binom

from research.models import cnn, dropout
from research.objectives import empirical_risk
from research.types import Batch

COMPILE_QUICKLY = True  # tests/conftest.py

SMALL = {"channels": (4, 2), "hidden": (5,)}


def images(n=3, shape=(6, 5, 2)):
    return np.random.default_rng(0).normal(size=(n, *shape))


def by_xla(
    params,
    x,
    *,
    stride=1,
    normalisation=None,
    pools=(2, 2),
    activate=lambda z: jnp.maximum(z, 0),
):
    """The network of two blocks and two dense layers, from XLA's own operations."""
    for i, window in enumerate(pools, 1):
        layer, layout = params[f"convolution_{i}"], ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, layer["weights"], (stride,) * 2, "SAME", dimension_numbers=layout
        )
        x = x + layer["bias"].reshape(1, 1, 1, -1)
        if normalisation:
            axes = {"layer": 3, "group": (1, 2, 3)}[
                normalisation
            ]  # Fewer than 16 channels that divide 16: one group.
            scale, bias = (
                params[f"normalisation_{i}"][name].reshape(1, 1, 1, -1)
                for name in ("scale", "bias")
            )
            spread = jnp.sqrt(x.var(axis=axes, keepdims=True) + 1e-5)
            x = (x - x.mean(axis=axes, keepdims=True)) / spread * scale + bias
        x = activate(x)
        x = jax.lax.reduce_window(
            x,
            -jnp.inf,
            jax.lax.max,
            (1, window, window, 1),
            (1, window, window, 1),
            "VALID",
        )
    x = x.reshape(len(x), -1)
    x = activate(
        x @ params["dense_1"]["weights"] + params["dense_1"]["bias"].reshape(1, -1)
    )
    return x @ params["dense_2"]["weights"] + params["dense_2"]["bias"].reshape(1, -1)


def shaken(params):
    """Biases that are not 0, and scales that are not 1."""
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(
        structure, [leaf + 0.3 * rng.normal(size=leaf.shape) for leaf in leaves]
    )


@pytest.mark.thorough("the other normalisation", but="group")
@pytest.mark.parametrize(
    ("options", "written"),
    [
        (
            {"normalisation": "layer", "pool": (1, 2), "stride": 2},
            {"normalisation": "layer", "pools": (1, 2), "stride": 2},
        ),
        (
            {"normalisation": "group", "activation": "tanh"},
            {"normalisation": "group", "activate": jnp.tanh},
        ),
    ],
    ids=["layer", "group"],
)
def test_logits_and_gradients_equal_the_layers_written_out(options, written):
    model = cnn((6, 5, 2), 3, **SMALL, **options)
    params, x = shaken(model.init(jax.random.key(0))), images()
    ours = lambda params: model.apply(params, x)
    theirs = lambda params: by_xla(params, x, **written)
    values = (
        jax.jit(lambda p, f=f: (f(p), jax.grad(lambda p: jnp.sum(jnp.sin(f(p))))(p)))(
            params
        )
        for f in (ours, theirs)
    )
    for one, two in zip(*map(jax.tree.leaves, values), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-11, atol=1e-12)


@pytest.mark.on_ci(
    "large arrays; test_logits_and_gradients_equal_the_layers_written_out has the "
    "names, and test_initialisers.py the variance"
)
def test_params_have_readable_names_and_the_initialisers_variance():
    model = cnn(
        (12, 12, 3),
        10,
        channels=(64, 32),
        hidden=(100,),
        normalisation="layer",
        dtype="float32",
    )
    params = model.init(jax.random.key(0))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), params)
    assert shapes["convolution_2"] == {
        "weights": ((3, 3, 64, 32), "float32"),
        "bias": ((32,), "float32"),
    }
    assert shapes["dense_1"] == {
        "weights": ((3 * 3 * 32, 100), "float32"),
        "bias": ((100,), "float32"),
    }
    assert [*params] == [
        "convolution_1",
        "normalisation_1",
        "convolution_2",
        "normalisation_2",
        "dense_1",
        "dense_2",
    ]
    for name, fan_in in (
        ("convolution_2", 9 * 64),
        ("dense_1", 9 * 32),
    ):  # He: variance 2 / fan_in.
        weights = np.asarray(params[name]["weights"], dtype=float)
        # The variance of a sample of m normals has standard deviation √(2 / m) of it;
        # four of them.
        assert abs(weights.var() * fan_in / 2 - 1) < 4 * np.sqrt(2 / weights.size)


@pytest.mark.thorough(
    "other leading axes; test_parameters.py traces a CNN of one image, and "
    "test_convolution.py and test_mlp.py have the numbers for the layers"
)
def test_one_image_and_two_leading_axes_equal_the_batch():
    model = cnn((6, 5, 2), 3, **SMALL)
    params, x = model.init(jax.random.key(0)), images(4)
    apply = jax.jit(model.apply)
    batch = apply(params, x)
    np.testing.assert_allclose(apply(params, x[1]), batch[1], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(
        apply(params, x.reshape(2, 2, 6, 5, 2)),
        batch.reshape(2, 2, 3),
        rtol=1e-12,
        atol=1e-13,
    )
    assert jax.eval_shape(model.apply, params, x[:0]).shape == (0, 3)


@pytest.mark.thorough(
    "a whole step; test_convolution.py, test_normalisation.py and "
    "test_dropout_zeroes_the_same_entries_in_every_dtype_and_keeps_the_dtype have its "
    "parts"
)
def test_float32_params_give_a_float32_step_in_64_bit_mode():
    model = cnn(
        (6, 5, 2), 3, **SMALL, dropout=0.5, normalisation="group", dtype="float32"
    )
    params = model.init(jax.random.key(0))
    objective = empirical_risk(model, lambda z, y: jax.nn.logsumexp(z) - z[y])
    batch = Batch(images().astype(np.float32), np.array([0, 1, 2]), jax.random.key(1))
    assert "f64" not in str(
        jax.make_jaxpr(jax.value_and_grad(objective))(params, batch)
    )


def test_dropout_of_a_network_needs_a_key_and_depends_on_it():
    model = cnn((6, 5, 2), 3, **SMALL, dropout=0.5)
    params, x = model.init(jax.random.key(0)), images()
    apply = jax.jit(model.apply)
    still = jax.jit(cnn((6, 5, 2), 3, **SMALL).apply)(params, x)
    np.testing.assert_allclose(apply(params, x), still, rtol=1e-12, atol=1e-13)
    noisy = jax.jit(lambda seed: model.apply(params, x, jax.random.key(seed)))
    one, again, other = (np.asarray(noisy(seed)) for seed in (1, 1, 2))
    assert (one == again).all()
    assert not np.allclose(one, other)
    assert not np.allclose(one, still)


@pytest.mark.on_ci(
    "2000 images; test_dropout_zeroes_its_share_and_keeps_the_mean has the rate, but "
    "not where a network has its dropout"
)
def test_dropout_has_its_rate_at_the_input_of_every_dense_layer():
    """The features are 1, and both dense layers hand on what they get: dropout at 1/5
    leaves 4/5 of it each time, and multiplies that by 5/4.
    """
    model = cnn((2, 2, 1), 3, channels=(3,), hidden=(3,), dropout=0.2)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    params["convolution_1"]["bias"] = jnp.ones(3)
    params["dense_1"]["weights"] = params["dense_2"]["weights"] = jnp.eye(3)
    found = jax.jit(model.apply)(params, np.zeros((2000, 2, 2, 1)), jax.random.key(1))
    kept = np.asarray(found) != 0
    np.testing.assert_allclose(found[kept], 1 / 0.8**2)
    # Four standard deviations of a share.
    assert abs(kept.mean() - 0.8**2) < 4 * np.sqrt(0.64 * 0.36 / kept.size)


REFUSED = {
    "flat shape": (
        ((28, 28), 10),
        {},
        r"image_shape must be \(H, W, C\); got image_shape=\(28, 28\)",
    ),
    "classes": (((6, 6, 1), 0), {}, "num_classes must be a positive integer"),
    "channels": (((6, 6, 1), 2), {"channels": (4, 0)}, r"channels\[1\] must be"),
    "channels as a number": (
        ((6, 6, 1), 2),
        {"channels": 32},
        r"channels=32. Pass \(32,\) for a single one",
    ),
    "pools": (
        ((6, 6, 1), 2),
        {"pool": (2, 2, 2)},
        r"one for each of 2 blocks; got pool=\(2, 2, 2\)",
    ),
    "normalisation": (
        ((6, 6, 1), 2),
        {"normalisation": "batch"},
        "normalisation='batch'",
    ),
    "dropout": (
        ((6, 6, 1), 2),
        {"dropout": 1.0},
        r"dropout must lie in \[0, 1\); got dropout=1.0",
    ),
    "activation": (((6, 6, 1), 2), {"activation": "rely"}, "activation='rely'"),
    "too small": (
        ((6, 6, 1), 2),
        {"padding": "valid", "pool": 4},
        "does not fit into an image of 1 x 1",
    ),
}


@pytest.mark.parametrize(
    ("arguments", "options", "message"), REFUSED.values(), ids=REFUSED
)
def test_a_network_that_cannot_be_is_refused_where_it_is_built(
    arguments, options, message
):
    with pytest.raises(ValueError, match=message):
        cnn(*arguments, **options)


def test_images_of_another_shape_are_refused():
    model = cnn((6, 5, 2), 3, **SMALL)
    params = model.init(jax.random.key(0))
    with pytest.raises(
        ValueError, match=r"channels seem to come first.*moveaxis\(x, -3, -1\)"
    ):
        model.apply(params, jnp.zeros((1, 2, 6, 5)))
    with pytest.raises(
        ValueError, match=r"shape \(6, 5, 2\).*got x of shape \(1, 5, 6, 2\)"
    ):
        model.apply(params, jnp.zeros((1, 5, 6, 2)))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_zeroes_its_share_and_keeps_the_mean(rate):
    x = np.full((200, 100), 3.0)
    y = np.asarray(dropout(jax.random.key(2), x, rate))
    kept = y != 0
    np.testing.assert_allclose(y[kept], 3 / (1 - rate), rtol=1e-15)
    # A right share lies outside these quantiles once in a million keys.
    low, high = binom.ppf([5e-7, 1 - 5e-7], x.size, 1 - rate)
    assert low <= kept.sum() <= high


def test_dropout_without_a_key_or_a_rate_changes_nothing():
    x = np.random.default_rng(0).normal(size=(3, 4))
    assert (dropout(None, x, 0.5) == x).all()
    assert (dropout(jax.random.key(0), x, 0.0) == x).all()
    assert (jax.jit(dropout)(jax.random.key(0), x, 0.0) == x).all()


def test_dropout_zeroes_the_same_entries_in_every_dtype_and_keeps_the_dtype():
    one, two = (
        dropout(jax.random.key(3), np.ones((5, 7), dtype), 0.5)
        for dtype in ("float32", "float64")
    )
    assert (one.dtype, two.dtype) == ("float32", "float64")
    assert (np.asarray(one) == np.asarray(two)).all()
    assert 0 < np.count_nonzero(one) < one.size


@pytest.mark.parametrize("rate", [-0.1, 1, float("nan")])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(
        ValueError, match=r"rate must lie in .*the probability of zeroing an entry"
    ):
        dropout(jax.random.key(0), jnp.ones(3), rate)
