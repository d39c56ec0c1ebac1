"""Line searches: find a step size along a direction.

Each search is a pure function of value_fn on pytrees, compiled to a single loop.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from research.checks import check_number
from research.types import Array, Integer, Outcome, Params, Scalar
from research.update_rules._second_order import value_slack
from research.update_rules._transforms import cast, differ, reached


class LineSearch(NamedTuple):
    """Result of a line search.

    f is the objective, x are the params at the start of the search, and d is the
    direction.

    Attributes:
      step: Step size a, shape (); 0 if the search failed.
      value: Value f(x + a d), shape ().
      slope: Derivative of f(x + a d) with respect to a, shape (). `backtracking`
        computes no gradients, so it knows this derivative only at a = 0. After a
        successful `backtracking`, the slope is therefore NaN.
      grad: Gradient of f at x + a d, shaped like the params. After a failed search,
        this is the gradient at x. None after `backtracking`.
      evaluations: Number of evaluations of f, with or without its gradient, int32,
        shape (). The value and gradient that are passed to the search do not count.
      outcome: `research.types.Outcome` of the search, int32, shape ().
    """

    step: Float[Array, ""]
    value: Float[Array, ""]
    slope: Float[Array, ""]
    grad: Params | None
    evaluations: Int[Array, ""]
    outcome: Int[Array, ""]


ValueFn = Callable[[Params], Array]


def backtracking(
    value_fn: ValueFn,
    params: Params,
    direction: Params,
    value: Float[Array, ""],
    grad: Params,
    first_step: Scalar = 1.0,
    *,
    sufficient_decrease: Scalar = 1e-4,
    shrink: Scalar = 0.5,
    max_evaluations: Integer = 50,
) -> LineSearch:
    """Return the first step size that satisfies Armijo's condition.

    The step sizes tried are a_0, ρ a_0, ρ² a_0, ..., where a_0 is first_step and ρ is
    shrink. The condition on a step size a is f(x + a d) <= f(x) + c a <∇f(x), d>, where
    x is params, d is direction and c is sufficient_decrease. f is the objective
    value_fn. The search evaluates only values of f, not gradients. The search fails if
    a becomes so small that x + a d equals x after rounding.

    Args:
      value_fn: Objective f, a function from params to a number of shape ().
      params, direction: Point x and direction d, pytrees of the same structure.
      value, grad: Value f(x) and gradient ∇f(x).
      first_step: First step size a_0, positive.
      sufficient_decrease: Constant c in (0, 1).
      shrink: Factor ρ in (0, 1).
      max_evaluations: Maximum number of values to evaluate.
    Returns:
      The LineSearch. Its outcome is a failure and its step is 0 if d is not a descent
      direction, if f(x) or <∇f(x), d> is not finite, or if no step size is accepted.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type.
    References:
      Armijo, Minimization of functions having Lipschitz continuous first partial
      derivatives, Pacific J. Math. 16 (1966). Nocedal & Wright, Numerical Optimization,
      2nd ed., algorithm 3.1.
    Example:
      >>> x = jnp.array([3.0])
      >>> found = backtracking(
      ...     lambda x: jnp.sum(x**2), x, -2 * x, jnp.array(9.0), 2 * x, 2.0
      ... )
      >>> print(found.step, found.value, found.evaluations)
      0.5 0.0 3
    """
    check_number("first_step", first_step, positive=True)
    check_number("sufficient_decrease", sufficient_decrease, below=1.0, positive=True)
    check_number("shrink", shrink, below=1.0, positive=True)
    check_number("max_evaluations", max_evaluations, positive=True, integer=True)
    slope = inner(grad, direction)

    def going_on(search: tuple[Array, ...]):
        _, _, evaluations, outcome = search
        return (
            (outcome != Outcome.FOUND)
            & (outcome != Outcome.STEP_TOO_SMALL)
            & ~reached(evaluations, max_evaluations)
            & startable
        )

    def trial(search: tuple[Array, ...]):
        step, _, evaluations, _ = search
        step = jnp.where(evaluations == 0, step, cast(shrink, step) * step)
        there = along(params, direction, step)
        found = value_fn(there)
        enough = found <= value + cast(sufficient_decrease, value) * step * slope
        stuck = ~differ(there, params)
        outcome = jnp.where(
            stuck,
            Outcome.STEP_TOO_SMALL,
            jnp.where(enough, Outcome.FOUND, Outcome.EVALUATIONS_USED_UP),
        )
        return step, found, evaluations + 1, outcome.astype(jnp.int32)

    outcome = _before(value, slope)
    startable = outcome == Outcome.EVALUATIONS_USED_UP
    start = (cast(first_step, value), value, jnp.zeros((), jnp.int32), outcome)
    step, found, evaluations, outcome = jax.lax.while_loop(going_on, trial, start)
    failed = outcome >= Outcome.FIRST_FAILURE
    step = jnp.where(failed, 0.0, step).astype(step.dtype)
    slope = jnp.where(failed, slope, jnp.nan).astype(slope.dtype)
    return LineSearch(
        step, jnp.where(failed, value, found), slope, None, evaluations, outcome
    )


class _Point(NamedTuple):
    """Point on the search line: a, φ(a) and φ'(a), with φ(a) = f(x + a d)."""

    step: Float[Array, ""]
    value: Float[Array, ""]
    slope: Float[Array, ""]


