"""Rules that wrap another rule and keep separate params for evaluation.

Lookahead keeps slow params. The averaging rules keep an average of the iterates (the
params x_t after each step t).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Int

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Integer, Params, Scalar
from research.update_rules._bias_correction import bias_correction
from research.update_rules._checks import checked, make_inner
from research.update_rules._edges import (
    accepting_none,
    blanked,
    complete,
    dtype_beside,
    filled,
)
from research.update_rules._entry import Range, RuleEntry, gradient_rate
from research.update_rules._first_order import gradient_descent, heavy_ball
from research.update_rules._transforms import cast, increment, reached

Constructor = Callable[..., optax.GradientTransformation]


class LookaheadState(NamedTuple):
    """State of `lookahead`, whose docstring defines the symbols.

    Attributes:
      count: Number of inner steps since the last synchronisation, int32, shape ().
      evaluation_params: Slow params φ, which change only at a synchronisation, shaped
        like the params.
      inner: State of the inner rule.
    """

    count: Int[Array, ""]
    evaluation_params: Params
    inner: optax.OptState


@checked
def lookahead(
    learning_rate: Scalar | Schedule,
    inner: Constructor | None = None,
    sync_period: Integer = 5,
    slow_step_size: Scalar = 0.5,
    reset_state: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Let another rule take k steps, then move back part of the way.

    After every k steps: φ <- φ + α (x - φ), x <- φ.

    The other rule, called the inner rule, moves the params x (the paper's fast
    weights). The slow params φ start at the initial x. They change only in every k-th
    step, which is called a synchronisation. k is sync_period and α is slow_step_size.
    Evaluate the model at φ, which `research.update_rules.evaluation_params` returns.
    optax.lookahead is the same, but its params are a pair of fast and slow weights.
    Here x and φ have exactly the same bits after each synchronisation. In optax they
    may differ by rounding errors, because optax updates x and φ separately. torch does
    not have this rule.

    Use it to calm a rule that overshoots or is noisy. Lookahead stores one more copy of
    the params. With α = 1 and reset_state=False, the params move as with the inner rule
    alone.

    Args:
      learning_rate: Learning rate η of the inner rule. Any value that the inner
        constructor accepts.
      inner: Constructor of the inner rule, with learning_rate as its first argument.
        Use functools.partial to set other arguments. None means heavy_ball.
      sync_period: Number k of inner steps per synchronisation, a positive integer; may
        be traced.
      slow_step_size: Step size α of the slow params, from 0 to 1; may be traced.
      reset_state: Whether to reset the state of the inner rule after each
        synchronisation. The inner rule's momentum then restarts from 0, and its
        schedule from the first rate.
    Returns:
      The rule, an optax.GradientTransformationExtraArgs. Its update needs params and
      passes extra arguments on to the inner rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        update got no params, or inner is not a constructor.
    References:
      Zhang, Lucas, Hinton & Ba, Lookahead optimizer: k steps forward, 1 step back,
      NeurIPS 2019, algorithm 1.
    Example:
      >>> rule, x = lookahead(1.0, gradient_descent, sync_period=2), jnp.array([8.0])
      >>> updates, state = rule.update(jnp.array([2.0]), rule.init(x), x)
      >>> print(x + updates, state.evaluation_params)
      [6.] [8.]
      >>> # The inner rule moves to 4. The synchronisation moves half way back to 8.
      >>> updates, state = rule.update(jnp.array([2.0]), state, x + updates)
      >>> print(updates, state.evaluation_params)
      [0.] [6.]
    """
    check_number("sync_period", sync_period, positive=True, integer=True)
    check_number("slow_step_size", slow_step_size)
    if not isinstance(slow_step_size, Tracer) and slow_step_size > 1:
        raise ValueError(
            "slow_step_size must lie between 0 and 1; got "
            f"slow_step_size={slow_step_size!r}."
        )
    rule = accepting_none(make_inner(inner, learning_rate, heavy_ball))

    def init(params: Params):
        return LookaheadState(
            jnp.zeros((), jnp.int32), _copied(params), rule.init(params)
        )

    def update(updates: Any, state: Any, params: Any = None, **extra: Any):
        _require_params(params, "lookahead")
        updates, inner_state = rule.update(updates, state.inner, params, **extra)
        count = increment(state.count)
        is_due = reached(count, sync_period)

        def come_back(x: Array, u: Array, slow: Array):
            ahead = x + u.astype(x.dtype) - slow.astype(x.dtype)
            return jnp.where(
                is_due, u - (cast(1.0 - slow_step_size, x) * ahead).astype(u.dtype), u
            )

        moved = jax.tree.map(
            come_back, params, filled(updates, params), state.evaluation_params
        )
        updates = blanked(moved, updates)
        after = optax.apply_updates(params, filled(updates, params))
        slow = jax.tree.map(
            lambda s, x: jnp.where(is_due, x, s), state.evaluation_params, after
        )
        if reset_state:
            inner_state = jax.tree.map(
                lambda s, new: jnp.where(is_due, new, s), inner_state, rule.init(after)
            )
        return updates, LookaheadState(jnp.where(is_due, 0, count), slow, inner_state)

    return complete(optax.GradientTransformationExtraArgs(init, update), sees_none=True)


