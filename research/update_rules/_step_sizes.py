"""Gradient descent with a rate that it finds itself, from the value or from two
gradients: Polyak, Barzilai-Borwein, AdGD."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.checks import check_number
from research.types import Array, Params
from research.update_rules._checks import check_rate, checked
from research.update_rules._edges import complete, real_product
from research.update_rules._entry import Range, RuleEntry
from research.update_rules._transforms import cast, increment, working_dtype


class PolyakStepState(NamedTuple):
    """What Polyak's step keeps.

    Attributes:
      learning_rate: η_t of the last step (before the first: 0), shape ().
    """

    learning_rate: Array


@checked
def polyak_step(
    learning_rate: float | Array = 1.0,
    f_min: float | Array = 0.0,
    max_learning_rate: float | Array | None = None,
    eps: float | Array = 0.0,
    positive_part: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Steps to where the tangent reaches the least value: u_t = -η_t g_t, η_t = c
    min((f(x_t) - f*) / (|g_t|² + ε), η_max).

    Polyak's own step has η_max = ∞ and ε = 0. On single examples, with f* the least
    loss of one of them, it is SPS_max of Loizou et al., whose constant divides: their 1
    / c is our c. Where f* is too high, f - f* may be negative and the step goes uphill;
    positive_part=True stands still instead (SPS+). With c = 1 it is
    optax.polyak_sgd(η_max, f_min=f*, eps=ε), with variant="sps+" for the positive part,
    but for two things: optax has η_max = 1, and stands still wherever |g|² + ε <=
    2.2e-16, while here only a gradient of 0 has η_t = 0. Its `scaling` is not c, for it
    scales the gradient before the norm is taken: it divides the step. torch has none.

    Use it where the least value is known: 0 for an interpolating model or a system with
    a solution. A guess that is too low makes steps too long, and near the minimum they
    then do not settle.

    Args:
      learning_rate: c, the factor of the step, at least 0; 1 is Polyak's, and below 2
        it still converges on convex functions. May be traced.
      f_min: f*, the least value, any finite number; may be traced.
      max_learning_rate: η_max, at least 0; may be traced. None means no limit.
      eps: ε, at least 0; may be traced.
      positive_part: Whether max(f - f*, 0) stands for f - f*.
    Returns:
      The rule; its update needs value.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number, or update
        got no value.
    References:
      Polyak, Minimization of unsmooth functionals, USSR Comp. Math. Math. Phys. 9
      (1969). Loizou, Vaswani, Laradji & Lacoste-Julien, Stochastic Polyak step-size for
      SGD, AISTATS 2021, equation (3). Garrigos, Gower & Schaipp, Function value
      learning (2023), for the positive part.
    Example:
      >>> # f = x² / 2: the step is half of the way.
      >>> rule, x = polyak_step(), jnp.array([4.0])
      >>> updates, state = rule.update(x, rule.init(x), x, value=8.0)
      >>> print(updates, state.learning_rate)
      [-2.] 0.5
    """
    check_rate(
        learning_rate,
        no_schedule="it is a factor on the step, which the rule finds from the value",
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
        # |g|² may leave the range of the dtype, and the value with it: ∞ / ∞, where the
        # step is as good as 0.
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
    """What the Barzilai-Borwein rule keeps.

    Attributes:
      count: Steps taken, int32, shape ().
      learning_rate: η_t of the last step (before the first: of the first), shape ().
      refused: Of how many steps sᵀy was not positive, so that the rate before was kept;
        int32, shape ().
      previous_params, previous_gradient: x_(t-1) and g_(t-1); like the params.
    """

    count: Array
    learning_rate: Array
    refused: Array
    previous_params: Params
    previous_gradient: Params


@checked
def barzilai_borwein(
    learning_rate: float | Array = 1e-3, short: bool = False
) -> optax.GradientTransformation:
    """Steps by the inverse of the curvature that the last step met: u_t = -η_t g_t, η_t
    = sᵀs / sᵀy.

    s = x_t - x_(t-1) and y = g_t - g_(t-1), over all leaves. That is the long step
    (BB1); the short one (BB2) is η_t = sᵀy / yᵀy, never longer where sᵀy > 0. The first
    step is η_1 = learning_rate. Where sᵀy <= 0 (the function is not convex there, or
    the params did not move) the rate before is kept, and the state counts it. There is
    no line search: values go up and down. optax and torch have none.

    Use it on smooth, nearly quadratic problems with the whole gradient, where it is
    often not far behind conjugate gradients. Far from quadratic it can diverge, and on
    mini-batches y is mostly noise.

    Args:
      learning_rate: η_1, the first step, at least 0; may be traced. It should be short:
        it only measures.
      short: Whether to take the short step.
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number, or update
        got no params.
    References:
      Barzilai & Borwein, Two-point step size gradient methods, IMA J. Numer. Anal. 8
      (1988), equations (5)-(6). Raydan, The Barzilai and Borwein gradient method for
      the large scale unconstrained minimization problem, SIAM J. Optim. 7 (1997), for
      what to do where sᵀy <= 0 (there a constant).
    Example:
      >>> # f = x², whose curvature is 2: the second step arrives.
      >>> rule, x = barzilai_borwein(0.25), jnp.array([8.0])
      >>> updates, state = rule.update(2 * x, rule.init(x), x)
      >>> print(x + updates, x + updates + rule.update(2 * (x + updates), state, x + updates)[0])
      [4.] [0.]
    """
    check_rate(
        learning_rate,
        no_schedule="it is the first step; the rule finds the others itself",
    )
    _check_flag("short", short)

    def init(params: Params):
        zeros = (
            jax.tree.map(jnp.zeros_like, params) for _ in range(2)
        )  # Two, so that both may be donated.
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
        )  # NaN is not refused: it shows in the rate.
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
    """What AdGD keeps.

    Attributes:
      count: Steps taken, int32, shape ().
      learning_rate: λ_t of the last step (before the first: of the first), shape ().
      growth: θ_t = λ_t / λ_(t-1) (after the first step: infinite), shape ().
      previous_params, previous_gradient: x_(t-1) and g_(t-1); like the params.
    """

    count: Array
    learning_rate: Array
    growth: Array
    previous_params: Params
    previous_gradient: Params


