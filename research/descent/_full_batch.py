"""Run full-batch descent with one evaluation of the objective for each step.

After each step, the objective at the new params is recorded. The next step needs the
gradient at the same params. One evaluation computes both.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Float, Int

from research.descent._run import EpochInfo, reduced
from research.descent._step import BatchIndices, Halves, State
from research.types import Array, Params, Sampler
from research.update_rules._transforms import evaluation_params

WHOLE = BatchIndices(None)


class FullBatchState(NamedTuple):
    """State of a full-batch descent between two steps.

    Attributes:
      params: The parameters.
      rule: The state of the update rule.
      loss: The objective at the params, shape ().
      gradient: The gradient of the objective at the params, a pytree like the params.
    """

    params: Params
    rule: optax.OptState
    loss: Float[Array, ""]
    gradient: Params


def is_full_batch(sampler: Sampler) -> bool:
    """Return whether each epoch of the sampler is one step on the whole dataset."""
    drawn = jax.eval_shape(sampler.indices, jax.random.key(0))
    return sampler.num_batches == 1 and not jax.tree.leaves(drawn)


def begin(halves: Halves, state: State) -> FullBatchState:
    """Return the state before the first step, with loss and gradient at its params.

    `halves` are the two halves of a step: the gradient and the update.
    """
    return FullBatchState(*state, *halves.gradient(state.params, WHOLE))


def scan_steps(
    halves: Halves,
    state: FullBatchState,
    epochs: Int[Array, "e"],
    evaluate: Callable[[Params, Array | None], Any],
) -> tuple[FullBatchState, EpochInfo]:
    """Run one step for each epoch.

    The results are those of `research.descent.run` up to rounding.

    Args:
      halves: The two halves of a step: the gradient and the update.
      state: The state, from `begin` or from an earlier call.
      epochs: Numbers of the epochs, shape (e,). Only their count matters.
      evaluate: Function (params, value) -> pytree of floating scalars, called after
        each step. `value` is the objective at these params. Some rules recommend other
        params as the result, such as an average. Then `evaluate` gets the recommended
        params, and `value` is None.
    Returns:
      The last state, and an EpochInfo whose leaves have a leading axis over the epochs.
    """

    def step(state: FullBatchState, _: None):
        before = State(state.params, state.rule)
        after, info = halves.update(before, WHOLE, state.loss, state.gradient)
        after = begin(halves, after)
        at = evaluation_params(after.rule, after.params)
        found = evaluate(at, after.loss if at is after.params else None)
        infos, evaluations = jax.tree.map(lambda leaf: leaf[None], (info, found))
        return after, reduced(infos, None, evaluations)

    return jax.lax.scan(step, state, length=len(epochs))
