"""Regimes of descent: a sampler, and whether the learning rate decays."""

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
    """A sampler, and whether the rate decays; the rule is the same in all regimes.

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
        """Return learning_rate -> rule, its rate constant or decaying.

        For steps of one example the decaying rate is η / sqrt(1 + t / n).
        """
        if not self.decaying:
            return rule
        return lambda learning_rate: rule(
            schedules.inverse_square_root(learning_rate, n / (self.batch_size or n))
        )

    def ladder(self, rule: str) -> np.ndarray:
        """Return the first rates to try.

        They are the rule's, moved up for exact gradients and down for single examples.
        """
        moved = {None: 16.0, 1: 1 / 16}.get(self.batch_size, 1.0)
        entry = RULE_TABLE.get(rule)
        rates = entry.rates if entry and entry.rates else ANY_LADDER
        return np.asarray(rates) * moved


def theory_regimes(batch_size: int) -> tuple[Regime, ...]:
    """Return the regimes with replacement, for which the noise floor is derived.

    The floor is η tr(C) / 4b.

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
    """Return the regimes of practice: every epoch has a new order.

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
