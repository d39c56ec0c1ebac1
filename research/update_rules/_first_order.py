"""Gradient descent, momentum and sign descent: rules with one rate for all coordinates.

In the formulas, g_t is the gradient, u_t the update and η_t the learning rate at step
t. All operations act entry by entry.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from research.checks import check_key, check_number
from research.schedules import Schedule
from research.types import Array, Key, Params, Scalar
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
    learning_rate: Scalar | Schedule,
) -> optax.GradientTransformation:
    """Step along the negative gradient: u_t = -η_t g_t.

    g_t is the gradient, u_t the update and η_t the learning rate at step t.
    optax.sgd(η) and torch.optim.SGD(lr=η) are this rule. Batch, mini-batch and
    stochastic gradient descent are all this rule. The three methods differ only in the
    examples from which g_t is computed.

    Use it as the baseline, and on well-conditioned problems. Let κ be the ratio of the
    largest to the smallest curvature of a quadratic. Let N be the number of steps after
    which the distance to the minimum has shrunk by the factor ε. With the best rate, N
    grows like κ log(1 / ε).

    Args:
      learning_rate: Learning rate η. A nonnegative number, a traced scalar or a
        schedule (number of earlier steps -> η).
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete rate is negative, not finite or not a number.
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
    """State of `heavy_ball`, and of `nesterov` with a constant momentum.

    Attributes:
      velocity: Decaying sum of gradients, m_t = μ m_(t-1) + g_t, where μ is the
        momentum and g_t the gradient. Shaped like the params.
    """

    velocity: Params


@checked
def heavy_ball(
    learning_rate: Scalar | Schedule, momentum: Scalar = 0.9
) -> optax.GradientTransformation:
    """Step against a decaying sum of gradients.

    m_t = μ m_(t-1) + g_t,
    u_t = -η_t m_t, from m_0 = 0.

    m_t is the decaying sum, g_t the gradient, u_t the update and η_t the learning rate
    at step t. μ is the momentum. optax.sgd(η, momentum=μ) and
    torch.optim.SGD(momentum=μ) are this rule. torch also has an argument `dampening`.
    With this argument, torch multiplies g_t by 1 - dampening, except at the first step
    (see `ema_momentum`).

    Other authors write the rule in other forms. Let x_t be the params. Polyak writes
    x_(t+1) = x_t - η g_t + μ (x_t - x_(t-1)). Sutskever et al. write v_t = μ v_(t-1) -
    η g_t and x_(t+1) = x_t + v_t. With a constant rate the three forms agree. Under a
    schedule the forms differ. This rule multiplies the whole sum m_t by the current
    rate. In the other two forms, each gradient is multiplied by the rate of the step at
    which it was computed.

    Use it on ill-conditioned problems. Let κ be the ratio of the largest to the
    smallest curvature near a minimum. Let N be the number of steps after which the
    distance to the minimum has shrunk by the factor ε. With the best η and μ, N grows
    like √κ log(1 / ε). `research.update_rules._tuning.heavy_ball_constants` computes
    these η and μ. Far from a minimum, where the function is not nearly quadratic, the
    params may cycle for ever. Noise in the gradients moves the params around a minimum.
    Momentum does not reduce this motion. For small η, the motion is about as large as
    with gradient descent at the larger rate η / (1 - μ).

    Args:
      learning_rate: Learning rate η. A nonnegative number, a traced scalar or a
        schedule (number of earlier steps -> η).
      momentum: Momentum μ in [0, 1); may be traced.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type.
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
    learning_rate: Scalar | Schedule, momentum: Scalar | Schedule = 0.9
) -> optax.GradientTransformation:
    """Heavy ball with a look-ahead: step against g_t + μ m_t instead of m_t.

    m_t = μ m_(t-1) + g_t,
    u_t = -η_t (g_t + μ m_t), from m_0 = 0.

    m_t is a decaying sum of gradients, as in `heavy_ball`. g_t is the gradient, u_t the
    update and η_t the learning rate at step t. μ is the momentum. optax.sgd(η,
    momentum=μ, nesterov=True) and torch.optim.SGD(momentum=μ, nesterov=True) are this
    rule.

    Nesterov takes the gradient of the objective f at a look-ahead point y_t = x_t + μ
    (x_t - x_(t-1)), and then steps to x_(t+1) = y_t - η ∇f(y_t). In this rule, the
    params are the points y_t, so g_t is the gradient at the params (Bengio et al.).
    With a constant rate the two forms agree.

    The momentum may also be a schedule t -> μ_t. The formulas are then:

    m_t = μ_(t-1) m_(t-1) + g_t,
    u_t = -η_t (g_t + μ_t m_t).

    In these two formulas t is counted from 0, and m_(-1) is 0. So m_0 = g_0, and μ_0 is
    used first in u_0. Each μ_t multiplies m_t twice: in u_t, and in m_(t+1). optax and
    torch do not accept such a schedule.

    Use it where the heavy ball would overshoot. For convex functions with a Lipschitz
    gradient, Nesterov's rule is proved to converge if the rate is small enough. A
    constant μ suits strongly convex functions (`nesterov_constants` in
    `research.update_rules._tuning` computes this μ). In Nesterov's paper (1983), μ
    grows towards 1 with t. For such a growing μ, pass a schedule such as
    `nesterov_momentum`, also in `research.update_rules._tuning`.

    Args:
      learning_rate: Learning rate η. A nonnegative number, a traced scalar or a
        schedule (number of earlier steps -> η).
      momentum: Momentum μ in [0, 1), which may be traced, or a schedule t -> μ_t with t
        counted from 0.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type.
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
    """State of `nesterov` with a momentum schedule t -> μ_t.

    Attributes:
      count: Number of steps taken, int32, shape ().
      momentum: Momentum μ_t of the last step, shape (); 0 before the first step. The
        next step multiplies the velocity by this momentum.
      velocity: Decaying sum of gradients, m_t = μ_(t-1) m_(t-1) + g_t, where g_t is the
        gradient and t is counted from 0. Shaped like the params.
    """

    count: Int[Array, ""]
    momentum: Float[Array, ""]
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


