"""Every rule as its paper prints it, in fifty digits, apart from `research.update_rules`: they share no line."""

from research.verification.formulas import (
    accumulating,
    adam,
    adam_scheduled,
    adam_variants,
    averaging,
    first_order,
    layerwise,
    line_searching,
    newton,
    parameter_free,
    rprop,
    schedule_free,
    sharpness,
    sign_based,
    step_sizes,
)
from research.verification.formulas.formula import Formula as Formula
from research.verification.formulas.formula import Function as Function
from research.verification.formulas.formula import Mistake as Mistake
from research.verification.formulas.formula import mistaken as mistaken

FORMULAS: dict[str, Formula] = {
    **first_order.FORMULAS,
    **step_sizes.FORMULAS,
    **averaging.FORMULAS,
    **accumulating.FORMULAS,
    **adam.FORMULAS,
    **adam_scheduled.FORMULAS,
    **adam_variants.FORMULAS,
    **sign_based.FORMULAS,
    **rprop.FORMULAS,
    **layerwise.FORMULAS,
    **schedule_free.FORMULAS,
    **parameter_free.FORMULAS,
    **sharpness.FORMULAS,
    **line_searching.FORMULAS,
    **newton.FORMULAS,
}
