"""Rules for sums of squares: Gauss-Newton and Levenberg-Marquardt, which see the residuals and not their sum alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from research.schedules import check_number
from research.types import Array, Params
from research.update_rules.building_blocks import cast, increment
from research.update_rules.outcomes import FOUND, NOT_FINITE, STEP_TOO_SMALL
from research.update_rules.outcomes import SINGULAR as MATRIX_SINGULAR
from research.update_rules.second_order import (
    DEFINITE,
    NOT_FINITE_MATRIX,
    SINGULAR,
    backtrack,
    flatten,
    require,
    shaped_like,
    value_slack,
    working_dtype,
)

ResidualFn = Callable[[Params], Any]  # params -> residuals, a pytree of floats


class GaussNewtonState(NamedTuple):
    """What Gauss-Newton keeps.

    Attributes:
      count: Steps asked for, int32, shape ().
      learning_rate: The factor t of the last step, 0 where none was taken, shape ().
      outcome: How the last step ended, an index into `research.update_rules.outcomes.OUTCOMES`, int32.
      curvature: What JᵀJ was, an index into `research.update_rules.second_order.CURVATURES`, int32.
      evaluations: Sums of squares tried inside the last update, int32; the Jacobian is not counted.
    """

    count: Array
    learning_rate: Array
    outcome: Array
    curvature: Array
    evaluations: Array


def gauss_newton(
    learning_rate: float | Array = 1.0,
    *,
    residual_fn: ResidualFn | None = None,
    singular: str = "shortest",
    line_search: bool = True,
    sufficient_decrease: float | Array = 1e-4,
    shrink: float | Array = 0.5,
    max_evaluations: int | Array = 50,
) -> optax.GradientTransformationExtraArgs:
    """Steps to the minimum of the sum of squares of the linearised residuals: u_t = t_t h_t, min_h |J_t h + r_t|.

    r_t = r(x_t) and J_t is its Jacobian. h_t comes from a QR factorisation of J, not from JᵀJ, whose condition is the
    square. t_t is the first of η, η s, η s², ... with F(x_t + t h_t) <= F(x_t) + c t ∇Fᵀh_t, F = ½ |r|² (Armijo). On
    linear residuals one step is the answer; elsewhere it is fast where the residuals at the minimum are small, for it
    leaves Σ r_i ∇²r_i out of the Hessian. The gradient that comes in is not looked at: the objective may be any
    multiple of |r|². optax and torch have no such rule.

    Where a column of J depends on others to rounding (a diagonal entry of R at most m eps of its column's length), state
    tells so, and `singular` says what is done: "shortest" takes the shortest h, measured in the columns' lengths;
    "stop" takes no step.

    Use it to fit a curve with few parameters from a good start. From a poor one Levenberg-Marquardt is the safer choice.

    Args:
      learning_rate: η, the first trial, positive; may be traced.
      residual_fn: params -> r, a vector or a pytree of them, if the step does not pass it.
      singular: "shortest" or "stop".
      line_search: False takes η itself, unseen: Gauss's own method, which may diverge.
      sufficient_decrease: c in [0, 1).
      shrink: s in (0, 1).
      max_evaluations: At most so many sums are tried.
    Returns:
      The rule; its update needs params and, unless it was given above, residual_fn.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number, or update lacks what it needs.
    References:
      Gauss, Theoria motus corporum coelestium (1809). Nocedal & Wright (2006), section 10.3, equation (10.23).
    Example:
      >>> fit = lambda x: x[0] * jnp.array([1.0, 2.0]) + x[1] - jnp.array([1.0, 3.0])  # A line through two points.
      >>> rule, x = gauss_newton(), jnp.zeros(2)
      >>> updates, state = rule.update(x, rule.init(x), x, residual_fn=fit)
      >>> print(updates.round(5), state.evaluations)
      [ 2. -1.] 1
    """
    check_number("learning_rate", learning_rate, positive=True)
    if singular not in ("shortest", "stop"):
        raise ValueError(f"singular must be 'shortest' or 'stop'; got singular={singular!r}.")
    check_number("sufficient_decrease", sufficient_decrease, below=1.0)
    check_number("shrink", shrink, positive=True, below=1.0)
    check_number("max_evaluations", max_evaluations, positive=True, integer=True)
    given = residual_fn

    def init(params):
        zero, none = jnp.zeros((), working_dtype(params)), jnp.zeros((), jnp.int32)
        return GaussNewtonState(none, zero, none, none, none)

    def update(updates, state, params=None, *, residual_fn: Any = None, **extra):
        del extra
        residual_fn = given if residual_fn is None else residual_fn
        require("gauss_newton", params=params, residual_fn=residual_fn)
        x, unflatten, residuals, r, jacobian = _linearised(params, residual_fn)
        h, curvature = least_squares_step(jacobian, r, singular)
        finite = jnp.all(jnp.isfinite(r)) & jnp.all(jnp.isfinite(jacobian))
        t, outcome, evaluations = cast(learning_rate, x), jnp.int32(FOUND), jnp.int32(0)
        if line_search:
            at = lambda t: _half_square(residuals(x + t * h))
            slope = r @ (jacobian @ h)
            t, outcome, evaluations = backtrack(
                at, _half_square(r), slope, t, sufficient_decrease, shrink, max_evaluations
            )
        if singular == "stop":
            outcome = jnp.where(curvature == SINGULAR, MATRIX_SINGULAR, outcome)
        outcome = jnp.where(finite, outcome, NOT_FINITE).astype(jnp.int32)
        curvature = jnp.where(finite, curvature, NOT_FINITE_MATRIX).astype(jnp.int32)
        t = jnp.where(outcome == FOUND, t, 0.0)
        step = jnp.where(finite, jnp.where(t == 0, 0.0, t * h), jnp.nan)
        state = GaussNewtonState(increment(state.count), t, outcome, curvature, evaluations)
        return shaped_like(step, unflatten, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def least_squares_step(jacobian: Array, r: Array, singular: str) -> tuple[Array, Array]:
    """The h that minimises |J h + r|, by QR.

    Args:
      jacobian: J, shape (m, n).
      r: Shape (m,).
      singular: What is done where columns depend on each other: "shortest" or "stop", as in `gauss_newton`.
    Returns:
      h, shape (n,), and an index into CURVATURES, int32: DEFINITE or SINGULAR.
    Example:
      >>> h, _ = least_squares_step(jnp.array([[1.0, 1.0], [1.0, 1.0]]), jnp.array([-2.0, -2.0]), "shortest")
      >>> print(h.round(5))
      [1. 1.]
    """
    (m, n), eps = jacobian.shape, jnp.finfo(jacobian.dtype).eps
    lengths = jnp.linalg.norm(jacobian, axis=0)

    def by_singular_values():
        if singular == "stop":
            return 0 * (r @ jacobian), jnp.int32(SINGULAR)
        scale = jnp.where(lengths > 0, lengths, 1.0)
        u, s, v = jnp.linalg.svd(jacobian / scale[None], full_matrices=False)
        inverse = jnp.where(s > max(m, n) * eps * jnp.max(s, initial=0.0), 1 / s, 0.0)
        return -(v.T @ (inverse * (u.T @ r))) / scale, jnp.int32(SINGULAR)

    if m < n:
        return by_singular_values()
    q, upper = jnp.linalg.qr(jacobian)
    full = jnp.all(jnp.abs(jnp.diagonal(upper)) > m * eps * lengths)

    def by_qr():
        return -jax.scipy.linalg.solve_triangular(upper, q.T @ r), jnp.int32(DEFINITE)

    return jax.lax.cond(full, by_qr, by_singular_values)


class LevenbergMarquardtState(NamedTuple):
    """What Levenberg-Marquardt keeps.

    Attributes:
      count: Steps asked for, int32, shape ().
      damping: μ of the next step, shape ().
      growth: ν, what μ is multiplied by if the next trial fails, shape ().
      scale: D, the greatest length of each column of J so far, shape (n,).
      gain: The ratio of the last trial's decrease to what the model promised; x moved if it is above 0. NaN before the
        first step, shape ().
      outcome: An index into `research.update_rules.outcomes.OUTCOMES`, int32. A trial that is refused is no failure,
        for the next is shorter, until it is below rounding of x: "the step became too small".
      evaluations: Sums of squares tried inside the last update, int32; the Jacobian is not counted.
    """

    count: Array
    damping: Array
    growth: Array
    scale: Array
    gain: Array
    outcome: Array
    evaluations: Array


def levenberg_marquardt(
    learning_rate: float | Array = 1.0,
    *,
    residual_fn: ResidualFn | None = None,
    damping: float | Array = 1e-3,
) -> optax.GradientTransformationExtraArgs:
    """Gauss-Newton, held back where the residuals are not linear: u_t = η h_t, min_h |J_t h + r_t|² + μ_t |D_t h|².

    D_t is diagonal, each entry the greatest length that its column of J has had (Moré; MINPACK's scaling), so that the
    rule does not see the units of the parameters. h_t comes from a QR factorisation of J with √μ D below it, not from
    JᵀJ. With F = ½ |r|², ρ = (F(x) - F(x + η h)) / ((η - η²/2) |J h|² + η μ |D h|²), the decrease over what the model
    promises, says how it goes on (Nielsen): if ρ > 0, x moves, μ <- μ max(1/3, 1 - (2ρ - 1)³) and ν <- 2; if not, x
    stays, μ <- μ ν and ν <- 2 ν. MINPACK bounds |D h| instead, and looks for the μ that meets the bound. Decreases below
    rounding of F count as kept promises. The gradient that comes in is not looked at: the objective may be any multiple
    of |r|². optax and torch have no such rule; scipy's least_squares(method="lm") is MINPACK's.

    Use it to fit a curve, which is what it was made for. It needs all residuals at once: it is no rule for mini-batches.

    Args:
      learning_rate: η, a factor on each step, positive; 1 is the method. May be traced.
      residual_fn: params -> r, a vector or a pytree of them, if the step does not pass it.
      damping: μ_0, positive; may be traced. Smaller trusts the first step more.
    Returns:
      The rule; its update needs params and, unless it was given above, residual_fn.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number, or update lacks what it needs.
    References:
      Marquardt, An algorithm for least-squares estimation of nonlinear parameters, J. SIAM 11 (1963). Moré, The
      Levenberg-Marquardt algorithm: implementation and theory, LNM 630 (1978), section 6 on scaling. Nielsen, Damping
      parameter in Marquardt's method, IMM-REP-1999-05, equation (2.5). Madsen, Nielsen & Tingleff, Methods for
      non-linear least squares problems (2004), algorithm 3.16.
    Example:
      >>> fit = lambda x: x[0] * jnp.array([1.0, 2.0]) - jnp.array([2.0, 4.0])
      >>> rule, x = levenberg_marquardt(damping=1.0), jnp.zeros(1)
      >>> updates, state = rule.update(x, rule.init(x), x, residual_fn=fit)
      >>> print(updates.round(5), state.gain)
      [1.] 1.0
    """
    check_number("learning_rate", learning_rate, positive=True)
    check_number("damping", damping, positive=True)
    given = residual_fn

    def init(params):
        x, none = flatten(params)[0], jnp.zeros((), jnp.int32)
        first, nothing = jnp.asarray(damping, x.dtype), jnp.asarray(jnp.nan, x.dtype)
        return LevenbergMarquardtState(none, first, jnp.full_like(first, 2.0), 0 * x, nothing, none, none)

    def update(updates, state, params=None, *, residual_fn: Any = None, **extra):
        del extra
        residual_fn = given if residual_fn is None else residual_fn
        require("levenberg_marquardt", params=params, residual_fn=residual_fn)
        x, unflatten, residuals, r, jacobian = _linearised(params, residual_fn)
        finite = jnp.all(jnp.isfinite(r)) & jnp.all(jnp.isfinite(jacobian))
        scale = jnp.maximum(state.scale, jnp.linalg.norm(jacobian, axis=0))
        h = damped_step(jacobian, r, state.damping, jnp.where(scale > 0, scale, 1.0))
        factor = cast(learning_rate, x)
        bend, hold = jnp.sum((jacobian @ h) ** 2), state.damping * jnp.sum((scale * h) ** 2)
        promised, value = (factor - factor**2 / 2) * bend + factor * hold, _half_square(r)
        slack = value_slack(value)
        kept = value - _half_square(residuals(x + factor * h)) + slack
        gain = jnp.where(promised + slack > 0, kept / (promised + slack), 1.0)
        good = gain > 0  # A trial that is NaN is not good.
        better = state.damping * jnp.maximum(1 / 3, 1 - (2 * gain - 1) ** 3)
        stuck = ~good & jnp.all(x + factor * h == x)
        moved = LevenbergMarquardtState(
            increment(state.count),
            jnp.where(good, better, state.damping * state.growth),
            jnp.where(good, 2.0, 2 * state.growth).astype(x.dtype),
            scale,
            gain,
            jnp.where(finite, jnp.where(stuck, STEP_TOO_SMALL, FOUND), NOT_FINITE).astype(jnp.int32),
            jnp.int32(1),
        )
        step = jnp.where(finite, jnp.where(good, factor * h, 0.0), jnp.nan)
        return shaped_like(step, unflatten, updates), moved

    return optax.GradientTransformationExtraArgs(init, update)


def damped_step(jacobian: Array, r: Array, damping: Array, scale: Array) -> Array:
    """The h that minimises |J h + r|² + μ |D h|², by QR of J with √μ D below it."""
    n = jacobian.shape[1]
    q, upper = jnp.linalg.qr(jnp.concatenate([jacobian, jnp.diag(jnp.sqrt(damping) * scale)]))
    return -jax.scipy.linalg.solve_triangular(upper, q[: len(r)].T @ r) if n else jnp.zeros(0, r.dtype)


def _linearised(params: Params, residual_fn: ResidualFn):
    """x as one vector, the way back, the residuals as a function of it, their value and their Jacobian."""
    x, unflatten = flatten(params)

    def residuals(z):
        return ravel_pytree(residual_fn(unflatten(z)))[0].astype(x.dtype)

    r = residuals(x)
    jacobian = (jax.jacfwd if len(r) >= len(x) else jax.jacrev)(residuals)(x)
    return x, unflatten, residuals, r, jacobian


def _half_square(r: Array) -> Array:
    return 0.5 * (r @ r)
