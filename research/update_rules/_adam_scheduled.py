"""Adam with a momentum or a step that depends on t: NAdam, NAdamW and RAdam.

NAdam and NAdamW add Nesterov's look-ahead. RAdam takes steps of plain momentum at
first. In the formulas, g_t is the gradient, u_t the update and η_t the learning rate at
step t. All operations act entry by entry.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Float, Int

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Params, Scalar
from research.update_rules._adam import AdamState
from research.update_rules._bias_correction import bias_correction, effective_length
from research.update_rules._checks import checked
from research.update_rules._edges import abs_square, complete, sizes_like
from research.update_rules._entry import MOMENTUM, Range, RuleEntry, step_rate
from research.update_rules._transforms import (
    add_decayed_weights,
    cast,
    descend,
    increment,
    moving_average,
)


class NadamState(NamedTuple):
    """State of `nadam` and `nadamw`.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      mu: Moving average m_t of gradients, shaped like the params.
      nu: Moving average v_t of squared gradients, shaped like the params.
      product: Product μ_1 μ_2 ... μ_t of the scheduled momenta, shape (); 1 with the
        "constant" schedule.
    """

    count: Int[Array, ""]
    mu: Params
    nu: Params
    product: Float[Array, ""]


MOMENTUM_SCHEDULES = ("constant", "torch", "paper")


@checked
def nadam(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    momentum_schedule: str = "constant",
    momentum_decay: Scalar = 0.004,
) -> optax.GradientTransformation:
    """Adam with Nesterov's look-ahead.

    u_t = -η_t (μ_(t+1) m_t / (1 - μ_1 ... μ_(t+1)) + (1 - μ_t) g_t / (1 - μ_1 ... μ_t))
    / (√(v̂_t + ε_root) + ε). Here u_t is the update, g_t the gradient and η_t the
    learning rate at step t, with t counted from 1. μ_t is the momentum at step t, and
    μ_1 ... μ_t the product of the momenta up to step t. m_t is the average of the
    gradients, and v̂_t the average of their squares with bias correction, as in `adam`.

    The numerator approximates the next average m̂_(t+1). That average contains the
    gradient g_(t+1), which is not yet known, so g_t replaces g_(t+1). The argument
    momentum_schedule chooses the momenta μ_t:

    "constant", as in optax.nadam: μ_t = β1.

    "paper": μ_t = β1 (1 - ½ 0.96^(t ψ)) with ψ = momentum_decay. The average of the
    gradients also uses μ_t: m_t = μ_t m_(t-1) + (1 - μ_t) g_t. v̂_t is β2 v_t / (1 -
    β2^t), where v_t is the average of the squares without bias correction. Adam's v̂_t
    does not have the factor β2.

    "torch", as in torch.optim.NAdam: μ_t is computed as with "paper", and m_t and v̂_t
    as in Adam.

    With "paper" and "torch", μ_1 is about β1 / 2, instead of β1. With the default b1,
    the absolute value of each entry of the first step is 1.47 η with "constant", 1.06 η
    with "torch" and 1.31 η with "paper".

    Use it in place of Adam where Adam's momentum overshoots, as on ill-conditioned
    problems. The difference from Adam is usually small.

    Args:
      learning_rate, b1, b2, eps, eps_root: Rate η, decays β1 and β2, and constants ε
        and ε_root, as in `adam`.
      momentum_schedule: Name of the schedule: "constant", "torch" or "paper".
      momentum_decay: Decay ψ, at least 0; may be traced. With ψ = 0, μ_t = β1 / 2 at
        all steps. The schedule "constant" ignores ψ.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        or momentum_schedule is unknown.
    References:
      Dozat, Incorporating Nesterov momentum into Adam, ICLR 2016 workshop, algorithm 2,
      and the paper's schedule of μ.
    Example:
      >>> rule = nadam(1.0, b1=0.25, b2=0.0, eps=0.0)
      >>> print(rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))[0])
      [-1.2]
    """
    direction = _nadam_direction(
        b1, b2, eps, eps_root, momentum_schedule, momentum_decay
    )
    return optax.chain(direction, descend(learning_rate))


@checked
def nadamw(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 1e-4,
    mask: Any = None,
    same_correction: bool = False,
) -> optax.GradientTransformation:
    """NAdam with weight decay that is separate from the gradient.

    u_t = -η_t (n_t / (√(v̂_t + ε_root) + ε) + λ x_t),
    n_t = β1 m_t / (1 - β1^(t+1)) + (1 - β1) g_t / (1 - β1^t).
    Here u_t is the update, g_t the gradient and η_t the learning rate at step t, with t
    counted from 1. x_t are the params, and λ is the argument weight_decay. m_t is the
    average of the gradients, and v̂_t the average of their squares with bias
    correction, as in `adam`.

    optax.nadamw is the same. With same_correction=True, m_t is divided by 1 - β1^t
    instead of 1 - β1^(t+1). The NAdamW of timm and of the AlgoPerf benchmark has this
    form. With the default b1 and without weight decay, the absolute value of each entry
    of the first step is 1.9 η with same_correction=True, and 1.47 η with
    same_correction=False. The default λ is 1e-4 in optax and here, and 0.01 in timm.
    torch's NAdam(decoupled_weight_decay=True) differs: its momentum changes with t, as
    in `nadam` with momentum_schedule="torch".

    Use it in place of AdamW. NAdamW with same_correction=True was the baseline of
    AlgoPerf, a benchmark of training algorithms (Dahl et al.).

    Args:
      learning_rate, b1, b2, eps, eps_root: Rate η, decays β1 and β2, and constants ε
        and ε_root, as in `adam`.
      weight_decay: Decay λ, at least 0; may be traced.
      mask: Pytree of booleans, or a function from the params to such a pytree. Leaves
        marked True decay, as in `adamw`. None means all leaves.
      same_correction: Whether m_t and g_t are each divided by 1 - β1^t. If False, m_t
        is divided by 1 - β1^(t+1).
    Returns:
      The rule, an optax.GradientTransformation; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        mask does not fit the params, or update got no params.
    References:
      Dozat, Incorporating Nesterov momentum into Adam, ICLR 2016 workshop, algorithm 2.
      Loshchilov & Hutter, Decoupled weight decay regularization, ICLR 2019, algorithm
      2, line 12. Dahl et al., Benchmarking neural network training algorithms, 2023,
      for same_correction.
    Example:
      >>> rule, x = nadamw(1.0, b1=0.25, b2=0.0, eps=0.0, weight_decay=0.5), jnp.ones(1)
      >>> print(rule.update(jnp.array([4.0]), rule.init(x), x)[0])
      [-1.7]
    """
    direction = _nadam_direction(b1, b2, eps, eps_root, same_correction=same_correction)
    return optax.chain(
        direction, add_decayed_weights(weight_decay, mask), descend(learning_rate)
    )


def _nadam_direction(
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    eps_root: Scalar,
    momentum_schedule: str = "constant",
    momentum_decay: Scalar = 0.004,
    same_correction: bool = False,
) -> optax.GradientTransformation:
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

    def momentum(t: Array):
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
        of_g = bias_correction(b1, count) if constant else 1.0 - product
        of_mu = (
            bias_correction(b1, increment(count)) if constant else 1.0 - product * ahead
        )
        of_mu = of_g if same_correction else of_mu
        of_nu = bias_correction(b2, count)

        def direction(g: Array, m: Array, v: Array):
            limited = _limited(g).astype(m.dtype)
            m_hat = cast(ahead, m) * (m / cast(of_mu, m)) + cast(1.0 - now, m) * (
                limited / cast(of_g, m)
            )
            v_hat = v / cast(of_nu, v) * (cast(b2, v) if paper else 1)
            root = jnp.sqrt(v_hat + cast(eps_root, v)) + cast(eps, v)
            return (m_hat / root).astype(g.dtype)

        return jax.tree.map(direction, updates, mu, nu), NadamState(
            count, mu, nu, product
        )

    return complete(optax.GradientTransformation(init, update))


def _limited(g: Array) -> Array:
    """Clip g to 1/32 of the range of its dtype.

    Dividing the result by 1 - β1 then does not overflow if β1 is at most 31/32. The
    average m_t is computed from g itself, so an infinite g still makes m_t infinite.
    """
    if jnp.iscomplexobj(g):
        return jax.lax.complex(_limited(g.real), _limited(g.imag))
    most = float(jnp.finfo(g.dtype).max) / 32
    return jnp.clip(g, -most, most)


@checked
def radam(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    eps_before_correction: bool = False,
) -> optax.GradientTransformation:
    """Momentum at first, then Adam with steps scaled by a factor r_t.

    m̂_t and v̂_t are the averages of the gradients and of their squares, with bias
    correction, as in `adam`. RAdam treats v̂_t as a mean of the squares of ρ_t
    gradients. The number of these gradients is ρ_t = ρ - 2 t β2^t / (1 - β2^t) with
    ρ = 2 / (1 - β2) - 1, where t is the number of the step, counted from 1.

    While ρ_t is below the argument threshold, the update is u_t = -η_t m̂_t, where η_t
    is the learning rate. Afterwards, u_t = -η_t r_t m̂_t / (√(v̂_t + ε_root) + ε), with
    r_t² = (ρ_t - 4) (ρ_t - 2) ρ / ((ρ - 4) (ρ - 2) ρ_t).

    With the defaults, the first five updates are -η_t m̂_t. r_t is 0.026 at the sixth
    step and then grows towards 1.

    The defaults are those of optax.radam. torch adds ε before the bias correction: its
    update is -η_t r_t m̂_t √(1 - β2^t) / (√v_t + ε), where v_t is the average of the
    squares without correction. To follow torch, set eps_before_correction=True.

    The paper has no ε, and its threshold is 4. The code of the paper's authors has the
    threshold 5, and also adds ε before the bias correction. By default
    (degenerated_to_sgd=False), the authors' code does not move the params while ρ_t is
    below the threshold.

    With the default b2, ρ_6 is about 6. optax computes ρ_6 as the difference of two
    much larger numbers, about 1999 and 1993, so rounding errors matter. If float64 is
    off, the relative error of optax's sixth step is about 1 %. Here ρ_t is computed
    without such a difference, and the relative error of the sixth step is at most 1e-7.

    Use it to avoid tuning the length of a warm-up for Adam. The first updates, -η_t
    m̂_t, are not divided by the size of the gradients. The rate η must therefore suit
    both these steps and the later steps.

    Args:
      learning_rate, b1, b2, eps, eps_root: Rate η, decays β1 and β2, and constants ε
        and ε_root, as in `adam`.
      threshold: Smallest ρ_t at which m̂_t is divided by √v̂_t, at least 4; may be
        traced. For ρ_t between 2 and 4, r_t² is negative.
      eps_before_correction: Whether ε is added before v_t is corrected, as in torch.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type.
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
            "threshold must be at least 4, because the factor r_t of a step is not "
            f"real below 4; got threshold={threshold!r}."
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

        def direction(g: Array, m: Array, v: Array):
            m_hat = m / cast(of_mu, m)
            root = jnp.sqrt(v / cast(before, v) + cast(eps_root, v)) + cast(eps, v)
            divided = cast(factor, m) * m_hat * cast(after, m) / root
            return jnp.where(length >= threshold, divided, m_hat).astype(g.dtype)

        return jax.tree.map(direction, updates, mu, nu), AdamState(count, mu, nu)

    return optax.chain(
        complete(optax.GradientTransformation(init, update)), descend(learning_rate)
    )


def _rectification(length: Array, most: Scalar) -> Array:
    """Return r_t of `radam`, where `length` is ρ_t and `most` is ρ.

    For ρ_t below 4, the result has no meaning. If ρ > 4, it is NaN for ρ_t between 2
    and 4. The rule uses r_t only where ρ_t is at least 4.
    """
    return jnp.sqrt(
        (length - 4.0) * (length - 2.0) * most / ((most - 4.0) * (most - 2.0) * length)
    )


def _check(b1: Scalar, b2: Scalar, eps: Scalar, eps_root: Scalar) -> None:
    check_number("b1", b1, below=1.0)
    check_number("b2", b2, below=1.0)
    check_number("eps", eps)
    check_number("eps_root", eps_root)


RULES = (
    RuleEntry(nadam, {"learning_rate": step_rate(2e-3), "b1": MOMENTUM}),
    RuleEntry(
        nadamw,
        {
            "learning_rate": step_rate(1e-3),
            "weight_decay": Range(1e-6, 0.1, "log", 1e-4),
        },
    ),
    RuleEntry(radam, {"learning_rate": step_rate(1e-3), "b1": MOMENTUM}),
)
