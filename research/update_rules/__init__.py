"""Update rules, each an `optax.GradientTransformation`, and the table of their names.

A rule is a pair of functions: init(params) -> state, and update(updates, state, params)
-> (updates, state). The input updates are gradients. The output updates are added to
the params. optax's rules have the same form, so functions such as optax.chain and
optax.apply_updates work with the rules of this package. In the formulas of the rules,
x_t are the params, g_t is the gradient, u_t the update and η_t the learning rate at
step t.

To add a rule:

1. Write the function of the rule in the file of its family in this package. Add the
   rule's `RuleEntry` (search space, aliases) to `RULES` in the same file.
2. Import the function in this file, below, to make its name public. If the family is
   new, add it to `FAMILIES`.
3. Add a `Card`, which says how the rule is verified, to the file of the rule's family
   in `research.verification`. The card computes the paper's formula with fifty digits,
   lists common mistakes in the formula, and names other implementations to compare
   with.

All tables, pages and tests then include the rule. Run `python docs/build.py`, and then
`python -m pytest tests/test_rule_table.py`, which reports missing parts.
"""

from collections.abc import Callable

import optax

from research.checks import shown
from research.naming import known_names
from research.update_rules import (
    _accumulating,
    _adam,
    _adam_momenta,
    _adam_scheduled,
    _adam_variants,
    _averaging,
    _factored,
    _first_order,
    _gradient_line_search,
    _kronecker,
    _layerwise,
    _least_squares,
    _natural_gradient,
    _newton,
    _optimistic,
    _parameter_free,
    _quasi_newton,
    _rprop,
    _schedule_free,
    _sharpness,
    _sign_based,
    _step_sizes,
    _trust_ratio,
    _variance_reduction,
)
from research.update_rules._accumulating import adadelta as adadelta
from research.update_rules._accumulating import adagrad as adagrad
from research.update_rules._accumulating import madgrad as madgrad
from research.update_rules._accumulating import rmsprop as rmsprop
from research.update_rules._adam import adam as adam
from research.update_rules._adam import adamax as adamax
from research.update_rules._adam import adamaxw as adamaxw
from research.update_rules._adam import adamw as adamw
from research.update_rules._adam import amsgrad as amsgrad
from research.update_rules._adam_momenta import ademamix as ademamix
from research.update_rules._adam_momenta import laprop as laprop
from research.update_rules._adam_momenta import mars as mars
from research.update_rules._adam_momenta import (
    simplified_ademamix as simplified_ademamix,
)
from research.update_rules._adam_scheduled import nadam as nadam
from research.update_rules._adam_scheduled import nadamw as nadamw
from research.update_rules._adam_scheduled import radam as radam
from research.update_rules._adam_variants import acprop as acprop
from research.update_rules._adam_variants import adabelief as adabelief
from research.update_rules._adam_variants import adahessian as adahessian
from research.update_rules._adam_variants import adahessian_draws as adahessian_draws
from research.update_rules._adam_variants import adan as adan
from research.update_rules._adam_variants import cautious_adamw as cautious_adamw
from research.update_rules._adam_variants import yogi as yogi
from research.update_rules._averaging import (
    exponential_averaging as exponential_averaging,
)
from research.update_rules._averaging import lookahead as lookahead
from research.update_rules._averaging import polyak_averaging as polyak_averaging
from research.update_rules._clipping import clip_adaptively as clip_adaptively
from research.update_rules._clipping import clip_by_global_norm as clip_by_global_norm
from research.update_rules._clipping import clip_by_norm as clip_by_norm
from research.update_rules._clipping import clip_by_value as clip_by_value
from research.update_rules._combinators import (
    accumulate_gradients as accumulate_gradients,
)
from research.update_rules._combinators import cautious as cautious
from research.update_rules._combinators import skip_nonfinite as skip_nonfinite
from research.update_rules._combinators import with_state_dtype as with_state_dtype
from research.update_rules._entry import Range as Range
from research.update_rules._entry import RuleEntry as RuleEntry
from research.update_rules._factored import adafactor as adafactor
from research.update_rules._factored import sm3 as sm3
from research.update_rules._first_order import ema_momentum as ema_momentum
from research.update_rules._first_order import gradient_descent as gradient_descent
from research.update_rules._first_order import heavy_ball as heavy_ball
from research.update_rules._first_order import nesterov as nesterov
from research.update_rules._first_order import noisy_sgd as noisy_sgd
from research.update_rules._first_order import sign_descent as sign_descent
from research.update_rules._first_order import signum as signum
from research.update_rules._gradient_line_search import (
    backtracking_descent as backtracking_descent,
)
from research.update_rules._gradient_line_search import (
    nonlinear_conjugate_gradient as nonlinear_conjugate_gradient,
)
from research.update_rules._groups import by_group as by_group
from research.update_rules._groups import checked_mask as checked_mask
from research.update_rules._groups import masked_leaves as masked_leaves
from research.update_rules._kronecker import kl_soap as kl_soap
from research.update_rules._kronecker import psgd_draws as psgd_draws
from research.update_rules._kronecker import psgd_kron as psgd_kron
from research.update_rules._kronecker import shampoo as shampoo
from research.update_rules._kronecker import soap as soap
from research.update_rules._layerwise import MatrixAxes as MatrixAxes
from research.update_rules._layerwise import hyperball as hyperball
from research.update_rules._layerwise import lamb as lamb
from research.update_rules._layerwise import muon as muon
from research.update_rules._layerwise import normuon as normuon
from research.update_rules._least_squares import gauss_newton as gauss_newton
from research.update_rules._least_squares import (
    levenberg_marquardt as levenberg_marquardt,
)
from research.update_rules._natural_gradient import natural_gradient as natural_gradient
from research.update_rules._newton import newton as newton
from research.update_rules._newton import trust_region_newton as trust_region_newton
from research.update_rules._optimistic import optimistic_adam as optimistic_adam
from research.update_rules._optimistic import (
    optimistic_gradient_descent as optimistic_gradient_descent,
)
from research.update_rules._parameter_free import cocob as cocob
from research.update_rules._parameter_free import dadapt_adamw as dadapt_adamw
from research.update_rules._parameter_free import dog as dog
from research.update_rules._parameter_free import dowg as dowg
from research.update_rules._parameter_free import mechanic as mechanic
from research.update_rules._parameter_free import momo as momo
from research.update_rules._parameter_free import momo_adam as momo_adam
from research.update_rules._parameter_free import prodigy as prodigy
from research.update_rules._plateau import reduce_on_plateau as reduce_on_plateau
from research.update_rules._quasi_newton import bfgs as bfgs
from research.update_rules._quasi_newton import lbfgs as lbfgs
from research.update_rules._rprop import rprop as rprop
from research.update_rules._schedule_free import (
    schedule_free_adamw as schedule_free_adamw,
)
from research.update_rules._schedule_free import schedule_free_sgd as schedule_free_sgd
from research.update_rules._sharpness import sam as sam
from research.update_rules._sign_based import adopt as adopt
from research.update_rules._sign_based import lion as lion
from research.update_rules._step_sizes import adgd as adgd
from research.update_rules._step_sizes import barzilai_borwein as barzilai_borwein
from research.update_rules._step_sizes import polyak_step as polyak_step
from research.update_rules._transforms import (
    add_decayed_weights as add_decayed_weights,
)
from research.update_rules._transforms import descend as descend
from research.update_rules._transforms import evaluation_params as evaluation_params
from research.update_rules._trust_ratio import fromage as fromage
from research.update_rules._trust_ratio import lars as lars
from research.update_rules._trust_ratio import novograd as novograd
from research.update_rules._variance_reduction import saga as saga
from research.update_rules._variance_reduction import svrg as svrg

