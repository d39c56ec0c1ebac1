"""Objectives, penalties and metrics against closed forms, scikit-learn, numpy, optax
and recorded digits.
"""

import functools
import json
from pathlib import Path
from typing import NamedTuple

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, log_loss, r2_score

from research import losses, models, objectives
from research.types import Batch, Model

COMPILE_QUICKLY = True  # tests/conftest.py

RECORDED = json.loads(
    (Path(__file__).parent / "reference" / "losses.json").read_text()
)["cases"]
RECORDED = {case["name"]: case for case in RECORDED}


def problem(name, n=30, d=3):
    """(model, objective, params, batch) of a drawn problem; nothing in it is zero."""
    rng = np.random.default_rng(0)
    model, loss, y = {
        "linear": (models.linear(d), losses.squared_error, rng.normal(size=n)),
        "logistic": (models.logistic(d), losses.logistic, rng.integers(0, 2, n)),
        "softmax": (
            models.softmax(d, 4),
            losses.softmax_cross_entropy,
            rng.integers(0, 4, n),
        ),
    }[name]
    params = jax.tree.map(
        lambda leaf: jnp.array(rng.normal(size=leaf.shape)),
        model.init(jax.random.key(0)),
    )
    batch = Batch(jnp.array(rng.normal(size=(n, d))), jnp.array(y))
    return model, objectives.empirical_risk(model, loss), params, batch


def assert_trees_close(ours, theirs, rtol=1e-12, atol=1e-14):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
        ours,
        theirs,
    )


each_problem = pytest.mark.parametrize("name", ["linear", "logistic", "softmax"])


def test_gradient_of_linear_regression_is_the_closed_form():
    _, objective, params, batch = problem("linear")
    residual = np.array(batch.x @ params["weights"] + params["intercept"] - batch.y)
    np.testing.assert_allclose(
        objective(params, batch), residual @ residual / (2 * 30), rtol=1e-14
    )
    expected = {
        "weights": np.array(batch.x).T @ residual / 30,
        "intercept": residual.mean(),
    }
    assert_trees_close(jax.grad(objective)(params, batch), expected)


@pytest.mark.on_ci(
    "30 batches of one example; test_gradient_of_linear_regression_is_the_closed_form "
    "has the mean written out"
)
@pytest.mark.thorough("classifiers, whose risk scikit-learn has below", but="linear")
@each_problem
def test_risk_is_the_mean_of_the_losses_of_its_examples(name):
    _, objective, params, batch = problem(name)
    compiled = jax.jit(objective)
    alone = [
        compiled(params, Batch(batch.x[i : i + 1], batch.y[i : i + 1]))
        for i in range(30)
    ]
    np.testing.assert_allclose(objective(params, batch), np.mean(alone), rtol=1e-14)
    np.testing.assert_allclose(compiled(params, batch), np.mean(alone), rtol=1e-14)


@pytest.mark.on_ci(
    "probabilities of scikit-learn; "
    "test_penalised_gradient_vanishes_at_scikit_learn_s_logistic_regression has the "
    "risk of a classifier"
)
@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_risk_of_a_classifier_is_scikit_learn_s_log_loss(name):
    model, objective, params, batch = problem(name)
    logits = model.apply(params, batch.x)
    probabilities = (
        models.probability(logits) if name == "logistic" else jax.nn.softmax(logits)
    )
    expected = log_loss(
        batch.y, probabilities, labels=range(2 if name == "logistic" else 4)
    )
    np.testing.assert_allclose(objective(params, batch), expected, rtol=1e-13)


def test_risk_gives_the_batch_s_key_to_the_model():
    model = Model(
        lambda key: jnp.zeros(()),
        lambda params, x, key: x + jax.random.normal(key, x.shape, jnp.float64),
    )
    objective = objectives.empirical_risk(model, losses.squared_error)
    noise = jax.random.normal(jax.random.key(1), (4,), jnp.float64)
    risk = objective(
        jnp.zeros(()), Batch(jnp.zeros(4), jnp.zeros(4), jax.random.key(1))
    )
    np.testing.assert_allclose(risk, np.mean(noise**2) / 2, rtol=1e-14)