def _accumulate(momentum: Scalar, look_ahead: bool) -> optax.GradientTransformation:
    check_number("momentum", momentum, below=1.0)

    def init(params: Params):
        return MomentumState(jax.tree.map(jnp.zeros_like, params))

    def add(velocity: Array, g: Array):
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
    """State of the rules that average gradients, `ema_momentum` and `signum`.

    Attributes:
      count: Number of steps taken, int32, shape ().
      average: Moving average of gradients, m_t = μ m_(t-1) + (1 - μ) g_t, where μ is
        the momentum and g_t the gradient. Shaped like the params. In `ema_momentum`
        with undamped_start=True, the average starts from m_1 = g_1.
    """

    count: Int[Array, ""]
    average: Params


@checked
def ema_momentum(
    learning_rate: Scalar | Schedule,
    momentum: Scalar = 0.9,
    undamped_start: bool = False,
) -> optax.GradientTransformation:
    """Step against a moving average of gradients.

    m_t = μ m_(t-1) + (1 - μ) g_t,
    u_t = -η_t m_t, from m_0 = 0.

    m_t is the average, g_t the gradient, u_t the update and η_t the learning rate at
    step t. μ is the momentum. The rule is the heavy ball with the rate (1 - μ) η, so
    the length of a step does not grow with μ.

    optax.chain(optax.ema(μ, debias=False), optax.sgd(η)) is the same rule. optax's
    default debias=True also divides m_t by 1 - μ^t, as Adam does.
    torch.optim.SGD(momentum=μ, dampening=μ) starts from m_1 = g_1 instead of
    (1 - μ) g_1. Set undamped_start=True for this start. The first step is then 1 / (1 -
    μ) times as long as without this argument.

    Use it to tune μ and η separately: the best η of this rule depends less on μ than
    the best rate of the heavy ball. Rates in the literature are usually meant for the
    heavy ball. Divide such a rate by 1 - μ to get η.

    Args:
      learning_rate: Learning rate η. A nonnegative number, a traced scalar or a
        schedule (number of earlier steps -> η).
      momentum: Momentum μ in [0, 1); may be traced.
      undamped_start: Whether to start from m_1 = g_1 instead of (1 - μ) g_1.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type.
    References:
      Polyak, Some methods of speeding up the convergence of iteration methods, USSR
      Comp. Math. Math. Phys. 4 (1964), of which this rule is a scaled form. Kingma &
      Ba, Adam, ICLR 2015, algorithm 1, the line for m_t.
    Example:
      >>> rule = ema_momentum(1.0, momentum=0.75)
      >>> updates, state = rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))
      >>> print(updates, rule.update(jnp.array([0.0]), state)[0])
      [-1.] [-0.75]
    """
    return optax.chain(_average(momentum, undamped_start), descend(learning_rate))


