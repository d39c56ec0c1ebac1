"""Derivative of a function of one number, with an error bound and a verdict."""

import math
import numbers
import operator
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np

from research.checks import (
    check_callable,
    check_choice,
    check_flag,
    check_not_deleted,
    refuse_traced,
    shown,
)
from research.derivatives.errors import NoDerivativeError
from research.derivatives.finite_differences.breaks import (
    first_surprise,
    is_continuous,
    levels_below,
    quiet_part,
)
from research.derivatives.finite_differences.judging import (
    CONFIDENT,
    NOTHING,
    VANISHES,
    Estimate,
    best_of_each_level,
    growth,
    jumps,
    rate,
    settle,
    slow_error,
)
from research.derivatives.finite_differences.ladder import (
    APART,
    LOWEST,
    Ladder,
    climbed,
    exponents,
    from_values,
    reach,
    window_points,
)
from research.derivatives.finite_differences.noise import (
    noise_bounds,
    rounding,
    windows_noise,
)
from research.derivatives.finite_differences.sampling import Sampler
from research.derivatives.finite_differences.tables import (
    Table,
    Tables,
    formula,
    tables,
)

Verdict = Literal["ok", "kink", "jump", "one-sided", "unresolved", "nan"]
Scheme = Literal["auto", "central", "forward", "backward"]

HIGHEST_ORDER = 4
_SIDES = {"auto": 0, "central": 0, "forward": 1, "backward": -1}
_FLAT = 1e-7  # A derivative below this share of |f| / max(|x|, 1)^n counts as 0.
_THIRD = 3  # |f| there is the third largest of its values around x.
_CLEAR = 3.0  # A difference of the sides above this many bounds is a kink.
# One-sided quotients of smooth functions converge with power 1 of the step. A lower
# power than this counts as slower convergence.
_SLOW = 0.9
# If noise in _FOUR windows in a row, each at least 2^_LOUD rounding errors, grows with
# a power of the distance between _STEADY and n + _STEADY, f is rough.
_STEADY = 0.25
_RISE = 0.25  # Least growth of the noise between two windows, in bits.
_FOUR = 4
_LOUD = 2.0
_ALL = 1 / 16  # Noise above this share of a change of f counts as the whole change.
# A jump of the derivative above this share of its bound is probably not noise.
_SHOWN = 0.25
_HALF = 0.6  # Half a jump, and a little for the error of the jump.
_MISSED = 1.5  # A line that misses f(x) by more than this many noises is noticed.
_LEVEL = 1.4  # Largest factor between two distances that count as the same.
_THREE = 3  # Number of windows in a row, or of steps, that a test looks at.
_HUGE = 2.0**900  # If |f(x)| is larger, values are divided by it.
_STEEP, _SOME = 2.0**1020, 2.0**6  # If slopes are larger, values are divided by 2^6.
_UNDERFLOW = 1e-290  # A smaller change of f may have lost digits.
_KNOT = 3.0  # Largest p - m if a jump of order p beside x looks like one of order m.
# Jumps above this many rounding errors, at the step of a result and at the largest
# step, are those of f itself. Rounding to float32 makes 2^29.
_LARGE_JUMP = 2.0**31
# Largest degree k of a denominator (x - a)^k, and largest error of its (k + 1) / k.
_DEGREE, _SAME = 6, 1e-3
# If the sides approach each other with one power of the step at _LONG steps or more,
# with a misfit below _STRAIGHT bits, they may meet.
_LONG, _STRAIGHT = 6, 0.1
# A jump of a higher derivative is known if it exceeds _TWICE its uncertainty. This
# contains _NOISES times the noise of one of the extrapolations _FIRST.
_TWICE, _FIRST, _NOISES = 2.0, slice(1, 4), 1.2
# The extrapolation in h² leaves at most 2/3 of an error c J h. The jump J is uncertain,
# so the factor is larger. An error above _SEEN bounds would show in other ways.
_LINEAR, _SEEN = 0.8, 6.0
# Larger than 1/3, the factor in the error J d of `_of_next_jump`. At a step below 4 d,
# the jump may lie at x itself.
_AWAY, _NEAR = 0.4, 0.25
_DOUBTED = 2.0  # Factor on the bound of small steps where all steps show nothing.
# If the jumps of f exceed the share _COARSE of f, and its noise exceeds _OVER jumps, f
# may count something. Then the bound is multiplied by _OF_COUNTS.
_COARSE, _OVER, _OF_COUNTS = 2.0**-20, 1.2, 4.0
_NARROW = (np.float16, jnp.bfloat16)  # Their rounding errors are independent.
_SHARP = 30.0  # A difference above this many bounds is a kink without further tests.
_REASONS = {
    "kink": "the slopes from the left and from the right differ. Ask for one of them "
    "with scheme='forward' or 'backward'",
    "jump": "f jumps there",
    "one-sided": "f is defined on one side only. Ask for that side with "
    "scheme='forward' or 'backward'",
    "unresolved": "the difference quotients do not converge, or the noise of f hides "
    "their limit",
    "nan": "f is not defined at the point, or not on either side of it",
}


class FiniteDifference(NamedTuple):
    """A derivative estimated from values of f.

    Attributes:
      value: Estimated derivative if the verdict is "ok". With "one-sided", `value` is
        the derivative from the side where f is defined, or nan if there is no estimate.
        With "unresolved", `value` is the best guess, or nan if there is no estimate.
        With "kink", "jump" and "nan", `value` is nan.
      error: Estimated bound on |value - derivative|. It follows from the noise of f
        (errors of its values, such as rounding errors), and from the differences
        between the estimates at several steps. The bound is not a guarantee: the
        docstring of `finite_difference` reports how often it was too small. Infinite if
        `value` is nan.
      step: Smallest distance from x that was used for `value`, or nan if `value` is
        nan.
      evaluations: Number of points where f was evaluated.
      verdict: One of

        - "ok": value is the derivative.
        - "kink": the left and the right derivative differ, for the requested order or
          a lower one.
        - "jump": f is discontinuous at x.
        - "one-sided": f is defined on only one side of x, and the scheme is two-sided
          ("auto" or "central").
        - "unresolved": the difference quotients do not converge. Either the derivative
          does not exist, or it is infinite, or noise hides it.
        - "nan": f(x) is not finite, or f is defined on none of the sides of x that the
          scheme uses.
      left, right: One-sided derivatives of the requested order. With the verdict "ok"
        of a two-sided scheme, both equal `value`. In all other cases, each is estimated
        from values of f on its side. It is nan if there is no estimate, or if the error
        bound of the estimate is larger than m / 10. Here m is the larger of the
        absolute values of the two estimates.
    """

    value: float
    error: float
    step: float
    evaluations: int
    verdict: Verdict
    left: float
    right: float


