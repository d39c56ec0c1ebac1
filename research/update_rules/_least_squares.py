"""Rules for sums of squares: Gauss-Newton and Levenberg-Marquardt.

Both use the individual residuals, not only the sum of their squares.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from research.checks import check_choice, check_number
from research.schedules import Schedule
from research.types import Array, Integer, Outcome, Params, Scalar
from research.update_rules._checks import check_rate, checked, rate_at
from research.update_rules._edges import complete, refuse_none
from research.update_rules._entry import RuleEntry
from research.update_rules._newton import trust_region_step
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
    symmetric_eigen,
)
from research.update_rules._transforms import cast, increment

ResidualFn = Callable[[Params], Any]  # params -> residuals, a pytree of floats
MOST_MISSES = 3  # Successive misses after which the quadratic model is used.


class GaussNewtonState(NamedTuple):
    """State of `gauss_newton`.

    r are the residuals at the params x, and J is their Jacobian.

    Attributes:
      count: Number of calls of update, int32, shape ().
      learning_rate: Step size a of the last step, 0 if no step was taken, shape ().
      outcome: `research.types.Outcome` of the last step, int32, shape ().
      curvature: Kind of the matrix JᵀJ, such as positive definite: an index into
        `research.update_rules._second_order.CURVATURES`, int32.
      evaluations: Number of times that the last update evaluated the sum of squares
        with its gradient, int32. The Jacobian is not counted.
      squares_after, squares_grad_after: Sum ½ |r|² after the step, shape (), and its
        gradient there, shaped like the params. None if there is no line search. Also
        None if the dtype of a leaf is narrower than float32 or than the dtype of
        another leaf. The leaf is then rounded after the step, which may change the sum
        and its gradient.
    """

    count: Int[Array, ""]
    learning_rate: Float[Array, ""]
    outcome: Int[Array, ""]
    curvature: Int[Array, ""]
    evaluations: Int[Array, ""]
    squares_after: Params
    squares_grad_after: Params


@checked
def gauss_newton(
    learning_rate: Scalar | Schedule = 1.0,
    *,
    residual_fn: ResidualFn | None = None,
    singular: str = "shortest",
    line_search: bool = True,
    sufficient_decrease: Scalar = 1e-4,
    shrink: Scalar = 0.5,
    max_evaluations: Integer = 50,
) -> optax.GradientTransformationExtraArgs:
    """Step to the point that minimises the sum of squares of the linearised residuals.

    u_t = a_t h_t, where u_t is the update and h_t minimises |J_t h + r_t|. r_t = r(x_t)
    are the residuals at the params x_t, and J_t is their Jacobian.

    A line search tries the step sizes η, η s, η s² and so on. a_t is the first of them
    that satisfies Armijo's condition, F(x_t + a_t h_t) <= F(x_t) + c a_t ∇F(x_t)ᵀh_t.
    Here F is ½ |r|², η is learning_rate, s is shrink and c is sufficient_decrease. A
    violation by at most the rounding error of F is accepted. If none of the first
    max_evaluations step sizes satisfies the condition, the update is 0.

    h_t is computed from a QR factorisation of J. The matrix JᵀJ is not used, because
    its condition number is the square of that of J. For linear residuals and η = 1, one
    step reaches the minimum. For nonlinear residuals, the rule omits the term
    Σ r_i ∇²r_i of the Hessian of F. If the residuals are small at the minimum, this
    term is small there, and the rule is fast. The rule ignores the incoming gradient,
    so the objective may be any multiple of |r|². optax and torch do not have this rule.

    If a column of J is a linear combination of the other columns, the field `curvature`
    of the state reports a singular matrix, and the argument `singular` chooses the
    step. "shortest" takes the minimiser h with the smallest |D h|, where the diagonal
    matrix D holds the lengths of the columns. "stop" takes no step. With fewer
    residuals than params, some column is always a linear combination of the others.
    Let R be the triangular factor in J = Q R, m the number of residuals and eps the
    machine epsilon. Column j of J counts as a linear combination of the others if
    |R_jj| is at most m eps times the length of the column.

    Use it to fit a curve with few parameters from a good start. From a poor start,
    Levenberg-Marquardt is safer.

    Args:
      learning_rate: First step size η to try. A positive number, a traced scalar, or a
        schedule (number of earlier steps -> η).
      residual_fn: Function from params to residuals r, a vector or a pytree of vectors.
        None means that residual_fn is passed to update instead.
      singular: Kind of step if columns of J are linearly dependent, "shortest" or
        "stop" (see above).
      line_search: Whether to search for the step size. If False, the step size is η,
        and F is not evaluated. With η = 1, this is Gauss's original method, which may
        diverge.
      sufficient_decrease: Constant c in [0, 1).
      shrink: Factor s in (0, 1).
      max_evaluations: Maximum number of step sizes to try in one step, a positive
        integer; may be traced.
    Returns:
      The rule; its update needs params. It also needs residual_fn if the constructor
      did not get this function.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type;
        singular is unknown; update lacks a required argument; in init, the params are
        complex.
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
    check_choice("singular", singular, ("shortest", "stop"))
    check_number("sufficient_decrease", sufficient_decrease, below=1.0)
    check_number("shrink", shrink, positive=True, below=1.0)
    check_number("max_evaluations", max_evaluations, positive=True, integer=True)
    given = residual_fn

    def init(params: Params):
        x, unflatten = flatten(params)
        count, outcome, curvature, evaluations = (
            jnp.zeros((), jnp.int32) for _ in range(4)
        )  # Separate arrays, so that each can be donated.
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
        refuse_none(updates, params, "gauss_newton")
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
    return complete(
        whole, only_real="gauss_newton", needs_value_fn=True, sees_none=True
    )


