"""Laws of the multilayer perceptron: forward by NumPy, its gradient by hand held
against jax.grad and differences.
"""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import losses, models, objectives
from research.models.backward import (
    BATCH_LOSSES,
    mlp_backward,
    mlp_forward,
    mlp_value_and_gradient,
)
from research.types import Batch

COMPILE_QUICKLY = True  # tests/conftest.py

LOSSES = {
    "softmax_cross_entropy": losses.softmax_cross_entropy,
    "squared_error": losses.squared_error,
    "logistic": lambda z, y: jnp.sum(jax.vmap(losses.logistic)(z, y)),
}
N = 5


def make(sizes, activation="relu", loss="softmax_cross_entropy", dtype=np.float64):
    """A model, params drawn by NumPy (biases too), and a batch for the loss."""
    random = np.random.default_rng(0)
    params = {
        f"dense_{k}": {
            "weights": (random.normal(size=(before, after)) / np.sqrt(before)).astype(
                dtype
            ),
            "bias": (0.3 * random.normal(size=after)).astype(dtype),
        }
        for k, (before, after) in enumerate(itertools.pairwise(sizes), start=1)
    }
    x = random.normal(size=(N, sizes[0])).astype(dtype)
    targets = {
        "softmax_cross_entropy": random.integers(0, sizes[-1], N),
        "squared_error": random.normal(size=(N, sizes[-1])),
        "logistic": random.integers(0, 2, (N, sizes[-1])),
    }
    return (
        models.mlp(sizes, activation=activation, dtype=dtype),
        params,
        Batch(x, targets[loss]),
    )


def by_hand(activation, loss):
    return jax.jit(
        lambda params, x, y: mlp_value_and_gradient(
            params, x, y, activation=activation, loss=loss
        )
    )


def rounding_bound(params, forward, delta, slopes):
    """How far two orders of summation may be apart, entry by entry.

    Each entry of the gradient is a sum of products, of n terms in the last sum and of a
    layer's width in each before it. With m operations one after another, rounding costs
    at most about m ε times the same sum of absolute values (Higham, Accuracy and
    Stability of Numerical Algorithms, section 3.1), which is the way back with |W|,
    |h|, |δ| and |φ'|.
    """
    size, bound = (
        np.abs(delta) + 1 / N,
        {},
    )  # The loss subtracts a target of size 1 over n from what is predicted.
    count = N + sum(h.shape[1] for h in forward.inputs) + delta.shape[1]
    unit = count * np.finfo(delta.dtype).eps
    for k in reversed(range(len(forward.sums))):
        name = f"dense_{k + 1}"
        bound[name] = {
            "weights": unit * np.abs(forward.inputs[k]).T @ size,
            "bias": unit * size.sum(axis=0),
        }
        if k:
            size = (size @ np.abs(params[name]["weights"]).T) * np.abs(slopes[k - 1])
    return bound


def excess(ours, theirs, bound):
    """The largest difference over its bound; equal entries count 0, whatever their
    bound.
    """
    pairs = zip(*map(jax.tree.leaves, (ours, theirs, bound)), strict=True)
    return max(
        float(np.max(np.where(a == b, 0, np.abs(a - b) / np.maximum(c, 1e-300))))
        for a, b, c in pairs
    )


CASES = [
    *(
        ((4, 6, 5, 3), name, "softmax_cross_entropy", np.float64)
        for name in models.ACTIVATIONS
    ),
    *(
        ((4, 6, 5, 3), name, "softmax_cross_entropy", np.float32)
        for name in ("tanh", "gelu")
    ),
    *(((2, 3, 1), "silu", name, np.float64) for name in ("squared_error", "logistic")),
    ((4, 3), "relu", "logistic", np.float32),
    ((3, 4, 4, 4, 4, 2), "sigmoid", "squared_error", np.float64),
]


@pytest.mark.on_ci(
    (
        "five layers with the squared error; "
        "test_deltas_are_the_derivatives_by_the_sums_and_by_the_input has it on three"
    ),
    but=r"softmax|logistic",
)
@pytest.mark.thorough(
    "the other activations, whose slopes test_activations.py has",
    but="-gelu-softmax_cross_entropy-float64|relu-logistic|sigmoid-squared",
)
@pytest.mark.parametrize(("sizes", "activation", "loss", "dtype"), CASES)
def test_gradient_by_hand_equals_jaxs_but_for_rounding(sizes, activation, loss, dtype):
    model, params, batch = make(sizes, activation, loss, dtype)

    @jax.jit
    def both(params, x, y):
        forward = mlp_forward(params, x, activation=activation)
        delta = BATCH_LOSSES[loss](forward.sums[-1], y)[1]
        slopes = [
            models.ACTIVATION_DERIVATIVES[activation](z) for z in forward.sums[:-1]
        ]
        hand = mlp_value_and_gradient(params, x, y, activation=activation, loss=loss)
        return (
            hand,
            jax.value_and_grad(risk)(params, Batch(x, y)),
            (forward, delta, slopes),
        )

    risk = objectives.empirical_risk(model, LOSSES[loss])
    (value, grads), (theirs, expected), seen = jax.tree.map(
        np.asarray, both(params, batch.x, batch.y)
    )
    np.testing.assert_allclose(value, theirs, rtol=4 * np.finfo(dtype).eps)
    bound = rounding_bound(params, *seen)
    assert excess(grads, expected, bound) < 1
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, params)
    # And the bound tells a gradient that is wrong by one part in a million (in float32:
    # in two thousand) from a right one.
    wrong = jax.tree.map(
        lambda leaf: leaf * (1 + (1e-6 if dtype == np.float64 else 5e-4)), grads
    )
    assert excess(wrong, expected, bound) > 1


