"""Gradient descent, with and without momentum: rules that multiply the gradient by the rate alone."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.schedules import Schedule, check_number
from research.types import Array, Params
from research.update_rules.building_blocks import cast, descend


def gradient_descent(learning_rate: float | Array | Schedule) -> optax.GradientTransformation:
    """Steps along the negative gradient: u_t = -η_t g_t.

    optax.sgd(η) and torch.optim.SGD(lr=η) are the same. Which examples g_t is taken over is the sampler's business:
    batch, stochastic and mini-batch descent are this one rule.

    Args:
      learning_rate: η, a number of at least 0, a traced scalar, or a schedule t -> η_t.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete rate is negative, not finite or no number.
    References:
      Cauchy, Méthode générale pour la résolution des systèmes d'équations simultanées, C. R. Acad. Sci. 25 (1847).
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


def heavy_ball(learning_rate: float | Array | Schedule, momentum: float | Array = 0.9) -> optax.GradientTransformation:
    """Steps along a decaying sum of gradients: m_t = μ m_(t-1) + g_t, u_t = -η_t m_t, from m_(-1) = 0.

    optax.sgd(η, momentum=μ) and torch.optim.SGD(momentum=μ) are the same. Polyak writes
    x_(t+1) = x_t - η g_t + μ (x_t - x_(t-1)), Sutskever et al. v_t = μ v_(t-1) - η g_t. With a constant rate all are
    one; under a schedule the rate here scales the whole sum, theirs each gradient once. torch's `dampening`, absent
    here, scales g_t by 1 - dampening except on the first step.

    Args:
      learning_rate: η, a number of at least 0, a traced scalar, or a schedule t -> η_t.
      momentum: μ in [0, 1); may be traced.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Polyak, Some methods of speeding up the convergence of iteration methods, USSR Comp. Math. Math. Phys. 4 (1964).
      Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013, equations (1)-(2).
    Example:
      >>> rule = heavy_ball(1.0, momentum=0.5)
      >>> updates, state = rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))
      >>> print(rule.update(jnp.array([0.0]), state)[0])
      [-2.]
    """
    return optax.chain(_accumulate(momentum, look_ahead=False), descend(learning_rate))


def nesterov(learning_rate: float | Array | Schedule, momentum: float | Array = 0.9) -> optax.GradientTransformation:
    """Steps along the sum that the heavy ball would have next: m_t = μ m_(t-1) + g_t, u_t = -η_t (g_t + μ m_t).

    optax.sgd(η, momentum=μ, nesterov=True) and torch.optim.SGD(momentum=μ, nesterov=True) are the same. Nesterov takes
    the gradient at a look-ahead point, y_t = x_t + μ (x_t - x_(t-1)), x_(t+1) = y_t - η ∇f(y_t). Here the params are
    y_t, so that the gradient is taken where the params are (Bengio et al.); with a constant rate the two agree. In the
    paper μ grows towards 1 with t; here it is constant, as for strongly convex functions.

    Args:
      learning_rate: η, a number of at least 0, a traced scalar, or a schedule t -> η_t.
      momentum: μ in [0, 1); may be traced.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Nesterov, A method of solving a convex programming problem with convergence rate O(1/k²), Soviet Math. Dokl. 27
      (1983). Sutskever et al., ICML 2013, equations (3)-(4). Bengio, Boulanger-Lewandowski & Pascanu, Advances in
      optimizing recurrent networks, ICASSP 2013, section 3.5.
    Example:
      >>> rule = nesterov(1.0, momentum=0.5)
      >>> print(rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))[0])
      [-6.]
    """
    return optax.chain(_accumulate(momentum, look_ahead=True), descend(learning_rate))


def _accumulate(momentum: float | Array, look_ahead: bool) -> optax.GradientTransformation:
    check_number("momentum", momentum, below=1.0)

    def init(params):
        return MomentumState(jax.tree.map(jnp.zeros_like, params))

    def add(velocity, g):
        return cast(momentum, velocity) * velocity + g.astype(velocity.dtype)

    def update(updates, state, params=None):
        del params
        velocity = jax.tree.map(add, state.velocity, updates)
        direction = jax.tree.map(add, velocity, updates) if look_ahead else velocity
        return jax.tree.map(lambda d, g: d.astype(g.dtype), direction, updates), MomentumState(velocity)

    return optax.GradientTransformation(init, update)
