"""Kinks and jumps of a function at the point where `explain` evaluates it.

At a kink or a jump, the gradient is a convention of JAX and not a derivative.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from research.derivatives.costs.splitting import (
    COMPARISONS,
    JUMPS,
    SPLITTING,
    may_split,
)
from research.derivatives.ledger.tape import Equation, Tape, is_inexact, is_key

EXTREMES = {
    "reduce_max": np.max,
    "argmax": np.max,
    "cummax": np.max,
    "reduce_min": np.min,
    "argmin": np.min,
    "cummin": np.min,
}


# Sentences about rows that are not searched. Such a row need not be at a tie.
BITS = "it takes numbers apart into bits, and at_kinks has no rule for that"
NOT_SEARCHED = "it may be at a kink inside, where at_kinks does not search"
SPECTRA = frozenset(["svd", "eigh", "eig"])
SCATTERS = frozenset(["scatter_max", "scatter_min"])
WINDOWS = frozenset(["reduce_window_max", "reduce_window_min"])
# Where complex functions jump: the axis and the rays on it. For z = u + iv, the cut is
# on the "real" axis (v = 0) or on the "imaginary" one (u = 0).
CUTS = {
    "sqrt": ("real", lambda u: u < 0),
    "log": ("real", lambda u: u <= 0),
    "log1p": ("real", lambda u: u <= -1),
    "pow": ("real", lambda u: u <= 0),
    "asin": ("real", lambda u: np.abs(u) >= 1),
    "acos": ("real", lambda u: np.abs(u) >= 1),
    "acosh": ("real", lambda u: u <= 1),
    "atanh": ("real", lambda u: np.abs(u) >= 1),
    "asinh": ("imaginary", lambda v: np.abs(v) >= 1),
    "atan": ("imaginary", lambda v: np.abs(v) >= 1),
}


class Kink(NamedTuple):
    """A row of the table of `explain` where the function may have no derivative.

    In most cases the row is at a tie: two compared values are equal, or a value is
    exactly at a kink or a jump. In the other cases, one row stands for many operations,
    for example for a whole loop. These operations are not searched for ties, so one of
    them could be at a tie.

    Attributes:
      name: Name of the row.
      primitive: JAX primitive of the row.
      source: Line of the user's code.
      sentence: Sentence that describes the tie and the derivative that JAX uses, or
        says that the row is not searched.
    """

    name: str
    primitive: str
    source: str
    sentence: str


def at_kinks(tape: Tape, names: dict[int, str]) -> list[Kink]:
    """List a `Kink` for each equation of a tape where the derivative may not exist.

    Such an equation is at a tie: two compared values are equal (as in max(a, a)), or a
    value is exactly at a kink or a jump (as in abs(0)). Operations inside an equation,
    such as the steps of a loop that is one equation of the tape, are not searched. If
    such an operation could be at a tie, and the backward pass goes through the
    equation, the equation has a `Kink` that says so.

    The tape is the record of an evaluation of the function. `names` is a dict from each
    node to its name. A node is the index of a value on the tape.
    """
    kinks, steady = [], _locally_constant(tape)
    for equation in tape.equations():
        counts = _counts(equation, tape) and not _compares(equation, steady, tape)
        what = _tie(equation, tape) if counts else ""
        if what:
            name = names.get(equation.outputs[0], equation.primitive)
            # A comparison inside a rule has no row of its own.
            if equation.is_rule and equation.scope:
                name = equation.scope[-1]
            place = ", ".join(filter(None, (name, equation.source)))
            sentence = f"{equation.primitive} ({place}): {what}."
            kinks.append(Kink(name, equation.primitive, equation.source, sentence))
    return kinks


def _locally_constant(tape: Tape) -> set[int]:
    """Return the active nodes whose value is constant between jumps, as floor(x) is."""
    steady: set[int] = set()
    for equation in tape.equations():
        active = [operand for operand in equation.inputs if tape.is_active(operand)]
        if equation.primitive in JUMPS or (
            active and all(operand in steady for operand in active)
        ):
            steady |= set(equation.outputs)
    return steady


def _compares(equation: Equation, steady: set[int], tape: Tape) -> bool:
    """Return whether an equation compares or converts values that are constant nearby.

    The values are integers, or whole numbers such as those of floor. If they are equal,
    the row that compares them needs no `Kink`. Such a value jumps in the row that
    computes it. If this row is at a jump, it has a `Kink` of its own.
    """
    if equation.primitive not in (*COMPARISONS, "convert_element_type"):
        return False
    active = [operand for operand in equation.inputs if tape.is_active(operand)]
    if active:
        return all(operand in steady for operand in active)
    return equation.primitive in COMPARISONS and not any(
        is_inexact(tape.value(operand)) for operand in equation.inputs
    )


def _counts(equation: Equation, tape: Tape) -> bool:
    """Return whether a tie in the row affects the derivative.

    At a tie, two compared values are equal. In a function with a custom rule, only the
    comparisons inside the rule count. The comparisons that compute the value of the
    function do not: the function may be smooth although one of them is a tie, as
    softplus at 0 is. A comparison of a value with itself does not count, because it is
    a test for NaN. A tie in an equation with an integer output, such as argmax, counts:
    no adjoint passes through the index, but the value that the index selects jumps.
    """
    if equation.primitive in COMPARISONS:
        return (equation.is_active or equation.is_rule) and equation.inputs[
            0
        ] != equation.inputs[1]
    decides = equation.primitive in JUMPS or _integers(equation, tape)
    return (
        equation.is_active
        and not equation.is_rule
        and (bool(decides) or equation.contributions is not None)
    )


def _integers(equation: Equation, tape: Tape) -> list[int]:
    """Return the positions of the outputs that are integers or truth values."""
    values = [tape.value(node) for node in equation.outputs]
    return [i for i, v in enumerate(values) if not is_key(v) and not is_inexact(v)]


def _tie(equation: Equation, tape: Tape) -> str:
    primitive = equation.primitive.replace("-", "_")
    values = [tape.value(operand) for operand in equation.inputs]
    if any(map(is_key, values)):
        return ""
    arrays = [np.asarray(value) for value in values]
    if np.iscomplexobj(arrays[0]) and primitive in CUTS:
        return _at_cut(equation, tape, arrays[0])
    if primitive == "atan2" and np.any((arrays[0] == 0) & (arrays[1] <= 0)):
        return "its point is on the negative half of the axis, where the angle jumps"
    if primitive in SPECTRA:
        return _at_equal_values(equation, tape)
    if primitive in SCATTERS:
        shared = _is_shared_in_scatter(equation, values)
        return "several entries are extreme at one place" if shared else ""
    if primitive == "convert_element_type" and np.any(
        _at_step(arrays[0], equation.params["new_dtype"])
    ):
        return "its argument is at a jump of the conversion; JAX takes the derivative 0"
    if primitive in ("max", "min") and np.any(arrays[0] == arrays[1]):
        return "its two arguments are equal; each gets half of the adjoint"
    if primitive == "abs" and np.any(arrays[0] == 0):
        return (
            f"its argument is 0; JAX takes the derivative {float(jax.grad(abs)(0.0)):g}"
        )
    if primitive == "bessel_i0e" and np.any(arrays[0] == 0):
        return "its argument is 0, where exp(-|x|) I0(x) has a kink; JAX takes 0"
    if primitive in COMPARISONS and np.any(arrays[0] == arrays[1]):
        return "its two sides are equal, so the chosen branch is at a kink or a jump"
    if primitive in JUMPS and np.any(_at_jump(primitive, arrays[0])):
        return "its argument is at a jump; JAX takes the derivative 0"
    if primitive in ("sqrt", "cbrt") and np.any(arrays[0] == 0):
        return "its argument is 0, where its graph is vertical"
    if primitive == "pow" and np.any(
        (arrays[0] == 0) & (arrays[1] < 1) & (arrays[1] != 0)
    ):
        return "its base is 0 and its exponent is below 1, where its graph is vertical"
    if primitive == "rem" and np.any(
        np.remainder(arrays[0], np.where(arrays[1] == 0, np.nan, arrays[1])) == 0
    ):
        return (
            "its argument is a multiple of the divisor, where it jumps; JAX takes a "
            "one-sided derivative"
        )
    if primitive in WINDOWS and _is_shared_in_windows(equation, values[0]):
        return (
            "several entries of a window are extreme; the derivative depends on which "
            "one is chosen"
        )
    if primitive == "clamp" and np.any(
        (arrays[0] == arrays[1]) | (arrays[1] == arrays[2])
    ):
        return "its argument is on a bound"
    if primitive in EXTREMES and _is_shared(equation, arrays[0]):
        return (
            "several entries are extreme; the derivative depends on which one is chosen"
        )
    if primitive == "sort":
        has_equal = _has_equal_keys(equation, tape)
    else:
        has_equal = primitive == "top_k" and _has_equal(equation, arrays[0])
    if has_equal:
        return "some entries are equal; the derivative depends on their order"
    return _unsearched(equation, tape) if primitive not in SPLITTING else ""


def _at_cut(equation: Equation, tape: Tape, z: np.ndarray) -> str:
    """Return a text if an argument is on the branch cut of a function, else no text."""
    if equation.primitive == "pow":
        exponent = np.asarray(tape.value(equation.inputs[1]))
        z = np.where((exponent.imag == 0) & (exponent.real % 1 == 0), 1.0, z)
    if equation.primitive == "sqrt" and np.any(z == 0):
        return "its argument is 0, where its graph is vertical"
    axis, is_cut = CUTS[equation.primitive]
    u, v = np.real(z), np.imag(z)
    along, across = (u, v) if axis == "real" else (v, u)
    if not np.any((across == 0) & is_cut(along)) or _is_converted(equation, tape):
        return ""
    return "its argument is on the branch cut, where it jumps"


def _is_converted(equation: Equation, tape: Tape) -> bool:
    """Return whether a complex argument is the conversion of a real number.

    Such an argument stays on the real axis, so it does not cross a branch cut there.
    """
    makers = [e for e in tape.equations() if equation.inputs[0] in e.outputs]
    return any(
        e.primitive == "convert_element_type"
        and not np.iscomplexobj(tape.value(e.inputs[0]))
        for e in makers
    )


def _at_step(value: np.ndarray, dtype: Any) -> np.ndarray | bool:
    """Return where a conversion to integers or truth values jumps."""
    if not np.issubdtype(value.dtype, np.floating) or jnp.issubdtype(
        dtype, jnp.inexact
    ):
        return False
    if np.dtype(dtype).kind == "b":
        return value == 0
    # The conversion rounds towards 0, so it does not jump there.
    return (value == np.trunc(value)) & (value != 0)


def _at_equal_values(equation: Equation, tape: Tape) -> str:
    """Say if singular values or eigenvalues are equal, or singular values are 0.

    A function that treats equal values alike, such as their sum, is smooth there. So
    equal values count if their adjoints differ, or if an adjoint of their vectors is
    not 0. Singular values of 0 count if their adjoint is not 0.
    """
    rank = np.ndim(tape.value(equation.inputs[0])) - 1
    spectrum = next(
        node for node in equation.outputs if np.ndim(tape.value(node)) == rank
    )
    vectors = [node for node in equation.outputs if node != spectrum]
    values = np.asarray(tape.value(spectrum))
    adjoint = _adjoint(tape, spectrum)
    eps = 100 * values.shape[-1] * float(np.finfo(values.dtype).eps)
    size = np.max(np.abs(values), axis=-1, initial=0.0)[..., None]
    weight = np.max(np.abs(adjoint), axis=-1, initial=0.0)[..., None]
    close = np.abs(values[..., None] - values[..., None, :]) <= eps * size[..., None]
    unlike = np.abs(adjoint[..., None] - adjoint[..., None, :]) > (
        eps * weight[..., None]
    )
    off_diagonal = ~np.eye(values.shape[-1], dtype=bool)
    used = any(np.any(_adjoint(tape, node) != 0) for node in vectors)
    if np.any(close & off_diagonal & (unlike | used)):
        return "some of its values are equal; the derivative depends on their order"
    is_zero = (values <= eps * size) & (np.abs(adjoint) > eps * weight)
    if equation.primitive == "svd" and np.any(is_zero):
        return "a singular value is 0, where it has a kink"
    return ""


def _adjoint(tape: Tape, node: int) -> np.ndarray:
    adjoint = tape.adjoints[node]
    return np.asarray(jnp.zeros_like(tape.value(node)) if adjoint is None else adjoint)


def _is_shared_in_scatter(equation: Equation, values: Sequence[Any]) -> bool:
    """Return whether a scatter has several equal extreme candidates for an entry."""
    operand, indices, updates = values
    names = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
    kept = {name: equation.params[name] for name in names}
    add = lambda u: lax.scatter_add(jnp.zeros_like(operand), indices, u, **kept)
    best = equation.call(values)[0]
    # The transpose of adding updates reads the entry of each update.
    read = jax.linear_transpose(add, updates)(best)[0]
    count = (operand == best) + add((updates == read).astype(operand.dtype))
    return bool(jnp.any(count > 1))


def _has_equal_keys(equation: Equation, tape: Tape) -> bool:
    """Return whether a sort that depends on the inputs has entries with equal keys."""
    num_keys = equation.params["num_keys"]
    if not any(map(tape.is_active, equation.inputs[:num_keys])):
        return False
    axis = equation.params["dimension"]
    keys = [np.asarray(tape.value(node)) for node in equation.outputs[:num_keys]]
    return bool(np.any(np.all([np.diff(key, axis=axis) == 0 for key in keys], axis=0)))


def _unsearched(equation: Equation, tape: Tape) -> str:
    """Return a text if an equation that is not searched may be at a tie, else no text.

    Such an equation is a loop, or another equation without a rule in this module.
    """
    places = _integers(equation, tape)
    primitive = equation.primitive
    if primitive in ("is_finite", "stop_gradient", "convert_element_type"):
        return ""
    if primitive == "bitcast_convert_type" and places:
        return BITS
    if places and _is_unsteady(equation, tape, places):
        return "the integers that it computes jump here"
    if equation.contributions is None:
        return ""
    flags = [tape.is_active(operand) for operand in equation.inputs]
    if may_split(primitive, equation.params, flags):
        return NOT_SEARCHED
    return ""


def _is_unsteady(equation: Equation, tape: Tape, places: Sequence[int]) -> bool:
    """Return whether integers change if active inputs change by their rounding errors.

    The integers are the outputs at `places`. The inputs are changed several times, so
    that every two entries of an input move in opposite directions at least twice.
    """
    values = [tape.value(operand) for operand in equation.inputs]
    chosen = lambda given: [np.asarray(equation.call(given)[i]) for i in places]
    here = chosen(values)
    moves = [i for i, o in enumerate(equation.inputs) if tape.is_active(o)]
    longest = max(np.size(values[i]) for i in moves)
    for bit, sign in itertools.product(range(longest.bit_length() + 1), (1, -1)):
        nudged = list(values)
        for i in moves:
            nudged[i] = _nudged(values[i], bit, sign)
        if not all(map(np.array_equal, here, chosen(nudged))):
            return True
    return False


def _nudged(value: Any, bit: int, sign: int) -> Any:
    """Move each entry by about its rounding error, up or down.

    If `sign` is 1, an entry moves up if the given bit of its position is 0, and down if
    the bit is 1. If `sign` is -1, the directions are reversed.
    """
    value = jnp.asarray(value)
    info = jnp.finfo(value.dtype)
    position = np.arange(value.size).reshape(value.shape)
    direction = sign * (1 - 2 * (position >> bit & 1))
    step = 2 * info.eps * jnp.abs(value) + 2 * info.tiny
    return value + (direction * step).astype(value.dtype)


def _at_jump(primitive: str, value: np.ndarray) -> np.ndarray:
    if primitive == "sign":
        return value == 0
    return (
        value == np.floor(value)
        if primitive != "round"
        else value - 0.5 == np.floor(value - 0.5)
    )


def _is_shared(equation: Equation, array: np.ndarray) -> bool:
    if not array.size:
        return False
    if equation.primitive in ("cummax", "cummin"):
        return _is_reached_again(equation, array)
    axes = equation.params.get("axes", equation.params.get("axis"))
    axes = axes if isinstance(axes, int) else tuple(axes or ())
    best = EXTREMES[equation.primitive](array, axis=axes, keepdims=True)
    return bool(np.any(np.sum(array == best, axis=axes) > 1))


def _is_reached_again(equation: Equation, array: np.ndarray) -> bool:
    """Return whether an entry equals the extreme of the entries before it."""
    axis = equation.params["axis"]
    array = np.flip(array, axis) if equation.params["reverse"] else array
    array = np.moveaxis(array, axis, 0)
    extreme = np.maximum if equation.primitive == "cummax" else np.minimum
    return bool(np.any(array[1:] == extreme.accumulate(array, axis=0)[:-1]))


def _is_shared_in_windows(equation: Equation, array: Any) -> bool:
    """Return whether a window has two or more equal extreme entries."""
    larger = equation.primitive == "reduce_window_max"
    places = jnp.arange(array.size, dtype=int).reshape(array.shape)

    def chosen(first: bool) -> Any:
        def better(a: Any, b: Any) -> Any:
            wins = (a[0] > b[0] if larger else a[0] < b[0]) | (
                (a[0] == b[0]) & ((a[1] < b[1]) == first)
            )
            return tuple(jnp.where(wins, p, q) for p, q in zip(a, b, strict=True))

        p, worst = (
            equation.params,
            jnp.array(-jnp.inf if larger else jnp.inf, array.dtype),
        )
        start = worst, jnp.array(array.size if first else -1)
        return lax.reduce_window(
            (array, places),
            start,
            better,
            p["window_dimensions"],
            p["window_strides"],
            p["padding"],
            p["base_dilation"],
            p["window_dilation"],
        )[1]

    return bool(jnp.any(chosen(True) != chosen(False)))


def _has_equal(equation: Equation, array: np.ndarray) -> bool:
    ordered = np.sort(array, axis=equation.params.get("dimension", -1))
    return bool(
        np.any(np.diff(ordered, axis=equation.params.get("dimension", -1)) == 0)
    )
