"""Fields of the class `Ledger`, used as a type by the modules that display a ledger."""

from typing import Any, NamedTuple

from research.derivatives.ledger.rows import Row
from research.derivatives.ledger.tape import Equation, Operand, Tape


class Recorded(NamedTuple):
    """Recorded evaluation behind the table of `explain`.

    Attributes:
      tape: Values, equations and adjoints.
      inputs: Dict from the name of each argument leaf to its node. A node is a number:
        the position on the tape.
      output: The value of the function: a node, or a constant.
      shown: For each row of the table, its equation.
      names: Dict from a node to the name of its value.
    """

    tape: Tape
    inputs: dict[str, int]
    output: Operand
    shown: list[Equation]
    names: dict[int, str]


class LedgerFields(NamedTuple):
    """Fields of `research.derivatives.Ledger`, whose docstring describes them."""

    title: str
    rows: tuple[Row, ...]
    value: Any
    grads: Any
    inputs: dict[str, Any]
    output: str
    note: str
    recorded: Recorded
