"""Rules that divide each gradient entry by the size of its past gradients.

The size comes from a sum of squares (Adagrad, MADGRAD) or from a moving average of
squares (Adadelta, RMSProp). In the formulas, g_t is the gradient, u_t the update and
η_t the learning rate at step t. All operations act entry by entry.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Params, Scalar
from research.update_rules._bias_correction import bias_correction as correction
from research.update_rules._checks import check_rate, checked, rate_at
from research.update_rules._edges import (
    abs_square,
    blanked,
    complete,
    filled,
    overflowed,
    sizes_like,
)
from research.update_rules._entry import (
    AVERAGE,
    LARGE_RATES,
    MOMENTUM,
    SMALL_RATES,
    Range,
    RuleEntry,
    step_rate,
)
from research.update_rules._first_order import heavy_ball
from research.update_rules._first_order import nesterov as nesterov_momentum
from research.update_rules._transforms import (
    add_decayed_weights,
    cast,
    constant_rate,
    descend,
    direction_of,
    increment,
    like,
    moving_average,
)


class AdagradState(NamedTuple):
    """State of `adagrad`.

    Attributes:
      sum_of_squares: Sum of the starting value and of all squared gradients, shaped
        like the params (real if the params are complex).
    """

    sum_of_squares: Params


@checked
def adagrad(
    learning_rate: Scalar | Schedule,
    initial_accumulator_value: Scalar = 0.1,
    eps: Scalar = 1e-7,
    eps_in_sqrt: bool = True,
) -> optax.GradientTransformation:
    """Divide each gradient entry by the root of the sum of its squares so far.

    s_t = s_(t-1) + g_t²,
    u_t = -η_t g_t / √(s_t + ε), or 0 where s_t = 0.

    g_t is the gradient, s_t the sum of its squares, u_t the update and η_t the learning
    rate at step t. The sum starts from s_0 = initial_accumulator_value. With
    eps_in_sqrt=False the denominator is √s_t + ε. The defaults are those of
    optax.adagrad, which has no argument eps_in_sqrt. The paper starts from s_0 = 0 and
    adds its constant δ outside the root. torch does the same, with δ = 1e-10. The
    starting value changes the first steps much more than the place of ε does. For
    example, if the first gradient entry is 0.01, the param moves by 0.0316 η with the
    default s_0 = 0.1, and by about η with s_0 = 0.

    Use it for sparse features. The param of such a feature has the gradient 0 in most
    steps. Its s_t stays small, so its steps are long when the feature occurs. If the
    gradient entries keep their size, the steps shrink like 1/√t. Such a decrease suits
    convex problems, but is often too fast for networks.

    Args:
      learning_rate: Learning rate η. A nonnegative number, a traced scalar or a
        schedule (number of earlier steps -> η).
      initial_accumulator_value: Starting value s_0, at least 0; may be traced.
      eps: Constant ε, at least 0; may be traced.
      eps_in_sqrt: Whether ε is added inside the root.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type.
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

    def divide(g: Array, s: Array):
        return jnp.where(s == 0, 0.0, g / _root(s, eps, eps_in_sqrt)).astype(
            g.dtype
        )  # 0 / 0 becomes 0, and a NaN gradient stays NaN.

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
    """State of `adadelta`, whose docstring defines the symbols.

    Attributes:
      mean_square_gradient: Moving average E_t of squared gradients, shaped like the
        params.
      mean_square_update: Moving average D_t of squared directions d_t (the updates
        before their multiplication by -η_t), shaped like the params.
    """

    mean_square_gradient: Params
    mean_square_update: Params


