"""Adam and its closest variants.

Each rule divides a moving average of gradients by the size of past gradients. In the
formulas, g_t is the gradient, u_t the update and η_t the learning rate at step t. All
operations act entry by entry.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Int

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Params, Scalar
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
    """State of `adam`, `adamw`, `radam` and `laprop`; `adam` defines the symbols.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      mu: Moving average m_t of gradients, shaped like the params. In `laprop`, it is
        the moving average of the quotients g_t / (√v̂_t + ε), where g_t is the gradient.
      nu: Moving average v_t of squared gradients, shaped like the params (real if the
        params are complex).
    """

    count: Int[Array, ""]
    mu: Params
    nu: Params


@checked
def adam(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
) -> optax.GradientTransformation:
    """Divide an average of gradients by the root of an average of their squares.

    m_t = β1 m_(t-1) + (1 - β1) g_t,
    v_t = β2 v_(t-1) + (1 - β2) g_t²,
    u_t = -η_t m̂_t / (√(v̂_t + ε_root) + ε),
    m̂_t = m_t / (1 - β1^t),
    v̂_t = v_t / (1 - β2^t), with t counted from 1 and m_0 = v_0 = 0.

    g_t is the gradient, u_t the update and η_t the learning rate at step t. β1, β2, ε
    and ε_root are the arguments b1, b2, eps and eps_root. m_t is an average of
    gradients, and v_t an average of their squares. The divisions by 1 - β1^t and 1 -
    β2^t correct both averages for starting at 0 (bias correction).

    optax.adam and, for real params, torch.optim.Adam are the same: ε is added after the
    correction, as in the paper's algorithm 1. The faster form at the end of the paper's
    section 2 adds ε before the correction. ε_root comes from optax. A positive ε_root
    makes the root differentiable at 0.

    If float64 is off and t is small, computing 1 - 0.999^t directly loses two digits.
    In optax, the relative error of the first steps is then 1e-5. This rule computes 1 -
    β^t as -expm1(t log β), which reduces the error to 2e-7.

    For params in half precision, wrap the rule in `with_state_dtype(..., "float32")`.
    In bfloat16 the number 0.999 rounds to 1, so v_t never falls. In float16, ε rounds
    to 0. optax.adam has the same problems.

    Use it as the first choice for networks. Most entries move by η or less per step,
    whatever the scale of their gradients. The default decays and ε rarely need much
    tuning. With the default decays, a nonzero gradient after many zero gradients moves
    its entry by 3.2 η in the same step. If the gradient then grows by a factor β2 / β1
    at each step, the entry moves by up to 7.3 η per step. With these decays, no
    sequence of gradients makes a longer step. On some convex problems with bounded
    params, Adam converges to the point with the highest loss (Reddi et al.; `amsgrad`
    gives the reference).

    Args:
      learning_rate: Learning rate η, the paper's α. A nonnegative number, a traced
        scalar or a schedule (number of earlier steps -> η).
      b1, b2: Decays β1 and β2 in [0, 1); may be traced.
      eps, eps_root: Constants ε and ε_root, at least 0; may be traced.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type.
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
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 1e-4,
    mask: Any = None,
) -> optax.GradientTransformation:
    """Adam with weight decay that is separate from the gradient.

    u_t = -η_t (m̂_t / (√(v̂_t + ε_root) + ε) + λ x_t).
    Here u_t is the update, x_t are the params, η_t is the learning rate at step t, and
    λ is the argument weight_decay. m̂_t and v̂_t are the averages of the gradients and
    of their squares, with bias correction, as in `adam`.

    optax.adamw and, for real params, torch.optim.AdamW are the same except for the
    default λ: 1e-4 in optax and here, 1e-2 in torch. The paper's rate is a constant α
    times a factor from a schedule. The paper multiplies λ x_t by the factor alone, and
    not by α. For the same decay, the paper's λ must therefore be α times the λ here.

    Use it instead of adding a penalty ½ λ |x|² to the loss that Adam minimises. Adam
    would divide the penalty's gradient by the size of the loss's gradient, so weights
    with large gradients would hardly decay.

    Args:
      learning_rate, b1, b2, eps, eps_root: Rate η, decays β1 and β2, and constants ε
        and ε_root, as in `adam`.
      weight_decay: Decay λ, at least 0; may be traced.
      mask: Pytree of booleans (a prefix of the params), or a function from the params
        to such a pytree. Leaves marked True are decayed. None means all leaves.
    Returns:
      The rule, an optax.GradientTransformation; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        mask does not fit the params, or update got no params.
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
    b1: Scalar, b2: Scalar, eps: Scalar, eps_root: Scalar
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

        def direction(g: Array, m: Array, v: Array):
            m_hat, v_hat = m / cast(mu_correction, m), v / cast(nu_correction, v)
            return like(m_hat / (jnp.sqrt(v_hat + cast(eps_root, v)) + cast(eps, v)), g)

        return jax.tree.map(direction, updates, mu, nu), AdamState(count, mu, nu)

    return complete(optax.GradientTransformation(init, update))


class AmsgradState(NamedTuple):
    """State of `amsgrad`, whose docstring defines the symbols.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      mu: Moving average m_t of gradients, shaped like the params.
      nu: Moving average v_t of squared gradients, shaped like the params.
      nu_max: Largest v_t so far, shaped like the params. If correct_before_max and
        bias_correction_nu are True, it is the largest corrected v_t.
    """

    count: Int[Array, ""]
    mu: Params
    nu: Params
    nu_max: Params


@checked
def amsgrad(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    correct_before_max: bool = True,
) -> optax.GradientTransformation:
    """Adam that divides by the root of the largest average of squares so far.

    u_t = -η_t m̂_t / (√(n_t + ε_root) + ε),
    n_t = max(n_(t-1), v̂_t), with n_0 = 0.
    Here u_t is the update and η_t the learning rate. m̂_t and v̂_t are the averages of
    the gradients and of their squares, with bias correction, as in `adam`.

    The defaults are those of optax.amsgrad. The paper has no bias correction. To follow
    the paper, set bias_correction_mu=False and bias_correction_nu=False. torch's
    Adam(amsgrad=True) takes the maximum of v_t, the average of squares without
    correction, and then corrects this maximum. To follow torch, set
    correct_before_max=False.

    The two values of correct_before_max differ most if the first gradient g_1 is large.
    With correct_before_max=True, n_t stays at v̂_1 = g_1² as long as no later v̂_t is
    larger. With correct_before_max=False, the maximum of v_t stays at v_1 = (1 - β2)
    g_1² as long as no later v_t is larger. This maximum divided by 1 - β2^t takes the
    place of n_t, and falls with t.

    Use it where Adam does not converge although η_t falls. Adam's v̂_t forgets a large,
    rare gradient after some time. The maximum does not. Where Adam converges, do not
    expect an advantage.

    Args:
      learning_rate, b1, b2, eps, eps_root: Rate η, decays β1 and β2, and constants ε
        and ε_root, as in `adam`.
      bias_correction_mu, bias_correction_nu: Whether to divide the average of the
        gradients by 1 - β1^t, and whether to divide the average of their squares by 1 -
        β2^t, as in `adam`.
      correct_before_max: Whether to correct each v_t before taking the maximum. If
        False, the maximum of the uncorrected v_t is corrected. This argument has no
        effect with bias_correction_nu=False.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type.
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

        def direction(g: Array, m: Array, n: Array):
            root = jnp.sqrt(n / cast(after, n) + cast(eps_root, n))
            return like(m / cast(of_mu, m) / (root + cast(eps, n)), g)

        return jax.tree.map(direction, updates, mu, nu_max), AmsgradState(
            count, mu, nu, nu_max
        )

    return optax.chain(
        complete(optax.GradientTransformation(init, update)), descend(learning_rate)
    )


