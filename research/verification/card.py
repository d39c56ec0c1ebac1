"""The card of a rule: its formula, other authorities, and arguments to compare with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from research.verification.formula import Formula
from research.verification.problems import Problem

Constructor = Callable[..., optax.GradientTransformation]


class Recorded(NamedTuple):
    """Reference to recorded trajectories of the rule in another implementation.

    Attributes:
      variant: Prefix "optimizer/variant" of the keys in recorded.json.
      arguments: Arguments of this library's rule that make the two rules equal.
    """

    variant: str
    arguments: dict[str, Any] = {}


class Card(NamedTuple):
    """The references that a rule is compared with, and the arguments to compare with.

    Attributes:
      formula: The rule in fifty digits as its paper prints it, with known mistakes. Or
        the reason why there is no formula, as a clause.
      optax: The counterpart in optax, called with this library's argument names. Or the
        reason why there is none, as a sentence.
      recorded: Recorded trajectories of another implementation. Or the reason why there
        are none, as a sentence.
      arguments: Arguments other than the defaults, for a second comparison.
      optax_arguments: The same arguments under optax's names, if they differ. None
        means the same names.
      unit_steps: Whether the length of a step is the learning rate, whatever the size
        of the gradient.
      rates: Learning rates by problem, where the problem's own rate is not suitable.
      reasons: Reasons why the rule is not compared on a problem, by the problem's name.
      bounds: Bounds by authority ("formula", "optax", "recorded"), in units of eps.
        Each replaces the table's own bound for a stated reason.
    """

    formula: Formula | str
    optax: Constructor | str
    recorded: tuple[Recorded, ...] | str
    arguments: dict[str, Any] = {}
    optax_arguments: dict[str, Any] | None = None
    unit_steps: bool = True
    rates: dict[str, float] = {}
    reasons: dict[str, str] = {}
    bounds: dict[str, float] = {}


def rate_on(problem: Problem, card: Card | None) -> float:
    """Return the learning rate for a rule on a problem."""
    if card is None:
        return problem.rate
    return card.rates.get(
        problem.name, problem.rate_of_unit_steps if card.unit_steps else problem.rate
    )
