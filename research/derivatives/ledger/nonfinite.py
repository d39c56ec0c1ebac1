"""Where a NaN or an infinity is born: forward, or in the backward pass."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.derivatives.ledger.tape import (
    Equation,
    Link,
    Literal,
    Operand,
    OwnReverse,
    Tape,
)
from research.derivatives.ledger.wording import ELEMENTWISE, entry_at


class NonFinite(NamedTuple):
    """Where what spoils a value or a gradient comes up first.

    Attributes:
      name, primitive, source: Of the row; of the input where that is not finite already (its primitive is "input").
      backward: Whether it comes up in the backward pass alone.
      sentence: All of it in words.
      index: Of the first entry that is not finite, in what the row gives or, backward, passes on; () for a number.
      value: That entry.
    """

    name: str
    primitive: str
    source: str
    backward: bool
    sentence: str
    index: tuple[int, ...] = ()
    value: Any = None


def first_nonfinite(
    tape: Tape, output: Operand, inputs: dict[str, int], names: dict[int, str]
) -> NonFinite | None:
    """Follows what is not finite back to the row that made it of finite things: the value first, then the gradient."""
    if is_finite(tape.value(output)) and all(
        _is_fine(tape.adjoints[node]) for node in inputs.values()
    ):
        return None  # Such as a mask of -inf.
    for name, node in inputs.items():
        if not is_finite(tape.values[node]):
            index = _first_bad(tape.values[node])
            sentence = f"The input {name} is not finite already: {entry_at(tape.values[node], index)}."
            return NonFinite(
                name,
                "input",
                "",
                False,
                sentence,
                index,
                np.asarray(tape.values[node])[index],
            )
    if not is_finite(tape.value(output)):
        born = _forward_origin(tape, output, _makers(tape.equations()), {})
        return born and _found(
            tape, born, names, False, "gives {}", _given_bad(tape, born)
        )
    return _backward_origin(tape, inputs.values(), names)


def _makers(equations: Sequence[Equation]) -> dict[int, Equation]:
    return {node: equation for equation in equations for node in equation.outputs}


def _forward_origin(
    tape: Tape, operand: Operand, makers: dict[int, Equation], known: dict
) -> Equation | None:
    """The equation that made the first NaN or infinity on the way to an operand; None where it was given."""
    if (
        isinstance(operand, Literal)
        or operand not in makers
        or is_finite(tape.values[operand])
    ):
        return None
    if operand not in known:
        equation = makers[operand]
        bad = [o for o in equation.inputs if not is_finite(tape.value(o))]
        bad.sort(
            key=lambda o: not _has_nan(tape.value(o))
        )  # A NaN before an infinity, which may be meant.
        born = next(
            filter(None, (_forward_origin(tape, o, makers, known) for o in bad)), None
        )
        makes_nan = _has_nan(tape.values[operand]) and not any(
            _has_nan(tape.value(o)) for o in bad
        )
        known[operand] = born or (equation if makes_nan or not bad else None)
    return known[operand]


def _backward_origin(
    tape: Tape, leaves: Any, names: dict[int, str]
) -> NonFinite | None:
    """Follows spoilt adjoints from the inputs towards the output, to the last entry that got a finite one."""
    spoilt = {node for node in leaves if not _is_fine(tape.adjoints[node])}
    origin = None
    for entry in tape.entries:
        if isinstance(entry, Link):
            spoilt |= {
                o
                for i, o in zip(entry.inputs, entry.outputs, strict=True)
                if i in spoilt and not _is_fine(tape.adjoints[o])
            }
            continue
        shares = zip(entry.inputs, entry.contributions or (), strict=False)
        if any(
            o in spoilt and not _is_fine(share)
            for o, share in shares
            if not isinstance(o, Literal)
        ):
            later = {o for o in entry.outputs if not _is_fine(tape.adjoints[o])}
            spoilt |= later
            origin = origin if later else entry
    if origin is None:
        return None
    equation = _cause(tape, origin)
    if equation is None:
        name = origin.scope[-1] if origin.scope else "a rule"
        place = ", ".join(filter(None, (name, origin.source)))
        sentence = f"In the backward pass {place} gives a NaN or an infinity."
        return NonFinite(name, "custom_vjp", origin.source, True, sentence)
    if (
        equation is not origin
    ):  # A factor of the reverse rule was not finite before any adjoint came.
        what = "gives {}, of which the backward pass makes a NaN or an infinity"
        return _found(
            tape, equation, names, equation.is_rule, what, _given_bad(tape, equation)
        )
    adjoint = next(
        tape.adjoints[o] for o in equation.outputs if tape.adjoints[o] is not None
    )
    share = next(s for s in equation.contributions or () if not _is_fine(s))
    at = _beside(equation, adjoint, np.shape(share), index := _first_bad(share))
    return _found(
        tape,
        equation,
        names,
        True,
        f"gets the adjoint {at} and passes on {{}}",
        (share, index),
    )


def _cause(tape: Tape, entry: Equation | OwnReverse) -> Equation | None:
    """The row that made the factor which spoils an adjoint: of a function's own rule, or a value; or else the row itself.

    None: it stands in the rule as a constant, and no row made it.
    """
    if isinstance(entry, OwnReverse):
        rows = [e for e in entry.entries if isinstance(e, Equation)]
        return next(
            (e for e in rows if not all(is_finite(tape.values[o]) for o in e.outputs)),
            None,
        )
    makers = _makers(tape.equations())
    return next(
        filter(None, (_forward_origin(tape, o, makers, {}) for o in entry.inputs)),
        entry,
    )


Bad = tuple[
    Any, tuple[int, ...]
]  # An array, and the index of its first entry that is not finite.


def _given_bad(tape: Tape, equation: Equation) -> Bad:
    """What a row gives that is not finite; its first NaN where its inputs have infinities alone, which may be meant."""
    values = [tape.values[o] for o in equation.outputs]
    given = [tape.value(operand) for operand in equation.inputs]
    makes_nan = (
        not all(map(is_finite, given))
        and any(map(_has_nan, values))
        and not any(map(_has_nan, given))
    )
    bad = next(v for v in values if (_has_nan(v) if makes_nan else not is_finite(v)))
    return bad, _first_bad(bad, makes_nan)


def _first_bad(value: Any, nan_alone: bool = False) -> tuple[int, ...]:
    numbers = _complex(value)
    bad = np.isnan(numbers) if nan_alone else ~np.isfinite(numbers)
    return tuple(int(i) for i in np.unravel_index(np.argmax(bad), bad.shape))


def _beside(
    equation: Equation, value: Any, shape: tuple[int, ...], index: tuple[int, ...]
) -> str:
    """Another value of the row; its entry of the same index where the row goes entry by entry."""
    return entry_at(
        value,
        index if equation.primitive in ELEMENTWISE and np.shape(value) == shape else (),
    )


def _found(
    tape: Tape,
    equation: Equation,
    names: dict[int, str],
    backward: bool,
    what: str,
    bad: Bad,
) -> NonFinite:
    name = names.get(equation.outputs[0], equation.primitive)
    place = ", ".join(filter(None, (name, equation.source)))
    value, index = bad
    given = ", ".join(
        _beside(equation, tape.value(operand), np.shape(value), index)
        for operand in equation.inputs
    )
    when = "In the backward pass" if backward else "In the forward pass"
    sentence = f"{when} {equation.primitive} ({place}), at {given}, {what.format(entry_at(value, index))}."
    return NonFinite(
        name,
        equation.primitive,
        equation.source,
        backward,
        sentence,
        index,
        np.asarray(value)[index],
    )


def is_finite(value: Any) -> bool:
    """Whether all of it is; what is no floating number is."""
    return bool(np.all(np.isfinite(_complex(value))))


def _is_fine(value: Any) -> bool:
    return value is None or is_finite(value)


def _has_nan(value: Any) -> bool:
    return bool(np.any(np.isnan(_complex(value))))


def _complex(value: Any) -> np.ndarray:
    dtype = getattr(value, "dtype", None) or np.result_type(value)
    if jnp.issubdtype(dtype, jax.dtypes.extended) or not jnp.issubdtype(
        dtype, jnp.inexact
    ):
        return np.zeros(0)
    return np.asarray(value).astype(complex)
