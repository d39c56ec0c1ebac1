"""Convex problems: linear, logistic and softmax regression, and a noisy quadratic."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float, Num
from threadpoolctl import threadpool_limits

from research import datasets, losses, models, objectives, optima
from research.checks import check_flag, check_number, check_text, shown
from research.naming import known_names
from research.types import Array, Batch, Model, Optimum, Params, Workload
from research.workloads._construction import (
    SPLIT_SEED,
    available,
    constructor,
    in_batches,
    rows_for,
)


class _Data(NamedTuple):
    x: np.ndarray
    y: np.ndarray


class _Task(NamedTuple):
    """A kind of regression: model, loss, metric, and solver for the optimum."""

    model: Callable[..., Model]  # (num_features, dtype=) -> Model.
    loss: Callable[[Array, Array], Array]
    metric: Callable[[Model], Callable[[Params, Batch], Array]]
    metric_name: str
    solve: Callable[[np.ndarray, np.ndarray, float], Optimum]
    has_labels: bool  # If True, the targets are integer labels.


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


def _classes(count: int) -> _Task:
    return _Task(
        functools.partial(models.softmax, num_classes=count),
        losses.softmax_cross_entropy,
        objectives.accuracy,
        "accuracy",
        lambda x, y, penalty: optima.softmax_regression(x, y, count, penalty),
        True,
    )


REGRESSIONS = ("linear", "logistic", "softmax")


def regression_workload(
    name: str,
    x: Float[np.ndarray, "n d"],
    y: Num[np.ndarray, "n"],
    kind: str,
    *,
    penalty: float = 0.01,
    holdout: bool = True,
    dtype: DTypeLike = "float64",
) -> Workload:
    """Make a workload from your own data: linear, logistic or softmax regression.

    A workload is a named optimisation problem. The objective is the mean loss plus
    penalty / 2 |w|², where w are the weights without the intercept. The loss is half
    the squared error for "linear", and the cross entropy otherwise. The optimum is
    computed by the same solvers as for the named regressions of `make_workload`.

    Args:
      name: Name of the workload in tables and files.
      x: Features, shape (n, d), finite, with one row for each example. They are
        standardised by their mean and standard deviation in the training part.
      y: Targets, shape (n,): numbers for "linear", labels 0 and 1 for "logistic", and
        labels 0, 1, ..., K - 1 of K classes for "softmax".
      kind: "linear", "logistic" or "softmax".
      penalty: Strength of the penalty, at least 0. With 0, the optimum might not exist,
        or might not be unique.
      holdout: If True, the rows are split at random with seed 0: 70 % for training,
        15 % for validation and 15 % for test. If False, all rows are used for training.
      dtype: Dtype of the data, "float64" by default.
    Returns:
      The workload, with its optimum.
    Raises:
      ValueError: name is empty, kind is unknown, x or y has another shape or contains
        NaN or infinity, their lengths differ, labels are invalid, penalty is negative
        or not finite, holdout is True and there are fewer than 4 rows, or the optimum
        does not exist or is not unique.
      TypeError: x or y is not an array of numbers, penalty is not a number, holdout is
        not a bool, or name is not a str.
    Example:
      >>> x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0.1, 0.9, 2.1, 2.9])
      >>> mine = regression_workload("mine", x, y, "linear", holdout=False, penalty=0.0)
      >>> print(f"{mine.optimum.value:.4f}")
      0.0040
    """
    check_text("name", name)
    if not name:
        raise ValueError("name must not be empty: tables and files show it.")
    if kind not in REGRESSIONS:
        raise ValueError(f"unknown kind {kind!r}{known_names(kind, REGRESSIONS)}")
    datasets.check_xy(x, y)
    check_flag("holdout", holdout)
    check_number("penalty", penalty)
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or y.ndim != 1:
        raise ValueError(
            "x must have the shape (n, d), and y the shape (n,); got x of shape "
            f"{x.shape} and y of shape {y.shape}."
        )
    if holdout and len(y) < 4:
        raise ValueError(
            f"{len(y)} rows are too few for three parts. Pass holdout=False, or at "
            "least 4 rows."
        )
    if kind != "linear":
        _check_labels(y, kind)
    labels = 0 if kind == "linear" else int(y.max()) + 1
    task = {"linear": _REGRESSION, "logistic": _TWO_CLASSES}.get(kind)
    return _supervised(
        name,
        task or _classes(labels),
        _Data(x, y),
        float(penalty),
        holdout,
        available(dtype),
    )


def _check_labels(y: Num[np.ndarray, "n"], kind: str) -> None:
    """Raise ValueError if a target is not a label, in any part of the data."""
    wrong = y[(y < 0) | (y != np.floor(y)) | ((kind == "logistic") & (y > 1))]
    if wrong.size:
        labels = "0 or 1" if kind == "logistic" else "labels 0, 1, ..., K - 1"
        raise ValueError(
            f"y must contain only {labels} for kind={kind!r}; got {wrong[0]}. Number "
            "the classes from 0, or use kind='linear' for targets that are not classes."
        )
    found = np.unique(y)
    if kind == "softmax" and (len(found) < 2 or found[-1] >= len(found)):
        raise ValueError(
            "y must contain each label 0, 1, ..., K - 1 of at least two classes for "
            f"kind='softmax'; got the labels {shown(found.tolist())}. "
            "np.unique(y, return_inverse=True)[1] numbers the classes of y."
        )


@constructor
def diabetes(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """Build the linear regression of disease progression on ten measurements.

    Inputs and target are standardised. `make_workload` explains the options.
    """
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
    """Build `diabetes` with the penalty λ/2 |w|² on the weights w, where λ = 0.1.

    The penalty lowers the condition number of the Hessian from 520 to 40.
    `make_workload` explains the options.
    """
    data = datasets.load("diabetes_raw")
    return _supervised(
        "diabetes_ridge", _REGRESSION, data, 0.1, holdout, dtype, scale_targets=True
    )


@constructor
def diabetes_bmi(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """Build the linear regression of disease progression on the body mass index.

    The body mass index is standardised. The target keeps its own units. `make_workload`
    explains the options.
    """
    return _supervised(
        "diabetes_bmi", _REGRESSION, _only("diabetes_raw", "bmi"), 0.0, holdout, dtype
    )


@constructor
def breast_cancer(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """Build a logistic regression of tumours, which are benign (1) or malignant (0).

    The inputs are thirty measurements of cell nuclei. `make_workload` explains the
    options.
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
    """Build `breast_cancer` with two inputs, "worst radius" and "worst concave points".

    `make_workload` explains the options.
    """
    data = _only("breast_cancer", "worst radius", "worst concave points")
    return _supervised(
        "breast_cancer_two_features", _TWO_CLASSES, data, 0.01, holdout, dtype
    )


