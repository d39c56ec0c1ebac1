"""Rules that set their own step size, from the distance moved or the objective's value.

DoG, DoWG, Prodigy and D-Adaptation estimate the distance to the minimum. COCOB and
Mechanic come from algorithms for betting on a coin. MoMo uses the objective's value.
DoG, DoWG, Prodigy, COCOB and Mechanic compute the distance from the start as the sum of
their own updates. Each of these five must therefore be the last transformation in a
chain. They do not compute the distance from the params, because in float32 the rounding
of a param of size 1 would change a first move of 1e-6 by up to 6 %.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Float, Int

from research.checks import check_number
from research.schedules import Schedule
from research.sizes import check_most
from research.types import Array, Params, Scalar
from research.update_rules._adam import adam
from research.update_rules._bias_correction import bias_correction as correction_of
from research.update_rules._checks import check_rate, checked, make_inner, rate_at
from research.update_rules._edges import (
    abs_square,
    accepting_none,
    blanked,
    complete,
    filled,
    overflowed,
    quotient,
    real_product,
    sizes_like,
    with_range,
    within_range,
)
from research.update_rules._entry import MOMENTUM, Range, RuleEntry, gradient_rate
from research.update_rules._transforms import (
    add_decayed_weights,
    cast,
    increment,
    like,
    moving_average,
    working_dtype,
)


class DogState(NamedTuple):
    """State of `dog`, whose docstring defines the symbols.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      moved: Difference x_t - x_0 between the params and their start, shaped like the
        params.
      largest_distance: Distance r̄ that the last step used, shape (), in at least
        float32. r̄ is the larger of r_ε and the largest |x_i - x_0| so far. Before the
        first step, r̄ is r_ε.
      sum_of_squares: Sum of |g_i|² over the steps taken, shape (), in at least float32.
      learning_rate: Step size of the last step, shape (), in at least float32; 0 before
        the first step.
    """

    count: Int[Array, ""]
    moved: Params
    largest_distance: Float[Array, ""]
    sum_of_squares: Float[Array, ""]
    learning_rate: Float[Array, ""]


@checked
def dog(
    learning_rate: Scalar | Schedule = 1.0,
    initial_distance: Scalar | None = None,
    eps: Scalar = 1e-8,
) -> optax.GradientTransformation:
    """Use the largest distance from the start, divided by √(Σ |g|²), as the step size.

    u_t = -η_t r̄_t g_t / √(Σ_(i<=t) |g_i|² + ε), with r̄_t = max(r_ε, max_(i<=t) |x_i -
    x_0|). Here x_t are the params, g_t is the gradient, u_t the update and η_t the
    learning rate at step t, with t counted from 0. Norms are over all leaves. r̄_t is
    the largest distance of the params from their start so far, but at least r_ε. r_ε is
    initial_distance, or 1e-6 (1 + |x_0|) by default. As long as all gradients are 0,
    u_t = 0 for any ε.

    The name stands for "distance over gradients". With init_step=("distance", r_ε),
    optax.contrib.dog is the same. With init_step=("heuristic", 1e-6), optax's r_ε is
    the default r_ε here. But optax subtracts x_0 from x_i, which loses digits while the
    distance is small. This rule sums its own updates to get x_i - x_0. The paper by
    Ivgi et al. has no ε. The authors' code has the same ε as this rule. For coupled
    weight decay, chain `add_decayed_weights` before the rule. torch does not have this
    rule.

    Use it on convex or nearly convex losses if no rate can be tuned. The proof of
    convergence is for an average of the iterates, not for the last iterate. The rule
    starts slowly, because r_ε is small and, with η = 1, r̄_t at most doubles in a step.
    A large gradient stays in the sum of squares and shortens all later steps.

    Args:
      learning_rate: Learning rate η (c in the paper by Ivgi et al.). Leave this rate at
        1. A number of at least 0, a traced scalar, or a schedule (number of earlier
        steps -> η).
      initial_distance: Initial distance r_ε, at least 0; may be traced. It should be
        less than the distance to a minimum.
      eps: Constant ε, at least 0; may be traced.
    Returns:
      The rule. The field `learning_rate` of its state is the last step size, which is
      the factor of -g_t in u_t.
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
    """State of `prodigy`, whose docstring defines the symbols.

    The fields mu, gradient_sum and numerator are stored divided by the initial distance
    d_0, and the field nu is stored divided by d_0², so that float32 does not underflow.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      moved: Difference x_t - x_0, shaped like the params.
      mu, nu: Moving averages m_t of d_i g_i and v_t of (d_i g_i)² over the steps i,
        shaped like the params.
      gradient_sum: Weighted sum s_t of gradients, shaped like the params.
      numerator: Weighted sum r_t of the products <g_t, x_0 - x_t>, shape (), in at
        least float32. d_t is computed from r_t.
      distance: Estimate d_t of the distance |x* - x_0| from the start to the minimum
        x*, shape (), in at least float32.
      learning_rate: Step size of the last step, shape (), in at least float32; 0 before
        the first step.
    """

    count: Int[Array, ""]
    moved: Params
    mu: Params
    nu: Params
    gradient_sum: Params
    numerator: Float[Array, ""]
    distance: Float[Array, ""]
    learning_rate: Float[Array, ""]


