"""Run one training as a pure function: a scan over epochs of a scan over steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from research.checks import (
    check_callable,
    check_count,
    check_flag,
    check_instance,
    check_key,
    check_leaves_not_deleted,
    check_numbers,
    shown,
)
from research.descent._step import HOW_TO_BEGIN, BatchIndices, Info, State
from research.samplers import check_form, check_sampler
from research.sizes import check_most
from research.types import Array, Key, Params, Sampler
from research.update_rules._transforms import evaluation_params

# Largest number of evaluations in the first epoch. They are log-spaced, because a
# stochastic rule makes most of its progress there.
POINTS_IN_FIRST_EPOCH = 8


class EpochInfo(NamedTuple):
    """Summary of the steps of one epoch.

    `run` returns an EpochInfo of several epochs, in which each leaf has an additional
    first axis over the epochs.

    Attributes:
      loss: Mean of the losses of the steps, shape ().
      learning_rate: Learning rate of the last step, shape (). NaN if the rule's state
        holds no learning rate, or more than one.
      gradient_norm: Root mean square, over the steps, of the gradient's Euclidean norm,
        shape (). None if the EpochInfo comes from `sweep`, and `compile_sweep` was
        called with gradient_norms=False.
      update_norm: Root mean square, over the steps, of the update's Euclidean norm,
        shape ().
      first_bad_step: Index of the first step whose loss or update is not finite, or -1
        if all losses and updates are finite, int32, shape (). The first step of each
        epoch has the index 0.
      evaluations: Results of the argument `evaluate` of `run`, a pytree. None without
        this argument. The first axis of each leaf has one entry for each step number
        that the function `evaluation_points` returns. In epoch 0, each entry is the
        result after the step with this number. In any other epoch, the last entry is
        the result at the end of the epoch, and the other entries are NaN.
      steps: Results of the argument `observe` of `run` after each step, a pytree. The
        first axis of each leaf is over the steps of the epoch. None without this
        argument.
    """

    loss: Float[Array, ""]
    learning_rate: Float[Array, ""]
    gradient_norm: Float[Array, ""] | None
    update_norm: Float[Array, ""]
    first_bad_step: Int[Array, ""]
    evaluations: Any
    steps: Any


def evaluation_points(num_batches: int) -> tuple[int, ...]:
    """Return the numbers of the steps after which `run` evaluates in epoch 0.

    After each of these steps, `run` calls its argument `evaluate`. An epoch has
    num_batches steps, counted from 1. The result has at most eight numbers, log-spaced.
    The last of them is num_batches, the end of the epoch.

    Example:
      >>> evaluation_points(1), evaluation_points(100)
      ((1,), (1, 2, 4, 7, 14, 27, 52, 100))
    """
    check_count("num_batches", num_batches)
    check_most(num_batches=num_batches)
    exponents = (k / (POINTS_IN_FIRST_EPOCH - 1) for k in range(POINTS_IN_FIRST_EPOCH))
    return tuple(sorted({round(num_batches**exponent) for exponent in exponents}))


def run(
    step: Callable[[State, BatchIndices], tuple[State, Info]],
    state: State,
    sampler: Sampler,
    key: Key,
    epochs: Int[Array, "e"],
    *,
    evaluate: Callable[[Params], Any] | None = None,
    noisy: bool = False,
    observe: Callable[[State, Info], Any] | None = None,
) -> tuple[State, EpochInfo]:
    """Run a training, or some of its epochs, as a pure function for jit, vmap and grad.

    The key of an epoch is fold_in(key, epoch), so the batches of an epoch do not depend
    on the other epochs. A training may be divided into several calls: each call runs
    the next epochs, from the state that the previous call returned. If each call has
    at least two epochs, the result is bit-identical to that of a single call.
    Otherwise, the two results are equal up to rounding: a loop of one epoch may round
    differently, because XLA unrolls it.

    Args:
      step: The function step that `research.descent.build` returned. It contains the
        objective, the rule and the dataset that `build` received.
      state: The initial state, from the function init that
        `research.descent.build` returned. To continue a training, pass the last state
        that the previous call returned.
      sampler: Sampler that chooses the examples of each batch.
      key: Key from which the keys of all epochs are derived.
      epochs: Numbers of the epochs to run, shape (e,). `jnp.arange(e)` runs a whole
        training of e epochs.
      evaluate: Function (params) -> pytree of floating scalars. It is called at the end
        of each epoch and, in epoch 0, also after the steps that `evaluation_points`
        returns. If the rule keeps an average of the params, `evaluate` gets the
        average. None means that nothing is evaluated.
      noisy: Whether the objective draws noise. If True, each batch gets a different
        random key, in the field `key` of its `Batch`.
      observe: Function (state, info) -> pytree of arrays, called after each step. The
        field `steps` of the returned EpochInfo contains the results of all steps. For
        example, `lambda state, info: info` records the Info of every step. None means
        that nothing is recorded.
    Returns:
      The last state, and an EpochInfo whose leaves have a leading axis over the epochs.
    Raises:
      TypeError: An argument has the wrong type. For example, epochs is not an array of
        integers of rank one, the sampler is not a Sampler, or a result of `evaluate` is
        not a floating scalar.
      ValueError: The sampler is made for a different number of examples than the
        dataset has (`samplers.check_sampler`). If the sampler does not state this
        number, only the indices that it draws from a fixed key are checked. If this
        check misses an index outside the dataset, no error is raised: the params are
        NaN from the epoch of this index on.
    Example:
      >>> import optax
      >>> from research import samplers
      >>> from research.descent import build
      >>> init, step = build(lambda x, batch: x**2 / 2, optax.sgd(0.5), None)
      >>> state, sampler = init(jnp.array(4.0)), samplers.full_batch(1)
      >>> state, info = run(step, state, sampler, jax.random.key(0), jnp.arange(2))
      >>> print(state.params, info.loss)
      1.0 [8. 2.]
    """
    check_callable("step", step, "state", "batch_indices")
    check_instance("state", state, State, HOW_TO_BEGIN)
    check_leaves_not_deleted("state", state)
    check_form(sampler)
    check_key("key", key)
    check_numbers("epochs", epochs, kinds="biufc", wanted="integers of shape (e,)")
    if evaluate is not None:
        check_callable("evaluate", evaluate, "params")
    check_flag("noisy", noisy)
    if observe is not None:
        check_callable("observe", observe, "state", "info")
    epochs = jnp.asarray(epochs)
    if epochs.ndim != 1 or not jnp.issubdtype(epochs.dtype, jnp.integer):
        raise TypeError(
            "epochs must be integers of shape (e,), such as jnp.arange(10); got "
            f"{epochs.dtype}{list(epochs.shape)}."
        )
    if hasattr(step, "num_examples"):  # Steps that `build` did not make lack it.
        check_sampler(sampler, step.num_examples)
    return scan_epochs(
        step, state, sampler, key, epochs, None, evaluate, noisy=noisy, observe=observe
    )


def scan_epochs(
    step: Callable[[State, BatchIndices], tuple[State, Info]],
    state: State,
    sampler: Sampler,
    key: Key,
    epochs: Int[Array, "e"],
    orders: Int[Array, "e num_batches batch_size"] | None,
    evaluate: Callable[[Params], Any] | None = None,
    *,
    noisy: bool = False,
    observe: Callable[[State, Info], Any] | None = None,
) -> tuple[State, EpochInfo]:
    """Run epochs as `run` does, but do not check the arguments.

    `orders` are the indices that the sampler draws in these epochs, as `draw_orders`
    returns them. With orders=None, this function draws the indices. The other
    arguments and the result are those of `run`.
    """
    n = getattr(step, "num_examples", None)
    points = evaluation_points(sampler.num_batches)
    plain, closely = _epochs(
        _observed(step, observe),
        _floating(evaluate) if evaluate else (lambda params: None),
        sampler.num_batches,
        points,
    )

    def one_epoch(state: State, xs: tuple[Array, Array | None]):
        epoch, order = xs
        batches = (
            epoch_batches(sampler, jax.random.fold_in(key, epoch), noisy)
            if order is None
            else BatchIndices(order)
        )
        if (
            sampler.num_examples is None
            and batches.indices is not None
            and n is not None
        ):
            state = _poisoned(state, batches.indices, n)
        if evaluate is None or len(points) == 1:
            state, infos, evaluations = plain(state, batches)
        else:
            state, infos, evaluations = jax.lax.cond(
                epoch == 0, closely, plain, state, batches
            )
        info, observed = infos
        return state, reduced(info, observed, evaluations)

    return jax.lax.scan(one_epoch, state, (epochs, orders))


def draw_orders(
    sampler: Sampler, key: Key, epochs: Int[Array, "e"]
) -> Int[Array, "e num_batches batch_size"] | None:
    """Draw the indices of every batch of the epochs, for `scan_epochs`.

    The indices are those that `run` draws from the same key if the objective draws no
    noise (noisy=False). The result is None if the sampler draws no indices.
    """
    return jax.lax.map(
        lambda epoch: sampler.indices(jax.random.fold_in(key, epoch)), epochs
    )


def epoch_batches(sampler: Sampler, key: Key, noisy: bool) -> BatchIndices:
    """Draw the examples of each batch of an epoch, and with noisy=True a key for each.

    Args:
      sampler: Sampler that chooses the examples of each batch.
      key: Key of the epoch. With noisy=False, the order of the examples is drawn with
        this key. With noisy=True, the order is drawn with another key, which is derived
        from the key of the epoch.
      noisy: Whether each batch gets a different key, for an objective that draws noise.
    Returns:
      A `BatchIndices` whose fields have a leading axis over the batches. The field
      `indices` is None if the sampler draws no indices. The field `key` is None with
      noisy=False.
    """
    check_form(sampler)
    check_key("key", key)
    check_flag("noisy", noisy)
    if not noisy:
        return BatchIndices(sampler.indices(key))
    key_order, key_noise = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
    keys = jax.vmap(lambda i: jax.random.fold_in(key_noise, i))(
        jnp.arange(sampler.num_batches)
    )
    return BatchIndices(sampler.indices(key_order), keys)


def _poisoned(state: State, indices: Array, n: int) -> State:
    """Return the state, with NaN params if an index of the epoch is out of range."""
    inside = jnp.all((indices >= 0) & (indices < n))
    return state._replace(
        params=jax.tree.map(lambda leaf: jnp.where(inside, leaf, jnp.nan), state.params)
    )


def _observed(
    step: Callable[[State, BatchIndices], tuple[State, Info]],
    observe: Callable[[State, Info], Any] | None,
) -> Callable[[State, BatchIndices], tuple[State, tuple[Info, Any]]]:
    """Return the step with the result of `observe` added to its info."""

    def observed(state: State, batch_indices: BatchIndices):
        state, info = step(state, batch_indices)
        return state, (info, None if observe is None else observe(state, info))

    return observed


def _floating(evaluate: Callable[[Params], Any]) -> Callable[[Params], Any]:
    """Return `evaluate` with a check that its results are floating scalars.

    Where nothing is evaluated, the results are NaN, which integers do not have.
    """

    def checked(params: Params):
        results = evaluate(params)
        for path, leaf in jax.tree_util.tree_leaves_with_path(results):
            if type(leaf) is not float and not (
                hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
            ):
                dtype = getattr(leaf, "dtype", None)
                found = f"{dtype}{list(leaf.shape)}" if dtype else shown(leaf)
                raise TypeError(
                    f"{_result(path)} is {found}, not a floating scalar. Convert a "
                    "count or a flag in evaluate: jnp.asarray(count, float)."
                )
            if jnp.shape(leaf) != ():
                raise TypeError(
                    f"{_result(path)} has the shape {jnp.shape(leaf)}, but must have "
                    "the shape (). Return one number, such as the mean, or a dict of "
                    "numbers."
                )
        return jax.tree.map(
            lambda leaf: leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf), results
        )

    return checked


def _result(path: Any) -> str:
    return f"the result of evaluate{jax.tree_util.keystr(path)}"


def _epochs(
    step: Callable[[State, BatchIndices], tuple[State, tuple[Info, Any]]],
    evaluate: Callable[[Params], Any],
    num_batches: int,
    points: tuple[int, ...],
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return two functions that run an epoch.

    The first function evaluates at the end of the epoch, the second at every evaluation
    point.
    """

    def plain(state: State, batches: BatchIndices):
        state, infos = jax.lax.scan(step, state, batches, length=num_batches)
        at_end = evaluate(evaluation_params(state.rule, state.params))
        return (
            state,
            infos,
            jax.tree.map(
                lambda e: jnp.full(len(points), jnp.nan, e.dtype).at[-1].set(e), at_end
            ),
        )

    def closely(state: State, batches: BatchIndices):
        wanted = jnp.zeros(num_batches, bool).at[jnp.array(points) - 1].set(True)

        def watched(state: State, xs: tuple[BatchIndices, Array]):
            batch_indices, want = xs
            state, info = step(state, batch_indices)
            at = evaluation_params(state.rule, state.params)
            skip = jax.tree.map(
                lambda e: jnp.full(e.shape, jnp.nan, e.dtype),
                jax.eval_shape(evaluate, at),
            )
            return state, (
                info,
                jax.lax.cond(want, evaluate, lambda params: skip, at),
            )

        state, (infos, all_steps) = jax.lax.scan(watched, state, (batches, wanted))
        at_points = jax.tree.map(lambda e: e[jnp.array(points) - 1], all_steps)
        return state, infos, at_points

    return plain, closely


def reduced(infos: Info, observed: Any, evaluations: Any) -> EpochInfo:
    """Return the summary of an epoch.

    `infos` is the Info of the steps of the epoch, with a first axis over the steps.
    `observed` and `evaluations` become the fields `steps` and `evaluations`.
    """
    good = jnp.isfinite(infos.loss) & jnp.isfinite(infos.update_norm)
    return EpochInfo(
        loss=jnp.mean(infos.loss),
        learning_rate=infos.learning_rate[-1],
        gradient_norm=_root_mean_square(infos.gradient_norm),
        update_norm=_root_mean_square(infos.update_norm),
        first_bad_step=jnp.where(jnp.all(good), -1, jnp.argmin(good)).astype(jnp.int32),
        evaluations=evaluations,
        steps=observed,
    )


def _root_mean_square(a: Array) -> Array:
    return jnp.sqrt(jnp.mean(jnp.square(a)))