class _Bracket(NamedTuple):
    """State of the loop of strong_wolfe.

    Attributes:
      low: Best point so far with sufficient decrease. φ decreases from low towards
        high.
      high: Other end of the bracket. Its step is inf until an upper bound is found.
      trial: Next step size to try.
      grad: Gradient of f at low, shaped like the params.
      evaluations, outcome: As in LineSearch. The outcome is Outcome.EVALUATIONS_USED_UP
        while the search continues.
    """

    low: _Point
    high: _Point
    trial: Array
    grad: Params
    evaluations: Int[Array, ""]
    outcome: Int[Array, ""]


def strong_wolfe(
    value_fn: ValueFn,
    params: Params,
    direction: Params,
    value: Float[Array, ""],
    grad: Params,
    first_step: Scalar = 1.0,
    *,
    sufficient_decrease: Scalar = 1e-4,
    curvature: Scalar = 0.9,
    max_evaluations: Integer = 30,
) -> LineSearch:
    """Return a step size that satisfies the strong Wolfe conditions.

    The conditions on the step size a are φ(a) <= φ(0) + c1 a φ'(0) and |φ'(a)| <= c2
    |φ'(0)|, where φ(a) = f(x + a d), f is value_fn, x is params, d is direction, c1 is
    sufficient_decrease and c2 is curvature. The conditions require a sufficient
    decrease and a sufficiently flat slope.

    The search is Nocedal & Wright's bracketing and zooming in a single loop, with one
    value and gradient per iteration. A trial is a step size that the search tries, and
    a bracket is an interval that contains acceptable step sizes. Before a bracket is
    found, the next trial is the minimiser of the cubic that has the values and slopes
    of φ at the last two trials. The start a = 0 counts as a trial. Let h be the
    distance between the last two trials. The next trial is kept between 1.1 h and 4 h
    beyond the last trial. If the cubic has no minimiser beyond the last trial, the next
    trial is 4 h beyond the last trial. In a bracket, the next trial is the minimiser of
    the cubic that has the values and slopes of φ at both ends. This trial is kept at
    least a tenth of the bracket's length away from both ends. If the cubic has no
    minimiser, the trial is the middle of the bracket. If the values of φ at the two
    points differ by no more than their rounding error, a parabola with the two slopes
    takes the place of the cubic. If the value or the slope at a trial is not finite,
    the trial becomes an end of the bracket.

    Close to a minimum, the values of f differ by less than their rounding errors, so
    rounding errors decide the first condition. The decrease therefore also counts as
    sufficient if two other conditions hold: φ(a) is at most φ(0) plus the rounding
    error, and φ'(a) <= (2 c1 - 1) φ'(0) (Hager & Zhang). The rounding error is taken as
    10 eps |φ(0)|, where eps is the machine epsilon.

    optax's zoom line search also uses the strong Wolfe conditions. torch's strong_wolfe
    is the same search with other safeguards.

    Args:
      value_fn: Objective f, a function from params to a number of shape ().
      params, direction: Point x and direction d, pytrees of the same structure.
      value, grad: Value f(x) and gradient ∇f(x).
      first_step: First step size a to try, positive.
      sufficient_decrease: Constant c1 in (0, 1/2).
      curvature: Constant c2 in (c1, 1): 0.9 for Newton and quasi-Newton directions, 0.1
        for conjugate gradients.
      max_evaluations: Maximum number of values with gradients to evaluate.
    Returns:
      The LineSearch. If the search fails, its step is 0. The evaluations may run out,
      or the bracket may become too short, before the slope is flat enough. The best
      step size with sufficient decrease is then accepted if it reduces f by more than
      the rounding error of f, and the outcome is Outcome.DECREASE_ONLY.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type.
    References:
      Nocedal & Wright, Numerical Optimization, 2nd ed., algorithms 3.5 and 3.6,
      equation (3.59). Hager & Zhang, A new conjugate gradient method with guaranteed
      descent and an efficient line search, SIAM J. Optim. 16 (2005), (4.1).
    Example:
      >>> x = jnp.array([3.0])
      >>> found = strong_wolfe(
      ...     lambda x: jnp.sum(x**2), x, -2 * x, jnp.array(9.0), 2 * x
      ... )
      >>> print(found.step, found.value, found.evaluations)
      0.5 0.0 2
    """
    check_number("first_step", first_step, positive=True)
    check_number("sufficient_decrease", sufficient_decrease, below=0.5, positive=True)
    check_number("curvature", curvature, below=1.0, positive=True)
    check_number("max_evaluations", max_evaluations, positive=True, integer=True)
    start = _Point(jnp.zeros_like(value), value, inner(grad, direction))
    noise = value_slack(value)

    def enough(point: _Point):
        plain = (
            point.value
            <= value + cast(sufficient_decrease, value) * point.step * start.slope
        )
        by_slope = (
            point.slope <= (2.0 * cast(sufficient_decrease, value) - 1.0) * start.slope
        )
        finite = jnp.isfinite(point.value) & jnp.isfinite(point.slope)
        return finite & (plain | ((point.value <= value + noise) & by_slope))

    def next_trial(last: _Point, low: _Point, high: _Point) -> tuple[Array, Array]:
        """Return the next trial, and True if it is the same as low after rounding.

        Before a bracket is found, the second result is False.
        """
        trial = _next_step(last, low, high, noise)
        closed = jnp.isfinite(high.step) & ~differ(
            *(along(params, direction, a) for a in (trial, low.step))
        )
        return trial, closed

    def turn(bracket: _Bracket) -> _Bracket:
        low, high = bracket.low, bracket.high
        there = along(params, direction, bracket.trial)
        found, grad = jax.value_and_grad(value_fn)(there)
        point = _Point(bracket.trial, found, inner(grad, direction))
        decreased = enough(point)
        too_high = ~decreased | ~(point.value < low.value + noise)
        done = ~too_high & (
            jnp.abs(point.slope) <= -cast(curvature, value) * start.slope
        )
        behind = (
            point.slope * jnp.sign(high.step - low.step) >= 0
        )  # The minimum lies between low and the point.
        grad = jax.tree.map(lambda g, old: g.astype(old.dtype), grad, bracket.grad)
        last = low
        low, high, grad = jax.lax.switch(
            jnp.where(too_high, 0, jnp.where(behind, 1, 2)),
            [
                lambda: (low, point, bracket.grad),
                lambda: (point, low, grad),
                lambda: (point, high, grad),
            ],
        )
        # After most trials the search is done, and needs no further one.
        trial, closed = jax.lax.cond(
            done,
            lambda: (bracket.trial, jnp.zeros((), bool)),
            lambda: next_trial(last, low, high),
        )
        going = jnp.where(closed, Outcome.STEP_TOO_SMALL, Outcome.EVALUATIONS_USED_UP)
        outcome = jnp.where(done, Outcome.FOUND, going).astype(jnp.int32)
        return _Bracket(low, high, trial, grad, bracket.evaluations + 1, outcome)

    outcome = _before(value, start.slope)
    nowhere = _Point(jnp.full_like(value, jnp.inf), value, start.slope)
    first = _Bracket(
        start, nowhere, cast(first_step, value), grad, jnp.zeros((), jnp.int32), outcome
    )
    end = jax.lax.while_loop(
        lambda b: (
            (b.outcome == Outcome.EVALUATIONS_USED_UP)
            & ~reached(b.evaluations, max_evaluations)
        ),
        turn,
        first,
    )
    searched = (end.outcome == Outcome.STEP_TOO_SMALL) | (
        end.outcome == Outcome.EVALUATIONS_USED_UP
    )

    def without_curvature() -> Array:
        moved = differ(along(params, direction, end.low.step), params) & (
            end.low.value < value - noise
        )
        still = jnp.where(end.low.step > 0, Outcome.STEP_TOO_SMALL, end.outcome)
        return jnp.where(moved, Outcome.DECREASE_ONLY, still).astype(jnp.int32)

    outcome = jax.lax.cond(searched, without_curvature, lambda: end.outcome)
    failed = outcome >= Outcome.FIRST_FAILURE
    # The gradient at low would describe a point that the params do not reach.
    grad = jax.tree.map(lambda old, low: jnp.where(failed, old, low), grad, end.grad)
    return LineSearch(*_pick(failed, start, end.low), grad, end.evaluations, outcome)


