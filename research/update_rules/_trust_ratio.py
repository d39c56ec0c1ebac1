"""Rules that divide the gradient of each leaf by its norm: LARS, NovoGrad and Fromage.

LARS and Fromage then multiply by the norm of the params. In the formulas, g_t is the
gradient of a leaf, x_t its params, u_t the update and η_t the learning rate at step t.
|.| is the Euclidean norm of a leaf.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Params, Scalar
from research.update_rules._checks import check_rate, checked, rate_at
from research.update_rules._edges import (
    abs_square,
    complete,
    leaf_norm,
    real_dtype,
    with_range,
)
from research.update_rules._entry import MOMENTUM, Range, RuleEntry
from research.update_rules._groups import checked_mask
from research.update_rules._transforms import (
    cast,
    constant_rate,
    descend,
    increment,
    like,
)


class StepMomentumState(NamedTuple):
    """State of the momentum of `lars`.

    Attributes:
      velocity: Decaying sum of steps, u_t = μ u_(t-1) + s_t, where μ is the momentum
        and s_t the step without momentum. Shaped like the params.
    """

    velocity: Params


@checked
def lars(
    learning_rate: Scalar | Schedule,
    momentum: Scalar = 0.9,
    weight_decay: Scalar = 0.0,
    mask: Any = None,
    trust_coefficient: Scalar = 1e-3,
    eps: Scalar = 0.0,
    ratio_mask: Any = None,
    nesterov: bool = False,
    separate_norms: bool = True,
) -> optax.GradientTransformation:
    """Scale each leaf's gradient to a multiple of the leaf's norm, then add momentum.

    u_t = μ u_(t-1) - η_t r_t (g_t + λ x_t), with
    r_t = c |x_t| / (|g_t| + λ |x_t| + ε), for each leaf, from u_0 = 0.

    g_t is the gradient of the leaf, x_t its params, u_t its update, η_t the learning
    rate and |.| the Euclidean norm. c is trust_coefficient, λ is weight_decay, ε is eps
    and μ is momentum. If |x_t| is 0, or if the divisor of r_t without ε is 0, the ratio
    r_t is replaced by 1. With nesterov=True, the rule returns μ u_t - η_t r_t (g_t + λ
    x_t) instead of u_t.

    The paper, timm's Lars and NVIDIA's LARC divide by the sum of two norms, as here.
    optax.lars divides by |g_t + λ x_t| + ε (separate_norms=False). Without weight
    decay, the two divisors are equal. torch does not have LARS.

    timm's Lars differs in three ways. With its defaults, timm does not use the ratio
    for leaves without decay. If g_t is 0, the ratio of timm is 1, even with decay. Here
    the formula of r_t still holds if g_t is 0 and λ |x_t| is not 0. Under a schedule,
    timm multiplies the whole momentum by the present rate η_t. Here the term of an
    earlier step i is still multiplied by the rate η_i.

    Use it for large batches on convolutional networks, with warm-up. Leave biases and
    scales of normalisations out of the decay and of the ratio, as the paper does.

    Args:
      learning_rate: Rate η: a nonnegative number, a traced scalar or a schedule (number
        of earlier steps -> η). With c = 0.001, usual values of η are 1 to 30.
      momentum: Momentum μ in [0, 1); may be traced.
      weight_decay: Decay λ, coupled: λ x_t is added to the gradient. At least 0; may be
        traced.
      mask: Pytree of booleans, or a function from the params to such a pytree. Leaves
        marked True decay, as in `adamw`. None means all leaves.
      trust_coefficient: Factor c, at least 0; may be traced.
      eps: Constant ε, at least 0; may be traced.
      ratio_mask: Mask of the leaves whose step is multiplied by r_t, in the form of
        `mask`. None means all leaves. For other leaves, r_t is 1.
      nesterov: Whether to use Nesterov momentum.
      separate_norms: Whether to divide by |g_t| + λ |x_t| + ε. If False, the divisor is
        |g_t + λ x_t| + ε.
    Returns:
      The rule, an optax.GradientTransformation; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        mask or ratio_mask does not fit the params, or update got no params.
    References:
      You, Gitman & Ginsburg, Large batch training of convolutional networks, 2017,
      algorithm 1.
    Example:
      >>> rule, x = lars(1.0, trust_coefficient=0.5), jnp.array([3.0, 4.0])
      >>> print(rule.update(jnp.array([8.0, 0.0]), rule.init(x), x)[0])
      [-2.5  0. ]
    """
    check_rate(learning_rate)
    check_number("momentum", momentum, below=1.0)
    check_number("trust_coefficient", trust_coefficient)
    check_number("eps", eps)
    check_number("weight_decay", weight_decay)

    decays, scales = _everywhere(mask), _everywhere(ratio_mask)

    def direction(g: Array, x: Array, is_decayed: bool, is_scaled: bool):
        factor = weight_decay if is_decayed else 0.0
        d = g + like(cast(factor, x) * x, g)
        if not is_scaled:
            return d
        of_x = leaf_norm(x)
        divisor = leaf_norm(d)
        if separate_norms:
            divisor = leaf_norm(g).astype(of_x.dtype) + cast(factor, of_x) * of_x
        ratio = cast(trust_coefficient, of_x) * of_x / (divisor + cast(eps, divisor))
        ratio = jnp.where((of_x == 0) | (divisor == 0), 1.0, ratio)
        return cast(ratio, d) * d

    def update(updates: Params, state: Any, params: Params | None = None):
        if params is None:
            raise ValueError(
                "lars needs the params; call update(grads, state, params)."
            )
        return jax.tree.map(
            direction, updates, params, decays(params), scales(params)
        ), state

    return optax.chain(
        complete(optax.GradientTransformation(optax.init_empty_state, update)),
        descend(learning_rate),
        _momentum_of_steps(momentum, nesterov),
    )


def _everywhere(mask: Any) -> Any:
    """Return a mask as a function from params to booleans; None is True everywhere."""
    if mask is None:
        return lambda params: jax.tree.map(lambda _: True, params)
    return checked_mask(mask)


def _momentum_of_steps(
    momentum: Scalar, nesterov: bool
) -> optax.GradientTransformation:
    """Return a transformation from steps s_t to the updates u_t = μ u_(t-1) + s_t.

    If nesterov is True, the updates are μ u_t + s_t instead of u_t.
    """

    def init(params: Params):
        return StepMomentumState(jax.tree.map(jnp.zeros_like, params))

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        add = lambda s, u: cast(momentum, u) * u + like(s, u)
        velocity = jax.tree.map(add, updates, state.velocity)
        moved = jax.tree.map(add, updates, velocity) if nesterov else velocity
        return jax.tree.map(like, moved, updates), StepMomentumState(velocity)

    return complete(optax.GradientTransformation(init, update))


class NovogradState(NamedTuple):
    """State of `novograd`, whose docstring defines the symbols.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      velocity: Decaying sum m_t of normalised gradients and of the terms λ x_t, shaped
        like the params.
      nu: For each leaf, the moving average v_t of the squared norm of the gradient,
        shape ().
    """

    count: Int[Array, ""]
    velocity: Params
    nu: Params


@checked
def novograd(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.25,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
) -> optax.GradientTransformation:
    """Divide each leaf's gradient by the average gradient norm, then add momentum.

    v_t = β2 v_(t-1) + (1 - β2) |g_t|², with v_1 = |g_1|²,
    m_t = β1 m_(t-1) + g_t / (√(v_t + ε_root) + ε) + λ x_t,
    u_t = -η_t m_t, from m_0 = 0.

    g_t is the gradient of a leaf, x_t its params, u_t its update and η_t the learning
    rate. |g_t| is the Euclidean norm of this gradient, so v_t is one number per leaf.

    optax.novograd is the same. torch does not have the rule. The paper's algorithm 1
    has no ε_root. The authors' code has its ε inside the root. timm's NvNovoGrad is the
    same rule with other defaults: β1 = 0.95, β2 = 0.98 and ε = 1e-8. With
    grad_averaging=True, timm multiplies all terms of m_t except β1 m_(t-1) by 1 - β1.

    If the first gradients of a leaf are exactly 0, timm and the authors' code start v_t
    at the first gradient that is not 0. Here v_1 is 0, and the first gradient that is
    not 0 enters v_t with the weight 1 - β2.

    Use it in place of Adam for convolutional and speech networks. The rule stores one
    number per leaf for the second moment, so its state needs half of the memory of
    Adam's state. If the gradient is constant and λ = 0, the norm of a leaf's step grows
    to about η / (1 - β1), however many entries the leaf has.

    Args:
      learning_rate: Rate η: a nonnegative number, a traced scalar or a schedule (number
        of earlier steps -> η).
      b1, b2: Decays β1 and β2 in [0, 1); may be traced.
      eps, eps_root: Constants ε and ε_root, at least 0; may be traced.
      weight_decay: Decay λ inside the momentum, at least 0; may be traced.
    Returns:
      The rule, an optax.GradientTransformation; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number, or
        update got no params.
    References:
      Ginsburg et al., Stochastic gradient methods with layer-wise adaptive moments for
      training of deep networks, 2019, algorithm 1.
    Example:
      >>> rule, x = novograd(1.0, eps=0.0, weight_decay=0.5), jnp.array([2.0, 0.0])
      >>> print(rule.update(jnp.array([3.0, -4.0]), rule.init(x), x)[0])
      [-1.6  0.8]
    """
    check_number("b1", b1, below=1.0)
    check_number("b2", b2, below=1.0)
    check_number("eps", eps)
    check_number("eps_root", eps_root)
    check_number("weight_decay", weight_decay)

    def init(params: Params):
        velocity = jax.tree.map(jnp.zeros_like, params)
        nu = jax.tree.map(lambda x: jnp.zeros((), _wide(x)), params)
        return NovogradState(jnp.zeros((), jnp.int32), velocity, nu)

    def update(updates: Params, state: Any, params: Params | None = None):
        if params is None:
            raise ValueError(
                "novograd needs the params; call update(grads, state, params)."
            )
        first = state.count == 0

        def average(g: Array, v: Array):
            square = jnp.sum(abs_square(g.astype(jnp.promote_types(g.dtype, v.dtype))))
            mixed = cast(1.0 - b2, v) * square + cast(b2, v) * v
            return jnp.where(first, square, mixed)

        def add(g: Array, x: Array, m: Array, v: Array):
            # In float16, the reciprocal of a small root would overflow.
            wide = with_range(like(g, m))
            root = cast(jnp.sqrt(v + cast(eps_root, v)) + cast(eps, v), wide)
            divided = like(wide / root, m)
            return cast(b1, m) * m + (divided + cast(weight_decay, m) * x)

        nu = jax.tree.map(average, updates, state.nu)
        velocity = jax.tree.map(add, updates, params, state.velocity, nu)
        moved = jax.tree.map(like, velocity, updates)
        return moved, NovogradState(increment(state.count), velocity, nu)

    return optax.chain(
        complete(optax.GradientTransformation(init, update)), descend(learning_rate)
    )


def _wide(x: Array) -> Any:
    return jnp.promote_types(real_dtype(x), jnp.float32)


class FromageState(NamedTuple):
    """State of `fromage`.

    Attributes:
      count: Number of steps taken, int32, shape ().
      learning_rate: Learning rate of the last step, shape (). Before the first step,
        the rate that the first step will use.
    """

    count: Int[Array, ""]
    learning_rate: Float[Array, ""]


@checked
def fromage(
    learning_rate: Scalar | Schedule, min_norm: Scalar = 1e-6
) -> optax.GradientTransformation:
    """Move each leaf against its gradient, by η times the leaf's norm, then shrink it.

    x_(t+1) = (x_t - η_t |x_t| g_t / |g_t|) / √(1 + η_t²) for each leaf, and
    u_t = x_(t+1) - x_t. Here x_t are the params of the leaf, g_t is its gradient, η_t
    the learning rate and |.| the Euclidean norm. Norms below min_norm count as
    min_norm.

    If g_t is orthogonal to x_t, the step alone would multiply the norm of the leaf by
    √(1 + η_t²). The division by √(1 + η_t²) prevents this growth: |x_(t+1)| = |x_t|.

    The paper has no min_norm. The authors' code, and optax with min_norm = 0, set the
    ratio |x_t| / |g_t| to 1 if one of the norms is 0. With these two codes, a leaf of
    zeros therefore moves. Here, a leaf of zeros does not move if min_norm is 0. Apart
    from this case, optax.fromage is the same up to rounding errors: optax computes 1 /
    √(1 + η²) - 1 as a difference, which loses digits for small η. torch does not have
    the rule.

    Use it for networks whose layers have different scales. If g_t is orthogonal to x_t
    and η is small, η is about the angle in radians by which a leaf turns. A rate of
    0.01 suits most networks. Leaves that start at 0, such as biases, hardly move.

    Args:
      learning_rate: Rate η: a nonnegative number, a traced scalar or a schedule (number
        of earlier steps -> η).
      min_norm: Value that replaces a smaller norm, at least 0; may be traced.
    Returns:
      The rule, an optax.GradientTransformation; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number, or
        update got no params.
    References:
      Bernstein, Vahdat, Yue & Liu, On the distance between two neural networks and the
      stability of learning, NeurIPS 2020, algorithm 1.
    Example:
      >>> rule, x = fromage(0.75), jnp.array([30.0, 40.0])
      >>> print((x + rule.update(jnp.array([-4.0, 3.0]), rule.init(x), x)[0]).round())
      [48. 14.]
    """
    check_rate(learning_rate)
    check_number("min_norm", min_norm)

    def rate(count: Array):
        return constant_rate(rate_at(learning_rate, count))

    def init(params: Params):
        del params
        count = jnp.zeros((), jnp.int32)
        return FromageState(count, rate(count))

    def update(updates: Params, state: Any, params: Params | None = None):
        if params is None:
            raise ValueError(
                "fromage needs the params; call update(grads, state, params)."
            )
        eta = rate(state.count)

        def step(g: Array, x: Array):
            of_x, of_g = (
                jnp.maximum(n, cast(min_norm, n)) for n in map(leaf_norm, (x, g))
            )
            angle = eta.astype(of_x.dtype)
            length = jnp.sqrt(1 + angle**2)
            # 1 / √(1 + η²) - 1, without the difference.
            shrink = angle**2 / (length * (1 + length))
            ratio = jnp.where(of_g == 0, 1.0, of_x / of_g)
            wide = with_range(g)  # In float16, the factor of a small g would overflow.
            turn = like(cast(angle / length * ratio, wide) * wide, g)
            return -(turn + like(cast(shrink, x) * x, g))

        moved = jax.tree.map(step, updates, params)
        return moved, FromageState(increment(state.count), eta)

    return complete(optax.GradientTransformation(init, update))


RULES = (
    RuleEntry(
        lars, {"learning_rate": Range(1e-2, 1e3, "log", 1.0), "momentum": MOMENTUM}
    ),
    RuleEntry(
        novograd, {"learning_rate": Range(1e-5, 1.0, "log", 0.01), "b1": MOMENTUM}
    ),
    RuleEntry(fromage, {"learning_rate": Range(1e-5, 1.0, "log", 0.01)}),
)
