"""Enclosure of a JAX program over boxes: each equation is enclosed by its rule.

The program is read as a function of real numbers: its constants are the exact values of
their floats, and no operation rounds. Some constants are replaced by small intervals
that contain the exact real number: constants of JAX's derivative rules, such as 2/√π,
and constants of JAX's sinc. It does not matter whether the program computes in float32
or float64.
"""

import functools
import math
import os
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.derivatives._float64 import in_float64
from research.derivatives.certified import elementary
from research.derivatives.certified import linear_algebra as linear_algebra
from research.derivatives.certified.convolution import convolution
from research.derivatives.certified.intervals import (
    FINE,
    MAYBE_UNDEFINED,
    NOT_SMOOTH,
    Interval,
    hull,
    integer_power,
    negative,
    point,
    with_trouble,
)
from research.derivatives.certified.primitives import (
    MOVED_BY_JAX,
    RULES,
    as_integer,
    moved_by_jax,
    nan_test,
    scattered,
)
from research.derivatives.costs.jaxprs import (
    LIBRARY,
    WRAPPERS,
    caller,
    closed,
    inner,
    is_library,
    name_of_rule,
    scan_sizes,
    source_line,
)
from research.derivatives.errors import UnsupportedPrimitiveError
from research.tracing import AdviceOnTracing

MOST_ITERATIONS = 100_000
# Constants of JAX's derivative rules that are rounded: of erf, exp2 and log2, and cbrt.
ROUNDED = (2 / math.sqrt(math.pi), math.log(2), 1 / math.log(2), 1 / 3)
# JAX's sinc is a polynomial in x² for |x| <= 1/2, with coefficients π^2k / (2k + 1)!
# whose last digits are rounded. They are widened by 3 NEAR, relatively, which is also
# much more than the terms that the polynomial leaves out, for each of its derivatives.
SINC = tuple(math.pi ** (2 * k) / math.factorial(2 * k + 1) for k in range(1, 12))
NEAR = 1e-14
# Functions of JAX that use the factors of a matrix, and do not return them.
SOLUTIONS = ("solve", "_solve", "inv", "det", "_det", "slogdet", "_slogdet_lu")
# Files of JAX whose functions stop gradients so that the derivative stays right. They
# call no function of the user.
STOPPERS = tuple(
    os.path.join(LIBRARY, "_src", *path.split("/"))
    for path in (
        *("ops/special.py", "nn/functions.py", "numpy/reductions.py"),
        *("numpy/ufuncs.py", "numpy/linalg.py", "lax/linalg.py", "scipy/linalg.py"),
    )
)
STANDARD = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
MOST_REACHED = 10_000
MOST_KEPT = 4096  # Entries of the inputs of an equation whose results are kept.
HERE = os.path.dirname(os.path.abspath(__file__))


def trace(function: Callable[..., Any], *shapes: jax.ShapeDtypeStruct) -> Any:
    """Return the closed jaxpr of a function in float64, for arrays of given shapes."""
    with in_float64(), AdviceOnTracing():
        return jax.make_jaxpr(function)(*shapes)


def evaluate(
    program: Any, inputs: Sequence[Interval], lines: dict[str, str] | None = None
) -> list[Interval]:
    """Enclose the results of a program.

    Args:
      program: The closed jaxpr that `trace` returns.
      inputs: Enclosures of the arguments.
      lines: Dict from a line of the program to the name of the operation on this line.
        A line is added to this dict if a comparison on the line may be true at one
        point of the box and false at another, or if a value may be undefined. None
        means that these lines are not recorded.
    Returns:
      List with the enclosure of each result, in the order of the program.
    Raises:
      UnsupportedPrimitiveError: An equation or a constant of the program cannot be
        enclosed. For an equation, the message names the line, if the line is known.
    """
    lines = {} if lines is None else lines
    try:
        with np.errstate(all="ignore"):
            return _run(program, inputs, lines)
    except UnsupportedPrimitiveError:
        raise
    except NotImplementedError as problem:  # Of a constant.
        raise UnsupportedPrimitiveError(
            f"the program cannot be enclosed: {problem}."
        ) from problem


