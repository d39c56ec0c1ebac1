"""Named problems: data and its split, model, objective, metric, and the exact optimum to be measured against."""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from threadpoolctl import threadpool_limits

from research import datasets, losses, models, objectives, optima
from research.checks import (
    check_count,
    check_flag,
    check_instance,
    check_number,
    is_array,
    shown,
)
from research.naming import known_names
from research.sizes import check_most, check_room
from research.types import Array, Batch, Model, Optimum, Params, Workload

SPLIT_SEED = 0  # The split belongs to the workload; a run's seed chooses its initial point and order.


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


def make_workload(name: str, **options: Any) -> Workload:
    """Builds a named workload; the same name and options give the same object, solved once in a process.

    | name | model, loss | training rows, features | penalty |
    |---|---|---|---|
    | diabetes | linear, squared error; x and y standardised | 309, 10 | none |
    | diabetes_ridge | the same | 309, 10 | 0.1 |
    | diabetes_bmi | linear, squared error; y in its own units | 309, 1 (body mass index) | none |
    | breast_cancer | logistic | 398, 30 | 0.01 |
    | breast_cancer_two_features | logistic | 398, 2 (worst radius, worst concave points) | 0.01 |
    | digits | softmax, 10 classes | 1257, 64 | 0.01 |
    | overlapping_50k | logistic; Gaussian classes, correlated features | 50,000, 20 | 0.0001 |
    | overlapping_1m | the same | 1,000,000, 10 | 0.0001 |
    | ill_conditioned | linear, squared error; generated, condition number 10,000 | 2,000, 50 | none |
    | noisy_quadratic | ½ (x - x_i)ᵀH(x - x_i); 10 of 100 directions of H are steep | 2,000, 100 | none |
    | quadratic | 20 variables, eigenvalues 0.01 to 1 | - | - |
    | rosenbrock | 2 variables | - | - |

    Rows are split 70/15/15 with seed 0, and x is standardised on the training part. A penalty λ adds λ/2 |w|² to the
    objective, intercepts left out. The optimum is that of the objective on the training part.

    Args:
      name: One of `WORKLOADS`.
      **options: For that constructor. All take dtype ("float64" by default); those with data take holdout (False
        trains on all rows: validation and test are then None); some take a size, as their signatures say.
    Returns:
      The workload; its arrays have the given dtype, labels int32.
    Raises:
      ValueError: The name is unknown (the message says which is nearest), or float64 is asked for while JAX has it off.
      TypeError: dtype is not floating, or the constructor has no such option.
    Example:
      >>> from research import backend
      >>> backend.configure(x64=True)
      >>> workload = make_workload("breast_cancer")
      >>> workload.train.x.shape, f"{workload.optimum.value:.4f}"
      ((398, 30), '0.0947')
    """
    if not isinstance(name, str) or name not in WORKLOADS:
        raise ValueError(
            f"unknown workload {name!r}{known_names(name, WORKLOADS)} Give its name."
        )
    return WORKLOADS[name](**options)


def _constructor(build: Callable[..., Workload]) -> Callable[..., Workload]:
    """Remembers what was built, for each dtype and option; the dtype is checked at every call."""
    remembered = functools.lru_cache(maxsize=4)(build)

    @functools.wraps(build)
    def construct(*, dtype: DTypeLike = "float64", **options: Any) -> Workload:
        _check_options(options)
        with (
            jax.ensure_compile_time_eval()
        ):  # Called under jit, it must not remember tracers.
            return remembered(dtype=_available(dtype), **options)

    return construct


@_constructor
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


