"""Problems for the verification of rules: functions, and sequences of gradients."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np

from research.types import Params
from research.verification.formula import Function
from research.verification.leaves import Leaf, Leaves

NUM_STEPS = 50


class Problem(NamedTuple):
    """A problem on which a rule and its reference are run.

    The problem is either a function to minimise (`objective`) or a given sequence of
    gradients (`gradients`).

    Attributes:
      name: Name of the problem in PROBLEMS.
      start: Initial point x_0, a pytree of float64 arrays that float32 represents
        exactly.
      objective: JAX function params -> number. None if the problem is a sequence of
        gradients.
      exact: Function without arguments that returns the objective as a new
        `formula.Function`, which computes with fifty digits. `exact` is called once for
        each run. None if there is no such function.
      gradients: Sequence of gradients, shaped like the start with a leading axis of
        length 50 (the constant NUM_STEPS). None if the problem has an objective.
      rate: Learning rate for rules whose steps are proportional to the gradient.
      rate_of_unit_steps: Learning rate for rules whose steps do not grow with the
        gradient, such as Adam.
      nan: Whether a gradient contains NaN. If so, rule and reference count as equal in
        an entry that is NaN in both of their trajectories.
    """

    name: str
    start: Params
    objective: Callable[[Params], jax.Array] | None = None
    exact: Callable[[], Function] | None = None
    gradients: Params | None = None
    rate: float = 0.1
    rate_of_unit_steps: float = 0.05
    nan: bool = False


A = np.array([[4.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 0.25]])
B = np.array([1.0, -2.0, 0.5])
INPUTS = np.array(
    [[0.5, -1.25], [1.5, 0.25], [-0.75, 2.0], [2.0, 1.0], [-1.5, -0.5], [0.25, 0.75]]
)
LABELS = np.array([0, 1, 2, 1, 0, 2])
PENALTY = 0.01


def _quadratic() -> Problem:
    """Return the problem ½ xᵀAx - bᵀx."""

    def exact() -> Function:
        def product(x: Leaf):
            return np.array(
                [sum(a * e for a, e in zip(row, x, strict=True)) for row in A.tolist()],
                object,
            )

        def gradient(x: Leaves):
            return Leaves([product(x.arrays[0]) - B])

        def value(x: Leaves):
            return mpmath.fsum(x.arrays[0] * (product(x.arrays[0]) / 2 - B))

        return Function(gradient, value, lambda x: mpmath.matrix(A.tolist()))

    return Problem(
        "quadratic",
        np.array([1.0, -2.0, 3.0]),
        lambda x: 0.5 * x @ A.astype(x.dtype) @ x - B.astype(x.dtype) @ x,
        exact,
    )


def _rosenbrock() -> Problem:
    """Return the problem (1 - x1)² + 100 (x2 - x1²)²."""

    def exact() -> Function:
        def gradient(x: Leaves):
            a, b = x.arrays[0]
            return Leaves([[-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)]])

        def value(x: Leaves):
            a, b = x.arrays[0]
            return (1 - a) ** 2 + 100 * (b - a * a) ** 2

        def hessian(x: Leaves):
            a, b = x.arrays[0]
            return mpmath.matrix(
                [[2 - 400 * b + 1200 * a * a, -400 * a], [-400 * a, 200]]
            )

        return Function(gradient, value, hessian)

    def objective(x: jax.Array):
        return (1.0 - x[0]) ** 2 + 100.0 * (x[1] - x[0] ** 2) ** 2

    return Problem(
        "rosenbrock",
        np.array([-1.25, 1.0]),
        objective,
        exact,
        rate=1e-4,
        rate_of_unit_steps=0.02,
    )


def _softmax_regression() -> Problem:
    """Return softmax regression on six rows, with an L2 penalty.

    The objective is the mean of -log softmax(X W + b)[y], plus 0.005 (|W|² + |b|²).
    """
    one_hot = np.eye(3)[LABELS]

    def exact() -> Function:
        exponential = np.frompyfunc(mpmath.exp, 1, 1)

        def probabilities(x: Leaves):
            powers = np.asarray(
                exponential(INPUTS.astype(object) @ x.arrays[0] + x.arrays[1])
            )
            return powers / powers.sum(axis=1, keepdims=True)

        def gradient(x: Leaves):
            residual = (probabilities(x) - one_hot) / len(LABELS)
            decay = [mpmath.mpf(PENALTY) * a for a in x.arrays]
            return Leaves(
                [
                    INPUTS.T.astype(object) @ residual + decay[0],
                    residual.sum(axis=0) + decay[1],
                ]
            )

        def value(x: Leaves):
            likely = probabilities(x)[np.arange(len(LABELS)), LABELS]
            size = mpmath.fsum(e * e for a in x.arrays for e in a.flat)
            return (
                -mpmath.fsum(mpmath.log(p) for p in likely) / len(LABELS)
                + mpmath.mpf(PENALTY) * size / 2
            )

        def hessian(x: Leaves):
            rows = np.hstack([INPUTS, np.ones((len(LABELS), 1))]).astype(
                object
            )  # The intercept is a third input.
            curvature = mpmath.mpf(PENALTY) * np.eye(9).astype(object)
            for row, p in zip(rows, probabilities(x), strict=True):
                spread = np.diag(p) - np.outer(p, p)
                curvature = curvature + np.kron(np.outer(row, row), spread) / len(
                    LABELS
                )
            return mpmath.matrix(curvature.tolist())

        return Function(gradient, value, hessian)

    def objective(x: Any):
        w, b = x
        log_p = jax.nn.log_softmax(INPUTS.astype(w.dtype) @ w + b[None])
        return -jnp.mean(log_p[np.arange(len(LABELS)), LABELS]) + 0.5 * PENALTY * (
            jnp.sum(w**2) + jnp.sum(b**2)
        )

    start = [
        np.array([[0.25, -0.5, 0.125], [-0.375, 0.0625, 0.5]]),
        np.array([0.125, -0.25, 0.5]),
    ]
    return Problem(
        "softmax_regression", start, objective, exact, rate=0.5, rate_of_unit_steps=0.1
    )


def _given(
    name: str,
    seed: int,
    change: Callable[[np.random.Generator, np.ndarray], np.ndarray],
    **options: Any,
) -> Problem:
    """Return a problem of random gradients, changed leaf by leaf by `change`.

    The pytree has a matrix, a vector, a scalar and an empty leaf.
    """
    rng = np.random.default_rng(seed)
    shapes = {"dense": {"w": (3, 2), "b": (3,)}, "scale": (), "empty": (0,)}
    draw = functools.partial(jax.tree.map, is_leaf=lambda s: isinstance(s, tuple))
    start = draw(lambda s: _short(rng.standard_normal(s)), shapes)
    gradients = draw(
        lambda s: _short(change(rng, rng.standard_normal((NUM_STEPS, *s)))), shapes
    )
    return Problem(name, start, gradients=gradients, **options)


def _short(a: np.ndarray) -> np.ndarray:
    """Round to float32 and return float64.

    Runs in float32 and in float64 then start from the same numbers.
    """
    return np.asarray(a, np.float32).astype(np.float64)


def _nan_once(rng: np.random.Generator, a: np.ndarray) -> np.ndarray:
    if a.ndim == 3:  # In one entry of the matrix, at the fourth step.
        a[3, 1, 0] = np.nan
    return a


PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        _quadratic(),
        _rosenbrock(),
        _softmax_regression(),
        _given(
            "random_pytree", 1, lambda rng, a: a * np.exp(rng.uniform(-3, 3, a.shape))
        ),
        _given("sparse_gradients", 2, lambda rng, a: a * (rng.random(a.shape) < 0.15)),
        _given(
            "scales", 3, lambda rng, a: a * np.exp(rng.uniform(-30, 30, a.shape[1:]))
        ),
        _given("zero_gradient", 4, lambda rng, a: 0.0 * a),
        _given("nan_gradient", 5, _nan_once, nan=True),
    )
}
# Names of the problems that are sequences of gradients.
GIVEN = tuple(name for name, one in PROBLEMS.items() if one.objective is None)
