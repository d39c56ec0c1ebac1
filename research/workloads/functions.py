"""Workloads without data: functions with a known minimum."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from research import datasets
from research.types import Array, Batch, Optimum, Params, Workload
from research.workloads._construction import check_size, constructor


@constructor
def quadratic(
    *, dimension: int = 20, condition: float = 100.0, dtype: DTypeLike = "float64"
) -> Workload:
    """Build the quadratic ½ xᵀAx - bᵀx, with initial points drawn from N(0, I).

    x has `dimension` entries. The eigenvalues of the matrix A are geometrically spaced
    from 1 / condition to 1, and the eigenvectors of A are a fixed random basis. The
    minimiser x* is a fixed draw from N(0, I), and b is A x*. `make_workload` explains
    the option dtype.
    """
    check_size("dimension", dimension)
    if not 1 <= condition < math.inf:
        raise ValueError(f"condition must be a finite number >= 1; got {condition!r}.")
    function = datasets.quadratic(0, np.geomspace(1.0 / condition, 1.0, dimension))
    return _without_data("quadratic", function, np.zeros(dimension), 1.0, dtype)


@constructor
def rosenbrock(*, dimension: int = 2, dtype: DTypeLike = "float64") -> Workload:
    """Build Rosenbrock's function, with initial points near (-1.2, 1, -1.2, ...).

    x has `dimension` entries, at least 2. The function is

        f(x) = Σ_i [100 (x_{i+1} - x_i²)² + (1 - x_i)²], with i = 1, ..., dimension - 1.

    In two dimensions, Rosenbrock's own initial point is (-1.2, 1). The initial point of
    a run is (-1.2, 1, -1.2, ...) plus normal noise with the standard deviation 0.1.
    `make_workload` explains the option dtype.
    """
    function = datasets.rosenbrock(dimension)
    centre = np.where(np.arange(dimension) % 2 == 0, -1.2, 1.0)
    return _without_data("rosenbrock", function, centre, 0.1, dtype)


def _without_data(
    name: str,
    function: datasets.Function,
    centre: np.ndarray,
    spread: float,
    dtype: DTypeLike,
) -> Workload:
    """Make a workload of a function: no data, initial point drawn around a centre."""
    start = jnp.asarray(centre, dtype)

    def init(key: Array) -> Array:
        return start + spread * jax.random.normal(key, start.shape, dtype)

    def objective(params: Params, batch: Batch | None = None) -> Array:
        del batch  # The function has no data.
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
