"""A ledger as text: the answer in sentences, then a line for each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from research.derivatives.ledger.wording import short

if TYPE_CHECKING:
    from research.derivatives.ledger.ledger import Ledger
    from research.derivatives.ledger.rows import Row

HEADINGS = ("row", "equation", "value", "adjoint", "passes on", "rule", "line")
WIDEST = 44  # Letters of a cell.


def answer(ledger: Ledger) -> str:
    """Value and gradient in a sentence.

    Example:
      >>> from research.derivatives import explain
      >>> answer(explain(lambda x: (3 * x**2 + 2) ** 3, 0.5))
      'f = 20.8 at x = 0.5; its derivative is 68.06.'
    """
    start = f"{ledger.title} = {short(ledger.value)} at {_listed([f'{n} = {short(v)}' for n, v in ledger.inputs.items()])}"
    if ledger.grads is None:
        return f"{start}. {ledger.note}"
    found = gradients(ledger)
    if len(found) == len(ledger.inputs) == 1:
        (grad,) = found.values()
        return f"{start}; its {'derivative' if np.ndim(grad) == 0 else 'gradient'} is {short(grad)}."
    return f"{start}; its gradient is {_listed([f'{short(grad)} by {name}' for name, grad in found.items()])}."


def gradients(ledger: Ledger) -> dict[str, Any]:
    """Name -> gradient of each input that has one."""
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


def as_text(ledger: Ledger) -> str:
    """The answer, then a table; where a scope begins, its name stands on a line of its own."""
    cells = [
        (row.scope, lines)
        for row, lines in zip(ledger.rows, all_cells(ledger), strict=True)
    ]
    lines = [line for _, group in cells for line in group]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *lines, strict=True)]
    out, scope = (
        [
            answer(ledger),
            "",
            _line(HEADINGS, widths),
            "  ".join("-" * width for width in widths),
        ],
        (),
    )
    for now, group in cells:
        if now != scope:
            out.append(f"[{' / '.join(now) or f'{ledger.title} itself'}]")
            scope = now
        out += [_line(line, widths) for line in group]
    return "\n".join(out)


def all_cells(ledger: Ledger) -> list[list[tuple[str, ...]]]:
    """The lines of each row: one for each input that gets something, and at least one."""
    own = _by_own_rule(ledger)
    return [_cells(row, own.get(row.name, [])) for row in ledger.rows]


def _by_own_rule(ledger: Ledger) -> dict[str, list[str]]:
    """Row -> what a reverse rule of the function's own passes on from it."""
    names, found = ledger.recorded.names, {}
    for rule in ledger.recorded.tape.rules:
        if rule.reverse and rule.reverse.contributions and rule.outputs:
            shares = zip(rule.inputs, rule.reverse.contributions, strict=True)
            found[names[rule.outputs[0]]] = [
                f"{_cut(names.get(node, ''), 16)}: rule of {rule.name} → {short(share)}"
                for node, share in shares
            ]
    return found


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
    """Of each input that gets something: its name, the local derivative where there is one, and the contribution."""
    return [
        f"{_cut(name, 16)}: {f'× {short(local)} ' if local is not None else ''}→ {short(share)}"
        for name, local, share in zip(
            row.inputs, row.local, row.contributions, strict=True
        )
        if share is not None
    ]


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(
        cell.ljust(width) for cell, width in zip(cells, widths, strict=True)
    ).rstrip()


def _cut(text: str, most: int = WIDEST) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