@checked
def prodigy(
    learning_rate: Scalar | Schedule = 1.0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: Scalar | None = None,
    eps: Scalar = 1e-8,
    initial_distance: Scalar = 1e-6,
    distance_factor: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
    bias_correction: bool = False,
    eps_by_next_distance: bool = True,
) -> optax.GradientTransformation:
    """Take AdamW steps whose rate is an estimate of the distance to the minimum.

    The rate is η_t d_t, where η_t is the learning rate and d_t is an estimate of the
    distance from the start to the minimum. The estimate never decreases. At step t,
    counted from 0, g_t is the gradient, x_t are the params and u_t is the update. m_t
    and v_t are moving averages as in Adam, and r_t and s_t are weighted sums from which
    d_t is computed. All four start at 0, and d_0 is initial_distance. β1, β2 and β3 are
    b1, b2 and b3, ε is eps, λ is weight_decay and κ is distance_factor. <., .> is the
    inner product over all leaves, and |.|_1 the sum of the absolute values.

    m_(t+1) = β1 m_t + (1 - β1) d_t g_t,
    v_(t+1) = β2 v_t + (1 - β2) d_t² g_t²,
    r_(t+1) = β3 r_t + η_t d_t² <g_t, x_0 - x_t>,
    s_(t+1) = β3 s_t + η_t d_t² g_t,
    d_(t+1) = max(d_t, κ r_(t+1) / |s_(t+1)|_1),
    u_t = -η_t d_t (m_(t+1) / (√v_(t+1) + d_(t+1) ε) + λ x_t).
    As long as all gradients or all rates are 0, d_t does not change. In float16, the
    default ε rounds to 0, and an entry whose v_(t+1) is 0 does not move, except for the
    decay.

    With the defaults, the rule is the same as the authors' code, unless a schedule
    gives the rate 0. The authors' code skips every step with the rate 0. At the start
    of a run, until a step is taken, it also skips every step with the gradient 0. In a
    skipped step, the averages, the sums and t do not change. Here, no step is skipped.
    The paper by Mishchenko & Defazio multiplies ε by d_t instead of d_(t+1). For the
    paper's rule, pass eps_by_next_distance=False.

    optax.contrib.prodigy multiplies every η_t by √(1 - β2^(t+1)) / (1 - β1^(t+1)). For
    optax's rule, pass bias_correction=True. The authors' code has this factor as an
    option. If all gradients or all rates so far are 0, optax (up to 0.2.8) divides 0 by
    0, and its params become NaN. optax has other names for some arguments: betas is
    (b1, b2), estim_lr0 is initial_distance and estim_lr_coef is distance_factor. torch
    does not have the rule.

    Suppose that b1, b2 and bias_correction have their defaults, and that there is no
    weight decay. At the first step t with a nonzero gradient, each nonzero entry of u_t
    then has a size of about 3.2 d_0 η_t, because (1 - β1) / √(1 - β2) is 3.2.

    Use it instead of tuning Adam's rate. Let η follow a schedule that ends at 0. To
    scale all rates, change distance_factor, not η. The estimate d_t never shrinks. A
    single large gradient that points against x_t - x_0 may therefore make d_t too large
    for the rest of the run.

    Args:
      learning_rate: Learning rate η. A number of at least 0, a traced scalar, or a
        schedule (number of earlier steps -> η). Its largest value should be 1.
      b1, b2: Decay rates β1 and β2 in [0, 1); may be traced.
      b3: Decay rate β3 in [0, 1), or None for √β2; may be traced.
      eps: Constant ε, at least 0; may be traced.
      initial_distance: Initial distance d_0, positive; may be traced. It should be less
        than the distance to a minimum.
      distance_factor: Factor κ, at least 0; may be traced.
      weight_decay: Factor λ of decoupled decay, at least 0; may be traced. If it is not
        the number 0, update needs params. (The differences x_0 - x_t do not need
        params, because they are in the state.)
      bias_correction: Whether to multiply η_t by √(1 - β2^(t+1)) / (1 - β1^(t+1)).
      eps_by_next_distance: If True, ε is multiplied by d_(t+1). If False, ε is
        multiplied by d_t.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type;
        update received no params although weight_decay is not 0; in init, the params
        are complex.
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
        given, updates = updates, filled(updates, params)
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

        def descend(g: Array, m: Array, v: Array):
            below = jnp.sqrt(v) + cast(before_eps, v) * cast(eps, v)
            return quotient(-cast(step, m) * m, below).astype(g.dtype)

        steps = jax.tree.map(descend, updates, mu, nu)
        steps = _decay(steps, params, step, weight_decay)
        if given is not updates:  # A leaf with the gradient None does not move.
            steps = blanked(steps, given)
        moved = _add(state.moved, filled(steps, params))
        return steps, ProdigyState(
            count, moved, mu, nu, gradient_sum, numerator, longer, step
        )

    whole = optax.GradientTransformation(init, update)
    return complete(whole, only_real="prodigy", sees_none=True)


class DowgState(NamedTuple):
    """State of `dowg`, whose docstring defines the symbols.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      moved: Difference x_t - x_0 between the params and their start, shaped like the
        params.
      largest_distance: Distance r̄ that the last step used, shape (), in at least
        float32. r̄ is the larger of r_ε and the largest |x_i - x_0| so far. Before the
        first step, r̄ is r_ε.
      weighted_sum: Sum of r̄_i² |g_i|² over the steps taken, shape (), in at least
        float32.
      learning_rate: Step size of the last step, shape (), in at least float32; 0 before
        the first step.
    """

    count: Int[Array, ""]
    moved: Params
    largest_distance: Float[Array, ""]
    weighted_sum: Float[Array, ""]
    learning_rate: Float[Array, ""]


@checked
def dowg(
    learning_rate: Scalar | Schedule = 1.0,
    initial_distance: Scalar = 1e-2,
    eps: Scalar = 1e-4,
) -> optax.GradientTransformation:
    """Use r̄² / √(Σ r̄² |g|²) as the step size, where r̄ is the largest distance moved.

    u_t = -η_t r̄_t² g_t / (√(Σ_(i<=t) r̄_i² |g_i|²) + ε), where r̄_t = max(r_ε,
    max_(i<=t) |x_i - x_0|), and r_ε is initial_distance. Here x_t are the params, g_t
    is the gradient, u_t the update and η_t the learning rate at step t, with t counted
    from 0. The norms are over all leaves. If the divisor is 0, u_t = 0.

    The name stands for "distance over weighted gradients". Early gradients belong to
    short distances, so they have little weight in the sum. The steps are therefore
    longer than those of `dog`. optax.contrib.dowg is the same rule, and its argument
    init_estim_sq_dist is r_ε². But optax subtracts x_0 from x_i, which loses digits
    while the distance is small. This rule sums its own updates to get x_i - x_0. The
    paper by Khaled et al. has no ε. torch does not have the rule.

    Use it for convex losses if you cannot tune a rate.

    Args:
      learning_rate: Learning rate η; leave it at 1. A number of at least 0, a traced
        scalar, or a schedule (number of earlier steps -> η).
      initial_distance: Initial distance r_ε, at least 0; may be traced. It should be
        less than the distance to a minimum.
      eps: Constant ε, at least 0; may be traced.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number.
    References:
      Khaled, Mishchenko & Jin, DoWG unleashed: an efficient universal parameter-free
      gradient descent method, NeurIPS 2023, algorithm 1.
    Example:
      >>> rule = dowg(initial_distance=1.0, eps=0.0)
      >>> print(rule.update(jnp.array([3.0, -4.0]), rule.init(jnp.zeros(2)))[0])
      [-0.6  0.8]
    """
    rate_at = _rate(learning_rate)
    check_number("initial_distance", initial_distance)
    check_number("eps", eps)

    def init(params: Params):
        dtype = working_dtype(params)
        sums = (jnp.zeros((), dtype), jnp.zeros((), dtype))
        return DowgState(
            jnp.zeros((), jnp.int32),
            jax.tree.map(jnp.zeros_like, params),
            jnp.array(initial_distance, dtype),
            *sums,
        )

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        dtype = state.largest_distance.dtype
        largest = jnp.maximum(state.largest_distance, _norm(state.moved, dtype))
        square = jnp.square(largest)
        total = state.weighted_sum + square * _dot(updates, updates, dtype)
        denominator = jnp.sqrt(total) + cast(eps, total)
        step = jnp.where(
            denominator == 0,
            0.0,
            cast(rate_at(state.count), total) * square / denominator,
        )
        steps = jax.tree.map(lambda g: -cast(step, g) * g, updates)
        return steps, DowgState(
            increment(state.count), _add(state.moved, steps), largest, total, step
        )

    return complete(optax.GradientTransformation(init, update))


class CocobState(NamedTuple):
    """State of `cocob`.

    All arrays except count are shaped like the params. The scaled gradient of step t is
    c_t = η_t g_t, with the learning rate η_t. x_t are the params, and x_0 the params at
    the start.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      moved: Difference x_t - x_0.
      largest: Largest |c| so far, L_t; at first, the argument eps.
      sizes: Sum G_t of all |c|.
      reward: Sum R_t of the gains -c_t (x_t - x_0). If the sum would be negative, it is
        set to 0.
      gradient_sum: Sum θ_t of all -c.
    """

    count: Int[Array, ""]
    moved: Params
    largest: Params
    sizes: Params
    reward: Params
    gradient_sum: Params


@checked
def cocob(
    learning_rate: Scalar | Schedule = 1.0,
    alpha: Scalar = 100.0,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    mask: Any = None,
) -> optax.GradientTransformation:
    """Set the step of each entry by coin betting, without a learning rate to tune.

    The name stands for "continuous coin betting": x_t - x_0 is regarded as an amount of
    money that is bet on the outcome -c_t. Here x_t are the params, x_0 are the params
    at the start, and c_t = η_t g_t is the gradient times the learning rate.

    All operations act entry by entry. The rule starts with x_1 = x_0, L_0 = ε and
    G_0 = R_0 = θ_0 = 0. At step t = 1, 2, ...,
    L_t = max(L_(t-1), |c_t|),
    G_t = G_(t-1) + |c_t|,
    R_t = max(R_(t-1) - c_t (x_t - x_0), 0),
    θ_t = θ_(t-1) - c_t,
    x_(t+1) = x_0 + θ_t (L_t + R_t) / (L_t max(G_t + L_t, α L_t)), and the update is u_t
    = x_(t+1) - x_t.

    L_t is the largest |c| so far, or ε if ε is larger. G_t is the sum of all |c|, and
    θ_t is the sum of all -c. R_t is the total gain of the bets so far, where a negative
    total is replaced by 0.

    With η = 1, the rule is COCOB-Backprop of Orabona & Tommasi. If ε were 0, a constant
    η would have no effect. optax.contrib.cocob is the same, but it subtracts x_0 from
    x_t, which loses digits while x_t is close to x_0. This rule sums its own updates to
    get x_t - x_0. torch does not have the rule.

    Use it if you cannot tune a rate and the entries need different rates. The rule
    stores five arrays per leaf. The distance from x_0 may double within a few steps, so
    the rule can overshoot a minimum.

    Args:
      learning_rate: Factor η of the gradient; leave it at 1. A number of at least 0, a
        traced scalar, or a schedule (number of earlier steps -> η).
      alpha: Constant α, positive; may be traced. The size of each entry of the first
        step is at most 1 / α.
      eps: Initial value ε of L, positive; may be traced.
      weight_decay: Decay λ, coupled: λ x_t is added to the gradient. At least 0; may be
        traced.
      mask: Pytree of booleans, or a function from the params to such a pytree. Leaves
        marked True decay, as in `adamw`. None means all leaves.
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type;
        mask does not fit the params; update received no params; in init, the params are
        complex.
    References:
      Orabona & Tommasi, Training deep networks without learning rates through coin
      betting, NIPS 2017, algorithm 2.
    Example:
      >>> rule, x = cocob(alpha=2.0), jnp.zeros(2)
      >>> print(rule.update(jnp.array([4.0, -1e-3]), rule.init(x), x)[0])
      [-0.5  0.5]
    """
    rate_at = _rate(learning_rate)
    check_number("alpha", alpha, positive=True)
    check_number("eps", eps, positive=True)

    def init(params: Params):
        moved, sizes, reward, gradient_sum = (
            jax.tree.map(jnp.zeros_like, params) for _ in range(4)
        )
        largest = jax.tree.map(lambda x: jnp.full_like(x, eps), params)
        count = jnp.zeros((), jnp.int32)
        return CocobState(count, moved, largest, sizes, reward, gradient_sum)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        rate = rate_at(state.count)
        scaled = jax.tree.map(
            lambda g, x: cast(rate, x) * like(g, x), updates, state.moved
        )
        largest = jax.tree.map(
            lambda n, c: jnp.maximum(n, jnp.abs(c)), state.largest, scaled
        )
        sizes = jax.tree.map(lambda a, c: a + jnp.abs(c), state.sizes, scaled)
        reward = jax.tree.map(
            lambda r, c, x: jnp.maximum(r - c * x, 0.0),
            state.reward,
            scaled,
            state.moved,
        )
        gradient_sum = jax.tree.map(jnp.subtract, state.gradient_sum, scaled)

        def step(g: Array, x: Array, n: Array, a: Array, r: Array, s: Array):
            bet = s / n / jnp.maximum(a / n + 1.0, cast(alpha, n)) * (1.0 + r / n)
            # In float16, an ε of 1e-8 rounds to 0, and then n is 0 up to the first
            # gradient that is not 0.
            still = overflowed(a, g) | (n == 0)
            return like(jnp.where(still, 0.0, bet) - x, g)

        steps = jax.tree.map(
            step, updates, state.moved, largest, sizes, reward, gradient_sum
        )
        return steps, CocobState(
            increment(state.count),
            _add(state.moved, steps),
            largest,
            sizes,
            reward,
            gradient_sum,
        )

    return optax.chain(
        add_decayed_weights(weight_decay, mask),
        complete(optax.GradientTransformation(init, update), only_real="cocob"),
    )


class DadaptAdamwState(NamedTuple):
    """State of `dadapt_adamw`, whose docstring defines the symbols.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      mu: Moving average m_t of the scaled gradients λ_t g_t, shaped like the params.
      nu: Moving average v_t of squared gradients, shaped like the params.
      gradient_sum: Moving average s_t of the scaled gradients λ_t g_t with the decay
        √β2, shaped like the params.
      numerator: Moving average r_t, from which d_(t+1) is computed, shape (), in at
        least float32.
      distance: Estimate d_(t+1) of the distance to the minimum, which the next step
        uses, shape (), in at least float32.
      learning_rate: Step size λ_t of the last step, shape (), in at least float32; 0
        before the first step.
    """

    count: Int[Array, ""]
    mu: Params
    nu: Params
    gradient_sum: Params
    numerator: Float[Array, ""]
    distance: Float[Array, ""]
    learning_rate: Float[Array, ""]


@checked
def dadapt_adamw(
    learning_rate: Scalar | Schedule = 1.0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    initial_distance: Scalar = 1e-6,
    weight_decay: Scalar = 0.0,
) -> optax.GradientTransformation:
    """AdamW whose rate is an estimated lower bound of the distance to the minimum.

    The step size λ_t is proportional to d_t, the estimate of the distance from the
    start to the minimum. d_1 is initial_distance. At step t, counted from 1, g_t is the
    gradient, x_t are the params, u_t is the update and η_t the learning rate. r_t, m_t,
    v_t and s_t are moving averages that start at 0. β1 and β2 are b1 and b2, and ε is
    eps. <., .> is the inner product over all leaves, and |.|_1 is the sum of the
    absolute values.
    λ_t = η_t d_t √(1 - β2^t) / (1 - β1^t),
    r_t = √β2 r_(t-1) + (1 - √β2) λ_t <g_t, s_(t-1) / (√v_(t-1) + ε)>,
    m_t = β1 m_(t-1) + (1 - β1) λ_t g_t,
    v_t = β2 v_(t-1) + (1 - β2) g_t²,
    s_t = √β2 s_(t-1) + (1 - √β2) λ_t g_t,
    d_(t+1) = max(d_t, r_t / ((1 - √β2) |s_t|_1)),
    u_t = -m_t / (√v_t + ε) - w λ_t x_t, where w is weight_decay.

    As long as all gradients or all rates are 0, d_t does not change. In this case,
    optax divides 0 by 0, and its params become NaN. In all other cases,
    optax.contrib.dadapt_adamw is the same. Its argument betas is (b1, b2), and its
    argument estim_lr0 is initial_distance. In the authors' package, the rule is
    DAdaptAdam(decouple=True, use_bias_correction=True). The package skips the steps
    with the rate 0 and the steps before the first nonzero gradient. In a skipped step,
    the averages and t do not change. Here, no step is skipped. torch does not have the
    rule.

    Use it in place of AdamW if you cannot tune the rate. Let η follow a schedule that
    ends at 0. The estimates of `prodigy` usually grow faster.

    Args:
      learning_rate: Factor η: a number of at least 0, a traced scalar, or a schedule
        (number of earlier steps -> η). Its largest value should be 1.
      b1, b2: Decays β1 and β2 in [0, 1); may be traced.
      eps: Constant ε, at least 0; may be traced.
      initial_distance: First estimate d_1, positive; may be traced. It should be less
        than the distance to a minimum.
      weight_decay: Decay w, at least 0; may be traced. If it is not the number 0,
        update needs params.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number; update
        received no params although weight_decay is not 0; in init, the params are
        complex.
    References:
      Defazio & Mishchenko, Learning-rate-free learning by D-Adaptation, ICML 2023,
      its version for Adam.
    Example:
      >>> rule = dadapt_adamw(b1=0.0, b2=0.75, eps=0.0, initial_distance=1.0)
      >>> print(rule.update(jnp.array([5.0, -3.0]), rule.init(jnp.zeros(2)))[0])
      [-1.  1.]
    """
    rate_at = _rate(learning_rate)
    check_number("b1", b1, below=1.0)
    check_number("b2", b2, below=1.0)
    check_number("eps", eps)
    check_number("initial_distance", initial_distance, positive=True)
    check_number("weight_decay", weight_decay)
    root = b2**0.5

    def init(params: Params):
        dtype = working_dtype(params)
        mu, nu, gradient_sum = (jax.tree.map(jnp.zeros_like, params) for _ in range(3))
        return DadaptAdamwState(
            jnp.zeros((), jnp.int32),
            mu,
            nu,
            gradient_sum,
            jnp.zeros((), dtype),
            jnp.array(initial_distance, dtype),
            jnp.zeros((), dtype),
        )

    def update(updates: Params, state: Any, params: Params | None = None):
        distance, dtype = state.distance, state.distance.dtype
        count = increment(state.count)
        correction = jnp.sqrt(correction_of(b2, count)) / correction_of(b1, count)
        step = (
            cast(rate_at(state.count), distance) * distance * cast(correction, distance)
        )

        def divided(a: Array, v: Array):
            below = jnp.sqrt(v) + cast(eps, v)
            return jnp.where(below == 0, 0.0, a / below)

        weighted = jax.tree.map(divided, state.gradient_sum, state.nu)
        numerator = moving_average(
            root, state.numerator, step * _dot(updates, weighted, dtype)
        )
        scaled = jax.tree.map(
            lambda g, m: cast(step, m) * like(g, m), updates, state.mu
        )
        mu = moving_average(b1, state.mu, scaled)
        nu = moving_average(b2, state.nu, jax.tree.map(jnp.square, updates))
        gradient_sum = moving_average(root, state.gradient_sum, scaled)
        size = cast(1.0 - root, distance) * _dot(
            gradient_sum, jax.tree.map(jnp.sign, gradient_sum), dtype
        )
        estimate = jnp.where(size == 0, 0.0, numerator / size)
        longer = jnp.maximum(distance, estimate)
        steps = jax.tree.map(lambda g, m, v: like(-divided(m, v), g), updates, mu, nu)
        steps = _decay(steps, params, step, weight_decay)
        return steps, DadaptAdamwState(
            count, mu, nu, gradient_sum, numerator, longer, step
        )

    return complete(
        optax.GradientTransformation(init, update), only_real="dadapt_adamw"
    )


class MechanicState(NamedTuple):
    """State of `mechanic`, whose docstring defines the symbols.

    scales, largest, squares and reward have shape (n,), one entry for each of the n =
    num_betas decays.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      moved: Difference x_t - x_0, shaped like the params.
      scales: Scales s_t. Their sum multiplies the sum of the inner rule's updates.
      largest: m_t, a decaying maximum of |h| + ε.
      squares: v_t, a decaying sum of h².
      reward: r_t, a decaying sum of the rewards, which are the clipped h times the
        scales.
      inner: State of the inner rule.
    """

    count: Int[Array, ""]
    moved: Params
    scales: Float[Array, " n"]
    largest: Float[Array, " n"]
    squares: Float[Array, " n"]
    reward: Float[Array, " n"]
    inner: optax.OptState


@checked
def mechanic(
    learning_rate: Scalar | Schedule = 1.0,
    inner: Callable[..., optax.GradientTransformation] | None = None,
    weight_decay: Scalar = 1e-2,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 1e-6,
    num_betas: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Learn the scale of an inner rule's updates, so that its rate need not be tuned.

    The sum of the inner rule's updates is multiplied by S_t. S_t is the sum of n scales
    s_t, where n is num_betas. There is one scale for each decay β = 1 - 0.1^i with
    i = 1, ..., n. The formulas below give the scale s_t and three numbers m_t, v_t and
    r_t for one decay β. All four start from s_0 = σ and m_0 = v_0 = r_0 = 0. λ is
    weight_decay, σ is initial_scale, and clip(h, -m, m) limits h to the range from -m
    to m. Norms and inner products <., .> are over all leaves.
    Let g_t be the gradient, x_t the params, d_t the update of the inner rule, and
    Δ_t = (x_t - x_0) / (S_t + ε) at step t, counted from 0. Then
    h_t = -<g_t + (λ S_t |g_t| / (|x_t| + ε)) x_t, Δ_t>,
    r_(t+1) = β r_t + clip(h_t, -m_t, m_t) s_t,
    m_(t+1) = max(β m_t, |h_t| + ε),
    v_(t+1) = β² v_t + h_t²,
    s_(t+1) = (σ m_(t+1) / n + max(r_(t+1), 0)) / (√v_(t+1) + ε),
    x_(t+1) = x_0 + S_(t+1) (Δ_t + d_t), and the update is x_(t+1) - x_t.

    optax.contrib.mechanize(inner(η)) is the same, but it subtracts x_0 from x_t, which
    loses digits while x_t is close to x_0. This rule sums its own updates to get
    x_t - x_0. Like this rule, optax clips h_t. The paper by Cutkosky et al. and the
    authors' package for PyTorch do not clip h_t. In the package, m_0 is 1e-6, ε is not
    added to |h_t|, and the default of σ is 1e-8. The package also stores max(r_t, 0)
    instead of r_t. torch does not have the rule.

    Use it around any rule whose rate you cannot tune, with the schedule that you would
    use for that rule alone. S_t makes up for an inner rate η that is too small or too
    large. A schedule therefore acts mainly through the ratios of its rates.

    Args:
      learning_rate: Rate η of the inner rule: any value that `inner` accepts as its
        first argument.
      inner: Constructor of the inner rule, called with the learning rate; None means
        adam.
      weight_decay: Decay λ in h, at least 0; may be traced.
      eps: Constant ε, positive; may be traced.
      initial_scale: Scale σ, positive; may be traced.
      num_betas: Number n of decays, an integer from 1 to 100; None means 6. This
        argument cannot be traced.
    Returns:
      The rule; its update needs params, and passes extra arguments on to the inner
      rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number; inner
        is not a constructor; update received no params; in init, the params are
        complex.
    References:
      Cutkosky, Defazio & Mehta, Mechanic: a learning rate tuner, NeurIPS 2023,
      algorithm 1.
    Example:
      >>> rule, x = mechanic(1.0), jnp.zeros(1)
      >>> updates, state = rule.update(jnp.array([4.0]), rule.init(x), x)
      >>> print(f"{state.scales.sum():.1e} {updates[0]:.1e}")
      1.0e-06 -1.0e-06
    """
    check_number("weight_decay", weight_decay)
    check_number("eps", eps, positive=True)
    check_number("initial_scale", initial_scale, positive=True)
    if num_betas is not None and not isinstance(num_betas, Tracer):
        check_number("num_betas", num_betas, positive=True, integer=True)
        check_most(100, num_betas=num_betas)
    rule = accepting_none(make_inner(inner, learning_rate, adam))

    def init(params: Params):
        dtype, n = working_dtype(params), _count_of_betas(num_betas)
        return MechanicState(
            count=jnp.zeros((), jnp.int32),
            moved=jax.tree.map(jnp.zeros_like, params),
            scales=jnp.full(n, initial_scale, dtype),
            largest=jnp.zeros(n, dtype),
            squares=jnp.zeros(n, dtype),
            reward=jnp.zeros(n, dtype),
            inner=rule.init(params),
        )

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        if params is None:
            raise ValueError(
                "mechanic needs the params; call update(grads, state, params)."
            )
        moves, inner_state = rule.update(updates, state.inner, params, **extra)
        moves, gradient = filled(moves, params), filled(updates, params)
        scales, dtype = state.scales, state.scales.dtype
        n, total = scales.size, jnp.sum(scales)
        tiny = cast(eps, total)
        delta = jax.tree.map(partial(_divided, total + tiny), state.moved)
        length = _norm(gradient, dtype)
        pull = cast(weight_decay, total) * total * length
        pull = pull / (_norm(params, dtype) + tiny)
        pull = jnp.where(jnp.isposinf(length), 0.0, pull)  # |g|² overflowed.
        pulled = jax.tree.map(
            lambda g, x: g + like(cast(pull, x) * x, g), gradient, params
        )
        h = within_range(-_dot(pulled, delta, dtype))
        betas = jnp.array([1.0 - 0.1**i for i in range(1, n + 1)], dtype)
        reward = (
            betas * state.reward + jnp.clip(h, -state.largest, state.largest) * scales
        )
        largest = jnp.maximum(betas * state.largest, jnp.abs(h) + tiny)
        squares = betas**2 * state.squares + h**2
        wealth = cast(initial_scale, total) / n * largest + jnp.maximum(reward, 0.0)
        scales = wealth / (jnp.sqrt(squares) + tiny)
        after = jnp.sum(scales)

        def step(u: Array, x: Array, d: Array):
            return like(cast(after, x) * (d + like(u, x)) - x, u)

        steps = blanked(jax.tree.map(step, moves, state.moved, delta), updates)
        return steps, MechanicState(
            increment(state.count),
            _add(state.moved, filled(steps, params)),
            scales,
            largest,
            squares,
            reward,
            inner_state,
        )

    whole = optax.GradientTransformationExtraArgs(init, update)
    return complete(whole, only_real="mechanic", sees_none=True)