@checked
def adgd(learning_rate: float | Array = 1e-3) -> optax.GradientTransformation:
    """Steps by half the inverse of the curvature met, growing slowly: λ_t = min(√(1 +
    θ_(t-1)) λ_(t-1), |s| / (2 |y|)).

    u_t = -λ_t g_t, θ_t = λ_t / λ_(t-1), s = x_t - x_(t-1), y = g_t - g_(t-1); λ_0 =
    learning_rate and θ_0 = ∞, so that the second step is |s| / (2 |y|) whatever the
    first was. Where the params did not move, λ and θ stay (the paper stops there);
    where they moved and y = 0, the second term is ∞, and at the second step λ then
    stays. It is adaptive gradient descent without descent, algorithm 1. optax and torch
    have none.

    Use it on smooth convex problems with the whole gradient, where it converges without
    any constant being known. It is careful: it is slower than a rate that was tuned,
    and than `barzilai_borwein` where that converges.

    Args:
      learning_rate: λ_0, the first step, positive; may be traced. It should be short:
        it only measures.
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete rate is out of range or no number, or update got
        no params.
    References:
      Malitsky & Mishchenko, Adaptive gradient descent without descent, ICML 2020,
      algorithm 1.
    Example:
      >>> # f = x², whose curvature is 2: the second step is half of the way.
      >>> rule, x = adgd(0.25), jnp.array([8.0])
      >>> updates, state = rule.update(2 * x, rule.init(x), x)
      >>> print(x + updates, x + updates + rule.update(2 * (x + updates), state, x + updates)[0])
      [4.] [2.]
    """
    check_rate(
        learning_rate,
        positive=True,
        no_schedule="it is the first step; the rule finds the others itself",
    )

    def init(params: Params):
        zeros = (
            jax.tree.map(jnp.zeros_like, params) for _ in range(2)
        )  # Two, so that both may be donated.
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


def _rate(value: float | Array, params: Params) -> Array:
    return jnp.asarray(value, working_dtype(params))


def _length(a: Params, like: Array) -> Array:
    """Euclidean, over all leaves."""
    scale = _scale(a, like)
    return jnp.where(
        jnp.isposinf(scale), scale, scale * jnp.sqrt(_dot(a, a, like, scale, scale))
    )


def _scale(a: Params, like: Array) -> Array:
    """1 while a sum of 2^32 squares stays within the range of the dtype of `like`, else
    the size of the largest entry."""
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
    of_a: float | Array = 1.0,
    of_b: float | Array = 1.0,
) -> Array:
    """Σ (a / of_a) (b / of_b) over all leaves, in the dtype of `like`; a complex
    product is Re(a) Re(b) + Im(a) Im(b)."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    wide = lambda x: x.astype(jnp.promote_types(x.dtype, like.dtype))
    return sum(
        (jnp.sum(real_product(wide(p) / of_a, wide(q) / of_b)) for p, q in pairs),
        jnp.zeros_like(like),
    )


def _difference(a: Params, b: Params) -> Params:
    return jax.tree.map(lambda p, q: p - q.astype(p.dtype), a, b)


def _against(gradient: Params, rate: Array) -> Params:
    def step(g):
        most = (
            jnp.finfo(g.dtype).max
        )  # A rate beyond the range of the leaf's dtype would be ∞, and ∞ · 0 is NaN.
        return -cast(jnp.clip(rate, -most, most), g) * g

    return jax.tree.map(step, gradient)


def _kept(params: Params, gradient: Params, state: Any) -> tuple[Params, Params]:
    """Both in the dtypes in which the state has them."""
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
    # A factor of the step, as in dog and prodigy.
    RuleEntry(
        polyak_step,
        {"learning_rate": Range(0.01, 10.0, "log", 1.0)},
        aliases=("polyak_sgd",),
    ),
    # The rate of the first step alone; so in adgd.
    RuleEntry(barzilai_borwein, {"learning_rate": Range(1e-5, 1.0, "log", 1e-3)}),
    RuleEntry(adgd, {"learning_rate": Range(1e-5, 1.0, "log", 1e-3)}),
)