@each_problem
def test_empty_and_mispaired_batches_are_refused(name):
    model, objective, params, batch = problem(name)
    for function in (objective, objectives.accuracy(model)):
        for wrong in (
            Batch(batch.x[:0], batch.y[:0]),
            Batch(batch.x, batch.y[:1]),
            Batch(batch.x[0], batch.y[0]),
        ):
            with pytest.raises(
                ValueError,
                match=(
                    r"predictions and targets must have equal leading axes.* got "
                    r"predictions of"
                ),
            ):
                jax.jit(function)(params, wrong)


@each_problem
def test_targets_in_a_list_are_refused(name):
    model, objective, params, batch = problem(name)
    listed = batch._replace(y=np.asarray(batch.y).tolist())
    for function in (
        objective,
        objectives.accuracy(model),
        objectives.r_squared(model),
    ):
        with pytest.raises(TypeError, match=r"y must be an array; .*jnp\.asarray\(y\)"):
            function(params, listed)


def test_a_number_is_no_penalty():
    with pytest.raises(TypeError, match=r"got penalties\[1\]=0\.2\. Make one by l2_"):
        objectives.regularised(
            lambda params, batch: jnp.sum(params), objectives.l2_penalty(1.0), 0.2
        )


@pytest.mark.on_ci(
    "regressions; "
    "test_penalised_gradient_vanishes_at_scikit_learn_s_logistic_regression has a "
    "classifier"
)
def test_ridge_and_lasso_gradients_vanish_at_scikit_learn_s_optima():
    _, risk, _, batch = problem("linear")
    x, y = np.array(batch.x), np.array(batch.y)
    ridge = Ridge(alpha=30 * 0.7, solver="cholesky").fit(x, y)
    params = {
        "weights": jnp.array(ridge.coef_),
        "intercept": jnp.array(ridge.intercept_),
    }
    slope = jax.jit(jax.grad(objectives.regularised(risk, objectives.l2_penalty(0.7))))(
        params, batch
    )
    assert_trees_close(slope, {"weights": np.zeros(3), "intercept": 0.0})
    value = objectives.regularised(risk, objectives.l2_penalty(0.7))(params, batch)
    expected = (
        np.sum((y - ridge.predict(x)) ** 2) + 21 * ridge.coef_ @ ridge.coef_
    ) / 60
    np.testing.assert_allclose(value, expected, rtol=1e-13)

    lasso = Lasso(alpha=0.02, tol=1e-14, max_iter=10_000).fit(x, y)
    assert lasso.coef_.all()  # No weight sits on the kink.
    params = {
        "weights": jnp.array(lasso.coef_),
        "intercept": jnp.array(lasso.intercept_),
    }
    slope = jax.jit(
        jax.grad(objectives.regularised(risk, objectives.l1_penalty(0.02)))
    )(params, batch)
    assert_trees_close(slope, {"weights": np.zeros(3), "intercept": 0.0}, atol=1e-8)


@pytest.mark.thorough("several classes", but="logistic")
@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_penalised_gradient_vanishes_at_scikit_learn_s_logistic_regression(name):
    _, risk, _, batch = problem(name)
    x, y = np.array(batch.x), np.array(batch.y)
    peer = LogisticRegression(
        C=1 / (30 * 0.1), solver="newton-cg", tol=1e-10, max_iter=1000
    ).fit(x, y)
    weights, intercept = peer.coef_.T, peer.intercept_
    params = (
        {"weights": weights, "intercept": intercept}
        if name == "softmax"
        else ({"weights": weights[:, 0], "intercept": intercept[0]})
    )
    slope = jax.jit(jax.grad(objectives.regularised(risk, objectives.l2_penalty(0.1))))(
        jax.tree.map(jnp.array, params), batch
    )
    assert_trees_close(slope, jax.tree.map(np.zeros_like, params), atol=1e-8)


