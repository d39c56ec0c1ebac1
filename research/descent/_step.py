"""Take one step of descent: apply a rule to the gradient on a batch."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Float, Int

from research.checks import (
    check_callable,
    check_instance,
    check_key,
    check_not_deleted,
    check_numbers,
    check_tree,
    is_array,
    is_traced,
    shown,
)
from research.objectives import OF_WORDS, check_data
from research.samplers import index_outside, num_examples
from research.types import Array, Batch, Key, Params
from research.update_rules._checks import check_floating, check_rule
from research.update_rules._rule_info import rule_info
from research.update_rules._transforms import working_dtype

HOW_TO_BEGIN = "Make one by init of research.descent.build(objective, rule, dataset)."


class State(NamedTuple):
    """State of a descent between two steps.

    Attributes:
      params: The parameters.
      rule: The state of the update rule.
    """

    params: Params
    rule: optax.OptState


class BatchIndices(NamedTuple):
    """The examples of a batch, as indices into the dataset.

    Attributes:
      indices: Indices of the examples, shape (batch_size,). None means the whole
        dataset.
      key: Random key of this batch, for an objective that draws noise. None means no
        noise.
    """

    indices: Int[Array, "batch_size"] | None
    key: Key | None = None


class Info(NamedTuple):
    """Measurements of one step. The next step does not need them.

    Attributes:
      loss: The objective on the batch, before the update.
      learning_rate: The learning rate of the step. NaN if the rule's state holds no
        learning rate, or more than one.
      gradient_norm, update_norm: Euclidean norm of the gradient and of the update, over
        all leaves together. Each norm is the square root of a sum of squares, so in
        float32 a norm is inf from 1.8e19 on, and 0 below 1e-19.
    """

    loss: Float[Array, ""]
    learning_rate: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    update_norm: Float[Array, ""]


class Descent(NamedTuple):
    """A descent as a pair of pure functions.

    Attributes:
      init: Function (params) -> State before the first step.
      step: Function (State, BatchIndices) -> (State, Info) that takes one step.
    """

    init: Callable[[Params], State]
    step: Callable[[State, BatchIndices], tuple[State, Info]]


class Halves(NamedTuple):
    """The step of a descent, divided into two functions.

    Attributes:
      gradient: Function (params, BatchIndices) -> (loss, gradient) on the batch.
      update: Function (State, BatchIndices, loss, gradient) -> (State, Info) that moves
        the params.
    """

    gradient: Callable[[Params, BatchIndices], tuple[Array, Params]]
    update: Callable[[State, BatchIndices, Array, Params], tuple[State, Info]]


def gather(dataset: Batch | None, batch_indices: BatchIndices) -> Batch | None:
    """Return the examples of a batch, together with the batch's key.

    Args:
      dataset: Batch of n examples, or None.
      batch_indices: Indices of the examples to take, and the key of the batch. If the
        field `indices` is None, the batch is the whole dataset, which is not copied.
    Returns:
      The batch, or None if the dataset is None.
    Raises:
      TypeError: An argument has the wrong type, or the indices are not integers.
      ValueError: A concrete index lies outside the dataset. A traced index is not
        checked: if it is too large, JAX reads the last example. ValueError is also
        raised if leaves of the dataset differ in length.
    Example:
      >>> data = Batch(jnp.array([1.0, 2.0, 3.0]), jnp.zeros(3))
      >>> print(gather(data, BatchIndices(jnp.array([2, 0]))).x)
      [3. 1.]
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
    n = num_examples(dataset) or 0
    if not is_traced(indices) and (index := index_outside(indices, n)) is not None:
        raise ValueError(
            f"batch_indices has the index {index}, which is outside the dataset of "
            f"{n} examples. Use indices in 0..{n - 1}."
        )
    # NumPy's arrays accept no traced indices.
    take = lambda a: jnp.asarray(a)[indices] if is_traced(indices) else a[indices]
    x, y = jax.tree.map(take, (dataset.x, dataset.y))
    return Batch(x, y, key)


