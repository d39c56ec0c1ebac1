"""Bytes that the devices of a mesh exchange in a step, computed from shapes."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax

from research.checks import check_count, check_flag, check_tree
from research.descent._collectives import AXIS, SMALL
from research.descent._mesh import Mesh, axes_of
from research.descent._mesh_loop import moves_in_parts
from research.descent._step import build
from research.types import Params
from research.update_rules._checks import check_rule


def bytes_per_step(
    rule: optax.GradientTransformation,
    params: Params,
    num_devices: int,
    *,
    shard_params: bool = False,
    exact: bool = True,
) -> int:
    """Return the number of bytes that each device receives in a step on a mesh.

    The result depends on these numbers, where all sizes are in bytes:

    - D: the number of devices.
    - P: the size of the params.
    - W: the size of the params that are not split over the devices.
    - S: the size of the split arrays of params and rule state.

    To sum an array of B bytes over the devices, each device receives 2 B (D - 1) / D
    bytes, as in a ring all-reduce. If exact=True, all arrays of the same dtype with
    fewer than 32,768 entries are first joined to one array. If this joined array of B
    bytes still has fewer than 32,768 entries, each device receives the whole array of
    every other device, which is (D - 1) B bytes.

    The bytes of a step depend on shard_params and on the rule:

    - shard_params=False: the gradients are summed, with B = P.
    - shard_params=True, and the rule updates each entry independently of the other
      entries: a device receives (P - W) (D - 1) / D bytes to collect the split params.
      It receives the same number of bytes to sum its part of the gradients of these
      params. The gradients of the other params are summed, with B = W. The norms of the
      gradient and of the update are also summed.
    - shard_params=True, and any other rule: a device receives S (D - 1) / D bytes to
      collect the split arrays. All gradients are summed, with B = P.

    In each case, the loss is summed too. The example below has four devices and the
    default exact=True. The gradients have 65,536 entries, so their sum costs 2 ·
    262,144 · 3 / 4 = 393,216 bytes. The loss has one entry of 4 bytes, so its sum costs
    (4 - 1) 4 = 12 bytes.

    Args:
      rule: The update rule.
      params: Parameters, or their shapes as `jax.ShapeDtypeStruct`.
      num_devices, shard_params, exact: As in `mesh`.
    Returns:
      Number of bytes, 0 for one device. If the rule itself evaluates the objective, the
      bytes of these evaluations are not included.
    Raises:
      ValueError: num_devices is not positive.
    Example:
      >>> from research.update_rules import adam
      >>> params = {"w": np.zeros((1024, 64), np.float32)}
      >>> bytes_per_step(adam(0.1), params, 4), bytes_per_step(adam(0.1), params, 1)
      (393228, 0)
    """
    check_rule(rule)
    check_tree("params", params, needs_values=False)
    check_count("num_devices", num_devices)
    check_flag("shard_params", shard_params)
    check_flag("exact", exact)
    if num_devices == 1:
        return 0
    devices: Any = jax.sharding.AbstractMesh((num_devices,), (AXIS,))
    mesh = Mesh(devices, shard_params, exact)
    init, _ = build(lambda params, batch: params, rule, None)
    state = jax.eval_shape(init, params)
    grads = jax.tree.leaves(state.params)
    axes = axes_of(state.params, mesh)
    whole = [g for g, axis in zip(grads, axes, strict=True) if axis is None]
    loss = jax.ShapeDtypeStruct((), jax.numpy.result_type(*grads))
    if moves_in_parts(init, rule, params, mesh):
        # Norms are computed in at least float32.
        wide = loss.dtype if loss.dtype.itemsize >= 4 else np.dtype(np.float32)
        norms = jax.ShapeDtypeStruct((2,), wide)
        parts = sum(map(_size, grads)) - sum(map(_size, whole))
        sums = _of_sums([loss, *whole], mesh) + _of_sums([norms], mesh)
        return 2 * _share(parts, num_devices) + sums
    leaves = jax.tree.leaves(state)
    split = [
        leaf
        for leaf, axis in zip(leaves, axes_of(state, mesh), strict=True)
        if axis is not None
    ]
    gathered = _share(sum(map(_size, split)), num_devices)
    return gathered + _of_sums([loss, *grads], mesh)


def _size(leaf: Any) -> int:
    return math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize


def _share(size: int, num_devices: int) -> int:
    """Return the bytes of all parts of an array except the part of this device."""
    return size // num_devices * (num_devices - 1)


def _of_sums(arrays: Sequence[Any], mesh: Mesh) -> int:
    """Return the bytes that each device receives if `total` sums these arrays."""
    return sum(_of_sum(entries, itemsize, mesh) for entries, itemsize in _rows(arrays))


def _of_sum(entries: int, itemsize: int, mesh: Mesh) -> int:
    others = mesh.num_devices - 1
    if not mesh.exact:
        return 2 * others * entries * itemsize // mesh.num_devices
    if entries < SMALL or mesh.num_devices == 2:
        return entries * itemsize * others
    return 2 * math.ceil(entries / mesh.num_devices) * itemsize * others


def _rows(arrays: Sequence[Any]) -> Iterator[tuple[int, int]]:
    """Yield (number of entries, bytes per entry) of each array that `total` sums.

    Small arrays of a dtype count as one array, because `total` joins them.
    """
    small: dict[Any, int] = {}
    for a in arrays:
        size = math.prod(a.shape)
        if size < SMALL:
            small[a.dtype] = small.get(a.dtype, 0) + size
        else:
            yield size, np.dtype(a.dtype).itemsize
    for dtype, size in small.items():
        yield size, np.dtype(dtype).itemsize
