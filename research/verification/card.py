"""The card of a rule, which says how the rule is verified."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from research.verification.formula import Formula
from research.verification.problems import Problem

Constructor = Callable[..., optax.GradientTransformation]


class Recorded(NamedTuple):
    """Trajectories of a rule that were recorded from another implementation.

    Attributes:
      variant: Name under which the trajectories are stored in recorded.json, in the
        form "optimizer/variant".
      arguments: Arguments with which this library's rule equals the recorded rule.
    """

    variant: str
    arguments: dict[str, Any] = {}


class Card(NamedTuple):
    """How a rule is verified: the references, and the arguments to compare with.

    Attributes:
      formula: The paper's formula in arithmetic of fifty digits, with the mistakes that
        code of this rule often contains. If there is no formula, a text that gives the
        reason.
      optax: The constructor of the same rule in optax, or a function that builds the
        same rule from optax. If optax does not have the rule, a text that gives the
        reason.
      recorded: Recorded trajectories of other implementations. If there are none, a
        text that gives the reason.
      arguments: Arguments other than the defaults, for a second comparison. The first
        comparison uses the defaults. If `arguments` is empty, there is no second one.
      optax_arguments: The arguments with which `optax` is called in the second
        comparison. None means that `optax` is called with `arguments`.
      unit_steps: True if the length of a step is proportional to the learning rate and
        does not grow with the gradient.
      rates: Dict from the name of a problem to the learning rate, for problems whose
        own rate is not suitable.
      reasons: Dict from the name of a problem to the reason why the rule is not
        compared on this problem.
      bounds: Dict from a kind of reference ("formula", "optax", "recorded") or a dtype
        ("bfloat16") to the largest deviation allowed, in units of the machine epsilon.
        This bound replaces the usual one, which is 100 in the verification table. A
        comment beside the card says why another bound is needed.
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
    """Return the learning rate for a rule on a problem.

    A card says how a rule is verified. If `card.rates` has an entry for the problem,
    the result is this entry. Otherwise the result is `problem.rate_of_unit_steps` if
    `card.unit_steps` is True, and `problem.rate` if it is False. If `card` is None, the
    rule has no card, and the result is `problem.rate`.
    """
    if card is None:
        return problem.rate
    return card.rates.get(
        problem.name, problem.rate_of_unit_steps if card.unit_steps else problem.rate
    )
