"""Table of difference quotients, whose limit defines the derivative."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float

from research.checks import (
    check_callable,
    check_choice,
    check_not_deleted,
    check_numbers,
    refuse_traced,
)
from research.columns import aligned
from research.derivatives.errors import NotScalarError, StepUnderflowError
from research.derivatives.finite_differences import finite_difference

Scheme = Literal["forward", "central", "richardson", "complex"]
# Number and relative distance of the points near x that show the rounding error of the
# complex step.
NEAR, AWAY = 16, 2.0**-14
# Relative scatter above which a quotient has lost its digits, if values of f show no
# derivative.
LOST = 1e-3


class LimitTable(NamedTuple):
    """Difference quotients of a function at several steps, with estimated errors.

    `limit_table` returns this table for a function f and a point x. The quotients
    approximate f'(x). The truncation error of a quotient is the difference between
    quotient and derivative if nothing is rounded. p is the power of the step h in this
    error, and depends on the scheme (the formula of the quotient). ε is the relative
    spacing of the requested dtype, which is the argument `dtype` of `limit_table`.

    The truncation error at a step is estimated from d = |quotient - limit|, which also
    contains rounding errors. Let r be the sum of the estimated rounding error at this
    step and the error bound of `limit`. The reference step is the smallest step with
    d > 10 r. There are three cases:

    - At the reference step, and at each larger step with d > r, the estimate is d.
    - At all other steps, d may be mostly due to rounding. So the estimate is C h^p,
      with the constant C for which C h^p equals d at the reference step.
    - If there is no reference step, the estimate is nan where the quotient or `limit`
      is nan, and 0 elsewhere.

    Attributes:
      steps: Steps h, shape (K,), float64. They have the order in which they were given.
        The default steps begin with the largest.
      estimates: Difference quotient at each step, shape (K,). It is computed in the
        requested dtype and then converted to float64.
      truncation: Estimated truncation error at each step, shape (K,), as described
        above.
      rounding: Estimated rounding error at each step, shape (K,). Let |f| be the
        largest absolute value of f in the formula of the quotient. Let f' be `limit`,
        or 0 if `limit` is nan. Rounding changes f by up to ε |f| / 2, and rounding of
        x + h changes f by about ε |x f'| / 2. The sum of these two changes is
        multiplied by the sum of the absolute weights of f in the formula, and divided
        by h. Then the rounding error of the division, ε |quotient| / 2, is added. For
        the complex step, the estimate is the error of the division alone. But if the
        quotient at a tiny step differs from `limit` by clearly more than a rounding
        error, the estimate is at least this difference.
      best: Index of the step with the smallest sum of truncation and rounding error, or
        -1 if no sum is finite.
      theory: Rule of thumb for the best step, ε^(1 / (p + 1)) max(|x|, 1). The first
        factor is √ε for forward differences, ∛ε for central differences and the fifth
        root of ε for Richardson differences. `theory` is 0 for the complex step,
        because any small step works for this scheme.
      limit: Limit of the quotients: the derivative from `finite_difference` in float64,
        or nan if the verdict of `finite_difference` is not "ok". For the complex step,
        `limit` is the quotient q at a tiny step, which is 1e-100 in most cases. In two
        cases, `limit` can differ from q:
        - `limit` is nan if a step that is 1e5 times longer gives a clearly different
          quotient, or if f is so small that its imaginary part underflows.
        - If terms cancel inside f, q can be inaccurate. Let v be the result of
          `finite_difference` for the real part of f: v can then be more accurate than
          q. A sign of such terms is that the quotients at points close to x scatter. To
          measure this scatter, a smooth curve is fitted to these quotients. Let s be
          the largest distance of a quotient from the curve. Let e be the sum of the
          error bound of v and the rounding error of q. If the verdict on v is "ok" and
          e < |v - q| <= 10 s, `limit` is v. If the verdict is not "ok" and s exceeds
          0.1 % of |q|, `limit` is nan. Otherwise `limit` is q.
    """

    steps: Float[np.ndarray, "K"]
    estimates: Float[np.ndarray, "K"]
    truncation: Float[np.ndarray, "K"]
    rounding: Float[np.ndarray, "K"]
    best: int
    theory: float
    limit: float

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """Return the limit, the best step and a row for each step as a text.

        The row of the best step ends with a star.
        """
        limit = "none was found" if np.isnan(self.limit) else f"{self.limit:.12g}"
        theory = (
            f"theory suggests {self.theory:.1e}"
            if self.theory
            else "in theory any step that is small enough works"
        )
        best = "none" if self.best < 0 else f"{self.steps[self.best]:.1e}"
        lines = [f"Limit: {limit}. Best step: {best}; {theory}."]
        rows = [("step", "quotient", "truncation", "rounding")]
        columns = zip(
            self.steps, self.estimates, self.truncation, self.rounding, strict=True
        )
        rows += [
            (f"{h:.1e}", f"{quotient:.12g}", f"{cut:.1e}", f"{off:.1e}")
            for h, quotient, cut, off in columns
        ]
        for i, line in enumerate(aligned(rows)):
            is_best = self.best >= 0 and i == self.best + 1
            lines.append(f"{line} *" if is_best else line)
        return "\n".join(lines)


class _Formula(NamedTuple):
    """Difference formula.

    Attributes:
      nodes: Distances from x in units of h.
      weights: Weights of f at the nodes.
      power: Power of h in the error.
    """

    nodes: tuple[float, ...]
    weights: tuple[float, ...]
    power: int


_FORMULAS = {
    "forward": _Formula((1.0, 0.0), (1.0, -1.0), 1),
    "central": _Formula((1.0, -1.0), (0.5, -0.5), 2),
    # (4 D(h / 2) - D(h)) / 3 for the central quotient D.
    "richardson": _Formula((0.5, -0.5, 1.0, -1.0), (4 / 3, -4 / 3, -1 / 6, 1 / 6), 4),
    "complex": _Formula((1.0,), (1.0,), 2),
}


def limit_table(
    f: Callable[[Any], Any],
    x: float,
    scheme: Scheme = "central",
    steps: Any = None,
    dtype: Any = np.float64,
) -> LimitTable:
    """Tabulate difference quotients whose limit is f'(x), and estimate their errors.

    Let h be the step, and i the imaginary unit. The list gives the error of each scheme
    without rounding.

    * "forward": (f(x + h) - f(x)) / h, error O(h).
    * "central": (f(x + h) - f(x - h)) / (2 h), error O(h²).
    * "richardson": (4 D(h / 2) - D(h)) / 3 with the central quotient D, error O(h⁴).
    * "complex": Im f(x + ih) / h, error O(h²). This formula subtracts no two values of
      f. But if terms inside f cancel at x, as in (1 - cos(x)) / x² near 0, the quotient
      loses digits at every step h. The fields `limit` and `rounding` of the result show
      this loss only if `finite_difference` detects it. f must be analytic and must
      accept complex numbers.

    Let ε be the relative spacing of the dtype. For the first three schemes, rounding
    adds an error of about ε |f| / h. Let O(h^p) be the error of such a scheme without
    rounding. If x, f and the derivatives of f are neither very large nor very small,
    the total error is smallest at a step near ε^(1 / (p + 1)). At smaller steps the
    total error grows.

    Args:
      f: Function of a NumPy number that computes in the dtype of its argument.
      x: Point at which the derivative is taken.
      scheme: "forward", "central", "richardson" or "complex".
      steps: Positive steps, a number or a sequence. If `steps` is None, the first step
        is the largest power of ten that is at most max(|x|, 1). For the scheme
        "complex", one step in each of 30 decades follows. For the other schemes, two
        steps in each of 16 decades follow, but default steps that are too small to
        change x in the dtype are left out.
      dtype: np.float64 or np.float32, the dtype of x, h, f and the quotient.
    Returns:
      The `LimitTable`. `print` shows the table as a text.
    Raises:
      StepUnderflowError: One of the given steps h is so small that x + h or x - h is
        rounded to x. For "richardson", x + h / 2 or x - h / 2 is rounded to x. The
        scheme "complex" does not raise this error.
      TypeError: x or a step is not a real number, or dtype is not a dtype. Or f returns
        a floating or complex dtype other than the dtype of its argument. Or the scheme
        is "complex" and f does not return one complex number.
      NotScalarError: f does not return a single number, and the scheme is not
        "complex".
      ValueError: scheme is unknown, dtype is neither float64 nor float32, x is not
        finite, or a step is not positive and finite.
    References:
      Squire and Trapp, Using complex variables to estimate derivatives of real
      functions, SIAM Review 40 (1998), 110-112.
      Press et al., Numerical Recipes, 3rd ed., section 5.7.
    Example:
      >>> table = limit_table(np.sin, 1.0, "forward", steps=[1e-2, 1e-8, 1e-14])
      >>> print([f"{error:.0e}" for error in abs(table.estimates - np.cos(1.0))])
      ['4e-03', '3e-09', '4e-03']
      >>> int(table.best)
      1
    """
    check_callable("f", f, "x")
    refuse_traced("limit_table", x=x, steps=steps)
    check_choice("scheme", scheme, get_args(Scheme))
    try:
        np.dtype(dtype)
    except TypeError:
        raise TypeError(
            f"dtype must be float64 or float32; got dtype={dtype!r}."
        ) from None
    if steps is not None:
        check_numbers("steps", steps)
    kind = np.dtype(dtype)
    if kind not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float64 or float32; got dtype={dtype!r}.")
    formula, epsilon = _FORMULAS[scheme], float(np.finfo(kind).eps)
    point = _number("x", x, kind)
    h = _steps(steps, point, scheme, kind)
    with np.errstate(all="ignore"):
        estimates, sizes = _quotients(f, point, h, scheme)
        limit, doubt = _limit(f, point, scheme)
    slope = abs(limit) if np.isfinite(limit) else 0.0
    if scheme == "complex":
        with np.errstate(all="ignore"):
            noise = _noise(f, point, limit)
        rounding = np.maximum(epsilon / 2 * np.abs(estimates), noise)
    else:
        weight = sum(map(abs, formula.weights))
        rounding = (
            epsilon
            / 2
            * (weight * (sizes + abs(float(point)) * slope) / h + np.abs(estimates))
        )
    truncation = _truncation(
        h, np.abs(estimates - limit), rounding + doubt, formula.power
    )
    total = np.where(np.isfinite(truncation), truncation, np.inf) + rounding
    scale = max(abs(float(point)), 1.0)
    theory = (
        0.0 if scheme == "complex" else epsilon ** (1 / (formula.power + 1)) * scale
    )
    finite = np.isfinite(total)
    best = int(np.argmin(np.where(finite, total, np.inf))) if finite.any() else -1
    return LimitTable(h, estimates, truncation, rounding, best, theory, limit)


def _limit(f: Callable[[Any], Any], x: Any, scheme: str) -> tuple[float, float]:
    """Return the derivative at x in float64, and its error bound."""
    # At a tiny step only the rounding errors inside f remain.
    if scheme == "complex":
        point, step = np.float64(x), 1e-100
        at = lambda step: _quotients(f, point, np.array([step]), scheme)[0][0]
        value = at(step)
        if abs(point) < 1e-90 and point != 0:  # The step is not small.
            step = 1e-30 * abs(point)
            value = at(step)
        elif abs(value) * 1e-100 < 1e-290:  # The imaginary part has underflowed.
            step = 1e-30 * max(abs(point), 1.0)
            value = at(step)
        if not _is_settled(value, at(1e5 * step), at(1e-5 * max(abs(point), 1.0))):
            return float("nan"), 0.0
        doubt = 2 * abs(value) * float(np.finfo(np.float64).eps)
        real = finite_difference(lambda x: f(np.complex128(x)).real, float(x))
        scatter = _scatter(f, point)
        # Two signs of cancellation inside f: the values of f exclude the quotient, and
        # quotients at points near x scatter as much.
        if real.verdict == "ok":
            gap = abs(value - real.value)
            if real.error + doubt < gap <= 10 * scatter:
                return real.value, real.error
        elif scatter > LOST * abs(value):
            return float("nan"), 0.0
        return value, doubt
    result = finite_difference(f, float(x))
    if result.verdict == "ok":
        return result.value, result.error
    return float("nan"), 0.0


def _tiny(x: Any) -> np.ndarray:
    """Return a step that is tiny compared with x, for the complex step."""
    share = 1e-20 if x.dtype == np.float32 else 1e-30
    return np.array([share * (abs(float(x)) or 1.0)])


def _noise(f: Callable[[Any], Any], x: Any, limit: float) -> float:
    """Return the error of the complex step at a tiny step, in the dtype of x.

    The result is 0 if `limit` is nan, or if the error is at most 32 ε |quotient|, about
    the rounding error of a few operations. ε is the relative spacing of the dtype.
    """
    quotient = _quotients(f, x, _tiny(x), "complex")[0][0]
    some = 32 * float(np.finfo(x.dtype).eps) * abs(quotient)
    off = abs(quotient - limit)
    return off if off > some else 0.0


def _scatter(f: Callable[[Any], Any], x: np.float64) -> float:
    """Return how far quotients of the complex step near x are from a smooth curve."""
    if x == 0:
        return 0.0
    points = x + x * AWAY * np.linspace(-1.0, 1.0, NEAR)
    places = (points - x) / (x * AWAY)
    try:
        near = [_quotients(f, p, _tiny(p), "complex")[0][0] for p in points]
    except (ArithmeticError, ValueError):  # f may not be defined there.
        return 0.0
    if not np.isfinite([*near, *places]).all():
        return 0.0
    curve = np.polynomial.Polynomial.fit(places, near, 4)
    return float(np.max(np.abs(near - curve(places))))


def _is_settled(value: float, longer: float, longest: float) -> bool:
    """Return whether the quotient `value` of the complex step is the derivative.

    The result is False if the quotient of a longer step differs from `value`. It is
    also False if `value` is 0 because the imaginary part of f underflows. Then the
    quotient of a much longer step, `longest`, is tiny but not 0.
    """
    if value == 0 and 0 < abs(longest) < 1e-285:
        return False
    # Where the derivative is 0, the quotient is about h².
    return abs(value - longer) <= max(1e-8 * abs(value), 1e-40)


def _quotients(
    f: Callable[[Any], Any], x: Any, h: np.ndarray, scheme: str
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the quotient and the largest |f| at each step, in the dtype of x.

    Returns:
      (quotients, largest |f|), each of the shape of h.
    """
    nodes, weights, _ = _FORMULAS[scheme]
    kind = x.dtype.type
    estimates, sizes = [], []
    for step in h:
        if scheme == "complex":
            value = _complex_value(f, x, step)
            estimates.append(float(kind(value.imag) / kind(step)))
            sizes.append(abs(value))
            continue
        values = [_value(f, x + kind(node) * kind(step)) for node in nodes]
        total = kind(0)
        for weight, value in zip(weights, values, strict=True):
            total = total + kind(weight) * value
        estimates.append(float(total / kind(step)))
        sizes.append(max(abs(float(value)) for value in values))
    return np.array(estimates), np.array(sizes)


