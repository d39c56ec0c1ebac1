"""Adam and its closest kin: a moving average of gradients, divided by the size that
gradients have had."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Params
from research.update_rules._bias_correction import bias_correction
from research.update_rules._checks import checked
from research.update_rules._edges import abs_square, complete, sizes_like
from research.update_rules._entry import (
    MOMENTUM,
    SMALL_RATES,
    Range,
    RuleEntry,
    step_rate,
)
from research.update_rules._transforms import (
    add_decayed_weights,
    cast,
    descend,
    increment,
    like,
    moving_average,
)


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


@checked
def adam(
    learning_rate: float | Array | Schedule,
    b1: float | Array = 0.9,
    b2: float | Array = 0.999,
    eps: float | Array = 1e-8,
    eps_root: float | Array = 0.0,
) -> optax.GradientTransformation:
    """Divides an average of gradients by the root of an average of squares, both
    corrected for starting at 0.

    m_t = β1 m_(t-1) + (1 - β1) g_t, v_t = β2 v_(t-1) + (1 - β2) g_t², u_t = -η_t m̂_t /
    (√(v̂_t + ε_root) + ε), m̂_t = m_t / (1 - β1^t), v̂_t = v_t / (1 - β2^t), t counted
    from 1.

    optax.adam and torch.optim.Adam are the same: ε is added after the correction, as in
    the paper's algorithm 1 (its faster form at the end of section 2 adds it before).
    ε_root, optax's, makes the root differentiable at 0. The corrections are computed as
    -expm1(t log β): where float64 is off, 1 - β2^t loses two digits at small t, and
    optax's first steps are wrong by 1e-5 of their length; these by 2e-7.

    Use it first on networks: most entries step about η, whatever the scale of their
    gradients, and the defaults are rarely far off. After a long silence a gradient
    moves its entry by 3.2 η, one that then grows by β2 / β1 a step by up to 7.3 η, and
    none by more. There are convex problems on which it goes to the worst point (see
    `amsgrad`). For params in half precision wrap it in `with_state_dtype(...,
    "float32")`: in bfloat16 0.999 is 1, so that v never falls, and in float16 ε is 0;
    optax's is the same.

    Args:
      learning_rate: η (the paper's α), a number of at least 0, a traced scalar, or a
        schedule t -> η_t.
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


@checked
def adamw(
    learning_rate: float | Array | Schedule,
    b1: float | Array = 0.9,
    b2: float | Array = 0.999,
    eps: float | Array = 1e-8,
    eps_root: float | Array = 0.0,
    weight_decay: float | Array = 1e-4,
    mask: Any = None,
) -> optax.GradientTransformation:
    """Adam, with weights that decay apart from the gradient: u_t = -η_t (m̂_t / (√(v̂_t
    + ε_root) + ε) + λ x_t).

    optax.adamw and torch.optim.AdamW are the same but for the default λ: 1e-4 in optax
    and here, 1e-2 in torch. The paper decays by λ times the schedule's multiplier
    alone, not times α: its λ is ours times α.

    Use it in place of Adam with a penalty ½ λ |x|²: Adam divides the penalty's gradient
    by the size of the loss's, so that weights with large gradients hardly decay.

    Args:
      learning_rate, b1, b2, eps, eps_root: As in `adam`.
      weight_decay: λ, at least 0; may be traced.
      mask: Pytree of booleans (a prefix of the params), or a function from params to
        one; True where weights decay.
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number, or update
        got no params.
    References:
      Loshchilov & Hutter, Decoupled weight decay regularization, ICLR 2019, algorithm
      2, line 12.
    Example:
      >>> rule, x = adamw(0.5, eps=0.0, weight_decay=0.5), jnp.array([2.0])
      >>> print(rule.update(jnp.array([4.0]), rule.init(x), x)[0])
      [-1.]
    """
    direction = _adam_direction(b1, b2, eps, eps_root)
    return optax.chain(
        direction, add_decayed_weights(weight_decay, mask), descend(learning_rate)
    )


def _adam_direction(
    b1: float | Array, b2: float | Array, eps: float | Array, eps_root: float | Array
) -> optax.GradientTransformation:
    _check(b1, b2, eps, eps_root)

    def init(params: Params):
        mu, nu = jax.tree.map(jnp.zeros_like, params), jax.tree.map(sizes_like, params)
        return AdamState(jnp.zeros((), jnp.int32), mu, nu)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        mu = moving_average(b1, state.mu, updates)
        nu = moving_average(b2, state.nu, jax.tree.map(abs_square, updates))
        mu_correction, nu_correction = (
            bias_correction(b1, count),
            bias_correction(b2, count),
        )

        def direction(g, m, v):
            m_hat, v_hat = m / cast(mu_correction, m), v / cast(nu_correction, v)
            return like(m_hat / (jnp.sqrt(v_hat + cast(eps_root, v)) + cast(eps, v)), g)

        return jax.tree.map(direction, updates, mu, nu), AdamState(count, mu, nu)

    return complete(optax.GradientTransformation(init, update))


class AmsgradState(NamedTuple):
    """What AMSGrad keeps.

    Attributes:
      count: t, the steps taken; int32, shape ().
      mu: m_t, the moving average of gradients; like the params.
      nu: v_t, the moving average of their squares; like the params.
      nu_max: The largest v_t so far, of the corrected ones where those are compared;
        like the params.
    """

    count: Array
    mu: Params
    nu: Params
    nu_max: Params


@checked
def amsgrad(
    learning_rate: float | Array | Schedule,
    b1: float | Array = 0.9,
    b2: float | Array = 0.999,
    eps: float | Array = 1e-8,
    eps_root: float | Array = 0.0,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    correct_before_max: bool = True,
) -> optax.GradientTransformation:
    """Adam with the largest average of squares so far: u_t = -η_t m̂_t / (√(n_t +
    ε_root) + ε), n_t = max(n_(t-1), v̂_t).

    m_t, v_t, m̂_t and v̂_t are Adam's. The defaults are optax.amsgrad's. The paper
    corrects neither: bias_correction_mu=False, bias_correction_nu=False. torch's
    Adam(amsgrad=True) compares the uncorrected v_t, and corrects their maximum:
    correct_before_max=False. The corrected v̂_t is large at first, when it is one
    square, so that optax's maximum may stay at the first gradient's for ever; torch and
    optax differ from the second step on.

    Use it where Adam does not settle although η_t falls: without noise in the divisor a
    large, rare gradient is not forgotten. In practice it is seldom better than Adam.

    Args:
      learning_rate, b1, b2, eps, eps_root: As in `adam`.
      bias_correction_mu, bias_correction_nu: Whether m_t, v_t are corrected for
        starting at 0.
      correct_before_max: Whether the corrected v_t are compared, or v_t and then their
        maximum is corrected.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Reddi, Kale & Kumar, On the convergence of Adam and beyond, ICLR 2018, algorithm
      2.
    Example:
      >>> rule = amsgrad(1.0, b1=0.0, b2=0.0, eps=0.0)
      >>> updates, state = rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))
      >>> print(rule.update(jnp.array([1.0]), state)[0])
      [-0.25]
    """
    _check(b1, b2, eps, eps_root)

    def init(params: Params):
        mu, nu = jax.tree.map(jnp.zeros_like, params), jax.tree.map(sizes_like, params)
        return AmsgradState(
            jnp.zeros((), jnp.int32), mu, nu, jax.tree.map(sizes_like, params)
        )

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        mu = moving_average(b1, state.mu, updates)
        nu = moving_average(b2, state.nu, jax.tree.map(abs_square, updates))
        of_mu = bias_correction(b1, count) if bias_correction_mu else 1.0
        of_nu = bias_correction(b2, count) if bias_correction_nu else 1.0
        before, after = (of_nu, 1.0) if correct_before_max else (1.0, of_nu)
        nu_max = jax.tree.map(
            lambda n, v: jnp.maximum(n, v / cast(before, v)), state.nu_max, nu
        )

        def direction(g, m, n):
            root = jnp.sqrt(n / cast(after, n) + cast(eps_root, n))
            return like(m / cast(of_mu, m) / (root + cast(eps, n)), g)

        return jax.tree.map(direction, updates, mu, nu_max), AmsgradState(
            count, mu, nu, nu_max
        )

    return optax.chain(
        complete(optax.GradientTransformation(init, update)), descend(learning_rate)
    )


class AdamaxState(NamedTuple):
    """What Adamax keeps.

    Attributes:
      count: t, the steps taken; int32, shape ().
      mu: m_t, the moving average of gradients; like the params.
      nu: n_t, the decaying maximum of their sizes; like the params.
    """

    count: Array
    mu: Params
    nu: Params


@checked
def adamax(
    learning_rate: float | Array | Schedule,
    b1: float | Array = 0.9,
    b2: float | Array = 0.999,
    eps: float | Array = 1e-8,
) -> optax.GradientTransformation:
    """Divides an average of gradients by a decaying maximum of sizes: n_t = max(β2
    n_(t-1), |g_t| + ε), u_t = -η_t m̂_t / n_t.

    m̂_t is Adam's. optax.adamax and torch.optim.Adamax are the same. The paper has no
    ε: with eps=0 an entry whose gradients are all 0 is 0/0, and NaN.

    Use it where gradients are heavy-tailed or sparse and Adam's average of squares
    forgets the large ones too soon; no correction of n_t is needed, and |m̂_t| / n_t is
    at most about 1.

    Args:
      learning_rate, b1, b2, eps: As in `adam`.
    Returns:
      The rule.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number.
    References:
      Kingma & Ba, Adam: a method for stochastic optimization, ICLR 2015, algorithm 2.
    Example:
      >>> rule = adamax(0.5, b1=0.0, b2=0.5, eps=0.0)
      >>> updates, state = rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))
      >>> print(rule.update(jnp.array([1.0]), state)[0])
      [-0.25]
    """
    _check(b1, b2, eps)

    def init(params: Params):
        mu, nu = jax.tree.map(jnp.zeros_like, params), jax.tree.map(sizes_like, params)
        return AdamaxState(jnp.zeros((), jnp.int32), mu, nu)

    def largest(g, n):
        return jnp.maximum(jnp.abs(g).astype(n.dtype) + cast(eps, n), cast(b2, n) * n)

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        mu = moving_average(b1, state.mu, updates)
        nu = jax.tree.map(largest, updates, state.nu)
        correction = bias_correction(b1, count)
        divided = jax.tree.map(
            lambda g, m, n: (m / cast(correction, m) / n).astype(g.dtype),
            updates,
            mu,
            nu,
        )
        return divided, AdamaxState(count, mu, nu)

    return optax.chain(
        complete(optax.GradientTransformation(init, update)), descend(learning_rate)
    )


def _check(
    b1: float | Array,
    b2: float | Array,
    eps: float | Array,
    eps_root: float | Array = 0.0,
) -> None:
    check_number("b1", b1, below=1.0)
    check_number("b2", b2, below=1.0)
    check_number("eps", eps)
    check_number("eps_root", eps_root)


RULES = (
    RuleEntry(
        adam,
        {"learning_rate": step_rate(1e-3), "b1": MOMENTUM},
        rates=SMALL_RATES,
    ),
    RuleEntry(
        adamw,
        {
            "learning_rate": step_rate(1e-3),
            "weight_decay": Range(1e-6, 0.1, "log", 1e-4),
        },
        rates=SMALL_RATES,
    ),
    RuleEntry(amsgrad, {"learning_rate": step_rate(1e-3), "b1": MOMENTUM}),
    RuleEntry(adamax, {"learning_rate": step_rate(2e-3), "b1": MOMENTUM}),
)
