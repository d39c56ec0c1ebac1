"""Every rule as its paper prints it, in fifty digits, apart from `research.update_rules`: they share no line."""

from research.proofs.formulas import adaptive, averaging, first_order, step_sizes
from research.proofs.formulas.formula import Formula as Formula
from research.proofs.formulas.formula import Function as Function
from research.proofs.formulas.formula import Mistake as Mistake
from research.proofs.formulas.formula import mistaken as mistaken

FORMULAS: dict[str, Formula] = {
    **first_order.FORMULAS,
    **step_sizes.FORMULAS,
    **averaging.FORMULAS,
    **adaptive.FORMULAS,
}
