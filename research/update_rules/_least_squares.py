"""Rules for sums of squares: Gauss-Newton and Levenberg-Marquardt, which see the
residuals and not their sum alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from research.checks import check_number
from research.schedules import Schedule
from research.types import Array, Outcome, Params
from research.update_rules._checks import check_rate, checked, rate_at
from research.update_rules._edges import complete
from research.update_rules._entry import RuleEntry
from research.update_rules._second_order import (
    NOT_FINITE_MATRIX,
    SINGULAR,
    backtrack,
    damped_step,
    flatten,
    kept_after,
    least_squares_step,
    require,
    shaped_like,
)
from research.update_rules._transforms import cast, increment

ResidualFn = Callable[[Params], Any]  # params -> residuals, a pytree of floats


class GaussNewtonState(NamedTuple):
    """What Gauss-Newton keeps.

    Attributes:
      count: Steps asked for, int32, shape ().
      learning_rate: The factor t of the last step, 0 where none was taken, shape ().
      outcome: How the last step ended, an `Outcome`, int32.
      curvature: What JᵀJ was, an index into
        `research.update_rules._second_order.CURVATURES`, int32.
      evaluations: Sums of squares, with their gradients, tried inside the last update,
        int32; the Jacobian is not counted.
      squares_after, squares_grad_after: ½ |r|² and its gradient where the step ended;
        None without a line search, and of params narrower than float32.
    """

    count: Array
    learning_rate: Array
    outcome: Array
    curvature: Array
    evaluations: Array
    squares_after: Params
    squares_grad_after: Params


@checked
def gauss_newton(
    learning_rate: float | Array | Schedule = 1.0,
    *,
    residual_fn: ResidualFn | None = None,
    singular: str = "shortest",
    line_search: bool = True,
    sufficient_decrease: float | Array = 1e-4,
    shrink: float | Array = 0.5,
    max_evaluations: int | Array = 50,
) -> optax.GradientTransformationExtraArgs:
    """Steps to the minimum of the sum of squares of the linearised residuals: u_t = t_t
    h_t, min_h |J_t h + r_t|.

    r_t = r(x_t) and J_t is its Jacobian. h_t comes from a QR factorisation of J, not
    from JᵀJ, whose condition is the square. t_t is the first of η, η s, η s², ... with
    F(x_t + t h_t) <= F(x_t) + c t ∇Fᵀh_t, F = ½ |r|² (Armijo). On linear residuals one
    step is the answer; elsewhere it is fast where the residuals at the minimum are
    small, for it leaves Σ r_i ∇²r_i out of the Hessian. The gradient that comes in is
    not looked at: the objective may be any multiple of |r|². optax and torch have no
    such rule.

    Where a column of J depends on others to rounding (a diagonal entry of R at most m
    eps of its column's length), state tells so, and `singular` says what is done:
    "shortest" takes the shortest h, measured in the columns' lengths; "stop" takes no
    step.

    Use it to fit a curve with few parameters from a good start. From a poor one
    Levenberg-Marquardt is the safer choice.

    Args:
      learning_rate: η, the first trial: a positive number, a traced scalar, or a
        schedule t -> η_t.
      residual_fn: params -> r, a vector or a pytree of them, if the step does not pass
        it.
      singular: "shortest" or "stop".
      line_search: False takes η itself, unseen: Gauss's own method, which may diverge.
      sufficient_decrease: c in [0, 1).
      shrink: s in (0, 1).
      max_evaluations: At most so many sums are tried.
    Returns:
      The rule; its update needs params and, unless it was given above, residual_fn.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number, or update
        lacks what it needs.
    References:
      Gauss, Theoria motus corporum coelestium (1809). Nocedal & Wright (2006), section
      10.3, equation (10.23).
    Example:
      >>> # A line through two points.
      >>> fit = lambda x: x[0] * jnp.array([1.0, 2.0]) + x[1] - jnp.array([1.0, 3.0])
      >>> rule, x = gauss_newton(), jnp.zeros(2)
      >>> updates, state = rule.update(x, rule.init(x), x, residual_fn=fit)
      >>> print(updates.round(5), state.evaluations)
      [ 2. -1.] 1
    """
    check_rate(learning_rate, positive=True)
    if singular not in ("shortest", "stop"):
        raise ValueError(
            f"singular must be 'shortest' or 'stop'; got singular={singular!r}."
        )
    check_number("sufficient_decrease", sufficient_decrease, below=1.0)
    check_number("shrink", shrink, positive=True, below=1.0)
    check_number("max_evaluations", max_evaluations, positive=True, integer=True)
    given = residual_fn

    def init(params: Params):
        x, unflatten = flatten(params)
        count, outcome, curvature, evaluations = (
            jnp.zeros((), jnp.int32) for _ in range(4)
        )  # Apart, to be donated.
        after = (jnp.zeros((), x.dtype), jnp.zeros_like(x))
        after = kept_after(params, unflatten, after) if line_search else (None, None)
        return GaussNewtonState(
            count, jnp.zeros((), x.dtype), outcome, curvature, evaluations, *after
        )

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        residual_fn: Any = None,
        **extra: Any,
    ):
        del extra
        residual_fn = given if residual_fn is None else residual_fn
        require("gauss_newton", params=params, residual_fn=residual_fn)
        x, unflatten, residuals, r, jacobian = _linearised(params, residual_fn)
        h, curvature = least_squares_step(jacobian, r, singular)
        finite = jnp.all(jnp.isfinite(r)) & jnp.all(jnp.isfinite(jacobian))
        t, outcome, evaluations, after = (
            cast(rate_at(learning_rate, state.count), x),
            jnp.int32(Outcome.FOUND),
            jnp.int32(0),
            (None, None),
        )
        if line_search:
            at = lambda t: _squares_and_grad(residuals, x + t * h)
            start = (
                (_half_square(r), r @ jacobian),
                r @ (jacobian @ h),
                _slack(x, r, jacobian),
            )
            found = backtrack(
                at, *start, t, sufficient_decrease, shrink, max_evaluations
            )
            t, outcome, evaluations = found[:3]
            after = kept_after(params, unflatten, found[3])
        if singular == "stop":
            outcome = jnp.where(curvature == SINGULAR, Outcome.SINGULAR, outcome)
        outcome = jnp.where(finite, outcome, Outcome.NOT_FINITE).astype(jnp.int32)
        curvature = jnp.where(finite, curvature, NOT_FINITE_MATRIX).astype(jnp.int32)
        t = jnp.where(outcome == Outcome.FOUND, t, 0.0)
        step = jnp.where(finite, jnp.where(t == 0, 0.0, t * h), jnp.nan)
        state = GaussNewtonState(
            increment(state.count), t, outcome, curvature, evaluations, *after
        )
        return shaped_like(step, unflatten, updates), state

    whole = optax.GradientTransformationExtraArgs(init, update)
    return complete(whole, only_real="gauss_newton", needs_value_fn=True)


class LevenbergMarquardtState(NamedTuple):
    """What Levenberg-Marquardt keeps.

    Attributes:
      count: Steps asked for, int32, shape ().
      learning_rate: Δ, the most that |D h| may be in the next step; before the first,
        η. Shape ().
      scale: D, the greatest length of each column of J so far, shape (n,).
      gain: ρ, the last trial's decrease over what the model promised; x moved if it is
        above 1e-4. NaN before the first step, shape ().
      outcome: An `Outcome`, int32. A trial that is refused is no failure, for the next
        is shorter, until it is below rounding of x: "the step became too small".
      evaluations, squares_after, squares_grad_after: As in GaussNewtonState.
    """

    count: Array
    learning_rate: Array
    scale: Array
    gain: Array
    outcome: Array
    evaluations: Array
    squares_after: Params
    squares_grad_after: Params


@checked
def levenberg_marquardt(
    learning_rate: float | Array = 1.0, *, residual_fn: ResidualFn | None = None
) -> optax.GradientTransformationExtraArgs:
    """Gauss-Newton inside a trust region: u_t = h_t, min |J_t h + r_t| over |D_t h| <=
    Δ_t.

    That is min_h |J h + r|² + μ |D h|², Levenberg's and Marquardt's damping, with μ >=
    0 as the radius wants it (Moré). D is diagonal, each entry the greatest length that
    its column of J has had, so that the rule does not see the units of the parameters.
    h comes from a QR factorisation of J with √μ D below it, not from JᵀJ. With F = ½
    |r|², ρ = (F(x) - F(x + h)) / (½ |J h|² + μ |D h|²) is the decrease over what the
    model promises. x moves if ρ > 1e-4. Δ_0 = η |D x_0| (η if x_0 = 0), and at most |D
    h_0|; then Δ <- |D h| / 10 if ρ < 1/4, 2 |D h| if ρ >= 3/4 or μ = 0.

    The rule is MINPACK's lmder, which scipy's least_squares(method="lm") runs, but for
    three things: μ is exact there to a tenth of Δ and here to rounding; a bad trial
    shrinks Δ there to 0.1 to 0.5 of |D h|; η is 100 there. Decreases below what
    rounding x changes in F, 4 eps |r|ᵀ(|r| + |J| |x|), count as kept promises here, so
    that the last digits are found. The gradient that comes in is not looked at: the
    objective may be any multiple of |r|². optax and torch have no such rule.

    Use it to fit a curve, which is what it was made for. It needs all residuals at
    once: it is no rule for mini-batches. Where the residuals stay large, as in Brown &
    Dennis's problem, the tenth makes it slow: about 650 steps, and 150 with a half,
    which however ends at a saddle of Biggs's EXP6.

    Args:
      learning_rate: η, the first radius in units of |D x_0|, positive; may be traced.
      residual_fn: params -> r, a vector or a pytree of them, if the step does not pass
        it.
    Returns:
      The rule; its update needs params and, unless it was given above, residual_fn.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or no number, or update
        lacks what it needs.
    References:
      Levenberg, A method for the solution of certain non-linear problems in least
      squares, Quart. Appl. Math. 2 (1944).
      Marquardt, An algorithm for least-squares estimation of nonlinear parameters, J.
      SIAM 11 (1963). Moré, The Levenberg-Marquardt algorithm: implementation and
      theory, LNM 630 (1978), algorithm 7.1.
    Example:
      >>> fit = lambda x: x[0] * jnp.array([3.0, 4.0]) - jnp.array([6.0, 8.0])
      >>> rule, x = levenberg_marquardt(), jnp.ones(1)
      >>> updates, state = rule.update(x, rule.init(x), x, residual_fn=fit)
      >>> print(updates.round(5), state.gain.round(5))
      [1.] 1.0
    """
    check_rate(
        learning_rate,
        positive=True,
        no_schedule="it is the first radius; the rule finds the others itself",
    )
    given = residual_fn

    def init(params: Params):
        x, unflatten = flatten(params)
        count, outcome, evaluations = (jnp.zeros((), jnp.int32) for _ in range(3))
        radius, nothing = (
            jnp.array(learning_rate, x.dtype),
            jnp.full((), jnp.nan, x.dtype),
        )
        after = kept_after(
            params, unflatten, (jnp.zeros_like(radius), jnp.zeros_like(x))
        )
        return LevenbergMarquardtState(
            count, radius, 0 * x, nothing, outcome, evaluations, *after
        )

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        residual_fn: Any = None,
        **extra: Any,
    ):
        del extra
        residual_fn = given if residual_fn is None else residual_fn
        require("levenberg_marquardt", params=params, residual_fn=residual_fn)
        x, unflatten, residuals, r, jacobian = _linearised(params, residual_fn)
        finite = jnp.all(jnp.isfinite(r)) & jnp.all(jnp.isfinite(jacobian))
        scale = jnp.maximum(state.scale, jnp.linalg.norm(jacobian, axis=0))
        metric = jnp.where(scale > 0, scale, 1.0)
        reach = jnp.linalg.norm(metric * x)
        first = state.count == 0
        radius = state.learning_rate * jnp.where(first & (reach > 0), reach, 1.0)
        h, damping = damped_step(jacobian, r, metric, radius)
        there = _squares_and_grad(residuals, x + h)
        gain = _gain(there[0], x, r, jacobian, h, damping * jnp.sum((metric * h) ** 2))
        good, length = (
            gain > 1e-4,
            jnp.linalg.norm(metric * h),
        )  # A trial that is NaN is not good.
        wider = jnp.where(
            (gain >= 0.75) | (damping == 0),
            2 * length,
            jnp.where(first, length, radius),
        )
        radius = jnp.where(
            length > 0, jnp.where(gain >= 0.25, wider, length / 10), radius
        )
        stuck = ~good & jnp.all(x + h == x)
        outcome = jnp.where(
            finite,
            jnp.where(stuck, Outcome.STEP_TOO_SMALL, Outcome.FOUND),
            Outcome.NOT_FINITE,
        ).astype(jnp.int32)
        after = jax.tree.map(
            lambda a, b: jnp.where(good, a, b), there, (_half_square(r), r @ jacobian)
        )
        after = kept_after(params, unflatten, after)
        state = LevenbergMarquardtState(
            increment(state.count), radius, scale, gain, outcome, jnp.int32(1), *after
        )
        step = jnp.where(finite, jnp.where(good, h, 0.0), jnp.nan)
        return shaped_like(step, unflatten, updates), state

    whole = optax.GradientTransformationExtraArgs(init, update)
    return complete(whole, only_real="levenberg_marquardt", needs_value_fn=True)


def _gain(
    there: Array, x: Array, r: Array, jacobian: Array, h: Array, held: Array
) -> Array:
    """The decrease of F to that at x + h over ½ |J h|² + held, where less than rounding
    x changes in F is no difference."""
    slack = _slack(x, r, jacobian)
    promised = jnp.sum((jacobian @ h) ** 2) / 2 + held + slack
    kept = _half_square(r) - there + slack
    return jnp.where(promised > 0, kept / promised, 1.0)


def _slack(x: Array, r: Array, jacobian: Array) -> Array:
    """What rounding x and r changes in ½ |r|²."""
    return (
        4
        * jnp.finfo(r.dtype).eps
        * (jnp.abs(r) @ (jnp.abs(r) + jnp.abs(jacobian) @ jnp.abs(x)))
    )


def _linearised(params: Params, residual_fn: ResidualFn):
    """x as one vector, the way back, the residuals as a function of it, their value and
    their Jacobian."""
    x, unflatten = flatten(params)

    def residuals(z):
        return ravel_pytree(residual_fn(unflatten(z)))[0].astype(x.dtype)

    r = residuals(x)
    jacobian = (jax.jacfwd if len(r) >= len(x) else jax.jacrev)(residuals)(x)
    return x, unflatten, residuals, r, jacobian


def _squares_and_grad(residuals, z: Array) -> tuple[Array, Array]:
    """½ |r|² at z, and its gradient Jᵀr."""
    return jax.value_and_grad(lambda z: _half_square(residuals(z)))(z)


def _half_square(r: Array) -> Array:
    return 0.5 * (r @ r)


RULES = (
    RuleEntry(gauss_newton, "it needs residuals", needs="residuals"),
    RuleEntry(levenberg_marquardt, "it needs residuals", needs="residuals"),
)