@constructor
def digits(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """Build a softmax regression that classifies 8 by 8 images of digits.

    `make_workload` explains the options.
    """
    return _supervised(
        "digits", _classes(10), datasets.load("digits"), 0.01, holdout, dtype
    )


@constructor
def overlapping_50k(
    *, n: int = 50_000, holdout: bool = True, dtype: DTypeLike = "float64"
) -> Workload:
    """Build a logistic regression on many rows: two Gaussian classes in 20 dimensions.

    The features are correlated. The option n is the number of training rows. The
    highest accuracy that a classifier can reach on these classes (the Bayes accuracy)
    is 0.841. `make_workload` explains `holdout` and `dtype`.
    """
    data = datasets.overlapping_classes(0, rows_for(n, holdout), 20, 2.0, 200.0)
    return _supervised("overlapping_50k", _TWO_CLASSES, data, 1e-4, holdout, dtype)


@constructor
def overlapping_1m(
    *, n: int = 1_000_000, holdout: bool = True, dtype: DTypeLike = "float64"
) -> Workload:
    """Build a logistic regression on many rows: two Gaussian classes in 10 dimensions.

    The option n is the number of training rows. The highest accuracy that a classifier
    can reach on these classes (the Bayes accuracy) is 0.841. `make_workload` explains
    `holdout` and `dtype`.
    """
    data = datasets.overlapping_classes(0, rows_for(n, holdout), 10, 2.0, 10.0)
    return _supervised("overlapping_1m", _TWO_CLASSES, data, 1e-4, holdout, dtype)


@constructor
def ill_conditioned(
    *, n: int = 2_000, holdout: bool = True, dtype: DTypeLike = "float64"
) -> Workload:
    """Build an ill-conditioned linear regression on generated data.

    The option n is the number of training rows. Each row has 50 features. With the
    default options, the condition number of the Hessian is about 10,000, and R² at the
    optimum is about 0.95. `make_workload` explains `holdout` and `dtype`.
    """
    data = datasets.linear_problem(
        0, rows_for(n, holdout), 50, 0.5, 12_000.0
    )  # Standardising lowers the condition number.
    return _supervised("ill_conditioned", _REGRESSION, data, 0.0, holdout, dtype)


@constructor
def noisy_quadratic(
    *, n: int = 2_000, holdout: bool = True, dtype: DTypeLike = "float64"
) -> Workload:
    """Build the mean of ½ (x - x_i)ᵀH(x - x_i) over n training examples x_i.

    The params are the vector x of 100 entries, and H is a fixed matrix. The examples
    x_i are drawn from N(c, 0.36 I), where the centre c is a fixed draw from N(0, I).
    The minimiser is the mean of the x_i. H is symmetric and not diagonal. As in DeepOBS
    (Schneider et al. 2019), 90 of its 100 eigenvalues are drawn uniformly from [0, 1]
    and 10 from [30, 60]. Zhang et al. 2019 (arXiv 1907.04164) describe the effect of
    batch size on such problems.

    The field `x` of a batch has the examples x_i, and the field `y` has the numbers
    y_i = ½ x_iᵀHx_i. Let m be the mean of the x_i of the batch. The objective is
    computed as ½ (x - m)ᵀH(x - m) + mean(y_i) - ½ mᵀHm, where x are the params. For a
    batch of any size, this needs two products of a vector with a 100 by 100 matrix.
    `make_workload` explains `holdout` and `dtype`.
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
    """Return a bundled dataset with only the given features."""
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
    """Build a workload from data: split, standardise, and compute the optimum."""
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
    # With one thread, the result's bits do not depend on the number of cores, and its
    # time does not depend on other processes.
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
