"""Wrappers around a rule.

The wrappers accumulate gradients, skip non-finite steps, set to 0 the entries of an
update that do not oppose the gradient, or change the dtype of the state.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from research.checks import check_dtype, check_number
from research.types import Array, Integer, Params, Scalar
from research.update_rules._checks import check_rule, checked
from research.update_rules._edges import (
    accepting_none,
    arrays,
    blanked,
    complete,
    filled,
    in_dtype,
    real_dtype,
)
from research.update_rules._transforms import agreement, cast, increment, reached


class AccumulationState(NamedTuple):
    """State of `accumulate_gradients`.

    Attributes:
      count: Number of gradients in the mean, int32, shape (). It is less than the
        argument `every` of `accumulate_gradients`.
      mean: Mean of these gradients, shaped like the params.
      value: Mean of the objective values that were passed with these gradients, shape
        (); 0 if none were passed.
      inner: State of the wrapped rule.
    """

    count: Int[Array, ""]
    mean: Params
    value: Float[Array, ""]
    inner: optax.OptState


@checked
def accumulate_gradients(
    rule: optax.GradientTransformation, every: Integer
) -> optax.GradientTransformationExtraArgs:
    """Call an update rule at every k-th step with the mean of k gradients.

    k batches then act as one large batch. At every k-th step, the wrapped rule gets the
    mean of the last k gradients and computes the update of this step. At the other
    steps the update is 0 and the state of the wrapped rule does not change. If the loss
    is a mean and all batches have the same size, the k-th update is, up to rounding
    errors, the update for one batch with the examples of all k batches.

    The method `update` also accepts extra arguments. If `grad` is passed, the wrapped
    rule gets the mean gradient in its argument `grad`. If `value` is passed, the
    wrapped rule gets the mean of the last k values of the objective in its argument
    `value`.

    optax.MultiSteps(rule, k) is the same, but by default stores the mean in float32.
    Here the mean has the dtype of the params. For a wider dtype, put `with_state_dtype`
    around this wrapper. In torch, repeated calls of backward sum the gradients instead
    of averaging them.

    All k gradients must belong to the same params, so nothing else may change the
    params in these steps. Rules that evaluate the objective with the extra argument
    `value_fn` (SVRG, SAGA, SAM, line searches) are not supported, because value_fn
    would use only the last of the k batches. For such a rule, update raises an error.

    Args:
      rule: Rule to wrap.
      every: Number k of gradients per call of the wrapped rule, a positive integer; may
        be traced.
    Returns:
      The rule that accumulates gradients.
    Raises:
      ValueError, TypeError: A concrete `every` is not a positive integer; rule is not a
        rule; in update, the rule calls value_fn.
    Example:
      >>> from research.update_rules import gradient_descent
      >>> rule = accumulate_gradients(gradient_descent(1.0), every=2)
      >>> first, state = rule.update(jnp.array([2.0]), rule.init(jnp.zeros(1)))
      >>> second, state = rule.update(jnp.array([4.0]), state)
      >>> print(abs(first), second)
      [0.] [-3.]
    """
    check_number("every", every, positive=True, integer=True)
    check_rule(rule)
    inner = accepting_none(rule)

    def init(params: Params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AccumulationState(
            jnp.zeros((), jnp.int32), zeros, jnp.zeros((), float), inner.init(params)
        )

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        value: Any = None,
        grad: Any = None,
        value_fn: Any = None,
        indices: Any = None,
        **extra: Any,
    ):
        del value_fn, indices
        count = increment(state.count)

        def follow(mean: Array, new: Array):
            return mean + (new.astype(mean.dtype) - mean) / count.astype(
                real_dtype(mean)
            )

        mean = jax.tree.map(follow, state.mean, filled(updates, params))
        mean_value = (
            state.value if value is None else follow(state.value, jnp.asarray(value))
        )

        def step():
            gradient = jax.tree.map(
                lambda m, g: m.astype(g.dtype), mean, filled(updates, params)
            )
            of_batch = {
                "value": None
                if value is None
                else mean_value.astype(jnp.result_type(value)),
                "grad": None if grad is None else gradient,
                "value_fn": _refuse,
            }
            moved, inner_state = inner.update(
                blanked(gradient, updates), state.inner, params, **extra, **of_batch
            )
            empty = _zeros(state._replace(inner=None))
            return moved, empty._replace(inner=inner_state)

        def wait():
            return _zeros(updates), AccumulationState(
                count, mean, mean_value, state.inner
            )

        return jax.lax.cond(reached(count, every), step, wait)

    return complete(optax.GradientTransformationExtraArgs(init, update), sees_none=True)


def _refuse(*arguments: Any, **named: Any) -> Array:
    raise ValueError(
        "accumulate_gradients cannot wrap a rule that calls value_fn, such as svrg, "
        "saga, sam or a line search: value_fn would use only the last of the "
        "accumulated batches. Use larger batches instead."
    )


class SkippingState(NamedTuple):
    """State of `skip_nonfinite`.

    Attributes:
      skipped: Number of steps skipped so far, int32, shape ().
      consecutive: Number of steps in a row with NaN or an infinity in the gradient or
        in the update, counted back from the last step, int32, shape (). Such steps
        count even if they were not skipped. 0 after a finite step.
      inner: State of the wrapped rule after the last step that was not skipped.
    """

    skipped: Int[Array, ""]
    consecutive: Int[Array, ""]
    inner: optax.OptState


@checked
def skip_nonfinite(
    rule: optax.GradientTransformation, max_consecutive: Integer | None = None
) -> optax.GradientTransformationExtraArgs:
    """Skip and count the steps whose gradient or update contains NaN or an infinity.

    A skipped step leaves the params and the rule's state unchanged. After
    max_consecutive skipped steps in a row, all further steps with NaN or an infinity
    are applied, until a step is finite. An applied step puts NaN or an infinity into
    the params, which shows the problem. optax.apply_if_finite is similar, but checks
    the gradient only. torch's GradScaler also skips such steps, but it scales the loss
    as well.

    Use it against rare overflows, as in half precision. Read the number of skipped
    steps with optax.tree_utils.tree_get(state, "skipped"). A training that skips many
    steps makes little progress.

    Args:
      rule: Rule to wrap. It is called at every step; the result of a skipped step is
        discarded.
      max_consecutive: Largest number of steps in a row that are skipped, a positive
        integer; may be traced. None means no limit.
    Returns:
      The rule that skips.
    Raises:
      ValueError, TypeError: A concrete max_consecutive is not a positive integer, or
        rule is not a rule.
    Example:
      >>> from research.update_rules import gradient_descent
      >>> rule = skip_nonfinite(gradient_descent(1.0))
      >>> updates, state = rule.update(
      ...     jnp.array([jnp.nan, 1.0]), rule.init(jnp.zeros(2))
      ... )
      >>> print(updates, state.skipped)
      [0. 0.] 1
    """
    if max_consecutive is not None:
        check_number("max_consecutive", max_consecutive, positive=True, integer=True)
    check_rule(rule)
    inner = accepting_none(rule)

    def init(params: Params):
        return SkippingState(
            jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), inner.init(params)
        )

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        moved, inner_state = inner.update(updates, state.inner, params, **extra)
        finite = _all_finite(updates) & _all_finite(moved)
        skip = ~finite
        if max_consecutive is not None:
            skip &= ~reached(state.consecutive, max_consecutive)
        moved, inner_state = jax.tree.map(
            lambda kept, new: jnp.where(skip, kept, new),
            (_zeros(moved), state.inner),
            (moved, inner_state),
        )
        return moved, SkippingState(
            jnp.where(skip, increment(state.skipped), state.skipped),
            jnp.where(finite, 0, increment(state.consecutive)),
            inner_state,
        )

    return complete(optax.GradientTransformationExtraArgs(init, update), sees_none=True)


class CautiousState(NamedTuple):
    """State of `cautious`.

    Attributes:
      inner: State of the wrapped rule.
    """

    inner: optax.OptState


@checked
def cautious(
    rule: optax.GradientTransformation,
    plus_one: bool = False,
    min_share: Scalar = 1e-3,
) -> optax.GradientTransformationExtraArgs:
    """Set to 0 each entry of a rule's update that does not oppose the gradient.

    With momentum, an entry of the update may have the same sign as the gradient. Such
    an entry is set to 0, and the other entries of the update of this leaf become
    larger:

    u_t <- k_t u_t / max(s_t, min_share).

    Here u_t is the rule's update of a leaf and g_t the gradient of the leaf. k_t is 1
    for entries with u_t g_t < 0 and 0 for the other entries. s_t is the mean of k_t
    over the leaf.

    The authors' code, and timm's option `caution`, are the same. For a leaf of n
    entries, the paper has n / (Σ k_t + 1) in place of 1 / max(s_t, min_share). Set
    plus_one=True for this factor. If `rule` has weight decay, the decay is part of u_t,
    so an entry with k_t = 0 does not decay. In `cautious_adamw`, an entry with k_t = 0
    decays by default. optax 0.2.8 does not have this function.

    Use it around a rule with momentum, such as `adam`, `lion` or `heavy_ball`. Around
    `gradient_descent`, `cautious` has little effect, because no entry of u_t has the
    sign of the gradient. With plus_one=False, it then changes only leaves in which some
    gradient entries are 0: s_t is below 1 there, so the other entries of the update
    become larger.

    Args:
      rule: Rule to wrap.
      plus_one: Whether to multiply by n / (Σ k_t + 1), as in the paper.
      min_share: Lower bound of s_t in the division, positive; may be traced. Ignored if
        plus_one is True.
    Returns:
      The wrapped rule.
    Raises:
      ValueError, TypeError: A concrete min_share is not a positive number, plus_one is
        not a bool, or rule is not a rule.
    References:
      Liang, Chen, Liu & Liu, Cautious optimizers: improving training with one line of
      code, 2024.
    Example:
      >>> from research.update_rules import heavy_ball
      >>> rule = cautious(heavy_ball(1.0, momentum=0.5))
      >>> updates, state = rule.update(jnp.array([4.0, 4.0]), rule.init(jnp.zeros(2)))
      >>> print(rule.update(jnp.array([-1.0, 1.0]), state)[0])
      [ 0. -6.]
    """
    check_number("min_share", min_share, positive=True)
    check_rule(rule)
    inner = accepting_none(rule)

    def keep(u: Array, g: Array):
        kept = ~(agreement(u, g.astype(u.dtype)) >= 0)  # A NaN stays visible.
        count = jnp.sum(kept, dtype=float)
        if plus_one:
            scale = kept.size / (count + 1.0)
        else:
            share = count / max(kept.size, 1)
            scale = 1.0 / jnp.maximum(share, min_share)
        return jnp.where(kept, cast(scale, u) * u, 0.0)

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        moved, inner_state = inner.update(updates, state.inner, params, **extra)
        return jax.tree.map(keep, moved, updates), CautiousState(inner_state)

    return complete(
        optax.GradientTransformationExtraArgs(
            lambda params: CautiousState(inner.init(params)), update
        ),
        sees_none=True,
    )


@checked
def with_state_dtype(
    rule: optax.GradientTransformation, dtype: Any
) -> optax.GradientTransformationExtraArgs:
    """Run a rule and its state in another dtype, such as float32 for bfloat16 params.

    The wrapper casts the inputs and the outputs of the rule:

    - Params, gradients, and the extra arguments `value` and `grad` are cast to dtype
      before they are passed to the rule.
    - Updates are cast back to the dtype of the gradient.
    - If update gets params and the objective `value_fn`, the rule gets a function in
      place of value_fn. This function takes params in dtype and casts them back to
      their original dtype. It then calls value_fn, and returns the value in dtype.

    The wrapper does not change the dtype of the params, so they are still rounded to
    this dtype after each step. optax's arguments mu_dtype and accumulator_dtype change
    the dtype of only one average in the state.

    Use it for params in half precision. In float16, a constant such as the ε = 1e-8 of
    `adam` rounds to 0. Without this wrapper, `adam` and most of its variants then
    divide 0 by 0 for an entry whose gradients are all 0.

    Args:
      rule: Rule to wrap.
      dtype: Floating dtype that is enabled in JAX.
    Returns:
      The wrapped rule. Its state has this dtype, but integers in the state stay
      integers.
    Raises:
      ValueError, TypeError: dtype is not floating, or is float64 while JAX's float64 is
        off; or `rule` has no methods init and update.
    Example:
      >>> from research.update_rules import heavy_ball
      >>> rule = with_state_dtype(heavy_ball(0.1), "float32")
      >>> state = rule.init(jnp.zeros(2, jnp.bfloat16))
      >>> updates, state = rule.update(jnp.ones(2, jnp.bfloat16), state)
      >>> print(updates.dtype, state[0].velocity.dtype)
      bfloat16 float32
    """
    wide = _floating(dtype)
    check_rule(rule)
    inner = accepting_none(rule)

    def widened(tree: Params):
        return jax.tree.map(lambda a: in_dtype(a, wide), arrays(tree))

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        value: Any = None,
        grad: Any = None,
        value_fn: Any = None,
        **extra: Any,
    ):
        @functools.wraps(value_fn or _refuse)
        def in_the_dtype_of_the_params(x: Params, *drawn: Any, **named: Any):
            assert value_fn is not None
            return widened(
                value_fn(
                    jax.tree.map(lambda a, p: a.astype(p.dtype), x, params),
                    *drawn,
                    **named,
                )
            )

        extra["value"] = None if value is None else widened(jnp.asarray(value))
        extra["grad"] = None if grad is None else widened(grad)
        extra["value_fn"] = (
            None if value_fn is None or params is None else in_the_dtype_of_the_params
        )
        of_params = None if params is None else widened(params)
        moved, state = inner.update(widened(updates), state, of_params, **extra)
        return jax.tree.map(lambda u, g: u.astype(g.dtype), moved, updates), state

    return complete(
        optax.GradientTransformationExtraArgs(
            lambda params: inner.init(widened(params)), update
        ),
        sees_none=True,
    )


def _floating(dtype: Any) -> Any:
    check_dtype("dtype", dtype)
    found = jnp.dtype(dtype)
    if jax.dtypes.canonicalize_dtype(found) != found:
        raise ValueError(
            f"dtype={dtype!r} needs JAX's float64 switched on; call "
            "research.backend.configure(x64=True) first."
        )
    return found


def _zeros(tree: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, tree)


def _all_finite(tree: Any) -> Array:
    return jnp.all(
        jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)], bool)
    )
