"""Test problem: a function at a point, with its known derivative."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import special


class Problem(NamedTuple):
    """A function of one number, and a point at which to differentiate it.

    Attributes:
      expression: Function of x as a Python expression. A decimal number stands for the
        nearest float64.
      x: Point of the derivative.
      kind: Kind of the function at x, one of

        - "smooth": differentiable, and the scales of x and f are near 1;
        - "scaled": differentiable, and the scale of x or f is far from 1;
        - "noisy": differentiable, but computed with errors far above the rounding
          error;
        - "kink": continuous, but the left and the right derivative differ;
        - "jump": discontinuous;
        - "one-sided": defined on one side of x only;
        - "unresolved": the difference quotients have no limit, or an infinite limit;
        - "nan": not defined at x.
      derivative: Derivative with thirty digits, as a str. None if f has no two-sided
        derivative at x.
    """

    expression: str
    x: float
    kind: str
    derivative: str | None

    @property
    def name(self) -> str:
        """Text with the function and the point, such as "exp(x) at 1.0"."""
        return f"{self.expression} at {self.x!r}"

    @property
    def truth(self) -> float:
        """Derivative rounded to float64, or nan if f has no two-sided derivative."""
        return float("nan" if self.derivative is None else self.derivative)

    def function(self) -> Callable[[Any], Any]:
        """Return the function as a Python function of a number or a NumPy array."""
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
    # Errors far above rounding: rounding to a number of decimals, and single precision.
    **{"rounded": np.round, "single": np.float32},
}