def finite_difference(
    f: Callable[[Any], Any],
    x: float,
    order: int = 1,
    scheme: Scheme = "auto",
    strict: bool = False,
) -> FiniteDifference:
    """Estimate the derivative of f at x, with an error bound and a verdict.

    The estimate uses only values of f. So f may be any function of a number, even one
    that JAX cannot trace. The verdict is "ok", or it says why no derivative was found
    (see `FiniteDifference`). The error bound is an estimate, not a guarantee.

    f is evaluated at about 215 points, and for some f at several hundred more. The
    points are x, x ± 2^k for many k, and groups of equally spaced points that show the
    noise of f (the error of its values, such as a rounding error). The smallest 2^k is
    about four spacings of the floats at x, the largest about eight times the larger of
    |x| and 1. At each step h = 2^k a difference quotient is extrapolated to h = 0 by
    Richardson's scheme. The result is the estimate with the smallest bound. The bound
    adds the effect of the noise to the largest change of the estimate from one step or
    one extrapolation to the next. If the values suggest that the bound is not valid,
    the bound is increased, or the verdict is "unresolved". The docstring of
    `research.derivatives.finite_differences` describes all of this in full.

    If f maps arrays elementwise, one call evaluates all points. To check whether f does
    so, the points are passed in random order, and three of the values (24 if f returns
    integers) are compared with the values of f at single numbers. If a value differs, f
    is called for one point after another.

    The verdict is "kink" if the left and the right derivative of an order from 1 to
    `order` clearly differ. If they differ by only a little more than their error
    bounds, the verdict is "unresolved". The verdict is also "unresolved" if f jumps by
    far more than rounding errors and the slope between the jumps differs from the mean
    slope over many jumps, as for sin(x) + floor(1000 x). The same holds if f seems to
    oscillate at all distances, as x² sin(1 / x) at 0 with order 2.

    The problems `research.derivatives.problems.HELD_OUT` have 66 points with a
    derivative. At all of them the error was within the bound, and the median ratio of
    the bound to the error was 14. At the 35 points without a derivative, the verdict
    was never "ok". But the factors of the bound were chosen with knowledge of these
    problems, and of the random functions with seeds 1, 2 and 7.

    The table shows the percentage of wrong answers on the random functions of
    `research.derivatives.problems` with seed 1, with 2,000 functions in each class. An
    answer is wrong if the verdict is "ok" and the error exceeds the bound. If there is
    no derivative, half the difference between the left and the right derivative counts
    as the error. Each column belongs to one order of the derivative. In the class
    "terms cancel", the noise of f exceeds ε |f|, where ε is the relative spacing of the
    floats that f returns. In the class "few digits", f is rounded to a grid or to
    float32. In the class "far from 0", x is up to 3e13 times as large as the unit of
    length of f.

        order              1      2      3      4
        smooth           0      0      0.05   0.35
        root of f        0      0      0      0
        jump of f''      0.05   0.10   0      0
        jump of f'''     0      0.25   0.25   0
        kink             0.05   0.05   0.05   0.05
        kink near x      0      0.05   0      0.10
        terms cancel     0.15   0.25   0.30   0.30
        few digits       0.80   0.95   0.95   1.15
        far from 0       0      0.05   0.20   0.10

    The verdict is "ok" for at least 98 % of the smooth functions and of the functions
    with a root at x. The median ratio of the bound to the error is between 15 and 21
    for smooth functions, between 13 and 30 at roots, and between 36 and 390 far
    from 0.

    Values alone cannot reveal the following:

    - A kink closer to x than the smallest step that changes f by more than the noise.
    - Whether a weak kink is at x or beside x. If f' jumps by J at a distance below
      about 100 ε |f| / J from x, the verdict may be "kink". At orders 2 to 4 this
      distance is larger: for exp(max(t, 0)), about 4e-7 at orders 2 and 3, and 2e-5 at
      order 4. At orders 2 to 4, the verdict may also be "kink" if f'' or f''' jumps
      beside x, as at the knots of a spline, up to a distance of about 1e-3.
    - A jump of f' or of the requested derivative that the noise hides. An example is
      sin(x) + 1e-8 max(x, 0)⁴ at 0 with order 4. If f' and f''' are much larger than
      f'', a jump of f'' may be missed although the noise does not quite hide it. An
      example is sin(1.73 x) + exp(x / 1000) + 1e-11 max(x, 0)² at 0. The left and the
      right second derivative differ by 2e-11, but the verdict is "ok" with the bound
      1e-15.
    - Whether jumps of f are rounding errors. The jumps count as rounding, for example
      to float32, if they are below 2^31 rounding errors of f, either at the step of the
      result or at the largest steps. The result is then the mean slope over many jumps.
      An example is sin(x) + 1e-6 floor(1e5 x) at 2.0007: the answer is "ok" with
      -0.317, but between the jumps the slope is -0.417.
    - Whether f is constant around x only because it is rounded. If f is constant up to
      a distance of at least max(|x|, 1) / 5, it usually counts as a constant function,
      with the derivative 0. It counts as rounded only if it has at least three nearly
      equal jumps at larger distances, and a mean slope below 1e-6.
    - Whether f depends on earlier calls, like a solver that starts at its last
      solution. The result may then be wrong.
    - A term of f that is below the noise at the steps that are used, such as a jump of
      a higher derivative, a power like |x|^2.5 or an oscillation. An example is the
      third derivative of a cubic spline with many nodes: the value is the third
      derivative of the function that the spline approximates.
    - Whether f has a weak kink at x, or a weak term whose derivative of order
      `order` + 1 is infinite at x. An example of such a term, for order 2, is t |t|^1.6
      at t = 0. In both cases, the left and the right difference quotient approach each
      other slowly or not at all as the step becomes smaller. The verdict may be "kink"
      although the derivative exists.
    - How large the error is, if f(t) is the sum of a smooth function and a power such
      as |t - x|^5.5 at order 4. For functions of this kind, up to a tenth of the
      answers at order 4 have an error above the bound. The same holds for a one-sided
      scheme and a power between n and n + 1, where n is the order. An example is
      cos(t + 1) + 0.001 t^4.03 at t = 0, from the right, with order 4.
    - How large the error is, if the derivative of order `order` + 2 jumps beside x. The
      error may be a few times the bound. An example is the third derivative of a spline
      of degree 5. Another example is the fourth derivative of sin(2.8 t - 1.9) + 37 d^6
      at t = -0.24, where d = max(t + 0.24 - 2.5e-8, 0).
    - A bend or a kink beside x that the noise hides from a one-sided scheme. Far from
      its bend, a function such as softplus is nearly a straight line. The result may be
      the slope of this line instead of the slope at x. An example is a tax in cents
      with a kink less than a euro from x. The scheme "auto" rarely makes this error.
      At orders 2 to 4, a one-sided scheme may also miss a kink beside x that changes f
      by more than the noise, if few steps are shorter than the distance of the kink. An
      example is the second derivative from the right of
      exp(t) - 0.002 d + 0.0859 d² at t = 0.5, where d = max(t - 0.50000077, 0).
    - Whether f changes from one formula to another beside x, if the two formulas differ
      by little, such as 1e-8. The answer may be wrong at orders 2 to 4.
    - A wave that is lower than about 1,000 rounding errors of f, at orders 2 to 4. An
      example is the third derivative of sin(t) + 4e-14 sin(1190 t) at 1.788.
    - An oscillation between the points.
    - Far from 0, a wave that is added to another term, if the wave is lower than about
      30 rounding errors of f, or if a period has fewer than about 100 floats. An
      example is sin(2 π (x - 1.7e18) / 25600) + 30 x / 25600 at x = 1.7e18, where the
      rounding errors of f are about 0.1. The derivative is 0.00142, but the answer is
      "ok" with the value 0.00117 and the bound 6e-18. For sums of a wave and a
      polynomial in x - 1.7e18 with 100 to 30,000 floats in a period, a test allows 2 %
      of the answers to be wrong at order 1, and 5 % at order 2.
    - Whether f interpolates a table with straight lines, if the slopes of neighbouring
      lines differ by less than the rounding error of a difference quotient within a
      line. The value is then the slope of the function whose values are in the table.
    - The error of a solver or an integrator in f that stops at a tolerance. If the
      solver takes the same number of steps at all points near x, the values of f are
      smooth. The result is the derivative of this smooth function, not of the exact
      solution. If the number of steps grows with x, f jumps, and the result may be the
      mean slope over many jumps.
    - A rounding error inside f that is the same at all points near x. An example is
      sqrt(1 - x²) near 1 - 1e-8. In x² = 1 - 2 (1 - x) + (1 - x)², rounding replaces
      the last term, about 1e-16, by a constant. So the values of f are nearly those of
      sqrt(2 - 2 x). Larger steps often contradict the result, and the verdict is then
      "unresolved". But noise at the larger steps may hide the contradiction, as for the
      first derivative of x² + log(1 + x³) at 1e-9.

    Args:
      f: Function of a float. It may also accept an array and act on each entry. If f
        raises a ValueError or an ArithmeticError, its value counts as nan. At points
        other than x, the same holds for a RuntimeError, an IndexError and an
        AssertionError, which a solver, a table or a check of f's domain may raise.
      x: Point of the derivative, a finite real number.
      order: Order of the derivative, 1 to 4. Noise hides derivatives of higher order.
        For a higher order n call `derivative(f, x, order=n)`, if JAX can trace f.
      scheme: "auto" and "central" have the same meaning: values of f on both sides of x
        are used. "forward" gives the derivative from the right and ignores f on the
        left. "backward" gives the derivative from the left and ignores f on the right.
      strict: If True, a verdict other than "ok" raises an error.
    Returns:
      A `FiniteDifference`: the derivative with its bound and verdict.
    Raises:
      NoDerivativeError: `strict` is True, and the verdict is not "ok".
      NotScalarError: f does not return a single real number. A Fraction, a Decimal or a
        number of mpmath is not an error, because it is converted to a float.
      TypeError: x is not one real number, f is not a function of one argument, or
        strict is not True or False.
      ValueError: x is not finite, order is not an integer from 1 to 4, or scheme is
        unknown.
    References:
      Ridders, Accurate computation of F'(x) and F'(x)F''(x), Advances in Engineering
      Software 4 (1982), 75-76; Moré and Wild, Estimating computational noise, SIAM J.
      Sci. Comput. 33 (2011), 1292-1314.
    Example:
      >>> found = finite_difference(math.sin, 100.0)
      >>> print(f"{found.value:.10f} {found.verdict}")
      0.8623188723 ok
      >>> kink = finite_difference(abs, 0.0)
      >>> print(kink.verdict, kink.left, kink.right)
      kink -1.0 1.0
    """
    check_callable("f", f, "x")
    refuse_traced("finite_difference", x=x)
    check_flag("strict", strict)
    point, order = _point(x), _order(order)
    check_choice("scheme", scheme, get_args(Scheme))
    sampler = Sampler(f)
    found = _estimated(sampler, climbed(sampler, point), order, _SIDES[scheme])
    if strict and found.verdict != "ok":
        raise NoDerivativeError(
            f"f has no derivative of order {order} at x={point!r} according to its "
            f"values: {found.verdict}, because {_REASONS[found.verdict]}. Without "
            "strict=True the result carries this verdict instead of raising an error."
        )
    return found


