"""Linear, logistic and softmax models against the loop over examples and scikit-learn,
and what they refuse.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from research import models
from research.types import Model

COMPILE_QUICKLY = True  # tests/conftest.py

# Name: (builder of a model of d features, output axes for it).
MODELS = {
    "linear": (models.linear, ()),
    "logistic": (models.logistic, ()),
    "softmax": (lambda d, **options: models.softmax(d, 4, **options), (4,)),
}
each_model = pytest.mark.parametrize(("build", "outputs"), MODELS.values(), ids=MODELS)


def drawn(build, outputs, d=3):
    """A model and params whose intercept is not 0."""
    model = build(d)
    params = model.init(jax.random.key(0))
    return model, params | {
        "intercept": jnp.array(np.random.default_rng(0).normal(size=outputs))
    }


@pytest.mark.on_ci(
    "one output, which test_prediction_equals_scikit_learn_for_given_coefficients has",
    but="softmax",
)
@each_model
def test_prediction_equals_the_sum_written_out(build, outputs):
    model, params = drawn(build, outputs)
    x = np.random.default_rng(1).normal(size=(5, 3))
    weights, intercept = (np.array(params[name]) for name in ("weights", "intercept"))
    expected = np.stack(
        [sum(row[j] * weights[j] for j in range(3)) + intercept for row in x]
    )
    np.testing.assert_allclose(model.apply(params, x), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.thorough("other numbers of axes", but=r"^leading[24]-")
@pytest.mark.on_ci("one output", but="softmax")
@each_model
@pytest.mark.parametrize("leading", [(), (5,), (2, 5), (2, 1, 5), (0,), (2, 0)])
def test_leading_axes_of_any_number_and_size_equal_the_loop_over_examples(
    build, outputs, leading
):
    model, params = drawn(build, outputs)
    x = np.random.default_rng(2).normal(size=(*leading, 3))
    prediction = model.apply(params, x)
    assert prediction.shape == (*leading, *outputs)
    for index in np.ndindex(leading):
        np.testing.assert_allclose(
            prediction[index], model.apply(params, x[index]), rtol=1e-13, atol=1e-15
        )


@pytest.mark.thorough("one output", but="softmax")
@pytest.mark.on_ci("vmap over params; nothing shorter shows this")
@each_model
def test_jit_and_vmap_equal_the_plain_call(build, outputs):
    model, params = drawn(build, outputs)
    x = jnp.array(np.random.default_rng(3).normal(size=(5, 3)))
    plain = model.apply(params, x)
    np.testing.assert_allclose(jax.jit(model.apply)(params, x), plain, rtol=1e-14)
    np.testing.assert_allclose(
        jax.vmap(model.apply, (None, 0))(params, x), plain, rtol=1e-13, atol=1e-15
    )
    lanes = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    np.testing.assert_allclose(
        jax.vmap(model.apply, (0, None))(lanes, x),
        [plain, 2 * plain],
        rtol=1e-13,
        atol=1e-15,
    )


@each_model
def test_a_batch_is_one_matrix_product(build, outputs):
    model, params = drawn(build, outputs)
    jaxpr = jax.make_jaxpr(model.apply)(params, jnp.ones((2, 5, 3)))
    (product,) = (
        equation for equation in jaxpr.eqns if equation.primitive.name == "dot_general"
    )
    assert [value.aval.ndim for value in product.invars] == [2, 1 + len(outputs)]


def test_prediction_equals_scikit_learn_for_given_coefficients():
    rng = np.random.default_rng(4)
    x, weights, intercept = (
        rng.normal(size=(6, 3)),
        rng.normal(size=(3, 4)),
        rng.normal(size=4),
    )
    peer = LinearRegression()
    peer.coef_, peer.intercept_ = weights[:, 0], intercept[0]
    params = {"weights": weights[:, 0], "intercept": intercept[0]}
    np.testing.assert_allclose(
        models.linear(3).apply(params, x), peer.predict(x), rtol=1e-13
    )
    peer = LogisticRegression()
    peer.coef_, peer.intercept_, peer.classes_ = (
        weights[:, 0][None],
        intercept[:1],
        np.array([0, 1]),
    )
    logit = models.logistic(3).apply(params, x)
    np.testing.assert_allclose(logit, peer.decision_function(x), rtol=1e-13)
    np.testing.assert_allclose(
        models.probability(logit), peer.predict_proba(x)[:, 1], rtol=1e-13
    )
    peer.coef_, peer.intercept_, peer.classes_ = weights.T, intercept, np.arange(4)
    logits = models.softmax(3, 4).apply({"weights": weights, "intercept": intercept}, x)
    np.testing.assert_allclose(logits, peer.decision_function(x), rtol=1e-13)
    np.testing.assert_allclose(
        jax.nn.softmax(logits), peer.predict_proba(x), rtol=1e-13
    )


def test_probabilities_of_one_and_of_zero_are_complements_at_full_precision():
    z = jnp.array([-700.0, -40.0, -1.0, 0.0, 1.0, 40.0, 700.0])
    np.testing.assert_allclose(
        models.probability(z) + models.probability(-z), np.ones(7), rtol=1e-15
    )
    np.testing.assert_allclose(
        models.probability(-z), np.exp(-z) * models.probability(z), rtol=1e-12
    )


@pytest.mark.thorough(
    "the other pairs of model and dtype", but=r"^(bfloat16-linear|float32-softmax)\]"
)
@pytest.mark.on_ci("float32", but="bfloat16")
@each_model
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_init_draws_weights_of_the_given_scale_and_dtype(build, outputs, dtype):
    params = build(1000, scale=np.float64(0.5), dtype=dtype).init(
        jax.random.key(1)
    )  # Which must not widen them.
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in params.items()} == {
        "weights": ((1000, *outputs), dtype),
        "intercept": (outputs, dtype),
    }
    # In that dtype, because others are other draws; but half precision is rounded.
    wide = jnp.float32 if dtype == jnp.bfloat16 else dtype
    draws = jax.random.normal(jax.random.key(1), (1000, *outputs), wide)
    np.testing.assert_array_equal(
        params["weights"], (jnp.asarray(0.5, wide) * draws).astype(dtype)
    )
    # The standard deviation of m normal draws has relative standard error 1/sqrt(2 m):
    # 4 of them.
    np.testing.assert_allclose(
        np.std(params["weights"].astype(float)), 0.5, rtol=4 / np.sqrt(2 * 1000)
    )
    assert not params["intercept"].any()


@each_model
def test_default_dtype_is_jax_s_own(build, outputs):
    assert build(3).init(jax.random.key(2))["weights"].dtype == jnp.zeros(()).dtype
    assert not build(3, scale=0.0).init(jax.random.key(2))["weights"].any()


@pytest.mark.thorough("one output", but="softmax")
@pytest.mark.on_ci("draws under vmap; nothing shorter shows this")
@each_model
def test_initial_points_follow_the_key_alone_and_wide_key_trees_vmap(build, outputs):
    model, root = build(3), jax.random.key(3)
    keys = jax.vmap(lambda seed: jax.random.fold_in(root, seed))(jnp.arange(4))
    together = jax.vmap(model.init)(keys)
    for seed in range(4):
        alone = model.init(jax.random.fold_in(root, seed))
        np.testing.assert_array_equal(together["weights"][seed], alone["weights"])
    assert len(np.unique(np.array(together["weights"]).reshape(4, -1), axis=0)) == 4


@each_model
def test_a_key_changes_no_prediction_for_nothing_is_drawn(build, outputs):
    model, params = drawn(build, outputs)
    x = jnp.ones((2, 3))
    np.testing.assert_array_equal(
        model.apply(params, x, key=jax.random.key(4)), model.apply(params, x)
    )


@pytest.mark.on_ci("one output", but="softmax")
@each_model
def test_prediction_keeps_the_dtype_of_params_and_data(build, outputs):
    for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
        model = build(3, dtype=dtype)
        with jax.numpy_dtype_promotion("strict"):
            params = jax.eval_shape(model.init, jax.random.key(5))
            found = jax.eval_shape(model.apply, params, jnp.ones((2, 3), dtype))
            assert found.dtype == dtype
        pixels = jnp.ones((2, 3), jnp.uint8)
        assert jax.eval_shape(model.apply, params, pixels).dtype == dtype


@each_model
def test_wrong_number_of_features_is_refused_when_traced_too(build, outputs):
    model, params = drawn(build, outputs)
    for shape in ((), (4,), (3, 4), (3, 1)):
        with pytest.raises(
            ValueError,
            match=(
                r"x must end in an axis of 3 features, .*; got x of shape .*Transpose"
            ),
        ):
            jax.jit(model.apply)(params, jnp.ones(shape))


def test_counts_and_scale_are_refused_by_name():
    for wrong in (0, -1, 2.0, True, "3"):
        for build in (models.linear, models.logistic, lambda d: models.softmax(d, 3)):
            with pytest.raises(
                ValueError,
                match=r"num_features must be a positive integer; got num_features=",
            ):
                build(wrong)
    with pytest.raises(
        ValueError,
        match=r"num_classes must be an integer of at least 2; got num_classes=1",
    ):
        models.softmax(3, 1)
    for scale in (-0.1, float("nan")):
        with pytest.raises(ValueError, match=r"scale must be at least 0; got scale="):
            models.linear(3, scale=scale)
    assert isinstance(models.linear(np.int64(3)), Model)
