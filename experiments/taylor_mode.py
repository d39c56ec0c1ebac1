"""How does the cost of a derivative grow with its order?

A derivative of a derivative at least doubles the work, so n nested derivatives cost at
least about 2^n times the function. Taylor mode evaluates the function once, on series
instead of numbers. For most functions, its cost grows at most like n².

    python experiments/taylor_mode.py            # about two minutes

All derivatives up to order n along one direction are computed in three ways: by
`research.derivatives.taylor`, by nested `jax.jvp`, and by `jax.experimental.jet` where
it has rules. Then a pendulum is integrated by the Taylor series of its motion: after a
period it must be where it started. The period is known from an elliptic integral.

Expected numbers (`EXPECTED`): the largest relative error of a coefficient up to order
10, from arithmetic of 50 digits; the largest difference from nested derivatives; the
factor by which the operations grow, in Taylor mode from order 5 to 10, and with nested
derivatives from order 3 to 6; the slope of log(error) against log(steps) of the
pendulum for the series of order 8; and the error of the series of order 12 with 64
steps in a period.
"""

import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import research

EXPECTED = {
    "error": (0.0, 1e-13),
    "difference_from_nested": (0.0, 1e-10),
    "growth_of_taylor": (1.5, 4.5),
    "growth_of_nested": (4.0, 40.0),
    "pendulum_slope": (-12.0, -7.5),
    "pendulum_error": (0.0, 1e-12),
}
TIMES_COMPILATION = True  # So compiled programs are not kept on disk.


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    order: int = 10
    """Largest order in Taylor mode, at least 2."""
    nested: int = 6
    """Largest number of nested derivatives, at least 2."""
    width: int = 32
    """Width of the networks."""
    repeats: int = 15
    """Number of times that each program is timed."""
    seed: int = 0
    """Seed of the weights."""


FULL = Config(order=16, nested=7, repeats=51)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import scipy.special
from jax.experimental.jet import jet

from research.checks import check_count
from research.cli.progress import OnProgress
from research.types import Checkpoints

TAYLOR, NESTED, JET = "taylor", "nested jvp", "jet"
TIMED = (2, 4, 6, 10)  # Orders that are compiled and timed.
SWING = 2.0  # Largest angle of the pendulum, in radians.
ORDERS = (2, 4, 8, 12)  # Orders of the series of the pendulum.
STEPS = (8, 16, 32, 64, 128)  # Steps in a period of the pendulum.


class Curve(NamedTuple):
    """A function, a point and a direction."""

    f: Callable[[Any], jax.Array]
    x: jax.Array
    v: jax.Array


def curves(config: Config) -> dict[str, Curve]:
    """Return the functions that are differentiated."""
    random, n = np.random.default_rng(config.seed), config.width
    normal = lambda *shape: jnp.asarray(random.normal(size=shape))
    weights = [normal(n, n) / np.sqrt(n) for _ in range(3)]
    inputs = normal(50, n)

    def network(x: jax.Array) -> jax.Array:
        for w in weights:
            x = jnp.tanh(w @ x)
        return jnp.sum(x)

    def recurrent(x: jax.Array) -> jax.Array:
        step = lambda h, row: (jnp.tanh(weights[0] @ h + row), None)
        return jnp.sum(jax.lax.scan(step, x, inputs)[0])

    one = jnp.asarray(1.0)
    return {
        "scalar": Curve(
            lambda x: jnp.tanh(jnp.sin(x) * jnp.exp(-(x**2) / 4)), 0.7 * one, one
        ),
        "tangent": Curve(lambda x: jnp.tan(x) * jnp.arctan(x), 0.7 * one, one),
        "network": Curve(network, normal(n), normal(n)),
        "recurrent network": Curve(recurrent, normal(n), normal(n)),
    }