@pytest.mark.parametrize("name", ["l2_penalty", "elastic_net_penalty"])
def test_penalty_equals_the_recorded_digits(name):
    case = RECORDED[name]
    penalties = {
        "l2_penalty": (objectives.l2_penalty(0.01),),
        "elastic_net_penalty": (
            objectives.l1_penalty(0.005),
            objectives.l2_penalty(0.005),
        ),
    }[name]
    f = objectives.regularised(lambda params, batch: 0.0, *penalties)
    pred = jnp.array(case["inputs"]["pred"])
    for derivative, entry in (
        (f, "value"),
        (jax.grad(f), "gradient"),
        (jax.hessian(f), "hessian"),
    ):
        np.testing.assert_allclose(
            jax.jit(derivative)(pred, None),
            np.array(case[entry], dtype=float),
            rtol=1e-14,
        )


@pytest.mark.on_ci("derivatives of R²; nothing shorter shows this")
def test_r_squared_equals_the_recorded_digits():
    case = RECORDED["r2_loss"]
    y, pred = (jnp.array(case["inputs"][name]) for name in ("y", "pred"))
    metric = objectives.r_squared(
        Model(lambda key: pred, lambda params, x, key=None: params)
    )
    f = lambda params: 1 - metric(params, Batch(y, y))
    for derivative, entry in (
        (f, "value"),
        (jax.grad(f), "gradient"),
        (jax.hessian(f), "hessian"),
    ):
        expected = np.array(case[entry], dtype=float)
        np.testing.assert_allclose(
            jax.jit(derivative)(pred), expected, rtol=1e-14, atol=1e-16
        )


class Layers(NamedTuple):
    weights: jax.Array
    intercept: jax.Array


@pytest.mark.on_ci("the other penalty", but="l2_penalty")
@pytest.mark.parametrize("penalty", [objectives.l2_penalty, objectives.l1_penalty])
def test_penalty_leaves_intercepts_out_unless_told(penalty):
    w, b = jnp.array([3.0, -1.0]), jnp.array([100.0, 10.0])
    whole = penalty(2.0)(w)  # A bare array has no name: it is a weight.
    nested = {
        "hidden": {"weights": w, "intercept": b},
        "linen": {"kernel": w, "bias": b},
        "named": Layers(w, b),
    }
    np.testing.assert_allclose(penalty(2.0)(nested), 3 * whole, rtol=1e-15)
    told = penalty(2.0, penalise_intercept=True)(nested)
    np.testing.assert_allclose(told, 3 * (whole + penalty(2.0)(b)), rtol=1e-15)
    assert not jax.grad(penalty(2.0))(nested)["hidden"]["intercept"].any()
    assert penalty(2.0)({"intercept": b}) == 0
    assert (
        penalty(2.0)({"intercept": {"weights": w}}) == whole
    )  # The last name decides.
    assert penalty(2.0)([w, w]) == 2 * whole


def test_l2_gradient_is_that_of_optax_s_coupled_decay():
    w = jnp.array([3.0, -1.0])
    rule = optax.add_decayed_weights(0.3)
    updates, _ = rule.update(jnp.zeros(2), rule.init(w), w)
    np.testing.assert_allclose(
        jax.grad(objectives.l2_penalty(0.3))(w), updates, rtol=1e-15
    )


def test_l1_gradient_at_its_kink_is_zero():
    np.testing.assert_array_equal(
        jax.grad(objectives.l1_penalty(2.0))(jnp.array([0.0, 1.0, -1.0])),
        [0.0, 2.0, -2.0],
    )


def test_a_penalty_in_half_precision_is_rounded_once_from_its_sum():
    many = {"w": jnp.ones(200_000, "float16")}  # Their sum is beyond float16.
    assert objectives.l2_penalty(1e-3)(many) == 100
    assert objectives.l1_penalty(1e-3)(many) == 200
    few = {"w": jnp.ones(10_000, "float16")}  # A strength of 1e-8 is 0 in float16.
    assert objectives.l2_penalty(1e-8)(few) == jnp.float16(5e-5)
    assert objectives.l2_penalty(1e-8)(few).dtype == "float16"


