"""Gradient descent, with and without momentum, and along signs: rules with one rate for
all coordinates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Params
from research.update_rules._checks import checked
from research.update_rules._edges import complete
from research.update_rules._entry import (
    LARGE_RATES,
    MOMENTUM,
    SMALL_RATES,
    RuleEntry,
    gradient_rate,
    step_rate,
)
from research.update_rules._transforms import (
    cast,
    descend,
    increment,
    like,
    moving_average,
)


@checked
def gradient_descent(
    learning_rate: float | Array | Schedule,
) -> optax.GradientTransformation:
    """Steps along the negative gradient: u_t = -η_t g_t.

    optax.sgd(η) and torch.optim.SGD(lr=η) are the same. Which examples g_t is taken
    over is the sampler's business: batch, stochastic and mini-batch descent are this
    one rule.

    Use it as what others are measured by, and where the problem is well conditioned: it
    needs κ log(1 / ε) steps, κ the ratio of the largest to the smallest curvature.

    Args:
      learning_rate: η, a number of at least 0, a traced scalar, or a schedule t -> η_t.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete rate is negative, not finite or no number.
    References:
      Cauchy, Méthode générale pour la résolution des systèmes d'équations simultanées,
      C. R. Acad. Sci. 25 (1847).
      Robbins & Monro, A stochastic approximation method, Ann. Math. Stat. 22 (1951).
    Example:
      >>> rule = gradient_descent(0.5)
      >>> print(rule.update(jnp.array([2.0, -4.0]), rule.init(jnp.zeros(2)))[0])
      [-1.  2.]
    """
    return descend(learning_rate)


class MomentumState(NamedTuple):
    """What momentum keeps.

    Attributes:
      velocity: m_t, the decaying sum of gradients; like the params.
    """

    velocity: Params


@checked
def heavy_ball(
    learning_rate: float | Array | Schedule, momentum: float | Array = 0.9
) -> optax.GradientTransformation:
    """Steps along a decaying sum of gradients: m_t = μ m_(t-1) + g_t, u_t = -η_t m_t,
    from m_(-1) = 0.

    optax.sgd(η, momentum=μ) and torch.optim.SGD(momentum=μ) are the same. Polyak writes
    x_(t+1) = x_t - η g_t + μ (x_t - x_(t-1)), Sutskever et al. v_t = μ v_(t-1) - η g_t.
    With a constant rate all are one; under a schedule the rate here scales the whole
    sum, theirs each gradient once. torch's `dampening`, absent here, scales g_t by 1 -
    dampening except on the first step (`ema_momentum`).

    Use it where the problem is ill conditioned: √κ log(1 / ε) steps near a minimum
    (`tuning.heavy_ball_constants`), though far from one it may cycle for ever. Noise it
    does not take away: at the same η it is as much as at η / (1 - μ) without momentum.

    Args:
      learning_rate: η, a number of at least 0, a traced scalar, or a schedule t -> η_t.
      momentum: μ in [0, 1); may be traced.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Polyak, Some methods of speeding up the convergence of iteration methods, USSR
      Comp. Math. Math. Phys. 4 (1964).
      Sutskever et al., On the importance of initialization and momentum in deep
      learning, ICML 2013, equations (1)-(2).
    Example:
      >>> rule = heavy_ball(1.0, momentum=0.5)
      >>> updates, state = rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))
      >>> print(rule.update(jnp.array([0.0]), state)[0])
      [-2.]
    """
    return optax.chain(_accumulate(momentum, look_ahead=False), descend(learning_rate))


@checked
def nesterov(
    learning_rate: float | Array | Schedule, momentum: float | Array | Schedule = 0.9
) -> optax.GradientTransformation:
    """Steps along the sum that the heavy ball would have next: m_t = μ m_(t-1) + g_t,
    u_t = -η_t (g_t + μ m_t).

    optax.sgd(η, momentum=μ, nesterov=True) and torch.optim.SGD(momentum=μ,
    nesterov=True) are the same. Nesterov takes the gradient at a look-ahead point, y_t
    = x_t + μ (x_t - x_(t-1)), x_(t+1) = y_t - η ∇f(y_t). Here the params are y_t, so
    that the gradient is taken where the params are (Bengio et al.); with a constant
    rate the two agree.

    Use it where the heavy ball would overshoot: it has a proof for every convex
    function. A constant μ is for strongly convex ones (`tuning.nesterov_constants`). In
    the paper μ grows towards 1 with t: that is a schedule here, such as
    `tuning.nesterov_momentum`, and then m_t = μ_(t-1) m_(t-1) + g_t, u_t = -η_t (g_t +
    μ_t m_t), for y_t was looked ahead to with μ_(t-1). optax and torch take no such
    schedule.

    Args:
      learning_rate: η, a number of at least 0, a traced scalar, or a schedule t -> η_t.
      momentum: μ in [0, 1), which may be traced, or a schedule t -> μ_t with t counted
        from 0.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Nesterov, A method of solving a convex programming problem with convergence rate
      O(1/k²), Soviet Math. Dokl. 27 (1983). Sutskever et al., ICML 2013, equations
      (3)-(4). Bengio, Boulanger-Lewandowski & Pascanu, Advances in optimizing recurrent
      networks, ICASSP 2013, section 3.5.
    Example:
      >>> rule = nesterov(1.0, momentum=0.5)
      >>> print(rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))[0])
      [-6.]
    """
    if callable(momentum):
        return optax.chain(_accumulate_by_schedule(momentum), descend(learning_rate))
    return optax.chain(_accumulate(momentum, look_ahead=True), descend(learning_rate))


class ScheduledMomentumState(NamedTuple):
    """What Nesterov's rule keeps when its momentum is a schedule.

    Attributes:
      count: Steps taken, int32, shape ().
      momentum: μ_t of the last of them (before the first: 0), shape ().
      velocity: m_t; like the params.
    """

    count: Array
    momentum: Array
    velocity: Params


def _accumulate_by_schedule(momentum: Schedule) -> optax.GradientTransformation:
    def init(params: Params):
        return ScheduledMomentumState(
            jnp.zeros((), jnp.int32),
            jnp.zeros(()),
            jax.tree.map(jnp.zeros_like, params),
        )

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        now = jnp.asarray(momentum(state.count), state.momentum.dtype)
        velocity = jax.tree.map(
            lambda m, g: cast(state.momentum, m) * m + g.astype(m.dtype),
            state.velocity,
            updates,
        )
        direction = jax.tree.map(
            lambda m, g: (cast(now, m) * m + g.astype(m.dtype)).astype(g.dtype),
            velocity,
            updates,
        )
        return direction, ScheduledMomentumState(increment(state.count), now, velocity)

    return complete(optax.GradientTransformation(init, update))


def _accumulate(
    momentum: float | Array, look_ahead: bool
) -> optax.GradientTransformation:
    check_number("momentum", momentum, below=1.0)

    def init(params: Params):
        return MomentumState(jax.tree.map(jnp.zeros_like, params))

    def add(velocity, g):
        return cast(momentum, velocity) * velocity + like(g, velocity)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        velocity = jax.tree.map(add, state.velocity, updates)
        direction = jax.tree.map(add, velocity, updates) if look_ahead else velocity
        return jax.tree.map(lambda d, g: like(d, g), direction, updates), MomentumState(
            velocity
        )

    return complete(optax.GradientTransformation(init, update))


class AverageState(NamedTuple):
    """What an average of gradients keeps.

    Attributes:
      count: Steps taken, int32, shape ().
      average: m_t; like the params.
    """

    count: Array
    average: Params


@checked
def ema_momentum(
    learning_rate: float | Array | Schedule,
    momentum: float | Array = 0.9,
    undamped_start: bool = False,
) -> optax.GradientTransformation:
    """Steps along an average of gradients: m_t = μ m_(t-1) + (1 - μ) g_t, u_t = -η_t
    m_t, from m_0 = 0.

    It is the heavy ball with (1 - μ) η for its rate: the length of a step does not grow
    with μ. optax.chain(optax.ema(μ, debias=False), optax.sgd(η)) is the same; with
    optax's default debias=True, m_t is also divided by 1 - μ^t, as in Adam.
    torch.optim.SGD(momentum=μ, dampening=μ) starts from m_1 = g_1, without the factor:
    that is undamped_start=True, a first step 1 / (1 - μ) times as long.

    Use it where μ is to be tuned apart from η, for the rate need not be tuned again for
    each μ. Otherwise the heavy ball is what the literature's rates are for.

    Args:
      learning_rate: η, a number of at least 0, a traced scalar, or a schedule t -> η_t.
      momentum: μ in [0, 1); may be traced.
      undamped_start: Whether m_1 = g_1.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Polyak, Some methods of speeding up the convergence of iteration methods, USSR
      Comp. Math. Math. Phys. 4 (1964), of which it is a scaling. Kingma & Ba, Adam,
      ICLR 2015, algorithm 1, its line for m_t.
    Example:
      >>> rule = ema_momentum(1.0, momentum=0.75)
      >>> updates, state = rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))
      >>> print(updates, rule.update(jnp.array([0.0]), state)[0])
      [-1.] [-0.75]
    """
    return optax.chain(_average(momentum, undamped_start), descend(learning_rate))


def _average(
    momentum: float | Array, undamped_start: bool
) -> optax.GradientTransformation:
    check_number("momentum", momentum, below=1.0)
    if not isinstance(undamped_start, bool):
        raise TypeError(
            "undamped_start must be True or False; got "
            f"undamped_start={undamped_start!r}."
        )

    def init(params: Params):
        return AverageState(
            jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params)
        )

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        average = moving_average(momentum, state.average, updates)
        if undamped_start:
            average = jax.tree.map(
                lambda g, m: jnp.where(state.count == 0, g.astype(m.dtype), m),
                updates,
                average,
            )
        direction = jax.tree.map(lambda m, g: like(m, g), average, updates)
        return direction, AverageState(increment(state.count), average)

    return complete(optax.GradientTransformation(init, update))


@checked
def sign_descent(
    learning_rate: float | Array | Schedule,
) -> optax.GradientTransformation:
    """Steps by the rate in each coordinate, against the gradient's sign: u_t = -η_t
    sign(g_t); 0 where g_t is 0.

    It is steepest descent for the largest coordinate as the norm, without the factor
    |g|_1 that this has there. optax.sign_sgd is the same; the paper calls it signSGD.
    torch has none: its Rprop is another rule, for it changes each coordinate's rate.

    Use it to see how much of Adam is its sign, or where sizes of gradients mean
    nothing. With a constant rate it comes no closer to a minimum than the rate, and on
    single examples not to the minimum of the mean, but of something nearer to a median:
    it wants large batches and a schedule that decays.

    Args:
      learning_rate: η, a number of at least 0, a traced scalar, or a schedule t -> η_t.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete rate is negative, not finite or no number.
    References:
      Bernstein et al., signSGD: compressed optimisation for non-convex problems, ICML
      2018, algorithm 1.
    Example:
      >>> rule = sign_descent(0.5)
      >>> print(rule.update(jnp.array([3.0, 0.0, -1e-9]), rule.init(jnp.zeros(3)))[0])
      [-0.5 -0.   0.5]
    """
    return optax.chain(_signs("sign_descent"), descend(learning_rate))


@checked
def signum(
    learning_rate: float | Array | Schedule, momentum: float | Array = 0.9
) -> optax.GradientTransformation:
    """Steps by the rate against the sign of an average of gradients: m_t = μ m_(t-1) +
    (1 - μ) g_t, u_t = -η_t sign(m_t).

    optax.signum(η, beta=μ) is the same. A decaying sum in place of the average has the
    same signs, for both start from 0. Lion takes the sign of another mixture, (1 - β1)
    g_t + β1 m_(t-1), of a slower average.

    Use it as `sign_descent`, where gradients are noisy: the average decides before the
    sign is taken. Near a minimum it overshoots by some 1 / (1 - μ) steps.

    Args:
      learning_rate: η, a number of at least 0, a traced scalar, or a schedule t -> η_t.
      momentum: μ in [0, 1), the paper's β; may be traced.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Bernstein et al., signSGD: compressed optimisation for non-convex problems, ICML
      2018, algorithm 2.
    Example:
      >>> rule = signum(0.5, momentum=0.75)
      >>> updates, state = rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))
      >>> print(updates, rule.update(jnp.array([-2.0]), state)[0])
      [-0.5] [-0.5]
    """
    return optax.chain(
        _average(momentum, undamped_start=False),
        _signs("signum"),
        descend(learning_rate),
    )


def _signs(rule: str) -> optax.GradientTransformation:
    signs = optax.GradientTransformation(
        optax.init_empty_state,
        lambda updates, state, params=None: (jax.tree.map(jnp.sign, updates), state),
    )
    return complete(signs, only_real=rule)


RULES = (
    RuleEntry(
        gradient_descent,
        {"learning_rate": gradient_rate(0.01)},
        rates=LARGE_RATES,
        aliases=("sgd", "gd"),
    ),
    RuleEntry(
        heavy_ball,
        {"learning_rate": gradient_rate(0.01), "momentum": MOMENTUM},
        rates=SMALL_RATES,
        aliases=("momentum",),
    ),
    RuleEntry(
        nesterov,
        {"learning_rate": gradient_rate(0.01), "momentum": MOMENTUM},
        rates=SMALL_RATES,
        aliases=("nag",),
    ),
    # The heavy ball's (1 - 0.9) 0.1 = 0.01.
    RuleEntry(
        ema_momentum, {"learning_rate": gradient_rate(0.1), "momentum": MOMENTUM}
    ),
    RuleEntry(
        sign_descent,
        {"learning_rate": step_rate(1e-4)},
        aliases=("sign_sgd", "signsgd"),
    ),
    RuleEntry(signum, {"learning_rate": step_rate(1e-4), "momentum": MOMENTUM}),
)