def _estimated(
    sampler: Sampler, ladder: Ladder, order: int, side: int
) -> FiniteDifference:
    """Return the derivative from samples of f, and from more samples where needed."""
    divisor = 1.0
    if _HUGE < abs(ladder.centre) < np.inf:  # Sums of such values overflow.
        divisor = _HUGE
    elif sampler.unit == 1 and _is_steep(ladder):  # Differences of slopes overflow.
        divisor = _SOME
    if divisor > 1:
        sampler.unit = 1 / divisor
        found = _estimated(sampler, climbed(sampler, ladder.x), order, side)
        return _times(found, divisor)
    with np.errstate(all="ignore"):
        noise = noise_bounds(ladder, sampler)
        found = judge(
            ladder._replace(evaluations=sampler.evaluations), noise, order, side
        )
        found = _beside_breaks(ladder, noise, sampler, order, side, found)
        found = _without_surprises(ladder, noise, order, side, found)
        return _not_from_far(ladder, order, side, found)


def _is_steep(ladder: Ladder) -> bool:
    """Return whether a difference of two slopes may be beyond the largest float."""
    with np.errstate(all="ignore"):
        sizes = np.abs(ladder.changes)
        steep = (sizes > _HUGE) & (sizes / ladder.steps > _STEEP)
        return bool(np.any(steep & np.isfinite(sizes)))


def _times(found: FiniteDifference, factor: float) -> FiniteDifference:
    """Return the result for `factor` times f. A derivative that overflows is nan."""
    value, error = found.value * factor, found.error * factor
    left, right = (
        side if np.isfinite(side) else np.nan
        for side in (found.left * factor, found.right * factor)
    )
    if np.isfinite([value, error]).all():
        return found._replace(value=value, error=error, left=left, right=right)
    return found._replace(
        value=np.nan,
        error=np.inf,
        step=np.nan,
        verdict="unresolved" if found.verdict == "ok" else found.verdict,
        left=left,
        right=right,
    )


def _beside_breaks(
    ladder: Ladder,
    noise: np.ndarray,
    sampler: Sampler,
    order: int,
    side: int,
    found: FiniteDifference,
) -> FiniteDifference:
    """Return the derivative at small steps if it contradicts the result `found`.

    `found` is a derivative or a kink. A break is a point where f bends or jumps. Small
    steps lie between the breaks, and larger steps cross them.

    If f bends at the breaks, as if it interpolated a table with straight lines, small
    steps show the slope of f. Larger steps show the slope of the function behind the
    table. The result is that of the small steps. If they show too little, as for the
    third derivative of such a table or for sin(x) + 1e-10 sin(1e6 x), the verdict is
    "unresolved".

    If f jumps at the breaks, there are three cases:

    - f is constant between the jumps. Then f is rounded, and the result stays.
    - f is not constant between the jumps, and the jumps are small at the step of the
      result or at the largest step. Then cancellation makes the jumps near x, as in
      (1 - cos(x)) / x² near 0, and the result stays.
    - Otherwise, as for sin(x) + floor(1000 x), the verdict is "unresolved", or "jump"
      if x itself is at such a jump (`_jumps_at_x`).

    If f is constant only near x and jumps beside it (`_is_dead_zone`), the verdict is
    "unresolved".

    If all steps together show no derivative (`found` is "unresolved"), but f bends or
    has poles at the breaks and does not jump, as tan(x) far from 0, the result is that
    of the small steps, with a larger bound.

    The verdict is also "unresolved" if f is c / (x - a)^k between jumps that are small
    at the largest steps (`_hides_a_quotient`), or if f has small jumps and larger steps
    contradict the result (`_hides_a_term`).
    """
    verdicts = ("ok", "kink", "unresolved")
    part = quiet_part(ladder) if found.verdict in verdicts else None
    if part is None:
        return found
    quiet, noise_near, window = part
    inner = judge(quiet, noise_near, order, side)
    if found.verdict == "unresolved":
        # Near x, a rough function looks smooth only because rounding errors hide it.
        known = inner.verdict == "ok" and not (
            _is_rough(ladder, order)
            or _hides_a_quotient(ladder, quiet, noise_near, side)
            or _hides_a_term(ladder, noise, window, order, side, inner)
        )
        if known and is_continuous(ladder, sampler, window, True):
            found = _at_least(inner, _DOUBTED * inner.error)
        return found._replace(evaluations=sampler.evaluations)
    if inner.verdict == "jump" and _jumps_at_x(
        ladder, noise, quiet, noise_near, side, found
    ):
        return inner._replace(evaluations=sampler.evaluations)
    apart = {
        "ok": abs(inner.value - found.value) - _CLEAR * inner.error,
        "kink": _apart_from_sides(inner, found.value),
    }.get(inner.verdict, 0.0)
    # The result needs the noisy steps.
    beyond = found.step > quiet.steps[-1] and inner.verdict in ("ok", "unresolved")
    if found.verdict == "kink":  # Small steps that could show a kink show none.
        near = inner
        if order > 1 and inner.verdict == "unresolved":
            near = judge(quiet, noise_near, 1, side)
        beyond, apart = near.verdict == "ok", 0.0
    if not (beyond or apart > found.error):
        if (
            found.verdict == "ok"
            and (
                _hides_a_quotient(ladder, quiet, noise_near, side)
                or _hides_a_term(ladder, noise, window, order, side, found)
            )
            and not is_continuous(ladder, sampler, window)
        ):
            found = found._replace(verdict="unresolved")
        return found._replace(evaluations=sampler.evaluations)
    # Between the jumps of a rounded f, the slope is 0.
    is_flat = inner.verdict == "ok" and abs(inner.value) <= inner.error
    may_be_wave = found.verdict == "ok" and not is_flat
    if not is_continuous(ladder, sampler, window, to_floats=may_be_wave):
        if found.verdict == "kink":
            near = judge(quiet, noise_near, 1, side)
            kink = judge(ladder, noise, 1, side)
            away = _is_kink_away_from_x(near, kink, ladder, noise)
            found = found._replace(verdict="unresolved" if away else "kink")
        else:
            found = _across_jumps(ladder, noise, inner, apart, found)
        return found._replace(evaluations=sampler.evaluations)
    if _is_dead_zone(ladder, noise, noise_near, inner):
        return found._replace(verdict="unresolved", evaluations=sampler.evaluations)
    # A bound that is small only beside the quotients of small steps shows nothing.
    largest = CONFIDENT * max(abs(inner.value), abs(found.value))
    if inner.verdict == "ok" and inner.error > largest:
        inner = inner._replace(verdict="unresolved")
    return inner._replace(evaluations=sampler.evaluations)


