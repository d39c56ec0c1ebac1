"""Update rules by hand, each an `optax.GradientTransformation`, and the table of their names.

A rule is two functions, init(params) -> state and update(updates, state, params) -> (updates, state): the updates that
come in are gradients, those that go out are added to the params. So ours go wherever optax's do.

To add one: write it in the file of its family (or a new file), give it a line in `UPDATE_RULES` below, and its
counterpart a line in `research.proofs.OPTAX_COUNTERPARTS`. Every test of a rule then runs on it, too.
"""

import difflib
from collections.abc import Callable

import optax

from research.update_rules.adaptive import adagrad as adagrad
from research.update_rules.adaptive import adam as adam
from research.update_rules.adaptive import adamw as adamw
from research.update_rules.adaptive import rmsprop as rmsprop
from research.update_rules.building_blocks import add_decayed_weights as add_decayed_weights
from research.update_rules.building_blocks import descend as descend
from research.update_rules.first_order import gradient_descent as gradient_descent
from research.update_rules.first_order import heavy_ball as heavy_ball
from research.update_rules.first_order import nesterov as nesterov

UPDATE_RULES: dict[str, Callable[..., optax.GradientTransformation]] = {
    "gradient_descent": gradient_descent,
    "heavy_ball": heavy_ball,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
}


def find_rule(name: str) -> Callable[..., optax.GradientTransformation]:
    """The constructor of the rule of that name.

    Args:
      name: A key of UPDATE_RULES.
    Returns:
      learning_rate, ... -> rule.
    Raises:
      ValueError: There is none; the message names the nearest.
    Example:
      >>> find_rule("heavy_ball").__name__
      'heavy_ball'
      >>> find_rule("heavyball")
      Traceback (most recent call last):
      ValueError: unknown rule 'heavyball'; did you mean 'heavy_ball'? Known: gradient_descent, heavy_ball, nesterov, \
adagrad, rmsprop, adam, adamw.
    """
    if name in UPDATE_RULES:
        return UPDATE_RULES[name]
    nearest = difflib.get_close_matches(str(name).lower(), UPDATE_RULES, n=1)
    guess = f" did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"unknown rule {name!r};{guess} Known: {', '.join(UPDATE_RULES)}.")