def check_dataset(name: str, dataset: Any) -> None:
    """Raise TypeError unless the dataset is None or a Batch of arrays."""
    if dataset is None:
        return
    check_instance(
        name, dataset, (Batch, type(None)), "Write research.types.Batch(x, y)."
    )
    check_tree(f"{name}.x", dataset.x)
    check_tree(f"{name}.y", dataset.y, OF_WORDS)
    if not jax.tree.leaves((dataset.x, dataset.y)):
        raise TypeError(f"{name} must hold arrays; got {name}={dataset!r}.")


def check_no_nan(
    name: str,
    dataset: Any,
    objective: Callable[[Params, Any], Array],
    params: Callable[[], Params],
) -> None:
    """Raise ValueError if NaN in a dataset makes the objective NaN.

    NaN in a dataset is allowed if the objective accepts NaN, for example as a mark for
    a missing target. Therefore, if an array contains NaN, the objective is evaluated at
    the first example with NaN in this array. ValueError is raised if the result is NaN,
    or if the evaluation raises an error. Traced arrays, and arrays that other processes
    hold in part, are not checked.

    Args:
      name: Name of the dataset, for the message.
      dataset: A Batch, or None.
      objective: Function (params, batch) -> number.
      params: Function without arguments that returns params for the objective.
    """
    for field in () if dataset is None else ("x", "y"):
        tree = getattr(dataset, field)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if is_traced(leaf) or not getattr(leaf, "is_fully_addressable", True):
                continue
            check_not_deleted(f"{name}.{field}{jax.tree_util.keystr(path)}", leaf)
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
                continue
            values = np.asarray(leaf)
            with np.errstate(all="ignore"):
                if not np.isnan(values.sum()):  # Without a second array as large.
                    continue
            count = int(np.isnan(values).sum())
            if not count:
                continue
            first = [int(i) for i in np.argwhere(np.isnan(values))[0]]
            if _accepts(objective, params(), cast(Batch, dataset), first[0]):
                continue
            where = f"{name}.{field}{jax.tree_util.keystr(path)}"
            raise ValueError(
                f"{where} contains NaN: {count} of {values.size} entries, the first at "
                f"{first}. Drop these examples, or fill the entries."
            )


def _accepts(
    objective: Callable[[Params, Any], Array], params: Params, dataset: Batch, i: int
) -> bool:
    """Return whether the objective is not NaN for example i alone."""
    x, y = jax.tree.map(lambda leaf: leaf[i : i + 1], (dataset.x, dataset.y))
    try:
        return not bool(jnp.isnan(objective(params, Batch(x, y))))
    except Exception:  # The objective may need a key, or more than one example.
        return False


def check_batch_indices(batch_indices: Any) -> None:
    """Raise TypeError unless the argument is a BatchIndices."""
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
    """Build a descent x <- x + u, where a rule computes u from a batch's gradient.

    Here x are the params. Besides the gradient, the function `update` of the rule
    receives these keyword arguments, which optax calls extra arguments:

    - value: The objective on the batch.
    - grad: The gradient of this value.
    - indices: The indices of the batch's examples. None means the whole dataset.
    - value_fn: The objective as a function of params and indices. value_fn(params) uses
      the examples of the batch, and value_fn(params, indices=None) uses the whole
      dataset.

    Rules that take no extra arguments work unchanged.

    Args:
      objective: Function (params, batch) -> number, shape ().
      rule: Any `optax.GradientTransformation`, from this library or another.
      dataset: Batch of n examples, or None for an objective without data.
    Returns:
      The Descent (init, step). The functions step and value_fn have the attribute
      `num_examples`, which is n, or None without data. `run` uses the attribute to
      check a sampler, and SAGA uses it to check the size of its table of gradients.
    Raises:
      TypeError: The rule is not an optax.GradientTransformation (for example, because
        its constructor was not called), or the dataset is not a Batch. The functions
        init and step raise a TypeError if a leaf of the params is not floating, because
        integers cannot take small steps. The function step raises a TypeError if the
        objective does not return one real floating number.
      ValueError: Leaves of the dataset differ in length, or the dataset has no
        examples. The function step raises a ValueError if a concrete index lies outside
        the dataset.
    Example:
      >>> from research.update_rules import gradient_descent
      >>> half = lambda x, batch: x**2 / 2
      >>> init, step = build(half, gradient_descent(0.5), None)
      >>> state, info = step(init(jnp.array(4.0)), BatchIndices(None))
      >>> print(state.params, info.loss, info.learning_rate)
      2.0 8.0 0.5
      >>> init({"w": jnp.array([1, 2])})
      Traceback (most recent call last):
      TypeError: params must be floating; params['w'] is int...[2]. Convert them to ...
    """
    check_callable("objective", objective, "params", "batch")
    check_rule(rule)
    check_dataset("dataset", dataset)
    halves, checked = halves_of_step(objective, rule, dataset), []

    def init(params: Params) -> State:
        check_tree("params", params)
        check_floating(params)
        return State(params, rule.init(params))

    def step(state: State, batch_indices: BatchIndices) -> tuple[State, Info]:
        check_instance("state", state, State, HOW_TO_BEGIN)
        check_tree("state.params", state.params)
        check_floating(state.params)
        check_batch_indices(batch_indices)
        if not checked:
            checked.append(check_data(objective, state.params, dataset))
        loss, grads = halves.gradient(state.params, batch_indices)
        return halves.update(state, batch_indices, loss, grads)

    step.num_examples = num_examples(dataset)
    return Descent(init, step)