def _before(value: Array, slope: Array) -> Array:
    """Return the outcome before the first trial.

    The outcome is Outcome.EVALUATIONS_USED_UP if the search can start, else a failure.
    """
    finite = jnp.isfinite(value) & jnp.isfinite(slope)
    descends = jnp.where(
        slope < 0, Outcome.EVALUATIONS_USED_UP, Outcome.NO_DESCENT_DIRECTION
    )
    return jnp.where(finite, descends, Outcome.NOT_FINITE).astype(jnp.int32)


def _pick(condition: Array, yes: _Point, no: _Point) -> _Point:
    return _Point(*(jnp.where(condition, a, b) for a, b in zip(yes, no, strict=True)))


def _cubic(a: _Point, b: _Point, noise: Array) -> Array:
    """Return the minimiser of the cubic through two points with given slopes.

    The result is NaN if the cubic has no minimiser. If the two values differ by no more
    than the noise, the parabola with these slopes is used instead.
    """
    width = b.step - a.step
    d1 = a.slope + b.slope - 3.0 * (b.value - a.value) / width
    d2 = jnp.sign(width) * jnp.sqrt(d1 * d1 - a.slope * b.slope)
    cubic = b.step - width * (b.slope + d2 - d1) / (b.slope - a.slope + 2.0 * d2)
    parabola = b.step - width * b.slope / (b.slope - a.slope)
    return jnp.where(jnp.abs(b.value - a.value) <= noise, parabola, cubic)


