"""Fields of a ledger. The views of a ledger are typed against them."""

from typing import Any, NamedTuple

from research.derivatives.ledger.rows import Row
from research.derivatives.ledger.tape import Equation, Operand, Tape


class Recorded(NamedTuple):
    """The recorded evaluation behind a ledger.

    Attributes:
      tape: Values, equations and adjoints.
      inputs: Name -> node of each leaf of the arguments.
      output: The function's value.
      shown: The equation of each row.
      names: Node -> name.
    """

    tape: Tape
    inputs: dict[str, int]
    output: Operand
    shown: list[Equation]
    names: dict[int, str]


class LedgerFields(NamedTuple):
    """Fields of `research.derivatives.Ledger`, which describes them."""

    title: str
    rows: tuple[Row, ...]
    value: Any
    grads: Any
    inputs: dict[str, Any]
    output: str
    note: str
    recorded: Recorded
