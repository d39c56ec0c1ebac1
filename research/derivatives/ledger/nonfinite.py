"""Search for the row of `explain` that creates the first NaN or infinity."""

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
    """Row of the table of `explain` that creates the first NaN or infinity.

    A row is one equation of the function. The NaN or infinity may also come from an
    input or from a custom reverse rule (`jax.custom_vjp`). The fields then describe the
    input or the rule.

    Attributes:
      name: Name of the row, the input or the rule.
      primitive: JAX primitive of the row, or "input", or "custom_vjp".
      source: Line of the user's code, or "" for an input.
      backward: True if the NaN or infinity is created only in the backward pass.
      sentence: Sentence that says where the NaN or infinity is created.
      index: Index of the first NaN or infinity in the value of the row. If an infinite
        operand causes a NaN in the value, `index` is that of the first NaN, even if an
        infinity has a lower index. If the value of the row is finite, the NaN or
        infinity arises in the backward pass. In this case, `index` is the index of the
        first NaN or infinity in the contribution of the row to the adjoint of an
        operand. For a single number and for a custom reverse rule, `index` is ().
      value: The entry at `index`, a NaN or an infinity. None for a custom reverse rule.
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
    """Find the row of the table of `explain` that creates the first NaN or infinity.

    A row is one equation of the function. If an input is not finite, the result
    describes this input. Otherwise, if the value of the function is not finite, the
    result describes the row that creates the first NaN or infinity of the forward pass.
    If only the gradient is not finite, the result describes the row where the first NaN
    or infinity of the backward pass arises. If this NaN or infinity is caused by one in
    the value of an earlier row, the result describes the earlier row. The result is
    None if both the value and the gradient are finite, even if an input or a row has an
    infinity.

    Args:
      tape: Record of the evaluation, with adjoints.
      output: Node of the value of the function, or a constant. A node is the index of a
        value on the tape.
      inputs: Dict from the name of each input to its node.
      names: Dict from a node to its name.
    """
    if is_finite(tape.value(output)) and all(
        _is_fine(tape.adjoints[node]) for node in inputs.values()
    ):
        return None  # An infinity inside is then intended, such as a mask of -inf.
    for name, node in inputs.items():
        if not is_finite(tape.values[node]):
            index = _first_bad(tape.values[node])
            sentence = (
                f"The input {name} is not finite: {entry_at(tape.values[node], index)}."
            )
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
        equations = tape.equations()
        born = _forward_origin(tape, output, equations) or next(
            (
                e
                for e in equations
                if not all(is_finite(tape.values[o]) for o in e.outputs)
            ),
            None,
        )
        return born and _nonfinite(
            tape, born, names, False, "gives {}", _given_bad(tape, born)
        )
    return _backward_origin(tape, inputs.values(), names)


def _forward_origin(
    tape: Tape, output: Operand, equations: Sequence[Equation]
) -> Equation | None:
    """Find the equation that creates the first NaN or infinity in the output.

    The result is None if the NaN or infinity comes from an input of the function.
    """
    makers = {node for equation in equations for node in equation.outputs}
    known: dict[Operand, Equation | None] = {}
    for equation in equations:
        bad = [o for o in equation.inputs if not is_finite(tape.value(o))]
        # Trace a NaN rather than an infinity, which may be intended.
        bad.sort(key=lambda o: not _has_nan(tape.value(o)))
        made = [o for o in bad if not isinstance(o, Literal) and o in makers]
        earlier = next(filter(None, (known.get(o) for o in made)), None)
        for node in equation.outputs:
            if is_finite(tape.values[node]):
                continue
            # All inputs of f are finite, so the other operands are constants.
            is_first = _has_nan(tape.values[node]) and not any(
                _has_nan(tape.value(o)) for o in made
            )
            born = earlier
            if is_first and any(_has_nan(tape.value(o)) for o in bad):
                born = equation
            known[node] = born or (equation if is_first or not bad else None)
    return None if isinstance(output, Literal) else known.get(output)


def _backward_origin(
    tape: Tape, leaves: Any, names: dict[int, str]
) -> NonFinite | None:
    """Find the row where the backward pass creates the first NaN or infinity.

    The search follows adjoints that are not finite from the inputs towards the output.
    """
    bad = {node for node in leaves if not _is_fine(tape.adjoints[node])}
    origin = None
    for entry in tape.entries:
        if isinstance(entry, Link):
            bad |= {
                o
                for i, o in zip(entry.inputs, entry.outputs, strict=True)
                if i in bad and not _is_fine(tape.adjoints[o])
            }
            continue
        shares = zip(entry.inputs, entry.contributions or (), strict=False)
        if any(
            o in bad and not _is_fine(share)
            for o, share in shares
            if not isinstance(o, Literal)
        ):
            later = {o for o in entry.outputs if not _is_fine(tape.adjoints[o])}
            bad |= later
            origin = origin if later else entry
    if origin is None:
        return None
    equation = _cause(tape, origin)
    if equation is None:
        name = origin.scope[-1] if origin.scope else "a rule"
        place = ", ".join(filter(None, (name, origin.source)))
        sentence = f"In the backward pass {place} gives a NaN or an infinity."
        return NonFinite(name, "custom_vjp", origin.source, True, sentence)
    # A factor of the reverse rule was already not finite before the adjoint arrived.
    if equation is not origin:
        what = "gives {}, from which the backward pass computes a NaN or an infinity"
        return _nonfinite(
            tape, equation, names, equation.is_rule, what, _given_bad(tape, equation)
        )
    adjoint = next(
        tape.adjoints[o] for o in equation.outputs if tape.adjoints[o] is not None
    )
    share = next(s for s in equation.contributions or () if not _is_fine(s))
    at = _beside(equation, adjoint, np.shape(share), index := _first_bad(share))
    return _nonfinite(
        tape,
        equation,
        names,
        True,
        f"gets the adjoint {at} and passes on {{}}",
        (share, index),
    )


def _cause(tape: Tape, entry: Equation | OwnReverse) -> Equation | None:
    """Find the row that creates a factor that makes an adjoint not finite.

    The factor is a value inside a custom reverse rule, or an input of the equation. If
    all inputs of an equation are finite, the result is the equation itself. If the
    factor is a constant of a custom rule, the result is None.
    """
    if isinstance(entry, OwnReverse):
        rows = [e for e in entry.entries if isinstance(e, Equation)]
        return next(
            (e for e in rows if not all(is_finite(tape.values[o]) for o in e.outputs)),
            None,
        )
    equations = tape.equations()
    return next(
        filter(None, (_forward_origin(tape, o, equations) for o in entry.inputs)),
        entry,
    )


# An array, and the index of its first entry that is not finite.
Bad = tuple[Any, tuple[int, ...]]


def _given_bad(tape: Tape, equation: Equation) -> Bad:
    """Return a value of the row that is not finite, and the index of its bad entry.

    If the inputs contain infinities but no NaN, a value that is NaN is preferred,
    because infinities may be intended.
    """
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
    """Format a value of the row, at the given index if the row is elementwise."""
    return entry_at(
        value,
        index if equation.primitive in ELEMENTWISE and np.shape(value) == shape else (),
    )


def _nonfinite(
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
    result = what.format(entry_at(value, index))
    sentence = f"{when} {equation.primitive} ({place}), at {given}, {result}."
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
    """Return whether all entries are finite.

    A value that is not floating counts as finite.
    """
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
