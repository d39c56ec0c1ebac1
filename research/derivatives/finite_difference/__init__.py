"""Finite differences with an honest error and a verdict."""

from research.derivatives.finite_difference.estimate import (
    FiniteDifference as FiniteDifference,
)
from research.derivatives.finite_difference.estimate import (
    finite_difference as finite_difference,
)
