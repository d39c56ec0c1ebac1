"""Which learning rate is proved safe, and what happens above it?

If no eigenvalue of the Hessian exceeds L anywhere in a box, gradient descent with a
rate below 2 / L never increases f as long as its steps stay in the box. Interval
arithmetic encloses the Hessian over the whole box, so L is proved and not sampled. The
experiment runs gradient descent just below 2 / L and above it.

    python experiments/safe_rate.py            # under a minute

A rate above 2 / L need not fail: L bounds the curvature of the whole box, and descent
may never meet the largest curvature. On a quadratic function the bound is exact, so
there almost every descent with a higher rate increases f or leaves the box.

Expected numbers (`EXPECTED`): the number of steps that increase f at 0.5 and 0.99 times
2 / L, over all functions and starts (0 is proved; an increase of at most
1e-12 (1 + |f|) is a rounding error and does not count); the share of starts from which
a descent at 1.01 · 2 / L on the quadratic function increases f or leaves the box; and
the proved L divided by the largest eigenvalue on a fine lattice.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import research

EXPECTED = {
    "rises_below": (0, 0),
    "quadratic_diverges_above": (1.0, 1.0),
    "looseness": (1.0, 2.0),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    starts: int = 64
    """Number of random starts for each function."""
    steps: int = 400
    """Steps of each descent."""
    seed: int = 0
    """Seed of the starts."""
    boxes: int = 4096
    """Maximum number of boxes that the proof for each function examines."""


FULL = Config(starts=512, steps=4000, boxes=65_536)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np

from experiments._landscapes import FORMULAS, himmelblau
from research.checks import check_count
from research.cli.progress import OnProgress
from research.types import Checkpoints

MULTIPLES = (0.5, 0.99, 1.01, 1.5, 2.0)  # Rates, in multiples of 2 / L.
LATTICE = 81  # Points on each axis of the lattice where eigenvalues are computed.

# A function, its formula, and a box in which its descents stay.
FUNCTIONS: dict[
    str, tuple[str, Callable[..., Any], tuple[tuple[float, float], ...]]
] = {
    "quadratic": (
        "x² / 2 + 8 y²",
        lambda x: 0.5 * x[0] ** 2 + 8 * x[1] ** 2,
        ((-2.0, 2.0), (-2.0, 2.0)),
    ),
    "himmelblau": (
        FORMULAS["himmelblau"],
        himmelblau,
        ((-5.0, 5.0), (-5.0, 5.0)),
    ),
    "waves": (
        "(x² + y²) / 2 + sin(3x) cos(2y)",
        lambda x: 0.5 * jnp.sum(x**2) + jnp.sin(3 * x[0]) * jnp.cos(2 * x[1]),
        ((-3.0, 3.0), (-3.0, 3.0)),
    ),
}


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Prove a rate for each function, and descend below and above it."""
    del checkpoints
    for field in ("starts", "steps", "boxes"):
        check_count(field, getattr(config, field))
    arrays: dict[str, np.ndarray] = {}
    rows = []
    for at, (name, (formula, f, bounds)) in enumerate(FUNCTIONS.items()):
        if on_progress:
            on_progress(at, len(FUNCTIONS), name)
        bound = research.derivatives.curvature_bound(
            f, bounds, most_boxes=config.boxes, seconds=3600.0
        )
        steepest = max(bound.high, -bound.low)
        seen = _largest_seen(f, bounds)
        low, high = np.array(bounds).T
        starts = low + (high - low) * np.random.default_rng(config.seed).uniform(
            size=(config.starts, 2)
        )
        values = _descents(f, starts, 2.0 / steepest, config.steps, low, high)
        arrays[f"{name}/values"] = values
        for multiple, of_rate in zip(MULTIPLES, values, strict=True):
            inside = np.isfinite(of_rate)
            rises = np.diff(of_rate, axis=1) > 1e-12 * (1 + np.abs(of_rate[:, 1:]))
            rows.append(
                {
                    "function": name,
                    "formula": formula,
                    "proved": steepest,
                    "seen": seen,
                    "multiple": multiple,
                    "rate": multiple * 2 / steepest,
                    "rises": int(np.sum(rises & inside[:, 1:])),
                    "fail": float(np.mean(~inside[:, -1] | rises.any(axis=1))),
                    "left": float(np.mean(~inside[:, -1])),
                    "end": float(np.median(of_rate[:, -1][inside[:, -1]]))
                    if np.any(inside[:, -1])
                    else None,
                }
            )
    return research.runs.Findings(arrays, {"rows": rows, **_numbers(rows)})


def _numbers(rows: list[dict[str, Any]]) -> dict[str, float]:
    above = [
        r
        for r in rows
        if r["function"] == "quadratic" and r["multiple"] == MULTIPLES[2]
    ]
    return {
        "rises_below": sum(r["rises"] for r in rows if r["multiple"] < 1),
        "quadratic_diverges_above": above[0]["fail"],
        "looseness": max(r["proved"] / r["seen"] for r in rows),
    }


def _largest_seen(
    f: Callable[..., Any], bounds: tuple[tuple[float, float], ...]
) -> float:
    """Return the largest size of an eigenvalue of the Hessian on a lattice."""
    axes = np.meshgrid(*(np.linspace(low, high, LATTICE) for low, high in bounds))
    points = jnp.asarray(np.stack(axes, axis=-1).reshape(-1, 2))
    matrices = np.asarray(jax.vmap(jax.hessian(f))(points))
    return float(np.max(np.abs(np.linalg.eigvalsh(matrices))))


def _descents(
    f: Callable[..., Any],
    starts: np.ndarray,
    rate: float,
    steps: int,
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    """Return f along descents, (rates, starts, steps + 1); NaN outside the box."""
    slope = jax.grad(f)

    def descent(start: Any, own_rate: Any) -> Any:
        def step(x: Any, _: None) -> tuple[Any, Any]:
            inside = jnp.all((x >= low) & (x <= high))
            value = jnp.where(inside, f(x), jnp.nan)
            return jnp.where(inside, x - own_rate * slope(x), x), value

        return jax.lax.scan(step, start, None, steps + 1)[1]

    every_start = jax.vmap(descent, (0, None))
    every_rate = jax.jit(jax.vmap(every_start, (None, 0)))
    return np.asarray(every_rate(jnp.asarray(starts), rate * jnp.array(MULTIPLES)))
