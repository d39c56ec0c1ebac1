"""Convert params and rule states to named arrays and back, without loss."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.reading.arrays import check_arrays
from research.types import Array


def to_arrays(name: str, tree: Any) -> dict[str, np.ndarray]:
    """Return the leaves of a pytree as arrays that any .npz file can hold.

    Args:
      name: Name of the tree.
      tree: Any pytree of arrays; leaves may be JAX keys.
    Returns:
      Dict with each leaf under "name/number", where the numbers count the leaves from
      0. A key becomes its key data. An array of a dtype that NumPy lacks, such as
      bfloat16, becomes unsigned integers with the same bits.
    Example:
      >>> to_arrays("state", {"w": np.zeros(2), "b": jnp.bfloat16(1.0)})
      {'state/0': array(16256, dtype=uint16), 'state/1': array([0., 0.])}
    """
    leaves = jax.tree.leaves(tree)
    return {f"{name}/{i}": as_numbers(leaf) for i, leaf in enumerate(leaves)}


def from_arrays(name: str, like: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Rebuild the pytree whose leaves `to_arrays` converted to arrays.

    Args:
      name: Name of the tree, as it was passed to `to_arrays`.
      like: Pytree with the structure, shapes and dtypes of the original pytree.
      arrays: Arrays by name. Arrays that belong to other trees are ignored.
    Returns:
      A pytree with the structure of `like`. Each leaf is a NumPy array or a JAX key.
    Raises:
      ValueError: The array of a leaf is missing or has another shape or dtype, or there
        is an array "name/..." that belongs to no leaf.
    Example:
      >>> from_arrays("state", {"w": np.zeros(1)}, {"state/0": np.ones(1)})
      {'w': array([1.])}
    """
    leaves, structure = jax.tree.flatten(like)
    wanted = to_arrays(name, like)
    try:
        check_arrays(arrays, wanted, "the checkpoint")
        surplus = {key for key in arrays if key.startswith(f"{name}/")} - wanted.keys()
        if surplus:
            raise ValueError(f"the checkpoint has unknown arrays: {sorted(surplus)}.")
    except ValueError as error:
        raise ValueError(
            f"{error} The checkpoint was written by another version of this code, or "
            "by another training. Use --fresh to start from the beginning."
        ) from None
    found = [_like(leaf, arrays[f"{name}/{i}"]) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, found)


def as_numbers(leaf: Array | np.ndarray) -> np.ndarray:
    """Return a leaf of a pytree as an array that NumPy can store.

    A JAX key becomes its key data. An array of a dtype that NumPy lacks becomes
    unsigned integers with the same bits.

    Example:
      >>> as_numbers(jnp.bfloat16(1.0))
      array(16256, dtype=uint16)
    """
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    if array.dtype.kind in "biufc" and array.dtype.isbuiltin == 1:
        return array
    return array.view(f"u{array.itemsize}")


def _like(leaf: Array, array: np.ndarray) -> Any:
    """Undo `as_numbers` for a leaf of the same kind."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data, kind = jnp.asarray(array), jax.random.key_impl(leaf)
        return jax.random.wrap_key_data(data, impl=kind)
    return array if array.dtype == leaf.dtype else array.view(leaf.dtype)
