"""Which critical points does a function have in a box, and which does a search miss?

A search by Newton's method from a lattice of starts finds critical points, but it
cannot say that there are no others. Interval arithmetic can: it computes bounds of the
gradient over a whole box, and rounds them outwards. If 0 is outside the bounds, the box
has no critical point. Krawczyk's operator proves that a small box has exactly one. So
the list is complete, which is a proof and not a measurement.

    python experiments/certified_landscape.py            # under a minute
    python experiments/certified_landscape.py --starts 40

Expected numbers (`EXPECTED`): the number of critical points that are proved in each
box. For Himmelblau's function and the camel, these numbers are theorems. Rastrigin's
function is a sum of one-dimensional functions, so its points can be counted: 23 on each
axis, 529 in all.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import research

EXPECTED = {
    "himmelblau_proved": (9, 9),
    "camel_proved": (15, 15),
    "rosenbrock_proved": (1, 1),
    "rastrigin_proved": (529, 529),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    starts: int = 4
    """Number n of starts of Newton's method on each axis. The total number is n²."""
    seconds: float = 600.0
    """Time limit of each of the two proofs for a function: of its critical points, and
    of bounds of its minimum."""


FULL = Config(starts=12, seconds=3600.0)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np

from experiments._landscapes import FORMULAS, camel, himmelblau, rosenbrock
from research.checks import check_count
from research.cli.progress import OnProgress
from research.types import Checkpoints

Landscape = tuple[str, Callable[..., Any], tuple[tuple[float, float], ...]]

LANDSCAPES: dict[str, Landscape] = {
    "himmelblau": (
        FORMULAS["himmelblau"],
        himmelblau,
        ((-5.0, 5.0), (-5.0, 5.0)),
    ),
    "camel": (
        FORMULAS["camel"],
        camel,
        ((-3.0, 3.0), (-2.0, 2.0)),
    ),
    "rosenbrock": (
        FORMULAS["rosenbrock"],
        rosenbrock,
        ((-2.0, 2.0), (-1.0, 3.0)),
    ),
    "rastrigin": (
        "20 + x² + y² - 10 cos(2πx) - 10 cos(2πy)",
        lambda x: 20 + jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x)),
        ((-5.0, 6.0), (-5.0, 6.0)),
    ),
}


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Prove the critical points of each function, and search for them."""
    del checkpoints
    check_count("starts", config.starts)
    if not config.seconds > 0:
        raise ValueError(f"seconds must be above 0; got seconds={config.seconds}.")
    arrays: dict[str, np.ndarray] = {}
    numbers: dict[str, Any] = {"landscapes": {}}
    for at, (name, (formula, f, bounds)) in enumerate(LANDSCAPES.items()):
        if on_progress:
            on_progress(at, len(LANDSCAPES), name)
        found, proved = _examined(config, f, bounds)
        numbers["landscapes"][name] = {"formula": formula, **found}
        numbers[f"{name}_proved"] = found["proved"]
        points = np.array([point.x for point in proved.points])
        arrays[f"{name}/points"] = points.reshape(-1, len(bounds))
        arrays[f"{name}/heights"] = _heights(f, bounds)
        arrays[f"{name}/kinds"] = np.array([KINDS.index(p.kind) for p in proved.points])
    return research.runs.Findings(arrays, numbers)


def _heights(
    f: Callable[..., Any], bounds: tuple[tuple[float, float], ...]
) -> np.ndarray:
    """Return the values of f on a lattice of the box, for the figure."""
    axes = np.meshgrid(*(np.linspace(low, high, MESH) for low, high in bounds))
    points = jnp.asarray(np.stack(axes, axis=-1).reshape(-1, 2))
    return np.asarray(jax.vmap(f)(points)).reshape(MESH, MESH)


MESH = 160  # Points of the figure on each axis.
KINDS = ("minimum", "saddle", "maximum", "unproved")


def _examined(
    config: Config, f: Callable[..., Any], bounds: tuple[tuple[float, float], ...]
) -> tuple[dict[str, Any], Any]:
    proved = research.derivatives.certified_critical_points(
        f, bounds, seconds=config.seconds
    )
    starts = research.derivatives.grid_of_starts(bounds, config.starts)
    searched = research.derivatives.critical_points(f, starts, bounds)
    lowest = research.derivatives.certified_minimum(f, bounds, seconds=config.seconds)
    kinds = [point.kind for point in proved.points]
    return {
        "proved": len(proved.points),
        **{kind: kinds.count(kind) for kind in KINDS},
        "undecided": len(proved.undecided),
        "complete": proved.complete,
        "boxes": proved.boxes,
        "widest": max(
            (float(np.max(point.high - point.low)) for point in proved.points),
            default=0.0,
        ),
        "searched": len(searched),
        "starts": len(starts),
        "minimum_low": lowest.low,
        "minimum_high": lowest.high,
    }, proved
