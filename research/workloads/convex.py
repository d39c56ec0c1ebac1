"""Convex problems: linear, logistic and softmax regression, and a noisy quadratic."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from threadpoolctl import threadpool_limits

from research import datasets, losses, models, objectives, optima
from research.types import Array, Batch, Model, Optimum, Params, Workload
from research.workloads._construction import (
    SPLIT_SEED,
    constructor,
    in_batches,
    rows_for,
)


class _Task(NamedTuple):
    """A model with what fits it and what measures it."""

    model: Callable[..., Model]  # (num_features, dtype=) -> Model.
    loss: Callable[[Array, Array], Array]
    metric: Callable[[Model], Callable[[Params, Batch], Array]]
    metric_name: str
    solve: Callable[[np.ndarray, np.ndarray, float], Optimum]
    has_labels: bool


_REGRESSION = _Task(
    models.linear, losses.squared_error, objectives.r_squared, "R²", optima.ridge, False
)
_TWO_CLASSES = _Task(
    models.logistic,
    losses.logistic,
    objectives.accuracy,
    "accuracy",
    optima.logistic_regression,
    True,
)
_TEN_CLASSES = _Task(
    functools.partial(models.softmax, num_classes=10),
    losses.softmax_cross_entropy,
    objectives.accuracy,
    "accuracy",
    lambda x, y, penalty: optima.softmax_regression(x, y, 10, penalty),
    True,
)


@constructor
def diabetes(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """Linear regression of disease progression on ten measurements, all standardised."""
    return _supervised(
        "diabetes",
        _REGRESSION,
        datasets.load("diabetes_raw"),
        0.0,
        holdout,
        dtype,
        scale_targets=True,
    )


@constructor
def diabetes_ridge(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """The same with penalty 0.1, which lowers the condition number from 520 to 40."""
    data = datasets.load("diabetes_raw")
    return _supervised(
        "diabetes_ridge", _REGRESSION, data, 0.1, holdout, dtype, scale_targets=True
    )


@constructor
def diabetes_bmi(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """A line: disease progression, in its own units, on the standardised body mass index."""
    return _supervised(
        "diabetes_bmi", _REGRESSION, _only("diabetes_raw", "bmi"), 0.0, holdout, dtype
    )


@constructor
def breast_cancer(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """Logistic regression: is a tumour benign (1) or malignant (0)?

    Thirty measurements of the nuclei of its cells say so.
    """
    return _supervised(
        "breast_cancer",
        _TWO_CLASSES,
        datasets.load("breast_cancer"),
        0.01,
        holdout,
        dtype,
    )


@constructor
def breast_cancer_two_features(
    *, holdout: bool = True, dtype: DTypeLike = "float64"
) -> Workload:
    """The same from two of them: the size and the dents of the largest nuclei."""
    data = _only("breast_cancer", "worst radius", "worst concave points")
    return _supervised(
        "breast_cancer_two_features", _TWO_CLASSES, data, 0.01, holdout, dtype
    )


@constructor
def digits(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """Softmax regression: which of ten digits an 8 by 8 image shows."""
    return _supervised(
        "digits", _TEN_CLASSES, datasets.load("digits"), 0.01, holdout, dtype
    )


@constructor
def overlapping_50k(
    *, n: int = 50_000, holdout: bool = True, dtype: DTypeLike = "float64"
) -> Workload:
    """A large set: two Gaussian classes in 20 correlated dimensions.

    It has n training rows; the Bayes accuracy is 0.841.
    """
    data = datasets.overlapping_classes(0, rows_for(n, holdout), 20, 2.0, 200.0)
    return _supervised("overlapping_50k", _TWO_CLASSES, data, 1e-4, holdout, dtype)


@constructor
def overlapping_1m(
    *, n: int = 1_000_000, holdout: bool = True, dtype: DTypeLike = "float64"
) -> Workload:
    """A very large set: two Gaussian classes in 10 dimensions.

    It has n training rows; the Bayes accuracy is 0.841.
    """
    data = datasets.overlapping_classes(0, rows_for(n, holdout), 10, 2.0, 10.0)
    return _supervised("overlapping_1m", _TWO_CLASSES, data, 1e-4, holdout, dtype)


@constructor
def ill_conditioned(
    *, n: int = 2_000, holdout: bool = True, dtype: DTypeLike = "float64"
) -> Workload:
    """Linear regression in a long valley, generated: R² 0.95.

    The condition number is 10,000 once the inputs are standardised.
    """
    data = datasets.linear_problem(
        0, rows_for(n, holdout), 50, 0.5, 12_000.0
    )  # Standardising brings it down.
    return _supervised("ill_conditioned", _REGRESSION, data, 0.0, holdout, dtype)


@constructor
def noisy_quadratic(
    *, n: int = 2_000, holdout: bool = True, dtype: DTypeLike = "float64"
) -> Workload:
    """The mean of ½ (x - x_i)ᵀH(x - x_i) over n examples x_i ~ N(c, 0.36 I).

    It is least at their mean; H is not diagonal. Of H's 100 eigenvalues 90 are drawn from
    [0, 1] and 10 from [30, 60], as in DeepOBS (Schneider et al. 2019). Zhang et al. 2019
    (arXiv 1907.04164) say what batch size does on such problems. A batch's x are x_i, its
    y ½ x_iᵀHx_i: a batch then costs one product with H, in the form
    ½ (x - m)ᵀH(x - m) + mean of y - ½ mᵀHm, m the mean of its x_i.
    """
    random = np.random.default_rng(0)
    eigenvalues = np.concatenate([random.uniform(0, 1, 90), random.uniform(30, 60, 10)])
    x = random.standard_normal(100) + 0.6 * random.standard_normal(
        (rows_for(n, holdout), 100)
    )
    with threadpool_limits(1, "blas"):
        root = np.linalg.qr(random.standard_normal((100, 100)))[0] * np.sqrt(
            eigenvalues
        )  # H = root rootᵀ.
        y = 0.5 * np.sum((x @ root) ** 2, axis=1)
        train, validation, test = in_batches(
            datasets.split(x, y, SPLIT_SEED) if holdout else ((x, y),), dtype, dtype
        )
        best = (data := np.asarray(train.x, np.float64)).mean(axis=0)
        value = float(
            np.mean(np.asarray(train.y, np.float64)) - 0.5 * np.sum((best @ root) ** 2)
        )
        norms = [
            float(np.linalg.norm(root @ np.mean((point - data) @ root, axis=0)))
            for point in (best, 0 * best)
        ]

    def objective(params: Params, batch: Any) -> Array:
        middle, to = jnp.mean(batch.x, axis=0), jnp.asarray(root, params.dtype)
        return (
            0.5 * jnp.sum(((params - middle) @ to) ** 2)
            + jnp.mean(batch.y)
            - 0.5 * jnp.sum((middle @ to) ** 2)
        )

    optimum = Optimum(
        jnp.asarray(best, dtype), value, norms[0], norms[1], "mean of the data"
    )
    start = functools.partial(jax.random.normal, shape=(100,), dtype=dtype)
    return Workload(
        "noisy_quadratic",
        train,
        validation,
        test,
        start,
        objective,
        None,
        "",
        None,
        optimum,
    )


def _only(name: str, *features: str) -> datasets.Dataset:
    """A bundled set with some of its columns."""
    data = datasets.load(name)
    return data._replace(
        x=data.x[:, [data.feature_names.index(feature) for feature in features]]
    )


def _supervised(
    name: str,
    task: _Task,
    data: Any,
    penalty: float,
    holdout: bool,
    dtype: DTypeLike,
    scale_targets: bool = False,
) -> Workload:
    """Split, standardise, and solve for the optimum of the data in the given dtype."""
    datasets.check_xy(data.x, data.y)
    parts = (
        datasets.split(data.x, data.y, SPLIT_SEED) if holdout else ((data.x, data.y),)
    )
    inputs, targets = zip(*parts, strict=True)
    inputs = datasets.standardise(*inputs)
    if scale_targets:
        targets = datasets.standardise(*targets)
    target_dtype = jnp.int32 if task.has_labels else dtype
    train, validation, test = in_batches(
        zip(inputs, targets, strict=True), dtype, target_dtype
    )
    model = task.model(train.x.shape[1], dtype=dtype)
    objective: Callable[..., Array] = objectives.empirical_risk(model, task.loss)
    if penalty > 0:
        objective = objectives.regularised(objective, objectives.l2_penalty(penalty))
    # Its bits then do not depend on the cores, nor its time on who else uses them.
    with threadpool_limits(1, "blas"):
        optimum = task.solve(
            np.asarray(train.x, np.float64), np.asarray(train.y, np.float64), penalty
        )
    optimum = optimum._replace(
        params=jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), optimum.params)
    )
    metric = task.metric(model)
    return Workload(
        name,
        train,
        validation,
        test,
        model.init,
        objective,
        metric,
        task.metric_name,
        model,
        optimum,
    )
