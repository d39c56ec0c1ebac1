"""Rules that divide each coordinate by the size of its past gradients, summed up or
averaged."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Params
from research.update_rules._bias_correction import bias_correction as correction
from research.update_rules._checks import checked
from research.update_rules._edges import abs_square, complete, sizes_like
from research.update_rules._entry import (
    AVERAGE,
    LARGE_RATES,
    SMALL_RATES,
    Range,
    RuleEntry,
    step_rate,
)
from research.update_rules._first_order import heavy_ball
from research.update_rules._first_order import nesterov as nesterov_momentum
from research.update_rules._transforms import (
    cast,
    descend,
    increment,
    like,
    moving_average,
)


class AdagradState(NamedTuple):
    """What Adagrad keeps.

    Attributes:
      sum_of_squares: s_t; like the params.
    """

    sum_of_squares: Params


@checked
def adagrad(
    learning_rate: float | Array | Schedule,
    initial_accumulator_value: float | Array = 0.1,
    eps: float | Array = 1e-7,
    eps_in_sqrt: bool = True,
) -> optax.GradientTransformation:
    """Divides by the root of the sum of squares: s_t = s_(t-1) + g_t², u_t = -η_t g_t /
    √(s_t + ε), or 0 where s_t = 0.

    With eps_in_sqrt=False the denominator is √s_t + ε. The defaults are
    optax.adagrad's, which has no such argument. The paper starts from s = 0 and adds δ
    outside the root; so does torch, with 1e-10. The start matters more than the
    placement: at g = 0.01 the first step is 0.0316 η with the default 0.1, and η
    without.

    Use it for features that are rare: theirs is the long step when they come. On dense
    gradients its steps die out like 1/√t, which suits convex problems, and is too soon
    for networks.

    Args:
      learning_rate: η, a number of at least 0, a traced scalar, or a schedule t -> η_t.
      initial_accumulator_value: s_0, at least 0; may be traced.
      eps: ε, at least 0; may be traced.
      eps_in_sqrt: Whether ε stands inside the root.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Duchi, Hazan & Singer, Adaptive subgradient methods, JMLR 12 (2011), figure 1
      (diagonal matrices).
    Example:
      >>> rule = adagrad(1.0, initial_accumulator_value=9.0, eps=0.0)
      >>> print(rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))[0])
      [-0.8]
    """
    check_number("initial_accumulator_value", initial_accumulator_value)
    check_number("eps", eps)

    def init(params: Params):
        return AdagradState(
            jax.tree.map(lambda x: sizes_like(x, initial_accumulator_value), params)
        )

    def divide(g, s):
        return jnp.where(s == 0, 0.0, g / _root(s, eps, eps_in_sqrt)).astype(
            g.dtype
        )  # A NaN has to show.

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        squares = jax.tree.map(
            lambda s, g: s + abs_square(g).astype(s.dtype),
            state.sum_of_squares,
            updates,
        )
        return jax.tree.map(divide, updates, squares), AdagradState(squares)

    return optax.chain(
        complete(optax.GradientTransformation(init, update)), descend(learning_rate)
    )


class AdadeltaState(NamedTuple):
    """What Adadelta keeps.

    Attributes:
      mean_square_gradient: E_t; like the params.
      mean_square_update: D_t, of the directions, before the rate; like the params.
    """

    mean_square_gradient: Params
    mean_square_update: Params


@checked
def adadelta(
    learning_rate: float | Array | Schedule = 1.0,
    rho: float | Array = 0.9,
    eps: float | Array = 1e-6,
) -> optax.GradientTransformation:
    """Divides by the size of past gradients and multiplies by that of past steps, so
    that units agree.

    E_t = ρ E_(t-1) + (1 - ρ) g_t², d_t = √(D_(t-1) + ε) / √(E_t + ε) · g_t, D_t = ρ
    D_(t-1) + (1 - ρ) d_t², u_t = -η_t d_t.

    The paper has no η (it is 1); optax and torch have one, and it does not enter D.
    optax's weight_decay is `add_decayed_weights` chained before.

    Use it where no rate can be tuned and time is plenty: D starts at 0, so that the
    first steps are as long as √ε lets them be (about √(ε / (1 - ρ)), 0.003 by default),
    and they grow slowly.

    Args:
      learning_rate: η, a number of at least 0, a traced scalar, or a schedule t -> η_t.
      rho: ρ in [0, 1); may be traced.
      eps: ε, at least 0; may be traced. With 0 it never moves.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Zeiler, ADADELTA: an adaptive learning rate method, arXiv:1212.5701 (2012),
      algorithm 1.
    Example:
      >>> rule = adadelta(rho=0.75, eps=2.25)
      >>> print(rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))[0])
      [-2.4]
    """
    check_number("rho", rho, below=1.0)
    check_number("eps", eps)

    def init(params: Params):
        return AdadeltaState(*(jax.tree.map(sizes_like, params) for _ in range(2)))

    def scale(g, e, d):
        return like(jnp.sqrt(d + cast(eps, d)) / jnp.sqrt(e + cast(eps, e)) * g, g)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        of_gradients = moving_average(
            rho, state.mean_square_gradient, jax.tree.map(abs_square, updates)
        )
        updates = jax.tree.map(scale, updates, of_gradients, state.mean_square_update)
        of_updates = moving_average(
            rho, state.mean_square_update, jax.tree.map(abs_square, updates)
        )
        return updates, AdadeltaState(of_gradients, of_updates)

    return optax.chain(
        complete(optax.GradientTransformation(init, update)), descend(learning_rate)
    )


class RmspropState(NamedTuple):
    """What RMSProp keeps.

    Attributes:
      nu: v_t, the moving average of squares; like the params.
    """

    nu: Params


class CorrectedRmspropState(NamedTuple):
    """What RMSProp with bias correction keeps.

    Attributes:
      count: t, the steps taken; int32, shape ().
      nu: v_t, the moving average of squares; like the params.
    """

    count: Array
    nu: Params


class CenteredRmspropState(NamedTuple):
    """What centered RMSProp keeps.

    Attributes:
      count: t, the steps taken; int32, shape ().
      mu: The moving average of gradients, bias-corrected where the rule is; like the
        params.
      variance: The moving average of squared distances from it, before any correction;
        like the params.
    """

    count: Array
    mu: Params
    variance: Params


@checked
def rmsprop(
    learning_rate: float | Array | Schedule,
    decay: float | Array = 0.9,
    eps: float | Array = 1e-8,
    initial_scale: float | Array = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: float | Array | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    rate_in_momentum: bool = True,
) -> optax.GradientTransformation:
    """Divides by the root of a moving average of squares: v_t = β v_(t-1) + (1 - β)
    g_t², u_t = -η_t g_t / √(v_t + ε).

    With eps_in_sqrt=False the denominator is √v_t + ε. With bias_correction, v_t / (1 -
    β^t) stands for v_t; without, the first step is η / √(1 - β), 3.2 η by default.
    Centered, the variance v_t - m_t² stands for v_t, where m_t is the average of
    gradients (both corrected or neither; corrected, the first variance is 0, and the
    first step η g / ε). With momentum μ the updates are summed, b_t = μ b_(t-1) + u_t,
    and b_t is the update (nesterov: u_t + μ b_t); with rate_in_momentum=False η_t
    multiplies the sum instead.

    This is optax.rmsprop. torch takes β = 0.99, puts ε outside the root (at g = 1e-5
    and equal β a first step 31 times as long), and its rate outside the momentum's sum,
    which differs under a schedule alone. The lecture has no ε. optax and torch compute
    the variance as v - m², which rounding can make negative where gradients hardly
    change, and NaN by the root; here it is β s + β (1 - β) (g - m)², the same number,
    which stays at least 0.

    Use it where gradients are noisy and their size drifts, as in reinforcement learning
    and recurrent networks; at a minimum that has no noise it divides rounding by its
    own size and does not come to rest.

    Args:
      learning_rate: η, a number of at least 0, a traced scalar, or a schedule t -> η_t.
      decay: β in [0, 1); may be traced.
      eps: ε, at least 0; may be traced.
      initial_scale: v_0, at least 0; may be traced.
      eps_in_sqrt: Whether ε stands inside the root.
      centered: Whether to divide by the standard deviation.
      momentum: μ in [0, 1); may be traced. None means none.
      nesterov: Whether the momentum looks ahead.
      bias_correction: Whether to correct for starting at 0.
      rate_in_momentum: Whether η_t multiplies each gradient (optax) or the sum (torch).
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number; nesterov
        without momentum.
    References:
      Tieleman & Hinton, Neural networks for machine learning, lecture 6e (2012), slide
      29. Graves, Generating sequences with recurrent neural networks, arXiv:1308.0850
      (2013), equations (38)-(41): centered, with momentum.
    Example:
      >>> rule = rmsprop(1.0, decay=0.75, eps=0.0)
      >>> print(rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))[0])
      [-2.]
    """
    check_number("decay", decay, below=1.0)
    check_number("eps", eps)
    check_number("initial_scale", initial_scale)
    if nesterov and momentum is None:
        raise ValueError(
            "nesterov=True looks ahead along a momentum; got momentum=None. Give a "
            "number, 0.9 say."
        )

    def divide(g, v):
        return like(g / _root(v, eps, eps_in_sqrt), g)

    make = _centered if centered else _uncentered
    direction = make(decay, initial_scale, bias_correction, divide)
    if momentum is None:
        return optax.chain(direction, descend(learning_rate))
    momentum_rule = nesterov_momentum if nesterov else heavy_ball
    if rate_in_momentum:
        return optax.chain(
            direction, descend(learning_rate), momentum_rule(1.0, momentum), _negate()
        )
    return optax.chain(direction, momentum_rule(learning_rate, momentum))


def _uncentered(
    decay, initial_scale, corrected, divide
) -> optax.GradientTransformation:
    def init(params: Params):
        nu = jax.tree.map(lambda x: sizes_like(x, initial_scale), params)
        return (
            CorrectedRmspropState(jnp.zeros((), jnp.int32), nu)
            if corrected
            else RmspropState(nu)
        )

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        nu = moving_average(decay, state.nu, jax.tree.map(abs_square, updates))
        if not corrected:
            return jax.tree.map(divide, updates, nu), RmspropState(nu)
        count = increment(state.count)
        weight = correction(decay, count)
        nu_hat = jax.tree.map(lambda v: v / cast(weight, v), nu)
        return jax.tree.map(divide, updates, nu_hat), CorrectedRmspropState(count, nu)

    return complete(optax.GradientTransformation(init, update))


def _centered(decay, initial_scale, corrected, divide) -> optax.GradientTransformation:
    def init(params: Params):
        mu = jax.tree.map(jnp.zeros_like, params)
        variance = jax.tree.map(lambda x: sizes_like(x, initial_scale), params)
        return CenteredRmspropState(jnp.zeros((), jnp.int32), mu, variance)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        weight, rest = (
            1.0,
            decay,
        )  # Of the average, and of that what gradients before this one hold.
        if corrected:
            weight = correction(decay, count)
            rest = jnp.where(
                count > 1, decay * correction(decay, count - 1) / weight, 0.0
            )
        share = (1.0 - decay) / weight  # Of this one; share + rest = 1.

        def spread(s, g, m):
            gap = g.astype(m.dtype) - m
            return cast(decay, s) * s + cast((1.0 - decay) * rest, s) * abs_square(gap)

        variance = jax.tree.map(spread, state.variance, updates, state.mu)
        mu = jax.tree.map(
            lambda m, g: m + cast(share, m) * (g.astype(m.dtype) - m), state.mu, updates
        )
        divided = jax.tree.map(
            lambda g, s: divide(g, s / cast(weight, s)), updates, variance
        )
        return divided, CenteredRmspropState(count, mu, variance)

    return complete(optax.GradientTransformation(init, update))


def _root(v: Array, eps: float | Array, eps_in_sqrt: bool) -> Array:
    return jnp.sqrt(v + cast(eps, v)) if eps_in_sqrt else jnp.sqrt(v) + cast(eps, v)


def _negate() -> optax.GradientTransformation:
    """Undoes the sign that a rule gives its direction, for the one that stands behind
    another's."""

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        return jax.tree.map(jnp.negative, updates), state

    return complete(optax.GradientTransformation(optax.init_empty_state, update))


RULES = (
    # Its steps shrink, so that it takes longer ones.
    RuleEntry(
        adagrad,
        {"learning_rate": Range(1e-4, 10.0, "log", 0.01)},
        rates=LARGE_RATES,
    ),
    RuleEntry(
        adadelta, {"learning_rate": Range(0.01, 100.0, "log", 1.0), "rho": AVERAGE}
    ),
    RuleEntry(
        rmsprop,
        {"learning_rate": step_rate(1e-3), "decay": AVERAGE},
        rates=SMALL_RATES,
    ),
)
