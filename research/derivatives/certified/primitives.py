"""Rules that enclose the result of one equation of a JAX program.

A rule gets the parameters of the equation and the enclosures of its inputs. An
operation that only moves entries is exact, so it is applied to both ends, by NumPy or
JAX.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from research.derivatives._float64 import in_float64
from research.derivatives.certified import elementary
from research.derivatives.certified.intervals import (
    FINE,
    MAYBE_UNDEFINED,
    NOT_SMOOTH,
    UNIT,
    Interval,
    add,
    check_exact,
    divide,
    hull,
    integer_power,
    interval,
    is_infinite,
    magnitude,
    maximum,
    minimum,
    multiply,
    negative,
    opposite,
    point,
    square_root,
    subtract,
    total,
    up,
    with_trouble,
    worst,
)
from research.derivatives.costs.jaxprs import caller

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Return a decorator that registers a function as the rule of JAX primitives.

    A primitive is a basic operation of JAX. The rule of a primitive encloses the result
    of this operation, given enclosures of the inputs. `names` are the names of the
    primitives.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def _exact_integers(
    operation: Callable[..., Any], in_floats: Callable[..., Interval]
) -> Rule:
    """Return the rule of an operation on floats, integers or bools.

    Floats are enclosed by `in_floats`. For integers, the bounds by `in_floats` are
    rounded outwards to integers. For bools, NumPy computes both ends.
    """

    def apply(*inputs: Interval, **params: Any) -> Interval:
        if all(x.is_float for x in inputs):
            return in_floats(*inputs)
        if all(x.low.dtype.kind == "b" for x in inputs):
            logical = np.logical_or if operation is np.maximum else np.logical_and
            ends = [logical(*(end[i] for end in inputs)) for i in (0, 1)]
            return Interval(ends[0], ends[1], worst(*inputs))
        found = in_floats(*(_as_float(x) for x in inputs))
        return as_integer(
            Interval(np.floor(found.low), np.ceil(found.high), found.trouble)
        )

    return apply


def as_integer(x: Interval) -> Interval:
    """Convert the ends of an enclosure of integers from float64 to int64.

    Raises:
      NotImplementedError: An end may lie beyond 2^53, where floats skip integers.
    """
    if not np.all((np.abs(x.low) <= 2.0**53) & (np.abs(x.high) <= 2.0**53)):
        raise NotImplementedError(
            "its integers may lie beyond 2^53, where float64 skips integers; use "
            "smaller integers or a smaller box"
        )
    return Interval(x.low.astype(np.int64), x.high.astype(np.int64), x.trouble)


def _as_float(x: Interval) -> Interval:
    if x.is_float:
        return x
    check_exact(x)
    low = x.low.astype(np.float64)
    return Interval(low, low if x.is_point else x.high.astype(np.float64), x.trouble)


RULES.update(
    {
        "add": _exact_integers(np.add, add),
        "add_any": _exact_integers(np.add, add),
        "sub": _exact_integers(np.subtract, subtract),
        "mul": _exact_integers(np.multiply, multiply),
        "neg": _exact_integers(np.negative, negative),
        "abs": _exact_integers(np.abs, magnitude),
        "max": _exact_integers(np.maximum, maximum),
        "min": _exact_integers(np.minimum, minimum),
    }
)


def _of_floats(function: Callable[..., Interval]) -> Rule:
    return lambda *inputs, **params: function(*inputs)


RULES.update(
    {
        name: _of_floats(function)
        for name, function in {
            "exp": elementary.exp,
            "expm1": elementary.expm1,
            "log": elementary.log,
            "log1p": elementary.log1p,
            "sin": elementary.sin,
            "cos": elementary.cos,
            "tan": elementary.tan,
            "asin": elementary.asin,
            "acos": elementary.acos,
            "atan": elementary.atan,
            "sinh": elementary.sinh,
            "cosh": elementary.cosh,
            "tanh": elementary.tanh,
            "logistic": elementary.logistic,
            "asinh": elementary.asinh,
            "acosh": elementary.acosh,
            "atanh": elementary.atanh,
            "atan2": elementary.atan2,
            "erf": elementary.erf,
            "log2": lambda x: divide(elementary.log(x), elementary.log(point(2.0))),
            "one_minus_square": lambda x: subtract(point(1.0), integer_power(x, 2)),
            "cbrt": elementary.cube_root,
            "sqrt": square_root,
            "rsqrt": lambda x: divide(point(1.0), square_root(x)),
            "square": lambda x: integer_power(x, 2),
            "exp2": lambda x: elementary.power(point(2.0), x),
            "erfc": lambda x: subtract(point(1.0), elementary.erf(x)),
        }.items()
    }
)


@rule("div")
def _div(a: Interval, b: Interval, **params: Any) -> Interval:
    if a.is_float:
        return divide(a, b)
    if (
        np.array_equal(a.low, a.high)
        and np.array_equal(b.low, b.high)
        and np.all(b.low != 0)
    ):
        value = (
            np.sign(a.low) * np.sign(b.low) * (np.abs(a.low) // np.abs(b.low))
        ).astype(np.int64)
        return Interval(value, value, worst(a, b))
    raise NotImplementedError("it divides integers that vary in the box, or by 0")


@rule("integer_pow")
def _integer_pow(x: Interval, *, y: int, **params: Any) -> Interval:
    return integer_power(_as_float(x), y)


@rule("pow")
def _pow(x: Interval, y: Interval, **params: Any) -> Interval:
    return elementary.power(_as_float(x), _as_float(y))


@rule("convert_element_type")
def _convert(x: Interval, *, new_dtype: Any, **params: Any) -> Interval:
    """Convert numbers to floats, integers or bools.

    The precision of floats does not matter: the enclosed program is a function of real
    numbers.
    """
    kind = np.dtype(new_dtype).kind
    if kind == "f" or np.dtype(new_dtype).name == "bfloat16":
        return _as_float(x)
    if kind == "b":
        if x.low.dtype.kind == "b":
            return x
        unknown = x.trouble == MAYBE_UNDEFINED
        found = _bool_result(
            ((x.low > 0) | (x.high < 0)) & ~unknown,
            ~((x.low == 0) & (x.high == 0)) | unknown,
            worst(x),
        )
        touches = (x.low <= 0) & (x.high >= 0)
        return with_trouble(found, touches, NOT_SMOOTH) if x.is_float else found
    if x.is_float:  # Towards zero, as JAX does.
        if np.any(x.trouble == MAYBE_UNDEFINED):
            raise NotImplementedError("it makes an integer of a value that may be NaN")
        low, high = np.trunc(x.low), np.trunc(x.high)
        jumps = (low != high) | _is_step(x.low) | _is_step(x.high)
        whole = as_integer(Interval(low, high, x.trouble))
        return with_trouble(whole, jumps, NOT_SMOOTH)
    low = x.low.astype(np.int64)
    return Interval(low, low if x.is_point else x.high.astype(np.int64), x.trouble)


@rule(
    "stop_gradient",
    "copy",
    "copy_p",
    "optimization_barrier",
    "reduce_precision",
    "pvary",
)
def _same(*inputs: Interval, **params: Any) -> Interval | Sequence[Interval]:
    return inputs if len(inputs) != 1 else inputs[0]


@rule("sign")
def _sign(x: Interval, **params: Any) -> Interval:
    low, high = np.sign(x.low), np.sign(x.high)
    touches = (x.low <= 0) & (x.high >= 0)
    return with_trouble(interval(low, high, x), touches, NOT_SMOOTH)


def _rounding(function: Callable[[np.ndarray], np.ndarray], jumps: float) -> Rule:
    """Return the rule of a rounding function that jumps at integers plus `jumps`."""

    def apply(x: Interval, **params: Any) -> Interval:
        low, high = function(x.low), function(x.high)
        at_jump = np.floor(x.high - jumps) >= np.ceil(x.low - jumps)
        return with_trouble(interval(low, high, x), (low != high) | at_jump, NOT_SMOOTH)

    return apply


RULES.update({"floor": _rounding(np.floor, 0.0), "ceil": _rounding(np.ceil, 0.0)})


@rule("round")
def _round(x: Interval, *, rounding_method: Any, **params: Any) -> Interval:
    away = rounding_method == jax.lax.RoundingMethod.AWAY_FROM_ZERO
    return _rounding(_half_away if away else np.rint, 0.5)(x)


def _half_away(x: np.ndarray) -> np.ndarray:
    whole = np.trunc(x)
    return whole + np.copysign(np.abs(x - whole) >= 0.5, x)


# Comparisons.


def _bool_result(low: np.ndarray, high: np.ndarray, trouble: np.ndarray) -> Interval:
    """Return bools as intervals; `trouble` is set where both answers are possible.

    `low` is True where a bool is always True, and `high` where it can be True.
    """
    found = Interval(np.asarray(low), np.asarray(high), trouble)
    return with_trouble(found, found.low != found.high, NOT_SMOOTH)


def _compared(a: Interval, b: Interval, low: Any, high: Any) -> Interval:
    """Enclose the answer of a comparison of a and b.

    `low` is True where the answer is always True, and `high` where it can be True.
    Where a or b may be NaN, both answers are possible. Where two floats may be equal,
    `trouble` is set, because f may jump there.
    """
    trouble = worst(a, b)
    unknown = trouble == MAYBE_UNDEFINED
    found = _bool_result(low & ~unknown, high | unknown, trouble)
    if not a.is_float:
        return found
    return with_trouble(found, (a.low <= b.high) & (b.low <= a.high), NOT_SMOOTH)


@rule("lt", "lt_to")
def _lt(a: Interval, b: Interval, **params: Any) -> Interval:
    return _compared(a, b, a.high < b.low, a.low < b.high)


@rule("le", "le_to")
def _le(a: Interval, b: Interval, **params: Any) -> Interval:
    return _compared(a, b, a.high <= b.low, a.low <= b.high)


@rule("gt")
def _gt(a: Interval, b: Interval, **params: Any) -> Interval:
    return _lt(b, a)


@rule("ge")
def _ge(a: Interval, b: Interval, **params: Any) -> Interval:
    return _le(b, a)


@rule("eq", "eq_to")
def _eq(a: Interval, b: Interval, **params: Any) -> Interval:
    both = (a.low == a.high) & (b.low == b.high) & (a.low == b.low)
    return _compared(a, b, both, (a.low <= b.high) & (b.low <= a.high))


@rule("ne")
def _ne(a: Interval, b: Interval, **params: Any) -> Interval:
    return _not(_eq(a, b))


@rule("not")
def _not(x: Interval, **params: Any) -> Interval:
    if x.low.dtype.kind != "b":
        raise NotImplementedError(
            "it reads the bits of an integer that varies in the box"
        )
    return Interval(~x.high, ~x.low, x.trouble)


@rule("and")
def _and(a: Interval, b: Interval, **params: Any) -> Interval:
    return _logical(np.bitwise_and, a, b)


@rule("or")
def _or(a: Interval, b: Interval, **params: Any) -> Interval:
    return _logical(np.bitwise_or, a, b)


@rule("xor")
def _xor(a: Interval, b: Interval, **params: Any) -> Interval:
    known = (a.low == a.high) & (b.low == b.high)
    value = a.low ^ b.low
    if a.low.dtype.kind != "b" and not np.all(known):
        raise NotImplementedError(
            "it reads the bits of an integer that varies in the box"
        )
    return Interval(
        np.where(known, value, False), np.where(known, value, True), worst(a, b)
    )


def _logical(
    operation: Callable[..., np.ndarray], a: Interval, b: Interval
) -> Interval:
    if a.low.dtype.kind != "b" and not (
        np.array_equal(a.low, a.high) and np.array_equal(b.low, b.high)
    ):
        raise NotImplementedError(
            "it reads the bits of an integer that varies in the box"
        )
    return Interval(operation(a.low, b.low), operation(a.high, b.high), worst(a, b))


@rule("is_finite")
def _is_finite(x: Interval, **params: Any) -> Interval:
    """Return True for real numbers, and either answer for NaN or an infinite end."""
    found = nan_test(x, where_real=True)
    infinite = is_infinite(x)
    found = found._replace(low=found.low & ~infinite)
    return with_trouble(found, infinite, MAYBE_UNDEFINED)


def nan_test(x: Interval, where_real: bool) -> Interval:
    """Enclose the answer of a test for NaN, such as x != x or x == x.

    Where x is a real number, the answer is `where_real`: False for x != x, and True for
    x == x. Where x may be undefined, both answers are possible.
    """
    unknown = np.broadcast_to(x.trouble, x.low.shape) == MAYBE_UNDEFINED
    found = Interval(
        np.where(unknown, False, where_real),
        np.where(unknown, True, where_real),
        np.asarray(FINE),
    )
    return with_trouble(found, unknown, MAYBE_UNDEFINED)


@rule("select_n")
def _select_n(which: Interval, *cases: Interval, **params: Any) -> Interval:
    """Return the case that `which` selects, or the hull of all that it may select."""
    shape = cases[0].low.shape
    # A condition that may be undefined may have any answer: NaN compares as false.
    unknown = np.broadcast_to(which.trouble, shape) == MAYBE_UNDEFINED
    low_index = np.where(unknown, 0, np.broadcast_to(which.low, shape).astype(np.int64))
    high_index = np.where(
        unknown, len(cases) - 1, np.broadcast_to(which.high, shape).astype(np.int64)
    )
    found = _case(cases, low_index)
    for step in range(1, len(cases)):
        index = np.minimum(low_index + step, high_index)
        if np.array_equal(index, low_index):
            break
        more = _case(cases, index)
        found = hull(found, more)
    own = np.where(unknown, MAYBE_UNDEFINED, FINE)
    own = np.where((low_index != high_index) & ~unknown, NOT_SMOOTH, own)
    touching = np.broadcast_to(which.trouble, shape) == NOT_SMOOTH
    trouble = np.maximum(found.trouble, np.where(touching, NOT_SMOOTH, own))
    return Interval(
        found.low, found.high, trouble if np.any(trouble) else np.asarray(FINE)
    )


def _case(cases: Sequence[Interval], index: np.ndarray) -> Interval:
    stacked = [
        np.choose(
            index, [np.broadcast_to(getattr(case, end), index.shape) for case in cases]
        )
        for end in Interval._fields
    ]
    return Interval(*stacked)


@rule("clamp")
def _clamp(low: Interval, x: Interval, high: Interval, **params: Any) -> Interval:
    return minimum(maximum(x, low), high)


@rule("rem")
def _rem(a: Interval, b: Interval, **params: Any) -> Interval:
    """Return the remainder of a / b, with the sign of a, as C's function fmod does."""
    if not a.is_float:
        return _exact_integers(np.fmod, _no_floats)(a, b)
    quotient = divide(a, b)
    low, high = np.trunc(quotient.low), np.trunc(quotient.high)
    same = low == high
    exact = subtract(a, multiply(Interval(low, high, np.asarray(FINE)), b))
    size = magnitude(b).high
    found = interval(
        np.where(same, np.maximum(exact.low, -size), np.where(a.low >= 0, 0.0, -size)),
        np.where(same, np.minimum(exact.high, size), np.where(a.high <= 0, 0.0, size)),
        quotient,
    )
    jumps = ~same | _is_step(quotient.low) | _is_step(quotient.high)
    found = with_trouble(found, jumps, NOT_SMOOTH)
    # The remainder of an infinite number is NaN.
    return with_trouble(found, is_infinite(a), MAYBE_UNDEFINED)


