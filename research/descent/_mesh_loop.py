"""Compile the loop over the steps of an epoch on a mesh of devices.

A step has two forms. In the first form, every device computes the update of all
entries. In the second form, each device updates only its part of the split arrays. The
second form is used if the rule updates each entry independently of the other entries.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.descent import _step
from research.descent._collectives import (
    AXIS,
    gather,
    own_part,
    scatter_sum,
    spread,
    total,
)
from research.descent._entrywise import is_entrywise
from research.descent._mesh import (
    Mesh,
    axes_of,
    digest_parts,
    placed,
    specs_of,
    whole,
)
from research.descent._processes import check_same_everywhere
from research.descent._program_text import program_facts
from research.descent._train_loop import (
    Compiled,
    batches_by_epoch,
    loop_over,
    no_info,
)
from research.descent._train_progress import Progress, digest
from research.objectives import check_data
from research.samplers import check_indices, num_examples
from research.types import Array, Batch, Key, Params, Sampler

Objective = Callable[[Params, Any], Array]
OfParams = Callable[[Params], Array]
WHOLE = jax.sharding.PartitionSpec()


class Lowered(NamedTuple):
    """The program of a training on a mesh, not compiled yet, and its first arguments.

    Attributes:
      traced: The traced loop over steps.
      program: The lowered loop.
      state, info, batches, dataset: The first four arguments of the program, on the
        devices of the mesh.
      batches_of: Function (key, epoch) -> batches of an epoch, on one device.
    """

    traced: Any
    program: Any
    state: _step.State
    info: _step.Info
    batches: _step.BatchIndices
    dataset: Batch | None
    batches_of: Callable[[Key, np.int32], _step.BatchIndices]


def lower_on_mesh(
    objective: Objective,
    rule: optax.GradientTransformation,
    dataset: Batch | None,
    sampler: Sampler,
    params: Params,
    key: Key,
    *,
    noisy: bool,
    mesh: Mesh,
) -> Lowered:
    """Lower the loop over an epoch's steps: trace it, but do not compile it.

    The arguments are those of `train`.
    """
    init, step = _step.build(objective, rule, dataset)
    check_data(objective, params, dataset)
    state, in_parts = _first_state(init, rule, params, mesh)
    batches_of = batches_by_epoch(sampler, noisy)
    batches = batches_of(key, np.int32(0))
    info = no_info(step, state, batches, sampler.num_batches)
    dataset, info, batches = (placed(a, mesh) for a in (dataset, info, batches))
    make_loop = _loop_in_parts if in_parts else _loop_on_whole
    loop = make_loop(objective, rule, mesh, state, num_examples(dataset))
    arguments = state, info, batches, dataset, np.int32(0), np.int32(1)
    traced = jax.jit(loop).trace(*arguments)
    return Lowered(traced, traced.lower(), state, info, batches, dataset, batches_of)


def compile_on_mesh(
    objective: Objective,
    rule: optax.GradientTransformation,
    dataset: Batch | None,
    sampler: Sampler,
    params: Params,
    key: Key,
    *,
    noisy: bool,
    mesh: Mesh,
) -> Compiled:
    """Compile the loop over an epoch's steps on a mesh.

    The arguments are those of `train`.
    """
    n = num_examples(dataset)
    traced, program, state, info, batches, dataset, batches_of = lower_on_mesh(
        objective, rule, dataset, sampler, params, key, noisy=noisy, mesh=mesh
    )
    facts = program_facts(traced, program)
    check_same_everywhere(
        {
            "program of a step": facts["digest"],
            "initial params or state": digest("", digest_parts((params, state))),
            "key": digest("", key),
            "order of the examples": digest("", digest_parts(batches)),
            "dataset": digest("", digest_parts(dataset)),
        }
    )
    compiled = program.compile()
    words = (
        f"{jax.tree.structure((state, batches, dataset))} on a mesh of "
        f"{mesh.num_devices} devices, exact={mesh.exact}, "
        f"shard_params={mesh.shard_params}"
    )
    parts = digest_parts((params, state, info, batches, dataset))

    def epoch_batches(key: Key, epoch: int):
        batches = batches_of(key, np.int32(epoch))
        if n is not None:
            check_indices(batches.indices, n)
        return placed(batches, mesh)

    return Compiled(
        Progress(0, 0, state, info, (), (), 0.0, digest(words, key, parts)),
        epoch_batches,
        lambda state, info, batches, start, stop: compiled(
            state, info, batches, dataset, np.int32(start), np.int32(stop)
        ),
        lambda tree: whole(tree, mesh),
        lambda: facts,
    )


def _first_state(
    init: Callable[[Params], _step.State],
    rule: optax.GradientTransformation,
    params: Params,
    mesh: Mesh,
) -> tuple[_step.State, bool]:
    """Return the initial state on the devices, and the result of `moves_in_parts`."""
    if moves_in_parts(init, rule, params, mesh):
        # The whole state of the rule never lies on one device.
        shapes = jax.eval_shape(init, params)
        specs = specs_of(shapes, axes_of(shapes, mesh))
        shardings = jax.tree.map(
            lambda spec: jax.sharding.NamedSharding(mesh.devices, spec), specs
        )
        parts = placed(params, mesh, axes_of(params, mesh))
        return jax.jit(init, out_shardings=shardings)(parts), True
    state = init(params)
    return placed(state, mesh, axes_of(state, mesh)), False


def moves_in_parts(
    init: Callable[[Params], _step.State],
    rule: optax.GradientTransformation,
    params: Params,
    mesh: Mesh,
) -> bool:
    """Return whether each device can update its part of the split arrays by itself.

    The result is True if three conditions hold: some array is split, the rule
    initialises and updates each entry of the split arrays independently of the other
    entries, and the rule does not evaluate the objective. `init` is the first of the
    two functions that `research.descent.build` returns. It makes the first state from
    the params.
    """
    shapes = jax.eval_shape(init, params)
    split = lambda tree: [axis is not None for axis in axes_of(tree, mesh)]
    return (
        any(split(shapes))
        and is_entrywise(init, (params,), split(params))
        and _updates_by_entry(rule, shapes, split)
    )


def _updates_by_entry(
    rule: optax.GradientTransformation,
    state: _step.State,
    split: Callable[[Any], list[bool]],
) -> bool:
    """Return whether a rule treats each entry by itself and evaluates no objective."""
    loss = jax.ShapeDtypeStruct((), jax.tree.leaves(state.params)[0].dtype)

    def update(state: _step.State, grads: Params, loss: Array):
        return _new_state(rule, state, loss, grads, _refused, None)

    try:
        return is_entrywise(
            update,
            (state, state.params, loss),
            [*split(state), *split(state.params), False],
        )
    except _EvaluatesObjective:
        return False


class _EvaluatesObjective(Exception):
    """A rule called value_fn."""


def _refused(*args: Any, **options: Any) -> Array:
    raise _EvaluatesObjective


def _new_state(
    rule: optax.GradientTransformation,
    state: _step.State,
    loss: Array,
    grads: Params,
    value_fn: Callable[..., Array],
    indices: Array | None,
) -> tuple[_step.State, Params]:
    """Return the state after a step, and the update."""
    outcome = optax.with_extra_args_support(rule).update(
        grads,
        state.rule,
        state.params,
        value=loss,
        grad=grads,
        value_fn=value_fn,
        indices=indices,
    )
    updates, rule_state = _step.checked_update(outcome, state.params, state.rule)
    params = optax.apply_updates(state.params, updates)
    return _step.State(params, rule_state), updates


def _info(loss: Array, state: _step.State, norms: Sequence[Array]) -> _step.Info:
    return _step.Info(loss, _step.rate_of(state.rule, loss), *norms)


def _share(batch: _step.BatchIndices, n: int | None) -> tuple[_step.BatchIndices, int]:
    """Return this device's share of a batch, and the number of shares.

    A rule may ask for a batch whose size is not a multiple of the number of devices.
    Then every device computes the whole batch, and there is one share.
    """
    num_devices, device = jax.lax.axis_size(AXIS), jax.lax.axis_index(AXIS)
    size = n if batch.indices is None else batch.indices.size
    if size is None or size % num_devices:
        return batch, 1
    key = None if batch.key is None else jax.random.fold_in(batch.key, device)
    indices = batch.indices
    if indices is None:
        indices = jnp.arange(size, dtype=jnp.int32)
    share = size // num_devices
    own = jax.lax.dynamic_slice_in_dim(indices, device * share, share)
    return _step.BatchIndices(own, key), num_devices


def _term(
    objective: Objective,
    dataset: Batch | None,
    batch: _step.BatchIndices,
    n: int | None,
) -> tuple[OfParams, int]:
    """Return this device's term of the mean over devices, and the number of terms.

    The term is a function of the params.
    """
    own, shares = _share(batch, n)
    return lambda params: objective(params, _step.gather(dataset, own)) / shares, shares


def _mean(
    objective: Objective,
    dataset: Batch | None,
    batch: _step.BatchIndices,
    n: int | None,
    exact: bool,
) -> OfParams:
    """Return the mean over devices: a function of params, with all its derivatives."""
    term, shares = _term(objective, dataset, batch, n)

    def mean(params: Params) -> Array:
        leaves, structure = jax.tree.flatten(params)
        own = jax.tree.unflatten(structure, spread(leaves, exact))
        return total([term(own)], exact)[0]

    return mean if shares > 1 else term


def _loop_on_whole(
    objective: Objective,
    rule: optax.GradientTransformation,
    mesh: Mesh,
    state: _step.State,
    n: int | None,
) -> Callable[..., Any]:
    """Return a loop in which every device updates whole arrays.

    Between the steps, each device stores only its own part of the split arrays.
    """
    axes, structure = axes_of(state, mesh), jax.tree.structure(state)

    def make_step(dataset: Batch | None):
        def step(parts: _step.State, batch: _step.BatchIndices):
            state = structure.unflatten(gather(jax.tree.leaves(parts), axes))

            def value_fn(params: Params, indices: Array | None = batch.indices):
                asked = _step.BatchIndices(indices, batch.key)
                return _mean(objective, dataset, asked, n, mesh.exact)(params)

            value_fn.num_examples = n
            loss, grads = jax.value_and_grad(_term(objective, dataset, batch, n)[0])(
                state.params
            )
            if _share(batch, n)[1] > 1:
                leaves = jax.tree.leaves(grads)
                loss, *leaves = total([loss, *leaves], mesh.exact)
                grads = jax.tree.unflatten(jax.tree.structure(grads), leaves)
            state, updates = _new_state(
                rule, state, loss, grads, value_fn, batch.indices
            )
            parts = structure.unflatten(
                own_part(leaf, axis)
                for leaf, axis in zip(jax.tree.leaves(state), axes, strict=True)
            )
            norms = _step.norm(grads), _step.norm(updates)
            return parts, _info(loss, state, norms)

        return step

    specs = specs_of(state, axes)
    return jax.shard_map(
        loop_over(make_step),
        mesh=mesh.devices,
        in_specs=(specs, *[WHOLE] * 5),
        out_specs=(specs, WHOLE),
        check_vma=False,
    )


def _loop_in_parts(
    objective: Objective,
    rule: optax.GradientTransformation,
    mesh: Mesh,
    state: _step.State,
    n: int | None,
) -> Callable[..., Any]:
    """Return a loop in which each device updates its part of the split arrays."""
    axes, structure = axes_of(state.params, mesh), jax.tree.structure(state.params)
    specs = specs_of(state.params, axes)
    on_devices = functools.partial(jax.shard_map, mesh=mesh.devices, check_vma=False)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)

    def gradient(parts: Params, batch: _step.BatchIndices, dataset: Batch | None):
        params = structure.unflatten(gather(jax.tree.leaves(parts), axes))
        term, shares = _term(objective, dataset, batch, n)
        loss, grads = jax.value_and_grad(term)(params)
        leaves = jax.tree.leaves(grads)
        if shares == 1:
            return loss, structure.unflatten(map(own_part, leaves, axes))
        split = [axis is not None for axis in axes]
        loss, *rest = total(
            [loss, *(g for g, own in zip(leaves, split, strict=True) if not own)],
            mesh.exact,
        )
        parts = iter(
            scatter_sum(
                [g for g, own in zip(leaves, split, strict=True) if own],
                [axis for axis in axes if axis is not None],
                mesh.exact,
            )
        )
        rest = iter(rest)
        return loss, structure.unflatten(next(parts if own else rest) for own in split)

    def norms(*trees: Params):
        """Return the norm of each tree; each device passes its parts of the trees."""
        squares = [_squares(jax.tree.leaves(tree), axes) for tree in trees]
        of_parts = total([jnp.stack([parts for parts, _ in squares])], mesh.exact)[0]
        return tuple(
            jnp.sqrt(parts + rest)
            for parts, (_, rest) in zip(of_parts, squares, strict=True)
        )

    mean_gradient = on_devices(
        gradient, in_specs=(specs, WHOLE, WHOLE), out_specs=(WHOLE, specs)
    )
    norms_of = on_devices(norms, in_specs=(specs, specs), out_specs=WHOLE)

    def make_step(dataset: Batch | None):
        def step(state: _step.State, batch: _step.BatchIndices):
            loss, grads = mean_gradient(state.params, batch, dataset)
            state, updates = _new_state(
                rule, state, loss, grads, _refused, batch.indices
            )
            state = jax.lax.with_sharding_constraint(state, shardings)
            return state, _info(loss, state, norms_of(grads, updates))

        return step

    return loop_over(make_step)


def _squares(leaves: list[Array], axes: list[int | None]) -> tuple[Array, Array]:
    """Return two sums of squares: over the parts of split leaves, and over the rest."""
    squares = [_step.square_sum(leaf) for leaf in leaves]
    zero = jnp.zeros((), jnp.result_type(*squares))
    parts = [s for s, axis in zip(squares, axes, strict=True) if axis is not None]
    rest = [s for s, axis in zip(squares, axes, strict=True) if axis is None]
    return sum(parts, zero), sum(rest, zero)