def _is_dead_zone(
    ladder: Ladder,
    noise: np.ndarray,
    noise_near: np.ndarray,
    inner: FiniteDifference,
) -> bool:
    """Return whether f is constant near x only because small steps cross no jump of f.

    An example is a solver that starts at the solution for x and takes no step within
    its tolerance. Small steps then give the derivative 0 (`inner`), although f varies
    at larger steps.
    """
    flat = not np.nan_to_num(ladder.changes[:, :3]).any()
    still = inner.verdict == "ok" and abs(inner.value) <= inner.error
    return bool(flat and still and noise[0] > _CLEAR * noise_near[0])


def _jumps_at_x(
    ladder: Ladder,
    noise: np.ndarray,
    quiet: Ladder,
    noise_near: np.ndarray,
    side: int,
    found: FiniteDifference,
) -> bool:
    """Return whether f, which jumps at x, has many large jumps and varies between them.

    Small steps show the jump at x. If f were constant between its jumps, f would be
    rounded, and the slope over many jumps, `found`, would be the derivative.
    """
    level = min(int(np.searchsorted(ladder.steps, found.step)), len(noise) - 1)
    beside = judge(quiet, noise_near, 1, side or 1)
    varies = beside.verdict == "ok" and abs(beside.value) > beside.error
    return found.verdict == "ok" and varies and _jumps_largely(ladder, noise, level)


def _jumps_largely(ladder: Ladder, noise: np.ndarray, level: int) -> bool:
    """Return whether jumps of f at a level and at the last level are not rounding.

    They are not rounding if they exceed _LARGE_JUMP rounding errors of f. At the last
    level, these are the rounding errors on the side where |f| is smaller: f may grow
    fast on the other side, as floor(t) + exp(t) does.
    """
    sides = [np.nanmax(np.abs(s), initial=0.0) for s in (ladder.plus, ladder.minus)]
    far = ladder.epsilon / 2 * min(filter(None, sides), default=0.0)
    is_large = noise[level] > _LARGE_JUMP * rounding(ladder)[level]
    return bool(is_large and noise[-1] > _LARGE_JUMP * far)


def _across_jumps(
    ladder: Ladder,
    noise: np.ndarray,
    inner: FiniteDifference,
    apart: float,
    found: FiniteDifference,
) -> FiniteDifference:
    """Return a derivative whose steps cross jumps of f, as these jumps allow.

    The verdict becomes "unresolved" if f varies between large jumps and its slope there
    contradicts the result. If f counts instead of varying, the error is enlarged.

    Args:
      ladder, noise: Values of f at all steps, and bounds on their noise.
      inner: Derivative at steps between the jumps.
      apart: Distance between the two derivatives, minus three times the error of
        `inner`.
      found: Derivative at all steps.
    """
    varies = inner.verdict == "ok" and abs(inner.value) > inner.error
    level = min(int(np.searchsorted(ladder.steps, found.step)), len(noise) - 1)
    if varies and apart > found.error and _jumps_largely(ladder, noise, level):
        return found._replace(verdict="unresolved")
    if not varies and found.verdict == "ok" and _counts(ladder, noise, level):
        return _at_least(found, _OF_COUNTS * found.error)
    return found


def _is_kink_away_from_x(
    near: FiniteDifference, kink: FiniteDifference, ladder: Ladder, noise: np.ndarray
) -> bool:
    """Return whether only larger steps show a kink, in an f that jumps.

    An example is a straight line with stairs that is 0 below a threshold. If the kink
    is at x, half of f(x + h) + f(x - h) - 2 f(x) is (right - left) h / 2 at all steps h
    at which the jumps do not hide it. The result is True if this fails at one of the
    first three such steps, or if there is no such step.

    Args:
      near: First derivative at the steps that are smaller than the jumps.
      kink: First derivative at all steps.
      ladder, noise: Values of f at all steps, and bounds on their noise.
    """
    varies = near.verdict == "ok" and abs(near.value) > near.error
    if not varies or not _jumps_largely(ladder, noise, len(noise) - 1):
        return False
    expected = (kink.right - kink.left) / 2 * ladder.steps
    shown = np.abs(expected) > _CLEAR * noise
    found = ladder.changes.sum(axis=0) / 2
    fits = np.abs(found - expected) < np.abs(expected) / 2
    # The first steps that show the kink; larger ones also show how f bends.
    some = np.flatnonzero(shown)[:_THREE]
    return not (len(some) and fits[some].all())


def _counts(ladder: Ladder, noise: np.ndarray, level: int) -> bool:
    """Return whether f is constant between jumps although it is not rounded.

    Rounding a smooth function adds errors that are smaller than the smallest jump. If
    the noise exceeds this jump, f may be a count, such as the share of draws or of
    pixels below a threshold. The errors of a count at neighbouring points are alike, so
    the points of a window, which are close together, show only a part of the error of a
    difference. The result is False if the values are numbers of float16 or bfloat16,
    but not all integers.

    Args:
      ladder: Values of f around x.
      noise: Bounds on the noise of f.
      level: Level of the result.
    """
    near = levels_below(ladder, level + 1)
    values = np.concatenate(
        [np.ravel(v) for v in (near.centre, near.plus, near.minus, near.windows)]
    )
    values = np.unique(values[np.isfinite(values)])
    size = max(abs(ladder.centre), float(np.median(np.abs(values))))
    rises = np.diff(values)
    # Counts that are divided by their number differ by one jump up to rounding errors.
    jumps = rises[rises > _COARSE**2 * size]
    if not len(jumps) or not _COARSE * size < jumps.min() < noise[level] / _OVER:
        return False
    narrow = any(np.array_equal(values, values.astype(d)) for d in _NARROW)
    return not narrow or bool((values == np.round(values)).all())


