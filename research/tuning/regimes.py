"""Regimes of descent: ways to draw batches, with a constant or decaying rate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optax
from jaxtyping import Float

from research import samplers, schedules
from research.checks import check_count
from research.tuning.rates import ANY_LADDER
from research.types import Sampler
from research.update_rules import RULE_TABLE


class Regime(NamedTuple):
    """A way to draw batches, with a constant or a decaying learning rate.

    The update rule is not part of a regime, but an argument of the method `make_rule`.

    Attributes:
      name: Name in figures and tables.
      batch_size: Number of examples in a batch; None means all examples.
      replacement: Whether an example may be drawn more than once in an epoch.
      decaying: Whether the learning rate decreases as 1 / sqrt(1 + passes over the
        data).
    """

    name: str
    batch_size: int | None = None
    replacement: bool = False
    decaying: bool = False

    def sampler(self, n: int) -> Sampler:
        """Return the sampler of this regime for n training examples."""
        if self.batch_size is None:
            return samplers.full_batch(n)
        return samplers.minibatch(n, self.batch_size, replacement=self.replacement)

    def make_rule(
        self, rule: Callable[[Any], optax.GradientTransformation], n: int
    ) -> Callable:
        """Return a function from a learning rate to a rule whose rate may decay.

        The argument `rule` is a function that takes a learning rate or a schedule, and
        returns an update rule. n is the number of training examples. If `decaying` is
        False, the learning rate is constant, and the result is `rule` itself. If
        `decaying` is True, the rate at step t = 0, 1, ... is the learning rate divided
        by sqrt(1 + t b / n). Here b is the batch size, which is n for the full batch.
        """
        if not self.decaying:
            return rule
        return lambda learning_rate: rule(
            schedules.inverse_square_root(learning_rate, n / (self.batch_size or n))
        )

    def ladder(self, rule: str) -> Float[np.ndarray, " rates"]:
        """Return the learning rates to try first for the rule with the name `rule`.

        The rates are those in the field `rates` of the rule in
        `research.update_rules.RULE_TABLE`. If this field is None, or if the table does
        not contain the rule, the rates are 2^-10, 2^-9, ..., 1 (`ANY_LADDER`). All
        rates are multiplied by 16 for the full batch, and divided by 16 for batches of
        one example.
        """
        moved = {None: 16.0, 1: 1 / 16}.get(self.batch_size, 1.0)
        entry = RULE_TABLE.get(rule)
        rates = entry.rates if entry and entry.rates else ANY_LADDER
        return np.asarray(rates) * moved


def theory_regimes(batch_size: int) -> tuple[Regime, ...]:
    """Return regimes for which theory predicts how close descent comes to the minimum.

    A regime is a way to draw batches, with a constant or a decaying learning rate. The
    result is a tuple of four `Regime`, in this order:

    - the full batch;
    - mini-batches of `batch_size` examples;
    - single examples;
    - single examples with a decaying learning rate.

    Mini-batches and single examples are drawn with replacement. Let f be the objective
    and f* its minimum. For gradient descent with a small constant learning rate η on
    mini-batches or single examples, f - f* levels off at approximately η tr(C) / (4b).
    Here b is the number of examples in a batch, and C is the covariance matrix of the
    gradients of single examples at the minimum.

    Example:
      >>> [regime.name for regime in theory_regimes(32)][1:3]
      ['mini-batch 32, with replacement', 'stochastic, with replacement']
    """
    check_count("batch_size", batch_size)
    return (
        Regime("full batch"),
        Regime(
            f"mini-batch {batch_size}, with replacement", batch_size, replacement=True
        ),
        Regime("stochastic, with replacement", 1, replacement=True),
        Regime("stochastic, decaying rate", 1, replacement=True, decaying=True),
    )


def practice_regimes(batch_size: int) -> tuple[Regime, ...]:
    """Return the three usual ways to draw batches, as a tuple of `Regime`.

    These three regimes draw the full batch, mini-batches of `batch_size` examples, and
    single examples. For mini-batches and single examples, the data are shuffled in
    every epoch. The learning rate is constant.

    Example:
      >>> [regime.name for regime in practice_regimes(32)]
      ['full batch', 'mini-batch 32', 'stochastic']
    """
    check_count("batch_size", batch_size)
    return (
        Regime("full batch"),
        Regime(f"mini-batch {batch_size}", batch_size),
        Regime("stochastic", 1),
    )