@pytest.mark.on_ci("the other penalty", but="l2_penalty")
@pytest.mark.parametrize("penalty", [objectives.l2_penalty, objectives.l1_penalty])
def test_traced_strength_maps_over_lanes_and_keeps_the_params_dtype(penalty):
    w, strengths = jnp.array([3.0, -1.0], jnp.float32), jnp.array([0.0, 0.5, 2.0])
    together = jax.vmap(lambda strength: penalty(strength)(w))(strengths)
    assert together.dtype == jnp.float32
    np.testing.assert_array_equal(
        together, [penalty(float(strength))(w) for strength in strengths]
    )
    np.testing.assert_allclose(
        jax.grad(lambda strength: penalty(strength)(w))(0.5), penalty(1.0)(w), rtol=1e-6
    )
    for wrong in (-1.0, np.nan):
        with pytest.raises(
            ValueError, match="strength must be at least 0; got strength="
        ):
            penalty(wrong)


@pytest.mark.thorough("classifiers", but="linear")
@each_problem
def test_gradients_of_examples_are_those_of_batches_of_one_their_mean_is_the_batch_s(
    name,
):
    _, risk, params, batch = problem(name)
    objective = objectives.regularised(risk, objectives.l2_penalty(0.3))
    gradients = jax.jit(objectives.per_example_gradients(objective))(params, batch)
    mean = jax.tree.map(lambda g: np.mean(g, axis=0), gradients)
    assert_trees_close(mean, jax.jit(jax.grad(objective))(params, batch))
    alone = jax.jit(jax.grad(objective))(params, Batch(batch.x[7:8], batch.y[7:8]))
    assert_trees_close(jax.tree.map(lambda g: g[7], gradients), alone)


def test_gradients_of_examples_draw_their_noise_apart():
    def objective(params, batch):
        return params * jnp.mean(
            jax.random.normal(batch.key, batch.y.shape, jnp.float64)
        )

    batch = Batch(jnp.zeros((5, 2)), jnp.zeros(5), jax.random.key(2))
    assert (
        len(
            np.unique(
                objectives.per_example_gradients(objective)(jnp.array(1.0), batch)
            )
        )
        == 5
    )
    with pytest.raises(ValueError, match=r"batch must have no key.*_replace"):
        objectives.gradient_covariance_trace(objective, jnp.array(1.0), batch)


@pytest.mark.on_ci(
    "several chunks; test_the_spread_of_gradients_takes_numbers_and_complex_params "
    "has a trace of one chunk"
)
@pytest.mark.thorough("the other chunks and models", but="^7-logistic")
@each_problem
@pytest.mark.parametrize("chunk", [1, 7, 2**22])
def test_covariance_trace_is_numpy_s_whatever_the_chunk(name, chunk, monkeypatch):
    _, risk, params, batch = problem(name)
    objective = objectives.regularised(risk, objectives.l2_penalty(0.3))
    gradients = jax.tree.leaves(
        jax.jit(objectives.per_example_gradients(objective))(params, batch)
    )
    covariance = np.cov(
        np.concatenate([g.reshape(30, -1) for g in gradients], axis=1).T, bias=True
    )
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    monkeypatch.setattr(objectives, "CHUNK_NUMBERS", chunk * size)
    trace = jax.jit(lambda p, b: objectives.gradient_covariance_trace(objective, p, b))(
        params, batch
    )
    np.testing.assert_allclose(trace, np.trace(covariance), rtol=1e-12)


