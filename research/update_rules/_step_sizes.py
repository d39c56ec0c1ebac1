"""Gradient descent that computes its own learning rate: Polyak, Barzilai-Borwein, AdGD.

The rate comes from the value of the objective or from the last two gradients.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from research.checks import check_number
from research.types import Array, Params, Scalar
from research.update_rules._checks import check_rate, checked
from research.update_rules._edges import complete, real_product
from research.update_rules._entry import Range, RuleEntry
from research.update_rules._transforms import cast, increment, working_dtype


class PolyakStepState(NamedTuple):
    """State of `polyak_step`, whose docstring defines the symbols.

    Attributes:
      learning_rate: Rate η_t of the last step, shape (); 0 before the first step.
    """

    learning_rate: Float[Array, ""]


@checked
def polyak_step(
    learning_rate: Scalar = 1.0,
    f_min: Scalar = 0.0,
    max_learning_rate: Scalar | None = None,
    eps: Scalar = 0.0,
    positive_part: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Step to the point where the objective's tangent reaches the minimum value.

    u_t = -η_t g_t, with η_t = c min((f(x_t) - f*) / (|g_t|² + ε), η_max). Here f is the
    objective, x_t are the params, g_t is the gradient and u_t the update at step t. |.|
    is the Euclidean norm over all leaves. c is learning_rate, η_max is
    max_learning_rate, ε is eps, and f* is f_min, the minimum value of f. Polyak's own
    step has η_max = ∞ and ε = 0.

    If f* is too high, f(x_t) - f* may be negative, and then the step goes uphill. With
    positive_part=True, the params do not move in this case. This variant is called
    SPS+, where SPS stands for stochastic Polyak step size.

    If f is the loss of a single example in each step, and f* is the minimum of this
    loss, the rule is SPS_max of Loizou et al. Their rate is the smaller of
    (f(x_t) - f*) / (c' |g_t|²) and γ_b, where c' and γ_b are their constants. Their
    rate equals η_t if ε = 0, c' = 1 / c and γ_b = c η_max.

    With c = 1, the rule is optax.polyak_sgd(η_max, f_min=f*, eps=ε), except for two
    differences. First, optax's η_max is 1 by default. Second, optax does not move the
    params if |g_t|² + ε <= 2.2e-16. In contrast, this package sets η_t to 0 only if
    |g_t|² + ε is 0 or overflows. optax's variant="sps+" corresponds to
    positive_part=True. optax's argument `scaling` is not c: optax multiplies the
    gradient by `scaling` first, and uses the result both as the direction and in
    |g_t|². If ε = 0 and the limit η_max is not reached, the step is therefore divided
    by `scaling`. torch does not have the rule.

    Use it if the minimum value is known. For example, the minimum value is 0 for a
    model that can fit all examples exactly, and for a system of equations with a
    solution. If f_min is too low, the steps are too long, and the params do not settle
    near the minimum.

    Args:
      learning_rate: Factor c of the step, at least 0; may be traced. 1 gives Polyak's
        step. On convex functions with the exact f*, the rule converges for 0 < c < 2.
      f_min: Minimum value f*, any finite number; may be traced.
      max_learning_rate: Largest value η_max of the quotient in η_t, at least 0; may be
        traced. The rate η_t is then at most c η_max. None means no limit.
      eps: Constant ε, at least 0; may be traced.
      positive_part: Whether f - f* is replaced by max(f - f*, 0).
    Returns:
      The rule; its update needs the keyword argument value, which is f(x_t).
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        or update received no value.
    References:
      Polyak, Minimization of unsmooth functionals, USSR Comp. Math. Math. Phys. 9
      (1969). Loizou, Vaswani, Laradji & Lacoste-Julien, Stochastic Polyak step-size for
      SGD, AISTATS 2021, equation (3). Garrigos, Gower & Schaipp, Function value
      learning (2023), for the positive part.
    Example:
      >>> # For f = x² / 2, the step is half of the way to the minimum.
      >>> rule, x = polyak_step(), jnp.array([4.0])
      >>> updates, state = rule.update(x, rule.init(x), x, value=8.0)
      >>> print(updates, state.learning_rate)
      [-2.] 0.5
    """
    check_rate(
        learning_rate,
        no_schedule=(
            "this argument multiplies a rate that the rule computes from the value"
        ),
    )
    _check_any_sign("f_min", f_min)
    check_number("eps", eps)
    if max_learning_rate is not None:
        check_number("max_learning_rate", max_learning_rate)
    _check_flag("positive_part", positive_part)

    def init(params: Params):
        return PolyakStepState(_rate(0.0, params))

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **extra: Any
    ):
        del params, extra
        _require(value, "polyak_step", "the objective's value", "value=value")
        of_rate = state.learning_rate
        gap = cast(value, of_rate) - cast(f_min, of_rate)
        gap = jnp.maximum(gap, 0.0) if positive_part else gap
        size = _dot(updates, updates, of_rate) + cast(eps, of_rate)
        # |g|² and the value may overflow to ∞ / ∞. The step is then practically 0.
        beyond = (
            jnp.isposinf(size)
            & ~jnp.isnan(gap)
            & jnp.isfinite(_scale(updates, of_rate))
        )
        ratio = jnp.where((size == 0.0) | beyond, jnp.zeros_like(gap), gap / size)
        if max_learning_rate is not None:
            ratio = jnp.minimum(ratio, cast(max_learning_rate, of_rate))
        rate = cast(learning_rate, of_rate) * ratio
        return _against(updates, rate), PolyakStepState(rate)

    return complete(optax.GradientTransformationExtraArgs(init, update))


