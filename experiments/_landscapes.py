"""Functions whose critical points are known, their formulas, and marks of the points.

All but `rosenbrock_chain` are functions of a point of shape (2,).
"""

from typing import Any

import jax.numpy as jnp

FORMULAS = {
    "himmelblau": "(x² + y - 11)² + (x + y² - 7)²",
    "camel": "(4 - 2.1 x² + x⁴ / 3) x² + x y + (4 y² - 4) y²",
    "rosenbrock": "(1 - x)² + 100 (y - x²)²",
}
MARKS = {  # Kind of a critical point: (key of research.figures.COLOURS, marker).
    "minimum": ("first class", "v"),
    "saddle": ("second class", "D"),
    "maximum": ("stochastic", "^"),
}


def himmelblau(x: Any) -> Any:
    """Return Himmelblau's function, which has four minima of equal height."""
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


def camel(x: Any) -> Any:
    """Return the six-hump camel function."""
    return (
        (4 - 2.1 * x[0] ** 2 + x[0] ** 4 / 3) * x[0] ** 2
        + x[0] * x[1]
        + (4 * x[1] ** 2 - 4) * x[1] ** 2
    )


def rosenbrock(x: Any) -> Any:
    """Return Rosenbrock's function: a curved valley, steep across and flat along."""
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def rosenbrock_chain(x: Any) -> Any:
    """Return Rosenbrock's function of n variables.

    The formula is Σ 100 (x_(i+1) - x_i²)² + (1 - x_i)².
    """
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