# Families of rules, in the order of tables and pages.
FAMILIES = (
    _first_order,
    _step_sizes,
    _averaging,
    _accumulating,
    _factored,
    _adam,
    _adam_scheduled,
    _adam_variants,
    _adam_momenta,
    _sign_based,
    _rprop,
    _layerwise,
    _trust_ratio,
    _optimistic,
    _kronecker,
    _schedule_free,
    _parameter_free,
    _sharpness,
    _gradient_line_search,
    _quasi_newton,
    _newton,
    _natural_gradient,
    _variance_reduction,
    _least_squares,
)

# All rules by name, each with its search space, first rates and aliases.
RULE_TABLE: dict[str, RuleEntry] = {
    entry.constructor.__name__: entry for family in FAMILIES for entry in family.RULES
}

# Rules that need only a name and a learning rate. The other rules also need the number
# of examples or the residuals. Pass these to the constructor or to
# `research.descent.minimise`.
UPDATE_RULES: dict[str, Callable[..., optax.GradientTransformation]] = {
    name: entry.constructor for name, entry in RULE_TABLE.items() if not entry.needs
}

# Names in other libraries, and the name of the same rule here.
ALIASES = {alias: name for name, entry in RULE_TABLE.items() for alias in entry.aliases}


def find_rule(name: str) -> Callable[..., optax.GradientTransformation]:
    """Return the constructor of the update rule with a given name.

    Args:
      name: Name of a rule that needs only a learning rate, such as "adam". The names
        are the keys of `UPDATE_RULES`.
    Returns:
      The constructor: a function that takes learning_rate and optional arguments, and
      returns the rule.
    Raises:
      TypeError: name is not a str.
      ValueError: The name is unknown, or the rule needs another input besides a
        learning rate. For an unknown name, the message suggests the nearest name.
    Example:
      >>> find_rule("heavy_ball").__name__
      'heavy_ball'
      >>> find_rule("heavyball")
      Traceback (most recent call last):
      ValueError: unknown rule 'heavyball'; did you mean 'heavy_ball'? Known: ...
    """
    if not isinstance(name, str):
        raise TypeError(
            f"name must be a str, the name of a rule; got name={shown(name)}."
        )
    if name in UPDATE_RULES:
        return UPDATE_RULES[name]
    if name in RULE_TABLE:
        raise ValueError(
            f"{name} cannot be built from its name alone, because it needs "
            f"{RULE_TABLE[name].needs}. Call research.update_rules.{name}."
        )
    raise ValueError(f"unknown rule {name!r}{known_names(name, UPDATE_RULES, ALIASES)}")
