"""Formulas of Lookahead and of averages of the iterates.

In each step, a formula yields an `Evaluated`: the iterate, with the params that the
rule reports as its result.
"""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.types import Params
from research.verification.card import Card
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import Leaves, zeros_like


class Evaluated(Leaves):
    """Iterate of a rule, with the params that the rule reports as its result.

    Args:
      iterate: Params from which the rule continues.
      evaluation: Params that the rule reports as its result, such as an average.
    """

    def __init__(self, iterate: Leaves, evaluation: Leaves):
        super().__init__(iterate.arrays)
        self.evaluation = evaluation


def lookahead(
    x: Leaves,
    f: Function,
    learning_rate: float,
    sync_period: int = 5,
    slow_step_size: float = 0.5,
    reset_state: bool = False,
) -> Iterator[Leaves]:
    """Yield the iterates of Lookahead: algorithm 1 of Zhang et al. (2019).

    The inner rule is the heavy ball with momentum 0.9. Every `sync_period` steps, the
    slow params move towards the params, by the fraction `slow_step_size` of the
    distance. The params are then set to the slow params. With reset_state=True, the
    momentum is also set to 0. Each yielded value is an `Evaluated`. It holds the
    params from which the rule continues and, in its field `evaluation`, the slow
    params, which are the result of the rule.
    """
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


def polyak_averaging(
    x: Leaves, f: Function, learning_rate: float, start: int = 0
) -> Iterator[Leaves]:
    """Yield the iterates of gradient descent, together with their mean.

    Each yielded `Evaluated` holds the iterate and, in its field `evaluation`, the mean.
    The mean is equation (2) of Polyak & Juditsky (1992), over the iterates after step
    `start`. Up to this step, the iterate itself takes the place of the mean.
    """
    total, n = zeros_like(x), 0
    for t in count(1):
        x = x - learning_rate * f.gradient(x)
        if t > start:
            total, n = total + x, n + 1
        yield Evaluated(x, total / n if n else x)


def exponential_averaging(
    x: Leaves,
    f: Function,
    learning_rate: float,
    decay: float = 0.999,
    debias: bool = True,
) -> Iterator[Leaves]:
    """Yield the iterates of gradient descent, together with their moving average.

    Each yielded `Evaluated` holds the iterate and, in `evaluation`, the average.
    The average is that of Kingma & Ba (2015), section 7.2, with the decay rate
    `decay`. If `debias` is true, the average starts at 0 and is corrected for this
    start. If `debias` is false, the average starts at the initial point and is not
    corrected.
    """
    average = zeros_like(x) if debias else x
    for t in count(1):
        x = x - learning_rate * f.gradient(x)
        average = decay * average + (1 - decay) * x
        yield Evaluated(x, average / (1 - decay**t) if debias else average)


class Apart(NamedTuple):
    """State of an optax rule, and the params at which the rule is evaluated.

    Attributes:
      evaluation_params: Params that the rule reports as its result, such as an average.
      state: State of the optax rule.
    """

    evaluation_params: Params
    state: Any


def optax_lookahead(
    learning_rate: float,
    sync_period: int = 5,
    slow_step_size: float = 0.5,
    reset_state: bool = False,
) -> optax.GradientTransformation:
    """Return optax.lookahead around optax's heavy ball.

    In optax, the params of this rule are a pair of the fast and the slow params. Here
    the slow params are in the state, and the params are the fast params alone.
    """
    rule = optax.lookahead(
        optax.sgd(learning_rate, 0.9), sync_period, slow_step_size, reset_state
    )

    def init(params: Params):
        return Apart(params, rule.init(optax.LookaheadParams(params, params)))

    def update(updates: Any, state: Any, params: Any = None):
        both: Any
        after: Any
        both, after = rule.update(
            updates, state.state, optax.LookaheadParams(params, state.evaluation_params)
        )
        # Between synchronisations optax multiplies the slow params' update by 0, so a
        # NaN reaches them at once.
        comes_back = after.steps_since_sync == 0
        slow = jax.tree.map(
            lambda s, u: jnp.where(comes_back, s + u, s),
            state.evaluation_params,
            both.slow,
        )
        return both.fast, Apart(slow, after)

    return optax.GradientTransformation(init, update)


