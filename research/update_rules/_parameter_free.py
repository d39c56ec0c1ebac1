"""Rules that find their own step from how far they have come: DoG and Prodigy.

Both sum the distance from the start out of their own updates, not out of the params: a
float32 entry of size 1 rounds a first move of 1e-6 by 6 %. So they have to come last in
a chain.
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
    """What DoG keeps.

    Attributes:
      count: t, the steps taken; int32, shape ().
      moved: x_t - x_0; like the params.
      largest_distance: r̄, shape (); at least float32, as the following.
      sum_of_squares: Σ |g_i|², shape ().
      learning_rate: The step size of the last step, shape (); 0 before the first.
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
    """Distance over gradients: steps by the largest distance so far over the root of
    the sum of squared gradients.

    u_t = -η_t r̄_t g_t / √(Σ_(i<=t) |g_i|² + ε), r̄_t = max(r_ε, max_(i<=t) |x_i -
    x_0|), t counted from 0, norms over all leaves, r_ε = initial_distance, or 1e-6 (1 +
    |x_0|). Until a gradient is not 0, u_t = 0 whatever ε is.

    optax.contrib.dog is the same with init_step=("distance", r_ε) or, by default,
    ("heuristic", 1e-6), but that it takes the distance of rounded params. The paper has
    no ε; the authors' code has this one. For coupled weight decay chain
    `add_decayed_weights` before it. torch has none.

    Use it where no rate may be tuned, on convex or nearly convex losses; its guarantee
    is for an average of the iterates, which the authors keep beside it. It starts
    slowly: r̄ at most doubles in a step until it has the size of the way to go, and the
    sum never forgets a large gradient.

    Args:
      learning_rate: η, the paper's c; leave it at 1. A number of at least 0, a traced
        scalar, or a schedule t -> η_t.
      initial_distance: r_ε, at least 0; may be traced. It should be less than the
        distance to a minimum.
      eps: ε, at least 0; may be traced.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Ivgi, Hinder & Carmon, DoG is SGD's best friend, ICML 2023, equation (DoG), and
      its experiments on r_ε.
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
    """What Prodigy keeps; the averages are divided by d_0 (and nu by d_0²), so that
    float32 does not underflow.

    Attributes:
      count: t, the steps taken; int32, shape ().
      moved: x_t - x_0; like the params.
      mu, nu: m_t and v_t, the averages of d g and (d g)²; like the params.
      gradient_sum: s_t, the weighted sum of gradients; like the params.
      numerator: r_t, shape (); at least float32, as the following.
      distance: d_t, the estimate of |x* - x_0|, shape ().
      learning_rate: The step size of the last step, shape (); 0 before the first.
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
    """AdamW whose rate is an estimate of the distance to the minimum, which only grows.

    m_(t+1) = β1 m_t + (1 - β1) d_t g_t, v_(t+1) = β2 v_t + (1 - β2) d_t² g_t², r_(t+1)
    = β3 r_t + η_t d_t² <g_t, x_0 - x_t>, s_(t+1) = β3 s_t + η_t d_t² g_t, d_(t+1) =
    max(d_t, κ r_(t+1) / |s_(t+1)|_1), u_t = -η_t d_t (m_(t+1) / (√v_(t+1) + d_(t+1) ε)
    + λ x_t), t counted from 0, β3 = √β2 by default. Until a gradient is not 0, d stays.

    This is the authors' code. The paper has d_t before ε (eps_by_next_distance=False):
    with ε = 1e-8 a difference of a millionth of a step while d grows.
    optax.contrib.prodigy multiplies every η_t by √(1 - β2^(t+1)) / (1 - β1^(t+1))
    (bias_correction=True), which the authors' code has by an argument: without it the
    first step is 3.2 d_0 η long (0.1 / √0.001). Where all gradients so far are 0, optax
    (to 0.2.8) divides 0 by 0, and its params are NaN. optax's betas, estim_lr0 and
    estim_lr_coef are here b1, b2, initial_distance and distance_factor (κ). torch has
    none.

    Use it where Adam's rate would have to be tuned, with a schedule that ends at 0 for
    η; change distance_factor, not η. d never shrinks: one step of large gradients
    against the way gone may make it too large for good.

    Args:
      learning_rate: η, a number of at least 0, a traced scalar, or a schedule t -> η_t;
        1 at its largest.
      b1, b2: β1, β2 in [0, 1); may be traced.
      b3: β3 in [0, 1), or None; may be traced.
      eps: ε, at least 0; may be traced.
      initial_distance: d_0, positive; may be traced. It should be less than the
        distance to a minimum.
      distance_factor: κ, at least 0; may be traced.
      weight_decay: λ, at least 0, decoupled; may be traced. It needs update to get
        params unless it is 0.
      bias_correction, eps_by_next_distance: As above.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number, or update
        got no params to decay.
    References:
      Mishchenko & Defazio, Prodigy: an expeditiously adaptive parameter-free learner,
      ICML 2024, its version for Adam.
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
            "weight decay needs the weights; call update(grads, state, params)."
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