def _next_step(last: _Point, low: _Point, high: _Point, noise: Array) -> Array:
    """Return the next trial: beyond low if there is no bracket, else inside of it."""
    outwards = jnp.isinf(high.step)
    a, b = _pick(outwards, last, low), _pick(outwards, low, high)
    found = _cubic(a, b, noise)
    return jnp.where(outwards, _beyond(a, b, found), _between(a, b, found))


def _beyond(last: _Point, point: _Point, found: Array) -> Array:
    width = point.step - last.step
    nearest, furthest = point.step + 1.1 * width, point.step + 4.0 * width
    return jnp.where(found > point.step, jnp.clip(found, nearest, furthest), furthest)


def _between(low: _Point, high: _Point, found: Array) -> Array:
    left, right = jnp.minimum(low.step, high.step), jnp.maximum(low.step, high.step)
    margin = 0.1 * (right - left)
    return jnp.where(
        jnp.isfinite(found),
        jnp.clip(found, left + margin, right - margin),
        0.5 * (left + right),
    )


def inner(a: Params, b: Params) -> Float[Array, ""]:
    """Return the inner product <a, b> over all leaves of two pytrees, shape ().

    The product is computed in a dtype of at least float32.

    Example:
      >>> print(inner({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([3.0, 4.0])}))
      11.0
    """
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    products = [jnp.vdot(_wide(x), _wide(y)) for x, y in pairs]
    return jnp.sum(jnp.stack(products)) if products else jnp.zeros((), jnp.float32)


def norm_of_tree(tree: Params) -> Float[Array, ""]:
    """Return the Euclidean norm |a| over all leaves of a pytree, shape ().

    The result is correct even if |a|² overflows the dtype.

    Example:
      >>> print(norm_of_tree({"w": jnp.array([3e30, 4e30], "float32")}))
      5e+30
    """
    plain = jnp.sqrt(inner(tree, tree))
    largest = functools.reduce(
        jnp.maximum, map(_largest, jax.tree.leaves(tree)), jnp.zeros((), plain.dtype)
    )
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1.0)
    scaled = jax.tree.map(lambda x: _wide(x) / scale.astype(_wide(x).dtype), tree)
    return jnp.where(
        jnp.isinf(plain), scale * jnp.sqrt(inner(scaled, scaled)), plain
    ).astype(plain.dtype)


def _largest(leaf: Array) -> Array:
    return jnp.max(jnp.abs(_wide(leaf)), initial=0.0)


def _wide(x: Array) -> Array:
    return jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))


def along(params: Params, direction: Params, step: Scalar) -> Params:
    """Return x + a d, with each leaf in its own dtype.

    x is params, d is direction and a is step. The sum is computed as in
    `optax.apply_updates`.

    Example:
      >>> print(along(jnp.array([1.0, 2.0]), jnp.array([1.0, -1.0]), 0.5))
      [1.5 1.5]
    """
    return jax.tree.map(
        lambda x, d: x + (cast(step, d) * d).astype(x.dtype), params, direction
    )