def test_every_loss_and_activation_is_under_test():
    assert set(BATCH_LOSSES) == set(LOSSES) == {case[2] for case in CASES}
    assert set(models.ACTIVATIONS) == {
        case[1] for case in CASES if case[3] == np.float64
    }


@pytest.mark.thorough(
    "loops over units; test_gradient_by_hand_equals_jaxs_but_for_rounding has each loss"
)
def test_gradient_by_hand_equals_numpy_unit_by_unit():
    # The chain rule without matrices: a sum over every unit of the layer above, one
    # example at a time.
    _, params, batch = make((2, 3, 2), "tanh", "squared_error")
    x, y = np.asarray(batch.x), np.asarray(batch.y)
    (w1, b1), (w2, b2) = (
        [np.asarray(params[name][part]) for part in ("weights", "bias")]
        for name in sorted(params)
    )
    expected = {
        "dense_1": {"weights": 0 * w1, "bias": 0 * b1},
        "dense_2": {"weights": 0 * w2, "bias": 0 * b2},
    }
    for i in range(N):
        h = [
            np.tanh(sum(x[i, a] * w1[a, j] for a in range(2)) + b1[j]) for j in range(3)
        ]
        residual = [
            sum(h[j] * w2[j, k] for j in range(3)) + b2[k] - y[i, k] for k in range(2)
        ]
        for k in range(2):
            expected["dense_2"]["bias"][k] += residual[k] / N
            for j in range(3):
                expected["dense_2"]["weights"][j, k] += residual[k] * h[j] / N
        for j in range(3):
            back = sum(residual[k] * w2[j, k] for k in range(2)) * (1 - h[j] ** 2)
            expected["dense_1"]["bias"][j] += back / N
            for a in range(2):
                expected["dense_1"]["weights"][a, j] += back * x[i, a] / N
    _, grads = mlp_value_and_gradient(
        params, batch.x, batch.y, activation="tanh", loss="squared_error"
    )
    chex.assert_trees_all_close(grads, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.thorough(
    "differences; test_gradient_by_hand_equals_jaxs_but_for_rounding has each loss"
)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_by_hand_equals_central_differences(loss):
    _, params, batch = make((3, 4, 3), "gelu", loss)
    program = by_hand("gelu", loss)
    grads, random, step = (
        program(params, batch.x, batch.y)[1],
        np.random.default_rng(1),
        1e-5,
    )
    direction = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), params)
    ahead, behind = (
        program(
            jax.tree.map(lambda p, d, s=s: p + s * d, params, direction),
            batch.x,
            batch.y,
        )[0]
        for s in (step, -step)
    )
    slope = sum(
        jnp.vdot(g, d)
        for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(direction), strict=True)
    )
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=1e-7)


def test_deltas_are_the_derivatives_by_the_sums_and_by_the_input():
    _, params, batch = make((3, 4, 4, 2), "tanh", "squared_error")

    @jax.jit
    def deltas(params, x, y):
        forward = mlp_forward(params, x, activation="tanh")
        return mlp_backward(
            params,
            forward,
            BATCH_LOSSES["squared_error"](forward.sums[-1], y)[1],
            activation="tanh",
        ).deltas

    def shifted(shifts):
        z = batch.x + shifts[0]
        for k, shift in enumerate(shifts[1:], start=1):
            layer = params[f"dense_{k}"]
            z = (
                (jnp.tanh(z) if k > 1 else z) @ layer["weights"]
                + layer["bias"][None, :]
                + shift
            )
        return jnp.mean(0.5 * jnp.sum((z - batch.y) ** 2, axis=1))

    expected = jax.jit(jax.grad(shifted))(
        [np.zeros((N, width)) for width in (3, 4, 4, 2)]
    )
    for ours, theirs in zip(deltas(params, batch.x, batch.y), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.thorough("fewer axes", but="shape[23]")
@pytest.mark.parametrize("shape", [(4,), (1, 4), (2, 3, 4), (0, 4)])
def test_apply_equals_numpy_for_any_leading_axes(shape):
    model, params, _ = make((4, 6, 3), "tanh")
    x = np.random.default_rng(2).normal(size=shape)
    (w1, b1), (w2, b2) = (
        [np.asarray(params[name][part]) for part in ("weights", "bias")]
        for name in sorted(params)
    )
    np.testing.assert_allclose(
        model.apply(params, x), np.tanh(x @ w1 + b1) @ w2 + b2, rtol=1e-13, atol=1e-15
    )


def test_init_draws_every_layer_by_its_own_key_and_starts_biases_at_zero():
    model = models.mlp((8, 8, 8), initialiser="lecun_normal", dtype=np.float32)
    params = model.init(jax.random.key(3))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    assert not any(params[name]["bias"].any() for name in params)
    assert not np.any(
        np.asarray(params["dense_1"]["weights"])
        == np.asarray(params["dense_2"]["weights"])
    )
    again = model.init(jax.random.key(3))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, again))


