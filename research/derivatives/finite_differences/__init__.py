"""Finite differences with an error bound and a verdict."""

from research.derivatives.finite_differences.estimate import (
    FiniteDifference as FiniteDifference,
)
from research.derivatives.finite_differences.estimate import (
    finite_difference as finite_difference,
)