@_constructor
def diabetes_ridge(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """The same with penalty 0.1, which lowers the condition number from 520 to 40."""
    data = datasets.load("diabetes_raw")
    return _supervised(
        "diabetes_ridge", _REGRESSION, data, 0.1, holdout, dtype, scale_targets=True
    )


@_constructor
def diabetes_bmi(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """A line: disease progression, in its own units, on the standardised body mass index alone."""
    return _supervised(
        "diabetes_bmi", _REGRESSION, _only("diabetes_raw", "bmi"), 0.0, holdout, dtype
    )


@_constructor
def breast_cancer(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """Logistic regression: is a tumour benign (1) or malignant (0), from thirty measurements of its cells' nuclei."""
    return _supervised(
        "breast_cancer",
        _TWO_CLASSES,
        datasets.load("breast_cancer"),
        0.01,
        holdout,
        dtype,
    )


@_constructor
def breast_cancer_two_features(
    *, holdout: bool = True, dtype: DTypeLike = "float64"
) -> Workload:
    """The same from two of them that draw well: the size and the dents of the largest nuclei."""
    data = _only("breast_cancer", "worst radius", "worst concave points")
    return _supervised(
        "breast_cancer_two_features", _TWO_CLASSES, data, 0.01, holdout, dtype
    )


@_constructor
def digits(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """Softmax regression: which of ten digits an 8 by 8 image shows."""
    return _supervised(
        "digits", _TEN_CLASSES, datasets.load("digits"), 0.01, holdout, dtype
    )


@_constructor
def overlapping_50k(
    *, n: int = 50_000, holdout: bool = True, dtype: DTypeLike = "float64"
) -> Workload:
    """A large set: two Gaussian classes in 20 correlated dimensions (n training rows; Bayes accuracy 0.841)."""
    data = datasets.overlapping_classes(0, _rows(n, holdout), 20, 2.0, 200.0)
    return _supervised("overlapping_50k", _TWO_CLASSES, data, 1e-4, holdout, dtype)


@_constructor
def overlapping_1m(
    *, n: int = 1_000_000, holdout: bool = True, dtype: DTypeLike = "float64"
) -> Workload:
    """A very large set: two Gaussian classes in 10 dimensions (n training rows; Bayes accuracy 0.841)."""
    data = datasets.overlapping_classes(0, _rows(n, holdout), 10, 2.0, 10.0)
    return _supervised("overlapping_1m", _TWO_CLASSES, data, 1e-4, holdout, dtype)


@_constructor
def ill_conditioned(
    *, n: int = 2_000, holdout: bool = True, dtype: DTypeLike = "float64"
) -> Workload:
    """Linear regression in a long valley: generated, R² 0.95, with a condition number of 10,000 once standardised."""
    data = datasets.linear_problem(
        0, _rows(n, holdout), 50, 0.5, 12_000.0
    )  # Standardising brings it down.
    return _supervised("ill_conditioned", _REGRESSION, data, 0.0, holdout, dtype)


@_constructor
def noisy_quadratic(
    *, n: int = 2_000, holdout: bool = True, dtype: DTypeLike = "float64"
) -> Workload:
    """The mean of ½ (x - x_i)ᵀH(x - x_i) over n examples x_i ~ N(c, 0.36 I), least at their mean; H is not diagonal.

    Of H's 100 eigenvalues 90 are drawn from [0, 1] and 10 from [30, 60], as in DeepOBS (Schneider et al. 2019). Zhang
    et al. 2019 (arXiv 1907.04164) say what batch size does on such problems. A batch's x are x_i, its y ½ x_iᵀHx_i: a
    batch then costs one product with H, in the form ½ (x - m)ᵀH(x - m) + mean of y - ½ mᵀHm, m the mean of its x_i.
    """
    random = np.random.default_rng(0)
    eigenvalues = np.concatenate([random.uniform(0, 1, 90), random.uniform(30, 60, 10)])
    x = random.standard_normal(100) + 0.6 * random.standard_normal(
        (_rows(n, holdout), 100)
    )
    with threadpool_limits(1, "blas"):
        root = np.linalg.qr(random.standard_normal((100, 100)))[0] * np.sqrt(
            eigenvalues
        )  # H = root rootᵀ.
        y = 0.5 * np.sum((x @ root) ** 2, axis=1)
        train, validation, test = _batches(
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


@_constructor
def quadratic(
    *, dimension: int = 20, condition: float = 100.0, dtype: DTypeLike = "float64"
) -> Workload:
    """½ xᵀAx - bᵀx with eigenvalues geometric from 1 / condition to 1, started from N(0, I)."""
    _check_size("dimension", dimension)
    if not 1 <= condition < math.inf:
        raise ValueError(f"condition must be a finite number >= 1; got {condition!r}.")
    function = datasets.quadratic(0, np.geomspace(1.0 / condition, 1.0, dimension))
    return _without_data("quadratic", function, np.zeros(dimension), 1.0, dtype)


@_constructor
def rosenbrock(*, dimension: int = 2, dtype: DTypeLike = "float64") -> Workload:
    """Rosenbrock's curved valley, started near his own point, (-1.2, 1, -1.2, ...) + 0.1 N(0, I)."""
    function = datasets.rosenbrock(dimension)
    centre = np.where(np.arange(dimension) % 2 == 0, -1.2, 1.0)
    return _without_data("rosenbrock", function, centre, 0.1, dtype)


WORKLOADS: dict[str, Callable[..., Workload]] = {
    constructor.__name__: constructor
    for constructor in (
        diabetes,
        diabetes_ridge,
        diabetes_bmi,
        breast_cancer,
        breast_cancer_two_features,
        digits,
        overlapping_50k,
        overlapping_1m,
        ill_conditioned,
        noisy_quadratic,
        quadratic,
        rosenbrock,
    )
}


def _only(name: str, *features: str) -> datasets.Dataset:
    """A bundled set with some of its columns."""
    data = datasets.load(name)
    return data._replace(
        x=data.x[:, [data.feature_names.index(feature) for feature in features]]
    )


def _rows(n: int, holdout: bool) -> int:
    """Enough rows for n to be left for training."""
    _check_size("n", n, 100)
    return math.ceil(n / 0.7) if holdout else n


def _batches(
    parts: Iterable[Any], dtype: DTypeLike, target_dtype: DTypeLike
) -> tuple[Any, ...]:
    """Training, validation and test part; the last two are None where there is one part."""
    batches = (
        Batch(jnp.asarray(x, dtype), jnp.asarray(y, target_dtype)) for x, y in parts
    )
    return (*batches, None, None)[:3]


def _supervised(
    name: str,
    task: _Task,
    data: Any,
    penalty: float,
    holdout: bool,
    dtype: DTypeLike,
    scale_targets: bool = False,
) -> Workload:
    """Splits, standardises, and solves for the optimum of the data as they are in the given dtype."""
    datasets.check_xy(data.x, data.y)
    parts = (
        datasets.split(data.x, data.y, SPLIT_SEED) if holdout else ((data.x, data.y),)
    )
    inputs, targets = zip(*parts, strict=True)
    inputs = datasets.standardise(*inputs)
    if scale_targets:
        targets = datasets.standardise(*targets)
    target_dtype = jnp.int32 if task.has_labels else dtype
    train, validation, test = _batches(
        zip(inputs, targets, strict=True), dtype, target_dtype
    )
    model = task.model(train.x.shape[1], dtype=dtype)
    objective: Callable[..., Array] = objectives.empirical_risk(model, task.loss)
    if penalty > 0:
        objective = objectives.regularised(objective, objectives.l2_penalty(penalty))
    with threadpool_limits(
        1, "blas"
    ):  # Its bits then do not depend on the cores, nor its time on who else uses them.
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


def _without_data(
    name: str,
    function: datasets.Function,
    centre: np.ndarray,
    spread: float,
    dtype: DTypeLike,
) -> Workload:
    """A function as a workload: no batch, the initial point drawn around a centre."""
    start = jnp.asarray(centre, dtype)

    def init(key: Array) -> Array:
        return start + spread * jax.random.normal(key, start.shape, dtype)

    def objective(params: Params, batch: Batch | None = None) -> Array:
        del batch  # There is none.
        return function.f(params)

    norm, initial = (
        float(np.linalg.norm(function.gradient(x)))
        for x in (function.minimiser, np.zeros(len(centre)))
    )
    minimiser = jnp.asarray(function.minimiser, dtype)
    optimum = Optimum(
        minimiser, function.minimum, norm, initial, "known from its construction"
    )
    return Workload(name, None, None, None, init, objective, None, "", None, optimum)


def _check_options(options: dict[str, Any]) -> None:
    """Before they are looked up among what was built, which asks that they can be hashed."""
    for name, value in options.items():
        if name == "holdout":
            check_flag(name, value)
        elif name in ("n", "dimension"):
            check_count(name, value)
            options[name] = int(value)
        elif name == "condition":
            check_number(name, value, positive=True)


def _check_size(name: str, value: Any, entries: int = 1) -> None:
    """Refuses what is not a positive integer, or asks for more than memory can hold."""
    check_count(name, value)
    check_most(**{name: value})
    check_room(f"{name}={value}", value, entries)


def _available(dtype: DTypeLike) -> np.dtype:
    """The dtype, once it is floating and JAX would not narrow it silently."""
    if (
        dtype is None
        or is_array(dtype)
        or not (isinstance(dtype, str | type | np.dtype) or hasattr(dtype, "dtype"))
    ):
        raise TypeError(
            f"dtype must be the name or type of a floating dtype; got dtype={shown(dtype)}."
        )
    try:
        chosen = jnp.dtype(dtype)
    except TypeError:
        raise TypeError(
            f"dtype must be the name or type of a floating dtype; got dtype={shown(dtype)}."
        ) from None
    if not jnp.issubdtype(chosen, jnp.floating):
        raise TypeError(
            f"dtype must be floating; got {chosen}. Use 'float64', or 'float32' where that is enough."
        )
    if chosen == np.float64 and not jax.config.read("jax_enable_x64"):
        raise ValueError(
            "dtype float64 needs 64-bit arrays, which JAX has off. Add one line before the first array is made: "
            "research.backend.configure(x64=True). Or pass dtype='float32'."
        )
    return chosen


def known_optimum(workload: Workload) -> Optimum:
    """Return the workload's optimum, which a share of f - f* is measured from.

    Args:
      workload: A named problem.
    Returns:
      The optimum.
    Raises:
      TypeError: It is not a Workload.
      ValueError: It has none with a finite value; the message says how to state one.
    """
    check_instance("workload", workload, Workload, "Make one by make_workload(name).")
    optimum = workload.optimum
    if optimum is None or not math.isfinite(optimum.value):
        raise ValueError(
            f"workload {workload.name!r} has no known optimum (optimum={optimum!r:.60}), so there is no share of f - f* to come "
            "down to. Solve it and give workload._replace(optimum=research.types.Optimum(params, value, gradient_norm, "
            "initial_gradient_norm, solver)); research.optima and research.descent.minimise find optima."
        )
    return optimum
