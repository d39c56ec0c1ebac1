"""Sums over the devices that share a training, and arrays split over these devices.

All functions except `split_axis` run inside `jax.shard_map`, on the axis AXIS of a
mesh. Small arrays are joined before they are exchanged, because each exchange costs a
synchronisation.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from research.types import Array

AXIS = "data"  # Mesh axis over which batches, and maybe parameters, are split.
SMALL = 2**15  # Arrays with fewer entries are joined.


def split_axis(shape: Sequence[int], num_devices: int) -> int | None:
    """Return the axis along which an array is split over devices, or None.

    The axis is the longest one whose length is a multiple of num_devices. If several
    axes are equally long, the result is the first of these axes. If no length is a
    multiple of num_devices, or if there is only one device, the result is None, and
    each device keeps the whole array.

    Example:
      >>> split_axis((3, 8, 4), 4), split_axis((3,), 4), split_axis((8,), 1)
      (1, None, None)
    """
    axes = [i for i, length in enumerate(shape) if length and not length % num_devices]
    if num_devices == 1 or not axes:
        return None
    return max(axes, key=lambda i: shape[i])


def total(arrays: Sequence[Array], exact: bool) -> list[Array]:
    """Return the sum of each array over the devices, on every device.

    Each device calls this function inside `jax.shard_map`.

    Args:
      arrays: Floating arrays of this device.
      exact: If True, the terms are added in the order of the devices. The bits then do
        not depend on how the devices are divided among processes. If False, the order
        is that of XLA's all-reduce.
    Returns:
      The sums. They have derivatives of any order. In reverse mode, the cotangent of a
      sum must be equal on all devices. Each device's array then gets this cotangent.
    """
    return _total.bind(*arrays, exact=exact) if arrays else []


def spread(arrays: Sequence[Array], exact: bool) -> list[Array]:
    """Return the arrays unchanged, with a gradient that is summed over devices.

    This function is the transpose of `total`. Apply it to arrays that are equal on all
    devices, before each device uses them with its own data. The gradient with respect
    to such an array is then the sum of the gradients of all devices. `exact` is as in
    `total`.
    """
    return _spread.bind(*arrays, exact=exact) if arrays else []


def gather(arrays: Sequence[Array], axes: Sequence[int | None]) -> list[Array]:
    """Join the parts of each split array, and return the whole arrays on every device.

    Each device calls this function inside `jax.shard_map`.

    Args:
      arrays: This device's part of each array, or the whole array if it is not split.
      axes: Axis along which each array is split, from `split_axis`. None means that the
        array is not split, and is returned unchanged.
    """

    def whole(rows: Array) -> Array:
        return jax.lax.all_gather(rows[0], AXIS)  # (1, m) -> (D, m).

    split = [
        (a, axis) for a, axis in zip(arrays, axes, strict=True) if axis is not None
    ]
    rows = _by_group(
        [jnp.moveaxis(a, axis, 0).reshape(1, -1) for a, axis in split], whole
    )
    found = iter(
        _from_rows(found, a, axis) for found, (a, axis) in zip(rows, split, strict=True)
    )
    return [
        a if axis is None else next(found) for a, axis in zip(arrays, axes, strict=True)
    ]


def scatter_sum(
    arrays: Sequence[Array], axes: Sequence[int], exact: bool
) -> list[Array]:
    """Sum each array over the devices, and return this device's part of each sum.

    Each device calls this function inside `jax.shard_map`.

    Args:
      arrays: The terms of this device. They are whole arrays, not parts.
      axes: For each array, the axis along which its sum is split.
      exact: As in `total`.
    """
    num_devices = jax.lax.axis_size(AXIS)

    def part(rows: Array) -> Array:  # (D, m) -> (1, m).
        return _scattered(rows, exact)[None]

    rows = [
        jnp.moveaxis(a, axis, 0).reshape(num_devices, -1)
        for a, axis in zip(arrays, axes, strict=True)
    ]
    return [
        _from_rows(found, own_part(a, axis), axis)
        for found, a, axis in zip(_by_group(rows, part), arrays, axes, strict=True)
    ]


def own_part(array: Array, axis: int | None) -> Array:
    """Return this device's part of an array that is divided along `axis`.

    If `axis` is None, the array is not divided, and the result is the array itself.
    """
    if axis is None:
        return array
    size = array.shape[axis] // jax.lax.axis_size(AXIS)
    start = jax.lax.axis_index(AXIS) * size
    return jax.lax.dynamic_slice_in_dim(array, start, size, axis)


def _from_rows(rows: Array, part: Array, axis: int) -> Array:
    """Join the parts of an array along `axis`, where each part is a flat row.

    To make a row, `axis` of a part was moved to the front, and the part was flattened.
    `part` is an array with the shape of one part.
    """
    moved = [*part.shape]
    length = moved.pop(axis)
    return jnp.moveaxis(rows.reshape(len(rows) * length, *moved), 0, axis)


def _by_group(rows: Sequence[Array], function: Callable[[Array], Array]) -> list[Array]:
    """Apply a function to each array of shape (k, m), but join small arrays first.

    Small arrays with the same dtype are joined along the second axis. The function maps
    (k, m) to (l, m) and treats each column by itself.
    """
    groups: dict[Any, list[int]] = {}
    for i, a in enumerate(rows):
        groups.setdefault(a.dtype if a.size < SMALL else i, []).append(i)
    found: list[Any] = [None] * len(rows)
    for group in groups.values():
        joined = [rows[i] for i in group]
        result = function(joined[0] if len(group) == 1 else jnp.concatenate(joined, 1))
        ends = np.cumsum([a.shape[1] for a in joined])
        for i, end in zip(group, ends, strict=True):
            found[i] = result[:, end - rows[i].shape[1] : end]
    return found


def _sums(*arrays: Array, exact: bool) -> list[Array]:
    def summed(row: Array) -> Array:
        return _sum_of_row(row[0], exact)[None]

    rows = _by_group([a.reshape(1, -1) for a in arrays], summed)
    return [row.reshape(a.shape) for row, a in zip(rows, arrays, strict=True)]


def _sum_of_row(row: Array, exact: bool) -> Array:
    """Sum an array of shape (m,) over the devices.

    A large array is scattered and gathered: each of D devices receives 2 (D - 1) / D
    times the size of the array, as in an all-reduce. A small array is gathered whole,
    which is one exchange instead of two. Both ways make the same additions, so the
    results have the same bits.
    """
    if not exact:
        return jax.lax.psum(row, AXIS)
    num_devices = jax.lax.axis_size(AXIS)
    if row.size < SMALL or num_devices == 2:
        return _in_order(jax.lax.all_gather(row, AXIS))
    padded = jnp.pad(row, (0, -row.size % num_devices))
    part = _scattered(padded.reshape(num_devices, -1), exact)
    return jax.lax.all_gather(part, AXIS, tiled=True)[: row.size]


def _scattered(rows: Array, exact: bool) -> Array:
    """Sum `rows`, of shape (D, m), over the D devices; return row d on device d."""
    if exact:
        return _in_order(jax.lax.all_to_all(rows, AXIS, 0, 0))
    return jax.lax.psum_scatter(rows, AXIS)


def _in_order(rows: Array) -> Array:
    """Add rows one after another, in the order of the devices."""
    found = rows[0]
    for row in rows[1:]:
        found = found + row
    return found


# `total` and `spread` are linear and each other's transposes. Automatic derivatives of
# jax.lax.psum inside shard_map would sum in XLA's order, and so not exactly.
_total, _spread = Primitive("total_over_devices"), Primitive("spread_over_devices")


def _define(primitive: Primitive, transpose: Primitive, compute: Callable[..., Any]):
    """Define a linear primitive that maps arrays to arrays of the same shapes."""
    primitive.multiple_results = True

    def abstract(*arrays: Any, exact: bool):
        del exact
        return [ShapedArray(a.shape, a.dtype) for a in arrays]

    def jvp(arrays: Any, tangents: Any, *, exact: bool):
        tangents = map(ad.instantiate_zeros, tangents)
        return primitive.bind(*arrays, exact=exact), primitive.bind(
            *tangents, exact=exact
        )

    def transposed(cotangents: Any, *arrays: Any, exact: bool):
        del arrays
        return transpose.bind(*map(ad.instantiate_zeros, cotangents), exact=exact)

    def batched(arrays: Any, dims: Any, *, exact: bool):
        lead = [
            a if dim is None else jnp.moveaxis(a, dim, 0)
            for a, dim in zip(arrays, dims, strict=True)
        ]
        return primitive.bind(*lead, exact=exact), [
            None if dim is None else 0 for dim in dims
        ]

    primitive.def_abstract_eval(abstract)
    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transposed
    batching.primitive_batchers[primitive] = batched
    mlir.register_lowering(primitive, mlir.lower_fun(compute, multiple_results=True))


def _same(*arrays: Array, exact: bool) -> list[Array]:
    del exact
    return [*arrays]


_define(_total, _spread, _sums)
_define(_spread, _total, _same)