def _apart_from_sides(kink: FiniteDifference, value: float) -> float:
    """Return how much a value differs from both one-sided derivatives of a kink.

    The result is the smaller of the two differences, but at least half the difference
    between the one-sided derivatives.
    """
    sides = np.array([kink.left, kink.right])
    away = max(abs(sides[1] - sides[0]) / 2, float(np.min(np.abs(sides - value))))
    return float(np.nan_to_num(away, nan=np.inf))  # A side that is not known is nan.


def _hides_a_term(
    ladder: Ladder,
    noise: np.ndarray,
    window: int,
    order: int,
    side: int,
    found: FiniteDifference,
) -> bool:
    """Return whether f may have a term that only seems constant at the small steps.

    If all digits of a term cancel, as in x² + (1 - cos(x)) near 0, the computed term is
    constant over a small distance and then jumps. So is a term that is rounded to
    float32. The small steps show the derivative of the other terms. If the noise of the
    jumps is assumed at the small steps, too, the larger steps decide, and show the
    derivative of f. The result is True if this derivative contradicts `found`. The
    result is False if the jumps are larger than _LARGE_JUMP rounding errors of f at the
    largest step, because then they are not the rounding errors of terms of f.

    Args:
      ladder: Values of f at all steps.
      noise: Bound on the error of f at each step.
      window: Index of the first window with jumps.
      order, side: Order and side of the derivative, as in `judge`.
      found: Derivative that the small steps show.
    """
    # The bound leaves out a window whose noise the next windows do not show.
    jump = max(noise[ladder.places[window]], windows_noise(ladder)[window])
    # Beyond a gap, the steps do not show a function that varies over the distance |x|.
    has_gap = ladder.x and np.any(np.diff(ladder.exponents) > 1)
    if has_gap or jump > _LARGE_JUMP * rounding(ladder)[-1]:
        return False
    all_steps = judge(ladder, np.maximum(noise, jump), order, side)
    apart = abs(all_steps.value - found.value)
    return all_steps.verdict == "ok" and apart > all_steps.error + found.error


def _hides_a_quotient(
    ladder: Ladder, quiet: Ladder, noise: np.ndarray, side: int
) -> bool:
    """Return whether f is c / (x - a)^k at the small steps, with k from 1 to _DEGREE.

    If nearly all digits of a numerator cancel, as in (1 - cos(x)) / x² near 0, the
    computed numerator is constant over a small distance and then jumps. Between the
    jumps, f is the constant divided by the denominator, and f f'' / f'² = (k + 1) / k.
    At the largest steps, the numerator has its digits. So the result is False if f
    jumps there by more than _LARGE_JUMP rounding errors, as floor(x) / x does.

    Args:
      ladder, quiet: Values of f at all steps, and at the small ones.
      noise: Rounding error of f at each of the small steps.
      side: Side of the derivative, as in `judge`.
    """
    share = windows_noise(ladder) / rounding(ladder)[ladder.places]
    if (share[-2:] > _LARGE_JUMP).any():
        return False
    first, second = (judge(quiet, noise, order, side) for order in (1, 2))
    if first.verdict != "ok" or second.verdict != "ok" or not first.value:
        return False
    # In this order, because the square may overflow.
    ratio = quiet.centre / first.value * (second.value / first.value)
    powers = np.arange(1, _DEGREE + 1)
    return bool(np.min(np.abs(ratio - (powers + 1) / powers)) < _SAME)


def _without_surprises(
    ladder: Ladder, noise: np.ndarray, order: int, side: int, found: FiniteDifference
) -> FiniteDifference:
    """Return the derivative at the steps below the first surprise, if there is one.

    `first_surprise` defines a surprise. If the steps below it give no derivative, the
    verdict is "unresolved".
    """
    while found.verdict == "ok":
        level = int(np.searchsorted(ladder.steps, found.step))
        end = first_surprise(ladder, noise, level)
        if end is None:
            return found
        ladder, noise = levels_below(ladder, end), noise[:end]
        below = (
            judge(ladder, noise, order, side)
            if len(ladder.places)
            else found._replace(verdict="unresolved")
        )
        if below.verdict != "ok":
            below = below._replace(verdict="unresolved")
        found = below._replace(evaluations=found.evaluations)
    return found


def _not_from_far(
    ladder: Ladder, order: int, side: int, found: FiniteDifference
) -> FiniteDifference:
    """Return the derivative at steps around |x| if it contradicts that at steps of 1.

    If x is close to 0, there are steps around |x| and steps around 1, with a gap in
    between (function `exponents` of the module `ladder`). Steps around 1 cannot show a
    function that varies over the distance |x|.
    """
    gap = int(np.argmax(np.diff(ladder.exponents) > 1)) + 1
    far = found.verdict == "ok" and ladder.x and gap > 1
    if not far or found.step < ladder.steps[gap]:
        return found
    around = levels_below(ladder, gap)
    # Values that are all equal, as those of exp(x) - 1, show nothing.
    if not len(around.places) or not np.nan_to_num(around.changes).any():
        return found
    near = judge(around, noise_bounds(around), order, side)
    apart = abs(near.value - found.value)
    if near.verdict in ("ok", "unresolved"):
        if not apart > near.error + found.error:
            return found
        if near.verdict == "ok":
            return near._replace(evaluations=found.evaluations)
    return near._replace(verdict="unresolved", evaluations=found.evaluations)


def difference_of_values(x: float, values: np.ndarray) -> FiniteDifference:
    """Estimate f'(x) from float64 values of f at the points of `finite_difference`.

    The result is that of `finite_difference`, with two exceptions:

    - If f looks rounded to few digits, or looks like a table that is interpolated with
      straight lines, `finite_difference` evaluates f at more points. Its result may
      then differ.
    - If |f(x)| exceeds 2^900 or a slope of f exceeds 2^1020, `finite_difference`
      divides the values, so that nothing overflows. This function does not divide them.

    Args:
      x: Point of the derivative.
      values: Values of f at the points nodes(x, exponents(x)), in this order, shape
        (n,). `nodes` and `exponents` are functions of the module `ladder`.
    """
    epsilon = float(np.finfo(np.float64).eps)
    with np.errstate(all="ignore"):
        ladder = from_values(x, exponents(x), values, epsilon)
        noise, side = noise_bounds(ladder), _SIDES["auto"]
        found = judge(ladder, noise, 1, side)
        found = _without_surprises(ladder, noise, 1, side, found)
        return _not_from_far(ladder, 1, side, found)


