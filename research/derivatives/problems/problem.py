"""A function at a point, with what is known of its derivative there."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import special


class Problem(NamedTuple):
    """A function of one number, and a point at which to differentiate it.

    Attributes:
      expression: The function in Python's syntax, in x; decimals mean the float64 next to them.
      x: The point.
      kind: "smooth", "scaled" (smooth, with a scale far from 1), "noisy" (smooth, but computed with errors far above
        rounding), "kink", "jump", "one-sided" (defined on one side of x alone), "unresolved" (the quotients have no
        limit, or an infinite one), "nan" (not defined at x).
      derivative: Thirty digits, or None where there is no two-sided derivative.
    """

    expression: str
    x: float
    kind: str
    derivative: str | None

    @property
    def name(self) -> str:
        """The function and the point, as one reads them."""
        return f"{self.expression} at {self.x!r}"

    @property
    def truth(self) -> float:
        """The derivative as the nearest float64; nan where there is none."""
        return float("nan" if self.derivative is None else self.derivative)

    def function(self) -> Callable[[Any], Any]:
        """The function in float64, of numbers and of NumPy arrays."""
        return eval("lambda x: " + self.expression, dict(NUMPY))


NUMPY: dict[str, Any] = {
    **{
        name: getattr(np, name)
        for name in ("exp", "log", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh")
    },
    **{
        name: getattr(np, name)
        for name in (
            "sqrt",
            "cbrt",
            "floor",
            "sign",
            "where",
            "maximum",
            "minimum",
            "nan",
        )
    },
    **{
        f"a{name}": getattr(np, f"arc{name}")
        for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")
    },
    **{
        "erf": special.erf,
        "erfc": special.erfc,
        "gamma": special.gamma,
        "loggamma": special.gammaln,
        "mod": np.mod,
    },
    # Errors far above rounding: to so many decimals, and of single precision.
    **{"rounded": np.round, "single": np.float32},
}
