"""Authorities on Lookahead and on averages of iterates."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.types import Params
from research.verification.oracles.oracle import Oracle


class Apart(NamedTuple):
    """What a rule of optax keeps here beside its own state: the params that it evaluates at."""

    evaluation_params: Params
    state: Any


def lookahead(learning_rate, sync_period=5, slow_step_size=0.5, reset_state=False):
    """optax.lookahead around its heavy ball; its slow params, which optax has among the params, are in the state."""
    rule = optax.lookahead(
        optax.sgd(learning_rate, 0.9), sync_period, slow_step_size, reset_state
    )

    def init(params):
        return Apart(params, rule.init(optax.LookaheadParams(params, params)))

    def update(updates: Any, state: Any, params: Any = None):
        both: Any
        after: Any
        both, after = rule.update(
            updates, state.state, optax.LookaheadParams(params, state.evaluation_params)
        )
        # optax multiplies the slow params' update by 0 between synchronisations, and so hands them a NaN at once.
        comes_back = after.steps_since_sync == 0
        slow = jax.tree.map(
            lambda s, u: jnp.where(comes_back, s + u, s),
            state.evaluation_params,
            both.slow,
        )
        return both.fast, Apart(slow, after)

    return optax.GradientTransformation(init, update)


def exponential_averaging(learning_rate, decay=0.999, debias=True):
    """optax.ema of the params, or optax.incremental_update where nothing is corrected."""
    average = optax.ema(decay, debias=True)

    def forget(params, state):
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
):
    """The rule, with an average of the params beside its state."""

    def init(params):
        return Apart(params, (rule.init(params), start(params)))

    def update(updates: Any, state: Any, params: Any = None):
        updates, inner = rule.update(updates, state.state[0], params)
        now = optax.apply_updates(params, updates)
        evaluation, kept = average(now, Apart(state.evaluation_params, state.state[1]))
        return updates, Apart(evaluation, (inner, kept))

    return optax.GradientTransformation(init, update)


ORACLES = {
    "lookahead": Oracle(
        lookahead,
        "no trajectory of another implementation is recorded: torch has no such rule",
        arguments={"sync_period": 3, "slow_step_size": 0.75, "reset_state": True},
        unit_steps=False,
        reasons={
            "scales": "it comes back by a difference of params, in whose rounding a step of size e^-30 is lost"
        },
    ),
    "polyak_averaging": Oracle(
        "optax keeps no mean of the iterates",
        "torch's ASGD, which keeps the mean, lets its rate decay in a way of its own, so none is recorded",
        arguments={"start": 3},
        unit_steps=False,
    ),
    "exponential_averaging": Oracle(
        exponential_averaging,
        "torch keeps averages of weights apart from its rules, so no trajectory is recorded",
        arguments={"decay": 0.9, "debias": False},
        unit_steps=False,
    ),
}
