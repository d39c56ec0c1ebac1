"""Update rules by hand, each an `optax.GradientTransformation`, and the table of their names.

A rule is two functions, init(params) -> state and update(updates, state, params) -> (updates, state): the updates that
come in are gradients, those that go out are added to the params. So ours go wherever optax's do.

To add one: write it in the file of its family (or a new file) and give it a line in
`UPDATE_RULES` below. Then write it once more from its paper in
`research.verification.formulas`, and name its authorities in
`research.verification.oracles`. Every law of a rule then runs on it, too.
"""

from collections.abc import Callable

import optax

from research.checks import shown
from research.naming import known_names
from research.update_rules._accumulating import adadelta as adadelta
from research.update_rules._accumulating import adagrad as adagrad
from research.update_rules._accumulating import rmsprop as rmsprop
from research.update_rules._adam import adam as adam
from research.update_rules._adam import adamax as adamax
from research.update_rules._adam import adamw as adamw
from research.update_rules._adam import amsgrad as amsgrad
from research.update_rules._adam_scheduled import nadam as nadam
from research.update_rules._adam_scheduled import radam as radam
from research.update_rules._adam_variants import adabelief as adabelief
from research.update_rules._adam_variants import adan as adan
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
from research.update_rules._combinators import skip_nonfinite as skip_nonfinite
from research.update_rules._combinators import with_state_dtype as with_state_dtype
from research.update_rules._first_order import ema_momentum as ema_momentum
from research.update_rules._first_order import gradient_descent as gradient_descent
from research.update_rules._first_order import heavy_ball as heavy_ball
from research.update_rules._first_order import nesterov as nesterov
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
from research.update_rules._layerwise import lamb as lamb
from research.update_rules._layerwise import muon as muon
from research.update_rules._least_squares import gauss_newton as gauss_newton
from research.update_rules._least_squares import (
    levenberg_marquardt as levenberg_marquardt,
)
from research.update_rules._natural_gradient import natural_gradient as natural_gradient
from research.update_rules._newton import newton as newton
from research.update_rules._newton import trust_region_newton as trust_region_newton
from research.update_rules._parameter_free import dog as dog
from research.update_rules._parameter_free import prodigy as prodigy
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
from research.update_rules._variance_reduction import saga as saga
from research.update_rules._variance_reduction import svrg as svrg

UPDATE_RULES: dict[str, Callable[..., optax.GradientTransformation]] = {
    "gradient_descent": gradient_descent,
    "heavy_ball": heavy_ball,
    "nesterov": nesterov,
    "ema_momentum": ema_momentum,
    "sign_descent": sign_descent,
    "signum": signum,
    "polyak_step": polyak_step,
    "barzilai_borwein": barzilai_borwein,
    "adgd": adgd,
    "lookahead": lookahead,
    "polyak_averaging": polyak_averaging,
    "exponential_averaging": exponential_averaging,
    "adagrad": adagrad,
    "adadelta": adadelta,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
    "amsgrad": amsgrad,
    "adamax": adamax,
    "nadam": nadam,
    "radam": radam,
    "adabelief": adabelief,
    "yogi": yogi,
    "adan": adan,
    "lion": lion,
    "adopt": adopt,
    "rprop": rprop,
    "lamb": lamb,
    "muon": muon,
    "schedule_free_sgd": schedule_free_sgd,
    "schedule_free_adamw": schedule_free_adamw,
    "dog": dog,
    "prodigy": prodigy,
    "sam": sam,
    "backtracking_descent": backtracking_descent,
    "nonlinear_conjugate_gradient": nonlinear_conjugate_gradient,
    "bfgs": bfgs,
    "lbfgs": lbfgs,
    "newton": newton,
    "trust_region_newton": trust_region_newton,
    "natural_gradient": natural_gradient,
}

# They need a sum over examples and which of them are drawn, so that they walk none of `research.verification.PROBLEMS`;
# tests/rules/test_variance_reduction.py holds them against their papers. The second argument is `period` or `num_examples`.
VARIANCE_REDUCTION: dict[str, Callable[..., optax.GradientTransformation]] = {
    "svrg": svrg,
    "saga": saga,
}

# They need the residuals, which no step of descent passes; tests/rules/test_least_squares.py holds them against their
# papers. Give residual_fn to the constructor, or to `research.descent.minimise`.
LEAST_SQUARES: dict[str, Callable[..., optax.GradientTransformation]] = {
    "gauss_newton": gauss_newton,
    "levenberg_marquardt": levenberg_marquardt,
}

# What users of other libraries ask for, where the nearest name is another rule.
NAMES_ELSEWHERE = {
    "sgd": "gradient_descent",
    "gd": "gradient_descent",
    "momentum": "heavy_ball",
    "nag": "nesterov",
    "sign_sgd": "sign_descent",
    "signsgd": "sign_descent",
    "polyak_sgd": "polyak_step",
    "asgd": "polyak_averaging",
    "cg": "nonlinear_conjugate_gradient",
}


def find_rule(name: str) -> Callable[..., optax.GradientTransformation]:
    """The constructor of the rule of that name.

    Args:
      name: A key of UPDATE_RULES.
    Returns:
      learning_rate, ... -> rule.
    Raises:
      ValueError: There is none, and the message names the nearest; or it is one of those that are not asked by name.
    Example:
      >>> find_rule("heavy_ball").__name__
      'heavy_ball'
      >>> find_rule("heavyball")
      Traceback (most recent call last):
      ValueError: unknown rule 'heavyball'; did you mean 'heavy_ball'? Known: gradient_descent, ...
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, that of a rule; got name={shown(name)}.")
    if name in UPDATE_RULES:
        return UPDATE_RULES[name]
    if name in VARIANCE_REDUCTION or name in LEAST_SQUARES:
        needs = (
            "a number of examples or steps"
            if name in VARIANCE_REDUCTION
            else "residuals"
        )
        raise ValueError(
            f"{name} is not called by name alone, for it needs {needs}; use research.update_rules.{name}."
        )
    raise ValueError(
        f"unknown rule {name!r}{known_names(name, UPDATE_RULES, NAMES_ELSEWHERE)}"
    )
