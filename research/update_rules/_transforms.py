"""What rules are chained from: the step along the rate, weight decay, and arithmetic
that keeps a leaf's dtype."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Params
from research.update_rules._checks import checked
from research.update_rules._edges import complete, real_dtype
from research.update_rules._groups import checked_mask


class DescendState(NamedTuple):
    """What `descend` keeps.

    Attributes:
      learning_rate: The rate of the last step (before the first: of the first), shape ().
      count: Steps taken, int32, shape (); None where the rate is constant.
    """

    learning_rate: Array
    count: Any = None


@checked
def descend(learning_rate: float | Array | Schedule) -> optax.GradientTransformation:
    """Steps against the incoming direction d: u_t = -η_t d_t. It is the last link of
    every rule.

    The rate is rounded to each leaf's dtype before it multiplies, whether it is a float
    or traced, so that neither widens bfloat16 and both give the same bits.
    optax.scale_by_learning_rate does so for schedules alone.

    Args:
      learning_rate: η, a number of at least 0, a traced scalar, or a schedule t -> η_t
        with t counted from 0.
    Returns:
      The transformation; its state is a DescendState, from which whoever applies the
      rule reads the rate.
    Raises:
      ValueError, TypeError: A concrete rate is negative, not finite or no number.
    Example:
      >>> rule = descend(lambda t: 1.0 / (1 + t))
      >>> updates, state = rule.update(jnp.array([2.0]), rule.init(jnp.zeros(1)))
      >>> updates, state = rule.update(jnp.array([2.0]), state)
      >>> print(updates, optax.tree_utils.tree_get(state, "learning_rate"))
      [-1.] 0.5
    """
    if callable(learning_rate):
        return _descend_by_schedule(learning_rate)
    check_number("learning_rate", learning_rate)

    def init(params: Params):
        del params
        return DescendState(constant_rate(learning_rate))

    def update(updates: Params, state: Any, params: Params | None = None):
        del params, state
        rate = constant_rate(learning_rate)
        return _scale(learning_rate, updates), DescendState(rate)

    return complete(optax.GradientTransformation(init, update))


def constant_rate(learning_rate: float | Array) -> Array:
    """A constant rate as a rule's state holds it: floating, and not of a weak type.

    Example:
      >>> print(constant_rate(1).dtype, constant_rate(jnp.bfloat16(0.5)).dtype)
      float... bfloat16
    """
    dtype = jnp.result_type(learning_rate)
    wanted = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
    return jnp.asarray(learning_rate, wanted)


def _descend_by_schedule(schedule: Schedule) -> optax.GradientTransformation:
    def rate_at(count):
        rate = schedule(count)
        return cast(
            rate, rate
        )  # A schedule may give a Python float, whose weak type would change in a scan.

    def init(params: Params):
        del params
        count = jnp.zeros((), jnp.int32)
        return DescendState(rate_at(count), count)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        rate = rate_at(state.count)
        return _scale(rate, updates), DescendState(rate, increment(state.count))

    return complete(optax.GradientTransformation(init, update))


def _scale(rate: float | Array, updates: Params) -> Params:
    return jax.tree.map(lambda d: -cast(rate, d) * d, updates)


@checked
def add_decayed_weights(
    weight_decay: float | Array, mask: Any = None
) -> optax.GradientTransformation:
    """Adds the weights, scaled: d_t <- d_t + λ x_t.

    Chained before a rule it is coupled decay, the gradient of ½ λ |x|² (torch's
    `weight_decay` in SGD and Adam); between an adaptive rule's direction and its rate
    it is decoupled, which is how `adamw` is made. optax's is the same, and takes a
    schedule, too.

    Args:
      weight_decay: λ, at least 0; may be traced.
      mask: Pytree of booleans (a prefix of the params), or a function from params to
        one; True where weights decay, which biases and scales customarily do not. None
        means everywhere.
    Returns:
      The transformation; its update needs params.
    Raises:
      ValueError, TypeError: A concrete weight_decay is negative, not finite or no
        number, or update got no params.
    References:
      Loshchilov & Hutter, Decoupled weight decay regularization, ICLR 2019, section 2.
    Example:
      >>> from research.update_rules import gradient_descent
      >>> rule = optax.chain(add_decayed_weights(0.5), gradient_descent(0.1))
      >>> x = jnp.array([2.0])
      >>> print(rule.update(jnp.array([1.0]), rule.init(x), x)[0])
      [-0.2]
    """
    check_number("weight_decay", weight_decay)

    def update(updates: Params, state: Any, params: Params | None = None):
        if params is None:
            raise ValueError(
                "weight decay needs the weights; call update(grads, state, params)."
            )
        return jax.tree.map(
            lambda d, x: d + (cast(weight_decay, x) * x).astype(d.dtype),
            updates,
            params,
        ), state

    rule = complete(optax.GradientTransformation(optax.init_empty_state, update))
    return rule if mask is None else complete(optax.masked(rule, checked_mask(mask)))


def cast(value: float | Array, leaf: Array) -> Array:
    """A hyper-parameter in the leaf's dtype: a float32 or float64 array among them must
    not widen a bfloat16 leaf.

    Beside a complex leaf it is real.

    Example:
      >>> print(cast(jnp.float32(0.5), jnp.ones(2, jnp.bfloat16)).dtype)
      bfloat16
    """
    dtype = real_dtype(leaf)
    if isinstance(value, float | int) and isinstance(leaf, jax.Array):
        return np.asarray(value, dtype)  # type: ignore[return-value]  # A constant: nothing is traced for it.
    return jnp.asarray(value, dtype)


def working_dtype(params: Params) -> Any:
    """That of the widest leaf, at least float32: LAPACK has nothing narrower, and a sum
    of squares in bfloat16 two digits.

    A leaf counts by its dtype also where its type is weak, as that of `jnp.array(1.0)`
    is; a complex leaf by its parts'.

    Example:
      >>> print(working_dtype({"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.float16)}))
      float32
    """
    return functools.reduce(
        jnp.promote_types,
        map(real_dtype, jax.tree.leaves(params)),
        jnp.dtype("float32"),
    )


def like(value: Array, leaf: Array) -> Array:
    """The value in the leaf's dtype; nothing is traced where it has it already.

    Example:
      >>> print(like(jnp.ones(2), jnp.zeros((), jnp.bfloat16)).dtype)
      bfloat16
    """
    return value if value.dtype == leaf.dtype else value.astype(leaf.dtype)


def moving_average(decay: float | Array, average: Params, value: Params) -> Params:
    """Moves each leaf of the average, keeping its dtype: a <- (1 - β) v + β a.

    Args:
      decay: β in [0, 1); may be traced.
      average, value: a and v, pytrees of one structure.
    Returns:
      The new average.
    Example:
      >>> print(moving_average(0.75, {"w": jnp.array(4.0)}, {"w": jnp.array(8.0)})["w"])
      5.0
    """

    def move(a, v):
        # The sum in optax's order: a fused multiply-add rounds one product and not the
        # other, and runs that are chaotic (RMSProp at a minimum) magnify that bit to
        # whole digits.
        return cast(1.0 - decay, a) * like(v, a) + cast(decay, a) * a

    return jax.tree.map(move, average, value)


def increment(count: Array) -> Array:
    """count + 1, which stays at the largest int32: a stochastic run gets there within
    the hour, and must not wrap.

    Example:
      >>> print(increment(jnp.int32(2)), increment(jnp.int32(2147483647)))
      3 2147483647
    """
    return count + (count < jnp.iinfo(count.dtype).max)


def reached(count: Array, limit: int | Array) -> Array:
    """Whether count >= limit; never, where the limit is beyond the largest integer that
    the count can be.

    Example:
      >>> print(reached(jnp.int32(3), 3), reached(jnp.int32(2147483647), 2**31))
      True False
    """
    if not isinstance(limit, Tracer) and int(limit) > jnp.iinfo(count.dtype).max:
        return jnp.zeros_like(count, bool)
    return count >= limit


def evaluation_params(state: optax.OptState, params: Params) -> Params:
    """Where a rule wants to be evaluated: the `evaluation_params` that it keeps in its
    state, or else the params.

    Lookahead's slow params and averages of iterates are such. Where one such rule is
    around another, the outer one's are read; where rules on parts of the params
    (optax.masked, optax.partition) keep some, each part has its own, and the rest the
    params.

    Args:
      state: Of any rule, ours or another's.
      params: Where the rule is.
    Returns:
      Like the params.
    Example:
      >>> from research.update_rules._averaging import polyak_averaging
      >>> rule, x = polyak_averaging(1.0), jnp.array([8.0])
      >>> updates, state = rule.update(jnp.array([2.0]), rule.init(x), x)
      >>> updates, state = rule.update(jnp.array([2.0]), state, x + updates)
      >>> print(evaluation_params(state, jnp.array([4.0])), evaluation_params((), x))
      [5.] [8.]
    """

    def is_a_field(path, _):
        return isinstance(path[-1], optax.tree_utils.NamedTupleKey)

    found = optax.tree_utils.tree_get_all_with_path(
        state, "evaluation_params", is_a_field
    )
    for _, kept in sorted(found, key=lambda pair: -len(pair[0])):
        params = jax.tree.map(
            lambda e, x: (
                x if isinstance(e, optax.MaskedNode) else e.astype(jnp.result_type(x))
            ),
            kept,
            params,
            is_leaf=lambda e: isinstance(e, optax.MaskedNode),
        )
    return params