class LevenbergMarquardtState(NamedTuple):
    """State of `levenberg_marquardt`.

    r are the residuals at the params x, and J is their Jacobian. h is a step, and D a
    diagonal matrix that scales it. A trial is a step that the rule computes, and then
    accepts or rejects.

    Attributes:
      count: Number of calls of update, int32, shape ().
      learning_rate: Radius Δ, the largest |D h| allowed in the next step, shape ().
        Before the first step, the argument learning_rate.
      scale: Largest length of each of the n columns of J so far, shape (n,); 0 before
        the first step. D has these lengths as its diagonal, with 1 in place of 0.
      gain: Ratio ρ of the decrease of ½ |r|² in the last trial to the decrease that the
        model predicted, shape (). x moved if ρ > 1e-4. NaN before the first step.
      misses: Number of misses in a row, at most 3, int32. A miss is a trial for which a
        model with the second derivatives of r would have predicted ½ |r|² much better.
        At 3, the next step uses this model.
      outcome: `research.types.Outcome` of the last step, int32, shape (). A rejected
        trial is not a failure, because the next trial is shorter. The outcome is "the
        step became too small" if a rejected trial is so small that adding it does not
        change x.
      evaluations: Number of times that the last update evaluated the sum of squares
        with its gradient, int32: 0 before the first update, and 1 after each update.
      squares_after, squares_grad_after: Sum ½ |r|² after the step, shape (), and its
        gradient there, shaped like the params. None if the dtype of a leaf is narrower
        than float32 or than the dtype of another leaf. The leaf is then rounded after
        the step, which may change the sum and its gradient.
    """

    count: Int[Array, ""]
    learning_rate: Float[Array, ""]
    scale: Float[Array, " n"]
    gain: Float[Array, ""]
    misses: Int[Array, ""]
    outcome: Int[Array, ""]
    evaluations: Int[Array, ""]
    squares_after: Params
    squares_grad_after: Params


