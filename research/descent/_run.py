"""One training as a pure function: a scan of steps inside a scan of epochs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from research.checks import (
    check_callable,
    check_count,
    check_flag,
    check_instance,
    check_key,
    check_numbers,
)
from research.descent._step import Draw, Record, State
from research.samplers import check_form, check_sampler
from research.types import Array, Key, Params, Sampler
from research.update_rules._transforms import evaluation_params

# At most this many evaluations inside the first epoch, log-spaced: most of what a stochastic rule gains comes there.
POINTS_IN_FIRST_EPOCH = 8


class EpochRecord(NamedTuple):
    """The steps of one epoch, reduced.

    Attributes:
      loss: Mean of the steps' losses, shape ().
      learning_rate: The last step's rate, shape ().
      gradient_norm, update_norm: Root mean squares over the steps, shape ().
      first_bad_step: Index within the epoch of the first step whose loss or update is not finite, or -1; int32.
      evaluations: What `evaluate` gave, each leaf with a leading axis: the evaluation points of the epoch, of which the
        last is its end. Before the last, entries are NaN except in epoch 0.
      steps: Each step's Record if they were asked for, else None.
    """

    loss: Array
    learning_rate: Array
    gradient_norm: Array
    update_norm: Array
    first_bad_step: Array
    evaluations: Any
    steps: Record | None


def evaluation_points(num_batches: int) -> tuple[int, ...]:
    """Steps of the first epoch after which it is evaluated: up to eight, log-spaced, the last its end.

    Example:
      >>> evaluation_points(1), evaluation_points(100)
      ((1,), (1, 2, 4, 7, 14, 27, 52, 100))
    """
    check_count("num_batches", num_batches)
    exponents = (k / (POINTS_IN_FIRST_EPOCH - 1) for k in range(POINTS_IN_FIRST_EPOCH))
    return tuple(sorted({round(num_batches**exponent) for exponent in exponents}))


def run(
    step: Callable[[State, Draw], tuple[State, Record]],
    state: State,
    sampler: Sampler,
    key: Key,
    epochs: Array,
    *,
    evaluate: Callable[[Params], Any] | None = None,
    noisy: bool = False,
    keep_steps: bool = False,
) -> tuple[State, EpochRecord]:
    """A training, or a chunk of one, as a pure function: it can be jitted, vmapped and differentiated.

    An epoch's key is fold_in(key, epoch), so that epoch ten needs no ninth, and a run in chunks is the run at once
    (to the last bit where a chunk has at least two epochs: XLA unrolls a loop of one trip).

    Args:
      step: From `make_step`.
      state: Where to start from.
      sampler: Whose draws feed the steps.
      key: The key of all epochs.
      epochs: Which epochs to run, integers of shape (e,): `jnp.arange(e)` for a whole training.
      evaluate: params -> pytree of floating (); called at the end of each epoch and, in epoch 0, at
        `evaluation_points`. It counts as no gradient. A rule that averages is evaluated at its average.
      noisy: Whether the objective draws noise: each step's batch then has a key of its own.
      keep_steps: Whether to keep every step's record too.
    Returns:
      The last state, and an EpochRecord whose leaves have a leading axis e.
    Raises:
      TypeError: epochs is not an array of integers of rank one, or the sampler is not a Sampler.
      ValueError: The sampler is made for another number of examples than the dataset has (`samplers.check_sampler`). One that
        does not state its number and draws an index outside of the dataset turns the params to NaN from that epoch on.
    Example:
      >>> from research import samplers
      >>> rule = optax.sgd(0.5)
      >>> step = make_step(lambda x, batch: x**2 / 2, rule, None)
      >>> state = start(rule, jnp.array(4.0))
      >>> state, records = run(step, state, samplers.full_batch(1), jax.random.key(0), jnp.arange(2))
      >>> print(state.params, records.loss)
      1.0 [8. 2.]
    """
    check_callable("step", step, "state", "draw")
    check_instance(
        "state", state, State, "Make one by research.descent.start(rule, params)."
    )
    check_form(sampler)
    check_key("key", key)
    check_numbers("epochs", epochs, kinds="biufc", wanted="integers of shape (e,)")
    if evaluate is not None:
        check_callable("evaluate", evaluate, "params")
    check_flag("noisy", noisy)
    check_flag("keep_steps", keep_steps)
    epochs = jnp.asarray(epochs)
    if epochs.ndim != 1 or not jnp.issubdtype(epochs.dtype, jnp.integer):
        raise TypeError(
            f"epochs must be integers of shape (e,), such as jnp.arange(10); got {epochs.dtype}{list(epochs.shape)}."
        )
    n = getattr(step, "num_examples", None)
    if hasattr(
        step, "num_examples"
    ):  # Else it is not of `make_step`, and nobody knows.
        check_sampler(sampler, n)
    points = evaluation_points(sampler.num_batches)
    plain, closely = _epochs(
        step, evaluate or (lambda params: None), sampler.num_batches, points
    )

    def one_epoch(state: State, epoch: Array):
        drawn = draws(sampler, jax.random.fold_in(key, epoch), noisy)
        if sampler.num_examples is None and drawn.indices is not None and n is not None:
            state = _poisoned(state, drawn.indices, n)
        if evaluate is None or len(points) == 1:
            state, records, evaluations = plain(state, drawn)
        else:
            state, records, evaluations = jax.lax.cond(
                epoch == 0, closely, plain, state, drawn
            )
        return state, _reduce(records, evaluations, keep_steps)

    return jax.lax.scan(one_epoch, state, epochs)


def draws(sampler: Sampler, key: Key, noisy: bool) -> Draw:
    """The draws of an epoch, each leaf with a leading axis of its steps.

    Args:
      sampler: Whose.
      key: The epoch's own: the order is drawn with it, unless noise needs keys as well.
      noisy: Whether each step gets a key.
    Returns:
      Draw, its indices None where the sampler draws none.
    """
    check_form(sampler)
    check_key("key", key)
    check_flag("noisy", noisy)
    if not noisy:
        return Draw(sampler.indices(key))
    key_order, key_noise = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
    keys = jax.vmap(lambda i: jax.random.fold_in(key_noise, i))(
        jnp.arange(sampler.num_batches)
    )
    return Draw(sampler.indices(key_order), keys)


def _poisoned(state: State, indices: Array, n: int) -> State:
    """The state, its params NaN where an index of the epoch to come lies outside of the dataset."""
    inside = jnp.all((indices >= 0) & (indices < n))
    return state._replace(
        params=jax.tree.map(lambda leaf: jnp.where(inside, leaf, jnp.nan), state.params)
    )


def _epochs(
    step, evaluate: Callable[[Params], Any], num_batches: int, points: tuple[int, ...]
):
    """Two ways through the steps of an epoch: evaluated at its end, or closely, at every point."""

    def plain(state: State, draws: Draw):
        state, records = jax.lax.scan(step, state, draws, length=num_batches)
        at_end = evaluate(evaluation_params(state.rule, state.params))
        return (
            state,
            records,
            jax.tree.map(
                lambda e: jnp.full(len(points), jnp.nan, e.dtype).at[-1].set(e), at_end
            ),
        )

    def closely(state: State, draws: Draw):
        wanted = jnp.zeros(num_batches, bool).at[jnp.array(points) - 1].set(True)

        def watched(state: State, xs):
            draw, want = xs
            state, record = step(state, draw)
            at = evaluation_params(state.rule, state.params)
            skip = jax.tree.map(
                lambda e: jnp.full(e.shape, jnp.nan, e.dtype),
                jax.eval_shape(evaluate, at),
            )
            return state, (
                record,
                jax.lax.cond(want, evaluate, lambda params: skip, at),
            )

        state, (records, seen) = jax.lax.scan(watched, state, (draws, wanted))
        return state, records, jax.tree.map(lambda e: e[jnp.array(points) - 1], seen)

    return plain, closely


def _reduce(records: Record, evaluations: Any, keep_steps: bool) -> EpochRecord:
    good = jnp.isfinite(records.loss) & jnp.isfinite(records.update_norm)
    return EpochRecord(
        loss=jnp.mean(records.loss),
        learning_rate=records.learning_rate[-1],
        gradient_norm=_root_mean_square(records.gradient_norm),
        update_norm=_root_mean_square(records.update_norm),
        first_bad_step=jnp.where(jnp.all(good), -1, jnp.argmin(good)).astype(jnp.int32),
        evaluations=evaluations,
        steps=records if keep_steps else None,
    )


def _root_mean_square(a: Array) -> Array:
    return jnp.sqrt(jnp.mean(jnp.square(a)))