class BarzilaiBorweinState(NamedTuple):
    """State of `barzilai_borwein`, whose docstring defines the symbols.

    Attributes:
      count: Number of steps taken, int32, shape ().
      learning_rate: Rate η_t of the last step, shape (). Before the first step, the
        rate of the first step.
      refused: Number of steps that kept the previous rate because sᵀy was not
        positive, int32, shape ().
      previous_params, previous_gradient: Params x_(t-1) and gradient g_(t-1) of the
        last step, shaped like the params.
    """

    count: Int[Array, ""]
    learning_rate: Float[Array, ""]
    refused: Int[Array, ""]
    previous_params: Params
    previous_gradient: Params


@checked
def barzilai_borwein(
    learning_rate: Scalar = 1e-3, short: bool = False
) -> optax.GradientTransformation:
    """Use the inverse of the curvature along the last step as the rate.

    u_t = -η_t g_t, with η_t = sᵀs / sᵀy for t > 1, s = x_t - x_(t-1) and y = g_t -
    g_(t-1). Here x_t are the params, g_t is the gradient and u_t the update at step t,
    with t counted from 1. The products sᵀs and sᵀy are over all leaves. The first rate
    is η_1 = learning_rate. The rate sᵀs / sᵀy gives the long step (BB1). The short step
    (BB2) has η_t = sᵀy / yᵀy. If sᵀy > 0, the short step is never longer than the long
    step.

    If the curvature along the last step is not positive, or if the params did not move,
    sᵀy <= 0. The rule then uses the previous rate again. The field `refused` of the
    state counts these steps. The rule has no line search, so the objective may
    increase. optax and torch do not have this rule.

    Use it on smooth, nearly quadratic problems with full gradients, where it is often
    almost as fast as conjugate gradients. On functions that are far from quadratic, the
    rule can diverge. On mini-batches, y is mostly noise.

    Args:
      learning_rate: Rate η_1 of the first step, at least 0; may be traced. The first
        step only measures the curvature, so it should be short.
      short: Whether to use the short step (BB2).
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        or update received no params.
    References:
      Barzilai & Borwein, Two-point step size gradient methods, IMA J. Numer. Anal. 8
      (1988), equations (5)-(6). Raydan, The Barzilai and Borwein gradient method for
      the large scale unconstrained minimization problem, SIAM J. Optim. 7 (1997), for
      the case sᵀy <= 0. In this case, Raydan uses a constant rate instead of the
      previous rate.
    Example:
      >>> # The curvature of f = x² is 2, so the second step arrives at the minimum.
      >>> rule, x = barzilai_borwein(0.25), jnp.array([8.0])
      >>> updates, state = rule.update(2 * x, rule.init(x), x)
      >>> print(
      ...     x + updates,
      ...     x + updates + rule.update(2 * (x + updates), state, x + updates)[0],
      ... )
      [4.] [0.]
    """
    check_rate(
        learning_rate,
        no_schedule="the rate is that of the first step; the rule computes the others",
    )
    _check_flag("short", short)

    def init(params: Params):
        zeros = (
            jax.tree.map(jnp.zeros_like, params) for _ in range(2)
        )  # Separate arrays, so that each can be donated.
        return BarzilaiBorweinState(
            _zero(), _rate(learning_rate, params), _zero(), *zeros
        )

    def update(updates: Any, state: Any, params: Any = None):
        _require(params, "barzilai_borwein", "the params", "params")
        rate = state.learning_rate
        s, y = (
            _difference(params, state.previous_params),
            _difference(updates, state.previous_gradient),
        )
        length, change = _scale(s, rate), _scale(y, rate)
        curvature = _dot(s, y, rate, length, change)
        found = (
            curvature / _dot(y, y, rate, change, change)
            if short
            else _dot(s, s, rate, length, length) / curvature
        )
        found = length / change * found
        is_first = state.count == 0
        is_refused = (curvature <= 0.0) | jnp.isposinf(
            change
        )  # A NaN is not refused, so that the rate shows it.
        rate = jnp.where(is_first | is_refused, rate, found)
        refused = jnp.where(
            is_refused & ~is_first, increment(state.refused), state.refused
        )
        after = BarzilaiBorweinState(
            increment(state.count), rate, refused, *_kept(params, updates, state)
        )
        return _against(updates, rate), after

    return complete(optax.GradientTransformation(init, update))