def halves_of_step(
    objective: Callable[[Params, Any], Array],
    rule: optax.GradientTransformation,
    dataset: Batch | None,
) -> Halves:
    """Return the two halves of the step of `build`, without the checks of `build`."""
    rule = optax.with_extra_args_support(rule)
    n = num_examples(dataset)
    # A traced index cannot index a NumPy array.
    dataset = jax.tree.map(jnp.asarray, dataset)

    def value_fn_of(batch_indices: BatchIndices):
        def value_fn(params: Params, indices: Array | None = batch_indices.indices):
            batch = gather(dataset, BatchIndices(indices, batch_indices.key))
            return one_number(objective(params, batch))

        value_fn.num_examples = n
        return value_fn

    def gradient(params: Params, batch_indices: BatchIndices) -> tuple[Array, Params]:
        return jax.value_and_grad(value_fn_of(batch_indices))(params)

    def update(
        state: State, batch_indices: BatchIndices, loss: Array, grads: Params
    ) -> tuple[State, Info]:
        outcome = rule.update(
            grads,
            state.rule,
            state.params,
            value=loss,
            grad=grads,
            value_fn=value_fn_of(batch_indices),
            indices=batch_indices.indices,
        )
        updates, rule_state = checked_update(outcome, state.params, state.rule)
        rate = rate_of(rule_state, loss)
        info = Info(loss, rate, norm(grads), norm(updates))
        return State(optax.apply_updates(state.params, updates), rule_state), info

    return Halves(gradient, update)


def rate_of(rule_state: optax.OptState, loss: Array) -> Array:
    """Return the learning rate of the last step, or NaN, for the `Info` of the step.

    The result has the dtype of the loss, or float32 if that dtype is narrower: in
    float16, a rate of 1e-8 is 0.
    """
    rate = rule_info(rule_state).learning_rate
    dtype = loss.dtype if loss.dtype.itemsize >= 4 else jnp.float32
    return jnp.asarray(jnp.nan if rate is None else rate, dtype)


def checked_update(outcome: Any, params: Params, before: Any) -> tuple[Params, Any]:
    """Check what the update of a rule returned, and return it as (updates, state).

    `before` is the state that the update received. If JAX traces the update, as in a
    compiled loop, the new state must have the same structure, shapes and dtypes.

    Raises:
      TypeError: `outcome` is not a pair, `check_updates` refuses the updates, or the
        new state differs from `before`.
    """
    if not (isinstance(outcome, tuple | list) and len(outcome) == 2):
        raise TypeError(
            "rule.update must return (updates, state), a tuple of two; it returned "
            f"{shown(outcome)}. Did it forget the state?"
        )
    updates, state = outcome
    check_updates(updates, params)
    _check_state(before, state)
    return updates, state