def _walk(
    jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Any], lines: dict[str, str]
) -> list[Any]:
    known: dict[Any, Any] = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True)
    )
    views: dict[Any, Any] = {}
    extremes: dict[Any, Extreme] = {}
    for equation in jaxpr.eqns:
        values = [_value(atom, known) for atom in equation.invars]
        compared = _compared_extreme(equation, views, extremes)
        if compared is None:
            results = _results(equation, values, lines)
        else:
            results = [_attained(values[0], *compared)]
        _note(equation, values, results, lines)
        known.update(zip(equation.outvars, results, strict=True))
    return [_value(atom, known) for atom in jaxpr.outvars]


class Extreme(NamedTuple):
    """A maximum or minimum of a variable of a jaxpr along some of its axes.

    Attributes:
      root: The variable.
      axes: Axes of the variable along which the maximum or minimum is taken.
      kept: The other axes of the variable, in the order of the result.
      name: "reduce_max" or "reduce_min".
    """

    root: Any
    axes: frozenset[int]
    kept: tuple[int, ...]
    name: str


def _compared_extreme(
    equation: Any, views: dict[Any, Any], extremes: dict[Any, Extreme]
) -> tuple[str, tuple[int, ...]] | None:
    """Return how an equation compares a variable with its own maximum or minimum.

    JAX's derivative of a maximum asks which entries are equal to the maximum. If only
    bounds of an entry are known, it cannot be proved that the entry is equal to
    another number. But it may be proved that the entry is larger than all others.

    Args:
      equation: The next equation of the program.
      views: Dict from a transposed variable to (original variable, its axes in the
        new order). The function updates the dict.
      extremes: Dict from a variable that is a maximum or minimum to its `Extreme`. The
        function updates the dict.
    Returns:
      The name "reduce_max" or "reduce_min" and the axes of the variable that is
      compared, or None if the equation does something else.
    """
    name = equation.primitive.name
    if not equation.invars or any(hasattr(v, "val") for v in equation.invars):
        return None
    source, result = equation.invars[0], equation.outvars[0]
    ndim = len(getattr(source.aval, "shape", ()))
    root, order = views.get(source, (source, tuple(range(ndim))))
    if name == "transpose":
        views[result] = root, tuple(order[k] for k in equation.params["permutation"])
    elif name in ("reduce_max", "reduce_min"):
        axes = frozenset(order[k] for k in equation.params["axes"])
        extremes[result] = Extreme(
            root, axes, tuple(a for a in order if a not in axes), name
        )
    elif source in extremes and _adds_axes(equation):
        extremes[result] = extremes[source]
    elif name == "eq" and equation.invars[1] in extremes:
        found, other = extremes[equation.invars[1]], equation.invars[1].aval.shape
        axes = tuple(k for k, a in enumerate(order) if a in found.axes)
        ones = [1 if k in axes else size for k, size in enumerate(source.aval.shape)]
        kept = tuple(a for a in order if a not in found.axes)
        if found.root is root and found.kept == kept and list(other) == ones:
            return found.name, axes
    return None


def _adds_axes(equation: Any) -> bool:
    """Return whether an equation changes only the shape, not the order of entries."""
    if equation.primitive.name == "broadcast_in_dim":
        dims = equation.params["broadcast_dimensions"]
        before, after = (v.aval for v in (equation.invars[0], equation.outvars[0]))
        return before.size == after.size and list(dims) == sorted(dims)
    return (
        equation.primitive.name == "reshape" and equation.params["dimensions"] is None
    )