def _value(f: Callable[[Any], Any], at: Any) -> Any:
    """Evaluate f at a number, and check that the value has the dtype of the number."""
    value = np.asarray(f(at))
    if value.size != 1:
        raise NotScalarError(
            f"f must return one number for a number; f returns shape {value.shape}. "
            "For several outputs call jacobian(f, x), or tabulate one at a time: "
            "limit_table(lambda x: f(x)[0], x)."
        )
    # A Python int is a constant without a precision of its own.
    if value.dtype != at.dtype and value.dtype.kind not in "iub":
        raise TypeError(
            f"f must compute in the dtype of its argument; f returns {value.dtype} for "
            f"{at.dtype}. Use functions of NumPy instead of math, and plain numbers as "
            "constants. If f uses jax.numpy, first call "
            "research.backend.configure(x64=True)."
        )
    return value.reshape(()).astype(at.dtype)[()]


def _complex_value(f: Callable[[Any], Any], x: Any, step: float) -> Any:
    """Evaluate f(x + ih) for the step h."""
    kind = np.complex64 if x.dtype == np.float32 else np.complex128
    value = np.asarray(f(kind(complex(float(x), float(step)))))
    if value.size != 1 or value.dtype != kind:
        raise TypeError(
            "scheme='complex' needs an f that accepts complex numbers; f returns "
            f"{value.dtype} of shape {value.shape} for {np.dtype(kind)}. Use "
            "scheme='central' if f uses abs, comparisons or functions of math."
        )
    return value.reshape(())[()]