def _divided(divisor: Array, x: Array) -> Array:
    """Return x / divisor, without 1 / divisor, which may overflow in float16."""
    wide = with_range(x)
    return like(wide / cast(divisor, wide), x)


def _count_of_betas(num_betas: Any) -> int:
    if isinstance(num_betas, Tracer):
        raise TypeError(
            "num_betas cannot be traced, because it is the length of arrays in the "
            "state of mechanic. Under optax.inject_hyperparams pass "
            "static_args=('num_betas',)."
        )
    return 6 if num_betas is None else int(num_betas)


class MomoState(NamedTuple):
    """State of `momo`, whose docstring defines the symbols.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      mu: Moving average m_t of gradients, shaped like the params.
      mean_value: Moving average f̄_t of the objective's values, shape (), in at least
        float32.
      mean_product: Moving average γ_t of the inner product of gradient and params,
        shape (), in at least float32.
      lower_bound: Lower bound f* of the objective, shape (), in at least float32. With
        adapt_lower_bound=True, f* is the latest estimate.
      learning_rate: Step size τ_t of the last step, shape (), in at least float32; 0
        before the first step.
    """

    count: Int[Array, ""]
    mu: Params
    mean_value: Float[Array, ""]
    mean_product: Float[Array, ""]
    lower_bound: Float[Array, ""]
    learning_rate: Float[Array, ""]


