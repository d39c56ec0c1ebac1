"""Every rule as its paper prints it, in fifty digits, apart from `research.update_rules`: they share no line."""

from research.proofs.formulas import (
    accumulating,
    adam,
    adam_relatives,
    adam_scheduled,
    averaging,
    first_order,
    layerwise,
    line_searching,
    newton,
    normalized,
    parameter_free,
    rprop,
    schedule_free,
    sharpness,
    step_sizes,
)
from research.proofs.formulas.formula import Formula as Formula
from research.proofs.formulas.formula import Function as Function
from research.proofs.formulas.formula import Mistake as Mistake
from research.proofs.formulas.formula import mistaken as mistaken

FORMULAS: dict[str, Formula] = {
    **first_order.FORMULAS,
    **step_sizes.FORMULAS,
    **averaging.FORMULAS,
    **accumulating.FORMULAS,
    **adam.FORMULAS,
    **adam_scheduled.FORMULAS,
    **adam_relatives.FORMULAS,
    **normalized.FORMULAS,
    **rprop.FORMULAS,
    **layerwise.FORMULAS,
    **schedule_free.FORMULAS,
    **parameter_free.FORMULAS,
    **sharpness.FORMULAS,
    **line_searching.FORMULAS,
    **newton.FORMULAS,
}
