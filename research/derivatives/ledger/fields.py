"""Fields of the class `Ledger`, which its views use as a type."""

from typing import Any, NamedTuple

from research.derivatives.ledger.rows import Row
from research.derivatives.ledger.tape import Equation, Operand, Tape


class Recorded(NamedTuple):
    """Recorded evaluation behind the table of `explain`.

    Attributes:
      tape: Values, equations and adjoints.
      inputs: name -> node of each leaf of the arguments.
      output: Operand of the function's value.
      shown: Equation of each row.
      names: node -> name.
    """

    tape: Tape
    inputs: dict[str, int]
    output: Operand
    shown: list[Equation]
    names: dict[int, str]


class LedgerFields(NamedTuple):
    """Fields of `research.derivatives.Ledger`. Its docstring describes them."""

    title: str
    rows: tuple[Row, ...]
    value: Any
    grads: Any
    inputs: dict[str, Any]
    output: str
    note: str
    recorded: Recorded