def _is_step(x: np.ndarray) -> np.ndarray:
    """Return where rounding towards 0 jumps: at the integers other than 0."""
    return (np.trunc(x) == x) & (x != 0)


def _no_floats(*inputs: Interval) -> Interval:
    raise NotImplementedError("it divides integers that vary in the box")


# Moving entries.


def _each_end(move: Callable[..., np.ndarray]) -> Callable[..., Interval]:
    """Return a function that moves the entries of intervals as `move` moves entries.

    `move` is applied to both ends and to `trouble`.
    """

    def apply(*inputs: Interval) -> Interval:
        low = move(*(x.low for x in inputs))
        high = (
            low if all(x.is_point for x in inputs) else move(*(x.high for x in inputs))
        )
        if all(x.trouble.ndim == 0 and x.trouble == 0 for x in inputs):
            return Interval(low, high, np.asarray(FINE))
        return Interval(
            low, high, move(*(np.broadcast_to(x.trouble, x.low.shape) for x in inputs))
        )

    return apply


@rule("broadcast_in_dim")
def _broadcast(
    x: Interval, *, shape: Any, broadcast_dimensions: Any, **params: Any
) -> Interval:
    inner = [1] * len(shape)
    for axis, n in zip(broadcast_dimensions, x.low.shape, strict=True):
        inner[axis] = n
    return _each_end(lambda v: np.broadcast_to(v.reshape(inner), shape))(x)