def _attained(x: Interval, name: str, axes: tuple[int, ...]) -> Interval:
    """Return whether each entry of x attains the maximum or minimum along the axes.

    The answer for an entry is undecided (False or True) where two entries may both
    attain the extreme value. This includes two entries that are always equal, since the
    extreme value then has a kink.
    """
    low, high = (x.low, x.high) if name == "reduce_max" else (-x.high, -x.low)
    always = low > _largest_other(high, axes)
    never = high < _largest_other(low, axes)
    trouble = np.max(x.trouble, initial=FINE)
    found = Interval(always, ~never, np.asarray(trouble, np.uint8))
    return with_trouble(found, always == never, NOT_SMOOTH)


def _largest_other(ends: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return for each entry the largest of the other entries along the axes."""
    if not ends.size:
        return ends
    last = tuple(range(ends.ndim - len(axes), ends.ndim))
    moved = np.moveaxis(ends, axes, last)
    flat = moved.reshape(*moved.shape[: ends.ndim - len(axes)], -1)
    best = np.argmax(flat, axis=-1, keepdims=True)
    others = flat.copy()
    np.put_along_axis(others, best, -np.inf, axis=-1)
    found = np.broadcast_to(np.max(flat, -1, keepdims=True), flat.shape).copy()
    np.put_along_axis(found, best, np.max(others, -1, keepdims=True), axis=-1)
    return np.moveaxis(found.reshape(moved.shape), last, axes)


def _value(atom: Any, known: dict[Any, Any]) -> Any:
    if not hasattr(atom, "val"):
        return known[atom]
    found = constant(atom.val)
    if not found.is_float or found.low.ndim:
        return found
    size, dtype = abs(found.low), atom.aval.dtype
    for exact in ROUNDED:
        if size == float(np.asarray(exact, dtype)):
            near = np.array([size, np.nextafter(exact, 0), np.nextafter(exact, 2)])
            ends = np.sort(np.sign(found.low) * near)[[0, -1]]
            return Interval(np.asarray(ends[0]), np.asarray(ends[1]), found.trouble)
    near = max(NEAR, 4 * float(jnp.finfo(dtype).eps))
    if any(abs(size - exact) <= near * exact for exact in SINC):
        error = 3 * near * size
        return Interval(found.low - error, found.low + error, found.trouble)
    return found


def constant(value: Any) -> Interval:
    """Return a constant of the enclosed JAX program as an array of intervals.

    There is an interval for each entry of the constant. The interval contains only the
    number in this entry. If the entry is NaN, the interval is the whole real line, with
    `trouble` MAYBE_UNDEFINED (the program may have no value).
    """
    return _without_nan(point(value))


def _without_nan(x: Interval) -> Interval:
    """Replace an interval with a NaN end by the real line.

    So a NaN decides no comparison.
    """
    if not x.is_float:
        return x
    # A maximum is NaN if one entry is, and costs half of asking each entry.
    if not x.low.size or not (_has_nan(x.low) or _has_nan(x.high)):
        return x
    unknown = np.isnan(x.low) | np.isnan(x.high)
    wide = Interval(
        np.where(unknown, -np.inf, x.low), np.where(unknown, np.inf, x.high), x.trouble
    )
    return with_trouble(wide, unknown, MAYBE_UNDEFINED)


def _has_nan(ends: np.ndarray) -> bool:
    return math.isnan(np.maximum.reduce(ends, axis=None))


def _note(
    equation: Any, values: Sequence[Any], results: Sequence[Any], lines: dict[str, str]
) -> None:
    """Record the line of an equation if its result has more trouble than its inputs."""
    after = max((_most(r.trouble) for r in results), default=0)
    if after > 0 and after > max((_most(v.trouble) for v in values), default=0):
        lines.setdefault(_line(equation) or "the program", equation.primitive.name)


def _most(trouble: np.ndarray) -> int:
    if not trouble.ndim:
        return int(trouble)
    return int(np.maximum.reduce(trouble, axis=None, initial=0))


def _results(equation: Any, values: list[Any], lines: dict[str, str]) -> Sequence[Any]:
    name = equation.primitive.name
    try:
        found = _enclosed(equation, values, lines)
        results = [found] if isinstance(found, Interval) else list(found)
        return [
            _checked(result, atom.aval)
            for result, atom in zip(results, equation.outvars, strict=True)
        ]
    except (
        NotImplementedError,
        TypeError,
        AttributeError,
        IndexError,
        ValueError,
    ) as problem:
        where = _line(equation)
        if isinstance(problem, UnsupportedPrimitiveError):
            if where and " at " not in str(problem):
                text = str(problem).replace(" cannot", f" at {where} cannot", 1)
                raise UnsupportedPrimitiveError(text) from problem
            raise
        raise UnsupportedPrimitiveError(
            f"{name}{f' at {where}' if where else ''} cannot be enclosed: {problem}. "
            "Supported are arithmetic, elementary functions, comparisons, indexing, "
            "dot and conv, jit, cond, scan, bounded while loops and small linear "
            "solves."
        ) from problem


def _enclosed(equation: Any, values: list[Any], lines: dict[str, str]) -> Any:
    """Enclose the results of an equation by the rule for its primitive."""
    name, params = equation.primitive.name, equation.params
    if name in STRUCTURES:
        return STRUCTURES[name](equation, values, lines)
    if name in WRAPPERS:
        return _run(params[WRAPPERS[name]], values, lines)
    if values and all(_is_known(value) for value in values):
        return _by_jax(equation, values)
    if name in ("eq", "ne") and equation.invars[0] is equation.invars[1]:
        return nan_test(values[0], where_real=name == "eq")  # x != x asks for NaN.
    if name in RULES:
        found = RULES[name](*values, **params)
        if name == "lu" and np.any(found[2].trouble) and not _solves(equation):
            raise NotImplementedError("the order of its pivots varies in the box")
        return found
    if name in MOVED_BY_JAX:
        return moved_by_jax(equation, values)
    if name in ("scatter-add", "scatter_add", "scatter"):
        return scattered(equation, values)
    if name == "conv_general_dilated":
        return convolution(equation, *values)
    if not values:
        return _by_jax(equation, values)
    raise NotImplementedError("it has no rule")


def _solves(equation: Any) -> bool:
    """Return whether JAX factorises a matrix for a solution or a determinant.

    A solution or determinant does not depend on the order of the pivots, but the
    factors depend on it.
    """
    traceback = equation.source_info.traceback
    return traceback is not None and any(
        frame.file_name.startswith(LIBRARY + os.sep)
        and frame.function_name.rpartition(".")[2] in SOLUTIONS
        for frame in traceback.frames
    )


def _by_jax(equation: Any, values: Sequence[Interval]) -> list[Interval]:
    """Let JAX compute an equation whose inputs are known integers or bools."""
    if equation.effects and equation.outvars:  # Printing changes no value.
        raise NotImplementedError("it has side effects")
    inputs = [
        value.low.astype(atom.aval.dtype)
        for value, atom in zip(values, equation.invars, strict=True)
    ]
    if sum(x.size for x in inputs) <= MOST_KEPT:
        keys = ((x.tobytes(), x.shape, x.dtype) for x in inputs)
        results = _kept_by_jax(equation, *keys)
    else:
        results = _computed_by_jax(equation, inputs)
    doubt = max((_most(v.trouble) for v in values), default=0)
    return [one._replace(trouble=np.asarray(doubt, np.uint8)) for one in results]


def _computed_by_jax(equation: Any, inputs: list[np.ndarray]) -> list[Interval]:
    with in_float64():
        results = caller(equation)(inputs)
    return [constant(np.asarray(one)) for one in results]


@functools.lru_cache(maxsize=1024)
def _kept_by_jax(
    equation: Any, *keys: tuple[bytes, tuple[int, ...], np.dtype]
) -> list[Interval]:
    """Let JAX compute an equation, only once for the same inputs.

    A search encloses the program over many boxes. Most of these equations find out
    where an index points, and their inputs are the same for all boxes.
    """
    inputs = [np.frombuffer(data, dtype).reshape(shape) for data, shape, dtype in keys]
    return _computed_by_jax(equation, inputs)


def _checked(x: Interval, aval: Any) -> Interval:
    """Refuse a result of another shape, or integers that its dtype cannot hold."""
    if x.low.shape != tuple(aval.shape) or x.high.shape != tuple(aval.shape):
        raise NotImplementedError(f"it has the shape {aval.shape}, not {x.low.shape}")
    kind = np.dtype(aval.dtype).kind if hasattr(aval.dtype, "kind") else ""
    if kind in ("i", "u") and x.is_float:  # The bounds were computed in floats.
        x = as_integer(Interval(np.ceil(x.low), np.floor(x.high), x.trouble))
    if x.low.dtype.kind in "iu":
        limits = np.iinfo(aval.dtype)
        if np.any((x.low < limits.min) | (x.high > limits.max)):
            raise NotImplementedError(
                f"its integers may not fit into {aval.dtype}; use a wider dtype or "
                "smaller integers"
            )
    return _without_nan(x)


def _line(equation: Any) -> str:
    return source_line(equation, (HERE,))


def _run(program: Any, values: Sequence[Any], lines: dict[str, str]) -> list[Any]:
    program = closed(program)
    consts = [constant(c) for c in program.consts]
    return _walk(program.jaxpr, consts, list(values), lines)


def _cond(equation: Any, values: list[Any], lines: dict[str, str]) -> list[Any]:
    """Enclose the branch that the index selects, or the hull of all it may select."""
    index, *operands = values
    branches = equation.params["branches"]
    last = len(branches) - 1
    first_branch = int(np.clip(np.min(index.low), 0, last))
    last_branch = int(np.clip(np.max(index.high), 0, last))
    doubt = int(np.max(index.trouble, initial=0))
    if doubt == MAYBE_UNDEFINED:
        first_branch, last_branch = 0, last
    results = [
        _run(branches[k], operands, lines) for k in range(first_branch, last_branch + 1)
    ]
    found = results[0]
    for more in results[1:]:
        doubt = max(doubt, int(NOT_SMOOTH))
        found = [hull(a, b) for a, b in zip(found, more, strict=True)]
    return [_doubted(one, doubt) for one in found]


def _doubted(x: Interval, doubt: int) -> Interval:
    """Give all entries of a result the `trouble` of the condition that chose it."""
    return with_trouble(x, np.full(x.low.shape, doubt > 0), np.uint8(doubt))


def _scan(equation: Any, values: list[Any], lines: dict[str, str]) -> list[Any]:
    params = equation.params
    num_consts, num_carry = scan_sizes(params)
    consts, carry = values[:num_consts], values[num_consts : num_consts + num_carry]
    xs = values[num_consts + num_carry :]
    order = range(params["length"])
    stacked: list[list[Any]] = []
    for step in reversed(order) if params["reverse"] else order:
        slices = [
            Interval(
                x.low[step],
                x.high[step],
                x.trouble
                if x.trouble.ndim == 0
                else np.broadcast_to(x.trouble, x.low.shape)[step],
            )
            for x in xs
        ]
        outs = _run(params["jaxpr"], [*consts, *carry, *slices], lines)
        carry = outs[:num_carry]
        stacked.append(outs[num_carry:])
    if params["reverse"]:
        stacked = stacked[::-1]
    if not stacked:
        empty = [atom.aval for atom in equation.outvars[num_carry:]]
        return [*carry, *(constant(np.zeros(a.shape, a.dtype)) for a in empty)]
    columns = zip(*stacked, strict=True)
    return [*carry, *(_stack(list(column)) for column in columns)]


def _stack(parts: list[Interval]) -> Interval:
    trouble = [np.broadcast_to(part.trouble, part.low.shape) for part in parts]
    plain = not any(np.any(t) for t in trouble)
    return Interval(
        np.stack([part.low for part in parts]),
        np.stack([part.high for part in parts]),
        np.asarray(FINE) if plain else np.stack(trouble),
    )


def _while(equation: Any, values: list[Any], lines: dict[str, str]) -> list[Any]:
    """Repeat the body while its condition holds in the whole box."""
    params = equation.params
    of_cond, of_body = params["cond_nconsts"], params["body_nconsts"]
    cond_consts = values[:of_cond]
    body_consts, carry = (
        values[of_cond : of_cond + of_body],
        values[of_cond + of_body :],
    )
    doubt = 0
    for _ in range(MOST_ITERATIONS):
        (goes_on,) = _run(params["cond_jaxpr"], [*cond_consts, *carry], lines)
        doubt = max(doubt, int(np.max(goes_on.trouble, initial=0)))
        if doubt == MAYBE_UNDEFINED:
            raise NotImplementedError("its condition may be undefined in the box")
        if not np.any(goes_on.high):
            return [_doubted(one, doubt) for one in carry]
        if not np.all(goes_on.low):
            raise NotImplementedError(
                "the number of iterations depends on the point in the box"
            )
        carry = _run(params["body_jaxpr"], [*body_consts, *carry], lines)
    raise NotImplementedError(f"it has more than {MOST_ITERATIONS:,} iterations")


def _custom_rule(equation: Any, values: list[Any], lines: dict[str, str]) -> list[Any]:
    """Enclose a function that has its own derivative rule. The rule is not used."""
    params = equation.params
    own = params.get("call_jaxpr", params.get("fun_jaxpr", params.get("jaxpr")))
    named = "call_jaxpr" in params and name_of_rule(equation) == "exp_neg_sq"
    if named and is_library(closed(own)):  # JAX splits x by its bits for e^(-x²).
        return [elementary.exp(negative(integer_power(values[0], 2)))]
    return _run(own, values, lines)


def _linear_solve(equation: Any, values: list[Any], lines: dict[str, str]) -> list[Any]:
    """Enclose the solution of a linear system, by enclosing JAX's program for it."""
    lengths, jaxprs = equation.params["const_lengths"], equation.params["jaxprs"]
    start = lengths.matvec + lengths.vecmat
    consts = values[start : start + lengths.solve]
    right_sides = values[start + lengths.solve + lengths.transpose_solve :]
    return _run(jaxprs.solve, [*consts, *right_sides], lines)


def _is_known(value: Interval) -> bool:
    return not value.is_float and np.array_equal(value.low, value.high)


STRUCTURES: dict[str, Callable[..., list[Any]]] = {
    "cond": _cond,
    "scan": _scan,
    "while": _while,
    "custom_jvp_call": _custom_rule,
    "custom_vjp_call": _custom_rule,
    "custom_vjp_call_jaxpr": _custom_rule,
    "custom_linear_solve": _linear_solve,
}


def check_derivatives(program: Any) -> None:
    """Raise an error if JAX's derivative of a program may differ from the true one.

    The true derivative is the derivative of the function that the program computes. The
    derivative rules of JAX itself are trusted. A derivative rule of the user
    (`jax.custom_jvp`, `jax.custom_vjp`) may be wrong, and `stop_gradient` changes the
    derivative on purpose. The result of an iterative linear solver
    (`jax.lax.custom_linear_solve`) is not exact, but its derivative rule assumes an
    exact result.

    Raises:
      UnsupportedPrimitiveError: The program contains a derivative rule of the user,
        `stop_gradient`, or a linear solver that is not a direct solver of JAX. The
        message names the line.
    """
    for equation in program.eqns:
        name = equation.primitive.name
        if name == "custom_linear_solve":
            own = not _is_direct(equation.params["jaxprs"].solve)
        elif name.startswith("custom_"):
            own = not all(is_library(closed(part)) for part in inner(equation))
            own = own or not _has_rule_of_library(equation)
        else:
            own = name == "stop_gradient" and not _called_by_library(equation)
        if own:
            raise UnsupportedPrimitiveError(
                f"{name} at {_line(equation) or 'an unknown line'} cannot be trusted: "
                "JAX's derivative there may not be the derivative of the values. Only "
                "`enclose`, which uses no derivative, takes such a function."
            )
        for part in inner(equation):
            check_derivatives(part)


def _is_direct(solve: Any) -> bool:
    """Return whether a solver is JAX's own and has no loop, so its result is exact."""
    return is_library(closed(solve)) and not _has_loop(closed(solve).jaxpr)


def _has_loop(jaxpr: Any) -> bool:
    return any(
        equation.primitive.name in ("while", "scan")
        or any(_has_loop(part) for part in inner(equation))
        for equation in jaxpr.eqns
    )


def _has_rule_of_library(equation: Any) -> bool:
    """Return whether the derivative rule of a function of JAX is also defined by JAX.

    The rule may be a closure, a wrapper of a function, or another object. The result is
    True only if all functions that can be reached from the rule are defined in JAX or
    in Python's standard library.
    """
    known = [v for k, v in equation.params.items() if not hasattr(v, "eqns")]
    reached: set[int] = set()
    while known:
        value = known.pop()
        if id(value) in reached:
            continue
        reached.add(id(value))
        if len(reached) > MOST_REACHED:
            return False
        if isinstance(value, types.FunctionType):
            if not _is_trusted(value):
                return False
            known += [
                cell.cell_contents for cell in value.__closure__ or () if _is_full(cell)
            ]
            known += list(value.__defaults__ or ())
        elif isinstance(value, types.MethodType):
            known += [value.__func__, value.__self__]
        elif isinstance(value, functools.partial):
            known += [value.func, *value.args, *value.keywords.values()]
        elif isinstance(value, tuple | list):
            known += list(value)
        elif isinstance(value, dict):
            known += list(value.values())
        elif _root_of(value) in ("jax", "jaxlib"):
            known += list(_attributes(value))
        elif callable(value):  # An object of a class of the user may be a rule too.
            if _root_of(value) not in (*sys.stdlib_module_names, "numpy"):
                return False
            known.append(getattr(value, "__wrapped__", None))
    return True


def _root_of(value: Any) -> str:
    """Return the package of a class, or the package of the class of an object."""
    kind = value if isinstance(value, type) else type(value)
    return kind.__module__.partition(".")[0]


def _is_trusted(function: types.FunctionType) -> bool:
    """Return whether a function is defined in JAX or Python's standard library."""
    file = function.__code__.co_filename
    if file.startswith("<"):  # Made by a NamedTuple, or typed into an interpreter.
        module = str(function.__globals__.get("__name__", ""))
        return module.partition(".")[0] in ("jax", "jaxlib") or "namedtuple" in module
    if file.startswith(LIBRARY + os.sep):
        return True
    return file.startswith(STANDARD) and "-packages" not in file


def _is_full(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # The cell has no value yet.
        return False


def _attributes(value: Any) -> Iterator[Any]:
    names = [*getattr(value, "__dict__", ()), *getattr(type(value), "__slots__", ())]
    for name in names:
        found = getattr(value, name, None)
        if callable(found) or isinstance(found, tuple | list):
            yield found


def _called_by_library(equation: Any) -> bool:
    """Return whether a function of JAX, such as logsumexp, calls stop_gradient.

    Functions of JAX that only call a function of the user, such as tree.map and vmap,
    do not count.
    """
    traceback = equation.source_info.traceback
    if traceback is None:
        return False
    files = [frame.file_name for frame in traceback.frames]
    own = [
        k
        for k, frame in enumerate(traceback.frames)
        if frame.file_name.startswith(LIBRARY + os.sep)
        and frame.function_name.rpartition(".")[2]
        in ("stop_gradient", "_stop_gradient")
    ]
    at = own[-1] + 1 if own else len(files)
    return at < len(files) and files[at] in STOPPERS
