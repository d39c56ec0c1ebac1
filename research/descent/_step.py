"""One step of descent: a rule applied to the gradient on a batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

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
from research.update_rules._transforms import working_dtype


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


def _norm(tree: Params) -> Array:
    wide = [
        leaf.astype(working_dtype(leaf)) for leaf in jax.tree.leaves(tree)
    ]  # The squares of float16 overflow.
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in wide))