@rule("reshape")
def _reshape(
    x: Interval, *, new_sizes: Any, dimensions: Any = None, **params: Any
) -> Interval:
    def move(v: np.ndarray) -> np.ndarray:
        moved = v if dimensions is None else np.transpose(v, dimensions)
        return moved.reshape(new_sizes)

    return _each_end(move)(x)


@rule("squeeze")
def _squeeze(x: Interval, *, dimensions: Any, **params: Any) -> Interval:
    return _each_end(lambda v: np.squeeze(v, tuple(dimensions)))(x)


@rule("expand_dims")
def _expand(x: Interval, *, dimensions: Any, **params: Any) -> Interval:
    return _each_end(lambda v: np.expand_dims(v, tuple(dimensions)))(x)


@rule("tile")
def _tile(x: Interval, *, reps: Any, **params: Any) -> Interval:
    return _each_end(lambda v: np.tile(v, reps))(x)


@rule("transpose")
def _transpose(x: Interval, *, permutation: Any, **params: Any) -> Interval:
    return _each_end(lambda v: np.transpose(v, permutation))(x)


@rule("rev")
def _rev(x: Interval, *, dimensions: Any, **params: Any) -> Interval:
    return _each_end(lambda v: np.flip(v, tuple(dimensions)))(x)


@rule("concatenate")
def _concatenate(*parts: Interval, dimension: int, **params: Any) -> Interval:
    return _each_end(lambda *v: np.concatenate(v, axis=dimension))(*parts)


