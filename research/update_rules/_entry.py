"""A row of the table of rules: how a rule is tuned and compared, and what others call
it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import optax


class Range(NamedTuple):
    """Where a hyper-parameter is searched.

    Attributes:
      low, high: Its ends, low < high.
      scale: How trials are spread: evenly in "log" x (for rates; low > 0), in x itself
        ("linear"), or in log of 1 - x ("one_minus", for momenta; 0 <= low, high < 1: as
        many trials between 0.9 and 0.99 as between 0 and 0.9).
      default: The value of the first trial, from low to high; None is the middle on the
        scale.
    """

    low: float
    high: float
    scale: str = "log"
    default: float | None = None


class RuleEntry(NamedTuple):
    """A rule in the table `RULE_TABLE`, under the name of its constructor.

    Attributes:
      constructor: learning_rate, ... -> rule.
      search_space: The ranges of the hyper-parameters that `compare` searches, by name;
        or the reason why `compare` does not take the rule, as a clause ("it needs
        ...").
      evaluations: Gradients or values of the batch objective that a step costs, the
        gradient that it is given included.
      rates: The first ladder of learning rates, ascending; None for the usual one.
      aliases: Names of the rule in other libraries, in small letters.
      needs: What a constructor or a step needs beside gradient and objective
        ("residuals"); "" for a rule of `UPDATE_RULES`, which is made by name and rate.
    """

    constructor: Callable[..., optax.GradientTransformation]
    search_space: Mapping[str, Range] | str
    evaluations: float = 1.0
    rates: tuple[float, ...] | None = None
    aliases: tuple[str, ...] = ()
    needs: str = ""

    @property
    def asks_the_objective(self) -> bool:
        """Whether a step evaluates the objective, beside the gradient that it is
        given."""
        return isinstance(self.search_space, str) or self.evaluations != 1.0


# Defaults are the constructor's where it has one; else the paper's, or that of its
# authors' code; 0.01 for descent along gradients (Keras) and 0.001 for most of Adam's
# variants. Two decades of 1 - x, the usual 0.9 in their middle:
MOMENTUM = Range(0.0, 0.99, "one_minus", 0.9)
AVERAGE = Range(0.0, 0.999, "one_minus", 0.9)

# First ladders of learning rates; a choice at an end widens them.
LARGE_RATES = tuple(2.0**k for k in range(-7, 1))
SMALL_RATES = tuple(2.0**k for k in range(-10, -2))

LINE_SEARCH = (
    "its line search evaluates the objective as often as the data ask for, so that a "
    "step has no fixed cost"
)
SECOND_ORDER = "it takes second derivatives, whose cost is not counted in gradients"


def gradient_rate(default: float) -> Range:
    """Rates that multiply a gradient: they are as large as an inverse curvature."""
    return Range(1e-4, 10.0, "log", default)


def step_rate(default: float) -> Range:
    """Rates of rules whose step hardly depends on the gradient's size.

    They are about the length of a step in each entry.
    """
    return Range(1e-5, 1.0, "log", default)
