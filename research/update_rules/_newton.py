"""Newton's method: with backtracking, and inside a trust region; both see whether the
Hessian is any good."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Outcome, Params
from research.update_rules._checks import check_rate, checked, rate_at
from research.update_rules._edges import complete
from research.update_rules._entry import SECOND_ORDER, RuleEntry
from research.update_rules._second_order import (
    DEFINITE,
    INDEFINITE,
    NOT_FINITE_MATRIX,
    SINGULAR,
    backtrack,
    flatten,
    kept_after,
    require,
    secular_root,
    shaped_like,
    solve_symmetric,
    value_slack,
)
from research.update_rules._transforms import cast, increment

WAYS = ("reflect", "keep", "stop")


class NewtonState(NamedTuple):
    """What Newton's method keeps.

    Attributes:
      count: Steps asked for, int32, shape ().
      learning_rate: The factor t of the last step, 0 where none was taken, shape ().
      outcome: How the last step ended, an `Outcome`, int32.
      curvature: What its Hessian was, an index into
        `research.update_rules._second_order.CURVATURES`, int32.
      evaluations: Values, with their gradients, tried inside the last update, int32;
        the Hessian is not counted.
      value_after, grad_after: The objective and its gradient where the step ended; None
        without a line search, and of params narrower than float32.
    """

    count: Array
    learning_rate: Array
    outcome: Array
    curvature: Array
    evaluations: Array
    value_after: Params
    grad_after: Params


@checked
def newton(
    learning_rate: float | Array | Schedule = 1.0,
    *,
    indefinite: str = "reflect",
    line_search: bool = True,
    sufficient_decrease: float | Array = 1e-4,
    shrink: float | Array = 0.5,
    max_evaluations: int | Array = 50,
) -> optax.GradientTransformationExtraArgs:
    """Steps to the minimum of the quadratic model, or part of the way: u_t = t_t p_t,
    ∇²f(x_t) p_t = -∇f(x_t).

    t_t is the first of η, η s, η s², ... with f(x_t + t p_t) <= f(x_t) + c t
    ∇f(x_t)ᵀp_t (Armijo), so that η = 1 is the full step. The Hessian is `jax.hessian`
    of value_fn over all params as one vector: n² numbers and n³ work. Near a minimum
    with a definite Hessian the number of right digits doubles with each step. optax and
    torch have no Newton.

    A Hessian that is not positive definite (a pivot of Cholesky at most n eps of its
    diagonal entry) is dealt with as `indefinite` says, and state.curvature tells of it:
    "reflect" takes each eigenvalue's size for it, at least √eps of the largest, which
    turns a saddle's attraction around; "keep" solves as it is, which goes to saddles
    and maxima (with the line search: takes no step where that is not down); "stop"
    takes no step. A function without any curvature gets no step. At an exact saddle the
    gradient is zero and so is the step: `trust_region_newton` leaves it.

    Use it for up to some hundreds of params where the objective is smooth and the
    gradient exact, as in logistic regression. On mini-batches its Hessian is as noisy
    as they are, and it steps to the batch's own minimum.

    Args:
      learning_rate: η, the first trial; a number of at least 0, a traced scalar, or a
        schedule.
      indefinite: "reflect", "keep" or "stop".
      line_search: False takes η itself, unseen: Newton's own method, which may diverge.
      sufficient_decrease: c in [0, 1).
      shrink: s in (0, 1).
      max_evaluations: At most so many values are tried.
    Returns:
      The rule; its update needs params and value_fn, as `research.descent` passes them.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number, or update
        lacks what it needs.
    References:
      Nocedal & Wright, Numerical Optimization (2006), algorithms 3.1 and 3.2, and
      section 3.4 on eigenvalues. Dauphin et al., Identifying and attacking the saddle
      point problem, NeurIPS 2014 (the eigenvalues' sizes).
    Example:
      >>> f = lambda x, indices=None: 2.0 * x[0] ** 2 + 8.0 * x[1] ** 2
      >>> rule, x = newton(), jnp.array([3.0, -2.0])
      >>> updates, state = rule.update(jax.grad(f)(x), rule.init(x), x, value_fn=f)
      >>> print(updates, state.learning_rate)
      [-3.  2.] 1.0
    """
    check_rate(learning_rate)
    _check_choice("indefinite", indefinite)
    check_number("sufficient_decrease", sufficient_decrease, below=1.0)
    check_number("shrink", shrink, positive=True, below=1.0)
    check_number("max_evaluations", max_evaluations, positive=True, integer=True)

    def init(params: Params):
        x, unflatten = flatten(params)
        count, outcome, curvature, evaluations = (
            jnp.zeros((), jnp.int32) for _ in range(4)
        )  # Apart, to be donated.
        after = (jnp.zeros((), x.dtype), jnp.zeros_like(x))
        after = kept_after(params, unflatten, after) if line_search else (None, None)
        return NewtonState(
            count, jnp.zeros((), x.dtype), outcome, curvature, evaluations, *after
        )

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        value: Any = None,
        grad: Any = None,
        value_fn: Any = None,
        **extra: Any,
    ):
        del extra
        require("newton", params=params, value_fn=value_fn)
        x, unflatten, f, g, value, hessian = _model(updates, params, value, value_fn)
        p, curvature = solve_symmetric(hessian, -g, indefinite)
        finite = _finite(value, g, hessian)
        first = cast(rate_at(learning_rate, state.count), x)
        t, outcome, evaluations, after = (
            first,
            jnp.int32(Outcome.FOUND),
            jnp.int32(0),
            (None, None),
        )
        if line_search:
            at = lambda t: jax.value_and_grad(f)(x + t * p)
            start = (_before(value, g, grad), g @ p, value_slack(value))
            found = backtrack(
                at, *start, first, sufficient_decrease, shrink, max_evaluations
            )
            t, outcome, evaluations = found[:3]
            after = kept_after(params, unflatten, _or_nan(finite, found[3]))
        no_step = jnp.all(p == 0) & jnp.any(
            g != 0
        )  # Stopped, or no curvature in any direction.
        stopped = jnp.where(
            curvature == INDEFINITE, Outcome.NO_DESCENT_DIRECTION, Outcome.SINGULAR
        )
        outcome = jnp.where(
            finite, jnp.where(no_step, stopped, outcome), Outcome.NOT_FINITE
        ).astype(jnp.int32)
        curvature = jnp.where(finite, curvature, NOT_FINITE_MATRIX).astype(jnp.int32)
        t = jnp.where(outcome < Outcome.FIRST_FAILURE, t, 0.0)
        step = jnp.where(finite, jnp.where(t == 0, 0.0, t * p), jnp.nan)
        state = NewtonState(
            increment(state.count), t, outcome, curvature, evaluations, *after
        )
        return shaped_like(step, unflatten, updates), state

    whole = optax.GradientTransformationExtraArgs(init, update)
    return complete(whole, only_real="newton", needs_value_fn=True)


class TrustRegionState(NamedTuple):
    """What `trust_region_newton` keeps.

    Attributes:
      count: Steps asked for, int32, shape ().
      learning_rate: The radius Δ_t in which the next step is to stay, shape ().
      gain: The ratio ρ of the last trial's decrease to what the model promised; x moved
        if it is above `acceptance`. NaN before the first step, shape ().
      outcome, curvature, evaluations, value_after, grad_after: As in NewtonState; a
        trial that is refused is no failure, for the next is shorter, until the radius
        is below rounding of x: "the step became too small".
    """

    count: Array
    learning_rate: Array
    gain: Array
    outcome: Array
    curvature: Array
    evaluations: Array
    value_after: Params
    grad_after: Params


@checked
def trust_region_newton(
    learning_rate: float | Array = 1.0,
    *,
    max_radius: float | Array = 1000.0,
    acceptance: float | Array = 0.15,
) -> optax.GradientTransformationExtraArgs:
    """Steps to the minimum of the quadratic model within |p| <= Δ_t, where the model
    has been trusted.

    p_t minimises gᵀp + ½ pᵀHp over |p| <= Δ_t, whatever the signs of H's eigenvalues,
    exactly: p = -(H + σ I)⁻¹ g, with σ >= 0 and H + σ I not negative, by
    eigen-decomposition; where g has no part along the lowest, negative eigenvalue (the
    hard case), the step goes on along its eigenvector to the edge, so that it leaves an
    exact saddle, in a direction whose sign is arbitrary. ρ_t is the decrease of f over
    the model's. x moves if ρ_t > acceptance. Then Δ_(t+1) = Δ_t / 4 if ρ_t < 1/4; min(2
    Δ_t, max_radius) if ρ_t > 3/4 and |p_t| = Δ_t; else Δ_t. Decreases below rounding of
    f count as kept promises. Constants are those of scipy's trust-exact, which solves
    the subproblem less exactly; optax and torch have no such rule.

    Use it where Newton with backtracking is lost: saddles, narrow bent valleys,
    singular Hessians. It costs one eigen-decomposition a step, n³, and a step that is
    refused moves nothing: state.gain says so.

    Args:
      learning_rate: Δ_0, the first radius, positive; may be traced.
      max_radius: The largest radius, positive.
      acceptance: The smallest ρ at which x moves, in [0, 0.25).
    Returns:
      The rule; its update needs params and value_fn, as `research.descent` passes them.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number, or update
        lacks what it needs.
    References:
      Nocedal & Wright (2006), algorithm 4.1 and section 4.3 (theorem 4.1 on the exact
      step, the hard case). Moré & Sorensen, Computing a trust region step, SIAM J. Sci.
      Stat. Comput. 4 (1983).
    Example:
      >>> # A saddle, and we are in it.
      >>> f = lambda x, indices=None: x[0] ** 2 - x[1] ** 2
      >>> rule, x = trust_region_newton(0.5), jnp.zeros(2)
      >>> updates, state = rule.update(jax.grad(f)(x), rule.init(x), x, value_fn=f)
      >>> print(jnp.abs(updates), state.learning_rate)
      [0.  0.5] 1.0
    """
    check_rate(
        learning_rate,
        positive=True,
        no_schedule="it is the first radius; the rule finds the others itself",
    )
    check_number("max_radius", max_radius, positive=True)
    check_number("acceptance", acceptance, below=0.25)

    def init(params: Params):
        x, unflatten = flatten(params)
        count, outcome, curvature, evaluations = (
            jnp.zeros((), jnp.int32) for _ in range(4)
        )
        radius = jnp.array(learning_rate, x.dtype)
        after = kept_after(
            params, unflatten, (jnp.zeros_like(radius), jnp.zeros_like(x))
        )
        gain = jnp.full_like(radius, jnp.nan)
        return TrustRegionState(
            count, radius, gain, outcome, curvature, evaluations, *after
        )

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        value: Any = None,
        grad: Any = None,
        value_fn: Any = None,
        **extra: Any,
    ):
        del extra
        require("trust_region_newton", params=params, value_fn=value_fn)
        x, unflatten, f, g, value, hessian = _model(updates, params, value, value_fn)
        radius, finite = state.learning_rate, _finite(value, g, hessian)
        p, shift, curvature = trust_region_step(hessian, g, radius)
        promised, slack = -(g @ p) - p @ hessian @ p / 2, value_slack(value)
        there = jax.value_and_grad(f)(x + p)
        kept = value - there[0] + slack
        gain = jnp.where(promised + slack > 0, kept / (promised + slack), 1.0)
        good = gain > cast(acceptance, gain)  # A trial that is NaN is not good.
        wider = jnp.where(
            (gain > 0.75) & (shift > 0),
            jnp.minimum(2 * radius, cast(max_radius, radius)),
            radius,
        )
        radius = jnp.where(finite, jnp.where(gain >= 0.25, wider, radius / 4), radius)
        stuck = ~good & jnp.all(x + p == x)
        outcome = jnp.where(
            finite,
            jnp.where(stuck, Outcome.STEP_TOO_SMALL, Outcome.FOUND),
            Outcome.NOT_FINITE,
        ).astype(jnp.int32)
        curvature = jnp.where(finite, curvature, NOT_FINITE_MATRIX).astype(jnp.int32)
        step = jnp.where(finite, jnp.where(good, p, 0.0), jnp.nan)
        after = jax.tree.map(
            lambda a, b: jnp.where(good, a, b), there, _before(value, g, grad)
        )
        after = kept_after(params, unflatten, _or_nan(finite, after))
        state = TrustRegionState(
            increment(state.count),
            radius,
            gain,
            outcome,
            curvature,
            jnp.int32(1),
            *after,
        )
        return shaped_like(step, unflatten, updates), state

    whole = optax.GradientTransformationExtraArgs(init, update)
    return complete(whole, only_real="trust_region_newton", needs_value_fn=True)


def trust_region_step(
    hessian: Array, g: Array, radius: Array
) -> tuple[Array, Array, Array]:
    """The minimiser of gᵀp + ½ pᵀHp over |p| <= Δ.

    With H = V diag(λ) Vᵀ, λ_1 lowest, γ = Vᵀg and s = σ + λ_1, it is p = -V γ / (λ -
    λ_1 + s).

    Args:
      hessian: H, symmetric, shape (n, n).
      g: Shape (n,).
      radius: Δ > 0, shape ().
    Returns:
      p; σ, the multiplier of the edge, 0 inside; what H is, an index into CURVATURES,
      int32.
    """
    eps = jnp.finfo(g.dtype).eps
    values, vectors = jnp.linalg.eigh(hessian)
    lowest, largest = (
        jnp.min(values, initial=jnp.inf),
        jnp.max(jnp.abs(values), initial=0.0),
    )
    above, gamma = values - lowest, vectors.T @ g
    floor = jnp.maximum(lowest, 0.0)

    def coefficients(s):
        return jnp.where(gamma == 0, 0.0, gamma / jnp.where(gamma == 0, 1.0, above + s))

    inside = (lowest > 0) & (jnp.linalg.norm(coefficients(floor)) <= radius)
    s = jnp.where(inside, floor, secular_root(above, gamma, radius, floor))
    c, rounding = coefficients(s), len(g) * eps * largest
    hard = (lowest < -rounding) & (s == 0)
    along = jnp.where(hard, jnp.sqrt(jnp.maximum(radius**2 - c @ c, 0.0)), 0.0)
    p = -(vectors @ c) + (along * vectors[:, 0] if len(g) else 0.0)
    flawed = jnp.where(lowest < -rounding, INDEFINITE, SINGULAR)
    curvature = jnp.where(lowest > rounding, DEFINITE, flawed).astype(jnp.int32)
    return p, jnp.where(inside, 0.0, s - lowest), curvature


def _model(updates, params, value, value_fn):
    """x, the params as one vector, the way back, the objective f of it, and there:
    gradient, value and Hessian."""
    x, unflatten = flatten(params)
    value = jnp.asarray(value_fn(params) if value is None else value, x.dtype)
    f = lambda z: jnp.asarray(value_fn(unflatten(z)), x.dtype)
    hessian = jax.hessian(f)(x)
    return (
        x,
        unflatten,
        f,
        flatten(updates)[0].astype(x.dtype),
        value,
        (hessian + hessian.T) / 2,
    )


def _before(value, g, grad):
    """Value and gradient at x; what came in as updates may be another vector, such as
    the clipped gradient."""
    return value, g if grad is None else flatten(grad)[0].astype(g.dtype)


def _or_nan(finite, after):
    """What is after a step: after one that is NaN, NaN."""
    return jax.tree.map(lambda a: jnp.where(finite, a, jnp.nan), after)


def _finite(*arrays: Array) -> Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(a)) for a in arrays]))


def _check_choice(name: str, value: Any) -> None:
    if value not in WAYS:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, WAYS))}; got {name}={value!r}."
        )


RULES = (RuleEntry(newton, SECOND_ORDER), RuleEntry(trust_region_newton, SECOND_ORDER))
