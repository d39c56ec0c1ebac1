"""Entries of the table of rules: the search ranges and the other names of a rule."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import optax


class Range(NamedTuple):
    """Range of the values of one hyper-parameter, for a hyper-parameter search.

    Attributes:
      low, high: Ends of the range, low < high.
      scale: Name of the scale on which the search spreads its values x evenly. "log"
        spreads log x evenly. Use "log" for rates, with low > 0. "linear" spreads x
        itself evenly. "one_minus" spreads log(1 - x) evenly, so the search tries as
        many values between 0.9 and 0.99 as between 0 and 0.9. Use "one_minus" for
        momenta, with 0 <= low and high < 1.
      default: Value between low and high that the search tries first. None means the
        middle of the range, measured on the scale.
    """

    low: float
    high: float
    scale: str = "log"
    default: float | None = None


class RuleEntry(NamedTuple):
    """Entry of an update rule in the dict `RULE_TABLE`, whose keys are names of rules.

    The name of a rule is the name of its constructor.

    Attributes:
      constructor: Function that takes learning_rate and other arguments, and returns
        the rule.
      search_space: Mapping from the name of a hyper-parameter to the Range that
        `research.comparison.compare` searches. If `compare` does not accept the rule,
        this field is instead a str with the reason, such as "it needs residuals".
      evaluations: Cost of a step: the number of evaluations of the objective or of its
        gradient on the batch. The gradient that is passed to update counts as one
        evaluation. If `compare` does not accept the rule, the field has no meaning.
      rates: Learning rates that `research.tuning` tries first, in ascending order. None
        means the powers of two from 2^-10 to 1 (`research.tuning.ANY_LADDER`).
      aliases: Names of the rule in other libraries, in lower case.
      needs: Input that the rule needs besides the gradient and the objective, for
        example "residuals". The constructor or update gets this input. "" if the rule
        needs nothing else. The dict `UPDATE_RULES` contains exactly the rules whose
        `needs` is "".
    """

    constructor: Callable[..., optax.GradientTransformation]
    search_space: Mapping[str, Range] | str
    evaluations: float = 1.0
    rates: tuple[float, ...] | None = None
    aliases: tuple[str, ...] = ()
    needs: str = ""

    @property
    def asks_the_objective(self) -> bool:
        """Whether a step may evaluate the objective, besides using the given gradient.

        The property is False only if `compare` accepts the rule and `evaluations` is 1.
        For all other rules, the property is True, even if their steps need only the
        gradient.
        """
        return isinstance(self.search_space, str) or self.evaluations != 1.0


# Default values come from the constructor if it has one, otherwise from the paper or
# its authors' code. The default rate is 0.01 for descent along gradients (as in Keras)
# and 0.001 for most variants of Adam. MOMENTUM covers two decades of 1 - x, with the
# usual 0.9 in the middle.
MOMENTUM = Range(0.0, 0.99, "one_minus", 0.9)
AVERAGE = Range(0.0, 0.999, "one_minus", 0.9)

# First grids of learning rates. If the best rate lies at an end, the grid is widened.
LARGE_RATES = tuple(2.0**k for k in range(-7, 1))
SMALL_RATES = tuple(2.0**k for k in range(-10, -2))

LINE_SEARCH = (
    "its line search evaluates the objective a varying number of times, so a step has "
    "no fixed cost"
)
SECOND_ORDER = "it takes second derivatives, whose cost is not counted in gradients"


def gradient_rate(default: float) -> Range:
    """Return the search range of the rate of a rule such as gradient descent.

    The step of such a rule is proportional to the gradient, so a good rate is about the
    inverse of a curvature. The range is 1e-4 to 10 on the scale "log", and `default` is
    the value that is tried first.
    """
    return Range(1e-4, 10.0, "log", default)


def step_rate(default: float) -> Range:
    """Return the search range of the learning rate of a rule such as Adam.

    The step of such a rule hardly depends on the size of the gradient: each entry of
    the params moves by about the rate. The range is 1e-5 to 1 on the scale "log", and
    `default` is the value that is tried first.
    """
    return Range(1e-5, 1.0, "log", default)
