"""Compile the loop over the steps of an epoch, on one device or several."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.descent import _run, _step
from research.descent._program_text import program_facts
from research.descent._train_progress import Progress, digest
from research.objectives import check_data
from research.samplers import check_indices, num_examples
from research.types import Array, Batch, Key, Params, Sampler

AXIS = "batch"  # Mesh axis over which a batch is split.
# Arrays with fewer entries are joined before they are averaged over devices: joining
# costs less than a separate synchronisation.
SMALL = 2**15


class Compiled(NamedTuple):
    """A compiled training before its first step.

    Attributes:
      start: The `Progress` before the first step, with the initial params and rule
        state. All numbers in its field `info` are NaN.
      epoch_batches: Function (key, epoch) -> the batches of that epoch, for `advance`.
      advance: Function (state, info, batches, start, stop) -> (state, info). It takes
        the steps from start to stop - 1 of an epoch, and writes the Info of each step
        into `info`. Without a mesh, an optional last argument replaces the dataset by
        another one of the same shapes and dtypes.
      whole: Function (tree) -> tree of the same arrays, each complete on one device. It
        joins arrays that were split over devices.
      program: Function () -> facts that identify the compiled program, as JSON values.
    """

    start: Progress
    epoch_batches: Callable[[Key, int], Any]
    advance: Callable[..., tuple[_step.State, _step.Info]]
    whole: Callable[[Any], Any]
    program: Callable[[], dict[str, str]]


def compile_training(
    objective: Callable[[Params, Any], Array],
    rule: optax.GradientTransformation,
    dataset: Batch | None,
    sampler: Sampler,
    params: Params,
    key: Key,
    *,
    noisy: bool,
    devices: int,
) -> Compiled:
    """Compile the loop over an epoch's steps. The arguments are those of `train`."""
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:devices]), (AXIS,))
    whole = jax.sharding.PartitionSpec()
    everywhere = lambda tree: jax.device_put(
        tree, jax.sharding.NamedSharding(mesh, whole)
    )
    batches_of = batches_by_epoch(sampler, noisy)
    own = _averaged(objective) if devices > 1 else objective
    loop = loop_over(lambda dataset: _step.build(own, rule, dataset).step)

    def share(
        state: _step.State,
        info: _step.Info,
        batches: _step.BatchIndices,
        dataset: Batch | None,
        start: Array,
        stop: Array,
    ):
        return loop(state, info, _own_part(batches, devices), dataset, start, stop)

    shared = jax.shard_map(
        share, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False
    )
    advance = shared if devices > 1 else loop
    n = num_examples(dataset)
    init, step = _step.build(objective, rule, dataset)
    state = init(params)
    check_data(objective, params, dataset)
    dataset, state, batches = map(
        everywhere, (dataset, state, batches_of(key, np.int32(0)))
    )
    info = everywhere(no_info(step, state, batches, sampler.num_batches))
    arguments = state, info, batches, dataset, np.int32(0), np.int32(1)
    traced = jax.jit(advance).trace(*arguments)
    lowered = traced.lower()
    compiled = lowered.compile()
    shapes = [(leaf.dtype.name, leaf.shape) for leaf in jax.tree.leaves(dataset)]
    words = (
        f"{jax.tree.structure((state, batches, dataset))} {shapes} on {devices} devices"
    )

    def epoch_batches(key: Key, epoch: int):
        batches = everywhere(batches_of(key, np.int32(epoch)))
        if n is not None:
            check_indices(batches.indices, n)
        return batches

    return Compiled(
        Progress(
            0, 0, state, info, (), (), 0.0, digest(words, key, state, info, batches)
        ),
        epoch_batches,
        lambda state, info, batches, start, stop, dataset=dataset: compiled(
            state, info, batches, everywhere(dataset), np.int32(start), np.int32(stop)
        ),
        lambda tree: jax.tree.map(lambda leaf: leaf.addressable_data(0), tree),
        lambda: program_facts(traced, lowered),
    )


def batches_by_epoch(
    sampler: Sampler, noisy: bool
) -> Callable[[Key, np.int32], _step.BatchIndices]:
    """Return a compiled function (key, epoch) -> the batches of that epoch."""
    return jax.jit(
        lambda key, epoch: _run.epoch_batches(
            sampler, jax.random.fold_in(key, epoch), noisy
        )
    )


