"""Newton's method, with backtracking or inside a trust region.

Both rules check whether the Hessian is positive definite.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Integer, Outcome, Params, Scalar
from research.update_rules._checks import check_rate, checked, rate_at
from research.update_rules._edges import complete, refuse_none
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
    """State of `newton`, whose docstring defines the symbols.

    Attributes:
      count: Number of calls of update, int32, shape ().
      learning_rate: Step size a_t of the last step, 0 if no step was taken, shape ().
      outcome: `research.types.Outcome` of the last step, int32, shape ().
      curvature: Kind of the Hessian, such as positive definite: an index into
        `research.update_rules._second_order.CURVATURES`, int32, shape ().
      evaluations: Number of times that the last update evaluated the objective with its
        gradient, int32, shape (). The Hessian is not counted.
      value_after, grad_after: Objective after the step, shape (), and its gradient
        there, shaped like the params. None if there is no line search. Also None if the
        dtype of a leaf is narrower than float32 or than the dtype of another leaf. The
        leaf is then rounded after the step, which may change the objective and its
        gradient.
    """

    count: Int[Array, ""]
    learning_rate: Float[Array, ""]
    outcome: Int[Array, ""]
    curvature: Int[Array, ""]
    evaluations: Int[Array, ""]
    value_after: Params
    grad_after: Params


@checked
def newton(
    learning_rate: Scalar | Schedule = 1.0,
    *,
    indefinite: str = "reflect",
    line_search: bool = True,
    sufficient_decrease: Scalar = 1e-4,
    shrink: Scalar = 0.5,
    max_evaluations: Integer = 50,
) -> optax.GradientTransformationExtraArgs:
    """Step towards the minimum of the quadratic model of the objective.

    u_t = a_t p_t, where ∇²f(x_t) p_t = -∇f(x_t), f is the objective and x_t are the
    params. Let η be learning_rate, s be shrink and c be sufficient_decrease. The step
    size a_t is the first of η, η s, η s², ... that satisfies Armijo's condition
    f(x_t + a_t p_t) <= f(x_t) + c a_t ∇f(x_t)ᵀp_t. A violation by at most ten times the
    rounding error of f is accepted. η = 1 tries the full step p_t first. If none of the
    first max_evaluations step sizes satisfies the condition, the update is 0.

    The argument value_fn of update is the function from params to f. The rule calls
    value_fn(params), so value_fn need not have the argument `indices` of the example.
    The Hessian is `jax.hessian` of value_fn over all params as one vector. For n
    params, a step takes about n³ operations, and the Hessian needs memory for n²
    numbers. Near a minimum with a positive definite Hessian and with η = 1, each step
    about doubles the number of correct digits. optax and torch do not have Newton's
    method.

    If the Hessian is not positive definite, the argument `indefinite` chooses the step.
    "reflect" replaces each eigenvalue by its absolute value, but by at least √eps times
    the largest absolute value, where eps is the machine epsilon. A saddle point then
    repels the iterates. "keep" uses the Hessian unchanged, so the iterates may also
    converge to a saddle point or a maximum. With the line search, "keep" takes no step
    if the direction is not a descent direction. "stop" takes no step.

    A Hessian counts as not positive definite if a pivot of its Cholesky factorisation
    is at most n eps times the corresponding diagonal entry. The field `curvature` of
    the state reports the kind of the Hessian, such as positive definite.

    If the Hessian is zero, the rule takes no step. At an exact saddle point the
    gradient is zero, so the step is zero, too. In contrast, `trust_region_newton`
    leaves such a point.

    Use it for up to a few hundred params if the objective is smooth and the gradient
    exact, as in logistic regression. On mini-batches, the Hessian is as noisy as the
    gradient, and each step goes towards the minimum of the loss on the current batch.

    Args:
      learning_rate: First step size η to try. A number of at least 0, a traced scalar,
        or a schedule (number of earlier steps -> η).
      indefinite: Step for a Hessian that is not positive definite (see above):
        "reflect", "keep" or "stop".
      line_search: If True, search for the step size a_t as above. If False, a_t is η,
        without a test of Armijo's condition. With η = 1, this is Newton's original
        method, which may diverge.
      sufficient_decrease: Constant c in [0, 1).
      shrink: Factor s in (0, 1).
      max_evaluations: Maximum number of step sizes to try in one step, a positive
        integer; may be traced.
    Returns:
      The rule; its update needs params and value_fn, the objective as a function of the
      params. `research.descent` passes both.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number, or the
        value of `indefinite` is unknown. Also raised by update if a required argument
        is missing, and by init if the params are complex.
    References:
      Nocedal & Wright, Numerical Optimization (2006), algorithms 3.1 and 3.2, and
      section 3.4 on eigenvalues. Dauphin et al., Identifying and attacking the saddle
      point problem, NeurIPS 2014 (for the absolute values of the eigenvalues).
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
        )  # Separate arrays, so that each can be donated.
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
        refuse_none(updates, params, "newton")
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
        )  # The solve stopped, or the Hessian is zero.
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
    return complete(whole, only_real="newton", needs_value_fn=True, sees_none=True)


