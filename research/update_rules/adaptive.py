"""Rules that give each coordinate a rate of its own, from the squares of its past gradients."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.schedules import Schedule, check_number
from research.types import Array, Params
from research.update_rules.building_blocks import add_decayed_weights, cast, descend, increment, moving_average


class AdagradState(NamedTuple):
    """What Adagrad keeps.

    Attributes:
      sum_of_squares: s_t; like the params.
    """

    sum_of_squares: Params


def adagrad(
    learning_rate: float | Array | Schedule, initial_accumulator_value: float | Array = 0.1, eps: float | Array = 1e-7
) -> optax.GradientTransformation:
    """Divides by the root of the sum of squares: s_t = s_(t-1) + g_t², u_t = -η_t g_t / √(s_t + ε), or 0 where s_t = 0.

    This is optax.adagrad. The paper starts from s = 0 and adds δ outside the root; so does torch, with 1e-10. The start
    matters more than the placement: at g = 0.01 the first step is 0.0316 η with the default 0.1, and η without.

    Args:
      learning_rate: η, a number of at least 0, a traced scalar, or a schedule t -> η_t.
      initial_accumulator_value: s_(-1), at least 0; may be traced.
      eps: ε, at least 0; may be traced.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Duchi, Hazan & Singer, Adaptive subgradient methods, JMLR 12 (2011), figure 1 (diagonal matrices).
    Example:
      >>> rule = adagrad(1.0, initial_accumulator_value=9.0, eps=0.0)
      >>> print(rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))[0])
      [-0.8]
    """
    check_number("initial_accumulator_value", initial_accumulator_value)
    check_number("eps", eps)

    def init(params):
        return AdagradState(jax.tree.map(lambda x: jnp.full_like(x, initial_accumulator_value), params))

    def divide(g, s):
        return jnp.where(s == 0, 0.0, g / jnp.sqrt(s + cast(eps, s))).astype(g.dtype)  # A NaN has to show.

    def update(updates, state, params=None):
        del params
        squares = jax.tree.map(lambda s, g: s + jnp.square(g).astype(s.dtype), state.sum_of_squares, updates)
        return jax.tree.map(divide, updates, squares), AdagradState(squares)

    return optax.chain(optax.GradientTransformation(init, update), descend(learning_rate))


class RmspropState(NamedTuple):
    """What RMSProp keeps.

    Attributes:
      nu: v_t, the moving average of squares; like the params.
    """

    nu: Params


def rmsprop(
    learning_rate: float | Array | Schedule,
    decay: float | Array = 0.9,
    eps: float | Array = 1e-8,
    initial_scale: float | Array = 0.0,
    eps_in_sqrt: bool = True,
) -> optax.GradientTransformation:
    """Divides by the root of a moving average of squares: v_t = β v_(t-1) + (1 - β) g_t², u_t = -η_t g_t / √(v_t + ε).

    With eps_in_sqrt=False the denominator is √v_t + ε. This is optax.rmsprop without its centered, momentum and
    bias-corrected variants. The lecture has no ε. torch takes β = 0.99 and puts ε outside the root: at g = 1e-5 and
    equal β its first step is 31 times as long. v_t is not corrected for starting at 0, so that the first step is
    η / √(1 - β), 3.2 η by default.

    Args:
      learning_rate: η, a number of at least 0, a traced scalar, or a schedule t -> η_t.
      decay: β in [0, 1); may be traced.
      eps: ε, at least 0; may be traced.
      initial_scale: v_(-1), at least 0; may be traced.
      eps_in_sqrt: Whether ε stands inside the root.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Tieleman & Hinton, Neural networks for machine learning, lecture 6e (2012), slide 29.
    Example:
      >>> rule = rmsprop(1.0, decay=0.75, eps=0.0)
      >>> print(rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))[0])
      [-2.]
    """
    check_number("decay", decay, below=1.0)
    check_number("eps", eps)
    check_number("initial_scale", initial_scale)

    def init(params):
        return RmspropState(jax.tree.map(lambda x: jnp.full_like(x, initial_scale), params))

    def divide(g, v):
        root = jnp.sqrt(v + cast(eps, v)) if eps_in_sqrt else jnp.sqrt(v) + cast(eps, v)
        return (g / root).astype(g.dtype)

    def update(updates, state, params=None):
        del params
        nu = moving_average(decay, state.nu, jax.tree.map(jnp.square, updates))
        return jax.tree.map(divide, updates, nu), RmspropState(nu)

    return optax.chain(optax.GradientTransformation(init, update), descend(learning_rate))


class AdamState(NamedTuple):
    """What Adam keeps.

    Attributes:
      count: t, the steps taken; int32, shape ().
      mu: m_t, the moving average of gradients; like the params.
      nu: v_t, the moving average of their squares; like the params.
    """

    count: Array
    mu: Params
    nu: Params


def adam(
    learning_rate: float | Array | Schedule,
    b1: float | Array = 0.9,
    b2: float | Array = 0.999,
    eps: float | Array = 1e-8,
    eps_root: float | Array = 0.0,
) -> optax.GradientTransformation:
    """Divides an average of gradients by the root of an average of squares, both corrected for starting at 0.

    m_t = β1 m_(t-1) + (1 - β1) g_t, v_t = β2 v_(t-1) + (1 - β2) g_t²,
    u_t = -η_t m̂_t / (√(v̂_t + ε_root) + ε), m̂_t = m_t / (1 - β1^t), v̂_t = v_t / (1 - β2^t), t counted from 1.

    optax.adam and torch.optim.Adam are the same: ε is added after the correction, as in the paper's algorithm 1 (its
    faster form at the end of section 2 adds it before). ε_root, optax's, makes the root differentiable at 0. The
    corrections are computed as -expm1(t log β): where float64 is off, 1 - β2^t loses two digits at small t, and optax's
    first steps are wrong by 1e-5 of their length; these by 2e-7.

    Args:
      learning_rate: η (the paper's α), a number of at least 0, a traced scalar, or a schedule t -> η_t.
      b1, b2: β1, β2 in [0, 1); may be traced.
      eps, eps_root: ε, ε_root, at least 0; may be traced.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Kingma & Ba, Adam: a method for stochastic optimization, ICLR 2015, algorithm 1.
    Example:
      >>> rule = adam(0.5, eps=0.0)
      >>> print(rule.update(jnp.array([4.0, -1e-6]), rule.init(jnp.zeros(2)))[0])
      [-0.5  0.5]
    """
    return optax.chain(_adam_direction(b1, b2, eps, eps_root), descend(learning_rate))


def adamw(
    learning_rate: float | Array | Schedule,
    b1: float | Array = 0.9,
    b2: float | Array = 0.999,
    eps: float | Array = 1e-8,
    eps_root: float | Array = 0.0,
    weight_decay: float | Array = 1e-4,
    mask: Any = None,
) -> optax.GradientTransformation:
    """Adam, with weights that decay apart from the gradient: u_t = -η_t (m̂_t / (√(v̂_t + ε_root) + ε) + λ x_t).

    optax.adamw and torch.optim.AdamW are the same but for the default λ: 1e-4 in optax and here, 1e-2 in torch. The
    paper decays by λ times the schedule's multiplier alone, not times α: its λ is ours times α.

    Args:
      learning_rate, b1, b2, eps, eps_root: As in `adam`.
      weight_decay: λ, at least 0; may be traced.
      mask: Pytree of booleans (a prefix of the params), or a function from params to one; True where weights decay.
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number, or update got no params.
    References:
      Loshchilov & Hutter, Decoupled weight decay regularization, ICLR 2019, algorithm 2, line 12.
    Example:
      >>> rule, x = adamw(0.5, eps=0.0, weight_decay=0.5), jnp.array([2.0])
      >>> print(rule.update(jnp.array([4.0]), rule.init(x), x)[0])
      [-1.]
    """
    direction = _adam_direction(b1, b2, eps, eps_root)
    return optax.chain(direction, add_decayed_weights(weight_decay, mask), descend(learning_rate))


def _adam_direction(
    b1: float | Array, b2: float | Array, eps: float | Array, eps_root: float | Array
) -> optax.GradientTransformation:
    check_number("b1", b1, below=1.0)
    check_number("b2", b2, below=1.0)
    check_number("eps", eps)
    check_number("eps_root", eps_root)

    def init(params):
        zeros = [jax.tree.map(jnp.zeros_like, params) for _ in range(2)]  # Two, so that both may be donated.
        return AdamState(jnp.zeros((), jnp.int32), *zeros)

    def update(updates, state, params=None):
        del params
        count = increment(state.count)
        mu = moving_average(b1, state.mu, updates)
        nu = moving_average(b2, state.nu, jax.tree.map(jnp.square, updates))
        mu_correction, nu_correction = _bias_correction(b1, count), _bias_correction(b2, count)

        def direction(g, m, v):
            m_hat, v_hat = m / cast(mu_correction, m), v / cast(nu_correction, v)
            return (m_hat / (jnp.sqrt(v_hat + cast(eps_root, v)) + cast(eps, v))).astype(g.dtype)

        return jax.tree.map(direction, updates, mu, nu), AdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def _bias_correction(decay: float | Array, count: Array) -> Array:
    """1 - β^t, to full relative precision also where β^t is nearly 1."""
    if isinstance(decay, float | int):
        return -jnp.expm1(count * (math.log(decay) if decay else -math.inf))
    return -jnp.expm1(count * jnp.log(decay))
