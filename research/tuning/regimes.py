"""What is compared when batch, stochastic and mini-batch descent are: a sampler, and
whether the rate falls."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optax

from research import samplers, schedules
from research.checks import check_count
from research.tuning.rates import ANY_LADDER
from research.types import Sampler
from research.update_rules import RULE_TABLE


class Regime(NamedTuple):
    """A sampler with a word on its rate; the rule is the same in all of them.

    Attributes:
      name: As figures and tables show it.
      batch_size: Examples in a batch; None for the whole set.
      replacement: Whether an example may come again within an epoch.
      decaying: Whether the rate falls as 1 / sqrt(1 + passes).
    """

    name: str
    batch_size: int | None = None
    replacement: bool = False
    decaying: bool = False

    def sampler(self, n: int) -> Sampler:
        """The sampler of this regime for n examples."""
        if self.batch_size is None:
            return samplers.full_batch(n)
        return samplers.minibatch(n, self.batch_size, replacement=self.replacement)

    def make_rule(
        self, rule: Callable[[Any], optax.GradientTransformation], n: int
    ) -> Callable:
        """learning_rate -> rule, its rate constant, or η / sqrt(1 + t / n) for steps of
        one example."""
        if not self.decaying:
            return rule
        return lambda learning_rate: rule(
            schedules.inverse_square_root(learning_rate, n / (self.batch_size or n))
        )

    def ladder(self, rule: str) -> np.ndarray:
        """First rates to try: the rule's, moved up for exact gradients and down for
        those of single examples."""
        moved = {None: 16.0, 1: 1 / 16}.get(self.batch_size, 1.0)
        entry = RULE_TABLE.get(rule)
        rates = entry.rates if entry and entry.rates else ANY_LADDER
        return np.asarray(rates) * moved


def theory_regimes(batch_size: int) -> tuple[Regime, ...]:
    """Drawn with replacement, which is the case that the noise floor η tr(C) / 4b is
    derived for.

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
    """Those that people use: every epoch a new order.

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