@checked
def momo(
    learning_rate: Scalar | Schedule = 1.0,
    beta: Scalar = 0.9,
    lower_bound: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    adapt_lower_bound: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Momentum with a step size computed from the objective and its lower bound.

    Without weight decay, the step ends where a linear model of the objective reaches
    the lower bound, but the step is at most η_t |m_t| long.

    m_t, f̄_t and γ_t are the moving averages of the gradient g_t, of the objective's
    value f(x_t) and of the inner product <g_t, x_t>. Their decay is β. At the first
    step, m_t = g_t, f̄_t = f(x_t) and γ_t = <g_t, x_t>. η_t is the learning rate, λ the
    weight decay, f* the lower bound, and a = 1 + η_t λ. The step size τ_t and the
    update u_t are
    τ_t = min(η_t, max(a (f̄_t - f* - γ_t) + <m_t, x_t>, 0) / |m_t|²),
    u_t = (x_t - τ_t m_t) / a - x_t.

    If m_t = 0, then τ_t = 0. With adapt_lower_bound=True, the rule estimates f*, which
    starts at lower_bound. Let q_t = a (f̄_t - γ_t) + <m_t, x_t>. If q_t < a f*, f* is
    replaced by max(q_t / (2 a), lower_bound), and then τ_t is computed. After the step,
    f* is replaced by max(f̄_t + <m_t, x_t> - γ_t - ½ τ_t |m_t|², lower_bound).

    optax.contrib.momo differs in two ways. It sets τ_t = 0 if |m_t|² <= 2.2e-16. With
    weight decay, it divides only x_t by a, not the step: u_t = x_t / a - τ_t m_t - x_t.
    In the authors' package, the rule is called Momo. torch does not have the rule.

    Use it in place of `heavy_ball`. A rate that is too large does little harm, because
    the steps become short by themselves near a minimum with f = f*.

    Args:
      learning_rate: Largest rate η: a nonnegative number, a traced scalar or a schedule
        (number of earlier steps -> η).
      beta: Decay β in [0, 1); may be traced.
      lower_bound: Lower bound f* of the objective, a finite number; may be traced.
      weight_decay: Decay λ, at least 0; may be traced. The decay is implicit: the
        params after the step are divided by 1 + η_t λ.
      adapt_lower_bound: Whether f* is estimated. lower_bound is then the smallest value
        that f* can have.
    Returns:
      The rule; its update needs params and value, which is f(x_t).
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        or update received no params or value.
    References:
      Schaipp, Ohana, Eickenberg, Defazio & Gower, MoMo: momentum models for adaptive
      learning rates, ICML 2024. In this paper, MoMo is the rule with a fixed f*, and
      MoMo* is the rule that estimates f*.
    Example:
      >>> # For f = x² / 2, the first step is half of the way to the minimum.
      >>> rule, x = momo(), jnp.array([4.0])
      >>> print(rule.update(x, rule.init(x), x, value=8.0)[0])
      [-2.]
    """
    rate_at = _rate(learning_rate)
    check_number("beta", beta, below=1.0)
    check_number("lower_bound", lower_bound, signed=True)
    check_number("weight_decay", weight_decay)

    def init(params: Params):
        dtype = working_dtype(params)
        return MomoState(
            count=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(jnp.zeros_like, params),
            mean_value=jnp.zeros((), dtype),
            mean_product=jnp.zeros((), dtype),
            lower_bound=jnp.array(lower_bound, dtype),
            learning_rate=jnp.zeros((), dtype),
        )

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        value: Any = None,
        **extra: Any,
    ):
        del extra
        params, value = _require(params, value, "momo")
        bound, dtype = state.lower_bound, state.lower_bound.dtype
        decay = jnp.where(state.count == 0, 0.0, beta)
        mu = moving_average(decay, state.mu, updates)
        mean_value = moving_average(decay, state.mean_value, cast(value, bound))
        mean_product = moving_average(
            decay, state.mean_product, _dot(updates, params, dtype)
        )
        size, product = _dot(mu, mu, dtype), _dot(mu, params, dtype)
        eta = cast(rate_at(state.count), bound)
        tau, bound = _to_the_bound(
            eta, mean_value - mean_product, product, size, bound, jnp.ones((), dtype),
            eta, weight_decay, adapt_lower_bound, cast(lower_bound, bound),
        )  # fmt: skip
        steps = jax.tree.map(lambda g, m: like(-cast(tau, m) * m, g), updates, mu)
        steps = _implicit_decay(steps, params, eta, weight_decay)
        return steps, MomoState(
            increment(state.count), mu, mean_value, mean_product, bound, tau
        )

    return complete(optax.GradientTransformationExtraArgs(init, update))


class MomoAdamState(NamedTuple):
    """State of `momo_adam`, whose docstring defines the symbols.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      mu: Moving average m_t of gradients, shaped like the params.
      nu: Moving average v_t of squared gradients, shaped like the params (real if the
        params are complex).
      mean_value: Moving average f̄_t of the objective's values, shape (), in at least
        float32.
      mean_product: Moving average γ_t of the inner product of gradient and params,
        shape (), in at least float32.
      lower_bound: Lower bound f* of the objective, shape (), in at least float32. With
        adapt_lower_bound=True, f* is the latest estimate.
      learning_rate: Step size τ_t of the last step, shape (), in at least float32; 0
        before the first step.
    """

    count: Int[Array, ""]
    mu: Params
    nu: Params
    mean_value: Float[Array, ""]
    mean_product: Float[Array, ""]
    lower_bound: Float[Array, ""]
    learning_rate: Float[Array, ""]


@checked
def momo_adam(
    learning_rate: Scalar | Schedule = 1e-2,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    lower_bound: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    adapt_lower_bound: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adam with a step size computed from the objective and its lower bound.

    Without weight decay, the step ends where a linear model of the objective reaches
    the lower bound, but the step is not longer than Adam's step.

    m_t, f̄_t and γ_t are the moving averages of the gradient g_t, of the objective's
    value f(x_t) and of the inner product <g_t, x_t>. Their decay is β1. They start at
    0, and t is counted from 1. v̂_t is the average of the squared gradients with bias
    correction, as in `adam`. η_t is the learning rate, λ the weight decay and f* the
    lower bound. Let D_t = √v̂_t + ε, c_t = 1 - β1^t, a = 1 + η_t λ and
    p_t = <m_t, m_t / D_t>. The step size τ_t and the update u_t are
    τ_t = min(η_t / c_t, max(a (f̄_t - c_t f* - γ_t) + <m_t, x_t>, 0) / p_t),
    u_t = (x_t - τ_t m_t / D_t) / a - x_t.

    If m_t = 0, then τ_t = 0. With adapt_lower_bound=True, f* is estimated by the
    formulas of `momo`, with c_t f* in place of f*, c_t lower_bound in place of
    lower_bound, and p_t in place of |m_t|².

    optax.contrib.momo_adam differs in two ways. It sets τ_t = 0 if p_t <= 2.2e-16. With
    weight decay, it divides only x_t by a, not the step. In the authors' package, the
    rule is called MomoAdam. torch does not have the rule.

    Use it in place of `adam`. A rate that is too large does little harm, because the
    steps become short by themselves near a minimum with f = f*.

    Args:
      learning_rate: Largest rate η: a nonnegative number, a traced scalar or a schedule
        (number of earlier steps -> η).
      b1, b2: Decays β1 and β2 in [0, 1); may be traced.
      eps: Constant ε, at least 0; may be traced.
      lower_bound: Lower bound f* of the objective, a finite number; may be traced.
      weight_decay: Decay λ, at least 0; may be traced. The decay is implicit: the
        params after the step are divided by 1 + η_t λ.
      adapt_lower_bound: Whether f* is estimated. lower_bound is then the smallest value
        that f* can have.
    Returns:
      The rule; its update needs params and value, which is f(x_t).
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        or update received no params or value.
    References:
      Schaipp, Ohana, Eickenberg, Defazio & Gower, MoMo: momentum models for adaptive
      learning rates, ICML 2024. In this paper, MoMo-Adam is the rule with a fixed f*,
      and MoMo-Adam* is the rule that estimates f*.
    Example:
      >>> rule, x = momo_adam(1.0, eps=0.0), jnp.array([4.0])
      >>> # The first step is half of the way to the minimum of x² / 2, but at most 1.
      >>> print(rule.update(x, rule.init(x), x, value=8.0)[0])
      [-1.]
    """
    rate_at = _rate(learning_rate)
    check_number("b1", b1, below=1.0)
    check_number("b2", b2, below=1.0)
    check_number("eps", eps)
    check_number("lower_bound", lower_bound, signed=True)
    check_number("weight_decay", weight_decay)

    def init(params: Params):
        dtype = working_dtype(params)
        return MomoAdamState(
            count=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(jnp.zeros_like, params),
            nu=jax.tree.map(sizes_like, params),
            mean_value=jnp.zeros((), dtype),
            mean_product=jnp.zeros((), dtype),
            lower_bound=jnp.array(lower_bound, dtype),
            learning_rate=jnp.zeros((), dtype),
        )

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        value: Any = None,
        **extra: Any,
    ):
        del extra
        params, value = _require(params, value, "momo_adam")
        bound, dtype = state.lower_bound, state.lower_bound.dtype
        count = increment(state.count)
        mu = moving_average(b1, state.mu, updates)
        nu = moving_average(b2, state.nu, jax.tree.map(abs_square, updates))
        mean_value = moving_average(b1, state.mean_value, cast(value, bound))
        mean_product = moving_average(
            b1, state.mean_product, _dot(updates, params, dtype)
        )
        of_nu = correction_of(b2, count)

        def divide(m: Array, v: Array):
            below = jnp.sqrt(v / cast(of_nu, v)) + cast(eps, v)
            return jnp.where(below == 0, 0.0, m / below)

        divided = jax.tree.map(divide, mu, nu)
        size, product = _dot(mu, divided, dtype), _dot(mu, params, dtype)
        eta = cast(rate_at(state.count), bound)
        share = cast(correction_of(b1, count), bound)
        tau, bound = _to_the_bound(
            eta / share, mean_value - mean_product, product, size, bound, share,
            eta, weight_decay, adapt_lower_bound, cast(lower_bound, bound),
        )  # fmt: skip
        steps = jax.tree.map(lambda g, d: like(-cast(tau, d) * d, g), updates, divided)
        steps = _implicit_decay(steps, params, eta, weight_decay)
        return steps, MomoAdamState(count, mu, nu, mean_value, mean_product, bound, tau)

    return complete(optax.GradientTransformationExtraArgs(init, update))