@checked
def adadelta(
    learning_rate: Scalar | Schedule = 1.0,
    rho: Scalar = 0.9,
    eps: Scalar = 1e-6,
) -> optax.GradientTransformation:
    """Multiply each gradient entry by (size of past steps) / (size of past gradients).

    E_t = ρ E_(t-1) + (1 - ρ) g_t²,
    d_t = √(D_(t-1) + ε) / √(E_t + ε) · g_t,
    D_t = ρ D_(t-1) + (1 - ρ) d_t²,
    u_t = -η_t d_t, from E_0 = D_0 = 0.

    g_t is the gradient, d_t the direction, u_t the update and η_t the learning rate at
    step t. E_t is the moving average of g_t², and D_t is the moving average of d_t². If
    ε is neglected, g_t / √E_t has no unit, and the factor √D_(t-1) gives d_t the unit
    of the params.

    The paper has no η, which is the same as η = 1. As in optax and torch, D_t averages
    d_t², not u_t². For complex params, E_t and D_t average squared absolute values.
    optax averages the complex squares instead, and torch treats the real and the
    imaginary part of an entry as two entries. optax.adadelta also has an argument
    weight_decay. To get the same decay here, chain `add_decayed_weights` before this
    rule.

    Use it where no rate can be tuned and many steps are affordable. D starts at 0, so
    each entry of the first step is at most η √(ε / (1 - ρ)), which is 0.003 with the
    defaults. The size of the later steps grows slowly.

    Args:
      learning_rate: Learning rate η. A nonnegative number, a traced scalar or a
        schedule (number of earlier steps -> η).
      rho: Decay ρ in [0, 1); may be traced.
      eps: Constant ε, at least 0; may be traced. With ε = 0, an entry becomes NaN if
        its first gradient is 0, and never moves if its first gradient is not 0.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type.
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

    def scale(g: Array, e: Array, d: Array):
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
    """State of `rmsprop` with bias_correction=False and centered=False.

    Attributes:
      nu: Moving average of squared gradients, shaped like the params.
    """

    nu: Params


class CorrectedRmspropState(NamedTuple):
    """State of `rmsprop` with bias_correction=True and centered=False.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      nu: Moving average of squared gradients before its bias correction, shaped like
        the params.
    """

    count: Int[Array, ""]
    nu: Params


class CenteredRmspropState(NamedTuple):
    """State of `rmsprop` with centered=True.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      mu: Moving average of gradients, shaped like the params. It is bias-corrected if
        the rule has bias_correction=True.
      variance: ν - c mu², shaped like the params. ν is the moving average of the
        squared gradients. With bias_correction=True, c is 1 - decay^t, where decay is
        the argument of `rmsprop`. Otherwise c is 1. The variance is stored without bias
        correction; the rule divides it by c in each step.
    """

    count: Int[Array, ""]
    mu: Params
    variance: Params


@checked
def rmsprop(
    learning_rate: Scalar | Schedule,
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    rate_in_momentum: bool = True,
) -> optax.GradientTransformation:
    """Divide each gradient entry by the root of a moving average of its squares.

    v_t = β v_(t-1) + (1 - β) g_t²,
    u_t = -η_t g_t / √(v_t + ε), from v_0 = initial_scale.

    g_t is the gradient, v_t the moving average of its squares, u_t the update and η_t
    the learning rate at step t. With eps_in_sqrt=False the denominator is √v_t + ε.
    With bias_correction=True, v_t / (1 - β^t) replaces v_t. If bias_correction is
    False, v_0 is 0 and ε is negligible, the first step moves each entry by about
    η / √(1 - β). For β = 0.9, this length is 3.2 η.

    With centered=True the variance v_t - m_t² replaces v_t, where m_t is the moving
    average of gradients with the decay β, from m_0 = 0. If bias_correction is also
    True, v_t and m_t are each divided by 1 - β^t. If, in addition, initial_scale is 0,
    the variance of the first step is 0. The first update may then be very large: it is
    -η g_1 / √ε, or -η g_1 / ε with eps_in_sqrt=False.

    With momentum μ the update is not u_t, but the sum b_t = μ b_(t-1) + u_t, from b_0 =
    0. With nesterov=True the update is u_t + μ b_t. With rate_in_momentum=False, the
    terms are summed without η_t, and η_t then multiplies the sum.

    optax.rmsprop is the same up to rounding errors. torch has the default β = 0.99 and
    adds ε outside the root. For example, if the first gradient entry is 1e-5, β = 0.9
    and ε = 1e-8, the first step is 32 times as long with ε outside the root as with ε
    inside. In torch, the rate multiplies the momentum's sum b_t instead of each term
    (rate_in_momentum=False). The two forms differ only if the rate follows a schedule.
    The lecture that introduced RMSProp has no ε.

    optax and torch compute the variance by subtraction, as v - m². Where gradients
    hardly change, rounding errors can make this difference negative, and its root NaN.
    Here, without bias correction, the variance is β s + β (1 - β) (g - m)², where s and
    m are the previous variance and average. In exact arithmetic this expression equals
    v_t - m_t². Even with rounding errors, the expression is never negative. With bias
    correction, the expression has the same form, with other factors.

    Use it where gradients are noisy and their size drifts, as in reinforcement learning
    and recurrent networks. With a constant rate, each param moves by about η per step
    as long as its gradients are larger than √ε. Near a minimum, the param therefore
    oscillates around the minimum. Let the rate decay to converge.

    Args:
      learning_rate: Learning rate η. A nonnegative number, a traced scalar or a
        schedule (number of earlier steps -> η).
      decay: Decay β in [0, 1); may be traced.
      eps: Constant ε, at least 0; may be traced.
      initial_scale: Starting value v_0. With centered=True, the starting value of the
        variance. At least 0; may be traced.
      eps_in_sqrt: Whether ε is added inside the root.
      centered: Whether to divide by the standard deviation, the root of v_t - m_t².
      momentum: Momentum μ in [0, 1); may be traced. None disables momentum.
      nesterov: Whether the update is u_t + μ b_t (Nesterov's look-ahead) instead of
        b_t.
      bias_correction: Whether to divide the averages by 1 - β^t, to correct them for
        starting at 0.
      rate_in_momentum: If True, η_t multiplies each term of the momentum's sum, as in
        optax. If False, η_t multiplies the sum, as in torch.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        or nesterov is True without momentum.
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
            "nesterov=True needs a momentum; got momentum=None. Pass a number, for "
            "example 0.9."
        )

    def divide(g: Array, v: Array):
        return like(g / _root(v, eps, eps_in_sqrt), g)

    make = _centered if centered else _uncentered
    direction = make(decay, initial_scale, bias_correction, divide)
    if momentum is None:
        return optax.chain(direction, descend(learning_rate))
    momentum_rule = nesterov_momentum if nesterov else heavy_ball
    if rate_in_momentum:
        summed = direction_of(momentum_rule(1.0, momentum))
        return optax.chain(direction, descend(learning_rate), summed)
    return optax.chain(direction, momentum_rule(learning_rate, momentum))