@pytest.mark.thorough(
    "what follows from the trace, which "
    "test_covariance_trace_is_numpy_s_whatever_the_chunk has"
)
def test_covariance_trace_predicts_the_variance_of_a_minibatch_gradient():
    # Draws with replacement: E |g_B - g|² = tr(C) / b, exactly; the average of m draws
    # is near it by 4 standard errors.
    _, objective, params, batch = problem("logistic")
    indices = jax.random.randint(jax.random.key(3), (20_000, 4), 0, 30, jnp.int32)
    gradient = jax.grad(objective)
    mean = gradient(params, batch)

    def squared_distance(drawn):
        differences = jax.tree.map(
            jnp.subtract, gradient(params, Batch(batch.x[drawn], batch.y[drawn])), mean
        )
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(differences))

    squares = np.array(jax.jit(jax.vmap(squared_distance))(indices))
    trace = objectives.gradient_covariance_trace(objective, params, batch)
    np.testing.assert_allclose(
        squares.mean(), trace / 4, atol=4 * squares.std() / np.sqrt(20_000)
    )


@pytest.mark.on_ci("several dtypes; nothing shorter shows this")
@pytest.mark.thorough("logistic regression", but="linear|softmax")
@each_problem
def test_values_keep_the_dtype_of_params_and_data(name):
    model, risk, params, batch = problem(name)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    batch = batch._replace(x=batch.x.astype(jnp.float32))
    objective = objectives.regularised(
        risk, objectives.l2_penalty(0.3), objectives.l1_penalty(0.3)
    )
    metric = (
        objectives.r_squared(model) if name == "linear" else objectives.accuracy(model)
    )
    trace = functools.partial(objectives.gradient_covariance_trace, objective)
    for function in (risk, objective, trace):
        assert jax.eval_shape(function, params, batch).dtype == jnp.float32
    y = batch.y.astype(jnp.float32)
    assert jax.eval_shape(metric, params, batch._replace(y=y)).dtype == jnp.float32


@pytest.mark.on_ci("two classes", but="softmax")
@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_accuracy_is_scikit_learn_s_and_a_diverged_model_scores_nan(name):
    model, _, params, batch = problem(name)
    logits = model.apply(params, batch.x)
    predicted = (
        np.array(logits) > 0 if name == "logistic" else np.argmax(logits, axis=-1)
    )
    metric = jax.jit(objectives.accuracy(model))
    np.testing.assert_allclose(
        metric(params, batch),
        accuracy_score(np.asarray(batch.y), predicted),
        rtol=1e-15,
    )
    assert 0 < metric(params, batch) < 1
    assert jnp.isnan(metric(jax.tree.map(lambda leaf: leaf * jnp.nan, params), batch))
    with pytest.raises(
        ValueError, match="labels must have the shape of predicted classes"
    ):
        metric(params, batch._replace(y=batch.y[:, None, None]))


def test_accuracy_breaks_ties_towards_the_first_class():
    batch = Batch(jnp.ones((4, 3)), jnp.array([0, 0, 0, 1]))
    for model in (models.logistic(3), models.softmax(3, 2)):
        zero = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(4)))
        assert jax.jit(objectives.accuracy(model))(zero, batch) == 0.75


@pytest.mark.on_ci("the docstring's example has a value")
def test_r_squared_is_scikit_learn_s():
    model, _, params, batch = problem("linear")
    expected = r2_score(np.asarray(batch.y), np.asarray(model.apply(params, batch.x)))
    np.testing.assert_allclose(
        objectives.r_squared(model)(params, batch), expected, rtol=1e-13
    )
    model, _, params, batch = problem(
        "softmax"
    )  # Read as a regression of four outputs.
    y = jnp.array(np.random.default_rng(5).normal(size=(30, 4)))
    expected = r2_score(
        np.asarray(y),
        np.asarray(model.apply(params, batch.x)),
        multioutput="variance_weighted",
    )
    np.testing.assert_allclose(
        objectives.r_squared(model)(params, batch._replace(y=y)), expected, rtol=1e-13
    )
    with pytest.raises(ValueError, match=r"differ in shape: \(30, 4\) and \(30,\)"):
        objectives.r_squared(model)(params, batch)