class TrustRegionState(NamedTuple):
    """State of `trust_region_newton`, whose docstring defines the symbols.

    A trial is a step that the rule computes, and then accepts or rejects.

    Attributes:
      count: Number of calls of update, int32, shape ().
      learning_rate: Radius Δ of the trust region for the next step, shape ().
      gain: Ratio ρ of the objective's decrease in the last trial to the decrease that
        the model predicted, shape (). The params moved if ρ is larger than the argument
        `acceptance` of the rule. NaN before the first step.
      outcome: `research.types.Outcome` of the last trial, int32, shape (). A rejected
        trial is not a failure, because the next trial is shorter. The outcome is
        STEP_TOO_SMALL if the rejected trial is so small that adding it to the params
        does not change them in floating point.
      curvature: Kind of the Hessian, such as positive definite: an index into
        `research.update_rules._second_order.CURVATURES`, int32, shape ().
      evaluations: Number of times that the last update evaluated the objective with its
        gradient, int32, shape (). The Hessian is not counted.
      value_after, grad_after: Objective after the step, shape (), and its gradient
        there, shaped like the params. After a rejected trial, both are those at the
        unchanged params. None if the dtype of a leaf is narrower than float32 or than
        the dtype of another leaf. The leaf is then rounded after the step, which may
        change the objective and its gradient.
    """

    count: Int[Array, ""]
    learning_rate: Float[Array, ""]
    gain: Float[Array, ""]
    outcome: Int[Array, ""]
    curvature: Int[Array, ""]
    evaluations: Int[Array, ""]
    value_after: Params
    grad_after: Params


