"""Adam with a momentum or a step that depends on t: NAdam, which looks ahead, and
RAdam, which starts as momentum."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Params
from research.update_rules._adam import AdamState
from research.update_rules._bias_correction import bias_correction, effective_length
from research.update_rules._checks import checked
from research.update_rules._edges import abs_square, complete, sizes_like
from research.update_rules._entry import MOMENTUM, RuleEntry, step_rate
from research.update_rules._transforms import (
    cast,
    descend,
    increment,
    moving_average,
)


class NadamState(NamedTuple):
    """What NAdam keeps.

    Attributes:
      count: t, the steps taken; int32, shape ().
      mu: m_t, the moving average of gradients; like the params.
      nu: v_t, the moving average of their squares; like the params.
      product: μ_1 μ_2 ... μ_t of a scheduled momentum, else 1; shape ().
    """

    count: Array
    mu: Params
    nu: Params
    product: Array


MOMENTUM_SCHEDULES = ("constant", "torch", "paper")


@checked
def nadam(
    learning_rate: float | Array | Schedule,
    b1: float | Array = 0.9,
    b2: float | Array = 0.999,
    eps: float | Array = 1e-8,
    eps_root: float | Array = 0.0,
    momentum_schedule: str = "constant",
    momentum_decay: float | Array = 0.004,
) -> optax.GradientTransformation:
    """Adam with Nesterov's look-ahead: this step's gradient counts as much as it will
    in the next average.

    u_t = -η_t (μ_(t+1) m_t / (1 - μ_1 ... μ_(t+1)) + (1 - μ_t) g_t / (1 - μ_1 ... μ_t))
    / (√(v̂_t + ε_root) + ε).

    "constant", optax.nadam: μ_t = β1. "paper": μ_t = β1 (1 - ½ 0.96^(t ψ)) with ψ =
    momentum_decay, also in the average, m_t = μ_t m_(t-1) + (1 - μ_t) g_t, and v̂_t =
    β2 v_t / (1 - β2^t), with a β2 that Adam does not have. "torch", torch.optim.NAdam:
    the paper's μ_t, but Adam's m_t and v̂_t. The scheduled μ_1 is about β1 / 2, so that
    the first step is 1.47 η in optax, 1.06 η in torch and 1.31 η in the paper.

    Use it as Adam; where Adam's momentum overshoots in a narrow valley, looking ahead
    is a little better.

    Args:
      learning_rate, b1, b2, eps, eps_root: As in `adam`.
      momentum_schedule: "constant", "torch" or "paper".
      momentum_decay: ψ, at least 0; 0 keeps μ_t at β1 / 2, not at β1. May be traced;
        unused by "constant".
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number; no such
        momentum_schedule.
    References:
      Dozat, Incorporating Nesterov momentum into Adam, ICLR 2016 workshop, algorithm 2,
      and its schedule of μ.
    Example:
      >>> rule = nadam(1.0, b1=0.25, b2=0.0, eps=0.0)
      >>> print(rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))[0])
      [-1.2]
    """
    _check(b1, b2, eps, eps_root)
    check_number("momentum_decay", momentum_decay)
    if momentum_schedule not in MOMENTUM_SCHEDULES:
        raise ValueError(
            f"momentum_schedule must be one of {', '.join(MOMENTUM_SCHEDULES)}; got "
            f"{momentum_schedule!r}."
        )
    constant, paper = momentum_schedule == "constant", momentum_schedule == "paper"

    def init(params: Params):
        mu, nu = jax.tree.map(jnp.zeros_like, params), jax.tree.map(sizes_like, params)
        return NadamState(jnp.zeros((), jnp.int32), mu, nu, jnp.ones((), float))

    def momentum(t):
        return b1 if constant else b1 * (1.0 - 0.5 * 0.96 ** (t * momentum_decay))

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        now, ahead = momentum(count), momentum(increment(count))
        product = (
            state.product
            if constant
            else (state.product * now).astype(state.product.dtype)
        )
        mu = moving_average(now if paper else b1, state.mu, updates)
        nu = moving_average(b2, state.nu, jax.tree.map(abs_square, updates))
        of_mu = (
            bias_correction(b1, increment(count)) if constant else 1.0 - product * ahead
        )
        of_g = bias_correction(b1, count) if constant else 1.0 - product
        of_nu = bias_correction(b2, count)

        def direction(g, m, v):
            seen = _limited(g).astype(m.dtype)
            m_hat = cast(ahead, m) * (m / cast(of_mu, m)) + cast(1.0 - now, m) * (
                seen / cast(of_g, m)
            )
            v_hat = v / cast(of_nu, v) * (cast(b2, v) if paper else 1)
            root = jnp.sqrt(v_hat + cast(eps_root, v)) + cast(eps, v)
            return (m_hat / root).astype(g.dtype)

        return jax.tree.map(direction, updates, mu, nu), NadamState(
            count, mu, nu, product
        )

    return optax.chain(
        complete(optax.GradientTransformation(init, update)), descend(learning_rate)
    )


def _limited(g: Array) -> Array:
    """g within 1/32 of its dtype's range, so that dividing it by 1 - β does not leave
    it; m_t shows a g that is infinite."""
    if jnp.iscomplexobj(g):
        return jax.lax.complex(_limited(g.real), _limited(g.imag))
    most = float(jnp.finfo(g.dtype).max) / 32
    return jnp.clip(g, -most, most)


@checked
def radam(
    learning_rate: float | Array | Schedule,
    b1: float | Array = 0.9,
    b2: float | Array = 0.999,
    eps: float | Array = 1e-8,
    eps_root: float | Array = 0.0,
    threshold: float | Array = 5.0,
    eps_before_correction: bool = False,
) -> optax.GradientTransformation:
    """Momentum at first, and Adam, shortened, as soon as the average of squares has
    seen enough to be divided by.

    ρ_t = ρ - 2 t β2^t / (1 - β2^t) is how many squares v_t amounts to, with ρ = 2 / (1
    - β2) - 1. While it is below the threshold, u_t = -η_t m̂_t. Then u_t = -η_t r_t
    m̂_t / (√(v̂_t + ε_root) + ε) with r_t² = (ρ_t - 4) (ρ_t - 2) ρ / ((ρ - 4) (ρ - 2)
    ρ_t), by default from 0.026 at the sixth step to 1.

    The defaults are optax.radam's. torch adds ε before the correction: r_t m̂_t √(1 -
    β2^t) / (√v_t + ε), which is eps_before_correction=True. The paper has no ε, and the
    threshold 4; 5 is its authors' code's. optax takes ρ_6 = 6 as 1999 - 1993: where
    float64 is off, its sixth step is wrong by 0.6 % of itself, ours by 1e-7
    (`effective_length`).

    Use it for Adam without a warm-up that would have to be tuned; at first its steps
    are as long as the gradient, so that η has to suit both.

    Args:
      learning_rate, b1, b2, eps, eps_root: As in `adam`.
      threshold: The ρ_t from which steps are divided, at least 4, where r_t becomes
        real; may be traced.
      eps_before_correction: Whether ε is added before v_t is corrected, as in torch.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Liu et al., On the variance of the adaptive learning rate and beyond, ICLR 2020,
      algorithm 2.
    Example:
      >>> rule = radam(0.5, b1=0.5)
      >>> print(rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))[0])
      [-2.]
    """
    _check(b1, b2, eps, eps_root)
    check_number("threshold", threshold)
    if not isinstance(threshold, Tracer) and threshold < 4:
        raise ValueError(
            "threshold must be at least 4, for r_t² is negative below; got "
            f"threshold={threshold!r}."
        )

    def init(params: Params):
        mu, nu = jax.tree.map(jnp.zeros_like, params), jax.tree.map(sizes_like, params)
        return AdamState(jnp.zeros((), jnp.int32), mu, nu)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        mu = moving_average(b1, state.mu, updates)
        nu = moving_average(b2, state.nu, jax.tree.map(abs_square, updates))
        of_mu, of_nu = bias_correction(b1, count), bias_correction(b2, count)
        length = effective_length(b2, count)
        factor = _rectification(length, 2.0 / (1.0 - b2) - 1.0)
        before, after = (
            (of_nu, 1.0) if not eps_before_correction else (1.0, jnp.sqrt(of_nu))
        )

        def direction(g, m, v):
            m_hat = m / cast(of_mu, m)
            root = jnp.sqrt(v / cast(before, v) + cast(eps_root, v)) + cast(eps, v)
            divided = cast(factor, m) * m_hat * cast(after, m) / root
            return jnp.where(length >= threshold, divided, m_hat).astype(g.dtype)

        return jax.tree.map(direction, updates, mu, nu), AdamState(count, mu, nu)

    return optax.chain(
        complete(optax.GradientTransformation(init, update)), descend(learning_rate)
    )


def _rectification(length: Array, most: float | Array) -> Array:
    """r_t; NaN where ρ_t < 4, where it is not used."""
    return jnp.sqrt(
        (length - 4.0) * (length - 2.0) * most / ((most - 4.0) * (most - 2.0) * length)
    )


def _check(
    b1: float | Array, b2: float | Array, eps: float | Array, eps_root: float | Array
) -> None:
    check_number("b1", b1, below=1.0)
    check_number("b2", b2, below=1.0)
    check_number("eps", eps)
    check_number("eps_root", eps_root)


RULES = (
    RuleEntry(nadam, {"learning_rate": step_rate(2e-3), "b1": MOMENTUM}),
    RuleEntry(radam, {"learning_rate": step_rate(1e-3), "b1": MOMENTUM}),
)