def _uncentered(
    decay: Scalar,
    initial_scale: Scalar,
    corrected: bool,
    divide: Callable[[Array, Array], Array],
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


def _centered(
    decay: Scalar,
    initial_scale: Scalar,
    corrected: bool,
    divide: Callable[[Array, Array], Array],
) -> optax.GradientTransformation:
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
        )  # Weight of the average, and the share of it that older gradients hold.
        if corrected:
            weight = correction(decay, count)
            rest = jnp.where(
                count > 1, decay * correction(decay, count - 1) / weight, 0.0
            )
        share = (1.0 - decay) / weight  # This gradient's share; share + rest = 1.

        def spread(s: Array, g: Array, m: Array):
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


def _root(v: Array, eps: Scalar, eps_in_sqrt: bool) -> Array:
    return jnp.sqrt(v + cast(eps, v)) if eps_in_sqrt else jnp.sqrt(v) + cast(eps, v)


class MadgradState(NamedTuple):
    """State of `madgrad`, whose docstring defines the symbols.

    Attributes:
      count: Number of steps taken, int32, shape ().
      moved: Sum of all updates so far, which is the current params minus x_0, shaped
        like the params.
      gradient_sum: Weighted sum s_t of gradients, shaped like the params.
      sum_of_squares: Weighted sum ν_t of squared gradients, shaped like the params
        (real if the params are complex).
      learning_rate: Learning rate of the last step, shape (). Before the first step,
        the rate that the first step will use.
    """

    count: Int[Array, ""]
    moved: Params
    gradient_sum: Params
    sum_of_squares: Params
    learning_rate: Float[Array, ""]


