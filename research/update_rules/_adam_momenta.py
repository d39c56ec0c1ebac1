"""Adam with another first moment: AdEMAMix, its simplified form, LaProp and MARS.

AdEMAMix adds a second, slow average of the gradients. LaProp divides each gradient by
the root of Adam's average of squared gradients, and then takes the average. MARS adds
to each gradient a multiple of the last change of the gradient. In the formulas, g_t is
the gradient, u_t the update and η_t the learning rate at step t. Operations act entry
by entry, except for a norm in MARS.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Int

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Integer, Params, Scalar
from research.update_rules._adam import AdamState
from research.update_rules._bias_correction import bias_correction
from research.update_rules._checks import check_decays_and_sizes, checked
from research.update_rules._edges import (
    abs_square,
    complete,
    leaf_norm,
    overflowed,
    sizes_like,
    within_range,
)
from research.update_rules._entry import MOMENTUM, Range, RuleEntry, step_rate
from research.update_rules._transforms import (
    add_decayed_weights,
    cast,
    descend,
    increment,
    like,
    moving_average,
)


class AdemamixState(NamedTuple):
    """State of `ademamix`, whose docstring defines the symbols.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      mu: Fast moving average m_t of gradients, shaped like the params.
      slow: Slow moving average n_t of gradients, shaped like the params.
      nu: Moving average v_t of squared gradients, shaped like the params.
    """

    count: Int[Array, ""]
    mu: Params
    slow: Params
    nu: Params


@checked
def ademamix(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: Scalar = 0.9999,
    alpha: Scalar = 5.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    mask: Any = None,
    warmup_steps: Integer = 0,
) -> optax.GradientTransformation:
    """AdamW with a second, slow average of gradients in the numerator.

    n_t = β3 n_(t-1) + (1 - β3) g_t,
    u_t = -η_t ((m̂_t + α n_t) / (√(v̂_t + ε_root) + ε) + λ x_t), where u_t is the
    update, g_t the gradient, x_t are the params and η_t is the learning rate at step t.
    n_t is the slow average. m̂_t and v̂_t are the averages of the gradients and of
    their squares, with bias correction, as in `adam`. α is alpha, β3 is b3 and λ is
    weight_decay.

    The slow average n_t starts at 0 without bias correction, so its influence grows
    slowly. With warmup_steps = T > 0, α and the decay of n_t also grow during the first
    T steps. Let s = min(t / T, 1) at step t, counted from 1. α is replaced by α s. β3
    is replaced by a decay β3_t that grows from about β1 to β3: log β3_t = log β3 / (s +
    (1 - s) log β3 / log β1). Without a warm-up, the training may diverge early. In the
    paper, the warm-up lasts for the whole training.

    Without a warm-up, optax.contrib.ademamix is the same rule. optax has no argument
    for the warm-up, but accepts schedules for α and β3. optax counts the steps of these
    schedules from 0. In the library bitsandbytes, the arguments t_alpha and t_beta3 are
    the lengths of the warm-ups of α and β3. torch does not have the rule.

    Use it for long trainings of large models, where gradients that are 10,000 steps old
    still help. The rule stores three arrays per leaf where Adam stores two. With α = 0
    the rule is AdamW.

    Args:
      learning_rate, b1, b2, eps, eps_root: Rate η, decays β1 and β2, and constants ε
        and ε_root, as in `adam`.
      b3: Decay β3 of the slow average in [0, 1); may be traced.
      alpha: Factor α of the slow average, at least 0; may be traced.
      weight_decay: Decay λ, at least 0; may be traced.
      mask: Pytree of booleans, or a function from the params to such a pytree. Leaves
        marked True decay, as in `adamw`. None means all leaves.
      warmup_steps: Length T of the warm-up in steps, an integer of at least 0; may be
        traced.
    Returns:
      The rule, an optax.GradientTransformation; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        mask does not fit the params, or update got no params.
    References:
      Pagliardini, Ablin & Grangier, The AdEMAMix optimizer: better, faster, older, ICLR
      2025, algorithm 1 and section 3 (schedulers).
    Example:
      >>> rule, x = ademamix(1.0, b3=0.75, alpha=2.0, eps=0.0), jnp.zeros(1)
      >>> print(rule.update(jnp.array([4.0]), rule.init(x), x)[0])
      [-1.5]
    """
    check_decays_and_sizes(
        {"b1": b1, "b2": b2, "b3": b3}, {"eps": eps, "eps_root": eps_root}
    )
    check_number("alpha", alpha)
    check_number("warmup_steps", warmup_steps, integer=True)

    def init(params: Params):
        mu, slow = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        nu = jax.tree.map(sizes_like, params)
        return AdemamixState(jnp.zeros((), jnp.int32), mu, slow, nu)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        factor, decay = _warmed_up(alpha, b1, b3, warmup_steps, count)
        mu = moving_average(b1, state.mu, updates)
        slow = moving_average(decay, state.slow, updates)
        nu = moving_average(b2, state.nu, jax.tree.map(abs_square, updates))
        of_mu, of_nu = bias_correction(b1, count), bias_correction(b2, count)

        def direction(g: Array, m: Array, n: Array, v: Array):
            mixed = m / cast(of_mu, m) + cast(factor, m) * n
            root = jnp.sqrt(v / cast(of_nu, v) + cast(eps_root, v)) + cast(eps, v)
            return like(jnp.where(overflowed(v, g, m, n), 0.0, mixed / root), g)

        moved = jax.tree.map(direction, updates, mu, slow, nu)
        return moved, AdemamixState(count, mu, slow, nu)

    return optax.chain(
        complete(optax.GradientTransformation(init, update)),
        add_decayed_weights(weight_decay, mask),
        descend(learning_rate),
    )


def _warmed_up(
    alpha: Scalar,
    b1: Scalar,
    b3: Scalar,
    warmup_steps: Integer,
    count: Array,
) -> tuple[Scalar, Scalar]:
    """Return α and β3 at step t of the warm-up, where t is `count`."""
    if isinstance(warmup_steps, int) and warmup_steps == 0:
        return alpha, b3
    share = jnp.minimum(count.astype(float) / jnp.maximum(warmup_steps, 1), 1.0)
    of_b1, of_b3 = (jnp.log(jnp.asarray(b, float)) for b in (b1, b3))
    decay = jnp.exp(of_b3 / (share + (1.0 - share) * of_b3 / of_b1))
    # With β3 = 0, log β3 is -∞ and the decay is NaN.
    return alpha * share, jnp.where((share < 1.0) & (jnp.asarray(b3) > 0), decay, b3)


class SimplifiedAdemamixState(NamedTuple):
    """State of `simplified_ademamix`, whose docstring defines the symbols.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      velocity: Decaying sum of gradients, m_t = β1 m_(t-1) + g_t, shaped like the
        params.
      nu: Moving average v_t of squared gradients, shaped like the params.
    """

    count: Int[Array, ""]
    velocity: Params
    nu: Params


@checked
def simplified_ademamix(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.99,
    b2: Scalar = 0.95,
    alpha: Scalar = 0.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    mask: Any = None,
) -> optax.GradientTransformation:
    """Divide a decaying sum of gradients by the root of an average of their squares.

    m_t = β1 m_(t-1) + g_t,
    u_t = -η_t ((m_t + α g_t) / (√(v̂_t + ε_root) + ε) + λ x_t), where u_t is the
    update, g_t the gradient, x_t are the params and η_t is the learning rate at step t.
    m_t is the decaying sum, and v̂_t is the average of the squared gradients, with bias
    correction, as in `adam`. α is alpha and λ is weight_decay.

    m_t starts at 0 and is a sum, not an average. If α and λ are 0 and the gradient is
    constant, each entry therefore moves by η in the first step, and later by up to
    η / (1 - β1). So use about 1 - β1 times the rate of Adam.
    optax.contrib.simplified_ademamix is the same for real params. For complex params,
    optax computes v_t from g² instead of |g|². torch does not have the rule.

    Use it in place of AdEMAMix if a second average costs too much memory. The paper
    uses a large α for small batches, and an α near 0 for large batches.

    Args:
      learning_rate, b1, b2, eps, eps_root: Rate η, decays β1 and β2, and constants ε
        and ε_root, as in `adam`.
      alpha: Additional weight α of the newest gradient, at least 0; may be traced.
      weight_decay: Decay λ, at least 0; may be traced.
      mask: Pytree of booleans, or a function from the params to such a pytree. Leaves
        marked True decay, as in `adamw`. None means all leaves.
    Returns:
      The rule, an optax.GradientTransformation; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        mask does not fit the params, or update got no params.
    References:
      Morwani, Vyas, Zhang & Kakade, Connections between schedule-free optimizers,
      AdEMAMix, and accelerated SGD variants, 2025, algorithm of simplified AdEMAMix.
    Example:
      >>> rule, x = simplified_ademamix(0.5, alpha=2.0, eps=0.0), jnp.zeros(1)
      >>> print(rule.update(jnp.array([4.0]), rule.init(x), x)[0])
      [-1.5]
    """
    check_decays_and_sizes({"b1": b1, "b2": b2}, {"eps": eps, "eps_root": eps_root})
    check_number("alpha", alpha)

    def init(params: Params):
        velocity = jax.tree.map(jnp.zeros_like, params)
        nu = jax.tree.map(sizes_like, params)
        return SimplifiedAdemamixState(jnp.zeros((), jnp.int32), velocity, nu)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        velocity = jax.tree.map(
            lambda m, g: like(g, m) + cast(b1, m) * m, state.velocity, updates
        )
        nu = moving_average(b2, state.nu, jax.tree.map(abs_square, updates))
        of_nu = bias_correction(b2, count)

        def direction(g: Array, m: Array, v: Array):
            ahead = m + cast(alpha, m) * like(g, m)
            root = jnp.sqrt(v / cast(of_nu, v) + cast(eps_root, v)) + cast(eps, v)
            return like(jnp.where(overflowed(v, g), 0.0, ahead / root), g)

        moved = jax.tree.map(direction, updates, velocity, nu)
        return moved, SimplifiedAdemamixState(count, velocity, nu)

    return optax.chain(
        complete(optax.GradientTransformation(init, update)),
        add_decayed_weights(weight_decay, mask),
        descend(learning_rate),
    )


@checked
def laprop(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-15,
    weight_decay: Scalar = 0.0,
    mask: Any = None,
) -> optax.GradientTransformation:
    """Step along a moving average of gradients, each divided by Adam's root √v̂_t.

    m_t = β1 m_(t-1) + (1 - β1) g_t / (√v̂_t + ε),
    u_t = -η_t (m_t / (1 - β1^t) + λ x_t), where u_t is the update, g_t the gradient,
    x_t are the params and η_t is the learning rate at step t. v̂_t is the average of
    the squared gradients, with bias correction, as in `adam`. λ is weight_decay.

    Adam divides the average of all gradients by √v̂_t of the present step. LaProp
    divides each gradient by √v̂_t of the step in which this gradient was computed. So
    no divided gradient exceeds 1 / √(1 - β2), whatever β1 is.

    If λ = 0 and the rate is constant, the authors' code and timm's LaProp are the same
    as this rule. If λ is not 0, the two codes multiply the params after the step by a
    factor: 1 - η_t λ in timm, and 1 - λ, without the rate, in the authors' code. If η_t
    comes from a schedule, the two codes divide the moving average of
    η_t g_t / (√v̂_t + ε) by the moving average of η_t, and multiply the quotient by η_t.
    optax 0.2.8 and torch do not have the rule.

    Use it in place of Adam if β2 must be small, for example because the size of the
    gradients changes quickly.

    Args:
      learning_rate, b1, b2, eps: Rate η, decays β1 and β2, and constant ε, as in
        `adam`.
      weight_decay: Decay λ, at least 0; may be traced.
      mask: Pytree of booleans, or a function from the params to such a pytree. Leaves
        marked True decay, as in `adamw`. None means all leaves.
    Returns:
      The rule, an optax.GradientTransformation; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        mask does not fit the params, or update got no params.
    References:
      Ziyin, Wang & Ueda, LaProp: separating momentum and adaptivity in Adam, 2020,
      algorithm 1.
    Example:
      >>> rule, x = laprop(0.5, b1=0.5, b2=0.0, eps=0.0), jnp.zeros(1)
      >>> updates, state = rule.update(jnp.array([4.0]), rule.init(x), x)
      >>> print(rule.update(jnp.array([-1.0]), state, x)[0].round(4))
      [0.1667]
    """
    check_decays_and_sizes({"b1": b1, "b2": b2}, {"eps": eps})

    def init(params: Params):
        mu, nu = jax.tree.map(jnp.zeros_like, params), jax.tree.map(sizes_like, params)
        return AdamState(jnp.zeros((), jnp.int32), mu, nu)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        nu = moving_average(b2, state.nu, jax.tree.map(abs_square, updates))
        of_mu, of_nu = bias_correction(b1, count), bias_correction(b2, count)
        divided = jax.tree.map(
            lambda g, m, v: like(g, m) / (jnp.sqrt(v / cast(of_nu, v)) + cast(eps, v)),
            updates,
            state.mu,
            nu,
        )
        mu = moving_average(b1, state.mu, divided)
        moved = jax.tree.map(lambda g, m: like(m / cast(of_mu, m), g), updates, mu)
        return moved, AdamState(count, mu, nu)

    return optax.chain(
        complete(optax.GradientTransformation(init, update)),
        add_decayed_weights(weight_decay, mask),
        descend(learning_rate),
    )


class MarsState(NamedTuple):
    """State of `mars`, whose docstring defines the symbols.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      mu: Moving average m_t of corrected gradients, shaped like the params.
      nu: Moving average v_t of squared corrected gradients, shaped like the params.
      gradient: Last gradient g_t, shaped like the params.
    """

    count: Int[Array, ""]
    mu: Params
    nu: Params
    gradient: Params


@checked
def mars(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    gamma: Scalar = 0.025,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    mask: Any = None,
    optimize_1d: bool = False,
) -> optax.GradientTransformation:
    """AdamW with gradients that are corrected by their last change, to reduce noise.

    b_t = g_t + (γ β1 / (1 - β1)) (g_t - g_(t-1)),
    c_t = b_t / max(1, |b_t|),
    m_t = β1 m_(t-1) + (1 - β1) c_t,
    v_t = β2 v_(t-1) + (1 - β2) c_t²,
    u_t = -η_t (m̂_t / (√v̂_t + ε) + λ x_t), where m̂_t and v̂_t are m_t and v_t,
    corrected for bias as in `adam`. Here u_t is the update, g_t the gradient, x_t are
    the params and η_t is the learning rate at step t. γ is gamma and λ is weight_decay.

    c_t is the corrected gradient of one leaf, and |b_t| is the norm over the leaf. In
    the first step c_1 = g_1, even if |g_1| > 1. By default, a leaf with fewer than two
    axes has c_t = g_t in every step, so the rule is AdamW for this leaf. With
    optimize_1d=True, the gradients of such leaves are corrected, too.

    The rule is the paper's MARS-AdamW in its approximate form, as in timm's Mars
    (mars_type="adamw"). The paper's exact form replaces g_(t-1) by the gradient at the
    params of step t - 1 on the examples of step t. The exact form needs a second
    gradient per step. timm's option `caution` corresponds to the function `cautious`
    here. optax 0.2.8 and torch do not have the rule.

    This rule does not clip c_1, and neither does timm before version 1.0.31. A large
    first gradient therefore makes v_t large, and the updates short, for about
    1 / (1 - β2) steps. timm 1.0.31 and the authors divide c_1 by max(1, |c_1|). The
    authors' code also sets g_0 = 0, has β1 = 0.95 by default, and corrects only leaves
    with exactly two axes. In that code, the other leaves have their own rate, decays
    and λ.

    Use it in place of AdamW on large models. The rule stores three arrays per leaf
    where Adam stores two. timm's default rate is 0.003.

    Args:
      learning_rate, b1, b2, eps: Rate η, decays β1 and β2, and constant ε, as in
        `adam`.
      gamma: Factor γ of the correction, at least 0; may be traced. With γ = 0 the rule
        is AdamW with clipping: from the second step on, c_t = g_t / max(1, |g_t|) for
        leaves with at least two axes. With optimize_1d=True, all leaves are clipped.
      weight_decay: Decay λ, at least 0; may be traced.
      mask: Pytree of booleans, or a function from the params to such a pytree. Leaves
        marked True decay, as in `adamw`. None means all leaves.
      optimize_1d: Whether the gradients of vectors and scalars are corrected and
        clipped, too.
    Returns:
      The rule, an optax.GradientTransformation; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        mask does not fit the params, or update got no params.
    References:
      Yuan, Liu, Wu, Zhou & Gu, MARS: unleashing the power of variance reduction for
      training large models, 2024, algorithms 1 (MARS) and 2 (MARS-AdamW).
    Example:
      >>> rule, x = mars(1.0, b1=0.5, b2=0.0, gamma=1.0, eps=0.0), jnp.zeros((1, 1))
      >>> updates, state = rule.update(jnp.array([[0.5]]), rule.init(x), x)
      >>> # c = 0.75 + 0.25, and m = 0.5 (0.25 + 1).
      >>> print(rule.update(jnp.array([[0.75]]), state, x)[0].round(4))
      [[-0.8333]]
    """
    check_decays_and_sizes({"b1": b1, "b2": b2}, {"eps": eps})
    check_number("gamma", gamma)
    strength = gamma * b1 / (1.0 - b1)

    def init(params: Params):
        mu, gradient = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        nu = jax.tree.map(sizes_like, params)
        return MarsState(jnp.zeros((), jnp.int32), mu, nu, gradient)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        gradient = jax.tree.map(like, updates, state.gradient)

        def correct(g: Array, before: Array):
            if g.ndim < 2 and not optimize_1d:
                return g
            c = g + cast(strength, g) * within_range(g - before)
            c = jnp.where(jnp.isfinite(g), within_range(c), g)
            norm = leaf_norm(c)
            return jnp.where(count == 1, g, c / cast(jnp.maximum(norm, 1.0), c))

        corrected = jax.tree.map(correct, gradient, state.gradient)
        mu = moving_average(b1, state.mu, corrected)
        nu = moving_average(b2, state.nu, jax.tree.map(abs_square, corrected))
        of_mu, of_nu = bias_correction(b1, count), bias_correction(b2, count)

        def direction(g: Array, m: Array, v: Array):
            root = jnp.sqrt(v / cast(of_nu, v)) + cast(eps, v)
            return like(m / cast(of_mu, m) / root, g)

        moved = jax.tree.map(direction, updates, mu, nu)
        return moved, MarsState(count, mu, nu, gradient)

    return optax.chain(
        complete(optax.GradientTransformation(init, update)),
        add_decayed_weights(weight_decay, mask),
        descend(learning_rate),
    )


RULES = (
    RuleEntry(
        ademamix,
        {
            "learning_rate": step_rate(1e-3),
            "b3": Range(0.9, 0.99999, "one_minus", 0.9999),
        },
    ),
    RuleEntry(
        simplified_ademamix,
        {
            "learning_rate": Range(1e-6, 0.1, "log", 1e-4),
            "b1": Range(0.0, 0.9999, "one_minus", 0.99),
        },
    ),
    RuleEntry(laprop, {"learning_rate": step_rate(4e-4), "b1": MOMENTUM}),
    RuleEntry(mars, {"learning_rate": step_rate(3e-3), "b1": MOMENTUM}),
)