@checked
def trust_region_newton(
    learning_rate: Scalar = 1.0,
    *,
    max_radius: Scalar = 1000.0,
    acceptance: Scalar = 0.15,
) -> optax.GradientTransformationExtraArgs:
    """Step to the minimum of the quadratic model inside a trust region.

    u_t = p_t, where p_t minimises the model gᵀp + ½ pᵀ H p subject to |p| <= Δ_t. If
    the objective decreases too little (see ρ_t below), the step is rejected: the update
    u_t is 0 instead. g is the gradient, H the Hessian and Δ_t the radius, within which
    the model is trusted. The rule computes p_t from the eigenvalues of H, and therefore
    finds the global minimiser even if H is indefinite.

    Except in the hard case below, the minimiser is p_t = -(H + σ I)⁺ g, where ⁺ is the
    pseudo-inverse. σ is 0 if H is positive semidefinite, and the point -H⁺ g minimises
    the model and lies inside the region. Otherwise σ is the number for which p_t lies
    on the edge of the region and H + σ I is positive semidefinite. The hard case has
    three conditions: the lowest eigenvalue λ is negative, g is orthogonal to the
    eigenvector of λ, and the point -(H
    - λ I)⁺ g lies inside the region. The step then leads to this point, and from there
    along the eigenvector, with an arbitrary sign, to the edge of the region. In this
    way the rule leaves an exact saddle point.

    The ratio ρ_t is the decrease of the objective f divided by the decrease of the
    model. Before the division, ten times the rounding error of f is added to each of
    the two decreases. If both decreases are smaller than the rounding error, ρ_t is
    therefore about 1. The params move if ρ_t > acceptance. The next radius is Δ_t / 4
    if ρ_t < 1/4, and min(2 Δ_t, max_radius) if ρ_t > 3/4 and |p_t| = Δ_t. Otherwise the
    radius does not change. The constants are those of scipy's trust-exact, which solves
    for p_t less exactly. optax and torch do not have this rule.

    Use it if Newton with backtracking fails: at saddle points, in narrow curved
    valleys, and for singular Hessians. Each step costs one eigen-decomposition, which
    takes about n³ operations for n params. The field `gain` of the state contains ρ_t,
    and the field `learning_rate` contains the radius of the next step.

    Args:
      learning_rate: First radius Δ_0, positive; may be traced.
      max_radius: Largest radius to which Δ_t may grow, positive.
      acceptance: Ratio ρ_t above which the params move, in [0, 0.25).
    Returns:
      The rule; its update needs params and value_fn, the objective as a function of the
      params. `research.descent` passes both.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or not a number. Also
        raised by update if a required argument is missing, and by init if the params
        are complex.
    References:
      Nocedal & Wright (2006), algorithm 4.1 and section 4.3 (theorem 4.1 on the exact
      step, the hard case). Moré & Sorensen, Computing a trust region step, SIAM J. Sci.
      Stat. Comput. 4 (1983).
    Example:
      >>> # f has a saddle point at 0, where x starts.
      >>> f = lambda x, indices=None: x[0] ** 2 - x[1] ** 2
      >>> rule, x = trust_region_newton(0.5), jnp.zeros(2)
      >>> updates, state = rule.update(jax.grad(f)(x), rule.init(x), x, value_fn=f)
      >>> print(jnp.abs(updates), state.learning_rate)
      [0.  0.5] 1.0
    """
    check_rate(
        learning_rate,
        positive=True,
        no_schedule="the rate is the first radius; the rule computes the others",
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
        refuse_none(updates, params, "trust_region_newton")
        x, unflatten, f, g, value, hessian = _model(updates, params, value, value_fn)
        radius, finite = state.learning_rate, _finite(value, g, hessian)
        values, vectors = jnp.linalg.eigh(hessian)
        p, shift, curvature = trust_region_step(values, vectors, g, radius)
        promised, slack = -(g @ p) - p @ hessian @ p / 2, value_slack(value)
        there = jax.value_and_grad(f)(x + p)
        kept = value - there[0] + slack
        gain = jnp.where(promised + slack > 0, kept / (promised + slack), 1.0)
        good = gain > cast(acceptance, gain)  # A NaN trial is rejected.
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
    return complete(
        whole, only_real="trust_region_newton", needs_value_fn=True, sees_none=True
    )


def trust_region_step(
    values: Float[Array, " n"],
    vectors: Float[Array, "n n"],
    g: Float[Array, " n"],
    radius: Float[Array, ""],
) -> tuple[Float[Array, " n"], Float[Array, ""], Int[Array, ""]]:
    """Return the minimiser of a quadratic model inside a trust region.

    The model is gᵀp + ½ pᵀ H p, and the region is |p| <= Δ. Let H = V diag(λ) Vᵀ and γ
    = Vᵀg. Outside the hard case (see `trust_region_newton`), the minimiser is p = -V (γ
    / (λ + σ)), with the division entry by entry and 0 / 0 = 0. σ >= 0 is the multiplier
    of the constraint |p| <= Δ.

    Args:
      values: Eigenvalues λ of the Hessian H, in any order, shape (n,).
      vectors: Eigenvectors, the columns of V, shape (n, n).
      g: Gradient, shape (n,).
      radius: Radius Δ > 0, shape ().
    Returns:
      Three results: p, shape (n,); σ, shape (), which is 0 if p is inside the region;
      and the kind of H, an index into `research.update_rules._second_order.CURVATURES`,
      int32.
    """
    eps = jnp.finfo(g.dtype).eps
    lowest, largest = (
        jnp.min(values, initial=jnp.inf),
        jnp.max(jnp.abs(values), initial=0.0),
    )
    above, gamma = values - lowest, vectors.T @ g
    floor = jnp.maximum(lowest, 0.0)

    def coefficients(s: Array):
        return jnp.where(gamma == 0, 0.0, gamma / jnp.where(gamma == 0, 1.0, above + s))

    inside = (lowest > 0) & (jnp.linalg.norm(coefficients(floor)) <= radius)
    s = jnp.where(inside, floor, secular_root(above, gamma, radius, floor))
    c, rounding = coefficients(s), len(g) * eps * largest
    hard = (lowest < -rounding) & (s == 0)
    along = jnp.where(hard, jnp.sqrt(jnp.maximum(radius**2 - c @ c, 0.0)), 0.0)
    p = -(vectors @ c)
    if len(g):
        p += along * jax.lax.dynamic_index_in_dim(
            vectors, jnp.argmin(values), 1, keepdims=False
        )
    flawed = jnp.where(lowest < -rounding, INDEFINITE, SINGULAR)
    curvature = jnp.where(lowest > rounding, DEFINITE, flawed).astype(jnp.int32)
    return p, jnp.where(inside, 0.0, s - lowest), curvature


def _model(
    updates: Params,
    params: Params,
    value: Array | None,
    value_fn: Callable[[Params], Array],
):
    """Return the quadratic model of the objective at the params.

    The results are the params as one vector x, the function that restores their
    structure, the objective as a function of x, the incoming updates as one vector, and
    the value and the Hessian of the objective at x.
    """
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


def _before(value: Array, g: Array, grad: Params | None):
    """Return the objective's value and gradient before the step.

    The gradient is `grad` if this argument is given, and g otherwise. g are the
    incoming updates, which may differ from the gradient, for example if the gradient
    was clipped.
    """
    return value, g if grad is None else flatten(grad)[0].astype(g.dtype)


def _or_nan(finite: Array, after: Params):
    """Return the value and gradient after a step, or NaN if `finite` is False."""
    return jax.tree.map(lambda a: jnp.where(finite, a, jnp.nan), after)


def _finite(*arrays: Array) -> Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(a)) for a in arrays]))


def _check_choice(name: str, value: Any) -> None:
    if value not in WAYS:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, WAYS))}; got {name}={value!r}."
        )


RULES = (RuleEntry(newton, SECOND_ORDER), RuleEntry(trust_region_newton, SECOND_ORDER))