@rule("stack")
def _stacked(*parts: Interval, axis: int, **params: Any) -> Interval:
    return _each_end(lambda *v: np.stack(v, axis=axis))(*parts)


@rule("unstack")
def _unstacked(x: Interval, *, axis: int, **params: Any) -> Sequence[Interval]:
    return [
        _each_end(lambda v, k=k: np.take(v, k, axis=axis))(x)
        for k in range(x.low.shape[axis])
    ]


@rule("polynomial")
def _polynomial(x: Interval, *coefficients: Interval, **params: Any) -> Interval:
    """Return c_0 + c_1 x + c_2 x² + ... by Horner's scheme."""
    found = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        found = add(coefficient, multiply(x, found))
    return add(found, multiply(x, point(0.0)))  # The shape and the trouble of x.


@rule("slice")
def _slice(
    x: Interval, *, start_indices: Any, limit_indices: Any, strides: Any, **params: Any
) -> Interval:
    steps = strides or [1] * len(start_indices)
    parts = tuple(
        slice(start, stop, step)
        for start, stop, step in zip(start_indices, limit_indices, steps, strict=True)
    )
    return _each_end(lambda v: v[parts])(x)


@rule("split")
def _split(x: Interval, *, sizes: Any, axis: int, **params: Any) -> Sequence[Interval]:
    ends = np.cumsum(sizes)[:-1]
    return [
        _each_end(lambda v, k=k: np.split(v, ends, axis=axis)[k])(x)
        for k in range(len(sizes))
    ]