@pytest.mark.parametrize("loss", LOSSES)
def test_float32_stays_float32_forward_and_back(loss):
    _, params, batch = make((3, 4, 2), "gelu", loss, np.float32)
    # Even if the targets are not, as here those of a regression.
    jaxpr = jax.make_jaxpr(
        lambda *a: mlp_value_and_gradient(*a, activation="gelu", loss=loss)
    )(params, *batch[:2])
    assert {aval.dtype for aval in jaxpr.out_avals} == {jnp.dtype("float32")}


@pytest.mark.on_ci("many small programs; nothing shorter shows this")
def test_loss_of_logits_is_precise_at_zero_and_far_out():
    # σ(z) - y without cancellation: at z = 40 and y = 1 it is -exp(-40), of which 1 - σ
    # would keep no digit.
    z = jnp.array([[0.0], [40.0], [-40.0], [1000.0], [-1000.0]])
    y = jnp.array([[1.0], [1.0], [0.0], [0.0], [1.0]])
    value, delta = BATCH_LOSSES["logistic"](z, y)
    np.testing.assert_allclose(
        5 * delta[:, 0], [-0.5, -np.exp(-40.0), np.exp(-40.0), 1.0, -1.0], rtol=1e-14
    )
    np.testing.assert_allclose(
        value, (np.log(2) + 2 * np.exp(-40.0) + 2000) / 5, rtol=1e-15
    )


@pytest.mark.on_ci(
    "three programs; test_wrong_argument_is_refused_in_words has another wrong label"
)
def test_class_that_is_none_is_refused_and_traced_gives_nan():
    _, params, batch = make((2, 3))
    wrong = np.where(np.arange(N) == 1, 3, batch.y)
    with pytest.raises(ValueError, match=r"classes in 0\.\.2; got 3"):
        mlp_value_and_gradient(params, batch.x, wrong)
    value, grads = by_hand("relu", "softmax_cross_entropy")(params, batch.x, wrong)
    assert np.isnan(value)
    assert np.isnan(grads["dense_1"]["bias"]).any()
    assert np.isnan(by_hand("relu", "logistic")(params, batch.x, -jnp.ones((N, 3)))[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": jnp.zeros(2)}, r"x must be a batch of shape \(n, features\)"),
        ({"x": jnp.zeros((0, 2)), "y": jnp.zeros(0, jnp.int32)}, "n at least 1"),
        ({"y": jnp.zeros(3, jnp.int32)}, r"classes of shape \(5,\)"),
        ({"y": jnp.zeros(5)}, "of float64"),
        ({"loss": "squared_error"}, "never broadcast"),
        (
            {"loss": "logistic", "y": -jnp.ones((5, 3))},
            r"y must be 0 or 1 \(or a probability\); got -1",
        ),
        ({"loss": "hinge"}, "loss must be one of .*; got loss='hinge'"),
        ({"activation": "step"}, "got activation='step'"),
        ({"params": {"dense_2": {}}}, "layers dense_1"),
    ],
)
def test_wrong_argument_is_refused_in_words(change, words):
    _, params, batch = make((2, 3))
    arguments = {"params": params, "x": batch.x, "y": batch.y} | change
    with pytest.raises(ValueError, match=words):
        mlp_value_and_gradient(**arguments)


@pytest.mark.on_ci(
    "a program; test_float32_stays_float32_forward_and_back has the dtypes without "
    "running it"
)
def test_gradients_have_their_parameters_dtype_whatever_that_of_the_data():
    model = models.mlp((2, 4, 3), dtype=jnp.float32)
    params, batch = model.init(jax.random.key(0)), make((2, 3))[2]
    program = by_hand("relu", "softmax_cross_entropy")
    grads = program(params, np.asarray(batch.x, np.float64), batch.y)[1]
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(jnp.float32)}


def test_delta_of_another_shape_is_refused():
    _, params, batch = make((2, 3))
    with pytest.raises(ValueError, match="prediction's shape"):
        mlp_backward(
            params,
            mlp_forward(params, batch.x, activation="relu"),
            jnp.zeros((N, 1)),
            activation="relu",
        )


@pytest.mark.parametrize("sizes", [(3,), (), (3, 0), (3, 2.0), 784])
def test_wrong_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes"):
        models.mlp(sizes)


def test_params_of_another_depth_are_refused():
    model, params, _ = make((2, 3))
    with pytest.raises(
        ValueError, match="another architecture: the model has no dense_2/bias"
    ):
        model.apply(params | {"dense_2": params["dense_1"]}, jnp.ones(2))
    with pytest.raises(ValueError, match="end in an axis of 2 features"):
        model.apply(params, jnp.ones(3))
