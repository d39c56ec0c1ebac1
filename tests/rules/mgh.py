"""The problems of More, Garbow and Hillstrom as residuals in JAX, and what a rule does
on them beside scipy.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

FILE = Path(__file__).parents[1] / "reference/mgh.json"
CASES: dict[str, dict[str, Any]] = {
    case["name"]: case for case in json.loads(FILE.read_text("utf-8"))["cases"]
}


def rosenbrock(x):
    return jnp.stack([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])


def freudenstein_roth(x):
    a, b = x
    return jnp.stack(
        [-13.0 + a + ((5.0 - b) * b - 2.0) * b, -29.0 + a + ((b + 1.0) * b - 14.0) * b]
    )


def powell_badly_scaled(x):
    return jnp.stack(
        [1e4 * x[0] * x[1] - 1.0, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001]
    )


def brown_badly_scaled(x):
    return jnp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2.0])


def beale(x):
    y = np.array([1.5, 2.25, 2.625])
    return y - x[0] * (1.0 - x[1] ** np.arange(1, 4))


def jennrich_sampson(x):
    i = np.arange(1.0, 11.0)
    return 2.0 + 2.0 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1]))


def helical_valley(x):
    a, b, c = x
    theta = jnp.arctan(b / a) / (2.0 * np.pi) + jnp.where(a < 0, 0.5, 0.0)
    return jnp.stack(
        [10.0 * (c - 10.0 * theta), 10.0 * (jnp.sqrt(a**2 + b**2) - 1.0), c]
    )


def bard(x, y):
    u = np.arange(1.0, 16.0)
    v = 16.0 - u
    return y - (x[0] + u / (v * x[1] + np.minimum(u, v) * x[2]))


def gaussian(x, y):
    t = (8.0 - np.arange(1.0, 16.0)) / 2.0
    return x[0] * jnp.exp(-x[1] * (t - x[2]) ** 2 / 2.0) - y


def meyer(x, y):
    t = 45.0 + 5.0 * np.arange(1.0, 17.0)
    return x[0] * jnp.exp(x[1] / (t + x[2])) - y


def gulf_rd(x):
    t = np.arange(1.0, 100.0) / 100.0
    y = 25.0 + (-50.0 * np.log(t)) ** (2.0 / 3.0)
    return jnp.exp(-(jnp.abs(y - x[1]) ** x[2]) / x[0]) - t


def box_3d(x):
    t = np.arange(1.0, 11.0) / 10.0
    return (
        jnp.exp(-t * x[0])
        - jnp.exp(-t * x[1])
        - x[2] * (np.exp(-t) - np.exp(-10.0 * t))
    )


def powell_singular(x):
    a, b, c, d = x.reshape(-1, 4).T
    parts = [
        a + 10.0 * b,
        np.sqrt(5.0) * (c - d),
        (b - 2.0 * c) ** 2,
        np.sqrt(10.0) * (a - d) ** 2,
    ]
    return jnp.stack(parts, axis=1).ravel()


def wood(x):
    a, b, c, d = x
    return jnp.stack(
        [
            *(10.0 * (b - a**2), 1.0 - a, np.sqrt(90.0) * (d - c**2), 1.0 - c),
            *(np.sqrt(10.0) * (b + d - 2.0), (b - d) / np.sqrt(10.0)),
        ]
    )


def kowalik_osborne(x, y, u):
    return y - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def brown_dennis(x):
    t = np.arange(1.0, 21.0) / 5.0
    return (x[0] + t * x[1] - np.exp(t)) ** 2 + (
        x[2] + x[3] * np.sin(t) - np.cos(t)
    ) ** 2


def osborne_1(x, y):
    t = 10.0 * np.arange(33.0)
    return y - (x[0] + x[1] * jnp.exp(-t * x[3]) + x[2] * jnp.exp(-t * x[4]))


def biggs_exp6(x):
    t = np.arange(1.0, 14.0) / 10.0
    y = np.exp(-t) - 5.0 * np.exp(-10.0 * t) + 3.0 * np.exp(-4.0 * t)
    return (
        x[2] * jnp.exp(-t * x[0])
        - x[3] * jnp.exp(-t * x[1])
        + x[5] * jnp.exp(-t * x[4])
        - y
    )


def osborne_2(x, y):
    t = np.arange(65.0) / 10.0
    bumps = [x[k] * jnp.exp(-((t - x[k + 7]) ** 2) * x[k + 4]) for k in (1, 2, 3)]
    return y - (x[0] * jnp.exp(-t * x[4]) + bumps[0] + bumps[1] + bumps[2])


def watson(x):
    n = len(x)
    t = np.arange(1.0, 30.0)[:, None] / 29.0
    j = np.arange(n)
    slopes = j * t ** np.maximum(j - 1, 0)
    first = slopes @ x - (t**j @ x) ** 2 - 1.0
    return jnp.concatenate([first, jnp.stack([x[0], x[1] - x[0] ** 2 - 1.0])])


def extended_rosenbrock(x):
    a, b = x.reshape(-1, 2).T
    return jnp.stack([10.0 * (b - a**2), 1.0 - a], axis=1).ravel()


def penalty_1(x):
    return jnp.concatenate(
        [np.sqrt(1e-5) * (x - 1.0), jnp.sum(x**2, keepdims=True) - 0.25]
    )


def penalty_2(x):
    n = len(x)
    i = np.arange(2.0, n + 1.0)
    y = np.exp(i / 10.0) + np.exp((i - 1.0) / 10.0)
    steps = np.sqrt(1e-5) * (jnp.exp(x[1:] / 10.0) + jnp.exp(x[:-1] / 10.0) - y)
    sizes = np.sqrt(1e-5) * (jnp.exp(x[1:] / 10.0) - np.exp(-0.1))
    last = jnp.sum(np.arange(n, 0.0, -1.0) * x**2, keepdims=True) - 1.0
    return jnp.concatenate([x[:1] - 0.2, steps, sizes, last])


def variably_dimensioned(x):
    total = jnp.sum(np.arange(1.0, len(x) + 1.0) * (x - 1.0), keepdims=True)
    return jnp.concatenate([x - 1.0, total, total**2])


def trigonometric(x):
    n = len(x)
    return (
        n
        - jnp.sum(jnp.cos(x), keepdims=True)
        + np.arange(1.0, n + 1.0) * (1.0 - jnp.cos(x))
        - jnp.sin(x)
    )


def brown_almost_linear(x):
    n = len(x)
    return jnp.concatenate(
        [
            x[:-1] + jnp.sum(x, keepdims=True) - (n + 1.0),
            jnp.prod(x, keepdims=True) - 1.0,
        ]
    )


def discrete_boundary_value(x):
    h = 1.0 / (len(x) + 1.0)
    t = h * np.arange(1.0, len(x) + 1.0)
    padded = jnp.pad(x, 1)
    return 2.0 * x - padded[:-2] - padded[2:] + h**2 * (x + t + 1.0) ** 3 / 2.0


def discrete_integral_equation(x):
    h = 1.0 / (len(x) + 1.0)
    t = h * np.arange(1.0, len(x) + 1.0)
    until = np.tril(np.ones((len(x), len(x))))
    cubes = (x + t + 1.0) ** 3
    return (
        x
        + h
        * (
            (1.0 - t) * (until @ (t * cubes))
            + t * ((1.0 - until) @ ((1.0 - t) * cubes))
        )
        / 2.0
    )


def broyden_tridiagonal(x):
    padded = jnp.pad(x, 1)
    return (3.0 - 2.0 * x) * x - padded[:-2] - 2.0 * padded[2:] + 1.0


def broyden_banded(x):
    i = np.arange(len(x))
    apart = i[:, None] - i
    near = np.where((apart <= 5) & (apart >= -1) & (apart != 0), 1.0, 0.0)
    return x * (2.0 + 5.0 * x**2) + 1.0 - near @ (x * (1.0 + x))


def linear_full_rank(x, m=10):
    return jnp.pad(x, (0, m - len(x))) - 2.0 / m * jnp.sum(x, keepdims=True) - 1.0


def linear_rank1(x, m=10):
    return (
        np.arange(1.0, m + 1.0)
        * jnp.sum(np.arange(1.0, len(x) + 1.0) * x, keepdims=True)
        - 1.0
    )


def linear_rank1_zero(x, m=10):
    factors = np.concatenate([np.arange(m - 1.0), np.zeros(1)])
    return factors * jnp.sum(np.arange(2.0, len(x)) * x[1:-1], keepdims=True) - 1.0


def chebyquad(x):
    n = len(x)
    y = 2.0 * x - 1.0
    polynomials = [jnp.ones_like(y), y]
    for _ in range(n - 1):
        polynomials.append(2.0 * y * polynomials[-1] - polynomials[-2])
    integrals = np.array(
        [0.0 if i % 2 else -1.0 / (i**2 - 1.0) for i in range(1, n + 1)]
    )
    return jnp.stack([jnp.mean(p) for p in polynomials[1:]]) - integrals


OTHER_NAMES = {"extended_powell_n12": powell_singular}


def residuals_of(name: str) -> Callable[[jax.Array], jax.Array]:
    """x -> the residuals of the problem of that name, whose squares sum to its
    objective.
    """
    data = {key: np.array(values) for key, values in CASES[name]["data"].items()}
    family = name.split("_n")[0] if name.split("_n")[-1][:1].isdigit() else name
    function = OTHER_NAMES.get(name) or globals()[family]
    return lambda x: function(x, **data)


def objective_of(name: str) -> Callable[[jax.Array], jax.Array]:
    """x -> the sum of the squared residuals."""
    residuals = residuals_of(name)
    return lambda x: jnp.sum(residuals(x) ** 2)


class Run(NamedTuple):
    """What a rule did on a problem: the f that it reached, at what cost, how it ended,
    and which minimum that is.
    """

    f: float
    gradient_norm: float
    steps: int
    evaluations: int
    outcome: str
    minimum: str | None


def run(rule, name: str, tolerance: float = 1e-8, max_steps: int = 2000) -> Run:
    """Minimises a problem from its starting point."""
    from research.descent import Outcome, minimise

    start = jnp.asarray(CASES[name]["start"])
    found = minimise(
        objective_of(name), rule, start, tolerance=tolerance, max_steps=max_steps
    )
    f = float(found.value)
    return Run(
        f,
        float(found.gradient_norm),
        int(found.steps),
        int(found.evaluations),
        Outcome(int(found.outcome)).words,
        minimum_at(name, f),
    )


def minimum_at(name: str, f: float) -> str | None:
    """The type of the recorded point whose value f is, to four digits or within 1e-10;
    None if there is none.
    """
    for point in CASES[name]["minima"]:
        if (
            f - float(point["f"]) <= 1e-4 * abs(float(point["f"])) + 1e-10
            and f >= float(point["f"]) * (1 - 1e-9) - 1e-15
        ):
            return point["type"]
    return None