def _require(params: Any, value: Any, rule: str) -> tuple[Any, Any]:
    if params is None or value is None:
        raise ValueError(
            f"{rule} needs the params and the objective's value; call "
            "update(grads, state, params, value=value)."
        )
    return params, value


def _to_the_bound(
    most: Array,
    offset: Array,
    product: Array,
    size: Array,
    bound: Array,
    share: Array,
    eta: Array,
    weight_decay: Scalar,
    adapts: bool,
    least: Array,
) -> tuple[Array, Array]:
    """Return the step size of MoMo and the lower bound after the step.

    offset is f̄ - γ, product is <m, x>, and size is |m|², or <m, m / D> in momo_adam.
    share is the sum of the weights in the averages, 1 in momo and 1 - β1^t in
    momo_adam. most is the largest step size allowed.
    """
    factor = 1.0 + eta * cast(weight_decay, eta)
    if adapts:
        cap = factor * offset + product
        lowered = jnp.maximum(cap / (2.0 * share * factor), least)
        bound = jnp.where(cap < factor * share * bound, lowered, bound)
    gap = jnp.maximum(factor * (offset - share * bound) + product, 0.0)
    tau = jnp.minimum(most, jnp.where(size == 0, 0.0, gap / size))
    if adapts:
        shorter = jnp.where(tau == 0, 0.0, 0.5 * tau * size)
        bound = jnp.maximum((offset + product - shorter) / share, least)
    return tau, bound