class AdamaxState(NamedTuple):
    """State of `adamax` and `adamaxw`.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      mu: Moving average m_t of gradients, shaped like the params.
      nu: Decaying maximum n_t of the absolute values of the gradients, shaped like the
        params.
    """

    count: Int[Array, ""]
    mu: Params
    nu: Params


@checked
def adamax(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
) -> optax.GradientTransformation:
    """Divide an average of gradients by a decaying maximum of their absolute values.

    n_t = max(β2 n_(t-1), |g_t| + ε), with n_0 = 0,
    u_t = -η_t m̂_t / n_t.
    m̂_t is the average of the gradients g_t with bias correction, as in `adam`. u_t is
    the update and η_t the learning rate at step t.

    optax.adamax and, for real params, torch.optim.Adamax are the same. torch treats the
    real and the imaginary part of a complex entry as two entries. The paper has no ε.
    With eps=0, an entry whose gradients are all 0 gives 0/0, which is NaN.

    Use it where gradients are heavy-tailed or sparse and Adam's average of squares
    forgets large gradients too soon. n_t needs no bias correction, because a maximum is
    not biased towards 0. With the default decays, each entry moves by at most 1.01 η
    per step.

    Args:
      learning_rate, b1, b2, eps: Rate η, decays β1 and β2, and constant ε, as in
        `adam`.
    Returns:
      The rule, an optax.GradientTransformation.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type.
    References:
      Kingma & Ba, Adam: a method for stochastic optimization, ICLR 2015, algorithm 2.
    Example:
      >>> rule = adamax(0.5, b1=0.0, b2=0.5, eps=0.0)
      >>> updates, state = rule.update(jnp.array([4.0]), rule.init(jnp.zeros(1)))
      >>> print(rule.update(jnp.array([1.0]), state)[0])
      [-0.25]
    """
    return optax.chain(_adamax_direction(b1, b2, eps), descend(learning_rate))


