"""Building blocks of rules: final step, weight decay, dtype-preserving arithmetic."""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Bool, Float, Int, Num

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Integer, Params, Scalar
from research.update_rules._checks import check_schedule, checked, rate_at
from research.update_rules._edges import complete, real_dtype, real_product
from research.update_rules._groups import checked_mask
from research.update_rules._rule_info import DirectionState


class DescendState(NamedTuple):
    """State of `descend`.

    Attributes:
      learning_rate: Learning rate of the last step, shape (). Before the first step,
        the rate that the first step will use.
      count: Number of steps taken, int32, shape (). None if the rate is constant.
    """

    learning_rate: Float[Array, ""]
    count: Any = None


@checked
def descend(learning_rate: Scalar | Schedule) -> optax.GradientTransformation:
    """Step against the incoming direction: u_t = -η_t d_t.

    d_t are the incoming updates, u_t are the returned updates, and η_t is the learning
    rate at step t. Most rules of this library end with this transformation. The rate is
    rounded to each leaf's dtype before the multiplication, both for a float and for a
    traced rate. Bfloat16 leaves therefore stay bfloat16, and a traced rate gives the
    same bits as a float. optax.scale_by_learning_rate rounds the rate only if it comes
    from a schedule.

    Args:
      learning_rate: Learning rate η. A number of at least 0, a traced scalar, or a
        schedule t -> η_t with t counted from 0.
    Returns:
      The transformation. Its state is a DescendState, which holds the learning rate.
    Raises:
      ValueError, TypeError: A concrete rate is negative, not finite or not a number, or
        a schedule is not a function t -> number.
    Example:
      >>> rule = descend(lambda t: 1.0 / (1 + t))
      >>> updates, state = rule.update(jnp.array([2.0]), rule.init(jnp.zeros(1)))
      >>> updates, state = rule.update(jnp.array([2.0]), state)
      >>> print(updates, optax.tree_utils.tree_get(state, "learning_rate"))
      [-1.] 0.5
    """
    if callable(learning_rate):
        check_schedule("learning_rate", learning_rate)
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


def constant_rate(learning_rate: Scalar) -> Float[Array, ""]:
    """Return a constant rate as a floating array without a weak type.

    Rules store the rate in this form in their state, because jax.lax.scan rejects a
    state whose types change.

    Example:
      >>> print(constant_rate(1).dtype, constant_rate(jnp.bfloat16(0.5)).dtype)
      float... bfloat16
    """
    dtype = jnp.result_type(learning_rate)
    wanted = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
    return jnp.asarray(learning_rate, wanted)


def _descend_by_schedule(schedule: Schedule) -> optax.GradientTransformation:
    def rate_of(count: Array):
        rate = rate_at(schedule, count)
        return cast(
            rate, rate
        )  # A schedule may return a weakly typed Python float, which scan rejects.

    def init(params: Params):
        del params
        count = jnp.zeros((), jnp.int32)
        return DescendState(rate_of(count), count)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        rate = rate_of(state.count)
        return _scale(rate, updates), DescendState(rate, increment(state.count))

    return complete(optax.GradientTransformation(init, update))


def _scale(rate: Scalar, updates: Params) -> Params:
    return jax.tree.map(lambda d: -cast(rate, d) * d, updates)


