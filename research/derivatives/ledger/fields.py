"""Fields of the class `Ledger`, used as a type by the modules that display a ledger."""

from typing import Any, NamedTuple

from research.derivatives.ledger.rows import Row
from research.derivatives.ledger.tape import Equation, Operand, Tape


class Recorded(NamedTuple):
    """Recorded evaluation behind the table of `explain`.

    Attributes:
      tape: Values, equations and adjoints.
      inputs: Dict from the name of each argument leaf to its node. A node is the index
        of a value on the tape.
      output: Node of the value of the function, or a constant.
      shown: List with the equation of each row of the table.
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
