"""Errors of derivatives. Their messages say what to call instead."""


class NotScalarError(TypeError):
    """A value is not a single real number."""


class NotInexactError(TypeError):
    """An argument or a value is not floating."""


class GridTooSmallError(ValueError):
    """A grid has fewer points than the formula needs."""


class NoDerivativeError(ValueError):
    """The function has no derivative at the point."""


class StepUnderflowError(ValueError):
    """A step is too small to change the point."""


class UnsupportedPrimitiveError(NotImplementedError):
    """A primitive of the function has no rule for the requested operation."""
