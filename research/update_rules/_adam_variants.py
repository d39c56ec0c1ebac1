"""Variants of Adam: AdaBelief, ACProp, Yogi, Adan, AdaHessian and the cautious AdamW.

AdaBelief averages squared deviations from the mean gradient. ACProp has the same
average, but divides by the root of the average of the previous step. Yogi adds or
subtracts squares instead of averaging them. Adan adds Nesterov's look-ahead. AdaHessian
averages squared estimates of the diagonal of the Hessian instead of squared gradients.
The cautious AdamW skips entries whose momentum and gradient have opposite signs. In the
formulas, g_t is the gradient, u_t the update and η_t the learning rate at step t.
Operations act entry by entry, except for the means in AdaHessian and in the cautious
AdamW.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Int

from research.checks import check_key, check_number, check_tree
from research.schedules import Schedule
from research.types import Array, Integer, Key, Params, Scalar
from research.update_rules._adam import adam
from research.update_rules._bias_correction import bias_correction as correction
from research.update_rules._checks import check_decays_and_sizes, checked, rate_at
from research.update_rules._combinators import cautious
from research.update_rules._edges import (
    abs_square,
    complete,
    overflowed,
    sizes_like,
    within_range,
)
from research.update_rules._entry import MOMENTUM, Range, RuleEntry, step_rate
from research.update_rules._transforms import (
    add_decayed_weights,
    cast,
    descend,
    direction_of,
    increment,
    moving_average,
)


class AdabeliefState(NamedTuple):
    """State of `adabelief` and `acprop`, whose docstrings define the symbols.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      mu: Moving average m_t of gradients, shaped like the params.
      nu: Moving average s_t of the squared distances of gradients from m_t, shaped like
        the params. Each step also adds ε_root to s_t. In `acprop` with
        from_old_mean=True, the distances are measured from m_(t-1).
    """

    count: Int[Array, ""]
    mu: Params
    nu: Params


@checked
def adabelief(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
) -> optax.GradientTransformation:
    """Adam that divides by the typical distance of gradients from their average.

    s_t = β2 s_(t-1) + (1 - β2) (g_t - m_t)² + ε_root,
    u_t = -η_t m̂_t / (√(s_t / (1 - β2^t)) + ε).

    u_t is the update, g_t the gradient and η_t the learning rate at step t, with t
    counted from 1. m_t is the average of the gradients with the decay β1, and m̂_t =
    m_t / (1 - β1^t), as in `adam`. ε_root is added at every step, so its total in s_t
    tends to ε_root / (1 - β2). In the paper, ε and ε_root are the same constant ε.

    optax.adabelief is the same. The authors' package is the same with rectify=False.
    With rectify=True, which is the default, the package multiplies the steps by the
    factor r_t of `radam`.

    Use it in place of Adam if gradients change little from step to step. Its steps are
    then longer than Adam's. If the gradients do not change at all and ε is 0, the step
    tends to η m̂_t √((1 - β2) / ε_root). Therefore ε_root matters more here than ε
    matters in Adam.

    Args:
      learning_rate: Learning rate η. A nonnegative number, a traced scalar or a
        schedule (number of earlier steps -> η).
      b1, b2: Decays β1 and β2 in [0, 1); may be traced.
      eps, eps_root: Constants ε and ε_root, at least 0; may be traced.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type.
    References:
      Zhuang et al., AdaBelief optimizer: adapting stepsizes by the belief in observed
      gradients, NeurIPS 2020, algorithm 2.
    Example:
      >>> rule = adabelief(1.0, b1=0.5, b2=0.0, eps=0.0, eps_root=0.0)
      >>> print(rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))[0])
      [-2.]
    """
    check_decays_and_sizes({"b1": b1, "b2": b2}, {"eps": eps, "eps_root": eps_root})

    def init(params: Params):
        mu, nu = jax.tree.map(jnp.zeros_like, params), jax.tree.map(sizes_like, params)
        return AdabeliefState(jnp.zeros((), jnp.int32), mu, nu)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        mu = moving_average(b1, state.mu, updates)
        surprise = jax.tree.map(
            lambda g, m: abs_square(g.astype(m.dtype) - m), updates, mu
        )
        nu = jax.tree.map(
            lambda s: s + cast(eps_root, s), moving_average(b2, state.nu, surprise)
        )
        of_mu, of_nu = correction(b1, count), correction(b2, count)

        def direction(g: Array, m: Array, s: Array):
            return (
                m / cast(of_mu, m) / (jnp.sqrt(s / cast(of_nu, s)) + cast(eps, s))
            ).astype(g.dtype)

        return jax.tree.map(direction, updates, mu, nu), AdabeliefState(count, mu, nu)

    return optax.chain(
        complete(optax.GradientTransformation(init, update)), descend(learning_rate)
    )


@checked
def acprop(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    weight_decay: Scalar = 0.0,
    mask: Any = None,
    from_old_mean: bool = False,
) -> optax.GradientTransformation:
    """Divide each gradient by the spread of the earlier gradients around their average.

    m_t = β1 m_(t-1) + (1 - β1) g_t,
    s_t = β2 s_(t-1) + (1 - β2) (g_t - m_t)² + ε_root,
    u_t = -η_t (g_t / (√(s_(t-1) / (1 - β2^(t-1))) + ε) + λ x_t).

    u_t is the update, g_t the gradient, x_t are the params and η_t is the learning rate
    at step t, with t counted from 1. In the first step, g_1 is divided by 1 + ε. The
    divisor of g_t does not depend on g_t, and the step has no momentum.

    The paper and the authors' code have (g_t - m_t)² in s_t, like this rule. The
    authors' code has an argument `rectify`. With rectify=False, the code is the same as
    this rule except for the ε in the first step. With rectify=True, the default, the
    code multiplies the steps by the factor r_t of `radam`.

    optax.contrib.acprop has (g_t - m_(t-1))² instead of (g_t - m_t)². To follow optax,
    set from_old_mean=True. The root of s_t is then about 1 / β1 times as large, because
    g_t - m_t = β1 (g_t - m_(t-1)). From the second step on, the steps of optax are
    therefore about β1 times as long. torch does not have the rule.

    Use it in place of AdaBelief for noisy gradients. In AdaBelief, the divisor depends
    on g_t, and this biases the step. Without weight decay, the first step is -η g_1 /
    (1 + ε), which may be long.

    Args:
      learning_rate: Rate η: a nonnegative number, a traced scalar or a schedule (number
        of earlier steps -> η).
      b1, b2: Decays β1 and β2 in [0, 1); may be traced.
      eps, eps_root: Constants ε and ε_root, at least 0; may be traced.
      weight_decay: Decay λ, at least 0; may be traced.
      mask: Pytree of booleans, or a function from the params to such a pytree. Leaves
        marked True decay, as in `adamw`. None means all leaves.
      from_old_mean: Whether s_t averages (g_t - m_(t-1))², as in optax, instead of (g_t
        - m_t)².
    Returns:
      The rule, an optax.GradientTransformation; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        mask does not fit the params, or update got no params.
    References:
      Zhuang et al., Momentum centering and asynchronous update for adaptive gradient
      methods, NeurIPS 2021, algorithm of ACProp.
    Example:
      >>> rule, x = acprop(1.0, b1=0.5, eps=0.0, eps_root=0.0), jnp.zeros(1)
      >>> updates, state = rule.update(jnp.array([4.0]), rule.init(x), x)
      >>> print(updates, rule.update(jnp.array([1.0]), state, x)[0])
      [-4.] [-0.5]
    """
    check_decays_and_sizes({"b1": b1, "b2": b2}, {"eps": eps, "eps_root": eps_root})

    def init(params: Params):
        mu, nu = jax.tree.map(jnp.zeros_like, params), jax.tree.map(sizes_like, params)
        return AdabeliefState(jnp.zeros((), jnp.int32), mu, nu)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        mu = moving_average(b1, state.mu, updates)
        centre = state.mu if from_old_mean else mu
        surprise = jax.tree.map(
            lambda g, m: abs_square(g.astype(m.dtype) - m), updates, centre
        )
        nu = jax.tree.map(
            lambda s: s + cast(eps_root, s), moving_average(b2, state.nu, surprise)
        )
        first = state.count == 0
        weight = correction(b2, jnp.maximum(state.count, 1))

        def direction(g: Array, m: Array, s: Array):
            spread = jnp.where(first, 1.0, s / cast(weight, s))
            return (g.astype(m.dtype) / (jnp.sqrt(spread) + cast(eps, s))).astype(
                g.dtype
            )

        moved = jax.tree.map(direction, updates, state.mu, state.nu)
        return moved, AdabeliefState(increment(state.count), mu, nu)

    return optax.chain(
        complete(optax.GradientTransformation(init, update)),
        add_decayed_weights(weight_decay, mask),
        descend(learning_rate),
    )


class YogiState(NamedTuple):
    """State of `yogi`, whose docstring defines the symbols.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      mu: Moving average m_t of gradients, shaped like the params.
      nu: Second moment v_t, shaped like the params.
    """

    count: Int[Array, ""]
    mu: Params
    nu: Params


@checked
def yogi(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-3,
    eps_root: Scalar = 0.0,
    initial_accumulator_value: Scalar = 1e-6,
    initial_mu: Scalar = 0.0,
    bias_correction: bool = True,
) -> optax.GradientTransformation:
    """Adam with a second moment that changes by at most (1 - β2) g² per step.

    v_t = v_(t-1) - (1 - β2) sign(v_(t-1) - g_t²) g_t²,
    u_t = -η_t m̂_t / (√(v̂_t + ε_root) + ε).

    u_t is the update, g_t the gradient and η_t the learning rate at step t. m_t is the
    average of the gradients, as in `adam`. m̂_t = m_t / (1 - β1^t) and v̂_t = v_t / (1 -
    β2^t), with t counted from 1. After a large gradient v_t falls slowly, because a
    later step reduces v_t by at most (1 - β2) g_t².

    The paper has no bias correction: it uses m_t and v_t in place of m̂_t and v̂_t. To
    follow the paper, set bias_correction=False. optax.yogi starts both m and v from
    1e-6. Here v starts from 1e-6, and m starts from 0. To follow optax, set
    initial_mu=1e-6. With this value, params whose gradients are 0 still move down: by
    3e-4 η at the first step, and by more than 0.001 η in ten steps.

    Use it in place of Adam if gradients are sparse or change in size. The default ε is
    large, because it was tuned for Yogi. If gradients are below 1e-3, this ε makes Yogi
    slower than Adam.

    Args:
      learning_rate: Learning rate η. A nonnegative number, a traced scalar or a
        schedule (number of earlier steps -> η).
      b1, b2: Decays β1 and β2 in [0, 1); may be traced.
      eps, eps_root: Constants ε and ε_root, at least 0; may be traced.
      initial_accumulator_value, initial_mu: Starting values v_0 and m_0, at least 0;
        may be traced.
      bias_correction: Whether m_t and v_t are divided by 1 - β1^t and 1 - β2^t.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type.
    References:
      Zaheer et al., Adaptive methods for nonconvex optimization, NeurIPS 2018,
      algorithm 2.
    Example:
      >>> rule = yogi(1.0, b1=0.0, b2=0.5, eps=0.0, initial_accumulator_value=0.0)
      >>> print(rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))[0])
      [-1.]
    """
    sizes = {
        "initial_accumulator_value": initial_accumulator_value,
        "initial_mu": initial_mu,
    }
    check_decays_and_sizes(
        {"b1": b1, "b2": b2}, {"eps": eps, "eps_root": eps_root, **sizes}
    )

    def init(params: Params):
        mu = jax.tree.map(lambda x: jnp.full_like(x, initial_mu), params)
        nu = jax.tree.map(lambda x: sizes_like(x, initial_accumulator_value), params)
        return YogiState(jnp.zeros((), jnp.int32), mu, nu)

    def move(v: Array, g: Array):
        square = abs_square(g).astype(v.dtype)
        moved = v - cast(1.0 - b2, v) * jnp.sign(v - square) * square
        return jnp.where(
            jnp.isposinf(v) & ~jnp.isnan(square), v, moved
        )  # Avoids ∞ - ∞ where g² overflowed.

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        mu = moving_average(b1, state.mu, updates)
        nu = jax.tree.map(move, state.nu, updates)
        of_mu, of_nu = (
            correction(b, count) if bias_correction else 1.0 for b in (b1, b2)
        )

        def direction(g: Array, m: Array, v: Array):
            root = jnp.sqrt(v / cast(of_nu, v) + cast(eps_root, v)) + cast(eps, v)
            return (m / cast(of_mu, m) / root).astype(g.dtype)

        return jax.tree.map(direction, updates, mu, nu), YogiState(count, mu, nu)

    return optax.chain(
        complete(optax.GradientTransformation(init, update)), descend(learning_rate)
    )


class AdanState(NamedTuple):
    """State of `adan`, whose docstring defines the symbols.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      mu: Moving average m_t of gradients, shaped like the params.
      difference: Moving average v_t of the changes d_t = g_t - g_(t-1), shaped like the
        params.
      nu: Moving average n_t of the squares (g_t + β2 d_t)², shaped like the params.
      gradient: Last gradient g_t, shaped like the params.
    """

    count: Int[Array, ""]
    mu: Params
    difference: Params
    nu: Params
    gradient: Params


@checked
def adan(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.98,
    b2: Scalar = 0.92,
    b3: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    mask: Any = None,
    proximal: bool = False,
) -> optax.GradientTransformation:
    """Adam with Nesterov's momentum, computed from the change of the gradient.

    d_t = g_t - g_(t-1) with d_1 = 0,
    m_t = β1 m_(t-1) + (1 - β1) g_t,
    v_t = β2 v_(t-1) + (1 - β2) d_t,
    n_t = β3 n_(t-1) + (1 - β3) (g_t + β2 d_t)²,
    u_t = -η_t ((m̂_t + β2 v̂_t) / (√(n̂_t + ε_root) + ε) + λ x_t).

    u_t is the update, g_t the gradient, x_t are the params and η_t is the learning rate
    at step t. m̂_t = m_t / (1 - β1^t), v̂_t = v_t / (1 - β2^t) and n̂_t = n_t / (1 -
    β3^t), because the averages start at 0.

    The betas are decays, as in the authors' code and in optax. The paper's betas are 1
    minus these decays. The paper starts from m_1 = g_1 and n_1 = g_1², without the
    divisions by 1 - β1^t, 1 - β2^t and 1 - β3^t. The default ε_root = 1e-8 is optax's.
    The authors' code and timm have no ε_root. If the gradients are below 1e-4, this
    default makes the steps much shorter. Set eps_root=0 in this case.

    The paper decays weights implicitly: x_(t+1) = (x_t - η_t q_t) / (1 + λ η_t), where
    q_t is the quotient in the formula of u_t. Set proximal=True for this decay, which
    is also the default of the authors' code.

    In the formulas of n_t and u_t, β2 multiplies d_t and v̂_t. optax 0.2.8 multiplies
    them by 1 - β2 instead, as if its β2 were the paper's. With the default β2, this
    factor is 0.08 in optax and 0.92 here, so the changes of the gradient have much less
    weight in optax.

    Use it for large networks and many steps, at larger rates than Adam's. The rule
    stores four arrays per leaf where Adam stores two.

    Args:
      learning_rate: Learning rate η. A nonnegative number, a traced scalar or a
        schedule (number of earlier steps -> η).
      b1, b2, b3: Decays β1, β2 and β3 in [0, 1); may be traced.
      eps, eps_root: Constants ε and ε_root, at least 0; may be traced.
      weight_decay: Decay λ, at least 0; may be traced.
      mask: Pytree of booleans, or a function from the params to such a pytree. Leaves
        marked True decay, as in `adamw`. None means all leaves.
      proximal: Whether weights decay implicitly, as in the paper: u_t is divided by 1 +
        λ η_t.
    Returns:
      The rule, an optax.GradientTransformation; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        mask does not fit the params, or update got no params.
    References:
      Xie et al., Adan: adaptive Nesterov momentum algorithm for faster optimizing deep
      models, IEEE TPAMI 46 (2024), algorithm 1.
    Example:
      >>> rule = adan(0.5, b1=0.5, b3=0.5, eps=0.0, eps_root=0.0)
      >>> print(rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)), jnp.zeros(1))[0])
      [-0.5]
    """
    check_decays_and_sizes(
        {"b1": b1, "b2": b2, "b3": b3}, {"eps": eps, "eps_root": eps_root}
    )

    def init(params: Params):
        mu, difference, gradient = (
            jax.tree.map(jnp.zeros_like, params) for _ in range(3)
        )
        return AdanState(
            jnp.zeros((), jnp.int32),
            mu,
            difference,
            jax.tree.map(sizes_like, params),
            gradient,
        )

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        gradient = jax.tree.map(
            lambda g, old: g.astype(old.dtype), updates, state.gradient
        )
        change = jax.tree.map(
            lambda g, old: jnp.where(count == 1, 0.0, within_range(g - old)),
            gradient,
            state.gradient,
        )
        squares = jax.tree.map(
            lambda g, d: abs_square(g + cast(b2, g) * d), gradient, change
        )
        mu = moving_average(b1, state.mu, gradient)
        difference = moving_average(b2, state.difference, change)
        nu = moving_average(b3, state.nu, squares)
        of_mu, of_difference, of_nu = (correction(b, count) for b in (b1, b2, b3))

        def direction(g: Array, m: Array, v: Array, n: Array):
            ahead = m / cast(of_mu, m) + cast(b2, v) * (v / cast(of_difference, v))
            root = jnp.sqrt(n / cast(of_nu, n) + cast(eps_root, n)) + cast(eps, n)
            return jnp.where(overflowed(n, g, m, v), 0.0, ahead / root).astype(g.dtype)

        directions = jax.tree.map(direction, updates, mu, difference, nu)
        return directions, AdanState(count, mu, difference, nu, gradient)

    links = [
        complete(optax.GradientTransformation(init, update)),
        add_decayed_weights(weight_decay, mask),
        descend(learning_rate),
    ]
    if proximal:
        shrink = _shrink(learning_rate, weight_decay)
        links.append(shrink if mask is None else complete(optax.masked(shrink, mask)))
    return optax.chain(*links)


class ShrinkState(NamedTuple):
    """State of the implicit weight decay of `adan`, with proximal=True.

    Attributes:
      count: Number of steps taken, int32, shape ().
    """

    count: Int[Array, ""]


def _shrink(
    learning_rate: Scalar | Schedule, weight_decay: Scalar
) -> optax.GradientTransformation:
    """Return the transformation u <- u / (1 + λ η_t), for implicit weight decay.

    With the direction d and the params x, it turns the update -η_t (d + λ x) into the
    implicit step (x - η_t d) / (1 + λ η_t) - x.
    """

    def init(params: Params):
        del params
        return ShrinkState(jnp.zeros((), jnp.int32))

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        rate = rate_at(learning_rate, state.count)
        factor = 1.0 + weight_decay * rate
        return jax.tree.map(lambda u: u / cast(factor, u), updates), ShrinkState(
            increment(state.count)
        )

    return complete(optax.GradientTransformation(init, update))


@checked
def cautious_adamw(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 1e-2,
    mask: Any = None,
    plus_one: bool = False,
    cautious_decay: bool = False,
) -> optax.GradientTransformation:
    """AdamW that skips entries whose momentum and gradient have opposite signs.

    d_t = m̂_t / (√v̂_t + ε), with m̂_t and v̂_t as in `adam`,
    u_t = -η_t (k_t d_t / max(mean(k_t), 0.001) + λ x_t).

    u_t is the update, g_t the gradient, x_t are the params and η_t is the learning rate
    at step t. m̂_t and v̂_t are the averages of the gradients and of their squares, with
    bias correction. k_t is 1 for entries with d_t g_t > 0 and 0 for the other entries.
    The mean is over the leaf.

    With cautious_decay=True, only entries with k_t d_t x_t >= 0 decay. If x_t is not 0,
    the step without decay moves such an entry towards 0 or does not change it.

    timm's AdamWLegacy with caution=True is the same rule. The code of Liang et al.
    differs from this rule in two points. First, with foreach=False the code adds ε
    before the bias correction of v_t. Before August 2025, the code also did this with
    foreach=True. Second, the defaults of the code are ε = 1e-6 and λ = 0. The paper of
    Liang et al. divides by (Σ k_t + 1) / n in place of max(mean(k_t), 0.001), where n
    is the number of entries of the leaf. Set plus_one=True for this divisor. optax
    0.2.8 does not have the rule. To make another rule cautious, use `cautious`.

    Use it in place of AdamW, with the same arguments. If the gradient of an entry
    changes its sign, the momentum m̂_t of this entry may keep the old sign for some
    steps. In these steps, only the weight decay moves the entry.

    Args:
      learning_rate, b1, b2, eps: Rate η, decays β1 and β2, and constant ε, as in
        `adam`.
      weight_decay: Decay λ, at least 0; may be traced.
      mask: Pytree of booleans, or a function from the params to such a pytree. Leaves
        marked True decay, as in `adamw`. None means all leaves.
      plus_one: Whether to divide by (Σ k_t + 1) / n, as in the paper of Liang et al.
      cautious_decay: Whether only entries with k_t d_t x_t >= 0 decay.
    Returns:
      The rule, an optax.GradientTransformation; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        mask does not fit the params, or update got no params.
    References:
      Liang, Chen, Liu & Liu, Cautious optimizers: improving training with one line of
      code, 2024 (the cautious AdamW of that paper). Chen et al., Cautious weight decay,
      2025, for cautious_decay.
    Example:
      >>> rule, x = cautious_adamw(1.0, b2=0.0, eps=0.0), jnp.zeros(2)
      >>> _, state = rule.update(jnp.array([4.0, 4.0]), rule.init(x), x)
      >>> print(rule.update(jnp.array([-1.0, 4.0]), state, x)[0])
      [-0. -2.]
    """
    direction = direction_of(cautious(adam(1.0, b1, b2, eps), plus_one))
    decay = add_decayed_weights(weight_decay, mask, cautious_decay)
    return optax.chain(direction, decay, descend(learning_rate))


class AdahessianState(NamedTuple):
    """State of `adahessian`.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      mu: Moving average m_t of gradients, shaped like the params.
      nu: Moving average v_t of the squared estimates of the Hessian's diagonal, shaped
        like the params, in at least float32.
    """

    count: Int[Array, ""]
    mu: Params
    nu: Params


def adahessian_draws(key: Key, count: Integer, params: Params) -> Params:
    """Return the random signs z of a step of `adahessian`, each 1 or -1.

    The key of the step is k = jax.random.fold_in(key, count). The leaves i = 1, 2, ...
    are in the order of jax.tree.leaves. The signs of leaf i are drawn with the key
    jax.random.fold_in(k, i).

    Args:
      key: Argument key of `adahessian`.
      count: Number of earlier steps of the rule, an integer of at least 0.
      params: The params, or a pytree of arrays with the same structure, shapes and
        dtypes.
    Returns:
      The signs, shaped like the params and in their dtypes.
    Raises:
      TypeError: key is not a key, count is not an integer, or params are not arrays.
      ValueError: count is negative.
    Example:
      >>> drawn = adahessian_draws(jax.random.key(0), 3, {"w": jnp.zeros(4)})
      >>> print(jnp.abs(drawn["w"]))
      [1. 1. 1. 1.]
    """
    check_key("key", key)
    check_number("count", count, integer=True)
    check_tree("params", params)
    key = jax.random.fold_in(key, count)
    leaves, structure = jax.tree.flatten(params)
    signs = [
        jax.random.rademacher(
            jax.random.fold_in(key, i), jnp.shape(x), jnp.result_type(x)
        )
        for i, x in enumerate(leaves, 1)
    ]
    return structure.unflatten(signs)


@checked
def adahessian(
    learning_rate: Scalar | Schedule,
    key: Key,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-4,
    hessian_power: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
    mask: Any = None,
    average_kernels: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Adam that divides by the diagonal of the Hessian, estimated by random signs.

    v_t = β2 v_(t-1) + (1 - β2) D_t², with D_t = z_t (H_t z_t) entry by entry,
    u_t = -η_t (m̂_t / (v̂_t^(k/2) + ε) + λ x_t), where m̂_t is the average of the
    gradients with bias correction, and v̂_t = v_t / (1 - β2^t), as in `adam`.

    u_t is the update, x_t are the params and η_t is the learning rate at step t. k is
    hessian_power, and λ is weight_decay. H_t is the Hessian of the objective at x_t.
    The objective is the argument value_fn of update, a function of the params. If
    value_fn has other arguments, they keep their defaults. The entries of z_t are 1 or
    -1 with equal probability, so that the expected value of D_t is the diagonal of H_t.
    H_t z_t is computed as the derivative of the gradient along z_t.

    With average_kernels=True, |D_t| is averaged over the first two axes of every leaf
    that has four axes. In Flax, these are the height and the width of the kernel of a
    convolution.

    The authors' code for images (image_classification) has the same rule, with the same
    defaults of β1, β2, ε and k. That code uses |H_t z_t|, which equals |D_t|. The
    authors' other codes average |D_t| over other axes. timm's Adahessian and
    pytorch_optimizer's AdaHessian draw the signs z_t themselves, without a key from the
    caller. The default ε is 1e-8 in timm and 1e-16 in pytorch_optimizer. timm does not
    average over kernels by default, and pytorch_optimizer never does. optax and torch
    do not have the rule.

    A step costs about as much as a step of Adam and two more gradients. The state has
    the same arrays as Adam's, but v_t has at least float32 precision.

    Use it in place of Adam if the objective is twice differentiable and its gradients
    have little noise. The authors use a learning rate of 0.15. On mini-batches, H_t is
    the Hessian of the loss on the same mini-batch as the gradient.

    Args:
      learning_rate: Learning rate η. A nonnegative number, a traced scalar or a
        schedule (number of earlier steps -> η).
      key: Key for all random signs, from `jax.random.key`; may be traced.
        `adahessian_draws` says how the key is used.
      b1, b2: Decays β1 and β2 in [0, 1); may be traced.
      eps: Constant ε, positive; may be traced.
      hessian_power: Power k, at least 0; may be traced. With k = 0, the divisor is
        constant, and the rule is gradient descent with momentum.
      weight_decay: Factor λ, at least 0; may be traced.
      mask: Pytree of booleans (a prefix of the params), or a function from params to
        such a pytree. Leaves marked True are decayed. None means all leaves.
      average_kernels: Whether to average |D_t| over the first two axes of leaves with
        four axes.
    Returns:
      The rule, an optax.GradientTransformationExtraArgs. Its update needs params and
      value_fn.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type;
        key is not a key; mask does not fit the params; update got no params or
        value_fn; in init, the params are complex.
    References:
      Yao et al., ADAHESSIAN: an adaptive second order optimizer for machine learning,
      AAAI 2021, algorithm 1. Code: github.com/amirgholami/adahessian, commit 23eeab0.
    Example:
      >>> f = lambda x, indices=None: 2.0 * x[0] ** 2 + 8.0 * x[1] ** 2
      >>> rule, x = adahessian(1.0, jax.random.key(0), eps=1e-8), jnp.array([3.0, -2.0])
      >>> print(rule.update(jax.grad(f)(x), rule.init(x), x, value_fn=f)[0].round(3))
      [-3.  2.]
    """
    check_key("key", key)
    check_decays_and_sizes({"b1": b1, "b2": b2}, {"hessian_power": hessian_power})
    check_number("eps", eps, positive=True)

    def init(params: Params):
        wide = lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32))
        return AdahessianState(
            jnp.zeros((), jnp.int32),
            jax.tree.map(jnp.zeros_like, params),
            jax.tree.map(wide, params),
        )

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        value_fn: Any = None,
        **extra: Any,
    ):
        del extra
        if params is None or value_fn is None:
            raise ValueError(
                "adahessian needs params and value_fn to compute a product with the "
                "Hessian; call update(grads, state, params, value_fn=f), as "
                "research.descent.build does."
            )
        signs = adahessian_draws(key, state.count, params)
        product = jax.jvp(jax.grad(value_fn), (params,), (signs,))[1]

        def squared(hz: Array, v: Array) -> Array:
            size = jnp.abs(hz.astype(v.dtype))
            if average_kernels and size.ndim == 4:
                size = jnp.mean(size, (0, 1), keepdims=True)
            return cast(b2, v) * v + cast(1.0 - b2, v) * jnp.square(size)

        count = increment(state.count)
        mu = moving_average(b1, state.mu, updates)
        nu = jax.tree.map(squared, product, state.nu)

        def direction(m: Array, v: Array) -> Array:
            root = jnp.sqrt(v / cast(correction(b2, count), v))
            divisor = root ** cast(hessian_power, v) + cast(eps, v)
            m_hat = m.astype(v.dtype) / cast(correction(b1, count), v)
            return (m_hat / divisor).astype(m.dtype)

        return jax.tree.map(direction, mu, nu), AdahessianState(count, mu, nu)

    whole = optax.GradientTransformationExtraArgs(init, update)
    return complete(
        optax.chain(
            complete(whole, only_real="adahessian", needs_value_fn=True),
            add_decayed_weights(weight_decay, mask),
            descend(learning_rate),
        ),
        only_real="adahessian",
        needs_value_fn=True,
    )


RULES = (
    RuleEntry(adabelief, {"learning_rate": step_rate(1e-3), "b1": MOMENTUM}),
    RuleEntry(acprop, {"learning_rate": step_rate(1e-3), "b1": MOMENTUM}),
    RuleEntry(yogi, {"learning_rate": step_rate(0.01), "b1": MOMENTUM}),
    RuleEntry(adan, {"learning_rate": step_rate(1e-3)}),
    RuleEntry(
        adahessian,
        "it needs a key, so it draws the same random numbers with every seed",
        needs="a key",
    ),
    RuleEntry(
        cautious_adamw,
        {
            "learning_rate": step_rate(1e-3),
            "weight_decay": Range(1e-6, 0.1, "log", 1e-2),
        },
        aliases=("cadamw",),
    ),
)
