"""How small should the step of a difference quotient be?

The derivative is the limit of (f(x + h) - f(x)) / h, but on a computer a smaller step
is not a better one: truncation falls with a power of h, rounding grows as ε / h, and
their sum is least near √ε for the forward quotient, ∛ε for the central one and the
fifth root of ε for Richardson's. The complex step has no difference and so no such
floor. The function is that of Squire and Trapp, exp(x) / √(sin³x + cos³x).

`np.gradient` is no remedy. It differentiates samples and not functions: of one number
it returns an empty tuple, and at the two ends of samples it is of first order only.
That is shown beside `grid_derivative`.

    python experiments/finite_difference_step.py            # some seconds

The numbers to expect (`EXPECTED`): the most decades between a best step and its rule of
thumb, over three quotients in float64 and float32; the share by which the forward
quotient is off at h = 1e-15; how many numbers `np.gradient` returns for one; and its
error at the ends of exp on [0, 1], over that of `grid_derivative`."""

import dataclasses
import sys
from typing import Any, Literal

import research

EXPECTED = {
    "decades_from_theory": (0.0, 1.0),
    "error_at_1e_15": (0.25, 0.35),
    "numbers_from_numpy": (0, 0),
    "end_error_over_ours": (50, 5000),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    x: float = 1.5
    """Where the function is differentiated: between 0 and 2, so that its root is
    real."""
    samples: int = 101
    """Points of exp on [0, 1] for the trap."""


FULL = Config(samples=10001)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import numpy as np

from research.cli.progress import OnProgress
from research.types import Checkpoints

Scheme = Literal["forward", "central", "richardson", "complex"]
SCHEMES: tuple[Scheme, ...] = (
    "forward",
    "central",
    "richardson",
    "complex",
)
TYPES = ("float64", "float32")
TINY = 1e-15  # A step that has lost nearly every digit.


def squire_trapp(x: Any):
    """exp(x) / √(sin³x + cos³x)."""
    return np.exp(x) / np.sqrt(np.sin(x) ** 3 + np.cos(x) ** 3)


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Tabulates every quotient at every step, and what NumPy makes of samples."""
    del checkpoints  # It takes seconds.
    check(config)
    arrays, rows = {}, []
    cases: list[tuple[Scheme, str]] = [
        (scheme, kind) for kind in TYPES for scheme in SCHEMES
    ]
    for done, (scheme, kind) in enumerate(cases):
        if on_progress:
            on_progress(done, len(cases), f"{scheme} {kind}")
        table = research.derivatives.limit_table(
            squire_trapp, config.x, scheme, dtype=np.dtype(kind)
        )
        error = np.abs(table.estimates - slope(float(np.dtype(kind).type(config.x))))
        arrays |= {
            f"{kind}/{scheme}/{name}": getattr(table, name)
            for name in ("steps", "truncation", "rounding")
        }
        arrays[f"{kind}/{scheme}/error"] = error
        rows.append(
            (
                scheme,
                kind,
                float(table.steps[table.best]),
                table.theory or None,
                float(error[table.best]),
                smallest(error),
            )
        )
    if on_progress:
        on_progress(len(cases), len(cases), "done")
    forward = research.derivatives.limit_table(
        squire_trapp, config.x, "forward", steps=[TINY]
    )
    trap = numpy_trap(config)
    arrays |= trap
    numbers = {
        "x": config.x,
        "derivative": slope(config.x),
        "rows": [list(row) for row in rows],
        "decades_from_theory": max(
            float(abs(np.log10(row[2] / row[3]))) for row in rows if row[3]
        ),
        "error_at_1e_15": float(abs(forward.estimates[0] / slope(config.x) - 1)),
        "numbers_from_numpy": len(np.gradient(9.0, 3.0)),
        "end_error_over_ours": float(trap["trap/numpy"][-1] / trap["trap/ours"][-1]),
        "numpy_at_the_end": float(trap["trap/numpy"][-1]),
        "numpy_inside": float(np.median(trap["trap/numpy"])),
        "samples": config.samples,
    }
    return research.runs.Findings(arrays, numbers)


def check(config: Config):
    """Raises ValueError for a config that cannot be run."""
    if not 0 < config.x < 2:
        raise ValueError(
            f"x must lie between 0 and 2, where the function is real; got x={config.x}."
        )
    if config.samples < 5:
        raise ValueError(f"samples must be at least 5; got samples={config.samples}.")


def slope(x: Any):
    """The derivative of squire_trapp, by the rules."""
    cubes = np.sin(x) ** 3 + np.cos(x) ** 3
    inner = 3 * np.sin(x) * np.cos(x) * (np.sin(x) - np.cos(x))
    return float(np.exp(x) * (cubes - inner / 2) / cubes**1.5)


def smallest(error: np.ndarray):
    """The least error of any step."""
    return float(np.nanmin(error))


def numpy_trap(config: Config):
    """Errors of np.gradient and of grid_derivative on samples of exp."""
    x = np.linspace(0, 1, config.samples)
    y = np.exp(x)
    return {
        "trap/x": x,
        "trap/numpy": np.abs(np.gradient(y, x) - y),
        "trap/ours": np.abs(research.derivatives.grid_derivative(y, x) - y),
        "trap/ours of order 4": np.abs(
            research.derivatives.grid_derivative(y, x, accuracy=4) - y
        ),
    }
