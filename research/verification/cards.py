"""The cards of all rules. The card of a rule says how the rule is verified."""

from research.update_rules import RULE_TABLE
from research.verification import (
    accumulating,
    adam,
    adam_momenta,
    adam_scheduled,
    adam_variants,
    averaging,
    factored,
    first_order,
    gradient_line_search,
    kronecker,
    layerwise,
    least_squares,
    natural_gradient,
    newton,
    optimistic,
    parameter_free,
    quasi_newton,
    rprop,
    schedule_free,
    sharpness,
    sign_based,
    step_sizes,
    trust_ratio,
    variance_reduction,
)
from research.verification.card import Card
from research.verification.formula import Formula

FAMILIES = (
    first_order,
    step_sizes,
    averaging,
    accumulating,
    factored,
    adam,
    adam_scheduled,
    adam_variants,
    adam_momenta,
    sign_based,
    rprop,
    layerwise,
    trust_ratio,
    optimistic,
    kronecker,
    schedule_free,
    parameter_free,
    sharpness,
    gradient_line_search,
    quasi_newton,
    newton,
    natural_gradient,
    variance_reduction,
    least_squares,
)

CARDS: dict[str, Card] = {
    name: card for family in FAMILIES for name, card in family.CARDS.items()
}

# Formulas of the rules that can run on `research.verification.PROBLEMS`.
FORMULAS: dict[str, Formula] = {
    name: card.formula
    for name, card in CARDS.items()
    if isinstance(card.formula, Formula) and not RULE_TABLE[name].needs
}
