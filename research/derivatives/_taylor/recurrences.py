"""Recurrences for the coefficients of elementary operations.

Each rule takes the series of the inputs of an equation and yields the coefficients of
its output in order. It may read coefficient k of an input to yield coefficient k. The
recurrences are those of Griewank & Walther, Evaluating Derivatives, 2nd ed., 2008,
table 13.2, unless a comment says otherwise.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from research.checks import is_traced
from research.derivatives._taylor.power_series import (
    Coefficient,
    Constant,
    Series,
    differentiated,
    divided,
    grow,
    minus,
    multiplied,
    product,
    series,
    square,
    times,
    total,
)


class Operation(NamedTuple):
    """An equation of a jaxpr.

    Attributes:
      name: Name of the primitive.
      params: Parameters of the primitive.
      call: Function from the values of the inputs to the tuple of the outputs.
    """

    name: str
    params: dict[str, Any]
    call: Callable[..., tuple[Any, ...]]


Coefficients = Iterator[Coefficient]


def _add(operation: Operation, a: Series, b: Series) -> Coefficients:
    yield operation.call(a[0], b[0])[0]
    for k in itertools.count(1):
        yield _spread(total((a[k], b[k])), a, b)


def _sub(operation: Operation, a: Series, b: Series) -> Coefficients:
    yield operation.call(a[0], b[0])[0]
    for k in itertools.count(1):
        yield _spread(minus(a[k], b[k]), a, b)


def _spread(coefficient: Coefficient, a: Series, b: Series) -> Coefficient:
    """Broadcast a coefficient of a + b or a - b; a or b may be a single number."""
    shape = np.broadcast_shapes(np.shape(a[0]), np.shape(b[0]))
    if coefficient is None or np.shape(coefficient) == shape:
        return coefficient
    return jnp.broadcast_to(coefficient, shape)


def _bilinear(operation: Operation, a: Series, b: Series) -> Coefficients:
    if a is b and operation.name == "mul":
        for k in itertools.count():
            yield square(k, a)
    for k in itertools.count():
        yield product(k, a, b, call=lambda u, v: operation.call(u, v)[0])


def _div(operation: Operation, a: Series, b: Series) -> Coefficients:
    return divided(a, b)


def _square(operation: Operation, x: Series) -> Coefficients:
    for k in itertools.count():
        yield square(k, x)


def _exp(operation: Operation, x: Series) -> Coefficients:
    slope = differentiated(x)
    return grow(lax.exp(x[0]), lambda k, y: product(k, slope, y))


def _expm1(operation: Operation, x: Series) -> Coefficients:
    slope, exponential = differentiated(x), series(_exp(operation, x))
    return grow(lax.expm1(x[0]), lambda k, y: product(k, slope, exponential))


def _log(operation: Operation, x: Series) -> Coefficients:
    slope = series(divided(differentiated(x), x))
    return grow(lax.log(x[0]), lambda k, y: slope[k])


def _log1p(operation: Operation, x: Series) -> Coefficients:
    one_more = series(x[k] if k else 1 + x[0] for k in itertools.count())
    slope = series(divided(differentiated(x), one_more))
    return grow(lax.log1p(x[0]), lambda k, y: slope[k])


def _circular(
    x: Series, sine: Any, cosine: Any, sign: int
) -> Iterator[tuple[Coefficient, Coefficient]]:
    """Yield the coefficients of s and c, where s' = c x' and c' = sign s x'."""
    slope, s, c = differentiated(x), [sine], [cosine]
    for k in itertools.count():
        yield s[k], c[k]
        s.append(times(1 / (k + 1), product(k, slope, c)))
        c.append(times(sign / (k + 1), product(k, slope, s)))


def _of_pair(
    sine: Callable[..., Any], cosine: Callable[..., Any], sign: int, column: int
) -> Callable[..., Coefficients]:
    def rule(operation: Operation, x: Series) -> Coefficients:
        for pair in _circular(x, sine(x[0]), cosine(x[0]), sign):
            yield pair[column]

    return rule


def _riccati(
    value: Callable[..., Any],
    slope: Callable[..., Any],
    linear: int,
    quadratic: int,
) -> Callable[..., Coefficients]:
    """Return the rule of y = value(x), whose slope is a quadratic polynomial of y.

    The equation is y' = q x' with q = c + linear y + quadratic y² and a constant c. At
    order 0, q is slope(x, y), which may use x to avoid the cancellation in 1 - y².
    """

    def rule(operation: Operation, x: Series) -> Coefficients:
        first = value(x[0])
        rate, q, derivative = differentiated(x), [slope(x[0], first)], [first]
        for k in itertools.count():
            yield derivative[k]
            derivative.append(times(1 / (k + 1), product(k, rate, q)))
            q.append(
                total(
                    (
                        times(linear, derivative[k + 1]) if linear else None,
                        times(quadratic, square(k + 1, derivative)),
                    )
                )
            )

    return rule


def _square_of_sech(x: Any, y: Any) -> Any:
    decay = lax.exp(-2.0 * lax.abs(x)) if jnp.isrealobj(x) else None
    return 1.0 - y * y if decay is None else 4.0 * decay / (1.0 + decay) ** 2


def _sqrt(operation: Operation, x: Series) -> Coefficients:
    y: list[Any] = [lax.sqrt(x[0])]
    for k in itertools.count(1):
        yield y[k - 1]
        rest = minus(x[k], square(k, y, first=1))
        y.append(None if rest is None else lax.div(rest, 2.0 * y[0]))


def _power(exponent: float) -> Callable[..., Coefficients]:
    """Return the rule of x^a for a number a, from x y' = a y x'."""

    def rule(operation: Operation, x: Series, *unused: Series) -> Coefficients:
        y: list[Any] = [operation.call(x[0], *(u[0] for u in unused))[0]]
        for k in itertools.count(1):
            yield y[k - 1]
            terms = (
                times(exponent * j - (k - j), lax.mul(x[j], y[k - j]))
                for j in range(1, k + 1)
                if x[j] is not None and y[k - j] is not None
            )
            rest = times(1 / k, total(terms))
            y.append(None if rest is None else lax.div(rest, x[0]))

    return rule


def _pow(operation: Operation, x: Series, exponent: Series) -> Coefficients | None:
    """Return the coefficients of x^a, or None if a is not a known number."""
    if not exponent.is_constant or is_traced(exponent[0]):
        return None
    if x.is_constant or np.ndim(exponent[0]):
        return None
    if np.iscomplexobj(exponent[0]):  # The general rule handles a complex power.
        return None
    a = float(exponent[0])
    if not math.isfinite(a):
        return None
    # Above the largest order, the coefficients at 0 are 0 anyway.
    if a == int(a) and abs(a) <= 128:
        return _integer_power(x, int(a))
    return _zero_base(a, x, _power(a)(operation, x, exponent))


def _cbrt(operation: Operation, x: Series) -> Coefficients:
    return _zero_base(1 / 3, x, _power(1 / 3)(operation, x))


def _zero_base(a: float, x: Series, y: Coefficients) -> Coefficients:
    """Replace the coefficients of x^a at x = 0, where the recurrence divides by 0.

    There the coefficients of orders k < a are 0, and all others are infinite (NaN if
    the coefficient of order 1 of x is 0).
    """
    yield next(y)
    for k in itertools.count(1):
        general = next(y)
        if general is None:
            yield None
            continue
        slope = jnp.zeros_like(x[0]) if x[1] is None else x[1]
        beyond = math.copysign(np.inf, _binomial(a, k)) * slope**k
        at_zero = jnp.zeros_like(x[0]) if k < a else beyond
        yield jnp.where(x[0] == 0, at_zero, general)


def _binomial(a: float, k: int) -> float:
    return math.prod((a - j) / (j + 1) for j in range(k))


def _integer_pow(operation: Operation, x: Series) -> Coefficients:
    return _integer_power(x, operation.params["y"])


def _integer_power(x: Series, exponent: int) -> Coefficients:
    """Return the coefficients of x^n, by repeated squaring."""
    result, base, left = None, x, abs(exponent)
    while left:
        if left % 2:
            result = base if result is None else multiplied(result, base)
        left //= 2
        if left:
            base = multiplied(base, base)
    one = Constant(jnp.ones_like(x[0]))
    if result is None:
        result = one
    if exponent < 0:
        return divided(one, result)
    return (result[k] for k in itertools.count())


# Up to this |x|, the recurrence of Bessel functions would lose digits; see `_bessel`.
NEAR = 2.0
TERMS = 14  # The next term is below 1e-21 of the sum for |x| up to NEAR.


def _bessel(column: int, scaled: bool) -> Callable[..., Coefficients]:
    """Return the rule of I_0(x) (column 0) or I_1(x) (column 1).

    If `scaled` is True, the function is multiplied by e^(-|x|).

    p = e^(-|x|) I_0 and q = e^(-|x|) I_1 satisfy p' = q - s p and q' = p - s q - q / x,
    where s is the sign of x (DLMF 10.29); without the scale, s = 0. Each order divides
    rounding errors by x, so `_bessel_near_zero` replaces this recurrence near 0. At
    x = 0 the rule of JAX for the scaled functions is p' = q, q' = 1/2.
    """

    def rule(operation: Operation, x: Series) -> Coefficients:
        del operation
        slope, at_zero = differentiated(x), x[0] == 0
        is_near = lax.abs(x[0]) <= NEAR
        near = _bessel_near_zero(x, slope, scaled)
        sign = lax.sign(x[0]) if scaled else jnp.zeros_like(x[0])
        scale = jnp.ones_like(x[0]) if scaled else lax.exp(lax.abs(x[0]))
        safe = jnp.where(is_near, jnp.ones_like(x[0]), x[0])
        p, q = [scale * lax.bessel_i0e(x[0])], [scale * lax.bessel_i1e(x[0])]
        ratio: list[Any] = []
        of_p: list[Any] = []
        of_q: list[Any] = []
        zero = jnp.zeros_like(x[0])
        yield (p, q)[column][0]
        next(near)
        for k in itertools.count():
            rest = minus(q[k], product(k, x, ratio, first=1))
            ratio.append(lax.div(rest, safe))
            of_p.append(q[k] - sign * p[k])
            of_q.append(p[k] - sign * q[k] - ratio[k])
            factor = 1 / (k + 1)
            p_next = times(factor, product(k, slope, of_p))
            q_next = times(factor, product(k, slope, of_q))
            p.append(zero if p_next is None else p_next)
            q.append(zero if q_next is None else q_next)
            close = next(near)[column]
            found = jnp.where(
                is_near, zero if close is None else close, (p, q)[column][k + 1]
            )
            if scaled:
                half = zero if x[k + 1] is None else 0.5 * x[k + 1]
                quarter = square(k + 1, x, first=1)
                quarter = zero if quarter is None else 0.25 * quarter
                found = jnp.where(at_zero, (quarter, half)[column], found)
            yield found

    return rule


def _bessel_near_zero(
    x: Series, slope: Series, scaled: bool
) -> Iterator[tuple[Coefficient, Coefficient]]:
    """Yield the coefficients of I_0(x) and I_1(x), scaled or not, for |x| <= NEAR.

    R_n(x) = I_n(x) / x^n has a power series of positive terms, and R_n' = x R_(n+1)
    (DLMF 10.29.4). So nothing is divided by x.
    """
    rate = series(product(k, x, slope) for k in itertools.count())
    levels: list[list[Coefficient]] = [[_regular_bessel(0, x[0])]]
    second: list[Coefficient] = []
    decay = series(_exp_of_minus_size(x)) if scaled else Constant(jnp.ones_like(x[0]))

    def add(n: int, j: int) -> None:
        """Add coefficient j of R_n, from those of R_(n + 1)."""
        levels[n].append(times(1 / j, product(j - 1, rate, levels[n + 1])))

    for k in itertools.count():
        levels.append([_regular_bessel(k + 1, x[0])])
        for n in range(k, 0, -1):
            add(n, k + 1 - n)
        if k:
            add(0, k)
        second.append(product(k, x, levels[1]))
        yield product(k, decay, levels[0]), product(k, decay, second)


def _exp_of_minus_size(x: Series) -> Coefficients:
    """Yield the coefficients of e^(-s x), where s is the sign of x[0]."""
    sign, slope = lax.sign(x[0]), differentiated(x)
    rate = series(
        None if slope[k] is None else lax.neg(lax.mul(sign, slope[k]))
        for k in itertools.count()
    )
    return grow(lax.exp(-lax.abs(x[0])), lambda k, y: product(k, rate, y))


def _regular_bessel(n: int, x: Any) -> Any:
    """Return I_n(x) / x^n = Σ_m (x² / 4)^m / (2^n m! (m + n)!)."""
    terms = [
        1 / (2**n * math.factorial(m) * math.factorial(m + n)) for m in range(TERMS)
    ]
    result = jnp.full_like(x, terms[-1])
    for term in terms[-2::-1]:
        result = result * (0.25 * x * x) + jnp.full_like(x, term)
    return result


def _cholesky(operation: Operation, a: Series) -> Coefficients:
    """Yield the coefficients of L, where L Lᴴ = A.

    L[k] = L[0] Φ(L[0]⁻¹ (A[k] - Σ L[j] L[k - j]ᴴ) L[0]⁻ᴴ), with the sum over 0 < j < k.
    Φ takes the lower triangle and half the diagonal (Murray, Differentiation of the
    Cholesky decomposition, 2016, equation 8, applied to each coefficient).
    """
    factor = jnp.tril(operation.call(a[0])[0])  # JAX leaves numbers above the diagonal.
    lower: list[Coefficient] = [factor]
    solve = lambda b, side, transposed: lax.linalg.triangular_solve(
        factor,
        b,
        left_side=side,
        lower=True,
        transpose_a=transposed,
        conjugate_a=transposed,
    )
    half = jnp.tril(jnp.ones(factor.shape[-2:])) - 0.5 * jnp.eye(factor.shape[-1])
    outer = lambda u, v: _matmul(u, _adjoint(v))
    for k in itertools.count(1):
        yield lower[k - 1]
        inside = [(lower[j], lower[k - j]) for j in range(1, k)]
        rest = minus(
            a[k],
            total(outer(u, v) for u, v in inside if u is not None and v is not None),
        )
        if rest is None:
            lower.append(None)
            continue
        middle = solve(solve(rest, False, True), True, False)
        lower.append(_matmul(factor, middle * half.astype(factor.dtype)))


def _triangular_solve(operation: Operation, a: Series, b: Series) -> Coefficients:
    """Yield the coefficients of x, where A x = b or x A = b."""
    params = operation.params
    coefficients: list[Any] = []
    matrix = series(_as_used(a[k], params) for k in itertools.count())
    order = (
        (lambda u, v: _matmul(u, v))
        if params["left_side"]
        else (lambda u, v: _matmul(v, u))
    )
    for k in itertools.count():
        rest = minus(b[k], product(k, matrix, coefficients, first=1, call=order))
        coefficients.append(None if rest is None else operation.call(a[0], rest)[0])
        yield coefficients[k]


def _as_used(matrix: Coefficient, params: dict[str, Any]) -> Coefficient:
    """Return the part of a coefficient of A that triangular_solve uses."""
    if matrix is None:
        return None
    offset = 1 if params["unit_diagonal"] else 0
    used = jnp.tril(matrix, -offset) if params["lower"] else jnp.triu(matrix, offset)
    used = jnp.conj(used) if params["conjugate_a"] else used
    return jnp.swapaxes(used, -1, -2) if params["transpose_a"] else used


def _matmul(a: Any, b: Any) -> Any:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _adjoint(a: Any) -> Any:
    return jnp.conj(jnp.swapaxes(a, -1, -2))


RECURRENCES: dict[str, Callable[..., Coefficients | None]] = {
    "add": _add,
    "add_any": _add,
    "sub": _sub,
    "mul": _bilinear,
    "dot_general": _bilinear,
    "conv_general_dilated": _bilinear,
    "div": _div,
    "square": _square,
    "exp": _exp,
    "expm1": _expm1,
    "log": _log,
    "log1p": _log1p,
    "sin": _of_pair(lax.sin, lax.cos, -1, 0),
    "cos": _of_pair(lax.sin, lax.cos, -1, 1),
    "sinh": _of_pair(lax.sinh, lax.cosh, 1, 0),
    "cosh": _of_pair(lax.sinh, lax.cosh, 1, 1),
    "tan": _riccati(lax.tan, lambda x, y: 1.0 + y * y, 0, 1),
    "tanh": _riccati(lax.tanh, _square_of_sech, 0, -1),
    "logistic": _riccati(
        lax.logistic, lambda x, y: y * lax.logistic(lax.neg(x)), 1, -1
    ),
    "sqrt": _sqrt,
    "rsqrt": _power(-0.5),
    "cbrt": _cbrt,
    "pow": _pow,
    "integer_pow": _integer_pow,
    "bessel_i0e": _bessel(0, scaled=True),
    "bessel_i1e": _bessel(1, scaled=True),
    "cholesky": _cholesky,
    "triangular_solve": _triangular_solve,
}

# Functions of JAX with a custom rule that divides by x.
OWN_FUNCTIONS: dict[str, Callable[..., Coefficients]] = {
    "i0_impl": _bessel(0, scaled=False),
    "_i1": _bessel(1, scaled=False),
}
