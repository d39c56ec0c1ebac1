"""The type of a schedule, and functions that convert and compare step counts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Num

from research.checks import check_number, check_numbers, shown
from research.types import Array, Integer

Schedule = Callable[[Any], Float[Array, "*shape"]]


def real(t: Num[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Return a step count as an array of JAX's default float dtype.

    Without this conversion, an int32 count divided by an integer would be float32, even
    if float64 is enabled.
    """
    return jnp.asarray(count(t), dtype=float)


def count(t: Num[ArrayLike, "*shape"]) -> Num[Array, "*shape"]:
    """Return a step count as an array.

    An integer that fits into JAX's default integer dtype remains an integer. A larger
    integer becomes a float.

    Raises:
      TypeError: t is not a number, or it is True or False.
      ValueError: t is below 0 or NaN. The entries of a JAX array are not checked.
    Example:
      >>> print(count(3).dtype.kind, f"{count(2**70):.2e}")
      i 1.18e+21
    """
    if isinstance(t, bool | np.bool_):
        raise TypeError(f"t must be a step count, not {t!r}. Pass 0, 1, 2, ...")
    if isinstance(t, int):
        check_number("t", t)  # Also refuses a t that is too large for a float.
        most = jnp.iinfo(jnp.result_type(int)).max
        return jnp.asarray(t if t <= most else float(t))
    check_numbers("t", t)
    # Do not read the values of a JAX array, such as the count in the state of a rule:
    # reading would wait until the array is computed.
    if not isinstance(t, jax.Array) and not np.all(np.asarray(t) >= 0):
        raise ValueError(
            f"t must be a step count of at least 0; got t={shown(t)}. The first step "
            "is 0."
        )
    if isinstance(t, np.integer | np.ndarray) and np.issubdtype(t.dtype, np.integer):
        limits = jnp.iinfo(jnp.result_type(int))
        return jnp.asarray(
            t if np.all((t >= limits.min) & (t <= limits.max)) else np.asarray(t, float)
        )
    return jnp.asarray(t)


def is_before(t: Num[Array, "*shape"], boundary: Integer) -> Bool[Array, "*shape"]:
    """Return whether the step count t is below a boundary, for each entry of t.

    If the boundary is too large for the integer dtype of t, every count is below the
    boundary, and the result is True.
    """
    return (
        jnp.ones_like(t, bool) if _is_beyond(t, boundary) else t < _beside(t, boundary)
    )


def since(t: Num[Array, "*shape"], boundary: Integer) -> Num[Array, "*shape"]:
    """Return the number of steps since the boundary: max(t - boundary, 0).

    t and the boundary are step counts. The result is 0 until t exceeds the boundary.
    """
    return (
        jnp.zeros_like(t)
        if _is_beyond(t, boundary)
        else jnp.maximum(t - _beside(t, boundary), 0)
    )


def periods(t: Num[Array, "*shape"], every: Integer) -> Num[Array, "*shape"]:
    """Return ⌊t / every⌋, the number of whole periods of `every` steps before step t.

    The result is an integer if t is an integer.
    """
    return jnp.zeros_like(t) if _is_beyond(t, every) else t // _beside(t, every)


def _is_beyond(t: Array, number: Integer) -> bool:
    if isinstance(number, Tracer) or not jnp.issubdtype(t.dtype, jnp.integer):
        return False
    return int(number) > jnp.iinfo(t.dtype).max


def _beside(t: Array, number: Integer) -> Any:
    """Convert a Python integer to a float if t is a float.

    Without this conversion, the integer would become an int32.
    """
    return (
        float(number)
        if isinstance(number, int) and not jnp.issubdtype(t.dtype, jnp.integer)
        else number
    )


def fraction(t: Num[ArrayLike, "*shape"], num_steps: Integer) -> Float[Array, "*shape"]:
    """Return the fraction of T = num_steps steps that has passed: min(t, T) / T."""
    length = real(num_steps)  # num_steps may exceed int32.
    return jnp.minimum(real(t), length) / length
