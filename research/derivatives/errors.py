"""What goes wrong when one asks for a derivative; each message says what to call instead."""


class NotScalarError(TypeError):
    """The function gives no single real number."""


class NotInexactError(TypeError):
    """A derivative was asked for by something that is no floating number."""


class GridTooSmallError(ValueError):
    """A grid has fewer points than the formula needs."""


class NoDerivativeError(ValueError):
    """The function has no derivative at the point."""


class StepUnderflowError(ValueError):
    """A step is so small that it does not change the point."""


class UnsupportedPrimitiveError(NotImplementedError):
    """A primitive of the function has no rule for what was asked."""
