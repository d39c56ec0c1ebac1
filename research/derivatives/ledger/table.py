"""Text form of the table of `explain`: a sentence, and then the rows."""

import itertools
from typing import Any

import numpy as np

from research.columns import aligned
from research.derivatives.ledger import kinks, nonfinite
from research.derivatives.ledger.fields import LedgerFields
from research.derivatives.ledger.rows import Row
from research.derivatives.ledger.wording import short

HEADINGS = ("row", "equation", "value", "adjoint", "passes on", "rule", "line")
WIDEST = 44  # Largest width of a column in characters.


def answer(ledger: LedgerFields) -> str:
    """Return a sentence with the value and the gradient of the function.

    `ledger` is the result of `explain` for this function.

    Example:
      >>> from research.derivatives import explain
      >>> answer(explain(lambda x: (3 * x**2 + 2) ** 3, 0.5))
      'f = 20.8 at x = 0.5; its derivative is 68.06.'
    """
    inputs = _listed([f"{name} = {short(v)}" for name, v in ledger.inputs.items()])
    start = f"{ledger.title} = {short(ledger.value)} at {inputs}"
    if ledger.grads is None:
        return f"{start}. {ledger.note}"
    grads = gradients(ledger)
    if len(grads) == len(ledger.inputs) == 1:
        (grad,) = grads.values()
        noun = "derivative" if np.ndim(grad) == 0 else "gradient"
        return f"{start}; its {noun} is {short(grad)}."
    parts = _listed([f"{short(grad)} by {name}" for name, grad in grads.items()])
    return f"{start}; its gradient is {parts}."


def remark(ledger: LedgerFields) -> str:
    """Return sentences that say why the printed gradient may not be a derivative.

    The text is "" if the value and the gradient are finite and `Ledger.at_kinks` lists
    no row. It is also "" if there is no gradient. A row at a tie, or a row such as a
    loop that is not searched for ties, is only a warning: the function may have a kink
    or a jump, or it may be smooth.

    Example:
      >>> import jax.numpy as jnp
      >>> from research.derivatives import explain
      >>> remark(explain(lambda x: 2 * x, 0.5))
      ''
      >>> remark(explain(jnp.log, -1.0)).partition(",")[0]
      'The computed value of log is not finite'
    """
    if ledger.grads is None:
        return ""
    tape, inputs, output, _, names = ledger.recorded
    broken = nonfinite.first_nonfinite(tape, output, inputs, names)
    if broken:
        return f"{_broken(ledger)} {broken.sentence}"
    not_searched = tuple(f"{text}." for text in (kinks.BITS, kinks.NOT_SEARCHED))
    found = [kink.sentence for kink in kinks.at_kinks(tape, names)]
    if not found:
        return ""
    ties = [sentence for sentence in found if not sentence.endswith(not_searched)]
    why = (
        "a row is at a tie, where JAX follows a convention"
        if ties
        else "a row is not searched for ties"
    )
    shown = ties or found
    more = f" Other such rows: {len(shown) - 1}." if shown[1:] else ""
    return f"{ledger.title} may have no derivative there: {why}. {shown[0]}{more}"


def _broken(ledger: LedgerFields) -> str:
    if nonfinite.is_finite(ledger.value):
        return (
            "The gradient that JAX computes is not finite, so it may not be the "
            "derivative."
        )
    return (
        f"The computed value of {ledger.title} is not finite, so the gradient is not a "
        "derivative."
    )


def gradients(ledger: LedgerFields) -> dict[str, Any]:
    """Return the gradient with respect to each differentiated input.

    The result is a dict from the name of an input to the derivative of the function
    with respect to this input.
    """
    tape, inputs = ledger.recorded.tape, ledger.recorded.inputs
    return {
        name: np.zeros_like(tape.values[node])
        if tape.adjoints[node] is None
        else tape.adjoints[node]
        for name, node in inputs.items()
        if tape.active[node]
    }


def _listed(parts: list[str]) -> str:
    return ", ".join(
        parts if len(parts) <= 4 else [*parts[:3], f"and {len(parts) - 3} more"]
    )


def as_text(ledger: LedgerFields) -> str:
    """Return a ledger as text: a sentence, and the table of its rows.

    A ledger is the result of `explain` for a function f. The sentence gives the value
    and the gradient of f. A `remark` follows if the gradient may not be a derivative.
    Each row describes one equation of f. The scope of a row consists of the names of
    the function calls, derivative rules, branches and loop steps that contain the
    equation. Where the scope changes from one row to the next, a line shows the new
    scope.
    """
    cells = [
        (row.scope, lines)
        for row, lines in zip(ledger.rows, all_cells(ledger), strict=True)
    ]
    lines = [line for _, group in cells for line in group]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *lines, strict=True)]
    dashes = ["-" * width for width in widths]
    heading, rule, *table = aligned([HEADINGS, dashes, *lines])
    out = [*filter(None, (answer(ledger), remark(ledger))), "", heading, rule]
    scope, rest = (), iter(table)
    for now, group in cells:
        if now != scope:
            out.append(f"[{' / '.join(now) or f'{ledger.title} itself'}]")
            scope = now
        out += itertools.islice(rest, len(group))
    return "\n".join(out)


def all_cells(ledger: LedgerFields) -> list[list[tuple[str, ...]]]:
    """Return the lines of each row of the table.

    A row describes one equation of the traced function, and a line is a tuple with a
    text for each column of HEADINGS. The row has one line for each input to whose
    adjoint the equation contributes. If the equation computes the value of a function
    with a custom reverse rule, a line for each contribution of the rule follows. A row
    without contributions has one line.
    """
    own = _by_own_rule(ledger)
    return [_cells(row, own.get(row.name, [])) for row in ledger.rows]


def _by_own_rule(ledger: LedgerFields) -> dict[str, list[str]]:
    """Return a dict from row names to the contributions of custom rules, as texts."""
    names, lines = ledger.recorded.names, {}
    for rule in ledger.recorded.tape.rules:
        if rule.reverse and rule.reverse.contributions and rule.outputs:
            shares = zip(rule.inputs, rule.reverse.contributions, strict=True)
            lines[names[rule.outputs[0]]] = [
                f"{_cut(names.get(node, ''), 16)}: rule of {rule.name} → {short(share)}"
                for node, share in shares
            ]
    return lines


def _cells(row: Row, own: list[str]) -> list[tuple[str, ...]]:
    name = row.name if len(row.name) <= 12 else row.name[:11] + "…"
    first = (
        name,
        _cut(row.expression),
        _cut(short(row.value)),
        _cut(short(row.adjoint)),
    )
    return [
        (
            *(first if i == 0 else ("",) * 4),
            text,
            *((row.rule, row.source) if i == 0 else ("", "")),
        )
        for i, text in enumerate([*passes_on(row), *own] or [""])
    ]


def passes_on(row: Row) -> list[str]:
    """Return a text for each input that gets a contribution from the row.

    The row is one equation of the traced function. In the backward pass, the equation
    contributes to the adjoints of its inputs. Each text shows the name of the input,
    the local derivative and the contribution.
    """
    return [
        f"{_cut(name, 16)}: "
        f"{f'× {short(local)} ' if local is not None else ''}→ {short(share)}"
        for name, local, share in zip(
            row.inputs, row.local, row.contributions, strict=True
        )
        if share is not None
    ]


def _cut(text: str, most: int = WIDEST) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