def _steps(steps: Any, x: Any, scheme: str, kind: np.dtype) -> np.ndarray:
    """Choose the steps if they are None, check them, and round them to the dtype."""
    chosen = steps is None
    if chosen:
        start = np.floor(np.log10(max(abs(float(x)), 1.0)))
        powers = (
            np.arange(0.0, -31.0, -1.0)
            if scheme == "complex"
            else np.arange(0.0, -16.5, -0.5)
        )
        steps = 10.0 ** (start + powers)
    h = np.atleast_1d(np.asarray(steps, np.float64)).astype(kind).astype(np.float64)
    if h.ndim != 1 or not len(h) or not np.all(np.isfinite(h) & (h > 0)):
        raise ValueError(
            f"steps must be positive numbers in {np.dtype(kind).name}; got "
            f"steps={steps!r}."
        )
    if scheme == "complex":
        return h
    smallest = min(abs(node) for node in _FORMULAS[scheme].nodes if node)
    moved = np.array(
        [
            x + kind.type(smallest * s) != x and x - kind.type(smallest * s) != x
            for s in h
        ]
    )
    if chosen:
        return h[moved]
    if not moved.all():
        bad = h[~moved][0]
        raise StepUnderflowError(
            f"x ± h must differ from x; got a step of {bad:g} at x={float(x)!r}, where "
            f"{kind} numbers are {float(np.spacing(abs(x))):.2g} apart. Remove steps "
            "below that, or use scheme='complex', which has no such limit."
        )
    return h


