"""Define the problems on which minimisers are compared.

They are Rosenbrock's function, logistic regression, curves of NIST, and problems of
More, Garbow and Hillstrom.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from benchmarks.problems import REGIMES, make_problem

NIST = Path(__file__).parent.parent / "tests/reference/nist_nonlinear.json"


class Case(NamedTuple):
    """A problem.

    Attributes:
      name: As the table shows it.
      start: x_0, float64, shape (n,).
      objective: x -> ().
      residuals: x -> (m,), whose half sum of squares the objective is, for rules of
        least squares; or None.
      is_large: Whether only L-BFGS is compared, because others need an n x n matrix.
    """

    name: str
    start: Any
    objective: Callable[[Any], Any]
    residuals: Callable[[Any], Any] | None = None
    is_large: bool = False


def rosenbrock(x: jax.Array):
    """Return the sum over i of 100 (x_(i+1) - x_i²)² + (1 - x_i)².

    Its minimum is 0, where all x_i are 1.
    """
    return jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def beale(x: jax.Array):
    """Return the residuals of More, Garbow & Hillstrom's problem 5.

    The minimum is 0, at (3, 0.5).
    """
    return jnp.array([1.5, 2.25, 2.625]) - x[0] * (1.0 - x[1] ** jnp.arange(1, 4))


def wood(x: jax.Array):
    """Return the residuals of problem 14; the minimum is 0, where all x_i are 1."""
    a, b, c, d = x
    last = ((b + d - 2.0) * 10**0.5, (b - d) / 10**0.5)
    return jnp.stack([10.0 * (b - a**2), 1.0 - a, 90**0.5 * (d - c**2), 1.0 - c, *last])


def brown_dennis(x: jax.Array):
    """Return the residuals of problem 16, which are large at the minimum."""
    t = jnp.arange(1, 21) / 5
    return (x[0] + t * x[1] - jnp.exp(t)) ** 2 + (
        x[2] + x[3] * jnp.sin(t) - jnp.cos(t)
    ) ** 2


def extended_rosenbrock(x: jax.Array):
    """Return the residuals of problem 21; the minimum is 0, where all x_i are 1."""
    first, second = x[::2], x[1::2]
    return jnp.concatenate([10.0 * (second - first**2), 1.0 - first])


def broyden_tridiagonal(x: jax.Array):
    """Return the residuals of problem 30; the minimum is 0."""
    left, right = jnp.append(0.0, x[:-1]), jnp.append(x[1:], 0.0)
    return (3.0 - 2.0 * x) * x - left - 2.0 * right + 1.0


CURVES = {  # By NIST's name: (b, x) -> y.
    "Misra1a": lambda b, x: b[0] * (1.0 - jnp.exp(-b[1] * x)),
    "Thurber": lambda b, x: (
        (b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3)
        / (1.0 + b[4] * x + b[5] * x**2 + b[6] * x**3)
    ),
    "Rat43": lambda b, x: b[0] / (1.0 + jnp.exp(b[1] - b[2] * x)) ** (1.0 / b[3]),
    "MGH10": lambda b, x: b[0] * jnp.exp(b[1] / (x + b[2])),
    "Gauss3": lambda b, x: (
        b[0] * jnp.exp(-b[1] * x)
        + b[2] * jnp.exp(-((x - b[3]) ** 2) / b[4] ** 2)
        + b[5] * jnp.exp(-((x - b[6]) ** 2) / b[7] ** 2)
    ),
}
LARGE = (10_000, 100_000)  # Numbers of variables of two further problems.
NIST_START = 1  # The nearer of the two that NIST gives.


def of_squares(name: str, start: Any, residuals: Callable[[Any], Any]) -> Case:
    """Return the case of a sum of squares."""
    return Case(
        name,
        jnp.asarray(start, float),
        lambda x: 0.5 * jnp.sum(residuals(x) ** 2),
        residuals,
    )


def _curve(case: dict[str, Any]) -> Case:
    x, y = (np.array(case[column]).ravel() for column in ("x", "y"))
    model = CURVES[case["name"]]
    return of_squares(
        f"NIST {case['name']}", case["starts"][NIST_START], lambda b: model(b, x) - y
    )


def _logistic() -> Case:
    problem = make_problem("logistic", REGIMES[0], quick=True)
    start, unravel = ravel_pytree(problem.params)
    objective, train = problem.workload.objective, problem.workload.train
    return Case(
        "logistic, breast_cancer", start, lambda z: objective(unravel(z), train)
    )


def make_cases() -> list[Case]:
    """Return all problems; the first is the smallest."""
    cases = [
        Case(f"rosenbrock_{n}", jnp.tile(jnp.array([-1.2, 1.0]), n // 2), rosenbrock)
        for n in (2, 100)
    ]
    cases.append(_logistic())
    squares = (
        ("beale", [1.0, 1.0], beale),
        ("wood", [-3.0, -1.0, -3.0, -1.0], wood),
        ("brown_dennis", [25.0, 5.0, -5.0, 1.0], brown_dennis),
        ("broyden_tridiagonal_10", [-1.0] * 10, broyden_tridiagonal),
    )
    for name, start, residuals in squares:
        case = of_squares(f"MGH {name}", start, residuals)
        cases += [
            case._replace(residuals=None),
            case._replace(name=f"{case.name}, squares"),
        ]
    for n in LARGE:
        start = np.tile([-1.2, 1.0], n // 2)
        case = of_squares(f"MGH extended_rosenbrock_{n}", start, extended_rosenbrock)
        cases.append(case._replace(residuals=None, is_large=True))
    published = {
        case["name"]: case for case in json.loads(NIST.read_text("utf-8"))["cases"]
    }
    return cases + [_curve(published[name]) for name in CURVES]