@rule("iota")
def _iota(*, dtype: Any, shape: Any, dimension: int, **params: Any) -> Interval:
    inner = [1] * len(shape)
    inner[dimension] = shape[dimension]
    values = np.arange(shape[dimension]).reshape(inner)
    return point(np.broadcast_to(values, shape).astype(dtype))


def moved_by_jax(equation: Any, inputs: Sequence[Interval]) -> Interval:
    """Enclose the result of an equation that moves the entries of its operands.

    The equation is a gather, a dynamic slice, padding or similar. The ends of the
    intervals are moved as the equation moves the entries. To find where each entry
    goes, JAX runs the equation on the numbers 1, 2, 3, ... in place of the entries. If
    this run gives 0 for an entry, the entry comes from no operand, because its index
    lies outside the array. Such an entry gets the fill value of the equation, or the
    whole real line if there is no fill value. The inputs enclose values over a box of
    points. The indices in the equation must be the same at all these points.

    Args:
      equation: Jaxpr equation that moves entries.
      inputs: Enclosures of its inputs.
    Raises:
      NotImplementedError: The enclosure of an index contains more than one integer.
    """
    operands = [x for x in inputs if x.is_float]
    for x in inputs:
        if not x.is_float and not np.array_equal(x.low, x.high):
            raise NotImplementedError("it has an index that varies in the box")
    starts = np.cumsum([1, *(x.low.size for x in operands)])
    numbers = iter(
        [
            np.arange(start, start + x.low.size, dtype=np.float64).reshape(x.low.shape)
            for start, x in zip(starts, operands, strict=False)
        ]
    )
    values = [
        next(numbers) if x.is_float else x.low.astype(aval.aval.dtype)
        for x, aval in zip(inputs, equation.invars, strict=True)
    ]
    fill = None
    if "fill_value" in equation.params:
        fill = equation.params["fill_value"]
        equation = equation.replace(params={**equation.params, "fill_value": 0})
    with in_float64():
        result = np.asarray(caller(equation)(values)[0])
    index = result.astype(np.int64)

    def move(*ends: np.ndarray) -> np.ndarray:
        flat = np.concatenate([np.zeros(1), *(end.reshape(-1) for end in ends)])
        return flat[index]

    found = _each_end(move)(*operands)
    found = _filled(found, index == 0, fill)
    doubt = max(
        (int(np.max(x.trouble, initial=0)) for x in inputs if not x.is_float), default=0
    )
    return with_trouble(found, np.full(index.shape, doubt > 0), np.uint8(doubt))