# A model whose parameters are its predictions.
SHOWN = Model(lambda key: jnp.zeros(()), lambda params, x, key=None: params)

DTYPES = ("float16", "bfloat16", "float32", "float64")


@pytest.mark.on_ci(
    "70,000 examples in float16; make test has accuracies in float64 alone"
)
@pytest.mark.thorough("the other dtypes", but=r"^float16")
@pytest.mark.parametrize("dtype", DTYPES)
def test_accuracy_is_right_in_every_dtype(dtype):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=70_000), dtype)
    y = rng.integers(0, 2, logits.size)
    expected = accuracy_score(y, np.asarray(logits.astype(float)) > 0)
    found = objectives.accuracy(SHOWN)(logits, Batch(y, y))
    assert found.dtype == dtype
    assert found == jnp.asarray(expected, dtype)
    # The label 2,048 is not the predicted class 2,049, which float16 rounds to it.
    logits = jnp.zeros((1, 3000), dtype).at[0, 2049].set(1)
    y = jnp.asarray([2048], dtype)
    assert objectives.accuracy(SHOWN)(logits, Batch(y, y)) == 0


@pytest.mark.on_ci("the other targets", but=r"^0\.1\]")
@pytest.mark.parametrize("target", [0.1, 1.0, 1 / 3, -1e-300])
def test_r_squared_of_equal_targets_is_not_finite(target):
    none = jnp.zeros((0, 1))
    assert np.isnan(objectives.r_squared(SHOWN)(none, Batch(none, none)))
    y = jnp.full(10, target)  # Their mean may be rounded: 0.1 is not that of ten 0.1.
    assert objectives.r_squared(SHOWN)(y + 0.5, Batch(y, y)) == -np.inf
    assert np.isnan(objectives.r_squared(SHOWN)(y, Batch(y, y)))


@pytest.mark.on_ci("large and small targets; nothing shorter shows this")
@pytest.mark.thorough("float16 and float32", but="bfloat16|float64")
@pytest.mark.parametrize("dtype", DTYPES)
def test_r_squared_is_right_at_every_scale_in_every_dtype(dtype):
    rng = np.random.default_rng(0)
    exponents = {"float16": (-5, 0, 12), "float64": (-1000, 0, 1000)}
    for exponent in exponents.get(dtype, (-100, -60, 0, 60, 120)):
        scale = 2.0**exponent
        y = rng.normal(size=200)
        prediction = y + 0.5 * rng.normal(size=200)
        y, prediction = (jnp.asarray(scale * a, dtype) for a in (y, prediction))
        found = objectives.r_squared(SHOWN)(prediction, Batch(y, y))
        exact = [np.asarray(a.astype(float)) / scale for a in (y, prediction)]
        assert found.dtype == dtype
        np.testing.assert_allclose(
            float(found), r2_score(*exact), rtol=2 * float(jnp.finfo(dtype).eps)
        )


@pytest.mark.thorough("the bits; the digits: test_r_squared_is_scikit_learn_s")
def test_r_squared_has_the_bits_of_its_formula_where_nothing_overflows():
    def formula(prediction, y):
        deviation = y - jnp.mean(y, axis=0, keepdims=True)
        return 1 - jnp.sum((y - prediction) ** 2) / jnp.sum(deviation**2)

    # Operation by operation. Under jit, XLA chooses the order of a sum anew.
    rng = np.random.default_rng(1)
    for dtype, shape in (("float32", (97,)), ("float64", (97,)), ("float32", (31, 5))):
        for scale in (1e-3, 1.0, 1e3):
            drawn = scale * rng.normal(size=(2, *shape))
            prediction, y = (jnp.asarray(a, dtype) for a in drawn)
            found = objectives.r_squared(SHOWN)(prediction, Batch(y, y))
            assert found == formula(prediction, y)