def _truncation(
    h: np.ndarray, error: np.ndarray, rounding: np.ndarray, power: int
) -> np.ndarray:
    """Return the truncation error at each step.

    The reference step is the smallest step whose observed error exceeds ten times the
    rounding error. At this step and at larger steps, the result is the observed error
    if it exceeds the rounding error. Otherwise the result is extrapolated from the
    reference step, in proportion to h^power.
    """
    visible = np.flatnonzero(np.isfinite(error) & (error > 10 * rounding))
    if not len(visible):
        return np.where(np.isnan(error), np.nan, 0.0)
    last = visible[np.argmin(h[visible])]
    return np.where(
        (h >= h[last]) & (error > rounding), error, error[last] * (h / h[last]) ** power
    )


def _number(name: str, value: Any, kind: np.dtype) -> Any:
    """Check that a value is a finite number, and convert it to the dtype."""
    check_not_deleted(name, value)
    try:
        array = np.asarray(value)
    except ValueError:  # The parts of a sequence have different shapes.
        array = np.asarray(None)
    if array.ndim or array.dtype.kind not in "fiu":
        raise TypeError(
            f"{name} must be one real number; got {name}={value!r}. Build one table "
            "for each point."
        )
    if not np.isfinite(array):
        raise ValueError(f"{name} must be finite; got {name}={value!r}.")
    return array.astype(kind)[()]
