"""Errors of `research.derivatives`. Their messages say what to call instead."""


class NotScalarError(TypeError):
    """Raised if a value is not a single real number."""


class NotInexactError(TypeError):
    """Raised if an argument or a value does not have a floating dtype."""


class GridTooSmallError(ValueError):
    """Raised if a grid has fewer points than a difference formula needs."""


class NoDerivativeError(ValueError):
    """Raised if a function has no derivative at the given point."""


class StepUnderflowError(ValueError):
    """Raised if x + h is rounded to x, because the step h is too small."""


class UnsupportedPrimitiveError(NotImplementedError):
    """Raised if a JAX primitive has no rule for the requested operation."""
