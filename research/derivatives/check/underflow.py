"""Size of the errors of a function that come from numbers too small for their dtype."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from research.derivatives.check.rounding import Nudge
from research.derivatives.costs.jaxprs import caller

# The results of these functions are 0 only if an operand is 0 or if they underflow. The
# sign of the result is the product of the signs of the operands.
ODD = "mul div convert_element_type sin sinh asin asinh tan tanh atan expm1 log1p"
NEVER_ZERO = "exp exp2 erfc logistic"  # These are 0 only if they underflow.


class Underflow(Nudge):
    """Perturbation of numbers that are close to the smallest normal number t.

    A result whose absolute value is below t has an error of up to t, because it is
    rounded to a multiple of the smallest positive number, or to 0. The perturbation
    imitates this error. Let ε be the relative spacing of the dtype. As in `Nudge`,
    `size` is a constant factor and ξ is a random number.

    - If the absolute value of a nonzero number is below t / ε, the number is changed by
      size t ξ, but at most by half of its value. (Above t / ε, an error of t is below
      the spacing of the floats.)
    - A result that is 0 although no operand is 0 has underflowed. It is replaced by
      size t |ξ|, with the sign that it should have. For matrix products, convolutions
      and `lax.pow` of a negative number, the sign is +.
    - Complex numbers are not changed.
    """

    def __call__(self, value: Any, epsilon: float | None = None) -> Any:
        """Return an array whose smallest numbers are perturbed; `epsilon` is unused."""
        if not jnp.issubdtype(getattr(value, "dtype", np.dtype(int)), jnp.floating):
            return value
        info = jnp.finfo(value.dtype)
        least, own = float(info.tiny), jnp.abs(value)
        change = (self.size * least * self.drawn_for(value)).astype(value.dtype)
        is_near = (own > 0) & (own < least / float(info.eps))
        return value + jnp.where(is_near, jnp.clip(change, -own / 2, own / 2), 0)

    def result(self, equation: Any, values: Sequence[Any], value: Any) -> Any:
        """Return the perturbed result of an equation, as `Nudge.result` does."""
        value = self(value)
        lost = _signs_of_lost(equation, values, value)
        if lost is None:
            return value
        least = self.size * float(jnp.finfo(value.dtype).tiny)
        drawn = (least * jnp.abs(self.drawn_for(value))).astype(value.dtype)
        return jnp.where(lost != 0, lost * drawn, value)


def _signs_of_lost(equation: Any, values: Sequence[Any], value: Any) -> Any:
    """Return the sign of each result that has underflowed to 0, and 0 for the others.

    None means that an underflow of this operation is not recognised. An operand that is
    infinite makes a result 0 that is exact, such as exp(-∞).
    """
    name, params, run = equation.primitive.name, equation.params, caller(equation)
    are_real = all(
        not jnp.issubdtype(each.dtype, jnp.complexfloating) for each in values
    )
    if not are_real or not jnp.issubdtype(value.dtype, jnp.floating):
        return None
    is_lost = value == 0
    if name in ("dot_general", "conv_general_dilated"):
        (sizes,) = run([jnp.abs(each) for each in values])
        (terms,) = run([(each != 0).astype(each.dtype) for each in values])
        return jnp.where(is_lost & (sizes == 0) & (terms > 0), 1, 0)
    if name in ("reduce_prod", "cumprod"):
        (sign,) = run([jnp.sign(values[0])])
        return jnp.where(is_lost, sign, 0)
    if name in NEVER_ZERO.split():
        sign = jnp.ones_like(value)
    elif name in ODD.split():
        sign = math.prod(jnp.sign(each).astype(value.dtype) for each in values)
    elif name == "integer_pow" and params["y"] % 2:
        sign = jnp.sign(values[0])
    elif name in ("integer_pow", "pow", "square"):
        sign = jnp.abs(jnp.sign(values[0]))
    else:
        return None
    for each in values:  # All of these operations are elementwise.
        is_lost &= jnp.isfinite(each)
    return jnp.where(is_lost, sign, 0)