def _filled(x: Interval, where: np.ndarray, fill: Any) -> Interval:
    """Return x with `fill` at indices outside an array. JAX's default `fill` is NaN."""
    if not np.any(where):
        return x
    if fill is None:
        wide = Interval(
            np.where(where, -np.inf, x.low), np.where(where, np.inf, x.high), x.trouble
        )
        return with_trouble(wide, where, MAYBE_UNDEFINED)
    return x._replace(
        low=np.where(where, float(fill), x.low),
        high=np.where(where, float(fill), x.high),
    )


MOVED_BY_JAX = ("gather", "dynamic_slice", "dynamic_update_slice", "pad")


# Sums and products.


@rule("reduce_sum")
def _reduce_sum(x: Interval, *, axes: Any, **params: Any) -> Interval:
    return total(x, tuple(axes))


def _reduction(one_by_one: Callable[[Interval, Interval], Interval]) -> Rule:
    def apply(x: Interval, *, axes: Any, **params: Any) -> Interval:
        for axis in sorted(axes, reverse=True):
            parts = [
                _each_end(lambda v, k=k, axis=axis: np.take(v, k, axis=axis))(x)
                for k in range(x.low.shape[axis])
            ]
            x = parts[0]
            for part in parts[1:]:
                x = one_by_one(x, part)
        return x

    return apply


RULES.update(
    {
        "reduce_max": _reduction(RULES["max"]),
        "reduce_min": _reduction(RULES["min"]),
        "reduce_prod": _reduction(RULES["mul"]),
        "reduce_and": _reduction(_and),
        "reduce_or": _reduction(_or),
    }
)


@rule("cumsum")
def _cumsum(x: Interval, *, axis: int, reverse: bool, **params: Any) -> Interval:
    order = slice(None, None, -1) if reverse else slice(None)
    at = (slice(None),) * axis + (order,)
    trouble = x.trouble
    if trouble.ndim:
        ordered = np.broadcast_to(trouble, x.low.shape)[at]
        trouble = np.maximum.accumulate(ordered, axis=axis)[at]
    if not x.is_float:
        low, high = (np.cumsum(end[at], axis=axis)[at] for end in (x.low, x.high))
        return Interval(low, high, trouble)
    count = x.low.shape[axis]
    ends = []
    for end, sign in ((x.low, -1), (x.high, 1)):
        sums = np.cumsum(end[at], axis=axis)
        # The error of each partial sum is bounded as in `sum_error`.
        error = up(1.01 * count * UNIT * np.cumsum(np.abs(end[at]), axis=axis))
        found = np.nextafter(sums + sign * error, sign * np.inf)[at]
        ends.append(np.where(np.isnan(found), sign * np.inf, found))
    return with_trouble(
        Interval(ends[0], ends[1], trouble),
        opposite(x, lambda terms: np.cumsum(terms[at], axis=axis)[at]),
        MAYBE_UNDEFINED,
    )


@rule("cumprod")
def _cumprod(x: Interval, *, axis: int, reverse: bool, **params: Any) -> Interval:
    count = x.low.shape[axis]
    parts = [
        _each_end(lambda v, k=k: np.take(v, [k], axis=axis))(x) for k in range(count)
    ]
    parts = parts[::-1] if reverse else parts
    for k in range(1, count):
        parts[k] = RULES["mul"](parts[k - 1], parts[k])
    parts = parts[::-1] if reverse else parts
    return _concatenate(*parts, dimension=axis)


