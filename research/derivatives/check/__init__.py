"""Check of a derivative against values of the function.

The check tests the slopes, the order of the Taylor remainder, and the dot products of
forward and reverse mode. It also reports the smallest error that it would have
detected.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from research.checks import check_callable, check_key, refuse_traced
from research.derivatives._float64 import in_float64
from research.derivatives.check.line import (
    NO_RULE,
    Leaf,
    Line,
    ValuesOfJax,
    is_partial_of_jax,
    least_precise,
    lift,
)
from research.derivatives.check.nearby import (
    Neighbourhood,
    Range,
    slopes_nearby,
    slopes_of_all_pieces,
    witness_against,
    witnesses,
)
from research.derivatives.check.report import (
    AT_ZERO,
    NOT_ZERO,
    CheckReport,
    Probe,
    at_the_edge,
    beyond_range,
    coarse_derivative,
    coarse_in,
    explained,
    hiding,
    leaping,
    not_finite_in,
    other_gradients,
    other_values,
    underflowing,
    vanishing,
    wrong_beside,
)
from research.derivatives.check.rounding import OF_CONSTANTS, ROUNDINGS
from research.derivatives.check.underflow import Underflow
from research.derivatives.check.values import Values
from research.derivatives.exact.arguments import floating, title
from research.tracing import LOOKS_AT_VALUES

__all__ = ["CheckReport", "Probe", "check_derivative"]

RANDOM = 8  # Number of random directions.
MISSED = 0.01  # Chance that an error of the reported size escapes all directions.
SAFETY = 5  # Factor on the error estimate of the differences.
# A gradient below this many rounding errors of a slope may be pure rounding.
ZERO = 4
# A check that could not catch a relative error of this size is inconclusive.
RESOLVED = 1e-3
# A check is also inconclusive if an error of this size may hide in a single leaf. This
# bound is larger, because only one direction is that of the leaf.
HIDDEN = 0.1
# If even an error of the size of the gradient could be missed, an error of less than so
# many times this size may be chance.
WHOLE = 4.0
# If the gradients of f in two precisions differ by this share, and by more than 32 ε,
# they are gradients of different functions.
OTHER_VALUE = 1e-3
# If the rounding error of f along one direction is so many times the one along another,
# and hides the slope, f jumps.
MANY_TIMES = 1e6
# Largest number of times that a leaf with a kink, or its parts, are halved.
SPLITS = 24


def check_derivative(
    f: Callable[..., Any],
    x: Any,
    key: jax.Array,
    derivative: Callable[..., Any] | None = None,
) -> CheckReport:
    """Check the derivative of f at x against values of f around x.

    The result is a report with one of five verdicts: "right", "wrong", "kink" (f has no
    derivative at x), "nan" (f or the derivative is not finite) or "unresolved" (the
    values of f do not decide). If the verdict is not "right", the report also gives the
    reason. The rest of this text says how the check decides.

    The check compares the derivative with slopes of f along several directions v:

    - eight random directions;
    - the direction of the gradient;
    - if x has several leaves, one random direction for each leaf, which moves only this
      leaf;
    - if some, but not all, entries of x are 0, one random direction that moves only
      these entries, and one that moves only the others.

    Within each leaf, the entries of v are about as large as the entries of x. The slope
    of f along v is the derivative of f(x + h v) with respect to h at h = 0. The check
    evaluates f(x + h v) at h = 0, ±1, ±1/2, ..., ±2^-26. Extrapolated central
    differences then give the slope with an error estimate. If f varies too much within
    a step, the check uses shorter steps. If rounding errors hide how f changes, it uses
    longer steps.

    The tested derivative along v counts as wrong if it differs from the slope by more
    than five times the error estimate of the slope plus ten times the rounding errors
    of the slope and of the derivative. If x is not in float64, the user's `derivative`
    may contain constants in float32. The rounding error of the derivative is then
    assumed to be at least that of float32. The check gives the verdict "wrong" or
    "kink" only if other step lengths confirm this verdict.

    The check measures the rounding error of f. To do so, it evaluates f again and
    perturbs the result of each operation by eight times the rounding error of this
    result. So the check does not mistake cancellation inside f, or a zero of f at x,
    for an error of the derivative. If the derivative seems wrong, the check measures
    the rounding error of the derivative in the same way. For example, near 0 the
    derivative of (1 - cos(x)) / x² loses all digits at points where the values of the
    function still have some correct digits.

    All errors are relative to the norm of the gradient, so the scales of f and x do not
    matter. There is no tolerance to choose. Instead, the report shows the smallest
    error that the check would have detected. If f has several outputs, the check uses
    the inner product ⟨w, f⟩ instead of f, with random weights w for each direction.

    At a kink of f along v, the quotients (f(x + h v) - f(x)) / h have two different
    limits for h -> 0: the right slope for h > 0, and the left slope for h < 0. If f is
    smooth and only the derivative is wrong, the two slopes are equal. So the check can
    distinguish a kink from a bug. If a kink lies beside x, and the rounding error of f
    hides its distance from x, the kink counts as a kink at x.

    If f has a kink, the check still tests the derivative in the leaves without a kink.
    In a leaf with a kink, the check tests those entries of the leaf in which JAX's
    gradient does not jump near x. The check also halves such a leaf and its parts, at
    most 24 times, and tests the derivative in the parts without a kink. Along a
    direction with a kink, the derivative must lie between the left slope and the right
    slope.

    If the derivative seems wrong, or if the verdict would be "kink", the check also
    tests the derivative beside x, where f is smooth even if f has a kink at x. The
    check compares the derivative with the slope of f at fourteen points close to x: ten
    in random directions, and four in directions whose entries all have one sign. If the
    derivative and the slope differ by more than 1e-4 of the gradient's norm at two or
    more of these points, the verdict is "wrong". If a smooth piece of f contains none
    of these points, an error of the derivative in this piece is not found. If
    `derivative` returns the same value at all points, this test is omitted.

    If f compares several numbers that are equal, as in max(min(x, y), z) or in a
    median, the derivative may not exist, even if the left and the right slope are equal
    along every line through x. JAX then returns the gradient of one smooth piece of f,
    or a mean of such gradients. So if the derivative seems wrong at x, but not at the
    fourteen points beside x, the check also computes slopes at points close to x. If
    these slopes differ, and the derivative lies between the smallest and the largest of
    them, the verdict is "kink". Clarke's generalised gradient is the set of weighted
    means of the gradients of the smooth pieces. Each element of this set meets the
    condition, but other vectors can meet it, too.

    JAX chooses one side of each kink. If many kinks meet at x, there may be no piece of
    f on all of these sides. An example is a sum of leaky rectifiers whose inputs are
    all 0 at x. JAX takes the slope 1 for each of them, although there may be no point
    at which all inputs are positive. So the verdict is also "kink" if two conditions
    hold. First, the derivative is right at points close to x. Second, the jumps of the
    derivative on a half circle around x are so large that they explain the distance
    between the derivative and the slope at x. If neither this test nor the test of the
    previous paragraph explains the error, the verdict is "wrong".

    If f accepts float64, the check evaluates f and its derivative in float64, even if x
    has a lower precision or float64 is disabled. The check compiles f and JAX's
    derivatives of f, unless f or a custom rule inside f needs concrete arguments. If f
    converts numbers to a lower precision, the check assumes the rounding error of that
    precision, and the report says so.

    If JAX cannot trace f, the operations of f are not known. The check then assumes the
    lowest precision that can represent the values of f near x. If only float64 can
    represent the values, a part of f may still be rounded to float32. Such a part is
    constant between neighbouring numbers of float32. So slopes of f between points that
    are much closer to each other do not show how this part changes. The check compares
    these slopes with the change of f over a few numbers of float32. If the slopes do
    not explain this change, the check assumes float32. If f calls a function by
    `pure_callback`, the check examines the values of f in the same way. If one part of
    f is in float16 and another in float64, the check does not recognise the float16. A
    right derivative may then be reported as "wrong".

    If JAX cannot trace f and f has one output, the check also notices if f rounds its
    value to a few digits. But the values alone do not show whether f is a rounded
    smooth function or a step function like floor. The check assumes a step function if
    the derivative is 0 along a direction, and rounding otherwise.

    `where` selects one of two branches. If the derivative of the other branch is not
    finite at x, reverse mode returns nan. An example is where(x == 0, 1, sin(x) / x) at
    0. The verdict is then "nan", and the report says how to rewrite f. The verdict is
    also "nan" if the derivative is right in float64, but not finite in the precision of
    x.

    The check compares the derivative with values of f. A derivative that is right only
    on average over random draws is "wrong". An example is JAX's derivative of
    `jax.random.gamma` at a fixed key. Functions that use `gamma`, such as `beta`,
    `chisquare` and `t`, are further examples. JAX's rule for `gamma` gives the
    derivative of a quantile of the distribution. At a fixed key, the number that is
    drawn changes in another way than the quantile.

    If the derivative is exactly 0, an error cannot be relative to the derivative. The
    verdict "right" then means that the error is small relative to the change of f over
    a step.

    Near an entry of x that is 0, f may vary over very short distances, because floats
    are dense there. The check detects such variation over distances down to about
    1e-70. If a part of f is in a lower precision than float64, or if JAX cannot trace
    f, the limit is about 1e-24. If f(x) is so large that rounding hides how f varies
    near such an entry, but JAX's derivative shows that f varies, the verdict is
    "unresolved".

    The verdict is "unresolved" in these cases:

    - The derivative is not 0 but no larger than its rounding error, so its sign is
      unknown.
    - The check could not have detected a relative error of 1e-3.
    - The check could not have detected an error of a tenth of the gradient's norm that
      lies in a single leaf of x. The entries of such a leaf are so small that steps in
      this leaf hardly change f. The report names the leaf. (All errors are relative to
      the whole gradient. So if the gradient of a leaf is shorter than about 1e-13 times
      the whole gradient, the check may miss even a large relative error in this leaf.)
    - The slope of f times a step of the size of x is beyond the range of float64.
    - The derivative seems wrong, but some numbers are so close to 0 that they have too
      few digits as floats, or are rounded to 0. These may be numbers inside f or inside
      the derivative, or all entries of a leaf of x. In float64, numbers inside f are
      too close to 0 below about 1e-292, and a leaf of x is too close to 0 if the root
      mean square of its entries is below 2e-305. If JAX cannot trace f, the check knows
      only x, not the numbers inside f. The check does not notice complex numbers that
      are too close to 0.
    - f varies so fast that neighbouring floats do not show a smooth function. Examples
      are sin(1e20 x), and the fractional part of 1e20 x.
    - The slopes from long and from short steps differ, and neither slope agrees with
      the derivative. An example is an f with a fast wave that is hardly larger than the
      rounding error of f.
    - f seems to jump at x: along at least one direction, the values of f beside x do
      not approach f(x). An example is a `where` that sets f(x) to another number than
      the limit of f at x.
    - `derivative` seems wrong, but f has another gradient in float64 than in the
      precision of x. Examples are an f that draws random numbers without a dtype, and a
      gradient whose digits cancel close to a minimum.

    Args:
      f: Function of one pytree of floating JAX arrays that returns one floating array.
        If `derivative` is given, f may use NumPy and return a NumPy array or a float.
        If f is a `jax.tree_util.Partial`, JAX compiles it only once, and later checks
        with other values of the bound arguments are fast. But these checks ignore later
        changes of custom rules and of data outside f.
      x: Point of evaluation.
      key: Random key from which the directions are drawn.
      derivative: Function of x that returns the derivative to check. The result must
        have the form that `gradient` returns if f has one output, and the form that
        `jacobian` returns otherwise. If `derivative` is None, the check tests JAX's
        forward and reverse derivatives of f, including the custom derivative rules
        inside f.
    Returns:
      The `CheckReport`. `print` shows it as a text.
    Raises:
      NotInexactError: A leaf of x or the value of f is not floating.
      ValueError: x has no entries, an entry of x is NaN, or `derivative` returns
        another structure or shape than the gradient or the Jacobian.
      TypeError: f or `derivative` is not a function of one argument, or key is not a
        key.
    References:
      Ridders, Accurate computation of F'(x) and F'(x) F''(x), Adv. Eng. Softw. 4, 1982
      (the extrapolation).
      Clarke, Optimization and nonsmooth analysis, 1983, section 2.5 (the generalised
      gradient).
      Griewank & Walther, Evaluating derivatives, 2nd ed., 2008, section 3 (forward and
      reverse mode as adjoints).
    Example:
      >>> f, key = lambda x: jnp.sum(jnp.sin(x) ** 2), jax.random.key(0)
      >>> report = check_derivative(f, jnp.ones(3), key)
      >>> report.verdict, report.smallest_error < 1e-8
      ('right', True)
      >>> wrong = lambda x: 2.0002 * jnp.sin(x) * jnp.cos(x)
      >>> check_derivative(f, jnp.ones(3), key, wrong).verdict
      'wrong'
    """
    check_callable("f", f, "x")
    refuse_traced("check_derivative", x=x, key=key)
    check_key("key", key)
    if derivative is not None:
        check_callable("derivative", derivative, "x")
    x = floating(x, "x")
    # The program of a Partial that JAX can trace is kept.
    if derivative is not None and not is_partial_of_jax(f, x):
        f = ValuesOfJax(f)
    _check_entries(x)
    random = np.random.default_rng(
        np.asarray(jax.random.key_data(key)).ravel().tolist()
    )
    own = (
        None
        if all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(x))
        else Line(f, x, derivative)
    )
    of_own = own.of_mean if own else None
    with in_float64(), np.errstate(all="ignore"):
        line, lowest = _lifted_line(f, x, derivative, own is not None)
        directions = _directions(line, random)
        epsilon = float(jnp.finfo(lowest).eps)
        found = _found_along(line, epsilon, directions, random)
        in_full = line.of_mean if of_own is not None and lowest == np.float64 else None
    gap = float("nan")
    if in_full is not None and of_own is not None:
        with np.errstate(all="ignore"):
            gap = _relative(of_own - in_full, in_full)
            gap = gap if np.isfinite(of_own).all() else float("inf")
    with in_float64(), np.errstate(all="ignore"):
        report = _report(tuple(found), line, _precision(x, lowest, line), gap)
        if report.verdict == "kink":
            report = _tested_beside(report, line, epsilon, directions[0], found, random)
    if own is not None and report.verdict == "right":
        return _with_own_precision(report, x, title(f), of_own)
    if own is None or derivative is None or report.verdict != "wrong":
        return report
    return _unless_computed_otherwise(report, own, of_own, line)


def _check_entries(x: Any) -> None:
    """Raise ValueError if x has no entries, or if one is NaN."""
    if not sum(leaf.size for leaf in jax.tree.leaves(x)):
        raise ValueError(
            "x must have at least one entry to differentiate with respect to; got "
            f"x={x!r}."
        )
    for path, leaf in jax.tree.leaves_with_path(x):
        # NumPy compiles nothing for this.
        if missing := int(np.isnan(np.asarray(leaf, np.float64)).sum()):
            raise ValueError(
                f"x must not contain NaN; {missing} of the {leaf.size} entries of "
                f"x{jax.tree_util.keystr(path)} are NaN."
            )


def _lifted_line(
    f: Callable[..., Any],
    x: Any,
    derivative: Callable[..., Any] | None,
    is_lifted: bool,
) -> tuple[Line, Any]:
    """Return the `Line` of f and x in float64, and the lowest precision inside f.

    If f or a custom rule inside f does not accept float64, x is unchanged.
    """
    lifted, lowest = lift(f, x)
    line = Line(f, lifted, derivative, is_lifted)
    if not is_lifted or line.is_differentiable:
        return line, lowest
    return Line(f, x, derivative, is_lifted), least_precise(x)


def _with_own_precision(
    report: CheckReport, x: Any, f: str, gradient: np.ndarray | None
) -> CheckReport:
    """Return the report, extended by how the derivative behaves in the dtype of x.

    The given report has the verdict "right", which holds for float64. The verdict
    becomes "nan" if the derivative is not finite in the dtype of x. If the derivative
    has few correct digits in this dtype, a sentence is added to the explanation.
    """
    dtype, explanation = least_precise(x), report.explanation
    if gradient is not None and not np.isfinite(gradient).all():
        return report._replace(
            verdict="nan",
            smallest_error=float("inf"),
            own_precision_gap=float("inf"),
            explanation=not_finite_in(str(dtype), f),
        )
    if report.own_precision_gap > max(OTHER_VALUE, 32 * float(jnp.finfo(dtype).eps)):
        explanation = f"{explanation} {coarse_in(str(dtype))}".lstrip()
    return report._replace(explanation=explanation)


def _unless_computed_otherwise(
    report: CheckReport, own: Line, given: np.ndarray | None, line: Line
) -> CheckReport:
    """Return the report, as "unresolved" if f computes something else in float64.

    Args:
      report: Report with the verdict "wrong".
      own, given, line: As for `_computes_otherwise`.
    """
    f = own.f
    with in_float64():
        gradient = _gradient_of(f, line.x)
    own_gradient = _gradient_of(f, own.x)
    if not _computes_otherwise(own, given, own_gradient, line, gradient):
        return report
    values = (own.value, line.value)
    if own_gradient is None or gradient is None:
        text = other_values(title(f), *values)
    else:
        apart = _relative(own_gradient - gradient, gradient)
        text = other_gradients(title(f), apart, *values)
    return report._replace(verdict="unresolved", explanation=text)


def _gradient_of(f: Callable[..., Any], x: Any) -> np.ndarray | None:
    """Return JAX's gradient of the mean of f's outputs, or None if there is none.

    f is not compiled, because the derivative that is compared with the gradient was not
    compiled either. If digits cancel, a compiled gradient may differ in all digits.
    """
    try:
        value, pull = jax.vjp(f, x)
        gradient = pull(jnp.full_like(value, 1 / max(value.size, 1)))[0]
    except (*NO_RULE, *LOOKS_AT_VALUES):
        return None
    return np.asarray(ravel_pytree(gradient)[0], np.float64)


def _computes_otherwise(
    own: Line,
    given: np.ndarray | None,
    own_gradient: np.ndarray | None,
    line: Line,
    gradient: np.ndarray | None,
) -> bool:
    """Return whether f computes something else in float64, such as other draws.

    If JAX has both gradients, the result is True under two conditions: the gradients
    differ by more than rounding errors, and the tested derivative agrees with JAX's
    gradient in the precision of x. If JAX lacks a gradient, the result is True if the
    two values of f differ by more than rounding errors.

    Args:
      own, line: f in the precision of x, and in float64.
      given: The tested derivative in the precision of x. None means no agreement.
      own_gradient, gradient: JAX's gradients in the precision of x, and in float64.
        None if JAX has none.
    """
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(own.x))
    allowed = max(OTHER_VALUE, 32 * eps)
    if own_gradient is None or gradient is None:
        own_value, value = (
            np.ravel(np.asarray(each.value, np.float64)) for each in (own, line)
        )
        return _relative(own_value - value, value) > allowed
    if given is None or not _relative(given - own_gradient, own_gradient) <= allowed:
        return False
    return _relative(own_gradient - gradient, gradient) > allowed


class _Direction(NamedTuple):
    """A direction v in the space of x, with weights w in the space of f.

    Suppose that the error of the derivative is a vector in a random direction, and that
    it is δ times as long as the gradient. Then the error of the derivative along v is
    normally distributed. Its standard deviation is δ times a number in `rates`.

    Attributes:
      name: Name of the direction.
      v: Direction, with the flat shape of x.
      w: Weights, with the shape of f's value.
      gradient: Gradient of ⟨w, f⟩, or None if f has no reverse mode.
      scale: Size of a derivative of ⟨w, f⟩ along v.
      rates: Two numbers, for two norms that measure the error and the gradient. The
        first norm is the Euclidean norm. For the second, each leaf of the error and of
        the gradient is multiplied by the size of that leaf of x before the Euclidean
        norm is taken.
      leaf_rates: For each leaf, such a number for an error that is 0 outside this leaf.
        The norm is the Euclidean norm.
    """

    name: str
    v: np.ndarray
    w: np.ndarray
    gradient: np.ndarray | None
    scale: float
    rates: tuple[float, float]
    leaf_rates: tuple[float, ...]


def _directions(line: Line, random: np.random.Generator) -> list[_Direction]:
    once = line.reverse(np.ones(())) if not line.shape else None

    def direction(name: str, v: np.ndarray, part: slice | np.ndarray) -> _Direction:
        w = random.normal(size=line.shape) if line.shape else np.ones(())
        gradient = line.reverse(w) if line.shape else once
        if gradient is None:
            nan = float("nan")
            return _Direction(name, v, w, None, nan, (nan, nan), ())
        scaled = line.scales * gradient
        root = np.sqrt(max(line.flat.size, 1))
        rates = (
            _norm(gradient) * _norm(v) / root,
            _norm(scaled) * _norm(v / line.scales) / root,
        )
        within = [v[leaf.start : leaf.start + leaf.size] for leaf in line.leaves]
        leaf_rates = [
            _norm(gradient) * _norm(own) / max(own.size, 1) ** 0.5 for own in within
        ]
        scale = _norm(scaled[part])
        return _Direction(name, v, w, gradient, scale, rates, tuple(leaf_rates))

    whole, drawn = slice(None), []
    for i in range(RANDOM):
        drawn.append(
            direction(
                f"random {i + 1}",
                random.normal(size=line.flat.shape) * line.scales,
                whole,
            )
        )
    gradient = drawn[-1].gradient
    if gradient is not None and np.isfinite(gradient).all() and gradient.any():
        drawn.append(
            drawn[-1]._replace(
                name="gradient", v=line.scales * _unit(line.scales * gradient)
            )
        )
    for leaf in line.leaves if len(line.leaves) > 1 else ():
        part, v = slice(leaf.start, leaf.start + leaf.size), np.zeros(line.flat.shape)
        v[part] = random.normal(size=leaf.size) * leaf.scale
        drawn.append(direction(f"leaf {leaf.name}", v, part))
    is_zero = line.flat == 0
    if is_zero.any() and not is_zero.all():
        # Around 0, f may vary at any scale, so that much shorter steps are possible.
        v = random.normal(size=line.flat.shape) * line.scales
        for name, part in ((AT_ZERO, is_zero), (NOT_ZERO, ~is_zero)):
            along = np.where(part, v, 0.0)
            drawn.append(direction(name, along, np.flatnonzero(part)))
    return drawn


def _norm(v: np.ndarray) -> float:
    largest = np.max(np.abs(v), initial=0.0)
    return (
        float(largest * np.linalg.norm(v / largest))
        if 0 < largest < np.inf
        else float(largest)
    )


def _unit(v: np.ndarray) -> np.ndarray:
    largest = np.max(np.abs(v))
    return v / largest / np.linalg.norm(v / largest)


def _relative(difference: np.ndarray, whole: np.ndarray) -> float:
    return float(
        np.linalg.norm(difference) / max(np.linalg.norm(whole), np.finfo(float).tiny)
    )


def _within(line: Line, direction: _Direction, part: slice) -> _Direction:
    """Return a direction with all entries outside a part of one leaf set to 0."""
    leaf = next(leaf for leaf in line.leaves if part.stop <= leaf.start + leaf.size)
    name, first = f"leaf {leaf.name}", part.start - leaf.start
    if part.stop - part.start < leaf.size:
        last = part.stop - 1 - leaf.start
        name += f" (entr{'y' if first == last else 'ies'} {first}"
        name += ")" if first == last else f" to {last})"
    v = np.zeros(line.flat.shape)
    v[part] = direction.v[part]
    if direction.gradient is None:
        return direction._replace(name=name, v=v)
    scale = _norm((line.scales * direction.gradient)[part])
    return direction._replace(name=name, v=v, scale=scale, leaf_rates=())


def _of_outputs(line: Line, direction: _Direction, part: slice) -> _Direction:
    """Return a direction with the weights of all outputs outside a part set to 0."""
    last = part.stop - 1
    name = f"output{'' if part.start == last else 's'} {part.start}"
    name += "" if part.start == last else f" to {last}"
    name += f" along {direction.name.rpartition(' along ')[2]}"
    w = np.zeros(direction.w.size)
    w[part] = direction.w.ravel()[part]
    w = w.reshape(direction.w.shape)
    gradient = line.reverse(w)
    cut = direction._replace(name=name, w=w, gradient=gradient, leaf_rates=())
    if gradient is None:
        return cut
    return cut._replace(scale=_norm(line.scales * gradient))


def _found_along(
    line: Line,
    eps: float,
    directions: Sequence[_Direction],
    random: np.random.Generator,
) -> list["_Found"]:
    """Return the results along all directions, then the errors beside kinks."""
    found = [_found(line, eps, direction, i) for i, direction in enumerate(directions)]
    found = _excused_by_kinks(line, eps, directions, found, random)
    leaves = _leaves_with_a_kink(line, directions, found)
    outputs = _outputs_with_a_kink(directions, found)
    seed = len(found)
    found += _errors_in_smooth_entries(line, eps, leaves, seed, random)
    for queue, cut in ((leaves, _within), (outputs, _of_outputs)):
        seed = len(found)
        found += _errors_beside_kinks(
            line, eps, queue, cut, _closest(found), seed, random
        )
    return found


def _errors_in_smooth_entries(
    line: Line,
    eps: float,
    queue: list[tuple[slice, _Direction]],
    seed: int,
    random: np.random.Generator,
) -> list["_Found"]:
    """Return errors of the derivative in the smooth entries of leaves with a kink.

    JAX's gradient jumps at x in the entries that have a kink, so it shows which entries
    to test: all others. The values of f show whether the derivative is right there. If
    most entries of a long leaf have kinks, `_errors_beside_kinks` would have to divide
    the leaf too often.

    Args:
      line, eps, seed, random: As for `_errors_beside_kinks`.
      queue: The leaves with a kink, each with its direction.
    """
    errors = []
    for part, direction in queue:
        way = _within(line, direction, part)
        if way.gradient is None:
            continue
        smooth = line.smooth_entries(way.v, way.w, random)
        v = np.where(smooth, way.v, 0.0)
        if not v.any() or (v == way.v).all():
            continue
        way = way._replace(
            name=f"{way.name} (entries without a kink)",
            v=v,
            scale=_norm((line.scales * way.gradient)[v != 0]),
        )
        each = _found(line, eps, way, seed)
        if not each.probe.is_kink and each.probe.is_off_beside_kinks:
            errors.append(each)
    return errors


def _errors_beside_kinks(
    line: Line,
    eps: float,
    queue: list[tuple[slice, _Direction]],
    cut: Callable[[Line, _Direction, slice], _Direction],
    closest: float,
    seed: int,
    random: np.random.Generator,
) -> list["_Found"]:
    """Return errors of the derivative that lie beside kinks.

    Each part in the queue (the entries of a leaf with a kink, or the outputs) is
    divided into halves. Each half with a kink or an error is divided again. The result
    has the errors in the parts where f has no kink.

    Args:
      line: The function and its point.
      eps: Relative spacing of the floats.
      queue: Parts with a kink, each with its direction.
      cut: Function (line, direction, part) -> the direction within this part.
      closest: Length of the shortest steps along any direction.
      seed: Seed of the first perturbations.
      random: Generator of points near x.
    """
    errors: dict[int, _Found] = {}
    for split in range(SPLITS):
        if not queue:
            break
        part, direction = queue.pop(0)
        middle = (part.start + part.stop) // 2
        for half in (slice(part.start, middle), slice(middle, part.stop)):
            way = cut(line, direction, half)
            each = _found(line, eps, way, seed + split)
            is_off = not each.probe.is_kink and each.probe.is_off_beside_kinks
            if is_off and half.start not in errors:
                shorter = min(closest, each.length)
                each = _excused(line, eps, way, each, shorter, random)
                is_off = not each.probe.is_kink
            if is_off:
                errors.pop(part.start, None)
                errors[half.start] = each
            if (is_off or each.probe.is_kink) and half.stop - half.start > 1:
                queue.append((half, way))
    return list(errors.values())


def _excused_by_kinks(
    line: Line,
    eps: float,
    directions: Sequence[_Direction],
    found: Sequence["_Found"],
    random: np.random.Generator,
) -> list["_Found"]:
    """Return the results, with kinks that the one-sided slopes at x do not show.

    At a tie of max(min(x, y), z), the left and the right slope are equal along many
    directions, but no derivative fits all of these slopes. The slopes at points near x
    show the kink. If they do not explain all errors, the results are unchanged.
    """
    probes, excused = [each.probe for each in found], list(found)
    closest = _closest(found)
    among_kinks = any(probe.is_kink for probe in probes)
    doubtful = [
        i
        for i, probe in enumerate(probes)
        if (probe.is_off_beside_kinks if among_kinks else probe.is_off)
    ]
    for i in sorted(doubtful, key=lambda i: probes[i].floor / probes[i].gap):
        excused[i] = _excused(line, eps, directions[i], found[i], closest, random)
        if excused[i] is found[i]:
            return list(found)
    return excused


def _excused(
    line: Line,
    eps: float,
    direction: _Direction,
    found: "_Found",
    closest_length: float,
    random: np.random.Generator,
) -> "_Found":
    """Return the result with the range of slopes near x, if kinks explain the error.

    `closest_length` is the length of the shortest steps along any direction. If steps
    had to be short, f varies close to x, and kinks farther away are not those of x. If
    the derivative is also wrong beside x, kinks do not explain the error.
    """
    probe = found.probe
    near = _near(line, eps, direction, found, random)
    closest = near._replace(length=closest_length)
    beside = witnesses(closest, probe.scale)
    if witness_against(beside, probe.scale, line.given is not None):
        return found
    for around in (
        lambda: slopes_nearby(near, probe.gap),
        lambda: slopes_of_all_pieces(closest, probe.scale, beside),
    ):
        kink = _as_kink(probe, around())
        if kink.is_kink and not kink.is_off_beside_kinks:
            return found._replace(probe=kink)
    return found


def _closest(found: Sequence["_Found"]) -> float:
    """Return the length of the shortest steps along any direction."""
    return min(each.length for each in found)


def _near(
    line: Line,
    eps: float,
    way: _Direction,
    found: "_Found",
    random: np.random.Generator,
) -> Neighbourhood:
    sizes = (found.size, found.noise, found.length)
    return Neighbourhood(line, way.v, way.w, eps, *sizes, random)


def _as_kink(probe: Probe, around: Range) -> Probe:
    """Return the result with a range of slopes, or unchanged if there is no range."""
    if np.isnan(around.low):
        return probe
    slopes = [*around, *((probe.left, probe.right) if probe.jump else ())]
    low, high = min(slopes), max(slopes)
    return probe._replace(jump=high - low, left=low, right=high, is_nearby=True)


def _tested_beside(
    report: CheckReport,
    line: Line,
    eps: float,
    way: _Direction,
    found: Sequence["_Found"],
    random: np.random.Generator,
) -> CheckReport:
    """Return the report of a kink, as "wrong" if values beside the kink say so."""
    near = _near(line, eps, way, found[0], random)
    near, scale = near._replace(length=_closest(found)), found[0].probe.scale
    witness = witness_against(witnesses(near, scale), scale, line.given is not None)
    if witness is None:
        return report
    text = wrong_beside(title(line.f), witness.derivative, witness.slope)
    return report._replace(verdict="wrong", explanation=text)


def _leaves_with_a_kink(
    line: Line, directions: Sequence[_Direction], found: Sequence["_Found"]
) -> list[tuple[slice, _Direction]]:
    """Return (entries, direction) for each leaf along which f has a kink."""
    kinks = []
    for direction, each in zip(directions, found, strict=True):
        moved = np.flatnonzero(direction.v)
        for leaf in line.leaves:
            part = slice(leaf.start, leaf.start + leaf.size)
            is_own = moved.size and part.start <= moved[0] <= moved[-1] < part.stop
            known = any(part == other for other, _ in kinks)
            if is_own and each.probe.is_kink and leaf.size > 1 and not known:
                kinks.append((part, direction))
    return kinks


def _outputs_with_a_kink(
    directions: Sequence[_Direction], found: Sequence["_Found"]
) -> list[tuple[slice, _Direction]]:
    """Return (all outputs, direction) for the first direction with a kink, if any."""
    pairs = zip(directions, found, strict=True)
    kinks = [way for way, each in pairs if each.probe.is_kink and way.w.size > 1]
    return [(slice(0, way.w.size), way) for way in kinks[:1]]


class _Found(NamedTuple):
    """Result along one direction.

    Attributes:
      probe: Derivative along the direction.
      rates, leaf_rates: Rates of errors, as in `_Direction`.
      vanishes: Whether the gradient is not larger than its rounding error.
      is_flat: Whether the gradient vanishes and f hardly changes over a step. Errors
        are then relative to the size of f.
      size: Lower bound of the rounding error of a value, in units of the relative
        spacing ε of the floats.
      length: Length of the longest step, as a multiple of the direction.
      is_refuted: As in `Values`: whether short steps confirm neither the slope from
        long steps nor the tested derivative.
      leap: Size of the jump of f at x, 0 if there is none.
      noise: Measured rounding error of a value of f beside x.
      hidden_step: A distance from x up to which rounding hides how f changes, although
        JAX's derivative changes. 0 if there is none.
      underflows: Whether numbers inside f are so small that their errors hide the
        slope.
    """

    probe: Probe
    rates: tuple[float, ...]
    leaf_rates: tuple[float, ...]
    vanishes: bool
    is_flat: bool
    size: float
    length: float
    is_refuted: bool
    leap: float
    noise: float
    hidden_step: float
    underflows: bool


def _found(line: Line, eps: float, direction: _Direction, seed: int) -> _Found:
    name, v, w, gradient, scale, rates, leaf_rates = direction
    with np.errstate(all="ignore"):
        backward = float("nan") if gradient is None else _finite(float(gradient @ v))
        forward = line.forward(v, w)
        terms = float(np.sum(np.abs(w * np.asarray(line.value, np.float64))))
        own = abs(forward) if gradient is None else float(np.abs(gradient) @ np.abs(v))
        moved = 0.0 if gradient is None else float(np.abs(gradient) @ np.abs(line.flat))
        known = [size if np.isfinite(size) else 0.0 for size in (terms, moved, own)]
        # Values cannot distinguish steps, as of floor, from rounding. If f cannot be
        # traced, a derivative of 0 belongs to steps, and any other one to rounding.
        may_round = line.jaxpr is None and own > 0
        values = Values(line, v, w, eps, sum(known[:2]), seed, may_round)
        scale = abs(values.slope.value) if np.isnan(scale) else scale
        vanishes = not scale > ZERO * float(np.min(values.slope.unsure)) + eps * sum(
            known
        )
        is_flat = vanishes and not values.change > 1e3 * values.slope.noise[-1]
        if vanishes:  # Make errors relative to the change of f over a step.
            scale = (terms or 1.0) if is_flat else values.change
        enough = RESOLVED * scale / SAFETY
        values.resolve(enough)
        values.approach(enough)
        reported = [rate for rate in (forward, backward) if not np.isnan(rate)]
        floor = _closer_look(line, values, direction, reported, known, enough)
        slope = values.slope
        remainder = values.remainder(backward if np.isfinite(backward) else forward)
    sides = (slope.jump, slope.left, slope.right)
    return _Found(
        Probe(name, forward, backward, slope.value, floor, scale, remainder, *sides),
        rates,
        leaf_rates,
        vanishes,
        is_flat,
        sum(known[:2]),
        values.length,
        values.is_refuted,
        values.leap,
        values.noise,
        values.hidden_step,
        values.underflows,
    )


def _closer_look(
    line: Line,
    values: Values,
    direction: _Direction,
    reported: list[float],
    known: Sequence[float],
    enough: float,
) -> float:
    """Return the distance from the slope above which a rate counts as wrong.

    A rate is a value of the tested derivative along the direction. `reported` has the
    rates. If f has a kink, or a rate seems wrong, other steps must confirm the slope.
    """
    _, v, w, gradient, *_ = direction
    of_dtype = 0.0
    if gradient is not None and np.isfinite(gradient).all():
        of_dtype = ROUNDINGS * float(line.eps_of_given @ np.abs(gradient * v))
    if line.given is not None and line.is_lifted:
        of_dtype += ROUNDINGS * OF_CONSTANTS * known[2]
    floor = lambda: _floor(values, known) + of_dtype
    off = lambda floor: [
        rate for rate in reported if not abs(rate - values.slope.value) <= floor
    ]
    is_doubtful = bool(values.slope.jump) or bool(off(floor()))
    if is_doubtful or values.leap:
        values.split(enough)
    if not is_doubtful and not values.is_split:
        return floor()
    if not values.is_split:
        values.confirm()
        values.doubt(float("inf") if gradient is None else _norm(gradient * line.flat))
    rounding = 0.0
    if off(floor()):
        rounding = ROUNDINGS * line.rounding_of_rate(v, w, values.seed)
    if off(floor() + rounding) and not values.is_split:
        values.watch_underflow()
        lost = ROUNDINGS * line.rounding_of_rate(v, w, values.seed, Underflow)
        values.underflows |= lost > floor() + rounding
        rounding += lost
    if not values.is_split:
        values.deny([rate for rate in off(floor() + rounding) if np.isfinite(rate)])
    found = floor() + (rounding if off(floor()) else 0.0)
    if not values.is_split and (off(found) or values.slope.jump):
        values.hide(reported)
    return float("inf") if values.hidden_step else found


def _floor(values: Values, known: Sequence[float]) -> float:
    """Return the largest distance from the slope that does not count as an error.

    `known` has the sizes of f, of its change over a step of the size of x, and of the
    slope. Rounding errors of values change a slope less if the steps are longer.
    """
    of_values = values.slope.noise[-1] + values.eps * sum(known[:2])
    rounding = of_values / max(values.length, 1.0) + values.eps * known[2]
    return SAFETY * values.slope.error + ROUNDINGS * rounding


def _finite(rate: float) -> float:
    """Return a finite rate, and infinity for others, since NaN means a missing mode."""
    return rate if np.isfinite(rate) else float("inf")


class _Detectable(NamedTuple):
    """Smallest errors of the derivative that the check would have detected.

    Attributes:
      of_change: Error relative to `Probe.scale`, the scale of each direction. If the
        gradient vanishes, the scale is the change of f over a step, or the size of f.
      overall: Error relative to the gradient, or `of_change` if the gradient is 0 or
        unknown.
      anywhere: As `overall`, but errors within a single leaf count, too.
      hidden: Names of the leaves in which an error of size HIDDEN may hide.
    """

    of_change: float
    overall: float
    anywhere: float
    hidden: list[str]


def _detectable(line: Line, found: tuple[_Found, ...]) -> _Detectable:
    random = found[:RANDOM]
    floors = [each.probe.floor for each in random]
    of_change = _caught(floors, [each.probe.scale for each in random])
    sizes = [
        _caught(floors, rates)
        for rates in zip(*(each.rates for each in random), strict=True)
    ]
    sizes.append(_caught_along(found))
    # Errors relative to a gradient that is 0 or unknown have no size.
    overall = max((size for size in sizes if np.isfinite(size)), default=of_change)
    in_leaves = _caught_in_leaves(line, found)
    sizes += in_leaves.values()
    anywhere = max((size for size in sizes if np.isfinite(size)), default=of_change)
    hidden = [name for name, size in in_leaves.items() if not size < HIDDEN]
    return _Detectable(of_change, overall, anywhere, hidden)


def _report(
    found: tuple[_Found, ...], line: Line, precision: str, own_gap: float
) -> CheckReport:
    probes, random = tuple(each.probe for each in found), found[:RANDOM]
    detectable = _detectable(line, found)
    rates = [p.forward if np.isnan(p.reverse) else p.reverse for p in probes[:RANDOM]]
    is_zero = all(each.vanishes for each in random) and not any(rates)
    is_finite = _has_finite_value(line)
    verdict = _verdict(
        probes, detectable.of_change if is_zero else detectable.overall, is_finite
    )
    is_beyond = verdict == "nan" and is_finite and line.has_finite_derivative
    verdict = "unresolved" if is_beyond else verdict
    if verdict == "right" and detectable.hidden:
        verdict = "unresolved"
    if verdict in ("right", "wrong") and any(each.is_refuted for each in found):
        verdict = "unresolved"
    if verdict == "right" and _most_hiding(found).hidden_step:
        verdict = "unresolved"
    leaps = [each for each in found if each.leap] or _noisy(random)
    jumps = bool(leaps) and verdict == "right"
    if jumps:
        verdict = "unresolved"
    elif verdict == "unresolved" and not detectable.hidden:
        jumps = all(each.leap for each in random)
    if verdict == "wrong" and (
        _may_be_chance(probes, detectable.overall) or _is_off_where_tiny(line, probes)
    ):
        verdict = "unresolved"
    if is_beyond:
        explanation = beyond_range(title(line.f))
    elif jumps:
        explanation = leaping(title(line.f), leaps[0].probe.name, leaps[0].leap)
    else:
        explanation = _explanation(verdict, line, found, detectable)
    slopes = [
        p.taylor_slope
        for p in probes
        if np.isfinite(p.taylor_slope) and p.name.startswith("random")
    ]
    return CheckReport(
        verdict,
        float("inf")
        if verdict == "nan" or is_beyond
        else max(detectable.anywhere, float(np.finfo(float).eps)),
        _distance(probes),
        float(np.median(slopes)) if slopes else float("nan"),
        max(p.dot_product_gap for p in probes),
        probes,
        precision,
        own_gap,
        explanation,
    )


def _is_tiny(leaf: Leaf) -> bool:
    """Return whether the entries of a leaf are almost too small for floats.

    The result is True if their root mean square is below 1000 times the smallest normal
    number of float64, and not 0. A step of 1/1000 of such an entry changes it by a
    number that floats do not have.
    """
    return leaf.scale < 1000 * float(np.finfo(np.float64).tiny)


def _is_off_where_tiny(line: Line, probes: tuple[Probe, ...]) -> bool:
    """Return whether x has tiny leaves, and the derivative is right in all others."""
    others = [f"leaf {leaf.name}" for leaf in line.leaves if not _is_tiny(leaf)]
    is_off = any(probe.is_off and probe.name in others for probe in probes)
    return any(map(_is_tiny, line.leaves)) and not is_off


def _explanation(
    verdict: str, line: Line, found: tuple[_Found, ...], detectable: _Detectable
) -> str:
    """Return the explanation of a verdict where f does not jump."""
    probes, random = tuple(each.probe for each in found), found[:RANDOM]
    name, hides = title(line.f), _most_hiding(found)
    if verdict == "unresolved" and all(
        np.isnan(p.differences) for p in probes[:RANDOM]
    ):
        return at_the_edge(name)
    is_coarse = bool(ROUNDINGS * np.max(line.eps_of_given) > RESOLVED)
    if verdict == "unresolved" and is_coarse:
        return coarse_derivative(float(np.max(line.eps_of_given)))
    if verdict == "unresolved" and (
        any(map(_is_tiny, line.leaves)) or any(each.underflows for each in found)
    ):
        return underflowing(name)
    if verdict == "unresolved" and hides.hidden_step:
        return hiding(name, hides.probe.name, hides.hidden_step)
    if verdict in ("right", "unresolved") and all(each.vanishes for each in random):
        by_size = any(each.is_flat for each in random)
        return vanishing(name, detectable.anywhere, detectable.of_change, by_size)
    # If steps in all leaves show too little, no leaf is small beside another one.
    hidden = detectable.hidden if len(detectable.hidden) < len(line.leaves) else []
    return explained(
        verdict, probes, name, _has_finite_value(line), line.chooses, hidden
    )


def _has_finite_value(line: Line) -> bool:
    return bool(np.isfinite(np.asarray(line.value, np.float64)).all())


def _most_hiding(found: tuple[_Found, ...]) -> _Found:
    """Return the result with the longest step that rounding hides."""
    return max(found, key=lambda each: each.hidden_step)


def _distance(probes: tuple[Probe, ...]) -> float:
    """Return the largest relative distance of the derivative from a slope."""
    return max(p.gap / p.scale for p in probes)


def _may_be_chance(probes: tuple[Probe, ...], overall: float) -> bool:
    """Return whether the derivative may be off by chance, because f is rounded.

    Where nearly no digit of a slope is known, a distance may be chance. But it is no
    chance along a direction without the entries that hide digits, and if it is far
    above the floor along all random directions, whatever the size of the gradient.
    `overall` is the smallest error that the check would have detected, relative to the
    gradient.
    """
    is_known = any(
        p.is_off and p.floor < RESOLVED * p.scale
        for p in probes
        if p.name.startswith((NOT_ZERO, "leaf "))
    ) or all(p.floor < RESOLVED * p.gap < np.inf for p in probes[:RANDOM])
    chance = overall if overall < 1 else WHOLE * overall
    return overall > RESOLVED and _distance(probes) < chance and not is_known


def _noisy(random: Sequence[_Found]) -> list[_Found]:
    """Return results along directions in which f jumps between the floats beside x.

    Along such a direction, the measured rounding error is as large as the jump. Along
    other directions, several jumps may cancel, so the rounding error is far smaller.
    Each error is therefore compared with the smallest one along any random direction.
    """
    least = min(each.noise for each in random)
    return [
        each._replace(leap=each.noise)
        for each in random
        if each.noise > max(MANY_TIMES * least, RESOLVED * each.probe.scale)
    ]


def _caught_along(found: tuple[_Found, ...]) -> float:
    """Return the smallest δ for which three directions detect a wrong factor 1 + δ."""
    rates = [
        np.nanmax(np.abs([p.forward, p.reverse, 0.0]))
        for p in (each.probe for each in found[: RANDOM + 1])
    ]
    with np.errstate(all="ignore"):
        sizes = np.sort(
            [
                1.5 * each.probe.floor / rate
                for each, rate in zip(found, rates, strict=False)
            ]
        )
    return float(sizes[2])


def _caught_in_leaves(line: Line, found: tuple[_Found, ...]) -> dict[str, float]:
    """Return, for each leaf, the error that all directions miss (`_caught`).

    The error is 0 outside the leaf, and relative to the whole gradient. The result may
    be large if a step of the size of the leaf hardly changes f. The result is empty if
    x has only one leaf.
    """
    leaves = line.leaves if len(line.leaves) > 1 else ()
    drawn = [
        each
        for each in found
        if each.leaf_rates
        and each.probe.name != "gradient"
        and each.probe.floor < np.inf
    ]
    return {
        leaf.name: _caught(
            [each.probe.floor for each in drawn], [each.leaf_rates[k] for each in drawn]
        )
        for k, leaf in enumerate(leaves)
        if leaf.size and drawn
    }


def _caught(floors: Sequence[float], rates: Sequence[float]) -> float:
    """Return the relative error that all directions miss with probability MISSED.

    An error of relative size δ has a normally distributed rate along each direction,
    with the standard deviation δ times the entry of `rates`. A direction misses the
    error if this rate is at most 3/2 of the direction's entry of `floors`.
    """
    with np.errstate(all="ignore"):
        units = 1.5 * np.asarray(floors) / np.asarray(rates)
    units = units[np.isfinite(units) & (units > 0)]
    if not len(units):
        return float("inf")
    low, high = np.log(units.min()) - 20.0, np.log(units.max()) + 20.0
    for _ in range(60):
        middle = (low + high) / 2
        missed = np.prod(
            [math.erf(unit / math.exp(middle) / math.sqrt(2)) for unit in units]
        )
        low, high = (middle, high) if missed > MISSED else (low, middle)
    return math.exp(high)


def _verdict(probes: tuple[Probe, ...], smallest: float, is_finite: bool) -> str:
    rates = [
        rate for p in probes for rate in (p.forward, p.reverse) if not np.isnan(rate)
    ]
    if not rates or not np.isfinite(rates).all() or not is_finite:
        return "nan"
    if any(p.is_kink for p in probes):
        return "wrong" if any(p.is_off_beside_kinks for p in probes) else "kink"
    if any(p.is_off for p in probes):
        return "wrong"
    return "right" if smallest < RESOLVED else "unresolved"


def _precision(x: Any, lowest: Any, line: Line) -> str:
    dtypes = ", ".join(sorted({str(leaf.dtype) for leaf in jax.tree.leaves(x)}))
    eps = float(jnp.finfo(lowest).eps)
    if lowest == np.float64:
        return "Evaluated in float64" + (
            f" (x has {dtypes})." if line.is_lifted else "."
        )
    how = f"f computes in {lowest} in places, whatever the dtype of x"
    if line.jaxpr is None:
        how = f"The values of f look rounded to {lowest}, or to about as many digits"
    return f"{how}. The check assumes ε = {eps:.1e}."