EXACT: dict[str, Callable[[Any], Any]] = {
    "scalar": lambda x: mpmath.tanh(mpmath.sin(x) * mpmath.exp(-(x**2) / 4)),
    "tangent": lambda x: mpmath.tan(x) * mpmath.atan(x),
}


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Count and time the derivatives of each function, and swing the pendulum."""
    del checkpoints  # The experiment takes two minutes, so no checkpoint is saved.
    for field, least in (("order", 2), ("nested", 2), ("width", 1), ("repeats", 1)):
        check_count(field, getattr(config, field), least=least)
    asked, found, arrays = curves(config), {}, {}
    for done, (name, curve) in enumerate(asked.items()):
        if on_progress:
            on_progress(done, len(asked) + 1, name)
        found[name], counts = _examined(curve, config)
        arrays |= {f"{name}/{way}": count for way, count in counts.items()}
    if on_progress:
        on_progress(len(asked), len(asked) + 1, "pendulum")
    arrays["pendulum"] = _pendulum()
    errors = np.log(arrays["pendulum"][ORDERS.index(8), :3])
    numbers = {
        "functions": found,
        "error": max(_error(asked[name], exact) for name, exact in EXACT.items()),
        "difference_from_nested": max(part["difference"] for part in found.values()),
        "growth_of_taylor": _growth(arrays, TAYLOR, asked, config.order),
        "growth_of_nested": _growth(arrays, NESTED, asked, config.nested),
        "pendulum_slope": float((errors[-1] - errors[0]) / np.log(4)),
        "pendulum_error": float(arrays["pendulum"][-1, STEPS.index(64)]),
    }
    return research.runs.Findings(arrays, numbers)


def derivatives(way: str, curve: Curve, order: int) -> Callable[[Any], Any]:
    """Return x -> the Taylor coefficients along the direction, in one of the ways."""
    if way == TAYLOR:
        return lambda x: research.derivatives.taylor(curve.f, x, curve.v, order)
    if way == JET:
        series = [curve.v, *[jnp.zeros_like(curve.v)] * (order - 1)]
        return lambda x: jet(curve.f, (x,), (series,))

    def nested(x: Any) -> list[Any]:
        along = [curve.f]
        for _ in range(order):
            along.append(lambda y, g=along[-1]: jax.jvp(g, (y,), (curve.v,))[1])
        return [g(x) for g in along]

    return nested


def _examined(
    curve: Curve, config: Config
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return seconds of each way, and operations at each order, relative to f."""
    own = research.derivatives.counted_cost(curve.f, curve.x).operations
    counts, calls, compiled = {}, {"f": lambda: plain(curve.x)}, {}
    plain = jax.jit(curve.f)
    for way, largest in (
        (TAYLOR, config.order),
        (NESTED, config.nested),
        (JET, config.order),
    ):
        counts[way] = np.full(max(config.order, config.nested) + 1, np.nan)
        for order in range(1, largest + 1):
            f = derivatives(way, curve, order)
            try:
                count = research.derivatives.counted_cost(f, curve.x)
            except (KeyError, NotImplementedError, TypeError, ValueError):
                break  # jet has no rule for an operation of f.
            counts[way][order] = count.operations / own
            if order in TIMED:
                began = time.perf_counter()
                program = jax.jit(f).lower(curve.x).compile()
                compiled[f"{way}/{order}"] = time.perf_counter() - began
                calls[f"{way}/{order}"] = lambda p=program: p(curve.x)
    seconds = research.tuning.interleaved_timing(list(calls.values()), config.repeats)
    ratios = np.median(seconds / seconds[:, :1], axis=0)
    return {
        "works": {way: bool(np.isfinite(c[1])) for way, c in counts.items()},
        "difference": _difference(curve, min(config.nested, config.order)),
        "compile_seconds": compiled,
        "ratio_of_seconds": dict(zip(calls, map(float, ratios), strict=True)),
    }, counts


def _difference(curve: Curve, order: int) -> float:
    """Return the largest relative difference from nested derivatives."""
    ours = np.asarray(jax.jit(derivatives(TAYLOR, curve, order))(curve.x))
    nested = np.asarray(jax.jit(derivatives(NESTED, curve, order))(curve.x))
    factorials = scipy.special.factorial(np.arange(order + 1))
    return float(np.max(np.abs(ours * factorials - nested)) / np.max(np.abs(nested)))


def _error(curve: Curve, exact: Callable[[Any], Any]) -> float:
    """Return the largest error up to order 10, divided by the largest coefficient."""
    found = np.asarray(research.derivatives.taylor(curve.f, curve.x, curve.v, 10))
    with mpmath.workdps(50):
        truth = mpmath.taylor(exact, mpmath.mpf(float(curve.x)), 10)
        gaps = [
            abs(mpmath.mpf(float(a)) - b) for a, b in zip(found, truth, strict=True)
        ]
        return float(max(gaps) / max(map(abs, truth)))


def _growth(arrays: dict[str, np.ndarray], way: str, names: Any, order: int) -> float:
    """Return the largest ratio of the operations at `order` to those at order // 2."""
    counts = [arrays[f"{name}/{way}"] for name in names]
    return float(max(count[order] / count[order // 2] for count in counts))


def motion(y: jax.Array) -> jax.Array:
    """Return (velocity, acceleration) of the pendulum at y = (angle, velocity)."""
    return jnp.stack([y[1], -jnp.sin(y[0])])


def series(y: jax.Array, order: int) -> list[jax.Array]:
    """Return the Taylor coefficients of the motion that starts at y.

    Because y' = F(y), coefficient k + 1 of y is coefficient k of F(y(t)), divided by
    k + 1. Here F is `motion`.
    """
    known = [y, motion(y)]
    while len(known) <= order:
        k = len(known) - 1
        curve = lambda t: motion(_polynomial(known, t))
        slope = research.derivatives.taylor(curve, 0.0, 1.0, k)[k]
        known.append(slope / (k + 1))
    return known


def _polynomial(coefficients: list[jax.Array], t: Any) -> jax.Array:
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = coefficient + t * value
    return value


def _pendulum() -> np.ndarray:
    """Return the distance from the start after a period, shape (ORDERS, STEPS)."""
    period = 4 * scipy.special.ellipk(np.sin(SWING / 2) ** 2)
    start = jnp.array([SWING, 0.0])

    def distance(order: int, steps: jax.Array) -> jax.Array:
        h = period / steps
        step = lambda _, y: _polynomial(series(y, order), h)
        return jnp.linalg.norm(jax.lax.fori_loop(0, steps, step, start) - start)

    rows = []
    for order in ORDERS:
        compiled = jax.jit(lambda steps, order=order: distance(order, steps))
        rows.append([float(compiled(steps)) for steps in STEPS])
    return np.array(rows)