@rule("dot_general")
def _dot_general(
    a: Interval, b: Interval, *, dimension_numbers: Any, **params: Any
) -> Interval:
    """Contract two arrays: all products of entries are enclosed, and then summed."""
    (a_sum, b_sum), (a_batch, b_batch) = dimension_numbers
    a, b = _as_float(a), _as_float(b)
    a_free = [i for i in range(a.low.ndim) if i not in (*a_sum, *a_batch)]
    b_free = [i for i in range(b.low.ndim) if i not in (*b_sum, *b_batch)]
    batches, sums = len(a_batch), len(a_sum)
    left = _each_end(
        lambda v: np.expand_dims(
            np.transpose(v, (*a_batch, *a_free, *a_sum)),
            tuple(range(batches + len(a_free), batches + len(a_free) + len(b_free))),
        )
    )(a)
    right = _each_end(
        lambda v: np.expand_dims(
            np.transpose(v, (*b_batch, *b_free, *b_sum)),
            tuple(range(batches, batches + len(a_free))),
        )
    )(b)
    products = multiply(left, right)
    last = products.low.ndim
    return total(products, tuple(range(last - sums, last)))


@rule("mul_add")
def _mul_add(a: Interval, b: Interval, c: Interval, **params: Any) -> Interval:
    return add(multiply(a, b), c)


def scattered(equation: Any, inputs: Sequence[Interval]) -> Interval:
    """Enclose the result of a scatter.

    A scatter adds updates to entries of an operand, or replaces these entries by the
    updates. An enclosure is an interval for each entry of an array.

    Args:
      equation: Jaxpr equation of the scatter.
      inputs: Enclosures of the operand, the indices and the updates.
    Raises:
      NotImplementedError: The enclosure of an index contains more than one integer.
    """
    operand, indices, updates = inputs
    if not np.array_equal(indices.low, indices.high):
        raise NotImplementedError("it has an index that varies in the box")
    target = np.arange(operand.low.size, dtype=np.float64).reshape(operand.low.shape)
    # Where each update goes: the transpose of the scatter is a gather of positions.
    positions = _positions(equation, target, indices, updates)
    low, high = operand.low.reshape(-1).copy(), operand.high.reshape(-1).copy()
    trouble = np.broadcast_to(operand.trouble, operand.low.shape).reshape(-1).copy()
    flat = Interval(
        updates.low.reshape(-1),
        updates.high.reshape(-1),
        np.broadcast_to(updates.trouble, updates.low.shape).reshape(-1),
    )
    result = Interval(low, high, trouble)
    where = positions.reshape(-1)
    for chosen in _without_repeats(where):
        at = where[chosen]
        more = Interval(flat.low[chosen], flat.high[chosen], flat.trouble[chosen])
        old = Interval(result.low[at], result.high[at], result.trouble[at])
        new = add(old, more) if equation.primitive.name != "scatter" else more
        result.low[at], result.high[at] = new.low, new.high
        result.trouble[at] = np.broadcast_to(new.trouble, new.low.shape)
    found = Interval(*(end.reshape(operand.low.shape) for end in result))
    doubt = int(np.max(indices.trouble, initial=0))
    return with_trouble(found, np.full(found.low.shape, doubt > 0), np.uint8(doubt))


def _positions(
    equation: Any, target: np.ndarray, indices: Interval, updates: Interval
) -> np.ndarray:
    """Return the flat position in the operand to which each update goes, or -1."""
    known = indices.low.astype(equation.invars[1].aval.dtype)
    function = lambda u: caller(equation)([np.zeros(target.shape), known, u])[0]
    with in_float64():
        _, transpose = jax.vjp(function, np.zeros(updates.low.shape))
        # The cotangent of an update is the entry of the result that it changes.
        return np.asarray(transpose(target + 1.0)[0]).astype(np.int64) - 1


def _without_repeats(where: np.ndarray) -> list[np.ndarray]:
    """Split positions into groups without repeats; -1 is left out."""
    groups: list[np.ndarray] = []
    left = np.flatnonzero(where >= 0)
    while left.size:
        _, first = np.unique(where[left], return_index=True)
        groups.append(left[np.sort(first)])
        left = np.delete(left, first)
    return groups