@pytest.mark.on_ci(
    "bfloat16; test_slices_of_any_length_give_the_mean_of_all has float64"
)
@pytest.mark.thorough("the other dtypes", but="bfloat16")
@pytest.mark.parametrize("dtype", DTYPES)
def test_slices_round_a_mean_once(dtype):
    batch = Batch(jnp.asarray(np.arange(700) % 2, dtype), np.zeros(700))
    for size in (1, 7):
        found = objectives.in_slices(lambda _, batch: jnp.mean(batch.x), size)
        mean = found(None, batch)
        assert mean.dtype == dtype
        # Each mean and the sum of the means are rounded to dtype. The sum takes 700 or
        # 100 steps in float32 or float64.
        wide = max(jnp.finfo(dtype).bits, 32)
        eps = [float(jnp.finfo(kind).eps) for kind in (dtype, f"float{wide}")]
        assert abs(float(mean) - 0.5) <= 0.5 * (eps[0] + 700 / size * eps[1])


def test_slices_refuse_what_is_no_batch():
    mean = objectives.in_slices(lambda params, batch: jnp.mean(batch.x), 2)
    with pytest.raises(ValueError, match="the dataset has no examples"):
        mean(None, Batch(np.zeros(0), np.zeros(0)))
    with pytest.raises(
        ValueError,
        match=(
            r"all arrays of a dataset must have .*; got x of shape \(8,\), y of shape "
            r"\(4,\)"
        ),
    ):
        mean(None, Batch(np.zeros(8), np.zeros(4)))


def test_slices_of_any_length_give_the_mean_of_all():
    x, y = np.random.default_rng(0).normal(size=(2, 7))
    for size in (1, 3, 7, 100):
        found = objectives.in_slices(
            lambda params, batch: {"m": jnp.mean(params * batch.x * batch.y)}, size
        )(2.0, Batch(x, y))
        np.testing.assert_allclose(found["m"], np.mean(2 * x * y), rtol=1e-14)


def test_accuracy_of_integer_logits_is_a_share():
    params = {"weights": jnp.array([1]), "intercept": jnp.array(0)}
    batch = Batch(jnp.array([[-1], [2], [3]]), jnp.array([0, 1, 0]))
    found = objectives.accuracy(models.logistic(1))(params, batch)
    np.testing.assert_allclose(found, 2 / 3)


@pytest.mark.on_ci("complex and integer params; nothing shorter shows this")
def test_penalties_of_complex_and_of_integer_params():
    params = {"w": jnp.array([3.0 + 4.0j, 0.0])}
    assert objectives.l2_penalty(2.0)(params) == 25.0
    assert objectives.l1_penalty(2.0)(params) == 10.0
    slope = jax.grad(objectives.l1_penalty(1.0))(params)["w"]
    np.testing.assert_allclose(slope, [0.6 - 0.8j, 0.0], rtol=1e-12)  # Conjugate.
    assert objectives.l1_penalty(0.5)({"w": jnp.array([1, -2]), "v": 3}) == 3.0


def test_the_spread_of_gradients_takes_numbers_and_complex_params():
    batch = Batch(jnp.array([1.0, -1.0]), jnp.zeros(2))
    plain = lambda p, b: jnp.mean(p["a"] * b.x)
    assert objectives.gradient_covariance_trace(plain, {"a": 0.0}, batch) == 1.0
    turned = lambda p, b: jnp.mean(jnp.real(p["a"] * 1j * b.x))
    params = {"a": jnp.array(0.0 + 0.0j)}
    assert objectives.gradient_covariance_trace(turned, params, batch) == 1.0


def test_loss_of_several_numbers_and_a_flax_module_are_refused():
    model = models.linear(3)
    objective = objectives.empirical_risk(model, lambda z, t: jnp.stack([z - t, z]))
    batch = Batch(jnp.ones((4, 3)), jnp.ones(4))
    with pytest.raises(ValueError, match=r"one number for an example.*shape \(2,\)"):
        objective(model.init(jax.random.key(0)), batch)
    with pytest.raises(TypeError, match=r"(?s)Flax module .*from_linen"):
        objectives.empirical_risk(flax.linen.Dense(2), losses.squared_error)
