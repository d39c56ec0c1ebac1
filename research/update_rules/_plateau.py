"""A smaller rate once the objective's value has stopped falling."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Float, Int

from research.checks import check_number
from research.types import Array, Integer, Params, Scalar
from research.update_rules._checks import checked
from research.update_rules._edges import complete
from research.update_rules._transforms import (
    cast,
    increment,
    reached,
    working_dtype,
)


class PlateauState(NamedTuple):
    """State of `reduce_on_plateau`.

    `reduce_on_plateau` averages the values of the objective in groups of consecutive
    steps. A mean value is the mean of one group.

    Attributes:
      scale: Factor of the updates, shape (), in at least float32.
      best: Smallest mean value so far, shape (), in at least float32; ∞ at first.
      consecutive: Number of mean values in a row that were not better than `best`,
        int32, shape ().
      waiting: Number of further mean values during which `consecutive` stays at 0,
        because the scale was reduced, int32, shape ().
      count: Number of values so far in the unfinished group, int32, shape ().
      mean: Mean of the values so far in the unfinished group, shape (), in at least
        float32.
    """

    scale: Float[Array, ""]
    best: Float[Array, ""]
    consecutive: Int[Array, ""]
    waiting: Int[Array, ""]
    count: Int[Array, ""]
    mean: Float[Array, ""]


@checked
def reduce_on_plateau(
    factor: Scalar = 0.1,
    patience: Integer = 10,
    rtol: Scalar = 1e-4,
    atol: Scalar = 0.0,
    cooldown: Integer = 0,
    accumulation_size: Integer = 1,
    min_scale: Scalar = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Multiply the updates by a scale that shrinks when the objective stops falling.

    The updates are multiplied by a scale s, which starts at 1. The values of the
    objective are averaged in groups of accumulation_size. The mean f of a group counts
    as better than the best mean so far, f_best, if f < (1 - rtol) f_best - atol. After
    `patience` means in a row that are not better, s <- max(factor s, min_scale), and
    the count of such means restarts from 0. While the next `cooldown` means are
    computed, the count stays at 0.

    Chain this transformation after a rule. Do not chain it after `polyak_averaging`,
    `exponential_averaging`, `lookahead` or a schedule-free rule. Such a rule computes
    an average of the params from its own updates, and the model is evaluated at this
    average. If the updates were scaled afterwards, the average would be wrong. With
    `polyak_averaging`, `exponential_averaging` and `lookahead`, which wrap an inner
    rule, chain this transformation after the inner rule.

    optax.contrib.reduce_on_plateau is the same. torch's ReduceLROnPlateau reduces the
    rate one mean later: after patience + 1 means in a row that are not better. To get
    the same result in torch, pass a patience that is smaller by one. torch also skips a
    reduction that would change the rate by at most torch's argument eps. The callback
    ReduceLROnPlateau of Keras counts patience in the same way as this function, but its
    cooldown ends one mean earlier. If the cooldown here is c > 0, pass c + 1 to Keras
    for the same result. The threshold min_delta of Keras is absolute, like atol.

    Use it where no schedule can be planned. The value of one mini-batch is noisy, so
    set accumulation_size to about the number of steps in an epoch, or pass the value on
    held-out data.

    Args:
      factor: Factor that reduces the scale s, positive and below 1; may be traced.
      patience: Number of means in a row after which s is reduced if none of them is
        better, a positive integer; may be traced.
      rtol, atol: Tolerances, at least 0; may be traced. rtol is at most 1. Use a
        positive rtol only if the values of the objective are positive.
      cooldown: Number of means after a reduction of s that do not count towards
        patience. An integer of at least 0; may be traced.
      accumulation_size: Number of values per mean, a positive integer; may be traced.
      min_scale: Least scale, at least 0; may be traced.
    Returns:
      The transformation; its update needs value, the value of the objective.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number, or
        update received no value.
    Example:
      >>> from research.update_rules import gradient_descent
      >>> rule = optax.chain(gradient_descent(1.0), reduce_on_plateau(0.5, patience=2))
      >>> state = rule.init(jnp.zeros(1))
      >>> for value in (3.0, 3.0, 3.0):
      ...     updates, state = rule.update(jnp.ones(1), state, value=value)
      ...     print(updates)
      [-1.]
      [-1.]
      [-0.5]
    """
    check_number("factor", factor, positive=True, below=1.0)
    check_number("rtol", rtol)
    check_number("atol", atol)
    check_number("min_scale", min_scale)
    check_number("patience", patience, positive=True, integer=True)
    check_number("cooldown", cooldown, integer=True)
    check_number("accumulation_size", accumulation_size, positive=True, integer=True)
    if not isinstance(rtol, Tracer) and rtol > 1:
        raise ValueError(f"rtol must be at most 1; got rtol={rtol!r}.")

    def init(params: Params):
        dtype, zero = working_dtype(params), jnp.zeros((), jnp.int32)
        return PlateauState(
            jnp.ones((), dtype),
            jnp.full((), jnp.inf, dtype),
            zero,
            jnp.zeros_like(zero),
            jnp.zeros_like(zero),
            jnp.zeros((), dtype),
        )

    def judge(state: PlateauState):
        best = state.best
        enough = cast(1.0 - rtol, best) * best - cast(atol, best)
        # With rtol = 1, the product of 0 and the first best value, ∞, would be NaN.
        better = state.mean < jnp.where(jnp.isinf(best), best, enough)
        waits = state.waiting > 0
        worse = jnp.where(better | waits, 0, increment(state.consecutive))
        due = reached(worse, patience) & ~waits
        smaller = jnp.maximum(cast(factor, best) * state.scale, cast(min_scale, best))
        rest = jnp.where(due, cooldown, jnp.maximum(state.waiting - 1, 0))
        return PlateauState(
            jnp.where(due, smaller, state.scale),
            jnp.where(better, state.mean, best),
            jnp.where(due, 0, worse),
            rest.astype(jnp.int32),
            jnp.zeros_like(state.count),
            jnp.zeros_like(state.mean),
        )

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        value: Any = None,
        **extra: Any,
    ):
        del params, extra
        if value is None:
            raise ValueError(
                "reduce_on_plateau needs the objective's value; call update(grads, "
                "state, params, value=value)."
            )
        count = increment(state.count)
        share = (1.0 / count.astype(float)).astype(state.mean.dtype)
        mean = state.mean + share * (cast(value, state.mean) - state.mean)
        told = state._replace(count=count, mean=mean)
        full = reached(count, accumulation_size)
        after = jax.tree.map(lambda a, b: jnp.where(full, a, b), judge(told), told)
        return jax.tree.map(lambda u: cast(after.scale, u) * u, updates), after

    return complete(optax.GradientTransformationExtraArgs(init, update))