def no_info(
    step: Callable[..., Any],
    state: _step.State,
    batches: _step.BatchIndices,
    num_batches: int,
) -> _step.Info:
    """Return the Info of an epoch before its first step: NaN for each step."""
    _, one = jax.eval_shape(
        lambda state, batches: step(state, jax.tree.map(lambda a: a[0], batches)),
        state,
        batches,
    )
    return jax.tree.map(lambda a: np.full(num_batches, np.nan, a.dtype), one)


def loop_over(
    make_step: Callable[[Batch | None], Callable[..., Any]],
) -> Callable[..., tuple[_step.State, _step.Info]]:
    """Return the loop over the steps from start to stop - 1 of an epoch.

    The loop is a function (state, info, batches, dataset, start, stop) -> (state,
    info). make_step makes the step from the dataset. start and stop are arguments of
    the compiled loop, so XLA does not know the number of steps and does not unroll the
    loop. The bits of the result therefore do not depend on how an epoch is divided into
    calls.
    """

    def loop(
        state: _step.State,
        info: _step.Info,
        batches: _step.BatchIndices,
        dataset: Batch | None,
        start: Array,
        stop: Array,
    ):
        step = make_step(dataset)
        keys = batches.key
        # JAX's key checker would treat key[i] as a reuse of the key.
        noise = None if keys is None else jax.random.key_data(keys)

        def one(i: Array, carry: tuple[_step.State, _step.Info]):
            state, info = carry
            indices = None if batches.indices is None else batches.indices[i]
            key = (
                None
                if keys is None or noise is None
                else jax.random.wrap_key_data(noise[i], impl=jax.random.key_impl(keys))
            )
            state, one_step = step(state, _step.BatchIndices(indices, key))
            return state, jax.tree.map(
                lambda all_steps, new: all_steps.at[i].set(new), info, one_step
            )

        return jax.lax.fori_loop(start, stop, one, (state, info))

    return loop


def _own_part(batches: _step.BatchIndices, devices: int) -> _step.BatchIndices:
    """Return this device's share of each batch, with the device's own noise key."""
    device = jax.lax.axis_index(AXIS)
    indices = batches.indices
    if indices is None:
        raise ValueError(
            "a full batch has no indices to split over devices. Use "
            "samplers.minibatch(n, n)."
        )
    shares = indices.reshape(len(indices), devices, -1)
    noise = (
        None
        if batches.key is None
        else jax.vmap(lambda key: jax.random.fold_in(key, device))(batches.key)
    )
    return _step.BatchIndices(
        jax.lax.dynamic_index_in_dim(shares, device, 1, keepdims=False), noise
    )


def _averaged(
    objective: Callable[[Params, Any], Array],
) -> Callable[[Params, Any], Array]:
    """Return an objective whose value and gradient are means over the devices."""

    @jax.custom_vjp
    def averaged(params: Params, batch: Any):
        return _mean_over_devices(objective(params, batch))

    def forward(params: Params, batch: Any):
        return _mean_over_devices(jax.value_and_grad(objective)(params, batch))

    def backward(gradient: Params, cotangent: Array):
        return jax.tree.map(lambda g: cotangent.astype(g.dtype) * g, gradient), None

    averaged.defvjp(forward, backward)
    return averaged


def _mean_over_devices(tree: Any) -> Any:
    """Return the mean of each array over the devices.

    CPU devices synchronise once for each array, so small arrays of a dtype are joined.
    """
    leaves, structure = jax.tree.flatten(tree)
    groups: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        groups.setdefault(leaf.dtype if leaf.size < SMALL else i, []).append(i)
    joined = [_joined([leaves[i] for i in group]) for group in groups.values()]
    for group, mean in zip(groups.values(), jax.lax.pmean(joined, AXIS), strict=True):
        for i, own in zip(
            group, _parted(mean, [leaves[i] for i in group]), strict=True
        ):
            leaves[i] = own
    return jax.tree.unflatten(structure, leaves)


def _joined(leaves: list[Array]) -> Array:
    return (
        leaves[0]
        if len(leaves) == 1
        else jnp.concatenate([leaf.ravel() for leaf in leaves])
    )


def _parted(joined: Array, like: list[Array]) -> list[Array]:
    """Undo `_joined`."""
    if len(like) == 1:
        return [joined]
    parts = jnp.split(joined, np.cumsum([leaf.size for leaf in like])[:-1])
    return [part.reshape(leaf.shape) for part, leaf in zip(parts, like, strict=True)]
