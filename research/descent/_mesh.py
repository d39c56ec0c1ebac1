"""The devices that share one training, in one process or in many."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.checks import check_count, check_flag, check_instance
from research.descent._codec import as_numbers
from research.descent._collectives import AXIS, split_axis
from research.descent._processes import texts_of_all


class Mesh(NamedTuple):
    """The devices that share a training, and how they share it.

    Attributes:
      devices: JAX's mesh of these devices, with one axis.
      shard_params: If True, each device stores only its part of the params and of the
        state of the update rule.
      exact: If True, a sum over the devices adds its terms in the order of the devices.
        The bits of the sum then do not depend on the number of processes.
    """

    devices: jax.sharding.Mesh
    shard_params: bool
    exact: bool

    @property
    def num_devices(self) -> int:
        """Number of devices."""
        return self.devices.size


def mesh(
    num_devices: int | None = None, *, shard_params: bool = False, exact: bool = True
) -> Mesh:
    """Return a mesh: devices of one or many processes that share one training.

    Each device computes the gradient on its share of every batch. The mean of these
    gradients over the devices is the gradient of the batch.

    *Data parallel* (the default): every device holds all params and the whole state of
    the update rule.

    *Fully sharded* (`shard_params=True`): each array of params and rule state is split
    over the devices, along the longest axis whose length is a multiple of num_devices.
    An array without such an axis is not split. In each step, every device collects the
    whole params. If the rule updates each entry independently of the other entries, as
    Adam does, each device receives its part of the batch's gradient and updates its
    part of the arrays. Any other rule (Muon, Shampoo, a line search) gets the whole
    arrays of gradient, params and rule state for the time of its update, and every
    device computes the same update.

    *Exact* (the default): gradients are added in the order of the devices. The bits of
    a training then depend on the number of devices, but not on the number of processes
    that own the devices. The bits are independent of the number of processes only if
    the thread pool of XLA has the same size in each process
    (`research.backend.configure(pool=...)`). With `exact=False` XLA chooses the order
    of the additions. Results with different numbers of processes then agree up to
    rounding.

    Args:
      num_devices: Number of devices. None means all devices of all processes. With
        several processes, each process provides the same number of devices.
      shard_params: Whether params and rule state are split over the devices.
      exact: Whether gradients are added in the order of the devices.
    Returns:
      The mesh, for `train`.
    Raises:
      ValueError: num_devices is not a positive integer, JAX has fewer than num_devices
        devices, num_devices is not a multiple of the number of processes, or a process
        has too few devices.
      TypeError: shard_params or exact is not a bool.
    Example:
      >>> mesh(1).num_devices
      1
    """
    check_flag("shard_params", shard_params)
    check_flag("exact", exact)
    devices = jax.devices()
    if num_devices is not None:
        check_count("num_devices", num_devices)
        devices = _first(num_devices)
    return Mesh(jax.sharding.Mesh(np.array(devices), (AXIS,)), shard_params, exact)


def _first(num_devices: int) -> list[Any]:
    """Return num_devices devices: the first devices of each process, equally many."""
    every, processes = jax.devices(), jax.process_count()
    if num_devices > len(every):
        of = "1 process" if processes == 1 else f"{processes} processes"
        raise ValueError(
            f"num_devices={num_devices}, but JAX has only {len(every)} in {of}. On a "
            f"CPU call research.backend.configure(devices={num_devices}, "
            f"pool={num_devices}) before JAX computes anything, or start more "
            "processes (descent launch --processes N FILE)."
        )
    if num_devices % processes:
        raise ValueError(
            f"num_devices must be a multiple of {processes}, because each of the "
            f"{processes} processes provides the same number of devices; got "
            f"num_devices={num_devices}."
        )
    each = num_devices // processes
    owned = [[d for d in every if d.process_index == p] for p in range(processes)]
    if min(map(len, owned)) < each:
        raise ValueError(
            f"num_devices={num_devices} needs {each} devices of each process; the "
            f"processes have {', '.join(str(len(own)) for own in owned)}."
        )
    return [device for own in owned for device in own[:each]]


def check_mesh(value: Any) -> None:
    """Raise TypeError unless a value is a Mesh."""
    check_instance("mesh", value, Mesh, "Make one by research.descent.mesh().")


def axes_of(tree: Any, mesh: Mesh) -> list[int | None]:
    """Return, for each leaf of a tree, the axis along which the mesh splits the leaf.

    None stands for a leaf that is not split.
    """
    if not mesh.shard_params:
        return [None] * len(jax.tree.leaves(tree))
    return [
        None if _is_key(leaf) else split_axis(leaf.shape, mesh.num_devices)
        for leaf in jax.tree.leaves(tree)
    ]


def specs_of(tree: Any, axes: Sequence[int | None]) -> Any:
    """Return a tree of `jax.sharding.PartitionSpec`, one for each leaf of a tree.

    `axes` has the axis along which each leaf is split, or None for a leaf that is not
    split.
    """
    specs = [
        jax.sharding.PartitionSpec(*[None] * axis, AXIS)
        if axis is not None
        else jax.sharding.PartitionSpec()
        for axis in axes
    ]
    return jax.tree.unflatten(jax.tree.structure(tree), specs)


def placed(tree: Any, mesh: Mesh, axes: Sequence[int | None] | None = None) -> Any:
    """Put a tree of arrays on the devices of the mesh.

    Every process must pass whole arrays. `axes` has the axis along which each leaf is
    split. If the axis of a leaf is None, each device gets the whole leaf. With
    axes=None, no leaf is split.
    """
    axes = axes or [None] * len(jax.tree.leaves(tree))
    return jax.tree.map(
        lambda leaf, spec: put(leaf, jax.sharding.NamedSharding(mesh.devices, spec)),
        tree,
        specs_of(tree, axes),
    )


def put(leaf: Any, sharding: Any) -> jax.Array:
    """Put an array, which this process holds completely, on the devices of a sharding.

    `jax.device_put` compares the arrays of the processes, and the comparison fails for
    arrays with NaN. This function does not compare them.
    """
    if _is_key(leaf):
        data, kind = put(jax.random.key_data(leaf), sharding), jax.random.key_impl(leaf)
        return jax.jit(lambda data: jax.random.wrap_key_data(data, impl=kind))(data)
    array = np.asarray(leaf)
    return jax.make_array_from_callback(array.shape, sharding, lambda at: array[at])


def whole(tree: Any, mesh: Mesh) -> Any:
    """Return a tree of the same arrays, each complete on one device of this process.

    Arrays that are split over devices are joined. If there are several processes, all
    of them must call this function.
    """
    everywhere = jax.sharding.NamedSharding(mesh.devices, jax.sharding.PartitionSpec())
    if not all(leaf.is_fully_replicated for leaf in jax.tree.leaves(tree)):
        tree = jax.jit(lambda tree: tree, out_shardings=everywhere)(tree)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def check_whole_alike(tree: Any) -> None:
    """Raise ValueError if devices hold different values of an array that is not split.

    Each device computes its own copy of such an array. Processors of different kinds
    may round differently, so that the copies drift apart.
    """
    hashed = []
    for shards in (leaf.addressable_shards for leaf in _whole_leaves(tree)):
        hashed.append([as_numbers(shard.data).tobytes() for shard in shards])
    digests = [
        hashlib.sha256(b"".join(copies)).hexdigest()
        for copies in zip(*hashed, strict=True)
    ]
    every = [d for text in texts_of_all(" ".join({*digests})) for d in text.split()]
    if len({*every}) > 1:
        raise ValueError(
            "the devices hold different values of the same array, so the training "
            "would be wrong: their processors or libraries round differently. Use "
            "devices of one kind."
        )


def _whole_leaves(tree: Any) -> list[jax.Array]:
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.is_fully_replicated]


def digest_parts(tree: Any) -> list[np.ndarray]:
    """Return the arrays that a digest of the tree uses, one for each leaf.

    For a leaf that is split, the array is the shape of the leaf, because this process
    may hold only some parts of the leaf. For any other leaf, the array contains the
    numbers of the leaf.
    """
    return [
        as_numbers(leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf)
        if getattr(leaf, "is_fully_replicated", True)
        else np.array(leaf.shape)
        for leaf in jax.tree.leaves(tree)
    ]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
