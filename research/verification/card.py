"""The card of a rule: its formula, other authorities, and the arguments to ask with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from research.verification.formula import Formula
from research.verification.problems import Problem

Constructor = Callable[..., optax.GradientTransformation]


class Recorded(NamedTuple):
    """Which trajectories of another implementation, kept in recorded.json, are this
    rule's.

    Attributes:
      variant: "optimizer/variant", as the keys of the file begin.
      arguments: Those of ours under which the two are one rule.
    """

    variant: str
    arguments: dict[str, Any] = {}


class Card(NamedTuple):
    """What a rule is held against, and the arguments with which it is asked.

    Attributes:
      formula: The rule as its paper prints it, in fifty digits, with the mistakes that
        are made in it; or why there is none, as a clause.
      optax: Its counterpart in optax, which has our arguments' names; or why there is
        none, in a sentence.
      recorded: Another implementation's trajectories, by problem; or why there are
        none, in a sentence.
      arguments: Arguments other than the defaults, under which the table asks once
        more.
      optax_arguments: The same for optax where its names are others; None: as ours.
      unit_steps: Whether the rule's step is as long as its rate, whatever the
        gradient's size.
      rates: Learning rates by problem, where the problem's own does not suit.
      reasons: By problem, why the rule is not asked there.
      bounds: By authority ("formula", "optax", "recorded"), units of eps that stand for
        a stated reason above the table's own bound.
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
    """The learning rate at which a rule is asked on a problem."""
    if card is None:
        return problem.rate
    return card.rates.get(
        problem.name, problem.rate_of_unit_steps if card.unit_steps else problem.rate
    )