def optax_exponential_averaging(
    learning_rate: float, decay: float = 0.999, debias: bool = True
) -> optax.GradientTransformation:
    """Return optax's gradient descent with an exponential average of the params.

    The average is optax.ema, or optax.incremental_update if `debias` is false.
    """
    average = optax.ema(decay, debias=True)

    def forget(params: Params, state: Apart):
        if debias:
            return average.update(params, state.state)
        return optax.incremental_update(
            params, state.evaluation_params, 1.0 - decay
        ), state.state

    return _beside(optax.sgd(learning_rate), average.init, forget)


def _beside(
    rule: optax.GradientTransformation,
    start: Callable[..., Any],
    average: Callable[..., Any],
) -> optax.GradientTransformation:
    """Return the rule with an average of the params in its state."""

    def init(params: Params):
        return Apart(params, (rule.init(params), start(params)))

    def update(updates: Any, state: Any, params: Any = None):
        updates, inner = rule.update(updates, state.state[0], params)
        now = optax.apply_updates(params, updates)
        evaluation, kept = average(now, Apart(state.evaluation_params, state.state[1]))
        return updates, Apart(evaluation, (inner, kept))

    return optax.GradientTransformation(init, update)


CARDS = {
    "lookahead": Card(
        Formula(
            lookahead,
            (
                Mistake(
                    "the fast params are not reset to the slow params",
                    "            x = slow\n",
                    "",
                ),
                Mistake(
                    "the period is one step too long",
                    "t % sync_period",
                    "t % (sync_period + 1)",
                ),
                Mistake(
                    "the fast params are reset one step late",
                    "t % sync_period == 0",
                    "t % sync_period == 1 and t > 1",
                ),
                Mistake(
                    "the slow params move all the way to the fast params",
                    "slow = slow + slow_step_size * (x - slow)",
                    "slow = x",
                ),
            ),
        ),
        optax=optax_lookahead,
        recorded=(
            "no trajectory of another implementation is recorded: torch has no such "
            "rule"
        ),
        arguments={"sync_period": 3, "slow_step_size": 0.75, "reset_state": True},
        unit_steps=False,
        reasons={
            "scales": (
                "the return to the slow params subtracts params, and rounding then "
                "loses a step of size e^-30"
            )
        },
    ),
    "polyak_averaging": Card(
        Formula(
            polyak_averaging,
            (
                Mistake(
                    "the mean includes the initial point",
                    "zeros_like(x), 0",
                    "x, 1",
                ),
                Mistake(
                    "the mean is missing: the result is the last iterate",
                    "total / n if n else x",
                    "x",
                ),
                Mistake(
                    "the sum is divided by one too many",
                    "total / n if",
                    "total / (n + 1) if",
                ),
                Mistake(
                    "the rule continues from the mean",
                    "if n else x)\n",
                    "if n else x)\n        x = total / n\n",
                ),
            ),
        ),
        optax="optax keeps no mean of the iterates",
        recorded=(
            "no trajectory is recorded; torch.optim.ASGD with lambd=0 and t0=start - 1 "
            "keeps the same mean"
        ),
        arguments={"start": 3},
        unit_steps=False,
    ),
    "exponential_averaging": Card(
        Formula(
            exponential_averaging,
            (
                Mistake(
                    "decay and 1 - decay are swapped",
                    "decay * average + (1 - decay) * x",
                    "(1 - decay) * average + decay * x",
                ),
                Mistake(
                    "the correction counts one step too many",
                    "decay**t",
                    "decay**(t + 1)",
                ),
                Mistake(
                    "the correction for the start at 0 is missing",
                    "average / (1 - decay**t) if debias",
                    "average if debias",
                ),
            ),
        ),
        optax=optax_exponential_averaging,
        recorded=(
            "torch keeps averages of weights apart from its rules, so no trajectory is "
            "recorded"
        ),
        arguments={"decay": 0.9, "debias": False},
        unit_steps=False,
    ),
}