def judge(ladder: Ladder, noise: np.ndarray, order: int, side: int) -> FiniteDifference:
    """Return the `FiniteDifference` that follows from values of f around x.

    Args:
      ladder: Values of f at several distances on both sides of x. Each distance is a
        level.
      noise: Bound on the error of f at each level, shape (levels,).
      order: Order of the derivative.
      side: 0 for the two-sided derivative, 1 for the derivative from the right, -1 for
        the derivative from the left.
    """
    all_tables = tables(ladder, noise, order)
    columns = [
        best_of_each_level(all_tables.left),
        best_of_each_level(all_tables.right),
    ]
    rates = [
        rate(table, ladder.exponents) for table in (all_tables.left, all_tables.right)
    ]
    # If the quotients keep changing, as for sqrt(x) at 0, that side has no derivative.
    sides = [
        NOTHING if power < VANISHES else _widened(settle(column), power)
        for column, power in zip(columns, rates, strict=True)
    ]
    larger = max((abs(one.value) for one in sides if one.is_known), default=0.0)
    left, right = (
        one.value if _is_known_well(one, larger) else float("nan") for one in sides
    )

    def result(verdict: Verdict, found: Estimate = NOTHING) -> FiniteDifference:
        step = float(ladder.steps[found.level]) if found.is_known else float("nan")
        return FiniteDifference(
            found.value, found.error, step, ladder.evaluations, verdict, left, right
        )

    values, there = [ladder.minus, ladder.plus], _sides_there(ladder)
    wanted = [(side + 1) // 2] if side else [0, 1]
    if not np.isfinite(ladder.centre) or not set(wanted) & set(there):
        return result("nan")
    if not set(wanted) <= set(there):
        only = sides[there[0]]
        return result("one-sided", only if _is_known_well(only, 0.0) else NOTHING)
    if any(jumps(ladder, noise, values[s]) for s in wanted):
        return result("jump")
    if side:
        found = _one_sided(ladder, all_tables, sides[wanted[0]], side)
        known = _is_right_one_sided(ladder, found, noise, order, side)
        return result("ok" if known else "unresolved", found)
    verdict, found = _two_sided(
        ladder, all_tables, min(column.end for column in columns)
    )
    if verdict == "kink":
        doubt = _doubt_of_a_kink(ladder, noise, all_tables)
        if doubt is not None:
            end, least = doubt
            inner = levels_below(ladder, end)
            if not len(inner.places):
                return result("unresolved")
            return _at_least(judge(inner, noise[:end], order, side), least)
    if order == 1 and verdict == "ok" and _is_contradicted(ladder, found, noise):
        return result("unresolved")
    if order == 1 and _differs_near_zero(ladder, noise, verdict, found, left, right):
        return result("unresolved")
    if (
        verdict == "kink"
        and np.isnan([left, right]).all()
        and _is_kink_unknown(ladder, noise, order, side)
    ):
        return result("unresolved")
    if verdict == "ok":  # Both one-sided derivatives equal the derivative.
        left = right = found.value
    return result(verdict, found)


def _sides_there(ladder: Ladder) -> list[int]:
    """Return the sides of x, 0 (left) and 1 (right), on which f is finite near x.

    Only the two smallest steps are tested, because larger steps may lie outside the
    domain of f. If x is about 0, the isolated smallest steps are left out, because a
    formula may underflow there.
    """
    values = [ladder.minus, ladder.plus]
    first = int(np.argmax(reach(ladder.exponents) > 1))
    return [s for s in (0, 1) if np.isfinite(values[s][first : first + 2]).all()]


def _is_right_one_sided(
    ladder: Ladder, found: Estimate, noise: np.ndarray, order: int, side: int
) -> bool:
    """Return whether an estimate of `_one_sided` is known, and values agree with it."""
    if not _is_known_well(found, _flat(ladder, order)):
        return False
    return not (
        order == 1
        and (
            _is_contradicted(ladder, found, noise)
            or _is_slope_beside_x(ladder, found, noise, side)
        )
    )


def _is_kink_unknown(ladder: Ladder, noise: np.ndarray, order: int, side: int) -> bool:
    """Return whether a kink without known slopes is doubtful.

    If neither slope is known, nothing shows a kink at order 1. At a higher order, the
    result is True if the derivative of one order less is "unresolved".
    """
    return order == 1 or judge(ladder, noise, order - 1, side).verdict == "unresolved"


def _one_sided(ladder: Ladder, all_tables: Tables, found: Estimate, side: int):
    """Return a one-sided estimate with its bound widened as in `_two_sided`.

    If f oscillates too much for a derivative, the result has no estimate.
    """
    if not found.is_known or _is_rough(ladder, len(all_tables.gaps)):
        return NOTHING
    least = max(
        slow_error(found, all_tables.right if side > 0 else all_tables.left),
        _of_rounded_x(ladder, all_tables, found.level),
    )
    return found._replace(error=max(found.error, least))


def _is_contradicted(ladder: Ladder, found: Estimate, noise: np.ndarray) -> bool:
    """Return whether quotients in the smallest windows stay away from the estimate.

    The points of a window are not at the distances 2^k of the levels. So they reveal an
    f that repeats itself whenever the distance doubles: its quotients are the same at
    all levels. If f has a derivative, the quotients (f - f(x)) / distance approach it
    from window to window.
    """
    apart = window_points(ladder) - ladder.x
    quotients = (ladder.windows - ladder.centre) / apart
    away = np.max(np.abs(quotients - found.value), axis=1)
    least = np.min(np.abs(apart), axis=1)
    unsure = 4 * found.error + 8 * noise[ladder.places] / least
    unsure += ladder.epsilon * abs(ladder.centre) / least
    shown = np.isfinite(away) & (away > unsure)
    if shown.sum() < _THREE:
        return False
    j = int(np.argmax(shown))
    some = slice(j, j + _THREE)
    return bool(
        shown[some].all()
        and len(away[some]) == _THREE
        # A smaller window that could show the difference does not.
        and not (unsure[:j] < away[j]).any()
        and (away[some][:-1] > 0.8 * away[some][1:]).all()
    )


def _is_slope_beside_x(
    ladder: Ladder, found: Estimate, noise: np.ndarray, side: int
) -> bool:
    """Return whether f follows a line of the estimated slope, but the line misses f(x).

    Far from its bend, a function such as softplus is a straight line. If noise hides
    the bend in the quotients, quotients at large steps converge to the slope of this
    line, which is not the derivative at x. The distance of f(x) from the line shows
    this: it is the same at several steps, and larger than the noise. If the estimate is
    the derivative, the distance shrinks at least in proportion to the step.
    """
    h = ladder.steps
    rest = ladder.changes[(side + 1) // 2] - side * found.value * h
    with np.errstate(invalid="ignore", divide="ignore"):
        shown = np.abs(rest) > _MISSED * noise + found.error * h
        level = np.abs(rest[1:] / rest[:-1])
        flat = shown[1:] & shown[:-1] & (level < _LEVEL) & (level > 1 / _LEVEL)
    flat &= np.sign(rest[1:]) == np.sign(rest[:-1])
    run = flat[: found.level + 1]
    return bool((run[1:] & run[:-1]).any())


def _differs_near_zero(
    ladder: Ladder,
    noise: np.ndarray,
    verdict: Verdict,
    found: Estimate,
    left: float,
    right: float,
) -> bool:
    """Return whether, for x = 0, the isolated smallest steps contradict the result.

    They contradict a derivative if they show another slope, and a kink if they show
    another difference of the slopes.
    """
    alone = np.diff(ladder.exponents, append=np.inf) > 1
    alone &= ladder.exponents < 0
    if verdict not in ("ok", "kink") or ladder.x or not alone.any():
        return False
    changes, steps = ladder.changes[:, alone], ladder.steps[alone]
    slopes = changes / steps * np.array([[-1.0], [1.0]])
    # A change that may have underflowed, or that rounding may hide, shows nothing.
    tiny = (np.abs(changes) < _UNDERFLOW) & (abs(ladder.centre) < _UNDERFLOW)
    least = np.maximum(noise[alone], ladder.epsilon * abs(ladder.centre))
    unsure = 4 * least / steps
    shown = np.isfinite(slopes) & ~tiny
    if verdict == "ok":
        # Slopes that converge come closer at smaller steps.
        nearest = ladder.changes[:, len(steps)] / ladder.steps[len(steps)]
        before = np.max(np.abs(nearest * [-1.0, 1.0] - found.value))
        away = np.abs(slopes - found.value)
        return bool((shown & (away > 4 * found.error + unsure + 2 * before)).any())
    jump = right - left
    if not np.isfinite(jump):  # The smallest of the other steps show it, too.
        lowest = ladder.changes[:, len(steps)] / ladder.steps[len(steps)]
        jump = lowest.sum()
    away = np.abs(slopes[1] - slopes[0] - jump) > abs(jump) / 2
    return bool((shown.all(axis=0) & away & (abs(jump) > 4 * unsure)).any())


def _two_sided(ladder: Ladder, found: Tables, end: int) -> tuple[Verdict, Estimate]:
    """Return the verdict and the estimate for an f that is continuous at x.

    The function f must be defined on both sides of x.
    """
    columns = [best_of_each_level(*both) for both in _both_gaps(found)]
    gaps = [settle(column) for column in columns]
    for gap, table in zip(gaps, found.gaps, strict=True):
        verdict = _of_gap(gap, table, ladder.exponents)
        if verdict != "ok":
            return verdict, NOTHING
    # Larger steps cross a kink beside x. Smaller steps show no kink at x.
    end = min(end, *(column.end for column in columns))
    power = rate(found.central, ladder.exponents)
    if power < VANISHES or _is_rough(ladder, len(found.gaps)):
        return "unresolved", NOTHING
    one = _widened(settle(best_of_each_level(found.central, found.even), end), power)
    if not one.is_known:
        return "unresolved", one
    larger = [
        np.abs(table.values[0, one.level :])
        for table in (found.central, found.gaps[-1])
    ]
    scale = max(float(np.nanmax(larger, initial=0.0)), _flat(ladder, len(found.gaps)))
    jump = abs(gaps[-1].value) if gaps[-1].is_known else 0.0
    least = _HALF * jump if jump > _SHOWN * gaps[-1].error else 0.0
    gap = found.gaps[-1]
    shrinks = growth(np.abs(gap.values[0]), gap.noise[0], ladder.exponents)
    if gaps[-1].is_known and _is_one_power(*shrinks):
        # A kink may hide below a power of the step that is even about x.
        least = max(least, _HALF * (jump + _widened(gaps[-1], shrinks[0]).error))
    least = max(least, slow_error(one, found.central, found.even))
    least = max(least, _of_rounded_x(ladder, found, one.level))
    least = max(least, _of_next_jump(ladder, found, one.level))
    one = one._replace(error=max(one.error, least))
    return ("ok" if _is_known_well(one, scale) else "unresolved"), one


def _doubt_of_a_kink(
    ladder: Ladder, noise: np.ndarray, found: Tables
) -> tuple[int, float] | None:
    """Check whether a kink that larger steps show may lie beside x instead of at x.

    Beside the knot of a spline, larger steps show a jump J_m of the derivative of order
    m, but f is smooth at x. If the derivative of order p jumps at the distance d from
    x, J_m / J_(m+1) = d / (p - m). It is assumed that p - m is at most 3. Then d is at
    most D = 3 |J_m / J_(m+1)|. If the jump is at x, the steps below D show it, too.

    Returns:
      None if the steps below D show the jump, or if all steps are below D. Otherwise
      (index of the first step of at least D, smallest error bound that an estimate from
      the smaller steps may have). This bound is 0 if the smaller steps exclude the
      jump. Otherwise they may hide it, and the bound is 0.6 |J_m|, or infinite if m is
      below the requested order.
    """
    jumps = [settle(best_of_each_level(*both)) for both in _both_gaps(found)]
    after = [*jumps[1:], settle(best_of_each_level(found.next_jumps[0]))]
    for m, jump in enumerate(jumps):
        if _of_gap(jump, found.gaps[m], ladder.exponents) != "ok":
            break
    largest = abs(after[m].value) + after[m].error if after[m].is_known else np.inf
    shift = _KNOT * (abs(jump.value) / largest if jump.is_known else 0.0)
    end = int(np.searchsorted(ladder.steps, shift))
    if end == len(ladder.steps):
        return None
    least = _HALF * abs(jump.value) if m + 1 == len(jumps) else np.inf
    if end < LOWEST:  # So few steps show nothing.
        return end, least
    inner = tables(levels_below(ladder, end), noise[:end], len(jumps))
    below = settle(best_of_each_level(*_both_gaps(inner)[m]))
    shows = below.is_known and abs(below.value) > below.error
    if shows and below.value * jump.value > 0:
        return None
    excluded = below.is_known and abs(below.value) + below.error < abs(jump.value) / 2
    return end, 0.0 if excluded else least


def _at_least(found: FiniteDifference, least: float) -> FiniteDifference:
    """Return the result with an error of at least `least`.

    If this error is too large, the verdict is "unresolved".
    """
    if found.verdict != "ok" or found.error >= least:
        return found
    known = least <= CONFIDENT * abs(found.value)
    return found._replace(error=least, verdict="ok" if known else "unresolved")


def _both_gaps(found: Tables) -> list[tuple[Table, Table]]:
    """Return, for each order, the two tables of the jump of the derivative."""
    return list(zip(found.gaps, found.jumps, strict=True))


def _of_rounded_x(ladder: Ladder, found: Tables, level: int) -> float:
    """Return ε |x f^(n+1)|, the change of the derivative if f rounds x.

    The function f may compute with a rounded x, or its intermediate results may be
    those of another x. Near a pole or an edge of f this changes the derivative, but
    shows no noise.
    """
    order = len(found.gaps)
    # The formula from one side is the derivative at the mean of its nodes.
    mean = ladder.steps[level] * (2.0**order - 1) / (order + 1)
    gap = abs(found.gaps[-1].values[0, level])  # 2 mean f^(n+1).
    # In this order, because f^(n+1) may overflow.
    return float(np.nan_to_num(ladder.epsilon * (abs(ladder.x) / (2 * mean)) * gap))


def _of_next_jump(ladder: Ladder, found: Tables, level: int) -> float:
    """Return the error of the estimate if a higher derivative jumps beside x, else 0.

    Let n be the order of the derivative. If its derivative of order n + 2 jumps at a
    distance d from x, as at the knot of a spline, steps h that are much larger than d
    show a jump J of the derivative of order n + 1. This jump is visible at smaller
    changes of f than the errors that it causes. There are two cases:

    - The estimate is extrapolated as a series in h². The central quotient has the error
      c |J| h, where c depends only on n, and the extrapolation leaves most of it.
    - The estimate is extrapolated as a series in h. An error of |J| d / 4 remains, or
      of |J| d / 6 if the derivative of order n + 3 jumps. Let K be the jump of the
      derivative of order n + 2 that the step h shows. Then d is |J / K|, or 2 |J / K|
      if the derivative of order n + 3 jumps, so the error is at most J² / (3 |K|).
    """
    step = float(ladder.steps[level])
    jump, after = (_known_jump(table, level) for table in found.next_jumps)
    of_h = found.central.bounds[:, level]
    bounds = np.append(of_h, found.even.bounds[:, level])
    if np.argmin(bounds) < len(of_h):
        distance = jump / after if after else np.inf
        return _AWAY * jump * distance if distance < _NEAR * step else 0.0
    error = _LINEAR * _share_of_next_jump(len(found.gaps)) * jump * step
    return error if error < _SEEN * bounds.min() else 0.0


def _known_jump(table: Table, level: int) -> float:
    """Return the absolute value of a jump if a level of its table shows it, or 0.

    The level shows the jump in two cases:

    - The best estimate exceeds twice its bound.
    - One of the first three extrapolations is about the same at half or at twice the
      step: it exceeds twice the sum of this change and of its noise. If there are
      several, the smallest counts. This case matters if a large step crosses a second
      jump: the bounds are then too large.
    """
    column = best_of_each_level(table)
    best = abs(float(column.values[level]))
    values = table.values[_FIRST]
    apart = np.abs(np.diff(values))[:, max(level - 1, 0) : level + 1]
    unsure = np.nan_to_num(apart, nan=np.inf).min(axis=1, initial=np.inf)
    unsure += _NOISES * table.noise[_FIRST, level]
    sizes = np.abs(values[:, level])
    steady = sizes[sizes > _TWICE * unsure]
    return max(
        best if best > _TWICE * column.bounds[level] else 0.0,
        float(steady.min()) if len(steady) else 0.0,
    )


@lru_cache(maxsize=HIGHEST_ORDER)
def _share_of_next_jump(order: int) -> float:
    """Return c in the error c J h of the central quotient at the step h.

    J is a jump of the derivative of order `order` + 1 at x.
    """
    weights, _ = formula(order, 0)
    powers = (2.0 ** np.arange(weights.shape[1])) ** (order + 1)
    # J adds J t^(n+1) sign(t) / (2 (n+1)!) to f.
    signs = np.array([[(-1.0) ** order], [1.0]])
    return abs(float(np.sum(weights * signs * powers))) / (
        2 * math.factorial(order + 1)
    )


def _widened(found: Estimate, power: float) -> Estimate:
    """Widen the bound if the quotients converge with a power below 1, as for x √x."""
    if not 0 < power < _SLOW:
        return found
    return found._replace(error=2 * found.error / (2**power - 1))


def _is_rough(ladder: Ladder, order: int) -> bool:
    """Return whether f oscillates at all distances too much for a derivative.

    The windows then show noise that grows with a power of the distance: with power 1
    for x cos(1 / x) at 0, with power 0.63 for Weierstrass's function. A derivative of
    order n needs a power above n. Rounding errors and other noise do not grow by a
    power at four windows in a row, and by at least 0.25 bits from each to the next.
    """
    noise = windows_noise(ladder)
    bits = np.log2(noise / rounding(ladder)[ladder.places])
    # If f - f(x) is all noise, its rounding errors grow with it, and bits do not.
    change = np.max(np.abs(ladder.windows - ladder.centre), axis=1)
    is_all = noise > _ALL * change
    powers = ladder.exponents[ladder.places]
    for first in range(len(bits) - _FOUR + 1):
        some = slice(first, first + _FOUR)
        if not (bits[some] > _LOUD).all() or np.ptp(powers[some]) != 3 * APART:
            continue
        for sizes in (bits, np.log2(noise))[: 1 + bool(is_all[some].all())]:
            rises = np.diff(sizes[some])
            mean = float(np.mean(rises)) / APART
            if rises.min() > _RISE and _STEADY < mean < order + _STEADY:
                return True
    return False


def _of_gap(found: Estimate, gap: Table, powers: np.ndarray) -> Verdict:
    """Return "ok" if the one-sided derivatives agree, else "kink" or "unresolved".

    Args:
      found: Estimate of the right derivative minus the left one.
      gap: Table of this difference.
      powers: log2 of the steps, shape (levels,).
    """
    power, sizes, misfit = growth(np.abs(gap.values[0]), gap.noise[0], powers)
    if power >= VANISHES:  # The sides may meet slowly, as for |x|^1.25 at 0.
        found = _widened(found, power)
    share = (
        abs(found.value) / max(found.error, np.finfo(np.float64).tiny)
        if found.is_known
        else 0.0
    )
    # A kink beside a curvature changes the quotients by no single power.
    if _is_one_power(power, sizes, misfit):
        return "ok" if share <= 1 else "unresolved"
    if share > _SHARP:
        return "kink"
    if power < VANISHES:
        return "kink" if np.max(sizes) <= 1.3 * np.min(sizes) else "unresolved"
    return "ok" if share <= 1 else "kink" if share > _CLEAR else "unresolved"


def _is_one_power(power: float, sizes: np.ndarray, misfit: float) -> bool:
    """Return whether sizes shrink slowly, with one power of the step at many steps.

    The arguments are a result of `growth`.
    """
    slow = VANISHES <= power < _SLOW
    return slow and misfit < _STRAIGHT and len(sizes) >= _LONG


def _is_known_well(found: Estimate, scale: float) -> bool:
    return found.is_known and found.error <= CONFIDENT * max(abs(found.value), scale)


def _flat(ladder: Ladder, order: int) -> float:
    """Return the size below which a derivative of this order counts as 0.

    Over the distance max(|x|, 1), a derivative of that size changes f by about the
    fraction _FLAT of |f|.
    """
    unit = max(abs(ladder.x), 1.0)
    near = np.append(
        ladder.centre,
        np.stack([ladder.plus, ladder.minus])[:, ladder.steps <= 2 * unit],
    )
    # Not the largest, which may be beside a pole.
    sizes = np.sort(np.abs(near[np.isfinite(near)]))[-_THIRD:]
    size = _FLAT * float(sizes[0] / np.float64(unit) ** order)
    # The bound of `settle` is at least the smallest normal number, also where f is 0.
    return max(size, 2 * float(np.finfo(np.float64).tiny) / CONFIDENT)


def _point(x: Any) -> float:
    check_not_deleted("x", x)
    try:
        array = np.asarray(x)
    except ValueError:  # The parts of a sequence have different shapes.
        array = np.asarray(None)
    # The kind of bfloat16 is "V", as of all dtypes that NumPy does not know.
    is_real = array.dtype.kind in "fiu" or array.dtype.name == "bfloat16"
    if isinstance(x, numbers.Real | Decimal | np.bool_) and not is_real:
        raise TypeError(
            "x must be one real number: a float, or an integer of at most 64 bits; got "
            f"x={shown(x)}, of type {type(x).__name__}. Pass float(x)."
        )
    if array.ndim or not is_real:
        raise TypeError(
            f"x must be one real number; got x={x!r}. Call finite_difference for each "
            "of several points. For the gradient of a function of several numbers "
            "call gradient(f, x)."
        )
    if not math.isfinite(float(array)):
        raise ValueError(
            f"x must be finite; got x={x!r}. For a limit at infinity substitute 1 / x."
        )
    return float(array)


def _order(order: Any) -> int:
    try:
        number = operator.index(order)
    except TypeError:
        number = 0
    if number < 1 or isinstance(order, bool):
        raise ValueError(
            f"order must be an integer from 1 to {HIGHEST_ORDER}; got "
            f"order={shown(order)}."
        )
    if number > HIGHEST_ORDER:
        raise ValueError(
            f"order must be 1 to {HIGHEST_ORDER}; got order={order!r}. The noise of f "
            "hides differences of higher orders. Call derivative(f, x, order=n), which "
            "differentiates the program."
        )
    return number
