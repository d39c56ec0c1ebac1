"""Rules that keep params of their own to evaluate at: each formula yields its iterates together with those."""

from itertools import count

from research.verification.formulas.formula import Formula, Mistake
from research.verification.formulas.leaves import Leaves, zeros_like


class Evaluated(Leaves):
    """Iterates that are evaluated elsewhere.

    Args:
      iterate: Where the rule goes on from.
      evaluation: Where it is evaluated.
    """

    def __init__(self, iterate: Leaves, evaluation: Leaves):
        super().__init__(iterate.arrays)
        self.evaluation = evaluation


def lookahead(
    x, f, learning_rate, sync_period=5, slow_step_size=0.5, reset_state=False
):
    """Zhang et al. (2019), algorithm 1, around the heavy ball with momentum 0.9."""
    slow, m = x, zeros_like(x)
    for t in count(1):
        m = 0.9 * m + f.gradient(x)
        x = x - learning_rate * m
        if t % sync_period == 0:
            slow = slow + slow_step_size * (x - slow)
            x = slow
            if reset_state:
                m = zeros_like(m)
        yield Evaluated(x, slow)


def polyak_averaging(x, f, learning_rate, start=0):
    """Polyak & Juditsky (1992), equation (2), over the iterates after `start`, around gradient descent."""
    total, n = zeros_like(x), 0
    for t in count(1):
        x = x - learning_rate * f.gradient(x)
        if t > start:
            total, n = total + x, n + 1
        yield Evaluated(x, total / n if n else x)


def exponential_averaging(x, f, learning_rate, decay=0.999, debias=True):
    """Kingma & Ba (2015), section 7.2, around gradient descent; or from x_0 and without the correction."""
    average = zeros_like(x) if debias else x
    for t in count(1):
        x = x - learning_rate * f.gradient(x)
        average = decay * average + (1 - decay) * x
        yield Evaluated(x, average / (1 - decay**t) if debias else average)


FORMULAS = {
    "lookahead": Formula(
        lookahead,
        (
            Mistake(
                "the fast params do not come back to the slow",
                "            x = slow\n",
                "",
            ),
            Mistake(
                "the period is one step too long",
                "t % sync_period",
                "t % (sync_period + 1)",
            ),
            Mistake(
                "it comes back one step late",
                "t % sync_period == 0",
                "t % sync_period == 1 and t > 1",
            ),
            Mistake(
                "the slow params go all of the way",
                "slow = slow + slow_step_size * (x - slow)",
                "slow = x",
            ),
        ),
    ),
    "polyak_averaging": Formula(
        polyak_averaging,
        (
            Mistake(
                "the start is one of the iterates in the mean",
                "zeros_like(x), 0",
                "x, 1",
            ),
            Mistake(
                "there is no mean: the last iterate is given",
                "total / n if n else x",
                "x",
            ),
            Mistake(
                "the sum is divided by one too many",
                "total / n if",
                "total / (n + 1) if",
            ),
            Mistake(
                "the rule goes on from the mean",
                "if n else x)\n",
                "if n else x)\n        x = total / n\n",
            ),
        ),
    ),
    "exponential_averaging": Formula(
        exponential_averaging,
        (
            Mistake(
                "decay and 1 - decay are swapped",
                "decay * average + (1 - decay) * x",
                "(1 - decay) * average + decay * x",
            ),
            Mistake(
                "the correction counts one step too many", "decay**t", "decay**(t + 1)"
            ),
            Mistake(
                "there is no correction for the start at 0",
                "average / (1 - decay**t) if debias",
                "average if debias",
            ),
        ),
    ),
}
