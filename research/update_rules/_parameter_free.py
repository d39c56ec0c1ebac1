"""Rules that set their own step size from the distance moved so far: DoG and Prodigy.

Both rules compute the distance from the start as the sum of their own updates, not from
the params, because in float32 a param of size 1 would round a first move of 1e-6 by
6 %. Each of these rules must therefore be the last transformation in a chain.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Params
from research.update_rules._bias_correction import bias_correction as correction_of
from research.update_rules._checks import checked
from research.update_rules._edges import complete, real_product
from research.update_rules._entry import Range, RuleEntry
from research.update_rules._transforms import (
    cast,
    increment,
    moving_average,
    working_dtype,
)


class DogState(NamedTuple):
    """State of DoG.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      moved: Difference x_t - x_0, shaped like the params.
      largest_distance: Largest distance r̄, shape (), in at least float32.
      sum_of_squares: Sum of squared gradients Σ |g_i|², shape (), in at least float32.
      learning_rate: Step size of the last step, shape (), in at least float32; 0 before
        the first step.
    """

    count: Array
    moved: Params
    largest_distance: Array
    sum_of_squares: Array
    learning_rate: Array


@checked
def dog(
    learning_rate: float | Array | Schedule = 1.0,
    initial_distance: float | Array | None = None,
    eps: float | Array = 1e-8,
) -> optax.GradientTransformation:
    """Use the largest distance from the start, divided by √(Σ |g|²), as the step size.

    u_t = -η_t r̄_t g_t / √(Σ_(i<=t) |g_i|² + ε), with r̄_t = max(r_ε, max_(i<=t) |x_i -
    x_0|). Here t is counted from 0, and norms are over all leaves. r_ε is
    initial_distance, or 1e-6 (1 + |x_0|) by default. As long as all gradients are 0,
    u_t = 0 for any ε.

    The name stands for "distance over gradients". optax.contrib.dog is the same with
    init_step=("distance", r_ε) or, by default, ("heuristic", 1e-6), but optax computes
    the distance from the rounded params. The paper has no ε. The authors' code has the
    same ε as this rule. For coupled weight decay, chain `add_decayed_weights` before
    the rule. torch does not have this rule.

    Use it if no rate can be tuned, on convex or nearly convex losses. The guarantee of
    convergence is for an average of the iterates, which the authors also keep. The rule
    starts slowly, because r̄ at most doubles in each step until it is about the
    distance to the minimum. The sum of squares never forgets a large gradient.

    Args:
      learning_rate: Learning rate η, the paper's c. Leave this rate at 1. A number of
        at least 0, a traced scalar, or a schedule t -> η_t.
      initial_distance: Initial distance r_ε, at least 0; may be traced. It should be
        less than the distance to a minimum.
      eps: Constant ε, at least 0; may be traced.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number.
    References:
      Ivgi, Hinder & Carmon, DoG is SGD's best friend, ICML 2023, equation (DoG), and
      the experiments on r_ε.
    Example:
      >>> rule = dog(initial_distance=1.0, eps=0.0)
      >>> state = rule.init(jnp.zeros(1))
      >>> for g in (3.0, 4.0):
      ...     updates, state = rule.update(jnp.array([g]), state)
      ...     print(f"{updates[0]:.3f} {state.learning_rate:.3f}")
      -1.000 0.333
      -0.800 0.200
    """
    rate_at = _rate(learning_rate)
    if initial_distance is not None:
        check_number("initial_distance", initial_distance)
    check_number("eps", eps)

    def init(params: Params):
        dtype = working_dtype(params)
        first = (
            1e-6 * (1.0 + _norm(params, dtype))
            if initial_distance is None
            else initial_distance
        )
        moved = jax.tree.map(jnp.zeros_like, params)
        sums = (jnp.array(first, dtype), jnp.zeros((), dtype), jnp.zeros((), dtype))
        return DogState(jnp.zeros((), jnp.int32), moved, *sums)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        dtype = state.largest_distance.dtype
        largest = jnp.maximum(state.largest_distance, _norm(state.moved, dtype))
        total = state.sum_of_squares + jnp.square(_norm(updates, dtype))
        denominator = total + cast(eps, total)
        step = jnp.where(
            denominator == 0,
            0.0,
            cast(rate_at(state.count), total) * largest / jnp.sqrt(denominator),
        )
        steps = jax.tree.map(lambda g: -cast(step, g) * g, updates)
        return steps, DogState(
            increment(state.count), _add(state.moved, steps), largest, total, step
        )

    return complete(optax.GradientTransformation(init, update))


class ProdigyState(NamedTuple):
    """State of Prodigy.

    The averages and sums are divided by d_0, and nu is divided by d_0², so that float32
    does not underflow.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      moved: Difference x_t - x_0, shaped like the params.
      mu, nu: Averages m_t and v_t of d g and (d g)², shaped like the params.
      gradient_sum: Weighted sum s_t of gradients, shaped like the params.
      numerator: Numerator r_t, shape (), in at least float32.
      distance: Estimate d_t of |x* - x_0|, shape (), in at least float32.
      learning_rate: Step size of the last step, shape (), in at least float32; 0 before
        the first step.
    """

    count: Array
    moved: Params
    mu: Params
    nu: Params
    gradient_sum: Params
    numerator: Array
    distance: Array
    learning_rate: Array


@checked
def prodigy(
    learning_rate: float | Array | Schedule = 1.0,
    b1: float | Array = 0.9,
    b2: float | Array = 0.999,
    b3: float | Array | None = None,
    eps: float | Array = 1e-8,
    initial_distance: float | Array = 1e-6,
    distance_factor: float | Array = 1.0,
    weight_decay: float | Array = 0.0,
    bias_correction: bool = False,
    eps_by_next_distance: bool = True,
) -> optax.GradientTransformation:
    """Take AdamW steps with an estimate of the distance to the minimum as the rate.

    The rate is η_t d_t, where d_t is the estimate of the distance. The estimate never
    decreases. m_t and v_t are Adam's moving averages, and r_t and s_t are weighted
    sums:

    m_(t+1) = β1 m_t + (1 - β1) d_t g_t,
    v_(t+1) = β2 v_t + (1 - β2) d_t² g_t²,
    r_(t+1) = β3 r_t + η_t d_t² <g_t, x_0 - x_t>,
    s_(t+1) = β3 s_t + η_t d_t² g_t,
    d_(t+1) = max(d_t, κ r_(t+1) / |s_(t+1)|_1),
    u_t = -η_t d_t (m_(t+1) / (√v_(t+1) + d_(t+1) ε) + λ x_t).
    Here t is counted from 0, and β3 = √β2 by default. λ is weight_decay and κ is
    distance_factor. As long as all gradients are 0, d does not change.

    The rule is the same as the authors' code. The paper multiplies ε by d_t instead of
    d_(t+1) (eps_by_next_distance=False). With ε = 1e-8, this changes a step by one part
    in a million while d grows. optax.contrib.prodigy multiplies every η_t by √(1 -
    β2^(t+1)) / (1 - β1^(t+1)) (bias_correction=True). The authors' code has an option
    for this. Without this correction, the length of the first step is 3.2 d_0 η (0.1 /
    √0.001). If all gradients so far are 0, optax (up to 0.2.8) divides 0 by 0, and its
    params become NaN. The arguments betas, estim_lr0 and estim_lr_coef of optax are b1,
    b2, initial_distance and distance_factor (κ) here. torch does not have the rule.

    Use it instead of tuning Adam's rate, with a schedule for η that ends at 0. To scale
    all rates, change distance_factor, not η. Since d never shrinks, a single step with
    large gradients may make d too large for ever, if these gradients point against the
    distance moved so far.

    Args:
      learning_rate: Learning rate η. A number of at least 0, a traced scalar, or a
        schedule t -> η_t. Its largest value should be 1.
      b1, b2: Decay rates β1 and β2 in [0, 1); may be traced.
      b3: Decay rate β3 in [0, 1), or None for √β2; may be traced.
      eps: Constant ε, at least 0; may be traced.
      initial_distance: Initial distance d_0, positive; may be traced. It should be less
        than the distance to a minimum.
      distance_factor: Factor κ, at least 0; may be traced.
      weight_decay: Factor λ of decoupled decay, at least 0; may be traced. If it is not
        the number 0, update needs params.
      bias_correction: Whether to multiply η_t by optax's correction.
      eps_by_next_distance: If True, ε is multiplied by d_(t+1). If False, ε is
        multiplied by d_t.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number, or
        update received no params to decay.
    References:
      Mishchenko & Defazio, Prodigy: an expeditiously adaptive parameter-free learner,
      ICML 2024, the version for Adam.
    Example:
      >>> rule = prodigy(b1=0.0, b2=0.75, eps=0.0, initial_distance=1.0)
      >>> print(rule.update(jnp.array([5.0, -3.0]), rule.init(jnp.zeros(2)))[0])
      [-2.  2.]
    """
    rate_at = _rate(learning_rate)
    for name, value in (("b1", b1), ("b2", b2), ("b3", 0.0 if b3 is None else b3)):
        check_number(name, value, below=1.0)
    check_number("eps", eps)
    check_number("initial_distance", initial_distance, positive=True)
    check_number("distance_factor", distance_factor)
    check_number("weight_decay", weight_decay)
    of_sums = b2**0.5 if b3 is None else b3

    def init(params: Params):
        dtype = working_dtype(params)
        moved, mu, nu, gradient_sum = (
            jax.tree.map(jnp.zeros_like, params) for _ in range(4)
        )
        sums = (
            jnp.zeros((), dtype),
            jnp.array(initial_distance, dtype),
            jnp.zeros((), dtype),
        )
        return ProdigyState(
            jnp.zeros((), jnp.int32), moved, mu, nu, gradient_sum, *sums
        )

    def update(updates: Params, state: Any, params: Params | None = None):
        distance = state.distance
        count = increment(state.count)
        step = cast(rate_at(state.count), distance) * distance
        if bias_correction:
            step = step * cast(
                jnp.sqrt(correction_of(b2, count)) / correction_of(b1, count), distance
            )
        grown = distance / cast(initial_distance, distance)  # d_t / d_0
        scaled = jax.tree.map(
            lambda g, m: cast(grown, m) * g.astype(m.dtype), updates, state.mu
        )
        mu = moving_average(b1, state.mu, scaled)
        nu = moving_average(b2, state.nu, jax.tree.map(jnp.square, scaled))

        inner = -_dot(updates, state.moved, distance.dtype)  # <g, x_0 - x>
        numerator = cast(of_sums, distance) * state.numerator + grown * step * inner
        gradient_sum = jax.tree.map(
            lambda s, g: cast(of_sums, s) * s + cast(step, s) * g,
            state.gradient_sum,
            scaled,
        )
        size = _dot(gradient_sum, jax.tree.map(jnp.sign, gradient_sum), distance.dtype)
        estimate = jnp.where(
            size == 0, 0.0, cast(distance_factor, size) * numerator / size
        )
        longer = jnp.maximum(distance, estimate)

        before_eps = (longer if eps_by_next_distance else distance) / cast(
            initial_distance, distance
        )

        def descend(g, m, v):
            return (
                -cast(step, m) * m / (jnp.sqrt(v) + cast(before_eps, v) * cast(eps, v))
            ).astype(g.dtype)

        steps = jax.tree.map(descend, updates, mu, nu)
        steps = _decay(steps, params, step, weight_decay)
        moved = _add(state.moved, steps)
        return steps, ProdigyState(
            count, moved, mu, nu, gradient_sum, numerator, longer, step
        )

    return complete(optax.GradientTransformation(init, update), only_real="prodigy")


def _decay(
    steps: Params, params: Params | None, step: Array, weight_decay: float | Array
) -> Params:
    if isinstance(weight_decay, float | int) and weight_decay == 0:
        return steps
    if params is None:
        raise ValueError(
            "weight decay needs the params; call update(grads, state, params)."
        )
    return jax.tree.map(
        lambda u, x: u - (cast(step * weight_decay, x) * x).astype(u.dtype),
        steps,
        params,
    )


def _rate(learning_rate: float | Array | Schedule) -> Schedule:
    if callable(learning_rate):
        return learning_rate
    check_number("learning_rate", learning_rate)
    return lambda t: jnp.asarray(learning_rate)


def _dot(a: Params, b: Params, dtype: Any) -> Array:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    wide = lambda x: x.astype(jnp.promote_types(x.dtype, dtype))
    return sum(
        (jnp.sum(real_product(wide(p), wide(q))) for p, q in pairs),
        jnp.zeros((), dtype),
    )


def _norm(tree: Params, dtype: Any) -> Array:
    return jnp.sqrt(_dot(tree, tree, dtype))


def _add(moved: Params, steps: Params) -> Params:
    return jax.tree.map(lambda x, u: x + u.astype(x.dtype), moved, steps)


RULES = (
    RuleEntry(dog, {"learning_rate": Range(0.1, 10.0, "log", 1.0)}),
    RuleEntry(prodigy, {"distance_factor": Range(0.1, 10.0, "log", 1.0)}),
)
