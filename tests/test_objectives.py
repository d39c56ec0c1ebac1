"""Objectives, penalties and metrics against closed forms, scikit-learn, numpy, optax and recorded digits."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, log_loss, r2_score

from research import losses, models, objectives
from research.types import Batch, Model

RECORDED = json.loads((Path(__file__).parent / "reference" / "losses.json").read_text())["cases"]
RECORDED = {case["name"]: case for case in RECORDED}


def problem(name, n=30, d=3):
    """(model, objective, params, batch) of a drawn problem; nothing in it is zero."""
    rng = np.random.default_rng(0)
    model, loss, y = {
        "linear": (models.linear(d), losses.squared_error, rng.normal(size=n)),
        "logistic": (models.logistic(d), losses.logistic, rng.integers(0, 2, n)),
        "softmax": (models.softmax(d, 4), losses.softmax_cross_entropy, rng.integers(0, 4, n)),
    }[name]
    params = jax.tree.map(lambda leaf: jnp.array(rng.normal(size=leaf.shape)), model.init(jax.random.key(0)))
    batch = Batch(jnp.array(rng.normal(size=(n, d))), jnp.array(y))
    return model, objectives.empirical_risk(model, loss), params, batch


def assert_trees_close(ours, theirs, rtol=1e-12, atol=1e-14):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), ours, theirs)


each_problem = pytest.mark.parametrize("name", ["linear", "logistic", "softmax"])


def test_gradient_of_linear_regression_is_the_closed_form():
    _, objective, params, batch = problem("linear")
    residual = np.array(batch.x @ params["weights"] + params["intercept"] - batch.y)
    np.testing.assert_allclose(objective(params, batch), residual @ residual / (2 * 30), rtol=1e-14)
    expected = {"weights": np.array(batch.x).T @ residual / 30, "intercept": residual.mean()}
    assert_trees_close(jax.grad(objective)(params, batch), expected)


@each_problem
def test_risk_is_the_mean_of_the_losses_of_its_examples(name):
    _, objective, params, batch = problem(name)
    alone = [objective(params, Batch(batch.x[i : i + 1], batch.y[i : i + 1])) for i in range(30)]
    np.testing.assert_allclose(objective(params, batch), np.mean(alone), rtol=1e-14)
    np.testing.assert_allclose(jax.jit(objective)(params, batch), np.mean(alone), rtol=1e-14)


@each_problem
def test_risk_of_a_classifier_is_scikit_learn_s_log_loss(name):
    if name == "linear":
        return
    model, objective, params, batch = problem(name)
    logits = model.apply(params, batch.x)
    probabilities = models.probability(logits) if name == "logistic" else jax.nn.softmax(logits)
    expected = log_loss(batch.y, probabilities, labels=range(2 if name == "logistic" else 4))
    np.testing.assert_allclose(objective(params, batch), expected, rtol=1e-13)
