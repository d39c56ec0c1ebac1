"""Where is the gradient of a function zero, and which of these points are minima?

A zero derivative marks a critical point: a minimum, a maximum, a saddle, or none of
these. Newton's method on ∇f = 0 finds all kinds equally well. The eigenvalues of the
Hessian decide the kind, unless an eigenvalue is zero. In this case, the derivatives of
orders 3 and 4 can sometimes decide. Here gradient descent reaches only minima.

Himmelblau's function, (x² + y - 11)² + (x + y² - 7)², has nine critical points. This is
a theorem (by a resultant and Sturm sequences), so the lattice of starts must find all
nine. The same holds for the fifteen points of the six-hump camel. For other functions,
there is no proof that all critical points were found.

    python experiments/critical_points.py            # some seconds

Expected numbers (`EXPECTED`): the number of critical points found for each of the two
functions; the largest gradient norm at these points, divided by the largest gradient
norm at the starts; and the share of descents that do not end in a minimum.
"""

import dataclasses
import math
import sys
from collections.abc import Callable
from typing import Any

import research

EXPECTED = {
    "himmelblau_found": (9, 9),
    "camel_found": (15, 15),
    "gradient_left": (0.0, 1e-13),
    "descents_elsewhere": (0.0, 0.0),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    starts: int = 12
    """Number n of starts of Newton's method on each axis. The total number is n²."""
    descents: int = 12
    """Number n of starts of gradient descent on each axis. The total number is n²."""
    steps: int = 3000
    """Steps of each descent."""
    learning_rate: float = 0.005
    """Learning rate of each descent."""


FULL = Config(starts=40, descents=40)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np

from experiments._landscapes import FORMULAS, camel, himmelblau
from research.checks import check_count
from research.cli.progress import OnProgress
from research.types import Checkpoints

CLOSE = 0.01  # A descent that ends within this distance of a minimum has reached it.
LANDSCAPES = {  # name: (formula in words, bounds).
    "himmelblau": (FORMULAS["himmelblau"], ((-5.5, 5.5), (-5.5, 5.5))),
    "camel": (
        FORMULAS["camel"],
        ((-2.2, 2.2), (-1.3, 1.3)),
    ),
}
DEGENERATE = {  # name: formula; each is degenerate at 0.
    "x⁴ + y²": lambda x: x[0] ** 4 + x[1] ** 2,
    "x³ - 3 x y² (monkey saddle)": lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2,
    "x³ + y²": lambda x: x[0] ** 3 + x[1] ** 2,
    "(y - x²)(y - 3x²) (Peano)": lambda x: (x[1] - x[0] ** 2) * (x[1] - 3 * x[0] ** 2),
    "x⁶ + y²": lambda x: x[0] ** 6 + x[1] ** 2,
}


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Find and classify the critical points of both landscapes, and run descent.

    Degenerate points of other functions are classified too.
    """
    del checkpoints  # The experiment takes seconds, so no checkpoint is saved.
    for field in ("starts", "descents", "steps"):
        check_count(field, getattr(config, field))
    if not 0 < config.learning_rate < math.inf:
        raise ValueError(
            "learning_rate must be a positive number; got "
            f"learning_rate={config.learning_rate}."
        )
    arrays, found = {}, {}
    for done, (name, f) in enumerate((("himmelblau", himmelblau), ("camel", camel))):
        if on_progress:
            on_progress(done, 3, name)
        found[name], new = landscape(f, LANDSCAPES[name][1], config)
        arrays |= {f"{name}/{key}": value for key, value in new.items()}
    if on_progress:
        on_progress(2, 3, "degenerate points")
    degenerate = {name: verdict(f) for name, f in DEGENERATE.items()}
    if on_progress:
        on_progress(3, 3, "done")
    numbers = {
        "landscapes": found,
        "degenerate": degenerate,
        "himmelblau_found": len(found["himmelblau"]["points"]),
        "camel_found": len(found["camel"]["points"]),
        "gradient_left": max(part["gradient_left"] for part in found.values()),
        "descents_elsewhere": max(part["elsewhere"] for part in found.values()),
    }
    return research.runs.Findings(arrays, numbers)


def landscape(f: Callable, bounds: Any, config: Config):
    """Return the critical points of one landscape as JSON, and arrays.

    The arrays are heights on a grid and the ends of the descents.
    """
    grid_of_starts, bounds = research.derivatives.grid_of_starts, np.array(bounds)
    starts = grid_of_starts(bounds, config.starts)
    points = research.derivatives.critical_points(f, starts, bounds)
    steepest = float(
        np.linalg.norm(jax.vmap(jax.grad(f))(jnp.asarray(starts)), axis=1).max()
    )
    ends = descended(f, grid_of_starts(bounds, config.descents), config)
    x = np.array([point.x for point in points])
    nearest = np.linalg.norm(ends[:, None] - x, axis=2).argmin(axis=1)
    # A descent counts as elsewhere also if it did not arrive at any point in `points`.
    is_close = np.linalg.norm(ends - x[nearest], axis=1) < CLOSE
    at_minimum = is_close & np.array([points[i].kind == "minimum" for i in nearest])
    axes = [np.linspace(low, high, 161) for low, high in bounds]
    heights = np.asarray(f(np.stack(np.meshgrid(*axes))))
    found = {
        "points": [as_json(point) for point in points],
        "starts": len(starts),
        "gradient_left": max(point.gradient_norm for point in points)
        / max(steepest, np.finfo(float).tiny),
        "elsewhere": float(np.mean(~at_minimum)),
        "farthest": float(np.linalg.norm(ends - x[nearest], axis=1).max()),
    }
    return found, {"x": axes[0], "y": axes[1], "heights": heights, "ends": ends}


def descended(f: Callable, starts: np.ndarray, config: Config):
    """Return the ends of gradient descent from each start.

    Steps longer than 0.1 are shortened, because the slopes are steep.
    """

    def step(_: Any, x: Any):
        move = config.learning_rate * jax.grad(f)(x)
        return x - move / jnp.maximum(1.0, jnp.linalg.norm(move) / 0.1)

    walk = jax.jit(jax.vmap(lambda x: jax.lax.fori_loop(0, config.steps, step, x)))
    return np.asarray(walk(jnp.asarray(starts)))


def as_json(point: Any):
    """Return a critical point as JSON values."""
    return {
        "x": point.x.tolist(),
        "value": point.value,
        "kind": point.kind,
        "eigenvalues": point.eigenvalues.tolist(),
        "newton_radius": point.newton_radius,
    }


def verdict(f: Callable):
    """Classify the point 0 of f."""
    point = research.derivatives.classify_critical_point(f, np.zeros(2))
    return {"kind": point.kind, "order": point.order, "note": point.note}