class AdgdState(NamedTuple):
    """State of `adgd`, whose docstring defines the symbols.

    Attributes:
      count: Number of steps taken, int32, shape ().
      learning_rate: Rate λ_t of the last step, shape (). Before the first step, the
        rate of the first step.
      growth: Ratio θ_t = λ_t / λ_(t-1), shape (). It starts at ∞, and changes only in a
        step in which the rule computes a new rate.
      previous_params, previous_gradient: Params x_(t-1) and gradient g_(t-1) of the
        last step, shaped like the params.
    """

    count: Int[Array, ""]
    learning_rate: Float[Array, ""]
    growth: Float[Array, ""]
    previous_params: Params
    previous_gradient: Params


@checked
def adgd(learning_rate: Scalar = 1e-3) -> optax.GradientTransformation:
    """Use half the inverse local curvature as the rate, and limit the rate's growth.

    u_t = -λ_t g_t, with λ_t = min(√(1 + θ_(t-1)) λ_(t-1), |s| / (2 |y|)), where θ_t =
    λ_t / λ_(t-1), s = x_t - x_(t-1) and y = g_t - g_(t-1). Here x_t are the params, g_t
    is the gradient and u_t the update at step t, with t counted from 0. |.| is the
    Euclidean norm over all leaves. λ_0 = learning_rate and θ_0 = ∞. At t = 1, the first
    term of the minimum is therefore ∞, and λ_1 is the second term, whatever λ_0 is.

    If y = 0, the second term is ∞. If both terms are ∞, or if the params did not move,
    λ_t = λ_(t-1) and θ_t = θ_(t-1). (The algorithm of the paper stops if the params do
    not move.) The rule is algorithm 1 of "Adaptive gradient descent without descent".
    optax and torch do not have this rule.

    Use it on smooth convex problems with full gradients. On such problems it converges,
    and no constant of the problem needs to be known. The rule is usually slower than
    gradient descent with a tuned rate, and slower than `barzilai_borwein` where
    `barzilai_borwein` converges.

    Args:
      learning_rate: Rate λ_0 of the first step, positive; may be traced. The first step
        only measures the curvature, so it should be short.
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete rate is out of range or not a number, or update
        received no params.
    References:
      Malitsky & Mishchenko, Adaptive gradient descent without descent, ICML 2020,
      algorithm 1.
    Example:
      >>> # The curvature of f = x² is 2, so the second step is half way to the minimum.
      >>> rule, x = adgd(0.25), jnp.array([8.0])
      >>> updates, state = rule.update(2 * x, rule.init(x), x)
      >>> print(
      ...     x + updates,
      ...     x + updates + rule.update(2 * (x + updates), state, x + updates)[0],
      ... )
      [4.] [2.]
    """
    check_rate(
        learning_rate,
        positive=True,
        no_schedule="the rate is that of the first step; the rule computes the others",
    )

    def init(params: Params):
        zeros = (
            jax.tree.map(jnp.zeros_like, params) for _ in range(2)
        )  # Separate arrays, so that each can be donated.
        return AdgdState(
            _zero(), _rate(learning_rate, params), _rate(jnp.inf, params), *zeros
        )

    def update(updates: Any, state: Any, params: Any = None):
        _require(params, "adgd", "the params", "params")
        rate, growth = state.learning_rate, state.growth
        s, y = (
            _difference(params, state.previous_params),
            _difference(updates, state.previous_gradient),
        )
        moved, turned = _length(s, rate), _length(y, rate)
        found = jnp.minimum(jnp.sqrt(1.0 + growth) * rate, moved / (2.0 * turned))
        stays = (
            (state.count == 0)
            | (moved == 0.0)
            | jnp.isposinf(found)
            | jnp.isposinf(turned)
        )
        found = jnp.where(stays, rate, found)
        growth = jnp.where(stays, growth, found / rate)
        after = AdgdState(
            increment(state.count), found, growth, *_kept(params, updates, state)
        )
        return _against(updates, found), after

    return complete(optax.GradientTransformation(init, update))


