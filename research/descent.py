"""One training as a pure function: a step applies a rule to a batch, a run scans steps inside a scan of epochs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.checks import (
    check_callable,
    check_count,
    check_flag,
    check_instance,
    check_key,
    check_numbers,
    check_tree,
)
from research.objectives import OF_WORDS, check_data
from research.samplers import check_form, check_indices, check_sampler, num_examples
from research.types import Array, Batch, Key, Params, Sampler
from research.update_rules.building_blocks import evaluation_params, working_dtype
from research.update_rules.checks import check_floating, check_rule

# At most this many evaluations inside the first epoch, log-spaced: most of what a stochastic rule gains comes there.
POINTS_IN_FIRST_EPOCH = 8


class State(NamedTuple):
    """What the next step needs: the parameters and the rule's own state."""

    params: Params
    rule: optax.OptState


class Draw(NamedTuple):
    """What a step draws: which examples (None: all of them), and a key where the objective is noisy."""

    indices: Array | None
    key: Key | None = None


class Record(NamedTuple):
    """What a reader wants of one step.

    Attributes:
      loss: The objective on the step's batch, before the update, shape ().
      learning_rate: The rate that was used, shape (); NaN where the rule has none to tell.
      gradient_norm: Euclidean norm of the gradient, shape ().
      update_norm: Euclidean norm of the update, shape ().
    """

    loss: Array
    learning_rate: Array
    gradient_norm: Array
    update_norm: Array


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


def take(dataset: Batch | None, draw: Draw) -> Batch | None:
    """The examples that a draw names, with its key; indices None is the dataset itself, and nothing is gathered.

    ValueError where a concrete index lies outside of the dataset; JAX reads the last example where a traced one is too large.
    """
    check_instance("draw", draw, Draw, "Make one by research.descent.Draw(indices).")
    check_dataset("dataset", dataset)
    if draw.indices is not None:
        check_numbers("draw.indices", draw.indices, kinds="iu")
    if draw.key is not None:
        check_key("draw.key", draw.key)
    if dataset is None:
        return None
    if draw.indices is None:
        return dataset._replace(key=draw.key)
    check_indices(draw.indices, len(jax.tree.leaves((dataset.x, dataset.y))[0]))
    return Batch(
        *jax.tree.map(lambda a: a[draw.indices], (dataset.x, dataset.y)), key=draw.key
    )


def check_dataset(name: str, dataset: Any) -> None:
    """Raise TypeError unless a dataset is None, or a Batch of arrays."""
    if dataset is None:
        return
    check_instance(
        name, dataset, (Batch, type(None)), "Write research.types.Batch(x, y)."
    )
    check_tree(f"{name}.x", dataset.x)
    check_tree(f"{name}.y", dataset.y, OF_WORDS)
    if not jax.tree.leaves((dataset.x, dataset.y)):
        raise TypeError(f"{name} must hold arrays; got {name}={dataset!r}.")


def make_step(
    objective: Callable[[Params, Any], Array],
    rule: optax.GradientTransformation,
    dataset: Batch | None,
    learning_rate: float | Array = jnp.nan,
) -> Callable[[State, Draw], tuple[State, Record]]:
    """One step of descent: x <- x + u, where u is the rule's answer to the gradient on the drawn batch.

    The rule also gets what some need, by optax's extra-argument convention: value, grad, value_fn(params, indices=...)
    (indices None: the full objective) and indices. Rules that take none of it are served as they are.

    Args:
      objective: (params, batch) -> ().
      rule: Any `optax.GradientTransformation`, ours or another.
      dataset: Batch of n examples, or None for an objective without data.
      learning_rate: What the record shows for a rule of constant rate. A rule whose rate varies keeps it in its state
        under the name `learning_rate`, which is then read there.
    Returns:
      step: (State, Draw) -> (State, Record). It and the value_fn have an attribute `num_examples`, n, by which `run` checks a
        sampler and a rule such as SAGA its table.
    Raises:
      TypeError: The rule is none (a constructor has to be called), or the dataset is not a Batch.
        In a step: a leaf of the params is not floating.
      ValueError: Leaves of the dataset differ in length, or it has no examples; in a step, a concrete index lies outside.
    Example:
      >>> step = make_step(lambda x, batch: x**2 / 2, optax.sgd(0.5), None, 0.5)
      >>> state = State(jnp.array(4.0), optax.sgd(0.5).init(jnp.array(4.0)))
      >>> print(step(state, Draw(None))[0].params)
      2.0
    """
    check_callable("objective", objective, "params", "batch")
    check_rule(rule)
    check_dataset("dataset", dataset)
    check_numbers("learning_rate", learning_rate, ndim=0, wanted="one number, or NaN")
    rule = optax.with_extra_args_support(rule)
    n, checked = num_examples(dataset), []
    dataset = jax.tree.map(
        jnp.asarray, dataset
    )  # NumPy's arrays cannot be indexed by what is traced.

    def step(state: State, draw: Draw) -> tuple[State, Record]:
        check_instance(
            "state", state, State, "Make one by research.descent.start(rule, params)."
        )
        check_tree("state.params", state.params)
        check_floating(state.params)
        check_instance(
            "draw", draw, Draw, "Make one by research.descent.Draw(indices)."
        )
        if not checked:
            checked.append(check_data(objective, state.params, dataset))

        def value_fn(params, indices=draw.indices):
            return objective(params, take(dataset, Draw(indices, draw.key)))

        value_fn.num_examples = n
        loss, grads = jax.value_and_grad(value_fn)(state.params)
        updates, rule_state = rule.update(
            grads,
            state.rule,
            state.params,
            value=loss,
            grad=grads,
            value_fn=value_fn,
            indices=draw.indices,
        )
        kept = optax.tree_utils.tree_get_all_with_path(rule_state, "learning_rate")
        kept = [rate for _, rate in kept if not jnp.ndim(rate)]
        rate = (
            kept[0] if len(kept) == 1 else learning_rate
        )  # Groups may have several: then none is *the* rate.
        record = Record(
            loss, jnp.asarray(rate, loss.dtype), _norm(grads), _norm(updates)
        )
        return State(optax.apply_updates(state.params, updates), rule_state), record

    step.num_examples = n
    return step


def start(rule: optax.GradientTransformation, params: Params) -> State:
    """The state before the first step.

    Args:
      rule: Any gradient transformation.
      params: Where to start, a pytree of floating arrays.
    Raises:
      TypeError: The rule is none, or a leaf of the params is not floating: an integer cannot take a small step.
    Example:
      >>> print(start(optax.sgd(0.5), jnp.array(4.0)).params)
      4.0
      >>> start(optax.sgd(0.5), {"w": jnp.array([1, 2])})
      Traceback (most recent call last):
      TypeError: params must be floating, to take steps of any size; params['w'] is int...[2]. Give floats: ...
    """
    check_rule(rule)
    check_tree("params", params)
    check_floating(params)
    return State(params, rule.init(params))


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


def _norm(tree: Params) -> Array:
    wide = [
        leaf.astype(working_dtype(leaf)) for leaf in jax.tree.leaves(tree)
    ]  # The squares of float16 overflow.
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in wide))


def _root_mean_square(a: Array) -> Array:
    return jnp.sqrt(jnp.mean(jnp.square(a)))