def _check_state(before: Any, state: Any) -> None:
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(state)):
        return
    must = "update must keep the structure, the shapes and the dtypes of the state"
    structure, wanted = jax.tree.structure(state), jax.tree.structure(before)
    if structure != wanted:
        raise TypeError(
            f"the rule's update received a state of the structure {wanted}, but "
            f"returned {structure}; {must}."
        )
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(state), strict=True
    ):
        kind, own = _kind(new), _kind(old)
        # The loops of JAX convert an input of a weak dtype, such as a Python number.
        is_weak = getattr(old, "weak_type", isinstance(old, int | float | complex))
        if kind[1] != own[1] or (kind[0] != own[0] and not is_weak):
            place = jax.tree_util.keystr(path) or "the only leaf"
            raise TypeError(
                f"the rule's state at {place} is {own[0]}{own[1]} before the update "
                f"and {kind[0]}{kind[1]} after it; {must}."
            )


def check_updates(updates: Params, params: Params, *, dtypes: bool = False) -> None:
    """Raise TypeError if the updates of a rule do not fit the params.

    The structures and the shapes must be equal. If `dtypes` is True, the dtypes must be
    equal, too. Otherwise, only complex updates of real params are refused. None counts
    as a leaf. The updates may be None only where the params are None. Where the params
    are None, any leaf of the updates is accepted.

    Raises:
      TypeError: The message names both structures, or the first leaf that differs, with
        its shape and dtype in the updates and in the params.
    """
    structure, wanted = (
        jax.tree.structure(tree, is_leaf=_is_none) for tree in (updates, params)
    )
    if structure != wanted:
        raise TypeError(
            f"the rule's updates have the structure {structure}, but the params have "
            f"{wanted}; update must return updates with the structure of its input."
        )
    leaves = jax.tree_util.tree_leaves_with_path(updates, is_leaf=_is_none)
    for (path, leaf), own in zip(
        leaves, jax.tree.leaves(params, is_leaf=_is_none), strict=True
    ):
        kind, wanted = _kind(leaf), _kind(own)
        lost = "complex" in kind[0] and "complex" not in wanted[0]
        other = kind[1] != wanted[1] or (dtypes and kind != wanted)
        if own is not None and (other or lost):
            raise TypeError(
                f"the update at {jax.tree_util.keystr(path) or 'the only leaf'} is "
                f"{kind[0]}{kind[1]} where the params are {wanted[0]}{wanted[1]}; keep "
                "shape and dtype (cast the hyperparameters of the rule to the "
                "gradient's dtype)."
            )


def _kind(leaf: Any) -> tuple[str, str]:
    """Return the dtype and the shape of a leaf as text, such as ("float32", "[3]")."""
    if leaf is None:
        return "None", ""
    dtype = getattr(leaf, "dtype", None) or jnp.result_type(leaf)
    return str(dtype), str(list(jnp.shape(leaf)))


def _is_none(value: Any) -> bool:
    return value is None


def one_number(value: Any) -> Any:
    """Return the value of an objective; raise unless it is one real floating number.

    Only the shape and the dtype are checked, and the value is returned unchanged. The
    check therefore adds nothing to a compiled program.

    Raises:
      TypeError: The value is not an array of shape () with a real floating dtype.
    """
    if is_array(value) and not value.shape:
        if jnp.issubdtype(value.dtype, jnp.floating):
            return value
        found = f"a number of dtype {value.dtype}"
        advice = "Convert integers to floats, and take a real part of complex numbers."
    elif is_array(value):
        found = f"an array of shape {tuple(value.shape)}"
        advice = "Return its mean or sum."
    elif value is None:
        found, advice = "None", "Add a return statement."
    elif isinstance(value, tuple | list | dict):
        found, advice = f"a {type(value).__name__}", "Return the loss alone."
    else:
        found, advice = shown(value), "Compute it from params with jax.numpy."
    raise TypeError(
        "objective must return one real floating number, an array of shape (); it "
        f"returns {found}. {advice}"
    )


def norm(tree: Params) -> Array:
    """Return the Euclidean norm of all entries of a pytree together."""
    return jnp.sqrt(sum(map(square_sum, jax.tree.leaves(tree))))


def square_sum(leaf: Array) -> Array:
    """Return the sum of squares of an array, computed in at least float32.

    In float16, the square of a number above 256 would overflow.
    """
    return jnp.sum(jnp.square(leaf.astype(working_dtype(leaf))))