def _zero() -> Array:
    return jnp.zeros((), jnp.int32)


def _rate(value: Scalar, params: Params) -> Array:
    return jnp.asarray(value, working_dtype(params))


def _length(a: Params, like: Array) -> Array:
    """Return the Euclidean norm over all leaves."""
    scale = _scale(a, like)
    return jnp.where(
        jnp.isposinf(scale), scale, scale * jnp.sqrt(_dot(a, a, like, scale, scale))
    )


def _scale(a: Params, like: Array) -> Array:
    """Return a divisor for the entries of a, so that the sum of squares stays finite.

    The divisor is 1 if 2^32 times the largest square stays within the range of the
    dtype of `like`. Otherwise the divisor is the largest absolute value of an entry.
    """
    if not jax.tree.leaves(a):
        return jnp.ones_like(like)
    sizes = [
        jnp.max(jnp.abs(leaf), initial=0.0).astype(like.dtype)
        for leaf in jax.tree.leaves(a)
    ]
    largest = jnp.max(jnp.stack(sizes))
    return jnp.where(
        largest <= jnp.finfo(like.dtype).max ** 0.5 / 2**16, 1.0, largest
    ).astype(like.dtype)


def _dot(
    a: Params,
    b: Params,
    like: Array,
    of_a: Scalar = 1.0,
    of_b: Scalar = 1.0,
) -> Array:
    """Return Σ (a / of_a) (b / of_b) over all leaves, in the dtype of `like`.

    The product of complex numbers is Re(a) Re(b) + Im(a) Im(b).
    """
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    wide = lambda x: x.astype(jnp.promote_types(x.dtype, like.dtype))
    return sum(
        (jnp.sum(real_product(wide(p) / of_a, wide(q) / of_b)) for p, q in pairs),
        jnp.zeros_like(like),
    )


def _difference(a: Params, b: Params) -> Params:
    return jax.tree.map(lambda p, q: p - q.astype(p.dtype), a, b)


def _against(gradient: Params, rate: Array) -> Params:
    def step(g: Array):
        most = jnp.finfo(
            g.dtype
        ).max  # A rate outside the leaf's range would be ∞, and ∞ · 0 is NaN.
        return -cast(jnp.clip(rate, -most, most), g) * g

    return jax.tree.map(step, gradient)


def _kept(params: Params, gradient: Params, state: Any) -> tuple[Params, Params]:
    """Return params and gradient in the dtypes in which the state keeps them."""
    as_before = lambda new, old: new.astype(old.dtype)
    return (
        jax.tree.map(as_before, params, state.previous_params),
        jax.tree.map(as_before, gradient, state.previous_gradient),
    )


def _require(value: Any, rule: str, what: str, argument: str) -> None:
    if value is None:
        raise ValueError(
            f"{rule} needs {what}; call update(grads, state, "
            f"{'params, ' * (argument != 'params')}{argument})."
        )


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False; got {name}={value!r}.")


def _check_any_sign(name: str, value: Any) -> None:
    try:
        check_number(name, None if isinstance(value, bool) else abs(value))
    except (TypeError, ValueError) as problem:
        raise type(problem)(
            f"{name} must be a finite number; got {name}={value!r}."
        ) from None


RULES = (
    # The rate is a factor of the step, as in dog and prodigy.
    RuleEntry(
        polyak_step,
        {"learning_rate": Range(0.01, 10.0, "log", 1.0)},
        aliases=("polyak_sgd",),
    ),
    # The rate applies only to the first step; also in adgd.
    RuleEntry(barzilai_borwein, {"learning_rate": Range(1e-5, 1.0, "log", 1e-3)}),
    RuleEntry(adgd, {"learning_rate": Range(1e-5, 1.0, "log", 1e-3)}),
)
