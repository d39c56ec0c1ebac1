"""Functions of a point of shape (2,) whose critical points are known."""

from typing import Any


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