@checked
def madgrad(
    learning_rate: Scalar | Schedule,
    momentum: Scalar = 0.9,
    weight_decay: Scalar = 0.0,
    mask: Any = None,
    eps: Scalar = 1e-6,
    eps_in_rate: bool = True,
) -> optax.GradientTransformation:
    """Dual averaging, divided by the cube root of a weighted sum of squared gradients.

    Each step goes towards a point z_t. In dual averaging, z_t is computed from the
    initial params x_0 and a sum of all gradients, not from the current params x_t.

    w_t = (η_t + ε) √t, with t counted from 1, is the weight of the gradient g_t,
    s_t = s_(t-1) + w_t g_t,
    ν_t = ν_(t-1) + w_t g_t²,
    z_t = x_0 - s_t / (∛ν_t + ε),
    u_t = (1 - μ) (z_t - x_t), where u_t is the update, η_t the learning rate and μ the
    argument momentum. x_t are the params before step t, and x_0 are the initial params,
    so x_1 = x_0. The sums s_t and ν_t start at 0. Where the divisor ∛ν_t + ε is 0, the
    quotient in z_t is 0.

    optax.contrib.madgrad and the authors' code use the formulas above, with one
    exception: in the authors' code, w_t is 0 in a step with η_t = 0. The paper has η_t
    in place of η_t + ε (eps_in_rate=False). This function computes x_t - x_0 as the sum
    of its updates, so the rule must be the last one in a chain. optax stores x_0 and
    subtracts x_0 from x_t. This subtraction loses digits. optax also computes √t in
    float32. torch does not have the rule.

    Use it for sparse or noisy gradients and for long trainings. s_t is a sum, so old
    gradients do not fade. Good values of η and of the weight decay λ differ from those
    for other rules. Often λ = 0 is best.

    Args:
      learning_rate: Rate η: a nonnegative number, a traced scalar or a schedule (number
        of earlier steps -> η).
      momentum: Momentum μ in [0, 1); may be traced.
      weight_decay: Decay λ, coupled: λ x_t is added to the gradient. At least 0; may be
        traced.
      mask: Pytree of booleans, or a function from the params to such a pytree. Leaves
        marked True decay, as in `adamw`. None means all leaves.
      eps: Constant ε, at least 0; may be traced.
      eps_in_rate: Whether ε is added to the rate in w_t. If False, w_t = η_t √t.
    Returns:
      The rule, an optax.GradientTransformation; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        mask does not fit the params, or update got no params.
    References:
      Defazio & Jelassi, Adaptivity without compromise: a momentumized, adaptive, dual
      averaged gradient method for stochastic optimization, JMLR 23 (2022), algorithm 1.
    Example:
      >>> rule, x = madgrad(1.0, momentum=0.5, eps=0.0), jnp.zeros(1)
      >>> print(rule.update(jnp.array([8.0]), rule.init(x), x)[0])
      [-1.]
    """
    check_rate(learning_rate)
    check_number("momentum", momentum, below=1.0)
    check_number("eps", eps)

    def rate(count: Array):
        return constant_rate(rate_at(learning_rate, count))

    def init(params: Params):
        moved, gradient_sum = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        squares = jax.tree.map(sizes_like, params)
        count = jnp.zeros((), jnp.int32)
        return MadgradState(count, moved, gradient_sum, squares, rate(count))

    def update(updates: Params, state: Any, params: Params | None = None):
        given, updates = updates, filled(updates, params)
        eta, count = rate(state.count), increment(state.count)
        weight = (eta + eps if eps_in_rate else eta) * jnp.sqrt(count.astype(float))
        gradient_sum = jax.tree.map(
            lambda s, g: s + cast(weight, s) * like(g, s), state.gradient_sum, updates
        )
        squares = jax.tree.map(
            lambda v, g: v + cast(weight, v) * like(abs_square(g), v),
            state.sum_of_squares,
            updates,
        )

        def step(g: Array, s: Array, v: Array, moved: Array):
            root = jnp.cbrt(v) + cast(eps, v)
            still = (root == 0) | overflowed(v, g)
            ahead = -jnp.where(still, 0.0, s / root) - moved
            return like(cast(1.0 - momentum, s) * ahead, g)

        steps = jax.tree.map(step, updates, gradient_sum, squares, state.moved)
        if given is not updates:  # A leaf with the gradient None does not move.
            steps = blanked(steps, given)
        moved = jax.tree.map(
            lambda x, u: x + like(u, x), state.moved, filled(steps, params)
        )
        return steps, MadgradState(count, moved, gradient_sum, squares, eta)

    return optax.chain(
        add_decayed_weights(weight_decay, mask),
        complete(optax.GradientTransformation(init, update), sees_none=True),
    )


RULES = (
    # Its steps shrink over time, so larger rates suit it.
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
    RuleEntry(
        madgrad,
        {"learning_rate": Range(1e-5, 1.0, "log", 0.01), "momentum": MOMENTUM},
    ),
)