class AveragingState(NamedTuple):
    """State of `polyak_averaging` and `exponential_averaging`.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      evaluation_params: Average of the iterates (the params after each step), shaped
        like the params.
      inner: State of the inner rule.
    """

    count: Int[Array, ""]
    evaluation_params: Params
    inner: optax.OptState


@checked
def polyak_averaging(
    learning_rate: Scalar | Schedule,
    inner: Constructor | None = None,
    start: Integer = 0,
    accumulator_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Take the steps of another rule, and compute the mean of the iterates.

    x̄_t = (x_(s+1) + ... + x_t) / (t - s), where x_t are the params after step t, called
    iterates, and s is start. The mean leaves out the first s iterates.

    Up to t = s + 1, x̄_t is x_t itself. The averaging does not change the steps of the
    other rule (the inner rule). `research.update_rules.evaluation_params` returns the
    mean. `research.descent` evaluates the objective at the mean.

    Polyak and Juditsky average x_0 to x_(t-1), the params before each step.
    torch.optim.ASGD with t0 = s - 1 and lambd=0 computes the same mean. torch's default
    lambd=1e-4 also decays the params and the rate. optax does not have this rule.

    Use it with a rate that is constant or decays more slowly than 1 / t. The mean then
    averages out the noise that such a rate leaves in the iterates. Suppose that the
    objective is smooth and strongly convex, and that the rate decays more slowly than 1
    / t. Then the mean is asymptotically as accurate as the best estimate of the
    minimiser from the same number of examples. Choose a late start, because the mean
    never forgets its first iterates. The rule computes the iterates from its own
    updates. A transformation that changes updates, such as `reduce_on_plateau`, must
    therefore be part of the inner rule, not follow this rule in a chain.

    Args:
      learning_rate: Learning rate η of the inner rule. Any value that the inner
        constructor accepts.
      inner: Constructor of the inner rule, with learning_rate as its first argument.
        Use functools.partial to set other arguments. None means gradient_descent.
      start: Number s of first steps that the mean leaves out, an integer of at least 0;
        may be traced.
      accumulator_dtype: Dtype of the mean; None means the dtype of the params. In
        bfloat16, rounding loses the small changes of a mean of 256 or more iterates.
    Returns:
      The rule, an optax.GradientTransformationExtraArgs. Its update needs params and
      passes extra arguments on to the inner rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        update got no params, or inner is not a constructor.
    References:
      Polyak & Juditsky, Acceleration of stochastic approximation by averaging, SIAM J.
      Control Optim. 30 (1992), equation (2). Ruppert, Efficient estimations from a
      slowly convergent Robbins-Monro process, Cornell (1988).
    Example:
      >>> rule, x = polyak_averaging(1.0), jnp.array([8.0])
      >>> updates, state = rule.update(jnp.array([2.0]), rule.init(x), x)
      >>> # x moves to 6, then to 2.
      >>> updates, state = rule.update(jnp.array([4.0]), state, x + updates)
      >>> print(state.evaluation_params)
      [4.]
    """
    check_number("start", start, integer=True)
    if not isinstance(start, Tracer):
        start = min(
            int(start), int(jnp.iinfo(jnp.int32).max)
        )  # The step count cannot exceed this.

    def weight(count: Array):
        return 1.0 / jnp.maximum(count - start, 1).astype(float)

    return _averaging(
        "polyak_averaging",
        make_inner(inner, learning_rate, gradient_descent),
        weight,
        accumulator_dtype,
    )


@checked
def exponential_averaging(
    learning_rate: Scalar | Schedule,
    inner: Constructor | None = None,
    decay: Scalar = 0.999,
    debias: bool = True,
    accumulator_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Take the steps of another rule, and compute a decaying average of the iterates.

    x̄_t = β x̄_(t-1) + (1 - β) x_t.

    Here x̄_t is the average, x_t are the iterates (the params after step t), and β is
    decay. With debias=True the average starts from x̄_0 = 0 and is divided by 1 - β^t,
    so the result is a weighted mean of x_1, ..., x_t without x_0. With debias=False the
    average starts from x̄_0 = x_0, as is usual for networks, and x_0 has the weight β^t
    in x̄_t.

    The averaging does not change the steps of the other rule (the inner rule).
    `research.update_rules.evaluation_params` returns the average. `research.descent`
    evaluates the objective at the average. With debias=True, the average is
    optax.ema(β) of the params. With debias=False, the average is that of torch's
    AveragedModel with get_ema_multi_avg_fn(β), except that torch's first average is
    x_1.

    Use it where the rate stays constant and the last iterate is noisy. The average
    covers about the last 1 / (1 - β) iterates. Choose β so that this number of iterates
    is a fraction of an epoch. Unlike the mean of `polyak_averaging`, this average
    forgets the first iterates, but it never removes all of the noise.

    Args:
      learning_rate: Learning rate η of the inner rule. Any value that the inner
        constructor accepts.
      inner: Constructor of the inner rule, with learning_rate as its first argument.
        Use functools.partial to set other arguments. None means gradient_descent.
      decay: Decay β in [0, 1); may be traced.
      debias: Whether to leave out x_0, by dividing by 1 - β^t (see above).
      accumulator_dtype: Dtype of the average; None means the dtype of the params. In
        bfloat16, rounding loses the small changes of an average with β > 0.996.
    Returns:
      The rule, an optax.GradientTransformationExtraArgs. Its update needs params and
      passes extra arguments on to the inner rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        update got no params, or inner is not a constructor.
    References:
      Ruppert (1988) and Polyak & Juditsky (1992) for averaging; Kingma & Ba, Adam, ICLR
      2015, section 7.2 (temporal averaging) for these weights and the bias correction.
    Example:
      >>> rule, x = exponential_averaging(1.0, decay=0.5), jnp.array([8.0])
      >>> updates, state = rule.update(jnp.array([2.0]), rule.init(x), x)
      >>> # x moves to 6, then to 3. The average is (6 / 4 + 3 / 2) / (3 / 4).
      >>> updates, state = rule.update(jnp.array([3.0]), state, x + updates)
      >>> print(state.evaluation_params)
      [4.]
    """
    check_number("decay", decay, below=1.0)

    def weight(count: Array):
        return (
            (1.0 - decay) / bias_correction(decay, count)
            if debias
            else jnp.asarray(1.0 - decay)
        )

    return _averaging(
        "exponential_averaging",
        make_inner(inner, learning_rate, gradient_descent),
        weight,
        accumulator_dtype,
    )


def _averaging(
    name: str,
    rule: optax.GradientTransformationExtraArgs,
    weight: Callable[[Array], Array],
    dtype: Any,
) -> optax.GradientTransformationExtraArgs:
    """Return a rule that keeps a weighted average of the iterates.

    x̄_t = x̄_(t-1) + w_t (x_t - x̄_(t-1)), from x̄_0 = x_0. Each averaging rule of this
    file passes its own weight w_t.
    """

    rule = accepting_none(rule)

    def init(params: Params):
        return AveragingState(
            jnp.zeros((), jnp.int32), _copied(params, dtype), rule.init(params)
        )

    def update(updates: Any, state: Any, params: Any = None, **extra: Any):
        _require_params(params, name)
        updates, inner_state = rule.update(updates, state.inner, params, **extra)
        count = increment(state.count)
        w = weight(count)
        average = jax.tree.map(
            lambda a, x: a + cast(w, a) * (x.astype(a.dtype) - a),
            state.evaluation_params,
            optax.apply_updates(params, filled(updates, params)),
        )
        return updates, AveragingState(count, average, inner_state)

    return complete(optax.GradientTransformationExtraArgs(init, update), sees_none=True)


def _copied(params: Params, dtype: Any = None) -> Params:
    """Return a copy of the params, so that params and state may both be donated."""
    return jax.tree.map(
        lambda x: jnp.array(x, None if dtype is None else dtype_beside(x, dtype)),
        params,
    )


def _require_params(params: Params | None, name: str) -> None:
    if params is None:
        raise ValueError(f"{name} needs the params; call update(grads, state, params).")


RULES = (
    RuleEntry(lookahead, {"learning_rate": gradient_rate(0.01)}),
    RuleEntry(
        polyak_averaging, {"learning_rate": gradient_rate(0.01)}, aliases=("asgd",)
    ),
    RuleEntry(
        exponential_averaging,
        {
            "learning_rate": gradient_rate(0.01),
            "decay": Range(0.9, 0.9999, "one_minus", 0.999),
        },
    ),
)
