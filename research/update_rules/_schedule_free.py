"""Schedule-free rules: descent and averaging without a learning rate schedule.

The gradient is taken at a point between a fast sequence and the average of this
sequence.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Float, Int

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Integer, Params, Scalar
from research.update_rules._bias_correction import bias_correction
from research.update_rules._checks import check_rate, checked, rate_at
from research.update_rules._edges import (
    abs_square,
    blanked,
    complete,
    filled,
    sizes_like,
    unmoved,
)
from research.update_rules._entry import MOMENTUM, Range, RuleEntry, step_rate
from research.update_rules._transforms import (
    DescendState,
    add_decayed_weights,
    cast,
    increment,
    moving_average,
)


class ScheduleFreeState(NamedTuple):
    """State of the schedule-free rules, `schedule_free_sgd` and `schedule_free_adamw`.

    Attributes:
      evaluation_params: Average x_t of the fast sequence z_t, shaped like the params.
        `research.descent` evaluates the objective at x_t during the run, and x_t is the
        result at the end. Before the first step, x_t equals the params.
      lead: Difference z_t - x_t between the fast sequence and its average, shaped like
        the params.
      weight_sum: Sum of γ^p over the steps taken, shape (). γ is the rate of a step,
        including the warm-up, and p is weight_power.
      direction: State of the transformation that turns gradients into directions. The
        transformation normalises the gradient (in AdamW) and adds the weight decay.
      rate: The learning rate, in a DescendState. This class is also the state of
        `descend`.
    """

    evaluation_params: Params
    lead: Params
    weight_sum: Float[Array, ""]
    direction: Any
    rate: Any


@checked
def schedule_free_sgd(
    learning_rate: Scalar | Schedule,
    warmup_steps: Integer = 0,
    b1: Scalar = 0.9,
    weight_decay: Scalar = 0.0,
    weight_power: Scalar = 2.0,
) -> optax.GradientTransformation:
    """Descend with a fast sequence z and its average x, without a schedule.

    z_(t+1) = z_t - γ_t (g_t + λ y_t),
    x_(t+1) = (1 - c_t) x_t + c_t z_(t+1),
    c_t = γ_t^p / Σ_(i<=t) γ_i^p,
    γ_t = η_t min(1, t / T).

    z is a fast sequence of gradient steps, and x is its average. The params are y_t =
    (1 - β) z_t + β x_t, where β is b1, and the gradient g_t is taken at y_t. Here t is
    counted from 1, and z_1 = x_1 = y_1. γ_t is the learning rate η_t with a warm-up of
    T steps. Without a warm-up (T = 0), γ_t = η_t. λ is weight_decay and p is
    weight_power. x_(t+1) is the average of z_2, ..., z_(t+1) with the weights γ_1^p,
    ..., γ_t^p. As long as all these weights are 0, c_t = 0.

    β = 0 is plain descent with Polyak-Ruppert averaging, and β = 1 is primal averaging,
    in which the gradients are taken at the average x_t. Defazio et al. use p = 2. In
    c_t, optax and the authors' code replace γ_i by the largest rate up to step i. The
    result is the same as long as the rate does not fall.

    optax.contrib.schedule_free_sgd (up to 0.2.8) differs in four more ways. First, with
    a warm-up, the steps in optax use the rates 0, 1/T, 2/T, ... times η. The weights of
    the average use 1/T, 2/T, 3/T, ... times η. The first step in optax therefore does
    not move the params. Second, with a schedule, optax computes the weight of a step
    from the rate of the next step. Third, β must be positive in optax. Fourth, the sum
    of weights in optax has the params' dtype, so in bfloat16 the sum stops growing
    after 256 equal weights. torch does not have this rule.

    Use it instead of a schedule that depends on the length of the run. Evaluate the
    model at the field `evaluation_params` of the state, not at the params. η can often
    be larger than the rate of plain descent. If the run is unstable, tune β.

    Args:
      learning_rate: Learning rate η. A number of at least 0, a traced scalar, or a
        schedule (number of earlier steps -> η).
      warmup_steps: Length T of the warm-up, an integer of at least 0; may be traced.
      b1: Weight β of x_t in the params y_t, from 0 to 1; may be traced.
      weight_decay: Factor λ of the decay λ y_t, at least 0; may be traced.
      weight_power: Exponent p, at least 0; may be traced. 0 gives the same weight to
        all z_t.
    Returns:
      The rule; its update needs params. Its state holds x_t in `evaluation_params` and
      z_t - x_t in `lead`.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number, or
        update received no params.
    References:
      Defazio et al., The road less scheduled, NeurIPS 2024, introduction, and algorithm
      1 for the weights.
    Example:
      >>> rule, x = schedule_free_sgd(0.5, b1=0.5), jnp.array([8.0])
      >>> state = rule.init(x)
      >>> for _ in range(2):
      ...     updates, state = rule.update(x, state, x)
      ...     x = x + updates
      >>> print(x, state.evaluation_params, state.evaluation_params + state.lead)
      [2.5] [3.] [2.]
    """
    return _schedule_free(
        [], learning_rate, warmup_steps, b1, weight_decay, weight_power
    )


@checked
def schedule_free_adamw(
    learning_rate: Scalar | Schedule,
    warmup_steps: Integer = 0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    weight_power: Scalar = 2.0,
) -> optax.GradientTransformation:
    """Schedule-free AdamW: `schedule_free_sgd` with Adam's normalised gradient.

    d_t = g_t / (√v̂_t + ε), with v_t = β2 v_(t-1) + (1 - β2) g_t² and
    v̂_t = v_t / (1 - β2^t).

    The rule is `schedule_free_sgd` with d_t instead of the gradient g_t. Here v_0 = 0,
    and t is counted from 1. d_t is Adam's direction without the moving average of the
    gradients. The average of the iterates replaces this moving average.

    optax.contrib.schedule_free_adamw differs from this rule in the ways that
    `schedule_free_sgd` lists for optax.contrib.schedule_free_sgd. The authors' first
    code multiplied the rate by √(1 - β2^t) instead of dividing v_t by 1 - β2^t. The
    factor √(1 - β2^t) grows with t, and it also entered the weights c_t, with which
    `schedule_free_sgd` adds z_(t+1) to the average. So the later iterates had a larger
    weight in the average, and the first ones a smaller weight. For example, with a
    constant learning rate and β2 = 0.999, c_2 was 0.667 instead of 0.5.

    Use it instead of AdamW with a schedule if the length of the run is not known.
    Evaluate the model at the field `evaluation_params` of the state, not at the params.

    Args:
      learning_rate, warmup_steps, b1, weight_decay, weight_power: As in
        `schedule_free_sgd`; b1 is β.
      b2: Decay rate β2 in [0, 1); may be traced.
      eps: Constant ε, at least 0; may be traced.
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number, or
        update received no params.
    References:
      Defazio et al., The road less scheduled, NeurIPS 2024, algorithm 1.
    Example:
      >>> rule, x = schedule_free_adamw(0.5, eps=0.0), jnp.array([2.0])
      >>> print(rule.update(jnp.array([7.0]), rule.init(x), x)[0].round(3))
      [-0.5]
    """
    check_number("b2", b2, below=1.0)
    check_number("eps", eps)
    return _schedule_free(
        [_normalise(b2, eps)],
        learning_rate,
        warmup_steps,
        b1,
        weight_decay,
        weight_power,
    )


class _NormaliseState(NamedTuple):
    count: Int[Array, ""]
    nu: Params


def _normalise(b2: Scalar, eps: Scalar) -> optax.GradientTransformation:
    def init(params: Params):
        return _NormaliseState(
            jnp.zeros((), jnp.int32), jax.tree.map(sizes_like, params)
        )

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        nu = moving_average(b2, state.nu, jax.tree.map(abs_square, updates))
        correction = bias_correction(b2, count)

        def divide(g: Array, v: Array):
            return (g / (jnp.sqrt(v / cast(correction, v)) + cast(eps, v))).astype(
                g.dtype
            )

        return jax.tree.map(divide, updates, nu), _NormaliseState(count, nu)

    return complete(optax.GradientTransformation(init, update))


def _schedule_free(
    links: Sequence[optax.GradientTransformation],
    learning_rate: Scalar | Schedule,
    warmup_steps: Integer,
    b1: Scalar,
    weight_decay: Scalar,
    weight_power: Scalar,
) -> optax.GradientTransformation:
    check_number("b1", b1)
    if not isinstance(b1, Tracer) and float(b1) > 1.0:
        raise ValueError(
            f"b1 must be a finite number, at least 0 and at most 1; got b1={b1!r}."
        )
    check_number("weight_power", weight_power)
    direction = optax.chain(*links, add_decayed_weights(weight_decay))
    start_rate, rate_of = _rate(learning_rate, warmup_steps)

    def init(params: Params):
        average, lead = (
            jax.tree.map(jnp.copy, params),
            jax.tree.map(jnp.zeros_like, params),
        )
        return ScheduleFreeState(
            average, lead, jnp.zeros(()), direction.init(params), start_rate()
        )

    def update(updates: Params, state: Any, params: Params | None = None):
        gradient = filled(updates, params)
        d, direction_state = direction.update(gradient, state.direction, params)
        rate, rate_state = rate_of(state.rate)
        weight = (rate**weight_power).astype(state.weight_sum.dtype)
        weight_sum = state.weight_sum + weight
        share = jnp.where(
            weight_sum == 0, 0.0, weight / weight_sum
        )  # As long as all rates are 0, x = y = z.

        # Use differences instead of positions. An update of 1e-13 then keeps its
        # digits if the params are of size 1.
        ahead = jax.tree.map(
            lambda w, d: w - cast(rate, w) * d.astype(w.dtype), state.lead, d
        )  # z_(t+1) - x_t
        lead = jax.tree.map(lambda w: cast(1.0 - share, w) * w, ahead)
        steps = jax.tree.map(
            lambda g, w, a: (
                cast(1.0 - b1, w) * (a - w) + cast(b1 * share, w) * a
            ).astype(g.dtype),
            gradient,
            state.lead,
            ahead,
        )
        average = jax.tree.map(
            lambda y, u, w: y + u.astype(y.dtype) - cast(1.0 - b1, w) * w,
            params,
            steps,
            lead,
        )
        # A leaf without a gradient keeps x and z.
        average = unmoved(average, state.evaluation_params, updates)
        lead = unmoved(lead, state.lead, updates)
        return blanked(steps, updates), ScheduleFreeState(
            average, lead, weight_sum, direction_state, rate_state
        )

    return complete(optax.GradientTransformation(init, update), sees_none=True)


def _rate(learning_rate: Scalar | Schedule, warmup_steps: Integer):
    """Return two functions for the learning rate.

    The first, () -> state, returns the initial state of the rate. The second, state ->
    (γ_t, next state), returns the rate of a step.
    """
    check_number("warmup_steps", warmup_steps, integer=True)
    traced = isinstance(warmup_steps, Tracer)
    # An array may be traced later, as in optax.inject_hyperparams. The state must then
    # have the same structure, with a count.
    warms_up = traced or isinstance(warmup_steps, jax.Array) or int(warmup_steps) > 0
    length = (
        jnp.maximum(warmup_steps, 1) if traced else float(max(int(warmup_steps), 1))
    )  # A float, because int32 overflows at 2^31.
    check_rate(learning_rate)
    if not (warms_up or callable(learning_rate)):
        constant = lambda: jnp.asarray(learning_rate, float)
        return (
            lambda: DescendState(constant()),
            lambda state: (constant(), DescendState(constant())),
        )

    def rate_of(count: Array):
        rate = jnp.asarray(rate_at(learning_rate, count), float)
        return rate * jnp.minimum(1.0, (count + 1.0) / length) if warms_up else rate

    def start():
        count = jnp.zeros((), jnp.int32)
        return DescendState(rate_of(count), count)

    def advance(state: DescendState):
        rate = rate_of(state.count)
        return rate, DescendState(rate, increment(state.count))

    return start, advance


RULES = (
    RuleEntry(
        schedule_free_sgd,
        {"learning_rate": Range(1e-3, 100.0, "log", 1.0), "b1": MOMENTUM},
    ),
    RuleEntry(
        schedule_free_adamw, {"learning_rate": step_rate(2.5e-3), "b1": MOMENTUM}
    ),
)
