"""How small should the step of a difference quotient be?

The derivative is the limit of (f(x + h) - f(x)) / h, but on a computer a smaller step
is not always better. The truncation error is proportional to a power of h, and the
rounding error to ε / h. Their sum is smallest near the step √ε for the forward
quotient, ∛ε for the central quotient, and the fifth root of ε for Richardson's
quotient. The complex step has no difference and therefore no such limit. The test
function is from Squire and Trapp: exp(x) / √(sin³x + cos³x).

`np.gradient` does not help. It differentiates samples, not functions. For one number it
returns an empty tuple, and at the two ends of the samples it is of first order, unless
edge_order is 2. The experiment compares it with `grid_derivative`.

    python experiments/finite_difference_step.py            # some seconds

Expected numbers (`EXPECTED`):

- the largest distance in decades between the best step and the step of the rule of
thumb, over three quotients in float64 and float32;
- the relative error of the forward quotient at h = 1e-15;
- how many numbers `np.gradient` returns for one number;
- the error of `np.gradient` at the ends of exp on [0, 1], divided by the error of
`grid_derivative`.
"""

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
    """Settings of the experiment."""

    x: float = 1.5
    """Point of differentiation, between 0 and 2, where the function is real."""
    samples: int = 101
    """Number of samples of exp on [0, 1] for np.gradient."""


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
TINY = 1e-15  # At this step, nearly every digit of the quotient is lost.


def squire_trapp(x: Any):
    """Return exp(x) / √(sin³x + cos³x)."""
    return np.exp(x) / np.sqrt(np.sin(x) ** 3 + np.cos(x) ** 3)


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Tabulate every quotient at every step, and errors of np.gradient on samples."""
    del checkpoints  # The experiment takes seconds, so no checkpoint is saved.
    check(config)
    arrays, rows = {}, []
    cases: list[tuple[Scheme, str]] = [
        (scheme, kind) for kind in TYPES for scheme in SCHEMES
    ]
    for done, (scheme, kind) in enumerate(cases):
        if on_progress:
            on_progress(done, len(cases), f"{scheme} {kind}")
        found, row = tabulate(config.x, scheme, kind)
        arrays |= found
        rows.append(row)
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


def tabulate(x: float, scheme: Scheme, kind: str):
    """Return the errors of one quotient at every step, and its row of the table."""
    table = research.derivatives.limit_table(
        squire_trapp, x, scheme, dtype=np.dtype(kind)
    )
    error = np.abs(table.estimates - slope(float(np.dtype(kind).type(x))))
    arrays = {
        f"{kind}/{scheme}/{name}": getattr(table, name)
        for name in ("steps", "truncation", "rounding")
    }
    arrays[f"{kind}/{scheme}/error"] = error
    row = (
        scheme,
        kind,
        float(table.steps[table.best]) if table.best >= 0 else None,
        table.theory or None,
        float(error[table.best]) if table.best >= 0 else None,
        smallest(error),
    )
    return arrays, row


def check(config: Config):
    """Raise ValueError if the config cannot be run."""
    if not 0 < config.x < 2:
        raise ValueError(
            f"x must lie between 0 and 2, where the function is real; got x={config.x}."
        )
    if config.samples < 5:
        raise ValueError(f"samples must be at least 5; got samples={config.samples}.")


def slope(x: Any):
    """Return the derivative of squire_trapp, by the rules of differentiation."""
    cubes = np.sin(x) ** 3 + np.cos(x) ** 3
    inner = 3 * np.sin(x) * np.cos(x) * (np.sin(x) - np.cos(x))
    return float(np.exp(x) * (cubes - inner / 2) / cubes**1.5)


def smallest(error: np.ndarray):
    """Return the smallest error over all steps."""
    return float(np.nanmin(error))


def numpy_trap(config: Config):
    """Return errors of np.gradient and of grid_derivative on samples of exp."""
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
