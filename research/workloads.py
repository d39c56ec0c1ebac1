"""Named problems: data and its split, model, objective, metric, and the exact optimum to be measured against."""

import difflib
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from threadpoolctl import threadpool_limits

from research import datasets, losses, models, objectives, optima
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


_REGRESSION = _Task(models.linear, losses.squared_error, objectives.r_squared, "R²", optima.ridge, False)
_TWO_CLASSES = _Task(
    models.logistic, losses.logistic, objectives.accuracy, "accuracy", optima.logistic_regression, True
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
    if name not in WORKLOADS:
        nearest = difflib.get_close_matches(str(name), WORKLOADS, n=1, cutoff=0.0)[0]
        raise ValueError(f"Unknown workload {name!r}; did you mean {nearest!r}? There are: {', '.join(WORKLOADS)}.")
    return WORKLOADS[name](**options)


def _constructor(build: Callable[..., Workload]) -> Callable[..., Workload]:
    """Remembers what was built, for each dtype and option; the dtype is checked at every call."""
    remembered = functools.lru_cache(maxsize=4)(build)

    @functools.wraps(build)
    def construct(*, dtype: DTypeLike = "float64", **options: Any) -> Workload:
        with jax.ensure_compile_time_eval():  # Called under jit, it must not remember tracers.
            return remembered(dtype=_available(dtype), **options)

    return construct


@_constructor
def diabetes(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """Linear regression of disease progression on ten measurements, all standardised."""
    dataset = datasets.load("diabetes_raw")
    return _supervised("diabetes", _REGRESSION, dataset.x, dataset.y, 0.0, holdout, dtype, scale_targets=True)


@_constructor
def diabetes_ridge(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """The same with penalty 0.1, which lowers the condition number from 520 to 40."""
    dataset = datasets.load("diabetes_raw")
    return _supervised("diabetes_ridge", _REGRESSION, dataset.x, dataset.y, 0.1, holdout, dtype, scale_targets=True)


@_constructor
def diabetes_bmi(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """A line: disease progression, in its own units, on the standardised body mass index alone."""
    dataset = datasets.load("diabetes_raw")
    x = dataset.x[:, [dataset.feature_names.index("bmi")]]
    return _supervised("diabetes_bmi", _REGRESSION, x, dataset.y, 0.0, holdout, dtype)


@_constructor
def breast_cancer(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """Logistic regression: is a tumour benign (1) or malignant (0), from thirty measurements of its cells' nuclei."""
    dataset = datasets.load("breast_cancer")
    return _supervised("breast_cancer", _TWO_CLASSES, dataset.x, dataset.y, 0.01, holdout, dtype)


@_constructor
def breast_cancer_two_features(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """The same from two of them that draw well: the size and the dents of the largest nuclei."""
    dataset = datasets.load("breast_cancer")
    x = dataset.x[:, [dataset.feature_names.index(name) for name in ("worst radius", "worst concave points")]]
    return _supervised("breast_cancer_two_features", _TWO_CLASSES, x, dataset.y, 0.01, holdout, dtype)


@_constructor
def digits(*, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """Softmax regression: which of ten digits an 8 by 8 image shows."""
    dataset = datasets.load("digits")
    return _supervised("digits", _TEN_CLASSES, dataset.x, dataset.y, 0.01, holdout, dtype)


@_constructor
def overlapping_50k(*, n: int = 50_000, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """A large set: two Gaussian classes in 20 correlated dimensions (n training rows; Bayes accuracy 0.841)."""
    return _overlapping("overlapping_50k", n, 20, 200.0, holdout, dtype)


@_constructor
def overlapping_1m(*, n: int = 1_000_000, holdout: bool = True, dtype: DTypeLike = "float64") -> Workload:
    """A very large set: two Gaussian classes in 10 dimensions (n training rows; Bayes accuracy 0.841)."""
    return _overlapping("overlapping_1m", n, 10, 10.0, holdout, dtype)


@_constructor
def quadratic(*, dimension: int = 20, condition: float = 100.0, dtype: DTypeLike = "float64") -> Workload:
    """½ xᵀAx - bᵀx with eigenvalues geometric from 1 / condition to 1, started from N(0, I)."""
    _check_positive_integer("dimension", dimension)
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
        quadratic,
        rosenbrock,
    )
}


def _overlapping(name: str, n: int, d: int, condition: float, holdout: bool, dtype: DTypeLike) -> Workload:
    """Draws enough rows for n to be left for training."""
    _check_positive_integer("n", n)
    problem = datasets.overlapping_classes(0, math.ceil(n / 0.7) if holdout else n, d, 2.0, condition)
    return _supervised(name, _TWO_CLASSES, problem.x, problem.y, 1e-4, holdout, dtype)


def _supervised(
    name: str,
    task: _Task,
    x: np.ndarray,
    y: np.ndarray,
    penalty: float,
    holdout: bool,
    dtype: DTypeLike,
    scale_targets: bool = False,
) -> Workload:
    """Splits, standardises, and solves for the optimum of the data as they are in the given dtype."""
    datasets.check_xy(x, y)
    parts = datasets.split(x, y, SPLIT_SEED) if holdout else ((x, y),)
    inputs, targets = zip(*parts, strict=True)
    inputs = datasets.standardise(*inputs)
    if scale_targets:
        targets = datasets.standardise(*targets)
    target_dtype = jnp.int32 if task.has_labels else dtype
    batches = [Batch(jnp.asarray(a, dtype), jnp.asarray(b, target_dtype)) for a, b in zip(inputs, targets, strict=True)]
    train, validation, test = batches if holdout else (*batches, None, None)
    model = task.model(x.shape[1], dtype=dtype)
    objective: Callable[..., Array] = objectives.empirical_risk(model, task.loss)
    if penalty > 0:
        objective = objectives.regularised(objective, objectives.l2_penalty(penalty))
    with threadpool_limits(1, "blas"):  # Its bits then do not depend on the cores, nor its time on who else uses them.
        optimum = task.solve(np.asarray(train.x, np.float64), np.asarray(train.y, np.float64), penalty)
    optimum = optimum._replace(params=_cast(optimum.params, dtype))
    metric = task.metric(model)
    return Workload(name, train, validation, test, model.init, objective, metric, task.metric_name, model, optimum)


def _without_data(
    name: str, function: datasets.Function, centre: np.ndarray, spread: float, dtype: DTypeLike
) -> Workload:
    """A function as a workload: no batch, the initial point drawn around a centre."""
    start = jnp.asarray(centre, dtype)

    def init(key: Array) -> Array:
        return start + spread * jax.random.normal(key, start.shape, dtype)

    def objective(params: Params, batch: Batch | None = None) -> Array:
        del batch  # There is none.
        return function.f(params)

    norm, initial = (float(np.linalg.norm(function.gradient(x))) for x in (function.minimiser, np.zeros(len(centre))))
    minimiser = jnp.asarray(function.minimiser, dtype)
    optimum = Optimum(minimiser, function.minimum, norm, initial, "known from its construction")
    return Workload(name, None, None, None, init, objective, None, "", None, optimum)


def _check_positive_integer(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive integer; got {value!r}.")


def _cast(params: Params, dtype: DTypeLike) -> Params:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)


def _available(dtype: DTypeLike) -> np.dtype:
    """The dtype, once it is floating and JAX would not narrow it silently."""
    chosen = jnp.dtype(dtype)
    if not jnp.issubdtype(chosen, jnp.floating):
        raise TypeError(f"dtype must be floating; got {chosen}. Use 'float64', or 'float32' where that is enough.")
    if chosen == np.float64 and not jax.config.read("jax_enable_x64"):
        raise ValueError(
            "dtype float64 needs 64-bit arrays, which JAX has off. Add one line before the first array is made: "
            "research.backend.configure(x64=True). Or pass dtype='float32'."
        )
    return chosen