def _average(momentum: Scalar, undamped_start: bool) -> optax.GradientTransformation:
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
    learning_rate: Scalar | Schedule,
) -> optax.GradientTransformation:
    """Move each coordinate by the rate, against the sign of its gradient.

    u_t = -η_t sign(g_t).

    g_t is the gradient, u_t the update and η_t the learning rate at step t. Where g_t
    is 0, u_t is 0 or -0.

    optax.sign_sgd is this rule. Bernstein et al. call this rule signSGD. Steepest
    descent in the maximum norm has the same direction, but its steps have the
    additional factor |g_t|_1, the sum of the absolute values of g_t. torch does not
    have this rule. torch's Rprop steps against the signs, but also changes the rate of
    each coordinate.

    Use it to see how much of Adam's effect comes from the signs of the gradient. The
    rule also suits gradients whose sizes carry no information. With a constant rate the
    steps do not become shorter near a minimum, so the params oscillate around the
    minimum. Therefore let the rate decay. On batches of one example, the rule
    approaches a point where the median of the examples' gradients is 0 in each
    coordinate. At a minimum of the mean loss, the mean of these gradients is 0 instead.
    In general, these two points differ. Therefore use large batches.

    Args:
      learning_rate: Learning rate η. A nonnegative number, a traced scalar or a
        schedule (number of earlier steps -> η).
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete rate is negative, not finite or not a number; in
        init, the params are complex.
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
    learning_rate: Scalar | Schedule, momentum: Scalar = 0.9
) -> optax.GradientTransformation:
    """Move each coordinate by the rate, against the sign of an average of gradients.

    m_t = μ m_(t-1) + (1 - μ) g_t,
    u_t = -η_t sign(m_t), from m_0 = 0.

    m_t is the average, g_t the gradient, u_t the update and η_t the learning rate at
    step t. optax.signum(η, beta=μ) is the same rule. The decaying sum of gradients in
    `heavy_ball` would give the same signs as the average. Lion takes the sign of
    (1 - β1) g_t + β1 m_(t-1), where m is a moving average with a separate decay β2.

    Use it in place of `sign_descent` if gradients are noisy: the noise is averaged
    before the sign is taken. Near a minimum the rule overshoots by about 1 / (1 - μ)
    steps.

    Args:
      learning_rate: Learning rate η. A nonnegative number, a traced scalar or a
        schedule (number of earlier steps -> η).
      momentum: Momentum μ in [0, 1), called β by Bernstein et al.; may be traced.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type;
        in init, the params are complex.
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


class NoisyState(NamedTuple):
    """State of `noisy_sgd`.

    Attributes:
      count: Number t of steps taken, int32, shape ().
    """

    count: Int[Array, ""]


@checked
def noisy_sgd(
    learning_rate: Scalar | Schedule,
    key: Key,
    eta: Scalar = 0.01,
    gamma: Scalar = 0.55,
) -> optax.GradientTransformation:
    """Add normal noise to the gradient, with a variance that falls over time.

    u_t = -η_t (g_t + σ_t n_t), with σ_t² = σ² / t^γ.

    g_t is the gradient, u_t the update and η_t the learning rate at step t, which is
    counted from 1. n_t are standard normal numbers, so the noise σ_t n_t has the
    variance σ_t². The argument `eta` is σ², not the learning rate η.

    The numbers n_t of leaf k are drawn with the key fold_in(fold_in(key, t - 1), k).
    Here k is counted from 0, and fold_in is `jax.random.fold_in`. A run that is resumed
    at step t therefore draws the same numbers as an uninterrupted run. optax.noisy_sgd
    draws other numbers from the same distribution, because its state contains the key.
    torch does not have the rule.

    Use it to leave flat regions and saddle points early in a training, or to compare
    artificial noise with the noise of mini-batches.

    Args:
      learning_rate: Rate η: a nonnegative number, a traced scalar or a schedule (number
        of earlier steps -> η).
      key: Key of `jax.random`. Do not use this key elsewhere.
      eta: Variance σ² of each entry of the noise in the first step, at least 0; may be
        traced.
      gamma: Exponent γ, at least 0; may be traced.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        or key is not a key.
    References:
      Neelakantan et al., Adding gradient noise improves learning for very deep
      networks, 2015, equation (1).
    Example:
      >>> rule = noisy_sgd(0.1, jax.random.key(0), eta=0.0)
      >>> print(rule.update(jnp.array([2.0]), rule.init(jnp.zeros(1)))[0])
      [-0.2]
    """
    check_key("key", key)
    check_number("eta", eta)
    check_number("gamma", gamma)

    def init(params: Params):
        del params
        return NoisyState(jnp.zeros((), jnp.int32))

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        deviation = jnp.sqrt(eta * count.astype(float) ** -gamma)
        leaves, structure = jax.tree.flatten(updates)
        key_step = jax.random.fold_in(key, state.count)
        noisy = []
        for k, g in enumerate(leaves):
            # In bfloat16, drawn numbers would have a mean that is not 0.
            wide = g.dtype if g.dtype.itemsize >= 4 else jnp.float32
            noise = jax.random.normal(jax.random.fold_in(key_step, k), g.shape, wide)
            noisy.append(g + cast(deviation, g) * noise.astype(g.dtype))
        return jax.tree.unflatten(structure, noisy), NoisyState(count)

    return optax.chain(
        complete(optax.GradientTransformation(init, update)), descend(learning_rate)
    )


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
    # A rate of 0.1 here equals the heavy ball's rate (1 - 0.9) 0.1 = 0.01.
    RuleEntry(
        ema_momentum, {"learning_rate": gradient_rate(0.1), "momentum": MOMENTUM}
    ),
    RuleEntry(
        sign_descent,
        {"learning_rate": step_rate(1e-4)},
        aliases=("sign_sgd", "signsgd"),
    ),
    RuleEntry(signum, {"learning_rate": step_rate(1e-4), "momentum": MOMENTUM}),
    RuleEntry(
        noisy_sgd,
        "it needs a key, so it draws the same random numbers with every seed",
        needs="a key",
    ),
)