def direction_of(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return a transformation whose updates are those of a rule, times -1.

    If the rule has the learning rate 1 and makes the step -d_t, the transformation
    returns the direction d_t. The state of the rule is wrapped in a DirectionState, so
    that `rule_info` ignores the learning rate 1.

    Example:
      >>> print(
      ...     direction_of(descend(1.0)).update(
      ...         jnp.ones(1), DirectionState(descend(1.0).init(jnp.ones(1)))
      ...     )[0]
      ... )
      [1.]
    """
    rule = optax.with_extra_args_support(rule)

    def init(params: Params):
        return DirectionState(rule.init(params))

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        updates, inner = rule.update(updates, state.direction, params, **extra)
        return jax.tree.map(operator.neg, updates), DirectionState(inner)

    return complete(optax.GradientTransformationExtraArgs(init, update))


@checked
def add_decayed_weights(
    weight_decay: Scalar, mask: Any = None, cautious: bool = False
) -> optax.GradientTransformation:
    """Add weight decay to the incoming direction d_t: d_t <- d_t + λ x_t.

    x_t are the params, and λ is weight_decay. The kind of decay depends on the place of
    this transformation in a chain.

    If the transformation is chained before a rule, the decay is coupled: λ x_t is part
    of the gradient that the rule gets, as with torch's `weight_decay` in SGD and Adam.

    `adamw` has a decoupled decay: λ x_t is not part of the gradient that Adam's
    averages get. For such a decay, chain this transformation after the transformation
    that computes the direction, such as `optax.scale_by_adam`. The chain then ends with
    `descend`, which multiplies by -η.

    optax.add_decayed_weights is the same, and also accepts a schedule for λ.

    With cautious=True, an entry decays only if d_t x_t >= 0. The decay then never moves
    an entry against -η d_t, the step of this entry without decay. optax 0.2.8 does not
    have this form.

    Args:
      weight_decay: Factor λ, at least 0; may be traced.
      mask: Pytree of booleans (a prefix of the params), or a function from params to
        such a pytree. Leaves marked True are decayed. Biases and scales are usually not
        decayed. None means that all leaves are decayed.
      cautious: If True, only entries with d_t x_t >= 0 decay. For complex entries, the
        condition is Re(d̄_t x_t) >= 0.
    Returns:
      The transformation; its update needs params.
    Raises:
      ValueError, TypeError: A concrete weight_decay is negative, not finite or not a
        number; mask is not a pytree of booleans or does not fit the params; cautious is
        not a bool; or update received no params.
    References:
      Loshchilov & Hutter, Decoupled weight decay regularization, ICLR 2019, section 2.
      Chen et al., Cautious weight decay, 2025.
    Example:
      >>> from research.update_rules import gradient_descent
      >>> rule = optax.chain(add_decayed_weights(0.5), gradient_descent(0.1))
      >>> x = jnp.array([2.0])
      >>> print(rule.update(jnp.array([1.0]), rule.init(x), x)[0])
      [-0.2]
    """
    check_number("weight_decay", weight_decay)

    def decay(d: Array, x: Array):
        pull = (cast(weight_decay, x) * x).astype(d.dtype)
        if cautious:
            pull = jnp.where(agreement(d, x.astype(d.dtype)) >= 0, pull, 0.0)
        return d + pull

    def update(updates: Params, state: Any, params: Params | None = None):
        if params is None:
            raise ValueError(
                "weight decay needs the params; call update(grads, state, params)."
            )
        return jax.tree.map(decay, updates, params), state

    rule = complete(optax.GradientTransformation(optax.init_empty_state, update))
    return rule if mask is None else complete(optax.masked(rule, checked_mask(mask)))


def agreement(
    a: Num[Array, "*shape"], b: Num[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Return sign(a) sign(b) for each entry: 1, -1, or 0 if an entry is 0.

    The signs are multiplied, and not the entries, because the product of two small
    entries would underflow. For complex entries, the result is the cosine of the angle
    between the two entries.

    Example:
      >>> print(
      ...     agreement(
      ...         jnp.array([1e-30, 2.0], "float32"),
      ...         jnp.array([1e-30, -1.0], "float32"),
      ...     )
      ... )
      [ 1. -1.]
    """
    return real_product(jnp.sign(a), jnp.sign(b))


def cast(value: Scalar, leaf: Num[Array, "*shape"]) -> Float[Array, ""]:
    """Return a hyperparameter in the dtype of a leaf, as an array of shape ().

    Without the conversion, a float32 hyperparameter would widen a bfloat16 leaf to
    float32. For a complex leaf, the result has the dtype of the real part.

    Example:
      >>> print(cast(jnp.float32(0.5), jnp.ones(2, jnp.bfloat16)).dtype)
      bfloat16
    """
    dtype = real_dtype(leaf)
    if isinstance(value, float | int) and isinstance(leaf, jax.Array):
        # A NumPy constant is not traced.
        return np.asarray(value, dtype)  # type: ignore[return-value]
    return jnp.asarray(value, dtype)


def working_dtype(params: Params) -> Any:
    """Return the widest dtype among the leaves, at least float32.

    The result is never narrower than float32, for two reasons. LAPACK has no narrower
    dtype, and a sum of squares in bfloat16 has only two correct digits. A weakly typed
    leaf, such as `jnp.asarray(1.0)`, counts like any other leaf. For a complex leaf,
    the dtype of its real part counts.

    Example:
      >>> print(
      ...     working_dtype(
      ...         {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.float16)}
      ...     )
      ... )
      float32
    """
    return functools.reduce(
        jnp.promote_types,
        map(real_dtype, jax.tree.leaves(params)),
        jnp.dtype("float32"),
    )


def like(value: Num[Array, "*shape"], leaf: Num[Array, "..."]) -> Num[Array, "*shape"]:
    """Return a value in the dtype of a leaf.

    If the value already has this dtype, it is returned unchanged.

    Example:
      >>> print(like(jnp.ones(2), jnp.zeros((), jnp.bfloat16)).dtype)
      bfloat16
    """
    return value if value.dtype == leaf.dtype else value.astype(leaf.dtype)


def moving_average(decay: Scalar, average: Params, value: Params) -> Params:
    """Update each leaf of a moving average in its own dtype: a <- (1 - β) v + β a.

    Args:
      decay: Decay rate β in [0, 1); may be traced.
      average, value: Average a and new value v, pytrees of the same structure.
    Returns:
      The new average.
    Example:
      >>> print(moving_average(0.75, {"w": jnp.array(4.0)}, {"w": jnp.array(8.0)})["w"])
      5.0
    """

    def move(a: Array, v: Array):
        # Sum in optax's order. A fused multiply-add rounds only one of the two
        # products. Chaotic runs (RMSProp at a minimum) amplify a difference in the
        # last bit to whole digits.
        return cast(1.0 - decay, a) * like(v, a) + cast(decay, a) * a

    return jax.tree.map(move, average, value)


def increment(count: Int[Array, ""]) -> Int[Array, ""]:
    """Return count + 1, or count if it is already the largest int32.

    Without this limit, the count of a very long run would wrap around to a negative
    number.

    Example:
      >>> print(increment(jnp.int32(2)), increment(jnp.int32(2147483647)))
      3 2147483647
    """
    return count + (count < jnp.iinfo(count.dtype).max)


def differ(a: Params, b: Params) -> Bool[Array, ""]:
    """Return whether any corresponding entries of two pytrees differ, shape ().

    NaN differs from NaN.

    Example:
      >>> print(differ({"w": jnp.ones(2)}, {"w": jnp.array([1.0, 2.0])}))
      True
    """
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return functools.reduce(
        operator.or_, (jnp.any(x != y) for x, y in pairs), jnp.zeros((), bool)
    )


def reached(count: Int[Array, ""], limit: Integer) -> Bool[Array, ""]:
    """Return whether count >= limit.

    If the limit is larger than any value of the count's dtype, the result is False.

    Example:
      >>> print(reached(jnp.int32(3), 3), reached(jnp.int32(2147483647), 2**31))
      True False
    """
    if not isinstance(limit, Tracer) and int(limit) > jnp.iinfo(count.dtype).max:
        return jnp.zeros_like(count, bool)
    return count >= limit


def evaluation_params(state: optax.OptState, params: Params) -> Params:
    """Return the params at which to evaluate the objective or the model.

    Some rules move the params, but recommend other params as their result, for example
    Lookahead's slow params or an average of the iterates. Such a rule has a field
    `evaluation_params` in its state, and this field is returned. If the state has no
    such field, `params` is returned. If one averaging rule wraps another, the field of
    the outer rule is returned. If different rules move different parts of the params
    (optax.masked, optax.partition), each part is taken from the field of the rule that
    moves this part. If this rule has no such field, the part is taken from `params`.

    Args:
      state: State of any rule of this library or of optax.
      params: Current params, which the rule moves.
    Returns:
      Params at which to evaluate, with the structure and dtypes of params. In the
      example, the iterates are 6 and 4, and the rule recommends their mean.
    Example:
      >>> from research.update_rules._averaging import polyak_averaging
      >>> rule, x = polyak_averaging(1.0), jnp.array([8.0])
      >>> updates, state = rule.update(jnp.array([2.0]), rule.init(x), x)
      >>> updates, state = rule.update(jnp.array([2.0]), state, x + updates)
      >>> print(evaluation_params(state, jnp.array([4.0])), evaluation_params((), x))
      [5.] [8.]
    """

    def is_a_field(path: Any, _: Any):
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
