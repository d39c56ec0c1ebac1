"""The compiled loop over the steps of an epoch, on one device, or on several that share each batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.descent import _run, _step
from research.descent._train_progress import Place, digest
from research.objectives import check_data
from research.samplers import check_indices, num_examples
from research.types import Array, Batch, Key, Params, Sampler

AXIS = "batch"  # Of the mesh, where a batch is split over devices.
SMALL = (
    2**15
)  # Entries of an array: below, joining it with others costs less than a meeting of its own.


class Compiled(NamedTuple):
    """A training before its first step.

    Attributes:
      start: The place to begin at.
      draws: (key, epoch) -> the draws of that epoch.
      advance: (state, records, draws, start, stop) -> (state, records) after the steps from start to stop - 1.
    """

    start: Place
    draws: Callable[[Key, int], _step.Draw]
    advance: Callable[..., tuple[_step.State, _step.Record]]


def compile_training(
    objective: Callable[[Params, Any], Array],
    rule: optax.GradientTransformation,
    dataset: Batch | None,
    sampler: Sampler,
    params: Params,
    key: Key,
    *,
    noisy: bool,
    learning_rate: float,
    devices: int,
) -> Compiled:
    """Compiles the loop; arguments as for `train`."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), (AXIS,))
    whole = jax.sharding.PartitionSpec()
    everywhere = lambda tree: jax.device_put(
        tree, jax.sharding.NamedSharding(mesh, whole)
    )
    draw = jax.jit(
        lambda key, epoch: _run.draws(sampler, jax.random.fold_in(key, epoch), noisy)
    )
    loop = _loop(
        _averaged(objective) if devices > 1 else objective, rule, learning_rate
    )

    def share(state, records, draws, dataset, start, stop):
        return loop(state, records, _own_part(draws, devices), dataset, start, stop)

    shared = jax.shard_map(
        share, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False
    )
    advance = shared if devices > 1 else loop
    n = num_examples(dataset)
    state = _step.start(rule, params)
    check_data(objective, params, dataset)
    dataset, state, draws = map(everywhere, (dataset, state, draw(key, np.int32(0))))
    step = _step.make_step(objective, rule, dataset, learning_rate)
    _, record = jax.eval_shape(
        lambda state, draws: step(state, jax.tree.map(lambda a: a[0], draws)),
        state,
        draws,
    )
    records = everywhere(
        jax.tree.map(lambda a: np.full(sampler.num_batches, np.nan, a.dtype), record)
    )
    compiled = (
        jax.jit(advance)
        .lower(state, records, draws, dataset, np.int32(0), np.int32(1))
        .compile()
    )
    shapes = [(leaf.dtype.name, leaf.shape) for leaf in jax.tree.leaves(dataset)]
    words = (
        f"{jax.tree.structure((state, draws, dataset))} {shapes} on {devices} devices"
    )

    def drawn(key, epoch):
        found = everywhere(draw(key, np.int32(epoch)))
        if n is not None:
            check_indices(found.indices, n)
        return found

    return Compiled(
        Place(
            0, 0, state, records, (), (), 0.0, digest(words, key, state, records, draws)
        ),
        drawn,
        lambda state, records, draws, start, stop: compiled(
            state, records, draws, dataset, np.int32(start), np.int32(stop)
        ),
    )


def _loop(
    objective: Callable[[Params, Any], Array],
    rule: optax.GradientTransformation,
    learning_rate: float,
):
    """Steps from start to stop - 1. The number of trips is told, so that XLA unrolls nothing and no bit depends on it."""

    def loop(state, records, draws, dataset, start, stop):
        step = _step.make_step(objective, rule, dataset, learning_rate)
        noise = (
            None if draws.key is None else jax.random.key_data(draws.key)
        )  # JAX's checker takes key[i] for a reuse.

        def one(i, carry):
            state, records = carry
            indices = None if draws.indices is None else draws.indices[i]
            key = (
                None
                if noise is None
                else jax.random.wrap_key_data(
                    noise[i], impl=jax.random.key_impl(draws.key)
                )
            )
            state, record = step(state, _step.Draw(indices, key))
            return state, jax.tree.map(
                lambda all_steps, new: all_steps.at[i].set(new), records, record
            )

        return jax.lax.fori_loop(start, stop, one, (state, records))

    return loop


def _own_part(draws: _step.Draw, devices: int) -> _step.Draw:
    """The share of each batch that this device takes, and its own noise."""
    device = jax.lax.axis_index(AXIS)
    indices = draws.indices
    if indices is None:
        raise ValueError(
            "a full batch draws no indices to split over devices; use samplers.minibatch(n, n)."
        )
    shares = indices.reshape(len(indices), devices, -1)
    noise = (
        None
        if draws.key is None
        else jax.vmap(lambda key: jax.random.fold_in(key, device))(draws.key)
    )
    return _step.Draw(
        jax.lax.dynamic_index_in_dim(shares, device, 1, keepdims=False), noise
    )


def _averaged(
    objective: Callable[[Params, Any], Array],
) -> Callable[[Params, Any], Array]:
    """The objective of a batch that the devices share: its value and its gradient are means over them."""

    @jax.custom_vjp
    def averaged(params, batch):
        return _mean_over_devices(objective(params, batch))

    def forward(params, batch):
        return _mean_over_devices(jax.value_and_grad(objective)(params, batch))

    def backward(gradient, cotangent):
        return jax.tree.map(lambda g: cotangent.astype(g.dtype) * g, gradient), None

    averaged.defvjp(forward, backward)
    return averaged


def _mean_over_devices(tree: Any) -> Any:
    """The mean of each array over the devices, which on a CPU meet once for each: so small ones of a dtype go as one."""
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
    """Undoes `_joined`."""
    if len(like) == 1:
        return [joined]
    parts = jnp.split(joined, np.cumsum([leaf.size for leaf in like])[:-1])
    return [part.reshape(leaf.shape) for part, leaf in zip(parts, like, strict=True)]
