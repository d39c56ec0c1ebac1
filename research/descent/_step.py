"""One step of descent: a rule applied to the gradient on a batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from research.checks import (
    check_callable,
    check_instance,
    check_key,
    check_numbers,
    check_tree,
)
from research.objectives import OF_WORDS, check_data
from research.samplers import check_indices, num_examples
from research.types import Array, Batch, Key, Params
from research.update_rules._checks import check_floating, check_rule
from research.update_rules._rule_info import rule_info
from research.update_rules._transforms import working_dtype

HOW_TO_BEGIN = "Make one by init of research.descent.build(objective, rule, dataset)."


class State(NamedTuple):
    """What the next step needs.

    Attributes:
      params: The parameters.
      rule: The rule's own state.
    """

    params: Params
    rule: optax.OptState


class BatchIndices(NamedTuple):
    """Which examples make up a batch.

    Attributes:
      indices: Shape (batch_size,); None means the whole dataset.
      key: The batch's own key, where the objective draws noise.
    """

    indices: Int[Array, "batch_size"] | None
    key: Key | None = None


class Info(NamedTuple):
    """What a reader wants to know of one step; the next step does not need it.

    Attributes:
      loss: The objective on the batch, before the update.
      learning_rate: The rate that the rule used; NaN where its state holds none.
      gradient_norm: Euclidean norm of the gradient.
      update_norm: Euclidean norm of the update.
    """

    loss: Float[Array, ""]
    learning_rate: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    update_norm: Float[Array, ""]


class Descent(NamedTuple):
    """A descent as a pair of pure functions.

    Attributes:
      init: params -> State, before the first step.
      step: (State, BatchIndices) -> (State, Info).
    """

    init: Callable[[Params], State]
    step: Callable[[State, BatchIndices], tuple[State, Info]]


def gather(dataset: Batch | None, batch_indices: BatchIndices) -> Batch | None:
    """The examples of a batch, with the batch's key.

    Args:
      dataset: Of n examples, or None.
      batch_indices: Which of them. Where its indices are None the batch is the dataset
        itself, and nothing is gathered.
    Returns:
      The batch; None for an objective without data.
    Raises:
      ValueError: A concrete index lies outside of the dataset. JAX reads the last
        example where a traced one is too large.
    """
    check_batch_indices(batch_indices)
    check_dataset("dataset", dataset)
    indices, key = batch_indices
    if indices is not None:
        check_numbers("batch_indices.indices", indices, kinds="iu")
    if key is not None:
        check_key("batch_indices.key", key)
    if dataset is None:
        return None
    if indices is None:
        return dataset._replace(key=key)
    check_indices(indices, len(jax.tree.leaves((dataset.x, dataset.y))[0]))
    x, y = jax.tree.map(lambda a: a[indices], (dataset.x, dataset.y))
    return Batch(x, y, key)


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


def check_batch_indices(batch_indices: Any) -> None:
    """Raise TypeError unless a value is a BatchIndices."""
    check_instance(
        "batch_indices",
        batch_indices,
        BatchIndices,
        "Make one by research.descent.BatchIndices(indices).",
    )


def build(
    objective: Callable[[Params, Any], Array],
    rule: optax.GradientTransformation,
    dataset: Batch | None,
) -> Descent:
    """A descent: x <- x + u, where u is the rule's answer to the gradient on a batch.

    By optax's extra-argument convention the rule also gets what some need: value, grad,
    value_fn(params, indices=...) (indices None: the full objective) and indices. Rules
    that take none of it are served as they are.

    Args:
      objective: (params, batch) -> ().
      rule: Any `optax.GradientTransformation`, ours or another.
      dataset: Batch of n examples, or None for an objective without data.
    Returns:
      The Descent (init, step). The step and the value_fn have an attribute
      `num_examples`, n, by which `run` checks a sampler and a rule such as SAGA its
      table.
    Raises:
      TypeError: The rule is none (a constructor has to be called), or the dataset is
        not a Batch. In init and in a step: a leaf of the params is not floating, for an
        integer cannot take a small step.
      ValueError: Leaves of the dataset differ in length, or it has no examples; in a
        step, a concrete index lies outside.
    Example:
      >>> from research.update_rules import gradient_descent
      >>> half = lambda x, batch: x**2 / 2
      >>> init, step = build(half, gradient_descent(0.5), None)
      >>> state, info = step(init(jnp.array(4.0)), BatchIndices(None))
      >>> print(state.params, info.loss, info.learning_rate)
      2.0 8.0 0.5
      >>> init({"w": jnp.array([1, 2])})
      Traceback (most recent call last):
      TypeError: params must be floating, to take steps of any size; params['w'] is int...[2]. Give floats: ...
    """
    check_callable("objective", objective, "params", "batch")
    check_rule(rule)
    check_dataset("dataset", dataset)
    n = num_examples(dataset)
    # What is traced cannot index NumPy's arrays.
    dataset = jax.tree.map(jnp.asarray, dataset)

    def init(params: Params) -> State:
        check_tree("params", params)
        check_floating(params)
        return State(params, rule.init(params))

    return Descent(init, _step(objective, rule, dataset, n))


def _step(
    objective: Callable[[Params, Any], Array],
    rule: optax.GradientTransformation,
    dataset: Batch | None,
    n: int | None,
) -> Callable[[State, BatchIndices], tuple[State, Info]]:
    rule = optax.with_extra_args_support(rule)
    checked = []

    def step(state: State, batch_indices: BatchIndices) -> tuple[State, Info]:
        check_instance("state", state, State, HOW_TO_BEGIN)
        check_tree("state.params", state.params)
        check_floating(state.params)
        check_batch_indices(batch_indices)
        if not checked:
            checked.append(check_data(objective, state.params, dataset))

        def value_fn(params, indices=batch_indices.indices):
            batch = gather(dataset, BatchIndices(indices, batch_indices.key))
            return objective(params, batch)

        value_fn.num_examples = n
        loss, grads = jax.value_and_grad(value_fn)(state.params)
        updates, rule_state = rule.update(
            grads,
            state.rule,
            state.params,
            value=loss,
            grad=grads,
            value_fn=value_fn,
            indices=batch_indices.indices,
        )
        rate = rule_info(rule_state).learning_rate
        rate = jnp.asarray(jnp.nan if rate is None else rate, loss.dtype)
        info = Info(loss, rate, _norm(grads), _norm(updates))
        return State(optax.apply_updates(state.params, updates), rule_state), info

    step.num_examples = n
    return step


def _norm(tree: Params) -> Array:
    # The squares of float16 overflow.
    wide = [leaf.astype(working_dtype(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in wide))
