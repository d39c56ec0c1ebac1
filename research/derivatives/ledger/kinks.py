"""Kinks and jumps of a function at the point where `explain` evaluates it.

At a kink or a jump, the gradient is a convention of JAX and not a derivative.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from research.derivatives.ledger.tape import Equation, Tape, is_key

COMPARISONS = frozenset(["lt", "le", "gt", "ge", "eq", "ne"])
EXTREMES = {
    "reduce_max": np.max,
    "argmax": np.max,
    "cummax": np.max,
    "reduce_min": np.min,
    "argmin": np.min,
    "cummin": np.min,
}


WINDOWS = ("reduce_window_max", "reduce_window_min")


class Kink(NamedTuple):
    """A row of the table of `explain` where the function may have no derivative.

    The row is at a tie: two compared values are equal, or a value is exactly at a kink
    or a jump.

    Attributes:
      name: Name of the row.
      primitive: JAX primitive of the row.
      source: Line of the user's code.
      sentence: Sentence that describes the tie and the derivative that JAX uses.
    """

    name: str
    primitive: str
    source: str
    sentence: str


def at_kinks(tape: Tape, names: dict[int, str]) -> list[Kink]:
    """List the equations of a tape at which the derivative may not exist.

    These equations are at a tie: two compared values are equal (as in max(a, a)), or a
    value is exactly at a kink or a jump (as in abs(0)). If the tape has a loop as one
    equation, the steps of the loop are not searched.

    `names` is a dict from each node to the name of its value. A node is a number: the
    position of a value on the tape.
    """
    kinks = []
    for equation in tape.equations():
        what = (
            _tie(equation, [tape.value(operand) for operand in equation.inputs])
            if _counts(equation)
            else ""
        )
        if what:
            name = names.get(equation.outputs[0], equation.primitive)
            # A comparison inside a rule has no row of its own.
            if equation.is_rule and equation.scope:
                name = equation.scope[-1]
            place = ", ".join(filter(None, (name, equation.source)))
            sentence = f"{equation.primitive} ({place}): {what}."
            kinks.append(Kink(name, equation.primitive, equation.source, sentence))
    return kinks


def _counts(equation: Equation) -> bool:
    """Return whether a tie in the row affects the derivative.

    At a tie, two compared values are equal. In a function with a custom rule, only the
    comparisons inside the rule count. The comparisons that compute the value of the
    function do not: the function may be smooth although one of them is a tie, as
    softplus at 0 is. A comparison of a value with itself does not count, because it is
    a test for NaN.
    """
    if equation.primitive in COMPARISONS:
        return (equation.is_active or equation.is_rule) and equation.inputs[
            0
        ] != equation.inputs[1]
    decides = equation.primitive in (
        "argmax",
        "argmin",
        "sign",
        "floor",
        "ceil",
        "round",
    )
    return (
        equation.is_active
        and not equation.is_rule
        and (decides or equation.contributions is not None)
    )


def _tie(equation: Equation, values: Sequence[Any]) -> str:
    primitive = equation.primitive
    if any(map(is_key, values)):
        return ""
    arrays = [np.asarray(value) for value in values]
    if primitive in ("max", "min") and np.any(arrays[0] == arrays[1]):
        return "its two arguments are equal; each gets half of the adjoint"
    if primitive == "abs" and np.any(arrays[0] == 0):
        return (
            f"its argument is 0; JAX takes the derivative {float(jax.grad(abs)(0.0)):g}"
        )
    if primitive in COMPARISONS and np.any(arrays[0] == arrays[1]):
        return "its two sides are equal, so the chosen branch is at a kink or a jump"
    if primitive in ("sign", "floor", "ceil", "round") and np.any(
        _at_jump(primitive, arrays[0])
    ):
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
    if primitive in ("sort", "top_k") and _has_equal(equation, arrays[0]):
        return "some entries are equal; the derivative depends on their order"
    return ""


def _at_jump(primitive: str, value: np.ndarray) -> np.ndarray:
    if primitive == "sign":
        return value == 0
    return (
        value == np.floor(value)
        if primitive != "round"
        else value - 0.5 == np.floor(value - 0.5)
    )


def _is_shared(equation: Equation, array: np.ndarray) -> bool:
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