@checked
def levenberg_marquardt(
    learning_rate: Scalar = 1.0, *, residual_fn: ResidualFn | None = None
) -> optax.GradientTransformationExtraArgs:
    """Take a Gauss-Newton step inside a trust region.

    u_t = h_t, where h_t minimises |J_t h + r_t| subject to |D_t h| <= Δ_t. If the step
    is rejected, the update u_t is 0 instead. x_t are the params, r_t = r(x_t) are the
    residuals, J_t is their Jacobian and Δ_t is the radius of the trust region. D_t is
    diagonal. Its entry j is the largest length that column j of J had at any step so
    far, or 1 if all these lengths are 0. The rule therefore does not depend on the
    units of the parameters. Equivalently, h_t minimises |J h + r|² + μ |D h|², where
    the radius determines the damping μ >= 0 (Moré). h is computed from a QR
    factorisation of J with √μ D below it. The matrix JᵀJ is not used.

    Each call of update is one trial: a step h is computed, and then accepted or
    rejected. Let F = ½ |r|². The ratio ρ = (F(x) - F(x + h)) / (½ |J h|² + μ |D h|²)
    compares the decrease of F with the decrease that the linearised residuals predict.
    If ρ > 1e-4, the step is accepted. The state stores ρ as `gain`.

    Let η be learning_rate. The first radius is Δ_0 = η |D x_0|, or η if x_0 = 0. If ρ <
    1/4, the next radius is |D h| / 10. If ρ >= 3/4, or if ρ >= 1/4 and μ = 0, the next
    radius is 2 |D h|. In all other cases, the next radius is |D h| at the first trial,
    and Δ_t at a later trial.

    If the residuals stay large, the rule described so far would take many small steps,
    because JᵀJ lacks the term Σ r_i ∇²r_i of the Hessian of F. Each trial therefore
    compares two predictions of F(x) - F(x + h). The linear model of r predicts
    a = -gᵀh - ½ |J h|², with g = Jᵀr. The quadratic model of F predicts
    a - ½ Σ r_i hᵀ∇²r_i h. The error of a model is the absolute difference between its
    prediction and F(x) - F(x + h). A trial is a miss if the linear model's error is
    above |a| / 10 and above ten times the quadratic model's error. After three misses
    in a row, the rule changes to the quadratic model. Then h minimises this model
    subject to |D h| <= Δ, as in `trust_region_newton`, and the denominator of ρ is the
    prediction of this model. The rule returns to the linear model after a trial in
    which the linear model's error is above |a| / 10 and the quadratic model's error is
    even larger.

    The rule differs in five points from MINPACK's lmder, which scipy's
    least_squares(method="lm") runs. First, this rule computes μ to full precision,
    while MINPACK accepts a μ for which |D h| differs from Δ by at most Δ / 10. Second,
    after a trial with ρ <= 1/4, MINPACK multiplies the smaller of Δ and 10 |D h| by a
    factor between 0.1 and 0.5. Third, MINPACK's η is 100. Fourth, MINPACK never uses
    the quadratic model. Fifth, this rule adds the rounding error of F to the numerator
    and to the denominator of ρ. If the changes of F are much smaller than this error, ρ
    is near 1 and the step is accepted, so the last digits of x converge. The rounding
    error is estimated as 4 eps |r|ᵀ(|r| + |J| |x|), where eps is the machine epsilon
    and |.| takes the absolute value of each entry.

    The rule ignores the incoming gradient, so the objective may be any multiple of
    |r|². optax and torch do not have this rule.

    Use it to fit curves. The rule needs all residuals at once and does not work with
    mini-batches.

    Args:
      learning_rate: First radius η in units of |D x_0|, positive; may be traced.
      residual_fn: Function from params to residuals r, a vector or a pytree of vectors.
        None means that residual_fn is passed to update instead.
    Returns:
      The rule; its update needs params. It also needs residual_fn if the constructor
      did not get this function.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type;
        update lacks a required argument; in init, the params are complex.
    References:
      Levenberg, A method for the solution of certain non-linear problems in least
      squares, Quart. Appl. Math. 2 (1944).
      Marquardt, An algorithm for least-squares estimation of nonlinear parameters, J.
      SIAM 11 (1963). Moré, The Levenberg-Marquardt algorithm: implementation and
      theory, LNM 630 (1978), algorithm 7.1.
      Dennis, Gay & Welsch, An adaptive nonlinear least-squares algorithm, ACM TOMS 7
      (1981), section 3 (the model that predicts better is used).
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
        no_schedule="the rate is the first radius; the rule computes the others",
    )
    given = residual_fn

    def init(params: Params):
        x, unflatten = flatten(params)
        count, misses, outcome, evaluations = (
            jnp.zeros((), jnp.int32) for _ in range(4)
        )
        radius, nothing = (
            jnp.array(learning_rate, x.dtype),
            jnp.full((), jnp.nan, x.dtype),
        )
        after = kept_after(
            params, unflatten, (jnp.zeros_like(radius), jnp.zeros_like(x))
        )
        return LevenbergMarquardtState(
            count, radius, 0 * x, nothing, misses, outcome, evaluations, *after
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
        refuse_none(updates, params, "levenberg_marquardt")
        x, unflatten, residuals, r, jacobian = _linearised(params, residual_fn)
        finite = jnp.all(jnp.isfinite(r)) & jnp.all(jnp.isfinite(jacobian))
        scale = jnp.maximum(state.scale, jnp.linalg.norm(jacobian, axis=0))
        metric = jnp.where(scale > 0, scale, 1.0)
        reach = jnp.linalg.norm(metric * x)
        first = state.count == 0
        radius = state.learning_rate * jnp.where(first & (reach > 0), reach, 1.0)
        quadratic = state.misses >= MOST_MISSES
        h, damping = jax.lax.cond(
            quadratic,
            lambda: _quadratic_step(residuals, x, r, r @ jacobian, metric, radius),
            lambda: damped_step(jacobian, r, metric, radius),
        )
        there = _squares_and_grad(residuals, x + h)
        slack, decrease = _slack(x, r, jacobian), _half_square(r) - there[0]
        squares = jnp.sum((jacobian @ h) ** 2) / 2
        linear = -(r @ (jacobian @ h)) - squares
        error = jnp.abs(decrease - linear)
        off = error > 10 * slack + jnp.abs(linear) / 10
        bend = jax.lax.cond(
            quadratic | off,
            lambda: _bend(residuals, x, r, h),
            lambda: jnp.zeros_like(slack),
        )
        other = jnp.abs(decrease - linear + bend)
        misses = _next_misses(state.misses, quadratic, off, error, other)
        held = damping * jnp.sum((metric * h) ** 2)
        promised = jnp.where(quadratic, linear - bend, squares + held) + slack
        gain = jnp.where(promised > 0, (decrease + slack) / promised, 1.0)
        good = gain > 1e-4  # A NaN trial is rejected.
        length = jnp.linalg.norm(metric * h)
        radius = _next_radius(radius, length, gain, damping, first)
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
            increment(state.count),
            radius,
            scale,
            gain,
            misses,
            outcome,
            jnp.int32(1),
            *after,
        )
        step = jnp.where(finite, jnp.where(good, h, 0.0), jnp.nan)
        return shaped_like(step, unflatten, updates), state

    whole = optax.GradientTransformationExtraArgs(init, update)
    return complete(
        whole, only_real="levenberg_marquardt", needs_value_fn=True, sees_none=True
    )


def _next_misses(
    misses: Array, quadratic: Array, off: Array, linear: Array, other: Array
) -> Int[Array, ""]:
    """Return the number of misses in a row after a trial.

    Args:
      misses: Number of misses before the trial.
      quadratic: Whether the trial used the quadratic model.
      off: Whether the linear model's error is large.
      linear, other: Errors of the linear and of the quadratic model.
    """
    stays = jnp.where(quadratic & ~(off & (other > linear)), MOST_MISSES, 0)
    missed = jnp.minimum(misses + 1, MOST_MISSES)
    return jnp.where(off & (10 * other < linear), missed, stays).astype(jnp.int32)


def _next_radius(
    radius: Array, length: Array, gain: Array, damping: Array, first: Array
) -> Float[Array, ""]:
    """Return the radius after a trial with the given length |D h| and gain.

    `first` says whether the trial is the first. If the length is 0, the radius stays.
    """
    wider = jnp.where(
        (gain >= 0.75) | (damping == 0), 2 * length, jnp.where(first, length, radius)
    )
    return jnp.where(length > 0, jnp.where(gain >= 0.25, wider, length / 10), radius)


def _quadratic_step(
    residuals: Callable[[Array], Array],
    x: Array,
    r: Array,
    g: Array,
    metric: Array,
    radius: Array,
) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    """Return the h with |D h| <= Δ that minimises F's quadratic model, and the damping.

    F is ½ |r|², the diagonal of D is `metric`, and Δ is `radius`.
    """
    hessian = _again(x, r)(jax.grad(lambda z: _half_square(residuals(z))))(x)
    scaled = hessian / metric[:, None] / metric[None]
    p, shift, _ = trust_region_step(*symmetric_eigen(scaled), g / metric, radius)
    return p / metric, shift


def _bend(
    residuals: Callable[[Array], Array], x: Array, r: Array, h: Array
) -> Float[Array, ""]:
    """Return ½ Σ r_i hᵀ∇²r_i h, by which the two models of F(x + h) differ."""
    along = lambda t: r @ residuals(x + t * h)
    return _again(x, r)(jax.grad(along))(jnp.zeros((), x.dtype)) / 2


def _again(x: Array, r: Array) -> Callable[..., Callable[[Array], Array]]:
    """Return jax.jacfwd if r is at least as long as x, and otherwise jax.jacrev."""
    return jax.jacfwd if len(r) >= len(x) else jax.jacrev


def _slack(x: Array, r: Array, jacobian: Array) -> Array:
    """Return by how much rounding errors of x and r may change ½ |r|²."""
    return (
        4
        * jnp.finfo(r.dtype).eps
        * (jnp.abs(r) @ (jnp.abs(r) + jnp.abs(jacobian) @ jnp.abs(x)))
    )


def _linearised(params: Params, residual_fn: ResidualFn):
    """Return the flat params and the residuals with their Jacobian.

    The results are x as one vector, the function that restores its structure, the
    residuals as a function of x, their value and their Jacobian.
    """
    x, unflatten = flatten(params)

    def residuals(z: Array):
        return ravel_pytree(residual_fn(unflatten(z)))[0].astype(x.dtype)

    r = residuals(x)
    jacobian = _again(x, r)(residuals)(x)
    r, jacobian = jax.lax.optimization_barrier((r, jacobian))
    return x, unflatten, residuals, r, jacobian


def _squares_and_grad(
    residuals: Callable[[Array], Array], z: Array
) -> tuple[Array, Array]:
    """Return ½ |r|² at z and its gradient Jᵀr."""
    return jax.value_and_grad(lambda z: _half_square(residuals(z)))(z)


def _half_square(r: Array) -> Array:
    return 0.5 * (r @ r)


RULES = (
    RuleEntry(gauss_newton, "it needs residuals", needs="residuals"),
    RuleEntry(levenberg_marquardt, "it needs residuals", needs="residuals"),
)