@checked
def adamaxw(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 1e-4,
    mask: Any = None,
) -> optax.GradientTransformation:
    """Adamax with weight decay that is separate from the gradient.

    u_t = -η_t (m̂_t / n_t + λ x_t).
    Here u_t is the update, x_t are the params, η_t is the learning rate at step t, and
    λ is the argument weight_decay. m̂_t is the average of the gradients, and n_t the
    decaying maximum of their absolute values, as in `adamax`.

    optax.adamaxw is the same. torch.optim.Adamax can only add λ x_t to the gradient.

    Use it instead of adding a penalty ½ λ |x|² to the loss that Adamax minimises.
    Adamax would divide the penalty's gradient by the size of the loss's gradient, so
    weights with large gradients would hardly decay.

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
      Kingma & Ba, Adam: a method for stochastic optimization, ICLR 2015, algorithm 2.
      Loshchilov & Hutter, Decoupled weight decay regularization, ICLR 2019, section 2.
    Example:
      >>> rule, x = adamaxw(0.5, b1=0.0, eps=0.0, weight_decay=0.5), jnp.array([2.0])
      >>> print(rule.update(jnp.array([4.0]), rule.init(x), x)[0])
      [-1.]
    """
    return optax.chain(
        _adamax_direction(b1, b2, eps),
        add_decayed_weights(weight_decay, mask),
        descend(learning_rate),
    )


def _adamax_direction(
    b1: Scalar, b2: Scalar, eps: Scalar
) -> optax.GradientTransformation:
    _check(b1, b2, eps)

    def init(params: Params):
        mu, nu = jax.tree.map(jnp.zeros_like, params), jax.tree.map(sizes_like, params)
        return AdamaxState(jnp.zeros((), jnp.int32), mu, nu)

    def largest(g: Array, n: Array):
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

    return complete(optax.GradientTransformation(init, update))


def _check(
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    eps_root: Scalar = 0.0,
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
    RuleEntry(
        adamaxw,
        {
            "learning_rate": step_rate(2e-3),
            "weight_decay": Range(1e-6, 0.1, "log", 1e-4),
        },
    ),
)