def _implicit_decay(
    steps: Params, params: Params, eta: Array, weight_decay: Scalar
) -> Params:
    """Return the update from x to (x + u) / (1 + η λ), where u is the step."""
    if isinstance(weight_decay, float | int) and weight_decay == 0:
        return steps
    decay = eta * cast(weight_decay, eta)
    # Both factors are at most 1, so that nothing overflows in float16.
    kept, shrink = 1.0 / (1.0 + decay), decay / (1.0 + decay)
    return jax.tree.map(
        lambda u, x: cast(kept, u) * u - like(cast(shrink, x) * x, u), steps, params
    )


def _decay(
    steps: Params, params: Params | None, step: Array, weight_decay: Scalar
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


def _rate(learning_rate: Scalar | Schedule) -> Schedule:
    check_rate(learning_rate)
    if callable(learning_rate):
        return lambda t: rate_at(learning_rate, t)
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
    RuleEntry(dowg, {"learning_rate": Range(0.1, 10.0, "log", 1.0)}),
    RuleEntry(cocob, {"alpha": Range(1.0, 1e4, "log", 100.0)}),
    RuleEntry(dadapt_adamw, {"learning_rate": Range(0.1, 10.0, "log", 1.0)}),
    RuleEntry(
        mechanic,
        {"initial_scale": Range(1e-8, 1e-2, "log", 1e-6)},
        aliases=("mechanize",),
    ),
    RuleEntry(momo, {"learning_rate": gradient_rate(1.0), "beta": MOMENTUM}),
    RuleEntry(
        momo_adam, {"learning_rate": Range(1e-5, 1.0, "log", 0.01), "b1": MOMENTUM}
    ),
)
